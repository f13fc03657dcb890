"""A recorded step as a flat program: who is alive when, which memory is used again, and the replay.

No tape, no pytrees, no allocation: a replay is one loop over calls whose arguments are bound to memory. A buffer that
nobody reads any more is used again, by an elementwise call in place, so that a step's memory stays small.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cutnn._cores import held
from cutnn.recording._arrays import Recorded
from cutnn.recording._recorder import Buffer, Entry, Recorder, Ref, mapped

_ALIGNMENT = 64


class Life(NamedTuple):
    """The first and the last entry that touch a buffer: -1 for what is there before, one past the end for results."""

    first: int
    last: int


class Program:
    """The calls of a recorder, bound to memory of their own; `results` are the leaves of what the step returned."""

    def __init__(self, recorder: Recorder, inputs: Sequence[Recorded], results: Sequence[Any]) -> None:
        ends = [x.buffer for x in results if type(x) is Recorded]
        entries = needed(recorder.entries, ends)
        constant, entries = _constants(entries)
        lives = lives_of(entries, [x.buffer for x in inputs], ends, len(entries))
        for entry in constant:
            for buffer in entry.writes:
                lives.pop(buffer, None)
        self.lives = lives
        self.places, self.nbytes = placed(entries, lives)
        arena = np.empty(self.nbytes + _ALIGNMENT, np.uint8)
        start = -arena.ctypes.data % _ALIGNMENT
        kept: dict[Buffer, np.ndarray] = {
            b: np.empty(max(b.nbytes, 1), np.uint8) for e in constant for b in e.writes
        }

        def bound(x: Any) -> Any:
            if type(x) is not Ref:
                return x
            memory = kept.get(x.buffer)
            if memory is None and x.buffer not in self.places:  # made by np.empty, and never touched
                memory = kept[x.buffer] = np.empty(max(x.buffer.nbytes, 1), np.uint8)
            if memory is None:
                return np.ndarray(
                    x.shape, x.dtype, arena, start + self.places[x.buffer] + x.offset, x.strides
                )
            return np.ndarray(x.shape, x.dtype, memory, x.offset, x.strides)

        for entry in constant:
            entry.function(*mapped(bound, entry.args), **mapped(bound, entry.kwargs))
        self._parts: list[tuple[bool, list[Any]]] = []  # of calls alike in whether they are held
        for entry in entries:
            function, kwargs = entry.function, mapped(bound, entry.kwargs)
            if not self._parts or self._parts[-1][0] != entry.held:
                self._parts.append((entry.held, []))
            bare = functools.partial(function, **kwargs) if kwargs else function
            self._parts[-1][1].append((bare, mapped(bound, entry.args)))
        written = {buffer for entry in entries for buffer in entry.writes}
        self._inputs = [mapped(bound, recorder.describe(x)) for x in inputs]
        self.changed = [i for i, x in enumerate(inputs) if x.buffer in written]
        self._results = [_Result(x, mapped(bound, recorder.describe(x))) for x in results]
        self.entries = entries

    def replay(self, arguments: Sequence[np.ndarray]) -> list[Any]:
        """The leaves of what the step returns for these arrays."""
        for own, given in zip(self._inputs, arguments, strict=True):
            np.copyto(own, given)
        for is_held, calls in self._parts:
            with held() if is_held else contextlib.nullcontext():
                for function, args in calls:
                    function(*args)
        for i in self.changed:
            np.copyto(arguments[i], self._inputs[i])
        return [result.get() for result in self._results]


class _Result:
    """A leaf of the value: of what is computed a copy, of arrays from outside themselves."""

    def __init__(self, recorded: Any, bound: Any) -> None:
        self.bound = bound
        inner = type(recorded) is Recorded and recorded.buffer.owner is None
        self.kind = ("number" if recorded.scalar else "copy") if inner else "constant"

    def get(self) -> Any:
        if self.kind == "copy":
            return self.bound.copy(order="K")
        return self.bound[()] if self.kind == "number" else self.bound


# -------------------------------------------------------------------------------------------------- liveness


def needed(entries: Sequence[Entry], ends: Sequence[Buffer]) -> list[Entry]:
    """The entries whose results are read by others, returned, or seen from outside."""
    read, found = set(ends), []
    for entry in reversed(entries):
        if entry.kept or not read.isdisjoint(entry.writes):
            found.append(entry)
            read |= entry.reads
    return found[::-1]


def _constants(entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """The entries that give the same at each replay, and the others: zeros that nobody writes to, and their kin."""
    writers: dict[Buffer, int] = {}
    for entry in entries:
        for buffer in entry.writes:
            writers[buffer] = writers.get(buffer, 0) + 1
    constant: list[Entry] = []
    rest: list[Entry] = []
    known: set[Buffer] = set()
    for entry in entries:
        fixed = (
            not entry.kept and entry.reads <= known and all(writers[buffer] == 1 for buffer in entry.writes)
        )
        (constant if fixed else rest).append(entry)
        if fixed:
            known |= entry.writes
    return constant, rest


def lives_of(
    entries: Sequence[Entry], inputs: Sequence[Buffer], ends: Sequence[Buffer], end: int
) -> dict[Buffer, Life]:
    """The life of each buffer of the step, but for memory from outside."""
    lives = {buffer: Life(-1, -1) for buffer in inputs}
    for i, entry in enumerate(entries):
        for buffer in entry.reads | entry.writes:
            if buffer.owner is None:
                lives[buffer] = Life(lives[buffer].first if buffer in lives else i, i)
    for buffer in ends:
        if buffer in lives:
            lives[buffer] = Life(lives[buffer].first, end)
    return lives


def placed(entries: Sequence[Entry], lives: dict[Buffer, Life]) -> tuple[dict[Buffer, int], int]:
    """An offset for each buffer, so that no two that live at one time overlap, and the size of all."""
    memory = _Memory()
    places = {buffer: memory.take(buffer.nbytes) for buffer, life in lives.items() if life.first < 0}
    for buffer, life in lives.items():
        if life.last < 0:
            memory.give(places[buffer], buffer.nbytes)
    for i, entry in enumerate(entries):
        touched = [buffer for buffer in entry.reads | entry.writes if buffer in lives]
        touched.sort(key=lambda buffer: (lives[buffer].first, buffer.address))  # the same at every run
        inherited = None
        for buffer in touched:
            if buffer in places:
                continue
            old = _in_place(entry, i, buffer, lives)
            if old is not None and inherited is None:
                places[buffer], inherited = places[old], old
            else:
                places[buffer] = memory.take(buffer.nbytes)
        for buffer in touched:
            if lives[buffer].last == i and buffer is not inherited:
                memory.give(places[buffer], buffer.nbytes)
    return places, memory.size


def _in_place(entry: Entry, i: int, new: Buffer, lives: dict[Buffer, Life]) -> Buffer | None:
    """A buffer that is read for the last time where an elementwise call may write its result."""
    if not entry.elementwise:
        return None
    *inputs, out = (*entry.args, *entry.kwargs.values())
    if type(out) is not Ref or out.buffer is not new or math.prod(out.shape) < 2:
        return (
            None  # one number in place is a reduction to NumPy, and a complex product then rounds otherwise
        )
    for x in inputs:
        if type(x) is Ref and x.buffer in lives and lives[x.buffer].last == i and x[1:] == out[1:]:
            alike = all(type(y) is not Ref or y.buffer is not x.buffer or y == x for y in inputs)
            if alike and x.buffer.nbytes == new.nbytes and x.buffer not in entry.writes:
                return x.buffer
    return None


class _Memory:
    """Free pieces of one block that grows, by offset; the smallest that fits is taken."""

    def __init__(self) -> None:
        self.size = 0
        self._free: list[tuple[int, int]] = []  # (offset, size), neither overlapping nor touching

    def take(self, nbytes: int) -> int:
        nbytes = _rounded(nbytes)
        fitting = [(size, offset) for offset, size in self._free if size >= nbytes]
        if fitting:
            size, offset = min(fitting)
            self._free.remove((offset, size))
            if size > nbytes:
                bisect.insort(self._free, (offset + nbytes, size - nbytes))
            return offset
        if self._free and sum(self._free[-1]) == self.size:  # the last piece, which can grow
            offset, _ = self._free.pop()
        else:
            offset = self.size
        self.size = offset + nbytes
        return offset

    def give(self, offset: int, nbytes: int) -> None:
        nbytes = _rounded(nbytes)
        i = bisect.bisect(self._free, (offset, 0))
        if i < len(self._free) and self._free[i][0] == offset + nbytes:
            nbytes += self._free.pop(i)[1]
        if i and sum(self._free[i - 1]) == offset:
            i -= 1
            offset, before = self._free.pop(i)
            nbytes += before
        self._free.insert(i, (offset, nbytes))


def _rounded(nbytes: int) -> int:
    return max(-(-nbytes // _ALIGNMENT), 1) * _ALIGNMENT
