"""The bar of a solver: drawn on a terminal only."""

from __future__ import annotations

import io

import pytest

from cutnn import algebra, train


@pytest.mark.parametrize("show", [True, False])
@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_of_a_solver_is_drawn_on_a_terminal_only(monkeypatch, terminal, show):
    pytest.importorskip("rich")
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("sys.stderr", stream)
    star = algebra.dct(4)
    with train.solver_progress(show) as callback:
        result = algebra.lowrank.robust_pca(
            star, star.random(6, 6, seed=0), tolerance=1e-4, callback=callback
        )
    assert result.converged
    drawn = all(word in stream.getvalue() for word in ("iteration 1", "residual", "tubal rank"))
    assert drawn == (terminal and show)
    assert drawn or stream.getvalue() == ""
