"""How products are said to cuBLAS, by one that does the same in NumPy."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from cutnn.array import _cublas
from cutnn.array._cublas import calls_of, form_of, matmul


def gemm(a, b, c, call):
    """cublasGemmStridedBatchedEx, by the words of its documentation: matrices by columns in flat memory."""
    assert call.lda >= max(1, call.m if call.op_a == 0 else call.k)
    assert call.ldb >= max(1, call.k if call.op_b == 0 else call.n)
    assert call.ldc >= max(1, call.m)

    def matrices(x, start, leading, stride, rows, columns):
        low, high = np.lib.array_utils.byte_bounds(x)
        size, item = (high - low) // x.itemsize, x.itemsize
        last = start + stride * (call.matrices - 1) + leading * (columns - 1) + rows
        assert 0 <= start and last <= size, "it reads beyond the array"
        flat = np.lib.stride_tricks.as_strided(x, (size,), (item,))
        return np.lib.stride_tricks.as_strided(
            flat[start:], (call.matrices, rows, columns), (stride * item, item, leading * item)
        )

    def sized(x, op, rows, columns, *rest):
        return (
            matrices(x, *rest, rows, columns) if op == 0 else matrices(x, *rest, columns, rows).swapaxes(1, 2)
        )

    A = sized(a, call.op_a, call.m, call.k, call.a, call.lda, call.stride_a)
    B = sized(b, call.op_b, call.k, call.n, call.b, call.ldb, call.stride_b)
    C = matrices(c, call.c, call.ldc, call.stride_c, call.m, call.n)
    C[...] = A @ B


@st.composite
def operands(draw):
    batch = draw(st.lists(st.integers(1, 3), max_size=3))
    rows, inner, columns = (draw(st.integers(0, 4)) for _ in range(3))
    dtype = draw(st.sampled_from(["float32", "float64", "complex64", "complex128"]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))

    def one(rows, columns):
        own = [size if draw(st.booleans()) else 1 for size in batch]
        own = own[draw(st.integers(0, len(own))) :]
        kind = draw(st.sampled_from(["plain", "transposed", "strided", "broadcast", "faces moved"]))
        shape = (*own, columns, rows) if kind == "transposed" else (*own, rows, columns)
        if kind == "strided":
            x = rng.standard_normal((*shape[:-1], 2 * columns))[..., ::2].astype(dtype)
            big = np.zeros((*shape[:-1], 2 * columns), dtype)
            big[..., ::2] = x
            return big[..., ::2]
        x = rng.standard_normal(shape)
        x = (x + 1j * rng.standard_normal(shape) if "complex" in dtype else x).astype(dtype)
        if kind == "transposed":
            return x.swapaxes(-1, -2)
        if kind == "broadcast":
            return np.broadcast_to(x[..., :1, :], x.shape) if rows else x
        if kind == "faces moved" and own:
            return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -2)), -2, 0)
        return x

    return one(rows, inner), one(inner, columns)


@hypothesis.given(operands())
def test_products_of_any_strides(pair):
    x1, x2 = pair
    expected = x1 @ x2
    out = matmul(x1, x2, np, gemm)
    assert out.dtype == expected.dtype and out.shape == expected.shape
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def calls(x1, x2):
    return calls_of(form_of(x1), form_of(x2), form_of(x1 @ x2))


def test_a_batch_is_one_call_without_copies():
    x, y = np.ones((2, 3, 4, 5)), np.ones((2, 3, 5, 6))
    assert [c.matrices for c in calls(x, y)] == [6]
    (transposed,) = calls(y.mT, x.mT)
    assert (transposed.op_a, transposed.op_b, transposed.matrices) == (1, 1, 6)
    (one_left,) = calls(np.ones((4, 5)), y)
    assert (one_left.stride_b, one_left.matrices) == (0, 6)


def test_one_matrix_on_the_right_is_one_product_of_all_rows():
    (call,) = calls(np.ones((7, 4, 5)), np.ones((5, 6)))
    assert (call.n, call.matrices) == (28, 1)


def test_batch_axes_that_lie_apart_are_a_loop():
    x = np.ones((2, 4, 3, 5))[:, :2]
    assert [(c.matrices, c.b) for c in calls(x, np.ones((2, 2, 5, 6)))] == [(2, 0), (2, 60)]


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="do not fit"):
        matmul(np.ones((2, 3)), np.ones((4, 2)), np, gemm)


def test_a_wrong_call_is_noticed(monkeypatch):
    x, y = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    monkeypatch.setattr(_cublas, "_N", 1)
    with pytest.raises((AssertionError, ValueError)):
        np.testing.assert_allclose(matmul(x, y, np, gemm), x @ y)


@pytest.mark.parametrize(
    "shapes", [((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((3,), (4, 3, 2)), ((4, 2, 3), (3,))]
)
def test_vectors(shapes, monkeypatch):
    blas = object.__new__(_cublas.CuBLAS)
    blas._handle, blas._xp, blas._gemm = None, np, gemm
    x, y = (np.arange(1.0, 1 + np.prod(shape)).reshape(shape) for shape in shapes)
    np.testing.assert_allclose(blas.matmul(x, y), x @ y)
    assert blas.matmul(x, y).shape == (x @ y).shape


class FakeLibrary:
    """cuBLAS by its C interface: it looks at what it is given, as the library would."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*args):
            self.calls.append((name, args))
            if name == "cublasCreate_v2":
                args[0]._obj.value = 99
            return 13 if name == self.failing else 0

        return call

    failing = None


def handle_of(library, monkeypatch):
    import types

    monkeypatch.setattr(_cublas, "_loaded", lambda cupy: library)
    alloc = types.SimpleNamespace(alloc=lambda size: types.SimpleNamespace(ptr=4096))
    return _cublas.CuBLAS(types.SimpleNamespace(cuda=alloc, empty=device_empty), types.SimpleNamespace(ptr=7))


class OnDevice(np.ndarray):
    """An array with a pointer as CuPy's have it."""

    @property
    def data(self):
        import types

        return types.SimpleNamespace(ptr=self.__array_interface__["data"][0])


def device_empty(shape, dtype):
    return np.empty(shape, dtype).view(OnDevice)


def test_the_arguments_of_the_library(monkeypatch):
    library = FakeLibrary()
    blas = handle_of(library, monkeypatch)
    names = [name for name, _ in library.calls]
    assert names == ["cublasCreate_v2", "cublasSetStream_v2", "cublasSetWorkspace_v2"]  # in this order
    x, y = (np.ones(shape, np.complex64).view(OnDevice) for shape in ((3, 4, 5), (5, 2)))
    out = blas.matmul(x, y)
    name, (_, op_a, op_b, m, n, k, alpha, a, *_, beta, c, kind, ldc, _, count, compute, algorithm) = (
        library.calls[-1]
    )
    assert name == "cublasGemmStridedBatchedEx" and len(library.calls[-1][1]) == 23
    assert [v.value for v in (op_a, op_b, m, n, k, kind, ldc, count, compute, algorithm)] == [
        0,
        0,
        2,
        12,
        5,
        4,
        2,
        1,
        68,
        -1,
    ]
    assert a.value == y.data.ptr and c.value == out.data.ptr
    library.failing = name
    with pytest.raises(RuntimeError, match="cublasGemmStridedBatchedEx failed with status 13"):
        blas.matmul(x, y)
    del blas
    assert library.calls[-1][0] == "cublasDestroy_v2"
