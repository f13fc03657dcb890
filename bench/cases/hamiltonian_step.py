"""One training step of the Hamiltonian network for CIFAR-10: forward, loss, gradient and Adam."""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from bench.case import Case, Cost, Peer, Share, Target, Work
from bench.costs import training_step
from bench.nets import CIFAR_SHAPE, cutnn_hamiltonian, hamiltonian_shapes, jax_hamiltonian, torch_hamiltonian
from bench.ours import ALONE, CAPTURED, MKL, WITH_EXTRA, ours
from bench.steps import Batches, cutnn_steps, jax_steps, torch_peers, torch_steps

_NUMBERS = 2**24  # in all batches of a size


def batches(batch: int) -> Batches:
    """Batches of images (samples, 96, 32), the rows of three channels, and labels; normalised noise."""
    rng = np.random.default_rng(7)
    n, rows = CIFAR_SHAPE
    count = max(2, min(16, _NUMBERS // (batch * rows * n)))
    images = rng.standard_normal((count, batch, rows, n), dtype=np.float32)
    return list(zip(images, rng.integers(0, 10, (count, batch)), strict=True))


def cutnn(head: str, depth: int, batch: int, captured: bool = False) -> Work:
    return cutnn_steps(cutnn_hamiltonian(head, depth), batches(batch), captured)


def pytorch(
    layout: str, head: str, depth: int, batch: int, device: str, compiled: str | None = None, **adam: Any
) -> Work:
    module = importlib.import_module(f"bench.peers.{layout}")
    network = torch_hamiltonian(module, head, depth, device=device, **adam)
    return torch_steps(network, batches(batch), device, compiled)


def jax(head: str, depth: int, batch: int) -> Work:
    return jax_steps(partial(jax_hamiltonian, head, depth), batches(batch))


def cost(head: str, depth: int, batch: int) -> Cost:
    return training_step(hamiltonian_shapes(head, depth), batch, hamiltonian=depth)


def _label(depth: int, batch: int) -> str:
    return f"depth {depth}, batch {batch}"


def _size(depth: int, batch: int, head: str = "dense head") -> dict[str, Any]:
    return {"head": head, "depth": depth, "batch": batch}


_MAIN, _WIDE, _TUBAL = _label(4, 32), _label(8, 256), "depth 4, batch 32, tubal head"
_DEPTHS, _BATCHES = (4, 8, 32, 128), (32, 256)
_SIZES = {_label(d, b): _size(d, b) for b in _BATCHES for d in _DEPTHS}
# Two cores take a second a step at depth 128, where not everybody competes, and several at the rest of the grid.
_DEEP = _label(128, 32)
_ON_CPU = (_MAIN, _label(8, 32), _label(32, 32), _DEEP, _WIDE)
_NOT_DEEP = (*(label for label in _SIZES if label != _DEEP), _TUBAL)
_LAST, _FIRST, _JAX, _COMPILED = "PyTorch, tubes last", "PyTorch, faces first", "JAX jit", "PyTorch, compiled"
_GRAPHS = "PyTorch, compiled, CUDA graphs"


def _faster(peer: str, times: float, of: tuple[str, ...]) -> Target:
    wording = f"at least {times:g}× faster than {peer}" if times > 1 else f"not slower than {peer}"
    return Target(peer, times, wording, of=of)


def _on_gpu(peer: str, times: float) -> Target:
    return Target(peer, times, f"at least {times:g}× faster than {peer}", of=ALONE, device="cuda")


def _but_deep(peers: dict[str, Peer], *names: str) -> dict[str, Peer]:
    """The peers, those of these names at all sizes but the deep one."""
    return {name: replace(peer, sizes=_NOT_DEEP) if name in names else peer for name, peer in peers.items()}


CASE = Case(
    name="hamiltonian_step",
    title="A training step of the Hamiltonian t-NN for CIFAR-10, width 96, dense head, float32, Adam",
    sizes={
        _MAIN: _SIZES[_MAIN],
        _TUBAL: _size(4, 32, "tubal head"),
        **{label: _SIZES[label] for label in _ON_CPU},
    },
    cuda_sizes={label: size for label, size in _SIZES.items() if label not in _ON_CPU},
    # torch.compile unrolls the steps: 10 to 30 s of compiling for depth 4, minutes for the deep ones.
    peers=_but_deep(ours(cutnn, captures=True), CAPTURED, MKL)
    | _but_deep(torch_peers(pytorch, compiled_sizes=(_MAIN,)), _FIRST, f"{_FIRST}, fused Adam")
    | {_JAX: Peer("jax", jax)},
    targets={
        _MAIN: [
            _faster(_LAST, 2.2, ALONE),
            _faster(_LAST, 3.5, WITH_EXTRA),
            _faster(_FIRST, 1.3, WITH_EXTRA),
            _faster(_JAX, 1.0, WITH_EXTRA),
            _faster(_COMPILED, 1.0, WITH_EXTRA),
            _on_gpu(_LAST, 10.0),
            _on_gpu(_GRAPHS, 1.5),
            _on_gpu(_JAX, 1.5),
        ],
        _WIDE: [
            _faster(_LAST, 1.8, ALONE),
            _faster(_LAST, 3.0, WITH_EXTRA),
            _faster(_FIRST, 1.0, WITH_EXTRA),
            _faster(_JAX, 1.0, WITH_EXTRA),
        ],
        _label(32, 256): [
            *(_on_gpu(peer, 1.2) for peer in (_LAST, _FIRST, _JAX)),
            Share("roofline", 0.5, "at least half of the roofline", of=ALONE, device="cuda"),
        ],
    },
    cost=cost,
    growth={
        "depth": [_label(d, 32) for d in _DEPTHS],
        "batch": [_label(8, b) for b in _BATCHES],
    },
    quick_sizes=1,
    quick_rounds=2,
    rounds=15,
    seconds=90,
)
