"""Factorisations of tensors: the t-SVDM, whole, truncated and randomised; t-QR, LU and Cholesky factors.

Tensors are factored face by face in the transform domain (`_faces.py`).

Source: Kilmer, Horesh, Avron, Newman, Tensor-tensor algebra for optimal representation and compression of multiway
data, PNAS 118 (2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cutnn import array as ct
from cutnn.algebra import _checks as check
from cutnn.algebra import _randomized as randomized
from cutnn.algebra._faces import Faces, like
from cutnn.algebra.compression import Compressed, Compression, compress, compression
from cutnn.array._decompositions import projected_svd
from cutnn.array._low_rank import low_rank_of
from cutnn.array._spectral import factors_of
from cutnn.device import namespace
from cutnn.tape import NotDifferentiableError, Traced, raw

if TYPE_CHECKING:
    from cutnn.algebra.star import StarAlgebra

__all__ = ["EnergySVD", "Factorisations", "TubalLU", "TubalQR", "TubalSVD"]


class TubalSVD(NamedTuple):
    """The factors of U ★ diagonal(S) ★ Vh."""

    U: Any
    S: Any
    Vh: Any


class EnergySVD(NamedTuple):
    """The factors of U ★ diagonal(S) ★ Vh, the number of singular triplets that each face has in it, and
    what they cost and hold."""

    U: Any
    S: Any
    Vh: Any
    multirank: Any
    compression: Compression


class TubalQR(NamedTuple):
    """The factors of Q ★ R."""

    Q: Any
    R: Any


class TubalLU(NamedTuple):
    """The factors of P ★ L ★ U."""

    P: Any
    L: Any
    U: Any


class Factorisations:
    """The factorisations of `StarAlgebra`."""

    def svd(self: StarAlgebra, A: Any, rank: int | None = None, full: bool = False) -> TubalSVD:
        """The t-SVDM, A = U ★ diagonal(S) ★ Vh; with `rank` k, the k largest singular tubes and their slices.

        For A (..., l, m) and k = min(l, m) unless given, U is (..., l, k), S (*batch, *shape, k), Vh (..., k, m).
        With `full` U is (..., l, l) and Vh (..., m, m), M-unitary both, and S as before. Each face of Ŝ holds the
        singular values of that face of Â, falling; UᴴU = Vh Vhᴴ = I. For M = c · unitary no tensor of tubal rank k
        is nearer to A (Eckart-Young).

        Gradients are those of `ct.linalg.svd`: finite, and right for what does not depend on the choice of vectors
        as long as the singular values of a face are apart. That of the approximation U ★ diagonal(S) ★ Vh is right
        without that in `low_rank`. Raises ValueError for a rank out of range and for entries that are not finite,
        TypeError for a rank with `full`. (Kilmer, Horesh, Avron, Newman 2021.)

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.fft(5)
        >>> A = star.random(4, 3, seed=0)
        >>> U, S, Vh = star.svd(A)
        >>> S.shape, np.allclose(star(U, star.diagonal(S), Vh), A)
        ((5, 3), True)
        """
        A = check.finite(self, "svd", check.tensor(self, "svd", A))
        if rank is not None:
            if full:
                raise TypeError(
                    f"{self}.svd: full=True asks for all {A.shape[-2]} slices of U and {A.shape[-1]} of Vh, "
                    f"rank={rank} for {rank} of each; give one of the two"
                )
            check.rank(self, "svd", A, rank)
        faces = Faces(self, A)
        triplets = faces.map(lambda part: ct.linalg.svd(part, full_matrices=full))
        return TubalSVD(*_tensors(faces, triplets if full else _first(triplets, rank)))

    def svd_energy(
        self: StarAlgebra, A: Any, energy: float | None = None, *, count: int | None = None
    ) -> EnergySVD:
        """The t-SVDMII: of the singular values of all faces of Â, the fewest that hold a share of their energy.

        `energy` is the share of Σ σ², above 0 and up to 1; in its place `count` is the number of values to keep,
        the largest. Returns U, S, Vh as `svd` does, as wide as the face that keeps most (in other faces the
        transforms of the further slices are 0), and the multirank, (*batch, *face_shape): how many each face keeps.
        `compression` has the implicit rank, the storage and the error that go with it. For M = c · unitary the
        energy is that of A. Where faces are conjugates of each other both of a pair are kept, or none. Gradients,
        as those of `svd`, are along changes that keep the multirank. Raises ValueError for numbers out of range and
        for entries that are not finite. (Kilmer, Horesh, Avron, Newman 2021.)

        >>> from cutnn import algebra
        >>> star = algebra.dct(5)
        >>> A = star.random(4, 3, seed=0)
        >>> U, S, Vh, multirank, compression = star.svd_energy(A, count=6)
        >>> multirank.sum(), star.norm(star(U, star.diagonal(S), Vh)) ** 2 > 0.5 * star.norm(A) ** 2
        (np.int64(6), np.True_)
        >>> compression.storage, compression.ratio.round(2), compression.relative_error < 0.5
        (np.int64(42), np.float64(1.43), np.True_)
        """
        A = check.finite(self, "svd_energy", check.tensor(self, "svd_energy", A))
        check.share(self, "svd_energy", energy, count)
        faces = Faces(self, A)
        triplets = faces.map(_svd)
        kept = _largest(faces, triplets[1], energy, count)
        ranks = kept.sum(axis=-1)
        U, s, Vh = _first(triplets, int(ranks.max()) if ranks.size else 0)
        mask = kept[..., : s.shape[-1]]
        U, s, Vh = ct.where(mask[..., None, :], U, 0), ct.where(mask, s, 0), ct.where(mask[..., None], Vh, 0)
        statistics = compression(faces, A, triplets[1], kept)
        return EnergySVD(*_tensors(faces, (U, s, Vh)), faces.of_all(ranks), statistics)

    def low_rank(
        self: StarAlgebra,
        A: Any,
        rank: int | None = None,
        *,
        energy: float | None = None,
        count: int | None = None,
    ) -> Any:
        """A truncated: U ★ diagonal(S) ★ Vh of `svd` with that rank, or of `svd_energy` with an energy or a count.

        For M = c · unitary it is the nearest tensor of the tubal rank, or the nearest of as many singular triplets.
        Its gradient, first and second, has only the gap in it at which each face is cut, and is right where other
        singular values are equal, clustered or 0, as those of the identity are: where that of the product of the
        factors is not. It is along changes that keep the multirank, for an energy or a count, and the ranks of faces
        which are below the rank asked for. Where a face is cut between equal values there is no derivative: see
        `ct.linalg.low_rank`, NotDifferentiableWarning. Raises TypeError where not one of rank, energy and count is
        given, ValueError for numbers out of range and entries that are not finite.
        (Kilmer, Horesh, Avron, Newman 2021; derivative: Feppon, Lermusiaux 2018.)

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.fft(3)
        >>> A = star.random(4, 3, seed=0)
        >>> U, S, Vh = star.svd(A, rank=2)
        >>> np.allclose(star.low_rank(A, 2), star(U, star.diagonal(S), Vh))
        True
        """
        A = check.finite(self, "low_rank", check.tensor(self, "low_rank", A))
        if (rank is not None) + (energy is not None) + (count is not None) != 1:
            raise TypeError(
                f"{self}.low_rank: give one of a rank, an energy, 0.99 say, and a count of triplets"
            )
        faces = Faces(self, A)
        if rank is not None:
            check.rank(self, "low_rank", A, rank)
            return faces.tensor(faces.map(lambda part: ct.linalg.low_rank(part, rank)))
        check.share(self, "low_rank", energy, count)
        if not min(A.shape[-2:]):
            return 1 * A
        factors = [factors_of(part) for part in faces.parts]
        kept = _largest(faces, faces.joined([s for _, s, _ in factors]), energy, count)
        return faces.tensor(faces.map(low_rank_of, factors, kept.sum(axis=-1)))

    def svd_randomized(
        self: StarAlgebra,
        A: Any,
        rank: int | None = None,
        *,
        tolerance: float | None = None,
        oversampling: int = 10,
        power_iterations: int = 2,
        seed: int | np.random.Generator | None = None,
    ) -> TubalSVD:
        """The first singular tubes and slices, as `svd` has them, from random samples of the ranges of the faces.

        For rank k the samples are k + `oversampling` wide. With a `tolerance` in place of the rank they grow by
        `oversampling` until the error, in the Frobenius norm of Â, is within that share of ‖Â‖, and k is the least
        that is within it, one for a whole batch: for M = c · unitary ‖A - U ★ diagonal(S) ★ Vh‖ ≤ tolerance ‖A‖, for
        tolerances well above rounding. Power iterations, of A Aᴴ, sharpen spectra that fall slowly. Faces cost
        O(l m k), where `svd` costs O(l m min(l, m)).

        The samples are drawn on the host and count as constants in gradients, which are those of the singular
        triplets found: of triplet i right up to (σ_{q+1} / σ_i)^(power_iterations + 1), where q = k + oversampling
        samples were taken, and exact for tensors of that rank. Raises TypeError where not one of rank and tolerance
        is given, ValueError for numbers out of range and entries that are not finite.
        (Halko, Martinsson, Tropp 2011; Zhang, Saibaba, Kilmer, Aeron 2018.)

        >>> from cutnn import algebra
        >>> star = algebra.fft(5)
        >>> A = star(star.random(40, 3, seed=0), star.random(3, 50, seed=1))
        >>> U, S, Vh = star.svd_randomized(A, tolerance=1e-10, seed=2)
        >>> S.shape, star.norm(star(U, star.diagonal(S), Vh) - A) < 1e-10 * star.norm(A)
        ((5, 3), np.True_)
        """
        A = check.finite(self, "svd_randomized", check.tensor(self, "svd_randomized", A))
        check.samples(self, A, rank, tolerance, oversampling, power_iterations)
        faces, rng = Faces(self, A), np.random.default_rng(seed)
        if rank is not None:
            width = min(rank + oversampling, *A.shape[-2:])
            Q: list[Any] = randomized.bases(faces, width, power_iterations, rng)
        else:
            assert tolerance is not None
            Q, rest = randomized.bases_within(faces, tolerance, oversampling, power_iterations, rng)
        triplets = faces.map(lambda part, Q: projected_svd(part, Q, power_iterations), Q)
        if tolerance is not None:
            rank = randomized.rank_within(faces, triplets[1], rest, tolerance)
        return TubalSVD(*_tensors(faces, _first(triplets, rank)))

    def compress(
        self: StarAlgebra, A: Any, energy: float | None = None, *, count: int | None = None
    ) -> Compressed:
        """A as the singular triplets that `svd_energy` keeps, in flat arrays without a zero: see `Compressed`.

        Every tensor of a batch is truncated alone, and all are held in one object. It is storage and has no
        gradient: NotDifferentiableError; `low_rank` has. Raises ValueError as `svd_energy`.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.dct(16)
        >>> A = np.cumsum(star.random(20, 30, seed=0), axis=0)
        >>> held = star.compress(A, 0.9)
        >>> held.ratio > 4, star.norm(A - held.decompress()) <= 0.1**0.5 * star.norm(A)
        (True, np.True_)
        """
        A = check.finite(self, "compress", check.tensor(self, "compress", A))
        check.share(self, "compress", energy, count)
        if type(A) is Traced:
            raise NotDifferentiableError(
                f"{self}.compress gives storage, which has no gradient; low_rank gives the tensor it stands for, with "
                "its gradient, and stop_gradient(A) can be compressed"
            )
        faces = Faces(self, A)
        triplets = [_svd(part) for part in faces.parts]
        kept = _largest(faces, faces.joined([s for _, s, _ in triplets]), energy, count)
        return compress(faces, A, triplets, kept)

    def qr(self: StarAlgebra, A: Any, mode: str = "reduced") -> TubalQR:
        """The t-QR, A = Q ★ R, with Q M-unitary and R f-upper triangular: the faces of R̂ are upper triangles.

        For A (..., l, m) and k = min(l, m), Q is (..., l, k) and R (..., k, m), or (..., l, l) and (..., l, m) in
        mode "complete". Q is formed, by Householder reflections of each face of Â (LAPACK): the diagonals of the
        faces of R̂ are real, and of either sign. In the tensor domain R is a triangle too. The gradient needs full
        rank of each face, of a wide one in its leading square (LinAlgError where there is less, to rounding), and in
        mode "complete" of a tall A there is none, since the further slices of Q are arbitrary:
        NotDifferentiableError. Raises ValueError for another mode and entries that are not finite.
        (Kilmer, Martin, Linear Algebra and its Applications 435 (2011).)

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.fft(5)
        >>> A = star.random(4, 3, seed=0)
        >>> Q, R = star.qr(A)
        >>> np.allclose(star(Q, R), A), np.allclose(star(star.transpose(Q), Q), star.eye(3))
        (True, True)
        """
        A = check.finite(self, "qr", check.tensor(self, "qr", A))
        if mode not in ("reduced", "complete"):
            raise ValueError(f"{self}.qr: the mode is {mode!r}; expected 'reduced' or 'complete'")
        faces = Faces(self, A)
        Q, R = faces.map(lambda part: tuple(ct.linalg.qr(part, mode=mode)))
        return TubalQR(faces.tensor(Q), faces.tensor(R))

    def lu(self: StarAlgebra, A: Any) -> TubalLU:
        """A = P ★ L ★ U, by Gaussian elimination with partial pivots in each face of Â.

        For A (..., l, m) and k = min(l, m) each face of P̂ (..., l, l) is a permutation matrix, so that P is
        M-unitary, of L̂ (..., l, k) a unit lower triangle, and of Û (..., k, m) an upper triangle, with the pivots of
        `ct.linalg.lu`; L and U are triangles in the tensor domain too. Singular faces have such factors. P is
        constant in gradients, which need a regular leading square of each face of Pᴴ ★ A (LinAlgError where it is
        singular to rounding). Raises ValueError for entries that are not finite.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.fft(5)
        >>> A = star.random(3, 3, seed=0)
        >>> P, L, U = star.lu(A)
        >>> np.allclose(star(P, L, U), A), np.allclose(star(star.transpose(P), P), star.eye(3))
        (True, True)
        """
        faces = Faces(self, check.finite(self, "lu", check.tensor(self, "lu", A)))
        return TubalLU(*map(faces.tensor, faces.map(ct.linalg.lu)))

    def cholesky(self: StarAlgebra, A: Any) -> Any:
        """L with L ★ Lᴴ = A, for a Hermitian positive definite A (..., m, m): the faces of L̂ are lower triangles.

        Their diagonals are positive. The gradient is Hermitian, A = Aᴴ. Raises ValueError where A is not Hermitian
        to rounding, numpy.linalg.LinAlgError, naming the face, where it is not positive definite.

        >>> from cutnn import algebra
        >>> import numpy as np
        >>> star = algebra.fft(5)
        >>> B = star.random(3, 4, seed=0)
        >>> A = star(B, star.transpose(B))
        >>> L = star.cholesky(A)
        >>> np.allclose(star(L, star.transpose(L)), A), np.allclose(L, np.tril(L))
        (True, True)
        """
        A = check.finite(self, "cholesky", check.tensor(self, "cholesky", A))
        check.square(self, "cholesky", A)
        faces = Faces(self, A)
        check.hermitian(self, "cholesky", faces)
        return faces.tensor(check.definite(self, faces, lambda: faces.map(ct.linalg.cholesky)))

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
    times = xp.broadcast_to(faces.times_like(s)[:, None], shape[-2:]).reshape(-1)
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


def _first(triplets: Any, rank: int | None) -> tuple[Any, Any, Any]:
    U, s, Vh = triplets
    return U[..., :rank], s[..., :rank], Vh[..., :rank, :]


def _tensors(faces: Faces, triplets: Any) -> tuple[Any, Any, Any]:
    """U, S and Vh as tensors."""
    U, s, Vh = triplets
    return faces.tensor(U), faces.tubes(s), faces.tensor(Vh)
