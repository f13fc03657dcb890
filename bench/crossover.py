"""Where a matrix product and a fast transform of the tubes cross: python -m bench.crossover [transform ...].

For each transform with two roads, real and complex, single and double precision: the time there and back of the
tubes of 96 × 32 faces by each road, a row of the table for a length n, and from which n on the fast one wins. That
is what `Fourier.fast_from` and the thresholds of `cutnn/algebra/_fast.py` should be on this machine, and what they are
stands beside it. Written to bench/results/ too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import cores, describe, host_kind
from cutnn import algebra
from cutnn import array as ct
from cutnn.algebra._modes import orthonormal, to_complex, to_real

FACES = (96, 32)
LENGTHS = (64, 96, 128, 192, 256, 384, 512, 1024)
DTYPES = {
    "fft": ("float32", "float64", "complex64", "complex128"),
    **{name: ("float32", "float64") for name in ("dct", "dst", "hartley", "hadamard", "haar")},
}
AXIS = -3

Road = Callable[[], Any]


def roads(name: str, n: int, dtype: str) -> tuple[Road, Road] | None:
    """There and back by matrix products, and by the fast transform; None where there is none of that length."""
    if name in ("hadamard", "haar") and n & (n - 1):
        return None
    (transform,) = getattr(algebra, name)(n).transforms
    A = np.random.default_rng(0).standard_normal((n, *FACES)).astype(dtype)
    if name == "fft" and A.dtype.kind == "f":
        half = ct.fft.rfft(A, axis=AXIS)
        P, Q = transform._like("to half", A), transform._like("from half", half)
        return (
            lambda: to_real(to_complex(A, P, AXIS), Q, AXIS),
            lambda: ct.fft.irfft(ct.fft.rfft(A, axis=AXIS), n=n, axis=AXIS),
        )

    def by_matrix() -> Any:
        return transform._apply("inverse", transform._apply("M", A, AXIS), AXIS)

    if name == "fft":
        return by_matrix, lambda: ct.fft.ifft(ct.fft.fft(A, axis=AXIS), axis=AXIS)
    there, back = transform._fast.forward, transform._fast.inverse
    return by_matrix, lambda: orthonormal(orthonormal(A, (there, back), AXIS), (back, there), AXIS)


def least(pair: tuple[Road, Road], rounds: int) -> tuple[float, float]:
    """Milliseconds of each road, in turn: the least of all rounds, since what disturbs only adds to it."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for times, road in zip(taken, pair, strict=True):
            began = time.perf_counter()
            road()
            times.append(1e3 * (time.perf_counter() - began))
    return min(taken[0]), min(taken[1])


def wins_from(rows: dict[int, tuple[float, float]]) -> int | None:
    """The least length from which on the fast road is the faster one at every length."""
    found = None
    for n in sorted(rows, reverse=True):
        by_matrix, fast = rows[n]
        if fast >= by_matrix:
            break
        found = n
    return found


def now(name: str, dtype: str) -> int:
    """The length from which the fast road is taken."""
    (transform,) = getattr(algebra, name)(64).transforms
    which = "single" if dtype in ("float32", "complex64") else "double"
    return transform.fast_from[which] if name == "fft" else getattr(transform._fast, which)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.crossover", description=__doc__)
    parser.add_argument("transforms", nargs="*", choices=[*DTYPES, []], help="all when none is named")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--longest", type=int, default=LENGTHS[-1])
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {}
    for name in options.transforms or DTYPES:
        for dtype in DTYPES[name]:
            rows = {}
            for n in LENGTHS:
                pair = roads(name, n, dtype) if n <= options.longest else None
                if pair:
                    rows[n] = least(pair, options.rounds)
            best = wins_from(rows)
            results[f"{name} {dtype}"] = {"milliseconds": rows, "fast from": best, "now": now(name, dtype)}
            print(f"{name}, {dtype}: fast from {best or 'no length'}; now from {now(name, dtype)}")
            for n, (by_matrix, fast) in rows.items():
                print(f"  n = {n:<5} matrix {by_matrix:8.2f} ms   fast {fast:8.2f} ms", flush=True)
    if not options.transforms:
        path = Path(__file__).parent / "results" / f"crossover-{host_kind()}.json"
        about = describe(["numpy", "scipy"], cores())
        path.write_text(json.dumps(about | {"faces": FACES, "crossovers": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
