"""Strategies give what they promise: shapes, dtypes, ranks, condition numbers, algebras; and they shrink."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra
from cutnn.testing import strategies
from tests.algebra.catalogue import ALGEBRAS, PROJECTED, kron, projector


def values(star: Any, A: Any) -> np.ndarray:
    """The singular values of the faces of the whole spectrum, from the matrix alone: (*batch, n, k)."""
    M, lead = kron(star), A.shape[: A.ndim - 2 - len(star.shape)]
    faces = M @ A.reshape(*lead, star.n, -1).astype(complex)
    return np.linalg.svd(faces.reshape(*lead, len(M), *A.shape[-2:]), compute_uv=False)


@given(star=strategies.algebras())
def test_algebras(star: algebra.StarAlgebra) -> None:
    assert isinstance(star, algebra.StarAlgebra) and len(star.shape) <= 2 and max(star.shape, default=1) <= 5
    for t in star.transforms:
        assert np.linalg.cond(t.matrix()) < 21


@given(data=st.data())
def test_algebras_of_a_kind(data: Any) -> None:
    real = data.draw(strategies.algebras(real=True))
    assert real.real_products
    assert not data.draw(strategies.algebras(real=False)).real_products
    star = data.draw(strategies.algebras(["haar", "fft"], axes=2, lengths=st.integers(4, 5)))
    assert {t.name for t in star.transforms} <= {"haar", "fft"} and set(star.shape) <= {4, 5}


@given(
    data=st.data(), n=st.integers(1, 5), complex_=st.booleans(), condition=st.sampled_from([1.0, 3.0, 1e4])
)
def test_matrices(data: Any, n: int, complex_: bool, condition: float) -> None:
    M = data.draw(strategies.matrices(n, complex=complex_, condition=condition))
    assert M.shape == (n, n) and M.dtype == (complex if complex_ else float)
    assert np.linalg.cond(M) <= condition * (1 + 1e-10)


@given(star=strategies.algebras(), data=st.data())
def test_tensors(star: algebra.StarAlgebra, data: Any) -> None:
    dtype = data.draw(strategies.dtypes())
    A = data.draw(strategies.tensors(star, 2, st.integers(1, 3), batch=(2,), dtype=dtype))
    assert A.shape[:-1] == (2, *star.shape, 2) and 1 <= A.shape[-1] <= 3 and A.dtype == dtype
    assert np.isfinite(A).all()
    assert A.flags.writeable and A.flags.c_contiguous


@given(star=strategies.algebras(), data=st.data(), rank=st.integers(0, 3))
def test_ranks(star: algebra.StarAlgebra, data: Any, rank: int) -> None:
    A = data.draw(strategies.tensors(star, 3, 4, rank=rank, dtype=strategies.dtypes(single=False)))
    s = values(star, A)
    top = s.max(axis=(-2, -1), keepdims=True)
    assert np.all(s[..., rank:] <= 1e-9 * top)
    if star.real_products or A.dtype.kind == "c":
        assert np.all(s[..., :rank] >= 0.99e-3 * top)


@given(star=strategies.algebras(), data=st.data())
def test_ranks_by_face_and_condition(star: algebra.StarAlgebra, data: Any) -> None:
    dtype = np.dtype("float64" if star.real_products else "complex128")
    ranks = np.array(data.draw(st.lists(st.integers(0, 2), min_size=star.n, max_size=star.n)))
    A = data.draw(strategies.tensors(star, 2, 3, rank=ranks.tolist(), condition=10, dtype=dtype))
    s = values(star, A)
    top = s.max(axis=(-2, -1), keepdims=True)
    found = (s > 1e-9 * top).sum(axis=-1)
    if dtype.kind == "c":
        assert np.array_equal(found, np.broadcast_to(ranks, found.shape))
    assert np.all((s <= 1e-9 * top) | (s >= 0.0999 * top))
    assert np.all(found <= 2)


@given(data=st.data(), name=st.sampled_from(list(PROJECTED)))
def test_tensors_of_projected_algebras_are_in_their_range(data: Any, name: str) -> None:
    star = PROJECTED[name]
    A, B = data.draw(strategies.operands(star, "mm mp", condition=5))
    for T in (A, B):
        faces = T.reshape(*T.shape[: T.ndim - 2 - len(star.shape)], star.n, -1)
        eps = np.finfo(T.dtype).eps
        np.testing.assert_allclose(projector(star) @ faces, faces, rtol=0, atol=16 * eps * np.abs(T).max())
    s = values(star, A)
    assert np.all(s.max(axis=(-1, -2)) <= 5.01 * s.min(axis=(-1, -2)))
    ranks = [k % 3 for k in range(len(kron(star)))]
    C = data.draw(strategies.tensors(star, 2, 3, dtype="complex128", rank=ranks, special=False))
    s = values(star, C)
    assert np.array_equal(
        (s > 1e-9 * s.max(axis=(-2, -1), keepdims=True)).sum(axis=-1), 0 * s[..., 0] + ranks
    )


def test_every_special_tensor_occurs() -> None:
    star = algebra.fft(4)
    s = lambda A: values(star, A)  # noqa: E731
    kinds = {
        "zeros": lambda A: not A.any(),
        "identity": lambda A: np.allclose(A, star.eye(3)),
        "equal singular values": lambda A: A.any() and np.ptp(s(A)) < 1e-9 * s(A).max(),
        "low rank": lambda A: np.all(s(A)[..., -1] < 1e-9 * s(A).max()) and A.any(),
        "low rank by face": lambda A: len(set((s(A) > 1e-9 * s(A).max()).sum(axis=-1))) > 1,
        "tiny": lambda A: 0 < np.abs(A).max() < 1e-40,
        "huge": lambda A: np.abs(A).max() > 1e40,
        "small integers": lambda A: A.any() and np.array_equal(A, np.round(A)),
        "entries": lambda A: np.any(A != np.round(A)),
    }
    found = set()

    @given(A=strategies.tensors(star, 3, 3, batch=(), dtype="float64"))
    @settings(max_examples=150)
    def test(A: Any) -> None:
        found.update(name for name, is_one in kinds.items() if is_one(A))

    test()
    assert found == set(kinds)


def test_tensors_shrink_to_small_integers() -> None:
    star = algebra.dct(3)
    A = find(strategies.tensors(star), lambda A: np.abs(A).sum() > 2.5, settings=settings(database=None))
    assert A.shape[-2:] == (1, 1) and A.ndim == 3 and A.dtype == np.float64
    assert np.array_equal(np.round(A), A) and np.abs(A).sum() == 3
    A = find(
        strategies.tensors(star, 2, 2, condition=10), lambda A: A.any(), settings=settings(database=None)
    )
    np.testing.assert_allclose(A, star.eye(2), atol=1e-12)


@given(data=st.data(), name=st.sampled_from(list(ALGEBRAS)))
def test_operands_multiply(data: Any, name: str) -> None:
    star = ALGEBRAS[name]
    A, B, C, a = data.draw(strategies.operands(star, "lm mp pp 11", condition=5))
    lead = np.broadcast_shapes(*(T.shape[: T.ndim - 2 - len(star.shape)] for T in (A, B, C)))
    assert star(A, B, C).shape == (*lead, *star.shape, A.shape[-2], C.shape[-1])
    assert len({T.dtype in (np.float32, np.complex64) for T in (A, B, C, a)}) == 1
    assert a.shape[-2:] == (1, 1)
    s = values(star, C)
    assert np.all(s.max(axis=(-1, -2)) <= 5.01 * s.min(axis=(-1, -2)))
    A, B = data.draw(strategies.operands(star, "lm lm", alike=True))
    assert A.shape == B.shape and A.dtype == B.dtype


@given(data=st.data())
def test_large_tensors_come_from_a_seed(data: Any) -> None:
    A = data.draw(strategies.tensors(algebra.dct(32), 32, 32, batch=(2,), dtype="complex128", special=False))
    assert A.shape == (2, 32, 32, 32) and 0.5 < A.real.std() < 3.5


def test_another_device(pretend_device: Any) -> None:
    star = algebra.dct(3)

    @given(operands=strategies.operands(star, "mm mp", condition=5, device="pretend"))
    @settings(max_examples=5)
    def test(operands: Any) -> None:
        assert {ct.device_of(T) for T in operands} == {"pretend"}
        assert ct.device_of(star.solve(*operands)) == "pretend"

    test()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: strategies.algebras(["dft"]), "algebras: unknown name 'dft'; valid are identity, dct"),
        (lambda: strategies.algebras(["dct"], real=False), "products of real tensors are real in all of dct"),
        (lambda: strategies.matrices(3, condition=0.5), "a condition number is 1 or more, not 0.5"),
        (lambda: strategies.tensors(algebra.dct(3), 2, 2, rank=3), "a number from 0 to 2, the smaller side"),
        (lambda: strategies.tensors(algebra.dct(3), 2, 2, rank=[1, 2]), r"rank=\[1, 2\]; expected"),
        (lambda: strategies.tensors(algebra.dct(3), condition=0.1), "a condition number is 1 or more"),
        (
            lambda: strategies.tensors(ALGEBRAS["complex matrix 3"], dtype="float64", condition=9),
            "a real tensor has no condition number or ranks by face",
        ),
        (lambda: strategies.operands(algebra.dct(3), "lmp"), "form='lmp'; expected two letters or digits a tensor"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        find(make(), lambda x: True, settings=settings(database=None))


def test_without_hypothesis_an_extra_is_named() -> None:
    code = """
import sys
import cutnn as ct
from cutnn import algebra, testing
import numpy as np
assert "hypothesis" not in sys.modules
sys.modules["hypothesis"] = None
testing.check_gradient(ct.tanh, np.ones(2))
for call in (lambda: testing.strategies, lambda: testing.check_algebra(algebra.dct(2))):
    try:
        call()
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["strategies need hypothesis: pip install 'cutnn[testing]'"] * 2
