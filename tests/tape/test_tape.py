"""The tape: what gradients are, how tapes nest, what is kept alive."""

from __future__ import annotations

import copy
import pickle
import re
import threading
import weakref

import numpy as np
import optree
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cutnn as ct
from cutnn.tape import Tape, Traced, constant, nondifferentiable, primitive

X = np.asarray([0.3, -1.2, 2.0])


class TestGrad:
    def test_of_a_scalar_function(self):
        np.testing.assert_allclose(ct.grad(lambda x: ct.sum(ct.sin(x) * x))(X), np.cos(X) * X + np.sin(X))

    def test_input_used_many_times(self):
        np.testing.assert_allclose(ct.grad(lambda x: ct.sum(x * x * x + x))(X), 3 * X**2 + 1)

    def test_input_not_used(self):
        gradient = ct.grad(lambda x, y: ct.sum(y), argnums=0)(X.astype(np.float32), X)
        assert gradient.dtype == np.float32
        np.testing.assert_array_equal(gradient, np.zeros(3))

    def test_input_returned_as_it_came(self):
        gradient = ct.grad(lambda x: x)(2.0)
        assert isinstance(gradient, np.ndarray) and gradient == 1.0

    def test_constant_loss(self):
        np.testing.assert_array_equal(ct.grad(lambda x: 3.0)(X), np.zeros(3))
        np.testing.assert_array_equal(ct.grad(lambda x: np.float64(3.0))(X), np.zeros(3))

    def test_value_comes_along(self):
        value, gradient = ct.value_and_grad(lambda x: ct.sum(x**2))(X)
        assert value == np.sum(X**2)
        np.testing.assert_allclose(gradient, 2 * X)

    def test_several_arguments(self):
        gx, gy = ct.grad(lambda x, y: ct.sum(x * y), argnums=(0, 1))(X, 2 * X)
        np.testing.assert_allclose(gx, 2 * X)
        np.testing.assert_allclose(gy, X)

    def test_argnums_picks_one(self):
        np.testing.assert_allclose(ct.grad(lambda x, y: ct.sum(x * y**2), argnums=1)(X, X), 2 * X * X)

    def test_keyword_arguments_are_constants(self):
        np.testing.assert_allclose(ct.grad(lambda x, *, scale: ct.sum(x) * scale)(X, scale=3.0), [3.0] * 3)

    def test_pytrees(self):
        tree = {"a": X, "b": [2.0 * X, (X[0],)], "none": None}
        gradient = ct.grad(lambda t: ct.sum(t["a"] * t["b"][0]) + t["b"][1][0] ** 2)(tree)
        assert optree.tree_structure(gradient) == optree.tree_structure(tree)
        np.testing.assert_allclose(gradient["a"], 2 * X)
        np.testing.assert_allclose(gradient["b"][0], X)
        np.testing.assert_allclose(gradient["b"][1][0], 2 * X[0])

    def test_aux_is_handed_through_as_plain_arrays(self):
        (_, aux), _ = ct.value_and_grad(lambda x: (ct.sum(x), {"twice": 2 * x}), has_aux=True)(X)
        assert type(aux["twice"]) is np.ndarray
        np.testing.assert_allclose(aux["twice"], 2 * X)
        _, aux = ct.grad(lambda x: (ct.sum(x), 7), has_aux=True)(X)
        assert aux == 7

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
    def test_gradient_has_the_dtype_of_its_argument(self, dtype):
        x = X.astype(dtype)
        gradient = ct.grad(lambda x: ct.sum(ct.real(ct.exp(x) * np.float64(2) * np.ones(3))))(x)
        assert gradient.dtype == dtype

    def test_complex_gradient_is_the_direction_of_steepest_ascent(self):
        z = np.asarray([1 + 2j, -0.5 + 0.3j])
        np.testing.assert_allclose(ct.grad(lambda z: ct.sum(ct.real(z) ** 2 + ct.imag(z) ** 2))(z), 2 * z)
        np.testing.assert_allclose(ct.grad(lambda z: ct.real(z * (3 + 4j)).sum())(z), [3 - 4j] * 2)

    def test_real_argument_of_a_complex_function_has_a_real_gradient(self):
        gradient = ct.grad(lambda x: ct.sum(ct.imag(ct.exp(1j * x))))(X)
        assert gradient.dtype == np.float64
        np.testing.assert_allclose(gradient, np.cos(X))

    def test_gradients_do_not_share_memory(self):
        gx, gy = ct.grad(lambda x, y: ct.sum(x + y), argnums=(0, 1))(X, X)
        gx += 1.0
        np.testing.assert_array_equal(gy, np.ones(3))


