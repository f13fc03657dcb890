"""A program as a kernel of CuPy: one thread an entry, operands that broadcast read where they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy

from cutnn.array._fused.derive import Program
from cutnn.array._fused.graph import Node, UnfusableError, in_order
from cutnn.array._fused.shapes import Shape

KINDS = "?bBhHiIlLqQfdFD"
"""The dtypes that a kernel computes in; half precision is left to CuPy."""


def compiled(xp: Any, program: Program, shapes: Sequence[Shape], whole: Shape) -> Any:
    """run(leaves, uniforms) makes the outputs, each of shape `whole`. Raises UnfusableError as `source`."""
    kernel = _kernel(xp, *source(program))
    kinds = [node.dtype for node in program.outputs]

    def run(leaves: Sequence[Any], uniforms: Sequence[Any]) -> list[Any]:
        outputs = [xp.empty(whole, dtype=kind) for kind in kinds]
        kernel(*leaves, *uniforms, *outputs)
        return outputs

    return run


def source(program: Program) -> tuple[str, str, str]:
    """The inputs, outputs and body of the ElementwiseKernel; UnfusableError where an operation has no form in CUDA."""
    for node in (*program.leaves, *program.uniforms, *program.body):
        if node.dtype is None or node.dtype.char not in KINDS:
            raise UnfusableError(f"{node.op} of dtype {node.dtype}")
    names = {leaf: f"x{i}" for i, leaf in enumerate(program.leaves)}
    names |= {node: f"u{i}" for i, node in enumerate(program.uniforms)}
    inputs = ", ".join(f"{node.dtype.name} {name}" for node, name in names.items())
    outputs = ", ".join(f"{node.dtype.name} y{i}" for i, node in enumerate(program.outputs))
    lines = []
    for k, node in enumerate(program.body):
        text = expression(node, [names[a] for a in node.args])
        if text is None:
            raise UnfusableError(f"{node.op} of {node.args[0].dtype}")
        names[node] = f"t{k}"
        lines.append(f"const {c_type(node.dtype)} t{k} = {text};")
    lines += [f"y{i} = {names[node]};" for i, node in enumerate(program.outputs)]
    return inputs, outputs, "\n".join(lines)


def c_type(dtype: Any) -> str:
    """The type in CUDA C++ of a dtype."""
    match dtype.kind, dtype.itemsize:
        case "b", _:
            return "bool"
        case "f", size:
            return "float" if size == 4 else "double"
        case "c", size:
            return "complex<float>" if size == 8 else "complex<double>"
        case kind, size:
            name = {1: "signed char", 2: "short", 4: "int", 8: "long long"}[size]
            return name if kind == "i" else f"unsigned {name.removeprefix('signed ')}"


@functools.cache
def _kernel(xp: Any, inputs: str, outputs: str, body: str) -> Callable[..., Any]:
    kernel: Callable[..., Any] = xp.ElementwiseKernel(inputs, outputs, body, "cutnn_fused")
    return kernel


_INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "equal": "==", "not_equal": "!=", "less": "<",
    "less_equal": "<=", "greater": ">", "greater_equal": ">=",
}  # fmt: skip
_LOGICAL = {"logical_and": "&&", "logical_or": "||", "logical_xor": "!="}
_BOTH = "exp log log10 sqrt sin cos tan sinh cosh tanh".split()  # of real and of complex numbers
_REAL = "expm1 log1p log2 ceil floor trunc copysign hypot pow".split()
_INVERSES = {f"a{name}": f"a{name}" for name in "sin cos tan sinh cosh tanh".split()} | {"atan2": "atan2"}
_ORDERED = ("less", "less_equal", "greater", "greater_equal")


def expression(node: Node, args: list[str]) -> str | None:
    """The operation in CUDA C++; None where it has no form there."""
    op, kind, own = node.op, node.args[0].dtype.kind, c_type(node.args[0].dtype)
    a = args[0]
    if op in _INFIX:
        if (kind == "c" and op in _ORDERED) or (kind == "b" and op in ("add", "multiply", "subtract")):
            return None  # complex numbers in the order of NumPy; sums of booleans that are none in C
        return f"{a} {_INFIX[op]} {args[1]}"
    if op in _LOGICAL:
        zero = f"{own}(0)"
        return f"({a} != {zero}) {_LOGICAL[op]} ({args[1]} != {zero})"
    if op == "logical_not":
        return f"{a} == {own}(0)"
    if op == "where":
        return f"{a} ? {args[1]} : {args[2]}"
    if op == "astype":
        return f"{a} != {own}(0)" if node.dtype.kind == "b" else f"{c_type(node.dtype)}({a})"
    if op in ("positive", "negative", "square"):
        return {"positive": a, "negative": f"-{a}", "square": f"{a} * {a}"}[op]
    if op in ("real", "imag", "conj"):
        return f"{op}({a})" if kind == "c" else a if op != "imag" else None
    if kind not in "fc":
        return None
    if op == "reciprocal":
        return f"{own}(1) / {a}"
    if op in _BOTH or (op == "abs" and kind == "c"):
        return f"{op}({a})"
    if kind == "c":
        return None
    if op in _REAL or op in _INVERSES:
        return f"{_INVERSES.get(op, op)}({', '.join(args)})"
    match op:
        case "abs":
            return f"fabs({a})"
        case "round":
            return f"rint({a})"
        case "isnan" | "isinf" | "isfinite" | "signbit":
            return f"{op}({a})"
        case "sign":
            return f"{a} > {own}(0) ? {own}(1) : {a} < {own}(0) ? {own}(-1) : {a}"
        case "maximum" | "minimum":  # nan where one is, as NumPy has it
            order = ">" if op == "maximum" else "<"
            return f"({a} {order} {args[1]} || {a} != {a}) ? {a} : {args[1]}"
        case "logaddexp":
            return (
                f"{a} == {args[1]} ? {a} + log({own}(2)) : "
                f"fmax({a}, {args[1]}) + log1p(exp(-fabs({a} - {args[1]})))"
            )
    return None


# ------------------------------------------------------------------- many arrays written in place by one launch

LEAVES = 64
"""Arrays a launch: their addresses come as arguments of the kernel, of which there are 4 KiB, and so need no copy."""

CHUNK = 2048
"""Entries a block of threads, all of one array."""

THREADS = 256


def compiled_into(xp: Any, program: Program, places: Sequence[Node]) -> Callable[..., None]:
    """run(pieces, numbers): a program over each of several tuples of flat arrays, in one launch for 64 of them.

    A piece has an array for each leaf; the outputs are written to the first of them. The numbers belong to the
    nodes `places`; they may be arrays of one float64, which a captured graph reads at each replay.
    """
    kernel = xp.RawKernel(source_into(program, places), "cutnn_update")

    def run(pieces: Sequence[Sequence[Any]], numbers: Sequence[Any]) -> None:
        given = _on_device(xp, numbers)
        for table, count, blocks in tables(pieces):
            kernel((blocks,), (THREADS,), (table, numpy.int32(count), given))

    return run


def tables(pieces: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, int, int]]:
    """For each launch its table, the number of pieces in it, and of blocks; a piece has flat arrays of one size."""
    for begin in range(0, len(pieces), LEAVES):
        some = pieces[begin : begin + LEAVES]
        sizes = [piece[0].size for piece in some]
        blocks = [-(-size // CHUNK) for size in sizes]
        table = numpy.zeros((), table_dtype(len(some[0])))
        table["sizes"][: len(some)] = sizes
        table["first"][: len(some)] = numpy.cumsum([0, *blocks[:-1]])
        for k, piece in enumerate(some):
            table["arrays"][:, k] = [x.data.ptr for x in piece]
        if sum(blocks):
            yield table, len(some), sum(blocks)


def table_dtype(count: int) -> numpy.dtype[Any]:
    """The table of a launch: addresses, sizes, and the first block of each array."""
    fields = [
        ("arrays", numpy.uint64, (count, LEAVES)),
        ("sizes", numpy.int64, LEAVES),
        ("first", numpy.int32, LEAVES),
    ]
    return numpy.dtype(fields, align=True)


def source_into(program: Program, places: Sequence[Node]) -> str:
    """The text of that kernel. What numbers make is worked out by each thread, in double precision as on the host."""
    names = {place: f"n{i}" for i, place in enumerate(places)}
    head = [f"const double n{i} = numbers[{i}];" for i in range(len(places))]
    for k, node in enumerate(in_order(program.uniforms)):
        if node in names:
            continue
        text = _uniform(node, [names[a] for a in node.args])
        names[node] = f"u{k}"
        head.append(f"const {'double' if node.dtype is None else c_type(node.dtype)} u{k} = {text};")
    body = []
    for i, leaf in enumerate(program.leaves):
        names[leaf] = f"x{i}"
        body.append(f"const {c_type(leaf.dtype)} x{i} = (({c_type(leaf.dtype)}*)table.arrays[{i}][leaf])[i];")
    for k, node in enumerate(program.body):
        found = expression(node, [names[a] for a in node.args])
        if node.dtype.char not in KINDS or found is None:
            raise UnfusableError(f"{node.op} of {node.args[0].dtype}")
        names[node] = f"t{k}"
        body.append(f"const {c_type(node.dtype)} t{k} = {found};")
    for place, node in enumerate(program.outputs):
        body.append(f"(({c_type(node.dtype)}*)table.arrays[{place}][leaf])[i] = {names[node]};")
    return table_text(len(program.leaves)) + _INTO.format(
        leaf=LEAF, head="\n  ".join(head), body="\n    ".join(body)
    )


def table_text(count: int) -> str:
    """The table in CUDA C++."""
    return f"""\
