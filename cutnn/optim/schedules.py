"""Schedules of a learning rate: functions of the number of steps made so far, which nest."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["Schedule", "cosine", "step_decay", "warmup"]

Schedule = Callable[[int], float]
"""From the number of steps made so far to a learning rate."""


def step_decay(lr: float | Schedule, every: int, factor: float) -> Schedule:
    """The learning rate times `factor` after each `every` steps; `lr` may itself be a schedule, as below.

    >>> rate = step_decay(1e-2, every=100, factor=0.5)
    >>> rate(99), rate(100)
    (0.01, 0.005)
    """
    _at_least_one(every=every)
    return lambda step: _at(lr, step) * factor ** (step // every)


def cosine(lr: float | Schedule, steps: int, floor: float = 0.0) -> Schedule:
    """Half a cosine from the learning rate to `floor` times it over `steps` steps, and constant after.

    >>> rate = cosine(1e-2, steps=100)
    >>> rate(0), rate(50), rate(100)
    (0.01, 0.005, 0.0)
    """
    _at_least_one(steps=steps)
    return lambda step: (
        _at(lr, step) * (floor + (1 - floor) * (0.5 + 0.5 * math.cos(math.pi * min(step / steps, 1))))
    )


def warmup(lr: float | Schedule, steps: int) -> Schedule:
    """A linear start: step k of the first `steps`, counted from 1, has k / steps of the learning rate.

    >>> rate = warmup(step_decay(1e-2, every=100, factor=0.1), steps=4)
    >>> rate(0), rate(3), rate(100)
    (0.0025, 0.01, 0.001)
    """
    _at_least_one(steps=steps)
    return lambda step: _at(lr, step) * min(1.0, (step + 1) / steps)


def _at(lr: float | Schedule, step: int) -> float:
    return lr(step) if callable(lr) else lr


def _at_least_one(**settings: int) -> None:
    for name, value in settings.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, and is {value}")
