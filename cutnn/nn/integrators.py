"""Time integrators: each turns a vector field into the steps of a network.

An integrator knows no weights and no algebra. `start(parts, blocks, h)` makes the first state, what a step needs to
know; `forward(parts, state, h)` is one step of size h; `backward(parts, state, h)` undoes it, for the reversible
ones; `blocks(state)` is the value at the state's time, `with_blocks` puts another there. Weights are held over a step.

The value is a tuple of blocks, one or two. `parts`, the vector field of one step, has a function a block: of one
block Y′ = parts[0](Y); of two, A′ = parts[0](B) and B′ = parts[1](A), since each of our systems of two is separable.
It returns the slope, an array or one whose activation is still to be computed, which `with_slope` does in the kernel
of the update.

Sources: Haber, Ruthotto, Stable architectures for deep neural networks, Inverse Problems 34 (2018); Chang et al.,
Reversible architectures for arbitrarily deep residual neural networks, AAAI (2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from cutnn.nn._slope import value, with_slope

__all__ = ["Euler", "Integrator", "Leapfrog", "Midpoint", "RungeKutta4", "Verlet", "rates"]

Blocks: TypeAlias = tuple[Any, ...]
Parts: TypeAlias = tuple[Callable[[Any], Any], ...]


def rates(parts: Parts, blocks: Blocks) -> Blocks:
    """The derivatives in time of all blocks: f(Y) of one, f₁(B) and f₂(A) of two.

    >>> rates((lambda b: -b, lambda a: 2 * a), (3.0, 1.0))
    (-1.0, 6.0)
    """
    return tuple([value(slope) for slope in _slopes(parts, blocks)])


class Integrator:
    """What the integrators share: a state that is the value itself, and no way back."""

    reversible: ClassVar[bool] = False

    def start(self, parts: Parts, blocks: Blocks, h: float) -> Any:
        """The state at time 0, of which `blocks` is the value."""
        return blocks

    def blocks(self, state: Any) -> Blocks:
        """The value at the time of the state."""
        value: Blocks = state
        return value

    def with_blocks(self, state: Any, blocks: Blocks) -> Any:
        """The state with another value at its time."""
        return blocks

    def forward(self, parts: Parts, state: Any, h: float) -> Any:
        """The state a step later."""
        raise NotImplementedError

    def backward(self, parts: Parts, state: Any, h: float) -> Any:
        """The state a step earlier."""
        raise TypeError(f"{type(self).__name__} cannot be run backward")


@dataclass(frozen=True)
class Euler(Integrator):
    """Forward Euler for Y′ = f(Y), of order 1: Y ← Y + h f(Y).

    >>> Euler().forward((lambda y: -y,), (1.0,), 0.25)
    (0.75,)
    """

    def forward(self, parts: Parts, state: Blocks, h: float) -> Blocks:
        return _moved(state, h, _slopes(parts, state))


@dataclass(frozen=True)
class RungeKutta4(Integrator):
    """The classical Runge-Kutta method for Y′ = f(Y), of order 4.

    >>> (y,) = RungeKutta4().forward((lambda y: -y,), (1.0,), 0.25)
    >>> round(y, 4)  # exp(-0.25)
    0.7788
    """

    def forward(self, parts: Parts, state: Blocks, h: float) -> Blocks:
        k1 = rates(parts, state)
        k2 = rates(parts, _moved(state, 0.5 * h, k1))
        k3 = rates(parts, _moved(state, 0.5 * h, k2))
        k4 = rates(parts, _moved(state, h, k3))
        mean = tuple([a + 2.0 * (b + c) + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True)])
        return _moved(state, h / 6, mean)


class _TwoStep(Integrator):
    """Those of two steps, which run either way: a state is (Y_{j−1}, Y_j)."""

    reversible: ClassVar[bool] = True

    def blocks(self, state: Any) -> Blocks:
        return state[1]

    def with_blocks(self, state: Any, blocks: Blocks) -> Any:
        return state[0], blocks


@dataclass(frozen=True)
class Midpoint(_TwoStep):
    """The explicit midpoint rule for Y′ = f(Y), of order 2: Y_{j+1} = Y_{j−1} + 2h f(Y_j).

    A state is (Y_{j−1}, Y_j). It starts from Y_{−1} = Y_0 − h f(Y_0), so the first step is one of Euler's.

    >>> Midpoint().forward((lambda y: -y,), ((1.0,), (0.75,)), 0.25)
    ((0.75,), (0.625,))
    """

    def start(self, parts: Parts, blocks: Blocks, h: float) -> Any:
        return _moved(blocks, -h, _slopes(parts, blocks)), blocks

    def forward(self, parts: Parts, state: Any, h: float) -> Any:
        previous, Y = state
        return Y, _moved(previous, 2 * h, _slopes(parts, Y))

    def backward(self, parts: Parts, state: Any, h: float) -> Any:
        Y, following = state
        return _moved(following, -2 * h, _slopes(parts, Y)), Y


@dataclass(frozen=True)
class Leapfrog(_TwoStep):
    """Leapfrog for the second-order equation Y″ = f(Y), of order 2: Y_{j+1} = 2Y_j − Y_{j−1} + h² f(Y_j).

    A state is (Y_{j−1}, Y_j). It starts at rest, Y′ = 0, from Y_{−1} = Y_0 + ½h² f(Y_0).

    >>> Leapfrog().forward((lambda y: -y,), ((1.0,), (1.0,)), 0.5)
    ((1.0,), (0.75,))
    """

    def start(self, parts: Parts, blocks: Blocks, h: float) -> Any:
        return _moved(blocks, 0.5 * h * h, _slopes(parts, blocks)), blocks

    def forward(self, parts: Parts, state: Any, h: float) -> Any:
        previous, Y = state
        return Y, self._other(previous, Y, _slopes(parts, Y), h)

    def backward(self, parts: Parts, state: Any, h: float) -> Any:
        Y, following = state
        return self._other(following, Y, _slopes(parts, Y), h), Y

    def _other(self, one: Blocks, middle: Blocks, slopes: Blocks, h: float) -> Blocks:
        """The neighbour of `middle` in time that is not `one`: the equation is the same either way."""
        parts = zip(one, middle, slopes, strict=True)
        return tuple([with_slope(_leap, slope, Y, other, h) for other, Y, slope in parts])


@dataclass(frozen=True)
class Verlet(Integrator):
    """Leapfrog for a separable system A′ = f₁(B), B′ = f₂(A): A ← A + h f₁(B), then B ← B + h f₂(A).

    Symplectic for a Hamiltonian system; of order 2 with A read half a step before B, and of order 1 with both
    read at the same time.

    >>> Verlet().forward((lambda b: -b, lambda a: a), (0.0, 1.0), 0.5)
    (-0.5, 0.75)
    """

    reversible: ClassVar[bool] = True

    def forward(self, parts: Parts, state: Blocks, h: float) -> Blocks:
        A, B = state
        A = with_slope(_move, parts[0](B), A, h)
        return A, with_slope(_move, parts[1](A), B, h)

    def backward(self, parts: Parts, state: Blocks, h: float) -> Blocks:
        A, B = state
        B = with_slope(_move, parts[1](A), B, -h)
        return with_slope(_move, parts[0](B), A, -h), B


def _slopes(parts: Parts, blocks: Blocks) -> Blocks:
    return tuple([f(Y) for f, Y in zip(parts, reversed(blocks), strict=True)])


def _moved(blocks: Blocks, step: float, slopes: Blocks) -> Blocks:
    return tuple([with_slope(_move, slope, Y, step) for Y, slope in zip(blocks, slopes, strict=True)])


def _move(slope: Any, Y: Any, h: float) -> Any:
    return Y + h * slope


def _leap(slope: Any, Y: Any, other: Any, h: float) -> Any:
    return 2.0 * Y - other + (h * h) * slope
