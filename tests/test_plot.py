"""Pictures show what they are given: marks, lines and labels are read back from the figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")

from cutnn import plot  # noqa: E402

HISTORY = {"epoch": [1, 2, 3], "train_loss": [3.0, 2.0, 1.0], "validation_accuracy": [0.1, 0.5, 0.9]}


def test_curves_draw_each_history():
    figure = plot.curves({"one": HISTORY, "two": HISTORY})
    loss, accuracy = figure.axes
    np.testing.assert_array_equal(loss.lines[1].get_ydata(), [3, 2, 1])
    np.testing.assert_array_equal(accuracy.lines[0].get_xydata(), [[1, 0.1], [2, 0.5], [3, 0.9]])
    assert [t.get_text() for t in accuracy.get_legend().get_texts()] == ["one", "two"]


def test_one_epoch_is_a_mark_and_epochs_are_whole_numbers():
    one = {name: values[:1] for name, values in HISTORY.items()}
    figure = plot.curves({"one": one})
    assert figure.axes[0].lines[0].get_marker() == "o"
    for histories in ({"one": one}, {"three": HISTORY}):
        for ticks in plot.curves(histories).axes[0].get_xticks():
            assert ticks == round(ticks)


def test_faces_share_one_scale():
    A = np.arange(24.0).reshape(2, 3, 4)
    figure = plot.faces(A)
    for k, ax in enumerate(figure.axes):
        np.testing.assert_array_equal(ax.images[0].get_array(), A[k])
        assert ax.images[0].get_clim() == (0, 23)


def test_faces_of_a_batch_are_refused():
    with pytest.raises(ValueError, match=r"\(n, l, m\).*\(2, 3, 4, 5\)"):
        plot.faces(np.zeros((2, 3, 4, 5)))


def test_class_tubes_have_classes_in_rows():
    tubes = np.random.default_rng(0).uniform(size=(8, 10, 2))
    figure = plot.class_tubes(np.zeros((2, 8, 8)), tubes, [3, 7], [str(k) for k in range(10)])
    np.testing.assert_array_equal(figure.axes[3].images[0].get_array(), tubes[:, :, 1].T)
    assert figure.axes[2].get_title() == "predicted 7"
    names = [f"digit {k}" for k in range(10)]
    titled = plot.class_tubes(np.zeros((2, 8, 8)), tubes, [3, 7], names, labels=[3, 1])
    assert titled.axes[2].get_title() == "digit 1, predicted digit 7"


def test_accuracy_against_parameters_marks_each_network():
    figure = plot.accuracy_against_parameters({"a": (100, 90.0), "b": (10_000, 95.0)})
    points = [c.get_offsets().data.tolist() for c in figure.axes[0].collections]
    assert points == [[[100, 90]], [[10_000, 95]]]


@pytest.mark.parametrize("sizes", [(1_226, 4_810), (30_586, 623_290), (100, 120)])
def test_sizes_within_one_decade_have_labels(sizes, tmp_path):
    figure = plot.accuracy_against_parameters({str(size): (size, 90.0) for size in sizes})
    figure.savefig(tmp_path / "accuracy.png")
    axis = figure.axes[0].xaxis
    shown = [t.label1.get_text() for t in axis.get_major_ticks() if axes_hold(axis, t.get_loc())]
    assert shown and all(shown)


def axes_hold(axis, position):
    low, high = axis.get_view_interval()
    return low <= position <= high


def test_layout_is_the_readmes_picture(tmp_path):
    """The three parts carry both notations, and the picture in the README is there."""
    figure = plot.layout()
    figure.savefig(tmp_path / "layout.png")
    texts = " ".join(t.get_text() for ax in figure.axes for t in ax.texts)
    for index in ("A[:, :, k]", "A[k]", "A[i, j, :]", "A[:, i, j]", "A[:, j, :]", "A[:, :, j]"):
        assert index in texts
    assert (Path(__file__).parent.parent / "docs" / "layout.png").stat().st_size > 10_000
