"""Stable networks: layers as time steps of an ordinary differential equation over an algebra.

A network is a vector field, what the weights of one step mean, and a time integrator: any pair that makes sense.
A dense network is the same over `algebra.plain()`.

Source: Newman, Horesh, Avron, Kilmer, Stable tensor neural networks for efficient deep learning, Frontiers in Big
Data 7 (2024); Haber, Ruthotto, Stable architectures for deep neural networks, Inverse Problems 34 (2018).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import optree

from cutnn import array as ct
from cutnn.device import namespace, to_device
from cutnn.nn._module import Module, static
from cutnn.nn.initializers import Initializer, transform_aware
from cutnn.nn.integrators import INTEGRATORS, System, Verlet, end, reversible_end
from cutnn.tape import raw

__all__ = ["HamiltonianNet", "ResNet", "Step", "StepPair"]

Activation = Callable[[Any], Any]
_DTYPES = ("float32", "float64", "complex64", "complex128")


class Step(Module):
    """The weights of one step: `weight`, and `bias` or None."""

    weight: Any
    bias: Any


class StepPair(Module):
    """The weights of one step of a system of two blocks, each with its own."""

    first: Step
    second: Step


class _Network(Module):
    """Steps of equal size h: what `ResNet` and `HamiltonianNet` share."""

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
        return self.field.observe(run(self._system, self.steps, self.field.initial(X)))

    def trajectory(self, X: Any) -> list[Any]:
        """The states Y at all times, X first: one more than there are steps, each of the shape of X."""
        self._check_input(X)
        states = self._system.states(self.steps, self.field.initial(X))
        return [self.field.observe(state) for state in states]

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.steps)

    def __getitem__(self, index: int) -> Any:
        return self.steps[index]

    @property
    def _system(self) -> System:
        return System(self.field, self.integrator, self.h)

    def _build(
        self, star: Any, field: Any, integrator: Any, depth: int, h: float, reversible: bool,
        init: Initializer, dtype: Any, seed: Any,
    ) -> None:  # fmt: skip
        name, dtype = type(self).__name__, np.dtype(dtype)
        if depth < 1:
            raise ValueError(f"{name}: depth must be at least 1, and is {depth}")
        if not (math.isfinite(h) and h > 0):
            raise ValueError(f"{name}: the step size h must be positive, and is {h}")
        if reversible and not integrator.reversible:
            raise ValueError(
                f"{name}: {type(integrator).__name__} cannot be run backward, so reversible=True does not go with "
                "it; take integrator='midpoint' or 'leapfrog', a HamiltonianNet, or reversible=False"
            )
        if dtype.name not in _DTYPES:
            raise TypeError(f"{name}: dtype is one of {', '.join(_DTYPES)}, not {dtype}")
        if not star.real_products and dtype.kind == "f":
            raise TypeError(
                f"{name}: products over {star!r} are complex; make the network with dtype=ct.complex64"
            )
        rng = np.random.default_rng(seed)
        self.star, self.field, self.integrator = star, field, integrator
        self.h, self.reversible = float(h), bool(reversible)
        self.steps = tuple([_step(field.draw(init, rng), dtype) for _ in range(depth)])

    def _check_input(self, X: Any) -> None:
        """Raise where X is not what the network takes; the message says what would fit."""
        if not hasattr(X, "shape"):
            raise TypeError(f"{type(self).__name__} takes an array, and received a {type(X).__name__}")
        fitting = (*self.star.shape, self.field.width)
        if tuple(X.shape[-1 - len(fitting) : -1]) != fitting:
            wanted = ", ".join(map(str, (*fitting, "N")))
            raise ValueError(
                f"{type(self).__name__}({self._summary()}) takes ({wanted}), and received {tuple(X.shape)}; the "
                "width stays the same from step to step, so a layer before it has to change it"
            )
        first: Any = self.steps[0]
        dtype = optree.tree_leaves(first, namespace="cutnn")[0].dtype
        if X.dtype != dtype:
            raise TypeError(
                f"{type(self).__name__}({self._summary()}) has weights of {dtype} and received {X.dtype}; convert "
                f"the input with ct.astype(X, ct.{dtype})"
                + (f", or make the network with dtype=ct.{X.dtype}" if str(X.dtype) in _DTYPES else "")
            )

    def _summary(self) -> str:
        parts = [repr(self.star), self.field.summary(), type(self.integrator).__name__, f"h={self.h:g}"]
        return ", ".join(parts + ["reversible"] * self.reversible)


class ResNet(_Network):
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
    ) -> None:
        _check_sizes("ResNet", star, width, hidden)
        if structure not in _STRUCTURES:
            raise ValueError(f"ResNet: structure is one of {_names(_STRUCTURES)}, not {structure!r}")
        if integrator not in INTEGRATORS:
            raise ValueError(f"ResNet: integrator is one of {_names(INTEGRATORS)}, not {integrator!r}")
        if hidden not in (None, width) and structure != "parabolic":
            raise ValueError(f"ResNet: hidden={hidden} goes with structure='parabolic' alone")
        field = _Field(star, width, hidden or width, activation, bias, structure, gamma)
        self._build(star, field, INTEGRATORS[integrator], depth, h, reversible, init, dtype, seed)


class HamiltonianNet(_Network):
    """A Hamiltonian network, leapfrog steps of a system in Y and Z, from Z = 0: `(n, width, N)` to the same.

    `form` says what system, with K and B the weights of a step:

    * "shared" (Newman et al. 2024): Z ← Z − h σ(Kᵀ ★ Y + B), then Y ← Y + h σ(K ★ Z + B);
      `net[j]` has `weight` `(n, width, hidden)` and `bias` `(n, 1, 1)`, a single tube, as the authors have it;
    * "two-block" (Chang et al. 2018): Y ← Y + h K₁ᵀ ★ σ(K₁ ★ Z + B₁), then Z ← Z − h K₂ᵀ ★ σ(K₂ ★ Y + B₂);
      `net[j].first` and `.second` have `weight` `(n, hidden, width)` and `bias` `(n, 1, 1)`.

    Linearised, it is stable where h · max σ(K̂) · max σ′ < 2. `reversible=True` recomputes the states from the
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
        bias: bool = True,
        init: Initializer = transform_aware,
        dtype: Any = np.float32,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        _check_sizes("HamiltonianNet", star, width, hidden)
        if form not in _FORMS:
            raise ValueError(f"HamiltonianNet: form is one of {_names(_FORMS)}, not {form!r}")
        field = _FORMS[form](star, width, hidden or width, activation, bias)
        self._build(star, field, Verlet(), depth, h, reversible, init, dtype, seed)


