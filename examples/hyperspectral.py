"""Compress a hyperspectral cube, and clean one of noise, dead stripes and outliers: tensors beside matrices.

    python examples/hyperspectral.py                             # a small cube: half a minute
    python examples/hyperspectral.py --root data --preset paper  # Jasper Ridge, 100 x 100 x 198: ten minutes
    python examples/hyperspectral.py --cube scene.npy --parts denoising --tubes blocks

The cube is Jasper Ridge under --root, or any (rows, columns, bands) as .npy; where neither is named nor there, one is
made: smooth spectra of five materials with their maps. There are several ways to make a tensor of it, --tubes:

* bands: tubes are spectra, faces the bands, images rows x columns
* rows, columns: tubes run along a column or a row of the image, a face is bands x the rest
* blocks: tubes are squares of --block pixels, with a transform along each side; a face is bands x blocks

The matrix, beside them, is bands x pixels, over `algebra.plain()`: its truncated SVD is PCA of spectra without a mean.

Compression: the t-SVDM (same rank in every face) and the t-SVDMII (`star.compress`, the largest singular values of all
faces) with as many numbers as a share of the cube allows, and Tucker's (HOSVD). An M from data counts as numbers, too;
`data, n/8` are the leading eighth of its faces, a projected algebra.

Denoising, of which sigma is estimated, by the median of differences along all three axes:

* Gaussian noise of deviation 0.05. Energy: the t-SVDMII that leaves as much as the noise has, N sigma^2 (the
  discrepancy principle). SVT: `star.singular_value_threshold`, whose tau minimises Stein's unbiased estimate of the
  risk (Candes, Sing-Long, Trzasko 2013), its divergence from one random probe and `ct.jvp`.
* Dead stripes (in a third of the bands, 3 % of the columns are 0), 2 % outliers, noise of 0.005: robust PCA, with the
  theory's weight and with 1.5 times that; and the median of 3 x 3 pixels.

PSNR is for a peak of 1, the largest value of the cube; the angle is that between a pixel's spectra, in degrees, the
mean of all pixels.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _experiment import (
    ALGEBRAS,
    JASPER_RIDGE,
    Refused,
    Table,
    algebra_named,
    gallery,
    load_cube,
    main_guard,
    parser,
    prepare,
    save,
    solve,
    whole,
)

import cutnn as ct
from cutnn import algebra
from cutnn.algebra import lowrank

VIEWS = ("bands", "rows", "columns", "blocks")
PARTS = ("compression", "denoising")
MATRIX, TUCKER = "SVD", "Tucker (HOSVD)"
GAUSSIAN, STRIPES = "Gaussian noise", "stripes, outliers"
DAMAGED, MEDIAN = "damaged", "median 3 x 3"
WEIGHTS = {"robust PCA": 1.0, "robust PCA, 1.5 x": 1.5}


@dataclass(frozen=True)
class Preset:
    """Every how manieth pixel and band is taken; shares of the cube to store; when robust PCA ends."""

    pixels: int
    bands: int
    shares: tuple[float, ...]
    max_iterations: int
    tolerance: float = 1e-3
    taus: int = 7


PRESETS = {
    "quick": Preset(2, 3, (0.02, 0.05, 0.1), 30, taus=5),
    "paper": Preset(1, 1, (0.01, 0.02, 0.05, 0.1, 0.2), 100),
}


# -------------------------------------------------------------------------------------------------- the cube


def made(rows: int, columns: int, bands: int, seed: int) -> np.ndarray:
    """A landscape (bands, rows, columns) with largest value 1: water, trees, fields, soil, a road, mixed at edges."""
    rng = np.random.default_rng(seed)
    wave = np.linspace(0.4, 2.5, bands)  # micrometres

    def bump(centre: float, width: float) -> np.ndarray:
        return np.exp(-(((wave - centre) / width) ** 2))

    edge = 1 / (1 + np.exp(-(wave - 0.71) / 0.02))
    water_bands = 1 - 0.75 * bump(1.42, 0.07) - 0.85 * bump(1.92, 0.09) - 0.2 * bump(1.2, 0.05)
    leaf = (
        0.06 + 0.06 * bump(0.55, 0.05) + edge * (0.75 * np.exp(-((wave - 0.7) / 1.2))) * water_bands
    ) * 0.8
    spectra = np.stack(
        [
            0.09 * np.exp(-(wave - 0.4) / 0.25) + 0.012,
            leaf,
            0.35 * leaf + 0.3 * np.exp(-(((wave - 1.3) / 0.9) ** 2)) * water_bands,
            (0.52 - 0.42 * np.exp(-(wave - 0.35) / 0.6)) * (1 - 0.25 * bump(2.2, 0.05) - 0.3 * bump(1.92, 0.08)),
            0.28 + 0.05 * wave - 0.08 * bump(0.45, 0.1),
        ]
    )  # fmt: skip
    y, x = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    rough = np.zeros((rows, columns))
    for octave in range(1, 6):
        a, b, phase = rng.normal(0, 2.0**octave, (3, 4, 1, 1))
        rough += np.sum(np.sin(2 * np.pi * (a * x + b * y) + phase), axis=0) / 2**octave
    river = 12 * (0.07 - abs(y - 0.3 - 0.25 * x - 0.05 * np.sin(9 * x)))
    road = 40 * (0.012 - abs(x - 0.62 + 0.2 * y))
    stones = np.sin(7 * np.pi * (x + 0.3 * y)) * np.sin(5 * np.pi * (y - 0.2 * x))
    scores = np.stack([6 * river, rough + 0.6, 2.5 * stones, 0.5 - rough, 6 * road])
    abundance = np.exp(3 * (scores - scores.max(axis=0)))
    abundance /= abundance.sum(axis=0)
    light = 1 + 0.12 * np.tanh(rough) + 0.03 * rng.standard_normal(rough.shape)
    cube = np.tensordot(spectra.T, abundance * light, 1) + 0.002 * rng.standard_normal((bands, rows, columns))
    return np.maximum(cube / cube.max(), 0).astype(np.float32)


def cube_of(args: argparse.Namespace, preset: Preset) -> np.ndarray:
    """The cube that was asked for, thinned by the preset, its sides multiples of the block."""
    if args.path is None:
        cube = made(100, 100, 198, 0)
    else:
        cube = load_cube(args.path)
    cube = cube[:: preset.bands, :: preset.pixels, :: preset.pixels]
    rows, columns = (side - side % args.block for side in cube.shape[1:])
    if min(rows, columns) < max(2 * args.block, 4):
        raise Refused(
            f"{cube.shape[1:]} pixels are too few for --block {args.block}; two blocks a side are the least"
        )
    return np.ascontiguousarray(cube[:, :rows, :columns])


def as_tensor(view: str, X: Any, block: int) -> Any:
    """A cube (bands, rows, columns) as the tensor of a view, faces first; "matrix" is bands x pixels."""
    bands, rows, columns = X.shape
    match view:
        case "bands":
            return X
        case "rows":
            return ct.permute_dims(X, (1, 0, 2))
        case "columns":
            return ct.permute_dims(X, (2, 0, 1))
        case "matrix":
            return X.reshape(bands, -1)
    blocks = X.reshape(bands, rows // block, block, columns // block, block)
    return ct.permute_dims(blocks, (2, 4, 0, 1, 3)).reshape(block, block, bands, -1)


def as_cube(view: str, T: Any, shape: tuple[int, ...], block: int) -> Any:
    """The cube (bands, rows, columns) of this shape that is the tensor T of a view."""
    bands, rows, columns = shape
    match view:
        case "rows":
            return ct.permute_dims(T, (1, 0, 2))
        case "columns":
            return ct.permute_dims(T, (1, 2, 0))
        case "blocks":
            blocks = T.reshape(block, block, bands, rows // block, columns // block)
            return ct.permute_dims(blocks, (2, 3, 0, 4, 1)).reshape(shape)
    return T.reshape(shape)


def algebra_for(name: str, T: Any, seed: int) -> tuple[algebra.StarAlgebra, int]:
    """The algebra of this name for the tubes of T, and how many numbers its M is to be stored in."""
    sides = T.shape[:-2]
    if name == "data, n/8":
        star = algebra.from_data(T, faces=max(sides[0] // 8, 1))
        return star, math.prod(star.face_shape) * sides[0]
    if name != "data":
        parts = [algebra_named(name, n, seed=seed) for n in sides]
        return algebra.product(*parts), 0
    each = [ct.moveaxis(T, axis, 0).reshape(n, -1, T.shape[-1]) for axis, n in enumerate(sides)]
    return algebra.product(*map(algebra.from_data, each)), sum(n**2 for n in sides)


# ----------------------------------------------------------------------------------------------- measurement


def psnr(X: np.ndarray, Y: np.ndarray) -> float:
    """In decibels, for a peak of 1."""
    return float(-10 * np.log10(max(np.mean((X - Y) ** 2, dtype=float), 1e-30)))


def angles(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """The angle between the spectra of each pixel, in degrees, (rows, columns); 90 where one is 0."""
    u, v = (Z / np.maximum(np.linalg.norm(Z, axis=0), 1e-30) for Z in (X.astype(float), Y.astype(float)))
    return np.degrees(2 * np.arctan2(np.linalg.norm(u - v, axis=0), np.linalg.norm(u + v, axis=0)))


@dataclass
class Outcome:
    """What one method made of the cube, and how near it is."""

    method: str
    view: str
    algebra: str
    seed: int
    error: float
    psnr: float
    angle: float
    seconds: float
    cube: np.ndarray = field(repr=False)
    share: float = 0.0
    storage: int = 0
    damage: str = ""

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (self.method, self.view, self.algebra)))

    def __str__(self) -> str:
        kept = f"{100 * self.share:g} %, " if self.storage else ""
        return (
            f"{self.damage or kept}{': ' * bool(self.damage)}{self.name}: error {100 * self.error:.2f} %, "
            f"{self.psnr:.2f} dB, {self.angle:.2f} degrees, {self.seconds:.1f} s"
        )


def measured(X: np.ndarray, found: Any, began: float, **what: Any) -> Outcome:
    """The outcome of a method that began at this time and found this cube for X."""
    found = ct.to_host(found)
    seconds = time.perf_counter() - began
    error = float(np.linalg.norm(found - X) / np.linalg.norm(X))
    outcome = Outcome(
        error=error,
        psnr=psnr(X, found),
        angle=float(angles(X, found).mean()),
        seconds=seconds,
        cube=found,
        **what,
    )
    print(outcome, flush=True)
    return outcome


# ----------------------------------------------------------------------------------------------- compression


def compress(X: np.ndarray, args: argparse.Namespace, preset: Preset, seed: int) -> list[Outcome]:
    """Every method at every share of the cube that it can keep to."""
    outcomes = []
    cube = ct.to_device(X)

    def note(method: str, view: str, name: str, share: float, storage: int, T: Any, began: float) -> None:
        back = as_cube(view, T, X.shape, args.block)
        shown = {"view": view, "algebra": name, "seed": seed}
        outcomes.append(measured(X, back, began, method=method, share=share, storage=storage, **shown))

    for share in preset.shares:
        budget = int(share * X.size)
        began = time.perf_counter()
        T = as_tensor("matrix", cube, args.block)
        if rank := min(budget // sum(T.shape), *T.shape):
            low = algebra.plain().low_rank(T, rank=rank)
            note(MATRIX, "matrix", "", share, rank * sum(T.shape), low, began)
        began = time.perf_counter()
        if fitting := tucker(X, budget):
            note(TUCKER, "", "", share, fitting[1], fitting[0], began)
    for view in args.tubes:
        T = as_tensor(view, cube, args.block)
        names = [*args.algebra, *(["data, n/8"] if "data" in args.algebra and view == "bands" else [])]
        if view == "blocks" and args.block == 2 and "dct" in names:
            names = [name for name in names if name not in ("dft", "haar")]  # the same M, up to a factor
        for name in names:
            star, own = algebra_for(name, T, seed)
            each, faces = sum(T.shape[-2:]), math.prod(star.face_shape)
            for share in preset.shares:
                budget = int(share * X.size) - own
                began = time.perf_counter()
                if (rank := min(budget // (faces * each), *T.shape[-2:])) > 0:
                    low = star.low_rank(T, rank=rank)
                    note("t-SVDM", view, name, share, own + rank * faces * each, low, began)
                began = time.perf_counter()
                if (count := min(budget // each, faces * min(T.shape[-2:]))) > 0:
                    held = star.compress(T, count=count)
                    note("t-SVDMII", view, name, share, own + held.storage, held.decompress(), began)
    return outcomes


def tucker(X: np.ndarray, budget: int) -> tuple[np.ndarray, int] | None:
    """The truncated HOSVD of at most as many numbers, and how many; None where rank 1 is more.

    The ranks are those at which each mode loses no more than the same energy, the least that the budget allows.
    (De Lathauwer, De Moor, Vandewalle, SIAM Journal on Matrix Analysis 21 (2000).)
    """
    bases, tails = [], []
    for mode in range(3):
        unfolded = np.moveaxis(X, mode, 0).reshape(X.shape[mode], -1).astype(float)
        values, vectors = np.linalg.eigh(unfolded @ unfolded.T)
        bases.append(vectors[:, ::-1])
        tails.append(
            np.cumsum(np.maximum(values, 0))[::-1]
        )  # what is lost without the k-th and further vectors
    for limit in sorted(np.concatenate(tails)):
        ranks = [max(int(np.sum(tail > limit)), 1) for tail in tails]
        storage = math.prod(ranks) + sum(rank * n for rank, n in zip(ranks, X.shape, strict=True))
        if storage <= budget:
            for mode, rank in enumerate(ranks):
                P = bases[mode][:, :rank] @ bases[mode][:, :rank].T
                X = np.moveaxis(np.tensordot(P, X, (1, mode)), 0, mode)
            return X.astype(np.float32), storage
    return None


# ------------------------------------------------------------------------------------------------- denoising


def noisy(X: np.ndarray, seed: int, sigma: float = 0.05) -> np.ndarray:
    """The cube with Gaussian noise."""
    return X + np.float32(sigma) * np.random.default_rng(seed).standard_normal(X.shape, dtype=np.float32)


def striped(X: np.ndarray, seed: int, sigma: float = 0.005) -> tuple[np.ndarray, np.ndarray]:
    """The cube with dead columns in a third of its bands, outliers and a little noise; where it is damaged."""
    rng = np.random.default_rng([seed, 1])
    bands, rows, columns = X.shape
    dead = np.zeros(X.shape, dtype=bool)
    for band in rng.choice(bands, max(bands // 3, 1), replace=False):
        dead[band][:, rng.choice(columns, max(round(0.03 * columns), 1), replace=False)] = True
    outliers = rng.random(X.shape) < 0.02
    Y = np.where(outliers, rng.random(X.shape), noisy(X, seed, sigma))
    return np.where(dead, 0, Y).astype(np.float32), dead | outliers


def estimated_sigma(Y: np.ndarray) -> float:
    """The deviation of white noise: median |D| / 0.6745, D the difference along all three axes, over √8.

    (The estimate of Donoho, Johnstone, Biometrika 81 (1994), for the finest wavelets of three axes.)
    """
    for axis in range(3):
        Y = np.diff(Y, axis=axis) / 2**0.5
    return float(np.median(abs(Y)) / 0.6745)


def by_energy(star: algebra.StarAlgebra, T: Any, sigma: float) -> Any:
    """The t-SVDMII that leaves out as much energy as white noise has, N sigma²."""
    noise = T.size * sigma**2 / float(star.norm(T)) ** 2
    return star.low_rank(T, energy=max(1 - noise, 1e-6))


def by_threshold(star: algebra.StarAlgebra, T: Any, sigma: float, taus: int, seed: int) -> Any:
    """Singular value thresholding at the tau with the least of Stein's unbiased estimate of the risk.

    The estimate is ‖f(T) - T‖² + 2 sigma² div f(T), without its constant, and the divergence bᵀ J b for random signs
    b. The largest tau tried is √ℓ sigma (√l + √m), the spectral norm of a face of noise, where MᴴM = ℓ I.
    """
    edge = star.scale**0.5 * sigma * sum(side**0.5 for side in T.shape[-2:])
    signs = np.random.default_rng(seed).choice(np.array([-1, 1], dtype=T.dtype), T.shape)
    probe = ct.to_device(signs)
    best, least = T, math.inf
    for tau in edge * np.geomspace(0.3, 1, taus):
        tau = float(tau)
        Z, change = ct.jvp(lambda T, tau=tau: star.singular_value_threshold(T, tau), (T,), (probe,))
        risk = float(ct.sum((Z - T) ** 2) + 2 * sigma**2 * ct.sum(probe * change))
        if risk < least:
            best, least = Z, risk
    return best


def by_robust_pca(star: algebra.StarAlgebra, T: Any, factor: float, preset: Preset) -> Any:
    """The part of low rank, with `factor` times the weight of the theory."""
    weight = factor / (max(T.shape[-2:]) * star.scale) ** 0.5
    options = {"tolerance": preset.tolerance, "max_iterations": preset.max_iterations}
    return solve(lowrank.robust_pca, star, T, weight=weight, **options).low_rank


def median(Y: np.ndarray) -> np.ndarray:
    """Of each band, the median of 3 x 3 pixels."""
    padded = np.pad(Y, ((0, 0), (1, 1), (1, 1)), mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2)), axis=(-2, -1))


def denoise(X: np.ndarray, args: argparse.Namespace, preset: Preset, seed: int) -> list[Outcome]:
    """The two damages, and every method against its own."""
    outcomes = []
    for damage, Y, methods in (
        (GAUSSIAN, noisy(X, seed), ("energy", "SVT")),
        (STRIPES, striped(X, seed)[0], tuple(WEIGHTS)),
    ):
        sigma = estimated_sigma(Y)
        print(f"{damage}: sigma {sigma:.4f} is estimated")
        common: dict[str, Any] = {"damage": damage, "seed": seed, "view": "", "algebra": ""}
        outcomes.append(measured(X, Y, time.perf_counter(), method=DAMAGED, **common))
        if damage == STRIPES:
            now = time.perf_counter()
            outcomes.append(measured(X, median(Y), now, method=MEDIAN, **common))
        for view, names in [("matrix", [""]), *((view, args.denoise) for view in args.tubes)]:
            T = as_tensor(view, ct.to_device(Y), args.block)
            for name in names:
                star = algebra_for(name, T, seed)[0] if name else algebra.plain()
                common |= {"view": view, "algebra": name}
                for method in methods:
                    now = time.perf_counter()
                    match method:
                        case "energy":
                            low = by_energy(star, T, sigma)
                        case "SVT":
                            low = by_threshold(star, T, sigma, preset.taus, seed)
                        case _:
                            low = by_robust_pca(star, T, WEIGHTS[method], preset)
                    found = as_cube(view, low, X.shape, args.block)
                    outcomes.append(measured(X, found, now, method=method, **common))
    return outcomes


# ---------------------------------------------------------------------------------------- tables and pictures


def report_compression(X: np.ndarray, outcomes: list[Outcome], folder: Path) -> None:
    """The table; the curves; the cube beside what the best of each kind makes of it, at a small share."""
    columns = {"method": "", "tensor": "", "algebra": "", "kept": ".3g", "seed": "d", "storage": ",d"}
    table = Table(columns | {"ratio": ".1f", "error": ".4f", "psnr": ".2f", "angle": ".2f", "seconds": ".2f"})
    for o in outcomes:
        table.row(
            method=o.method,
            tensor=o.view,
            algebra=o.algebra,
            kept=100 * o.share,
            seed=o.seed,
            storage=o.storage,
            ratio=X.size / o.storage,
            error=o.error,
            psnr=o.psnr,
            angle=o.angle,
            seconds=o.seconds,
        )
    table.write_csv(folder / "compression.csv")
    first = [o for o in outcomes if o.seed == outcomes[0].seed]
    shares = sorted({o.share for o in first})
    wide = Table({"method": "", "tensor": "", "algebra": ""} | {f"error_{100 * s:g}": ".4f" for s in shares})
    for name in dict.fromkeys(o.name for o in first):
        same = [o for o in first if o.name == name]
        errors = {f"error_{100 * o.share:g}": o.error for o in same}
        wide.row(method=same[0].method, tensor=same[0].view, algebra=same[0].algebra, **errors)
    print(f"\nrelative errors where so many per cent of the cube are stored\n{wide.text()}\n")
    wide.write_csv(folder / "compression_errors.csv")
    save(lambda: curves(first), folder / "curves.png")
    share = shares[len(shares) // 3]
    drawn = best_of_each([o for o in first if o.share == share])
    save(lambda: compared(X, drawn, f"{100 * share:g} % stored"), folder / "compression.png")


def report_denoising(X: np.ndarray, outcomes: list[Outcome], folder: Path) -> None:
    """The table; each damage, and what the best of each kind makes of it."""
    table = Table(
        {"damage": "", "method": "", "tensor": "", "algebra": "", "seed": "d"}
        | {"psnr": ".2f", "angle": ".2f", "error": ".4f", "seconds": ".1f"}
    )
    for o in outcomes:
        table.row(
            damage=o.damage,
            method=o.method,
            tensor=o.view,
            algebra=o.algebra,
            seed=o.seed,
            psnr=o.psnr,
            angle=o.angle,
            error=o.error,
            seconds=o.seconds,
        )
    print(f"\n{table.text()}\n")
    table.write_csv(folder / "denoising.csv")
    seed = outcomes[0].seed
    first = [o for o in outcomes if o.seed == seed]
    drawn = best_of_each([o for o in first if o.damage == GAUSSIAN])
    save(lambda: compared(X, drawn, "false colours"), folder / "noise.png")
    dead = np.all(striped(X, seed)[1], axis=1).sum(axis=-1) > 0
    dead[0] = False
    bright = np.argmax(dead * X.mean(axis=(1, 2)))  # of the bands with stripes
    cleaned = best_of_each([o for o in first if o.damage == STRIPES])
    save(lambda: compared(X, cleaned, f"band {bright}", int(bright)), folder / "stripes.png")


def best_of_each(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Of each view the one with the least error, and those that need none."""
    best: dict[str, Outcome] = {}
    for o in outcomes:
        kind = o.view or o.method
        if kind not in best or o.error < best[kind].error:
            best[kind] = o
    return list(best.values())


