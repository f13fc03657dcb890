"""A function of each matrix of a batch, the matrices shared out among the cores.

NumPy decomposes a batch one matrix after the other, and threads inside of LAPACK do little for matrices of some
hundred rows, or worse: where other programs need the cores too, threads of OpenBLAS wait for one another. So while
one batch is at work here OpenBLAS is held to one thread, and as many threads as it had take the matrices; NumPy lets go
of Python's lock meanwhile. Milliseconds for a whole batch on two cores which about eight other programs shared
(OpenBLAS 0.3.31, NumPy 2.4, float64): a call with two threads of OpenBLAS, and two threads here:

              svd           eigh          qr          inv
    64 × 64   1920 / 158    1163 / 108    29 / 26     26 / 30     64 matrices
    100 × 100 6552 / 206    2323 / 144    1228 / 35   353 / 29    32 matrices

So OMP_NUM_THREADS, OPENBLAS_NUM_THREADS and `threadpoolctl` say how many threads there are, and
CUTNN_FACES_OVER_CORES=0 leaves all to NumPy; so do other libraries than OpenBLAS. Each matrix is decomposed by the
same code, on one thread: results do not depend on how many there are.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy

from cutnn.device import namespace

# Of l × m matrices, times l m min(l, m): what LAPACK takes about (Golub and Van Loan 2013), to tell what is small.
FLOPS = {"svd": 22, "svdvals": 4, "eig": 25, "eigh": 9, "eigvalsh": 4 / 3}
FLOPS |= {"qr": 4, "inv": 2, "solve": 2, "cholesky": 1 / 3}
_WORTH_FLOPS = 2e7  # about 4 ms on one core: waking a thread takes 0.1 ms, on a busy machine a few
_THREADED_FLOPS = 1e5  # LAPACK takes no threads for less
_PIECES = 4  # that a thread takes one after the other: on a busy machine one may be slower than the other


def linalg(name: str, *arrays: Any, **options: Any) -> Any:
    """The function of that name of the library that owns the arrays, by the cores."""
    function = getattr(namespace(*arrays).linalg, name)
    return by_faces(functools.partial(function, **options), FLOPS[name], *arrays)


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
    blas = _openblas()
    if shared and blas is not None and count < blas.get_threads():
        return function(*arrays)  # a few large matrices: OpenBLAS has the better use for its threads
    with one_thread() as threads:
        if threads == 1 or not shared:
            return function(*arrays)
        task = _Task(function, [x.reshape(count, *x.shape[len(batch) :]) for x in arrays], threads)
        return task.run(tuple(batch))


@contextlib.contextmanager
def one_thread(worth: bool = True) -> Iterator[int]:
    """Hold OpenBLAS to the calling thread, and say how many it had: 1 too where another call, or nobody, holds it.

    It is for `by_faces`, and for products between two calls of it.

    After a product its threads wait for the next one with a busy loop of 26 ms (2**26 cycles), on a core that the faces
    could have: two factorisations of 32 faces of 100 × 100 on two cores took 60 ms each, and 30 with this.
    """
    blas = _openblas() if worth else None
    if blas is None or not _turn.acquire(blocking=False):
        yield 1
        return
    try:
        threads = blas.get_threads()
        _held.append(threads)
        blas.set_threads(1)
        try:
            yield threads
        finally:
            blas.set_threads(_held.pop())
    finally:
        _turn.release()


class _Task:
    """One call: the parts that are still to do, and the results, filled in by whoever did a part."""

    def __init__(self, function: Callable[..., Any], arrays: list[Any], threads: int) -> None:
        count = len(arrays[0])
        edges = numpy.linspace(0, count, min(count, _PIECES * threads) + 1).astype(int)
        self.function, self.arrays, self.threads, self.count = function, arrays, threads, count
        self.todo = deque(map(slice, edges[:-1], edges[1:]))
        self.results: list[Any] = []
        self.kind: type = tuple
        self.lock = threading.Lock()

    def run(self, batch: tuple[int, ...]) -> Any:
        helpers: list[Future[None]] = []
        try:
            for _ in range(self.threads - 1):
                context = contextvars.copy_context()  # the caller's np.errstate
                helpers.append(_executor().submit(context.run, self.take))
        except (
            RuntimeError
        ):  # the interpreter is about to end, and starts no threads: all parts are taken here
            pass
        try:
            self.take()
        finally:
            self.todo.clear()
            errors = [helper.exception() for helper in helpers if not helper.cancel()]
        for error in errors:
            if error is not None:
                raise error
        results = [x.reshape(batch + x.shape[1:]) for x in self.results]
        if not issubclass(self.kind, tuple):
            return results[0]
        return self.kind(results) if self.kind is tuple else self.kind(*results)

    def take(self) -> None:
        """Do parts until there are none."""
        try:
            while True:
                try:
                    part = self.todo.popleft()
                except IndexError:
                    return
                self.put(part, self.function(*[x[part] for x in self.arrays]))
        except BaseException:
            self.todo.clear()
            raise

    def put(self, part: slice, answer: Any) -> None:
        arrays = answer if isinstance(answer, tuple) else (answer,)
        with self.lock:
            if not self.results:
                self.kind = type(answer)
                self.results = [numpy.empty((self.count, *x.shape[1:]), x.dtype) for x in arrays]
        for result, x in zip(self.results, arrays, strict=True):
            result[part] = x


# --------------------------------------------------------------------------------------------- threads


_turn = threading.Lock()  # taken by the one call that is at work
_held: list[int] = []  # how many threads OpenBLAS is to have again after it


@functools.cache
def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="cutnn-faces")


def _forget() -> None:
    """In the child of a fork, which has no threads but one: a call that another thread was at never ends there."""
    global _turn
    _turn = threading.Lock()
    _executor.cache_clear()
    if _held and (blas := _openblas()) is not None:
        blas.set_threads(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class _OpenBLAS(NamedTuple):
    """The number of threads of the library that NumPy calls."""

    get_threads: Callable[[], int]
    set_threads: Callable[[int], Any]


@functools.cache
def _openblas() -> _OpenBLAS | None:
    """That of NumPy, found among what its extension module is linked with; None for another library."""
    if os.environ.get("CUTNN_FACES_OVER_CORES", "1") == "0":
        return None
    try:
        library = ctypes.CDLL(numpy.linalg._umath_linalg.__file__)
    except (AttributeError, OSError):
        return None
    for prefix in ("scipy_openblas", "openblas"):
        for suffix in ("64_", "_64", ""):
            try:
                return _OpenBLAS(
                    getattr(library, f"{prefix}_get_num_threads{suffix}"),
                    getattr(library, f"{prefix}_set_num_threads{suffix}"),
                )
            except AttributeError:
                continue
    return None
