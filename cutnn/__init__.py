"""cutnn: tensor-tensor algebra and stable tensor neural networks on NumPy and CuPy, with gradients.

    import cutnn as ct
    from cutnn import algebra, nn, optim, data, train

The array functions of the Python array API standard stand here (`ct.tanh`, `ct.linalg.inv`), and so do the
derivatives (`ct.grad`), the devices (`ct.set_device`) and the rooms (`ct.algebra`, `ct.nn`, …).
"""

import importlib as _importlib
import os as _os
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from cutnn import algebra, array, data, device, nn, optim, plot, recording, tape, train
from cutnn.array import *  # noqa: F403  the public names of the standard, listed in cutnn.array.__all__
from cutnn.array._precision import get_precision, precision, set_precision
from cutnn.device import (
    DeviceError,
    default_namespace,
    device_of,
    get_device,
    is_available,
    set_device,
    show_config,
    synchronize,
    to_device,
    to_host,
)
from cutnn.profile import profile
from cutnn.recording import CaptureError, capture
from cutnn.tape import (
    NotDifferentiableError,
    NotDifferentiableWarning,
    checkpoint,
    custom_vjp,
    grad,
    hessian,
    hvp,
    jacobian,
    jvp,
    primitive,
    stop_gradient,
    value_and_grad,
    vjp,
)

if _TYPE_CHECKING:
    from cutnn import testing

__version__ = "0.1.0"


def __getattr__(name: str) -> _Any:
    if name == "testing":  # on demand: its tables of laws are a tenth of the time that importing cutnn takes
        return _importlib.import_module("cutnn.testing")
    raise AttributeError(f"module 'cutnn' has no attribute {name!r}")


# NumPy's temporaries cost page faults where glibc hands them back to the kernel: a ★ product of 96×96 by 96×32
# with 32 faces took 1.3 ms, and 0.5 ms so. The process keeps its peak memory; CUTNN_KEEP_FREED_MEMORY=0 declines.
if _os.environ.get("CUTNN_KEEP_FREED_MEMORY", "1") != "0":
    device.keep_freed_memory()

__all__ = [
    *array.__all__,
    "CaptureError",
    "DeviceError",
    "NotDifferentiableError",
    "NotDifferentiableWarning",
    "algebra",
    "array",
    "capture",
    "checkpoint",
    "custom_vjp",
    "data",
    "default_namespace",
    "device",
    "device_of",
    "get_device",
    "get_precision",
    "grad",
    "hessian",
    "hvp",
    "is_available",
    "jacobian",
    "jvp",
    "nn",
    "optim",
    "plot",
    "precision",
    "primitive",
    "profile",
    "recording",
    "set_device",
    "set_precision",
    "show_config",
    "stop_gradient",
    "synchronize",
    "tape",
    "testing",
    "to_device",
    "to_host",
    "train",
    "value_and_grad",
    "vjp",
]
