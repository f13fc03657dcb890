"""Manipulation functions: values are NumPy's, gradients those of finite differences and of HIPS autograd."""

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

X = np.random.default_rng(0).normal(size=(2, 3, 4))
Z = X + 1j * X[::-1]
DTYPES = [np.float32, np.float64, np.complex64, np.complex128, np.int32, np.bool_]
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)

# name: function of one array, and the same in NumPy
LINEAR = {
    "reshape": (lambda x: ct.reshape(x, (4, -1)), lambda x: np.reshape(x, (4, -1))),
    "reshape to a number": (lambda x: ct.reshape(x, -1), lambda x: np.reshape(x, -1)),
    "expand_dims": (lambda x: ct.expand_dims(x, axis=-1), lambda x: np.expand_dims(x, -1)),
    "expand_dims of two": (lambda x: ct.expand_dims(x, axis=(0, 2)), lambda x: np.expand_dims(x, (0, 2))),
    "squeeze": (lambda x: ct.squeeze(x[:1], axis=0), lambda x: np.squeeze(x[:1], 0)),
    "squeeze all": (lambda x: ct.squeeze(x[:1, :, :1]), lambda x: np.squeeze(x[:1, :, :1])),
    "broadcast_to": (lambda x: ct.broadcast_to(x[:, :1], (5, 2, 3, 4)),
                     lambda x: np.broadcast_to(x[:, :1], (5, 2, 3, 4))),
    "permute_dims": (lambda x: ct.permute_dims(x, (2, 0, 1)), lambda x: np.transpose(x, (2, 0, 1))),
    "permute_dims from the end": (lambda x: ct.permute_dims(x, (-1, 0, -2)),
                                  lambda x: np.transpose(x, (2, 0, 1))),
    "moveaxis": (lambda x: ct.moveaxis(x, 0, -1), lambda x: np.moveaxis(x, 0, -1)),
    "moveaxis of two": (lambda x: ct.moveaxis(x, (0, 1), (-1, 0)), lambda x: np.moveaxis(x, (0, 1), (-1, 0))),
    "flip": (ct.flip, np.flip),
    "flip one": (lambda x: ct.flip(x, axis=-1), lambda x: np.flip(x, -1)),
    "flip two": (lambda x: ct.flip(x, axis=(0, 2)), lambda x: np.flip(x, (0, 2))),
    "roll": (lambda x: ct.roll(x, 5), lambda x: np.roll(x, 5)),
    "roll two": (lambda x: ct.roll(x, (1, -2), axis=(0, 2)), lambda x: np.roll(x, (1, -2), (0, 2))),
    "repeat": (lambda x: ct.repeat(x, 2), lambda x: np.repeat(x, 2)),
    "repeat along": (lambda x: ct.repeat(x, 3, axis=-2), lambda x: np.repeat(x, 3, -2)),
    "repeat each": (lambda x: ct.repeat(x, np.array([2, 0, 1]), axis=1),
                    lambda x: np.repeat(x, [2, 0, 1], 1)),
    "tile": (lambda x: ct.tile(x, (2, 3)), lambda x: np.tile(x, (2, 3))),
    "tile to more axes": (lambda x: ct.tile(x, (2, 1, 3, 1)), lambda x: np.tile(x, (2, 1, 3, 1))),
    "concat": (lambda x: ct.concat([x, x[:1], x]), lambda x: np.concatenate([x, x[:1], x])),
    "concat flat": (lambda x: ct.concat([x, x[0]], axis=None), lambda x: np.concatenate([x, x[0]], None)),
    "concat last": (lambda x: ct.concat([x[..., 1:], x], axis=-1),
                    lambda x: np.concatenate([x[..., 1:], x], -1)),
    "stack": (lambda x: ct.stack([x, x[::-1]]), lambda x: np.stack([x, x[::-1]])),
    "stack last": (lambda x: ct.stack([x[0], x[1]], axis=-1), lambda x: np.stack([x[0], x[1]], -1)),
    "broadcast_arrays": (lambda x: ct.stack(ct.broadcast_arrays(x, x[:1])),
                         lambda x: np.stack(np.broadcast_arrays(x, x[:1]))),
    "unstack": (lambda x: ct.concat(ct.unstack(x, axis=-1)[1:3]),
                lambda x: np.concatenate([x[..., 1], x[..., 2]])),
}  # fmt: skip


