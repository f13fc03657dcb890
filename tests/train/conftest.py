"""A fixture for the tests of training that write many checkpoints."""

import os

import pytest


@pytest.fixture
def no_waiting_for_the_disk(monkeypatch):
    """Files are not synced: what is tested is not the power supply."""
    monkeypatch.setattr(os, "fsync", lambda number: None)
