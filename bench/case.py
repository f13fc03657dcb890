"""What a benchmark case is: sizes, peers that do the same work, and what is to be reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

OURS = "cutnn"


class Unavailable(Exception):
    """A peer cannot run here, for the reason given: it is not installed, or something that it needs is missing."""


@dataclass(frozen=True)
class Work:
    """One peer's work, ready to be timed.

    `call` is what is timed. `answer` does the work once and returns its results as NumPy arrays in a layout
    common to all peers; it runs before `call`, and the answers must agree. `wait` is given the result of the last
    call of a block, and returns when the device has done the work: libraries that return before ask for it.
    `peak` runs a function and returns the bytes in use at its peak beyond those before; cases of memory need it.
    """

    call: Callable[[], Any]
    answer: Callable[[], Sequence[Any]]
    wait: Callable[[Any], Any] = lambda result: None
    peak: Callable[[Callable[[], Any]], float] | None = None


@dataclass(frozen=True)
class Peer:
    """A competitor: the package to install, and a function that prepares its work for a size.

    `make` gets the size's keyword arguments, and the device as the harness was given it, "cpu" or "cuda", where it
    has a parameter `device`. `also` are further packages that it needs. `environment` is that of its process,
    `devices` are those it runs on, `sizes` those it competes in (None: all). `ours` marks the ways to run cutnn.
    """

    package: str
    make: Callable[..., Work]
    also: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ("cpu", "cuda")
    sizes: tuple[str, ...] | None = None
    ours: bool = False

    def competes(self, size: str, device: str) -> bool:
        return device.partition(":")[0] in self.devices and (self.sizes is None or size in self.sizes)


@dataclass(frozen=True)
class Target:
    """The ratio (a peer's time over ours) that must be reached, with its wording.

    `of` names which of ours: where there are several, the fastest of them counts.
    """

    peer: str
    at_least: float
    wording: str
    of: tuple[str, ...] = (OURS,)
    device: str = "cpu"


@dataclass(frozen=True)
class Share:
    """The part of a limit of the machine that must be reached: "gemm", its GEMM rate, or "roofline"."""

    limit: str
    at_least: float
    wording: str
    of: tuple[str, ...] = (OURS,)
    device: str = "cpu"


@dataclass(frozen=True)
class Growth:
    """How many times the amount at the size `first` one of ours may take at the size `last`."""

    first: str
    last: str
    at_most: float
    wording: str
    of: str = OURS


class Cost(NamedTuple):
    """Floating-point operations of a work, and bytes: what is read, plus what is written, each array once."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Case:
    """A benchmark: the same work by every peer, at every size.

    `sizes` maps a label to the keyword arguments of `Peer.make`, a function of its module that a worker can
    import; `cuda_sizes` are more of them, for a GPU. `targets` maps a label, or "*" for all of them, to what is to
    be reached. A time is divided by `operations(**size)` and printed in `unit`. `cost(**size)` is the work, for the
    roofline. `growth` names sizes that differ in one argument alone, by this argument: they are drawn as a curve.
    `seconds` is what the case may take: rounds end when it is spent, with `quick_rounds` of each size at least.
    `quantity` is "time", or "memory": then a round is the peak of one call, in MB.
    """

    name: str
    title: str
    sizes: Mapping[str, Mapping[str, Any]]
    peers: Mapping[str, Peer]
    targets: Mapping[str, Sequence[Target | Share]] = field(default_factory=dict)
    growth_targets: Sequence[Growth] = ()
    cuda_sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    operations: Callable[..., int] = lambda **size: 1
    cost: Callable[..., Cost] | None = None
    growth: Mapping[str, Sequence[str]] = field(default_factory=dict)
    quantity: str = "time"
    unit: str = "ms"
    tolerance: float = 1e-4
    rounds: int = 21
    quick_rounds: int = 3
    quick_sizes: int | None = None  # with --quick, only so many of the sizes
    block_seconds: float = 0.05
    seconds: float = 60
    # One call a block, none to warm up, and a fresh process for each size: for calls that take seconds,
    # and whose peak memory counts.
    whole_runs: bool = False
    memory_limit_mb: int | None = None

    def targets_of(self, size: str) -> list[Target | Share]:
        return [*self.targets.get("*", ()), *self.targets.get(size, ())]

    def sizes_on(self, device: str) -> dict[str, Mapping[str, Any]]:
        return {**self.sizes, **(self.cuda_sizes if device.startswith("cuda") else {})}


UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6, "MB": 2.0**-20}
