"""Creation functions and data types: NumPy's values on the device asked for, gradients where values flow."""

from __future__ import annotations

import numpy as np
import pytest

import cutnn as ct
from tests.gradcheck import check

X = np.random.default_rng(0).normal(size=(3, 4))

FROM_SHAPE = {
    "arange": ((1, 10, 3), {}),
    "eye": ((3, 4), {"k": -1}),
    "full": (((2, 3), 7), {}),
    "linspace": ((0.0, 1.0, 5), {"endpoint": False}),
    "ones": (((2, 3),), {}),
    "zeros": ((4,), {}),
}


class TestFromShape:
    @pytest.mark.parametrize("dtype", [None, ct.float32, ct.complex128, ct.int64])
    @pytest.mark.parametrize("name", FROM_SHAPE)
    def test_is_numpys(self, name, dtype):
        args, options = FROM_SHAPE[name]
        expected = getattr(np, name)(*args, **options, dtype=dtype)
        np.testing.assert_array_equal(getattr(ct, name)(*args, **options, dtype=dtype), expected, strict=True)

    def test_arange_of_one_argument(self):
        np.testing.assert_array_equal(ct.arange(3), [0, 1, 2])
        np.testing.assert_array_equal(ct.arange(3, step=2), [0, 2])

    def test_empty(self):
        assert (ct.empty((2, 3), dtype=ct.float32).shape, ct.empty(2).dtype) == ((2, 3), np.float64)

    @pytest.mark.parametrize("name", ["zeros", "ones", "empty", "full"])
    def test_like(self, name):
        value = (2,) if name == "full" else ()
        like = getattr(ct, f"{name}_like")
        x = np.ones((2, 3), np.float32)
        assert (like(x, *value).shape, like(x, *value).dtype) == ((2, 3), np.float32)
        assert like(x, *value, dtype=ct.int32).dtype == np.int32
        if name != "empty":
            expected = getattr(np, f"{name}_like")(x, *value)
            np.testing.assert_array_equal(like(x, *value), expected, strict=True)

    @pytest.mark.parametrize("like", [ct.zeros_like, ct.ones_like, ct.empty_like])
    def test_like_a_traced_array_is_plain(self, like):
        def f(x):
            assert type(like(x)) is np.ndarray
            return ct.sum(x)

        ct.grad(f)(X)

    def test_traced_values_fill_with_gradient(self):
        assert ct.grad(lambda v: ct.sum(ct.full((2, 3), v)))(1.0) == 6
        assert ct.grad(lambda v: ct.sum(ct.full(4, v)))(1.0) == 4
        assert ct.grad(lambda v: ct.sum(ct.full_like(X, v)))(1.0) == 12
        for endpoint in (True, False):
            expected = np.linspace(1.0, 3.0, 7, endpoint=endpoint)
            y, _ = ct.vjp(lambda a, b, e=endpoint: ct.linspace(a, b, 7, endpoint=e), 1.0, 3.0)
            np.testing.assert_allclose(y, expected, rtol=1e-15)
            check(lambda a, b, e=endpoint: ct.linspace(a * b, b, 7, endpoint=e), 1.0, 3.0)
        check(lambda a: ct.linspace(0.0, a, 4), 3.0)


