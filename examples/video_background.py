"""Part a colour video into its background and what moves in it, by tensor robust PCA.

The video is made here: a still scene under light that drifts and flickers, a cloud's shadow that wanders over it, three
things that move, and noise. It is a tensor with a row a pixel and a lateral slice a frame, whose tubes are the three
colours of a pixel; `algebra.lowrank.robust_pca` makes it L + E, L of low tubal rank (the background) and E sparse
(what moves): in its entries, or in its tubes, since a thing that moves changes all colours of a pixel. The matrix
baseline is robust PCA of the matrix with a row for each colour of each pixel, over `algebra.plain()`; the simplest one
is the median of all frames. Prints a table, and writes it, a picture of one frame, and the curves of convergence.

    python examples/video_background.py                    # 72 x 96 pixels, 80 frames: a minute or three
    python examples/video_background.py --preset quick     # 36 x 48 pixels, 40 frames: ten seconds
    python examples/video_background.py --algebra dct identity dft random data

A pixel counts as moving where a colour of E is above 0.1 in magnitude, of values from 0 to 1; precision, recall and
F-measure compare that with what was drawn, over all frames. PSNR is that of L against the scene in its light, without
noise.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _experiment import Table, algebra_named, gallery, main_guard, parser, prepare, save, solve

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
MATRIX, MEDIAN = "matrix robust PCA", "median of the frames"
THRESHOLD = 0.1


@dataclass(frozen=True)
class Preset:
    """The size of the video, and when iterations end."""

    rows: int
    columns: int
    frames: int
    tolerance: float = 5e-4
    max_iterations: int = 300


PRESETS = {"full": Preset(144, 192, 120), "better": Preset(72, 96, 80), "quick": Preset(36, 48, 40)}


# ------------------------------------------------------------------------------------------------- the video


@dataclass(frozen=True)
class Video:
    """Frames (3, H, W, frames), the background without noise, and where something moves, (H, W, frames)."""

    frames: np.ndarray
    background: np.ndarray
    moving: np.ndarray


def made(rows: int, columns: int, frames: int, seed: int, noise: float = 0.03) -> Video:
    """A wall with windows above a street; before it a car, a walker and a ball."""
    rng = np.random.default_rng(seed)
    y = np.linspace(0, 1, rows)[:, None, None]
    x = np.linspace(0, columns / rows, columns)[None, :, None]
    t = np.linspace(0, 1, frames)
    grain = rng.standard_normal((rows, columns, 1))

    def colour(*rgb: float) -> np.ndarray:
        return np.reshape(rgb, (3, 1, 1, 1))

    scene = colour(0.75, 0.55, 0.42) * (1 + 0.12 * np.sign(np.sin(60 * y)) * (y < 0.7) + 0.05 * grain)
    windows = (abs((x * 4) % 1 - 0.5) < 0.25) & (abs((y * 4) % 1 - 0.5) < 0.3) & (y < 0.65)
    scene = np.where(windows, colour(0.3, 0.4, 0.5) * (0.8 + 0.3 * x + 0.2 * y), scene)
    scene = np.where(
        y > 0.72, colour(0.45, 0.45, 0.47) * (1 + 0.1 * np.cos(40 * x + 9 * y) + 0.06 * grain), scene
    )
    light = 1 + colour(0.15, 0.2, 0.25) * np.sin(2 * np.pi * t) + 0.04 * rng.standard_normal(frames)
    shadow = 0.3 * np.exp(-(((x + 0.3 * y - 1.6 * t) / 0.5) ** 2))
    background = np.clip(scene * light * (1 - shadow), 0, 1)
    picture, moving = background.copy(), np.zeros(background.shape[1:], dtype=bool)
    walk = 1.25 - 1.1 * t
    for where, paint in (
        ((abs(x + 0.2 - 1.7 * t) < 0.13) & (abs(y - 0.85) < 0.06), colour(0.7, 0.2, 0.25)),  # a car
        ((abs(x - walk) < 0.025 * (1.4 + np.sin(60 * t))) & (abs(y - 0.76) < 0.12), colour(0.2, 0.45, 0.35)),
        ((x - walk) ** 2 + (y - 0.61) ** 2 < 0.0014, colour(0.85, 0.65, 0.5)),  # the head of the walker
        (
            (x - 0.2 - 0.9 * t) ** 2 + (y - 0.55 + 0.4 * abs(np.sin(9 * t))) ** 2 < 0.003,
            colour(0.9, 0.8, 0.2),
        ),
    ):
        picture, moving = np.where(where, paint, picture), moving | where
    return Video(picture + noise * rng.standard_normal(picture.shape), background, moving)


# --------------------------------------------------------------------------------------------- the separation


@dataclass
class Outcome:
    """What one method made of the video, and how well."""

    name: str
    seed: int
    background: np.ndarray = field(repr=False)
    found: np.ndarray = field(repr=False)
    psnr: float
    precision: float
    recall: float
    seconds: float
    rank: int | None = None
    history: Any = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.name}: F {self.f_measure:.3f}, background {self.psnr:.1f} dB, {self.seconds:.1f} s"

    @property
    def f_measure(self) -> float:
        return 2 * self.precision * self.recall / max(self.precision + self.recall, 1e-12)


def separate(
    name: str, star: algebra.StarAlgebra, video: Video, seed: int, preset: Preset, sparse: Any = "entries"
) -> Outcome:
    """Robust PCA of the frames as a tensor (3, H W, frames); over `plain()` as a matrix (3 H W, frames)."""
    lead = (3, -1) if star.shape else (-1,)
    X = ct.to_device(video.frames.reshape(*lead, video.frames.shape[-1]))
    began = time.perf_counter()
    options = {"tolerance": preset.tolerance, "max_iterations": preset.max_iterations}
    result = solve(lowrank.robust_pca, star, X, sparse=sparse, **options)
    L, E = (ct.to_host(T).reshape(video.frames.shape) for T in (result.low_rank, result.sparse))
    seconds = time.perf_counter() - began
    rank = int(result.history["tubal_rank"][-1])
    return _measured(name, seed, video, L, E, seconds, rank=rank, history=result.history)


def median(video: Video, seed: int) -> Outcome:
    """The median of each pixel over all frames, and what is far from it."""
    began = time.perf_counter()
    L = np.broadcast_to(np.median(video.frames, axis=-1, keepdims=True), video.frames.shape)
    return _measured(MEDIAN, seed, video, L, video.frames - L, time.perf_counter() - began)


def _measured(name: str, seed: int, video: Video, L: Any, E: Any, seconds: float, **more: Any) -> Outcome:
    found = np.max(abs(E), axis=0) > THRESHOLD
    hits = np.sum(found & video.moving)
    psnr = -10 * np.log10(np.mean((L - video.background) ** 2))
    precision, recall = hits / max(found.sum(), 1), hits / video.moving.sum()
    return Outcome(name, seed, L, found, float(psnr), float(precision), float(recall), seconds, **more)


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__, PRESETS, "better", "video_background", training=False)
    options.set_defaults(algebra=["dct", "dft", "data"])
    args = options.parse_args(argv)
    folder = prepare(args)
    preset = PRESETS[args.preset]
    size = (preset.rows, preset.columns, preset.frames)
    print(f"{size[2]} frames of {size[0]} x {size[1]} pixels, seeds {args.seeds}, on {ct.get_device()}")
    outcomes = []
    for seed in args.seeds:
        video = made(*size, seed)
        stars = {name: algebra_named(name, 3, seed=seed) for name in args.algebra if name != "data"}
        if "data" in args.algebra:
            stars["data"] = algebra.from_data(video.frames.reshape(3, -1, preset.frames))
        for name, star in stars.items():
            for sparse in ("entries", "tubes"):
                method = f"{NAMES[name]}, sparse {sparse}"
                outcomes.append(separate(method, star, video, seed, preset, sparse))
                print(outcomes[-1])
        for outcome in (separate(MATRIX, algebra.plain(), video, seed, preset), median(video, seed)):
            outcomes.append(outcome)
            print(outcome)
    report(outcomes, made(*size, outcomes[0].seed), folder)
    return 0


# ---------------------------------------------------------------------------------------- table and pictures


def report(outcomes: list[Outcome], video: Video, folder: Path) -> None:
    """The numbers; of the first seed one frame, as some methods part it, and the residuals."""
    numbers = dict.fromkeys(("precision", "recall", "F_measure"), ".3f")
    columns = {"method": "", "seed": "d"} | numbers | {"background_psnr": ".1f", "rank": ".0f"}
    table = Table(columns | {"iterations": ".0f", "seconds": ".1f"})
    for o in outcomes:
        table.row(
            method=o.name,
            seed=o.seed,
            precision=o.precision,
            recall=o.recall,
            F_measure=o.f_measure,
            background_psnr=o.psnr,
            rank=o.rank,
            iterations=None if o.history is None else len(o.history),
            seconds=o.seconds,
        )
    print(f"\n{table.text()}\n")
    table.write_csv(folder / "table.csv")
    first = [o for o in outcomes if o.seed == outcomes[0].seed]
    best = max(first, key=lambda o: o.f_measure)
    drawn = {o.name: o for o in (*first[:2], best, *first[-2:])}
    save(
        lambda: frame_parted(video, [*drawn.values()], video.frames.shape[-1] * 2 // 5), folder / "frame.png"
    )
    save(lambda: curves(first), folder / "residuals.png")


def frame_parted(video: Video, outcomes: Sequence[Outcome], k: int) -> Any:
    """Frame k above, with its true parts; below, what each method makes of it."""
    frame, background = (np.moveaxis(T[..., k], 0, -1) for T in (video.frames, video.background))
    moving = video.moving[..., k]
    rows = [{f"frame {k}": frame, "background as drawn": background, "what moves": _judged(moving, moving)}]
    for o in outcomes:
        L, found = np.moveaxis(o.background[..., k], 0, -1), o.found[..., k]
        rows.append(
            {
                f"background: {o.psnr:.1f} dB": L,
                "its error, five times": 0.5 + 5 * (L - background),
                f"|E| > {THRESHOLD}: F {o.f_measure:.3f}": _judged(found, moving),
            }
        )
    return gallery(rows, ["as it was made", *(o.name for o in outcomes)], width=2.6)


def _judged(found: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """White where it was found rightly, red where wrongly, blue where it was missed."""
    colours = np.zeros((*found.shape, 3))
    colours[found & moving] = (1, 1, 1)
    colours[found & ~moving] = (0.85, 0.25, 0.3)
    colours[~found & moving] = (0.2, 0.5, 1)
    return colours


def curves(outcomes: Sequence[Outcome]) -> Any:
    """The larger relative residual of each iteration."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), dpi=130, layout="constrained")
    ax = figure.add_subplot()
    for o in outcomes:
        if o.history is not None:
            residual = np.maximum(o.history["primal"], o.history["dual"])
            ax.semilogy(o.history["iteration"], residual, label=o.name, linewidth=1.4)
    ax.set(xlabel="iteration", ylabel="larger relative residual")
    ax.legend(frameon=False, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    sys.exit(main())
