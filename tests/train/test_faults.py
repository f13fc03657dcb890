"""Training that breaks off, is interrupted, or cannot begin."""

import csv
import io
import types

import numpy as np
import pytest

from cutnn import data, nn, optim, train
from cutnn.train import _folder
from tests.train.tiny import STAR, arrays, assert_same, made_data, made_net, made_set, run

# ---------------------------------------------------------------------------------------------- what breaks


def test_a_loss_that_is_not_finite_stops_training_and_keeps_the_best_model():
    model, kept = made_net(), []

    def ruin(result):
        if len(result.history) == 2:
            kept.extend(arrays(result.model))
            model[1].bias[...] = np.nan

    with pytest.warns(RuntimeWarning, match=r"nan at step 1 of epoch 3 \(step 17 of all\)"):
        result = run(model, epochs=5, callbacks=[ruin])
    assert len(result.history) == 2 and result.best_epoch in (1, 2)
    assert f"keeps the model of epoch {result.best_epoch}" in result.stopped
    for mine, then in zip(arrays(result.model), kept, strict=True):
        np.testing.assert_array_equal(mine, then)


def test_a_loss_that_is_not_finite_at_once_keeps_the_start():
    model = made_net()
    model[1].bias[0, 0] = np.inf
    before = arrays(model)
    with np.errstate(invalid="ignore"), pytest.warns(RuntimeWarning, match="step 1 of epoch 1"):
        result = run(model)
    assert len(result.history) == 0 and result.best_epoch == 0 and "before training" in result.stopped
    for mine, then, now in zip(arrays(result.model), before, arrays(model), strict=True):
        np.testing.assert_array_equal(mine, then)
        np.testing.assert_array_equal(now, then)  # the bad step was not made


def test_a_validation_loss_that_is_not_finite_stops_training(tmp_path):
    class Broken(nn.TubalCrossEntropy):
        def with_prediction(self, Y, labels):
            value, classes = super().with_prediction(Y, labels)
            return value * (np.nan if len(labels) == 60 else 1.0), classes

    with pytest.warns(RuntimeWarning, match="the validation loss is nan after epoch 1"):
        result = run(loss=Broken(STAR), checkpoint=tmp_path)
    assert len(result.history) == 1 and result.best_epoch == 0
    with open(tmp_path / "history.csv") as file:
        assert [row["validation_loss"] for row in csv.DictReader(file)] == ["nan"]


def test_weights_ruined_by_the_last_step_of_an_epoch_are_not_the_best():
    class Ruinous(optim.SGD):
        def step(self, grads):
            super().step(grads)
            if self.steps == 16:  # the last of the second epoch, which no loss sees without validation
                self.model[1].bias[...] = np.inf

    model, kept = made_net(), []
    optimizer = Ruinous(model, lr=0.5)
    with pytest.warns(RuntimeWarning, match="weights are not finite after epoch 2"):
        result = run(
            model,
            dataset=made_set(validation=None),
            optimizer=optimizer,
            callbacks=[lambda r: kept.extend(arrays(r.model))],
        )
    assert result.best_epoch == 1 and "keeps the model of epoch 1" in result.stopped
    for mine, then in zip(arrays(result.model), kept, strict=True):
        np.testing.assert_array_equal(mine, then)


def test_ctrl_c_keeps_history_and_best_model(tmp_path):
    calls = []

    class Interrupted(nn.TubalCrossEntropy):
        def with_prediction(self, Y, labels):
            calls.append(len(labels))
            if len(calls) == 21:  # in the third epoch of 8 training batches and one of validation
                raise KeyboardInterrupt
            return super().with_prediction(Y, labels)

    result = run(loss=Interrupted(STAR), epochs=9, checkpoint=tmp_path)
    assert result.interrupted and result.stopped == "interrupted in epoch 3"
    assert len(result.history) == 2 and result.best_epoch >= 1
    assert_same(result.model, train.load_model(tmp_path / "model.safetensors", made_net()))
    with open(tmp_path / "history.csv") as file:
        assert len(list(csv.DictReader(file))) == 2


def test_ctrl_c_while_the_best_model_is_written_keeps_the_history(tmp_path, monkeypatch):
    calls, save = [], _folder.save_model

    def interrupted(path, model):
        calls.append(path)
        if len(calls) == 2:  # the first was before training
            raise KeyboardInterrupt
        save(path, model)

    monkeypatch.setattr(_folder, "save_model", interrupted)
    result = run(epochs=3, checkpoint=tmp_path)
    assert result.interrupted and len(result.history) == result.best_epoch == 1
    with open(tmp_path / "history.csv") as file:
        assert len(list(csv.DictReader(file))) == 1


def test_the_progress_bar_is_drawn_on_a_terminal_only(monkeypatch):
    pytest.importorskip("rich")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", stream)
        run(epochs=2)
        assert ("epoch 2/2" in stream.getvalue() and ", validation" in stream.getvalue()) == drawn
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    run(epochs=1, progress=False)
    assert terminal.getvalue() == ""


# -------------------------------------------------------------------------------------------------- bad input


def bad_labels(label):
    split = made_data()
    labels = split.labels.copy()
    labels[-1] = label
    return data.Split(split.images, labels, split.mean, split.std)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"dataset": made_set(data.Split(np.zeros((9, 4, 7), np.uint8), np.arange(9)))},
            ValueError,
            r"dct\(6\)",
        ),
        (
            {"dataset": made_set(bad_labels(3))},
            ValueError,
            r"labels lie in 0\.\.3, and the model has 3 classes",
        ),
        ({"dataset": made_set(bad_labels(-1))}, ValueError, r"labels lie in -1\.\.2"),
        ({"dataset": made_set(validation=bad_labels(3))}, ValueError, r"labels lie in 0\.\.3"),
        (
            {"dataset": made_set(validation=made_data(0))},
            ValueError,
            "the validation split of the data is empty",
        ),
        ({"dataset": made_set(made_data(0))}, ValueError, "the train split of the data is empty"),
        ({"dataset": types.SimpleNamespace(train=None, validation=None)}, ValueError, "no train split"),
        ({"epochs": 0}, ValueError, "at least 1"),
        ({"batch_size": 0}, ValueError, "at least 1"),
        ({"shuffle": "often"}, ValueError, "'often'"),
        ({"optimizer": optim.SGD(made_net(), lr=0.1)}, ValueError, "another model"),
        ({"loss": nn.CrossEntropy()}, ValueError, "Unfold"),
    ],
)
def test_what_does_not_fit_is_said_before_training(options, error, message):
    model = made_net()
    before = arrays(model)
    with pytest.raises(error, match=message):
        run(model, **options)
    for now, then in zip(arrays(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_note_says_which_data_did_not_fit():
    with pytest.raises(ValueError) as caught:
        run(dataset=made_set(validation=data.Split(np.zeros((9, 4, 7), np.uint8), np.arange(9) % 3)))
    assert any("one image of the validation data" in note for note in caught.value.__notes__)


def test_an_empty_split_cannot_be_evaluated():
    with pytest.raises(ValueError, match="empty"):
        train.evaluate(made_net(), nn.TubalCrossEntropy(STAR), made_data(0))
