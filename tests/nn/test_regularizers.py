"""Regularisers: values by their formulas, gradients by Taylor tests and by PyTorch, on every network and algebra."""

import math

import numpy as np
import optree
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra, nn
from tests.algebra.catalogue import ALGEBRAS, draw
from tests.gradcheck import check
from tests.nn.networks import NETWORKS, make

DTYPES = ["float32", "float64", "complex64", "complex128"]
FORMULAS = {
    "Tikhonov": nn.Tikhonov(0.7),
    "squared": nn.Smoothness(0.7),
    "authors": nn.Smoothness(0.7, form="authors"),
    "sum": nn.Smoothness(0.3, form="authors") + nn.Tikhonov(0.2) + nn.Smoothness(0.1),
}
every_formula = pytest.mark.parametrize("formula", FORMULAS)
networks = st.builds(
    lambda kind, name, depth, seed: make(kind, ALGEBRAS[name], depth=depth, seed=seed),
    st.sampled_from(sorted(NETWORKS)), st.sampled_from(sorted(ALGEBRAS)), st.integers(1, 5), st.integers(0, 99),
)  # fmt: skip


def leaves(tree):
    return optree.tree_leaves(tree, namespace="cutnn")


def tree_map(f, *trees):
    return optree.tree_map(f, *trees, namespace="cutnn")


def directions(net, seed):
    return tree_map(lambda a: draw(a.shape, a.dtype, seed), net)


def moved(net, t, v):
    return tree_map(lambda a, b: a + t * b, net, v)


def inner(a, b):
    """The real inner product of two trees."""
    return sum(float(np.sum(np.conj(x) * y).real) for x, y in zip(leaves(a), leaves(b), strict=True))


# ------------------------------------------------------------------------------------------------ values


@settings(deadline=None)
@given(net=networks, alpha=st.floats(1e-9, 10))
def test_values_are_those_of_the_formulas(net, alpha):
    steps = [np.concatenate([a.ravel() for a in leaves(step)]) for step in net]
    size = sum(np.linalg.norm(theta) ** 2 for theta in steps)
    jumps = sum(np.linalg.norm(b - a) ** 2 for a, b in zip(steps, steps[1:], strict=False))
    np.testing.assert_allclose(nn.Tikhonov(alpha)(net), alpha / 2 * size, rtol=1e-12)
    np.testing.assert_allclose(nn.Smoothness(alpha)(net), alpha / (2 * net.h) * jumps, rtol=1e-12)
    norms, before = 0.0, [0 * a for a in leaves(net[0])]
    for step in net:
        norms += sum(np.linalg.norm(a - b) for a, b in zip(leaves(step), before, strict=True))
        before = leaves(step)
    np.testing.assert_allclose(nn.Smoothness(alpha, form="authors")(net), alpha / 2 * norms, rtol=1e-12)


@settings(deadline=None)
@given(net=networks, factor=st.integers(1, 4))
def test_smoothness_is_that_of_the_network_prolonged(net, factor):
    """The sum is the integral of |θ′|² of weights that are linear in between."""
    np.testing.assert_allclose(
        nn.Smoothness(0.1)(nn.prolong(net, factor)), nn.Smoothness(0.1)(net), rtol=1e-9, atol=1e-12
    )


@every_formula
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_real_and_gradients_keep_their_dtype(formula, dtype):
    net = make("two-block", algebra.dct(3), dtype=dtype)
    value, gradient = ct.value_and_grad(FORMULAS[formula])(net)
    assert value.dtype == np.empty(0, dtype).real.dtype and value.shape == ()
    assert value > 0
    assert {a.dtype for a in leaves(gradient)} == {np.dtype(dtype)}
    wide = make("two-block", algebra.dct(3), dtype=np.result_type(dtype, np.float64))
    np.testing.assert_allclose(value, FORMULAS[formula](wide), rtol=1e-6)


def test_arrays_of_several_dtypes_keep_their_own():
    model = {"a": np.ones(3, np.float32), "b": np.ones(2), "c": 1j * np.ones(4, np.complex64)}
    value, gradient = ct.value_and_grad(nn.Tikhonov(2.0))(model)
    assert value == 9.0
    for name, a in model.items():
        assert gradient[name].dtype == a.dtype
        np.testing.assert_array_equal(gradient[name], 2 * a)


