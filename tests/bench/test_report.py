"""BENCHMARKS.md: where a peer is ahead, which targets are short, what a GPU still has to show, and the pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.report import ahead, draw, page, read, table


def spread(median: float) -> dict[str, float]:
    return {"median": median, "low": 0.9 * median, "high": 1.1 * median}


def peer(time: float, alone: float, extra: float) -> dict[str, Any]:
    """A peer that took so long, beside cutnn alone and cutnn with its extra."""
    share = {"gemm": 0.1 / time, "roofline": 0.5 / time}
    return {
        "time": spread(time), "ratio": spread(time / alone), "ratio_to": {"cutnn, mkl": spread(time / extra)},
        "share": share, "version": "1",
    }  # fmt: skip


def result(device: str = "cpu", host: str = "here") -> dict[str, Any]:
    """Sizes n = 2 and 4; one peer is faster than cutnn alone at n = 4, and slower than cutnn with its extra."""
    sizes = {}
    for n, times in {2: (1.0, 0.8, 2.0), 4: (4.0, 2.0, 3.0)}.items():
        alone, extra, other = times
        names = dict(zip(("cutnn", "cutnn, mkl", "Other"), times, strict=True))
        sizes[f"n = {n}"] = {
            "peers": {name: peer(time, alone, extra) for name, time in names.items()},
            "absent": {"Third": "not installed"},
            "others_cores": 0.0,
            "rounds": 3,
            "cost": {"flops": 1e6 * n**3, "bytes": 1e5 * n**2},
            "targets": [
                {"what": "twice Other", "at_least": 2.0, "of": "cutnn", "reached": other / alone}
                | {"passed": other / alone >= 2}
            ],
        }
    machine = {"cpu": "A CPU", "cores": 2, "memory_gb": 8.0, "os": "Linux 6"}
    return {
        "case": "toy", "title": "A toy", "unit": "ms", "quantity": "time", "ours": ["cutnn", "cutnn, mkl"],
        "device": device, "machine": machine | ({"gpu": "A GPU"} if device == "cuda" else {}), "threads": 2,
        "versions": {"python": "3"}, "commit": "0123456789abcdef", "date": "2026-01-01T00:00:00",
        "limits": {"gemm": 1e11, "gemm_by": "torch", "copy": 1e10, "copy_by": "numpy"}, "host": host,
        "growth": {"n": {"n = 2": 2, "n = 4": 4}}, "growth_targets": [], "sizes": sizes,
    }  # fmt: skip


def test_where_a_peer_is_ahead_is_said_first() -> None:
    found = ahead(result())
    assert [(label, name) for label, name, *_ in found] == [("n = 4", "Other")]
    assert found[0][2:] == (pytest.approx(4 / 3), pytest.approx(2 / 3))
    text = page([result()])
    line = "* `toy`, n = 4: Other is ahead of `cutnn`, 1.33× as fast; of the fastest of ours 0.667×"
    assert line in text
    assert (
        text.index("## Where a peer is ahead")
        < text.index("## Targets that are not reached")
        < text.index("## CPU")
    )
    assert "* `toy`, n = 4: twice Other: **short**, 0.75" in text


def test_nothing_is_invented() -> None:
    text = page([result()])
    assert "## GPU\n\nStill to be measured" in text
    assert "A GPU" not in text
    with_gpu = page([result("cuda", "gpu"), result()])
    assert "Still to be measured" not in with_gpu
    assert with_gpu.index("## CPU: A CPU") < with_gpu.index("## GPU: A GPU")
    assert "Nothing has been measured." in page([])


def test_a_table_has_both_ratios_and_the_share() -> None:
    lines = table(result()).splitlines()
    heads = [head.strip() for head in lines[4].split("|")[1:-1]]
    assert heads == ["size", "", "ms", "ratio to cutnn", "to the fastest of ours", "share of the limit"]
    other = next(line for line in lines if "n = 4" in line and "Other" in line)
    assert [cell.strip() for cell in other.split("|")[4:7]] == [
        "0.75 [0.675, 0.825]",
        "1.5 [1.35, 1.65]",
        "17 %",
    ]
    assert any("**cutnn, mkl**" in line for line in lines)
    assert "n = 2; n = 4: no Third, not installed" in table(result())


def test_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
    for host, device in (("here", "cpu"), ("a-gpu", "cuda")):
        made = {key: value for key, value in result(device).items() if key != "host"}
        (tmp_path / f"toy-{host}.json").write_text(json.dumps(made))
    results = read(tmp_path)
    assert [r["host"] for r in results] == ["a-gpu", "here"]
    names = draw(results, tmp_path)
    assert sorted(names) == sorted(
        f"{kind}-{host}.png" for kind in ("roofline", "growth-toy") for host in ("here", "a-gpu")
    )
    assert all((tmp_path / name).stat().st_size > 5000 for name in names)
    text = page(results, names)
    assert text.index("![growth-toy-here.png](bench/results/growth-toy-here.png)") < text.index("## GPU")
    assert text.count("](bench/results/") == 4


def test_the_points_of_the_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
    from bench import pictures

    roof = pictures.roofline([result()])
    lines = {tuple(np.round(line.get_ydata(), 3)) for line in roof.axes[0].lines if len(line.get_xdata())}
    assert (8e6 / 0.8e-3, 64e6 / 2e-3) in {
        tuple(float(y) for y in line) for line in lines
    }  # the fastest of ours
    assert any(max(line) == 1e11 for line in lines)
    curves = pictures.growth(result())
    drawn = {tuple(line.get_ydata()) for line in curves.axes[0].lines}
    assert {(1.0, 4.0), (0.8, 2.0), (2.0, 3.0)} <= drawn
    without = result() | {"limits": {}, "growth": {}}
    assert pictures.roofline([without]) is None
    assert pictures.growth(without) is None


def test_the_results_that_are_kept_can_be_read() -> None:
    results = read()
    text = page(results)
    for kept in results:
        assert table(kept) in text
