"""One training step of the MNIST networks, classifiers and autoencoder: forward, loss, gradient and Adam."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import numpy as np

from bench.case import Case, Cost, Peer, Target, Work
from bench.costs import training_step
from bench.nets import AUTOENCODER, SHAPES, cutnn_network, jax_network, torch_network
from bench.ours import ALONE, ours
from bench.steps import Batches, cutnn_steps, jax_steps, torch_peers, torch_steps

_BATCHES = 16


def batches(network: str, batch: int) -> Batches:
    """Batches of images (samples, 28, 28), normalised noise, and labels; of an autoencoder the images again."""
    rng = np.random.default_rng(7)
    images = rng.standard_normal((_BATCHES, batch, 28, 28), dtype=np.float32)
    labels = rng.integers(0, 10, (_BATCHES, batch))
    return list(zip(images, images if network == "autoencoder" else labels, strict=True))


def cutnn(network: str, batch: int, captured: bool = False) -> Work:
    return cutnn_steps(cutnn_network(network), batches(network, batch), captured)


def pytorch(
    layout: str, network: str, batch: int, device: str, compiled: str | None = None, **adam: Any
) -> Work:
    module = importlib.import_module(f"bench.peers.{layout}")
    made = torch_network(module, network, device=device, **adam)
    return torch_steps(made, batches(network, batch), device, compiled)


def jax(network: str, batch: int) -> Work:
    return jax_steps(partial(jax_network, network), batches(network, batch))


def cost(network: str, batch: int) -> Cost:
    return training_step(AUTOENCODER if network == "autoencoder" else SHAPES[network], batch)


_CURVE = {batch: f"28→28, dense head, batch {batch}" for batch in (32, 256, 2048)}

CASE = Case(
    name="train_step",
    title="A training step of t-NNs for MNIST, float32, Adam with weight decay",
    sizes={
        _CURVE[32]: {"network": "dense head", "batch": 32},
        "28→28→10, tubal head, batch 32": {"network": "tubal head", "batch": 32},
        "autoencoder 28→20→10→20→28, batch 32": {"network": "autoencoder", "batch": 32},
        **{_CURVE[batch]: {"network": "dense head", "batch": batch} for batch in (256, 2048)},
    },
    peers=ours(cutnn, captures=True)
    | torch_peers(pytorch, compiled_sizes=(_CURVE[32],))
    | {"JAX jit": Peer("jax", jax)},
    targets={
        "*": [Target("PyTorch, tubes last", 2.0, "at least 2× faster than PyTorch, tubes last", of=ALONE)]
    },
    cost=cost,
    growth={"batch": list(_CURVE.values())},
    quick_sizes=3,
    rounds=15,
    seconds=45,
)
