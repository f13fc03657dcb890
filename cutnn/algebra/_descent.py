"""Riemannian gradient descent with Armijo's line search, for functions of an orthogonal M.

Source: Absil, Mahony, Sepulchre, Optimization algorithms on matrix manifolds (2008), chapter 4; the length of a first
trial: Barzilai, Borwein, Two-point step size gradient methods, IMA J. Numer. Anal. 8 (1988), on this manifold as in
Wen, Yin, A feasible method for optimization with orthogonality constraints, Math. Program. 142 (2013).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from cutnn.algebra._learned import MANIFOLDS
from cutnn.algebra.manifolds import STIEFEL
from cutnn.tape import value_and_grad


class Iteration(NamedTuple):
    """An iterate of a descent: f there, the norm of its Riemannian gradient, and the step that led to it."""

    value: float
    gradient_norm: float
    step: float


@dataclass
class Minimum:
    """Where a descent ended: M, the value of f, and the norm of the Riemannian gradient, 0 at a stationary point.

    `history` has an `Iteration` for the start and for each step. `converged` says whether the gradient is as small as
    was asked for, `interrupted` whether Ctrl-C came.
    """

    M: Any = field(repr=False)
    value: float
    gradient_norm: float
    converged: bool = False
    interrupted: bool = False
    history: list[Iteration] = field(default_factory=list, repr=False)


def minimize(
    f: Callable[[Any], Any],
    M0: Any,
    *,
    manifold: str = "orthogonal",
    tolerance: float = 1e-6,
    typical: float = 0.0,
    iterations: int = 1000,
    callback: Callable[[Minimum], bool | None] | None = None,
) -> Minimum:
    """A local minimum of f, a real function of M, by Riemannian gradient descent from M0 with Armijo's line search.

    M0 is square or, on the manifold "stiefel", (n, q), with orthonormal columns; on "general" it is any array. A step
    goes along the projected gradient and is retracted (`algebra.manifolds`); its length is that of Barzilai and
    Borwein, halved until f falls by 1e-4 of what the slope promises, so that f never rises. It ends where the
    gradient's norm is at most `tolerance` times |f(M0)|, or times `typical` where f(M0) is smaller, or where f falls
    no more in its precision. `callback` gets the `Minimum` so far after each step; a true answer stops. Ctrl-C returns
    what was reached. Warns, with the gradient's norm, where it ended otherwise and did not converge. Raises ValueError
    for settings out of range, an M0 off the manifold, and an f(M0) that is not finite, TypeError for an M0 that is no
    array of floats.
    (Absil, Mahony, Sepulchre 2008, chapter 4; Wen, Yin 2013.)

    >>> import numpy as np
    >>> import cutnn as ct
    >>> from cutnn import algebra
    >>> A, Q0 = np.diag([3.0, 2.0, 1.0]), algebra.manifolds.STIEFEL.random(3, 2, seed=0)
    >>> found = algebra.learned.minimize(lambda Q: -ct.sum(Q * (A @ Q)), Q0, manifold="stiefel")
    >>> found.converged, round(found.value, 10)
    (True, -5.0)
    """
    if manifold not in MANIFOLDS:
        raise ValueError(f"minimize: manifold is one of {MANIFOLDS}, not {manifold!r}")
    if iterations < 0 or not tolerance > 0:
        raise ValueError(
            f"minimize: iterations is 0 or more and tolerance above 0; they are {iterations} and {tolerance}"
        )
    if getattr(getattr(M0, "dtype", None), "kind", "?") not in "fc":
        what = f"an array of {M0.dtype}" if hasattr(M0, "dtype") else f"a {type(M0).__name__}"
        raise TypeError(f"minimize: M0 is {what}; expected an array of floats")
    on = _FREE if manifold == "general" else STIEFEL
    if manifold != "general" and not STIEFEL.distance(M0) < float(np.finfo(M0.dtype).eps) ** 0.5:
        raise ValueError(
            f"minimize: M0ᴴM0 differs from I by {STIEFEL.distance(M0):.2g}; start from orthonormal columns, the Q "
            'factor of ct.linalg.qr(M0) say, or take manifold="general"'
        )
    differentiate = value_and_grad(f)

    def look(M: Any) -> tuple[float, Any]:
        value, gradient = differentiate(M)
        return float(value), on.project(M, gradient)

    M = M0
    value, gradient = look(M)
    if not np.isfinite(value):
        raise ValueError(f"minimize: f(M0) is {value}; start where f is finite")
    norm = _norm(gradient)
    scale, eps = max(abs(value), typical), float(np.finfo(M0.dtype).eps)
    result = Minimum(M, value, norm, history=[Iteration(value, norm, 0.0)])
    step = 0.1 * (_norm(M) or 1.0) / norm if norm else 0.0
    stalled = stopped = False
    try:
        while norm > tolerance * scale and len(result.history) <= iterations:
            trial = step
            while True:
                moved = on.retract(M, -trial * gradient)
                new, new_gradient = look(moved)
                if new < value and new <= value - 1e-4 * trial * norm**2:
                    break
                trial /= 2
                stalled = trial * norm <= eps * (_norm(M) or 1.0)
                if stalled:
                    break
            if stalled:
                break
            # Barzilai and Borwein's length, of the differences of points and of gradients, at the new point.
            s, y = on.project(moved, moved - M), new_gradient - on.project(moved, gradient)
            curvature = abs(inner(s, y))
            short = len(result.history) % 2
            step = (curvature / inner(y, y) if short else inner(s, s) / curvature) if curvature else 2 * trial
            step = min(max(step, 1e-10 * trial), 1e10 * trial)
            M, value, gradient, norm = moved, new, new_gradient, _norm(new_gradient)
            result.M, result.value, result.gradient_norm = M, value, norm
            result.history.append(Iteration(value, norm, trial))
            stopped = callback is not None and bool(callback(result))
            if stopped:
                break
    except KeyboardInterrupt:
        result.interrupted = True
    # At the limit of rounding the gradient of a minimum is about √eps of f.
    result.converged = norm <= (max(tolerance, 10 * eps**0.5) if stalled else tolerance) * scale
    if not (result.converged or result.interrupted or stopped):
        why = "f falls no more" if stalled else f"stopped after {len(result.history) - 1} steps"
        warnings.warn(
            f"minimize: {why}, where the Riemannian gradient has norm {norm:.2e}, f = {value:.6g}; converged would be "
            f"{tolerance * scale:.2e}. Give more iterations, another M0 or a larger tolerance",
            RuntimeWarning,
            stacklevel=2,
        )
    return result


# -------------------------------------------------------------------------------------------------- helpers


class _Free:
    """Arrays without a constraint, as a manifold."""

    def project(self, M: Any, G: Any) -> Any:
        return G

    def retract(self, M: Any, V: Any) -> Any:
        return M + V


_FREE = _Free()


def inner(x: Any, y: Any) -> float:
    """Re tr(xᴴ y) of all entries."""
    return float((x.conj() * y).real.sum())


def _norm(x: Any) -> float:
    return inner(x, x) ** 0.5