struct Table {{
  unsigned long long arrays[{count}][{LEAVES}];
  long long sizes[{LEAVES}];
  int first[{LEAVES}];
}};

"""


LEAF = f"""\
int leaf = 0;  // the last whose first block is not after this one
  for (int step = {LEAVES} / 2; step; step /= 2)
    if (leaf + step < leaves && table.first[leaf + step] <= (int)blockIdx.x) leaf += step;
  const long long begin = (long long)(blockIdx.x - table.first[leaf]) * {CHUNK};
  const long long end = begin + {CHUNK} < table.sizes[leaf] ? begin + {CHUNK} : table.sizes[leaf];"""
"""What a block of threads works at: the entries from `begin` to `end` of a leaf."""

_INTO = """\
extern "C" __global__ void cutnn_update(const Table table, const int leaves, const double* numbers) {{
  {leaf}
  {head}
  for (long long i = begin + threadIdx.x; i < end; i += blockDim.x) {{
    {body}
  }}
}}
"""

_WEAK = {"add": "+", "sub": "-", "mul": "*", "truediv": "/"}


def _uniform(node: Node, args: list[str]) -> str:
    """A number of all entries in CUDA C++."""
    if node.op == "const":
        kind = "double" if node.dtype is None else c_type(node.dtype)
        return f"{kind}({node.value!r})" if node.dtype is None else f"{kind}({node.value.item()!r})"
    if node.dtype is None:
        if node.op in _WEAK:
            return f"{args[0]} {_WEAK[node.op]} {args[1]}"
        if node.op == "neg":
            return f"-{args[0]}"
        raise UnfusableError(f"{node.op} of numbers")
    if node.op == "astype":
        return f"{c_type(node.dtype)}({args[0]})"
    raise UnfusableError(f"{node.op} of numbers")


def _on_device(xp: Any, numbers: Sequence[Any]) -> Any:
    """The numbers as one array of float64."""
    if any(isinstance(x, xp.ndarray) for x in numbers):
        return xp.stack([xp.asarray(x, dtype=xp.float64) for x in numbers])
    return xp.asarray(numbers, dtype=xp.float64)
