"""What the experiments share: options, choices of M, runs that go on after an interrupt, tables, pictures.

An experiment with its networks and settings stands in its own script. Here is what a script looks like:

    @main_guard
    def main(argv=None):
        args = parser(__doc__, PRESETS, "better", "my_experiment", ("digits", "mnist")).parse_args(argv)
        folder = prepare(args)
        dataset = load(args)
        table = Table({"network": "", "seed": "d", "parameters": ",d", "test": ".2f"})
        for seed in args.seeds:
            model, loss = ...
            optimizer = optim.Adam(model, lr=1e-3)
            place = run_folder(folder, "my network", seed)
            result = run_or_resume(model, loss, dataset, optimizer=optimizer, folder=place, epochs=20, seed=seed)
            table.row(network="my network", seed=seed, parameters=..., test=...)
        print(table.text())
        table.write_csv(folder / "table.csv")
        save(lambda: plot.curves({"my network": result.history}), folder / "curves.png")
        return 0
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import importlib
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import cutnn as ct
from cutnn import algebra, data, train

ALGEBRAS = ("dct", "identity", "dft", "haar", "random", "data")
JASPER_RIDGE = Path("jasper-ridge") / "jasper_ridge_100x100x198_u16.npy"


class Refused(Exception):
    """What was asked for cannot be done; the message says why. `main_guard` prints it, with status 2."""


# ------------------------------------------------------------------------------------------------ beginning


def parser(
    doc: str | None,
    presets: Iterable[str],
    default_preset: str,
    name: str,
    data_choices: Sequence[str] = (),
    training: bool = True,
) -> argparse.ArgumentParser:
    """The options of every experiment; a script adds its own. The first of `data_choices` is the default.

    Without `training` there are no epochs, and `--fresh` is the script's to heed.
    """
    doc = (doc or "").split("\n\n")[0]
    options = argparse.ArgumentParser(name, description=doc, formatter_class=_Formatter)
    add = options.add_argument
    if data_choices:
        add("--data", default=data_choices[0], choices=data_choices, help="the data set")
        add("--root", default="data", help="folder in which the data sets lie")
        add("--download", action="store_true", help="download the data through torchvision")
        add("--images", type=whole(1, "a positive number of images"), help="train on that many, the first")
    add("--preset", default=default_preset, choices=list(presets), help="the settings")
    add(
        "--algebra",
        nargs="+",
        default=["dct"],
        choices=ALGEBRAS,
        help="choices of M, a row of the table each",
    )
    if training:
        add("--epochs", type=whole(1, "a positive number of epochs"), help="instead of those of the preset")
        precisions = ("float32", "tf32", "bfloat16", "float16", "float64")
        add("--precision", default="float32", choices=precisions, help="of matrix products")
    add("--seeds", type=whole(0, "a seed, a whole number from 0"), nargs="+", default=[42], help="a run each")
    device = os.environ.get("CUTNN_DEVICE") or "auto"
    add("--device", default=device, help="auto, cpu, cuda or cuda:0; or set CUTNN_DEVICE")
    add("--out", default=f"runs/{name}", help="folder for runs, tables and pictures")
    add("--fresh", action="store_true", help="forget the earlier runs of these settings")
    return options


def whole(least: int, what: str) -> Callable[[str], int]:
    """A type for argparse: whole numbers from `least`; `what` says what was expected."""

    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not {what}")
        return int(text)

    return convert


def prepare(args: argparse.Namespace) -> Path:
    """Set device and precision; the folder of these settings, `<out>/[<data>-]<preset>`, made where it was missing.

    Epochs, images and a precision that are not the usual ones are part of its name, since those runs are others.
    Says at once when there will be no pictures. Raises Refused where nothing can be written.
    """
    with refusing():
        ct.set_device(args.device)
    epochs, precision = getattr(args, "epochs", None), getattr(args, "precision", "float32")
    ct.set_precision(precision)
    images = getattr(args, "images", None)
    parts = [getattr(args, "data", None), args.preset, epochs and f"{epochs}-epochs"]
    parts += [f"{images}-images"] if images else []
    parts += [precision] if precision != "float32" else []
    folder = Path(args.out) / "-".join(filter(None, parts))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for run in folder.iterdir() if args.fresh else ():
            if any(run.glob("*.safetensors")):
                shutil.rmtree(run)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise Refused(
            f"cannot write to {folder} ({error.strerror}); give --out a folder that can be written"
        ) from None
    _matplotlib(say=True)
    return folder


def load(args: argparse.Namespace) -> data.Dataset:
    """The data set that was asked for, on the device. Raises Refused where it is not there."""
    with refusing():
        try:
            dataset = data.load(args.data, root=args.root, download=args.download)
        except FileNotFoundError as error:
            raise Refused(f"{error} Here: --download fetches it, --root names another folder.") from error
    if args.images:
        split = dataset.train
        first = {"images": split.images[: args.images], "labels": split.labels[: args.images]}
        dataset = replace(dataset, train=replace(split, **first))
    return dataset if ct.get_device() == "cpu" else dataset.to_device()


def load_cube(path: Path) -> np.ndarray:
    """A hyperspectral cube (rows, columns, bands), .npy, as float32 (bands, rows, columns) with largest value 1.

    Raises Refused where there is none, and for what is no cube of finite real numbers.
    """
    if not path.is_file():
        raise Refused(
            f"there is no cube {path}; expected a .npy file of shape (rows, columns, bands). That of Jasper Ridge, "
            f"100 x 100 pixels and 198 bands, is {JASPER_RIDGE.name} in the folder {JASPER_RIDGE.parent} of --root"
        )
    try:
        cube = np.load(path)
    except (ValueError, OSError, EOFError) as error:
        raise Refused(f"{path} cannot be read as an array of numbers ({error})") from error
    if not isinstance(cube, np.ndarray):  # of several arrays, .npz
        raise Refused(f"{path} holds {', '.join(cube)}; expected one array, .npy")
    if cube.ndim != 3 or min(cube.shape) < 4 or cube.dtype.kind not in "uif":
        raise Refused(
            f"{path} has shape {cube.shape} and type {cube.dtype}; expected real numbers (rows, columns, bands), "
            "four or more of each"
        )
    largest = np.float32(cube.max())
    if not np.isfinite(cube).all() or largest <= 0:
        raise Refused(
            f"{path} has values from {cube.min()} to {cube.max()}; expected finite ones, some above 0"
        )
    return np.ascontiguousarray(np.moveaxis(cube, -1, 0), dtype=np.float32) / largest


def algebra_named(name: str, n: int, split: Any = None, seed: int = 0) -> algebra.StarAlgebra:
    """One of ALGEBRAS for tubes of length n.

    "data" takes M from up to 5,000 samples of `split`, "random" is the orthogonal M of this seed. "dft" is the
    t-product: real weights, real products, and a complex transform, so give its tubal loss `real_form(star)`.
    "haar" is `algebra.haar` for powers of two, and the unbalanced Haar wavelets for other n.
    """
    match name:
        case "dct":
            return algebra.dct(n)
        case "identity":
            return algebra.identity(n)
        case "dft":
            return algebra.fft(n)
        case "haar":
            return algebra.haar(n) if n & (n - 1) == 0 else algebra.from_matrix(_unbalanced_haar(n))
        case "random":
            return algebra.random_orthogonal(n, seed=seed)
        case "data" if split is not None:
            return algebra.from_data(split.batch(np.arange(min(len(split), 5000)))[0])
    raise ValueError(f"no algebra {name!r} for n = {n}; there are {', '.join(ALGEBRAS)}, data from a split")


def real_form(star: algebra.StarAlgebra) -> algebra.StarAlgebra:
    """The algebra for a tubal loss: its softmax needs a real transform, which for the DFT is Hartley's."""
    return algebra.hartley(star.n) if star == algebra.fft(star.n) else star


