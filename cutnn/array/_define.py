"""How elementwise functions are defined: a name of the standard and its derivative, one line each.

These two definitions make the same records as `tape.primitive`, written out for one and for two arguments: a
traced call costs about 1 µs less, and elementwise calls are most of what a tape sees (`bench/tape_overhead.py`).
Unbroadcasting, and the return of a cotangent to its argument's dtype, happen here and nowhere else.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import numpy

from cutnn.array._gemm import is_limited, matmul
from cutnn.device import namespace
from cutnn.tape import Traced, constant, raw
from cutnn.tape.operations import Change, operation, unwatched

Rule = Callable[..., Any]

# What a library's function takes beside its own arrays.
_SCALARS = frozenset({bool, int, float, complex, *numpy.sctypeDict.values()})


def unary(name: str, rule: Rule, fit: bool = False) -> Callable[[Any], Any]:
    """The differentiable elementwise function of one array that the libraries call `name`.

    The rule takes `g` and any of `x`, `ans`. With `fit` the cotangent is brought to x's dtype (a function that
    takes complex arrays to real ones).
    """
    functions = _Functions(name)
    table = functions.known
    save = _saver(rule, "x")

    def call(x: Any, /) -> Any:
        if type(x) is not Traced:
            function = table.get(type(x))
            if function is None:
                function = functions.learn(type(x), x)
            return function(x)
        value = x.value
        function = table.get(type(value))
        ans = call(value) if function is None else function(value)
        tape = x.tape
        if fit and ans.dtype != value.dtype:
            tape.append(((x.slot, _fitted, (rule, value.shape, value.dtype, *save(ans, value))),))
        else:
            tape.append(((x.slot, rule, save(ans, value)),))
        return Traced(ans, tape, len(tape) - 1)

    return operation(_named(call, name, "x, /", rule), (rule,), functions.watch)


def binary(name: str, x1: Rule, x2: Rule) -> Callable[[Any, Any], Any]:
    """The differentiable elementwise function of two arrays that the libraries call `name`.

    The rules take `g` and any of `x1`, `x2`, `ans`.
    """
    functions = _Functions(name)
    table = functions.known
    rule1, rule2 = x1, x2
    save1, save2 = _saver(rule1, "x1, x2"), _saver(rule2, "x1, x2")

    def call(x1: Any, x2: Any, /) -> Any:
        traced1, traced2 = type(x1) is Traced, type(x2) is Traced
        if not traced1 and not traced2:
            kind = type(x1)
            if kind is not type(x2):
                if kind in _SCALARS:
                    kind = type(x2)
                elif type(x2) not in _SCALARS:
                    return functions.of(x1, x2)(x1, x2)
            function = table.get(kind)
            if function is None:
                function = functions.learn(kind, x1, x2)
            return function(x1, x2)
        value1, value2 = x1, x2
        if traced1:
            tape = x1.tape
            value1 = x1.value
            if traced2:
                if x2.tape is tape:
                    value2 = x2.value
                elif x2.tape.order < tape.order:
                    traced2 = False
                else:
                    traced1 = False
                    tape, value1, value2 = x2.tape, x1, x2.value
        else:
            tape = x2.tape
            value2 = x2.value
        owner: type | None = type(value1)  # of arrays, or of the one beside a number
        if owner is not type(value2):
            owner = type(value2) if owner in _SCALARS else owner if type(value2) in _SCALARS else None
        function = table.get(owner)
        ans = call(value1, value2) if function is None else function(value1, value2)
        shape, dtype = ans.shape, ans.dtype
        if traced1:
            link1 = (x1.slot, rule1, save1(ans, value1, value2))
            if value1.shape != shape or value1.dtype != dtype:
                link1 = (x1.slot, _fitted, (rule1, value1.shape, value1.dtype, *link1[2]))
            if not traced2:
                tape.append((link1,))
                return Traced(ans, tape, len(tape) - 1)
        link2 = (x2.slot, rule2, save2(ans, value1, value2))
        if value2.shape != shape or value2.dtype != dtype:
            link2 = (x2.slot, _fitted, (rule2, value2.shape, value2.dtype, *link2[2]))
        tape.append((link1, link2) if traced1 else (link2,))
        return Traced(ans, tape, len(tape) - 1)

    return operation(_named(call, name, "x1, x2, /", rule1, rule2), (rule1, rule2), functions.watch)


def stepwise(name: str, arguments: str = "x, /") -> Callable[..., Any]:
    """The function that the libraries call `name`, whose derivative is zero or does not exist: no gradient."""

    def call(*args: Any) -> Any:
        return _library_function(name, *args)(*args)

    return _named(constant(call), name, arguments)


def library(name: str) -> Callable[..., Any]:
    """The function that the libraries call `name`, of plain arrays: an operation that a profile counts.

    It is for functions that leave plain arrays to the library and compute with others when they are traced.
    """
    functions = _Functions(name)

    def call(*args: Any, **options: Any) -> Any:
        return functions.of(*args)(*args, **options)

    call.__name__ = call.__qualname__ = name.rpartition(".")[2]
    return operation(call, (), functions.watch)


def fit(g: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """A cotangent brought back to the shape and dtype of the argument it belongs to.

    Axes along which the argument was broadcast are summed; of a complex cotangent of a real argument the real
    part counts.
    """
    if g.shape != shape:
        extra = len(g.shape) - len(shape)
        stretched = [extra + i for i, n in enumerate(shape) if n == 1 and g.shape[extra + i] != 1]
        if not extra and len(shape) > 1 and stretched == [len(shape) - 1]:
            # A bias over samples. NumPy sums short rows slowly: (28, 28, 32) takes 18 µs, this product 5.
            ones = namespace(raw(g)).ones((g.shape[-1], 1), dtype=g.dtype)
            g = matmul(g, ones) if is_limited() and type(g) is not Traced else g @ ones
        else:
            g = g.sum(axis=(*range(extra), *stretched))
        if g.shape != shape:
            g = g.reshape(shape)
    if g.dtype != dtype:
        g = (g.real if g.dtype.kind == "c" and dtype.kind != "c" else g).astype(dtype)
    return g


def _fitted(g: Any, rule: Rule, shape: tuple[int, ...], dtype: Any, *saved: Any) -> Any:
    return fit(rule(g, *saved), shape, dtype)


class _Functions:
    """The libraries' functions of one name; `known` has some by the type of array, as they are watched."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.known: dict[type | None, Any] = {}
        self.change: Change = unwatched

    def of(self, *args: Any) -> Any:
        return self.change(_library_function(self.name, *args))

    def learn(self, kind: type, *args: Any) -> Any:
        change = self.change
        function = self.known[kind] = change(_library_function(self.name, *args))
        if change is not self.change:  # another thread began or ended a profile meanwhile
            self.known.pop(kind, None)
        return function

    def watch(self, change: Change) -> None:
        self.change = change
        self.known.clear()


def _library_function(name: str, *args: Any) -> Callable[..., Any]:
    try:
        return operator.attrgetter(name)(namespace(*args))
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None


def _saver(rule: Rule, parameters: str) -> Callable[..., tuple[Any, ...]]:
    """A function of (ans, *arguments) that returns the tuple of those that the rule names after g."""
    needs = "".join(f"{name}, " for name in list(inspect.signature(rule).parameters)[1:])
    return eval(f"lambda ans, {parameters}: ({needs})")


def _named(call: Any, name: str, arguments: str, *rules: Rule) -> Any:
    call.__name__ = call.__qualname__ = name
    call.__module__ = "cutnn"
    call.__doc__ = f"{name}({arguments}) of the Python array API standard, elementwise."
    if not rules:
        call.__doc__ += " It has no derivative: the gradient stops here."
    return call
