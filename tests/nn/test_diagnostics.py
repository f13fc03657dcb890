"""Along a network: energies that the equation keeps, norms of states, norms of gradients by independent means."""

import math

import numpy as np
import optree
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra, nn
from cutnn.nn.diagnostics import _POTENTIALS
from tests.algebra.catalogue import ALGEBRAS, draw
from tests.nn.networks import every_network, inputs, make

UNITARY = [
    name
    for name, star in ALGEBRAS.items()
    if star.real_products and all(t.scale is not None for t in star.transforms)
]
# What has an energy, and by what order of h a step of its integrator changes it.
CONSERVING = {
    "two-block": (2, lambda star, **o: nn.HamiltonianNet(star, 3, 2, form="two-block", **o)),
    "two-block, RK4": (
        5,
        lambda star, **o: nn.HamiltonianNet(star, 3, 2, form="two-block", integrator="rk4", **o),
    ),
    "H2": (2, lambda star, **o: nn.HamiltonianNet(star, 4, 3, form="H2", **o)),
    "H1": (2, lambda star, **o: nn.HamiltonianNet(star, 4, 3, form="H1", **o)),
    "H1 of ones, RK4": (
        5,
        lambda star, **o: nn.HamiltonianNet(star, 3, 2, form="H1", J="ones", integrator="rk4", **o),
    ),
    "second order": (
        3,
        lambda star, **o: nn.ResNet(star, 3, structure="parabolic", hidden=2, integrator="leapfrog", **o),
    ),
}
ACTIVATIONS = {"tanh": ct.tanh, "None": None, "relu": ct.relu, "sigmoid": ct.sigmoid}
every_conserving = pytest.mark.parametrize("kind", CONSERVING)


def build(kind, name, depth, h, seed=0, **options):
    """A network of `depth` steps with the same weights at all times."""
    make_net = CONSERVING[kind][1]
    net = make_net(ALGEBRAS[name], depth=1, h=h * depth, dtype=np.float64, seed=seed, **options)
    return net.resample(depth)


# ---------------------------------------------------------------------------------------------- energies


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_potentials_have_the_activation_for_their_slope(activation):
    S, sigma = _POTENTIALS[ACTIVATIONS[activation]], ACTIVATIONS[activation] or (lambda x: x)
    x = np.array([-1000.0, -3.0, -0.2, 0.0, 0.1, 2.0, 1000.0])
    np.testing.assert_allclose(ct.grad(lambda x: ct.sum(S(x)))(x), sigma(x), atol=1e-12)
    assert np.isfinite(S(x)).all()
    assert S(np.zeros(1, np.float32)).dtype == np.float32


@every_conserving
@settings(deadline=None, max_examples=8)
@given(
    name=st.sampled_from(UNITARY),
    activation=st.sampled_from(["tanh", "None", "sigmoid"]),
    seed=st.integers(0, 99),
)
def test_the_equation_keeps_the_energy(kind, name, activation, seed):
    """So a step changes it by a power of h beyond the first, which a wrong energy would not have."""
    order = CONSERVING[kind][0]
    drifts = []
    for h in (0.1, 0.05):
        net = build(kind, name, 4, h, seed, activation=ACTIVATIONS[activation])
        values, drift = nn.energy(net, inputs(net, 2, seed))
        drifts.append(abs(drift).max())
    assert drifts[1] <= drifts[0] * 0.5 ** (order - 0.6) + 1e-13 * abs(values).max()


@every_conserving
def test_drift_adds_up_where_weights_stay(kind):
    net = build(kind, "dct 5", 20, 0.1)
    values, drift = nn.energy(net, inputs(net, 3))
    assert values.shape == (21, 3) and drift.shape == (20, 3)
    np.testing.assert_allclose(values[1:] - values[0], np.cumsum(drift, axis=0), atol=1e-12)


@pytest.mark.parametrize(("kind", "name", "h"), [("two-block", "dct 5", 0.3), ("second order", "plain", 0.5)])
def test_energies_of_true_hamiltonian_systems_are_bounded_over_ten_thousand_steps(kind, name, h):
    net = build(kind, name, 10_000, h)
    values, _ = nn.energy(net, inputs(net, 1))
    assert abs(values / values[0] - 1).max() < 0.3
    assert abs(np.mean(values[-2000:]) / np.mean(values[:2000]) - 1) < 0.02


