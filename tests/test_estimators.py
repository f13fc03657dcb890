"""Estimators: by scikit-learn's checks, its PCA and mprod's TCAM, laws over algebras, use in pipelines, bad input."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mprod.dimensionality_reduction import TCAM
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator

import cutnn as ct
from cutnn import algebra, nn
from cutnn.estimators import TensorPCA, TensorSVD
from tests.algebra.catalogue import EVERY, kron, projector

REAL = {name: star for name, star in EVERY.items() if star.real_products}
UNITARY = [name for name, star in REAL.items() if all(t.scale is not None for t in star.transforms)]
REAL_M = [name for name, star in REAL.items() if all(t.real for t in star.transforms)]
few = settings(max_examples=max(1, settings().max_examples // 6))  # there are many algebras
every_algebra = pytest.mark.parametrize("name", REAL)
every_unitary = pytest.mark.parametrize("name", UNITARY)
both = pytest.mark.parametrize("estimator", [TensorPCA, TensorSVD])
sizes = {"count": st.integers(2, 9), "features": st.integers(1, 5), "seed": st.integers(0, 99)}


def samples(shape: Any, count: int = 20, features: int = 3, seed: int = 0, dtype: Any = np.float64) -> Any:
    """Samples (count, features, *shape) of energies that differ, about a mean that is not 0."""
    rng = np.random.default_rng((seed, count, features, *shape))
    mix = rng.standard_normal((features, features))
    X = np.einsum("ij,sj...->si...", mix, rng.standard_normal((count, features, *shape)))
    return (np.cumsum(X, axis=-1) + rng.standard_normal((features, *shape))).astype(dtype)


def inner(X: Any, Y: Any) -> Any:
    """The inner products of tensors (count, ...) with others: (count, count)."""
    return X.reshape(len(X), -1) @ Y.reshape(len(Y), -1).T


def slices(X: Any) -> Any:
    return np.moveaxis(X, (1, 0), (-2, -1))


def faces(star: algebra.StarAlgebra) -> int:
    return math.prod(star.face_shape)


def projection(star: algebra.StarAlgebra, X: Any) -> Any:
    """Samples with tubes that the transform determines, the samples themselves if M is invertible."""
    return np.reshape(X.reshape(*X.shape[:2], star.n) @ projector(star).real.T, X.shape)


# ---------------------------------------------------------------------------------------------- scikit-learn


@both
def test_every_check_of_scikit_learn(estimator: Any) -> None:
    results = check_estimator(estimator(), on_skip=None)
    assert sum(result["status"] == "passed" for result in results) > 40
    tags = get_tags(estimator())
    assert tags.input_tags.three_d_array and tags.transformer_tags.preserves_dtype == ["float64", "float32"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("count", "features"), [(30, 5), (5, 30)])
@pytest.mark.parametrize("n_components", [None, 3, 0.8])
def test_pca_of_matrices_is_that_of_scikit_learn(
    count: int, features: int, n_components: Any, dtype: Any
) -> None:
    X = samples((), count, features, dtype=dtype)
    theirs = PCA(n_components, svd_solver="full").fit(X)
    ours = TensorPCA(n_components).fit(X)
    near = (
        {"rtol": 1e-5, "atol": 2e-4, "strict": True}
        if dtype == np.float32
        else {"atol": 1e-10, "strict": True}
    )
    rank = min(theirs.n_components_, count - 1)  # further directions have no variance and are free
    assert (ours.n_components_, ours.n_features_in_) == (theirs.n_components_, theirs.n_features_in_)
    assert ours.star_ == algebra.plain() and ours.multirank_ == theirs.n_components_
    for name in (
        "mean_",
        "components_",
        "singular_values_",
        "explained_variance_",
        "explained_variance_ratio_",
    ):
        x, y = getattr(ours, name), getattr(theirs, name)
        np.testing.assert_allclose(*((x, y) if name == "mean_" else (x[:rank], y[:rank])), **near)
    scores = ours.transform(X)
    np.testing.assert_allclose(scores[:, :rank], theirs.transform(X)[:, :rank], **near)
    np.testing.assert_allclose(
        ours.inverse_transform(scores), theirs.inverse_transform(theirs.transform(X)), **near
    )


def test_svd_of_matrices_is_that_of_scikit_learn() -> None:
    X = samples((), 30, 5)
    theirs, ours = TruncatedSVD(3, algorithm="arpack", random_state=0).fit(X), TensorSVD(3).fit(X)
    np.testing.assert_allclose(ours.singular_values_, theirs.singular_values_)
    np.testing.assert_allclose(np.abs(inner(ours.components_, theirs.components_)), np.eye(3), atol=1e-10)


def test_tubes_of_length_one_are_numbers() -> None:
    X = samples((), 20, 4)
    one, other = TensorPCA(2).fit(X), TensorPCA(2).fit(X[..., None])
    np.testing.assert_allclose(one.transform(X), other.transform(X[..., None]))
    assert other.components_.shape == (2, 4, 1)


@both
def test_digits_in_a_pipeline(estimator: Any) -> None:
    digits = load_digits()
    model = make_pipeline(estimator(n_components=20), LogisticRegression(max_iter=2000))
    search = GridSearchCV(model, {f"{estimator.__name__.lower()}__algebra": ["dct", algebra.haar(8)]}, cv=2)
    search.fit(digits.images[:400] / 16, digits.target[:400])
    assert search.score(digits.images[1000:] / 16, digits.target[1000:]) > 0.85


@both
def test_clone_pickle_names_and_frames(estimator: Any) -> None:
    pandas = pytest.importorskip("pandas")
    X = samples((5,))
    model = estimator(3, algebra=algebra.fft(5))
    copy = clone(model).fit(X)
    assert copy.algebra == algebra.fft(5) and not hasattr(model, "components_")
    again = pickle.loads(pickle.dumps(copy))
    np.testing.assert_array_equal(again.transform(X), copy.transform(X))
    np.testing.assert_array_equal(again.components_, copy.components_)
    frame = copy.set_output(transform="pandas").transform(X)
    names = [f"{estimator.__name__.lower()}{k}" for k in range(copy.n_components_)]
    assert isinstance(frame, pandas.DataFrame) and list(frame.columns) == names
    np.testing.assert_array_equal(copy.inverse_transform(frame), again.inverse_transform(frame.to_numpy()))


# ----------------------------------------------------------------------------------------------------- mprod


@pytest.mark.parametrize("shape", [(20, 3, 6), (4, 7, 5)])
@pytest.mark.parametrize("n_components", [None, 7, 0.6])
def test_agreement_with_tcam(shape: Any, n_components: Any) -> None:
    """TCAM never keeps all: of None it leaves the last component out. Its M is the orthonormal DCT-II."""
    X = samples(shape[2:], *shape[:2])
    theirs = TCAM(n_components=n_components).fit(X)
    ours = TensorPCA(n_components, algebra="dct").fit(X)
    assert ours.n_components_ == theirs.n_components_ + (n_components is None)
    k = min(theirs.n_components_, min(shape[0] - 1, shape[1]) * shape[2])  # those with variance
    np.testing.assert_allclose(ours.explained_variance_ratio_[:k], theirs.explained_variance_ratio_[:k])
    Y, Z = ours.transform(X)[:, :k], theirs.transform(X)[:, :k]
    signs = np.sign(np.sum(Y * Z, axis=0))
    np.testing.assert_allclose(Y, Z * signs, atol=1e-10)
    new = samples(shape[2:], *shape[:2], seed=1)
    np.testing.assert_allclose(ours.transform(new)[:, :k], theirs.transform(new)[:, :k] * signs, atol=1e-10)
    if n_components is not None:
        decoded = theirs.inverse_transform(theirs.transform(new))
        np.testing.assert_allclose(ours.inverse_transform(ours.transform(new)), decoded, atol=1e-10)
        face, _ = theirs._n_factors_order
        u = ours.star_.forward(
            np.moveaxis(ours.components_, 0, -1).swapaxes(0, 1)
        )  # (n, features, components)
        u = u[face, :, range(k)].T
        np.testing.assert_allclose(np.abs(u), np.abs(theirs.mode2_loadings), atol=1e-10)


# ------------------------------------------------------------------------------------------------------ laws


@every_algebra
@few
@given(**sizes)
def test_scores_are_inner_products_with_the_dual_components(
    name: str, count: int, features: int, seed: int
) -> None:
    star = REAL[name]
    X, new = (samples(star.shape, count, features, s) for s in (seed, seed + 1))
    for model, mean in ((TensorPCA(algebra=star), np.mean(X, axis=0)), (TensorSVD(algebra=star), 0)):
        np.testing.assert_allclose(
            model.fit_transform(X), model.transform(X), atol=1e-12 * np.abs(X).max() * star.n
        )
        scores = model.fit(X).transform(new)
        k = faces(star) * min(count, features)
        assert scores.shape == (count, k) and model.n_components_ == k and model.multirank_.sum() == k
        components, dual = model.components_, model.dual_components_
        assert components.shape == dual.shape == (k, features, *star.shape)
        np.testing.assert_allclose(inner(dual, components), np.eye(k), atol=1e-11)
        np.testing.assert_allclose(inner(new - mean, dual), scores, atol=1e-11 * np.abs(new).max() * k)
        decoded = np.tensordot(scores, components, axes=1) + mean
        np.testing.assert_allclose(
            model.inverse_transform(scores), decoded, atol=1e-11 * np.abs(new).max() * k
        )
        if name in UNITARY:
            np.testing.assert_allclose(components, dual, atol=1e-13)


@every_algebra
@few
@given(**sizes)
def test_what_is_decoded(name: str, count: int, features: int, seed: int) -> None:
    """The samples of fit by all components, or their projections; every sample too, where these are a basis."""
    star = REAL[name]
    X, new = (samples(star.shape, count, features, s) for s in (seed, seed + 1))
    for model, mean in ((TensorPCA(algebra=star), np.mean(X, axis=0)), (TensorSVD(algebra=star), 0)):
        for Y in (X, new)[: 1 + (count >= features)]:
            decoded = model.fit(X).inverse_transform(model.transform(Y))
            expected = projection(star, Y - mean) + mean
            np.testing.assert_allclose(decoded, expected, atol=1e-11 * np.abs(Y).max())


@every_algebra
@few
@given(**sizes, part=st.floats(0, 1))
def test_variances_and_eckart_young(name: str, count: int, features: int, seed: int, part: float) -> None:
    star = REAL[name]
    X = projection(star, samples(star.shape, count, features, seed))
    k = 1 + int(part * (faces(star) * min(count, features) - 1))
    model, whole = (TensorPCA(n, algebra=star).fit(X) for n in (k, None))
    scores = model.transform(X)
    assert scores.shape[1] == k
    variances = np.var(scores, axis=0, ddof=1)
    np.testing.assert_allclose(model.explained_variance_, variances, atol=1e-12 * variances.max())
    np.testing.assert_allclose(
        model.singular_values_**2, variances * (count - 1), atol=1e-11 * variances.max()
    )
    assert np.all(np.diff(model.explained_variance_) <= 0)
    assert np.isclose(whole.explained_variance_ratio_.sum(), 1)
    np.testing.assert_allclose(
        model.explained_variance_ratio_, whole.explained_variance_ratio_[:k], atol=1e-14
    )
    if name in UNITARY:
        total = np.sum((X - X.mean(axis=0)) ** 2)
        lost = np.sum((X - model.inverse_transform(scores)) ** 2)
        assert np.isclose(lost, total * (1 - model.explained_variance_ratio_.sum()), atol=1e-11 * total)
        for n in (k, None):  # and so without the mean
            codec = TensorSVD(n, algebra=star) if n != 1 else TensorSVD(algebra=star)
            lost = np.sum((X - codec.fit(X).inverse_transform(codec.transform(X))) ** 2)
            total = np.sum(X**2)
            assert np.isclose(lost, total - np.sum(codec.singular_values_**2), atol=1e-11 * total)
            assert np.isclose(lost, total * (1 - codec.energy_ratio_.sum()), atol=1e-11 * total)
            assert np.isclose(np.sqrt(lost / total), codec.relative_error_, atol=1e-7)


@every_algebra
@few
@given(share=st.floats(0.01, 1), seed=st.integers(0, 99))
def test_a_share_is_reached_by_as_few_as_can(name: str, share: float, seed: int) -> None:
    X = samples(REAL[name].shape, 8, 3, seed)
    ratios = TensorPCA(share, algebra=REAL[name]).fit(X).explained_variance_ratio_
    assert ratios.sum() >= share - 1e-12 and ratios[:-1].sum() < share
    ratios = TensorSVD(share, algebra=REAL[name]).fit(X).energy_ratio_
    assert ratios.sum() >= share - 1e-12


@every_algebra
def test_the_variances_are_the_squared_singular_values_of_all_faces(name: str) -> None:
    """By the matrix M and NumPy's SVD alone. A conjugate pair has 2 σ² in its two parts."""
    star = REAL[name]
    X = samples(star.shape, 9, 3)
    A = slices(X - X.mean(axis=0))
    M, n = kron(star), faces(star)
    values = np.linalg.svd(np.tensordot(M, A.reshape(star.n, 3, 9), axes=1), compute_uv=False) ** 2
    values /= np.sum(np.abs(M) ** 2) / n
    model = TensorPCA(algebra=star).fit(X)
    if name in REAL_M:
        np.testing.assert_allclose(model.singular_values_**2, -np.sort(-values, axis=None))
    # Of each face and its conjugate, whatever the order.
    by_face: dict[Any, list[float]] = {}
    transform = star.forward(slices(np.stack([*model.components_]).astype(complex)))
    on = np.abs(transform.reshape(n, 3, -1)).sum(axis=1) > 1e-9
    for k, of in enumerate(on.T):
        by_face.setdefault(tuple(np.nonzero(of)[0]), []).append(model.singular_values_[k] ** 2)
    assert sorted(f for of in by_face for f in of) == list(range(n))
    for of, found in by_face.items():
        assert len(of) <= 2
        assert np.isclose(sum(found), values[list(of)].sum())


