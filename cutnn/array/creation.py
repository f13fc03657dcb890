"""Creation functions of the array API standard.

New arrays come on the default device (`set_device`) unless a device is named; functions that start from an
array stay with it. Where values flow from traced arrays into a new one (`asarray` of a list, `full`,
`linspace`, `meshgrid`), gradients flow back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy

from cutnn.array._linear import linear
from cutnn.array.data_types import astype, placed
from cutnn.array.manipulation import broadcast_to, reshape, stack
from cutnn.device import default_namespace, namespace, to_device
from cutnn.tape import Traced, constant, raw

__all__ = [
    "arange",
    "asarray",
    "astype",
    "empty",
    "empty_like",
    "eye",
    "from_dlpack",
    "full",
    "full_like",
    "linspace",
    "meshgrid",
    "ones",
    "ones_like",
    "tril",
    "triu",
    "zeros",
    "zeros_like",
]

Shape = int | tuple[int, ...]

# --------------------------------------------------------------------------------------- from data of a user


def asarray(obj: Any, /, *, dtype: Any = None, device: str | None = None, copy: bool | None = None) -> Any:
    """asarray(obj, /, *, dtype=None, device=None, copy=None) of the array API standard.

    An array stays on its device unless one is named; numbers and lists go to the default device. Lists may
    hold arrays, which are stacked, and traced arrays, through which the gradient passes.

    >>> import cutnn as ct
    >>> ct.asarray([[1, 2], [3, 4]], dtype=ct.float32)
    array([[1., 2.],
           [3., 4.]], dtype=float32)
    >>> ct.grad(lambda x: ct.sum(ct.asarray([x, 2 * x, 5.0])))(1.0)
    array(3.)
    """
    xp = None
    if isinstance(obj, (list, tuple)):
        arrays = [leaf for leaf in _leaves(obj) if _is_array(leaf)]
        if arrays:
            xp = namespace(*[raw(x) for x in arrays])
        if any(type(x) is Traced for x in arrays):
            obj = _stacked(obj, xp, _common_dtype(obj))
    if type(obj) is Traced:
        return placed(obj if dtype is None else astype(obj, dtype, copy=bool(copy)), device)
    xp = xp or _owner(obj, device)
    return placed(xp.asarray(obj, dtype=dtype, copy=copy), device)


def from_dlpack(x: Any, /, *, device: str | None = None, copy: bool | None = None) -> Any:
    """from_dlpack(x, /, *, device=None, copy=None) of the array API standard.

    An array of another library, on the device where it is: its memory is shared unless `copy` says otherwise.
    """
    on_gpu = x.__dlpack_device__()[0] in (2, 13)  # kDLCUDA, kDLCUDAManaged
    xp = _library(f"cuda:{x.__dlpack_device__()[1]}" if on_gpu else "cpu")
    y = xp.from_dlpack(x, copy=copy) if xp is numpy else xp.from_dlpack(x)
    return placed(xp.array(y) if copy and xp is not numpy else y, device)


# ---------------------------------------------------------------------------------------------- from a shape


def zeros(shape: Shape, *, dtype: Any = None, device: str | None = None) -> Any:
    """zeros(shape, *, dtype=None, device=None) of the array API standard."""
    return placed(_library(device).zeros(shape, dtype=dtype), device)


def ones(shape: Shape, *, dtype: Any = None, device: str | None = None) -> Any:
    """ones(shape, *, dtype=None, device=None) of the array API standard."""
    return placed(_library(device).ones(shape, dtype=dtype), device)


def empty(shape: Shape, *, dtype: Any = None, device: str | None = None) -> Any:
    """empty(shape, *, dtype=None, device=None) of the array API standard: values are what memory held."""
    return placed(_library(device).empty(shape, dtype=dtype), device)


def full(shape: Shape, fill_value: Any, *, dtype: Any = None, device: str | None = None) -> Any:
    """full(shape, fill_value, *, dtype=None, device=None) of the array API standard."""
    if type(fill_value) is Traced:
        shape = shape if isinstance(shape, tuple) else (shape,)
        return placed(broadcast_to(asarray(fill_value, dtype=dtype), shape), device)
    return placed(_library(device).full(shape, fill_value, dtype=dtype), device)


def eye(
    n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, device: str | None = None
) -> Any:
    """eye(n_rows, n_cols=None, /, *, k=0, dtype=None, device=None) of the array API standard.

    >>> import cutnn as ct
    >>> ct.eye(2, 3, k=1)
    array([[0., 1., 0.],
           [0., 0., 1.]])
    """
    return placed(_library(device).eye(n_rows, n_cols, k=k, dtype=dtype), device)


@constant
def arange(
    start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: str | None = None
) -> Any:
    """arange(start, /, stop=None, step=1, *, dtype=None, device=None) of the array API standard."""
    xp = _library(device)
    if stop is None:
        start, stop = 0, start
    return placed(xp.arange(start, stop, step, dtype=dtype), device)


def linspace(
    start: Any, stop: Any, /, num: int, *, dtype: Any = None, device: str | None = None, endpoint: bool = True
) -> Any:
    """linspace(start, stop, /, num, *, dtype=None, device=None, endpoint=True) of the array API standard."""
    if type(start) is not Traced and type(stop) is not Traced:
        return placed(_library(device).linspace(start, stop, num, dtype=dtype, endpoint=endpoint), device)
    like = raw(start if type(start) is Traced else stop)
    dtype = like.dtype if dtype is None else dtype
    t = namespace(like).linspace(0.0, 1.0, num, dtype=dtype, endpoint=endpoint)
    return placed(astype(start * (1 - t) + stop * t, dtype), device)


# ---------------------------------------------------------------------------------------------- like an array


@constant
def zeros_like(x: Any, /, *, dtype: Any = None, device: str | None = None) -> Any:
    """zeros_like(x, /, *, dtype=None, device=None) of the array API standard; never traced."""
    return placed(_library(device, x).zeros(x.shape, dtype=x.dtype if dtype is None else dtype), device)


@constant
def ones_like(x: Any, /, *, dtype: Any = None, device: str | None = None) -> Any:
    """ones_like(x, /, *, dtype=None, device=None) of the array API standard; never traced."""
    return placed(_library(device, x).ones(x.shape, dtype=x.dtype if dtype is None else dtype), device)


@constant
def empty_like(x: Any, /, *, dtype: Any = None, device: str | None = None) -> Any:
    """empty_like(x, /, *, dtype=None, device=None) of the array API standard; never traced."""
    return placed(_library(device, x).empty(x.shape, dtype=x.dtype if dtype is None else dtype), device)


def full_like(x: Any, /, fill_value: Any, *, dtype: Any = None, device: str | None = None) -> Any:
    """full_like(x, /, fill_value, *, dtype=None, device=None) of the array API standard."""
    dtype = x.dtype if dtype is None else dtype
    if type(fill_value) is Traced:
        return full(x.shape, fill_value, dtype=dtype, device=device)
    return placed(_library(device, raw(x)).full(x.shape, fill_value, dtype=dtype), device)


# ---------------------------------------------------------------------------------------------- from an array


def meshgrid(*arrays: Any, indexing: Literal["xy", "ij"] = "xy") -> list[Any]:
    """meshgrid(*arrays, indexing="xy") of the array API standard: coordinates of a grid, from its axes.

    With "xy" the first two axes of the grid are swapped.

    >>> import cutnn as ct
    >>> [x.shape for x in ct.meshgrid(ct.arange(3), ct.arange(2))]
    [(2, 3), (2, 3)]
    """
    if not any(type(x) is Traced for x in arrays):
        return list(namespace(*arrays).meshgrid(*arrays, indexing=indexing))
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: indexing is {indexing!r}; expected 'xy' or 'ij'")
    order = list(range(len(arrays)))
    if indexing == "xy":
        order[:2] = order[:2][::-1]
    lengths = [x.size for x in arrays]
    shape = tuple([lengths[i] for i in order])
    return [
        broadcast_to(reshape(x, tuple([lengths[i] if j == i else 1 for j in order])), shape)
        for i, x in enumerate(arrays)
    ]


def tril(x: Any, /, *, k: int = 0) -> Any:
    """tril(x, /, *, k=0) of the array API standard: zeros above the k-th diagonal of each matrix."""
    return _tril(x, k)


@linear(lambda g, shape, k: tril(g, k=k))
def _tril(x: Any, k: int) -> Any:
    return namespace(x).tril(x, k=k)


def triu(x: Any, /, *, k: int = 0) -> Any:
    """triu(x, /, *, k=0) of the array API standard: zeros below the k-th diagonal of each matrix."""
    return _triu(x, k)


@linear(lambda g, shape, k: triu(g, k=k))
def _triu(x: Any, k: int) -> Any:
    return namespace(x).triu(x, k=k)


# --------------------------------------------------------------------------------------------------- helpers


def _library(device: str | None, like: Any = None) -> Any:
    """The library that makes arrays on a device; for None that of `like`, or of the default device."""
    if device is not None:
        return namespace(to_device(numpy.empty(0), device))
    return default_namespace() if like is None else namespace(like)


def _is_array(x: Any) -> bool:
    """Whether x is an array of some library; NumPy's scalars count as numbers."""
    return hasattr(x, "shape") and hasattr(x, "dtype") and not isinstance(x, numpy.generic)


def _owner(obj: Any, device: str | None) -> Any:
    """The library of an array, and of anything else the one that will hold it."""
    if _is_array(obj):
        try:
            return namespace(obj)
        except TypeError:
            pass  # the array of a library that cutnn does not compute with
    return _library(device)


def _leaves(obj: Sequence[Any]) -> Iterator[Any]:
    for item in obj:
        if isinstance(item, (list, tuple)):
            yield from _leaves(item)
        else:
            yield item


def _common_dtype(obj: Sequence[Any]) -> Any:
    """The dtype of the array that nested lists make; Python's numbers give way to arrays."""
    leaves = list(_leaves(obj))
    dtypes = {leaf.dtype for leaf in leaves if hasattr(leaf, "dtype")}
    kinds = {type(leaf) for leaf in leaves if not hasattr(leaf, "dtype")}
    return numpy.result_type(*dtypes, *[kind(1) for kind in kinds])


def _stacked(obj: Any, xp: Any, dtype: Any) -> Any:
    """Nested lists, with traced arrays in them, as one array."""
    if isinstance(obj, (list, tuple)):
        return stack([_stacked(item, xp, dtype) for item in obj])
    return astype(obj if type(obj) is Traced else xp.asarray(obj), dtype, copy=False)
