"""Layers and modules: pytrees, laws, initial statistics, parameter counts, gradients, bad input."""

import math

import numpy as np
import optree
import pytest

import cutnn as ct
from cutnn import algebra, nn
from tests.algebra.catalogue import ALGEBRAS as EVERY_ALGEBRA

ALGEBRAS = {
    "dct": algebra.dct(5),
    "fft": algebra.fft(4),
    "identity": algebra.identity(1),
    "random": algebra.random_orthogonal(6, seed=0),
    "matrix": algebra.from_matrix(np.array([[2.0, 1.0, 0.0], [0.0, 5.0, 1.0], [1.0, 0.0, 0.5]])),
    "order 4": algebra.product(algebra.dct(3), algebra.hartley(2)),
    "plain": algebra.plain(),
}
every_algebra = pytest.mark.parametrize("star", ALGEBRAS.values(), ids=ALGEBRAS)


def t_linear(star, n_in=3, n_out=2, **options):
    return nn.TLinear(star, n_in, n_out, **{"dtype": np.float64, "seed": 0, **options})


# ---------------------------------------------------------------------------------------- values


@every_algebra
def test_a_layer_is_the_activation_of_a_product_and_a_bias(star):
    layer = t_linear(star, activation=ct.tanh)
    X = star.random(3, 4, seed=1)
    product = star.to_matrix(layer.weight) @ star.unfold(X)
    np.testing.assert_allclose(layer(X), np.tanh(star.fold(product) + layer.bias), atol=1e-13)


@every_algebra
def test_one_image_keeps_its_sample_axis(star):
    layer = t_linear(star)
    X = star.random(3, 4, seed=1)
    np.testing.assert_allclose(layer(X[..., :1]), layer(X)[..., :1], atol=1e-14)


def test_batch_axes_lead():
    star = ALGEBRAS["dct"]
    layer = t_linear(star, activation=ct.tanh)
    X = star.random(3, 4, batch=(2, 7), seed=1)
    Y = layer(X)
    assert Y.shape == (2, 7, 5, 2, 4)
    np.testing.assert_allclose(Y[1, 3], layer(X[1, 3]), atol=1e-14)


def test_a_layer_without_bias_has_none():
    layer = t_linear(ALGEBRAS["dct"], bias=False)
    assert layer.bias is None
    assert np.all(layer(np.zeros((5, 3, 2))) == 0)
    assert nn.count_parameters(layer) == 5 * 2 * 3
    assert ct.grad(lambda m: ct.sum(m(np.ones((5, 3, 2)))))(layer).bias is None


def test_dense_is_the_layer_without_tube_axes():
    dense = nn.Dense(3, 2, activation=ct.tanh, dtype=np.float64, seed=5)
    plain = t_linear(algebra.plain(), activation=ct.tanh, seed=5)
    X = np.random.default_rng(0).normal(size=(3, 4))
    np.testing.assert_array_equal(dense(X), plain(X))
    np.testing.assert_allclose(dense(X), np.tanh(dense.weight @ X + dense.bias), atol=1e-15)
    assert dense.weight.shape == (2, 3) and dense.bias.shape == (2, 1)


def test_a_layer_over_tubes_of_length_one_is_dense():
    star = algebra.identity(1)
    layer, dense = t_linear(star, seed=5), nn.Dense(3, 2, dtype=np.float64, seed=5)
    X = np.random.default_rng(0).normal(size=(3, 4))
    np.testing.assert_allclose(layer(X[None])[0], dense(X), atol=1e-15)


def test_unfold_puts_face_below_face():
    X = np.arange(24.0).reshape(2, 3, 4)
    V = nn.Unfold()(X)
    assert V.shape == (6, 4)
    for k in range(2):
        for i in range(3):
            np.testing.assert_array_equal(V[k * 3 + i], X[k, i])
    assert nn.Unfold()(X[..., :0]).shape == (6, 0)
    assert nn.Unfold()(X[None]).shape == (6, 4)
    np.testing.assert_array_equal(nn.Unfold()(V), V)


def test_sequential_runs_indexes_and_iterates():
    first, last = t_linear(ALGEBRAS["dct"]), nn.Dense(10, 3, dtype=np.float64, seed=1)
    model = nn.Sequential(first, ct.tanh, nn.Unfold(), last)
    X = ALGEBRAS["dct"].random(3, 4, seed=1)
    np.testing.assert_array_equal(model(X), last(np.tanh(first(X)).reshape(10, 4)))
    assert len(model) == 4
    assert model[0] is first and model[1] is ct.tanh and model[-1] is last
    assert [type(layer) for layer in model][2:] == [nn.Unfold, nn.Dense]


