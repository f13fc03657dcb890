"""A function of arrays, and its gradient, traced into graphs; and the programs that kernels are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from cutnn.array._fused.graph import OPERATIONS, Graph, Node, UnfusableError, evaluator, in_order
from cutnn.tape.record import Tape, Traced, backward


@dataclass(frozen=True, eq=False)
class Derivation:
    """A function as a graph, with the cotangents of its traced arguments.

    `arguments` has a node for each array and number, and None for what is part of the signature. `results` are the
    values of f, one where f returns no tuple. `g` is the cotangent of the result; `cotangents` belong to the traced
    arguments, in their order, None where f does not depend on one.
    """

    arguments: tuple[Node | None, ...]
    results: tuple[Node, ...]
    single: bool
    g: Node | None = None
    cotangents: tuple[Node | None, ...] = ()


def derive(f: Callable[..., Any], kinds: Sequence[Any], traced: Sequence[int] = ()) -> Derivation:
    """Trace f, and its gradient in the arguments at the positions `traced`.

    A kind is the dtype of an array, `float` for a number that may change, or `Static(value)`. Raises UnfusableError, or
    what f raises, where f is no elementwise function of its arrays.
    """
    graph = Graph()
    given: list[Any] = []
    for i, kind in enumerate(kinds):
        if isinstance(kind, numpy.dtype):
            given.append(graph.input(i, kind))
        else:
            given.append(graph.number(i) if kind is float else kind.value)
    arguments = tuple([a if type(a) is Node else None for a in given])
    tape = Tape()
    for i in traced:
        given[i] = tape.watch(given[i])
    answer = f(*given)
    single = not isinstance(answer, tuple)
    answers = (answer,) if single else answer
    results = tuple([a.value if type(a) is Traced and a.tape is tape else a for a in answers])
    if not results or not all(type(a) is Node and not a.uniform and a.op != "input" for a in results):
        raise UnfusableError("a result that is no expression of the arrays")
    if not traced:
        return Derivation(arguments, results, single)
    if not single or type(answer) is not Traced:
        raise UnfusableError("several results, or one that does not depend on what is differentiated")
    g = graph.input(-1, results[0].dtype)
    cotangents = backward(tape, {answer.slot: g}, len(traced), consume=True)
    return Derivation(arguments, results, single, g, tuple([_linear_in(g, c) for c in cotangents]))


class Static:
    """An argument that is part of the signature: an integer, a bool, None, a function."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _linear_in(g: Node, cotangent: Node | None) -> Node | None:
    """The cotangent, None where it does not depend on g: it is zero then."""
    return cotangent if cotangent is not None and any(n is g for n in in_order([cotangent])) else None


class Program:
    """What a kernel computes: from arrays `leaves` and `uniforms`, numbers, the nodes `body` one after the other.

    Each of `outputs` is one of `body`.
    """

    def __init__(self, leaves: Sequence[Node], outputs: Sequence[Node]) -> None:
        known = set(leaves)
        outputs = [self._computed(node, known) for node in outputs]
        nodes = list(in_order(outputs, lambda node: node in known or node.uniform))
        found = {node for node in nodes if node in known}
        self.leaves = tuple([leaf for leaf in leaves if leaf in found])
        self.taken = tuple([i for i, leaf in enumerate(leaves) if leaf in found])
        self.uniforms = tuple([node for node in nodes if node.uniform])
        self.body = tuple([node for node in nodes if node not in known and not node.uniform])
        self.outputs = tuple(outputs)

    @staticmethod
    def _computed(node: Node, known: set[Node]) -> Node:
        """An output that is an argument, or a number, is a copy of it."""
        return node.graph.function("positive")(node) if node in known or node.uniform else node

    def numbers(self, places: Sequence[Node]) -> Callable[..., tuple[Any, ...]]:
        """The uniform nodes, as a function of the numbers of a call, which belong to the nodes `places`."""
        return evaluator(self.uniforms, places)


@dataclass(frozen=True, eq=False)
class Pair:
    """The forward and the backward program of a function whose arguments have given shapes.

    Forward has the result first, then what is `kept` for backward; backward takes g, kept and result where it needs
    them, and the arguments at `needed`. `cotangents` says for each traced argument which output of backward is its
    own; -1 stands for g itself.
    """

    forward: Program
    kept: int
    backward: Program | None
    needed: tuple[int, ...]
    cotangents: tuple[int | None, ...]


def pair(derivation: Derivation, is_whole: Callable[[Node], bool]) -> Pair:
    """Split a derivation: what is dear to compute and `is_whole`, of the shape of the result, is kept, and no more.

    Everything else that backward needs is computed again from the arguments: to read them costs about as much as to
    read what was kept, and they mostly live as long. The result is there already, so backward may read it.
    """
    (result,) = derivation.results
    arrays = [a for a in derivation.arguments if a is not None and a.op == "input"]
    g = derivation.g
    ends = [c for c in derivation.cotangents if c is not None and c is not g]

    computed = set(in_order([result]))

    def is_leaf(node: Node) -> bool:
        if node is g or node.uniform or node.op == "input":
            return True
        if node not in computed:
            return False
        return node is result or (OPERATIONS[node.op].costly and is_whole(node))

    leaves = [n for n in in_order(ends, is_leaf) if is_leaf(n) and not n.uniform and n is not g]
    kept = [n for n in leaves if n.op != "input" and n is not result]
    needed = [n for n in leaves if n.op == "input"]
    own = list(dict.fromkeys(ends))
    forward = Program(arrays, [result, *kept])
    back = Program([g, result, *kept, *needed], own) if own and g is not None else None
    place = {node: i for i, node in enumerate(own)}
    cotangents = tuple([None if c is None else -1 if c is g else place[c] for c in derivation.cotangents])
    return Pair(forward, len(kept), back, tuple([n.value for n in needed]), cotangents)
