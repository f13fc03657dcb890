"""Manipulation functions of the array API standard: shapes and order change, values stay.

All are linear, and keep nothing but shapes for their gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from cutnn.array._define import fit
from cutnn.array._linear import explain, linear, normal_axes, normal_axis
from cutnn.array.indexing import getitem, take
from cutnn.device import namespace
from cutnn.tape import primitive, raw

__all__ = [
    "broadcast_arrays",
    "broadcast_to",
    "concat",
    "expand_dims",
    "flip",
    "moveaxis",
    "permute_dims",
    "repeat",
    "reshape",
    "roll",
    "squeeze",
    "stack",
    "tile",
    "unstack",
]

# ---------------------------------------------------------------------------------------------------- shapes


def reshape(x: Any, /, shape: int | Sequence[int], *, copy: bool | None = None) -> Any:
    """reshape(x, /, shape, *, copy=None) of the array API standard; one length may be -1.

    >>> import cutnn as ct
    >>> ct.reshape(ct.arange(6), (2, -1))
    array([[0, 1, 2],
           [3, 4, 5]])
    """
    return _reshape(x, shape, copy)


@linear(lambda g, before, shape, copy: reshape(g, before))
def _reshape(x: Any, shape: Any, copy: bool | None) -> Any:
    return namespace(x).reshape(x, shape) if copy is None else namespace(x).reshape(x, shape, copy=copy)


def expand_dims(x: Any, /, axis: int | tuple[int, ...] = 0) -> Any:
    """expand_dims(x, /, axis=0) of the array API standard: an axis of length 1 at position `axis`.

    Several positions may be given; they count in the result.
    """
    axes = (axis,) if not isinstance(axis, tuple) else axis
    ndim = numpy.ndim(raw(x)) + len(axes)
    new = normal_axes("expand_dims", axes, ndim)
    if len(set(new)) != len(new):
        raise ValueError(f"expand_dims: the axes {axis} repeat")
    old = iter(x.shape if new != tuple(range(ndim)) else ())
    return _reshape(x, tuple([1 if i in new else next(old) for i in range(ndim)]), None)


def squeeze(x: Any, /, axis: int | tuple[int, ...] | None = None) -> Any:
    """squeeze(x, /, axis) of the array API standard: drop axes of length 1, all of them for None.

    Raises ValueError where an axis is longer.
    """
    axes = normal_axes("squeeze", axis, len(x.shape)) if axis is not None else None
    if axes is None:
        return _reshape(x, tuple([n for n in x.shape if n != 1]), None)
    if any(x.shape[a] != 1 for a in axes):
        raise ValueError(f"squeeze: axis {axis} of an array of shape {x.shape} is not of length 1")
    return _reshape(x, tuple([n for i, n in enumerate(x.shape) if i not in axes]), None)


def broadcast_to(x: Any, /, shape: Sequence[int]) -> Any:
    """broadcast_to(x, /, shape) of the array API standard: a view, not to be written to.

    Its gradient sums over the axes that were stretched.
    """
    return _broadcast_to(x, tuple(shape))


@linear(lambda g, before, shape: fit(g, before, g.dtype))
def _broadcast_to(x: Any, shape: tuple[int, ...]) -> Any:
    return namespace(x).broadcast_to(x, shape)


def broadcast_arrays(*arrays: Any) -> list[Any]:
    """broadcast_arrays(*arrays) of the array API standard: views of one common shape.

    >>> import cutnn as ct
    >>> [x.shape for x in ct.broadcast_arrays(ct.zeros((3, 1)), ct.zeros(2))]
    [(3, 2), (3, 2)]
    """
    shapes = [x.shape for x in arrays]
    try:
        shape = numpy.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(f"broadcast_arrays: the shapes {', '.join(map(str, shapes))} do not fit") from None
    return [x if x.shape == shape else _broadcast_to(x, shape) for x in arrays]


# ----------------------------------------------------------------------------------------------------- order


def permute_dims(x: Any, /, axes: Sequence[int]) -> Any:
    """permute_dims(x, /, axes) of the array API standard: axis i of the result is axis axes[i] of x.

    >>> import cutnn as ct
    >>> ct.permute_dims(ct.zeros((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    return _permute_dims(x, tuple(axes))


@linear(lambda g, shape, axes: permute_dims(g, _inverse(axes)))
def _permute_dims(x: Any, axes: tuple[int, ...]) -> Any:
    return namespace(x).permute_dims(x, axes)


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    positions = {axis % len(axes): i for i, axis in enumerate(axes)}
    return tuple([positions[i] for i in range(len(axes))])


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int], /) -> Any:
    """moveaxis(x, source, destination, /) of the array API standard; the other axes keep their order."""
    ndim = len(x.shape)
    old, new = normal_axes("moveaxis", source, ndim), normal_axes("moveaxis", destination, ndim)
    if len(old) != len(new) or len(set(old)) != len(old) or len(set(new)) != len(new):
        raise ValueError(
            f"moveaxis: source {source} and destination {destination} must be as many axes, none twice"
        )
    moved = dict(zip(new, old, strict=True))
    rest = iter([i for i in range(ndim) if i not in old])
    return _permute_dims(x, tuple([moved[i] if i in moved else next(rest) for i in range(ndim)]))


def flip(x: Any, /, *, axis: int | tuple[int, ...] | None = None) -> Any:
    """flip(x, /, *, axis=None) of the array API standard: reversed along an axis, or along all."""
    return _flip(x, axis)


@linear(lambda g, shape, axis: flip(g, axis=axis))
def _flip(x: Any, axis: Any) -> Any:
    return namespace(x).flip(x, axis=axis)


def roll(x: Any, /, shift: int | tuple[int, ...], *, axis: int | tuple[int, ...] | None = None) -> Any:
    """roll(x, /, shift, *, axis=None) of the array API standard: what leaves at an end enters at the other.

    >>> import cutnn as ct
    >>> ct.roll(ct.arange(4), 1)
    array([3, 0, 1, 2])
    """
    return _roll(x, shift, axis)


@linear(lambda g, shape, shift, axis: roll(g, _backwards(shift), axis=axis))
def _roll(x: Any, shift: Any, axis: Any) -> Any:
    return namespace(x).roll(x, shift, axis=axis)


def _backwards(shift: int | tuple[int, ...]) -> int | tuple[int, ...]:
    return tuple([-s for s in shift]) if isinstance(shift, tuple) else -shift


# ------------------------------------------------------------------------------------------------ repetition


def repeat(x: Any, repeats: Any, /, *, axis: int | None = None) -> Any:
    """repeat(x, repeats, /, *, axis=None) of the array API standard: each element several times.

    `repeats` is one number or one for each element along the axis. Without an axis x is flattened.

    >>> import cutnn as ct
    >>> ct.repeat(ct.asarray([1, 2]), 2)
    array([1, 1, 2, 2])
    """
    if axis is None:
        x, axis = _reshape(x, (-1,), None), 0
    axis = normal_axis("repeat", axis, len(x.shape))
    shape, n = x.shape, x.shape[axis]
    if not isinstance(repeats, int):
        counts = numpy.asarray(repeats.get() if hasattr(repeats, "get") else repeats)  # they decide the shape
        if counts.size != 1:
            if counts.shape != (n,):
                raise ValueError(
                    f"repeat: repeats has shape {counts.shape}; along axis {axis} of an array of shape "
                    f"{shape} it must be one number or have shape ({n},)"
                )
            xp = namespace(raw(x))
            return take(x, xp.asarray(numpy.repeat(numpy.arange(n), counts)), axis=axis)
        repeats = int(counts.reshape(()))
    x = _reshape(x, (*shape[: axis + 1], 1, *shape[axis + 1 :]), None)
    x = _broadcast_to(x, (*shape[: axis + 1], repeats, *shape[axis + 1 :]))
    return _reshape(x, (*shape[:axis], n * repeats, *shape[axis + 1 :]), None)


def tile(x: Any, repetitions: tuple[int, ...], /) -> Any:
    """tile(x, repetitions, /) of the array API standard: the whole array several times along each axis.

    >>> import cutnn as ct
    >>> ct.tile(ct.asarray([1, 2]), (2, 2))
    array([[1, 2, 1, 2],
           [1, 2, 1, 2]])
    """
    repetitions = (repetitions,) if isinstance(repetitions, int) else tuple(repetitions)
    ndim = max(len(repetitions), len(x.shape))
    times = (1,) * (ndim - len(repetitions)) + repetitions
    shape = (1,) * (ndim - len(x.shape)) + tuple(x.shape)
    x = _reshape(x, tuple([k for n in shape for k in (1, n)]), None)
    x = _broadcast_to(x, tuple([k for r, n in zip(times, shape, strict=True) for k in (r, n)]))
    return _reshape(x, tuple([r * n for r, n in zip(times, shape, strict=True)]), None)


# ------------------------------------------------------------------------------------------- joining, parting


def concat(arrays: Sequence[Any], /, *, axis: int | None = 0) -> Any:
    """concat(arrays, /, *, axis=0) of the array API standard: one after the other along an axis.

    With `axis=None` the arrays are flattened first.
    """
    arrays = _of_one_library("concat", arrays)
    if axis is None:
        arrays, axis = [_reshape(x, (-1,), None) for x in arrays], 0
    parts = [(x.shape[axis] if -len(x.shape) <= axis < len(x.shape) else 0, x.dtype) for x in arrays]
    return _concat(*arrays, axis=axis, parts=parts)


def _cut(g: Any, axis: int, parts: list[tuple[int, Any]]) -> list[Any]:
    before, pieces, start = (slice(None),) * (axis % len(g.shape)), [], 0
    for length, dtype in parts:
        pieces.append(_fit_dtype(getitem(g, (*before, slice(start, start + length))), dtype))
        start += length
    return pieces


@primitive(arrays=lambda g, axis, parts: _cut(g, axis, parts))
def _concat(*arrays: Any, axis: int = 0, parts: Any = None) -> Any:
    try:
        return namespace(*arrays).concat(arrays, axis=axis)
    except (ValueError, TypeError) as error:
        explain("concat", error, *arrays)


def stack(arrays: Sequence[Any], /, *, axis: int = 0) -> Any:
    """stack(arrays, /, *, axis=0) of the array API standard: side by side along a new axis.

    >>> import cutnn as ct
    >>> ct.stack([ct.asarray([1, 2]), ct.asarray([3, 4])], axis=1)
    array([[1, 3],
           [2, 4]])
    """
    arrays = _of_one_library("stack", arrays)
    return _stack(*arrays, axis=axis, dtypes=[x.dtype for x in arrays])


def _layers(g: Any, axis: int, dtypes: list[Any]) -> list[Any]:
    before = (slice(None),) * (axis % len(g.shape))
    return [_fit_dtype(getitem(g, (*before, i)), dtype) for i, dtype in enumerate(dtypes)]


@primitive(arrays=lambda g, axis, dtypes: _layers(g, axis, dtypes))
def _stack(*arrays: Any, axis: int = 0, dtypes: Any = None) -> Any:
    try:
        return namespace(*arrays).stack(arrays, axis=axis)
    except (ValueError, TypeError, IndexError) as error:
        explain("stack", error, *arrays)


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Any, ...]:
    """unstack(x, /, *, axis=0) of the array API standard: the slices along an axis, as a tuple.

    One step of the tape, whatever their number: cheaper than indexing in a loop.

    >>> import cutnn as ct
    >>> ct.unstack(ct.asarray([[1, 2], [3, 4]]), axis=1)
    (array([1, 3]), array([2, 4]))
    """
    if not x.shape:
        raise ValueError("unstack: a 0-d array has no axis to part along")
    return _unstack(x, normal_axis("unstack", axis, len(x.shape)))


