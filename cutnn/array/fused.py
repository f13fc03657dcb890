"""Chains of elementwise functions as one kernel, with one kernel for their gradient.

A chain is written once, in cutnn's functions and operators, as a function of arrays and numbers:

    leapfrog = fuse(lambda z, s, b, h: z - h * ct.tanh(s + b))

It is called on nodes of a graph once for each signature (dtypes, shapes, which arguments are traced); its gradient
comes from the same rules as everywhere, on the same nodes. Each graph becomes a kernel: blocked loops of NumPy's
ufuncs, or a loop compiled by numba where that is installed and faster, or a kernel of CuPy. Results are those of the
plain function to rounding.

Whatever a kernel cannot do is done by the plain function, so that calls always mean what it says: where values are
traced themselves (derivatives of derivatives), for other array libraries, and for functions that are not elementwise,
or branch on values. `CUTNN_FUSE=0` has the plain function everywhere, to find a fault.
"""

from __future__ import annotations

import functools
import os
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from cutnn.array import data_types, elementwise, extras
from cutnn.array._define import fit
from cutnn.array._fused import on_cuda, on_numba, on_numpy
from cutnn.array._fused.derive import Derivation, Program, Static, derive, pair
from cutnn.array._fused.graph import Node, UnfusableError
from cutnn.array._fused.shapes import Shape, node_shapes
from cutnn.device import is_numpy, namespace, opaque
from cutnn.tape import Traced
from cutnn.tape.operations import placed
from cutnn.tape.record import Tape, innermost

__all__ = ["InPlace", "fuse", "is_elementwise", "is_on"]

_SIGNATURES = (
    256  # that one function has kernels for; a static argument that counts steps would make ever more
)
_on = os.environ.get("CUTNN_FUSE", "1") != "0"


def is_on() -> bool:
    """Whether chains are fused: CUTNN_FUSE is not 0."""
    return _on


def fuse(f: Callable[..., Any]) -> Callable[..., Any]:
    """The elementwise function f of arrays and numbers as one kernel, with one for its gradient.

    f is called once for each signature, so it must be a function of its arguments alone, and elementwise: cutnn's
    elementwise functions, relu, sigmoid, softplus, operators, numbers. It returns an array, or a tuple of arrays of
    one shape. Arrays broadcast. Numbers that may change are floats of Python; anything else that is no array is part
    of the signature. Where f is no such function it is called as it is.

    >>> import numpy as np
    >>> import cutnn as ct
    >>> step = fuse(lambda z, s, b, h: z - h * ct.tanh(s + b))
    >>> z = np.ones((2, 3))
    >>> step(z, z, np.zeros((2, 1)), 0.5).shape
    (2, 3)
    >>> ct.grad(lambda b: ct.sum(step(z, 0 * z, b, 0.5)))(np.zeros((2, 1)))
    array([[-1.5],
           [-1.5]])
    """
    chain: Callable[..., Any] = functools.update_wrapper(_Fused(f), f, updated=())
    return chain


def is_elementwise(f: Callable[..., Any]) -> bool:
    """Whether f is known to be a function of its arguments alone, so that it may be part of a chain.

    That are cutnn's elementwise functions, NumPy's ufuncs, chains, and functions of Python that refer to nothing but
    cutnn, numpy and math: no variable that may change, no random numbers. Whether f is elementwise shows when it is
    traced.

    >>> import cutnn as ct
    >>> scale = 2.0
    >>> is_elementwise(ct.tanh), is_elementwise(lambda x: 1.7 * ct.tanh(x)), is_elementwise(lambda x: scale * x)
    (True, True, False)
    """
    if isinstance(f, (numpy.ufunc, _Fused)) or getattr(f, "__module__", "") in _OURS:
        return True
    if type(f) is not types.FunctionType or f.__closure__ or f.__defaults__ or f.__kwdefaults__:
        return False
    code = f.__code__
    if "random" in code.co_names or any(type(c) is types.CodeType for c in code.co_consts):
        return False
    used = [f.__globals__[name] for name in code.co_names if name in f.__globals__]
    return all(x.__name__ in ("cutnn", "numpy", "math") if _is_module(x) else is_elementwise(x) for x in used)


