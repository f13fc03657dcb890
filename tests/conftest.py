"""Profiles of hypothesis, the markers `gpu` and `data`, the folder of real data, a pretend second device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from cutnn import device
from tests import pretend

hypothesis.settings.register_profile(
    "ci",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=25,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("long", deadline=None, max_examples=500)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

NO_DATA = "CUTNN_DATA does not name a folder of real data sets"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not device.is_available():
            item.add_marker(pytest.mark.skip(reason=f"no GPU: {device._why_unusable(0)}"))
        if item.get_closest_marker("data") and not os.environ.get("CUTNN_DATA"):
            item.add_marker(pytest.mark.skip(reason=NO_DATA))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets, laid out as torchvision does."""
    if not (root := os.environ.get("CUTNN_DATA")):
        pytest.skip(NO_DATA)
    return Path(root)


@pytest.fixture
def pretend_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of a library on the device "pretend"; the default device is put back after the test."""
    library = device.Library(
        namespace=pretend.namespace,
        array_type=pretend.PretendArray,
        device_of=lambda x: "pretend",
        put=lambda x, name: pretend.namespace.array(x),
        to_host=lambda x: x.get(),
    )
    monkeypatch.setitem(device._LIBRARIES, "pretend", lambda: library)
    monkeypatch.setitem(device._KINDS, "pretend", "pretend")
    monkeypatch.setattr(device, "_default_device", device._default_device)
    yield library.namespace
    device._OWNER.pop(pretend.PretendArray, None)
