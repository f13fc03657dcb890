"""How weights start. An initialiser draws (weight, bias) on the host, as float64, from a NumPy generator.

`initializer(star, n_in, n_out, rng)` returns arrays of shapes (*star.shape, n_out, n_in) and
(*star.shape, n_out, 1). A layer draws its weight first and then its bias, and converts both to its dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["Initializer", "authors", "transform_aware"]

Initializer = Callable[[Any, int, int, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def transform_aware(
    star: Any, n_in: int, n_out: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The default: each face of Ŵ has the variance of a dense layer's weight, 1 / (3 n_in), for any M.

    Entries are uniform in ±1/√n_in (PyTorch's choice for a dense layer), and then each face of their
    transform is divided by the norm of its row of M: face k of M ×₃ W sums n independent entries with weights
    M[k, :], which multiplies their variance by ‖M[k, :]‖². For M = c · unitary that is W/c, still uniform.
    The output of a layer then has 1/√3 = 0.58 of its input's standard deviation, as a dense layer's has,
    whatever n is. The bias is uniform in ±1/√n_in.

    >>> from cutnn import algebra
    >>> weight, bias = transform_aware(algebra.dct(4), 3, 2, np.random.default_rng(0))
    >>> weight.shape, bias.shape
    ((4, 2, 3), (4, 2, 1))
    """
    weight, bias = _uniform(star, n_in, n_out, rng, 1 / math.sqrt(n_in))
    rows = _row_norms(star)
    if np.ptp(rows) <= 1e-12 * rows.max():
        return weight / rows.flat[0], bias
    return star.inverse(star.forward(weight) / rows), bias


def authors(star: Any, n_in: int, n_out: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Uniform in ±1/√(n_in · n), weight and bias, as the code of Newman et al. (2024) has it.

    √n smaller than `transform_aware` for orthogonal M: a layer's output has 0.58/√n of its input's deviation.
    """
    return _uniform(star, n_in, n_out, rng, 1 / math.sqrt(n_in * math.prod(star.shape)))


# -------------------------------------------------------------------------------------------------- helpers


def _uniform(
    star: Any, n_in: int, n_out: int, rng: np.random.Generator, bound: float
) -> tuple[np.ndarray, np.ndarray]:
    shape = tuple(star.shape)
    return rng.uniform(-bound, bound, (*shape, n_out, n_in)), rng.uniform(-bound, bound, (*shape, n_out, 1))


def _row_norms(star: Any) -> np.ndarray:
    """‖M[k, :]‖ for each face k of the transform domain, as an array that broadcasts over faces."""
    shape = tuple(star.shape)
    size = math.prod(shape)
    columns = star.forward(np.eye(size).reshape(*shape, 1, size))  # the transforms of the unit tubes
    return np.sqrt(np.sum(np.abs(columns) ** 2, axis=-1, keepdims=True))
