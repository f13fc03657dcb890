"""The autoencoder: its sizes, its formula, tied weights, gradients, training on its own input."""

from __future__ import annotations

from typing import Any

import numpy as np
import optree
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra, data, nn, optim, train
from tests.algebra.catalogue import ALGEBRAS, DELICATE
from tests.gradcheck import check

few = settings(max_examples=settings().max_examples // 5)  # there are many algebras
every_algebra = pytest.mark.parametrize("name", ALGEBRAS)
either_way = pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])


def autoencoder(name: str = "dct 5", sizes: Any = (4, 3, 2), **options: Any) -> nn.Autoencoder:
    star = ALGEBRAS[name]
    dtype = np.float64 if star.real_products else np.complex128
    return nn.Autoencoder(star, sizes, **{"dtype": dtype, "seed": 0, **options})


def samples(name: str = "dct 5", rows: int = 4, count: int = 6) -> Any:
    return ALGEBRAS[name].random(rows, count, seed=1)


# ------------------------------------------------------------------------------------------------- its sizes


@pytest.mark.parametrize(
    ("star", "sizes", "parameters"),
    [
        (algebra.dct(28), (28, 20, 10), 44_744),
        (algebra.plain(), (784, 21, 280), 45_794),
        (algebra.plain(), (784, 40, 280), 86_264),
        (algebra.plain(), (784, 560, 280), 1_193_864),
    ],
)
def test_parameter_counts_are_the_papers(star: Any, sizes: Any, parameters: int) -> None:
    assert nn.count_parameters(nn.Autoencoder(star, sizes)) == parameters


def test_tied_weights_are_half_the_weights() -> None:
    star = algebra.dct(28)
    biases = 28 * (20 + 10 + 20 + 28)
    assert (
        nn.count_parameters(nn.Autoencoder(star, (28, 20, 10), tied=True)) == (44_744 - biases) // 2 + biases
    )


@either_way
@every_algebra
@few
@given(sizes=st.lists(st.integers(1, 4), min_size=2, max_size=4), count=st.integers(1, 3))
def test_shapes_go_to_the_code_and_back(name: str, tied: bool, sizes: list[int], count: int) -> None:
    model, star = autoencoder(name, sizes, tied=tied), ALGEBRAS[name]
    X = star.random(sizes[0], count, seed=0)
    Z = model.encode(X)
    assert Z.shape == (*star.shape, sizes[-1], count)
    assert model.decode(Z).shape == model(X).shape == X.shape
    np.testing.assert_array_equal(model(X), model.decode(Z))
    assert (model(X).dtype == X.dtype) == star.real_products


# ----------------------------------------------------------------------------------------------- its formula


@either_way
@every_algebra
def test_it_is_its_formula(name: str, tied: bool) -> None:
    star, model, X = ALGEBRAS[name], autoencoder(name, tied=tied), samples(name)

    def affine(W: Any, X: Any, B: Any) -> Any:
        return star.fold(star.to_matrix(W) @ star.unfold(X)) + B

    (W1, B1), (W2, B2) = [(layer.weight, layer.bias) for layer in model.encoder]
    Z = np.tanh(affine(W2, np.tanh(affine(W1, X, B1)), B2))
    if tied:
        (B3, B4), W3, W4 = model.decoder, star.transpose(W2), star.transpose(W1)
    else:
        (W3, B3), (W4, B4) = [(layer.weight, layer.bias) for layer in model.decoder]
    np.testing.assert_allclose(model.encode(X), Z, atol=1e-12)
    np.testing.assert_allclose(model(X), affine(W4, np.tanh(affine(W3, Z, B3)), B4), atol=1e-12)


def test_the_last_layer_alone_has_no_activation() -> None:
    model = autoencoder(activation=np.cos)
    assert [layer.activation for layer in (*model.encoder, *model.decoder)] == [np.cos] * 3 + [None]
    assert np.abs(model(50 * samples())).max() > 1
    shallow = autoencoder(sizes=(4, 2), tied=True)
    assert np.abs(shallow.encode(50 * samples())).max() <= 1 < np.abs(shallow(50 * samples())).max()


