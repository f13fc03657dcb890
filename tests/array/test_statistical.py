"""Statistical functions: values are NumPy's; gradients those of finite differences, autograd and PyTorch."""

from __future__ import annotations

import autograd
import autograd.numpy as anp
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cutnn as ct
from tests.gradcheck import check

X = np.random.default_rng(0).normal(size=(3, 4, 2))
Z = X + 1j * X[::-1, ::-1]
AXES = [None, 0, -1, (0, 2), (-1, 1), (0, 1, 2), ()]
REDUCTIONS = ["sum", "prod", "mean", "std", "var", "max", "min"]
DIFFERENTIABLE_COMPLEX = ["sum", "prod", "mean", "std", "var"]
arrays = hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=4), elements=st.floats(-2, 2, width=16))


def axis_of(data, x):
    return data.draw(
        st.none() | hnp.valid_tuple_axes(x.ndim, min_size=0) | st.integers(-x.ndim, x.ndim - 1), label="axis"
    )


class TestReductions:
    @given(st.sampled_from(REDUCTIONS), arrays, st.data())
    def test_value_is_numpys(self, name, x, data):
        options = {"axis": axis_of(data, x), "keepdims": data.draw(st.booleans())}
        got, expected = getattr(ct, name)(x, **options), getattr(np, name)(x, **options)
        np.testing.assert_array_equal(got, expected, strict=True)
        traced = ct.vjp(lambda x: getattr(ct, name)(x, **options), x)[0]
        np.testing.assert_array_equal(traced, np.asarray(expected), strict=True)

    @pytest.mark.parametrize("keepdims", [False, True])
    @pytest.mark.parametrize("axis", AXES, ids=str)
    @pytest.mark.parametrize("name", REDUCTIONS)
    def test_first_and_second_derivative(self, name, axis, keepdims):
        f = lambda x: getattr(ct, name)(x, axis=axis, keepdims=keepdims)  # noqa: E731
        if name == "std" and axis == ():
            return  # zero everywhere: see TestNoDerivative
        check(f, X)
        check(lambda x: f(x * x) * f(x), X)

    @pytest.mark.parametrize("axis", AXES[:-1], ids=str)
    @pytest.mark.parametrize("name", DIFFERENTIABLE_COMPLEX)
    def test_complex(self, name, axis):
        np.testing.assert_array_equal(getattr(ct, name)(Z, axis=axis), getattr(np, name)(Z, axis=axis))
        check(lambda z: getattr(ct, name)(z, axis=axis), Z)
        check(lambda z: getattr(ct, name)(z * z, axis=axis), Z)

    @pytest.mark.parametrize("axis", [None, 1, (0, 2)], ids=str)
    @pytest.mark.parametrize("name", REDUCTIONS)
    def test_autograd_agrees(self, name, axis):
        f = lambda x: ct.sum(getattr(ct, name)(x, axis=axis) ** 3)  # noqa: E731
        if name == "prod":  # autograd's divides, and takes one axis at a time
            g = lambda x: anp.exp(anp.sum(anp.log(anp.abs(x)), axis=axis))  # noqa: E731
            oracle = lambda x: anp.sum((g(x) * np.prod(np.sign(X), axis=axis)) ** 3)  # noqa: E731
        else:
            oracle = lambda x: anp.sum(getattr(anp, name)(x, axis=axis) ** 3)  # noqa: E731
        np.testing.assert_allclose(ct.grad(f)(X), autograd.grad(oracle)(X), rtol=1e-11, atol=1e-13)

    @pytest.mark.parametrize("name", REDUCTIONS)
    def test_float32_stays_float32(self, name):
        x = X.astype(np.float32)
        f = getattr(ct, name)
        assert f(x).dtype == np.float32
        gradient = ct.grad(f)(x)
        assert gradient.dtype == np.float32
        np.testing.assert_allclose(gradient, ct.grad(f)(x.astype(float)), rtol=1e-4, atol=1e-6)
        assert ct.hvp(f, x, x).dtype == np.float32

    @pytest.mark.parametrize("name", ["std", "var"])
    @pytest.mark.parametrize("axis", [None, 0, (1, 2)], ids=str)
    def test_correction(self, name, axis):
        f = getattr(ct, name)
        expected = getattr(np, name)(X, axis=axis, ddof=1.5)
        np.testing.assert_array_equal(f(X, axis=axis, correction=1.5), expected)
        check(lambda x: f(x, axis=axis, correction=1.5), X)

    @pytest.mark.parametrize("name", REDUCTIONS)
    def test_integers_untraced(self, name):
        x = np.arange(6).reshape(2, 3)
        np.testing.assert_array_equal(getattr(ct, name)(x, axis=0), getattr(np, name)(x, axis=0), strict=True)

    @pytest.mark.parametrize("name", ["sum", "prod"])
    def test_dtype(self, name):
        x = X.astype(np.float32)
        f = lambda x: getattr(ct, name)(x, dtype=np.float64)  # noqa: E731
        assert f(x) == getattr(np, name)(x, dtype=np.float64)
        gradient = ct.grad(f)(x)
        assert gradient.dtype == np.float32
        np.testing.assert_allclose(gradient, ct.grad(f)(x.astype(float)), rtol=1e-6)
        assert getattr(ct, name)(np.array([True, True]), dtype=np.int8).dtype == np.int8

    @pytest.mark.parametrize("name", REDUCTIONS)
    def test_on_another_device(self, name, pretend_device):
        f = getattr(ct, name)
        x = pretend_device.asarray(X)
        np.testing.assert_array_equal(f(x, axis=1).get(), getattr(np, name)(X, axis=1))
        gradient = ct.grad(lambda x: ct.sum(f(x, axis=1) ** 2))(x)
        np.testing.assert_allclose(gradient.get(), ct.grad(lambda x: ct.sum(f(x, axis=1) ** 2))(X))

    @pytest.mark.parametrize("name", REDUCTIONS)
    def test_an_axis_out_of_range_says_so(self, name):
        with pytest.raises(ValueError, match="axis 3 is out of bounds"):
            getattr(ct, name)(X, axis=3)

    def test_empty(self):
        empty = np.ones((0, 2))
        for f in (ct.sum, ct.prod):
            assert ct.grad(f)(empty).shape == (0, 2)
            check(lambda x, f=f: f(x, axis=0), empty)
        check(lambda x: ct.sum(x, axis=1), empty)

    @pytest.mark.parametrize("name", ["sum", "mean"])
    def test_sums_keep_no_array(self, name):
        def saved(f, x):
            count = len(x.tape)
            f(x)
            links = [link for record in x.tape[count:] for link in record]
            return [a for _, _, kept in links for a in kept if getattr(a, "size", 0) > 1]

        def loss(x):
            assert not saved(lambda x: getattr(ct, name)(x, axis=0), x)
            assert saved(lambda x: ct.prod(x, axis=0), x)
            return ct.sum(x)

        ct.grad(loss)(X)


