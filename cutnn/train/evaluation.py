"""Evaluation of a model on a split of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optree

from cutnn.data import batches
from cutnn.device import device_of
from cutnn.tape import stop_gradient

__all__ = ["Evaluation", "evaluate"]

_BATCH = 256


class Evaluation(NamedTuple):
    """The mean loss over a split, and the fraction predicted right; None for a loss that does not predict."""

    loss: float
    accuracy: float | None


def evaluate(model: Any, loss: Callable[..., Any], split: Any, batch_size: int = _BATCH) -> Evaluation:
    """The mean loss and the accuracy of a model on a split, in batches of `batch_size`.

    Raises ValueError for an empty split.

    >>> from cutnn import data, nn
    >>> model = nn.Sequential(nn.Unfold(), nn.Dense(64, 10, seed=0))
    >>> evaluate(model, nn.CrossEntropy(), data.load("digits").test).accuracy < 0.5
    True
    """
    if not len(split):
        raise ValueError("evaluate: the split is empty")
    dtype = real_dtype(model)
    judge, predicts = judge_of(loss)
    total: Any = 0.0
    right: Any = 0
    for indices in batches(len(split), batch_size, shuffle=False, device=place(split)):
        X, target = batch(split, indices, dtype)
        value, classes = judge(model(X), target)
        total = total + value * len(indices)
        if predicts:
            right = right + (classes == target).sum()
    return Evaluation(float(total) / len(split), float(right) / len(split) if predicts else None)


# ---------------------------------------------------------------------------- helpers, of training as well


def batch(split: Any, indices: Any, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    return split.batch(indices) if dtype == np.float32 else split.batch(indices, dtype)


def judge_of(loss: Any) -> tuple[Callable[..., tuple[Any, Any]], bool]:
    """A function of (Y, target) that returns loss and predicted classes, and whether there are any."""
    if hasattr(loss, "with_prediction"):
        return loss.with_prediction, True
    if hasattr(loss, "predict"):
        return lambda Y, target: (loss(Y, target), loss.predict(stop_gradient(Y))), True
    return lambda Y, target: (loss(Y, target), None), False


def place(split: Any) -> str:
    labels = getattr(split, "labels", None)
    return "cpu" if labels is None else device_of(labels)


def real_dtype(model: Any) -> np.dtype[Any]:
    """The real dtype in which the model computes."""
    return np.empty(0, first_leaf(model).dtype).real.dtype


def first_leaf(model: Any) -> Any:
    return optree.tree_leaves(model, namespace="cutnn")[0]
