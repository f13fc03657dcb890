"""Where tensors of low tubal rank come back: the rank against the share of entries that are missing, or corrupted.

Tensors A ★ B of independent normal entries, of tubal rank r, lose a share of their entries (`complete`) or have them
changed by ± the deviation of their entries (`robust_pca`); the relative error of what comes back is printed, a grid for
each problem and algebra, and drawn. Theory promises exact recovery below a line r ~ min(l, m) · constant / log factors;
the picture shows where it ends, and for completion the line above which there are more unknowns, r (l + m - r) n, than
entries. The same command goes on where it was interrupted.

    python examples/recovery_grid.py --preset quick              # 30 x 30 x 6, half a minute
    python examples/recovery_grid.py                             # 50 x 50 x 10, some minutes
    python examples/recovery_grid.py --preset paper --algebra dct dft --seeds 1 2 3     # 100 x 100 x 20, hours

A cell counts as recovered where the relative error is at most 1e-5, for all seeds.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _experiment import Table, algebra_named, main_guard, parser, prepare, save, solve

import cutnn as ct
from cutnn.algebra import lowrank

PROBLEMS = {"complete": "missing", "robust_pca": "corrupted"}
RECOVERED = 1e-5


@dataclass(frozen=True)
class Preset:
    """The size l = m and the length n of tubes; ranks and shares of the grid; when iterations end."""

    size: int
    tubes: int
    ranks: tuple[int, ...]
    shares: dict[str, tuple[float, ...]]
    tolerance: float = 1e-7
    max_iterations: int = 500


def _shares(problem: str, steps: int) -> tuple[float, ...]:
    most = {"complete": 0.9, "robust_pca": 0.45}[problem]
    return tuple(round(most * (k + 1) / steps, 4) for k in range(steps))


PRESETS = {
    "paper": Preset(100, 20, tuple(range(4, 61, 4)), {p: _shares(p, 15) for p in PROBLEMS}),
    "better": Preset(50, 10, tuple(range(2, 27, 3)), {p: _shares(p, 9) for p in PROBLEMS}),
    "quick": Preset(30, 6, (1, 3, 5, 8, 11), {p: _shares(p, 5) for p in PROBLEMS}, 1e-6, 200),
}


class Cell(NamedTuple):
    """One experiment and what came of it."""

    problem: str
    algebra: str
    rank: int
    share: float
    seed: int
    error: float
    iterations: int
    seconds: float

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells it from the others."""
        return self[:5]


# ------------------------------------------------------------------------------------------------- one cell


def run(problem: str, name: str, rank: int, share: float, seed: int, preset: Preset) -> Cell:
    """Make a tensor, spoil it, and see how near the solution comes."""
    star, size = algebra_named(name, preset.tubes, seed=seed), preset.size
    rng = np.random.default_rng((seed, rank, round(1e4 * share)))
    A = star(star.random(size, rank, seed=rng), star.random(rank, size, seed=rng))
    spoiled = ct.to_device(rng.random(A.shape) < share)
    options = {"tolerance": preset.tolerance, "max_iterations": preset.max_iterations, "bar": False}
    began = time.perf_counter()
    if problem == "complete":
        result = solve(lowrank.complete, star, A, ~spoiled, **options)
    else:
        signs = ct.to_device(rng.choice([-1.0, 1.0], A.shape))
        result = solve(lowrank.robust_pca, star, ct.where(spoiled, A + signs * ct.std(A), A), **options)
    error = float(star.norm(result.low_rank - A) / star.norm(A))
    return Cell(problem, name, rank, share, seed, error, result.iterations, time.perf_counter() - began)


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__, PRESETS, "better", "recovery_grid", training=False)
    options.set_defaults(algebra=["dct", "dft"])
    args = options.parse_args(argv)
    if "data" in args.algebra:
        options.error("argument --algebra: data: there are no data here to take M from")
    folder = prepare(args)
    preset = PRESETS[args.preset]
    path = folder / "cells.csv"
    if args.fresh:
        path.unlink(missing_ok=True)
    done = {cell.key: cell for cell in read(path)}
    print(f"{preset.size} x {preset.size} x {preset.tubes}, seeds {args.seeds}, on {ct.get_device()}")
    cells = []
    for problem in PROBLEMS:
        for name in args.algebra:
            print(f"\n{problem}, {name}: log10 of the largest relative error")
            shares = preset.shares[problem]
            print("rank \\ " + PROBLEMS[problem] + "".join(f"{share:7.0%}" for share in shares))
            for rank in preset.ranks:
                row = []
                for share in shares:
                    for seed in args.seeds:
                        cell = done.get((problem, name, rank, share, seed))
                        if cell is None:
                            cell = run(problem, name, rank, share, seed, preset)
                            append(path, cell)
                        row.append(cell)
                cells += row
                print(
                    f"{rank:<{7 + len(PROBLEMS[problem])}}" + "".join(f"{e:7.1f}" for e in worst(row, shares))
                )
    report(cells, preset, folder)
    return 0


