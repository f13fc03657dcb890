"""Stability: bounds that are sharp on linear networks, spectra where the theory has them, warnings that help."""

import math
import re
import warnings

import numpy as np
import optree
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra, nn
from cutnn.nn.integrators import Euler, Leapfrog, Midpoint, RungeKutta4, Verlet
from cutnn.nn.stability import _slopes, _spectral_norms
from tests.algebra.catalogue import ALGEBRAS, DELICATE, UNITARY, draw
from tests.nn.networks import NETWORKS, every_algebra, every_network, inputs, make

# One network a field, and one of second order.
FIELDS = [
    "general, Euler", "antisymmetric, Euler", "parabolic, Euler", "parabolic, leapfrog", "Hamiltonian", "two-block",
    "H1", "H1, J of ones", "H2",
]  # fmt: skip
every_field = pytest.mark.parametrize("kind", FIELDS)
ACTIVATIONS = {"tanh": ct.tanh, "None": None, "relu": ct.relu, "sigmoid": ct.sigmoid, "softplus": ct.softplus}


def swish(x):
    return x * ct.sigmoid(x)


# ----------------------------------------------------------------------------------- integrators by formula


def largest_root(b, c):
    """Of r² + b r + c."""
    root = np.sqrt(b * b - 4 * c + 0j)
    return np.maximum(abs(-b + root), abs(-b - root)) / 2


AMPLIFICATIONS = {
    Euler(): lambda z: abs(1 + z),
    RungeKutta4(): lambda z: abs(1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24),
    Midpoint(): lambda z: largest_root(-2 * z, -1),
    Leapfrog(): lambda z: largest_root(-(2 + z**2), 1),
    Verlet(): lambda z: largest_root(-(2 + z**2), 1),
}
every_integrator = pytest.mark.parametrize("integrator", AMPLIFICATIONS, ids=lambda i: type(i).__name__)


@every_integrator
@settings(deadline=None)
@given(z=st.complex_numbers(max_magnitude=5))
def test_amplification_is_that_of_the_recurrence(integrator, z):
    expected = AMPLIFICATIONS[integrator](np.array([z]))
    np.testing.assert_allclose(nn.amplification(integrator, [z]), expected, rtol=1e-6, atol=1e-6)


@every_integrator
def test_amplification_takes_any_shape(integrator):
    z = draw((2, 3, 4), np.complex128)
    values = nn.amplification(integrator, z)
    np.testing.assert_allclose(values, AMPLIFICATIONS[integrator](z), rtol=1e-9)
    assert nn.amplification(integrator, z[0, 0, 0]).shape == ()


# ------------------------------------------------------------------------------- bounds on linear networks

LINEAR = {
    "shared, leapfrog": (2, lambda star, **o: nn.HamiltonianNet(star, 3, 2, **o)),
    "shared, midpoint": (1, lambda star, **o: nn.HamiltonianNet(star, 3, 2, integrator="midpoint", **o)),
    "shared, RK4": (2 * 2**0.5, lambda star, **o: nn.HamiltonianNet(star, 3, 2, integrator="rk4", **o)),
    "two-block, leapfrog": (2, lambda star, **o: nn.HamiltonianNet(star, 3, 2, form="two-block", **o)),
    "H2, leapfrog": (2, lambda star, **o: nn.HamiltonianNet(star, 4, 3, form="H2", **o)),
    "H1, midpoint": (
        1,
        lambda star, **o: nn.HamiltonianNet(star, 4, form="H1", integrator="midpoint", **o),
    ),
    "H1 of ones, RK4": (
        2 * 2**0.5,
        lambda star, **o: nn.HamiltonianNet(star, 3, form="H1", J="ones", integrator="rk4", **o),
    ),
    "antisymmetric, midpoint": (
        1,
        lambda star, **o: nn.ResNet(
            star, 3, structure="antisymmetric", gamma=0.0, integrator="midpoint", **o
        ),
    ),
    "antisymmetric, RK4": (
        2 * 2**0.5,
        lambda star, **o: nn.ResNet(star, 3, structure="antisymmetric", gamma=0.0, integrator="rk4", **o),
    ),
    "parabolic, Euler": (2, lambda star, **o: nn.ResNet(star, 3, structure="parabolic", hidden=4, **o)),
    "parabolic, RK4": (
        2.7852935634,
        lambda star, **o: nn.ResNet(star, 3, structure="parabolic", integrator="rk4", **o),
    ),
    "parabolic, leapfrog": (
        2,
        lambda star, **o: nn.ResNet(star, 3, structure="parabolic", integrator="leapfrog", **o),
    ),
}
UNSTABLE = {
    "shared, Euler": lambda star, **o: nn.HamiltonianNet(star, 3, 2, integrator="euler", **o),
    "H1, Euler": lambda star, **o: nn.HamiltonianNet(star, 4, form="H1", **o),
    "antisymmetric, Euler": lambda star, **o: nn.ResNet(star, 3, structure="antisymmetric", gamma=0.0, **o),
    "parabolic, midpoint": lambda star, **o: nn.ResNet(
        star, 3, structure="parabolic", integrator="midpoint", **o
    ),
}
some_algebras = pytest.mark.parametrize("name", ["fft 4", "plain", "complex matrix 3"])


