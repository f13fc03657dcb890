"""One training step of the Hamiltonian network for CIFAR-10: forward, loss, gradient and Adam, on 32 images."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.case import Case, Peer, Target, Work
from bench.nets import CIFAR_SHAPE, cutnn_hamiltonian, torch_hamiltonian
from bench.steps import cutnn_steps, torch_steps

BATCH = 32
_BATCHES = 16


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of images (samples, 96, 32), the rows of three channels, and labels; normalised noise."""
    rng = np.random.default_rng(7)
    n, rows = CIFAR_SHAPE
    images = rng.standard_normal((_BATCHES, BATCH, rows, n), dtype=np.float32)
    return list(zip(images, rng.integers(0, 10, (_BATCHES, BATCH)), strict=True))


def cutnn(head: str, depth: int) -> Work:
    return cutnn_steps(cutnn_hamiltonian(head, depth), batches())


def _pytorch(module: Any, head: str, depth: int, **options: Any) -> Work:
    return torch_steps(torch_hamiltonian(module, head, depth, **options), batches())


def pytorch_faces_first(head: str, depth: int) -> Work:
    from bench.peers import torch_faces_first

    return _pytorch(torch_faces_first, head, depth)


def pytorch_tubes_last(head: str, depth: int) -> Work:
    from bench.peers import torch_tubes_last

    return _pytorch(torch_tubes_last, head, depth)


def pytorch_fused_adam(head: str, depth: int) -> Work:
    from bench.peers import torch_faces_first

    return _pytorch(torch_faces_first, head, depth, fused=True)


CASE = Case(
    name="hamiltonian_step",
    title="A training step of the Hamiltonian t-NN for CIFAR-10, width 96, depth 4, batch 32, float32, Adam",
    sizes={
        "depth 4, dense head": {"head": "dense head", "depth": 4},
        "depth 4, tubal head": {"head": "tubal head", "depth": 4},
    },
    peers={
        "cutnn": Peer("cutnn", cutnn),
        "PyTorch, faces first": Peer("torch", pytorch_faces_first),
        "PyTorch, tubes last": Peer("torch", pytorch_tubes_last),
        "PyTorch, faces first, fused Adam": Peer("torch", pytorch_fused_adam),
    },
    targets={"*": [Target("PyTorch, tubes last", 1.8, "at least 1.8× faster than PyTorch, tubes last")]},
)
