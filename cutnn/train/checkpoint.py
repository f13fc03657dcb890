"""Models and checkpoints on disk: safetensors files, written whole or not at all, that tell when they are damaged.

Nothing in them is executed: there is no pickle.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cutnn.train._storage import pack, plain, read, unpack, write

__all__ = [
    "Checkpoint",
    "latest_checkpoint",
    "load_checkpoint",
    "load_model",
    "save_checkpoint",
    "save_model",
]

_FORMAT = "cutnn checkpoint 1"
_NAME = re.compile(r"checkpoint-(\d{6,})-(\d{6,})\.safetensors")


def save_model(path: str | Path, model: Any) -> None:
    """Write a model's arrays, and the matrix M of each of its algebras, as one safetensors file.

    Names are paths, such as `layers.0.weight`. Raises ImportError without safetensors, OSError where the file
    cannot be written; then a file that was there stays.

    >>> import pathlib, tempfile
    >>> from cutnn import nn
    >>> model = nn.Dense(3, 2, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "model.safetensors"
    ...     save_model(path, model)
    ...     again = load_model(path, nn.Dense(3, 2, seed=1))
    >>> np.array_equal(again.weight, model.weight)
    True
    """
    write(path, pack(model), {"format": "cutnn 1", "model": repr(model)})


def load_model(path: str | Path, model: Any) -> Any:
    """A model of the structure of `model`, with the arrays of a file that `save_model` wrote.

    The arrays go to the devices of the model's own. Raises ValueError for a damaged file and where names,
    shapes, dtypes or the matrix of an algebra differ, FileNotFoundError, and ImportError without safetensors.
    """
    try:
        stored, _ = read(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}; save the model again") from error
    return unpack(stored, model, str(path))


@dataclass(frozen=True)
class Checkpoint:
    """A training run at one moment: after `epoch` epochs and `step` steps of the next.

    `arrays` holds every array by the name of its tree and its path in it, `model.layers.0.weight` say, complex ones
    as pairs of real numbers on a last axis; `state` is what was saved beside them.
    """

    path: Path
    epoch: int
    step: int
    arrays: dict[str, np.ndarray]
    state: dict[str, Any]

    def tree(self, name: str, like: Any) -> Any:
        """The tree that was saved as `name`, in the structure and on the devices of `like`.

        Raises ValueError where structure, shapes, dtypes or the matrix of an algebra differ.
        """
        prefix = f"{name}."
        stored = {key.removeprefix(prefix): a for key, a in self.arrays.items() if key.startswith(prefix)}
        return unpack(stored, like, f"{self.path}: {name}")


def save_checkpoint(
    folder: str | Path,
    trees: Mapping[str, Any],
    state: Mapping[str, Any] | None = None,
    *,
    epoch: int,
    step: int = 0,
    keep: int = 3,
) -> Path:
    """Write pytrees of arrays as one file, `checkpoint-000003-000512.safetensors`, and keep the last `keep` files.

    With a model goes the matrix M of each of its algebras; `state` is anything that JSON can say. The file is
    written beside its place, synced, checksummed and renamed. `train.fit` does all this by itself; for a loop of
    your own:

    >>> import tempfile
    >>> from cutnn import nn, optim
    >>> model, rng = nn.Dense(3, 2, seed=0), np.random.default_rng(0)
    >>> optimizer, folder = optim.Adam(model), tempfile.TemporaryDirectory()
    >>> trees = {"model": model, "optimizer": optimizer.state()}
    >>> path = save_checkpoint(folder.name, trees, {"random": rng.bit_generator.state}, epoch=3)
    >>> found = latest_checkpoint(folder.name)
    >>> model = found.tree("model", model)
    >>> rng.bit_generator.state = found.state["random"]
    >>> found.path.name, found.epoch
    ('checkpoint-000003-000000.safetensors', 3)
    >>> folder.cleanup()

    Raises OSError where it cannot be written, ValueError for `keep` below 1 and for paths that read the same,
    TypeError for what JSON or safetensors cannot hold, ImportError without safetensors.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, and is {keep}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"checkpoint-{epoch:06d}-{step:06d}.safetensors"
    tensors = {f"{name}.{key}": array for name, tree in trees.items() for key, array in pack(tree).items()}
    text = json.dumps(dict(state or {}), default=plain)
    write(path, tensors, {"format": _FORMAT, "epoch": str(epoch), "step": str(step), "state": text})
    earlier = [old for old in checkpoints(folder) if _position(old) <= (epoch, step) and old.is_file()]
    for old in earlier[:-keep]:
        old.unlink()
    return path


def load_checkpoint(path: str | Path) -> Checkpoint:
    """The checkpoint in a file. Raises ValueError for a damaged or foreign file, with the reason, and OSError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_checkpoint(folder, {"weights": [np.ones(2), np.zeros(1)]}, epoch=1, step=7)
    ...     found = load_checkpoint(path)
    >>> found.step, found.arrays
    (7, {'weights.0': array([1., 1.]), 'weights.1': array([0.])})
    """
    path = Path(path)
    try:
        arrays, metadata = read(path)
        found = metadata.get("format", "none")
        if found != _FORMAT:
            raise ValueError(f"not a checkpoint: its format is {found!r}, and not {_FORMAT!r}")
        if "checksum" not in metadata:
            raise ValueError("damaged: its checksum is missing")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Checkpoint(
        path, int(metadata["epoch"]), int(metadata["step"]), arrays, json.loads(metadata["state"])
    )


def latest_checkpoint(folder: str | Path) -> Checkpoint | None:
    """The newest checkpoint of a folder that can be read, or None; a warning names each file passed over, and why.

    >>> latest_checkpoint("no such folder") is None
    True
    """
    for path in reversed(checkpoints(Path(folder))):
        try:
            return load_checkpoint(path)
        except (ValueError, OSError) as error:
            warnings.warn(f"a checkpoint is passed over: {error}", RuntimeWarning, stacklevel=2)
    return None


# -------------------------------------------------------------------------------------------------- helpers


def checkpoints(folder: Path) -> list[Path]:
    """What is named as a checkpoint in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_position)


def _position(path: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(path.name)
    assert match
    return int(match[1]), int(match[2])
