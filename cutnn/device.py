"""Which array library owns an array, which devices can be used, and how arrays move between them.

Devices are named "cpu" (NumPy) and "cuda:0", "cuda:1", ... (CuPy). Only this file imports CuPy, and only when
a GPU is asked for or a CuPy array is met: the import costs 0.2 s. The module that an array's type comes from
tells its library, so that nothing is imported to ask.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import os
import platform
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import optree


class DeviceError(RuntimeError):
    """A device was asked for that cannot be used here; the message says why and what to do."""


def namespace(*arrays: Any) -> Any:
    """Return the module that owns the arrays: `numpy`, or `array_api_compat.cupy` for CuPy arrays.

    Numbers, Python's or NumPy's, belong to nobody and go with any array; numbers alone give `numpy`. Arrays
    of other libraries are asked for their `__array_namespace__()` (Python array API standard). Raises
    TypeError where arrays of two libraries meet, and for what is not an array.

    >>> namespace(np.ones(3), 2.0).__name__
    'numpy'
    """
    owner = None
    for x in arrays:
        try:
            module = _OWNER[type(x)]
        except KeyError:
            module = _learn_owner(x, arrays)
        if module is not owner and module is not None:
            if owner is None or getattr(module, "records", None) is owner:
                owner = module
            elif getattr(owner, "records", None) is not module:
                raise TypeError(_mixing_message(arrays))
    return np if owner is None else owner


def default_namespace() -> Any:
    """Return the module that new arrays come from, that of the default device; raises like `get_device`."""
    xp = _library_for(get_device()).namespace
    recorder = recording.recorder
    return xp if recorder is None or xp is not np else recorder.namespace


def get_device() -> str:
    """Return the default device: the one given to `set_device`, else that of CUTNN_DEVICE, else "cpu".

    Raises DeviceError or ValueError where CUTNN_DEVICE names a device that cannot be used or does not exist.

    >>> get_device()
    'cpu'
    """
    if _default_device is None:
        set_device(os.environ.get("CUTNN_DEVICE") or "cpu")
    return str(_default_device)


def set_device(device: str) -> None:
    """Make "cpu", "cuda" (that is "cuda:0") or "cuda:1", ... the default device of the process.

    "auto" takes the first GPU where one can be used and the CPU, quietly, where none can. An explicit GPU
    never falls back: DeviceError says why it cannot be used. Raises ValueError for a name that is no device.
    CuPy has a current device for each thread, so a thread that should work on "cuda:1" calls this itself.

    >>> set_device("gpu")
    Traceback (most recent call last):
        ...
    ValueError: unknown device 'gpu'; valid are 'cpu', 'cuda', 'cuda:0', ... and 'auto'
    """
    global _default_device
    device = _checked(device)
    if device.startswith("cuda"):
        _import_cupy().cuda.Device(_index(device)).use()
    _default_device = device


def device_of(x: Any) -> str:
    """Return the device that holds an array, "cpu" or "cuda:0"; numbers live on the CPU.

    >>> device_of(np.zeros(2))
    'cpu'
    """
    if (library := _library_of(x)) is not None:
        return library.device_of(x)
    namespace(x)  # refuses what is neither an array nor a number
    return str(getattr(x, "device", "cpu"))


def to_device(x: Any, device: str | None = None) -> Any:
    """Return a pytree with its arrays on a device, by default the default one; arrays there are not copied.

    What is not an array stays as it is, NumPy's numbers too. Raises DeviceError where the device cannot be used, and
    TypeError for arrays that cannot be moved: traced ones, and those of other libraries.

    >>> to_device({"bias": np.zeros(2), "name": "first"}, "cpu")
    {'bias': array([0., 0.]), 'name': 'first'}
    """
    target = get_device() if device is None else _checked(device)
    return optree.tree_map(functools.partial(_move, device=target), x, namespace="cutnn")


def to_host(x: Any) -> Any:
    """Return a pytree with its arrays as NumPy arrays; those that are NumPy arrays already are not copied."""
    return to_device(x, "cpu")


def is_available() -> bool:
    """Return whether the first GPU can be used: CuPy, driver and device are there, and a tiny kernel ran.

    CuPy imports without a driver, and its wheels bring no CUDA libraries: nothing less than a kernel decides.
    It runs once; `show_config` prints the reason behind a False.
    """
    return _why_unusable(0) is None


def synchronize() -> None:
    """Wait until the GPU has done its work, as before reading a clock; nothing to wait for on a CPU."""
    if "cupy" in sys.modules and is_available():
        _import_cupy().cuda.Device().synchronize()


class EventClock(NamedTuple):
    """How the work of a GPU is timed: events that are put into its queue, and read when it has passed them."""

    array_type: type
    record: Callable[[], Any]  # None while the queue is captured, where nothing passes
    seconds: Callable[[Any, Any], float]


def event_clock() -> EventClock | None:
    """Return the clock of the GPU that is in use, None where none is."""
    if "cupy" not in sys.modules or not is_available():
        return None
    cuda = (cupy := _import_cupy()).cuda

    def record() -> Any:
        if cuda.get_current_stream().is_capturing():
            return None
        event = cuda.Event()
        event.record()
        return event

    return EventClock(cupy.ndarray, record, lambda a, b: cuda.get_elapsed_time(a, b) / 1e3)


def show_config() -> None:
    """Print versions, devices and why a GPU is or is not used; `python -m cutnn` does the same."""
    reason, driver = _why_unusable(0), _driver_cuda_version()
    wanted = os.environ.get("CUTNN_DEVICE") or "not set"
    packages = ("numpy", "optree", "array-api-compat")
    try:
        default = get_device()
    except (DeviceError, ValueError) as error:
        default = f"none: {error}"
    rows = {
        "cutnn": _version("cutnn"),
        "python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        "libraries": ", ".join(f"{name} {_version(name)}" for name in packages),
        "cupy": getattr(sys.modules.get("cupy"), "__version__", "not imported"),
        "driver": "none found" if driver is None else f"NVIDIA, for CUDA {driver or '(unknown)'}",
        "devices": ", ".join([f"cpu ({os.cpu_count()} cores)", *([] if reason else _describe_gpus())]),
        "default": f"{default} (CUTNN_DEVICE is {wanted})",
        "gpu": f"not used: {reason}" if reason else "usable: a test kernel ran",
    }
    print("\n".join(f"{name:<10} {value}" for name, value in rows.items()))


@functools.cache
def keep_freed_memory() -> bool:
    """Have glibc keep large freed blocks instead of returning them to the kernel; return whether it does.

    NumPy's temporaries else cost page faults each time (a training step: 18 ms, against 12.5 ms with this).
    The process keeps its peak memory. Does nothing where the C library is not glibc.
    """
    try:
        libc = ctypes.CDLL(None if sys.platform == "linux" else "no glibc")
        libc.gnu_get_libc_version.restype = ctypes.c_char_p
        mmap_threshold, trim_threshold = -3, -1  # <malloc.h>
        # Older glibc refuses more than 32 MiB as the size from which a block is mapped anew.
        kept = any(libc.mallopt(mmap_threshold, size) for size in (2**30, 2**25))
        return bool(libc.mallopt(trim_threshold, 2**30)) and kept
    except (OSError, AttributeError):
        return False


# ------------------------------------------------------------------------------------------------- recordings
#
# While `ct.capture` records a step in this thread, these few functions tell the recorder what it cannot see by
# itself; with no recording under way they do nothing.


class _Recording(threading.local):
    recorder: Any = None


recording = _Recording()  # that of the calling thread


def lifted(x: Any) -> Any:
    """x, as an array whose reads and writes are seen by the recording under way; x itself where there is none."""
    recorder = recording.recorder
    return x if recorder is None else recorder.lift(x)


def unlifted(x: Any) -> Any:
    """The array that was lifted to x; anything else as it came."""
    recorder = recording.recorder
    return x if recorder is None else recorder.unlift(x)


def is_numpy(x: Any) -> bool:
    """Whether x is an array that NumPy computes with: NumPy's own, or one of a step that is being captured."""
    return type(x) is np.ndarray or (recording.recorder is not None and recording.recorder.owns(x))


