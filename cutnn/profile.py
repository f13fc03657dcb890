"""Where the time goes: `profile` counts and times every operation of a program, forward, backward and optimizer.

Operations are watched where they call what computes (`cutnn.tape.operations`), the rules of a backward pass through the
tape that is handed to it. What a profile does itself is timed too, and taken off.
"""

from __future__ import annotations

import csv
import functools
import io
import math
import os
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy

from cutnn._launches import count_launches
from cutnn.device import event_clock, synchronize
from cutnn.tape import Scattered, Tape, derivatives, raw
from cutnn.tape.operations import Change, Operation, watch_all

__all__ = ["Row", "profile"]


@dataclass(frozen=True)
class Row:
    """What one operation did in one phase, "forward", "backward" or "optimizer"; times are in seconds.

    `time` is without, `total` with the operations that were called in it, and `share` is that of `time` in the whole.
    `bytes` and `flops` are without them too, so that rows may be added. `flops` is None where it is not known, and
    `kernels`, those started on a GPU, where they could not be counted.
    """

    operation: str
    phase: str
    shapes: str
    calls: int
    time: float
    share: float
    total: float
    bytes: int
    flops: int | None
    kernels: int | None

    @property
    def bandwidth(self) -> float:
        """Bytes a second."""
        return self.bytes / self.time if self.time > 0 else 0.0

    @property
    def rate(self) -> float | None:
        """Floating point operations a second."""
        return None if self.flops is None or self.time <= 0 else self.flops / self.time


