"""Networks as differential equations: every formula, orders of accuracy, stability, reversibility, gradients."""

import math
import tracemalloc
import warnings

import numpy as np
import optree
import pytest
import scipy.integrate
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra, nn
from cutnn.nn._run import System
from cutnn.nn.integrators import Euler, Leapfrog, Midpoint, RungeKutta4, Verlet
from tests.algebra.catalogue import ALGEBRAS, DELICATE, draw
from tests.gradcheck import check

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
    dtype = optree.tree_leaves(net, namespace="cutnn")[0].dtype
    return draw((*net.star.shape, net.field.width, samples), dtype, seed) * 0.5


# ---------------------------------------------------------------------------------------- values


def slopes(kind, net, step):
    """The derivative in time of (Y,) or (Y, Z), each formula as the table of networks has it."""
    star, T = net.star, net.star.transpose
    if kind.startswith(("two-block", "H2")):
        (K, B), (L, C) = (step.first.weight, step.first.bias), (step.second.weight, step.second.bias)
        return (
            lambda Z: star(T(K), np.tanh(star(K, Z) + B)),
            lambda Y: -star(T(L), np.tanh(star(L, Y) + C)),
        )
    K, B = step.weight, step.bias
    if kind.startswith("Hamiltonian"):
        return lambda Z: np.tanh(star(K, Z) + B), lambda Y: -np.tanh(star(T(K), Y) + B)
    if kind.startswith("general"):
        return (lambda Y: np.tanh(star(K, Y) + B),)
    if kind.startswith("antisymmetric"):
        gamma = 0.1 if kind.endswith("Euler") else 0.0
        return (lambda Y: np.tanh(star(K - T(K) - gamma * star.eye(3), Y) + B),)
    sign = -np.eye(3)
    if kind.startswith("H1"):
        sign = np.triu(np.ones((3, 3)), 1) - np.tril(np.ones((3, 3)), -1)
        sign = (
            sign
            if kind.endswith("ones")
            else np.block([[0 * np.eye(2), np.eye(2)], [-np.eye(2), 0 * np.eye(2)]])
        )
    return (lambda Y: sign @ star(T(K), np.tanh(star(K, Y) + B)),)


def expected(kind, net, X):
    """The states of a network, by steps that know (Y,) or (Y, Z) as one long vector of rows."""
    h, rows = net.h, net.field.width
    two = kind.startswith(("Hamiltonian", "two-block"))
    hidden = {"H": 2, "t": 3}[kind[0]] if two else 0
    state, previous = (
        np.concatenate([X, np.zeros((*X.shape[:-2], hidden, X.shape[-1]), X.dtype)], axis=-2),
        None,
    )
    split = 2 if kind == "H2" else rows
    states = [X]
    for step in net:
        f = slopes(kind, net, step)

        def rate(u, f=f):
            if len(f) == 1:
                return f[0](u)
            return np.concatenate([f[0](u[..., split:, :]), f[1](u[..., :split, :])], axis=-2)

        match kind.rpartition(", ")[2]:
            case "RK4":
                k1 = rate(state)
                k2 = rate(state + h / 2 * k1)
                k3 = rate(state + h / 2 * k2)
                state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + rate(state + h * k3))
            case "midpoint":
                slope = rate(state)
                start = state + h * slope if previous is None else previous + 2 * h * slope
                previous, state = state, start
            case "leapfrog":
                force = rate(state)
                start = h**2 / 2 * force if previous is None else state - previous + h**2 * force
                previous, state = state, state + start
            case "Hamiltonian":  # Z first, then Y
                Y, Z = state[..., :split, :], state[..., split:, :]
                Z = Z + h * f[1](Y)
                state = np.concatenate([Y + h * f[0](Z), Z], axis=-2)
            case "two-block" | "H2":  # Y first, then Z
                Y, Z = state[..., :split, :], state[..., split:, :]
                Y = Y + h * f[0](Z)
                state = np.concatenate([Y, Z + h * f[1](Y)], axis=-2)
            case _:
                state = state + h * rate(state)
        states.append(state[..., :rows, :])
    return states


@every_network
@every_algebra
def test_steps_follow_their_formula(kind, name):
    net = make(kind, ALGEBRAS[name])
    X = inputs(net)
    states = net.trajectory(X)
    assert len(states) == 4
    for state, wanted in zip(states, expected(kind, net, X), strict=True):
        np.testing.assert_allclose(state, wanted, atol=1e-12)
    np.testing.assert_array_equal(net(X), states[-1])


