"""Elementwise expressions as graphs: a node is an operation on one entry of each array.

A node answers Python's operators, cutnn's functions and NumPy's ufuncs with further nodes, so a function written for
arrays draws its own graph when it is called on nodes; so does its gradient, with nodes as the values of traced arrays.
Equal expressions are one node. Types are NumPy's: a node says in which dtype it computes, and casts are nodes too.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy

from cutnn.array._methods import STANDARD


class UnfusableError(TypeError):
    """A function does what is not elementwise, or asks for the value or the shape of an array."""


class Node:
    """One entry of an expression.

    `op` is "input" (an array), "number" (a float given at each call), "const", or the standard's name of a function
    of the nodes `args`. `dtype` is None for floats of Python, whose precision gives way to that of arrays; `value` is
    that of a constant, or the position of an input.
    """

    __slots__ = ("args", "dtype", "graph", "op", "uniform", "value")

    def __init__(self, graph: Graph, op: str, args: tuple[Node, ...], dtype: Any, value: Any) -> None:
        self.graph, self.op, self.args, self.dtype, self.value = graph, op, args, dtype, value
        self.uniform: bool = op != "input" and all(a.uniform for a in args)  # the same number for all entries

    @property
    def shape(self) -> Any:
        return _NO_SHAPE

    def astype(self, dtype: Any, copy: bool = True) -> Node:
        return self.graph.cast(self, numpy.dtype(dtype))

    @property
    def real(self) -> Node:
        return self.graph.function("real")(self)

    @property
    def imag(self) -> Node:
        return self.graph.function("imag")(self)

    def conj(self) -> Node:
        return self.graph.function("conj")(self) if _kind(self) == "c" else self

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return Functions()

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Node:
        if method != "__call__" or kwargs:
            raise UnfusableError(f"numpy.{ufunc.__name__}.{method} with options")
        return self.graph.function(STANDARD.get(ufunc.__name__, ufunc.__name__))(*args)

    def _unknown(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UnfusableError("the value of an array is asked for")

    __bool__ = __float__ = __int__ = __index__ = __complex__ = __len__ = __iter__ = __getitem__ = _unknown
    __array__ = __array_function__ = _unknown
    __hash__ = object.__hash__


class _NoShape:
    """The shape of a node: all nodes have the same, and it is not to be looked into."""

    def _unknown(self, *args: Any) -> NoReturn:
        raise UnfusableError("the shape of an array is asked for")

    __getitem__ = __len__ = __iter__ = __bool__ = _unknown


_NO_SHAPE = _NoShape()


class Graph:
    """The nodes of one function, each expression once."""

    def __init__(self) -> None:
        self._known: dict[Any, Node] = {}

    def input(self, position: int, dtype: Any) -> Node:
        return self._node("input", (), dtype, position)

    def number(self, position: int) -> Node:
        return self._node("number", (), None, position)

    def const(self, value: Any) -> Node:
        """A constant; a number of Python stays one, and has no dtype."""
        if type(value) in (bool, int, float, complex):
            return self._node("const", (), None, value)
        if isinstance(value, numpy.generic) and value.dtype.kind in "bifcu":
            return self._node("const", (), value.dtype, value)
        raise UnfusableError(f"a {type(value).__name__} among its operands")

    def cast(self, x: Node, dtype: Any) -> Node:
        if x.dtype is not None and x.dtype == dtype:  # NumPy has None == float64
            return x
        if x.op == "const":
            return self.const(numpy.asarray(x.value).astype(dtype)[()])
        if _kind(x) == "c" and dtype.kind != "c":
            raise UnfusableError("a complex array cast to a real one")
        return self._node("astype", (x,), dtype, None)

    def function(self, name: str) -> Callable[..., Node]:
        """The function of nodes that the standard calls `name`."""
        if name not in OPERATIONS:
            raise UnfusableError(f"{name} is no elementwise function that is known here")
        return lambda *args: self._apply(name, [a if type(a) is Node else self.const(a) for a in args])

    def _apply(self, name: str, args: list[Node]) -> Node:
        loop, result = _types(name, args)
        if all(a.op == "const" for a in args):
            return self.const(_value(name, [a.value for a in args]))
        return self._node(name, tuple(self.cast(a, t) for a, t in zip(args, loop, strict=True)), result, None)

    def weak(self, name: str, *args: Any) -> Node:
        """An operator between floats of Python: computed as one, of no dtype."""
        nodes = [a if type(a) is Node else self.const(a) for a in args]
        return self._node(name, tuple(nodes), None, None)

    def _node(self, op: str, args: tuple[Node, ...], dtype: Any, value: Any) -> Node:
        # By its repr, since 1 == 1.0 == True, 0.0 == -0.0, and nan is not itself.
        key = (op, args, dtype, type(value), repr(value))
        if (node := self._known.get(key)) is None:
            node = self._known[key] = Node(self, op, args, dtype, value)
        return node


class Functions:
    """The namespace that a node belongs to: what cutnn's functions look theirs up in."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("zeros_like", "ones_like"):
            value = 0 if name == "zeros_like" else 1
            return lambda x: x.graph.const(numpy.dtype(x.dtype or float).type(value))
        if name == "clip":
            return _clip
        return lambda *args: _graph(args).function(name)(*args)


