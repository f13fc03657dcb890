"""Kernels of softmax with labels and of sums of squares: run on the host, and on a GPU, against the plain formulas."""

from __future__ import annotations

import numpy as np
import optree
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra, nn
from cutnn.array import fused
from cutnn.array._fused import on_cuda, softmax, squares
from cutnn.array._fused.softmax import log_softmax_at
from cutnn.array._fused.squares import half_squared_distances, half_squares
from tests.cuda_on_host import needs_compiler, same_for_all_orders
from tests.gradcheck import check
from tests.test_kernels import Library, OnDevice

RTOL = {"f": 3e-6, "d": 1e-13, "F": 3e-6, "D": 1e-13}
DTYPES = ["float32", "float64", "complex64", "complex128"]


class CuPy(Library):
    """Stands for CuPy, with what these functions call; `launches` counts those of all kernels."""

    empty, arange, ravel = staticmethod(np.empty), staticmethod(np.arange), staticmethod(np.ravel)
    ascontiguousarray = staticmethod(np.ascontiguousarray)
    launches = 0

    @staticmethod
    def sum(x):
        return np.asarray(np.sum(x))

    def RawKernel(self, text, name):
        before, kernel = self.launches, super().RawKernel(text, name)
        self.launches = before
        return kernel


@pytest.fixture
def gpu(monkeypatch):
    """Arrays of NumPy go the way of CuPy's while the test runs."""
    library = CuPy()
    monkeypatch.setattr(fused, "_on", True)
    monkeypatch.setattr(softmax, "namespace", lambda *arrays: library)
    monkeypatch.setattr(squares, "namespace", lambda *arrays: library)
    return library


