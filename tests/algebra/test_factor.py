"""The t-SVDM: its laws in every algebra, the best approximations by the block matrix, gradients, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra
from tests.algebra.catalogue import ALGEBRAS, DELICATE, UNITARY, draw, kron, near, tensors
from tests.gradcheck import check

every_algebra = pytest.mark.parametrize("name", ALGEBRAS)
few = settings(max_examples=settings().max_examples // 4)  # there are many algebras
every_unitary = pytest.mark.parametrize("name", UNITARY)


def spectrum(star: algebra.StarAlgebra, S: Any) -> Any:
    """The singular values, (*batch, n, k), from the matrix of the transform and nothing else."""
    S = S.reshape(*S.shape[: S.ndim - 1 - len(star.shape)], star.n, S.shape[-1])
    return kron(star) @ S


def shapes(star: algebra.StarAlgebra, A: Any, k: int) -> Any:
    batch = A.shape[: A.ndim - 2 - len(star.shape)]
    lead, (rows, columns) = (*batch, *star.shape), A.shape[-2:]
    return (*lead, rows, k), (*lead, k), (*lead, k, columns)


# ----------------------------------------------------------------------------------------------------- laws


@every_algebra
@few
@given(make=tensors())
def test_shapes_of_the_factors(name: str, make: Any) -> None:
    """What they multiply to is among the laws of the algebra."""
    star = ALGEBRAS[name]
    A = make(star)
    U, S, Vh = star.svd(A)
    assert (U.shape, S.shape, Vh.shape) == shapes(star, A, min(A.shape[-2:]))


@every_algebra
def test_factors_of_real_tensors_are_real_where_products_are(name: str) -> None:
    star = ALGEBRAS[name]
    for dtype, kind in ((np.float32, np.complex64), (np.float64, np.complex128)):
        factors = star.svd(star.random(3, 2, seed=0, dtype=dtype))
        assert {x.dtype for x in factors} == {np.dtype(dtype if star.real_products else kind)}
    factors = star.svd(star.random(3, 2, seed=0, dtype=np.complex64))
    real = all(t.real for t in star.transforms)
    assert [x.dtype.name for x in factors] == ["complex64", "float32" if real else "complex64", "complex64"]


@every_algebra
def test_repeated_singular_values_leave_real_factors_unitary(name: str) -> None:
    """The identity, zero, and one tensor in a batch with them: an SVD may then choose any vectors."""
    star = ALGEBRAS[name]
    A = np.stack(
        [star.eye(3), star.zeros(3, 3) + 0 * star.eye(3), star(star.eye(3), star.random(3, 3, seed=0))]
    )
    U, S, Vh = star.svd(A)
    near(star(U, star.diagonal(S), Vh), A)
    near(star(star.transpose(U), U), np.broadcast_to(star.eye(3), A.shape))
    near(star(Vh, star.transpose(Vh)), np.broadcast_to(star.eye(3), A.shape))
    tube = np.broadcast_to(star.eye(1)[..., 0], (*star.shape, 3))
    near(S, np.stack([tube, 0 * tube, S[2]]))


@every_algebra
def test_real_factors_do_not_hang_on_the_phases_of_an_svd(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of real singular vectors and phases of complex ones are free: another library may choose others."""
    svd, rng = ct.linalg.svd, np.random.default_rng(0)

    def other_svd(faces: Any, full_matrices: bool) -> Any:
        U, s, Vh = svd(faces, full_matrices=full_matrices)
        phase = rng.choice([-1.0, 1.0], s.shape)
        if faces.dtype.kind == "c":
            phase = phase * np.exp(2j * np.pi * rng.random(s.shape))
        return U * phase[..., None, :], s, phase.conj()[..., None] * Vh

    star = ALGEBRAS[name]
    A = star.random(4, 3, (2,), seed=0)
    monkeypatch.setattr(ct.linalg, "svd", other_svd)
    U, S, Vh = star.svd(A)
    near(star(U, star.diagonal(S), Vh), A + 0 * star(U, star.diagonal(S), Vh))
    near(star(star.transpose(U), U), np.broadcast_to(star.eye(3), (2, *star.eye(3).shape)))


