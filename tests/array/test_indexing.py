"""Indexing: values are NumPy's, gradients return to where they were read, once for each reading."""

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

X = np.random.default_rng(0).normal(size=(4, 3, 5))
Z = X + 1j * X[::-1]
TWICE = np.array([0, 2, 2, -1])
MASK = X > 0

KEYS = {
    "number": 1,
    "negative number": -1,
    "NumPy number": np.int64(2),
    "slice": slice(1, 3),
    "stepped slice": slice(None, None, -2),
    "ellipsis": (..., 0),
    "new axis": (None, slice(None), None, 1),
    "all": (),
    "one element": (1, 2, 3),
    "array that repeats": TWICE,
    "array in the middle": (slice(None), np.array([2, 0, 2]), slice(1, None)),
    "two arrays": (np.array([0, 0, 3]), slice(None), np.array([1, 1, 2])),
    "array and number": (0, TWICE % 3),
    "2-d array": np.array([[0, 1], [1, 1]]),
    "list": [0, 0, 1],
    "mask": MASK,
    "mask of an axis": (np.array([True, False, True, True]), 0),
    "mask and array": (np.array([True, False, True, False]), np.array([1, 1])),
    "empty slice": slice(2, 2),
    "nothing chosen": np.zeros(4, bool),
}


class TestGetitem:
    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
    def test_value(self, key):
        np.testing.assert_array_equal(ct.vjp(lambda x: x[key], X)[0], X[key], strict=True)

    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
    @pytest.mark.parametrize("x", [X, Z], ids=["real", "complex"])
    def test_first_and_second_derivative(self, key, x):
        check(lambda x: x[key], x)
        check(lambda x: x[key] * x[key], x)

    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
    def test_gradient_is_autograds(self, key):
        w = np.random.default_rng(1).normal(size=X[key].shape)
        expected = autograd.grad(lambda x: anp.sum(w * x[key] ** 2))(X)
        np.testing.assert_allclose(ct.grad(lambda x: ct.sum(w * x[key] ** 2))(X), expected, rtol=1e-13)

    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
    def test_float32_stays_float32(self, key):
        x = X.astype(np.float32)
        assert ct.grad(lambda x: ct.sum(x[key] ** 2))(x).dtype == np.float32

    @given(st.data())
    def test_any_basic_key(self, data):
        x = data.draw(hnp.arrays(np.float64, hnp.array_shapes(max_dims=4, max_side=4), elements=st.just(1.0)))
        key = data.draw(hnp.basic_indices(x.shape, allow_newaxis=True, allow_ellipsis=True))
        expected = np.zeros(x.shape)
        expected[key] = 1
        np.testing.assert_array_equal(ct.grad(lambda x: ct.sum(x[key]))(x), expected, strict=True)

    @given(st.lists(st.integers(-4, 3), max_size=8))
    def test_repeated_numbers_add_up(self, indices):
        key = np.array(indices, dtype=int)
        counts = np.bincount(key % 4, minlength=4).astype(float)
        for read in (lambda x: x[key], lambda x: ct.take(x, key)):
            np.testing.assert_array_equal(ct.grad(lambda x, read=read: ct.sum(read(x)))(np.ones(4)), counts)

    def test_a_loop_over_elements(self):
        np.testing.assert_allclose(ct.grad(lambda x: sum(v * v for v in x))(X[0, 0]), 2 * X[0, 0])

    @pytest.mark.parametrize(
        "f",
        [
            lambda x: x[0] * x[1] + x[1] * x[1],
            lambda x: sum(x[i] * x[i - 1] for i in range(4)),
            lambda x: x * x[0] + x[1] * x,
            lambda x: x[0] * ct.sum(x) + x[TWICE][1] * x[MASK][0] + x[TWICE][0],
            lambda x: ct.take(x, TWICE, axis=0) * ct.sort(x, axis=1)[::-1] + x[2],
            lambda x: x[..., 0][0] * x[1:][1:][0, 0, 0],
            lambda x: (x * x)[1] + (x[1] * x)[1],
        ],
    )
    @pytest.mark.parametrize("x", [X, Z], ids=["real", "complex"])
    def test_many_readings_add_up(self, f, x):
        if np.iscomplexobj(x) and f.__code__.co_names.count("sort"):
            return  # complex numbers have no order
        check(f, x)

    def test_many_readings_of_a_number(self):
        check(lambda x: x[()] * x + x[()] * x[...] + x[None][0], np.array(3.0))

    def test_a_complex_cotangent_of_a_real_value(self):
        _, pullback = ct.vjp(lambda x: (x[0], x[1]), np.ones(2))
        np.testing.assert_array_equal(pullback((2 + 1j, 3.0))[0], [2.0, 3.0], strict=True)
        np.testing.assert_array_equal(pullback((2.0, 3 + 1j))[0], [2.0, 3.0], strict=True)

    def test_a_loop_writes_into_one_array(self, pretend_device, monkeypatch):
        made = []
        zeros = pretend_device.zeros
        monkeypatch.setattr(pretend_device, "zeros", lambda *a, **k: made.append(1) or zeros(*a, **k))
        x = pretend_device.asarray(X[0])
        gradient = ct.grad(lambda x: sum(ct.sum(x[i] * x[i]) for i in range(3)))(x)
        np.testing.assert_allclose(gradient.get(), 2 * X[0])
        assert len(made) == 1

    def test_the_pullback_may_be_called_again(self):
        _, pullback = ct.vjp(lambda x: x[0] * 2.0 + x[1], X)
        first, second = pullback(X[2])[0], pullback(X[2])[0]
        np.testing.assert_array_equal(first, second)
        assert not np.shares_memory(first, second)

    def test_the_array_is_not_kept(self):
        def f(x):
            (x * 2.0)[1]
            assert all(np.size(a) == 1 for link in x.tape[-1] for a in link[2] if isinstance(a, np.ndarray))
            return ct.sum(x)

        ct.grad(f)(X)

    def test_out_of_range_says_so(self):
        with pytest.raises(IndexError, match=r"getitem: index 7 is out of bounds.*\(4, 3, 5\)"):
            ct.grad(lambda x: x[7].sum())(X)


