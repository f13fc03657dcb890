"""The t-linear layer that holds transforms: the map of the other, trained in the other domain."""

from __future__ import annotations

from typing import Any

import numpy as np
import optree
import pytest

import cutnn as ct
from cutnn import algebra, nn, optim, train
from tests.algebra.catalogue import ALGEBRAS, DELICATE, PROJECTED, UNITARY
from tests.gradcheck import check
from tests.nn.networks import agree, every_network, every_reversible, inputs, make

every_algebra = pytest.mark.parametrize("name", ALGEBRAS)


def pair(name: str, dtype: Any = np.float64, **options: Any) -> tuple[nn.TLinear, nn.TLinear]:
    star = ALGEBRAS[name]
    dtype = dtype if star.real_products else np.complex128
    options = {"activation": ct.tanh, "dtype": dtype, "seed": 0, **options}
    return nn.TLinear(star, 3, 2, **options), nn.TLinear(star, 3, 2, domain="transform", **options)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@every_algebra
def test_it_is_the_map_of_t_linear(name: str, dtype: Any) -> None:
    star, (spatial, faces) = ALGEBRAS[name], pair(name, dtype)
    np.testing.assert_allclose(faces.weight, star.forward(spatial.weight), atol=1e-13)
    X = star.random(3, 4, (2,), seed=1)
    inputs = [X] if dtype == np.float64 and star.half_shape != star.shape else [X, X + 1j * X[..., ::-1]]
    for X in inputs:  # a real layer of half spectra takes real input, a complex one either
        Y = spatial(X)
        np.testing.assert_allclose(faces(X), Y, atol=1e-12)
        assert faces(X).dtype == Y.dtype


def test_without_bias_it_has_none() -> None:
    spatial, faces = pair("fft 4", bias=False)
    assert faces.bias is None
    X = ALGEBRAS["fft 4"].random(3, 4, seed=1)
    np.testing.assert_allclose(faces(X), spatial(X), atol=1e-13)


@pytest.mark.parametrize("name", ["dct 5", "plain", *DELICATE])
def test_gradients_against_differences(name: str) -> None:
    _, layer = pair(name)
    check(lambda layer, X: layer(X), layer, ALGEBRAS[name].random(3, 2, seed=1))


@pytest.mark.parametrize("name", ["dct 5", "haar 4", "random orthogonal 4", "identity 3", "dct 2, dst 3"])
def test_gradient_descent_does_not_notice_an_orthonormal_transform_and_adam_does(name: str) -> None:
    star = ALGEBRAS[name]
    X, target = star.random(3, 20, seed=1), star.random(2, 20, seed=2)
    for rule, same in ((optim.SGD, True), (optim.Adam, name == "identity 3")):
        layers = pair(name)
        for layer in layers:
            optimizer = rule(layer, lr=1e-1)
            for _ in range(5):
                optimizer.step(ct.grad(lambda layer: nn.SquaredError()(layer(X), target))(layer))
        assert np.allclose(star.forward(layers[0].weight), layers[1].weight, atol=1e-12) == same


@pytest.mark.parametrize("name", ["fft 3", "fft 4", "fft 3, fft 4"])
def test_outputs_stay_real_when_half_spectra_are_trained(name: str) -> None:
    """Entries that stand for no real weight, as the imaginary part of face 0, have no gradient."""
    star, (_, layer) = ALGEBRAS[name], pair(name)
    X, target = star.random(3, 20, seed=1), star.random(2, 20, seed=2)
    assert layer.weight.dtype == np.complex128 and layer.weight.shape == (*star.half_shape, 2, 3)
    optimizer, loss = optim.Adam(layer, lr=1e-1), nn.SquaredError()
    before = float(loss(layer(X), target))
    for _ in range(20):
        optimizer.step(ct.grad(lambda layer: loss(layer(X), target))(layer))
    assert layer(X).dtype == np.float64 and float(loss(layer(X), target)) < 0.9 * before
    np.testing.assert_allclose(
        layer(X), ct.tanh(star(star.inverse(layer.weight), X) + star.inverse(layer.bias))
    )
    assert not layer.weight[(0,) * len(star.shape)].imag.any()


def test_complex_input_of_half_spectra_and_wrong_shapes_are_explained() -> None:
    _, layer = pair("fft 4")
    with pytest.raises(
        TypeError, match="half spectrum of a real weight and received complex128; .*dtype=ct.complex"
    ):
        layer(np.zeros((4, 3, 2), complex))
    with pytest.raises(ValueError, match=r"TLinear.* received shape \(4, 2, 5\); what fits is \(4, 3, N\)"):
        layer(np.zeros((4, 2, 5)))


