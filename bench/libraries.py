"""What each library needs around a piece of work: compiling, waiting for the device, and the way back to the host."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.case import Unavailable, Work


def cutnn_work(call: Callable[[], Any], answer: Callable[[], Sequence[Any]] | None = None) -> Work:
    """Work of cutnn on its default device, that of CUTNN_DEVICE; the answer, the arrays of a call unless given."""
    import cutnn as ct

    return Work(call, lambda: ct.to_host(list((answer or call)())), wait=lambda result: ct.synchronize())


def captured(step: Callable[..., Any]) -> Callable[..., Any]:
    """The step recorded by `ct.capture`."""
    import cutnn as ct

    if not hasattr(ct, "capture"):
        raise Unavailable("this cutnn has no ct.capture")
    run: Callable[..., Any] = ct.capture(step)
    return run


# -------------------------------------------------------------------------------------------------- PyTorch


def torch_work(call: Callable[[], Any], answer: Callable[[], Sequence[Any]], device: str) -> Work:
    """Work of PyTorch on a device; the answer, tensors there."""
    import torch

    wait = (lambda result: torch.cuda.synchronize()) if device.startswith("cuda") else (lambda result: None)
    return Work(call, lambda: [torch_host(tensor) for tensor in answer()], wait=wait)


def torch_host(tensor: Any) -> np.ndarray:
    host: np.ndarray = tensor.detach().cpu().numpy()
    return host


def torch_compiled(function: Callable[..., Any], mode: str | None, device: str) -> Callable[..., Any]:
    """The function by `torch.compile` for shapes that don't change; as it is where the mode is None.

    Raises Unavailable where what it compiles with is missing.
    """
    import torch

    if mode is None:
        return function
    if device == "cpu" and not shutil.which(os.environ.get("CXX", "g++")) and not shutil.which("clang++"):
        raise Unavailable("torch.compile needs a C++ compiler, g++ or clang++, and there is none")
    if device.startswith("cuda") and importlib.util.find_spec("triton") is None:
        raise Unavailable("torch.compile needs Triton on a GPU, and it is not installed")
    torch._dynamo.reset()  # sizes that were measured before don't make this one dynamic
    compiled: Callable[..., Any] = torch.compile(function, mode=mode, dynamic=False)
    return compiled


# ------------------------------------------------------------------------------------------------------ JAX


def jax_on_device() -> Any:
    """The module jax, at the precision of the others; Unavailable where it lacks the platform of JAX_PLATFORMS."""
    import jax

    jax.config.update("jax_default_matmul_precision", "highest")  # else a GPU multiplies float32 in TF32
    try:
        jax.devices()
    except RuntimeError as error:
        raise Unavailable(f"JAX cannot run here: {str(error).splitlines()[0]}") from None
    return jax


def jax_work(call: Callable[[], Any], answer: Callable[[], Sequence[Any]]) -> Work:
    """Work of JAX, which returns before it is done, on a CPU too."""
    import jax

    return Work(call, lambda: [np.asarray(a) for a in answer()], wait=jax.block_until_ready)
