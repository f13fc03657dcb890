"""Arrays of a recording: they compute like NumPy's, and each call that touches data is written down.

`Recorded` is no `numpy.ndarray`, so that nothing passes by unseen: NumPy calls it by protocol, cutnn by its namespace,
and what can do neither, `images[indices]` of a plain `images` say, raises.
"""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from cutnn.device import recording
from cutnn.tape import Traced


class CaptureError(RuntimeError):
    """A step does something that a recording cannot repeat; the message names it and what to do instead."""


class Recorded:
    """An array while a step is recorded: a plain array, `value`, and the buffer that holds it.

    `scalar` says that the plain step has a NumPy number here.
    """

    __slots__ = ("__weakref__", "buffer", "recorder", "scalar", "value")

    def __init__(self, value: np.ndarray, buffer: Any, recorder: Any, scalar: bool = False) -> None:
        self.value = value
        self.buffer = buffer
        self.recorder = recorder
        self.scalar = scalar

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return active(self).ufunc(ufunc, method, inputs, options)

    def __array_function__(self, function: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
        return active(self).function(function, args, kwargs)

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return namespace

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise CaptureError(
            "a plain NumPy array, or code that takes only those, met an array of the step that is being captured. "
            "In place of images[indices] say ct.take(images, indices, axis=0); in place of out[...] = x say "
            "ct.at_set, or numpy.copyto(out, x)"
        )

    def __getitem__(self, key: Any) -> Any:
        return active(self).getitem(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        active(self).setitem(self, key, value)

    def __getattr__(self, name: str) -> Any:  # what stands below is found first
        if name.startswith("__") or name in ("ctypes", "data") or not hasattr(np.ndarray, name):
            raise AttributeError(f"an array that is being captured has no attribute {name!r}")
        if name in _METADATA:
            return getattr(self.value, name)
        return functools.partial(active(self).method, name, self)

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def base(self) -> Any:
        """What stands for the memory: the same object for all views of it."""
        return self.buffer

    @property
    def T(self) -> Any:
        return active(self).apply(np.transpose, (self,), {})

    @property
    def mT(self) -> Any:
        return active(self).apply(operator.attrgetter("mT"), (self,), {})

    @property
    def real(self) -> Any:
        return active(self).apply(np.real, (self,), {})

    @real.setter
    def real(self, value: Any) -> None:
        self.real[...] = value

    @property
    def imag(self) -> Any:
        return active(self).apply(np.imag, (self,), {})

    @imag.setter
    def imag(self, value: Any) -> None:
        self.imag[...] = value

    @property
    def flat(self) -> NoReturn:
        raise CaptureError("x.flat cannot be captured; use x.reshape(-1)")

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self.value)))

    def __copy__(self) -> Any:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    def __repr__(self) -> str:
        return f"Recorded({self.value!r})"

    def __pow__(self, exponent: Any) -> Any:
        # As NumPy's operator has it for arrays, by a ufunc of its own for some exponents.
        if not self.scalar and self.value.dtype.kind in "fc" and type(exponent) in (int, float):
            if exponent == 2:
                return np.square(self)
            if exponent == 0.5 and type(exponent) is float:
                return np.sqrt(self)
        power = _POWER if self.scalar and _is_number(exponent) else operator.pow
        return active(self).apply(power, (self, exponent), {})

    def __rpow__(self, base: Any) -> Any:
        power = _POWER if self.scalar and _is_number(base) else operator.pow
        return active(self).apply(power, (base, self), {})

    def __ipow__(self, exponent: Any) -> Any:
        self[...] = self**exponent
        return self

    __hash__ = None  # type: ignore[assignment]


def active(x: Recorded) -> Any:
    """The recorder of an array, which must be at work."""
    recorder = recording.recorder
    if recorder is not x.recorder:
        raise CaptureError(
            f"an array of shape {x.value.shape} was kept from a captured step, and is used after it (or in another "
            "thread). What a step gives on is what it returns, and what it writes into arrays in place"
        )
    return recorder


# Attributes that tell of shape, dtype and memory, not of values.
_METADATA = frozenset("shape ndim size dtype strides nbytes itemsize flags".split())


