"""Recording a step on the CPU: what each NumPy call reads and writes becomes an entry of a flat program.

The step runs as it would, on `Recorded` arrays. A result that lies in the memory of an argument is a view, and costs
nothing later; all else is an entry (function, arguments, where the result goes). Memory is named by buffer and place,
not held, so that recording a reversible network takes no more than running it.
"""

from __future__ import annotations

import contextlib
import operator
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from cutnn._cores import threads
from cutnn.device import recording
from cutnn.recording._arrays import CaptureError, Recorded, namespace


class Buffer:
    """Memory: that of one result, of an input of the step, or of arrays from outside, which `owner` then holds."""

    __slots__ = ("address", "nbytes", "owner", "source")

    def __init__(self, array: np.ndarray, owner: Any = None) -> None:
        low, high = np.lib.array_utils.byte_bounds(array)
        self.address, self.nbytes, self.owner = low, high - low, owner
        self.source: int | None = None  # the position of the argument that an input is copied from


class Ref(NamedTuple):
    """An array by its place in a buffer."""

    buffer: Buffer
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]


class Entry(NamedTuple):
    """A call of the program: its arguments, in which arrays of the step are `Ref`s, what it reads and writes."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    reads: frozenset[Buffer]
    writes: frozenset[Buffer]
    kept: bool  # also where nobody reads what it writes
    elementwise: bool  # one result, each entry of it from entries at the same place
    held: bool  # made while OpenBLAS is held to one thread, so that products are shared as they are then


class Recorder:
    """The recording of one run of a step, in the thread that runs it."""

    namespace = namespace  # of arrays that are made in the step

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.externals: dict[int, Buffer] = {}
        self.attributes: dict[tuple[int, str], tuple[Any, str, Any]] = {}  # arrays read from modules
        self.hosts: list[tuple[Any, str, Any]] = []  # what calls change beside arrays, and its value before
        self._backups: dict[Buffer, np.ndarray] = {}
        self._lifted: dict[int, Recorded] = {}
        self._readers = 0

    # ------------------------------------------------------------------------------------------ arrays come and go

    def take(self, argument: np.ndarray, position: int) -> Recorded:
        """An argument of the step: a copy with the same strides, refilled at each replay."""
        value = like(argument)
        np.copyto(value, argument)
        buffer = Buffer(value)
        buffer.source = position
        return Recorded(value, buffer, self)

    def lift(self, x: Any) -> Any:
        if type(x) is not np.ndarray:
            return x
        found = self._lifted.get(id(x))
        if found is None:
            found = self._lifted[id(x)] = Recorded(x, self._external(x), self)
        return found

    def unlift(self, x: Any) -> Any:
        return x.value if type(x) is Recorded and x.buffer.owner is not None else x

    def host_numbers(self, compute: Callable[[], Sequence[float]]) -> NoReturn:
        raise CaptureError("numbers of the host are worked out within device.record_call")

    def attribute(self, holder: Any, name: str, value: Any) -> Any:
        """The array `holder.name`, lifted; that of a later replay must be the same."""
        if type(value) is np.ndarray:
            self.attributes[id(holder), name] = (holder, name, value)
            return self.lift(value)
        if isinstance(value, (tuple, list)) and any(type(x) is np.ndarray for x in value):
            return type(value)([self.lift(x) for x in value])
        if isinstance(value, dict) and any(type(x) is np.ndarray for x in value.values()):
            return {key: self.lift(x) for key, x in value.items()}
        return value

    def owns(self, x: Any) -> bool:
        return type(x) is Recorded and x.recorder is self

    def restore(self) -> None:
        """Put all arrays from outside back as they were before, and what else calls changed."""
        for buffer, backup in self._backups.items():
            np.copyto(buffer.owner, backup)
        for holder, name, value in self.hosts:
            setattr(holder, name, value)

    @property
    def written(self) -> list[Buffer]:
        """The memory from outside that the step writes to."""
        return list(self._backups)

    # ------------------------------------------------------------------------------------- calls, by NumPy's protocol

    def matmul(self, function: Callable[..., Any], x1: Any, x2: Any) -> Any:
        """function(x1, x2), which takes a place for the result as a third argument: `numpy.matmul`, or a faster one."""
        if function is np.matmul:
            return self.ufunc(np.matmul, "__call__", (x1, x2), {})
        given = self._given(function(*plain((x1, x2))))
        self._record(function, (x1, x2, given), {}, (given,))
        return given

    def ufunc(self, ufunc: Any, method: str, inputs: Sequence[Any], options: dict[str, Any]) -> Any:
        inputs, options = tuple(inputs), dict(options)
        function = ufunc if method == "__call__" else getattr(ufunc, method)
        if method == "at":
            return self._mutate(function, inputs, options, inputs[:1])
        outs = options.pop("out", None)
        if method == "__call__" and len(inputs) > ufunc.nin:
            inputs, outs = inputs[: ufunc.nin], inputs[ufunc.nin :]
        if outs is not None and not isinstance(outs, tuple):
            outs = (outs,)
        elementwise = method == "__call__" and ufunc.signature is None and not options and ufunc.nout == 1
        if outs is None or all(out is None for out in outs):
            result = function(*plain(inputs), **plain(options))
            given = self._given(result)
            outs = given if isinstance(given, tuple) else (given,)
            returned = given
        else:
            self._touch(outs)
            function(*plain(inputs), out=plain(outs), **plain(options))
            returned = outs if len(outs) > 1 else outs[0]
        if method == "__call__":
            inputs = _in_dtype(inputs)
            if any(out is None for out in outs):
                raise CaptureError(
                    f"numpy.{ufunc.__name__} with some of its results in out= cannot be captured"
                )
            if ufunc in (np.maximum, np.minimum):  # to which NumPy will not have a result by position
                self._record(function, inputs, {**options, "out": outs[0]}, outs, elementwise=elementwise)
            else:
                self._record(function, (*inputs, *outs), options, outs, elementwise=elementwise)
        elif method == "reduce" and options.keys() <= {"axis", "dtype", "keepdims"} and len(inputs) == 1:
            axis, dtype = options.get("axis", 0), options.get("dtype")
            self._record(function, (*inputs, axis, dtype, *outs, options.get("keepdims", False)), {}, outs)
        else:
            self._record(function, inputs, {**options, "out": outs[0]}, outs)
        return returned

    def function(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """A function of NumPy."""
        args = tuple(args)
        if isinstance(function, np.ufunc):
            return self.ufunc(function, "__call__", args, kwargs)
        if function in _METADATA:
            return function(*plain(args), **plain(kwargs))
        if function in _OF_VALUES or function is np.where and len(args) == 1:
            raise CaptureError(
                f"numpy.{function.__name__}: the shape of its result depends on values, which differ from step to "
                "step. Use a function whose result has one shape (where, sort, a mask that multiplies), or do it "
                "before the step"
                f"{self._place()}"
            )
        if function is np.asarray and not any(type(x) is Recorded for x in arrays_in((args, kwargs))):
            return function(*args, **kwargs)
        if function in _MUTATES:
            return self._mutate(function, args, kwargs, args[:1])
        if kwargs.get("out") is not None:
            out = kwargs["out"]
            return self._mutate(function, args, kwargs, out if isinstance(out, tuple) else (out,), out)
        return self.apply(function, args, kwargs)

    def method(self, name: str, x: Recorded, *args: Any, **kwargs: Any) -> Any:
        """A method of `numpy.ndarray`."""
        if name in _LIKE_FUNCTIONS:
            return self.function(getattr(np, name), (x, *args), kwargs)
        descriptor = getattr(np.ndarray, name)
        if name in _REFUSED:
            raise CaptureError(f"x.{name} cannot be captured{self._place()}")
        if name in _MUTATING_METHODS:
            return self._mutate(descriptor, (x, *args), kwargs, (x,), None)
        return self.apply(descriptor, (x, *args), kwargs)

    def getitem(self, x: Recorded, key: Any) -> Any:
        indices = [k for k in arrays_in(key) if type(k) is Recorded]
        if any(k.dtype.kind == "b" for k in indices):
            raise CaptureError(
                "x[mask]: the shape of the result depends on values, which differ from step to step. Use "
                f"ct.where(mask, x, 0), or select before the step{self._place()}"
            )
        result = x.value[plain(key)]
        if not indices and isinstance(result, np.generic):
            at = x.value[(*(key if isinstance(key, tuple) else (key,)), ...)]
            given = self._given(result)
            self._record(np.copyto, (given, Recorded(at, x.buffer, self)), {}, (given,))
            return given
        if isinstance(result, np.ndarray) and _lies_in(result, x.buffer):
            if not indices:
                return Recorded(result, x.buffer, self)
            result = result.copy()  # x[i] with an i of the step: where it lies depends on values
        given = self._given(result)
        if type(key) is Recorded and key.ndim and x.ndim:
            self._record(np.ndarray.take, (x, key, 0, given), {}, (given,))
        else:
            self._record(_into, ((given,), operator.getitem, (x, key), {}), {}, (given,))
        return given

    def setitem(self, x: Recorded, key: Any, value: Any) -> None:
        if arrays_in(key):
            self._mutate(operator.setitem, (x, key, value), {}, (x,))
            return
        at = x.value[key]
        if isinstance(at, np.generic):
            at = x.value[(*(key if isinstance(key, tuple) else (key,)), ...)]
        if not _lies_in(at, x.buffer):  # a list as the key
            self._mutate(operator.setitem, (x, key, value), {}, (x,))
            return
        if type(value) is Recorded and _same(value.value, at):
            return  # the end of x[key] += y
        target = Recorded(at, x.buffer, self)
        if not isinstance(value, Recorded):
            value = np.asarray(value)
        self._mutate(np.copyto, (target, value, "unsafe"), {}, (target,))

    def apply(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """function(*args, **kwargs) of a pure function of arrays; its results are views, or new."""
        buffers = [self._buffer(x) for x in arrays_in((args, kwargs))]
        result = function(*plain(args), **plain(kwargs))
        fresh: list[Recorded] = []

        def give(x: Any) -> Any:
            if isinstance(x, np.ndarray):
                for buffer in buffers:
                    if _lies_in(x, buffer):
                        return Recorded(x, buffer, self)
                fresh.append(self._given(x))
                return fresh[-1]
            if isinstance(x, np.generic):
                fresh.append(self._given(x))
                return fresh[-1]
            if isinstance(x, tuple) and hasattr(x, "_fields"):
                return type(x)(*[give(part) for part in x])
            if isinstance(x, (tuple, list)):
                return type(x)([give(part) for part in x])
            if x is None or isinstance(x, np.dtype):
                return x
            name = getattr(function, "__name__", "a function")
            if not self._readers:
                raise CaptureError(f"{name} gives {x!r}, a number that depends on values{self._place()}")
            return x

        given = give(result)
        if fresh and function not in _EMPTY:
            lowering = _LOWERED.get(function)
            lowered = lowering(fresh[0], *args, **kwargs) if lowering and len(fresh) == 1 else None
            function, args, kwargs = lowered or (_into, (tuple(fresh), function, args, kwargs), {})
            self._record(function, args, kwargs, fresh)
        return given

    # ------------------------------------------------------------------------------------------- calls that ask for it

    def call(
        self, function: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any], host: Sequence[Any]
    ) -> None:
        """As `device.record_call`."""
        inputs, outputs = tuple(inputs), tuple(outputs)
        self._touch(outputs)
        known = {(id(holder), name) for holder, name, _ in self.hosts}
        self.hosts += [(h, name, getattr(h, name)) for h, name in host if (id(h), name) not in known]
        with _suspended():
            function(*plain(inputs), *plain(outputs))
        kept = bool(host) or not outputs
        self._record(function, inputs + outputs, {}, outputs, read=inputs + outputs, kept=kept)

    def opaque(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        takes_out: bool = False,
    ) -> Any:
        """As `device.opaque`."""
        if not any(type(x) is Recorded for x in arrays_in((args, kwargs))):
            with _suspended():
                return function(*args, **kwargs)

        def quietly(*args: Any, **kwargs: Any) -> Any:
            with _suspended():
                return function(*args, **kwargs)

        if takes_out:
            given = [self._given(x) for x in quietly(*plain(args), **plain(kwargs))]
            self._record(function, args, {**kwargs, "out": given}, given)
            return given
        return self.apply(quietly, args, kwargs)

    def read(self, x: Recorded, kind: str, convert: Callable[[Any], Any]) -> Any:
        """A number of the host out of an array; only where it is known to be harmless."""
        if not self._readers:
            raise CaptureError(
                f"{kind} of an array that is being captured: what follows from its value now would be repeated at "
                "every replay. Choose with ct.where, do it before or after the step, or, where it only checks, "
                f"inside `with ct.device.unrecorded():`{self._place()}"
            )
        return convert(x.value)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    # ----------------------------------------------------------------------------------------------------- helpers

    def describe(self, x: Any) -> Any:
        """Arguments as an entry holds them."""

        def one(x: Any) -> Any:
            if type(x) is not Recorded:
                return x
            if x.buffer.owner is not None:
                return x.value
            offset = x.value.__array_interface__["data"][0] - x.buffer.address
            return Ref(x.buffer, offset, x.value.shape, x.value.strides, x.value.dtype)

        return mapped(one, x)

    def _record(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        outs: Sequence[Any],
        *,
        read: Any = None,
        kept: bool = False,
        elementwise: bool = False,
    ) -> None:
        writes = frozenset([self._buffer(out) for out in outs])
        if read is None:  # all arguments but the results
            skipped = {id(out) for out in outs}
            read = [x for x in arrays_in((args, kwargs)) if id(x) not in skipped]
        reads = frozenset([self._buffer(x) for x in arrays_in(read)])
        kept = kept or any(buffer.owner is not None for buffer in writes)
        args, kwargs = self.describe((args, kwargs))
        self.entries.append(Entry(function, args, kwargs, reads, writes, kept, elementwise, threads() > 1))

    def _mutate(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        outs: Any,
        result: Any = None,
    ) -> Any:
        """A call that writes to arrays that are there, all of them or a part."""
        self._touch(outs)
        function(*plain(args), **plain(kwargs))
        self._record(function, args, kwargs, outs, read=(args, kwargs))
        return result

    def _touch(self, outs: Sequence[Any]) -> None:
        """Keep what arrays from outside hold before the first write to them."""
        for out in outs:
            if (
                out is not None
                and (buffer := self._buffer(out)).owner is not None
                and buffer not in self._backups
            ):
                self._backups[buffer] = buffer.owner.copy()

    def _buffer(self, x: Any) -> Buffer:
        return x.buffer if type(x) is Recorded else self._external(x)

    def _external(self, x: np.ndarray) -> Buffer:
        while isinstance(x.base, np.ndarray):
            x = x.base
        found = self.externals.get(id(x))
        if found is None:
            found = self.externals[id(x)] = Buffer(x, x)
        return found

    def _given(self, result: Any) -> Any:
        if isinstance(result, tuple):
            return tuple([self._given(part) for part in result])
        array = np.asarray(result)
        return Recorded(array, Buffer(array), self, isinstance(result, np.generic))

    def _place(self) -> str:
        """Where the caller of cutnn and NumPy is."""
        frame: Any = sys._getframe(1)
        while frame is not None:
            path = frame.f_code.co_filename
            if not path.startswith((_OWN, _NUMPY)) and not path.startswith("<"):
                return f" ({path}, line {frame.f_lineno})"
            frame = frame.f_back
        return ""


_OWN = os.path.dirname(os.path.dirname(__file__)) + os.sep
_NUMPY = os.path.dirname(np.__file__) + os.sep


@contextlib.contextmanager
def _suspended() -> Iterator[None]:
    recorder, recording.recorder = recording.recorder, None
    try:
        yield
    finally:
        recording.recorder = recorder


def mapped(one: Callable[[Any], Any], x: Any) -> Any:
    """Arguments of a call with `one` applied to what is no list, tuple, dictionary or slice."""
    kind = type(x)
    if kind is tuple or kind is list:
        return kind([mapped(one, part) for part in x])
    if kind is dict:
        return {key: mapped(one, part) for key, part in x.items()}
    if kind is slice:
        return slice(*[mapped(one, part) for part in (x.start, x.stop, x.step)])
    if isinstance(x, tuple) and hasattr(x, "_fields") and kind is not Ref:
        return kind(*[mapped(one, part) for part in x])
    return one(x)


def plain(x: Any) -> Any:
    return mapped(lambda x: x.value if type(x) is Recorded else x, x)


def arrays_in(x: Any) -> list[Any]:
    """The arrays among arguments, of the step or plain."""
    found: list[Any] = []

    def note(x: Any) -> Any:
        if type(x) is Recorded or isinstance(x, np.ndarray):
            found.append(x)
        return x

    mapped(note, x)
    return found


def like(x: np.ndarray) -> np.ndarray:
    """New memory in the shape, dtype and strides of an array: results depend on strides in their last bits."""
    low, high = np.lib.array_utils.byte_bounds(x)
    offset = x.__array_interface__["data"][0] - low
    return np.ndarray(x.shape, x.dtype, np.empty(max(high - low, 1), np.uint8), offset, x.strides)


def _lies_in(x: np.ndarray, buffer: Buffer) -> bool:
    if not x.size:
        return False
    low, high = np.lib.array_utils.byte_bounds(x)
    return bool(buffer.address <= low and high <= buffer.address + buffer.nbytes)


def _same(x: np.ndarray, y: np.ndarray) -> bool:
    place = "__array_interface__"
    return (
        getattr(x, place)["data"][0] == getattr(y, place)["data"][0]
        and x.shape == y.shape
        and x.strides == y.strides
        and x.dtype == y.dtype
    )


def _in_dtype(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Python's numbers beside one array as arrays of its dtype, which is what NumPy makes of them at each call.

    np.multiply(x, 2.0, out) of a tiny x takes 0.87 µs, with an array of one number 0.45.
    """
    if len(inputs) != 2:
        return inputs
    for i, x in enumerate(inputs):
        other = inputs[1 - i]
        if type(x) in (int, float) and hasattr(other, "dtype") and other.dtype.kind in "fc":
            if type(x) is int and abs(x) >= 2**24:
                return inputs
            return (np.asarray(x, other.dtype), other) if i == 0 else (other, np.asarray(x, other.dtype))
    return inputs


