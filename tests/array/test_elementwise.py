"""Elementwise functions: values are the library's, derivatives those of HIPS autograd and of finite differences."""

from __future__ import annotations

import weakref

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cutnn as ct
from cutnn.tape import primitive
from tests.array.against_torch import compare

# name: (low, high) of a domain on which the function is smooth
UNARY = {
    "abs": (0.2, 2), "acos": (-0.9, 0.9), "acosh": (1.2, 3), "asin": (-0.9, 0.9), "asinh": (-2, 2),
    "atan": (-2, 2), "atanh": (-0.9, 0.9), "cos": (-2, 2), "cosh": (-2, 2), "exp": (-2, 2), "expm1": (-2, 2),
    "log": (0.2, 2), "log10": (0.2, 2), "log1p": (-0.5, 2), "log2": (0.2, 2), "negative": (-2, 2),
    "positive": (-2, 2), "reciprocal": (0.5, 2), "sin": (-2, 2), "sinh": (-2, 2), "sqrt": (0.2, 2),
    "square": (-2, 2), "tan": (-1, 1), "tanh": (-2, 2), "real": (-2, 2), "conj": (-2, 2),
}  # fmt: skip
BINARY = {
    "add": ((-2, 2), (-2, 2)), "subtract": ((-2, 2), (-2, 2)), "multiply": ((-2, 2), (-2, 2)),
    "divide": ((-2, 2), (0.5, 2)), "pow": ((0.5, 2), (-2, 2)), "atan2": ((0.5, 2), (0.5, 2)),
    "hypot": ((0.5, 2), (0.5, 2)), "logaddexp": ((-2, 2), (-2, 2)), "maximum": ((-2, 2), (-2, 2)),
    "minimum": ((-2, 2), (-2, 2)), "remainder": ((2.1, 2.9), (1.1, 1.9)), "copysign": ((-2, 2), (-2, 2)),
}  # fmt: skip
NUMPY = {"acos": "arccos", "acosh": "arccosh", "asin": "arcsin", "asinh": "arcsinh", "atan": "arctan",
         "atanh": "arctanh", "atan2": "arctan2", "pow": "power"}  # fmt: skip
HOLOMORPHIC = [n for n in UNARY if n not in ("abs", "real", "conj", "log1p", "expm1", "log2", "log10")]


def sample(domain, shape=(3, 4), seed=0, dtype=np.float64):
    return np.random.default_rng(seed).uniform(*domain, size=shape).astype(dtype)


class TestUnary:
    @pytest.mark.parametrize("name", UNARY)
    def test_value_is_the_librarys(self, name):
        x = sample(UNARY[name])
        np.testing.assert_array_equal(getattr(ct, name)(x), getattr(np, name)(x))

    @pytest.mark.parametrize("name", UNARY)
    def test_first_and_second_derivative(self, name):
        x = sample(UNARY[name])
        f = lambda x: ct.sum(getattr(ct, name)(x) * x)  # noqa: E731
        theirs = (lambda x: 1.0 * x) if name == "positive" else getattr(anp, NUMPY.get(name, name))
        oracle = lambda x: anp.sum(theirs(x) * x)  # noqa: E731
        np.testing.assert_allclose(ct.grad(f)(x), autograd.grad(oracle)(x), rtol=1e-11, atol=1e-14)
        v = sample((-1, 1), seed=1)
        inner = autograd.grad(lambda x: anp.sum(autograd.grad(oracle)(x) * v))
        np.testing.assert_allclose(ct.hvp(f, x, v), inner(x), rtol=1e-10, atol=1e-11)

    @pytest.mark.parametrize("name", UNARY)
    def test_float32_stays_float32(self, name):
        x = sample(UNARY[name], dtype=np.float32)
        assert ct.grad(lambda x: ct.sum(getattr(ct, name)(x)))(x).dtype == np.float32
        assert ct.hvp(lambda x: ct.sum(getattr(ct, name)(x)), x, x).dtype == np.float32

    @pytest.mark.parametrize("name", HOLOMORPHIC)
    def test_complex_derivative(self, name):
        z = sample((0.3, 0.8)) + 1j * sample((0.2, 0.7), seed=1)
        f, h = getattr(ct, name), 1e-6
        (gradient,) = ct.vjp(f, z)[1](np.ones_like(z))
        for direction in (1, 1j):  # the adjoint of multiplication by f′ is multiplication by its conjugate
            slope = (f(z + h * direction) - f(z - h * direction)) / (2 * h * direction)
            np.testing.assert_allclose(gradient, np.conj(slope), rtol=1e-7)

    @pytest.mark.parametrize("name", ["abs", "real", "imag", "conj"])
    def test_not_holomorphic(self, name):
        z = sample((-1, 1)) + 1j * sample((-1, 1), seed=1)
        weight = sample((-1, 1), seed=2)

        def loss(z):
            return ct.sum(ct.real(getattr(ct, name)(z) * (1 + 0.5j)) * weight)

        for order_loss in (loss, lambda z: ct.sum(ct.abs(ct.grad(lambda z: loss(z * z))(z)) ** 2)):
            gradient, h = ct.grad(order_loss)(z), 1e-6
            for v in (np.ones_like(z), 1j * np.ones_like(z)):
                slope = (order_loss(z + h * v) - order_loss(z - h * v)) / (2 * h)
                np.testing.assert_allclose(
                    np.sum(np.real(np.conj(gradient) * v)), slope, rtol=1e-6, atol=1e-7
                )

    def test_real_and_imag_and_conj_of_real_arrays(self):
        x = sample((-1, 1))
        assert ct.conj(x) is x and ct.real(x) is x
        np.testing.assert_array_equal(ct.imag(x), np.zeros_like(x))


