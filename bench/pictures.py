"""Pictures of results: the roofline of a machine, and how the cost of a case grows with each of its sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.case import OURS, UNITS

_OURS_COLOURS = ("#0b6e99", "#5ab4d6", "#12355b", "#4f9d69")
_PEER_COLOURS = ("#d1495b", "#e58f65", "#7d1d3f", "#c9a227", "#8d6a9f", "#5f6b73", "#b0795a", "#3f3f3f")
_MARKERS = "osD^vPXd<>*hp"


def draw(results: Sequence[dict[str, Any]], folder: Path) -> list[str]:
    """Draw the roofline of each host and the growth of each case there; return the names of the files."""
    written: list[str] = []
    for host in dict.fromkeys(result["host"] for result in results):
        here = [result for result in results if result["host"] == host]
        pictures = {f"roofline-{host}.png": roofline(here)}
        pictures |= {f"growth-{result['case']}-{host}.png": growth(result) for result in here}
        for name, figure in pictures.items():
            if figure is not None:
                figure.savefig(folder / name)
                written.append(name)
    return written


def roofline(results: Sequence[dict[str, Any]]) -> Figure | None:
    """Flops a second over flops a byte of every size, ours and the fastest peer's, below the limits of the machine.

    None where no result has both a cost and limits.
    """
    results = [r for r in results if r["limits"] and any("cost" in size for size in r["sizes"].values())]
    if not results:
        return None
    figure, ax = _axes(8.5, 5.6)
    ax.set(xscale="log", yscale="log")
    for result, marker in zip(results, _MARKERS, strict=False):
        for points, colour, fill in (
            (_points(result, ours=True), _OURS_COLOURS[0], "full"),
            (_points(result, ours=False), _PEER_COLOURS[0], "none"),
        ):
            ax.plot(*zip(*points, strict=True), marker, color=colour, fillstyle=fill, markersize=7)
        ax.plot([], [], marker, color="#5f6b73", label=result["case"])
    limits = results[-1]["limits"]
    left, right = ax.get_xlim()
    ridge = limits["gemm"] / limits["copy"]
    left, right = min(left, ridge / 4), max(right, ridge * 4)
    roof = [(x, min(limits["gemm"], limits["copy"] * x)) for x in (left, ridge, right)]
    ax.plot(*zip(*roof, strict=True), color="#3f3f3f", linewidth=1.4)
    ax.annotate(
        f"GEMM, {limits['gemm'] / 1e9:,.0f} Gflop/s", (right, limits["gemm"]), (-4, 4),
        textcoords="offset points", ha="right", fontsize=8,
    )  # fmt: skip
    ax.annotate(
        f"copy, {limits['copy'] / 1e9:,.0f} GB/s", (left, limits["copy"] * left), (6, -12),
        textcoords="offset points", fontsize=8,
    )  # fmt: skip
    ax.plot([], [], "o", color=_OURS_COLOURS[0], label="the fastest of ours")
    ax.plot([], [], "o", color=_PEER_COLOURS[0], fillstyle="none", label="the fastest peer")
    ax.set(xlabel="flops a byte", ylabel="flops a second", xlim=(left, right))
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def growth(result: dict[str, Any]) -> Figure | None:
    """The amounts of every peer along each argument in which the sizes differ; None where there is no curve."""
    curves = {argument: curve for argument, curve in result["growth"].items() if len(curve) > 1}
    curves = {argument: curve for argument, curve in curves.items() if _names(result, curve)}
    if not curves:
        return None
    figure = Figure(figsize=(1.2 + 3.3 * len(curves), 4.4), dpi=110, layout="constrained")
    names = list(dict.fromkeys(name for curve in curves.values() for name in _names(result, curve)))
    for ax, (argument, curve) in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True
    ):
        for name in names:
            points = sorted(_curve(result, curve, name))
            if points:
                ax.plot(
                    *zip(*points, strict=True), "o-", markersize=4, linewidth=1.5, color=_colour(result, name)
                )
        ax.set(xlabel=argument, xscale="log", yscale="log")
        ax.set_xticks(sorted(set(curve.values())), [str(value) for value in sorted(set(curve.values()))])
        ax.minorticks_off()
        ax.grid(True, color="#dfe7ec")
    figure.axes[0].set_ylabel(result["unit"])
    for name in names:
        figure.axes[0].plot([], [], "o-", color=_colour(result, name), label=name)
    figure.suptitle(f"{result['case']}: {result['title']}", fontsize=8, wrap=True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


# --------------------------------------------------------------------------------------------------- helpers


def _points(result: dict[str, Any], ours: bool) -> list[tuple[float, float]]:
    """(flops a byte, flops a second) of the fastest of ours, or of the peers, at each size."""
    points = []
    for size in result["sizes"].values():
        peers = size.get("peers", {})
        medians = [
            peer[result["quantity"]]["median"]
            for name, peer in peers.items()
            if (name in result["ours"]) == ours
        ]
        if "cost" in size and medians:
            flops, moved = size["cost"]["flops"], size["cost"]["bytes"]
            points.append((flops / moved, flops * UNITS[result["unit"]] / min(medians)))
    return points or [(float("nan"), float("nan"))]


def _names(result: dict[str, Any], curve: dict[str, Any]) -> list[str]:
    """The peers that have two points or more on a curve."""
    names = dict.fromkeys(name for size in result["sizes"].values() for name in size.get("peers", {}))
    return [name for name in names if len(_curve(result, curve, name)) > 1]


def _curve(result: dict[str, Any], curve: dict[str, Any], name: str) -> list[tuple[float, float]]:
    peers = {label: result["sizes"][label].get("peers", {}) for label in curve}
    return [
        (value, peers[label][name][result["quantity"]]["median"])
        for label, value in curve.items()
        if name in peers[label]
    ]


def _colour(result: dict[str, Any], name: str) -> str:
    names = dict.fromkeys(name for size in result["sizes"].values() for name in size.get("peers", {}))
    ours = [OURS, *(name for name in result["ours"] if name != OURS)]
    if name in ours:
        return _OURS_COLOURS[ours.index(name) % len(_OURS_COLOURS)]
    return _PEER_COLOURS[[other for other in names if other not in ours].index(name) % len(_PEER_COLOURS)]


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    ax = figure.add_subplot()
    ax.grid(True, color="#dfe7ec")
    return figure, ax
