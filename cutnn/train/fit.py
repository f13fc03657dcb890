"""The training loop."""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optree

from cutnn.data import batches
from cutnn.device import device_of
from cutnn.nn import check_stability, prolong
from cutnn.optim import Optimizer
from cutnn.train._epoch import NotFinite, Step, train
from cutnn.train._folder import Folder
from cutnn.train._interrupts import Whole
from cutnn.train._progress import bar
from cutnn.train._run import FitResult, Run
from cutnn.train._settings import settings_of
from cutnn.train.checkpoint import latest_checkpoint
from cutnn.train.evaluation import batch, evaluate, first_leaf, place, real_dtype

__all__ = ["fit"]


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
    regularizer: Callable[[Any], Any] | None = None,
    refine: Mapping[int, int] | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    save_every: float = 30.0,
    keep: int = 3,
    progress: bool = True,
    capture: bool = False,
    callbacks: Iterable[Callable[[FitResult], bool | None]] = (),
) -> FitResult:
    """Train a model in place and return the best model by validation accuracy, with the history.

    `dataset` has `.train` and, unless it is None, `.validation`: splits with a length and `batch(indices)`,
    which returns (X, target), as those of `cutnn.data`. They move to the model's device first. Without
    accuracy (a loss that does not predict) the smallest validation loss decides, without validation the
    smallest training loss.

    `shuffle` draws a new order each epoch; "fixed" keeps the first one, as the authors' code does; False
    takes the data as they lie. A callback is called with the result so far after each epoch, and stops the
    run by returning True. `regularizer(model)` is added to the loss that is trained on, not to the one that
    is told. `refine={10: 2}` trains in many levels: after epoch 10 every time network is prolonged to 2 times its
    steps, the moments of the optimizer with it, and `result.final` is the deeper model.

    `checkpoint` is a folder for `history.csv`, after each epoch, `model.safetensors`, the best model, and the
    last `keep` checkpoints, one at the end of each epoch, on Ctrl-C, and every `save_every` seconds in between
    (0: at every step), or less often where that would take more than a twentieth of the time.
    A run that starts anew replaces those of an earlier one. With `resume=True` the run goes on from the newest
    checkpoint that can be read, to the same bits on the CPU as if it had never stopped; without one it begins,
    and files that cannot be read stay.
    A finished run, also one that a callback stopped, is read back, unless more epochs are asked for: they go on
    further. Other settings than those of the checkpoint are a `ResumeError`, a ValueError, that names them; of a
    function, as loss or regularizer, its name and the numbers it encloses are compared, not its body. A generator
    given as `seed` is to be in the state in which the run began.

    With `capture=True` the step is a captured one (`ct.capture`): the same run, to the same bits on the CPU, by replays
    of what its first step did; a short last batch, and a refined model, have recordings of their own. It is asked for,
    as a model or a loss that decides by values cannot be captured.

    Shapes, labels and the folder are tried out before the first step, and raise ValueError, TypeError and
    OSError then; `nn.check_stability` warns of time networks that are not stable. A loss that is not finite
    stops the training before its step; the GPU is asked every 64 steps only. Ctrl-C stops it too. Either way
    the result holds the history, the reason, and the best model so far.

    >>> import cutnn as ct
    >>> from cutnn import algebra, data, nn, optim
    >>> digits, star = data.load("digits"), algebra.dct(8)
    >>> model = nn.Sequential(nn.TLinear(star, 8, 8, ct.tanh, seed=0), nn.TLinear(star, 8, 10, seed=1))
    >>> optimizer = optim.Adam(model, lr=1e-2)
    >>> result = fit(model, nn.TubalCrossEntropy(star), digits, optimizer=optimizer, epochs=5)
    >>> result.history["validation_accuracy"][-1] > 0.9
    True
    """
    callbacks = list(callbacks)
    _check_settings(
        optimizer, model, epochs, batch_size, shuffle, refine, checkpoint, resume, save_every, keep
    )
    training, validation = _splits(model, dataset)
    _try_out(model, loss, {"training": training, "validation": validation}, regularizer, refine)
    settings = settings_of(model, loss, regularizer, optimizer, dataset, batch_size, shuffle, seed)
    run = Run(model, optimizer, epochs, seed, shuffle, refine, settings)
    result = run.result
    found = latest_checkpoint(checkpoint) if checkpoint is not None and resume else None
    if found:
        run.restore(found)
    if run.finished:
        return result
    check_stability(result.final)
    folder = None if checkpoint is None else Folder(checkpoint, run, keep, save_every, resume)
    whole = Whole()  # what Ctrl-C does not break
    steps = math.ceil(len(training) / batch_size)
    with whole.listening(), bar(progress, epochs, steps, run.done * steps + run.step) as display:

        def after_step() -> None:
            display.advance()
            if folder:
                folder.save_checkpoint_in_time(run)

        try:
            step = Step(result.final, loss, regularizer, training, optimizer, capture)
            goes_on = run.settled or _settle(run, folder, callbacks)
            while goes_on and run.done < epochs:
                number = run.done + 1
                with whole:
                    run.refine_before(number)
                    epoch = run.begin(number)
                if step.model is not result.final:
                    step = Step(result.final, loss, regularizer, training, optimizer, capture)
                display.start_epoch(number)
                visits = batches(len(training), batch_size, run.order, bool(shuffle), device=place(training))
                visits = itertools.islice(visits, epoch.step, None)
                train(epoch, step, visits, whole, after_step)
                trained, penalty = epoch.means(len(training), batch_size)
                validated = None if validation is None else evaluate(result.final, loss, validation)
                with whole:
                    run.complete(trained, penalty, validated)
                display.describe(_headline(result.history[-1]))
                goes_on = _settle(run, folder, callbacks)
        except NotFinite as error:
            kept = f"epoch {result.best_epoch}" if result.best_epoch else "before training"
            result.stopped = (
                f"{error}; the result keeps the model of {kept}. Try a smaller learning rate, or clip="
            )
            warnings.warn(f"training stopped: {result.stopped}", RuntimeWarning, stacklevel=2)
        except KeyboardInterrupt:
            if folder and not whole.broken:
                with contextlib.suppress(NotFinite):  # then the run that goes on will find it
                    folder.save_checkpoint(run)
            result.interrupted = True
            result.stopped = f"interrupted in epoch {len(result.history) + 1}"
    if folder and result.stopped and len(result.history):
        folder.save_history(result.history)  # an end in mid-epoch may have left its last row unwritten
    return result


