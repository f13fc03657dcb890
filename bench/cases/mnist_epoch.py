"""An epoch of MNIST training from data in memory, everything included: 50,000 images, batches of 32, then validation.

The images have the size of MNIST's and are drawn, a pattern a class under noise, so that nothing is downloaded. cutnn
keeps them as bytes and normalises each batch. The PyTorch versions have images normalised once and kept as floats:
through a DataLoader over a TensorDataset, as PyTorch's users write it, and by indexing whole batches, as it is faster.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from bench.case import Case, Cost, Peer, Target, Work
from bench.costs import training_step
from bench.libraries import captured as capture
from bench.libraries import jax_on_device
from bench.nets import SHAPES, cutnn_network, jax_network, torch_network
from bench.ours import ALONE, ours

BATCH, EVALUATION_BATCH = 32, 1000
MEAN, DEVIATION = 0.1307, 0.3081
TRAINING, VALIDATION = 50_000, 10_000
_CHECKED = 10  # steps; rounding grows from one to the next


def images_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Bytes (60000, 28, 28) and classes; the last 10,000 are for validation."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, TRAINING + VALIDATION)
    patterns = rng.integers(0, 64, (10, 28, 28), dtype=np.uint8)
    noise = rng.integers(0, 192, (len(labels), 28, 28), dtype=np.uint8)
    noise += patterns[labels]
    return noise, labels


def normalised() -> tuple[np.ndarray, np.ndarray]:
    """The same images as float32."""
    images, labels = images_and_labels()
    floats = images.astype(np.float32)
    floats *= np.float32(1 / (255 * DEVIATION))
    floats -= np.float32(MEAN / DEVIATION)
    return floats, labels


def order(epoch: int) -> np.ndarray:
    """The order of the training images in an epoch, the same for every peer."""
    return np.random.default_rng(epoch).permutation(TRAINING)


def _epochs(train: Callable[[np.ndarray], float], accuracy: Callable[[], float]) -> Work:
    """Work of a function that trains on images in an order and returns the mean loss, and one that validates."""
    epoch = 0

    def call() -> None:
        nonlocal epoch
        train(order(epoch))
        accuracy()
        epoch += 1

    return Work(call, lambda: [np.asarray(train(np.arange(_CHECKED * BATCH))), np.asarray(accuracy())])


def _split(indices: np.ndarray) -> Iterable[np.ndarray]:
    return (indices[start : start + BATCH] for start in range(0, len(indices), BATCH))


def cutnn(network: str, captured: bool = False) -> Work:
    import cutnn as ct
    from cutnn import data

    images, labels = images_and_labels()
    train_set, validation = (
        data.Split(images[part], labels[part], MEAN, DEVIATION).to_device()
        for part in (slice(TRAINING), slice(TRAINING, None))
    )
    model, loss, optimizer = cutnn_network(network)
    gradient = ct.value_and_grad(lambda model, X, labels: loss(model(X), labels))

    def step(indices: Any) -> Any:
        value, grads = gradient(model, *train_set.batch(indices))
        optimizer.step(grads)
        return value

    if captured:
        step = capture(step)

    def train(indices: np.ndarray) -> float:
        total = 0.0
        for some in _split(ct.to_device(indices)):
            total = total + step(some)
        return float(total) * BATCH / len(indices)

    def accuracy() -> float:
        right = 0
        for start in range(0, VALIDATION, EVALUATION_BATCH):
            X, labels = validation.batch(slice(start, start + EVALUATION_BATCH))
            right = right + (loss.predict(model(X)) == labels).sum()
        return float(right) / VALIDATION

    return _epochs(train, accuracy)


def pytorch(layout: str, network: str, device: str, loader: bool = False) -> Work:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from bench.peers import training

    images, labels = (torch.from_numpy(a) for a in normalised())
    net, adam = torch_network(importlib.import_module(f"bench.peers.{layout}"), network, device=device)
    validation = images[TRAINING:].to(device), labels[TRAINING:].to(device)
    dataset = TensorDataset(images[:TRAINING], labels[:TRAINING])

    def train_by_loader(indices: np.ndarray) -> float:
        running = 0.0
        for x, y in DataLoader(dataset, batch_size=BATCH, sampler=indices.tolist()):
            running += training.step(net, adam, x.to(device), y.to(device)).item()
        return running * BATCH / len(indices)

    def train_by_indices(indices: np.ndarray) -> float:
        total = torch.zeros((), device=device)
        for some in torch.from_numpy(indices).to(device).split(BATCH):
            total += training.step(net, adam, on_device[0][some], on_device[1][some])
        return float(total) * BATCH / len(indices)

    on_device = [] if loader else [tensor.to(device) for tensor in dataset.tensors]
    return _epochs(
        train_by_loader if loader else train_by_indices,
        lambda: training.accuracy(net, *validation, EVALUATION_BATCH),
    )


def jax(network: str) -> Work:
    jax = jax_on_device()
    import jax.numpy as jnp

    from bench.peers.jax_faces_first import Training

    images, labels = normalised()
    train_set = jax.device_put((images[:TRAINING], labels[:TRAINING]))
    validation = jax.device_put((images[TRAINING:], labels[TRAINING:]))
    net, settings = jax_network(network)
    training = Training(net, **settings)
    look_up = jax.jit(lambda pair, indices: tuple(a[indices] for a in pair))

    @jax.jit
    def right(weights: Any, images: Any, labels: Any) -> Any:
        return (net.scores(weights, images).argmax(0) == labels).sum()

    def train(indices: np.ndarray) -> float:
        total = jnp.zeros(())
        for some in _split(indices):
            total = total + training.step(*look_up(train_set, some))
        return float(total) * BATCH / len(indices)

    def accuracy() -> float:
        parts = (
            (a[i : i + EVALUATION_BATCH] for a in validation) for i in range(0, VALIDATION, EVALUATION_BATCH)
        )
        return float(sum(right(training.weights, *part) for part in parts)) / VALIDATION

    return _epochs(train, accuracy)


def cost(network: str) -> Cost:
    """That of the steps; the weights and moments are touched once a step."""
    steps = -(-TRAINING // BATCH)
    flops, moved = training_step(SHAPES[network], BATCH)
    return Cost(steps * flops, steps * moved)


_DENSE = "28→28, dense head"
_LOADER = "PyTorch, tubes last, DataLoader"

CASE = Case(
    name="mnist_epoch",
    title="An epoch of training on images of MNIST's size in memory, batch 32, and its validation",
    sizes={_DENSE: {"network": "dense head"}},
    cuda_sizes={"28→28→10, tubal head": {"network": "tubal head"}},
    peers={
        **ours(cutnn, captures=True),
        _LOADER: Peer("torch", partial(pytorch, "torch_tubes_last", loader=True)),
        "PyTorch, tubes last": Peer("torch", partial(pytorch, "torch_tubes_last")),
        "PyTorch, faces first": Peer("torch", partial(pytorch, "torch_faces_first")),
        "JAX jit": Peer("jax", jax),
    },
    targets={
        "*": [
            Target(_LOADER, 4.0, "at least 4× faster than PyTorch with its DataLoader, tubes last", of=ALONE)
        ]
    },
    cost=cost,
    unit="s",
    rounds=5,
    quick_rounds=2,
    seconds=60,
    tolerance=2e-3,  # of the accuracy: an image of 10,000 may fall to the other side
    whole_runs=True,
    memory_limit_mb=700,
)
