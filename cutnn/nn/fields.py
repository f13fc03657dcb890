"""Vector fields over an algebra: what the weights of one step of a network mean.

A field says what weights a step has (`draw`), brings them to the transform domain once a step (`operator`), and
makes of those the functions that an integrator calls (`parts`). `initial` and `observe` lead from the input to
the blocks of the state, and from them to the output.

Sources: Newman, Horesh, Avron, Kilmer, Stable tensor neural networks for efficient deep learning, Frontiers in Big
Data 7 (2024); Haber, Ruthotto, Stable architectures for deep neural networks, Inverse Problems 34 (2018); Chang et
al., Reversible architectures for arbitrarily deep residual neural networks, AAAI (2018); Ruthotto, Haber, Deep
neural networks motivated by partial differential equations, J. Math. Imaging Vision 62 (2020); Galimberti et al.,
Hamiltonian deep neural networks guaranteeing non-vanishing gradients by design, IEEE Trans. Autom. Control (2023).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cutnn import array as ct
from cutnn.device import namespace
from cutnn.nn._domain import entries, hats
from cutnn.nn._module import Module
from cutnn.nn._slope import Slope, activated
from cutnn.nn.initializers import Initializer
from cutnn.nn.integrators import Parts
from cutnn.tape import raw

__all__ = [
    "H1",
    "H2",
    "Antisymmetric",
    "Field",
    "General",
    "Parabolic",
    "Shared",
    "Step",
    "StepPair",
    "TwoBlock",
]

Activation = Callable[[Any], Any]


class Step(Module):
    """The weights of one step: `weight`, and `bias` or None."""

    weight: Any
    bias: Any


class StepPair(Module):
    """The weights of one step of a system of two blocks, each with its own."""

    first: Step
    second: Step


@dataclass(frozen=True)
class Field:
    """What the fields share: an algebra, sizes, and the formulas that they are made of."""

    star: Any
    width: int
    hidden: int
    activation: Activation | None
    bias: bool
    domain: str = "spatial"

    blocks: ClassVar[int] = 1

    def draw(self, init: Initializer, rng: np.random.Generator) -> Any:
        """The weights of one step, on the host."""
        return self._step(init, rng, self.width, self.width)

    def operator(self, step: Any) -> Any:
        """The weights of a step as they act: K̂, in the transform domain, and B, in the spatial one."""
        K_hat = hats(self.star, step.weight, self.domain)
        return K_hat, entries(self.star, step.bias, self.domain)

    def parts(self, operator: Any) -> Parts:
        """The functions of the blocks that an integrator calls."""
        raise NotImplementedError

    def matrices(self, operator: Any) -> tuple[Any, ...]:
        """K̂ of each part, without the biases."""
        return (operator[0],)

    def initial(self, X: Any) -> tuple[Any, ...]:
        """The blocks at time 0."""
        return (X,)

    def observe(self, blocks: tuple[Any, ...]) -> Any:
        """The output that belongs to the blocks at some time."""
        return blocks[0]

    def summary(self) -> str:
        parts = [str(self.width) if self.hidden == self.width else f"{self.width} ↔ {self.hidden}"]
        if self.activation is not None:
            parts.append(getattr(self.activation, "__name__", repr(self.activation)))
        return ", ".join(parts + ["no bias"] * (not self.bias) + self._settings())

    # ------------------------------------------------------------------------------------------- formulas

    def product(self, K_hat: Any, Y: Any) -> Any:
        """K ★ Y."""
        return self.star.inverse(ct.matmul(K_hat, self.star.forward(Y)))

    def affine(self, K_hat: Any, B: Any, Y: Any) -> Any:
        """σ(K ★ Y + B)."""
        return activated(self.product(K_hat, Y), B, self.activation)

    def slope(self, K_hat: Any, B: Any, Y: Any, negative: bool = False) -> Slope:
        """±σ(K ★ Y + B), its activation left to the update of the integrator."""
        return Slope(self.product(K_hat, Y), B, self.activation, negative)

    def gradient(self, K_hat: Any, B: Any, Y: Any) -> Any:
        """Kᵀ ★ σ(K ★ Y + B)."""
        return self.product(_transposed(K_hat), self.affine(K_hat, B, Y))

    # -------------------------------------------------------------------------------------------- helpers

    def _settings(self) -> list[str]:
        return []

    def _step(
        self, init: Initializer, rng: np.random.Generator, n_in: int, n_out: int, one_tube: bool = False
    ) -> Step:
        weight, bias = init(self.star, n_in, n_out, rng)
        return Step(weight, (bias[..., :1, :] if one_tube else bias) if self.bias else None)


# ------------------------------------------------------------------------------------------------- one block


@dataclass(frozen=True)
class General(Field):
    """Y′ = σ(K ★ Y + B)."""

    def parts(self, operator: Any) -> Parts:
        return (functools.partial(self.slope, *operator),)


@dataclass(frozen=True)
class Antisymmetric(General):
    """Y′ = σ((K − Kᵀ − γI) ★ Y + B)."""

    gamma: float = 0.0

    def operator(self, step: Any) -> Any:
        K_hat, B = super().operator(step)
        # Each face of the identity's transform is the identity matrix, whatever M is.
        eye = namespace(raw(K_hat)).eye(self.width, dtype=K_hat.dtype)
        return K_hat - _transposed(K_hat) - self.gamma * eye, B

    def _settings(self) -> list[str]:
        return [f"antisymmetric, γ={self.gamma:g}"]


@dataclass(frozen=True)
class Parabolic(Field):
    """Y′ = −Kᵀ ★ σ(K ★ Y + B), K with `hidden` rows."""

    def draw(self, init: Initializer, rng: np.random.Generator) -> Step:
        return self._step(init, rng, self.width, self.hidden)

    def parts(self, operator: Any) -> Parts:
        K_hat, B = operator
        return (lambda Y: Slope(self.gradient(K_hat, B, Y), negative=True),)

    def _settings(self) -> list[str]:
        return ["parabolic"]


@dataclass(frozen=True)
class H1(Parabolic):
    """Y′ = J Kᵀ ★ σ(K ★ Y + B), with a skew-symmetric J that acts on rows (Galimberti et al. 2023).

    J is "canonical", [0 I; −I 0], or "ones", 1 above the diagonal and −1 below.
    """

    J: str = "canonical"

    def parts(self, operator: Any) -> Parts:
        K_hat, B = operator
        turn = self._halves if self.J == "canonical" else self._ones
        return (lambda Y: turn(self.gradient(K_hat, B, Y)),)

    def _halves(self, V: Any) -> Any:
        half = self.width // 2
        return ct.concat((V[..., half:, :], -V[..., :half, :]), axis=-2)

    def _ones(self, V: Any) -> Any:
        xp = namespace(raw(V))
        upper = xp.triu(xp.ones((self.width, self.width), dtype=V.dtype), k=1)
        return ct.matmul(upper - upper.T, V)

    def _settings(self) -> list[str]:
        return ["H1"] if self.J == "canonical" else [f"H1, J={self.J}"]


# ------------------------------------------------------------------------------------------------ two blocks


@dataclass(frozen=True)
class Shared(Field):
    """Z′ = −σ(Kᵀ ★ Y + B), Y′ = σ(K ★ Z + B); the blocks are (Z, Y), and Z starts at 0."""

    blocks: ClassVar[int] = 2

    def draw(self, init: Initializer, rng: np.random.Generator) -> Step:
        return self._step(init, rng, self.hidden, self.width, one_tube=True)

    def parts(self, operator: Any) -> Parts:
        K_hat, B = operator
        return (
            lambda Y: self.slope(_transposed(K_hat), B, Y, negative=True),
            functools.partial(self.slope, K_hat, B),
        )

    def initial(self, X: Any) -> tuple[Any, ...]:
        return _zeros(X, self.hidden), X

    def observe(self, blocks: tuple[Any, ...]) -> Any:
        return blocks[1]


@dataclass(frozen=True)
class TwoBlock(Field):
    """Y′ = K₁ᵀ ★ σ(K₁ ★ Z + B₁), Z′ = −K₂ᵀ ★ σ(K₂ ★ Y + B₂); the blocks are (Y, Z), and Z starts at 0."""

    blocks: ClassVar[int] = 2

    def draw(self, init: Initializer, rng: np.random.Generator) -> StepPair:
        first, second = (self._step(init, rng, self.width, self.hidden, one_tube=True) for _ in range(2))
        return StepPair(first, second)

    def operator(self, step: Any) -> Any:
        return super().operator(step.first), super().operator(step.second)

    def parts(self, operator: Any) -> Parts:
        (K1_hat, B1), (K2_hat, B2) = operator
        return (
            functools.partial(self.gradient, K1_hat, B1),
            lambda Y: Slope(self.gradient(K2_hat, B2, Y), negative=True),
        )

    def matrices(self, operator: Any) -> tuple[Any, ...]:
        return tuple([K_hat for K_hat, _ in operator])

    def initial(self, X: Any) -> tuple[Any, ...]:
        return X, _zeros(X, self.width)

    def _settings(self) -> list[str]:
        return ["two-block"]


@dataclass(frozen=True)
class H2(TwoBlock):
    """H1 with canonical J and block-diagonal K: the system of `TwoBlock` in the two halves of Y's rows."""

    def draw(self, init: Initializer, rng: np.random.Generator) -> StepPair:
        first, second = (self._step(init, rng, self.width // 2, self.hidden) for _ in range(2))
        return StepPair(first, second)

    def initial(self, X: Any) -> tuple[Any, ...]:
        half = self.width // 2
        return X[..., :half, :], X[..., half:, :]

    def observe(self, blocks: tuple[Any, ...]) -> Any:
        return ct.concat(blocks, axis=-2)

    def _settings(self) -> list[str]:
        return ["H2"]


# -------------------------------------------------------------------------------------------------- helpers


def _transposed(K_hat: Any) -> Any:
    """The transform of Kᵀ: for real transforms a view."""
    return ct.matrix_transpose(ct.conj(K_hat))


def _zeros(X: Any, rows: int) -> Any:
    """As many lateral slices as X has, of zeros."""
    return namespace(raw(X)).zeros((*X.shape[:-2], rows, X.shape[-1]), dtype=X.dtype)
