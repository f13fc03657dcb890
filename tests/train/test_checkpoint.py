"""Checkpoint files: what comes back, what is kept, and what is recognised as damaged or foreign."""

import json
import os
import pickle
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cutnn import algebra, nn, optim, train
from cutnn.train import _storage
from tests.train.tiny import arrays, assert_same, made_net

DTYPES = ["float16", "float32", "float64", "complex64", "complex128", "int64", "uint8", "bool"]


def bits(array):
    return array.dtype, array.shape, array.tobytes()


def written(folder, epoch=1, step=0, **options):
    """A small checkpoint, and where it lies."""
    weights = {"w": np.arange(3.0) + epoch}
    return train.save_checkpoint(
        folder, weights, {"note": f"epoch {epoch}"}, epoch=epoch, step=step, **options
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------------------- what comes back


@given(
    st.lists(
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
        ),
        max_size=4,
    )
)
def test_arrays_come_back_bit_for_bit(tmp_path_factory, found):
    tree = {"a": tuple(found[:2]), "b": [{"c": array} for array in found[2:]]}
    path = train.save_checkpoint(tmp_path_factory.mktemp("run"), {"tree": tree}, epoch=0)
    again = train.load_checkpoint(path).tree("tree", tree)
    assert [bits(x) for x in again["a"]] == [bits(x) for x in tree["a"]]
    assert [bits(x["c"]) for x in again["b"]] == [bits(x["c"]) for x in tree["b"]]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_nan_infinity_and_the_sign_of_zero_come_back_bit_for_bit(tmp_path, dtype):
    real = np.array(
        [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, 1 / 3], np.empty(0, dtype).real.dtype
    )
    x = real if np.dtype(dtype).kind == "f" else np.stack(np.meshgrid(real, real), axis=-1).view(dtype)
    path = train.save_checkpoint(tmp_path, {"x": x}, {"y": [np.nan, -0.0, 0.1, np.float32(0.1)]}, epoch=0)
    found = train.load_checkpoint(path)
    assert bits(found.tree("x", x)) == bits(x)
    assert str(found.state["y"]) == str([np.nan, -0.0, 0.1, float(np.float32(0.1))])


