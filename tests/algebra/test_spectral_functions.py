"""Eigenvalues, polar factors, least squares, powers, exp, log, det and ranks: by the block matrix and SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra
from tests.algebra.catalogue import (
    ALGEBRAS,
    DELICATE,
    DOUBLES,
    UNITARY,
    invertible_tensor,
    kron,
    near,
    tensors,
)
from tests.algebra.test_spectral import every_algebra, every_unitary, relative, scaled, wide, with_values
from tests.gradcheck import check

fewer = settings(max_examples=settings().max_examples // 8)  # there are many algebras, and many laws
every_double = pytest.mark.parametrize("dtype", DOUBLES)
every_delicate = pytest.mark.parametrize("name", DELICATE)


def batch_of(star: algebra.StarAlgebra, A: Any) -> Any:
    return A.shape[: A.ndim - 2 - len(star.shape)]


def spectrum(star: algebra.StarAlgebra, tubes: Any) -> Any:
    """The transform of k tubes, (*batch, *shape, k), by the matrix alone: (*batch, n, k)."""
    return kron(star) @ tubes.reshape(
        *tubes.shape[: tubes.ndim - 1 - len(star.shape)], star.n, tubes.shape[-1]
    )


def result_type(star: algebra.StarAlgebra, A: Any) -> Any:
    return A.dtype if star.real_products else np.result_type(A.dtype, np.complex64)


def of_blocks(f: Any, star: algebra.StarAlgebra, A: Any) -> Any:
    """f of the block matrix of each tensor of a batch."""
    matrices = star.to_matrix(A)
    return np.stack([f(M) for M in matrices.reshape(-1, *matrices.shape[-2:])]).reshape(matrices.shape)


def through_eigenvalues(f: Any) -> Any:
    """f of a diagonalisable matrix: SciPy's own logm warns of its errors."""

    def function(M: Any) -> Any:
        w, V = np.linalg.eig(M.astype(np.complex128))
        return (V * f(w)) @ np.linalg.inv(V)

    return function


def definite(star: algebra.StarAlgebra, A: Any) -> Any:
    """A ★ Aᴴ + I, Hermitian, with eigenvalues of 1 at least."""
    return star(A, star.transpose(A)) + star.eye(A.shape[-2])


def tolerance(A: Any, double: float = 1e-12) -> float:
    return double if A.real.dtype == np.float64 else 2e-4


# --------------------------------------------------------------------------------------------- decompositions


@every_algebra
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_shapes_and_dtypes_of_factors(name: str, dtype: Any) -> None:
    """What they multiply to is among the laws of the algebra."""
    star = ALGEBRAS[name]
    A = star.random(3, 3, (2,), seed=0, dtype=dtype)
    B = A[..., :2]
    same, real = result_type(star, A), all(t.real for t in star.transforms)
    w, V = star.eigh(A + star.transpose(A))
    assert V.dtype == same and w.dtype == (V.real.dtype if real else same)
    assert w.shape == A.shape[:-1] and V.shape == A.shape
    w, V = star.eig(A)
    assert w.dtype == V.dtype == np.result_type(dtype, np.complex64)
    assert w.shape == A.shape[:-1] and V.shape == A.shape
    for side, k in (("right", 2), ("left", 3)):
        U, P = star.polar(B, side=side)
        assert U.dtype == P.dtype == same and U.shape == B.shape and P.shape == (*A.shape[:-2], k, k)


# ---------------------------------------------------------------------------------------------- least squares