@every_algebra
def test_every_tensor_of_a_batch_is_factored_alone(name: str) -> None:
    star = ALGEBRAS[name]
    A = star.random(3, 4, (2, 2), seed=0)
    whole, alone = star.svd_energy(A, 0.8), star.svd_energy(A[1, 0], 0.8)
    near(star(*_three(star, whole))[1, 0], star(*_three(star, alone)))
    np.testing.assert_array_equal(whole.multirank[1, 0], alone.multirank)


def _three(star: algebra.StarAlgebra, factors: Any) -> Any:
    return factors[0], star.diagonal(factors[1]), factors[2]


@every_unitary
@pytest.mark.parametrize("size", [(4, 3), (3, 4)])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_singular_values_are_those_of_the_block_matrix_to_rounding(name: str, size: Any, dtype: Any) -> None:
    star = ALGEBRAS[name]
    A = star.random(*size, (2,), seed=0, dtype=dtype)
    U, S, Vh = star.svd(A)
    of_faces = np.sort(spectrum(star, S).real.reshape(2, -1), axis=-1)[:, ::-1]
    of_matrix = np.linalg.svd(star.to_matrix(A), compute_uv=False)[:, : of_faces.shape[-1]]
    assert np.abs(of_faces - of_matrix).max() <= 1e-12 * of_matrix.max()
    for Q in (U, star.transpose(Vh)):
        matrix = star.to_matrix(Q)
        gram = np.swapaxes(matrix.conj(), -1, -2) @ matrix
        assert np.abs(gram - np.eye(gram.shape[-1])).max() <= 1e-13 * star.n


# -------------------------------------------------------------------------------------- best approximations


@every_unitary
@few
@given(make=tensors(), seed=st.integers(0, 99))
def test_no_tensor_of_a_tubal_rank_is_nearer(name: str, make: Any, seed: int) -> None:
    """Eckart-Young: the error is that of the tails of the faces' singular values, and others' is not smaller."""
    star = ALGEBRAS[name]
    A = make(star).astype(np.complex128 if make(star).dtype.kind == "c" else np.float64)
    whole = spectrum(star, star.svd(A).S).real
    scale = np.prod([t.scale for t in star.transforms])
    for rank in range(1, min(A.shape[-2:]) + 1):
        error = star.norm(A - star(*_three(star, star.svd(A, rank=rank)))) ** 2
        tails = np.sum(whole[..., rank:] ** 2, axis=(-2, -1)) / scale
        np.testing.assert_allclose(error, tails, atol=1e-10 * (1 + np.max(np.abs(A)) ** 2))
        other = star.random(A.shape[-2], rank, seed=seed)
        nearest = star(other, star.pinv(other), A)  # the best with these lateral slices
        assert np.all(star.norm(A - nearest) ** 2 >= error - 1e-9)


@every_unitary
@few
@given(make=tensors(), count=st.integers(1, 12))
def test_the_largest_triplets_are_those_of_the_block_matrix(name: str, make: Any, count: int) -> None:
    star = ALGEBRAS[name]
    A = make(star).astype(np.complex128 if make(star).dtype.kind == "c" else np.float64)
    truncated = star.svd_energy(A, count=count)
    ranks = truncated.multirank.reshape(*A.shape[: A.ndim - 2 - len(star.shape)], -1).sum(axis=-1)
    matrices, approximations = star.to_matrix(A), star.to_matrix(star(*_three(star, truncated)))
    most = star.n * min(A.shape[-2:])
    pairs = star.half_shape != star.shape and A.dtype.kind == "f"
    assert np.all(ranks <= count) and np.all(ranks >= min(count, most) - pairs)
    values = np.linalg.svd(matrices, compute_uv=False)
    left = np.arange(most) >= ranks[..., None]
    best = np.sum(np.where(left, values**2, 0), axis=-1)
    error = np.linalg.norm(matrices - approximations, axis=(-2, -1)) ** 2
    np.testing.assert_allclose(error, best, atol=1e-9 * (1 + np.max(values) ** 2))
    np.testing.assert_allclose(  # the singular values of A★ are those of the faces, each face counted
        np.sort(spectrum(star, star.svd(A).S).real.reshape(*values.shape[:-1], most), axis=-1)[..., ::-1],
        values[..., :most],
        atol=1e-10 * (1 + np.max(values)),
    )


