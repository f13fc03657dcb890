"""The leaves of a model as flat buffers, small ones gathered: what an optimizer walks over."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from cutnn.device import namespace
from cutnn.nn import Module

GATHERED = 8192
"""Entries below which the leaves of NumPy are gathered, as many as come to 32768, to be updated by one call."""


class Group:
    """The leaves of one real dtype, one behind the other in flat buffers; complex leaves count as pairs.

    A leaf on a manifold is a group by itself. `name` tells the moments of groups apart.
    """

    def __init__(
        self, members: list[int], leaves: list[Any], moments: tuple[str, ...], name: str, manifold: Any = None
    ) -> None:
        self.members, self.name, self.manifold = members, name, manifold
        self.xp = namespace(*(leaves[i] for i in members))
        self.dtype = real_dtype(leaves[members[0]].dtype)
        size = sum(flat(leaves[i]).size for i in members)
        self.moments = {name: self.xp.zeros(size, dtype=self.dtype) for name in moments}
        self.adopt(leaves)

    def adopt(self, leaves: list[Any]) -> None:
        self.flats = [flat(leaves[i]) for i in self.members]
        starts = [0]
        for line in self.flats:
            starts.append(starts[-1] + line.size)
        moments = self.moments.values()
        self.parts = [[m[a:b] for m in moments] for a, b in zip(starts, starts[1:], strict=False)]
        # Runs of leaves, each with its part of each moment, and a buffer where there are several to gather.
        self.runs: list[tuple[slice, list[Any], Any]] = []
        begin = 0
        for end in range(1, len(self.flats) + 1):
            small = self.xp is np and starts[end] - starts[begin] < 4 * GATHERED
            if (
                end < len(self.flats)
                and small
                and max(self.flats[end - 1].size, self.flats[end].size) < GATHERED
            ):
                continue
            size = starts[end] - starts[begin]
            buffer = np.empty((2, size), self.dtype) if end - begin > 1 else None
            self.runs.append((slice(begin, end), [m[starts[begin] : starts[end]] for m in moments], buffer))
            begin = end

    @contextlib.contextmanager
    def gathered(self, gradients: list[Any]) -> Iterator[list[tuple[Any, ...]]]:
        """The weights, their moments and gradients, as flat arrays of one size each; what is gathered is put back."""
        pieces = []
        for run, moments, buffer in self.runs:
            if buffer is None:
                p, g = self.flats[run.start], gradients[run.start]
                g = g if g.dtype == self.dtype else g.astype(self.dtype)
            else:
                p = np.concatenate(self.flats[run], out=buffer[0])
                g = np.concatenate(gradients[run], out=buffer[1], casting="same_kind")
            pieces.append((p, *moments, g))
        yield pieces
        for run, _, buffer in self.runs:
            if buffer is not None:
                begin = 0
                for line in self.flats[run]:
                    line[...] = buffer[0, begin : begin + line.size]
                    begin += line.size


def clip_scale(gradients: list[Any], clip: float) -> Any:
    """What the gradients are multiplied by so that their joint norm is at most `clip`."""
    xp = namespace(*gradients)
    flats = [flat(g) for g in gradients]
    if xp is np:
        norm = math.sqrt(sum(float(np.dot(g, g)) for g in flats))
        return None if norm <= clip else clip / norm
    norm = xp.sqrt(sum(xp.sum(g * g).astype("float64") for g in flats))
    return xp.minimum(clip / xp.maximum(norm, 1e-300), 1.0)  # stays on the GPU: no wait


def manifolds_of(model: Any, paths: list[tuple[Any, ...]]) -> list[Any]:
    """The manifold of each leaf, as the innermost module on its path says; None for free ones."""
    found = []
    for path in paths:
        manifold, part = None, model
        for key in path:
            if isinstance(part, Module):
                manifold, part = part.manifold_of(key), getattr(part, key)
            elif isinstance(part, (tuple, list, dict)):
                part = part[key]
            else:
                break
        found.append(manifold)
    return found


def check_leaves(who: str, leaves: list[Any], names: list[str]) -> None:
    if not leaves:
        raise ValueError(f"{who}: the model has no arrays to train")
    for i, (leaf, name) in enumerate(zip(leaves, names, strict=True)):
        kind = getattr(getattr(leaf, "dtype", None), "kind", "?")
        if kind not in "fc":
            what = f"an array of {leaf.dtype}" if hasattr(leaf, "dtype") else f"a {type(leaf).__name__}"
            raise ValueError(
                f"{who}: {name or 'the model'} is {what}; trained leaves are float or complex arrays, "
                "and everything else is declared static (nn.static())"
            )
        if not leaf.flags.c_contiguous or not getattr(leaf.flags, "writeable", True):
            raise ValueError(
                f"{who}: {name or 'the model'} cannot be updated in place; give the model a copy"
            )
        if any(leaf is other for other in leaves[:i]):
            raise ValueError(
                f"{who}: {name} is the same array as an earlier leaf; give each leaf its own array"
            )


def flat(x: Any) -> Any:
    """x in one dimension, its complex numbers as pairs; a view where x is contiguous."""
    line = x.reshape(-1)
    return line.view(real_dtype(line.dtype)) if line.dtype.kind == "c" else line


def shaped(line: Any, like: Any) -> Any:
    """A part of a flat buffer in the shape and dtype of the leaf that it belongs to; a view."""
    return line.view(like.dtype).reshape(like.shape)


@functools.cache
def real_dtype(dtype: Any) -> Any:
    return np.empty(0, dtype).real.dtype
