"""Orthonormal bases that hold most of the faces of a tensor, found by random sampling.

Source: Halko, Martinsson, Tropp, Finding structure with randomness, SIAM Review 53 (2011), algorithms 4.4 and 5.1;
Zhang, Saibaba, Kilmer, Aeron, A randomized tensor singular value decomposition based on the t-product, Numerical
Linear Algebra with Applications 25 (2018); by blocks Martinsson, Voronin, SIAM Journal on Scientific Computing 38
(2016).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cutnn import array as ct
from cutnn.algebra._faces import Faces, like
from cutnn.array._products import adjoint
from cutnn.device import namespace
from cutnn.tape import raw


def bases(faces: Faces, width: int, powers: int, rng: np.random.Generator) -> list[Any]:
    """For each part a basis of `width` columns, (*batch, f, l, width)."""
    return [_basis(raw(part), width, powers, rng) for part in faces.parts]


def bases_within(
    faces: Faces, tolerance: float, block: int, powers: int, rng: np.random.Generator
) -> tuple[list[Any], Any]:
    """For each part a basis Q, all as wide, with ‖Â - Q Qᴴ Â‖ ≤ tolerance ‖Â‖; and the squares of those norms.

    They grow by blocks, each sampled from what those before leave of Â. What is left is subtracted, not inferred
    from norms, so that the error is known to rounding (relative to ‖Â‖²), (*batch,).
    """
    left = _scaled([raw(part) for part in faces.parts])
    whole = _squares(left)
    most = min(left[0].shape[-2:])
    blocks: list[list[Any]] = [[] for _ in left]
    width = 0
    while True:
        more = min(block, most - width)
        width += more
        for k, part in enumerate(left):
            Q = _basis(part, more, powers, rng)
            left[k] = part - Q @ (adjoint(Q) @ part)
            blocks[k].append(Q)
        rest = _squares(left)
        if width == most or bool((rest <= tolerance**2 * whole).all()):
            break
    # A face that is done early gives its later blocks of rounding errors: they are made orthogonal here.
    xp = namespace(left[0])
    joined = [ct.linalg.qr(xp.concatenate(parts, axis=-1))[0] for parts in blocks]
    return joined, xp.asarray(rest / xp.where(whole == 0, 1, whole))


def rank_within(faces: Faces, s: Any, rest: Any, tolerance: float) -> int:
    """The least k for which `rest` and the squares of the singular values after the k-th are within the tolerance.

    Both are relative to ‖Â‖²; s is (*batch, faces, q), and k the same for a whole batch.
    """
    s = raw(s)
    xp = namespace(s)
    largest = s.max(axis=(-2, -1), keepdims=True)
    squares = (s.astype(xp.float64) / xp.where(largest == 0, 1, largest)) ** 2
    squares = (faces.times_like(s)[:, None] * squares).sum(axis=-2)
    after = xp.flip(xp.cumsum(xp.flip(squares, axis=-1), axis=-1), axis=-1)  # from the k-th on
    whole, rest = after[..., :1], rest[..., None]
    share = rest + (1 - rest) * after / xp.where(whole == 0, 1, whole)
    return max(1, int(xp.max(xp.sum(share > tolerance**2, axis=-1))))


# -------------------------------------------------------------------------------------------------- helpers


def _basis(part: Any, width: int, powers: int, rng: np.random.Generator) -> Any:
    """The range of (A Aᴴ)^powers A Ω, made orthonormal after each product, for Gaussian Ω."""
    shape = (*part.shape[-3:-2], part.shape[-1], width)
    sample = rng.standard_normal(shape)
    if part.dtype.kind == "c":
        sample = sample + 1j * rng.standard_normal(shape)
    Q = ct.linalg.qr(part @ like(sample.astype(part.dtype), part))[0]
    for _ in range(powers):
        Q = ct.linalg.qr(part @ ct.linalg.qr(adjoint(part) @ Q)[0])[0]
    return Q


def _scaled(parts: list[Any]) -> list[Any]:
    """The parts by the largest entry of each tensor, so that no square overflows; in them are the same ranges."""
    xp = namespace(*parts)
    largest = [xp.abs(part).max(axis=(-3, -2, -1), keepdims=True) for part in parts]
    size = largest[0] if len(parts) == 1 else xp.maximum(*largest)
    return [part / xp.where(size == 0, 1, size) for part in parts]


def _squares(parts: list[Any]) -> Any:
    """The sum of the squares of all entries of the whole spectrum, (*batch,): complex faces of two parts are pairs."""
    xp = namespace(*parts)
    sums = [(xp.abs(part).astype(xp.float64) ** 2).sum(axis=(-3, -2, -1)) for part in parts]
    return xp.asarray(sums[0] if len(parts) == 1 else sums[0] + 2 * sums[1])
