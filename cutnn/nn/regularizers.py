"""Regularisers: of the weights of a model, one real number to add to its loss.

`regularizer(model)` is differentiable in the model, and regularisers add: `nn.Smoothness(1e-2) + nn.Tikhonov(1e-4)`.
Of complex weights |θ|² counts. Each formula is one primitive: a training step passes here every time. Weights that
are held in the transform domain count as the tensors that they stand for. Where MᴴM = ℓI Parseval's identity
tells their norms, for nothing where M is orthonormal and real; else they are transformed back at each call.

Source: Newman, Horesh, Avron, Kilmer, Stable tensor neural networks for efficient deep learning, Frontiers in Big
Data 7 (2024); Haber, Ruthotto, Stable architectures for deep neural networks, Inverse Problems 34 (2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optree

from cutnn import array as ct
from cutnn.array._fused.squares import half_squared_distances, half_squares
from cutnn.device import namespace
from cutnn.nn._domain import entries, is_half
from cutnn.nn.domains import change_holders
from cutnn.nn.dynamics import TimeNet, time_nets
from cutnn.nn.layers import Sequential
from cutnn.tape import primitive, raw

__all__ = ["Blocks", "Regularizer", "Smoothness", "Tikhonov"]


class Regularizer:
    """What the regularisers share: they add.

    >>> import numpy as np
    >>> from cutnn import nn
    >>> both = nn.Tikhonov(1.0) + nn.Tikhonov(2.0)
    >>> both(np.ones(4))
    np.float64(6.0)
    """

    def __call__(self, model: Any) -> Any:
        """The regulariser of a model, one real number."""
        raise NotImplementedError

    def __add__(self, other: Any) -> Regularizer:
        return _Sum((self, other)) if isinstance(other, Regularizer) else NotImplemented


@dataclass(frozen=True)
class Tikhonov(Regularizer):
    """½α‖θ‖², over all arrays of a model, or of any pytree: small weights.

    Raises ValueError where there is no array, or α is negative or not finite.

    >>> import numpy as np
    >>> from cutnn import grad, nn
    >>> nn.Tikhonov(0.1)(np.array([3.0, 4.0])), grad(nn.Tikhonov(0.1))(np.array([3.0, 4.0]))
    (np.float64(1.25), array([0.3, 0.4]))
    """

    alpha: float

    def __post_init__(self) -> None:
        _check_alpha("Tikhonov", self.alpha)

    def __call__(self, model: Any) -> Any:
        arrays = _arrays("Tikhonov", _isometric(model))
        return _by_dtype(arrays, self.alpha, half_squares)


@dataclass(frozen=True)
class Smoothness(Regularizer):
    """Weights that change slowly in time: over the steps of every time network of a model.

    The form "squared" is (α/2h) Σ_j ‖θ_j − θ_{j−1}‖², j = 1, 2, …, which stays the same when a network is
    prolonged. The form "authors" is that of the code of Newman et al. (2024): (α/2) Σ_j Σ_p ‖p_j − p_{j−1}‖, norms
    unsquared, of weight and bias each, without h, and from j = 0 on, with p_{−1} = 0. A norm has no gradient where
    two neighbours are equal; there it is 0, which is a subgradient.

    Raises ValueError where the model has no time network, or α is negative or not finite.

    >>> from cutnn import algebra, nn
    >>> net = nn.HamiltonianNet(algebra.dct(4), width=3, depth=2, seed=0)
    >>> nn.Smoothness(1e-2)(net) > 0, nn.Smoothness(1e-2)(net.resample(1))
    (np.True_, np.float32(0.0))
    """

    alpha: float
    form: str = "squared"

    def __post_init__(self) -> None:
        _check_alpha("Smoothness", self.alpha)
        if self.form not in ("squared", "authors"):
            raise ValueError(f'Smoothness: form is "squared" or "authors", not {self.form!r}')

    def __call__(self, model: Any) -> Any:
        nets = time_nets(_isometric(model))
        if not nets:
            raise ValueError(
                f"Smoothness is over the steps of a ResNet or a HamiltonianNet, and {_name(model)} holds none"
            )
        total, *more = [self._of(net) for net in nets]
        return sum(more, total)

    def _of(self, net: TimeNet) -> Any:
        factor, formula = (0.5 * self.alpha, _norms_of_differences)
        if self.form == "squared":
            factor, formula = (self.alpha / net.h, _half_squares_of_differences)
        depth = len(net)
        return _by_dtype(_arrays("Smoothness", net), factor, lambda *same: formula(*same, depth=depth))


@dataclass(frozen=True)
class Blocks(Regularizer):
    """A regulariser for each block of a `Sequential`, keyed by its index, from the end where negative.

    Raises TypeError for a model that is not a Sequential, IndexError for a block that it does not have.

    >>> from cutnn import algebra, nn
    >>> model = nn.Sequential(nn.ResNet(algebra.dct(4), width=3, depth=2), nn.Unfold(), nn.Dense(12, 10))
    >>> regularizer = nn.Blocks({0: nn.Smoothness(1e-2), -1: nn.Tikhonov(1e-2)})
    >>> bool(regularizer(model) == nn.Smoothness(1e-2)(model[0]) + nn.Tikhonov(1e-2)(model[2]))
    True
    """

    regularizers: Mapping[int, Callable[[Any], Any]]

    def __post_init__(self) -> None:
        if not self.regularizers:
            raise ValueError("Blocks: no regularisers; nn.Blocks({0: nn.Tikhonov(1e-4)}) say")
        for index, regularizer in self.regularizers.items():
            if not isinstance(index, int) or isinstance(index, bool) or not callable(regularizer):
                raise TypeError(
                    "Blocks: a dictionary from the index of a block to its regulariser, and it holds "
                    f"{index!r}: {regularizer!r}"
                )

    def __call__(self, model: Any) -> Any:
        if not isinstance(model, Sequential):
            raise TypeError(f"Blocks is for the blocks of a Sequential, not for a {_name(model)}")
        for index in self.regularizers:
            if not -len(model) <= index < len(model):
                raise IndexError(
                    f"Blocks: a regulariser for block {index}, and the model has {len(model)} blocks"
                )
        total, *more = [regularizer(model[index]) for index, regularizer in self.regularizers.items()]
        return sum(more, total)


# --------------------------------------------------------------------------------------------- the formulas


def _pull_squares(g: Any, arrays: tuple[Any, ...], depth: int) -> list[Any]:
    """2θ_j − θ_{j−1} − θ_{j+1}, and one-sided at the two ends."""
    return _adjoint([_conj(d) * g for d in _differences(arrays, depth)], len(arrays) // depth)


@primitive(arrays=_pull_squares)
def _half_squares_of_differences(*arrays: Any, depth: int) -> Any:
    """½ Σ_j ‖θ_j − θ_{j−1}‖² of the weights of `depth` steps, one step after the other."""
    pairs = _pairs(arrays, depth)
    return half_squared_distances(pairs) if pairs else _zero(arrays)


def _pull_norms(g: Any, arrays: tuple[Any, ...], depth: int) -> list[Any]:
    per_step = len(arrays) // depth
    units = [_pull_norm(g, _norm(d), d) for d in (*arrays[:per_step], *_differences(arrays, depth))]
    return [_minus(a, b) for a, b in zip(units, [*units[per_step:], *[None] * per_step], strict=True)]


@primitive(arrays=_pull_norms)
def _norms_of_differences(*arrays: Any, depth: int) -> Any:
    """Σ_j Σ_p ‖p_j − p_{j−1}‖ over the parameters of `depth` steps, one step after the other; p_{−1} = 0."""
    first = arrays[: len(arrays) // depth]
    return sum(map(_norm, (*first, *_differences(arrays, depth))))


def _pull_norm(g: Any, ans: Any, d: Any) -> Any:
    return _conj(d) * (g / ct.where(ans == 0, 1, ans))


@primitive(d=_pull_norm)
def _norm(d: Any) -> Any:
    """‖d‖; the gradient at 0 is 0. The standard's vector_norm takes 0.14 ms for a weight of CIFAR-10, this 0.03."""
    return namespace(d).sqrt(2 * half_squares(d))


