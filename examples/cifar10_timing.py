"""Time and memory of Hamiltonian networks for CIFAR-10 against their depth: t-NNs, stored and reversible, and matrices.

One training step, forward, loss, gradient and Adam, of the networks of `cifar10_hamiltonian.py` with a dense head,
on noise of the shape of the images, 32 at a time; an epoch is 1,250 of them. Each network is measured in a process
of its own. Prints a table and writes it and a picture.

    python examples/cifar10_timing.py --preset quick        # to depth 16, two minutes
    python examples/cifar10_timing.py                       # depths 4, 8, …, 128

`processor` is the processor time of a step, of all its threads: what a step takes where other programs disturb it.
Memory in MB (10⁶ bytes). `weights`: the weights with what is as large as they, the gradients and Adam's two moments.
`working`: what else a step needs at its peak, states and temporaries; of the arrays, as they are allocated. `peak`:
the largest size of the process, Python and libraries included, or the memory that CuPy took on a GPU; `aside`: the
peak without `weights`. A network for which the memory does not suffice is left out, with the reason.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import resource
import shutil
import sys
import time
import tracemalloc
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optree
from _experiment import Table, main_guard, parser, prepare, save, whole
from cifar10_hamiltonian import CLASSES, Variant, build

import cutnn as ct
from cutnn import algebra, nn, optim
from cutnn.device import namespace

SHAPE = (32, 96)  # tubes, and the rows of three channels
BATCH = 32
STEPS_AN_EPOCH = 1250
_SHARE = 0.8  # of the free memory that a network may take: others live here too


@dataclass(frozen=True)
class Preset:
    """The depths of each network, and for how long a network is timed: steps, and at most so many seconds."""

    depths: dict[str, tuple[int, ...]]
    steps: int
    seconds: float


_DEPTHS = (4, 8, 16, 32, 64, 128)
PRESETS = {
    "paper": Preset({name: _DEPTHS for name in ("t-NN", "t-NN, reversible", "matrix")}, 20, 60.0),
    "quick": Preset({"t-NN": (4, 8, 16), "t-NN, reversible": (4, 8, 16), "matrix": (4,)}, 5, 5.0),
}


@dataclass(frozen=True)
class Measured:
    """What one network takes; times in seconds, memory in bytes."""

    parameters: int
    seconds: float
    processor: float
    weights: int
    working: int
    peak: int


def measure(network: str, depth: int, preset: Preset, device: str) -> Measured:
    """Time a network's training step, and find the memory it needs. To be called in a process of its own."""
    ct.set_device(device)
    head = "matrix" if network == "matrix" else "dense"
    variant = Variant(reversible=network.endswith("reversible"))
    star = algebra.dct(SHAPE[0])
    model, loss = build(f"{head}-{depth}", star, CLASSES, nn.initializers.authors, 0, variant, rows=SHAPE[1])
    optimizer = optim.Adam(model, lr=1e-3)
    rng = np.random.default_rng(0)
    X = ct.to_device(rng.standard_normal((*SHAPE, BATCH), dtype=np.float32))
    labels = ct.to_device(rng.integers(0, CLASSES, BATCH))

    def objective(model: Any) -> Any:
        return loss(model(X), labels)

    differentiate = ct.value_and_grad(objective)
    times: list[tuple[float, float]] = []
    began = time.perf_counter()
    while not times or (len(times) <= preset.steps and time.perf_counter() - began < preset.seconds):
        start = time.perf_counter(), time.process_time()
        optimizer.step(differentiate(model)[1])
        _wait(X)
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    weights = sum(leaf.nbytes for leaf in optree.tree_leaves(model, namespace="cutnn"))
    peak = _peak(X)
    working = _working_memory(objective, model, weights) if type(X) is np.ndarray else peak - 4 * weights
    seconds, processor = np.median(times[1:] or times, axis=0).tolist()  # the first warms up
    return Measured(nn.count_parameters(model), seconds, processor, 4 * weights, working, peak)


def _working_memory(objective: Any, model: Any, gradients: int) -> int:
    """The peak of what a step allocates, aside from the gradients.

    The forward pass makes no gradients; in the backward pass, whose peak is at its end if states are recomputed,
    there are all of them.
    """
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    value, pull = ct.vjp(objective, model)
    _, forward = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    pull(np.ones_like(value))
    _, backward = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return max(forward, backward - gradients) - before


