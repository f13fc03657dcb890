"""Side-by-side measurement: every peer in a process of its own, run in turn, compared round by round.

Why processes: OpenBLAS and OpenMP threads spin for milliseconds after their work, and allocator settings
belong to a process, so libraries in one process disturb one another (README.md has the numbers). A block ends when
the threads of its process have gone to sleep (`worker.py`).
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pkgutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

import bench.cases
from bench.case import OURS, UNITS, Case, Cost, Growth, Peer, Share, Target
from bench.machine import busy_seconds, cores, describe, version
from bench.worker import serve

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


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


def measure_limits(device: str = "cpu", threads: int | None = None) -> dict[str, Any]:
    """The machine's GEMM rate (flops/s) and copy bandwidth (bytes/s), the best that a library here reaches."""
    threads = threads or cores()
    best: dict[str, Any] = {}
    for library in ("numpy", "torch") if device == "cpu" else ("cupy", "torch"):
        worker = _Worker(library, threads, device)
        try:
            rates = worker.ask("limits", library)
        except (_Absent, BenchmarkError):
            continue  # not installed, or without this device: others tell the limit
        finally:
            worker.close()
        for name, rate in rates.items():
            if rate > best.get(name, 0.0):
                best |= {name: float(f"{rate:.4g}"), f"{name}_by": library}
    return best


