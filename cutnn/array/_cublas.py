"""Matrix products on the GPU by cuBLAS's C interface, with a handle of our own.

While a CUDA graph is captured CuPy refuses cuBLAS: it asks at each call whether the stream is capturing. The library
itself allows it, given a workspace of the caller's (cuBLAS documentation, section 2.1.9, CUDA graph support). And CuPy
has no products of 16-bit operands with a float32 result, `REDUCED` here, nor bfloat16 at all.

The library is the one that CuPy has loaded, called by ctypes: nothing more to install, and what a call costs the host
is paid once, not per replay.

`calls_of` finds how a product of any strides is said to cuBLAS, and needs no GPU.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy

from cutnn.array._strides import Form, layout, merged, over

_N, _T = 0, 1  # cublasOperation_t
_HOPPER_WORKSPACE = 32 << 20  # bytes, what the documentation advises for sm_90; others take 4 MiB

# dtype: cudaDataType of the arrays, cublasComputeType_t, type of alpha and beta.
TYPES: dict[str, tuple[int, int, str]] = {
    "float16": (2, 68, "float32"),
    "float32": (0, 68, "float32"),
    "float64": (1, 70, "float64"),
    "complex64": (4, 68, "complex64"),
    "complex128": (5, 70, "complex128"),
}

# format of the operands, dtype of the result: cudaDataType of the operands, of the result, compute type, scalars.
REDUCED: dict[tuple[str, str], tuple[int, int, int, str]] = {
    ("bfloat16", "float32"): (14, 0, 68, "float32"),
    ("float16", "float32"): (2, 0, 68, "float32"),
    ("tf32", "float32"): (0, 0, 77, "float32"),  # CUBLAS_COMPUTE_32F_FAST_TF32
    ("tf32", "complex64"): (4, 4, 77, "complex64"),
}


class Call(NamedTuple):
    """The arguments of cublasGemmStridedBatchedEx between the handle and the types; offsets, strides in entries."""

    op_a: int
    op_b: int
    m: int
    n: int
    k: int
    a: int  # where the first matrix of each starts
    lda: int
    stride_a: int
    b: int
    ldb: int
    stride_b: int
    c: int
    ldc: int
    stride_c: int
    matrices: int


def form_of(x: Any) -> Form:
    return Form(tuple(x.shape), tuple([stride // x.dtype.itemsize for stride in x.strides]))


def is_plain(x: Form) -> bool:
    """Whether cuBLAS can read the matrices where they lie, as they are or transposed."""
    return layout(x) is not None


def calls_of(x1: Form, x2: Form, out: Form) -> list[Call]:
    """The calls that make out = x1 @ x2; all are `is_plain`, and `out` is contiguous.

    cuBLAS counts by columns, so that to it a matrix of rows is its transpose: outᵀ = x2ᵀ x1ᵀ. Transposed views are
    an operation flag, broadcast matrices a stride of 0. Batch axes that lie behind one another are one; over others
    there is a loop. If x2 is one matrix, and the rows of x1 lie behind one another, it is one product of all rows.
    """
    (*_, rows, inner), columns = x1.shape, x2.shape[-1]
    batch = out.shape[:-2]
    if not math.prod(out.shape) or not inner:
        return []
    (by_columns_b, ldb), (by_columns_a, lda) = layout(x1), layout(x2)  # type: ignore[misc]
    op_b, op_a = (_T if by_columns else _N for by_columns in (by_columns_b, by_columns_a))
    axes = merged(batch, over(x1, batch), over(x2, batch), out.strides[:-2])
    if axes and op_b == _N and all(axis[2] == 0 for axis in axes):
        size, stride, _, _ = axes[-1]
        if stride == rows * ldb:
            rows, axes = rows * size, axes[:-1]
    *outer, (count, stride_b, stride_a, stride_c) = axes or [(1, 0, 0, 0)]
    return [
        Call(
            op_a, op_b, columns, rows, inner, a, lda, stride_a, b, ldb, stride_b, c, columns, stride_c, count
        )
        for b, a, c in _starts(outer)
    ]


def matmul(x1: Any, x2: Any, xp: Any, gemm: Callable[[Any, Any, Any, Call], None], dtype: Any = None) -> Any:
    """x1 @ x2 for arrays of matrices of one dtype, the result's unless told; `gemm(a, b, c, call)` makes a call."""
    batch = numpy.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    if x1.shape[-1] != x2.shape[-2]:
        raise ValueError(f"matmul: shapes {x1.shape} and {x2.shape} do not fit")
    out = xp.empty((*batch, x1.shape[-2], x2.shape[-1]), dtype=dtype or x1.dtype)
    x1, x2 = (x if is_plain(form_of(x)) else xp.ascontiguousarray(x) for x in (x1, x2))
    if not x1.shape[-1]:
        out[...] = 0
    for call in calls_of(form_of(x1), form_of(x2), form_of(out)):
        gemm(x2, x1, out, call)
    return out


