"""REPRODUCTION.md and docs/transforms.md: their tables are those of the files that examples wrote, commands exist."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "REPRODUCTION.md").read_text()


def load_tables():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = load_tables()


def test_every_table_is_that_of_its_files():
    assert tables.filled(PAGE) == PAGE
    assert len(tables._COMMENT.findall(PAGE)) >= 5
    for text in PAGES.values():
        assert tables._COMMENT.search(text) and tables.filled(text) == text


def test_a_table_that_was_changed_by_hand_is_written_anew():
    damaged = re.sub(r"^\| t-NN.*$", "| t-NN | 99.99 |", PAGE, flags=re.MULTILINE)
    assert damaged != PAGE
    assert tables.filled(damaged) == PAGE


def test_rows_of_several_seeds_are_one_line_with_mean_and_deviation(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    (tmp_path / "a.csv").write_text(
        "network,seed,parameters,test\nt-NN,1,1200,90\nt-NN,2,1200,92\nmatrix,1,7,\n"
    )
    (tmp_path / "b.csv").write_text("network,seed,parameters,test\nPCA,1,5,1.234\n")
    assert tables.table(["a.csv", "b.csv"], 'network, parameters ",d", test ".1f" = test %').splitlines() == [
        "| network | parameters | test % |",
        "| --- | ---: | ---: |",
        "| t-NN | 1,200 | 91.0 ± 1.0 |",
        "| matrix | 7 |  |",
        "| PCA | 5 | 1.2 |",
    ]
    with pytest.raises(ValueError, match="no column of a table"):
        tables.table(["a.csv"], "network, , test")


PAGES = {path: path.read_text() for path in tables.PAGES}
COMMANDS = sorted(
    {
        command
        for text in PAGES.values()
        for command in re.findall(r"^python (examples/\w+\.py.*)$", text, flags=re.MULTILINE)
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command):
    """With --help added, argparse reads the script's options; without, it would train for hours."""
    script, *options = command.split()
    done = subprocess.run(
        [sys.executable, ROOT / script, *options, "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    known = set(re.findall(r"--[\w-]+", done.stdout))
    assert {word for word in options if word.startswith("--")} <= known


def test_there_are_commands_of_every_experiment():
    scripts = {path.name for path in (ROOT / "examples").glob("*.py") if not path.name.startswith("_")}
    assert {command.split()[0].removeprefix("examples/") for command in COMMANDS} == scripts


def test_pictures_and_files_that_the_page_names_exist():
    for path, text in PAGES.items():
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (path.parent / target).exists(), target
        for target in re.findall(r"docs/[\w/.-]+\.(?:csv|png)", text):
            assert (ROOT / target).exists(), target
