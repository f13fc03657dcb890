"""A small data set, a network that learns it, and runs of them, for the tests of training."""

import types

import numpy as np
import optree

import cutnn as ct
from cutnn import algebra, data, nn, optim, train

STAR = algebra.dct(6)


def made_data(images=120, seed=0, classes=3):
    """Images (N, 4, 6) of noise around one picture a class; easy to learn."""
    rng = np.random.default_rng(seed)
    pictures = np.random.default_rng(1).uniform(60, 190, (classes, 4, 6))
    labels = np.arange(images) % classes
    noisy = (pictures[labels] + rng.normal(0, 20, (images, 4, 6))).clip(0, 255).astype(np.uint8)
    return data.Split(noisy, labels, mean=0.5, std=0.3)


def made_set(train_split=None, validation="made"):
    split = made_data(60, seed=1) if isinstance(validation, str) else validation
    return types.SimpleNamespace(train=made_data() if train_split is None else train_split, validation=split)


def made_net(dtype=np.float32, **options):
    return nn.Sequential(
        nn.TLinear(STAR, 4, 5, ct.tanh, dtype=dtype, seed=0, **options),
        nn.TLinear(STAR, 5, 3, dtype=dtype, seed=1, **options),
    )


def made_time_net(dtype=np.float32, depth=2, **options):
    """A Hamiltonian network for the same data, with a tubal head."""
    net = nn.HamiltonianNet(STAR, 4, depth=depth, h=0.5, dtype=dtype, seed=0, **options)
    return nn.Sequential(net, nn.TLinear(STAR, 4, 3, dtype=dtype, seed=1))


def made_learned_net():
    """The same with a learned M; its tubal loss is that of its faces, over M = I."""
    return nn.Learned(made_net(), STAR, faces=True)


def run(model=None, loss=None, dataset=None, **options):
    model = model or made_net()
    options = {"epochs": 3, "batch_size": 16, "optimizer": optim.Adam(model, lr=1e-2), **options}
    return train.fit(model, loss or nn.TubalCrossEntropy(STAR), dataset or made_set(), **options)


def arrays(model):
    return [leaf.copy() for leaf in optree.tree_leaves(model, namespace="cutnn")]


def assert_same(model, other):
    for a, b in zip(arrays(model), arrays(other), strict=True):
        np.testing.assert_array_equal(a, b)
