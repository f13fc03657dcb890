"""The algebras that every law is tested in (all transforms, odd and even n, n = 1, several tube axes), and tools."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cutnn import algebra


def invertible(n: int, complex_: bool = False, seed: int = 0) -> Any:
    """A matrix far from unitary, and far from singular."""
    rng = np.random.default_rng((seed, n))
    M = 2 * np.eye(n) + rng.standard_normal((n, n)) / np.sqrt(n)
    return M + 1j * rng.standard_normal((n, n)) / np.sqrt(n) if complex_ else M


def draw(shape: Any, dtype: Any = np.float64, seed: int = 0) -> Any:
    rng = np.random.default_rng((seed, *shape))
    z = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return (z if np.dtype(dtype).kind == "c" else z.real).astype(dtype)


def orthonormal(n: int, q: int, dtype: Any = np.float64) -> Any:
    """A matrix (n, q) with orthonormal columns."""
    return np.linalg.qr(draw((n, q), dtype)).Q


DOUBLES = [np.float64, np.complex128]


@st.composite
def tensors(draw_: Any, square: bool = False, singles: bool = True) -> Any:
    """What makes a tensor of any shape, dtype and rank, once the algebra is known."""
    rows, columns, seed = draw_(st.integers(1, 4)), draw_(st.integers(1, 4)), draw_(st.integers(0, 2**20))
    columns = rows if square else columns
    batch = draw_(hnp.array_shapes(min_dims=0, max_dims=1, max_side=2))
    dtype = draw_(
        st.sampled_from([np.float32, np.float64, np.complex64, np.complex128] if singles else DOUBLES)
    )
    rank = draw_(st.integers(0, 4))

    def make(star: algebra.StarAlgebra) -> Any:
        if rank > 2:
            return star.random(rows, columns, batch, seed, dtype)
        left, right = star.random(rows, rank, batch, seed, dtype), star.random(rank, columns, (), seed, dtype)
        product = star(left, right)
        return product if np.dtype(dtype).kind == "c" else product.real.astype(dtype)

    return make


ALGEBRAS: dict[str, algebra.StarAlgebra] = {
    "dct 5": algebra.dct(5),
    "dct 1": algebra.dct(1),
    "dst 6": algebra.dst(6),
    "hartley 5": algebra.hartley(5),
    "hadamard 8": algebra.hadamard(8),
    "haar 4": algebra.haar(4),
    "db2 8": algebra.wavelet(8, "db2"),
    "bior2.2 6": algebra.wavelet(6, "bior2.2", levels=1),
    "banded 5": algebra.banded(5, 3),
    "identity 3": algebra.identity(3),
    "random orthogonal 4": algebra.random_orthogonal(4, seed=1),
    "from data 4": algebra.from_data(draw((4, 3, 5))),
    "complex from data 3": algebra.from_data(draw((3, 2, 5), np.complex128)),
    "real matrix 4": algebra.from_matrix(invertible(4)),
    "complex matrix 3": algebra.from_matrix(invertible(3, complex_=True)),
    "plain": algebra.plain(),
    "fft 1": algebra.fft(1),
    "fft 2": algebra.fft(2),
    "fft 3": algebra.fft(3),
    "fft 4": algebra.fft(4),
    "fft 5": algebra.fft(5),
    "fft 9": algebra.fft(9),
    "dct 2, dst 3": algebra.product(algebra.dct(2), algebra.dst(3)),
    "fft 3, fft 4": algebra.product(algebra.fft(3), algebra.fft(4)),
    "fft 5, fft 2": algebra.product(algebra.fft(5), algebra.fft(2)),
    "fft 4, real matrix 3": algebra.product(algebra.fft(4), algebra.from_matrix(invertible(3))),
    "complex matrix 2, fft 3": algebra.product(
        algebra.from_matrix(invertible(2, complex_=True)), algebra.fft(3)
    ),
    "fft 3, dct 2, fft 3": algebra.product(algebra.fft(3), algebra.dct(2), algebra.fft(3)),
}

# Algebras with fewer faces than tubes have entries. The laws hold for their own tensors, which `star.random` makes;
# what holds for others, and that every function is that of the faces, is tested in test_projected.py.
PROJECTED: dict[str, algebra.StarAlgebra] = {
    "projected 5 to 3": algebra.projected(orthonormal(5, 3)),
    "complex projected 4 to 2": algebra.projected(orthonormal(4, 2, np.complex128)),
    "from data 4 to 1": algebra.from_data(draw((4, 3, 5)), faces=1),
    "projected 3 to 2, fft 4": algebra.product(algebra.projected(orthonormal(3, 2)), algebra.fft(4)),
    "fft 3, projected 3 to 2, real matrix 2": algebra.product(
        algebra.fft(3), algebra.projected(orthonormal(3, 2)), algebra.from_matrix(invertible(2))
    ),
}
EVERY = {**ALGEBRAS, **PROJECTED}
UNITARY = [name for name, star in ALGEBRAS.items() if all(t.scale is not None for t in star.transforms)]
"""The names of those whose M is a multiple of a unitary matrix."""

# Non-orthogonal transforms, real and complex, half spectra of every kind: where gradients go wrong.
DELICATE = [
    "banded 5",
    "bior2.2 6",
    "real matrix 4",
    "complex matrix 3",
    "fft 2",
    "fft 4",
    "fft 5",
    "fft 9",
    "dct 2, dst 3",
    "fft 3, fft 4",
    "fft 4, real matrix 3",
    "complex matrix 2, fft 3",
]


def invertible_tensor(star: algebra.StarAlgebra, m: int, batch: Any, seed: int, dtype: Any) -> Any:
    """Far from singular: faces of its transform are 4 I with noise of norm 2 at most.

    Where the identity is complex a real tensor is the best conditioned of many.
    """
    if not star.real_products and np.dtype(dtype).kind == "f":
        tries = [star.random(m, m, (50, *batch), seed, dtype)[k] for k in range(50)]
        return min(tries, key=lambda A: np.linalg.cond(star.forward(A)).max())
    noise = star.random(m, m, batch, seed, dtype)
    size = np.abs(star.forward(noise)).max()
    return (4 * star.eye(m) + noise * (2 / (size * m))).astype(dtype)


def near(x: Any, y: Any, factor: float = 200) -> None:
    """Equal in shape and dtype, and up to rounding relative to the largest entry."""
    x, y = np.asarray(x), np.asarray(y)
    assert x.shape == y.shape
    eps = max(np.finfo(x.dtype).eps, np.finfo(y.dtype).eps)
    np.testing.assert_allclose(x, y, rtol=0, atol=factor * eps * np.max(np.abs(y), initial=1.0))


def kron(star: algebra.StarAlgebra) -> Any:
    M = np.eye(1)
    for t in star.transforms:
        M = np.kron(M, t.matrix())
    return M


def projector(star: algebra.StarAlgebra) -> Any:
    """M⁻¹ M, on the tubes of the algebra; I where M is invertible."""
    M = kron(star)
    return np.linalg.pinv(M) @ M
