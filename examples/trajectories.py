"""Watch points move through deep networks: where forward Euler fails and leapfrog works, and pictures that show why.

The experiment of Newman et al. (2024) on trajectories: points of a normal distribution in three dimensions, of three
classes by their distance from the origin, are tubes of length 3, and pass through 32 layers of 1 × 1 tubes before a
linear head tells the classes. Prints one table beside the reference numbers, and writes it, the curves, and for each
network the points at five layers, the norms of states and gradients by layer, and the spectrum of its Jacobian.

    python examples/trajectories.py                                 # better settings, 50 epochs
    python examples/trajectories.py --preset paper --seeds 42 43 44
    python examples/trajectories.py --preset quick                  # 10 epochs
    python examples/trajectories.py --algebra dct identity dft random data
    python examples/trajectories.py --h 0.5 1 2 5                   # against the step size

Presets: `paper` (the authors' settings and the three networks of their experiment), `better` (the default: initial
weights that know the transform, Adam with a cosine schedule and clipped gradients, step size 1, and two more networks),
`quick` (`better` in 10 epochs). An interrupted run goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _experiment import (
    Table,
    algebra_named,
    label,
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
from cutnn import algebra, nn, optim, plot, train

RADII = (3.5, 5.5)
CLASSES = ("outside", "shell", "inside")
DEPTH = 32


@dataclass(frozen=True)
class Network:
    """A row of the table: its time steps and their size, its head, and its M where `--algebra` has no say."""

    step: str
    h: float = 2.0
    head: str = "tubal"
    algebra: str | None = None
    weight_decay: float = 0.0


# Over a real transform a 1 × 1 weight is its own transpose, K − Kᵀ = 0: the antisymmetric network needs the DFT.
NETWORKS = {
    "forward Euler, M = I, dense head": Network("euler", 5.0, "dense", "identity", weight_decay=1e-4),
    "forward Euler, tubal loss": Network("euler"),
    "leapfrog, tubal loss": Network("leapfrog"),
    "two-block leapfrog, tubal loss": Network("two-block"),
    "antisymmetric Euler, DFT, tubal loss": Network("antisymmetric", algebra="dft"),
}

# Accuracies in per cent (train, validation, test) that the authors' code reached, seed 42.
REFERENCE = {
    "forward Euler, M = I, dense head": (40.9, 38.0, 37.0),
    "forward Euler, tubal loss": (90.3, 88.7, 89.0),
    "leapfrog, tubal loss": (95.8, 94.8, 93.5),
}


@dataclass(frozen=True)
class Preset:
    """Settings that all networks of a run share; `h` is instead of their own."""

    init: nn.initializers.Initializer
    epochs: int = 50
    batch_size: int = 10
    learning_rate: float = 1e-2
    h: float | None = None
    smoothness: float = 0.0
    adam: bool = False


_BETTER = Preset(nn.initializers.transform_aware, batch_size=30, learning_rate=3e-2, h=1.0, adam=True)
PRESETS = {
    "paper": Preset(nn.initializers.authors, smoothness=1e-4),
    "better": _BETTER,
    "quick": replace(_BETTER, epochs=10),
}


# -------------------------------------------------------------------------------------------------- the data


@dataclass(frozen=True)
class Points:
    """Points (3, N), each a tube, with their classes: a split as `train.fit` wants it."""

    tubes: Any
    labels: Any

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Any, dtype: Any = np.float32) -> tuple[Any, Any]:
        """Points as a tensor (3, 1, N), and their classes (N,)."""
        return ct.astype(self.tubes[:, None, indices], ct.float32), self.labels[indices]

    def where(self, chosen: Callable[[Any, Any], Any]) -> Points:
        """The points for which a function of tubes and classes is true."""
        kept = chosen(self.tubes, self.labels)
        return Points(self.tubes[:, kept], self.labels[kept])

    def to_device(self, device: str | None = None) -> Points:
        return Points(ct.to_device(self.tubes, device), ct.to_device(self.labels, device))


@dataclass(frozen=True)
class Dataset:
    """Three splits."""

    train: Points
    validation: Points
    test: Points


def points(count: int, seed: Any) -> Points:
    """Points of N(0, 9 I), and which of the three shells each lies in."""
    tubes = 3 * np.random.default_rng(seed).standard_normal((3, count))
    radii = np.sqrt(np.sum(tubes**2, axis=0))
    return Points(tubes, len(RADII) - np.searchsorted(RADII, radii))


def split(seed: int) -> Dataset:
    """2,000 points, split 1,200 / 600 / 200."""
    drawn = points(2000, seed)
    parts = (slice(0, 1200), slice(1200, 1800), slice(1800, 2000))
    return Dataset(*(Points(drawn.tubes[:, part], drawn.labels[part]) for part in parts))


def unseen(seed: int) -> Points:
    """20,000 more points: a test set of 200 tells an accuracy of 93 % to ± 1.8 only."""
    return points(20_000, (seed, 1))


# --------------------------------------------------------------------------------------------- the networks


def build(
    network: Network, star: algebra.StarAlgebra, init: nn.initializers.Initializer, seed: int
) -> tuple[nn.Sequential, Any]:
    """A network of 32 steps of 1 × 1 tubes and a head, and its loss."""
    rng = np.random.default_rng(seed)
    common: dict[str, Any] = {"init": init, "seed": rng}
    steps: dict[str, Any] = {"width": 1, "depth": DEPTH, "h": network.h, **common}
    body: nn.TimeNet
    match network.step:
        case "euler":
            body = nn.ResNet(star, **steps)
        case "antisymmetric":
            body = nn.ResNet(star, structure="antisymmetric", **steps)
        case "leapfrog":
            body = nn.HamiltonianNet(star, **steps)
        case "two-block":
            body = nn.HamiltonianNet(star, form="two-block", **steps)
        case _:
            raise ValueError(f"no time steps named {network.step!r}")
    if network.head == "dense":
        return nn.Sequential(body, nn.Unfold(), nn.Dense(3, len(CLASSES), **common)), nn.CrossEntropy()
    loss = nn.TubalCrossEntropy(real_form(star))
    return nn.Sequential(body, nn.TLinear(star, 1, len(CLASSES), **common)), loss


@dataclass
class Outcome:
    """One trained network and its accuracies in per cent."""

    name: str
    seed: int
    model: nn.Sequential
    loss: Any
    accuracy: tuple[float, ...]
    result: train.FitResult

    @property
    def body(self) -> nn.TimeNet:
        """The time steps of the model."""
        return self.model[0]


def run(name: str, network: Network, star: Any, preset: Preset, seed: int, folder: Path) -> Outcome:
    """Train one network, or go on with it, and measure it at the epoch of its best validation accuracy."""
    dataset = split(seed)
    model, loss = build(network, star, preset.init, seed)
    optimizer: optim.Optimizer
    if preset.adam:
        batches = -(-len(dataset.train) // preset.batch_size)
        lr = optim.cosine(preset.learning_rate, preset.epochs * batches)
        optimizer = optim.Adam(model, lr=lr, clip=1.0)
    else:
        optimizer = optim.SGD(model, lr=preset.learning_rate, weight_decay=network.weight_decay)
    options: dict[str, Any] = {}
    if preset.smoothness:
        options["regularizer"] = nn.Blocks({0: nn.Smoothness(preset.smoothness / network.h, form="authors")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nn.StabilityWarning)  # that is what the experiment is about
        result = run_or_resume(
            model,
            loss,
            dataset,
            optimizer=optimizer,
            folder=folder,
            epochs=preset.epochs,
            batch_size=preset.batch_size,
            seed=seed,
            **options,
        )
    parts = (dataset.train, dataset.validation, dataset.test, unseen(seed))
    accuracy = tuple(100 * (train.evaluate(result.model, loss, part).accuracy or 0.0) for part in parts)
    return Outcome(name, seed, result.model, loss, accuracy, result)


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    folder = prepare(args)
    preset = PRESETS[args.preset]
    preset = replace(preset, epochs=args.epochs or preset.epochs)
    print(
        f"1,200 training, 600 validation, 200 test points, 20,000 new ones; {DEPTH} layers; preset {args.preset}, "
        f"{preset.epochs} epochs, seeds {args.seeds}, on {ct.get_device()}"
    )
    outcomes = []
    for seed, h, (name, network) in itertools.product(args.seeds, args.h or [preset.h], NETWORKS.items()):
        network = replace(network, h=h or network.h)
        for chosen in [network.algebra] if network.algebra else args.algebra:
            row = name if network.algebra else label(name, chosen)
            star = algebra_named(chosen, 3, split(seed).train)
            place = run_folder(folder, f"{row} h {network.h:g}", seed)
            outcome = run(row, network, star, preset, seed, place)
            outcomes.append(outcome)
            print(
                f"{row}, h = {network.h:g}, seed {seed}: test {outcome.accuracy[2]:.1f} %, "
                f"{seconds_per_epoch(outcome.result):.2f} s/epoch"
            )
    report(outcomes, folder)
    return 0


# ---------------------------------------------------------------------------------------- table and pictures


def report(outcomes: list[Outcome], folder: Path) -> None:
    """Accuracies beside the reference, and pictures of the runs of the first seed."""
    table = Table(
        {"network": "", "h": "g", "seed": "d", "parameters": "d"}
        | dict.fromkeys(("train", "validation", "test", "new_points", "reference_test"), ".1f")
        | {"largest_growth": ".0e", "seconds_per_epoch": ".2f"}
    )
    for o in outcomes:
        table.row(
            network=o.name,
            h=o.body.h,
            seed=o.seed,
            parameters=nn.count_parameters(o.model),
            **dict(zip(("train", "validation", "test", "new_points"), o.accuracy, strict=True)),
            reference_test=REFERENCE.get(o.name, (None,))[-1],
            largest_growth=nn.stability_numbers(o.body).growth,
            seconds_per_epoch=seconds_per_epoch(o.result),
        )
    print(f"\naccuracies in per cent, and by what all steps may multiply a small change\n{table.text()}\n")
    table.write_csv(folder / "table.csv")

    first = {
        textwrap.fill(f"{o.name}, h\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{o.body.h:g}", 24): o
        for o in outcomes
        if o.seed == outcomes[0].seed
    }
    bodies = {name: o.body for name, o in first.items()}
    X, labels = (
        unseen(outcomes[0].seed).where(lambda _, labels: labels == 1).batch(slice(0, 200))
    )  # of one size
    gradients = {name: nn.gradient_norms(o.model, o.loss, X, labels) for name, o in first.items()}
    save(lambda: plot.curves({name: o.result.history for name, o in first.items()}), folder / "curves.png")
    save(lambda: paths(bodies, outcomes[0].seed), folder / "trajectories.png")
    save(lambda: plot.spectrum(bodies, X[..., :8]), folder / "spectrum.png")
    save(lambda: plot.stability(bodies, X, gradients), folder / "stability.png")


def paths(bodies: Mapping[str, nn.TimeNet], seed: int) -> Any:
    """Where the networks take the new points near a plane through the origin, on which the shells can be seen."""
    slab = unseen(seed).where(lambda tubes, _: abs(tubes[1]) < 0.2)
    X, labels = slab.batch(slice(0, 600))
    layers = range(0, DEPTH + 1, DEPTH // 4)
    states = {}
    for name, body in bodies.items():
        trajectory = body.trajectory(X)
        states[name] = [trajectory[j] for j in layers]
    return plot.trajectories(states, labels, [f"layer {j}" for j in layers], CLASSES)


def _arguments(argv: Sequence[str] | None) -> Any:
    options = parser(__doc__, PRESETS, "better", "trajectories")
    options.add_argument("--h", type=_step_size, nargs="+", help="step sizes instead of those of the preset")
    return options.parse_args(argv)


def _step_size(text: str) -> float:
    try:
        h = float(text)
    except ValueError:
        h = math.nan
    if not 0 < h < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a step size, a number above 0")
    return h


if __name__ == "__main__":
    sys.exit(main())
