"""The MNIST networks of Newman et al. (2024) for every peer, with the same weights to start from."""

from __future__ import annotations

from typing import Any

import numpy as np

ADAM: dict[str, Any] = {"lr": 1e-2, "weight_decay": 1e-4}

# The shapes of each layer, faces first: t-linear (n, out, in), dense (out, n·in).
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "dense head": [(28, 28, 28), (10, 28 * 28)],
    "tubal head": [(28, 28, 28), (28, 10, 28)],
}


def dct_matrix(n: int) -> np.ndarray:
    """The orthonormal DCT-II, (n, n), float64."""
    k, i = np.arange(n)[:, None], np.arange(n)
    matrix = np.sqrt(2 / n) * np.cos(np.pi * k * (2 * i + 1) / (2 * n))
    matrix[0] /= np.sqrt(2)
    return matrix


def initial_layers(head: str, dtype: Any = np.float32) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same (weight, bias) for every peer, uniform in ±1/√(numbers that enter a sum)."""
    rng = np.random.default_rng(42)
    layers = []
    for shape in SHAPES[head]:
        bound = 1 / np.sqrt(shape[-1])
        weight = rng.uniform(-bound, bound, shape).astype(dtype)
        layers.append((weight, rng.uniform(-bound, bound, (*shape[:-1], 1)).astype(dtype)))
    return layers


def cutnn_network(head: str, dtype: Any = np.float32) -> tuple[Any, Any, Any]:
    """cutnn's model with those weights, its loss and its optimizer."""
    import cutnn as ct
    from cutnn import algebra, nn, optim

    star = algebra.dct(28)
    first = nn.TLinear(star, 28, 28, activation=ct.tanh, dtype=dtype)
    if head == "dense head":
        model = nn.Sequential(first, nn.Unfold(), nn.Dense(28 * 28, 10, dtype=dtype))
        last = model[2]
        loss: Any = nn.CrossEntropy()
    else:
        model = nn.Sequential(first, nn.TLinear(star, 28, 10, dtype=dtype))
        last, loss = model[1], nn.TubalCrossEntropy(star)
    for layer, (weight, bias) in zip((model[0], last), initial_layers(head, dtype), strict=True):
        layer.weight[...] = weight
        layer.bias[...] = bias.reshape(layer.bias.shape)
    return model, loss, optim.Adam(model, **ADAM)


def torch_network(module: Any, head: str, dtype: Any = np.float32, **options: Any) -> tuple[Any, Any]:
    """A network of `bench.peers` with those weights, and its Adam."""
    from bench.peers import training

    network = module.Network(initial_layers(head, dtype), dct_matrix(28))
    return network, training.adam(network, **ADAM, **options)