def test_the_energy_of_an_explicit_method_is_not():
    make_net = CONSERVING["H1"][1]
    net = make_net(algebra.dct(4), depth=1, h=600.0, dtype=np.float64, seed=0).resample(2000)
    values, drift = nn.energy(net, inputs(net, 1))
    assert values[-1] > 2 * values[0] and drift.sum() == pytest.approx(values[-1, 0] - values[0, 0])


def by_hand(kind, net, j, blocks):
    """The energy of step j's weights, written out."""
    star, step = net.star, net[j]

    def S(K, B, Y):
        return np.log(np.cosh(star(K, Y) + B)).sum(axis=(0, 1))

    def square(*parts):
        return 0.5 * sum((part**2).sum(axis=(0, 1)) for part in parts)

    if kind.startswith(("two-block", "H2")):
        Y, Z = blocks
        return S(step.first.weight, step.first.bias, Z) + S(step.second.weight, step.second.bias, Y)
    if kind.startswith(("H1", "parabolic")):
        return S(step.weight, step.bias, blocks[0])
    return square(*blocks)


@pytest.mark.parametrize(
    "kind",
    ["two-block", "H2", "H1", "H1, J of ones", "parabolic, Euler", "Hamiltonian", "Hamiltonian, midpoint",
     "antisymmetric, Euler", "antisymmetric, midpoint"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["dct 5", "fft 4", "real matrix 4"])
def test_values_are_those_of_the_weights_at_the_time(kind, name):
    net = make(kind, ALGEBRAS[name])
    X = inputs(net)
    values, drift = nn.energy(net, X)
    states = net.blocks(X)
    for t, wanted in enumerate(values):
        np.testing.assert_allclose(wanted, by_hand(kind, net, min(t, 2), states[t]), rtol=1e-10)
    for j, wanted in enumerate(drift):
        change = by_hand(kind, net, j, states[j + 1]) - by_hand(kind, net, j, states[j])
        np.testing.assert_allclose(wanted, change, atol=1e-12)


def test_the_energy_of_second_order_is_that_of_position_and_speed():
    """A harmonic oscillator from rest: Y = cos(ωt), H = ½ω²."""
    net = nn.ResNet(
        algebra.plain(), 1, depth=1, h=2.0, activation=None, structure="parabolic", integrator="leapfrog",
        bias=False, dtype=np.float64,
    )  # fmt: skip
    net[0].weight[:] = 3.0
    values, drift = nn.energy(net.resample(400), np.ones((1, 1)))
    np.testing.assert_allclose(values, 4.5, rtol=1e-3)
    assert values[0] == 4.5 and abs(drift).max() < 1e-5


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "complex from data 3"])
def test_linear_shared_networks_keep_the_quadratic_energy(name):
    star = ALGEBRAS[name]
    dtype = np.float64 if star.real_products else np.complex128
    net = nn.HamiltonianNet(star, 3, 2, depth=1, h=4.0, activation=None, bias=False, dtype=dtype, seed=0)
    coarse, fine = (nn.energy(net.resample(d), inputs(net)) for d in (400, 800))
    np.testing.assert_allclose(fine.values, np.broadcast_to(fine.values[0], (801, 2)), rtol=1e-2)
    assert abs(fine.drift).max() < 0.3 * abs(coarse.drift).max()


def test_a_complex_two_block_network_without_activation_has_an_energy():
    star = ALGEBRAS["complex from data 3"]
    net = nn.HamiltonianNet(
        star, 3, depth=1, h=4.0, activation=None, form="two-block", dtype=np.complex128, seed=0
    )
    coarse, fine = (nn.energy(net.resample(d), inputs(net)) for d in (200, 400))
    assert fine.values.dtype == np.float64
    assert abs(fine.drift).max() < 0.3 * abs(coarse.drift).max()


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
def test_the_energy_of_a_parabolic_network_falls(integrator):
    net = nn.ResNet(
        algebra.dct(4), 3, depth=20, structure="parabolic", integrator=integrator, dtype=np.float64, seed=0
    )
    _, drift = nn.energy(net, inputs(net))
    assert (drift < 0).all()


