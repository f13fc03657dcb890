"""The autoencoders' script, as a user runs it: its table, its files, wrong input, Ctrl-C."""

from __future__ import annotations

import dataclasses
import operator
import sys

import mnist_autoencoder as script
import numpy as np
import pytest
from _experiment import ALGEBRAS

import cutnn as ct
from cutnn import algebra, data, nn, train
from tests.examples.runs import interrupt, interrupted, results, rows

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

QUICK = ["--epochs", "1", "--networks", "t-nn", "matrix-small", "linear"]
FOLDER = "digits-better-1-epochs"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(script, "save", lambda draw, path: None)
        assert script.main([*QUICK, "--out", str(out)]) == 0
    return out / FOLDER / "table.csv"


def test_digits_end_to_end(tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    assert script.main(["--epochs", "1", "--seeds", "1", "2", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "t-NN 8-6-3-6-8, tied" in said and "±" in said  # two seeds
    folder = out / FOLDER
    table = rows(folder / "table.csv")
    assert len(table) == 2 * 5 + 6
    assert all(0 < float(row["test"]) < 120 for row in table)
    assert {row["code"] for row in table if row["network"][:3] in ("t-N", "mat", "t-S")} == {"24"}
    for name in ("reconstructions", "errors", "curves", "codes"):
        assert (folder / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(list(folder.glob("*/history.csv"))) == 10


def test_parameter_counts_are_the_papers():
    star, preset = algebra.dct(28), script.PRESETS["paper"]
    kinds = ("t-nn", *script.MATRIX)
    counts = [nn.count_parameters(script.build(kind, star, preset, 0)) for kind in kinds]
    assert counts == [44_744, 45_794, 86_264, 1_193_864]
    assert [script.name_of(kind, 28) for kind in kinds] == list(script.REFERENCE)
    assert nn.count_parameters(script.build("tied", star, preset, 0)) == 23_464


def test_transposed_images_have_columns_of_pixels_for_tubes(tmp_path, capsys, monkeypatch):
    """Pixels in another order are nothing to PCA, and another problem to the t-SVDM; pictures stand upright."""
    monkeypatch.setattr(script, "save", lambda draw, path: None)
    options = ["--epochs", "1", "--networks", "linear", "--out", str(tmp_path)]
    assert script.main(options) == script.main([*options, "--transposed"]) == 0
    assert "digits, transposed:" in capsys.readouterr().out
    tables = [rows(tmp_path / FOLDER / place / "table.csv") for place in (".", "transposed")]
    errors = [{row["network"]: float(row["train"]) for row in table} for table in tables]
    assert errors[1]["PCA, rank 6"] == pytest.approx(errors[0]["PCA, rank 6"], rel=1e-4)
    assert abs(errors[1]["t-SVDM, rank 3"] / errors[0]["t-SVDM, rank 3"] - 1) > 0.01
    digits = data.load("digits")
    turned = script.transposed(digits)
    X, _ = turned.test.batch([0, 1])
    np.testing.assert_array_equal(X, digits.test.batch([0, 1])[0].transpose(1, 0, 2))
    np.testing.assert_array_equal(script._bytes(X, turned), digits.test.images[:2])


@pytest.mark.parametrize("n", [8, 12, 32])
def test_the_small_matrix_network_is_nearest_in_size(n):
    star, preset = algebra.dct(n), script.PRESETS["better"]
    sizes = [nn.count_parameters(script.build(kind, star, preset, 0)) for kind in ("t-nn", "matrix-small")]
    pixels, _, code = script.sizes_of("matrix-small", n)
    assert abs(sizes[0] - sizes[1]) <= pixels + code + 1  # half of what one more row adds


def test_networks_of_the_mixing_initialiser_start_at_the_size_of_the_input():
    """Biases of the last layer would only be noise in the output; those of the others are what mixes."""
    preset = script.PRESETS["better"]
    for kind in script.TENSOR:
        model = script.build(kind, algebra.dct(28), preset, 0)
        last = model.decoder[-1] if kind == "tied" else model.decoder[-1].bias
        assert not last.any() and np.abs(model.encoder[0].bias).max() > 1
        X = np.random.default_rng(0).normal(size=(28, 28, 50)).astype(np.float32)
        assert float(nn.SquaredError()(model(X), X)) == pytest.approx(784, rel=0.1)
    assert script.build("tied", algebra.dct(28), script.PRESETS["paper"], 0).decoder[-1].any()


def test_linear_maps_are_measured_as_networks_are():
    digits = data.load("digits")
    outcomes = {o.network: o for o in script.linear({"dct": algebra.dct(8)}, digits)}
    assert [o.code for o in outcomes.values()] == [6, 12, 24, 24, 24, 24]
    matrices = data.reconstruction(digits, unfold=True)
    for rank in (6, 12, 24):
        alone = nn.pca(matrices.train.batch(slice(None))[0], rank)
        measured = train.evaluate(alone, nn.SquaredError(), matrices.test).loss
        assert outcomes[f"PCA, rank {rank}"].errors[2] == pytest.approx(measured, rel=1e-5)
        assert outcomes[f"PCA, rank {rank}"].parameters == nn.count_parameters(alone)
    train_errors = [
        outcomes[name].errors[0] for name in ("t-SVDM, rank 3", "t-SVDMII, 24 triplets", "PCA, rank 24")
    ]
    assert train_errors == sorted(train_errors, reverse=True)


def test_every_choice_of_m_is_a_row(tmp_path, no_pictures):
    options = ["--epochs", "1", "--out", str(tmp_path), "--networks", "t-nn", "matrix-small", "linear"]
    assert script.main([*options, "--algebra", *ALGEBRAS]) == 0
    names = [row["network"] for row in rows(tmp_path / FOLDER / "table.csv")]
    assert len(names) == len(set(names)) == len(ALGEBRAS) + 1 + 3 + 2 * len(ALGEBRAS)
    assert {"t-NN 8-6-3-6-8", "t-NN 8-6-3-6-8, dft", "t-SVDM, rank 3, haar"} <= set(names)


def test_the_reference_is_that_of_as_many_epochs_or_fewer():
    known = {epochs: script._reference("t-NN 28-20-10-20-28", epochs) for epochs in (1, 49, 50, 120, 200)}
    assert [row["reference_validation"] for row in known.values()] == [189.9, 189.9, 24.68, 24.68, 19.52]
    assert script._reference("PCA, rank 21", 50) == {"reference_train": 192.0}
    assert script._reference("t-NN 28-20-10-20-28, dft", 50) == {}
    assert script._reference("matrix 784-21-280-21-784", 50)["reference_epochs"] == 200


@pytest.mark.parametrize("kind", ["t-nn", "matrix-small"])
def test_pictures_show_what_the_network_makes_of_the_images(kind, tmp_path, monkeypatch):
    digits, grids = data.load("digits"), []
    monkeypatch.setattr(script, "_grid", lambda images, **options: grids.append(images))
    preset = dataclasses.replace(script.PRESETS["better"], epochs=1)
    outcome = script.run(kind, algebra.dct(8), digits, preset, 42, tmp_path)
    script.reconstructions([outcome], digits)
    originals, decoded = grids[0].values()
    chosen = script._one_of_each(digits)
    np.testing.assert_array_equal(digits.test.labels[chosen], np.arange(10))
    np.testing.assert_array_equal(originals, digits.test.images[chosen])
    X, _ = data.reconstruction(digits, unfold=kind == "matrix-small").test.batch(chosen)
    Y = ct.reshape(outcome.model(X), (8, 8, 10))
    np.testing.assert_array_equal(decoded, data.to_images(Y, digits.mean, digits.std))


# ----------------------------------------------------------------------------------- wrong input, interrupts


def test_missing_data_is_one_line_and_a_status(tmp_path, capsys):
    assert script.main(["--data", "mnist", "--root", str(tmp_path), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path) in error and "download" in error and "Traceback" not in error


def test_unwritable_folder_is_said_before_training(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(script.train, "fit", lambda *a, **k: pytest.fail("trained"))
    assert script.main(["--out", str(tmp_path / "file" / "below")]) == 2
    assert "file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ["--epochs", "0"],
        ["--seeds", "-1"],
        ["--data", "cifar10"],
        ["--preset", "best"],
        ["--networks", "pca"],
        ["--algebra", "wavelets"],
    ],
)
def test_wrong_arguments_are_argparse_errors(wrong):
    with pytest.raises(SystemExit) as info:
        script.main(wrong)
    assert info.value.code == 2


def test_help_lists_the_choices(capsys):
    with pytest.raises(SystemExit):
        script.main(["--help"])
    said = capsys.readouterr().out
    assert all(choice in said for choice in (*ALGEBRAS, *script.PRESETS, *script.TENSOR, *script.MATRIX))


@pytest.mark.parametrize(
    "where",
    [
        ("nn.SquaredError", "__call__"),
        ("train", "evaluate"),
        ("nn", "pca"),
        ("data", "load"),
        ("plot", "to_host"),
    ],
    ids=["first epoch", "evaluation", "linear maps", "data", "pictures"],
)
def test_after_ctrl_c_the_same_command_ends_with_the_same_table(
    where, tmp_path, capsys, monkeypatch, uninterrupted
):
    target, name = where
    command = [*QUICK, "--out", str(tmp_path)]
    with monkeypatch.context() as patched:
        owner = script if target == "plot" else operator.attrgetter(target)(script)
        patched.setattr(owner, "reconstructions" if target == "plot" else name, interrupt)
        assert script.main(command) == 130
    assert "the same command goes on from here" in capsys.readouterr().out
    monkeypatch.setattr(script, "save", lambda draw, path: None)
    assert script.main(command) == 0
    assert results(tmp_path / FOLDER / "table.csv") == results(uninterrupted)


def test_a_finished_run_is_read_back_and_not_trained_again(tmp_path, monkeypatch, no_pictures):
    command = ["--epochs", "1", "--networks", "t-nn", "--out", str(tmp_path)]
    assert script.main(command) == 0
    before = (tmp_path / FOLDER / "table.csv").read_text()
    monkeypatch.setattr(script.optim.Adam, "step", lambda *a: pytest.fail("trained"))
    assert script.main(command) == 0
    assert (tmp_path / FOLDER / "table.csv").read_text() == before


def test_a_real_ctrl_c_ends_the_run_with_a_word(tmp_path):
    out, first, status = interrupted(script.__file__, "--epochs", "10000", "--out", str(tmp_path))
    assert "digits: 1,197 training" in first
    assert status == 130 and "Traceback" not in out and "interrupted" in out


def test_without_matplotlib_there_is_a_table_and_no_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert script.main([*QUICK, "--out", str(tmp_path)]) == 0
    assert "no pictures will be drawn" in capsys.readouterr().out
    assert (tmp_path / FOLDER / "table.csv").exists() and not list(tmp_path.rglob("*.png"))


@pytest.mark.data
def test_linear_maps_of_mnist_are_those_of_the_reference(data_root):
    """On 3,000 of the images: the errors of linear maps depend little on how many there are."""
    mnist = data.load("mnist", root=data_root)
    part = dataclasses.replace(
        mnist.train, images=mnist.train.images[:3000], labels=mnist.train.labels[:3000]
    )
    outcomes = script.linear(
        {"dct": algebra.dct(28)}, dataclasses.replace(mnist, train=part, validation=part)
    )
    measured = {o.network: o.errors[0] for o in outcomes}
    for name, expected in script.LINEAR_REFERENCE.items():
        assert measured[name] == pytest.approx(expected, rel=0.15), name
