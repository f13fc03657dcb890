"""The files of a run: checkpoints, models, history."""

import csv
import os

import numpy as np
import pytest

import cutnn as ct
from cutnn import algebra, nn, optim, train
from cutnn.train import _storage
from tests.train.tiny import arrays, assert_same, made_net, run

# ------------------------------------------------------------------------------------------------------ files


def test_a_checkpoint_holds_history_and_best_model(tmp_path):
    result = run(checkpoint=tmp_path / "new" / "run")
    folder = tmp_path / "new" / "run"
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"checkpoint-00000{epoch}-000000.safetensors" for epoch in (1, 2, 3)),
        "history.csv",
        "model.safetensors",
    ]
    assert_same(result.model, train.load_model(folder / "model.safetensors", made_net()))
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["validation_loss"]) for row in rows] == result.history["validation_loss"]
    assert list(rows[0]) == result.history.columns


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: made_net(np.float64),
        lambda seed: nn.Sequential(
            nn.TLinear(algebra.fft(3), 2, 4, dtype=np.complex64, seed=seed),
            ct.tanh,
            nn.Unfold(),
            nn.Dense(12, 2),
        ),
        lambda seed: nn.TLinear(algebra.product(algebra.dct(2), algebra.fft(3)), 2, 2, bias=False, seed=seed),
        lambda seed: nn.Dense(3, 2, seed=seed),
    ],
)
def test_models_come_back_from_their_files(tmp_path, make):
    model = make(0)
    path = tmp_path / "model.safetensors"
    train.save_model(path, model)
    again = train.load_model(path, make(1))
    assert_same(again, model)
    assert [a.dtype for a in arrays(again)] == [a.dtype for a in arrays(model)]
    optim.SGD(again, lr=0.1)  # its arrays can be updated in place


def test_a_file_of_another_model_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    train.save_model(path, nn.TLinear(algebra.dct(6), 3, 2))
    with pytest.raises(ValueError, match=r"another transform than the model's star\.matrix"):
        train.load_model(path, nn.TLinear(algebra.random_orthogonal(6, seed=0), 3, 2))
    with pytest.raises(
        ValueError, match=r"weight is float32 of shape \(6, 2, 3\), the model's float32 of shape"
    ):
        train.load_model(path, nn.TLinear(algebra.dct(6), 4, 2))
    with pytest.raises(ValueError, match="another structure: it also has bias$"):
        train.load_model(path, nn.TLinear(algebra.dct(6), 3, 2, bias=False))
    with pytest.raises(FileNotFoundError):
        train.load_model(tmp_path / "none", made_net())


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), _storage.atomic(path) as temporary:
        with open(temporary, "w") as file:
            file.write("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    model = made_net()
    before = arrays(model)
    with pytest.raises(OSError, match=r"cannot write to .*file.*give checkpoint= a folder"):
        run(model, checkpoint=tmp_path / "file" / "run")
    for now, then in zip(arrays(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_disk_that_fails_later_costs_a_warning(tmp_path, monkeypatch):
    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(train.History, "to_csv", full)
    with pytest.warns(RuntimeWarning, match="No space left on device; the training goes on"):
        result = run(checkpoint=tmp_path)
    assert len(result.history) == 3


def test_history_rows_have_the_same_columns():
    history = train.History()
    history.append(epoch=1, train_loss=2.0)
    with pytest.raises(ValueError, match="the columns are epoch, train_loss"):
        history.append(epoch=2)
    with pytest.raises(KeyError, match="no column 'loss'; it has epoch, train_loss"):
        history["loss"]
    assert history[0] == {"epoch": 1, "train_loss": 2.0} and len(history) == 1
    assert list(history) == [history[0]] and "train_loss 2" in repr(history)


def test_files_can_be_read_by_whom_the_umask_lets(tmp_path):
    mask = os.umask(0o022)
    try:
        run(epochs=1, checkpoint=tmp_path)
    finally:
        os.umask(mask)
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o644] * 3


def test_a_full_disk_is_an_os_error_and_leaves_the_old_file(tmp_path):
    resource = pytest.importorskip("resource")
    path, model = tmp_path / "model.safetensors", made_net()
    train.save_model(path, model)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError):
            train.save_model(path, model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def flipped(data):
    """The file with one bit of its last weight changed."""
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    "change", [lambda b: b[:-10], lambda b: b[:5], flipped, lambda b: b"not a model, but text"]
)
def test_a_damaged_model_file_is_named(tmp_path, change):
    path = tmp_path / "model.safetensors"
    train.save_model(path, made_net())
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(
        ValueError, match=r"model\.safetensors cannot be read: truncated.*; save the model again"
    ):
        train.load_model(path, made_net())
