"""Functions with a gradient of their own, `custom_vjp`, and functions computed twice, `checkpoint`."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import cutnn as ct
from cutnn.tape import primitive, raw

X = np.asarray([0.3, -1.2, 2.0])


class TestCustomVjp:
    def make(self):
        @ct.custom_vjp
        def f(x, y):
            return ct.sin(x) * y

        f.defvjp(
            lambda x, y: (ct.sin(x) * y, (ct.cos(x), ct.sin(x), y)),
            lambda saved, g: (2 * g * saved[0] * saved[2], g * saved[1]),  # twice the true one, to be seen
        )
        return f

    def test_its_gradient_is_used(self):
        f = self.make()
        np.testing.assert_allclose(f(X, X), np.sin(X) * X)
        np.testing.assert_allclose(ct.grad(lambda x: ct.sum(f(x, X)))(X), 2 * np.cos(X) * X)
        np.testing.assert_allclose(ct.grad(lambda y: ct.sum(f(X, y)))(X), np.sin(X))

    def test_second_derivative_goes_through_its_backward(self):
        f = self.make()
        second = ct.grad(lambda x: ct.grad(lambda x: f(x, 1.0))(x))(0.5)
        np.testing.assert_allclose(second, -2 * np.sin(0.5))

    def test_complex_cotangents_are_public_ones(self):
        @ct.custom_vjp
        def times_i(z):
            return 1j * z

        times_i.defvjp(lambda z: (1j * z, None), lambda _, g: (-1j * g,))  # the adjoint
        z = np.asarray([1 + 2j])
        loss = lambda op: lambda z: ct.sum(ct.real(op(z) ** 2))  # noqa: E731
        np.testing.assert_allclose(ct.grad(loss(times_i))(z), ct.grad(loss(lambda z: 1j * z))(z))

    def test_none_is_zero_and_pytrees_pass(self):
        @ct.custom_vjp
        def f(tree, k):
            return {"sum": tree["a"] + tree["b"]}

        f.defvjp(
            lambda t, k: ({"sum": t["a"] + t["b"]}, None),
            lambda _, g: ({"a": g["sum"], "b": 3 * g["sum"]}, None),
        )
        gradient = ct.grad(lambda t: ct.sum(f(t, 1.0)["sum"]))({"a": X, "b": X})
        np.testing.assert_array_equal(gradient["b"], 3 * np.ones(3))

    def test_errors(self):
        @ct.custom_vjp
        def f(x):
            return x

        with pytest.raises(TypeError, match="defvjp"):
            ct.grad(f)(1.0)
        f.defvjp(lambda x: (x, None), lambda _, g: (g, g))
        with pytest.raises(TypeError, match="a tuple of 2; expected .* the 1 arguments"):
            ct.grad(f)(1.0)

    def test_closing_over_a_traced_array_is_refused(self):
        def outer(x):
            f = ct.custom_vjp(lambda y: x * y)
            f.defvjp(lambda y: (x * y, None), lambda _, g: (g,))
            return f(x)

        with pytest.raises(TypeError, match="not one of its arguments"):
            ct.grad(outer)(2.0)

    @pytest.mark.parametrize("value", [3.0, np.float32(3)])
    def test_numbers_as_values(self, value):
        f = ct.custom_vjp(lambda x: value)
        f.defvjp(lambda x: (value, x), lambda x, g: (2 * g,))
        assert ct.grad(lambda x: f(x) * x)(2.0) == 3 + 2 * 2

    def test_values_that_are_not_floats_pass_as_they_came(self):
        f = ct.custom_vjp(lambda x: None)
        f.defvjp(lambda x: ((2 * x, 3, "name", np.arange(3)), None), lambda _, g: (2 * g[0],))

        def loss(x):
            y, number, name, indices = f(x)
            assert (type(number), name, type(indices)) == (int, "name", np.ndarray)
            return ct.sum(y * number)

        np.testing.assert_array_equal(ct.grad(loss)(X), [6.0] * 3)

    def test_cotangents_take_the_dtype_of_their_arguments_at_once(self):
        seen = []
        spy = primitive(x=lambda g: seen.append(g.dtype) or g)(lambda x: x)
        f = ct.custom_vjp(lambda x: x)
        f.defvjp(lambda x: (x, None), lambda _, g: (g * np.complex128(1 + 1j),))
        ct.grad(lambda x: ct.sum(f(spy(x))))(X.astype(np.float32))
        assert seen == [np.float32]

    def test_wrong_results_say_what_was_expected(self):
        f = ct.custom_vjp(lambda x: ct.sum(x))
        f.defvjp(lambda x: (ct.sum(x), None), lambda _, g: (np.ones(2),))
        with pytest.raises(ValueError, match=r"shape \(3,\) has shape \(2,\)"):
            ct.grad(f)(X)
        f.defvjp(lambda x: (ct.sum(x), None), lambda _, g: np.ones(3))
        with pytest.raises(TypeError, match="returned a ndarray; expected a tuple"):
            ct.grad(f)(X)
        f.defvjp(lambda x: ct.sum(x), lambda _, g: (g,))
        with pytest.raises(TypeError, match=r"forward returned a float64; expected a pair"):
            ct.grad(f)(X)

    def test_keeps_only_its_residuals_alive(self):
        f = ct.custom_vjp(lambda x: x + 1)
        f.defvjp(lambda x: (x + 1, None), lambda _, g: (g,))

        def loss(x):
            before = x + 0
            after = f(before)
            total = ct.sum(after)
            watched = [weakref.ref(before.value), weakref.ref(after.value)]
            del before, after
            gc.collect()
            assert [ref() for ref in watched] == [None, None]
            return total

        np.testing.assert_array_equal(ct.grad(loss)(X), np.ones(3))


class TestCheckpoint:
    def test_same_gradients_first_and_second_order(self):
        f = lambda x: ct.sum(ct.tanh(ct.sin(x) * x) ** 2)  # noqa: E731
        g = ct.checkpoint(f)
        np.testing.assert_array_equal(ct.grad(g)(X), ct.grad(f)(X))
        np.testing.assert_allclose(ct.hessian(g)(X), ct.hessian(f)(X), rtol=1e-12)

    def test_runs_again_only_when_differentiated(self):
        calls = []

        @ct.checkpoint
        def f(x):
            calls.append(1)
            return x * x

        f(2.0)
        assert len(calls) == 1
        ct.grad(f)(2.0)
        assert len(calls) == 3

    def test_keeps_nothing_inside_alive(self):
        inside = []

        def block(x):
            y = x * 2.0
            inside.append(weakref.ref(raw(y)))
            return ct.sin(y)

        def alive_at_the_end(f):
            inside.clear()
            counted = []

            def loss(x):
                for _ in range(4):
                    x = f(x)
                gc.collect()
                counted.append(sum(r() is not None for r in inside))
                return ct.sum(x)

            ct.grad(loss)(X)
            return counted[0]

        assert alive_at_the_end(block) == 4  # sin keeps its argument
        assert alive_at_the_end(ct.checkpoint(block)) == 0

    def test_pytree_results_and_constant_arguments(self):
        f = ct.checkpoint(lambda t, k, *, scale: {"y": t["a"] * k * scale})
        gradient = ct.grad(lambda t: ct.sum(f(t, 2.0, scale=3.0)["y"]))({"a": X})
        np.testing.assert_allclose(gradient["a"], [6.0] * 3)

    def test_closure_is_refused(self):
        with pytest.raises(TypeError, match="not one of its arguments"):
            ct.grad(lambda x: ct.checkpoint(lambda y: x * y)(x))(2.0)

    def test_function_that_does_not_depend_on_its_argument(self):
        np.testing.assert_array_equal(ct.grad(lambda x: ct.checkpoint(lambda y: 3.0)(x))(X), np.zeros(3))