@every_network
def test_batch_axes_lead_and_float32_stays(kind):
    net = make(kind, algebra.dct(4), dtype=np.float32)
    X = draw((5, 4, net.field.width, 2), np.float32)
    Y = net(X)
    assert Y.dtype == np.float32
    np.testing.assert_allclose(Y, np.stack([net(x) for x in X]), atol=1e-6)


@every_network
def test_without_bias_zero_stays_zero(kind):
    net = make(kind, algebra.fft(4), bias=False)
    zero = np.zeros((4, net.field.width, 2))
    assert not np.any(net(zero))
    assert np.any(make(kind, algebra.fft(4))(zero))


def test_a_seed_gives_the_same_network_and_steps_differ():
    star = algebra.dct(4)
    one, same, other = (nn.ResNet(star, 3, depth=2, seed=s) for s in (0, np.random.default_rng(0), 1))
    np.testing.assert_array_equal(one[1].weight, same[1].weight)
    assert not np.array_equal(one[0].weight, other[0].weight)
    assert not np.array_equal(one[0].weight, one[1].weight)


@pytest.mark.parametrize(("depth", "tubal", "dense"), [(4, 1_210_816, 1_210_506), (8, 2_390_592, 2_390_282)])
def test_parameter_counts_of_the_cifar_networks(depth, tubal, dense):
    star = algebra.dct(32)
    body = nn.HamiltonianNet(star, width=96, depth=depth)
    assert nn.count_parameters(nn.Sequential(body, nn.TLinear(star, 96, 10))) == tubal
    assert nn.count_parameters(nn.Sequential(body, nn.Unfold(), nn.Dense(3072, 10))) == dense


def test_parameter_counts_of_the_cifar100_networks():
    star = algebra.dct(32)
    body = nn.HamiltonianNet(star, width=96, depth=16)
    assert nn.count_parameters(nn.Sequential(body, nn.TLinear(star, 96, 100))) == 5_029_504
    assert nn.count_parameters(nn.Sequential(body, nn.Unfold(), nn.Dense(3072, 100))) == 5_026_404


def test_a_network_shows_what_it_is():
    shown = repr(nn.ResNet(algebra.dct(4), 3, depth=1, structure="parabolic", hidden=5, integrator="rk4"))
    assert shown.startswith("ResNet(dct(4), 3 ↔ 5, tanh, parabolic, RungeKutta4, h=0.25), 80 parameters")


# ------------------------------------------------------------------------------- orders of accuracy


def order(error):
    """The slope of log error against log h, from n to 2n steps."""
    coarse, fine = error(40), error(80)
    return math.log2(coarse / fine)


def integrate(integrator, parts, blocks, h, count):
    state = integrator.start(parts, blocks, h)
    for _ in range(count):
        state = integrator.forward(parts, state, h)
    return integrator.blocks(state)


@pytest.mark.parametrize(("integrator", "wanted"), [(Euler(), 1), (Midpoint(), 2), (RungeKutta4(), 4)])
def test_order_on_the_logistic_equation(integrator, wanted):
    def error(n):
        (y,) = integrate(integrator, (lambda y: y * (1 - y),), (0.2,), 1 / n, n)
        return abs(y - 1 / (1 + 4 * math.exp(-1)))

    assert order(error) == pytest.approx(wanted, abs=0.1)


def test_order_of_leapfrog_on_an_oscillator():
    def error(n):
        (y,) = integrate(Leapfrog(), (lambda y: -y,), (1.0,), 1 / n, n)
        return abs(y - math.cos(1))

    assert order(error) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("lag", "wanted"), [(0.5, 2), (0.0, 1)])
def test_order_of_verlet_on_an_oscillator(lag, wanted):
    """With the first variable read half a step before the second it is leapfrog; at the same time, of order 1."""

    def error(n):
        h = 1 / n
        _, y = integrate(Verlet(), (lambda b: -b, lambda a: a), (math.sin(lag * h), 1.0), h, n)
        return abs(y - math.cos(1))

    assert order(error) == pytest.approx(wanted, abs=0.1)


