"""Pytrees of arrays as safetensors files that appear whole or not at all, and tell when they are damaged."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optree

from cutnn.device import device_of, to_device, to_host
from cutnn.nn import Module

_CHECKSUM = re.compile(rb'"checksum":"([0-9a-f]{64})"')
_BLANK = b"0" * 64  # in place of the checksum when it is computed, so that it covers every byte
_DOMAIN = "in the transform domain"  # of a module whose weights are held there, after its path
_DAMAGED = "truncated or damaged: the checksum is not that of its bytes"


# --------------------------------------------------------------------------------------------- trees of arrays


def pack(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a pytree by their paths, as safetensors keeps them, M of each algebra in it, and where it is held.

    Raises ValueError where two paths read the same, TypeError for a dtype that safetensors does not know.
    """
    tensors = {name: _as_real(to_host(leaf)) for name, leaf in _leaves(tree).items()}
    for name, array in tensors.items():
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise TypeError(f"{name} is {array.dtype}, which a safetensors file cannot hold")
    return tensors | {name: _as_real(matrix) for name, matrix in _matrices(tree).items()} | _domains(tree)


def unpack(stored: dict[str, np.ndarray], tree: Any, source: str) -> Any:
    """A pytree of the structure of `tree`, on its devices, of arrays that `pack` gave; `source` is for errors.

    Raises ValueError where names, shapes, dtypes or the matrix of an algebra differ.
    """
    own, matrices, domains = _leaves(tree), _matrices(tree), _domains(tree)
    wanted = {*own, *matrices, *domains}
    held = {name for name in stored if name.endswith(_DOMAIN)}
    if held != domains.keys() and stored.keys() - held == wanted - domains.keys():
        name = min(held ^ domains.keys())
        raise ValueError(
            f"{source} holds {name.removesuffix(_DOMAIN) or 'the model'} in the "
            f"{'transform' if name in held else 'spatial'} domain, and the model in the other one; load it into a "
            "model of its own domain and bring that to the other by nn.in_domain"
        )
    if stored.keys() != wanted:
        raise ValueError(
            f"{source} is of another structure: "
            + "; ".join(
                f"it {verb} {', '.join(sorted(names)[:5])}{f' and {len(names) - 5} more' * (len(names) > 5)}"
                for verb, names in (("lacks", wanted - stored.keys()), ("also has", stored.keys() - wanted))
                if names
            )
        )
    for name, matrix in matrices.items():
        expected, found = _as_real(matrix), stored[name]
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-6, atol=1e-9):
            raise ValueError(
                f"{source} was saved with another transform than the model's {name}, which its weights fit. "
                "Make the model with the algebra of the file: algebra.from_matrix of that matrix"
            )
    arrays = []
    for name, leaf in own.items():
        array, expected = stored[name], _as_real(to_host(leaf))
        if array.shape != expected.shape or array.dtype != expected.dtype:
            raise ValueError(
                f"{source}: {name} is {array.dtype} of shape {array.shape}, the model's {expected.dtype} of "
                f"shape {expected.shape}"
            )
        array = array.reshape(-1).view(leaf.dtype.newbyteorder("<")).reshape(leaf.shape)
        arrays.append(to_device(np.require(array, requirements="W"), device_of(leaf)))
    return optree.tree_unflatten(optree.tree_structure(tree, namespace="cutnn"), arrays)


# ------------------------------------------------------------------------------------------------------- files


