"""Stable networks: layers as time steps of an ordinary differential equation over an algebra.

A network is a vector field (`fields.py`, what the weights of one step mean) and a time integrator
(`integrators.py`): any pair that makes sense. A dense network is the same over `algebra.plain()`.

Source: Newman, Horesh, Avron, Kilmer, Stable tensor neural networks for efficient deep learning, Frontiers in Big
Data 7 (2024); Haber, Ruthotto, Stable architectures for deep neural networks, Inverse Problems 34 (2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optree

from cutnn import array as ct
from cutnn.device import to_device
from cutnn.nn import fields
from cutnn.nn._checks import check_counts, check_input, check_settings
from cutnn.nn._domain import check_domain, entries_dtype, held
from cutnn.nn._module import Module, static
from cutnn.nn._run import System, end, reversible_end
from cutnn.nn.initializers import Initializer, transform_aware
from cutnn.nn.integrators import Euler, Integrator, Leapfrog, Midpoint, RungeKutta4, Verlet, rates

__all__ = ["HamiltonianNet", "ResNet", "TimeNet", "prolong", "time_nets"]

Activation = Callable[[Any], Any]


class TimeNet(Module):
    """A network of time steps of equal size h, which `ResNet` and `HamiltonianNet` make: `(n, width, N)` to the same.

    `net[j]` holds the weights of step j, in force from time j h on, and `len(net)` is the depth; `net(X)` is the
    state after the last step, and `net.trajectory(X)` has the states at all times.

    >>> import numpy as np
    >>> from cutnn import algebra, nn
    >>> net = nn.ResNet(algebra.dct(4), width=3, depth=2, h=0.5, seed=0)
    >>> len(net), net.time, net.resample(8).h
    (2, 1.0, 0.125)
    """

    star: Any = static()
    field: Any = static()
    integrator: Any = static()
    h: float = static()
    reversible: bool = static()
    steps: tuple[Any, ...]

    def __call__(self, X: Any) -> Any:
        """The state after the last step, of the shape of X."""
        self._check_input(X)
        run = reversible_end if self.reversible else end
        return self._system.output(run(self._system, self.steps, X))

    def trajectory(self, X: Any) -> list[Any]:
        """The states Y at all times, X first: one more than there are steps, each of the shape of X."""
        return [self.field.observe(blocks) for blocks in self.blocks(X)]

    # ---------------------------------------------------------------------------------- the equation itself

    def blocks(self, X: Any) -> list[tuple[Any, ...]]:
        """The whole state at all times, as a tuple of blocks: (Y,), or Y and its companion Z."""
        self._check_input(X)
        return [self.integrator.blocks(state) for state in self._system.states(self.steps, X)]

    def rate(self, j: int) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
        """The vector field of step j: from a tuple of blocks to the tuple of their derivatives in time.

        Those of second order in time where the integrator is `Leapfrog`.
        """
        parts = self.field.parts(self.field.operator(self.steps[j]))
        return lambda blocks: rates(parts, blocks)

    def operators(self, j: int) -> tuple[Any, ...]:
        """K̂ of step j, one a weight, as it acts: antisymmetric where that is the structure, `(*half_shape, …, …)`."""
        return self.field.matrices(self.field.operator(self.steps[j]))

    # ---------------------------------------------------------------------------------------- depth and time

    @property
    def time(self) -> float:
        """The time at which the last step ends, h · depth."""
        return self.h * len(self.steps)

    def at(self, t: float) -> Any:
        """The weights at time t, between those of two steps by linear interpolation; as the last step's from there on.

        Raises ValueError for a time before 0 or after `net.time`.

        >>> import numpy as np
        >>> from cutnn import algebra, nn
        >>> net = nn.ResNet(algebra.dct(4), width=3, depth=2, h=0.5, seed=0)
        >>> np.allclose(net.at(0.25).weight, (net[0].weight + net[1].weight) / 2)
        True
        """
        if not 0 <= t <= self.time * (1 + 1e-12):
            raise ValueError(
                f"{type(self).__name__}: its weights are known from 0 to {self.time:g}, not at {t:g}"
            )
        return self._between(t / self.h)

    def resample(self, depth: int) -> Any:
        """The same network over the same time in `depth` steps, its weights read where the new steps begin.

        Differentiable in the weights, so that few weights may drive many steps: `net.resample(64)(X)`.

        >>> from cutnn import algebra, nn
        >>> nn.ResNet(algebra.dct(4), width=3, depth=2, h=0.5).resample(4)
        ResNet(dct(4), 3, tanh, Euler, h=0.25), 192 parameters
          steps[0]: Step(weight=float32 (4, 3, 3), bias=float32 (4, 3, 1)), 48
          steps[1]: Step(weight=float32 (4, 3, 3), bias=float32 (4, 3, 1)), 48
          steps[2]: Step(weight=float32 (4, 3, 3), bias=float32 (4, 3, 1)), 48
          steps[3]: Step(weight=float32 (4, 3, 3), bias=float32 (4, 3, 1)), 48
        """
        check_counts(type(self).__name__, depth=depth)
        net = object.__new__(type(self))
        ratio = len(self.steps) / depth
        steps = tuple([self._between(i * ratio) for i in range(depth)])
        net.__dict__.update(self.__dict__ | {"steps": steps, "h": self.h * ratio})
        return net

    @property
    def domain(self) -> str:
        """In which domain the steps hold their weights, "spatial" or "transform"."""
        domain: str = self.field.domain
        return domain

    @property
    def dtype(self) -> Any:
        """The dtype of the weights as tensors, and so of what the network takes and returns."""
        first: Any = self.steps[0]
        weight = optree.tree_leaves(first, namespace="cutnn")[0]
        return entries_dtype(self.star, weight, self.domain)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.steps)

    def __getitem__(self, index: int) -> Any:
        return self.steps[index]

    # -------------------------------------------------------------------------------------------- helpers

    @property
    def _system(self) -> System:
        return System(self.field, self.integrator, self.h)

    def _between(self, position: float) -> Any:
        """The weights at a position, counted in steps, in arrays of their own."""
        last = len(self.steps) - 1
        j = min(int(position + 1e-9), last)  # rounding does not part a step from its own weights
        part = position - j
        if part < 1e-9 or j == last:
            return optree.tree_map(lambda a: 1.0 * a, self.steps[j], namespace="cutnn")
        mean: Any = optree.tree_map(
            lambda a, b: (1 - part) * a + part * b, self.steps[j], self.steps[j + 1], namespace="cutnn"
        )
        return mean

    def _build(
        self, field: Any, integrator: Integrator, depth: int, h: float, reversible: bool,
        init: Initializer, dtype: np.dtype, seed: Any,
    ) -> None:  # fmt: skip
        name = type(self).__name__
        if not (math.isfinite(h) and h > 0):
            raise ValueError(f"{name}: the step size h must be positive, and is {h}")
        if not field.star.real_products and dtype.kind == "f":
            raise TypeError(
                f"{name}: products over {field.star!r} are complex; make the network with dtype=ct.complex64"
            )
        rng = np.random.default_rng(seed)
        self.star, self.field, self.integrator = field.star, field, integrator
        self.h, self.reversible = float(h), bool(reversible)
        self.steps = tuple([self._started(field.draw(init, rng), dtype) for _ in range(depth)])

    def _started(self, step: Any, dtype: np.dtype) -> Any:
        """The weights that the host drew for a step, in a dtype, on the default device, in the network's domain."""

        def start(a: Any) -> Any:
            return held(self.star, to_device(np.ascontiguousarray(a, dtype=dtype)), self.domain)

        return optree.tree_map(start, step, namespace="cutnn")

    def _check_input(self, X: Any) -> None:
        hint = "The width stays the same from step to step, so a layer before it has to change it"
        check_input(self, X, self.field.width, self.dtype, hint=hint)

    def _summary(self) -> str:
        parts = [repr(self.star), self.field.summary(), type(self.integrator).__name__, f"h={self.h:g}"]
        parts += ["reversible"] * self.reversible + ["transform domain"] * (self.domain == "transform")
        return ", ".join(parts)


