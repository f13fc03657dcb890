"""t-NNs in PyTorch with the tube axis last, (rows, columns, tubes): the layout of the authors' code.

Written after the formulas of Newman et al. (2024): the transform is a product with Mᵀ along the last axis,
the facewise product moves the tube axis forward, multiplies the batch of faces, and moves it back. Weights
come and go faces first, as NumPy arrays, so that a network here starts where one of cutnn starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def mode_product(A: Tensor, M: Tensor) -> Tensor:
    """A ×₃ M: M applied to every tube of A (l, m, n)."""
    return A @ M.T


def facewise(A: Tensor, B: Tensor) -> Tensor:
    """A △ B of (l, m, n) and (m, p, n)."""
    return (A.permute(2, 0, 1) @ B.permute(2, 0, 1)).permute(1, 2, 0)


def star_product(A: Tensor, B: Tensor, M: Tensor) -> Tensor:
    """A ★ B for an orthogonal M."""
    return mode_product(facewise(mode_product(A, M), mode_product(B, M)), M.T)


def star_product_over(A: Tensor, B: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """A ★ B of order p, (*batch, l, m, *tubes), by one orthogonal matrix for each axis of the tubes."""
    there, back = tuple(range(-len(matrices) - 2, -len(matrices))), (-2, -1)
    faces = (_all_modes(X, matrices).movedim(there, back) for X in (A, B))
    return _all_modes(torch.matmul(*faces).movedim(back, there), [M.T for M in matrices])


def _all_modes(X: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    for axis, M in enumerate(matrices, start=-len(matrices)):
        X = (X.transpose(axis, -1) @ M.T).transpose(axis, -1)
    return X


def t_product(A: Tensor, B: Tensor) -> Tensor:
    """The t-product of real tensors, by half spectra."""
    product = facewise(torch.fft.rfft(A, dim=-1), torch.fft.rfft(B, dim=-1))
    return torch.fft.irfft(product, n=A.shape[-1], dim=-1)


def tubal_scores(Y: Tensor, M: Tensor) -> Tensor:
    """The scores (classes, samples) of class tubes (classes, samples, n)."""
    logs = functional.log_softmax(mode_product(Y, M), dim=0)
    return -(logs**2).sum(dim=2) / (2 * Y.shape[2])


def tubal_cross_entropy(Y: Tensor, labels: Tensor, M: Tensor) -> Tensor:
    """The tubal cross entropy as the authors coded it, mean over samples."""
    return functional.nll_loss(tubal_scores(Y, M).T, labels)


class Network:
    """t-linear layers, tanh between; a dense one on the unfolded features where the last weight is a matrix.

    `layers` holds (weight, bias) of each layer, faces first: (n, out, in) and (n, out, 1) of a t-linear one,
    (out, n·in) and any shape of `out` numbers of a dense one. M is orthogonal, (n, n).
    """

    def __init__(self, layers: Sequence[tuple[Any, Any]], M: Any, device: str = "cpu") -> None:
        dtype = torch.from_numpy(np.asarray(layers[0][0])).dtype
        self.M = torch.tensor(np.asarray(M), dtype=dtype, device=device)
        self.n = len(M)
        self.shapes = [(np.shape(weight), np.shape(bias)) for weight, bias in layers]
        self.layers = [
            self._tubes_last(np.asarray(weight), np.asarray(bias), device) for weight, bias in layers
        ]

    @property
    def parameters(self) -> list[Tensor]:
        return [tensor for layer in self.layers for tensor in layer]

    @property
    def has_dense_head(self) -> bool:
        return self.layers[-1][0].ndim == 2

    def tensor(self, images: Tensor) -> Tensor:
        """Images (samples, rows, columns) as a tensor (rows, samples, columns)."""
        return images.transpose(0, 1)

    def __call__(self, X: Tensor) -> Tensor:
        """Class tubes (classes, samples, n), or logits (samples, classes), of a tensor (rows, samples, n)."""
        last = len(self.layers) - 1
        for k, (weight, bias) in enumerate(self.layers):
            X = self._linear(weight, bias, X)
            if k < last:
                X = torch.tanh(X)
        return X

    def loss(self, Y: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy of logits, or tubal cross entropy of class tubes."""
        if self.has_dense_head:
            return functional.cross_entropy(Y, labels)
        return tubal_cross_entropy(Y, labels, self.M)

    def loss_of(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss on images (samples, rows, columns) and their labels: what `torch.compile` is given."""
        return self.loss(self(self.tensor(images)), labels)

    def predict(self, Y: Tensor) -> Tensor:
        return Y.argmax(1) if self.has_dense_head else tubal_scores(Y, self.M).argmax(0)

    def faces_first(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The layers as NumPy arrays of the shapes they came in."""
        return [
            (_back(weight, self.n).reshape(shapes[0]), _back(bias, self.n).reshape(shapes[1]))
            for (weight, bias), shapes in zip(self.layers, self.shapes, strict=True)
        ]

    def _linear(self, weight: Tensor, bias: Tensor, X: Tensor) -> Tensor:
        if weight.ndim == 2:
            return functional.linear(X.transpose(0, 1).reshape(X.shape[1], -1), weight, bias)
        return star_product(weight, X, self.M) + bias

    def _tubes_last(self, weight: np.ndarray, bias: np.ndarray, device: str) -> tuple[Tensor, Tensor]:
        if weight.ndim == 3:
            weight, bias = weight.transpose(1, 2, 0), bias.transpose(1, 2, 0)
        else:  # columns: tube after tube here, face after face there
            classes = weight.shape[0]
            weight = weight.reshape(classes, self.n, -1).transpose(0, 2, 1).reshape(classes, -1)
            bias = bias.reshape(classes)
        return _parameter(weight, device), _parameter(bias, device)


class Autoencoder(Network):
    """t-linear layers there and back, tanh between; the error is that of the squares over an image."""

    def loss(self, Y: Tensor, images: Tensor) -> Tensor:
        return ((Y - self.tensor(images)) ** 2).sum() / len(images)


class HamiltonianNetwork(Network):
    """Leapfrog steps of size h, Z ← Z − h tanh(Kᵀ ★ Y + B), Y ← Y + h tanh(K ★ Z + B), and a linear head.

    `layers` holds (K, B) of each step, (n, width, width) and (n, 1, 1), faces first, and then the head.
    """

    def __init__(self, layers: Sequence[tuple[Any, Any]], M: Any, h: float, device: str = "cpu") -> None:
        super().__init__(layers, M, device)
        self.h = h

    def __call__(self, Y: Tensor) -> Tensor:
        """Class tubes, or logits, of a tensor (rows, samples, n)."""
        *steps, head = self.layers
        Z = torch.zeros(1, dtype=Y.dtype, device=Y.device)
        for K, B in steps:
            Z = Z - self.h * torch.tanh(star_product(K.transpose(0, 1), Y, self.M) + B)
            Y = Y + self.h * torch.tanh(star_product(K, Z, self.M) + B)
        return self._linear(*head, Y)


def _parameter(x: np.ndarray, device: str) -> Tensor:
    return torch.tensor(np.ascontiguousarray(x), device=device, requires_grad=True)


def _back(x: Tensor, n: int) -> np.ndarray:
    array = x.detach().cpu().numpy()
    if array.ndim == 3:
        return array.transpose(2, 0, 1)
    if array.ndim == 2:
        return array.reshape(len(array), -1, n).transpose(0, 2, 1)
    return array
