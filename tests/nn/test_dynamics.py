"""Networks as differential equations: every formula, orders of accuracy, stability, reversibility, gradients."""

import functools
import math
import tracemalloc
import warnings

import numpy as np
import optree
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra, nn
from cutnn.nn.integrators import INTEGRATORS, System, Verlet
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
    "two-block": lambda star, **o: nn.HamiltonianNet(star, 3, 2, form="two-block", **o),
}
REVERSIBLE = ["antisymmetric, midpoint", "parabolic, leapfrog", "Hamiltonian", "two-block"]
every_network = pytest.mark.parametrize("kind", NETWORKS)
every_reversible = pytest.mark.parametrize("kind", REVERSIBLE)
every_algebra = pytest.mark.parametrize("name", ALGEBRAS)


def make(kind, star, **options):
    dtype = np.float64 if star.real_products else np.complex128
    return NETWORKS[kind](star, **{"dtype": dtype, "seed": 0, "depth": 3, "h": 0.2, **options})


def inputs(net, samples=2, seed=1):
    dtype = optree.tree_leaves(net, namespace="cutnn")[0].dtype
    return draw((*net.star.shape, 3, samples), dtype, seed) * 0.5


# ---------------------------------------------------------------------------------------- values


def expected(kind, net, Y):
    """The states of the table of networks, each formula as it is written there."""
    star, h, T = net.star, net.h, net.star.transpose
    states, previous = [Y], None
    Z = np.zeros((*Y.shape[:-2], 2 if kind == "Hamiltonian" else 3, Y.shape[-1]), Y.dtype)
    for step in net:
        if kind == "two-block":
            (K, B), (L, C) = (step.first.weight, step.first.bias), (step.second.weight, step.second.bias)
            Y = Y + h * star(T(K), np.tanh(star(K, Z) + B))
            Z = Z - h * star(T(L), np.tanh(star(L, Y) + C))
            states.append(Y)
            continue
        K, B = step.weight, step.bias
        if kind == "Hamiltonian":
            Z = Z - h * np.tanh(star(T(K), Y) + B)
            Y = Y + h * np.tanh(star(K, Z) + B)
        elif kind == "general, Euler":
            Y = Y + h * np.tanh(star(K, Y) + B)
        elif kind == "antisymmetric, Euler":
            W = K - T(K) - 0.1 * star.eye(3)
            Y = Y + h * np.tanh(star(W, Y) + B)
        elif kind == "parabolic, Euler":
            Y = Y - h * star(T(K), np.tanh(star(K, Y) + B))
        elif kind == "general, RK4":
            f = functools.partial(lambda y, K, B: np.tanh(star(K, y) + B), K=K, B=B)
            k1 = f(Y)
            k2 = f(Y + h / 2 * k1)
            k3 = f(Y + h / 2 * k2)
            Y = Y + h / 6 * (k1 + 2 * k2 + 2 * k3 + f(Y + h * k3))
        elif kind == "antisymmetric, midpoint":
            slope = np.tanh(star(K - T(K), Y) + B)
            previous, Y = Y, Y + h * slope if previous is None else previous + 2 * h * slope
        else:
            force = -star(T(K), np.tanh(star(K, Y) + B))
            previous, Y = (
                Y,
                Y + h**2 / 2 * force if previous is None else 2 * Y - previous + h**2 * force,
            )
        states.append(Y)
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
    X = np.random.default_rng(0).normal(size=(5, 4, 3, 2)).astype(np.float32)
    Y = net(X)
    assert Y.dtype == np.float32
    np.testing.assert_allclose(Y, np.stack([net(x) for x in X]), atol=1e-6)


@every_network
def test_without_bias_zero_stays_zero(kind):
    net = make(kind, algebra.fft(4), bias=False)
    assert not np.any(net(np.zeros((4, 3, 2))))
    assert np.any(make(kind, algebra.fft(4))(np.zeros((4, 3, 2))))


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