class TestTake:
    @pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
    @pytest.mark.parametrize("indices", [[0, 2, 2], [-1], [[0, 1], [1, 1]], 1], ids=str)
    def test_as_numpy(self, axis, indices):
        indices = np.array(indices)
        np.testing.assert_array_equal(ct.take(X, indices, axis=axis), np.take(X, indices, axis))
        check(lambda x: ct.take(x, indices, axis=axis) ** 2, X)
        check(lambda x: ct.take(x, indices, axis=axis), Z)

    def test_torch_agrees(self):
        torch = pytest.importorskip("torch")
        x = torch.tensor(X, requires_grad=True)
        (torch.index_select(x, 1, torch.tensor([0, 2, 2])) ** 3).sum().backward()
        gradient = ct.grad(lambda x: ct.sum(ct.take(x, np.array([0, 2, 2]), axis=1) ** 3))(X)
        np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-13)

    def test_lists_are_indices_too(self):
        np.testing.assert_array_equal(ct.take(X, [1, 0], axis=0), X[[1, 0]])

    def test_errors(self):
        with pytest.raises(ValueError, match=r"take: an axis is needed .*\(4, 3, 5\)"):
            ct.take(X, np.array([0]))
        with pytest.raises(IndexError, match="take: axis 3 is out of bounds"):
            ct.take(X, np.array([0]), axis=3)
        with pytest.raises(IndexError, match="take: .*out of bounds"):
            ct.take(X, np.array([9]), axis=0)


class TestTakeAlongAxis:
    @pytest.mark.parametrize("axis", [0, 1, -1])
    def test_as_numpy(self, axis):
        shape = list(X.shape)
        shape[axis] = 4
        indices = np.random.default_rng(2).integers(-3, 3, size=shape)
        expected = np.take_along_axis(X, indices, axis)
        np.testing.assert_array_equal(ct.take_along_axis(X, indices, axis=axis), expected)
        check(lambda x: ct.take_along_axis(x, indices, axis=axis) ** 2, X)
        check(lambda x: ct.take_along_axis(x, indices, axis=axis), Z)

    def test_broadcast_of_indices_and_of_the_array(self):
        indices = np.array([[[0], [2], [2]]])
        np.testing.assert_array_equal(ct.take_along_axis(X, indices), np.take_along_axis(X, indices, -1))
        check(lambda x: ct.take_along_axis(x, indices) ** 2, X)
        many = np.random.default_rng(3).integers(0, 3, size=(4, 2, 5))
        check(lambda x: ct.take_along_axis(x, many, axis=1) ** 2, X[:1])

    def test_errors(self):
        with pytest.raises(ValueError, match=r"take_along_axis: indices of shape \(2,\) .*\(4, 3, 5\)"):
            ct.take_along_axis(X, np.array([0, 1]))


