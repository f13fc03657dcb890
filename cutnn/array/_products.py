"""Products of matrices and vectors, and the inverses of products: `solve`, `inv`.

Rules are bilinear (see `cutnn.tape`): transposes, no conjugates. Batch axes lead and broadcast.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy

from cutnn.array import _gemm, _precision
from cutnn.array._define import _library_function, fit, library
from cutnn.array._faces_pool import linalg
from cutnn.array._linear import explain, linear, normal_axes
from cutnn.array.elementwise import conj, multiply
from cutnn.array.manipulation import broadcast_to, expand_dims, permute_dims, reshape, squeeze
from cutnn.device import is_numpy, namespace
from cutnn.tape import Traced, primitive, raw
from cutnn.tape.operations import placed

_LARGE = 16384
"""Entries from which the layout of a cotangent matters."""

# -------------------------------------------------------------------------------------------- matrix products


def matmul(x1: Any, x2: Any, /) -> Any:
    """matmul(x1, x2, /) of the Python array API standard: x1 @ x2, (*batch, l, p) times (*batch, p, m).

    An array of one axis is a row on the left, a column on the right, and that axis is dropped from the
    result.

    >>> import cutnn as ct
    >>> ct.matmul(ct.ones((5, 2, 3)), ct.ones((3, 4))).shape
    (5, 2, 4)
    """
    # Most of what a network computes passes here, so the record is written out, as in `_define.binary`.
    traced1, traced2 = type(x1) is Traced, type(x2) is Traced
    if not traced1 and not traced2:
        try:
            return _product(x1, x2)
        except ValueError as error:
            explain("matmul", error, x1, x2)
    value1, value2 = x1, x2
    if traced1:
        tape = x1.tape
        value1 = x1.value
        if traced2:
            if x2.tape is tape:
                value2 = x2.value
            elif x2.tape.order < tape.order:
                traced2 = False
            else:
                traced1 = False
                tape, value1, value2 = x2.tape, x1, x2.value
    else:
        tape = x2.tape
        value2 = x2.value
    try:
        shape1, shape2 = value1.shape, value2.shape
    except AttributeError:
        raise TypeError(f"matmul: expected two arrays, got {_kind(x1)} and {_kind(x2)}") from None
    if len(shape1) < 2 or len(shape2) < 2:
        return _matmul_of_vectors(x1, x2)
    if type(value1) is Traced or type(value2) is Traced:
        ans = matmul(value1, value2)
    else:
        try:
            ans = _product(value1, value2)
        except ValueError as error:
            explain("matmul", error, value1, value2)
    same = value1.dtype == value2.dtype and (len(shape1) == len(shape2) == 2 or shape1[:-2] == shape2[:-2])
    if traced1:
        link1: tuple[Any, ...]
        if same:
            link1 = (x1.slot, _left_swapped if _is_swapped(value1) else _left_rule, (value2,))
        else:
            link1 = (x1.slot, _left_fitted, (value2, shape1, value1.dtype))
        if not traced2:
            tape.append((link1,))
            return Traced(ans, tape, len(tape) - 1)
    link2: tuple[Any, ...]
    if same:
        link2 = (x2.slot, _right_swapped if _is_swapped(value2) else _right_rule, (value1,))
    else:
        link2 = (x2.slot, _right_fitted, (value1, shape2, value2.dtype))
    tape.append((link1, link2) if traced1 else (link2,))
    return Traced(ans, tape, len(tape) - 1)


def matrix_transpose(x: Any, /) -> Any:
    """matrix_transpose(x, /) of the Python array API standard: a view with the last two axes swapped."""
    if len(x.shape) < 2:
        raise ValueError(f"matrix_transpose: expected at least two axes, got an array of shape {x.shape}")
    return _matrix_transpose(x) if type(x) is Traced else x.mT


def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """vecdot(x1, x2, /, *, axis=-1) of the Python array API standard: the sum of conj(x1) · x2 along an axis.

    The axis counts from the end; the others broadcast.
    """
    return _vecdot(x1, x2, axis)


def tensordot(x1: Any, x2: Any, /, *, axes: int | Sequence[Sequence[int]] = 2) -> Any:
    """tensordot(x1, x2, /, *, axes=2) of the Python array API standard.

    Sums over the last `axes` axes of x1 and the first of x2, or over axes[0] of x1 and axes[1] of x2, in
    pairs.

    >>> import cutnn as ct
    >>> ct.tensordot(ct.ones((2, 3, 4)), ct.ones((4, 5, 3)), axes=((1, 2), (2, 0))).shape
    (2, 5)
    """
    if type(x1) is not Traced and type(x2) is not Traced:
        if not _precision.in_use and not _gemm.is_limited():
            return _tensordot_of_library(x1, x2, axes=axes)
        _library_function("tensordot", x1, x2)  # refuses arrays of two libraries
    shape1, shape2 = x1.shape, x2.shape
    if isinstance(axes, int):
        axes = (range(len(shape1) - axes, len(shape1)), range(axes))
    summed1 = normal_axes("tensordot", tuple(axes[0]), len(shape1))
    summed2 = normal_axes("tensordot", tuple(axes[1]), len(shape2))
    lengths = [shape1[a] for a in summed1]
    if lengths != [shape2[a] for a in summed2]:
        raise ValueError(
            f"tensordot: axes {summed1} of shape {shape1} and {summed2} of shape {shape2} differ in length"
        )
    free1 = tuple([a for a in range(len(shape1)) if a not in summed1])
    free2 = tuple([a for a in range(len(shape2)) if a not in summed2])
    kept1, kept2 = [shape1[a] for a in free1], [shape2[a] for a in free2]
    left = reshape(permute_dims(x1, free1 + summed1), (math.prod(kept1), math.prod(lengths)))
    right = reshape(permute_dims(x2, summed2 + free2), (math.prod(lengths), math.prod(kept2)))
    return reshape(matmul(left, right), (*kept1, *kept2))


def outer(x1: Any, x2: Any, /) -> Any:
    """outer(x1, x2, /) of the Python array API standard: all products of an entry of x1 with one of x2."""
    if len(x1.shape) != 1 or len(x2.shape) != 1:
        raise ValueError(f"outer: expected two vectors, got arrays of shape {x1.shape} and {x2.shape}")
    return multiply(expand_dims(x1, axis=1), x2)


def cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """cross(x1, x2, /, *, axis=-1) of the Python array API standard: the vector product, along an axis of
    3."""
    return _cross(x1, x2, axis)


def matrix_power(x: Any, n: int, /) -> Any:
    """matrix_power(x, n, /) of the Python array API standard: n factors x, or -n factors inv(x).

    >>> import cutnn as ct
    >>> ct.linalg.matrix_power(ct.asarray([[1.0, 1.0], [0.0, 1.0]]), 5)
    array([[1., 5.],
           [0., 1.]])
    """
    if type(x) is not Traced:
        return _matrix_power_of_library(x, n)
    if n == 0:
        return namespace(raw(x)).linalg.matrix_power(raw(x), 0)
    square = inv(x) if n < 0 else x
    n = abs(n)
    power = None
    while n:
        if n & 1:
            power = square if power is None else matmul(power, square)
        n >>= 1
        if n:
            square = matmul(square, square)
    return power


def diagonal(x: Any, /, *, offset: int = 0) -> Any:
    """diagonal(x, /, *, offset=0) of the Python array API standard: x[..., i, i + offset], as the last
    axis."""
    return _diagonal(x, offset)


def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Any:
    """trace(x, /, *, offset=0, dtype=None) of the Python array API standard: the sum of a diagonal."""
    return diagonal(x, offset=offset).sum(axis=-1, dtype=dtype)


def row(x: Any) -> Any:
    """(*batch, n) as rows, (*batch, 1, n)."""
    return reshape(x, (*x.shape[:-1], 1, x.shape[-1]))


def column(x: Any) -> Any:
    """(*batch, n) as columns, (*batch, n, 1); a number as it is."""
    return reshape(x, (*x.shape, 1)) if hasattr(x, "shape") else x


# ------------------------------------------------------------------------------------------------- inverses


def solve(x1: Any, x2: Any, /) -> Any:
    """solve(x1, x2, /) of the Python array API standard: the y with x1 @ y = x2.

    x1 is (*batch, n, n); x2 is (*batch, n, k), or one vector (n,). Raises LinAlgError on NumPy where a matrix
    is exactly singular.

    >>> import cutnn as ct
    >>> ct.linalg.solve(ct.asarray([[2.0, 0.0], [0.0, 4.0]]), ct.ones(2))
    array([0.5 , 0.25])
    """
    if len(x2.shape) == 1:
        return squeeze(_solve(x1, expand_dims(x2, axis=1)), axis=-1)
    return _solve(x1, x2)


@primitive(x=lambda g, ans: -matmul(matmul(ans.mT, g), ans.mT))
def inv(x: Any, /) -> Any:
    """inv(x, /) of the Python array API standard: the inverse of each matrix.

    Raises LinAlgError on NumPy where a matrix is exactly singular.
    """
    return linalg("inv", x)


# -------------------------------------------------------------------------------------------------- helpers


def _product(x1: Any, x2: Any) -> Any:
    """The product of plain arrays: where a profile finds `matmul`, which calls it by this name."""
    return _gemm.matmul(x1, x2) if type(x1) is type(x2) else _mixed_matmul(x1, x2)


_tensordot_of_library = library("tensordot")
_matrix_power_of_library = library("linalg.matrix_power")


def adjoint(x: Any) -> Any:
    """The conjugate transpose."""
    return conj(x.mT)


def _left_rule(g: Any, x2: Any) -> Any:
    return matmul(g, x2.mT)


def _right_rule(g: Any, x1: Any) -> Any:
    return matmul(x1.mT, g)


def _left_swapped(g: Any, x2: Any) -> Any:
    return matmul(x2, g.mT).mT


def _right_swapped(g: Any, x1: Any) -> Any:
    return matmul(g.mT, x1).mT


def _is_swapped(x: Any) -> bool:
    """Whether x is a contiguous array of some size with its matrix axes swapped.

    Its cotangent is then made so that swapped back it is contiguous as well: where K and Kᵀ are both used, as in a
    leapfrog step, their cotangents are added, and of 1.2 MB that took 0.6 ms across the axes, and 0.1 along them.
    """
    return x.size >= _LARGE and is_numpy(x) and not x.flags.c_contiguous and x.mT.flags.c_contiguous


def _left_fitted(g: Any, x2: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    if len(shape) == 2 and 4 * x2.shape[-1] * (shape[0] + shape[1]) < shape[0] * shape[1]:
        # One matrix for a batch of few columns each: products of columns would be large, and are to be summed
        # at once. 128 by 128 times 1000 columns, float32, two cores: 0.26 ms, against 47 ms by the line
        # below.
        axes = (*range(len(g.shape) - 2), len(g.shape) - 1)
        return fit(tensordot(g, x2, axes=(axes, axes)), shape, dtype)
    return fit(matmul(g, x2.mT), shape, dtype)


def _right_fitted(g: Any, x1: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    if len(shape) == 2:  # one matrix for the whole batch: one product, not a sum of many
        x1, g = _rows(x1), _rows(g)
    return fit(matmul(x1.mT, g), shape, dtype)


placed(
    sys.modules[__name__],
    "_product",
    (_left_rule, _right_rule, _left_fitted, _right_fitted),
    name="matmul",
    part=True,
)


def _rows(x: Any) -> Any:
    *batch, columns = x.shape
    return x.reshape((math.prod(batch), columns))


def _kind(x: Any) -> str:
    return f"an array of shape {x.shape}" if hasattr(x, "shape") else f"a {type(x).__name__}"


def _mixed_matmul(x1: Any, x2: Any) -> Any:
    """The product of arrays of two types: of one library, or TypeError."""
    function = _library_function("matmul", x1, x2)
    return _gemm.matmul(x1, x2) if is_numpy(x1) and is_numpy(x2) else function(x1, x2)


def _matmul_of_vectors(x1: Any, x2: Any) -> Any:
    row, column = len(x1.shape) == 1, len(x2.shape) == 1
    if not x1.shape or not x2.shape:
        raise ValueError(f"matmul: expected at least one axis each, got shapes {x1.shape} and {x2.shape}")
    product = matmul(expand_dims(x1, axis=0) if row else x1, expand_dims(x2, axis=1) if column else x2)
    shape = product.shape
    return reshape(product, (*shape[:-2], *(() if row else shape[-2:-1]), *(() if column else shape[-1:])))


@linear(lambda g, shape: g.mT)
def _matrix_transpose(x: Any) -> Any:
    return x.mT


@primitive(
    x1=lambda g, x1, x2, axis: fit(conj(_along(g, axis) * x2), x1.shape, x1.dtype),
    x2=lambda g, x1, x2, axis: fit(_along(g, axis) * conj(x1), x2.shape, x2.dtype),
)
def _vecdot(x1: Any, x2: Any, axis: int) -> Any:
    return _library_function("vecdot", x1, x2)(x1, x2, axis=axis)


def _along(g: Any, axis: int) -> Any:
    """The cotangent of a reduction with its axis, counted from the end, back as one of length 1."""
    before = len(g.shape) + 1 + axis
    return g.reshape((*g.shape[:before], 1, *g.shape[before:]))


@primitive(
    x1=lambda g, x1, x2, axis: fit(cross(x2, g, axis=axis), x1.shape, x1.dtype),
    x2=lambda g, x1, x2, axis: fit(cross(g, x1, axis=axis), x2.shape, x2.dtype),
)
def _cross(x1: Any, x2: Any, axis: int) -> Any:
    return namespace(x1, x2).linalg.cross(x1, x2, axis=axis)


def _diagonal_rule(g: Any, shape: tuple[int, ...], offset: int) -> Any:
    return from_diagonal(g, shape[-2], shape[-1], offset)


@linear(_diagonal_rule)
def _diagonal(x: Any, offset: int) -> Any:
    return namespace(x).linalg.diagonal(x, offset=offset)


@linear(lambda g, shape, rows, columns, offset: diagonal(g, offset=offset))
def from_diagonal(x: Any, rows: int, columns: int, offset: int) -> Any:
    """Matrices of zeros but for one diagonal, the transpose of `diagonal`."""
    xp = namespace(x)
    matrix = xp.zeros((*x.shape[:-1], rows, columns), dtype=x.dtype)
    i = xp.arange(x.shape[-1])
    matrix[..., i + max(-offset, 0), i + max(offset, 0)] = x
    return matrix


def _solve_rule(g: Any, ans: Any, matrices: tuple[Any, Any]) -> tuple[Any, Any]:
    x1, x2 = matrices
    h = solve(x1.mT, g)
    return fit(-matmul(h, ans.mT), x1.shape, x1.dtype), fit(h, x2.shape, x2.dtype)


@primitive(matrices=_solve_rule)
def _solve(*matrices: Any) -> Any:
    x1, x2 = matrices
    if x1.shape[:-2] == x2.shape[:-2]:
        return linalg("solve", x1, x2)
    batch = numpy.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])  # CuPy's solve does not broadcast
    x1, x2 = broadcast_to(x1, (*batch, *x1.shape[-2:])), broadcast_to(x2, (*batch, *x2.shape[-2:]))
    return namespace(x1, x2).linalg.solve(x1, x2)
