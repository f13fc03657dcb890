"""Linear autoencoders: against scikit-learn and NumPy's SVD, as the best of their size, their codes, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra, data, nn, train
from tests.algebra.catalogue import ALGEBRAS, UNITARY, kron

few = settings(max_examples=settings().max_examples // 5)  # there are many algebras
every_algebra = pytest.mark.parametrize("name", ALGEBRAS)
every_unitary = pytest.mark.parametrize("name", UNITARY)
error = nn.SquaredError()


def samples(name: str, rows: int = 4, count: int = 30, seed: int = 0, dtype: Any = np.float64) -> Any:
    """Tensors whose directions and faces carry energies that differ, about a mean that is not 0."""
    star = ALGEBRAS[name]
    noise = star.random(rows, count, seed=seed, dtype=dtype) * np.arange(1, rows + 1)[:, None]
    slopes = np.linspace(0.2, 2, star.n).reshape(*star.shape, 1, 1)
    return (noise * slopes + 3 * star.random(rows, 1, seed=seed + 1)).astype(dtype)


# ------------------------------------------------------------------------------------------------------- PCA


@pytest.mark.parametrize("rank", [1, 3, 4])
def test_pca_is_that_of_scikit_learn(rank: int) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    X = samples("plain")
    theirs = decomposition.PCA(rank, svd_solver="full").fit(X.T)
    ours = nn.pca(X, rank)
    np.testing.assert_allclose(ours(X), theirs.inverse_transform(theirs.transform(X.T)).T, atol=1e-12)
    np.testing.assert_allclose(np.abs(ours.encode(X)), np.abs(theirs.transform(X.T)).T, atol=1e-12)
    assert ours.latent == rank
    uncentred = nn.pca(X, rank, center=False)
    U, s, Vh = np.linalg.svd(X, full_matrices=False)
    np.testing.assert_allclose(uncentred(X), U[:, :rank] * s[:rank] @ Vh[:rank], atol=1e-12)
    assert uncentred.mean is None


# ------------------------------------------------------------------------------------- the best of their size


@every_unitary
@few
@given(rank=st.integers(1, 4), center=st.booleans(), seed=st.integers(0, 50))
def test_t_svdm_leaves_the_tails_of_the_singular_values(
    name: str, rank: int, center: bool, seed: int
) -> None:
    star, X = ALGEBRAS[name], samples(name, seed=seed)
    model = nn.t_svdm(star, X, rank, center=center)
    assert model.latent == rank * star.n
    values = faces_values(star, X - np.mean(X, axis=-1, keepdims=True) if center else X)
    tails = np.sum(values[:, rank:] ** 2) / _scale(star) / X.shape[-1]
    assert float(error(model(X), X)) == pytest.approx(tails, rel=1e-9, abs=1e-9)


@every_unitary
@few
@given(rank=st.integers(1, 3), center=st.booleans(), seed=st.integers(0, 50))
def test_t_svdmii_is_never_worse_than_t_svdm(name: str, rank: int, center: bool, seed: int) -> None:
    star, X = ALGEBRAS[name], samples(name, seed=seed)
    pooled = nn.t_svdmii(star, X, count=rank * star.n, center=center)
    pairs = star.half_shape != star.shape
    assert rank * star.n - pairs <= pooled.latent <= rank * star.n
    values = np.sort(faces_values(star, X - np.mean(X, axis=-1, keepdims=True) if center else X).ravel())[
        ::-1
    ]
    rest = np.sum(values[pooled.latent :] ** 2) / _scale(star) / X.shape[-1]
    assert float(error(pooled(X), X)) == pytest.approx(rest, rel=1e-9, abs=1e-9)
    if pooled.latent == rank * star.n:
        assert error(pooled(X), X) <= error(nn.t_svdm(star, X, rank, center=center)(X), X) + 1e-9


@every_unitary
@pytest.mark.parametrize("energy", [0.6, 0.95])
def test_the_share_of_energy_is_the_error_left(name: str, energy: float) -> None:
    star, X = ALGEBRAS[name], samples(name)
    model = nn.t_svdmii(star, X, energy)
    whole = float(error(0 * X, X))
    assert float(error(model(X), X)) <= (1 - energy) * whole * (1 + 1e-9)
    fewer = nn.t_svdmii(star, X, count=model.latent - 1) if model.latent > 1 else None
    assert fewer is None or float(error(fewer(X), X)) > (1 - energy) * whole


def faces_values(star: algebra.StarAlgebra, X: Any) -> Any:
    faces = np.tensordot(kron(star), X.reshape(star.n, *X.shape[-2:]), axes=1)
    return np.linalg.svd(faces, compute_uv=False)


def _scale(star: algebra.StarAlgebra) -> float:
    return float(np.prod([t.scale for t in star.transforms]))


# ------------------------------------------------------------------------------------------------- projections


@every_algebra
def test_encode_and_decode_are_a_projection(name: str) -> None:
    star, X = ALGEBRAS[name], samples(name)
    for model in (
        nn.t_svdm(star, X, 2),
        nn.t_svdm(star, X, 2, center=True),
        nn.t_svdmii(star, X, 0.8, center=True),
    ):
        Y = model(X)
        np.testing.assert_allclose(model(Y), Y, atol=1e-11)
        np.testing.assert_array_equal(Y, model.decode(model.encode(X)))
        np.testing.assert_allclose(model.encode(Y), model.encode(X), atol=1e-11)
        assert model.encode(X).shape[-2] == model.basis.shape[-1]
    np.testing.assert_allclose(nn.t_svdm(star, X, 4)(X), X + 0 * model(X), atol=1e-11)  # of full rank


def test_numbers_of_the_code_that_a_face_does_not_use_are_zeros() -> None:
    star, X = ALGEBRAS["dct 5"], samples("dct 5")
    model = nn.t_svdmii(star, X, count=7)
    codes = kron(star) @ model.encode(X).reshape(5, -1)
    used = np.abs(codes.reshape(5, -1, 30)).max(axis=-1) > 1e-12
    assert used.sum() == model.latent == 7


def test_single_precision_stays_single() -> None:
    X = samples("fft 4", dtype=np.float32)
    for model in (nn.t_svdm(ALGEBRAS["fft 4"], X, 2, center=True), nn.pca(nn.Unfold()(X), 3)):
        assert {model.basis.dtype, model.mean.dtype} == {np.dtype(np.float32)}
    assert nn.t_svdm(ALGEBRAS["fft 4"], X, 2)(X).dtype == np.float32


def test_evaluate_measures_a_baseline_as_a_network() -> None:
    digits = data.load("digits")
    star, dataset = algebra.dct(8), data.reconstruction(digits)
    X, _ = dataset.train.batch(slice(None))
    model = nn.t_svdm(star, X, 3)
    measured = train.evaluate(model, error, dataset.train)
    assert measured.loss == pytest.approx(float(error(model(X), X)), rel=1e-5) and measured.accuracy is None
    matrices = data.reconstruction(digits, unfold=True)
    whole = nn.pca(matrices.train.batch(slice(None))[0], 24)  # 24 = 3 * 8 numbers: PCA has all linear maps
    assert train.evaluate(whole, error, matrices.train).loss < measured.loss


# ----------------------------------------------------------------------------------------- bad input, devices


def test_wrong_ranks_and_shapes_are_explained() -> None:
    star, X = ALGEBRAS["dct 5"], samples("dct 5")
    with pytest.raises(ValueError, match="is one of 1 to 4, not 5"):
        nn.t_svdm(star, X, 5)
    with pytest.raises(TypeError, match="either an energy, 0.99 say, or a count"):
        nn.t_svdmii(star, X)
    with pytest.raises(ValueError, match=r"factors 1 and 2"):
        nn.t_svdm(star, X, 2).encode(X[:, :3])


def test_baselines_live_where_the_samples_do(pretend_device: Any) -> None:
    star, X = ALGEBRAS["fft 4"], samples("fft 4")
    there = ct.to_device(X, "pretend")
    for fit in (
        lambda X: nn.t_svdm(star, X, 2, center=True),
        lambda X: nn.t_svdmii(star, X, count=6),
    ):
        model = fit(there)
        assert ct.device_of(model.basis) == "pretend"
        np.testing.assert_allclose(ct.to_host(model(there)), fit(X)(X), atol=1e-12)
