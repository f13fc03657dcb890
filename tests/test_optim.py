"""Optimizers: against PyTorch's own, blocks and leaves of every kind, schedules, clipping, bad input."""

import math

import numpy as np
import optree
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cutnn as ct
from cutnn import nn, optim
from cutnn.algebra.manifolds import STIEFEL

MADE = {
    "sgd": lambda m: optim.SGD(m, 0.05),
    "sgd decay": lambda m: optim.SGD(m, 0.05, weight_decay=0.1),
    "momentum": lambda m: optim.SGD(m, 0.05, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda m: optim.SGD(m, 0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda m: optim.Adam(m, 0.01),
    "adam decay": lambda m: optim.Adam(m, 0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1),
    "adamw": lambda m: optim.AdamW(m, 0.01, weight_decay=0.1),
}
THEIRS = {
    "sgd": ("SGD", {"lr": 0.05}),
    "sgd decay": ("SGD", {"lr": 0.05, "weight_decay": 0.1}),
    "momentum": ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}),
    "nesterov": ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "adam": ("Adam", {"lr": 0.01}),
    "adam decay": ("Adam", {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1}),
    "adamw": ("AdamW", {"lr": 0.01, "weight_decay": 0.1}),
}
SHAPES = {"small": [(3, 4), (4, 1), ()], "across blocks": [(7,), (250, 300), (4, 5), (40000,), (2, 3)]}


def copied(tree):
    return optree.tree_map(lambda leaf: leaf.copy(), tree)


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("name", MADE)
def test_fifty_steps_follow_pytorch(name, shapes):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    model = {str(i): rng.normal(size=shape) for i, shape in enumerate(SHAPES[shapes])}
    theirs = [torch.tensor(w, requires_grad=True) for w in model.values()]
    kind, settings = THEIRS[name]
    optimizer, reference = MADE[name](model), getattr(torch.optim, kind)(theirs, **settings)
    for _ in range(50 if shapes == "small" else 5):
        grads = {k: np.asarray(rng.normal(size=w.shape)) for k, w in model.items()}
        for w, g in zip(theirs, grads.values(), strict=True):
            w.grad = torch.tensor(g)
        optimizer.step(grads)
        reference.step()
    for mine, w in zip(model.values(), theirs, strict=True):
        np.testing.assert_allclose(mine, w.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MADE)
def test_complex_weights_move_as_pairs_of_real_ones(name):
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 2)) + 1j * rng.normal(size=(3, 2))
    g = rng.normal(size=(3, 2)) + 1j * rng.normal(size=(3, 2))
    pair, pair_g = np.stack([w.real, w.imag]), np.stack([g.real, g.imag])
    ours, reference = MADE[name](w), MADE[name](pair)
    for _ in range(3):
        ours.step(g)
        reference.step(pair_g)
    np.testing.assert_allclose(np.stack([w.real, w.imag]), pair, rtol=1e-14)


@pytest.mark.parametrize("name", MADE)
def test_leaves_of_two_dtypes_keep_them(name):
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(3, 4))
    model = {"single": wide.astype(np.float32), "double": wide.copy()}
    optimizer = MADE[name](model)
    for _ in range(5):
        g = rng.normal(size=(3, 4))
        optimizer.step({"single": g.astype(np.float32), "double": g})
    assert model["single"].dtype == np.float32
    np.testing.assert_allclose(model["single"], model["double"], rtol=1e-4, atol=1e-5)
    assert not np.array_equal(model["double"], wide)


def test_gradients_are_left_as_they_are_also_when_transposed():
    rng = np.random.default_rng(0)
    for make in MADE.values():
        model, g = rng.normal(size=(3, 4)), rng.normal(size=(4, 3)).T
        twin, before = model.copy(), g.copy()
        make(model).step(g)
        make(twin).step(np.ascontiguousarray(g))
        np.testing.assert_array_equal(model, twin)
        np.testing.assert_array_equal(g, before)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.floats(0.01, 100))
def test_clipping_bounds_the_norm_of_the_whole_gradient(sizes, clip):
    model = [np.zeros(n) for n in sizes]
    grads = [np.full(n, 3.0) for n in sizes]
    optim.SGD(model, lr=1.0, clip=clip).step(grads)
    norm = 3.0 * math.sqrt(sum(sizes))
    moved = math.sqrt(sum(float(np.sum(w * w)) for w in model))
    assert moved == pytest.approx(min(norm, clip))


