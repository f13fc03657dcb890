from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import worker
from bench.case import Case, Cost, Growth, Peer, Share, Target, Unavailable, Work
from bench.harness import BenchmarkError, case_names, load_case, measure, measure_limits, worker_environment
from bench.machine import cores, host_kind, rates, version
from bench.report import page, table
from cutnn.device import is_available


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
    assert set(found.targets) <= {"*", *found.sizes_on("cuda")}
    everywhere = found.sizes_on("cuda")
    assert set(found.sizes) <= set(everywhere)
    targets = [(size, t) for size in everywhere for t in found.targets_of(size)]
    assert {t.peer for _, t in targets if isinstance(t, Target)} <= set(found.peers)
    for size, target in targets:
        assert any(name in found.peers and found.peers[name].ours for name in target.of)
        if isinstance(target, Target) and found.peers[target.peer].sizes and size in found.targets:
            assert found.peers[target.peer].competes(size, target.device), (size, target)
    for argument, curve in found.growth.items():
        assert set(curve) <= set(everywhere) and len({everywhere[label][argument] for label in curve}) == len(
            curve
        )
        assert len({tuple(sorted((set(everywhere[c].items()) - {(argument, everywhere[c][argument])}), key=str))
                    for c in curve}) == 1, f"the sizes of a curve differ in {argument} alone"  # fmt: skip
    for peer in found.peers.values():
        assert peer.sizes is None or set(peer.sizes) <= set(everywhere)
    for growth in found.growth_targets:
        assert {growth.first, growth.last} <= set(found.sizes) and growth.of in found.peers
    if found.cost:
        assert all(found.cost(**size).bytes > 0 for size in everywhere.values())


def test_all_cases_fit_into_ten_minutes() -> None:
    budgets = [load_case(name).seconds for name in case_names()]
    assert sum(budgets) <= 540  # the last rounds of a size may go beyond


# ----------------------------------------------------------------------- ways of ours, devices, limits, budgets


def says(name: str, seconds: float) -> Work:
    """Answers whether the process has what it should have of its environment."""
    return Work(lambda: time.sleep(seconds), lambda: [np.array([float(os.environ.get(name, "0"))])])


def device_given(device: str, seconds: float) -> Work:
    return Work(lambda: time.sleep(seconds), lambda: [np.array([float(device == "cpu")])])


def waits(seconds: float) -> Work:
    return Work(lambda: None, lambda: [np.array([1.0])], wait=lambda result: time.sleep(seconds))


def remembers(depth: int, growing: bool) -> Work:
    def peak(call: object) -> float:
        return (depth if growing else 1.05) * 2**20

    return Work(lambda: None, lambda: [np.array([1.0])], peak=peak)


def test_a_peer_has_an_environment_of_its_own() -> None:
    name = "BENCH_TEST_SWITCH"
    on = Peer("numpy", functools.partial(says, name), environment={name: "1"})
    off = Peer("numpy", functools.partial(says, name), environment={name: "0"})
    assert set(measure(case(slow=on))["sizes"]["short"]["peers"]) == {"cutnn", "slow"}
    with pytest.raises(BenchmarkError, match="answer 0 of slow"):
        measure(case(slow=off))
    assert name not in os.environ


def test_the_device_is_passed_to_who_asks_for_it() -> None:
    result = measure(case(slow=Peer("numpy", device_given)), quick=True, device="cpu")
    assert "slow" in result["sizes"]["short"]["peers"]
    assert result["device"] == "cpu"
    assert worker_environment(3, "cuda")["CUTNN_DEVICE"] == "cuda"
    assert worker_environment(3, "cuda")["JAX_PLATFORMS"] == "cuda"
    assert worker_environment(3, "cpu")["OMP_NUM_THREADS"] == "3"


def test_peers_compete_where_they_can() -> None:
    sizes = {"a": {"seconds": 0.002}, "b": {"seconds": 0.002}}
    some = Peer("numpy", fast, sizes=("b",))
    result = measure(
        replace(case(some=some, gpu=Peer("numpy", fast, devices=("cuda",))), sizes=sizes, targets={})
    )
    assert [list(size["peers"]) for size in result["sizes"].values()] == [["cutnn"], ["cutnn", "some"]]
    assert not result["sizes"]["a"]["absent"]


def test_what_a_device_does_after_a_call_returns_is_counted() -> None:
    result = measure(replace(case(slow=Peer("numpy", waits)), block_seconds=0.001))
    assert result["sizes"]["short"]["peers"]["slow"]["time"]["median"] > 19


