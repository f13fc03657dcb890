"""Statistical functions of the array API standard: sums, means, extremes, products.

Where a function has no derivative, the choice is: the maximum's gradient is shared equally between entries
that tie; that of the standard deviation is 0 where all entries are equal. Sums and means keep nothing but
shapes. Products multiply and never divide, so their derivatives of every order hold where entries are zero.
"""

from __future__ import annotations

import math
from typing import Any

from cutnn.array._linear import linear, normal_axes, normal_axis, with_reduced_axes
from cutnn.array.data_types import astype
from cutnn.array.elementwise import conj, where
from cutnn.array.manipulation import broadcast_to, concat, flip, moveaxis, reshape
from cutnn.device import namespace
from cutnn.tape import Traced, constant, primitive, raw

__all__ = [
    "all",
    "any",
    "count_nonzero",
    "cumulative_prod",
    "cumulative_sum",
    "diff",
    "max",
    "mean",
    "min",
    "prod",
    "std",
    "sum",
    "var",
]

Axis = int | tuple[int, ...] | None

# ------------------------------------------------------------------------------------------- sums and means


def sum(x: Any, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """sum(x, /, *, axis=None, dtype=None, keepdims=False) of the array API standard.

    >>> import cutnn as ct
    >>> ct.sum(ct.ones((2, 3)), axis=0)
    array([2., 2., 2.])
    """
    return _sum(_cast(x, dtype), axis, keepdims, dtype)


@linear(lambda g, shape, axis, keepdims, _: broadcast_to(with_reduced_axes(g, shape, axis, keepdims), shape))
def _sum(x: Any, axis: Axis, keepdims: bool, dtype: Any) -> Any:
    return namespace(x).sum(x, axis=axis, keepdims=keepdims, dtype=dtype)


def mean(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """mean(x, /, *, axis=None, keepdims=False) of the array API standard.

    >>> import cutnn as ct
    >>> ct.mean(ct.asarray([[1.0, 2.0], [3.0, 4.0]]), axis=1)
    array([1.5, 3.5])
    """
    return _mean(x, axis, keepdims)


@linear(lambda g, shape, axis, keepdims: _spread_mean(g, shape, axis, keepdims))
def _mean(x: Any, axis: Axis, keepdims: bool) -> Any:
    return namespace(x).mean(x, axis=axis, keepdims=keepdims)


def _spread_mean(g: Any, shape: tuple[int, ...], axis: Axis, keepdims: bool) -> Any:
    g = with_reduced_axes(g / (_count(shape, axis) or 1), shape, axis, keepdims)
    return broadcast_to(g, shape)


def var(x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    """var(x, /, *, axis=None, correction=0.0, keepdims=False) of the array API standard.

    The sum of |x - mean|² over n - correction; it is real for complex x too.
    """
    return _var(x, axis, correction, keepdims)


@primitive(
    x=lambda g, x, axis, correction, keepdims: (
        with_reduced_axes(g, x.shape, axis, keepdims) * _deviation(x, axis, correction) * 2
    )
)
def _var(x: Any, axis: Axis, correction: float, keepdims: bool) -> Any:
    return namespace(x).var(x, axis=axis, correction=correction, keepdims=keepdims)


def std(x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    """std(x, /, *, axis=None, correction=0.0, keepdims=False) of the array API standard.

    The square root of `var`; its gradient is 0 where it is 0.
    """
    return _std(x, axis, correction, keepdims)


@primitive(
    x=lambda g, x, ans, axis, correction, keepdims: (
        with_reduced_axes(g / where(ans == 0, 1, ans), x.shape, axis, keepdims)
        * _deviation(x, axis, correction)
    )
)
def _std(x: Any, axis: Axis, correction: float, keepdims: bool) -> Any:
    return namespace(x).std(x, axis=axis, correction=correction, keepdims=keepdims)


def _deviation(x: Any, axis: Axis, correction: float) -> Any:
    """conj(x - mean) / (n - correction), half the derivative of the variance."""
    weight = _count(x.shape, axis) - correction
    return conj(x - mean(x, axis=axis, keepdims=True)) * (1 / weight if weight > 0 else math.nan)


def cumulative_sum(
    x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Any:
    """cumulative_sum(x, /, *, axis=None, dtype=None, include_initial=False) of the array API standard.

    The axis may be left out for a one-dimensional x. `include_initial` puts the empty sum, 0, in front.

    >>> import cutnn as ct
    >>> ct.cumulative_sum(ct.asarray([1.0, 2.0, 3.0]), include_initial=True)
    array([0., 1., 3., 6.])
    """
    axis = _one_axis("cumulative_sum", x, axis)
    return _after(0, _cumulative_sum(_cast(x, dtype), axis, dtype), axis, include_initial)


@linear(lambda g, shape, axis, dtype: flip(cumulative_sum(flip(g, axis=axis), axis=axis), axis=axis))
def _cumulative_sum(x: Any, axis: int, dtype: Any) -> Any:
    return namespace(x).cumulative_sum(x, axis=axis, dtype=dtype)


def diff(x: Any, /, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Any:
    """diff(x, /, *, axis=-1, n=1, prepend=None, append=None) of the array API standard.

    Differences of neighbours, n times.

    >>> import cutnn as ct
    >>> ct.diff(ct.asarray([1, 4, 9, 16]), n=2)
    array([2, 2])
    """
    if n < 0:
        raise ValueError(f"diff: n is {n}; it must not be negative")
    axis = normal_axis("diff", axis, len(x.shape))
    parts = [part for part in (prepend, x, append) if part is not None]
    x = concat(parts, axis=axis) if len(parts) > 1 else x
    before = (slice(None),) * axis
    for _ in range(n):
        x = x[(*before, slice(1, None))] - x[(*before, slice(None, -1))]
    return x


# -------------------------------------------------------------------------------------------------- extremes


def max(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """max(x, /, *, axis=None, keepdims=False) of the array API standard.

    Entries that tie share the gradient equally.

    >>> import cutnn as ct
    >>> ct.grad(ct.max)(ct.asarray([1.0, 3.0, 3.0]))
    array([0. , 0.5, 0.5])
    """
    return _max(x, axis, keepdims)


@primitive(
    x=lambda g, x, ans, axis, keepdims: (
        with_reduced_axes(g, x.shape, axis, keepdims) * _shares(x, ans, axis, keepdims)
    )
)
def _max(x: Any, axis: Axis, keepdims: bool) -> Any:
    return namespace(x).max(x, axis=axis, keepdims=keepdims)


def min(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """min(x, /, *, axis=None, keepdims=False) of the array API standard.

    Entries that tie share the gradient equally.
    """
    return _min(x, axis, keepdims)


@primitive(
    x=lambda g, x, ans, axis, keepdims: (
        with_reduced_axes(g, x.shape, axis, keepdims) * _shares(x, ans, axis, keepdims)
    )
)
def _min(x: Any, axis: Axis, keepdims: bool) -> Any:
    return namespace(x).min(x, axis=axis, keepdims=keepdims)


@constant
def _shares(x: Any, extreme: Any, axis: Axis, keepdims: bool) -> Any:
    """1/k at each of the k entries that are the extreme (or NaN, where that is), 0 elsewhere."""
    xp = namespace(x)
    chosen = ((x == with_reduced_axes(extreme, x.shape, axis, keepdims)) | (x != x)).astype(x.dtype)
    return chosen / xp.sum(chosen, axis=axis, keepdims=True)


# -------------------------------------------------------------------------------------------------- products


def prod(x: Any, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """prod(x, /, *, axis=None, dtype=None, keepdims=False) of the array API standard.

    >>> import cutnn as ct
    >>> ct.grad(ct.prod)(ct.asarray([0.0, 2.0, 3.0]))
    array([6., 0., 0.])
    """
    return _prod(_cast(x, dtype), axis, keepdims, dtype)


@primitive(
    x=lambda g, x, axis, keepdims: with_reduced_axes(g, x.shape, axis, keepdims) * _product_of_others(x, axis)
)
def _prod(x: Any, axis: Axis, keepdims: bool, dtype: Any) -> Any:
    return namespace(x).prod(x, axis=axis, keepdims=keepdims, dtype=dtype)


def _product_of_others(x: Any, axis: Axis) -> Any:
    """At each entry, the product of all others along the axes."""
    axes = normal_axes("prod", axis, len(x.shape))
    front = tuple(range(len(axes)))
    moved = moveaxis(x, axes, front)
    flat = reshape(moved, (_count(x.shape, axes), *moved.shape[len(axes) :]))
    return moveaxis(reshape(_others(flat), moved.shape), front, axes)


def _others(x: Any) -> Any:
    """`_product_of_others` along the first axis: of the products of pairs first, then of each in its pair."""
    n = x.shape[0]
    if n < 2:
        return _ones_like(x)
    left, right, rest = x[: n // 2], x[n // 2 : n // 2 * 2], x[n // 2 * 2 :]
    others = _others(concat([left * right, rest]))
    pairs = others[: n // 2]
    return concat([pairs * right, pairs * left, others[n // 2 :]])


def cumulative_prod(
    x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Any:
    """cumulative_prod(x, /, *, axis=None, dtype=None, include_initial=False) of the array API standard.

    The axis may be left out for a one-dimensional x. `include_initial` puts the empty product, 1, in front.

    >>> import cutnn as ct
    >>> ct.cumulative_prod(ct.asarray([1.0, 2.0, 3.0]))
    array([1., 2., 6.])
    """
    axis = _one_axis("cumulative_prod", x, axis)
    return _after(1, _cumulative_prod(_cast(x, dtype), axis, dtype), axis, include_initial)


@primitive(x=lambda g, x, ans, axis: _pull_cumulative_prod(g, x, ans, axis))
def _cumulative_prod(x: Any, axis: int, dtype: Any) -> Any:
    return namespace(x).cumulative_prod(x, axis=axis, dtype=dtype)


def _pull_cumulative_prod(g: Any, x: Any, ans: Any, axis: int) -> Any:
    """(product of those before i) · h_i, where h_i = g_i + x_{i+1} h_{i+1} sums over those from i on."""
    g, x, ans = moveaxis(g, axis, 0), moveaxis(x, axis, 0), moveaxis(ans, axis, 0)
    n = x.shape[0]
    if n == 0:
        return moveaxis(g, 0, axis)
    # The recurrence by doubling: after each round h_i = h[i] + factor[i] · h_{i+step}.
    h, factor, step = g, concat([x[1:], 0 * x[:1]]), 1
    while step < n:
        h = concat([h[:-step] + factor[:-step] * h[step:], h[-step:]])
        factor = concat([factor[:-step] * factor[step:], factor[-step:]])
        step *= 2
    before = concat([_ones_like(ans[:1]), ans[:-1]])
    return moveaxis(before * h, 0, axis)


# --------------------------------------------------------------------------------------- without a derivative


@constant
def all(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """all(x, /, *, axis=None, keepdims=False) of the array API standard; the gradient stops here."""
    return namespace(x).all(x, axis=axis, keepdims=keepdims)


@constant
def any(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """any(x, /, *, axis=None, keepdims=False) of the array API standard; the gradient stops here."""
    return namespace(x).any(x, axis=axis, keepdims=keepdims)


@constant
def count_nonzero(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """count_nonzero(x, /, *, axis=None, keepdims=False) of the array API standard; no gradient."""
    return namespace(x).sum(x != 0, axis=axis, keepdims=keepdims)


# --------------------------------------------------------------------------------------------------- helpers


def _cast(x: Any, dtype: Any) -> Any:
    """A traced array in the dtype asked for; the libraries' reductions convert plain arrays themselves."""
    return astype(x, dtype) if dtype is not None and type(x) is Traced else x


def _count(shape: tuple[int, ...], axis: Axis) -> int:
    """How many entries are reduced to one."""
    return math.prod([shape[a] for a in normal_axes("axis", axis, len(shape))])


def _one_axis(name: str, x: Any, axis: int | None) -> int:
    if axis is None and len(x.shape) != 1:
        raise ValueError(f"{name}: an axis is needed for an array of shape {x.shape}")
    return normal_axis(name, axis or 0, len(x.shape))


def _after(first: int, x: Any, axis: int, include: bool) -> Any:
    """x with a slice of `first` in front of it, if it is to be included."""
    if not include:
        return x
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    return concat([namespace(raw(x)).full(shape, first, dtype=x.dtype), x], axis=axis)


@constant
def _ones_like(x: Any) -> Any:
    return namespace(x).ones_like(x)