@pytest.mark.parametrize(
    ("integrator", "wanted"), [(Euler(), 1), (Midpoint(), 2), (RungeKutta4(), 4), (Verlet(), 1)]
)
def test_order_on_a_pendulum(integrator, wanted):
    """Two blocks, q′ = p and p′ = −sin q, against a solution of high accuracy."""
    exact = scipy.integrate.solve_ivp(
        lambda _, u: [u[1], -np.sin(u[0])], (0, 1), [1.0, 0.5], rtol=1e-13, atol=1e-13
    ).y[:, -1]

    def error(n):
        end = integrate(integrator, (lambda p: p, lambda q: -np.sin(q)), (1.0, 0.5), 1 / n, n)
        return np.abs(np.array(end) - exact).max()

    assert order(error) == pytest.approx(wanted, abs=0.15)


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "real matrix 4", "dct 2, dst 3", "plain"])
@pytest.mark.parametrize(("integrator", "wanted"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_order_of_an_antisymmetric_network(name, integrator, wanted):
    """Linear, with the same weights at all times, it is the exponential of the antisymmetric block matrix."""
    star = ALGEBRAS[name]
    K, X = star.random(3, 3, seed=0) * 0.3, star.random(3, 2, seed=1)
    matrix = star.to_matrix(K - star.transpose(K) - 0.5 * star.eye(3))
    exact = star.fold(scipy.linalg.expm(matrix) @ star.unfold(X))

    def error(n):
        net = nn.ResNet(
            star, 3, depth=n, h=1 / n, activation=None, structure="antisymmetric", gamma=0.5,
            integrator=integrator, bias=False, dtype=np.float64,
        )  # fmt: skip
        for step in net:
            step.weight = K
        return np.abs(net(X) - exact).max()

    assert order(error) == pytest.approx(wanted, abs=0.2)


@pytest.mark.parametrize("name", ["dct 5", "fft 4"])
def test_order_of_a_second_order_network(name):
    star = ALGEBRAS[name]
    K, X = star.random(3, 3, seed=0) * 0.5, star.random(3, 2, seed=1)
    values, vectors = np.linalg.eigh(star.to_matrix(star(star.transpose(K), K)))
    cosine = vectors * np.cos(np.sqrt(np.maximum(values, 0))) @ vectors.T
    exact = star.fold(cosine @ star.unfold(X))

    def error(n):
        net = nn.ResNet(
            star, 3, depth=n, h=1 / n, activation=None, structure="parabolic", integrator="leapfrog",
            bias=False, dtype=np.float64,
        )  # fmt: skip
        for step in net:
            step.weight = K
        return np.abs(net(X) - exact).max()

    assert order(error) == pytest.approx(2, abs=0.2)


# ------------------------------------------------------------------------------------------ stability


@every_algebra
def test_antisymmetric_operators_have_an_imaginary_spectrum(name):
    star = ALGEBRAS[name]
    net = make("antisymmetric, Euler", star)
    (K_hat,) = net.operators(0)
    values = np.linalg.eigvals(star.to_matrix(star.inverse(K_hat)))
    np.testing.assert_allclose(values.real, -0.1, atol=1e-10)
    assert np.abs(values.imag).max() > 0.1


def energies(h_sigma, count):
    """½|Y|² + ½|Z|² along a linear Hamiltonian system, with h times the largest singular value given."""
    star = algebra.dct(3)
    net = nn.HamiltonianNet(star, 3, depth=1, activation=None, bias=False, dtype=np.float64, seed=0)
    system = System(net.field, net.integrator, h_sigma / np.linalg.norm(star.to_matrix(net[0].weight), 2))
    state = net.field.initial(star.random(3, 1, seed=1))
    operator = net.field.operator(net[0])
    values = []
    for _ in range(count):
        state = system.forward(operator, state)
        values.append(sum(float(np.sum(part**2)) for part in state) / 2)
    return np.array(values)


def test_the_energy_of_a_linear_hamiltonian_system_is_bounded():
    values = energies(1.0, 10_000)
    # H ∓ ½h ⟨Z, KᵀY⟩ is kept: with hσ = 1 the energy stays within (1 + ½) / (1 − ½) of its start.
    assert values.max() / values.min() < 3
    assert values[-1000:].max() < 1.01 * values[:1000].max()


def test_leapfrog_is_unstable_beyond_its_bound():
    assert energies(1.99, 400)[-1] < 1e6 < energies(2.05, 400)[-1]


# ---------------------------------------------------------------------------------------- reversibility


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


def agree(a, b, tolerance):
    """Equal up to `tolerance` times the largest entry of all."""
    a, b = (optree.tree_leaves(t, namespace="cutnn") for t in (a, b))
    largest = max(np.abs(x).max() for x in a)
    for x, y in zip(a, b, strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * largest)


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


def test_no_warning_in_float32_at_a_sensible_step():
    net = make("Hamiltonian", algebra.dct(4), depth=200, h=0.05, dtype=np.float32, reversible=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ct.grad(lambda n: ct.sum(n(inputs(n))))(net)


# -------------------------------------------------------------------------------------------- gradients


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


@pytest.mark.parametrize("reversible", [False, True])
def test_a_network_trains_as_a_layer(reversible):
    star = algebra.dct(4)
    model = nn.Sequential(
        nn.HamiltonianNet(star, 3, depth=4, reversible=reversible, seed=0), nn.TLinear(star, 3, 2, seed=1)
    )
    X = star.random(3, 40, seed=2, dtype=np.float32)
    labels = (X[0, 0] > 0).astype(np.int64)
    cross_entropy = nn.TubalCrossEntropy(star)
    optimizer = ct.optim.Adam(model, lr=0.02)
    for _ in range(150):
        optimizer.step(ct.grad(lambda model: cross_entropy(model(X), labels))(model))
    assert np.mean(cross_entropy.predict(model(X)) == labels) > 0.9


@every_network
@pytest.mark.parametrize("name", ["dct 5", "fft 4"])
def test_the_same_values_and_gradients_on_another_device(kind, name, pretend_device):
    net = make(kind, ALGEBRAS[name], reversible=kind in REVERSIBLE)
    X = inputs(net)
    moved, X_there = ct.to_device((net, X), "pretend")
    value, gradients = ct.value_and_grad(lambda net, X: ct.sum(net(X)), argnums=(0, 1))(moved, X_there)
    assert {ct.device_of(leaf) for leaf in optree.tree_leaves(gradients, namespace="cutnn")} == {"pretend"}
    wanted = ct.grad(lambda net, X: ct.sum(net(X)), argnums=(0, 1))(net, X)
    agree(wanted, ct.to_host(gradients), 1e-13)
    np.testing.assert_allclose(float(ct.to_host(value)), np.sum(net(X)), rtol=1e-13)


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"structure": "symmetric"},
            "structure is 'general', 'antisymmetric' or 'parabolic', not 'symmetric'",
        ),
        (
            {"integrator": "verlet"},
            "integrator is one of 'euler', 'midpoint', 'rk4', 'leapfrog', not 'verlet'",
        ),
        ({"hidden": 5}, "goes with structure='parabolic'"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"h": 0.0}, "h must be positive"),
        ({"h": math.nan}, "h must be positive"),
        ({"width": 0}, "sizes must be at least 1"),
        ({"reversible": True}, "Euler cannot be run backward"),
    ],
)
def test_settings_that_do_not_fit(options, says):
    with pytest.raises(ValueError, match=says):
        nn.ResNet(algebra.dct(4), **{"width": 3, **options})


