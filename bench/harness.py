"""Side-by-side measurement: every peer in a process of its own, run in turn, compared round by round.

Why processes: OpenBLAS and OpenMP threads spin for milliseconds after their work, and allocator settings
belong to a process, so libraries in one process disturb one another (README.md has the numbers). Between two
blocks nothing runs for a moment, until the threads of the block before have gone to sleep.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pkgutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import bench.cases
from bench.case import OURS, UNITS, Case
from bench.machine import busy_seconds, cores, describe, version
from bench.worker import serve

PAUSE_SECONDS = 0.06  # OpenBLAS threads spin for 2**26 cycles, about 26 ms, before they sleep
_SIZE_SECONDS = 40
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class BenchmarkError(RuntimeError):
    """A peer failed, or its answer is not cutnn's."""


def case_names() -> list[str]:
    """The names of all cases."""
    return sorted(module.name for module in pkgutil.iter_modules(bench.cases.__path__))


def load_case(name: str) -> Case:
    """The case of that name; raises KeyError for a name that is none."""
    if name not in case_names():
        raise KeyError(f"there is no case {name!r}; there are {', '.join(case_names())}")
    case: Case = importlib.import_module(f"bench.cases.{name}").CASE
    return case


def measure(case: Case, quick: bool = False, threads: int | None = None) -> dict[str, Any]:
    """Run a case and return its result, ready for JSON.

    Every peer's answer is first compared with cutnn's. Then the peers run in turn, a block of calls each, in
    alternating order. A time is the median over the rounds, a ratio the median of a peer's time over cutnn's
    within one round; both come with their quartiles.
    """
    threads = threads or cores()
    packages = {"numpy"} | {peer.package for name, peer in case.peers.items() if name != OURS}
    result: dict[str, Any] = {"case": case.name, "title": case.title, "unit": case.unit, "quick": quick}
    result |= describe(packages, threads)
    labels = list(case.sizes)[: case.quick_sizes if quick else None]
    rounds = case.quick_rounds if quick else case.rounds
    workers: dict[str, _Worker] = {}
    sizes = result["sizes"] = {}
    try:
        for label in labels:
            if case.whole_runs:
                _close(workers)
            for name, peer in case.peers.items():
                if name not in workers and version(peer.package) != "not installed" or name == OURS:
                    workers.setdefault(name, _Worker(name, threads))
            sizes[label] = _measure_size(case, label, workers, rounds)
    finally:
        _close(workers)
    return result


def _measure_size(case: Case, label: str, workers: dict[str, _Worker], rounds: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"peers": {}, "absent": {}}
    running = {}
    reference: list[np.ndarray] = []
    for name in sorted(case.peers, key=lambda name: name != OURS):  # cutnn first, for others to agree with
        if name not in workers:
            entry["absent"][name] = "not installed"
            continue
        try:
            answer = workers[name].ask("make", case.peers[name].make, dict(case.sizes[label]))
        except _Absent as reason:
            entry["absent"][name] = str(reason)
            if name == OURS:
                entry["skipped"] = str(reason)
                return entry
            continue
        if name == OURS:
            reference = answer
        else:
            _check_agreement(case, label, name, reference, answer)
        running[name] = workers[name]

    whole = case.whole_runs
    calls = {name: 1 if whole else worker.ask("warm", case.block_seconds) for name, worker in running.items()}
    seconds: dict[str, list[float]] = {name: [] for name in running}
    own = _processor_seconds(running)
    began, busy = time.monotonic(), busy_seconds()
    for number in range(rounds):
        if not whole and number >= case.quick_rounds and time.monotonic() - began > _SIZE_SECONDS:
            break  # a busy machine: fewer rounds, and the result says how many
        for name in list(running) if number % 2 == 0 else reversed(list(running)):
            time.sleep(PAUSE_SECONDS)
            seconds[name].append(running[name].ask("block", calls[name], not whole))

    own, busy, elapsed = _processor_seconds(running) - own, busy_seconds() - busy, time.monotonic() - began
    entry["others_cores"] = round(max(0.0, busy - own) / elapsed, 2)
    entry["rounds"] = len(seconds[OURS])
    scale = UNITS[case.unit] / case.operations(**case.sizes[label])
    ours = np.array(seconds[OURS])
    for name in running:
        times = np.array(seconds[name])
        entry["peers"][name] = {
            "time": _spread(times * scale),
            "ratio": _spread(times / ours),
            "times": [float(f"{t:.5g}") for t in times * scale],
            "calls_a_block": calls[name],
            "version": version(case.peers[name].package),
        }
        if whole:
            usage = running[name].ask("usage")
            entry["peers"][name] |= {key: usage[key] for key in ("total_s", "peak_mb")}
    entry["targets"] = _judge(case, label, entry["peers"])
    return entry


def _processor_seconds(workers: dict[str, _Worker]) -> float:
    return time.process_time() + sum(worker.ask("usage")["processor_s"] for worker in workers.values())


def _check_agreement(case: Case, label: str, name: str, ours: list[Any], theirs: list[Any]) -> None:
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        a, b = np.asarray(a), np.asarray(b)
        error = np.linalg.norm(a - b) / (np.linalg.norm(a) or 1.0) if a.shape == b.shape else np.inf
        if not error <= case.tolerance:
            raise BenchmarkError(
                f"{case.name}, {label}: answer {index} of {name}, of shape {b.shape}, differs from cutnn's, "
                f"of shape {a.shape}, by {error:.2g} (relative); at most {case.tolerance:.0e} is allowed"
            )


def _judge(case: Case, label: str, peers: dict[str, Any]) -> list[dict[str, Any]]:
    verdicts: list[dict[str, Any]] = []
    for target in case.targets_of(label):
        if target.peer in peers:
            reached = peers[target.peer]["ratio"]["median"]
            verdicts.append(
                {"what": target.wording, "peer": target.peer, "at_least": target.at_least, "reached": reached}
                | {"passed": reached >= target.at_least}
            )
    if case.memory_limit_mb is not None:
        peak = peers[OURS]["peak_mb"]
        verdicts.append(
            {"what": f"peak memory at most {case.memory_limit_mb} MB", "peer": OURS}
            | {"at_most": case.memory_limit_mb, "reached": peak, "passed": peak <= case.memory_limit_mb}
        )
    return verdicts


def _spread(values: np.ndarray) -> dict[str, float]:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": float(f"{median:.5g}"), "low": float(f"{low:.5g}"), "high": float(f"{high:.5g}")}


class _Absent(Exception):
    pass


class _Worker:
    """A peer's process, and the pipe to it."""

    def __init__(self, peer: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._peer = peer
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, threads), daemon=True)
        with _environment({name: str(threads) for name in _THREAD_VARIABLES}):
            self._process.start()
        theirs.close()

    def ask(self, request: str, *arguments: Any) -> Any:
        try:
            self._pipe.send((request, arguments))
            kind, result = self._pipe.recv()
        except (EOFError, BrokenPipeError):
            raise BenchmarkError(f"the process of {self._peer} died at {request!r}") from None
        if kind == "unavailable":
            raise _Absent(result)
        if kind == "failed":
            raise BenchmarkError(f"{self._peer} failed at {request!r}:\n{result}")
        return result

    def close(self) -> None:
        self._pipe.close()
        self._process.join()


def _close(workers: dict[str, _Worker]) -> None:
    for worker in workers.values():
        worker.close()
    workers.clear()


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
