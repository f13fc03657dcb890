"""Norms, ranks, thresholds and functions of tensors: by the block matrix, their laws, SciPy; gradients, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra
from tests.algebra.catalogue import ALGEBRAS, DELICATE, DOUBLES, UNITARY, near, tensors
from tests.gradcheck import check

every_algebra = pytest.mark.parametrize("name", ALGEBRAS)
few = settings(max_examples=settings().max_examples // 4)  # there are many algebras
every_unitary = pytest.mark.parametrize("name", UNITARY)
DELICATE_UNITARY = [name for name in DELICATE if name in UNITARY]


def wide(A: Any) -> Any:
    return A.astype(np.complex128 if A.dtype.kind == "c" else np.float64)


def relative(x: Any, y: Any, tolerance: float = 1e-12) -> None:
    """Equal in shape, and in value relative to the largest entry."""
    assert np.shape(x) == np.shape(y)
    np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * np.max(np.abs(y), initial=1.0))


def with_values(
    star: algebra.StarAlgebra, values: Any, rows: int, columns: int, dtype: Any, seed: int = 0
) -> Any:
    """A tensor with these singular values in every face of its transform."""
    if not star.real_products:
        dtype = np.complex128
    k = len(values)
    U, _, _ = star.svd(star.random(rows, k, seed=seed, dtype=dtype))
    _, _, Vh = star.svd(star.random(k, columns, seed=seed + 1, dtype=dtype))
    return star(U, scaled(star, values), Vh)


def scaled(star: algebra.StarAlgebra, values: Any) -> Any:
    """The f-diagonal tensor whose transform has these numbers on the diagonal of every face."""
    return star.eye(len(values)) * np.asarray(values)


# -------------------------------------------------------------------------------- the norm and its threshold


@every_unitary
@few
@given(make=tensors())
def test_the_nuclear_norm_is_that_of_the_block_matrix(name: str, make: Any) -> None:
    star = ALGEBRAS[name]
    A = make(star)
    norm = star.nuclear_norm(A)
    assert norm.dtype == A.real.dtype and norm.shape == A.shape[: A.ndim - 2 - len(star.shape)]
    scale = np.prod([t.scale for t in star.transforms])
    expected = np.linalg.matrix_norm(star.to_matrix(wide(A)), ord="nuc") / scale
    np.testing.assert_allclose(norm, expected, rtol=1e-4 if A.real.dtype == np.float32 else 1e-11, atol=1e-6)


@every_unitary
@few
@given(make=tensors(), tau=st.sampled_from([0.0, 0.3, 1.0, 2.0]), seed=st.integers(0, 99))
def test_the_threshold_minimises_its_objective(name: str, make: Any, tau: float, seed: int) -> None:
    """No competitor is better, near or far, and (A - X) / τ is a subgradient of the norm at X."""
    star = ALGEBRAS[name]
    A = wide(make(star))
    X = star.singular_value_threshold(A, tau)
    assert X.dtype == (A.dtype if star.real_products else np.complex128)

    def objective(X: Any) -> Any:
        return tau * star.nuclear_norm(X) + star.norm(X - A) ** 2 / 2

    best = objective(X)
    for size in (1e-3, 0.1, 1.0):
        other = X + size * star.random(*A.shape[-2:], seed=seed, dtype=X.dtype)
        assert np.all(objective(other) >= best - 1e-12 * (1 + np.abs(best)))
    assert np.all(objective(A) >= best - 1e-12) and np.all(objective(0 * A) >= best - 1e-12)
    Z = np.linalg.svd(star.to_matrix(A - X), compute_uv=False)
    assert np.all(Z <= tau + 1e-12 * (1 + np.max(Z)))  # the dual norm of A - X is τ at most,
    inner = np.sum((A - X).conj() * X, axis=tuple(range(-2 - len(star.shape), 0))).real
    np.testing.assert_allclose(
        inner, tau * star.nuclear_norm(X), atol=1e-10 * (1 + np.max(Z))
    )  # and it is reached


@every_unitary
def test_a_threshold_for_each_tensor_and_single_precision(name: str) -> None:
    star = ALGEBRAS[name]
    A = star.random(3, 4, (2,), seed=0)
    X = star.singular_value_threshold(A, np.array([0.2, 0.9]))
    for k, tau in enumerate([0.2, 0.9]):
        near(X[k], star.singular_value_threshold(A[k], tau))
    single = star.singular_value_threshold(A.astype(np.float32), 0.2)
    assert single.dtype == (np.float32 if star.real_products else np.complex64)
    np.testing.assert_allclose(single[0], X[0], atol=1e-4)


SPECTRA = [
    [3.0, 2.0, 0.6],
    [2.0, 2.0, 2.0],
    [2.0, 2.0, 0.5],
    [2.0, 2 + 1e-12, 2 - 1e-8],
    [2.0, 0.0, 0.0],
    [0.0] * 3,
]


@pytest.mark.parametrize("dtype", DOUBLES)
@pytest.mark.parametrize("name", DELICATE_UNITARY)
@pytest.mark.parametrize("spectrum", SPECTRA, ids=str)
def test_gradients_of_the_threshold(name: str, spectrum: Any, dtype: Any) -> None:
    star = ALGEBRAS[name]
    A = with_values(star, spectrum, 4, 3, dtype)
    check(star.singular_value_threshold, A, np.array(1.0), rtol=1e-5, order=2 if name == "fft 4" else 1)


@pytest.mark.parametrize("dtype", DOUBLES)
@pytest.mark.parametrize("name", DELICATE_UNITARY)
def test_gradients_of_the_nuclear_norm(name: str, dtype: Any) -> None:
    """The polar factor; where singular values are 0 the subgradient of least norm, U ★ Vh of those that are not."""
    star = ALGEBRAS[name]
    for spectrum in SPECTRA[:4]:
        check(
            star.nuclear_norm,
            with_values(star, spectrum, 4, 3, dtype),
            rtol=1e-5,
            order=2 if name == "fft 4" else 1,
        )
    A = with_values(star, [1.5, 0.7, 0.0], 4, 3, dtype)
    expected = with_values(star, [1.0, 1.0, 0.0], 4, 3, dtype)
    near(ct.grad(star.nuclear_norm)(A), expected, 1e4)
    near(ct.grad(star.nuclear_norm)(star.eye(2)), star.eye(2))
    assert not np.any(ct.grad(star.nuclear_norm)(star.zeros(2, 3)))


def test_norms_that_need_a_unitary_transform_say_so() -> None:
    star = ALGEBRAS["fft 4, real matrix 3"]
    A = star.random(2, 2, seed=0)
    m_has_none = r"MᴴM = ℓI, and that of from_matrix\(3 x 3 real, .*\) is none; "
    with pytest.raises(ValueError, match=m_has_none + "sum ct.linalg.svdvals"):
        star.nuclear_norm(A)
    with pytest.raises(ValueError, match=m_has_none + "threshold .* ct.linalg.svt"):
        star.singular_value_threshold(A, 1.0)


def test_wrong_thresholds_are_explained() -> None:
    star = algebra.dct(4)
    A = star.random(2, 3, (5,), seed=0)
    for tau in (-1.0, np.array([1.0, -0.1, 1, 1, 1]), float("nan")):
        with pytest.raises(
            ValueError, match=r"dct\(4\).singular_value_threshold: tau is .*; expected finite numbers of at"
        ):
            star.singular_value_threshold(A, tau)
    for shape in ((4,), (5, 5)):
        with pytest.raises(
            ValueError, match=r"tau has shape .*; expected a number, or one for each .*, \(5,\)"
        ):
            star.singular_value_threshold(A, np.ones(shape))
