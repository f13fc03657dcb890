"""Sorting, searching and set functions of the array API standard.

`sort` sends gradients back through its permutation; all others return integers, or values without a
derivative, and stop the gradient.
"""

from __future__ import annotations

from typing import Any, Literal

from cutnn.array._define import library
from cutnn.array._linear import explain, normal_axis
from cutnn.array.indexing import along_axis
from cutnn.device import namespace
from cutnn.tape import Traced, constant

__all__ = [
    "argmax",
    "argmin",
    "argsort",
    "nonzero",
    "searchsorted",
    "sort",
    "unique_all",
    "unique_counts",
    "unique_inverse",
    "unique_values",
]


def sort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """sort(x, /, *, axis=-1, descending=False, stable=True) of the array API standard.

    >>> import cutnn as ct
    >>> ct.sort(ct.asarray([2, 3, 1]), descending=True)
    array([3, 2, 1])
    """
    if type(x) is Traced:
        order = argsort(x, axis=axis, descending=descending, stable=stable)
        return along_axis(x, order, axis, repeats=False)
    axis = normal_axis("sort", axis, len(x.shape))
    ascending = _sort_of_library(x, axis=axis, stable=stable)
    return namespace(x).flip(ascending, axis=axis) if descending else ascending


_sort_of_library = library("sort")


@constant
def argsort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """argsort(x, /, *, axis=-1, descending=False, stable=True) of the array API standard; no gradient."""
    xp = namespace(x)
    axis = normal_axis("argsort", axis, len(x.shape))
    if not descending:
        return xp.argsort(x, axis=axis, stable=stable)
    # Equal entries keep their order: sorted from the other end, then read from there.
    order = xp.argsort(xp.flip(x, axis=axis), axis=axis, stable=stable)
    return xp.flip(x.shape[axis] - 1 - order, axis=axis)


@constant
def argmax(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Any:
    """argmax(x, /, *, axis=None, keepdims=False) of the array API standard: the first of the largest."""
    try:
        return namespace(x).argmax(x, axis=axis, keepdims=keepdims)
    except ValueError as error:
        explain("argmax", error, x)


@constant
def argmin(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Any:
    """argmin(x, /, *, axis=None, keepdims=False) of the array API standard: the first of the smallest."""
    try:
        return namespace(x).argmin(x, axis=axis, keepdims=keepdims)
    except ValueError as error:
        explain("argmin", error, x)


@constant
def nonzero(x: Any, /) -> tuple[Any, ...]:
    """nonzero(x, /) of the array API standard: the indices of entries that are not 0, one array an axis."""
    return namespace(x).nonzero(x)


@constant
def searchsorted(x1: Any, x2: Any, /, *, side: Literal["left", "right"] = "left", sorter: Any = None) -> Any:
    """searchsorted(x1, x2, /, *, side="left", sorter=None) of the array API standard.

    Where the entries of x2 belong in the sorted, one-dimensional x1.
    """
    return namespace(x1, x2).searchsorted(x1, x2, side=side, sorter=sorter)


@constant
def unique_values(x: Any, /) -> Any:
    """unique_values(x, /) of the array API standard; the gradient stops here."""
    return namespace(x).unique_values(x)


@constant
def unique_counts(x: Any, /) -> Any:
    """unique_counts(x, /) of the array API standard: (values, counts); the gradient stops here."""
    return namespace(x).unique_counts(x)


@constant
def unique_inverse(x: Any, /) -> Any:
    """unique_inverse(x, /) of the array API standard: (values, inverse_indices), no gradient."""
    return namespace(x).unique_inverse(x)


@constant
def unique_all(x: Any, /) -> Any:
    """unique_all(x, /) of the array API standard: (values, indices, inverse_indices, counts), no gradient."""
    return namespace(x).unique_all(x)
