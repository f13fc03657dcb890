"""Choose M for your data: how far each transform compresses a hyperspectral cube, or images of digits or of things.

    python examples/choose_transform.py --root data                                # 100 digits of scikit-learn
    python examples/choose_transform.py --root data --data mnist --preset full     # 1,000 images
    python examples/choose_transform.py --root data --data jasper-ridge --preset full

Images are lateral slices, their columns tubes, normalised; M from data is that of other images, 5,000 of those for
training. The cube is scaled to 1, its faces are its bands, and M is its own. Of `data, n/4` a quarter of the faces is
kept, a projected algebra; `banded` averages each entry of a tube with the two before it; `db4`, Daubechies' wavelets,
needs PyWavelets and n even enough.

Prints the table of `algebra.compare`; writes the errors at two storages, a row an algebra, and a picture. An error
between two ranks is interpolated on logarithmic scales, and left out where a curve does not reach.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _experiment import (
    ALGEBRAS,
    JASPER_RIDGE,
    Table,
    algebra_named,
    load,
    load_cube,
    main_guard,
    parser,
    prepare,
    save,
)

from cutnn import algebra, data, plot

CUBE = "jasper-ridge"
DATA = ("digits", "mnist", "fashion-mnist", "cifar10", CUBE)
STORAGES = (0.1, 0.3)  # shares of the tensor at which errors are written down
COLUMNS = {"data": "", "algebra": "", "faces": "d", "condition": ".3g", "nuclear": ".3f"}
COLUMNS |= {"rank_90": ".0f", "rank_99": ".0f"}
COLUMNS |= {f"{name}_{100 * s:.0f}": ".4f" for s in STORAGES for name in ("t_svdm", "t_svdmii")}


@dataclass(frozen=True)
class Preset:
    """How many images are compared; of the cube, every how manieth row and column."""

    images: int
    stride: int


PRESETS = {"full": Preset(1000, 1), "quick": Preset(100, 4)}


def tensor(args: argparse.Namespace, preset: Preset) -> tuple[Any, Any]:
    """The tensor to compress, (n, l, m), and what M from data is found in: a split, or nothing but the tensor."""
    if args.data == CUBE:
        cube = load_cube(Path(args.root) / JASPER_RIDGE)
        return np.ascontiguousarray(cube[:, :: preset.stride, :: preset.stride]), None
    dataset: data.Dataset = load(args)
    return dataset.validation.batch(slice(preset.images))[0], dataset.train


def algebras(X: Any, split: Any, names: Sequence[str] | None) -> dict[str, algebra.StarAlgebra]:
    """The algebras for tubes of X's length: those that are named, or all."""
    n, source = X.shape[0], X if split is None else None
    found = {}
    for name in names or ALGEBRAS:
        own = name == "data" and source is not None
        found[name] = algebra.from_data(source) if own else algebra_named(name, n, split)
    if not names:
        try:
            found["db4"] = algebra.wavelet(n, "db4", levels=None if n >= 14 else 1)
        except (ValueError, ImportError) as error:
            print(f"without db4: {error}")
        found["banded"] = algebra.banded(n, 3)
        M = found["data"].transforms[0].matrix()
        found["data, n/4"] = algebra.projected(M[: max(n // 4, 1)].conj().T)
    return found


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    folder = prepare(args)
    X, split = tensor(args, PRESETS[args.preset])
    found = algebra.compare(X, algebras(X, split, args.algebra))
    print(f"{args.data}, preset {args.preset}\n{found}\n")
    table = Table(COLUMNS)
    for row in found.rows:
        errors = {
            f"{name}_{100 * s:.0f}": _at(s, row.storage, getattr(row, name))
            for s in STORAGES
            for name in ("t_svdm", "t_svdmii")
        }
        table.row(
            data=args.data,
            algebra=row.algebra,
            faces=row.faces,
            condition=row.condition,
            nuclear=row.nuclear,
            rank_90=row.implicit_rank[0],
            rank_99=row.implicit_rank[1],
            **errors,
        )
    print(table.text())
    table.write_csv(folder / "table.csv")
    sizes = " × ".join(map(str, X.shape[1:]))
    draw: Callable[[], Any] = functools.partial(
        plot.compaction, found, f"{args.data}: {X.shape[0]} faces of {sizes}"
    )
    save(draw, folder / "compaction.png")
    return 0


def _at(storage: float, storages: Sequence[float], errors: Sequence[float]) -> float | None:
    """The error at a storage between those of two ranks; None where all are on one side, or an error is 0."""
    if not storages[0] <= storage <= storages[-1] or min(errors) == 0:
        return None
    return float(np.exp(np.interp(np.log(storage), np.log(storages), np.log(errors))))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__, PRESETS, "quick", "choose_transform", DATA)
    options.set_defaults(algebra=None)
    return options.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