def draw(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return (x + 1j * rng.normal(size=shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


def close(a, b, scale=1.0):
    a, b = ct.to_host(a), ct.to_host(b)
    assert a.dtype == b.dtype and a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=scale * RTOL[a.dtype.char], atol=4 * scale * RTOL[a.dtype.char])


def plainly(monkeypatch, f):
    """f() as CUTNN_FUSE=0 and NumPy have it."""
    with monkeypatch.context() as m:
        m.setattr(fused, "_on", False)
        for module in (softmax, squares):
            m.setattr(module, "namespace", lambda *arrays: np)
        return f()


# ------------------------------------------------------------------------------------------- log-softmax at labels


def weighted(labels, at_labels=True, every=True):
    """A function of x by way of one or both of the results, curved in each."""

    def f(x):
        picked, L = log_softmax_at(x, labels)
        return (ct.sum(picked**2) if at_labels else 0) + (ct.sum(ct.sin(L)) if every else 0)

    return f


@needs_compiler
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faces=st.sampled_from([(), (1,), (5,), (2, 3)]), classes=st.integers(1, 12), samples=st.integers(1, 70),
    dtype=st.sampled_from(["float32", "float64"]), kind=st.sampled_from(["uint8", "int32", "int64"]),
    parts=st.sampled_from([(True, True), (True, False), (False, True)]), seed=st.integers(0, 99),
)  # fmt: skip
def test_softmax_kernels_are_the_plain_formula(
    gpu, monkeypatch, faces, classes, samples, dtype, kind, parts, seed
):
    x = 10 * draw((*faces, classes, samples), dtype, seed)
    labels = np.random.default_rng(seed).integers(0, classes, samples).astype(kind)
    before = gpu.launches
    results, gradient = log_softmax_at(x, labels), ct.grad(weighted(labels, *parts))(x)
    assert gpu.launches == before + 3
    for a, b in zip(results, plainly(monkeypatch, lambda: log_softmax_at(x, labels)), strict=True):
        close(a, b, 10)
    close(gradient, plainly(monkeypatch, lambda: ct.grad(weighted(labels, *parts))(x)), 100)


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_kernels_of_views_and_of_one_cotangent_for_all(gpu, monkeypatch, dtype):
    x, labels = draw((6, 3, 4), dtype).T, np.array([0, 2, 1, 0, 2, 1, 0, 2, 1, 0, 2, 1])[::2]
    weights = draw(x.T.shape, dtype, 1)
    for f in (
        lambda x: ct.sum(log_softmax_at(x, labels)[0]),
        lambda x: log_softmax_at(x, labels)[0][1, 2],
        lambda x: ct.sum(log_softmax_at(x, labels)[1].T * weights),
    ):
        close(ct.grad(f)(x), plainly(monkeypatch, lambda f=f: ct.grad(f)(x)))
    assert gpu.launches == 6


@needs_compiler
def test_derivatives_through_the_softmax_kernels(gpu):
    labels = np.array([2, 0, 1, 1])
    for parts in [(True, True), (True, False), (False, True)]:
        check(weighted(labels, *parts), draw((2, 3, 4), "float64"))
    assert gpu.launches


@needs_compiler
def test_a_label_out_of_range_is_nan_and_reads_nothing(gpu):
    x, labels = draw((2, 3, 4), "float64"), np.array([-1, 3, 1 << 40, 1])
    picked, L = log_softmax_at(x, labels)
    np.testing.assert_array_equal(np.isnan(picked), [[True, True, True, False]] * 2)
    gradient = ct.grad(lambda x: ct.sum(log_softmax_at(x, labels)[0]))(x)
    np.testing.assert_allclose(gradient[:, :, 0], -np.exp(L[:, :, 0]))


@needs_compiler
def test_infinite_and_missing_numbers(gpu, monkeypatch):
    x = np.array([[0, np.nan, 1, -np.inf], [1, 0, np.inf, 0], [np.nan, 2, 0, 1]])
    labels = np.array([0, 1, 2, 0])
    with np.errstate(invalid="ignore"):
        theirs = plainly(monkeypatch, lambda: log_softmax_at(x, labels))
    for a, b in zip(log_softmax_at(x, labels), theirs, strict=True):
        np.testing.assert_allclose(a, b)
    large = np.array([[1e4], [1e4 - 1]])
    np.testing.assert_allclose(log_softmax_at(large, np.array([0]))[0], -np.log1p(np.exp(-1)))


@pytest.mark.parametrize("dtype", ["float16", "int64"])
def test_numbers_without_kernel_go_the_plain_way(monkeypatch, dtype):
    assert softmax._kernel("cutnn_log_softmax", np.ones((2, 3), dtype)) is None
    library = CuPy()
    monkeypatch.setattr(softmax, "namespace", lambda *arrays: library)
    assert softmax._kernel("cutnn_log_softmax", np.ones((2, 3), dtype)) is None
    assert softmax._kernel("cutnn_log_softmax", np.ones((2, 0))) is None
    monkeypatch.setattr(fused, "_on", False)
    assert softmax._kernel("cutnn_log_softmax", np.ones((2, 3))) is None


# ---------------------------------------------------------------------------------------------- sums of squares


def there(x):
    return np.asarray(x).view(OnDevice)


@needs_compiler
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(
        st.sampled_from([0, 1, 3, on_cuda.CHUNK - 1, on_cuda.CHUNK, 3 * on_cuda.CHUNK + 5]), min_size=1, max_size=5
    ),
    more=st.sampled_from([0, 70]), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99),
)  # fmt: skip
def test_square_kernels_are_the_plain_formula(gpu, sizes, more, dtype, seed):
    sizes = [*sizes, *range(1, more + 1)]  # more than a launch takes
    ours, others = ([draw((n,), dtype, seed + 100 * k + i) for i, n in enumerate(sizes)] for k in (1, 2))
    before = gpu.launches
    total = half_squares(*map(there, ours))
    distance = half_squared_distances([(there(a), there(b)) for a, b in zip(ours, others, strict=True)])
    assert gpu.launches - before == (0 if not any(sizes) else 4 if more else 2)
    assert total.dtype == distance.dtype == ours[0].real.dtype
    wide = np.concatenate(ours).astype("D"), np.concatenate(others).astype("D")
    rtol = 3 * RTOL[np.dtype(dtype).char]
    np.testing.assert_allclose(total, 0.5 * np.linalg.norm(wide[0]) ** 2, rtol=rtol)
    np.testing.assert_allclose(distance, 0.5 * np.linalg.norm(wide[0] - wide[1]) ** 2, rtol=rtol)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_square_kernels_of_views(gpu, dtype):
    x, y = draw((6, 4, 5), dtype), draw((5, 4, 3), dtype, 1)
    expected = 0.5 * np.linalg.norm(np.ravel(x[::2].T - y)) ** 2
    np.testing.assert_allclose(half_squared_distances([(there(x)[::2].T, there(y))]), expected, rtol=1e-5)
    np.testing.assert_allclose(half_squares(there(x[0, 0, 0])), 0.5 * abs(x[0, 0, 0]) ** 2, rtol=1e-5)


