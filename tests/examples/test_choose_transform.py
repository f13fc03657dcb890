"""The comparison of transforms: what is compared, what the table holds, what is refused."""

from __future__ import annotations

import choose_transform as script
import numpy as np
import pytest

from cutnn import algebra
from tests.examples.runs import rows

pytest.importorskip("sklearn")


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(script.PRESETS, "quick", script.Preset(images=20, stride=20))


def test_a_run_on_digits(tiny, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert script.main(["--out", str(tmp_path)]) == 0
    table = rows(tmp_path / "digits-quick" / "table.csv")
    names = ["dct", "identity", "dft", "haar", "random", "data", "db4", "banded", "data, n/4"]
    assert [row["algebra"] for row in table] == names
    assert [row["faces"] for row in table] == ["8"] * 8 + ["2"]
    by_name = {row["algebra"]: row for row in table}
    assert float(by_name["banded"]["condition"]) > 2 > float(by_name["data"]["condition"]) == 1
    assert float(by_name["data"]["nuclear"]) < float(by_name["random"]["nuclear"])
    for row in table[:-1]:
        assert 0 < float(row["t_svdmii_30"]) < float(row["t_svdm_30"]) + 0.1 < 1.5 and row["t_svdm_10"] == ""
    assert (tmp_path / "digits-quick" / "compaction.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "8 x 8 x 20: relative error of the t-SVDM" in capsys.readouterr().out


@pytest.mark.usefixtures("no_pictures", "tiny")
def test_a_cube_and_the_algebras_that_are_named(tmp_path):
    folder = tmp_path / "jasper-ridge"
    folder.mkdir()
    cube = np.random.default_rng(0).integers(0, 999, (100, 100, 12), dtype=np.uint16)
    np.save(folder / "jasper_ridge_100x100x198_u16.npy", cube)
    command = ["--root", str(tmp_path), "--out", str(tmp_path), "--data", "jasper-ridge"]
    assert script.main([*command, "--algebra", "dct", "data"]) == 0
    table = rows(tmp_path / "jasper-ridge-quick" / "table.csv")
    assert [(row["algebra"], row["faces"]) for row in table] == [("dct", "12"), ("data", "12")]


@pytest.mark.usefixtures("no_pictures", "tiny")
def test_a_cube_that_is_not_there_is_said(tmp_path, capsys):
    assert script.main(["--root", str(tmp_path), "--out", str(tmp_path), "--data", "jasper-ridge"]) == 2
    assert "100 x 100 pixels and 198 bands" in capsys.readouterr().err


def test_what_a_length_does_not_allow_is_left_out(monkeypatch, capsys):
    X = np.random.default_rng(0).standard_normal((9, 5, 4))
    assert "db4" not in script.algebras(X, None, None)
    assert "without db4: wavelet: n = 9 cannot be halved" in capsys.readouterr().out
    found = script.algebras(X, None, ["data"])
    assert found == {"data": algebra.from_data(X)}
    assert script.algebras(X, None, None)["data, n/4"].face_shape == (2,)


def test_errors_between_ranks_are_interpolated_on_logarithmic_scales():
    assert script._at(0.1, (0.01, 1.0), (1.0, 0.01)) == pytest.approx(0.1)
    assert script._at(0.01, (0.01, 1.0), (1.0, 0.01)) == pytest.approx(1.0)
    assert script._at(0.001, (0.01, 1.0), (1.0, 0.01)) is None
    assert script._at(0.1, (0.01, 1.0), (1.0, 0.0)) is None