def compared(X: np.ndarray, outcomes: Sequence[Outcome], title: str, band: int = 0) -> Any:
    """The cube and what the methods make of it, in one band or (0) in false colours, above errors in a band."""
    shown = band or len(X) // 4
    errors = {o.name: o.cube[shown] - X[shown] for o in outcomes}
    typical = np.exp(np.mean([np.log(np.quantile(abs(error), 0.98) + 1e-9) for error in errors.values()]))
    gain = 2.0 ** np.floor(np.log2(0.5 / typical))
    image = false_colour if not band else lambda Y, X: in_grey(Y[shown], X[shown])
    above, below = {"the cube": image(X, X)}, {}
    below["all of it" if band else f"band {shown}"] = (
        false_colour(X, X) if band else in_grey(X[shown], X[shown])
    )
    for k, o in enumerate(outcomes):
        above[f"{_two_lines(o)}\n{o.psnr:.1f} dB, {o.angle:.2f}°"] = image(o.cube, X)
        below[f"error {100 * o.error:.2f} %" + " " * k] = 0.5 + gain * errors[o.name]  # titles are keys
    return gallery([above, below], [title, f"errors in band {shown}, × {gain:g}"], width=2.1)


def _two_lines(o: Outcome) -> str:
    return f"{o.method}\n{', '.join(filter(None, (o.view, o.algebra)))}"