class ResNet(TimeNet):
    """A t-ResNet, time steps of Y′ = f(Y): `(n, width, N)` to `(n, width, N)`.

    `structure` says what f is, with K and B the weights of a step:

    * "general": σ(K ★ Y + B);
    * "antisymmetric": σ((K − Kᵀ − γI) ★ Y + B), with `gamma` the damping γ, whose linear part has an imaginary
      spectrum, shifted by −γ;
    * "parabolic": −Kᵀ ★ σ(K ★ Y + B), with K `(n, hidden, width)`.

    `integrator` is "euler", "midpoint", "rk4", or "leapfrog", which takes Y″ = f(Y) from rest: with "parabolic"
    that is the second-order network of Ruthotto and Haber. σ acts entrywise in the spatial domain, ᵀ is
    `star.transpose`; each weight is transformed once a step. `net[j]` has step j's `weight` `(n, width, width)`
    and `bias` `(n, width, 1)`. `reversible=True`, for midpoint and leapfrog, recomputes the states from the
    end in the backward pass, in memory that does not grow with depth; derivatives of derivatives store them.
    With `domain="transform"` the steps hold the transforms of their weights and biases, as `TLinear` has it.

    Raises ValueError for shapes and settings that do not fit, TypeError for a dtype that is not the weights'.

    >>> import numpy as np
    >>> import cutnn as ct
    >>> from cutnn import algebra, nn
    >>> net = nn.ResNet(algebra.dct(4), width=3, depth=2, structure="antisymmetric", seed=0)
    >>> X = np.ones((4, 3, 5), dtype=np.float32)
    >>> net(X).shape, len(net.trajectory(X))
    ((4, 3, 5), 3)
    """

    def __init__(
        self,
        star: Any,
        width: int,
        depth: int = 8,
        h: float = 0.25,
        activation: Activation | None = ct.tanh,
        structure: str = "general",
        gamma: float = 1e-4,
        integrator: str = "euler",
        hidden: int | None = None,
        reversible: bool = False,
        bias: bool = True,
        init: Initializer = transform_aware,
        dtype: Any = np.float32,
        seed: int | np.random.Generator | None = None,
        domain: str = "spatial",
    ) -> None:
        dtype = check_settings("ResNet", star, activation, dtype)
        check_counts("ResNet", width=width, depth=depth, hidden=1 if hidden is None else hidden)
        if not (math.isfinite(gamma) and gamma >= 0):
            raise ValueError(f"ResNet: the damping gamma must be a number from 0 on, and is {gamma}")
        if hidden not in (None, width) and structure != "parabolic":
            raise ValueError(f"ResNet: hidden={hidden} goes with structure='parabolic' alone")
        sizes = (star, width, hidden or width, activation, bias, check_domain(type(self).__name__, domain))
        match structure:
            case "general":
                field: fields.Field = fields.General(*sizes)
            case "antisymmetric":
                field = fields.Antisymmetric(*sizes, gamma)
            case "parabolic":
                field = fields.Parabolic(*sizes)
            case _:
                raise ValueError(
                    f"ResNet: structure is 'general', 'antisymmetric' or 'parabolic', not {structure!r}"
                )
        stepper = _integrator("ResNet", integrator, field, reversible)
        self._build(field, stepper, depth, h, reversible, init, dtype, seed)


