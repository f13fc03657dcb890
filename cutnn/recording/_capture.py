"""`capture`: which recording a call takes, and the check of a new one against the plain step."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import optree

from cutnn.device import default_namespace, namespace, recording
from cutnn.nn import Module
from cutnn.recording._arrays import CaptureError, Recorded
from cutnn.recording._cuda import GraphRecording
from cutnn.recording._program import Program
from cutnn.recording._recorder import Recorder

PYTREES = "cutnn"


def capture(step: Callable[..., Any], *, recordings: int = 8, check: bool = True) -> Callable[..., Any]:
    """The step, recorded at its first call and replayed after that: the same results, to the same bits on the CPU.

    A step is a function of pytrees of arrays that computes, and writes to arrays in place: forward, backward,
    `optimizer.step`, sums of losses, the look-up of a batch by an array of indices. A call with new shapes, dtypes or
    strides of the arrays, or with other arguments beside them that are not equal, runs and records it; each call like
    that one replays the NumPy calls alone, in memory that is laid out once. Of `recordings` the newest used stay.

    Arrays that the step reaches otherwise (the weights of a model, the data) are read and written where they are;
    replacing an array of a module records anew. Optimizers count their steps, and follow schedules and settings.
    What is returned is the caller's own. Arguments are copied in: pass indices, and look up in the step, by
    `ct.take(images, indices, axis=0)` or a split's `batch`.

    The step must do the same at each call. What it decides by Python is decided once; where that would hang on values
    (`if loss > 1:`, `float(x)`, a mask as an index) it is a CaptureError, as are NumPy functions whose results have no
    fixed shape. Labels are looked at when recording only. Random numbers belong outside, as arguments. What happens to
    plain arrays alone, `momentum *= 0.9`, cannot be seen: with `check` the second call runs both the plain step and
    the replay from the same state, and raises CaptureError where one bit differs. An exception while recording
    leaves all arrays, and the optimizer, as they were.

    On the GPU it is one CUDA graph, after a call that warms up. CUTNN_CAPTURE=0 has the step called as it is.

    >>> import cutnn as ct
    >>> from cutnn import optim
    >>> weight = ct.asarray([1.0, 2.0])
    >>> optimizer = optim.SGD(weight, lr=0.5)
    >>> def step(x):
    ...     loss, gradient = ct.value_and_grad(lambda w: ct.sum((w - x) ** 2))(weight)
    ...     optimizer.step(gradient)
    ...     return loss
    >>> run = ct.capture(step)
    >>> run(ct.asarray([1.0, 1.0])), run(ct.asarray([0.0, 1.0])), run(ct.asarray([1.0, 1.0]))
    (np.float64(1.0), np.float64(1.0), np.float64(1.0))
    >>> weight, optimizer.steps
    (array([1., 1.]), 3)
    """
    if recordings < 1:
        raise ValueError(f"capture: recordings must be at least 1, and is {recordings}")
    return step if os.environ.get("CUTNN_CAPTURE", "1") == "0" else Captured(step, recordings, check)


class Captured:
    """What `capture` returns. `recordings` are those that it has, the newest used last."""

    def __init__(self, step: Callable[..., Any], most: int, check: bool) -> None:
        functools.update_wrapper(self, step, updated=())
        self.recordings: list[Any] = []
        self._step, self._most, self._check = step, most, check
        self._turn = threading.RLock()  # a recording has memory for one call at a time

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if recording.recorder is not None:  # within another captured step
            return self._step(*args, **kwargs)
        given: Any = (args, kwargs)
        leaves, tree = optree.tree_flatten(given, namespace=PYTREES)
        form = [_form(leaf) for leaf in leaves]
        arrays = [leaf for leaf, (kind, *_) in zip(leaves, form, strict=True) if kind is not None]
        with self._turn:
            found = self._find(tree, form)
            if found is None:
                xp = namespace(*arrays) if arrays else default_namespace()
                kind = _Recording if xp is np else GraphRecording
                with _Watched():
                    found, value = kind.record(self._step, leaves, tree, form)
                self.recordings = [*self.recordings, found][-self._most :]
                return value
            if self._check and not found.checked:
                return found.compare(functools.partial(self._step, *args, **kwargs), arrays)
            return found.replay(arrays)

    def _find(self, tree: Any, form: list[Any]) -> Any:
        for i in range(len(self.recordings) - 1, -1, -1):
            found = self.recordings[i]
            if found.tree == tree and _equal(found.form, form):
                if not found.holds():
                    del self.recordings[i]
                    return None
                if i + 1 < len(self.recordings):
                    self.recordings.append(self.recordings.pop(i))
                return found
        return None


class _Recording:
    """A step recorded on the CPU, for arguments of one form."""

    def __init__(
        self, recorder: Recorder, program: Program, tree: Any, form: list[Any], result_tree: Any
    ) -> None:
        self.program, self.tree, self.form, self.result_tree = program, tree, form, result_tree
        self.checked = False
        self._written = [buffer.owner for buffer in recorder.written]
        self._read = [b.owner for b in recorder.externals.values() if b not in set(recorder.written)]
        self._hosts = [(holder, name) for holder, name, _ in recorder.hosts]
        self._attributes = [
            (holder.__dict__, name, array) for holder, name, array in recorder.attributes.values()
        ]

    @classmethod
    def record(
        cls, step: Callable[..., Any], leaves: list[Any], tree: Any, form: list[Any]
    ) -> tuple[_Recording, Any]:
        """Run the step and write it down; its value too."""
        recorder = Recorder()
        given = [
            leaf if kind is None else recorder.take(leaf, i)
            for i, (leaf, (kind, *_)) in enumerate(zip(leaves, form, strict=True))
        ]
        inputs = [x for x in given if type(x) is Recorded]
        args, kwargs = tree.unflatten(given)
        recording.recorder = recorder
        try:
            value = step(*args, **kwargs)
            ends, result_tree = optree.tree_flatten(value, namespace=PYTREES)
            program = Program(recorder, inputs, ends)
        except BaseException:
            recorder.restore()
            raise
        finally:
            recording.recorder = None
        for i in program.changed:
            np.copyto(
                [x for x, (kind, *_) in zip(leaves, form, strict=True) if kind is not None][i],
                inputs[i].value,
            )
        results = [_plain_result(x) for x in ends]
        return cls(recorder, program, tree, form, result_tree), result_tree.unflatten(results)

    def holds(self) -> bool:
        """Whether the modules still have the arrays that they had."""
        return all(held.get(name) is array for held, name, array in self._attributes)

    def replay(self, arrays: list[Any]) -> Any:
        return self.result_tree.unflatten(self.program.replay(arrays))

    def compare(self, plain_step: Callable[[], Any], arrays: list[Any]) -> Any:
        """Replay, go back, and run the plain step, whose value is returned; CaptureError where they differ."""
        before = [array.copy() for array in self._written]
        given = [array.copy() for array in arrays]
        hosts = [(holder, name, getattr(holder, name)) for holder, name in self._hosts]
        try:
            replayed = self.program.replay(arrays)
            after = [array.copy() for array in self._written]
            hosts_after = [getattr(holder, name) for holder, name in self._hosts]
        finally:
            for array, backup in zip([*self._written, *arrays], [*before, *given], strict=True):
                if not _same_bits(array, backup):
                    np.copyto(array, backup)
            for holder, name, old in hosts:
                setattr(holder, name, old)
        untouched = [_digest(array) for array in self._read]
        value = plain_step()
        self.checked = True
        ends, tree = optree.tree_flatten(value, namespace=PYTREES)
        faults = []
        if tree != self.result_tree:
            faults.append("what it returns has another structure")
        else:
            for path, x, y in zip(tree.paths(), ends, replayed, strict=True):
                if not _same_bits(x, y):
                    faults.append(f"what it returns{''.join(f'[{key!r}]' for key in path)} differs")
        for array, theirs in zip(self._written, after, strict=True):
            if not _same_bits(array, theirs):
                faults.append(f"it writes other numbers to an array of {array.dtype} {array.shape}")
        for array, old in zip(self._read, untouched, strict=True):
            if _digest(array) != old:
                faults.append(
                    f"it changes an array of {array.dtype} {array.shape} by calls on plain arrays alone"
                )
        if [getattr(holder, name) for holder, name in self._hosts] != hosts_after:
            faults.append("it counts otherwise")
        if faults:
            raise CaptureError(
                f"the captured step is not what the step does: at its second call {'; '.join(faults)}. This call has "
                "made the plain step. A step must do the same each time, on its arguments: draw random numbers outside "
                "and pass them; compute what changes (a learning rate) outside, and pass it as an array; change arrays "
                "in the step by operations that an array of the step takes part in, or pass them as arguments"
            )
        return value


# -------------------------------------------------------------------------------------------------- helpers


def _form(leaf: Any) -> tuple[Any, ...]:
    """What must be alike for a recording to be used again; of what is no array, itself."""
    if hasattr(leaf, "__cuda_array_interface__"):
        return (leaf.device, leaf.shape, leaf.strides, leaf.dtype)
    if isinstance(leaf, np.ndarray):
        return ("cpu", leaf.shape, leaf.strides, leaf.dtype)
    return (None, leaf)


def _equal(form: list[Any], other: list[Any]) -> bool:
    if len(form) != len(other):
        return False
    for a, b in zip(form, other, strict=True):
        if a[0] is None and b[0] is None:
            if a[1] is not b[1] and (type(a[1]) is not type(b[1]) or not bool(a[1] == b[1])):
                return False
        elif a != b:
            return False
    return True


def _plain_result(x: Any) -> Any:
    if type(x) is not Recorded:
        return x
    return x.value[()] if x.scalar else x.value


def _same_bits(x: Any, y: Any) -> bool:
    if isinstance(x, (np.ndarray, np.generic)):
        if type(x) is not type(y) or x.shape != y.shape or x.dtype != y.dtype:
            return False
        return x.tobytes() == y.tobytes()
    return x is y or bool(x == y)


def _digest(x: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)


class _Watched(contextlib.AbstractContextManager[None]):
    """While a step is recorded, modules give their arrays lifted, and take plain ones.

    The methods are put on the class `Module` for that time alone, since each look at an attribute would cost else.
    """

    _turn = threading.Lock()
    _count = 0

    def __enter__(self) -> None:
        with self._turn:
            if not _Watched._count:
                Module.__getattribute__ = _get  # type: ignore[method-assign]
                Module.__setattr__ = _set  # type: ignore[method-assign]
            _Watched._count += 1

    def __exit__(self, *_: Any) -> None:
        with self._turn:
            _Watched._count -= 1
            if not _Watched._count:
                del Module.__getattribute__, Module.__setattr__


def _get(self: Any, name: str) -> Any:
    value = object.__getattribute__(self, name)
    recorder = recording.recorder
    if recorder is None or type(value) not in (np.ndarray, tuple, list, dict) or name.startswith("__"):
        return value
    return recorder.attribute(self, name, value)


def _set(self: Any, name: str, value: Any) -> None:
    recorder = recording.recorder
    if recorder is not None and type(value) is Recorded:
        if value.buffer.owner is None:
            raise CaptureError(
                f"the step puts a new array in place of {type(self).__name__}.{name}, which replays could not repeat; "
                f"write to the array that is there: module.{name}[...] = x"
            )
        value = value.value
    object.__setattr__(self, name, value)


__all__ = ["Captured", "capture"]
