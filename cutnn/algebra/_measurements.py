"""Linear measurements y = 𝒜(X) of a tensor, by a matrix or by two functions, and projections onto what they leave open.

With G = 𝒜𝒜ᴴ the nearest tensor to V with 𝒜(Z) = y is V + 𝒜ᴴ(G⁻¹ r), r = y - 𝒜(V). The nearest with
‖𝒜(Z) - y‖ ≤ δ is V + 𝒜ᴴ(x q), q = (I + x G)⁻¹ r, with the x ≥ 0 for which ‖q‖ = δ; 1/‖q‖ is concave in x, so that
Newton's method for 1/‖q‖ = 1/δ goes to it from below (Reinsch, Numerische Mathematik 16 (1971)).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cutnn.device import namespace


class Measurements:
    """𝒜 and its adjoint; `solve(r, x)` gives (I + x G)⁻¹ r, and G⁺ r, as far as that goes, for x infinite."""

    measure: Callable[[Any], Any]
    adjoint: Callable[[Any], Any]
    y: Any

    def solve(self, r: Any, x: float) -> Any:
        raise NotImplementedError

    def projection(self, y: Any, noise: float) -> Callable[[Any], Any]:
        """V -> the nearest Z with ‖𝒜(Z) - y‖ ≤ noise."""
        last = 0.0

        def project(V: Any) -> Any:
            nonlocal last
            r = y - self.measure(V)
            if noise == 0:
                return V + self.adjoint(self.solve(r, math.inf))
            if norm(r) <= noise:
                return V
            last, q = self._multiplier(r, noise, last)
            return V + self.adjoint(last * q)

        return project

    def _multiplier(self, r: Any, noise: float, x: float) -> tuple[float, Any]:
        for _ in range(50):
            q = self.solve(r, x)
            size = norm(q)
            if abs(size - noise) <= 1e-10 * noise:
                break
            # The derivative of ‖q‖² = rᴴ (I + x G)⁻² r by x is -2 qᴴ (I + x G)⁻¹ G q.
            slope = inner(self.solve(q, x), self.measure(self.adjoint(q))) / size**3
            change = (1 / noise - 1 / size) / slope if slope > 0 else 0.0
            if abs(change) <= 1e-10 * x or change == 0:
                break
            x = max(x + change, 0.0)
        return x, q


class ByMatrix(Measurements):
    """𝒜 = Φ, (p, N), on the entries of a tensor in the order that they lie in."""

    def __init__(self, Phi: Any, y: Any, shape: tuple[int, ...]) -> None:
        xp = namespace(Phi, y)
        self.Phi, self.y = Phi, y
        self.measure = lambda X: Phi @ X.reshape(-1)
        self.adjoint = lambda y: (Phi.conj().T @ y).reshape(shape)
        values, self._Q = xp.linalg.eigh(Phi @ Phi.conj().T)
        self._values = xp.maximum(values, 0)
        kept = values > len(values) * float(np.finfo(Phi.dtype).eps) * xp.max(xp.abs(values))
        self._inverse = xp.where(kept, 1 / xp.where(kept, values, 1), 0)

    def solve(self, r: Any, x: float) -> Any:
        weights = self._inverse if math.isinf(x) else 1 / (1 + x * self._values)
        return self._Q @ (weights * (self._Q.conj().T @ r))


class ByFunctions(Measurements):
    """𝒜 and its adjoint as they were given; G is inverted by conjugate gradients."""

    def __init__(self, measure: Callable[[Any], Any], adjoint: Callable[[Any], Any], y: Any) -> None:
        self.measure, self.adjoint, self.y = measure, adjoint, y
        self._small = 10 * float(np.finfo(y.dtype).eps)
        self._most = 200

    def solve(self, r: Any, x: float) -> Any:
        def apply(p: Any) -> Any:
            image = self.measure(self.adjoint(p))
            return image if math.isinf(x) else p + x * image

        solution, p, rest = 0 * r, r, inner(r, r)
        stop = self._small**2 * max(rest, inner(self.y, self.y))
        for _ in range(self._most):
            if rest <= stop:
                break
            image = apply(p)
            length = rest / inner(p, image)
            solution = solution + length * p
            r = r - length * image
            rest, before = inner(r, r), rest
            p = r + (rest / before) * p
        return solution


def inner(a: Any, b: Any) -> float:
    """Re ⟨a, b⟩, on the host."""
    return float(namespace(a).sum((a.conj() * b).real))


def norm(a: Any) -> float:
    return math.sqrt(inner(a, a))


def measurements_of(
    y: Any, measure: Any, adjoint: Callable[[Any], Any] | None, shape: tuple[int, ...], dtype: Any
) -> Measurements:
    """What the user gave, checked: of the wanted dtype, finite, of shapes that fit, and adjoint to each other."""
    if not hasattr(y, "dtype") or y.dtype.kind not in "fciub" or y.size == 0:
        raise TypeError(f"recover: y is a {type(y).__name__}; expected an array of numbers, not empty")
    if dtype is not None and np.dtype(dtype).kind not in "fc":
        raise TypeError(f"recover: dtype is {np.dtype(dtype)}; expected floats, real or complex")
    xp = namespace(y)
    y = y if y.dtype.kind in "fc" else y.astype(xp.float64)
    if not bool(xp.all(xp.isfinite(y))):
        raise ValueError("recover: y holds numbers that are not finite; leave those measurements out")
    if callable(measure):
        if adjoint is None:
            raise TypeError(
                "recover: measure is a function and needs its adjoint, a function of y to a tensor"
            )
        return _checked_functions(measure, adjoint, y, shape, dtype)
    if getattr(measure, "shape", None) is None or adjoint is not None:
        raise TypeError(
            "recover: measure is a matrix (p, n l m) alone, or a function, with its adjoint beside it"
        )
    if measure.shape != (y.size, math.prod(shape)) or y.ndim != 1:
        raise ValueError(
            f"recover: the matrix has shape {tuple(measure.shape)} and y {tuple(y.shape)}; for tensors of shape "
            f"{shape} expected (p, {math.prod(shape)}) and (p,)"
        )
    namespace(measure, y)
    kind = np.result_type(measure.dtype, y.dtype)
    Phi, y = measure.astype(kind, copy=False), y.astype(kind, copy=False)
    if kind.kind == "c" and dtype is not None and np.dtype(dtype).kind == "f":  # real and imaginary parts
        Phi, y = (xp.concatenate([x.real, x.imag]) for x in (Phi, y))
    if dtype is not None:
        Phi, y = (x.astype(dtype, copy=False) for x in (Phi, y))
    if not bool(xp.all(xp.isfinite(Phi))):
        raise ValueError("recover: the matrix holds numbers that are not finite")
    return ByMatrix(Phi, y, shape)


def _checked_functions(
    measure: Any, adjoint: Any, y: Any, shape: tuple[int, ...], dtype: Any
) -> Measurements:
    xp = namespace(y)
    back = adjoint(y)
    kind = np.dtype(back.dtype if dtype is None else dtype)
    if tuple(back.shape) != shape:
        raise ValueError(
            f"recover: adjoint(y) has shape {tuple(back.shape)}; expected that of the tensor, {shape}"
        )
    if kind.kind == "f":
        given = adjoint
        adjoint = lambda y: given(y).real.astype(kind, copy=False)  # noqa: E731
    rng = np.random.default_rng(0)
    probes = [
        rng.standard_normal(s) + (1j * rng.standard_normal(s) if k.kind == "c" else 0)
        for s, k in ((shape, kind), (tuple(y.shape), y.dtype))
    ]
    u, v = (xp.asarray(p.astype(k)) for p, k in zip(probes, (kind, y.dtype), strict=True))
    image = measure(u)
    if tuple(image.shape) != tuple(y.shape):
        raise ValueError(f"recover: measure makes shape {tuple(image.shape)}; y has {tuple(y.shape)}")
    there, here = inner(image, v), inner(u, adjoint(v))
    if not abs(there - here) <= 1e3 * float(np.finfo(kind).eps) ** 0.75 * norm(image) * norm(v):
        raise ValueError(
            f"recover: the functions are not adjoint: for random X and y, Re⟨measure(X), y⟩ is {there:.6g} and "
            f"Re⟨X, adjoint(y)⟩ {here:.6g}"
        )
    return ByFunctions(measure, adjoint, y)
