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


def cutnn_steps(network: tuple[Any, Any, Any], batches: list[tuple[np.ndarray, np.ndarray]]) -> Work:
    """Steps of cutnn's (model, loss, optimizer) on batches of images (samples, rows, columns) and labels."""
    import cutnn as ct

    model, loss, optimizer = network
    steps = Steps([(np.ascontiguousarray(x.transpose(2, 1, 0)), y) for x, y in batches])
    gradient = ct.value_and_grad(lambda model, X, labels: loss(model(X), labels))

    def call() -> Any:
        value, grads = gradient(model, *steps.next())
        optimizer.step(grads)
        return value

    return steps.work(call)


def torch_steps(network: tuple[Any, Any], batches: list[tuple[np.ndarray, np.ndarray]]) -> Work:
    """Steps of a PyTorch (network, optimizer) on the same batches."""
    import torch

    from bench.peers import training

    steps = Steps([(torch.tensor(x), torch.tensor(y)) for x, y in batches])
    return steps.work(lambda: training.step(*network, *steps.next()))
