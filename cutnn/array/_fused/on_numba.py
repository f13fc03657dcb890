"""A program as one loop that numba compiles, where numba is installed (the extra `cpu`) and the loop is faster.

It is where all that a program does can be vectorised: arithmetic, roots, comparisons, choices, and in float32 exp and
tanh, which are written out here. NumPy takes the rest, complex numbers and the other functions: numba without SVML,
which its wheels lack, calls libm entry by entry (tanh: 950 µs where the form here takes 88 and NumPy 258; one core,
98304 entries).

Loops run on the threads that products run on, since two pools wait for one another: on those of OpenMP where MKL is
(`_mkl.py`), by numba's own `prange`, else on the helpers of `_cores`, without Python's lock, as NumPy's blocks do. On
helpers beside MKL z − h·tanh(s + b) of 98304 entries took 168 µs, on its own threads 49; beside a busy program they are
the slower ones, since each waits for the other at the end.

A loop takes about 0.6 s to compile; its text is kept in a folder of the user's cache, and with it what numba made of
it, so that it is compiled once on a machine. Whether numba takes a program depends on the program and the shapes alone,
never on what ran before: a run that is resumed rounds as one that was not.

CUTNN_NUMBA=0 leaves all to NumPy.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy

from cutnn.array import _mkl
from cutnn.array._fused.derive import Program
from cutnn.array._fused.graph import Node
from cutnn.array._fused.shapes import Run, Shape, collapsed, places, shared

WORTH = 16384
"""Entries from which a loop is taken; below, NumPy's ufuncs take no longer and need no compiler."""

_PART = 32768  # entries that a helper takes at a time


def compiled(program: Program, shapes: Sequence[Shape], whole: Shape) -> Run | None:
    """run(leaves, uniforms, out) for arrays of these shapes, as `on_numpy.compiled` has it; None where NumPy should."""
    if math.prod(whole) < WORTH or not takes(program):
        return None
    shape, forms = collapsed(whole, shapes)
    text = _text(program, forms, len(shape))
    kinds = [node.dtype for node in program.outputs]

    def run(leaves: Sequence[Any], uniforms: Sequence[Any], out: Sequence[Any] | None = None) -> list[Any]:
        given = [numpy.ascontiguousarray(x.reshape(form)) for x, form in zip(leaves, forms, strict=True)]
        outputs = places(shape, kinds, out)
        _on_all_cores(text, shape, (*given, *uniforms, *outputs))
        return [y.reshape(whole) for y in outputs]

    return run


def compiled_into(program: Program) -> Callable[..., None] | None:
    """run(leaves, uniforms) for flat arrays of one size, which writes the outputs to the first of them.

    They are written by the name that they are read by: to two names of one memory LLVM makes no vectors (Adam over
    1.2 M weights: 2400 µs, and 700 so).
    """
    if not takes(program):
        return None
    text = _text(program, [(2,)] * len(program.leaves), 1, in_place=True)

    def run(leaves: Sequence[Any], uniforms: Sequence[Any]) -> None:
        _on_all_cores(text, leaves[0].shape, (*leaves, *uniforms))

    return run


