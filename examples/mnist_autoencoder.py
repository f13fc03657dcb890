"""Compress handwritten digits with tensor autoencoders, with matrix ones, and with linear maps of the same code.

Trains the autoencoders of Newman et al. (2024): a t-NN 28→20→10→20→28, also with tied weights, and three matrix
networks, one of the same size. Beside them stand the best linear maps: PCA, the t-SVDM, the t-SVDMII. The error is
the squared error summed over an image, of normalised pixels. Prints one table; writes it, the errors against the
parameters and by epoch, the reconstructions of test images, and the codes.

    python examples/mnist_autoencoder.py                                    # digits of scikit-learn, no download
    python examples/mnist_autoencoder.py --data mnist --root data --preset quick
    python examples/mnist_autoencoder.py --data mnist --root data           # 50 epochs with better settings
    python examples/mnist_autoencoder.py --data mnist --root data --preset paper
    python examples/mnist_autoencoder.py --networks t-nn --algebra dct identity dft haar random data
    python examples/mnist_autoencoder.py --networks t-nn --transposed

A tube is a row of pixels; with `--transposed` a column of them. A matrix network sees the same numbers in another
order, a t-NN another problem: its code has ten tubes for the 28 rows, or for the 28 columns.

Presets: `paper` (the authors' initialisation, one fixed order of the batches, 200 epochs), `better` (the default:
biases that mix the faces, weights trained in the transform domain, a new order each epoch, a cosine schedule, 50
epochs), `quick` (`better` in 10 epochs, without the widest network). An interrupted run goes on when the same command
is given again.
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
    run_folder,
    run_or_resume,
    save,
    seconds_per_epoch,
)

import cutnn as ct
from cutnn import algebra, data, nn, optim, train

# Errors on MNIST that the authors' code reached, by epochs (training, validation), and of linear maps (training).
REFERENCE: dict[str, dict[int, tuple[float, float]]] = {
    "t-NN 28-20-10-20-28": {1: (190.1, 189.9), 50: (24.68, 24.68), 200: (19.52, 19.52)},
    "matrix 784-21-280-21-784": {200: (196.96, 197.04)},
    "matrix 784-40-280-40-784": {100: (126.8, 127.0)},
    "matrix 784-560-280-560-784": {20: (21.9, 22.6)},
}
LINEAR_REFERENCE = {
    "PCA, rank 21": 192.0,
    "PCA, rank 40": 118.8,
    "PCA, rank 280": 9.27,
    "t-SVDM, rank 10": 40.6,
    "t-SVDMII, 280 triplets, data": 13.7,
}
TRANSPOSED = ", transposed"
TENSOR, MATRIX = ("t-nn", "tied"), ("matrix-small", "matrix-medium", "matrix-wide")
LINEAR = "linear"


def mixing(star: Any, n_in: int, n_out: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The authors' small weights, and biases uniform in ±1, over the bend of tanh.

    For small x, tanh(x + b) ≈ tanh b + x / cosh² b: a bias that changes along the tube multiplies by a mask there,
    and so moves energy between the faces of the transform domain. With small biases the network starts as a linear
    map, face by face, and trains for long near the error of the best such map, the t-SVDM.
    """
    weight, bias = nn.initializers.authors(star, n_in, n_out, rng)
    return weight, rng.uniform(-1, 1, bias.shape)


@dataclass(frozen=True)
class Preset:
    """Settings of a run; matrix networks, which have no faces, have some of their own."""

    epochs: int
    shuffle: bool | str
    init: nn.initializers.Initializer = nn.initializers.authors
    domain: str = "spatial"
    learning_rate: float = 1e-3
    matrix_init: nn.initializers.Initializer = nn.initializers.authors
    matrix_learning_rate: float = 1e-3
    batch_size: int = 32
    cosine: bool = False
    networks: tuple[str, ...] = (*TENSOR, *MATRIX, LINEAR)


