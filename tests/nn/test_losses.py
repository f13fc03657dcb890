"""Losses: against the definitions written out, as probabilities, derivatives of both orders, bad input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra, nn
from tests.algebra.catalogue import ALGEBRAS as EVERY_ALGEBRA

REAL = {
    "dct": algebra.dct(5),
    "hartley": algebra.hartley(4),
    "identity": algebra.identity(1),
    "random": algebra.random_orthogonal(6, seed=0),
    "matrix": algebra.from_matrix(np.array([[2.0, 1.0, 0.0], [0.0, 5.0, 1.0], [1.0, 0.0, 0.5]])),
    "order 4": algebra.product(algebra.dct(3), algebra.hartley(2)),
    "plain": algebra.plain(),
}
COMPLEX = {"fft even": algebra.fft(4), "fft odd": algebra.fft(5)}
every_real = pytest.mark.parametrize("star", REAL.values(), ids=REAL)
every_form = pytest.mark.parametrize("form", ["authors", "likelihood"])
LABELS = np.array([2, 0, 2, 1, 3, 3, 0])


def outputs(star, seed=0, scale=1.0):
    return scale * star.random(4, len(LABELS), seed=seed)


def log_softmax_of_faces(star, Y):
    """(n, classes, N), by loops and the matrix of the algebra's transform alone."""
    M = np.eye(1)
    for transform in star.transforms:
        M = np.kron(M, transform.matrix())
    hats = np.tensordot(M, Y.reshape(star.n, *Y.shape[-2:]), axes=1)
    L = np.empty_like(hats)
    for k in range(star.n):
        for j in range(hats.shape[2]):
            column = hats[k, :, j]
            L[k, :, j] = column - math.log(sum(math.exp(v) for v in column))
    return L


# ---------------------------------------------------------------------------------------------- values


@every_form
@every_real
def test_the_tubal_loss_is_its_definition(star, form):
    Y = outputs(star)
    L = log_softmax_of_faces(star, Y)
    if form == "authors":
        scores = -np.sum(L**2, axis=0) / (2 * star.n)
    else:
        scores = np.mean(L, axis=0)
    loss = nn.TubalCrossEntropy(star, form=form)
    value = -np.mean([scores[label, j] for j, label in enumerate(LABELS)])
    assert float(loss(Y, LABELS)) == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(loss.scores(Y), scores, rtol=1e-11)
    np.testing.assert_array_equal(loss.predict(Y), np.argmax(scores, axis=0))
    both, classes = loss.with_prediction(Y, LABELS)
    assert float(both) == pytest.approx(value, rel=1e-12)
    np.testing.assert_array_equal(classes, np.argmax(scores, axis=0))


def test_the_loss_of_a_random_start_is_half_the_square_of_the_log_of_the_classes():
    star = algebra.dct(28)
    layers = [nn.TLinear(star, 28, n, ct.tanh, init=nn.initializers.authors, seed=n) for n in (28, 10)]
    X = star.random(28, 64, seed=0, dtype=np.float32)
    value = nn.TubalCrossEntropy(star)(nn.Sequential(*layers)(X), np.arange(64) % 10)
    assert float(value) == pytest.approx(2.65, abs=0.02)
    assert float(nn.TubalCrossEntropy(star)(np.zeros((28, 10, 1)), np.array([4]))) == pytest.approx(
        math.log(10) ** 2 / 2
    )


def test_cross_entropy_is_the_mean_of_the_negative_log_likelihoods():
    Y = np.random.default_rng(0).normal(size=(4, 7))
    p = np.exp(Y) / np.exp(Y).sum(axis=0)
    loss = nn.CrossEntropy()
    value = -np.mean(np.log(p[LABELS, np.arange(7)]))
    assert float(loss(Y, LABELS)) == pytest.approx(value, rel=1e-13)
    assert float(loss.with_prediction(Y, LABELS)[0]) == pytest.approx(value, rel=1e-13)
    np.testing.assert_array_equal(loss.predict(Y), np.argmax(Y, axis=0))
    likelihood = nn.TubalCrossEntropy(algebra.plain(), form="likelihood")
    assert float(likelihood(Y, LABELS)) == pytest.approx(value, rel=1e-13)


def test_mean_squared_error_is_a_mean_over_entries():
    Y, T = (np.random.default_rng(seed).normal(size=(3, 4, 2)) for seed in (0, 1))
    assert float(nn.MeanSquaredError()(Y, T)) == pytest.approx(np.mean((Y - T) ** 2))
    assert float(nn.MeanSquaredError()(Y + 2j * T, T * 0)) == pytest.approx(np.mean(Y**2 + 4 * T**2))


