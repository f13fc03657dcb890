"""Matrix products of 16-bit and tf32 operands on the GPU, accumulated in float32: cuBLAS, and the kernels before it.

`_rounded.py` says what the formats are, and is what these are to agree with. Nothing waits for the GPU: the exponents
of float16's scales are arrays of one entry there. bfloat16 costs a pass over each operand; float16 two, and one over
the product; tf32 none, since cuBLAS rounds while it reads.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy

from cutnn import device
from cutnn.array._cublas import CuBLAS

# The texts of the kernels: inputs, outputs, body; of the reduction: inputs, outputs, map, reduce, after, identity.
KERNELS = {
    "bfloat16": (
        "float32 x",
        "uint16 y",
        "unsigned int b = __float_as_uint(x); "
        "y = (b & 0x7fffffffu) > 0x7f800000u ? (b >> 16) | 0x40u : (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;",
    ),
    "float16": ("float32 x, raw int32 k", "float16 y", "y = ldexpf(x, k[0]);"),
    "unscale": ("raw int32 k1, raw int32 k2", "float32 y", "y = ldexpf(y, -k1[0] - k2[0]);"),
}
SCALE = (
    "float32 x",
    "int32 k",
    "isfinite(x) ? fabsf(x) : 0.0f",
    "fmaxf(a, b)",
    "k = a > 0.0f ? min(127, 14 - ilogbf(a)) : 0",
    "0.0f",
)


def matmul(x1: Any, x2: Any, form: str) -> Any:
    """x1 @ x2 for CuPy arrays of float32 or complex64, operands in "tf32", "bfloat16" or "float16"."""
    if x1.ndim == 1:
        return (
            matmul(x1[None], x2, form)[..., 0, :]
            if x2.ndim > 1
            else matmul(x1[None], x2[:, None], form)[0, 0]
        )
    if x2.ndim == 1:
        return matmul(x1, x2[:, None], form)[..., 0]
    cupy = device._import_cupy()
    if form == "tf32":
        dtype = numpy.result_type(x1.dtype, x2.dtype)
        return _cublas(cupy).reduced(x1.astype(dtype, copy=False), x2.astype(dtype, copy=False), form)
    multiply = functools.partial(_of_real, form=form, cupy=cupy, blas=_cublas(cupy))
    if x1.dtype.kind == x2.dtype.kind == "f":
        return multiply(x1, x2)
    return of_complex(x1, x2, multiply, cupy)


def of_complex(x1: Any, x2: Any, multiply: Callable[[Any, Any], Any], xp: Any) -> Any:
    """x1 @ x2 of complex arrays by one product of real ones, as cuBLAS has none of complex 16-bit operands.

    [[a, -b], [b, a]] times the real over the imaginary parts of x2, where x1 = a + ib. A real operand needs half of it.
    """
    rows, columns = x1.shape[-2], x2.shape[-1]
    if x1.dtype.kind != "c":
        both = multiply(x1, xp.concatenate([x2.real, x2.imag], axis=-1))
        return _complex(both[..., :columns], both[..., columns:], xp)
    if x2.dtype.kind != "c":
        left, right = xp.concatenate([x1.real, x1.imag], axis=-2), x2
    else:
        left = xp.concatenate(
            [xp.concatenate([x1.real, -x1.imag], axis=-1), xp.concatenate([x1.imag, x1.real], axis=-1)],
            axis=-2,
        )
        right = xp.concatenate([x2.real, x2.imag], axis=-2)
    both = multiply(left, right)
    return _complex(both[..., :rows, :], both[..., rows:, :], xp)


def lean(x: Any) -> Any:
    """x with batch axes along which it is broadcast at length 1: what is to be converted of it."""
    batch = zip(x.strides[:-2], x.shape[:-2], strict=True)
    return x[tuple([slice(0, 1) if stride == 0 and n > 1 else slice(None) for stride, n in batch])]


def _complex(real: Any, imag: Any, xp: Any) -> Any:
    product = xp.empty(real.shape, dtype=numpy.complex64)
    product.real, product.imag = real, imag
    return product


def _of_real(x1: Any, x2: Any, form: str, cupy: Any, blas: Any) -> Any:
    if form == "bfloat16":
        convert = _kernel("bfloat16")
        a, b = (
            cupy.broadcast_to(convert(lean(x), cupy.empty_like(lean(x), dtype=numpy.uint16)), x.shape)
            for x in (x1, x2)
        )
        return blas.reduced(a, b, form)
    scales = [_scale()(lean(x)) for x in (x1, x2)]
    a, b = (
        cupy.broadcast_to(
            _kernel("float16")(lean(x), scale, cupy.empty_like(lean(x), dtype=numpy.float16)), x.shape
        )
        for x, scale in zip((x1, x2), scales, strict=True)
    )
    return _kernel("unscale")(*scales, blas.reduced(a, b, form))


@functools.cache
def _kernel(name: str) -> Any:
    return device._import_cupy().ElementwiseKernel(*KERNELS[name], f"cutnn_{name}")


@functools.cache
def _scale() -> Any:
    return device._import_cupy().ReductionKernel(*SCALE, "cutnn_scale", reduce_type="float")


_handles = threading.local()  # cuBLAS advises a handle for each thread


def _cublas(cupy: Any) -> CuBLAS:
    """cuBLAS on the current stream of this thread; that of the recording while a CUDA graph is captured."""
    if device.recording.recorder is not None:
        own: CuBLAS = device.recording.recorder.blas
        return own
    stream = cupy.cuda.get_current_stream()
    key = cupy.cuda.Device().id, stream.ptr
    known: dict[tuple[int, int], CuBLAS] = _handles.__dict__.setdefault("known", {})
    if key not in known:
        known[key] = CuBLAS(cupy, stream)
    return known[key]
