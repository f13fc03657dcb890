"""Factorisations of batches of faces by kernels: run on the host against LAPACK, and on a GPU where there is one.

On the host `device` puts NumPy's arrays on the road of CuPy's, with kernels that g++ compiled (tests/cuda_on_host.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cutnn as ct
from cutnn.array import _batched
from cutnn.array._batched import launch
from tests import cuda_on_host
from tests.cuda_on_host import needs_compiler

DTYPES = ["float32", "float64", "complex64", "complex128"]
SHAPES = [(1, 1), (1, 4), (4, 1), (8, 8), (7, 5), (5, 7), (13, 13), (16, 3)]
H100_BYTES = (227 << 10) - 256


class Device:
    """The device of the kernels while a test runs, which may change it, and how often it was asked for."""

    def __init__(self) -> None:
        self.shared_bytes, self.strict, self.launches = H100_BYTES, False, 0

    def __call__(self, x: Any) -> launch.Device:
        return launch.Device(np, self.kernel, self.shared_bytes, lambda: self.strict)

    def kernel(self, code: str, name: str) -> Any:
        kernel = cuda_on_host.RawKernel(code, name)
        kernel.max_dynamic_shared_size_bytes = H100_BYTES

        def run(*args: Any, **kwargs: Any) -> None:
            self.launches += 1
            kernel(*args, **kwargs)

        class Kernel:
            max_dynamic_shared_size_bytes = 0

            def __call__(self, *args: Any, **kwargs: Any) -> None:
                run(*args, **kwargs)

        return Kernel()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    here = Device()
    monkeypatch.setattr(_batched, "_device", here)
    return here


def gaussian(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def orthonormal(shape: tuple[int, int], dtype: str) -> np.ndarray:
    rows, columns = shape
    q = np.linalg.qr(gaussian((max(shape), min(shape)), dtype))[0]
    return q if rows >= columns else q.mT.conj()


def difficult(shape: tuple[int, int], dtype: str) -> np.ndarray:
    """Faces of all kinds, (count, l, m)."""
    rows, columns = shape
    real = np.dtype(dtype.replace("complex64", "float32").replace("complex128", "float64"))
    x = gaussian(shape, dtype, 1)
    fall = -np.log10(np.finfo(real).eps)
    by_row, by_column = (np.logspace(0, -fall, n).astype(real) for n in shape)
    shift = 0.7 * np.finfo(real).maxexp * np.log10(2)
    faces = [
        x,
        by_row[:, None] * x,
        by_row[::-1, None] * x,
        x * by_column,
        x * by_column[::-1],
        x[:, :1] @ x[:1],  # rank 1
        x[:, :2] @ gaussian((2, columns), dtype, 2) if columns > 1 else x,  # rank 2
        np.zeros_like(x),
        np.eye(rows, columns),
        np.ones_like(x),
        np.where(np.arange(columns) == columns // 2, 0, x),  # a column 0
        np.where(np.arange(rows)[:, None] == 0, x, 0),
        orthonormal(shape, dtype),  # all singular values 1
        np.tril(np.ones(shape)) * 1e-3 + orthonormal(shape, dtype),  # close to 1
        x * 10 ** (shift if real == np.float64 else 25),
        x * 10 ** (-shift if real == np.float64 else -25),
        -x.round(),
    ]
    return np.stack([np.asarray(face, dtype=dtype) for face in faces])


def sizes(x: np.ndarray) -> np.ndarray:
    """The spectral norms, or 1 for a face 0: (count, 1, 1)."""
    size = np.linalg.norm(x.astype(np.result_type(x, np.complex128)), 2, axis=(-2, -1))
    return np.where(size == 0, 1, size)[:, None, None]


def assert_unitary(u: np.ndarray, eps: float) -> None:
    """Columns of norm 1, orthogonal to a few eps."""
    n = u.shape[-1]
    error = np.abs(u.mT.conj() @ u - np.eye(n)).max(initial=0)
    assert error <= eps * (4 + 2 * max(u.shape[-2:]) ** 0.5), error / eps


def check_svd(x: np.ndarray, full_matrices: bool) -> None:
    eps, size = float(np.finfo(x.dtype).eps), sizes(x)
    u, s, vh = _batched.linalg("svd", x, full_matrices=full_matrices)
    expected = np.linalg.svd(x.astype(np.result_type(x, np.complex128)), full_matrices=full_matrices)
    assert (u.shape, s.shape, vh.shape) == tuple(part.shape for part in expected)
    assert u.dtype == vh.dtype == x.dtype and s.dtype == x.real.dtype
    assert (np.diff(s, axis=-1) <= 0).all() and (s >= 0).all()
    k = s.shape[-1]
    assert_unitary(u, eps), assert_unitary(vh.mT.conj(), eps)
    wide = np.complex128  # so that what is measured is not of the check itself
    product = (u[..., :k].astype(wide) * s[..., None, :]) @ vh[..., :k, :].astype(wide)
    bound = eps * (4 + 2 * max(x.shape[-2:]) ** 0.5)
    assert (np.abs(product - x) / size <= bound).all(), (np.abs(product - x) / size).max() / eps
    assert (np.abs(s - expected.S) <= bound * size[..., 0]).all()
    values = _batched.linalg("svdvals", x)
    assert (np.abs(values - expected.S) <= bound * size[..., 0]).all()


# ------------------------------------------------------------------------------------------- values, on the host


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_svd(device, shape, dtype):
    for full_matrices in (False, True):
        check_svd(difficult(shape, dtype), full_matrices)
    assert device.launches == 8  # two for each SVD, and for each set of values


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_qr(device, shape, dtype):
    x = difficult(shape, dtype)
    eps, wide = float(np.finfo(dtype).eps), np.complex128
    unit = np.abs(x).max(axis=(-2, -1), keepdims=True).astype("float64") + (x == 0).all(
        (-2, -1), keepdims=True
    )
    columns = np.linalg.norm(x / unit, axis=-2, keepdims=True) * unit
    for mode in ("reduced", "complete"):
        q, r = _batched.linalg("qr", x, mode=mode)
        expected = np.linalg.qr(x, mode=mode)
        assert (q.shape, r.shape) == (expected.Q.shape, expected.R.shape) and q.dtype == r.dtype == x.dtype
        assert_unitary(q, eps)
        assert (r == np.triu(r)).all()
        # column by column, as of Householder's reflectors, and with LAPACK's signs
        assert (np.abs(q.astype(wide) @ r - x) <= eps * (4 + 2 * max(shape)) * columns).all()
        regular = [0, 12]
        np.testing.assert_allclose(q[regular], expected.Q[regular], atol=300 * eps)
        np.testing.assert_allclose(r[regular], expected.R[regular], atol=300 * eps)
    np.testing.assert_array_equal(_batched.linalg("qr", x, mode="r"), _batched.linalg("qr", x)[1])


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 8, 13])
def test_eigh(device, n, dtype):
    eps, wide = float(np.finfo(dtype).eps), np.complex128
    x = difficult((n, n), dtype)
    q = np.linalg.qr(gaussian((n, n), dtype))[0]
    cluster = (q * (1 + eps * np.arange(n))) @ q.mT.conj()
    gram = (x[0] @ x[0].mT.conj())[None]
    x = np.concatenate([x + x.mT.conj(), gram, -gram, -np.eye(n, dtype=dtype)[None], cluster[None]]).astype(
        dtype
    )
    other = np.where(np.tri(n), x, 7)  # only the lower triangle is read
    w, v = _batched.linalg("eigh", other)
    size = sizes(x)
    assert w.dtype == x.real.dtype and v.dtype == x.dtype and (np.diff(w, axis=-1) >= 0).all()
    assert_unitary(v, eps)
    bound = eps * (6 + 4 * n**0.5)
    residual = np.abs(x.astype(wide) @ v - v.astype(wide) * w[:, None, :]) / size
    assert (residual <= bound).all(), residual.max() / eps
    expected = np.linalg.eigvalsh(x.astype(wide))
    assert (np.abs(w - expected) <= bound * size[..., 0]).all()
    np.testing.assert_array_equal(_batched.linalg("eigvalsh", other), w)


@needs_compiler
@pytest.mark.parametrize(("n", "dtype"), [(28, "float32"), (32, "complex64"), (40, "float64")])
def test_more_lanes_and_warps(device, n, dtype):
    """8 lanes for a column, and 16, in blocks of several warps; the result is the same in any order of the threads."""
    x = gaussian((1, n, n), dtype)
    x = np.concatenate([x, x * np.logspace(0, -6, n, dtype=x.real.dtype)[:, None]])
    check_svd(x, False)
    h = x + x.mT.conj()
    for run in (
        lambda: _batched.linalg("svd", x[:1]),
        lambda: _batched.linalg("eigh", h[:1]),
        lambda: _batched.linalg("qr", x[:1, :, :-3], mode="complete"),
    ):
        cuda_on_host.same_for_all_orders(run, orders=2)
    w, v = _batched.linalg("eigh", h)
    assert_unitary(v, float(np.finfo(dtype).eps))
    np.testing.assert_allclose(
        w, np.linalg.eigvalsh(h), atol=20 * n**0.5 * np.finfo(dtype).eps * np.abs(w).max()
    )


@needs_compiler
def test_small_singular_values_of_scaled_columns_are_right_in_all_digits(device):
    x = gaussian((3, 8, 8), "float32")
    condition = np.linalg.cond(x)[:, None]
    x = x * np.logspace(0, -9, 8, dtype="float32")
    s = _batched.linalg("svdvals", x)
    expected = np.linalg.svd(x.astype("float64"), compute_uv=False)
    assert expected.min() < 1e-8
    assert (np.abs(s - expected) <= 3 * condition * np.finfo("float32").eps * expected).all()


@needs_compiler
@pytest.mark.parametrize("in_shared", [2, 1, 0])
def test_faces_larger_than_the_shared_memory(device, in_shared, monkeypatch):
    """G and V in shared memory, G alone, none; with fewer blocks than faces, which take turns."""
    monkeypatch.setattr(launch, "_MOST_IN_WORKSPACE", 2)
    monkeypatch.setattr(_batched, "_ENOUGH_LARGE", 1)
    x = difficult((10, 10), "float64")
    face = 11 * 10 * 8
    device.shared_bytes = in_shared * face + 10 * (8 + 16 + 4) + 16
    check_svd(x, False)
    check_svd(x[:5, :, :6], True)
    q, r = _batched.linalg("qr", x)
    np.testing.assert_allclose(q @ r, x, rtol=0, atol=1e-13 * sizes(x).max())
    w, v = _batched.linalg("eigh", x[:1] + x[:1].mT)
    np.testing.assert_allclose((v * w[:, None, :]) @ v.mT, x[:1] + x[:1].mT, atol=1e-13)


@needs_compiler
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_face_with_nan_has_results_of_nan_and_no_other(device, bad):
    x = gaussian((3, 5, 4), "complex64")
    x[1, 3, 2] = bad
    for full_matrices in (False, True):
        found = _batched.linalg("svd", x, full_matrices=full_matrices)
        alone = _batched.linalg("svd", x[::2], full_matrices=full_matrices)
        for part, good in zip(found, alone, strict=True):
            assert np.isnan(part[1]).all()
            np.testing.assert_array_equal(part[::2], good)
    assert np.isnan(_batched.linalg("svdvals", x)[1]).all()
    h = gaussian((2, 4, 4), "float64")
    h[1, 2, 1] = bad
    w, v = _batched.linalg("eigh", h)
    assert (
        np.isnan(w[1]).all() and np.isnan(v[1]).all() and np.isfinite(w[0]).all() and np.isfinite(v[0]).all()
    )
    q, r = _batched.linalg("qr", x)
    assert np.isnan(r[1]).any() and np.isfinite(q[::2]).all() and np.isfinite(r[::2]).all()
    device.strict = True
    with pytest.raises(np.linalg.LinAlgError, match="SVD did not converge"):
        _batched.linalg("svd", x)
    with pytest.raises(np.linalg.LinAlgError, match="Eigenvalues did not converge"):
        _batched.linalg("eigvalsh", h)
    _batched.linalg("svd", x[::2])


# ------------------------------------------------------------------------------ gradients, views and the choice

FUNCTIONS = {
    "svd": lambda x: ct.sum(ct.linalg.svd(x, full_matrices=False)[0][..., :2] ** 4),
    "svd, right": lambda x: ct.sum(ct.linalg.svd(x, full_matrices=False)[2] ** 4),
    "svdvals": lambda x: ct.sum(ct.linalg.svdvals(x) ** 3),
    "qr": lambda x: ct.sum(ct.linalg.qr(x)[0] ** 3) + ct.sum(ct.linalg.qr(x)[1] ** 2),
    "eigh": lambda x: ct.sum(ct.linalg.eigh(x @ x.mT)[1] ** 4) + ct.sum(ct.linalg.eigh(x @ x.mT)[0] ** 2),
    "eigvalsh": lambda x: ct.sum(ct.linalg.eigvalsh(x @ x.mT) ** 2),
    "svt": lambda x: ct.sum(ct.linalg.svt(x, 0.5) ** 3),
    "nuclear norm": lambda x: ct.sum(ct.linalg.nuclear_norm(x) ** 2),
    "polar": lambda x: ct.sum(ct.linalg.polar(x).P ** 3),
    "pinv": lambda x: ct.sum(ct.linalg.pinv(x) ** 3),
    "low rank": lambda x: ct.sum(ct.linalg.low_rank(x, 2) ** 3),
}


@needs_compiler
@pytest.mark.parametrize("name", FUNCTIONS)
def test_value_and_gradient(name, device, monkeypatch):
    x = gaussian((2, 3, 5, 4), "float64")
    here, gradient = ct.value_and_grad(FUNCTIONS[name])(x)
    assert device.launches
    monkeypatch.setenv("CUTNN_BATCHED", "0")
    launches = device.launches
    plain, expected = ct.value_and_grad(FUNCTIONS[name])(x)
    assert device.launches == launches
    np.testing.assert_allclose(here, plain, rtol=1e-11)
    np.testing.assert_allclose(gradient, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())


@needs_compiler
def test_views_are_read_by_their_strides(device):
    x = gaussian((6, 4, 10), "float32")
    for view in (x.mT, x[::2, ::-1, 1::3], x[:, None, 1:], np.asfortranarray(x), x.transpose(2, 0, 1)):
        dense = np.ascontiguousarray(view)
        for a, b in zip(_batched.linalg("svd", view), _batched.linalg("svd", dense), strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(_batched.linalg("qr", view), _batched.linalg("qr", dense), strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_is_left_to_the_library(device, monkeypatch):
    x = gaussian((2, 4, 4), "float32")
    large = np.broadcast_to(np.float64(1), (3, 300, 300))
    for name, array, options in (
        ("svd", x[0], {}),  # one matrix
        ("svd", x[:0], {}),
        ("svd", x[..., :0], {}),
        ("svd", x.astype(int), {}),
        ("svd", x.astype("float16"), {}),
        ("inv", x, {}),
        ("qr", x, {"mode": "raw"}),
        ("eigh", x, {"UPLO": "U"}),
        ("eigh", x[..., :3], {}),  # an error of the library's own
        ("svd", np.broadcast_to(np.float32(1), (64, 600, 4)), {}),  # a side too large for a block
        ("svd", large, {}),  # few, and larger than the shared memory
    ):
        assert _batched.linalg(name, array, **options) is None
    assert device.launches == 0
    assert _batched._fits(np.broadcast_to(large[0], (8, 300, 300)), H100_BYTES)
    assert _batched._fits(large.astype("float32")[:, :100, :100], H100_BYTES)
    monkeypatch.setenv("CUTNN_BATCHED", "0")
    assert _batched.linalg("svd", x) is None


def test_numpys_arrays_have_their_own_road():
    assert _batched._device(np.ones((2, 2, 2))) is None
    assert _batched.linalg("svd", np.ones((2, 2, 2))) is None


@pytest.mark.parametrize(
    ("rows", "lanes"), [(1, 4), (8, 4), (16, 4), (17, 8), (32, 8), (33, 16), (64, 16), (65, 32), (500, 32)]
)
def test_lanes(rows, lanes):
    assert launch._lanes(rows) == lanes


# ------------------------------------------------------------------------------------------------- on a GPU

BATCHES = [
    (4096, 8, 8),
    (4096, 16, 16),
    (1000, 28, 28),
    (1000, 32, 32),
    (64, 100, 100),
    (64, 100, 28),
    (8, 256, 256),
]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", BATCHES)
def test_factors_on_a_gpu(shape, dtype):
    x = gaussian(shape, dtype)
    there, eps, n = ct.to_device(x, "cuda:0"), float(np.finfo(dtype).eps), max(shape[1:])
    size, bound = sizes(x), eps * (4 + 4 * n**0.5)
    assert _batched.linalg("svd", there) is not None
    for full_matrices in (False, True):
        u, s, vh = (ct.to_host(part) for part in ct.linalg.svd(there, full_matrices=full_matrices))
        k = s.shape[-1]
        assert_unitary(u, 4 * eps), assert_unitary(vh.mT.conj(), 4 * eps)
        assert (np.abs((u[..., :k] * s[:, None]) @ vh[:, :k] - x) <= 10 * bound * size).all()
        expected = np.linalg.svd(x, compute_uv=False)
        assert (np.abs(s - expected) <= 2 * bound * size[..., 0]).all()
    q, r = (ct.to_host(part) for part in ct.linalg.qr(there))
    assert_unitary(q, 4 * eps)
    assert (np.abs(q @ r - x) <= 10 * bound * size).all()
    if shape[1] == shape[2]:
        h = x + x.mT.conj()
        w, v = (ct.to_host(part) for part in ct.linalg.eigh(ct.to_device(h, "cuda:0")))
        assert_unitary(v, 4 * eps)
        assert (np.abs(h @ v - v * w[:, None]) <= 10 * bound * sizes(h)).all()
        assert (np.abs(w - np.linalg.eigvalsh(h)) <= 2 * bound * sizes(h)[..., 0]).all()


@pytest.mark.gpu
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_on_a_gpu(name):
    x = gaussian((3, 40, 8, 6), "float64")
    here, gradient = ct.value_and_grad(FUNCTIONS[name])(x)
    there, gradient_there = ct.value_and_grad(FUNCTIONS[name])(ct.to_device(x, "cuda:0"))
    np.testing.assert_allclose(ct.to_host(there), here, rtol=1e-9)
    np.testing.assert_allclose(ct.to_host(gradient_there), gradient, atol=1e-7 * np.abs(gradient).max())


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(5, 7), (13, 13), (100, 100)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_difficult_faces_on_a_gpu(shape, dtype):
    x = difficult(shape, dtype)
    eps = float(np.finfo(dtype).eps)
    u, s, vh = (ct.to_host(part) for part in ct.linalg.svd(ct.to_device(x, "cuda:0")))
    assert_unitary(u, 2 * eps), assert_unitary(vh.mT.conj(), 2 * eps)
    expected = np.linalg.svd(x.astype("complex128"), compute_uv=False)
    assert (np.abs(s - expected) <= eps * (4 + 4 * max(shape) ** 0.5) * sizes(x)[..., 0]).all()
    nan = ct.to_device(np.where(np.arange(len(x))[:, None, None] == 1, np.nan, x), "cuda:0")
    assert np.isnan(ct.to_host(ct.linalg.svdvals(nan)[1])).all()


@pytest.mark.gpu
def test_what_became_of_the_faces_is_looked_at_where_it_is_asked_for():
    import cupyx

    x = ct.to_device(np.full((2, 3, 3), np.nan), "cuda:0")
    with cupyx.errstate(linalg="raise"), pytest.raises(np.linalg.LinAlgError, match="did not converge"):
        ct.linalg.svdvals(x)
    assert np.isnan(ct.to_host(ct.linalg.svdvals(x))).all()
