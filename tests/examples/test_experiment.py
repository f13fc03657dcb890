"""What the experiments share: choices of M, runs that are read back, tables, answers to what a user does."""

from __future__ import annotations

import argparse
import csv
import doctest
import itertools
import re
import sys

import _experiment as shared
import cifar10_hamiltonian
import mnist_autoencoder
import mnist_classify
import numpy as np
import pytest
import trajectories
from _experiment import Refused, Table

from cutnn import algebra, data, nn, optim

pytest.importorskip("sklearn")


# ---------------------------------------------------------------------------------------------- choices of M


def matrix(star):
    """M, from the transforms of the unit tubes."""
    return star.forward(np.eye(star.n).reshape(star.n, 1, star.n))[:, 0]


@pytest.mark.parametrize("name", shared.ALGEBRAS)
@pytest.mark.parametrize("n", [8, 28])
def test_every_choice_of_m_is_a_multiple_of_a_unitary_matrix(name, n):
    images = np.random.default_rng(0).integers(0, 256, (50, n, n), dtype=np.uint8)
    star = shared.algebra_named(name, n, data.Split(images, np.arange(50)))
    A = star.random(4, 3, seed=0)
    X = star.random(3, 2, seed=1)
    np.testing.assert_allclose(star.unfold(star(A, X)), star.to_matrix(A) @ star.unfold(X), atol=1e-10)
    if name != "dft":  # its transform is halved for real tubes
        M = matrix(star)
        np.testing.assert_allclose(M @ M.T, np.eye(n), atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 8, 32])
def test_unbalanced_haar_wavelets_of_a_power_of_two_are_haars(n):
    np.testing.assert_allclose(shared._unbalanced_haar(n), matrix(algebra.haar(n)), atol=1e-12)


@pytest.mark.parametrize("n", [3, 5, 7, 28, 33])
def test_unbalanced_haar_wavelets_are_orthonormal_steps_of_two_values(n):
    M = shared._unbalanced_haar(n)
    np.testing.assert_allclose(M @ M.T, np.eye(n), atol=1e-12)
    for row in M[1:]:
        assert abs(row.sum()) < 1e-12
        assert len(np.unique(row[row != 0].round(9))) == 2


def test_random_m_is_the_same_for_a_seed():
    assert shared.algebra_named("random", 5) == shared.algebra_named("random", 5)
    assert shared.algebra_named("random", 5) != shared.algebra_named("random", 5, seed=1)


def test_unknown_choices_say_what_there_is():
    with pytest.raises(ValueError, match="dct, identity"):
        shared.algebra_named("wavelet", 4)
    with pytest.raises(ValueError, match="from a split"):
        shared.algebra_named("data", 4)


def test_a_tubal_loss_is_defined_over_the_real_form_of_every_algebra():
    for name in ("dct", "dft", "haar"):
        star = shared.algebra_named(name, 6)
        loss = nn.TubalCrossEntropy(shared.real_form(star))
        assert np.isfinite(loss(star.random(4, 3, seed=0), np.array([0, 1, 2])))
    assert shared.real_form(algebra.fft(6)) == algebra.hartley(6)


# --------------------------------------------------------------------------------------------------- running


def train(folder, epochs=2, lr=1e-2, star=None):
    model = nn.Sequential(nn.Unfold(), nn.Dense(64, 10, seed=0))
    if star is not None:
        model = nn.Sequential(nn.TLinear(star, 8, 8, seed=0), *model)
    optimizer = optim.Adam(model, lr=lr)
    digits = data.load("digits")
    return shared.run_or_resume(
        model, nn.CrossEntropy(), digits, optimizer=optimizer, folder=folder, epochs=epochs, batch_size=400
    )


def test_a_finished_run_is_read_back(tmp_path, monkeypatch):
    first = train(tmp_path)
    monkeypatch.setattr(optim.Adam, "step", lambda *args: pytest.fail("trained again"))
    again = train(tmp_path)
    assert list(again.history) == list(first.history)
    assert np.array_equal(again.model[1].weight, first.model[1].weight)


def test_an_interrupt_is_raised_and_the_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    steps = []
    real = optim.Adam.step

    def step(*args):
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(optim.Adam, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "interrupted")
    resumed = train(tmp_path / "interrupted")
    assert len(steps) < 2 * 6 + 3  # it did not begin anew
    whole = train(tmp_path / "whole")
    assert np.array_equal(resumed.model[1].weight, whole.model[1].weight)


def test_a_folder_of_other_settings_is_refused_with_what_to_do(tmp_path):
    train(tmp_path)
    with pytest.raises(Refused, match=r"optimizer.lr was 0.01, and is 0.1.*--fresh"):
        train(tmp_path, lr=1e-1)