def _settle(run: Run, folder: Folder | None, callbacks: list[Callable[[FitResult], bool | None]]) -> bool:
    """Files and callbacks after an epoch; whether the run goes on."""
    result = run.result
    if folder:
        if result.best_epoch == run.done:
            folder.save_model(result.model)
        folder.save_history(result.history)
    if any([callback(result) for callback in callbacks]):
        result.stopped = f"a callback stopped the training after epoch {run.done}"
    run.note_random()  # a callback may draw from the same generator
    run.settled = True
    if folder:
        folder.save_checkpoint(run)
    return result.stopped is None


# ------------------------------------------------------------------------------------------- before training


def _check_settings(
    optimizer: Optimizer, model: Any, epochs: int, batch_size: int, shuffle: bool | str,
    refine: Mapping[int, int] | None, checkpoint: Any, resume: bool, save_every: float, keep: int,
) -> None:  # fmt: skip
    if optimizer.model is not model:
        raise ValueError(
            "fit: the optimizer was made for another model; make it for this one, optim.Adam(model, …)"
        )
    if epochs < 1 or batch_size < 1 or keep < 1:
        raise ValueError(
            f"fit: epochs, batch_size and keep are at least 1, and are {epochs}, {batch_size} and {keep}"
        )
    if shuffle not in (True, False, "fixed"):
        raise ValueError(f'fit: shuffle is True, False or "fixed", not {shuffle!r}')
    if not save_every >= 0:
        raise ValueError(f"fit: save_every is a number of seconds from 0, not {save_every}")
    if resume and checkpoint is None:
        raise ValueError("fit: resume=True goes on from the folder that checkpoint= names, and there is none")
    for epoch, factor in (refine or {}).items():
        if not (1 <= epoch < epochs and factor >= 2):
            raise ValueError(
                f"fit: refine maps an epoch, from 1 to the last but one, to a factor from 2 on; {epoch}: {factor} "
                f"is no such pair in {epochs} epochs"
            )


def _splits(model: Any, dataset: Any) -> tuple[Any, Any]:
    """The training and validation splits, on the model's device."""
    splits = []
    for name in ("train", "validation"):
        split = getattr(dataset, name)
        if split is not None:
            if not len(split):
                raise ValueError(f"fit: the {name} split of the data is empty")
            if hasattr(split, "to_device"):
                split = split.to_device(device_of(first_leaf(model)))
        splits.append(split)
    if splits[0] is None:
        raise ValueError("fit: the data have no train split")
    return splits[0], splits[1]


def _try_out(
    model: Any,
    loss: Callable[..., Any],
    splits: dict[str, Any],
    regularizer: Callable[[Any], Any] | None,
    refine: Mapping[int, int] | None,
) -> None:
    """One image through model and loss, a look at all labels, the regulariser, and a refinement, before training."""
    if regularizer is not None and (shape := np.shape(regularizer(model))):
        raise ValueError(f"fit: a regularizer gives one number, not an array {shape}")
    if refine and _structure(prolong(model)) == _structure(model):
        raise ValueError(
            "fit: refine deepens networks of time steps, ResNet or HamiltonianNet; there is none"
        )
    for name, split in splits.items():
        if split is None:
            continue
        try:
            X, target = batch(split, [0], real_dtype(model))
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


# -------------------------------------------------------------------------------------------------- helpers


def _structure(model: Any) -> Any:
    return optree.tree_structure(model, namespace="cutnn")


def _headline(row: dict[str, Any]) -> str:
    """The training loss, and the best that is known of validation."""
    shown = f"loss {row['train_loss']:.4g}"
    if "validation_accuracy" in row:
        return f"{shown}, validation {row['validation_accuracy']:.2%}"
    return f"{shown}, validation {row['validation_loss']:.4g}" if "validation_loss" in row else shown