_BETTER = Preset(
    epochs=50,
    shuffle=True,
    init=mixing,
    domain="transform",
    learning_rate=2e-2,
    matrix_init=nn.initializers.transform_aware,
    matrix_learning_rate=2e-3,
    cosine=True,
)
PRESETS = {
    "paper": Preset(epochs=200, shuffle="fixed"),
    "better": _BETTER,
    "quick": replace(_BETTER, epochs=10, networks=(*TENSOR, *MATRIX[:2], LINEAR)),
}


def sizes_of(kind: str, n: int) -> tuple[int, ...]:
    """Sizes from the input to the code for images of n × n pixels, in the proportions of 28-20-10."""
    pixels, hidden, rows = n * n, round(20 * n / 28), max(1, round(10 * n / 28))
    code = rows * n
    match kind:
        case "t-nn" | "tied":
            return n, hidden, rows
        case "matrix-small":  # of the size of the t-NN
            parameters = 2 * n * hidden * (n + rows) + n * (2 * hidden + rows + n)
            return pixels, round((parameters - code - pixels) / (2 * (pixels + code + 1))), code
        case "matrix-medium":
            return pixels, 2 * hidden, code
        case "matrix-wide":  # of the width of the t-NN
            return pixels, hidden * n, code
    raise ValueError(f"no network {kind!r}")


def name_of(kind: str, n: int) -> str:
    sizes = sizes_of(kind, n)
    numbers = "-".join(map(str, sizes + sizes[-2::-1]))
    return f"{'matrix' if kind in MATRIX else 't-NN'} {numbers}{', tied' if kind == 'tied' else ''}"


def build(kind: str, star: algebra.StarAlgebra, preset: Preset, seed: int) -> nn.Autoencoder:
    """One of the networks for images of n × n pixels, n that of the algebra."""
    matrix, tied, sizes = kind in MATRIX, kind == "tied", sizes_of(kind, star.n)
    if matrix:
        model = nn.Autoencoder(algebra.plain(), sizes, init=preset.matrix_init, seed=seed)
    else:
        model = nn.Autoencoder(star, sizes, tied=tied, domain=preset.domain, init=preset.init, seed=seed)
    if preset.init is mixing and not matrix:  # after the last layer there is nothing to mix
        last = model.decoder[-1]
        (last if model.tied else last.bias)[...] = 0
    return model


@dataclass
class Outcome:
    """One autoencoder, trained or linear: its size, the numbers of its code, its errors, its history."""

    network: str
    model: Any
    unfold: bool
    parameters: int
    code: int
    errors: tuple[float, ...]
    seed: int | None = None
    result: train.FitResult | None = None