class HamiltonianNet(TimeNet):
    """A Hamiltonian network: `(n, width, N)` to the same.

    `form` says what system it steps through, with K and B the weights of a step:

    * "shared" (Newman et al. 2024): Z ← Z − h σ(Kᵀ ★ Y + B), then Y ← Y + h σ(K ★ Z + B), from Z = 0;
      `net[j]` has `weight` `(n, width, hidden)` and `bias` `(n, 1, 1)`, a single tube, as the authors have it;
    * "two-block" (Chang et al. 2018): Y ← Y + h K₁ᵀ ★ σ(K₁ ★ Z + B₁), then Z ← Z − h K₂ᵀ ★ σ(K₂ ★ Y + B₂), from
      Z = 0; `net[j].first` and `.second` have `weight` `(n, hidden, width)` and `bias` `(n, 1, 1)`;
    * "H1" (Galimberti et al. 2023): Y ← Y + h J Kᵀ ★ σ(K ★ Y + B), explicit, J skew-symmetric on rows: [0 I; −I 0]
      with `J="canonical"`, 1 above the diagonal and −1 below with `J="ones"`; `weight` is `(n, hidden, width)`,
      `bias` `(n, hidden, 1)`;
    * "H2", that with canonical J and K block-diagonal, semi-implicit: the steps of "two-block" in the two halves
      of the rows of Y, with a bias `(n, hidden, 1)`.

    `integrator` is "leapfrog" (Verlet; semi-implicit Euler is the same), the default but for "H1", whose two
    halves do not separate, or "euler", "midpoint", "rk4". Leapfrog, linearised, is stable where
    h · max σ(K̂) · max σ′ < 2. `reversible=True`, for leapfrog and midpoint, recomputes the states from the
    end in the backward pass, in memory that does not grow with depth; derivatives of derivatives store them.
    The rest is as for `ResNet`.

    >>> import numpy as np
    >>> from cutnn import algebra, nn
    >>> net = nn.HamiltonianNet(algebra.dct(4), width=3, hidden=6, depth=2, reversible=True, seed=0)
    >>> net(np.ones((4, 3, 5), dtype=np.float32)).shape
    (4, 3, 5)
    >>> net[0].weight.shape, net[0].bias.shape
    ((4, 3, 6), (4, 1, 1))
    """

    def __init__(
        self,
        star: Any,
        width: int,
        hidden: int | None = None,
        depth: int = 8,
        h: float = 0.25,
        activation: Activation | None = ct.tanh,
        reversible: bool = False,
        form: str = "shared",
        J: str = "canonical",
        integrator: str | None = None,
        bias: bool = True,
        init: Initializer = transform_aware,
        dtype: Any = np.float32,
        seed: int | np.random.Generator | None = None,
        domain: str = "spatial",
    ) -> None:
        dtype = check_settings("HamiltonianNet", star, activation, dtype)
        check_counts("HamiltonianNet", width=width, depth=depth, hidden=1 if hidden is None else hidden)
        if J not in ("canonical", "ones") or (J == "ones" and form != "H1"):
            raise ValueError(f"HamiltonianNet: J is 'canonical', or 'ones' with form='H1', not {J!r}")
        if width % 2 and (form == "H2" or (form == "H1" and J == "canonical")):
            raise ValueError(f"HamiltonianNet: {form} pairs the rows of its two halves; width={width} is odd")
        rows = width // 2 if form == "H2" else width
        sizes = (star, width, hidden or rows, activation, bias, check_domain(type(self).__name__, domain))
        match form:
            case "shared":
                field: fields.Field = fields.Shared(*sizes)
            case "two-block":
                field = fields.TwoBlock(*sizes)
            case "H1":
                field = fields.H1(*sizes, J)
            case "H2":
                field = fields.H2(*sizes)
            case _:
                raise ValueError(f"HamiltonianNet: form is 'shared', 'two-block', 'H1' or 'H2', not {form!r}")
        chosen = integrator or ("leapfrog" if field.blocks == 2 else "euler")
        stepper = _integrator("HamiltonianNet", chosen, field, reversible)
        self._build(field, stepper, depth, h, reversible, init, dtype, seed)