# ---------------------------------------------------------------------------------------------- vector fields


@dataclass(frozen=True)
class _Weights:
    """What the weights of a step mean. `operator` takes them to the transform domain, once a step."""

    star: Any
    width: int
    hidden: int
    activation: Activation | None
    bias: bool

    def operator(self, step: Step) -> Any:
        return self.star.forward(step.weight), step.bias

    def product(self, K_hat: Any, Y: Any) -> Any:
        """K ★ Y."""
        return self.star.inverse(ct.matmul(K_hat, self.star.forward(Y)))

    def affine(self, K_hat: Any, B: Any, Y: Any) -> Any:
        """σ(K ★ Y + B)."""
        Y = self.product(K_hat, Y)
        Y = Y if B is None else Y + B
        return Y if self.activation is None else self.activation(Y)

    def gradient(self, K_hat: Any, B: Any, Y: Any) -> Any:
        """Kᵀ ★ σ(K ★ Y + B)."""
        return self.product(_transposed(K_hat), self.affine(K_hat, B, Y))

    def summary(self) -> str:
        parts = [str(self.width) if self.hidden == self.width else f"{self.width} ↔ {self.hidden}"]
        if self.activation is not None:
            parts.append(getattr(self.activation, "__name__", repr(self.activation)))
        return ", ".join(parts + ["no bias"] * (not self.bias))