def test_targets_name_which_of_ours_is_meant() -> None:
    quick = Peer("numpy", fast, ours=True)
    made = case(
        slow=Peer("numpy", slow), **{"cutnn, slow": Peer("numpy", slow, ours=True), "cutnn, quick": quick}
    )
    targets = [
        Target("slow", 2.0, "by the slow one", of=("cutnn, slow",)),
        Target("slow", 2.0, "by the faster one", of=("cutnn, slow", "cutnn, quick")),
        Target("slow", 2.0, "by one that is not here", of=("cutnn, absent",)),
        Target("absent", 2.0, "against one that is not here"),
        Target("slow", 100.0, "on a GPU", device="cuda"),
    ]
    result = measure(replace(made, targets={"*": targets}))
    verdicts = result["sizes"]["short"]["targets"]
    assert [v["passed"] for v in verdicts] == [False, True, None, None]
    assert [v["of"] for v in verdicts[:2]] == ["cutnn, slow", "cutnn, quick"]
    ratios = result["sizes"]["short"]["peers"]["cutnn"]["ratio_to"]
    assert ratios["cutnn, slow"]["median"] < 0.5 < ratios["cutnn, quick"]["median"]
    text = table(result)
    assert "by one that is not here: not judged" in text
    assert "cutnn, quick: by the faster one: reached" in text
    assert "to the fastest of ours" in text


def test_shares_of_the_limits() -> None:
    cost = lambda seconds: Cost(flops=2e9 * seconds, bytes=1e9 * seconds)  # noqa: E731
    limits = {"gemm": 1e10, "copy": 2e9, "gemm_by": "numpy", "copy_by": "numpy"}
    targets = [Share("gemm", 0.1, "a tenth of GEMM"), Share("roofline", 0.6, "three fifths of the roofline")]
    made = replace(case(), cost=cost, targets={"*": targets})
    result = measure(made, limits=limits)
    size = result["sizes"]["short"]
    assert size["cost"] == {"flops": pytest.approx(4e7), "bytes": pytest.approx(2e7)}
    share = size["peers"]["cutnn"]["share"]
    assert 0.1 < share["gemm"] <= 0.2  # 4 ms of GEMM in 20 ms of sleep and more
    assert share["roofline"] == pytest.approx(2.5 * share["gemm"])  # 10 ms of copying
    assert [target["passed"] for target in size["targets"]] == [True, False]
    assert "share of the limit" in table(result)
    assert [v["passed"] for v in measure(made)["sizes"]["short"]["targets"]] == [None, None]


def test_memory_and_its_growth() -> None:
    flat, grows = (Peer("numpy", functools.partial(remembers, growing=growing)) for growing in (False, True))
    made = Case(
        name="memory",
        title="Remembering",
        sizes={"depth 1": {"depth": 1}, "depth 4": {"depth": 4}},
        peers={"cutnn": flat, "grows": grows},
        growth_targets=[
            Growth("depth 1", "depth 4", 1.1, f"flat {of}", of=of) for of in ("cutnn", "grows", "absent")
        ],
        growth={"depth": ["depth 1", "depth 4"]},
        quantity="memory",
        unit="MB",
        rounds=1,
    )
    result = measure(made)
    assert result["sizes"]["depth 4"]["peers"]["grows"]["memory"]["median"] == 4
    assert [(v["of"], v["reached"], v["passed"]) for v in result["growth_targets"]] == [
        ("cutnn", 1.0, True),
        ("grows", 4.0, False),
    ]
    assert result["growth"] == {"depth": {"depth 1": 1, "depth 4": 4}}
    assert "grows: flat grows: **short**, 4" in table(result)


def test_rounds_end_with_the_seconds_of_the_case() -> None:
    made = replace(
        case(), rounds=1000, quick_rounds=2, seconds=1.5, sizes={str(i): {"seconds": 0.02} for i in (1, 2)}
    )
    began = time.monotonic()
    rounds = [size["rounds"] for size in measure(made)["sizes"].values()]
    assert all(2 <= count < 20 for count in rounds)
    assert time.monotonic() - began < 6


def test_the_limits_of_the_machine() -> None:
    small = rates("numpy", shrink=8)
    assert 1e8 < small["gemm"] < 1e13
    assert 1e8 < small["copy"] < 1e13
    limits = measure_limits(threads=1)
    assert limits["gemm"] > 1e9 and limits["gemm_by"] in ("numpy", "torch")
    assert f"{cores()}cores" in host_kind()


def test_a_gpu_that_is_missing_is_said() -> None:
    if version("torch") == version("cupy") == "not installed":
        pytest.skip("neither PyTorch nor CuPy is here to be asked")
    if is_available():
        pytest.skip("there is a GPU")
    assert measure_limits("cuda") == {}
    done = subprocess.run(
        [sys.executable, "-m", "bench", "operations", "--device", "cuda"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 1
    assert "no library here can use it" in done.stderr


def test_a_worker_answers_once_its_threads_sleep() -> None:
    ended: list[bool] = []

    def busy() -> None:
        until = time.perf_counter() + 0.15
        while time.perf_counter() < until:
            pass
        ended.append(True)

    thread = threading.Thread(target=busy)
    thread.start()
    worker._until_threads_sleep()
    assert ended
    thread.join()
