"""Functions of the eigenvalues and singular values of the faces of Â: norms, ranks, thresholds.

Each is that function of matrices, applied to the faces that determine Â (`_faces.py`).

Source: Lu, Feng, Chen, Liu, Lin, Yan, Tensor robust principal component analysis with a new tensor nuclear norm, IEEE
Transactions on Pattern Analysis and Machine Intelligence 42 (2020); Lu, Peng, Wei, Low-rank tensor completion with a
new tensor nuclear norm induced by invertible linear transforms, CVPR 2019.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from cutnn import array as ct
from cutnn.algebra import _checks as check
from cutnn.algebra._faces import Faces, like
from cutnn.device import namespace
from cutnn.tape import raw

if TYPE_CHECKING:
    from cutnn.algebra.star import StarAlgebra

__all__ = ["SpectralFunctions"]


class SpectralFunctions:
    """The functions of `StarAlgebra` of eigenvalues and singular values."""

    # ------------------------------------------------------------------------------------------------ norms

    def nuclear_norm(self: StarAlgebra, A: Any) -> Any:
        """The tubal nuclear norm of each tensor of a batch, (*batch,): the nuclear norms of all faces of Â, over ℓ.

        MᴴM = ℓI; for the Fourier transform ℓ = n, and this is ‖bcirc(A)‖_* / n. Raises ValueError where M is not a
        multiple of a unitary matrix: then there is no ℓ, and the dual norm is not the spectral norm. The gradient at
        singular values 0 is the subgradient of least norm. (Lu et al. 2019, 2020.)

        >>> from cutnn import algebra
        >>> star = algebra.fft(4)
        >>> star.nuclear_norm(star.eye(3)).round(12)
        np.float64(3.0)
        """
        scale = _scale(self, "nuclear_norm")
        faces = _faces(self, "nuclear_norm", A)
        return _total(faces, faces.map(lambda x: ct.linalg.matrix_norm(x, ord="nuc"))) / scale

    def singular_value_threshold(self: StarAlgebra, A: Any, tau: Any) -> Any:
        """The X that minimises tau ‖X‖_* + ½ ‖X - A‖_F² (`nuclear_norm`, `norm`): its proximal operator.

        Of each face of Â the singular values are lowered by tau, to 0 at least: with MᴴM = ℓI both terms are sums
        over the faces, over ℓ, so that tau needs no scale. tau ≥ 0 is a number, or one for each tensor, (*batch);
        gradients of A and tau are right at equal and at zero singular values, to second order. Raises ValueError for
        a negative tau, and where M is not a multiple of a unitary matrix. (Lu et al. 2020, theorem 4.2.)

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.fft(4)
        >>> np.allclose(star.singular_value_threshold(3 * star.eye(2), 1.0), 2 * star.eye(2))
        True
        """
        name = "singular_value_threshold"
        _scale(self, name)
        faces = _faces(self, name, A)
        tau = _for_each_tensor(self, name, "tau", tau, A)
        return faces.tensor(faces.map(lambda x: ct.linalg.svt(x, tau)))


# -------------------------------------------------------------------------------------------------- helpers


def _faces(star: StarAlgebra, name: str, A: Any) -> Faces:
    return Faces(star, check.finite(star, name, check.tensor(star, name, A)))


def _scale(star: StarAlgebra, name: str) -> float:
    """The ℓ of MᴴM = ℓI for all transforms together."""
    for transform in star.transforms:
        if transform.scale is None:
            raise ValueError(
                f"{star}.{name}: the nuclear norm needs M to be a multiple of a unitary matrix, MᴴM = ℓI, and that of "
                f"{transform} is none; sum ct.linalg.svdvals({star}.forward(A)) for the sum over the faces"
            )
    return math.prod(t.scale for t in star.transforms if t.scale is not None)


def _total(faces: Faces, numbers: Any) -> Any:
    """The sum of numbers of the faces, (*batch, faces), over the whole spectrum: (*batch,)."""
    times = faces.times.astype(raw(numbers).dtype)
    return ct.sum(numbers * like(times, numbers), axis=-1)


def _for_each_tensor(star: StarAlgebra, name: str, label: str, x: Any, A: Any) -> Any:
    """A number ≥ 0, or one for each tensor of a batch with an axis for its faces, (*batch, 1)."""
    shape, batch = tuple(getattr(x, "shape", ())), tuple(A.shape[: A.ndim - 2 - len(star.shape)])
    least = raw(x)
    xp = namespace(least) if shape or hasattr(least, "dtype") else np
    if not bool(xp.all(least >= 0)):
        raise ValueError(f"{star}.{name}: {label} is {x}; expected numbers of at least 0")
    if not shape:
        return x
    fits = [n in (1, length) for n, length in zip(shape[::-1], batch[::-1], strict=False)]
    if len(shape) > len(batch) or not all(fits):
        raise ValueError(
            f"{star}.{name}: {label} has shape {shape}; expected a number, or one for each tensor of the batch, {batch}"
        )
    return ct.expand_dims(x, axis=-1)
