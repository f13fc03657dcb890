"""The networks of Newman et al. (2024) for every peer, with the same weights to start from: MNIST, CIFAR-10."""

from __future__ import annotations

from typing import Any

import numpy as np

Layers = list[tuple[np.ndarray, np.ndarray]]

ADAM: dict[str, Any] = {"lr": 1e-2, "weight_decay": 1e-4}
CIFAR_ADAM: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.0}
CIFAR_SHAPE = (32, 96)  # tubes, and the rows of three channels
STEP_SIZE = 0.25

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


def initial_layers(head: str, dtype: Any = np.float32) -> Layers:
    """The same (weight, bias) for every peer, uniform in ±1/√(numbers that enter a sum)."""
    rng = np.random.default_rng(42)
    return [_drawn(rng, shape, (*shape[:-1], 1), dtype) for shape in SHAPES[head]]


def hamiltonian_layers(head: str, depth: int, dtype: Any = np.float32) -> Layers:
    """Steps (n, width, width) whose bias is a single tube, and a head, likewise."""
    rng = np.random.default_rng(42)
    n, width = CIFAR_SHAPE
    last = (10, n * width) if head == "dense head" else (n, 10, width)
    steps = [_drawn(rng, (n, width, width), (n, 1, 1), dtype) for _ in range(depth)]
    return [*steps, _drawn(rng, last, (*last[:-1], 1), dtype)]


def _drawn(
    rng: np.random.Generator, shape: tuple[int, ...], bias: tuple[int, ...], dtype: Any
) -> tuple[np.ndarray, np.ndarray]:
    bound = 1 / np.sqrt(shape[-1])
    return rng.uniform(-bound, bound, shape).astype(dtype), rng.uniform(-bound, bound, bias).astype(dtype)


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


def cutnn_hamiltonian(head: str, depth: int, dtype: Any = np.float32) -> tuple[Any, Any, Any]:
    """cutnn's Hamiltonian network for CIFAR-10 with its weights, its loss and its optimizer."""
    from cutnn import algebra, nn, optim

    n, width = CIFAR_SHAPE
    star = algebra.dct(n)
    body = nn.HamiltonianNet(star, width, depth=depth, h=STEP_SIZE, dtype=dtype)
    loss: Any = nn.TubalCrossEntropy(star)
    model = nn.Sequential(body, nn.TLinear(star, width, 10, dtype=dtype))
    if head == "dense head":
        loss = nn.CrossEntropy()
        model = nn.Sequential(body, nn.Unfold(), nn.Dense(n * width, 10, dtype=dtype))
    ours = [*model[0].steps, model[len(model) - 1]]
    for layer, (weight, bias) in zip(ours, hamiltonian_layers(head, depth, dtype), strict=True):
        layer.weight[...] = weight
        layer.bias[...] = bias
    return model, loss, optim.Adam(model, **CIFAR_ADAM)


def torch_hamiltonian(
    module: Any, head: str, depth: int, dtype: Any = np.float32, **options: Any
) -> tuple[Any, Any]:
    """The same network of `bench.peers`, and its Adam."""
    from bench.peers import training

    layers = hamiltonian_layers(head, depth, dtype)
    network = module.HamiltonianNetwork(layers, dct_matrix(CIFAR_SHAPE[0]), STEP_SIZE)
    return network, training.adam(network, **CIFAR_ADAM, **options)
