"""The ★_M algebra: tensors that multiply as matrices do, with tubes for scalars.

Every formula is written once, for any invertible transform, real or complex, any number of tube axes and any
batch axes. Tensors are faces first, (*batch, *shape, l, m), where `shape` holds the tube lengths.

Source: Kernfeld, Kilmer, Aeron, Tensor-tensor products with invertible linear transforms, Linear Algebra and
its Applications 485 (2015); Kilmer, Horesh, Avron, Newman, Tensor-tensor algebra for optimal representation
and compression of multiway data, PNAS 118 (2021).
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cutnn import array as ct
from cutnn._cores import held
from cutnn.algebra import _checks as check
from cutnn.algebra.factor import Factorisations
from cutnn.algebra.layout import faces_first, tubes_last
from cutnn.algebra.spectral import SpectralFunctions
from cutnn.algebra.transforms import Transform
from cutnn.array._gemm import is_shared
from cutnn.device import default_namespace, namespace
from cutnn.tape import raw

__all__ = ["StarAlgebra"]


class StarAlgebra(Factorisations, SpectralFunctions):
    """The algebra of tensors under A ★ B = ((A ×₃ M) △ (B ×₃ M)) ×₃ M⁻¹, with one transform a tube axis.

    It holds its transforms and nothing else; two algebras are equal when their transforms are. `shape` is the
    tuple of tube lengths and `n` their product. Make one with `algebra.dct(28)` and its kin.

    In a projected algebra M has fewer rows than tubes have entries, and M⁻¹ only undoes what M keeps: its tensors
    are those of the range of M⁻¹, the projector is `inverse(forward(A))`, and every function is that of the
    projection of its arguments (see `algebra.projected`).

    Everything takes and returns plain arrays, float32 stays float32, integers count as float64, batch axes
    broadcast as in `matmul`, and everything is differentiable.

    >>> import numpy as np
    >>> from cutnn import algebra
    >>> star = algebra.dct(4)
    >>> A, B = star.random(2, 3, seed=0), star.random(3, 5, seed=1)
    >>> star(A, B).shape
    (4, 2, 5)
    >>> np.allclose(star.unfold(star(A, B)), star.to_matrix(A) @ star.unfold(B))
    True
    """

    def __init__(self, *transforms: Transform) -> None:
        for t in transforms:
            if not isinstance(t, Transform):
                raise TypeError(
                    f"StarAlgebra: expected transforms, not a {type(t).__name__}; algebras combine by "
                    "algebra.product"
                )
        self.transforms = transforms
        self.shape = tuple([t.n for t in transforms])
        self.n = math.prod(self.shape)
        scales = [t.scale for t in transforms if t.scale is not None]
        self.scale = math.prod(scales) if len(scales) == len(transforms) else None
        """ℓ where MᴴM = ℓI (M Mᴴ = ℓI where M has fewer rows), M of all tube axes together; else None."""
        self.real_products = all(t.real_products for t in transforms)
        """Whether products of real tensors are real: each transform is real or the Fourier transform."""
        # The order in which a tensor is transformed: complex matrices, so that none after them halves, real
        # ones, Fourier transforms from the last axis on, of which the first meets the real tubes of a real
        # tensor, and halves them, and the others meet complex ones. `inverse` goes backwards.
        axes = [(t, k - len(transforms) - 2) for k, t in enumerate(transforms)]
        self._order = sorted(axes, key=lambda step: (step[0].real_products, not step[0].real, -step[1]))
        self.face_shape = tuple([t.faces for t in transforms])
        """The tube axes of a transform: `shape`, but q where M is q × n; one face of Â for each index."""
        # How many times the size that cores share a product is held from. Around a Fourier transform one core copies
        # parts, and OpenBLAS's threads share out the rest as well: of 32 faces of 96×96 by 96×32 the product took 10 %
        # longer held, by a DCT 6 % less.
        self._held_from = 1 if all(t.real for t in transforms) else 8
        self.half_shape = self.face_shape
        """The tube axes of a real tensor's transform: `face_shape`, but n//2+1 along one Fourier axis."""
        fourier = [(t.half, axis + 2) for t, axis in self._order if not t.real]
        if fourier and self.real_products:
            half, axis = fourier[0]
            at = axis % len(self.shape)
            self.half_shape = (*self.face_shape[:at], half, *self.face_shape[at + 1 :])

    # ---------------------------------------------------------------------------------------- the product

    def __call__(self, A: Any, B: Any, *more: Any) -> Any:
        """A ★ B ★ ..., for A (..., l, m), B (..., m, p), ...: (..., l, p); each operand is transformed once.

        Raises ValueError where the shapes do not fit.
        """
        operands = self._operands("product", A, B, *more)
        check.factors(self, "product", *operands)
        with held() if is_shared(operands[0], operands[1], self._held_from) else contextlib.nullcontext():
            return self._inverse(functools.reduce(ct.matmul, [self._forward(T) for T in operands]))

    def forward(self, A: Any) -> Any:
        """Â, the transform of every tube of A.

        In a Fourier algebra a real A has its half spectrum, n//2+1 faces (`half_shape`). Of several Fourier
        axes the last is halved, and none where another M is complex: products of real tensors then are too.

        >>> from cutnn import algebra
        >>> star = algebra.fft(6)
        >>> star.forward(star.random(2, 3)).shape
        (4, 2, 3)
        """
        return self._forward(check.tensor(self, "forward", A))

    def inverse(self, A_hat: Any) -> Any:
        """A, or its projection, from its transform: real where A was, if M is real or the Fourier transform.

        >>> from cutnn import algebra
        >>> star = algebra.fft(6)
        >>> star.inverse(star.forward(star.random(2, 3))).dtype
        dtype('float64')
        """
        return self._inverse(check.transformed(self, A_hat))

    # ---------------------------------------------------------------------------------------- new tensors

    def eye(self, m: int, dtype: Any = None) -> Any:
        """The identity, (*shape, m, m): each face of its transform is the identity matrix.

        It is complex where the algebra has complex products, whatever the dtype.

        >>> from cutnn import algebra
        >>> algebra.fft(3).eye(1).ravel()
        array([1., 0., 0.])
        """
        if not all(t.constant for t in self.transforms):  # a learned M: gradients flow to it
            kind = np.result_type(dtype or np.float64, np.float16 if self.real_products else np.complex64)
            faces = default_namespace().eye(m, dtype=kind)
            return self.inverse(ct.broadcast_to(faces, (*self.face_shape, m, m)))
        tube: np.ndarray = np.ones(())
        for transform in self.transforms:
            tube = np.multiply.outer(tube, transform.identity_tube())
        wanted = np.result_type(dtype or np.float64, np.complex64 if tube.dtype.kind == "c" else np.float16)
        faces = np.zeros((*self.shape, m, m), dtype=wanted)
        faces[..., range(m), range(m)] = tube[..., None]
        return default_namespace().asarray(faces)

    def zeros(self, rows: int, columns: int, batch: tuple[int, ...] = (), dtype: Any = None) -> Any:
        """The zero tensor, (*batch, *shape, rows, columns).

        >>> from cutnn import algebra
        >>> algebra.dct(4).zeros(2, 3, batch=(10,)).shape
        (10, 4, 2, 3)
        """
        size = (*batch, *self.shape, rows, columns)
        return default_namespace().zeros(size, dtype=np.dtype(dtype or np.float64))

    def random(
        self,
        rows: int,
        columns: int,
        batch: tuple[int, ...] = (),
        seed: int | np.random.Generator | None = None,
        dtype: Any = None,
    ) -> Any:
        """A tensor of independent standard normal entries, (*batch, *shape, rows, columns).

        Complex entries have E|a|² = 1. Drawn on the host, so a seed gives the same numbers on every device. In a
        projected algebra it is the projection of that tensor, and so complex where the projector is.

        >>> from cutnn import algebra
        >>> algebra.dct(4).random(2, 3, seed=0, dtype="float32").shape
        (4, 2, 3)
        """
        generator, kind = np.random.default_rng(seed), np.dtype(dtype or np.float64)
        size = (*batch, *self.shape, rows, columns)
        entries = generator.standard_normal(size)
        if kind.kind == "c":
            entries = (entries + 1j * generator.standard_normal(size)) * math.sqrt(0.5)
        A = default_namespace().asarray(entries.astype(kind))
        return A if self.face_shape == self.shape else self.inverse(self._forward(A))

    # --------------------------------------------------------------------------------- the algebra's terms

    @functools.cached_property
    def parseval(self) -> np.ndarray | None:
        """The w of Parseval's ‖A‖² = Σ w |Â|² for real A, (*half_shape, 1, 1), on the host; None unless MᴴM = ℓI.

        It is 1/ℓ, and 2/ℓ for the entries of a half spectrum that stand for a conjugate pair. Of a projected algebra
        the sum is that of the projection.

        >>> from cutnn import algebra
        >>> algebra.fft(4).parseval.ravel()
        array([0.25, 0.5 , 0.25])
        """
        if self.scale is None:
            return None
        weights = np.full((*self.half_shape, 1, 1), 1 / self.scale)
        for axis, (n, half, faces) in enumerate(
            zip(self.shape, self.half_shape, self.face_shape, strict=True)
        ):
            if half != faces:
                pairs = np.arange(half) * 2 % n != 0
                weights *= np.where(pairs, 2, 1).reshape(-1, *[1] * (len(self.shape) - axis + 1))
        return weights

    def transpose(self, A: Any) -> Any:
        """Aᴴ, (..., m, l): the conjugate transpose of each face in the transform domain.

        For real M that swaps the matrix axes of conj(A); the Fourier transform also reverses faces 2...n.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> algebra.fft(4).transpose(np.arange(4.0).reshape(4, 1, 1)).ravel()
        array([0., 3., 2., 1.])
        """
        A = ct.matrix_transpose(ct.conj(check.tensor(self, "transpose", A)))
        for transform, axis in self._order:
            A = transform.reflect(A, axis)
        return A

    def inv(self, A: Any) -> Any:
        """A⁻¹, with A ★ A⁻¹ = I, for A (..., m, m).

        Raises numpy.linalg.LinAlgError, naming the face, where a face of Â is singular to working precision.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.fft(3)
        >>> A = star.random(2, 2, seed=0)
        >>> np.allclose(star(A, star.inv(A)), star.eye(2))
        True
        """
        A = check.tensor(self, "inv", A)
        check.square(self, "inv", A)
        return self.inverse(check.regular(self, "inv", ct.linalg.inv, self._forward(A)))

    def solve(self, A: Any, B: Any) -> Any:
        """X with A ★ X = B, for A (..., m, m) and B (..., m, p): (..., m, p); raises as `inv` does.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.dct(3)
        >>> A, B = star.random(2, 2, seed=0), star.random(2, 1, seed=1)
        >>> np.allclose(star(A, star.solve(A, B)), B)
        True
        """
        A, B = self._operands("solve", A, B)
        check.square(self, "solve", A)
        check.rows(self, "solve", A, B)
        return self.inverse(check.regular(self, "solve", ct.linalg.solve, self._forward(A), self._forward(B)))

    def apply(self, f: Callable[[Any], Any], A: Any) -> Any:
        """The tubal function M⁻¹ f(M a) of every tube a, for an elementwise f.

        With real A in a Fourier algebra f sees half the spectrum, and the result is real: f must satisfy
        f(conj z) = conj f(z), as polynomials, exp, tanh, ... with real coefficients do. For another f make A
        complex.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.fft(3)
        >>> A = np.arange(3.0).reshape(3, 1, 1)
        >>> np.allclose(star.apply(np.square, A), star(A, A))
        True
        """
        A_hat = self.forward(A)
        result = f(A_hat)
        shape = getattr(result, "shape", ())
        if shape != A_hat.shape:
            raise ValueError(
                f"{self}.apply: f must be elementwise; it made shape {shape} of shape {A_hat.shape}"
            )
        return self.inverse(result)

    def norm(self, A: Any) -> Any:
        """The Frobenius norm of the entries of each tensor of a batch, (*batch,), whatever M; ‖Â‖_F / √ℓ if MᴴM = ℓI.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> algebra.dct(3).norm(np.ones((10, 3, 4, 3))).round(1)[0]
        np.float64(6.0)
        """
        A = check.tensor(self, "norm", A)
        return ct.linalg.vector_norm(A, axis=tuple(range(-2 - len(self.shape), 0)))

    # ------------------------------------------------------------------------------------- as block matrices

    def unfold(self, A: Any) -> Any:
        """The faces of A (..., l, m) below each other, (*batch, n l, m).

        >>> from cutnn import algebra
        >>> star = algebra.dct(3)
        >>> star.unfold(star.zeros(2, 4)).shape
        (6, 4)
        """
        A = check.tensor(self, "unfold", A)
        return ct.reshape(A, (*self._batch(A), self.n * A.shape[-2], A.shape[-1]))

    def fold(self, matrix: Any) -> Any:
        """The tensor (*batch, *shape, l, m) whose `unfold` is the given matrix (*batch, n l, m).

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> algebra.dct(3).fold(np.zeros((6, 4))).shape
        (3, 2, 4)
        """
        check.foldable(self, matrix)
        *batch, rows, columns = matrix.shape
        return ct.reshape(matrix, (*batch, *self.shape, rows // self.n, columns))

    def faces_first(self, A: Any) -> Any:
        """The tensor (*batch, l, m, *shape) of the literature as (*batch, *shape, l, m), a view."""
        return check.tensor(self, "faces_first", faces_first(A, tubes=len(self.shape)))

    def tubes_last(self, A: Any) -> Any:
        """The tensor A, (*batch, *shape, l, m), as the literature has it, (*batch, l, m, *shape), a view."""
        return tubes_last(check.tensor(self, "tubes_last", A), tubes=len(self.shape))

    def to_matrix(self, A: Any) -> Any:
        """The (n l, n m) block matrix of A★: to_matrix(A) @ unfold(B) = unfold(A ★ B). Batch axes lead.

        It is (M⁻¹ ⊗ I) blockdiag(Â) (M ⊗ I), the block circulant matrix of A in the Fourier algebra: the
        definition, for checks, built from the matrices alone, whatever road the other functions take.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> np.round(algebra.fft(3).to_matrix(np.arange(3.0).reshape(3, 1, 1)), 12) + 0
        array([[0., 2., 1.],
               [1., 0., 2.],
               [2., 1., 0.]])
        """
        A = check.tensor(self, "to_matrix", A)
        batch, (rows, columns), n = self._batch(A), A.shape[-2:], self.n
        q = math.prod(self.face_shape)
        M = _kronecker([t.matrix() for t in self.transforms], A)
        M_inverse = _kronecker([t.inverse_matrix() for t in self.transforms], A)
        faces = ct.reshape(ct.astype(A, M.dtype), (*batch, n, rows * columns))
        A_hat = ct.reshape(ct.matmul(M, faces), (*batch, q, rows, 1, columns))
        blocks = A_hat * ct.reshape(M, (q, 1, n, 1))  # blockdiag(Â) (M ⊗ I)
        blocks = ct.matmul(M_inverse, ct.reshape(blocks, (*batch, q, rows * n * columns)))
        matrix = ct.reshape(blocks, (*batch, n * rows, n * columns))
        return ct.real(matrix) if A.dtype.kind != "c" and self.real_products else matrix

    # -------------------------------------------------------------------------------------------- helpers

    def _operands(self, name: str, *tensors: Any) -> list[Any]:
        """Tensors whose transforms go together: where one is complex, all have their whole spectra taken."""
        operands = [check.tensor(self, name, T, chr(ord("A") + k)) for k, T in enumerate(tensors)]
        if len(set(map(type, operands))) > 1:
            check.devices(self, name, *operands)
        if self.half_shape != self.face_shape:
            real = [T.dtype.kind != "c" for T in operands]
            if any(real) and not all(real):
                return [ct.astype(T, np.result_type(T.dtype, np.complex64)) for T in operands]
        return operands

    def _forward(self, A: Any) -> Any:
        for transform, axis in self._order:
            A = transform.forward(A, axis)
        return A

    def _inverse(self, A_hat: Any) -> Any:
        for transform, axis in reversed(self._order):
            A_hat = transform.inverse(A_hat, axis)
        return A_hat

    def _batch(self, A: Any) -> tuple[int, ...]:
        return tuple(A.shape[: A.ndim - 2 - len(self.shape)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StarAlgebra) and self.transforms == other.transforms

    def __hash__(self) -> int:
        return hash(self.transforms)

    def __repr__(self) -> str:
        names = ", ".join(map(repr, self.transforms))
        return names if len(self.transforms) == 1 else f"product({names})" if names else "plain()"


def _kronecker(matrices: list[np.ndarray], like: Any) -> Any:
    """The Kronecker product of matrices, one a tube axis, in the library and the precision of an array."""
    whole: np.ndarray = np.eye(1)
    for matrix in matrices:
        whole = np.kron(whole, matrix)
    like = raw(like)
    kind = np.result_type(like.dtype, np.complex64) if whole.dtype.kind == "c" else like.dtype
    return namespace(like).asarray(whole.astype(kind), device=like.device)
