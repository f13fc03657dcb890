"""The ways to run cutnn that compete: NumPy alone, with the optional CPU extra, and as captured steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bench.case import OURS, Peer, Work

MKL = "cutnn, mkl"
CAPTURED = "cutnn, captured"
MKL_CAPTURED = "cutnn, mkl, captured"
# For targets: NumPy alone, and with the extra; of a step that is captured and one that is not the faster counts.
ALONE, WITH_EXTRA = (OURS, CAPTURED), (MKL, MKL_CAPTURED)

_SWITCHES = (
    "CUTNN_MKL",
    "CUTNN_NUMBA",
)  # read by cutnn when it is imported; "0" turns a part of the extra off


def ours(make: Callable[..., Work], captures: bool = False) -> dict[str, Peer]:
    """cutnn without and with the optional CPU extra; where `make` takes `captured=True`, also captured.

    On a GPU the extra has nothing to do, and is left out.
    """
    peers = {OURS: _alone(make), MKL: _with_extra(make)}
    if captures:
        captured = partial(make, captured=True)
        peers |= {CAPTURED: _alone(captured), MKL_CAPTURED: _with_extra(captured)}
    return peers


def _alone(make: Callable[..., Work]) -> Peer:
    return Peer("cutnn", make, environment=dict.fromkeys(_SWITCHES, "0"), ours=True)


def _with_extra(make: Callable[..., Work]) -> Peer:
    on = dict.fromkeys(_SWITCHES, "1")
    return Peer("cutnn", make, also=("mkl", "numba"), environment=on, devices=("cpu",), ours=True)