def host_numbers(compute: Callable[[], Sequence[float]]) -> Sequence[Any]:
    """compute(), numbers that the host works out for each step, as a learning rate, for kernels that take them.

    In a step that is captured as a CUDA graph they are arrays of one float64 each, filled anew before each launch.
    """
    recorder = recording.recorder
    return compute() if recorder is None else recorder.host_numbers(compute)


def record_call(
    function: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any], *, host: Sequence[Any] = ()
) -> None:
    """Call function(*inputs, *outputs), which writes to the outputs and returns nothing; a recording takes it as one.

    It is called with plain arrays, again at each replay, so it may look at values, and raise. `host` names what it
    changes beside arrays, as pairs (object, attribute).

    >>> out = np.empty(2)
    >>> record_call(np.add, [np.ones(2), np.ones(2)], [out])
    >>> out
    array([2., 2.])
    """
    recorder = recording.recorder
    if recorder is None:
        function(*inputs, *outputs)
    else:
        recorder.call(function, inputs, outputs, host)


def opaque(function: Callable[..., Any], takes_out: bool = False) -> Callable[..., Any]:
    """Decorate a pure function of arrays that looks at their values: a recording takes it as one call.

    With `takes_out` its results are a list of new arrays, and it writes them to those of a list `out=` that lie alike.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        recorder = recording.recorder
        if recorder is None:
            return function(*args, **kwargs)
        return recorder.opaque(function, args, kwargs, takes_out)

    return call


@contextlib.contextmanager
def unrecorded() -> Iterator[None]:
    """Let numbers be read out of arrays (`float(x)`, `if x > 0`) while recording: replays take them as they were.

    It is for checks that only raise.
    """
    recorder = recording.recorder
    if recorder is None:
        yield
    else:
        with recorder.reading():
            yield


def holds(condition: Any) -> bool:
    """The truth of one number, for a check that only raises: see `unrecorded`."""
    if recording.recorder is None:
        return bool(condition)
    with unrecorded():
        return bool(condition)


class Library(NamedTuple):
    """An array library: the module that computes, the type of its arrays, and the way to it and back."""

    namespace: Any
    array_type: type
    device_of: Callable[[Any], str]
    put: Callable[[Any, str], Any]  # takes a host array, or one of its own, and a device
    to_host: Callable[[Any], np.ndarray]


@functools.cache
def _cupy_library() -> Library:
    cupy = _import_cupy()
    import array_api_compat.cupy as xp

    def put(x: Any, device: str) -> Any:
        with cupy.cuda.Device(_index(device)):
            return cupy.array(x)

    return Library(xp, cupy.ndarray, lambda x: f"cuda:{x.device.id}", put, cupy.asnumpy)


_NUMPY = Library(np, np.ndarray, lambda x: "cpu", lambda x, device: x, lambda x: x)

# By root name of the module that an array type comes from, and by kind of device. Tests add a pretend one.
_LIBRARIES: dict[str, Callable[[], Library]] = {"numpy": lambda: _NUMPY, "cupy": _cupy_library}
_KINDS: dict[str, str] = {"cpu": "numpy", "cuda": "cupy"}

_OWNER: dict[type, Any] = {}  # for speed: 0.1 µs a look-up; None stands for numbers, which go with any array
_NUMBERS = (bool, int, float, complex, np.generic)
_MINIMUM_FREE_MIB = 256  # about what a CUDA context with its libraries takes
_default_device: str | None = None


def _library_of(x: Any) -> Library | None:
    for base in type(x).__mro__:
        load = _LIBRARIES.get(base.__module__.partition(".")[0])
        if load is not None and isinstance(x, (library := load()).array_type):
            return library
    return None


def _library_for(device: str) -> Library:
    return _LIBRARIES[_KINDS[device.partition(":")[0]]]()


def _learn_owner(x: Any, arrays: tuple[Any, ...]) -> Any:
    if isinstance(x, _NUMBERS):
        owner = None
    elif (library := _library_of(x)) is not None:
        owner = library.namespace
    elif hasattr(type(x), "__array_namespace__"):
        owner = x.__array_namespace__()
    else:
        position = next(i for i, y in enumerate(arrays) if y is x)
        raise TypeError(
            f"expected NumPy or CuPy arrays, or numbers; argument {position} is a {_type_name(x)}. "
            "Convert it first, for example with ct.asarray."
        )
    _OWNER[type(x)] = owner
    return owner


def _mixing_message(arrays: tuple[Any, ...]) -> str:
    owned = [(i, x) for i, x in enumerate(arrays) if not isinstance(x, _NUMBERS)]
    places = [f"argument {i} is a {_type_name(x)} of shape {x.shape} on {device_of(x)}" for i, x in owned]
    advice = "Devices are never changed in silence: move an argument with ct.to_device or ct.to_host."
    return f"arrays of different libraries meet: {'; '.join(places)}. {advice}"


def _type_name(x: Any) -> str:
    return f"{type(x).__module__}.{type(x).__name__}".removeprefix("builtins.")


def _move(x: Any, device: str) -> Any:
    if recording.recorder is not None and recording.recorder.owns(x) and device == device_of(x):
        return x
    library, target = _library_of(x), _library_for(device)
    if library is not None:
        if library.device_of(x) == device:
            return x
        return target.put(x if target is library else library.to_host(x), device)
    if not isinstance(x, _NUMBERS) and (hasattr(x, "__array_namespace__") or hasattr(x, "__dlpack__")):
        raise TypeError(
            f"cannot move a {_type_name(x)} to {device}: only NumPy and CuPy arrays move. Move arrays before "
            "they are traced (outside grad and its kin); convert those of other libraries with DLPack."
        )
    return x


def _checked(device: str) -> str:
    """Return the full name of a device, known to be usable."""
    if device == "auto":
        return "cuda:0" if is_available() else "cpu"
    kind, colon, index = str(device).partition(":")
    if kind not in _KINDS or (colon and not (kind == "cuda" and index.isdecimal())):
        raise ValueError(f"unknown device {device!r}; valid are 'cpu', 'cuda', 'cuda:0', ... and 'auto'")
    if kind != "cuda":
        return kind
    device = f"cuda:{int(index or 0)}"
    if reason := _why_unusable(_index(device)):
        raise DeviceError(f'{device} was asked for but cannot be used: {reason} The CPU: set_device("cpu").')
    return device


def _index(device: str) -> int:
    return int(device.partition(":")[2])


@functools.cache
def _why_unusable(index: int) -> str | None:
    """Return why a GPU cannot be used and what to do, or None where it can."""
    driver = _driver_cuda_version()
    install = f"pip install 'cutnn[cuda{12 if driver == 12 else 13}]'"
    try:
        cupy = _import_cupy()
    except Exception as error:
        if getattr(error, "name", None) != "cupy":
            return f"CuPy is installed but cannot be imported ({_summary(error)}). Reinstall it: {install}."
        if driver is None:
            return "this machine has no NVIDIA driver, and CuPy is not installed."
        return f"an NVIDIA driver is here but CuPy is not installed. Install it: {install}."
    try:
        count = cupy.cuda.runtime.getDeviceCount() if cupy.cuda.is_available() else 0
        if not count and driver is None:
            return "CuPy is installed but this machine has no NVIDIA driver (a container must be given it)."
        if not count:
            return f"the driver shows CuPy no GPU (see nvidia-smi), or is too old for it; perhaps {install}."
        if index >= count:
            return f"this machine has only {', '.join(f'cuda:{i}' for i in range(count))}."
        with cupy.cuda.Device(index):
            free, total = (size >> 20 for size in cupy.cuda.runtime.memGetInfo())
            if free < _MINIMUM_FREE_MIB:
                return (
                    f"it has too little free memory, {free} of {total} MiB, and {_MINIMUM_FREE_MIB} MiB are "
                    "needed. nvidia-smi lists the programs that hold the rest."
                )
            ones = cupy.ones((2, 2), dtype=np.float32)
            float((ones @ ones).sum())  # a compiled kernel and cuBLAS, the two that go missing
    except Exception as error:
        return f"a test kernel failed ({_summary(error)}). CUDA libraries come with CuPy from {install}."
    return None


def _import_cupy() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns of a missing toolkit; the test kernel decides
        import cupy
    return cupy


@functools.cache
def _driver_cuda_version() -> int | None:
    """Return the major CUDA version that the NVIDIA driver is for, 0 where unknown, None without a driver."""
    version = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        driver.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0 if os.path.exists("/proc/driver/nvidia/version") else None
    return version.value // 1000


def _describe_gpus() -> list[str]:
    runtime = _import_cupy().cuda.runtime
    gpus = [runtime.getDeviceProperties(i) for i in range(runtime.getDeviceCount())]
    return [f"cuda:{i} ({g['name'].decode()}, {g['totalGlobalMem'] >> 30} GiB)" for i, g in enumerate(gpus)]


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
