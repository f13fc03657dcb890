"""The training loop, and evaluation."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optree

from cutnn.data import batches
from cutnn.device import device_of, namespace, to_host
from cutnn.optim import Optimizer
from cutnn.tape import stop_gradient, value_and_grad
from cutnn.train._progress import Progress, bar
from cutnn.train._storage import save_model, writable_folder
from cutnn.train.history import History

__all__ = ["Evaluation", "FitResult", "evaluate", "fit"]

_EVALUATION_BATCH = 256
_STEPS_BETWEEN_LOOKS = 64  # on the GPU, where looking at a loss waits for the queue


class Evaluation(NamedTuple):
    """The mean loss over a split, and the fraction predicted right; None for a loss that does not predict."""

    loss: float
    accuracy: float | None


@dataclass
class FitResult:
    """What `fit` returns: the best model, the history, and how the run ended.

    `model` is a copy, that of `best_epoch`; 0 means the model as it was before training. `stopped` is None
    after all epochs, else says why there are fewer.
    """

    model: Any
    history: History = field(default_factory=History)
    best_epoch: int = 0
    interrupted: bool = False
    stopped: str | None = None


def fit(
    model: Any,
    loss: Callable[..., Any],
    dataset: Any,
    *,
    optimizer: Optimizer,
    epochs: int,
    batch_size: int = 32,
    seed: int | np.random.Generator = 42,
    shuffle: bool | str = True,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    callbacks: Iterable[Callable[[FitResult], bool | None]] = (),
) -> FitResult:
    """Train a model in place and return the best model by validation accuracy, with the history.

    `dataset` has `.train` and, unless it is None, `.validation`: splits with a length and `batch(indices)`,
    which returns (X, target), as those of `cutnn.data`. They move to the model's device first. Without
    accuracy (a loss that does not predict) the smallest validation loss decides, without validation the
    smallest training loss.

    `shuffle` draws a new order each epoch; "fixed" keeps the first one, as the authors' code does; False
    takes the data as they lie. A callback is called with the result so far after each epoch, and stops the
    run by returning True. `checkpoint` is a folder for `history.csv`, after each epoch, and
    `model.safetensors`, the best model.

    Shapes, labels and the folder are tried out before the first step, and raise ValueError, TypeError and
    OSError then. A loss that is not finite stops the training before its step; the GPU is asked every 64
    steps only. Ctrl-C stops it too. Either way the result holds the history, the reason, and the best model
    so far.

    >>> import cutnn as ct
    >>> from cutnn import algebra, data, nn, optim
    >>> digits, star = data.load("digits"), algebra.dct(8)
    >>> model = nn.Sequential(nn.TLinear(star, 8, 8, ct.tanh, seed=0), nn.TLinear(star, 8, 10, seed=1))
    >>> optimizer = optim.Adam(model, lr=1e-2)
    >>> result = fit(model, nn.TubalCrossEntropy(star), digits, optimizer=optimizer, epochs=5)
    >>> result.history["validation_accuracy"][-1] > 0.9
    True
    """
    optimizer = _checked(model, optimizer, epochs, batch_size, shuffle)
    train, validation = _splits(model, dataset)
    _try_out(model, loss, {"training": train, "validation": validation})
    folder = None if checkpoint is None else _Folder(checkpoint, model)
    # A generator shuffles anew each epoch; a seed gives its one order again and again.
    source = np.random.default_rng(seed)
    order = int(source.integers(2**63)) if shuffle == "fixed" else source
    result = FitResult(_copy(model))
    best = -math.inf
    with bar(progress, epochs, math.ceil(len(train) / batch_size)) as display:
        try:
            for epoch in range(1, epochs + 1):
                display.start_epoch(epoch)
                row: dict[str, Any] = {"epoch": epoch}
                lr, start = optimizer.learning_rate, time.perf_counter()
                visits = batches(len(train), batch_size, order, bool(shuffle), device=_device(train))
                trained = _train(model, loss, train, visits, optimizer, display, epoch)
                seconds = time.perf_counter() - start
                row |= _columns("train", trained)
                merit = -trained.loss
                if validation is not None:
                    validated = evaluate(model, loss, validation)
                    row |= _columns("validation", validated)
                    merit = -validated.loss if validated.accuracy is None else validated.accuracy
                result.history.append(**row, lr=lr, seconds=seconds)
                if validation is not None and not math.isfinite(validated.loss):
                    raise _NotFinite(f"the validation loss is {validated.loss} after epoch {epoch}")
                display.describe(_headline(row))
                if merit > best:
                    if not _all_finite(model):  # the last step of the epoch can ruin what its loss approved
                        raise _NotFinite(f"weights are not finite after epoch {epoch}")
                    result.model, result.best_epoch, best = _copy(model), epoch, merit
                    if folder:
                        folder.save_model(result.model)
                if folder:
                    folder.save_history(result.history)
                if any([callback(result) for callback in callbacks]):
                    result.stopped = f"a callback stopped the training after epoch {epoch}"
                    break
        except _NotFinite as error:
            kept = f"epoch {result.best_epoch}" if result.best_epoch else "before training"
            result.stopped = (
                f"{error}; the result keeps the model of {kept}. Try a smaller learning rate, or clip="
            )
            warnings.warn(f"training stopped: {result.stopped}", RuntimeWarning, stacklevel=2)
        except KeyboardInterrupt:
            result.interrupted = True
            result.stopped = f"interrupted in epoch {len(result.history) + 1}"
    if folder and result.stopped and len(result.history):
        folder.save_history(result.history)  # an end in mid-epoch may have left its last row unwritten
    return result


def evaluate(
    model: Any, loss: Callable[..., Any], split: Any, batch_size: int = _EVALUATION_BATCH
) -> Evaluation:
    """The mean loss and the accuracy of a model on a split, in batches of `batch_size`.

    Raises ValueError for an empty split.

    >>> from cutnn import data, nn
    >>> model = nn.Sequential(nn.Unfold(), nn.Dense(64, 10, seed=0))
    >>> evaluate(model, nn.CrossEntropy(), data.load("digits").test).accuracy < 0.5
    True
    """
    if not len(split):
        raise ValueError("evaluate: the split is empty")
    dtype = _dtype(model)
    judge, predicts = _judge(loss)
    total: Any = 0.0
    right: Any = 0
    for indices in batches(len(split), batch_size, shuffle=False, device=_device(split)):
        X, target = _batch(split, indices, dtype)
        value, classes = judge(model(X), target)
        total = total + value * len(indices)
        if predicts:
            right = right + (classes == target).sum()
    return Evaluation(float(total) / len(split), float(right) / len(split) if predicts else None)


# ------------------------------------------------------------------------------------------------ the epoch


class _NotFinite(Exception):
    """A loss that is not a finite number."""


def _train(
    model: Any,
    loss: Callable[..., Any],
    split: Any,
    visits: Iterable[Any],
    optimizer: Optimizer,
    display: Progress,
    epoch: int,
) -> Evaluation:
    """One pass over the split, a step of the optimizer a batch; the mean loss and accuracy of the batches."""

    def objective(model: Any, X: Any, target: Any) -> tuple[Any, Any]:
        return judge(model(X), target)

    judge, predicts = _judge(loss)
    differentiate = value_and_grad(objective, has_aux=True)
    dtype = _dtype(model)
    between = 1 if _device(split) == "cpu" else _STEPS_BETWEEN_LOOKS
    first = optimizer.steps + 1
    sizes: list[int] = []
    seen: list[float] = []  # losses on the host, known to be finite
    losses: list[Any] = []  # those after them
    right: Any = 0
    for indices in visits:
        X, target = _batch(split, indices, dtype)
        (value, classes), grads = differentiate(model, X, target)
        sizes.append(len(indices))
        losses.append(value)
        if len(losses) == between:
            seen += _finite(losses, epoch, len(seen), first)
            losses = []
        if predicts:
            right = right + (classes == target).sum()
        optimizer.step(grads)
        display.advance()
    seen += _finite(losses, epoch, len(seen), first)
    return Evaluation(
        math.fsum(n * value for n, value in zip(sizes, seen, strict=True)) / len(split),
        float(right) / len(split) if predicts else None,
    )


def _finite(losses: list[Any], epoch: int, done: int, first: int) -> list[float]:
    """The losses as numbers of the host, or _NotFinite that says at which step the first bad one came."""
    values = losses if len(losses) < 2 else to_host(namespace(*losses).stack(losses))
    numbers = [float(value) for value in values]
    for i, number in enumerate(numbers):
        if not math.isfinite(number):
            step = done + i + 1
            raise _NotFinite(
                f"the loss is {number} at step {step} of epoch {epoch} (step {first + step - 1} of all)"
            )
    return numbers


# ------------------------------------------------------------------------------------------- before training


def _checked(
    model: Any, optimizer: Optimizer, epochs: int, batch_size: int, shuffle: bool | str
) -> Optimizer:
    if optimizer.model is not model:
        raise ValueError(
            "fit: the optimizer was made for another model; make it for this one, optim.Adam(model, …)"
        )
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"fit: epochs and batch_size are at least 1, and are {epochs} and {batch_size}")
    if shuffle not in (True, False, "fixed"):
        raise ValueError(f'fit: shuffle is True, False or "fixed", not {shuffle!r}')
    return optimizer


def _splits(model: Any, dataset: Any) -> tuple[Any, Any]:
    """The training and validation splits, on the model's device."""
    splits = []
    for name in ("train", "validation"):
        split = getattr(dataset, name)
        if split is not None:
            if not len(split):
                raise ValueError(f"fit: the {name} split of the data is empty")
            if hasattr(split, "to_device"):
                split = split.to_device(device_of(_first_leaf(model)))
        splits.append(split)
    if splits[0] is None:
        raise ValueError("fit: the data have no train split")
    return splits[0], splits[1]