@pytest.mark.parametrize("make", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_every_generator_of_numpy_goes_on(tmp_path, make):
    rng = np.random.Generator(make(0))
    rng.integers(9, size=3, dtype=np.uint32)  # half a draw is kept for later
    train.save_checkpoint(tmp_path, {}, {"random": rng.bit_generator.state}, epoch=0)
    other = np.random.Generator(make(1))
    other.bit_generator.state = train.latest_checkpoint(tmp_path).state["random"]
    np.testing.assert_array_equal(rng.permutation(99), other.permutation(99))


def test_a_model_lies_beside_the_matrix_of_its_algebra(tmp_path):
    model = nn.Sequential(
        nn.HamiltonianNet(algebra.dct(6), 4, depth=2, seed=0), nn.TLinear(algebra.haar(4), 2, 2)
    )
    optimizer = optim.Adam(model)
    path = train.save_checkpoint(tmp_path, {"model": model, "optimizer": optimizer.state()}, epoch=2, step=5)
    found = train.latest_checkpoint(tmp_path)
    assert (found.path, found.epoch, found.step) == (path, 2, 5)
    np.testing.assert_allclose(
        found.arrays["model.layers.0.star.matrix"], algebra.dct(6).transforms[0].matrix()
    )
    assert_same(
        found.tree("model", nn.Sequential(nn.HamiltonianNet(algebra.dct(6), 4, depth=2, seed=1), model[1])),
        model,
    )
    with pytest.raises(
        ValueError, match=r"model was saved with another transform than .*layers\.0\.star\.matrix"
    ):
        other = nn.HamiltonianNet(algebra.random_orthogonal(6, seed=0), 4, depth=2)
        found.tree("model", nn.Sequential(other, model[1]))
    with pytest.raises(ValueError, match="model is of another structure: it lacks .* and 7 more"):
        found.tree("model", nn.Sequential(nn.HamiltonianNet(algebra.dct(6), 4, depth=8), model[1]))
    with pytest.raises(ValueError, match="trees is of another structure: it lacks value"):
        found.tree("trees", np.ones(1))


def test_what_cannot_be_kept_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the same path"):
        train.save_checkpoint(tmp_path, {"x": {"a.b": np.ones(1), "a": {"b": np.ones(1)}}}, epoch=0)
    with pytest.raises(TypeError, match="float128|longdouble"):
        train.save_checkpoint(tmp_path, {"x": np.ones(1, np.longdouble)}, epoch=0)
    with pytest.raises(TypeError, match="no function"):
        train.save_checkpoint(tmp_path, {}, {"schedule": arrays}, epoch=0)
    with pytest.raises(ValueError, match="keep must be at least 1"):
        written(tmp_path, keep=0)
    assert names(tmp_path) == []


@pytest.mark.parametrize("dtype", [">f4", ">c16", ">i2"])
def test_arrays_of_the_other_byte_order_come_back_by_value(tmp_path, dtype):
    x = np.arange(3).astype(dtype)
    found = train.load_checkpoint(train.save_checkpoint(tmp_path, {"x": x}, epoch=0))
    np.testing.assert_array_equal(found.tree("x", x), x)


def test_the_library_of_the_format_reads_what_is_written(tmp_path):
    tree = {
        "a": np.arange(3, dtype=np.uint8),
        "b": np.ones((2, 0)),
        "ü": np.array(True),
        "c": np.full(5, 1 / 3),
    }
    path = train.save_checkpoint(tmp_path, {"x": tree}, {"note": 'a "checksum" of §3'}, epoch=0)
    again = safetensors.numpy.load_file(path)
    assert {name: bits(a) for name, a in again.items()} == {f"x.{name}": bits(a) for name, a in tree.items()}
    with safetensors.safe_open(path, "numpy") as file:
        assert json.loads(file.metadata()["state"]) == {"note": 'a "checksum" of §3'}
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert length % 8 == 0 and all(header[f"x.{name}"]["data_offsets"][0] % 8 == 0 for name in "bc")


def test_arrays_are_written_without_a_copy_of_them(tmp_path):
    x = np.zeros(2**20)
    written(tmp_path)  # what is imported
    tracemalloc.start()
    train.save_checkpoint(tmp_path, {"x": x}, epoch=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 8


# ---------------------------------------------------------------------------------------------- what is kept


def test_the_last_files_are_kept(tmp_path):
    (tmp_path / "checkpoint-mine.safetensors").write_text("not a checkpoint's name")
    for epoch, step in ((0, 7), (0, 12), (1, 0), (999_999, 3), (1_000_000, 1)):
        path = written(tmp_path, epoch, step, keep=2)
        assert train.latest_checkpoint(tmp_path).path == path
    assert names(tmp_path) == [
        "checkpoint-1000000-000001.safetensors",
        "checkpoint-999999-000003.safetensors",
        "checkpoint-mine.safetensors",
    ]


def test_a_newer_file_that_was_passed_over_does_not_push_out_the_one_just_written(tmp_path):
    written(tmp_path, 5).write_bytes(b"damaged")
    path = written(tmp_path, 3, keep=1)
    assert path.exists() and (tmp_path / "checkpoint-000005-000000.safetensors").exists()


@pytest.mark.parametrize("where", ["replace", "fsync"])
def test_a_write_that_is_cut_short_leaves_what_was_there(tmp_path, monkeypatch, where):
    class Killed(BaseException):
        pass

    def cut(*args, **kwargs):
        raise Killed

    path = written(tmp_path, 1)
    before = path.read_bytes()
    monkeypatch.setattr(os, where, cut)
    for epoch in (1, 2):
        with pytest.raises(Killed):
            train.save_checkpoint(tmp_path, {"w": np.zeros(9)}, epoch=epoch)
    assert names(tmp_path) == [path.name] and path.read_bytes() == before


def test_the_file_is_on_the_disk_before_its_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace

    def noted_fsync(number):
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{number}") else "file")
        fsync(number)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("rename"), replace(*paths)))
    written(tmp_path)
    assert calls == ["file", "rename", "folder"]


# ------------------------------------------------------------------------------------- damaged, or not our own


def passed_over(folder, reason):
    """The checkpoint found when that of epoch 2 is not fit, and one warning that names it and says why."""
    with pytest.warns(RuntimeWarning, match=reason) as warned:
        found = train.latest_checkpoint(folder)
    assert len(warned) == 1 and "checkpoint-000002-000000.safetensors" in str(warned[0].message)
    return found