def test_damping_takes_energy_from_an_antisymmetric_network():
    net = nn.ResNet(
        algebra.dct(4), 3, depth=1, h=4.0, activation=None, structure="antisymmetric", gamma=0.5, bias=False,
        integrator="rk4", dtype=np.float64, seed=0,
    ).resample(100)  # fmt: skip
    values, _ = nn.energy(net, inputs(net))
    np.testing.assert_allclose(values[-1], values[0] * math.exp(-2 * 0.5 * 4.0), rtol=1e-6)


def test_networks_and_activations_without_an_energy():
    X = draw((4, 3, 2))
    for options in ({}, {"structure": "antisymmetric", "integrator": "leapfrog"}):
        net = nn.ResNet(algebra.dct(4), 3, dtype=np.float64, **options)
        with pytest.raises(TypeError, match="has none; HamiltonianNet has one, and ResNet with structure="):
            nn.energy(net, X)
    net = nn.HamiltonianNet(algebra.dct(4), 3, form="two-block", activation=ct.softplus, dtype=np.float64)
    with pytest.raises(TypeError, match="ct.tanh, ct.relu, ct.sigmoid and None, not of 'softplus'"):
        nn.energy(net, X)
    net = nn.HamiltonianNet(algebra.dct(4), 3, form="two-block", dtype=np.complex128)
    with pytest.raises(TypeError, match="of complex128.* with activation=None"):
        nn.energy(net, X.astype(np.complex128))
    with pytest.raises(ValueError, match=r"what fits is \(4, 3, N\)"):
        nn.energy(nn.HamiltonianNet(algebra.dct(4), 3, dtype=np.float64), X[:, :2])


# ------------------------------------------------------------------------------------------- norms of states


@every_network
@pytest.mark.parametrize("name", ["dct 5", "complex matrix 3", "plain", "dct 2, dst 3"])
def test_norms_are_those_of_all_blocks(kind, name):
    net = make(kind, ALGEBRAS[name])
    X = inputs(net, 3)
    norms = nn.norms(net, X)
    assert norms.shape == (4, 3) and norms.dtype == np.float64
    for t, blocks in enumerate(net.blocks(X)):
        flat = np.concatenate([block.reshape(-1, 3) for block in blocks])
        np.testing.assert_allclose(norms[t], np.linalg.norm(flat, axis=0), rtol=1e-12)


def test_batch_axes_lead():
    net = make("two-block", algebra.dct(4))
    X = draw((5, 4, 3, 2))
    for values in (nn.norms(net, X), nn.energy(net, X).values):
        assert values.shape == (4, 5, 2)
    np.testing.assert_allclose(nn.norms(net, X)[:, 1], nn.norms(net, X[1]))
    np.testing.assert_allclose(nn.energy(net, X).drift[:, 1], nn.energy(net, X[1]).drift)


def test_a_linear_antisymmetric_network_keeps_norms():
    net = nn.ResNet(
        algebra.dct(4), 3, depth=1, h=4.0, activation=None, structure="antisymmetric", gamma=0.0, bias=False,
        integrator="rk4", dtype=np.float64, seed=0,
    ).resample(100)  # fmt: skip
    norms = nn.norms(net, inputs(net))
    np.testing.assert_allclose(norms, np.broadcast_to(norms[0], norms.shape), rtol=1e-6)


# ---------------------------------------------------------------------------------------- norms of gradients


def square_loss(Y, target):
    residual = Y - target
    return ct.sum(ct.real(residual * ct.conj(residual)))


def tail(net, t, state):
    """The output from an integrator's state at time t on."""
    for step in net.steps[t:]:
        state = net.integrator.forward(net.field.parts(net.field.operator(step)), state, net.h)
    return net.field.observe(net.integrator.blocks(state))


def states_of(net, X):
    parts = net.field.parts(net.field.operator(net[0]))
    state = net.integrator.start(parts, net.field.initial(X), net.h)
    yield state
    for step in net:
        state = net.integrator.forward(net.field.parts(net.field.operator(step)), state, net.h)
        yield state


