"""The cores at work on one call: a function run by the caller and by helpers at once, with OpenBLAS held to one thread.

After a product the threads of OpenBLAS wait for the next one in a busy loop, of 2**28 cycles in version 0.3.31, 128 ms
at 2.1 GHz, on cores that helpers could have. So while helpers work OpenBLAS is held to one thread, and as many threads
as it had are what there are: OMP_NUM_THREADS, OPENBLAS_NUM_THREADS and `threadpoolctl` say how many.
CUTNN_FACES_OVER_CORES=0 leaves all to NumPy; so do other libraries than OpenBLAS.

One call has the helpers at a time; another thread's call, or a call within one, goes on by itself.

A whole computation, such as a gradient, is `held`: OpenBLAS stays on one thread all through it, and large products in
it are shared out by `array/_gemm.py`. One product left to threads of OpenBLAS would slow down all that follow: a
training step of the Hamiltonian network for CIFAR-10 took 31 ms so, and 24 ms held.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy


@contextlib.contextmanager
def one_thread(worth: bool = True) -> Iterator[int]:
    """Hold OpenBLAS to the calling thread, and say how many it had: 1 too where another call, or nobody, holds it.

    Two factorisations of 32 faces of 100 × 100 on two cores took 60 ms each, with threads of OpenBLAS left over from a
    product between them, and 30 with this.
    """
    global _owner
    if _owner == threading.get_ident():
        _owner = None  # a call within this one goes on by itself
        try:
            yield _held[-1]
        finally:
            _owner = threading.get_ident() if _held else None
        return
    blas, turn = openblas() if worth else None, _turn  # in a fork amid this there is a new one
    if blas is None or not turn.acquire(blocking=False):
        yield 1
        return
    try:
        threads = blas.get_threads()
        _held.append(threads)
        blas.set_threads(1)
        try:
            yield threads
        finally:
            if _held:
                blas.set_threads(_held.pop())
    finally:
        turn.release()


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold OpenBLAS to one thread all through a computation of the calling thread, whose calls have the helpers."""
    global _owner
    with one_thread() as threads:
        if threads == 1 or _owner is not None:
            yield
            return
        _owner = threading.get_ident()
        try:
            yield
        finally:
            _owner = None


def threads() -> int:
    """How many threads a product of the calling thread may have here: 1 outside of `held`."""
    return _held[-1] if _owner == threading.get_ident() else 1


def share(work: Callable[[Iterator[Any]], Any], todo: Iterable[Any], threads: int) -> None:
    """Run work(items) on so many threads, each of which iterates over what no other has taken of `todo` yet.

    For the one that holds `one_thread`. After an error in one of them nothing more is taken, and it is raised.
    """
    queue = deque(todo)

    def take() -> Iterator[Any]:
        while queue:
            try:
                item = queue.popleft()
            except IndexError:  # another thread took the last one
                return
            yield item

    def run() -> None:
        try:
            work(take())
        except BaseException:
            queue.clear()
            raise

    _everywhere(run, min(threads, len(queue)))


def _everywhere(function: Callable[[], Any], threads: int) -> None:
    """Run function() on the calling thread and on threads − 1 helpers, and raise the first error once all are done.

    Waking a helper takes about 10 µs; it runs in the caller's context (np.errstate). Where no thread can be started
    fewer run, so function() is to take its work from a common store.
    """
    if threads <= 1:
        function()
        return
    helpers: list[_Helper] = []
    try:
        for helper in _helpers(threads - 1):
            helpers.append(helper)
            helper.start(contextvars.copy_context(), function)
        function()
    finally:
        errors = [error for helper in helpers if (error := helper.wait()) is not None]
    if errors:
        raise errors[0]


class _Helper:
    """A thread that waits for functions to run."""

    def __init__(self) -> None:
        self.go, self.done = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.done.acquire()
        self.context: contextvars.Context
        self.function: Callable[[], Any] | None = None
        self.error: BaseException | None = None
        threading.Thread(target=self._serve, name="cutnn-cores", daemon=True).start()

    def start(self, context: contextvars.Context, function: Callable[[], Any]) -> None:
        self.context, self.function = context, function
        self.go.release()

    def wait(self) -> BaseException | None:
        """The error of the function, once it has ended; Ctrl-C comes after it, since it writes to arrays."""
        interrupted = None
        while True:
            try:
                self.done.acquire()
                break
            except KeyboardInterrupt as error:
                interrupted = error
        own, self.error, self.function = self.error, None, None
        return interrupted or own

    def _serve(self) -> None:
        while True:
            self.go.acquire()
            try:
                self.context.run(self.function)  # type: ignore[arg-type]
            except BaseException as error:
                self.error = error
            self.done.release()


def _helpers(count: int) -> list[_Helper]:
    try:
        while len(_pool) < count:
            _pool.append(_Helper())
    except RuntimeError:  # the interpreter is about to end, and starts no threads
        pass
    return _pool[:count]


_turn = threading.Lock()  # taken by the one call that is at work
_held: list[int] = []  # how many threads OpenBLAS is to have again after it
_pool: list[_Helper] = []
_owner: int | None = None  # the thread whose computation is held, while no call of it has the helpers


def _forget() -> None:
    """In the child of a fork, which has no threads but one: a call that another thread was at never ends there."""
    global _turn, _owner
    _turn, _owner = threading.Lock(), None
    _pool.clear()
    if _held and (blas := openblas()) is not None:
        blas.set_threads(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class _OpenBLAS(NamedTuple):
    """The number of threads of the library that NumPy calls."""

    get_threads: Callable[[], int]
    set_threads: Callable[[int], Any]


@functools.cache
def openblas() -> _OpenBLAS | None:
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
