"""The operations that there are, and the places from which they call what computes: `cutnn.profile` watches them there.

A primitive calls its forward from a closure, an elementwise function the library's own from a table. A profile
exchanges what stands there for as long as it is active, so that a program which nobody watches runs the same
instructions as if there were no profile.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

Change = Callable[[Any], Any]  # from a function to what shall stand in its place


class Operation:
    """A function that computes with arrays: its name, its rules, and how it is watched.

    `watch(change)` puts change(f) wherever the operation calls f to compute, and `watch(unwatched)` f itself. A name
    may be a function of the arguments of f. `phase` is what all that happens in f belongs to, where that is not for its
    caller to say, and `moved(*args)` the bytes that f reads and writes, where those of its arguments and its result are
    not. What is a `part` of other operations counts to the one that calls it, and is one by itself where none does.
    """

    __slots__ = ("__weakref__", "function", "moved", "name", "part", "phase", "rules", "watch")

    def __init__(
        self,
        function: Any,
        rules: Iterable[Any],
        watch: Callable[[Change], None],
        name: str | Callable[..., str] | None = None,
        phase: str | None = None,
        moved: Callable[..., int] | None = None,
        part: bool = False,
    ) -> None:
        self.function, self.rules, self.watch = function, tuple(rules), watch
        self.name, self.phase, self.moved, self.part = name, phase, moved, part


def operation(function: Any, rules: Iterable[Any], watch: Callable[[Change], None], **more: Any) -> Any:
    """Make it known that this function is an operation; it is returned as it came.

    The function keeps its operation alive, and nothing else does: a primitive may be made in a loop.
    """
    made = Operation(function, rules, watch, **more)
    function.__dict__["_cutnn_operation"] = made
    with _lock:
        _known.add(made)
        if _change is not None:
            made.watch(_change(made))
    return function


def placed(place: Any, attribute: str, rules: Iterable[Any] = (), **more: Any) -> None:
    """An operation that is always called as an attribute of this module or class, and watched there."""
    function = getattr(place, attribute)
    operation(function, rules, lambda change: setattr(place, attribute, change(function)), **more)


def unwatched(function: Any) -> Any:
    """The change that changes nothing."""
    return function


def watch_all(change: Callable[[Operation], Change] | None) -> None:
    """Watch every operation, those too that are made from now on, each by its change; with None no one any more."""
    global _change
    with _lock:
        _change = change
        for made in _known:
            made.watch(unwatched if change is None else change(made))


def known() -> list[Operation]:
    """The operations that there are."""
    with _lock:
        return list(_known)


_known: weakref.WeakSet[Operation] = weakref.WeakSet()
_lock = threading.RLock()
_change: Callable[[Operation], Change] | None = None
