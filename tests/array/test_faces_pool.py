"""Batches of matrices over the cores: the same results bit for bit, whoever calls, and errors as from one thread."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cutnn as ct
from cutnn import _cores as cores
from cutnn import algebra
from cutnn.array import _faces_pool as pool

needs_openblas = pytest.mark.skipif(
    cores.openblas() is None, reason="NumPy has another library than OpenBLAS"
)
OPTIONS: dict[str, Any] = {"svd": {"full_matrices": False}}


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Two threads of OpenBLAS, and no batch too small; the value tells how many threads it has."""
    blas = cores.openblas()
    assert blas is not None
    before = blas.get_threads()
    monkeypatch.setattr(pool, "_WORTH_FLOPS", 0)
    blas.set_threads(2)
    yield blas.get_threads
    assert blas.get_threads() == 2  # whatever happened
    blas.set_threads(before)


def matrices(name: str, dtype: str, batch: tuple[int, ...], size: int = 6) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((*batch, size, size))
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(x.shape)
    x = x.astype(dtype)
    return x @ x.conj().mT if name in ("cholesky", "eigh", "eigvalsh") else x


def both(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function, which waits once in each thread for the other: two of them are at work, or BrokenBarrierError."""
    barrier, here = threading.Barrier(2), threading.local()

    def wait_first(x: Any) -> Any:
        if not hasattr(here, "waited"):
            here.waited = True
            barrier.wait(timeout=20)
        return function(x)

    return wait_first


# ------------------------------------------------------------------------------------------------ the results


@needs_openblas
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("name", sorted(set(pool.FLOPS) - {"eig"}))
def test_parts_give_what_the_whole_batch_gives_bit_for_bit(name: str, dtype: str, two_threads: Any) -> None:
    function = getattr(np.linalg, name)
    for x in (matrices(name, dtype, (9,)), matrices(name, dtype, (3, 4)), matrices(name, dtype, (7,)).mT):
        arrays = (x, x.conj()) if name == "solve" else (x,)
        found, expected = (
            pool.linalg(name, *arrays, **OPTIONS.get(name, {})),
            function(*arrays, **OPTIONS.get(name, {})),
        )
        assert type(found) is type(expected)
        for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (found, expected)), strict=True):
            assert a.dtype == b.dtype and np.array_equal(a, b)


@needs_openblas
def test_faces_of_64_rows_are_the_same_on_one_thread_and_on_two(two_threads: Any) -> None:
    x = matrices("svd", "float64", (8,), 64)
    found = ct.linalg.svd(x)
    blas = cores.openblas()
    assert blas is not None
    blas.set_threads(1)
    expected = np.linalg.svd(x)
    blas.set_threads(2)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@needs_openblas
def test_two_threads_take_the_parts_with_openblas_on_one(two_threads: Any) -> None:
    seen: list[tuple[int, int]] = []

    def double(x: Any) -> Any:
        seen.append((len(x), two_threads()))
        return 2 * x

    x = matrices("inv", "float64", (3, 7))
    assert np.array_equal(pool.by_faces(both(double), 1, x), 2 * x)
    assert sum(n for n, _ in seen) == 21 and len(seen) == 8
    assert {threads for _, threads in seen} == {1}


@needs_openblas
def test_eigenvalues_are_complex_though_those_of_some_parts_are_real(two_threads: Any) -> None:
    x = np.concatenate([np.tile(np.diag([1.0, 2.0]), (6, 1, 1)), [[[0.0, 1.0], [-1.0, 0.0]]] * 2])
    w, V = ct.linalg.eig(x)
    assert w.dtype == V.dtype == np.complex128
    assert np.allclose(x @ V, V * w[:, None, :])
    assert np.allclose(w[-1].imag ** 2, 1)


@needs_openblas
@pytest.mark.parametrize("batch", [(), (1,), (0,), (2, 0)])
def test_no_matrix_and_one(batch: tuple[int, ...], two_threads: Any) -> None:
    x = matrices("svd", "float64", batch)
    assert ct.linalg.svd(x)[0].shape == x.shape and ct.linalg.inv(x).shape == x.shape


def test_small_batches_are_left_to_numpy() -> None:
    x = matrices("inv", "float64", (4,))
    assert pool.by_faces(len, 1, x) == 4


# ------------------------------------------------------------------------------------------- errors and threads


@needs_openblas
def test_an_error_comes_through_from_either_thread(two_threads: Any) -> None:
    x = matrices("cholesky", "float64", (8,))
    for k in (0, 7):
        bad = x.copy()
        bad[k] *= -1
        with pytest.raises(np.linalg.LinAlgError):
            ct.linalg.cholesky(bad)
    star = algebra.identity(8)
    with pytest.raises(np.linalg.LinAlgError, match=r"face 7 of its transform"):
        star.cholesky(bad)
    with pytest.raises(np.linalg.LinAlgError, match=r"inv: A is singular .* face 3"):
        star.inv(np.where(np.arange(8)[:, None, None] == 3, 0, x))
    main = threading.current_thread()

    def fail(here: bool) -> Callable[[Any], Any]:
        def function(x: Any) -> Any:
            if (threading.current_thread() is main) == here:
                raise KeyboardInterrupt
            return x

        return both(function)

    for here in (True, False):
        with pytest.raises(KeyboardInterrupt):
            pool.by_faces(fail(here), 1, x)
    assert np.array_equal(pool.by_faces(both(np.negative), 1, x), -x)  # and it goes on


@needs_openblas
def test_floating_point_errors_are_treated_as_the_caller_says(two_threads: Any) -> None:
    x = matrices("inv", "float64", (8,))
    with np.errstate(divide="ignore"):
        pool.by_faces(both(lambda x: 1 / (0 * x + 0)), 1, x)
    main = threading.current_thread()
    other = lambda x: x if threading.current_thread() is main else 1 / (0 * abs(x))  # noqa: E731
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        pool.by_faces(both(other), 1, x)


@needs_openblas
def test_calls_within_calls_and_side_by_side(two_threads: Any) -> None:
    x = matrices("inv", "float64", (8,))
    assert np.array_equal(pool.by_faces(both(ct.linalg.inv), 1, x), np.linalg.inv(x))
    found: list[Any] = []
    callers = [
        threading.Thread(target=lambda: found.extend(ct.linalg.inv(x) for _ in range(50)), daemon=True)
        for _ in range(5)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=30)
    assert len(found) == 250 and all(np.array_equal(y, np.linalg.inv(x)) for y in found)


def run(code: str, **environment: str) -> str:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=root,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "2", "PYTHONPATH": str(root), **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_openblas
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_amid_a_call_and_the_end_of_the_interpreter() -> None:
    code = """
import atexit, os, threading
import numpy as np
from cutnn import _cores as cores
from cutnn.array import _faces_pool as pool
pool._WORTH_FLOPS = 0
x = np.ones((8, 2, 2)) + np.eye(2)
seen = []
def inv(x):
    seen.append(threading.get_ident())
    return np.linalg.inv(x)
def late():
    assert np.array_equal(pool.by_faces(inv, 1, x), np.linalg.inv(x))
    print("late", flush=True)
atexit.register(late)
entered, leave = threading.Event(), threading.Event()
def hold(x):
    entered.set()
    leave.wait()
    return x
amid = threading.Thread(target=lambda: pool.by_faces(hold, 1, x))
amid.start()
entered.wait()
child = os.fork()
if not child:
    assert cores.openblas().get_threads() == 2
    late()
    assert cores._turn.acquire(blocking=False) and len(cores._pool) == 1
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
leave.set()
amid.join()
"""
    assert run(code).split() == ["late", "late"]


def test_it_can_be_declined() -> None:
    code = "from cutnn._cores import openblas; print(openblas())"
    assert run(code, CUTNN_FACES_OVER_CORES="0") == "None"
