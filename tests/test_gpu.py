"""CPU and GPU give the same answer. Run where a GPU is (`pytest -m gpu`), skipped and counted where none is."""

from __future__ import annotations

import numpy as np
import pytest

import cutnn as ct
from cutnn import algebra, data, nn, optim, train

pytestmark = pytest.mark.gpu

RNG = np.random.default_rng(0)
SQUARE = RNG.normal(size=(4, 5, 5)) + 4 * np.eye(5)
FUNCTIONS = {
    "elementwise": lambda x: ct.sum(
        ct.tanh(x) * ct.exp(-x * x) + ct.maximum(x, 0.3) + ct.where(x > 0, x, x**2)
    ),
    "reductions": lambda x: ct.mean(x) + ct.std(x) + ct.sum(ct.max(x, axis=0)) + ct.logsumexp(x),
    "manipulation": lambda x: (
        ct.sum(ct.concat([x, ct.flip(x)], axis=0)[1:, ::2] ** 3) + ct.sum(ct.roll(x, 1) * x)
    ),
    "indexing": lambda x: ct.sum(ct.at_add(x, (0, 1), x[2, 1])[:, [0, 0, 2]] ** 2),
    "linear algebra": lambda x: (
        ct.sum(ct.linalg.inv(x)) + ct.sum(ct.linalg.solve(x, x.mT)) + ct.linalg.vector_norm(x)
    ),
    "decompositions": lambda x: ct.sum(ct.linalg.svdvals(x) ** 3) + ct.sum(ct.linalg.slogdet(x)[1]),
    "factors": lambda x: (
        ct.sum(ct.linalg.low_rank(x, 2) ** 3)
        + ct.sum(ct.linalg.lu(x).U ** 2)
        + ct.sum(ct.linalg.qr(x)[1] ** 2)
    ),
    "fourier": lambda x: (
        ct.sum(ct.abs(ct.fft.rfft(x, axis=0)) ** 3) + ct.sum(ct.fft.irfft(ct.fft.rfft(x), n=5) ** 2)
    ),
}
ALGEBRAS = {
    "dct": algebra.dct(4),
    "fft": algebra.fft(4),
    "fft odd": algebra.fft(5),
    "haar": algebra.haar(4),
    "random": algebra.random_orthogonal(4, seed=0),
    "matrix": algebra.from_matrix(RNG.normal(size=(4, 4)) + 2 * np.eye(4)),
    "order 4": algebra.product(algebra.dct(3), algebra.fft(4)),
    "plain": algebra.plain(),
}


def on_gpu(x):
    return ct.to_device(x, "cuda:0")


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_value_and_gradient(name, dtype):
    x = SQUARE.astype(dtype)
    f = FUNCTIONS[name]
    here, gradient = ct.value_and_grad(f)(x)
    there, gradient_there = ct.value_and_grad(f)(on_gpu(x))
    assert ct.device_of(gradient_there) == "cuda:0" and gradient_there.dtype == dtype
    rtol = 1e-10 if dtype is np.float64 else 2e-4
    np.testing.assert_allclose(ct.to_host(there), here, rtol=rtol)
    np.testing.assert_allclose(
        ct.to_host(gradient_there), gradient, rtol=rtol, atol=rtol * np.abs(gradient).max()
    )


@pytest.mark.parametrize("name", ALGEBRAS)
def test_factorisations(name):
    star = ALGEBRAS[name]
    A = star.random(4, 3, batch=(2,), seed=0)
    there = on_gpu(A)
    gram = star(star.transpose(A), A)
    pairs = [
        (star.low_rank(there, energy=0.8), star.low_rank(A, energy=0.8)),
        (star.compress(there, 0.8).decompress(), star.compress(A, 0.8).decompress()),
        (star.cholesky(on_gpu(gram)), star.cholesky(gram)),
        *zip(star.lu(there), star.lu(A), strict=True),
        *zip(star.svd_energy(there, 0.8).compression, star.svd_energy(A, 0.8).compression, strict=True),
    ]
    for f in (
        lambda T: star.svd_randomized(T, 2, seed=0),
        lambda T: star.svd_randomized(T, tolerance=0.5, seed=0),
    ):
        products = [star(U, star.diagonal(S), Vh) for U, S, Vh in (f(there), f(A))]
        pairs.append(tuple(products))
    for got, expected in pairs:
        assert ct.device_of(got) == "cuda:0"
        np.testing.assert_allclose(ct.to_host(got), expected, atol=1e-10)
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite: the smallest eigenvalue of"):
        star.cholesky(-on_gpu(gram))


