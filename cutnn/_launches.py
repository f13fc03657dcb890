"""Counting the kernels that are started on a GPU, by CUPTI, the interface that NVIDIA gives to profilers.

CuPy does not count them, and libraries start kernels of their own (cuBLAS, cuSOLVER). CUPTI calls back for every one,
in the thread that starts it. It comes with the CUDA toolkit, or as `pip install nvidia-cuda-cupti` (-cu12 for CUDA 12).
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_DRIVER_API = 1  # CUPTI_CB_DOMAIN_DRIVER_API; the runtime's launches, those of cuBLAS too, come by the driver
# cupti_driver_cbid.h: cuLaunchKernel, cuLaunchKernelEx, cuLaunchCooperativeKernel, cuGraphLaunch, and of each the
# form for a default stream of each thread; cuLaunchCooperativeKernelMultiDevice.
_LAUNCHES = (307, 442, 652, 653, 477, 478, 514, 515, 480)
_ENTER = 0  # CUPTI_API_ENTER, the first thing in the data of a callback
_Callback = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.POINTER(ctypes.c_int)
)


def count_launches(tell: Callable[[], None]) -> Callable[[], None] | None:
    """Have `tell` called for each kernel, in the thread that starts it; a graph of kernels is one.

    Returns what ends it, or None where CUPTI is not there, or does not answer, as where another profiler has it.
    """
    cupti = _cupti()
    if cupti is None:
        return None

    def launched(data: Any, domain: int, what: int, site: Any) -> None:
        if site[0] == _ENTER:
            tell()

    callback = _Callback(launched)
    subscriber = ctypes.c_void_p()
    if cupti.cuptiSubscribe(ctypes.byref(subscriber), callback, None):
        return None

    def end() -> None:
        cupti.cuptiUnsubscribe(subscriber)
        assert callback  # kept until then

    # An older driver does not know the youngest of them.
    if all([cupti.cuptiEnableCallback(1, subscriber, _DRIVER_API, what) for what in _LAUNCHES]):
        end()
        return None
    return end


@functools.cache
def _cupti() -> Any:
    """The library, None where there is none."""
    for name in _names():
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.cuptiEnableCallback.argtypes = [
            ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32,
        ]  # fmt: skip
        library.cuptiUnsubscribe.argtypes = [ctypes.c_void_p]
        return library
    return None


def _names() -> Iterator[str]:
    """Where it may be: in NVIDIA's wheels, or where the loader looks."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for found in sorted(Path(folder).glob("*/lib/libcupti.so.*"), reverse=True):
            yield str(found)
    yield from ("libcupti.so.13", "libcupti.so.12", "libcupti.so")