def test_steps_whose_biases_have_another_dtype():
    net = make("general, Euler", algebra.dct(3), dtype=np.float32)
    expected = float(nn.Smoothness(1.0)(net))
    for step in net:
        step.bias = step.bias.astype(np.float64)
    value, gradient = ct.value_and_grad(nn.Smoothness(1.0))(net)
    assert value == pytest.approx(expected, rel=1e-6)
    assert (gradient[0].weight.dtype, gradient[0].bias.dtype) == (np.float32, np.float64)


def test_a_network_without_bias():
    net = make("general, Euler", algebra.dct(3), bias=False)
    jumps = sum(np.sum((b.weight - a.weight) ** 2) for a, b in zip(net.steps, net.steps[1:], strict=False))
    assert nn.Smoothness(1.0)(net) == pytest.approx(jumps / (2 * net.h))


# ------------------------------------------------------------------------------------------ Taylor tests


@settings(deadline=None)
@given(net=networks.filter(lambda net: len(net) > 1), seed=st.integers(0, 99))
def test_taylor_of_the_quadratic_ones_ends_with_the_second_order(net, seed):
    """R(θ + tv) = R(θ) + t⟨∇R, v⟩ + t² R(v), to rounding, at small t and at large ones."""
    v = directions(net, seed)
    for R in (nn.Tikhonov(0.3), nn.Smoothness(0.3), nn.Tikhonov(0.3) + nn.Smoothness(0.2)):
        value, gradient = ct.value_and_grad(R)(net)
        for t in (1e-3, 1.0, 10.0):
            ahead, remainder = R(moved(net, t, v)), t**2 * R(v)
            assert ahead - value == pytest.approx(t * inner(gradient, v) + remainder, abs=1e-12 * abs(ahead))


@settings(deadline=None)
@given(net=networks.filter(lambda net: len(net) > 1), seed=st.integers(0, 99))
def test_taylor_of_the_authors_form(net, seed):
    """R(θ + tv) = R(θ) + t⟨∇R, v⟩ + ½t²⟨∇²R v, v⟩ + O(t³), for t far from the kinks, where norms are zero."""
    R, v = nn.Smoothness(0.3, form="authors"), directions(net, seed)
    value, gradient = ct.value_and_grad(R)(net)
    first, second = inner(gradient, v), inner(ct.hvp(R, net, v), v)
    jumps = [leaves(net[0])] + [
        [b - a for a, b in zip(*map(leaves, pair), strict=True)]
        for pair in zip(net.steps, net.steps[1:], strict=False)
    ]
    kink = min(np.linalg.norm(d) for jump in jumps for d in jump) / math.sqrt(inner(v, v))
    for t in (1e-2 * kink, 1e-3 * kink):
        ahead, rounding = R(moved(net, t, v)), 1e-14 * value
        assert ahead - value == pytest.approx(t * first, abs=t**2 * second + rounding)
        assert ahead - value - t * first == pytest.approx(t**2 / 2 * second, rel=10 * t / kink, abs=rounding)


@every_formula
@pytest.mark.parametrize("kind", ["general, Euler", "two-block"])
@pytest.mark.parametrize("name", ["dct 5", "complex matrix 3", "plain"])
def test_derivatives_by_finite_differences(kind, formula, name):
    check(FORMULAS[formula], make(kind, ALGEBRAS[name], depth=2))


def test_third_derivatives():
    check(FORMULAS["sum"], make("general, Euler", algebra.dct(2), depth=3), order=3)


# ------------------------------------------------------------------------------------- independent oracles


