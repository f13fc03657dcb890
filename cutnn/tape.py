"""Reverse-mode differentiation: a tape is a list, a record says how a cotangent flows back.

Each call of a primitive on a traced array appends one record: the slots of its inputs, the rule (the
vector-Jacobian product) of each, and what that rule saved. The backward pass is one loop from the end of the
list. Derivatives of derivatives come from tapes that nest: a traced array remembers its own tape, its value may
itself be a traced array of an outer tape, and rules are written in differentiable functions. There is no global
state, so threads do not meet.

This module knows nothing of any particular function; `cutnn.array` defines those.

Complex gradients are PyTorch's: for a real loss L the gradient is ∂L/∂Re z + i ∂L/∂Im z, the direction of
steepest ascent, and the pullback of a linear map is its adjoint. Inside, rules are *bilinear*: they work on the
conjugates of those cotangents, so a rule multiplies by the derivative itself and transposes without conjugating.
The two ends of the pass conjugate. Rules are simpler, the result is the same.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy
import optree

from cutnn.device import namespace

__all__ = [
    "NotDifferentiableError",
    "Scattered",
    "Tape",
    "Traced",
    "checkpoint",
    "constant",
    "custom_vjp",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "nondifferentiable",
    "primitive",
    "raw",
    "stop_gradient",
    "value_and_grad",
    "vjp",
]

Function = TypeVar("Function", bound=Callable[..., Any])
Rule = Callable[..., Any]

_PYTREES = "cutnn"  # the optree namespace of modules
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
    index: int
    count: int


# ---------------------------------------------------------------------------------------------- primitives


def primitive(**rules: Rule | nondifferentiable) -> Callable[[Function], Function]:
    """Make a function of arrays differentiable, given the rule of each array it depends on.

    A rule is keyed by a parameter of the decorated function. Its first parameter is `g`, the cotangent of the
    result; the others name what it needs, and only that is kept alive: `ans` (the result) or any parameter of
    the function, traced or not. It returns the cotangent of its parameter, or None for zero. Rules are bilinear
    (see the top of this file) and written in differentiable functions.

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
        ways = [
            (names.index(name), rule, _needs(forward, name, rule, names)) for name, rule in rules.items()
        ]

        @functools.wraps(forward)
        def call(*args: Any, **kwargs: Any) -> Any:
            tape = _innermost(args)
            if kwargs:
                tape = _innermost(kwargs.values(), tape)
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
            return _append(tape, tuple(links), ans) if links else ans

        return call  # type: ignore[return-value]

    return decorate


def constant(function: Function) -> Function:
    """A function without derivative: it takes traced arrays, computes on their values, stops the gradient."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            kwargs = {name: raw(a) for name, a in kwargs.items()}
        return function(*[raw(a) for a in args], **kwargs)

    return call  # type: ignore[return-value]


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
        tape = _innermost(arrays)
        if tape is None:
            return forward(*arrays, **kwargs)
        values = tuple([a.value if type(a) is Traced and a.tape is tape else a for a in arrays])
        ans = call(*values, **kwargs)
        slots = tuple([a.slot if type(a) is Traced and a.tape is tape else None for a in arrays])
        given = {n: signature.parameters[n].default for n in keywords} | kwargs
        given |= {name: values, "ans": ans}
        saved = tuple([given[n] for n in needs])
        return _append(tape, ((slots, rule, saved),), ans)

    return call  # type: ignore[return-value]


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


def _innermost(args: Any, tape: Tape | None = None) -> Tape | None:
    for a in args:
        if type(a) is Traced and (tape is None or a.tape.order > tape.order):
            tape = a.tape
    return tape


def _append(tape: Tape, record: Any, ans: Any) -> Any:
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


def _backward(tape: Tape, seeds: dict[int, Any], inputs: int, consume: bool) -> list[Any]:
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
                whole = cotangents[record.whole] = [None] * record.count
            whole[record.index] = g
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


def _conj(x: Any) -> Any:
    return x.conj() if x.dtype.kind == "c" else x


def _finish(cotangent: Any, leaf: Any) -> Any:
    """The public gradient of a leaf: conjugated, an array, of the leaf's dtype and shape."""
    if cotangent is None:
        value = raw(leaf)
        return namespace(value).zeros_like(value)
    if cotangent.dtype != leaf.dtype:
        cotangent = cotangent.real if leaf.dtype.kind != "c" else cotangent
        cotangent = cotangent.astype(leaf.dtype)
    cotangent = _conj(cotangent)
    return numpy.asarray(cotangent) if isinstance(cotangent, numpy.generic) else cotangent


