"""Truncated tensors: the truncation itself, and gradients that survive repeated, clustered and zero values."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import cutnn as ct
from cutnn import algebra
from cutnn.tape import NotDifferentiableWarning
from tests.algebra.catalogue import ALGEBRAS, DELICATE, UNITARY, draw, near
from tests.gradcheck import check

every_algebra = pytest.mark.parametrize("name", ALGEBRAS)
delicate = pytest.mark.parametrize("name", DELICATE)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])


def product(star: Any, factors: Any) -> Any:
    return star(factors[0], star.diagonal(factors[1]), factors[2])


def with_values(star: Any, values: Any, size: tuple[int, int], dtype: Any = np.float64, seed: int = 0) -> Any:
    """A tensor whose faces all have these singular values."""
    U, _, Vh = star.svd(star.random(*size, seed=seed, dtype=dtype))
    tubes = np.asarray(values) * star.eye(1)[..., 0]
    return star(U, star.diagonal(tubes), Vh)


# ------------------------------------------------------------------------------------------------- the tensor


@every_algebra
@every_dtype
def test_it_is_the_product_of_the_truncated_factors(name: str, dtype: Any) -> None:
    star = ALGEBRAS[name]
    for size in ((4, 3), (2, 4)):
        A = star.random(*size, (2,), seed=0, dtype=dtype)
        for rank in range(1, min(size) + 1):
            near(star.low_rank(A, rank), product(star, star.svd(A, rank=rank)), 500)
        near(star.low_rank(A, energy=0.8), product(star, star.svd_energy(A, 0.8)), 500)
        near(star.low_rank(A, count=star.n + 1), product(star, star.svd_energy(A, count=star.n + 1)), 500)
    near(star.low_rank(star.zeros(2, 0), count=1), 0 * star(star.zeros(2, 2), star.zeros(2, 0)))


@pytest.mark.parametrize("name", UNITARY)
def test_no_competitor_of_the_rank_is_nearer(name: str) -> None:
    star = ALGEBRAS[name]
    A = star.random(5, 4, seed=0)
    best = star.low_rank(A, 2)
    error = star.norm(A - best)
    for seed in range(10):
        left, right = star.random(5, 2, seed=seed), star.random(2, 4, seed=seed + 100)
        assert star.norm(A - star(left, star.pinv(left), A)) >= error
        assert star.norm(A - star.low_rank(best + 0.1 * star(left, right), 2)) >= error
    assert np.linalg.matrix_rank(star.to_matrix(best)) == 2 * star.n


# -------------------------------------------------------------------------------------------------- gradients


@delicate
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_gradients_against_differences(name: str, dtype: Any) -> None:
    star = ALGEBRAS[name]
    for size in ((3, 2), (2, 3)):
        A = star.random(*size, seed=3, dtype=dtype)
        check(lambda A: star.low_rank(A, 1), A, rtol=1e-5)
        check(lambda A: star.low_rank(A, 2), A, rtol=1e-5)
        check(lambda A: star.low_rank(A, count=star.n + 1), A, rtol=1e-5, order=1)
        check(lambda A: star.low_rank(A, energy=0.7), A, rtol=1e-5, order=1)


VALUES = {
    "equal, kept": [2, 2, 2, 0.5, 0.1],
    "equal, dropped": [3, 2, 1.5, 0.5, 0.5],
    "equal, both": [2, 2, 2, 0.5, 0.5],
    "zero, dropped": [3, 2, 1, 0, 0],
    "equal, and zero": [2, 2, 2, 0, 0],
    **{f"{gap:g} apart": [2 + gap, 2, 2 - gap, 0.5 + gap, 0.5] for gap in (1e-8, 1e-10, 1e-12, 1e-13, 1e-14)},
}


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("size", [(5, 5), (6, 5), (5, 7)])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_gradients_where_values_meet(values: str, size: tuple[int, int], dtype: Any) -> None:
    """With a gap at the cut the truncation is smooth, whatever the other values do."""
    star = algebra.fft(4)
    A = with_values(star, VALUES[values], size, dtype)
    check(lambda A: star.low_rank(A, 3), A, rtol=1e-5, order=1)


@pytest.mark.parametrize("values", ["equal, both", "equal, and zero", "1e-12 apart"])
def test_second_derivatives_where_values_meet(values: str) -> None:
    star = algebra.fft(2)
    check(lambda A: star.low_rank(A, 3), with_values(star, VALUES[values], (5, 6)), rtol=1e-5)


@every_algebra
def test_gradients_at_the_identity_and_at_zero_values_at_full_rank(name: str) -> None:
    """Kept whole a tensor is itself, and its gradient that of the identity map."""
    star = ALGEBRAS[name]
    eye = star.eye(3)
    for A in (
        eye,
        0 * eye,
        star(star.random(3, 1, seed=0), star.random(1, 3, seed=1)) + 0 * eye,
        eye[..., :2],
    ):
        G = draw(A.shape, A.dtype, seed=5)
        got = ct.vjp(lambda A: star.low_rank(A, min(A.shape[-2:])), A)[1](G)[0]
        near(got, G, 500)


@delicate
def test_below_the_rank_the_gradient_is_along_changes_that_keep_it(name: str) -> None:
    star = ALGEBRAS[name]
    left, right = star.random(4, 1, seed=0, dtype=complex), star.random(1, 3, seed=1, dtype=complex)
    check(lambda B, C: star.low_rank(star(B, C), 2), left, right, rtol=1e-5, order=1)
    A, G = star(left, right), star.random(4, 3, seed=2, dtype=complex)
    U, _, Vh = star.svd(A, rank=1)
    P, Q = star(U, star.transpose(U)), star(star.transpose(Vh), Vh)
    tangent = star(P, G) + star(G, Q) - star(P, G, Q)
    if all(t.scale is not None for t in star.transforms):
        near(ct.vjp(lambda A: star.low_rank(A, 2), A)[1](G)[0], tangent, 1000)
    zero = star.zeros(4, 3) + 0 * star.eye(1)
    assert not ct.grad(lambda A: ct.sum(ct.real(star.low_rank(A, 2))))(zero).any()


def test_gradients_against_torch() -> None:
    """Where no values meet PyTorch's SVD has a derivative."""
    torch = pytest.importorskip("torch")
    A, G = draw((5, 4)), draw((5, 4), seed=1)
    there = torch.tensor(A, requires_grad=True)
    U, S, Vh = torch.linalg.svd(there, full_matrices=False)
    ((U[:, :2] * S[:2]) @ Vh[:2] * torch.tensor(G)).sum().backward()
    got = ct.grad(lambda A: ct.sum(algebra.plain().low_rank(A, 2) * G))(A)
    np.testing.assert_allclose(got, there.grad.numpy(), atol=1e-12)


