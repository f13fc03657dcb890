"""Matrix products by MKL, where its wheel is installed: one call, on all cores, for a batch of any strides.

Found beside NumPy, which keeps its own BLAS: `pip install 'cutnn[cpu]'` brings it, CUTNN_MKL=0 declines. Its threads
are those of GNU OpenMP, the pool that numba's compiled loops run on as well.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import math
import os
from typing import Any, NamedTuple

import numpy

WORTH = 8_000
"""Multiplications from which MKL is asked: the call takes 4 µs by ctypes, NumPy's 1 µs."""

_ROW_MAJOR, _AS_IT_IS, _TRANSPOSED = 101, 111, 112
_GNU_THREADS = 3
_LONG = 4  # columns a row, from which a single product is given as a batch of blocks of columns
_INT, _POINTER = ctypes.c_int, ctypes.c_void_p


def matmul(x1: Any, x2: Any) -> Any:
    """x1 @ x2 for NumPy arrays of one dtype, two axes or more; None where MKL is not at hand, or cannot do it."""
    library = _library()
    if library is None or x1.dtype.char not in "fdFD":
        return None
    (*batch1, rows, p), (*batch2, q, m) = x1.shape, x2.shape
    if p != q or not (rows and m and p):
        return None
    batch = tuple(batch1) if batch1 == batch2 else numpy.broadcast_shapes(tuple(batch1), tuple(batch2))
    a, b = _operand(x1, batch), _operand(x2, batch)
    if a is None or b is None:
        return None
    product = numpy.empty((*batch, rows, m), x1.dtype)
    count = math.prod(batch)
    if count == 1 and m >= _LONG * rows and library.threads > 1:
        library.by_columns(product, a, b, p)
    elif count:
        library.batch(product, a, b, p, count)
    return product


class _Operand(NamedTuple):
    """A batch of matrices as BLAS takes it."""

    start: int
    order: int
    leading: int  # entries from a row to the next, or from a column to the next if transposed
    step: int  # entries from a matrix to the next


