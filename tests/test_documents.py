"""Every Python snippet of the documents runs, and the public names are the documented ones."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/precision.md",
    "docs/transforms.md",
    "docs/learned_transform/README.md",
    "docs/hyperspectral/README.md",
)
SNIPPETS = [
    pytest.param(code, id=f"{name}-{k}")
    for name in PAGES
    for k, code in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL))
]


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippet_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("snippet")
    monkeypatch.setitem(sys.modules, "snippet", module)  # dataclasses look their module up
    exec(compile(code, "<snippet>", "exec"), module.__dict__)


def test_the_page_on_transforms_names_every_algebra():
    from cutnn.algebra import catalogue

    page = (ROOT / "docs" / "transforms.md").read_text()
    missing = [name for name in catalogue.__all__ if not re.search(rf"\b{name}\(", page)]
    assert not missing


def test_there_are_snippets():
    assert len(SNIPPETS) >= 6


@pytest.mark.parametrize("name", PAGES)
def test_files_that_the_documents_name_exist(name):
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / name).parent / target).exists(), f"{name} links to {target}"
