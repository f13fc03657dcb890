"""The tape and its records: traced arrays, primitives, the backward pass."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from cutnn.tape.operations import Change, operation

Function = TypeVar("Function", bound=Callable[..., Any])
Rule = Callable[..., Any]

_order = itertools.count()


class Tape(list[Any]):
    """The records of one trace, a list. Of two tapes that meet, the one made later is the inner one."""

    __slots__ = ("order",)

    def __init__(self) -> None:
        super().__init__()
        self.order = next(_order)

    def watch(self, value: Any) -> Traced:
        """A new slot without inputs, holding `value`."""
        self.append(())
        return Traced(value, self, len(self) - 1)


class Traced:
    """An array whose operations are recorded on a tape; it exists only inside `grad` and its kin.

    `cutnn.array` gives it operators, indexing and NumPy's methods. `value` is what it stands for: an array, or a
    traced array of an outer tape.
    """

    __slots__ = ("slot", "tape", "value")

    def __init__(self, value: Any, tape: Tape, slot: int) -> None:
        self.value = value
        self.tape = tape
        self.slot = slot

    def __getattr__(self, name: str) -> Any:  # only for names that no class attribute answers
        raise AttributeError(
            f"a traced array has no attribute {name!r}; use a function of cutnn, "
            f"or cutnn.stop_gradient(x).{name} where no gradient is wanted"
        )


class NotDifferentiableError(TypeError):
    """An operation that has no derivative was asked for one; the message names it and what to use instead."""


class NotDifferentiableWarning(RuntimeWarning):
    """A derivative was asked for at a point that has none; the message says which was given in its place."""


class nondifferentiable(NamedTuple):
    """In the place of a rule: tracing this parameter raises, for the reason given."""

    reason: str


class Scattered:
    """A cotangent that is zero but at some entries: a rule may return one in place of an array.

    The backward pass adds it in place where it may, so that a loop over x[i] costs what the slices cost.
    """

    __slots__ = ()

    def dense(self) -> Any:
        """The whole cotangent, a new array."""
        raise NotImplementedError

    def add_to(self, held: Any) -> Any:
        """`held`, an array that only the backward pass knows, with this added to it."""
        raise NotImplementedError


class _Part(NamedTuple):
    """The record of one output of a primitive that returns several."""

    whole: int
    place: int
    outputs: int


# ---------------------------------------------------------------------------------------------- primitives


def primitive(**rules: Rule | nondifferentiable) -> Callable[[Function], Function]:
    """Make a function of arrays differentiable, given the rule of each array it depends on.

    A rule is keyed by a parameter of the decorated function. Its first parameter is `g`, the cotangent of the
    result; the others name what it needs, and only that is kept alive: `ans` (the result) or any parameter of
    the function, traced or not. It returns the cotangent of its parameter, or None for zero. Rules are bilinear
    (see `cutnn.tape`) and written in differentiable functions.

    The function itself always receives plain arrays and calls the library that owns them. If it takes `*arrays`,
    the rule of that name returns a sequence with one cotangent for each. If it returns a tuple, `g` is a tuple
    too, with None for an output that was not used. A parameter without a rule is not differentiated.

    >>> import numpy as np
    >>> from cutnn.tape import grad, primitive
    >>> @primitive(x=lambda g, x: g * 3 * x**2)
    ... def cube(x):
    ...     return x**3
    >>> grad(cube)(2.0)
    array(12.)
    """

    def decorate(forward: Function) -> Function:
        signature = inspect.signature(forward)
        kinds = [p.kind for p in signature.parameters.values()]
        names = list(signature.parameters)
        unknown = set(rules) - set(names)
        if unknown:
            raise TypeError(f"primitive {forward.__name__}: no parameter named {', '.join(sorted(unknown))}")
        if inspect.Parameter.VAR_POSITIONAL in kinds:
            return _variadic(forward, signature, rules)
        positional = sum(kind is not inspect.Parameter.KEYWORD_ONLY for kind in kinds)
        keywords = names[positional:]
        defaults = {n: p.default for n, p in signature.parameters.items() if p.default is not p.empty}
        ways = [(names.index(name), rule, _needs(forward, name, rule, names)) for name, rule in rules.items()]

        @functools.wraps(forward)
        def call(*args: Any, **kwargs: Any) -> Any:
            tape = innermost(args)
            if kwargs:
                tape = innermost(kwargs.values(), tape)
            if tape is None:
                return forward(*args, **kwargs)
            if kwargs or len(args) < len(names):
                args = _complete(forward, names, defaults, args, kwargs)
            values = [a.value if type(a) is Traced and a.tape is tape else a for a in args]
            if keywords:
                ans = call(*values[:positional], **dict(zip(keywords, values[positional:], strict=True)))
            else:
                ans = call(*values)
            links = []
            for position, rule, needs in ways:
                a = args[position]
                if type(a) is Traced and a.tape is tape:
                    if type(rule) is nondifferentiable:
                        raise NotDifferentiableError(f"{forward.__name__} {rule.reason}")
                    links.append((a.slot, rule, tuple([ans if i < 0 else values[i] for i in needs])))
            return append(tape, tuple(links), ans) if links else ans

        plain = forward

        def watch(change: Change) -> None:
            nonlocal forward
            forward = change(plain)

        return operation(call, rules.values(), watch)

    return decorate


def constant(function: Function) -> Function:
    """A function without derivative: it takes traced arrays, computes on their values, stops the gradient."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            kwargs = {name: raw(a) for name, a in kwargs.items()}
        return function(*[raw(a) for a in args], **kwargs)

    plain = function

    def watch(change: Change) -> None:
        nonlocal function
        function = change(plain)

    return operation(call, (), watch)


