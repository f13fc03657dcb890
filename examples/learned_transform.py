"""What a learned M gains over the DCT, M = I, an M from the data and a random one, at equal parameters.

On what was not trained on: the accuracy of a t-linear network whose M is one more parameter, and the error of
low-rank approximations with the M that variable projection finds (Newman, Keegan 2024). An orthogonal M has
n (n - 1) / 2 numbers of its own, stated beside the parameters that every row has; "data" and "random" have as many.

    python examples/learned_transform.py                                            # digits of scikit-learn
    python examples/learned_transform.py --cases mnist cifar10 cube --root data --preset paper --seeds 42 43 44

The cases:

* digits, mnist: a t-linear layer with tanh, then a dense head or a tubal one, by AdamW with a cosine schedule;
  "learned" starts from the DCT. Tested at the epoch of the best validation.
* cifar10: images (n = 32, 96 rows: channels below each other) by the leading slices of the training images' t-SVDM
  or t-SVDMII: relative error on the test images, codes of equal length.
* cube: a hyperspectral image, its spectra as tubes. M from one half of the image, truncation of the other half at
  equal storage; the seed says which half (left, upper, right, lower). Any cube (rows, columns, bands) as .npy:
  --cube FILE; the default is Jasper Ridge under --root.

Presets: `quick`, `paper` (more images, epochs and steps).
"""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _experiment import (
    JASPER_RIDGE,
    Table,
    algebra_named,
    load_cube,
    main_guard,
    parser,
    prepare,
    refusing,
    run_folder,
    run_or_resume,
    save,
    seconds_per_epoch,
)

import cutnn as ct
from cutnn import algebra, data, nn, optim, train

CASES = ("digits", "mnist", "cifar10", "cube")


@dataclass(frozen=True)
class Preset:
    epochs: int  # of the networks
    learning_rate: float
    batch_size: int
    images: int  # of CIFAR-10, to learn M and the leading slices from; as many are tested
    iterations: int  # of the descent, at most


PRESETS = {
    "quick": Preset(epochs=3, learning_rate=1e-2, batch_size=64, images=500, iterations=10),
    "paper": Preset(epochs=10, learning_rate=1e-2, batch_size=64, images=2_000, iterations=60),
}


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    folder = prepare(args)
    preset = PRESETS[args.preset]
    with refusing():
        loaded = {case: _load(case, args) for case in args.cases}
    networks = Table(
        {"case": "", "network": "", "transform": "", "seed": "d", "parameters": ",d", "numbers_of_M": ",d"}
        | dict.fromkeys(("train", "validation", "test", "seconds_per_epoch"), ".2f")
    )
    low_rank = Table(
        {"case": "", "approximation": "", "transform": "", "seed": "d", "stored": ",d", "numbers_of_M": ",d"}
        | dict.fromkeys(("train", "test"), ".3f")
    )
    matrices: dict[str, Any] = {}
    for case, dataset in loaded.items():
        for seed in args.seeds:
            if case in ("digits", "mnist"):
                classify(case, dataset, args, preset, seed, folder, networks, matrices)
            else:
                halves = _images(dataset, preset, seed) if case == "cifar10" else _halves(dataset, seed)
                compress(case, *halves, args, preset, seed, low_rank, matrices)
    if networks.rows:
        print(f"\naccuracies in per cent\n{networks.text()}")
        networks.write_csv(folder / "networks.csv")
    if low_rank.rows:
        print(f"\nrelative errors in per cent\n{low_rank.text()}")
        low_rank.write_csv(folder / "low_rank.csv")
    save(lambda: picture(networks, low_rank, matrices), folder / "learned.png")
    return 0


# -------------------------------------------------------------------------------------------------- networks


def build(
    network: str, transform: str, dataset: data.Dataset, seed: int
) -> tuple[nn.Module, Any, algebra.StarAlgebra]:
    """A network over a fixed or a learned M, its loss, and the algebra that it starts with."""
    n, classes = dataset.train.images.shape[-1], len(dataset.classes)
    rows = dataset.train.images.shape[-2]
    star = algebra_named("dct" if transform == "learned" else transform, n, dataset.train, seed)
    rng = np.random.default_rng(seed)
    layer = nn.TLinear(star, rows, rows, activation=ct.tanh, seed=rng)
    head: tuple[Any, ...]
    if network == "dense head":
        head = (nn.Unfold(), nn.Dense(n * rows, classes, seed=rng))
    else:
        head = (nn.TLinear(star, rows, classes, seed=rng),)
    tubal = network == "tubal head"
    model: nn.Module = nn.Sequential(layer, *head)
    if transform == "learned":
        model = nn.Learned(model, star, faces=tubal)  # of whose faces the loss is that over M = I
    over = algebra.identity(n) if transform == "learned" else star
    return model, nn.TubalCrossEntropy(over, form="likelihood") if tubal else nn.CrossEntropy(), star


