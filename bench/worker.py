"""The process in which one peer works, told block by block what to run.

It answers once its threads sleep, or after half a second: those of OpenBLAS 0.3.31 wait for their next product in a
busy loop of 2**28 cycles, 128 ms at 2.1 GHz, and would take a core from the next peer. A ★ product by MKL took 0.95 ms
beside such a thread, 0.45 without.
"""

from __future__ import annotations

import gc
import inspect
import resource
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from bench import machine
from bench.case import Unavailable, Work

_WARM_SECONDS = 0.2
_LOOK_SECONDS, _MOST_LOOKS = 0.02, 25  # at whether the threads sleep


def serve(pipe: Connection, threads: int, device: str) -> None:
    """Answer requests until the pipe closes; each answer is ("ok", result) or (kind of failure, text)."""
    machine.use_cores(threads)
    peer = _Server(threads, device)
    busy = 0.0
    while True:
        began = time.perf_counter()
        try:
            request, arguments = pipe.recv()
            began = time.perf_counter()
            if request == "usage":
                result: Any = {
                    "total_s": round(busy, 3),
                    "peak_mb": round(_peak_mb(), 1),
                    "processor_s": time.process_time(),
                }
            else:
                result = getattr(peer, request)(*arguments)
                busy += time.perf_counter() - began
                _until_threads_sleep()
                began = time.perf_counter()
            pipe.send(("ok", result))
        except (EOFError, KeyboardInterrupt):
            return
        except Unavailable as reason:
            pipe.send(("unavailable", str(reason)))
        except ImportError as error:
            pipe.send(("unavailable", f"cannot be imported: {error}"))
        except Exception:
            pipe.send(("failed", traceback.format_exc()))
        busy += time.perf_counter() - began


class _Server:
    def __init__(self, threads: int, device: str) -> None:
        self.threads = threads
        self.device = device
        self.work: Work | None = None

    def make(self, make: Callable[..., Work], size: dict[str, Any]) -> list[Any]:
        """Prepare the work, and do it once for its answer."""
        self.work = None
        if "device" in inspect.signature(make).parameters:
            size = size | {"device": self.device}
        self.work = make(**size)
        self._set_threads()
        return list(self.work.answer())

    def warm(self) -> float:
        """Warm up, and return the seconds that a call takes, about."""
        assert self.work is not None
        began = time.perf_counter()
        calls, elapsed = 0, 0.0
        while elapsed < _WARM_SECONDS or (calls < 3 and elapsed < 3 * _WARM_SECONDS):
            self.work.wait(self.work.call())
            calls += 1
            elapsed = time.perf_counter() - began
        return elapsed / calls

    def block(self, calls: int, warm: bool) -> float:
        """Seconds for each of so many calls."""
        assert self.work is not None
        gc.collect()  # so that no peer pays for garbage of the block before
        if warm:
            self.work.wait(self.work.call())  # threads sleep, caches are cold after the other peers' blocks
        result = None
        began = time.perf_counter()
        for _ in range(calls):
            result = self.work.call()
        self.work.wait(result)
        return (time.perf_counter() - began) / calls

    def peak(self) -> float:
        """Bytes in use at the peak of a call, beyond those before it."""
        assert self.work is not None and self.work.peak is not None
        gc.collect()
        return float(self.work.peak(self.work.call))

    def limits(self, library: str) -> dict[str, float]:
        """The GEMM rate and the copy bandwidth that a library reaches here."""
        __import__(library)
        self._set_threads()
        return machine.rates(library, self.device)

    def _set_threads(self) -> None:
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self.threads)


def _until_threads_sleep() -> None:
    for _ in range(_MOST_LOOKS):
        before = time.process_time()
        time.sleep(_LOOK_SECONDS)
        if time.process_time() - before < 0.1 * _LOOK_SECONDS:
            return


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
