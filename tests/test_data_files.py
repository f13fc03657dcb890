"""Data sets: the published files, their faults, the splits made of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cutnn import data
from cutnn.data import _files

TRAIN, TEST, VALIDATION = 12, 4, 3  # images in the small files written here

# ------------------------------------------------------------------------------- small files in real formats


def write(path: Path, content: bytes) -> _files.File:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return _files.File(path.name, len(content), hashlib.md5(content).hexdigest())


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()


class OldPickler(pickle._Pickler):
    """Writes as Python 2 and NumPy 1 wrote the published files: byte strings, an older _reconstruct."""

    def save_string(self, obj: str | bytes) -> None:
        content = obj.encode() if isinstance(obj, str) else obj
        self.write(b"T" + struct.pack("<i", len(content)) + content)

    def save_function(self, obj: Any) -> None:
        module = "numpy.core.multiarray" if obj.__name__ == "_reconstruct" else obj.__module__
        self.write(f"c{module}\n{obj.__name__}\n".encode())

    dispatch = {
        **pickle._Pickler.dispatch,
        str: save_string,
        bytes: save_string,
        types.FunctionType: save_function,
        types.BuiltinFunctionType: save_function,
    }


def pickled(fields: dict[bytes, Any]) -> bytes:
    file = io.BytesIO()
    OldPickler(file, protocol=2).dump(fields)
    return file.getvalue()


@pytest.fixture(params=["plain", "gz"])
def mnist(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, np.ndarray]:
    """The arrays of a small "mnist" under tmp_path, plain or gzipped, published with their own MD5s."""
    rng = np.random.default_rng(0)
    names = [forms[0].name for forms in _files.SOURCES["mnist"].files]
    arrays = {
        name: rng.integers(
            0, 256 if "images" in name else 10, (n, 28, 28) if "images" in name else n, np.uint8
        )
        for name, n in zip(names, (TRAIN, TRAIN, TEST, TEST), strict=True)
    }
    folder, files = tmp_path / "MNIST" / "raw", []
    for name, values in arrays.items():
        packed = write(folder / f"{name}.gz", gzip.compress(idx(values)))
        plain = write(folder / name, idx(values))
        (folder / (f"{name}.gz" if request.param == "plain" else name)).unlink()
        files.append((plain, packed))
    publish(monkeypatch, "mnist", tuple(files))
    return arrays


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[bytes, Any]]:
    """The batches of a small "cifar10" under tmp_path, published with their own MD5s."""
    rng = np.random.default_rng(1)
    folder, files, fields = tmp_path / "cifar-10-batches-py", [], []
    for (file,) in _files.SOURCES["cifar10"].files:
        pixels = rng.integers(0, 256, (TEST, 3072), np.uint8)
        fields.append(
            {b"labels": rng.integers(0, 10, TEST).tolist(), b"data": pixels, b"batch_label": b"some"}
        )
        files.append((write(folder / file.name, pickled(fields[-1])),))
    publish(monkeypatch, "cifar10", tuple(files))
    return fields


@pytest.fixture
def cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[bytes, Any]]:
    """The training and test files of a small "cifar100" under tmp_path, with all the published fields."""
    rng = np.random.default_rng(2)
    folder, files, fields = tmp_path / "cifar-100-python", [], []
    for (file,), count in zip(_files.SOURCES["cifar100"].files, (TRAIN, TEST), strict=True):
        fields.append(
            {b"filenames": [b"an_image.png"] * count, b"batch_label": b"some", b"coarse_labels": [20] * count,
             b"fine_labels": rng.integers(0, 100, count).tolist(),
             b"data": rng.integers(0, 256, (count, 3072), np.uint8)}
        )  # fmt: skip
        files.append((write(folder / file.name, pickled(fields[-1])),))
    publish(monkeypatch, "cifar100", tuple(files))
    return fields


def publish(monkeypatch: pytest.MonkeyPatch, name: str, files: tuple[tuple[_files.File, ...], ...]) -> None:
    source = replace(_files.SOURCES[name], files=files, validation=VALIDATION)
    monkeypatch.setitem(_files.SOURCES, name, source)


def republish(monkeypatch: pytest.MonkeyPatch, name: str, path: Path, content: bytes) -> None:
    """Put other content into a file as though it had been published so."""
    file = write(path, content)
    forms = [
        tuple(file if form.name == file.name else form for form in forms)
        for forms in _files.SOURCES[name].files
    ]
    publish(monkeypatch, name, tuple(forms))


def only_file(folder: Path, stem: str) -> Path:
    (path,) = folder.rglob(f"{stem}*")
    return path


# -------------------------------------------------------------------------------------------------- reading


def test_mnist_files_are_read_and_split(mnist: dict[str, np.ndarray], tmp_path: Path) -> None:
    loaded = data.load("mnist", tmp_path)
    order = np.random.default_rng(42).permutation(TRAIN)
    images, labels, test_images, test_labels = mnist.values()
    np.testing.assert_array_equal(loaded.train.images, images[order[:-VALIDATION]])
    np.testing.assert_array_equal(loaded.train.labels, labels[order[:-VALIDATION]])
    np.testing.assert_array_equal(loaded.validation.images, images[order[-VALIDATION:]])
    np.testing.assert_array_equal(loaded.validation.labels, labels[order[-VALIDATION:]])
    np.testing.assert_array_equal(loaded.test.images, test_images)
    np.testing.assert_array_equal(loaded.test.labels, test_labels)
    assert (loaded.name, loaded.mean, loaded.std) == ("mnist", 0.1307, 0.3081)
    assert loaded.classes == tuple("0123456789")
    for split in (loaded.train, loaded.validation, loaded.test):
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
        assert (split.mean, split.std) == (loaded.mean, loaded.std)


def test_cifar_files_are_read_and_split(cifar: list[dict[bytes, Any]], tmp_path: Path) -> None:
    loaded = data.load("cifar10", str(tmp_path))
    order = np.random.default_rng(42).permutation(5 * TEST)
    images = np.concatenate([batch[b"data"] for batch in cifar[:5]])[order].reshape(-1, 3, 32, 32)
    labels = np.concatenate([batch[b"labels"] for batch in cifar[:5]])[order]
    np.testing.assert_array_equal(loaded.train.images, images[:-VALIDATION])
    np.testing.assert_array_equal(loaded.train.labels, labels[:-VALIDATION])
    np.testing.assert_array_equal(loaded.validation.images, images[-VALIDATION:])
    np.testing.assert_array_equal(loaded.validation.labels, labels[-VALIDATION:])
    np.testing.assert_array_equal(loaded.test.images.reshape(-1, 3072), cifar[5][b"data"])
    np.testing.assert_array_equal(loaded.test.labels, cifar[5][b"labels"])
    assert loaded.train.images.dtype == np.uint8 and loaded.train.labels.dtype == np.int64
    assert len(loaded.classes) == 10 and loaded.classes[3] == "cat"


def test_cifar100_files_are_read_with_their_fine_labels(
    cifar100: list[dict[bytes, Any]], tmp_path: Path
) -> None:
    loaded = data.load("cifar100", tmp_path)
    order = np.random.default_rng(42).permutation(TRAIN)
    images = cifar100[0][b"data"][order].reshape(-1, 3, 32, 32)
    labels = np.asarray(cifar100[0][b"fine_labels"])[order]
    for split, part in ((loaded.train, slice(-VALIDATION)), (loaded.validation, slice(-VALIDATION, None))):
        np.testing.assert_array_equal(split.images, images[part])
        np.testing.assert_array_equal(split.labels, labels[part])
        assert split.labels.dtype == np.int64
    np.testing.assert_array_equal(loaded.test.images.reshape(-1, 3072), cifar100[1][b"data"])
    np.testing.assert_array_equal(loaded.test.labels, cifar100[1][b"fine_labels"])
    X, _ = loaded.train.batch([0, 1])
    for c, (mean, std) in enumerate(((0.4914, 0.2023), (0.4822, 0.1994), (0.4465, 0.2010))):
        channel = (images[:2, c] / 255 - mean) / std
        np.testing.assert_allclose(
            X[:, 32 * c : 32 * c + 32], channel.transpose(2, 1, 0), rtol=1e-5, atol=1e-6
        )


def test_cifar100_has_a_hundred_classes_in_the_published_order() -> None:
    classes = _files.SOURCES["cifar100"].classes
    assert len(set(classes)) == 100 and sorted(classes) == list(classes)
    assert [classes[k] for k in (0, 1, 49, 99)] == ["apple", "aquarium_fish", "mountain", "worm"]


def test_cifar100_file_without_labels_for_its_images_is_refused(
    cifar100: list[dict[bytes, Any]], tmp_path: Path, monkeypatch: Any
) -> None:
    path = only_file(tmp_path, "train")
    republish(monkeypatch, "cifar100", path, pickled({**cifar100[0], b"fine_labels": [1]}))
    with pytest.raises(ValueError, match=rf"train: expected 1 uint8 images.*\({TRAIN}, 3072\)"):
        data.load("cifar100", tmp_path)


def test_the_seed_alone_decides_the_split(mnist: dict[str, np.ndarray], tmp_path: Path) -> None:
    first, again, other = (data.load("mnist", tmp_path, seed=seed).train.images for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(
        ValueError, match="'MNIST'.*'digits', 'mnist', 'fashion-mnist', 'cifar10', 'cifar100'"
    ):
        data.load("MNIST")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100"])
def test_missing_folder_says_where_files_belong_and_how_to_get_them(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        data.load(name, tmp_path / "nowhere")
    source = _files.SOURCES[name]
    for part in (str(tmp_path / "nowhere" / source.folder), "no such folder", "download=True", source.home):
        assert part in str(error.value)


def test_missing_file_is_named(mnist: dict[str, np.ndarray], tmp_path: Path) -> None:
    only_file(tmp_path, "t10k-labels").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte\.gz"
    ) as error:
        data.load("mnist", tmp_path)
    assert "no such folder" not in str(error.value)


@pytest.mark.parametrize("keep", [0, 3, -1])
def test_truncated_file_is_named_with_both_sizes(mnist: Any, tmp_path: Path, keep: int) -> None:
    path = only_file(tmp_path, "train-images")
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    with pytest.raises(ValueError, match="truncated.*Delete the file and get it again") as error:
        data.load("mnist", tmp_path)
    for part in (str(path), f"expected {len(content)} bytes", f"found {len(content[:keep])}"):
        assert part in str(error.value)


def test_file_with_something_appended_is_refused(cifar: Any, tmp_path: Path) -> None:
    path = only_file(tmp_path, "test_batch")
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ValueError, match="test_batch is too long"):
        data.load("cifar10", tmp_path)


def test_tampered_file_is_named_with_both_checksums(mnist: Any, tmp_path: Path) -> None:
    path = only_file(tmp_path, "train-images")
    content = bytearray(path.read_bytes())
    published = hashlib.md5(content).hexdigest()
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not the published file.*download=True") as error:
        data.load("mnist", tmp_path)
    for part in (str(path), published, hashlib.md5(content).hexdigest()):
        assert part in str(error.value)


@pytest.mark.parametrize("stem", ["train-images", "t10k-labels"])
def test_another_kind_of_file_is_shown_by_its_beginning(mnist: Any, tmp_path: Path, stem: str) -> None:
    path = only_file(tmp_path, stem)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match=r"beginning with b'\\x.*found b'<html>"):
        data.load("mnist", tmp_path)


def test_wrong_magic_number_inside_gzip_is_refused(tmp_path: Path, mnist: Any, monkeypatch: Any) -> None:
    only_file(tmp_path, "train-labels").unlink()
    path = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte.gz"
    republish(monkeypatch, "mnist", path, gzip.compress(idx(np.zeros((TRAIN, 1), np.uint8))))
    with pytest.raises(ValueError, match="expected the magic number 0x801, found 0x802"):
        data.load("mnist", tmp_path)


def test_header_that_does_not_fit_the_values_is_refused(tmp_path: Path, mnist: Any, monkeypatch: Any) -> None:
    path = only_file(tmp_path, "train-images")
    content = idx(mnist["train-images-idx3-ubyte"])[:-1]
    republish(monkeypatch, "mnist", path, gzip.compress(content) if path.suffix == ".gz" else content)
    with pytest.raises(ValueError, match=rf"shape \({TRAIN}, 28, 28\), but {TRAIN * 784 - 1} values"):
        data.load("mnist", tmp_path)


def test_images_without_their_labels_are_refused(tmp_path: Path, mnist: Any, monkeypatch: Any) -> None:
    path = only_file(tmp_path, "t10k-labels")
    content = idx(np.zeros(TEST - 1, np.uint8))
    republish(monkeypatch, "mnist", path, gzip.compress(content) if path.suffix == ".gz" else content)
    with pytest.raises(ValueError, match=rf"labels of shape \({TEST},\).*got \({TEST - 1},\)"):
        data.load("mnist", tmp_path)


def test_cifar_batch_of_another_shape_is_refused(tmp_path: Path, cifar: Any, monkeypatch: Any) -> None:
    path = only_file(tmp_path, "data_batch_2")
    republish(monkeypatch, "cifar10", path, pickled({**cifar[1], b"labels": [1]}))
    with pytest.raises(ValueError, match=rf"data_batch_2: expected 1 uint8 images.*\({TEST}, 3072\)"):
        data.load("cifar10", tmp_path)


class Malicious:
    """Unpickling this writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path, cifar: Any, monkeypatch: Any) -> None:
    path, trace = only_file(tmp_path, "data_batch_1"), tmp_path / "trace"
    content = pickle.dumps({b"data": Malicious(trace)}, protocol=2)
    pickle.loads(content)
    assert trace.exists()  # it would have run
    trace.unlink()
    published = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(ValueError, match="truncated|too long|MD5"):
        data.load("cifar10", tmp_path)
    assert len(published) != len(content) and not trace.exists()
    republish(monkeypatch, "cifar10", path, content)  # and with the checksum fooled
    with pytest.raises(pickle.UnpicklingError, match="refused .*only byte arrays"):
        data.load("cifar10", tmp_path)
    assert not trace.exists()


