"""Functions of tensors through eigenvalues and singular values: norms, ranks, least squares, powers, exp, ...

Each is that function of matrices, applied to the faces that determine Â (`_faces.py`).

Source: Lund, The tensor t-function, Numerical Linear Algebra with Applications 27 (2020); Miao, Qi, Wei, Generalized
tensor function via the tensor singular value decomposition based on the T-product, Linear Algebra and its Applications
590 (2020); Lu, Feng, Chen, Liu, Lin, Yan, Tensor robust principal component analysis with a new tensor nuclear norm,
IEEE Transactions on Pattern Analysis and Machine Intelligence 42 (2020); Lu, Peng, Wei, Low-rank tensor completion with
a new tensor nuclear norm induced by invertible linear transforms, CVPR 2019.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cutnn import array as ct
from cutnn.algebra import _checks as check
from cutnn.algebra._faces import Faces
from cutnn.array._products import adjoint
from cutnn.array._spectral import (
    DomainError,
    factors_of,
    frobenius,
    inverse_above,
    inverse_of_full_rank,
    nuclear_norm,
    pinv_of,
)
from cutnn.device import holds, namespace
from cutnn.tape import raw

if TYPE_CHECKING:
    from cutnn.algebra.star import StarAlgebra

__all__ = ["EigenDecomposition", "SpectralFunctions"]


class EigenDecomposition(NamedTuple):
    """The k eigenvalue tubes w, (*batch, *shape, k), and the eigenvectors V, (*batch, *shape, k, k)."""

    w: Any
    V: Any


class SpectralFunctions:
    """The functions of `StarAlgebra` through eigenvalues and singular values."""

    # -------------------------------------------------------------------------------------- decompositions

    def eigh(self: StarAlgebra, A: Any) -> EigenDecomposition:
        """w and V with A ★ V = V ★ diagonal(w) and Vᴴ ★ V = I, for A = Aᴴ, (..., m, m).

        Each face of ŵ holds the eigenvalues of that face of Â, real and ascending. Gradients are Hermitian, and finite
        at equal eigenvalues, as those of `ct.linalg.eigh`. Raises ValueError where A is not Hermitian up to rounding.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.fft(4)
        >>> A = star.random(3, 3, seed=0)
        >>> A = A + star.transpose(A)
        >>> w, V = star.eigh(A)
        >>> np.allclose(star(V, star.diagonal(w), star.transpose(V)), A)
        True
        """
        faces = _square_faces(self, "eigh", A)
        check.hermitian(self, "eigh", faces)
        w, V = faces.map(lambda x: tuple(ct.linalg.eigh((x + adjoint(x)) / 2)))
        return EigenDecomposition(faces.tubes(w), faces.tensor(V))

    def eig(self: StarAlgebra, A: Any) -> EigenDecomposition:
        """w and V with A ★ V = V ★ diagonal(w), for any A, (..., m, m): complex, the lateral slices of V̂ of norm 1.

        The eigenvalues of a face are in no order. Gradients need faces with linearly independent eigenvectors: at
        equal eigenvalues they are finite, near defective faces they grow without bound, at them is LinAlgError.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.dct(4)
        >>> A = star.random(3, 3, seed=0)
        >>> w, V = star.eig(A)
        >>> np.allclose(star(A, V), star(V, star.diagonal(w)))
        True
        """
        A = check.tensor(self, "eig", A)
        faces = _square_faces(self, "eig", ct.astype(A, np.result_type(A.dtype, np.complex64)))
        w, V = faces.map(lambda x: tuple(ct.linalg.eig(x)))
        return EigenDecomposition(faces.tubes(w), faces.tensor(V))

    def polar(self: StarAlgebra, A: Any, *, side: str = "right") -> ct.linalg.PolarResult:
        """U and P with A = U ★ P, or A = P ★ U for side="left": P Hermitian and positive semidefinite.

        For A (..., l, m) U is (..., l, m), Uᴴ ★ U = I where l ≥ m and U ★ Uᴴ = I where l ≤ m, and of all such U the
        nearest to A; P is (..., m, m), or (..., l, l) on the left. Gradients are right at equal singular values. Where
        singular values of a face are 0 U is not unique and has no derivative: the share of their vectors counts as 0,
        and the gradient of P is along changes that keep the ranks of the faces.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.fft(4)
        >>> A = star.random(3, 2, seed=0)
        >>> U, P = star.polar(A)
        >>> np.allclose(star(U, P), A), np.allclose(star(star.transpose(U), U), star.eye(2))
        (True, True)
        """
        if side not in ("left", "right"):
            raise ValueError(
                f"{self}.polar: side is {side!r}; expected 'right', A = U ★ P, or 'left', A = P ★ U"
            )
        faces = _faces(self, "polar", A)
        noise = _noise(faces)
        U, P = faces.map(lambda x: tuple(ct.linalg.polar(x, side=side, atol=noise)))
        return ct.linalg.PolarResult(faces.tensor(U), faces.tensor(P))

    # --------------------------------------------------------------------------------------- least squares

    def pinv(self: StarAlgebra, A: Any, rtol: float | None = None) -> Any:
        """The Moore-Penrose inverse A⁺, (..., m, l): that of each face of Â.

        Singular values up to rtol times the largest of all faces of a tensor count as zero; rtol is
        max(l, m, n) eps unless given. The gradient is along changes that keep the ranks of the faces.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.dct(3)
        >>> A = star.random(4, 2, seed=0)
        >>> np.allclose(star(star.pinv(A), A), star.eye(2))
        True
        """
        faces = _faces(self, "pinv", A)
        check.cutoff(self, "pinv", rtol)
        return faces.tensor(_pseudoinverse(faces, faces.parts, rtol))

    def lstsq(self: StarAlgebra, A: Any, B: Any, *, ridge: Any = 0.0, rtol: float | None = None) -> Any:
        """The X of least ‖A ★ X - B‖² + ridge ‖X‖², and of these that of least norm: (..., m, p).

        A is (..., l, m) and B (..., l, p). The norms are those of the transforms, ‖Â △ X̂ - B̂‖_F and ‖X̂‖_F: for M a
        multiple of a unitary matrix the X is that of Frobenius norms too. ridge ≥ 0 is a number or one for each tensor
        of A's batch, (*batch), and has a gradient where it is above 0; rtol as in `pinv`.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.dct(3)
        >>> A, X = star.random(4, 2, seed=0), star.random(2, 1, seed=1)
        >>> np.allclose(star.lstsq(A, star(A, X)), X)
        True
        """
        A, B = self._operands("lstsq", A, B)
        check.rows(self, "lstsq", A, B)
        check.cutoff(self, "lstsq", rtol)
        ridge = _for_each_tensor(self, "lstsq", "ridge", ridge, A)
        left, right = _faces(self, "lstsq", A), _faces(self, "lstsq", B, "B")
        parts = left.parts
        if hasattr(ridge, "shape") or ridge > 0:  # the least squares of [A; ridge^½ I] and [B; 0]
            parts = [_with_ridge(x, ridge) for x in parts]
        inverse = _pseudoinverse(left, parts, rtol)[..., : A.shape[-2]]
        return left.tensor(ct.matmul(inverse, right.joined(right.parts)))

    # ---------------------------------------------------------------------------------- functions of tensors

    def power(self: StarAlgebra, A: Any, p: float) -> Any:
        """A to the power p, (..., m, m): A ★ A ★ ... for an integer, of A⁻¹ below 0, and I for 0.

        Other real p, exp(p log A), need faces with eigenvalues off the closed negative real axis, or A = Aᴴ positive
        semidefinite, definite below 0. Raises LinAlgError, naming the face, where A has no such power. Gradients as
        those of `ct.linalg.powm`: what is infinite, for p < 1 at eigenvalues 0, counts as 0.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.fft(4)
        >>> A = star.random(3, 3, seed=0)
        >>> np.allclose(star(A, A, star.power(A, -2)), star.eye(3))
        True
        """
        if not isinstance(p, numbers.Real) or not math.isfinite(p):
            raise TypeError(f"{self}.power: p is {p!r}; expected a real number")
        if not float(p).is_integer():
            return _function(self, "power", A, lambda x, noise: ct.linalg.powm(x, p, atol=noise))
        A = check.finite(self, "power", check.tensor(self, "power", A))
        check.square(self, "power", A)
        A_hat = self._forward(A)
        if p < 0:
            A_hat = check.regular(self, "power", ct.linalg.inv, A_hat)
        return self.inverse(ct.linalg.matrix_power(A_hat, abs(int(p))))

    def sqrt(self: StarAlgebra, A: Any) -> Any:
        """The principal square root of A, (..., m, m): X ★ X = A, eigenvalues of the faces in the right half-plane.

        Each face of Â needs eigenvalues off the closed negative real axis, or A = Aᴴ is positive semidefinite. Raises
        LinAlgError, naming the face, where there is none. Gradients as those of `ct.linalg.sqrtm`.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.fft(4)
        >>> A = star.eye(3) * 9 + star.random(3, 3, seed=0)
        >>> np.allclose(star.power(star.sqrt(A), 2), A)
        True
        """
        return _function(self, "sqrt", A, lambda x, noise: ct.linalg.sqrtm(x, atol=noise))

    def log(self: StarAlgebra, A: Any) -> Any:
        """The principal logarithm of A, (..., m, m): the X with exp(X) = A, eigenvalues of imaginary part within ±π.

        Each face of Â needs eigenvalues off the closed negative real axis: LinAlgError, naming the face, where one is
        on it. Gradients as those of `ct.linalg.logm`.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.dct(4)
        >>> A = star.random(3, 3, seed=0) / 4
        >>> np.allclose(star.log(star.exp(A)), A)
        True
        """
        return _function(self, "log", A, lambda x, noise: ct.linalg.logm(x, atol=noise))

    def exp(self: StarAlgebra, A: Any) -> Any:
        """The exponential I + A + A ★ A / 2 + ..., (..., m, m); derivatives of any order.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.fft(4)
        >>> np.allclose(star.exp(star.zeros(2, 2)), star.eye(2))
        True
        """
        faces = _square_faces(self, "exp", A)
        return faces.tensor(faces.map(ct.linalg.expm))

    def trace(self: StarAlgebra, A: Any) -> Any:
        """The trace of A (..., m, m), a tube, (*batch, *shape): the sum of the tubes on the diagonal.

        >>> from cutnn import algebra
        >>> algebra.fft(3).trace(algebra.fft(3).eye(5))
        array([5., 0., 0.])
        """
        A = check.tensor(self, "trace", A)
        check.square(self, "trace", A)
        tube = ct.linalg.trace(A)
        if self.face_shape == self.shape:
            return tube
        return self.inverse(self._forward(ct.expand_dims(tube, axis=(-2, -1))))[..., 0, 0]

    def det(self: StarAlgebra, A: Any) -> Any:
        """The determinant of A (..., m, m), a tube, (*batch, *shape), whose transform holds those of the faces.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.fft(3)
        >>> A, B = star.random(2, 2, seed=0), star.random(2, 2, seed=1)
        >>> tube = lambda t: t.reshape(3, 1, 1)
        >>> np.allclose(star(tube(star.det(A)), tube(star.det(B))), tube(star.det(star(A, B))))
        True
        """
        faces = _square_faces(self, "det", A)
        return faces.tubes(ct.expand_dims(faces.map(ct.linalg.det), axis=-1))[..., 0]

    # ------------------------------------------------------------------------------------- norms and ranks

    def spectral_norm(self: StarAlgebra, A: Any) -> Any:
        """The largest singular value of all faces of Â, for each tensor of a batch, (*batch,).

        It is the norm of X ↦ A ★ X where X has the norm ‖X̂‖_F: for M a multiple of a unitary matrix that of
        `to_matrix(A)`, ‖bcirc(A)‖₂ in the Fourier algebra. Faces that tie share the gradient.

        >>> from cutnn import algebra
        >>> star = algebra.fft(4)
        >>> star.spectral_norm(3 * star.eye(2)).round(12)
        np.float64(3.0)
        """
        faces = _faces(self, "spectral_norm", A)
        if not min(A.shape[-2:]):
            return ct.sum(ct.real(A), axis=tuple(range(-2 - len(self.shape), 0)))
        return ct.max(faces.map(ct.linalg.svdvals), axis=(-2, -1))

    def cond(self: StarAlgebra, A: Any) -> Any:
        """The largest singular value of all faces of Â over the smallest, (*batch,); infinite for a singular A.

        For M a multiple of a unitary matrix it is the condition number of `to_matrix(A)`. Raises ValueError where A has
        no rows or no lateral slices, and so no singular values.

        >>> from cutnn import algebra
        >>> star = algebra.fft(4)
        >>> star.cond(star.eye(2)).round(12)
        np.float64(1.0)
        """
        faces = _faces(self, "cond", A)
        if not min(A.shape[-2:]):
            raise ValueError(f"{self}.cond: A, {tuple(A.shape)}, has no singular values")
        values = faces.map(ct.linalg.svdvals)
        smallest = ct.min(values, axis=(-2, -1))
        ratio = ct.max(values, axis=(-2, -1)) / ct.where(smallest == 0, 1, smallest)
        return ct.where(smallest == 0, math.inf, ratio)

    def nuclear_norm(self: StarAlgebra, A: Any) -> Any:
        """The tubal nuclear norm of each tensor of a batch, (*batch,): the nuclear norms of all faces of Â, over ℓ.

        MᴴM = ℓI; for the Fourier transform ℓ = n, and this is ‖bcirc(A)‖_* / n. Raises ValueError where M is not a
        multiple of a unitary matrix: then there is no ℓ, and the dual norm is not the spectral norm. The gradient at
        singular values 0 (to rounding, beside the largest face) is the subgradient of least norm. (Lu et al. 2019.)

        >>> from cutnn import algebra
        >>> star = algebra.fft(4)
        >>> star.nuclear_norm(star.eye(3)).round(12)
        np.float64(3.0)
        """
        scale = check.scale(
            self, "nuclear_norm", f"sum ct.linalg.svdvals({self}.forward(A)) for the sum over the faces"
        )
        faces = _faces(self, "nuclear_norm", A)
        noise = _noise(faces)
        return _total(faces, faces.map(lambda x: nuclear_norm(x, noise))) / scale

    def singular_value_threshold(self: StarAlgebra, A: Any, tau: Any) -> Any:
        """The X that minimises tau ‖X‖_* + ½ ‖X - A‖_F² (`nuclear_norm`, `norm`), in the range of a projected algebra.

        It is the proximal operator of the norm: of each face of Â the singular values are lowered by tau, to 0 at
        least. With MᴴM = ℓI both terms are sums over the faces, over ℓ, so that tau needs no scale. tau ≥ 0 is a
        number, or one for each tensor, (*batch). Gradients of A and tau are right at equal and at zero singular values,
        to second order. Raises ValueError for a negative tau, and where M is not a multiple of a unitary matrix. (Lu
        et al. 2020.)

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.fft(4)
        >>> np.allclose(star.singular_value_threshold(3 * star.eye(2), 1.0), 2 * star.eye(2))
        True
        """
        name = "singular_value_threshold"
        check.scale(self, name, f"threshold {self}.forward(A) by ct.linalg.svt for that of each face")
        faces = _faces(self, name, A)
        tau = _for_each_tensor(self, name, "tau", tau, A)
        return faces.tensor(faces.map(lambda x: ct.linalg.svt(x, tau)))

    def multirank(self: StarAlgebra, A: Any, rtol: float | None = None) -> Any:
        """The ranks of the faces of Â, (*batch, *face_shape).

        Singular values up to rtol times the largest of all faces count as zero; rtol is max(l, m, n) eps unless given.

        >>> from cutnn import algebra
        >>> star = algebra.fft(3)
        >>> star.multirank(star.zeros(2, 2) + 1)
        array([1, 0, 0])
        """
        return _multirank(self, "multirank", A, rtol)

    def tubal_rank(self: StarAlgebra, A: Any, rtol: float | None = None) -> Any:
        """The number of singular tubes that are not 0, (*batch,): the largest rank of a face; rtol as in `multirank`.

        >>> from cutnn import algebra
        >>> star = algebra.fft(3)
        >>> int(star.tubal_rank(star.zeros(2, 2) + 1))
        1
        """
        return _over_faces(self, "max", _multirank(self, "tubal_rank", A, rtol))

    def implicit_rank(self: StarAlgebra, A: Any, rtol: float | None = None) -> Any:
        """The sum of the ranks of the faces, (*batch,), the rank of `to_matrix(A)`; rtol as in `multirank`.

        Times l + m it is the storage of the t-SVDMII. (Kilmer, Horesh, Avron, Newman 2021.)

        >>> from cutnn import algebra
        >>> star = algebra.fft(3)
        >>> int(star.implicit_rank(star.eye(2)))
        6
        """
        return _over_faces(self, "sum", _multirank(self, "implicit_rank", A, rtol))

    def average_rank(self: StarAlgebra, A: Any, rtol: float | None = None) -> Any:
        """The mean of the ranks of the faces, (*batch,); the nuclear norm is its convex envelope. (Lu et al. 2020.)

        >>> from cutnn import algebra
        >>> star = algebra.fft(3)
        >>> float(star.average_rank(star.eye(2)))
        2.0
        """
        return _over_faces(self, "mean", _multirank(self, "average_rank", A, rtol))


# -------------------------------------------------------------------------------------------------- helpers


def _faces(star: StarAlgebra, name: str, A: Any, label: str = "A") -> Faces:
    return Faces(star, check.finite(star, name, check.tensor(star, name, A, label), label))


def _square_faces(star: StarAlgebra, name: str, A: Any) -> Faces:
    A = check.tensor(star, name, A)
    check.square(star, name, A)
    return Faces(star, check.finite(star, name, A))


def _noise(faces: Faces) -> Any:
    """The size of rounding errors in the faces, (*batch, 1): what is below it beside the largest face counts as 0."""
    parts = [raw(x) for x in faces.parts]
    xp, every = namespace(parts[0]), (-3, -2, -1)
    if not parts[0].size:
        return 0.0
    largest = xp.max(faces.joined([xp.max(xp.abs(x), axis=(-2, -1)) for x in parts]), axis=-1)
    size = xp.where(largest == 0, 1, largest)[..., None, None, None]  # no square overflows
    total = sum(xp.sum(xp.abs(x / size) ** 2, axis=every) for x in parts)
    return (10 * float(xp.finfo(parts[0].dtype).eps) * xp.sqrt(total) * largest)[..., None]


def _function(star: StarAlgebra, name: str, A: Any, function: Callable[[Any, Any], Any]) -> Any:
    """A function of the faces and their noise; a matrix out of its domain is named as the face that it is."""
    faces = _square_faces(star, name, A)
    noise = _noise(faces)
    results: list[Any] = []
    for part in faces.parts:
        try:
            results.append(function(part, noise))
        except DomainError as error:
            before = sum(x.shape[faces.lead] for x in faces.parts[: len(results)])
            place = (*error.place[:-1], error.place[-1] + before)
            raise np.linalg.LinAlgError(f"{star}.{name}: {faces.name(place)} {error.reason}") from None
    return faces.tensor(faces.joined(results))


def _pseudoinverse(faces: Faces, parts: Any, rtol: float | None) -> Any:
    """Of the faces, or of others in their place; singular values are cut beside the largest one of a tensor."""
    shape = parts[0].shape[-2:]
    above = _cutoff(faces, [frobenius(x) for x in parts], shape, rtol)
    inverses = [inverse_of_full_rank(x, above) for x in parts]
    if any(inverse is None for inverse in inverses):
        factors = [factors_of(x) for x in parts]
        cutoff = _cutoff(faces, [s for _, s, _ in factors], shape, rtol)
        inverses = [inverse_above(f, cutoff) for f in factors]
    return faces.joined([pinv_of(x, inverse) for x, inverse in zip(parts, inverses, strict=True)])


def _cutoff(faces: Faces, values: Any, shape: Any, rtol: float | None) -> Any:
    """rtol times the largest of a tensor's singular values, (*batch, f, k) in parts: (*batch, 1, 1)."""
    xp = namespace(values[0])
    if rtol is None:
        rtol = max(*shape, faces.star.n) * float(xp.finfo(values[0].dtype).eps)
    if not math.prod(values[0].shape[faces.lead + 1 :]):
        return 0.0
    return rtol * xp.max(faces.joined(values), axis=(-2, -1), keepdims=True)


