"""Time integrators: orders of accuracy against known solutions, stability, energy."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg

from cutnn import algebra, nn
from cutnn.nn._run import System
from cutnn.nn.integrators import Euler, Leapfrog, Midpoint, RungeKutta4, Verlet
from tests.algebra.catalogue import ALGEBRAS
from tests.nn.networks import every_algebra, make


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
