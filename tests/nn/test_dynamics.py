"""Networks as differential equations: every formula, depth and time, devices, wrong input."""

import math

import numpy as np
import optree
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra, nn
from tests.algebra.catalogue import ALGEBRAS, draw
from tests.gradcheck import check
from tests.nn.networks import (
    NETWORKS,
    REVERSIBLE,
    agree,
    every_algebra,
    every_network,
    expected,
    inputs,
    make,
)


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
@pytest.mark.parametrize("name", ["dct 5", "fft 1", "fft 2", "fft 5", "fft 4, real matrix 3"])
def test_complex_weights_over_algebras_with_real_products(kind, name):
    """Whole spectra, where real weights have half of them, and ᵀ the conjugate transpose."""
    net = make(kind, ALGEBRAS[name], dtype=np.complex128)
    for step in leaves(net):
        step += 1j * draw(step.shape, seed=3) / 4
    X = inputs(net)
    assert np.any(X.imag) and net(X).dtype == np.complex128
    np.testing.assert_allclose(net(X), expected(kind, net, X)[-1], atol=1e-12)


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


# ------------------------------------------------------------------------------------- depth and time


def leaves(tree):
    return optree.tree_leaves(tree, namespace="cutnn")


@given(
    kind=st.sampled_from(sorted(NETWORKS)),
    depth=st.integers(1, 7),
    factor=st.integers(1, 4),
    name=st.sampled_from(sorted(ALGEBRAS)),
)
def test_prolonged_weights_lie_on_the_lines_between_the_old(kind, depth, factor, name):
    net = make(kind, ALGEBRAS[name], depth=depth)
    fine = nn.prolong(net, factor)
    assert type(fine) is type(net) and len(fine) == factor * depth
    assert (fine.h, fine.time) == pytest.approx((net.h / factor, net.time))
    for i, step in enumerate(fine):
        j, part = divmod(i, factor)
        following = net[min(j + 1, depth - 1)]
        for a, b, got in zip(leaves(net[j]), leaves(following), leaves(step), strict=True):
            np.testing.assert_allclose(got, a + part / factor * (b - a), atol=1e-14)
            assert got.dtype == a.dtype and not np.shares_memory(got, a)
        for got, at in zip(leaves(step), leaves(net.at(i * fine.h)), strict=True):
            np.testing.assert_allclose(got, at, atol=1e-12)


@every_network
def test_as_many_steps_as_before_are_the_same_network(kind):
    net = make(kind, algebra.dct(4), depth=7, h=0.1)
    X = inputs(net)
    np.testing.assert_array_equal(net.resample(7)(X), net(X))
    np.testing.assert_array_equal(nn.prolong(net, 1)(X), net(X))


ORDER = {"RK4": 4, "midpoint": 2, "leapfrog": 2}


@every_network
def test_more_steps_through_the_same_weights_converge(kind):
    """With weights that stay the same in time, the error falls with the integrator's order."""
    net = make(kind, algebra.fft(4), depth=1, h=1.0)
    X = inputs(net)
    exact = net.resample(1024 if kind.endswith("RK4") else 2048)(X)
    errors = [np.abs(net.resample(d)(X) - exact).max() for d in (32, 64)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDER.get(kind.rpartition(", ")[2], 1), abs=0.3)


@every_network
def test_the_outputs_of_a_prolonged_network_stay_about_the_same(kind):
    """Weights that move slowly in time: halving h moves the output by no more than the step size asks for."""
    start = make(kind, algebra.dct(4), depth=1, h=0.25)
    other = make(kind, algebra.dct(4), depth=1, h=0.25, seed=1)
    net = make(kind, algebra.dct(4), depth=8, h=0.25)
    for j, step in enumerate(net):
        for a, b, w in zip(leaves(start[0]), leaves(other[0]), leaves(step), strict=True):
            w[...] = a + 0.2 * j / 8 * (b - a)
    X = inputs(net)
    moved = [np.abs(nn.prolong(net, 2 * f)(X) - nn.prolong(net, f)(X)).max() for f in (1, 8)]
    assert moved[1] < 0.2 * moved[0] < 0.2 * np.abs(net(X)).max()


def test_many_steps_may_be_driven_by_few_weights():
    net = make("Hamiltonian", algebra.dct(4), depth=3, h=1.0)
    X = inputs(net)
    gradient = ct.grad(lambda net: ct.sum(net.resample(30)(X)))(net)
    assert len(gradient) == 3
    check(lambda net: net.resample(7)(X), net, order=2)