class TestAsarray:
    def test_numbers_lists_and_arrays(self):
        np.testing.assert_array_equal(ct.asarray([[1, 2.5]]), np.array([[1, 2.5]]), strict=True)
        np.testing.assert_array_equal(ct.asarray(3, dtype=ct.float32), np.float32(3))
        np.testing.assert_array_equal(ct.asarray([X, X + 1]), np.array([X, X + 1]), strict=True)
        assert ct.asarray(X) is X
        assert not np.shares_memory(ct.asarray(X, copy=True), X)
        assert ct.asarray([]).shape == (0,)

    def test_lists_with_traced_arrays(self):
        check(lambda x: ct.asarray([x[0], x[1] * x[0]]), X)
        check(lambda x: ct.asarray([[x[0, 0], 1.0], [2, x[1, 1] ** 2]]), X)
        check(lambda x: ct.asarray((x[0], [1.0, 2.0, 3.0, 4.0])), X)
        check(lambda x: ct.asarray([x[0], 1j * x[1]]), X)

        def f(x):
            y = ct.asarray([[x[0], 2.5], [1, True]])
            assert (y.shape, y.dtype) == ((2, 2), np.float32)
            return ct.sum(y * y)

        np.testing.assert_array_equal(ct.grad(f)(np.float32([3, 4])), np.float32([6, 0]), strict=True)

    def test_traced_lists_of_a_dtype(self):
        f = lambda x: ct.sum(ct.asarray([x[0], x[1]], dtype=ct.float64) ** 2)  # noqa: E731
        gradient = ct.grad(f)(np.float32([3, 4]))
        np.testing.assert_array_equal(gradient, np.float32([6, 8]), strict=True)

    def test_ragged_lists_are_refused(self):
        with pytest.raises(ValueError, match="stack: .*shape"):
            ct.grad(lambda x: ct.sum(ct.asarray([x[0], [x[0, 0]]])))(X)

    def test_traced_arrays_pass(self):
        check(lambda x: ct.asarray(x * x), X)
        check(lambda x: ct.asarray(x, dtype=ct.complex128), X)
        assert ct.grad(lambda x: ct.sum(x * ct.asarray(x, dtype=ct.int64)))(np.array([2.5])) == 2

    def test_other_libraries_arrays_are_read(self):
        torch = pytest.importorskip("torch")
        np.testing.assert_array_equal(ct.asarray(torch.arange(3)), [0, 1, 2])
        t = torch.zeros(3)
        shared = ct.from_dlpack(t)
        t[0] = 5
        assert shared[0] == 5
        assert ct.from_dlpack(t, copy=True)[0] == 5
        t[0] = 6
        assert (shared[0], ct.from_dlpack(X).dtype) == (6, np.float64)


class TestFromArray:
    @pytest.mark.parametrize("k", [-1, 0, 2])
    @pytest.mark.parametrize("name", ["tril", "triu"])
    def test_triangles(self, name, k):
        stack = np.stack([X, 2 * X])
        expected = getattr(np, name)(stack, k=k)
        np.testing.assert_array_equal(getattr(ct, name)(stack, k=k), expected, strict=True)
        check(lambda x: getattr(ct, name)(x, k=k) * x, stack)
        check(lambda x: getattr(ct, name)(x, k=k), stack + 1j)

    @pytest.mark.parametrize("indexing", ["xy", "ij"])
    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_meshgrid(self, indexing, count):
        axes = [np.arange(2.0 + i) + i for i in range(count)]
        expected = np.meshgrid(*axes, indexing=indexing)
        plain = ct.meshgrid(*axes, indexing=indexing)
        traced, _ = ct.vjp(lambda *axes: ct.meshgrid(*axes, indexing=indexing), *axes)
        for e, p, t in zip(expected, plain, traced, strict=True):
            np.testing.assert_array_equal(p, e, strict=True)
            np.testing.assert_array_equal(t, e, strict=True)
        check(lambda *axes: ct.meshgrid(*axes, indexing=indexing), *axes)

    def test_meshgrid_refuses_other_orders(self):
        with pytest.raises(ValueError, match="indexing"):
            ct.vjp(lambda x: ct.meshgrid(x, x, indexing="yx"), np.ones(2))


class TestAstype:
    @pytest.mark.parametrize("target", [ct.float32, ct.float64, ct.complex64, ct.complex128])
    @pytest.mark.parametrize("source", [ct.float32, ct.float64, ct.complex64, ct.complex128])
    def test_gradient_returns_in_its_own_dtype(self, source, target):
        x = (X if np.dtype(source).kind == "f" else X + 1j * X[::-1]).astype(source)
        f = lambda x: ct.sum(ct.abs(ct.astype(x, target)) ** 2)  # noqa: E731
        if np.dtype(source).kind == "c" and np.dtype(target).kind == "f":
            with pytest.raises(TypeError, match=f"astype: {x.dtype} to .* real"):
                f(x)
            return
        assert ct.astype(x, target).dtype == target
        gradient = ct.grad(f)(x)
        assert gradient.dtype == source
        np.testing.assert_allclose(gradient, 2 * x, rtol=1e-5)

    def test_second_order(self):
        check(lambda x: ct.astype(x * x, ct.complex128) * (1 + 2j), X)

    @pytest.mark.parametrize("dtype", [ct.int32, ct.bool])
    def test_integers_stop_the_gradient(self, dtype):
        def f(x):
            n = ct.astype(x, dtype)
            assert type(n) is np.ndarray and n.dtype == dtype
            return ct.sum(x * n)

        np.testing.assert_array_equal(ct.grad(f)(X), X.astype(dtype))

    def test_copy(self):
        assert ct.astype(X, ct.float64, copy=False) is X
        assert not np.shares_memory(ct.astype(X, ct.float64), X)