@pytest.mark.parametrize("name", REAL_M)
def test_scores_of_a_face_are_uncorrelated(name: str) -> None:
    star = REAL[name]
    model = TensorPCA(algebra=star)
    scores = model.fit_transform(samples(star.shape, 30, 4))
    covariance = np.cov(scores.T)
    transform = star.forward(slices(model.components_)).reshape(faces(star), 4, -1)
    face = np.abs(transform).sum(axis=1).argmax(axis=0)
    same = face[:, None] == face
    np.testing.assert_allclose(
        covariance[same & ~np.eye(len(face), dtype=bool)], 0, atol=1e-11 * covariance.max()
    )
    if faces(star) > 1 and "identity" not in name:  # and others are not, which is no fault
        assert np.abs(covariance[~same]).max() > 1e-3 * covariance.max()


@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_scores_of_a_conjugate_pair(n: int) -> None:
    """Uncorrelated, the first of the largest variance that any phase gives, and the shares of 2 σ² in two parts."""
    star = algebra.fft(n)
    X = samples((n,), 30, 1)  # one feature: one triplet a face
    model = TensorPCA(algebra=star)
    scores = model.fit_transform(X)
    z = np.fft.fft(X[:, 0] - X[:, 0].mean(axis=0)) / np.sqrt(n)
    transform = np.abs(np.fft.fft(model.components_[:, 0]))
    for k in range(n // 2 + 1):
        mine = np.nonzero(transform[:, k] > 1e-9)[0]
        own = k == 0 or 2 * k == n
        assert len(mine) == (1 if own else 2)
        if own:
            np.testing.assert_allclose(np.abs(scores[:, mine[0]]), np.abs(z[:, k].real), atol=1e-12)
        else:
            first, second = scores[:, mine].T
            assert abs(first @ second) < 1e-12 * (first @ first)
            turned = [np.sqrt(2) * (z[:, k] * np.exp(1j * t)).real for t in np.linspace(0, np.pi, 200)]
            assert first @ first >= max(y @ y for y in turned) * (1 - 1e-12)
            assert np.isclose(first @ first + second @ second, 2 * np.sum(np.abs(z[:, k]) ** 2))


def test_complex_scores_of_a_pair_are_uncorrelated() -> None:
    star, X = algebra.fft(5), samples((5,), 30, 3)
    model = TensorPCA(algebra=star)
    scores = model.fit_transform(X)
    transform = np.fft.fft(model.components_, axis=-1)
    for k in (1, 2):
        mine = np.nonzero(np.abs(transform[:, :, k]).sum(axis=1) > 1e-9)[0]
        u = transform[mine, :, k]
        pairs: list[Any] = []  # Re and Im have parallel vectors u
        for i in range(6):
            for j in range(i):
                if np.isclose(abs(np.vdot(u[i], u[j])), np.linalg.norm(u[i]) * np.linalg.norm(u[j])):
                    pairs.append((mine[j], mine[i], np.vdot(u[j], u[i])))
        assert len(pairs) == 3
        z = np.stack([scores[:, a] + 1j * np.sign(turn.imag) * scores[:, b] for a, b, turn in pairs])
        gram = z @ z.conj().T
        np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-11 * np.abs(gram).max())


