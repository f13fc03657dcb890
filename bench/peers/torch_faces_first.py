"""t-NNs in PyTorch with the faces first, (tubes, rows, columns): cutnn's layout; only the libraries differ.

The network is that of `torch_tubes_last`, and it takes and gives weights in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def mode_product(A: Tensor, M: Tensor) -> Tensor:
    """M applied to every tube of A (n, l, m), as one matrix product."""
    return (M @ A.reshape(len(A), -1)).reshape(-1, *A.shape[1:])


def star_product(A: Tensor, B: Tensor, M: Tensor) -> Tensor:
    """A ★ B for an orthogonal M."""
    return mode_product(mode_product(A, M) @ mode_product(B, M), M.T)


def star_product_over(A: Tensor, B: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """A ★ B of order p, (*batch, *tubes, l, m), by one orthogonal matrix for each axis of the tubes."""
    hats = (_all_modes(X, matrices) for X in (A, B))
    return _all_modes(torch.matmul(*hats), [M.T for M in matrices])


def _all_modes(X: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    for axis, M in enumerate(matrices, start=X.ndim - 2 - len(matrices)):
        X = (M @ X.reshape(*X.shape[:axis], len(M), -1)).reshape(X.shape)
    return X


def t_product(A: Tensor, B: Tensor) -> Tensor:
    """The t-product of real tensors, by half spectra."""
    return torch.fft.irfft(torch.fft.rfft(A, dim=0) @ torch.fft.rfft(B, dim=0), n=len(A), dim=0)


def tubal_scores(Y: Tensor, M: Tensor) -> Tensor:
    """The scores (classes, samples) of class tubes (n, classes, samples)."""
    logs = functional.log_softmax(mode_product(Y, M), dim=1)
    return -(logs**2).sum(dim=0) / (2 * len(Y))


def tubal_cross_entropy(Y: Tensor, labels: Tensor, M: Tensor) -> Tensor:
    """The tubal cross entropy as the authors coded it, mean over samples."""
    return functional.nll_loss(tubal_scores(Y, M).T, labels)


class Network:
    """t-linear layers, tanh between; a dense one on the unfolded features where the last weight is a matrix.

    `layers` as in `torch_tubes_last.Network`: (n, out, in) and (n, out, 1), or (out, n·in) and `out` numbers.
    """

    def __init__(self, layers: Sequence[tuple[Any, Any]], M: Any, device: str = "cpu") -> None:
        dtype = torch.from_numpy(np.asarray(layers[0][0])).dtype
        self.M = torch.tensor(np.asarray(M), dtype=dtype, device=device)
        self.bias_shapes = [np.shape(bias) for _, bias in layers]
        self.layers = [
            (
                _parameter(weight, device),
                _parameter(bias if np.ndim(weight) == 3 else np.reshape(bias, (-1, 1)), device),
            )
            for weight, bias in layers
        ]

    @property
    def parameters(self) -> list[Tensor]:
        return [tensor for layer in self.layers for tensor in layer]

    @property
    def has_dense_head(self) -> bool:
        return self.layers[-1][0].ndim == 2

    def tensor(self, images: Tensor) -> Tensor:
        """Images (samples, rows, columns) as a tensor (columns, rows, samples)."""
        return images.permute(2, 1, 0).contiguous()

    def __call__(self, X: Tensor) -> Tensor:
        """Class tubes (n, classes, samples), or logits (classes, samples), of a tensor (n, rows, samples)."""
        last = len(self.layers) - 1
        for k, (weight, bias) in enumerate(self.layers):
            X = self._linear(weight, bias, X)
            if k < last:
                X = torch.tanh(X)
        return X

    def loss(self, Y: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy of logits, or tubal cross entropy of class tubes."""
        if self.has_dense_head:
            return functional.cross_entropy(Y.T, labels)
        return tubal_cross_entropy(Y, labels, self.M)

    def loss_of(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss on images (samples, rows, columns) and their labels: what `torch.compile` is given."""
        return self.loss(self(self.tensor(images)), labels)

    def predict(self, Y: Tensor) -> Tensor:
        return Y.argmax(0) if self.has_dense_head else tubal_scores(Y, self.M).argmax(0)

    def faces_first(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The layers as NumPy arrays of the shapes they came in."""
        return [
            (weight.detach().cpu().numpy(), bias.detach().cpu().numpy().reshape(shape))
            for (weight, bias), shape in zip(self.layers, self.bias_shapes, strict=True)
        ]

    def _linear(self, weight: Tensor, bias: Tensor, X: Tensor) -> Tensor:
        if weight.ndim == 2:
            return weight @ X.reshape(-1, X.shape[-1]) + bias
        return star_product(weight, X, self.M) + bias


class Autoencoder(Network):
    """t-linear layers there and back, tanh between; the error is that of the squares over an image."""

    def loss(self, Y: Tensor, images: Tensor) -> Tensor:
        return ((Y - self.tensor(images)) ** 2).sum() / len(images)


class HamiltonianNetwork(Network):
    """Leapfrog steps and a linear head, as in `torch_tubes_last.HamiltonianNetwork`."""

    def __init__(self, layers: Sequence[tuple[Any, Any]], M: Any, h: float, device: str = "cpu") -> None:
        super().__init__(layers, M, device)
        self.h = h

    def __call__(self, Y: Tensor) -> Tensor:
        """Class tubes, or logits, of a tensor (n, rows, samples)."""
        *steps, head = self.layers
        Z = torch.zeros(1, dtype=Y.dtype, device=Y.device)
        for K, B in steps:
            Z = Z - self.h * torch.tanh(star_product(K.mT, Y, self.M) + B)
            Y = Y + self.h * torch.tanh(star_product(K, Z, self.M) + B)
        return self._linear(*head, Y)


def _parameter(x: Any, device: str) -> Tensor:
    return torch.tensor(np.ascontiguousarray(x), device=device, requires_grad=True)