class TestErrors:
    def test_loss_that_is_no_number(self):
        with pytest.raises(TypeError, match=r"one real number.*shape \(3,\).*jacobian"):
            ct.grad(lambda x: x * 2)(X)

    def test_complex_loss(self):
        with pytest.raises(TypeError, match="complex128"):
            ct.grad(lambda x: ct.sum(x * 1j))(X)

    def test_several_losses(self):
        with pytest.raises(TypeError, match="tree of 2 leaves"):
            ct.grad(lambda x: (ct.sum(x), ct.sum(x)))(X)

    def test_integer_argument(self):
        with pytest.raises(TypeError, match="int64.*argnums"):
            ct.grad(lambda x: ct.sum(x))(np.arange(3))

    def test_argument_that_is_no_array(self):
        with pytest.raises(TypeError, match="a str"):
            ct.grad(lambda x: 1.0)("text")

    @pytest.mark.parametrize("argnums", [1, -2, (), (0, 1), "x"])
    def test_argnums_that_name_no_argument(self, argnums):
        with pytest.raises(TypeError, match=f"{re.escape(repr(argnums))}.*1 positional"):
            ct.grad(lambda x: x, argnums=argnums)(1.0)

    def test_argnums_that_name_an_argument_twice(self):
        with pytest.raises(TypeError, match="twice"):
            ct.grad(lambda x, y: x * y, argnums=(1, -1))(1.0, 2.0)

    def test_aux_that_is_missing(self):
        with pytest.raises(TypeError, match=r"\(loss, aux\), not a Traced"):
            ct.grad(lambda x: x * 2, has_aux=True)(1.0)

    def test_hessian_of_a_complex_argument(self):
        with pytest.raises(TypeError, match="complex.*hvp"):
            ct.hessian(lambda z: ct.abs(z) ** 2)(1 + 2j)

    def test_assignment_names_the_function_to_use(self):
        def f(x):
            x[0] = 1.0
            return ct.sum(x)

        with pytest.raises(TypeError, match="at_set"):
            ct.grad(f)(X)

    @pytest.mark.parametrize(
        "lose", [float, int, complex, np.asarray, lambda x: x.item(), lambda x: [0, 1, 2][x]]
    )
    def test_losing_the_gradient_in_silence_is_refused(self, lose):
        with pytest.raises(TypeError, match="gradient"):
            ct.grad(lambda x: lose(x[0]) * x[0])(X)

    def test_storing_in_a_plain_array(self):
        with pytest.raises(ValueError) as info:
            ct.grad(lambda x: X.copy().__setitem__(0, x[0]) or x[0])(X)
        assert "gradient" in str(info.value.__cause__)

    def test_writing_into_a_plain_array(self):
        def f(x):
            y = np.zeros(3)
            y += x
            return ct.sum(y)

        with pytest.raises(TypeError, match="out="):
            ct.grad(f)(X)

    def test_pullback_of_another_shape(self):
        _, pullback = ct.vjp(lambda x: x * 2, X)
        with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
            pullback(np.ones(2))


class TestNesting:
    def test_second_and_third_derivative(self):
        f = lambda x: x**4  # noqa: E731
        assert ct.grad(ct.grad(f))(2.0) == 48.0
        assert ct.grad(ct.grad(ct.grad(f)))(2.0) == 48.0

    def test_tapes_are_not_confused(self):
        # d/dx (x · d/dy (x + y)) = 1: a tape that mixed its levels up would say 2.
        assert ct.grad(lambda x: x * ct.grad(lambda y: x + y)(1.0))(1.0) == 1.0
        assert ct.grad(lambda x: ct.grad(lambda y: x * y * y)(x))(3.0) == 12.0  # d/dx 2x² = 4x

    def test_inner_function_that_ignores_its_argument(self):
        assert ct.grad(lambda x: x * ct.grad(lambda y: x * x)(2.0))(3.0) == 0.0

    @given(st.integers(1, 4), st.floats(0.5, 2.0))
    def test_derivatives_of_a_power(self, order, x):
        f = lambda x: ct.pow(x, 5.0)  # noqa: E731
        factor = 1.0
        for k in range(order):
            f, factor = ct.grad(f), factor * (5 - k)
        np.testing.assert_allclose(f(x), factor * x ** (5 - order), rtol=1e-10)

    def test_threads_do_not_meet(self):
        results = {}

        def work(k):
            for _ in range(50):
                results[k] = ct.grad(lambda x: ct.grad(lambda y: y**3 * k)(x))(float(k))

        threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert results == {k: 6.0 * k * k for k in range(1, 6)}


