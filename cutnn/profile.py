"""Where the time goes: `profile` counts and times every operation of a program, forward, backward and optimizer.

What is counted, and how it is shown; `_profiler.py` does the counting.
"""

from __future__ import annotations

import csv
import io
import math
import os
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from cutnn._profiler import Sum, Tally, begin, end

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
    operation are not among them, and a view moves nothing. *Flops* are those of products of matrices, 2 l p m, and four
    times that of complex ones. A product inside another operation, a transform say, counts to that.

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
        self._tally: Tally = {}
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
        self._recorder = begin(self._tally)
        self._counts_kernels = self._recorder.counts_kernels
        self._peak = _peak_memory()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        end(self._recorder)
        self.runs += 1
        self.wall += self._recorder.wall
        self.own += self._recorder.own
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
        sums: dict[tuple[str, str, str], Sum] = {}
        for (name, phase, *forms), tally in self._tally.items():
            key = ("" if by == "phase" else name, phase, _text(*forms) if by == "shape" else "")
            sums.setdefault(key, Sum()).add(tally)
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
