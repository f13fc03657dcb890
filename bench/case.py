"""What a benchmark case is: sizes, peers that do the same work, and the ratios to reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OURS = "cutnn"


class Unavailable(Exception):
    """A peer cannot run here, for the reason given: it is not installed, or its data are missing."""


@dataclass(frozen=True)
class Work:
    """One peer's work, ready to be timed.

    `call` is what is timed. `answer` does the work once and returns its results as NumPy arrays in a layout
    common to all peers; it runs before `call`, and the answers must agree.
    """

    call: Callable[[], Any]
    answer: Callable[[], Sequence[Any]]


@dataclass(frozen=True)
class Peer:
    """A competitor: the package to install, and a function that prepares its work for a size."""

    package: str
    make: Callable[..., Work]


@dataclass(frozen=True)
class Target:
    """The ratio (a peer's time over cutnn's) that must be reached, with its wording."""

    peer: str
    at_least: float
    wording: str


@dataclass(frozen=True)
class Case:
    """A benchmark: the same work by every peer, at every size.

    `sizes` maps a label to the keyword arguments of `Peer.make`, a function of its module that a worker can
    import; `targets` maps a label, or "*" for all of them, to the ratios to reach. A time is divided by
    `operations(**size)` and printed in `unit`.
    """

    name: str
    title: str
    sizes: Mapping[str, Mapping[str, Any]]
    peers: Mapping[str, Peer]
    targets: Mapping[str, Sequence[Target]] = field(default_factory=dict)
    operations: Callable[..., int] = lambda **size: 1
    unit: str = "ms"
    tolerance: float = 1e-4
    rounds: int = 21
    quick_rounds: int = 5
    quick_sizes: int | None = None  # with --quick, only so many of the sizes
    block_seconds: float = 0.1
    # One call a block, none to warm up, and a fresh process for each size: for calls that take seconds,
    # and whose peak memory counts.
    whole_runs: bool = False
    memory_limit_mb: int | None = None

    def targets_of(self, size: str) -> list[Target]:
        return [*self.targets.get("*", ()), *self.targets.get(size, ())]


UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6}
