"""Gradients of time networks: against an independent tape, and against finite differences."""

import autograd
import autograd.numpy as anp
import numpy as np
import optree
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra
from tests.algebra.catalogue import ALGEBRAS, DELICATE, draw
from tests.gradcheck import check
from tests.nn.networks import (
    NETWORKS,
    agree,
    every_algebra,
    every_network,
    every_reversible,
    expected,
    inputs,
    make,
)


class Oracle:
    """The ★ product by the matrices of its definition, in operations that HIPS autograd follows."""

    def __init__(self, star):
        self.M, self.inverse = np.eye(1), np.eye(1)
        for t in star.transforms:
            self.M, self.inverse = np.kron(self.M, t.matrix()), np.kron(self.inverse, t.inverse_matrix())
        self.shape, self.real = star.shape, star.real_products
        self.eye = star.eye

    def hat(self, A, M):
        faces = anp.reshape(A, (len(M), -1))
        if M.dtype.kind == "c":
            faces = faces * (1 + 0j)  # of a product, not of dot, the gradient by a real factor is real
        return anp.reshape(anp.dot(M, faces), A.shape)

    def back(self, A_hat):
        A = self.hat(A_hat, self.inverse)
        return anp.real(A) if self.real else A

    def __call__(self, A, B):
        return self.back(anp.matmul(self.hat(A, self.M), self.hat(B, self.M)))

    def transpose(self, A):
        return self.back(anp.conj(anp.swapaxes(self.hat(A, self.M), -1, -2)))


@every_network
@every_algebra
def test_gradients_are_those_of_an_independent_tape(kind, name):
    """HIPS autograd over the table of networks: values, and derivatives by every weight and the input."""
    star = ALGEBRAS[name]
    net = make(kind, star)
    X = inputs(net)
    arrays, tree = optree.tree_flatten(net, namespace="cutnn")
    C = draw(X.shape, X.dtype, seed=5)

    def theirs(*arrays):
        *weights, X = arrays
        boxed = tree.unflatten(weights)
        return anp.sum(anp.real(expected(kind, boxed, X, Oracle(star), anp)[-1] * C))

    value, gradients = ct.value_and_grad(lambda net, X: ct.sum(ct.real(net(X) * C)), argnums=(0, 1))(net, X)
    np.testing.assert_allclose(value, theirs(*arrays, X), rtol=1e-10)
    mine = optree.tree_leaves(gradients, namespace="cutnn")
    wanted = autograd.grad(theirs, tuple(range(len(mine))))(*arrays, X)
    agree([np.conj(g) for g in wanted], mine, 1e-11)  # HIPS autograd returns conjugates


@settings(deadline=None)
@given(
    kind=st.sampled_from(sorted(NETWORKS)),
    name=st.sampled_from(sorted(ALGEBRAS)),
    depth=st.integers(1, 6),
    samples=st.integers(1, 4),
    h=st.floats(0.01, 1.0),
    seed=st.integers(0, 1000),
)
def test_gradients_whatever_the_depth_and_the_step(kind, name, depth, samples, h, seed):
    net = make(kind, ALGEBRAS[name], depth=depth, h=h, seed=seed)
    check(lambda net, X: net(X), net, inputs(net, samples, seed), order=1)


@every_network
@pytest.mark.parametrize("name", [*DELICATE, "dct 5", "haar 4", "plain"])
def test_gradients(kind, name):
    net = make(kind, ALGEBRAS[name], depth=2)
    check(lambda net, X: net(X), net, inputs(net), order=1)


@every_network
@pytest.mark.parametrize("name", ["real matrix 4", "fft 5"])
def test_second_derivatives(kind, name):
    net = make(kind, ALGEBRAS[name], depth=2)
    check(lambda net, X: net(X), net, inputs(net), order=2)


@every_reversible
@pytest.mark.parametrize("name", ["real matrix 4", "complex matrix 3", "fft 5"])
def test_reversible_gradients(kind, name):
    net = make(kind, ALGEBRAS[name], depth=2, reversible=True)
    check(lambda net, X: net(X), net, inputs(net), order=2)


@every_network
def test_gradients_of_a_whole_trajectory(kind):
    net = make(kind, algebra.fft(4), depth=2)
    check(lambda net, X: net.trajectory(X), net, inputs(net), order=1)