def worst(cells: Sequence[Cell], shares: Sequence[float]) -> list[float]:
    """log10 of the largest error of each share."""
    return [float(np.log10(max(c.error for c in cells if c.share == share) + 1e-16)) for share in shares]


# ---------------------------------------------------------------------------- cells on disk, table, pictures


def read(path: Path) -> list[Cell]:
    """The cells of an earlier run; a last line that was not written to its end is taken off the file."""
    if not path.exists():
        return []
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    path.write_text("".join(lines))
    kinds = (str, str, int, float, int, float, int, float)
    return [Cell(*(kind(x) for kind, x in zip(kinds, row, strict=True))) for row in csv.reader(lines)]


def append(path: Path, cell: Cell) -> None:
    """Add a cell to the file."""
    with path.open("a") as file:
        file.write(",".join(map(str, cell)) + "\n")


def report(cells: list[Cell], preset: Preset, folder: Path) -> None:
    """How much of each grid is recovered, every cell as CSV, and the grids as pictures."""
    table = Table({"problem": "", "algebra": "", "recovered_cells": ".0f", "of": ".0f", "seconds": ".0f"})
    every = Table(dict.fromkeys(Cell._fields, "") | {"seed": "d"})
    for cell in cells:
        every.row(**cell._asdict())
    every.write_csv(folder / "table.csv")
    for problem, name in dict.fromkeys((c.problem, c.algebra) for c in cells):
        chosen = [c for c in cells if (c.problem, c.algebra) == (problem, name)]
        errors = _grid(chosen, preset)
        table.row(
            problem=problem,
            algebra=name,
            recovered_cells=int(np.sum(errors <= RECOVERED)),
            of=errors.size,
            seconds=sum(c.seconds for c in chosen),
        )
    print(f"\n{table.text()}\n")
    save(lambda: phases(cells, preset), folder / "phases.png")


def _grid(cells: Sequence[Cell], preset: Preset) -> np.ndarray:
    """The largest errors of all seeds, (ranks, shares), of cells of one problem and algebra."""
    shares = preset.shares[cells[0].problem]
    errors = np.zeros((len(preset.ranks), len(shares)))
    for c in cells:
        at = preset.ranks.index(c.rank), shares.index(c.share)
        errors[at] = max(errors[at], c.error)
    return errors


def phases(cells: Sequence[Cell], preset: Preset) -> Any:
    """For each algebra both problems: the error by colour, the limit of recovery, and that of counting unknowns."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(c.algebra for c in cells))
    figure = Figure(figsize=(8.6, 3.5 * len(names)), dpi=130, layout="constrained")
    axes = figure.subplots(len(names), len(PROBLEMS), squeeze=False)
    for row, name in zip(axes, names, strict=True):
        for ax, (problem, what) in zip(row, PROBLEMS.items(), strict=True):
            errors = _grid([c for c in cells if (c.problem, c.algebra) == (problem, name)], preset)
            share, rank = (np.asarray(v, dtype=float) for v in (preset.shares[problem], preset.ranks))
            drawn = ax.pcolormesh(
                share, rank / preset.size, np.log10(errors + 1e-16), cmap="viridis_r", vmin=-8, vmax=0
            )
            if errors.min() < RECOVERED < errors.max():
                ax.contour(
                    share,
                    rank / preset.size,
                    np.log10(errors),
                    [np.log10(RECOVERED)],
                    colors="white",
                    linestyles="solid",
                )
            if problem == "complete":  # r (2 - r) = 1 - p in parts of the size
                p = np.linspace(0, 1, 100)
                ax.plot(p, 1 - np.sqrt(p), "--", color="#d1495b", label="as many unknowns as entries")
                ax.legend(loc="upper right", fontsize=8, framealpha=0.9)
            half = (rank[1] - rank[0]) / 2 / preset.size
            ax.set(xlim=(share[0] - share[0] / 2, share[-1] + share[0] / 2))
            ax.set(ylim=(rank[0] / preset.size - half, rank[-1] / preset.size + half))
            ax.set(title=f"{problem}, {name}", xlabel=f"share of the entries {what}", ylabel="tubal rank / l")
    bar = figure.colorbar(drawn, ax=axes, fraction=0.03)
    bar.set_label("log10 of the relative error")
    bar.ax.axhline(np.log10(RECOVERED), color="white")
    return figure


if __name__ == "__main__":
    sys.exit(main())
