"""The algebras by name: each function returns the `StarAlgebra` of one transform, or of several.

M is orthonormal, and the algebra that of real tensors, unless said otherwise.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from cutnn.algebra import _fast, _wavelets
from cutnn.algebra._learned import star as learned_star
from cutnn.algebra.manifolds import STIEFEL
from cutnn.algebra.star import StarAlgebra
from cutnn.algebra.transforms import Fourier, Identity, Transform
from cutnn.device import to_host
from cutnn.tape import Traced, raw

__all__ = [
    "banded",
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
    "projected",
    "random_orthogonal",
    "wavelet",
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


def wavelet(n: int, name: str = "db4", levels: int | None = None) -> StarAlgebra:
    """The algebra of a discrete wavelet transform, periodic, by PyWavelets' filters: "db4", "sym8", "bior4.4", ...

    Rows of M are the coarse averages and then the details, coarse to fine: M a is what `pywt.wavedec` gives in mode
    "periodization", in one vector. Each level halves the averages; without `levels` there are as many as have the
    averages longer than the filter and n even. Of the orthogonal families M is orthonormal; of the biorthogonal
    ones ("bior", "rbio") and of "dmey", which is orthogonal to three digits only, it is not, and M⁻¹ is exact.
    Needs the extra `wavelets`.

    Raises ValueError for a name that PyWavelets does not know and for an n that cannot be halved so often,
    ImportError without PyWavelets. (Daubechies 1992.)

    >>> from cutnn import algebra
    >>> star = algebra.wavelet(32, "db2")
    >>> star, star.transforms[0].scale
    (wavelet(32, 'db2', levels=3), 1.0)
    """
    n = _length(n)
    levels = _wavelets.levels_of(n, name, levels)
    M = _wavelets.wavelet_matrix(n, name, levels)
    orthonormal = bool(np.abs(M @ M.T - np.eye(n)).max() < 1e-13 * n)
    label = f"wavelet({n}, {name!r}, levels={levels})"
    return StarAlgebra(Transform("wavelet", n, M, scale=1.0 if orthonormal else None, label=label))


def banded(n: int, bandwidth: int, coefficients: Any = None, max_condition: float = 1e8) -> StarAlgebra:
    """The algebra of a banded lower triangular M: each entry of M a is a combination of the last few of a.

    For tubes along time: M[t, t-j] = coefficients[j] for j < bandwidth, or, without coefficients, the mean of the
    entries there are, 1 / min(bandwidth, t+1). M is not orthogonal; M⁻¹ is lower triangular, by substitution.
    Raises ValueError for a bandwidth that is not one of 1 to n, for coefficients that do not fit it or are not
    finite, and where M has a condition number above `max_condition`, as coefficients have whose first is not the
    dominant one: their inverse grows with every step of time. (Malik, Ubaru, Horesh, Kilmer, Avron, Dynamic graph
    convolutional networks using the tensor M-product, SDM 2021.)

    >>> from cutnn import algebra
    >>> algebra.banded(4, 2).transforms[0].matrix()
    array([[1. , 0. , 0. , 0. ],
           [0.5, 0.5, 0. , 0. ],
           [0. , 0.5, 0.5, 0. ],
           [0. , 0. , 0.5, 0.5]])
    """
    n = _length(n)
    b = _whole(f"banded: the bandwidth is an integer from 1 to n = {n}", bandwidth, n)
    band = np.tri(n) - np.tri(n, k=-b)
    if coefficients is None:
        M = band / band.sum(axis=1, keepdims=True)
        label = f"banded({n}, {b})"
    else:
        given = _numbers("banded", "coefficients", coefficients)
        if given.shape != (b,):
            raise ValueError(
                f"banded: coefficients have shape {given.shape}; expected ({b},), one for each of {b} diagonals"
            )
        lag = np.subtract.outer(np.arange(n), np.arange(n))
        M = np.where(band > 0, given[np.clip(lag, 0, b - 1)], 0)
        label = f"banded({n}, {b}, coefficients from {given[0]:.3g} to {given[-1]:.3g})"
    _, scale = _condition("banded", M, max_condition)
    return StarAlgebra(Transform("banded", n, M, scale=scale, inverse=_lower_inverse(M), label=label))


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
    Q = STIEFEL.random(n, seed=seed)
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
    M = _numbers("from_matrix", "M", M)
    if M.ndim != 2 or M.shape[0] != M.shape[1] or M.shape[0] == 0:
        raise ValueError(f"from_matrix: M has shape {M.shape}; expected a square matrix (n, n), n > 0")
    n = M.shape[0]
    condition, scale = _condition("from_matrix", M, max_condition)
    kind = "complex" if M.dtype.kind == "c" else "real"
    label = f"from_matrix({n} x {n} {kind}, condition {condition:.2g})"
    return StarAlgebra(Transform("from_matrix", n, M, scale=scale, label=label))


def from_data(
    X: Any, tubes: int = 1, *, faces: int | Sequence[int] | None = None, energy: float | None = None
) -> StarAlgebra:
    """The algebra whose M suits a tensor X (*batch, *shape, l, m): singular vectors of its tubes.

    M = Uᴴ for the (n, everything else) unfolding U Σ Vᴴ of X, one for each of its `tubes` tube axes; of Â the
    first face then holds the most energy, the first q faces as much as any q can. The largest entry of each row of
    M, the first of several, is positive.

    With `faces` q, or one number for each tube axis, only the first q rows are taken, a projected algebra (see
    `projected`); with `energy`, as few of each axis as keep that share of ‖X‖², above 0 and up to 1. Raises
    ValueError where X has too few axes, is empty or not finite, and for numbers out of range. (Kilmer, Horesh,
    Avron, Newman 2021; Keegan, Newman 2024; for several axes De Lathauwer, De Moor, Vandewalle, A multilinear
    singular value decomposition, SIAM J. Matrix Anal. Appl. 21 (2000).)

    >>> from cutnn import algebra
    >>> import numpy as np
    >>> X = np.multiply.outer([3.0, 4.0], np.ones((2, 2)))  # every tube is a multiple of (3, 4)
    >>> algebra.from_data(X).forward(X)[:, 0, 0].round(12) + 0
    array([5., 0.])
    >>> algebra.from_data(X, energy=0.99)
    from_data(2, faces=1)
    """
    X = np.asarray(to_host(X))
    if tubes < 0 or X.ndim < tubes + 2 or X.size == 0:
        raise ValueError(
            f"from_data: X has shape {X.shape}; expected (..., {'n, ' * max(tubes, 0)}l, m), and not empty"
        )
    if X.dtype.kind not in "iubfc":
        raise TypeError(f"from_data: X holds {X.dtype}; expected numbers")
    if not np.isfinite(X).all():
        raise ValueError("from_data: X holds non-finite numbers")
    if faces is not None and energy is not None:
        raise TypeError(f"from_data: give faces={faces} or energy={energy}, not both")
    if energy is not None and not 0 < energy <= 1:
        raise ValueError(f"from_data: the energy is a fraction above 0, up to 1, and is {energy}")
    wanted = [faces] * tubes if faces is None or np.ndim(faces) == 0 else list(faces)  # type: ignore[arg-type]
    if len(wanted) != tubes:
        raise ValueError(
            f"from_data: faces has {len(wanted)} numbers; expected one for each of {tubes} tube axes"
        )
    transforms = []
    for k, q in enumerate(wanted):
        M, squares = _singular_vectors(X, X.ndim - 2 - tubes + k)
        n = len(M)
        if q is not None:
            q = _whole(f"from_data: the faces of tube axis {k} are an integer from 1 to n = {n}", q, n)
        elif energy is not None:
            before = np.cumsum(squares) - squares
            q = max(int(np.sum(before < energy * squares.sum())), 1)
        label = f"from_data({n})" if q in (None, n) else f"from_data({n}, faces={q})"
        transforms.append(Transform("from_data", n, M[:q], scale=1.0, label=label))
    return StarAlgebra(*transforms)


def projected(Q: Any) -> StarAlgebra:
    """The projected algebra of Q, (n, q) with orthonormal columns: A ★ B = ((A ×₃ Qᴴ) △ (B ×₃ Qᴴ)) ×₃ Q.

    Tubes have length n and transforms q faces: products cost, and layers that hold their faces have
    (`domain="transform"`), q/n of what they do for M = Qᴴ with q = n. `forward` applies Qᴴ, `inverse` Q, and one
    after the other is the projector on the range, the tensors whose tubes are in the span of Q. On the range this is
    an algebra with every law of the others; other tensors count as their projections, and results lie in the range:

    * the identity I has the tubes Q 1, and A ★ I is the projection P A of A, as is (Aᴴ)ᴴ;
    * `inv` and `solve` give the X in the range with A ★ X = I, or = P B; they exist where the q faces are regular.
      `to_matrix(A)` has the rank q l at most, so that no X solves A ★ X = B for B outside the range;
    * `svd` and its kin factor P A: of the approximations in the range those of a rank are the nearest to A, with
      the error ‖A - P A‖² + Σ σ² of what is dropped; `multirank` has q entries;
    * `norm(A)` is that of A itself, and `nuclear_norm(A)` that of P A.

    Real A have real results if Q is real. `algebra.from_data(X, faces=q)` finds the Q that keeps most of X. With
    q = n it is the algebra of M = Qᴴ. Q of float32 is made orthonormal in double precision. Raises ValueError where
    Q has another shape, or columns that are not orthonormal or not finite. (Keegan, Newman, Projected tensor-tensor
    products for efficient computation of optimal multiway data representations, arXiv:2409.19402, 2024.)

    >>> from cutnn import algebra
    >>> import numpy as np
    >>> star = algebra.projected(np.eye(5)[:, :2])
    >>> A, B = np.ones((5, 3, 4)), np.ones((5, 4, 2))
    >>> star.forward(A).shape, star(A, B)[:, 0, 0]
    ((2, 3, 4), array([4., 4., 0., 0., 0.]))
    """
    given = np.asarray(to_host(Q))
    Q = _numbers("projected", "Q", given)
    if Q.ndim != 2 or not 1 <= Q.shape[1] <= Q.shape[0]:
        hint = "; give its transpose" if Q.ndim == 2 and 1 <= Q.shape[0] < Q.shape[1] else ""
        raise ValueError(f"projected: Q has shape {Q.shape}; expected (n, q), 1 <= q <= n{hint}")
    n, q = Q.shape
    error = float(np.abs(Q.conj().T @ Q - np.eye(q)).max())
    eps = np.finfo(given.dtype if given.dtype.kind in "fc" else np.float64).eps
    if not error <= 20 * n * eps:
        raise ValueError(
            f"projected: the columns of Q, {n} x {q}, are not orthonormal: QᴴQ differs from I by {error:.2g}; "
            "np.linalg.qr(Q).Q spans the same with columns that are"
        )
    if error > 20 * n * np.finfo(np.float64).eps:
        U, _, Vh = np.linalg.svd(Q, full_matrices=False)
        Q = U @ Vh
    label = f"projected({n} to {q}{', complex' if Q.dtype.kind == 'c' else ''})"
    return StarAlgebra(Transform("projected", n, Q.conj().T, scale=1.0, label=label))


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

    Each axis may have its own M: Fourier's along time, one from data along channels, M = I where nothing is to be
    mixed, fewer faces than entries along an axis that is nearly constant. Real tensors keep real products and half
    spectra along the last Fourier axis, unless an M is complex.

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


def _numbers(name: str, label: str, x: Any) -> np.ndarray:
    """A copy of x in double precision on the host; an error unless it holds finite numbers."""
    x = np.asarray(to_host(x))
    if x.dtype.kind not in "iubfc":
        raise TypeError(f"{name}: {label}: {x.dtype}; expected real or complex numbers")
    x = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    if not np.isfinite(x).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
        raise ValueError(
            f"{name}: non-finite numbers, the first is {label}[{', '.join(map(str, first))}] = {x[first]}"
        )
    return x


def _condition(name: str, M: np.ndarray, most: float) -> tuple[float, float | None]:
    """The condition number of M, and the c of MᴴM = c I if there is one; ValueError where it is above `most`."""
    n = len(M)
    values = np.linalg.svd(M, compute_uv=False)
    with np.errstate(over="ignore"):
        condition = float(values[0] / values[-1]) if values[-1] > 0 else np.inf
    if not condition <= most:
        raise ValueError(
            f"{name}: M, {n} x {n}, is singular or nearly so: its condition number is "
            f"{condition:.3g}, above {most:.3g}. Choose an M of full rank, or raise max_condition "
            "and lose as many digits"
        )
    unitary = condition - 1 <= 10 * n * np.finfo(float).eps and 1e-150 < values[0] < 1e150  # c would overflow
    return condition, float(np.mean(values**2)) if unitary else None


def _lower_inverse(M: np.ndarray) -> np.ndarray:
    """The inverse of a lower triangular matrix, row by row: exact zeros above the diagonal."""
    X = np.zeros_like(M)
    for t in range(len(M)):
        X[t] = -(M[t, :t] @ X[:t])
        X[t, t] += 1
        X[t] /= M[t, t]
    return X


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


def _singular_vectors(X: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Uᴴ of the unfolding along an axis and its σ² beside the largest, by R of its transpose, made piece by piece."""
    n, wide = X.shape[axis], np.complex128 if X.dtype.kind == "c" else np.float64
    unfolding = np.moveaxis(X, axis, -1).reshape(-1, n)
    R = np.zeros((0, n), dtype=wide)
    rows = max(8 * n, 8192)
    for start in range(0, len(unfolding), rows):
        R = np.asarray(np.linalg.qr(np.concatenate([R, unfolding[start : start + rows]]), mode="r"))
    _, s, V = np.linalg.svd(R)
    M = V.conj()  # R = U' Σ Vᴴ, and Rᵀ, which has the tubes for columns, conj(V) Σ ...
    size = np.abs(M)
    first = (size > (1 - 1e-6) * size.max(axis=1, keepdims=True)).argmax(axis=1)  # of entries that tie
    largest = np.take_along_axis(M, first[:, None], axis=1)
    squares = np.zeros(n)
    squares[: len(s)] = (s / (s[0] or 1)) ** 2
    return M * (np.abs(largest) / largest), squares


def _length(n: int) -> int:
    try:
        n = operator.index(n)
    except TypeError:
        raise TypeError(f"a tube length is a positive integer, not a {type(n).__name__}") from None
    if n < 1:
        raise ValueError(f"a tube length is a positive integer, not {n}")
    return n


def _whole(what: str, x: Any, most: int) -> int:
    try:
        k = operator.index(x)
    except TypeError:
        raise TypeError(f"{what}, not {x!r}") from None
    if not 1 <= k <= most:
        raise ValueError(f"{what}, not {k}")
    return k


def _power_of_two(name: str, n: int) -> int:
    n = _length(n)
    if n & (n - 1):
        below = 1 << (n.bit_length() - 1)
        raise ValueError(f"{name}: n = {n} is not a power of two; the nearest are {below} and {2 * below}")
    return n
