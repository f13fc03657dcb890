"""Autoencoders of t-linear layers: an encoder to few tubes, and a decoder of the mirrored sizes back.

Source: Newman, Horesh, Avron, Kilmer, Stable tensor neural networks for efficient deep learning, Frontiers in Big
Data 7 (2024), the autoencoder of MNIST.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from cutnn import array as ct
from cutnn.nn._module import Module, static
from cutnn.nn.initializers import Initializer, transform_aware
from cutnn.nn.layers import Activation, TLinear

__all__ = ["Autoencoder"]


class Autoencoder(Module):
    """t-linear layers of `sizes` tubes, (28, 20, 10) say, and back: `(n, 28, N)` to `(n, 10, N)` to `(n, 28, N)`.

    The activation follows every layer but the last of all. Over `algebra.plain()` it is the matrix autoencoder,
    `(n_in, N)` to `(n_in, N)`. With `tied=True` the decoder has the ★-transposes of the encoder's weights, and only
    its biases are its own: half as many parameters. With `domain="transform"` weights are kept, and trained, as
    their transforms. `encoder` holds the layers, `decoder` the layers or, tied, the biases. Settings and what is
    raised are those of `TLinear`; ValueError for fewer than two sizes. (Newman et al. 2024; tied weights: Vincent
    et al. 2010.)

    >>> import numpy as np
    >>> from cutnn import algebra, nn
    >>> model = nn.Autoencoder(algebra.dct(28), (28, 20, 10), seed=0)
    >>> X = np.ones((28, 28, 5), dtype=np.float32)
    >>> model.encode(X).shape, model(X).shape, nn.count_parameters(model)
    ((28, 10, 5), (28, 28, 5), 44744)
    """

    star: Any = static()
    sizes: tuple[int, ...] = static()
    activation: Activation | None = static()
    tied: bool = static()
    domain: str = static()
    encoder: tuple[TLinear, ...]
    decoder: tuple[Any, ...]

    def __init__(
        self,
        star: Any,
        sizes: Sequence[int],
        activation: Activation | None = ct.tanh,
        tied: bool = False,
        init: Initializer = transform_aware,
        dtype: Any = np.float32,
        seed: int | np.random.Generator | None = None,
        domain: str = "spatial",
    ) -> None:
        sizes = tuple(sizes)
        if len(sizes) < 2:
            raise ValueError(
                f"Autoencoder: sizes are those from the input to the code, (28, 20, 10) say, not {sizes}"
            )
        rng = np.random.default_rng(seed)

        def layers(sizes: tuple[int, ...], activations: list[Activation | None]) -> tuple[TLinear, ...]:
            return tuple(
                TLinear(star, n_in, n_out, activation, init=init, dtype=dtype, seed=rng, domain=domain)
                for (n_in, n_out), activation in zip(itertools.pairwise(sizes), activations, strict=True)
            )

        self.star = star
        self.sizes = sizes
        self.activation = activation
        self.tied = tied
        self.domain = domain
        depth = len(sizes) - 1
        self.encoder = layers(sizes, [activation] * depth)
        decoder = layers(sizes[::-1], [activation] * (depth - 1) + [None])
        self.decoder = tuple(layer.bias for layer in decoder) if tied else decoder

    def __call__(self, X: Any) -> Any:
        """decode(encode(X))."""
        return self.decode(self.encode(X))

    def encode(self, X: Any) -> Any:
        """The code of X `(n, rows, N)`, `(n, k, N)`: k tubes a sample."""
        for layer in self.encoder:
            X = layer(X)
        return X

    def decode(self, Z: Any) -> Any:
        """The samples `(n, rows, N)` of codes `(n, k, N)`."""
        for layer in self._decoder():
            Z = layer(Z)
        return Z

    def _decoder(self) -> tuple[TLinear, ...]:
        if not self.tied:
            return self.decoder
        mirrored = [
            _mirrored(layer, bias) for layer, bias in zip(self.encoder[::-1], self.decoder, strict=True)
        ]
        mirrored[-1].activation = None
        return tuple(mirrored)

    def _summary(self) -> str:
        sizes = " → ".join(map(str, self.sizes + self.sizes[-2::-1]))
        held = ["transform domain"] * (self.domain == "transform")
        return ", ".join([repr(self.star), sizes, *["tied"] * self.tied, *held])


# -------------------------------------------------------------------------------------------------- helpers


def _mirrored(layer: TLinear, bias: Any) -> TLinear:
    """The layer from the output of another back to its input, by the ★-transpose of its weight."""
    mirrored = copy.copy(layer)
    mirrored.n_in, mirrored.n_out = layer.n_out, layer.n_in
    if layer.domain == "transform":
        mirrored.weight = ct.matrix_transpose(ct.conj(layer.weight))
    else:
        mirrored.weight = layer.star.transpose(layer.weight)
    mirrored.bias = bias
    return mirrored
