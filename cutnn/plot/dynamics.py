"""Pictures of networks as dynamical systems: their spectra, whether they are stable, where they take points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cutnn import nn
from cutnn.device import to_host
from cutnn.plot._style import COLOURS, INK, PALE, cycle, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["spectrum", "stability", "trajectories"]

_ROUNDING = 1e-6
_REACH = 3.5
_STABLE = "#d5e8dc"
_EDGE = "#66a182"


def spectrum(networks: Any, X: Any, limit: int = 1024) -> Figure:
    """Eigenvalues of the Jacobian along trajectories, times h, within the integrator's region of stability.

    `networks` is a time network or a dictionary of them by name, each a panel; X is `(n, width, N)`, and every
    sample adds its eigenvalues (`nn.jacobian_spectrum`; a few samples are enough). Pale to dark is early to late,
    and red rings are outside. The region is where a step multiplies by 1 at most; of midpoint and leapfrog it is a
    segment of the imaginary axis.
    """
    named = _named(networks)
    figure = new_figure(3.9 * len(named), 4.3)
    for k, (name, net) in enumerate(named.items()):
        ax = figure.add_subplot(1, len(named), k + 1)
        values = [nn.jacobian_spectrum(net, X[..., i : i + 1], limit) for i in range(X.shape[-1])]
        z = net.h * np.concatenate(values, axis=1)
        factors = nn.amplification(net.integrator, z)
        outside = factors > 1 + _ROUNDING
        half = max(3.1, 1.1 * float(np.max([abs(z.real), abs(z.imag)])))
        _draw_region(ax, net.integrator)
        times = np.broadcast_to(net.h * np.arange(len(net))[:, None], z.shape)
        rings = [COLOURS[1] if out else "none" for out in outside.ravel()]
        marks = ax.scatter(
            z.real, z.imag, c=times, s=11, cmap=_pale_to_dark(), linewidths=0.6, edgecolors=rings, zorder=3
        )
        said = f"{100 * outside.mean():.0f} % outside, a step multiplies by up to {factors.max():.3g}"
        ax.set_title(f"{name}\n{said}", fontsize=9, color=INK)
        ax.set_xlim(-half, half)
        ax.set_ylim(-half, half)
        ax.set_aspect("equal")
        ax.set_xlabel("Re hλ", fontsize=8)
        ax.set_ylabel("Im hλ", fontsize=8)
        ax.tick_params(labelsize=7)
        plain(ax)
        bar = figure.colorbar(marks, ax=ax, location="bottom", shrink=0.6, aspect=30, pad=0.02)
        bar.set_label("time", fontsize=7)
        bar.ax.tick_params(labelsize=6)
    return figure


def stability(networks: Any, X: Any, gradients: Any = None) -> Figure:
    """Is a network stable: its numbers against their bound, the energy that its steps add, the norms of states and,
    given `gradients`, those of gradients, by layer.

    `networks` is a time network or a dictionary of them by name; `gradients` is what `nn.gradient_norms` returned of
    it, or a dictionary of that. X is `(n, width, N)`; a line is the median of the samples, a band their middle half.
    The energy, of networks that have one, is relative to that at the start, without what changes of the weights make
    of it; beside the legend stands by what factor all steps together may multiply a mode (`nn.stability_numbers`).
    """
    named = _named(networks)
    gradients = (
        {next(iter(named)): gradients} if isinstance(gradients, nn.GradientNorms) else dict(gradients or {})
    )
    colours = dict(zip(named, cycle(len(named)), strict=True))
    found = {name: nn.stability_numbers(net) for name, net in named.items()}
    added = {name: rows for name, net in named.items() if (rows := _added_energy(net, X)) is not None}
    norms = {name: nn.norms(net, X) for name, net in named.items()}
    of_states = {name: g.states for name, g in gradients.items()}
    of_weights = {name: g.weights[:, None] for name, g in gradients.items()}
    lines = [
        (added, "energy that the steps add", False, 0),
        (norms, "norm of the state", True, 0),
        (of_states, "norm of ∂loss/∂state", True, 0),
        (of_weights, "norm of ∂loss/∂θ of a step", True, 1),
    ]
    lines = [line for line in lines if line[0]]
    count = len(lines) + 2
    columns = 2 if count == 4 else 3
    figure = new_figure(4.2 * columns, 3.2 * -(-count // columns))
    axes = [figure.add_subplot(-(-count // columns), columns, k + 1) for k in range(count)]
    _draw_numbers(axes[0], found, colours)
    for ax, (values, label, log, start) in zip(axes[1:], lines, strict=False):
        _draw_bands(ax, values, colours, label, log, start)
    axes[-1].set_axis_off()
    handles = axes[0].get_legend_handles_labels()[0]
    texts = [f"{name}\n{_verdict(found[name])}" for name in named]
    axes[-1].legend(handles, texts, loc="center", frameon=False, fontsize=9, labelspacing=1.2)
    return figure


def trajectories(
    states: Mapping[str, Sequence[Any]],
    labels: Any,
    titles: Sequence[str],
    classes: Sequence[str] | None = None,
    boundaries: Mapping[str, Sequence[Sequence[Any]]] | None = None,
) -> Figure:
    """Where networks take points: a row a network, a column a time, the points in the colours of their classes.

    `states` has for each network the points at the times, arrays `(d, N)`, or tensors `(n, p, N)` of n·p = d numbers,
    d 2 or 3; `labels` are N classes, `titles` what stands above the columns. `boundaries` has for each network at
    each time curves `(d, M)`, drawn as lines: the boundaries of the classes, sent through the network with the
    points. Each panel has a scale of its own, which it names.
    """
    labels = to_host(labels)
    rows, columns = len(states), len(titles)
    figure = new_figure(2.5 * columns, 2.6 * rows + 0.3)
    colours = cycle(int(labels.max()) + 1)
    for r, (name, clouds) in enumerate(states.items()):
        if len(clouds) != columns:
            raise ValueError(
                f"plot.trajectories: {name!r} has points at {len(clouds)} times, and titles {columns}"
            )
        for c, cloud in enumerate(clouds):
            points = _cloud(name, cloud, len(labels))
            curves = [_cloud(name, curve) for curve in (boundaries[name][c] if boundaries else ())]
            flat = len(points) == 2
            ax: Any = figure.add_subplot(
                rows, columns, r * columns + c + 1, projection=None if flat else "3d"
            )
            for k, colour in enumerate(colours):
                chosen = points[:, labels == k]
                ax.scatter(*chosen, s=5, color=colour, linewidths=0, alpha=0.7)
            for curve in curves:
                ax.plot(*curve, color=INK, linewidth=0.7, alpha=0.8)
            _frame(ax, points)
            if not r:
                ax.set_title(titles[c], fontsize=9, color=INK)
            if not c:
                write = ax.text if flat else ax.text2D
                where = {"transform": ax.transAxes, "rotation": 90, "va": "center", "ha": "right"}
                write(-0.04, 0.5, name, fontsize=9, color=INK, **where)
    if classes:
        from matplotlib.lines import Line2D

        marks = [Line2D([], [], marker="o", linestyle="", color=colour) for colour in colours]
        figure.legend(
            marks, classes, loc="outside lower center", frameon=False, fontsize=8, ncols=len(classes)
        )
    return figure


# -------------------------------------------------------------------------------------------------- helpers


def _named(networks: Any) -> dict[str, nn.TimeNet]:
    named = {type(networks).__name__: networks} if isinstance(networks, nn.TimeNet) else dict(networks)
    for name, net in named.items():
        if not isinstance(net, nn.TimeNet):
            raise TypeError(f"plot: {name!r} is a {type(net).__name__}, not a ResNet or a HamiltonianNet")
    return named


def _draw_region(ax: Axes, integrator: Any) -> None:
    """The region of stability; where it has no inside, the part of the imaginary axis.

    On a square that holds those of all integrators, however far away the eigenvalues lie.
    """
    line = np.linspace(-_REACH, _REACH, 401)
    factors = nn.amplification(integrator, line + 1j * line[:, None])
    axis = np.linspace(-_REACH, _REACH, 8001)
    stable = axis[nn.amplification(integrator, 1j * axis) <= 1 + _ROUNDING]
    if np.mean(factors <= 1 + _ROUNDING) > 0.01:
        ax.contourf(line, line, factors, levels=[0, 1], colors=[_STABLE], zorder=0)
        ax.contour(line, line, factors, levels=[1], colors=[_EDGE], linewidths=0.8, zorder=1)
    elif stable.size:
        ends = [stable.min(), stable.max()]
        ax.plot([0, 0], ends, color=_STABLE, linewidth=11, solid_capstyle="butt", zorder=0)
        ax.plot([0, 0], ends, color=_EDGE, linewidth=0, marker="_", markersize=15, zorder=1)
    ax.axhline(0, color=PALE, linewidth=0.8, zorder=0.5)
    ax.axvline(0, color=PALE, linewidth=0.8, zorder=0.5)


def _pale_to_dark() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("time", ["#9cc7da", COLOURS[0], "#06283a"])


def _draw_numbers(ax: Axes, found: Mapping[str, nn.Stability], colours: Mapping[str, str]) -> None:
    bounds: dict[float, str] = {}
    for name, (numbers, bound, _, _) in found.items():
        steps = np.arange(1, len(numbers) + 1)
        ax.plot(
            steps, numbers, color=colours[name], label=name, linewidth=1.6, marker=_mark(steps), markersize=4
        )
        if bound is not None:
            bounds[bound] = INK if bound in bounds else colours[name]
    for bound, colour in bounds.items():
        ax.axhline(bound, color=colour, linestyle="--", linewidth=1)
        ends = ax.get_yaxis_transform()  # along the axis in its own fractions, upward in numbers
        ax.text(1.01, bound, f"bound\n{bound:.3g}", transform=ends, fontsize=7, color=colour, va="center")
    ax.set_ylim(0, 1.15 * max([ax.dataLim.ymax, *bounds]))
    formulas = {stability.formula for stability in found.values()}
    ax.set_ylabel(formulas.pop() if len(formulas) == 1 else "h · max |λ|")
    _layers(ax)


def _draw_bands(
    ax: Axes, rows: Mapping[str, np.ndarray], colours: Mapping[str, str], label: str, log: bool, start: int
) -> None:
    """A line a network through the medians of the samples, in a band of the middle half of them."""
    for name, values in rows.items():
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=1)
        steps = np.arange(start, start + len(values))
        ax.fill_between(steps, low, high, color=colours[name], alpha=0.15, linewidth=0)
        ax.plot(steps, middle, color=colours[name], linewidth=1.6, marker=_mark(steps), markersize=4)
    if log:
        ax.set_yscale("log")
    ax.set_ylabel(label)
    _layers(ax)


def _added_energy(net: nn.TimeNet, X: Any) -> np.ndarray | None:
    """What the steps have added to the energy, relative to that at the start; None without one."""
    try:
        values, drift = nn.energy(net, X)
    except TypeError:
        return None
    added = np.cumsum(np.concatenate([np.zeros_like(drift[:1]), drift]), axis=0)
    return added / np.maximum(np.abs(values[0]), 1e-300)


def _verdict(stability: nn.Stability) -> str:
    numbers, bound, growth, _ = stability
    limit = "no bound" if bound is None else f"bound {bound:.3g}"
    return f"up to {numbers.max():.3g}, {limit}; modes grow by up to {growth:.2g}"


def _cloud(name: str, points: Any, count: int | None = None) -> np.ndarray:
    """Points as (d, N), d 2 or 3."""
    points = np.asarray(to_host(points))
    flat = points.reshape(-1, points.shape[-1])
    if len(flat) not in (2, 3) or count not in (None, flat.shape[1]):
        wanted = "N" if count is None else count
        raise ValueError(
            f"plot.trajectories: points of two or three numbers, (2, {wanted}) or (3, {wanted}), and {name!r} has "
            f"{points.shape}"
        )
    return flat


def _frame(ax: Any, points: np.ndarray) -> None:
    """A square, or a cube, around most of the points, with its scale."""
    centre = np.median(points, axis=1)
    half = 1.05 * float(np.quantile(np.abs(points - centre[:, None]).max(axis=0), 0.985)) or 1.0
    for axis, middle in zip("xyz", centre, strict=False):
        getattr(ax, f"set_{axis}lim")(middle - half, middle + half)
        getattr(ax, f"set_{axis}ticks")([])
    note = {"transform": ax.transAxes, "fontsize": 7, "color": COLOURS[5], "ha": "right"}
    if len(points) == 2:
        ax.set_aspect("equal")
        ax.text(0.98, 0.02, f"± {half:.2g}", **note)
        return
    ax.set_box_aspect((1, 1, 1), zoom=1.25)
    ax.view_init(elev=22, azim=-58)
    ax.text2D(0.98, 0.0, f"± {half:.2g}", **note)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_pane_color((0.95, 0.965, 0.975, 0.6))
        axis.line.set_linewidth(0)


def _layers(ax: Axes) -> None:
    ax.set_xlabel("layer")
    ax.locator_params(axis="x", integer=True, min_n_ticks=1)
    plain(ax)


def _mark(steps: np.ndarray) -> str | None:
    return "o" if len(steps) <= 12 else None  # few points are seen as such