def _try_out(model: Any, loss: Callable[..., Any], splits: dict[str, Any]) -> None:
    """One image through model and loss, and a look at all labels, before training."""
    for name, split in splits.items():
        if split is None:
            continue
        try:
            X, target = _batch(split, [0], _dtype(model))
            Y = model(X)
            loss(Y, target)
            labels = getattr(split, "labels", None)
            if hasattr(loss, "predict") and labels is not None:
                low, high, classes = int(labels.min()), int(labels.max()), Y.shape[-2]
                if low < 0 or high >= classes:
                    raise ValueError(f"labels lie in {low}..{high}, and the model has {classes} classes")
        except (TypeError, ValueError) as error:
            error.add_note(f"This came before training, when one image of the {name} data was tried out.")
            raise


class _Folder:
    """The files of a run; a disk that fails later costs a warning, not the run."""

    def __init__(self, path: str | Path, model: Any) -> None:
        self.path = writable_folder(path)
        self.save_model(model, warn=False)

    def save_model(self, model: Any, warn: bool = True) -> None:
        self._write(lambda: save_model(self.path / "model.safetensors", model), warn)

    def save_history(self, history: History) -> None:
        self._write(lambda: history.to_csv(self.path / "history.csv"), True)

    def _write(self, write: Callable[[], None], warn: bool) -> None:
        try:
            write()
        except OSError as error:
            if not warn:
                raise
            warnings.warn(f"{self.path}: {error}; the training goes on", RuntimeWarning, stacklevel=4)


