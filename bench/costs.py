"""Flops and bytes of the work in the cases: what the mathematics asks for, whoever does it.

Flops are those of matrix products, 2 for a multiplication and an addition. Bytes are those of arrays that are there
before a call or after it, each read once and written once: what lies between may stay in a cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.case import Cost

_FLOAT = 4  # bytes of a float32
_FAST = 128  # longer tubes take a fast transform, 2.5 n log n flops, shorter ones a product with the matrix


def star_product(
    rows: int, inner: int, columns: int, tubes: Sequence[int], batch: int = 1, fft: bool = False
) -> Cost:
    """A ★ B of (*tubes, rows, inner) and (*tubes, inner, columns), both `batch` times."""
    n = math.prod(tubes)
    numbers = batch * n * (rows * inner + inner * columns + rows * columns)
    if fft:  # half the faces, of complex numbers: four real products each; 2.5 n log n a real transform
        flops = 8 * (tubes[0] // 2 + 1) * batch * rows * inner * columns + 2.5 * math.log2(n) * numbers
    else:
        transforms = sum(2 * k if k <= _FAST else 2.5 * math.log2(k) for k in tubes)
        flops = 2 * batch * n * rows * inner * columns + transforms * numbers
    return Cost(flops, _FLOAT * numbers)


def training_step(layers: Sequence[tuple[int, ...]], batch: int, hamiltonian: int = 0) -> Cost:
    """Forward, backward and Adam of layers whose weights have these shapes, (n, out, in) or (out, in).

    The first `hamiltonian` weights act twice, as K and Kᵀ. A weight is read and written, and so are two moments;
    the images are read.
    """
    flops, weights = 0.0, 0
    for number, shape in enumerate(layers):
        uses = 2 if number < hamiltonian else 1
        *tubes, n_out, n_in = shape
        n = math.prod(tubes)
        flops += uses * 6 * n * n_out * n_in * batch  # forward, gradient of the weight, gradient of the state
        if tubes:  # there and back, forward and backward; the weight there, its gradient back
            flops += uses * 4 * n * n * (n_in + n_out) * batch + 4 * n * n * n_in * n_out
        weights += math.prod(shape)
    first = layers[0]
    return Cost(flops, _FLOAT * (6 * weights + math.prod(first[:-2]) * first[-1] * batch))
