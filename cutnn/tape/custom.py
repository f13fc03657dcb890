"""Functions with a gradient of their own: `custom_vjp`, and `checkpoint`, which computes twice to keep nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import optree

from cutnn.device import namespace
from cutnn.tape.derivatives import PYTREES, conj, flatten, vjp
from cutnn.tape.record import Traced, append, innermost, raw


class custom_vjp:
    """A function with a gradient of the user's own.

    Decorate the function, then give `defvjp(forward, backward)`: forward(*args) returns (value, residuals),
    backward(residuals, g) returns one cotangent an argument (None for zero). All may be pytrees. Cotangents of
    complex arrays are those of `vjp`. Traced arrays must come as arguments, not by closure.

    >>> import cutnn as ct
    >>> @ct.custom_vjp
    ... def reversed_gradient(x):
    ...     return x
    >>> reversed_gradient.defvjp(lambda x: (x, None), lambda residuals, g: (-g,))
    >>> ct.grad(lambda x: 3 * reversed_gradient(x))(1.0)
    array(-3.)
    """

    def __init__(self, f: Callable[..., Any]) -> None:
        functools.update_wrapper(self, f, updated=())
        self._f = f
        self._forward: Callable[..., Any] | None = None
        self._backward: Callable[..., Any] | None = None

    def defvjp(self, forward: Callable[..., Any], backward: Callable[..., Any]) -> None:
        self._forward, self._backward = forward, backward

    def __call__(self, *args: Any) -> Any:
        name = getattr(self, "__name__", "function")
        forward, backward = self._forward, self._backward
        leaves, tree = flatten(args)
        if innermost(leaves) is None:
            return self._f(*args)
        if forward is None or backward is None:
            raise TypeError(f"custom_vjp: {name} has no gradient yet; call {name}.defvjp(forward, backward)")
        residuals: Any = None

        def run(values: list[Any]) -> Any:
            nonlocal residuals
            value, residuals = forward(*tree.unflatten(values))
            return value

        def pull(values: list[Any], g: Any) -> list[Any]:
            parts = backward(residuals, g)
            if len(parts) != len(args):
                raise TypeError(f"{name}: backward returned {len(parts)} cotangents for {len(args)} arguments")
            flat: list[Any] = []
            for part, arg in zip(parts, args, strict=True):
                count = optree.tree_structure(arg, namespace=PYTREES).num_leaves
                flat += [None] * count if part is None else optree.tree_leaves(part, namespace=PYTREES)
            return flat

        return _joint(name, leaves, run, pull)


def checkpoint(f: Callable[..., Any]) -> Callable[..., Any]:
    """f with its intermediate results forgotten and computed again in the backward pass.

    Memory for time: only the arguments are kept. f may be a module, whose arrays count as arguments; other
    traced arrays must come as arguments, not by closure.

    >>> import cutnn as ct
    >>> ct.grad(ct.checkpoint(lambda x: ct.exp(ct.sin(x))))(0.0)
    array(1.)
    """

    @functools.wraps(f, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = flatten((f, args, kwargs))

        def again(values: Sequence[Any]) -> Any:
            inner, inner_args, inner_kwargs = tree.unflatten(values)
            return inner(*inner_args, **inner_kwargs)

        tape = innermost(leaves)
        if tape is None:
            return f(*args, **kwargs)
        moving = [i for i, a in enumerate(leaves) if type(a) is Traced and a.tape is tape]

        def run(values: list[Any]) -> Any:
            if innermost(values) is None:
                return again(values)
            inner, inner_args, inner_kwargs = tree.unflatten(values)
            return checkpoint(inner)(*inner_args, **inner_kwargs)

        def pull(values: list[Any], g: Any) -> list[Any]:
            def of_moving(*moved: Any) -> Any:
                full = list(values)
                for i, value in zip(moving, moved, strict=True):
                    full[i] = value
                return again(full)

            _, pullback = vjp(of_moving, *[values[i] for i in moving])
            flat: list[Any] = [None] * len(values)
            for i, part in zip(moving, pullback(g), strict=True):
                flat[i] = part
            return flat

        return _joint(getattr(f, "__name__", type(f).__name__), leaves, run, pull)

    return call


def _joint(name: str, leaves: list[Any], run: Callable[..., Any], pull: Callable[..., Any]) -> Any:
    """Record `run(values)` as one step whose cotangents, in the public convention, `pull(values, g)` gives."""
    tape = innermost(leaves)
    assert tape is not None
    values = [a.value if type(a) is Traced and a.tape is tape else a for a in leaves]
    slots = tuple([a.slot if type(a) is Traced and a.tape is tape else None for a in leaves])
    ends, tree = flatten(run(values))
    if any(type(end) is Traced and end.tape is tape for end in ends):
        raise TypeError(f"{name} uses a traced array that is not one of its arguments; pass it as one")

    def rule(g: Any) -> list[Any]:
        given = [
            conj(part) if part is not None else namespace(raw(end)).zeros_like(raw(end))
            for part, end in zip(g, ends, strict=True)
        ]
        return [h if h is None else conj(h) for h in pull(values, tree.unflatten(given))]

    return tree.unflatten(append(tape, ((slots, rule, ()),), tuple(ends)))