def of_authors(torch, steps, alpha):
    """The loop of the authors' code: parameters in turn, from weights and biases that are zero."""
    total, old = torch.zeros(()), [torch.zeros(()), torch.zeros(())]
    for step in steps:
        for i, p in enumerate(step):
            total = total + torch.norm(p - old[i])
            old[i] = p
    return 0.5 * alpha * total


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["Tikhonov", "squared", "authors"])
def test_gradients_and_their_gradients_are_those_of_pytorch(name, dtype):
    torch = pytest.importorskip("torch")
    net = make("Hamiltonian", algebra.dct(4), depth=4, dtype=dtype)
    steps = [[torch.tensor(a, requires_grad=True) for a in leaves(step)] for step in net]
    parameters = [p for step in steps for p in step]
    theta = [torch.cat([p.flatten() for p in step]) for step in steps]
    value = {
        "Tikhonov": lambda: 0.35 * sum(torch.linalg.vector_norm(p) ** 2 for p in parameters),
        "squared": lambda: (
            0.35 / net.h * sum((b - a).abs().square().sum() for a, b in zip(theta, theta[1:], strict=False))
        ),
        "authors": lambda: of_authors(torch, steps, 0.7),
    }[name]()
    R, v = FORMULAS[name], directions(net, 0)
    tolerance = 1e-5 if dtype in ("float32", "complex64") else 1e-12
    assert float(R(net)) == pytest.approx(value.item(), rel=tolerance)
    first = torch.autograd.grad(value, parameters, create_graph=True)
    product = sum((g.conj() * torch.tensor(x)).sum().real for g, x in zip(first, leaves(v), strict=True))
    second = torch.autograd.grad(product, parameters, allow_unused=True)
    for ours, theirs in ((ct.grad(R)(net), first), (ct.hvp(R, net, v), second)):
        scale = max(np.abs(a).max() for a in leaves(ours))
        for a, b in zip(leaves(ours), theirs, strict=True):
            np.testing.assert_allclose(a, b.detach().numpy(), rtol=0, atol=tolerance * scale)


def test_gradients_add_to_those_of_a_loss():
    net, X = make("Hamiltonian", algebra.dct(4)), draw((4, 3, 2))

    def loss(net):
        return ct.sum(net(X) ** 2)

    both = ct.grad(lambda net: loss(net) + FORMULAS["sum"](net))(net)
    for total, a, b in zip(
        *map(leaves, (both, ct.grad(loss)(net), ct.grad(FORMULAS["sum"])(net))), strict=True
    ):
        np.testing.assert_allclose(total, a + b, atol=1e-14)


def test_weights_may_depend_on_others():
    """Regularised after `resample`, a network has gradients in the weights it was made of."""
    net = make("general, Euler", algebra.dct(3), depth=2)
    check(lambda net: nn.Smoothness(0.3)(net.resample(5)), net)


# ------------------------------------------------------------------------------------------- equal neighbours


def constant(depth=3, weight=1.0):
    net = make("general, Euler", algebra.dct(2), depth=depth)
    for step in net:
        step.weight, step.bias = np.full_like(step.weight, weight), np.zeros_like(step.bias)
    return net


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("form", ["squared", "authors"])
def test_between_equal_neighbours_the_gradient_is_zero(form, depth):
    net = constant(depth)
    gradient = ct.grad(nn.Smoothness(1.0, form=form))(net)
    for j, step in enumerate(gradient):
        wanted = 0.5 / math.sqrt(net[0].weight.size) if form == "authors" and j == 0 else 0.0
        np.testing.assert_allclose(step.weight, wanted)
        np.testing.assert_array_equal(step.bias, 0)


def test_where_the_norm_has_a_kink_its_gradient_is_a_subgradient():
    net, R = constant(), nn.Smoothness(1.0, form="authors")
    gradient = ct.grad(R)(net)
    for seed in range(20):
        v = directions(net, seed)
        assert R(moved(net, 0.1, v)) >= R(net) + 0.1 * inner(gradient, v)


def test_second_derivatives_at_a_kink_are_finite():
    net = constant()
    product = ct.hvp(nn.Smoothness(1.0, form="authors"), net, directions(net, 0))
    assert all(np.isfinite(a).all() for a in leaves(product))


# ---------------------------------------------------------------------------------------- blocks and sums


def model(seed=0):
    star = algebra.dct(4)
    return nn.Sequential(
        nn.HamiltonianNet(star, 3, depth=3, seed=seed), nn.Unfold(), nn.Dense(12, 10, seed=seed)
    )


def test_blocks_regularise_each_their_own():
    net = model()
    R = nn.Blocks({0: nn.Smoothness(0.1) + nn.Tikhonov(0.2), 2: nn.Tikhonov(0.3)})
    expected = nn.Smoothness(0.1)(net[0]) + nn.Tikhonov(0.2)(net[0]) + nn.Tikhonov(0.3)(net[2])
    value, gradient = ct.value_and_grad(R)(net)
    assert value == pytest.approx(expected) and value.dtype == np.float32
    np.testing.assert_allclose(gradient[2].weight, 0.3 * net[2].weight, rtol=1e-6)
    alone = ct.grad(nn.Smoothness(0.1) + nn.Tikhonov(0.2))(net[0])
    np.testing.assert_allclose(gradient[0][1].weight, alone[1].weight, rtol=1e-6)


