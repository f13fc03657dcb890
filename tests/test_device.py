"""Owners of arrays, the choice of a device, its messages, and moving arrays."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from typing import Any

import array_api_strict
import numpy as np
import optree
import pytest

from cutnn import device
from cutnn.device import DeviceError, device_of, namespace, set_device, to_device, to_host


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let each test look for a GPU anew, from an unset default device."""
    monkeypatch.delenv("CUTNN_DEVICE", raising=False)
    monkeypatch.setattr(device, "_default_device", None)
    device._why_unusable.cache_clear()
    device._cupy_library.cache_clear()
    yield
    device._why_unusable.cache_clear()
    device._cupy_library.cache_clear()


def pretend_driver(monkeypatch: pytest.MonkeyPatch, version: int | None) -> None:
    monkeypatch.setattr(device, "_driver_cuda_version", lambda: version)


class FakeCupyArray:
    """An array of the fake CuPy, which computes on the host."""

    __module__ = "cupy"

    def __init__(self, host: np.ndarray, index: int):
        self.host, self.device, self.shape = host, types.SimpleNamespace(id=index), host.shape


def fake_cupy(
    monkeypatch: pytest.MonkeyPatch,
    available: bool | Exception = True,
    count: int = 1,
    free: int = 2**34,
    kernel: Exception | None = None,
) -> Any:
    """Put a module in CuPy's place whose GPUs have the given faults; return it."""
    cupy: Any = types.ModuleType("cupy")
    current = [0]

    def answer(value: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    class Device(contextlib.AbstractContextManager[None]):
        def __init__(self, index: int = 0):
            self.index = index

        def __enter__(self) -> None:
            self.before, current[0] = current[0], self.index

        def __exit__(self, *error: object) -> None:
            current[0] = self.before

        def use(self) -> None:
            current[0] = self.index

        def synchronize(self) -> None:
            cupy.synchronized += 1

    cupy.__version__ = "14.0.0"
    cupy.synchronized = cupy.kernels = 0
    cupy.ndarray = FakeCupyArray

    class Ones:
        def __matmul__(self, other: Any) -> np.ndarray:
            cupy.kernels += 1
            return np.full((2, 2), 2.0) if kernel is None else answer(kernel)

    cupy.ones = lambda shape, dtype: Ones()
    cupy.array = lambda x: FakeCupyArray(getattr(x, "host", x).copy(), current[0])
    cupy.asnumpy = lambda x: x.host
    cupy.cuda = types.SimpleNamespace(
        Device=Device,
        is_available=lambda: answer(available),
        runtime=types.SimpleNamespace(
            getDeviceCount=lambda: count,
            memGetInfo=lambda: (free, 2**34),
            getDeviceProperties=lambda i: {"name": b"Pretend 100", "totalGlobalMem": 2**34},
        ),
    )
    compat: Any = types.ModuleType("array_api_compat.cupy")
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", compat)
    monkeypatch.setattr("array_api_compat.cupy", compat, raising=False)
    return cupy


def no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


class TestNamespace:
    @pytest.mark.parametrize("x", [np.ones(2), np.array(1.0), np.float32(1), 1, 1.0, 1j, True])
    def test_numpy_owns_its_arrays_and_numbers(self, x: Any) -> None:
        assert namespace(x) is np

    def test_nothing_is_numpys(self) -> None:
        assert namespace() is np

    def test_subclass_from_elsewhere(self) -> None:
        class Named(np.ndarray):
            pass

        assert namespace(np.ones(2).view(Named)) is np

    def test_other_library_of_the_standard(self) -> None:
        assert namespace(array_api_strict.ones(2), 2.0) is array_api_strict

    @pytest.mark.parametrize("number", [2, 2.0, 1j, True, np.float64(2), np.int8(2)])
    def test_numbers_go_with_any_array(self, number: Any, pretend_device: Any) -> None:
        x = pretend_device.ones(2)
        assert namespace(x, number) is namespace(number, x) is pretend_device

    def test_mixing_names_the_arguments_and_their_devices(self, pretend_device: Any) -> None:
        with pytest.raises(TypeError) as caught:
            namespace(2.0, np.ones((2, 3)), pretend_device.ones(3))
        message = str(caught.value)
        assert "argument 1 is a numpy.ndarray of shape (2, 3) on cpu" in message
        assert "argument 2 is a pretend.PretendArray of shape (3,) on pretend" in message
        assert "to_device" in message and "argument 0" not in message

    @pytest.mark.parametrize(
        ("x", "name"),
        [([1.0], "list"), (None, "NoneType"), ("a", "str"), (np.dtype("f4"), "numpy.dtypes.Float32DType")],
    )
    def test_what_is_no_array_is_named(self, x: Any, name: str) -> None:
        with pytest.raises(TypeError, match=f"argument 1 is a {name}[.] Convert it"):
            namespace(np.ones(2), x)

    def test_cupy_arrays_are_met_without_asking_for_a_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cupy = fake_cupy(monkeypatch)
        x = FakeCupyArray(np.ones(2), 1)
        try:
            assert namespace(x) is sys.modules["array_api_compat.cupy"]
            assert device_of(x) == "cuda:1"
            assert cupy.kernels == 0
        finally:
            device._OWNER.pop(FakeCupyArray, None)


class TestDefaultDevice:
    def test_is_the_cpu_and_does_not_look_for_a_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(device, "_import_cupy", lambda: pytest.fail("CuPy was imported"))
        assert device.get_device() == "cpu"
        assert device.default_namespace() is np

    def test_auto_falls_back_quietly(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        no_cupy(monkeypatch)
        set_device("auto")
        assert device.get_device() == "cpu"
        assert capfd.readouterr() == ("", "")

    def test_auto_takes_a_gpu_that_works(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_cupy(monkeypatch)
        set_device("auto")
        assert device.get_device() == "cuda:0"
        assert device.default_namespace() is sys.modules["array_api_compat.cupy"]

    @pytest.mark.parametrize(("asked", "full"), [("cuda", "cuda:0"), ("cuda:1", "cuda:1")])
    def test_explicit_gpu_becomes_current(
        self, monkeypatch: pytest.MonkeyPatch, asked: str, full: str
    ) -> None:
        cupy = fake_cupy(monkeypatch, count=2)
        set_device(asked)
        assert device.get_device() == full
        assert f"cuda:{cupy.array(np.ones(1)).device.id}" == full

    @pytest.mark.parametrize("name", ["gpu", "", "cpu:0", "cuda:", "cuda:-1", "cuda:x", "CUDA", None, 0])
    def test_unknown_names_list_the_valid_ones(self, name: Any) -> None:
        with pytest.raises(ValueError, match="unknown device .* valid are 'cpu', 'cuda', 'cuda:0'"):
            set_device(name)
        assert device.get_device() == "cpu"

    def test_index_out_of_range(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_cupy(monkeypatch, count=2)
        with pytest.raises(DeviceError, match="cuda:2 was asked for .* has only cuda:0, cuda:1"):
            set_device("cuda:2")

    def test_a_refused_device_leaves_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        no_cupy(monkeypatch)
        set_device("cpu")
        with pytest.raises(DeviceError):
            set_device("cuda")
        assert device.get_device() == "cpu"

    def test_pretend_device_makes_new_arrays(self, pretend_device: Any) -> None:
        set_device("pretend")
        assert device_of(device.default_namespace().zeros(2)) == "pretend"


class TestWhyUnusable:
    """Each cause has its sentence, an error of ours without CuPy's traceback, and is quiet under "auto"."""

    @staticmethod
    def refuse(pattern: str) -> None:
        with pytest.raises(DeviceError, match=pattern) as caught:
            set_device("cuda")
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert not device.is_available()
        set_device("auto")
        assert device.get_device() == "cpu"

    def test_neither_cupy_nor_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        no_cupy(monkeypatch)
        pretend_driver(monkeypatch, None)
        self.refuse("no NVIDIA driver, and CuPy is not installed")

    @pytest.mark.parametrize(("version", "extra"), [(12, "cuda12"), (13, "cuda13"), (0, "cuda13")])
    def test_driver_without_cupy(self, monkeypatch: pytest.MonkeyPatch, version: int, extra: str) -> None:
        no_cupy(monkeypatch)
        pretend_driver(monkeypatch, version)
        self.refuse(rf"driver is here but CuPy is not installed.*pip install 'cutnn\[{extra}\]'")

    def test_cupy_without_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_cupy(monkeypatch, available=False)
        pretend_driver(monkeypatch, None)
        self.refuse("CuPy is installed but this machine has no NVIDIA driver")

    def test_driver_without_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_cupy(monkeypatch, available=False)
        pretend_driver(monkeypatch, 12)
        self.refuse(r"shows CuPy no GPU .*too old.*cutnn\[cuda12\]")

    def test_broken_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_cupy(monkeypatch, available=RuntimeError("cudaErrorSystemDriverMismatch: no\nsecond line"))
        pretend_driver(monkeypatch, 13)
        self.refuse(r"\(RuntimeError: cudaErrorSystemDriverMismatch: no\)")

    def test_broken_cupy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken() -> Any:
            raise ImportError("libcublas.so.13: cannot open shared object file")

        monkeypatch.setattr(device, "_import_cupy", broken)
        pretend_driver(monkeypatch, 13)
        self.refuse("CuPy is installed but cannot be imported .*libcublas.*Reinstall")

    def test_too_little_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cupy = fake_cupy(monkeypatch, free=100 * 2**20)
        pretend_driver(monkeypatch, 13)
        self.refuse("too little free memory, 100 of 16384 MiB.*nvidia-smi")
        assert cupy.kernels == 0

    def test_kernel_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cupy = fake_cupy(monkeypatch, kernel=RuntimeError("CuPy failed to load libnvrtc.so.13"))
        pretend_driver(monkeypatch, 13)
        self.refuse(r"test kernel failed \(RuntimeError: CuPy failed to load libnvrtc.*cutnn\[cuda13\]")
        assert cupy.kernels == 1, "the test kernel runs once"


class TestEnvironment:
    def test_names_the_default_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_cupy(monkeypatch, count=2)
        monkeypatch.setenv("CUTNN_DEVICE", "cuda:1")
        assert device.get_device() == "cuda:1"

    def test_gives_way_to_set_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUTNN_DEVICE", "cuda:1")
        set_device("cpu")
        assert device.get_device() == "cpu"

    def test_explicit_gpu_that_cannot_be_used(self) -> None:
        code = "import sys; sys.modules['cupy'] = None; from cutnn import device; device.default_namespace()"
        done = run_python(code, CUTNN_DEVICE="cuda")
        assert done.returncode == 1
        assert "DeviceError: cuda:0 was asked for but cannot be used" in done.stderr.splitlines()[-1]

    def test_unknown_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUTNN_DEVICE", "tpu")
        with pytest.raises(ValueError, match="unknown device 'tpu'"):
            device.get_device()

    def test_import_leaves_cupy_alone(self) -> None:
        done = run_python("import sys, cutnn, cutnn.device; print('cupy' in sys.modules)")
        assert done.stdout.strip() == "False", done.stderr


class TestMoving:
    def test_over_a_pytree_and_back(self, pretend_device: Any) -> None:
        tree = {"a": np.arange(3.0), "b": [np.ones((1, 2), np.float32), 4, "name"], "c": None}
        there = to_device(tree, "pretend")
        assert device_of(there["a"]) == device_of(there["b"][0]) == "pretend"
        assert there["b"][1:] == [4, "name"] and there["c"] is None
        back = to_host(there)
        assert optree.tree_structure(back) == optree.tree_structure(tree)
        np.testing.assert_array_equal(back["a"], tree["a"])
        assert back["b"][0].dtype == np.float32

    def test_what_is_there_is_not_copied(self, pretend_device: Any) -> None:
        x, y = np.ones(2), pretend_device.ones(2)
        assert to_host(x) is x
        assert to_device(y, "pretend") is y

    @pytest.mark.parametrize("number", [2.5, np.float64(2.5), np.complex64(2), np.int64(3)])
    def test_numbers_stay_as_they_are(self, pretend_device: Any, number: Any) -> None:
        for name in ("pretend", "cpu"):
            assert to_device({"error": number}, name)["error"] is number

    def test_default_device(self, pretend_device: Any) -> None:
        set_device("pretend")
        assert device_of(to_device(np.ones(2))) == "pretend"

    def test_between_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_cupy(monkeypatch, count=2)
        x = to_device(np.arange(2.0), "cuda:1")
        assert device_of(x) == "cuda:1"
        assert device_of(to_device(x, "cuda")) == "cuda:0"
        np.testing.assert_array_equal(to_host(x), [0, 1])

    def test_unusable_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        no_cupy(monkeypatch)
        with pytest.raises(DeviceError):
            to_device(np.ones(2), "cuda")

    def test_arrays_of_other_libraries_are_refused(self) -> None:
        with pytest.raises(TypeError, match="cannot move a array_api_strict.* to cpu"):
            to_host([array_api_strict.ones(2)])

    def test_device_of_what_is_no_array(self) -> None:
        assert device_of(2.0) == "cpu"
        with pytest.raises(TypeError, match="is a list"):
            device_of([1])


class TestPretendArray:
    """The stand-in is as strict as CuPy, or tests on it would prove nothing."""

    def test_refuses_the_host(self, pretend_device: Any) -> None:
        x = pretend_device.ones(3)
        host = np.ones(3)
        refused = [
            lambda: np.asarray(x),
            lambda: x + host,
            lambda: host + x,
            lambda: np.add(x, host),
            lambda: pretend_device.add(x, host),
            lambda: pretend_device.concat([x, host]),
            lambda: pretend_device.where(x > 0, x, host),
            lambda: x[np.array([0])],
            lambda: x.__setitem__(0, host[0:1]),
            lambda: pretend_device.linalg.norm(host),
        ]
        for attempt in refused:
            with pytest.raises(TypeError):
                attempt()

    def test_computes(self, pretend_device: Any) -> None:
        x = pretend_device.asarray([[4.0, 1.0], [1.0, 3.0]])
        y = 2 * x @ x.mT - np.float64(1.0)
        y[0, :] = 0.0
        y += x
        factors = pretend_device.linalg.qr(y)
        results = [y, x.sum(), np.tanh(x), pretend_device.fft.rfft(x), *factors, pretend_device.stack([x, x])]
        assert all(device_of(result) == "pretend" for result in results)
        np.testing.assert_allclose(y.get(), [[4.0, 1.0], [14.0, 22.0]])
        assert x.sum().shape == () and float(x.sum()) == 9.0


class TestReport:
    def test_without_a_gpu(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        no_cupy(monkeypatch)
        pretend_driver(monkeypatch, 13)
        device.show_config()
        report = capsys.readouterr().out
        assert f"numpy {np.__version__}" in report
        assert "default    cpu (CUTNN_DEVICE is not set)" in report
        assert "not used: an NVIDIA driver is here but CuPy is not installed" in report

    def test_with_a_gpu(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        fake_cupy(monkeypatch)
        device.show_config()
        report = capsys.readouterr().out
        assert "cuda:0 (Pretend 100, 16 GiB)" in report
        assert "usable: a test kernel ran" in report

    def test_never_raises(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        no_cupy(monkeypatch)
        monkeypatch.setenv("CUTNN_DEVICE", "cuda")
        device.show_config()
        assert "default    none: cuda:0 was asked for" in capsys.readouterr().out

    def test_as_a_program(self) -> None:
        done = run_python("import runpy; runpy.run_module('cutnn', run_name='__main__')", CUTNN_DEVICE="cpu")
        assert "default    cpu (CUTNN_DEVICE is cpu)" in done.stdout, done.stderr


class TestSynchronize:
    def test_waits_for_a_gpu_in_use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cupy = fake_cupy(monkeypatch)
        device.synchronize()
        assert cupy.synchronized == 1

    def test_is_nothing_without_cupy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "cupy", raising=False)
        monkeypatch.setattr(device, "_import_cupy", lambda: pytest.fail("CuPy was imported"))
        device.synchronize()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_freed_memory_is_kept() -> None:
    """Blocks freed together fault their pages in anew unless kept; glibc by itself keeps only a few."""
    code = """
import resource, numpy as np
import cutnn
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.ones(2**21) for _ in range(5)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    if not device.keep_freed_memory():
        pytest.skip("no glibc here")
    kept = run_python(code)
    unkept = run_python(code, CUTNN_KEEP_FREED_MEMORY="0")
    assert 10 * int(kept.stdout) < int(unkept.stdout)


@pytest.mark.gpu
class TestRealGpu:
    def test_there_and_back(self) -> None:
        x = to_device({"x": np.arange(6.0).reshape(2, 3)}, "cuda")
        assert device_of(x["x"]) == "cuda:0"
        assert namespace(x["x"], 2.0).__name__ == "array_api_compat.cupy"
        device.synchronize()
        np.testing.assert_array_equal(to_host(x)["x"], np.arange(6.0).reshape(2, 3))

    def test_mixing(self) -> None:
        with pytest.raises(TypeError, match="argument 0 is a numpy.ndarray .* argument 1 is a cupy.ndarray"):
            namespace(np.ones(2), to_device(np.ones(2), "cuda"))