def _peak(X: Any) -> int:
    if type(X) is not np.ndarray:
        return int(namespace(X).get_default_memory_pool().total_bytes())
    try:  # the peak of this program alone: ru_maxrss knows that of the process it was forked from
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _wait(X: Any) -> None:
    if type(X) is not np.ndarray:
        namespace(X).cuda.runtime.deviceSynchronize()


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    preset = PRESETS[args.preset]
    folder = prepare(args)
    kept = folder / "measured"
    if args.fresh:
        shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(exist_ok=True)
    table = Table(
        {"network": "", "depth": "d", "parameters": ",d", "seconds_per_step": ".4f", "processor": ".4f"}
        | {"seconds_per_epoch": ".1f", "weights": ".0f", "working": ".1f", "peak": ".0f", "aside": ".0f"}
    )
    jobs = [(name, depth) for name, depths in preset.depths.items() for depth in depths]
    jobs = [(name, depth) for name, depth in jobs if depth <= (args.max_depth or depth)]
    left_out = []
    for name, depth in _progress(jobs):
        path = kept / f"{name.replace(', ', '-')}-{depth}.json"
        reason = None if path.exists() else _measured_apart(name, depth, preset, path)
        if reason:
            left_out.append(f"{name}, depth {depth}: left out, {reason}")
            continue
        found = Measured(**json.loads(path.read_text()))
        table.row(
            network=name,
            depth=depth,
            parameters=found.parameters,
            seconds_per_step=found.seconds,
            processor=found.processor,
            seconds_per_epoch=found.seconds * STEPS_AN_EPOCH,
            **{key: getattr(found, key) / 1e6 for key in ("weights", "working", "peak")},
            aside=(found.peak - found.weights) / 1e6,
        )
        table.write_csv(folder / "table.csv")
    print("\n".join([table.text(), "", *left_out, *_growth(table)]))
    save(lambda: picture(table), folder / "timing.png")
    return 0


def _measured_apart(name: str, depth: int, preset: Preset, path: Path) -> str | None:
    """Measure in a new process and keep the result; or return why not."""
    free, needed = _free_memory(), _estimate(name, depth)
    if needed > _SHARE * free:
        return f"it needs about {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as apart:
        try:
            found = apart.submit(measure, name, depth, preset, ct.get_device()).result()
        except (concurrent.futures.process.BrokenProcessPool, MemoryError):
            return "its process ran out of memory"
    path.write_text(json.dumps(asdict(found)))
    return None


def _estimate(name: str, depth: int) -> float:
    """Bytes: weights, gradients, two moments, and the states of each step with what the tape keeps of them."""
    n, rows = SHAPE
    weights = depth * (n * rows) ** 2 if name == "matrix" else depth * n * rows**2
    return 4.0 * 4 * weights + 4.0 * (10 * depth * n * rows * BATCH + weights) + 2**28


def _free_memory() -> float:
    if ct.get_device() != "cpu":
        return float(namespace(ct.to_device(np.zeros(1))).cuda.runtime.memGetInfo()[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024.0 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    except OSError:
        return float("inf")


def _progress(jobs: list[Any]) -> Iterable[Any]:
    try:
        from rich.progress import track
    except ImportError:
        return jobs
    return track(jobs, "measuring", transient=True)


# ---------------------------------------------------------------------------------------- table and picture


def _growth(table: Table) -> list[str]:
    """How much the memory of each network grows from its least depth to its largest, weights aside."""
    lines = []
    for name in dict.fromkeys(table.column("network")):
        depths, working, aside = (table.column(key, network=name) for key in ("depth", "working", "aside"))
        if len(depths) > 1:
            lines.append(
                f"{name}: at depth {depths[-1]} {working[-1] / working[0]:.2f} times the working memory of depth "
                f"{depths[0]}, {aside[-1] / aside[0]:.2f} times that of the process aside from the weights"
            )
    return lines


def picture(table: Table) -> Any:
    """Seconds a step and working memory against the depth, a line a network."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(9.2, 3.8), dpi=130, layout="constrained")
    panels = figure.subplots(1, 2)
    for name in dict.fromkeys(table.column("network")):
        for ax, column in zip(panels, ("seconds_per_step", "working"), strict=True):
            ax.plot(
                table.column("depth", network=name),
                table.column(column, network=name),
                marker="o",
                label=name,
            )
    depths = sorted(set(table.column("depth")))
    for ax, title in zip(panels, ("seconds a training step", "working memory, MB"), strict=True):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(depths)
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_locator(NullLocator())
        ax.set_xlabel("depth")
        ax.set_title(title, fontsize=10)
        ax.grid(True, alpha=0.3)
    panels[0].legend(frameon=False, fontsize=9)
    return figure


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__, PRESETS, "paper", "cifar10_timing")
    options.add_argument("--max-depth", type=whole(1, "a depth, at least 1"), help="leave out what is deeper")
    return options.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
