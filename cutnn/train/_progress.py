"""Progress bars on the terminal, by rich; nothing where rich or a terminal is missing."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

_INTERVAL = 0.2  # seconds between two drawings, each about a millisecond


class Progress:
    """A bar over all steps that draws nothing: what `bar` gives without a terminal."""

    def start_epoch(self, epoch: int) -> None: ...

    def advance(self) -> None: ...

    def describe(self, text: str) -> None: ...


@contextlib.contextmanager
def bar(show: bool, epochs: int, steps: int, done: int) -> Iterator[Progress]:
    """The bar of a run of which `done` steps are made, taken off the terminal's cursor at the end."""
    if show and _can_draw():
        with _RichProgress(epochs, steps, done) as progress:
            yield progress
    else:
        yield Progress()


@contextlib.contextmanager
def solver_progress(show: bool = True) -> Iterator[Callable[[Any], None]]:
    """A `callback` for `algebra.lowrank` that draws a bar on the terminal; it draws nothing without rich or terminal.

    The bar is full when the larger residual has come down, on a logarithmic scale, to the tolerance.

    >>> from cutnn import algebra, train
    >>> star = algebra.dct(3)
    >>> with train.solver_progress() as callback:
    ...     result = algebra.lowrank.robust_pca(star, star.random(4, 4, seed=0), callback=callback)
    """
    if not (show and _can_draw()):
        yield lambda state: None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        "iteration {task.fields[iteration]}",
        "residual {task.fields[residual]:.1e}",
        "{task.description}",
    )
    display = progress.Progress(
        progress.TextColumn(columns[0]),
        progress.BarColumn(bar_width=20),
        progress.TimeElapsedColumn(),
        *map(progress.TextColumn, columns[1:]),
        console=Console(stderr=True),
        auto_refresh=False,
    )
    task = display.add_task("", total=1.0, iteration=0, residual=1.0)
    drawn = 0.0

    def callback(state: Any) -> None:
        nonlocal drawn
        if time.monotonic() - drawn < _INTERVAL:
            return
        residual = max(state.primal, state.dual)
        share = math.log(min(max(residual, state.tolerance), 1.0)) / math.log(min(state.tolerance, 0.5))
        text = f"tubal rank {state.tubal_rank}"
        fields = {"iteration": state.iteration, "residual": residual, "description": text}
        display.update(task, completed=share, refresh=True, **fields)
        drawn = time.monotonic()

    with display:
        yield callback


class _RichProgress(Progress):
    def __init__(self, epochs: int, steps: int, done: int) -> None:
        from rich import progress
        from rich.console import Console

        self._display = progress.Progress(
            progress.TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            progress.BarColumn(bar_width=20),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.description}"),
            console=Console(stderr=True),
            auto_refresh=False,
        )
        self._task = self._display.add_task("", total=epochs * steps, completed=done, epoch=0, epochs=epochs)
        self._steps = done
        self._drawn = 0.0

    def __enter__(self) -> _RichProgress:
        self._display.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._draw()
        self._display.stop()

    def start_epoch(self, epoch: int) -> None:
        self._display.update(self._task, epoch=epoch)

    def advance(self) -> None:
        self._steps += 1
        if time.monotonic() - self._drawn > _INTERVAL:
            self._draw()

    def describe(self, text: str) -> None:
        self._display.update(self._task, description=text)
        self._draw()

    def _draw(self) -> None:
        self._display.update(self._task, completed=self._steps, refresh=True)
        self._drawn = time.monotonic()


def _can_draw() -> bool:
    return sys.stderr.isatty() and importlib.util.find_spec("rich") is not None
