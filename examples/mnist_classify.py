"""Classify handwritten digits with tensor neural networks and with dense ones, under the same settings.

Trains the four networks of Newman et al. (2024), section on MNIST classification: a t-linear layer with a dense
head, one with a tubal head, and two dense networks, one of the same size and one of the same width. Prints one
table and writes the curves, the accuracies against the parameters, and the class tubes of a few test images.

    python examples/mnist_classify.py                                       # digits of scikit-learn, no download
    python examples/mnist_classify.py --data mnist --root data              # the real thing, 20 epochs
    python examples/mnist_classify.py --data mnist --root data --preset deep

Presets: `paper` (the authors' initialisation and one fixed order of the batches), `shuffled` (transform-aware
initialisation, a new order each epoch), `better` (the default: that, by AdamW with a cosine schedule), `deep` (a
four-layer t-NN 28→28→28→28→10 with its own settings).
"""

from __future__ import annotations

import argparse
import csv
import importlib
import itertools
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cutnn as ct
from cutnn import algebra, data, nn, optim, plot, train

# Accuracies in per cent (train, validation, test) that the authors' code reached on MNIST: 20 epochs, seed 42.
REFERENCE = {
    "t-linear + dense head": (96.85, 95.73, 96.25),
    "t-linear + tubal head": (94.22, 93.76, 94.57),
    "matrix, same size": (91.70, 91.32, 91.81),
    "matrix, same width": (89.52, 88.83, 89.50),
}


@dataclass(frozen=True)
class Preset:
    """Settings that all networks of a run share."""

    init: nn.initializers.Initializer
    shuffle: bool | str
    learning_rate: float = 1e-2
    weight_decay: float = 1e-4
    batch_size: int = 32
    cosine_with_decoupled_decay: bool = False
    networks: tuple[str, ...] = tuple(REFERENCE)


PRESETS = {
    "paper": Preset(init=nn.initializers.authors, shuffle="fixed"),
    "shuffled": Preset(init=nn.initializers.transform_aware, shuffle=True),
    "better": Preset(init=nn.initializers.transform_aware, shuffle=True, cosine_with_decoupled_decay=True),
    "deep": Preset(
        init=nn.initializers.transform_aware,
        shuffle=True,
        learning_rate=5e-3,
        weight_decay=1e-1,
        batch_size=64,
        cosine_with_decoupled_decay=True,
        networks=("deep t-NN",),
    ),
}


def build(
    name: str, n: int, classes: int, init: nn.initializers.Initializer, seed: int
) -> tuple[nn.Module, Any]:
    """One of the networks for images of n × n pixels, and its loss."""
    star = algebra.dct(n)
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
            return nn.Sequential(layer(), head()), nn.TubalCrossEntropy(star)
        case "deep t-NN":
            return nn.Sequential(layer(), layer(), layer(), head()), nn.TubalCrossEntropy(
                star, form="likelihood"
            )
        case "matrix, same size" | "matrix, same width":
            hidden = same_size if name.endswith("size") else pixels
            first = nn.Dense(pixels, hidden, activation=ct.tanh, **common)
            return nn.Sequential(nn.Unfold(), first, nn.Dense(hidden, classes, **common)), nn.CrossEntropy()
    raise ValueError(f"no network named {name!r}")


@dataclass
class Outcome:
    """One trained network: its loss, its size, its accuracies in per cent, its history."""

    network: str
    seed: int
    parameters: int
    accuracy: tuple[float, float, float]
    seconds_per_epoch: float
    loss: Any
    result: Any


