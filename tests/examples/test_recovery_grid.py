"""The grid of recovery: its cells, and the script as a user runs it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import recovery_grid as script

from tests.examples.runs import interrupt, rows

pytest.importorskip("matplotlib")

TINY = script.Preset(20, 3, (1, 8), {"complete": (0.2, 0.9), "robust_pca": (0.05, 0.4)}, 1e-6, 150)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(script.PRESETS, "quick", TINY)
    return ["--preset", "quick", "--algebra", "dct", "--seeds", "1", "--out"]


def errors(folder):
    return {
        (r["problem"], int(r["rank"]), float(r["share"])): float(r["error"])
        for r in rows(folder / "table.csv")
    }


def test_end_to_end(tiny, tmp_path, capsys):
    assert script.main([*tiny, str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "rank \\ missing" in said and "rank \\ corrupted" in said and "recovered cells" in said
    found = errors(tmp_path / "quick")
    assert len(found) == 8
    for problem, (least, most) in TINY.shares.items():
        assert found[problem, 1, least] <= script.RECOVERED < 0.01 < found[problem, 8, most]
    assert (tmp_path / "quick" / "phases.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("problem", script.PROBLEMS)
@pytest.mark.parametrize("name", ["dct", "dft"])
def test_cells_well_inside_the_region_are_recovered(problem, name):
    preset = script.PRESETS["better"]
    cell = script.run(problem, name, 2, preset.shares[problem][1], 0, preset)
    assert cell.error <= script.RECOVERED and cell.iterations < preset.max_iterations


def test_an_interrupted_grid_goes_on_where_it_was(tiny, tmp_path, capsys, monkeypatch):
    run, calls = script.run, []

    def counted(*args):
        calls.append(args)
        return interrupt() if len(calls) == 4 else run(*args)

    monkeypatch.setattr(script, "save", lambda draw, path: None)
    with monkeypatch.context() as patched:
        patched.setattr(script, "run", counted)
        assert script.main([*tiny, str(tmp_path)]) == 130
        with (tmp_path / "quick" / "cells.csv").open("a") as file:
            file.write("complete,dct,8,0.9")  # a line that was not written to its end
        assert script.main([*tiny, str(tmp_path)]) == 0
        assert len(calls) == 4 + 5
        assert script.main([*tiny, str(tmp_path)]) == 0
        assert len(calls) == 9
    assert script.main([*tiny, str(tmp_path / "other")]) == 0
    assert errors(tmp_path / "quick") == errors(tmp_path / "other" / "quick")
    with monkeypatch.context() as patched:
        patched.setattr(script, "run", counted)
        assert script.main([*tiny, str(tmp_path), "--fresh"]) == 0
        assert len(calls) == 9 + 8


def test_ctrl_c_inside_the_solver_ends_the_script(tiny, tmp_path, capsys, monkeypatch):
    result = script.lowrank.complete(
        script.algebra_named("dct", 3), np.ones((3, 2, 2)), np.ones((3, 2, 2), bool)
    )
    monkeypatch.setattr(
        script.lowrank, "complete", lambda *a, **k: dataclasses.replace(result, reason="interrupted")
    )
    assert script.main([*tiny, str(tmp_path)]) == 130
    assert "the same command goes on from here" in capsys.readouterr().out


def test_there_are_no_data_to_take_m_from(capsys):
    with pytest.raises(SystemExit):
        script.main(["--algebra", "data"])
    assert "no data here" in capsys.readouterr().err