@pytest.mark.parametrize("name", ALGEBRAS)
def test_algebra(name):
    star = ALGEBRAS[name]
    A, B = star.random(3, 3, batch=(2,), seed=0), star.random(3, 2, seed=1)

    def f(A, B):
        shift = 5 * star.eye(3)
        shift = on_gpu(shift) if ct.device_of(ct.stop_gradient(A)) != "cpu" else shift
        return ct.sum(ct.abs(star(A, B)) ** 2) + ct.sum(
            ct.abs(star.solve(A + shift, star.transpose(B).mT)) ** 2
        )

    here, gradients = ct.value_and_grad(f, argnums=(0, 1))(A, B)
    there, gradients_there = ct.value_and_grad(f, argnums=(0, 1))(on_gpu(A), on_gpu(B))
    np.testing.assert_allclose(ct.to_host(there), here, rtol=1e-10)
    for a, b in zip(gradients, gradients_there, strict=True):
        np.testing.assert_allclose(ct.to_host(b), a, rtol=1e-9, atol=1e-9 * np.abs(a).max())


@pytest.mark.parametrize("name", ALGEBRAS)
def test_spectral_functions(name):
    star = ALGEBRAS[name]
    A = star.random(3, 3, batch=(2,), seed=0)

    def definite(A):
        return star(A, star.transpose(A))

    unitary = [lambda A: star.singular_value_threshold(A, 0.5), star.nuclear_norm] if name != "matrix" else []
    for f in (
        *unitary,
        star.pinv,
        star.exp,
        star.det,
        star.spectral_norm,
        lambda A: star.polar(A).P,
        lambda A: star.lstsq(A, A, ridge=0.5),
        lambda A: star.sqrt(star.exp(A)),
        lambda A: star.log(definite(A)),
        lambda A: star.power(definite(A), 0.3),
        lambda A: star.eigh(A + star.transpose(A)).w,
        lambda A: ct.sum(star.eig(A).w, axis=-1),
    ):
        here, gradient = ct.value_and_grad(lambda A, f=f: ct.sum(ct.abs(f(A)) ** 2))(A)
        there, gradient_there = ct.value_and_grad(lambda A, f=f: ct.sum(ct.abs(f(A)) ** 2))(on_gpu(A))
        np.testing.assert_allclose(ct.to_host(there), here, rtol=1e-8)
        np.testing.assert_allclose(ct.to_host(gradient_there), gradient, atol=1e-8 * np.abs(gradient).max())


def test_training_follows_the_cpu():
    digits = data.load("digits")
    star = algebra.dct(8)
    losses = []
    for move in (lambda x: x, on_gpu):
        model = move(
            nn.Sequential(nn.TLinear(star, 8, 8, activation=ct.tanh, seed=0), nn.TLinear(star, 8, 10, seed=1))
        )
        loss = nn.TubalCrossEntropy(star)
        optimizer = optim.Adam(model, lr=1e-2)
        split = digits.train.to_device(ct.device_of(model[0].weight))
        values = []
        for k in range(20):
            X, labels = split.batch(np.arange(32 * k, 32 * k + 32))
            value, gradients = ct.value_and_grad(lambda m, X=X, y=labels, loss=loss: loss(m(X), y))(model)
            optimizer.step(gradients)
            values.append(float(ct.to_host(value)))
        losses.append(values)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


def test_fit_on_the_gpu():
    digits = data.load("digits").to_device("cuda:0")
    star = algebra.dct(8)
    model = on_gpu(
        nn.Sequential(nn.TLinear(star, 8, 8, activation=ct.tanh, seed=0), nn.TLinear(star, 8, 10, seed=1))
    )
    result = train.fit(
        model,
        nn.TubalCrossEntropy(star),
        digits,
        optimizer=optim.Adam(model, lr=1e-2),
        epochs=3,
        progress=False,
    )
    assert ct.device_of(result.model[0].weight) == "cuda:0"
    assert train.evaluate(result.model, nn.TubalCrossEntropy(star), digits.test).accuracy > 0.8


def test_a_seed_gives_the_same_weights_on_both():
    star = algebra.dct(4)
    weight = nn.TLinear(star, 3, 2, seed=7).weight
    np.testing.assert_array_equal(ct.to_host(on_gpu(weight)), weight)


def test_operands_on_two_devices_are_refused():
    with pytest.raises(TypeError, match="cpu|NumPy|numpy"):
        ct.add(np.ones(2), on_gpu(np.ones(2)))


@pytest.mark.parametrize("domain", ["spatial", "transform"])
@pytest.mark.parametrize("name", ["dct", "fft", "order 4"])
def test_networks_in_both_domains(name, domain):
    star = ALGEBRAS[name]
    net = nn.HamiltonianNet(
        star, 3, depth=3, form="two-block", reversible=True, dtype=np.float64, seed=0, domain=domain
    )
    X = star.random(3, 4, seed=1)

    def f(net, X):
        return ct.sum(net(X) ** 2) + nn.Tikhonov(0.1)(net)

    here, gradient = ct.value_and_grad(f)(net, X)
    there, gradient_there = ct.value_and_grad(f)(on_gpu(net), on_gpu(X))
    np.testing.assert_allclose(ct.to_host(there), here, rtol=1e-10)
    for a, b in zip(gradient.steps, gradient_there.steps, strict=True):
        np.testing.assert_allclose(ct.to_host(b.first.weight), a.first.weight, atol=1e-9)
        np.testing.assert_allclose(ct.to_host(b.second.bias), a.second.bias, atol=1e-9)
