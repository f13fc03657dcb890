"""Matrix products by MKL, where its wheel is installed: one call, on all cores, for a batch of any strides.

Found beside NumPy, which keeps its own BLAS: `pip install 'cutnn[cpu]'` brings it, CUTNN_MKL=0 declines. Its threads
are those of GNU OpenMP, and fused loops run on them as well (`_fused/on_numba.py`). They do not outlive a fork: in the
child products and loops are left to NumPy and the helpers of `cutnn/_cores.py`. `numpy.errstate` does not see what it
does.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from cutnn.array._strides import Form, layout, merged, over

WORTH = 1 << 18
"""Multiplications from which MKL is asked: of 4×4 by 4×4 the call takes 11 µs, NumPy's 2.

From as many on OpenBLAS takes threads, for which the next loop on those of OpenMP would have to wait.
"""

SHARED = 2_000_000
"""Multiplications from which the columns of a single product are shared among the cores."""

_LONG = 4  # columns a row, from which a single product is of few rows and many columns
_ROW_MAJOR, _AS_IT_IS, _TRANSPOSED = 101, 111, 112
_GNU_THREADS = 3
_INT, _POINTER = ctypes.c_int, ctypes.c_void_p


def is_here() -> bool:
    """Whether MKL is at hand."""
    return _library() is not None


def openmp_threads() -> int:
    """How many threads of GNU OpenMP MKL has; 0 where it is not at hand, or was given others."""
    library = _library()
    return library.get_threads() if library is not None and library.openmp else 0


def matmul(x1: Any, x2: Any, out: Any = None) -> Any:
    """x1 @ x2 for NumPy arrays of one dtype, two axes or more; None where MKL is not at hand, or cannot do it."""
    library = _library()
    if library is None or not x1.dtype.isnative:
        return None
    plan = _planned(library, x1.dtype.char, x1.shape, x1.strides, x2.shape, x2.strides)
    if plan is None:
        return None
    product = numpy.empty(plan.shape, x1.dtype) if out is None else out
    plan.run(_address(x1), _address(x2), _address(product))
    return product


class _Interface(ctypes.Structure):
    """PyArrayInterface, of NumPy's array interface protocol."""

    _fields_ = [
        ("two", _INT), ("nd", _INT), ("typekind", ctypes.c_char), ("itemsize", _INT), ("flags", _INT),
        ("shape", _POINTER), ("strides", _POINTER), ("data", _POINTER),
    ]  # fmt: skip


# By [], which makes a function of our own: the attribute of that name is everybody's.
_pointer = ctypes.pythonapi["PyCapsule_GetPointer"]
_pointer.restype, _pointer.argtypes = _POINTER, [ctypes.py_object, ctypes.c_char_p]
_read, _data = _POINTER.from_address, _Interface.data.offset


def _address(x: Any) -> int:
    """x.ctypes.data, in 0.7 µs in place of 2.2."""
    capsule = x.__array_struct__  # it owns what it points to
    return _read(_pointer(capsule, None) + _data).value  # type: ignore[return-value]


class _Plan(NamedTuple):
    """How arrays of given shapes and strides are multiplied: the result's shape, and a function of three addresses."""

    shape: tuple[int, ...]
    run: Callable[[int, int, int], Any]


class _Operand(NamedTuple):
    """A batch of matrices as BLAS takes it."""

    order: int
    leading: int  # entries from a row to the next, or from a column to the next if transposed
    step: int  # entries from a matrix to the next


