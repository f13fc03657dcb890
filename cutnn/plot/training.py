"""Pictures of training: curves against the epoch, accuracy against size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cutnn.plot._style import PALE, cycle, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["accuracy_against_parameters", "curves"]


def curves(
    histories: Mapping[str, Any], columns: Sequence[str] = ("train_loss", "validation_accuracy")
) -> Figure:
    """Columns of training histories against the epoch, one panel a column, one line a history.

    A history is anything that answers history["epoch"] and history[column] with sequences.
    """
    figure = new_figure(4.6 * len(columns), 3.4)
    for k, column in enumerate(columns):
        ax = figure.add_subplot(1, len(columns), k + 1)
        for name, colour in zip(histories, cycle(len(histories)), strict=True):
            history = histories[name]
            mark = "o" if len(history["epoch"]) == 1 else None  # a line of one point cannot be seen
            ax.plot(history["epoch"], history[column], label=name, color=colour, linewidth=1.6, marker=mark)
        ax.locator_params(axis="x", integer=True, min_n_ticks=1)
        ax.set_xlabel("epoch")
        ax.set_ylabel(column.replace("_", " "))
        plain(ax)
    if histories:
        figure.axes[-1].legend(frameon=False, fontsize=8)
    return figure


def accuracy_against_parameters(
    points: Mapping[str, tuple[int, float]], ylabel: str = "test accuracy, %"
) -> Figure:
    """One mark a network: its accuracy over its number of parameters, on a logarithmic axis."""
    figure = new_figure(5.4, 3.8)
    ax = figure.add_subplot()
    for (name, (parameters, accuracy)), colour in zip(points.items(), cycle(len(points)), strict=True):
        ax.scatter([parameters], [accuracy], s=70, color=colour, label=f"{name} ({parameters:,})", zorder=3)
    ax.set_xscale("log")
    _label_sizes(ax)
    ax.set_xlabel("parameters")
    ax.set_ylabel(ylabel)
    ax.grid(True, color=PALE, zorder=0)
    plain(ax)
    figure.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=2)
    return figure


# -------------------------------------------------------------------------------------------------- helpers


def _label_sizes(ax: Axes) -> None:
    """Ticks at 1, 2 and 5 times powers of ten: all sizes may lie within one decade."""
    from matplotlib.ticker import LogLocator, NullLocator

    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:,.0f}")
