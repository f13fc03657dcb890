"""A program as NumPy's ufuncs, one after the other: over whole arrays, or over blocks that the cores share.

Blocks are large: each ufunc takes Python's lock back when it ends, and two threads then wait for one another some ten
µs. Measured on two cores (AMD EPYC, 512 KiB of L2 each), float32, µs for z - h tanh(s + b) of 32 × 96 × 32, × 256 and
× 1024 entries: the plain function 357, 2989, 14302; blocks of 16384 entries 308, 1742, 7265, of 32768 287, 1612, 6759,
of 131072 349 (one block), 1541, 6693. On one core all are within 5 % of the plain function, whose time is that of tanh.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy

from cutnn.array._fused.derive import Program
from cutnn.array._fused.graph import OPERATIONS, Node
from cutnn.array._fused.shapes import Run, Shape, collapsed, node_shapes, parts, place_in, places, shared

BLOCKS = (65536, 131072)
"""The least and the most entries a block; between them there are four blocks."""

IN_PLACE = 65536
"""Entries a block where arrays are written in place."""


def compiled(program: Program, shapes: Sequence[Shape], whole: Shape) -> Run:
    """What runs a program on arrays of these shapes, whose outputs are each of shape `whole`."""
    if math.prod(whole) >= 2 * BLOCKS[0]:
        return _over_blocks(program, shapes, whole)
    found = node_shapes(program, shapes)
    new = _made(_direct(program, found))
    into = functools.cache(lambda: _made(_direct(program, found, into=True)))

    def run(leaves: Sequence[Any], uniforms: Sequence[Any], out: Sequence[Any] | None = None) -> list[Any]:
        results: list[Any] = new(leaves, uniforms) if out is None else into()(leaves, uniforms, out)
        return results

    return run


def compiled_into(program: Program) -> Callable[..., None]:
    """What runs a program on flat arrays of one size: run(leaves, uniforms) writes the outputs to the first leaves.

    A leaf that is read once more after its output is known is written at the end.
    """
    count = len(program.outputs)
    text, kinds = _block(program, set(program.leaves), dict(enumerate(range(count))))
    block = _made(text)

    def run(leaves: Sequence[Any], uniforms: Sequence[Any]) -> None:
        size = leaves[0].size
        if size <= IN_PLACE:
            block(leaves, uniforms, leaves[:count], [numpy.empty(size, kind) for kind in kinds])
            return

        def work(parts: Iterator[slice]) -> None:
            scratch = [numpy.empty(IN_PLACE, kind) for kind in kinds]
            for part in parts:
                own = [x[part] for x in leaves]
                block(own, uniforms, own[:count], [w[: part.stop - part.start] for w in scratch])

        shared(work, [slice(i, min(i + IN_PLACE, size)) for i in range(0, size, IN_PLACE)])

    return run


def _entries(size: int) -> int:
    least, most = BLOCKS
    return min(most, max(least, size // 4))


def _over_blocks(program: Program, shapes: Sequence[Shape], whole: Shape) -> Run:
    found = node_shapes(program, shapes)
    small = [node for node in program.body if found[node] != whole]  # computed once, before the blocks
    operands = [*program.leaves, *small]
    shape, forms = collapsed(whole, [found[node] for node in operands])
    todo = parts(shape, _entries(math.prod(shape)))
    given_places = [[place_in(place, form) for form in forms] for place in todo]
    first = _made(_direct(program, found, small)) if small else lambda leaves, uniforms: []
    text, kinds = _block(program, set(operands), {})
    block = _made(text)
    largest = tuple([p.stop - p.start for p in todo[0]]) + shape[len(todo[0]) :]
    kinds_out = [node.dtype for node in program.outputs]

    def run(leaves: Sequence[Any], uniforms: Sequence[Any], out: Sequence[Any] | None = None) -> list[Any]:
        given = [*leaves, *first(leaves, uniforms)]
        given = [x.reshape(form) for x, form in zip(given, forms, strict=True)]
        outputs = places(shape, kinds_out, out)

        def work(items: Iterator[int]) -> None:
            scratch = [numpy.empty(largest, kind) for kind in kinds]
            for i in items:
                own = [y[todo[i]] for y in outputs]
                size = own[0].shape
                spare = scratch if size == largest else [w[tuple(map(slice, size))] for w in scratch]
                block(
                    [x[place] for x, place in zip(given, given_places[i], strict=True)], uniforms, own, spare
                )

        shared(work, range(len(todo)))
        return [y.reshape(whole) for y in outputs]

    return run


# ------------------------------------------------------------------------------------------------- the texts


def _direct(
    program: Program, shapes: dict[Node, Shape], wanted: Sequence[Node] | None = None, into: bool = False
) -> str:
    """run(leaves, uniforms): the results of `wanted`, arrays that NumPy makes, or the memory of a dead one.

    With `into` it is run(leaves, uniforms, outputs), and the results go there.
    """
    ends = list(program.outputs) if wanted is None else list(wanted)
    body = program.body if wanted is None else wanted
    names = _names(program)
    last = _last_uses(body, ends)
    lines = []
    target: dict[Node, str] = {}
    if into:
        lines.append("    (" + "".join(f"y{i}, " for i in range(len(ends))) + ") = outputs")
        target = {node: f"y{i}" for i, node in enumerate(ends)}
    for k, node in enumerate(body):
        args = [names[a] for a in node.args]
        if node in target:
            names[node] = target[node]
            lines.append("    " + _call_into(node, args, target[node]))
            continue
        names[node] = f"t{k}"
        spare = ""
        # One complex number in place NumPy rounds otherwise than in new memory.
        if OPERATIONS[node.op].ufunc is not None and math.prod(shapes[node]) > 1:
            for a in node.args:
                if a in last and last[a] == k and a.dtype == node.dtype and shapes[a] == shapes[node]:
                    spare = f", out={names[a]}"  # its memory
                    break
        lines.append(f"    t{k} = {_call(node, args)[:-1]}{spare})")
    if into:
        lines += [f"    copyto(y{i}, {names[n]})" for i, n in enumerate(ends) if target.get(n) != f"y{i}"]
        return "\n".join([_head(program, "leaves, uniforms, outputs"), *lines, "    return outputs"])
    seen: set[Node] = set()
    results = ""
    for node in ends:  # no two of which are one array
        results += names[node] + (".copy(), " if node in seen else ", ")
        seen.add(node)
    return "\n".join([_head(program, "leaves, uniforms"), *lines, f"    return [{results}]"])


def _block(program: Program, given: set[Node], overwritten: dict[int, int]) -> tuple[str, list[Any]]:
    """run(given, uniforms, outputs, scratch): the text, and the dtypes of the scratch arrays.

    Each result goes to its output, or to a scratch array that is free again after its last use.
    """
    body = [node for node in program.body if node not in given]
    operands = [*program.leaves, *[node for node in program.body if node in given]]
    names = _names(program, operands)
    last = _last_uses(body, ())
    reads = {a: k for k, node in enumerate(body) for a in node.args}  # the last that reads it
    made = {node: k for k, node in enumerate(body)}
    target: dict[Node, str] = {}
    late: list[tuple[int, Node]] = []
    for i, node in enumerate(program.outputs):
        leaf = program.leaves[overwritten[i]] if i in overwritten else None
        read_later = leaf is not None and node in made and reads.get(leaf, -1) > made[node]
        if node in target or node in given or read_later:
            late.append((i, node))
        else:
            target[node] = f"y{i}"
    for _, node in late:
        last.pop(node, None)
    kinds: list[Any] = []
    free: dict[Any, list[str]] = {}
    lines = []
    for k, node in enumerate(body):
        args = [names[a] for a in node.args]
        dying = [a for a in dict.fromkeys(node.args) if last.get(a) == k and names[a].startswith("w")]
        in_place = OPERATIONS[node.op].ufunc is not None
        if in_place:
            for a in dying:
                free.setdefault(a.dtype, []).append(names[a])
        if node in target:
            out = target[node]
        elif free.get(node.dtype):
            out = free[node.dtype].pop()
        else:
            out = f"w{len(kinds)}"
            kinds.append(node.dtype)
        if not in_place:
            for a in dying:
                free.setdefault(a.dtype, []).append(names[a])
        names[node] = out
        lines.append("    " + _call_into(node, args, out))
    lines += [f"    copyto(y{i}, {names[node]})" for i, node in late]
    outputs = "".join(f"y{i}, " for i in range(len(program.outputs)))
    scratch = "".join(f"w{i}, " for i in range(len(kinds)))
    head = [
        _head(program, "leaves, uniforms, outputs, scratch", operands),
        f"    ({outputs}) = outputs",
        f"    ({scratch}) = scratch",
    ]
    return "\n".join(head + lines), kinds


def _names(program: Program, operands: Sequence[Node] | None = None) -> dict[Node, str]:
    leaves = program.leaves if operands is None else operands
    names = {leaf: f"x{i}" for i, leaf in enumerate(leaves)}
    return names | {node: f"u{i}" for i, node in enumerate(program.uniforms)}


def _head(program: Program, parameters: str, operands: Sequence[Node] | None = None) -> str:
    count = len(program.leaves if operands is None else operands)
    leaves = "".join(f"x{i}, " for i in range(count))
    uniforms = "".join(f"u{i}, " for i in range(len(program.uniforms)))
    return f"def run({parameters}):\n    ({leaves}) = leaves\n    ({uniforms}) = uniforms"


def _last_uses(body: Sequence[Node], ends: Sequence[Node]) -> dict[Node, int]:
    """Where each node of the body is read for the last time; not those that are results."""
    last = {a: k for k, node in enumerate(body) for a in node.args}
    own = set(body) - set(ends)
    return {node: k for node, k in last.items() if node in own}


def _call(node: Node, args: list[str]) -> str:
    match node.op:
        case "where":
            return f"where({', '.join(args)})"
        case "astype":
            return f"asarray({args[0]}).astype({node.dtype.name})"
        case "real" | "imag":
            return f"asarray({args[0]}).{node.op}.copy()"
    return f"{node.op}({', '.join(args)})"


def _call_into(node: Node, args: list[str], out: str) -> str:
    match node.op:
        case "where":
            return f"copyto({out}, {args[2]}); copyto({out}, {args[1]}, where={args[0]})"
        case "astype":
            return f"copyto({out}, {args[0]}, casting='unsafe')"
        case "real" | "imag":
            return f"copyto({out}, {args[0]}.{node.op})"
    return f"{node.op}({', '.join(args)}, out={out})"


_KNOWN: dict[str, Any] = {name: op.ufunc for name, op in OPERATIONS.items() if op.ufunc is not None}
_KNOWN |= {"where": numpy.where, "asarray": numpy.asarray, "copyto": numpy.copyto}
_KNOWN |= {numpy.dtype(kind).name: numpy.dtype(kind) for kind in "?bBhHiIlLqQefdFD"}


@functools.lru_cache(maxsize=1024)
def _made(text: str) -> Callable[..., Any]:
    space = dict(_KNOWN)
    exec(text, space)
    function: Callable[..., Any] = space["run"]
    return function