def test_no_digit_is_lost_at_clusters() -> None:
    """The gradient at values δ apart tends to that at equal ones as δ does: no digit is lost to 1/δ."""
    star, G = algebra.dct(3), draw((3, 5, 5), seed=7)

    def gradient(gap: float) -> Any:
        A = with_values(star, [2 + gap, 2, 2 - gap, 0.5 + gap, 0.5], (5, 5))
        return ct.grad(lambda A: ct.sum(star.low_rank(A, 3) * G))(A)

    exact = gradient(0)
    for gap in (1e-9, 1e-10, 1e-11, 1e-12, 1e-13, 1e-14):
        assert np.abs(gradient(gap) - exact).max() <= 1e-12 + 10 * gap


def test_float32_gradients_at_the_identity() -> None:
    star = algebra.fft(4)
    A = with_values(star, [2, 2, 2, 0.5, 0.5], (5, 5)).astype(np.float32)
    G = draw((4, 5, 5), seed=1)
    exact = ct.grad(lambda A: ct.sum(star.low_rank(A, 3) * G))(A.astype(float))
    got = ct.grad(lambda A: ct.sum(star.low_rank(A, 3) * G.astype(np.float32)))(A)
    assert got.dtype == np.float32
    near(got, exact.astype(np.float32), 100)


# ------------------------------------------------------------------------------------------- where there is none


def test_a_cut_between_equal_values_warns_and_is_that_of_keeping_them_all() -> None:
    star = algebra.dct(3)
    G = draw((3, 3, 3), seed=1)

    def gradient(A: Any, rank: int) -> Any:
        return ct.grad(lambda A: ct.sum(star.low_rank(A, rank) * G))(A)

    with pytest.warns(
        NotDifferentiableWarning, match="in 3 of 3 matrices .* equal to rounding.*no derivative"
    ):
        near(gradient(star.eye(3), 1), G)
    A = with_values(star, [3, 2, 2], (3, 3))
    A = np.stack([A, with_values(star, [3, 2, 1], (3, 3))])
    with pytest.warns(NotDifferentiableWarning, match="in 3 of 6 matrices .* largest one of 3:"):
        found = gradient(A, 2)
    near(found[0], G, 1000)
    near(found[1], gradient(A[1], 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        star.low_rank(star.eye(3), 1)  # no warning without a derivative
        gradient(0 * star.eye(3), 1)  # nor below the rank
        gradient(A[0], 1)


def test_bad_input_is_explained() -> None:
    star = algebra.dct(4)
    A = star.random(3, 2, seed=0)
    for options in ({}, {"rank": 1, "count": 2}, {"energy": 0.9, "count": 2}):
        with pytest.raises(
            TypeError, match=r"low_rank: give one of a rank, an energy, 0.99 say, and a count"
        ):
            star.low_rank(A, **options)
    with pytest.raises(ValueError, match=r"low_rank: the rank of A, \(4, 3, 2\), is one of 1 to 2, not 3"):
        star.low_rank(A, 3)
    with pytest.raises(ValueError, match="low_rank: the energy is a fraction"):
        star.low_rank(A, energy=2)
    for rank in (-1, 4, np.array([1, 3, 1, 1])):
        with pytest.raises(ValueError, match=r"low_rank: the rank of x, \(4, 3, 2\), is one of 0 to 2, not"):
            ct.linalg.low_rank(A, rank)
    assert not ct.linalg.low_rank(A, 0).any()
    near(ct.linalg.low_rank(A, np.array([0, 1, 2, 1]))[1:3], np.stack([ct.linalg.low_rank(A[1], 1), A[2]]))


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 3, fft 4"])
def test_it_stays_on_the_device(name: str, pretend_device: Any) -> None:
    star = ALGEBRAS[name]
    A = star.random(4, 3, (2,), seed=0)
    for options in ({"rank": 2}, {"energy": 0.8}):
        gradient = ct.grad(lambda A: ct.sum(ct.abs(star.low_rank(A, **options)) ** 2))  # noqa: B023
        there = gradient(ct.to_device(A, "pretend"))
        assert ct.device_of(there) == "pretend"
        near(ct.to_host(there), gradient(A))
    with pytest.warns(NotDifferentiableWarning):
        ct.grad(lambda A: ct.sum(star.low_rank(A, 1)))(ct.to_device(star.eye(2), "pretend"))
