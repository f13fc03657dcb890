"""The t-product of real tensors: by half the faces of the spectrum, which real tubes allow, and by all of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from bench.case import OURS, Case, Peer, Target, Work
from bench.cases.star_product import Shape
from bench.cases.star_product import cost as cost_of_product
from bench.libraries import cutnn_work, torch_work
from bench.ours import ours


def cutnn(full: bool = False, **sides: Any) -> Work:
    """A ★ B over the DFT, `full` of complex tensors without an imaginary part."""
    import cutnn as ct
    from cutnn import algebra

    shape = Shape(**sides)
    A, B = ct.to_device([x.astype(np.complex64) if full else x for x in shape.operands()])
    star = algebra.fft(shape.n)
    return cutnn_work(lambda: star(A, B), lambda: [star(A, B).real])


def pytorch(device: str, full: bool = False, **sides: Any) -> Work:
    import torch

    from bench.peers.torch_faces_first import t_product

    A, B = (torch.tensor(x, device=device) for x in Shape(**sides).operands())

    def by_all_faces(A: Any, B: Any) -> Any:
        return torch.fft.ifft(torch.fft.fft(A, dim=0) @ torch.fft.fft(B, dim=0), dim=0).real

    def call() -> Any:
        with torch.inference_mode():
            return (by_all_faces if full else t_product)(A, B)

    return torch_work(call, lambda: [call()], device)


def _sides(rows: int, inner: int, columns: int, n: int) -> dict[str, int]:
    return {"rows": rows, "inner": inner, "columns": columns, "n": n}


_FULL = "cutnn, full spectrum"
_ALL = ours(cutnn)

CASE = Case(
    name="half_spectrum",
    title="The t-product of real float32 tensors by half the spectrum, against the full one",
    sizes={
        "96×96 by 96×32, 32 faces": _sides(96, 96, 32, 32),
        "28×28 by 28×32, 33 faces": _sides(28, 28, 32, 33),
        "128×128 by 128×128, 64 faces": _sides(128, 128, 128, 64),
    },
    peers={
        **_ALL,
        _FULL: replace(_ALL[OURS], make=partial(cutnn, full=True)),
        "PyTorch, half spectrum": Peer("torch", pytorch),
        "PyTorch, full spectrum": Peer("torch", partial(pytorch, full=True)),
    },
    targets={"*": [Target(_FULL, 1.7, "at least 1.7× faster than by the full spectrum")]},
    cost=partial(cost_of_product, transform="fft"),
    rounds=15,
    seconds=30,
)
