"""The settings of a run, in words that can be kept and compared: a run goes on under its own settings only."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from typing import Any

import numpy as np

from cutnn.optim import Optimizer
from cutnn.train._storage import plain


class ResumeError(ValueError):
    """A checkpoint that a run cannot go on from: it was made under other settings, or not by `fit`."""


def settings_of(
    model: Any,
    loss: Any,
    regularizer: Any,
    optimizer: Optimizer,
    dataset: Any,
    batch_size: int,
    shuffle: bool | str,
    seed: Any,
) -> dict[str, Any]:
    """By name, all that decides the bits of a run and can be told; before the first step."""
    splits = {"train": dataset.train, "validation": dataset.validation}
    numbers = {"lr": "a schedule", **optimizer.settings}
    return json.loads(
        json.dumps(
            {
                "model": _words(model),
                "loss": _words(loss),
                "regularizer": _words(regularizer),
                "optimizer": type(optimizer).__name__,
                **{f"optimizer.{name}": value for name, value in numbers.items()},
                "dataset": getattr(dataset, "name", None),
                **{f"samples of {name}": None if s is None else len(s) for name, s in splits.items()},
                "batch_size": batch_size,
                "shuffle": shuffle,
                "seed": _seed(seed),
            },
            default=plain,
        )
    )


def check_same(path: Any, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ResumeError with each setting that differs from those of a checkpoint."""
    differences = [
        f"{name} was {old}, and is {new}"
        for name in now | then
        if then.get(name) != now.get(name)
        for old, new in [_apart(then.get(name), now.get(name))]
    ]
    if differences:
        raise ResumeError(
            f"fit: {path} is of a run with other settings: {'; '.join(differences)}. Resume with those, or begin "
            "anew with resume=False or another folder for checkpoint="
        )


# -------------------------------------------------------------------------------------------------- helpers


def _words(x: Any) -> str | None:
    """The repr without addresses, which differ from process to process."""
    return None if x is None else re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(x))


def _seed(seed: Any) -> Any:
    if seed is None or isinstance(seed, (int, np.integer)):
        return seed
    state = np.random.default_rng(seed).bit_generator.state  # of a generator: its own state
    digest = hashlib.sha256(json.dumps(state, default=plain).encode()).hexdigest()
    return f"a {state['bit_generator']} in state {digest[:12]}"


def _apart(old: Any, new: Any) -> tuple[str, str]:
    """Two values as they are told apart: of texts with many lines, the first that differ."""
    if isinstance(old, str) and isinstance(new, str):
        for a, b in itertools.zip_longest(old.splitlines(), new.splitlines(), fillvalue="no more"):
            if a != b:
                return a.strip(), b.strip()
    return str(old), str(new)
