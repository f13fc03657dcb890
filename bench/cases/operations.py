"""Single operations, forward and backward: the value, and the gradients of the inputs for a given cotangent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from bench.case import Case, Cost, Peer, Work
from bench.libraries import cutnn_work, jax_on_device, jax_work, torch_compiled, torch_work
from bench.nets import dct_matrix
from bench.ours import ours
from bench.steps import compiled_peers

FACES, ROWS, CLASSES, STEP = 32, 96, 10, 0.25


def matmul(xp: Any, A: Any, B: Any) -> Any:
    return xp.matmul(A, B)


def tanh(xp: Any, x: Any) -> Any:
    return xp.tanh(x)


def bias_tanh(xp: Any, x: Any, b: Any) -> Any:
    return xp.tanh(x + b)


def leapfrog(xp: Any, z: Any, s: Any, b: Any) -> Any:
    return z - STEP * xp.tanh(s + b)


def squared_norm(xp: Any, x: Any) -> Any:
    return xp.sum(x * x)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "matmul": matmul,
    "facewise matmul": matmul,
    "tanh": tanh,
    "bias + tanh": bias_tanh,
    "leapfrog update": leapfrog,
    "squared norm": squared_norm,
}
_CHAINS = ("bias + tanh", "leapfrog update")  # what cutnn's layers write as one kernel


def shapes(operation: str, size: int) -> list[tuple[int, ...]]:
    """The shapes of the inputs: `size` is the side of matrices, the count of numbers, or the columns of a tensor."""
    state, bias = (FACES, ROWS, size), (FACES, 1, 1)
    match operation:
        case "matmul":
            return [(size, size)] * 2
        case "facewise matmul":
            return [(FACES, ROWS, ROWS), state]
        case "bias + tanh":
            return [state, bias]
        case "leapfrog update":
            return [state, state, bias]
        case "softmax cross entropy":
            return [(CLASSES, size)]
        case "transform":
            return [state]
        case _:
            return [(size,)]


def inputs(operation: str, size: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Float32 inputs, a cotangent of the value, and the labels that the cross entropy is of."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes(operation, size)]
    scalar = operation in ("squared norm", "softmax cross entropy")
    shape = () if scalar else np.matmul(*arrays).shape if "matmul" in operation else arrays[0].shape
    cotangent = np.asarray(rng.standard_normal(shape), np.float32)
    return arrays, cotangent, rng.integers(0, CLASSES, size)


def _flat(value: Any, gradients: Sequence[Any]) -> list[Any]:
    return [value, *gradients]


def cutnn(operation: str, size: int) -> Work:
    import cutnn as ct
    from cutnn import algebra, nn
    from cutnn.array.fused import fuse

    arrays, cotangent, labels = ct.to_device(inputs(operation, size))
    if operation == "transform":
        function: Callable[..., Any] = algebra.dct(FACES).forward
    elif operation == "softmax cross entropy":
        loss = nn.CrossEntropy()
        function = lambda Y: loss(Y, labels)  # noqa: E731
    else:
        function = partial(FUNCTIONS[operation], ct)
        if operation in _CHAINS:
            function = fuse(function)

    def call() -> Any:
        value, pullback = ct.vjp(function, *arrays)
        return _flat(value, pullback(cotangent))

    return cutnn_work(call)


def pytorch(operation: str, size: int, device: str, compiled: str | None = None) -> Work:
    import torch
    from torch.nn import functional

    arrays, cotangent, labels = inputs(operation, size)
    xs = [torch.tensor(a, device=device, requires_grad=True) for a in arrays]
    g, targets = torch.tensor(cotangent, device=device), torch.tensor(labels, device=device)
    M = torch.tensor(dct_matrix(FACES).astype(np.float32), device=device)
    function = {
        "transform": lambda X: (M @ X.reshape(FACES, -1)).reshape(X.shape),
        "softmax cross entropy": lambda Y: functional.cross_entropy(Y.T, targets),
    }.get(operation) or partial(FUNCTIONS[operation], torch)
    function = torch_compiled(function, compiled, device)

    def call() -> Any:
        value = function(*xs)
        return _flat(value, torch.autograd.grad(value, xs, g))

    return torch_work(call, call, device)


def jax(operation: str, size: int) -> Work:
    jax = jax_on_device()
    import jax.numpy as jnp

    arrays, cotangent, labels = jax.device_put(inputs(operation, size))
    M = jax.device_put(dct_matrix(FACES).astype(np.float32))

    def cross_entropy(Y: Any) -> Any:
        return -jax.nn.log_softmax(Y, axis=0)[labels, jnp.arange(size)].mean()

    function = {
        "transform": lambda X: (M @ X.reshape(FACES, -1)).reshape(X.shape),
        "softmax cross entropy": cross_entropy,
    }.get(operation) or partial(FUNCTIONS[operation], jnp)

    @jax.jit
    def both(arrays: Any, cotangent: Any) -> Any:
        value, pullback = jax.vjp(function, *arrays)
        return _flat(value, pullback(cotangent))

    return jax_work(lambda: both(arrays, cotangent), lambda: both(arrays, cotangent))


def autograd(operation: str, size: int) -> Work:
    import autograd.numpy as anp
    from autograd import make_vjp

    arrays, cotangent, labels = inputs(operation, size)
    M = dct_matrix(FACES).astype(np.float32)

    def cross_entropy(Y: Any) -> Any:
        Y = Y - anp.max(Y, axis=0)
        logs = Y - anp.log(anp.sum(anp.exp(Y), axis=0))
        return -anp.mean(logs[labels, np.arange(size)])

    function = {
        "transform": lambda X: anp.reshape(M @ anp.reshape(X, (FACES, -1)), X.shape),
        "softmax cross entropy": cross_entropy,
    }.get(operation) or partial(FUNCTIONS[operation], anp)
    prepare = make_vjp(lambda arrays: function(*arrays))

    def call() -> Any:
        pullback, value = prepare(tuple(arrays))
        return _flat(value, pullback(cotangent))

    return Work(call, call)


def cost(operation: str, size: int) -> Cost:
    """Flops of the matrix products; bytes of inputs and their gradients, of the value and its cotangent."""
    arrays = [int(np.prod(shape)) for shape in shapes(operation, size)]
    value = {"matmul": size**2, "facewise matmul": arrays[-1], "squared norm": 1}.get(operation, arrays[0])
    flops = {
        "matmul": 6 * size**3,
        "facewise matmul": 6 * FACES * ROWS**2 * size,
        "transform": 4 * FACES * arrays[0],
    }
    return Cost(
        flops.get(operation, 0), 8 * (sum(arrays) + (1 if operation == "softmax cross entropy" else value))
    )


_SIZES: dict[str, tuple[tuple[int, ...], str]] = {
    "matmul": ((96, 512), "{0}×{0} by {0}×{0}"),
    "facewise matmul": ((32, 256), f"{FACES} faces, {ROWS}×{ROWS} by {ROWS}×{{}}"),
    "transform": ((32, 256), f"DCT of {FACES}×{ROWS}×{{}}"),
    "tanh": ((1000, 1_000_000), "{:,} numbers"),
    "bias + tanh": ((32, 256, 2048), f"{FACES}×{ROWS}×{{}}"),
    "leapfrog update": ((32, 256), f"{FACES}×{ROWS}×{{}}"),
    "softmax cross entropy": ((32, 10_000), f"{CLASSES} classes, {{:,}} samples"),
    "squared norm": ((1_000_000,), "{:,} numbers"),
}


def _label(operation: str, size: int) -> str:
    return f"{operation}, {_SIZES[operation][1].format(size)}"


CASE = Case(
    name="operations",
    title="Single operations in float32, forward and backward",
    sizes={
        _label(operation, size): {"operation": operation, "size": size}
        for operation, (sizes, _) in _SIZES.items()
        for size in sizes
    },
    peers={
        **ours(cutnn),
        "PyTorch": Peer("torch", pytorch),
        **compiled_peers(pytorch, (_label("bias + tanh", 32), _label("leapfrog update", 256))),
        "JAX jit": Peer("jax", jax),
        "HIPS autograd": Peer("autograd", autograd, devices=("cpu",)),
    },
    cost=cost,
    growth={"size": [_label("bias + tanh", size) for size in _SIZES["bias + tanh"][0]]},
    unit="µs",
    rounds=11,
    quick_sizes=3,
    seconds=30,
)
