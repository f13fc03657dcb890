"""Sorting, searching, sets: values are NumPy's and the standard's; of all, `sort` has a gradient."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cutnn as ct
from tests.gradcheck import check

X = np.random.default_rng(0).normal(size=(3, 5, 4))
arrays = hnp.arrays(
    st.sampled_from([np.int64, np.float32]),
    hnp.array_shapes(max_dims=3, max_side=5),
    elements=st.integers(-3, 3),
)


class TestSort:
    @given(arrays, st.booleans(), st.data())
    def test_value_and_order(self, x, descending, data):
        axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
        expected = np.sort(x, axis=axis)
        expected = np.flip(expected, axis) if descending else expected
        np.testing.assert_array_equal(ct.sort(x, axis=axis, descending=descending), expected, strict=True)
        order = ct.argsort(x, axis=axis, descending=descending)
        np.testing.assert_array_equal(np.take_along_axis(x, order, axis), expected, strict=True)
        ties = np.diff(expected, axis=axis) == 0
        assert np.all(np.diff(order, axis=axis)[ties] > 0), "equal entries changed their order"

    @pytest.mark.parametrize("descending", [False, True])
    @pytest.mark.parametrize("axis", [0, 1, -1])
    def test_first_and_second_derivative(self, axis, descending):
        check(lambda x: ct.sort(x, axis=axis, descending=descending), X)
        check(lambda x: ct.sort(x * x * x, axis=axis, descending=descending), X)

    def test_ties_and_dtype(self):
        gradient = ct.grad(lambda x: ct.sum(ct.sort(x) * np.float32([1, 2, 3])))(np.float32([2, 1, 2]))
        np.testing.assert_array_equal(gradient, np.float32([2, 1, 3]), strict=True)

    def test_torch_agrees(self):
        torch = pytest.importorskip("torch")
        t = torch.tensor(X, requires_grad=True)
        w = np.random.default_rng(1).normal(size=X.shape)
        (torch.sort(t, dim=1).values ** 2 * torch.tensor(w)).sum().backward()
        gradient = ct.grad(lambda x: ct.sum(ct.sort(x, axis=1) ** 2 * w))(X)
        np.testing.assert_allclose(gradient, t.grad.numpy(), rtol=1e-13)

    def test_on_another_device(self, pretend_device):
        x = pretend_device.asarray(X)
        f = lambda x: ct.sum(ct.sort(x, axis=1, descending=True)[:, :2] ** 2)  # noqa: E731
        np.testing.assert_allclose(ct.grad(f)(x).get(), ct.grad(f)(X))
        np.testing.assert_array_equal(ct.sort(x, descending=True).get(), ct.sort(X, descending=True))

    @pytest.mark.parametrize("name", ["sort", "argsort", "argmax", "argmin"])
    def test_an_axis_out_of_range_says_so(self, name):
        with pytest.raises((ValueError, IndexError), match=f"{name}: axis 7"):
            getattr(ct, name)(X, axis=7)


class TestWithoutDerivative:
    @pytest.mark.parametrize("keepdims", [False, True])
    @pytest.mark.parametrize("axis", [None, 0, -1])
    @pytest.mark.parametrize("name", ["argmax", "argmin"])
    def test_arguments_of_extremes(self, name, axis, keepdims):
        expected = getattr(np, name)(X, axis=axis, keepdims=keepdims)
        np.testing.assert_array_equal(getattr(ct, name)(X, axis=axis, keepdims=keepdims), expected)

    def test_search_and_sets_are_numpys(self):
        x = np.array([3, 1, 3, 0, 1])
        np.testing.assert_array_equal(ct.nonzero(x)[0], [0, 1, 2, 4])
        edges, values = np.array([0.0, 1.0, 2.0]), np.array([[0.5, 1.0], [3.0, -1.0]])
        np.testing.assert_array_equal(ct.searchsorted(edges, values), [[1, 1], [3, 0]])
        np.testing.assert_array_equal(ct.searchsorted(edges, values, side="right"), [[1, 2], [3, 0]])
        sorter = np.array([2, 0, 1])
        shuffled = ct.searchsorted(np.array([1.0, 2.0, 0.0]), values, sorter=sorter)
        np.testing.assert_array_equal(shuffled, [[1, 1], [3, 0]])
        np.testing.assert_array_equal(ct.unique_values(x), [0, 1, 3])
        np.testing.assert_array_equal(ct.unique_counts(x).counts, [1, 2, 2])
        np.testing.assert_array_equal(ct.unique_inverse(x).inverse_indices, [2, 1, 2, 0, 1])
        np.testing.assert_array_equal(ct.unique_all(x).indices, [3, 1, 0])

    @pytest.mark.parametrize(
        "pick",
        [
            lambda x: x[ct.argmax(x)],
            lambda x: x[ct.argsort(x)][-1],
            lambda x: ct.take(x, ct.argmax(x, keepdims=True))[0],
            lambda x: x[ct.nonzero(x > 1)][-1],
            lambda x: ct.max(ct.unique_values(x)) * 0 + x[2],
        ],
    )
    def test_indices_of_traced_arrays_are_plain(self, pick):
        np.testing.assert_array_equal(ct.grad(pick)(np.array([0.0, 1.0, 5.0])), [0, 0, 1])