@every_algebra
@few
@given(make=tensors(), energy=st.sampled_from([0.3, 0.8, 0.99, 1.0]))
def test_the_fewest_triplets_reach_the_energy(name: str, make: Any, energy: float) -> None:
    star = ALGEBRAS[name]
    A = make(star).astype(np.complex128 if make(star).dtype.kind == "c" else np.float64)
    truncated = star.svd_energy(A, energy)
    width = truncated.S.shape[-1]
    assert truncated.U.shape[-1] == truncated.Vh.shape[-2] == width == np.max(truncated.multirank)
    pairs = star.half_shape != star.shape and A.dtype.kind == "f"
    most = star.n * min(A.shape[-2:])
    values = spectrum(star, star.svd(A).S).real.reshape(-1, most)
    kept = spectrum(star, truncated.S).real.reshape(len(values), star.n * width)
    for singular, held, ranks in zip(values, kept, truncated.multirank.reshape(-1, star.n), strict=True):
        squares = np.sort(singular)[::-1] ** 2
        if squares.sum() < 1e-20:
            assert ranks.sum() == 0
            continue
        share = np.cumsum(squares) / squares.sum()
        fewest = 1 + np.sum(share < energy - 1e-9)
        enough = most if energy == 1 else 1 + np.sum(share < energy + 1e-9)
        assert fewest <= ranks.sum() <= enough + pairs
        assert np.sum(held**2) >= (energy - 1e-9) * squares.sum()


@every_algebra
def test_faces_keep_as_many_triplets_as_the_multirank_says(name: str) -> None:
    star = ALGEBRAS[name]
    U, S, Vh, multirank, _ = star.svd_energy(star.random(4, 3, (2,), seed=1), 0.7)
    assert multirank.shape == (2, *star.shape)
    values = spectrum(star, S)
    np.testing.assert_array_equal((np.abs(values) > 1e-12).sum(axis=-1), multirank.reshape(2, star.n))
    for slices in (U, np.swapaxes(Vh, -1, -2)):
        flat = slices.reshape(2, star.n, -1, slices.shape[-1])
        norms = np.linalg.norm(np.einsum("kq,bqij->bkij", kron(star), flat), axis=-2)
        near(norms, (np.arange(S.shape[-1]) < multirank.reshape(2, star.n, 1)) * 1.0, 1000)


def test_conjugate_faces_are_kept_or_dropped_together() -> None:
    star = algebra.fft(4)
    A = star.inverse(np.array([1.0, 3.0, 2.0]).reshape(3, 1, 1) + 0j)  # the spectrum 1, 3, 2, 3
    assert [star.svd_energy(A, count=k).multirank.tolist() for k in (1, 2, 3, 4)] == [
        [0, 0, 0, 0],
        [0, 1, 0, 1],
        [0, 1, 1, 1],
        [1, 1, 1, 1],
    ]
    assert star.svd_energy(A, 17.9 / 23).multirank.sum() == 2
    assert star.svd_energy(A, 18.1 / 23).multirank.sum() == 3
    assert star.svd_energy(A + 0j, count=1).multirank.sum() == 1  # a complex tensor has no pairs


def test_a_zero_tensor_and_one_without_slices() -> None:
    star = algebra.fft(3)
    U, S, Vh, multirank, _ = star.svd_energy(star.zeros(2, 3), 0.9)
    assert multirank.tolist() == [0, 0, 0] and S.shape == (3, 0)
    assert not star(U, star.diagonal(S), Vh).any()
    assert [x.shape for x in star.svd(star.zeros(2, 0))] == [(3, 2, 0), (3, 0), (3, 0, 0)]


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_extreme_sizes_of_numbers(size: float) -> None:
    star = algebra.dct(4)
    A = star.random(3, 2, seed=0)
    np.testing.assert_array_equal(star.svd_energy(A * size, 0.8).multirank, star.svd_energy(A, 0.8).multirank)