def run(
    name: str, dataset: data.Dataset, preset: Preset, epochs: int, seed: int, folder: Path | None = None
) -> Outcome:
    """Train one network and measure it at the epoch of its best validation accuracy.

    The history goes to the folder first. Raises KeyboardInterrupt where Ctrl-C came before the first epoch ended.
    """
    n = dataset.train.images.shape[-1]
    model, loss = build(name, n, len(dataset.classes), preset.init, seed)
    steps = epochs * -(-len(dataset.train) // preset.batch_size)
    optimizer: optim.Optimizer
    if preset.cosine_with_decoupled_decay:
        lr = optim.cosine(preset.learning_rate, steps)
        optimizer = optim.AdamW(model, lr=lr, weight_decay=preset.weight_decay)
    else:
        lr = optim.step_decay(preset.learning_rate, every=100 * (steps // epochs), factor=0.9)
        optimizer = optim.Adam(model, lr=lr, weight_decay=preset.weight_decay)
    result = train.fit(
        model,
        loss,
        dataset,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=preset.batch_size,
        shuffle=preset.shuffle,
        seed=seed,
    )
    trained = len(result.history)
    if result.interrupted and not trained:
        raise KeyboardInterrupt
    if folder and trained:
        result.history.to_csv(folder / f"history-{_slug(name)}-{seed}.csv")
    splits = (dataset.train, dataset.validation, dataset.test)
    accuracy = tuple(100 * train.evaluate(result.model, loss, split).accuracy for split in splits)
    seconds = float(np.mean(result.history["seconds"])) if trained else math.nan
    return Outcome(name, seed, nn.count_parameters(model), accuracy, seconds, loss, result)  # type: ignore[arg-type]


def table(outcomes: list[Outcome], reference: bool) -> str:
    """The networks in rows: parameters, accuracies (mean ± deviation over the seeds), seconds an epoch."""
    head = f"{'network':24}{'parameters':>11}{'train %':>15}{'validation %':>15}{'test %':>15}{'s/epoch':>9}"
    lines = [head + ("   authors' test %" if reference else ""), "-" * (len(head) + 18 * reference)]
    for name in dict.fromkeys(o.network for o in outcomes):
        mine = [o for o in outcomes if o.network == name]
        accuracies = np.asarray([o.accuracy for o in mine])
        cells = [
            f"{mean:.2f}" + (f" ± {deviation:.2f}" if len(mine) > 1 else "")
            for mean, deviation in zip(accuracies.mean(0), accuracies.std(0), strict=True)
        ]
        seconds = np.mean([o.seconds_per_epoch for o in mine])
        line = f"{name:24}{mine[0].parameters:>11,}" + "".join(f"{c:>15}" for c in cells) + f"{seconds:>9.2f}"
        lines.append(line + (f"{REFERENCE[name][2]:>18.2f}" if reference and name in REFERENCE else ""))
    return "\n".join(lines)


def pictures(outcomes: list[Outcome], dataset: data.Dataset, folder: Path) -> list[Path]:
    """Curves, accuracy against parameters and, where a tubal head was trained, class tubes."""
    first = {o.network: o for o in outcomes if o.seed == outcomes[0].seed}
    figures = {
        "curves.png": plot.curves(
            {name: o.result.history for name, o in first.items() if len(o.result.history)}
        ),
        "accuracy.png": plot.accuracy_against_parameters(
            {name: (o.parameters, o.accuracy[2]) for name, o in first.items()}
        ),
    }
    tubal = next((o for o in first.values() if isinstance(o.loss, nn.TubalCrossEntropy)), None)
    if tubal is not None:
        star = tubal.loss.star
        X, labels = dataset.test.batch(np.arange(6))
        Y = tubal.result.model(X)
        figures["class_tubes.png"] = plot.class_tubes(
            dataset.test.images[:6],
            star.forward(nn.tubal_softmax(star, Y)),
            ct.to_host(tubal.loss.predict(Y)),
            dataset.classes,
            ct.to_host(labels),
            title="class tubes of the tubal softmax in the transform domain: each column sums to one; "
            "a frame marks the predicted class",
        )
    for name, figure in figures.items():
        figure.savefig(folder / name)
    return [folder / name for name in figures]


def write_csv(outcomes: list[Outcome], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["network", "seed", "parameters", "train", "validation", "test", "seconds_per_epoch"])
        for o in outcomes:
            writer.writerow(
                [o.network, o.seed, o.parameters, *(f"{a:.3f}" for a in o.accuracy), o.seconds_per_epoch]
            )


def main(argv: list[str] | None = None) -> int:
    args = _arguments(argv)
    try:
        ct.set_device(args.device)
        dataset = data.load(args.data, root=args.root, download=args.download)
        folder = _writable(Path(args.out))
    except (ct.DeviceError, ValueError, OSError, ImportError) as error:
        print(f"mnist_classify: {error}", file=sys.stderr)
        return 2
    if ct.get_device() != "cpu":
        dataset = dataset.to_device(ct.get_device())
    preset = PRESETS[args.preset]
    epochs = args.epochs or (40 if args.data == "digits" else 20)
    print(
        f"{args.data}: {len(dataset.train):,} training, {len(dataset.validation):,} validation, "
        f"{len(dataset.test):,} test images; preset {args.preset}, {epochs} epochs, seeds {args.seeds}, "
        f"on {ct.get_device()}"
    )
    draws = _has_matplotlib()
    outcomes: list[Outcome] = []
    status = 0
    try:
        for seed, name in itertools.product(args.seeds, preset.networks):
            outcome = run(name, dataset, preset, epochs, seed, folder)
            outcomes.append(outcome)
            print(
                f"{name}, seed {seed}: test {outcome.accuracy[2]:.2f} %, {outcome.seconds_per_epoch:.2f} s/epoch"
            )
            if outcome.result.interrupted:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        print(
            "interrupted: " + ("what follows is what was reached" if outcomes else "nothing was reached yet")
        )
        status = 130
    try:
        if outcomes:
            print("\n" + table(outcomes, reference=args.data == "mnist") + "\n")
            write_csv(outcomes, folder / "table.csv")
            for path in pictures(outcomes, dataset, folder) if draws else ():
                print(f"wrote {path}")
    except KeyboardInterrupt:
        print(f"interrupted: not all files in {folder} were written")
        status = 130
    except OSError as error:
        print(f"mnist_classify: cannot write to {folder} ({error})", file=sys.stderr)
        status = 1
    return status


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", default="digits", choices=("digits", "mnist", "fashion-mnist"))
    parser.add_argument("--root", default="data", help="folder in which the data sets lie")
    parser.add_argument("--download", action="store_true", help="download the data through torchvision")
    parser.add_argument("--preset", default="better", choices=PRESETS)
    parser.add_argument("--epochs", type=_epochs, help="default: 40 for digits, 20 otherwise")
    parser.add_argument("--seeds", type=_seed, nargs="+", default=[42])
    device = os.environ.get("CUTNN_DEVICE") or "auto"
    parser.add_argument("--device", default=device, help="auto, cpu, cuda or cuda:0; or set CUTNN_DEVICE")
    parser.add_argument("--out", default="runs/mnist_classify", help="folder for the table and the pictures")
    return parser.parse_args(argv)


def _epochs(text: str) -> int:
    return _at_least(1, text, "a positive number of epochs")


def _seed(text: str) -> int:
    return _at_least(0, text, "a seed, a whole number from 0")


def _at_least(least: int, text: str, what: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text} is not {what}")
    return int(text)


def _writable(folder: Path) -> Path:
    """The folder, made where it was missing; OSError before any training where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"cannot write to {folder} ({error.strerror}); give --out a folder that can be written"
        ) from None
    return folder


def _has_matplotlib() -> bool:
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        print(
            f"no pictures will be drawn, matplotlib cannot be imported ({error}): pip install 'cutnn[plot]'"
        )
        return False
    return True


def _slug(name: str) -> str:
    return "-".join(name.replace(",", " ").replace("+", " ").split())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before the training began
        sys.exit(130)