def test_a_flipped_bit_is_found_in_every_byte(tmp_path):
    path = written(tmp_path)
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        with pytest.raises(ValueError, match="truncated|damaged"):
            train.load_checkpoint(path)
    path.write_bytes(good)
    assert train.load_checkpoint(path).state == {"note": "epoch 1"}


@given(st.data())
def test_flipped_bits_of_a_run_are_found(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("run")
    model = made_net()
    path = train.save_checkpoint(folder, {"model": model, "more": optim.Adam(model).state()}, epoch=1)
    damaged = bytearray(path.read_bytes())
    places = data.draw(st.sets(st.integers(0, 8 * len(damaged) - 1), min_size=1, max_size=5))
    for place in places:
        damaged[place // 8] ^= 1 << place % 8
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="truncated|damaged|not a checkpoint"):
        train.load_checkpoint(path)


def test_a_file_cut_short_or_grown_is_found_at_any_length(tmp_path):
    path = written(tmp_path, 2)
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(ValueError, match="truncated"):
            train.load_checkpoint(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(ValueError, match="truncated"):
        train.load_checkpoint(path)


class Bomb:
    """What would write a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def renamed_model(path):
    train.save_model(path, made_net())


def foreign(path, **metadata):
    path.write_bytes(safetensors.numpy.save({"w": np.ones(3)}, metadata))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b""), "truncated"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "checksum"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), "truncated"),
        (lambda path: path.write_bytes(b"\xff" * 100), "truncated, or not a file that cutnn wrote"),
        (lambda path: path.write_text("a letter, not a checkpoint"), "not a file that cutnn wrote"),
        (foreign, "not a checkpoint: its format is 'none'"),
        (lambda path: foreign(path, format="cutnn checkpoint 2"), "its format is 'cutnn checkpoint 2'"),
        (lambda path: foreign(path, format="cutnn checkpoint 1"), "its checksum is missing"),
        (lambda path: foreign(path, checksum="of another kind"), "the checksum is not"),
        (renamed_model, "its format is 'cutnn 1'"),
        (lambda path: path.unlink() or path.mkdir(), "Is a directory|Permission denied"),
        (lambda path: path.unlink() or path.symlink_to(path.parent / "nowhere"), "No such file"),
    ],
)
def test_what_is_no_checkpoint_is_named_and_passed_over(tmp_path, damage, reason):
    written(tmp_path, 1)
    damage(written(tmp_path, 2))
    found = passed_over(tmp_path, reason)
    assert found.epoch == 1 and found.state == {"note": "epoch 1"}


def test_a_pickle_is_not_executed(tmp_path):
    written(tmp_path, 1)
    trap = tmp_path / "sprung"
    pickled = pickle.dumps(Bomb(str(trap)))
    written(tmp_path, 2).write_bytes(pickled)
    assert passed_over(tmp_path, "not a file that cutnn wrote").epoch == 1
    assert not trap.exists()
    pickle.loads(pickled).close()
    assert trap.exists()  # it would have


def test_a_file_that_may_not_be_read_is_passed_over(tmp_path, monkeypatch):
    written(tmp_path, 1)
    hidden, read = written(tmp_path, 2), type(tmp_path).read_bytes

    def refused(path):
        if path == hidden:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(type(tmp_path), "read_bytes", refused)
    assert passed_over(tmp_path, "Permission denied").epoch == 1


def test_without_a_good_file_there_is_none(tmp_path):
    assert train.latest_checkpoint(tmp_path / "missing") is None
    assert train.latest_checkpoint(tmp_path) is None
    written(tmp_path, 2).write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="passed over"):
        assert train.latest_checkpoint(tmp_path) is None
    with pytest.raises(FileNotFoundError):
        train.load_checkpoint(tmp_path / "none")


def test_the_file_is_what_safetensors_reads(tmp_path):
    path = written(tmp_path, 3, 8)
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
        np.testing.assert_array_equal(file.get_tensor("w.value"), np.arange(3.0) + 3)
    assert json.loads(metadata["state"]) == {"note": "epoch 3"}
    assert (metadata["epoch"], metadata["step"]) == ("3", "8")


def test_temporary_files_are_told_from_others(tmp_path):
    for name in (".run.safetensors.0123456789abcdef", ".gitignore", "run.safetensors", ".x.0123456789abcde"):
        (tmp_path / name).touch()
    assert [path.name for path in _storage.leftovers(tmp_path)] == [".run.safetensors.0123456789abcdef"]