class TestVjp:
    def test_pullback_is_linear_and_lasts(self):
        _, pullback = ct.vjp(lambda x: ct.sin(x) * x, X)
        once, twice = pullback(np.ones(3))[0], pullback(2 * np.ones(3))[0]
        np.testing.assert_allclose(2 * once, twice)

    def test_pytrees_in_and_out(self):
        value, pullback = ct.vjp(lambda d: {"s": d["a"] + d["b"], "p": d["a"] * d["b"]}, {"a": X, "b": 2 * X})
        assert type(value["s"]) is np.ndarray
        (gradient,) = pullback({"s": np.ones(3), "p": np.zeros(3)})
        np.testing.assert_array_equal(gradient["a"], np.ones(3))

    def test_of_a_linear_map_is_its_adjoint(self):
        rng = np.random.default_rng(0)
        M = rng.normal(size=(3, 2)) + 1j * rng.normal(size=(3, 2))
        x, g = rng.normal(size=2) + 1j * rng.normal(size=2), rng.normal(size=3) + 1j * rng.normal(size=3)
        np.testing.assert_allclose(ct.vjp(lambda x: ct.matmul(M, x), x)[1](g)[0], M.conj().T @ g)

    def test_jvp(self):
        value, tangent = ct.jvp(lambda x, y: ct.sin(x) * y, (X, X), (np.ones(3), np.zeros(3)))
        np.testing.assert_allclose(value, np.sin(X) * X)
        np.testing.assert_allclose(tangent, np.cos(X) * X)

    def test_jvp_of_integers_is_zero(self):
        (y, i), (dy, di) = ct.jvp(lambda x: (x**2, ct.argmax(x)), (X,), (X,))
        assert i == 2 and di == 0
        np.testing.assert_allclose(dy, 2 * X * X)

    def test_jvp_of_a_holomorphic_function(self):
        z, v = np.asarray([0.3 + 1j]), np.asarray([2 - 1j])
        np.testing.assert_allclose(ct.jvp(ct.exp, (z,), (v,))[1], np.exp(z) * v)


class TestJacobians:
    def test_jacobian(self):
        A = np.arange(6.0).reshape(2, 3)
        np.testing.assert_allclose(ct.jacobian(lambda x: ct.matmul(A, x))(X), A)

    def test_shape_is_value_then_argument(self):
        x = np.ones((2, 3))
        assert ct.jacobian(lambda x: ct.sum(x, axis=0))(x).shape == (3, 2, 3)
        assert ct.jacobian(lambda x: x[:0])(X).shape == (0, 3)

    def test_complex_values_of_a_real_argument(self):
        z = np.asarray([1 + 2j, 3 - 1j, 0.5j])
        J = ct.jacobian(lambda x: ct.exp(x * z))(X)
        np.testing.assert_allclose(J, np.diag(z * np.exp(X * z)))
        J = ct.jacobian(lambda x: x[:0] * 1j)(X.astype(np.float32))
        assert J.shape == (0, 3) and J.dtype == np.complex64

    def test_argnums_count_from_the_end_too(self):
        np.testing.assert_allclose(ct.jacobian(lambda x, y: x * y**2, argnums=-1)(X, X), np.diag(2 * X * X))

    def test_of_a_holomorphic_function(self):
        z = np.asarray([0.3 + 1j, 2 - 1j])
        np.testing.assert_allclose(ct.jacobian(lambda z: z**2)(z), np.diag(2 * z))

    def test_hessian_and_hvp_agree(self):
        f = lambda x: ct.sum(ct.exp(x) * ct.sin(x[::-1]))  # noqa: E731
        H, v = ct.hessian(f)(X), np.asarray([1.0, -2.0, 0.5])
        np.testing.assert_allclose(H, H.T)
        np.testing.assert_allclose(ct.hvp(f, X, v), H @ v)

    def test_hvp_over_a_pytree(self):
        f = lambda t: ct.sum(t["a"] ** 2 * t["b"])  # noqa: E731
        out = ct.hvp(f, {"a": X, "b": X}, {"a": np.ones(3), "b": np.zeros(3)})
        np.testing.assert_allclose(out["a"], 2 * X)
        np.testing.assert_allclose(out["b"], 2 * X)

    def test_hvp_of_a_complex_argument(self):
        z, v, h = np.asarray([1 + 2j]), np.asarray([0.5 - 1j]), 1e-6
        f = lambda z: ct.sum(ct.real(z * z * ct.conj(z)))  # noqa: E731
        expected = (ct.grad(f)(z + h * v) - ct.grad(f)(z - h * v)) / (2 * h)
        np.testing.assert_allclose(ct.hvp(f, z, v), expected, rtol=1e-8)


