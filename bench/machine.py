"""The machine and the versions that a result was measured with."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

_ROOT = Path(__file__).parent.parent


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_kind() -> str:
    """A short name of this kind of machine, for file names: x86_64-2cores."""
    return f"{platform.machine()}-{cores()}cores"


def busy_seconds() -> float:
    """Processor seconds that all programs here, and the host beneath a virtual machine, have taken so far."""
    try:
        ticks = [int(t) for t in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:  # not Linux: nobody is accused
        return 0.0
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and waiting for disks


def describe(packages: Iterable[str], threads: int) -> dict[str, object]:
    """Everything about here and now that a time depends on."""
    return {
        "machine": {
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
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
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
