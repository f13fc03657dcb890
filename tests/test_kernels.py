"""Every kernel text compiles, without a GPU: by NVRTC, for the architectures sm_80 and sm_90."""

from __future__ import annotations

import pathlib
import types

import numpy as np
import pytest

from cutnn import optim
from cutnn.array import _tensor_cores
from cutnn.array._batched import launch
from cutnn.array._fused import on_cuda, softmax, squares
from tests import cuda_on_host
from tests.array import test_fused

WEIGHT = np.zeros(3)
OPTIMIZERS = {
    "SGD": optim.SGD(WEIGHT, lr=0.1),
    "SGD with decay": optim.SGD(WEIGHT, lr=0.1, weight_decay=0.01),
    "SGD with momentum": optim.SGD(WEIGHT, lr=0.1, momentum=0.9),
    "SGD with Nesterov's momentum": optim.SGD(WEIGHT, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": optim.Adam(WEIGHT),
    "Adam with decay": optim.Adam(WEIGHT, weight_decay=0.01),
    "AdamW": optim.AdamW(WEIGHT),
}


@pytest.fixture(scope="module")
def nvrtc():
    """CuPy's compiler, where the CuPy and NVRTC wheels are installed."""
    compiler = pytest.importorskip("cupy", reason="CuPy is not installed: no kernel is compiled").cuda.nvrtc
    try:
        compiler.getVersion()
    except (RuntimeError, OSError) as error:
        pytest.skip(f"NVRTC is not installed: no kernel is compiled ({str(error).splitlines()[0]})")
    return compiler


class Library:
    """Stands for CuPy: keeps the text of the last kernel, and runs it on the host."""

    ndarray, float64 = np.ndarray, np.float64
    asarray, stack = staticmethod(np.asarray), staticmethod(np.stack)

    def RawKernel(self, text, name):
        self.text, kernel = text, cuda_on_host.RawKernel(text, name)
        self.launches = 0

        def launch(grid, block, args):
            self.launches += 1
            # A structure goes by value: CuPy has it as an array, the kernels of the host as a number.
            kernel(grid, block, [x[()] if isinstance(x, np.ndarray) and x.dtype.names else x for x in args])

        return launch


class OnDevice(np.ndarray):
    """An array with an address where CuPy's have it."""

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.__array_interface__["data"][0])


def kernel_of(optimizer, kind, scaled):
    """The library, and the update as it runs on a GPU."""
    library, decayed = Library(), bool(optimizer.weight_decay)
    count = len(optimizer._numbers(0.1, 1)) + scaled + decayed
    return library, optimizer._in_place(scaled, decayed)._compiled(library, np.dtype(kind), count, False)


def compile_to_ptx(nvrtc, text: str, architecture: str, *options: str) -> str:
    program = nvrtc.createProgram(text, "kernel.cu", [], [])
    try:
        nvrtc.compileProgram(program, [f"--gpu-architecture=compute_{architecture}", *options])
        ptx = nvrtc.getPTX(program)
        return ptx.decode() if isinstance(ptx, bytes) else ptx
    except nvrtc.NVRTCError as error:
        pytest.fail(f"{error}: {nvrtc.getProgramLog(program)}\n{text}")
    finally:
        nvrtc.destroyProgram(program)


@pytest.mark.parametrize("architecture", ["80", "90"])
@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_kernel_compiles(nvrtc, name, kind, architecture):
    library, _ = kernel_of(OPTIMIZERS[name], kind, scaled=True)
    ptx = compile_to_ptx(nvrtc, library.text, architecture)
    assert "cutnn_update" in ptx and f"sm_{architecture}" in ptx


@cuda_on_host.needs_compiler
@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("name", ["SGD with Nesterov's momentum", "Adam with decay", "AdamW"])
def test_optimizer_kernel_moves_all_leaves_as_the_host_does(name, kind):
    optimizer = OPTIMIZERS[name]
    library, run = kernel_of(optimizer, kind, scaled=True)
    rng = np.random.default_rng(0)
    sizes = [1, 5000, 300, *range(2, 70)]  # more than a launch takes, and more than a block of threads
    count = 2 + len(optimizer._moments)
    pieces = [tuple(np.abs(rng.normal(size=(count, n))).astype(kind).view(OnDevice)) for n in sizes]
    twins = [tuple(x.view(np.ndarray).copy() for x in piece) for piece in pieces]
    decay = [0.01] * bool(optimizer.weight_decay)
    numbers = [0.5, *decay, *optimizer._numbers(0.1, 3)]
    run(pieces, numbers)
    assert library.launches == 2
    optimizer._in_place(True, bool(decay))(twins, numbers)
    for piece, twin in zip(pieces, twins, strict=True):
        for a, b in zip(piece, twin, strict=True):
            np.testing.assert_allclose(a, b, rtol=3e-6 if kind == "f4" else 1e-14)
    run(
        [pieces[0]], [np.float64(x) if i % 2 else np.asarray(x) for i, x in enumerate(numbers)]
    )  # of the device


