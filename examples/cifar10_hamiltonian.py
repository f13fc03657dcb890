"""Classify CIFAR-10 with Hamiltonian networks: t-NNs with a dense or a tubal head, and matrix networks.

The experiment of Newman et al. (2024) on stable networks: leapfrog steps of a Hamiltonian system, of width 96 over
tubes of length 32 or, as a matrix network, of width 3072, and a linear head. Prints one table beside the reference
numbers, and writes it, the curves, the accuracies against the parameters and against the seconds of training, and
what the trained networks are like as dynamical systems.

    python examples/cifar10_hamiltonian.py --root data --preset quick       # two epochs of two t-NNs
    python examples/cifar10_hamiltonian.py --root data                      # better settings, 10 epochs
    python examples/cifar10_hamiltonian.py --root data --preset paper --epochs 10 --networks dense-4 tubal-4
    python examples/cifar10_hamiltonian.py --root data --preset paper --device cuda    # in full, 500 epochs
    python examples/cifar10_hamiltonian.py --root data --networks dense-8 --refine --reversible

A network is named by its head and its depth: dense-4, tubal-8, matrix-4. Presets: `paper` (the authors' settings),
`unregularized` (the same without the two regularisers), `better` (the default), `quick` (`better`, for two epochs).
`--refine` trains a quarter of the steps first and doubles their number twice, `--reversible` recomputes states
instead of storing them. An interrupted run goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _experiment import (
    Refused,
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
    whole,
)

import cutnn as ct
from cutnn import algebra, data, nn, optim, plot, train

STEP_SIZE = 0.25
CLASSES = 10

# Test accuracies in per cent of the authors' code, as far as it was run, on a lossy copy of the images.
REFERENCE = {"dense-4": "48.2 after 8 epochs", "tubal-4": "48.0 after 6 epochs"}


@dataclass(frozen=True)
class Preset:
    """Settings that all networks of a run share."""

    epochs: int
    networks: tuple[str, ...]
    matrix_epochs: int | None = None
    init: nn.initializers.Initializer = nn.initializers.authors
    shuffle: bool | str = "fixed"
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    cosine: bool = False
    alpha: float = 0.01  # of the smoothness of the steps in time, and of the head's Tikhonov regulariser

    def epochs_of(self, network: str) -> int:
        return self.matrix_epochs or self.epochs if network.startswith("matrix") else self.epochs


_BETTER = Preset(
    epochs=10,
    networks=("dense-4", "tubal-4", "dense-8"),
    init=nn.initializers.transform_aware,
    shuffle=True,
    batch_size=64,
    learning_rate=2e-3,
    weight_decay=0.1,
    cosine=True,
    alpha=0.0,
)
_PAPER = Preset(500, networks=("dense-4", "tubal-4", "dense-8", "tubal-8", "matrix-4", "matrix-8"))
PRESETS = {
    "paper": _PAPER,
    "unregularized": replace(_PAPER, alpha=0.0),
    "better": _BETTER,
    "quick": replace(_BETTER, epochs=2, networks=("dense-4", "tubal-4")),
}


@dataclass(frozen=True)
class Variant:
    """How the steps of a network are run: what does not change the network that is trained in the end."""

    reversible: bool = False
    refined: bool = False

    @property
    def label(self) -> str:
        return ", refined" * self.refined + ", reversible" * self.reversible


def named(network: str) -> str:
    """A network's name in tables."""
    head, depth = network.split("-")
    return f"matrix, depth {depth}" if head == "matrix" else f"t-NN, depth {depth}, {head} head"


