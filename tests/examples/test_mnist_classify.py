"""The main job, as a user runs it: its table, its files, its answers to wrong input."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import operator
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cutnn import data, nn, train

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "mnist_classify.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("mnist_classify", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["mnist_classify"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["mnist_classify"]


def test_digits_end_to_end(script, tmp_path, capsys):
    assert script.main(["--epochs", "2", "--seeds", "1", "2", "--out", str(tmp_path / "new" / "folder")]) == 0
    out = capsys.readouterr().out
    for name in script.REFERENCE:
        assert name in out
    assert "±" in out  # two seeds
    folder = tmp_path / "new" / "folder"
    rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    assert len(rows) == 8 and all(50 < float(r["test"]) <= 100 for r in rows)
    for name in ("curves.png", "accuracy.png", "class_tubes.png"):
        assert (folder / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(list(folder.glob("history-*.csv"))) == 8


def test_parameter_counts_are_the_papers(script):
    init = nn.initializers.authors
    counts = [nn.count_parameters(script.build(name, 28, 10, init, 0)[0]) for name in script.REFERENCE]
    assert counts == [30_586, 30_856, 31_015, 623_290]


def test_same_size_matrix_network_is_nearest_in_size_for_digits(script):
    init = nn.initializers.authors
    tubal, same = (
        nn.count_parameters(script.build(n, 8, 10, init, 0)[0]) for n in list(script.REFERENCE)[1:3]
    )
    assert abs(tubal - same) <= (8 * 8 + 1 + 10) / 2 + 1


def test_missing_data_is_one_line_and_a_status(script, tmp_path, capsys):
    assert script.main(["--data", "mnist", "--root", str(tmp_path), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path) in error and "download" in error and "Traceback" not in error


def test_unwritable_folder_is_said_before_training(script, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(script.train, "fit", lambda *a, **k: pytest.fail("trained"))
    assert script.main(["--out", str(tmp_path / "file" / "below")]) == 2
    assert "file" in capsys.readouterr().err


def test_unknown_device_is_said(script, tmp_path, capsys):
    assert script.main(["--device", "tpu", "--out", str(tmp_path)]) == 2
    assert "'tpu'" in capsys.readouterr().err


def test_the_environment_names_the_device(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CUTNN_DEVICE", "tpu")
    assert script.main(["--out", str(tmp_path)]) == 2
    assert "'tpu'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [["--epochs", "0"], ["--epochs", "x"], ["--seeds", "-1"], ["--data", "imagenet"], ["--preset", "best"]],
)
def test_wrong_arguments_are_argparse_errors(script, wrong):
    with pytest.raises(SystemExit) as info:
        script.main(wrong)
    assert info.value.code == 2


def test_interrupted_run_keeps_what_it_reached(script, tmp_path, capsys, monkeypatch):
    real_fit, calls = script.train.fit, []

    def fit(*args, **options):
        def stop(result):
            if len(calls) == 2:
                raise KeyboardInterrupt

        calls.append(1)
        return real_fit(*args, callbacks=[stop], **options)

    monkeypatch.setattr(script.train, "fit", fit)
    assert script.main(["--epochs", "3", "--out", str(tmp_path)]) == 130
    assert len(calls) == 2
    assert "interrupted" in capsys.readouterr().out
    assert len(list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))) == 2


def interrupt(*args, **options):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("where", "said", "files"),
    [
        (("nn.TubalCrossEntropy", "with_prediction"), "what follows is what was reached", 4),
        (("nn.CrossEntropy", "with_prediction"), "nothing was reached yet", 0),
        (("train", "evaluate"), "nothing was reached yet", 1),
        (("plot", "class_tubes"), "not all files", 5),
    ],
    ids=["second network", "first epoch", "evaluation", "pictures"],
)
def test_ctrl_c_at_any_moment_is_no_traceback(where, said, files, script, tmp_path, capsys, monkeypatch):
    target, name = where
    monkeypatch.setattr(operator.attrgetter(target)(script), name, interrupt)
    assert script.main(["--epochs", "1", "--out", str(tmp_path)]) == 130
    assert said in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == files


def test_a_real_ctrl_c_ends_the_run_with_a_table(tmp_path):
    command = [sys.executable, "-u", str(SCRIPT), "--epochs", "10000", "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        first = process.stdout.readline()
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        out = process.communicate(timeout=60)[0]
    assert "digits: 1,197 training" in first
    assert process.returncode == 130 and "Traceback" not in out and "interrupted" in out
    assert "t-linear + dense head" in out and (tmp_path / "table.csv").exists()


def test_without_matplotlib_there_is_a_table_and_no_picture(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert script.main(["--epochs", "1", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.index("no pictures will be drawn") < out.index("t-linear")
    assert (tmp_path / "table.csv").exists() and not list(tmp_path.glob("*.png"))


def test_a_network_that_diverges_at_once_leaves_the_others_their_table(script, tmp_path, monkeypatch):
    infinite = dataclasses.replace(script.PRESETS["better"], learning_rate=1e300)
    monkeypatch.setitem(script.PRESETS, "better", infinite)
    with pytest.warns(RuntimeWarning, match="training stopped"), np.errstate(all="ignore"):
        assert script.main(["--epochs", "1", "--out", str(tmp_path)]) == 0
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert len(rows) == 4


def test_class_tubes_show_what_the_network_predicts(script, tmp_path, monkeypatch):
    """The deep preset has the likelihood form of the tubal loss, whose predictions may differ from the authors'."""
    calls = []
    monkeypatch.setattr(script.plot, "class_tubes", lambda *a, **k: calls.append(a) or script.plot.layout())
    digits = data.load("digits")
    outcome = script.run("deep t-NN", digits, script.PRESETS["deep"], epochs=1, seed=42)
    script.pictures([outcome], digits, tmp_path)
    ((_, _, predicted, _, labels),) = calls
    X, truth = digits.test.batch(range(6))
    loss = nn.TubalCrossEntropy(outcome.loss.star, form="likelihood")
    np.testing.assert_array_equal(predicted, loss.predict(outcome.result.model(X)))
    np.testing.assert_array_equal(labels, truth)


@pytest.mark.data
def test_one_epoch_of_mnist(script, data_root):
    dataset = data.load("mnist", root=data_root)
    preset = script.PRESETS["better"]
    outcome = script.run("t-linear + dense head", dataset, preset, epochs=1, seed=42)
    assert outcome.parameters == 30_586
    assert outcome.accuracy[2] > 87  # 90 to 94 after one epoch, by seed
    _, loss = script.build("t-linear + dense head", 28, 10, preset.init, 42)
    again = train.evaluate(outcome.result.model, loss, dataset.test)
    np.testing.assert_allclose(100 * again.accuracy, outcome.accuracy[2])