@every_algebra
def test_signs_do_not_depend_on_the_order_of_samples(name: str) -> None:
    X = samples(REAL[name].shape, 30)
    for estimator in (TensorPCA, TensorSVD):
        one, other = (estimator(algebra=REAL[name]).fit(x) for x in (X, X[::-1]))
        np.testing.assert_allclose(one.components_, other.components_, atol=1e-7)


# ------------------------------------------------------------------------------------------- the networks' own


@every_algebra
@pytest.mark.parametrize("wanted", [1.0, 0.9, 7])
def test_compression_is_the_projection_of_t_svdmii(name: str, wanted: Any) -> None:
    star = REAL[name]
    X, new = samples(star.shape, 20, 3), samples(star.shape, 5, 3, seed=1)
    wanted = min(wanted, 3 * faces(star))
    model = TensorSVD(wanted, algebra=star).fit(X)
    chosen = {"energy": wanted} if isinstance(wanted, float) else {"count": wanted}
    theirs = nn.t_svdmii(star, slices(X), **chosen)
    assert model.n_components_ == theirs.latent
    decoded = model.inverse_transform(model.transform(new))
    np.testing.assert_allclose(slices(decoded), theirs(slices(new)), atol=1e-10)
    truncated = star.svd_energy(slices(X), **chosen)
    np.testing.assert_array_equal(model.multirank_, truncated.multirank)
    assert model.storage_ == truncated.compression.storage
    assert model.storage_ == model.n_components_ * (20 + 3)
    assert np.isclose(model.compression_ratio_, X.size / model.storage_)