def test_single_precision_stays_single_and_is_saved_and_read(tmp_path: Any) -> None:
    pytest.importorskip("safetensors")
    for name, dtype in (("dct 5", np.float32), ("fft 4", np.complex64)):
        _, layer = pair(name, np.float32)
        X = ALGEBRAS[name].random(3, 4, seed=1, dtype=np.float32)
        assert layer.weight.dtype == dtype and layer(X).dtype == np.float32
        train.save_model(tmp_path / "layer.safetensors", layer)
        again = train.load_model(tmp_path / "layer.safetensors", pair(name, np.float32, seed=1)[1])
        np.testing.assert_array_equal(again(X), layer(X))


@pytest.mark.parametrize("name", ["dct 5", "fft 4"])
def test_it_runs_on_another_device(name: str, pretend_device: Any) -> None:
    _, layer = pair(name)
    X = ALGEBRAS[name].random(3, 4, seed=1)
    layer_there, X_there = ct.to_device((layer, X), "pretend")

    def loss(layer: Any, X: Any) -> Any:
        return nn.SquaredError()(layer(X), 0 * layer(X))

    there, here = ct.grad(loss)(layer_there, X_there), ct.grad(loss)(layer, X)
    for got, expected in zip(*(optree.tree_leaves(g, namespace="cutnn") for g in (there, here)), strict=True):
        np.testing.assert_allclose(ct.to_host(got), expected, atol=1e-12)


def test_it_is_a_layer_of_matrices_over_the_plain_algebra() -> None:
    layer = nn.TLinear(algebra.plain(), 3, 2, seed=0, domain="transform")
    np.testing.assert_array_equal(layer.weight, nn.Dense(3, 2, seed=0).weight)


# ------------------------------------------------------------------------------------------------ time networks


def two_nets(kind: str, star: Any, **options: Any) -> tuple[Any, Any]:
    return make(kind, star, **options), make(kind, star, domain="transform", **options)


@every_network
@every_algebra
def test_networks_in_the_transform_domain_are_the_same_map(name: str, kind: str) -> None:
    spatial, faces = two_nets(kind, ALGEBRAS[name])
    assert (spatial.domain, faces.domain) == ("spatial", "transform") and faces.dtype == spatial.dtype
    X = inputs(spatial)
    np.testing.assert_allclose(faces(X), spatial(X), atol=1e-12)
    assert faces(X).dtype == spatial(X).dtype
    for j in range(len(spatial)):
        for K_hat, L_hat in zip(faces.operators(j), spatial.operators(j), strict=True):
            np.testing.assert_allclose(K_hat, L_hat, atol=1e-12)


@pytest.mark.parametrize("kind", ["antisymmetric, Euler", "Hamiltonian", "two-block", "H1"])
@pytest.mark.parametrize("name", ["dct 5", "plain", *DELICATE])
def test_gradients_of_networks_against_differences(name: str, kind: str) -> None:
    net = two_nets(kind, ALGEBRAS[name], depth=2)[1]
    check(lambda net, X: net(X), net, inputs(net), order=1)


@every_reversible
@pytest.mark.parametrize("name", ["dct 5", *DELICATE])
def test_reversible_networks_have_the_same_gradients(name: str, kind: str) -> None:
    nets = [two_nets(kind, ALGEBRAS[name], reversible=reversible)[1] for reversible in (True, False)]
    X = inputs(nets[0])
    gradients = [ct.grad(lambda net: ct.sum(ct.abs(net(X)) ** 2))(net).steps for net in nets]
    agree(*gradients, 1e-9)


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "real matrix 4"])
def test_interpolation_in_time_commutes_with_the_transform(name: str) -> None:
    spatial, faces = two_nets("Hamiltonian", ALGEBRAS[name])
    X = inputs(spatial)
    np.testing.assert_allclose(nn.prolong(faces)(X), nn.prolong(spatial)(X), atol=1e-12)


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 3, fft 4"])
def test_numbers_about_networks_are_those_of_the_spatial_domain(name: str) -> None:
    for kind in ("Hamiltonian", "two-block", "H1", "parabolic, leapfrog"):
        spatial, faces = two_nets(kind, ALGEBRAS[name])
        X = inputs(spatial)
        np.testing.assert_allclose(
            nn.stability_numbers(faces).numbers, nn.stability_numbers(spatial).numbers, rtol=1e-10
        )
        np.testing.assert_allclose(nn.energy(faces, X).values, nn.energy(spatial, X).values, rtol=1e-10)
        np.testing.assert_allclose(nn.norms(faces, X), nn.norms(spatial, X), rtol=1e-10)
        of_states = [nn.gradient_norms(net, nn.SquaredError(), X, 0 * X).states for net in (spatial, faces)]
        np.testing.assert_allclose(*of_states, rtol=1e-9)
    with pytest.warns(nn.StabilityWarning):
        nn.check_stability(two_nets("Hamiltonian", ALGEBRAS[name], h=100.0)[1])


