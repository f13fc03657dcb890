"""Layers: t-linear, dense, sequences of layers, and unfolding.

Layers map faces-first tensors: lateral slices are samples, so `(n, in, N)` becomes `(n, out, N)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optree

from cutnn import array as ct
from cutnn.algebra import plain
from cutnn.device import to_device
from cutnn.nn._checks import check_counts, check_input, check_settings
from cutnn.nn._domain import check_domain, entries, entries_dtype, held, matched
from cutnn.nn._module import Module, static
from cutnn.nn._slope import activated
from cutnn.nn.initializers import Initializer, transform_aware

__all__ = ["Dense", "Sequential", "TLinear", "Unfold"]

Activation = Callable[[Any], Any]


class TLinear(Module):
    """A t-linear layer, Y = σ(W ★ X + B): `(n, n_in, N)` to `(n, n_out, N)`.

    `weight` is `(n, n_out, n_in)`, `bias` `(n, n_out, 1)` or None, broadcast over samples; an algebra of
    order p has more tube axes in the place of n. σ acts on the entries of the spatial domain; None leaves
    them. `init` is one of `nn.initializers`, `seed` an integer or a NumPy generator. Calls raise ValueError
    for a shape that does not fit and TypeError for a dtype that is not the weight's. (Newman et al. 2024.)

    With `domain="transform"` the layer holds, and trains, Ŵ and B̂ in the place of W and B, `(*half_shape, …)` for
    real W: complex half the spectrum over a Fourier algebra; q faces over a projected one, where of the bias its
    projection is held. `nn.in_domain` brings a model from one domain to the other.

    >>> import numpy as np
    >>> from cutnn import algebra, nn
    >>> layer = nn.TLinear(algebra.dct(4), 3, 2, activation=np.tanh, seed=0)
    >>> layer(np.ones((4, 3, 5), dtype=np.float32)).shape
    (4, 2, 5)
    >>> nn.TLinear(algebra.fft(4), 3, 2, domain="transform").weight.shape
    (3, 2, 3)
    """

    star: Any = static()
    n_in: int = static()
    n_out: int = static()
    activation: Activation | None = static()
    domain: str = static()
    weight: Any
    bias: Any

    def __init__(
        self,
        star: Any,
        n_in: int,
        n_out: int,
        activation: Activation | None = None,
        bias: bool = True,
        init: Initializer = transform_aware,
        dtype: Any = np.float32,
        seed: int | np.random.Generator | None = None,
        domain: str = "spatial",
    ) -> None:
        dtype = check_settings(type(self).__name__, star, activation, dtype)
        self.domain = check_domain(type(self).__name__, domain)
        check_counts(type(self).__name__, n_in=n_in, n_out=n_out)
        self.star = star
        self.n_in = n_in
        self.n_out = n_out
        self.activation = activation
        weight, start = init(star, n_in, n_out, np.random.default_rng(seed))
        if weight.dtype.kind == "c" and dtype.kind == "f":
            raise TypeError(
                f"{type(self).__name__}: over {star!r} this initialiser draws complex weights; make the layer "
                "with dtype=ct.complex64, or give init=nn.initializers.authors, which draws real ones"
            )
        drawn = (weight, start if bias else None)
        arrays = [a if a is None else to_device(np.ascontiguousarray(a, dtype=dtype)) for a in drawn]
        self.weight, self.bias = [held(star, a, domain) for a in arrays]

    def __call__(self, X: Any) -> Any:
        check_input(self, X, self.n_in, entries_dtype(self.star, self.weight, self.domain), mixed=True)
        if self.domain == "spatial":
            Y = self.star(self.weight, X)
        else:
            X_hat = self.star.forward(matched(self, self.weight, X))
            Y = self.star.inverse(ct.matmul(self.weight, X_hat))
        return activated(Y, entries(self.star, self.bias, self.domain), self.activation)

    def _summary(self) -> str:
        parts = [] if isinstance(self, Dense) else [repr(self.star)]
        parts.append(f"{self.n_in} → {self.n_out}")
        if self.activation is not None:
            parts.append(getattr(self.activation, "__name__", repr(self.activation)))
        if self.bias is None:
            parts.append("no bias")
        if self.domain == "transform":
            parts.append("transform domain")
        return ", ".join(parts)


class Dense(TLinear):
    """The t-linear layer without tube axes: an ordinary one, Y = σ(W X + b), `(n_in, N)` to `(n_out, N)`.

    `weight` is `(n_out, n_in)`, `bias` `(n_out, 1)`; both start uniform in ±1/√n_in, as PyTorch's do.

    >>> import numpy as np
    >>> from cutnn import nn
    >>> nn.Dense(3, 2, seed=0)(np.ones((3, 5), dtype=np.float32)).shape
    (2, 5)
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation: Activation | None = None,
        bias: bool = True,
        init: Initializer = transform_aware,
        dtype: Any = np.float32,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__(plain(), n_in, n_out, activation, bias, init, dtype, seed)


class Unfold(Module):
    """Every lateral slice as one vector: `(n, p, N)` to `(n·p, N)`, for a dense layer.

    Entry k·p + i of the vector is row i of face k; further tube axes likewise, in the order of the array. A
    matrix stays as it is.

    >>> import numpy as np
    >>> Unfold()(np.zeros((4, 3, 5))).shape
    (12, 5)
    """

    def __call__(self, X: Any) -> Any:
        if X.ndim < 2:
            raise ValueError(f"Unfold: expected a tensor (n, p, N), and received shape {tuple(X.shape)}")
        return ct.reshape(X, (math.prod(X.shape[:-1]), X.shape[-1]))


class Sequential(Module):
    """Layers one after the other; any function of one array may be a layer.

    >>> from cutnn import algebra, nn
    >>> nn.Sequential(nn.TLinear(algebra.dct(28), 28, 28), nn.Unfold(), nn.Dense(784, 10))
    Sequential, 30,586 parameters
      layers[0]: TLinear(dct(28), 28 → 28), 22,736
      layers[1]: Unfold, 0
      layers[2]: Dense(784 → 10), 7,850
    """

    layers: tuple[Any, ...]

    def __init__(self, *layers: Callable[[Any], Any]) -> None:
        for position, layer in enumerate(layers):
            if not callable(layer):
                raise TypeError(
                    f"Sequential: layer {position} is a {type(layer).__name__}, not a function of an array"
                )
        self.layers = tuple([_Function(x) if _is_leaf(x) else x for x in layers])

    def __call__(self, X: Any) -> Any:
        for layer in self.layers:
            X = layer(X)
        return X

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Any]:
        return (x.function if type(x) is _Function else x for x in self.layers)

    def __getitem__(self, index: int) -> Any:
        layer = self.layers[index]
        return layer.function if type(layer) is _Function else layer


# -------------------------------------------------------------------------------------------------- helpers


class _Function(Module):
    """A function among modules: no leaf of the pytree, but part of its structure."""

    function: Callable[[Any], Any] = static()

    def __call__(self, X: Any) -> Any:
        return self.function(X)


def _is_leaf(x: Any) -> bool:
    return optree.tree_structure(x, namespace="cutnn").is_leaf()