def test_clipping_comes_before_the_weight_decay():
    w = np.array([10.0])
    optim.SGD(w, lr=1.0, weight_decay=0.5, clip=1.0).step(np.array([100.0]))
    assert w[0] == pytest.approx(10.0 - (1.0 + 5.0))


def test_arrays_put_in_the_place_of_others_are_followed():
    model = {"w": np.ones(3)}
    optimizer = optim.SGD(model, lr=1.0, momentum=0.5)
    optimizer.step({"w": np.ones(3)})
    model["w"] = np.full(3, 10.0)
    optimizer.step({"w": np.ones(3)})
    np.testing.assert_array_equal(model["w"], np.full(3, 8.5))


@pytest.mark.parametrize("name", ["momentum", "adam", "sgd"])
def test_a_restored_state_continues_the_run(name):
    rng = np.random.default_rng(0)
    grads = rng.normal(size=(6, 5))
    whole, halves = np.ones(5), np.ones(5)
    optimizer = MADE[name](whole)
    for g in grads:
        optimizer.step(g)
    first = MADE[name](halves)
    for g in grads[:3]:
        first.step(g)
    second = MADE[name](halves)
    second.restore(first.state())
    first.step(np.full(5, 1e9))  # a state is a copy
    halves[...] = 1
    third = MADE[name](halves)
    for g in grads[:3]:
        third.step(g)
    for g in grads[3:]:
        second.step(g)
    np.testing.assert_array_equal(halves, whole)
    with pytest.raises(ValueError, match="the state has"):
        MADE[name](np.ones(4) if name != "sgd" else np.ones(5)).restore({"other": np.ones(1)})


def mixed(rng):
    """Leaves of four dtypes, as weights or as gradients."""
    wide = rng.normal(size=(3, 4))
    return {
        "single": wide.astype(np.float32),
        "double": [wide + 1.0, np.asarray(wide[0, 0])],
        "complex": wide + 1j * rng.normal(size=(3, 4)),
        "narrow": (wide - 1j * rng.normal(size=(3, 4))).astype(np.complex64),
    }


@pytest.mark.parametrize("name", MADE)
def test_an_optimizer_goes_on_with_a_copy_as_if_nothing_had_happened(name):
    rng = np.random.default_rng(0)
    whole = mixed(rng)
    optimizer, halves = MADE[name](whole), copied(whole)
    first = MADE[name](halves)
    for k in range(6):
        grads = mixed(rng)
        optimizer.step(grads)
        if k == 3:
            halves = copied(halves)
            first.continue_with(halves, copied)
        first.step(grads)
    assert first.steps == 6 and first.model is halves
    for mine, theirs in zip(optree.tree_leaves(halves), optree.tree_leaves(whole), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", ["momentum", "adam", "adamw"])
def test_moments_go_where_the_weights_go(name):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5)) + 1j * rng.normal(size=(2, 5))
    coarse = [first.copy(), second.copy()]
    optimizer = MADE[name](coarse)
    twins = {w: MADE[name](v) for w, v in (("first", first), ("second", second))}
    for _ in range(3):
        grads = rng.normal(size=(2, 5)) + 1j * rng.normal(size=(2, 5))
        optimizer.step([*grads])
        twins["first"].step(grads[0])
        twins["second"].step(grads[1])
    fine = [coarse[1].copy(), coarse[0].copy(), coarse[1].copy()]
    optimizer.continue_with(fine, lambda tree: [tree[1], tree[0], tree[1]])
    grads = rng.normal(size=(3, 5)) + 1j * rng.normal(size=(3, 5))
    optimizer.step([*grads])
    twins["first"].step(grads[1])
    np.testing.assert_array_equal(fine[1], first)
    start = second.copy()
    twins["second"].step(grads[0])
    np.testing.assert_array_equal(fine[0], second)
    assert not np.array_equal(fine[2], start) and not np.array_equal(fine[2], second)


