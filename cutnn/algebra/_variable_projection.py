"""The orthogonal M that suits data best, where the inner problem is solved exactly, face by face, at every M.

What the inner solution leaves is a function of M alone. Its gradient is that of the whole, with the inner solution
held fixed, since the whole is stationary there (the envelope theorem): nothing of the solver is differentiated.

Source: Golub, Pereyra, The differentiation of pseudo-inverses and nonlinear least squares problems whose variables
separate, SIAM J. Numer. Anal. 10 (1973); Newman, Keegan, Optimal matrix-mimetic tensor algebras via variable
projection, arXiv 2406.06942 (2024).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cutnn import array as ct
from cutnn.algebra import catalogue
from cutnn.algebra._descent import Minimum, inner, minimize
from cutnn.algebra._learned import star
from cutnn.algebra.manifolds import STIEFEL
from cutnn.algebra.star import StarAlgebra
from cutnn.algebra.transforms import Transform
from cutnn.array._products import adjoint
from cutnn.device import namespace, to_host
from cutnn.tape import raw, stop_gradient

STARTS = ("dct", "identity", "data", "random")


class LeastSquaresFit(NamedTuple):
    """The algebra of the best M, X with A ★ X ≈ B in it, the relative residual, and the descent that found M."""

    star: StarAlgebra
    X: Any
    relative_residual: float
    minimum: Minimum


def fit_lstsq(
    A: Any,
    B: Any,
    *,
    ridge: float = 0.0,
    faces: int | None = None,
    starts: Sequence[Any] = STARTS,
    seed: int | np.random.Generator | None = 0,
    tolerance: float = 1e-6,
    iterations: int = 1000,
    callback: Callable[[Minimum], bool | None] | None = None,
) -> LeastSquaresFit:
    """The orthogonal M, and X, for which ‖A ★ X − B‖² + ridge ‖X‖² is least, for A (..., n, l, m), B (..., n, l, p).

    For each M the best X is known, face by face, and the gradient of what is left holds it fixed (variable
    projection). The descent is `minimize`, from each of `starts`: "dct", "identity", "data" (singular vectors of the
    tubes of B), "random" (of `seed`; repeated for more), or an M; the lowest end is returned. With `faces` q < n the
    algebra is the projected one of the best Q (n, q), from the first q rows of a start, or from a Q. Without a ridge
    the X of least norm is taken where it is not unique. Raises ValueError for shapes that do not fit, data that are not
    finite and a negative ridge. (Newman, Keegan 2024.)

    >>> import numpy as np
    >>> from cutnn import algebra
    >>> hidden = algebra.random_orthogonal(3, seed=1)
    >>> A, X = hidden.random(6, 2, seed=2), hidden.random(2, 4, seed=3)
    >>> fit = algebra.learned.fit_lstsq(A, hidden(A, X), starts=["random"] * 3)
    >>> fit.relative_residual < 1e-4, np.allclose(fit.star(A, fit.X), hidden(A, X), atol=1e-3)
    (True, True)
    """
    A, B = _data("fit_lstsq", "A", A), _data("fit_lstsq", "B", B)
    if A.shape[-3] != B.shape[-3] or A.shape[-2] != B.shape[-2]:
        raise ValueError(
            f"fit_lstsq: A and B have shapes {tuple(A.shape)} and {tuple(B.shape)}; expected as many faces and rows"
        )
    if not ridge >= 0:
        raise ValueError(f"fit_lstsq: ridge is 0 or more, and is {ridge}")
    manifold = _manifold("fit_lstsq", B, faces)
    total = float(np.real(inner(B, B))) or 1.0

    def left(M: Any) -> Any:
        own = star(M, manifold=manifold)
        A_hat, B_hat = own.forward(A), own.forward(B)
        X_hat = _least_squares(stop_gradient(A_hat), stop_gradient(B_hat), ridge)
        residual = ct.matmul(A_hat, X_hat) - B_hat
        fixed = ridge * inner(X_hat, X_hat) if ridge else 0.0
        return (_square_sum(residual) + _beside(B, B_hat) + fixed) / total

    candidates = _starts("fit_lstsq", starts, B, faces, seed)
    minimum = _from_all(left, candidates, manifold, tolerance, iterations, callback)
    fitted = _constant(minimum.M, manifold)
    A_hat, B_hat = fitted.forward(A), fitted.forward(B)
    X_hat = _least_squares(A_hat, B_hat, ridge)
    residual = A_hat @ X_hat - B_hat
    left_over = inner(residual, residual) + float(_beside(B, B_hat))
    return LeastSquaresFit(fitted, fitted.inverse(X_hat), (max(left_over, 0.0) / total) ** 0.5, minimum)


class LowRankFit(NamedTuple):
    """The algebra of the best M, the share of ‖X‖² that its truncation keeps, the triplets kept, the descent."""

    star: StarAlgebra
    energy: float
    triplets: int
    minimum: Minimum


def fit_low_rank(
    X: Any,
    *,
    rank: int | None = None,
    count: int | None = None,
    energy: float | None = None,
    faces: int | None = None,
    starts: Sequence[Any] = STARTS,
    seed: int | np.random.Generator | None = 0,
    tolerance: float = 1e-6,
    iterations: int = 1000,
    callback: Callable[[Minimum], bool | None] | None = None,
) -> LowRankFit:
    """The orthogonal M for which the best low-rank approximation of X (..., n, l, m) has the least error.

    With `rank` the approximation is that of `star.svd(X, rank)`, k triplets a face; with `count` that of
    `star.svd_energy(X, count=count)`, the largest of all faces. With `energy`, a share below 1, the count is the
    least that holds it in the best start, and M is learned for it; then again for the smaller count that now does,
    until none does. For each M the best triplets are known, and the gradient of the error holds them fixed: it needs
    no derivative of singular vectors, and is exact where singular values meet. Descent, `faces` and starts are those of
    `fit_lstsq`, "data" the singular vectors of the tubes of X. Raises ValueError for settings out of range and data
    that are not finite, TypeError unless one of rank, count and energy is given. (Newman, Keegan 2024.)

    >>> import numpy as np
    >>> from cutnn import algebra
    >>> hidden = algebra.random_orthogonal(4, seed=1)
    >>> X = hidden(hidden.random(6, 1, seed=2), hidden.random(1, 8, seed=3))  # of tubal rank 1 in the hidden algebra
    >>> fit = algebra.learned.fit_low_rank(X, rank=1, starts=["random"])
    >>> U, S, Vh = fit.star.svd(X, rank=1)
    >>> bool(1 - fit.energy < 1e-8), np.allclose(fit.star(U, fit.star.diagonal(S), Vh), X, atol=1e-3)
    (True, True)
    """
    X = _data("fit_low_rank", "X", X)
    if sum(choice is not None for choice in (rank, count, energy)) != 1:
        raise TypeError("fit_low_rank: give one of rank, 3 say, count, 100 say, and energy, 0.9 say")
    manifold = _manifold("fit_low_rank", X, faces)
    n, rows, columns = X.shape[-3:]
    q, most = faces or n, min(rows, columns)
    if any(isinstance(k, float) for k in (rank, count)):
        raise TypeError(f"fit_low_rank: rank is {rank}, count {count}; expected whole numbers")
    if rank is not None and not 1 <= rank <= most:
        raise ValueError(f"fit_low_rank: the rank of X, {tuple(X.shape)}, is one of 1 to {most}, not {rank}")
    if count is not None and not 1 <= count <= q * most:
        raise ValueError(f"fit_low_rank: the count of triplets is one of 1 to {q * most}, not {count}")
    if energy is not None and not 0 < energy < 1:
        raise ValueError(f"fit_low_rank: the energy is a share above 0, below 1, and is {energy}")
    if rows > columns:
        X = X.mT
    if X.shape[-1] > n * X.shape[-2] and X.ndim == 3:  # its lateral slices span no more than that
        xp = namespace(X)
        R = xp.linalg.qr(X.reshape(-1, X.shape[-1]).conj().T, mode="r")
        X = R.conj().T.reshape(n, X.shape[-2], R.shape[0])
    total = float(inner(X, X)) or 1.0

    def lost(M: Any, count: int | None) -> Any:
        X_hat = star(M, manifold=manifold).forward(X)
        U = _leading(raw(X_hat), rank, count)
        off = X_hat - ct.matmul(U, ct.matmul(adjoint(U), X_hat))
        return (_square_sum(off) + _beside(X, X_hat)) / total

    descend = functools.partial(
        _from_all, manifold=manifold, tolerance=tolerance, iterations=iterations, callback=callback
    )

    def needed(M: Any) -> int:
        """The least count that holds the energy, of the tensor of a batch that needs most."""
        xp = namespace(X)
        squares = _pooled(xp.linalg.svdvals(star(M, manifold=manifold).forward(X)) ** 2)
        held = xp.cumsum(-xp.sort(-squares, axis=-1), axis=-1)
        wanted = (energy or 0) * (xp.abs(X) ** 2).sum(axis=(-3, -2, -1))
        return min(int((held < wanted[..., None]).sum(axis=-1).max()) + 1, q * most)

    candidates = _starts("fit_low_rank", starts, X, faces, seed)
    if energy is not None:
        count = min(map(needed, candidates))
    minimum = descend(functools.partial(lost, count=count), candidates)
    while energy is not None and not minimum.interrupted and (fewer := needed(minimum.M)) < (count or 0):
        count = fewer
        minimum = descend(functools.partial(lost, count=count), [minimum.M])
    kept = count if count is not None else q * (rank or 0)
    return LowRankFit(_constant(minimum.M, manifold), 1 - minimum.value, kept, minimum)


# -------------------------------------------------------------------------------------------------- helpers


def _square_sum(x: Any) -> Any:
    return ct.sum(ct.real(ct.conj(x) * x))


def _beside(X: Any, X_hat: Any) -> Any:
    """The square sum of what a projection does not keep, ‖X‖² − ‖X̂‖²; 0 for square M."""
    return 0.0 if X.shape == X_hat.shape else inner(X, X) - _square_sum(X_hat)


def _manifold(who: str, X: Any, faces: int | None) -> str:
    n = X.shape[-3]
    if faces is not None and not 1 <= faces <= n:
        raise ValueError(f"{who}: faces is one of 1 to n = {n}, not {faces}")
    return "orthogonal" if faces is None else "stiefel"


def _constant(M: Any, manifold: str) -> StarAlgebra:
    """The algebra of a learned M that learns no more."""
    M = to_host(M)
    wide = M.astype(np.complex128 if M.dtype.kind == "c" else np.float64)
    if M.dtype.itemsize < wide.dtype.itemsize:
        wide = STIEFEL.retract(wide, 0 * wide)  # orthonormal to double precision
    n, q = M.shape
    matrix, label = (
        (wide, f"learned({n})") if manifold == "orthogonal" else (wide.conj().T, f"learned({n} to {q})")
    )
    return StarAlgebra(Transform("learned", n, matrix, scale=1.0, label=label))


def _data(who: str, label: str, A: Any) -> Any:
    if not hasattr(A, "dtype"):
        raise TypeError(f"{who}: {label} is a {type(A).__name__}; expected an array of shape (..., n, l, m)")
    shape = tuple(A.shape)
    if len(shape) < 3 or 0 in shape:
        raise ValueError(f"{who}: {label} has shape {shape}; expected a tensor (..., n, l, m), and not empty")
    if A.dtype.kind not in "fc":
        A = A.astype(np.float64)
    if not bool(namespace(A).isfinite(A).all()):
        raise ValueError(f"{who}: {label} holds numbers that are not finite")
    return A


def _starts(who: str, starts: Sequence[Any], X: Any, faces: int | None, seed: Any) -> list[Any]:
    """Each M, or Q (n, faces), to start from, in the dtype and on the device of X, (..., n, l, m)."""
    if isinstance(starts, str) or not len(starts):
        raise ValueError(f"{who}: starts is {starts!r}; expected a sequence, ['dct'] say, with one at least")
    rng = np.random.default_rng(seed)
    return [_start(who, choice, X, faces, rng) for choice in starts]


def _start(who: str, choice: Any, X: Any, faces: int | None, rng: np.random.Generator) -> Any:
    n = X.shape[-3]
    M: Any
    if not isinstance(choice, str):
        M = np.asarray(to_host(choice))
        if M.shape != (n, faces or n):
            raise ValueError(
                f"{who}: a start for tubes of length {n} has shape ({n}, {faces or n}), not {M.shape}"
            )
        return namespace(X).asarray(M.astype(X.dtype), device=X.device)
    if choice == "random":
        M = STIEFEL.random(n, seed=rng)
    elif choice in STARTS:
        made = {"dct": catalogue.dct, "identity": catalogue.identity}
        suited = catalogue.from_data(X) if choice == "data" else made[choice](n)
        M = suited.transforms[0].matrix()
    else:
        raise ValueError(f"{who}: a start is one of {', '.join(STARTS)} or a matrix, not {choice!r}")
    if faces is not None:
        M = M[:faces].conj().T
    return namespace(X).asarray(M.astype(X.dtype), device=X.device)


def _from_all(
    f: Callable[[Any], Any], starts: Sequence[Any], manifold: str, tolerance: float,
    iterations: int, callback: Callable[[Minimum], bool | None] | None,
) -> Minimum:  # fmt: skip
    """The lowest minimum of those from all starts. Of their warnings, that of the lowest is given."""
    best: Minimum | None = None
    words: list[warnings.WarningMessage] = []
    for M in starts:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = minimize(
                f,
                M,
                manifold=manifold,
                tolerance=tolerance,
                typical=float(np.finfo(M.dtype).eps) ** 0.5,  # f is a share of the data's square sum
                iterations=iterations,
                callback=callback,
            )
        if best is None or found.value < best.value:
            best, words = found, caught
        if found.interrupted:
            best.interrupted = True
            break
    assert best is not None
    for word in words:
        warnings.warn(str(word.message), word.category, stacklevel=3)
    return best


def _least_squares(A: Any, B: Any, ridge: float) -> Any:
    """The X of least norm with the least ‖A X − B‖² + ridge ‖X‖², for each matrix."""
    U, s, Vh = namespace(A).linalg.svd(A, full_matrices=False)
    xp = namespace(s)
    largest = s.max(axis=(-2, -1), keepdims=True)
    cut = s <= max(A.shape[-2:]) * float(np.finfo(s.dtype).eps) * largest
    weights = xp.where(cut, 0, s / xp.where(cut, 1, s * s + ridge))
    return adjoint(Vh) @ (weights[..., None] * (adjoint(U) @ B))


def _leading(X: Any, rank: int | None, count: int | None) -> Any:
    """The left singular vectors that are kept, of matrices that are not tall; columns of zeros for those that are not.

    By the eigenvectors of X Xᴴ: their errors count in second order only, since the residual is computed from them.
    """
    xp = namespace(X)
    squares, U = xp.linalg.eigh(X @ adjoint(X))
    if count is None:
        return U[..., U.shape[-1] - (rank or 0) :]
    pooled = _pooled(squares)
    place = xp.argsort(xp.argsort(pooled, axis=-1), axis=-1)
    kept = place >= pooled.shape[-1] - count
    return xp.where(kept.reshape(squares.shape)[..., None, :], U, 0)


def _pooled(values: Any) -> Any:
    """The values of all faces, (*batch, n, k), in one axis."""
    return values.reshape((*values.shape[:-2], values.shape[-2] * values.shape[-1]))