class TestEach:
    @pytest.mark.parametrize("name", LINEAR)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_value_and_dtype(self, name, dtype):
        f, numpys = LINEAR[name]
        x = (Z if np.dtype(dtype).kind == "c" else X).astype(dtype)
        np.testing.assert_array_equal(f(x), numpys(x), strict=True)

    @pytest.mark.parametrize("name", LINEAR)
    @pytest.mark.parametrize("x", [X, Z], ids=["real", "complex"])
    def test_first_and_second_derivative(self, name, x):
        f = LINEAR[name][0]
        check(f, x, order=1)
        check(lambda x: f(x * x), x)

    @pytest.mark.parametrize("name", LINEAR)
    def test_float32_stays_float32(self, name):
        f = LINEAR[name][0]
        x = X.astype(np.float32)
        gradient = ct.grad(lambda x: ct.sum(f(x) ** 2))(x)
        assert gradient.dtype == np.float32
        wide = ct.grad(lambda x: ct.sum(f(x) ** 2))(x.astype(np.float64))
        np.testing.assert_allclose(gradient, wide, rtol=1e-5)

    @pytest.mark.parametrize("name", LINEAR)
    def test_on_another_device(self, name, pretend_device):
        f, numpys = LINEAR[name]
        if name == "repeat each":
            f = lambda x: ct.repeat(x, pretend_device.asarray([2, 0, 1]), axis=1)  # noqa: E731
        x = pretend_device.asarray(X)
        np.testing.assert_array_equal(f(x).get(), numpys(X))
        gradient = ct.grad(lambda x: ct.sum(f(x) ** 2))(x)
        np.testing.assert_allclose(gradient.get(), ct.grad(lambda x: ct.sum(LINEAR[name][0](x) ** 2))(X))


class TestShapes:
    @given(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, max_side=3))
    def test_broadcasting(self, broadcastable):
        a, b, c = (np.ones(s) for s in broadcastable.input_shapes)
        for x in ct.broadcast_arrays(a, b, c):
            assert x.shape == broadcastable.result_shape
        gradient = ct.grad(lambda a: ct.sum(ct.broadcast_arrays(a, b, c)[0]))(a)
        assert gradient.shape == a.shape
        if a.size:
            size = np.prod(broadcastable.result_shape)
            np.testing.assert_array_equal(gradient, np.full(a.shape, size / a.size))

    @given(shapes, st.data())
    def test_permutations_undo_themselves(self, shape, data):
        axes = tuple(data.draw(st.permutations(range(len(shape)))))
        x = np.arange(float(np.prod(shape))).reshape(shape)
        y, pullback = ct.vjp(lambda x: ct.permute_dims(x, axes), x)
        assert y.shape == tuple(shape[i] for i in axes)
        np.testing.assert_array_equal(pullback(y)[0], x)

    @given(shapes, st.data())
    def test_tile_is_numpys(self, shape, data):
        times = tuple(data.draw(st.lists(st.integers(0, 3), max_size=5)))
        x = np.arange(float(np.prod(shape))).reshape(shape)
        np.testing.assert_array_equal(ct.tile(x, times), np.tile(x, times), strict=True)

    @given(shapes.filter(len), st.data())
    def test_unstack_and_stack(self, shape, data):
        axis = data.draw(st.integers(-len(shape), len(shape) - 1))
        x = np.arange(float(np.prod(shape))).reshape(shape)
        slices = ct.unstack(x, axis=axis)
        assert len(slices) == shape[axis]
        if slices:
            np.testing.assert_array_equal(ct.stack(slices, axis=axis % len(shape)), x, strict=True)

    def test_expanded_axes_are_counted_in_the_result(self):
        assert ct.expand_dims(np.float64(1.0), axis=(0, 1)).shape == (1, 1)
        assert ct.expand_dims(X, axis=-1).shape == (2, 3, 4, 1)

    def test_scalars_and_empty_arrays(self):
        assert ct.reshape(np.float32(2), (1,)).dtype == np.float32
        assert ct.concat([np.ones((0, 2)), np.ones((3, 2))]).shape == (3, 2)
        assert ct.unstack(np.ones((0, 2))) == ()
        np.testing.assert_array_equal(ct.grad(lambda x: ct.sum(ct.repeat(x, 0)))(np.ones(3)), np.zeros(3))


class TestAgainstAutograd:
    @pytest.mark.parametrize(
        ("f", "oracle"),
        [
            (lambda x: ct.roll(x, 2, axis=1), lambda x: anp.roll(x, 2, 1)),
            (lambda x: ct.concat([x, x * x], axis=1), lambda x: anp.concatenate([x, x * x], 1)),
            (lambda x: ct.moveaxis(x, 0, 2), lambda x: anp.moveaxis(x, 0, 2)),
            (lambda x: ct.tile(x, (2, 1, 3)), lambda x: anp.tile(x, (2, 1, 3))),
            (lambda x: ct.repeat(x, 2, axis=1), lambda x: anp.repeat(x, 2, 1)),
        ],
    )
    def test_gradient(self, f, oracle):
        w = np.random.default_rng(1).normal(size=f(X).shape)
        expected = autograd.grad(lambda x: anp.sum(w * oracle(x) ** 3))(X)
        np.testing.assert_allclose(ct.grad(lambda x: ct.sum(w * f(x) ** 3))(X), expected, rtol=1e-12)


