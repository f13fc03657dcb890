"""Reversible networks: there and back, the gradients of the stored states, memory, drift."""

import tracemalloc
import warnings

import numpy as np
import optree
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra
from tests.algebra.catalogue import ALGEBRAS, draw
from tests.nn.networks import REVERSIBLE, agree, every_algebra, every_reversible, inputs, make


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(REVERSIBLE),
    name=st.sampled_from(sorted(ALGEBRAS)),
    depth=st.integers(1, 12),
    samples=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_forward_then_backward_returns_the_start(kind, name, depth, samples, seed):
    net = make(kind, ALGEBRAS[name], depth=depth, h=0.1, seed=seed)
    system = net._system
    start, *_, state = system.states(net.steps, inputs(net, samples, seed))
    for step in reversed(net.steps):
        state = system.backward(net.field.operator(step), state)
    for part, wanted in zip(*(optree.tree_leaves(t) for t in (state, start)), strict=True):
        np.testing.assert_allclose(part, wanted, atol=1e-11)


def loss(net, X):
    Y = net(X)
    return ct.sum(ct.real(Y * ct.conj(Y)) * np.arange(1.0, 1.0 + Y.shape[-2])[:, None])


def pair(kind, star, **options):
    return make(kind, star, **options), make(kind, star, reversible=True, **options)


@every_reversible
@every_algebra
def test_reversible_gradients_are_the_stored_ones(kind, name):
    stored, reversible = pair(kind, ALGEBRAS[name])
    X = inputs(stored)
    np.testing.assert_array_equal(stored(X), reversible(X))
    agree(*(ct.grad(loss, argnums=(0, 1))(net, X) for net in (stored, reversible)), 1e-12)


@every_reversible
def test_reversible_gradients_at_depth_256(kind):
    stored, reversible = pair(kind, algebra.dct(4), depth=256, h=1 / 32)
    X = inputs(stored)
    agree(*(ct.grad(loss, argnums=(0, 1))(net, X) for net in (stored, reversible)), 1e-9)


@every_reversible
@pytest.mark.parametrize("bias", [True, False])
def test_reversible_networks_within_second_derivatives(kind, bias):
    stored, reversible = pair(kind, algebra.fft(4), bias=bias)
    X = inputs(stored)
    V = optree.tree_map(lambda a: draw(a.shape), stored, namespace="cutnn")
    W = optree.tree_unflatten(
        optree.tree_structure(reversible, namespace="cutnn"), optree.tree_leaves(V, namespace="cutnn")
    )
    agree(ct.hvp(lambda n: loss(n, X), stored, V), ct.hvp(lambda n: loss(n, X), reversible, W), 1e-11)

    def of_weights(net, X):  # the derivative by the input, differentiated by the weights
        slope = ct.grad(lambda x: loss(net, x))(X)
        return ct.sum(slope * slope)

    agree(*(ct.grad(of_weights)(net, X) for net in (stored, reversible)), 1e-11)


def peak(net, X):
    tracemalloc.start()
    try:
        ct.grad(lambda x: ct.sum(net(x)))(X)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@every_reversible
def test_reversible_memory_is_flat_in_depth(kind):
    shallow, deep = (make(kind, algebra.dct(4), depth=d, reversible=True) for d in (4, 64))
    X = inputs(deep, 2000)
    assert peak(deep, X) < 1.2 * peak(shallow, X)
    stored_shallow, stored_deep = (make(kind, algebra.dct(4), depth=d) for d in (4, 64))
    assert peak(stored_deep, X) > 5 * peak(stored_shallow, X)


def test_drift_is_warned_of_with_its_size_and_a_remedy():
    star = algebra.dct(4)
    net = make("antisymmetric, midpoint", star, activation=None, depth=60, h=2.0, reversible=True)
    with pytest.warns(RuntimeWarning, match=r"off by .*e[+-]\d+ .*smaller h.*Midpoint, h=2"):
        ct.grad(loss)(net, inputs(net))


def test_drift_in_float32_is_warned_of_from_a_thousandth_on():
    """Midpoint a little beyond its bound: what is lost on the way back grows with h, step by step."""
    errors = []
    for h in (0.50, 0.55, 0.60, 0.65, 0.70):
        net = make(
            "antisymmetric, midpoint", algebra.dct(4), activation=None, depth=60, h=h, dtype=np.float32,
            reversible=True,
        )  # fmt: skip
        start, following, *_, state = net._system.states(net.steps, inputs(net))
        for step in reversed(net.steps):
            state = net._system.backward(net.field.operator(step), state)
        flat, first, second = (
            np.concatenate([a.ravel() for a in optree.tree_leaves(s)]) for s in (state, start, following)
        )
        errors.append(np.linalg.norm(flat - first) / max(np.linalg.norm(first), np.linalg.norm(second)))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ct.grad(lambda net: ct.sum(net(inputs(net))))(net)
        assert len(caught) == (errors[-1] > 1e-3)
        if caught:
            assert f"off by {errors[-1]:.1e} of their norm" in str(caught[0].message)
    assert min(errors) < 5e-4 and any(1e-3 < error < 0.1 for error in errors)


@pytest.mark.parametrize("bias", [True, False])
@every_reversible
def test_no_warning_where_the_input_is_zero(kind, bias):
    net = make(kind, algebra.dct(4), depth=20, dtype=np.float32, reversible=True, bias=bias)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ct.grad(lambda net: ct.sum(net(0 * inputs(net))))(net)


def test_no_warning_in_float32_at_a_sensible_step():
    net = make("Hamiltonian", algebra.dct(4), depth=200, h=0.05, dtype=np.float32, reversible=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ct.grad(lambda n: ct.sum(n(inputs(n))))(net)
