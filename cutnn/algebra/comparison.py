"""Which M suits the data: how far each transform gathers the energy of a tensor in few singular triplets.

Source: Kilmer, Horesh, Avron, Newman, Tensor-tensor algebra for optimal representation and compression of multiway
data, PNAS 118 (2021), which compares transforms by the error at equal storage.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cutnn import array as ct
from cutnn.algebra import _checks as check
from cutnn.algebra import catalogue
from cutnn.algebra._faces import Faces, like
from cutnn.algebra.compression import compression
from cutnn.algebra.factor import _largest
from cutnn.algebra.star import StarAlgebra
from cutnn.device import namespace
from cutnn.tape import raw

__all__ = ["Compared", "Comparison", "compare"]


class Compared(NamedTuple):
    """What an algebra makes of a tensor; of a batch, truncated one by one, errors are of all together, others means."""

    algebra: str
    faces: int
    """How many faces Â has: n, or fewer in projected algebras."""
    condition: float
    """The condition number of M: digits that products may lose; 1 for multiples of unitary and for projected M."""
    nuclear: float
    """Σσ / √(N Σσ²) of the N = n min(l, m) singular values: 1 where all are equal, 1/√N where one holds everything."""
    implicit_rank: tuple[float, ...]
    """How many singular triplets hold each of the `energies` of Â; for M = c · unitary of the tensor."""
    storage: tuple[float, ...]
    """The numbers held by the t-SVDM of each of the `ranks`, k (l + m) a face, by the tensor's; M not counted."""
    t_svdm: tuple[float, ...]
    """‖X - X_k‖ / ‖X‖ for the t-SVDM of each of the `ranks`."""
    t_svdmii: tuple[float, ...]
    """The same for the t-SVDMII that holds as many triplets, shared out among the faces by need."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` found: `rows`, a `Compared` for each algebra, printed as a table; `plot.compaction` draws it."""

    shape: tuple[int, ...]
    ranks: tuple[int, ...]
    energies: tuple[float, ...]
    rows: tuple[Compared, ...]

    def __str__(self) -> str:
        """The table; of many ranks three, spread over all."""
        shown = sorted({0, len(self.ranks) // 2, len(self.ranks) - 1})
        head = [
            "algebra",
            "faces",
            "cond M",
            "nuclear",
            *(f"rank {100 * energy:g}%" for energy in self.energies),
        ]
        for k in shown:
            head += [f"k={self.ranks[k]}", "II"]
        lines = [head]
        for row in self.rows:
            line = [row.algebra, str(row.faces), f"{row.condition:.3g}", f"{row.nuclear:.3f}"]
            line += [f"{rank:.0f}" for rank in row.implicit_rank]
            for k in shown:
                line += [f"{row.t_svdm[k]:.2e}", f"{row.t_svdmii[k]:.2e}"]
            lines.append(line)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(
                f"{cell:{'>' if column else '<'}{width}}"
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        sizes = " x ".join(map(str, self.shape))
        return "\n".join(
            [
                f"{sizes}: relative error of the t-SVDM of rank k, and of the t-SVDMII (II) of as many triplets",
                table[0],
                "-" * len(table[0]),
                *table[1:],
            ]
        )


def compare(
    X: Any,
    algebras: Mapping[str, StarAlgebra] | Sequence[StarAlgebra] | None = None,
    ranks: Sequence[int] | None = None,
    energies: Sequence[float] = (0.9, 0.99),
    tubes: int = 1,
) -> Comparison:
    """Compare algebras on a tensor X (*batch, *shape, l, m): see `Compared` for what is measured.

    `algebras` are named by a mapping, or by themselves; without them X with `tubes` tube axes is taken by the
    identity, the DCT, the DFT, Haar's wavelets (for powers of two), a random orthogonal M, which knows nothing of
    the data, and M from the data, the same along every axis. `ranks` are tubal ranks, without them up to eight,
    from the least storage to half of that of X. For each algebra Â has one SVD, each rank two approximations.

    Errors are those of X, in the norm of X, for any M: where M is not a multiple of a unitary matrix the truncation
    of the faces is not optimal, and where it is projected what lies outside of the range is part of the error.
    Raises ValueError where X does not fit an algebra, is empty or not finite, and for ranks and energies out of
    range, TypeError for what is no algebra. (Kilmer, Horesh, Avron, Newman 2021.)

    >>> import numpy as np
    >>> from cutnn import algebra
    >>> X = np.cumsum(algebra.dct(16).random(9, 10, seed=0), axis=0)  # tubes that wander
    >>> print(algebra.compare(X, {"M = I": algebra.identity(16), "dct": algebra.dct(16)}, ranks=(1, 4)))
    16 x 9 x 10: relative error of the t-SVDM of rank k, and of the t-SVDMII (II) of as many triplets
    algebra  faces  cond M  nuclear  rank 90%  rank 99%       k=1        II       k=4        II
    -------------------------------------------------------------------------------------------
    M = I       16       1    0.800        63       107  8.04e-01  7.34e-01  3.61e-01  3.10e-01
    dct         16       1    0.470        13        63  8.03e-01  2.72e-01  3.61e-01  9.74e-02
    """
    X = raw(X)
    if not hasattr(X, "dtype"):
        raise TypeError(f"compare: X is a {type(X).__name__}; expected an array of shape (..., n, l, m)")
    named = _named(X, algebras, tubes)
    first = next(iter(named.values()))
    X = check.finite(first, "compare", check.tensor(first, "compare", X, "X"), "X")
    rows, columns = X.shape[-2:]
    if not X.size:
        raise ValueError(f"compare: X, {tuple(X.shape)}, is empty")
    if ranks is None:
        most = max(rows * columns // (2 * (rows + columns)), 1)
        ranks = sorted({round(k) for k in np.geomspace(1, most, 8)})
    if isinstance(ranks, int) or not len(ranks):
        raise ValueError(f"compare: ranks is {ranks!r}; expected tubal ranks, (1, 2, 5) say, or None")
    for k in ranks:
        check.rank(first, "compare", X, k)
    if not all(0 < energy <= 1 for energy in energies):
        raise ValueError(f"compare: energies are fractions above 0, up to 1, and are {tuple(energies)}")
    compared = [_compared(name, star, X, ranks, energies) for name, star in named.items()]
    return Comparison(tuple(X.shape), tuple(map(int, ranks)), tuple(energies), tuple(compared))


# -------------------------------------------------------------------------------------------------- helpers


def _named(X: Any, algebras: Any, tubes: int) -> dict[str, StarAlgebra]:
    if algebras is None:
        return _usual(X, tubes)
    if isinstance(algebras, StarAlgebra | str):
        raise TypeError(
            f"compare: algebras is {algebras!r}; expected several, [algebra.dct(8), ...] or a mapping"
        )
    named = dict(algebras) if isinstance(algebras, Mapping) else {repr(star): star for star in algebras}
    for star in named.values():
        if not isinstance(star, StarAlgebra):
            raise TypeError(f"compare: expected algebras (algebra.dct(8), ...), not a {type(star).__name__}")
    if not named or len(named) < len(algebras):
        raise ValueError(
            "compare: no algebras"
            if not named
            else "compare: two algebras have one name; give a mapping, {name: algebra}"
        )
    return named


def _usual(X: Any, tubes: int) -> dict[str, StarAlgebra]:
    shape = tuple(getattr(X, "shape", ()))
    if tubes < 0 or len(shape) < tubes + 2:
        raise ValueError(
            f"compare: X has shape {shape}; expected (..., {'n, ' * max(tubes, 0)}l, m) for tubes={tubes}"
        )
    lengths = shape[len(shape) - 2 - tubes : -2]
    families = {"identity": catalogue.identity, "dct": catalogue.dct, "fft": catalogue.fft}
    if all(n & (n - 1) == 0 for n in lengths):
        families["haar"] = catalogue.haar
    families["random"] = lambda n: catalogue.random_orthogonal(n, seed=0)
    named = {name: catalogue.product(*map(family, lengths)) for name, family in families.items()}
    return named | {"from data": catalogue.from_data(X, tubes)}


def _compared(
    name: str, star: StarAlgebra, X: Any, ranks: Sequence[int], energies: Sequence[float]
) -> Compared:
    X = check.tensor(star, "compare", X, "X")
    faces = Faces(star, X)
    U, s, Vh = faces.map(lambda part: ct.linalg.svd(part, full_matrices=False))
    xp, times = namespace(s), faces.times_like(s)[:, None]
    place = like(np.arange(s.shape[-1]), s)

    def error(kept: Any) -> float:
        most = int((kept * (place + 1)).max())
        values = xp.where(kept, s, 0)[..., None, :most]
        approximation = faces.tensor((U[..., :most] * values) @ Vh[..., :most, :])
        size = float(ct.linalg.vector_norm(X))
        return float(ct.linalg.vector_norm(X - approximation)) / (size or 1.0)

    cuts = [xp.broadcast_to(place < k, s.shape) for k in ranks]
    counts = [math.prod(star.face_shape) * k for k in ranks]
    wide = s.astype(xp.float64)
    wide = wide / xp.where(wide.max() == 0, 1, wide.max())
    total, squares = ((times * x).sum(axis=(-2, -1)) for x in (wide, wide**2))
    number = star.n * s.shape[-1]
    entries = star.n * X.shape[-2] * X.shape[-1]
    return Compared(
        name,
        math.prod(star.face_shape),
        float(np.prod([1.0 if t.scale is not None else np.linalg.cond(t.matrix()) for t in star.transforms])),
        float((total / xp.sqrt(number * xp.where(squares == 0, 1, squares))).mean()),
        tuple([float((times * _largest(faces, s, e, None)).sum(axis=(-2, -1)).mean()) for e in energies]),
        tuple([float(compression(faces, X, s, kept).storage.mean()) / entries for kept in cuts]),
        tuple([error(kept) for kept in cuts]),
        tuple([error(_largest(faces, s, None, count)) for count in counts]),
    )
