"""Models brought from one domain to the other: weights held as tensors, or as their transforms (`_domain.py`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import optree

from cutnn.nn._domain import check_domain, entries, has_domain, held
from cutnn.nn.learned import Learned, run_over

__all__ = ["change_holders", "in_domain"]


def in_domain(model: Any, domain: str) -> Any:
    """A copy of a model whose layers and networks hold their weights in a domain: "spatial", or "transform".

    The map stays the same to rounding, and the way there and back is the identity to rounding; but over a projected
    algebra only the projections of weights and biases are left. Parts without a domain are copied. Differentiable.
    Raises ValueError for another domain.

    >>> import numpy as np
    >>> from cutnn import algebra, nn
    >>> star = algebra.fft(4)
    >>> model = nn.Sequential(nn.ResNet(star, width=3, depth=2, seed=0), nn.TLinear(star, 3, 2, seed=1))
    >>> other, X = nn.in_domain(model, "transform"), star.random(3, 5, seed=2, dtype="float32")
    >>> other
    Sequential, 96 parameters
      layers[0]: ResNet(fft(4), 3, tanh, Euler, h=0.25, transform domain), 72
        steps[0]: Step(weight=complex64 (3, 3, 3), bias=complex64 (3, 3, 1)), 36
        steps[1]: Step(weight=complex64 (3, 3, 3), bias=complex64 (3, 3, 1)), 36
      layers[1]: TLinear(fft(4), 3 → 2, transform domain), 24
    >>> np.allclose(model(X), other(X), atol=1e-6)
    True
    """
    check_domain("in_domain", domain)

    def moved(part: Any) -> Any:
        def move(a: Any) -> Any:
            return (
                1.0 * a
                if part.domain == domain
                else held(part.star, entries(part.star, a, part.domain), domain)
            )

        return _marked(optree.tree_map(move, part, namespace="cutnn"), domain)

    return change_holders(model, moved, lambda a: 1.0 * a)


def change_holders(model: Any, change: Callable[[Any], Any], other: Callable[[Any], Any]) -> Any:
    """A model in which each outermost module with a domain, over its algebra, is changed, and other arrays by `other`.

    The algebra of layers in an `nn.Learned` is that of its M as it is now.
    """

    def visit(part: Any) -> Any:
        if isinstance(part, Learned):
            star = part.star
            closed = run_over(part.model, part.open, star)
            twin = run_over(change_holders(closed, change, other), star, part.open)
            changed = {"model": twin, "M": tuple([other(M) for M in part.M])}
            return _twin(part, changed)
        return change(part) if has_domain(part) else other(part)

    return optree.tree_map(visit, model, is_leaf=_is_leaf, namespace="cutnn")


# -------------------------------------------------------------------------------------------------- helpers


def _is_leaf(part: Any) -> bool:
    return has_domain(part) or isinstance(part, Learned)


def _marked(part: Any, domain: str) -> Any:
    """A module, or what modules hold, with another domain written in it; the arrays are the same."""
    if isinstance(part, tuple) and not hasattr(part, "_fields"):
        return tuple([_marked(x, domain) for x in part])
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        return part
    fields = [f.name for f in dataclasses.fields(part)]
    return _twin(part, {f: domain if f == "domain" else _marked(getattr(part, f), domain) for f in fields})


def _twin(part: Any, changed: dict[str, Any]) -> Any:
    twin = object.__new__(type(part))
    twin.__dict__.update(part.__dict__ | changed)
    return twin
