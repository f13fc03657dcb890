"""Results as tables: on the terminal, and in BENCHMARKS.md with its pictures (python -m bench.report)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.case import OURS

RESULTS = Path(__file__).parent / "results"
_PAGE = Path(__file__).parent.parent / "BENCHMARKS.md"
_BUSY_CORES = 0.2  # threads of one library wait for one another, so little is needed to stop them all
_HEAD = """# Benchmarks

Written by `python -m bench.report` from the files in `bench/results/`; `make bench` and `make bench-gpu` measure
them anew. How, and why so: [bench/README.md](bench/README.md).

A time is the median over the rounds, with its quartiles in brackets. A ratio is a peer's time over ours in the
same round, again median and quartiles: above 1 cutnn is faster. `cutnn` is NumPy alone; `cutnn, mkl` has the
optional CPU extra, and `captured` is a step recorded by `ct.capture`. The fastest of ours at a size is bold. The
share of the limit is the time that the work would take at the machine's GEMM rate, or at its copy bandwidth where
that is longer, over the time that it took.
"""
_NO_GPU = """## GPU

Still to be measured: there are no results of a GPU in `bench/results/`. On a machine that has one, `make bench-gpu`
measures them and `python -m bench.report` writes them here.
"""


# ---------------------------------------------------------------------------------------------- one result


def table(result: dict[str, Any]) -> str:
    """A result as Markdown: a table of amounts and ratios, then each target beside what was reached."""
    measured = {label: size for label, size in result["sizes"].items() if "skipped" not in size}
    columns = _columns(result, measured)
    rows: list[Sequence[str]] = [("size", "", *(head for head, _ in columns))]
    notes, verdicts = [], []
    for label, size in result["sizes"].items():
        if "skipped" in size:
            notes.append(f"{label}: skipped, {size['skipped']}")
            continue
        fastest = _fastest(size["peers"], result["ours"], result["quantity"])
        for name, peer in size["peers"].items():
            shown = f"**{name}**" if name == fastest and len(result["ours"]) > 1 else name
            rows.append((label, shown, *(cell(name, peer, fastest) for _, cell in columns)))
        if size["others_cores"] > _BUSY_CORES:
            notes.append(
                f"{label}: **do not trust this**, other programs took {size['others_cores']:.1f} of "
                f"{result['machine']['cores']} cores meanwhile"
            )
        notes += [f"{label}: no {name}, {reason}" for name, reason in size["absent"].items()]
        verdicts += [f"{label}: {_verdict(target)}" for target in size["targets"]]
    verdicts += [_verdict(target) for target in result["growth_targets"]]
    body = [f"{result['title']}", "", *_markdown(rows)] if len(rows) > 1 else [result["title"]]
    for group in (verdicts, _once(notes)):
        if group:
            body += ["", *[f"* {line}" for line in group]]
    return "\n".join([f"### {result['case']}", "", *body])


def _columns(result: dict[str, Any], measured: dict[str, Any]) -> list[tuple[str, Any]]:
    """The heads of the columns that a result fills, each with what gives its cell: of name, peer, fastest of ours."""
    quantity, peers = (
        result["quantity"],
        [peer for size in measured.values() for peer in size["peers"].values()],
    )

    def ratio(name: str, peer: dict[str, Any], fastest: str) -> str:
        return "" if name == OURS else _with_quartiles(peer["ratio"])

    def ratio_to_fastest(name: str, peer: dict[str, Any], fastest: str) -> str:
        if name == fastest:
            return ""
        return _with_quartiles(peer["ratio"] if fastest == OURS else peer["ratio_to"][fastest])

    columns: list[tuple[str, Any]] = [
        (result["unit"], lambda name, peer, fastest: _with_quartiles(peer[quantity])),
        ("ratio to cutnn", ratio),
    ]
    if len(result["ours"]) > 1:
        columns.append(("to the fastest of ours", ratio_to_fastest))
    if any("share" in peer for peer in peers):
        columns.append(
            ("share of the limit", lambda name, peer, fastest: f"{100 * peer['share']['roofline']:.0f} %")
        )
    if any("peak_mb" in peer for peer in peers):
        columns += [
            ("whole run, s", lambda name, peer, fastest: f"{peer['total_s']:.1f}"),
            ("peak memory, MB", lambda name, peer, fastest: f"{peer['peak_mb']:.0f}"),
        ]
    return columns


def _fastest(peers: dict[str, Any], ours: Iterable[str], quantity: str) -> str:
    return min((name for name in ours if name in peers), key=lambda name: peers[name][quantity]["median"])


def _verdict(target: dict[str, Any]) -> str:
    what = target["what"] if target["of"] == OURS else f"{target['of']}: {target['what']}"
    if target["passed"] is None:
        return f"{what}: not judged, the one or the other did not run"
    return f"{what}: {'reached' if target['passed'] else '**short**'}, {_number(target['reached'])}"


# ------------------------------------------------------------------------------------------------ the page


def page(results: Sequence[dict[str, Any]], pictures: Sequence[str] = ()) -> str:
    """BENCHMARKS.md of all results, by machine, the CPUs first; `pictures` are names of files in bench/results/."""
    parts = [_HEAD, _ahead(results), _missed(results)]
    by_machine: dict[str, list[dict[str, Any]]] = {}
    for result in sorted(results, key=lambda r: (r["device"], _description(r), r["case"])):
        by_machine.setdefault(_description(result), []).append(result)
    for described, here in by_machine.items():
        parts.append(f"## {'GPU' if here[0]['device'] != 'cpu' else 'CPU'}: {described}\n")
        limits = next((result["limits"] for result in here if result["limits"]), None)
        if limits:
            parts.append(limits_line(limits) + "\n")
        parts += [f"![{name}](bench/results/{name})\n" for name in pictures if _host(here[0]) in name]
        for result in here:
            versions = ", ".join(f"{name} {v}" for name, v in result["versions"].items())
            measured = f"{result['date'][:10]}, commit {result['commit'][:12]}; {versions}."
            parts.append(f"{table(result)}\n\n{measured}\n")
    if all(result["device"] == "cpu" for result in results):
        parts.append(_NO_GPU)
    return "\n".join(parts)


def limits_line(limits: dict[str, Any]) -> str:
    """The machine's limits in words."""
    gemm, copy = f"{limits['gemm'] / 1e9:,.0f} Gflop/s", f"{limits['copy'] / 1e9:,.1f} GB/s"
    return (
        f"Limits of this machine, measured: {gemm} in a large float32 matrix product ({limits['gemm_by']}), "
        f"{copy} read and written in a large copy ({limits['copy_by']})."
    )


