"""The hyperspectral example: its views, measures, damages and rules, and the script as a user runs it."""

from __future__ import annotations

import dataclasses
import types

import _experiment as experiment
import hyperspectral as script
import numpy as np
import pytest

from cutnn import algebra
from tests.examples.runs import interrupt, rows

pytest.importorskip("matplotlib")

TINY = script.Preset(1, 1, (0.1, 0.4), 5, taus=2)


@pytest.fixture
def cube(tmp_path, monkeypatch):
    """A made cube of 24 x 19 pixels and 20 bands as a file, and the beginning of a command."""
    monkeypatch.setitem(script.PRESETS, "quick", TINY)
    path = tmp_path / "scene.npy"
    np.save(path, np.round(1000 * np.moveaxis(script.made(24, 19, 20, 0), 0, -1)).astype(np.uint16))
    return ["--cube", str(path), "--out", str(tmp_path)]


def planted(shape, seed=0, rank=2):
    """A cube whose matrix of bands x pixels has this rank."""
    rng = np.random.default_rng(seed)
    X = rng.random((shape[0], rank)) @ rng.random((rank, shape[1] * shape[2]))
    return (X / X.max()).reshape(shape)


@pytest.mark.parametrize("view", [*script.VIEWS, "matrix"])
def test_a_view_and_back_is_the_cube(view):
    X = np.arange(5 * 4 * 6.0).reshape(5, 4, 6)
    T = script.as_tensor(view, X, 2)
    assert np.array_equal(script.as_cube(view, T, X.shape, 2), X)
    shapes = {
        "bands": (5, 4, 6),
        "rows": (4, 5, 6),
        "columns": (6, 5, 4),
        "matrix": (5, 24),
        "blocks": (2, 2, 5, 6),
    }
    assert T.shape == shapes[view]
    if view == "blocks":
        assert np.array_equal(T[:, :, 3, 4], X[3, 2:4, 2:4])  # the fifth block: second row, second column


def test_the_made_cube_is_what_it_says():
    X = script.made(40, 30, 60, 0)
    assert X.shape == (60, 40, 30) and X.dtype == np.float32 and 0 <= X.min() < X.max() == 1
    assert np.array_equal(X, script.made(40, 30, 60, 0)) and not np.array_equal(X, script.made(40, 30, 60, 1))
    s = np.linalg.svd(X.reshape(60, -1), compute_uv=False)
    assert s[4] > 3 * s[5]  # five materials


def test_measures_against_their_definitions():
    X = np.zeros((2, 1, 2)) + [[[1.0, 1.0]], [[0.0, 1.0]]]
    Y = np.zeros((2, 1, 2)) + [[[0.0, 1.0]], [[2.0, 1.0]]]
    assert script.angles(X, Y).round(9).tolist() == [[90.0, 0.0]]
    assert script.angles(X, 3 * X).max() < 1e-12 and script.angles(X, 0 * X).tolist() == [[90.0, 90.0]]
    assert script.psnr(X, X + 0.1) == pytest.approx(20.0)


def test_tucker_keeps_to_its_budget_and_finds_a_planted_one():
    rng = np.random.default_rng(0)
    X = np.einsum("abc,ia,jb,kc->ijk", *[rng.standard_normal(s) for s in ((2, 3, 2), (9, 2), (8, 3), (7, 2))])
    found, storage = script.tucker(X, 12 + 18 + 24 + 14)
    assert storage == 68 and np.allclose(found, X, atol=1e-5)
    errors = []
    for budget in (30, 50, 67, 68):
        found, storage = script.tucker(X, budget)
        assert storage <= budget
        errors.append(np.linalg.norm(found - X))
    assert errors == sorted(errors, reverse=True) and errors[2] > 1e-3
    assert script.tucker(X, 24) is None and script.tucker(X, 25)[1] == 25


@pytest.mark.parametrize("star", [algebra.dct(6), algebra.fft(6), algebra.plain()], ids=str)
def test_the_threshold_is_the_one_of_least_error(star):
    """Of the taus tried, Stein's estimate takes one that is about as near to the truth as the nearest."""
    rng = np.random.default_rng(1)
    X = star(star.random(40, 2, seed=0), star.random(2, 50, seed=1))
    Y = X + 0.3 * rng.standard_normal(X.shape)
    found = script.by_threshold(star, Y, 0.3, 5, 0)
    edge = star.scale**0.5 * 0.3 * (40**0.5 + 50**0.5)
    faces = star.forward(Y - X) if star.shape else Y - X
    assert np.linalg.norm(faces, ord=2, axis=(-2, -1)).max() == pytest.approx(edge, rel=0.1)
    errors = [
        float(star.norm(star.singular_value_threshold(Y, t) - X)) for t in edge * np.geomspace(0.3, 1, 5)
    ]
    assert float(star.norm(found - X)) < 1.02 * min(errors) < 0.6 * float(star.norm(Y - X))


def test_truncation_leaves_out_as_much_as_the_noise_has():
    star = algebra.dct(6)
    X = star(star.random(40, 2, seed=0), star.random(2, 50, seed=1))
    Y = X + 0.2 * np.random.default_rng(1).standard_normal(X.shape)
    low = script.by_energy(star, Y, 0.2)
    kept = np.linalg.svd(star.forward(low), compute_uv=False)
    left = float(star.norm(Y - low) ** 2)
    assert left <= Y.size * 0.04 < left + kept[kept > 1e-9].min() ** 2
    assert float(star.norm(low - X)) < 0.8 * float(star.norm(Y - X))


