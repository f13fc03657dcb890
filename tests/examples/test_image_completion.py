"""The images and their layouts, and the script as a user runs it."""

from __future__ import annotations

import dataclasses
import sys

import image_completion as script
import numpy as np
import pytest

from cutnn import algebra
from tests.examples.runs import interrupt, rows

pytest.importorskip("matplotlib")

TINY = script.Preset(16, 4, 1e-3, 60)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(script.PRESETS, "quick", TINY)
    return ["--preset", "quick", "--out"]


def test_the_made_picture_has_colours_from_0_to_1():
    picture = script.made(80)
    assert picture.shape == (60, 80, 3)
    assert 0 <= picture.min() < 0.2 and 0.9 < picture.max() <= 1
    assert len(np.unique(picture.round(2).reshape(-1, 3), axis=0)) > 50


def test_photographs_are_means_of_blocks():
    pytest.importorskip("sklearn")
    whole, reduced = (script.photograph("china", k) for k in (1, 4))
    assert whole.shape == (427, 640, 3) and reduced.shape == (106, 160, 3)
    np.testing.assert_allclose(reduced[3, 5], whole[12:16, 20:24].mean(axis=(0, 1)))


def test_matrices_have_the_colours_beside_each_other():
    X = np.random.default_rng(0).random((2, 3, 4, 5))
    assert script.beside(X).shape == (2, 4, 15)
    assert np.array_equal(script.beside(X)[1, :, 5:10], X[1, 1])
    assert np.array_equal(script.apart(script.beside(X)), X)


def test_principal_colours_know_that_entries_are_missing():
    rng = np.random.default_rng(0)
    X = np.multiply.outer([3.0, 4.0, 12.0], rng.random((60, 60)))[None]
    star = script.principal_colours(X, rng.random(X.shape) < 0.2)
    last = star.transforms[0].matrix()[-1]  # of the largest eigenvalue
    assert abs(last @ np.array([3, 4, 12]) / 13) > 0.999


def test_psnr_is_the_mean_over_images_clipped():
    X = np.zeros((2, 3, 2, 2))
    L = X + np.array([0.1, 0.01]).reshape(2, 1, 1, 1)
    assert script.psnr(L, X) == pytest.approx(30)
    assert script.psnr(X + 7, X + 0.9) == pytest.approx(20)
    assert script.psnr(X - 7, X + 0.1) == pytest.approx(20)


def test_colours_that_go_together_beat_matrices():
    picture = np.moveaxis(script.made(64), -1, 0)[None]
    seen = np.random.default_rng(0).random(picture.shape) < 0.3
    preset = script.PRESETS["quick"]
    tensor, alone, matrix = (
        script.run("", star, picture, seen, 0.7, 0, preset)
        for star in (algebra.dct(3), algebra.identity(3), algebra.plain())
    )
    assert tensor.psnr > max(alone.psnr, matrix.psnr) + 1
    assert np.abs((tensor.images - picture)[seen]).max() < 0.05


@pytest.mark.parametrize("data", ["made", "flower"])
def test_end_to_end(data, tiny, tmp_path, capsys):
    if data == "flower":
        pytest.importorskip("sklearn")
    options = ["--data", data, "--missing", "0.5", "0.8", "--algebra", "dct", "data", "dft"]
    assert script.main([*tiny, str(tmp_path), *options]) == 0
    assert "80% missing, DCT" in capsys.readouterr().out
    folder = tmp_path / f"{data}-quick"
    table = rows(folder / "table.csv")
    assert len(table) == 2 * 4 and {row["algebra"] for row in table} >= {"DCT", script.MATRIX}
    assert all(float(a["psnr"]) > float(b["psnr"]) for a, b in zip(table[:4], table[4:], strict=True))
    for share in (50, 80):
        assert (folder / f"images-{share}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_small_images_are_one_batch(tiny, tmp_path, monkeypatch):
    small = np.random.default_rng(0).integers(0, 256, (9, 3, 8, 8), dtype=np.uint8)

    class Made:
        class test:
            images = small

    monkeypatch.setattr(script, "load", lambda args: Made)
    assert (
        script.main([*tiny, str(tmp_path), "--data", "cifar10", "--algebra", "dct", "--missing", "0.3"]) == 0
    )
    assert len(rows(tmp_path / "cifar10-quick" / "table.csv")) == 2


def test_a_mosaic_holds_all_images():
    X = np.arange(5.0).reshape(5, 1, 1, 1) * np.ones((1, 3, 2, 2))
    mosaic = script._mosaic(X)
    assert mosaic.shape == (4, 6, 3)
    assert mosaic[::2, ::2, 0].tolist() == [[0, 1, 2], [3, 4, 1]]


def test_ctrl_c_is_a_word(tiny, tmp_path, capsys, monkeypatch):
    complete = script.lowrank.complete
    for function in (
        interrupt,
        lambda *args, **options: dataclasses.replace(complete(*args, **options), reason="interrupted"),
    ):
        monkeypatch.setattr(script.lowrank, "complete", function)
        assert script.main([*tiny, str(tmp_path), "--data", "made"]) == 130
        assert "interrupted" in capsys.readouterr().out


@pytest.mark.parametrize("share", ["0", "1", "-0.5", "most", "nan"])
def test_shares_are_between_0_and_1(share, capsys):
    with pytest.raises(SystemExit):
        script.main(["--missing", share])
    assert "is not a share" in capsys.readouterr().err


@pytest.mark.parametrize(("data", "word"), [("cifar10", "cifar"), ("flower", "scikit-learn")])
def test_data_that_are_not_there_are_said(data, word, tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert script.main([*tiny, str(tmp_path), "--data", data, "--root", str(tmp_path / "none")]) == 2
    assert word in capsys.readouterr().err.lower()