@needs_compiler
def test_the_order_of_threads_does_not_matter(gpu):
    x = draw((5000,), "float32")
    same_for_all_orders(lambda: half_squares(there(x)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_squares_on_the_host(dtype):
    x, y = draw((4, 5), dtype), draw((3,), dtype, 1)
    total, gradient = ct.value_and_grad(half_squares, (0, 1))(x, y)
    np.testing.assert_allclose(total, 0.5 * (np.abs(x) ** 2).sum() + 0.5 * (np.abs(y) ** 2).sum(), rtol=1e-5)
    assert total.dtype == x.real.dtype
    for a, b in zip(gradient, (x, y), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    check(lambda x: half_squares(x, x * x), draw((2, 3), "complex128" if x.dtype.kind == "c" else "float64"))


def test_without_blas_where_kernels_are_switched_off(monkeypatch):
    """A GPU with CUTNN_FUSE=0, and mixed dtypes: nothing that a captured step may not call."""
    library = CuPy()
    library.conj = np.conj
    monkeypatch.setattr(squares, "namespace", lambda *arrays: library)
    x, y = draw((4, 5), "complex64"), draw((4, 5), "complex64", 1)
    expected = 0.5 * np.linalg.norm(x - y) ** 2
    np.testing.assert_allclose(half_squared_distances([(x, y.astype("complex128"))]), expected, rtol=1e-5)
    monkeypatch.setattr(fused, "_on", False)
    np.testing.assert_allclose(half_squared_distances([(x, y)]), expected, rtol=1e-5)
    assert not library.launches


# ------------------------------------------------------------------------------------------------------ on a GPU


STAR = algebra.dct(5)
COMPLEX = {
    "squares": lambda x, labels: half_squares(x, ct.sin(x)),
    "Tikhonov": lambda x, labels: nn.Tikhonov(0.3)([x, x * x]),
    "error": lambda x, labels: nn.SquaredError()(x, 2 * ct.sin(x)),
}
REAL = COMPLEX | {
    "authors": nn.TubalCrossEntropy(STAR),
    "likelihood": nn.TubalCrossEntropy(STAR, "likelihood"),
    "cross entropy": lambda x, labels: nn.CrossEntropy()(x[0], labels),
    "both results": lambda x, labels: weighted(labels)(x),
}


@pytest.mark.gpu
@pytest.mark.parametrize(
    "name, dtype", [(n, d) for d in DTYPES for n in (COMPLEX if d.startswith("complex") else REAL)]
)
def test_on_a_gpu(name, dtype):
    f = (COMPLEX | REAL)[name]
    x, v, labels = draw((5, 3, 7), dtype), draw((5, 3, 7), dtype, 5), np.arange(7) % 3
    x_there, v_there, labels_there = ct.to_device((x, v, labels), "cuda:0")
    here, there = lambda x: f(x, labels), lambda x: f(x, labels_there)
    close(there(x_there), np.asarray(here(x)), 10)
    close(ct.grad(there)(x_there), ct.grad(here)(x), 10)
    close(ct.hvp(there, x_there, v_there), ct.hvp(here, x, v), 30)


def leaves(tree):
    return optree.tree_leaves(tree, namespace="cutnn")


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["squared", "authors"])
def test_a_captured_loss_with_regularisers_on_a_gpu(form):
    star = algebra.dct(5)
    net = nn.HamiltonianNet(star, width=3, depth=40, seed=0)
    regularizer = nn.Smoothness(0.1, form) + nn.Tikhonov(0.2)
    loss, labels = nn.TubalCrossEntropy(star), np.arange(7) % 3
    x = draw((5, 3, 7), "float32")

    def step(net, x, labels):
        return ct.value_and_grad(lambda net: loss(net(x), labels) + regularizer(net))(net)

    given = ct.to_device((net, x, labels), "cuda:0")
    run = ct.capture(step)
    value, gradient = step(net, x, labels)
    for _ in range(3):
        there, gradient_there = run(*given)
        np.testing.assert_allclose(ct.to_host(there), value, rtol=1e-4)
        for a, b in zip(leaves(gradient_there), leaves(gradient), strict=True):
            close(a, b, 100)
    assert len(run.recordings) == 1