class TestStopGradient:
    def test_cuts_every_level(self):
        assert ct.grad(lambda x: x * ct.stop_gradient(x))(3.0) == 3.0
        assert ct.grad(ct.grad(lambda x: x * ct.stop_gradient(x * x)))(3.0) == 0.0

    def test_over_pytrees(self):
        def f(t):
            stopped = ct.stop_gradient(t)
            assert type(stopped["a"]) is np.ndarray
            return ct.sum(stopped["a"]) + ct.sum(t["a"])

        np.testing.assert_array_equal(ct.grad(f)({"a": X})["a"], np.ones(3))


class TestPrimitive:
    def test_saves_what_its_rules_name(self):
        seen = {}

        @primitive(x=lambda g, y, scale: seen.update(y=y, scale=scale) or g * y * scale)
        def f(x, y, *, scale=2.0):
            assert type(x) is np.ndarray
            return x * y * scale

        np.testing.assert_allclose(ct.grad(lambda x: ct.sum(f(x, X, scale=3.0)))(X), 3 * X)
        assert seen["scale"] == 3.0
        np.testing.assert_allclose(ct.grad(lambda x: ct.sum(f(x, y=X)))(X), 2 * X)

    def test_memory_is_dropped_as_the_backward_pass_goes(self):
        alive, refs = [], []

        @primitive(x=lambda g, ans: (alive.append(sum(r() is not None for r in refs)), g)[1])
        def step(x):
            y = x * 1.0
            refs.append(weakref.ref(y))
            return y

        def loss(x):
            for _ in range(6):
                x = step(x)
            return ct.sum(x)

        ct.grad(loss)(X)
        assert alive == sorted(alive, reverse=True) and alive[0] >= 6 and alive[-1] <= 2

    def test_several_outputs(self):
        @primitive(x=lambda g: (0 if g[0] is None else 2 * g[0]) + (0 if g[1] is None else 3 * g[1]))
        def two(x):
            return 2 * x, 3 * x

        np.testing.assert_array_equal(ct.grad(lambda x: ct.sum(two(x)[0]))(X), [2.0] * 3)
        np.testing.assert_array_equal(ct.grad(lambda x: ct.sum(two(x)[1] * 1.0))(X), [3.0] * 3)
        np.testing.assert_array_equal(ct.grad(lambda x: sum(ct.sum(t) for t in two(x)))(X), [5.0] * 3)

    def test_any_number_of_arrays(self):
        @primitive(arrays=lambda g, arrays, weight: [g * weight for _ in arrays])
        def total(*arrays, weight=1.0):
            return weight * sum(arrays)

        np.testing.assert_array_equal(ct.grad(lambda x: ct.sum(total(x, X, x, weight=2.0)))(X), [4.0] * 3)

    def test_nondifferentiable_parameter_says_so_by_name(self):
        @primitive(x=lambda g: g, k=nondifferentiable("has no derivative in k; fix k"))
        def f(x, k):
            return x

        assert ct.grad(lambda x: f(x, 2.0))(1.0) == 1.0
        with pytest.raises(ct.NotDifferentiableError, match="f has no derivative in k"):
            ct.grad(lambda k: f(1.0, k))(2.0)

    def test_wrong_rules_are_found_at_definition(self):
        with pytest.raises(TypeError, match="no parameter named z"):
            primitive(z=lambda g: g)(lambda x: x)
        with pytest.raises(TypeError, match="expected g"):
            primitive(x=lambda grad, x: grad)(lambda x: x)

    def test_wrong_call_is_pythons_own_error(self):
        @primitive(x=lambda g: g)
        def f(x, y):
            return x

        with pytest.raises(TypeError, match="missing"):
            ct.grad(lambda x: f(x))(1.0)
        with pytest.raises(TypeError, match="multiple|unexpected"):
            ct.grad(lambda x: f(x, 1.0, z=2))(1.0)

    def test_constant_stops_the_gradient(self):
        f = constant(lambda x: x * 10)
        assert ct.grad(lambda x: x * f(x))(2.0) == 20.0


def test_traced_arrays_exist_only_inside():
    seen = []
    ct.grad(lambda x: seen.append(type(x)) or ct.sum(x))(X)
    assert seen == [Traced]
    assert type(ct.sin(X)) is np.ndarray


def test_zero_dimensional_results_inside_a_trace_are_arrays():
    def f(x):
        total = ct.sum(x)
        assert type(total) is Traced and total.shape == () and total.dtype == np.float64
        return total * 1.0

    ct.grad(f)(X)


def test_later_tape_is_the_inner_one():
    assert Tape().order < Tape().order


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_traced_array_keeps_its_gradient(duplicate):
    assert ct.grad(lambda x: duplicate({"x": x})["x"] ** 2)(3.0) == 6


def test_a_traced_array_cannot_be_pickled():
    with pytest.raises(TypeError, match="pickling.*stop_gradient"):
        ct.grad(lambda x: pickle.dumps(x))(3.0)
