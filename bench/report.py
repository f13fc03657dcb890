"""Results as tables: on the terminal, and in BENCHMARKS.md (python -m bench.report)."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.case import OURS

_RESULTS = Path(__file__).parent / "results"
_PAGE = Path(__file__).parent.parent / "BENCHMARKS.md"
_BUSY_CORES = 0.2  # threads of one library wait for one another, so little is needed to stop them all
_HEAD = """# Benchmarks

Written by `python -m bench.report` from the files in `bench/results/`; `make bench` measures them anew. How,
and why so: [bench/README.md](bench/README.md).

A time is the median over the rounds, with its quartiles in brackets. A ratio is a peer's time over cutnn's in
the same round, again median and quartiles: above 1 cutnn is faster.
"""


def table(result: dict[str, Any]) -> str:
    """A result as Markdown: a table of times and ratios, then each target beside what was reached."""
    unit = result["unit"]
    rows: list[Sequence[str]] = [("size", "", unit, "ratio to cutnn")]
    with_usage = any("peak_mb" in p for s in result["sizes"].values() for p in s.get("peers", {}).values())
    if with_usage:
        rows[0] = (*rows[0], "whole run, s", "peak memory, MB")
    notes, verdicts = [], []
    for label, size in result["sizes"].items():
        if "skipped" in size:
            notes.append(f"{label}: skipped, {size['skipped']}")
            continue
        for name, peer in size["peers"].items():
            row = [label, name, _with_quartiles(peer["time"]), ""]
            if name != OURS:
                row[3] = _with_quartiles(peer["ratio"])
            if with_usage:
                row += [f"{peer['total_s']:.1f}", f"{peer['peak_mb']:.0f}"]
            rows.append(row)
        if size["others_cores"] > _BUSY_CORES:
            notes.append(
                f"{label}: **do not trust this**, other programs took {size['others_cores']:.1f} of "
                f"{result['machine']['cores']} cores meanwhile"
            )
        notes += [f"{label}: no {name}, {reason}" for name, reason in size["absent"].items()]
        verdicts += [_verdict(label, target) for target in size["targets"]]
    body = [f"{result['title']}", "", *_markdown(rows)] if len(rows) > 1 else [result["title"]]
    for group in (verdicts, notes):
        if group:
            body += ["", *[f"* {line}" for line in group]]
    return "\n".join([f"### {result['case']}", "", *body])


def page(results: Sequence[dict[str, Any]]) -> str:
    """BENCHMARKS.md of all results, grouped by machine."""
    parts = [_HEAD]
    described = None
    for result in results:
        here = _description(result)
        if here != described:
            parts.append(f"## {here}\n")
            described = here
        versions = ", ".join(f"{name} {v}" for name, v in result["versions"].items())
        measured = f"{result['date'][:10]}, commit {result['commit'][:12]}; {versions}."
        parts.append(f"{table(result)}\n\n{measured}\n")
    return "\n".join(parts)


def _description(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB, "
        f"{machine['os'].split('-')[0]}, {result['threads']} threads"
    )


def _verdict(label: str, target: dict[str, Any]) -> str:
    word = "reached" if target["passed"] else "**short**"
    return f"{label}: {target['what']}: {word}, {_number(target['reached'])}"


def _with_quartiles(spread: dict[str, float]) -> str:
    return f"{_number(spread['median'])} [{_number(spread['low'])}, {_number(spread['high'])}]"


def _number(x: float) -> str:
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)) + " |"

    return [line(rows[0]), "|" + "|".join("-" * (w + 2) for w in widths) + "|", *map(line, rows[1:])]


def main() -> int:
    results = [json.loads(path.read_text()) for path in sorted(_RESULTS.glob("*.json"))]
    if not results:
        print(f"no results in {_RESULTS}; python -m bench measures them", file=sys.stderr)
        return 1
    results.sort(key=lambda result: (_description(result), result["case"]))
    _PAGE.write_text(page(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
