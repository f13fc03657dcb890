"""Pictures of tensors: faces, class tubes, what transforms compress, and the layout of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cutnn.device import to_host
from cutnn.plot._style import COLOURS, INK, PALE, cycle, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["class_tubes", "compaction", "faces", "layout"]


def faces(A: Any, titles: Sequence[str] | None = None, columns: int = 8) -> Figure:
    """The faces of a tensor `(n, l, m)`, each as an image on one common grey scale.

    >>> len(faces(np.zeros((3, 4, 5))).axes)
    3
    """
    A = np.real(to_host(A))
    if A.ndim != 3:
        raise ValueError(
            f"plot.faces draws one tensor of shape (n, l, m), not {A.shape}; pick one of a batch"
        )
    rows = -(-len(A) // columns)
    figure = new_figure(1.3 * min(columns, len(A)), 1.5 * rows)
    for k, face in enumerate(A):
        ax = figure.add_subplot(rows, min(columns, len(A)), k + 1)
        ax.imshow(face, cmap="gray", vmin=A.min(), vmax=A.max())
        ax.set_title(titles[k] if titles else f"face {k}", fontsize=8)
        ax.set_axis_off()
    return figure


def class_tubes(
    images: Any,
    tubes: Any,
    predicted: Sequence[Any],
    classes: Sequence[str],
    labels: Sequence[Any] | None = None,
    title: str = "class tubes",
) -> Figure:
    """Images beside their class tubes: what a tubal head says of each.

    `images` is `(N, rows, columns)`, `tubes` is `(n, classes, N)` (the transform of the tubal softmax, say), and
    `predicted` holds N class indices, and so do the true `labels`. A row of a lower picture is the tube of one
    class; a frame marks that of the predicted one.
    """
    images, tubes = to_host(images), np.real(to_host(tubes))
    count = len(images)
    figure = new_figure(1.7 * count, 4.0)
    limit = float(np.abs(tubes).max()) or 1.0
    colours: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    if tubes.min() >= 0:
        colours = {"cmap": "Blues", "vmin": 0.0, "vmax": limit}
    for s in range(count):
        ax = figure.add_subplot(2, count, s + 1)
        ax.imshow(images[s], cmap="gray_r")
        ax.set_axis_off()
        truth = "" if labels is None else f"{classes[labels[s]]}, "
        ax.set_title(f"{truth}predicted {classes[predicted[s]]}", fontsize=9)
        ax = figure.add_subplot(2, count, count + s + 1)
        drawn = ax.imshow(tubes[:, :, s].T, aspect="auto", **colours)
        ax.set_yticks(range(len(classes)), classes if s == 0 else [""] * len(classes), fontsize=7)
        ax.tick_params(axis="x", labelsize=7)
        ax.axhspan(predicted[s] - 0.5, predicted[s] + 0.5, fill=False, edgecolor=COLOURS[1], linewidth=1.4)
        ax.locator_params(axis="x", integer=True, min_n_ticks=1)
        ax.set_xlabel("entry of the tube", fontsize=8)
    figure.axes[1].set_ylabel("class", fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.colorbar(drawn, ax=figure.axes[1::2], fraction=0.02, pad=0.02)
    return figure


def compaction(comparison: Any, title: str | None = None) -> Figure:
    """The relative error against the storage for each algebra of `algebra.compare`: t-SVDM left, t-SVDMII right.

    Both axes are logarithmic. An error of 0 has no mark.

    >>> from cutnn import algebra
    >>> figure = compaction(algebra.compare(algebra.dct(8).random(5, 6, seed=0)))
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['identity', 'dct', 'fft', 'haar', 'random', 'from data']
    """
    figure = new_figure(8.6, 3.7)
    panels: list[Axes] = []
    for column, (what, field) in enumerate((("t-SVDM", "t_svdm"), ("t-SVDMII", "t_svdmii"))):
        ax = figure.add_subplot(1, 2, column + 1, sharey=panels[0] if panels else None)
        for k, (row, colour) in enumerate(zip(comparison.rows, cycle(len(comparison.rows)), strict=True)):
            error, storage = np.asarray(getattr(row, field)), 100 * np.asarray(row.storage)
            style: dict[str, Any] = {
                "color": colour,
                "linestyle": ("-", "--", ":")[k // len(COLOURS) % 3],
                "marker": _MARKS[k % len(_MARKS)],
            }
            seen = error > 0
            ax.plot(storage[seen], error[seen], label=row.algebra, linewidth=1.5, markersize=4, **style)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_title(what, fontsize=10, color=INK)
        ax.set_xlabel("numbers stored, % of the tensor")
        ax.grid(True, which="major", color=PALE, zorder=0)
        plain(ax)
        panels.append(ax)
    for ax in panels:
        _plain_numbers(ax)
    panels[0].set_ylabel("relative error")
    panels[1].tick_params(labelleft=False)
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    return figure


def layout() -> Figure:
    """A tensor's faces, tubes and lateral slices, in the literature's indices and in cutnn's (faces first)."""
    n, l, m = 4, 5, 3  # noqa: E741  the letters of the literature
    figure = new_figure(10.5, 6.2)
    grid = figure.add_gridspec(2, 3, height_ratios=(3.2, 1.5))
    parts = (
        ("frontal slice, or face", "A[:, :, k]", "A[k]", lambda k, i, j: k == 0),
        ("tube", "A[i, j, :]", "A[:, i, j]", lambda k, i, j: (i, j) == (0, 2)),
        ("lateral slice: one sample", "A[:, j, :]", "A[:, :, j]", lambda k, i, j: j == 2),
    )
    for column, (name, literature, ours, chosen) in enumerate(parts):
        ax = figure.add_subplot(grid[0, column])
        _draw_tensor(ax, (n, l, m), chosen, COLOURS[column])
        ax.set_title(name, fontsize=12, color=INK)
        for y, who, index, weight in (
            (-0.08, "literature", literature, "normal"),
            (-0.17, "cutnn", ours, "bold"),
        ):
            caption = f"{who:12}{index}"
            ax.text(0.12, y, caption, transform=ax.transAxes, family="monospace", weight=weight)
    ax = figure.add_subplot(grid[1, :])
    _draw_memory(ax, n, l, m)
    return figure