@every_unitary
@fewer
@given(make=tensors(singles=False), columns=st.integers(1, 3), ridge=st.sampled_from([0.0, 0.3]))
def test_least_squares_are_those_of_the_block_matrix(
    name: str, make: Any, columns: int, ridge: float
) -> None:
    """The solution of least norm, whatever the rank; with a ridge that of the normal equations."""
    star = ALGEBRAS[name]
    A = make(star)
    B = star.random(A.shape[-2], columns, seed=1, dtype=A.dtype)
    X = star.lstsq(A, B, ridge=ridge, rtol=1e-9)
    matrices = star.to_matrix(A)
    right = np.broadcast_to(star.unfold(B), (*matrices.shape[:-2], star.n * A.shape[-2], columns))
    if ridge:
        adjoint = np.swapaxes(matrices.conj(), -1, -2)
        scale = np.prod([t.scale for t in star.transforms])
        assert scale > 0  # both terms are scaled by it
        expected = np.linalg.solve(adjoint @ matrices + ridge * np.eye(matrices.shape[-1]), adjoint @ right)
    else:
        expected = np.linalg.pinv(matrices, rtol=1e-9) @ right
        relative(star(star.pinv(A, rtol=1e-9), B), X, 1e-9)
    relative(star.unfold(X), expected, 1e-9)


@every_algebra
def test_a_ridge_for_each_tensor_and_a_solution_without_one(name: str) -> None:
    star = ALGEBRAS[name]
    A, B = star.random(4, 2, (2,), seed=0), star.random(4, 3, seed=1)
    X = star.lstsq(A, B, ridge=np.array([0.1, 2.0]))
    for k, ridge in enumerate([0.1, 2.0]):
        relative(X[k], star.lstsq(A[k], B, ridge=ridge))
    Y = star.random(2, 3, seed=2)
    relative(star.lstsq(A[0], star(A[0], Y)), Y, 1e-10)
    mixed = star.lstsq(A[0], B.astype(np.complex128))
    relative(mixed, star.lstsq(A[0], B).astype(np.complex128), 1e-10)
    assert star.lstsq(A.astype(np.float32), B.astype(np.float32), ridge=np.ones(2)).real.dtype == np.float32


@every_algebra
@fewer
@given(make=tensors(singles=False))
def test_the_pseudoinverse_by_its_laws(name: str, make: Any) -> None:
    star = ALGEBRAS[name]
    A = make(star)
    P = star.pinv(A, rtol=1e-9)
    assert P.dtype == result_type(star, A)
    AP, PA = star(A, P), star(P, A)
    for product, expected in (
        (star(AP, A), A),
        (star(PA, P), P),
        (star.transpose(AP), AP),
        (star.transpose(PA), PA),
    ):
        relative(product, expected, 1e-8)


def test_small_values_count_as_0_beside_the_largest_of_all_faces() -> None:
    star = algebra.identity(2)
    A = np.stack([np.diag([1.0, 1e-3]), np.diag([1e-6, 0.0])])
    near(star.pinv(A, rtol=1e-4), np.stack([np.diag([1, 1e3]), np.zeros((2, 2))]))
    assert star.multirank(A, rtol=1e-4).tolist() == [2, 0] and star.multirank(A).tolist() == [2, 1]


# ---------------------------------------------------------------------------------------- functions of tensors


@every_algebra
@fewer
@given(make=tensors(square=True, singles=False))
def test_functions_are_those_of_the_block_matrix(name: str, make: Any) -> None:
    star = ALGEBRAS[name]
    A = make(star)
    A = A / max(1, star.spectral_norm(A).max())
    for function, scipys in (
        (star.exp, scipy.linalg.expm),
        (lambda A: star.power(A, 3), lambda M: M @ M @ M),
        (lambda A: star.power(A, 0), lambda M: np.eye(len(M))),
    ):
        result = function(A)
        assert result.dtype == result_type(star, A)
        relative(star.to_matrix(result), of_blocks(scipys, star, A) + 0 * star.to_matrix(result))
    power = star.power(A.astype(np.float32), 2) if A.dtype == np.float64 else A
    assert power.real.dtype == (np.float32 if A.dtype == np.float64 else np.float64)


