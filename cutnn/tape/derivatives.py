"""Derivatives of functions of pytrees: `vjp`, `grad`, and what follows from them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import optree

from cutnn._cores import held
from cutnn.device import lifted, namespace
from cutnn.tape.record import Tape, Traced, backward, primitive, raw

PYTREES = "cutnn"  # the optree namespace of modules


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """The leaves of a pytree, and what rebuilds it."""
    return optree.tree_flatten(tree, namespace=PYTREES)


def conj(x: Any) -> Any:
    return x.conj() if x.dtype.kind == "c" else x


def in_dtype(x: Any, dtype: Any) -> Any:
    """x in a dtype; of a complex array that becomes real, the real part."""
    if x.dtype == dtype:
        return x
    return (x.real if dtype.kind != "c" and x.dtype.kind == "c" else x).astype(dtype)


def _finish(cotangent: Any, leaf: Any) -> Any:
    """The public gradient of a leaf: conjugated, an array, of the leaf's dtype and shape."""
    if cotangent is None:
        value = raw(leaf)
        return namespace(value).zeros_like(value)
    cotangent = conj(in_dtype(cotangent, leaf.dtype))
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

    def __init__(
        self, name: str, f: Callable[..., Any], leaves: list[Any], rebuild: Callable[..., Any]
    ) -> None:
        self.tape = Tape()
        self.leaves = [lifted(_differentiable(name, leaf)) for leaf in leaves]
        result = f(*rebuild([self.tape.watch(leaf) for leaf in self.leaves]))
        self.ends, self.result_tree = flatten(result)

    def values(self) -> list[Any]:
        return [end.value if self._is_mine(end) else end for end in self.ends]

    def pull(self, cotangents: Sequence[Any], consume: bool = False) -> list[Any]:
        """Bilinear cotangents of the inputs, None where none arrived, given those of the results."""
        seeds: dict[int, Any] = {}
        for end, g in zip(self.ends, cotangents, strict=True):
            if g is not None and self._is_mine(end):
                seeds[end.slot] = g if end.slot not in seeds else seeds[end.slot] + g
        return backward(self.tape, seeds, len(self.leaves), consume)

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
    leaves, tree = flatten(args)
    trace = _Trace("vjp", f, leaves, tree.unflatten)
    values = trace.values()

    def pullback(cotangent: Any) -> tuple[Any, ...]:
        given, given_tree = flatten(cotangent)
        if given_tree != trace.result_tree:
            raise TypeError(f"pullback: the cotangent is {given_tree}, the value {trace.result_tree}")
        seeds = []
        for g, value in zip(given, values, strict=True):
            g = as_array(g)
            if g.shape != numpy.shape(raw(value)):
                raise ValueError(
                    f"pullback: a cotangent of shape {g.shape} for a value of shape {numpy.shape(raw(value))}"
                )
            seeds.append(conj(g))
        return tree.unflatten(trace.gradients(seeds))

    return trace.result_tree.unflatten([as_array(v) for v in values]), pullback


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

    @functools.wraps(f, updated=())
    @held()  # the cores share its products
    def call(*args: Any, **kwargs: Any) -> Any:
        picked = _positions("grad", argnums, len(args))
        leaves, tree = flatten(tuple(args[i] for i in picked))

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
                if not isinstance(result, (tuple, list)) or len(result) != 2:
                    raise TypeError(
                        f"grad with has_aux: f must return (loss, aux), not a {type(result).__name__}"
                    )
                result, aux = result
            return result

        trace = _Trace("grad", loss, leaves, rebuild)
        value = trace.values()[0] if len(trace.ends) == 1 else None
        shape = getattr(value, "shape", () if isinstance(value, (int, float)) else None)
        if shape != () or dtype_kind(value) == "c":
            raise TypeError(
                f"grad needs a loss that is one real number; this one is {_describe(value, trace)}. "
                "Reduce it (sum, mean, real, abs), or use vjp or jacobian"
            )
        one = namespace(raw(value)).ones((), dtype=raw(value).dtype) if hasattr(raw(value), "dtype") else 1.0
        gradients = tree.unflatten(trace.gradients([one], consume=True))
        gradient = gradients[0] if isinstance(argnums, int) else tuple(gradients)
        if has_aux:
            aux = optree.tree_map(
                lambda a: a.value if type(a) is Traced and a.tape is trace.tape else a, aux, namespace=PYTREES
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
    zeros = optree.tree_map(_float_zeros, value, namespace=PYTREES)
    _, pushforward = vjp(pullback, zeros)
    return value, pushforward(tuple(tangents))[0]


def jacobian(f: Callable[..., Any], argnums: int = 0) -> Callable[..., Any]:
    """A function that returns the derivative of f, of shape (*value.shape, *argument.shape).

    One backward pass for each entry of the value, two where the value is complex and the argument real. For
    complex arguments f must be holomorphic, and the result is its complex derivative.

    >>> import cutnn as ct
    >>> ct.jacobian(lambda x: x[:2] * x[1])(ct.asarray([1.0, 2.0]))
    array([[2., 1.],
           [0., 4.]])
    """

    @functools.wraps(f, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        (position,) = _positions("jacobian", argnums, len(args))

        def rebuild(traced: list[Any]) -> list[Any]:
            return [*args[:position], *traced, *args[position + 1 :]]

        trace = _Trace("jacobian", lambda *full: f(*full, **kwargs), [args[position]], rebuild)
        if len(trace.ends) != 1:
            raise TypeError(f"jacobian: f must return one array, not {trace.result_tree}")
        (value,), (leaf,) = trace.values(), trace.leaves
        plain = raw(value)
        xp = namespace(plain)
        plain = xp.asarray(plain)

        def row(entry: int, one: complex) -> Any:
            basis = xp.zeros(plain.size, dtype=plain.dtype)
            basis[entry] = one
            (g,) = trace.pull([xp.reshape(basis, plain.shape)])
            return conj(_finish(g, leaf))

        rows = [row(entry, 1) for entry in range(plain.size)]
        if plain.dtype.kind == "c" and leaf.dtype.kind != "c":  # Re of i·f is -Im of f
            rows = [real - row(entry, 1j) * 1j for entry, real in enumerate(rows)]
        if not rows:
            return xp.zeros((*plain.shape, *leaf.shape), dtype=xp.result_type(plain.dtype, leaf.dtype))
        return _stack_rows(*rows).reshape((*plain.shape, *leaf.shape))

    return call


def hessian(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns the second derivative of a real scalar f of real x, of shape (*x.shape, *x.shape).

    Of complex x one array cannot hold it: TypeError, use `hvp`.

    >>> import cutnn as ct
    >>> ct.hessian(lambda x: x[0] ** 2 * x[1])(ct.asarray([1.0, 2.0]))
    array([[4., 2.],
           [2., 0.]])
    """
    gradient = grad(f)

    def of_real(*args: Any, **kwargs: Any) -> Any:
        if dtype_kind(args[0]) == "c":
            raise TypeError(
                "hessian: the argument is complex, and the second derivative of a real function of it is more than "
                "one array; use hvp, or take real and imaginary part as two real arguments"
            )
        return gradient(*args, **kwargs)

    return jacobian(functools.wraps(f, updated=())(of_real))


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
    return optree.tree_map(raw, x, namespace=PYTREES)


# -------------------------------------------------------------------------------------------------- helpers


def _differentiable(name: str, leaf: Any) -> Any:
    """A leaf as an array (or outer traced array) of floats, or TypeError."""
    if isinstance(leaf, (int, float, complex)) and not isinstance(leaf, bool):
        return numpy.asarray(leaf, dtype=None if isinstance(leaf, complex) else float)
    if dtype_kind(leaf) in "fc":
        return numpy.asarray(leaf) if isinstance(leaf, numpy.generic) else leaf
    what = f"an array of {raw(leaf).dtype}" if hasattr(raw(leaf), "dtype") else f"a {type(leaf).__name__}"
    raise TypeError(
        f"{name}: only float and complex arrays have gradients, and this argument holds {what}; "
        "convert it, or choose the arguments to differentiate by argnums"
    )


def _positions(name: str, argnums: int | tuple[int, ...], count: int) -> tuple[int, ...]:
    """The arguments to differentiate, counted from the front."""
    if type(argnums) is int and 0 <= argnums < count:
        return (argnums,)
    picked = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if not picked or not all(isinstance(i, int) and -count <= i < count for i in picked):
        raise TypeError(
            f"{name}: argnums={argnums!r}, but the call has {count} positional arguments; "
            "argnums is the position of one of them, or a tuple of positions"
        )
    positions = tuple([i % count for i in picked])
    if len(set(positions)) != len(positions):
        raise TypeError(f"{name}: argnums={argnums} names an argument twice")
    return positions


def dtype_kind(x: Any) -> str:
    return getattr(getattr(raw(x), "dtype", None), "kind", "?")


def as_array(x: Any) -> Any:
    return numpy.asarray(x) if isinstance(x, (int, float, complex, numpy.generic)) else x


def _float_zeros(value: Any) -> Any:
    """A cotangent of a value, zero; of integers too."""
    plain = raw(value)
    return namespace(plain).zeros_like(plain, dtype=None if dtype_kind(plain) in "fc" else float)


def _describe(value: Any, trace: _Trace) -> str:
    if len(trace.ends) != 1:
        return f"a tree of {len(trace.ends)} leaves"
    if hasattr(raw(value), "dtype"):
        return f"an array of shape {raw(value).shape} and dtype {raw(value).dtype}"
    return f"a {type(value).__name__}"


@primitive(rows=lambda g, rows: [g[i] for i in range(len(rows))])
def _stack_rows(*rows: Any) -> Any:
    return namespace(*rows).stack(rows)
