"""The video and what is found in it, and the script as a user runs it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import video_background as script

from cutnn import algebra
from tests.examples.runs import interrupt, rows

pytest.importorskip("matplotlib")

TINY = script.Preset(18, 24, 20, 1e-3, 60)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(script.PRESETS, "quick", TINY)
    return ["--preset", "quick", "--out"]


def test_the_video_is_what_it_says():
    video = script.made(36, 48, 40, 0)
    assert video.frames.shape == video.background.shape == (3, 36, 48, 40) and video.moving.shape == (
        36,
        48,
        40,
    )
    still = ~np.broadcast_to(video.moving, video.frames.shape)
    assert np.std((video.frames - video.background)[still]) == pytest.approx(0.03, rel=0.02)
    assert np.array_equal(video.frames, script.made(36, 48, 40, 0).frames)
    assert not np.array_equal(video.frames, script.made(36, 48, 40, 1).frames)
    assert 0.01 < video.moving.mean() < 0.1 and np.all(video.moving.any(axis=(0, 1)).mean() > 0.9)
    assert 0 <= video.background.min() < video.background.max() <= 1
    singular = np.linalg.svd(video.background.reshape(-1, 40), compute_uv=False)
    assert (singular[:6] ** 2).sum() > 0.9999 * (singular**2).sum()


def test_tensors_with_sparse_tubes_beat_the_matrix_and_the_median():
    video, preset = script.made(27, 36, 30, 0), script.PRESETS["quick"]
    tensor = script.separate("", algebra.dct(3), video, 0, preset, "tubes")
    matrix = script.separate("", algebra.plain(), video, 0, preset)
    median = script.median(video, 0)
    assert tensor.f_measure > matrix.f_measure + 0.02 > median.f_measure + 0.5
    assert tensor.psnr > matrix.psnr + 1 > median.psnr + 10


def test_measures_of_the_truth_itself():
    video = script.made(18, 24, 20, 0)
    moving = np.where(video.moving, 1.0, 0.0) * np.ones((3, 1, 1, 1))
    outcome = script._measured("", 0, video, video.background + 0.1, moving, 0.0)
    assert outcome.precision == outcome.recall == outcome.f_measure == 1.0
    assert outcome.psnr == pytest.approx(20.0)


def test_end_to_end(tiny, tmp_path, capsys):
    assert script.main([*tiny, str(tmp_path), "--algebra", "dct", "data"]) == 0
    assert "F measure" in capsys.readouterr().out
    table = rows(tmp_path / "quick" / "table.csv")
    assert [row["method"] for row in table] == [
        "DCT, sparse entries",
        "DCT, sparse tubes",
        "principal colours, sparse entries",
        "principal colours, sparse tubes",
        script.MATRIX,
        script.MEDIAN,
    ]
    assert all(0 < float(row["F_measure"]) <= 1 for row in table)
    for name in ("frame", "residuals"):
        assert (tmp_path / "quick" / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_ctrl_c_is_a_word(tiny, tmp_path, capsys, monkeypatch):
    robust_pca = script.lowrank.robust_pca
    for function in (
        interrupt,
        lambda *args, **options: dataclasses.replace(robust_pca(*args, **options), reason="interrupted"),
    ):
        monkeypatch.setattr(script.lowrank, "robust_pca", function)
        assert script.main([*tiny, str(tmp_path)]) == 130
        assert "interrupted" in capsys.readouterr().out