@every_algebra
@every_double
def test_roots_and_inverse_powers_are_those_of_the_block_matrix(name: str, dtype: Any) -> None:
    star = ALGEBRAS[name]
    A = star.exp(
        star.random(3, 3, (2,), seed=0, dtype=dtype) / star.n
    )  # has no eigenvalue that is not positive
    relative(star.to_matrix(star.sqrt(A)), of_blocks(scipy.linalg.sqrtm, star, A), 1e-11)
    for p in (0.3, -1.7):
        expected = of_blocks(lambda M, p=p: scipy.linalg.fractional_matrix_power(M, p), star, A)
        relative(star.to_matrix(star.power(A, p)), expected, 1e-10)
    relative(star.exp(star.log(A)), A, 1e-11)
    relative(star.to_matrix(star.power(A, -2)), of_blocks(lambda M: np.linalg.inv(M @ M), star, A), 1e-11)
    assert star.sqrt(A).dtype == result_type(star, A)


@every_algebra
@every_double
def test_functions_of_definite_tensors(name: str, dtype: Any) -> None:
    star = ALGEBRAS[name]
    A = definite(star, star.random(3, 3, (2,), seed=0, dtype=dtype))
    for function, scalar in (
        (star.sqrt, np.sqrt),
        (star.log, np.log),
        (lambda A: star.power(A, 0.3), lambda w: w**0.3),
        (lambda A: star.power(A, -1.5), lambda w: w**-1.5),
    ):
        expected = of_blocks(through_eigenvalues(scalar), star, A)
        relative(
            star.to_matrix(function(A)),
            expected.real if star.real_products and dtype == np.float64 else expected,
            1e-11,
        )
        assert function(A).dtype == result_type(star, A)
    relative(star.exp(star.log(A)), A, 1e-11)
    single = star.log(A.astype(np.complex64 if A.dtype.kind == "c" else np.float32))
    assert single.real.dtype == np.float32


@every_algebra
def test_the_root_of_a_singular_tensor(name: str) -> None:
    """Also where whole faces are 0 to rounding, and neither Hermitian nor semidefinite by themselves."""
    star = ALGEBRAS[name]
    A = star.random(3, 2, seed=0)
    A = star(A, star.transpose(A))
    root = star.sqrt(A)
    relative(star(root, root), A, 1e-11)
    constant = np.broadcast_to(
        np.array([[2.0, 1], [1, 2]]), (*star.shape, 2, 2)
    )  # most faces are 0 under many M
    if star.real_products and name in UNITARY and np.all(np.linalg.eigvalsh(star.forward(constant)) > -1e-12):
        root = star.sqrt(constant)
        relative(star(root, root), constant, 1e-11)


@every_algebra
@fewer
@given(make=tensors(square=True))
def test_trace_and_determinant(name: str, make: Any) -> None:
    star = ALGEBRAS[name]
    A = make(star)
    trace, det = star.trace(A), star.det(A)
    assert trace.shape == det.shape == A.shape[:-2] and det.dtype == result_type(star, A)
    M = star.to_matrix(wide(A))
    size = np.max(np.abs(M), initial=1) * M.shape[-1]
    np.testing.assert_allclose(
        spectrum(star, trace[..., None]).sum(axis=(-2, -1)),
        np.trace(M, axis1=-2, axis2=-1),
        atol=tolerance(A) * size,
    )
    got = spectrum(star, star.det(wide(A))[..., None]).prod(axis=(-2, -1))
    np.testing.assert_allclose(got, np.linalg.det(M), rtol=1e-6, atol=1e-9 * size)
    relative(det, star.det(wide(A)).astype(det.dtype), 5e-3 if A.real.dtype == np.float32 else 1e-12)


# -------------------------------------------------------------------------------------------- norms and ranks