def test_moments_that_do_not_fit_the_new_model_are_refused_and_nothing_has_changed():
    model = {"w": np.ones(3)}
    optimizer = optim.Adam(model)
    optimizer.step({"w": np.ones(3)})
    before = optimizer.state()
    with pytest.raises(ValueError, match=r"w has shape \(2,\), but .* shape \(3,\)"):
        optimizer.continue_with({"w": np.ones(2)}, lambda tree: tree)
    with pytest.raises(TypeError, match="structure"):
        optimizer.continue_with({"v": np.ones(3)}, lambda tree: tree)
    with pytest.raises(ValueError, match="cannot be updated in place"):
        optimizer.continue_with({"w": np.broadcast_to(1.0, (3,))}, lambda tree: tree)
    assert optimizer.model is model
    for name, array in optimizer.state().items():
        np.testing.assert_array_equal(array, before[name])
    optimizer.step({"w": np.ones(3)})


def test_settings_are_the_numbers_of_the_rule():
    common = {"weight_decay": 0.1, "clip": None}
    sgd = optim.SGD((np.ones(1),), lambda step: 0.1, momentum=0.9, nesterov=True, weight_decay=0.1)
    assert sgd.settings == {"momentum": 0.9, "nesterov": True, **common}
    adam = optim.Adam(np.ones(1), lr=np.float32(0.5), betas=[0.9, 0.99], weight_decay=0.1)
    assert adam.settings == {"betas": [0.9, 0.99], "eps": 1e-8, "lr": 0.5, **common}


def test_schedules_are_functions_of_the_step():
    decay = optim.step_decay(1.0, every=3, factor=0.5)
    assert [decay(k) for k in range(7)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    wave = optim.cosine(2.0, steps=4, floor=0.5)
    np.testing.assert_allclose([wave(k) for k in (0, 2, 4, 9)], [2.0, 1.5, 1.0, 1.0])
    start = optim.warmup(decay, steps=4)
    np.testing.assert_allclose([start(k) for k in range(5)], [0.25, 0.5, 0.75, 0.5, 0.5])


def test_the_optimizer_counts_the_steps_of_its_schedule():
    w = np.zeros(1)
    optimizer = optim.SGD(w, lr=optim.step_decay(1.0, every=2, factor=0.1))
    for expected in (1.0, 1.0, 0.1, 0.1):
        assert optimizer.learning_rate == pytest.approx(expected)
        optimizer.step(np.ones(1))
    assert w[0] == pytest.approx(-2.2)
    assert optimizer.steps == 4


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ((), "no arrays to train"),
        ({"h": 0.5}, "h is a float"),
        ({"n": np.arange(3)}, "n is an array of int64"),
        ({"w": np.ones((2, 3)).T}, "w cannot be updated in place"),
        ({"w": np.broadcast_to(1.0, (3,))}, "w cannot be updated in place"),
        ([np.ones(2)] * 2, "1 is the same array as an earlier leaf"),
    ],
)
def test_models_that_cannot_be_updated_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        optim.Adam(model)


def test_gradients_of_another_model_are_refused():
    optimizer = optim.Adam({"w": np.ones(3)})
    with pytest.raises(TypeError, match="was made for a model of structure"):
        optimizer.step({"v": np.ones(3)})
    with pytest.raises(ValueError, match=r"w has shape \(3,\), but .* shape \(1,\)"):
        optimizer.step({"w": np.ones(1)})
    for w, g in ((np.ones(3), np.ones(3, complex)), (np.ones(3, complex), np.ones(3))):
        with pytest.raises(TypeError, match=f"w is {w.dtype}, but .* {g.dtype}"):
            optim.SGD({"w": w}, lr=1.0).step({"w": g})
    assert optimizer.steps == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.SGD(np.ones(1), lr=-1.0),
        lambda: optim.SGD(np.ones(1), lr=math.nan),
        lambda: optim.SGD(np.ones(1), lr=1.0, nesterov=True),
        lambda: optim.SGD(np.ones(1), lr=1.0, momentum=-0.5),
        lambda: optim.Adam(np.ones(1), weight_decay=-1.0),
        lambda: optim.Adam(np.ones(1), clip=-1.0),
        lambda: optim.Adam(np.ones(1), betas=(0.9, 1.0)),
        lambda: optim.step_decay(1.0, every=0, factor=0.5),
        lambda: optim.cosine(1.0, steps=0),
        lambda: optim.warmup(1.0, steps=0),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="must|needs"):
        make()


