"""Tensors as the singular triplets that the t-SVDMII keeps: what they cost, what they hold, and their storage.

Source: Kilmer, Horesh, Avron, Newman, Tensor-tensor algebra for optimal representation and compression of multiway
data, PNAS 118 (2021).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cutnn.algebra._faces import Faces, Spectrum, like
from cutnn.device import namespace, to_host
from cutnn.tape import raw

if TYPE_CHECKING:
    from cutnn.algebra.star import StarAlgebra

__all__ = ["Compressed", "Compression"]


class Compression(NamedTuple):
    """What a truncated tensor costs and what it holds, for each tensor of a batch, (*batch,).

    Numbers are of the kind of A's entries, real or complex. A complex number that stands for the two faces of a
    conjugate pair is two real ones, and so is one of a face without partner, if A is real and M complex.
    """

    implicit_rank: Any
    """How many singular triplets are kept, in all faces: the sum ρ of the multirank."""
    storage: Any
    """In how many numbers they are held, ρ (l + m), each singular value in one of its vectors."""
    ratio: Any
    """The entries of A by the numbers held; infinite where none is."""
    energy: Any
    """The share of Σ σ² that is kept, 1 for a zero tensor; for M = c · unitary the share of ‖A‖²."""
    relative_error: Any
    """‖Â - Â_kept‖ / ‖Â‖, 0 for a zero tensor; for M = c · unitary that of A, or of its projection, √(1 - energy)."""


def compression(faces: Faces, A: Any, s: Any, kept: Any) -> Compression:
    """Of the singular values s, (*batch, faces, k), those of a mask are kept."""
    s = raw(s)
    xp = namespace(s)
    times = faces.times_like(s)[:, None]
    rank = (times * kept).sum(axis=(-2, -1))
    rows, columns = A.shape[-2:]
    storage = rank * ((rows + columns) * _numbers_each(faces.parts[0], faces.halved, A.dtype.kind == "c"))
    entries = rows * columns * faces.star.n
    s = s.astype(xp.float64)
    largest = s.max(axis=(-2, -1), keepdims=True) if s.size else 1.0
    squares = times * (s / xp.where(largest == 0, 1, largest)) ** 2
    whole, lost = squares.sum(axis=(-2, -1)), xp.where(kept, 0, squares).sum(axis=(-2, -1))
    share = lost / xp.where(whole == 0, 1, whole)
    ratio = xp.where(storage == 0, math.inf, entries / xp.where(storage == 0, 1, storage))
    return Compression(rank, storage, ratio, 1 - share, xp.sqrt(share))


@dataclasses.dataclass(frozen=True, eq=False)
class Compressed:
    """A tensor, or a batch of them, held as the singular triplets that `star.compress` kept.

    One row of `left` is σ u, one of `right` is vᴴ, of one triplet: `(count, l)` and `(count, m)`, of tensor after
    tensor of the batch, face after face, σ falling. There is one pair of arrays or, for a real tensor in a Fourier
    algebra, two: of the faces that are their own conjugates, in real numbers, and of one of each conjugate pair.
    `ranks`, (*batch, faces) on the host, says how many triplets each of these faces has, `shape` is that of the
    tensor, and `relative_error` that of the approximation (see `Compression`), (*batch,) on the host.

    >>> import numpy as np
    >>> from cutnn import algebra
    >>> star = algebra.fft(6)
    >>> A = np.cumsum(star.random(20, 30, seed=0), axis=0)
    >>> held = star.compress(A, 0.9)
    >>> error = star.norm(A - held.decompress()) / star.norm(A)
    >>> held.implicit_rank, held.storage, np.isclose(error, held.relative_error)
    (45, 2250, np.True_)
    """

    star: Any
    shape: tuple[int, ...]
    is_complex: bool
    ranks: np.ndarray
    left: tuple[Any, ...]
    right: tuple[Any, ...]
    relative_error: np.ndarray

    def decompress(self) -> Any:
        """The tensor of the triplets, (*batch, *shape, l, m), on the device they are on."""
        spectrum, parts = self._spectrum(), []
        for ranks, left, right in zip(spectrum.split(self.ranks), self.left, self.right, strict=True):
            xp = namespace(left)
            held = like(np.arange(ranks.max(initial=0)) < ranks[..., None], left)
            rows, columns = (
                xp.zeros((*held.shape, vectors.shape[-1]), dtype=left.dtype) for vectors in (left, right)
            )
            rows[held], columns[held] = left, right
            parts.append(rows.mT @ columns)
        return spectrum.tensor(spectrum.joined(parts))

    @property
    def multirank(self) -> np.ndarray:
        """How many triplets each face of the whole spectrum has, (*batch, *face_shape), on the host."""
        return self._spectrum().of_all(self.ranks)

    @property
    def implicit_rank(self) -> int:
        """How many triplets there are, in all faces and tensors: the sum of the multirank."""
        return int(np.sum(self.ranks * self._spectrum().times))

    @property
    def storage(self) -> int:
        """How many numbers of the kind of the tensor's entries, real or complex, the triplets are."""
        return sum(
            x.size * (2 if x.dtype.kind == "c" and not self.is_complex else 1) for x in self.left + self.right
        )

    @property
    def ratio(self) -> float:
        """How many times fewer numbers that is than the tensor has entries; infinite where there are none."""
        return math.prod(self.shape) / self.storage if self.storage else math.inf

    @property
    def nbytes(self) -> int:
        """The bytes of the triplets and of the ranks."""
        return sum(x.nbytes for x in (*self.left, *self.right, self.ranks))

    def arrays(self) -> dict[str, Any]:
        """What is held, as plain arrays by name, for `numpy.savez`, safetensors and their kin."""
        found = {
            "shape": np.array(self.shape),
            "is_complex": np.array(self.is_complex),
            "ranks": self.ranks,
            "relative_error": self.relative_error,
        }
        for k, (left, right) in enumerate(zip(self.left, self.right, strict=True)):
            found |= {f"left_{k}": left, f"right_{k}": right}
        return found

    @classmethod
    def from_arrays(cls, star: StarAlgebra, arrays: Mapping[str, Any]) -> Compressed:
        """What `arrays` gave, in the same algebra, which is not among the arrays.

        Raises ValueError where an array is missing, or they do not fit each other and the algebra.

        >>> from cutnn import algebra
        >>> star = algebra.dct(4)
        >>> held = star.compress(star.random(3, 5), count=4)
        >>> bool((Compressed.from_arrays(star, held.arrays()).decompress() == held.decompress()).all())
        True
        """
        halved = star.half_shape != star.face_shape and not bool(to_host(arrays["is_complex"]))
        names = {side: [f"{side}_{k}" for k in range(1 + halved)] for side in ("left", "right")}
        missing = {"shape", "ranks", "relative_error", *names["left"], *names["right"]} - set(arrays)
        if missing:
            raise ValueError(
                f"Compressed.from_arrays: no {', '.join(sorted(missing))} among the arrays; expected those that "
                f"`arrays` gave, of a tensor of {star}"
            )
        held = cls(
            star,
            tuple(int(k) for k in to_host(arrays["shape"])),
            bool(to_host(arrays["is_complex"])),
            to_host(arrays["ranks"]),
            tuple(arrays[name] for name in names["left"]),
            tuple(arrays[name] for name in names["right"]),
            to_host(arrays["relative_error"]),
        )
        held._check()
        return held

    def _spectrum(self) -> Spectrum:
        return Spectrum(self.star, len(self.left) > 1, len(self.shape) - len(self.star.shape) - 2)

    def _check(self) -> None:
        """Raise where sizes do not fit each other and the algebra."""
        star, (*lead, rows, columns) = self.star, self.shape
        batch = tuple(lead[: len(lead) - len(star.shape)])
        fits = tuple(lead[len(batch) :]) == star.shape
        if fits:
            spectrum = self._spectrum()
            fits = self.ranks.shape == (*batch, len(spectrum.times))
        if fits:
            counts = [int(ranks.sum()) for ranks in spectrum.split(self.ranks)]
            fits = [x.shape for x in self.left] == [(count, rows) for count in counts]
            fits = fits and [x.shape for x in self.right] == [(count, columns) for count in counts]
        if not fits:
            raise ValueError(
                f"Compressed.from_arrays: ranks {self.ranks.shape}, left {[x.shape for x in self.left]} and right "
                f"{[x.shape for x in self.right]} do not make a tensor {self.shape} of {star}"
            )


def compress(faces: Faces, A: Any, triplets: list[Any], kept: Any) -> Compressed:
    """The kept ones of the triplets U, s, Vh of each part of the faces."""
    s = faces.joined([part[1] for part in triplets])
    left, right = [], []
    for (U, s_, Vh), mask in zip(triplets, faces.split(kept), strict=True):
        left.append((U * s_[..., None, :]).mT[mask])
        right.append(Vh[mask])
    error = to_host(namespace(s).asarray(compression(faces, A, s, kept).relative_error))
    ranks = to_host(kept.sum(axis=-1))
    kind = A.dtype.kind == "c"
    return Compressed(faces.star, tuple(A.shape), kind, ranks, tuple(left), tuple(right), error)


def _numbers_each(faces: Any, halved: bool, is_complex: bool) -> int:
    """How many numbers of the kind of A's entries one number of a triplet is, for one face of the spectrum."""
    return 2 if faces.dtype.kind == "c" and not halved and not is_complex else 1
