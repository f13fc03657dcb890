"""Time integrators, each of which turns a vector field into the steps of a network, and running them.

An integrator knows no weights and no algebra. `start(f, initial, h)` makes the first state of what a step needs
to know, `forward(f, state, h)` is one step of size h, `backward(f, state, h)` undoes it, for the reversible ones.
A state is a tuple of arrays, and f the vector field of one step: a function of Y, or, for `Verlet`, a pair of
functions. Weights are held over a step.

Sources: Haber, Ruthotto, Stable architectures for deep neural networks, Inverse Problems 34 (2018); Chang et al.,
Reversible architectures for arbitrarily deep residual neural networks, AAAI (2018).
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import optree

from cutnn.tape import Traced, custom_vjp, vjp

__all__ = [
    "INTEGRATORS",
    "Euler",
    "Leapfrog",
    "Midpoint",
    "RungeKutta4",
    "System",
    "Verlet",
    "end",
    "reversible_end",
]

Field = Callable[[Any], Any]
State = tuple[Any, ...]


@dataclass(frozen=True)
class Euler:
    """Forward Euler for Y′ = f(Y), of order 1: Y ← Y + h f(Y).

    >>> Euler().forward(lambda y: -y, (1.0,), 0.25)
    (0.75,)
    """

    reversible: ClassVar[bool] = False

    def start(self, f: Field, Y: Any, h: float) -> State:
        return (Y,)

    def forward(self, f: Field, state: State, h: float) -> State:
        (Y,) = state
        return (Y + h * f(Y),)


@dataclass(frozen=True)
class RungeKutta4:
    """The classical Runge-Kutta method for Y′ = f(Y), of order 4.

    >>> (y,) = RungeKutta4().forward(lambda y: -y, (1.0,), 0.25)
    >>> round(y, 4)  # exp(-0.25)
    0.7788
    """

    reversible: ClassVar[bool] = False

    def start(self, f: Field, Y: Any, h: float) -> State:
        return (Y,)

    def forward(self, f: Field, state: State, h: float) -> State:
        (Y,) = state
        k1 = f(Y)
        k2 = f(Y + 0.5 * h * k1)
        k3 = f(Y + 0.5 * h * k2)
        k4 = f(Y + h * k3)
        return (Y + (h / 6) * (k1 + 2.0 * (k2 + k3) + k4),)


@dataclass(frozen=True)
class Midpoint:
    """The explicit midpoint rule for Y′ = f(Y), of order 2: Y_{j+1} = Y_{j−1} + 2h f(Y_j).

    A state is (Y_{j−1}, Y_j). It starts from Y_{−1} = Y_0 − h f(Y_0), so the first step is one of Euler's.

    >>> Midpoint().forward(lambda y: -y, (1.0, 0.75), 0.25)
    (0.75, 0.625)
    """

    reversible: ClassVar[bool] = True

    def start(self, f: Field, Y: Any, h: float) -> State:
        return (Y - h * f(Y), Y)

    def forward(self, f: Field, state: State, h: float) -> State:
        previous, Y = state
        return (Y, previous + (2 * h) * f(Y))

    def backward(self, f: Field, state: State, h: float) -> State:
        Y, following = state
        return (following - (2 * h) * f(Y), Y)


@dataclass(frozen=True)
class Leapfrog:
    """Leapfrog for the second-order equation Y″ = f(Y), of order 2: Y_{j+1} = 2Y_j − Y_{j−1} + h² f(Y_j).

    A state is (Y_{j−1}, Y_j). It starts at rest, Y′ = 0, from Y_{−1} = Y_0 + ½h² f(Y_0).

    >>> Leapfrog().forward(lambda y: -y, (1.0, 1.0), 0.5)
    (1.0, 0.75)
    """

    reversible: ClassVar[bool] = True

    def start(self, f: Field, Y: Any, h: float) -> State:
        return (Y + (0.5 * h * h) * f(Y), Y)

    def forward(self, f: Field, state: State, h: float) -> State:
        previous, Y = state
        return (Y, 2.0 * Y - previous + (h * h) * f(Y))

    def backward(self, f: Field, state: State, h: float) -> State:
        Y, following = state
        return (2.0 * Y - following + (h * h) * f(Y), Y)


@dataclass(frozen=True)
class Verlet:
    """Leapfrog for a separable system A′ = f₁(B), B′ = f₂(A): A ← A + h f₁(B), then B ← B + h f₂(A).

    f is the pair (f₁, f₂), a state (A, B). Symplectic for a Hamiltonian system; of order 2 with A read half a
    step before B, and of order 1 with both read at the same time.

    >>> Verlet().forward((lambda b: -b, lambda a: a), (0.0, 1.0), 0.5)
    (-0.5, 0.75)
    """

    reversible: ClassVar[bool] = True

    def start(self, f: tuple[Field, Field], initial: State, h: float) -> State:
        return initial

    def forward(self, f: tuple[Field, Field], state: State, h: float) -> State:
        A, B = state
        A = A + h * f[0](B)
        return (A, B + h * f[1](A))

    def backward(self, f: tuple[Field, Field], state: State, h: float) -> State:
        A, B = state
        B = B - h * f[1](A)
        return (A - h * f[0](B), B)


INTEGRATORS = {"euler": Euler(), "midpoint": Midpoint(), "leapfrog": Leapfrog(), "rk4": RungeKutta4()}
"""Those for one vector field, by name."""


@dataclass(frozen=True)
class System:
    """A vector field, an integrator and a step size: everything of a network but its weights."""

    field: Any
    integrator: Any
    h: float

    def states(self, steps: Any, initial: Any) -> Iterator[Any]:
        for j, step in enumerate(steps):
            f = self.field.bind(self.field.operator(step))
            if j == 0:
                state = self.integrator.start(f, initial, self.h)
                yield state
            state = self.integrator.forward(f, state, self.h)
            yield state

    def start(self, operator: Any, initial: Any) -> Any:
        return self.integrator.start(self.field.bind(operator), initial, self.h)

    def forward(self, operator: Any, state: Any) -> Any:
        return self.integrator.forward(self.field.bind(operator), state, self.h)

    def backward(self, operator: Any, state: Any) -> Any:
        return self.integrator.backward(self.field.bind(operator), state, self.h)


def end(system: System, steps: Any, initial: Any) -> Any:
    """The last state; every state in between is kept if a tape asks for it."""
    for state in system.states(steps, initial):  # noqa: B007
        pass
    return state


def reversible_end(system: System, steps: Any, initial: Any) -> Any:
    """The last state, with a backward pass that keeps only it and computes the others from it."""

    @custom_vjp
    def run(steps: Any, initial: Any) -> Any:
        return end(system, steps, initial)

    def forward(steps: Any, initial: Any) -> Any:
        if any(type(leaf) is Traced for leaf in _leaves((steps, initial))):
            # An outer tape differentiates this derivative: it needs the states, stored.
            return vjp(functools.partial(end, system), steps, initial)
        last = end(system, steps, initial)
        return last, functools.partial(_pull_back, system, steps, initial, last)

    run.defvjp(forward, lambda pull, g: pull(g))
    return run(steps, initial)


def _pull_back(system: System, steps: Any, initial: Any, state: Any, g: Any) -> tuple[Any, Any]:
    """The cotangents of steps and initial, from the last state and its cotangent, one step at a time."""
    gradients = []
    for j in reversed(range(len(steps))):
        operator, pull_operator = vjp(system.field.operator, steps[j])
        state = system.backward(operator, state)
        to_operator, g = vjp(system.forward, operator, state)[1](g)
        if j == 0:
            started, pull = vjp(system.start, operator, initial)
            _warn_of_drift(system, started, state)
            more, to_initial = pull(g)
            to_operator = optree.tree_map(lambda a, b: a + b, to_operator, more, namespace="cutnn")
        gradients.append(pull_operator(to_operator)[0])
    return tuple(reversed(gradients)), to_initial


def _warn_of_drift(system: System, started: Any, recomputed: Any) -> None:
    """Warn where the start, recomputed from the end, is not the start: the gradients then are not right."""
    pairs = zip(_leaves(started), _leaves(recomputed), strict=True)
    squares = [(abs(a - b) ** 2, abs(a) ** 2) for a, b in pairs]
    error, size = (
        math.sqrt(sum(float(part.sum()) for part in parts)) for parts in zip(*squares, strict=True)
    )
    if not error <= 1e-3 * size:
        warnings.warn(
            f"reversible=True: the states recomputed from the end are off by {error / (size or 1):.1e} of their "
            "norm at the start, and so are the gradients, about. Take a smaller h, fewer steps, smaller weights, "
            f"dtype=ct.float64, or reversible=False (now: {type(system.integrator).__name__}, h={system.h:g})",
            RuntimeWarning,
            stacklevel=2,
        )


def _leaves(tree: Any) -> list[Any]:
    return optree.tree_leaves(tree, namespace="cutnn")
