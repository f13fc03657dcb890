"""LU with partial pivots: SciPy's factors, blocks and batches, gradients, singular matrices, devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import linalg as scipy_linalg

import cutnn as ct
from cutnn.array._decompositions import lu_by_blocks
from tests.gradcheck import check

SHAPES = [
    (1, 1),
    (3, 3),
    (2, 5, 3),
    (2, 3, 1, 5),
    (40, 40),
    (2, 50, 33),
    (17, 60),
    (16, 16),
    (0, 3, 3),
    (3, 0),
    (0, 3),
]


def draw(shape: Any, complex_: bool = False) -> Any:
    rng = np.random.default_rng((len(shape), *shape))
    return rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if complex_ else 0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_factors(shape: Any, dtype: Any) -> None:
    x = draw(shape, np.dtype(dtype).kind == "c").astype(dtype)
    given = x.copy()
    P, L, U = ct.linalg.lu(x)
    np.testing.assert_array_equal(x, given)
    assert (P.dtype, L.dtype, U.dtype) == (x.real.dtype, dtype, dtype)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(P @ L @ U, x, atol=100 * eps * np.abs(x).max(initial=1))
    assert np.abs(L).max(initial=0) <= (2**0.5 if x.dtype.kind == "c" else 1) + eps
    np.testing.assert_array_equal(L, np.tril(L))
    np.testing.assert_array_equal(U, np.triu(U))
    plain = lu_by_blocks(x, np)
    for got, expected in zip((P, L, U), plain, strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, atol=2000 * eps * np.abs(expected).max(initial=1))
    if x.size:
        for got, expected in zip(plain, scipy_linalg.lu(x), strict=True):
            np.testing.assert_allclose(got, expected, atol=2000 * eps * np.abs(expected).max())


def test_pivots_are_the_largest_and_of_equal_ones_the_first() -> None:
    P, L, U = ct.linalg.lu(np.array([[1.0, 0], [-2, 1], [2, 5]]))
    assert ct.linalg.lu(np.array([[5], [3 + 4j], [0]])).P[1, 0] == 1  # |3| + |4| > 5, as LAPACK has it
    np.testing.assert_array_equal(P, [[0, 0, 1], [1, 0, 0], [0, 1, 0]])  # -2 first; then of 6 and ½ the 6
    np.testing.assert_array_equal(L, [[1, 0], [-1, 1], [-0.5, 0.5 / 6]])
    np.testing.assert_array_equal(U, [[-2, 1], [0, 6]])


@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 2), (2, 2, 4), (20, 18)])
@pytest.mark.parametrize("complex_", [False, True])
def test_gradients(shape: Any, complex_: bool) -> None:
    x = draw(shape, complex_)
    check(lambda x: ct.linalg.lu(x)[1:], x, order=1 if 20 in shape else 2, rtol=1e-5)
    check(lambda x: ct.linalg.lu(x).U, x, order=1, rtol=1e-5)
    check(lambda x: ct.linalg.lu(x).L, x, order=1, rtol=1e-5)


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
def test_gradients_against_torch(shape: Any) -> None:
    torch = pytest.importorskip("torch")
    x, l_bar, u_bar = draw(shape), draw((shape[0], min(shape))), draw((min(shape), shape[1]))
    got = ct.grad(lambda x: ct.sum(ct.linalg.lu(x).L * l_bar) + ct.sum(ct.linalg.lu(x).U * u_bar))(x)
    there = torch.tensor(x, requires_grad=True)
    _, lower, upper = torch.linalg.lu(there)
    ((lower * torch.tensor(l_bar)).sum() + (upper * torch.tensor(u_bar)).sum()).backward()
    np.testing.assert_allclose(got, there.grad.numpy(), rtol=1e-9, atol=1e-9)


def test_singular_matrices() -> None:
    for x in (np.zeros((20, 20)), np.ones((20, 20)), np.triu(np.ones((3, 3)), 1)):
        P, L, U = ct.linalg.lu(x)
        np.testing.assert_array_equal(P @ L @ U, x)


SCALED = np.array([[1.0, 2.0, 3e-20], [1, -1, 1e-20], [2, 1, 9e-20]])  # regular, its last column tiny
TWICE = np.array(
    [[0.1, 0.3, 1.0], [0.7, 2.1, 2.0], [0.2, 0.6, 9.0]]
)  # column 1 is 3 times column 0, to rounding


@pytest.mark.parametrize("shape", [(3, 3), (3, 2), (2, 3)])
@pytest.mark.parametrize("name, factor", [("lu", 1), ("lu", 2), ("qr", 0), ("qr", 1)])
def test_gradients_at_dependent_columns_are_refused(name: str, factor: int, shape: Any) -> None:
    def loss(x: Any) -> Any:
        return ct.sum(getattr(ct.linalg, name)(x)[factor] ** 2)

    rows, columns = shape
    square = SCALED[:rows, :columns]
    assert np.isfinite(ct.grad(loss)(square)).all()
    for dependent in (TWICE[:rows, :columns], np.zeros(shape)):
        column = 1 if dependent.any() else 0
        with pytest.raises(np.linalg.LinAlgError, match=rf"{name}: .* column {column} of the matrix depends"):
            ct.grad(loss)(dependent)
        batch = np.stack([square, dependent])[None]
        with pytest.raises(
            np.linalg.LinAlgError, match=rf"{name}: .* of matrix \(0, 1\) of the batch .*low_rank"
        ):
            ct.grad(loss)(batch)


def test_another_library(pretend_device: Any) -> None:
    x = draw((2, 20, 18))
    for got, expected in zip(ct.linalg.lu(ct.to_device(x, "pretend")), ct.linalg.lu(x), strict=True):
        assert ct.device_of(got) == "pretend"
        np.testing.assert_allclose(ct.to_host(got), expected, atol=1e-13)
