"""Data sets: splits, batches and the layout of tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cutnn import data
from cutnn.device import to_host

IMAGES = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=4, min_side=1, max_side=6))

# ---------------------------------------------------------------------------------------------- layout


@st.composite
def images_and_scales(draw: st.DrawFn) -> tuple[np.ndarray, Any, Any]:
    """Images, a mean and a standard deviation: one number, or one a channel of colour images."""
    images = draw(IMAGES)
    mean, std = st.floats(0, 1), st.floats(0.1, 2)
    if images.ndim == 4:
        size = images.shape[1]
        mean |= st.lists(mean, min_size=size, max_size=size).map(tuple)
        std |= st.lists(std, min_size=size, max_size=size)
    return images, draw(mean), draw(std)


@given(images_and_scales())
def test_tensor_layout_against_loops(given: tuple[np.ndarray, Any, Any]) -> None:
    images, mean, std = given
    *lead, height, width = images.shape
    channels = images.reshape(lead[0], -1, height, width)
    means, stds = np.broadcast_to(mean, channels.shape[1]), np.broadcast_to(std, channels.shape[1])
    expected = np.empty((width, channels.shape[1] * height, lead[0]))
    for s, c, i, k in np.ndindex(channels.shape):
        expected[k, c * height + i, s] = (channels[s, c, i, k] / 255 - means[c]) / stds[c]
    T = data.to_tensor(images, mean, std, np.float64)
    np.testing.assert_allclose(T, expected, rtol=1e-12, atol=1e-12)
    single = data.to_tensor(images, mean, std)
    assert single.dtype == np.float32 and single.flags.c_contiguous
    np.testing.assert_allclose(single, expected, rtol=2e-6, atol=2e-6)


@given(images_and_scales())
def test_images_come_back_from_their_tensor(given: tuple[np.ndarray, Any, Any]) -> None:
    images, mean, std = given
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


def test_floats_are_taken_as_they_are() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 4), np.uint8)
    floats, as_bytes = data.to_tensor(images / 255, 0.3, 0.7), data.to_tensor(images, 0.3, 0.7)
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, as_bytes, rtol=1e-5, atol=1e-6)


def test_tensor_of_what_are_no_images_is_refused() -> None:
    images = np.zeros((2, 4, 4), np.uint8)
    with pytest.raises(TypeError, match="uint8 from 0 to 255, got int64"):
        data.to_tensor(images.astype(np.int64))
    with pytest.raises(ValueError, match=r"got \(4, 4\); one image alone is images\[None\]"):
        data.to_tensor(images[0])
    with pytest.raises(TypeError, match="floating-point dtype, got int32"):
        data.to_tensor(images, dtype=np.int32)
    for std in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="above zero"):
            data.to_tensor(images, std=std)


def test_scales_of_other_channels_are_refused() -> None:
    colour, grey, labels = np.zeros((2, 3, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8), np.arange(2)
    with pytest.raises(ValueError, match=r"one for each of 3: mean and std are \(0\.1, 0\.2\).*\(3, 4, 4\)"):
        data.to_tensor(colour, mean=(0.1, 0.2))
    with pytest.raises(ValueError, match=r"one for each of the channels.*\(4, 4\)"):
        data.to_tensor(grey, std=(0.1, 0.2, 0.3))
    with pytest.raises(ValueError, match=r"above zero, got std=\(1, 0, 1\)"):
        data.Split(colour, labels, std=(1, 0, 1))
    with pytest.raises(ValueError, match="one for each of 3"):  # at once, not at the first batch
        data.Split(colour, labels, mean=(0.1, 0.2))
    with pytest.raises(ValueError, match="one for each of 3"):
        data.to_images(np.zeros((4, 12, 2)), std=(1.0, 1.0))


# ---------------------------------------------------------------------------------------------- batches


@pytest.fixture(
    params=[
        ((10, 5, 4), 0.3, 0.7),
        ((10, 3, 5, 4), 0.3, 0.7),
        ((10, 3, 5, 4), (0.3, 0.5, 0.1), (0.7, 1.0, 0.2)),
    ],
    ids=["grey", "colour", "a scale a channel"],
)
def split(request: pytest.FixtureRequest) -> data.Split:
    rng = np.random.default_rng(2)
    shape, mean, std = request.param
    return data.Split(rng.integers(0, 256, shape, np.uint8), rng.integers(0, 10, 10), mean, std)


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


def test_dataset_moves_whole(pretend_device: Any) -> None:
    splits = [data.Split(np.zeros((n, 4, 5), np.uint8), np.arange(n)) for n in (3, 2, 1)]
    far = data.Dataset("made", *splits, 0.0, 1.0, ("one",)).to_device("pretend")
    for split, n in zip((far.train, far.validation, far.test), (3, 2, 1), strict=True):
        assert len(split) == n
        for array in (split.images, split.labels):
            assert isinstance(array, pretend_device.ndarray)