class TestDataTypes:
    def test_arrays_and_dtypes(self):
        x = np.ones(2, np.float32)
        assert ct.result_type(x, ct.int64, 1.0) == np.float64
        assert ct.result_type(x, 1.0) == ct.result_type(np.float32, 2) == np.float32
        assert ct.can_cast(x, ct.float64) and not ct.can_cast(ct.float64, ct.float32)
        assert ct.finfo(x).eps == ct.finfo(ct.float32).eps == np.finfo(np.float32).eps
        assert ct.iinfo(ct.uint8).max == ct.iinfo(np.ones(1, np.uint8)).max == 255
        assert ct.isdtype(x.dtype, "real floating") and not ct.isdtype(ct.int8, (ct.bool, "complex floating"))

    def test_traced_arrays(self):
        def f(x):
            assert ct.result_type(x, ct.complex64) == np.complex64
            assert ct.finfo(x).bits == 32
            assert ct.can_cast(x, ct.float64)
            return ct.sum(x)

        ct.grad(f)(np.ones(2, np.float32))

    def test_constants(self):
        assert (ct.e, ct.inf, ct.pi, ct.newaxis) == (np.e, np.inf, np.pi, None)
        assert np.isnan(ct.nan)

    def test_namespace_info(self):
        info = ct.__array_namespace_info__()
        assert info.default_device() == "cpu" and "cpu" in info.devices()
        assert info.default_dtypes()["real floating"] == ct.float64
        assert set(info.dtypes(kind="complex floating")) == {"complex64", "complex128"}
        assert info.dtypes()["float32"] == ct.float32
        assert info.capabilities()["boolean indexing"]


class TestDevices:
    @pytest.mark.parametrize("name", FROM_SHAPE)
    def test_named_and_default(self, name, pretend_device):
        args, options = FROM_SHAPE[name]
        make, expected = getattr(ct, name), getattr(np, name)(*args, **options)
        assert type(make(*args, **options)) is np.ndarray
        there = make(*args, **options, device="pretend")
        assert type(there) is pretend_device.ndarray
        np.testing.assert_array_equal(there.get(), expected)
        ct.set_device("pretend")
        assert type(make(*args, **options)) is pretend_device.ndarray
        assert type(make(*args, **options, device="cpu")) is np.ndarray

    def test_asarray(self, pretend_device):
        there = pretend_device.asarray(X)
        assert type(ct.asarray(there)) is type(there)
        assert type(ct.asarray(there, device="cpu")) is np.ndarray
        assert type(ct.asarray(X, device="pretend")) is type(there)
        ct.set_device("pretend")
        assert ct.asarray(X) is X, "an array stays where it is"
        assert type(ct.asarray([1, 2])) is type(ct.asarray(2.0)) is type(there)
        gradient = ct.grad(lambda x: ct.sum(ct.asarray([x[0, 0], 2.0 * x[1, 0], 3.0]) ** 2))(there)
        assert gradient.get()[1, 0] == 8 * X[1, 0]

    def test_like_stays_with_its_array(self, pretend_device):
        there = pretend_device.asarray(X)
        assert type(ct.zeros_like(there)) is type(ct.full_like(there, 2.0)) is type(there)
        assert type(ct.ones_like(there, device="cpu")) is np.ndarray
        assert type(ct.zeros_like(X, device="pretend")) is type(there)

    def test_traced_arrays_do_not_move(self, pretend_device):
        with pytest.raises(TypeError, match="traced"):
            ct.grad(lambda x: ct.sum(ct.asarray(x, device="pretend")))(X)
        assert ct.grad(lambda x: ct.sum(ct.astype(x, ct.float64, device="cpu")))(X).shape == X.shape