@pytest.mark.parametrize(("name", "wanted"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_order_on_the_logistic_equation(name, wanted):
    integrator = INTEGRATORS[name]

    def error(n):
        f, h = lambda y: y * (1 - y), 1 / n
        state = integrator.start(f, 0.2, h)
        for _ in range(n):
            state = integrator.forward(f, state, h)
        return abs(state[-1] - 1 / (1 + 4 * math.exp(-1)))

    assert order(error) == pytest.approx(wanted, abs=0.1)


def test_order_of_leapfrog_on_an_oscillator():
    def error(n):
        integrator, h = INTEGRATORS["leapfrog"], 1 / n
        state = integrator.start(lambda y: -y, 1.0, h)
        for _ in range(n):
            state = integrator.forward(lambda y: -y, state, h)
        return abs(state[1] - math.cos(1))

    assert order(error) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("lag", "wanted"), [(0.5, 2), (0.0, 1)])
def test_order_of_verlet_on_an_oscillator(lag, wanted):
    """With the first variable read half a step before the second it is leapfrog; at the same time, of order 1."""

    def error(n):
        h = 1 / n
        state = (math.sin(lag * h), 1.0)
        for _ in range(n):
            state = Verlet().forward((lambda b: -b, lambda a: a), state, h)
        return abs(state[1] - math.cos(1))

    assert order(error) == pytest.approx(wanted, abs=0.1)


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
    K_hat, _ = net.field.operator(net[0])
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
    start, *_, state = system.states(net.steps, net.field.initial(inputs(net, samples, seed)))
    for step in reversed(net.steps):
        state = system.backward(net.field.operator(step), state)
    for part, wanted in zip(state, start, strict=True):
        np.testing.assert_allclose(part, wanted, atol=1e-11)


def loss(net, X):
    Y = net(X)
    return ct.sum(ct.real(Y * ct.conj(Y)) * np.arange(1.0, 4.0)[:, None])


def pair(kind, star, **options):
    return make(kind, star, **options), make(kind, star, reversible=True, **options)


def agree(a, b, tolerance):
    for x, y in zip(*(optree.tree_leaves(t, namespace="cutnn") for t in (a, b)), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * np.abs(x).max())


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
    X = np.random.default_rng(0).normal(size=(4, 3, 2000))
    shallow, deep = (make(kind, algebra.dct(4), depth=d, reversible=True) for d in (4, 64))
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
        ({"structure": "symmetric"}, "structure is one of 'general', 'antisymmetric', 'parabolic'"),
        ({"integrator": "verlet"}, "integrator is one of 'euler', 'midpoint'"),
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
    with pytest.raises(ValueError, match="form is one of 'shared', 'two-block'"):
        nn.HamiltonianNet(algebra.dct(4), 3, form="other")
    with pytest.raises(TypeError, match="an algebra"):
        nn.HamiltonianNet(3, 3)
    with pytest.raises(TypeError, match="complex"):
        nn.HamiltonianNet(ALGEBRAS["complex matrix 3"], 3)
    with pytest.raises(TypeError, match="dtype is one of"):
        nn.HamiltonianNet(algebra.dct(4), 3, dtype=np.int64)


@every_network
def test_inputs_that_do_not_fit(kind):
    net = make(kind, algebra.dct(4))
    for shape in [(4, 2, 5), (3, 3, 5), (4, 3), (3, 5)]:
        with pytest.raises(ValueError, match=r"takes \(4, 3, N\), and received"):
            net(np.zeros(shape))
    with pytest.raises(ValueError, match="the width stays the same"):
        net.trajectory(np.zeros((4, 5, 3)))
    with pytest.raises(TypeError, match=r"ct.astype\(X, ct.float64\)"):
        net(np.zeros((4, 3, 2), dtype=np.float32))
    with pytest.raises(TypeError, match="received a list"):
        net([1.0])
