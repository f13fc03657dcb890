"""Captured steps: the replay is the plain step to the same bits; what cannot be repeated is said."""

from __future__ import annotations

import threading

import hypothesis
import numpy as np
import optree
import pytest
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra, nn, optim
from cutnn.device import record_call, recording
from cutnn.recording import CaptureError, _program

DTYPES = ["float32", "float64", "complex64", "complex128"]


def leaves(tree):
    return optree.tree_leaves(tree, namespace="cutnn")


def same(a, b):
    """Equal in type, structure and every bit."""
    a, b = leaves(a), leaves(b)
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert type(x) is type(y)
        if isinstance(x, (np.ndarray, np.generic)):
            assert x.dtype == y.dtype and x.shape == y.shape
            assert x.tobytes() == y.tobytes()
        else:
            assert x == y


def random(rng, shape, dtype):
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


# ------------------------------------------------------------------------------------------------ small programs

PIECES = {
    "add": lambda x, y: x + y,
    "subtract from a number": lambda x, y: 1 - x,
    "product": lambda x, y: x * y,
    "quotient": lambda x, y: x / (2 + ct.abs(y)),
    "square": lambda x, y: x**2,
    "root": lambda x, y: ct.abs(x) ** 0.5,
    "cube": lambda x, y: x**3,
    "tanh": lambda x, y: ct.tanh(x),
    "exp": lambda x, y: ct.exp(-ct.abs(x)),
    "matmul": lambda x, y: x @ y.mT @ x,
    "transposed": lambda x, y: (x.mT @ y) @ x.mT if x.shape[0] == x.shape[1] else x,
    "sum": lambda x, y: x - ct.sum(x, axis=0, keepdims=True),
    "mean": lambda x, y: x * ct.mean(y),
    "var": lambda x, y: x + ct.var(y, axis=1, keepdims=True),
    "max": lambda x, y: x - ct.max(ct.abs(x)),
    "where": lambda x, y: ct.where(ct.abs(x) > ct.abs(y), x, y),
    "flip": lambda x, y: ct.flip(x, axis=0),
    "roll": lambda x, y: ct.roll(x, 1, axis=1),
    "concat": lambda x, y: ct.concat([x[1:], y[:1]], axis=0),
    "stack": lambda x, y: ct.sum(ct.stack([x, y]), axis=0),
    "take": lambda x, y: ct.take(x, ct.asarray([0] * x.shape[0]), axis=0),
    "slice": lambda x, y: ct.concat([x[:, ::2], x[:, 1::2]], axis=1),
    "at_add": lambda x, y: ct.at_add(x, (slice(None), 0), y[:, 0]),
    "cumulative": lambda x, y: ct.cumulative_sum(x, axis=1),
    "sort": lambda x, y: ct.sort(ct.abs(x), axis=1) + 0 * x,
    "solve": lambda x, y: ct.linalg.solve(x @ ct.conj(x.mT) + 9 * ct.eye(x.shape[0], dtype=x.dtype), y),
    "qr": lambda x, y: ct.linalg.qr(x)[0] @ ct.linalg.qr(x)[1],
    "svdvals": lambda x, y: x * ct.sum(ct.linalg.svdvals(y)),
    "fft": lambda x, y: x * ct.abs(ct.fft.fft(ct.astype(y, ct.complex64 if _single(y) else ct.complex128), axis=0)),
    "expm": lambda x, y: ct.linalg.expm(x @ ct.conj(x.mT) / 9) @ y,
    "reshape": lambda x, y: ct.reshape(ct.reshape(x.mT, (-1,)), x.shape),
    "einsum": lambda x, y: ct.einsum("ij,kj->ik", x, y) @ x,
    "softmax": lambda x, y: ct.softmax(ct.abs(x), axis=0) * y,
    "numpy": lambda x, y: np.add(np.multiply(x, 2.5), np.linalg.norm(abs(y)) if hasattr(y, "dtype") else 0),
}


def _single(x):
    return x.dtype in (np.dtype("f4"), np.dtype("c8"))


@hypothesis.given(
    names=st.lists(st.sampled_from(sorted(set(PIECES) - {"numpy"})), min_size=1, max_size=6),
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_programs_and_their_gradients_replay_to_the_same_bits(names, rows, columns, dtype, seed):
    rng = np.random.default_rng(seed)

    def f(x, y):
        z = x
        for name in names:
            z = PIECES[name](z, y)
            z = z / (1 + ct.max(ct.stop_gradient(ct.abs(z))))
        return z

    def step(x, y):
        loss, gradient = ct.value_and_grad(lambda x: ct.sum(ct.abs(f(x, y)) ** 2))(x)
        return {"value": f(x, y), "loss": loss, "gradient": gradient}

    if not {"qr"}.isdisjoint(names) and rows < columns:
        rows, columns = columns, rows
    run = ct.capture(step, check=False)
    for _ in range(3):
        x, y = random(rng, (rows, columns), dtype), random(rng, (rows, columns), dtype)
        with np.errstate(all="ignore"):
            try:
                expected = step(x, y)
            except (ct.NotDifferentiableError, np.linalg.LinAlgError, ValueError, TypeError):
                hypothesis.reject()
            same(run(x, y), expected)
    assert len(run.recordings) == 1
