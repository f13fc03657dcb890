"""The published files of the data sets: where they lie, how they are checked, read and downloaded.

IDX files, plain or gzipped (MNIST, Fashion-MNIST), and the Python files of CIFAR-10 and CIFAR-100, laid out by
torchvision.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Arrays: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Training images and labels, test images and labels."""


class File(NamedTuple):
    """A published file, by which a copy is checked."""

    name: str
    size: int
    md5: str


@dataclass(frozen=True)
class Source:
    """Where a data set comes from. A file may lie there in several forms; the first found is read."""

    name: str
    read: Callable[[Source, Path], Arrays]
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    classes: tuple[str, ...]
    validation: int
    test: int = 0  # how many images to set apart where no test set is published
    folder: str = ""
    files: tuple[tuple[File, ...], ...] = ()
    torchvision: str = ""  # the name of its class there
    home: str = ""


def download(source: Source, root: Path) -> None:
    """Have torchvision fetch what is missing under a folder; nothing happens where every file is there."""
    folder = root / source.folder
    if all(any((folder / file.name).is_file() for file in forms) for forms in source.files):
        return
    by_hand = f"Or put the files of {source.home} into {folder}."
    try:
        from torchvision import datasets
    except Exception as error:  # beside a PyTorch of another build the import ends in a RuntimeError
        raise ImportError(
            f"downloading {source.name} needs torchvision, which cannot be imported ({error}). "
            f"Install the version that fits your PyTorch: pip install torch torchvision. {by_hand}"
        ) from error
    try:
        getattr(datasets, source.torchvision)(root, train=True, download=True)  # the test files come along
    except Exception as error:
        raise OSError(
            f"torchvision could not download {source.name} to {root} ({error}). {by_hand}"
        ) from error


def _read_digits(source: Source, root: Path) -> Arrays:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            f"the digits come with scikit-learn, which cannot be imported ({error}). Install it: "
            "pip install scikit-learn"
        ) from error
    digits = load_digits()
    images = digits.images.astype(np.uint8)  # sixteen shades and white: 0..16
    return images, digits.target, images[:0], digits.target[:0]


def _read_idx(source: Source, root: Path) -> Arrays:
    images, labels, test_images, test_labels = (
        _parse_idx(*_content(source, root, forms), dimensions)
        for forms, dimensions in zip(source.files, (3, 1, 3, 1), strict=True)
    )
    return images, labels, test_images, test_labels


def _parse_idx(content: bytes, path: Path, dimensions: int) -> np.ndarray:
    """Return the values of an IDX file of bytes: after 0x800 + dimensions come the sizes, then the values."""
    magic, *shape = np.frombuffer(content, ">u4", count=1 + dimensions).tolist()
    if magic != 0x800 + dimensions:
        raise ValueError(f"{path}: expected the magic number {0x800 + dimensions:#x}, found {magic:#x}")
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if math.prod(shape) != values.size:
        raise ValueError(f"{path}: the header says shape {tuple(shape)}, but {values.size} values follow it")
    return values.reshape(shape)


def _read_cifar(source: Source, root: Path) -> Arrays:
    images, labels = [], []
    for forms in source.files:
        content, path = _content(source, root, forms)
        fields = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        pixels, classes = fields[b"data"], fields[b"fine_labels" if b"fine_labels" in fields else b"labels"]
        if pixels.dtype != np.uint8 or pixels.shape != (len(classes), 3072):
            raise ValueError(
                f"{path}: expected {len(classes)} uint8 images of 3072 values, one for each label, "
                f"found {pixels.dtype} of shape {pixels.shape}"
            )
        images.append(pixels.reshape(-1, 3, 32, 32))
        labels.append(np.asarray(classes))
    return np.concatenate(images[:-1]), np.concatenate(labels[:-1]), images[-1], labels[-1]