@every_network
def test_gradients_by_finite_differences(kind):
    """Every number of the state at a time is moved, and the rest of the network run."""
    net = make(kind, algebra.dct(2), depth=2)
    X, target, e = inputs(net, 1), draw(inputs(net, 1).shape, seed=7), 1e-6
    got = nn.gradient_norms(net, square_loss, X, target)
    for t, state in enumerate(states_of(net, X)):
        slopes = []
        for b, block in enumerate(net.integrator.blocks(state)):
            for index in np.ndindex(block.shape):
                ends = []
                for sign in (1, -1):
                    blocks = [part.copy() for part in net.integrator.blocks(state)]
                    blocks[b][index] += sign * e
                    moved = tuple(blocks)
                    if t == 0:
                        parts = net.field.parts(net.field.operator(net[0]))
                        moved = net.integrator.start(parts, moved, net.h)
                    elif net.integrator.blocks(state) is not state:
                        moved = (state[0], moved)
                    ends.append(square_loss(tail(net, t, moved), target))
                slopes.append((ends[0] - ends[1]) / (2 * e))
        assert got.states[t, 0] == pytest.approx(np.linalg.norm(slopes), rel=1e-6)


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "real matrix 4", "complex matrix 3", "plain"])
@every_network
def test_gradients_at_the_start_and_of_the_weights_are_those_of_the_tape(kind, name):
    net = make(kind, ALGEBRAS[name])
    X = inputs(net, 3)
    target = draw(X.shape, X.dtype, 7)
    states, weights = nn.gradient_norms(net, square_loss, X, target)
    of_net, of_X = ct.grad(lambda net, X: square_loss(net(X), target), argnums=(0, 1))(net, X)
    for j, step in enumerate(of_net):
        squares = [np.sum(abs(a) ** 2) for a in optree.tree_leaves(step, namespace="cutnn")]
        assert weights[j] == pytest.approx(math.sqrt(sum(squares)), rel=1e-10)
    axes = tuple(range(X.ndim - 1))
    at_end = np.sqrt((abs(2 * (net(X) - target)) ** 2).sum(axis=axes))
    np.testing.assert_allclose(states[-1], at_end, rtol=1e-10)
    at_start = np.sqrt((abs(of_X) ** 2).sum(axis=axes))
    if net.field.blocks == 1 or kind == "H2":  # no Z beside X, whose gradient counts too
        np.testing.assert_allclose(states[0], at_start, rtol=1e-10)
    else:
        assert (states[0] >= at_start * (1 - 1e-12)).all()


def test_gradients_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    star = algebra.dct(4)
    model = nn.Sequential(
        nn.TLinear(star, 2, 3, activation=ct.tanh, dtype=np.float64, seed=0),
        nn.HamiltonianNet(star, 3, 5, depth=3, h=0.3, dtype=np.float64, seed=1),
        nn.Unfold(),
        nn.Dense(12, 4, dtype=np.float64, seed=2),
    )
    X, labels = draw((4, 2, 6)), np.array([0, 1, 2, 3, 0, 1])
    got = nn.gradient_norms(model, nn.CrossEntropy(), X, labels)
    M = torch.tensor(star.transforms[0].matrix())

    def product(K, Y):
        hat = torch.einsum("ij,jab->iab", M, K) @ torch.einsum("ij,jab->iab", M, Y)
        return torch.einsum("ij,iab->jab", M, hat)

    first, net, _, last = model
    weights = [[torch.tensor(a, requires_grad=True) for a in (s.weight, s.bias)] for s in net]
    Y = torch.tanh(product(torch.tensor(first.weight), torch.tensor(X)) + torch.tensor(first.bias))
    Y.requires_grad_()
    Z = torch.zeros((4, 5, 6), dtype=torch.float64, requires_grad=True)
    times = [(Z, Y)]
    for K, B in weights:
        Z = Z - 0.3 * torch.tanh(product(K.mT, Y) + B)
        Y = Y + 0.3 * torch.tanh(product(K, Z) + B)
        # What the network does with Z and Y from here on: a copy, so that Y's use of Z does not count.
        Z, Y = Z * 1.0, Y * 1.0
        times.append((Z, Y))
    head = torch.tensor(last.weight) @ Y.reshape(12, 6) + torch.tensor(last.bias)
    loss = torch.nn.functional.cross_entropy(head.T, torch.tensor(labels))
    grads = torch.autograd.grad(
        loss, [a for pair in times for a in pair], retain_graph=True, allow_unused=True
    )
    for t in range(4):
        pair = [g for g in grads[2 * t : 2 * t + 2] if g is not None]
        expected = sum((g**2).sum(dim=(0, 1)) for g in pair).sqrt()
        np.testing.assert_allclose(got.states[t], expected.numpy(), rtol=1e-10)
    for j, pair in enumerate(weights):
        squares = sum((g**2).sum() for g in torch.autograd.grad(loss, pair, retain_graph=True))
        assert got.weights[j] == pytest.approx(squares.sqrt().item(), rel=1e-10)


