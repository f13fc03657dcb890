"""A training run between two steps: all that a checkpoint holds, and how it goes on from one."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optree

from cutnn.device import namespace
from cutnn.nn import prolong
from cutnn.optim import Optimizer
from cutnn.train._epoch import Epoch, NotFinite
from cutnn.train._settings import ResumeError, check_same
from cutnn.train.checkpoint import Checkpoint
from cutnn.train.evaluation import Evaluation
from cutnn.train.history import History

_VERSION = 1


@dataclass
class FitResult:
    """What `fit` returns: the best model, the history, and how the run ended.

    `model` is a copy, that of `best_epoch`; 0 means the model as it was before training. `final` is the model at
    the end: the one that was given and trained, unless `refine` put a deeper one in its place. `stopped` is None
    after all epochs, else says why there are fewer.
    """

    model: Any
    history: History = field(default_factory=History)
    best_epoch: int = 0
    interrupted: bool = False
    stopped: str | None = None
    final: Any = None


class Run:
    """Model, optimizer and result of a run, its epochs `done`, and the running `epoch`, None between two.

    `settled` is false while an epoch is done, and its files and callbacks are not.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Optimizer,
        epochs: int,
        seed: Any,
        shuffle: bool | str,
        refine: Mapping[int, int] | None,
        settings: dict[str, Any],
    ) -> None:
        self.optimizer = optimizer
        self.result = FitResult(_copy(model), final=model)
        self.done = 0
        self.epoch: Epoch | None = None
        self.settled = True
        self.epochs = epochs
        self._settings = settings
        self._refine = sorted((refine or {}).items())
        self._levels = [model]  # and its refinements so far
        self._starts: list[int] = []  # the steps before each epoch
        self._fixed = shuffle == "fixed"
        self._source = np.random.default_rng(seed)
        self._random = self._source.bit_generator.state
        self.order = self._drawn()

    @property
    def step(self) -> int:
        """Steps made in the running epoch."""
        return self.epoch.step if self.epoch else 0

    @property
    def finished(self) -> bool:
        return self.settled and (self.done >= self.epochs or self.result.stopped is not None)

    # ------------------------------------------------------------------------------------------------ forward

    def begin(self, number: int) -> Epoch:
        """The epoch of this number, as a checkpoint left it or new."""
        if self.epoch is None:
            self.epoch = Epoch(number, self.optimizer.steps, float(self.optimizer.learning_rate))
            self._starts.append(self.optimizer.steps)
        return self.epoch

    def refine_before(self, number: int) -> None:
        """Make the refinements that are due before the epoch of this number, and are not made."""
        for epoch, factor in self._refine[len(self._levels) - 1 :]:
            if epoch < number:
                finer = prolong(self.result.final, factor)
                self.optimizer.continue_with(finer, functools.partial(prolong, factor=factor))
                self.result.final = finer
                self._levels.append(finer)

    def complete(self, trained: Evaluation, penalty: float | None, validated: Evaluation | None) -> None:
        """End the running epoch: a row of the history, and the model if it is the best.

        Raises NotFinite where the validation loss or the weights are not finite.
        """
        assert self.epoch
        number, result = self.epoch.number, self.result
        row: dict[str, Any] = {"epoch": number, "train_loss": trained.loss}
        if penalty is not None:
            row["regularizer"] = penalty
        if trained.accuracy is not None:
            row["train_accuracy"] = trained.accuracy
        if validated is not None:
            row["validation_loss"] = validated.loss
            if validated.accuracy is not None:
                row["validation_accuracy"] = validated.accuracy
        result.history.append(**row, lr=self.epoch.lr, seconds=self.epoch.seconds)
        if validated is not None and not math.isfinite(validated.loss):
            raise NotFinite(f"the validation loss is {validated.loss} after epoch {number}")
        if not result.best_epoch or _merit(row) > _merit(result.history[result.best_epoch - 1]):
            if not _all_finite(result.final):  # the last step of the epoch can ruin what its loss approved
                raise NotFinite(f"weights are not finite after epoch {number}")
            result.model, result.best_epoch = _copy(result.final), number
        self.done, self.epoch, self.settled = number, None, False
        self.note_random()

    def note_random(self) -> None:
        """Keep the random state from which the next epoch draws its order."""
        if not self._fixed:
            self._random = self._source.bit_generator.state

    def _drawn(self) -> int | np.random.Generator:
        """What shuffles: a generator, anew each epoch; or a seed, which gives its one order again and again."""
        return int(self._source.integers(2**63)) if self._fixed else self._source

    # -------------------------------------------------------------------------------------------- checkpoints

    def trees(self) -> dict[str, Any]:
        """The arrays of a checkpoint. Raises NotFinite where a loss that nobody has looked at is not finite."""
        if self.epoch:
            self.epoch.look()
        sums = (self.epoch.losses, self.epoch.penalties) if self.epoch else ([], [])
        return {
            "model": self.result.final,
            "best": self.result.model,
            "optimizer": self.optimizer.state(),
            "epoch": dict(zip(("losses", "penalties"), map(np.asarray, sums), strict=True)),
        }

    def state(self) -> dict[str, Any]:
        """All else of a checkpoint."""
        result, epoch = self.result, self.epoch
        return {
            "fit": _VERSION,
            "settings": self._settings,
            "epochs": self.epochs,
            "refined": self._refine[: len(self._levels) - 1],
            "starts": self._starts,
            "rates": self._rates([*self._starts, self.optimizer.steps - 1]),
            "optimizer": self.optimizer.settings,
            "random": self._random,
            "history": list(result.history),
            "best_epoch": result.best_epoch,
            "stopped": result.stopped,
            "settled": self.settled,
            "epoch": epoch
            and {name: getattr(epoch, name) for name in ("number", "start", "lr", "right", "seconds")},
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint; the arrays of the model are written to.

        Raises ResumeError for a checkpoint of another kind, or of a run with other settings.
        """
        state, reached = checkpoint.state, checkpoint.epoch + (checkpoint.step > 0)
        if state.get("fit") != _VERSION:
            version = "this version of " if "fit" in state else ""
            raise ResumeError(
                f"fit: {checkpoint.path} was not written by {version}train.fit; give checkpoint= another folder"
            )
        self._check(checkpoint, reached)
        result = self.result
        self.refine_before(1 + max([epoch for epoch, _ in state["refined"]], default=0))
        best = self._levels[sum(epoch < state["best_epoch"] for epoch, _ in state["refined"])]
        try:  # all of them before the first is written to
            best = checkpoint.tree("best", best)
            final = checkpoint.tree("model", result.final)
            moments = checkpoint.tree("optimizer", self.optimizer.state())
        except ValueError as error:
            raise ResumeError(f"fit: {error}") from error
        result.model = best
        for own, stored in zip(_leaves(result.final), _leaves(final), strict=True):
            own[...] = stored
        self.optimizer.restore(moments)
        for name, value in state["optimizer"].items():
            setattr(self.optimizer, name, value)
        for row in state["history"]:
            result.history.append(**row)
        result.best_epoch, result.stopped = state["best_epoch"], state["stopped"]
        if self.epochs > state["epochs"]:
            result.stopped = None  # more was asked for
        self.done, self.settled, self._starts = checkpoint.epoch, state["settled"], state["starts"]
        if state["epoch"]:
            sums = {name: checkpoint.arrays[f"epoch.{name}"].tolist() for name in ("losses", "penalties")}
            self.epoch = Epoch(**state["epoch"], **sums)
        self._source.bit_generator.state = self._random = state["random"]
        self.order = self._drawn()

    def _check(self, checkpoint: Checkpoint, reached: int) -> None:
        then, now = dict(checkpoint.state["settings"]), dict(self._settings)
        if self.epochs < reached:
            then["epochs"], now["epochs"] = f"{reached} or more", self.epochs
        made = [tuple(pair) for pair in checkpoint.state["refined"]]
        due = [pair for pair in self._refine if pair[0] < reached]
        if made != self._refine[: len(made)] or len(due) > len(made):
            then["refine"], now["refine"] = dict(made), dict(self._refine)
        rates = checkpoint.state["rates"]
        for (step, old), (_, new) in zip(rates, self._rates([step for step, _ in rates]), strict=False):
            if old != new:
                then["optimizer.lr"], now["optimizer.lr"] = f"{old} at step {step}", new
                break
        check_same(checkpoint.path, then, now)

    def _rates(self, steps: Any) -> list[list[float]]:
        """The learning rates of some steps, where there is a schedule."""
        lr = self.optimizer.lr
        return [[step, float(lr(step))] for step in steps if step >= 0] if callable(lr) else []


# -------------------------------------------------------------------------------------------------- helpers


def _copy(model: Any) -> Any:
    return optree.tree_map(lambda leaf: leaf.copy(), model, namespace="cutnn")


def _leaves(model: Any) -> list[Any]:
    return optree.tree_leaves(model, namespace="cutnn")


def _all_finite(model: Any) -> bool:
    return all(bool(namespace(leaf).isfinite(leaf).all()) for leaf in _leaves(model))


def _merit(row: dict[str, Any]) -> float:
    """What the best epoch has most of."""
    if "validation_accuracy" in row:
        return row["validation_accuracy"]
    return -row.get("validation_loss", row["train_loss"])