class profile:
    """Where the time of a block goes: operations, calls, time, bytes and kernels, forward and backward.

    >>> import numpy as np
    >>> import cutnn as ct
    >>> A, B = np.ones((4, 3, 3)), np.ones((4, 3, 2))
    >>> with ct.profile() as p:
    ...     gradient = ct.grad(lambda A: ct.sum(ct.tanh(A @ B)))(A)
    >>> sorted((row.operation, row.phase, row.calls) for row in p.rows if row.phase == "forward")
    [('matmul', 'forward', 1), ('sum', 'forward', 1), ('tanh', 'forward', 1)]
    >>> {row.operation: row.flops for row in p.rows if row.flops}
    {'matmul': 144}

    `print(p)` shows a table, as `show=True` does when the block ends; `p.table(...)` is that table as a string,
    `p.rows`, `p.group(...)` are its rows, `p.to_dict(...)`, `p.to_csv(...)` its columns. Each takes `by`: "operation",
    for one row for an operation and a phase, "shape", for one for the shapes of its arrays too, or "phase"; and `sort`,
    the field of `Row` by which the rows are ordered, largest first. A profile that is entered again adds up.

    *What is counted.* An operation is a function of `cutnn.array` and of the rooms above it that computes with arrays,
    a primitive of the user's own, a rule of the backward pass (under the name of its operation), a backward pass
    itself, whose own time is the tape's and that of sums of cotangents, and an optimizer's step. Time is counted once:
    an operation inside another one has its own row, and `time` is without it. All that happens in a backward pass is
    of the phase "backward", what `checkpoint` and reversible networks compute again too. The rest, Python, the tape's
    part of the forward pass, and NumPy that the program calls itself (`a @ b` of two plain arrays), is the row "outside
    of operations". Functions that only make arrays (`zeros`, `asarray`) are no operations.

    *Bytes* are the least that has to move: each array that is read, once, and each result, once; temporaries of an
    operation are not among them, and a view moves nothing. *Flops* are known of products of matrices: 2 l p m, and four
    times that of complex ones.

    *On a GPU* time is taken by CUDA events around each operation, which are read when the block ends; no operation
    waits. Where the host is slower than the GPU, the time is that of the host. Kernels are counted, a captured graph as
    one, if NVIDIA's CUPTI is installed (`pip install nvidia-cuda-cupti`).

    A profile watches the thread that enters it, and no other; each thread may have its own. They do not nest:
    RuntimeError. When the block ends, by an exception too, all is as it was before. While none is active, none costs
    anything; an active one adds 10 to 20 µs to an operation, which are taken off, and named at the foot of the table.
    """

    def __init__(
        self, show: bool = False, by: str = "operation", sort: str = "time", limit: int | None = None
    ) -> None:
        _check(by, sort)
        self._show, self._by, self._sort, self._limit = show, by, sort, limit
        self._tally: _Tally = {}
        self.runs = 0
        """How many times the block was entered."""
        self.wall = 0.0
        """Seconds from beginning to end, with what the profile itself took."""
        self.own = 0.0
        """Seconds that the profile itself took."""
        self.memory = 0
        """Bytes by which the peak memory of the process grew; 0 where the system does not tell."""
        self._counts_kernels = False

    def __enter__(self) -> profile:
        if getattr(_here, "recorder", None) is not None:
            raise RuntimeError("ct.profile: a profile of this thread is active already, and they do not nest")
        synchronize()
        self._peak = _peak_memory()
        self._recorder = _Recorder(self._tally)
        self._counts_kernels = _begin(on_gpu=self._recorder.events is not None)
        _here.recorder = self._recorder
        self._began = perf_counter()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        recorder = self._recorder
        try:
            synchronize()
            self.wall += perf_counter() - self._began
            recorder.resolve()
        finally:
            _here.recorder = None
            _end()
        self.runs += 1
        self.own += recorder.own
        self.memory += _peak_memory() - self._peak
        if self._show and kind is None:
            print(self)

    # ----------------------------------------------------------------------------------------------- results

    @property
    def rows(self) -> list[Row]:
        """The rows of the table, as the profile was asked to group and to order them."""
        return self.group(self._by, self._sort)

    @property
    def outside(self) -> float:
        """Seconds outside of operations: Python, the tape, and what the program does without cutnn."""
        return self._whole - self._inside

    def group(self, by: str = "operation", sort: str = "time") -> list[Row]:
        """The rows, one for each operation and phase, with `by="shape"` for each shape, with "phase" for each phase."""
        _check(by, sort)
        whole = self._whole or 1.0
        sums: dict[tuple[str, str, str], _Sum] = {}
        for (name, phase, *forms), tally in self._tally.items():
            key = ("" if by == "phase" else name, phase, _text(*forms) if by == "shape" else "")
            sums.setdefault(key, _Sum()).add(tally)
        rows = [
            Row(
                *key, tally.calls, tally.time, tally.time / whole, tally.total, tally.bytes,
                tally.flops or None, tally.kernels if self._counts_kernels else None,
            )
            for key, tally in sums.items()
        ]  # fmt: skip
        if by == "phase":  # totals of operations in one another do not add up
            rows = [replace(row, total=row.time) for row in rows]
        text = sort in ("operation", "phase", "shapes")
        return sorted(rows, key=lambda row: getattr(row, sort) or ("" if text else 0), reverse=not text)

    def table(self, by: str | None = None, sort: str | None = None, limit: int | None = None) -> str:
        """The table as text; `limit` is the largest number of rows, others are summed up in one."""
        by, limit = by or self._by, limit or self._limit
        rows = self.group(by, sort or self._sort)
        shown, rest = rows[:limit], rows[limit:] if limit else []
        lines = [_HEAD] + [_line(row) for row in shown]
        if rest:
            left = sum(row.time for row in rest)
            lines.append([f"{len(rest)} more", "", "", "", *_time(left, sum(row.share for row in rest))])
        whole = self._whole
        lines.append(
            ["outside of operations", "", "", "", *_time(self.outside, self.outside / (whole or 1.0))]
        )
        lines.append(["all", "", "", "", *_time(whole, 1.0)])
        lines = [line + [""] * (len(_HEAD) - len(line)) for line in lines]
        kept = [k for k in range(len(_HEAD)) if any(line[k] for line in lines[1:])]
        widths = [max(len(line[k]) for line in lines) for k in kept]
        text = [
            "  ".join(
                f"{line[k]:<{w}}" if k < _TEXT else f"{line[k]:>{w}}"
                for k, w in zip(kept, widths, strict=True)
            ).rstrip()
            for line in lines
        ]
        text.insert(len(text) - 2, "-" * max(map(len, text)))
        times = "once" if self.runs == 1 else f"{self.runs} times"
        foot = f"entered {times}; the profile itself took {1e3 * self.own:.3f} ms more"
        if self.memory:
            foot += f"; peak memory grew by {self.memory / 1e6:.1f} MB"
        return "\n".join([*text, foot])

    def to_dict(self, by: str | None = None, sort: str | None = None) -> dict[str, list[Any]]:
        """The columns by name, as a data frame takes them."""
        rows = self.group(by or self._by, sort or self._sort)
        return {field.name: [getattr(row, field.name) for row in rows] for field in fields(Row)}

    def to_csv(
        self, path: str | os.PathLike[str] | None = None, by: str | None = None, sort: str | None = None
    ) -> str:
        """The rows as CSV, with a line of names first; written to `path` too, if there is one."""
        columns = self.to_dict(by, sort)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        if path is not None:
            Path(path).write_text(text.getvalue())
        return text.getvalue()

    def __str__(self) -> str:
        return self.table()

    @property
    def _inside(self) -> float:
        return math.fsum(tally.time for tally in self._tally.values())

    @property
    def _whole(self) -> float:
        """The time without the profile's own; a GPU may have worked in that, so no less than the operations'."""
        return max(self.wall - self.own, self._inside)


