"""Matrix products in another precision than float32 (`_precision.py`): what they are, and their emulation on a CPU.

A tensor core takes operands of few bits, multiplies them without error and adds in float32. So does a product in
float32 of operands that were rounded before: the product of two numbers of 11 bits has 22, and float32 holds 24. Only
the order of the sums differs. Rounding is to the nearest, ties to even, by arithmetic on the bits.

float16 reaches from 6·10⁻⁸ to 65504, and gradients lie below. So each operand is multiplied by a power of two, which
costs no bits, that brings its largest finite entry to [2¹⁴, 2¹⁵), and the product by the inverse of both: entries down
to 2⁻²⁹ of the largest keep all bits, and no entry overflows. No scaling of the loss is needed. inf and nan stay what
they are, in all formats, and a finite number beyond the largest of bfloat16 or tf32 (3.39·10³⁸) becomes inf.

On a GPU tensor cores do it (`_tensor_cores.py`). cuBLAS rounds to tf32 by itself, and does not say how: there the two
may differ by an ulp of tf32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from cutnn.array import _tensor_cores
from cutnn.array._precision import precision
from cutnn.device import namespace

Product = Callable[[Any, Any], Any]

_DROPPED = {"tf32": 13, "bfloat16": 16}  # of the 23 bits that float32 has behind the leading one
_WIDE = {"float32": "float64", "complex64": "complex128"}
LARGEST_EXPONENT = 14  # of an operand's largest entry in float16
LARGEST_SCALE = 127  # as an exponent: 2¹²⁷ is a float32, and with it the smallest float32 is a float16


def matmul(x1: Any, x2: Any, name: str, multiply: Product) -> Any:
    """x1 @ x2 for plain arrays of one library in the precision `name`; `multiply` makes products, in any precision."""
    dtype = numpy.result_type(x1.dtype, x2.dtype)
    with precision("float32"):
        if dtype.name not in _WIDE:
            return multiply(x1, x2)
        if name == "float64":
            wide = _WIDE[dtype.name]
            return multiply(x1.astype(wide), x2.astype(wide)).astype(dtype)
        x1, x2 = (x if x.dtype.kind in "fc" else x.astype(dtype) for x in (x1, x2))
        xp = namespace(x1, x2)
        if xp.__name__.endswith("cupy"):
            return _tensor_cores.matmul(x1, x2, name)
        if name != "float16":
            return multiply(rounded(x1, name), rounded(x2, name))
        (x1, scale1), (x2, scale2) = halves(x1), halves(x2)
        return scaled(multiply(x1, x2), -scale1 - scale2)


def rounded(x: Any, name: str) -> Any:
    """float32 or complex64 with the bits that "tf32" or "bfloat16" have, and the dtype of x."""
    drop = _DROPPED[name]
    bits = _parts(x).view(numpy.uint32)
    tie_to_even = (bits >> drop) & 1
    nearest = bits + (2 ** (drop - 1) - 1) + tie_to_even
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    # A nan whose last bits are dropped could be an inf, and rounded up even a zero.
    nearest = namespace(x).where(is_nan, bits | 0x00400000, nearest) >> drop << drop
    return nearest.view(x.dtype).reshape(x.shape)


def halves(x: Any) -> tuple[Any, Any]:
    """x · 2ᵏ with the bits that float16 has, in the dtype of x, and k."""
    parts = _parts(x)
    scale = scale_of(parts)
    return scaled(parts, scale).astype(numpy.float16).astype(numpy.float32).view(x.dtype).reshape(
        x.shape
    ), scale


def scale_of(x: Any) -> Any:
    """The exponent of the power of two that brings the largest finite entry of a real array to [2¹⁴, 2¹⁵)."""
    xp = namespace(x)
    largest = xp.max(xp.where(xp.isfinite(x), abs(x), 0), initial=0)
    _, exponent = xp.frexp(largest)  # of the power of two above it
    return xp.where(largest > 0, xp.minimum(LARGEST_EXPONENT + 1 - exponent, LARGEST_SCALE), 0)


def scaled(x: Any, exponent: Any) -> Any:
    """x · 2ᵏ."""
    parts = _parts(x)
    return namespace(x).ldexp(parts, exponent).view(x.dtype).reshape(x.shape)


def _parts(x: Any) -> Any:
    """The real numbers of an array, real and imaginary parts side by side, contiguous."""
    x = namespace(x).ascontiguousarray(x)
    return x.view(numpy.float32) if x.dtype.kind == "c" else x