@every_unitary
@fewer
@given(make=tensors())
def test_norms_and_ranks_are_those_of_the_block_matrix(name: str, make: Any) -> None:
    star = ALGEBRAS[name]
    A = make(star)
    M = star.to_matrix(wide(A))
    values = np.linalg.svd(M, compute_uv=False)[..., : star.n * min(A.shape[-2:])]
    norm = star.spectral_norm(A)
    assert norm.dtype == A.real.dtype and norm.shape == batch_of(star, A)
    np.testing.assert_allclose(norm, values[..., 0], rtol=10 * tolerance(A), atol=1e-5)
    scale = np.prod([t.scale for t in star.transforms])  # ‖A‖² = Σ σ² / ℓ
    np.testing.assert_allclose(star.norm(A) ** 2, np.sum(values**2, axis=-1) / scale, rtol=1e-4, atol=1e-9)
    rtol = 1e-4
    rank = np.sum(values > rtol * values[..., :1], axis=-1)
    implicit = star.implicit_rank(A, rtol)
    np.testing.assert_array_equal(implicit, rank)
    multirank = star.multirank(A, rtol)
    assert multirank.shape == (*batch_of(star, A), *star.shape)
    axes = tuple(range(-len(star.shape), 0))
    np.testing.assert_array_equal(multirank.sum(axis=axes), implicit)
    np.testing.assert_array_equal(multirank.max(axis=axes), star.tubal_rank(A, rtol))
    np.testing.assert_allclose(star.average_rank(A, rtol), rank / star.n)
    if np.all(rank == values.shape[-1]):
        condition = star.cond(A)
        assert condition.dtype == A.real.dtype
        bound = np.max(condition) * tolerance(A) + 1e-10
        np.testing.assert_allclose(condition, values[..., 0] / values[..., -1], rtol=bound)


@every_algebra
def test_ranks_of_products_and_the_condition_of_a_singular_tensor(name: str) -> None:
    star = ALGEBRAS[name]
    A = star(star.random(5, 2, (3,), seed=0), star.random(2, 4, seed=1))
    assert star.tubal_rank(A).tolist() == [2, 2, 2] and star.implicit_rank(A).tolist() == [2 * star.n] * 3
    assert np.all(star.cond(A) > 1e13)
    assert star.cond(star.zeros(2, 2)) == np.inf and star.implicit_rank(star.zeros(2, 2)) == 0
    np.testing.assert_allclose(star.cond(scaled(star, [4.0, 1.0])), 4)


# -------------------------------------------------------------------------------------------------- gradients


@every_delicate
@every_double
def test_gradients_against_differences(name: str, dtype: Any) -> None:
    star = ALGEBRAS[name]
    A = star.random(3, 2, seed=3, dtype=dtype)
    S = invertible_tensor(star, 2, (), 4, dtype)
    B = star.random(3, 1, seed=5, dtype=dtype)

    def hermitian(A: Any) -> Any:
        return star.eigh(A + star.transpose(A)).w

    def eigen(A: Any) -> Any:
        w, V = star.eig(A)
        return star(V, star.diagonal(w * w), star.inv(V))

    for f, args in (
        (lambda A: tuple(star.polar(A)), (A,)),
        (lambda A: star.polar(A, side="left").P, (A,)),
        (star.pinv, (A,)),
        (lambda A, B: star.lstsq(A, B), (A, B)),
        (lambda A, B, ridge: star.lstsq(A, B, ridge=ridge), (A, B, np.array(0.3))),
        (star.spectral_norm, (A,)),
        (star.cond, (A,)),
        (star.exp, (S / 4,)),
        (lambda A: star.power(A, -2), (S,)),
        (star.trace, (S,)),
        (star.det, (S,)),
        (hermitian, (S,)),
        (eigen, (S,)),
        (star.sqrt, (star.exp(S / 4),)),
        (star.log, (star.exp(S / 4),)),
        (lambda A: star.power(A, 0.3), (star.exp(S / 4),)),
        (lambda A: star.log(definite(star, A)), (A,)),
        (lambda A: star.power(definite(star, A), -0.4), (A,)),
    ):
        check(f, *args, rtol=3e-5, order=1)


