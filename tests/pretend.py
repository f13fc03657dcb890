"""A pretend second device: NumPy behind arrays that, like CuPy's, never become NumPy arrays unasked.

It behaves as CuPy where the difference from NumPy matters: NumPy arrays are refused as operands, indices and
values (only `asarray` and `array` take them), numbers are taken, reductions give 0-d arrays and not scalars,
and `get()` is the way back to the host.
"""

from __future__ import annotations

import numbers
import types
from typing import Any

import numpy as np


class PretendArray:
    """An array that only the functions of this library can read."""

    __module__ = "pretend"
    __slots__ = ("_host",)

    def __init__(self, host: np.ndarray):
        object.__setattr__(self, "_host", host)

    def get(self) -> np.ndarray:
        return self._host.copy()

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("implicit conversion of a pretend array to NumPy; use get()")

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return namespace

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Function(getattr(ufunc, method))(*args, **kwargs)

    def __array_function__(self, function: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
        return _Function(function)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("ctypes", "data"):
            raise AttributeError(f"pretend arrays have no attribute {name!r}")
        return _give(getattr(self._host, name))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._host, name, _take(value))

    def __getitem__(self, index: Any) -> PretendArray:
        return _give(self._host[_take(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._host[_take(index)] = _take(value)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __reduce__(self) -> Any:  # for copy and deepcopy
        return PretendArray, (self._host.copy(),)

    def __repr__(self) -> str:
        return f"Pretend{self._host!r}"


class _Function:
    """A function of NumPy that takes and gives pretend arrays; the methods of a ufunc likewise."""

    def __init__(self, function: Any, host_allowed: bool = False):
        self._function, self._host_allowed = function, host_allowed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        take = _take_any if self._host_allowed else _take
        kwargs = {name: take(value) for name, value in kwargs.items()}
        return _give(self._function(*map(take, args), **kwargs))

    def __getattr__(self, name: str) -> Any:
        return _give(getattr(self._function, name))


class _Namespace:
    """A module of NumPy seen through `_Function`."""

    def __init__(self, name: str, module: Any):
        self.__name__, self._module = name, module

    def __getattr__(self, name: str) -> Any:
        if name == "random":
            raise AttributeError("random numbers are drawn on the host and then moved")
        if name == "ndarray":
            return PretendArray
        value = getattr(self._module, name)
        if isinstance(value, types.ModuleType):
            value = _Namespace(f"{self.__name__}.{name}", value)
        elif callable(value) and not isinstance(value, type):
            value = _Function(value, host_allowed=name in ("asarray", "array"))
        setattr(self, name, value)
        return value


def _take(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        raise TypeError("a NumPy array was given to the pretend library")
    return _take_any(x)


def _take_any(x: Any) -> Any:
    if isinstance(x, PretendArray):
        return x._host
    if isinstance(x, list | tuple) and not hasattr(x, "_fields"):
        return type(x)(map(_take, x)) if any(map(_holds_array, x)) else x
    return x


def _holds_array(x: Any) -> bool:
    if isinstance(x, list | tuple):
        return any(map(_holds_array, x))
    return isinstance(x, PretendArray | np.ndarray)


def _give(x: Any) -> Any:
    if isinstance(x, np.ndarray | np.generic):
        return PretendArray(np.asarray(x))
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*map(_give, x))
    if isinstance(x, list | tuple):
        return type(x)(map(_give, x))
    if isinstance(x, types.BuiltinMethodType | types.MethodType):
        return _Function(x)
    return x


def _operator(name: str) -> Any:
    def operate(self: PretendArray, *others: Any) -> Any:
        for other in others:
            if isinstance(other, np.ndarray):
                raise TypeError("a NumPy array was given to the pretend library")
            if not isinstance(other, PretendArray | numbers.Number | np.generic):
                return NotImplemented
        result = getattr(self._host, name)(*map(_take, others))
        return self if result is self._host else _give(result)

    return operate


_BINARY = "add sub mul truediv floordiv mod divmod pow matmul and or xor lshift rshift".split()
_UNARY = "neg pos abs invert".split()
_COMPARE = "eq ne lt le gt ge".split()
_SIDED = [f"{side}{name}" for name in _BINARY for side in ("", "r", "i") if side + name != "idivmod"]
for _name in _SIDED + _UNARY + _COMPARE:
    setattr(PretendArray, f"__{_name}__", _operator(f"__{_name}__"))
for _name in ("bool", "int", "float", "complex", "index"):  # these give Python numbers
    setattr(PretendArray, f"__{_name}__", lambda self, _dunder=f"__{_name}__": getattr(self._host, _dunder)())
PretendArray.__hash__ = None  # type: ignore[assignment]

namespace: Any = _Namespace("pretend", np)
