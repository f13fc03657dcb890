"""Where matrix products and fast transforms cross: the two roads are one map, and the length is read off rightly."""

import numpy as np
import pytest

from bench import crossover


@pytest.mark.parametrize("n", [5, 8])
@pytest.mark.parametrize(("name", "dtype"), [(name, d) for name, ds in crossover.DTYPES.items() for d in ds])
def test_both_roads_lead_there_and_back(name: str, dtype: str, n: int) -> None:
    pair = crossover.roads(name, n, dtype)
    if pair is None:
        assert name in ("hadamard", "haar") and n == 5
        return
    A = np.random.default_rng(0).standard_normal((n, *crossover.FACES)).astype(dtype)
    for road in pair:
        np.testing.assert_allclose(road(), A, atol=1e-5 if A.real.dtype == np.float32 else 1e-12)


@pytest.mark.parametrize(
    ("rows", "length"),
    [
        ({64: (1, 2), 128: (3, 2), 256: (9, 2)}, 128),
        ({64: (2, 1), 128: (1, 2), 256: (9, 2)}, 256),  # a length by chance is none
        ({64: (2, 1), 128: (9, 2)}, 64),
        ({64: (1, 2), 128: (2, 2)}, None),
    ],
)
def test_the_fast_road_has_to_win_from_there_on(
    rows: dict[int, tuple[float, float]], length: int | None
) -> None:
    assert crossover.wins_from(rows) == length


def test_it_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert crossover.main(["hadamard", "--rounds", "1", "--longest", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("hadamard, float32: fast from ") and lines[0].endswith("; now from 128")
    assert len(lines) == 4 and lines[1].startswith("  n = 64 ")