def _multirank(star: StarAlgebra, name: str, A: Any, rtol: float | None) -> Any:
    faces = _faces(star, name, A)
    check.cutoff(star, name, rtol)
    values = [ct.linalg.svdvals(raw(x)) for x in faces.parts]
    cutoff = _cutoff(faces, values, A.shape[-2:], rtol)
    return faces.of_all((faces.joined(values) > cutoff).sum(axis=-1))


def _over_faces(star: StarAlgebra, reduction: str, numbers: Any) -> Any:
    return getattr(namespace(numbers), reduction)(numbers, axis=tuple(range(-len(star.shape), 0)))


def _with_ridge(x: Any, ridge: Any) -> Any:
    """[x; ridge^½ 1], (*batch, f, l + m, m)."""
    xp, m = namespace(raw(x)), x.shape[-1]
    one = xp.eye(m, dtype=x.dtype)
    root = (
        ct.astype(ct.sqrt(ridge), one.real.dtype)[..., None, None]
        if hasattr(ridge, "shape")
        else math.sqrt(ridge)
    )
    return ct.concat([x, ct.broadcast_to(root * one, (*x.shape[:-2], m, m))], axis=-2)


def _total(faces: Faces, numbers: Any) -> Any:
    """The sum of numbers of the faces, (*batch, faces), over the whole spectrum: (*batch,)."""
    return ct.sum(numbers * ct.astype(faces.times_like(numbers), numbers.dtype), axis=-1)


def _for_each_tensor(star: StarAlgebra, name: str, label: str, x: Any, A: Any) -> Any:
    """A finite number ≥ 0, or one for each tensor of a batch with an axis for its faces, (*batch, 1)."""
    if not isinstance(x, numbers.Real) and getattr(getattr(x, "dtype", None), "kind", "?") not in "fiub":
        raise TypeError(f"{star}.{name}: {label} is {x!r}; expected a real number, or an array of them")
    x = float(x) if isinstance(x, numbers.Real) else x
    shape, batch = tuple(getattr(x, "shape", ())), tuple(A.shape[: A.ndim - 2 - len(star.shape)])
    if not holds(namespace(raw(x)).all((raw(x) >= 0) & (raw(x) < math.inf))):
        raise ValueError(f"{star}.{name}: {label} is {x}; expected finite numbers of at least 0")
    if not shape:
        return x
    fits = [n in (1, length) for n, length in zip(shape[::-1], batch[::-1], strict=False)]
    if len(shape) > len(batch) or not all(fits):
        raise ValueError(
            f"{star}.{name}: {label} has shape {shape}; expected a number, or one for each tensor of the batch, {batch}"
        )
    return ct.expand_dims(x, axis=-1)