def _differences(arrays: tuple[Any, ...], depth: int) -> list[Any]:
    """Those of each array and the one a step before it."""
    return [b - a for b, a in _pairs(arrays, depth)]


def _pairs(arrays: tuple[Any, ...], depth: int) -> list[tuple[Any, Any]]:
    """Each array that has one a step before it, and that one."""
    return list(zip(arrays[len(arrays) // depth :], arrays, strict=False))


def _adjoint(cotangents: list[Any], per_step: int) -> list[Any]:
    """The cotangents of the arrays, from those of their differences."""
    none = [None] * per_step
    return [_minus(a, b) for a, b in zip(none + cotangents, cotangents + none, strict=True)]


def _minus(a: Any, b: Any) -> Any:
    """a − b, where None is zero."""
    return (None if b is None else -b) if a is None else a if b is None else a - b


# -------------------------------------------------------------------------------------------------- helpers


@dataclass(frozen=True)
class _Sum(Regularizer):
    parts: tuple[Callable[[Any], Any], ...]

    def __call__(self, model: Any) -> Any:
        total, *more = [part(model) for part in self.parts]
        return sum(more, total)


def _arrays(who: str, model: Any) -> list[Any]:
    arrays = optree.tree_leaves(model, namespace="cutnn")
    if not arrays:
        raise ValueError(f"{who}: {_name(model)} has no arrays to regularise")
    for a in arrays:
        if getattr(getattr(raw(a), "dtype", None), "kind", "?") not in "fc":
            what = f"an array of {a.dtype}" if hasattr(a, "dtype") else f"a {type(a).__name__}"
            raise TypeError(f"{who} is over float and complex arrays, and {_name(model)} holds {what}")
    return arrays


def _isometric(model: Any) -> Any:
    """The model with arrays of the norms of its weights as tensors, and linear in them."""

    def change(part: Any) -> Any:
        return (
            part
            if part.domain == "spatial"
            else optree.tree_map(lambda a: _as_long(part.star, a), part, namespace="cutnn")
        )

    return change_holders(model, change, lambda a: a)


def _as_long(star: Any, A_hat: Any) -> Any:
    """An array of the norm of the tensor whose transform is A_hat, and linear in it."""
    if star.parseval is None:
        return entries(star, A_hat, "transform")
    roots = np.sqrt(star.parseval) if is_half(star, A_hat, "transform") else np.sqrt(1 / star.scale)
    if np.all(roots == 1):
        return A_hat
    return A_hat * (
        namespace(raw(A_hat)).asarray(roots, dtype=raw(A_hat).real.dtype) if np.ndim(roots) else float(roots)
    )


def _by_dtype(arrays: list[Any], factor: float, formula: Callable[..., Any]) -> Any:
    """factor · Σ formula(arrays of one dtype), so that each dtype keeps its own gradients."""
    groups: dict[Any, list[Any]] = {}
    for a in arrays:
        groups.setdefault(a.dtype, []).append(a)
    total, *more = [factor * formula(*group) for group in groups.values()]
    return sum(more, total)


def _conj(a: Any) -> Any:
    return ct.conj(a) if a.dtype.kind == "c" else a


def _zero(arrays: tuple[Any, ...]) -> Any:
    """A real zero in the precision of the arrays."""
    return namespace(*arrays).zeros((), dtype=arrays[0].real.dtype)


def _check_alpha(who: str, alpha: float) -> None:
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ValueError(f"{who}: alpha must be a number from 0 on, and is {alpha}")


def _name(model: Any) -> str:
    return type(model).__name__
