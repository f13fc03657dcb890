"""Running a network through time: its states, its last state, and that with a backward pass that stores no states."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import optree

from cutnn.algebra.learned import parameters, with_parameters
from cutnn.device import record_call, recording
from cutnn.tape import Traced, custom_vjp, vjp

__all__ = ["System", "end", "reversible_end"]

_DRIFT = 1e-3
"""How far, relative to the norms of the first states, the start recomputed from the end may be off in silence."""


@dataclass(frozen=True)
class System:
    """A vector field, an integrator and a step size: everything of a network but its weights."""

    field: Any
    integrator: Any
    h: float

    def states(self, steps: Any, X: Any) -> Iterator[Any]:
        """The integrator's states at all times."""
        # Each weight is transformed where its step begins. All of them stacked, in one call forward and backward, took
        # up to 6 % longer for 4 to 32 steps of 4 × 4 to 96 × 96 faces on two cores: the copy costs what calls save.
        # And a reversible network would hold the transforms of all steps. `domain="transform"` has none to take.
        for j, step in enumerate(steps):
            parts = self.field.parts(self.field.operator(step))
            if j == 0:
                state = self.integrator.start(parts, self.field.initial(X), self.h)
                yield state
            state = self.integrator.forward(parts, state, self.h)
            yield state

    def output(self, state: Any) -> Any:
        """What a network shows of a state."""
        return self.field.observe(self.integrator.blocks(state))

    @property
    def matrices(self) -> tuple[Any, ...]:
        """The arrays that a learned algebra is made of, () for a constant one."""
        return parameters(self.field.star)

    def over(self, matrices: tuple[Any, ...]) -> System:
        """The system with these for its learned matrices."""
        if not matrices:
            return self
        return replace(self, field=replace(self.field, star=with_parameters(self.field.star, matrices)))

    def start(self, operator: Any, X: Any) -> Any:
        return self.integrator.start(self.field.parts(operator), self.field.initial(X), self.h)

    def forward(self, operator: Any, state: Any) -> Any:
        return self.integrator.forward(self.field.parts(operator), state, self.h)

    def backward(self, operator: Any, state: Any) -> Any:
        return self.integrator.backward(self.field.parts(operator), state, self.h)


def end(system: System, steps: Any, X: Any) -> Any:
    """The last state; every state in between is kept if a tape asks for it."""
    for state in system.states(steps, X):  # noqa: B007
        pass
    return state


def reversible_end(system: System, steps: Any, X: Any) -> Any:
    """The last state, with a backward pass that keeps only it and computes the others from it."""

    @custom_vjp
    def reversible(steps: Any, X: Any, matrices: Any) -> Any:
        return end(system.over(matrices), steps, X)

    def forward(steps: Any, X: Any, matrices: Any) -> Any:
        if any(type(leaf) is Traced for leaf in _leaves((steps, X, matrices))):
            # An outer tape differentiates this derivative: it needs the states, stored.
            return vjp(lambda steps, X, matrices: end(system.over(matrices), steps, X), steps, X, matrices)
        own = system.over(matrices)
        last = end(own, steps, X)
        return last, functools.partial(_pull_back, own, steps, X, last)

    reversible.defvjp(forward, lambda pull, g: pull(g))
    return reversible(steps, X, system.matrices)


def _pull_back(system: System, steps: Any, X: Any, state: Any, g: Any) -> tuple[Any, Any, Any]:
    """The cotangents of steps, X and a learned M, from the last state and its cotangent, one step at a time."""
    matrices = system.matrices
    gradients, to_matrices = [], []
    for j in reversed(range(len(steps))):
        operator, pull_operator = vjp(lambda step, M: system.over(M).field.operator(step), steps[j], matrices)
        state = system.backward(operator, state)
        pull_step = vjp(lambda op, z, M: system.over(M).forward(op, z), operator, state, matrices)[1]
        to_operator, g, to_M = pull_step(g)
        to_matrices.append(to_M)
        if j == 0:
            started, pull = vjp(lambda op, X, M: system.over(M).start(op, X), operator, X, matrices)
            _warn_of_drift(system, operator, started, state)
            more, to_X, to_M = pull(g)
            to_operator = optree.tree_map(lambda a, b: a + b, to_operator, more, namespace="cutnn")
            to_matrices.append(to_M)
        to_step, to_M = pull_operator(to_operator)
        gradients.append(to_step)
        to_matrices.append(to_M)
    return tuple(reversed(gradients)), to_X, tuple([sum(parts) for parts in zip(*to_matrices, strict=True)])


def _warn_of_drift(system: System, operator: Any, started: Any, recomputed: Any) -> None:
    """Warn where the start, recomputed from the end, is not the start: the gradients then are not right."""
    off = [a - b for a, b in zip(_leaves(started), _leaves(recomputed), strict=True)]
    after: Any = None  # a start of zeros has no size of its own, and the state after it has
    if recording.recorder is None:  # a captured step, which is to keep no arrays, goes without
        after = functools.partial(system.forward, operator, started)
    record_call(
        functools.partial(_look_at_drift, system, after), [_squares(off), _squares(_leaves(started))], []
    )


def _look_at_drift(system: System, after: Any, error: Any, size: Any) -> None:
    error, size = math.sqrt(float(error)), math.sqrt(float(size))
    if not error <= _DRIFT * size and after is not None:
        size = max(size, math.sqrt(float(_squares(_leaves(after())))))
    if not error <= _DRIFT * size:
        warnings.warn(
            f"reversible=True: the states recomputed from the end are off by {error / (size or 1):.1e} of their "
            "norm at the start, and so are the gradients, about. Take a smaller h, fewer steps, smaller weights, "
            f"dtype=ct.float64, or reversible=False (now: {type(system.integrator).__name__}, h={system.h:g})",
            RuntimeWarning,
            stacklevel=4,
        )


def _squares(arrays: list[Any]) -> Any:
    return sum((abs(a) ** 2).sum() for a in arrays)


def _leaves(tree: Any) -> list[Any]:
    return optree.tree_leaves(tree, namespace="cutnn")
