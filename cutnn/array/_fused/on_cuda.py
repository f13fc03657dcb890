"""A program as a kernel of CuPy: one thread an entry, operands that broadcast read where they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from cutnn.array._fused.derive import Program
from cutnn.array._fused.graph import Node, UnfusableError
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
