"""Data sets: files and their faults, splits, batches and the layout of tensors."""

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
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cutnn import data
from cutnn.data import _files
from cutnn.device import to_host

IMAGES = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=4, min_side=1, max_side=6))
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


def test_the_seed_alone_decides_the_split(mnist: dict[str, np.ndarray], tmp_path: Path) -> None:
    first, again, other = (data.load("mnist", tmp_path, seed=seed).train.images for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="'MNIST'.*'digits', 'mnist', 'fashion-mnist', 'cifar10'"):
        data.load("MNIST")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
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


# ---------------------------------------------------------------------------------------------- layout


@given(IMAGES, st.floats(0, 1), st.floats(0.1, 2))
def test_tensor_layout_against_loops(images: np.ndarray, mean: float, std: float) -> None:
    *lead, height, width = images.shape
    channels = images.reshape(lead[0], -1, height, width)
    expected = np.empty((width, channels.shape[1] * height, lead[0]))
    for s, c, i, k in np.ndindex(channels.shape):
        expected[k, c * height + i, s] = (channels[s, c, i, k] / 255 - mean) / std
    T = data.to_tensor(images, mean, std, np.float64)
    np.testing.assert_allclose(T, expected, rtol=1e-12, atol=1e-12)
    single = data.to_tensor(images, mean, std)
    assert single.dtype == np.float32 and single.flags.c_contiguous
    np.testing.assert_allclose(single, expected, rtol=2e-6, atol=2e-6)


@given(IMAGES, st.floats(0, 1), st.floats(0.1, 2))
def test_images_come_back_from_their_tensor(images: np.ndarray, mean: float, std: float) -> None:
    back = data.to_images(data.to_tensor(images, mean, std), mean, std, image_shape=images.shape[1:])
    assert back.dtype == np.uint8 and back.flags.c_contiguous
    np.testing.assert_array_equal(back, images)


@pytest.mark.parametrize("shape", [(5, 28, 28), (2, 3, 32, 32), (0, 8, 8), (1, 8, 8), (2, 6, 5)])
def test_image_shape_is_found_for_square_images(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(data.to_images(data.to_tensor(images)), images)


def test_images_are_clipped() -> None:
    T = np.array([-1.0, 0.5, 7.0]).reshape(1, 1, 3)
    assert data.to_images(T).ravel().tolist() == [0, 128, 255]


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"\(32, 96, 2\) does not hold images of shape \(96, 31\).*96 rows.*32 columns"
    ):
        data.to_images(np.zeros((32, 96, 2)), image_shape=(96, 31))
    with pytest.raises(ValueError, match=r"\(n, rows, N\), got shape \(3, 4\)"):
        data.to_images(np.zeros((3, 4)))


def test_tensor_of_what_are_no_images_is_refused() -> None:
    images = np.zeros((2, 4, 4), np.uint8)
    with pytest.raises(TypeError, match="uint8 from 0 to 255, got float64"):
        data.to_tensor(images / 255)
    with pytest.raises(ValueError, match=r"got \(4, 4\); one image alone is images\[None\]"):
        data.to_tensor(images[0])
    with pytest.raises(TypeError, match="floating-point dtype, got int32"):
        data.to_tensor(images, dtype=np.int32)
    for std in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="above zero"):
            data.to_tensor(images, std=std)


# ---------------------------------------------------------------------------------------------- batches


@pytest.fixture(params=[(10, 5, 4), (10, 3, 5, 4)], ids=["grey", "colour"])
def split(request: pytest.FixtureRequest) -> data.Split:
    rng = np.random.default_rng(2)
    return data.Split(rng.integers(0, 256, request.param, np.uint8), rng.integers(0, 10, 10), 0.3, 0.7)


