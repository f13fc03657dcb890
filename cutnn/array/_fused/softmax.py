"""The log-softmax of a batch and its values at the labels: on CuPy's arrays one kernel, and one for its gradient.

A thread has a sample in a face and goes through its classes three times: the largest, the sum of the exponentials,
the logarithms. Neighbouring threads have neighbouring samples, so that they read and write together.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy

from cutnn.array.elementwise import exp
from cutnn.array.fused import is_on
from cutnn.array.manipulation import expand_dims
from cutnn.array.statistical import sum as sum_
from cutnn.device import namespace
from cutnn.tape import Traced, primitive

KINDS = {"f": "float", "d": "double"}
_THREADS = 128


def _pull(g: Any, ans: Any, labels: Any) -> Any:
    (to_picked, to_all), L = g, ans[1]
    kernel = _kernel("cutnn_log_softmax_back", L, *[part for part in g if part is not None])
    if kernel is not None:
        return _back(kernel, to_picked, to_all, L, labels)
    p = exp(L)
    total = None
    if to_picked is not None:
        total = expand_dims(to_picked, axis=-2) * (_one_hot(labels, p) - p)
    if to_all is not None:
        h = to_all - p * sum_(to_all, axis=-2, keepdims=True)
        total = h if total is None else total + h
    return total


@primitive(x=_pull)
def log_softmax_at(x: Any, labels: Any) -> tuple[Any, Any]:
    """The log-softmax of x `(…, classes, N)` over its classes: at the labels, `(…, N)`, and all of it.

    One primitive for both, since the derivative of the first, one-hot − softmax, needs the second alone. By the
    kernel a label out of range has nan.

    >>> import numpy as np
    >>> at_labels, L = log_softmax_at(np.zeros((2, 3)), np.array([0, 1, 1]))
    >>> np.exp(at_labels), L.shape
    (array([0.5, 0.5, 0.5]), (2, 3))
    """
    xp = namespace(x, labels)
    kernel = _kernel("cutnn_log_softmax", x)
    if kernel is not None:
        return _forward(xp, kernel, x, labels)
    L = x - xp.max(x, axis=-2, keepdims=True)
    L -= xp.log(xp.sum(xp.exp(L), axis=-2, keepdims=True))
    return L[..., labels, xp.arange(labels.shape[0])], L


def _one_hot(labels: Any, p: Any) -> Any:
    """One-hot columns `(classes, N)` in the dtype of p."""
    xp = namespace(labels)
    return (xp.arange(p.shape[-2])[:, None] == labels).astype(p.dtype)


# ------------------------------------------------------------------------------------------------ on a GPU


def _kernel(name: str, *arrays: Any) -> Any:
    """The kernel of that name for these arrays, None where there is none and the plain formula holds."""
    if not is_on() or any(type(x) is Traced for x in arrays):
        return None
    xp, kind = namespace(*arrays), arrays[0].dtype
    if not hasattr(xp, "RawKernel") or kind.char not in KINDS or any(x.dtype != kind for x in arrays):
        return None
    return _made(xp, name, kind.char) if arrays[0].size else None


@functools.cache
def _made(xp: Any, name: str, kind: str) -> Any:
    return xp.RawKernel(source(kind), name)


def _forward(xp: Any, kernel: Any, x: Any, labels: Any) -> tuple[Any, Any]:
    *faces, classes, samples = x.shape
    at_labels, L = xp.empty((*faces, samples), dtype=x.dtype), xp.empty(x.shape, dtype=x.dtype)
    _launch(kernel, x.shape, (xp.ascontiguousarray(x), _int64(labels), at_labels, L))
    return at_labels, L


def _back(kernel: Any, to_picked: Any, to_all: Any, L: Any, labels: Any) -> Any:
    xp, null = namespace(L), numpy.uintp(0)
    picked, strides = null, (0, 0)
    if to_picked is not None:  # read where it is: often one number, broadcast
        picked = to_picked.reshape(-1, L.shape[-1])
        strides = tuple(s // L.itemsize for s in picked.strides)
    every = null if to_all is None else xp.ascontiguousarray(to_all)
    out = xp.empty(L.shape, dtype=L.dtype)
    _launch(kernel, L.shape, (picked, *map(numpy.int64, strides), every, L, _int64(labels), out))
    return out


def _launch(kernel: Any, shape: tuple[int, ...], args: tuple[Any, ...]) -> None:
    *faces, classes, samples = shape
    columns = math.prod(faces) * samples
    sizes = map(numpy.int64, (columns, classes, samples))
    kernel((-(-columns // _THREADS),), (_THREADS,), (*args, *sizes))


def _int64(labels: Any) -> Any:
    return namespace(labels).ascontiguousarray(labels.astype(numpy.int64, copy=False))


def source(kind: str) -> str:
    """The text of both kernels for numbers of that character."""
    return f"typedef {KINDS[kind]} T;\n{_TEXT}"


_TEXT = """\
typedef long long Int;

// x, L (faces, classes, samples), labels (samples), at_labels (faces, samples); columns = faces * samples
extern "C" __global__ void cutnn_log_softmax(
    const T* x, const Int* labels, T* at_labels, T* L, const Int columns, const Int classes, const Int samples) {
  const Int column = (Int)blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= columns) return;
  const Int sample = column % samples, first = column / samples * classes * samples + sample;
  T largest = x[first];
  for (Int c = 1; c < classes; ++c)
    if (x[first + c * samples] > largest) largest = x[first + c * samples];  // nan comes back with the sum
  T sum = 0;
  for (Int c = 0; c < classes; ++c) sum += exp(x[first + c * samples] - largest);
  const T log_sum = log(sum);
  for (Int c = 0; c < classes; ++c) L[first + c * samples] = x[first + c * samples] - largest - log_sum;
  const Int label = labels[sample];
  at_labels[column] = label >= 0 && label < classes ? L[first + label * samples] : (T)0 / (T)0;
}

// out = g_all + one-hot g_at - exp(L) (g_at + the sum of g_all over classes); either of g_at and g_all may be null
extern "C" __global__ void cutnn_log_softmax_back(
    const T* g_at, const Int g_face, const Int g_sample, const T* g_all, const T* L, const Int* labels, T* out,
    const Int columns, const Int classes, const Int samples) {
  const Int column = (Int)blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= columns) return;
  const Int face = column / samples, sample = column % samples, first = face * classes * samples + sample;
  const T at = g_at ? g_at[face * g_face + sample * g_sample] : 0;
  T total = at;
  if (g_all)
    for (Int c = 0; c < classes; ++c) total += g_all[first + c * samples];
  const Int label = labels[sample];
  for (Int c = 0; c < classes; ++c) {
    const Int i = first + c * samples;
    out[i] = (g_all ? g_all[i] : 0) + (c == label ? at : 0) - exp(L[i]) * total;
  }
}
"""
