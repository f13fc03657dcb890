"""The ★ product, from tensors to tensor: transforms, facewise product and the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.case import Case, Peer, Target, Work
from bench.nets import dct_matrix


def operands(rows: int, inner: int, columns: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Float32 tensors of n faces, rows×inner and inner×columns, faces first."""
    rng = np.random.default_rng(0)
    return (
        rng.standard_normal((n, rows, inner), dtype=np.float32),
        rng.standard_normal((n, inner, columns), dtype=np.float32),
    )


def _tubes_last(*arrays: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(a.transpose(1, 2, 0)) for a in arrays]


def _faces_first(a: Any) -> np.ndarray:
    return np.asarray(a).transpose(2, 0, 1)


def cutnn(transform: str, **shape: int) -> Work:
    from cutnn import algebra

    A, B = operands(**shape)
    star = getattr(algebra, transform)(shape["n"])
    return Work(lambda: star(A, B), lambda: [star(A, B)])


def _pytorch(module: Any, transform: str, operands: Any) -> Callable[[], Any]:
    import torch

    A, B = map(torch.tensor, operands)
    n = A.shape[0] if module.__name__.endswith("faces_first") else A.shape[-1]
    M = torch.tensor(dct_matrix(n).astype(np.float32))

    def call() -> Any:
        with torch.inference_mode():
            return module.t_product(A, B) if transform == "fft" else module.star_product(A, B, M)

    return call


def pytorch_tubes_last(transform: str, **shape: int) -> Work:
    from bench.peers import torch_tubes_last

    call = _pytorch(torch_tubes_last, transform, _tubes_last(*operands(**shape)))
    return Work(call, lambda: [_faces_first(call())])


def pytorch_faces_first(transform: str, **shape: int) -> Work:
    from bench.peers import torch_faces_first

    call = _pytorch(torch_faces_first, transform, operands(**shape))
    return Work(call, lambda: [call().numpy()])


def mprod(transform: str, **shape: int) -> Work:
    from mprod import generate_dct, m_prod

    A, B = _tubes_last(*operands(**shape))
    pair = generate_dct(shape["n"]) if transform == "dct" else _fft_pair(shape["n"])
    return Work(lambda: m_prod(A, B, *pair), lambda: [_faces_first(m_prod(A, B, *pair))])


def tred(transform: str, **shape: int) -> Work:
    from tred import generate_dctii_m_transform_pair, m_product

    A, B = _tubes_last(*operands(**shape))
    there, back = generate_dctii_m_transform_pair(shape["n"]) if transform == "dct" else _fft_pair(shape["n"])

    def call() -> Any:
        return m_product(A, B, M=there, Minv=back)

    return Work(call, lambda: [_faces_first(call())])


def _fft_pair(n: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """The half-spectrum transform, for packages that bring none but take any pair of functions."""
    from scipy.fft import irfft, rfft

    return lambda x: rfft(x, axis=-1), lambda x: irfft(x, n=n, axis=-1)


def _size(rows: int, inner: int, columns: int, n: int, transform: str = "dct") -> dict[str, Any]:
    return {"rows": rows, "inner": inner, "columns": columns, "n": n, "transform": transform}


_MAIN = "96×96 by 96×32, 32 faces, DCT"
_SIZES = {
    _MAIN: _size(96, 96, 32, 32),
    "28×28 by 28×32, 28 faces, DCT": _size(28, 28, 32, 28),
    "4×4 by 4×4, 4 faces, DCT": _size(4, 4, 4, 4),
    "256×256 by 256×256, 64 faces, DCT": _size(256, 256, 256, 64),
    "10×28 by 28×1000, 28 faces, DCT": _size(10, 28, 1000, 28),
    "16×16 by 16×16, 512 faces, DCT": _size(16, 16, 16, 512),
    "96×96 by 96×32, 32 faces, t-product": _size(96, 96, 32, 32, "fft"),
    "28×28 by 28×32, 33 faces, t-product": _size(28, 28, 32, 33, "fft"),
}

CASE = Case(
    name="star_product",
    title="The ★ product of float32 tensors, from tensors to tensor",
    sizes=_SIZES,
    peers={
        "cutnn": Peer("cutnn", cutnn),
        "PyTorch, faces first": Peer("torch", pytorch_faces_first),
        "PyTorch, tubes last": Peer("torch", pytorch_tubes_last),
        "mprod-package": Peer("mprod-package", mprod),
        "tred": Peer("tred", tred),
    },
    targets={
        _MAIN: [
            Target("PyTorch, tubes last", 2.0, "at least 2× faster than PyTorch, tubes last"),
            Target("PyTorch, faces first", 1 / 1.8, "at most 1.8× the time of PyTorch, faces first (0.556)"),
        ],
        "*": [
            Target("mprod-package", 1.0, "faster than mprod-package"),
            Target("tred", 1.0, "faster than tred"),
        ],
    },
    quick_sizes=3,
    rounds=15,
)
