"""The nearest matrix of a rank, `low_rank`, with derivatives of its own.

Of the factors of an SVD the derivatives have the reciprocals of all gaps between singular values in them; of the
truncated matrix only those of the gap that the rank is cut at. It is f(A) for f(s) = s above a threshold, else 0,
and its derivatives are divided differences of f (`_differences.py`).

Source: Feppon, Lermusiaux, A geometric approach to dynamical model order reduction, SIAM Journal on Matrix Analysis
and Applications 39 (2018), theorem 25: the derivative of the orthogonal projection on matrices of a rank.
"""

from __future__ import annotations

import warnings
from typing import Any

from cutnn.array._define import fit
from cutnn.array._differences import Hard
from cutnn.array._spectral import _cutoff, _odd_first, factors_of
from cutnn.array.elementwise import conj
from cutnn.device import holds, namespace, to_host
from cutnn.tape import NotDifferentiableWarning, constant, primitive, raw


def low_rank(x: Any, /, rank: Any) -> Any:
    """The nearest matrix of that rank, of Frobenius norm: the first `rank` terms of U @ diag(S) @ Vh.

    x is (*batch, l, m), rank a number from 0 to min(l, m), or one for each matrix, (*batch). The gradient, first and
    second, meets no gap between singular values but the one the rank is cut at: it is right where others are equal,
    clustered or 0. Where the rank of x is below `rank` it is that along changes that keep it. Where the singular
    values on both sides of the cut are equal, and not 0, there is no derivative: NotDifferentiableWarning, and the
    gradient of the truncation that keeps them all. (Feppon, Lermusiaux 2018.) Raises ValueError for a rank out of
    range, TypeError for one that is no integer.

    >>> import cutnn as ct
    >>> ct.linalg.low_rank(ct.asarray([[3.0, 0.0], [0.0, 1.0]]), 1)
    array([[3., 0.],
           [0., 0.]])
    """
    most, least = min(x.shape[-2:]), raw(rank)
    if not isinstance(least, int) and getattr(getattr(least, "dtype", None), "kind", "?") not in "iu":
        raise TypeError(f"low_rank: the rank is {least!r}; expected an integer, or an array of them")
    allowed = (least >= 0) & (least <= most)
    if not holds(allowed if isinstance(allowed, bool) else allowed.all()):
        raise ValueError(f"low_rank: the rank of x, {tuple(x.shape)}, is one of 0 to {most}, not {least}")
    return low_rank_of(x, factors_of(x), rank) if most else 1 * x


def low_rank_of(x: Any, factors: Any, rank: Any) -> Any:
    """The same, given the factors U, S, Vh of x."""
    kept, tau, tied = _cut(factors[1], rank)
    return _low_rank(x, kept, tau, tied, factors)


def _low_rank_rule(g: Any, x: Any, tau: Any, tied: Any, factors: Any) -> Any:
    _warn(tied, factors[1])
    return fit(conj(_odd_first(x, conj(g), tau, Hard, factors)), x.shape, x.dtype)


@primitive(x=_low_rank_rule)
def _low_rank(x: Any, kept: Any, tau: Any, tied: Any, factors: Any) -> Any:
    u, s, vh = factors
    return (u * namespace(s).where(kept, s, 0)[..., None, :]) @ vh


@constant
def _cut(s: Any, rank: Any) -> tuple[Any, Any, Any]:
    """Which of the singular values s, (*batch, k), are kept, a threshold that tells them apart, and where none does.

    Where values are tied with the last one kept the threshold is below them all; where they are 0, above.
    """
    xp, most = namespace(s), s.shape[-1]
    number = xp.arange(most)
    rank = xp.asarray(rank)[..., None] + 0 * xp.argmax(s, axis=-1)[..., None]
    rounding = _cutoff(s)
    following = xp.concatenate([s[..., 1:], 0 * s[..., :1]], axis=-1)
    gap = ((s - following > rounding) & (number >= rank - 1)) | (number == most - 1)
    last = xp.argmax(gap, axis=-1)[..., None]  # of those that count as kept
    positive = xp.sum(s > rounding, axis=-1)[..., None]
    deficient = (positive <= rank) & (rank < most)
    last = xp.where(deficient, positive - 1, xp.where(rank == 0, -1, last))
    at = xp.where(last < 0, 0, last)
    middle = (xp.take_along_axis(s, at, axis=-1) + xp.take_along_axis(following, at, axis=-1)) / 2
    tau = xp.where(last < 0, xp.inf, xp.where(last == most - 1, -1, middle)).astype(s.dtype)
    return number < rank, tau, ~deficient & (rank < most) & (last >= rank)


def _warn(tied: Any, s: Any) -> None:
    tied = to_host(raw(tied))
    if holds(tied.any()):
        value = float(to_host(raw(s))[tied[..., 0]].max())
        warnings.warn(
            f"low_rank: in {int(tied.sum())} of {tied.size} matrices the singular values on both sides of the cut are "
            f"equal to rounding, of a largest one of {value:.3g}: the truncation has no derivative there, and the "
            "gradient is that of the truncation which keeps them all",
            NotDifferentiableWarning,
            stacklevel=2,
        )
