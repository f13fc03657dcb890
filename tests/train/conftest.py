"""Fixtures for the tests of training."""

import os
import signal

import pytest


@pytest.fixture
def no_waiting_for_the_disk(monkeypatch):
    """Files are not synced: what is tested is not the power supply."""
    monkeypatch.setattr(os, "fsync", lambda number: None)


@pytest.fixture
def pythons_own_ctrl_c():
    """Python's handler of Ctrl-C, which a process that began in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