def classify(
    case: str, dataset: data.Dataset, args: Any, preset: Preset, seed: int, folder: Path, table: Table,
    matrices: dict[str, Any],
) -> None:  # fmt: skip
    """Both networks over every transform, a row each."""
    epochs = args.epochs or preset.epochs
    for network, transform in itertools.product(("dense head", "tubal head"), [*args.algebra, "learned"]):
        model, loss, star = build(network, transform, dataset, seed)
        steps = epochs * -(-len(dataset.train) // preset.batch_size)
        result = run_or_resume(
            model,
            loss,
            dataset,
            optimizer=optim.AdamW(model, lr=optim.cosine(preset.learning_rate, steps), weight_decay=1e-4),
            folder=run_folder(folder, f"{case}, {network}, {transform}", seed),
            epochs=epochs,
            batch_size=preset.batch_size,
            seed=seed,
        )
        own = star.n * (star.n - 1) // 2 if transform in ("learned", "data", "random") else 0
        learned = sum(M.size for M in result.model.M) if transform == "learned" else 0
        splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
        reached = {name: 100 * _accuracy(result.model, loss, split) for name, split in splits.items()}
        table.row(
            case=case,
            network=network,
            transform=transform,
            seed=seed,
            parameters=nn.count_parameters(model) - learned,
            numbers_of_M=own,
            seconds_per_epoch=seconds_per_epoch(result),
            **reached,
        )
        if transform == "learned":
            matrices.setdefault(f"{case}, {network}", ct.to_host(result.model.M[0]))
        print(f"{case}, {network}, {transform}, seed {seed}: test {reached['test']:.2f} %", flush=True)


# --------------------------------------------------------------------------------------------- approximations


def compress(
    case: str, training: Any, testing: Any, args: Any, preset: Preset, seed: int, table: Table,
    matrices: dict[str, Any],
) -> None:  # fmt: skip
    """Truncations by rank and by the largest triplets of all faces, over every transform, a row each."""
    n, rows, columns = training.shape
    rank = max(min(rows, columns) // 10, 1)
    count = n * rank if case == "cifar10" else max(n * rank // 5, 1)
    for approximation, transform in itertools.product(("t-SVDM", "t-SVDMII"), [*args.algebra, "learned"]):
        choice = {"rank": rank} if approximation == "t-SVDM" else {"count": count}
        if transform == "learned":
            star = _learned(training, choice, args.algebra, preset, seed)
            matrices.setdefault(f"{case}, {approximation}", star.transforms[0].matrix())
        else:
            star = algebra_named(transform, n, _AsSplit(training), seed)
        reduce = (
            _by_leading_slices(star, training, choice) if case == "cifar10" else _truncation(star, choice)
        )
        errors = [100 * float(star.norm(T - reduce(T)) / star.norm(T)) for T in (training, testing)]
        table.row(
            case=case,
            approximation=approximation,
            transform=transform,
            seed=seed,
            stored=(n * rank if approximation == "t-SVDM" else count)
            * (rows if case == "cifar10" else sum(testing.shape[-2:])),
            numbers_of_M=n * (n - 1) // 2 if transform in ("learned", "data", "random") else 0,
            train=errors[0],
            test=errors[1],
        )
        print(f"{case}, {approximation}, {transform}, seed {seed}: test error {errors[1]:.3f} %", flush=True)


def _learned(
    training: Any, choice: dict[str, int], fixed: Sequence[str], preset: Preset, seed: int
) -> algebra.StarAlgebra:
    """The M that loses least of the training data, from the better of the DCT and the data's own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "minimize")  # a bounded number of steps, not a minimum
        fit = algebra.learned.fit_low_rank(
            training, starts=["dct", "data"], seed=seed, iterations=preset.iterations, **choice
        )
    before, after = (100 * fit.minimum.history[k].value ** 0.5 for k in (0, -1))
    print(
        f"  learned in {len(fit.minimum.history) - 1} steps: error {before:.3f} % to {after:.3f} % in training, "
        f"gradient norm {fit.minimum.gradient_norm:.1e}"
    )
    return fit.star


def _truncation(star: algebra.StarAlgebra, choice: dict[str, int]) -> Callable[[Any], Any]:
    """The best approximation of a tensor at this rank or count of triplets, by its own factors."""

    def reduce(T: Any) -> Any:
        U, S, Vh = star.svd(T, **choice) if "rank" in choice else star.svd_energy(T, **choice)[:3]
        return star(U, star.diagonal(S), Vh)

    return reduce


def _by_leading_slices(
    star: algebra.StarAlgebra, training: Any, choice: dict[str, int]
) -> Callable[[Any], Any]:
    """The projection on the leading slices of the training images."""
    return (nn.t_svdm if "rank" in choice else nn.t_svdmii)(star, training, **choice)


# --------------------------------------------------------------------------------------------------- picture


def picture(networks: Table, low_rank: Table, matrices: dict[str, Any]) -> Any:
    """Held-out results, a panel for each case and network or approximation, and the M that was learned below it."""
    from matplotlib.figure import Figure

    panels = [
        (f"{row['case']}, {row[kind]}", table, {"case": row["case"], kind: row[kind]})
        for table, kind in ((networks, "network"), (low_rank, "approximation"))
        for row in table.rows
    ]
    panels = list({title: (title, table, cells) for title, table, cells in panels}.values())
    figure = Figure(figsize=(2.5 * len(panels), 5.4), dpi=110, layout="constrained")
    axes = figure.subplots(2, len(panels), squeeze=False, height_ratios=[1, 1.1])
    for (title, table, cells), ax, below in zip(panels, *axes, strict=True):
        names = list(dict.fromkeys(row["transform"] for row in table.rows))
        for y, name in enumerate(names):
            values = table.column("test", **cells, transform=name)
            colour = "#d1495b" if name == "learned" else "#0b6e99"
            ax.plot(values, [y] * len(values), "o", color=colour, alpha=0.5, markersize=5)
            ax.plot(np.mean(values), y, "|", color=colour, markersize=18, markeredgewidth=2)
        ax.set_yticks(range(len(names)), names, fontsize=8)
        ax.invert_yaxis()
        ax.grid(True, axis="x", color="#dfe7ec")
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("test accuracy, %" if table is networks else "relative test error, %", fontsize=8)
        ax.tick_params(labelsize=8)
        M = matrices[title]
        limit = np.abs(M).max()
        below.imshow(M, cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
        below.set_title(f"learned M, {len(M)} × {len(M)}", fontsize=8)
        below.set_xticks([])
        below.set_yticks([])
    return figure


# --------------------------------------------------------------------------------------------------- helpers


class _AsSplit:
    """A tensor in the place of a split, for `algebra_named`."""

    def __init__(self, X: Any) -> None:
        self.X = X

    def __len__(self) -> int:
        return int(self.X.shape[-1])

    def batch(self, indices: Any) -> tuple[Any, None]:
        return self.X, None


def _arguments(argv: Sequence[str] | None) -> Any:
    options = parser(__doc__, PRESETS, "quick", "learned_transform")
    options.add_argument("--cases", nargs="+", default=["digits"], choices=CASES, help="what to run")
    options.add_argument("--root", default="data", help="folder in which the data sets lie")
    options.add_argument(
        "--cube", help=f"a hyperspectral cube (rows, columns, bands), .npy; else ROOT/{JASPER_RIDGE}"
    )
    options.set_defaults(algebra=["dct", "identity", "data", "random"])
    return options.parse_args(argv)


def _load(case: str, args: Any) -> Any:
    if case != "cube":
        dataset = data.load(case, root=args.root)
        return dataset if ct.get_device() == "cpu" else dataset.to_device()
    return load_cube(Path(args.cube or Path(args.root) / JASPER_RIDGE))


def _halves(cube: Any, seed: int) -> tuple[Any, Any]:
    """A half of the cube (bands, rows, columns) to learn from, and the other to test on."""
    axis = 2 - seed % 2
    parts = np.array_split(cube, 2, axis=axis)
    training, testing = parts if seed // 2 % 2 == 0 else parts[::-1]
    return ct.to_device(np.ascontiguousarray(training)), ct.to_device(np.ascontiguousarray(testing))


def _images(dataset: data.Dataset, preset: Preset, seed: int) -> tuple[Any, Any]:
    """Training images drawn by the seed, and the first test images."""
    chosen = np.random.default_rng(seed).permutation(len(dataset.train))[: preset.images]
    return dataset.train.batch(np.sort(chosen))[0], dataset.test.batch(np.arange(preset.images))[0]


def _accuracy(model: Any, loss: Any, split: Any) -> float:
    accuracy: Any = train.evaluate(model, loss, split).accuracy
    return float(accuracy)


if __name__ == "__main__":
    sys.exit(main())
