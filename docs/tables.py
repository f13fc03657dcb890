"""Fill the tables of the pages from the CSV files that the experiments wrote: python docs/tables.py

A table stands below a comment that says where its numbers come from:

    <!-- docs/trajectories/paper.csv: network, parameters ",d", test ".1f" = test % -->

names columns of the file, with a format for numbers and, after "=", another heading. Rows that agree in all columns
with no format or a whole-number one ("d") are one line; their other numbers become mean ± deviation over those rows,
which are the seeds. Several files, joined by " + ", are one table, in which `file` is the name of each without ".csv".
"""

from __future__ import annotations

import csv
import math
import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = tuple(
    ROOT / name
    for name in (
        "REPRODUCTION.md",
        "docs/transforms.md",
        "docs/learned_transform/README.md",
        "docs/low_rank.md",
        "docs/precision.md",
        "docs/hyperspectral/README.md",
    )
)

_COMMENT = re.compile(
    r"^<!-- (?P<files>docs/\S+\.csv(?: \+ docs/\S+\.csv)*): (?P<columns>.+) -->\n", re.MULTILINE
)
_COLUMN = re.compile(r'^(?P<name>\w+)(?: "(?P<form>[^"]+)")?(?: = (?P<heading>.+))?$')
_TABLE = re.compile(r"\n*(?:\|.*\n)*\n*")


def filled(page: str) -> str:
    """The page with every table written anew below its comment."""
    parts, end = [], 0
    for comment in _COMMENT.finditer(page):
        old = _TABLE.match(page, comment.end())
        assert old is not None
        parts += [
            page[end : comment.end()],
            "\n",
            table(comment["files"].split(" + "), comment["columns"]),
            "\n",
        ]
        end = old.end()
    return "".join([*parts, page[end:]])


def table(files: list[str], columns: str) -> str:
    """The rows of the files as a table of Markdown."""
    chosen = []
    for text in re.split(r',\s+(?=\w+(?: "| = |,|$))', columns):
        column = _COLUMN.match(text.strip())
        if column is None:
            raise ValueError(f'no column of a table: {text!r}; expected: name ".1f" = heading')
        chosen.append((column["name"], column["form"], column["heading"] or column["name"].replace("_", " ")))
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for file in files:
        with (ROOT / file).open(newline="") as lines:
            for row in csv.DictReader(lines):
                row["file"] = Path(file).stem
                key = tuple(row[name] for name, form, _ in chosen if not form or form.endswith("d"))
                groups.setdefault(key, []).append(row)
    lines = [[heading for *_, heading in chosen], ["---:" if form else "---" for _, form, _ in chosen]]
    lines += [
        [_cell([row[name] for row in rows], form) for name, form, _ in chosen] for rows in groups.values()
    ]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cell(texts: list[str], form: str | None) -> str:
    if not form or not texts[0]:
        return texts[0]
    numbers = [float(text) for text in texts]
    if form.endswith("d"):
        return f"{int(numbers[0]):{form}}"
    mean = f"{statistics.fmean(numbers):{form}}"
    spread = statistics.pstdev(numbers)
    return f"{mean} ± {spread:{form}}" if len(numbers) > 1 and math.isfinite(spread) else mean


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text()))
    sys.exit(0)