@functools.lru_cache(maxsize=1024)
def _planned(
    library: _MKL,
    char: str,
    shape1: tuple[int, ...],
    strides1: tuple[int, ...],
    shape2: tuple[int, ...],
    strides2: tuple[int, ...],
) -> _Plan | None:
    (*batch1, rows, p), (*batch2, q, columns) = shape1, shape2
    if char not in library.strided or p != q or not (rows and columns and p):
        return None
    batch = numpy.broadcast_shapes(tuple(batch1), tuple(batch2))
    size = numpy.dtype(char).itemsize
    if any(stride % size for stride in (*strides1, *strides2)):
        return None
    forms = [
        Form(shape, tuple([s // size for s in strides]))
        for shape, strides in ((shape1, strides1), (shape2, strides2))
    ]
    lies1, lies2 = map(layout, forms)
    axes = merged(batch, *[over(form, batch) for form in forms])
    if lies1 is None or lies2 is None or len(axes) > 1 or 0 in batch:
        return None
    count, *steps = axes[0] if axes else (1, 0, 0)
    if min(steps) < 0:
        return None
    a, b = (
        _Operand(_TRANSPOSED if by_columns else _AS_IT_IS, leading, step)
        for (by_columns, leading), step in zip((lies1, lies2), steps, strict=True)
    )
    run = library.batch
    if count == 1 and rows * p * columns >= SHARED and columns >= _LONG * rows and library.threads > 1:
        run = library.by_columns
    return _Plan((*batch, rows, columns), run(char, count, rows, columns, p, a, b))


class _MKL:
    """The library, and its two forms of a product, as functions of three addresses."""

    def __init__(self, library: Any, openmp: bool) -> None:
        self.get_threads: Callable[[], int] = library.MKL_Get_Max_Threads
        self.threads = self.get_threads()
        self.openmp = openmp
        self.scalars: dict[str, tuple[Any, Any]] = {}  # 1 and 0 as BLAS takes them, by the letter of a dtype
        self.strided: dict[str, Any] = {}
        self.grouped: dict[str, Any] = {}
        for char, letter, kind in zip("fdFD", "sdcz", (ctypes.c_float, ctypes.c_double) * 2, strict=True):
            scalar = kind if char in "fd" else _POINTER
            self.scalars[char] = (1.0, 0.0) if char in "fd" else ((kind * 2)(1, 0), (kind * 2)(0, 0))
            call = self.strided[char] = getattr(library, f"cblas_{letter}gemm_batch_strided")
            matrix = [_POINTER, _INT, _INT]
            call.restype = None
            call.argtypes = [*[_INT] * 6, scalar, *matrix, *matrix, scalar, *matrix, _INT]
            call = self.grouped[char] = getattr(library, f"cblas_{letter}gemm_batch")
            call.restype, call.argtypes = None, [_INT, *[_POINTER] * 13, _INT, _POINTER]

    def batch(
        self, char: str, count: int, rows: int, columns: int, p: int, a: _Operand, b: _Operand
    ) -> Callable[[int, int, int], Any]:
        """A batch of `count` products, at equal distances."""
        call, (one, zero), area = self.strided[char], self.scalars[char], rows * columns
        return lambda first, second, product: call(
            _ROW_MAJOR, a.order, b.order, rows, columns, p, one, first, a.leading, a.step,
            second, b.leading, b.step, zero, product, columns, area, count,
        )  # fmt: skip

    def by_columns(
        self, char: str, count: int, rows: int, columns: int, p: int, a: _Operand, b: _Operand
    ) -> Callable[[int, int, int], Any]:
        """One product of few rows and many columns, a transform of tubes, its columns shared among the cores.

        Whole, MKL leaves it to one of them: 310 µs against 205 for 32×32 by 32×9216 on two.
        """
        call, blocks = self.grouped[char], self.threads
        edges = [i * columns // blocks for i in range(blocks + 1)]
        size = numpy.dtype(char).itemsize
        second_begins = [edge * size * (1 if b.order == _AS_IT_IS else b.leading) for edge in edges[:-1]]
        product_begins = [edge * size for edge in edges[:-1]]

        def each(value: int) -> Any:
            return numpy.full(blocks, value, numpy.intc)

        same = [  # for all arrays of these shapes
            each(a.order), each(b.order), each(rows), numpy.diff(edges).astype(numpy.intc), each(p),
            numpy.ones(blocks, char), each(a.leading), each(b.leading), numpy.zeros(blocks, char), each(columns),
            each(1),
        ]  # fmt: skip
        at = [array.ctypes.data for array in same]
        addresses = _POINTER * blocks

        def run(first: int, second: int, product: int, kept: Any = same) -> None:
            x = addresses(*[first] * blocks)
            y = addresses(*[second + begin for begin in second_begins])
            z = addresses(*[product + begin for begin in product_begins])
            call(_ROW_MAJOR, *at[:6], x, at[6], y, at[7], at[8], z, at[9], blocks, at[10])

        return run


@functools.cache
def _library() -> _MKL | None:
    path = None if _in_fork or os.environ.get("CUTNN_MKL", "1") == "0" else _path()
    if path is None:
        return None
    try:
        library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        layer = os.environ.get("MKL_THREADING_LAYER", "GNU")
        if "MKL_THREADING_LAYER" not in os.environ:
            _load_openmp()
            library.MKL_Set_Threading_Layer(_GNU_THREADS)
        return _MKL(library, layer == "GNU")
    except (OSError, AttributeError):
        return None


def _load_openmp() -> None:
    """GNU OpenMP, with threads that sleep after 0.7 ms in place of 20, unless the environment says how long they wait.

    Where another thread takes a core, of OpenBLAS say, a barrier waits for it: a loop of 50 µs then took 4 ms.
    """
    patient = "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ
    if not patient:
        os.environ["GOMP_SPINCOUNT"] = "10000"  # it is read when the library is loaded
    try:
        ctypes.CDLL("libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
    finally:
        if not patient:
            del os.environ["GOMP_SPINCOUNT"]


def _forget() -> None:
    global _in_fork
    _in_fork = True
    _library.cache_clear()


_in_fork = False
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _path() -> str | None:
    """libmkl_rt of the wheel."""
    try:
        files = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name.startswith(("libmkl_rt.", "mkl_rt.")):
            return str(file.locate())
    return None