def linear(make_net, name, h, depth=100, **options):
    """A linear network of `depth` steps of size h with the same weights at all times, that meet their bound.

    The two weights of a two-block network are equal, those of H1 unitary: what they are bounded by is then attained.
    """
    star = ALGEBRAS[name]
    dtype = np.float64 if star.real_products else np.complex128
    options = {"activation": None, "bias": False, "dtype": dtype, "seed": 0, **options}
    net = make_net(star, depth=1, h=h * depth, **options)
    if isinstance(net.field, nn.fields.TwoBlock):
        net[0].second.weight = net[0].first.weight.copy()
    if isinstance(net.field, nn.fields.H1):
        net[0].weight = star.eye(net.field.width, dtype)
    return net.resample(depth)


def at(make_net, name, number, **options):
    """That network, with h such that its number is the given one."""
    unit = nn.stability_numbers(linear(make_net, name, 1.0, 1)).numbers[0]
    return linear(make_net, name, number / unit, **options)


def growth(net):
    """The norm of the end over that of the start."""
    norms = nn.norms(net, inputs(net, samples=1))
    return float(norms[-1, 0] / norms[0, 0])


@pytest.mark.parametrize("kind", LINEAR)
@some_algebras
def test_below_its_bound_a_linear_network_is_bounded_and_beyond_it_grows(kind, name):
    bound, make_net = LINEAR[kind]
    below, above = at(make_net, name, 0.97 * bound), at(make_net, name, 1.05 * bound)
    for net in (below, above):
        assert nn.stability_numbers(net).bound == pytest.approx(bound)
    assert nn.stability_numbers(below).growth == 1
    assert growth(below) < 20
    assert nn.stability_numbers(above).growth > 1e3
    assert growth(above) > 1e3


@pytest.mark.parametrize("width", [2, 3, 8, 40])
def test_the_norm_of_J_of_ones_is_its_spectral_norm(width):
    net = linear(lambda star, **o: nn.HamiltonianNet(star, width, form="H1", J="ones", **o), "plain", 1.0, 1)
    J = np.triu(np.ones((width, width)), 1)
    assert nn.stability_numbers(net).numbers == pytest.approx(np.linalg.norm(J - J.T, 2))


@pytest.mark.parametrize("kind", UNSTABLE)
@pytest.mark.parametrize("name", ["dct 5", "fft 4"])
def test_without_a_bound_it_grows_at_any_step_as_foretold(kind, name):
    net = at(UNSTABLE[kind], name, 0.5)
    stability = nn.stability_numbers(net)
    assert stability.bound == 0
    assert 1e2 < growth(net) <= stability.growth * (1 + 1e-9)


@pytest.mark.parametrize("gamma", [0.3, 1.5])
@pytest.mark.parametrize("name", ["dct 5", "fft 4"])
def test_the_bound_that_damping_gives_forward_euler(gamma, name):
    def make_net(star, **o):
        return nn.ResNet(star, 3, structure="antisymmetric", gamma=gamma, **o)

    sigma = nn.stability_numbers(linear(make_net, name, 1.0, 1)).numbers[0]
    for part, grows in ((0.9, False), (1.1, True)):
        net = linear(make_net, name, 2 * gamma / sigma**2 * part**2, 200)
        numbers, bound, factor, _ = nn.stability_numbers(net)
        assert bound == pytest.approx(math.sqrt(2 * gamma * net.h))
        assert numbers == pytest.approx(part * bound)
        end = nn.norms(net, inputs(net, samples=1))[-1, 0]
        assert (factor > 5, end > 2) == (grows, grows)
        assert grows or end < 0.1


