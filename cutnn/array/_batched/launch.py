"""The kernels made for a type of numbers and launched on arrays of CuPy, or of a library with its `RawKernel`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy

KINDS = {
    "f": ("float", "Real"),
    "d": ("double", "Real"),
    "F": ("float", "Complex"),
    "D": ("double", "Complex"),
}

# To be measured on a GPU: rows of a column for each of its lanes, and threads of a block.
_ROWS_PER_LANE = 4
_LEAST_LANES = 4
_MOST_THREADS = 1024
_WARP = 32
# Blocks that have their faces in the workspace, in global memory; more of them take turns.
_MOST_IN_WORKSPACE = 264


def source(kernel: str, kind: str, lanes: int) -> str:
    """The text of the kernel "jacobi" or "householder" for numbers of that character and lanes for a column."""
    here = Path(__file__).parent
    real, number = KINDS[kind]
    head = f"#define LANES {lanes}\ntypedef {real} Real;\n"
    scalars = (here / "scalars.cuh").read_text().replace("// HERE: T", f"typedef {number} T;")
    return head + scalars + (here / f"{kernel}.cuh").read_text()


@functools.cache
def _kernel(make: Any, name: str, kind: str, lanes: int) -> Any:
    return make(source(name, kind, lanes), name)


def _faces(x: Any) -> tuple[Any, ...]:
    """x (count, l, m) as a kernel gets it, with strides counted in numbers; copied only where they are not aligned."""
    if any(s % x.itemsize for s in x.strides) or _address(x) % x.itemsize:
        x = x.copy()
    return (x, *[numpy.int64(s // x.itemsize) for s in x.strides])


def _address(x: Any) -> int:
    return int(x.data.ptr) if hasattr(x.data, "ptr") else int(x.ctypes.data)


class Device(NamedTuple):
    """Where kernels run: the library of the arrays, its `RawKernel`, and the shared memory that a block can have."""

    xp: Any
    raw_kernel: Any
    shared_bytes: int
    strict: Callable[[], bool] = bool  # whether calls wait for what became of the faces


def _lanes(rows: int) -> int:
    """A power of 2 of lanes for columns of so many rows."""
    return min(_WARP, max(_LEAST_LANES, 1 << max(0, math.ceil(rows / _ROWS_PER_LANE) - 1).bit_length()))


def _launch(
    device: Device, name: str, x: Any, lanes: int, tasks: int, shared: int, blocks: int, args: tuple[Any, ...]
) -> None:
    kernel = _kernel(device.raw_kernel, name, x.dtype.char, lanes)
    if shared > 48 << 10:
        kernel.max_dynamic_shared_size_bytes = shared
    threads = min(_MOST_THREADS, -(-max(tasks, 1) * lanes // _WARP) * _WARP)
    kernel((blocks,), (threads,), args, shared_mem=shared)


class _QR(NamedTuple):
    """Factors of faces, and which of their columns is the i-th that was factored: (count, columns), or None."""

    q: Any
    r: Any
    order: Any


def householder(device: Device, x: Any, mode: str, *, adjoint: bool = False, sort: bool = False) -> _QR:
    """QR of faces x (count, l, m), none of the sizes 0, or of xᴴ, with columns sorted by size; no q in mode "r"."""
    xp, (count, rows, columns) = device.xp, x.shape
    if adjoint:
        rows, columns = columns, rows
    k, size = min(rows, columns), x.itemsize
    wanted = rows if mode == "complete" else k
    r_rows = k if sort else wanted
    q = None if mode == "r" else xp.empty((count, rows, wanted), dtype=x.dtype)
    r = xp.empty((count, r_rows, columns), dtype=x.dtype)
    order = xp.empty((count, columns), dtype=numpy.int32) if sort else None
    q_columns = 0 if q is None else wanted
    small = _round16(k * size + columns * (numpy.dtype(x.dtype.char.lower()).itemsize + 4))
    held = (rows | 1) * max(columns, q_columns)
    in_shared = small + held * size <= device.shared_bytes
    blocks = count if in_shared else min(count, _MOST_IN_WORKSPACE)
    workspace = xp.empty(1 if in_shared else blocks * held, dtype=x.dtype)
    args = (*_faces(x.mT if adjoint else x), numpy.int32(adjoint), _or_null(order), _or_null(q), r, workspace)
    args += tuple(map(numpy.int32, (in_shared, count, rows, columns, q_columns, r_rows)))
    shared = small + (held * size if in_shared else 0)
    _launch(device, "householder", x, _lanes(rows), max(columns, wanted) - 1, shared, blocks, args)
    return _QR(q, r, order)


class _Side(NamedTuple):
    """Where singular vectors go: an array or None, the strides of their components and of their number, conjugated?"""

    array: Any
    strides: tuple[int, int]
    conjugated: bool

    def args(self) -> tuple[Any, ...]:
        return (_or_null(self.array), *map(numpy.int32, (*self.strides, self.conjugated)))


_NONE = _Side(None, (0, 0), False)


def svd(device: Device, x: Any, full_matrices: bool, vectors: bool) -> tuple[Any, Any, Any, Any]:
    """U, S, Vh of faces x (count, l, m), none of the sizes 0, and what became of each; U and Vh None if not wanted."""
    xp, (count, rows, columns) = device.xp, x.shape
    wide, k, longer = rows < columns, min(rows, columns), max(rows, columns)
    # A tall B, x or xᴴ, has B P = Q R, and the kernel finds Rᴴ V₂ = U₂ S: B = (Q V₂) S (P U₂)ᴴ.
    mode = ("complete" if full_matrices else "reduced") if vectors else "r"
    q, r, order = householder(device, x, mode, adjoint=wide, sort=True)
    if not vectors:
        s, info = _jacobi(device, r, False, _NONE, None, _NONE, None)
        return None, s, None, info
    further = q.shape[-1]
    u = xp.empty((count, rows, k if wide else further), dtype=x.dtype)
    vh = xp.empty((count, further if wide else k, columns), dtype=x.dtype)
    if wide:
        long, short = _Side(vh, (1, longer), True), _Side(u, (k, 1), False)
    else:
        long, short = _Side(u, (further, 1), False), _Side(vh, (1, k), True)
    s, info = _jacobi(device, r, False, short, order, long, q)
    return u, s, vh, info


def eigh(device: Device, x: Any, vectors: bool) -> tuple[Any, Any, Any]:
    """Eigenvalues, eigenvectors (None if not wanted) of Hermitian faces x (count, n, n), and what became of each."""
    v = device.xp.empty(x.shape, dtype=x.dtype) if vectors else None
    side = _Side(v, (x.shape[-1], 1), False)
    w, info = _jacobi(device, x, True, side if vectors else _NONE, None, _NONE, None)
    return w, v, info


def _jacobi(
    device: Device, x: Any, hermitian: bool, u: _Side, order: Any, v: _Side, q: Any
) -> tuple[Any, Any]:
    """S of faces x (count, n, n), and what became of each."""
    xp, (count, n, _), size = device.xp, x.shape, x.itemsize
    real = numpy.dtype(x.dtype.char.lower())
    s, info = xp.empty((count, n), dtype=real), xp.empty(count, dtype=numpy.int32)
    small = _round16(n * (size + 2 * real.itemsize + 4))
    face = (n | 1) * n
    room = (device.shared_bytes - small) // (face * size)  # for so many of G and V
    g_shared, v_shared = room >= 1, v.array is None or room >= 2
    inside = int(g_shared) + int(v_shared and v.array is not None)
    outside = 1 + (v.array is not None) - inside
    blocks = min(count, _MOST_IN_WORKSPACE) if outside else count
    workspace = xp.empty(max(1, blocks * outside * face), dtype=x.dtype)
    args = (*_faces(x), numpy.int32(hermitian), s, *u.args(), _or_null(order), *v.args(), _or_null(q))
    args += tuple(map(numpy.int32, (0, 0) if q is None else q.shape[1:]))
    args += (info, workspace, *map(numpy.int32, (g_shared, v_shared, count, n)))
    _launch(device, "jacobi", x, _lanes(n), (n + 1) // 2, small + inside * face * size, blocks, args)
    return s, info


def _or_null(x: Any) -> Any:
    return numpy.uintp(0) if x is None else x


def _round16(size: int) -> int:
    return -(-size // 16) * 16