def _operand(x: Any, batch: tuple[int, ...]) -> _Operand | None:
    """None where the strides are not those of a batch for BLAS."""
    size = x.itemsize
    *outer, row, column = x.strides
    rows, columns = x.shape[-2:]
    # The leading axis of one row, or one column, may have any stride.
    if column == size and (row >= columns * size or rows == 1):
        order, leading = _AS_IT_IS, row // size if rows > 1 else columns
    elif row == size and (column >= rows * size or columns == 1):
        order, leading = _TRANSPOSED, column // size if columns > 1 else rows
    else:
        return None
    if row % size or column % size:
        return None
    step = _step(x.shape[:-2], outer, batch)
    if step is None or step % size:
        return None
    return _Operand(x.ctypes.data, order, leading, step // size)


def _step(shape: tuple[int, ...], strides: list[int], batch: tuple[int, ...]) -> int | None:
    """The bytes from a matrix to the next through a whole batch, if they are the same everywhere; 0 for one matrix."""
    missing = len(batch) - len(shape)
    step, length = None, 1
    for i in range(len(batch) - 1, -1, -1):
        if batch[i] == 1:
            continue
        stride = strides[i - missing] if i >= missing and shape[i - missing] > 1 else 0
        if step is None:
            step = stride
        elif stride != step * length:
            return None
        length *= batch[i]
    return 0 if step is None else step if step >= 0 else None


class _MKL:
    """The library, and its two forms of a product."""

    def __init__(self, library: Any) -> None:
        self.threads = library.MKL_Get_Max_Threads()
        self.scalars: dict[str, tuple[Any, Any]] = {}  # 1 and 0 as BLAS takes them, by the letter of a dtype
        self.strided: dict[str, Any] = {}
        self.grouped: dict[str, Any] = {}
        for char, letter, kind in zip("fdFD", "sdcz", (ctypes.c_float, ctypes.c_double) * 2, strict=True):
            scalar = kind if char in "fd" else _POINTER
            self.scalars[char] = (1.0, 0.0) if char in "fd" else ((kind * 2)(1, 0), (kind * 2)(0, 0))
            call = self.strided[char] = getattr(library, f"cblas_{letter}gemm_batch_strided")
            one, two = [_POINTER, _INT, _INT], [scalar, _POINTER, _INT, _INT]
            call.restype, call.argtypes = None, [*[_INT] * 6, *[scalar, *one], *one, *two, _INT]
            call = self.grouped[char] = getattr(library, f"cblas_{letter}gemm_batch")
            call.restype, call.argtypes = None, [_INT, *[_POINTER] * 13, _INT, _POINTER]

    def batch(self, product: Any, a: _Operand, b: _Operand, p: int, count: int) -> None:
        """A batch of `count` products, at equal distances."""
        rows, m = product.shape[-2:]
        one, zero = self.scalars[product.dtype.char]
        self.strided[product.dtype.char](
            _ROW_MAJOR, a.order, b.order, rows, m, p, one, a.start, a.leading, a.step, b.start, b.leading, b.step,
            zero, product.ctypes.data, m, rows * m, count,
        )  # fmt: skip

    def by_columns(self, product: Any, a: _Operand, b: _Operand, p: int) -> None:
        """One product of few rows and many columns, a transform of tubes, its columns shared among the cores.

        Whole, MKL leaves it to one of them: 310 µs against 205 for 32×32 by 32×9216 on two.
        """
        rows, m = product.shape[-2:]
        plan = _columns(product.dtype.char, rows, m, p, a.order, b.order, a.leading, b.leading, self.threads)
        starts = [plan.none + a.start, plan.begins * plan.step + b.start, plan.begins + product.ctypes.data]
        first, second, third = (array.ctypes.data for array in starts)
        at = plan.addresses
        self.grouped[product.dtype.char](
            _ROW_MAJOR, *at[:6], first, at[6], second, at[7], at[8], third, at[9], self.threads, at[10]
        )


class _Columns(NamedTuple):
    """What a product of blocks of columns tells BLAS that is the same for all arrays of a size."""

    arrays: list[Any]
    addresses: list[int]
    none: Any  # 0 for each block
    begins: Any  # bytes from the first column of the whole to that of each block
    step: int  # of b, over that


@functools.lru_cache(maxsize=256)
def _columns(
    char: str, rows: int, m: int, p: int, order1: int, order2: int, leading1: int, leading2: int, blocks: int
) -> _Columns:  # fmt: skip
    edges = numpy.arange(blocks + 1) * m // blocks

    def each(value: int) -> Any:
        return numpy.full(blocks, value, numpy.intc)

    arrays = [
        each(order1), each(order2), each(rows), numpy.diff(edges).astype(numpy.intc), each(p), numpy.ones(blocks, char),
        each(leading1), each(leading2), numpy.zeros(blocks, char), each(m), each(1),
    ]  # fmt: skip
    begins = edges[:-1].astype(numpy.intp) * numpy.dtype(char).itemsize
    step = 1 if order2 == _AS_IT_IS else leading2
    return _Columns(arrays, [array.ctypes.data for array in arrays], 0 * begins, begins, step)


@functools.cache
def _library() -> _MKL | None:
    path = None if os.environ.get("CUTNN_MKL", "1") == "0" else _path()
    if path is None:
        return None
    try:
        library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        if "MKL_THREADING_LAYER" not in os.environ:
            ctypes.CDLL("libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
            library.MKL_Set_Threading_Layer(_GNU_THREADS)
        return _MKL(library)
    except (OSError, AttributeError):
        return None


def _path() -> str | None:
    """libmkl_rt of the wheel."""
    try:
        files = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name.startswith(("libmkl_rt.", "mkl_rt.")):
            return str(file.locate())
    return None
