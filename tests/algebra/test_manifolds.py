"""Laws of the manifold of matrices with orthonormal columns: tangents, and retractions to first order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutnn.algebra.manifolds import STIEFEL
from tests.algebra.catalogue import draw, near

DTYPES = st.sampled_from([np.float32, np.float64, np.complex64, np.complex128])
SIZES = st.tuples(st.integers(1, 6), st.integers(1, 6)).map(lambda p: (max(p), min(p)))
BATCHES = st.sampled_from([(), (3,)])


def point(shape: Any, dtype: Any, seed: int = 0) -> Any:
    return STIEFEL.retract(0 * draw(shape, dtype), draw(shape, dtype, seed))


def adjoint(Q: Any) -> Any:
    return Q.conj().mT


@given(size=SIZES, batch=BATCHES, dtype=DTYPES, length=st.sampled_from([0.0, 1e-3, 1.0, 1e3]))
def test_a_retraction_stays_on_the_manifold(size: Any, batch: Any, dtype: Any, length: float) -> None:
    Q = point((*batch, *size), dtype)
    moved = STIEFEL.retract(Q, dtype(length) * STIEFEL.project(Q, draw(Q.shape, dtype, 1)))
    assert moved.dtype == dtype
    assert STIEFEL.distance(moved) < 20 * np.finfo(dtype).eps


@given(size=SIZES, batch=BATCHES, dtype=DTYPES)
def test_a_retraction_of_zero_is_the_point(size: Any, batch: Any, dtype: Any) -> None:
    Q = point((*batch, *size), dtype)
    near(STIEFEL.retract(Q, 0 * Q), Q)


@given(size=SIZES, dtype=st.sampled_from([np.float64, np.complex128]), seed=st.integers(0, 50))
def test_a_retraction_follows_the_tangent_to_first_order(size: Any, dtype: Any, seed: int) -> None:
    Q = point(size, dtype, seed)
    V = STIEFEL.project(Q, draw(size, dtype, seed + 1))
    h = 1e-5
    slope = (STIEFEL.retract(Q, h * V) - STIEFEL.retract(Q, -h * V)) / (2 * h)
    np.testing.assert_allclose(slope, V, atol=1e-8 * (1 + np.abs(V).max() ** 3))


@given(size=SIZES, batch=BATCHES, dtype=DTYPES, seed=st.integers(0, 50))
def test_a_projection_is_tangent_keeps_tangents_and_leaves_a_normal_rest(
    size: Any, batch: Any, dtype: Any, seed: int
) -> None:
    Q, G, W = (draw((*batch, *size), dtype, seed + k) for k in range(3))
    Q = point(Q.shape, dtype, seed)
    V, W = STIEFEL.project(Q, G), STIEFEL.project(Q, W)
    inner = adjoint(Q) @ V
    near(inner + adjoint(inner), 0 * inner)
    near(STIEFEL.project(Q, V), V)
    normal = np.sum((G - V).conj() * W, axis=(-2, -1)).real
    near(normal, 0 * normal)


@given(n=st.integers(1, 6), seed=st.integers(0, 50))
def test_the_square_tangents_are_q_times_skew(n: int, seed: int) -> None:
    Q, G = point((n, n), np.float64, seed), draw((n, n), seed=seed + 1)
    inner = Q.T @ G
    near(STIEFEL.project(Q, G), Q @ (inner - inner.T) / 2)


def test_random_points_are_the_same_by_seed_and_uniform_in_sign() -> None:
    assert STIEFEL.random(5, 2, seed=0).shape == (5, 2)
    np.testing.assert_array_equal(STIEFEL.random(3, seed=4), STIEFEL.random(3, seed=4))
    with pytest.raises(ValueError, match=r"3 x 4; orthonormal columns are 1 to n = 3"):
        STIEFEL.random(3, 4)
    rng = np.random.default_rng(0)
    mean = np.mean([STIEFEL.random(3, seed=rng) for _ in range(2000)], axis=0)
    assert np.abs(mean).max() < 0.06


@pytest.mark.parametrize("shape", [(3, 3), (4, 2)])
def test_on_another_library(pretend_device: Any, shape: Any) -> None:
    Q, V = point(shape, np.float64), draw(shape, seed=3)
    there = [pretend_device.asarray(x) for x in (Q, V)]
    near(STIEFEL.project(*there).get(), STIEFEL.project(Q, V))
    near(STIEFEL.retract(*there).get(), STIEFEL.retract(Q, V))
