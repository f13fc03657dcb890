"""Activations, softmax, einsum: values by formulas, gradients by differences and PyTorch, extremes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import cutnn as ct
from tests.array.against_torch import compare
from tests.gradcheck import check

X = np.random.default_rng(0).normal(size=(3, 4)) * 2

# name: function, the same of the module torch, the formula that defines it
FUNCTIONS: dict[str, tuple[Any, Any, Any]] = {
    "relu": (ct.relu, lambda t: t.relu, lambda x: np.where(x > 0, x, 0)),
    "sigmoid": (ct.sigmoid, lambda t: t.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "softplus": (ct.softplus, lambda t: t.nn.functional.softplus, lambda x: np.log(1 + np.exp(x))),
    "softmax": (
        ct.softmax,
        lambda t: lambda x: t.softmax(x, -1),
        lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    ),
    "softmax of an axis": (
        lambda x: ct.softmax(x, axis=0),
        lambda t: lambda x: t.softmax(x, 0),
        lambda x: np.exp(x) / np.exp(x).sum(0),
    ),
    "log_softmax": (
        ct.log_softmax,
        lambda t: lambda x: t.log_softmax(x, -1),
        lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)),
    ),
    "log_softmax of all": (
        lambda x: ct.log_softmax(x, axis=(0, 1)),
        lambda t: lambda x: x - t.logsumexp(x, (0, 1)),
        lambda x: x - np.log(np.exp(x).sum()),
    ),
    "logsumexp": (
        ct.logsumexp,
        lambda t: lambda x: t.logsumexp(x, (0, 1)),
        lambda x: np.log(np.exp(x).sum()),
    ),
    "logsumexp of an axis": (
        lambda x: ct.logsumexp(x, axis=0),
        lambda t: lambda x: t.logsumexp(x, 0),
        lambda x: np.log(np.exp(x).sum(0)),
    ),
    "logsumexp keeping axes": (
        lambda x: ct.logsumexp(x, axis=-1, keepdims=True),
        lambda t: lambda x: t.logsumexp(x, -1, keepdim=True),
        lambda x: np.log(np.exp(x).sum(-1, keepdims=True)),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
class TestEach:
    def test_value_is_the_formula(self, name: str) -> None:
        f, _, formula = FUNCTIONS[name]
        np.testing.assert_allclose(f(X), formula(X), rtol=1e-13)
        assert f(X.astype(np.float32)).dtype == np.float32

    def test_gradients_of_three_orders(self, name: str) -> None:
        f, torch_f, _ = FUNCTIONS[name]
        check(f, X, order=3, rtol=1e-5)
        compare(f, torch_f(pytest.importorskip("torch")), X)

    def test_single_precision_stays_single(self, name: str) -> None:
        f = FUNCTIONS[name][0]
        assert ct.grad(lambda x: ct.sum(f(x) ** 2))(X.astype(np.float32)).dtype == np.float32

    @given(hnp.arrays(np.float64, (2, 3), elements=st.floats(-1e6, 1e6)))
    def test_nothing_overflows(self, name: str, x: Any) -> None:
        f = FUNCTIONS[name][0]
        assert np.isfinite(f(x)).all()
        assert np.isfinite(ct.grad(lambda x: ct.sum(f(x)))(x)).all()


class TestExtremes:
    def test_sigmoid_is_precise_where_it_is_tiny(self) -> None:
        np.testing.assert_allclose(ct.sigmoid(np.array([-700.0, -40.0])), np.exp([-700.0, -40.0]), rtol=1e-14)

    def test_relu_at_zero_has_gradient_zero(self) -> None:
        np.testing.assert_array_equal(
            ct.grad(lambda x: ct.sum(ct.relu(x)))(np.array([0.0, -0.0])), [0.0, 0.0]
        )

    def test_logsumexp_of_infinities(self) -> None:
        inf = np.inf
        x = np.array([[-inf, 0.0], [-inf, -inf], [inf, 0.0]])
        np.testing.assert_array_equal(ct.logsumexp(x, axis=1), [0.0, -inf, inf])
        gradient = ct.grad(lambda x: ct.sum(ct.logsumexp(x, axis=1)))(x[:2])
        np.testing.assert_array_equal(gradient, [[0.0, 1.0], [0.0, 0.0]])

    def test_logsumexp_of_integers_is_a_float(self) -> None:
        np.testing.assert_allclose(ct.logsumexp(np.asarray([1, 2])), 2 + np.log1p(np.exp(-1)))

    def test_log_softmax_is_precise_where_softmax_is_zero(self) -> None:
        np.testing.assert_array_equal(ct.log_softmax(np.array([0.0, -1e4])), [0.0, -1e4])


EINSUMS = [
    "ij,jk->ik", "bij,bjk->bik", "ij,ij->", "ij,ij,k->jk", "i,j->ij", "ij->ji", "ij->j", "ijk,lk->li",
    "ij,jk", "ji", "ij,kl->jl", "->", ",i->i",
]  # fmt: skip
SIZES = dict(zip("bijkl", (2, 3, 4, 2, 5), strict=True))


class TestEinsum:
    @pytest.mark.parametrize("dtype", [np.float64, np.complex128])
    @pytest.mark.parametrize("subscripts", EINSUMS)
    def test_is_that_of_numpy_with_its_gradients(self, subscripts: str, dtype: Any) -> None:
        rng = np.random.default_rng(1)
        operands = []
        for term in subscripts.partition("->")[0].split(","):
            shape = [SIZES[letter] for letter in term]
            z = rng.normal(size=shape) + 1j * rng.normal(size=shape)
            operands.append(np.asarray(z if dtype is np.complex128 else z.real))
        expected = np.einsum(subscripts, *operands)
        np.testing.assert_allclose(ct.einsum(subscripts, *operands), expected, rtol=1e-12, atol=1e-12)
        check(lambda *xs: ct.einsum(subscripts, *xs), *operands)

    def test_gradients_have_the_dtype_of_their_operand(self) -> None:
        x, z = X.astype(np.float32), (X * 1j).T
        _, pullback = ct.vjp(lambda x, z: ct.einsum("ij,jk->ik", x, z), x, z)
        assert [g.dtype for g in pullback(np.ones((3, 3), complex))] == [np.float32, np.complex128]

    @pytest.mark.parametrize(
        ("subscripts", "message"),
        [
            ("ii->i", "linalg.diagonal"),
            ("...i->i", "only letters"),
            ("ij->k", "no operand has"),
            ("ijk->i", r"operands of shape \(3, 4\)"),
            ("ij,jk->ik", r"operands of shape \(3, 4\)"),
        ],
    )
    def test_refusals(self, subscripts: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            ct.einsum(subscripts, X)

    def test_lists_are_refused(self) -> None:
        with pytest.raises(TypeError, match="einsum: expected NumPy or CuPy arrays.*argument 1 is a list"):
            ct.einsum("i,i->", np.ones(2), [1.0, 2.0])