def label(network: str, algebra_name: str) -> str:
    """How a network over an algebra is called in tables: DCT goes without saying."""
    return network if algebra_name == "dct" else f"{network}, {algebra_name}"


# --------------------------------------------------------------------------------------------------- running


def run_folder(folder: Path, network: str, seed: int) -> Path:
    """Where the checkpoints and the history of one run lie: `<folder>/<network>-<seed>`."""
    words = "".join(c if c.isalnum() or c in ".-" else " " for c in network).split()
    return folder / "-".join([*words, str(seed)])


def run_or_resume(
    model: Any, loss: Any, dataset: Any, *, optimizer: Any, folder: Path, epochs: int, **options: Any
) -> train.FitResult:
    """`train.fit` with checkpoints in `folder`: an interrupted run goes on, a finished one is read back.

    Raises KeyboardInterrupt where Ctrl-C came; what was reached lies in the folder. Raises Refused where the folder
    holds a run that this one cannot go on from.
    """
    settings = {"optimizer": optimizer, "epochs": epochs, "checkpoint": folder, "resume": True, **options}
    try:
        result = train.fit(model, loss, dataset, **settings)
    except train.ResumeError as error:
        raise Refused(f"{error}. --fresh forgets the earlier runs, --out takes another folder") from None
    if result.interrupted:
        raise KeyboardInterrupt
    return result