# ---------------------------------------------------------------------------- counts and printing


def t_net(*sizes):
    star = algebra.dct(28)
    return [nn.TLinear(star, a, b, activation=ct.tanh) for a, b in zip(sizes, sizes[1:], strict=False)]


@pytest.mark.parametrize(
    ("layers", "parameters"),
    [
        (lambda: [*t_net(28, 28), nn.Unfold(), nn.Dense(784, 10)], 30_586),
        (lambda: t_net(28, 28, 10), 30_856),
        (lambda: [nn.Unfold(), nn.Dense(784, 39, ct.tanh), nn.Dense(39, 10)], 31_015),
        (lambda: [nn.Unfold(), nn.Dense(784, 784, ct.tanh), nn.Dense(784, 10)], 623_290),
        (lambda: t_net(28, 20, 10, 20, 28), 44_744),
    ],
)
def test_the_networks_of_the_paper_have_its_parameter_counts(layers, parameters):
    model = nn.Sequential(*layers())
    assert nn.count_parameters(model) == parameters
    assert model(np.zeros((28, 28, 1), np.float32)).shape[-1] == 1


def test_repr_shows_layers_and_parameters():
    model = nn.Sequential(
        nn.TLinear(algebra.dct(28), 28, 28, ct.tanh), ct.tanh, nn.Unfold(), nn.Dense(784, 10)
    )
    lines = repr(model).splitlines()
    assert lines[0].endswith("30,586 parameters")
    assert "28 → 28, tanh" in lines[1] and lines[1].endswith("22,736")
    assert "tanh" in lines[2]
    assert "Dense(784 → 10)" in lines[4] and lines[4].endswith("7,850")


# ---------------------------------------------------------------------------------------- pytrees


def test_models_are_pytrees_of_their_arrays():
    model = nn.Sequential(t_linear(ALGEBRAS["dct"]), ct.tanh, nn.Unfold(), nn.Dense(10, 3))
    leaves, tree = optree.tree_flatten(model, namespace="cutnn")
    assert [leaf.shape for leaf in leaves] == [(5, 2, 3), (5, 2, 1), (3, 10), (3, 1)]
    again = tree.unflatten(leaves)
    X = ALGEBRAS["dct"].random(3, 4, seed=1).astype(np.float64)
    assert type(again) is nn.Sequential and again[1] is ct.tanh and again[0].star is model[0].star
    assert optree.tree_structure(again, namespace="cutnn") == tree
    np.testing.assert_array_equal(again[0](X), model[0](X))
    doubled = optree.tree_map(lambda w: 2 * w, model, namespace="cutnn")
    np.testing.assert_array_equal(doubled[3].weight, 2 * model[3].weight)
    assert ct.to_device(model, "cpu")[0].weight is model[0].weight


def test_modules_of_ones_own():
    class Scaled(nn.Module):
        scale: np.ndarray
        parts: dict
        power: int = nn.static(default=2)

        def __call__(self, x):
            return self.parts["inner"](x * self.scale) ** self.power

    class Renamed(Scaled):
        pass

    class Wide(nn.TLinear):
        pass

    for kind in (Scaled, Renamed):
        module = kind(np.array(3.0), {"inner": nn.Sequential(nn.Unfold())}, power=3)
        x = np.full((2, 1), 2.0)
        gradient = ct.grad(lambda m, x=x: ct.sum(m(x)))(module)
        assert type(gradient) is kind and gradient.power == 3
        assert float(gradient.scale) == pytest.approx(2 * 3 * 3**2 * 2**3)
        assert nn.count_parameters(module) == 1
        assert "power=3" in repr(module) and "Unfold" in repr(module)
    assert Wide(ALGEBRAS["dct"], 3, 2, seed=0).weight.shape == (5, 2, 3)


# ----------------------------------------------------------------------------------- initial values