class TestNoDerivative:
    """Where there is no derivative, what the documentation promises."""

    @pytest.mark.parametrize(("name", "sign"), [("max", 1), ("min", -1)])
    def test_ties_share(self, name, sign):
        f = getattr(ct, name)
        x = sign * np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
        expected = np.array([[0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]])
        np.testing.assert_allclose(ct.grad(lambda x: ct.sum(f(x, axis=1)))(x), expected)
        np.testing.assert_allclose(ct.grad(f)(x), (x == f(x)) / np.sum(x == f(x)))
        np.testing.assert_array_equal(ct.hvp(f, x, x), np.zeros_like(x))

    def test_ties_are_torchs(self):
        torch = pytest.importorskip("torch")
        x = np.array([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0]])
        t = torch.tensor(x, requires_grad=True)
        (torch.amax(t, 1) ** 2).sum().backward()
        np.testing.assert_allclose(ct.grad(lambda x: ct.sum(ct.max(x, axis=1) ** 2))(x), t.grad.numpy())

    def test_nan_takes_the_gradient_of_its_maximum(self):
        x = np.array([[1.0, np.nan], [1.0, 2.0]])
        np.testing.assert_array_equal(ct.grad(lambda x: ct.sum(ct.max(x, axis=1)))(x), [[0, 1], [0, 1]])

    @pytest.mark.parametrize("x", [np.full(4, 1.5), np.full(4, 1 + 2j), np.ones(1), np.zeros(3)], ids=str)
    def test_standard_deviation_of_equal_entries(self, x):
        np.testing.assert_array_equal(ct.grad(ct.std)(x), np.zeros_like(x))
        assert np.all(np.isfinite(ct.hvp(ct.std, x, x)))
        np.testing.assert_array_equal(ct.grad(ct.var)(x), np.zeros_like(x))

    def test_one_row_of_equal_entries_leaves_others_alone(self):
        x = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 4.0]])
        gradient = ct.grad(lambda x: ct.sum(ct.std(x, axis=1)))(x)
        np.testing.assert_array_equal(gradient[0], np.zeros(3))
        np.testing.assert_allclose(gradient[1], ct.grad(ct.std)(x[1]))

    def test_standard_deviation_of_single_numbers(self):
        np.testing.assert_array_equal(ct.grad(lambda x: ct.sum(ct.std(x, axis=())))(X), np.zeros_like(X))


