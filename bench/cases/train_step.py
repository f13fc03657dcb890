"""One training step of the MNIST networks: forward, loss, gradient and Adam, on 32 images."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.case import Case, Peer, Target, Work
from bench.nets import cutnn_network, torch_network
from bench.steps import cutnn_steps, torch_steps

BATCH = 32
_BATCHES = 16


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of images (samples, 28, 28) and labels, normalised noise."""
    rng = np.random.default_rng(7)
    images = rng.standard_normal((_BATCHES, BATCH, 28, 28), dtype=np.float32)
    return list(zip(images, rng.integers(0, 10, (_BATCHES, BATCH)), strict=True))


def cutnn(head: str) -> Work:
    return cutnn_steps(cutnn_network(head), batches())


def _pytorch(module: Any, head: str, **options: Any) -> Work:
    return torch_steps(torch_network(module, head, **options), batches())


def pytorch_tubes_last(head: str) -> Work:
    from bench.peers import torch_tubes_last

    return _pytorch(torch_tubes_last, head)


def pytorch_faces_first(head: str) -> Work:
    from bench.peers import torch_faces_first

    return _pytorch(torch_faces_first, head)


def pytorch_fused_adam(head: str) -> Work:
    from bench.peers import torch_faces_first

    return _pytorch(torch_faces_first, head, fused=True)


CASE = Case(
    name="train_step",
    title="A training step of t-NNs for MNIST, batch 32, float32, Adam with weight decay",
    sizes={"28→28, dense head": {"head": "dense head"}, "28→28→10, tubal head": {"head": "tubal head"}},
    peers={
        "cutnn": Peer("cutnn", cutnn),
        "PyTorch, tubes last": Peer("torch", pytorch_tubes_last),
        "PyTorch, faces first": Peer("torch", pytorch_faces_first),
        "PyTorch, faces first, fused Adam": Peer("torch", pytorch_fused_adam),
    },
    targets={"*": [Target("PyTorch, tubes last", 2.0, "at least 2× faster than PyTorch, tubes last")]},
)
