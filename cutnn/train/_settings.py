"""The settings of a run, in words that can be kept and compared: a run goes on under its own settings only."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import itertools
import json
import re
from numbers import Number
from typing import Any

import numpy as np

from cutnn.nn import Module
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


def _words(x: Any, depth: int = 4) -> str | None:
    """The repr without addresses, which differ from process to process, and with the settings that it leaves out.

    These are the attributes of a class without a repr and what a function encloses, as far as they are numbers,
    texts, arrays or functions again: a log or a file decides nothing. The bodies of functions are not told.
    """
    if x is None:
        return None
    if isinstance(x, dict):
        return f"{{{', '.join(f'{key!r}: {_words(part, depth)}' for key, part in x.items())}}}"
    if isinstance(x, tuple):
        return f"({', '.join(str(_words(part, depth)) for part in x)})"
    with np.printoptions(floatmode="unique", threshold=10_000):
        text = re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(x))
    if isinstance(x, (Module, type)) or not depth:
        return text
    if dataclasses.is_dataclass(x):
        fields = (field.name for field in dataclasses.fields(x) if field.repr)
        inside = ", ".join(f"{name}={_words(getattr(x, name), depth - 1)}" for name in fields)
        return f"{type(x).__qualname__}({inside})"
    if inspect.isfunction(x):
        found = inspect.getclosurevars(x).nonlocals
    else:
        found = vars(x) if text.startswith("<") and hasattr(x, "__dict__") else {}
    kinds = (Number, str, tuple, type(None))
    told = {
        n: v
        for n, v in found.items()
        if n[0] != "_" and (isinstance(v, kinds) or hasattr(v, "dtype") or callable(v))
    }
    inside = ", ".join(f"{name}={_words(value, depth - 1)}" for name, value in told.items())
    return f"{text}({inside})" if told else text


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