def test_a_folder_of_another_matrix_is_refused_with_what_to_do(tmp_path):
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    train(tmp_path, star=algebra.from_matrix(Q))
    with pytest.raises(Refused, match=r"another transform.*--fresh"):
        train(tmp_path, star=algebra.from_matrix(Q[::-1]))


def test_wrong_calls_of_fit_are_not_refusals(tmp_path):
    with pytest.raises(ValueError, match="epochs"):
        train(tmp_path, epochs=0)


def test_folders_of_runs_have_plain_names(tmp_path):
    assert shared.run_folder(tmp_path, "t-linear + dense head, 0.5", 3).name == "t-linear-dense-head-0.5-3"


def arguments(*options, choices=()):
    return shared.parser("A test.", ("paper", "quick"), "quick", "test", choices).parse_args(options)


def test_settings_have_folders_of_their_own(tmp_path):
    out = ("--out", str(tmp_path))
    folders = [
        shared.prepare(arguments(*out)),
        shared.prepare(arguments(*out, "--preset", "paper")),
        shared.prepare(arguments(*out, "--epochs", "3")),
        shared.prepare(arguments(*out, "--data", "mnist", choices=("digits", "mnist"))),
    ]
    assert [f.name for f in folders] == ["quick", "paper", "quick-3-epochs", "mnist-quick"]
    assert all(f.is_dir() for f in folders)


def test_networks_of_the_experiments_have_folders_of_their_own(tmp_path):
    kinds = (*mnist_autoencoder.TENSOR, *mnist_autoencoder.MATRIX)
    variants = [
        cifar10_hamiltonian.Variant(*pair).label for pair in itertools.product((False, True), repeat=2)
    ]
    cifar = [f"{head}-{depth}" for head in ("dense", "tubal", "matrix") for depth in (4, 8, 44)]
    for networks, rest in (
        ([*mnist_classify.REFERENCE, "deep t-NN"], ["", ", 200 images", ", 2000 images"]),
        ([mnist_autoencoder.name_of(kind, 28) for kind in kinds], [""]),
        (cifar, [*variants, *(f"{variant}, 1 epochs" for variant in variants)]),
        (trajectories.NETWORKS, [f" h {h}" for h in ("0.5", "1", "10")]),
    ):
        runs = list(itertools.product(networks, shared.ALGEBRAS, rest, (1, 11)))
        folders = {shared.run_folder(tmp_path, shared.label(n, a) + more, seed) for n, a, more, seed in runs}
        assert len(folders) == len(runs)
        assert {folder.parent for folder in folders} == {tmp_path}


def test_fresh_forgets_runs_and_nothing_else(tmp_path):
    folder = shared.prepare(arguments("--out", str(tmp_path)))
    train(folder / "a-1", epochs=1)
    (folder / "killed-1").mkdir()
    (folder / "killed-1" / "model.safetensors").write_bytes(b"before the first checkpoint")
    (folder / "notes").mkdir()
    (folder / "notes" / "history.csv").write_text("mine")
    (folder / "table.csv").write_text("")
    other = shared.prepare(arguments("--out", str(tmp_path), "--preset", "paper"))
    train(other / "a-1", epochs=1)
    shared.prepare(arguments("--out", str(tmp_path), "--fresh"))
    assert sorted(path.name for path in folder.iterdir()) == ["notes", "table.csv"]
    assert (folder / "notes" / "history.csv").read_text() == "mine"
    assert (other / "a-1" / "history.csv").exists()


def test_a_run_that_is_not_to_be_fresh_forgets_nothing(tmp_path):
    folder = shared.prepare(arguments("--out", str(tmp_path)))
    (folder / "a-1").mkdir()
    (folder / "a-1" / "model.safetensors").write_bytes(b"")
    shared.prepare(arguments("--out", str(tmp_path)))
    assert [path.name for path in folder.iterdir()] == ["a-1"]  # nor does the look whether it can write stay


@pytest.mark.parametrize(
    ("least", "text", "number"), [(0, "0", 0), (1, "1", 1), (1, "007", 7), (0, "12", 12)]
)
def test_whole_numbers_are_read(least, text, number):
    assert shared.whole(least, "a number")(text) == number


@pytest.mark.parametrize(
    ("least", "text"), [(1, "0"), (0, "-1"), (0, "1.5"), (0, "1e3"), (0, ""), (0, "²"), (2, "1")]
)
def test_what_is_no_whole_number_is_refused_with_what_was_expected(least, text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"^{re.escape(text)} is not a depth$"):
        shared.whole(least, "a depth")(text)


