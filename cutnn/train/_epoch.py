"""One pass over the training data, step by step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from cutnn.device import namespace, to_host
from cutnn.optim import Optimizer
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
            if not math.isfinite(number):
                raise NotFinite(
                    f"the {what} is {number} at step {step} of epoch {self.number} "
                    f"(step {self.start + step} of all)"
                )
        return numbers


def train(
    epoch: Epoch,
    model: Any,
    loss: Callable[..., Any],
    regularizer: Callable[[Any], Any] | None,
    split: Any,
    visits: Iterable[Any],
    optimizer: Optimizer,
    whole: Whole,
    after_step: Callable[[], None],
) -> None:
    """A step of the optimizer for each batch of `visits`; what they give is added to the epoch."""

    def objective(model: Any, X: Any, target: Any) -> tuple[Any, Any]:
        value, classes = judge(model(X), target)
        if regularizer is None:
            return value, (value, None, classes)
        penalty = regularizer(model)
        return value + penalty, (value, penalty, classes)

    judge, predicts = judge_of(loss)
    differentiate = value_and_grad(objective, has_aux=True)
    dtype = real_dtype(model)
    if predicts and epoch.right is None:
        epoch.right = 0
    between = 1 if place(split) == "cpu" else _STEPS_BETWEEN_LOOKS
    began = time.perf_counter() - epoch.seconds
    for indices in visits:
        X, target = batch(split, indices, dtype)
        (_, (value, penalty, classes)), grads = differentiate(model, X, target)
        with whole:
            epoch.waiting.append((value, penalty))
            if len(epoch.waiting) == between:
                epoch.look()
            if predicts:
                epoch.right = epoch.right + (classes == target).sum()
            optimizer.step(grads)
        epoch.seconds = time.perf_counter() - began
        after_step()
    epoch.look()