def test_gradients_of_second_order() -> None:
    star = algebra.fft(4)
    A, S = star.random(3, 2, seed=3), invertible_tensor(star, 2, (), 4, np.float64)
    for f, x in (
        (lambda A: tuple(star.polar(A)), A),
        (lambda A: star.lstsq(A, star.random(3, 1, seed=1), ridge=0.1), A),
        (star.exp, S / 4),
        (star.sqrt, S),
        (lambda A: star.power(definite(star, A), 0.4), A),
        (lambda A: star.log(definite(star, A)), A),
    ):
        check(f, x, rtol=1e-4)


CLUSTERS = [[1.0, 1.0], [1.0, 1.0 + 1e-15], [1.0, 1.0 - 1e-12], [1.0, 1.0 + 1e-9], [1.0, 1.0 + 1e-6]]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (name, values)
        for name in DELICATE
        for values in (CLUSTERS if name in ("fft 4", "real matrix 4", "complex matrix 3") else CLUSTERS[2:3])
    ],
    ids=str,
)
def test_gradients_at_clustered_values(name: str, values: Any) -> None:
    """Equal, and with gaps from 1e-15 on, where the derivatives of the factors are lost or infinite."""
    star = ALGEBRAS[name]
    A = with_values(star, values, 3, 2, np.float64, seed=1)
    U, _, Uh = star.svd(star.random(2, 2, seed=7, dtype=A.dtype))
    H = star(U, scaled(star, values), star.transpose(U))
    H = (H + star.transpose(H)) / 2
    for f, x in (
        (lambda A: tuple(star.polar(A)), A),
        (star.pinv, A),
        (star.sqrt, H),
        (lambda H: star.power((H + star.transpose(H)) / 2, -0.7), H),
        (lambda H: star.log((H + star.transpose(H)) / 2), H),
        (star.exp, H),
    ):
        check(f, x, rtol=1e-5, order=2 if name == "fft 4" else 1)


@every_delicate
def test_gradients_at_the_identity_in_closed_form(name: str) -> None:
    """Df(I)[E] = f'(1) E, and f'(0) E at zero for exp; polar keeps the skew part."""
    star = ALGEBRAS[name]
    one = star.eye(2)
    E = star.random(2, 2, seed=1, dtype=one.dtype)
    for f, point, slope in (
        (star.sqrt, one, 0.5),
        (lambda A: star.power(A, -0.7), one, -0.7),
        (star.log, one, 1.0),
        (star.exp, star.zeros(2, 2, dtype=one.dtype), 1.0),
        (star.pinv, one, -1.0),
    ):
        relative(ct.vjp(f, point)[1](E)[0], slope * E, 1e-10)
    skew = (E - star.transpose(E)) / 2
    if name in UNITARY:
        relative(ct.vjp(lambda A: star.polar(A).U, one)[1](E)[0], skew, 1e-10)


@every_delicate
def test_gradients_at_singular_tensors_are_finite(name: str) -> None:
    star = ALGEBRAS[name]
    deficient = with_values(star, [1.0, 0.0], 3, 2, np.float64)
    for A in (deficient, star.zeros(3, 2)):
        G = star(star.transpose(A), A)
        B = star.random(3, 1, seed=1)
        for f, x in (
            (lambda A: star.polar(A).U, A),
            (lambda A: star.polar(A).P, A),
            (star.pinv, A),
            (lambda A: star.lstsq(A, B), A),  # noqa: B023
            (star.spectral_norm, A),
            (star.sqrt, G),
            (star.det, G),
            (lambda A: star.eigh(A).w, G),
        ):
            value, pullback = ct.vjp(f, x)
            gradient = pullback(np.ones_like(value))[0]
            assert np.all(np.isfinite(gradient)) and np.max(np.abs(gradient), initial=0) < 1e4
    trace_of_square = ct.grad(lambda A: ct.real(ct.sum(star.eig(A).w ** 2)))(star.eye(2))
    assert np.all(np.isfinite(trace_of_square)) and np.any(trace_of_square)


