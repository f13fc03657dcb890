"""How a profile counts: what it puts in the places of operations, and what it notes when one is called.

Operations are watched where they call what computes (`cutnn.tape.operations`), the rules of a backward pass through the
tape that is handed to its loop. What this costs is timed too, and taken off.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

import numpy

from cutnn._launches import count_launches
from cutnn.device import event_clock, synchronize
from cutnn.tape import Scattered, Tape, derivatives, raw
from cutnn.tape.operations import Change, Operation, watch_all


def begin(tally: Tally) -> Recorder:
    """Count what this thread does from now on; RuntimeError where that is done already."""
    global _active, _end_counting
    if getattr(_here, "recorder", None) is not None:
        raise RuntimeError("ct.profile: a profile of this thread is active already, and they do not nest")
    recorder = Recorder(tally)
    synchronize()
    with _lock:
        if not _active:
            derivatives.backward = _watched_pass
            watch_all(_change_for)
        _active += 1
        if recorder.events is not None:
            if _end_counting is None:
                _end_counting = count_launches(_launched)
            recorder.counts_kernels = _end_counting is not None
    _here.recorder = recorder
    recorder.began = perf_counter()
    return recorder


def end(recorder: Recorder) -> None:
    """Stop counting, and where no other thread counts, put back what stood in the places of operations."""
    global _active, _end_counting
    try:
        synchronize()
        recorder.wall = perf_counter() - recorder.began
        recorder.resolve()
    finally:
        _here.recorder = None
        with _lock:
            _active -= 1
            if not _active:
                watch_all(None)
                derivatives.backward = _plain_pass
                _rules.clear()
                if _end_counting is not None:
                    _end_counting()
                    _end_counting = None


class Sum:
    """What adds up for a row."""

    __slots__ = ("bytes", "calls", "flops", "kernels", "time", "total")

    def __init__(self) -> None:
        self.calls = self.bytes = self.flops = self.kernels = 0
        self.time = self.total = 0.0

    def add(self, other: Sum) -> None:
        self.calls += other.calls
        self.time += other.time
        self.total += other.total
        self.bytes += other.bytes
        self.flops += other.flops
        self.kernels += other.kernels


Tally = dict[tuple[str, str, tuple[Any, ...], Any], Sum]  # by operation, phase, shapes and dtype


class _Frame:
    """An operation at work: what it is, and what those inside it did so far.

    Where it is inside of itself, in the same phase, `outer` is the outermost one, which has the row. `computes` is
    false of what only runs others: a backward pass, the rule of a checkpoint.
    """

    __slots__ = (
        "bytes", "computes", "inner", "kernels", "launched", "name", "on_gpu", "outer", "own", "parent", "phase",
        "start", "stop", "tally",
    )  # fmt: skip

    def __init__(self, name: str, phase: str, computes: bool, parent: _Frame | None, launched: int) -> None:
        self.name, self.phase, self.computes, self.parent = name, phase, computes, parent
        self.outer, above = self, parent
        while above is not None:
            if above.name == name and above.phase == phase:
                self.outer = above.outer
                break
            above = above.parent
        self.tally = Sum()
        self.inner, self.bytes, self.kernels = 0.0, 0, 0  # of the operations inside; the first are seconds
        # When it began: what the profile had taken, and the kernels there had been.
        self.own, self.launched = 0.0, launched
        self.on_gpu = False
        self.start: Any = None  # events
        self.stop: Any = None


class Recorder:
    """The operations of one thread, as they are called."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.own = 0.0
        self.launched = 0
        self.phase = "forward"
        self.frame: _Frame | None = None
        self.events = event_clock()
        self.pending: list[_Frame] = []
        self.counts_kernels = False
        self.began = self.wall = 0.0

    def call(
        self,
        name: str,
        phase: str | None,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        moved: Callable[..., int] | None = None,
        flops: Callable[..., int] | None = None,
        computes: bool = True,
    ) -> Any:
        """function(*args, **kwargs), counted."""
        entered = perf_counter()
        before = self.phase
        if phase is not None:
            self.phase = phase
        frame = self.frame = _Frame(name, self.phase, computes, self.frame, self.launched)
        if self.events is not None:
            frame.start = self.events.record()
        began = perf_counter()
        self.own += began - entered
        frame.own = self.own
        ans = None
        try:
            ans = function(*args, **kwargs)
            return ans
        finally:
            ended = perf_counter()
            self.phase, self.frame = before, frame.parent
            seconds = ended - began - (self.own - frame.own)
            arrays = _arrays((*args, *kwargs.values()))
            results = _arrays((ans,))
            if self.events is not None:
                kind = self.events.array_type
                frame.on_gpu = frame.on_gpu or any(isinstance(x, kind) for x in (*arrays, *results))
                if frame.on_gpu:
                    frame.stop = self.events.record()
            traffic = moved(*args, **kwargs) if moved is not None else _traffic(arrays, results, ans)
            if flops is not None and results:
                frame.outer.tally.flops += flops(args, ans)
            self._finish(frame, seconds, traffic, arrays, results)
            self.own += perf_counter() - ended

    def part(
        self, function: Callable[..., Any], args: Any, kwargs: Any, flops: Callable[..., int] | None
    ) -> Any:
        """function(*args, **kwargs), which counts to the operation that called it."""
        assert self.frame is not None
        ans = function(*args, **kwargs)
        if flops is not None:
            ended = perf_counter()
            self.frame.outer.tally.flops += flops(args, ans)
            self.own += perf_counter() - ended
        return ans

    def _finish(
        self, frame: _Frame, seconds: float, traffic: int, arrays: list[Any], results: list[Any]
    ) -> None:
        traffic = max(traffic, frame.bytes)
        launched = self.launched - frame.launched
        here = frame.outer.tally
        here.bytes += traffic - frame.bytes
        here.kernels += launched - frame.kernels
        if not frame.on_gpu:
            here.time += seconds - frame.inner
        if frame.parent is not None:
            above = frame.parent
            above.inner += seconds
            above.bytes += traffic
            above.kernels += launched
            above.on_gpu = above.on_gpu or frame.on_gpu
        if frame.start is not None and frame.stop is not None:
            self.pending.append(frame)
        if frame.outer is frame:
            here.calls += 1
            if not frame.on_gpu:
                here.total += seconds
            like = results or arrays
            forms = tuple([x.shape for x in arrays]), like[0].dtype if like else None
            key = (frame.name, frame.phase, *forms)
            known = self.tally.get(key)
            if known is None:
                self.tally[key] = here
            else:
                known.add(here)
                frame.tally = known  # for the times of the GPU, which come later
        if frame.parent is None and len(self.pending) > _PENDING:
            synchronize()
            self.resolve()

    def resolve(self) -> None:
        """Read the events of the GPU, all of which have passed."""
        for frame in self.pending:
            assert self.events is not None
            seconds = self.events.seconds(frame.start, frame.stop)
            frame.outer.tally.time += seconds
            if frame.outer is frame:
                frame.tally.total += seconds
            if frame.parent is not None:
                frame.parent.outer.tally.time -= seconds
        self.pending.clear()

    # ------------------------------------------------------------------------------------------- backward

    def rule(self, g: Any, rule: Callable[..., Any], saved: tuple[Any, ...]) -> Any:
        """A cotangent by a rule of an operation."""
        name = _name_of(rule, saved)
        if name is not None:
            return self.call(name, None, rule, (g, *saved), {})
        # One that no operation has, a checkpoint's or that of a kernel made for its shapes, goes by its own name, a
        # method by that of its object.
        name = str(getattr(getattr(rule, "__self__", rule), "__name__", "function"))
        return self.call(name, None, rule, (g, *saved), {}, computes=False)