SCALED = algebra.from_matrix(np.diag(np.geomspace(1e-2, 1e2, 12)) @ algebra.dct(12).transforms[0].matrix())
STARTS = {"scaled": SCALED, "dct 28": algebra.dct(28), **EVERY_ALGEBRA}


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_the_default_start_gives_every_face_the_variance_of_a_dense_layer(name, dtype):
    star = STARTS[name]
    if dtype == np.float64 and name.startswith("complex matrix"):
        with pytest.raises(TypeError, match="draws complex weights.*complex64.*initializers.authors"):
            t_linear(star)
        assert t_linear(star, init=nn.initializers.authors).weight.dtype == dtype
        return
    layer = t_linear(star, 64, 128, seed=1, dtype=dtype)
    faces = np.abs(star.forward(layer.weight)) ** 2
    np.testing.assert_allclose(faces.mean(axis=(-2, -1)), 1 / (3 * 64), rtol=0.06)


def test_the_default_start_keeps_the_scale_and_the_authors_start_does_not():
    star = algebra.dct(28)
    X = star.random(28, 200, seed=0)
    ratio = {
        init: float(np.std(t_linear(star, 28, 28, bias=False, init=init, seed=1)(X)) / np.std(X))
        for init in (nn.initializers.transform_aware, nn.initializers.authors)
    }
    assert ratio[nn.initializers.transform_aware] == pytest.approx(1 / math.sqrt(3), rel=0.03)
    assert ratio[nn.initializers.authors] == pytest.approx(1 / math.sqrt(3 * 28), rel=0.03)


@pytest.mark.parametrize(
    ("init", "bound"),
    [(nn.initializers.authors, 1 / math.sqrt(20 * 6)), (nn.initializers.transform_aware, 1 / math.sqrt(20))],
)
def test_starts_are_uniform_within_their_bounds(init, bound):
    layer = t_linear(algebra.dct(6), 20, 50, init=init)
    for entries in (layer.weight, layer.bias):
        assert np.abs(entries).max() <= bound * (1 + 1e-12)
        assert np.abs(entries).max() > 0.98 * bound
        assert np.std(entries) == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_seeds_make_weights_and_generators_go_on():
    star = ALGEBRAS["dct"]
    np.testing.assert_array_equal(t_linear(star, seed=3).weight, t_linear(star, seed=3).weight)
    assert not np.array_equal(t_linear(star, seed=3).weight, t_linear(star, seed=4).weight)
    rng = np.random.default_rng(3)
    first, second = t_linear(star, seed=rng), t_linear(star, seed=rng)
    np.testing.assert_array_equal(first.weight, t_linear(star, seed=3).weight)
    assert not np.array_equal(first.weight, second.weight)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64])
def test_dtypes_are_kept_through_call_and_gradient(dtype):
    layer = t_linear(ALGEBRAS["fft"], dtype=dtype, activation=ct.tanh)
    X = np.ones((4, 3, 2), dtype=np.empty(0, dtype).real.dtype)
    gradient = ct.grad(lambda m: ct.sum(ct.abs(m(X))))(layer)
    assert layer(X).dtype == layer.weight.dtype == gradient.weight.dtype == gradient.bias.dtype == dtype


# ----------------------------------------------------------------------------------------- gradients


@every_algebra
def test_gradients_agree_with_finite_differences(star):
    model = nn.Sequential(t_linear(star, activation=ct.tanh), t_linear(star, 2, 2, seed=1), nn.Unfold())
    X = star.random(3, 4, seed=2)
    weights = np.random.default_rng(3).normal(size=(star.n * 2, 4))

    def objective(model):
        return ct.sum(ct.real(model(X)) * weights)

    gradients = optree.tree_leaves(ct.grad(objective)(model), namespace="cutnn")
    leaves = optree.tree_leaves(model, namespace="cutnn")
    rng, eps = np.random.default_rng(4), 1e-6
    for leaf, gradient in zip(leaves, gradients, strict=True):
        direction, start = rng.normal(size=leaf.shape), leaf.copy()
        leaf[...] = start + eps * direction
        above = objective(model)
        leaf[...] = start - eps * direction
        below = objective(model)
        leaf[...] = start
        assert np.sum(gradient * direction) == pytest.approx((above - below) / (2 * eps), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("n", [1, 2, 4, 5, 9])
def test_gradients_over_the_half_spectrum_are_pytorchs_of_the_circular_convolution(n):
    torch = pytest.importorskip("torch")
    layer, X = t_linear(algebra.fft(n), activation=ct.tanh), algebra.fft(n).random(3, 4, seed=1)
    V = np.random.default_rng(2).normal(size=(n, 2, 4))
    gradient, slope = ct.grad(lambda m, X: ct.sum(m(X) * V), argnums=(0, 1))(layer, X)
    W, B, Y = (torch.tensor(a, requires_grad=True) for a in (layer.weight, layer.bias, X))
    faces = [sum(W[k] @ Y[(i - k) % n] for k in range(n)) for i in range(n)]
    (torch.tanh(torch.stack(faces) + B) * torch.tensor(V)).sum().backward()
    for mine, theirs in ((gradient.weight, W), (gradient.bias, B), (slope, Y)):
        np.testing.assert_allclose(mine, theirs.grad.numpy(), rtol=1e-12, atol=1e-13)


# ----------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((4, 3, 2), r"received shape \(4, 3, 2\); what fits is \(5, 3, N\)"),
        ((5, 4, 2), r"3 → 2\) received shape \(5, 4, 2\)"),
        ((5, 3), r"what fits is \(5, 3, N\)"),
        ((3,), r"what fits is \(5, 3, N\)"),
        ((7, 3, 5), "data.to_tensor"),
    ],
)
def test_shapes_that_do_not_fit_are_explained(shape, hint):
    with pytest.raises(ValueError, match=hint) as caught:
        t_linear(ALGEBRAS["dct"])(np.zeros(shape))
    assert "dct(5)" in str(caught.value)