_OURS = ("cutnn", elementwise.__name__, extras.__name__)


def _is_module(x: Any) -> bool:
    return type(x) is types.ModuleType


class _Fused:
    """A function and its kernels, by signature; None where there is none and the plain function is called."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self._f = f
        self._kernels: dict[Any, _Kernel | None] = {}
        self._derivations: dict[Any, Derivation | None] = {}

    def __call__(self, *args: Any) -> Any:
        if not _on:
            return self._f(*args)
        tape = innermost(args)
        values: Sequence[Any] = args
        signature: list[Any] = []
        if tape is not None:
            values = [a.value if type(a) is Traced and a.tape is tape else a for a in args]
            signature.append(tuple([type(a) is Traced for a in args]))
        for x in values:
            kind = type(x)
            if kind is numpy.ndarray:
                signature.append(x.dtype)
                signature.append(x.shape)
            elif kind is float:
                signature.append(float)
            elif kind is Traced:
                return self._f(*args)
            else:
                signature.append(_sign(x, kind))
        key = tuple(signature)
        try:
            kernel = self._kernels[key]
        except KeyError:
            kernel = self._learn(key, args, values, tape)
        except TypeError:  # an argument that has no hash: a list, say
            kernel = None
        if kernel is None:
            return self._f(*args)
        return kernel.call(values) if tape is None else kernel.record(tape, args, values)

    def _learn(
        self, key: Any, args: Sequence[Any], values: Sequence[Any], tape: Tape | None
    ) -> _Kernel | None:
        kernel = None
        if len(self._kernels) < _SIGNATURES and (xp := _library(values)) is not None:
            traced = tuple([i for i, a in enumerate(args) if type(a) is Traced and a.tape is tape])
            derivation = self._derive([_kind(x) for x in values], traced)
            if derivation is not None:
                given = [getattr(x, "shape", None) for x in values]
                kernel = _kernel(getattr(self, "__name__", "chain"), derivation, traced, given, xp)
            self._kernels[key] = kernel
        return kernel

    def _derive(self, kinds: list[Any], traced: tuple[int, ...]) -> Derivation | None:
        key = (tuple([(type(k.value), k.value) if type(k) is Static else k for k in kinds]), traced)
        if key not in self._derivations:
            try:
                self._derivations[key] = derive(self._f, kinds, traced)
            except Exception:  # whatever it says to nodes; the plain function tells the user what is wrong
                self._derivations[key] = None
        return self._derivations[key]


class InPlace:
    """An elementwise function that gives some of its arrays new values, in their place.

    f takes `arrays` flat arrays of one size and dtype, then numbers, and returns the new values of the first of them,
    as many as there are. It is called with pieces, each a tuple of such arrays; all have the same numbers. On a GPU
    one launch does up to 64 pieces, and the numbers may be arrays of one float64.

    >>> import numpy as np
    >>> decay = InPlace(lambda m, g, mu: (mu * m + g,), arrays=2)
    >>> m = np.ones(3)
    >>> decay([(m, np.ones(3))], [0.5])
    >>> m
    array([1.5, 1.5, 1.5])
    """

    def __init__(self, f: Callable[..., tuple[Any, ...]], arrays: int) -> None:
        self._f, self._arrays = f, arrays
        self._kernels: dict[Any, Any] = {}

    def __call__(self, pieces: Sequence[tuple[Any, ...]], numbers: Sequence[Any]) -> None:
        pieces = [piece for piece in pieces if piece[0].size]
        if not pieces:
            return
        arrays = [x for piece in pieces for x in piece]
        xp, dtype = namespace(*arrays), arrays[0].dtype
        key = (xp, dtype, len(numbers), on_numba.WORTH <= max([piece[0].size for piece in pieces]))
        if _on and key not in self._kernels:
            self._kernels[key] = self._compiled(xp, numpy.dtype(dtype), len(numbers), key[-1])
        run = self._kernels.get(key) if all([x.dtype == dtype for x in arrays]) else None
        if run is not None:
            run(pieces, numbers)
            return
        for piece in pieces:
            for x, new in zip(piece, self._f(*piece, *numbers), strict=False):
                x[...] = new

    def _compiled(self, xp: Any, dtype: Any, count: int, large: bool) -> Any:
        kinds = [dtype] * self._arrays + [float] * count
        try:
            derivation = derive(self._f, kinds)
            leaves = [a for a in derivation.arguments if a is not None and a.op == "input"]
            places = [a for a in derivation.arguments if a is not None and a.op == "number"]
            program = Program(leaves, derivation.results)
            if len(program.leaves) < len(leaves) or any(node.dtype != dtype for node in program.outputs):
                return None
            if xp is not numpy:
                return on_cuda.compiled_into(xp, program, places) if hasattr(xp, "RawKernel") else None
        except UnfusableError:
            return None
        uniforms = program.numbers(places)
        one = (on_numba.compiled_into(program) if large else None) or on_numpy.compiled_into(program)

        def run(pieces: Sequence[tuple[Any, ...]], numbers: Sequence[float]) -> None:
            values = uniforms(*numbers)
            for piece in pieces:
                one(piece, values)

        return run


def _sign(x: Any, kind: type) -> Any:
    if (dtype := getattr(x, "dtype", None)) is None or not hasattr(x, "shape"):
        return kind, x
    return kind if not isinstance(x, numpy.generic) else numpy.generic, dtype, x.shape


def _kind(x: Any) -> Any:
    if hasattr(x, "dtype") and hasattr(x, "shape"):
        return numpy.dtype(x.dtype)
    return float if type(x) is float else Static(x)


def _library(values: Sequence[Any]) -> Any:
    """The library that owns the arrays, None where there is no one, or it takes no kernels."""
    arrays = [x for x in values if hasattr(x, "dtype")]
    try:
        xp = namespace(*arrays)
    except TypeError:
        return None
    xp = getattr(xp, "records", xp)  # arrays of a step that is captured go where those of their library go
    if xp is numpy:
        plain = all(is_numpy(x) or isinstance(x, numpy.generic) for x in arrays)
        return xp if plain and any(is_numpy(x) for x in arrays) else None
    return xp if hasattr(xp, "ElementwiseKernel") else None


# ------------------------------------------------------------------------------------------------- kernels


def _kernel(
    name: str, derivation: Derivation, traced: tuple[int, ...], given: Sequence[Any], xp: Any
) -> _Kernel | None:
    """The kernels for arguments of these shapes; None where the results have not all the shape of the first."""
    inputs = [a for a in derivation.arguments if a is not None and a.op == "input"]
    program = Program(inputs, derivation.results)
    try:
        shapes = node_shapes(program, [tuple(given[leaf.value]) for leaf in program.leaves])
    except ValueError:  # shapes that do not broadcast
        return None
    shape = shapes[derivation.results[0]]
    if any(shapes[result] != shape for result in derivation.results):
        return None
    shapes |= {node: tuple(given[node.value]) for node in inputs}
    try:
        return _Kernel(name, derivation, traced, shapes, shape, _compiler(xp))
    except UnfusableError:  # an operation that the library has no kernel for
        return None


def _compiler(xp: Any) -> Any:
    return _on_cpu if xp is numpy else functools.partial(on_cuda.compiled, xp)


def _on_cpu(program: Program, shapes: Sequence[Shape], whole: Shape) -> Any:
    run = on_numba.compiled(program, shapes, whole) or on_numpy.compiled(program, shapes, whole)
    return opaque(run, takes_out=True)


class _Kernel:
    """One signature: how a call is made, and how it is recorded."""

    def __init__(
        self,
        name: str,
        derivation: Derivation,
        traced: tuple[int, ...],
        shapes: dict[Node, Shape],
        shape: Shape,
        compiler: Callable[[Program, list[Shape], Shape], Any],
    ) -> None:
        inputs = [a for a in derivation.arguments if a is not None and a.op == "input"]
        numbers = [a for a in derivation.arguments if a is not None and a.op == "number"]
        self.__name__ = name
        self.single, self.traced = derivation.single, traced
        self.dtype = derivation.results[0].dtype
        self.positions = [node.value for node in numbers]
        forward = Program(inputs, derivation.results)
        self.backward: Program | None = None
        if traced:
            split = pair(derivation, lambda node: shapes[node] == shape)
            forward, self.backward, self.needed = split.forward, split.backward, split.needed
            self.forms = [(shapes[node], node.dtype) for node in inputs if node.value in traced]
            self.places = split.cotangents
        self.arrays = [inputs[i].value for i in forward.taken]
        self.uniforms = forward.numbers(numbers)
        self.run = compiler(forward, [shapes[leaf] for leaf in forward.leaves], shape)
        if self.backward is not None:
            self.takes_g = self.backward.taken[0] == 0
            self.reads = [i - 1 for i in self.backward.taken if i]
            self.uniforms_back = self.backward.numbers(numbers)
            of_leaf = [shapes.get(leaf, shape) for leaf in self.backward.leaves]
            self.run_back = compiler(self.backward, of_leaf, shape)

    def call(self, values: Sequence[Any]) -> Any:
        results = self.results(values, [values[i] for i in self.positions])
        return results[0] if self.single else tuple(results)

    def results(self, values: Sequence[Any], given: Sequence[float]) -> Sequence[Any]:
        """What the forward kernel makes of the arguments and the numbers among them."""
        return self.run([values[i] for i in self.arrays], self.uniforms(*given))

    def record(self, tape: Tape, args: Sequence[Any], values: Sequence[Any]) -> Any:
        given = [values[i] for i in self.positions]
        results = self.results(values, given)
        saved: tuple[Any, ...] = ()
        if self.backward is not None:
            read = [*results, *[values[i] for i in self.needed]]
            saved = ([read[i] for i in self.reads], given)
        tape.append(((tuple([args[i].slot for i in self.traced]), self.pull, saved),))
        return Traced(results[0], tape, len(tape) - 1)

    def pull(self, g: Any, read: Sequence[Any] = (), given: Sequence[float] = ()) -> list[Any]:
        """The cotangents of the traced arguments, given that of the result."""
        parts: Sequence[Any] = ()
        if self.backward is not None:
            leaves = [g, *read] if self.takes_g else read
            uniforms = self.uniforms_back(*given)
            if type(g) is Traced or g.dtype != self.dtype:
                parts = _interpreted(self.backward, leaves, uniforms)
            else:
                parts = self.run_back(leaves, uniforms)
        return [
            None if place is None else fit(g if place < 0 else parts[place], *form)
            for place, form in zip(self.places, self.forms, strict=True)
        ]


placed(_Kernel, "results", name=lambda kernel, *_: kernel.__name__)


def _interpreted(program: Program, leaves: Sequence[Any], uniforms: Sequence[Any]) -> list[Any]:
    """The outputs of a program by cutnn's own functions: of traced arrays, and so differentiable again."""
    known = dict(zip(program.leaves, leaves, strict=True)) | dict(
        zip(program.uniforms, uniforms, strict=True)
    )
    for node in program.body:
        args = [known[a] for a in node.args]
        if node.op == "astype":
            known[node] = data_types.astype(args[0], node.dtype)
        else:
            known[node] = getattr(elementwise, node.op)(*args)
    return [known[node] for node in program.outputs]
