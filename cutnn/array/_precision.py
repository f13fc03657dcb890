"""The precision that matrix products are computed in: `precision`, `set_precision`, `get_precision`.

Arrays, weights and optimizers keep their dtype (master weights). What changes is what a product does with its operands:

    "float32"   each array is multiplied in its own dtype. The default
    "tf32"      operands are rounded to 10 bits behind the leading one, with the exponents of float32
    "bfloat16"  to 7 bits, with the exponents of float32
    "float16"   to 10 bits, scaled by a power of two so that the largest entry of each operand fits
    "float64"   float32 operands are multiplied in float64, and the result is rounded once

and in all of them a product of float32 arrays is a float32 array, accumulated in float32 or better; complex64 likewise,
real and imaginary parts rounded alike. float64 and complex128 arrays, and integers, are multiplied as they are.

Products are those of `matmul` and `tensordot`, `@` on traced arrays, and what is made of them: ★ products, layers,
transforms by a matrix, a learned M, their gradients and losses. Everything else is computed in the arrays' own dtype:
sums and elementwise functions, `vecdot`, `einsum`, fast transforms, LAPACK's factorisations and the rules of their
first derivatives (a derivative of those again is made of traced arrays, and follows), and `A @ B` of plain arrays,
which is NumPy's or CuPy's own.

A gradient is computed in the precision that is in force when it runs: inside a `with`, that of the forward pass too.

Off costs nothing: `_gemm.matmul` looks at one number, `in_use`, and asks further where it is not 0.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Iterator

__all__ = ["get_precision", "precision", "set_precision"]

PRECISIONS = ("float32", "tf32", "bfloat16", "float16", "float64")

in_use = 0
"""How many `with precision(...)` are open in all threads, and one more where the process has another than float32."""

_of_context: contextvars.ContextVar[str | None] = contextvars.ContextVar("precision", default=None)
_of_process = "float32"
_lock = threading.Lock()


def precision(name: str) -> contextlib.AbstractContextManager[None]:
    """The precision of matrix products within a `with`, or a decorated function, and in no other thread.

    One of "float32", "tf32", "bfloat16", "float16" and "float64" (`cutnn.array._precision` says what each does); they
    nest. On a GPU the reduced ones are the tensor cores' own. On a CPU they are emulated, by rounding the operands:
    slower than float32, to see what accuracy is before a GPU is at hand. Raises ValueError for another name.

    >>> import cutnn as ct
    >>> x = ct.asarray([[1.0, 1 / 3]], dtype=ct.float32)
    >>> with ct.precision("bfloat16"):
    ...     print(ct.matmul(x, x.T))
    [[1.1115456]]
    >>> print(ct.matmul(x, x.T))
    [[1.1111112]]
    """
    return _within(_checked(name))


def set_precision(name: str) -> None:
    """Set the precision of matrix products for the process, all threads, outside of any `with precision(...)`.

    As `torch.set_float32_matmul_precision` does; the names are those of `precision`. Raises ValueError for another.
    """
    global _of_process, in_use
    name = _checked(name)
    with _lock:
        in_use += (name != "float32") - (_of_process != "float32")
        _of_process = name


def get_precision() -> str:
    """Return the precision in force here: that of the innermost `with`, else that of the process.

    >>> get_precision()
    'float32'
    """
    return _of_context.get() or _of_process


@contextlib.contextmanager
def _within(name: str) -> Iterator[None]:
    global in_use
    with _lock:
        in_use += 1
    token = _of_context.set(name)
    try:
        yield
    finally:
        _of_context.reset(token)
        with _lock:
            in_use -= 1


def _checked(name: str) -> str:
    if name not in PRECISIONS:
        raise ValueError(f"precision: unknown name {name!r}; there are {', '.join(PRECISIONS)}")
    return name