def _own(gradient: Any, taken: set[int]) -> Any:
    """The gradient, copied where writing to it would change another array, or itself elsewhere."""
    if type(gradient) is Traced:
        return gradient
    stretched = any(stride == 0 and n > 1 for stride, n in zip(gradient.strides, gradient.shape, strict=True))
    if stretched or id(_owner(gradient)) in taken:
        gradient = gradient.copy()
    taken.add(id(_owner(gradient)))
    return gradient


def _owner(x: Any) -> Any:
    """The array that owns x's memory."""
    while getattr(x, "base", None) is not None:
        x = x.base
    return x


# ---------------------------------------------------------------------------------------------- derivatives


class _Trace:
    """One run of a function on watched inputs: its value, and its pullback."""

    def __init__(self, name: str, f: Callable[..., Any], leaves: list[Any], rebuild: Callable[..., Any]) -> None:
        self.tape = Tape()
        self.leaves = [_differentiable(name, leaf) for leaf in leaves]
        result = f(*rebuild([self.tape.watch(leaf) for leaf in self.leaves]))
        self.ends, self.result_tree = optree.tree_flatten(result, namespace=_PYTREES)

    def values(self) -> list[Any]:
        return [end.value if self._is_mine(end) else end for end in self.ends]

    def pull(self, cotangents: Sequence[Any], consume: bool = False) -> list[Any]:
        """Bilinear cotangents of the inputs, None where none arrived, given those of the results."""
        seeds: dict[int, Any] = {}
        for end, g in zip(self.ends, cotangents, strict=True):
            if g is not None and self._is_mine(end):
                seeds[end.slot] = g if end.slot not in seeds else seeds[end.slot] + g
        return _backward(self.tape, seeds, len(self.leaves), consume)

    def gradients(self, cotangents: Sequence[Any], consume: bool = False) -> list[Any]:
        """Public gradients of the inputs; no two share memory with each other or with what was given."""
        taken = {id(_owner(g)) for g in cotangents}
        return [
            _own(_finish(g, leaf), taken)
            for g, leaf in zip(self.pull(cotangents, consume), self.leaves, strict=True)
        ]

    def _is_mine(self, end: Any) -> bool:
        return type(end) is Traced and end.tape is self.tape


