"""Arrays in a few lines, and how one array that is wrong differs from the one that is right."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np

from cutnn.device import to_host

MOST_ENTRIES = 48  # of an array that is written out


def host(x: Any) -> np.ndarray:
    """An array or a number as a NumPy array."""
    return np.asarray(x) if isinstance(x, int | float | complex | np.generic) else to_host(x)


def literal(name: str, A: Any) -> str:
    """`name = ...`, to be pasted into Python where the array is small.

    >>> print(literal("A", np.array([[1.0, 0.0]], dtype="float32")))
    A = np.array([1, 0], dtype='float32').reshape(1, 2)
    """
    plain = host(A)
    kind = "" if plain.dtype.name == "float64" else f", dtype='{plain.dtype}'"
    if not plain.any():
        return f"{name} = np.zeros({plain.shape}{kind})"
    if plain.size > MOST_ENTRIES:
        sizes = np.abs(plain[np.nonzero(plain)])
        extent = f"of size {sizes.min():.2g} to {sizes.max():.2g}"
        return f"{name}: {plain.dtype} {plain.shape}, {extent}, begins {_row(plain.ravel()[:4])[:-1]}, ...]"
    if not plain.ndim:
        return f"{name} = {plain.item()}"
    kind = "" if plain.dtype.name == "complex128" else kind
    return f"{name} = np.array({_row(plain.ravel())}{kind}).reshape{_shape(plain.shape)}"


def _row(entries: np.ndarray) -> str:
    text = ", ".join(str(x).strip("()").removesuffix(".0") for x in entries + 0)
    return "[" + "\n        ".join(textwrap.wrap(text, 100)) + "]"


def _shape(shape: tuple[int, ...]) -> str:
    return str(shape) if len(shape) > 1 else f"({', '.join(map(str, shape))})"


def pattern(n: int, left: Any, right: Any, one: str = "left", other: str = "right") -> tuple[str, str]:
    """How one array that is wrong follows from the other, where a frequent fault explains it: its kind, and in words.

    n is the number of faces. ("", "") where nothing is recognised.

    >>> pattern(4, np.array([4.0, 8.0]), np.array([1.0, 2.0]))
    ('factor', 'left is 4 times right, which is n')
    """
    nothing = ("", "")
    if not hasattr(left, "shape") or not hasattr(right, "shape"):
        return nothing
    left, right = host(left), host(right)
    if (
        left.shape != right.shape
        or not right.any()
        or not np.isfinite(left).all()
        or not np.isfinite(right).all()
    ):
        return nothing
    close = _closer(right)
    if not left.any():
        return "zero", f"{one} is zero"
    if close(left, right.conj()):
        return "conjugate", f"{one} is the conjugate of {other}"
    if close(left, right.real):
        return "real part", f"{one} is the real part of {other}"
    factor = complex(np.vdot(right, left) / float(np.vdot(right, right).real))
    if close(left, factor * right):
        real = abs(factor.imag) < 1e-6 * abs(factor)
        said = f"{one} is {factor.real if real else factor:.6g} times {other}"
        known = {n: "n", 1 / n: "1 / n", math.sqrt(n): "√n", 1 / math.sqrt(n): "1 / √n"} if n > 1 else {}
        return "factor", next(
            (
                f"{said}, which is {name}"
                for value, name in known.items()
                if abs(factor - value) < 1e-5 * value
            ),
            said,
        )
    if left.ndim > 1 and left.shape[-1] == left.shape[-2] and close(left, np.swapaxes(right, -1, -2)):
        return "transpose", f"{one} is the transpose of {other}"
    if close(np.abs(left), np.abs(right)):
        return "phases", f"{one} has the magnitudes of {other}, with other signs or phases"
    return nothing


def _closer(right: np.ndarray) -> Any:
    slack = 1e-4 * float(np.max(np.abs(right), initial=0))
    return lambda x, y: bool(np.max(np.abs(x - y), initial=0) <= slack)
