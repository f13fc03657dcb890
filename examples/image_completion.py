"""Complete a colour image of which 80 % of the entries are missing, by its tubal nuclear norm.

An image of H x W pixels is a tensor of H rows and W lateral slices whose tubes are the three colours of a pixel.
Entries are dropped at random, colour by colour; `algebra.lowrank.complete` finds the tensor of least nuclear norm that
has the others. M decides which colours go together: none does (identity: three matrices), mean and differences (DCT),
the Fourier transform (t-product), or the principal colours of what is seen. The matrix baseline has the three colours
beside each other in one matrix, H x 3W. Prints a table, and writes it and a picture of the image, what is seen and each
result.

    python examples/image_completion.py                               # a photograph of 213 x 320
    python examples/image_completion.py --preset quick                # of 106 x 160, ten seconds
    python examples/image_completion.py --data china --missing 0.5 0.7 0.8 0.9
    python examples/image_completion.py --data cifar10 --root data    # 16 small images, as one batch

Data: `flower` and `china` are the photographs that scikit-learn brings, `made` is drawn here, `cifar10` must lie in
`--root`. PSNR and the relative error are over all entries, the seen ones included; the rank is that of the largest
face.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _experiment import Refused, Table, algebra_named, gallery, load, main_guard, parser, prepare, save, solve

import cutnn as ct
from cutnn import algebra
from cutnn.algebra import lowrank

NAMES = {
    "dct": "DCT",
    "identity": "colour by colour",
    "dft": "DFT (t-product)",
    "haar": "Haar",
    "random": "random M",
    "data": "principal colours",
}
MATRIX = "matrix, H x 3W"


@dataclass(frozen=True)
class Preset:
    """By how much photographs are reduced, how many small images are taken, and when iterations end."""

    reduction: int
    images: int = 16
    tolerance: float = 1e-4
    max_iterations: int = 500


PRESETS = {"full": Preset(1), "better": Preset(2), "quick": Preset(4, images=4)}


# -------------------------------------------------------------------------------------------------- the data


def images(args: argparse.Namespace, preset: Preset) -> Any:
    """Images as a tensor (N, 3, H, W) with values from 0 to 1, on the device."""
    if args.data == "cifar10":
        return load(args).test.images[: preset.images].astype(np.float64) / 255
    if args.data == "made":
        picture = made(640 // preset.reduction)
    else:
        picture = photograph(args.data, preset.reduction)
    return ct.to_device(np.ascontiguousarray(np.moveaxis(picture, -1, 0))[None])


def photograph(name: str, reduction: int) -> np.ndarray:
    """A photograph of scikit-learn, (H, W, 3), in blocks of `reduction` x `reduction` pixels."""
    try:
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise Refused(
            f"the photographs come with scikit-learn ({error}): pip install 'cutnn[examples]'"
        ) from None
    picture = load_sample_image(f"{name}.jpg") / 255
    rows, columns = (size // reduction for size in picture.shape[:2])
    cut = picture[: rows * reduction, : columns * reduction]
    return cut.reshape(rows, reduction, columns, reduction, 3).mean(axis=(1, 3))


def made(size: int) -> np.ndarray:
    """A sky, hills, a sun, and a house with windows, (3/4 size, size, 3)."""
    y, x = np.mgrid[0 : 0.75 : 1j * (3 * size // 4), 0 : 1 : 1j * size]

    def colour(*rgb: float) -> np.ndarray:
        return np.array(rgb)

    def paint(where: np.ndarray, with_: np.ndarray) -> None:
        picture[where] = np.broadcast_to(with_, picture.shape)[where]

    picture = (1 - y[..., None]) * colour(0.45, 0.7, 0.95) + y[..., None] * colour(1.0, 0.75, 0.5)
    paint((x - 0.8) ** 2 + (y - 0.15) ** 2 < 0.006, colour(1.0, 0.95, 0.6))
    far, near = 0.42 + 0.06 * np.sin(9 * x), 0.55 + 0.04 * np.sin(5 * x + 2)
    paint(y > far, (0.35 + 0.5 * (y - far))[..., None] * colour(0.7, 0.9, 1.2))
    paint(y > near, (0.5 + 0.1 * np.sin(60 * x + 40 * y))[..., None] * colour(0.5, 0.9, 0.3))
    paint((abs(x - 0.3) < 0.12) & (y > 0.35) & (y < 0.62), colour(0.85, 0.8, 0.7))
    paint((y > 0.22) & (y < 0.35) & (abs(x - 0.3) < 1.1 * (y - 0.22)), colour(0.65, 0.25, 0.2))
    for left in (0.22, 0.32):
        paint((x > left) & (x < left + 0.06) & (y > 0.42) & (y < 0.5), colour(0.2, 0.25, 0.4))
    return np.clip(picture, 0, 1)


# --------------------------------------------------------------------------------------------- the completion


@dataclass
class Outcome:
    """What one algebra made of the images, and how well."""

    name: str
    missing: float
    seed: int
    images: Any
    psnr: float
    error: float
    rank: int
    iterations: int
    seconds: float


def run(
    name: str, star: algebra.StarAlgebra, X: Any, seen: Any, missing: float, seed: int, preset: Preset
) -> Outcome:
    """Complete the images X (N, 3, H, W) from their entries seen; over `plain()` as matrices H x 3W."""
    tensors = (X, seen) if star.shape else (beside(X), beside(seen))
    began = time.perf_counter()
    options = {"tolerance": preset.tolerance, "max_iterations": preset.max_iterations}
    result = solve(lowrank.complete, star, *tensors, **options)
    ct.synchronize()
    seconds = time.perf_counter() - began
    L = result.low_rank if star.shape else apart(result.low_rank)
    return Outcome(
        name,
        missing,
        seed,
        L,
        psnr(L, X),
        float(ct.linalg.vector_norm(L - X) / ct.linalg.vector_norm(X)),
        int(result.history["tubal_rank"][-1]),
        result.iterations,
        seconds,
    )


def principal_colours(X: Any, seen: Any) -> algebra.StarAlgebra:
    """M of the eigenvectors of the second moments of the colours, over the pixels where both of a pair are seen."""
    colours, counts = (
        np.moveaxis(ct.to_host(T), 1, 0).reshape(3, -1) for T in (ct.where(seen, X, 0), 1.0 * seen)
    )
    _, vectors = np.linalg.eigh(colours @ colours.T / np.maximum(counts @ counts.T, 1))
    return algebra.from_matrix(vectors.T)


def beside(X: Any) -> Any:
    """(N, 3, H, W) to (N, H, 3W): the colours beside each other."""
    return ct.reshape(ct.permute_dims(X, (0, 2, 1, 3)), (X.shape[0], X.shape[2], -1))


def apart(X: Any) -> Any:
    """(N, H, 3W) back to (N, 3, H, W)."""
    return ct.permute_dims(ct.reshape(X, (*X.shape[:2], 3, -1)), (0, 2, 1, 3))


def psnr(L: Any, X: Any) -> float:
    """Peak signal to noise in dB, the mean over images with values from 0 to 1, to which L is clipped."""
    squares = ct.mean((ct.clip(L, 0, 1) - X) ** 2, axis=(1, 2, 3))
    return float(ct.mean(-10 * ct.log10(squares)))


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    folder = prepare(args)
    preset = PRESETS[args.preset]
    X = images(args, preset)
    print(f"{args.data}: {X.shape[0]} of {X.shape[2]} x {X.shape[3]} pixels, on {ct.get_device()}")
    outcomes = []
    for seed in args.seeds:
        for missing in args.missing:
            seen = ct.to_device(np.random.default_rng(seed).random(X.shape) >= missing)
            for name in [*args.algebra, MATRIX]:
                if name == MATRIX:
                    star = algebra.plain()
                elif name == "data":
                    star = principal_colours(X, seen)
                else:
                    star = algebra_named(name, 3, seed=seed)
                outcome = run(NAMES.get(name, name), star, X, seen, missing, seed, preset)
                outcomes.append(outcome)
                print(
                    f"{missing:.0%} missing, {outcome.name}: {outcome.psnr:.2f} dB, {outcome.seconds:.1f} s"
                )
    report(outcomes, X, folder)
    return 0


# ---------------------------------------------------------------------------------------- table and pictures


def report(outcomes: list[Outcome], X: Any, folder: Path) -> None:
    """The numbers, and for each share of missing entries the images of the first seed."""
    table = Table(
        {"missing_%": "d", "algebra": "", "seed": "d", "psnr": ".2f", "relative_error": ".4f"}
        | {"rank": ".0f", "iterations": ".0f", "seconds": ".1f"}
    )
    for o in outcomes:
        table.row(
            **{"missing_%": round(100 * o.missing)},
            algebra=o.name,
            seed=o.seed,
            psnr=o.psnr,
            relative_error=o.error,
            rank=o.rank,
            iterations=o.iterations,
            seconds=o.seconds,
        )
    print(f"\n{table.text()}\n")
    table.write_csv(folder / "table.csv")
    seed = outcomes[0].seed
    for missing in dict.fromkeys(o.missing for o in outcomes):
        chosen = [o for o in outcomes if (o.missing, o.seed) == (missing, seed)]
        seen = np.random.default_rng(seed).random(X.shape) >= missing
        save(lambda: picture(X, seen, chosen), folder / f"images-{round(100 * missing)}.png")  # noqa: B023


def picture(X: Any, seen: Any, outcomes: Sequence[Outcome]) -> Any:
    """The image, what is seen of it (the rest black), and what each algebra made of that."""
    X = ct.to_host(X)
    titles = {"original": X, f"seen: {seen.mean():.0%} of the entries": np.where(seen, X, 0)}
    titles |= {f"{o.name}: {o.psnr:.2f} dB": ct.to_host(o.images) for o in outcomes}
    shown = [{title: _mosaic(Y)} for title, Y in titles.items()]
    columns = -(-len(shown) // 2) if len(shown) > 3 else len(shown)
    rows = [shown[start : start + columns] for start in range(0, len(shown), columns)]
    return gallery([{k: v for cell in row for k, v in cell.items()} for row in rows], width=3.2)


def _mosaic(X: np.ndarray) -> np.ndarray:
    """Images (N, 3, H, W) as one, (rows H, columns W, 3)."""
    columns = int(np.ceil(len(X) ** 0.5))
    X = np.concatenate([X, np.ones((-len(X) % columns, *X.shape[1:]))])
    rows = [np.concatenate(list(X[start : start + columns]), axis=-1) for start in range(0, len(X), columns)]
    return np.moveaxis(np.concatenate(rows, axis=-2), 0, -1)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    data = ("flower", "china", "made", "cifar10")
    options = parser(__doc__, PRESETS, "better", "image_completion", data, training=False)
    options.add_argument(
        "--missing", type=_share, nargs="+", default=[0.8], help="shares of the entries missing"
    )
    options.set_defaults(algebra=["identity", "dct", "dft", "data"])
    return options.parse_args(argv)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share, a number between 0 and 1")
    return share


if __name__ == "__main__":
    sys.exit(main())
