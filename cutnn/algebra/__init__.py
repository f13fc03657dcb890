"""The ★_M algebra of tensors: transforms of tubes, and products, inverses and tubal functions made of them.

`star = algebra.dct(28)` is the algebra of tensors with tubes of length 28 under the orthonormal DCT-II;
`star(A, B)` is A ★ B. Tensors are faces first: (*batch, n, l, m).
"""

from cutnn.algebra import learned, lowrank, manifolds
from cutnn.algebra.catalogue import (
    banded,
    dct,
    dst,
    fft,
    from_data,
    from_matrix,
    haar,
    hadamard,
    hartley,
    identity,
    plain,
    product,
    projected,
    random_orthogonal,
    wavelet,
)
from cutnn.algebra.comparison import Compared, Comparison, compare
from cutnn.algebra.compression import Compressed, Compression
from cutnn.algebra.layout import faces_first, tubes_last
from cutnn.algebra.star import StarAlgebra
from cutnn.algebra.transforms import Fourier, Identity, Transform

__all__ = [
    "Compared",
    "Comparison",
    "Compressed",
    "Compression",
    "Fourier",
    "Identity",
    "StarAlgebra",
    "Transform",
    "banded",
    "compare",
    "dct",
    "dst",
    "faces_first",
    "fft",
    "from_data",
    "from_matrix",
    "haar",
    "hadamard",
    "hartley",
    "identity",
    "learned",
    "lowrank",
    "manifolds",
    "plain",
    "product",
    "projected",
    "random_orthogonal",
    "tubes_last",
    "wavelet",
]