@pytest.mark.parametrize("name", REAL_M)
@pytest.mark.parametrize("count", [1, 5])
def test_components_are_the_projection_of_t_svdmii_about_the_mean(name: str, count: int) -> None:
    star = REAL[name]
    X, count = samples(star.shape, 20, 3), min(count, 3 * faces(star))
    model = TensorPCA(count, algebra=star).fit(X)
    theirs = nn.t_svdmii(star, slices(X), count=count, center=True)
    decoded = model.inverse_transform(model.transform(X))
    np.testing.assert_allclose(slices(decoded), theirs(slices(X)), atol=1e-10)


def test_components_are_the_projection_of_pca() -> None:
    X = samples((), 20, 5)
    model = TensorPCA(2).fit(X)
    np.testing.assert_allclose(model.inverse_transform(model.transform(X)).T, nn.pca(X.T, 2)(X.T), atol=1e-12)


@pytest.mark.parametrize("count", range(2, 13))
def test_decoding_commutes_with_shifts_of_the_tubes(count: int) -> None:
    """Projections linear over the tubes of the Fourier algebra do: no conjugate pair is split."""
    X = samples((6,), 20, 2)
    model = TensorSVD(count, algebra="fft").fit(X)
    assert model.n_components_ in (count - 1, count)
    decoded, shifted = (model.inverse_transform(model.transform(x)) for x in (X, np.roll(X, 2, axis=-1)))
    np.testing.assert_allclose(shifted, np.roll(decoded, 2, axis=-1), atol=1e-11)


