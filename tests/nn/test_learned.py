"""Networks with a learned M: gradients, M shared by layers, manifolds, losses, files, resumed runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cutnn as ct
from cutnn import algebra, nn, optim, train
from cutnn.algebra.manifolds import STIEFEL
from tests.algebra.catalogue import draw, invertible, near
from tests.gradcheck import check
from tests.nn.networks import REVERSIBLE, agree, inputs, make
from tests.train.tiny import assert_same, made_learned_net, made_set, run


def two_layers(star: Any, **options: Any) -> Any:
    options = {"dtype": np.float64, **options}
    return nn.Sequential(
        nn.TLinear(star, 3, 4, ct.tanh, seed=0, **options), nn.TLinear(star, 4, 2, seed=1, **options)
    )


def square(net: Any, X: Any) -> Any:
    Y = net(X)
    return ct.sum(ct.real(Y * ct.conj(Y)) * np.arange(1.0, 1.0 + Y.shape[-2])[:, None])


STARS = {
    "dct 4": algebra.dct(4),
    "haar 4": algebra.haar(4),
    "identity 3": algebra.identity(3),
    "from matrix 3": algebra.from_matrix(invertible(3)),
    "dct 2, dst 3": algebra.product(algebra.dct(2), algebra.dst(3)),
}


@pytest.mark.parametrize("domain", ["spatial", "transform"])
@pytest.mark.parametrize("name", STARS)
def test_the_start_is_the_model_itself(name: str, domain: str) -> None:
    star = STARS[name]
    model = nn.Sequential(nn.TLinear(star, 3, 4, ct.tanh, dtype=np.float64, seed=0, domain=domain), ct.tanh)
    net = nn.Learned(model, star, manifold="general")
    X = draw((*star.shape, 3, 5))
    near(net(X), model(X))
    near(net.fixed()(X), model(X))
    near(nn.Learned(model, star, "general", faces=True)(X), star.forward(model(X)))
    assert nn.count_parameters(net) == nn.count_parameters(model) + sum(n * n for n in star.shape)
    assert model.layers[0].star is star  # as it was


@pytest.mark.parametrize("manifold", ["orthogonal", "general"])
def test_gradients_of_all_leaves_against_differences(manifold: str) -> None:
    star = algebra.product(algebra.dct(2), algebra.dct(3))
    net = nn.Learned(two_layers(star), star, manifold)
    X = draw((2, 3, 3, 2))
    check(lambda net, X: net(X), net, X, order=2)


@pytest.mark.parametrize("domain", ["spatial", "transform"])
def test_a_projected_algebra_is_learned_on_its_manifold(domain: str) -> None:
    star = algebra.projected(STIEFEL.random(5, 2, seed=0))
    model = nn.Sequential(nn.TLinear(star, 3, 4, ct.tanh, dtype=np.float64, seed=0, domain=domain))
    net = nn.Learned(model, star, manifold="stiefel")
    X = draw((5, 3, 6))
    assert net.M[0].shape == (5, 2)
    near(net(X), model(X))
    near(net.fixed()(X), model(X))
    check(lambda net, X: net(X), net, X, order=1)
    optimizer, before = optim.Adam(net, 0.05), float(square(net, X))
    for _ in range(20):
        optimizer.step(ct.grad(square)(net, X))
    assert STIEFEL.distance(net.M[0]) < 1e-13 and square(net, X) < before
    with pytest.raises(ValueError, match="'stiefel'"):
        nn.Learned(model, star)


def test_a_dense_head_stays_as_it_is() -> None:
    star = algebra.dct(4)
    model = nn.Sequential(nn.TLinear(star, 3, 5, seed=0), nn.Unfold(), nn.Dense(20, 2, seed=1))
    net = nn.Learned(model, star)
    X = draw((4, 3, 6), np.float32)
    near(net(X), model(X))
    assert len(ct.grad(square)(net, X).M) == 1


@pytest.mark.parametrize("kind", REVERSIBLE)
def test_reversible_networks_give_m_the_gradient_of_the_stored_states(kind: str) -> None:
    star = algebra.dct(4)
    nets = [nn.Learned(make(kind, star, reversible=r), star) for r in (False, True)]
    X = inputs(make(kind, star))
    stored, reversible = (ct.grad(square, argnums=(0, 1))(net, X) for net in nets)
    assert np.abs(stored[0].M[0]).max() > 1e-3
    agree(stored, reversible, 1e-12)

    def of_gradient(net: Any) -> Any:
        return ct.sum(ct.grad(square)(net, X).M[0] ** 2)

    agree(*(ct.grad(of_gradient)(net) for net in nets), 1e-10)


def test_an_autoencoder_learns_m() -> None:
    star = algebra.dct(4)
    for tied in (False, True):
        net = nn.Learned(nn.Autoencoder(star, (3, 2), tied=tied, dtype=np.float64, seed=0), star)
        check(lambda net, X: net(X), net, draw((4, 3, 2)), order=1)


def test_the_tubal_loss_of_faces_is_that_over_m() -> None:
    star = algebra.random_orthogonal(4, seed=0)
    labels, X = np.arange(6) % 2, draw((4, 3, 6))
    net = nn.Learned(two_layers(star), star)
    of_faces = nn.Learned(two_layers(star), star, faces=True)
    for form in ("authors", "likelihood"):
        plain, own = nn.TubalCrossEntropy(algebra.identity(4), form), nn.TubalCrossEntropy(star, form)
        near(plain(of_faces(X), labels), own(net(X), labels))
        np.testing.assert_array_equal(plain.predict(of_faces(X)), own.predict(net(X)))
        directly = ct.grad(lambda net, form=form: nn.TubalCrossEntropy(net.star, form)(net(X), labels))(net)
        by_faces = ct.grad(lambda net, plain=plain: plain(net(X), labels))(of_faces)
        agree(
            (directly.model, STIEFEL.project(net.M[0], directly.M[0])),
            (by_faces.model, STIEFEL.project(net.M[0], by_faces.M[0])),
            1e-12,
        )


def test_a_layer_without_its_m_says_so() -> None:
    star = algebra.dct(4)
    net = nn.Learned(two_layers(star), star)
    with pytest.raises(TypeError, match=r"open\(4\) has no M.*fixed"):
        net.model(draw((4, 3, 2)))


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ((two_layers(algebra.dct(4)), algebra.dst(4)), ValueError, "no layer"),
        ((two_layers(algebra.dct(4)), 4), TypeError, "algebra of the layers"),
        ((nn.Dense(2, 2), algebra.plain()), TypeError, "algebra of the layers"),
        ((two_layers(algebra.dct(4)), algebra.dct(4), "sphere"), ValueError, "'sphere'"),
        ((two_layers(algebra.fft(4)), algebra.fft(4)), TypeError, "hartley"),
        ((two_layers(STARS["from matrix 3"]), STARS["from matrix 3"]), ValueError, "not orthonormal"),
    ],
)
def test_what_cannot_be_learned_is_refused(arguments: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        nn.Learned(*arguments)


# ----------------------------------------------------------------------------------------------- optimizers

OPTIMIZERS = {
    "sgd": lambda net: optim.SGD(net, 0.05, weight_decay=0.1),
    "momentum": lambda net: optim.SGD(net, 0.05, momentum=0.9),
    "nesterov": lambda net: optim.SGD(net, 0.05, momentum=0.9, nesterov=True, clip=1.0),
    "adam": lambda net: optim.Adam(net, 0.05, weight_decay=0.1),
    "adamw": lambda net: optim.AdamW(net, 0.05, weight_decay=0.1),
}


LONG = [("adam", np.float32), ("momentum", np.float64)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_m_stays_orthogonal_and_its_momentum_tangent_over_many_steps(name: str, dtype: Any) -> None:
    star = algebra.dct(4)
    net = nn.Learned(nn.TLinear(star, 2, 2, dtype=dtype, seed=0), algebra.dct(4))
    if np.dtype(dtype).kind == "c":
        net.M = (net.M[0].astype(dtype),)
    optimizer, rng = OPTIMIZERS[name](net), np.random.default_rng(0)
    zeros = np.zeros_like(net.model.weight), np.zeros_like(net.model.bias)
    grads, worst = ct.grad(square)(net, draw((4, 2, 3), dtype)), 0.0
    for _ in range(10_000 if (name, dtype) in LONG else 200):
        grads.model.weight, grads.model.bias = zeros
        grads.M = (draw_like(net.M[0], rng),)
        optimizer.step(grads)
        worst = max(worst, STIEFEL.distance(net.M[0]))
    assert worst <= (1e-6 if np.finfo(dtype).eps > 1e-10 else 4e-13)
    assert net.M[0].dtype == dtype
    for key, moment in optimizer.state().items():
        if key in ("momentum.M.0", "first.M.0"):
            m = moment.view(dtype).reshape(4, 4)
            near(m, STIEFEL.project(net.M[0], m))


def draw_like(M: Any, rng: Any) -> Any:
    g = rng.standard_normal(M.shape)
    return (g + 1j * rng.standard_normal(M.shape) if M.dtype.kind == "c" else g).astype(M.dtype)


def test_sgd_takes_the_riemannian_step() -> None:
    star = algebra.dct(3)
    net = nn.Learned(two_layers(star), star)
    grads = ct.grad(square)(net, draw((3, 3, 2)))
    M, W = net.M[0].copy(), net.model[0].weight.copy()
    skew = M.T @ grads.M[0] - grads.M[0].T @ M
    optim.SGD(net, lr=0.1).step(grads)
    near(net.M[0], STIEFEL.retract(M, -0.05 * M @ skew))
    near(net.model[0].weight, W - 0.1 * grads.model[0].weight)


def test_the_first_step_of_adam_has_the_root_mean_square_of_its_rate() -> None:
    net = nn.Learned(two_layers(algebra.dct(5)), algebra.dct(5))
    M = net.M[0].copy()
    optim.Adam(net, lr=1e-5).step(ct.grad(square)(net, draw((5, 3, 2))))
    np.testing.assert_allclose(np.sqrt(np.mean((net.M[0] - M) ** 2)), 1e-5, rtol=1e-3)


def test_a_general_m_moves_as_any_weight_does() -> None:
    net = nn.Learned(two_layers(algebra.dct(3)), algebra.dct(3), manifold="general")
    grads = ct.grad(square)(net, draw((3, 3, 2)))
    M = net.M[0].copy()
    optim.SGD(net, lr=0.1).step(grads)
    near(net.M[0], M - 0.1 * grads.M[0])


def test_free_leaves_move_as_they_do_without_m() -> None:
    star = algebra.dct(4)
    alone, net = two_layers(star), nn.Learned(two_layers(star), star)
    first, second = optim.Adam(alone, 0.1), optim.Adam(net, 0.1)
    grads_alone, grads = (ct.grad(square)(model, draw((4, 3, 2))) for model in (alone, net))
    for _ in range(3):
        second.step(grads)
        first.step(grads_alone)
    assert_same(alone, net.model)


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_moments_of_m_are_carried_to_another_model(name: str) -> None:
    star = algebra.dct(4)
    net = nn.ResNet(star, 3, depth=2, h=0.5, dtype=np.float64, seed=0)
    coarse = nn.Learned(net, star)
    optimizer = OPTIMIZERS[name](coarse)
    optimizer.step(ct.grad(square)(coarse, draw((4, 3, 2))))
    before = optimizer.state()
    fine = nn.prolong(coarse)
    assert len(fine.model) == 4
    optimizer.continue_with(fine, nn.prolong)
    after = optimizer.state()
    for key in before:
        if key.endswith(".M.0"):
            near(after[key], before[key])
    optimizer.step(ct.grad(square)(fine, draw((4, 3, 2))))


# -------------------------------------------------------------------------------------------------- training


LOSS = nn.TubalCrossEntropy(algebra.identity(6))


def test_learning_m_helps_where_m_is_wrong_and_files_keep_it(tmp_path: Any) -> None:
    pytest.importorskip("safetensors")
    result = run(made_learned_net(), LOSS, made_set(), epochs=3)
    assert result.history["train_loss"][-1] < result.history["train_loss"][0]
    train.save_model(tmp_path / "model", result.final)
    other = nn.Learned(
        nn.Sequential(
            nn.TLinear(algebra.dst(6), 4, 5, ct.tanh, seed=3),
            nn.TLinear(algebra.dst(6), 5, 3, seed=4),
        ),
        algebra.dst(6),
        faces=True,
    )
    again = train.load_model(tmp_path / "model", other)  # whatever M it started from
    assert_same(again, result.final)
    X, _ = made_set().train.batch([0, 1])
    np.testing.assert_array_equal(again(X), result.final(X))


def test_it_runs_on_another_library(pretend_device: Any) -> None:
    ct.set_device("pretend")
    star = algebra.dct(4)
    net = nn.Learned(two_layers(star), star)
    ct.set_device("cpu")
    host = nn.Learned(two_layers(star), star)
    X = draw((4, 3, 2))
    there = ct.grad(lambda net: ct.sum(net(pretend_device.asarray(X)) ** 2))(net)
    here = ct.grad(lambda net: ct.sum(net(X) ** 2))(host)
    near(there.M[0].get(), here.M[0])
