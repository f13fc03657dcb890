"""Optimizers that update a model's arrays in place.

A step reads each gradient once and touches the memory of each weight and moment once: the rule of an optimizer is
written once, elementwise, and becomes one kernel (`array/fused.py`), which does all leaves of a dtype in one launch on
a GPU. The moments of those leaves lie in one flat buffer; on the CPU small leaves are gathered, so that they cost one
call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Number
from typing import Any, ClassVar

import numpy as np
import optree

from cutnn.array import sqrt
from cutnn.array.fused import InPlace
from cutnn.device import host_numbers, namespace, record_call, unlifted
from cutnn.optim._flat import Group, check_leaves, clip_scale, flat, manifolds_of, real_dtype, shaped
from cutnn.optim.schedules import Schedule
from cutnn.tape.operations import placed

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]


class Optimizer:
    """What the optimizers share: the leaves of the model, weight decay, clipping, blocks and state.

    `lr` is a number or a schedule, called with the number of steps made. `clip` bounds the Euclidean norm of
    the whole gradient, before the weight decay is added. Raises ValueError for a model without arrays, for a
    leaf that cannot be updated in place, and for settings out of range.

    A leaf that its module binds to a manifold (`Module.manifold_of`; the M of `nn.Learned`) stays on it: its gradient
    is the Riemannian one, the step ends in a retraction, and the momentum, or Adam's first moment, is carried to the
    new point by projection. Adam's second moment is one number for such a leaf, the mean of the squares, since its
    entries are no coordinates (Bécigneul & Ganea 2019). Weight decay does not act there: the norm is fixed.
    """

    _moments: tuple[str, ...] = ()
    _decoupled: ClassVar[bool] = False  # the weight decay acts on the weights, not through the gradient

    def __init__(self, model: Any, lr: float | Schedule, weight_decay: float, clip: float | None) -> None:
        _at_least_zero(weight_decay=weight_decay, clip=clip, lr=0.0 if callable(lr) else lr)
        self.lr = lr
        self.weight_decay = weight_decay
        self.clip = clip
        self.steps = 0
        self._updates: dict[tuple[bool, bool], InPlace] = {}
        self._lay_out(model)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.lr(self.steps) if callable(self.lr) else self.lr

    @property
    def settings(self) -> dict[str, Any]:
        """The numbers that the steps are made with, by name, as `momentum`; `lr` only where it is no schedule.

        >>> SGD(np.ones(1), lr=0.5, momentum=0.9).settings
        {'momentum': 0.9, 'nesterov': False, 'lr': 0.5, 'weight_decay': 0.0, 'clip': None}
        """
        kinds = (Number, str, tuple, list, type(None))
        return {
            name: value
            for name, value in vars(self).items()
            if isinstance(value, kinds) and name not in ("model", "steps") and not name.startswith("_")
        }

    def step(self, grads: Any) -> None:
        """Update the model's arrays in place, given the gradient in the model's own structure.

        Raises TypeError where the structure or the device differs, or one of both is complex, ValueError where
        a shape does.
        """
        gradients = self._matched(grads)
        if any(a is not unlifted(b) for a, b in zip(self._leaves, self._matched(self.model), strict=True)):
            self._adopt()
        moments = [moment for group in self._groups for moment in group.moments.values()]
        record_call(self._update, gradients, [*self._leaves, *moments], host=[(self, "steps")])

    def _update(self, *arrays: Any) -> None:
        """A step, given the gradients, and after them what it writes to: all leaves and moments."""
        gradients = list(arrays[: len(self._leaves)])
        scale = None if self.clip is None else clip_scale(gradients, self.clip)
        numbers = host_numbers(self._count)
        for group in self._groups:
            update = self._move if group.manifold is None else self._on_manifold
            update(group, [flat(gradients[i]) for i in group.members], scale, numbers)

    def _count(self) -> tuple[float, ...]:
        """Begin a step: the numbers of the rule, then the weight decay through the gradient, and on the weights."""
        numbers = self._numbers(self.learning_rate, self.steps + 1)
        self.steps += 1
        return (*numbers, *((0.0, self.weight_decay) if self._decoupled else (self.weight_decay, 0.0)))

    def state(self) -> dict[str, Any]:
        """The steps made and the moments, as arrays that can be saved; copies."""
        moments = {f"{name}.{g.name}": m.copy() for g in self._groups for name, m in g.moments.items()}
        return {"steps": np.asarray(self.steps), **moments}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state()` of the same optimizer for the same model."""
        own = {f"{name}.{g.name}": m for g in self._groups for name, m in g.moments.items()}
        shapes, theirs = ({k: a.shape for k, a in d.items()} for d in (own | {"steps": np.asarray(0)}, state))
        if shapes != theirs:
            raise ValueError(f"{type(self).__name__}: the state has {theirs}, this optimizer {shapes}")
        self.steps = int(state["steps"])
        for name, moment in own.items():
            moment[...] = namespace(moment).asarray(state[name])

    def continue_with(self, model: Any, carry: Callable[[Any], Any]) -> None:
        """Go on with another model, steps and schedule uninterrupted, after `nn.prolong` say.

        `carry` makes of a pytree of the old model's structure one of the new model's; each moment goes through it
        in the shape of the model. Raises TypeError or ValueError where the result is not of the new model's
        structure and shapes; then nothing has changed.

        >>> import cutnn as ct
        >>> coarse, fine = [ct.asarray([1.0])], [ct.asarray([1.0]), ct.asarray([1.0])]
        >>> optimizer = SGD(coarse, lr=0.5, momentum=0.5)
        >>> optimizer.step([ct.asarray([1.0])])
        >>> optimizer.continue_with(fine, lambda tree: [tree[0], tree[0]])
        >>> optimizer.step([ct.asarray([0.0]), ct.asarray([1.0])])
        >>> fine
        [array([0.75]), array([0.25])]
        """
        parts = {i: own for g in self._groups for i, own in zip(g.members, g.parts, strict=True)}
        moments = [
            self._tree.unflatten([shaped(parts[i][k], leaf) for i, leaf in enumerate(self._leaves)])
            for k in range(len(self._moments))
        ]
        before = vars(self).copy()
        try:
            self._lay_out(model)
            carried = [self._matched(carry(moment)) for moment in moments]
        except BaseException:
            vars(self).update(before)
            raise
        for group in self._groups:
            for i, own in zip(group.members, group.parts, strict=True):
                for moment, part in zip(carried, own, strict=True):
                    part[...] = flat(moment[i])

    # ------------------------------------------------------------------------------------ what a rule defines

    def _numbers(self, lr: float, step: int) -> tuple[float, ...]:
        """The numbers of step `step`, counted from 1, that the rule and its kernel take."""
        raise NotImplementedError

    def _rule(self, numbers: Sequence[Any], g: Any, *moments: Any) -> tuple[Any, ...]:
        """What the weights lose for the gradient g, and the new moments: elementwise, it becomes one kernel."""
        raise NotImplementedError

    def _tangent(self, numbers: Sequence[float], g: Any, *moments: Any) -> Any:
        """What a leaf on a manifold loses, to first order, for the Riemannian gradient g; updates the moments."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------ helpers

    def _lay_out(self, model: Any) -> None:
        """Take the leaves of a model, and make its moments, zeros."""
        leaves, tree = optree.tree_flatten(model, namespace="cutnn")
        paths = tree.paths()
        names = [".".join(map(str, path)) for path in paths]
        check_leaves(type(self).__name__, leaves, names)
        self.model, self._leaves, self._tree, self._names = model, leaves, tree, names
        manifolds = manifolds_of(model, paths)
        free = [i for i, manifold in enumerate(manifolds) if manifold is None]
        self._groups = [
            Group(
                [i for i in free if real_dtype(leaves[i].dtype) == dtype], leaves, self._moments, str(dtype)
            )
            for dtype in dict.fromkeys(real_dtype(leaves[i].dtype) for i in free)
        ]
        self._groups += [
            Group([i], leaves, self._moments, names[i], manifold)
            for i, manifold in enumerate(manifolds)
            if manifold is not None
        ]

    def _matched(self, tree: Any) -> list[Any]:
        leaves, structure = optree.tree_flatten(tree, namespace="cutnn")
        if structure != self._tree:
            raise TypeError(
                f"{type(self).__name__} was made for a model of structure {self._tree}; it received "
                f"{structure}. Give step the gradient of that model, as ct.grad returns it"
            )
        for name, leaf, own in zip(self._names, leaves, self._leaves, strict=True):
            if leaf.shape != own.shape:
                raise ValueError(
                    f"{type(self).__name__}: {name or 'the model'} has shape {own.shape}, but its gradient or "
                    f"new value has shape {leaf.shape}"
                )
            if type(leaf) is not type(own):
                namespace(own, leaf)  # says which array lives where
            if leaf.dtype is not own.dtype and (leaf.dtype.kind == "c") != (own.dtype.kind == "c"):
                raise TypeError(
                    f"{type(self).__name__}: {name or 'the model'} is {own.dtype}, but its gradient or "
                    f"new value {leaf.dtype}"
                )
        return leaves

    def _adopt(self) -> None:
        """Follow a model whose arrays were replaced by others."""
        leaves = [unlifted(leaf) for leaf in optree.tree_leaves(self.model, namespace="cutnn")]
        check_leaves(type(self).__name__, leaves, self._names)
        for group in self._groups:
            group.adopt(leaves)
        self._leaves = leaves

    def _move(self, group: Group, gradients: list[Any], scale: Any, numbers: Sequence[Any]) -> None:
        """The rule on the free leaves of a group; `numbers` are those of the rule, then decay and shrink."""
        *rule, decay, shrink = numbers
        decayed = bool(self.weight_decay)
        update = self._in_place(scale is not None, decayed)
        given = [
            *([] if scale is None else [scale]),
            *([shrink if self._decoupled else decay] * decayed),
            *rule,
        ]
        with group.gathered(gradients) as pieces:
            update(pieces, given)

    def _in_place(self, scaled: bool, decayed: bool) -> InPlace:
        """The whole update of a weight p, its moments and the gradient g, as one kernel."""
        count = len(self._moments)

        def update(p: Any, *rest: Any) -> tuple[Any, ...]:
            moments, g, (*numbers,) = rest[:count], rest[count], rest[count + 1 :]
            g = g * numbers.pop(0) if scaled else g
            decay = numbers.pop(0) if decayed else None
            if decayed and not self._decoupled:
                g = g + decay * p
            loss, *after = self._rule(numbers, g, *moments)
            if decayed and self._decoupled:
                loss = loss + (numbers[0] * decay) * p
            return p - loss, *after

        key = (scaled, decayed)
        if key not in self._updates:
            self._updates[key] = InPlace(update, 2 + count)
        return self._updates[key]

    def _on_manifold(self, group: Group, gradients: list[Any], scale: Any, numbers: Sequence[Any]) -> None:
        point = self._leaves[group.members[0]]
        g, *moments = (shaped(line, point) for line in (gradients[0], *group.parts[0]))
        g = group.manifold.project(point, g if scale is None else g * scale)
        point[...] = group.manifold.retract(point, -self._tangent(numbers[:-2], g, *moments))
        for moment in moments[:1]:
            moment[...] = group.manifold.project(point, moment)


def _moved(optimizer: Optimizer, grads: Any) -> int:
    """Bytes of a step: gradients are read, weights and moments read and written."""
    sizes = [leaf.nbytes for leaf in optimizer._leaves]
    return sum(sizes) * (3 + 2 * len(optimizer._moments))


placed(
    Optimizer,
    "step",
    name=lambda optimizer, grads: type(optimizer).__name__,
    phase="optimizer",
    moved=_moved,
)


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum μ: m ← μ m + g, then w ← w − lr m.

    With `nesterov` w ← w − lr (g + μ m). `weight_decay` is added to the gradient: g + weight_decay · w, as
    PyTorch does it.

    >>> import cutnn as ct
    >>> w = ct.asarray([1.0, 2.0])
    >>> SGD(w, lr=0.5).step(ct.asarray([1.0, 1.0]))
    >>> w
    array([0.5, 1.5])
    """

    def __init__(
        self,
        model: Any,
        lr: float | Schedule,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        clip: float | None = None,
    ) -> None:
        _at_least_zero(momentum=momentum)
        if nesterov and not momentum:
            raise ValueError("SGD: nesterov needs a momentum above 0")
        self.momentum = momentum
        self.nesterov = nesterov
        self._moments = ("momentum",) if momentum else ()
        super().__init__(model, lr, weight_decay, clip)

    def _numbers(self, lr: float, step: int) -> tuple[float, ...]:
        return lr, self.momentum

    def _rule(self, numbers: Sequence[Any], g: Any, *moments: Any) -> tuple[Any, ...]:
        lr, mu = numbers
        if not moments:
            return (lr * g,)
        m = mu * moments[0] + g
        return lr * (g + mu * m if self.nesterov else m), m

    def _tangent(self, numbers: Sequence[float], g: Any, *moments: Any) -> Any:
        lr, mu = numbers
        for m in moments:
            m[...] = mu * m + g
            g = g + mu * m if self.nesterov else m
        return lr * g


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1). `weight_decay` is added to the gradient, as PyTorch does it.

    The moments are kept as plain sums, m ← β₁ m + g and v ← β₂ v + g², two passes fewer than means; the
    factors 1 − β and the bias corrections are numbers of the step.

    >>> import cutnn as ct
    >>> w = ct.asarray([1.0, 2.0])
    >>> Adam(w, lr=0.5).step(ct.asarray([3.0, -4.0]))
    >>> w
    array([0.5, 2.5])
    """

    _moments = ("first", "second")

    def __init__(
        self,
        model: Any,
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip: float | None = None,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"{type(self).__name__}: betas must lie in [0, 1), and are {betas}")
        _at_least_zero(eps=eps)
        self.betas = betas
        self.eps = eps
        super().__init__(model, lr, weight_decay, clip)

    def _numbers(self, lr: float, step: int) -> tuple[float, ...]:
        b1, b2 = self.betas
        first = (1 - b1) / (1 - b1**step)
        second = math.sqrt((1 - b2) / (1 - b2**step))
        return lr, b1, b2, lr * first / second, self.eps / second

    def _rule(self, numbers: Sequence[Any], g: Any, *moments: Any) -> tuple[Any, ...]:
        _, b1, b2, rate, eps = numbers
        m = b1 * moments[0] + g
        v = b2 * moments[1] + g * g
        return rate * m / (sqrt(v) + eps), m, v

    def _tangent(self, numbers: Sequence[float], g: Any, *moments: Any) -> Any:
        _, b1, b2, rate, eps = numbers
        m, v = moments
        xp = namespace(g)
        m[...] = b1 * m + g
        v[...] = b2 * v + xp.mean(xp.abs(g) ** 2)
        return rate * m / (xp.sqrt(v.real) + eps)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): w also loses lr · weight_decay · w."""

    _decoupled = True

    def __init__(
        self,
        model: Any,
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        clip: float | None = None,
    ) -> None:
        super().__init__(model, lr, betas, eps, weight_decay, clip)


# -------------------------------------------------------------------------------------------------- helpers


def _at_least_zero(**settings: float | None) -> None:
    for name, value in settings.items():
        if value is not None and not value >= 0:
            raise ValueError(f"{name} must be 0 or more, and is {value}")
