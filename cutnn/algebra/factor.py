"""Factorisations of tensors: the t-SVDM, truncated by rank or by energy.

Tensors are factored face by face in the transform domain (`_faces.py`).

Source: Kilmer, Horesh, Avron, Newman, Tensor-tensor algebra for optimal representation and compression of multiway
data, PNAS 118 (2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cutnn import array as ct
from cutnn.algebra import _checks as check
from cutnn.algebra._faces import Faces, like
from cutnn.device import namespace
from cutnn.tape import raw

if TYPE_CHECKING:
    from cutnn.algebra.star import StarAlgebra

__all__ = ["EnergySVD", "Factorisations", "TubalSVD"]


class TubalSVD(NamedTuple):
    """The factors of U ★ diagonal(S) ★ Vh."""

    U: Any
    S: Any
    Vh: Any


class EnergySVD(NamedTuple):
    """The factors of U ★ diagonal(S) ★ Vh, and the number of singular triplets that each face has in it."""

    U: Any
    S: Any
    Vh: Any
    multirank: Any


class Factorisations:
    """The factorisations of `StarAlgebra`."""

    def svd(self: StarAlgebra, A: Any, rank: int | None = None) -> TubalSVD:
        """The t-SVDM, A = U ★ diagonal(S) ★ Vh; with `rank` k, the k largest singular tubes and their slices.

        For A (..., l, m) and k = min(l, m) unless given, U is (..., l, k), S (*batch, *shape, k), Vh (..., k, m).
        Each face of Ŝ holds the singular values of that face of Â, falling; UᴴU = Vh Vhᴴ = I. For M = c · unitary
        no tensor of tubal rank k is nearer to A (Eckart-Young). Gradients are as those of `ct.linalg.svd`. Raises
        ValueError for a rank out of range. (Kilmer, Horesh, Avron, Newman 2021.)

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.fft(5)
        >>> A = star.random(4, 3, seed=0)
        >>> U, S, Vh = star.svd(A)
        >>> S.shape, np.allclose(star(U, star.diagonal(S), Vh), A)
        ((5, 3), True)
        """
        A = check.finite(self, "svd", check.tensor(self, "svd", A))
        most = min(A.shape[-2:])
        if rank is not None and not 1 <= rank <= most:
            raise ValueError(
                f"{self}.svd: the rank of A, {tuple(A.shape)}, is one of 1 to {most}, not {rank}"
            )
        faces = Faces(self, A)
        return TubalSVD(*_tensors(faces, faces.map(_svd), rank))

    def svd_energy(
        self: StarAlgebra, A: Any, energy: float | None = None, *, count: int | None = None
    ) -> EnergySVD:
        """The t-SVDMII: of the singular values of all faces of Â, the fewest that hold a share of their energy.

        `energy` is the share of Σ σ², above 0 and up to 1; in its place `count` is the number of values to keep,
        the largest. Returns U, S, Vh as `svd` does, as wide as the face that keeps most (in other faces the
        transforms of the further slices are 0), and the multirank, (*batch, *shape): how many each face keeps.
        Its sum is the implicit rank, and times l + m the storage. For M = c · unitary the energy is that of A.
        Where faces are conjugates of each other both of a pair are kept, or none. Raises ValueError for numbers
        out of range. (Kilmer, Horesh, Avron, Newman 2021.)

        >>> from cutnn import algebra
        >>> star = algebra.dct(5)
        >>> A = star.random(4, 3, seed=0)
        >>> U, S, Vh, multirank = star.svd_energy(A, count=6)
        >>> multirank.sum(), star.norm(star(U, star.diagonal(S), Vh)) ** 2 > 0.5 * star.norm(A) ** 2
        (np.int64(6), np.True_)
        """
        A = check.finite(self, "svd_energy", check.tensor(self, "svd_energy", A))
        if (energy is None) == (count is None):
            raise TypeError(
                f"{self}.svd_energy: give either an energy, 0.99 say, or a count of singular triplets"
            )
        if energy is not None and not 0 < energy <= 1:
            raise ValueError(f"{self}.svd_energy: the energy is a fraction above 0, up to 1, and is {energy}")
        if count is not None and count < 1:
            raise ValueError(
                f"{self}.svd_energy: the count of singular triplets is at least 1, and is {count}"
            )
        faces = Faces(self, A)
        triplets = faces.map(_svd)
        kept = _largest(faces, triplets[1], energy, count)
        ranks = kept.sum(axis=-1)
        most = int(ranks.max()) if ranks.size else 0
        return EnergySVD(*_tensors(faces, triplets, most, kept), faces.of_all(ranks))

    def diagonal(self: StarAlgebra, S: Any) -> Any:
        """The f-diagonal tensor (*batch, *shape, k, k) of k tubes (*batch, *shape, k).

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.dct(3)
        >>> np.allclose(star.diagonal(np.tile(star.eye(1)[:, 0], 4)), star.eye(4))
        True
        """
        tubes = len(self.shape)
        shape = tuple(getattr(S, "shape", ()))
        if len(shape) < tubes + 1 or shape[-1 - tubes : -1] != self.shape:
            form = ", ".join(["...", *map(str, self.shape), "k"])
            raise ValueError(f"{self}.diagonal: S has shape {shape}; expected k tubes, ({form})")
        on_diagonal = like(np.eye(shape[-1], dtype=bool), S)
        return ct.where(on_diagonal, ct.expand_dims(S, axis=-1), 0)


# -------------------------------------------------------------------------------------------------- helpers


def _svd(faces: Any) -> Any:
    return ct.linalg.svd(faces, full_matrices=False)


def _largest(faces: Faces, s: Any, energy: float | None, count: int | None) -> Any:
    """Which of the singular values s, of all faces pooled, are kept: a mask."""
    s = raw(s)
    xp, shape = namespace(s), s.shape
    times = xp.broadcast_to(like(faces.times, s)[:, None], shape[-2:]).reshape(-1)
    s = s.reshape((*shape[:-2], times.size)).astype(xp.float64)
    order = ct.argsort(s, axis=-1, descending=True)
    times = times[order]
    if count is not None:
        kept = xp.cumsum(times, axis=-1) <= count
    else:
        falling = xp.take_along_axis(s, order, axis=-1)
        squares = times * (falling / xp.where(falling == 0, 1, falling)[..., :1]) ** 2
        sums = xp.cumsum(squares, axis=-1)
        before = xp.concatenate([0 * sums[..., :1], sums[..., :-1]], axis=-1)
        kept = before < energy * sums[..., -1:]
    return xp.take_along_axis(kept, ct.argsort(order, axis=-1), axis=-1).reshape(shape)


def _tensors(faces: Faces, triplets: Any, rank: int | None, kept: Any = None) -> tuple[Any, Any, Any]:
    """The first `rank` singular triplets of every face as tensors U, S, Vh; zeros where they are not kept."""
    U, s, Vh = triplets
    U, s, Vh = U[..., :rank], s[..., :rank], Vh[..., :rank, :]
    if kept is not None:
        kept = kept[..., :rank]
        U = ct.where(kept[..., None, :], U, 0)
        s = ct.where(kept, s, 0)
        Vh = ct.where(kept[..., None], Vh, 0)
    return faces.tensor(U), faces.tubes(s), faces.tensor(Vh)