# ------------------------------------------------------------------------------------------------ recording


class _Sum:
    """What adds up for a row."""

    __slots__ = ("bytes", "calls", "flops", "kernels", "time", "total")

    def __init__(self) -> None:
        self.calls = self.bytes = self.flops = self.kernels = 0
        self.time = self.total = 0.0

    def add(self, other: _Sum) -> None:
        self.calls += other.calls
        self.time += other.time
        self.total += other.total
        self.bytes += other.bytes
        self.flops += other.flops
        self.kernels += other.kernels


_Tally = dict[tuple[str, str, tuple[Any, ...], Any], _Sum]  # by operation, phase, shapes and dtype


class _Frame:
    """An operation at work: what it is, and what those inside it did so far.

    Where it is inside of itself, in the same phase, `outer` is the outermost one, which has the row.
    """

    __slots__ = (
        "bytes", "flops", "inner", "kernels", "launched", "name", "on_gpu", "outer", "own", "parent", "phase", "start",
        "stop", "tally",
    )  # fmt: skip

    def __init__(self, name: str, phase: str, parent: _Frame | None, launched: int) -> None:
        self.name, self.phase, self.parent = name, phase, parent
        self.outer, above = self, parent
        while above is not None:
            if above.name == name and above.phase == phase:
                self.outer = above.outer
                break
            above = above.parent
        self.tally = _Sum()
        # Of the operations inside: seconds, bytes, flops, kernels.
        self.inner, self.bytes, self.flops, self.kernels = 0.0, 0, 0, 0
        # When it began: what the profile had taken, and the kernels there had been.
        self.own, self.launched = 0.0, launched
        self.on_gpu = False
        self.start: Any = None  # events
        self.stop: Any = None


class _Recorder:
    """The operations of one thread, as they are called."""

    def __init__(self, tally: _Tally) -> None:
        self.tally = tally
        self.own = 0.0
        self.launched = 0
        self.phase = "forward"
        self.frame: _Frame | None = None
        self.events = event_clock()
        self.pending: list[_Frame] = []

    def call(
        self,
        name: str,
        phase: str | None,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        moved: Callable[..., int] | None = None,
        flops: Callable[..., int] | None = None,
    ) -> Any:
        """function(*args, **kwargs), counted."""
        entered = perf_counter()
        before = self.phase
        if phase is not None:
            self.phase = phase
        frame = self.frame = _Frame(name, self.phase, self.frame, self.launched)
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
            work = flops(args, ans) if flops is not None and results else 0
            self._finish(frame, seconds, traffic, work, arrays, results)
            self.own += perf_counter() - ended

    def _finish(
        self,
        frame: _Frame,
        seconds: float,
        traffic: int,
        work: int,
        arrays: list[Any],
        results: list[Any],
    ) -> None:
        traffic, work = max(traffic, frame.bytes), max(work, frame.flops)
        launched = self.launched - frame.launched
        here = frame.outer.tally
        here.bytes += traffic - frame.bytes
        here.flops += work - frame.flops
        here.kernels += launched - frame.kernels
        if not frame.on_gpu:
            here.time += seconds - frame.inner
        if frame.parent is not None:
            above = frame.parent
            above.inner += seconds
            above.bytes += traffic
            above.flops += work
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
        return self.call(name, None, rule, (g, *saved), {}, flops=_RULE_FLOPS.get(name))


class _WatchedTape:
    """A tape that gives its records with rules that are counted, to the loop of the backward pass as it is."""

    def __init__(self, tape: Tape, recorder: _Recorder) -> None:
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
    ans: list[Any] = recorder.call("backward pass", "backward", _plain_pass, args, {}, moved=lambda *_: 0)
    return ans


