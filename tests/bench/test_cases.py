"""Every peer of every case gives cutnn's answer, and works on the device that it is given."""

from __future__ import annotations

import inspect
import os
from typing import Any

import numpy as np
import pytest

from bench.case import Case, Unavailable, Work
from bench.cases import memory, mnist_epoch
from bench.harness import _check_agreement, case_names, load_case
from bench.machine import version
from bench.ours import CAPTURED, MKL, MKL_CAPTURED, ours
from cutnn.device import set_device

# The sizes of each case that are quick; of the others one size, the smallest.
_QUICK = {
    "factorisations": 5,
    "half_spectrum": 2,
    "hamiltonian_step": 2,
    "memory": 2,
    "mnist_epoch": 1,
    "operations": 15,
    "star_product": 15,
    "tape_overhead": 3,
    "train_step": 3,
}


_LONG = pytest.mark.skipif(
    os.environ.get("HYPOTHESIS_PROFILE") != "long", reason="compiling takes minutes: it is for make test-long"
)


def quick_sizes(case: Case) -> list[str]:
    return list(case.sizes)[: _QUICK[case.name]]


def pairs() -> list[Any]:
    """(case, peer); the compiled ones, each of which takes a C++ compiler ten seconds, by `make test-long` alone."""
    found = []
    for name in case_names():
        for peer, made in load_case(name).peers.items():
            marks = [_LONG] if "compiled" in peer else []
            if "cpu" in made.devices and peer not in (
                "cutnn",
                MKL,
                MKL_CAPTURED,
            ):  # cutnn again in this process
                found.append(pytest.param(name, peer, marks=marks))
    return found


def make(case: Case, peer: str, label: str, device: str = "cpu") -> Work:
    made, size = case.peers[peer].make, dict(case.sizes[label])
    if "device" in inspect.signature(made).parameters:
        size["device"] = device
    return made(**size)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of 20 batches."""
    monkeypatch.setattr(mnist_epoch, "TRAINING", 640)
    monkeypatch.setattr(mnist_epoch, "VALIDATION", 200)
    monkeypatch.setattr(mnist_epoch, "EVALUATION_BATCH", 100)
    monkeypatch.setattr(mnist_epoch, "_CHECKED", 10)


def test_the_sizes_that_are_tested_are_of_all_cases() -> None:
    assert set(_QUICK) == set(case_names())


@pytest.mark.parametrize(("name", "peer"), pairs())
@pytest.mark.filterwarnings("default")  # what libraries warn of is theirs
@pytest.mark.usefixtures("small")
def test_every_peer_agrees_with_cutnn(name: str, peer: str) -> None:
    case = load_case(name)
    package = case.peers[peer].package
    if package != "cutnn" and version(package) == "not installed":
        pytest.skip(f"{package} is not installed")
    labels = [label for label in quick_sizes(case) if case.peers[peer].competes(label, "cpu")]
    for label in labels[: 1 if "compiled" in peer else None]:
        try:
            work = make(case, peer, label)
        except Unavailable as reason:
            if label == labels[-1]:
                pytest.skip(str(reason))
            continue
        answer, expected = list(work.answer()), list(make(case, "cutnn", label).answer())
        assert max(np.abs(a).max() for a in expected) > 0
        _check_agreement(case, label, peer, expected, answer)
        work.wait(work.call())  # and it goes on


@pytest.mark.parametrize("name", ["factorisations", "half_spectrum", "memory", "operations", "star_product"])
def test_cutnn_works_on_its_default_device(name: str, pretend_device: Any) -> None:
    case = load_case(name)
    expected = list(make(case, "cutnn", quick_sizes(case)[0]).answer())
    set_device("pretend")
    work = make(case, "cutnn", quick_sizes(case)[0])
    result = work.call()
    first = result[0] if isinstance(result, tuple | list) else result
    assert type(first).__name__ == "PretendArray"
    answer = list(work.answer())
    assert all(isinstance(a, np.ndarray) for a in answer)
    _check_agreement(case, "pretend", "cutnn", expected, answer)


def on_meta() -> list[Any]:
    """PyTorch's peers that can work where tensors hold no numbers: none reads one, or has the fused Adam."""
    found = [pair.values for pair in pairs()]
    return [
        (name, peer)
        for name, peer in found
        if "PyTorch" in peer and "compiled" not in peer and "fused" not in peer and name != "mnist_epoch"
    ]


@pytest.mark.parametrize(("name", "peer"), on_meta())
def test_pytorch_works_on_the_device_that_is_given(name: str, peer: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    case = load_case(name)
    for label in quick_sizes(case):
        if case.peers[peer].competes(label, "cpu"):
            result = make(case, peer, label, device="meta").call()
            results = result if isinstance(result, list | tuple) else [result]
            tensors = [t for t in results if torch.is_tensor(t)]
            assert tensors and all(t.device.type == "meta" for t in tensors)


# -------------------------------------------------------------------------------------------- ways of ours


def test_ways_to_run_cutnn_differ_in_their_environment() -> None:
    def work(captured: bool = False) -> str:
        return "captured" if captured else "plain"

    peers = ours(work, captures=True)  # type: ignore[arg-type]
    assert list(peers) == ["cutnn", MKL, CAPTURED, MKL_CAPTURED]
    assert all(peer.ours for peer in peers.values())
    switches = {name: set(peer.environment.values()) for name, peer in peers.items()}
    assert switches == {"cutnn": {"0"}, CAPTURED: {"0"}, MKL: {"1"}, MKL_CAPTURED: {"1"}}
    assert set(peers[MKL].also) == {"mkl", "numba"} and not peers["cutnn"].also
    assert [name for name, peer in peers.items() if peer.competes("any", "cuda")] == ["cutnn", CAPTURED]
    assert [peer.make() for peer in peers.values()] == ["plain", "plain", "captured", "captured"]
    assert list(ours(work)) == ["cutnn", MKL]  # type: ignore[arg-type]


def test_memory_of_reversible_activations_is_flat_and_of_stored_ones_grows() -> None:
    peaks = {
        (reversible, depth): _peak(memory.cutnn(depth, reversible=reversible))
        for reversible in (True, False)
        for depth in (2, 6)
    }
    assert peaks[True, 6] < 1.1 * peaks[True, 2]
    assert peaks[False, 6] > 2 * peaks[False, 2]


def test_the_memory_of_pytorch_is_that_of_its_tensors() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from bench.peaks import torch_peak

    def call() -> Any:
        first = torch.ones(2**20)  # 4 MiB
        second = first + 1
        del first
        return second * 2

    assert torch_peak(call, "cpu") == pytest.approx(8 * 2**20, rel=0.01)


def _peak(work: Work) -> float:
    assert work.peak is not None
    work.call()
    return work.peak(work.call)