def write(path: str | Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """One safetensors file; its metadata hold a checksum of all its bytes, their own included."""
    # Not by the library's save, which holds all arrays twice more, 1.27 GB of memory for 0.63 GB; nor by its
    # save_file: the file is the owner's alone, and a full disk is no OSError.
    _safetensors()  # without which nobody could read it
    tensors = dict(
        sorted(tensors.items(), key=lambda item: -item[1].itemsize)
    )  # each on a multiple of its size
    parts = [array.reshape(-1).view(np.uint8).data for array in tensors.values()]
    header = _header(tensors, {"checksum": _BLANK.decode()} | metadata)
    digest = hashlib.sha256(header)
    for part in parts:
        digest.update(part)
    with atomic(path) as temporary, open(temporary, "wb") as file:
        file.write(header.replace(_BLANK, digest.hexdigest().encode(), 1))
        for part in parts:
            file.write(part)


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors and the metadata of a safetensors file; ValueError says what is wrong with it."""
    safetensors = _safetensors()
    data = Path(path).read_bytes()
    header = slice(8, 8 + int.from_bytes(data[:8], "little"))
    found = _CHECKSUM.search(data, header.start, min(header.stop, len(data)))
    if found:
        view, (start, stop) = memoryview(data), found.span(1)
        digest = hashlib.sha256(view[:start])
        digest.update(_BLANK)
        digest.update(view[stop:])
        if digest.hexdigest().encode() != found[1]:
            raise ValueError(_DAMAGED)
    try:
        tensors = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a dtype that NumPy lacks
        raise ValueError(f"truncated, or not a file that cutnn wrote ({error})") from error
    metadata = json.loads(data[header]).get("__metadata__", {})
    if "checksum" in metadata and not found:
        raise ValueError(_DAMAGED)
    return dict(sorted(tensors.items())), metadata  # whose order in the file is by chance


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[str]:
    """A temporary file beside `path` to write to, which replaces it at the end, unless an error came.

    What was written is on the disk before it does, and the new name before this returns.
    """
    path = Path(path)
    # Not by tempfile.mkstemp, whose files are their owner's alone.
    temporary = str(path.with_name(f".{path.name}.{secrets.token_hex(8)}"))
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def leftovers(folder: Path) -> list[Path]:
    """The temporary files of writes that a kill cut short."""
    return [path for path in folder.glob(".*") if re.fullmatch(r"\..+\.[0-9a-f]{16}", path.name)]


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


def plain(x: Any) -> Any:
    """NumPy's numbers and arrays as Python's, for JSON."""
    if hasattr(x, "tolist"):
        return x.tolist()
    raise TypeError(f"a checkpoint's state holds what JSON can say, and no {type(x).__name__}")


# -------------------------------------------------------------------------------------------------- helpers


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError(
            "models are saved with safetensors, which is missing: pip install safetensors"
        ) from None
    return safetensors


def _header(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """What a safetensors file begins with: its own length, then as JSON where each array lies behind it."""
    entries: dict[str, Any] = {"__metadata__": metadata}
    stop = 0
    for name, array in tensors.items():
        start, stop = stop, stop + array.nbytes
        kind = "BOOL" if array.dtype.kind == "b" else f"{array.dtype.kind.upper()}{8 * array.itemsize}"
        entries[name] = {"dtype": kind, "shape": array.shape, "data_offsets": (start, stop)}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _leaves(tree: Any) -> dict[str, Any]:
    paths, leaves, _ = optree.tree_flatten_with_path(tree, namespace="cutnn")
    named = {".".join(map(str, path)) or "value": leaf for path, leaf in zip(paths, leaves, strict=True)}
    if len(named) < len(leaves):
        raise ValueError("two arrays have the same path, since a key has a dot in it; rename that key")
    return named


def _matrices(tree: Any) -> dict[str, np.ndarray]:
    """The constant M of each algebra in the modules, under its first path: the transform of the unit tubes."""
    found: dict[int, tuple[str, Any]] = {}
    for path, module in _modules("", tree):
        for field in dataclasses.fields(module):  # type: ignore[arg-type]
            star = getattr(module, field.name)
            if not (hasattr(star, "forward") and hasattr(star, "inverse") and tuple(star.shape)):
                continue
            if all(t.constant for t in getattr(star, "transforms", ())):  # a learned M is a leaf of the model
                found.setdefault(id(star), (f"{path}{field.name}.matrix", star))
    matrices = {}
    for name, star in found.values():
        size = math.prod(star.shape)
        columns = star.forward(np.eye(size).reshape(*star.shape, 1, size))
        matrices[name] = columns.reshape(-1, size)
    return matrices


def _domains(tree: Any) -> dict[str, np.ndarray]:
    """An entry for each module that holds its weights as transforms: they have the shapes of those of many another."""
    return {
        path + _DOMAIN: np.ones(1, np.uint8)
        for path, module in _modules("", tree)
        if getattr(module, "domain", "spatial") == "transform"
    }


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
    """x, contiguous, little-endian, its complex numbers as pairs on a last axis; bit for bit."""
    x = np.asarray(x)
    x = np.asarray(x, dtype=x.dtype.newbyteorder("<"), order="C")
    return x.reshape(-1).view(x.real.dtype).reshape(*x.shape, 2) if x.dtype.kind == "c" else x