def test_a_seed_gives_the_same_network_and_layers_of_their_own() -> None:
    first, again, other = autoencoder(seed=5), autoencoder(seed=np.random.default_rng(5)), autoencoder(seed=6)
    for a, b, c in zip(*map(_arrays, (first, again, other)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.any(a != c)
    square = autoencoder(sizes=(3, 3, 3))
    weights = [layer.weight for layer in (*square.encoder, *square.decoder)]
    assert all(np.any(a != b) for k, a in enumerate(weights) for b in weights[:k])


def test_tied_biases_are_drawn_as_the_untied_ones() -> None:
    tied, untied = autoencoder(tied=True), autoencoder()
    for bias, layer in zip(tied.decoder, untied.decoder, strict=True):
        np.testing.assert_array_equal(bias, layer.bias)


@either_way
@every_algebra
def test_layers_that_keep_faces_are_the_same_map(name: str, tied: bool) -> None:
    X = samples(name)
    spatial, faces = autoencoder(name, tied=tied), autoencoder(name, tied=tied, domain="transform")
    assert {layer.domain for layer in faces.encoder} == {"transform"}
    np.testing.assert_allclose(faces(X), spatial(X), atol=1e-12)
    np.testing.assert_allclose(faces.encode(X), spatial.encode(X), atol=1e-12)


# ------------------------------------------------------------------------------------------------- gradients


@either_way
@pytest.mark.parametrize("domain", ["spatial", "transform"])
@pytest.mark.parametrize("name", ["dct 5", "plain", *DELICATE])
def test_gradients_against_differences(name: str, domain: str, tied: bool) -> None:
    model, X = autoencoder(name, tied=tied, domain=domain), samples(name, count=2)
    loss = nn.SquaredError()
    check(lambda model: loss(model(X), X), model, order=1)


def test_gradients_of_second_order() -> None:
    model, X = autoencoder("fft 4", (3, 2), tied=True), samples("fft 4", rows=3, count=2)
    check(lambda model: nn.SquaredError()(model(X), X), model)


# -------------------------------------------------------------------------------------------------- training


def pictures(count: int, seed: int = 0) -> data.Split:
    """Images (N, 4, 5) that one tube describes."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(7).uniform(0, 1, (2, 4, 5))
    mixed = np.tensordot(rng.uniform(0, 1, (count, 2)), patterns, axes=1) / 2
    return data.Split((255 * mixed).astype(np.uint8), np.zeros(count, int), mean=0.5, std=0.3)


def picture_set() -> data.Dataset:
    splits = (pictures(192), pictures(64, seed=1), pictures(64, seed=2))
    return data.Dataset("pictures", *splits, 0.5, 0.3, ("one",))


@pytest.mark.parametrize("unfold", [False, True], ids=["tensors", "matrices"])
@either_way
def test_fit_reconstructs_the_input(tied: bool, unfold: bool) -> None:
    star, sizes = (algebra.plain(), (20, 6, 4)) if unfold else (algebra.dct(5), (4, 3, 2))
    model, dataset = (
        nn.Autoencoder(star, sizes, tied=tied, seed=0),
        data.reconstruction(picture_set(), unfold=unfold),
    )
    loss = nn.SquaredError()
    before = train.evaluate(model, loss, dataset.test)
    result = train.fit(
        model, loss, dataset, optimizer=optim.Adam(model, lr=1e-2), epochs=15, batch_size=16, progress=False
    )
    after = train.evaluate(result.model, loss, dataset.test)
    assert after.loss < before.loss / 5
    assert after.accuracy is None and "validation_accuracy" not in result.history.columns


def test_a_reconstruction_set_has_the_splits_with_their_input_as_target() -> None:
    dataset = picture_set()
    for part in ("train", "validation", "test"):
        split, made = getattr(dataset, part), getattr(data.reconstruction(dataset), part)
        X, target = made.batch([3, 1], "float64")
        np.testing.assert_array_equal(X, split.batch([3, 1], "float64")[0])
        assert X is target and len(made) == len(split) and made.labels is split.labels
        V, target = getattr(data.reconstruction(dataset, unfold=True), part).batch([3, 1])
        np.testing.assert_array_equal(V, nn.Unfold()(split.batch([3, 1])[0]))
        assert V is target
    assert data.reconstruction(dataset).mean == dataset.mean


def test_the_error_of_mnist_at_the_authors_start(data_root: Any) -> None:
    """784.8 on normalised images: nothing is reconstructed yet, and an image has 784 pixels of deviation 1."""
    mnist = data.reconstruction(data.load("mnist", root=data_root))
    X, target = mnist.validation.batch(slice(2000))
    model = nn.Autoencoder(algebra.dct(28), (28, 20, 10), init=nn.initializers.authors, seed=42)
    assert float(nn.SquaredError()(model(X), target)) == pytest.approx(785, abs=12)


# ----------------------------------------------------------------------------------------- printing, bad input


def test_it_prints_its_sizes() -> None:
    model = nn.Autoencoder(algebra.dct(28), (28, 20, 10), tied=True, domain="transform")
    assert repr(model).splitlines()[0] == (
        "Autoencoder(dct(28), 28 → 20 → 10 → 20 → 28, tied, transform domain), 23,464 parameters"
    )


def test_wrong_sizes_and_inputs_are_explained() -> None:
    with pytest.raises(ValueError, match=r"from the input to the code, \(28, 20, 10\) say, not \(4,\)"):
        nn.Autoencoder(algebra.dct(5), (4,))
    with pytest.raises(ValueError, match="n_out must be at least 1, and is 0"):
        nn.Autoencoder(algebra.dct(5), (4, 0))
    with pytest.raises(TypeError, match="the first argument is an algebra"):
        nn.Autoencoder("dct", (4, 2))
    for tied in (False, True):
        model = autoencoder(tied=tied)
        with pytest.raises(ValueError, match=r"4 → 3.* received shape \(5, 3, 6\); what fits is \(5, 4, N\)"):
            model.encode(np.zeros((5, 3, 6)))
        with pytest.raises(ValueError, match=r"2 → 3.* received shape \(5, 4, 6\); what fits is \(5, 2, N\)"):
            model.decode(np.zeros((5, 4, 6)))
        with pytest.raises(TypeError, match="float32"):
            model.decode(np.zeros((5, 2, 6), np.float32))


# --------------------------------------------------------------------------------------------------- devices


@either_way
@pytest.mark.parametrize("name", ["dct 5", "fft 4", "plain"])
def test_it_runs_on_another_device(name: str, tied: bool, pretend_device: Any) -> None:
    model, X = autoencoder(name, tied=tied), samples(name)
    there, X_there = ct.to_device((model, X), "pretend")
    loss = nn.SquaredError()
    value, gradients = ct.value_and_grad(lambda model: loss(model(X_there), X_there))(there)
    expected, slopes = ct.value_and_grad(lambda model: loss(model(X), X))(model)
    assert float(value) == pytest.approx(float(expected), rel=1e-12)
    for got, wanted in zip(map(ct.to_host, _arrays(gradients)), _arrays(slopes), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-12)


def _arrays(model: Any) -> Any:
    return optree.tree_leaves(model, namespace="cutnn")
