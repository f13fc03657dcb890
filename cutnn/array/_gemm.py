"""Products of plain arrays of matrices, by the road that is measured to be the fastest.

Everything that multiplies matrices passes here: `matmul` of `cutnn.array`, the transforms of tubes, and the rules of
both. The meaning is that of the library's own `matmul`, for two axes or more.

NumPy multiplies a batch one matrix after the other, and its OpenBLAS takes no threads for matrices as small as faces
are. So in a computation that is `held` (`cutnn/_cores.py`) the cores take the matrices, or the columns of a single
product, between them. MKL, where its wheel is installed, has a call for a whole batch (`_mkl.py`). Microseconds on two
cores, float32 (OpenBLAS 0.3.31 on one thread, NumPy 2.4, MKL 2026.2), medians of calls in turn:

                                        NumPy   cores    MKL
    32 faces 96×96 by 96×32               272     200    137
    32 faces 96×32 by 32×96               275     207    139
    M 32×32 by tubes 32×9216              319     236    205
    M 32×32 by tubes 32×3072              106     117     80
    28 faces 28×28 by 28×32                28      28     17
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy

from cutnn._cores import one_thread, share, threads
from cutnn.array import _mkl, _precision, _rounded
from cutnn.device import is_numpy, recording

_WORTH = 20_000_000
"""Multiplications from which the cores share a product.

To part and to join takes 60 µs, and caches are cold: a training step of 25 ms with faces 96×96 by 96×32 (9.4 million)
took 3 % longer with these shared than without.
"""

_PARTS = 2  # that a core takes one after the other: on a busy machine one may be slower than the other


def matmul(x1: Any, x2: Any, out: Any = None) -> Any:
    """x1 @ x2 for plain arrays of one library, (*batch, l, p) times (*batch, p, m), in the precision in force.

    `out` is NumPy's, contiguous. While a step is captured (`ct.capture`) the recording makes the product.
    """
    # Most products are of small plain arrays, and nobody is asked about those.
    recorder = None if type(x1) is type(x2) is numpy.ndarray else recording.recorder
    if _precision.in_use and (precision := _precision.get_precision()) != "float32":
        rounded = functools.partial(_rounded_matmul, precision)
        if recorder is not None and is_numpy(x1) and is_numpy(x2):
            return recorder.matmul(rounded, x1, x2)
        return rounded(x1, x2, out)
    if recorder is not None:
        return recorder.matmul(numpy.matmul if _is_numpys(x1, x2) else matmul, x1, x2)
    if type(x1) is numpy.ndarray and x1.ndim > 1 < x2.ndim:
        work = x1.size * x2.shape[-1]
        if work >= _mkl.WORTH and x1.dtype == x2.dtype and (product := _mkl.matmul(x1, x2, out)) is not None:
            return product
        if threads() > 1 and is_shared(x1, x2) and x1.shape[-1] == x2.shape[-2]:
            return _on_cores(x1, x2, out)
    return x1 @ x2 if out is None else numpy.matmul(x1, x2, out=out)


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


def is_shared(x1: Any, x2: Any) -> bool:
    """Whether the product of two arrays of matrices is large enough for the cores to share it."""
    return bool(x1.size * x2.shape[-1] * (4 if x1.dtype.kind == "c" else 1) >= _WORTH)


def is_limited() -> bool:
    """Whether only `matmul` makes products now: CuPy refuses its own, as tensordot, while CUDA captures a step."""
    return bool(getattr(recording.recorder, "only_matmul", False))


def _on_cores(x1: Any, x2: Any, out: Any = None) -> Any:
    """The product, in parts: of the longest axis of the batch, or of the columns or rows of a single product."""
    with one_thread() as cores:
        batch = numpy.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
        shape = (*batch, x1.shape[-2], x2.shape[-1])
        product = numpy.empty(shape, numpy.result_type(x1, x2)) if out is None else out
        candidates = range(len(batch) if math.prod(batch) >= cores else len(shape))
        axis = max(candidates, key=shape.__getitem__) - len(shape)
        parts = min(shape[axis], _PARTS * cores)
        edges = [i * shape[axis] // parts for i in range(parts + 1)]
        todo = [
            (
                x1 if axis == -1 else _part(x1, axis, part),
                x2 if axis == -2 else _part(x2, axis, part),
                _part(product, axis, part),
            )
            for part in map(slice, edges, edges[1:])
        ]

        def multiply(items: Iterator[tuple[Any, Any, Any]]) -> None:
            for a, b, place in items:
                numpy.matmul(a, b, out=place)

        share(multiply, todo, cores)
        return product


def _part(x: Any, axis: int, part: slice) -> Any:
    """A part of x along an axis counted from the end; the whole where x has it of length 1, or not at all."""
    if x.ndim < -axis or x.shape[axis] == 1:
        return x
    return x[(..., part, *[slice(None)] * (-axis - 1))]