# ------------------------------------------------------------------------------------- algebras, dtypes, devices


NAMES = {
    "dct": algebra.dct,
    "dst": algebra.dst,
    "fft": algebra.fft,
    "haar": algebra.haar,
    "hadamard": algebra.hadamard,
    "hartley": algebra.hartley,
    "identity": algebra.identity,
}


@pytest.mark.parametrize("name", NAMES)
def test_algebras_by_name(name: str) -> None:
    assert TensorPCA(algebra=name).fit(samples((4,))).star_ == NAMES[name](4)
    two = algebra.product(NAMES[name](2), NAMES[name](4))
    assert TensorPCA(algebra=name).fit(samples((2, 4))).star_ == two


def test_the_algebra_of_the_data() -> None:
    X = samples((4,))
    assert TensorPCA(algebra="data").fit(X).star_ == algebra.from_data(slices(X - X.mean(axis=0)))
    assert TensorSVD(algebra="data").fit(X).star_ == algebra.from_data(slices(X))
    ratios = [
        TensorPCA(3, algebra=name).fit(X).explained_variance_ratio_.sum() for name in ("data", "identity")
    ]
    assert ratios[0] > ratios[1]


@both
@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 3, fft 4", "real matrix 4", "plain"])
def test_single_precision_stays(estimator: Any, name: str) -> None:
    star = REAL[name]
    X = samples(star.shape)
    single, double = estimator(3, algebra=star).fit(X.astype(np.float32)), estimator(3, algebra=star).fit(X)
    scores = single.transform(X.astype(np.float32))
    decoded = single.inverse_transform(scores)
    arrays = [scores, decoded, single.components_, single.dual_components_, single.singular_values_]
    arrays.append(single.explained_variance_ratio_ if estimator is TensorPCA else single.energy_ratio_)
    assert {x.dtype for x in arrays} == {np.dtype(np.float32)}
    scale = np.abs(X).max()
    np.testing.assert_allclose(decoded, double.inverse_transform(double.transform(X)), atol=1e-4 * scale)
    np.testing.assert_allclose(single.singular_values_, double.singular_values_, rtol=1e-4)