class _WatchedTape:
    """A tape that gives its records with rules that are counted, to the loop of the backward pass as it is."""

    def __init__(self, tape: Tape, recorder: Recorder) -> None:
        self._tape, self._recorder = tape, recorder

    def __getitem__(self, slot: int) -> Any:
        began = perf_counter()
        record = self._tape[slot]
        if type(record) is tuple:
            rule = self._recorder.rule
            record = tuple([(parent, rule, (own, saved)) for parent, own, saved in record])
        self._recorder.own += perf_counter() - began
        return record

    def __setitem__(self, slot: int, record: Any) -> None:
        self._tape[slot] = record

    def __delitem__(self, slots: slice) -> None:
        del self._tape[slots]


def _watched_pass(tape: Tape, seeds: dict[int, Any], inputs: int, consume: bool) -> list[Any]:
    """`backward`, with its rules counted where its thread has a profile."""
    recorder = getattr(_here, "recorder", None)
    if recorder is None:
        return _plain_pass(tape, seeds, inputs, consume)
    args = (_WatchedTape(tape, recorder), seeds, inputs, consume)
    ans: list[Any] = recorder.call(
        "backward pass", "backward", _plain_pass, args, {}, moved=lambda *_: 0, computes=False
    )
    return ans


def _change_for(operation: Operation) -> Change:
    """What stands in the place of an operation while there is a profile."""
    given = operation.name or operation.function.__name__.lstrip("_")
    flops = None
    if isinstance(given, str):
        if operation.function.__module__.startswith("cutnn."):  # a user's function may have the same name
            flops = _FLOPS.get(given)
        _rules.update({rule: given for rule in operation.rules if callable(rule)})

    def change(function: Any) -> Any:
        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            recorder = getattr(_here, "recorder", None)
            if recorder is None:
                return function(*args, **kwargs)
            if operation.part and recorder.frame is not None and recorder.frame.computes:
                return recorder.part(function, args, kwargs, flops)
            name = given if isinstance(given, str) else given(*args, **kwargs)
            computes = operation.phase is None
            return recorder.call(
                name, operation.phase, function, args, kwargs, operation.moved, flops, computes
            )

        return watched

    return change