class CuBLAS:
    """A handle of cuBLAS on a stream, with its own workspace, that a graph may hold for as long as it lives."""

    def __init__(self, cupy: Any, stream: Any) -> None:
        self._library = _loaded(cupy)
        self._xp = cupy
        self._handle = ctypes.c_void_p()
        self._check("cublasCreate_v2", ctypes.byref(self._handle))
        self._workspace = cupy.cuda.alloc(_HOPPER_WORKSPACE)
        self._check(
            "cublasSetStream_v2", self._handle, ctypes.c_void_p(stream.ptr)
        )  # which drops the workspace
        self._check(
            "cublasSetWorkspace_v2",
            self._handle,
            ctypes.c_void_p(self._workspace.ptr),
            ctypes.c_size_t(_HOPPER_WORKSPACE),
        )

    def matmul(self, x1: Any, x2: Any) -> Any:
        """x1 @ x2; of other dtypes than cuBLAS's by CuPy's own kernel."""
        dtype = numpy.result_type(x1.dtype, x2.dtype)
        if dtype.name not in TYPES:
            return x1 @ x2
        if x1.ndim == 1:
            return self.matmul(x1[None], x2)[..., 0, :] if x2.ndim > 1 else self.matmul(x1[None], x2)[0]
        if x2.ndim == 1:
            return self.matmul(x1, x2[:, None])[..., 0]
        return matmul(x1.astype(dtype, copy=False), x2.astype(dtype, copy=False), self._xp, self._gemm)

    def reduced(self, x1: Any, x2: Any, form: str) -> Any:
        """x1 @ x2 for arrays of matrices, a float32 or complex64 array accumulated in float32.

        Operands in float16; bfloat16 as its bits, uint16; float32 or complex64, which "tf32" lets cuBLAS round.
        """
        dtype = "complex64" if x1.dtype.kind == "c" else "float32"
        gemm = functools.partial(self._gemm, types=REDUCED[form, dtype])
        return matmul(x1, x2, self._xp, gemm, numpy.dtype(dtype))

    def _gemm(
        self, a: Any, b: Any, c: Any, call: Call, types: tuple[int, int, int, str] | None = None
    ) -> None:
        if types is None:
            kind, compute, scalar = TYPES[c.dtype.name]
            types = kind, kind, compute, scalar
        kind_of_operands, kind_of_result, compute, scalar = types
        one, zero = (numpy.full(1, value, scalar) for value in (1, 0))
        integer = ctypes.c_int

        def matrices(x: Any, kind: int, start: int, leading: int, stride: int) -> list[Any]:
            place = ctypes.c_void_p(x.data.ptr + start * x.dtype.itemsize)
            return [place, integer(kind), integer(leading), ctypes.c_longlong(stride)]

        self._check(
            "cublasGemmStridedBatchedEx",
            self._handle,
            *(integer(value) for value in call[:5]),
            one.ctypes.data_as(ctypes.c_void_p),
            *matrices(a, kind_of_operands, call.a, call.lda, call.stride_a),
            *matrices(b, kind_of_operands, call.b, call.ldb, call.stride_b),
            zero.ctypes.data_as(ctypes.c_void_p),
            *matrices(c, kind_of_result, call.c, call.ldc, call.stride_c),
            integer(call.matrices),
            integer(compute),
            integer(-1),  # CUBLAS_GEMM_DEFAULT
        )

    def _check(self, name: str, *args: Any) -> None:
        if status := getattr(self._library, name)(*args):
            raise RuntimeError(f"{name} failed with status {status}")

    def __del__(self) -> None:
        if self._handle:
            self._library.cublasDestroy_v2(self._handle)


# -------------------------------------------------------------------------------------------------- helpers


def _loaded(cupy: Any) -> Any:
    """The library that CuPy calls, which it has loaded by the time it has made a product."""
    ones = cupy.ones((2, 2), dtype=numpy.float32)
    ones @ ones
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    return ctypes.CDLL(f"libcublas.so.{major}")


def _starts(axes: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """Where the arrays start in a loop over axes (size, strides)."""
    for index in numpy.ndindex(*[axis[0] for axis in axes]):
        yield tuple([sum(i * axis[part] for i, axis in zip(index, axes, strict=True)) for part in (1, 2, 3)])
