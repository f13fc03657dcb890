"""Matrices, lengths and data that make no transform, and how that is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cutnn import algebra
from cutnn.algebra import Transform

FAMILIES = [algebra.dct, algebra.dst, algebra.hartley, algebra.hadamard, algebra.haar, algebra.fft]


def test_singular_and_badly_conditioned_matrices() -> None:
    with pytest.raises(ValueError, match="condition number is inf"):
        algebra.from_matrix([[1.0, 0.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match=r"2 x 2, is singular or nearly so: its condition number is 1e\+10"):
        algebra.from_matrix(np.diag([1.0, 1e-10]))
    with pytest.raises(ValueError, match="condition number is inf"):
        algebra.from_matrix(np.diag([1.0, 5e-324]))
    assert algebra.from_matrix(np.diag([1.0, 1e-10]), max_condition=1e11).n == 2


def test_bad_matrices() -> None:
    with pytest.raises(ValueError, match=r"M has shape \(2, 3\); expected a square"):
        algebra.from_matrix(np.ones((2, 3)))
    with pytest.raises(ValueError, match="square"):
        algebra.from_matrix(np.ones((0, 0)))
    with pytest.raises(ValueError, match=r"the first is M\[0, 1\] = nan"):
        algebra.from_matrix([[1.0, np.nan], [0.0, np.inf]])
    with pytest.raises(TypeError, match="expected real or complex numbers"):
        algebra.from_matrix([["a", "b"], ["c", "d"]])


def test_transforms_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"wide\(3\): its matrix has shape \(2, 3\); expected \(3, 3\)"):
        Transform("wide", 3, np.ones((2, 3)))
    with pytest.raises(ValueError, match="its matrix has shape"):
        Transform("wide", 3, lambda n: np.ones((2, n))).matrix()
    with pytest.raises(TypeError, match="its formula makes a complex matrix"):
        Transform("complex", 3, lambda n: 1j * np.eye(n)).forward(np.ones((3, 1, 1)), -3)
    with pytest.raises(TypeError, match="expected transforms, not a StarAlgebra.*algebra.product"):
        algebra.StarAlgebra(algebra.dct(3))  # type: ignore[arg-type]
    assert Transform("list", 2, [[1, 2], [0, 1j]]).real is False


@pytest.mark.parametrize("make", [*FAMILIES, algebra.identity, algebra.random_orthogonal])
def test_bad_lengths(make: Any) -> None:
    for n in (0, -3):
        with pytest.raises(ValueError, match="positive integer"):
            make(n)
    for wrong in (2.0, "8"):
        with pytest.raises(TypeError, match="positive integer"):
            make(wrong)
    assert make(np.int64(4)).n == 4


@pytest.mark.parametrize("make", [algebra.hadamard, algebra.haar])
def test_powers_of_two(make: Any) -> None:
    with pytest.raises(ValueError, match=r"n = 28 is not a power of two; the nearest are 16 and 32"):
        make(28)


def test_bad_data_and_bad_products() -> None:
    with pytest.raises(ValueError, match=r"X has shape \(3, 4\); expected \(..., n, l, m\)"):
        algebra.from_data(np.ones((3, 4)))
    with pytest.raises(ValueError, match="non-finite"):
        algebra.from_data(np.full((3, 4, 2), np.nan))
    with pytest.raises(ValueError, match="not empty"):
        algebra.from_data(np.ones((3, 0, 2)))
    with pytest.raises(TypeError, match="not a int"):
        algebra.product(algebra.dct(3), 4)  # type: ignore[arg-type]
