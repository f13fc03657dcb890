"""The ★ product, from tensors to tensor: transforms, facewise product and the way back."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bench import costs
from bench.case import Case, Cost, Peer, Share, Target, Unavailable, Work
from bench.libraries import cutnn_work, jax_on_device, jax_work, torch_compiled, torch_work
from bench.nets import dct_matrix
from bench.ours import ALONE, WITH_EXTRA, ours
from bench.steps import compiled_peers


@dataclass(frozen=True)
class Shape:
    """Tensors of n faces (n × n4 of order 4), rows×inner and inner×columns; `batch` of them where it is given."""

    rows: int
    inner: int
    columns: int
    n: int
    n4: int | None = None
    batch: int | None = None

    @property
    def tubes(self) -> tuple[int, ...]:
        return (self.n,) if self.n4 is None else (self.n, self.n4)

    @property
    def is_plain(self) -> bool:
        """Of order 3, and one at a time."""
        return self.n4 is None and self.batch is None

    def operands(self) -> tuple[np.ndarray, np.ndarray]:
        """Float32, faces first."""
        rng = np.random.default_rng(0)
        lead = (*(() if self.batch is None else (self.batch,)), *self.tubes)
        return (
            rng.standard_normal((*lead, self.rows, self.inner), dtype=np.float32),
            rng.standard_normal((*lead, self.inner, self.columns), dtype=np.float32),
        )

    def matrices(self) -> list[np.ndarray]:
        return [dct_matrix(n).astype(np.float32) for n in self.tubes]


def cutnn(transform: str, **sides: Any) -> Work:
    import cutnn as ct
    from cutnn import algebra

    shape = Shape(**sides)
    A, B = ct.to_device(shape.operands())
    stars = [getattr(algebra, transform)(n) for n in shape.tubes]
    star = stars[0] if len(stars) == 1 else algebra.product(*stars)
    return cutnn_work(lambda: star(A, B), lambda: [star(A, B)])


def pytorch(layout: str, transform: str, device: str, compiled: str | None = None, **sides: Any) -> Work:
    import torch

    shape = Shape(**sides)
    module = importlib.import_module(f"bench.peers.{layout}")
    order = len(shape.tubes)
    here, there = (
        tuple(range(-order - 2, -2)),
        tuple(range(-order, 0)),
    )  # the tubes' axes, faces first and last
    last = layout == "torch_tubes_last"
    operands = (np.ascontiguousarray(np.moveaxis(x, here, there)) if last else x for x in shape.operands())
    A, B = (torch.tensor(x, device=device) for x in operands)
    matrices = [torch.tensor(M, device=device) for M in shape.matrices()]
    product = torch_compiled(_product(module, transform, shape, matrices), compiled, device)

    def call() -> Any:
        with torch.inference_mode():
            return product(A, B)

    return torch_work(call, lambda: [call().movedim(there, here) if last else call()], device)


def jax(transform: str, **sides: Any) -> Work:
    jax = jax_on_device()
    from bench.peers import jax_faces_first

    shape = Shape(**sides)
    A, B = jax.device_put(shape.operands())
    product = jax.jit(_product(jax_faces_first, transform, shape, jax.device_put(shape.matrices())))
    return jax_work(lambda: product(A, B), lambda: [product(A, B)])


def _product(module: Any, transform: str, shape: Shape, matrices: list[Any]) -> Callable[[Any, Any], Any]:
    """A function of the two operands, by a module of `bench.peers`."""
    if transform == "fft":
        product: Callable[[Any, Any], Any] = module.t_product
        return product
    if shape.is_plain:
        return lambda A, B: module.star_product(A, B, matrices[0])
    return lambda A, B: module.star_product_over(A, B, matrices)


def mprod(transform: str, **sides: Any) -> Work:
    from mprod import generate_dct, m_prod

    A, B = _of_order_three(Shape(**sides))
    pair = generate_dct(sides["n"]) if transform == "dct" else _fft_pair(sides["n"])
    return Work(lambda: m_prod(A, B, *pair), lambda: [_faces_first(m_prod(A, B, *pair))])


def tred(transform: str, **sides: Any) -> Work:
    from tred import generate_dctii_m_transform_pair, m_product

    A, B = _of_order_three(Shape(**sides))
    there, back = generate_dctii_m_transform_pair(sides["n"]) if transform == "dct" else _fft_pair(sides["n"])

    def call() -> Any:
        return m_product(A, B, M=there, Minv=back)

    return Work(call, lambda: [_faces_first(call())])


def _of_order_three(shape: Shape) -> list[np.ndarray]:
    """The operands tubes last, for packages that know no more than that."""
    if not shape.is_plain:
        raise Unavailable("takes tensors of order 3, one at a time")
    return [np.ascontiguousarray(x.transpose(1, 2, 0)) for x in shape.operands()]


def _faces_first(a: Any) -> np.ndarray:
    return np.asarray(a).transpose(2, 0, 1)


def _fft_pair(n: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """The half-spectrum transform, for packages that bring none but take any pair of functions."""
    from scipy.fft import irfft, rfft

    return lambda x: rfft(x, axis=-1), lambda x: irfft(x, n=n, axis=-1)


def cost(transform: str, **sides: Any) -> Cost:
    shape = Shape(**sides)
    return costs.star_product(
        shape.rows, shape.inner, shape.columns, shape.tubes, batch=shape.batch or 1, fft=transform == "fft"
    )


# ---------------------------------------------------------------------------------------------------- sizes


def _label(rows: int, inner: int, columns: int, n: int, transform: str = "DCT") -> str:
    return f"{rows}×{inner} by {inner}×{columns}, {n} faces, {transform}"


def _size(rows: int, inner: int, columns: int, n: int, transform: str = "dct", **more: int) -> dict[str, Any]:
    size = {"rows": rows, "inner": inner, "columns": columns, "n": n}
    return size | {"transform": transform} | more


def _with_dct(*shapes: tuple[int, int, int, int]) -> dict[str, dict[str, Any]]:
    return {_label(*shape): _size(*shape) for shape in shapes}


_MAIN, _WIDE, _LARGEST = (96, 96, 32, 32), (96, 96, 256, 32), (256, 256, 256, 32)
_ROWS = [(rows, 96, 32, 32) for rows in (24, 96, 384)]
_COLUMNS = [(96, 96, columns, 32) for columns in (8, 32, 256)]
_FACES = [(96, 96, 32, n) for n in (8, 32, 128)]
_KNOWN = _with_dct(_MAIN, _WIDE, _LARGEST, (28, 28, 32, 28), (4, 4, 4, 4), (16, 16, 16, 512)) | {
    _label(96, 96, 32, 32, "t-product"): _size(96, 96, 32, 32, "fft"),
    _label(28, 28, 32, 33, "t-product"): _size(28, 28, 32, 33, "fft"),
}
_LAST, _FIRST = "PyTorch, tubes last", "PyTorch, faces first"
_BESIDE_PYTORCH = [
    Target(_LAST, 2.5, "at least 2.5× faster than PyTorch, tubes last", of=ALONE),
    Target(_FIRST, 1.0, "not slower than PyTorch, faces first", of=WITH_EXTRA),
]
_OF_THE_LIMIT = Share("gemm", 0.6, "at least 60 % of the GEMM rate", of=WITH_EXTRA)

CASE = Case(
    name="star_product",
    title="The ★ product of float32 tensors, from tensors to tensor",
    sizes={
        **_KNOWN,
        "32×32 by 32×32, 8×8 faces (order 4), DCT": _size(32, 32, 32, 8, n4=8),
        "32×32 by 32×32, 16 faces, DCT, batch of 16": _size(32, 32, 32, 16, batch=16),
        **_with_dct(*_ROWS, *_COLUMNS, *_FACES),
    },
    peers={
        **ours(cutnn),
        _FIRST: Peer("torch", partial(pytorch, "torch_faces_first")),
        _LAST: Peer("torch", partial(pytorch, "torch_tubes_last")),
        **compiled_peers(
            partial(pytorch, "torch_faces_first"), sizes=tuple(_with_dct(_MAIN, _WIDE, _LARGEST))
        ),
        "JAX jit": Peer("jax", jax),
        "mprod-package": Peer("mprod-package", mprod, devices=("cpu",), sizes=tuple(_KNOWN)),
        "tred": Peer("tred", tred, devices=("cpu",), sizes=tuple(_KNOWN)),
    },
    targets={
        label: [
            *(_BESIDE_PYTORCH if label in _with_dct(_MAIN, _WIDE, _LARGEST) else []),
            *([_OF_THE_LIMIT] if label == _label(*_LARGEST) else []),
            *(Target(package, 1.0, f"faster than {package}") for package in ("mprod-package", "tred")),
        ]
        for label in _KNOWN
    },
    cost=cost,
    growth={
        "rows": [_label(*shape) for shape in _ROWS],
        "columns": [_label(*shape) for shape in _COLUMNS],
        "n": [_label(*shape) for shape in _FACES],
    },
    quick_sizes=3,
    rounds=11,
    seconds=70,
)
