"""The algebras by name: each function returns the `StarAlgebra` of one transform, or of several.

M is orthonormal, and the algebra that of real tensors, unless said otherwise.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from cutnn.algebra import _fast
from cutnn.algebra._learned import star as learned_star
from cutnn.algebra.star import StarAlgebra
from cutnn.algebra.transforms import Fourier, Identity, Transform
from cutnn.device import to_host
from cutnn.tape import Traced, raw

__all__ = [
    "dct",
    "dst",
    "fft",
    "from_data",
    "from_matrix",
    "haar",
    "hadamard",
    "hartley",
    "identity",
    "plain",
    "product",
    "random_orthogonal",
]


def dct(n: int) -> StarAlgebra:
    """The algebra of the orthonormal DCT-II: M[k, j] = √(2/n) cos(π (2j+1) k / 2n), row 0 over √2.

    >>> from cutnn import algebra
    >>> algebra.dct(28)
    dct(28)
    """
    return StarAlgebra(Transform("dct", _length(n), _dct_matrix, scale=1.0, fast=_fast.DCT))


def dst(n: int) -> StarAlgebra:
    """The algebra of the orthonormal DST-II: M[k, j] = √(2/n) sin(π (2j+1) (k+1) / 2n), the last row over √2.

    >>> from cutnn import algebra
    >>> algebra.dst(28).transforms[0].scale
    1.0
    """
    return StarAlgebra(Transform("dst", _length(n), _dst_matrix, scale=1.0, fast=_fast.DST))


def fft(n: int) -> StarAlgebra:
    """The algebra of the t-product: M is the unnormalised DFT, MᴴM = n I. Real tensors have half spectra.

    A ★ B = fold(bcirc(A) unfold(B)), circular convolution of tubes. (Kilmer, Martin 2011.)

    >>> from cutnn import algebra
    >>> import numpy as np
    >>> a, b = np.array([1.0, 2, 3]).reshape(3, 1, 1), np.array([0.0, 1, 0]).reshape(3, 1, 1)
    >>> np.round(algebra.fft(3)(a, b).ravel(), 12)
    array([3., 1., 2.])
    """
    return StarAlgebra(Fourier(_length(n)))


def hartley(n: int) -> StarAlgebra:
    """The algebra of the orthonormal Hartley transform: M[k, j] = (cos + sin)(2π j k / n) / √n.

    >>> from cutnn import algebra
    >>> algebra.hartley(2).transforms[0].matrix().round(3)
    array([[ 0.707,  0.707],
           [ 0.707, -0.707]])
    """
    return StarAlgebra(Transform("hartley", _length(n), _hartley_matrix, scale=1.0, fast=_fast.HARTLEY))


def hadamard(n: int) -> StarAlgebra:
    """The algebra of Sylvester's orthonormal Hadamard matrix; ValueError unless n is a power of two.

    >>> from cutnn import algebra
    >>> algebra.hadamard(4).transforms[0].matrix()
    array([[ 0.5,  0.5,  0.5,  0.5],
           [ 0.5, -0.5,  0.5, -0.5],
           [ 0.5,  0.5, -0.5, -0.5],
           [ 0.5, -0.5, -0.5,  0.5]])
    """
    n = _power_of_two("hadamard", n)
    return StarAlgebra(Transform("hadamard", n, _fast.hadamard_matrix, scale=1.0, fast=_fast.HADAMARD))


def haar(n: int) -> StarAlgebra:
    """The algebra of the orthonormal Haar wavelets, coarse to fine; ValueError unless n is a power of two.

    >>> from cutnn import algebra
    >>> (transform,) = algebra.haar(4).transforms
    >>> transform.matrix().round(3) + 0.0
    array([[ 0.5  ,  0.5  ,  0.5  ,  0.5  ],
           [ 0.5  ,  0.5  , -0.5  , -0.5  ],
           [ 0.707, -0.707,  0.   ,  0.   ],
           [ 0.   ,  0.   ,  0.707, -0.707]])
    """
    n = _power_of_two("haar", n)
    return StarAlgebra(Transform("haar", n, _haar_matrix, scale=1.0, fast=_fast.HAAR))


def identity(n: int) -> StarAlgebra:
    """The algebra of M = I: the facewise product itself.

    >>> from cutnn import algebra
    >>> import numpy as np
    >>> A, B = np.ones((3, 2, 2)), np.ones((3, 2, 1))
    >>> np.array_equal(algebra.identity(3)(A, B), A @ B)
    True
    """
    return StarAlgebra(Identity(_length(n)))


def random_orthogonal(n: int, seed: int | np.random.Generator | None = None) -> StarAlgebra:
    """The algebra of a random orthogonal M, uniform over the group (Haar measure).

    >>> from cutnn import algebra
    >>> algebra.random_orthogonal(8, seed=0) == algebra.random_orthogonal(8, seed=0)
    True
    """
    n = _length(n)
    Q, R = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
    Q *= np.where(np.diagonal(R) < 0, -1.0, 1.0)  # makes the distribution uniform (Mezzadri 2007)
    label = f"random_orthogonal({n}, seed={seed})" if isinstance(seed, int) else f"random_orthogonal({n})"
    return StarAlgebra(Transform("random_orthogonal", n, Q, scale=1.0, label=label))


def from_matrix(M: Any, max_condition: float = 1e8) -> StarAlgebra:
    """The algebra of any invertible M, (n, n), real or complex; a copy of M is kept, in double precision.

    With a complex M products of real tensors are complex. An M that `ct.grad` traces is taken as it is, and gradients
    flow to it: see `algebra.learned.star`. Raises ValueError where M is not square, not
    finite or of a condition number above `max_condition`: a product loses as many digits as that has.

    >>> from cutnn import algebra
    >>> algebra.from_matrix([[1.0, 1.0], [0.0, 1.0]])
    from_matrix(2 x 2 real, condition 2.6)
    """
    if type(M) is Traced:
        from_matrix(raw(M), max_condition)  # raises where this M makes no algebra
        return learned_star(M, manifold="general")
    M = np.asarray(to_host(M))
    if M.ndim != 2 or M.shape[0] != M.shape[1] or M.shape[0] == 0:
        raise ValueError(f"from_matrix: M has shape {M.shape}; expected a square matrix (n, n), n > 0")
    if M.dtype.kind not in "iubfc":
        raise TypeError(f"from_matrix: M holds {M.dtype}; expected real or complex numbers")
    M = M.astype(np.complex128 if M.dtype.kind == "c" else np.float64)
    n = M.shape[0]
    if not np.isfinite(M).all():
        k, j = (int(i) for i in np.argwhere(~np.isfinite(M))[0])
        raise ValueError(f"from_matrix: M holds non-finite numbers, the first is M[{k}, {j}] = {M[k, j]}")
    values = np.linalg.svd(M, compute_uv=False)
    with np.errstate(over="ignore"):
        condition = float(values[0] / values[-1]) if values[-1] > 0 else np.inf
    if not condition <= max_condition:
        raise ValueError(
            f"from_matrix: M, {n} x {n}, is singular or nearly so: its condition number is "
            f"{condition:.3g}, above {max_condition:.3g}. Choose an M of full rank, or raise max_condition "
            "and lose as many digits"
        )
    unitary = condition - 1 <= 10 * n * np.finfo(float).eps and 1e-150 < values[0] < 1e150  # c would overflow
    scale = float(np.mean(values**2)) if unitary else None
    kind = "complex" if M.dtype.kind == "c" else "real"
    label = f"from_matrix({n} x {n} {kind}, condition {condition:.2g})"
    return StarAlgebra(Transform("from_matrix", n, M, scale=scale, label=label))


def from_data(X: Any, tubes: int = 1) -> StarAlgebra:
    """The algebra whose M suits a tensor X (*batch, *shape, l, m): singular vectors of its tubes.

    M = Uᴴ for the (n, everything else) unfolding U Σ Vᴴ of X, one for each of its `tubes` tube axes; of Â the
    first face then holds the most energy. Raises ValueError where X has too few axes, is empty or not finite.

    >>> from cutnn import algebra
    >>> import numpy as np
    >>> X = np.multiply.outer([3.0, 4.0], np.ones((2, 2)))  # every tube is a multiple of (3, 4)
    >>> abs(algebra.from_data(X).forward(X)[:, 0, 0].round(12))
    array([5., 0.])
    """
    X = np.asarray(to_host(X))
    if tubes < 0 or X.ndim < tubes + 2 or X.size == 0:
        raise ValueError(
            f"from_data: X has shape {X.shape}; expected (..., {'n, ' * max(tubes, 0)}l, m), and not empty"
        )
    if not np.isfinite(X).all():
        raise ValueError("from_data: X holds non-finite numbers")
    return StarAlgebra(*(_singular_vectors(X, X.ndim - 2 - tubes + k) for k in range(tubes)))


def plain() -> StarAlgebra:
    """The algebra of matrices: no tube axes, and the product is `matmul`.

    >>> from cutnn import algebra
    >>> import numpy as np
    >>> algebra.plain()(np.eye(2), np.ones((2, 1))).shape
    (2, 1)
    """
    return StarAlgebra()


def product(*algebras: StarAlgebra) -> StarAlgebra:
    """The algebra of tensors with the tube axes of all of the given ones, in that order (order p).

    >>> from cutnn import algebra
    >>> star = algebra.product(algebra.dct(3), algebra.fft(4))
    >>> star, star.shape, star.n
    (product(dct(3), fft(4)), (3, 4), 12)
    """
    for star in algebras:
        if not isinstance(star, StarAlgebra):
            raise TypeError(f"product: expected algebras (algebra.dct(8), ...), not a {type(star).__name__}")
    return StarAlgebra(*(transform for star in algebras for transform in star.transforms))


# -------------------------------------------------------------------------------------------------- helpers


def _dct_matrix(n: int) -> np.ndarray:
    M = np.cos(_angles(n, np.arange(n))) * np.sqrt(2 / n)
    M[0] *= np.sqrt(0.5)
    return M


def _dst_matrix(n: int) -> np.ndarray:
    M = np.sin(_angles(n, np.arange(1, n + 1))) * np.sqrt(2 / n)
    M[-1] *= np.sqrt(0.5)
    return M


def _angles(n: int, k: np.ndarray) -> np.ndarray:
    """π (2j+1) k / 2n, up to whole turns: large angles cost digits, 3 of them at n = 512."""
    return np.pi / (2 * n) * ((2 * np.arange(n) + 1) * k[:, None] % (4 * n))


def _hartley_matrix(n: int) -> np.ndarray:
    F = np.fft.fft(np.eye(n))
    return (F.real - F.imag) / np.sqrt(n)


def _haar_matrix(n: int) -> np.ndarray:
    M = np.ones((1, 1))
    while (m := M.shape[0]) < n:
        M = np.concatenate([np.kron(M, [[1.0, 1.0]]), np.kron(np.eye(m), [[1.0, -1.0]])]) * np.sqrt(0.5)
    return M


def _singular_vectors(X: np.ndarray, axis: int) -> Transform:
    """Uᴴ of the unfolding along an axis, through the R of its transpose, which is made piece by piece."""
    n, wide = X.shape[axis], np.complex128 if X.dtype.kind == "c" else np.float64
    unfolding = np.moveaxis(X, axis, -1).reshape(-1, n)
    R = np.zeros((0, n), dtype=wide)
    rows = max(8 * n, 8192)
    for start in range(0, len(unfolding), rows):
        R = np.asarray(np.linalg.qr(np.concatenate([R, unfolding[start : start + rows]]), mode="r"))
    M = np.linalg.svd(R)[2].conj()  # R = U' Σ Vᴴ, and Rᵀ, which has the tubes for columns, conj(V) Σ ...
    largest = np.take_along_axis(M, np.abs(M).argmax(axis=1)[:, None], axis=1)
    M = M * (np.abs(largest) / largest)  # the sign is free: the largest entry is made positive
    return Transform("from_data", n, M, scale=1.0)


def _length(n: int) -> int:
    try:
        n = operator.index(n)
    except TypeError:
        raise TypeError(f"a tube length is a positive integer, not a {type(n).__name__}") from None
    if n < 1:
        raise ValueError(f"a tube length is a positive integer, not {n}")
    return n


def _power_of_two(name: str, n: int) -> int:
    n = _length(n)
    if n & (n - 1):
        below = 1 << (n.bit_length() - 1)
        raise ValueError(f"{name}: n = {n} is not a power of two; the nearest are {below} and {2 * below}")
    return n