def test_hamiltonian_settings_that_do_not_fit():
    for options, says in [
        ({"form": "other"}, "form is 'shared', 'two-block', 'H1' or 'H2', not 'other'"),
        ({"form": "H2"}, "width=3 is odd"),
        ({"form": "H1"}, "width=3 is odd"),
        ({"form": "H1", "width": 4, "integrator": "leapfrog"}, "take form='H2'"),
        ({"form": "H1", "width": 4, "reversible": True}, "Euler cannot be run backward"),
        ({"integrator": "rk4", "reversible": True}, "RungeKutta4 cannot be run backward"),
        ({"J": "ones"}, "with form='H1'"),
        ({"form": "H1", "J": "identity"}, "J is 'canonical', or 'ones'"),
    ]:
        with pytest.raises(ValueError, match=says):
            nn.HamiltonianNet(algebra.dct(4), **{"width": 3, **options})
    with pytest.raises(TypeError, match="an algebra"):
        nn.HamiltonianNet(3, 3)
    with pytest.raises(TypeError, match="complex"):
        nn.HamiltonianNet(ALGEBRAS["complex matrix 3"], 3)
    with pytest.raises(TypeError, match="dtype is one of"):
        nn.HamiltonianNet(algebra.dct(4), 3, dtype=np.int64)


@every_network
def test_inputs_that_do_not_fit(kind):
    net = make(kind, algebra.dct(4))
    width = net.field.width
    for shape in [(4, 2, 5), (3, width, 5), (4, width), (3, 5)]:
        with pytest.raises(ValueError, match=rf"takes \(4, {width}, N\), and received"):
            net(np.zeros(shape))
    with pytest.raises(ValueError, match="the width stays the same"):
        net.trajectory(np.zeros((4, 5, 3)))
    with pytest.raises(TypeError, match=r"ct.astype\(X, ct.float64\)"):
        net(np.zeros((4, width, 2), dtype=np.float32))
    with pytest.raises(TypeError, match="received a list"):
        net([1.0])
