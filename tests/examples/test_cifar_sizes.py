"""The networks of the CIFAR experiments have exactly as many parameters as those of the paper."""

from __future__ import annotations

import cifar10_hamiltonian
import cifar100_hamiltonian
import numpy as np
import pytest

from cutnn import algebra, nn


def zeros(star, n_in, n_out, rng):
    """An initialiser that draws nothing: 151 million random numbers would take longer than all other tests."""
    return (np.broadcast_to(np.zeros(()), (*star.shape, n_out, size)) for size in (n_in, 1))


@pytest.mark.parametrize(
    ("script", "classes", "network", "parameters"),
    [
        (cifar10_hamiltonian, 10, "tubal-4", 1_210_816),
        (cifar10_hamiltonian, 10, "tubal-8", 2_390_592),
        (cifar10_hamiltonian, 10, "dense-4", 1_210_506),
        (cifar10_hamiltonian, 10, "dense-8", 2_390_282),
        (cifar10_hamiltonian, 10, "matrix-4", 37_779_470),
        (cifar10_hamiltonian, 10, "matrix-8", 75_528_210),
        (cifar100_hamiltonian, 100, "tubal-16", 5_029_504),
        (cifar100_hamiltonian, 100, "dense-16", 5_026_404),
        (cifar100_hamiltonian, 100, "matrix-16", 151_302_260),
    ],
)
def test_parameter_counts_are_the_papers(script, classes, network, parameters):
    assert network in script.PRESETS["paper"].networks
    model, _ = cifar10_hamiltonian.build(network, algebra.dct(32), classes, zeros, seed=0)
    assert nn.count_parameters(model) == parameters
