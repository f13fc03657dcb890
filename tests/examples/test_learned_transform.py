"""The comparison of a learned M with fixed ones: its tables, its picture, its answers to wrong input."""

from __future__ import annotations

import learned_transform as script
import numpy as np
import pytest

from cutnn import algebra
from tests.examples.runs import interrupt, results, rows

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


@pytest.fixture
def cube(tmp_path):
    """A scene (12, 10, 6) of rank 1 in a hidden algebra, with a little noise."""
    star = algebra.random_orthogonal(6, seed=3)
    scene = star(star.random(12, 1, seed=1), star.random(1, 10, seed=2))
    scene = scene + 0.01 * np.random.default_rng(0).standard_normal(scene.shape)
    path = tmp_path / "scene.npy"
    np.save(path, np.moveaxis(scene - scene.min(), 0, -1))
    return path


def test_digits_end_to_end(tmp_path, capsys):
    assert script.main(["--epochs", "1", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "quick-1-epochs"
    table = rows(folder / "networks.csv")
    assert [row["transform"] for row in table] == ["dct", "identity", "data", "random", "learned"] * 2
    assert {row["parameters"] for row in table if row["network"] == "dense head"} == {"1226"}
    assert {row["transform"]: row["numbers_of_M"] for row in table}["learned"] == "28"
    assert all(20 < float(row["test"]) <= 100 for row in table)
    assert (folder / "learned.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "±" not in capsys.readouterr().out


def test_a_hidden_transform_is_found_from_one_half_of_the_cube(tmp_path, cube, no_pictures):
    command = ["--cases", "cube", "--cube", str(cube), "--out", str(tmp_path), "--seeds", "42", "43"]
    assert script.main(command) == 0
    table = rows(tmp_path / "quick" / "low_rank.csv")
    assert len(table) == 2 * 2 * 5
    for seed in ("42", "43"):
        errors = {
            row["transform"]: float(row["test"])
            for row in table
            if row["seed"] == seed and row["approximation"] == "t-SVDM"
        }
        assert errors["learned"] < min(errors[name] for name in errors if name != "learned")
    assert {row["stored"] for row in table if row["approximation"] == "t-SVDM"} == {
        str(6 * (12 + 5)),
        str(6 * (6 + 10)),
    }


def test_halves_of_a_cube_do_not_overlap():
    cube = np.arange(2 * 4 * 6).reshape(2, 4, 6)
    for seed in range(4):
        training, testing = script._halves(cube, seed)
        assert sorted(np.concatenate([training.ravel(), testing.ravel()])) == list(range(48))
    assert script._halves(cube, 0)[0].shape == (2, 4, 3)
    assert script._halves(cube, 1)[0].shape == (2, 2, 6)


def test_an_interrupted_run_goes_on_to_the_same_table(tmp_path, monkeypatch, no_pictures):
    whole, part = tmp_path / "whole", tmp_path / "part"
    command = ["--epochs", "1", "--algebra", "dct", "--out"]
    assert script.main([*command, str(whole)]) == 0
    with monkeypatch.context() as patched:
        patched.setattr(script, "_accuracy", interrupt)
        assert script.main([*command, str(part)]) == 130
    assert script.main([*command, str(part)]) == 0
    name = "quick-1-epochs"
    assert results(part / name / "networks.csv") == results(whole / name / "networks.csv")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--cases", "cube", "--root", "nowhere"], "there is no cube"),
        (["--cases", "mnist", "--root", "nowhere"], "nowhere"),
        (["--device", "tpu"], "'tpu'"),
    ],
)
def test_wrong_input_is_one_line_and_a_status(arguments, words, tmp_path, capsys):
    assert script.main([*arguments, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


def test_what_is_no_cube_is_refused(tmp_path, capsys):
    np.save(tmp_path / "flat.npy", np.ones((4, 5)))
    command = ["--cases", "cube", "--cube", str(tmp_path / "flat.npy"), "--out", str(tmp_path)]
    assert script.main(command) == 2
    assert "(4, 5)" in capsys.readouterr().err


@pytest.mark.data
def test_cifar10_images_are_compressed(data_root, tmp_path, monkeypatch, no_pictures):
    quick = script.Preset(epochs=1, learning_rate=1e-2, batch_size=64, images=50, iterations=2)
    monkeypatch.setitem(script.PRESETS, "quick", quick)
    assert script.main(["--cases", "cifar10", "--root", str(data_root), "--out", str(tmp_path)]) == 0
    table = rows(tmp_path / "quick" / "low_rank.csv")
    assert len(table) == 10 and all(0 < float(row["test"]) < 100 for row in table)