class TestBinary:
    @pytest.mark.parametrize("k", [0, 1])
    @pytest.mark.parametrize("name", [name for name in BINARY if name != "copysign"])
    def test_first_and_second_derivative_in_both_arguments(self, name, k):
        a, b, v = sample(BINARY[name][0]), sample(BINARY[name][1], seed=1), sample((-1, 1), seed=2)
        theirs = getattr(anp, NUMPY.get(name, name), None) or (lambda a, b: anp.sqrt(a**2 + b**2))
        f = lambda a, b: ct.sum(getattr(ct, name)(a, b) * a * b)  # noqa: E731
        oracle = lambda a, b: anp.sum(theirs(a, b) * a * b)  # noqa: E731
        slope, oracle_slope = ct.grad(f, k), autograd.grad(oracle, k)
        np.testing.assert_allclose(slope(a, b), oracle_slope(a, b), rtol=1e-10, atol=1e-14)
        mine = ct.grad(lambda *ab: ct.sum(slope(*ab) * v), 1 - k)(a, b)
        expected = autograd.grad(lambda *ab: anp.sum(oracle_slope(*ab) * v), 1 - k)(a, b)
        np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-12)

    def test_copysign(self):
        a, b = sample((-2, 2)), sample((-2, 2), seed=1)
        ga, gb = ct.grad(lambda a, b: ct.sum(ct.copysign(a, b)), (0, 1))(a, b)
        np.testing.assert_array_equal(ga, np.sign(a) * np.sign(b))
        np.testing.assert_array_equal(gb, np.zeros_like(b))

    @given(st.sampled_from(["add", "subtract", "multiply", "divide", "maximum", "hypot"]), st.data())
    def test_broadcast_gradients_have_the_arguments_shapes(self, name, data):
        shape = data.draw(st.lists(st.integers(1, 3), min_size=0, max_size=3).map(tuple))
        other = tuple(data.draw(st.sampled_from([1, n])) for n in shape)[
            data.draw(st.integers(0, len(shape))) :
        ]
        a, b = sample((0.5, 2), shape), sample((0.5, 2), other, seed=1)
        f = lambda a, b: ct.sum(getattr(ct, name)(a, b) * a)  # noqa: E731
        ga, gb = ct.grad(f, argnums=(0, 1))(a, b)
        assert ga.shape == a.shape and gb.shape == b.shape
        whole = np.broadcast_to(b, shape)
        gw = ct.grad(f, argnums=1)(a, np.array(whole))
        extra = len(shape) - len(other)
        axes = (*range(extra), *(extra + i for i, n in enumerate(other) if n == 1 and shape[extra + i] != 1))
        np.testing.assert_allclose(gb, gw.sum(axis=axes).reshape(other), rtol=1e-12)

    @given(st.sampled_from(["add", "multiply", "divide", "pow"]), st.booleans())
    def test_mixed_dtypes_return_to_each_arguments_own(self, name, swap):
        a, b = sample((0.5, 2), dtype=np.float32), sample((0.5, 2), seed=1).astype(np.complex128)
        if swap:
            a, b = b, a
        gradients = ct.grad(lambda a, b: ct.sum(ct.real(getattr(ct, name)(a, b))), argnums=(0, 1))(a, b)
        assert [g.dtype for g in gradients] == [a.dtype, b.dtype]

    def test_scalars_do_not_widen(self):
        x = sample((0.5, 2), dtype=np.float32)
        f = lambda x: ct.sum(2.0 / (3 * x + 1) ** 2 - x / 4)  # noqa: E731
        assert ct.grad(f)(x).dtype == np.float32

    @pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "pow"])
    @pytest.mark.parametrize("number", [2, 0.5, np.float32(0.5)])
    def test_every_cotangent_has_the_dtype_of_its_array_at_once(self, name, number):
        seen = []
        spy = primitive(x=lambda g: seen.append(g.dtype) or g)(lambda x: x)
        f = getattr(ct, name)
        ct.grad(lambda x: ct.sum(f(number, spy(x)) + f(spy(x), number)))(sample((1, 2), dtype=np.float32))
        assert seen == [np.float32] * 2

    def test_mixed_derivative_of_a_power_where_the_exponent_is_zero(self):
        slope = lambda y: ct.grad(lambda x: x**y)(2.0)  # y x^(y-1)  # noqa: E731
        np.testing.assert_allclose(ct.grad(slope)(0.0), 1 / 2)

    def test_power_of_zero(self):
        x = np.asarray([0.0, 2.0])
        np.testing.assert_array_equal(ct.grad(lambda x: ct.sum(x**2))(x), [0, 4])
        np.testing.assert_array_equal(ct.grad(lambda x: ct.sum(ct.pow(x, np.asarray([0.0, 0.0]))))(x), [0, 0])
        assert np.all(np.isfinite(ct.grad(lambda p: ct.sum(ct.pow(x, p)))(np.asarray([2.0, 2.0]))))