UNIQUE = {n: k for n, k in KEYS.items() if "repeat" not in n and n not in ("two arrays", "2-d array", "list")
          and "array" not in n}  # fmt: skip


class TestAssignment:
    @pytest.mark.parametrize("key", UNIQUE.values(), ids=UNIQUE)
    @pytest.mark.parametrize("x", [X, Z], ids=["real", "complex"])
    def test_at_set(self, key, x):
        value = 1.5 * x[key] + 1
        expected = x.copy()
        expected[key] = value
        np.testing.assert_array_equal(ct.at_set(x, key, value), expected, strict=True)
        check(lambda x, v: ct.at_set(x * x, key, v * v), x, np.asarray(value))

    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
    def test_at_add(self, key):
        value = 1.5 * X[key] + 1
        expected = X.copy()
        np.add.at(expected, key, value)
        np.testing.assert_allclose(ct.at_add(X, key, value), expected, rtol=1e-14)
        check(lambda x, v: ct.at_add(x * x, key, v * v), X, np.asarray(value))

    def test_the_original_stays(self):
        x = X.copy()
        ct.at_set(x, 0, 7.0)
        ct.at_add(x, 0, 7.0)
        np.testing.assert_array_equal(x, X)

    @pytest.mark.parametrize("change", [ct.at_set, ct.at_add])
    def test_values_broadcast(self, change):
        check(lambda x, v: change(x, (slice(None), 1), v), X, np.ones(5))
        check(lambda x, v: change(x, slice(1, 3), v), X, np.float64(2.0))
        check(lambda v: change(X, (0, ..., slice(None, None, 2)), v), np.ones((3, 1)))

    @pytest.mark.parametrize("change", [ct.at_set, ct.at_add])
    def test_gradients_have_the_dtypes_of_their_arguments(self, change):
        f = lambda x, v: ct.sum(ct.abs(change(x, 0, v)) ** 2)  # noqa: E731
        gx, gv = ct.grad(f, (0, 1))(np.ones(3, np.complex64), np.float32([2.0])[0])
        assert (gx.dtype, gv.dtype) == (np.complex64, np.float32)

    @pytest.mark.parametrize("change", [ct.at_set, ct.at_add])
    def test_errors(self, change):
        with pytest.raises(TypeError, match="float64 cannot hold values of complex128"):
            change(X, 0, 1j)
        with pytest.raises(TypeError, match="int64 cannot hold values of float64"):
            change(np.arange(3), 0, 0.5)
        with pytest.raises(ValueError, match=rf"{change.__name__}: .*\(4, 3, 5\) and \(7,\)"):
            change(X, 0, np.ones(7))
        with pytest.raises(IndexError, match=f"{change.__name__}: index 9"):
            change(X, 9, 1.0)


class TestAnotherDevice:
    def test_gradients_are_the_same(self, pretend_device):
        xp = pretend_device
        x, i, mask = xp.asarray(X), xp.asarray(TWICE), xp.asarray(MASK)
        along = np.argsort(X, axis=1)
        cases = [
            (lambda x: x[1, ..., ::2], lambda x: x[1, ..., ::2]),
            (lambda x: x[i], lambda x: x[TWICE]),
            (lambda x: x[mask], lambda x: x[MASK]),
            (lambda x: ct.take(x, i, axis=0), lambda x: x[TWICE]),
            (lambda x: ct.take_along_axis(x, xp.asarray(along), axis=1),
             lambda x: ct.take_along_axis(x, along, axis=1)),
            (lambda x: ct.at_set(x, i[:2], x[0]), lambda x: ct.at_set(x, TWICE[:2], x[0])),
            (lambda x: ct.at_add(x, i, 2.0 * x[0]), lambda x: ct.at_add(x, TWICE, 2.0 * x[0])),
        ]  # fmt: skip
        for there, here in cases:
            gradient = ct.grad(lambda x, f=there: ct.sum(f(x) ** 2))(x)
            expected = ct.grad(lambda x, f=here: ct.sum(f(x) ** 2))(X)
            np.testing.assert_allclose(gradient.get(), expected, rtol=1e-14)
