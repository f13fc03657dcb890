"""Classify handwritten digits with tensor neural networks and with dense ones, under the same settings.

Trains the four networks of Newman et al. (2024), section on MNIST classification: a t-linear layer with a dense
head, one with a tubal head, and two dense networks, one of the same size and one of the same width. Prints one
table, and one of the accuracies by class; writes them, the curves, the accuracies against the parameters, the
features of the first layers and the class tubes of a few test images.

    python examples/mnist_classify.py                                       # digits of scikit-learn, no download
    python examples/mnist_classify.py --data mnist --root data              # the real thing, 20 epochs
    python examples/mnist_classify.py --data mnist --root data --preset deep
    python examples/mnist_classify.py --data mnist --root data --sweep      # against the number of training images
    python examples/mnist_classify.py --algebra dct identity dft haar random data

Presets: `paper` (the authors' initialisation and one fixed order of the batches), `shuffled` (transform-aware
initialisation, a new order each epoch), `better` (the default: that, by AdamW with a cosine schedule), `deep` (a
four-layer t-NN 28→28→28→28→10 with its own settings), `quick` (`better` in 3 epochs). An interrupted run goes on
when the same command is given again.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _experiment import (
    Table,
    algebra_named,
    label,
    load,
    main_guard,
    parser,
    prepare,
    real_form,
    run_folder,
    run_or_resume,
    save,
    seconds_per_epoch,
)

import cutnn as ct
from cutnn import algebra, data, nn, optim, plot, train

# Accuracies in per cent (train, validation, test) that the authors' code reached on MNIST: 20 epochs, seed 42.
REFERENCE = {
    "t-linear + dense head": (96.85, 95.73, 96.25),
    "t-linear + tubal head": (94.22, 93.76, 94.57),
    "matrix, same size": (91.70, 91.32, 91.81),
    "matrix, same width": (89.52, 88.83, 89.50),
}


# Numbers of training images; there are 1,197 digits to train on.
SWEEP = {"digits": (200, 400, 600, 800, 1_000), "mnist": (2_000, 4_000, 6_000, 8_000, 10_000)}


@dataclass(frozen=True)
class Preset:
    """Settings that all networks of a run share."""

    init: nn.initializers.Initializer
    shuffle: bool | str
    epochs: int = 20
    learning_rate: float = 1e-2
    weight_decay: float = 1e-4
    batch_size: int = 32
    cosine_with_decoupled_decay: bool = False
    networks: tuple[str, ...] = tuple(REFERENCE)


_BETTER = Preset(init=nn.initializers.transform_aware, shuffle=True, cosine_with_decoupled_decay=True)
PRESETS = {
    "paper": Preset(init=nn.initializers.authors, shuffle="fixed"),
    "shuffled": Preset(init=nn.initializers.transform_aware, shuffle=True),
    "better": _BETTER,
    "deep": replace(_BETTER, learning_rate=5e-3, weight_decay=1e-1, batch_size=64, networks=("deep t-NN",)),
    "quick": replace(_BETTER, epochs=3),
}


def build(
    name: str, star: algebra.StarAlgebra, classes: int, init: nn.initializers.Initializer, seed: int
) -> tuple[nn.Module, Any]:
    """One of the networks for images of n × n pixels, n that of the algebra, and its loss."""
    n = star.n
    rng = np.random.default_rng(seed)
    pixels = n * n
    common: dict[str, Any] = {"seed": rng, "init": init}
    same_size = round((n**3 + n**2 + classes * n * n + classes * n - classes) / (pixels + 1 + classes))

    def layer() -> nn.TLinear:
        return nn.TLinear(star, n, n, activation=ct.tanh, **common)

    def head() -> nn.TLinear:
        return nn.TLinear(star, n, classes, **common)

    match name:
        case "t-linear + dense head":
            return nn.Sequential(layer(), nn.Unfold(), nn.Dense(pixels, classes, **common)), nn.CrossEntropy()
        case "t-linear + tubal head":
            return nn.Sequential(layer(), head()), nn.TubalCrossEntropy(real_form(star))
        case "deep t-NN":
            loss = nn.TubalCrossEntropy(real_form(star), form="likelihood")
            return nn.Sequential(layer(), layer(), layer(), head()), loss
        case "matrix, same size" | "matrix, same width":
            hidden = same_size if name.endswith("size") else pixels
            first = nn.Dense(pixels, hidden, activation=ct.tanh, **common)
            return nn.Sequential(nn.Unfold(), first, nn.Dense(hidden, classes, **common)), nn.CrossEntropy()
    raise ValueError(f"no network named {name!r}")


@dataclass
class Outcome:
    """One trained network: its loss, its size, its accuracies in per cent, also by class of the test images."""

    network: str
    seed: int
    images: int
    parameters: int
    accuracy: tuple[float, ...]
    by_class: list[float]
    loss: Any
    result: train.FitResult


def run(
    name: str,
    star: algebra.StarAlgebra,
    dataset: data.Dataset,
    preset: Preset,
    seed: int,
    folder: Path,
) -> Outcome:
    """Train one network, or go on with it, and measure it at the epoch of its best validation accuracy."""
    model, loss = build(name, star, len(dataset.classes), preset.init, seed)
    batches = -(-len(dataset.train) // preset.batch_size)
    optimizer: optim.Optimizer
    if preset.cosine_with_decoupled_decay:
        lr = optim.cosine(preset.learning_rate, preset.epochs * batches)
        optimizer = optim.AdamW(model, lr=lr, weight_decay=preset.weight_decay)
    else:
        lr = optim.step_decay(preset.learning_rate, every=100 * batches, factor=0.9)
        optimizer = optim.Adam(model, lr=lr, weight_decay=preset.weight_decay)
    result = run_or_resume(
        model,
        loss,
        dataset,
        optimizer=optimizer,
        folder=folder,
        epochs=preset.epochs,
        batch_size=preset.batch_size,
        shuffle=preset.shuffle,
        seed=seed,
    )
    splits = (dataset.train, dataset.validation, dataset.test)
    accuracy = tuple(_per_cent_right(result.model, loss, split) for split in splits)
    by_class = [
        _per_cent_right(result.model, loss, _only(dataset.test, c)) for c in range(len(dataset.classes))
    ]
    parameters = nn.count_parameters(model)
    return Outcome(name, seed, len(dataset.train), parameters, accuracy, by_class, loss, result)


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    folder = prepare(args)
    dataset = load(args)
    preset = PRESETS[args.preset]
    preset = replace(preset, networks=tuple(args.networks or preset.networks))
    preset = replace(preset, epochs=args.epochs or preset.epochs * (2 if args.data == "digits" else 1))
    sizes = SWEEP.get(args.data, SWEEP["mnist"]) if args.sweep else (len(dataset.train),)
    print(
        f"{args.data}: {len(dataset.train):,} training, {len(dataset.validation):,} validation, "
        f"{len(dataset.test):,} test images; preset {args.preset}, {preset.epochs} epochs, seeds {args.seeds}, "
        f"on {ct.get_device()}"
    )
    outcomes = []
    for size, seed, (network, chosen) in itertools.product(sizes, args.seeds, _rows(preset, args.algebra)):
        part = replace(dataset, train=_first(dataset.train, size))
        star = algebra_named(chosen, dataset.train.images.shape[-1], part.train)
        name = label(network, chosen) + (f", {size} images" if args.sweep else "")
        outcome = run(network, star, part, preset, seed, run_folder(folder, name, seed))
        outcome.network = label(network, chosen)
        outcomes.append(outcome)
        print(
            f"{name}, seed {seed}: test {outcome.accuracy[2]:.2f} %, "
            f"{seconds_per_epoch(outcome.result):.2f} s/epoch"
        )
    report = report_of_sweep if args.sweep else report_of_networks
    report(outcomes, dataset, folder)
    return 0


# ---------------------------------------------------------------------------------------- tables and pictures


def report_of_networks(outcomes: list[Outcome], dataset: data.Dataset, folder: Path) -> None:
    """Accuracies beside the reference, accuracies by class, and pictures of the runs of the first seed."""
    table = Table(
        {"network": "", "seed": "d", "parameters": ",d", "train": ".2f", "validation": ".2f", "test": ".2f"}
        | ({"reference_test": ".2f"} if dataset.name == "mnist" else {})
        | {"seconds_per_epoch": ".2f"}
    )
    for o in outcomes:
        reference = (
            {"reference_test": REFERENCE.get(o.network, (None,))[-1]} if dataset.name == "mnist" else {}
        )
        table.row(**_cells(o), seconds_per_epoch=seconds_per_epoch(o.result), **reference)
    by_class = Table({"network": "", "seed": "d"} | dict.fromkeys(dataset.classes, ".1f"))
    for o in outcomes:
        by_class.row(network=o.network, seed=o.seed, **dict(zip(dataset.classes, o.by_class, strict=True)))
    print(f"\naccuracies in per cent{_over_seeds(outcomes)}\n{table.text()}")
    print(f"\ntest accuracies in per cent by class\n{by_class.text()}\n")
    table.write_csv(folder / "table.csv")
    by_class.write_csv(folder / "by_class.csv")

    first = {o.network: o for o in outcomes if o.seed == outcomes[0].seed}
    histories = {name: o.result.history for name, o in first.items() if len(o.result.history)}
    sizes = {name: (o.parameters, o.accuracy[2]) for name, o in first.items()}
    means = {name: np.mean([o.by_class for o in outcomes if o.network == name], axis=0) for name in first}
    digits = {name: (dataset.classes, mean) for name, mean in means.items()}
    save(lambda: plot.curves(histories), folder / "curves.png")
    save(lambda: plot.accuracy_against_parameters(sizes), folder / "accuracy.png")
    save(lambda: _lines(digits, "class", "test accuracy, %"), folder / "by_class.png")
    save(lambda: features(list(first.values()), dataset), folder / "features.png")
    for o in first.values():
        if isinstance(o.loss, nn.TubalCrossEntropy):
            save(lambda o=o: class_tubes(o, dataset), folder / "class_tubes.png")  # type: ignore[misc]
            break


def report_of_sweep(outcomes: list[Outcome], dataset: data.Dataset, folder: Path) -> None:
    """Accuracies against the number of training images."""
    columns = {"network": "", "images": ",d", "seed": "d", "parameters": ",d"}
    table = Table(columns | dict.fromkeys(("train", "validation", "test"), ".2f"))
    for o in sorted(outcomes, key=lambda o: [p.network for p in outcomes].index(o.network)):
        table.row(**_cells(o), images=o.images)
    print(f"\naccuracies in per cent{_over_seeds(outcomes)}, by training images\n{table.text()}\n")
    table.write_csv(folder / "sweep.csv")
    sizes = sorted({o.images for o in outcomes})
    lines = {
        name: (sizes, [np.mean(table.column("test", network=name, images=size)) for size in sizes])
        for name in dict.fromkeys(o.network for o in outcomes)
    }
    save(lambda: _lines(lines, "training images", "test accuracy, %"), folder / "sweep.png")


def features(outcomes: list[Outcome], dataset: data.Dataset, count: int = 6) -> Any:
    """Test images, and below them what the first layer of each network makes of them.

    A lateral slice of a t-linear layer's output is a picture again: a row a feature, along it the feature's tube.
    A dense layer's output is drawn as one where it has as many entries as an image has pixels.
    """
    X, _ = dataset.test.batch(np.arange(count))
    n = X.shape[0]
    pictures = [2 * (X - X.min()) / (X.max() - X.min()) - 1]
    names = ["test image"]
    for o in outcomes:
        layers = list(o.result.model)
        hidden = layers[0](X) if isinstance(layers[0], nn.TLinear) else layers[1](layers[0](X))
        if hidden.size == X.size:
            pictures.append(ct.reshape(hidden, (n, -1, count)))
            names.append(o.network)
    grid = np.concatenate([ct.to_host(picture).transpose(2, 1, 0) for picture in pictures])
    figure = plot.faces(grid, [""] * len(grid), columns=count)
    for name, ax in zip(names, figure.axes[::count], strict=True):
        ax.set_title(name, fontsize=9, loc="left")
    return figure


def class_tubes(outcome: Outcome, dataset: data.Dataset) -> Any:
    """Six test images beside the tubes of their classes."""
    star = outcome.loss.star
    X, labels = dataset.test.batch(np.arange(6))
    Y = outcome.result.model(X)
    return plot.class_tubes(
        dataset.test.images[:6],
        star.forward(nn.tubal_softmax(star, Y)),
        ct.to_host(outcome.loss.predict(Y)),
        dataset.classes,
        ct.to_host(labels),
        title="class tubes of the tubal softmax in the transform domain: each column sums to one; "
        "a frame marks the predicted class",
    )


# --------------------------------------------------------------------------------------------------- helpers


def _arguments(argv: Sequence[str] | None) -> Any:
    options = parser(__doc__, PRESETS, "better", "mnist_classify", ("digits", "mnist", "fashion-mnist"))
    options.add_argument(
        "--sweep", action="store_true", help="accuracy against the number of training images"
    )
    options.add_argument(
        "--networks", nargs="+", choices=[*REFERENCE, "deep t-NN"], help="instead of those of the preset"
    )
    return options.parse_args(argv)


def _rows(preset: Preset, algebras: Sequence[str]) -> list[tuple[str, str]]:
    """Each tensor network over each algebra, the dense ones once."""
    dense = {"matrix, same size", "matrix, same width"}
    return [(name, a) for name in preset.networks for a in (algebras if name not in dense else ["dct"])]


def _per_cent_right(model: nn.Module, loss: Any, split: data.Split) -> float:
    accuracy: Any = train.evaluate(model, loss, split).accuracy
    return 100 * accuracy


def _first(split: data.Split, count: int) -> data.Split:
    """The first images; a split is a random sample already."""
    return replace(split, images=split.images[:count], labels=split.labels[:count])


def _only(split: data.Split, label: int) -> data.Split:
    chosen = split.labels == label
    return replace(split, images=split.images[chosen], labels=split.labels[chosen])


def _cells(o: Outcome) -> dict[str, Any]:
    accuracies = dict(zip(("train", "validation", "test"), o.accuracy, strict=True))
    return {"network": o.network, "seed": o.seed, "parameters": o.parameters, **accuracies}


def _over_seeds(outcomes: list[Outcome]) -> str:
    seeds = sorted({o.seed for o in outcomes})
    return f", mean ± deviation over the seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""


def _lines(lines: Mapping[str, tuple[Sequence[Any], Any]], xlabel: str, ylabel: str) -> Any:
    """One line with marks a network."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4), dpi=110, layout="constrained")
    ax = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    for mark, (name, (x, y)) in zip(itertools.cycle("os^Dv<>P"), lines.items(), strict=False):
        ax.plot(x, y, label=name, marker=mark, linewidth=1.4)
    ax.grid(True, color="#dfe7ec")
    figure.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=2)
    return figure


if __name__ == "__main__":
    sys.exit(main())