def test_pickled_objects_in_an_array_are_refused(tmp_path: Path, cifar: Any, monkeypatch: Any) -> None:
    path = only_file(tmp_path, "data_batch_1")
    republish(monkeypatch, "cifar10", path, pickled({**cifar[0], b"data": np.array([[None]])}))
    with pytest.raises(pickle.UnpicklingError, match="refused an array of type b?'O8'"):
        data.load("cifar10", tmp_path)


# ---------------------------------------------------------------------------------- digits and downloading


def test_digits() -> None:
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    digits = data.load("digits")
    splits = (digits.train, digits.validation, digits.test)
    assert [len(split) for split in splits] == [1197, 300, 300]
    order = np.random.default_rng(42).permutation(1797)
    # In the order of the permutation: training, validation, test.
    np.testing.assert_array_equal(np.concatenate([s.images for s in splits]), load_digits().images[order])
    np.testing.assert_array_equal(np.concatenate([s.labels for s in splits]), load_digits().target[order])
    assert digits.train.images.dtype == np.uint8 and digits.train.images.max() == 16
    X, _ = digits.train.batch(slice(None))
    assert abs(X.mean()) < 0.01 and abs(X.std() - 1) < 0.01


def test_digits_without_scikit_learn_say_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        data.load("digits")


def test_download_needs_nothing_where_files_are_there(
    mnist: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert len(data.load("mnist", tmp_path, download=True).test) == TEST
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("fault", [ModuleNotFoundError, RuntimeError])
def test_download_without_a_working_torchvision(
    fault: type[Exception], tmp_path: Path, monkeypatch: Any
) -> None:
    class Broken:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name.partition(".")[0] == "torchvision":
                raise fault("operator torchvision::nms does not exist")

    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ImportError, match="nms does not exist.*pip install torch torchvision") as error:
        data.load("cifar10", tmp_path, download=True)
    assert str(tmp_path / "cifar-10-batches-py") in str(error.value)


