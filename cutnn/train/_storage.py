"""Models on disk, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optree

from cutnn.device import device_of, to_device, to_host
from cutnn.nn import Module

__all__ = ["load_model", "save_model"]


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
    save = _safetensors().numpy.save
    tensors = {name: _as_real(to_host(leaf)) for name, leaf in _leaves(model).items()}
    tensors |= {name: _as_real(matrix) for name, matrix in _matrices(model).items()}
    with atomic(path) as temporary:
        # Not by save_file: its file is the owner's alone, and a full disk is no OSError.
        Path(temporary).write_bytes(save(tensors, {"format": "cutnn 1", "model": repr(model)}))


def load_model(path: str | Path, model: Any) -> Any:
    """A model of the structure of `model`, with the arrays of a file that `save_model` wrote.

    The arrays go to the devices of the model's own. Raises ValueError for a damaged file and where names,
    shapes, dtypes or the matrix of an algebra differ, FileNotFoundError, and ImportError without safetensors.
    """
    safetensors = _safetensors()
    try:
        stored = safetensors.numpy.load_file(os.fspath(path))
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is truncated, or no file that train.save_model wrote ({error}); save the model again"
        ) from error
    own = _leaves(model)
    matrices = _matrices(model)
    if stored.keys() != {*own, *matrices}:
        raise ValueError(
            f"{path} holds {', '.join(sorted(stored))}; this model has {', '.join(sorted({*own, *matrices}))}"
        )
    for name, matrix in matrices.items():
        expected = _as_real(matrix)
        found = stored[name]
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-6, atol=1e-9):
            raise ValueError(
                f"{path} was saved with another transform than the model's {name}, which its weights fit. "
                "Make the model with the algebra of the file: algebra.from_matrix of that matrix"
            )
    arrays = []
    for name, leaf in own.items():
        array, expected = stored[name], _as_real(to_host(leaf))
        if array.shape != expected.shape or array.dtype != expected.dtype:
            raise ValueError(
                f"{path}: {name} is {array.dtype} of shape {array.shape}, the model's {expected.dtype} of "
                f"shape {expected.shape}"
            )
        if leaf.dtype.kind == "c":
            array = array[..., 0] + array[..., 1] * np.asarray(1j, leaf.dtype)
        arrays.append(to_device(array, device_of(leaf)))
    return optree.tree_unflatten(optree.tree_structure(model, namespace="cutnn"), arrays)


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[str]:
    """A temporary file beside `path` to write to, which replaces it at the end, unless an error came."""
    path = Path(path)
    # Not by tempfile.mkstemp, whose files are their owner's alone.
    temporary = str(path.with_name(f".{path.name}.{secrets.token_hex(8)}"))
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def writable_folder(path: str | Path) -> Path:
    """The folder, made where it was missing; OSError says why nothing can be written there."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise type(error)(
            error.errno, f"cannot write to {folder} ({reason}); give checkpoint= a folder that can be written"
        ) from None
    return folder


# -------------------------------------------------------------------------------------------------- helpers


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError(
            "models are saved with safetensors, which is missing: pip install safetensors"
        ) from None
    return safetensors


def _leaves(model: Any) -> dict[str, Any]:
    paths, leaves, _ = optree.tree_flatten_with_path(model, namespace="cutnn")
    return {".".join(map(str, path)) or "value": leaf for path, leaf in zip(paths, leaves, strict=True)}


def _matrices(model: Any) -> dict[str, np.ndarray]:
    """M of each algebra in the model, under its first path: the transform of the unit tubes."""
    found: dict[int, tuple[str, Any]] = {}
    for path, module in _modules("", model):
        for field in dataclasses.fields(module):  # type: ignore[arg-type]
            star = getattr(module, field.name)
            if hasattr(star, "forward") and hasattr(star, "inverse") and tuple(star.shape):
                found.setdefault(id(star), (f"{path}{field.name}.matrix", star))
    matrices = {}
    for name, star in found.values():
        size = math.prod(star.shape)
        columns = star.forward(np.eye(size).reshape(*star.shape, 1, size))
        matrices[name] = columns.reshape(-1, size)
    return matrices


def _modules(path: str, tree: Any) -> Iterator[tuple[str, Module]]:
    if isinstance(tree, Module):
        yield path, tree
        parts = [(field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree)]  # type: ignore[arg-type]
    elif isinstance(tree, (tuple, list)):
        parts = [(str(i), part) for i, part in enumerate(tree)]
    elif isinstance(tree, dict):
        parts = [(str(key), part) for key, part in tree.items()]
    else:
        return
    for name, part in parts:
        yield from _modules(f"{path}{name}.", part)


def _as_real(x: np.ndarray) -> np.ndarray:
    """x, its complex numbers as pairs on a last axis, contiguous."""
    return np.ascontiguousarray(np.stack([x.real, x.imag], axis=-1) if x.dtype.kind == "c" else x)
