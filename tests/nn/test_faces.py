"""The t-linear layer that holds transforms: the map of the other one, trained in the other domain."""

from __future__ import annotations

from typing import Any

import numpy as np
import optree
import pytest

import cutnn as ct
from cutnn import algebra, nn, optim, train
from tests.algebra.catalogue import ALGEBRAS, DELICATE
from tests.gradcheck import check

every_algebra = pytest.mark.parametrize("name", ALGEBRAS)


def pair(name: str, dtype: Any = np.float64, **options: Any) -> tuple[nn.TLinear, nn.FaceLinear]:
    star = ALGEBRAS[name]
    dtype = dtype if star.real_products else np.complex128
    options = {"activation": ct.tanh, "dtype": dtype, "seed": 0, **options}
    return nn.TLinear(star, 3, 2, **options), nn.FaceLinear(star, 3, 2, **options)


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
    with pytest.raises(
        ValueError, match=r"FaceLinear.* received shape \(4, 2, 5\); what fits is \(4, 3, N\)"
    ):
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
    layer = nn.FaceLinear(algebra.plain(), 3, 2, seed=0)
    np.testing.assert_array_equal(layer.weight, nn.Dense(3, 2, seed=0).weight)