@dataclass(frozen=True)
class _Field(_Weights):
    """A vector field of one variable."""

    structure: str
    gamma: float

    def draw(self, init: Initializer, rng: np.random.Generator) -> Step:
        return _draw(self, init, self.width, self.hidden, rng)

    def operator(self, step: Step) -> Any:
        K_hat = self.star.forward(step.weight)
        if self.structure == "antisymmetric":
            # Each face of the identity's transform is the identity matrix, whatever M is.
            eye = namespace(raw(K_hat)).eye(self.width, dtype=K_hat.dtype)
            K_hat = K_hat - _transposed(K_hat) - self.gamma * eye
        return K_hat, step.bias

    def bind(self, operator: Any) -> Any:
        K_hat, B = operator
        if self.structure == "parabolic":
            return lambda Y: -self.gradient(K_hat, B, Y)
        return functools.partial(self.affine, K_hat, B)

    def initial(self, X: Any) -> Any:
        return X

    def observe(self, state: Any) -> Any:
        return state[-1]

    def summary(self) -> str:
        return f"{super().summary()}, {self.structure}"


@dataclass(frozen=True)
class _Hamiltonian(_Weights):
    """Z′ = −σ(Kᵀ ★ Y + B), Y′ = σ(K ★ Z + B); a state is (Z, Y)."""

    def draw(self, init: Initializer, rng: np.random.Generator) -> Step:
        return _one_tube(_draw(self, init, self.hidden, self.width, rng))

    def bind(self, operator: Any) -> Any:
        K_hat, B = operator
        return lambda Y: -self.affine(_transposed(K_hat), B, Y), functools.partial(self.affine, K_hat, B)

    def initial(self, X: Any) -> Any:
        return _zeros(X, self.hidden), X

    def observe(self, state: Any) -> Any:
        return state[1]


@dataclass(frozen=True)
class _TwoBlock(_Weights):
    """Y′ = K₁ᵀ ★ σ(K₁ ★ Z + B₁), Z′ = −K₂ᵀ ★ σ(K₂ ★ Y + B₂); a state is (Y, Z)."""

    def draw(self, init: Initializer, rng: np.random.Generator) -> StepPair:
        first, second = (_one_tube(_draw(self, init, self.width, self.hidden, rng)) for _ in range(2))
        return StepPair(first, second)

    def operator(self, step: Any) -> Any:
        return super().operator(step.first), super().operator(step.second)

    def bind(self, operator: Any) -> Any:
        first, (K_hat, B) = operator
        return functools.partial(self.gradient, *first), lambda Y: -self.gradient(K_hat, B, Y)

    def initial(self, X: Any) -> Any:
        return X, _zeros(X, self.width)

    def observe(self, state: Any) -> Any:
        return state[0]

    def summary(self) -> str:
        return f"{super().summary()}, two-block"


_STRUCTURES = ("general", "antisymmetric", "parabolic")
_FORMS = {"shared": _Hamiltonian, "two-block": _TwoBlock}


# ---------------------------------------------------------------------------------------------------- helpers


def _transposed(K_hat: Any) -> Any:
    """The transform of Kᵀ: for real transforms a view."""
    return ct.matrix_transpose(ct.conj(K_hat))


def _zeros(X: Any, rows: int) -> Any:
    """As many lateral slices as X has, of zeros."""
    return namespace(raw(X)).zeros((*X.shape[:-2], rows, X.shape[-1]), dtype=X.dtype)


def _draw(field: _Weights, init: Initializer, n_in: int, n_out: int, rng: np.random.Generator) -> Step:
    weight, bias = init(field.star, n_in, n_out, rng)
    return Step(weight, bias if field.bias else None)


def _one_tube(step: Step) -> Step:
    return Step(step.weight, None if step.bias is None else step.bias[..., :1, :])


def _step(step: Any, dtype: np.dtype) -> Any:
    """The arrays of a step in a dtype, on the default device."""
    return optree.tree_map(lambda a: to_device(np.ascontiguousarray(a, dtype=dtype)), step, namespace="cutnn")


def _check_sizes(name: str, star: Any, width: int, hidden: int | None) -> None:
    if not hasattr(star, "forward"):
        raise TypeError(f"{name}: the first argument is an algebra, algebra.dct(32) say")
    if width < 1 or (hidden is not None and hidden < 1):
        raise ValueError(f"{name}: sizes must be at least 1, and width is {width}, hidden {hidden}")


def _names(known: Any) -> str:
    return ", ".join(map(repr, known))