def test_networks_refuse_the_input_of_another_dtype() -> None:
    net = two_nets("Hamiltonian", ALGEBRAS["fft 4"])[1]
    with pytest.raises(TypeError, match="has weights of float64 and received complex128"):
        net(inputs(net).astype(complex))
    with pytest.raises(ValueError, match="domain is 'spatial' or 'transform', not 'faces'"):
        make("Hamiltonian", ALGEBRAS["fft 4"], domain="faces")


# ------------------------------------------------------------------------------------------ there and back


def model_of(name: str, domain: str = "spatial") -> Any:
    star = ALGEBRAS[name]
    options: dict[str, Any] = {"dtype": np.float64 if star.real_products else np.complex128, "domain": domain}
    return nn.Sequential(
        nn.Autoencoder(star, (3, 2), tied=True, seed=0, **options),
        make("two-block", star, domain=domain),
        ct.tanh,
        nn.TLinear(star, 3, 2, seed=1, **options),
    )


@every_algebra
def test_models_go_there_and_back(name: str) -> None:
    spatial, faces = model_of(name), model_of(name, "transform")
    there = nn.in_domain(spatial, "transform")
    agree(there, faces, 1e-14)  # the same seed is the same function
    back = nn.in_domain(there, "spatial")
    agree(back, spatial, 1e-12)
    X = inputs(spatial[1])
    np.testing.assert_allclose(there(X), spatial(X), atol=1e-12)
    for one, other in ((there, faces), (back, spatial)):
        assert optree.tree_structure(one, namespace="cutnn") == optree.tree_structure(
            other, namespace="cutnn"
        )
        optim.SGD(one, lr=0.1)  # arrays that are updated in place
    same = nn.in_domain(spatial, "spatial")
    agree(same, spatial, 0)
    leaves = [optree.tree_leaves(model, namespace="cutnn") for model in (same, spatial)]
    assert not any(np.shares_memory(a, b) for a, b in zip(*leaves, strict=True))


def test_a_long_sine_transform_is_held_contiguous() -> None:
    layer = nn.TLinear(algebra.dst(256), 2, 2, domain="transform", seed=0)
    optim.Adam(nn.in_domain(nn.in_domain(layer, "spatial"), "transform"), lr=0.1)


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "real matrix 4"])
def test_conversion_is_differentiable(name: str) -> None:
    spatial = model_of(name)
    X = inputs(spatial[1])
    check(lambda model: nn.in_domain(model, "transform")(X), spatial, order=1)


@pytest.mark.parametrize("manifold", ["orthogonal", "general"])
def test_layers_over_a_learned_matrix(manifold: str) -> None:
    star = ALGEBRAS["dct 5"]
    X = star.random(3, 4, seed=1)
    net = nn.Learned(nn.Sequential(make("Hamiltonian", star), nn.Unfold()), star, manifold)
    faces = nn.in_domain(net, "transform")
    np.testing.assert_allclose(faces(X), net(X), atol=1e-12)
    agree(nn.in_domain(faces, "spatial"), net, 1e-12)
    for regularizer in (nn.Tikhonov(0.1), nn.Smoothness(0.1)):
        np.testing.assert_allclose(regularizer(faces), regularizer(net), rtol=1e-10)
    check(lambda faces: faces(X), faces, order=1)
    optimizer, before = optim.Adam(faces, lr=1e-2), float(ct.sum(faces(X) ** 2))
    for _ in range(10):
        optimizer.step(ct.grad(lambda net: ct.sum(net(X) ** 2))(faces))
    assert ct.sum(faces(X) ** 2) < before


