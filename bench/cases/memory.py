"""Peak memory of a gradient against depth: the Hamiltonian net for CIFAR-10, states recomputed and states stored.

What is counted is the memory of activations: the bytes at the peak of a forward and backward pass beyond the weights
and the data, which are there before, and less the gradients, which are its result and grow with the weights.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from bench.case import OURS, Case, Growth, Peer, Work
from bench.cases.hamiltonian_step import batches
from bench.libraries import cutnn_work, jax_on_device, jax_work, torch_work
from bench.nets import cutnn_hamiltonian, hamiltonian_layers, jax_hamiltonian, torch_hamiltonian
from bench.ours import ours
from bench.peaks import cutnn_peak, torch_peak

HEAD, BATCH = "dense head", 32


def _bytes_of_gradients(depth: int) -> int:
    return sum(array.nbytes for layer in hamiltonian_layers(HEAD, depth) for array in layer)


def cutnn(depth: int, reversible: bool = True) -> Work:
    import cutnn as ct

    model, loss, _ = cutnn_hamiltonian(HEAD, depth, reversible=reversible)
    images, labels = batches(BATCH)[0]
    X, labels = ct.to_device((np.ascontiguousarray(images.transpose(2, 1, 0)), labels))
    gradient = ct.value_and_grad(lambda model: loss(model(X), labels))

    def answer() -> Any:
        value, grads = gradient(model)
        return [value, grads[0].steps[0].weight]

    work = cutnn_work(lambda: gradient(model), answer)
    return _with_peak(work, depth, cutnn_peak)


def pytorch(layout: str, depth: int, device: str) -> Work:
    import torch

    network, _ = torch_hamiltonian(
        importlib.import_module(f"bench.peers.{layout}"), HEAD, depth, device=device
    )
    images, labels = (torch.tensor(a, device=device) for a in batches(BATCH)[0])

    def call() -> Any:
        loss = network.loss_of(images, labels)
        return loss, torch.autograd.grad(loss, network.parameters)

    def answer() -> Any:
        loss, grads = call()
        return [loss, grads[0] if layout == "torch_faces_first" else grads[0].movedim(-1, 0)]

    return _with_peak(torch_work(call, answer, device), depth, partial(torch_peak, device=device))


def jax(depth: int) -> Work:
    jax = jax_on_device()

    network, _ = jax_hamiltonian(HEAD, depth)
    batch = jax.device_put(batches(BATCH)[0])
    gradient = jax.jit(jax.value_and_grad(network.loss)).lower(network.weights, *batch).compile()

    def call() -> Any:
        return gradient(network.weights, *batch)

    def answer() -> Any:
        loss, grads = call()
        first = grads[0][0]
        return [loss, first if first.ndim == 3 else first[0]]

    work = jax_work(call, answer)
    scratch = float(gradient.memory_analysis().temp_size_in_bytes)  # what XLA laid out beside the gradients
    return Work(work.call, work.answer, work.wait, peak=lambda call: scratch)


def _with_peak(work: Work, depth: int, peak: Any) -> Work:
    gradients = _bytes_of_gradients(depth)
    return Work(work.call, work.answer, work.wait, peak=lambda call: peak(call) - gradients)


_DEPTHS = (4, 8, 32, 128)
_LABELS = {depth: f"depth {depth}" for depth in _DEPTHS}
_STORED = "cutnn, states stored"
_ALONE = ours(cutnn)[OURS]
_QUIET = {"KINETO_LOG_LEVEL": "99"}  # PyTorch's profiler

CASE = Case(
    name="memory",
    title=f"Memory of activations of a gradient at its peak, Hamiltonian t-NN for CIFAR-10, width 96, batch {BATCH}",
    sizes={label: {"depth": depth} for depth, label in _LABELS.items()},
    peers={
        OURS: _ALONE,
        _STORED: replace(_ALONE, make=partial(cutnn, reversible=False)),
        "PyTorch, faces first": Peer("torch", partial(pytorch, "torch_faces_first"), environment=_QUIET),
        "PyTorch, tubes last": Peer("torch", partial(pytorch, "torch_tubes_last"), environment=_QUIET),
        "JAX jit": Peer("jax", jax),
    },
    growth_targets=[
        Growth(
            _LABELS[4], _LABELS[128], 1.1, "activations of depth 128 in at most 1.1× the memory of depth 4"
        )
    ],
    growth={"depth": list(_LABELS.values())},
    quantity="memory",
    unit="MB",
    tolerance=1e-3,
    rounds=1,
    quick_rounds=1,
    quick_sizes=2,
    seconds=35,
)