def test_the_device_goes_with_the_data(pretend_device, monkeypatch):
    monkeypatch.setattr("cutnn.device._default_device", "pretend")
    dataset = shared.load(arguments(choices=("digits",)))
    assert type(dataset.train.images).__name__ == "PretendArray"


# -------------------------------------------------------------------------------------- answers to the user


def guarded(error):
    @shared.main_guard
    def main(argv=None):
        raise error

    return main


def test_ctrl_c_says_what_to_do(capsys):
    assert guarded(KeyboardInterrupt())([]) == 130
    assert capsys.readouterr().out == "interrupted; the same command goes on from here\n"
    assert guarded(KeyboardInterrupt())(["--fresh"]) == 130
    assert "without --fresh, goes on" in capsys.readouterr().out


def test_what_main_returns_is_the_status():
    @shared.main_guard
    def main(argv=None):
        return len(argv)

    assert main([]) == 0 and main(["a", "b", "c"]) == 3


def test_fresh_is_looked_for_in_the_command_line_too(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["test", "--fresh"])
    assert guarded(KeyboardInterrupt())() == 130
    assert "without --fresh" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error", [Refused("no such thing"), OSError("no such thing"), ImportError("no such thing")]
)
def test_expected_errors_are_one_line_and_status_2(error, capsys):
    assert guarded(error)([]) == 2
    out, err = capsys.readouterr()
    assert err == "test_experiment: no such thing\n" and not out


def test_unexpected_errors_are_raised():
    with pytest.raises(ZeroDivisionError):
        guarded(ZeroDivisionError())([])


def test_wrong_input_is_refused(tmp_path):
    with pytest.raises(Refused, match="'tpu'"):
        shared.prepare(arguments("--device", "tpu"))
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="cannot write.*--out"):
        shared.prepare(arguments("--out", str(tmp_path / "file" / "below")))
    with pytest.raises(Refused, match="Here: --download fetches it, --root names another folder"):
        shared.load(arguments("--root", str(tmp_path), choices=("mnist",)))


# -------------------------------------------------------------------------------------------------- tables


def test_the_docstring_of_the_table_is_right():
    assert doctest.testmod(shared).failed == 0


def test_runs_that_differ_in_the_seed_alone_are_one_line():
    table = Table({"network": "", "depth": "d", "seed": "d", "test": ".1f", "reference": ".1f"})
    for seed, test in ((1, 90.0), (2, 92.0)):
        table.row(network="a", depth=4, seed=seed, test=test, reference=93.5)
        table.row(network="a", depth=8, seed=seed, test=test + 1)
    lines = table.text().splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["a", "4", "91.0", "±", "1.0", "93.5"],
        ["a", "8", "92.0", "±", "1.0"],
    ]
    assert table.column("test", depth=8) == [91.0, 93.0]


def test_columns_without_a_number_are_empty_and_stay_in_line():
    table = Table({"network": "", "depth": "d", "seed": "d", "test": ".1f", "reference": ".1f", "note": ""})
    table.row(network="a", seed=1, test=None, note="x")
    table.row(network="a", seed=2, test=90.0, note="x")
    table.row(network="long name", depth=4, seed=1)
    head, line, *rows = table.text().splitlines()
    assert head.split() == ["network", "depth", "test", "reference", "note"] and set(line) == {"-"}
    assert [row.split() for row in rows] == [["a", "90.0", "x"], ["long", "name", "4"]]
    assert rows[0].index("90.0") == head.index("test") and rows[0].index("x") == head.index("note")
    assert rows[1].index("4") == head.index("depth") + len("depth") - 1
    assert Table({"network": "", "test": ".1f"}).text().splitlines()[0] == "network   test"


def test_a_table_as_csv_has_every_run(tmp_path):
    table = Table({"network": "", "seed": "d", "test": ".1f"})
    table.row(network="a, b", seed=1, test=100 / 3)
    table.row(network="c", seed=2)
    table.write_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open() as file:
        assert list(csv.DictReader(file)) == [
            {"network": "a, b", "seed": "1", "test": "33.3333"},
            {"network": "c", "seed": "2", "test": ""},
        ]


def test_unknown_columns_are_named():
    with pytest.raises(ValueError, match="no columns tset; there are test"):
        Table({"test": ".1f"}).row(tset=1.0)


def test_pictures_are_drawn_where_matplotlib_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    shared.save(lambda: pytest.fail("drawn"), tmp_path / "a.png")
    assert capsys.readouterr().out == ""