def test_damages_and_the_estimate_of_their_noise():
    X = script.made(40, 40, 30, 0)
    assert script.estimated_sigma(script.noisy(X, 0)) == pytest.approx(0.05, rel=0.05)
    Y, damaged = script.striped(X, 0)
    assert np.std((Y - X)[~damaged]) == pytest.approx(0.005, rel=0.05)
    dead = np.all(Y == 0, axis=1)
    assert dead.any(axis=1).sum() == 10 and dead.sum() == 10 and np.all(damaged.mean() < 0.04)
    assert np.array_equal(script.median(X)[3, 1:-1, 1:-1][4, 5], np.median(X[3, 4:7, 5:8]))


def test_robust_pca_takes_stripes_out_of_the_matrix_and_of_blocks():
    X = planted((20, 24, 24))
    Y, _ = script.striped(X, 0, 0.0)
    preset = dataclasses.replace(TINY, max_iterations=200, tolerance=1e-5)
    for view, star in (
        ("matrix", algebra.plain()),
        ("blocks", algebra.product(algebra.fft(2), algebra.dct(2))),
    ):
        L = script.by_robust_pca(star, script.as_tensor(view, Y, 2), 1.0, preset)
        assert script.psnr(script.as_cube(view, L, X.shape, 2), X) > 40 > 20 + script.psnr(Y, X) - 5


def test_end_to_end(cube, tmp_path, capsys):
    command = [*cube, "--tubes", "bands", "blocks", "--algebra", "dct", "dft", "data", "--denoise", "dct"]
    assert script.main(command) == 0
    folder = tmp_path / "scene-quick"
    table = rows(folder / "compression.csv")
    assert "20 bands of 24 x 18 pixels" in capsys.readouterr().out  # 19 columns are nine blocks and one
    for row in table:
        assert int(row["storage"]) <= float(row["kept"]) / 100 * 20 * 24 * 18
        assert 0 < float(row["error"]) < 1
    shown = {(row["method"], row["tensor"], row["algebra"]) for row in table}
    assert {("SVD", "matrix", ""), ("Tucker (HOSVD)", "", ""), ("t-SVDMII", "bands", "data, n/8")} <= shown
    assert ("t-SVDMII", "blocks", "dct") in shown and ("t-SVDMII", "blocks", "dft") not in shown
    cleaned = rows(folder / "denoising.csv")
    assert len(cleaned) == 2 + 1 + 2 * 2 * 3
    before = {row["damage"]: float(row["psnr"]) for row in cleaned if row["method"] == script.DAMAGED}
    assert all(float(row["psnr"]) > before[row["damage"]] for row in cleaned if row["method"] == "energy")
    for name in ("curves", "compression", "noise", "stripes"):
        assert (folder / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_stored_numbers_are_those_of_the_definition(cube, tmp_path):
    """The same errors by hand: M from data costs its own numbers."""
    X = script.load_cube(tmp_path / "scene.npy")[:, :, :18]
    args = types.SimpleNamespace(tubes=["bands"], algebra=["data"], block=2)
    outcomes = {(o.method, o.algebra, o.share): o for o in script.compress(X, args, TINY, 0)}
    count = (int(0.4 * X.size) - 400) // 42
    star = algebra.from_data(X)
    o = outcomes["t-SVDMII", "data", 0.4]
    assert o.storage == 400 + 42 * count
    assert np.allclose(o.cube, star.low_rank(X, count=count), atol=1e-5)
    U, s, Vh = np.linalg.svd(X.reshape(20, -1), full_matrices=False)
    o = outcomes["SVD", "", 0.4]
    assert o.storage == 7 * 452 and np.allclose(o.cube.reshape(20, -1), U[:, :7] * s[:7] @ Vh[:7], atol=1e-5)
    assert o.error == pytest.approx(np.sqrt((s[7:] ** 2).sum() / (s**2).sum()), rel=1e-3)


def test_where_the_cube_comes_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert script._arguments([]).path is None and script._arguments([]).data == "made"
    usual = tmp_path / "data" / experiment.JASPER_RIDGE
    usual.parent.mkdir(parents=True)
    usual.touch()
    assert script._arguments([]).path == usual.relative_to(tmp_path)
    assert script._arguments([]).data == "jasper-ridge"
    assert script._arguments(["--cube", "a/scene.npy"]).data == "scene"


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "there is no cube"),
        (np.ones((4, 5)), "(4, 5)"),
        (np.ones((4, 5, 3)), "four or more of each"),
        (np.ones((4, 5, 6), complex), "complex128"),
        (np.full((4, 5, 6), np.nan), "finite"),
        (np.zeros((4, 5, 6)), "some above 0"),
        (np.ones((5, 5, 6)), "--block 3"),
        (b"no array", "scene.npy cannot be read"),
        (b"", "scene.npy cannot be read"),
    ],
)
def test_wrong_cubes_are_one_line_and_a_status(content, words, tmp_path, capsys):
    path = tmp_path / "scene.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    assert script.main(["--cube", str(path), "--block", "3", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


def test_a_root_that_is_named_is_not_passed_over(tmp_path, capsys):
    assert script.main(["--root", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "there is no cube" in capsys.readouterr().err


def test_ctrl_c_is_a_word(cube, capsys, monkeypatch):
    robust_pca = script.lowrank.robust_pca
    for function in (
        interrupt,
        lambda *args, **options: dataclasses.replace(robust_pca(*args, **options), reason="interrupted"),
    ):
        monkeypatch.setattr(script.lowrank, "robust_pca", function)
        assert script.main([*cube, "--parts", "denoising"]) == 130
        assert "interrupted" in capsys.readouterr().out
