"""The bytes that a call has in use at its peak, beyond those before it, as each library's own books have them.

The memory of a process would not do: allocators keep what was freed, and libraries load as they go.
"""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any


def cutnn_peak(call: Callable[[], Any]) -> float:
    """Of NumPy arrays by tracemalloc, which NumPy tells of each; on a GPU what CuPy's pool has to get."""
    import cutnn as ct

    if ct.get_device() != "cpu":
        import cupy

        pool = cupy.get_default_memory_pool()
        pool.free_all_blocks()
        before = pool.total_bytes()
        call()
        return float(pool.total_bytes() - before)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        call()
        return float(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()


def torch_peak(call: Callable[[], Any], device: str) -> float:
    """Of PyTorch's tensors: on a CPU by its profiler, which hears of each allocation."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated() - before)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        call()
    changes = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return float(max(itertools.accumulate(event.nbytes() for event in changes), default=0))
