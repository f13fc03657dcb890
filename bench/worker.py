"""The process in which one peer works, told block by block what to run."""

from __future__ import annotations

import gc
import resource
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from bench.case import Unavailable, Work

_WARM_SECONDS = 0.3


def serve(pipe: Connection, threads: int) -> None:
    """Answer requests until the pipe closes; each answer is ("ok", result) or (kind of failure, text)."""
    peer = _Server(threads)
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
    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.work: Work | None = None

    def make(self, make: Callable[..., Work], size: dict[str, Any]) -> list[Any]:
        """Prepare the work, and do it once for its answer."""
        self.work = None
        self.work = make(**size)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self.threads)
        return list(self.work.answer())

    def warm(self, block_seconds: float) -> int:
        """Warm up, and count the calls that fill a block."""
        assert self.work is not None
        began = time.perf_counter()
        calls = 0
        while time.perf_counter() - began < _WARM_SECONDS or calls < 3:
            self.work.call()
            calls += 1
        return max(1, int(block_seconds * calls / (time.perf_counter() - began)))

    def block(self, calls: int, warm: bool) -> float:
        """Seconds for each of so many calls."""
        assert self.work is not None
        gc.collect()  # so that no peer pays for garbage of the block before
        if warm:
            self.work.call()  # threads sleep and caches are cold after the other peers' blocks
        began = time.perf_counter()
        for _ in range(calls):
            self.work.call()
        return (time.perf_counter() - began) / calls


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