def test_half_spectra_over_a_learned_matrix_are_refused() -> None:
    star = ALGEBRAS["fft 4"]
    model = nn.Sequential(nn.TLinear(star, 3, 2, domain="transform"))
    with pytest.raises(ValueError, match=r"hold half spectra, .*in_domain\(model, 'spatial'\)"):
        nn.Learned(model, star, "general")


def test_another_domain_is_refused() -> None:
    for make_ in (
        lambda domain: nn.TLinear(ALGEBRAS["dct 5"], 3, 2, domain=domain),
        lambda domain: nn.in_domain(model_of("dct 5"), domain),
    ):
        with pytest.raises(ValueError, match="domain is 'spatial' or 'transform', not 'fourier'"):
            make_("fourier")


# ------------------------------------------------------------------------------------- descent, regularisers


@pytest.mark.parametrize("name", UNITARY)
def test_gradients_in_the_transform_domain_are_transforms_of_those_in_the_other(name: str) -> None:
    """Ĝ = w M G: so descent by Ĝ / w, which is by Ĝ where M is orthonormal and real, takes the same steps."""
    star = ALGEBRAS[name]
    spatial, faces = two_nets("Hamiltonian", star)
    X = inputs(spatial)
    w = star.parseval if star.real_products else 1 / star.scale

    def gradient(net: Any) -> Any:
        return ct.grad(lambda net: nn.SquaredError()(net(X), 1 + 0 * X))(net)

    one, other = optim.SGD(spatial, lr=1e-2), optim.SGD(faces, lr=1e-2)
    for _ in range(10):
        one.step(gradient(spatial))
        other.step(optree.tree_map(lambda g: (g / w).astype(g.dtype), gradient(faces), namespace="cutnn"))
    agree(nn.in_domain(spatial, "transform"), faces, 1e-12)


@pytest.mark.parametrize("regularizer", [nn.Tikhonov(0.1), nn.Smoothness(0.1), nn.Smoothness(0.1, "authors")])
@every_algebra
def test_regularisers_are_those_of_the_tensors(name: str, regularizer: Any) -> None:
    spatial, faces = model_of(name), model_of(name, "transform")
    np.testing.assert_allclose(regularizer(faces), regularizer(spatial), rtol=1e-11)
    gradients = [
        ct.grad(regularizer)(spatial),
        ct.grad(lambda model: regularizer(nn.in_domain(model, "transform")))(spatial),
    ]
    agree(*gradients, 1e-11)


@pytest.mark.parametrize("name", ["projected 5 to 3", "projected 3 to 2, fft 4", "complex projected 4 to 2"])
def test_projected_algebras_keep_the_projection(name: str) -> None:
    star = PROJECTED[name]
    dtype = np.float64 if star.real_products else np.complex128
    spatial, faces = (
        nn.TLinear(star, 3, 2, seed=0, dtype=dtype, domain=domain) for domain in ("spatial", "transform")
    )
    back = nn.in_domain(faces, "spatial")
    np.testing.assert_allclose(back.weight, star.inverse(star.forward(spatial.weight)), atol=1e-13)
    X = star.random(3, 4, seed=1, dtype=dtype)
    np.testing.assert_allclose(faces(X), back(X), atol=1e-13)
    np.testing.assert_allclose(nn.Tikhonov(1.0)(faces), nn.Tikhonov(1.0)(back), rtol=1e-12)


# -------------------------------------------------------------------------------------------------- on disk


@pytest.mark.parametrize("name", ["dct 5", "fft 4"])
def test_files_tell_the_domain(name: str, tmp_path: Any) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    models = {domain: model_of(name, domain) for domain in ("spatial", "transform")}
    X = inputs(models["spatial"][1])
    for domain, model in models.items():
        train.save_model(path, model)
        agree(train.load_model(path, optree.tree_map(np.zeros_like, model, namespace="cutnn")), model, 0)
        (other,) = models.keys() - {domain}
        with pytest.raises(
            ValueError, match=rf"in the {domain} domain, and the model in the other one; .*in_domain"
        ):
            train.load_model(path, models[other])
        trees = {"model": model, "optimizer": optim.Adam(model).state()}
        train.save_checkpoint(tmp_path / domain, trees, epoch=1)
        found = train.latest_checkpoint(tmp_path / domain)
        np.testing.assert_array_equal(found.tree("model", model)(X), model(X))
        with pytest.raises(ValueError, match=f"in the {domain} domain"):
            found.tree("model", models[other])
