"""Functions of matrices: values by SciPy, derivatives by differences where eigenvalues are equal, near and 0."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import cutnn as ct
from cutnn import linalg
from cutnn.array import _differences, _spectral
from cutnn.tape import NotDifferentiableError
from tests.gradcheck import check

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]
DOUBLES = [np.float64, np.complex128]
SHAPES = [(3, 3), (4, 3), (3, 4)]
every_double = pytest.mark.parametrize("dtype", DOUBLES)
batches = hnp.array_shapes(min_dims=0, max_dims=2, max_side=2)


def draw(shape: Any, dtype: Any = np.float64, seed: int = 0) -> Any:
    rng = np.random.default_rng((seed, *shape))
    z = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return (z if np.dtype(dtype).kind == "c" else z.real).astype(dtype)


def adjoint(x: Any) -> Any:
    return ct.conj(x.mT)


def unitary(n: int, dtype: Any, batch: Any = (), seed: int = 0) -> Any:
    return np.linalg.qr(draw((*batch, n, n), dtype, seed))[0]


def with_singular_values(s: Any, rows: int, columns: int, dtype: Any, batch: Any = ()) -> Any:
    u, v = unitary(rows, dtype, batch, 1), unitary(columns, dtype, batch, 2)
    return (u[..., : len(s)] * np.array(s)) @ adjoint(v[..., : len(s)])


def with_eigenvalues(w: Any, dtype: Any, batch: Any = ()) -> Any:
    v = unitary(len(w), dtype, batch, 3)
    x = (v * np.array(w)) @ adjoint(v)
    return (x + adjoint(x)) / 2


def each(f: Any, x: Any) -> Any:
    """f of each matrix of a batch."""
    return np.stack([f(a) for a in x.reshape(-1, *x.shape[-2:])]).reshape(x.shape)


def with_values(values: np.ndarray, shape: tuple[int, int], dtype: str) -> np.ndarray:
    """Random matrices with these singular values."""
    rng, k = np.random.default_rng(0), values.shape[-1]
    factors = []
    for rows in shape:
        z = rng.standard_normal((len(values), rows, k))
        if np.dtype(dtype).kind == "c":
            z = z + 1j * rng.standard_normal(z.shape)
        factors.append(np.linalg.qr(z)[0])
    return ((factors[0] * values[:, None, :]) @ factors[1].conj().mT).astype(dtype)


def relative(x: Any, y: Any, tolerance: float = 1e-12) -> None:
    assert np.shape(x) == np.shape(y)
    np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * np.max(np.abs(y), initial=1e-300))


# ---------------------------------------------------------------------------------- singular value thresholds

SPECTRA = [
    [3, 2, 0.6],
    [2, 2, 2],
    [2, 2, 0.5],
    [2, 2 + 1e-12, 2 - 1e-8],
    [2, 0.3, 0.3],
    [2, 0, 0],
    [0.0, 0, 0],
]


@every_double
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spectrum", SPECTRA, ids=str)
def test_derivatives_of_the_threshold(spectrum: Any, shape: Any, dtype: Any) -> None:
    x = with_singular_values(spectrum, *shape, dtype, batch=(2,))
    check(linalg.svt, x, np.array(1.0), rtol=1e-5)
    check(linalg.svt, x[0], np.array([1.0, 0.75]), rtol=1e-5, order=1)
    check(lambda x: linalg.svt(x, 0.0), x, order=1)


def test_the_derivative_in_closed_form() -> None:
    """At 2 I above the threshold 1: the symmetric part as it is, of the skew part f(s)/s = ½ (Candès et al. 2013)."""
    _, pullback = ct.vjp(lambda x: linalg.svt(x, 1.0), 2 * np.eye(2))
    e = np.array([[1.0, 4.0], [2.0, 5.0]])
    np.testing.assert_allclose(pullback(e)[0], [[1, 3.5], [2.5, 5]], atol=1e-14)


@given(batch=batches, shape=st.sampled_from(SHAPES), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99))
def test_values_of_the_threshold(batch: Any, shape: Any, dtype: Any, seed: int) -> None:
    x, tau = draw((*batch, *shape), dtype, seed), np.abs(draw(batch, seed=seed)) if batch else 0.7
    y = linalg.svt(x, tau)
    assert y.dtype == x.dtype
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    expected = (u * np.maximum(s - np.asarray(tau)[..., None], 0)[..., None, :]) @ vh
    np.testing.assert_allclose(y, expected, atol=100 * np.finfo(dtype).eps)


def test_a_negative_threshold_is_refused() -> None:
    for tau in (-1.0, np.array([1.0, -1.0]), float("nan")):
        with pytest.raises(ValueError, match="svt: tau is .*; expected a threshold of at least 0"):
            linalg.svt(np.ones((2, 3, 3)), tau)


# ---------------------------------------------------------------------------------- nuclear norm, polar factors


@every_double
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spectrum", [*SPECTRA[:2], *SPECTRA[3:4], [2, 2 + 1e-6, 2 + 1e-15]], ids=str)
def test_derivatives_of_the_nuclear_norm_and_the_polar_factors(spectrum: Any, shape: Any, dtype: Any) -> None:
    x = with_singular_values(spectrum, *shape, dtype, batch=(2,))
    check(lambda x: linalg.matrix_norm(x, ord="nuc"), x, rtol=1e-5)
    for side in ("left", "right"):
        check(lambda x, side=side: tuple(linalg.polar(x, side=side)), x, rtol=1e-5)


@every_double
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("shape", SHAPES)
def test_polar_factors_are_those_of_scipy(shape: Any, side: str, dtype: Any) -> None:
    x = draw(shape, dtype)
    for got, expected in zip(linalg.polar(x, side=side), scipy.linalg.polar(x, side=side), strict=True):
        relative(got, expected)


@every_double
def test_where_singular_values_are_0_gradients_are_of_least_norm(dtype: Any) -> None:
    x = with_singular_values([2, 1, 0], 4, 3, dtype)
    expected = with_singular_values([1, 1, 0], 4, 3, dtype)
    np.testing.assert_allclose(ct.grad(lambda x: linalg.matrix_norm(x, ord="nuc"))(x), expected, atol=1e-13)
    u_gradient = ct.grad(lambda x: ct.sum(ct.real(linalg.polar(x).U)))(x)
    assert np.all(np.isfinite(u_gradient)) and np.max(np.abs(u_gradient)) < 10
    assert not ct.grad(lambda x: ct.sum(ct.real(linalg.polar(x).U)))(0 * x).any()


def test_values_up_to_atol_count_as_0() -> None:
    x = np.diag([1.0, 1e-9])
    slope = [ct.grad(lambda x, a=a: linalg.polar(x, atol=a).U[0, 1])(x)[0, 1] for a in (0.0, 1e-8)]
    np.testing.assert_allclose(slope, [1.0, 1.0], rtol=1e-8)
    steep = [
        ct.grad(lambda x, a=a: linalg.polar(x, atol=a).U[0, 1])(1e-9 * np.eye(2))[0, 1] for a in (0.0, 1e-8)
    ]
    np.testing.assert_allclose(steep, [5e8, 0.0])
    assert linalg.powm(x, 0.5, atol=1e-8)[1, 1] == 0 and linalg.powm(x, 0.5)[1, 1] == 1e-9**0.5
    np.testing.assert_array_equal(
        linalg.powm(np.stack([x, x]), 0.5, atol=np.array([0, 1]))[1], np.zeros((2, 2))
    )


def test_a_wrong_side_is_refused() -> None:
    with pytest.raises(
        ValueError, match="polar: side is 'up'; expected 'right', x = U P, or 'left', x = P U"
    ):
        linalg.polar(np.eye(2), side="up")


# ------------------------------------------------------------------------------------------- Hermitian matrices

FUNCTIONS = {
    "x^½": (lambda x: linalg.powm(x, 0.5), scipy.linalg.sqrtm),
    "x^-0.7": (lambda x: linalg.powm(x, -0.7), lambda a: scipy.linalg.fractional_matrix_power(a, -0.7)),
    "x^2.3": (lambda x: linalg.powm(x, 2.3), lambda a: scipy.linalg.fractional_matrix_power(a, 2.3)),
    "x^2": (lambda x: linalg.powm(x, 2), lambda a: a @ a),
    "log": (linalg.logm, scipy.linalg.logm),
}
EIGENVALUES = [
    [2, 3, 4],
    [2, 2, 2],
    [2, 2 + 1e-12, 2 - 1e-7],
    [2, 2.1, 2.25],
    [2, 1e-6, 2e-6],
    [1e-3, 50, 50],
]


@every_double
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("values", EIGENVALUES, ids=str)
def test_functions_of_hermitian_matrices(name: str, values: Any, dtype: Any) -> None:
    f, scipys = FUNCTIONS[name]
    x = with_eigenvalues(values, dtype, (2,))
    condition = max(values) / min(values)  # what LAPACK may lose of the least one, here and there
    relative(f(x), each(scipys, x), max(1e-10, 10 * np.finfo(float).eps * condition))
    near = min(values) / 100  # steps stay in the domain
    check(lambda t: f(x + near * (t + adjoint(t))) / near, 0 * x, rtol=1e-4)


@pytest.mark.parametrize("f", [linalg.powm, linalg.logm])
def test_second_differences_are_right_to_rounding(f: Any) -> None:
    """Against 50 digits: at the border between the Taylor series and the recurrence, and at great ratios."""
    with localcontext(prec=50):
        for p in (0.5, -1.5, 7.25) if f is linalg.powm else (0,):
            scalar = (lambda w, p=p: w ** Decimal(p)) if p else Decimal.ln
            rule = _differences.Power(p) if p else _differences.Log()
            for triple in (
                (1, 1.0999, 1.05),
                (1, 1.1112, 1.05),
                (1, 1 + 1e-12, 1.3),
                (1e-8, 3e-8, 1),
                (2, 2.05, 1e-5),
                (1, 1.00001, 1.00002),
            ):
                a, b, c = map(Decimal, triple)
                exact = ((scalar(a) - scalar(b)) / (a - b) - (scalar(b) - scalar(c)) / (b - c)) / (a - c)
                got = rule.second(*np.array(triple, dtype=float))
                assert abs(float((Decimal(float(got)) - exact) / exact)) < 1e-12, (p, triple)
    assert _differences.Power(2).second(*np.zeros(3)) == 1 and _differences.Power(2).second(*np.ones(3)) == 1


@every_double
def test_of_singular_matrices_what_is_infinite_counts_as_0(dtype: Any) -> None:
    x = with_eigenvalues([4, 1, 0, 0], dtype)
    root = linalg.sqrtm(x)
    relative(root, with_eigenvalues([2, 1, 0, 0], dtype))
    v = unitary(4, dtype, (), 3)
    gradient = (
        adjoint(v)
        @ ct.grad(lambda x: ct.real(ct.sum(linalg.sqrtm(x) * np.conj(v[:, 2:3] @ adjoint(v[:, :1])))))(x)
        @ v
    )
    expected = np.zeros((4, 4))
    expected[2, 0] = 0.5  # 1 / (√4 + √0)
    np.testing.assert_allclose(gradient, expected, atol=1e-12)
    gradient = ct.grad(lambda x: ct.real(ct.sum(linalg.sqrtm(x) * np.conj(v[:, 2:] @ adjoint(v[:, 2:])))))(x)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)
    relative(linalg.powm(x, 1), x)
    relative(linalg.powm(x, 0), np.eye(4))


def test_matrices_out_of_the_domain_are_named() -> None:
    bad = np.stack([np.eye(2), np.diag([1.0, -3.0])])
    for f, what in (
        (lambda x: linalg.powm(x, 0.5), r"a power 0.5 of it needs it to be positive semidefinite"),
        (
            lambda x: linalg.powm(np.abs(x) * [1, 0], -0.5),
            r"a power -0.5 of it needs it to be positive definite",
        ),
        (linalg.logm, "a logarithm of it needs it to be positive definite"),
    ):
        with pytest.raises(
            np.linalg.LinAlgError, match=rf"the matrix \(\d,\) of the batch has the eigenvalue .*: {what}"
        ):
            f(bad)


@every_double
@pytest.mark.parametrize("f", [lambda x: linalg.powm(x, 0.3), lambda x: linalg.svt(x, 1.0)])
def test_products_with_the_hessian_are_differentiable_by_what_they_are_linear_in(f: Any, dtype: Any) -> None:
    x = with_eigenvalues([2, 2, 0.5], dtype)

    def product(v: Any, weights: Any) -> Any:
        return ct.hvp(lambda x: ct.sum(ct.real(weights * f(x))), x, v)

    check(product, draw((3, 3), dtype, 1), draw((3, 3), dtype, 2), order=1)


def test_there_is_no_third_derivative() -> None:
    for f in (lambda x: linalg.svt(x, 0.5), lambda x: linalg.powm(x, 0.5)):
        third = ct.grad(lambda x, f=f: ct.sum(ct.hessian(lambda x: ct.sum(f(x)))(x)))
        with pytest.raises(NotDifferentiableError, match="of a matrix has two derivatives"):
            third(np.eye(2))


# -------------------------------------------------------------------------------------------- general matrices


@given(
    batch=batches,
    dtype=st.sampled_from(DTYPES),
    size=st.sampled_from([1e-9, 0.3, 3.0, 30]),
    seed=st.integers(0, 99),
)
def test_the_exponential_is_scipys(batch: Any, dtype: Any, size: float, seed: int) -> None:
    x = draw((*batch, 4, 4), dtype, seed) * dtype(size)
    y = linalg.expm(x)
    assert y.dtype == x.dtype
    expected = each(scipy.linalg.expm, x.astype(np.complex128 if x.dtype.kind == "c" else np.float64))
    for got, want in zip(y.reshape(-1, 4, 4), expected.reshape(-1, 4, 4), strict=True):
        relative(got, want, (1 + size) * 500 * np.finfo(dtype).eps)


def test_matrices_of_a_batch_are_scaled_alone() -> None:
    x = np.stack([np.zeros((2, 2)), np.array([[0, 1], [-1, 0]]) * 2000 * np.pi, np.diag([-1e5, 1.0])])
    np.testing.assert_allclose(linalg.expm(x), [np.eye(2), np.eye(2), np.diag([0, np.e])], atol=1e-9)
    assert linalg.expm(np.zeros((0, 0))).shape == (0, 0)


JORDAN = np.triu(np.ones((3, 3)))


@every_double
def test_derivatives_of_the_exponential_and_the_root(dtype: Any) -> None:
    for x in (
        draw((2, 3, 3), dtype),
        np.zeros((2, 2), dtype),
        JORDAN.astype(dtype),
        1e-3 * JORDAN.astype(dtype),
    ):
        check(linalg.expm, x, rtol=1e-6)
    for x in (linalg.expm(draw((2, 3, 3), dtype)), JORDAN.astype(dtype)):
        for f in (linalg.sqrtm, linalg.logm, lambda x: linalg.powm(x, -0.3)):
            check(f, x, rtol=1e-5)
    check(
        linalg.sqrtm, with_eigenvalues([1, 1, 2], dtype), rtol=1e-5
    )  # also in directions that are not Hermitian
    check(ct.grad(lambda x: ct.real(ct.sum(linalg.expm(x)))), draw((2, 2), dtype), rtol=1e-5)  # to the third


@pytest.mark.parametrize("f", [linalg.expm, linalg.logm, linalg.sqrtm])
def test_the_size_of_a_cotangent_costs_no_digits(f: Any) -> None:
    pullback = ct.vjp(f, np.array([[1.0, 2], [0.5, 3]]))[1]
    g = draw((2, 2))
    for size in (2.0**-70, 2.0**70):
        relative(pullback(size * g)[0] / size, pullback(g)[0], 1e-14)


def test_near_the_identity_the_logarithm_keeps_its_digits() -> None:
    small = 1e-10 * np.array([[1.0, 2], [3, 4]])
    x = np.stack([np.eye(2) + small, np.diag([1e3, 1]) + np.eye(2, k=1)])
    y = x[0] - np.eye(2)
    relative(linalg.logm(x)[0], y - y @ y / 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_root_is_scipys(dtype: Any) -> None:
    x = linalg.expm(draw((2, 2, 4, 4), dtype))
    root = linalg.sqrtm(x)
    assert root.dtype == x.dtype
    relative(root @ root, x, 500 * np.finfo(dtype).eps)
    relative(root, each(scipy.linalg.sqrtm, x), 2000 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_logarithm_and_powers_are_scipys(dtype: Any) -> None:
    x = linalg.expm(draw((2, 2, 4, 4), dtype))
    wide = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    assert linalg.logm(x).dtype == linalg.powm(x, 0.3).dtype == x.dtype
    relative(linalg.logm(x), each(scipy.linalg.logm, wide), 2000 * np.finfo(dtype).eps)
    for p in (0.3, -1.7, -2.0, 3):
        power = each(lambda a, p=p: scipy.linalg.fractional_matrix_power(a, p), wide)
        for got, expected in zip(linalg.powm(x, p).reshape(-1, 4, 4), power.reshape(-1, 4, 4), strict=True):
            relative(got, expected, 1e5 * np.finfo(dtype).eps)
    nilpotent = np.triu(np.ones((3, 3), dtype), 1)
    relative(linalg.powm(nilpotent, 2.0), nilpotent @ nilpotent)


@pytest.mark.parametrize("digits", [4, 8, 12])
def test_the_root_of_an_ill_conditioned_matrix(digits: int) -> None:
    v = draw((6, 6), seed=2)
    x = v @ np.diag(np.logspace(0, -digits, 6)) @ np.linalg.inv(v) * 37
    root = linalg.sqrtm(x)
    relative(root @ root, x, 1e-12)
    assert np.linalg.eigvals(root).real.min() > 0


def test_matrices_without_a_principal_root_are_named() -> None:
    nilpotent = np.array([[0.0, 1], [0, 0]])
    upper = np.array([[-1.0, 1], [0, 2]])
    for bad, what in (
        (nilpotent, "an eigenvalue is 0,"),
        (upper, "an eigenvalue is -1,"),
        (-np.eye(2), "eigenvalue -1:"),
    ):
        for x in (bad, bad + 0j):
            with pytest.raises(np.linalg.LinAlgError, match=f"the matrix has .*{what[:-2]}"):
                linalg.sqrtm(x)
    with pytest.raises(np.linalg.LinAlgError, match=r"the matrix \(1,\) of the batch has no principal root"):
        linalg.sqrtm(np.stack([np.eye(2), upper]))


# ----------------------------------------------------------------------------------------------- pseudoinverse


def test_pinv_counts_small_values_as_0() -> None:
    x = np.stack([np.diag([1.0, 1e-3]), np.diag([10.0, 0.0])])
    np.testing.assert_allclose(linalg.pinv(x), [np.diag([1, 1e3]), np.diag([0.1, 0])], atol=1e-12)
    np.testing.assert_allclose(linalg.pinv(x, rtol=np.array([1e-2, 0.1]))[0], np.diag([1, 0]))
    assert linalg.pinv(np.zeros((2, 3))).shape == (3, 2) and not linalg.pinv(np.zeros((2, 3))).any()
    assert linalg.pinv(np.zeros((2, 0))).shape == (0, 2)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("shape", [(5, 5), (9, 5), (5, 9), (1, 1), (4, 1)])
def test_pinv_by_the_inverse_agrees_with_that_by_the_svd(shape: tuple[int, int], dtype: str) -> None:
    k, eps, roads = min(shape), float(np.finfo(dtype).eps), set()
    for condition in (1.0, 1e2, 1e6, 1e-1 / eps):
        values = np.geomspace(1, 1 / condition, k) if k > 1 else np.array([1 / condition])
        x = with_values(np.tile(values, (3, 1)), shape, dtype)
        inverse = _spectral.inverse_of_full_rank(x, 0.0)
        roads.add(inverse is None)
        u, s, vh = np.linalg.svd(x, full_matrices=False)
        expected = (vh.conj().mT / s[:, None, :]) @ u.conj().mT
        error = np.abs(linalg.pinv(x, rtol=0.0) - expected).max() / np.abs(expected).max()
        assert error < 100 * eps * (condition if k > 1 else 1)
        assert linalg.pinv(x).dtype == x.dtype
    assert roads == ({False, True} if k > 1 else {False})  # both were taken


def test_pinv_cuts_where_the_inverse_would_not() -> None:
    values = np.array([[1.0, 0.5, 0.2], [8.0, 4.0, 2.0]])
    for shape in ((3, 3), (5, 3), (3, 5)):
        x = with_values(values, shape, "float64")
        for rtol, ranks in ((0.19, (3, 3)), (0.22, (2, 3)), (0.3, (2, 2)), (np.array([0.6, 0.19]), (1, 3))):
            assert np.linalg.matrix_rank(linalg.pinv(x, rtol=rtol), rtol=1e-9).tolist() == list(ranks)
    assert not linalg.pinv(np.ones((1, 1)), rtol=1.0).any()  # not above


def test_pinv_of_huge_and_tiny_numbers() -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 4))
    for scale in (1e-290, 1e-200, 1e-157, 1e150, 1e200, 1e290):
        relative(linalg.pinv(scale * x) * scale, linalg.pinv(x), 1e-11)


# ------------------------------------------------------------------------------------------ precision, devices

EVERY = [
    lambda x: linalg.svt(x, 1.0),
    lambda x: linalg.svt(x, ct.sum(ct.real(x), axis=(-2, -1)) * 0 + 0.5),
    lambda x: linalg.matrix_norm(x, ord="nuc"),
    lambda x: linalg.polar(x).P,
    lambda x: linalg.powm(x @ adjoint(x), -0.3),
    lambda x: linalg.logm(x @ adjoint(x)),
    linalg.expm,
    lambda x: linalg.sqrtm(linalg.expm(x)),
    lambda x: linalg.sqrtm(x @ adjoint(x)),
]


@pytest.mark.parametrize("f", EVERY)
@pytest.mark.parametrize("dtype", DOUBLES)
def test_single_precision_stays_single(f: Any, dtype: Any) -> None:
    x = draw((2, 3, 3), dtype)
    single = x.astype(np.complex64 if dtype == np.complex128 else np.float32)
    loss = lambda x: ct.sum(ct.abs(f(x)) ** 2)  # noqa: E731
    for function, tolerance in ((f, 1e-4), (ct.grad(loss), 1e-3)):
        got, expected = function(single), function(x)
        assert got.dtype.itemsize * 2 == expected.dtype.itemsize
        relative(got, expected, tolerance)


def test_divided_differences_keep_the_precision() -> None:
    w = np.array([0.0, 0.5, 0.5, 2.0], dtype=np.float32)
    for f in (
        _differences.Shrink(0.7),
        _differences.Step(np.float32([0.7])),
        _differences.Power(0.5),
        _differences.Log(),
    ):
        a, b = w[1:, None, None], w[1:, None]
        assert {f(w[1:]).dtype, f.first(b, w[1:]).dtype, f.second(a, b, w[1:]).dtype} == {
            np.dtype(np.float32)
        }


@pytest.mark.parametrize("f", EVERY)
def test_on_another_device_all_stays_there(f: Any, pretend_device: Any) -> None:
    x = draw((2, 3, 3))
    loss = lambda x: ct.sum(ct.abs(f(x)) ** 2)  # noqa: E731
    second = lambda x: ct.sum(ct.grad(loss)(x) ** 2)  # noqa: E731
    there = ct.to_device(x, "pretend")
    for function in (f, ct.grad(loss), ct.grad(second)):
        got = function(there)
        assert ct.device_of(got) == "pretend"
        np.testing.assert_allclose(got.get(), function(x), rtol=1e-12)