@settings(deadline=None)
@given(angle=st.floats(0, 90), d=st.floats(0, 1))
def test_runge_kutta_4_is_stable_below_its_bounds_in_the_left_half_plane(angle, d):
    damping, frequency = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    bound = nn.stability._Spectrum("imaginary", 1.0, "", damping).bound(RungeKutta4())
    z = d * bound * 0.999 * complex(-damping, frequency)
    assert nn.amplification(RungeKutta4(), z) <= 1 + 1e-12


def test_forward_euler_grows_by_its_formula():
    net = at(UNSTABLE["antisymmetric, Euler"], "dct 5", 0.1, depth=40)
    assert nn.stability_numbers(net).growth == pytest.approx((1 + 0.1**2) ** (40 / 2))


def test_growth_multiplies_over_steps_with_weights_of_their_own():
    net = nn.ResNet(
        algebra.dct(4), 3, depth=3, structure="antisymmetric", gamma=0.0, dtype=np.float64, seed=0
    )
    numbers, _, factor, _ = nn.stability_numbers(net)
    assert len(set(numbers)) == 3
    assert factor == pytest.approx(np.prod(np.sqrt(1 + numbers**2)))
    deep = nn.ResNet(algebra.dct(4), 3, depth=1, h=1e9).resample(100)
    assert nn.stability_numbers(deep).growth == math.inf


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
def test_the_growth_of_a_general_network_bounds_its_lipschitz_constant(integrator):
    net = nn.ResNet(algebra.dct(4), 3, depth=5, h=0.5, integrator=integrator, dtype=np.float64, seed=0)
    numbers, bound, factor, _ = nn.stability_numbers(net)
    assert bound is None
    X, V = draw((4, 3, 1), seed=1), draw((4, 3, 1), seed=2)
    change = np.linalg.norm(net(X + 1e-3 * V) - net(X)) / np.linalg.norm(1e-3 * V)
    assert 1 < change <= factor


# ------------------------------------------------------------------------------------- numbers and spectra


def number(kind, net, j, slope):
    """h · max |λ| of step j as the table has it, from dense matrices or faces of the whole spectrum."""
    star, step, h = net.star, net[j], net.h

    def sigma(K):
        faces = star.forward(K.astype(np.complex128))
        return np.linalg.svd(faces, compute_uv=False).max()

    if kind.startswith(("two-block", "H2")):
        return h * sigma(step.first.weight) * sigma(step.second.weight) * slope
    K = step.weight
    if kind.startswith("antisymmetric"):
        K = K - star.transpose(K) - (0.1 if kind.endswith("Euler") else 0.0) * star.eye(3)
    if kind.startswith("H1"):
        return h * (3**0.5 if kind.endswith("ones") else 1) * sigma(K) ** 2 * slope
    if kind == "parabolic, leapfrog":
        return h * sigma(K) * slope**0.5
    return h * sigma(K) ** (2 if kind.startswith("parabolic") else 1) * slope


@every_field
@pytest.mark.parametrize("name", ["dct 5", "plain", *DELICATE])
def test_numbers_are_those_of_the_table(kind, name):
    net = make(kind, ALGEBRAS[name], depth=2)
    numbers, _, factor, _ = nn.stability_numbers(net)
    np.testing.assert_allclose(numbers, [number(kind, net, j, 1.0) for j in range(2)], rtol=1e-10)
    assert numbers.dtype == np.float64 and factor >= 1


@every_field
@pytest.mark.parametrize(("activation", "slope"), [("sigmoid", 0.25), ("relu", 1.0), ("softplus", 1.0)])
def test_numbers_with_other_slopes(kind, activation, slope):
    net = make(kind, algebra.dct(4), activation=ACTIVATIONS[activation])
    expected = [number(kind, net, j, slope) for j in range(3)]
    np.testing.assert_allclose(nn.stability_numbers(net).numbers, expected, rtol=1e-10)