def solve(solver: Callable[..., Any], *args: Any, bar: bool = True, **options: Any) -> Any:
    """The result of a solver of `algebra.lowrank`, with a bar on the terminal that says how near it is.

    Where its iterations end before the tolerance is met nothing is said: a table has their number. Raises
    KeyboardInterrupt where Ctrl-C came.
    """
    with train.solver_progress(bar) as callback, warnings.catch_warnings():
        warnings.simplefilter("ignore", algebra.lowrank.ConvergenceWarning)
        result = solver(*args, callback=callback, **options)
    if result.interrupted:
        raise KeyboardInterrupt
    return result


def seconds_per_epoch(result: train.FitResult) -> float:
    """The mean time of an epoch's training; nan where no epoch ended."""
    return float(np.mean(result.history["seconds"])) if len(result.history) else float("nan")


def main_guard(main: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """A main function that answers what users may do without a traceback.

    Ctrl-C: what to do, and status 130. What it cannot do (Refused, OSError, ImportError): one line, status 2.
    """

    @functools.wraps(main)
    def guarded(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except KeyboardInterrupt:
            fresh = "--fresh" in (sys.argv[1:] if argv is None else argv)
            print(f"interrupted; the same command{', without --fresh,' * fresh} goes on from here")
            return 130
        except (Refused, OSError, ImportError) as error:
            print(f"{Path(main.__code__.co_filename).stem}: {error}", file=sys.stderr)
            return 2

    return guarded


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Turn the errors of wrong input into Refused. For what reads the user's input, not for training."""
    try:
        yield
    except (ct.DeviceError, ValueError, OSError, ImportError) as error:
        raise Refused(str(error)) from error


# ------------------------------------------------------------------------------------------ tables, pictures


class Table:
    """Rows of results, one a run. `columns` maps a name to how its numbers are printed; "" is text.

    Text and whole numbers ("d") say what a run was, other numbers what it reached: runs that differ in the seed
    alone are one line of the text, with mean ± deviation.

    >>> table = Table({"network": "", "seed": "d", "test": ".1f"})
    >>> table.row(network="t-linear", seed=1, test=95.0)
    >>> table.row(network="t-linear", seed=2, test=97.0)
    >>> print(table.text())
    network          test
    ---------------------
    t-linear   96.0 ± 1.0
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.columns = dict(columns)
        self.rows: list[dict[str, Any]] = []

    def row(self, **cells: Any) -> None:
        """Add a row; columns that are not given stay empty."""
        if unknown := cells.keys() - self.columns.keys():
            raise ValueError(f"no columns {', '.join(sorted(unknown))}; there are {', '.join(self.columns)}")
        self.rows.append({name: cells.get(name) for name in self.columns})

    def column(self, name: str, **cells: Any) -> list[Any]:
        """The cells of a column, of the rows that hold `cells`."""
        return [row[name] for row in self.rows if all(row[key] == cell for key, cell in cells.items())]

    def text(self) -> str:
        shown = [name for name in self.columns if name != "seed"]
        setting = [name for name in shown if self.columns[name][-1:] in ("", "d")]
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in self.rows:
            groups.setdefault(tuple(row[name] for name in setting), []).append(row)
        lines = [[name.replace("_", " ") for name in shown]]
        for group in groups.values():
            lines.append([_summary([row[name] for row in group], self.columns[name]) for name in shown])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        aligned = [
            "   ".join(
                f"{cell:{'>' if self.columns[name] else '<'}{width}}"
                for cell, name, width in zip(line, shown, widths, strict=True)
            ).rstrip()
            for line in lines
        ]
        return "\n".join([aligned[0], "-" * (sum(widths) + 3 * len(widths) - 3), *aligned[1:]])

    def write_csv(self, path: Path) -> None:
        """Every run, numbers to six digits."""
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.columns))
            writer.writeheader()
            for row in self.rows:
                writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def save(draw: Callable[[], Any], path: Path) -> None:
    """Write the picture that `draw` makes, where matplotlib is there, and say so."""
    if _matplotlib():
        draw().savefig(path)
        print(f"wrote {path}")


def gallery(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = (), width: float = 2.4) -> Any:
    """Rows of images, (H, W) in grey or (H, W, 3), with values from 0 to 1, each below its title; rows have names."""
    from matplotlib.figure import Figure

    columns = max(map(len, rows))
    height = max(len(image) / image.shape[1] for row in rows for image in row.values())
    figure = Figure(
        figsize=(width * columns + 0.3, (width * height + 0.32) * len(rows)), dpi=130, layout="constrained"
    )
    for i, row in enumerate(rows):
        for j, (title, image) in enumerate(row.items()):
            ax = figure.add_subplot(len(rows), columns, i * columns + j + 1)
            ax.imshow(np.clip(np.real(ct.to_host(image)), 0, 1), cmap="gray", vmin=0, vmax=1)
            ax.set_title(title, fontsize=8)
            ax.set(xticks=[], yticks=[])
            for side in ax.spines.values():
                side.set_visible(False)
            if j == 0 and names:
                ax.set_ylabel(names[i], fontsize=8)
    return figure


# --------------------------------------------------------------------------------------------------- helpers


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help with the defaults, and the description as it is written."""


def _summary(cells: list[Any], form: str) -> str:
    """Equal cells as one of them, other numbers as mean ± deviation."""
    cells = [cell for cell in cells if cell is not None]
    if not cells:
        return ""
    if len(set(cells)) == 1:
        return f"{cells[0]:{form}}"
    return f"{np.mean(cells):{form}} ± {np.std(cells):{form}}"


def _matplotlib(say: bool = False) -> bool:
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        if say:
            print(
                f"no pictures will be drawn, matplotlib cannot be imported ({error}): pip install 'cutnn[plot]'"
            )
        return False
    return True


def _unbalanced_haar(n: int) -> np.ndarray:
    """Rows: a constant, then for each interval, coarse to fine, its left half against its right (Fryzlewicz 2007)."""
    rows = [np.full(n, n**-0.5)]
    intervals = [(0, n)]
    for start, stop in intervals:
        if stop - start > 1:
            middle = (start + stop + 1) // 2
            left, right = middle - start, stop - middle
            row = np.zeros(n)
            row[start:middle] = (right / left / (left + right)) ** 0.5
            row[middle:stop] = -((left / right / (left + right)) ** 0.5)
            rows.append(row)
            intervals += [(start, middle), (middle, stop)]
    return np.stack(rows)