def false_colour(Y: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Near infrared, red and green (of 0.4 to 2.5 micrometres) as red, green and blue, (rows, columns, 3)."""
    chosen = [round(share * (len(X) - 1)) for share in (0.24, 0.13, 0.08)]
    return np.stack([in_grey(Y[k], X[k]) for k in chosen], axis=-1)


def in_grey(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The image with 0 and 1 at the darkest and the brightest per cent of another."""
    low, high = np.quantile(like, (0.01, 0.99))
    return (image - low) / max(high - low, 1e-12)


def curves(outcomes: Sequence[Outcome]) -> Any:
    """Error against storage, a panel for each view and a line for each algebra, the baselines in each."""
    from matplotlib.figure import Figure

    views = list(dict.fromkeys(o.view for o in outcomes if o.view not in ("", "matrix")))
    names = list(dict.fromkeys(o.algebra for o in outcomes if o.algebra))
    figure = Figure(figsize=(2.2 + 3.1 * len(views), 3.7), dpi=130, layout="constrained")
    axes = figure.subplots(1, len(views), sharey=True, squeeze=False)[0]
    for view, ax in zip(views, axes, strict=True):
        for method, kind, style in ((MATRIX, "matrix", "k--"), (TUCKER, "", "k-.")):
            label = f"{method}, {kind}" if kind else method
            ax.loglog(*_curve(outcomes, method, kind, ""), style, linewidth=1.2, label=label)
        for colour, name in enumerate(names):
            for method, style in (("t-SVDMII", "o-"), ("t-SVDM", ":")):
                xs, ys = _curve(outcomes, method, view, name)
                label = f"t-SVDMII, {name}" if method == "t-SVDMII" else None
                if xs:
                    ax.loglog(xs, ys, style, color=f"C{colour}", label=label, linewidth=1.4, markersize=3.5)
        ax.set(title=f"tubes: {view}", xlabel="share of the cube that is stored, %")
        ax.grid(True, which="both", color="#e8edf0", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        shares = sorted({100 * o.share for o in outcomes})
        ax.set_xticks(shares, [f"{share:g}" for share in shares])
        errors = [
            e
            for e in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
            if e > 0.8 * min(o.error for o in outcomes)
        ]
        ax.set_yticks(errors, [f"{100 * error:g}" for error in errors])
        ax.minorticks_off()
    axes[0].set_ylabel("relative error, % (dotted: t-SVDM)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    return figure


def _curve(outcomes: Sequence[Outcome], method: str, view: str, name: str) -> tuple[list[float], list[float]]:
    found = [o for o in outcomes if (o.method, o.view, o.algebra) == (method, view, name)]
    return [100 * o.share for o in found], [o.error for o in found]


# ------------------------------------------------------------------------------------------------------ main


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    folder = prepare(args)
    preset = PRESETS[args.preset]
    X = cube_of(args, preset)
    source = args.path or "made here, since no --cube and no --root is named"
    print(f"{X.shape[0]} bands of {X.shape[1]} x {X.shape[2]} pixels, {source}; on {ct.get_device()}")
    if "compression" in args.parts:
        report_compression(X, [o for seed in args.seeds for o in compress(X, args, preset, seed)], folder)
    if "denoising" in args.parts:
        report_denoising(X, [o for seed in args.seeds for o in denoise(X, args, preset, seed)], folder)
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__, PRESETS, "quick", "hyperspectral", training=False)
    options.set_defaults(algebra=["dct", "dft", "haar", "data", "identity"])
    add = options.add_argument
    add("--cube", help="a cube (rows, columns, bands), .npy")
    add("--root", help=f"folder of the data sets: the cube is ROOT/{JASPER_RIDGE}; data, where it is there")
    add("--parts", nargs="+", default=list(PARTS), choices=PARTS, help="what to do")
    add(
        "--tubes", nargs="+", default=["bands", "rows", "blocks"], choices=VIEWS, help="what runs along tubes"
    )
    add("--block", type=whole(1, "a positive number of pixels"), default=2, help="side of a block")
    add("--denoise", nargs="+", default=["data"], choices=ALGEBRAS, help="choices of M to denoise with")
    args = options.parse_args(argv)
    usual = Path(args.root or "data") / JASPER_RIDGE
    args.path = Path(args.cube) if args.cube else usual if args.root or usual.is_file() else None
    args.data = "made" if args.path is None else args.path.stem if args.cube else "jasper-ridge"
    return args


if __name__ == "__main__":
    sys.exit(main())