def dense_jacobian(kind, net, j, blocks):
    """The Jacobian of step j's vector field, from block matrices: rows in the order of the blocks."""
    star, step, sigma = net.star, net[j], net.field.activation

    def matrix(K):
        return star.to_matrix(K)

    def slopes(K, B, Y):
        argument = star.unfold(star(K, Y) + B)[:, 0]
        if sigma is None:
            return np.eye(len(argument))
        return np.diag(
            1 - np.tanh(argument) ** 2 if sigma is ct.tanh else ct.grad(lambda x: sigma(x).sum())(argument)
        )

    def gradient(step, Y):
        K, B = step.weight, step.bias
        return matrix(star.transpose(K)) @ slopes(K, B, Y) @ matrix(K)

    if kind.startswith(("two-block", "H2")):
        Y, Z = blocks
        A, C = gradient(step.first, Z), gradient(step.second, Y)
        return np.block([[np.zeros_like(A), A], [-C, np.zeros_like(A)]])
    K, B = step.weight, step.bias
    if kind.startswith("Hamiltonian"):
        (Z, Y), T = blocks, star.transpose(K)
        A, C = -slopes(T, B, Y) @ matrix(T), slopes(K, B, Z) @ matrix(K)
        return np.block([[np.zeros((len(A), len(A))), A], [C, np.zeros((len(C), len(C)))]])
    (Y,) = blocks
    if kind.startswith("parabolic"):
        J = -gradient(step, Y)
        return np.block([[0 * J, np.eye(len(J))], [J, 0 * J]]) if kind.endswith("leapfrog") else J
    if kind.startswith("H1"):
        J = np.block([[np.zeros((2, 2)), np.eye(2)], [-np.eye(2), np.zeros((2, 2))]])
        if kind.endswith("ones"):
            J = np.triu(np.ones((3, 3)), 1) - np.tril(np.ones((3, 3)), -1)
        return np.kron(np.eye(star.n), J) @ gradient(step, Y)
    if kind.startswith("antisymmetric"):
        K = K - star.transpose(K) - (0.1 if kind.endswith("Euler") else 0.0) * star.eye(3)
    return slopes(K, B, Y) @ matrix(K)


def same_sets(a, b, tolerance):
    distance = abs(a[:, None] - b)
    pairs = scipy.optimize.linear_sum_assignment(distance)
    assert distance[pairs].max() <= tolerance * max(1.0, abs(b).max())


@every_field
@every_algebra
def test_the_spectrum_is_that_of_the_dense_jacobian(kind, name):
    net = make(kind, ALGEBRAS[name], depth=1)
    X = inputs(net, samples=1)
    spectrum = nn.jacobian_spectrum(net, X)
    for j, values in enumerate(spectrum):
        dense = dense_jacobian(kind, net, j, net.blocks(X)[j])
        assert values.shape == (len(dense),) and values.dtype == np.complex128
        # A double eigenvalue moves as the root of the rounding, and of leapfrog's ±√λ a zero is one.
        same_sets(values, np.linalg.eigvals(dense), 1e-6)


@settings(deadline=None)
@given(
    kind=st.sampled_from([k for k in NETWORKS if k.startswith("antisymmetric")]),
    name=st.sampled_from(UNITARY),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    gamma=st.sampled_from([0.0, 1e-4, 0.3]),
    seed=st.integers(0, 999),
)
def test_the_jacobian_of_an_antisymmetric_network_has_no_eigenvalue_to_the_right(
    kind, name, activation, gamma, seed
):
    star = ALGEBRAS[name]
    if not star.real_products and activation != "None":
        activation = "None"  # σ′ of a complex number is complex, and the theory is of σ′ ≥ 0
    dtype = np.float64 if star.real_products else np.complex128
    net = nn.ResNet(
        star, 3, depth=2, h=0.5, activation=ACTIVATIONS[activation], structure="antisymmetric", gamma=gamma,
        dtype=dtype, seed=seed,
    )  # fmt: skip
    spectrum = nn.jacobian_spectrum(net, 2 * inputs(net, 1, seed))
    assert spectrum.real.max() <= 1e-9
    if gamma == 0:
        assert abs(spectrum.real).max() <= 1e-9
    if activation == "None":
        np.testing.assert_allclose(spectrum.real, -gamma, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(sorted(NETWORKS)),
    name=st.sampled_from([name for name in UNITARY if ALGEBRAS[name].real_products]),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    seed=st.integers(0, 999),
)
def test_spectra_lie_where_the_theory_has_them(kind, name, activation, seed):
    net = make(kind, ALGEBRAS[name], activation=ACTIVATIONS[activation], seed=seed, depth=2)
    spectrum = net.h * nn.jacobian_spectrum(net, 2 * inputs(net, 1, seed))
    numbers = nn.stability_numbers(net).numbers
    assert (abs(spectrum) <= numbers[:, None] * (1 + 1e-6) + 1e-9).all()
    if kind.startswith("parabolic") and not kind.endswith("leapfrog"):
        assert abs(spectrum.imag).max() < 1e-7 and spectrum.real.max() < 1e-7
    elif not kind.startswith(("general", "antisymmetric")):
        assert abs(spectrum.real).max() < 1e-6


