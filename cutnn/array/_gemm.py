"""Products of plain arrays of matrices, by the road that is measured to be the fastest.

Everything that multiplies matrices passes here: `matmul` of `cutnn.array`, the transforms of tubes, and the rules of
both. The meaning is that of the library's own `matmul`, for two axes or more.

NumPy multiplies a batch one matrix after the other, and its OpenBLAS takes no threads for matrices as small as faces
are. So in a computation that is `held` (`cutnn/_cores.py`) the cores take the matrices, or the columns of a single
product, between them. MKL, where its wheel is installed, has a call for a whole batch (`_mkl.py`). Microseconds on two
cores, float32 (OpenBLAS 0.3.31 on one thread, NumPy 2.4, MKL 2026.2), medians of calls in turn:

                                        NumPy   cores    MKL
    32 faces 96×96 by 96×32               263     190    116
    32 faces 96×32 by 32×96               236     168    113
    M 32×32 by tubes 32×9216              386     228    123
    M 32×32 by tubes 32×3072              104      92     49
    28 faces 28×28 by 28×32                19      52     23
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from types import EllipsisType
from typing import Any, NamedTuple

import numpy

from cutnn._cores import one_thread, share, threads
from cutnn.array import _mkl, _precision, _rounded
from cutnn.device import is_numpy, recording

_WORTH = 2_500_000
"""Multiplications from which the cores share a product: to part and to join takes 25 µs.

Steps of the Hamiltonian network for CIFAR-10 (depth 4, batch 32) took 11 % less time than with 20 million.
"""

_BLOCKS = range(768, 127, -1)
"""How many columns of a single product of few rows are one product of a batch, where they come out even.

So small ones OpenBLAS multiplies without packing them: 32×32 by 32×9216 takes 280 µs on one core in 12 of them, 312
whole.
"""

_UNPACKED = 1_000_000
"""Multiplications up to which OpenBLAS packs nothing.

It is slow then where the second matrix lies by columns: 32 faces of 96×32 by (96×32)ᵀ take 240 µs on one core, and 185
with a copy of it; of 96×256 by (96×256)ᵀ, which are packed, 1740 and 2500.
"""

_Place = tuple[slice | EllipsisType, ...]


def matmul(x1: Any, x2: Any, out: Any = None) -> Any:
    """x1 @ x2 for plain arrays of one library, (*batch, l, p) times (*batch, p, m), in the precision in force.

    `out` is NumPy's, contiguous. While a step is captured (`ct.capture`) the recording makes the product.
    """
    if _precision.in_use and (precision := _precision.get_precision()) != "float32":
        rounded = functools.partial(_rounded_matmul, precision)
        if recording.recorder is not None and _is_recorded(x1, x2):
            return recording.recorder.matmul(rounded, x1, x2)
        return rounded(x1, x2, out)
    if type(x1) is type(x2) is numpy.ndarray:
        # A recorder is not asked: most products are of small plain arrays.
        if x1.ndim > 1 < x2.ndim and (product := _faster(x1, x2, out)) is not None:
            return product
    elif recording.recorder is not None:
        return recording.recorder.matmul(numpy.matmul if _is_numpys(x1, x2) else matmul, x1, x2)
    return x1 @ x2 if out is None else numpy.matmul(x1, x2, out=out)


def _faster(x1: Any, x2: Any, out: Any) -> Any:
    """The product by a faster road than NumPy's `matmul`; None where there is none."""
    work = x1.size * x2.shape[-1]
    if work < _mkl.WORTH:
        return x1.dot(x2) if out is None and x1.ndim == x2.ndim == 2 and _is_dots(x1, x2) else None
    # A small single product OpenBLAS makes as fast, where it is held to one thread.
    is_small = work < _mkl.SHARED and x1.ndim == x2.ndim == 2 and threads() > 1
    if not is_small and x1.dtype == x2.dtype and (product := _mkl.matmul(x1, x2, out)) is not None:
        return product
    if threads() > 1 and is_shared(x1, x2) and x1.shape[-1] == x2.shape[-2]:
        return _on_cores(x1, x2, out)
    return None


def _is_dots(x1: Any, x2: Any) -> bool:
    """Whether NumPy's `dot` makes this product of two matrices to the same bits: 4×4 by 4×4 takes 0.3 µs less by it."""
    return (
        x1.dtype == x2.dtype
        and x1.itemsize > 2
        and x1.shape[1] == x2.shape[0]
        and 1 not in x1.shape
        and x2.shape[1] != 1
        and (flags1 := x1.flags).forc
        and (flags2 := x2.flags).forc
        and flags1.aligned
        and flags2.aligned
    )