@pytest.mark.parametrize("shape", [(3, 4, 2), (5, 2), (2, 3, 4, 2)])
def test_squared_error_is_a_sum_over_the_sample_and_a_mean_over_samples(shape):
    Y, T = (np.random.default_rng(seed).normal(size=shape) for seed in (0, 1))
    of_samples = [np.sum((Y[..., j] - T[..., j]) ** 2) for j in range(2)]
    assert float(nn.SquaredError()(Y, T)) == pytest.approx(np.mean(of_samples))
    assert float(nn.SquaredError()(Y + 2j * T, T * 0)) == pytest.approx(np.sum(Y**2 + 4 * T**2) / 2)
    assert nn.SquaredError()(Y.astype(np.float32), T.astype(np.float32)).dtype == np.float32


def test_squared_error_of_complex_outputs_has_its_gradient():
    Y, T = (algebra.fft(4).random(3, 2, seed=seed, dtype=np.complex128) for seed in (0, 1))
    np.testing.assert_allclose(ct.grad(lambda Y: nn.SquaredError()(Y, T))(Y), 2 * (Y - T) / 2, atol=1e-14)


@every_form
@pytest.mark.parametrize("scale", [1e3, 1e30])
def test_large_outputs_do_not_overflow(scale, form):
    star = REAL["identity"]
    Y = np.zeros((1, 4, 2), np.float32)
    Y[0, 1, 0] = Y[0, 2, 1] = scale
    right, wrong = np.array([1, 2]), np.array([0, 0])
    for loss in (nn.TubalCrossEntropy(star, form), nn.CrossEntropy()):
        Z = Y if isinstance(loss, nn.TubalCrossEntropy) else Y[0]
        value, gradient = ct.value_and_grad(lambda Z, loss=loss: loss(Z, right))(Z)
        assert value == 0 and np.all(gradient == 0)
        if form == "likelihood":
            assert float(loss(Z, wrong)) == pytest.approx(scale)


# ------------------------------------------------------------------------------------------------ laws


@pytest.mark.parametrize("star", [*REAL.values(), *EVERY_ALGEBRA.values()], ids=[*REAL, *EVERY_ALGEBRA])
@given(seed=st.integers(0, 100), scale=st.sampled_from([1e-3, 1.0, 30.0]))
def test_class_tubes_sum_to_the_identity_tube(star, seed, scale):
    Y = outputs(star, seed)
    hats = star.forward(Y)
    tubes = nn.tubal_softmax(star, Y * (1e-3 if hats.dtype.kind == "c" else scale))
    total = np.broadcast_to(star.eye(1), (*star.shape, 1, len(LABELS)))
    np.testing.assert_allclose(tubes.sum(axis=-2, keepdims=True), total, atol=1e-11)
    assert tubes.dtype == star.inverse(hats).dtype


@every_real
def test_tubal_softmax_has_probabilities_in_every_face(star):
    faces = star.forward(nn.tubal_softmax(star, outputs(star)))
    L = log_softmax_of_faces(star, outputs(star))
    np.testing.assert_allclose(faces.reshape(L.shape), np.exp(L), atol=1e-13)


@every_form
@given(shift=st.floats(-50, 50))
def test_the_same_tube_added_to_all_classes_changes_nothing(form, shift):
    star = REAL["dct"]
    loss, Y = nn.TubalCrossEntropy(star, form), outputs(star)
    assert float(loss(Y + shift * star.random(1, 1, seed=3), LABELS)) == pytest.approx(
        float(loss(Y, LABELS)), rel=1e-9
    )


# ------------------------------------------------------------------------------------------ derivatives

LOSSES = {
    **{
        f"{name} {form}": (nn.TubalCrossEntropy(star, form), star)
        for name, star in REAL.items()
        for form in ("authors", "likelihood")
    },
    "cross entropy": (nn.CrossEntropy(), algebra.plain()),
}


@pytest.mark.parametrize(("loss", "star"), LOSSES.values(), ids=LOSSES)
def test_derivatives_of_first_and_second_order(loss, star):
    Y, V = outputs(star), outputs(star, seed=1)

    def f(Y):
        return loss(Y, LABELS)

    eps = 1e-5
    slope = (f(Y + eps * V) - f(Y - eps * V)) / (2 * eps)
    gradient = ct.grad(f)(Y)
    assert float(np.sum(gradient * V)) == pytest.approx(float(slope), rel=1e-6, abs=1e-9)
    bent = (ct.grad(f)(Y + eps * V) - ct.grad(f)(Y - eps * V)) / (2 * eps)
    np.testing.assert_allclose(ct.hvp(f, Y, V), bent, rtol=1e-5, atol=1e-8)


def test_derivatives_of_squared_error_scores_and_softmax():
    star = REAL["matrix"]
    Y, V = outputs(star), outputs(star, seed=1)
    loss = nn.TubalCrossEntropy(star)
    for f in (
        lambda Y: nn.MeanSquaredError()(Y, V),
        lambda Y: nn.SquaredError()(Y, V),
        lambda Y: ct.sum(loss.scores(Y)),
        lambda Y: ct.sum(nn.tubal_softmax(star, Y) * V),
    ):
        slope = (f(Y + 1e-6 * V) - f(Y - 1e-6 * V)) / 2e-6
        assert float(np.sum(ct.grad(f)(Y) * V)) == pytest.approx(float(slope), rel=1e-6)