def test_a_spectrum_over_a_matrix_that_is_not_unitary_may_lie_to_the_right():
    """D acts in the spatial domain, where K − Kᵀ then is not skew-symmetric: the theory stops here."""
    star = ALGEBRAS["real matrix 4"]
    largest = [
        nn.jacobian_spectrum(net, 2 * inputs(net, 1, seed)).real.max()
        for seed in range(8)
        for net in [make("antisymmetric, midpoint", star, seed=seed, depth=1)]
    ]
    assert max(largest) > 1e-4
    linear_net = make("antisymmetric, midpoint", star, activation=None)
    assert abs(nn.jacobian_spectrum(linear_net, inputs(linear_net, 1)).real).max() < 1e-9


def test_a_float32_network_has_a_spectrum():
    net = make("Hamiltonian", algebra.dct(4), dtype=np.float32)
    wide = make("Hamiltonian", algebra.dct(4))
    X = inputs(wide, 1)
    spectra = nn.jacobian_spectrum(net, X.astype(np.float32)), nn.jacobian_spectrum(wide, X)
    for a, b in zip(*spectra, strict=True):
        same_sets(a, b, 1e-3)


@pytest.mark.parametrize("kind", ["Hamiltonian", "antisymmetric, Euler", "parabolic, leapfrog"])
def test_diagnostics_of_a_network_on_another_device(kind, pretend_device):
    net = make(kind, algebra.fft(4))
    X = inputs(net, 1)
    there, X_there = ct.to_device((net, X), "pretend")
    np.testing.assert_allclose(nn.jacobian_spectrum(there, X_there), nn.jacobian_spectrum(net, X), atol=1e-12)
    np.testing.assert_allclose(nn.stability_numbers(there).numbers, nn.stability_numbers(net).numbers)
    nn.check_stability(there)


def test_spectra_that_cannot_be_had():
    net = make("Hamiltonian", algebra.dct(4))
    with pytest.raises(ValueError, match=r"one sample, and X has shape \(4, 3, 2\); take X\[..., :1\]"):
        nn.jacobian_spectrum(net, inputs(net, 2))
    with pytest.raises(ValueError, match="one sample"):
        nn.jacobian_spectrum(net, inputs(net, 1)[None])
    with pytest.raises(
        ValueError, match=r"20 numbers, so its Jacobian 400, and the limit is 19.*limit=20 goes"
    ):
        nn.jacobian_spectrum(net, inputs(net, 1), limit=19)
    with pytest.raises(ValueError, match=r"what fits is \(4, 3, N\)"):
        nn.jacobian_spectrum(net, inputs(net, 1)[..., :2, :])


# ----------------------------------------------------------------------------------------------- the pieces


@pytest.mark.parametrize(
    ("activation", "wanted"),
    [
        (None, (1, 1)),
        (ct.tanh, (0, 1)),
        (ct.relu, (0, 1)),
        (ct.sigmoid, (0, 0.25)),
        (ct.softplus, (0, 1)),
        (ct.sin, (-1, 1)),
        (swish, (-0.0998393194, 1.0998393194)),  # where σ″ = 0: x tanh(x/2) = 2
        (lambda x: 3 * ct.tanh(2 * x), (0, 6)),
        (lambda x: ct.tanh(x - 0.0033) - 0.5 * x, (-0.5, 0.5)),
        (lambda x: np.arctan(8 * x - 3.21), (0, 8)),
    ],
)
def test_slopes_are_found_to_many_digits(activation, wanted):
    low, high = _slopes(activation)
    assert low == pytest.approx(wanted[0], abs=2e-4 if wanted[0] == 0 else 1e-9)
    assert high == pytest.approx(wanted[1], abs=1e-9)
    if activation in (None, ct.tanh, ct.relu):
        assert high == 1


