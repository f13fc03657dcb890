"""Fast orthonormal transforms of long tubes, and the tube lengths from which they win.

Each takes a real array (before, n, after) and its library, and transforms axis 1. BLAS runs near the peak of
the machine, a Fourier transform at the speed of its memory: they win on long tubes only. Milliseconds for
faces of 96 x 32, forward, two cores (EPYC, AVX-512; OpenBLAS, NumPy 2.4, SciPy 1.17), the DCT by SciPy where it
is installed, else by NumPy's real FFT; the last three columns on one thread:

             float32                                         float64
    n        GEMM  SciPy   FFT Hartley Hadamard  Haar        GEMM  SciPy   FFT Hartley Hadamard  Haar
    128       0.6    0.8   2.6     5.0      0.4   0.3         1.9    2.3   2.7     1.7      1.0   0.6
    192       1.3    1.2   4.5                                4.0    3.8   3.3
    256       2.2    1.7   6.0     8.8      1.2   0.5         8.6    5.4   4.8     4.5      2.5   1.2
    512       8.5    4.6  13.3    19.0      4.0   1.2        43.0   13.1  12.1    10.6      7.5   3.3
    1024     61.4   13.2  29.2    34.0      9.5   3.9       144.0   30.4  24.6    26.1     21.7   6.6

On small faces SciPy wins earlier still: 16 x 16 by n = 512 takes 0.2 ms in float32, 0.7 by GEMM, as by NumPy.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from typing import Any, NamedTuple

import numpy as np

from cutnn.algebra._modes import RawMap


class Fast(NamedTuple):
    """A fast transform, its inverse, and the tube lengths from which they are taken."""

    forward: RawMap
    inverse: RawMap
    single: int
    double: int


_SCIPY = importlib.util.find_spec("scipy") is not None


def dct(A: Any, xp: Any) -> Any:
    """DCT-II, by SciPy where it is installed and the array is NumPy's."""
    return _scipy_fft().dct(A, axis=1, norm="ortho") if _SCIPY and xp is np else dct_by_rfft(A, xp)


def idct(C: Any, xp: Any) -> Any:
    return _scipy_fft().idct(C, axis=1, norm="ortho") if _SCIPY and xp is np else idct_by_rfft(C, xp)


def dct_by_rfft(A: Any, xp: Any) -> Any:
    """DCT-II by one real FFT of the sequence x0 x2 x4 ... x5 x3 x1 (Makhoul 1980)."""
    n = A.shape[1]
    h = n // 2 + 1
    evens_then_odds = xp.concat([A[:, ::2], A[:, 1::2][:, ::-1]], axis=1)
    W = xp.fft.rfft(evens_then_odds, axis=1)
    W *= _twiddle(n, W.dtype, xp)
    C = xp.empty_like(A)
    C[:, :h] = W.real[:, :h]
    C[:, h:] = -W.imag[:, 1 : n - h + 1][:, ::-1]
    return C


def idct_by_rfft(C: Any, xp: Any) -> Any:
    n = C.shape[1]
    h, evens = n // 2 + 1, (n + 1) // 2
    W = xp.empty((C.shape[0], h, C.shape[2]), dtype=xp.result_type(C.dtype, xp.complex64))
    W.real = C[:, :h]
    W.imag[:, :1] = 0
    W.imag[:, 1:] = -C[:, n - h + 1 :][:, ::-1]
    W /= _twiddle(n, W.dtype, xp)
    v = xp.fft.irfft(W, n=n, axis=1)
    A = xp.empty_like(C)
    A[:, ::2] = v[:, :evens]
    A[:, 1::2] = v[:, evens:][:, ::-1]
    return A


def dst(A: Any, xp: Any) -> Any:
    """DST-II: the DCT-II of the sequence with alternating signs, read backwards."""
    return dct(_alternate(A), xp)[:, ::-1]


def idst(S: Any, xp: Any) -> Any:
    return _alternate(idct(S[:, ::-1], xp))


def hartley(A: Any, xp: Any) -> Any:
    """The Hartley transform, real minus imaginary part of the Fourier transform; its own inverse."""
    n = A.shape[1]
    h = n // 2 + 1
    F = xp.fft.rfft(A, axis=1)
    H = xp.empty_like(A)
    H[:, :h] = F.real - F.imag
    mirrored = slice(1, n - h + 1)
    H[:, h:] = (F.real[:, mirrored] + F.imag[:, mirrored])[:, ::-1]
    H *= 1 / math.sqrt(n)
    return H


def hadamard(A: Any, xp: Any) -> Any:
    """The Hadamard transform by butterflies of up to 32 points, each a matrix product; its own inverse."""
    before, n, after = A.shape
    bits = n.bit_length() - 1
    radix = 1 << math.ceil(bits / max(math.ceil(bits / 5), 1))
    step = 1
    while step < n:
        points = min(radix, n // step)
        H = xp.asarray(hadamard_matrix(points), dtype=A.dtype)
        A = H @ A.reshape(before * n // (points * step), points, step * after)
        step *= points
    return A.reshape(before, n, after)


def haar(A: Any, xp: Any) -> Any:
    """The Haar transform, pairwise means and differences, means again, ...; coarse before fine."""
    result = xp.empty_like(A)
    while (n := A.shape[1]) > 1:
        even, odd = A[:, ::2], A[:, 1::2]
        result[:, n // 2 : n] = (even - odd) * math.sqrt(0.5)
        A = (even + odd) * math.sqrt(0.5)
    result[:, :1] = A
    return result


def ihaar(C: Any, xp: Any) -> Any:
    A = C[:, :1]
    while (n := A.shape[1]) < C.shape[1]:
        fine = C[:, n : 2 * n]
        finer = xp.empty((C.shape[0], 2 * n, C.shape[2]), dtype=C.dtype)
        finer[:, ::2] = (A + fine) * math.sqrt(0.5)
        finer[:, 1::2] = (A - fine) * math.sqrt(0.5)
        A = finer
    return A


def hadamard_matrix(n: int) -> np.ndarray:
    """Sylvester's orthonormal Hadamard matrix, n a power of two."""
    H = np.ones((1, 1))
    while H.shape[0] < n:
        H = np.kron(np.array([[1.0, 1.0], [1.0, -1.0]]), H)
    return H / math.sqrt(n)


@functools.cache
def _scipy_fft() -> Any:
    import scipy.fft

    return scipy.fft


def _twiddle(n: int, dtype: Any, xp: Any) -> Any:
    """exp(-πik/2n) with the factors of the orthonormal DCT-II, (1, n//2+1, 1)."""
    k = np.arange(n // 2 + 1)
    factor = np.exp(-0.5j * np.pi * k / n) * np.where(k == 0, math.sqrt(1 / n), math.sqrt(2 / n))
    return xp.asarray(factor.astype(dtype)[None, :, None])


def _alternate(A: Any) -> Any:
    A = A.copy()
    A[:, 1::2] *= -1
    return A


DCT = Fast(dct, idct, *((192, 192) if _SCIPY else (1024, 256)))
DST = Fast(dst, idst, *DCT[2:])
HARTLEY = Fast(hartley, hartley, 1024, 256)
HADAMARD = Fast(hadamard, hadamard, 128, 128)
HAAR = Fast(haar, ihaar, 128, 128)