def _is_recorded(x1: Any, x2: Any) -> bool:
    """Whether the one or the other is an array of a step that is captured, in place of NumPy's."""
    return is_numpy(x1) and is_numpy(x2) and not type(x1) is type(x2) is numpy.ndarray


def _rounded_matmul(precision: str, x1: Any, x2: Any, out: Any = None) -> Any:
    product = _rounded.matmul(x1, x2, precision, matmul)
    if out is None:
        return product
    out[...] = product
    return out


def _is_numpys(x1: Any, x2: Any) -> bool:
    """Whether `matmul` leaves a product to NumPy."""
    if x1.ndim < 2 or x2.ndim < 2:
        return True
    work = x1.size * x2.shape[-1]
    return not (work >= _mkl.WORTH and _mkl.is_here()) and not (threads() > 1 and is_shared(x1, x2))


def is_shared(x1: Any, x2: Any, times: int = 1) -> bool:
    """Whether the product of two arrays of matrices is large enough for the cores to share, or so many times that."""
    return bool(x1.size * x2.shape[-1] * (4 if x1.dtype.kind == "c" else 1) >= times * _WORTH)


def is_limited() -> bool:
    """Whether only `matmul` makes products now: CuPy refuses its own, as tensordot, while CUDA captures a step."""
    return bool(getattr(recording.recorder, "only_matmul", False))


def _on_cores(x1: Any, x2: Any, out: Any = None) -> Any:
    """The product, a part for each core: of the longest axis of the batch, or of columns or rows."""
    with one_thread() as cores:
        plan = _planned(x1.shape, x2.shape, cores)
        whole = numpy.empty(plan.shape, numpy.result_type(x1, x2)) if out is None else out
        product = whole
        if plan.blocks > 1:
            x2, product = _in_blocks(x2, plan.blocks), _in_blocks(product, plan.blocks)

        rows, (inner, columns) = x1.shape[-2], x2.shape[-2:]
        copied = (
            product.ndim > 2
            and x2.strides[-1] != x2.itemsize
            and inner <= rows
            and rows * inner * columns <= _UNPACKED
        )

        def multiply(parts: Iterator[tuple[Any, Any, Any]]) -> None:
            for first, second, place in parts:
                right = numpy.ascontiguousarray(x2[second]) if copied else x2[second]
                numpy.matmul(x1[first], right, out=product[place])

        share(multiply, plan.parts, cores)
        return whole


class _Plan(NamedTuple):
    """The shape of a product, in how many blocks its columns are taken, and what each core multiplies to what."""

    shape: tuple[int, ...]
    blocks: int
    parts: list[tuple[_Place, _Place, _Place]]


@functools.lru_cache(maxsize=1024)
def _planned(shape1: tuple[int, ...], shape2: tuple[int, ...], cores: int) -> _Plan:
    shape = (*numpy.broadcast_shapes(shape1[:-2], shape2[:-2]), shape1[-2], shape2[-1])
    rows, columns = shape[-2:]
    blocks = 1
    if len(shape) == 2 and rows < columns:
        even = [columns // w for w in _BLOCKS if columns % w == 0 and rows * shape1[-1] * w <= _UNPACKED]
        blocks = next((n for n in even if n % cores == 0), even[0] if even else 1)
    parted = (blocks, rows, columns // blocks) if blocks > 1 else shape
    batch = parted[:-2]
    candidates = range(len(batch) if math.prod(batch) >= cores else len(parted))
    axis = max(candidates, key=parted.__getitem__) - len(parted)
    count = min(parted[axis], cores)
    edges = [i * parted[axis] // count for i in range(count + 1)]
    shape2 = (blocks, shape2[0], columns // blocks) if blocks > 1 else shape2
    parts = [
        (
            () if axis == -1 else _place(shape1, axis, part),
            () if axis == -2 else _place(shape2, axis, part),
            _place(parted, axis, part),
        )
        for part in map(slice, edges, edges[1:])
    ]
    return _Plan(shape, blocks, parts)


def _in_blocks(x: Any, blocks: int) -> Any:
    """A matrix as a batch of matrices, each of some of its columns."""
    rows, columns = x.shape
    return x.reshape(rows, blocks, columns // blocks).transpose(1, 0, 2)


def _place(shape: tuple[int, ...], axis: int, part: slice) -> _Place:
    """Where a part of an axis counted from the end is; everything where that axis has length 1, or is not there."""
    if len(shape) < -axis or shape[axis] == 1:
        return ()
    return (..., part, *[slice(None)] * (-axis - 1))
