"""The folder of a run: its best model, its history, its checkpoints."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cutnn.train._run import Run
from cutnn.train._storage import leftovers, writable_folder
from cutnn.train.checkpoint import checkpoints, save_checkpoint, save_model
from cutnn.train.history import History

_SHARE = 0.05  # of the time, at most, goes into checkpoints within epochs: 633 MB took 3 to 4 s to write


class Folder:
    """Where a run writes. A disk that fails later costs a warning, not the run."""

    def __init__(self, path: str | Path, run: Run, keep: int, save_every: float, resume: bool) -> None:
        self.path = writable_folder(path)
        self._keep = keep
        self._save_every = save_every
        for old in leftovers(self.path) + ([] if resume else checkpoints(self.path)):
            if old.is_file():
                old.unlink()
        save_model(self.path / "model.safetensors", run.result.model)
        if len(run.result.history):
            run.result.history.to_csv(self.path / "history.csv")
        self._due = time.monotonic() + save_every

    def save_model(self, model: Any) -> None:
        self._write(lambda: save_model(self.path / "model.safetensors", model))

    def save_history(self, history: History) -> None:
        self._write(lambda: history.to_csv(self.path / "history.csv"))

    def save_checkpoint(self, run: Run) -> None:
        trees, state, began = run.trees(), run.state(), time.monotonic()
        self._write(
            lambda: save_checkpoint(self.path, trees, state, epoch=run.done, step=run.step, keep=self._keep)
        )
        now = time.monotonic()
        self._due = now + (max(self._save_every, (now - began) / _SHARE) if self._save_every else 0)

    def save_checkpoint_in_time(self, run: Run) -> None:
        """A checkpoint, if the last one is old enough."""
        if time.monotonic() >= self._due:
            self.save_checkpoint(run)

    def _write(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except OSError as error:
            warnings.warn(f"{self.path}: {error}; the training goes on", RuntimeWarning, stacklevel=5)