def _join(g: Sequence[Any], axis: int) -> Any:
    """The slices side by side again, zeros for those that were not used."""
    like = raw(next(part for part in g if part is not None))
    zeros = namespace(like).zeros_like(like)
    return stack([zeros if part is None else part for part in g], axis=axis)


@primitive(x=lambda g, axis: _join(g, axis))
def _unstack(x: Any, axis: int) -> Any:
    before = (slice(None),) * axis
    return tuple([x[(*before, i)] for i in range(x.shape[axis])])


# --------------------------------------------------------------------------------------------------- helpers


def _fit_dtype(g: Any, dtype: Any) -> Any:
    return g if g.dtype == dtype else fit(g, g.shape, dtype)


def _of_one_library(name: str, arrays: Sequence[Any]) -> list[Any]:
    """The arrays, with numbers among them made arrays of the others' dtype."""
    arrays = list(arrays)
    if not arrays:
        raise ValueError(f"{name}: needs at least one array")
    if all(hasattr(x, "shape") for x in arrays):
        return arrays
    try:
        xp = namespace(*[raw(x) for x in arrays])
    except TypeError as error:
        explain(name, error)
    dtype = numpy.result_type(*[raw(x).dtype if hasattr(x, "dtype") else x for x in arrays])
    return [x if hasattr(x, "shape") else xp.asarray(x, dtype=dtype) for x in arrays]