def test_prolonging_a_model_leaves_its_other_layers():
    star = algebra.dct(4)
    model = nn.Sequential(
        nn.TLinear(star, 2, 3, seed=0), nn.HamiltonianNet(star, 3, depth=2, reversible=True, seed=1),
        nn.Sequential(ct.tanh, nn.ResNet(star, 3, depth=3, seed=2)), nn.Unfold(), nn.Dense(12, 2, seed=3),
    )  # fmt: skip
    fine = nn.prolong(model)
    assert (len(fine[1]), fine[1].reversible, len(fine[2][1])) == (4, True, 6)
    for k in (0, 4):
        np.testing.assert_array_equal(fine[k].weight, model[k].weight)
        assert not np.shares_memory(fine[k].weight, model[k].weight)
    assert nn.count_parameters(fine) > nn.count_parameters(model)


def test_times_and_factors_out_of_range():
    net = nn.ResNet(algebra.dct(4), 3, depth=2, h=0.5)
    for t in (1.0, math.nextafter(1.0, 2.0)):  # a sum of steps may end a rounding beyond the time
        np.testing.assert_array_equal(net.at(t).weight, net[1].weight)
    for t in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="known from 0 to 1, not at"):
            net.at(t)
    with pytest.raises(ValueError, match="depth must be at least 1, and is 0"):
        net.resample(0)
    with pytest.raises(ValueError, match="factor must be at least 1, and is 0"):
        nn.prolong(net, 0)
    with pytest.raises(TypeError, match="prolong: factor must be an integer, and is 1.5"):
        nn.prolong(net, 1.5)
    with pytest.raises(TypeError, match="ResNet: depth must be an integer, and is 3.0"):
        net.resample(3.0)


@every_network
def test_rates_and_blocks_are_the_equation_that_is_stepped_through(kind):
    net = make(kind, algebra.fft(4), h=1e-3)
    blocks = net.blocks(inputs(net))
    assert len(blocks) == len(net) + 1
    order = 2 if kind.endswith("leapfrog") else 1
    j = 1
    rate = net.rate(j)(blocks[j])
    assert [r.shape for r in rate] == [b.shape for b in blocks[j]]
    for before, now, after, slope in zip(blocks[j - 1], blocks[j], blocks[j + 1], rate, strict=True):
        difference = (after - now) / net.h if order == 1 else (after - 2 * now + before) / net.h**2
        if kind.endswith("midpoint"):
            difference = (after - before) / (2 * net.h)
        np.testing.assert_allclose(difference, slope, atol=1e-2)
    assert all(K_hat.shape[:-2] == net.star.half_shape for K_hat in net.operators(j))


# ------------------------------------------------------------------------------------------- as a layer


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
        ({"width": 0}, "width must be at least 1"),
        ({"structure": "parabolic", "hidden": 0}, "hidden must be at least 1"),
        ({"reversible": True}, "Euler cannot be run backward.* take integrator='midpoint' or 'leapfrog', or"),
        ({"structure": "antisymmetric", "gamma": -0.1}, "gamma must be a number from 0 on, and is -0.1"),
        ({"gamma": math.nan}, "gamma must be a number from 0 on, and is nan"),
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
        (
            {"form": "H1", "width": 4, "reversible": True},
            "Euler cannot be run .* integrator='midpoint', or rev",
        ),
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
    for options, says in [
        ({"depth": 2.5}, "depth must be an integer, and is 2.5"),
        ({"hidden": 3.0}, "hidden must be an integer, and is 3.0"),
        (
            {"activation": "tanh"},
            "the activation is a function of an array, ct.tanh say, or None, not 'tanh'",
        ),
    ]:
        with pytest.raises(TypeError, match=f"HamiltonianNet: {says}"):
            nn.HamiltonianNet(algebra.dct(4), **{"width": 3, **options})
    with pytest.raises(TypeError, match="dtype is one of"):
        nn.HamiltonianNet(algebra.dct(4), 3, dtype=np.int64)


@every_network
def test_inputs_that_do_not_fit(kind):
    net = make(kind, algebra.dct(4))
    width = net.field.width
    for shape in [(4, 2, 5), (3, width, 5), (4, width), (3, 5)]:
        with pytest.raises(ValueError, match=rf"received shape .*; what fits is \(4, {width}, N\)"):
            net(np.zeros(shape))
    with pytest.raises(ValueError, match="The width stays the same"):
        net.trajectory(np.zeros((4, 5, 3)))
    with pytest.raises(TypeError, match=r"ct.astype\(X, ct.float64\)"):
        net(np.zeros((4, width, 2), dtype=np.float32))
    with pytest.raises(TypeError, match="received a list"):
        net([1.0])


def test_a_dtype_that_the_algebra_cannot_have_is_not_advised():
    net = make("general, Euler", ALGEBRAS["complex matrix 3"])
    with pytest.raises(
        TypeError, match=r"received float64; convert the input with ct.astype\(X, ct.complex128\)$"
    ):
        net(np.zeros((3, 3, 2)))
