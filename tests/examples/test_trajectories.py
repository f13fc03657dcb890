"""Trajectories of points through 32 layers: the data, the networks, and the script as a user runs it."""

from __future__ import annotations

import operator
import sys

import numpy as np
import pytest
import trajectories as script

from cutnn import algebra, nn
from tests.examples.runs import interrupt, results

pytest.importorskip("matplotlib")


@pytest.fixture
def shallow(monkeypatch):
    """Four layers in the place of 32, and few new points."""
    monkeypatch.setattr(script, "DEPTH", 4)
    monkeypatch.setattr(script, "unseen", lambda seed: script.points(3_000, (seed, 1)))


# -------------------------------------------------------------------------------------------------- the data


def test_classes_are_shells_between_the_radii():
    drawn = script.points(10_000, 0)
    radii = np.linalg.norm(drawn.tubes, axis=0)
    assert [radii[drawn.labels == k].min() for k in (1, 0)] >= list(script.RADII)
    assert [radii[drawn.labels == k].max() for k in (2, 1)] <= list(script.RADII)
    assert set(drawn.labels) == {0, 1, 2}


def test_points_have_the_distribution_of_the_experiment():
    tubes = script.points(100_000, 0).tubes
    np.testing.assert_allclose(np.cov(tubes), 9 * np.eye(3), atol=0.15)
    np.testing.assert_allclose(tubes.mean(axis=1), 0, atol=0.05)


def test_splits_are_disjoint_and_of_the_sizes_of_the_experiment():
    dataset = script.split(42)
    parts = dataset.train, dataset.validation, dataset.test
    assert [len(part) for part in parts] == [1200, 600, 200]
    everything = np.concatenate([part.tubes for part in parts], axis=1)
    assert len(np.unique(everything, axis=1).T) == 2000


def test_a_seed_gives_the_same_points_and_new_ones_are_others():
    first, again, other = script.split(1), script.split(1), script.split(2)
    assert np.array_equal(first.train.tubes, again.train.tubes)
    assert not np.array_equal(first.train.tubes, other.train.tubes)
    assert not np.isin(script.unseen(1).tubes, first.train.tubes).any()


def test_a_batch_holds_points_as_tubes():
    part = script.split(42).train
    X, labels = part.batch(np.array([5, 3]))
    assert X.shape == (3, 1, 2) and X.dtype == np.float32
    np.testing.assert_allclose(X[:, 0, 1], part.tubes[:, 3], rtol=1e-6)
    assert labels.tolist() == part.labels[[5, 3]].tolist()


# --------------------------------------------------------------------------------------------- the networks


def test_parameter_counts():
    counts = {
        name: nn.count_parameters(script.build(network, algebra.fft(3), nn.initializers.authors, 0)[0])
        for name, network in script.NETWORKS.items()
    }
    assert list(counts.values()) == [204, 210, 210, 402, 210]


def test_a_tube_is_antisymmetric_over_the_dft_only():
    for star, vanishes in ((algebra.dct(3), True), (algebra.fft(3), False)):
        network = script.NETWORKS["antisymmetric Euler, DFT, tubal loss"]
        model, _ = script.build(network, star, nn.initializers.authors, 0)
        largest = max(abs(model[0].operators(j)[0] + 1e-4).max() for j in range(len(model[0])))
        assert (largest < 1e-6) == vanishes


def test_leapfrog_starts_within_its_bound_and_forward_euler_of_the_authors_does_not():
    networks = list(script.NETWORKS.values())
    growth = []
    for network in (networks[0], networks[2]):
        star = algebra.identity(3) if network.algebra else algebra.dct(3)
        model, _ = script.build(network, star, nn.initializers.authors, 42)
        growth.append(nn.stability_numbers(model[0]).growth)
    assert growth[0] > 1e6 and growth[1] == 1.0


# ------------------------------------------------------------------------------------------------ the script


def test_end_to_end(shallow, tmp_path, capsys):
    assert script.main(["--preset", "paper", "--epochs", "1", "--out", str(tmp_path)]) == 0
    assert "93.5" in capsys.readouterr().out
    folder = tmp_path / "paper-1-epochs"
    table = results(folder / "table.csv")
    assert [row["network"] for row in table] == list(script.NETWORKS)
    assert [row["h"] for row in table[:3]] == ["5", "2", "2"]
    assert all(20 < float(row["new_points"]) < 100 for row in table)
    for name in ("curves", "trajectories", "spectrum", "stability"):
        assert (folder / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_step_sizes_and_choices_of_m_are_rows(shallow, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "save", lambda draw, path: None)
    options = ["--epochs", "1", "--h", "0.5", "2", "--algebra", "dct", "dft", "data", "--out", str(tmp_path)]
    assert script.main(options) == 0
    table = results(tmp_path / "better-1-epochs" / "table.csv")
    names = [row["network"] for row in table if row["h"] == "0.5"]
    assert len(names) == len(set(names)) == 3 * 3 + 2 and len(table) == 2 * len(names)
    assert {"leapfrog, tubal loss", "leapfrog, tubal loss, dft", "forward Euler, M = I, dense head"} <= set(
        names
    )


@pytest.mark.parametrize(
    "where",
    [
        ("nn.CrossEntropy", "with_prediction"),
        ("optim.Adam", "step"),
        ("train", "evaluate"),
        ("Table", "write_csv"),
        ("plot", "curves"),
    ],
    ids=".".join,
)
def test_ctrl_c_at_any_moment_is_a_word_and_the_same_command_ends_with_the_same_table(
    where, shallow, tmp_path, capsys, monkeypatch
):
    target, name = where
    with monkeypatch.context() as patched:
        patched.setattr(operator.attrgetter(target)(script), name, interrupt)
        assert script.main(["--epochs", "1", "--out", str(tmp_path)]) == 130
    assert "the same command goes on from here" in capsys.readouterr().out
    monkeypatch.setattr(script, "save", lambda draw, path: None)
    for out in (tmp_path, tmp_path / "uninterrupted"):
        assert script.main(["--epochs", "1", "--out", str(out)]) == 0
    folders = tmp_path / "better-1-epochs", tmp_path / "uninterrupted" / "better-1-epochs"
    assert results(folders[0] / "table.csv") == results(folders[1] / "table.csv")


def test_names_in_pictures_break_between_words_and_not_within_the_step_size(shallow, tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr(script, "save", lambda draw, path: draw() if path.stem == "curves" else None)
    monkeypatch.setattr(script.plot, "curves", names.extend)
    assert script.main(["--preset", "paper", "--epochs", "1", "--out", str(tmp_path)]) == 0
    assert names[2].splitlines() == ["leapfrog, tubal loss,", "h\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}2"]


def test_without_matplotlib_there_is_a_table_and_no_picture(shallow, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert script.main(["--epochs", "1", "--out", str(tmp_path)]) == 0
    assert "no pictures will be drawn" in capsys.readouterr().out
    assert (tmp_path / "better-1-epochs" / "table.csv").exists() and not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    "wrong",
    [
        ["--h", "0"],
        ["--h", "-1"],
        ["--h", "big"],
        ["--h", "nan"],
        ["--epochs", "0"],
        ["--algebra", "wavelet"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_argparse_errors(wrong, capsys):
    with pytest.raises(SystemExit) as info:
        script.main(wrong)
    assert info.value.code == 2
    assert wrong[1] in capsys.readouterr().err