def test_gradients_of_a_stable_network_neither_vanish_nor_explode():
    star = algebra.dct(4)
    stable = nn.HamiltonianNet(star, 3, depth=64, h=0.1, dtype=np.float64, seed=0)
    general = nn.ResNet(star, 3, depth=64, h=1.0, integrator="euler", dtype=np.float64, seed=0)
    X, target = draw((4, 3, 5)), draw((4, 3, 5), seed=1)
    for net, low, high in ((stable, 0.1, 10), (general, 0, math.inf)):
        states, _ = nn.gradient_norms(net, square_loss, X, target)
        ratio = states[0] / states[-1]
        assert ((low < ratio) & (ratio < high)).all()
    assert (ratio > 10).any() or (ratio < 0.1).any()


@pytest.mark.parametrize("kind", ["Hamiltonian", "antisymmetric, midpoint", "two-block"])
def test_a_reversible_network_has_the_gradients_of_the_stored_one(kind):
    stored, reversible = make(kind, algebra.dct(4)), make(kind, algebra.dct(4), reversible=True)
    X, target = inputs(stored), draw(inputs(stored).shape, seed=7)
    for a, b in zip(
        *(nn.gradient_norms(net, square_loss, X, target) for net in (stored, reversible)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_of_several_networks_one_is_chosen():
    star = algebra.dct(4)
    nets = [nn.HamiltonianNet(star, 3, depth=d, seed=d, dtype=np.float64) for d in (2, 3)]
    model = nn.Sequential(nets[0], nn.Sequential(nets[1]))
    X, target = draw((4, 3, 2)), draw((4, 3, 2), seed=1)
    with pytest.raises(ValueError, match=r"Sequential holds 2 time networks; give which of them"):
        nn.gradient_norms(model, square_loss, X, target)
    first, second = (nn.gradient_norms(model, square_loss, X, target, net=net) for net in nets)
    assert (len(first.weights), len(second.weights)) == (2, 3)
    alone = nn.gradient_norms(nets[1], square_loss, nets[0](X), target)
    np.testing.assert_allclose(second.states, alone.states, rtol=1e-12)


def test_models_that_do_not_fit():
    star = algebra.dct(4)
    net, other = (nn.HamiltonianNet(star, 3, seed=s, dtype=np.float64) for s in (0, 1))
    X = draw((4, 3, 2))
    with pytest.raises(ValueError, match="TLinear holds 0 time networks; give a ResNet or a HamiltonianNet"):
        nn.gradient_norms(nn.TLinear(star, 3, 3, dtype=np.float64), square_loss, X, X)
    with pytest.raises(ValueError, match="no part of the model, or is called 0 times"):
        nn.gradient_norms(net, square_loss, X, X, net=other)
    with pytest.raises(ValueError, match="called 2 times"):
        nn.gradient_norms(nn.Sequential(net, net), square_loss, X, X, net=net)


@pytest.mark.parametrize("kind", ["two-block", "Hamiltonian", "parabolic, leapfrog"])
def test_diagnostics_on_another_device(kind, pretend_device):
    net = make(kind, algebra.fft(4))
    X = inputs(net)
    there, X_there = ct.to_device((net, X), "pretend")
    np.testing.assert_allclose(nn.norms(there, X_there), nn.norms(net, X))
    for a, b in zip(nn.energy(there, X_there), nn.energy(net, X), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)
    pairs = zip(
        nn.gradient_norms(there, square_loss, X_there, 0 * X_there),
        nn.gradient_norms(net, square_loss, X, 0 * X),
        strict=True,
    )
    for a, b in pairs:
        np.testing.assert_allclose(a, b)