def test_a_dense_layer_points_to_unfold():
    with pytest.raises(ValueError, match=r"received shape \(5, 2, 4\); what fits is \(10, N\).*Unfold"):
        nn.Dense(10, 3)(np.zeros((5, 2, 4), np.float32))


@pytest.mark.parametrize(("dtype", "hint"), [(np.float64, "dtype=ct.float64"), (np.uint8, "ct.astype")])
def test_dtypes_that_differ_are_refused(dtype, hint):
    layer = t_linear(ALGEBRAS["dct"], dtype=np.float32)
    with pytest.raises(TypeError, match=f"weights of float32 and received {np.dtype(dtype)}.*{hint}"):
        layer(np.zeros((5, 3, 2), dtype))


@pytest.mark.parametrize("sizes", [(0, 2), (3, 0), (-1, 2)])
def test_layers_without_rows_are_refused(sizes):
    with pytest.raises(ValueError, match="at least 1"):
        nn.Dense(*sizes)


def test_other_nonsense_is_refused():
    for dtype in (np.int64, np.float16, np.longdouble):
        with pytest.raises(TypeError, match=f"float32, float64, .* not {np.dtype(dtype)}"):
            nn.Dense(3, 2, dtype=dtype)
    with pytest.raises(TypeError, match="received float16; convert.*float32.$"):
        nn.Dense(3, 2)(np.zeros((3, 1), np.float16))
    with pytest.raises(TypeError, match="first argument is an algebra"):
        nn.TLinear(28, 28, 10)
    with pytest.raises(TypeError, match="received a list"):
        nn.Dense(3, 2)([[1.0], [2.0], [3.0]])
    with pytest.raises(TypeError, match="Dense: n_out must be an integer, and is 2.0"):
        nn.Dense(3, 2.0)
    with pytest.raises(TypeError, match="Dense: the activation is a function .* or None, not 'tanh'"):
        nn.Dense(3, 2, activation="tanh")
    with pytest.raises(TypeError, match="layer 1 is a int"):
        nn.Sequential(nn.Unfold(), 3)
    with pytest.raises(ValueError, match="Unfold"):
        nn.Unfold()(np.zeros(3))


# ------------------------------------------------------------------------------------------------- devices


def test_a_model_moves_to_another_device_and_computes_there(pretend_device):
    star = ALGEBRAS["dct"]
    model = nn.Sequential(t_linear(star, activation=ct.tanh), nn.Unfold(), nn.Dense(10, 3, dtype=np.float64))
    X = star.random(3, 4, seed=1)
    moved = ct.to_device(model, "pretend")
    assert all(ct.device_of(leaf) == "pretend" for leaf in optree.tree_leaves(moved, namespace="cutnn"))
    there = moved(ct.to_device(X, "pretend"))
    assert ct.device_of(there) == "pretend"
    np.testing.assert_allclose(ct.to_host(there), model(X), atol=1e-14)
    with pytest.raises(TypeError, match="Devices are never changed in silence"):
        moved(X)


def test_a_seed_gives_the_same_weights_on_every_device(pretend_device):
    here = t_linear(ALGEBRAS["matrix"])
    ct.set_device("pretend")
    there = t_linear(ALGEBRAS["matrix"])
    assert ct.device_of(there.weight) == "pretend"
    np.testing.assert_array_equal(ct.to_host(there.weight), here.weight)