@every_form
def test_float32_stays_float32(form):
    star = REAL["dct"]
    value, gradient = ct.value_and_grad(lambda Y: nn.TubalCrossEntropy(star, form)(Y, LABELS))(
        outputs(star).astype(np.float32)
    )
    assert value.dtype == gradient.dtype == np.float32


# -------------------------------------------------------------------------------------------- bad input

CLASSIFIERS = {"tubal": (nn.TubalCrossEntropy(REAL["dct"]), (5, 4, 3)), "matrix": (nn.CrossEntropy(), (4, 3))}


@pytest.mark.parametrize(("loss", "shape"), CLASSIFIERS.values(), ids=CLASSIFIERS)
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.array([0, 4, 1]), ValueError, r"labels lie in 0\.\.3 for 4 classes, and these in 0\.\.4"),
        (np.array([0, -1, 1]), ValueError, r"these in -1\.\.1"),
        (np.array([0, 1]), ValueError, r"3 samples need labels of shape \(3,\), and these have \(2,\)"),
        (np.array([[0, 1, 2]]), ValueError, r"these have \(1, 3\)"),
        (np.array([0.0, 1.0, 2.0]), TypeError, "these are an array of float64"),
        (np.array([True, False, True]), TypeError, "array of bool"),
        ([0, 1, 2], TypeError, "these are a list"),
    ],
)
def test_labels_that_do_not_fit_are_explained(loss, shape, labels, error, message):
    for call in (loss, loss.with_prediction):
        with pytest.raises(error, match=message):
            call(np.zeros(shape), labels)


@pytest.mark.parametrize(("loss", "shape"), CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_an_empty_batch_is_refused(loss, shape):
    with pytest.raises(ValueError, match="an empty batch"):
        loss(np.zeros((*shape[:-1], 0)), np.zeros(0, int))


@pytest.mark.parametrize("shape", [(4, 4, 3), (4, 3), (2, 5, 4, 3)])
def test_outputs_of_another_shape_are_explained(shape):
    for call in (lambda loss, Y: loss(Y, LABELS[:3]), lambda loss, Y: loss.predict(Y)):
        with pytest.raises(ValueError, match=r"dct\(5\).* takes \(5, classes, N\), and received"):
            call(CLASSIFIERS["tubal"][0], np.zeros(shape))


def test_cross_entropy_points_to_unfold():
    with pytest.raises(ValueError, match=r"received \(5, 4, 3\); .*Unfold"):
        nn.CrossEntropy()(np.zeros((5, 4, 3)), LABELS[:3])


def test_complex_outputs_of_a_dense_head_are_refused():
    for call in (lambda Y: nn.CrossEntropy()(Y, LABELS[:3]), nn.CrossEntropy().predict):
        with pytest.raises(TypeError, match=r"received complex128; give it ct\.real\(Y\)"):
            call(np.zeros((4, 3), complex))


def test_targets_of_another_shape_are_not_broadcast():
    for loss in (nn.MeanSquaredError(), nn.SquaredError()):
        name = type(loss).__name__
        with pytest.raises(ValueError, match=rf"{name}.* \(4, 3\), the target \(3,\)"):
            loss(np.zeros((4, 3)), np.zeros(3))
        with pytest.raises(ValueError, match=f"{name}: an empty batch"):
            loss(np.zeros((4, 0)), np.zeros((4, 0)))


@pytest.mark.parametrize("star", COMPLEX.values(), ids=COMPLEX)
def test_complex_transforms_are_refused_and_hartley_recommended(star):
    with pytest.raises(TypeError, match=r"Take the loss over algebra\.hartley"):
        nn.TubalCrossEntropy(star)(outputs(star), LABELS)


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="'true'"):
        nn.TubalCrossEntropy(REAL["dct"], form="true")


# ------------------------------------------------------------------------------------------------- devices


@pytest.mark.parametrize(
    "loss", [nn.TubalCrossEntropy(REAL["dct"]), nn.CrossEntropy()], ids=["tubal", "matrix"]
)
def test_losses_on_another_device(loss, pretend_device):
    Y = outputs(REAL["dct"])
    Y = Y if isinstance(loss, nn.TubalCrossEntropy) else Y[0]
    Y_there, labels_there = ct.to_device((Y, LABELS), "pretend")
    value, gradient = ct.value_and_grad(lambda Y: loss(Y, labels_there))(Y_there)
    expected, slope = ct.value_and_grad(lambda Y: loss(Y, LABELS))(Y)
    assert ct.device_of(gradient) == "pretend"
    assert float(value) == pytest.approx(float(expected), rel=1e-13)
    np.testing.assert_allclose(ct.to_host(gradient), slope, atol=1e-14)
    np.testing.assert_array_equal(ct.to_host(loss.predict(Y_there)), loss.predict(Y))
    with pytest.raises(TypeError, match="different libraries"):
        loss(Y_there, LABELS)