@both
@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 3, fft 4", "real matrix 4", "plain"])
def test_arrays_stay_on_the_device(estimator: Any, name: str, pretend_device: Any) -> None:
    star = REAL[name]
    X = samples(star.shape)
    there, here = (
        estimator(3, algebra=star).fit(ct.to_device(X, "pretend")),
        estimator(3, algebra=star).fit(X),
    )
    scores = there.transform(ct.to_device(X, "pretend"))
    decoded = there.inverse_transform(scores)
    found = [scores, decoded, there.components_, there.dual_components_]
    assert {ct.device_of(x) for x in found} == {"pretend"}
    expected = [
        here.transform(X),
        here.inverse_transform(here.transform(X)),
        here.components_,
        here.dual_components_,
    ]
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(ct.to_host(x), y, atol=1e-12)
    np.testing.assert_allclose(there.singular_values_, here.singular_values_)
    np.testing.assert_array_equal(there.multirank_, here.multirank_)
    for dtype in (np.int64, np.float16):  # as scikit-learn has it: these count as double precision
        Y = ct.to_device(np.round(X).astype(dtype), "pretend")
        assert estimator(3, algebra=star).fit(Y).transform(Y).dtype == np.float64
    with pytest.raises(TypeError, match="different libraries|given to the pretend library"):
        there.transform(X)


@both
@pytest.mark.parametrize("name", ["dct 5", "fft 4", "real matrix 4"])
def test_gradients_of_scores_and_decoded_samples(estimator: Any, name: str) -> None:
    star = REAL[name]
    X = samples(star.shape)
    model = estimator(3, algebra=star).fit(X)
    weights = np.random.default_rng(0).standard_normal(3)[: model.n_components_]
    gradient = ct.grad(lambda x: ct.sum(model.transform(x) @ weights))(X)
    np.testing.assert_allclose(gradient[0], np.tensordot(weights, model.dual_components_, axes=1), atol=1e-12)
    gradient = ct.grad(lambda z: ct.sum(model.inverse_transform(z)))(model.transform(X))
    np.testing.assert_allclose(gradient[0], inner(model.components_, np.ones_like(X[:1]))[:, 0], atol=1e-11)


# --------------------------------------------------------------------------------------------------- bad input


@both
def test_before_fit(estimator: Any) -> None:
    for use in (
        lambda model: model.transform(samples((4,))),
        lambda model: model.inverse_transform(np.ones((2, 3))),
        lambda model: model.components_,
        lambda model: model.dual_components_,
    ):
        with pytest.raises(NotFittedError):
            use(estimator())