def run(
    kind: str, star: algebra.StarAlgebra, dataset: data.Dataset, preset: Preset, seed: int, folder: Path
) -> Outcome:
    """Train one network, or go on with it, and measure it at the epoch of its smallest validation error."""
    unfold = kind in MATRIX
    inputs = data.reconstruction(dataset, unfold=unfold)
    model = build(kind, star, preset, seed)
    batches = -(-len(dataset.train) // preset.batch_size)
    rate = preset.matrix_learning_rate if unfold else preset.learning_rate
    if preset.cosine:
        lr = optim.cosine(rate, preset.epochs * batches)
    else:
        lr = optim.step_decay(rate, every=100 * batches, factor=0.9)
    result = run_or_resume(
        model,
        nn.SquaredError(),
        inputs,
        optimizer=optim.Adam(model, lr=lr),
        folder=folder,
        epochs=preset.epochs,
        batch_size=preset.batch_size,
        shuffle=preset.shuffle,
        seed=seed,
    )
    sizes = sizes_of(kind, star.n)
    return Outcome(
        name_of(kind, star.n),
        result.model,
        unfold,
        nn.count_parameters(model),
        sizes[-1] * (1 if unfold else star.n),
        _errors(result.model, inputs),
        seed,
        result,
    )


def linear(stars: Mapping[str, algebra.StarAlgebra], dataset: data.Dataset) -> list[Outcome]:
    """PCA of the ranks of the matrix networks, and the t-SVDM and the t-SVDMII with codes as long as theirs."""
    n = dataset.train.images.shape[-1]
    rows = sizes_of("t-nn", n)[-1]
    ranks = [*(sizes_of(kind, n)[1] for kind in MATRIX[:2]), rows * n]
    tensors, matrices = (data.reconstruction(dataset, unfold=unfold) for unfold in (False, True))
    V, _ = matrices.train.batch(slice(None))
    whole = nn.pca(V, max(ranks))
    models: dict[str, Any] = {
        f"PCA, rank {rank}": nn.Projection(whole.star, rank, whole.basis[:, :rank], whole.mean)
        for rank in ranks
    }
    X, _ = tensors.train.batch(slice(None))
    for name, star in {**stars, "data": algebra.from_data(X)}.items():
        if name in stars:
            models[label(f"t-SVDM, rank {rows}", name)] = nn.t_svdm(star, X, rows)
        models[label(f"t-SVDMII, {rows * n} triplets", name)] = nn.t_svdmii(star, X, count=rows * n)
    outcomes = []
    for name, model in models.items():
        unfold = name.startswith("PCA")
        entries = model.latent * model.basis.shape[-2] + (0 if model.mean is None else model.mean.size)
        inputs = matrices if unfold else tensors
        outcomes.append(Outcome(name, model, unfold, entries, model.latent, _errors(model, inputs)))
    return outcomes


def transposed(dataset: data.Dataset) -> data.Dataset:
    """The images with their rows and columns exchanged."""
    parts = {part: getattr(dataset, part) for part in ("train", "validation", "test")}
    parts = {
        part: replace(split, images=split.images.swapaxes(-1, -2).copy()) for part, split in parts.items()
    }
    return replace(dataset, name=dataset.name + TRANSPOSED, **parts)


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    folder = prepare(args)
    dataset = load(args)
    if args.transposed:
        dataset, folder = transposed(dataset), folder / "transposed"
        folder.mkdir(exist_ok=True)
    preset = PRESETS[args.preset]
    preset = replace(preset, epochs=args.epochs or preset.epochs * (4 if args.data == "digits" else 1))
    networks = args.networks or preset.networks
    print(
        f"{dataset.name}: {len(dataset.train):,} training, {len(dataset.validation):,} validation, "
        f"{len(dataset.test):,} test images; preset {args.preset}, {preset.epochs} epochs, seeds {args.seeds}, "
        f"on {ct.get_device()}"
    )
    n = dataset.train.images.shape[-1]
    stars = {name: algebra_named(name, n, dataset.train) for name in args.algebra}
    outcomes = []
    for seed, kind in itertools.product(args.seeds, [kind for kind in networks if kind != LINEAR]):
        for chosen, star in list(stars.items())[: 1 if kind in MATRIX else None]:
            name = label(name_of(kind, n), "dct" if kind in MATRIX else chosen)
            outcome = run(kind, star, dataset, preset, seed, run_folder(folder, name, seed))
            outcome.network = name
            outcomes.append(outcome)
            print(
                f"{name}, seed {seed}: validation {outcome.errors[1]:.2f}, "
                f"{seconds_per_epoch(outcome.result):.2f} s/epoch"
            )
    if LINEAR in networks:
        outcomes += linear(stars, dataset)
    report(outcomes, dataset, preset.epochs, folder)
    return 0


# ---------------------------------------------------------------------------------------- tables and pictures


def report(outcomes: list[Outcome], dataset: data.Dataset, epochs: int, folder: Path) -> None:
    """Errors beside the reference, and pictures of the runs of the first seed."""
    columns = {"network": "", "seed": "d", "parameters": ",d", "code": ",d"}
    columns |= dict.fromkeys(("train", "validation", "test"), ".2f")
    has_reference = dataset.name.removesuffix(TRANSPOSED) == "mnist"
    if has_reference:
        columns |= {"reference_train": ".2f", "reference_validation": ".2f", "reference_epochs": "d"}
    table = Table(columns | {"seconds_per_epoch": ".2f"})
    for o in outcomes:
        cells = dict(zip(("train", "validation", "test"), o.errors, strict=True))
        if has_reference:
            cells |= _reference(o.network, epochs)
        if o.result:
            cells |= {"seed": o.seed, "seconds_per_epoch": seconds_per_epoch(o.result)}
        table.row(network=o.network, parameters=o.parameters, code=o.code, **cells)
    seeds = sorted({o.seed for o in outcomes if o.seed is not None})
    over = f", mean ± deviation over the seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
    print(f"\nsquared error of an image{over}; codes in numbers an image\n{table.text()}\n")
    table.write_csv(folder / "table.csv")

    first = [o for o in outcomes if o.seed in (None, *seeds[:1])]
    save(lambda: reconstructions(first, dataset), folder / "reconstructions.png")
    save(lambda: errors_against_parameters(first), folder / "errors.png")
    if seeds:
        save(lambda: curves(first), folder / "curves.png")
    for o in first:
        if o.result and not o.unfold:
            save(lambda o=o: codes(o, dataset), folder / "codes.png")  # type: ignore[misc]
            break


def reconstructions(outcomes: list[Outcome], dataset: data.Dataset) -> Any:
    """A test image of each class in the first row, and what comes back from each code below it."""
    chosen = _one_of_each(dataset)
    rows = {"test images": _bytes(dataset.test.batch(chosen)[0], dataset)}
    for o in outcomes:
        X, _ = data.reconstruction(dataset, unfold=o.unfold).test.batch(chosen)
        rows[f"{o.network}\n{o.parameters:,} parameters, error {o.errors[2]:.1f}"] = _bytes(
            o.model(X), dataset
        )
    return _grid(rows, labels=2.1)


def codes(o: Outcome, dataset: data.Dataset) -> Any:
    """Test images, their codes and what comes back; below, what codes between those of two of them decode to."""
    chosen = _one_of_each(dataset)
    X, _ = dataset.test.batch(chosen)
    Z = o.model.encode(X)
    between = ct.to_device(np.linspace(0, 1, len(chosen), dtype=np.float32))
    path = (1 - between) * Z[..., 3:4] + between * Z[..., 8:9]
    rows = {
        "test images": _bytes(X, dataset),
        f"codes, {Z.shape[1]} tubes\nof length {Z.shape[0]}": ct.to_host(Z).transpose(2, 1, 0),
        "decoded": _bytes(o.model.decode(Z), dataset),
        "decoded, from the\ncode of the 3\nto that of the 8": _bytes(o.model.decode(path), dataset),
    }
    return _grid(rows, labels=1.2, title=o.network)


def curves(outcomes: list[Outcome]) -> Any:
    """Validation errors by epoch, and the errors of linear maps as lines across."""
    figure, ax = _axes(8, 5.4)
    for o, colour in zip(outcomes, _colours(outcomes), strict=True):
        if o.result is None:
            ax.axhline(o.errors[1], color=colour, linewidth=0.8, linestyle=":")
            ax.annotate(
                f" {o.network}",
                (1, o.errors[1]),
                xycoords=("axes fraction", "data"),
                fontsize=7,
                va="center",
                color=colour,
            )
        elif len(history := o.result.history):
            mark = "o" if len(history) == 1 else None  # a line of one point cannot be seen
            ax.plot(
                history["epoch"],
                history["validation_loss"],
                label=o.network,
                linewidth=1.6,
                marker=mark,
                color=colour,
            )
    ax.set(xlabel="epoch", ylabel="validation error")
    ax.locator_params(axis="x", integer=True, min_n_ticks=1)
    _logarithmic(ax.yaxis)
    figure.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=2)
    return figure