def pretend_torchvision(monkeypatch: pytest.MonkeyPatch, fetch: Any) -> None:
    """Stand in for torchvision, which needs a network."""
    module = types.ModuleType("torchvision")
    module.datasets = types.SimpleNamespace(MNIST=fetch)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", module)


def test_download_fetches_what_is_missing(mnist: Any, tmp_path: Path, monkeypatch: Any) -> None:
    path = only_file(tmp_path, "train-images")
    content = path.read_bytes()
    path.unlink()

    def fetch(root: Path, train: bool, download: bool) -> None:
        assert download
        (root / "MNIST" / "raw" / path.name).write_bytes(content)

    pretend_torchvision(monkeypatch, fetch)
    assert len(data.load("mnist", tmp_path, download=True).train) == TRAIN - VALIDATION


def test_download_that_fails_says_what_to_do_by_hand(tmp_path: Path, monkeypatch: Any) -> None:
    def fetch(root: Path, train: bool, download: bool) -> None:
        raise RuntimeError("no route to host")

    pretend_torchvision(monkeypatch, fetch)
    with pytest.raises(OSError, match="could not download mnist.*no route to host.*Or put the files of http"):
        data.load("mnist", tmp_path, download=True)


# ---------------------------------------------------------------------------------------------- real data


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100"])
def test_real_data(name: str, data_root: Path) -> None:
    if not (data_root / _files.SOURCES[name].folder).is_dir():
        pytest.skip(f"{name} is not under {data_root}")
    loaded = data.load(name, data_root)
    cifar, classes = name.startswith("cifar"), 100 if name == "cifar100" else 10
    sizes = (40_000 if cifar else 50_000, 10_000, 10_000)
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == sizes
    image_shape, tensor_shape = ((3, 32, 32), (32, 96)) if cifar else ((28, 28), (28, 28))
    for split in (loaded.train, loaded.validation, loaded.test):
        assert split.images.shape[1:] == image_shape and split.images.dtype == np.uint8
        assert sorted(set(split.labels.tolist())) == list(range(classes)) == list(range(len(loaded.classes)))
    X, labels = loaded.train.batch(np.arange(2000))
    assert X.shape == (*tensor_shape, 2000) and labels.shape == (2000,)
    if not cifar:  # whose constants are not their statistics
        assert abs(X.mean()) < 0.02 and abs(X.std() - 1) < 0.02


@pytest.mark.data
def test_real_mnist_digits_are_where_they_belong(data_root: Path) -> None:
    mnist = data.load("mnist", data_root)
    assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]  # as published
    assert np.bincount(mnist.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    seven = mnist.test.images[0] > 0
    assert (
        seven[:10].sum(1).max() > 2 * seven[-10:].sum(1).max()
    )  # a bar above, a stroke below: not transposed