def measure(
    case: Case,
    quick: bool = False,
    threads: int | None = None,
    device: str = "cpu",
    limits: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a case and return its result, ready for JSON.

    Every peer's answer is first compared with cutnn's. Then the peers run in turn, a block of calls each, in
    alternating order. A time is the median over the rounds, a ratio the median of a peer's time over cutnn's
    within one round; both come with their quartiles. `limits` are those of `measure_limits`.
    """
    threads = threads or cores()
    packages = {"numpy"} | {p for peer in case.peers.values() for p in (peer.package, *peer.also)} - {OURS}
    result: dict[str, Any] = {"case": case.name, "title": case.title, "unit": case.unit, "quick": quick}
    result |= {"quantity": case.quantity, "ours": [name for name in case.peers if _ours(case, name)]}
    result |= describe(packages, threads, device) | {"limits": dict(limits or {})}
    chosen = case.sizes_on(device)
    labels = list(chosen)[: case.quick_sizes if quick else None]
    result["growth"] = {
        argument: {label: chosen[label][argument] for label in curve if label in labels}
        for argument, curve in case.growth.items()
    }
    workers: dict[str, _Worker] = {}
    sizes = result["sizes"] = {}
    end = time.monotonic() + case.seconds
    try:
        for number, label in enumerate(labels):
            if case.whole_runs:
                _close(workers)
            until = time.monotonic() + (end - time.monotonic()) / (len(labels) - number)
            running = _Running(case, label, dict(chosen[label]), device, limits or {})
            sizes[label] = running.measure(workers, threads, until, quick)
    finally:
        _close(workers)
    result["growth_targets"] = [v for growth in case.growth_targets if (v := _judge_growth(growth, result))]
    return result


@dataclass
class _Running:
    """One size of a case on a device, to be measured."""

    case: Case
    label: str
    size: dict[str, Any]
    device: str
    limits: Mapping[str, Any]

    def measure(self, workers: dict[str, _Worker], threads: int, until: float, quick: bool) -> dict[str, Any]:
        entry: dict[str, Any] = {"peers": {}, "absent": {}}
        running = self._prepare(workers, threads, entry)
        if "skipped" in entry:
            return entry
        own = _processor_seconds(running)
        began, busy = time.monotonic(), busy_seconds()
        measured = self._rounds(running, until, quick)
        own, busy, elapsed = (
            _processor_seconds(running) - own,
            busy_seconds() - busy,
            time.monotonic() - began,
        )
        entry["others_cores"] = round(max(0.0, busy - own) / elapsed, 2)
        entry["rounds"] = len(measured[OURS])
        cost = self.case.cost(**self.size) if self.case.cost else None
        if cost:
            entry["cost"] = {"flops": cost.flops, "bytes": cost.bytes}
        for name in running:
            entry["peers"][name] = self._summary(name, measured, cost)
            if self.case.whole_runs:
                usage = running[name].ask("usage")
                entry["peers"][name] |= {key: usage[key] for key in ("total_s", "peak_mb")}
        entry["targets"] = self._judge(entry["peers"])
        return entry

    def _prepare(
        self, workers: dict[str, _Worker], threads: int, entry: dict[str, Any]
    ) -> dict[str, _Worker]:
        """The workers of the peers that can run, their work made; all of them agree with cutnn."""
        case = self.case
        running: dict[str, _Worker] = {}
        reference: list[np.ndarray] = []
        for name in sorted(
            case.peers, key=lambda name: name != OURS
        ):  # cutnn first, for others to agree with
            peer = case.peers[name]
            if not peer.competes(self.label, self.device):
                continue
            try:
                if name not in workers:
                    _check_installed(name, peer)
                    workers[name] = _Worker(name, threads, self.device, peer.environment)
                answer = workers[name].ask("make", peer.make, self.size)
            except _Absent as reason:
                entry["absent"][name] = str(reason)
                if name == OURS:
                    entry["skipped"] = str(reason)
                    break
                continue
            if name == OURS:
                reference = answer
            else:
                _check_agreement(case, self.label, name, reference, answer)
            running[name] = workers[name]
        return running

    def _rounds(self, running: dict[str, _Worker], until: float, quick: bool) -> dict[str, list[float]]:
        """What each peer took, round by round: seconds, or bytes where the case is of memory."""
        case = self.case
        timed = case.quantity == "time" and not case.whole_runs
        seconds = {name: worker.ask("warm") for name, worker in running.items()} if timed else {}
        calls = {name: max(1, int(case.block_seconds / each)) for name, each in seconds.items()}
        measured: dict[str, list[float]] = {name: [] for name in running}
        for number in range(case.quick_rounds if quick else case.rounds):
            if number >= case.quick_rounds and time.monotonic() > until:
                break  # what the case may take is spent, or the machine is busy; the result says how many rounds
            for name in list(running) if number % 2 == 0 else reversed(list(running)):
                if case.quantity == "memory":
                    measured[name].append(running[name].ask("peak"))
                else:  # a call that takes longer than blocks do is long enough to be its own warming up
                    warm = timed and seconds[name] < 5 * case.block_seconds
                    measured[name].append(running[name].ask("block", calls.get(name, 1), warm))
        return measured

    def _summary(self, name: str, measured: dict[str, list[float]], cost: Cost | None) -> dict[str, Any]:
        case = self.case
        amounts = np.array(measured[name])
        scaled = amounts * UNITS[case.unit] / case.operations(**self.size)
        summary: dict[str, Any] = {
            case.quantity: _spread(scaled),
            "ratio": _spread(amounts / np.array(measured[OURS])),
            "ratio_to": {
                ours: _spread(amounts / np.array(measured[ours]))
                for ours in measured
                if _ours(case, ours) and ours not in (OURS, name)
            },
            "rounds": [float(f"{x:.5g}") for x in scaled],
            "version": version(case.peers[name].package),
        }
        if cost and self.limits:
            seconds = float(np.median(amounts))
            gemm, copy = cost.flops / self.limits["gemm"], cost.bytes / self.limits["copy"]
            summary["share"] = {"gemm": gemm / seconds, "roofline": max(gemm, copy) / seconds}
        return summary

    def _judge(self, peers: dict[str, Any]) -> list[dict[str, Any]]:
        verdicts: list[dict[str, Any]] = []
        for target in self.case.targets_of(self.label):
            if self.device.startswith(target.device):
                ours = [name for name in target.of if name in peers]
                verdict = {"what": target.wording, "at_least": target.at_least}
                reached = {name: _reached(target, name, peers) for name in ours}
                verdicts.append(verdict | _best(reached, target.at_least, " or ".join(target.of)))
        if self.case.memory_limit_mb is not None and self.device == "cpu":
            peak = peers[OURS]["peak_mb"]
            verdicts.append(
                {"what": f"peak memory at most {self.case.memory_limit_mb} MB", "of": OURS}
                | {"at_most": self.case.memory_limit_mb, "reached": peak}
                | {"passed": peak <= self.case.memory_limit_mb}
            )
        return verdicts


def _reached(target: Target | Share, name: str, peers: dict[str, Any]) -> float | None:
    """What one of ours reached of a target, None where there is nothing to compare it with."""
    if isinstance(target, Share):
        share: float | None = peers[name].get("share", {}).get(target.limit)
        return share
    if target.peer not in peers:
        return None
    peer = peers[target.peer]
    ratio = peer["ratio"] if name == OURS else peer["ratio_to"][name]
    return float(ratio["median"])


def _best(reached: dict[str, float | None], at_least: float, wanted: str) -> dict[str, Any]:
    """The verdict by the best of ours; without a number, `passed` is None."""
    numbers = {name: number for name, number in reached.items() if number is not None}
    if not numbers:
        return {"of": wanted, "reached": None, "passed": None}
    name = max(numbers, key=lambda name: numbers[name])
    return {"of": name, "reached": numbers[name], "passed": numbers[name] >= at_least}


def _judge_growth(growth: Growth, result: dict[str, Any]) -> dict[str, Any] | None:
    ends = [
        result["sizes"].get(size, {}).get("peers", {}).get(growth.of) for size in (growth.first, growth.last)
    ]
    if None in ends:
        return None
    first, last = (end[result["quantity"]]["median"] for end in ends)
    return {
        "what": growth.wording,
        "of": growth.of,
        "at_most": growth.at_most,
        "reached": float(f"{last / first:.4g}"),
        "passed": last / first <= growth.at_most,
    }


def _ours(case: Case, name: str) -> bool:
    return name == OURS or case.peers[name].ours


def _check_installed(name: str, peer: Peer) -> None:
    missing = [package for package in (peer.package, *peer.also) if version(package) == "not installed"]
    if missing and name != OURS and missing != [OURS]:  # cutnn may be a folder on the path
        alone = missing == [peer.package]
        raise _Absent("not installed" if alone else f"{' and '.join(missing)} not installed")


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


def _spread(values: np.ndarray) -> dict[str, float]:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": float(f"{median:.5g}"), "low": float(f"{low:.5g}"), "high": float(f"{high:.5g}")}


class _Absent(Exception):
    pass


class _Worker:
    """A peer's process, and the pipe to it."""

    def __init__(
        self, peer: str, threads: int, device: str, environment: Mapping[str, str] | None = None
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._peer = peer
        self._pipe, theirs = context.Pipe()
        # Not daemonic: torch.compile has processes of its own compile. It ends when the pipe closes.
        self._process = context.Process(target=serve, args=(theirs, threads, device))
        with _environment(worker_environment(threads, device) | dict(environment or {})):
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


def worker_environment(threads: int, device: str) -> dict[str, str]:
    """What tells the libraries how many threads to take, and which device."""
    return {name: str(threads) for name in _THREAD_VARIABLES} | {
        "CUTNN_DEVICE": device,
        "JAX_PLATFORMS": device.partition(":")[0],
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # peers share a GPU
    }


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
