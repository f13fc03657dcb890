"""Data sets as whole byte arrays on one device, their splits, and batches of them as faces-first tensors.

An image becomes one lateral slice, its tubes along the image's columns: a batch of N images of 28×28 pixels
is a tensor `(28, 28, N)`, where T[k, i, s] is the pixel of image s in row i and column k. Colour channels are
stacked as rows. Images stay bytes until their batch: MNIST takes 55 MB, not 220, on the host or on the GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from cutnn.data import _files
from cutnn.data._reconstruction import reconstruction
from cutnn.device import device_of, lifted, namespace, to_device

__all__ = ["Dataset", "Split", "batches", "load", "reconstruction", "to_images", "to_tensor"]

Scale: TypeAlias = float | Sequence[float]
"""A mean or a standard deviation: one number, or one number a channel."""


def load(name: str, root: str | Path = "data", download: bool = False, *, seed: int = 42) -> Dataset:
    """Return a data set: "digits", "mnist", "fashion-mnist", "cifar10" or "cifar100" (its fine labels).

    The digits come with scikit-learn: 1197 / 300 / 300 images `(N, 8, 8)`, values 0..16, for training,
    validation and test. The others are read from the files that torchvision lays out under `root`: 50,000 /
    10,000 / 10,000 images `(N, 28, 28)`, or 40,000 / 10,000 / 10,000 `(N, 3, 32, 32)` of CIFAR-10 and
    CIFAR-100. One permutation from a NumPy generator with this seed makes the splits; published test images
    stay apart, in their order.

    With `download=True` torchvision fetches what is missing. Every file's MD5 is compared with the published
    one. Raises FileNotFoundError for a missing file, ValueError for a damaged one and for an unknown name,
    ImportError where scikit-learn or torchvision is needed and cannot be imported, OSError where a download
    fails.

    >>> digits = load("digits")
    >>> digits.train.images.shape, len(digits.validation), len(digits.test)
    ((1197, 8, 8), 300, 300)
    """
    if name not in _files.SOURCES:
        raise ValueError(f"unknown data set {name!r}; valid are {', '.join(map(repr, _files.SOURCES))}")
    source = _files.SOURCES[name]
    if download:
        _files.download(source, Path(root))
    images, labels, test_images, test_labels = source.read(source, Path(root))
    order = np.random.default_rng(seed).permutation(len(images))
    if source.test:
        order, chosen = np.split(order, [-source.test])
        test_images, test_labels = images[chosen], labels[chosen]
    parts = [(images[part], labels[part]) for part in np.split(order, [-source.validation])]
    train, validation, test = (
        Split(x, y.astype(np.int64), source.mean, source.std) for x, y in [*parts, (test_images, test_labels)]
    )
    return Dataset(name, train, validation, test, source.mean, source.std, source.classes)


@dataclass(frozen=True)
class Split:
    """Images as bytes, `(N, height, width)` or `(N, channels, height, width)`, with labels `(N,)`.

    Batches are normalised as `(images / 255 - mean) / std`; mean and std are one number, or one number a
    channel. Raises TypeError unless images are uint8 and labels are integers, ValueError where their shapes
    don't fit.

    >>> split = Split(np.zeros((5, 8, 8), np.uint8), np.arange(5))
    >>> len(split)
    5
    """

    images: Any
    labels: Any
    mean: Scale = 0.0
    std: Scale = 1.0

    def __post_init__(self) -> None:
        _check_images(self.images)
        _check_scale(self.std)
        for scale in (self.mean, self.std):
            _over_rows(scale, self.images.shape[1:])
        if np.dtype(self.labels.dtype).kind not in "iu":
            raise TypeError(f"expected integer labels, got {self.labels.dtype}")
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"expected one label an image: labels of shape {self.images.shape[:1]} for images of shape "
                f"{self.images.shape}, got {self.labels.shape}"
            )

    def __len__(self) -> int:
        return self.labels.shape[0]

    def batch(self, indices: Any, dtype: Any = "float32") -> tuple[Any, Any]:
        """Return a batch `(n, rows, N)`, normalised, and its labels `(N,)`, on the device of the split.

        `indices` is an array (N,), also a boolean mask, a list or a slice; indices on the host move to the
        device. Raises IndexError unless they are one-dimensional and in range (on the GPU, CuPy wraps them).

        >>> split = Split(np.zeros((5, 8, 6), np.uint8), np.arange(5))
        >>> X, labels = split.batch([3, 1, 4])
        >>> X.shape, labels.tolist()
        ((6, 8, 3), [3, 1, 4])
        """
        if not isinstance(indices, (slice, type(self.images), type(lifted(self.images)))):
            indices = _as_indices(indices, self.images)
        images = lifted(self.images)[indices]
        if images.ndim != self.images.ndim:
            raise IndexError(
                f"a batch needs one-dimensional indices, got {indices!r}; for one image give a list: [i]"
            )
        return to_tensor(images, self.mean, self.std, dtype), lifted(self.labels)[indices]

    def to_device(self, device: str | None = None) -> Split:
        """Return the split with its arrays on a device, by default the default one; images stay bytes."""
        return replace(self, images=to_device(self.images, device), labels=to_device(self.labels, device))


@dataclass(frozen=True)
class Dataset:
    """Three splits, their normalisation by `mean` and `std` of images / 255, and class names."""

    name: str
    train: Split
    validation: Split
    test: Split
    mean: Scale
    std: Scale
    classes: tuple[str, ...]

    def to_device(self, device: str | None = None) -> Dataset:
        """Return the data set with all its arrays on a device, by default the default one."""
        splits = {part: getattr(self, part).to_device(device) for part in ("train", "validation", "test")}
        return replace(self, **splits)


def to_tensor(images: Any, mean: Scale = 0.0, std: Scale = 1.0, dtype: Any = "float32") -> Any:
    """Return images as lateral slices: `(28, 28, N)` of `(N, 28, 28)`, `(32, 96, N)` of `(N, 3, 32, 32)`.

    T[k, i, s] = (image[s, i, k] / 255 - mean) / std, and T[k, c·height + i, s] for channel c: tubes run
    along the columns, T is contiguous. Images are bytes, or floats, which are not divided by 255. `mean` and
    `std` are one number, or one number a channel. Raises TypeError for images of other types and unless
    `dtype` is a real floating-point type, ValueError for another number of dimensions or of channels, or
    `std` not above zero. Layout: Newman et al., Stable tensor neural networks for efficient deep learning
    (2024), faces first.

    >>> to_tensor(np.array([[[0, 51], [102, 255]]], np.uint8), dtype="float64").squeeze()
    array([[0. , 0.4],
           [0.2, 1. ]])
    """
    _check_images(images, floats=True)
    _check_scale(std)
    if np.dtype(dtype).kind != "f":
        raise TypeError(f"expected a real floating-point dtype, got {np.dtype(dtype)}")
    count, *rows, n = images.shape
    # One cast straight into the transposed layout, then scaling in place. With the look-up of the images that
    # is 21 µs for 32 of MNIST and 81 of CIFAR-10 on one core; 30 and 139 through a table of the 256 floats,
    # 34 and 255 where the floats are transposed.
    T = images.reshape(count, math.prod(rows), n).transpose(2, 1, 0).astype(dtype, order="C")
    shift, scale = (_over_rows(x, images.shape[1:]) for x in (mean, std))
    T *= _like(T, 1 / ((255 if images.dtype == "uint8" else 1) * scale))
    T -= _like(T, shift / scale)
    return T


def to_images(T: Any, mean: Scale = 0.0, std: Scale = 1.0, image_shape: tuple[int, ...] | None = None) -> Any:
    """Return the images of a tensor `(n, rows, N)` as bytes, clipped to 0..255: the inverse of `to_tensor`.

    `image_shape` is the shape of one image; without it, rows = c·n with c > 1 are taken for c channels of
    square images, `(N, c, n, n)`, all others for grey images `(N, rows, n)`. Raises ValueError where shapes
    or the channels of `mean` and `std` don't fit.

    >>> images = np.arange(60, dtype=np.uint8).reshape(2, 6, 5)
    >>> np.array_equal(to_images(to_tensor(images)), images)
    True
    """
    if T.ndim != 3:
        raise ValueError(f"expected a tensor of shape (n, rows, N), got shape {T.shape}")
    n, rows, count = T.shape
    if image_shape is None:
        image_shape = (rows // n, n, n) if n and rows > n and rows % n == 0 else (rows, n)
    elif math.prod(image_shape[:-1]) != rows or image_shape[-1] != n:
        raise ValueError(
            f"a tensor of shape {T.shape} does not hold images of shape {tuple(image_shape)}: "
            f"an image has {rows} rows, over all channels, and {n} columns"
        )
    shift, scale = (_over_rows(x, image_shape) for x in (mean, std))
    xp = namespace(T)
    pixels = xp.clip(xp.round(T * _like(T, 255 * scale) + _like(T, 255 * shift)), 0, 255)
    return pixels.transpose(2, 1, 0).astype("uint8", order="C").reshape(count, *image_shape)


def batches(
    n: int,
    batch_size: int,
    rng: np.random.Generator | int | None = None,
    shuffle: bool = True,
    drop_last: bool = False,
    device: str = "cpu",
) -> Iterator[Any]:
    """Return an iterator of index arrays that visit 0..n-1 once; a short last one is kept unless dropped.

    The order is drawn on the host from `rng` (a generator or a seed), so it is the same on every device, and
    moves to `device` once. Raises ValueError for a negative n or a batch size below one.

    >>> [indices.tolist() for indices in batches(5, 2, shuffle=False)]
    [[0, 1], [2, 3], [4]]
    """
    if n < 0 or batch_size < 1:
        raise ValueError(f"expected n >= 0 and batch_size >= 1, got n={n} and batch_size={batch_size}")
    order = to_device(np.random.default_rng(rng).permutation(n) if shuffle else np.arange(n), device)
    stop = n - n % batch_size if drop_last else n
    return (order[start : start + batch_size] for start in range(0, stop, batch_size))


# ------------------------------------------------------------------------------------------------- checks


def _check_images(images: Any, floats: bool = False) -> None:
    if images.dtype != "uint8" and not (floats and images.dtype.kind == "f"):
        raise TypeError(
            f"expected images as bytes, uint8 from 0 to 255, got {images.dtype}; values from 0 to 1 "
            "become bytes by (255 * images).round().astype('uint8')"
        )
    if images.ndim not in (3, 4):
        raise ValueError(
            "expected images of shape (N, height, width) or (N, channels, height, width), "
            f"got {images.shape}; one image alone is images[None]"
        )


def _check_scale(std: Scale) -> None:
    if not np.all(np.asarray(std) > 0):
        raise ValueError(f"expected a standard deviation above zero, got std={std}")


def _over_rows(scale: Scale, image_shape: tuple[int, ...]) -> Any:
    """One number as it is, one number a channel as (rows, 1), for the rows of a tensor of such images."""
    if np.ndim(scale) == 0:
        return scale
    channels = tuple(image_shape[:-2])
    if np.shape(scale) != channels:
        raise ValueError(
            f"expected one number, or one for each of {channels[0] if channels else 'the channels'}: mean and "
            f"std are {scale} for images of shape {tuple(image_shape)}"
        )
    return np.repeat(np.asarray(scale, np.float64), image_shape[-2])[:, None]


def _like(T: Any, numbers: Any) -> Any:
    """Numbers over rows in the library and the precision of a tensor; one number stays as it is."""
    return numbers if np.ndim(numbers) == 0 else namespace(T).asarray(numbers.astype(T.dtype))


def _as_indices(indices: Any, images: Any) -> Any:
    if isinstance(indices, (list, tuple, range)):
        indices = np.asarray(indices, dtype=None if len(indices) else np.intp)
    if isinstance(indices, (np.ndarray, np.integer, int)):
        return to_device(np.asarray(indices), device_of(images))
    namespace(images, indices)  # refuses an index array on the GPU for images on the host
    return indices
