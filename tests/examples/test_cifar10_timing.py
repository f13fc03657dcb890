"""The timing of CIFAR-10's networks: what is measured, what is left out, what is read back."""

from __future__ import annotations

import json

import cifar10_timing as script
import pytest

from tests.examples.runs import rows

pytest.importorskip("matplotlib")

TINY = script.Preset({"t-NN": (1, 4), "t-NN, reversible": (1, 4), "matrix": (1,)}, steps=1, seconds=5.0)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(script.PRESETS, "quick", TINY)


@pytest.fixture
def pretended(monkeypatch):
    """Measurements at once: as many bytes of working memory as the depth is."""
    calls = []

    def measured_apart(name, depth, preset, path):
        calls.append((name, depth))
        memory = {"weights": 0, "working": depth, "peak": 2 * depth}
        path.write_text(
            json.dumps({"parameters": 100 * depth, "seconds": 0.1 * depth, "processor": 0.1} | memory)
        )

    monkeypatch.setattr(script, "_measured_apart", measured_apart)
    monkeypatch.setattr(script, "save", lambda draw, path: None)
    return calls


def test_states_that_are_recomputed_take_memory_that_is_flat_in_depth():
    stored = [script.measure("t-NN", depth, TINY, "cpu") for depth in (4, 8)]
    reversible = [script.measure("t-NN, reversible", depth, TINY, "cpu") for depth in (4, 8)]
    assert reversible[1].working < 1.05 * reversible[0].working
    assert stored[1].working > 1.5 * stored[0].working
    states = 2 * 4 * (32 * 96 * 32 * 4)  # at least the two blocks at each of four more steps, in bytes
    assert stored[1].working - stored[0].working > states
    assert reversible[0].weights == 4 * 4 * reversible[0].parameters  # and the gradients, and two moments


def test_a_real_measurement_in_a_process_of_its_own(tiny, tmp_path):
    assert script.main(["--preset", "quick", "--max-depth", "1", "--out", str(tmp_path)]) == 0
    table = rows(tmp_path / "quick" / "table.csv")
    assert [row["network"] for row in table] == ["t-NN", "t-NN, reversible", "matrix"]
    assert [int(row["parameters"]) for row in table] == [325_674, 325_674, 9_467_915]
    for row in table:
        assert 0 < float(row["seconds_per_step"]) < 60 and float(row["processor"]) > 0
        assert float(row["seconds_per_epoch"]) == pytest.approx(
            1250 * float(row["seconds_per_step"]), rel=1e-3
        )
        assert float(row["weights"]) + float(row["working"]) < float(row["peak"])
    assert (tmp_path / "quick" / "timing.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_what_was_measured_is_read_back_unless_it_is_to_be_forgotten(tiny, pretended, tmp_path):
    arguments = ["--preset", "quick", "--out", str(tmp_path)]
    assert script.main(arguments) == script.main(arguments) == 0
    assert len(pretended) == 5
    assert script.main([*arguments, "--fresh"]) == 0
    assert len(pretended) == 10


def test_the_growth_with_depth_is_said(tiny, pretended, tmp_path, capsys):
    assert script.main(["--preset", "quick", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "t-NN, reversible: at depth 4 4.00 times the working memory of depth 1" in said


def test_what_does_not_fit_is_left_out_with_the_reason(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script, "save", lambda draw, path: None)
    monkeypatch.setattr(script, "_free_memory", lambda: 2.0**20)
    assert script.main(["--preset", "quick", "--out", str(tmp_path)]) == 0
    assert "matrix, depth 1: left out, it needs about 0." in capsys.readouterr().out


def test_an_estimate_covers_what_is_measured():
    for name in ("t-NN", "t-NN, reversible", "matrix"):
        found = script.measure(name, 1, TINY, "cpu")
        assert script._estimate(name, 1) > found.weights + found.working


def test_every_depth_of_the_paper_is_there():
    depths = script.PRESETS["paper"].depths
    assert set(depths.values()) == {(4, 8, 16, 32, 64, 128)} and len(depths) == 3


@pytest.mark.parametrize("wrong", [["--preset", "best"], ["--max-depth", "0"], ["--device"]])
def test_wrong_arguments_are_argparse_errors(wrong):
    with pytest.raises(SystemExit) as info:
        script.main(wrong)
    assert info.value.code == 2
