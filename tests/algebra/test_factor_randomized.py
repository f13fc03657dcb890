"""The randomised t-SVDM: exact ranks, error bounds, tolerances, seeds, gradients, bad input."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest

import cutnn as ct
from cutnn import algebra
from cutnn.algebra._faces import Faces
from cutnn.algebra._randomized import bases_within
from tests.algebra.catalogue import ALGEBRAS, DELICATE, near

every_algebra = pytest.mark.parametrize("name", ALGEBRAS)


def product(star: Any, factors: Any) -> Any:
    return star(factors[0], star.diagonal(factors[1]), factors[2])


def of_rank(star: Any, rank: int, size: tuple[int, int], batch: Any = (), dtype: Any = np.float64) -> Any:
    """A tensor of that tubal rank: real where it can be, which in algebras of complex products it is not."""
    A = star(star.random(size[0], rank, batch, 0, dtype), star.random(rank, size[1], (), 1, dtype))
    return A.astype(dtype) if np.dtype(dtype).kind == "c" or star.real_products else A


def decaying(star: Any, decay: float, size: tuple[int, int], batch: Any = ()) -> Any:
    """Faces with the singular values 1, decay, decay², ..."""
    U, S, Vh = star.svd(star.random(*size, batch, seed=0))
    tube = star.eye(1)[..., 0]
    values = decay ** np.arange(S.shape[-1]) * np.broadcast_to(tube, (*batch, *star.shape, 1))
    return star(U, star.diagonal(values), Vh)


def transform_norm(star: Any, A: Any) -> Any:
    return np.linalg.norm(star.forward(A + 0j).reshape(-1))


# ------------------------------------------------------------------------------------------------ exact ranks


@every_algebra
@pytest.mark.parametrize(
    ("dtype", "size"),
    [(np.float32, (7, 5)), (np.float64, (5, 7)), (np.complex64, (5, 7)), (np.complex128, (7, 5))],
)
def test_a_tensor_of_the_rank_is_found_whole(name: str, dtype: Any, size: tuple[int, int]) -> None:
    star = ALGEBRAS[name]
    A = of_rank(star, 2, size, (2,), dtype)
    U, S, Vh = star.svd_randomized(A, rank=2, oversampling=1, seed=0)
    near(product(star, (U, S, Vh)), A, 2000)
    near(star(star.transpose(U), U), np.broadcast_to(star.eye(2), (2, *star.eye(2).shape)), 500)
    near(star(Vh, star.transpose(Vh)), np.broadcast_to(star.eye(2), (2, *star.eye(2).shape)), 500)
    exact = star.svd(A, rank=2)
    near(S, exact.S, 2000)
    assert [x.dtype for x in (U, S, Vh)] == [x.dtype for x in exact]


@every_algebra
def test_as_many_samples_as_slices_make_it_the_svd(name: str) -> None:
    star = ALGEBRAS[name]
    A = star.random(4, 6, (2,), seed=0)
    near(
        product(star, star.svd_randomized(A, rank=2, power_iterations=0)),
        product(star, star.svd(A, rank=2)),
        2000,
    )


# --------------------------------------------------------------------------------------------- bounds of errors


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 3, fft 4", "plain"])
def test_mean_errors_obey_the_bound(name: str) -> None:
    """E ‖Â - Q QᴴÂ‖_F² ≤ (1 + k/(p-1)) Σ_{j>k} σ_j² for each face (Halko, Martinsson, Tropp 2011, theorem 10.5)."""
    star, k, p = ALGEBRAS[name], 3, 4
    A = decaying(star, 0.8, (14, 12))
    tail = star.n * np.sum(0.8 ** (2 * np.arange(k, 12)))
    errors = []
    for seed in range(20):  # before it is cut to rank k, an approximation is as wide as the samples
        factors = star.svd_randomized(A, rank=k + p, oversampling=0, power_iterations=0, seed=seed)
        errors.append(transform_norm(star, A - product(star, factors)) ** 2)
    assert np.sum(star.n * 0.8 ** (2 * np.arange(k + p, 12))) <= min(errors)  # Eckart-Young
    assert np.mean(errors) <= (1 + k / (p - 1)) * tail


@pytest.mark.parametrize("name", ["dct 5", "fft 4"])
def test_power_iterations_and_samples_sharpen(name: str) -> None:
    star = ALGEBRAS[name]
    A = decaying(star, 0.9, (30, 25))
    best = star.norm(A - product(star, star.svd(A, rank=4)))

    def excess(**options: int) -> float:
        errors = [
            star.norm(A - product(star, star.svd_randomized(A, 4, seed=s, **options))) for s in range(5)
        ]
        return float(np.mean(errors) / best - 1)

    crude = excess(oversampling=2, power_iterations=0)
    assert excess(oversampling=10, power_iterations=0) < crude / 2
    assert excess(oversampling=2, power_iterations=2) < crude / 5
    assert 0 <= excess() < 1e-3


# --------------------------------------------------------------------------------------------------- tolerances


@every_algebra
@pytest.mark.parametrize("tolerance", [0.5, 1e-4])
def test_tolerances_are_met_and_the_rank_is_the_least(name: str, tolerance: float) -> None:
    star = ALGEBRAS[name]
    A = decaying(star, 0.3, (18, 16), (2,))
    U, S, Vh = star.svd_randomized(A, tolerance=tolerance, oversampling=3, seed=0)
    for approximation, one in zip(product(star, (U, S, Vh)), A, strict=True):
        assert transform_norm(star, one - approximation) <= tolerance * transform_norm(star, one)
    shorter = product(star, star.svd(A, rank=S.shape[-1] - 1)) if S.shape[-1] > 1 else 0 * A
    errors = [
        transform_norm(star, one - b) / transform_norm(star, one) for one, b in zip(A, shorter, strict=True)
    ]
    assert max(errors) > tolerance


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 5", "fft 3, fft 4"])
@pytest.mark.parametrize("seed", range(4))
def test_faces_count_as_often_as_they_are_in_the_spectrum(name: str, seed: int) -> None:
    """Faces of unlike sizes and decays: the least rank is that of the error over the whole spectrum."""
    star, rng = ALGEBRAS[name], np.random.default_rng(seed)
    U, S, Vh = star.svd(star.random(12, 12, seed=seed))
    hat = star.forward(star.diagonal(S)) * 0
    for face in np.ndindex(hat.shape[:-2]):
        hat[face] = np.diag(rng.uniform(0.1, 1) * rng.uniform(0.5, 0.9) ** np.arange(12))
    A = star(U, star.inverse(hat), Vh)
    k = int(rng.integers(3, 8))
    errors = [star.norm(A - star.low_rank(A, rank)) / star.norm(A) for rank in (k - 1, k)]
    tolerance = errors[1] + 0.02 * (errors[0] - errors[1])
    assert star.svd_randomized(A, tolerance=tolerance, oversampling=12, seed=0).S.shape[-1] == k
    tolerance = errors[0] - 0.02 * (errors[0] - errors[1])
    assert star.svd_randomized(A, tolerance=tolerance, oversampling=12, seed=0).S.shape[-1] == k
    factors = star.svd_randomized(A, tolerance=tolerance, oversampling=2, power_iterations=0, seed=0)
    assert star.norm(A - product(star, factors)) <= tolerance * star.norm(A)


@pytest.mark.parametrize("name", ["dct 5", "fft 4"])
def test_faces_that_are_done_early(name: str) -> None:
    """One face of rank 1 beside one of full rank, and a zero tensor in the batch: no noise gets into the bases."""
    star = ALGEBRAS[name]
    hat = star.forward(decaying(star, 0.5, (12, 12)))
    hat[1] = hat[1, :, :1] @ hat[1, :1]
    A = np.stack([star.inverse(hat), star.zeros(12, 12), star.inverse(hat) * 1e-170])
    U, S, Vh = star.svd_randomized(A, tolerance=1e-3, oversampling=2, seed=0)
    near(
        star(star.transpose(U), U),
        np.broadcast_to(star.eye(S.shape[-1]), (3, *star.eye(S.shape[-1]).shape)),
        500,
    )
    near(
        star(Vh, star.transpose(Vh)),
        np.broadcast_to(star.eye(S.shape[-1]), (3, *star.eye(S.shape[-1]).shape)),
        500,
    )
    error = star.norm(
        A * [[[[1]]], [[[1]]], [[[1e170]]]] - product(star, (U, S * [[[1]], [[1]], [[1e170]]], Vh))
    )
    assert np.all(error <= 1.001e-3 * star.norm(A[0])) and S.shape[-1] < 12


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_extreme_sizes_of_numbers(size: float) -> None:
    star = algebra.fft(4)
    A = decaying(star, 0.5, (12, 12))
    widths = [
        star.svd_randomized(T, tolerance=1e-2, oversampling=2, seed=0).S.shape[-1] for T in (A, A * size)
    ]
    assert widths[0] == widths[1] == 7


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 3, fft 4"])
def test_what_the_bases_leave_is_known(name: str) -> None:
    star = ALGEBRAS[name]
    A = np.cumsum(star.random(12, 12, (2,), seed=0), axis=-1)
    faces = Faces(star, A)
    Q, rest = bases_within(faces, 0.3, 2, 1, np.random.default_rng(0))
    basis = faces.tensor(faces.joined(Q))
    near(rest, (star.norm(A - star(basis, star.transpose(basis), A)) / star.norm(A)) ** 2)
    assert np.all(rest <= 0.09) and basis.shape[-1] < 12


def test_zero_tensors_and_tolerances_below_rounding() -> None:
    star = algebra.fft(3)
    U, S, Vh = star.svd_randomized(star.zeros(4, 3), tolerance=0.1)
    assert S.shape == (3, 1) and not S.any()
    near(star(star.transpose(U), U), star.eye(1))
    A = star.random(4, 3, seed=0)
    near(product(star, star.svd_randomized(A, tolerance=1e-30)), A, 1000)


# ------------------------------------------------------------------------------------------- seeds, gradients


def test_seeds() -> None:
    star = algebra.fft(4)
    A = star.random(9, 8, seed=0)
    one, two, other = (star.svd_randomized(A, 2, oversampling=1, seed=seed).U for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - other).max() > 1e-6
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(star.svd_randomized(A, 2, oversampling=1, seed=rng).U, one)
    assert np.abs(star.svd_randomized(A, 2, oversampling=1, seed=rng).U - one).max() > 1e-6


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("name", DELICATE)
def test_gradients_are_those_of_the_truncation(name: str, dtype: Any) -> None:
    star = ALGEBRAS[name]
    G = star.random(7, 6, seed=9, dtype=np.complex128)

    def gradient(A: Any, svd: Any) -> Any:
        return ct.grad(lambda A: ct.sum(ct.real(G * product(star, svd(A)))))(A)

    A = of_rank(star, 2, (7, 6), dtype=dtype)
    exact = gradient(A, lambda A: star.svd(A, rank=2))
    near(gradient(A, lambda A: star.svd_randomized(A, rank=2, oversampling=1, seed=0)), exact, 1e5)
    near(gradient(A, lambda A: star.svd_randomized(A, tolerance=1e-8, seed=0)), exact, 1e5)
    A = decaying(star, 0.03, (7, 6)).astype(dtype) if star.real_products else decaying(star, 0.03, (7, 6))
    exact = gradient(A, lambda A: star.svd(A, rank=2))
    for steps in (1, 2):
        options: Any = {"rank": 2, "oversampling": 1, "power_iterations": steps, "seed": 0}
        found = gradient(A, functools.partial(star.svd_randomized, **options))
        error = np.abs(found - exact).max() / np.abs(exact).max()
        assert error < 5 * (0.03**3 / 0.03) ** (steps + 1)


# ------------------------------------------------------------------------------------------ bad input, devices


def test_bad_input_is_explained() -> None:
    star = algebra.dct(4)
    A = star.random(5, 3, seed=0)
    for options in ({}, {"rank": 2, "tolerance": 0.1}):
        with pytest.raises(TypeError, match=r"svd_randomized: give either a rank or a tolerance"):
            star.svd_randomized(A, **options)
    with pytest.raises(
        ValueError, match=r"svd_randomized: the rank of A, \(4, 5, 3\), is one of 1 to 3, not 4"
    ):
        star.svd_randomized(A, 4)
    for tolerance in (0, 1, math.nan, -1):
        with pytest.raises(ValueError, match="relative, above 0 and below 1, and is"):
            star.svd_randomized(A, tolerance=tolerance)
    with pytest.raises(ValueError, match="samples beyond the rank are 0 or more, not -1"):
        star.svd_randomized(A, 1, oversampling=-1)
    with pytest.raises(ValueError, match="oversampling, are 1 or more, not 0"):
        star.svd_randomized(A, tolerance=0.1, oversampling=0)
    with pytest.raises(ValueError, match="power iterations are 0 or more, not -1"):
        star.svd_randomized(A, 1, power_iterations=-1)
    with pytest.raises(ValueError, match="no entries to sample"):
        star.svd_randomized(star.zeros(0, 3), tolerance=0.1)
    A[2, 1, 0] = np.inf
    with pytest.raises(ValueError, match=r"svd_randomized: A, .* not finite: inf at \(2, 1, 0\)"):
        star.svd_randomized(A, 1)


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 3, fft 4"])
@pytest.mark.parametrize("options", [{"rank": 2}, {"tolerance": 1e-3}])
def test_samples_go_to_the_device(name: str, options: Any, pretend_device: Any) -> None:
    star = ALGEBRAS[name]
    A = decaying(star, 0.1, (9, 8), (2,))
    here = star.svd_randomized(A, oversampling=2, seed=0, **options)
    there = star.svd_randomized(ct.to_device(A, "pretend"), oversampling=2, seed=0, **options)
    for got, expected in zip(there, here, strict=True):
        assert ct.device_of(got) == "pretend"
        near(ct.to_host(got), expected)
