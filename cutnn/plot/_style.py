"""What the pictures share: colours, a figure without a window, axes without a box."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#20323f"
PALE = "#dfe7ec"
COLOURS = ("#0b6e99", "#d1495b", "#edae49", "#66a182", "#8d5a97", "#5f6b73")


def new_figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'cutnn[examples]'") from None
    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def cycle(count: int) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(count)]


def plain(ax: Axes) -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