class _Unpickler(pickle.Unpickler):
    """Reads dictionaries, lists, numbers, strings and byte arrays; refuses a pickle that asks for more."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _PICKLED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused {module}.{name}: only byte arrays are admitted") from None


def _byte_dtype(kind: Any, align: Any, copy: Any) -> np.dtype:
    if kind not in (b"u1", "u1"):
        raise pickle.UnpicklingError(f"refused an array of type {kind!r}: only bytes are admitted")
    return np.dtype(np.uint8)


# NumPy moved _reconstruct from version to version; an array's own pickle says where it is.
_PICKLED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _byte_dtype,
}


def _content(source: Source, root: Path, forms: tuple[File, ...]) -> tuple[bytes, Path]:
    """Return the checked and unpacked content of a file, and its path."""
    folder = root / source.folder
    file = next((file for file in forms if (folder / file.name).is_file()), None)
    get = (
        f'data.load("{source.name}", root="{root}", download=True) where torchvision is installed, '
        f"or put the files of {source.home} there"
    )
    if file is None:
        names = " or ".join(file.name for file in forms)
        gone = "" if folder.is_dir() else " (there is no such folder)"
        raise FileNotFoundError(f"{source.name}: expected {names} in {folder}{gone}. To get it: {get}.")
    path = folder / file.name
    content = path.read_bytes()
    again = f"Delete the file and get it again: {get}."
    if not content.startswith((start := _beginning(file.name))[: len(content)]):
        raise ValueError(f"{path}: expected a file beginning with {start!r}, found {content[:8]!r}. {again}")
    if len(content) != file.size:
        what = "truncated" if len(content) < file.size else "too long"
        raise ValueError(f"{path} is {what}: expected {file.size} bytes, found {len(content)}. {again}")
    if (md5 := hashlib.md5(content, usedforsecurity=False).hexdigest()) != file.md5:
        raise ValueError(f"{path} is not the published file: expected MD5 {file.md5}, found {md5}. {again}")
    return (gzip.decompress(content) if path.suffix == ".gz" else content), path


def _beginning(name: str) -> bytes:
    """Return the first bytes of a file: they tell another file, a web page say, from a damaged one."""
    marks = {".gz": b"\x1f\x8b", "idx3-ubyte": b"\0\0\x08\x03", "idx1-ubyte": b"\0\0\x08\x01"}
    return next((mark for ending, mark in marks.items() if name.endswith(ending)), b"\x80\x02")


# ----------------------------------------------------------------------------------- the published files
# A file's size and MD5, for IDX files first unpacked, then gzipped.

_MNIST = {
    "train-images-idx3-ubyte": (
        (47040016, "6bbc9ace898e44ae57da46a324031adb"),
        (9912422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    ),
    "train-labels-idx1-ubyte": (
        (60008, "a25bea736e30d166cdddb491f175f624"),
        (28881, "d53e105ee54ea40749a09fcbcd1e9432"),
    ),
    "t10k-images-idx3-ubyte": (
        (7840016, "2646ac647ad5339dbf082846283269ea"),
        (1648877, "9fb629c4189551a2d022fa330f9573f3"),
    ),
    "t10k-labels-idx1-ubyte": (
        (10008, "27ae3e4e09519cfbb04c329615203637"),
        (4542, "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
}
_FASHION_MNIST = {
    "train-images-idx3-ubyte": (
        (47040016, "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
        (26421880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    ),
    "train-labels-idx1-ubyte": (
        (60008, "9018921c3c673c538a1fc5bad174d6f9"),
        (29515, "25c81989df183df01b3e8a0aad5dffbe"),
    ),
    "t10k-images-idx3-ubyte": (
        (7840016, "8181f5470baa50b63fa0f6fddb340f0a"),
        (4422102, "bef4ecab320f06d8554ea6380940ec79"),
    ),
    "t10k-labels-idx1-ubyte": (
        (10008, "15d484375f8d13e6eb1aabb0c3f46965"),
        (5148, "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
}
_CIFAR10 = {
    "data_batch_1": (31035704, "c99cafc152244af753f735de768cd75f"),
    "data_batch_2": (31035320, "d4bba439e000b95fd0a9bffe97cbabec"),
    "data_batch_3": (31035999, "54ebc095f3ab1f0389bbae665268c751"),
    "data_batch_4": (31035696, "634d18415352ddfa80567beed471001a"),
    "data_batch_5": (31035623, "482c414d41f54cd18b22e5b47cb7c3cb"),
    "test_batch": (31035526, "40351d587109b95175f43aff81a1287e"),
}
_CIFAR100 = {
    "train": (155249918, "16019d7e3df5f24257cddd939b257f8d"),
    "test": (31049704, "f0ef6b0ae62326f3e7ffdfab6717acfc"),
}


def _plain_or_gzipped(files: dict[str, tuple[Any, Any]]) -> tuple[tuple[File, File], ...]:
    return tuple((File(name, *plain), File(f"{name}.gz", *packed)) for name, (plain, packed) in files.items())


_DIGITS = tuple("0123456789")
_CLOTHES = tuple("T-shirt/top|Trouser|Pullover|Dress|Coat|Sandal|Shirt|Sneaker|Bag|Ankle boot".split("|"))
_FINE = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel
    can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
    dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion
    lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree
    pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea
    seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table
    tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman
    worm
    """.split()
)
_OBJECTS = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())

# Mean and standard deviation of images / 255. The digits' values go to 16, so theirs are small.
SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("digits", _read_digits, 4.884 / 255, 6.017 / 255, _DIGITS, validation=300, test=300),
        Source(
            "mnist",
            _read_idx,
            0.1307,
            0.3081,
            _DIGITS,
            validation=10_000,
            folder="MNIST/raw",
            files=_plain_or_gzipped(_MNIST),
            torchvision="MNIST",
            home="https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        Source(
            "fashion-mnist",
            _read_idx,
            0.2860,
            0.3530,
            _CLOTHES,
            validation=10_000,
            folder="FashionMNIST/raw",
            files=_plain_or_gzipped(_FASHION_MNIST),
            torchvision="FashionMNIST",
            home="https://github.com/zalandoresearch/fashion-mnist",
        ),
        Source(
            "cifar10",
            _read_cifar,
            0.5,
            0.5,
            _OBJECTS,
            validation=10_000,
            folder="cifar-10-batches-py",
            files=tuple((File(name, *published),) for name, published in _CIFAR10.items()),
            torchvision="CIFAR10",
            home="https://www.cs.toronto.edu/~kriz/cifar.html",
        ),
        Source(
            "cifar100",
            _read_cifar,
            (0.4914, 0.4822, 0.4465),
            (0.2023, 0.1994, 0.2010),
            _FINE,
            validation=10_000,
            folder="cifar-100-python",
            files=tuple((File(name, *published),) for name, published in _CIFAR100.items()),
            torchvision="CIFAR100",
            home="https://www.cs.toronto.edu/~kriz/cifar.html",
        ),
    )
}