@both
@pytest.mark.parametrize("bad", [0, -1, 13, True, 0.0, 1.5, np.nan, "mle"])
def test_numbers_of_components_out_of_range(estimator: Any, bad: Any) -> None:
    match = rf"{estimator.__name__}: n_components is {bad!r}; expected a number of components, 1 to 12"
    with pytest.raises(ValueError, match=match):
        estimator(bad).fit(samples((4,)))


def test_half_a_conjugate_pair_is_no_code() -> None:
    X = samples((5,))
    X -= X.mean(axis=-1, keepdims=True)  # face 0 is 0
    with pytest.raises(ValueError, match="TensorSVD: n_components is 1, and the largest .* conjugate pair"):
        TensorSVD(1, algebra="fft").fit(X)
    assert TensorPCA(1, algebra="fft").fit(X).n_components_ == 1


@both
def test_algebras_that_do_not_fit(estimator: Any) -> None:
    X = samples((4,))
    for bad, match in (
        ("dft", "algebra is 'dft'; expected a StarAlgebra, .* or one of data, dct, dst, fft, "),
        (algebra.dct, "algebra is <function"),
        (algebra.dct(5), r"tubes of shape \(4,\), the algebra dct\(5\) has \(5,\)"),
        (algebra.from_matrix(np.eye(4) + 0.1j), "makes complex scores of real samples"),
    ):
        with pytest.raises(ValueError, match=f"{estimator.__name__}: .*{match}"):
            estimator(algebra=bad).fit(X)
    with pytest.raises(ValueError, match="not a power of two"):
        estimator(algebra="haar").fit(samples((5,)))


@both
@pytest.mark.parametrize("device", ["cpu", "pretend"])
def test_samples_that_do_not_fit(estimator: Any, device: str, pretend_device: Any) -> None:
    def there(x: Any) -> Any:
        return ct.to_device(np.asarray(x), device)

    X = samples((4,))
    model = estimator(2).fit(there(X))
    bad = X.copy()
    for value in (np.nan, np.inf):
        bad[3, 1, 2] = value
        for use in (estimator().fit, model.transform):
            with pytest.raises(ValueError, match="NaN|infinity"):
                use(there(bad))
    with pytest.raises(ValueError, match=f"X has 2 features, but {estimator.__name__} is expecting 3"):
        model.transform(there(X[:, :2]))
    with pytest.raises(ValueError, match=r"expected \(samples, 3, 4\), as fit saw it"):
        model.transform(there(X[..., :3]))
    with pytest.raises(ValueError, match=r"have shape \(20, 3\); expected \(samples, 2\)"):
        model.inverse_transform(there(X[:, :, 0]))
    with pytest.raises(ValueError, match="omplex"):
        estimator().fit(there(X + 1j))
    with pytest.raises(ValueError):
        estimator().fit(there(X[0, 0]))
    if estimator is TensorPCA:
        with pytest.raises(ValueError, match="2 samples or more|minimum of 2 is required"):
            estimator().fit(there(X[:1]))


def test_faces_of_zeros_have_components_that_are_asked_for() -> None:
    X = samples((3,), 20, 3)
    X[..., 1:] = 0
    for count in (2, 3, 5, 9):
        model = TensorSVD(count, algebra="identity").fit(X)
        expected = algebra.identity(3).svd_energy(slices(X), count=count).multirank
        np.testing.assert_array_equal(model.multirank_, expected)
        np.testing.assert_allclose(inner(model.components_, model.components_), np.eye(count), atol=1e-13)
    with pytest.raises(ValueError, match="TensorSVD: X is 0, and no component has a share"):
        TensorSVD(0.5).fit(0 * X)
    assert TensorSVD(2).fit(0 * X).n_components_ == 2


def test_constant_samples_have_no_variance() -> None:
    model = TensorPCA().fit(np.ones((5, 3, 4)))
    assert not model.explained_variance_.any() and not model.explained_variance_ratio_.any()
    np.testing.assert_allclose(model.inverse_transform(model.transform(np.ones((5, 3, 4)))), 1)


# ---------------------------------------------------------------------------------------------- optional library


def test_cutnn_comes_without_scikit_learn() -> None:
    code = """
import sys
import cutnn
assert "sklearn" not in sys.modules
sys.modules["sklearn"] = None
try:
    import cutnn.estimators
except ImportError as error:
    assert "pip install 'cutnn[estimators]'" in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)