# ------------------------------------------------------------------------------------------------- diagonal


@every_algebra
def test_diagonal_holds_the_tubes_and_zeros(name: str) -> None:
    star = ALGEBRAS[name]
    S = draw((2, *star.shape, 3))
    D = star.diagonal(S)
    assert D.shape == (2, *star.shape, 3, 3)
    near(np.diagonal(D, axis1=-2, axis2=-1), S)
    assert np.count_nonzero(D) == S.size


# ------------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("name", DELICATE)
def test_gradients_against_differences(name: str, dtype: Any) -> None:
    """Of what does not depend on the vectors' signs, phases: the values and the best approximations."""
    star = ALGEBRAS[name]
    A = star.random(3, 2, seed=3, dtype=dtype)
    check(lambda A: star.svd(A).S, A, rtol=1e-5, order=1)
    check(lambda A: star(*_three(star, star.svd(A, rank=1))), A, rtol=1e-5, order=1)
    check(lambda A: star(*_three(star, star.svd_energy(A, count=3)[:3])), A, rtol=1e-5, order=1)


def test_gradients_of_second_order() -> None:
    star = algebra.fft(4)
    check(lambda A: star(*_three(star, star.svd(A, rank=1))), star.random(3, 2, seed=3), rtol=1e-4)


def test_gradient_at_repeated_values_is_finite_and_that_of_the_nuclear_norm() -> None:
    star = algebra.fft(4)
    gradient = ct.grad(lambda A: ct.sum(star.svd(A).S[0]))(
        star.eye(2)
    )  # tube 0 of S is their mean over faces
    near(gradient, star.eye(2) / 1.0)


# ------------------------------------------------------------------------------------------------ bad input


def test_wrong_ranks_energies_and_shapes_are_explained() -> None:
    star = algebra.dct(4)
    A = star.zeros(3, 2)
    for rank in (0, 3):
        with pytest.raises(ValueError, match=rf"rank of A, \(4, 3, 2\), is one of 1 to 2, not {rank}"):
            star.svd(A, rank=rank)
    for energy in (0, 1.01, float("nan")):
        with pytest.raises(ValueError, match="a fraction above 0, up to 1"):
            star.svd_energy(A, energy)
    with pytest.raises(ValueError, match="at least 1, and is 0"):
        star.svd_energy(A, count=0)
    for arguments in ({}, {"energy": 0.9, "count": 2}):
        with pytest.raises(TypeError, match="either an energy, 0.99 say, or a count"):
            star.svd_energy(A, **arguments)
    with pytest.raises(ValueError, match=r"svd: A has shape \(3, 2\), too few axes"):
        star.svd(np.zeros((3, 2)))
    with pytest.raises(
        ValueError, match=r"diagonal: S has shape \(3, 2\); expected k tubes, \(\.\.\., 4, k\)"
    ):
        star.diagonal(np.zeros((3, 2)))


# -------------------------------------------------------------------------------------------------- devices


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 3, fft 4"])
def test_factors_stay_on_the_device(name: str, pretend_device: Any) -> None:
    star = ALGEBRAS[name]
    A = star.random(3, 2, (2,), seed=0)
    there = ct.to_device(A, "pretend")
    here = star.svd_energy(A, 0.9)
    got_, expected_ = ([*x[:4], *x.compression] for x in (star.svd_energy(there, 0.9), here))
    for got, expected in zip(got_, expected_, strict=True):
        assert ct.device_of(got) == "pretend"
        np.testing.assert_allclose(ct.to_host(got), expected, atol=1e-12)
    gradient = ct.grad(lambda A: ct.sum(ct.abs(star.svd(A, rank=1).S) ** 2))
    near(ct.to_host(gradient(there)), gradient(A))
    assert ct.device_of(star.diagonal(there[..., 0])) == "pretend"
