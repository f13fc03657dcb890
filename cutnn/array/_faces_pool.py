"""A function of each matrix of a batch, the matrices shared out among the cores.

NumPy decomposes a batch one matrix after the other, and threads inside of LAPACK do little for matrices of some
hundred rows, or worse: where other programs need the cores too, threads of OpenBLAS wait for one another. So while
one batch is at work here OpenBLAS is held to one thread, and as many threads as it had take the matrices; NumPy lets go
of Python's lock meanwhile. Milliseconds for a whole batch on two cores which about eight other programs shared
(OpenBLAS 0.3.31, NumPy 2.4, float64): a call with two threads of OpenBLAS, and two threads here:

              svd           eigh          qr          inv
    64 × 64   1920 / 158    1163 / 108    29 / 26     26 / 30     64 matrices
    100 × 100 6552 / 206    2323 / 144    1228 / 35   353 / 29    32 matrices

Each matrix is decomposed by the same code, on one thread: results do not depend on how many there are.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy

from cutnn._cores import one_thread, openblas, share
from cutnn.array import _batched
from cutnn.device import namespace, opaque

# Of l × m matrices, times l m min(l, m): what LAPACK takes about (Golub and Van Loan 2013), to tell what is small.
FLOPS = {"svd": 22, "svdvals": 4, "eig": 25, "eigh": 9, "eigvalsh": 4 / 3}
FLOPS |= {"qr": 4, "inv": 2, "solve": 2, "cholesky": 1 / 3}
_WORTH_FLOPS = 2e7  # about 4 ms on one core: waking a thread takes 0.1 ms, on a busy machine a few
_THREADED_FLOPS = 1e5  # LAPACK takes no threads for less
_PIECES = 4  # that a thread takes one after the other: on a busy machine one may be slower than the other


def linalg(name: str, *arrays: Any, **options: Any) -> Any:
    """The function of that name of the library that owns the arrays, by the cores, or by the blocks of a GPU."""
    if len(arrays) == 1 and (answer := _batched.linalg(name, *arrays, **options)) is not None:
        return answer
    function = getattr(namespace(*arrays).linalg, name)
    return by_faces(functools.partial(function, **options), FLOPS[name], *arrays)


@opaque
def by_faces(function: Callable[..., Any], flops: float, *arrays: Any) -> Any:
    """function(*arrays) for batches of matrices, (*batch, l, m), alike in their batch axes: an array, or a tuple.

    It is called with a part of the matrices at a time, (f, l, m), on several threads, where NumPy's arrays are worth
    it; its results keep their axis f in front, and their types must not depend on the values. `flops` is what it does
    for a matrix over l m min(l, m), for real numbers.
    """
    first = arrays[0]
    if len(first.shape) < 3 or type(first) is not numpy.ndarray:
        return function(*arrays)
    *batch, rows, columns = first.shape
    count = math.prod(batch)
    work = flops * count * rows * columns * min(rows, columns) * (4 if first.dtype.kind == "c" else 1)
    shared = work >= _WORTH_FLOPS
    if not shared and work < _THREADED_FLOPS:
        return function(*arrays)
    blas = openblas()
    if shared and blas is not None and count < blas.get_threads():
        return function(*arrays)  # a few large matrices: OpenBLAS has the better use for its threads
    with one_thread() as threads:
        if threads == 1 or not shared:
            return function(*arrays)
        task = _Task(function, [x.reshape(count, *x.shape[len(batch) :]) for x in arrays], threads)
        return task.run(tuple(batch))


class _Task:
    """One call: its parts, and the results, filled in by whoever did a part."""

    def __init__(self, function: Callable[..., Any], arrays: list[Any], threads: int) -> None:
        self.function, self.arrays, self.threads, self.count = function, arrays, threads, len(arrays[0])
        self.results: list[Any] = []
        self.kind: type = tuple
        self.lock = threading.Lock()

    def run(self, batch: tuple[int, ...]) -> Any:
        edges = numpy.linspace(0, self.count, min(self.count, _PIECES * self.threads) + 1).astype(int)
        share(self.do, map(slice, edges[:-1], edges[1:]), self.threads)
        results = [x.reshape(batch + x.shape[1:]) for x in self.results]
        if not issubclass(self.kind, tuple):
            return results[0]
        return self.kind(results) if self.kind is tuple else self.kind(*results)

    def do(self, parts: Iterator[slice]) -> None:
        for part in parts:
            self.put(part, self.function(*[x[part] for x in self.arrays]))

    def put(self, part: slice, answer: Any) -> None:
        arrays = answer if isinstance(answer, tuple) else (answer,)
        with self.lock:
            if not self.results:
                self.kind = type(answer)
                self.results = [numpy.empty((self.count, *x.shape[1:]), x.dtype) for x in arrays]
        for result, x in zip(self.results, arrays, strict=True):
            result[part] = x
