"""Matrices of discrete wavelet transforms, from PyWavelets' filters, wrapped around the ends of the tubes.

Source: Daubechies, Ten lectures on wavelets, SIAM (1992); the order of samples and filters is that of PyWavelets'
mode "periodization".
"""

from __future__ import annotations

import difflib
import operator
from typing import Any

import numpy as np


def wavelet_matrix(n: int, name: str, levels: int) -> np.ndarray:
    """The transform of n samples: rows are the coarse averages, then the details of each level, coarse to fine."""
    lowpass, highpass = (np.array(taps) for taps in _wavelet(name).filter_bank[:2])
    M = np.eye(n)
    for level in range(levels):
        m = n >> level
        M[:m] = _one_level(m, lowpass, highpass) @ M[:m]
    return M


def levels_of(n: int, name: str, levels: int | None) -> int:
    """How many times tubes of length n are halved; ValueError where they cannot be."""
    taps = _wavelet(name).dec_len
    most = (n & -n).bit_length() - 1  # the factors of two in n
    if levels is None:
        levels = min(most, max(n // (taps - 1), 1).bit_length() - 1)  # as PyWavelets' dwt_max_level
        if most and not levels:
            raise ValueError(
                f"wavelet: n = {n} is too short for the {taps} taps of {name}, which wrap around it; "
                f"for that give levels=1, else a shorter wavelet or n of at least {2 * (taps - 1)}"
            )
    try:
        levels = operator.index(levels)
    except TypeError:
        raise TypeError(f"wavelet: levels is an integer or None, not {levels!r}") from None
    if levels < 1 <= most:
        raise ValueError(f"wavelet: levels is {levels}; expected 1 to {most} for n = {n}")
    if levels > most or not most:
        step = 2 ** max(levels, 1)
        below = n // step * step
        nearest = " and ".join(str(m) for m in (below, below + step) if m)
        raise ValueError(
            f"wavelet: n = {n} cannot be halved {max(levels, 1)} times; the nearest lengths that can: {nearest}"
            + (f", or levels up to {most}" if most else "")
        )
    return levels


# -------------------------------------------------------------------------------------------------- helpers


def _wavelet(name: str) -> Any:
    try:
        import pywt
    except ImportError:
        raise ImportError(
            "wavelet: the filters come from PyWavelets: pip install 'cutnn[wavelets]'; algebra.haar needs none"
        ) from None
    known = pywt.wavelist(kind="discrete")
    if name not in known:
        near = ", ".join(map(repr, difflib.get_close_matches(str(name).lower(), known)))
        hint = f"near it are {near}" if near else f"there are {', '.join(map(repr, known[:3]))}, ..."
        raise ValueError(
            f"wavelet: {name!r} is no discrete wavelet of PyWavelets; {hint}; "
            "pywt.wavelist(kind='discrete') names all"
        )
    return pywt.Wavelet(name)


def _one_level(m: int, lowpass: np.ndarray, highpass: np.ndarray) -> np.ndarray:
    """The two filters at every second of m samples, lowpass first; what overlaps by wrapping is added."""
    H = np.zeros((m, m))
    k, taps = np.arange(m // 2), len(lowpass)
    for j in range(taps):
        columns = (2 * k + taps // 2 - j) % m
        H[k, columns] += lowpass[j]
        H[k + m // 2, columns] += highpass[j]
    error = H.T @ H - np.eye(m)
    if (
        np.abs(error).max() < 1e-8
    ):  # PyWavelets' symlets are tabled to 11 digits: one Newton step to orthogonal
        H -= H @ error / 2
    return H