def build(
    network: str,
    star: algebra.StarAlgebra,
    classes: int,
    init: nn.initializers.Initializer,
    seed: int,
    variant: Variant = Variant(),
    rows: int = 96,
) -> tuple[nn.Sequential, Any]:
    """One of the networks for tensors (n, rows, N), n that of the algebra, and its loss.

    One to be refined has a quarter of the steps, of four times the size.
    """
    head, depth = network.split("-")
    rng = np.random.default_rng(seed)
    coarser = 4 if variant.refined else 1
    settings: dict[str, Any] = {"depth": int(depth) // coarser, "h": STEP_SIZE * coarser}
    settings |= {"reversible": variant.reversible, "init": init, "seed": rng}
    pixels = star.n * rows
    match head:
        case "dense":
            body = nn.HamiltonianNet(star, rows, **settings)
            return nn.Sequential(
                body, nn.Unfold(), nn.Dense(pixels, classes, init=init, seed=rng)
            ), nn.CrossEntropy()
        case "tubal":
            body = nn.HamiltonianNet(star, rows, **settings)
            loss = nn.TubalCrossEntropy(real_form(star))
            return nn.Sequential(body, nn.TLinear(star, rows, classes, init=init, seed=rng)), loss
        case "matrix":
            body = nn.HamiltonianNet(algebra.plain(), pixels, **settings)
            return nn.Sequential(
                nn.Unfold(), body, nn.Dense(pixels, classes, init=init, seed=rng)
            ), nn.CrossEntropy()
    raise ValueError(f"no network named {network!r}")


def body_of(model: nn.Sequential) -> nn.HamiltonianNet:
    """The Hamiltonian network of a model."""
    return next(block for block in model if isinstance(block, nn.HamiltonianNet))


@dataclass
class Outcome:
    """One trained network: its name in the table, its size, its accuracies in per cent, its loss, its history."""

    name: str
    network: str
    seed: int
    parameters: int
    accuracy: tuple[float, ...]
    loss: Any
    result: train.FitResult


def run(
    network: str,
    algebra_name: str,
    dataset: data.Dataset,
    preset: Preset,
    seed: int,
    folder: Path,
    variant: Variant = Variant(),
) -> Outcome:
    """Train one network, or go on with it, and measure it at the epoch of its best validation accuracy."""
    channels, height, width = dataset.train.images.shape[1:]
    star = algebra_named(algebra_name, width, dataset.train)
    model, loss = build(
        network, star, len(dataset.classes), preset.init, seed, variant, rows=channels * height
    )
    epochs, batches = preset.epochs_of(network), -(-len(dataset.train) // preset.batch_size)
    lr = optim.step_decay(preset.learning_rate, every=100 * batches, factor=0.9)
    if preset.cosine:
        lr = optim.cosine(preset.learning_rate, epochs * batches)
    rule = optim.AdamW if preset.weight_decay else optim.Adam
    result = run_or_resume(
        model,
        loss,
        dataset,
        optimizer=rule(model, lr=lr, weight_decay=preset.weight_decay),
        folder=_place(folder, network, algebra_name, preset, seed, variant),
        epochs=epochs,
        batch_size=preset.batch_size,
        shuffle=preset.shuffle,
        seed=seed,
        regularizer=regularizer(model, preset.alpha) if preset.alpha else None,
        refine={epochs // 3: 2, 2 * epochs // 3: 2} if variant.refined else None,
        keep=2,  # a checkpoint of a matrix network is of gigabytes
    )
    splits = (dataset.train, dataset.validation, dataset.test)
    accuracy = tuple(100 * (train.evaluate(result.model, loss, split).accuracy or 0.0) for split in splits)
    name = label(named(network), algebra_name) + variant.label
    return Outcome(name, network, seed, nn.count_parameters(result.final), accuracy, loss, result)


def regularizer(model: nn.Sequential, alpha: float) -> nn.Blocks:
    """That of the authors: smoothness of the Hamiltonian steps in time, Tikhonov on the output layer."""
    body = [isinstance(block, nn.HamiltonianNet) for block in model].index(True)
    return nn.Blocks({body: nn.Smoothness(alpha, form="authors"), len(model) - 1: nn.Tikhonov(alpha)})


def _place(
    folder: Path, network: str, algebra_name: str, preset: Preset, seed: int, variant: Variant
) -> Path:
    """The folder of a run. Fewer epochs of a cosine are another run; without one it goes on further."""
    epochs = preset.epochs_of(network)
    limited = f", {epochs} epochs" if preset.cosine and epochs != preset.epochs else ""
    return run_folder(folder, label(network, algebra_name) + variant.label + limited, seed)


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    return experiment(argv, __doc__, "cifar10_hamiltonian", "cifar10", PRESETS, REFERENCE)


def experiment(
    argv: Sequence[str] | None,
    doc: str | None,
    name: str,
    dataset_name: str,
    presets: Mapping[str, Preset],
    references: Mapping[str, str],
) -> int:
    """The experiment with the networks of these presets on a data set: what CIFAR-10 and CIFAR-100 share."""
    args = _arguments(argv, doc, name, dataset_name, presets)
    preset = presets[args.preset]
    preset = replace(
        preset,
        epochs=args.epochs or preset.epochs,
        matrix_epochs=args.matrix_epochs or preset.matrix_epochs,
        networks=tuple(args.networks or preset.networks),
    )
    variant = Variant(args.reversible, args.refine)
    if variant.refined:
        _check_refinement(preset)
    folder = prepare(args)
    dataset = load(args)
    print(
        f"{args.data}: {len(dataset.train):,} training, {len(dataset.validation):,} validation, "
        f"{len(dataset.test):,} test images; preset {args.preset}, {preset.epochs} epochs, seeds {args.seeds}, "
        f"on {ct.get_device()}"
    )
    table = Table(
        {"network": "", "seed": "d", "parameters": ",d", "epochs": "d", "train": ".2f", "validation": ".2f"}
        | {"test": ".2f", "reference": "", "seconds_per_epoch": ".1f"}
    )
    outcomes = []
    for seed, network, algebra_name in _jobs(args.seeds, preset.networks, args.algebra):
        outcome = run(network, algebra_name, dataset, preset, seed, folder, variant)
        outcomes.append(outcome)
        table.row(
            network=outcome.name,
            seed=seed,
            parameters=outcome.parameters,
            epochs=len(outcome.result.history),
            **dict(zip(("train", "validation", "test"), outcome.accuracy, strict=True)),
            reference=references.get(network, "") if algebra_name == "dct" else "",
            seconds_per_epoch=seconds_per_epoch(outcome.result),
        )
        print(f"{outcome.name}, seed {seed}: test {outcome.accuracy[2]:.2f} %")
        table.write_csv(folder / "table.csv")  # after each network: the next may take days
    print(f"\n{table.text()}\n\n{_memory_note()}")
    _pictures(outcomes, dataset, folder)
    return 0


def _jobs(
    seeds: Sequence[int], networks: Sequence[str], algebras: Sequence[str]
) -> Iterator[tuple[int, str, str]]:
    """Every network over every algebra for every seed; a matrix network once, since it has no tubes."""
    for seed, network in itertools.product(seeds, networks):
        for name in ("dct",) if network.startswith("matrix") else algebras:
            yield seed, network, name


def _check_refinement(preset: Preset) -> None:
    if min(preset.epochs, preset.matrix_epochs or preset.epochs) < 3:
        raise Refused(
            "--refine doubles the depth twice, after a third of the epochs each: it needs at least 3"
        )
    for network in preset.networks:
        if int(network.split("-")[1]) % 4:
            raise Refused(
                f"--refine begins with a quarter of the steps, and the depth of {network} has no quarter"
            )


# ---------------------------------------------------------------------------------------- table and pictures


def _pictures(outcomes: list[Outcome], dataset: data.Dataset, folder: Path) -> None:
    """Pictures of the runs of the first seed."""
    first = {o.name: o for o in outcomes if o.seed == outcomes[0].seed}
    histories = {name: o.result.history for name, o in first.items()}
    save(lambda: plot.curves(histories), folder / "curves.png")
    points = {name: (o.parameters, o.accuracy[2]) for name, o in first.items()}
    save(lambda: plot.accuracy_against_parameters(points), folder / "accuracy.png")
    save(lambda: against_seconds(histories), folder / "seconds.png")
    for kind in ("t-NN", "matrix"):
        chosen = [o for o in first.values() if o.name.startswith(kind)]
        if chosen:
            save(lambda: stability(chosen, dataset.test), folder / f"stability-{kind}.png")  # noqa: B023


def against_seconds(histories: Mapping[str, Any]) -> Any:
    """Validation accuracies in per cent against the seconds of training that they took."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(5.4, 3.8), dpi=130, layout="constrained")
    ax = figure.add_subplot()
    for name, history in histories.items():
        accuracy = 100 * np.asarray(history["validation_accuracy"])
        ax.plot(np.cumsum(history["seconds"]), accuracy, marker="o", markersize=3, label=name)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("seconds of training")
    ax.set_ylabel("validation accuracy, %")
    ax.grid(True, alpha=0.3)
    ax.legend(frameon=False, fontsize=8)
    return figure


def stability(outcomes: Sequence[Outcome], split: data.Split) -> Any:
    """Trained networks of one kind as dynamical systems, on a hundred images."""
    X, labels = split.batch(np.arange(min(100, len(split))))
    bodies = {o.name: body_of(o.result.model) for o in outcomes}
    gradients = {o.name: nn.gradient_norms(o.result.model, o.loss, X, labels) for o in outcomes}
    matrix = not next(iter(bodies.values())).star.shape
    return plot.stability(bodies, nn.Unfold()(X) if matrix else X, gradients)


def _memory_note() -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"peak memory of this process, images included: {peak * (1 if sys.platform != 'darwin' else 2**-10):.2f} GiB. "
        "Stored states grow with the depth; with --reversible they do not: cifar10_timing.py measures both."
    )


# --------------------------------------------------------------------------------------------------- options


def _arguments(
    argv: Sequence[str] | None, doc: str | None, name: str, dataset_name: str, presets: Mapping[str, Preset]
) -> argparse.Namespace:
    default = next(key for key in ("better", *presets) if key in presets)
    options = parser(doc, presets, default, name, (dataset_name,))
    add = options.add_argument
    add(
        "--networks",
        nargs="+",
        type=_network,
        help="dense-4, tubal-8, matrix-4, …, instead of those of the preset",
    )
    add(
        "--matrix-epochs",
        type=whole(1, "a positive number of epochs"),
        help="fewer epochs for the matrix networks",
    )
    add(
        "--refine",
        action="store_true",
        help="begin with a quarter of the steps, and double their number twice",
    )
    add("--reversible", action="store_true", help="recompute states instead of storing them")
    return options.parse_args(argv)


def _network(text: str) -> str:
    head, _, depth = text.partition("-")
    if head not in ("dense", "tubal", "matrix") or not depth.isdecimal() or int(depth) < 1:
        raise argparse.ArgumentTypeError(
            f"{text} is not a network; one is dense-4, tubal-4 or matrix-4, with any depth from 1"
        )
    return text


if __name__ == "__main__":
    sys.exit(main())
