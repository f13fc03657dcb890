"""The CIFAR-100 experiment: its settings, and a run on small made images."""

from __future__ import annotations

import dataclasses

import cifar10_hamiltonian
import cifar100_hamiltonian as script
import numpy as np
import pytest

from cutnn import data
from tests.examples.runs import rows

pytest.importorskip("matplotlib")


def test_settings_of_the_paper_are_those_of_cifar10():
    ours, theirs = script.PRESETS["paper"], cifar10_hamiltonian.PRESETS["paper"]
    assert dataclasses.replace(ours, networks=theirs.networks) == theirs


def test_a_run_end_to_end(tmp_path, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    scale = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    splits = [
        data.Split(rng.integers(0, 256, (n, 3, 8, 8), np.uint8), np.arange(n) % 100, *scale)
        for n in (200, 100, 100)
    ]
    made = data.Dataset("cifar100", *splits, *scale, tuple(map(str, range(100))))
    monkeypatch.setattr(cifar10_hamiltonian, "load", lambda args: made)
    assert script.main(["--preset", "quick", "--epochs", "1", "--out", str(tmp_path)]) == 0
    assert "cifar100: 200 training" in capsys.readouterr().out
    folder = tmp_path / "cifar100-quick-1-epochs"
    table = rows(folder / "table.csv")
    assert [row["network"] for row in table] == ["t-NN, depth 4, dense head", "t-NN, depth 4, tubal head"]
    assert (folder / "accuracy.png").exists()


def test_missing_data_is_one_line_that_says_where_it_belongs(tmp_path, capsys):
    assert script.main(["--root", str(tmp_path / "nowhere"), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("cifar100_hamiltonian: ") and "cifar-100-python" in error and "download" in error
