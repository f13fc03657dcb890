"""Functions with a gradient of their own: `custom_vjp`, and `checkpoint`, which computes twice to keep nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from cutnn.device import namespace
from cutnn.tape.derivatives import as_array, conj, dtype_kind, flatten, in_dtype, vjp
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
        counts = [len(flatten(arg)[0]) for arg in args]

        def step(values: list[Any]) -> tuple[Any, Callable[[Any], list[Any]]]:
            result = forward(*tree.unflatten(values))
            if not isinstance(result, tuple) or len(result) != 2:
                raise TypeError(
                    f"{name}: forward returned {_kind(result)}; expected a pair (value, residuals)"
                )
            value, residuals = result

            def pull(g: Any) -> list[Any]:
                parts = backward(residuals, g)
                if not isinstance(parts, (tuple, list)) or len(parts) != len(counts):
                    raise TypeError(
                        f"{name}: backward returned {_kind(parts)}; expected a tuple with one cotangent for each "
                        f"of the {len(counts)} arguments, None for zero"
                    )
                flat: list[Any] = []
                for part, count in zip(parts, counts, strict=True):
                    flat += [None] * count if part is None else flatten(part)[0]
                return flat

            return value, pull

        return _joint(name, leaves, step)


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

        def step(values: list[Any]) -> tuple[Any, Callable[[Any], list[Any]]]:
            inner, inner_args, inner_kwargs = tree.unflatten(values)
            value = checkpoint(inner)(*inner_args, **inner_kwargs)  # for the outer tapes, where there are any

            def pull(g: Any) -> list[Any]:
                def of_moving(*moved: Any) -> Any:
                    full = list(values)
                    for i, moved_value in zip(moving, moved, strict=True):
                        full[i] = moved_value
                    return again(full)

                _, pullback = vjp(of_moving, *[values[i] for i in moving])
                flat: list[Any] = [None] * len(values)
                for i, part in zip(moving, pullback(g), strict=True):
                    flat[i] = part
                return flat

            return value, pull

        return _joint(getattr(f, "__name__", type(f).__name__), leaves, step)

    return call


def _joint(name: str, leaves: list[Any], step: Callable[..., Any]) -> Any:
    """Record as one step what `step(values)` returns: a value, and its pullback in the public convention.

    Only what that pullback holds is kept alive, of values and results no more than shapes.
    """
    tape = innermost(leaves)
    assert tape is not None
    values = [a.value if type(a) is Traced and a.tape is tape else a for a in leaves]
    slots = tuple([a.slot if type(a) is Traced and a.tape is tape else None for a in leaves])
    forms = [None if slot is None else (v.shape, v.dtype) for slot, v in zip(slots, values, strict=True)]
    value, pull = step(values)
    ends, tree = flatten(value)
    if any(type(end) is Traced and end.tape is tape for end in ends):
        raise TypeError(f"{name} uses a traced array that is not one of its arguments; pass it as one")
    ends = [as_array(end) if isinstance(end, (float, complex)) else end for end in ends]
    zeros = [_zeros_of(end) for end in ends]
    floats = [
        i for i, end in enumerate(ends) if dtype_kind(end) in "fc"
    ]  # what else there is goes as it came

    def rule(g: Sequence[Any]) -> list[Any]:
        given = [zero() for zero in zeros]
        for i, part in zip(floats, g, strict=True):
            given[i] = given[i] if part is None else conj(part)
        parts = pull(tree.unflatten(given))
        if len(parts) != len(forms):
            raise TypeError(f"{name}: its gradient has {len(parts)} arrays, its arguments {len(forms)}")
        return [_cotangent(name, h, form) for h, form in zip(parts, forms, strict=True)]

    rule.__name__ = name  # for a profile
    for i, end in zip(
        floats, append(tape, ((slots, rule, ()),), tuple([ends[i] for i in floats])), strict=True
    ):
        ends[i] = end
    return tree.unflatten(ends)


def _zeros_of(end: Any) -> Callable[[], Any]:
    """What makes zeros like this, without keeping it alive."""
    plain = raw(end)
    shape = numpy.shape(plain)
    if dtype_kind(end) not in "fc":
        return functools.partial(numpy.zeros, shape)
    return functools.partial(namespace(plain).zeros, shape, dtype=plain.dtype)


def _cotangent(name: str, h: Any, form: Any) -> Any:
    """A cotangent given in the public convention, of the form of its argument; None where nobody asks for it."""
    if h is None or form is None:
        return None
    h, (shape, dtype) = as_array(h), form
    if h.shape != shape:
        raise ValueError(f"{name}: its gradient for an argument of shape {shape} has shape {h.shape}")
    return conj(in_dtype(h, dtype))


def _kind(x: Any) -> str:
    return f"a tuple of {len(x)}" if isinstance(x, tuple) else f"a {type(x).__name__}"
