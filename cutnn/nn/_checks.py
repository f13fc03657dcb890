"""What layers and networks check alike: the settings they are made with, and the input they receive."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

__all__ = ["check_counts", "check_input", "check_settings"]

_DTYPES = ("float32", "float64", "complex64", "complex128")


def check_settings(who: str, star: Any, activation: Any, dtype: Any) -> np.dtype:
    """The dtype; TypeError where one of these is not what its name says."""
    if not hasattr(star, "forward"):
        raise TypeError(f"{who}: the first argument is an algebra, algebra.dct(28) say")
    if activation is not None and not callable(activation):
        raise TypeError(
            f"{who}: the activation is a function of an array, ct.tanh say, or None, not {activation!r}"
        )
    dtype = np.dtype(dtype)
    if dtype.name not in _DTYPES:
        raise TypeError(f"{who}: dtype is one of {', '.join(_DTYPES)}, not {dtype}")
    return dtype


def check_counts(who: str, **counts: Any) -> None:
    """Raise where a count, by its name, is not an integer (TypeError) of at least 1 (ValueError)."""
    for name, count in counts.items():
        try:
            operator.index(count)
        except TypeError:
            raise TypeError(f"{who}: {name} must be an integer, and is {count!r}") from None
        if count < 1:
            raise ValueError(f"{who}: {name} must be at least 1, and is {count}")


def check_input(module: Any, X: Any, rows: int, dtype: Any, mixed: bool = False, hint: str = "") -> None:
    """Raise where X is not `(…, *star.shape, rows, N)` of the dtype; the message says what would fit.

    `mixed` allows a real X with complex weights, and the reverse; the hint goes with shapes that do not fit.
    """
    if not hasattr(X, "shape"):
        raise TypeError(f"{type(module).__name__} takes an array, and received a {type(X).__name__}")
    tubes, shape = tuple(module.star.shape), tuple(X.shape)
    fitting = (*tubes, rows)
    if shape[-1 - len(fitting) : -1] != fitting:
        wanted = ", ".join(map(str, (*fitting, "N")))
        if tubes and shape[1:] == fitting[::-1]:
            hint = "This looks like a batch of images, samples first: data.to_tensor turns it"
        elif not tubes and len(shape) > 2:
            hint = "nn.Unfold() before it turns a tensor into a matrix"
        raise ValueError(
            f"{_name(module)} received shape {shape}; what fits is ({wanted}): "
            + ("tube axes, rows, N samples" if tubes else "rows, N samples")
            + (f". {hint}" if hint else "")
        )
    if X.dtype != dtype and not (mixed and _same_precision(X.dtype, dtype)):
        other = np.dtype(X.dtype)
        possible = other.name in _DTYPES and (module.star.real_products or other.kind == "c")
        raise TypeError(
            f"{_name(module)} has weights of {dtype} and received {X.dtype}; convert the input with "
            f"ct.astype(X, ct.{dtype})" + (f", or make it with dtype=ct.{X.dtype}" if possible else "")
        )


# -------------------------------------------------------------------------------------------------- helpers


def _name(module: Any) -> str:
    return f"{type(module).__name__}({module._summary()})"


def _same_precision(a: Any, b: Any) -> bool:
    """Whether one of two float dtypes is the complex form of the other."""
    return {a, b} in ({np.dtype("f4"), np.dtype("c8")}, {np.dtype("f8"), np.dtype("c16")})