@settings(deadline=None)
@given(index=st.integers(-3, 2))
def test_indices_count_from_either_end(index):
    net = model()
    if index in (1, -2):
        with pytest.raises(ValueError, match="Tikhonov: Unfold has no arrays"):
            nn.Blocks({index: nn.Tikhonov(1.0)})(net)
    else:
        assert nn.Blocks({index: nn.Tikhonov(1.0)})(net) == nn.Tikhonov(1.0)(net[index])


def test_blocks_within_blocks():
    net = nn.Sequential(model(), nn.Dense(10, 10, seed=1))
    R = nn.Blocks({0: nn.Blocks({-1: nn.Tikhonov(1.0)})})
    assert R(net) == nn.Tikhonov(1.0)(net[0][2])


def test_smoothness_of_a_model_is_that_of_all_its_time_networks():
    star = algebra.dct(4)
    nets = [nn.HamiltonianNet(star, 3, depth=3, seed=0), nn.ResNet(star, 3, depth=2, h=0.1, seed=1)]
    total = nn.Smoothness(0.3)(nn.Sequential(nets[0], nn.TLinear(star, 3, 3), nets[1]))
    assert total == pytest.approx(sum(nn.Smoothness(0.3)(net) for net in nets))


def test_a_regulariser_pulls_weights_together():
    net = make("general, Euler", algebra.dct(3), dtype=np.float32)
    before = nn.Smoothness(1.0)(net)
    optimizer = ct.optim.SGD(net, lr=0.02)
    for _ in range(40):
        optimizer.step(ct.grad(nn.Smoothness(1.0))(net))
    assert nn.Smoothness(1.0)(net) < 0.1 * before


@every_formula
def test_the_same_values_and_gradients_on_another_device(formula, pretend_device):
    net = make("two-block", algebra.fft(4))
    value, gradient = ct.value_and_grad(FORMULAS[formula])(ct.to_device(net, "pretend"))
    assert {ct.device_of(a) for a in leaves(gradient)} == {"pretend"}
    np.testing.assert_allclose(float(ct.to_host(value)), FORMULAS[formula](net), rtol=1e-13)
    for a, b in zip(leaves(ct.to_host(gradient)), leaves(ct.grad(FORMULAS[formula])(net)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("alpha", [-1.0, math.nan, math.inf])
def test_alpha_that_is_no_weight(alpha):
    for kind in (nn.Tikhonov, nn.Smoothness):
        with pytest.raises(ValueError, match=rf"{kind.__name__}: alpha .* is {alpha}"):
            kind(alpha)


def test_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match='form is "squared" or "authors", not \'cubed\''):
        nn.Smoothness(1.0, form="cubed")
    with pytest.raises(ValueError, match="over the steps of a ResNet.*Dense holds none"):
        nn.Smoothness(1.0)(nn.Dense(3, 2))
    with pytest.raises(TypeError, match="float and complex arrays, and tuple holds an array of int64"):
        nn.Tikhonov(1.0)((np.arange(3),))
    with pytest.raises(TypeError, match="list holds a str"):
        nn.Tikhonov(1.0)(["weights"])
    with pytest.raises(TypeError, match="unsupported operand"):
        nn.Tikhonov(1.0) + 3


def test_blocks_that_do_not_fit():
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"block {index}, and the model has 3 blocks"):
            nn.Blocks({index: nn.Tikhonov(1.0)})(model())
    with pytest.raises(TypeError, match="blocks of a Sequential, not for a HamiltonianNet"):
        nn.Blocks({0: nn.Tikhonov(1.0)})(model()[0])
    with pytest.raises(TypeError, match="holds '0': "):
        nn.Blocks({"0": nn.Tikhonov(1.0)})
    with pytest.raises(TypeError, match="holds 0: 0.01"):
        nn.Blocks({0: 0.01})
    with pytest.raises(ValueError, match="no regularisers"):
        nn.Blocks({})
