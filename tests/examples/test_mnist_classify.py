"""The main job, as a user runs it: its table, its files, its answers to wrong input and to Ctrl-C."""

from __future__ import annotations

import dataclasses
import operator
import sys

import mnist_classify as script
import numpy as np
import pytest
from _experiment import ALGEBRAS

from cutnn import algebra, data, nn, train
from tests.examples.runs import interrupt, interrupted, results, rows

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(script, "save", lambda draw, path: None)
        assert script.main(["--epochs", "1", "--out", str(out)]) == 0
    return out / "digits-better-1-epochs"


def test_digits_end_to_end(tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    assert script.main(["--epochs", "2", "--seeds", "1", "2", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    for name in script.REFERENCE:
        assert name in said
    assert "±" in said  # two seeds
    folder = out / "digits-better-2-epochs"
    assert len(rows(folder / "table.csv")) == 8
    assert all(50 < float(row["test"]) <= 100 for row in rows(folder / "table.csv"))
    for name in ("curves", "accuracy", "by_class", "features", "class_tubes"):
        assert (folder / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(list(folder.glob("*/history.csv"))) == 8


def test_accuracies_by_class_average_to_the_test_accuracy(uninterrupted):
    labels = data.load("digits").test.labels
    tables = rows(uninterrupted / "table.csv"), rows(uninterrupted / "by_class.csv")
    for overall, by_class in zip(*tables, strict=True):
        right = sum(float(by_class[str(c)]) * (labels == c).sum() for c in range(10))
        np.testing.assert_allclose(right / len(labels), float(overall["test"]), rtol=1e-5)


def test_sweep_trains_on_the_first_images_of_each_size(tmp_path, monkeypatch):
    monkeypatch.setitem(script.SWEEP, "digits", (100, 1_000))
    seen = []
    real = script.run_or_resume
    monkeypatch.setattr(
        script, "run_or_resume", lambda m, f, d, **k: seen.append(d.train.labels) or real(m, f, d, **k)
    )
    assert script.main(["--sweep", "--epochs", "1", "--out", str(tmp_path)]) == 0
    table = rows(tmp_path / "digits-better-1-epochs" / "sweep.csv")
    assert [row["images"] for row in table] == ["100", "1000"] * 4
    assert [row["network"] for row in table[::2]] == list(script.REFERENCE)
    labels = data.load("digits").train.labels
    assert sorted({len(x) for x in seen}) == [100, 1_000]
    assert all(np.array_equal(x, labels[: len(x)]) for x in seen)
    assert (tmp_path / "digits-better-1-epochs" / "sweep.png").exists()


def test_every_choice_of_m_is_a_row(tmp_path, no_pictures):
    options = ["--epochs", "1", "--out", str(tmp_path), "--algebra", *ALGEBRAS]
    assert script.main(options) == 0
    names = [row["network"] for row in rows(tmp_path / "digits-better-1-epochs" / "table.csv")]
    assert len(names) == len(set(names)) == 2 * len(ALGEBRAS) + 2
    assert {"t-linear + tubal head", "t-linear + tubal head, dft", "matrix, same width"} <= set(names)


def test_parameter_counts_are_the_papers():
    init, star = nn.initializers.authors, algebra.dct(28)
    counts = [nn.count_parameters(script.build(name, star, 10, init, 0)[0]) for name in script.REFERENCE]
    assert counts == [30_586, 30_856, 31_015, 623_290]


def test_same_size_matrix_network_is_nearest_in_size_for_digits():
    init, star = nn.initializers.authors, algebra.dct(8)
    tubal, same = (
        nn.count_parameters(script.build(n, star, 10, init, 0)[0]) for n in list(script.REFERENCE)[1:3]
    )
    assert abs(tubal - same) <= (8 * 8 + 1 + 10) / 2 + 1


def test_missing_data_is_one_line_and_a_status(tmp_path, capsys):
    assert script.main(["--data", "mnist", "--root", str(tmp_path), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path) in error and "download" in error and "Traceback" not in error


def test_unwritable_folder_is_said_before_training(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(script.train, "fit", lambda *a, **k: pytest.fail("trained"))
    assert script.main(["--out", str(tmp_path / "file" / "below")]) == 2
    assert "file" in capsys.readouterr().err


def test_unknown_device_is_said(tmp_path, capsys):
    assert script.main(["--device", "tpu", "--out", str(tmp_path)]) == 2
    assert "'tpu'" in capsys.readouterr().err


def test_the_environment_names_the_device(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CUTNN_DEVICE", "tpu")
    assert script.main(["--out", str(tmp_path)]) == 2
    assert "'tpu'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [["--epochs", "0"], ["--epochs", "x"], ["--seeds", "-1"], ["--data", "imagenet"], ["--preset", "best"]],
)
def test_wrong_arguments_are_argparse_errors(wrong):
    with pytest.raises(SystemExit) as info:
        script.main(wrong)
    assert info.value.code == 2


@pytest.mark.parametrize(
    "where",
    [
        ("nn.CrossEntropy", "with_prediction"),
        ("nn.TubalCrossEntropy", "with_prediction"),
        ("train", "evaluate"),
        ("Table", "write_csv"),
        ("plot", "curves"),
        ("data", "load"),
    ],
    ids=["first epoch", "second network", "evaluation", "reports", "pictures", "data"],
)
def test_ctrl_c_at_any_moment_is_no_traceback_and_the_same_command_ends_with_the_same_table(
    where, tmp_path, capsys, monkeypatch, uninterrupted
):
    target, name = where
    command = ["--epochs", "1", "--out", str(tmp_path)]
    with monkeypatch.context() as patched:
        patched.setattr(operator.attrgetter(target)(script), name, interrupt)
        assert script.main(command) == 130
    assert "the same command goes on from here" in capsys.readouterr().out
    monkeypatch.setattr(script, "save", lambda draw, path: None)
    assert script.main(command) == 0
    assert results(tmp_path / uninterrupted.name / "table.csv") == results(uninterrupted / "table.csv")


def test_a_real_ctrl_c_ends_the_run_with_a_word(tmp_path):
    out, first, status = interrupted(script.__file__, "--epochs", "10000", "--out", str(tmp_path))
    assert "digits: 1,197 training" in first
    assert status == 130 and "Traceback" not in out and "interrupted" in out


def test_a_finished_run_is_read_back_and_fresh_trains_anew(tmp_path, monkeypatch, no_pictures):
    steps = []
    real = script.optim.AdamW.step
    monkeypatch.setattr(script.optim.AdamW, "step", lambda *args: steps.append(1) or real(*args))
    command = ["--epochs", "1", "--out", str(tmp_path)]
    counts, tables = [], []
    for options in (command, command, [*command, "--fresh"]):
        steps.clear()
        assert script.main(options) == 0
        counts.append(len(steps))
        tables.append((tmp_path / "digits-better-1-epochs" / "by_class.csv").read_text())
    assert counts == [4 * 38, 0, 4 * 38]
    assert tables[0] == tables[1] == tables[2]


def test_without_matplotlib_there_is_a_table_and_no_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert script.main(["--epochs", "1", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.index("no pictures will be drawn") < out.index("t-linear")
    folder = tmp_path / "digits-better-1-epochs"
    assert (folder / "table.csv").exists() and not list(tmp_path.rglob("*.png"))


def test_a_network_that_diverges_at_once_leaves_the_others_their_table(tmp_path, monkeypatch, no_pictures):
    infinite = dataclasses.replace(script.PRESETS["better"], learning_rate=1e300)
    monkeypatch.setitem(script.PRESETS, "better", infinite)
    with pytest.warns(RuntimeWarning, match="training stopped"), np.errstate(all="ignore"):
        assert script.main(["--epochs", "1", "--out", str(tmp_path)]) == 0
    assert len(rows(tmp_path / "digits-better-1-epochs" / "table.csv")) == 4


def test_class_tubes_show_what_the_network_predicts(tmp_path, monkeypatch):
    """The deep preset has the likelihood form of the tubal loss, whose predictions may differ from the authors'."""
    calls = []
    monkeypatch.setattr(script.plot, "class_tubes", lambda *a, **k: calls.append(a))
    digits = data.load("digits")
    preset = dataclasses.replace(script.PRESETS["deep"], epochs=1)
    outcome = script.run("deep t-NN", algebra.dct(8), digits, preset, 42, tmp_path)
    script.class_tubes(outcome, digits)
    ((_, _, predicted, _, labels),) = calls
    X, truth = digits.test.batch(range(6))
    loss = nn.TubalCrossEntropy(outcome.loss.star, form="likelihood")
    np.testing.assert_array_equal(predicted, loss.predict(outcome.result.model(X)))
    np.testing.assert_array_equal(labels, truth)


@pytest.mark.data
def test_one_epoch_of_mnist(data_root, tmp_path):
    dataset = data.load("mnist", root=data_root)
    preset = dataclasses.replace(script.PRESETS["better"], epochs=1)
    star = algebra.dct(28)
    outcome = script.run("t-linear + dense head", star, dataset, preset, 42, tmp_path)
    assert outcome.parameters == 30_586
    assert outcome.accuracy[2] > 87  # 90 to 94 after one epoch, by seed
    _, loss = script.build("t-linear + dense head", star, 10, preset.init, 42)
    again = train.evaluate(outcome.result.model, loss, dataset.test)
    np.testing.assert_allclose(100 * again.accuracy, outcome.accuracy[2])