class TestProducts:
    ZEROS = [[0.0, 2.0, 3.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0], [1.0, 0.0, 2.0, 0.0, 3.0], [5.0]]

    @pytest.mark.parametrize("x", ZEROS, ids=str)
    @pytest.mark.parametrize("name", ["prod", "cumulative_prod"])
    def test_zeros(self, name, x):
        check(getattr(ct, name), np.array(x), order=3)

    @pytest.mark.parametrize("x", ZEROS, ids=str)
    def test_torch_agrees(self, x):
        torch = pytest.importorskip("torch")
        t = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        w = torch.arange(1.0, len(x) + 1, dtype=torch.float64)
        (torch.cumprod(t, 0) * w).sum().backward()
        gradient = ct.grad(lambda x: ct.sum(ct.cumulative_prod(x) * w.numpy()))(np.array(x))
        np.testing.assert_allclose(gradient, t.grad.numpy(), rtol=1e-13)

    @given(st.integers(1, 9), st.integers(0, 2**9 - 1))
    def test_jacobian_of_the_cumulative_product(self, n, pattern):
        x = np.array([0.0 if pattern >> i & 1 else i + 1.5 for i in range(n)])
        expected = [
            [np.prod(np.delete(x[: i + 1], j)) if j <= i else 0.0 for j in range(n)] for i in range(n)
        ]
        np.testing.assert_allclose(ct.jacobian(ct.cumulative_prod)(x), expected, rtol=1e-12)
        np.testing.assert_allclose(ct.grad(ct.prod)(x), expected[-1], rtol=1e-12)

    def test_many_axes_with_zeros(self):
        x = X.copy()
        x[0, 1, 0] = x[1, 1, 1] = x[2] = 0
        for axis in AXES:
            check(lambda x, axis=axis: ct.prod(x, axis=axis), x)


class TestCumulative:
    @pytest.mark.parametrize("include", [False, True])
    @pytest.mark.parametrize("axis", [0, 1, -1])
    @pytest.mark.parametrize("name", ["cumulative_sum", "cumulative_prod"])
    def test_value_and_derivatives(self, name, axis, include):
        f = lambda x: getattr(ct, name)(x, axis=axis, include_initial=include)  # noqa: E731
        for x in (X, Z, X.astype(np.float32)):
            expected = getattr(np, name)(x, axis=axis, include_initial=include)
            np.testing.assert_array_equal(f(x), expected, strict=True)
        check(f, X)
        check(f, Z)
        check(lambda x: f(x * x), X)

    @pytest.mark.parametrize("name", ["cumulative_sum", "cumulative_prod"])
    def test_dtype(self, name):
        f = getattr(ct, name)
        x = np.arange(1, 5, dtype=np.float32)
        assert ct.grad(lambda x: ct.sum(f(x)))(x).dtype == np.float32
        assert ct.grad(lambda x: ct.sum(f(x, dtype=np.float64)))(x).dtype == np.float32
        assert f(np.arange(3, dtype=np.int32), dtype=np.float64).dtype == np.float64
        np.testing.assert_array_equal(f(np.arange(3)), getattr(np, name)(np.arange(3)), strict=True)

    @pytest.mark.parametrize("name", ["cumulative_sum", "cumulative_prod"])
    def test_errors_and_empty(self, name):
        f = getattr(ct, name)
        with pytest.raises(ValueError, match=rf"{name}: an axis is needed .*\(3, 4, 2\)"):
            f(X)
        with pytest.raises(IndexError, match=f"{name}: axis 5 is out of bounds"):
            f(X, axis=5)
        check(f, np.ones(0))
        check(lambda x: f(x, axis=1), np.ones((2, 0)))

    @pytest.mark.parametrize("name", ["cumulative_sum", "cumulative_prod"])
    def test_on_another_device(self, name, pretend_device):
        f = lambda x: getattr(ct, name)(x, axis=1, include_initial=True)  # noqa: E731
        x = pretend_device.asarray(X)
        gradient = ct.grad(lambda x: ct.sum(f(x) ** 2))(x)
        np.testing.assert_allclose(gradient.get(), ct.grad(lambda x: ct.sum(f(x) ** 2))(X))


class TestDiff:
    @pytest.mark.parametrize("axis", [0, -1])
    @pytest.mark.parametrize("n", [0, 1, 2, 5])
    def test_value_and_derivatives(self, axis, n):
        np.testing.assert_array_equal(ct.diff(X, axis=axis, n=n), np.diff(X, axis=axis, n=n), strict=True)
        check(lambda x: ct.diff(x, axis=axis, n=n), X)

    def test_with_ends(self):
        a, b = np.ones((3, 1, 2)), np.zeros((3, 2, 2))
        expected = np.diff(X, axis=1, prepend=a, append=b)
        np.testing.assert_array_equal(ct.diff(X, axis=1, prepend=a, append=b), expected)
        check(lambda x, a, b: ct.diff(x, axis=1, prepend=a, append=b), X, a, b)

    def test_negative_count(self):
        with pytest.raises(ValueError, match="diff: n is -1"):
            ct.diff(X, n=-1)


class TestConstants:
    @pytest.mark.parametrize("name", ["all", "any", "count_nonzero"])
    @pytest.mark.parametrize("axis", AXES, ids=str)
    def test_value_is_numpys(self, name, axis):
        x = (X > 0.5) * X
        if axis != () or name != "count_nonzero":
            expected = getattr(np, name)(x, axis=axis, keepdims=True)
            np.testing.assert_array_equal(getattr(ct, name)(x, axis=axis, keepdims=True), expected)

    @pytest.mark.parametrize("name", ["all", "any", "count_nonzero"])
    def test_gradient_stops(self, name):
        f = lambda x: ct.sum(x * ct.astype(getattr(ct, name)(x, axis=0), x.dtype))  # noqa: E731
        expected = np.broadcast_to(getattr(np, name)(X, axis=0), X.shape)
        np.testing.assert_array_equal(ct.grad(f)(X), expected)