def _change_for(operation: Operation) -> Change:
    """What stands in the place of an operation while there is a profile."""
    given = operation.name or operation.function.__name__.lstrip("_")
    for rule in operation.rules:
        if callable(rule) and isinstance(given, str):
            _rules[rule] = given
    flops = _FLOPS.get(given) if isinstance(given, str) else None

    def change(function: Any) -> Any:
        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            recorder = getattr(_here, "recorder", None)
            if recorder is None:
                return function(*args, **kwargs)
            name = given if isinstance(given, str) else given(*args, **kwargs)
            return recorder.call(name, operation.phase, function, args, kwargs, operation.moved, flops)

        return watched

    return change


def _name_of(rule: Any, saved: tuple[Any, ...]) -> str:
    """The operation that a rule belongs to; one that wraps another has that as the first thing it saved."""
    for candidate in (rule, *saved[:1]):
        if callable(candidate) and candidate in _rules:
            return _rules[candidate]
    return str(getattr(getattr(rule, "__self__", rule), "__name__", "function"))


def _begin(on_gpu: bool) -> bool:
    """Watch all operations from now on; returns whether kernels are counted."""
    global _active, _end_counting
    with _lock:
        if not _active:
            derivatives.backward = _watched_pass
            watch_all(_change_for)
        _active += 1
        if on_gpu and _end_counting is None:
            _end_counting = count_launches(_launched)
        return on_gpu and _end_counting is not None


def _end() -> None:
    global _active, _end_counting
    with _lock:
        _active -= 1
        if _active:
            return
        watch_all(None)
        derivatives.backward = _plain_pass
        _rules.clear()
        if _end_counting is not None:
            _end_counting()
            _end_counting = None


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


def _of_mode_product(args: Any, ans: Any) -> int:
    return _multiply_adds(ans, math.prod(args[0].shape) * args[1].shape[0])


def _of_tensordot(args: Any, ans: Any) -> int:
    """f₁ k and k f₂ numbers make f₁ f₂."""
    return _multiply_adds(ans, math.isqrt(math.prod([*args[0].shape, *args[1].shape, *ans.shape])))


def _of_product_rule(args: Any, ans: Any) -> int:
    """Of g (l, m) and x2 (p, m), or x1 (l, p): l p m, for as many matrices as g has."""
    g, x = args[0], args[1]
    left = ans.shape[-2] == g.shape[-2] and x.shape[-1] == g.shape[-1]
    return _multiply_adds(ans, math.prod(g.shape) * x.shape[-2 if left else -1])


def _multiply_adds(ans: Any, count: int) -> int:
    return count * (8 if ans.dtype.kind == "c" else 2)


_FLOPS = {"matmul": _of_product, "mode_product": _of_mode_product, "tensordot": _of_tensordot}
_RULE_FLOPS = {"matmul": _of_product_rule}

# ----------------------------------------------------------------------------------------------------- text

_HEAD = ["operation", "pass", "shapes", "calls", "ms", "%", "total ms", "MB", "GB/s", "GFLOP/s", "kernels"]
_TEXT = 3  # columns, from the left


def _line(row: Row) -> list[str]:
    return [
        row.operation,
        row.phase,
        row.shapes,
        f"{row.calls}",
        *_time(row.time, row.share),
        f"{1e3 * row.total:.3f}",
        f"{row.bytes / 1e6:.3f}" if row.bytes else "",
        f"{row.bandwidth / 1e9:.1f}" if row.bytes else "",
        "" if row.rate is None else f"{row.rate / 1e9:.1f}",
        "" if row.kernels is None else f"{row.kernels}",
    ]


def _time(seconds: float, share: float) -> list[str]:
    return [f"{1e3 * seconds:.3f}", f"{100 * share:.1f}"]


def _text(shapes: tuple[Any, ...], dtype: Any) -> str:
    """The shapes of what was given, and the dtype of the result: "32×96×96, 32×96×32 float32"."""
    text = ", ".join("×".join(map(str, shape)) for shape in shapes if shape)
    return f"{text} {dtype or ''}".strip()


def _check(by: str, sort: str) -> None:
    orders = [field.name for field in fields(Row)] + ["bandwidth", "rate"]
    if by not in ("operation", "shape", "phase"):
        raise ValueError(f'profile: by is "operation", "shape" or "phase", not {by!r}')
    if sort not in orders:
        raise ValueError(f"profile: sort is one of {', '.join(map(repr, orders))}, not {sort!r}")


def _peak_memory() -> int:
    """The most memory that the process has had, in bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