def _on_all_cores(text: str, shape: Shape, arguments: tuple[Any, ...]) -> None:
    """Run the loop of a text over arrays of that shape."""
    if (
        threads := _mkl.openmp_threads()
    ) and _shares_openmp():  # one thread too: another loop may round otherwise
        loop, edges = _loop(text, True), _edges(shape, threads)
        with _numba_threads(threads):
            loop(*arguments, edges)
        return
    loop, edges = _loop(text, False), _edges(shape, -(-math.prod(shape) // _PART))

    def work(items: Iterator[int]) -> None:
        for i in items:
            loop(*arguments, edges[i : i + 1])

    shared(work, range(len(edges)))


@functools.lru_cache(maxsize=1024)
def _edges(shape: Shape, count: int) -> Any:
    """For each of `count` even parts, or fewer, where it begins and ends along each axis, (parts, 2 axes).

    The first axis that can be cut evenly is, or the longest. Unsigned: numba looks at the sign of an index that has
    one.
    """
    longest = max(range(len(shape)), key=shape.__getitem__)
    axis = next((k for k, n in enumerate(shape) if n % count == 0 or n >= 8 * count), longest)
    n = shape[axis]
    count = max(1, min(n, count))
    edges = numpy.zeros((count, len(shape), 2), numpy.uint64)
    edges[:, :, 1] = shape
    edges[:, axis] = [(i * n // count, (i + 1) * n // count) for i in range(count)]
    return edges.reshape(count, 2 * len(shape))


@functools.cache
def _shares_openmp() -> bool:
    """Whether numba's threads are those of OpenMP: a process has one kind, which its first parallel loop decides on."""
    import numba

    before = numba.config.THREADING_LAYER
    if before == "default":
        numba.config.THREADING_LAYER = "omp"
    try:
        numba.get_num_threads()
        return bool(numba.threading_layer() == "omp")
    except ValueError:  # there are none: whoever else uses numba has the choice
        numba.config.THREADING_LAYER = before
        return False


@contextlib.contextmanager
def _numba_threads(count: int) -> Iterator[None]:
    """As many of numba's threads as there are of OpenMP's; another number is the calling thread's own affair."""
    import numba

    before = numba.get_num_threads()
    count = min(count, numba.config.NUMBA_NUM_THREADS)
    if before == count:
        yield
        return
    numba.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def takes(program: Program) -> bool:
    """Whether numba is there and all of a program can be vectorised."""
    nodes = (*program.leaves, *program.uniforms, *program.body)
    return (
        all(node.dtype is not None and node.dtype.char in "?fd" and node.dtype.isnative for node in nodes)
        and all(_expression(node, ["a"] * len(node.args)) is not None for node in program.body)
        and available()
    )


@functools.cache
def available() -> bool:
    """Whether numba can be imported, and CUTNN_NUMBA is not 0. It takes half a second where it can."""
    if os.environ.get("CUTNN_NUMBA", "1") == "0" or importlib.util.find_spec("numba") is None:
        return False
    try:
        importlib.import_module("numba")
    except ImportError:  # made for another NumPy, say
        return False
    return True


# ------------------------------------------------------------------------------------------------- the texts

_HEAD = '''\
import math
import numba
from numpy import float32, float64, int32

Z4, Z8, ONE4, ONE8, TWO4 = float32(0), float64(0), float32(1), float64(1), float32(2)
INF4, INF8 = float32(math.inf), float64(math.inf)
# exp(r), |r| ≤ ½ log 2, and log 2 in two parts, by Cephes (Moshier 1989).
E0, E1, E2 = float32(1.9875691500e-4), float32(1.3981999507e-3), float32(8.3334519073e-3)
E3, E4, E5 = float32(4.1665795894e-2), float32(1.6666665459e-1), float32(5.0000001201e-1)
LOG2E, LN2_HIGH, LN2_LOW = float32(1.4426950408889634), float32(0.693359375), float32(-2.12194440e-4)
ROUND = float32(1.5 * 2**23)  # added and taken away it leaves a whole number
TEN, LEAST, MOST = float32(10), float32(-104), float32(89)
BITS, BIAS, HALF = int32(23), int32(127), int32(1)


@numba.njit(inline="always")
def exp_parts(x):
    """n and p of exp(x) = 2ⁿ (1 + p)."""
    n = (x * LOG2E + ROUND) - ROUND
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = ((((E0 * r + E1) * r + E2) * r + E3) * r + E4) * r + E5
    return n, p * (r * r) + r


@numba.njit(inline="always")
def power_of_two(n):
    return int32((n + BIAS) << BITS).view(float32)


@numba.njit(inline="always")
def exp4(x):
    """exp(x), to 1.5 units in the last place. 2ⁿ comes in two factors, which reach all of float32."""
    c = LEAST if x < LEAST else x
    c = MOST if c > MOST else c
    n, p = exp_parts(c)
    k = int32(n)
    half = int32(k >> HALF)
    return (ONE4 + p) * power_of_two(half) * power_of_two(int32(k - half))


@numba.njit(inline="always")
def tanh4(x):
    """(exp(2|x|) − 1) / (exp(2|x|) + 1) with the sign of x, to 2.5 units in the last place; 1 from 9.1 on."""
    a = abs(x)
    c = TEN if a > TEN else a
    n, p = exp_parts(c + c)
    s = power_of_two(int32(n))
    m = p * s + (s - ONE4)
    return math.copysign(m / (m + TWO4), x)


'''

_INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "equal": "==", "not_equal": "!=", "less": "<",
    "less_equal": "<=", "greater": ">", "greater_equal": ">=",
}  # fmt: skip
_LOGICAL = {"logical_and": "&", "logical_or": "|", "logical_xor": "!="}


def _expression(node: Node, args: list[str]) -> str | None:
    """The operation in the text; None where numba has no vectorised form of it."""
    kind = node.args[0].dtype.char
    size = "4" if kind == "f" else "8"
    if node.op in _INFIX and kind in "fd":
        return f"{args[0]} {_INFIX[node.op]} {args[1]}"
    if node.op in _LOGICAL and kind == "?":
        return f"{args[0]} {_LOGICAL[node.op]} {args[1]}"
    if node.op == "where":
        return f"{args[1]} if {args[0]} else {args[2]}"
    if node.op == "logical_not" and kind == "?":
        return f"not {args[0]}"
    if node.op == "astype":
        return f"{args[0]} != Z{size}" if node.dtype.char == "?" else f"{node.dtype.name}({args[0]})"
    if kind not in "fd":
        return None
    a = args[0]
    match node.op:
        case "positive":
            return a
        case "negative":
            return f"-{a}"
        case "square":
            return f"{a} * {a}"
        case "reciprocal":
            return f"ONE{size} / {a}"
        case "abs":
            return f"abs({a})"
        case "sqrt":
            return f"math.sqrt({a})"
        case "copysign":
            return f"math.copysign({a}, {args[1]})"
        case "isnan":
            return f"{a} != {a}"
        case "isinf":
            return f"abs({a}) == INF{size}"
        case "isfinite":
            return f"abs({a}) < INF{size}"
        case "sign":
            return f"ONE{size} if {a} > Z{size} else (-ONE{size} if {a} < Z{size} else {a})"
        case "maximum" | "minimum":  # nan where one is
            order = ">" if node.op == "maximum" else "<"
            return f"{a} if {a} != {a} else ({a} if {a} {order} {args[1]} else {args[1]})"
        case "exp" | "tanh" if kind == "f":
            return f"{node.op}4({a})"
    return None


def _text(program: Program, forms: Sequence[Shape], axes: int, in_place: bool = False) -> str:
    """run(leaves, uniforms, outputs, edges): a loop over the parts, and in it one over all entries of a part.

    An operand is at 0 along axes that it lacks. RANGE is numba's prange, or range.
    """
    leaves = [f"x{i}" for i in range(len(program.leaves))]
    uniforms = [f"u{i}" for i in range(len(program.uniforms))]
    outputs = [f"{'x' if in_place else 'y'}{i}" for i in range(len(program.outputs))]
    lines = [f"def run({', '.join([*leaves, *uniforms, *([] if in_place else outputs), 'edges'])}):"]
    lines.append("    for part in RANGE(edges.shape[0]):")
    for axis in range(axes):
        begin, end = f"edges[part, {2 * axis}]", f"edges[part, {2 * axis + 1}]"
        lines.append("    " * (axis + 2) + f"for i{axis} in range({begin}, {end}):")
    names = dict(zip(program.uniforms, uniforms, strict=True))
    inner = "    " * (axes + 2)
    for i, (leaf, form) in enumerate(zip(program.leaves, forms, strict=True)):
        place = ", ".join(f"i{axis}" if n != 1 else "0" for axis, n in enumerate(form))
        names[leaf] = f"a{i}"
        lines.append(f"{inner}a{i} = x{i}[{place}]")
    for k, node in enumerate(program.body):
        names[node] = f"t{k}"
        lines.append(f"{inner}t{k} = {_expression(node, [names[a] for a in node.args])}")
    place = ", ".join(f"i{axis}" for axis in range(axes))
    for output, node in zip(outputs, program.outputs, strict=True):
        lines.append(f"{inner}{output}[{place}] = {names[node]}")
    return "\n".join(lines) + "\n"


_OPTIONS = 'nogil=True, error_model="numpy", fastmath={"contract"}'  # a product and a sum may be rounded once


@functools.cache
def _loop(text: str, parallel: bool) -> Callable[..., None]:
    """The compiled loop; kept on disk where there is a folder to write to."""
    head = _HEAD + ("RANGE = numba.prange\n\n\n" if parallel else "RANGE = range\n\n\n")
    options = f"{_OPTIONS}, parallel={parallel}"
    kept = _module(f"{head}@numba.njit(cache=True, {options})\n{text}")
    if kept is not None:
        return kept
    space: dict[str, Any] = {}
    exec(f"{head}@numba.njit({options})\n{text}", space)
    loop: Callable[..., None] = space["run"]
    return loop


def _module(text: str) -> Callable[..., None] | None:
    name = f"cutnn_loop_{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    try:
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.py"
        if not path.exists():  # another process may write it too: all or nothing
            handle, half = tempfile.mkstemp(dir=folder)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(half, path)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # numba's cache asks for it
        spec.loader.exec_module(module)
        loop: Callable[..., None] = module.run
        return loop
    except (OSError, RuntimeError):  # no folder, or none that numba may keep a cache in
        sys.modules.pop(name, None)
        return None


def _folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "cutnn" / "numba"