def _operator(ufunc: Any, swapped: bool) -> Callable[[Any, Any], Any]:
    def operate(self: Any, other: Any) -> Any:
        if type(other) is Traced or getattr(type(other), "__array_ufunc__", ufunc) is None:
            return NotImplemented
        pair = (other, self) if swapped else (self, other)
        if self.scalar and self.value.dtype.kind == "c" and _is_number(other):
            return active(self).apply(_NUMBERS[ufunc], pair, {})
        return ufunc(*pair)

    return operate


def _is_number(x: Any) -> bool:
    return x.scalar if type(x) is Recorded else isinstance(x, np.generic | int | float | complex)


def _of_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operator as NumPy has it for its numbers: complex products and powers of them round otherwise."""

    def call(*args: Any) -> Any:
        return function(*[x[()] if isinstance(x, np.ndarray) and not x.ndim else x for x in args])

    call.__name__ = function.__name__
    return call


def _in_place(ufunc: Any) -> Callable[[Any, Any], Any]:
    def operate(self: Any, other: Any) -> Any:
        if self.scalar:
            return ufunc(self, other)
        return ufunc(self, other, out=(self,))

    return operate


def _number(kind: str, convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read(self: Any) -> Any:
        return active(self).read(self, kind, convert)

    return read


_BINARY: dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "matmul": np.matmul,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "lshift": np.left_shift,
    "rshift": np.right_shift,
}
_COMPARISONS = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip
_UNARY = {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}
_NUMBERS = {ufunc: _of_numbers(getattr(operator, f"__{name}__")) for name, ufunc in _BINARY.items()}
_POWER = _of_numbers(operator.pow)
for _name, _ufunc in _BINARY.items():
    setattr(Recorded, f"__{_name}__", _operator(_ufunc, swapped=False))
    setattr(Recorded, f"__r{_name}__", _operator(_ufunc, swapped=True))
    setattr(Recorded, f"__i{_name}__", _in_place(_ufunc))
for _name, _ufunc in _COMPARISONS.items():
    setattr(Recorded, f"__{_name}__", _operator(_ufunc, swapped=False))
for _name, _ufunc in _UNARY.items():
    setattr(Recorded, f"__{_name}__", lambda self, _ufunc=_ufunc: _ufunc(self))
_READ: dict[str, Any] = {
    "bool": bool,
    "int": int,
    "float": float,
    "complex": complex,
    "index": operator.index,
}
for _name, _convert in _READ.items():
    setattr(Recorded, f"__{_name}__", _number(f"{_name}(x)", _convert))
Recorded.item = _number("x.item()", lambda x: x.item())  # type: ignore[attr-defined]
Recorded.tolist = _number("x.tolist()", lambda x: x.tolist())  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------ its namespace


class _Namespace:
    """NumPy, or a module of it, whose functions are written down also where they make new arrays."""

    def __init__(self, name: str, module: Any) -> None:
        self.__name__, self._module = name, module

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        if isinstance(value, types.ModuleType):
            value = _Namespace(f"{self.__name__}.{name}", value)
        elif isinstance(value, np.ufunc):
            value = _Ufunc(value)
        elif callable(value) and not isinstance(value, type):
            value = functools.partial(_call, value)
        setattr(self, name, value)
        return value


class _Ufunc:
    def __init__(self, ufunc: Any) -> None:
        self._ufunc = ufunc

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return self._method("__call__", *inputs, **options)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._ufunc, name)
        return functools.partial(self._method, name) if callable(value) else value

    def _method(self, name: str, *inputs: Any, **options: Any) -> Any:
        recorder = recording.recorder
        if recorder is None:
            return getattr(self._ufunc, name)(*inputs, **options)
        return recorder.ufunc(self._ufunc, name, inputs, options)


def _call(function: Any, *args: Any, **kwargs: Any) -> Any:
    recorder = recording.recorder
    return function(*args, **kwargs) if recorder is None else recorder.function(function, args, kwargs)


namespace: Any = _Namespace("cutnn.recording", np)
namespace.records = np  # arrays of NumPy's go with those of this namespace