# --------------------------------------------------------------------------------------------- what functions do


def _into(outs: tuple[Any, ...], function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    """Call a function that has no out=, and copy what is new in its results to where it belongs."""
    result = function(*args, **kwargs)
    if len(outs) == 1 and not isinstance(result, (tuple, list)):
        np.copyto(outs[0], result)
        return
    leaves: list[Any] = []
    mapped(leaves.append, result)
    parts = [x for x in leaves if isinstance(x, (np.ndarray, np.generic))]
    for out, part in zip(outs, parts, strict=True):
        np.copyto(out, part)


def _reduction(ufunc: Any) -> Callable[..., Any]:
    def lower(
        out: Any, a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = False, **more: Any
    ) -> Any:
        return None if more else (ufunc.reduce, (a, axis, dtype, out, bool(keepdims)), {})

    def lower_extreme(out: Any, a: Any, axis: Any = None, keepdims: Any = False, **more: Any) -> Any:
        return None if more else (ufunc.reduce, (a, axis, None, out, bool(keepdims)), {})

    return lower if ufunc in (np.add, np.multiply) else lower_extreme


def _mean(a: Any, axis: Any, keepdims: bool, count: Any, out: Any) -> None:
    np.add.reduce(a, axis=axis, out=out, keepdims=keepdims)
    np.true_divide(out, count, out, casting="unsafe")


def _lower_mean(out: Any, a: Any, axis: Any = None, keepdims: Any = False, **more: Any) -> Any:
    """As NumPy's own `mean` does it for floats of full precision."""
    if more or a.dtype.char not in "fdFD" or not out.value.size:
        return None
    count = np.intp(a.size // out.value.size)
    return _mean, (a, axis, bool(keepdims), count, out), {}


def _lower_copy(out: Any, a: Any, *args: Any, **kwargs: Any) -> Any:
    return np.copyto, (out, a, "unsafe"), {}


def _lower_reshape(out: Any, a: Any, *args: Any, **kwargs: Any) -> Any:
    """A reshape that copies writes its result in order, so that it can be seen in the shape of its argument."""
    if kwargs or not out.value.flags.c_contiguous or any(isinstance(x, str) for x in args):
        return None
    return np.copyto, (Recorded(out.value.reshape(a.shape), out.buffer, out.recorder), a), {}


def _filling(number: Any) -> Callable[..., Any]:
    return lambda out, *args, **kwargs: (np.copyto, (out, number), {})


def _lower_concat(out: Any, arrays: Any, axis: Any = 0, **more: Any) -> Any:
    return None if more else (np.concatenate, (arrays, axis, out), {})


def _with_out(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda out, *args, **kwargs: (function, args, {**kwargs, "out": out})


def _lower_take(out: Any, a: Any, indices: Any, axis: Any = None, **more: Any) -> Any:
    if more or not isinstance(indices, (Recorded, np.ndarray)):
        return None
    return np.ndarray.take, (a, indices, axis, out), {}


# Functions whose results can be written in place of copied: (new result, *arguments) to (function, args, kwargs).
_LOWERED: dict[Any, Callable[..., Any]] = {
    np.sum: _reduction(np.add),
    np.prod: _reduction(np.multiply),
    np.max: _reduction(np.maximum),
    np.min: _reduction(np.minimum),
    np.amax: _reduction(np.maximum),
    np.amin: _reduction(np.minimum),
    np.mean: _lower_mean,
    np.copy: _lower_copy,
    np.ndarray.copy: _lower_copy,
    np.ndarray.astype: _lower_copy,
    np.astype: _lower_copy,
    np.array: _lower_copy,
    np.asarray: _lower_copy,
    np.reshape: _lower_reshape,
    np.ndarray.reshape: _lower_reshape,
    np.ravel: _lower_reshape,
    np.ndarray.ravel: _lower_reshape,
    np.ndarray.flatten: _lower_reshape,
    np.zeros: _filling(0),
    np.zeros_like: _filling(0),
    np.ones: _filling(1),
    np.ones_like: _filling(1),
    np.concatenate: _lower_concat,
    np.take: _lower_take,
    np.any: _reduction(np.logical_or),
    np.all: _reduction(np.logical_and),
    **{
        f: _with_out(f)
        for f in (np.clip, np.cumsum, np.cumprod, np.argmax, np.argmin, np.stack, np.var, np.std)
    },
}
_EMPTY: frozenset[Any] = frozenset({np.empty, np.empty_like})

_LIKE_FUNCTIONS = frozenset(
    "sum prod max min mean std var any all argmax argmin cumsum cumprod argsort clip round take repeat squeeze "
    "swapaxes trace diagonal dot nonzero compress choose searchsorted conj conjugate".split()
)
_MUTATING_METHODS = frozenset("fill sort partition put itemset".split())
_REFUSED = frozenset("resize setfield setflags tofile tobytes dump dumps getfield byteswap".split())
_MUTATES = frozenset({np.copyto, np.put, np.put_along_axis, np.place, np.putmask, np.fill_diagonal})
_METADATA = frozenset({
    np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.iscomplexobj, np.isrealobj, np.common_type,
    np.min_scalar_type, np.may_share_memory, np.shares_memory, np.array_repr, np.array_str, np.broadcast_shapes,
    np.isdtype, np.finfo, np.iinfo,
})  # fmt: skip
_OF_VALUES = frozenset({
    np.nonzero, np.flatnonzero, np.argwhere, np.unique, np.unique_all, np.unique_counts, np.unique_inverse,
    np.unique_values, np.compress, np.extract, np.bincount, np.trim_zeros, np.histogram, np.union1d,
    np.intersect1d, np.setdiff1d,
})  # fmt: skip
