"""t-QR, LU and Cholesky factors: laws in every algebra, conventions, gradients, bad input, devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mprod.decompositions import tqrm

import cutnn as ct
from cutnn import algebra
from cutnn.tape import NotDifferentiableError
from tests.algebra.catalogue import ALGEBRAS, DELICATE, draw, kron, near
from tests.gradcheck import check

every_algebra = pytest.mark.parametrize("name", ALGEBRAS)
few = settings(max_examples=settings().max_examples // 4)
tensors = given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    batch=st.sampled_from([(), (2,), (2, 1)]),
    dtype=st.sampled_from([np.float32, np.float64, np.complex64, np.complex128]),
    seed=st.integers(0, 2**20),
)


def spectrum(star: Any, A: Any) -> Any:
    """The faces of Â from the matrix of the transform and nothing else, (*batch, n, l, m)."""
    faces = A.reshape(*A.shape[: A.ndim - 2 - len(star.shape)], star.n, -1)
    return (kron(star) @ faces).reshape(*faces.shape[:-1], *A.shape[-2:])


def unitary(star: Any, Q: Any) -> None:
    eye = star.eye(Q.shape[-1])
    error = np.abs(star(star.transpose(Q), Q) - eye).max()
    assert error <= 500 * star.n * np.finfo(Q.dtype).eps
    if star.real_products and all(t.scale is not None for t in star.transforms):  # so is the matrix of Q★
        matrix = star.to_matrix(Q)
        gram_ = np.swapaxes(matrix.conj(), -1, -2) @ matrix
        assert np.abs(gram_ - np.eye(gram_.shape[-1])).max() <= 500 * star.n * np.finfo(Q.dtype).eps


def triangular(T: Any, upper: bool) -> None:
    outside = np.tril(T, -1) if upper else np.triu(T, 1)
    assert np.abs(outside).max() <= 100 * np.finfo(T.dtype).eps * np.abs(T).max()


def kinds(star: Any, A: Any, *factors: Any) -> None:
    """Real where products of real tensors are, and in the precision of A."""
    real = A.dtype.kind != "c" and star.real_products
    for x in factors:
        assert x.dtype == A.dtype if real else np.finfo(x.dtype).eps == np.finfo(A.dtype).eps


def gram(star: Any, m: int, batch: Any = (), seed: int = 0, dtype: Any = np.float64) -> Any:
    """Hermitian and positive definite; complex where no real tensor need be."""
    B = star.random(m, m + 2, batch, seed, dtype)
    return star(B, star.transpose(B))


# --------------------------------------------------------------------------------------------------------- QR


@every_algebra
@few
@tensors
def test_qr(name: str, rows: int, columns: int, batch: Any, dtype: Any, seed: int) -> None:
    star = ALGEBRAS[name]
    A = star.random(rows, columns, batch, seed, dtype)
    for mode, k in (("reduced", min(rows, columns)), ("complete", rows)):
        Q, R = star.qr(A, mode=mode)
        assert Q.shape == (*batch, *star.shape, rows, k) and R.shape == (*batch, *star.shape, k, columns)
        near(star(Q, R), A + 0 * star(Q, R), 1000)
        unitary(star, Q)
        triangular(R, upper=True)
        kinds(star, A, Q, R)
        diagonals = np.diagonal(spectrum(star, R), axis1=-2, axis2=-1)
        assert np.abs(diagonals.imag).max() <= 500 * np.finfo(R.dtype).eps * np.abs(diagonals).max()


def test_qr_of_matrices_is_that_of_numpy_with_its_signs() -> None:
    star, A = algebra.plain(), draw((4, 3))
    for got, expected in zip(star.qr(A), np.linalg.qr(A), strict=True):
        near(got, expected)
    star, A = algebra.dct(5), draw((5, 4, 3))
    for got, expected in zip(map(star.forward, star.qr(A)), np.linalg.qr(star.forward(A)), strict=True):
        near(got, expected)


def test_qr_is_that_of_mprod() -> None:
    """Which has tubes last, and real transforms alone."""
    star, A = algebra.dct(5), draw((5, 4, 3))
    C = star.transforms[0].matrix()
    forward, inverse = (lambda T, M=M: np.tensordot(T, M, axes=(-1, 1)) for M in (C, C.T))
    for got, expected in zip(star.qr(A), tqrm(star.tubes_last(A), forward, inverse), strict=True):
        near(star.tubes_last(got), expected)


@every_algebra
def test_qr_of_tensors_without_full_rank(name: str) -> None:
    star = ALGEBRAS[name]
    for A in (star.zeros(3, 2), star(star.random(3, 1, seed=0), star.random(1, 2, seed=1))):
        Q, R = star.qr(A)
        near(star(Q, R), A + 0 * star(Q, R), 1000)
        unitary(star, Q)


# --------------------------------------------------------------------------------------------------------- LU


@every_algebra
@few
@tensors
def test_lu(name: str, rows: int, columns: int, batch: Any, dtype: Any, seed: int) -> None:
    star = ALGEBRAS[name]
    A = star.random(rows, columns, batch, seed, dtype)
    P, L, U = star.lu(A)
    k = min(rows, columns)
    assert [x.shape[-2:] for x in (P, L, U)] == [(rows, rows), (rows, k), (k, columns)]
    near(star(P, L, U), A + 0 * star(P, L, U), 1000)
    unitary(star, P)
    triangular(L, upper=False)
    triangular(U, upper=True)
    kinds(star, A, L, U)
    slack = 500 * np.finfo(L.dtype).eps
    permutations = np.round(spectrum(star, P).real)
    assert np.abs(spectrum(star, P) - permutations).max() <= slack
    assert np.all(permutations.sum(axis=-1) == 1) and np.all(permutations.sum(axis=-2) == 1)
    lower = spectrum(star, L)
    assert np.abs(lower).max() <= 2**0.5 + slack
    assert np.abs(np.diagonal(lower, axis1=-2, axis2=-1) - 1).max() <= slack


@every_algebra
def test_lu_of_singular_tensors(name: str) -> None:
    star = ALGEBRAS[name]
    for A in (star.zeros(3, 3), star(star.random(3, 1, seed=0), star.random(1, 3, seed=1))):
        factors = star.lu(A)
        assert all(np.isfinite(x).all() for x in factors)
        near(star(*factors), A + 0 * star(*factors), 1000)


# --------------------------------------------------------------------------------------------------- Cholesky


@every_algebra
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_cholesky(name: str, dtype: Any) -> None:
    star = ALGEBRAS[name]
    A = gram(star, 3, (2,), dtype=dtype)
    L = star.cholesky(A)
    near(star(L, star.transpose(L)), A, 1000)
    triangular(L, upper=False)
    kinds(star, A, L)
    diagonals = np.diagonal(spectrum(star, L), axis1=-2, axis2=-1)
    assert diagonals.real.min() > 0
    assert np.abs(diagonals.imag).max() <= 500 * np.finfo(L.dtype).eps * np.abs(diagonals).max()


def test_a_tensor_that_is_not_definite_names_the_face() -> None:
    star = algebra.fft(4)
    hat = np.array([np.diag([2.0, 3.0]), np.diag([1.0, 0.5]), np.diag([4.0, -1.0])]) + 0j
    A = np.stack([star.eye(2), star.inverse(hat)])
    with pytest.raises(
        np.linalg.LinAlgError,
        match=r"fft\(4\)\.cholesky: A is not positive definite: the smallest eigenvalue of face 2 of its transform of "
        r"item \(1,\) of the batch is -1",
    ):
        star.cholesky(A)
    hat[2, 1, 1], hat[1, 0, 0] = 1, -2
    with pytest.raises(np.linalg.LinAlgError, match=r"eigenvalue of face 1 of its transform is -2"):
        star.cholesky(star.inverse(hat))
    with pytest.raises(np.linalg.LinAlgError, match=r"eigenvalue of the matrix is -1"):
        algebra.plain().cholesky(-np.eye(2))


@every_algebra
def test_a_tensor_that_is_not_hermitian_is_refused(name: str) -> None:
    star = ALGEBRAS[name]
    A = gram(star, 3) + 0
    A[..., 0, 1] += 1e-6
    with pytest.raises(
        ValueError, match=r"cholesky: A is not Hermitian.*face|cholesky: A is not Hermitian.*matrix"
    ):
        star.cholesky(A)
    star.cholesky((A + star.transpose(A)) / 2)


def test_a_symmetric_tensor_need_not_be_hermitian() -> None:
    """In the Fourier algebra symmetric faces are not enough: the transpose reverses them."""
    star = algebra.fft(4)
    A = 5 * star.eye(2) + 0.0
    A[1] = [[0, 1], [1, 0]]
    with pytest.raises(ValueError, match="face 1 of its transform differs from its conjugate transpose by"):
        star.cholesky(A)
    A[3] = A[1]
    star.cholesky(A)


# -------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("name", DELICATE)
def test_gradients_against_differences(name: str, dtype: Any) -> None:
    star = ALGEBRAS[name]
    for size in ((3, 2), (2, 3), (2, 2)):
        A = star.random(*size, seed=4, dtype=dtype)
        check(lambda A: star.qr(A), A, rtol=1e-5, order=1)
        check(lambda A: star.lu(A)[1:], A, rtol=1e-5, order=1)
    A = gram(star, 2, dtype=dtype)
    check(lambda A: star.cholesky((A + star.transpose(A)) / 2), A, rtol=1e-5, order=1)


def test_gradients_of_second_order() -> None:
    star = algebra.fft(4)
    A = star.random(3, 3, seed=4)
    check(lambda A: star.lu(A)[1:], A, rtol=1e-4)
    check(lambda A: star.cholesky((A + star.transpose(A)) / 2), gram(star, 2), rtol=1e-4)


def test_a_gradient_that_is_not_there() -> None:
    star = algebra.fft(4)
    with pytest.raises(NotDifferentiableError, match="mode 'complete'"):
        ct.grad(lambda A: ct.sum(star.qr(A, mode="complete").Q))(star.random(3, 2, seed=0))


# ------------------------------------------------------------------------------------------ bad input, devices


def test_bad_input_is_explained() -> None:
    star = algebra.dct(4)
    with pytest.raises(ValueError, match="qr: the mode is 'full'; expected 'reduced' or 'complete'"):
        star.qr(star.random(2, 2), mode="full")
    with pytest.raises(
        ValueError, match=r"cholesky: A has shape \(4, 2, 3\).*as many rows as lateral slices"
    ):
        star.cholesky(star.random(2, 3))
    A = star.random(2, 2)
    A[1, 0, 1] = A[3, 1, 1] = np.nan
    for f in (star.svd, star.qr, star.lu, star.cholesky):
        with pytest.raises(
            ValueError,
            match=rf"{f.__name__}: A, \(4, 2, 2\), has 2 entries that are not finite; the first is nan, at \(1, 0, 1\)",
        ):
            f(A)
        with pytest.raises(ValueError, match=f"{f.__name__}: A has shape"):
            f(A[:3])


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 3, fft 4"])
def test_factors_stay_on_the_device(name: str, pretend_device: Any) -> None:
    star = ALGEBRAS[name]
    A = gram(star, 3, (2,))
    there = ct.to_device(A, "pretend")
    for f in (star.qr, star.lu, lambda A: [star.cholesky(A)]):
        for got, expected in zip(f(there), f(A), strict=True):
            assert ct.device_of(got) == "pretend"
            near(ct.to_host(got), expected)
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        star.cholesky(-there)


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "complex matrix 3", "plain"])
@pytest.mark.parametrize("factors", ["qr", "lu"])
def test_gradients_at_rank_deficient_tensors_are_refused(name: str, factors: str) -> None:
    star = ALGEBRAS[name]
    A = star(star.random(4, 1, seed=0), star.random(1, 3, seed=1))
    getattr(star, factors)(A)
    with pytest.raises(
        np.linalg.LinAlgError, match=f"{factors}: .* column 1 of .* depends on those before it"
    ):
        ct.grad(lambda A: ct.sum(ct.abs(getattr(star, factors)(A)[1]) ** 2))(A)
