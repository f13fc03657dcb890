"""CUDA kernels run on the host: their text compiled by g++, so that their values can be tested without a GPU.

`RawKernel` is called as CuPy's is, and takes NumPy arrays:

    kernel = cuda_on_host.RawKernel(text, "scale")
    kernel((blocks,), (threads,), (x, numpy.int32(x.size), numpy.float32(2)), shared_mem=0)

The text is what CuPy would compile, unchanged: `extern "C" __global__` functions, or templates with `name` an
expression such as "jacobi<float>". Every thread is a fibre of one thread of the CPU (cuda_on_host.h). Known are
threadIdx & Co., `__shared__` arrays and `extern __shared__ T name[]` (one in a function), __syncthreads and its
kin, shuffles, votes and __syncwarp of 32 lanes, atomics, float2 & Co., the functions of <cmath>. Not known: half
precision, textures, cooperative groups, inline PTX, streams.

A launch raises `KernelFault` for what a GPU would not tell: barriers that not all threads come to, shuffles from lanes
outside of their mask, writes just outside of an array or of the shared memory, numbers of arguments and their sizes.
Shared memory starts as nan (all bits set). Threads run in another order for each `seed`: results that depend on it
show a barrier that is missing (`same_for_all_orders`).

Tests that need it take `needs_compiler`. A text compiles in about a second, once a session.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

COMPILER = shutil.which("g++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no g++: kernels are not run on the host")

_HEADER = Path(__file__).with_name("cuda_on_host.h")
_GUARD = 64  # bytes before and after an array
_GUARD_BYTE = 0xA5
_DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?(\w[\w\s:]*?)\s*(\w+)\s*\[\s*\]\s*;")
_seed = 0


class KernelFault(Exception):
    """What a kernel did that it must not do."""


class RawKernel:
    """A kernel of a CUDA text, called as `cupy.RawKernel` is: kernel(grid, block, args, shared_mem=0)."""

    def __init__(self, code: str, name: str, options: Sequence[str] = (), **_: Any) -> None:
        self.code, self.name = code, name
        self.options = tuple(o for o in options if o.startswith("-D"))
        self.max_dynamic_shared_size_bytes = 48 << 10

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any], *, shared_mem: int = 0
    ) -> None:
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise KernelFault(
                f"{self.name}: {shared_mem} bytes of shared memory, allowed {self.max_dynamic_shared_size_bytes}"
            )
        threads = int(np.prod(block))
        if not 0 < threads <= 1024 or not 0 < int(np.prod(grid)):
            raise KernelFault(f"{self.name}: a grid of {grid} blocks of {block} threads")
        launch, sizes = _compiled(self.code, self.name, self.options)
        if len(args) != len(sizes):
            raise KernelFault(f"{self.name}: {len(args)} arguments for {len(sizes)} parameters")
        arrays = _Guarded()
        values = [arrays.add(x) if isinstance(x, np.ndarray) else np.asarray(x) for x in args]
        for k, (value, size) in enumerate(zip(values, sizes, strict=True)):
            if value.itemsize != size:
                raise KernelFault(
                    f"{self.name}: argument {k}, {args[k]!r}, has {value.itemsize} bytes, the parameter {size}"
                )
        pointers = (ctypes.c_void_p * max(len(values), 1))(*[v.ctypes.data for v in values])
        shape = (ctypes.c_uint * 6)(*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])
        fault = launch(shape, shared_mem, pointers, _seed)
        arrays.give_back(self.name)
        if fault is not None:
            raise KernelFault(f"{self.name}: {fault.decode()}")


def same_for_all_orders(run: Callable[[], Any], orders: int = 3) -> Any:
    """What run() returns, arrays or a tuple of them; AssertionError where it depends on the order of the threads."""
    global _seed
    try:
        results = []
        for seed in range(orders):
            _seed = seed
            results.append(run())
    finally:
        _seed = 0
    for other in results[1:]:
        for a, b in zip(_as_tuple(results[0]), _as_tuple(other), strict=True):
            np.testing.assert_array_equal(a, b, err_msg="the result depends on the order of the threads")
    return results[0]


def _as_tuple(x: Any) -> tuple[Any, ...]:
    return tuple(x) if isinstance(x, tuple | list) else (x,)


class _Guarded:
    """Copies of arrays with bytes before and after that nothing may write to."""

    def __init__(self) -> None:
        self.held: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def add(self, x: np.ndarray) -> np.ndarray:
        """The pointer that the kernel gets, as a number in an array."""
        dense = x.flags.c_contiguous or x.flags.f_contiguous
        alone = not any(np.may_share_memory(x, y) for y, _ in self.held.values())
        key = (x.ctypes.data, x.nbytes)
        if key not in self.held:
            if not dense or not alone:
                return np.asarray(x.ctypes.data, dtype=np.uintp)
            guarded = np.full(x.nbytes + 2 * _GUARD, _GUARD_BYTE, dtype=np.uint8)
            guarded[_GUARD : _GUARD + x.nbytes] = _bytes(x)
            self.held[key] = (x, guarded)
        return np.asarray(self.held[key][1].ctypes.data + _GUARD, dtype=np.uintp)

    def give_back(self, name: str) -> None:
        for x, guarded in self.held.values():
            if x.flags.writeable:
                _bytes(x)[:] = guarded[_GUARD : _GUARD + x.nbytes]
            elif not np.array_equal(_bytes(x), guarded[_GUARD : _GUARD + x.nbytes]):
                raise KernelFault(f"{name}: writes to a read-only array of shape {x.shape}")
            for where, part in (("before", guarded[:_GUARD]), ("after", guarded[_GUARD + x.nbytes :])):
                if (part != _GUARD_BYTE).any():
                    raise KernelFault(f"{name}: writes {where} an array of shape {x.shape}, {x.dtype}")


def _bytes(x: np.ndarray) -> np.ndarray:
    return (x if x.flags.c_contiguous else x.T).reshape(-1).view(np.uint8)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="cuda-on-host-")


@functools.cache
def _compiled(code: str, name: str, options: tuple[str, ...]) -> tuple[Any, list[int]]:
    """The launcher of a kernel, and the sizes of its parameters."""
    if COMPILER is None:
        raise RuntimeError("there is no g++")
    body = _DYNAMIC.sub(
        r"\1* const \2 = reinterpret_cast<\1*>(cutnn_host::shared_memory.data());",
        code,
    )
    text = (
        f'#include "{_HEADER}"\n#line 1 "{name}.cu"\n{body}\n'
        'extern "C" const char* cutnn_launch(unsigned* shape, size_t shared, void** arguments, uint64_t seed) {\n'
        f"  return cutnn_host::launch({name}, shape, shared, arguments, seed);\n}}\n"
        'extern "C" int cutnn_parameters(size_t* sizes) '
        f"{{ return cutnn_host::parameters({name}, sizes); }}\n"
    )
    stem = Path(_folder().name) / hashlib.sha256(repr((text, options)).encode()).hexdigest()[:16]
    stem.with_suffix(".cpp").write_text(text)
    command = [COMPILER, "-std=gnu++20", "-O1", "-w", "-shared", "-fPIC", "-fno-strict-aliasing", *options]
    command += ["-o", str(stem.with_suffix(".so")), str(stem.with_suffix(".cpp"))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise KernelFault(f"{name} does not compile:\n{done.stderr[:4000]}")
    library = ctypes.CDLL(str(stem.with_suffix(".so")))
    launch = library.cutnn_launch
    launch.restype = ctypes.c_char_p
    launch.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_uint64]
    sizes = (ctypes.c_size_t * 128)()
    return launch, list(sizes[: library.cutnn_parameters(sizes)])
