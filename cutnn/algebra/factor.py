"""Factorisations of tensors: the t-SVDM, truncated by rank or by energy.

A tensor is factored face by face in the transform domain. In a Fourier algebra the faces of a real tensor come in
conjugate pairs, and real factors are wanted: so one of each pair is factored, the other has the conjugate factors,
and a face that is its own conjugate is factored as the real matrix that it is.

Source: Kilmer, Horesh, Avron, Newman, Tensor-tensor algebra for optimal representation and compression of multiway
data, PNAS 118 (2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cutnn import array as ct
from cutnn.algebra import _checks as check
from cutnn.device import namespace
from cutnn.tape import raw

if TYPE_CHECKING:
    from cutnn.algebra.star import StarAlgebra

__all__ = ["EnergySVD", "TubalSVD", "diagonal", "svd", "svd_energy"]


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


def svd(star: StarAlgebra, A: Any, rank: int | None) -> TubalSVD:
    A = check.tensor(star, "svd", A)
    most = min(A.shape[-2:])
    if rank is not None and not 1 <= rank <= most:
        raise ValueError(f"{star}.svd: the rank of A, {tuple(A.shape)}, is one of 1 to {most}, not {rank}")
    return TubalSVD(*_Faces(star, A).tensors(rank))


def svd_energy(star: StarAlgebra, A: Any, energy: float | None, count: int | None) -> EnergySVD:
    A = check.tensor(star, "svd_energy", A)
    if (energy is None) == (count is None):
        raise TypeError(
            f"{star}.svd_energy: give either an energy, 0.99 say, or a count of singular triplets"
        )
    if energy is not None and not 0 < energy <= 1:
        raise ValueError(f"{star}.svd_energy: the energy is a fraction above 0, up to 1, and is {energy}")
    if count is not None and count < 1:
        raise ValueError(f"{star}.svd_energy: the count of singular triplets is at least 1, and is {count}")
    faces = _Faces(star, A)
    kept = faces.largest(energy, count)
    ranks = kept.sum(axis=-1)
    return EnergySVD(*faces.tensors(int(ranks.max()) if ranks.size else 0, kept), faces.of_all(ranks))


def diagonal(star: StarAlgebra, S: Any) -> Any:
    tubes = len(star.shape)
    shape = tuple(getattr(S, "shape", ()))
    if len(shape) < tubes + 1 or shape[-1 - tubes : -1] != star.shape:
        form = ", ".join(["...", *map(str, star.shape), "k"])
        raise ValueError(f"{star}.diagonal: S has shape {shape}; expected k tubes, ({form})")
    on_diagonal = _like(np.eye(shape[-1], dtype=bool), S)
    return ct.where(on_diagonal, ct.expand_dims(S, axis=-1), 0)


# -------------------------------------------------------------------------------------------------- helpers


class _Faces:
    """The SVD of the faces that determine Â: all of them or, of conjugate pairs, one.

    `U`, `s`, `Vh` are (*batch, faces, ...). Entry k of `place` says which of these is face k of the whole spectrum,
    that of `mirrored` whether it is so up to conjugation. `times` are the faces of that spectrum each stands for.
    """

    def __init__(self, star: StarAlgebra, A: Any) -> None:
        A_hat = star.forward(A)
        self.star = star
        self.batch = tuple(A.shape[: A.ndim - 2 - len(star.shape)])
        self.halved = star.half_shape != star.shape and A.dtype.kind != "c"
        shape = star.half_shape if self.halved else star.shape
        faces = ct.reshape(A_hat, (*self.batch, int(np.prod(shape)), *A_hat.shape[-2:]))
        if self.halved:
            own, pairs, self.place, self.mirrored = _conjugate_faces(star)
            self.times = np.repeat([1, 2], [len(own), len(pairs)])
            real = ct.linalg.svd(ct.real(ct.take(faces, _like(own, faces), axis=-3)), full_matrices=False)
            other = ct.linalg.svd(ct.take(faces, _like(pairs, faces), axis=-3), full_matrices=False)
            axis = len(self.batch)
            self.U, self.s, self.Vh = (
                ct.concat([ct.astype(x, y.dtype), y], axis=axis) for x, y in zip(real, other, strict=True)
            )
        else:
            self.place, self.mirrored = np.arange(star.n), np.zeros(star.n, dtype=bool)
            self.times = np.ones(star.n, dtype=int)
            self.U, self.s, self.Vh = ct.linalg.svd(faces, full_matrices=False)

    def largest(self, energy: float | None, count: int | None) -> Any:
        """Which of the singular values s, of all faces pooled, are kept: a mask."""
        s = raw(self.s)
        xp, shape = namespace(s), s.shape
        times = xp.broadcast_to(_like(self.times, s)[:, None], shape[-2:]).reshape(-1)
        s = s.reshape((*self.batch, times.size)).astype(xp.float64)
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

    def tensors(self, rank: int | None, kept: Any = None) -> tuple[Any, Any, Any]:
        """The first `rank` singular triplets of every face as tensors U, S, Vh; zeros where they are not kept."""
        U, s, Vh = self.U[..., :rank], self.s[..., :rank], self.Vh[..., :rank, :]
        if kept is not None:
            kept = kept[..., :rank]
            U = ct.where(kept[..., None, :], U, 0)
            s = ct.where(kept, s, 0)
            Vh = ct.where(kept[..., None], Vh, 0)
        if not all(t.real for t in self.star.transforms):
            s = ct.astype(s, np.result_type(s.dtype, np.complex64))
        return self._back(U), self._back(ct.expand_dims(s, axis=-1))[..., 0], self._back(Vh)

    def _back(self, faces: Any) -> Any:
        """The tensor whose transform has these faces."""
        star, shape = self.star, self.star.shape
        if self.halved:
            shape = star.half_shape
            half = tuple(slice(h) for h in shape)
            place, mirrored = (x.reshape(star.shape)[half].ravel() for x in (self.place, self.mirrored))
            faces = ct.take(faces, _like(place, faces), axis=-3)
            if mirrored.any():  # where several axes are Fourier's
                faces = ct.where(_like(mirrored[:, None, None], faces), ct.conj(faces), faces)
        return star.inverse(ct.reshape(faces, (*self.batch, *shape, *faces.shape[-2:])))

    def of_all(self, numbers: Any) -> Any:
        """Numbers of the faces, (*batch, faces), for those of the whole spectrum: (*batch, *shape)."""
        return numbers[..., _like(self.place, numbers)].reshape((*self.batch, *self.star.shape))


def _conjugate_faces(star: StarAlgebra) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The faces of the half spectrum that are their own conjugates, and one of each pair; where the others are.

    Face k of a real tensor's transform is the conjugate of face -k, with the sign on the Fourier axes alone. The
    last two, for every face of the whole spectrum: its place among the first two, and whether it is mirrored.
    """
    face = np.indices(star.shape).reshape(len(star.shape), star.n)
    mirror = np.stack([k if t.real else -k % t.n for k, t in zip(face, star.transforms, strict=True)])
    inside = np.all(face < np.reshape(star.half_shape, (-1, 1)), axis=0)
    number = np.arange(star.n)
    partner = np.ravel_multi_index(tuple(mirror), star.shape)
    chosen = np.where(
        inside & inside[partner], np.minimum(number, partner), np.where(inside, number, partner)
    )
    faces = np.unique(chosen)
    is_own = partner[faces] == faces
    faces = np.concatenate([faces[is_own], faces[~is_own]])
    place = np.empty(star.n, dtype=int)
    place[faces] = np.arange(len(faces))
    in_half = np.ravel_multi_index(tuple(face[:, faces]), star.half_shape)
    own, pairs = np.split(in_half, [int(is_own.sum())])
    return own, pairs, place[chosen], chosen != number


def _like(x: np.ndarray, other: Any) -> Any:
    """An array of the host in the library and on the device of another."""
    other = raw(other)
    return namespace(other).asarray(x, device=other.device)
