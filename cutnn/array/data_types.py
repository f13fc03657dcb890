"""Data types, their functions and the constants of the array API standard.

NumPy's dtypes are CuPy's too, so all this is NumPy's, except that arrays of any library are understood.
"""

from __future__ import annotations

import builtins
from typing import Any

import numpy
from numpy import bool_ as bool
from numpy import (
    complex64,
    complex128,
    e,
    float32,
    float64,
    inf,
    int8,
    int16,
    int32,
    int64,
    isdtype,
    nan,
    newaxis,
    pi,
    uint8,
    uint16,
    uint32,
    uint64,
)

from cutnn.array._define import fit
from cutnn.array._linear import linear
from cutnn.device import device_of, get_device, is_available, namespace, to_device
from cutnn.tape import Traced, raw

__all__ = [
    "__array_namespace_info__",
    "astype",
    "bool",
    "can_cast",
    "complex64",
    "complex128",
    "e",
    "finfo",
    "float32",
    "float64",
    "iinfo",
    "inf",
    "int8",
    "int16",
    "int32",
    "int64",
    "isdtype",
    "nan",
    "newaxis",
    "pi",
    "result_type",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]


def astype(x: Any, dtype: Any, /, *, copy: builtins.bool = True, device: str | None = None) -> Any:
    """astype(x, dtype, /, *, copy=True, device=None) of the array API standard.

    To a float or complex dtype the gradient passes, and returns in x's own dtype; to an integer or bool dtype
    it stops. Raises TypeError for complex to real: say real(x), imag(x) or abs(x).

    >>> import cutnn as ct
    >>> ct.grad(lambda x: ct.astype(x, ct.float64))(ct.asarray(1.0, dtype=ct.float32))
    array(1., dtype=float32)
    """
    dtype = numpy.dtype(dtype)
    source = x.dtype
    if source.kind == "c" and dtype.kind not in "cb":
        raise TypeError(
            f"astype: {source} to {dtype} would drop the imaginary part; say real(x), imag(x) or abs(x)"
        )
    if type(x) is Traced and dtype.kind not in "fc":
        x = raw(x)
    if type(x) is not Traced or source != dtype:
        x = _astype(x, dtype, copy, source)
    return placed(x, device)


@linear(lambda g, shape, dtype, copy, source: fit(g, shape, source))
def _astype(x: Any, dtype: Any, copy: builtins.bool, source: Any) -> Any:
    namespace(x)  # refuses what is not an array
    return x.astype(dtype, copy=copy)


def can_cast(from_: Any, to: Any, /) -> builtins.bool:
    """can_cast(from_, to, /) of the array API standard: whether a dtype, or an array's, converts safely."""
    return numpy.can_cast(_dtype(from_), to)


def finfo(type: Any, /) -> Any:
    """finfo(type, /) of the array API standard: the limits of a float dtype, or of an array's."""
    return numpy.finfo(_dtype(type))


def iinfo(type: Any, /) -> Any:
    """iinfo(type, /) of the array API standard: the limits of an integer dtype, or of an array's."""
    return numpy.iinfo(_dtype(type))


def result_type(*arrays_and_dtypes: Any) -> Any:
    """result_type(*arrays_and_dtypes) of the array API standard; Python numbers give way to arrays.

    >>> import cutnn as ct
    >>> ct.result_type(ct.float32, ct.ones(2, dtype=ct.int16), 1.5)
    dtype('float32')
    """
    return numpy.result_type(*[_dtype(a) for a in arrays_and_dtypes])


class __array_namespace_info__:
    """What the namespace offers: `capabilities()`, devices and dtypes, as the array API standard says."""

    def capabilities(self) -> dict[str, Any]:
        """Boolean masks and shapes that depend on data are supported; dimensions are limited by NumPy."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> str:
        """The device of new arrays, `"cpu"` or `"cuda:0"`."""
        return get_device()

    def devices(self) -> list[str]:
        """The devices that can be used here (of several GPUs, the first)."""
        return ["cpu", "cuda:0"] if is_available() else ["cpu"]

    def default_dtypes(self, *, device: str | None = None) -> dict[str, Any]:
        """The dtypes of new arrays by kind; they are those of every device."""
        return numpy.__array_namespace_info__().default_dtypes()  # type: ignore[return-value]

    def dtypes(self, *, device: str | None = None, kind: Any = None) -> dict[str, Any]:
        """The dtypes by name, all or those of a kind; they are those of every device."""
        return numpy.__array_namespace_info__().dtypes(kind=kind)


# --------------------------------------------------------------------------------------------------- helpers


def placed(x: Any, device: str | None) -> Any:
    """x on a device; where it is for None. A traced array cannot move: TypeError."""
    if device is None or device == device_of(raw(x)):
        return x
    return to_device(x, device)


def _dtype(x: Any) -> Any:
    """The dtype of an array; a dtype or a number as it came."""
    return x if isinstance(x, type) else getattr(x, "dtype", x)