def errors_against_parameters(outcomes: list[Outcome]) -> Any:
    """Test errors over sizes: networks as discs, linear maps as rings."""
    figure, ax = _axes(8, 5)
    for o, colour in zip(outcomes, _colours(outcomes), strict=True):
        fill, above = ("full", 1) if o.result else ("none", -1)
        ax.plot(o.parameters, o.errors[2], "o", markersize=8, fillstyle=fill, color=colour)
        ax.annotate(
            o.network,
            (o.parameters, o.errors[2]),
            (0, 8 * above),
            textcoords="offset points",
            fontsize=8,
            color=colour,
            ha="center",
            va="bottom" if above > 0 else "top",
        )
    ax.margins(0.13)
    ax.set(xlabel="parameters", ylabel="test error")
    for axis in (ax.xaxis, ax.yaxis):
        _logarithmic(axis)
    return figure


# --------------------------------------------------------------------------------------------------- helpers


def _arguments(argv: Sequence[str] | None) -> Any:
    options = parser(__doc__, PRESETS, "better", "mnist_autoencoder", ("digits", "mnist", "fashion-mnist"))
    options.add_argument(
        "--networks",
        nargs="+",
        choices=(*TENSOR, *MATRIX, LINEAR),
        help="which to train, and whether to measure linear maps; default: those of the preset",
    )
    options.add_argument("--transposed", action="store_true", help="tubes are columns of pixels, not rows")
    return options.parse_args(argv)


