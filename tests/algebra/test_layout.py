"""Faces first and tubes last: views, and what cannot be converted."""

from __future__ import annotations

import numpy as np
import pytest

from cutnn import algebra
from tests.algebra.catalogue import draw
from tests.gradcheck import check


def test_faces_first_and_tubes_last_are_views() -> None:
    A = draw((4, 5, 3))  # 4 rows, 5 lateral slices, tubes of 3
    B = algebra.faces_first(A)
    assert B.shape == (3, 4, 5) and np.shares_memory(A, B) and B[2, 1, 4] == A[1, 4, 2]
    assert np.array_equal(algebra.tubes_last(B), A)
    C = draw((4, 5, 3, 2))  # order 4
    D = algebra.faces_first(C)
    assert D.shape == (3, 2, 4, 5) and D[2, 1, 3, 0] == C[3, 0, 2, 1]
    assert np.array_equal(algebra.tubes_last(D), C)
    E = algebra.faces_first(C, tubes=1)  # a batch
    assert E.shape == (4, 2, 5, 3) and E[3, 1, 0, 2] == C[3, 0, 2, 1]
    assert np.array_equal(algebra.tubes_last(E, tubes=1), C)
    assert algebra.faces_first(np.ones((2, 3))).shape == (2, 3)
    check(lambda A: algebra.tubes_last(algebra.faces_first(A) ** 2), A)


def test_an_algebra_knows_its_tube_axes() -> None:
    star, A = algebra.product(algebra.dct(3), algebra.fft(2)), draw((7, 4, 5, 3, 2))  # a batch of 7
    B = star.faces_first(A)
    assert B.shape == (7, 3, 2, 4, 5) and np.shares_memory(A, B)
    assert np.array_equal(star.tubes_last(B), A)
    with pytest.raises(ValueError, match="faces_first"):
        star.faces_first(B)


def test_layouts_that_cannot_be() -> None:
    with pytest.raises(TypeError, match="faces_first: expected an array, not a list"):
        algebra.faces_first([1.0])
    with pytest.raises(ValueError, match=r"shape \(3,\) cannot hold two matrix axes"):
        algebra.faces_first(np.ones(3))
    with pytest.raises(ValueError, match=r"and 2 tube axes; expected at least 4 axes"):
        algebra.tubes_last(np.ones((3, 4, 5)), tubes=2)
