"""Slopes whose activation is still to be computed: an integrator's update computes it along, in one kernel each way."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from cutnn.array.fused import fuse, is_elementwise

__all__ = ["Slope", "activated", "value", "with_slope"]

Activation = Callable[[Any], Any]


class Slope(NamedTuple):
    """σ(S + B), or its negative: the derivative in time of a block, before it is computed."""

    S: Any
    B: Any = None
    activation: Activation | None = None
    negative: bool = False


def activated(S: Any, B: Any, activation: Activation | None) -> Any:
    """σ(S + B), in one kernel; B and σ may be None.

    >>> import numpy as np
    >>> activated(np.zeros((2, 3)), np.ones((2, 1)), np.square)
    array([[1., 1., 1.],
           [1., 1., 1.]])
    """
    if activation is None:
        return S if B is None else S + B
    return activation(S) if B is None else _chain(_itself, activation)(S, B, False)


def value(slope: Any) -> Any:
    """The slope, computed where it is not yet."""
    if type(slope) is not Slope:
        return slope
    found = activated(slope.S, slope.B, slope.activation)
    return -found if slope.negative else found


def with_slope(formula: Callable[..., Any], slope: Any, *args: Any) -> Any:
    """formula(slope, *args), elementwise, in one kernel with the activation where the slope still awaits it.

    >>> import numpy as np
    >>> with_slope(lambda slope, Y, h: Y + h * slope, Slope(np.zeros(2), None, np.cos, negative=True), np.ones(2), 0.5)
    array([0.5, 0.5])
    """
    if type(slope) is not Slope:
        return _chain(formula, None)(slope, None, False, *args)
    return _chain(formula, slope.activation)(slope.S, slope.B, slope.negative, *args)


def _itself(slope: Any) -> Any:
    return slope


@functools.lru_cache(maxsize=256)
def _chain(formula: Callable[..., Any], activation: Activation | None) -> Callable[..., Any]:
    """formula(±σ(S + B), *args), fused where σ is known to be a function of its argument alone."""

    def chain(S: Any, B: Any, negative: bool, *args: Any) -> Any:
        slope = S if B is None else S + B
        slope = slope if activation is None else activation(slope)
        return formula(-slope if negative else slope, *args)

    chain.__name__ = " and ".join(
        [getattr(f, "__name__", "?").strip("_") for f in (activation, formula) if f]
    )
    return fuse(chain) if activation is None or is_elementwise(activation) else chain
