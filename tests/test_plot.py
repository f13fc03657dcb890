"""Pictures show what they are given: marks, lines and labels are read back from the figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")

from cutnn import algebra, nn, plot  # noqa: E402

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


def test_compaction_draws_each_algebra_in_both_panels():
    X = np.random.default_rng(0).standard_normal((4, 6, 7))
    found = algebra.compare(X, {f"M {k}": algebra.random_orthogonal(4, seed=k) for k in range(8)})
    figure = plot.compaction(found, "title")
    left, right = figure.axes
    for ax, field in ((left, "t_svdm"), (right, "t_svdmii")):
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        for line, row in zip(ax.lines, found.rows, strict=True):
            np.testing.assert_allclose(line.get_xdata(), 100 * np.array(row.storage))
            np.testing.assert_allclose(line.get_ydata(), getattr(row, field))
    looks = {(line.get_color(), line.get_linestyle()) for line in left.lines}
    assert len(looks) == 8  # no two alike
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [row.algebra for row in found.rows]
    assert left.get_ylabel() == "relative error" and figure.get_suptitle() == "title"
    exact = algebra.compare(np.ones((4, 6, 7)), [algebra.dct(4)], ranks=(1, 2))
    assert all(len(ax.lines[0].get_xdata()) <= 2 for ax in plot.compaction(exact).axes)
    zero = algebra.compare(np.zeros((4, 6, 7)), [algebra.dct(4)])
    assert not any(len(ax.lines[0].get_xdata()) for ax in plot.compaction(zero).axes)


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


# ------------------------------------------------------------------------------ networks as dynamical systems


def networks():
    star = algebra.dct(2)
    options = {"depth": 3, "h": 0.5, "dtype": np.float64, "seed": 0}
    return {
        "Euler": nn.ResNet(star, 2, **options),
        "leapfrog": nn.HamiltonianNet(star, 2, **options),
        "RK4": nn.ResNet(star, 2, structure="antisymmetric", gamma=0.0, integrator="rk4", **options),
    }


X = np.random.default_rng(0).normal(size=(2, 2, 5))


def test_a_spectrum_is_drawn_times_h_within_the_region(tmp_path):
    nets = networks()
    figure = plot.spectrum(nets, X[..., :2])
    figure.savefig(tmp_path / "spectrum.png")
    panels = [ax for ax in figure.axes if ax.get_title()]
    assert len(panels) == 3
    for ax, (name, net) in zip(panels, nets.items(), strict=True):
        values = [nn.jacobian_spectrum(net, X[..., i : i + 1]) for i in range(2)]
        drawn = ax.collections[-1]
        offsets = drawn.get_offsets() @ [1, 1j]
        np.testing.assert_allclose(np.sort(offsets), np.sort(net.h * np.concatenate(values, axis=1).ravel()))
        np.testing.assert_array_equal(sorted(set(drawn.get_array())), [0, 0.5, 1.0])
        assert ax.get_title().startswith(f"{name}\n")
    factors = nn.amplification(nets["Euler"].integrator, panels[0].collections[-1].get_offsets() @ [1, 1j])
    said = (
        f"{100 * np.mean(factors > 1 + 1e-6):.0f} % outside, a step multiplies by up to {factors.max():.3g}"
    )
    assert panels[0].get_title().endswith(said)
    assert panels[1].get_title().endswith("\n0 % outside, a step multiplies by up to 1")
    # Leapfrog's region is the segment of the imaginary axis up to 2, Runge-Kutta's has an inside.
    np.testing.assert_allclose(panels[1].lines[0].get_ydata(), [-2, 2], atol=2e-3)
    edges = [c for c in panels[2].collections if isinstance(c, matplotlib.contour.ContourSet)]
    around = np.concatenate([path.vertices for path in edges[-1].get_paths()])
    np.testing.assert_allclose(nn.amplification(nets["RK4"].integrator, around @ [1, 1j]), 1, atol=0.01)


@pytest.mark.parametrize(("integrator", "inside"), [("euler", -1.0), ("rk4", 2.5j), ("midpoint", None)])
def test_the_region_is_drawn_however_far_away_eigenvalues_lie(integrator, inside):
    net = nn.ResNet(
        algebra.plain(),
        2,
        depth=1,
        h=1.0,
        activation=None,
        bias=False,
        integrator=integrator,
        dtype=np.float64,
    )
    net[0].weight = np.diag([-100.0, 100.0])
    ax = plot.spectrum(net, np.ones((2, 1))).axes[0]
    regions = [c for c in ax.collections if isinstance(c, matplotlib.contour.ContourSet)]
    if inside is None:
        np.testing.assert_allclose(ax.lines[0].get_ydata(), [-1, 1], atol=2e-3)
    else:
        (path,) = regions[0].get_paths()
        assert path.contains_point((inside.real, inside.imag)) and not path.contains_point((-3.4, 0))


def test_eigenvalues_outside_are_ringed():
    net = nn.ResNet(algebra.plain(), 2, depth=1, h=1.0, activation=None, bias=False, dtype=np.float64)
    net[0].weight = np.diag([-1.0, 0.5])
    figure = plot.spectrum(net, np.ones((2, 1)))
    marks = figure.axes[0].collections[-1]
    inside = marks.get_offsets()[:, 0] < 0
    assert [len(set(marks.get_edgecolors()[:, 3][chosen])) for chosen in (inside, ~inside)] == [1, 1]
    assert figure.axes[0].get_title() == "ResNet\n50 % outside, a step multiplies by up to 1.5"


def test_what_is_not_a_time_network_is_refused():
    for picture in (plot.spectrum, plot.stability):
        with pytest.raises(TypeError, match="'dense' is a Dense, not a ResNet or a HamiltonianNet"):
            picture({"dense": nn.Dense(2, 2)}, X)


def square_loss(Y, target):
    return ((Y - target) ** 2).sum()


def test_stability_shows_the_numbers_it_is_about(tmp_path):
    nets = networks()
    gradients = {name: nn.gradient_norms(net, square_loss, X, 0 * X) for name, net in nets.items()}
    figure = plot.stability(nets, X, gradients)
    figure.savefig(tmp_path / "stability.png")
    numbers, energy, states, of_states, of_weights, legend = figure.axes
    for k, (name, net) in enumerate(nets.items()):
        np.testing.assert_array_equal(numbers.lines[k].get_ydata(), nn.stability_numbers(net).numbers)
        np.testing.assert_allclose(states.lines[k].get_ydata(), np.median(nn.norms(net, X), axis=1))
        np.testing.assert_allclose(of_states.lines[k].get_ydata(), np.median(gradients[name].states, axis=1))
        np.testing.assert_array_equal(of_weights.lines[k].get_ydata(), gradients[name].weights)
    bounds = [line.get_ydata()[0] for line in numbers.lines[3:]]
    np.testing.assert_allclose(bounds, [2, 2 * 2**0.5])
    assert len(energy.lines) == 2  # without structure there is none
    values, drift = nn.energy(nets["leapfrog"], X)
    added = np.median(np.cumsum(drift, axis=0) / values[0], axis=1)
    np.testing.assert_allclose(energy.lines[0].get_ydata(), [0, *added])
    texts = [text.get_text() for text in legend.get_legend().get_texts()]
    assert [text.partition("\n")[0] for text in texts] == list(nets)
    assert texts[0].endswith(
        f"no bound; modes grow by up to {nn.stability_numbers(nets['Euler']).growth:.2g}"
    )
    assert texts[1].endswith("bound 2; modes grow by up to 1")


def test_stability_of_one_network():
    net = networks()["Euler"]
    figure = plot.stability(net, X)
    assert [ax.get_ylabel() for ax in figure.axes[:-1]] == ["h σ(K̂) max σ′", "norm of the state"]
    figure = plot.stability(net, X, nn.gradient_norms(net, square_loss, X, X))
    assert len(figure.axes) == 5


def test_trajectories_have_networks_in_rows_and_times_in_columns(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.array([0, 1, 2] * 4)
    states = {name: [rng.normal(size=(3, 1, 12)) for _ in range(3)] for name in ("Euler", "leapfrog")}
    curves = {name: [[rng.normal(size=(3, 7))] * 2 for _ in range(3)] for name in states}
    figure = plot.trajectories(states, labels, ["start", "middle", "end"], ["a", "b", "c"], curves)
    figure.savefig(tmp_path / "trajectories.png")
    assert len(figure.axes) == 6
    assert [ax.get_title() for ax in figure.axes] == ["start", "middle", "end", "", "", ""]
    ax = figure.axes[5]
    for k, drawn in enumerate(ax.collections):
        np.testing.assert_array_equal(np.array(drawn._offsets3d), states["leapfrog"][2][:, 0, labels == k])
    assert len(ax.lines) == 2
    np.testing.assert_array_equal(np.array(ax.lines[0].get_data_3d()), curves["leapfrog"][2][0])
    texts = [[text.get_text() for text in ax.texts] for ax in figure.axes]
    assert texts[3][-1] == "leapfrog" and all(first[0].startswith("± ") for first in texts)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]


def test_trajectories_in_two_dimensions():
    cloud = np.random.default_rng(0).normal(size=(2, 50))
    figure = plot.trajectories({"net": [cloud, 2 * cloud]}, np.arange(50) % 2, ["0", "1"])
    offsets = figure.axes[1].collections[1].get_offsets()
    np.testing.assert_allclose(offsets, 2 * cloud[:, 1::2].T)
    (low, high), (bottom, top) = figure.axes[1].get_xlim(), figure.axes[1].get_ylim()
    assert high - low == pytest.approx(top - bottom)


def test_trajectories_that_do_not_fit():
    with pytest.raises(ValueError, match="'net' has points at 1 times, and titles 2"):
        plot.trajectories({"net": [np.zeros((3, 4))]}, np.zeros(4, int), ["0", "1"])
    for shape in [(4, 4), (3, 5), (2, 2, 4)]:
        with pytest.raises(ValueError, match=r"\(2, 4\) or \(3, 4\), and 'net' has \("):
            plot.trajectories({"net": [np.zeros(shape)]}, np.zeros(4, int), ["0"])