def ahead(result: dict[str, Any]) -> list[tuple[str, str, float, float]]:
    """(size, peer, how many times it is faster than cutnn, than the fastest of ours) where a peer is ahead of one."""
    found = []
    for label, size in result["sizes"].items():
        if "skipped" in size:
            continue
        fastest = _fastest(size["peers"], result["ours"], result["quantity"])
        for name, peer in size["peers"].items():
            to_best = peer["ratio"] if fastest == OURS else peer["ratio_to"].get(fastest)
            if name not in result["ours"] and peer["ratio"]["median"] < 1:
                found.append((label, name, 1 / peer["ratio"]["median"], 1 / to_best["median"]))
    return found


def _ahead(results: Sequence[dict[str, Any]]) -> str:
    lines = []
    for result in results:
        place = "" if result["device"] == "cpu" else " (GPU)"
        less = "as sparing" if result["quantity"] == "memory" else "as fast"
        for label, name, alone, best in ahead(result):
            words = (
                f"`{result['case']}`{place}, {label}: {name} is ahead of `cutnn`, {_number(alone)}× {less}"
            )
            if len(result["ours"]) > 1:
                words += f"; of the fastest of ours {_number(best)}×"
            lines.append(f"* {words}")
    nowhere = ["Nowhere in these results." if results else "Nothing has been measured."]
    return "\n".join(["## Where a peer is ahead", "", *(lines or nowhere), ""])


def _missed(results: Sequence[dict[str, Any]]) -> str:
    lines = []
    for result in results:
        verdicts = [
            (f"{label}: ", v) for label, size in result["sizes"].items() for v in size.get("targets", [])
        ]
        for where, verdict in [*verdicts, *(("", v) for v in result["growth_targets"])]:
            if not verdict["passed"]:
                lines.append(f"* `{result['case']}`, {where}{_verdict(verdict)}")
    return "\n".join(["## Targets that are not reached", "", *(lines or ["None."]), ""])


# ------------------------------------------------------------------------------------------------ helpers


def read(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The results of cases that are kept in a folder."""
    results = []
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        if "case" in result:  # `bench.crossover` keeps its own there
            results.append(result | {"host": path.stem.partition("-")[2]})
    return results


def draw(results: Sequence[dict[str, Any]], folder: Path = RESULTS) -> list[str]:
    """Draw the pictures of these results, and return the names of their files; none without Matplotlib."""
    try:
        from bench import pictures
    except ImportError as error:
        print(f"no pictures: {error}", file=sys.stderr)
        return []
    return pictures.draw(results, folder)


def _host(result: dict[str, Any]) -> str:
    return result.get("host", "no such host")


def _description(result: dict[str, Any]) -> str:
    machine = result["machine"]
    gpu = f"{machine['gpu']}; " if "gpu" in machine else ""
    return (
        f"{gpu}{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB, "
        f"{machine['os'].split('-')[0]}, {result['threads']} threads"
    )


def _once(lines: Sequence[str]) -> list[str]:
    """The lines, those that differ only in their size put together."""
    sizes: dict[str, list[str]] = {}
    for line in lines:
        label, _, text = line.partition(": ")
        sizes.setdefault(text, []).append(label)
    return [f"{'; '.join(labels)}: {text}" for text, labels in sizes.items()]


def _with_quartiles(spread: dict[str, float]) -> str:
    return f"{_number(spread['median'])} [{_number(spread['low'])}, {_number(spread['high'])}]"


def _number(x: float) -> str:
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.3g}"


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)) + " |"

    return [line(rows[0]), "|" + "|".join("-" * (w + 2) for w in widths) + "|", *map(line, rows[1:])]


def main() -> int:
    results = read()
    if not results:
        print(f"no results in {RESULTS}; python -m bench measures them", file=sys.stderr)
        return 1
    _PAGE.write_text(page(results, draw(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
