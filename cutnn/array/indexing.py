"""Indexing: what `x[key]` does on a traced array, `take` and `take_along_axis`, and assignment.

The gradient of x[key] writes into zeros where x was read. Where a key may name an element twice (integer
arrays) it adds; for slices, numbers and masks it assigns, which is faster. Traced arrays cannot be assigned
to in place: `at_set` and `at_add` return a changed copy.
"""

from __future__ import annotations

from typing import Any

import numpy

from cutnn.array._define import fit
from cutnn.array._linear import explain, linear, normal_axis
from cutnn.device import namespace
from cutnn.tape import Scattered, Traced, primitive, raw

__all__ = ["at_add", "at_set", "getitem", "take", "take_along_axis"]


def getitem(x: Any, key: Any, /) -> Any:
    """x[key], with what the library's indexing knows: slices, numbers, None, ..., masks, integer arrays."""
    return _getitem(x, key)


@linear(lambda g, shape, key: _Put(g, key, shape, _may_repeat(key)))
def _getitem(x: Any, key: Any) -> Any:
    return x[key]


class _Put(Scattered):
    """Zeros of a shape with g at [key], added up where the key repeats: the adjoint of x[key]."""

    __slots__ = ("g", "key", "repeats", "shape")

    def __init__(self, g: Any, key: Any, shape: tuple[int, ...], repeats: bool) -> None:
        self.g, self.key, self.shape, self.repeats = g, key, shape, repeats

    def dense(self) -> Any:
        return _put(self.g, self.key, self.shape, self.repeats)

    def add_to(self, held: Any) -> Any:
        if held.shape == () or held.dtype != self.g.dtype or type(held) is Traced or type(self.g) is Traced:
            return held + self.dense()  # a number cannot be written to, nor should a traced array be
        if self.repeats:
            namespace(held, self.g).add.at(held, self.key, self.g)
        else:
            held[self.key] += self.g
        return held


@linear(lambda h, before, key, shape, repeats: getitem(h, key))
def _put(g: Any, key: Any, shape: tuple[int, ...], repeats: bool) -> Any:
    xp = namespace(g)
    out = xp.zeros(shape, dtype=g.dtype)
    if repeats:
        xp.add.at(out, key, g)
    else:
        out[key] = g
    return out


def take(x: Any, indices: Any, /, *, axis: int | None = None) -> Any:
    """take(x, indices, /, *, axis=None) of the array API standard: the elements or slices at `indices`.

    Indices may repeat, be negative, and have any shape, which replaces the axis. Without an axis x must have
    one dimension.

    >>> import cutnn as ct
    >>> ct.grad(lambda x: ct.sum(ct.take(x, ct.asarray([0, 0, 2]))))(ct.zeros(3))
    array([2., 0., 1.])
    """
    indices = raw(indices)
    if not hasattr(indices, "shape"):
        indices = namespace(raw(x)).asarray(indices)
    ndim = len(x.shape)
    if axis is None and ndim != 1:
        raise ValueError(f"take: an axis is needed for an array of shape {x.shape}")
    return _take(x, indices, normal_axis("take", axis or 0, ndim))


@linear(lambda g, shape, indices, axis: _Put(g, (slice(None),) * axis + (indices,), shape, indices.ndim > 0))
def _take(x: Any, indices: Any, axis: int) -> Any:
    return namespace(x, indices).take(x, indices, axis=axis)


def take_along_axis(x: Any, indices: Any, /, *, axis: int = -1) -> Any:
    """take_along_axis(x, indices, /, *, axis=-1) of the array API standard.

    The result has the shape of `indices`, which has the dimensions of x; other axes than `axis` broadcast.

    >>> import cutnn as ct
    >>> ct.take_along_axis(ct.asarray([[1, 2], [3, 4]]), ct.asarray([[1], [0]]))
    array([[2],
           [3]])
    """
    return along_axis(x, raw(indices), axis, repeats=True)


def along_axis(x: Any, indices: Any, axis: int, repeats: bool) -> Any:
    """take_along_axis; with `repeats` false no element is taken twice (a permutation), a faster gradient."""
    ndim = len(x.shape)
    if len(indices.shape) != ndim:
        raise ValueError(
            f"take_along_axis: indices of shape {indices.shape} need as many dimensions as x, of {x.shape}"
        )
    axis = normal_axis("take_along_axis", axis, ndim)
    return _along_axis(x, indices, axis, repeats)


@linear(lambda g, shape, indices, axis, repeats: _Put(g, _along(shape, indices, axis), shape, repeats))
def _along_axis(x: Any, indices: Any, axis: int, repeats: bool) -> Any:
    return namespace(x, indices).take_along_axis(x, indices, axis=axis)


def at_set(x: Any, index: Any, value: Any) -> Any:
    """A copy of x with x[index] = value; in place of assignment, which traced arrays do not have.

    The copy has x's dtype. The index must not name an element twice: which value stays would be left open.

    >>> import cutnn as ct
    >>> ct.at_set(ct.zeros(3), 1, 5.0)
    array([0., 5., 0.])
    """
    return _at_set(x, index, value, _form("at_set", x, value))


@primitive(
    x=lambda g, index: at_set(g, index, 0),
    value=lambda g, index, form: fit(getitem(g, index), *form),
)
def _at_set(x: Any, index: Any, value: Any, form: Any) -> Any:
    out = namespace(x, value).array(x)  # a copy
    try:
        out[index] = value
    except (ValueError, IndexError) as error:
        explain("at_set", error, x, value)
    return out


def at_add(x: Any, index: Any, value: Any) -> Any:
    """A copy of x with `value` added at x[index]; where the index names an element twice, it is added twice.

    >>> import cutnn as ct
    >>> ct.at_add(ct.zeros(3), ct.asarray([1, 1]), 2.0)
    array([0., 4., 0.])
    """
    return _at_add(x, index, value, _form("at_add", x, value))


@primitive(x=lambda g: g, value=lambda g, index, form: fit(getitem(g, index), *form))
def _at_add(x: Any, index: Any, value: Any, form: Any) -> Any:
    xp = namespace(x, value)
    out = xp.array(x)  # a copy
    try:
        if _may_repeat(index):
            xp.add.at(out, index, value)
        else:
            out[index] += value
    except (ValueError, IndexError) as error:
        explain("at_add", error, x, value)
    return out


# --------------------------------------------------------------------------------------------------- helpers


def _may_repeat(key: Any) -> bool:
    """Whether a key can name an element twice: it holds an integer array of one or more axes."""
    for part in key if type(key) is tuple else (key,):
        if isinstance(part, (list, tuple)):
            part = numpy.asarray(part)
        if getattr(part, "ndim", 0) and part.dtype.kind in "iu":
            return True
    return False


def _along(shape: tuple[int, ...], indices: Any, axis: int) -> tuple[Any, ...]:
    """The key for which x[key] is take_along_axis(x, indices, axis)."""
    xp = namespace(indices)
    key = []
    for i, n in enumerate(shape):
        form = [1] * len(shape)
        form[i] = n
        key.append(indices if i == axis else xp.reshape(xp.arange(n), tuple(form)))
    return tuple(key)


_RANK = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}


def _form(name: str, x: Any, value: Any) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of a value about to be written into x, or TypeError where x cannot hold it."""
    form = raw(value) if hasattr(value, "dtype") else numpy.asarray(value)
    if _RANK.get(form.dtype.kind, 0) > _RANK.get(raw(x).dtype.kind, 0):
        raise TypeError(
            f"{name}: an array of {x.dtype} cannot hold values of {form.dtype}; convert one with astype"
        )
    return form.shape, form.dtype