def _errors(model: Any, inputs: Any) -> tuple[float, ...]:
    splits = (inputs.train, inputs.validation, inputs.test)
    return tuple(train.evaluate(model, nn.SquaredError(), split).loss for split in splits)


def _reference(network: str, epochs: int) -> dict[str, Any]:
    """The reference after as many epochs or, of those that are known, after the most that are not more."""
    if network in LINEAR_REFERENCE:
        return {"reference_train": LINEAR_REFERENCE[network]}
    known = REFERENCE.get(network)
    if known is None:
        return {}
    at = max((k for k in known if k <= epochs), default=min(known))
    return dict(zip(("reference_train", "reference_validation"), known[at], strict=True)) | {
        "reference_epochs": at
    }


def _one_of_each(dataset: data.Dataset) -> list[int]:
    """The first test image of each class."""
    labels = ct.to_host(dataset.test.labels)
    return [int(np.argmax(labels == c)) for c in range(len(dataset.classes))]


def _bytes(Y: Any, dataset: data.Dataset) -> Any:
    """Images of a tensor, or of the matrix that it unfolds to."""
    n = dataset.test.images.shape[-1]
    images = ct.to_host(data.to_images(ct.reshape(Y, (n, n, -1)), dataset.mean, dataset.std))
    return images.swapaxes(-1, -2) if dataset.name.endswith(TRANSPOSED) else images


def _grid(rows: Mapping[str, Any], labels: float, title: str = "") -> Any:
    """Rows of small images, bytes in grey and other numbers in colours, with room for labels of so many inches."""
    from matplotlib.figure import Figure

    first = next(iter(rows.values()))
    width, height, top = labels + 0.6 * len(first), 0.6 * len(rows), 0.3 if title else 0.05
    figure = Figure(figsize=(width, height + top), dpi=130)
    axes = figure.subplots(len(rows), len(first), squeeze=False)
    figure.subplots_adjust(labels / width, 0.02, 0.99, 1 - top / (height + top), wspace=0.08, hspace=0.08)
    for (head, images), line in zip(rows.items(), axes, strict=True):
        line[0].text(-0.15, 0.5, head, transform=line[0].transAxes, ha="right", va="center", fontsize=7)
        for image, ax in zip(images, line, strict=True):
            if image.dtype == np.uint8:
                ax.imshow(image, cmap="gray_r", vmin=0, vmax=first.max())
            else:
                limit = np.abs(images).max()
                ax.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
            ax.set_axis_off()
    figure.suptitle(title, fontsize=9)
    return figure


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    ax = figure.add_subplot()
    ax.grid(True, color="#dfe7ec")
    return figure, ax


def _logarithmic(axis: Any) -> None:
    """A logarithmic axis with plain numbers on it, also where all lie within one decade."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:,.6g}")


def _colours(outcomes: list[Outcome]) -> list[str]:
    """Blues and greens for tensors, reds for matrices, grey for linear maps."""
    tensors, matrices = (
        itertools.cycle(c)
        for c in (("#0b6e99", "#4f9d69", "#5ab4d6", "#12355b"), ("#e58f65", "#d1495b", "#7d1d3f"))
    )
    return ["#5f6b73" if o.result is None else next(matrices if o.unfold else tensors) for o in outcomes]


if __name__ == "__main__":
    sys.exit(main())
