"""t-NNs in JAX with the faces first, (tubes, rows, columns), and a training step that one `jit` compiles.

The networks are those of `torch_faces_first`; weights are arguments of every function, as JAX has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_UNROLLED = 16  # deeper networks go through `scan`, so that they compile in seconds


def mode_product(A: Any, M: Any) -> Any:
    """M applied to every tube of A (n, l, m), as one matrix product."""
    return (M @ A.reshape(len(A), -1)).reshape(-1, *A.shape[1:])


def star_product(A: Any, B: Any, M: Any) -> Any:
    """A ★ B for an orthogonal M."""
    return mode_product(mode_product(A, M) @ mode_product(B, M), M.T)


def star_product_over(A: Any, B: Any, matrices: Sequence[Any]) -> Any:
    """A ★ B of order p, (*batch, *tubes, l, m), by one orthogonal matrix for each axis of the tubes."""
    hats = (_all_modes(X, matrices) for X in (A, B))
    return _all_modes(jnp.matmul(*hats), [M.T for M in matrices])


def _all_modes(X: Any, matrices: Sequence[Any]) -> Any:
    for axis, M in enumerate(matrices, start=X.ndim - 2 - len(matrices)):
        X = (M @ X.reshape(*X.shape[:axis], len(M), -1)).reshape(X.shape)
    return X


def t_product(A: Any, B: Any) -> Any:
    """The t-product of real tensors, by half spectra."""
    return jnp.fft.irfft(jnp.fft.rfft(A, axis=0) @ jnp.fft.rfft(B, axis=0), n=len(A), axis=0)


def tubal_scores(Y: Any, M: Any) -> Any:
    """The scores (classes, samples) of class tubes (n, classes, samples)."""
    logs = jax.nn.log_softmax(mode_product(Y, M), axis=1)
    return -(logs**2).sum(axis=0) / (2 * len(Y))


class Network:
    """t-linear layers, tanh between; a dense one on the unfolded features where the last weight is a matrix.

    `layers` as in `torch_tubes_last.Network`; `weights` are those to start from.
    """

    def __init__(self, layers: Sequence[tuple[Any, Any]], M: Any) -> None:
        self.M = jnp.asarray(np.asarray(M, layers[0][0].dtype))
        self.dense_head = np.ndim(layers[-1][0]) == 2
        self.weights = [
            (jnp.asarray(weight), jnp.asarray(bias if np.ndim(weight) == 3 else np.reshape(bias, (-1, 1))))
            for weight, bias in layers
        ]

    def __call__(self, weights: Any, images: Any) -> Any:
        """Class tubes (n, classes, samples), or logits (classes, samples), of images (samples, rows, columns)."""
        X = images.transpose(2, 1, 0)
        for weight, bias in weights[:-1]:
            X = jnp.tanh(self._linear(weight, bias, X))
        return self._linear(*weights[-1], X)

    def loss(self, weights: Any, images: Any, labels: Any) -> Any:
        """Cross entropy of logits, or tubal cross entropy of class tubes, mean over samples."""
        scores = self.scores(weights, images)
        if self.dense_head:
            scores = jax.nn.log_softmax(scores, axis=0)
        return -scores[labels, jnp.arange(len(labels))].mean()

    def scores(self, weights: Any, images: Any) -> Any:
        """Numbers (classes, samples), the largest for the class that is predicted."""
        Y = self(weights, images)
        return Y if self.dense_head else tubal_scores(Y, self.M)

    def _linear(self, weight: Any, bias: Any, X: Any) -> Any:
        if weight.ndim == 2:
            return weight @ X.reshape(-1, X.shape[-1]) + bias
        return star_product(weight, X, self.M) + bias


class Autoencoder(Network):
    """t-linear layers there and back, tanh between; the error is that of the squares over an image."""

    def loss(self, weights: Any, images: Any, targets: Any) -> Any:
        return ((self(weights, images) - targets.transpose(2, 1, 0)) ** 2).sum() / len(targets)


class HamiltonianNetwork(Network):
    """Leapfrog steps and a linear head, as in `torch_tubes_last.HamiltonianNetwork`."""

    def __init__(self, layers: Sequence[tuple[Any, Any]], M: Any, h: float) -> None:
        super().__init__(layers, M)
        self.h = h
        if len(layers) - 1 > _UNROLLED:  # one array each for all K and all B
            *steps, head = self.weights
            self.weights = [jax.tree.map(lambda *parts: jnp.stack(parts), *steps), head]

    def __call__(self, weights: Any, images: Any) -> Any:
        Y = images.transpose(2, 1, 0)
        *steps, head = weights
        state = jnp.zeros_like(Y), Y
        if steps[0][0].ndim == 4:
            state, _ = jax.lax.scan(lambda state, step: (self._step(state, step), None), state, steps[0])
        else:
            for step in steps:
                state = self._step(state, step)
        return self._linear(*head, state[1])

    def _step(self, state: Any, step: Any) -> Any:
        (Z, Y), (K, B) = state, step
        Z = Z - self.h * jnp.tanh(star_product(K.mT, Y, self.M) + B)
        return Z, Y + self.h * jnp.tanh(star_product(K, Z, self.M) + B)


class Training:
    """A network, its weights and moments, and Adam's step on a batch, as `torch.optim.Adam` makes it."""

    def __init__(self, network: Network, lr: float, weight_decay: float) -> None:
        self.network = network
        self.weights = network.weights
        zeros = jax.tree.map(jnp.zeros_like, network.weights)
        self.state = jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.copy, zeros)
        self._step = jax.jit(partial(self._update, lr, weight_decay), donate_argnums=(0, 1))

    def step(self, *batch: Any) -> Any:
        """One training step; returns the loss before it, which may still be under way."""
        self.weights, self.state, loss = self._step(self.weights, self.state, *batch)
        return loss

    def _update(self, lr: float, decay: float, weights: Any, state: Any, *batch: Any) -> Any:
        loss, grads = jax.value_and_grad(self.network.loss)(weights, *batch)
        count, first, second = state
        count = count + 1
        grads = jax.tree.map(lambda g, w: g + decay * w, grads, weights) if decay else grads
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, grads)
        rate, scale = lr / (1 - 0.9**count), 1 / jnp.sqrt(1 - 0.999**count)
        weights = jax.tree.map(
            lambda w, m, v: w - rate * m / (jnp.sqrt(v) * scale + 1e-8), weights, first, second
        )
        return weights, (count, first, second), loss
