"""A progress bar on the terminal, by rich; nothing where rich or a terminal is missing."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Iterator
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
    if show and sys.stderr.isatty() and _has_rich():
        with _RichProgress(epochs, steps, done) as progress:
            yield progress
    else:
        yield Progress()


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


def _has_rich() -> bool:
    return importlib.util.find_spec("rich") is not None
