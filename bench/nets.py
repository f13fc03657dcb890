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
AUTOENCODER = [(28, 20, 28), (28, 10, 20), (28, 20, 10), (28, 28, 20)]
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


def initial_layers(network: str, dtype: Any = np.float32) -> Layers:
    """The same (weight, bias) for every peer, uniform in ±1/√(numbers that enter a sum)."""
    rng = np.random.default_rng(42)
    shapes = AUTOENCODER if network == "autoencoder" else SHAPES[network]
    return [_drawn(rng, shape, (*shape[:-1], 1), dtype) for shape in shapes]


def hamiltonian_shapes(head: str, depth: int) -> list[tuple[int, ...]]:
    """The shapes of the weights: those of the steps, and of the head."""
    n, width = CIFAR_SHAPE
    return [(n, width, width)] * depth + [(10, n * width) if head == "dense head" else (n, 10, width)]


def hamiltonian_layers(head: str, depth: int, dtype: Any = np.float32) -> Layers:
    """Steps (n, width, width) whose bias is a single tube, and a head, likewise."""
    rng = np.random.default_rng(42)
    *steps, last = hamiltonian_shapes(head, depth)
    layers = [_drawn(rng, shape, (shape[0], 1, 1), dtype) for shape in steps]
    return [*layers, _drawn(rng, last, (*last[:-1], 1), dtype)]


def _drawn(
    rng: np.random.Generator, shape: tuple[int, ...], bias: tuple[int, ...], dtype: Any
) -> tuple[np.ndarray, np.ndarray]:
    bound = 1 / np.sqrt(shape[-1])
    return rng.uniform(-bound, bound, shape).astype(dtype), rng.uniform(-bound, bound, bias).astype(dtype)


def cutnn_network(network: str, dtype: Any = np.float32) -> tuple[Any, Any, Any]:
    """cutnn's model with those weights, its loss and its optimizer."""
    import cutnn as ct
    from cutnn import algebra, nn, optim

    star = algebra.dct(28)
    if network == "autoencoder":
        model: Any = nn.Autoencoder(star, (28, 20, 10), dtype=dtype)
        layers, loss = [*model.encoder, *model.decoder], nn.SquaredError()
    else:
        first = nn.TLinear(star, 28, 28, activation=ct.tanh, dtype=dtype)
        if network == "dense head":
            model = nn.Sequential(first, nn.Unfold(), nn.Dense(28 * 28, 10, dtype=dtype))
            layers, loss = [model[0], model[2]], nn.CrossEntropy()
        else:
            model = nn.Sequential(first, nn.TLinear(star, 28, 10, dtype=dtype))
            layers, loss = [model[0], model[1]], nn.TubalCrossEntropy(star)
    _set(layers, initial_layers(network, dtype))
    return model, loss, optim.Adam(model, **ADAM)


def torch_network(
    module: Any, network: str, dtype: Any = np.float32, device: str = "cpu", **options: Any
) -> tuple[Any, Any]:
    """A network of `bench.peers` with those weights, and its Adam."""
    from bench.peers import training

    kind = module.Autoencoder if network == "autoencoder" else module.Network
    made = kind(initial_layers(network, dtype), dct_matrix(28), device)
    return made, training.adam(made, **ADAM, **options)


def jax_network(network: str) -> tuple[Any, dict[str, Any]]:
    """JAX's network with those weights, and the settings of its Adam."""
    from bench.peers import jax_faces_first as module

    kind = module.Autoencoder if network == "autoencoder" else module.Network
    return kind(initial_layers(network), dct_matrix(28)), ADAM


def cutnn_hamiltonian(
    head: str, depth: int, dtype: Any = np.float32, reversible: bool = False
) -> tuple[Any, Any, Any]:
    """cutnn's Hamiltonian network for CIFAR-10 with its weights, its loss and its optimizer."""
    from cutnn import algebra, nn, optim

    n, width = CIFAR_SHAPE
    star = algebra.dct(n)
    body = nn.HamiltonianNet(star, width, depth=depth, h=STEP_SIZE, reversible=reversible, dtype=dtype)
    loss: Any = nn.TubalCrossEntropy(star)
    model = nn.Sequential(body, nn.TLinear(star, width, 10, dtype=dtype))
    if head == "dense head":
        loss = nn.CrossEntropy()
        model = nn.Sequential(body, nn.Unfold(), nn.Dense(n * width, 10, dtype=dtype))
    ours = [*model[0].steps, model[len(model) - 1]]
    _set(ours, hamiltonian_layers(head, depth, dtype))
    return model, loss, optim.Adam(model, **CIFAR_ADAM)


def _set(layers: list[Any], values: Layers) -> None:
    import cutnn as ct

    for layer, (weight, bias) in zip(layers, values, strict=True):
        layer.weight[...] = ct.to_device(weight)
        layer.bias[...] = ct.to_device(bias.reshape(layer.bias.shape))


def torch_hamiltonian(
    module: Any, head: str, depth: int, dtype: Any = np.float32, device: str = "cpu", **options: Any
) -> tuple[Any, Any]:
    """The same network of `bench.peers`, and its Adam."""
    from bench.peers import training

    layers = hamiltonian_layers(head, depth, dtype)
    network = module.HamiltonianNetwork(layers, dct_matrix(CIFAR_SHAPE[0]), STEP_SIZE, device)
    return network, training.adam(network, **CIFAR_ADAM, **options)


def jax_hamiltonian(head: str, depth: int) -> tuple[Any, dict[str, Any]]:
    """The same network in JAX, and the settings of its Adam."""
    from bench.peers import jax_faces_first as module

    layers = hamiltonian_layers(head, depth)
    return module.HamiltonianNetwork(layers, dct_matrix(CIFAR_SHAPE[0]), STEP_SIZE), CIFAR_ADAM
