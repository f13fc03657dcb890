"""Gradients against central finite differences, of first and higher order, real and complex.

The pullback of f is compared with differences of f itself in random directions: nothing of the tape is
trusted. For the second order the pullback is taken as the function, and differentiated with respect to the
arguments and to the cotangent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optree

from cutnn.tape import vjp


def check(
    f: Callable[..., Any], *args: Any, order: int = 2, rtol: float = 2e-6, step: float = 1e-5, seed: int = 0
) -> None:
    """Assert that the derivatives of f at `args` are right up to `order`.

    `args` are float64 or complex128 arrays or pytrees of them; f returns an array or a pytree of arrays.
    Gradients must have the dtype and shape of their arguments.
    """
    rng = np.random.default_rng(seed)
    args = _map(np.asarray, args)
    for a in _leaves(args):
        assert a.dtype in (np.float64, np.complex128), f"check needs double precision, not {a.dtype}"
    for n in range(1, order + 1):
        args = _check(f, args, f"derivative {n}", rtol, step, rng)
        f = _pullback(f)


def _check(f: Any, args: Any, what: str, rtol: float, step: float, rng: np.random.Generator) -> Any:
    """Check the first derivative; return the arguments for the pullback: a cotangent and `args`."""
    value, pullback = vjp(f, *args)
    cotangent = _random_like(value, rng)
    gradients = pullback(cotangent)
    for a, g in zip(_leaves(args), _leaves(gradients), strict=True):
        assert isinstance(g, np.ndarray), f"{what}: a gradient is a {type(g).__name__}"
        assert (g.shape, g.dtype) == (a.shape, a.dtype), (
            f"{what}: a gradient of {g.shape} {g.dtype} for {a.shape} {a.dtype}"
        )
    directions = _random_like(args, rng)
    ahead = f(*_map(lambda a, v: a + step * v, args, directions))
    behind = f(*_map(lambda a, v: a - step * v, args, directions))
    difference = _map(lambda p, m: (p - m) / (2 * step), ahead, behind)
    expected, scale = _inner(cotangent, difference)
    got, _ = _inner(gradients, directions)
    assert np.isfinite(got), f"{what} is not finite: {gradients}"
    assert abs(got - expected) <= rtol * scale + 100 * step**2, f"{what} is {got}, by differences {expected}"
    return (cotangent, *args)


def _pullback(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda cotangent, *args: vjp(f, *args)[1](cotangent)


def _map(f: Callable[..., Any], *trees: Any) -> Any:
    return optree.tree_map(f, *trees, namespace="cutnn")


def _leaves(tree: Any) -> list[Any]:
    return optree.tree_leaves(tree, namespace="cutnn")


def _random_like(tree: Any, rng: np.random.Generator) -> Any:
    def draw(x: Any) -> Any:
        z = rng.standard_normal(x.shape)
        return np.asarray(z + 1j * rng.standard_normal(x.shape) if x.dtype.kind == "c" else z)

    return _map(draw, tree)


def _inner(a: Any, b: Any) -> tuple[float, float]:
    """The real inner product of two trees of arrays, and the sum of the magnitudes of its terms."""
    terms = [np.conj(x) * y for x, y in zip(_leaves(a), _leaves(b), strict=True)]
    return sum(float(np.sum(t.real)) for t in terms), sum(float(np.sum(np.abs(t))) for t in terms)
