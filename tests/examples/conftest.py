"""Examples are imported by name, as a script in their folder imports what they share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))


@pytest.fixture
def no_pictures(request, monkeypatch):
    """No pictures by the script that the test's file is about: they are most of the time."""
    monkeypatch.setattr(request.module.script, "save", lambda draw, path: None)