def vjp(f: Callable[..., Any], *args: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """The value f(*args) and its pullback, which maps a cotangent of the value to those of the arguments.

    Arguments and value may be pytrees. The pullback takes a cotangent of the value's structure, shapes and
    dtypes and returns a tuple with one entry an argument; it may be called many times, and be differentiated.
    For complex arrays it is the adjoint of the derivative.

    >>> import cutnn as ct
    >>> y, pullback = ct.vjp(lambda x: x**2, ct.asarray([1.0, 2.0]))
    >>> pullback(ct.asarray([1.0, 10.0]))
    (array([ 2., 40.]),)
    """
    leaves, tree = optree.tree_flatten(args, namespace=_PYTREES)
    trace = _Trace("vjp", f, leaves, tree.unflatten)
    values = trace.values()

    def pullback(cotangent: Any) -> tuple[Any, ...]:
        given, given_tree = optree.tree_flatten(cotangent, namespace=_PYTREES)
        if given_tree != trace.result_tree:
            raise TypeError(f"pullback: the cotangent is {given_tree}, the value {trace.result_tree}")
        seeds = []
        for g, value in zip(given, values, strict=True):
            g = g if type(g) is Traced or hasattr(g, "dtype") else _as_array(g)
            if g.shape != numpy.shape(raw(value)):
                raise ValueError(
                    f"pullback: a cotangent of shape {g.shape} for a value of shape {numpy.shape(raw(value))}"
                )
            seeds.append(_conj(g))
        return tree.unflatten(trace.gradients(seeds))  # type: ignore[return-value]

    return trace.result_tree.unflatten([_as_array(v) for v in values]), pullback


def value_and_grad(
    f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns f's value, a real scalar, and its gradient.

    `argnums` says which argument, or which tuple of arguments, to differentiate; each may be a pytree (a model),
    and its gradient has the same structure. With `has_aux` f returns (loss, aux), and the result is
    ((loss, aux), gradient). A gradient has the dtype of what it is the gradient of; for complex arrays it is
    ∂L/∂Re z + i ∂L/∂Im z. Raises TypeError when the loss is not a real scalar or an argument is not of floats.

    >>> import cutnn as ct
    >>> ct.value_and_grad(lambda x: ct.sum(x**2))(ct.asarray([1.0, 2.0]))
    (np.float64(5.0), array([2., 4.]))
    """
    picked = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(f, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        if max(picked) >= len(args):
            raise TypeError(f"grad: argnums={argnums}, but the call has {len(args)} positional arguments")
        leaves, tree = optree.tree_flatten(tuple(args[i] for i in picked), namespace=_PYTREES)

        def rebuild(traced: list[Any]) -> list[Any]:
            full = list(args)
            for i, arg in zip(picked, tree.unflatten(traced), strict=True):
                full[i] = arg
            return full

        aux: Any = None

        def loss(*full: Any) -> Any:
            nonlocal aux
            result = f(*full, **kwargs)
            if has_aux:
                result, aux = result
            return result

        trace = _Trace("grad", loss, leaves, rebuild)
        value = trace.values()[0] if len(trace.ends) == 1 else None
        shape = getattr(value, "shape", () if isinstance(value, (int, float)) else None)
        if shape != () or _kind(value) == "c":
            raise TypeError(
                f"grad needs a loss that is one real number; this one is {_describe(value, trace)}. "
                "Reduce it (sum, mean, real, abs), or use vjp or jacobian"
            )
        one = namespace(raw(value)).ones((), dtype=raw(value).dtype) if hasattr(raw(value), "dtype") else 1.0
        gradients = tree.unflatten(trace.gradients([one], consume=True))
        gradient = gradients[0] if isinstance(argnums, int) else tuple(gradients)
        if has_aux:
            aux = optree.tree_map(
                lambda a: a.value if type(a) is Traced and a.tape is trace.tape else a, aux, namespace=_PYTREES
            )
            return (value, aux), gradient
        return value, gradient

    return call


def grad(
    f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns the gradient of f, a real scalar: `value_and_grad` without the value.

    With `has_aux` it returns (gradient, aux).

    >>> import cutnn as ct
    >>> ct.grad(ct.grad(lambda x: x**3))(2.0)
    array(12.)
    """
    both = value_and_grad(f, argnums, has_aux)

    @functools.wraps(f, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return call


def jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """The value f(*primals) and its derivative in the direction `tangents`.

    It is the pullback of the pullback, so it costs a few passes; every function with a gradient has it.

    >>> import cutnn as ct
    >>> ct.jvp(lambda x: x**2, (ct.asarray([1.0, 2.0]),), (ct.asarray([1.0, 0.0]),))[1]
    array([2., 0.])
    """
    value, pullback = vjp(f, *primals)
    zeros = optree.tree_map(lambda v: namespace(raw(v)).zeros_like(raw(v)), value, namespace=_PYTREES)
    _, pushforward = vjp(pullback, zeros)
    return value, pushforward(tuple(tangents))[0]


def jacobian(f: Callable[..., Any], argnums: int = 0) -> Callable[..., Any]:
    """A function that returns the derivative of f, of shape (*value.shape, *argument.shape).

    One backward pass for each entry of the value. For complex arguments f must be holomorphic, and the result is
    its complex derivative.

    >>> import cutnn as ct
    >>> ct.jacobian(lambda x: x[:2] * x[1])(ct.asarray([1.0, 2.0]))
    array([[2., 1.],
           [0., 4.]])
    """

    @functools.wraps(f, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        def rebuild(traced: list[Any]) -> list[Any]:
            return [*args[:argnums], *traced, *args[argnums + 1 :]]

        trace = _Trace("jacobian", lambda *full: f(*full, **kwargs), [args[argnums]], rebuild)
        if len(trace.ends) != 1:
            raise TypeError(f"jacobian: f must return one array, not {trace.result_tree}")
        (value,), (leaf,) = trace.values(), trace.leaves
        plain = raw(value)
        xp = namespace(plain)
        plain = xp.asarray(plain)
        rows = []
        for entry in range(plain.size):
            basis = xp.zeros(plain.size, dtype=plain.dtype)
            basis[entry] = 1
            (g,) = trace.pull([xp.reshape(basis, plain.shape)])
            rows.append(_conj(_finish(g, leaf)))
        if not rows:
            return xp.zeros((*plain.shape, *leaf.shape), dtype=leaf.dtype)
        return _stack_rows(*rows).reshape((*plain.shape, *leaf.shape))

    return call


def hessian(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns the second derivative of a real scalar f, of shape (*x.shape, *x.shape).

    >>> import cutnn as ct
    >>> ct.hessian(lambda x: x[0] ** 2 * x[1])(ct.asarray([1.0, 2.0]))
    array([[4., 2.],
           [2., 0.]])
    """
    return jacobian(grad(f))


def hvp(f: Callable[..., Any], x: Any, v: Any) -> Any:
    """The Hessian of a real scalar f at x, times v; x and v are pytrees of one structure.

    >>> import cutnn as ct
    >>> ct.hvp(lambda x: ct.sum(x**3), ct.asarray([1.0, 2.0]), ct.asarray([1.0, 1.0]))
    array([ 6., 12.])
    """
    return vjp(grad(f), x)[1](v)[0]  # the Hessian is its own adjoint


def stop_gradient(x: Any) -> Any:
    """The plain arrays of a pytree, cut from every trace.

    >>> import cutnn as ct
    >>> ct.grad(lambda x: x * ct.stop_gradient(x))(3.0)
    array(3.)
    """
    return optree.tree_map(raw, x, namespace=_PYTREES)


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
        functools.update_wrapper(self, f, updated=())  # type: ignore[arg-type]
        self._f = f
        self._forward: Callable[..., Any] | None = None
        self._backward: Callable[..., Any] | None = None

    def defvjp(self, forward: Callable[..., Any], backward: Callable[..., Any]) -> None:
        self._forward, self._backward = forward, backward

    def __call__(self, *args: Any) -> Any:
        name = getattr(self, "__name__", "function")
        forward, backward = self._forward, self._backward
        leaves, tree = optree.tree_flatten(args, namespace=_PYTREES)
        if _innermost(leaves) is None:
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
                count = optree.tree_structure(arg, namespace=_PYTREES).num_leaves
                flat += [None] * count if part is None else optree.tree_leaves(part, namespace=_PYTREES)
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
        leaves, tree = optree.tree_flatten((f, args, kwargs), namespace=_PYTREES)

        def again(values: Sequence[Any]) -> Any:
            inner, inner_args, inner_kwargs = tree.unflatten(values)
            return inner(*inner_args, **inner_kwargs)

        tape = _innermost(leaves)
        if tape is None:
            return f(*args, **kwargs)
        moving = [i for i, a in enumerate(leaves) if type(a) is Traced and a.tape is tape]

        def run(values: list[Any]) -> Any:
            if _innermost(values) is None:
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
    tape = _innermost(leaves)
    assert tape is not None
    values = [a.value if type(a) is Traced and a.tape is tape else a for a in leaves]
    slots = tuple([a.slot if type(a) is Traced and a.tape is tape else None for a in leaves])
    ends, tree = optree.tree_flatten(run(values), namespace=_PYTREES)
    if any(type(end) is Traced and end.tape is tape for end in ends):
        raise TypeError(f"{name} uses a traced array that is not one of its arguments; pass it as one")

    def rule(g: Any) -> list[Any]:
        given = [
            _conj(part) if part is not None else namespace(raw(end)).zeros_like(raw(end))
            for part, end in zip(g, ends, strict=True)
        ]
        return [h if h is None else _conj(h) for h in pull(values, tree.unflatten(given))]

    return tree.unflatten(_append(tape, ((slots, rule, ()),), tuple(ends)))


# -------------------------------------------------------------------------------------------------- helpers


def _differentiable(name: str, leaf: Any) -> Any:
    """A leaf as an array (or outer traced array) of floats, or TypeError."""
    if isinstance(leaf, (int, float, complex)) and not isinstance(leaf, bool):
        return numpy.asarray(leaf, dtype=None if isinstance(leaf, complex) else float)
    if _kind(leaf) in "fc":
        return numpy.asarray(leaf) if isinstance(leaf, numpy.generic) else leaf
    what = f"an array of {raw(leaf).dtype}" if hasattr(raw(leaf), "dtype") else f"a {type(leaf).__name__}"
    raise TypeError(
        f"{name}: only float and complex arrays have gradients, and this argument holds {what}; "
        "convert it, or choose the arguments to differentiate by argnums"
    )


def _kind(x: Any) -> str:
    return getattr(getattr(raw(x), "dtype", None), "kind", "?")


def _as_array(x: Any) -> Any:
    return numpy.asarray(x) if isinstance(x, (int, float, complex, numpy.generic)) else x


def _describe(value: Any, trace: _Trace) -> str:
    if len(trace.ends) != 1:
        return f"a tree of {len(trace.ends)} leaves"
    if hasattr(raw(value), "dtype"):
        return f"an array of shape {raw(value).shape} and dtype {raw(value).dtype}"
    return f"a {type(value).__name__}"


@primitive(rows=lambda g, rows: [g[i] for i in range(len(rows))])
def _stack_rows(*rows: Any) -> Any:
    return namespace(*rows).stack(rows)
