"""The PyTorch versions are right: the two layouts agree, and each agrees with the definition."""

from __future__ import annotations

import numpy as np
import pytest

from bench.nets import (
    SHAPES,
    cutnn_hamiltonian,
    dct_matrix,
    hamiltonian_layers,
    initial_layers,
    torch_hamiltonian,
    torch_network,
)

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
scipy_fft = pytest.importorskip("scipy.fft", reason="SciPy is not installed")

from bench.peers import torch_faces_first, torch_tubes_last, training  # noqa: E402

LAYOUTS = [torch_tubes_last, torch_faces_first]


@pytest.mark.parametrize("n", [1, 2, 5, 28])
def test_dct_matrix(n: int) -> None:
    np.testing.assert_allclose(dct_matrix(n), scipy_fft.dct(np.eye(n), axis=0, norm="ortho"), atol=1e-14)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", [4, 5])
def test_products(layout: object, n: int) -> None:
    rng = np.random.default_rng(0)
    A, B, M = rng.standard_normal((n, 3, 2)), rng.standard_normal((n, 2, 4)), dct_matrix(n)
    hats = np.einsum("kj,jab->kab", M, A), np.einsum("kj,jab->kab", M, B)
    star = np.einsum("kj,kab,kbc->jac", M, *hats)
    circular = sum(np.roll(np.einsum("ab,kbc->kac", A[j], B), j, axis=0) for j in range(n))
    last = layout is torch_tubes_last
    a, b = (torch.tensor(x.transpose(1, 2, 0) if last else x) for x in (A, B))
    for product, expected in (
        (layout.star_product(a, b, torch.tensor(M)), star),
        (layout.t_product(a, b), circular),
    ):
        np.testing.assert_allclose(product, expected.transpose(1, 2, 0) if last else expected, atol=1e-12)


@pytest.mark.parametrize("head", SHAPES)
def test_layouts_train_alike(head: str) -> None:
    rng = np.random.default_rng(1)
    images, labels = (
        torch.tensor(rng.standard_normal((5, 6, 28, 28))),
        torch.tensor(rng.integers(0, 10, (5, 6))),
    )
    runs = []
    for layout in LAYOUTS:
        network, optimizer = torch_network(layout, head, np.float64)
        losses = [float(training.step(network, optimizer, x, y)) for x, y in zip(images, labels, strict=True)]
        accuracy = training.accuracy(network, images[0], labels[0], batch_size=4)
        runs.append((losses, accuracy, network.faces_first()))
    (losses, accuracy, layers), (others, other_accuracy, other_layers) = runs
    np.testing.assert_allclose(losses, others, rtol=1e-12)
    assert accuracy == other_accuracy
    for (weight, bias), (other_weight, other_bias), start in zip(
        layers, other_layers, initial_layers(head, np.float64), strict=True
    ):
        np.testing.assert_allclose(weight, other_weight, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(bias, other_bias, rtol=1e-9, atol=1e-12)
        assert np.abs(weight - start[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("head", "mnist", "cifar"), [("dense head", 30_586, 1_210_506), ("tubal head", 30_856, 1_210_816)]
)
def test_parameters_are_those_of_the_paper(head: str, mnist: int, cifar: int) -> None:
    for layers, count in ((initial_layers(head), mnist), (hamiltonian_layers(head, depth=4), cifar)):
        assert sum(a.size for layer in layers for a in layer) == count


@pytest.mark.parametrize("head", SHAPES)
def test_hamiltonian_networks_train_alike(head: str) -> None:
    import cutnn as ct

    rng = np.random.default_rng(1)
    images, labels = rng.standard_normal((2, 3, 96, 32)), rng.integers(0, 10, (2, 3))
    model, loss, optimizer = cutnn_hamiltonian(head, depth=2, dtype=np.float64)
    ours = []
    for x, y in zip(images, labels, strict=True):
        X = np.ascontiguousarray(x.transpose(2, 1, 0))
        value, grads = ct.value_and_grad(lambda model: loss(model(X), y))(model)  # noqa: B023
        optimizer.step(grads)
        ours.append(float(value))
    weights = [*model[0].steps, model[len(model) - 1]]
    for layout in LAYOUTS:
        network, adam = torch_hamiltonian(layout, head, depth=2, dtype=np.float64)
        losses = [
            float(training.step(network, adam, torch.tensor(x), torch.tensor(y)))
            for x, y in zip(images, labels, strict=True)
        ]
        np.testing.assert_allclose(losses, ours, rtol=1e-10)
        start = hamiltonian_layers(head, 2, np.float64)
        for step, (weight, bias), (first, _) in zip(weights, network.faces_first(), start, strict=True):
            np.testing.assert_allclose(weight, step.weight, rtol=1e-8, atol=1e-11)
            np.testing.assert_allclose(bias, step.bias.reshape(bias.shape), rtol=1e-8, atol=1e-11)
            assert np.abs(weight - first).max() > 1e-4


def test_tubal_loss_at_equal_scores() -> None:
    M = torch.tensor(dct_matrix(4))
    labels = torch.tensor([3, 7])
    for layout, Y in ((torch_tubes_last, torch.zeros(10, 2, 4)), (torch_faces_first, torch.zeros(4, 10, 2))):
        loss = layout.tubal_cross_entropy(Y.double(), labels, M)
        assert float(loss) == pytest.approx(0.5 * np.log(10) ** 2)
