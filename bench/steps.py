"""Training steps to be timed: one batch after another, each with the same work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.case import Work

_CHECKED = 5


class Steps:
    """The batches that steps run over, again and again; the answer is the losses of the first few steps."""

    def __init__(self, given: list[tuple[Any, Any]]) -> None:
        self.given = given
        self.done = 0

    def next(self) -> tuple[Any, Any]:
        self.done += 1
        return self.given[self.done % len(self.given)]

    def work(self, call: Callable[[], Any]) -> Work:
        return Work(call, lambda: [np.array([float(call()) for _ in range(_CHECKED)])])
