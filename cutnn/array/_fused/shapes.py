"""How the entries of a kernel are walked over: axes drawn together, parts for the cores, blocks for the cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy

from cutnn._cores import one_thread, share
from cutnn.array._fused.derive import Program
from cutnn.array._fused.graph import Node

Shape = tuple[int, ...]
Place = tuple[slice, ...]
Run = Callable[..., list[Any]]
"""run(leaves, uniforms, out=None): the outputs of a program, new arrays, or those of the list `out` that lie alike."""


def node_shapes(program: Program, leaves: Sequence[Shape]) -> dict[Node, Shape]:
    """The shapes of all nodes of a program, given those of its leaves."""
    shapes: dict[Node, Shape] = {node: () for node in program.uniforms}
    shapes.update(zip(program.leaves, leaves, strict=True))
    for node in program.body:
        shapes[node] = numpy.broadcast_shapes(*[shapes[a] for a in node.args])
    return shapes


def collapsed(shape: Shape, operands: Sequence[Shape]) -> tuple[Shape, list[Shape]]:
    """The shape, and those of the operands that broadcast to it, in as few axes as there can be.

    >>> collapsed((32, 96, 20), [(32, 96, 20), (96, 1), ()])
    ((32, 96, 20), [(32, 96, 20), (1, 96, 1), (1, 1, 1)])
    >>> collapsed((32, 96, 20), [(32, 96, 20), (32, 1, 1)])
    ((32, 1920), [(32, 1920), (32, 1)])
    """
    full = [(1,) * (len(shape) - len(s)) + tuple(s) for s in operands]
    axes: list[tuple[int, tuple[bool, ...]]] = []  # the length of an axis, and who has it
    for i, n in enumerate(shape):
        if n == 1:
            continue
        has = tuple([s[i] != 1 for s in full])
        if axes and axes[-1][1] == has:
            axes[-1] = (axes[-1][0] * n, has)
        else:
            axes.append((n, has))
    axes = axes or [(1, (True,) * len(full))]
    whole = tuple([n for n, _ in axes])
    return whole, [tuple([n if has[k] else 1 for n, has in axes]) for k in range(len(full))]


def parts(shape: Shape, entries: int) -> list[Place]:
    """Cuts of an array of that shape into blocks of about so many entries, along its first axis, or its first two.

    >>> parts((4, 10), 20)
    [(slice(0, 2, None),), (slice(2, 4, None),)]
    >>> parts((1, 10), 5)
    [(slice(0, 1, None), slice(0, 5, None)), (slice(0, 1, None), slice(5, 10, None))]
    """
    inner = math.prod(shape[1:])
    if inner > entries and len(shape) > 1:
        return [(slice(i, i + 1), *rest) for i in range(shape[0]) for rest in parts(shape[1:], entries)]
    rows = max(1, entries // max(1, inner))
    return [(slice(i, min(i + rows, shape[0])),) for i in range(0, shape[0], rows)]


def place_in(place: Place, shape: Shape) -> Place:
    """The part of an operand that goes with a part of the whole."""
    return tuple([p if n != 1 else slice(None) for p, n in zip(place, shape, strict=False)])


def places(shape: Shape, kinds: Sequence[Any], out: Sequence[Any] | None) -> list[Any]:
    """Where the outputs go, seen in that shape: new arrays in C order, or those given, which are so too."""
    if out is None:
        return [numpy.empty(shape, kind) for kind in kinds]
    return [y.reshape(shape) for y in out]


def shared(work: Callable[[Iterator[Any]], None], todo: Sequence[Any]) -> None:
    """work(items) on all cores, each with the items that it takes; a single one is the caller's."""
    if len(todo) == 1:
        work(iter(todo))
        return
    with one_thread() as threads:
        share(work, todo, threads)
