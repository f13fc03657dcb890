"""Descent on the manifold, and the M that suits data best: monotone, stationary, the hidden M found again."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import cutnn as ct
from cutnn import algebra
from cutnn.algebra import learned
from cutnn.algebra.manifolds import STIEFEL
from tests.algebra.catalogue import draw

HIDDEN = algebra.random_orthogonal(5, seed=11)


def of_low_rank(rank: int = 2, rows: int = 6, columns: int = 8, batch: Any = ()) -> Any:
    return HIDDEN(HIDDEN.random(rows, rank, batch, seed=1), HIDDEN.random(rank, columns, batch, seed=2))


def quadratic(A: Any) -> Any:
    return lambda Q: -ct.sum(ct.real(ct.conj(Q) * ct.matmul(A, Q)))


def values(minimum: Any) -> Any:
    return np.array([iteration.value for iteration in minimum.history])


# ------------------------------------------------------------------------------------------------- minimize


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("q", [1, 3])
def test_the_leading_eigenspace_is_found(dtype: Any, q: int) -> None:
    A = draw((6, 6), dtype)
    A = A + A.conj().T
    Q0 = STIEFEL.retract(np.zeros((6, q), dtype), draw((6, q), dtype, 1))
    found = learned.minimize(quadratic(A), Q0, manifold="stiefel")
    assert found.converged and not found.interrupted
    np.testing.assert_allclose(-found.value, np.linalg.eigvalsh(A)[-q:].sum(), rtol=1e-10)
    assert STIEFEL.distance(found.M) < 1e-14
    assert np.all(np.diff(values(found)) < 0)
    assert found.history[0].step == 0 and len(found.history) > 2
    gradient = STIEFEL.project(found.M, ct.grad(quadratic(A))(found.M))
    np.testing.assert_allclose(found.gradient_norm, np.linalg.norm(gradient), rtol=1e-6, atol=1e-14)
    assert found.gradient_norm <= 1e-6 * abs(found.history[0].value)


def test_every_step_falls_by_what_armijo_asks() -> None:
    A = np.diag(np.arange(8.0) ** 2)
    found = learned.minimize(quadratic(A), STIEFEL.random(8, 3, seed=5), manifold="stiefel")
    for before, after in zip(found.history[:-1], found.history[1:], strict=True):
        assert after.value <= before.value - 1e-4 * after.step * before.gradient_norm**2


def test_the_start_stays_as_it_is_and_float32_stays_float32() -> None:
    A = np.diag([3.0, 2.0, 1.0]).astype(np.float32)
    Q0 = STIEFEL.random(3, 1, seed=1).astype(np.float32)
    before = Q0.copy()
    found = learned.minimize(quadratic(A), Q0, tolerance=1e-3)
    assert found.M.dtype == np.float32 and found.converged
    np.testing.assert_array_equal(Q0, before)


def test_free_matrices_descend_too() -> None:
    found = learned.minimize(lambda M: ct.sum((M - 3.0) ** 2), np.zeros((2, 3)), manifold="general")
    np.testing.assert_allclose(found.M, 3.0, rtol=1e-5)


def test_a_start_that_is_stationary_ends_at_once() -> None:
    found = learned.minimize(quadratic(np.diag([2.0, 1.0])), np.eye(2)[:, :1])
    assert found.converged and len(found.history) == 1 and found.gradient_norm == 0


def test_a_descent_that_is_cut_short_warns_with_its_gradient() -> None:
    A, Q0 = np.diag([3.0, 2.0, 1.0]), STIEFEL.random(3, 1, seed=1)
    with pytest.warns(RuntimeWarning, match=r"stopped after 2 steps.*norm \d.*converged would be"):
        found = learned.minimize(quadratic(A), Q0, iterations=2)
    assert not found.converged and len(found.history) == 3


def test_where_f_falls_no_more_it_says_so() -> None:
    """A gradient that promises a fall where there is none."""
    with pytest.warns(RuntimeWarning, match="falls no more"):
        learned.minimize(
            lambda M: M[0, 0] + 2.0 - ct.stop_gradient(M[0, 0]), np.zeros((1, 1)), manifold="general"
        )


def test_a_callback_sees_every_step_and_may_stop() -> None:
    seen: list[Any] = []
    A, Q0 = np.diag([3.0, 2.0, 1.0]), STIEFEL.random(3, 1, seed=1)

    def callback(minimum: Any) -> bool:
        seen.append((minimum.value, STIEFEL.distance(minimum.M)))
        return len(seen) == 3

    found = learned.minimize(
        quadratic(A), Q0, tolerance=1e-14, callback=callback
    )  # no warning: it was asked for
    assert not found.converged
    with pytest.warns(RuntimeWarning, match="after 2 steps"):
        learned.minimize(quadratic(A), Q0, tolerance=1e-14, iterations=2)
    assert [value for value, _ in seen] == [iteration.value for iteration in found.history[1:]]


@pytest.mark.parametrize("at", [1, 4, 9])
def test_ctrl_c_returns_what_was_reached(at: int) -> None:
    calls = []
    A, Q0 = np.diag([3.0, 2.5, 1.0, 0.5]), STIEFEL.random(4, 2, seed=1)

    def f(Q: Any) -> Any:
        calls.append(1)
        if len(calls) == at + 1:
            raise KeyboardInterrupt
        return quadratic(A)(Q)

    found = learned.minimize(f, Q0, tolerance=1e-12)
    assert found.interrupted and not found.converged
    assert float(quadratic(A)(found.M)) == found.value == min(values(found))


@pytest.mark.parametrize(
    "M0, options, words",
    [
        (2 * np.eye(2), {}, "differs from I by 3"),
        (np.eye(2), {"manifold": "sphere"}, "'sphere'"),
        (np.eye(2), {"iterations": -1}, "iterations is 0 or more"),
        (np.eye(2), {"tolerance": 0.0}, "tolerance above 0"),
        (np.full((2, 2), np.inf), {"manifold": "general"}, "f is finite"),
    ],
)
def test_what_cannot_be_minimised_is_refused(M0: Any, options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        learned.minimize(lambda M: ct.sum(M * M), M0, **options)


# -------------------------------------------------------------------------------------- variable projection


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_the_gradient_with_the_inner_solution_held_is_the_whole_one(ridge: float) -> None:
    A, B, M = draw((4, 5, 2)), draw((4, 5, 3), seed=1), HIDDEN.transforms[0].matrix()[:4, :4]
    M = STIEFEL.retract(0 * M, M)

    def left(M: Any, hold: Any) -> Any:
        own = learned.star(M)
        A_hat, B_hat = own.forward(A), own.forward(B)
        At = A_hat.mT
        X_hat = hold(ct.linalg.solve(ct.matmul(At, A_hat) + ridge * np.eye(2), ct.matmul(At, B_hat)))
        return ct.sum((ct.matmul(A_hat, X_hat) - B_hat) ** 2) + ridge * ct.sum(X_hat**2)

    held, whole = (ct.grad(lambda M, h=h: left(M, h))(M) for h in (ct.stop_gradient, lambda x: x))
    np.testing.assert_allclose(held, whole, atol=1e-11)
    raised = ct.grad(lambda M: left(M, lambda X: 1.1 * ct.stop_gradient(X)))(M)
    assert np.abs(raised - whole).max() > 1e-3  # only the best X may be held
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = learned.fit_lstsq(A, B, ridge=ridge, starts=[M], iterations=0)
    total = np.sum(B**2)
    np.testing.assert_allclose(fit.minimum.value * total, left(M, lambda x: x), rtol=1e-12)
    norm = np.linalg.norm(STIEFEL.project(M, whole))
    np.testing.assert_allclose(fit.minimum.gradient_norm * total, norm, rtol=1e-10)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_least_squares_finds_the_hidden_algebra(batch: Any) -> None:
    A, X = HIDDEN.random(8, 2, batch, seed=1), HIDDEN.random(2, 4, batch, seed=2)
    B = HIDDEN(A, X)
    fit = learned.fit_lstsq(A, B, starts=["dct", "random", "random"], tolerance=1e-8)
    assert fit.minimum.converged and fit.minimum.value < 1e-12
    assert fit.relative_residual < 1e-6
    assert np.all(np.diff(values(fit.minimum)) < 0)
    np.testing.assert_allclose(
        np.linalg.norm(fit.star(A, fit.X) - B) / np.linalg.norm(B),
        fit.relative_residual,
        rtol=1e-6,
        atol=1e-14,
    )
    wrong = algebra.dct(5)
    assert np.linalg.norm(wrong(A, wrong.pinv(A), B) - B) > 0.1 * np.linalg.norm(B)


def test_the_x_of_least_squares_is_the_best_of_its_algebra() -> None:
    A, B = draw((4, 6, 3)), draw((4, 6, 2), seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = learned.fit_lstsq(A, B, iterations=5)
    np.testing.assert_allclose(fit.X, fit.star(fit.star.pinv(A), B), atol=1e-12)
    assert 0.1 < fit.relative_residual < 1


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("sizes", [(6, 8), (8, 6), (4, 60)])
@pytest.mark.parametrize("choice", ["rank", "count"])
def test_low_rank_finds_the_hidden_algebra(choice: str, sizes: Any, batch: Any) -> None:
    X = of_low_rank(2, *sizes, batch)
    fit = learned.fit_low_rank(
        X, **{choice: 2 if choice == "rank" else 10}, starts=["dct", "random"], tolerance=1e-8
    )
    assert fit.minimum.converged and fit.minimum.value <= 1e-12
    assert np.all(np.diff(values(fit.minimum)) < 0)
    assert fit.triplets == 10
    U, S, Vh = fit.star.svd(X, 2) if choice == "rank" else fit.star.svd_energy(X, count=10)[:3]
    error = np.linalg.norm(fit.star(U, fit.star.diagonal(S), Vh) - X) / np.linalg.norm(X)
    assert error < 2e-6
    dct = algebra.dct(5)
    U, S, Vh = dct.svd(X, 2)
    assert np.linalg.norm(dct(U, dct.diagonal(S), Vh) - X) > 0.05 * np.linalg.norm(X)


@pytest.mark.parametrize("choice", [{"rank": 1}, {"count": 7}])
def test_the_energy_is_that_of_the_algebras_own_truncation(choice: Any) -> None:
    X = draw((4, 5, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = learned.fit_low_rank(X, **choice, iterations=8)
    U, S, Vh = fit.star.svd(X, 1) if "rank" in choice else fit.star.svd_energy(X, count=7)[:3]
    left = np.linalg.norm(fit.star(U, fit.star.diagonal(S), Vh) - X) ** 2 / np.linalg.norm(X) ** 2
    np.testing.assert_allclose(1 - fit.energy, left, rtol=1e-10)
    best = []
    for star in (algebra.dct(4), algebra.identity(4), algebra.from_data(X)):
        U, S, Vh = star.svd(X, 1) if "rank" in choice else star.svd_energy(X, count=7)[:3]
        best.append(np.linalg.norm(star(U, star.diagonal(S), Vh) - X) ** 2 / np.linalg.norm(X) ** 2)
    assert left < min(best)


def test_fewer_faces_find_the_hidden_projected_algebra() -> None:
    hidden = algebra.projected(STIEFEL.random(5, 2, seed=3))
    X = hidden(hidden.random(6, 1, seed=1), hidden.random(1, 8, seed=2))
    fit = learned.fit_low_rank(X, rank=1, faces=2, starts=["data", "random"], tolerance=1e-8)
    assert fit.star.face_shape == (2,) and fit.minimum.M.shape == (5, 2) and fit.triplets == 2
    assert fit.minimum.value < 1e-12
    U, S, Vh = fit.star.svd(X, 1)
    np.testing.assert_allclose(fit.star(U, fit.star.diagonal(S), Vh), X, atol=1e-5)
    A, Y = hidden.random(6, 2, seed=4), hidden.random(2, 3, seed=5)
    least = learned.fit_lstsq(A, hidden(A, Y), faces=2, starts=["data", "random"], tolerance=1e-8)
    assert least.relative_residual < 1e-5
    np.testing.assert_allclose(least.star(A, least.X), hidden(A, Y), atol=1e-4)


def test_the_loss_of_fewer_faces_counts_what_the_projection_drops() -> None:
    X, Q = draw((5, 4, 6)), STIEFEL.random(5, 2, seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = learned.fit_low_rank(X, rank=1, faces=2, starts=[Q], iterations=0)
        least = learned.fit_lstsq(draw((5, 4, 2)), X, faces=2, starts=[Q], iterations=0)
    U, S, Vh = fit.star.svd(X, 1)
    error = X - fit.star(U, fit.star.diagonal(S), Vh)
    np.testing.assert_allclose(1 - fit.energy, np.sum(error**2) / np.sum(X**2), rtol=1e-12)
    error = X - least.star(draw((5, 4, 2)), least.X)
    np.testing.assert_allclose(least.relative_residual**2, np.sum(error**2) / np.sum(X**2), rtol=1e-12)


def test_an_energy_is_held_by_fewer_triplets_than_at_the_start() -> None:
    X = of_low_rank() + 0.01 * draw((5, 6, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = learned.fit_low_rank(X, energy=0.99, starts=["dct", "random"], iterations=200)
    counts = [
        int(star.svd_energy(X, 0.99).multirank.sum())
        for star in (fit.star, algebra.dct(5), algebra.from_data(X))
    ]
    assert fit.triplets == counts[0] < min(counts[1:])
    assert fit.energy >= 0.99


def test_an_energy_is_held_in_every_tensor_of_a_batch() -> None:
    X = of_low_rank(1, batch=(2,)) * np.array([1.0, 100.0])[:, None, None, None] + draw((2, 5, 6, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = learned.fit_low_rank(X, energy=0.8, starts=["dct"], iterations=0)
    multirank = algebra.dct(5).svd_energy(X, 0.8).multirank
    assert fit.triplets == multirank.sum(axis=-1).max() > multirank.sum(axis=-1).min()


def test_gradients_are_exact_where_singular_values_meet() -> None:
    """Of X with equal singular values in every face of every algebra, the first step is along the true slope."""
    X = np.multiply.outer(np.array([1.0, 2.0, -1.0]), np.eye(4)) + 0.0
    M = STIEFEL.random(3, seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = learned.fit_low_rank(X, rank=2, starts=[M], iterations=3)
    np.testing.assert_allclose(fit.energy, 0.5, rtol=1e-12)  # whatever M is
    assert fit.minimum.gradient_norm < 1e-14


def test_seeds_decide_the_random_starts_and_dtypes_are_kept() -> None:
    X = of_low_rank()
    first, second, other = (learned.fit_low_rank(X, rank=2, starts=["random"], seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.minimum.M, second.minimum.M)
    assert first.minimum.history == second.minimum.history != other.minimum.history
    single = learned.fit_low_rank(X.astype(np.float32), rank=2, starts=["random"], tolerance=1e-3)
    assert single.minimum.M.dtype == np.float32 and 1 - single.energy < 1e-4
    assert single.star.transforms[0].scale == 1.0
    assert STIEFEL.distance(single.star.transforms[0].matrix()) < 1e-14


def test_a_generator_draws_each_start_once() -> None:
    """The count that an energy needs is that of the start that is gone on from, not of another draw."""
    X = of_low_rank() + draw((5, 6, 8))
    for seed in range(8):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fits = [
                learned.fit_low_rank(X, energy=0.9, starts=["random"], seed=s, iterations=0)
                for s in (seed, np.random.default_rng(seed))
            ]
        assert fits[0].energy == fits[1].energy >= 0.9
        assert "array" not in repr(fits[0])


def test_complex_data_have_a_unitary_m() -> None:
    M = STIEFEL.retract(np.zeros((3, 3), complex), draw((3, 3), np.complex128))
    hidden = algebra.from_matrix(M)
    X = hidden(hidden.random(5, 1, seed=1, dtype=complex), hidden.random(1, 6, seed=2, dtype=complex))
    fit = learned.fit_low_rank(X, rank=1, starts=["data"], tolerance=1e-8)
    assert fit.minimum.value < 1e-12 and STIEFEL.distance(fit.minimum.M) < 1e-13
    A = hidden.random(5, 2, seed=3, dtype=complex)
    fit = learned.fit_lstsq(
        A, hidden(A, hidden.random(2, 4, seed=4, dtype=complex)), starts=["data", "identity"]
    )
    assert fit.minimum.value < 1e-10


def test_ctrl_c_in_one_of_many_starts_returns_the_best_so_far() -> None:
    steps: list[float] = []

    def callback(minimum: Any) -> None:
        steps.append(minimum.value)
        if len(steps) == 3:
            raise KeyboardInterrupt

    fit = learned.fit_low_rank(of_low_rank(), rank=2, callback=callback)
    assert fit.minimum.interrupted and len(steps) == 3 and fit.minimum.value == min(steps)


def test_a_fit_warns_of_the_start_that_it_returns() -> None:
    with pytest.warns(RuntimeWarning, match="stopped after 1 steps") as caught:
        learned.fit_low_rank(of_low_rank(), rank=2, starts=["dct", "random", "identity"], iterations=1)
    assert len(caught) == 1 and caught[0].filename == __file__


X = np.ones((3, 2, 2))
WRONG: dict[str, Any] = {
    "no choice": (lambda: learned.fit_low_rank(X), TypeError, "give one of rank"),
    "two choices": (lambda: learned.fit_low_rank(X, rank=1, count=1), TypeError, "give one of rank"),
    "rank": (lambda: learned.fit_low_rank(X, rank=3), ValueError, "one of 1 to 2, not 3"),
    "count": (lambda: learned.fit_low_rank(X, count=7), ValueError, "one of 1 to 6, not 7"),
    "energy": (lambda: learned.fit_low_rank(X, energy=1.0), ValueError, "below 1"),
    "not finite": (
        lambda: learned.fit_low_rank(X * np.nan, rank=1),
        ValueError,
        "X holds numbers that are not",
    ),
    "too few axes": (
        lambda: learned.fit_low_rank(X[0], rank=1),
        ValueError,
        r"expected a tensor \(..., n, l, m\)",
    ),
    "M0 of integers": (
        lambda: learned.minimize(ct.sum, np.eye(2, dtype=int)),
        TypeError,
        "M0 is an array of int64; expected an array of floats",
    ),
    "no M0": (lambda: learned.minimize(ct.sum, [[1.0]]), TypeError, "M0 is a list"),
    "no tensor": (lambda: learned.fit_lstsq(X, 3), TypeError, "B is a int"),
    "shapes": (lambda: learned.fit_lstsq(X, X[:2]), ValueError, "as many faces and rows"),
    "ridge": (lambda: learned.fit_lstsq(X, X, ridge=-1), ValueError, "ridge is 0 or more"),
    "start": (lambda: learned.fit_lstsq(X, X, starts=["fft"]), ValueError, "not 'fft'"),
    "size of a start": (
        lambda: learned.fit_lstsq(X, X, starts=[np.eye(2)]),
        ValueError,
        r"has shape \(3, 3\)",
    ),
    "faces": (lambda: learned.fit_low_rank(X, rank=1, faces=4), ValueError, "one of 1 to n = 3, not 4"),
    "no starts": (lambda: learned.fit_lstsq(X, X, starts=[]), ValueError, r"starts is \[\]"),
    "no starts, energy": (
        lambda: learned.fit_low_rank(X, energy=0.9, starts=[]),
        ValueError,
        r"fit_low_rank: starts is \[\]",
    ),
    "one start": (
        lambda: learned.fit_low_rank(X, rank=1, starts="dct"),
        ValueError,
        "starts is 'dct'; expected a",
    ),
    "half a rank": (lambda: learned.fit_low_rank(X, rank=1.5), TypeError, "rank is 1.5, count None"),
    "a list": (lambda: learned.fit_low_rank([[[1.0]]], rank=1), TypeError, "X is a list"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_is_named(what: str) -> None:
    call, error, words = WRONG[what]
    with pytest.raises(error, match=words):
        call()


def test_on_another_library(pretend_device: Any) -> None:
    X = of_low_rank(1)
    here, there = (learned.fit_low_rank(x, count=5, starts=["dct"]) for x in (X, pretend_device.asarray(X)))
    np.testing.assert_allclose(there.minimum.M.get(), here.minimum.M, atol=1e-10)
    A = HIDDEN.random(6, 2, seed=4)
    here, there = (
        learned.fit_lstsq(a, b, starts=["dct"])
        for a, b in ((A, X), tuple(pretend_device.asarray(x) for x in (A, X)))
    )
    np.testing.assert_allclose(there.minimum.M.get(), here.minimum.M, atol=1e-6)