def test_faces_that_are_0_to_rounding_have_gradients_of_least_norm() -> None:
    """Constant tubes: under the DCT all faces but the first are 0, computed as noise, and without a share."""
    star = algebra.dct(5)
    A = np.broadcast_to(np.array([[2.0, 1], [1, 3]]) / 7, (5, 2, 2)).copy()
    expected = star.inverse(np.stack([np.eye(2), *[np.zeros((2, 2))] * 4]))
    near(ct.grad(star.nuclear_norm)(A), expected)
    G = star.random(2, 2, seed=0)
    gradient = ct.vjp(lambda A: star.polar(A).U, A)[1](G)[0]
    assert np.max(np.abs(star.forward(gradient)[1:])) < 1e-12 < np.max(np.abs(gradient))


# -------------------------------------------------------------------------------------------------- bad input


def test_tensors_that_are_not_hermitian_are_named() -> None:
    star = algebra.fft(4)
    A = star.random(2, 2, (3,), seed=0)
    with pytest.raises(
        ValueError, match=r"eigh: .* not Hermitian.*: face \d .* item \(\d,\) .* differs from"
    ):
        star.eigh(A)


def test_faces_out_of_the_domain_are_named() -> None:
    star = algebra.fft(4)
    A = np.stack([star.eye(2), star.eye(2)])
    A[1] = star.inverse(np.stack([np.diag(d) for d in ([1.0, 2], [1, -5], [3, 1])]) + 0j)
    for function, what in (
        (star.sqrt, "a power 0.5 of it needs it to be positive semidefinite"),
        (star.log, "a logarithm of it needs it to be positive definite"),
    ):
        with pytest.raises(
            np.linalg.LinAlgError, match=rf"fft\(4\)\.\w+: face 1 .* item \(1,\) .* -5: {what}"
        ):
            function(A)
    skew = np.stack([np.triu(np.ones((2, 2)))] * 4)
    skew = star.inverse(skew[:3] * np.array([1, 1, -1]).reshape(3, 1, 1) + 0j)
    with pytest.raises(
        np.linalg.LinAlgError, match=r"fft\(4\)\.sqrt: face 2 of its transform has no principal"
    ):
        star.sqrt(skew)
    with pytest.raises(np.linalg.LinAlgError, match=r"fft\(4\)\.power: A is singular to working precision"):
        star.power(star.zeros(2, 2), -1)
    with pytest.raises(
        np.linalg.LinAlgError, match=r"fft\(4\)\.power: face . of its transform has the eigenvalue 0"
    ):
        star.power(star.zeros(2, 2), -0.5)


def test_wrong_arguments_are_explained() -> None:
    star = algebra.dct(4)
    A = star.random(3, 2, seed=0)
    for name in ("eigh", "eig", "sqrt", "exp", "log", "trace", "det"):
        with pytest.raises(ValueError, match=rf"dct\(4\)\.{name}: A has shape \(4, 3, 2\), 3 x 2 tubes"):
            getattr(star, name)(A)
    with pytest.raises(ValueError, match=r"power: A has shape \(4, 3, 2\), 3 x 2 tubes"):
        star.power(A, 2)
    with pytest.raises(TypeError, match="power: p is 1j; expected a real number"):
        star.power(star.eye(2), 1j)
    with pytest.raises(ValueError, match=r"dct\(4\)\.polar: side is 'up'"):
        star.polar(A, side="up")
    with pytest.raises(ValueError, match=r"lstsq: A and B have shapes \(4, 3, 2\) and \(4, 2, 2\)"):
        star.lstsq(A, star.zeros(2, 2))
    with pytest.raises(ValueError, match=r"lstsq: ridge is -1.0; expected finite numbers of at least 0"):
        star.lstsq(A, A, ridge=-1)
    with pytest.raises(ValueError, match=r"cond: A, \(4, 0, 2\), has no singular values"):
        star.cond(star.zeros(0, 2))


