"""Matrices, lengths and data that make no transform, and how that is said."""

from __future__ import annotations

import sys
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


def test_bands_that_cannot_be() -> None:
    for wrong in (0, 6, -1):
        with pytest.raises(ValueError, match=f"bandwidth is an integer from 1 to n = 5, not {wrong}"):
            algebra.banded(5, wrong)
    with pytest.raises(TypeError, match=r"bandwidth is an integer from 1 to n = 5, not 2.0"):
        algebra.banded(5, 2.0)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"coefficients have shape \(3,\); expected \(2,\), one for each of 2"
    ):
        algebra.banded(5, 2, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"banded: non-finite numbers, the first is coefficients\[1\] = nan"):
        algebra.banded(5, 2, [1.0, np.nan])
    with pytest.raises(TypeError, match="expected real or complex numbers"):
        algebra.banded(5, 2, ["a", "b"])
    with pytest.raises(
        ValueError, match=r"banded: M, 50 x 50, is singular or nearly so: its condition .* 1e\+08"
    ):
        algebra.banded(50, 2, [1.0, 2.0])
    with pytest.raises(ValueError, match=r"condition number is inf"):
        algebra.banded(5, 2, [0.0, 2.0])
    assert algebra.banded(50, 2, [1.0, 2.0], max_condition=1e16).n == 50


def test_wavelets_that_are_not() -> None:
    with pytest.raises(ValueError, match=r"'db44' is no discrete wavelet.*near it are 'db4'"):
        algebra.wavelet(32, "db44")
    with pytest.raises(ValueError, match=r"'DB4' is no discrete wavelet.*near it are 'db4'"):
        algebra.wavelet(32, "DB4")
    for name in ("morl", "", 4):  # the first is continuous: it has no filters
        with pytest.raises(ValueError, match="is no discrete wavelet of PyWavelets"):
            algebra.wavelet(32, name)
    with pytest.raises(
        ValueError, match=r"n = 28 cannot be halved 3 times; the nearest .*: 24 and 32, or levels up to 2"
    ):
        algebra.wavelet(28, "db1", levels=3)
    for levels in (None, 1):
        with pytest.raises(ValueError, match=r"n = 27 cannot be halved 1 times; the nearest .*: 26 and 28$"):
            algebra.wavelet(27, "db2", levels)
        with pytest.raises(ValueError, match=r"n = 1 cannot be halved 1 times; the nearest .*: 2$"):
            algebra.wavelet(1, "haar", levels)
    with pytest.raises(ValueError, match=r"levels is 0; expected 1 to 5 for n = 32"):
        algebra.wavelet(32, "db2", levels=0)
    with pytest.raises(ValueError, match=r"n = 12 is too short for the 8 taps of db4.*levels=1.*at least 14"):
        algebra.wavelet(12, "db4")
    assert algebra.wavelet(12, "db4", levels=2).n == 12 == algebra.wavelet(14, "db4").n - 2
    with pytest.raises(TypeError, match="levels is an integer or None, not 1.5"):
        algebra.wavelet(12, "db4", levels=1.5)  # type: ignore[arg-type]


def test_wavelets_without_pywavelets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pywt", None)
    with pytest.raises(ImportError, match=r"cutnn\[wavelets\].*algebra.haar needs none"):
        algebra.wavelet(8, "haar")


def test_bad_data_and_bad_products() -> None:
    with pytest.raises(ValueError, match=r"X has shape \(3, 4\); expected \(..., n, l, m\)"):
        algebra.from_data(np.ones((3, 4)))
    with pytest.raises(ValueError, match="non-finite"):
        algebra.from_data(np.full((3, 4, 2), np.nan))
    with pytest.raises(ValueError, match="not empty"):
        algebra.from_data(np.ones((3, 0, 2)))
    with pytest.raises(TypeError, match="not a int"):
        algebra.product(algebra.dct(3), 4)  # type: ignore[arg-type]
