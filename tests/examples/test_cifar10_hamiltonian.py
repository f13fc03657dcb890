"""The CIFAR-10 experiment on small made images: its table, its files, its sizes, its answers to wrong input."""

from __future__ import annotations

import dataclasses

import cifar10_hamiltonian as script
import numpy as np
import pytest

from cutnn import algebra, data, nn, train
from tests.examples.runs import results, rows

pytest.importorskip("matplotlib")

PAPER = script.PRESETS["paper"]  # as it is, before the batches are made smaller


def made(name="cifar10", classes=10, side=8, sizes=(60, 20, 20)):
    """Colour images of side × side pixels, each class with a colour of its own, and some noise."""
    rng = np.random.default_rng(0)
    colours = rng.integers(40, 216, (classes, 3, 1, 1))
    splits = []
    for size in sizes:
        labels = np.arange(size) % classes
        images = colours[labels] + rng.normal(0, 20, (size, 3, side, side))
        splits.append(data.Split(images.clip(0, 255).astype(np.uint8), labels, 0.5, 0.5))
    return data.Dataset(name, *splits, 0.5, 0.5, tuple(map(str, range(classes))))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The script finds the made images, and twenty of them make a batch."""
    monkeypatch.setattr(script, "load", lambda args: made())
    for name, preset in script.PRESETS.items():
        monkeypatch.setitem(script.PRESETS, name, dataclasses.replace(preset, batch_size=20))


def test_all_networks_end_to_end(tmp_path, capsys):
    arguments = ["--preset", "paper", "--epochs", "3", "--matrix-epochs", "1", "--seeds", "1", "2"]
    assert (
        script.main([*arguments, "--networks", "dense-4", "tubal-4", "matrix-4", "--out", str(tmp_path)]) == 0
    )
    said = capsys.readouterr().out
    assert "±" in said and "48.2 after 8 epochs" in said and "peak memory" in said
    folder = tmp_path / "cifar10-paper-3-epochs"
    table = rows(folder / "table.csv")
    assert [row["network"] for row in table[:3]] == [
        "t-NN, depth 4, dense head", "t-NN, depth 4, tubal head", "matrix, depth 4"
    ]  # fmt: skip
    assert len(table) == 6 and [row["epochs"] for row in table[:3]] == ["3", "3", "1"]
    for name in ("curves", "accuracy", "seconds", "stability-t-NN", "stability-matrix"):
        assert (folder / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_colours_are_learned(tmp_path, no_pictures):
    assert script.main(["--epochs", "30", "--networks", "dense-4", "tubal-4", "--out", str(tmp_path)]) == 0
    for row in rows(tmp_path / "cifar10-better-30-epochs" / "table.csv"):
        assert float(row["test"]) >= 40  # of ten classes; the dense head 90, the tubal one 50


def test_settings_of_the_paper():
    preset = PAPER
    assert (preset.epochs, preset.learning_rate, preset.batch_size, preset.shuffle) == (
        500,
        1e-3,
        32,
        "fixed",
    )
    assert preset.init is nn.initializers.authors and preset.alpha == 0.01 and not preset.cosine
    model, _ = script.build("dense-4", algebra.dct(8), 10, preset.init, seed=0, rows=24)
    assert script.body_of(model).h == 0.25 and len(script.body_of(model)) == 4


def test_reversible_networks_learn_the_same(tmp_path, no_pictures):
    arguments = ["--epochs", "2", "--networks", "dense-4", "tubal-8", "--out", str(tmp_path)]
    folder = tmp_path / "cifar10-better-2-epochs"
    assert script.main(arguments) == 0
    stored = rows(folder / "table.csv")
    assert script.main([*arguments, "--reversible"]) == 0
    reversible = rows(folder / "table.csv")
    assert [row["network"] for row in reversible] == [f"{row['network']}, reversible" for row in stored]
    for one, other in zip(stored, reversible, strict=True):
        assert one["parameters"] == other["parameters"]
        assert float(one["train"]) == pytest.approx(float(other["train"]), abs=2)


def test_refined_networks_end_at_the_depth_that_was_asked_for(tmp_path, no_pictures):
    arguments = ["--epochs", "3", "--networks", "dense-8", "--refine", "--out", str(tmp_path)]
    assert script.main(arguments) == 0
    (row,) = rows(tmp_path / "cifar10-better-3-epochs" / "table.csv")
    whole, _ = script.build("dense-8", algebra.dct(8), 10, nn.initializers.authors, seed=0, rows=24)
    assert row["network"].endswith("refined")
    assert int(row["parameters"]) == nn.count_parameters(whole)


def test_choices_of_m_are_rows_of_the_table(tmp_path, no_pictures):
    arguments = ["--epochs", "1", "--networks", "tubal-4", "matrix-4", "--algebra", "dft", "random", "data"]
    assert script.main([*arguments, "--out", str(tmp_path)]) == 0
    table = rows(tmp_path / "cifar10-better-1-epochs" / "table.csv")
    assert [row["network"] for row in table] == [
        "t-NN, depth 4, tubal head, dft",
        "t-NN, depth 4, tubal head, random",
        "t-NN, depth 4, tubal head, data",
        "matrix, depth 4",  # which has no tubes to transform
    ]


def test_an_interrupted_run_goes_on_and_ends_as_though_it_had_not_been(
    tmp_path, capsys, monkeypatch, no_pictures
):
    arguments = ["--preset", "paper", "--epochs", "2", "--networks", "dense-4", "tubal-4", "--out"]
    assert script.main([*arguments, str(tmp_path / "whole")]) == 0
    real_fit, calls = train.fit, []

    def fit(*args, **options):
        def stop(result):
            if len(calls) == 2:
                raise KeyboardInterrupt

        calls.append(1)
        return real_fit(*args, callbacks=[stop], **options)

    with monkeypatch.context() as patched:
        patched.setattr(train, "fit", fit)
        assert script.main([*arguments, str(tmp_path / "parts")]) == 130
    assert "goes on from here" in capsys.readouterr().out
    assert script.main([*arguments, str(tmp_path / "parts")]) == 0
    whole, parts = (tmp_path / name / "cifar10-paper-2-epochs" / "table.csv" for name in ("whole", "parts"))
    assert results(whole) == results(parts)


def test_a_finished_run_is_read_back(tmp_path, monkeypatch, no_pictures):
    arguments = ["--epochs", "1", "--networks", "dense-4", "--out", str(tmp_path)]
    table = tmp_path / "cifar10-better-1-epochs" / "table.csv"
    assert script.main(arguments) == 0
    first = rows(table)
    assert script.main(arguments) == 0
    assert rows(table) == first  # the seconds too


def test_a_run_on_a_second_device(pretend_device, tmp_path, monkeypatch):
    """Nothing of the script takes an array of the device for one of the host."""

    monkeypatch.setattr(script, "load", lambda args: made().to_device())
    arguments = ["--device", "pretend", "--epochs", "1", "--networks", "dense-4", "tubal-4", "matrix-4"]
    assert script.main([*arguments, "--out", str(tmp_path)]) == 0
    assert script.main([*arguments, "--preset", "paper", "--reversible", "--out", str(tmp_path)]) == 0
    assert len(rows(tmp_path / "cifar10-paper-1-epochs" / "table.csv")) == 3


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--networks", "dense"], "dense is not a network"),
        (["--networks", "deep-4"], "deep-4 is not a network"),
        (["--networks", "dense-0"], "dense-0 is not a network"),
        (["--matrix-epochs", "0"], "a positive number of epochs"),
        (["--algebra", "dst"], "invalid choice: 'dst'"),
        (["--preset", "best"], "invalid choice: 'best'"),
        (["--data", "mnist"], "invalid choice: 'mnist'"),
    ],
)
def test_wrong_arguments_are_argparse_errors(wrong, said, capsys):
    with pytest.raises(SystemExit) as info:
        script.main(wrong)
    assert info.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--refine", "--epochs", "2"], "at least 3"),
        (["--refine", "--matrix-epochs", "2"], "at least 3"),
        (["--refine", "--networks", "dense-6"], "the depth of dense-6 has no quarter"),
        (["--device", "tpu"], "'tpu'"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_status(wrong, said, tmp_path, capsys):
    assert script.main([*wrong, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_missing_data_is_one_line_and_a_status(tmp_path, capsys, monkeypatch):
    monkeypatch.undo()  # the made images
    assert script.main(["--root", str(tmp_path / "nowhere"), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "cifar-10-batches-py" in error and "download" in error and "Traceback" not in error


@pytest.mark.data
@pytest.mark.slow
def test_two_hundred_steps_on_the_real_images(data_root):
    """38 to 40 per cent, by seed: what a linear classifier reaches in the end."""
    dataset = data.load("cifar10", root=data_root)
    first = np.arange(6400)
    part = data.Split(dataset.train.images[first], dataset.train.labels[first], dataset.mean, dataset.std)
    small = dataclasses.replace(dataset, train=part, validation=None)
    preset = script.PRESETS["better"]
    model, loss = script.build("dense-4", algebra.dct(32), 10, preset.init, seed=42)
    train.fit(model, loss, small, optimizer=script.optim.Adam(model, lr=1e-3), epochs=1, progress=False)
    assert train.evaluate(model, loss, dataset.test).accuracy > 0.3
