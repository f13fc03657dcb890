"""Every kernel text compiles, without a GPU: by NVRTC, for the architectures sm_80 and sm_90."""

from __future__ import annotations

import numpy as np
import pytest

from cutnn import optim
from cutnn.array import _tensor_cores
from cutnn.optim import optimizers

WEIGHT = np.zeros(3)
KERNELS = {
    "SGD": optim.SGD(WEIGHT, lr=0.1),
    "SGD with momentum": optim.SGD(WEIGHT, lr=0.1, momentum=0.9),
    "SGD with Nesterov's momentum": optim.SGD(WEIGHT, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": optim.Adam(WEIGHT),
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


class Recorder:
    """Stands for CuPy, and writes down the kernel it is asked to make."""

    def ElementwiseKernel(self, inputs: str, outputs: str, body: str, name: str):
        return inputs, outputs, body, name


def source(optimizer: optim.Optimizer, kind: str) -> str:
    """The kernel as CuPy would write it out: one thread an entry, arrays g, p and the moments, numbers as they are."""
    inputs, outputs, body, name = optimizers._compiled(Recorder(), *optimizer._kernel)
    arrays = [f"const {kind}* _g", *(f"{kind}* _{o.split()[1]}" for o in outputs.split(","))]
    numbers = [
        i.strip().replace("float64", "double").replace("T ", f"{kind} ") for i in inputs.split(",")[1:]
    ]
    entries = "".join(f"{kind}& {o.split()[1]} = _{o.split()[1]}[i]; " for o in outputs.split(","))
    return (
        f"typedef {kind} T;\n"
        f'extern "C" __global__ void {name}({", ".join(arrays + numbers)}, long long size) {{\n'
        f"  for (long long i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += gridDim.x * blockDim.x) {{\n"
        f"    const T g = _g[i]; {entries}\n    {body}\n  }}\n}}\n"
    )


def compile_to_ptx(nvrtc, text: str, architecture: str) -> str:
    program = nvrtc.createProgram(text, "kernel.cu", [], [])
    try:
        nvrtc.compileProgram(program, [f"--gpu-architecture=compute_{architecture}"])
        ptx = nvrtc.getPTX(program)
        return ptx.decode() if isinstance(ptx, bytes) else ptx
    except nvrtc.NVRTCError as error:
        pytest.fail(f"{error}: {nvrtc.getProgramLog(program)}\n{text}")
    finally:
        nvrtc.destroyProgram(program)


@pytest.mark.parametrize("architecture", ["80", "90"])
@pytest.mark.parametrize("kind", ["float", "double"])
@pytest.mark.parametrize("name", KERNELS)
def test_optimizer_kernel_compiles(nvrtc, name, kind, architecture):
    ptx = compile_to_ptx(nvrtc, source(KERNELS[name], kind), architecture)
    assert "cutnn_optimizer" in ptx and f"sm_{architecture}" in ptx


def test_a_wrong_kernel_is_noticed(nvrtc):
    with pytest.raises(pytest.fail.Exception, match="unknown"):
        compile_to_ptx(nvrtc, source(KERNELS["SGD"], "float").replace("p -= lr", "p -= unknown"), "80")


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
