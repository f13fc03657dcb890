"""One training step of the MNIST networks: forward, loss, gradient and Adam, on 32 images."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.case import Case, Peer, Target, Work
from bench.nets import cutnn_network, torch_network
from bench.steps import Steps

BATCH = 32
_BATCHES = 16


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of images (samples, 28, 28) and labels, normalised noise."""
    rng = np.random.default_rng(7)
    images = rng.standard_normal((_BATCHES, BATCH, 28, 28), dtype=np.float32)
    return list(zip(images, rng.integers(0, 10, (_BATCHES, BATCH)), strict=True))


def cutnn(head: str) -> Work:
    import cutnn as ct

    model, loss, optimizer = cutnn_network(head)
    steps = Steps([(np.ascontiguousarray(x.transpose(2, 1, 0)), y) for x, y in batches()])
    gradient = ct.value_and_grad(lambda model, X, labels: loss(model(X), labels))

    def call() -> Any:
        value, grads = gradient(model, *steps.next())
        optimizer.step(grads)
        return value

    return steps.work(call)


def _pytorch(module: Any, head: str, **options: Any) -> Work:
    import torch

    from bench.peers import training

    network, optimizer = torch_network(module, head, **options)
    steps = Steps([(torch.tensor(x), torch.tensor(y)) for x, y in batches()])
    return steps.work(lambda: training.step(network, optimizer, *steps.next()))


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
