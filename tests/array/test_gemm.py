"""Products by every road, against NumPy's own: batches, strides, dtypes, and the gradients of transposed operands."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import cutnn as ct
from cutnn import _cores
from cutnn.array import _gemm, _mkl, _products

needs_openblas = pytest.mark.skipif(
    _cores.openblas() is None, reason="NumPy has another library than OpenBLAS"
)
needs_mkl = pytest.mark.skipif(_mkl._library() is None, reason="MKL is not installed")
DTYPES = ["float32", "float64", "complex64", "complex128"]


@contextlib.contextmanager
def on_two_threads() -> Iterator[None]:
    """Two threads of OpenBLAS, no MKL, and no product too small to be shared."""
    blas = _cores.openblas()
    assert blas is not None
    before = blas.get_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_gemm, "_WORTH", 0)
        patch.setattr(_mkl, "_library", lambda: None)
        patch.setattr(_mkl, "WORTH", 0)
        blas.set_threads(2)
        with _cores.held():
            assert _cores.threads() == 2 and blas.get_threads() == 1
            yield
        assert blas.get_threads() == 2 and _cores.threads() == 1
        blas.set_threads(before)


@pytest.fixture
def two_threads() -> Iterator[None]:
    with on_two_threads():
        yield


def close(found: Any, expected: Any) -> None:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    tolerance = 64 * np.finfo(expected.dtype).eps * max(1, np.abs(expected).max(initial=0))
    assert np.allclose(found, expected, rtol=0, atol=tolerance)


def array(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


@st.composite
def operands(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays that multiply, of broadcasting batches, in all the layouts in which arrays come."""
    rows, p, m = (draw(st.integers(0, 6)) for _ in range(3))
    batch = draw(st.lists(st.integers(0, 4), max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from(DTYPES))

    def one(rows: int, columns: int) -> np.ndarray:
        axes = [draw(st.sampled_from([n, 1])) for n in batch][draw(st.integers(0, len(batch))) :]
        kind = draw(
            st.sampled_from(["plain", "swapped", "every second", "wider", "stretched", "moved", "backwards"])
        )
        if kind == "swapped":
            return array(rng, (*axes, columns, rows), dtype).mT
        if kind == "every second":
            return array(rng, (*axes, rows, 2 * columns), dtype)[..., ::2]
        if kind == "wider":
            return array(rng, (*axes, rows, columns + 2), dtype)[..., 1:-1]
        if kind == "stretched":
            return np.broadcast_to(array(rng, (*axes, rows, 1), dtype), (*axes, rows, columns))
        if kind == "moved":
            return np.moveaxis(array(rng, (rows, *axes, columns), dtype), 0, -2)
        if kind == "backwards" and axes:
            return array(rng, (*axes, rows, columns), dtype)[::-1]
        return array(rng, (*axes, rows, columns), dtype)

    return one(rows, p), one(p, m)


@needs_openblas
@given(operands())
def test_the_cores_give_what_numpy_gives(pair: tuple[np.ndarray, np.ndarray]) -> None:
    if not (pair[0] @ pair[1]).size:
        return  # left to NumPy, as anything small
    with on_two_threads():
        found = _gemm._on_cores(*pair)
    close(found, pair[0] @ pair[1])


@pytest.fixture(scope="module")
def narrow_blocks() -> Iterator[None]:
    """Single products in blocks of two columns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_gemm, "_BLOCKS", range(2, 0, -1))
        _gemm._planned.cache_clear()
        yield
    _gemm._planned.cache_clear()


@needs_openblas
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([4, 5, 6, 8, 12]),
    st.sampled_from(DTYPES),
    st.booleans(),
    st.booleans(),
)
def test_blocks_of_columns_give_what_numpy_gives(
    narrow_blocks: None, rows: int, p: int, columns: int, dtype: str, swapped: bool, given_out: bool
) -> None:
    rng = np.random.default_rng(0)
    M = array(rng, (rows, p), dtype)
    tubes = array(rng, (columns, p), dtype).T if swapped else array(rng, (p, columns), dtype)
    out = np.empty((rows, columns), dtype) if given_out else None
    with on_two_threads():
        found = _gemm._on_cores(M, tubes, out)
    close(found, M @ tubes)
    assert out is None or found is out


@pytest.mark.parametrize("columns", [3840, 9216, 3072, 3584])
def test_the_cores_get_as_many_blocks_each(columns: int) -> None:
    for cores in (2, 3, 4):
        plan = _gemm._planned((32, 32), (32, columns), cores)
        taken = [len(range(*second[-3].indices(plan.blocks))) for _, second, _ in plan.parts]  # type: ignore[union-attr]
        assert len(plan.parts) == cores and sum(taken) == plan.blocks
        assert max(taken) - min(taken) <= (0 if columns % (cores * 128) == 0 else 1)


KINDS = ["float16", "float32", "float64", "longdouble", "complex64", "complex128", "int8", "int64", "bool"]


@given(
    st.tuples(*[st.integers(0, 17)] * 3),
    st.sampled_from(KINDS),
    st.sampled_from(KINDS),
    st.sampled_from("CFA"),
    st.sampled_from("CFA"),
)
@example((15, 16, 10), "float32", "float64", "F", "C")
@example((4, 4, 4), "float64", "float64", "C", "C")
@example((15, 16, 10), "float32", "float32", "A", "C")
def test_small_products_have_the_bits_of_captured_ones(
    sizes: tuple[int, int, int], kind1: str, kind2: str, order1: str, order2: str
) -> None:
    """A replay makes them by NumPy's matmul."""
    rows, p, columns = sizes

    def one(shape: tuple[int, int], kind: str, order: str, seed: int) -> np.ndarray:
        x = (9 * np.random.default_rng(seed).standard_normal(shape)).astype(kind)
        if order != "A":
            return np.asarray(x, order=order)
        memory = np.zeros(x.nbytes + 1, np.uint8)[1:]  # not aligned
        off = memory.view(x.dtype).reshape(shape)
        off[...] = x
        return off

    a, b = one((rows, p), kind1, order1, 0), one((p, columns), kind2, order2, 1)
    found, theirs = _gemm.matmul(a, b), np.matmul(a, b)
    assert found.dtype == theirs.dtype
    np.testing.assert_array_equal(found, theirs)  # longdouble has bytes that mean nothing


def test_an_error_names_the_function_once() -> None:
    with pytest.raises(ValueError, match=r"^matmul: (?!matmul)"):
        ct.matmul(np.ones((2, 3)), np.ones((4, 2)))


@needs_mkl
def test_mkl_leaves_swapped_bytes_to_numpy() -> None:
    a = np.random.default_rng(0).standard_normal((64, 40, 40)).astype(">f4")
    close(ct.matmul(a, a).astype("f4"), a.astype("f4") @ a.astype("f4"))


@needs_mkl
def test_a_limit_of_mkls_threads_is_one_of_loops() -> None:
    library = ctypes.CDLL(_mkl._path())
    before = _mkl.openmp_threads()
    library.MKL_Set_Num_Threads(1)
    try:
        assert _mkl.openmp_threads() == 1
    finally:
        library.MKL_Set_Num_Threads(before)
    assert _mkl.openmp_threads() == before


@needs_mkl
def test_the_environment_is_left_as_it_was() -> None:
    code = "import os; from cutnn.array import _mkl; old = dict(os.environ); _mkl.is_here(); print(old == os.environ)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "True", done.stderr


@pytest.fixture(scope="module")
def every_size() -> Iterator[None]:
    """No product too small for MKL."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_mkl, "SHARED", 0)
        _mkl._planned.cache_clear()
        yield
    _mkl._planned.cache_clear()


@needs_mkl
@given(operands())
def test_mkl_gives_what_numpy_gives(every_size: None, pair: tuple[np.ndarray, np.ndarray]) -> None:
    product = _mkl.matmul(*pair)
    if product is not None:
        close(product, pair[0] @ pair[1])


@needs_mkl
@pytest.mark.parametrize("dtype", DTYPES)
def test_mkl_takes_what_networks_multiply(every_size: None, dtype: str) -> None:
    rng = np.random.default_rng(0)
    K, Y, M = array(rng, (5, 7, 6), dtype), array(rng, (5, 6, 3), dtype), array(rng, (5, 5), dtype)
    tubes = Y.reshape(5, 18)
    for a, b in [
        (K, Y),
        (K.mT, K),
        (Y, Y.mT),
        (M, tubes),
        (M.T, tubes),
        (tubes, tubes.T),
        (M, tubes[:, ::-1][:, ::-1]),
    ]:
        product = _mkl.matmul(a, b)
        assert product is not None
        close(product, a @ b)
    batch = array(rng, (2, 5, 18), dtype)
    close(_mkl.matmul(M, batch), M @ batch)
    close(_mkl.matmul(M, np.broadcast_to(tubes, (4, 5, 18))), np.broadcast_to(M @ tubes, (4, 5, 18)))


@needs_openblas
def test_both_threads_are_at_work(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    barrier = threading.Barrier(2)
    whole = np.matmul

    class Library:
        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        def matmul(self, *args: Any, **options: Any) -> Any:
            if threading.get_ident() not in seen:
                seen.add(threading.get_ident())
                barrier.wait(timeout=20)
            return whole(*args, **options)

    monkeypatch.setattr(_gemm, "numpy", Library())
    rng = np.random.default_rng(0)
    A, B = array(rng, (6, 4, 4), "float64"), array(rng, (6, 4, 3), "float64")
    assert np.array_equal(_gemm.matmul(A, B), A @ B)
    assert len(seen) == 2


@needs_openblas
@pytest.mark.parametrize("shapes", [((2, 3), (4, 2)), ((5, 2, 3), (4, 3, 2)), ((3,), (4, 4)), ((2, 2), ())])
def test_what_does_not_fit_is_named_with_its_shapes(two_threads: None, shapes: Any) -> None:
    x1, x2 = (np.ones(shape) for shape in shapes)
    with pytest.raises(ValueError, match=rf"matmul: .*{shapes[0]}".replace("(", r"\(").replace(")", r"\)")):
        ct.matmul(x1, x2)


def test_the_cotangent_of_a_transposed_operand_has_its_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_products, "_LARGE", 0)
    rng = np.random.default_rng(0)
    K, Y = array(rng, (3, 4, 5), "float64"), array(rng, (3, 4, 2), "float64")
    gradient = ct.grad(lambda K: ct.sum(ct.matmul(K.mT, Y) ** 2))(K)
    assert gradient.flags.c_contiguous
    close(gradient, 2 * Y @ (K.mT @ Y).mT)
    X = array(rng, (3, 2, 5), "float64")
    gradient = ct.grad(lambda K: ct.sum(ct.matmul(X, K.mT) ** 2))(K)
    assert gradient.flags.c_contiguous
    close(gradient, 2 * (X @ K.mT).mT @ X)


@needs_openblas
def test_openblas_is_held_through_a_gradient_and_has_its_threads_again() -> None:
    blas = _cores.openblas()
    assert blas is not None
    before, seen = blas.get_threads(), []
    blas.set_threads(3)

    def f(x: Any) -> Any:
        seen.append((blas.get_threads(), _cores.threads()))
        if x > 1:
            raise FloatingPointError
        return x * x

    inner = ct.grad(f)
    ct.grad(lambda x: inner(x))(1.0)
    with pytest.raises(FloatingPointError):
        inner(2.0)
    assert seen == [(1, 3)] * 2 and blas.get_threads() == 3
    blas.set_threads(before)


@needs_openblas
def test_products_outside_of_a_computation_are_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gemm, "_WORTH", 0)
    monkeypatch.setattr(_mkl, "_library", lambda: None)
    monkeypatch.setattr(_gemm, "_on_cores", lambda *_: pytest.fail("it was shared out"))
    assert np.array_equal(_gemm.matmul(np.eye(2), np.eye(2)), np.eye(2))


def test_mkl_can_be_declined() -> None:
    code = "from cutnn.array import _mkl; print(_mkl._library())"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "CUTNN_MKL": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment
    )
    assert done.stdout.strip() == "None", done.stderr