class TestEdges:
    """Where there is no derivative, the gradient is defined, finite and documented."""

    def test_abs_at_zero(self):
        np.testing.assert_array_equal(ct.grad(lambda x: ct.sum(ct.abs(x)))(np.zeros(2)), np.zeros(2))
        np.testing.assert_array_equal(ct.grad(lambda x: ct.sum(ct.abs(x)))(np.zeros(2, complex)), np.zeros(2))

    def test_hypot_at_zero(self):
        np.testing.assert_array_equal(ct.grad(lambda x: ct.sum(ct.hypot(x, x)))(np.zeros(2)), np.zeros(2))

    @pytest.mark.parametrize("name", ["maximum", "minimum"])
    def test_a_tie_is_shared(self, name):
        ga, gb = ct.grad(lambda a, b: ct.sum(getattr(ct, name)(a, b)), argnums=(0, 1))(np.ones(2), np.ones(2))
        np.testing.assert_array_equal(ga, [0.5, 0.5])
        np.testing.assert_array_equal(gb, [0.5, 0.5])

    def test_clip(self):
        x = np.asarray([-2.0, -1.0, 0.0, 1.0, 2.0])
        np.testing.assert_array_equal(ct.grad(lambda x: ct.sum(ct.clip(x, -1, 1)))(x), [0, 1, 1, 1, 0])
        np.testing.assert_array_equal(ct.grad(lambda x: ct.sum(ct.clip(x, min=0.5)))(x), [0, 0, 0, 1, 1])
        low, high = ct.grad(lambda a, b: ct.sum(ct.clip(x, a, b)), argnums=(0, 1))(
            np.float64(-1), np.float64(1)
        )
        assert (low, high) == (1, 1)

    def test_logaddexp_of_minus_infinity(self):
        x = np.asarray([-np.inf, 0.0])
        with np.errstate(invalid="ignore"):
            gradient = ct.grad(lambda x: ct.sum(ct.logaddexp(x, np.asarray([-np.inf, 0.0]))[1:]))(x)
        np.testing.assert_allclose(gradient, [0, 0.5])

    def test_where(self):
        x = sample((-1, 1))
        np.testing.assert_array_equal(
            ct.grad(lambda x: ct.sum(ct.where(x > 0, 3 * x, 0.0)))(x), 3.0 * (x > 0)
        )
        gradient = ct.grad(lambda y: ct.sum(ct.where(x > 0, x, y)))(np.float64(1))
        assert gradient == np.sum(x <= 0)

    @pytest.mark.parametrize("name", ["floor", "ceil", "round", "trunc", "sign"])
    def test_steps_stop_the_gradient(self, name):
        x = sample((-2, 2))
        np.testing.assert_array_equal(
            ct.grad(lambda x: ct.sum(getattr(ct, name)(x) * x))(x), getattr(np, name)(x)
        )

    @pytest.mark.parametrize("name", ["less", "greater_equal", "equal", "not_equal"])
    def test_comparisons_are_plain(self, name):
        seen = []
        ct.grad(lambda x: seen.append(getattr(ct, name)(x, 0.5)) or ct.sum(x))(sample((0, 1)))
        assert type(seen[0]) is np.ndarray and seen[0].dtype == bool

    @pytest.mark.parametrize("name", ["maximum", "minimum"])
    def test_a_tie_of_infinities_is_shared(self, name):
        x, y = np.asarray([np.inf, -np.inf, 1.0]), np.asarray([np.inf, -np.inf, 1.0], dtype=np.float32)
        _, pullback = ct.vjp(getattr(ct, name), x, y)
        for g in pullback(np.ones(3)):
            np.testing.assert_array_equal(g, [0.5] * 3)

    def test_copysign_gives_its_sign_no_gradient(self):
        f = lambda x, sign: ct.sum(ct.copysign(x, sign) ** 2)  # noqa: E731
        for sign in (np.asarray(-1.0), np.ones((3, 1), dtype=np.float32)):
            gx, gs = ct.grad(f, (0, 1))(sample((1, 2)), sign)
            np.testing.assert_array_equal(gx, 2 * sample((1, 2)))
            assert (gs.shape, gs.dtype) == (sign.shape, sign.dtype) and not gs.any()

    def test_imag_of_a_real_array_is_zero_though_it_be_infinite(self):
        np.testing.assert_array_equal(ct.imag(np.asarray([np.inf, np.nan, 1.0])), [0.0] * 3)
        assert ct.grad(lambda x: ct.imag(x) + 2 * x)(np.inf) == 2

    def test_imag_of_a_number(self):
        assert ct.grad(lambda z: ct.imag(z) ** 2)(1 + 2j) == 4j
        assert ct.hvp(lambda z: ct.imag(z) ** 3, np.asarray(1 + 2j), np.asarray(1j)) == 12j

    def test_sign_of_a_complex_number_has_a_gradient(self):
        z = sample((-1, 1)) + 1j * sample((0.2, 1), seed=1)
        compare(ct.sign, pytest.importorskip("torch").sgn, z)
        assert ct.grad(lambda z: ct.real(ct.sign(z)))(0j) == 1  # of z / |z| with 0 counted as of length 1

    def test_clip_without_bounds(self):
        np.testing.assert_array_equal(ct.grad(lambda x: ct.sum(ct.clip(x)))(np.ones(3)), np.ones(3))

    def test_where_keeps_neither_array_alive(self):
        def f(x):
            a, b = x * 2, x * 3
            y = ct.where(x > 0, a, b)
            watched = [weakref.ref(a.value), weakref.ref(b.value)]
            del a, b
            assert [ref() for ref in watched] == [None, None]
            return ct.sum(y)

        np.testing.assert_array_equal(ct.grad(f)(np.asarray([1.0, -1.0])), [2.0, 3.0])


class TestErrors:
    def test_list_is_not_an_array(self):
        with pytest.raises(TypeError, match="tanh.*list"):
            ct.tanh([1.0, 2.0])

    def test_shapes_that_do_not_broadcast(self):
        with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
            ct.grad(lambda x: ct.sum(x + np.ones(3)))(np.ones(2))

    def test_two_devices(self, pretend_device):
        here, there = np.ones(2), ct.to_device(np.ones(2), "pretend")
        for f in (lambda: ct.add(here, there), lambda: ct.grad(lambda x: ct.sum(x * there))(here)):
            with pytest.raises(TypeError, match="multiply|add"):
                f()


@pytest.mark.parametrize("name", [n for n in UNARY if n not in ("real", "conj")])
def test_second_device_gives_the_same_gradients(name, pretend_device):
    x = sample(UNARY[name])
    there = ct.to_device(x, "pretend")
    f = lambda x: ct.sum(getattr(ct, name)(x) * x**3 + 2.0**x)  # noqa: E731
    gradient = ct.grad(f)(there)
    assert type(gradient) is type(there)
    np.testing.assert_array_equal(ct.to_host(gradient), ct.grad(f)(x))