# -------------------------------------------------------------------------------------------------- helpers


_MARKS = ("o", "s", "^", "D", "v", "P")


def _plain_numbers(ax: Axes) -> None:
    """Ticks at 1, 2 and 5 times powers of ten, as numbers; of many decades powers of ten alone."""
    from matplotlib.ticker import LogLocator, NullLocator

    for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 300 else (1.0,)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:g}")


def _draw_tensor(ax: Axes, shape: tuple[int, int, int], chosen: Any, colour: str) -> None:
    """The entries of a tensor as cells of faces that stand behind each other, front face last."""
    n, l, m = shape  # noqa: E741
    for k in reversed(range(n)):
        for i in range(l):
            for j in range(m):
                x, y = j + 0.95 * k, -i + 0.62 * k
                ax.fill(
                    [x, x + 1, x + 1, x],
                    [y, y, y - 1, y - 1],
                    facecolor=colour if chosen(k, i, j) else "white",
                    edgecolor=INK,
                    linewidth=0.7,
                )
    ax.annotate("rows l", (-0.35, -l / 2), ha="right", va="center", rotation=90, fontsize=9)
    ax.annotate("columns m", (m / 2, -l - 0.4), ha="center", va="center", fontsize=9)
    ax.annotate("tubes n", (m + 2.5, -l + 1.1), ha="left", va="center", rotation=33, fontsize=9)
    ax.set_aspect("equal")
    ax.margins(0.08)
    ax.set_axis_off()


def _draw_memory(ax: Axes, n: int, l: int, m: int) -> None:  # noqa: E741
    """Two strips of memory: what lies next to what."""
    cells = n * l * m
    rows = (
        ("tubes last", [p % n for p in range(cells)], "a tube lies together: each face is strided"),
        (
            "faces first",
            [p // (l * m) for p in range(cells)],
            "a face lies together: A @ B is the facewise product",
        ),
    )
    for row, (name, face_of, why) in enumerate(rows):
        y = -2.2 * row
        for p, k in enumerate(face_of):
            ax.fill([p, p + 1, p + 1, p], [y, y, y + 1, y + 1], color=_shade(k, n), ec="white", linewidth=0.4)
        ax.text(-0.8, y + 0.5, name, ha="right", va="center", fontsize=10, weight="bold" if row else "normal")
        ax.text(cells / 2, y - 0.55, why, ha="center", va="center", fontsize=9, color=INK)
    ax.text(cells + 0.8, 0.5, "memory order;\na colour is a face", va="center", fontsize=8, color=INK)
    ax.set_xlim(-9, cells + 11)
    ax.set_axis_off()


def _shade(k: int, n: int) -> tuple[float, float, float]:
    dark, pale = np.asarray((11, 110, 153)) / 255, np.asarray((205, 226, 235)) / 255
    red, green, blue = dark + (pale - dark) * (k / max(n - 1, 1))
    return float(red), float(green), float(blue)
