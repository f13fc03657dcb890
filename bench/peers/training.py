"""Training of the PyTorch networks: one step, and the evaluation of a set, for either layout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def adam(network: Any, lr: float = 1e-2, weight_decay: float = 1e-4, **options: Any) -> torch.optim.Adam:
    """PyTorch's Adam on the network's parameters."""
    return torch.optim.Adam(network.parameters, lr=lr, weight_decay=weight_decay, **options)


def step(network: Any, optimizer: torch.optim.Optimizer, *batch: Tensor) -> Tensor:
    """One training step on images (samples, rows, columns) and labels; returns the loss before it."""
    optimizer.zero_grad()
    loss: Tensor = network.loss_of(*batch)
    loss.backward()
    optimizer.step()
    return loss.detach()


def accuracy(network: Any, images: Tensor, labels: Tensor, batch_size: int = 1000) -> float:
    """The fraction of images whose class is predicted."""
    right = 0
    with torch.no_grad():
        for some, wanted in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            right += int((network.predict(network(network.tensor(some))) == wanted).sum())
    return right / len(labels)