def test_numbers_of_a_captured_step_stay_on_the_device():
    found = on_cuda._on_device(Library(), [np.asarray(0.5), np.asarray(2.0)])
    np.testing.assert_array_equal(found, [0.5, 2.0])
    assert found.dtype == np.float64


@pytest.mark.parametrize("architecture", ["80", "90"])
@pytest.mark.parametrize("name", test_fused.CHAINS)
def test_fused_chain_compiles(nvrtc, name, architecture):
    import cupy

    headers = pathlib.Path(cupy.__file__).parent / "_core" / "include"
    libraries = [
        headers,
        *[
            headers / "cupy" / "_cccl" / part
            for part in ("thrust", "libcudacxx/include", "libcudacxx", "cub")
        ],
    ]
    for program in test_fused.programs(name)[0]:
        text = "#include <cupy/complex.cuh>\n" * ("complex" in name) + test_fused.cuda_text(program)
        ptx = compile_to_ptx(
            nvrtc, text, architecture, "-std=c++17", *[f"-I{folder}" for folder in libraries]
        )
        assert "chain" in ptx and f"sm_{architecture}" in ptx


def test_a_wrong_kernel_is_noticed(nvrtc):
    library, _ = kernel_of(OPTIMIZERS["SGD"], "f4", scaled=False)
    with pytest.raises(pytest.fail.Exception, match="unknown"):
        compile_to_ptx(nvrtc, library.text.replace("= x0 - ", "= x0 - unknown * "), "80")


@pytest.mark.parametrize("architecture", ["80", "90"])
@pytest.mark.parametrize("lanes", [4, 32])
@pytest.mark.parametrize("kind", launch.KINDS)
@pytest.mark.parametrize("name", ["householder", "jacobi"])
def test_factorisation_kernel_compiles(nvrtc, name, kind, lanes, architecture):
    ptx = compile_to_ptx(nvrtc, launch.source(name, kind, lanes), architecture)
    assert f".entry {name}(" in ptx and f"sm_{architecture}" in ptx


def precision_source() -> str:
    """The kernels of reduced precision; the reduction as CuPy composes it, of two entries."""
    _, _, mapped, reduced, after, _ = _tensor_cores.SCALE
    arguments = {
        "bfloat16": ("const float& x = p[i]; unsigned short& y = q[i];", "const float* p, unsigned short* q"),
        "float16": ("const float& x = p[i]; float& y = q[i];", "const float* p, const int* k, float* q"),
        "unscale": ("float& y = q[i];", "const int* k1, const int* k2, float* q"),
    }
    texts = [
        f'extern "C" __global__ void cutnn_{name}({given}) {{ int i = threadIdx.x; {entries} '
        f"{_tensor_cores.KERNELS[name][2]} }}"
        for name, (entries, given) in arguments.items()
    ]
    texts.append(
        "__device__ float mapped(float x) { return "
        + mapped
        + "; }\n"
        + 'extern "C" __global__ void cutnn_scale(const float* p, int* q) { '
        + f"float a = mapped(p[0]), b = mapped(p[1]); a = {reduced}; int& k = q[0]; {after}; }}"
    )
    return "\n".join(texts)


@pytest.mark.parametrize("architecture", ["80", "90"])
def test_precision_kernels_compile(nvrtc, architecture):
    ptx = compile_to_ptx(nvrtc, precision_source(), architecture)
    assert all(f"cutnn_{name}" in ptx for name in (*_tensor_cores.KERNELS, "scale"))


@pytest.mark.parametrize("architecture", ["80", "90"])
@pytest.mark.parametrize("kind", softmax.KINDS)
def test_softmax_kernels_compile(nvrtc, kind, architecture):
    ptx = compile_to_ptx(nvrtc, softmax.source(kind), architecture)
    assert ".entry cutnn_log_softmax(" in ptx and ".entry cutnn_log_softmax_back(" in ptx


@pytest.mark.parametrize("architecture", ["80", "90"])
@pytest.mark.parametrize("arrays", [1, 2])
@pytest.mark.parametrize("kind", ["f", "d"])
def test_square_kernel_compiles(nvrtc, kind, arrays, architecture):
    ptx = compile_to_ptx(nvrtc, squares.source(kind, arrays), architecture)
    assert ".entry cutnn_half_squares(" in ptx and f"sm_{architecture}" in ptx
