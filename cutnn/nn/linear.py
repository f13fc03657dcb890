"""Linear autoencoders that need no training: PCA, and its likes in an algebra, the t-SVDM and the t-SVDMII.

They are the best that a linear map can do with a code of their size, and so the measure of a trained autoencoder.
Used as one: `encode`, `decode`, a call is both.

Source: Kilmer, Horesh, Avron, Newman, Tensor-tensor algebra for optimal representation and compression of multiway
data, PNAS 118 (2021).
"""

from __future__ import annotations

import math
from typing import Any

from cutnn import array as ct
from cutnn.algebra import plain
from cutnn.nn._module import Module, static

__all__ = ["Projection", "pca", "t_svdm", "t_svdmii"]


class Projection(Module):
    """The ★-orthogonal projection on lateral slices U, about a mean: Y = U ★ Uᴴ ★ (X − mean) + mean.

    `basis` is U `(n, rows, k)`, `mean` `(n, rows, 1)` or None, for 0. `latent` is how many numbers the code of a
    sample has: k·n, or fewer where faces of U's transform have slices of zeros.

    >>> import numpy as np
    >>> from cutnn import algebra, nn
    >>> star = algebra.dct(4)
    >>> X = star.random(3, 100, seed=0)
    >>> model = nn.t_svdm(star, X, rank=2)
    >>> model.encode(X).shape, model.latent, np.allclose(model(model(X)), model(X))
    ((4, 2, 100), 8, True)
    """

    star: Any = static()
    latent: int = static()
    basis: Any
    mean: Any = None

    def __call__(self, X: Any) -> Any:
        """decode(encode(X))."""
        return self.decode(self.encode(X))

    def encode(self, X: Any) -> Any:
        """The code of X `(n, rows, N)`, Uᴴ ★ (X − mean): `(n, k, N)`."""
        return self.star(self.star.transpose(self.basis), X if self.mean is None else X - self.mean)

    def decode(self, Z: Any) -> Any:
        """The samples `(n, rows, N)` of codes `(n, k, N)`, U ★ Z + mean."""
        Y = self.star(self.basis, Z)
        return Y if self.mean is None else Y + self.mean


def pca(X: Any, rank: int, center: bool = True) -> Projection:
    """Principal component analysis of samples `(rows, N)`: the projection on `rank` directions, about the mean.

    No affine map of that rank has a smaller squared error on X (Eckart-Young). Raises ValueError for a rank above
    min(rows, N).

    >>> import numpy as np
    >>> X = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]])  # on a line
    >>> np.allclose(pca(X, 1)(X), X)
    True
    """
    return t_svdm(plain(), X, rank, center)


def t_svdm(star: Any, X: Any, rank: int, center: bool = False) -> Projection:
    """The projection on the first `rank` left slices of the t-SVDM of X `(n, rows, N)`; `center` about the mean.

    For M = c · unitary no map of that tubal rank has a smaller squared error on X. Raises ValueError as `star.svd`.
    (Kilmer et al. 2021.)
    """
    X, mean = _centred(X, center)
    return Projection(star, rank * math.prod(star.face_shape), star.svd(X, rank=rank).U, mean)


def t_svdmii(
    star: Any, X: Any, energy: float | None = None, *, count: int | None = None, center: bool = False
) -> Projection:
    """The projection on the left slices of the t-SVDMII of X `(n, rows, N)`: the best singular triplets of all faces.

    As many as reach the share `energy` of ‖X‖², or `count` of them: with count = rank · n the code is as long as
    that of `t_svdm`, and shared out among the faces by need. Raises as `star.svd_energy`. (Kilmer et al. 2021.)

    >>> import numpy as np
    >>> from cutnn import algebra, nn
    >>> star = algebra.dct(4)
    >>> X = np.cumsum(star.random(3, 100, seed=0), axis=0)  # most of the energy in the first faces
    >>> error = nn.SquaredError()
    >>> error(t_svdmii(star, X, count=4)(X), X) < error(nn.t_svdm(star, X, rank=1)(X), X)
    np.True_
    """
    X, mean = _centred(X, center)
    truncated = star.svd_energy(X, energy, count=count)
    return Projection(star, int(truncated.multirank.sum()), truncated.U, mean)


# -------------------------------------------------------------------------------------------------- helpers


def _centred(X: Any, center: bool) -> tuple[Any, Any]:
    """X without its mean over the samples, and the mean, or X and None."""
    if not center:
        return X, None
    mean = ct.mean(X, axis=-1, keepdims=True)
    return X - mean, mean
