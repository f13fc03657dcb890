"""PyTorch as an oracle: an independent tape with the same convention for complex gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cutnn as ct


def compare(f: Callable[..., Any], torch_f: Callable[..., Any], *args: Any, rtol: float = 1e-8) -> None:
    """Assert that gradients and second derivatives of f agree with PyTorch's, in a random direction."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(7)

    def draw(shape: Any, dtype: Any) -> Any:
        z = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
        return np.asarray(z.astype(dtype) if np.dtype(dtype).kind == "c" else z.real.astype(dtype))

    value = np.asarray(f(*args))
    weights = draw(value.shape, value.dtype)
    directions = [draw(a.shape, a.dtype) for a in args]

    def loss(*xs: Any) -> Any:  # not linear in f, so that second derivatives of a linear f are seen
        projected = ct.sum(ct.real(f(*xs) * np.conj(weights)))
        return projected + projected**2 / 2

    def slope(*xs: Any) -> Any:
        gradients = ct.grad(loss, argnums=tuple(range(len(xs))))(*xs)
        return sum(ct.sum(ct.real(g * np.conj(v))) for g, v in zip(gradients, directions, strict=True))

    def real_sum(x: Any, w: Any) -> Any:
        return torch.sum(torch.real(x * torch.tensor(np.conj(w))))

    leaves = [torch.tensor(a, requires_grad=True) for a in args]
    torch_value = torch_f(*leaves)
    np.testing.assert_allclose(value, _numpy(torch_value), rtol=rtol, atol=rtol * _size(value))
    projected = real_sum(torch_value, weights)
    torch_first = torch.autograd.grad(projected + projected**2 / 2, leaves, create_graph=True)
    total = sum(real_sum(g, v) for g, v in zip(torch_first, directions, strict=True))
    torch_second = torch.autograd.grad(total, leaves)

    argnums = tuple(range(len(args)))
    for order, g, expected in (
        ("first", ct.grad(loss, argnums)(*args), torch_first),
        ("second", ct.grad(slope, argnums)(*args), torch_second),
    ):
        for ours, theirs, a in zip(g, expected, args, strict=True):
            assert (ours.dtype, ours.shape) == (a.dtype, a.shape)
            theirs = _numpy(theirs)
            np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * _size(theirs), err_msg=order)


def _numpy(x: Any) -> Any:
    return x.detach().resolve_conj().numpy()


def _size(x: Any) -> float:
    return float(np.max(np.abs(x), initial=0.0))
