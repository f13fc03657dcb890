"""MNIST training from files to accuracy, an epoch at a time: 50,000 images, batches of 32, then validation.

cutnn keeps the images as bytes and normalises each batch. The PyTorch versions are the simple fair loop:
images normalised once and kept as floats, batches by indexing, no data loader; a loader that normalises image
by image, as the authors' does, takes several times as long.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from bench.case import Case, Peer, Target, Unavailable, Work
from bench.nets import cutnn_network, torch_network

BATCH, EVALUATION_BATCH = 32, 1000
MEAN, DEVIATION = 0.1307, 0.3081
TRAINING = 50_000
_CHECKED = 100


def data_folder() -> Path:
    """The folder that holds MNIST as torchvision lays it out."""
    folder = Path(os.environ.get("CUTNN_DATA") or "data")
    if not (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").exists():
        raise Unavailable(f"no MNIST under {folder}; name the folder that holds it in CUTNN_DATA")
    return folder


def order(epoch: int) -> np.ndarray:
    """The order of the training images in an epoch, the same for every peer."""
    return np.random.default_rng(epoch).permutation(TRAINING)


def cutnn(head: str) -> Work:
    import cutnn as ct
    from cutnn import data

    mnist = data.load("mnist", root=data_folder())
    model, loss, optimizer = cutnn_network(head)
    gradient = ct.value_and_grad(lambda model, X, labels: loss(model(X), labels))

    def train(indices: np.ndarray) -> list[float]:
        losses = []
        for start in range(0, len(indices), BATCH):
            value, grads = gradient(model, *mnist.train.batch(indices[start : start + BATCH]))
            optimizer.step(grads)
            losses.append(float(value))
        return losses

    def accuracy() -> float:
        right = 0
        for start in range(0, len(mnist.validation), EVALUATION_BATCH):
            X, labels = mnist.validation.batch(slice(start, start + EVALUATION_BATCH))
            right += int((loss.predict(model(X)) == labels).sum())
        return right / len(mnist.validation)

    return _epochs(train, accuracy)


def _epochs(train: Any, accuracy: Any) -> Work:
    epoch = 0

    def call() -> None:
        nonlocal epoch
        train(order(epoch))
        accuracy()
        epoch += 1

    return Work(call, lambda: [np.array(train(np.arange(_CHECKED * BATCH))).mean()])


def _pytorch(module: Any, head: str) -> Work:
    import torch

    from bench.peers import training

    images, labels = (torch.from_numpy(a) for a in _read(data_folder() / "MNIST" / "raw"))
    images = images.to(torch.float32).div_(255).sub_(MEAN).div_(DEVIATION)
    labels = labels.to(torch.int64)
    network, optimizer = torch_network(module, head)

    def train(indices: np.ndarray) -> list[float]:
        order = torch.from_numpy(indices)
        return [
            float(training.step(network, optimizer, images[some], labels[some]))
            for some in order.split(BATCH)
        ]

    def accuracy() -> float:
        return training.accuracy(network, images[TRAINING:], labels[TRAINING:], EVALUATION_BATCH)

    return _epochs(train, accuracy)


def _read(raw: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels in the order in which cutnn splits them into training and validation."""
    images = np.fromfile(raw / "train-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 28, 28)
    labels = np.fromfile(raw / "train-labels-idx1-ubyte", np.uint8)[8:]
    split = np.random.default_rng(42).permutation(len(images))
    return images[split], labels[split]


def pytorch_tubes_last(head: str) -> Work:
    from bench.peers import torch_tubes_last

    return _pytorch(torch_tubes_last, head)


def pytorch_faces_first(head: str) -> Work:
    from bench.peers import torch_faces_first

    return _pytorch(torch_faces_first, head)


CASE = Case(
    name="mnist_epoch",
    title="An epoch of training on MNIST and its validation; a whole run is loading and 20 epochs",
    sizes={"28→28, dense head": {"head": "dense head"}, "28→28→10, tubal head": {"head": "tubal head"}},
    peers={
        "cutnn": Peer("cutnn", cutnn),
        "PyTorch, tubes last": Peer("torch", pytorch_tubes_last),
        "PyTorch, faces first": Peer("torch", pytorch_faces_first),
    },
    targets={"*": [Target("PyTorch, tubes last", 2.0, "at most half the time of PyTorch, tubes last")]},
    unit="s",
    rounds=20,
    quick_rounds=2,
    quick_sizes=1,
    whole_runs=True,
    memory_limit_mb=700,
)