class TestJoining:
    def test_each_part_gets_its_own_dtype(self):
        """Also inside: the narrow part of a network stays narrow on the way back."""
        dtypes = []

        @ct.custom_vjp
        def spy(x):
            return x

        spy.defvjp(lambda x: (x, None), lambda _, g: (dtypes.append(g.dtype) or g,))
        a, b = np.ones(2, np.float32), np.ones(2, np.complex128)
        for join in (ct.concat, ct.stack):
            ct.grad(lambda a, join=join: ct.sum(ct.real((2 + 3j) * join([spy(a), b]))))(a)
        ct.grad(lambda a: ct.sum(ct.real(ct.astype(spy(a), ct.complex128) * 1j)))(a)
        assert dtypes == [np.float32] * 3
        for join in (ct.concat, ct.stack):
            ga, gb = ct.grad(lambda a, b, join=join: ct.sum(ct.real((2 + 3j) * join([a, b]))), (0, 1))(a, b)
            np.testing.assert_array_equal(ga, np.full(2, 2, np.float32), strict=True)
            np.testing.assert_array_equal(gb, np.full(2, 2 - 3j), strict=True)

    def test_numbers_take_the_dtype_of_arrays(self):
        x = np.float32([1, 2])
        np.testing.assert_array_equal(ct.stack([x[0], 3.0]), np.float32([1, 3]), strict=True)

        def f(x):
            y = ct.stack([x[0], 3.0, x[1]])
            assert y.dtype == np.float32
            return ct.sum(y * y)

        np.testing.assert_array_equal(ct.grad(f)(x), np.float32([2, 4]), strict=True)

    def test_unused_slices_have_zero_gradient(self):
        def f(x):
            first, _, third = ct.unstack(x, axis=1)
            return ct.sum(first * third)

        expected = np.stack([X[:, 2], 0 * X[:, 1], X[:, 0]], axis=1)
        np.testing.assert_array_equal(ct.grad(f)(X), expected)

    def test_traced_and_plain_mix(self):
        check(lambda a, b: ct.concat([a, np.ones((1, 3, 4)), b * b]), X, X[:1])
        check(lambda a: ct.stack([np.ones(2), a, a * a], axis=1), X[:, 0, 0])


class TestMemory:
    @pytest.mark.parametrize("name", LINEAR)
    def test_no_array_of_numbers_is_kept(self, name):
        def f(x):
            LINEAR[name][0](x)
            assert not kept(x.tape)
            return ct.sum(x)

        ct.grad(f)(X)


def kept(records):
    """The float arrays among what records saved."""
    if isinstance(records, (list, tuple)):
        return [a for part in records for a in kept(part)]
    return [records] if getattr(records, "dtype", None) == np.float64 and records.size > 1 else []


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "error", "words"),
        [
            (lambda x: ct.reshape(x, (5, 5)), ValueError, r"reshape: .*\(2, 3, 4\)"),
            (lambda x: ct.squeeze(x, axis=0), ValueError, r"squeeze: axis 0 .*\(2, 3, 4\)"),
            (lambda x: ct.broadcast_to(x, (2, 5, 4)), ValueError, r"broadcast_to: .*\(2, ?3, ?4\)"),
            (lambda x: ct.broadcast_arrays(x, x[:, :2]), ValueError, r"\(2, 3, 4\), \(2, 2, 4\)"),
            (lambda x: ct.permute_dims(x, (0, 1)), ValueError, r"permute_dims: .*\(2, 3, 4\)"),
            (lambda x: ct.moveaxis(x, 3, 0), IndexError, r"moveaxis: axis 3 .*3 dimensions"),
            (lambda x: ct.moveaxis(x, (0, 1), (0,)), ValueError, r"moveaxis: source \(0, 1\)"),
            (lambda x: ct.flip(x, axis=4), IndexError, r"flip: .*\(2, 3, 4\)"),
            (lambda x: ct.roll(x, 1, axis=4), IndexError, r"roll: .*\(2, 3, 4\)"),
            (lambda x: ct.repeat(x, np.array([1, 2]), axis=1), ValueError, r"repeat: .*\(2,\).*\(3,\)"),
            (lambda x: ct.expand_dims(x, axis=7), IndexError, r"expand_dims: axis 7"),
            (lambda x: ct.expand_dims(x, axis=(0, 0)), ValueError, r"expand_dims: .*repeat"),
            (lambda x: ct.concat([x, x[0]]), ValueError, r"concat: .*\(2, 3, 4\) and \(3, 4\)"),
            (lambda x: ct.concat([]), ValueError, "concat: needs at least one"),
            (lambda x: ct.stack([x, x[:1]]), ValueError, r"stack: .*\(2, 3, 4\) and \(1, 3, 4\)"),
            (lambda x: ct.unstack(x, axis=3), IndexError, "unstack: axis 3"),
            (lambda x: ct.unstack(x[0, 0, 0]), ValueError, "unstack: a 0-d array"),
        ],
    )
    def test_says_which_function_and_shapes(self, call, error, words):
        with pytest.raises(error, match=words):
            call(X)
        with pytest.raises(error, match=words):
            ct.grad(lambda x: ct.sum(call(x)))(X)
