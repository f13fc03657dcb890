"""One pass over the training data, step by step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from cutnn.device import namespace, record_call, to_host
from cutnn.optim import Optimizer
from cutnn.recording import capture
from cutnn.tape import value_and_grad
from cutnn.train._interrupts import Whole
from cutnn.train.evaluation import Evaluation, batch, judge_of, place, real_dtype

_STEPS_BETWEEN_LOOKS = 64  # on the GPU, where looking at a loss waits for the queue


class NotFinite(Exception):
    """A loss that is not a finite number."""


@dataclass
class Epoch:
    """The running epoch: where it started, and what its steps so far have given."""

    number: int
    start: int  # steps of the optimizer before it
    lr: float  # of its first step
    losses: list[float] = field(default_factory=list)  # a step; on the host, known to be finite
    penalties: list[float] = field(default_factory=list)  # likewise, of the regulariser
    waiting: list[tuple[Any, Any]] = field(default_factory=list)  # steps after them that nobody looked at
    right: Any = None  # samples that were predicted right, if the loss predicts
    seconds: float = 0.0

    @property
    def step(self) -> int:
        """The number of steps made."""
        return len(self.losses) + len(self.waiting)

    def look(self) -> None:
        """Bring what waits to the host. Raises NotFinite with the step at which the first bad number came."""
        values, penalties = zip(*self.waiting, strict=True) if self.waiting else ((), ())
        first = len(self.losses) + 1
        self.losses += self._finite("loss", values, first)
        if penalties and penalties[0] is not None:
            self.penalties += self._finite("regularizer", penalties, first)
        self.waiting.clear()

    def means(self, samples: int, batch_size: int) -> tuple[Evaluation, float | None]:
        """Mean loss and accuracy over the samples, and the mean of the regulariser over the steps."""
        sizes = [min(batch_size, samples - begin) for begin in range(0, samples, batch_size)]
        loss = math.fsum(n * value for n, value in zip(sizes, self.losses, strict=True)) / samples
        accuracy = None if self.right is None else float(self.right) / samples
        return Evaluation(loss, accuracy), math.fsum(self.penalties) / len(sizes) if self.penalties else None

    def _finite(self, what: str, values: tuple[Any, ...], first: int) -> list[float]:
        host = values if len(values) < 2 else to_host(namespace(*values).stack(values))
        numbers = [float(value) for value in host]
        for step, number in enumerate(numbers, first):
            self.check(what, number, step)
        return numbers

    def check(self, what: str, number: float, step: int) -> None:
        if not math.isfinite(number):
            raise NotFinite(
                f"the {what} is {number} at step {step} of epoch {self.number} (step {self.start + step} of all)"
            )


class Step:
    """A training step of a model: gradient, a look at the losses, the update. It may be a captured one."""

    def __init__(
        self,
        model: Any,
        loss: Callable[..., Any],
        regularizer: Callable[[Any], Any] | None,
        split: Any,
        optimizer: Optimizer,
        captured: bool,
    ) -> None:
        def objective(model: Any, X: Any, target: Any) -> tuple[Any, Any]:
            value, classes = judge(model(X), target)
            if regularizer is None:
                return value, (value, None, classes)
            penalty = regularizer(model)
            return value + penalty, (value, penalty, classes)

        judge, self._predicts = judge_of(loss)
        self.model, self._split, self._optimizer = model, split, optimizer
        self._differentiate = value_and_grad(objective, has_aux=True)
        self._dtype = real_dtype(model)
        self._between = 1 if place(split) == "cpu" else _STEPS_BETWEEN_LOOKS
        self._epoch: Epoch | None = None
        self._captured = capture(lambda indices: self._update(*self._gradient(indices))) if captured else None

    def __call__(self, epoch: Epoch, indices: Any, whole: Whole) -> None:
        """Make a step, and add what it gives to the epoch; Ctrl-C comes before the update or after all of it."""
        self._epoch = epoch
        if self._captured is None:
            found = self._gradient(indices)
            with whole:
                self._note(epoch, *self._update(*found))
        else:
            with whole:
                self._note(epoch, *self._captured(indices))

    def _gradient(self, indices: Any) -> tuple[Any, Any, Any, Any]:
        """The gradient, loss and regulariser, and how many are predicted right."""
        X, target = batch(self._split, indices, self._dtype)
        (_, (value, penalty, classes)), grads = self._differentiate(self.model, X, target)
        return grads, value, penalty, (classes == target).sum() if self._predicts else None

    def _update(self, grads: Any, value: Any, penalty: Any, right: Any) -> tuple[Any, Any, Any]:
        if self._between == 1:  # else the losses are looked at after many steps
            record_call(self._look, [value] if penalty is None else [value, penalty], [])
        self._optimizer.step(grads)
        return value, penalty, right

    def _note(self, epoch: Epoch, value: Any, penalty: Any, right: Any) -> None:
        epoch.waiting.append((value, penalty))
        if self._predicts:
            epoch.right = (0 if epoch.right is None else epoch.right) + right
        if len(epoch.waiting) >= self._between:
            epoch.look()

    def _look(self, *numbers: Any) -> None:
        assert self._epoch
        for what, number in zip(("loss", "regularizer"), numbers, strict=False):
            self._epoch.check(what, float(number), self._epoch.step + 1)


def train(
    epoch: Epoch, step: Step, visits: Iterable[Any], whole: Whole, after_step: Callable[[], None]
) -> None:
    """A step for each batch of `visits`; what they give is added to the epoch."""
    began = time.perf_counter() - epoch.seconds
    for indices in visits:
        step(epoch, indices, whole)
        epoch.seconds = time.perf_counter() - began
        after_step()
    epoch.look()