NAMES = "eigh eig polar pinv sqrt exp log det spectral_norm cond nuclear_norm multirank tubal_rank".split()


@pytest.mark.parametrize("name", [*NAMES, "implicit_rank", "average_rank"])
def test_entries_that_are_not_finite_are_named(name: str) -> None:
    star = algebra.fft(4)
    A = star.random(2, 2, seed=0)
    A[1, 0, 1] = np.nan
    with pytest.raises(ValueError, match=rf"fft\(4\)\.{name}: A, .* has an entry that is not finite: .*nan"):
        getattr(star, name)(A)


def test_lstsq_power_and_threshold_name_entries_that_are_not_finite() -> None:
    star = algebra.fft(4)
    good, bad = star.random(2, 2, seed=0), star.random(2, 2, seed=0)
    bad[0, 0, 0] = np.inf
    for function, label in (
        (lambda: star.lstsq(good, bad), "lstsq: B"),
        (lambda: star.lstsq(bad, good), "lstsq: A"),
        (lambda: star.power(bad, 2), "power: A"),
        (lambda: star.power(bad, 0.5), "power: A"),
        (lambda: star.singular_value_threshold(bad, 1.0), "singular_value_threshold: A"),
    ):
        with pytest.raises(ValueError, match=rf"{label}, \(4, 2, 2\), has an entry that is not finite: inf"):
            function()


def test_tensors_without_slices() -> None:
    star = algebra.fft(4)
    A, E = star.zeros(2, 0), star.zeros(0, 0)
    assert star.pinv(A).shape == (4, 0, 2) and star.lstsq(A, star.zeros(2, 3)).shape == (4, 0, 3)
    assert star.nuclear_norm(A) == 0 and star.spectral_norm(A) == 0 and star.tubal_rank(A) == 0
    assert star.polar(A).U.shape == (4, 2, 0) and star.singular_value_threshold(A, 1.0).shape == (4, 2, 0)
    for function in (star.exp, star.sqrt, star.log, lambda E: star.power(E, 2), lambda E: star.eigh(E).V):
        assert function(E).shape == (4, 0, 0)
    np.testing.assert_allclose(star.det(E), star.eye(1)[:, 0, 0], atol=1e-15)


