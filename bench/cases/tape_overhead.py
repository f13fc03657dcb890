"""What a tape costs: tiny arrays, long chains, forward plus backward, microseconds for each operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.case import Case, Peer, Target, Work
from bench.libraries import cutnn_work, torch_work
from bench.ours import ours

LINKS = 100


def elementwise(xp: Any, x: Any, w: Any, b: Any) -> Any:
    """Five operations a link, on arrays of 3, and a sum."""
    for _ in range(LINKS):
        y = xp.tanh(x * w + b)
        x = x + y * 0.1
    return xp.sum(x)


def matrices(xp: Any, x: Any, w: Any, b: Any) -> Any:
    """Four operations a link, one of them a product of 4×4 matrices, and a sum."""
    for _ in range(LINKS):
        x = xp.tanh(w @ x + b) * 0.9
    return xp.sum(x)


FUNCTIONS: dict[str, Callable[..., Any]] = {"elementwise": elementwise, "matrices": matrices}
_OPERATIONS = {"elementwise": 5 * LINKS + 1, "matrices": 4 * LINKS + 1}


def inputs(name: str) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (3,) if name == "elementwise" else (4, 4)
    return [0.5 * rng.standard_normal(shape) for _ in range(3)]


def cutnn(function: str, order: int) -> Work:
    import cutnn as ct

    f = FUNCTIONS[function]
    arrays = ct.to_device(inputs(function))
    if order == 1:
        gradient = ct.grad(lambda x, w, b: f(ct, x, w, b), argnums=(0, 1, 2))
        return cutnn_work(lambda: gradient(*arrays))
    x, w, b = arrays
    slope = ct.grad(lambda x: f(ct, x, w, b))
    twice = ct.grad(lambda x: ct.sum(slope(x)))
    return cutnn_work(lambda: twice(x), lambda: [twice(x)])


def autograd(function: str, order: int) -> Work:
    import autograd
    import autograd.numpy as anp

    f = FUNCTIONS[function]
    arrays = inputs(function)
    if order == 1:
        gradient = autograd.grad(lambda x, w, b: f(anp, x, w, b), argnum=(0, 1, 2))
        return Work(lambda: gradient(*arrays), lambda: gradient(*arrays))
    x, w, b = arrays
    slope = autograd.grad(lambda x: f(anp, x, w, b))
    twice = autograd.grad(lambda x: anp.sum(slope(x)))
    return Work(lambda: twice(x), lambda: [twice(x)])


def pytorch(function: str, order: int, device: str) -> Work:
    import torch

    f = FUNCTIONS[function]
    x, w, b = (torch.tensor(a, device=device, requires_grad=True) for a in inputs(function))

    def once() -> Any:
        return torch.autograd.grad(f(torch, x, w, b), (x, w, b))

    constants = w.detach(), b.detach()

    def twice() -> Any:
        (slope,) = torch.autograd.grad(f(torch, x, *constants), x, create_graph=True)
        return torch.autograd.grad(slope.sum(), x)

    call = once if order == 1 else twice
    return torch_work(call, call, device)


CASE = Case(
    name="tape_overhead",
    title="Gradients of long chains on tiny arrays, forward plus backward, for each operation of the chain",
    sizes={
        "elementwise, 3": {"function": "elementwise", "order": 1},
        "matrices, 4×4": {"function": "matrices", "order": 1},
        "elementwise, 3, second order": {"function": "elementwise", "order": 2},
    },
    peers={
        **ours(cutnn),
        "HIPS autograd": Peer("autograd", autograd, devices=("cpu",)),
        "PyTorch": Peer("torch", pytorch),
    },
    targets={
        size: [
            Target("HIPS autograd", 4.0, "at most a quarter of HIPS autograd"),
            Target("PyTorch", 1.5, "at least 1.5× less than PyTorch"),
        ]
        for size in ("elementwise, 3", "matrices, 4×4")
    },
    operations=lambda function, order: _OPERATIONS[function],
    unit="µs",
    tolerance=1e-10,
    rounds=15,
    seconds=20,
)
