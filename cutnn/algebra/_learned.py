"""The transform of an array M that gradients flow to, and the algebra made of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from cutnn import array as ct
from cutnn.algebra._modes import mode_product
from cutnn.algebra.manifolds import STIEFEL
from cutnn.algebra.star import StarAlgebra
from cutnn.algebra.transforms import Transform
from cutnn.device import namespace, to_host
from cutnn.tape import raw

MANIFOLDS = ("orthogonal", "stiefel", "general")


def star(*matrices: Any, manifold: str = "orthogonal") -> StarAlgebra:
    """The algebra of M, (n, n), an array as it is, traced or not; of several, one a tube axis, in that order.

    On the manifold "orthogonal" M is orthogonal or, if complex, unitary, and M⁻¹ = Mᴴ: gradients are those of a
    function of M in which the inverse is written so, and their projection is the Riemannian gradient. On "stiefel" the
    array is Q, (n, q) with orthonormal columns, and the algebra the projected one: Qᴴ forward, Q back
    (`algebra.projected`). Both may be off by rounding, and are not corrected. With "general" M is any invertible
    matrix, inverted here. The array stays in its dtype and is cast to that of the tensors. Raises ValueError for
    shapes that do not fit, and for columns that are not orthonormal to the square root of their precision, LinAlgError
    for an M that cannot be inverted.

    >>> import numpy as np
    >>> import cutnn as ct
    >>> from cutnn import algebra
    >>> A, B = np.ones((2, 3, 1)), np.ones((2, 1, 3))
    >>> ct.grad(lambda M: ct.sum(algebra.learned.star(M)(A, B)))(np.eye(2))
    array([[27., 27.],
           [27., 27.]])
    """
    transforms = [Learned(M, manifold) for M in matrices]
    for M in matrices if manifold != "general" else ():
        value = raw(M)
        error, bound = STIEFEL.distance(value), float(np.finfo(value.dtype).eps) ** 0.5
        if not error <= bound:
            raise ValueError(
                f"learned.star: MᴴM differs from I by {error:.2g}, more than {bound:.2g}; make its columns "
                'orthonormal, by the Q factor of ct.linalg.qr(M) say, or take manifold="general"'
            )
    return StarAlgebra(*transforms)


def parameters(star: StarAlgebra) -> tuple[Any, ...]:
    """The learned matrices of an algebra, () where all of M is constant."""
    return tuple([t.M for t in star.transforms if isinstance(t, Learned)])


def with_parameters(star: StarAlgebra, matrices: tuple[Any, ...]) -> StarAlgebra:
    """The algebra with other arrays for its learned matrices."""
    given = iter(matrices)
    return StarAlgebra(
        *[Learned(next(given), t.manifold) if isinstance(t, Learned) else t for t in star.transforms]
    )


class Learned(Transform):
    """The transform of an array M that gradients flow to; `star` makes the algebra, and looks whether M is orthogonal.

    `matrix` and `to_matrix` have the values of M alone, without gradients. Two are equal only where they are the
    same object.
    """

    constant = False

    def __init__(self, M: Any, manifold: str = "orthogonal") -> None:
        if manifold not in MANIFOLDS:
            raise ValueError(f"learned.star: manifold is one of {MANIFOLDS}, not {manifold!r}")
        value = raw(M)
        shape, kind = tuple(getattr(value, "shape", ())), getattr(getattr(value, "dtype", None), "kind", "?")
        tall = manifold == "stiefel"
        if len(shape) != 2 or not (shape[0] >= shape[1] > 0 if tall else shape[0] == shape[1] > 0):
            expected = "a tall Q (n, q), 1 <= q <= n" if tall else "a square matrix (n, n), n > 0"
            raise ValueError(f"learned.star: M has shape {shape}; expected {expected}")
        if kind not in "fc":
            raise TypeError(f"learned.star: M holds {value.dtype}; expected an array of floats")
        super().__init__("learned", shape[0], np.eye, scale=None if manifold == "general" else 1.0)
        self.faces = shape[1]
        self.real = kind != "c"
        self.manifold = manifold
        self.M = M
        adjoint = ct.conj(M).T
        match manifold:
            case "orthogonal":
                self._maps = {"M": M, "inverse": adjoint}
            case "stiefel":
                self._maps = {"M": adjoint, "inverse": M}
            case _:
                self._maps = {"M": M, "inverse": ct.linalg.inv(M)}
        if not self.real or self.faces < self.n:
            self._maps["reflection"] = ct.matmul(self._maps["inverse"], ct.conj(self._maps["M"]))

    def identity_tube(self) -> Any:
        """M⁻¹ 1, (n,)."""
        return ct.sum(self._maps["inverse"], axis=1)

    def _apply(self, which: str, A: Any, axis: int) -> Any:
        M = self._maps[which]
        if not self.real and A.dtype.kind != "c":
            A = ct.astype(A, np.result_type(A.dtype, np.complex64))
        if type(raw(A)) is not type(raw(M)):
            namespace(raw(A), raw(M))  # says which array lives where
        return mode_product(A, M if M.dtype == A.dtype else ct.astype(M, A.dtype), axis)

    def _build(self, which: str) -> np.ndarray:
        return to_host(raw(self._maps[which]))

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)
