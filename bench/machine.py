"""The machine and the versions that a result was measured with, and how fast this machine can be."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

_ROOT = Path(__file__).parent.parent


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cores(count: int) -> None:
    """Keep this process to so many of its cores: the one way to tell every library how many threads are enough."""
    if count < cores() and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def host_kind(device: str = "cpu") -> str:
    """A short name of this kind of machine, for file names: x86_64-2cores, or that of the GPU."""
    if device.startswith("cuda"):
        return re.sub(r"\W+", "-", gpu_model()).strip("-")
    return f"{platform.machine()}-{cores()}cores"


def gpu_model() -> str:
    """The name of the first GPU as its driver says it; "GPU" where the driver's program is missing."""
    try:
        names = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return (
            subprocess.run(names, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
        )
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "GPU"


def busy_seconds() -> float:
    """Processor seconds that all programs here, and the host beneath a virtual machine, have taken so far."""
    try:
        ticks = [int(t) for t in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:  # not Linux: nobody is accused
        return 0.0
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and waiting for disks


# Side of the square matrices, and numbers in an array that is copied: large beside any cache.
_GEMM_SIDE = {"cpu": 2048, "cuda": 8192}
_COPIED = {"cpu": 2**25, "cuda": 2**28}
_REPEATS = 7


def rates(library: str, device: str = "cpu", shrink: int = 1) -> dict[str, float]:
    """Float32 flops a second in a large matrix product, and bytes a second, read and written, in a large copy.

    The best of a few runs, since it is a limit; `library` is "numpy", "torch" or "cupy". `shrink` divides the sizes.
    """
    kind = device.partition(":")[0]
    side, count = _GEMM_SIDE[kind] // shrink, _COPIED[kind] // shrink
    ones, copy, wait = _functions(library, device)
    A, C = ones((side, side)), ones((side, side))
    source, target = ones((count,)), ones((count,))
    return {
        "gemm": 2 * side**3 / _least_seconds(lambda: A @ C, wait),
        "copy": 2 * source.nbytes / _least_seconds(lambda: copy(target, source), wait),
    }


def _functions(library: str, device: str) -> tuple[Callable[..., Any], Callable[..., Any], Callable[[], Any]]:
    if library == "torch":
        import torch

        wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
        return lambda shape: torch.ones(shape, device=device), lambda a, b: a.copy_(b), wait
    if library == "cupy":
        import cupy

        return lambda shape: cupy.ones(shape, "float32"), cupy.copyto, cupy.cuda.Device().synchronize
    return lambda shape: np.ones(shape, np.float32), np.copyto, lambda: None


def _least_seconds(call: Callable[[], Any], wait: Callable[[], Any]) -> float:
    def once() -> float:
        began = time.perf_counter()
        call()
        wait()
        return time.perf_counter() - began

    return min(once() for _ in range(_REPEATS))


def describe(packages: Iterable[str], threads: int, device: str = "cpu") -> dict[str, object]:
    """Everything about here and now that a time depends on."""
    return {
        "device": device,
        "machine": ({"gpu": gpu_model()} if device.startswith("cuda") else {})
        | {
            "cpu": _cpu_model(),
            "cores": cores(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "os": f"{platform.system()} {platform.release()}",
            "libc": " ".join(platform.libc_ver()),
            "load_at_start": round(os.getloadavg()[0], 2),
        },
        "threads": threads,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in sorted(packages)},
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def version(package: str) -> str:
    for name in ("cupy-cuda13x", "cupy-cuda12x", "cupy") if package == "cupy" else (package,):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (" with changes" if git("status", "--porcelain", "cutnn") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
