"""Traced arrays answer operators, NumPy's methods, NumPy's functions and the array API standard."""

from __future__ import annotations

import autograd
import autograd.numpy as anp
import numpy as np
import pytest

import cutnn as ct
from cutnn import array

X = np.random.default_rng(0).uniform(0.5, 1.5, size=(3, 3))
V = np.random.default_rng(1).normal(size=(3, 3))


def same(f, x=X, oracle=None):
    """f differentiates through cutnn's traced arrays as through HIPS autograd's."""
    np.testing.assert_allclose(ct.grad(f)(x), autograd.grad(oracle or f)(x), rtol=1e-11, atol=1e-13)


class TestOperators:
    @pytest.mark.parametrize(
        "f",
        [
            lambda x: (x + V - 2 * x / V).sum(),
            lambda x: (V + x - 1 / x).sum(),
            lambda x: (V * x - x**3 + 2**x + x**V).sum(),
            lambda x: (V - x).sum() + (-x + x * 2).sum(),
            lambda x: (x @ V @ x).sum() + (V @ x).sum(),
            lambda x: abs(x - 1.0).sum(),
            lambda x: (x * np.float64(2) * np.float64(3)).sum(),
            lambda x: (np.float64(2) * x).sum(),
            lambda x: (x % 0.4).sum(),
        ],
    )
    def test_arithmetic(self, f):
        same(f)

    def test_floor_division_and_comparisons_are_plain(self):
        def f(x):
            assert type(x // 0.3) is np.ndarray and type(x < 1) is np.ndarray
            return ct.sum(x * (x > 1) + x // 0.3)

        np.testing.assert_array_equal(ct.grad(f)(X), 1.0 * (X > 1))

    def test_augmented_assignment_rebinds(self):
        def f(x):
            y = x
            y += 1
            y *= x
            return ct.sum(y)

        np.testing.assert_allclose(ct.grad(f)(X), 2 * X + 1)

    def test_branch_on_a_value(self):
        f = lambda x: x * 3 if x > 1 else x * 5  # noqa: E731
        assert ct.grad(f)(2.0) == 3 and ct.grad(f)(0.5) == 5

    def test_iteration_and_length(self):
        def f(x):
            assert len(x) == 3
            first, *rest = x
            return ct.sum(first) + 2 * sum(ct.sum(r) for r in rest)

        np.testing.assert_array_equal(ct.grad(f)(X), [[1] * 3, [2] * 3, [2] * 3])

    def test_repr(self):
        ct.grad(lambda x: (repr(x) == "Traced(array(2.))" or pytest.fail(repr(x))) and x)(2.0)


class TestMethods:
    @pytest.mark.parametrize(
        "f",
        [
            lambda x: x.sum(0).max() + x.sum(axis=1, keepdims=True).min(),
            lambda x: x.mean(axis=(0, 1)) * x.prod() + x.std() + x.var(axis=0, ddof=1).sum(),
            lambda x: (x.reshape(9) * np.arange(9)).sum() + (x.reshape((1, 9)) * np.arange(9)).sum(),
            lambda x: (x.T @ V).sum() + (x.transpose(1, 0) * V).sum() + (x.transpose() * V).sum(),
            lambda x: (x.ravel() * np.arange(9)).sum() + (x.flatten() ** 2).sum(),
            lambda x: (x[None].squeeze(0) * V).sum() + (x.swapaxes(0, 1) * V).sum(),
            lambda x: (x.dot(V) * V).sum() + x.trace(),
            lambda x: (x.cumsum(axis=0) * V).sum() + (x.cumsum() * np.arange(9)).sum(),
            lambda x: (x.clip(0.7, 1.2) * V).sum() + (x.take(np.asarray([0, 2, 2]), axis=0) ** 2).sum(),
            lambda x: (x.repeat(2, axis=0) ** 2).sum() + (x.astype(np.float64) * V).sum() + x.copy().sum(),
        ],
    )
    def test_as_numpy_has_them(self, f):
        gradient, h = ct.grad(f)(X), 1e-6
        for direction in (V, V[::-1], np.ones_like(V)):
            slope = (f_numpy(f, X + h * direction) - f_numpy(f, X - h * direction)) / (2 * h)
            np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-6, atol=1e-7)

    def test_attributes(self):
        def f(x):
            assert (x.shape, x.ndim, x.size, x.dtype, x.device) == ((3, 3), 2, 9, np.float64, "cpu")
            assert x.mT.shape == (3, 3) and x.real is x
            return ct.sum(x.T * V)

        np.testing.assert_array_equal(ct.grad(f)(X), V.T)

    def test_to_device_stays_where_it_is(self):
        np.testing.assert_array_equal(ct.grad(lambda x: x.to_device("cpu").sum())(X), np.ones((3, 3)))
        with pytest.raises(TypeError, match="cpu cannot move to cuda:0.*before"):
            ct.grad(lambda x: x.to_device("cuda:0").sum())(X)

    def test_argmax_and_all_are_plain(self):
        def f(x):
            assert int(x.argmax()) == int(X.argmax()) and bool((x > 0).all())
            return x.max()

        ct.grad(f)(X)

    def test_unknown_attribute_says_what_to_do(self):
        with pytest.raises(AttributeError, match="'partition'.*stop_gradient"):
            ct.grad(lambda x: x.partition(2))(X)


def f_numpy(f, x):
    return f(x)


class TestNumpyFunctions:
    @pytest.mark.parametrize(
        "f",
        [
            lambda np, x: np.sum(np.tanh(x) * np.exp(x) + np.power(x, 2.5) - np.arctan2(x, V)),
            lambda np, x: np.sum(np.sum(x, 0) * np.mean(x, axis=1)) + np.prod(x) + np.max(x) + np.min(x),
            lambda np, x: np.std(x) + np.sum(np.var(x, axis=0)),
            lambda np, x: np.sum(np.dot(x, V) * np.transpose(x)) + np.sum(np.matmul(x, x)),
            lambda np, x: np.sum(np.reshape(x, (9,)) * np.arange(9.0)) + np.sum(np.ravel(x) ** 2),
            lambda np, x: np.sum(np.concatenate([x, 2 * x, V], axis=1) ** 2) + np.sum(np.stack((x, x)) ** 2),
            lambda np, x: np.sum(np.where(x > 1, x, x**2)) + np.sum(np.maximum(x, 1.0)),
            lambda np, x: np.sum(np.tensordot(x, V, axes=1) * V) + np.sum(np.outer(x[0], x[1])),
            lambda np, x: np.sum(np.linalg.inv(x + 3 * np.eye(3)) * V) + np.linalg.norm(x),
            lambda np, x: (
                np.sum(np.linalg.solve(x + 3 * np.eye(3), V) ** 2) + np.linalg.norm(x, axis=0).sum()
            ),
            lambda np, x: np.sum(np.abs(np.fft.fft(x, axis=0)) ** 3),
            lambda np, x: np.sum(np.roll(x, 1, axis=0) * V) + np.sum(np.expand_dims(x, 0) ** 2) + np.trace(x),
            lambda np, x: (
                np.sum(np.swapaxes(x, 0, 1) * V)
                + np.sum(np.moveaxis(x, 0, 1) * V)
                + np.sum(np.clip(x, 0.7, 1.2))
            ),
            lambda np, x: (
                np.sum(np.cumsum(x, axis=1) * V)
                + np.sum(np.sort(x[0]) * V[0])
                + np.sum(np.tile(x, (2, 1)) ** 2)
            ),
            lambda np, x: (
                np.sum(np.squeeze(x[None]) ** 2) + np.sum(x[::-1] * V) + np.sum(np.repeat(x, 2, axis=1) ** 2)
            ),
            lambda np, x: np.sum(np.diff(x, 2) ** 2) + np.sum(np.tril(x, -1) * V) + np.sum(np.triu(x) ** 2),
            lambda np, x: np.sum(np.vstack([x[0], x[1]]) ** 2) + np.sum(np.hstack([x, V]) ** 3),
        ],
    )
    def test_differentiate(self, f):
        same(lambda x: f(np, x), oracle=lambda x: f(anp, x))

    @pytest.mark.parametrize(("x", "axis"), [(X, None), (np.stack([X, V]), (0, 2))])
    def test_norm_keeps_its_axes(self, x, axis):
        norm = lambda x: np.linalg.norm(x, ord=1, axis=axis, keepdims=True)  # noqa: E731
        np.testing.assert_allclose(ct.vjp(norm, x)[0], norm(x), strict=True)

    def test_unknown_argument_is_named_with_what_would_fit(self):
        with pytest.raises(TypeError, match=r"numpy.fft.fft .*positional.*fft\(x, /, \*, n.*axis.*norm"):
            ct.grad(lambda x: np.sum(np.abs(np.fft.fft(x, 8))))(X)

    def test_unknown_function_is_named(self):
        with pytest.raises(ct.NotDifferentiableError, match="numpy.partition.*stop_gradient"):
            ct.grad(lambda x: np.partition(x, 1).sum())(X)
        with pytest.raises(ct.NotDifferentiableError, match=r"numpy\.\w*heaviside"):
            ct.grad(lambda x: np.heaviside(x, 0.5).sum())(X)


class TestStandard:
    def test_namespace_of_a_traced_array(self):
        def generic(x):  # code written to the standard
            xp = x.__array_namespace__()
            return xp.sum(xp.exp(-xp.square(x - xp.mean(x, axis=0, keepdims=True))))

        g = ct.grad(generic)(X)
        np.testing.assert_allclose(g, ct.grad(lambda x: ct.sum(ct.exp(-((x - x.mean(0)[None]) ** 2))))(X))

    def test_every_name_of_the_standard_is_there(self):
        assert set(STANDARD.split()) <= set(dir(ct)), set(STANDARD.split()) - set(dir(ct))
        assert set(LINALG.split()) <= set(dir(ct.linalg)), set(LINALG.split()) - set(dir(ct.linalg))
        assert set(FFT.split()) <= set(dir(ct.fft)), set(FFT.split()) - set(dir(ct.fft))

    def test_public_names_exist(self):
        for name in (*ct.__all__, *array.__all__):
            assert hasattr(ct, name), name

    def test_untraced_results_are_plain(self):
        assert type(ct.tanh(X)) is np.ndarray and type(ct.linalg.inv(X)) is np.ndarray


STANDARD = """
abs acos acosh add all any arange argmax argmin argsort asarray asin asinh astype atan atan2 atanh bitwise_and
bitwise_invert bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor bool broadcast_arrays broadcast_to
can_cast ceil clip complex128 complex64 concat conj copysign cos cosh count_nonzero cumulative_prod cumulative_sum
diff divide e empty empty_like equal exp expand_dims expm1 eye fft finfo flip float32 float64 floor floor_divide
from_dlpack full full_like greater greater_equal hypot iinfo imag inf int16 int32 int64 int8 isdtype isfinite isinf
isnan less less_equal linalg linspace log log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor
matmul matrix_transpose max maximum mean meshgrid min minimum moveaxis multiply nan negative newaxis nextafter
nonzero not_equal ones ones_like permute_dims pi positive pow prod real reciprocal remainder repeat reshape
result_type roll round searchsorted sign signbit sin sinh sort sqrt square squeeze stack std subtract sum take
take_along_axis tan tanh tensordot tile tril triu trunc uint16 uint32 uint64 uint8 unique_all unique_counts
unique_inverse unique_values unstack var vecdot where zeros zeros_like __array_namespace_info__ __array_api_version__
"""
LINALG = """
cholesky cross det diagonal eigh eigvalsh inv matmul matrix_norm matrix_power matrix_rank matrix_transpose outer pinv
qr slogdet solve svd svdvals tensordot trace vecdot vector_norm
"""
FFT = "fft ifft fftn ifftn rfft irfft rfftn irfftn hfft ihfft fftfreq rfftfreq fftshift ifftshift"