def _name_of(rule: Any, saved: tuple[Any, ...]) -> str | None:
    """The operation that a rule belongs to; one that wraps another has that as the first thing it saved."""
    for candidate in (rule, *saved[:1]):
        if callable(candidate) and candidate in _rules:
            return _rules[candidate]
    return None


def _launched() -> None:
    recorder = getattr(_here, "recorder", None)
    if recorder is not None:
        recorder.launched += 1


_here = threading.local()  # its recorder, where the thread has one
_lock = threading.Lock()
_active = 0  # profiles, of all threads
_rules: dict[Any, str] = {}  # the name of the operation that a rule belongs to, while there is a profile
_plain_pass = derivatives.backward
_end_counting: Callable[[], None] | None = None  # where kernels are counted
_PENDING = 50_000  # operations whose events are held before the first are read

# ------------------------------------------------------------------------------------------- bytes and flops


def _arrays(values: Iterable[Any]) -> list[Any]:
    """The plain arrays among values and in their lists, each once."""
    found: dict[int, Any] = {}
    for value in values:
        x = raw(value)
        if type(x) is numpy.ndarray or (hasattr(x, "strides") and not isinstance(x, type)):
            found[id(x)] = x
        elif isinstance(x, (tuple, list)):
            for part in _arrays(x):
                found[id(part)] = part
    return list(found.values())


def _traffic(arrays: list[Any], results: list[Any], ans: Any) -> int:
    """Bytes read and written: those of the arrays and of results that are not views of them."""
    owners = {id(derivatives._owner(x)) for x in arrays}
    new = [x for x in results if id(derivatives._owner(x)) not in owners]
    if isinstance(ans, Scattered) or (results and not new):
        return 0
    return sum(map(_bytes, arrays)) + sum(map(_bytes, new))


def _bytes(x: Any) -> int:
    """The memory that an array covers: one that was broadcast, no more than before."""
    if 0 not in x.strides or not x.size:
        return int(x.nbytes)
    return int(x.dtype.itemsize * math.prod([n for n, s in zip(x.shape, x.strides, strict=True) if s]))


def _of_product(args: Any, ans: Any) -> int:
    return _multiply_adds(ans, math.prod(ans.shape) * args[0].shape[-1])


def _of_tensordot(args: Any, ans: Any) -> int:
    """f₁ k and k f₂ numbers make f₁ f₂."""
    return _multiply_adds(ans, math.isqrt(math.prod([*args[0].shape, *args[1].shape, *ans.shape])))


def _multiply_adds(ans: Any, count: int) -> int:
    return count * (8 if ans.dtype.kind == "c" else 2)


_FLOPS = {"matmul": _of_product, "tensordot": _of_tensordot}