def test_an_activation_that_falls_somewhere_leaves_no_bound():
    net = nn.HamiltonianNet(algebra.dct(4), 3, activation=swish, seed=0)
    smooth = nn.HamiltonianNet(algebra.dct(4), 3, seed=0)
    assert nn.stability_numbers(net).bound is None
    np.testing.assert_allclose(
        nn.stability_numbers(net).numbers, 1.0998393194 * nn.stability_numbers(smooth).numbers, rtol=1e-6
    )


@settings(deadline=None, max_examples=60)
@given(
    batch=st.sampled_from([(), (3,), (2, 2)]),
    rows=st.integers(1, 50),
    columns=st.integers(1, 50),
    rank=st.integers(0, 50),
    dtype=st.sampled_from([np.float32, np.float64, np.complex64, np.complex128]),
    seed=st.integers(0, 99),
)
def test_spectral_norms_are_the_largest_singular_values(batch, rows, columns, rank, dtype, seed):
    A = draw((*batch, rows, rank), dtype, seed) @ draw((*batch, rank, columns), dtype, seed + 1)
    exact = np.linalg.norm(A.astype(np.complex128), 2, axis=(-2, -1)) if A.size else 0
    tolerance = 1e-5 if dtype in (np.float32, np.complex64) else 1e-9
    np.testing.assert_allclose(_spectral_norms(A), exact, rtol=tolerance, atol=1e-30)


def test_spectral_norms_where_the_krylov_space_ends_early():
    K = np.stack([np.eye(50), np.zeros((50, 50)), np.diag(np.r_[np.ones(49), 3.0]), np.full((50, 50), 0.1)])
    np.testing.assert_allclose(_spectral_norms(K), [1, 0, 3, 5], rtol=1e-12)


# ------------------------------------------------------------------------------------------------- warnings


def complaint(model):
    with pytest.warns(nn.StabilityWarning) as caught:
        nn.check_stability(model)
    assert len(caught) == 1
    return str(caught[0].message)


@every_network
@pytest.mark.parametrize("depth", [1, 8, 32])
def test_networks_as_they_come_are_not_warned_of(kind, depth):
    nn.check_stability(NETWORKS[kind](algebra.dct(8), depth=depth, h=0.25, seed=0))


def test_the_cifar_network_is_not_warned_of():
    nn.check_stability(nn.HamiltonianNet(algebra.dct(32), 96, depth=4, seed=0))


def test_models_without_time_networks_have_nothing_to_warn_of():
    nn.check_stability(nn.Sequential(nn.Unfold(), nn.Dense(12, 10)))


@pytest.mark.parametrize("kind", LINEAR)
def test_beyond_a_bound_it_is_warned_with_number_bound_and_remedy(kind):
    bound, make_net = LINEAR[kind]
    net = at(make_net, "dct 5", 1.03 * bound, depth=3)
    message = complaint(nn.Sequential(net, nn.Unfold()))
    assert f"is {1.03 * bound:.3g} in step 0, and the bound of" in message
    assert re.search(rf"spectrum is {bound:.3g}\. States and gradients have modes that may grow", message)
    assert message.startswith(f"{type(net).__name__}({net.star!r}, ")
    (h,) = re.findall(r"Take h = (\S+) or less, .*smaller weights", message)
    net.h = float(h)
    nn.check_stability(net)
    net.h *= 1.15  # it is rounded down to two digits
    complaint(net)


def test_the_step_that_is_beyond_is_named():
    net = nn.HamiltonianNet(algebra.dct(4), 3, depth=5, seed=0)
    net[3].weight *= 20
    assert re.search(r"σ\(K̂\) max σ′ is \S+ in step 3, .* Verlet .* is 2", complaint(net))


def test_another_integrator_is_named_where_it_would_do():
    _, make_net = LINEAR["shared, midpoint"]
    assert "or integrator='rk4', whose bound is 2.83" in complaint(at(make_net, "dct 5", 2.5, depth=4))
    assert "rk4" not in complaint(at(make_net, "dct 5", 2.9, depth=4))
    assert "rk4" not in complaint(at(LINEAR["shared, RK4"][1], "dct 5", 2.9, depth=4))