@pytest.mark.parametrize(
    "indices",
    [np.array([7, 0, 7]), [7, 0, 7], (1, 2), range(3), np.array([4]), [4], [], np.array([], int),
     slice(2, 9, 3), slice(0, 0), np.arange(10) % 2 == 0, np.array([-1, 3], np.int32)],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", np.float64])
def test_batch_is_the_tensor_of_its_images(split: data.Split, indices: Any, dtype: Any) -> None:
    chosen = indices if isinstance(indices, slice) else np.array(indices, None if len(indices) else int)
    X, labels = split.batch(indices, dtype)
    expected = data.to_tensor(split.images[chosen], split.mean, split.std, dtype)
    assert X.dtype == dtype and X.shape == expected.shape and X.shape[2] == len(labels)
    np.testing.assert_array_equal(X, expected)
    np.testing.assert_array_equal(labels, split.labels[chosen])


@pytest.mark.parametrize("indices", [3, np.int64(3), np.array([[1, 2]])], ids=repr)
def test_batch_of_indices_that_are_not_one_dimensional_is_refused(split: data.Split, indices: Any) -> None:
    with pytest.raises(IndexError, match="one-dimensional indices.*give a list"):
        split.batch(indices)


def test_batch_out_of_range_is_refused(split: data.Split) -> None:
    with pytest.raises(IndexError, match="10 is out of bounds"):
        split.batch([0, 10])


def test_batch_leaves_the_images_as_bytes(split: data.Split) -> None:
    before = split.images.copy()
    X, _ = split.batch(slice(None))
    X += 1
    assert split.images.dtype == np.uint8
    np.testing.assert_array_equal(split.images, before)


def test_split_checks_its_arrays() -> None:
    images = np.zeros((2, 4, 4), np.uint8)
    with pytest.raises(TypeError, match="uint8"):
        data.Split(images.astype(np.float32), np.zeros(2, int))
    with pytest.raises(TypeError, match="integer labels, got float64"):
        data.Split(images, np.zeros(2))
    with pytest.raises(ValueError, match=r"labels of shape \(2,\).*got \(3,\)"):
        data.Split(images, np.zeros(3, int))


@given(st.integers(0, 40), st.integers(1, 12), st.booleans(), st.booleans())
def test_batches_visit_everything_once(n: int, batch_size: int, shuffle: bool, drop_last: bool) -> None:
    parts = list(data.batches(n, batch_size, 5, shuffle, drop_last))
    sizes = [batch_size] * (n // batch_size) + [n % batch_size] * (n % batch_size > 0 and not drop_last)
    assert [len(part) for part in parts] == sizes
    visited = np.concatenate([*parts, np.array([], int)])
    order = np.random.default_rng(5).permutation(n) if shuffle else np.arange(n)
    np.testing.assert_array_equal(visited, order[: sum(sizes)])


def test_batches_follow_their_generator() -> None:
    rng = np.random.default_rng(3)
    first, second, again = (np.concatenate(list(data.batches(50, 8, r))) for r in (rng, rng, 3))
    assert not np.array_equal(first, second)  # an epoch differs from the one before
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("n, batch_size", [(-1, 4), (4, 0)])
def test_batches_of_nonsense_are_refused_at_once(n: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"n={n} and batch_size={batch_size}"):
        data.batches(n, batch_size)


# ---------------------------------------------------------------------------------------------- devices


def check_on(device: str, split: data.Split) -> None:
    """Compare a split on a device with the one on the host."""
    far = split.to_device(device)
    assert far.images.dtype == np.uint8 and type(far.images) is not np.ndarray
    (indices,) = data.batches(len(split), len(split), 1)
    (far_indices,) = data.batches(len(split), len(split), 1, device=device)
    assert type(far_indices) is type(far.images)
    X, labels = split.batch(indices)
    for chosen in (indices, far_indices, indices.tolist()):
        far_X, far_labels = far.batch(chosen)
        assert type(far_X) is type(far.images)
        np.testing.assert_allclose(to_host(far_X), X, rtol=1e-6)
        np.testing.assert_array_equal(to_host(far_labels), labels)
    back = data.to_images(far_X, split.mean, split.std, split.images.shape[1:])
    np.testing.assert_array_equal(to_host(back), split.images[indices])
    assert far.batch([])[0].shape[2] == 0
    with pytest.raises(TypeError, match="different libraries meet"):
        split.batch(far_indices)
    np.testing.assert_array_equal(far.to_device("cpu").images, split.images)


def test_batches_on_a_second_device(split: data.Split, pretend_device: Any) -> None:
    check_on("pretend", split)


@pytest.mark.gpu
def test_batches_on_the_gpu(split: data.Split) -> None:
    check_on("cuda", split)


def test_dataset_moves_whole(mnist: Any, tmp_path: Path, pretend_device: Any) -> None:
    far = data.load("mnist", tmp_path).to_device("pretend")
    for split in (far.train, far.validation, far.test):
        assert isinstance(split.images, pretend_device.ndarray) and isinstance(
            split.labels, pretend_device.ndarray
        )


# ---------------------------------------------------------------------------------------------- real data


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_real_data(name: str, data_root: Path) -> None:
    if not (data_root / _files.SOURCES[name].folder).is_dir():
        pytest.skip(f"{name} is not under {data_root}")
    loaded = data.load(name, data_root)
    sizes = (40_000 if name == "cifar10" else 50_000, 10_000, 10_000)
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == sizes
    image_shape, tensor_shape = ((3, 32, 32), (32, 96)) if name == "cifar10" else ((28, 28), (28, 28))
    for split in (loaded.train, loaded.validation, loaded.test):
        assert split.images.shape[1:] == image_shape and split.images.dtype == np.uint8
        assert sorted(set(split.labels.tolist())) == list(range(10))
    X, labels = loaded.train.batch(np.arange(2000))
    assert X.shape == (*tensor_shape, 2000) and labels.shape == (2000,)
    if name != "cifar10":  # whose constants are not its statistics
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