def _clip(x: Any, low: Any = None, high: Any = None) -> Any:
    graph = _graph((x, low, high))
    x = x if low is None else graph.function("maximum")(x, low)
    return x if high is None else graph.function("minimum")(x, high)


def _graph(args: Iterable[Any]) -> Graph:
    for a in args:
        if type(a) is Node:
            return a.graph
    raise UnfusableError("no array among the operands")


# --------------------------------------------------------------------------------------------- operations


class Operation(NamedTuple):
    """What computes an operation on arrays: a ufunc, or None for those that are none."""

    ufunc: Any
    costly: bool = False  # dearer than to read its result back from memory


_CHEAP = (
    "add subtract multiply divide negative positive square reciprocal abs conj maximum minimum copysign ceil floor "
    "trunc sign signbit isfinite isinf isnan logical_not logical_and logical_or logical_xor equal not_equal less "
    "less_equal greater greater_equal sqrt"
).split()
_COSTLY = (
    "pow remainder floor_divide exp expm1 log log1p log2 log10 logaddexp sin cos tan asin acos atan sinh cosh tanh "
    "asinh acosh atanh atan2 hypot"
).split()
OPERATIONS: dict[str, Operation] = {name: Operation(getattr(numpy, name)) for name in _CHEAP}
OPERATIONS |= {name: Operation(getattr(numpy, name), costly=True) for name in _COSTLY}
OPERATIONS |= {"round": Operation(numpy.rint)}
OPERATIONS |= {name: Operation(None) for name in ("where", "astype", "real", "imag")}


def _types(name: str, args: list[Node]) -> tuple[tuple[Any, ...], Any]:
    """The dtypes that an operation takes, those of its arguments brought together, and that of its result."""
    given: list[Any] = [a.dtype if a.dtype is not None else _weak_type(a) for a in args]
    if name == "where":
        alike = numpy.result_type(*[a if isinstance(a, numpy.dtype) else a(0) for a in given[1:]])
        return (numpy.dtype(bool), alike, alike), alike
    if name in ("real", "imag"):
        (dtype,) = given
        return (dtype,), numpy.empty(0, dtype).real.dtype
    ufunc = OPERATIONS[name].ufunc
    if ufunc.nin != len(args):
        raise UnfusableError(f"{name} of {len(args)} arguments")
    *loop, result = ufunc.resolve_dtypes((*given, None))
    return tuple(loop), result


def _weak_type(a: Node) -> type:
    return type(a.value) if a.op == "const" else float


def _value(name: str, values: list[Any]) -> Any:
    if name == "where":
        return numpy.where(*values)[()]
    if name in ("real", "imag"):
        return getattr(numpy, name)(values[0])
    return OPERATIONS[name].ufunc(*values)