def test_another_integrator_is_not_named_where_the_network_does_not_take_it():
    """Runge-Kutta 4 is not reversible, and of the second-order equation it would make that of first order."""
    for kind, number in (("parabolic, leapfrog", 2.5), ("shared, leapfrog", 2.5), ("shared, midpoint", 1.5)):
        options = {} if kind.startswith("parabolic") else {"reversible": True}
        assert "rk4" not in complaint(at(LINEAR[kind][1], "dct 5", number, depth=4, **options))


def test_forward_euler_is_warned_of_where_it_grows_much():
    make_net = UNSTABLE["antisymmetric, Euler"]
    nn.check_stability(at(make_net, "dct 5", 0.5, depth=8))
    message = complaint(at(make_net, "dct 5", 0.5))
    assert "bound of Euler on an imaginary spectrum is 0" in message
    assert f"may grow by {1.25**50:.2g} over its 100 steps" in message
    assert "a smaller h, with more steps over the same time, smaller weights, or integrator='rk4'" in message


def test_a_network_without_structure_is_warned_of_where_it_grows_much():
    message = complaint(nn.ResNet(algebra.dct(4), 3, depth=32, h=5.0, seed=0))
    assert "no bound is known for Euler on a spectrum without structure" in message
    assert "structure='antisymmetric' or a HamiltonianNet" in message


def test_each_network_is_warned_of_once():
    star = algebra.dct(4)
    calm, wild = nn.HamiltonianNet(star, 3, seed=0), nn.HamiltonianNet(star, 3, h=10.0, seed=1)
    wilder = nn.ResNet(star, 3, h=20.0, structure="parabolic", seed=2)
    with pytest.warns(nn.StabilityWarning) as caught:
        nn.check_stability(nn.Sequential(calm, wild, nn.Sequential(wilder, nn.Unfold())))
    assert [str(w.message).partition("(")[0] for w in caught] == ["HamiltonianNet", "ResNet"]


def test_weights_that_are_no_numbers_are_warned_of():
    net = nn.HamiltonianNet(algebra.dct(4), 3, depth=3, seed=0)
    net[1].weight[0, 0, 0] = np.nan
    assert "is nan in step 1" in complaint(net)


@pytest.mark.parametrize("integrator", ["euler", "midpoint", "rk4", "leapfrog"])
def test_numbers_of_any_size_have_a_growth(integrator):
    net = nn.HamiltonianNet(algebra.dct(4), 3, depth=3, integrator=integrator, dtype=np.float64, seed=0)
    for size in (1e-200, 1e50, 1e150):
        net[1].weight = np.full_like(net[1].weight, size)
        growth = nn.stability_numbers(net).growth
        assert growth > 1e40 if size > 1 else growth < 2
    assert growth == math.inf
    assert "may grow by inf over its 3 steps" in complaint(net)


def test_midpoint_grows_with_damping_by_its_second_root():
    net = nn.ResNet(
        algebra.dct(4), 3, depth=1, h=10.0, structure="antisymmetric", gamma=0.2, integrator="midpoint"
    )
    numbers, bound, factor, _ = nn.stability_numbers(net.resample(1000))
    assert numbers.max() < bound == 1
    assert factor == pytest.approx(math.exp(0.2 * 10), rel=1e-2)


def test_an_activation_of_whole_tensors_has_no_slope_and_no_warning():
    star = algebra.dct(4)

    def tubal_tanh(Y):
        return star.apply(ct.tanh, Y)

    net = nn.HamiltonianNet(star, 3, h=10.0, activation=tubal_tanh, seed=0)
    nn.check_stability(net)
    with pytest.raises(TypeError, match="activation of HamiltonianNet.* is not a function of each entry"):
        nn.stability_numbers(net)


def test_a_check_changes_nothing():
    net = nn.HamiltonianNet(algebra.dct(4), 3, seed=0)
    before = [a.copy() for a in optree.tree_leaves(net, namespace="cutnn")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.check_stability(net)
    for a, b in zip(before, optree.tree_leaves(net, namespace="cutnn"), strict=True):
        np.testing.assert_array_equal(a, b)
