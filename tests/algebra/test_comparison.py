"""Comparisons of algebras: every number against the functions that it sums up, bad input, the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cutnn as ct
from cutnn import algebra
from tests.algebra.catalogue import EVERY, draw

RANKS = (1, 2, 3)


def three(star: algebra.StarAlgebra, factors: Any) -> Any:
    return star(factors[0], star.diagonal(factors[1]), factors[2])


def size(X: Any) -> Any:
    return np.linalg.norm(X.ravel())


@pytest.mark.parametrize("dtype", [np.float64, np.complex64])
@pytest.mark.parametrize("name", EVERY)
def test_rows_hold_what_the_factorisations_give(name: str, dtype: Any) -> None:
    star = EVERY[name]
    X = draw((2, *star.shape, 5, 3), dtype)
    (row,) = algebra.compare(X, {"it": star}, RANKS, energies=(0.5, 0.95)).rows
    faces = int(np.prod(star.face_shape))
    assert (row.algebra, row.faces) == ("it", faces)
    tolerance = {
        "rtol": 1e-4 if dtype == np.complex64 else 1e-9,
        "atol": 1e-6 if dtype == np.complex64 else 1e-14,
    }
    for k, t_svdm, t_svdmii, storage in zip(RANKS, row.t_svdm, row.t_svdmii, row.storage, strict=True):
        np.testing.assert_allclose(t_svdm, size(X - three(star, star.svd(X, rank=k))) / size(X), **tolerance)
        energy = star.svd_energy(X, count=k * faces)
        np.testing.assert_allclose(t_svdmii, size(X - three(star, energy)) / size(X), **tolerance)
        numbers = 2 if not star.real_products and dtype == np.float64 else 1
        assert storage == pytest.approx(numbers * k * 8 * faces / (star.n * 15))
    for energy, rank in zip((0.5, 0.95), row.implicit_rank, strict=True):
        assert rank == star.svd_energy(X, energy).compression.implicit_rank.mean()
    X_hat = star.forward(X.astype(np.complex128))
    s = np.linalg.svd(X_hat, compute_uv=False).reshape(2, -1)
    np.testing.assert_allclose(
        row.nuclear, np.mean(s.sum(axis=1) / np.sqrt(3 * star.n * (s**2).sum(axis=1))), rtol=1e-5
    )
    whole = [t.matrix() for t in star.transforms]
    M = np.eye(1)
    for matrix in whole:
        M = np.kron(M, matrix)
    np.testing.assert_allclose(row.condition, np.linalg.cond(M), rtol=1e-9)


def test_the_transform_that_suits_the_data_is_ahead() -> None:
    """A tensor of two smooth patterns along the tubes; what M from the data finds, exactly."""
    t = np.linspace(0, 1, 16)[:, None, None]
    X = np.cos(np.pi * t) * draw((6, 7)) + t**2 * draw((6, 7), seed=1)
    found = algebra.compare(X, ranks=(1, 2), energies=(0.999,))
    rows = {row.algebra: row for row in found.rows}
    assert list(rows) == ["identity", "dct", "fft", "haar", "random", "from data"]
    order = sorted(rows, key=lambda name: rows[name].t_svdmii[0])
    assert order[:2] == ["from data", "dct"] and rows["from data"].t_svdmii[0] < 1e-14
    assert rows["from data"].implicit_rank[0] <= 12 < rows["identity"].implicit_rank[0]
    assert rows["from data"].nuclear < rows["dct"].nuclear < rows["random"].nuclear
    for row in found.rows:  # as much storage, shared out by need
        assert np.all(np.array(row.t_svdmii) <= np.array(row.t_svdm) + 1e-12)


def test_order_p_batches_and_single_precision() -> None:
    X = draw((2, 4, 6, 3, 5), np.float32)
    found = algebra.compare(X, tubes=2)
    assert [row.algebra for row in found.rows] == [
        "identity",
        "dct",
        "fft",
        "random",
        "from data",
    ]  # 6: no Haar
    assert {row.faces for row in found.rows} == {24} and found.shape == (2, 4, 6, 3, 5)
    assert algebra.compare(X[0, 0, 0], tubes=0).rows[0].faces == 1
    assert [row.faces for row in algebra.compare(X, tubes=1).rows] == [6] * 5
    mixed = algebra.product(algebra.identity(4), algebra.fft(6))
    assert [row.algebra for row in algebra.compare(X, [mixed]).rows] == ["product(identity(4), fft(6))"]
    alone = [algebra.compare(X[b], [mixed], ranks=(2,)).rows[0] for b in range(2)]
    both = algebra.compare(X, [mixed], ranks=(2,)).rows[0]
    assert both.nuclear == pytest.approx(np.mean([row.nuclear for row in alone]))
    squares = [(row.t_svdm[0] * size(X[b])) ** 2 for b, row in enumerate(alone)]
    assert both.t_svdm[0] == pytest.approx(np.sqrt(sum(squares)) / size(X), rel=1e-4)


def test_ranks_without_being_told_go_up_to_half_the_storage() -> None:
    found = algebra.compare(draw((3, 40, 30)), [algebra.dct(3)])
    assert found.ranks == (1, 2, 3, 4, 6, 8)
    assert 0.45 < found.rows[0].storage[-1] <= 0.5
    assert algebra.compare(draw((3, 1, 1)), [algebra.dct(3)]).ranks == (1,)


def test_a_zero_tensor_has_no_error() -> None:
    for row in algebra.compare(np.zeros((4, 3, 2)), ranks=(1,)).rows:
        assert row.t_svdm == row.t_svdmii == (0.0,) and row.implicit_rank == (0.0, 0.0) and row.nuclear == 0


def test_the_table_is_aligned() -> None:
    found = algebra.compare(draw((8, 6, 7)), {"a": algebra.dct(8), "a long name": algebra.banded(8, 3)})
    lines = str(found).splitlines()
    assert lines[0].startswith("8 x 6 x 7: relative error of the t-SVDM")
    assert len({len(line) for line in lines[1:]}) == 1 and len(lines) == 5
    assert lines[1].split()[:4] == ["algebra", "faces", "cond", "M"] and lines[1].split()[-2:] == [
        "k=1",
        "II",
    ]
    assert lines[3].split()[:3] == ["a", "8", "1"] and lines[4].startswith("a long name ")


def test_bad_input_is_explained() -> None:
    X = draw((4, 3, 2))
    with pytest.raises(
        ValueError, match=r"compare: X has shape \(3, 2\); expected \(..., n, l, m\) for tubes=1"
    ):
        algebra.compare(X[0])
    with pytest.raises(ValueError, match=r"dct\(5\).compare: X has shape \(4, 3, 2\)"):
        algebra.compare(X, [algebra.dct(4), algebra.dct(5)])
    with pytest.raises(TypeError, match=r"expected algebras .*, not a int"):
        algebra.compare(X, {"dct": 4})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match=r"algebras is dct\(4\); expected several"):
        algebra.compare(X, algebra.dct(4))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="X is a list; expected an array"):
        algebra.compare([[[1.0]]])
    for ranks in ((), 2):
        with pytest.raises(ValueError, match=r"ranks is .*; expected tubal ranks"):
            algebra.compare(X, ranks=ranks)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="compare: no algebras"):
        algebra.compare(X, [])
    with pytest.raises(ValueError, match=r"two algebras have one name; give a mapping"):
        algebra.compare(X, [algebra.random_orthogonal(4), algebra.random_orthogonal(4)])
    with pytest.raises(ValueError, match=r"the rank of A, \(4, 3, 2\), is one of 1 to 2, not 3"):
        algebra.compare(X, ranks=(1, 3))
    with pytest.raises(ValueError, match=r"energies are fractions above 0, up to 1, and are \(0.9, 1.2\)"):
        algebra.compare(X, energies=(0.9, 1.2))
    with pytest.raises(ValueError, match=r"compare: X, \(4, 0, 2\), is empty"):
        algebra.compare(np.zeros((4, 0, 2)), [algebra.dct(4)])
    X[1, 2, 0] = np.nan
    with pytest.raises(
        ValueError, match=r"compare: X, \(4, 3, 2\), has an entry that is not finite.*\(1, 2, 0\)"
    ):
        algebra.compare(X, [algebra.dct(4)])


def test_data_of_another_device_are_compared_there(pretend_device: Any) -> None:
    X = draw((2, 4, 3, 5))
    here, there = algebra.compare(X), algebra.compare(ct.to_device(X, "pretend"))
    for a, b in zip(here.rows, there.rows, strict=True):
        assert a.algebra == b.algebra
        np.testing.assert_allclose(
            [*a.t_svdm, *a.t_svdmii, a.nuclear], [*b.t_svdm, *b.t_svdmii, b.nuclear], atol=1e-12
        )