# ---------------------------------------------------------------------------------------------------- devices


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 3, fft 4", "plain"])
def test_results_stay_on_the_device(name: str, pretend_device: Any) -> None:
    star = ALGEBRAS[name]
    A, S = star.random(3, 2, (2,), seed=0), invertible_tensor(star, 2, (2,), 1, np.float64)
    H = definite(star, S)
    ranks = [star.multirank, star.tubal_rank, star.average_rank]
    for f, x in (
        *((f, A) for f in (star.pinv, star.nuclear_norm, star.spectral_norm, star.cond, *ranks)),
        (lambda A: star.polar(A).P, A),
        (lambda A: star.lstsq(A, A, ridge=ct.sum(A * A, axis=tuple(range(1, A.ndim)))), A),
        (lambda A: star.singular_value_threshold(A, 0.5), A),
        (lambda A: star.singular_value_threshold(A, ct.sum(A * A, axis=tuple(range(1, A.ndim)))), A),
        *((f, S) for f in (star.exp, star.sqrt, star.det, star.trace, lambda A: star.power(A, -1))),
        *((f, H) for f in (star.log, star.sqrt, lambda A: star.power(A, 0.3), lambda A: star.eigh(A).w)),
        (lambda A: star.eig(A).w.sum(axis=-1), S),
    ):
        there = ct.to_device(x, "pretend")
        got = f(there)
        assert ct.device_of(got) == "pretend"
        np.testing.assert_allclose(ct.to_host(got), f(x), atol=1e-10)
        if f not in ranks:
            gradient = ct.grad(lambda x, f=f: ct.sum(ct.abs(f(x)) ** 2))
            np.testing.assert_allclose(ct.to_host(gradient(there)), gradient(x), atol=1e-9)


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 3, fft 4", "complex matrix 3", "plain"])
@pytest.mark.parametrize("size, dtype", [(1e-190, np.float64), (1e190, np.float64), (1e30, np.float32)])
def test_no_squares_overflow(name: str, size: float, dtype: Any) -> None:
    """Functions of a multiple of a tensor are those of the tensor, though the squares of its entries be infinite."""
    star = ALGEBRAS[name]
    A = invertible_tensor(star, 3, (2,), 0, dtype)
    B, large = star.random(3, 1, seed=1, dtype=dtype), (A * size).astype(A.dtype)
    for f in (star.inv, star.pinv, lambda A: star.power(A, -1), lambda A: star.solve(A, B)):
        near(f(large) * size, f(A))
    near(star.polar(large).U, star.polar(A).U)
    P = star.polar(A).P
    near(star.sqrt((P * size).astype(P.dtype)) / size**0.5, star.sqrt(P))
    if star.scale is not None:
        gradient = ct.grad(lambda A: ct.sum(star.nuclear_norm(A)))
        near(gradient(large), gradient(A))


def test_numbers_that_make_no_sense_are_explained() -> None:
    star = algebra.fft(4)
    A, B = star.random(3, 3, (2,), seed=0), star.random(3, 1, seed=1)
    for ridge in (1j, [1.0, 2.0], "1", np.array([1 + 1j, 2])):
        with pytest.raises(
            TypeError, match="lstsq: ridge is .*; expected a real number, or an array of them"
        ):
            star.lstsq(A, B, ridge=ridge)
    for tau in (np.inf, np.array([1.0, np.inf])):
        with pytest.raises(ValueError, match="tau is .*inf.*; expected finite numbers"):
            star.singular_value_threshold(A, tau)
    for rtol in (-1e-3, float("nan"), "1e-3", 1j):
        for f in (star.pinv, star.multirank, lambda A, rtol: star.lstsq(A, B, rtol=rtol)):
            with pytest.raises(
                ValueError, match=r"fft\(4\)\.\w+: rtol is .*; expected a number of at least 0"
            ):
                f(A, rtol=rtol)
    for count in (2.5, True):
        for g in (star.svd_energy, star.low_rank, star.compress):
            with pytest.raises(
                TypeError, match=rf"{g.__name__}: the count .* is {count}; expected an integer"
            ):
                g(A, count=count)
    for energy in ("0.9", np.array([0.5, 0.9])):
        with pytest.raises(ValueError, match="svd_energy: the energy is a fraction above 0, up to 1, and is"):
            star.svd_energy(A, energy)
    with pytest.raises(TypeError, match="oversampling is 2.5; expected an integer"):
        star.svd_randomized(A, 2, oversampling=2.5)
    with pytest.raises(TypeError, match="power iterations is 1.5; expected an integer"):
        star.svd_randomized(A, 2, power_iterations=1.5)
    with pytest.raises(TypeError, match="low_rank: the rank is 1.5; expected an integer"):
        ct.linalg.low_rank(A, 1.5)


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "complex matrix 3", "plain"])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("side", ["left", "right"])
def test_gradient_of_the_hermitian_polar_factor_where_ranks_stay(name: str, dtype: Any, side: str) -> None:
    star = ALGEBRAS[name]
    X, Y = star.random(4, 2, seed=0, dtype=dtype), star.random(2, 3, seed=1, dtype=dtype)
    check(lambda X, Y: star.polar(star(X, Y), side=side).P, X, Y)