def raw(x: Any) -> Any:
    """The plain array under every tape; anything else as it came."""
    while type(x) is Traced:
        x = x.value
    return x


def _variadic(forward: Function, signature: inspect.Signature, rules: dict[str, Any]) -> Function:
    """A primitive whose first parameter is `*arrays`: one rule gives the cotangents of all of them."""
    ((name, rule),) = rules.items()
    keywords = [n for n in signature.parameters if n != name]
    needs = list(inspect.signature(rule).parameters)[1:]  # after g

    @functools.wraps(forward)
    def call(*arrays: Any, **kwargs: Any) -> Any:
        tape = innermost(arrays)
        if tape is None:
            return forward(*arrays, **kwargs)
        values = tuple([a.value if type(a) is Traced and a.tape is tape else a for a in arrays])
        ans = call(*values, **kwargs)
        slots = tuple([a.slot if type(a) is Traced and a.tape is tape else None for a in arrays])
        given = {n: signature.parameters[n].default for n in keywords} | kwargs
        given |= {name: values, "ans": ans}
        saved = tuple([given[n] for n in needs])
        return append(tape, ((slots, rule, saved),), ans)

    plain = forward

    def watch(change: Change) -> None:
        nonlocal forward
        forward = change(plain)

    return operation(call, rules.values(), watch)


def _needs(forward: Callable[..., Any], name: str, rule: Any, names: list[str]) -> list[int]:
    """Where the parameters of a rule, after `g`, are found: positions in the call, -1 for the result."""
    if type(rule) is nondifferentiable:
        return []
    first, *rest = inspect.signature(rule).parameters
    if first != "g" or not set(rest) <= {"ans", *names}:
        raise TypeError(
            f"primitive {forward.__name__}, rule of {name}: its parameters are ({', '.join((first, *rest))}); "
            f"expected g, then any of ans, {', '.join(names)}"
        )
    return [-1 if n == "ans" else names.index(n) for n in rest]


def _complete(
    forward: Callable[..., Any], names: list[str], defaults: dict[str, Any], args: Any, kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """All arguments of a call in the order of its parameters."""
    given = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
    if len(args) > len(names) or len(given) != len(names) or set(names[: len(args)]) & kwargs.keys():
        inspect.signature(forward).bind(*args, **kwargs)  # raises the TypeError that Python would
    return tuple([given[name] for name in names])


def innermost(args: Any, tape: Tape | None = None) -> Tape | None:
    for a in args:
        if type(a) is Traced and (tape is None or a.tape.order > tape.order):
            tape = a.tape
    return tape


def append(tape: Tape, record: Any, ans: Any) -> Any:
    tape.append(record)
    slot = len(tape) - 1
    if not isinstance(ans, tuple):
        return Traced(ans, tape, slot)
    parts = []
    for index, value in enumerate(ans):
        tape.append(_Part(slot, index, len(ans)))
        parts.append(Traced(value, tape, slot + 1 + index))
    # A named tuple (the standard's SVDResult and its kin) is rebuilt as what it was.
    return type(ans)(*parts) if hasattr(ans, "_fields") else tuple(parts)


# ------------------------------------------------------------------------------------------ the backward pass


def backward(tape: Tape, seeds: dict[int, Any], inputs: int, consume: bool) -> list[Any]:
    """Cotangents of the first `inputs` slots, None where none arrived.

    With `consume` each record is dropped as it is passed, and with it the memory it kept alive.
    """
    last = max(seeds, default=-1)
    cotangents: list[Any] = [None] * max(last + 1, inputs)
    for slot, g in seeds.items():
        cotangents[slot] = g
    fresh: set[int] = set()  # slots whose cotangent is an array made here, which nobody else holds
    if consume:
        del tape[max(last + 1, inputs) :]
    for slot in range(last, inputs - 1, -1):
        record = tape[slot]
        if consume:
            tape[slot] = None
        g = cotangents[slot]
        if g is None:
            continue
        cotangents[slot] = None
        if type(record) is _Part:
            whole = cotangents[record.whole]
            if whole is None:
                whole = cotangents[record.whole] = [None] * record.outputs
            whole[record.place] = g
            continue
        for parent, rule, saved in record:
            h = rule(g, *saved)
            if type(parent) is tuple:
                for one, part in zip(parent, h, strict=True):
                    if one is not None and part is not None:
                        held = cotangents[one]
                        cotangents[one] = part if held is None else held + part
            elif isinstance(h, Scattered):
                held = cotangents[parent]
                if held is None:
                    cotangents[parent] = h.dense()
                else:
                    cotangents[parent] = h.add_to(held) if parent in fresh else held + h.dense()
                fresh.add(parent)
            elif h is not None:
                held = cotangents[parent]
                cotangents[parent] = h if held is None else held + h
    return cotangents[:inputs]
