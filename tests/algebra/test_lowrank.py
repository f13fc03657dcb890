"""Low tubal rank: proximal operators by their definition, recovery, optimality of what is reached, bad input."""

from __future__ import annotations

import os
import signal
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra
from cutnn.algebra import _admm, lowrank
from cutnn.device import namespace
from tests.algebra.catalogue import ALGEBRAS, UNITARY, draw, kron, near
from tests.gradcheck import check

few = settings(max_examples=settings().max_examples // 4)  # there are many algebras
OTHER = [name for name in ALGEBRAS if name not in UNITARY]
KINDS = [np.float32, np.float64, np.complex64, np.complex128]
every_unitary = pytest.mark.parametrize("name", UNITARY)
SOLVERS = ("robust_pca", "complete", "recover")


def scale(star: algebra.StarAlgebra) -> float:
    """ℓ of MᴴM = ℓ I, from the matrix."""
    return float(np.linalg.norm(kron(star)[:, 0]) ** 2)


def spectrum(star: algebra.StarAlgebra, A: Any) -> Any:
    """The faces of the transform, by the matrix alone."""
    lead = A.shape[: A.ndim - 2 - len(star.shape)]
    faces = A.reshape(*lead, star.n, -1)
    return (kron(star) @ faces).reshape(*lead, star.n, *A.shape[-2:])


def nuclear(star: algebra.StarAlgebra, A: Any) -> float:
    return float(np.linalg.svd(spectrum(star, A), compute_uv=False).sum() / scale(star))


def low(star: algebra.StarAlgebra, rows: int, columns: int, rank: int, **options: Any) -> Any:
    A = star(star.random(rows, rank, seed=1, **options), star.random(rank, columns, seed=2, **options))
    return A.astype(options.get("dtype", A.dtype)) if star.real_products else A


def spoiled(A: Any, share: float, size: float = 5.0, seed: int = 3) -> Any:
    rng = np.random.default_rng(seed)
    hit = rng.random(A.shape) < share
    return np.where(hit, A + size * rng.choice([-1.0, 1.0], A.shape), A).astype(A.dtype)


def seen_of(A: Any, share: float, seed: int = 4) -> Any:
    return np.random.default_rng(seed).random(A.shape) < share


def error(L: Any, A: Any) -> float:
    return float(np.linalg.norm(L - A) / np.linalg.norm(A))


def solve(kind: str, star: algebra.StarAlgebra, A: Any, **options: Any) -> lowrank.LowRankResult:
    """One of the three problems, made of a tensor of low tubal rank."""
    if kind == "robust_pca":
        return lowrank.robust_pca(star, spoiled(A, 0.05), **options)
    if kind == "complete":
        return lowrank.complete(star, A, seen_of(A, 0.6), **options)
    seen = seen_of(A, 0.6)
    return lowrank.recover(
        star, A[seen], lambda X: X[seen], lambda y: scattered(y, seen), shape=A.shape, **options
    )


def scattered(y: Any, seen: Any) -> Any:
    X = np.zeros(seen.shape, y.dtype)
    X[seen] = y
    return X


# ------------------------------------------------------------------------------------- proximal operators


def subgradient_of_the_sum(Z: Any, G: Any, tau: float) -> None:
    """G lies in tau · ∂‖Z‖₁."""
    size = np.abs(Z)
    near(G, np.where(size > 0, tau * Z / np.where(size > 0, size, 1), G))
    assert np.all(np.abs(G) <= tau * (1 + 100 * np.finfo(Z.dtype).eps))


@given(seed=st.integers(0, 2**20), tau=st.sampled_from([0.0, 0.5, 1.0, 10.0]), dtype=st.sampled_from(KINDS))
@few
def test_the_soft_threshold_minimises_its_problem(seed: int, tau: float, dtype: Any) -> None:
    X = draw((3, 4), dtype, seed)
    Z = lowrank.soft_threshold(X, tau)
    assert Z.dtype == X.dtype
    subgradient_of_the_sum(Z, X - Z, tau)


@every_unitary
@few
@given(seed=st.integers(0, 2**20), tau=st.sampled_from([0.0, 1.0, 2.0]), dtype=st.sampled_from(KINDS))
def test_shrunk_tubes_minimise_their_problem(name: str, seed: int, tau: float, dtype: Any) -> None:
    star = ALGEBRAS[name]
    X = star.random(3, 4, (2,), seed, dtype)
    Z = lowrank.shrink_tubes(star, X, tau)
    assert Z.dtype == X.dtype and Z.shape == X.shape
    tubes, differences = (T.reshape(2, star.n, 12).swapaxes(1, 2) for T in (Z, X - Z))
    for z, g in zip(tubes.reshape(24, -1), differences.reshape(24, -1), strict=True):
        length, slack = np.linalg.norm(z), 100 * np.finfo(dtype).eps * (1 + tau)
        if length > 0:
            np.testing.assert_allclose(g, tau * z / length, rtol=0, atol=slack)
        assert np.linalg.norm(g) <= tau + slack


def dual_ball(star: algebra.StarAlgebra, operator: str, X: Any, tau: float) -> Any:
    """The projection onto the ball of radius tau of the dual norm, by its own formula."""
    if operator == "soft_threshold":
        return X / np.maximum(np.abs(X) / tau, 1)
    if operator == "shrink_tubes":
        axes = tuple(range(-2 - len(star.shape), -2))
        return X / np.maximum(np.sqrt(np.sum(np.abs(X) ** 2, axis=axes, keepdims=True)) / tau, 1)
    U, s, Vh = np.linalg.svd(spectrum(star, X), full_matrices=False)
    M = kron(star)
    faces = ((U * np.minimum(s, tau)[..., None, :]) @ Vh).reshape(star.n, -1)
    back = (np.linalg.inv(M) @ faces).reshape(X.shape)
    return back if X.dtype.kind == "c" else back.real


def proximal(star: algebra.StarAlgebra, operator: str, X: Any, tau: Any) -> Any:
    if operator == "soft_threshold":
        return lowrank.soft_threshold(X, tau)
    if operator == "shrink_tubes":
        return lowrank.shrink_tubes(star, X, tau)
    return star.singular_value_threshold(X, tau)


OPERATORS = ["soft_threshold", "shrink_tubes", "singular_value_threshold"]


@every_unitary
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_moreaus_identity(name: str, operator: str, dtype: Any) -> None:
    star = ALGEBRAS[name]
    if dtype == np.float64 and not star.real_products:
        dtype = np.complex128
    X = star.random(3, 4, seed=0, dtype=dtype)
    for tau in (0.3, 1.5):
        near(proximal(star, operator, X, tau) + dual_ball(star, operator, X, tau), X, 2000)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 3, fft 4", "plain", "complex from data 3"])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_proximal_operators_have_gradients(operator: str, name: str, dtype: Any) -> None:
    star = ALGEBRAS[name]
    X = star.random(3, 2, seed=5, dtype=dtype if star.real_products else np.complex128)
    check(lambda X: proximal(star, operator, X, 0.7), X, rtol=1e-5)


@pytest.mark.parametrize("operator", ["soft_threshold", "shrink_tubes"])
def test_gradients_by_tau_and_of_small_entries(operator: str) -> None:
    star = algebra.dct(3)
    X = star.random(2, 2, seed=0)
    check(lambda X, tau: proximal(star, operator, X, tau), X, np.asarray(0.3))
    zero = ct.grad(lambda X: ct.sum(proximal(star, operator, X, 1.0) ** 2))(0 * X)
    assert np.array_equal(zero, 0 * X)


@pytest.mark.parametrize("tau", [-1.0, float("nan")])
def test_thresholds_are_not_negative(tau: float) -> None:
    with pytest.raises(ValueError, match="tau is"):
        lowrank.soft_threshold(np.ones(3), tau)
    with pytest.raises(ValueError, match="tau is"):
        lowrank.shrink_tubes(algebra.dct(3), np.ones((3, 2, 2)), tau)


# ------------------------------------------------------------------------------------------------- recovery


@every_unitary
@pytest.mark.parametrize("kind", SOLVERS[:2])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_a_tensor_of_low_tubal_rank_comes_back_in_every_algebra(name: str, kind: str, dtype: Any) -> None:
    star = ALGEBRAS[name]
    if dtype == np.float64 and not star.real_products:
        pytest.skip("products of real tensors are complex here")
    A = low(star, 36, 30, 1, dtype=dtype)
    result = solve(kind, star, A)
    assert result.converged and result.low_rank.dtype == dtype
    assert error(result.low_rank, A) < 1e-5
    assert result.history["tubal_rank"][-1] == 1


@pytest.mark.parametrize("star", [algebra.dct(8), algebra.fft(9)], ids=str)
@pytest.mark.parametrize("rank", [1, 3])
def test_cells_well_inside_the_region_of_recovery(star: algebra.StarAlgebra, rank: int) -> None:
    A = low(star, 36, 36, rank)
    X = spoiled(A, 0.1)
    result = lowrank.robust_pca(star, X)
    assert error(result.low_rank, A) < 1e-5 and error(result.sparse, X - A) < 1e-5
    assert error(lowrank.complete(star, A, seen_of(A, 0.5)).low_rank, A) < 1e-5


@pytest.mark.parametrize("kind", SOLVERS[:2])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_single_precision_stays_and_suffices(kind: str, dtype: Any) -> None:
    A = low(algebra.fft(6), 30, 30, 1, dtype=dtype)
    result = solve(kind, algebra.fft(6), A)
    assert result.converged and result.low_rank.dtype == dtype == result.multiplier.dtype
    assert error(result.low_rank, A) < 1e-4


def test_corrupted_tubes_are_found_by_their_norm() -> None:
    star, rng = algebra.dct(8), np.random.default_rng(0)
    A = low(star, 30, 30, 2)
    X = A + 5 * (rng.random((1, 30, 30)) < 0.1) * rng.standard_normal(A.shape)
    result = lowrank.robust_pca(star, X, sparse="tubes")
    assert error(result.low_rank, A) < 1e-5
    lengths = np.linalg.norm(result.sparse, axis=0)
    assert np.array_equal(lengths > 1e-3, np.linalg.norm(X - A, axis=0) > 0)


@pytest.mark.parametrize("sparse", ["entries", "tubes"])
def test_a_mask_leaves_corrupted_entries_among_the_seen_ones(sparse: Any) -> None:
    star = algebra.dct(6)
    A = low(star, 40, 40, 1)
    seen = seen_of(A, 0.7)
    X = np.where(seen, spoiled(A, 0.03), np.nan)
    result = lowrank.robust_pca(star, X, mask=seen, sparse=sparse)
    assert result.converged and not result.sparse[~seen].any()
    near((result.low_rank + result.sparse)[seen], X[seen], 1e10)
    if sparse == "entries":
        assert error(result.low_rank, A) < 1e-5


def test_a_mask_that_is_true_changes_nothing() -> None:
    star, X = algebra.fft(4), spoiled(low(algebra.fft(4), 20, 20, 1), 0.05)
    with_mask = lowrank.robust_pca(star, X, mask=np.ones((20, 20), dtype=bool))
    assert np.array_equal(with_mask.sparse, lowrank.robust_pca(star, X).sparse)


@pytest.mark.parametrize("how", ["matrix", "functions"])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_linear_measurements_determine_a_tensor_of_low_tubal_rank(how: str, dtype: Any) -> None:
    star = algebra.dct(3)
    A = low(star, 7, 7, 1, dtype=dtype)
    Phi = draw((110, A.size), dtype, seed=7)
    y = Phi @ A.ravel()
    road: Any = (Phi,)
    if how == "functions":
        road = (lambda X: Phi @ X.ravel(), lambda y: (Phi.conj().T @ y).reshape(A.shape))
    result = lowrank.recover(star, y, *road, shape=A.shape)
    assert result.converged and result.sparse is None and result.low_rank.dtype == dtype
    assert error(result.low_rank, A) < 1e-5


def test_real_tensors_from_complex_measurements() -> None:
    star = algebra.dct(3)
    A = low(star, 8, 8, 1)
    Phi = draw((70, A.size), np.complex128, seed=7) / 10
    y = Phi @ A.ravel()
    by_matrix = lowrank.recover(star, y, Phi, shape=A.shape, dtype=float)
    functions = (lambda X: Phi @ X.ravel(), lambda y: (Phi.conj().T @ y).reshape(A.shape))
    by_functions = lowrank.recover(star, y, *functions, shape=A.shape, dtype=float)
    for result in (by_matrix, by_functions):
        assert result.low_rank.dtype == np.float64
        assert error(result.low_rank, A) < 1e-5


def test_completion_is_recovery_from_samples() -> None:
    star = algebra.fft(5)
    A = low(star, 20, 20, 1)
    assert error(solve("recover", star, A).low_rank, solve("complete", star, A).low_rank) < 1e-6


def test_redundant_measurements_do_no_harm() -> None:
    star = algebra.dct(3)
    A = low(star, 8, 8, 1)
    Phi = draw((140, A.size), seed=7)
    twice = np.concatenate([Phi, 2 * Phi])
    result = lowrank.recover(star, twice @ A.ravel(), twice, shape=A.shape)
    assert error(result.low_rank, A) < 1e-5


# ------------------------------------------------------------------------------------------- what is reached


def in_subdifferential(star: algebra.StarAlgebra, L: Any, Y: Any, slack: float = 2e-5) -> None:
    """Y lies in ∂‖L‖_*, up to `slack`: its faces have norms ≤ 1, and ⟨Y, L⟩ is ‖L‖_* (the dual norm is attained)."""
    assert np.linalg.svd(spectrum(star, Y), compute_uv=False).max() < 1 + slack
    assert abs(np.vdot(Y, L).real - nuclear(star, L)) < slack * nuclear(star, L)


@every_unitary
def test_robust_pca_reaches_the_minimum_of_any_tensor(name: str) -> None:
    """Optimality, of a tensor that is no sum of the two: Y in ∂‖L‖_* and in weight · ∂‖E‖₁, L + E = X."""
    star = ALGEBRAS[name]
    X = star.random(5, 4, seed=0, dtype=None if star.real_products else np.complex128)
    weight = 0.8 / np.sqrt(5 * scale(star))
    result = lowrank.robust_pca(star, X, weight=weight, max_iterations=3000, tolerance=1e-6)
    assert result.converged
    L, E, Y = result.low_rank, result.sparse, result.multiplier
    assert error(L + E, X) < 2e-6
    in_subdifferential(star, L, Y)
    assert np.abs(Y).max() < weight * (1 + 1e-5)
    assert abs(np.vdot(Y, E).real - weight * np.abs(E).sum()) < 1e-5 * weight * np.abs(E).sum() + 1e-12
    objective = nuclear(star, L) + weight * np.abs(E).sum()
    np.testing.assert_allclose(result.history["objective"][-1], objective, rtol=1e-6)


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 3, fft 4", "plain"])
@pytest.mark.parametrize("sparse", ["entries", "tubes"])
def test_the_default_weight_suits_every_transform(name: str, sparse: Any) -> None:
    """Of random signs where X is known (tubes of length 1), times the weight, the dual norm of ‖.‖_* is about 2.

    It is that of matrices of independent entries of variance 1/max(l, m), (√l + √m) / √max(l, m), in every algebra.
    """
    star, size = ALGEBRAS[name], 60
    tubes = tuple(range(len(star.shape)))
    rng = np.random.default_rng(0)
    known = rng.random((size, size)) < 0.5
    X = low(star, size, size, 1)
    result = lowrank.robust_pca(star, X, sparse=sparse, mask=known, callback=lambda state: True)
    by_tubes = sparse == "tubes" and star.shape
    E = np.sqrt(np.sum(result.sparse**2, axis=tubes)) if by_tubes else np.abs(result.sparse)
    weight = (result.history["objective"][0] - nuclear(star, result.low_rank)) / E.sum()
    signs = rng.standard_normal(X.shape)
    signs /= np.sqrt(np.sum(signs**2, axis=tubes)) if by_tubes else np.abs(signs)
    norm = np.linalg.svd(spectrum(star, weight * signs * known), compute_uv=False).max()
    assert 1.7 < norm < 2.2


@every_unitary
def test_completion_reaches_the_minimum(name: str) -> None:
    star = ALGEBRAS[name]
    X = star.random(5, 4, seed=0, dtype=None if star.real_products else np.complex128)
    seen = seen_of(X, 0.6)
    result = lowrank.complete(star, X, seen, max_iterations=3000, tolerance=1e-5)
    assert result.converged and result.sparse is None
    assert np.abs((result.low_rank - X)[seen]).max() < 1e-4
    in_subdifferential(star, result.low_rank, result.multiplier, 2e-4)
    assert np.abs(result.multiplier[~seen]).max() < 1e-4


def test_noise_is_used_up_and_the_fit_is_the_least() -> None:
    star = algebra.dct(4)
    X = star.random(8, 7, (2,), seed=0)
    seen = seen_of(X, 0.7)
    result = lowrank.complete(star, X, seen, noise=2.0, max_iterations=2000)
    L, Y = result.low_rank, result.multiplier
    missed = np.where(seen, L - X, 0)
    np.testing.assert_allclose(star.norm(missed), 2.0, rtol=1e-5)
    for k in range(2):  # Y is a multiple of the misfit, as the constraint's normal
        in_subdifferential(star, L[k], Y[k])
        np.testing.assert_allclose(Y[k] / star.norm(Y[k]), -missed[k] / 2, atol=1e-5)


@pytest.mark.parametrize("how", ["matrix", "functions"])
def test_noisy_measurements_are_met_up_to_the_noise(how: str) -> None:
    star = algebra.dct(3)
    A = low(star, 5, 5, 1)
    Phi = draw((60, A.size), seed=7)
    y = Phi @ A.ravel() + 0.1 * draw((60,), seed=8)
    road: Any = (Phi,)
    if how == "functions":
        road = (lambda X: Phi @ X.ravel(), lambda y: (Phi.T @ y).reshape(A.shape))
    result = lowrank.recover(star, y, *road, shape=A.shape, noise=0.8, tolerance=1e-6)
    missed = Phi @ result.low_rank.ravel() - y
    np.testing.assert_allclose(np.linalg.norm(missed), 0.8, rtol=1e-4)
    in_subdifferential(star, result.low_rank, result.multiplier)
    normal = -(Phi.T @ missed).reshape(A.shape)
    np.testing.assert_allclose(
        result.multiplier / star.norm(result.multiplier), normal / star.norm(normal), atol=1e-4
    )


def test_noise_that_allows_zero_gives_zero() -> None:
    star, X = algebra.dct(3), np.ones((3, 2, 2))
    assert not lowrank.complete(star, X, X > 0, noise=10).low_rank.any()
    assert not lowrank.recover(star, X.ravel(), np.eye(12), shape=X.shape, noise=10).low_rank.any()


@pytest.mark.parametrize("kind", SOLVERS)
def test_zero_is_its_own_solution(kind: str) -> None:
    star = algebra.fft(3)
    zero = star.zeros(4, 3)
    if kind == "robust_pca":
        result = lowrank.robust_pca(star, zero)
    elif kind == "complete":
        result = lowrank.complete(star, zero, seen_of(zero, 0.5))
    else:
        result = lowrank.recover(star, np.zeros(3), np.eye(36)[:3], shape=zero.shape)
    assert result.converged and result.iterations == 1
    assert not result.low_rank.any()


@pytest.mark.parametrize("factor", [1e-30, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_units_of_the_data_do_not_matter(factor: float, dtype: Any) -> None:
    star = algebra.dct(4)
    X = spoiled(low(star, 12, 12, 1, dtype=dtype), 0.05)
    one, other = lowrank.robust_pca(star, X), lowrank.robust_pca(star, X * dtype(factor))
    assert one.iterations == other.iterations
    near(other.low_rank / dtype(factor), one.low_rank, 1e4)


def test_tensors_of_a_batch_are_problems_of_their_own() -> None:
    star = algebra.dct(4)
    X = spoiled(low(star, 20, 20, 1, batch=(2, 2)), 0.05) * np.array([1, 1e6, 1e-6, 1]).reshape(2, 2, 1, 1, 1)
    together = lowrank.robust_pca(star, X)
    for k in np.ndindex(2, 2):
        alone = lowrank.robust_pca(star, X[k])
        assert error(together.low_rank[k], alone.low_rank) < 1e-5


def test_order_in_memory_and_integers_do_not_matter() -> None:
    star = algebra.fft(4)
    X = np.round(spoiled(low(star, 12, 12, 1), 0.05)).astype(int)
    one = lowrank.robust_pca(star, X, tolerance=1e-4).low_rank
    near(lowrank.robust_pca(star, np.asfortranarray(X.astype(float)), tolerance=1e-4).low_rank, one, 1e5)


def test_what_is_not_seen_may_be_anything() -> None:
    star = algebra.dct(4)
    A = low(star, 12, 12, 1)
    seen = seen_of(A, 0.6)
    clean = lowrank.complete(star, np.where(seen, A, 0), seen)
    spoilt = lowrank.complete(star, np.where(seen, A, np.where(A > 0, np.nan, np.inf)), seen)
    assert np.array_equal(clean.low_rank, spoilt.low_rank)


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 5", "complex from data 3", "plain"])
@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (3, 6)])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_both_roads_to_thresholded_faces_agree(name: str, shape: Any, dtype: Any) -> None:
    faces = draw((5, *shape), dtype)
    faces[0] = 0
    faces[1, :, 0] = faces[1, :, 1]
    for t in (1e-3, 1.0, 100.0):
        for x, y in zip(_admm._by_svd(faces, t), _admm._by_gram(faces, t), strict=True):
            near(np.sort(x, axis=-1) if x.ndim == 2 else x, np.sort(y, axis=-1) if y.ndim == 2 else y, 1e5)


def test_the_gram_matrix_is_left_where_its_rounding_would_show() -> None:
    """With a large penalty the thresholds are near the rounding of the squares of singular values."""
    star, histories = algebra.dct(3), {}
    X = spoiled(low(star, 12, 12, 2), 0.03)
    for dtype in (np.float32, np.float64):
        with pytest.warns(lowrank.ConvergenceWarning):
            histories[dtype] = lowrank.robust_pca(
                star, X.astype(dtype), penalty=1e5, max_iterations=3
            ).history
    single, double = histories.values()
    assert np.array_equal(single["tubal_rank"], double["tubal_rank"])
    np.testing.assert_allclose(single["objective"], double["objective"], rtol=1e-5)


# ---------------------------------------------------------------------------------------- how it is steered


@pytest.mark.parametrize("schedule", ["fixed", "increasing", "balanced"])
def test_schedules(schedule: Any) -> None:
    star = algebra.dct(6)
    A = low(star, 30, 30, 1)
    options = {"penalty": 1.0, "growth": 1.05} if schedule == "increasing" else {}
    result = lowrank.robust_pca(star, spoiled(A, 0.05), schedule=schedule, **options)
    assert error(result.low_rank, A) < 1e-5
    penalties = result.history["penalty"]
    if schedule == "fixed":
        assert np.all(penalties == 10.0)
    elif schedule == "increasing":
        np.testing.assert_allclose(penalties, 1.05 ** np.arange(len(penalties)))
    else:
        assert len(np.unique(penalties)) > 1
        assert np.all(np.diff(np.flatnonzero(np.diff(penalties))) % 10 == 0)


def test_changes_of_the_penalty_die_out() -> None:
    """Convergence is proved for a penalty that stays in the end: all changes together are bounded."""

    def factor(change: float, dual_change: float, iteration: int = 10) -> float:
        now = (np.full(3, change), np.full(3, dual_change))
        return _admm._balance((np.zeros(3), np.zeros(3)), now, 2.0, iteration)

    factors = [factor(1e-9, 1e9, k) for k in range(10, 100_000, 10)]
    assert factors[0] > 6 and np.prod(factors) < 1e10
    assert factor(0.0, 1.0) == factor(1.0, 0.0) == factor(1.0, 2.9) == 1.0
    assert factor(1.0, 8.0) == pytest.approx(1 / factor(4.0, 2.0)) and factor(1.0, 8.0) > 3


def test_corruption_of_all_sizes() -> None:
    """Of normal errors some are near 0; equal residuals say nothing of a good penalty then: 1000 iterations."""
    star = algebra.fft(10)
    A = low(star, 40, 40, 2)
    rng = np.random.default_rng(3)
    X = A + np.where(rng.random(A.shape) < 0.05, 10 * rng.standard_normal(A.shape), 0)
    result = lowrank.robust_pca(star, X)
    assert result.iterations < 120
    assert error(result.low_rank, A) < 1e-7


@pytest.mark.parametrize("kind", SOLVERS)
def test_a_former_result_is_gone_on_from(kind: str) -> None:
    star = algebra.dct(5)
    A = low(star, 20, 20, 1)
    whole = solve(kind, star, A)
    with pytest.warns(lowrank.ConvergenceWarning):
        part = solve(kind, star, A, max_iterations=20)
    rest = solve(kind, star, A, start=part)
    assert rest.converged and rest.iterations <= whole.iterations - 10
    assert solve(kind, star, A, start=whole).iterations <= 2
    assert error(rest.low_rank, whole.low_rank) < 1e-6


def test_the_history_is_a_table_of_every_iteration() -> None:
    star = algebra.dct(5)
    result = solve("robust_pca", star, low(star, 20, 20, 1))
    history = result.history
    assert history.dtype.names == (
        "iteration",
        "primal",
        "dual",
        "objective",
        "tubal_rank",
        "penalty",
        "seconds",
    )
    assert history["iteration"].tolist() == list(range(1, result.iterations + 1))
    assert np.all(np.diff(history["seconds"]) >= 0)
    assert history["primal"][-1] <= 1e-7 and history["dual"][-1] <= 1e-7
    assert result.residual == max(history["primal"][-1], history["dual"][-1])
    assert "converged after" in repr(result)


def test_checks_may_be_rare_and_lose_no_row() -> None:
    star = algebra.dct(5)
    A = low(star, 20, 20, 1)
    often = solve("robust_pca", star, A)
    rare = solve("robust_pca", star, A, check_every=7)
    assert rare.iterations >= often.iterations
    assert rare.iterations % 7 == 0 or rare.iterations % 10 == 0
    for column in ("primal", "objective", "tubal_rank"):
        np.testing.assert_allclose(rare.history[column][:20], often.history[column][:20], rtol=1e-6)


@pytest.mark.parametrize("kind", SOLVERS)
def test_too_few_iterations_give_what_there_is_and_a_warning_with_the_residual(kind: str) -> None:
    star = algebra.dct(5)
    with pytest.warns(lowrank.ConvergenceWarning, match=f"{kind}: after 3 iterations") as caught:
        result = solve(kind, star, low(star, 20, 20, 2), max_iterations=3)
    assert caught[0].filename == __file__
    assert caught[0].message.residual == result.residual > 1e-7  # type: ignore[union-attr]
    assert result.reason == "max_iterations" and result.iterations == 3 and not result.converged


def test_a_callback_sees_the_state_and_may_end_it() -> None:
    star = algebra.dct(5)
    A = low(star, 20, 20, 1)
    states = []

    def callback(state: lowrank.State) -> bool:
        states.append(state)
        return state.iteration == 6

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = solve("robust_pca", star, A, callback=callback)
    assert result.reason == "callback" and [s.iteration for s in states] == list(range(1, 7))
    assert np.array_equal(states[-1].low_rank, result.low_rank)
    assert np.array_equal(states[-1].sparse, result.sparse)
    assert states[0].tolerance == 1e-7 and states[0].max_iterations == 500
    assert [s.primal for s in states] == result.history["primal"].tolist()


@pytest.fixture
def ctrl_c():
    """Ctrl-C raises also where the tests were started in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("kind", SOLVERS)
def test_ctrl_c_gives_what_there_is(kind: str) -> None:
    star = algebra.dct(5)

    def callback(state: lowrank.State) -> None:
        if state.iteration == 4:
            os.kill(os.getpid(), signal.SIGINT)

    result = solve(kind, star, low(star, 20, 20, 2), callback=callback)
    assert result.interrupted and not result.converged and 4 <= result.iterations <= 5
    assert np.isfinite(result.low_rank).all() and result.residual < 1
    assert solve(kind, star, low(star, 20, 20, 2), start=result).converged


def test_ctrl_c_inside_a_step_leaves_the_former_one() -> None:
    star = algebra.dct(5)
    A = low(star, 20, 20, 2)
    seen, calls = seen_of(A, 0.6), []

    def measure(X: Any) -> Any:
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return X[seen]

    road = (measure, lambda y: scattered(y, seen))
    result = lowrank.recover(star, A[seen], *road, shape=A.shape)
    assert result.interrupted and result.iterations > 0
    with pytest.warns(lowrank.ConvergenceWarning):
        same = lowrank.recover(star, A[seen], *road, shape=A.shape, max_iterations=result.iterations)
    assert np.array_equal(result.low_rank, same.low_rank)


# ---------------------------------------------------------------------------------------------- other devices


@pytest.mark.filterwarnings("ignore::cutnn.algebra.lowrank.ConvergenceWarning")
@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 3, fft 4"])
@pytest.mark.parametrize("kind", [*SOLVERS, "masked tubes", "noise", "noisy matrix"])
def test_another_device_gives_the_same(name: str, kind: str, pretend_device: Any) -> None:
    star = ALGEBRAS[name]
    A = low(star, 8, 6, 1)
    X, seen = spoiled(A, 0.05), seen_of(A, 0.7)
    Phi = draw((A.size // 2, A.size), seed=1)

    def run(X: Any, A: Any, seen: Any, Phi: Any) -> lowrank.LowRankResult:
        options: Any = {"max_iterations": 25, "check_every": 10}
        if kind == "robust_pca":
            return lowrank.robust_pca(star, X, **options)
        if kind == "masked tubes":
            return lowrank.robust_pca(star, X, mask=seen, sparse="tubes", **options)
        if kind == "recover":
            samples = (
                lambda X: X[..., ::2, :],
                lambda y: namespace(y).stack([y, 0 * y], -2).reshape(A.shape),
            )
            return lowrank.recover(star, A[..., ::2, :], *samples, shape=A.shape, **options)
        if kind == "noisy matrix":
            return lowrank.recover(star, Phi @ A.reshape(-1), Phi, shape=A.shape, noise=0.5, **options)
        return lowrank.complete(star, A, seen, noise=0.1 if kind == "noise" else 0.0, **options)

    here, there = run(X, A, seen, Phi), run(*ct.to_device((X, A, seen, Phi), "pretend"))
    assert ct.device_of(there.low_rank) == "pretend"
    assert type(there.history) is np.ndarray and there.reason == here.reason
    near(ct.to_host(there.low_rank), here.low_rank, 1e4)


def test_elsewhere_the_residuals_are_looked_at_every_tenth_time(pretend_device: Any) -> None:
    star = algebra.dct(4)
    X = ct.to_device(spoiled(low(star, 12, 12, 1), 0.05), "pretend")
    iterations: list[int] = []
    lowrank.robust_pca(star, X, callback=lambda state: iterations.append(state.iteration))
    assert iterations and all(k % 10 == 0 for k in iterations)


# ------------------------------------------------------------------------------------------------- bad input

STAR = algebra.dct(3)
X = np.arange(12.0).reshape(3, 2, 2)
SEEN = X > 3
NAN = np.where(X == 5, np.nan, X)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: lowrank.robust_pca(3, X), TypeError, "the first argument is an algebra"),
        (lambda: lowrank.robust_pca(STAR, X[:2]), ValueError, "this algebra has length 3"),
        (lambda: lowrank.robust_pca(STAR, X[..., :0]), ValueError, "without entries"),
        (
            lambda: lowrank.robust_pca(STAR, NAN),
            ValueError,
            r"1 known .* first at \(1, 0, 1\); mask them out",
        ),
        (lambda: lowrank.robust_pca(STAR, X, sparse="rows"), ValueError, "'entries' or 'tubes'"),
        (lambda: lowrank.robust_pca(STAR, X, weight=0), ValueError, "weight is 0"),
        (lambda: lowrank.robust_pca(STAR, X, weight=float("nan")), ValueError, "weight is nan"),
        (lambda: lowrank.complete(STAR, X, SEEN & (X < 0)), ValueError, "false everywhere; nothing"),
        (
            lambda: lowrank.complete(STAR, np.stack([X, X]), np.stack([SEEN, ~SEEN & SEEN])),
            ValueError,
            "batch",
        ),
        (lambda: lowrank.complete(STAR, X, SEEN[:2]), ValueError, r"mask has shape \(2, 2, 2\)"),
        (lambda: lowrank.complete(STAR, X, 1.0 * SEEN), TypeError, "mask is of float64; expected booleans"),
        (lambda: lowrank.complete(STAR, X, SEEN.tolist()), TypeError, "mask is of list"),
        (lambda: lowrank.complete(STAR, NAN, SEEN), ValueError, "make the mask false there"),
        (lambda: lowrank.complete(STAR, X, SEEN, noise=-1), ValueError, "noise is -1"),
        (lambda: lowrank.complete(STAR, X, SEEN, noise=float("inf")), ValueError, "noise is inf"),
        (lambda: lowrank.complete(STAR, X, SEEN, tolerance=0), ValueError, "tolerance is 0"),
        (lambda: lowrank.complete(STAR, X, SEEN, penalty=-2), ValueError, "penalty is -2"),
        (lambda: lowrank.complete(STAR, X, SEEN, max_iterations=0), ValueError, "max_iterations is 0"),
        (
            lambda: lowrank.complete(STAR, X, SEEN, max_iterations=1e3),
            ValueError,
            "is 1000.0; expected a whole",
        ),
        (lambda: lowrank.complete(STAR, X, SEEN, check_every=0), ValueError, "check_every is 0"),
        (lambda: lowrank.complete(STAR, X, SEEN, schedule="fast"), ValueError, "'balanced', 'fixed' or"),
        (lambda: lowrank.complete(STAR, X, SEEN, growth=0.5), ValueError, "growth is 0.5"),
        (lambda: lowrank.complete(STAR, X, SEEN, start=X), TypeError, "start is a ndarray"),
        (
            lambda: lowrank.complete(STAR, X, SEEN, iterations=3),
            TypeError,
            "complete: there is no option 'iterations'; there are tolerance, max_iterations",
        ),
        (lambda: lowrank.robust_pca(STAR, X, weight="a"), ValueError, "weight is 'a'"),
        (lambda: lowrank.soft_threshold(X, np.float32(-1)), ValueError, "tau is -1.0"),
        (
            lambda: lowrank.recover(STAR, np.ones(12), np.eye(12), shape=X.shape, dtype=int),
            TypeError,
            "dtype is int64",
        ),
        (lambda: lowrank.recover(STAR, X, np.eye(12), shape=X.shape), ValueError, r"expected \(p, 12\) and"),
        (lambda: lowrank.recover(STAR, np.ones(2), np.eye(12), shape=X.shape), ValueError, "y \\(2,\\)"),
        (
            lambda: lowrank.recover(STAR, np.ones(12), np.eye(12), shape=(2, 2)),
            ValueError,
            "expected \\(3, 'l'",
        ),
        (
            lambda: lowrank.recover(STAR, np.ones(2), "sum", shape=X.shape),
            TypeError,
            "a matrix .* or a function",
        ),
        (lambda: lowrank.recover(STAR, 3, np.eye(12), shape=X.shape), TypeError, "y is a int"),
        (
            lambda: lowrank.recover(STAR, NAN.ravel(), np.eye(12), shape=X.shape),
            ValueError,
            "not finite; leave",
        ),
        (
            lambda: lowrank.recover(STAR, np.ones(2), np.full((2, 12), np.inf), shape=X.shape),
            ValueError,
            "matrix",
        ),
        (
            lambda: lowrank.recover(STAR, np.arange(2), np.ones((2, 12)), shape=X.shape),
            ValueError,
            "0.707 from y",
        ),
        (lambda: lowrank.recover(STAR, np.ones(3), np.ravel, shape=X.shape), TypeError, "needs its adjoint"),
        (
            lambda: lowrank.recover(
                STAR, np.ones(12), np.ravel, lambda y: 2 * y.reshape(3, 2, 2), shape=X.shape
            ),
            ValueError,
            "not adjoint",
        ),
        (
            lambda: lowrank.recover(STAR, np.ones(12), np.ravel, np.ravel, shape=X.shape),
            ValueError,
            "adjoint\\(y\\)",
        ),
        (
            lambda: lowrank.recover(
                STAR, np.ones(12), lambda X: X, lambda y: y.reshape(3, 2, 2), shape=X.shape
            ),
            ValueError,
            "measure makes",
        ),
    ],
)
def test_bad_input_is_named(call: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_a_state_shows_what_the_result_will() -> None:
    """E only where it is a result, and 0 where the mask is false, though the iterations hold something else there."""
    states: list[Any] = []
    stop = {"callback": lambda state: states.append(state) or True}
    lowrank.complete(STAR, X, SEEN, **stop)
    lowrank.recover(STAR, np.ones(12), np.eye(12), shape=X.shape, **stop)
    result = lowrank.robust_pca(STAR, X, mask=SEEN, **stop)
    assert states[0].sparse is states[1].sparse is None
    np.testing.assert_array_equal(states[2].sparse, result.sparse)
    assert np.all(result.sparse[~SEEN] == 0)


@pytest.mark.parametrize("kind", [np.float32, np.complex64])
def test_a_recovered_tensor_has_the_dtype_asked_for(kind: Any) -> None:
    result = lowrank.recover(STAR, X.ravel(), np.eye(12), shape=X.shape, dtype=kind)
    assert result.low_rank.dtype == kind
    np.testing.assert_allclose(result.low_rank, X, atol=1e-3)


def test_a_start_of_another_shape_is_refused() -> None:
    start = lowrank.robust_pca(STAR, X)
    with pytest.raises(ValueError, match=r"start holds tensors of shape \(3, 2, 2\); .* \(3, 4, 4\)"):
        lowrank.robust_pca(STAR, np.ones((3, 4, 4)), start=start)


@pytest.mark.parametrize("name", OTHER)
@pytest.mark.parametrize("kind", SOLVERS)
def test_other_m_are_refused(name: str, kind: str) -> None:
    star = ALGEBRAS[name]
    with pytest.raises(ValueError, match=f"{kind}: .* MᴴM = ℓI, and that of .* is none; .*from_data"):
        solve(kind, star, star.random(3, 3, seed=0))


@pytest.mark.parametrize("kind", SOLVERS)
def test_solvers_say_that_they_have_no_gradient(kind: str) -> None:
    with pytest.raises(ct.NotDifferentiableError, match=f"{kind} has no gradient"):
        ct.grad(lambda X: ct.sum(traced(kind, X)))(X)
    with pytest.raises(ct.NotDifferentiableError, match=f"{kind} has no gradient"):
        ct.grad(lambda M: ct.sum(solve(kind, algebra.learned.star(M), X).low_rank))(np.eye(3))


def traced(kind: str, X: Any) -> Any:
    if kind == "robust_pca":
        return lowrank.robust_pca(STAR, X).low_rank
    if kind == "complete":
        return lowrank.complete(STAR, X, SEEN).low_rank
    return lowrank.recover(STAR, X[0, 0], np.eye(12)[:2], shape=SEEN.shape).low_rank


def test_devices_do_not_mix(pretend_device: Any) -> None:
    with pytest.raises(TypeError, match="different libraries"):
        lowrank.complete(STAR, X, ct.to_device(SEEN, "pretend"))