def prolong(model: Any, factor: int = 2) -> Any:
    """A copy of a model in which every `TimeNet` has `factor` times the steps over the same time.

    h is divided by the factor and the weights are interpolated linearly in time, so the outputs stay about the
    same: the step from one level to the next of multilevel training in depth. Any pytree of the structure of the
    model is prolonged alike. Raises ValueError for a factor below 1.

    >>> from cutnn import algebra, nn
    >>> model = nn.Sequential(nn.HamiltonianNet(algebra.dct(4), 3, depth=4), nn.TLinear(algebra.dct(4), 3, 2))
    >>> len(nn.prolong(model)[0]), nn.prolong(model)[0].h
    (8, 0.125)
    """
    check_counts("prolong", factor=factor)
    return optree.tree_map(
        lambda part: part.resample(len(part) * factor) if _is_time_net(part) else 1.0 * part,
        model,
        is_leaf=_is_time_net,
        namespace="cutnn",
    )


def time_nets(model: Any) -> list[TimeNet]:
    """The time networks of a model, in its order: those that it is or holds, anywhere."""
    return [
        part
        for part in optree.tree_leaves(model, is_leaf=_is_time_net, namespace="cutnn")
        if _is_time_net(part)
    ]


# -------------------------------------------------------------------------------------------------- helpers


def _is_time_net(part: Any) -> bool:
    return isinstance(part, TimeNet)


def _integrator(who: str, name: str, field: fields.Field, reversible: bool) -> Integrator:
    """The integrator of that name for a field: the leapfrog of two blocks is Verlet's."""
    known: dict[str, Integrator] = {"euler": Euler(), "midpoint": Midpoint(), "rk4": RungeKutta4()}
    if field.blocks == 2:
        known["leapfrog"] = Verlet()
    elif not isinstance(field, fields.H1):  # Y″ = J∇H is no Hamiltonian system
        known["leapfrog"] = Leapfrog()
    if name not in known:
        hint = "; the halves of H1 do not separate: take form='H2'" if name == "leapfrog" else ""
        raise ValueError(f"{who}: integrator is one of {', '.join(map(repr, known))}, not {name!r}{hint}")
    if reversible and not known[name].reversible:
        fitting = " or ".join(repr(other) for other, stepper in known.items() if stepper.reversible)
        raise ValueError(
            f"{who}: {type(known[name]).__name__} cannot be run backward, so reversible=True does not go with it; "
            f"take integrator={fitting}, or reversible=False"
        )
    return known[name]
