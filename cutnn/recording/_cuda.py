"""A step as one CUDA graph: what its kernels are is found by CUDA, so that this records no call of its own.

The first call runs the step on a side stream, which compiles kernels and finds memory; then the stream is captured
while the step runs again, on input buffers of the graph, and nothing is computed. A replay copies the arguments in,
renews the numbers of the host (`device.host_numbers`), and launches. Memory comes from a pool that lives as long as
the graph. CuPy refuses cuBLAS while a stream is captured: products go by `array._cublas`, in the warm-up too.
It refuses cuSOLVER, cuSPARSE and cuRAND as well, and what waits for the GPU cannot be captured: CaptureError.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import optree

from cutnn import device
from cutnn.array._cublas import CuBLAS
from cutnn.device import recording
from cutnn.recording._arrays import CaptureError


class GraphRecorder:
    """What the rooms below ask of a recording, while CUDA records."""

    only_matmul = True  # of all functions that make products
    namespace = np  # of arrays on the host

    def __init__(self, cupy: Any, blas: Any) -> None:
        self._cupy, self.blas = cupy, blas
        self.capturing = False
        self.hosts: list[tuple[Any, str, Any]] = []
        self.numbers: list[tuple[Any, Callable[[], Sequence[float]]]] = []  # an array, and what fills it

    def lift(self, x: Any) -> Any:
        return x

    unlift = lift

    def owns(self, x: Any) -> bool:
        return False

    def attribute(self, holder: Any, name: str, value: Any) -> Any:
        return value

    def matmul(self, function: Callable[..., Any], x1: Any, x2: Any) -> Any:
        return self.blas.matmul(x1, x2)

    def call(
        self, function: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any], host: Sequence[Any]
    ) -> None:
        if not outputs and not host:
            return  # a look at values, for which the GPU would have to be waited for
        if self.capturing:
            self.hosts += [(holder, name, getattr(holder, name)) for holder, name in host]
        function(*inputs, *outputs)

    def opaque(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return function(*args, **kwargs)

    def host_numbers(self, compute: Callable[[], Sequence[float]]) -> Sequence[Any]:
        values = compute()
        if not self.capturing:
            return values
        array = self._cupy.empty(len(values), dtype=np.float64)
        self.numbers.append((array, compute))
        return [array[i] for i in range(len(values))]

    def reading(self) -> Any:
        return contextlib.nullcontext()


class GraphRecording:
    """A step recorded as a CUDA graph, for arguments of one form."""

    checked = True  # by the warm-up: CUDA captures all kernels, also those of plain arrays

    def __init__(self, step: Callable[..., Any], leaves: list[Any], tree: Any, form: list[Any]) -> None:
        self.tree, self.form = tree, form
        self._cupy = cupy = device._import_cupy()
        self._pool = cupy.cuda.MemoryPool()
        outer, stream = cupy.cuda.get_current_stream(), cupy.cuda.Stream(non_blocking=True)
        stream.wait_event(outer.record())
        with stream, cupy.cuda.using_allocator(self._pool.malloc):
            self.blas = CuBLAS(cupy, stream)
            recorder = GraphRecorder(cupy, self.blas)
            args, kwargs = tree.unflatten(leaves)
            with _recording(recorder):
                self.value = step(*args, **kwargs)
            given = [x.copy() if kind is not None else x for x, (kind, *_) in zip(leaves, form, strict=True)]
            self._inputs = [x for x, (kind, *_) in zip(given, form, strict=True) if kind is not None]
            args, kwargs = tree.unflatten(given)
            stream.synchronize()
            recorder.capturing = True
            try:
                self._graph, result = self._captured(stream, recorder, step, args, kwargs)
            finally:
                for holder, name, before in reversed(recorder.hosts):
                    setattr(holder, name, before)
        outer.wait_event(stream.record())
        self._numbers = recorder.numbers
        self._results, self._result_tree = optree.tree_flatten(result, namespace="cutnn")

    @classmethod
    def record(
        cls, step: Callable[..., Any], leaves: list[Any], tree: Any, form: list[Any]
    ) -> tuple[GraphRecording, Any]:
        """Run the step, then capture it; its value too."""
        self = cls(step, leaves, tree, form)
        value = self.value
        del self.value
        return self, value

    def _captured(
        self, stream: Any, recorder: GraphRecorder, step: Callable[..., Any], args: Any, kwargs: Any
    ) -> tuple[Any, Any]:
        stream.begin_capture()
        fault, result = None, None
        try:
            with _recording(recorder):
                result = step(*args, **kwargs)
        except Exception as error:
            fault = error
        try:
            graph = stream.end_capture()  # also where the step failed: the stream is no use else
        except Exception as error:
            fault = fault or error
        if fault is not None:
            raise CaptureError(
                f"the step cannot be captured as a CUDA graph: {type(fault).__name__}: {fault}. While CUDA captures, "
                "nothing may wait for the GPU (float(x), if x > 0, a mask as an index, ct.to_host), and CuPy refuses "
                "cuSOLVER (factorisations), cuSPARSE and cuRAND; do that outside the step, or call it uncaptured"
            ) from fault
        return graph, result

    def holds(self) -> bool:
        return True

    def replay(self, arrays: Sequence[Any]) -> Any:
        for own, given in zip(self._inputs, arrays, strict=True):
            own[...] = given
        for array, compute in self._numbers:
            array.set(np.asarray(compute(), np.float64))
        self._graph.launch(self._cupy.cuda.get_current_stream())
        results = [x.copy() if hasattr(x, "__cuda_array_interface__") else x for x in self._results]
        return self._result_tree.unflatten(results)


@contextlib.contextmanager
def _recording(recorder: GraphRecorder) -> Iterator[None]:
    recording.recorder = recorder
    try:
        yield
    finally:
        recording.recorder = None