def test_gradients_on_another_device_are_refused(pretend_device):
    here, there = np.ones(3), ct.to_device(np.ones(3), "pretend")
    for model, gradient in ((here, there), (there, here)):
        for clip in (None, 1.0):
            with pytest.raises(TypeError, match="different libraries meet"):
                optim.SGD(model, lr=1.0, clip=clip).step(gradient)


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("name", MADE)
def test_a_library_without_kernels_does_what_the_kernels_do(name, clip, pretend_device):
    rng = np.random.default_rng(0)
    model = {str(i): rng.normal(size=shape) for i, shape in enumerate(SHAPES["small"])}
    twin = {k: ct.to_device(w.copy(), "pretend") for k, w in model.items()}
    kernels, plain = MADE[name](model), MADE[name](twin)
    kernels.clip = plain.clip = clip
    for _ in range(5):
        grads = {k: np.asarray(rng.normal(size=w.shape)) for k, w in model.items()}
        kernels.step(grads)
        plain.step(ct.to_device(grads, "pretend"))
    for k, w in model.items():
        np.testing.assert_allclose(ct.to_host(twin[k]), w, rtol=1e-13, atol=1e-15)
    restored = MADE[name](twin)
    restored.restore(plain.state())
    assert restored.steps == 5
    for moments in zip(restored.state().values(), plain.state().values(), strict=True):
        np.testing.assert_array_equal(*map(ct.to_host, moments))


class OnManifold(nn.Module):
    """A matrix with orthonormal columns, and a free one."""

    Q: np.ndarray
    w: np.ndarray

    def manifold_of(self, field):
        return STIEFEL if field == "Q" else None


@pytest.mark.parametrize("name", MADE)
def test_a_leaf_on_a_manifold_stays_there_beside_free_ones(name):
    rng = np.random.default_rng(0)
    Q = STIEFEL.random(5, 3, seed=0)
    model = {"both": OnManifold(Q.copy(), np.ones(3)), "free": [np.ones(2)]}
    alone = [np.ones(3), np.ones(2)]
    optimizer, twin = MADE[name](model), MADE[name](alone)
    for _ in range(20):
        g, h = rng.normal(size=3), rng.normal(size=2)
        optimizer.step({"both": OnManifold(rng.normal(size=(5, 3)), g), "free": [h]})
        twin.step([g, h])
    np.testing.assert_array_equal(model["both"].w, alone[0])
    np.testing.assert_array_equal(model["free"][0], alone[1])
    assert STIEFEL.distance(model["both"].Q) < 1e-14
    assert np.abs(model["both"].Q - Q).max() > 1e-2


def test_descent_on_a_manifold_finds_the_leading_eigenvectors():
    A = np.diag([5.0, 4.0, 1.0, 0.5])
    model = OnManifold(STIEFEL.random(4, 2, seed=1), np.ones(1))
    for make in (
        lambda m: optim.SGD(m, 0.05, momentum=0.9),
        lambda m: optim.Adam(m, optim.cosine(0.05, 400)),
    ):
        model.Q[...] = STIEFEL.random(4, 2, seed=1)
        optimizer = make(model)
        for _ in range(400):
            optimizer.step(ct.grad(lambda m: -ct.sum(m.Q * (A @ m.Q)) + 0.0 * ct.sum(m.w))(model))
        assert np.sum(model.Q * (A @ model.Q)) == pytest.approx(9, abs=1e-6)


def test_a_leaf_on_a_manifold_is_moved_in_place_on_another_library(pretend_device):
    class Alone(OnManifold):
        pass

    for make in (lambda m: optim.SGD(m, 0.1, momentum=0.9, clip=1.0), lambda m: optim.Adam(m, 0.1)):
        Q, G = STIEFEL.random(4, 2, seed=0), np.random.default_rng(0).normal(size=(4, 2))
        here, there = Alone(Q.copy(), None), Alone(pretend_device.asarray(Q), None)
        given = there.Q
        first, second = make(here), make(there)
        for _ in range(3):
            first.step(Alone(G, None))
            second.step(Alone(pretend_device.asarray(G), None))
        np.testing.assert_allclose(given.get(), here.Q, rtol=1e-12)
