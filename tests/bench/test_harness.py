from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench.case import Case, Peer, Target, Unavailable, Work
from bench.harness import BenchmarkError, case_names, load_case, measure
from bench.report import page, table


def sleeper(seconds: float, slower: float = 1.0, answer: float = 1.0) -> Work:
    return Work(lambda: time.sleep(seconds * slower), lambda: [np.array([answer])])


def fast(seconds: float) -> Work:
    return sleeper(seconds)


def slow(seconds: float) -> Work:
    return sleeper(seconds, slower=4.0)


def wrong(seconds: float) -> Work:
    return sleeper(seconds, answer=1.1)


def broken(seconds: float) -> Work:
    raise ZeroDivisionError("broken")


def without_data(seconds: float) -> Work:
    raise Unavailable("no data here")


def case(**peers: Peer) -> Case:
    return Case(
        name="sleep",
        title="Sleeping",
        sizes={"short": {"seconds": 0.02}},
        peers={"cutnn": Peer("numpy", fast)} | peers,
        targets={"*": [Target("slow", 2.0, "twice as fast as slow"), Target("slow", 6.0, "six times")]},
        rounds=3,
        block_seconds=0.02,
    )


def test_ratio_and_targets() -> None:
    result = measure(case(slow=Peer("numpy", slow)))
    size = result["sizes"]["short"]
    assert 19 < size["peers"]["cutnn"]["time"]["median"] < 40
    assert 2.0 < size["peers"]["slow"]["ratio"]["median"] < 4.1
    assert [target["passed"] for target in size["targets"]] == [True, False]
    text = table(result)
    assert "twice as fast as slow: reached" in text
    assert "six times: **short**" in text
    assert text in page([result])


def test_a_busy_machine_is_said() -> None:
    result = measure(case(slow=Peer("numpy", slow)))
    result["sizes"]["short"]["others_cores"] = 0.0
    assert "do not trust" not in table(result)
    result["sizes"]["short"]["others_cores"] = 1.5
    assert "do not trust this**, other programs took 1.5 of" in table(result)


def test_the_time_of_others_is_counted() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as hog:
        try:
            result = measure(case())
        finally:
            hog.kill()
    if Path("/proc/stat").exists():
        assert result["sizes"]["short"]["others_cores"] > 0.3


def test_a_missing_peer_is_said() -> None:
    result = measure(case(absent=Peer("no-such-package-at-all", fast), nothing=Peer("numpy", without_data)))
    absent = result["sizes"]["short"]["absent"]
    assert absent == {"absent": "not installed", "nothing": "no data here"}
    assert "no absent, not installed" in table(result)


def test_a_case_that_cutnn_cannot_run_is_skipped_visibly() -> None:
    result = measure(case(cutnn=Peer("numpy", without_data), slow=Peer("numpy", slow)))
    assert result["sizes"]["short"]["skipped"] == "no data here"
    assert "skipped, no data here" in table(result)


def test_a_wrong_answer_stops_the_case() -> None:
    with pytest.raises(BenchmarkError, match=r"of wrong, of shape \(1,\), differs .* by 0\.1"):
        measure(case(wrong=Peer("numpy", wrong)))


def test_a_failure_shows_its_traceback() -> None:
    with pytest.raises(BenchmarkError, match="broken failed at 'make'(?s:.*)ZeroDivisionError"):
        measure(case(broken=Peer("numpy", broken)))


@pytest.mark.parametrize("name", case_names())
def test_every_case_is_well_formed(name: str) -> None:
    found = load_case(name)
    assert found.name == name
    assert "cutnn" in found.peers
    assert set(found.targets) <= {"*", *found.sizes}
    assert {t.peer for size in found.sizes for t in found.targets_of(size)} <= set(found.peers)
