"""The time networks that every law is tested on, and an oracle of each: its steps as the table of networks has them."""

from __future__ import annotations

import numpy as np
import optree
import pytest

from cutnn import nn
from tests.algebra.catalogue import ALGEBRAS, draw

NETWORKS = {
    "general, Euler": lambda star, **o: nn.ResNet(star, 3, **o),
    "antisymmetric, Euler": lambda star, **o: nn.ResNet(star, 3, structure="antisymmetric", gamma=0.1, **o),
    "parabolic, Euler": lambda star, **o: nn.ResNet(star, 3, structure="parabolic", hidden=2, **o),
    "general, RK4": lambda star, **o: nn.ResNet(star, 3, integrator="rk4", **o),
    "antisymmetric, midpoint": lambda star, **o: nn.ResNet(
        star, 3, structure="antisymmetric", gamma=0.0, integrator="midpoint", **o
    ),
    "parabolic, leapfrog": lambda star, **o: nn.ResNet(
        star, 3, structure="parabolic", hidden=4, integrator="leapfrog", **o
    ),
    "Hamiltonian": lambda star, **o: nn.HamiltonianNet(star, 3, 2, **o),
    "Hamiltonian, Euler": lambda star, **o: nn.HamiltonianNet(star, 3, 2, integrator="euler", **o),
    "Hamiltonian, midpoint": lambda star, **o: nn.HamiltonianNet(star, 3, 2, integrator="midpoint", **o),
    "two-block": lambda star, **o: nn.HamiltonianNet(star, 3, 2, form="two-block", **o),
    "two-block, RK4": lambda star, **o: nn.HamiltonianNet(
        star, 3, 2, form="two-block", integrator="rk4", **o
    ),
    "H1": lambda star, **o: nn.HamiltonianNet(star, 4, 3, form="H1", **o),
    "H1, J of ones": lambda star, **o: nn.HamiltonianNet(star, 3, 2, form="H1", J="ones", **o),
    "H1, midpoint": lambda star, **o: nn.HamiltonianNet(star, 4, 3, form="H1", integrator="midpoint", **o),
    "H2": lambda star, **o: nn.HamiltonianNet(star, 4, 3, form="H2", **o),
}
REVERSIBLE = [
    "antisymmetric, midpoint", "parabolic, leapfrog", "Hamiltonian", "Hamiltonian, midpoint", "two-block",
    "H1, midpoint", "H2",
]  # fmt: skip
every_network = pytest.mark.parametrize("kind", NETWORKS)
every_reversible = pytest.mark.parametrize("kind", REVERSIBLE)
every_algebra = pytest.mark.parametrize("name", ALGEBRAS)


def make(kind, star, **options):
    dtype = np.float64 if star.real_products else np.complex128
    return NETWORKS[kind](star, **{"dtype": dtype, "seed": 0, "depth": 3, "h": 0.2, **options})


def inputs(net, samples=2, seed=1):
    return draw((*net.star.shape, net.field.width, samples), net.dtype, seed) * 0.5


def agree(a, b, tolerance):
    """Equal up to `tolerance` times the largest entry of all."""
    a, b = (optree.tree_leaves(t, namespace="cutnn") for t in (a, b))
    largest = max(np.abs(x).max() for x in a)
    for x, y in zip(a, b, strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * largest)


def slopes(kind, star, step, xp=np):
    """The derivative in time of (Y,) or (Y, Z), each formula as the table of networks has it."""
    T, tanh = star.transpose, xp.tanh
    if kind.startswith(("two-block", "H2")):
        (K, B), (L, C) = (step.first.weight, step.first.bias), (step.second.weight, step.second.bias)
        return lambda Z: star(T(K), tanh(star(K, Z) + B)), lambda Y: -star(T(L), tanh(star(L, Y) + C))
    K, B = step.weight, step.bias
    if kind.startswith("Hamiltonian"):
        return lambda Z: tanh(star(K, Z) + B), lambda Y: -tanh(star(T(K), Y) + B)
    if kind.startswith("general"):
        return (lambda Y: tanh(star(K, Y) + B),)
    if kind.startswith("antisymmetric"):
        gamma = 0.1 if kind.endswith("Euler") else 0.0
        return (lambda Y: tanh(star(K - T(K) - gamma * star.eye(3), Y) + B),)
    J = -np.eye(3)
    if kind.startswith("H1"):
        zero, one = np.zeros((2, 2)), np.eye(2)
        J = np.block([[zero, one], [-one, zero]])
        if kind.endswith("ones"):
            J = np.triu(np.ones((3, 3)), 1) - np.tril(np.ones((3, 3)), -1)
    return (lambda Y: xp.matmul(J, star(T(K), tanh(star(K, Y) + B))),)


def expected(kind, net, X, star=None, xp=np):
    """The states of a network, by steps that know Y, or Y above Z, as one tensor of rows.

    Written with the operations of `xp` and the products of `star`, so that another tape can follow them.
    """
    star = star or net.star
    h, rows = net.h, net.field.width
    split = 2 if kind == "H2" else rows
    hidden = {"H": 2, "t": 3}[kind[0]] if kind.startswith(("Hamiltonian", "two-block")) else 0
    state = xp.concatenate([X, np.zeros((*X.shape[:-2], hidden, X.shape[-1]), X.dtype)], axis=-2)
    previous, states = None, [X]
    for step in net:
        f = slopes(kind, star, step, xp)

        def rate(u, f=f):
            if len(f) == 1:
                return f[0](u)
            return xp.concatenate([f[0](u[..., split:, :]), f[1](u[..., :split, :])], axis=-2)

        Y, Z = state[..., :split, :], state[..., split:, :]
        match kind.rpartition(", ")[2]:
            case "RK4":
                k1 = rate(state)
                k2 = rate(state + h / 2 * k1)
                k3 = rate(state + h / 2 * k2)
                state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + rate(state + h * k3))
            case "midpoint":
                slope = rate(state)
                following = state + h * slope if previous is None else previous + 2 * h * slope
                previous, state = state, following
            case "leapfrog":
                change = h**2 / 2 * rate(state) if previous is None else state - previous + h**2 * rate(state)
                previous, state = state, state + change
            case "Hamiltonian":  # Z first, then Y
                Z = Z + h * f[1](Y)
                state = xp.concatenate([Y + h * f[0](Z), Z], axis=-2)
            case "two-block" | "H2":  # Y first, then Z
                Y = Y + h * f[0](Z)
                state = xp.concatenate([Y, Z + h * f[1](Y)], axis=-2)
            case _:
                state = state + h * rate(state)
        states.append(state[..., :rows, :])
    return states
