"""Data whose target is their input, for autoencoders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

__all__ = ["reconstruction"]


def reconstruction(dataset: Any, unfold: bool = False) -> Any:
    """The data set with the input of each batch as its target, as an autoencoder is trained and measured.

    With `unfold` a batch is a matrix `(n·rows, N)`, as `nn.Unfold` makes it of a tensor `(n, rows, N)`: for
    matrix networks and PCA. The errors are the same either way.

    >>> import numpy as np
    >>> from cutnn import data
    >>> X, target = reconstruction(data.load("digits")).train.batch([0, 1])
    >>> X.shape, np.array_equal(X, target)
    ((8, 8, 2), True)
    >>> reconstruction(data.load("digits"), unfold=True).train.batch([0, 1])[0].shape
    (64, 2)
    """
    parts = ("train", "validation", "test")
    return replace(dataset, **{part: _Inputs(getattr(dataset, part), unfold) for part in parts})


# -------------------------------------------------------------------------------------------------- helpers


@dataclass(frozen=True)
class _Inputs:
    """A split whose batches are (X, X)."""

    split: Any
    unfold: bool

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, indices: Any, dtype: Any = "float32") -> tuple[Any, Any]:
        X, _ = self.split.batch(indices, dtype)
        if self.unfold:
            X = X.reshape(-1, X.shape[-1])
        return X, X

    def to_device(self, device: str | None = None) -> _Inputs:
        return replace(self, split=self.split.to_device(device))

    @property
    def labels(self) -> Any:
        """The labels of the samples: no target, but they say where the data lie, and colour pictures."""
        return self.split.labels