# -------------------------------------------------------------------------------------------------- helpers


def _batch(split: Any, indices: Any, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    return split.batch(indices) if dtype == np.float32 else split.batch(indices, dtype)


def _judge(loss: Any) -> tuple[Callable[..., tuple[Any, Any]], bool]:
    """A function of (Y, target) that returns loss and predicted classes, and whether there are any."""
    if hasattr(loss, "with_prediction"):
        return loss.with_prediction, True
    if hasattr(loss, "predict"):
        return lambda Y, target: (loss(Y, target), loss.predict(stop_gradient(Y))), True
    return lambda Y, target: (loss(Y, target), None), False


def _device(split: Any) -> str:
    labels = getattr(split, "labels", None)
    return "cpu" if labels is None else device_of(labels)


def _dtype(model: Any) -> np.dtype[Any]:
    """The real dtype in which the model computes."""
    return np.empty(0, _first_leaf(model).dtype).real.dtype


def _first_leaf(model: Any) -> Any:
    return optree.tree_leaves(model, namespace="cutnn")[0]


def _copy(model: Any) -> Any:
    return optree.tree_map(lambda leaf: leaf.copy(), model, namespace="cutnn")


def _all_finite(model: Any) -> bool:
    leaves = optree.tree_leaves(model, namespace="cutnn")
    return all(bool(namespace(leaf).isfinite(leaf).all()) for leaf in leaves)


def _columns(name: str, values: Evaluation) -> dict[str, float]:
    columns = {f"{name}_loss": values.loss}
    return columns if values.accuracy is None else columns | {f"{name}_accuracy": values.accuracy}


def _headline(row: dict[str, Any]) -> str:
    """The training loss, and the best that is known of validation."""
    shown = f"loss {row['train_loss']:.4g}"
    if "validation_accuracy" in row:
        return f"{shown}, validation {row['validation_accuracy']:.2%}"
    return f"{shown}, validation {row['validation_loss']:.4g}" if "validation_loss" in row else shown
