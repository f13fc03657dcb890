"""SVD, QR and Hermitian eigenvectors of batches of faces on a GPU: kernels of our own, a block for each face.

CuPy's own are a loop on the host over cuSOLVER, but for SVD up to 32 × 32 and `eigh`, and cuSOLVER is refused while a
CUDA graph is recorded. Here a call is one kernel, the SVD two, nothing waits for the host, and all can be recorded.

    faces                                         by
    QR                                            Householder reflectors as in LAPACK, with its signs (householder.cuh)
    SVD                                           QR with the columns sorted, then one-sided Jacobi rotations of Rᴴ
    singular values                               the same without Q, U and V
    eigenvectors and eigenvalues, Hermitian       one-sided Jacobi rotations of A + c, Rayleigh quotients (jacobi.cuh)
    single matrices; sides above _LARGEST_SIDE;   CuPy: there the whole GPU is for one matrix
      fewer than _ENOUGH_LARGE that are larger
      than the shared memory of a block

Faces lie in shared memory as far as that of a block holds them (on an H100 an SVD of 100 × 100 in float64, one of
64 × 64 in complex128), else in a workspace, V before the rest. Why these and not others:

* One-sided Jacobi finds singular values as well as LAPACK does, small ones of scaled columns better, and U and V
  orthogonal to a few eps, also where singular values are equal or 0. Its steps are parallel: n / 2 pairs.
* cuSOLVER's gesvdjBatched ends at 32 rows; gesvdaStridedBatched goes by the Gram matrix, which loses half of the
  digits of small singular values; syevjBatched stops at a residual that it takes from the caller.
* cuBLAS's geqrfBatched has no batched companion that makes Q of the reflectors.

Which is faster where is still to be measured on a GPU: the constants below and in launch.py are guesses with names.

A face with nan or inf has results of nan. NumPy raises LinAlgError there, and where Jacobi rotations do not end; CuPy
does not look, for that means waiting for the GPU, unless it is told to, and so it is here: within
`cupyx.errstate(linalg="raise")` a call waits once and raises. CUTNN_BATCHED=0 leaves all to CuPy.
"""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from cutnn.array._batched import launch

_LARGEST_SIDE = 512
_ENOUGH_LARGE = 8  # so many blocks at work at a time against all of the GPU for one face after the other
_STATIC_BYTES = 256  # of shared memory, at most, for variables of the kernels


class SVDResult(NamedTuple):
    """The factors of U @ diag(S) @ Vh."""

    U: Any
    S: Any
    Vh: Any


class QRResult(NamedTuple):
    """The factors of Q @ R."""

    Q: Any
    R: Any


class EighResult(NamedTuple):
    """Eigenvalues, ascending, and eigenvectors of a Hermitian matrix."""

    eigenvalues: Any
    eigenvectors: Any


def linalg(name: str, x: Any, **options: Any) -> Any:
    """What numpy.linalg's function of that name gives for a batch of faces on a GPU, or None: it is left to CuPy."""
    device, factorise = _device(x), _FACTORISATIONS.get(name)
    if device is None or factorise is None or os.environ.get("CUTNN_BATCHED", "1") == "0":
        return None
    if not _fits(x, device.shared_bytes):
        return None
    *batch, rows, columns = x.shape
    answer = factorise(device, x.reshape(math.prod(batch), rows, columns), **options)
    if answer is None:
        return None
    if not isinstance(answer, tuple):
        return answer.reshape(*batch, *answer.shape[1:])
    return type(answer)(*[part.reshape(*batch, *part.shape[1:]) for part in answer])


def _fits(x: Any, shared_bytes: int) -> bool:
    """Whether a block for each of the faces is the right means."""
    if len(x.shape) < 3 or 0 in x.shape or x.dtype.char not in launch.KINDS:
        return False
    *batch, rows, columns = x.shape
    small = rows * columns * x.itemsize <= shared_bytes
    return max(rows, columns) <= _LARGEST_SIDE and (small or math.prod(batch) >= _ENOUGH_LARGE)


# ------------------------------------------------------------------- by name and options, as numpy.linalg has them


def _qr(device: launch.Device, x: Any, mode: str = "reduced") -> Any:
    if mode not in ("reduced", "complete", "r"):
        return None
    q, r, _ = launch.householder(device, x, mode)
    return r if q is None else QRResult(q, r)


def _svd(device: launch.Device, x: Any, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    u, s, vh, info = launch.svd(device, x, full_matrices, compute_uv)
    _check(device, info, "SVD did not converge")
    return SVDResult(u, s, vh) if compute_uv else s


def _svdvals(device: launch.Device, x: Any) -> Any:
    return _svd(device, x, compute_uv=False)


def _eigh(device: launch.Device, x: Any, UPLO: str = "L") -> Any:
    if x.shape[-2] != x.shape[-1] or UPLO != "L":
        return None
    w, v, info = launch.eigh(device, x, True)
    _check(device, info, "Eigenvalues did not converge")
    return EighResult(w, v)


def _eigvalsh(device: launch.Device, x: Any, UPLO: str = "L") -> Any:
    if x.shape[-2] != x.shape[-1] or UPLO != "L":
        return None
    w, _, info = launch.eigh(device, x, False)
    _check(device, info, "Eigenvalues did not converge")
    return w


_FACTORISATIONS: dict[str, Callable[..., Any]] = {
    "qr": _qr,
    "svd": _svd,
    "svdvals": _svdvals,
    "eigh": _eigh,
    "eigvalsh": _eigvalsh,
}


def _check(device: launch.Device, info: Any, message: str) -> None:
    if device.strict() and bool((info < 0).any()):
        raise numpy.linalg.LinAlgError(message)


# -------------------------------------------------------------------------------------------------- the device


def _device(x: Any) -> launch.Device | None:
    """That of an array of CuPy; None for others."""
    if not type(x).__module__.startswith("cupy"):
        return None
    return _gpu(sys.modules["cupy"], x.device.id)


@functools.cache
def _gpu(cupy: Any, index: int) -> launch.Device:
    import cupyx

    shared = int(cupy.cuda.Device(index).attributes["MaxSharedMemoryPerBlockOptin"]) - _STATIC_BYTES
    return launch.Device(cupy, cupy.RawKernel, shared, lambda: cupyx.geterr()["linalg"] == "raise")