def _kind(x: Node) -> str:
    return "f" if x.dtype is None else x.dtype.kind


_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "mod": "remainder", "pow": "pow",
    "floordiv": "floor_divide",
}  # fmt: skip
_COMPARISONS = {
    "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
    "and": "logical_and", "or": "logical_or", "xor": "logical_xor",
}  # fmt: skip
_SIGNS = {"neg": "negative", "pos": "positive", "abs": "abs"}


def _operator(python: str, name: str, swapped: bool) -> Callable[[Node, Any], Any]:
    def method(self: Node, other: Any) -> Any:
        if not isinstance(other, (Node, int, float, complex, numpy.generic)):
            return NotImplemented
        pair = (other, self) if swapped else (self, other)
        if all(type(x) in (bool, int, float) or (type(x) is Node and x.dtype is None) for x in pair):
            return self.graph.weak(python, *pair)
        if name == "pow" and type(pair[1]) is int and pair[1] == 2:
            return self.graph.function("square")(pair[0])
        return self.graph.function(name)(*pair)

    return method


def _logical(name: str) -> Callable[[Node, Any], Any]:
    """& and | and ^, of what is true or false."""

    def method(self: Node, other: Any) -> Any:
        if any(getattr(getattr(x, "dtype", None), "kind", "") != "b" for x in (self, other)):
            raise UnfusableError("an operator on the bits of an array")
        return self.graph.function(name)(self, other)

    return method


def _sign(python: str, name: str) -> Callable[[Node], Node]:
    def method(self: Node) -> Node:
        return self.graph.weak(python, self) if self.dtype is None else self.graph.function(name)(self)

    return method


for _python, _name in _OPERATORS.items():
    setattr(Node, f"__{_python}__", _operator(_python, _name, swapped=False))
    setattr(Node, f"__r{_python}__", _operator(_python, _name, swapped=True))
for _python, _name in _COMPARISONS.items():
    if _name.startswith("logical"):
        setattr(Node, f"__{_python}__", _logical(_name))
    else:
        setattr(Node, f"__{_python}__", _operator(_python, _name, swapped=False))
for _python, _name in _SIGNS.items():
    setattr(Node, f"__{_python}__", _sign(_python, _name))


# ----------------------------------------------------------------------------------------------- walks


def in_order(ends: Iterable[Node], stop: Callable[[Node], bool] = lambda node: False) -> Iterator[Node]:
    """The nodes that `ends` are made of, arguments first, each once; none below a node where `stop` holds."""
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(end, False) for end in reversed(list(ends))]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            if not stop(node):
                stack += [(a, False) for a in reversed(node.args)]


def evaluator(nodes: Sequence[Node], places: Sequence[Node]) -> Callable[..., tuple[Any, ...]]:
    """A function of the numbers that the nodes `places` stand for, which gives the values of uniform nodes.

    It is written out as text: a walk over the nodes took 5 µs, at every call.
    """
    known: dict[str, Any] = {}
    names: dict[Node, str] = {place: f"n{i}" for i, place in enumerate(places)}
    lines = []
    for k, node in enumerate(in_order(nodes)):
        if node in names:
            continue
        args = ", ".join(names[a] for a in node.args)
        names[node] = f"v{k}"
        if node.op == "const":
            known[f"v{k}"] = node.value
            continue
        if node.dtype is None:
            known[f"f{k}"] = getattr(operator, f"__{node.op}__")
        elif node.op == "astype":
            known[f"f{k}"] = node.dtype.type
        else:
            known[f"f{k}"] = functools.partial(_value, node.op)
            args = f"[{args}]"
        lines.append(f"    v{k} = f{k}({args})")
    head = f"def numbers({', '.join(names[place] for place in places)}):"
    exec("\n".join([head, *lines, f"    return ({''.join(names[node] + ', ' for node in nodes)})"]), known)
    function: Callable[..., tuple[Any, ...]] = known["numbers"]
    return function
