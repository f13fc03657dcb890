"""Training steps to be timed: one batch after another, each with the same work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from bench.case import Peer, Work
from bench.libraries import captured as capture
from bench.libraries import cutnn_work, jax_on_device, jax_work, torch_compiled, torch_work

_CHECKED = 2

Batches = list[tuple[np.ndarray, np.ndarray]]
"""Images (samples, rows, columns) and labels (samples,), or images to come back."""


class Steps:
    """The batches that steps run over, again and again; the answer is the losses of the first few steps."""

    def __init__(self, given: list[tuple[Any, Any]]) -> None:
        self.given = given
        self.done = 0

    def next(self) -> tuple[Any, Any]:
        self.done += 1
        return self.given[self.done % len(self.given)]

    def losses(self, call: Callable[[], Any]) -> Callable[[], list[np.ndarray]]:
        return lambda: [np.array([float(call()) for _ in range(_CHECKED)])]


def cutnn_step(network: tuple[Any, Any, Any], captured: bool) -> Callable[[Any, Any], Any]:
    """A step of cutnn's (model, loss, optimizer) on a tensor and its labels, which returns the loss before it."""
    import cutnn as ct

    model, loss, optimizer = network
    gradient = ct.value_and_grad(lambda model, X, labels: loss(model(X), labels))

    def step(X: Any, labels: Any) -> Any:
        value, grads = gradient(model, X, labels)
        optimizer.step(grads)
        return value

    return capture(step) if captured else step


def cutnn_steps(network: tuple[Any, Any, Any], batches: Batches, captured: bool = False) -> Work:
    """Steps of cutnn's (model, loss, optimizer)."""
    import cutnn as ct

    step = cutnn_step(network, captured)

    def tensor(a: np.ndarray) -> Any:
        return ct.to_device(a if a.ndim == 1 else np.ascontiguousarray(a.transpose(2, 1, 0)))

    steps = Steps([(tensor(x), tensor(y)) for x, y in batches])

    def call() -> Any:
        return step(*steps.next())

    return cutnn_work(call, steps.losses(call))


def torch_steps(network: tuple[Any, Any], batches: Batches, device: str, compiled: str | None = None) -> Work:
    """Steps of a PyTorch (network, optimizer); `compiled` is a mode of `torch.compile`."""
    import torch

    from bench.peers import training

    steps = Steps([(torch.tensor(x, device=device), torch.tensor(y, device=device)) for x, y in batches])
    network[0].loss_of = torch_compiled(network[0].loss_of, compiled, device)

    def call() -> Any:
        return training.step(*network, *steps.next())

    return torch_work(call, lambda: map(torch.from_numpy, steps.losses(call)()), device)


def jax_steps(make: Callable[..., Any], batches: Batches) -> Work:
    """Steps of the JAX (network, settings of Adam) that `make` makes."""
    jax = jax_on_device()
    from bench.peers.jax_faces_first import Training

    network, settings = make()
    training = Training(network, **settings)
    steps = Steps([(jax.device_put(x), jax.device_put(y)) for x, y in batches])

    def call() -> Any:
        return training.step(*steps.next())

    return jax_work(call, steps.losses(call))


def torch_peers(make: Callable[..., Work], compiled_sizes: tuple[str, ...] | None = None) -> dict[str, Peer]:
    """PyTorch in both layouts, with its fused Adam, and compiled.

    `make` takes the name of a module of `bench.peers`, a mode of `torch.compile`, and options of Adam.
    """

    def peer(layout: str, **arguments: Any) -> Peer:
        return Peer("torch", partial(make, layout, **arguments))

    fused: Mapping[str, Any] = {"fused": True}
    return {
        "PyTorch, tubes last": peer("torch_tubes_last"),
        "PyTorch, faces first": peer("torch_faces_first"),
        "PyTorch, faces first, fused Adam": peer("torch_faces_first", **fused),
    } | compiled_peers(partial(make, "torch_faces_first", **fused), compiled_sizes)


def compiled_peers(make: Callable[..., Work], sizes: tuple[str, ...] | None = None) -> dict[str, Peer]:
    """`torch.compile` of what `make` makes, and on a GPU with CUDA graphs; at these sizes alone, None for all."""
    default, graphs = partial(make, compiled="default"), partial(make, compiled="reduce-overhead")
    return {
        "PyTorch, compiled": Peer("torch", default, sizes=sizes),
        "PyTorch, compiled, CUDA graphs": Peer("torch", graphs, sizes=sizes, devices=("cuda",)),
    }
