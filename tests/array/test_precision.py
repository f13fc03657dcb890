"""Rounding against exact arithmetic, products against float64, and in force where and only where it was asked for."""

from __future__ import annotations

import contextlib
import ctypes
import math
import shutil
import subprocess
import threading
import types
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra, nn
from cutnn.array import _cublas, _gemm, _precision, _rounded, _tensor_cores
from tests.array.test_gemm import array, operands

REDUCED = ("tf32", "bfloat16", "float16")
BITS = {"tf32": 11, "bfloat16": 8, "float16": 11}  # with the leading one
LEAST = {"tf32": -136, "bfloat16": -133, "float16": -24}  # exponent of the smallest number
LARGEST = 127


def nearest(x: float, form: str) -> float:
    """The number of a format that lies nearest to x, ties to even, by fractions."""
    if not math.isfinite(x) or x == 0:
        return x
    exact = Fraction(x)
    _, exponent = math.frexp(x)
    unit = Fraction(2) ** max(exponent - BITS[form], LEAST[form])
    result = round(exact / unit) * unit  # of a Fraction: ties to even
    if form != "float16" and abs(result) >= Fraction(2) ** (LARGEST + 1):
        return math.copysign(math.inf, x)
    return math.copysign(float(result), x)


def exact_scale(x: np.ndarray) -> int:
    """The power of two for float16, by looking for it."""
    finite = [abs(float(v)) for v in x.ravel() if math.isfinite(v) and v]
    if not finite:
        return 0
    scale = next(k for k in range(-300, 300) if max(finite) * 2.0**k >= 2.0**14)
    return min(scale, 127)


any_float = st.one_of(
    st.floats(width=32), st.integers(0, 2**32 - 1).map(lambda b: float(np.uint32(b).view(np.float32)))
)


def same(found: np.ndarray, expected: list[float]) -> None:
    reference = np.array(expected, np.float64).astype(np.float32)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, reference)
    number = ~np.isnan(reference)
    np.testing.assert_array_equal(np.signbit(found)[number], np.signbit(reference)[number])


@pytest.mark.parametrize("form", ["tf32", "bfloat16"])
@given(st.lists(any_float, min_size=1, max_size=20))
def test_rounding_is_to_the_nearest_ties_to_even(form: str, values: list[float]) -> None:
    x = np.array(values, np.float32)
    same(_rounded.rounded(x, form), [nearest(float(v), form) for v in x])


@pytest.mark.parametrize("form", ["tf32", "bfloat16"])
@pytest.mark.parametrize("steps", [-3, -2, -1, 0, 1, 2, 3])
def test_halves_between_two_numbers(form: str, steps: int) -> None:
    ulp = 2.0 ** (1 - BITS[form])
    x = np.array(
        [s * (1 + steps * ulp / 2) * 2.0**e for s in (1, -1) for e in (-149, -130, 0, 99)], np.float32
    )
    same(_rounded.rounded(x, form), [nearest(float(v), form) for v in x])


@given(st.lists(any_float, min_size=1, max_size=20))
def test_float16_scales_and_rounds(values: list[float]) -> None:
    x = np.array(values, np.float32)
    with np.errstate(invalid="ignore"):
        found, scale = _rounded.halves(x)
    assert scale == exact_scale(x)
    same(
        found, [nearest(float(v) * 2.0 ** int(scale), "float16") if math.isfinite(v) else float(v) for v in x]
    )


@pytest.mark.parametrize("largest", [1e-45, 1e-38, 6e-8, 1.0, 65504.0, 3.4e38])
def test_float16_keeps_eleven_bits_whatever_the_size(largest: float) -> None:
    x = np.array([[largest, largest / 3]], np.float32)
    found, scale = _rounded.halves(x)
    back = _rounded.scaled(found, -scale)
    assert np.isfinite(back).all() and (abs(back - x) <= abs(x) * 2.0**-11 + 2.0**-149).all()


@pytest.mark.parametrize("form", REDUCED)
@given(operands())
def test_products_against_float64(form: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    with ct.precision(form):
        found = ct.matmul(*pair)
    x1, x2 = (x.astype(np.complex128 if x.dtype.kind == "c" else np.float64) for x in pair)
    expected = x1 @ x2
    assert found.shape == expected.shape and found.dtype == np.result_type(*pair)
    if pair[0].dtype in (np.float64, np.complex128):
        np.testing.assert_array_equal(found, pair[0] @ pair[1])
    else:  # |x1| |x2| (2u + u²), u = 2⁻ᵇ; √2 for complex numbers; sums in float32
        bound = (abs(x1) @ abs(x2)) * (2 * 2.0 ** -BITS[form] * 1.5 + 16 * 2.0**-23)
        subnormal = 8 * 2.0**-38 * abs(x1).max(initial=0) * abs(x2).max(initial=0) * x1.shape[-1]
        assert (abs(found - expected) <= bound + subnormal).all()


@pytest.mark.parametrize("form", REDUCED)
def test_it_is_the_product_of_the_rounded_operands(form: str) -> None:
    rng = np.random.default_rng(0)
    x1, x2 = array(rng, (3, 20, 9), "float32"), array(rng, (9, 7), "float32")
    with ct.precision(form):
        found = ct.matmul(x1, x2)
    scale1, scale2 = (2.0 ** exact_scale(x) if form == "float16" else 1.0 for x in (x1, x2))
    one = np.vectorize(lambda v, s: nearest(float(v) * s, form) / s)
    np.testing.assert_allclose(found, one(x1, scale1) @ one(x2, scale2), rtol=1e-5, atol=1e-5)
    assert abs(found - x1.astype("d") @ x2).max() > 1e-4  # which is not what float32 gives


def test_float64_rounds_once() -> None:
    rng = np.random.default_rng(0)
    for dtype, wide in [("float32", "float64"), ("complex64", "complex128")]:
        x1, x2 = array(rng, (4, 30, 50), dtype), array(rng, (4, 50, 3), dtype)
        with ct.precision("float64"):
            found = ct.matmul(x1, x2)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, (x1.astype(wide) @ x2.astype(wide)).astype(dtype))
        assert (found != x1 @ x2).any()


@pytest.mark.parametrize("form", REDUCED)
def test_inf_nan_and_zero(form: str) -> None:
    x = np.array([[np.inf, 1.0], [np.nan, 1.0], [2.0, 0.0], [0.0, 0.0], [-np.inf, 1e-30]], np.float32)
    with ct.precision(form), np.errstate(invalid="ignore"):
        found = ct.matmul(x, np.ones((2, 1), np.float32))
        nothing = ct.matmul(0 * x[2:4], np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(found[:, 0], np.array([np.inf, np.nan, 2, 0, -np.inf], np.float32))
    np.testing.assert_array_equal(nothing, np.zeros((2, 3)))


@pytest.mark.parametrize("form", [*REDUCED, "float64"])
@pytest.mark.parametrize(
    "shapes", [((0, 3), (3, 2)), ((2, 0), (0, 3)), ((4, 2, 3), (4, 3, 0)), ((0, 2, 3), (3, 2))]
)
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_empty_operands(form: str, shapes: Any, dtype: str) -> None:
    x1, x2 = (np.ones(shape, dtype) for shape in shapes)
    with ct.precision(form):
        found = ct.matmul(x1, x2)
    np.testing.assert_array_equal(found, x1 @ x2)
    assert found.dtype == dtype


@pytest.mark.parametrize("form", [*REDUCED, "float64"])
def test_mixed_operands_and_vectors(form: str) -> None:
    rng = np.random.default_rng(0)
    x, z, v = array(rng, (3, 4), "float32"), array(rng, (4, 2), "complex64"), array(rng, (4,), "float32")
    k = np.arange(8, dtype=np.int8).reshape(4, 2)
    with ct.precision(form):
        for a, b in [(x, z), (z.T, x.T), (x, v), (v, v), (x, k)]:
            found, expected = ct.matmul(a, b), a @ b
            assert found.dtype == expected.dtype and np.shape(found) == expected.shape
            np.testing.assert_allclose(found, expected, atol=0.1)
        np.testing.assert_array_equal(ct.matmul(k.T, k), k.T @ k)
        wide = x.astype(np.float64)
        np.testing.assert_array_equal(ct.matmul(wide, v), wide @ v)


# ------------------------------------------------------------------------------------------ where it is in force


def test_it_nests_and_ends_by_an_error_too() -> None:
    assert ct.get_precision() == "float32" and _precision.in_use == 0
    with contextlib.suppress(KeyError), ct.precision("bfloat16"):
        assert ct.get_precision() == "bfloat16"
        with ct.precision("float32"):
            assert ct.get_precision() == "float32"
        assert ct.get_precision() == "bfloat16" and _precision.in_use == 1
        raise KeyError
    assert ct.get_precision() == "float32" and _precision.in_use == 0

    @ct.precision("tf32")
    def decorated() -> str:
        return ct.get_precision()

    assert decorated() == decorated() == "tf32" and _precision.in_use == 0


def test_of_the_process_and_of_a_thread() -> None:
    seen = []

    def other() -> None:
        seen.append(ct.get_precision())

    def run() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    ct.set_precision("tf32")
    try:
        with ct.precision("bfloat16"):
            run()
        assert ct.get_precision() == "tf32"
        with ct.precision("float32"):
            x = array(np.random.default_rng(0), (5, 5), "float32")
            np.testing.assert_array_equal(ct.matmul(x, x), x @ x)
    finally:
        ct.set_precision("float32")
    with ct.precision("bfloat16"):
        run()
    run()
    assert seen == ["tf32", "float32", "float32"] and _precision.in_use == 0


@pytest.mark.parametrize("call", [ct.precision, ct.set_precision])
def test_an_unknown_name_is_named(call: Any) -> None:
    with pytest.raises(ValueError, match="unknown name 'float8'; there are float32, tf32"):
        call("float8")
    assert _precision.in_use == 0


def test_off_it_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_precision, "get_precision", lambda: pytest.fail("it was asked"))
    x = array(np.random.default_rng(0), (3, 5, 5), "float32")
    np.testing.assert_array_equal(_gemm.matmul(x, x), x @ x)


# ------------------------------------------------------------------------------------------- gradients, networks


@pytest.mark.parametrize("form", [*REDUCED, "float64"])
@pytest.mark.parametrize(
    "star", [algebra.dct(6), algebra.fft(6), algebra.plain()], ids=["dct", "fft", "plain"]
)
def test_gradients_of_a_network(form: str, star: algebra.StarAlgebra) -> None:
    model = nn.Sequential(nn.TLinear(star, 8, 7, activation=ct.tanh, seed=0), nn.TLinear(star, 7, 3, seed=1))
    X = array(np.random.default_rng(0), (*(() if star == algebra.plain() else (6,)), 8, 20), "float32")

    def loss(model: Any, X: Any) -> Any:
        return ct.mean(model(X) ** 2)

    plain = ct.value_and_grad(loss)(model, X)
    with ct.precision(form):
        value, gradient = ct.value_and_grad(loss)(model, X)
    assert abs(value - plain[0]) <= 0.03 * plain[0]
    for k in range(2):
        for name in ("weight", "bias"):
            found, expected = (getattr(g[k], name) for g in (gradient, plain[1]))
            assert found.dtype == np.float32 and found.shape == expected.shape
            assert 0 < np.linalg.norm(found - expected) <= 0.03 * np.linalg.norm(expected)
    assert model[0].weight.dtype == np.float32


def test_the_backward_pass_has_the_precision_in_force_when_it_runs() -> None:
    rng = np.random.default_rng(0)
    x, y, g = (array(rng, (5, 5), "float32") for _ in range(3))
    value, pull = ct.vjp(lambda x: ct.matmul(x, y), x)
    np.testing.assert_array_equal(value, x @ y)
    with ct.precision("bfloat16"):
        (found,) = pull(g) if isinstance(pull(g), tuple) else (pull(g),)
        np.testing.assert_array_equal(found, ct.matmul(g, y.T))
    assert (found != g @ y.T).any()


def test_gradients_below_float16_do_not_vanish() -> None:
    rng = np.random.default_rng(0)
    x, w = array(rng, (5, 8), "float32"), array(rng, (8, 3), "float32")
    with ct.precision("float16"):
        found = ct.grad(lambda w: 1e-12 * ct.sum(ct.matmul(x, w)))(w)
    expected = 1e-12 * np.repeat(x.sum(0)[:, None], 3, axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_tensordot_follows_in_either_road() -> None:
    rng = np.random.default_rng(0)
    x, y = array(rng, (4, 5, 6), "float32"), array(rng, (5, 6, 3), "float32")
    plain = ct.tensordot(x, y)
    with ct.precision("bfloat16"):
        found = ct.tensordot(x, y)
        np.testing.assert_array_equal(found, ct.matmul(x.reshape(4, 30), y.reshape(30, 3)))
    np.testing.assert_array_equal(plain, np.tensordot(x, y))
    assert (found != plain).any()


def test_factorisations_are_not_rounded() -> None:
    x = array(np.random.default_rng(0), (3, 5, 5), "float32")
    f = ct.value_and_grad(lambda x: ct.sum(ct.linalg.svdvals(x) ** 3))
    plain = f(x)
    with ct.precision("bfloat16"):
        found = f(x)
    assert found[0] == plain[0]
    np.testing.assert_array_equal(found[1], plain[1])


# ----------------------------------------------------------------------------------------------- tensor cores


@given(operands())
def test_complex_products_by_real_ones(pair: tuple[np.ndarray, np.ndarray]) -> None:
    x1, x2 = (x.astype(np.complex64 if x.dtype.kind == "c" else np.float32) for x in pair)
    for a, b in [(x1, x2), (x1 * np.complex64(1j), x2), (x1, x2 * np.complex64(1j))]:
        if a.dtype.kind == "f" == b.dtype.kind:
            continue
        found = _tensor_cores.of_complex(a, b, np.matmul, np)
        assert found.dtype == np.complex64
        np.testing.assert_allclose(found, a @ b, atol=1e-4)


def test_what_is_broadcast_is_converted_once() -> None:
    x = np.broadcast_to(np.arange(6.0).reshape(2, 1, 3)[:, None], (2, 4, 5, 3))
    assert _tensor_cores.lean(x).shape == (2, 1, 5, 3)
    np.testing.assert_array_equal(np.broadcast_to(_tensor_cores.lean(x), x.shape), x)


class FakeLibrary:
    """Writes down what cuBLAS is given, and answers that all went well."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.calls.append((name, *args))


class OnDevice(np.ndarray):
    """An array with a pointer as CuPy's have it."""

    @property
    def data(self) -> Any:
        return types.SimpleNamespace(ptr=self.__array_interface__["data"][0])


# The numbers are those of library_types.h and cublas_api.h: CUDA_R_16F 2, CUDA_R_16BF 14, CUDA_R_32F 0, CUDA_C_32F 4;
# CUBLAS_COMPUTE_32F 68, CUBLAS_COMPUTE_32F_FAST_TF32 77.
@pytest.mark.parametrize(
    "form, dtype, kinds, compute, result",
    [
        ("float16", np.float16, (2, 2, 0), 68, np.float32),
        ("bfloat16", np.uint16, (14, 14, 0), 68, np.float32),
        ("tf32", np.float32, (0, 0, 0), 77, np.float32),
        ("tf32", np.complex64, (4, 4, 4), 77, np.complex64),
    ],
)
def test_what_cublas_is_given(form: str, dtype: Any, kinds: Any, compute: int, result: Any) -> None:
    blas = object.__new__(_cublas.CuBLAS)
    blas._handle, blas._library = ctypes.c_void_p(), FakeLibrary()
    blas._xp = types.SimpleNamespace(
        empty=lambda shape, dtype: np.empty(shape, dtype).view(OnDevice),
        ascontiguousarray=np.ascontiguousarray,
    )
    x1, x2 = np.ones((6, 4, 5), dtype).view(OnDevice)[:, 1:], np.ones((6, 5, 2), dtype).view(OnDevice)
    out = blas.reduced(x1, x2, form)
    assert out.shape == (6, 3, 2) and out.dtype == result
    ((name, *args),) = blas._library.calls
    numbers = [getattr(arg, "value", arg) for arg in args]
    assert name == "cublasGemmStridedBatchedEx" and len(args) == 23
    assert (numbers[8], numbers[12], numbers[17]) == kinds and numbers[21] == compute
    assert (numbers[7], numbers[11], numbers[16]) == (x2.data.ptr, x1.data.ptr, out.data.ptr)


@pytest.fixture(scope="module")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The bodies of the kernels, compiled for the host: the same C, under the names that CUDA has for its parts."""
    if (compiler := shutil.which("g++")) is None:
        pytest.skip("there is no g++ to compile the kernels for the host")
    folder = tmp_path_factory.mktemp("kernels")
    _, _, mapped, reduced, after, first = _tensor_cores.SCALE
    bodies = {name: kernel[2] for name, kernel in _tensor_cores.KERNELS.items()}
    (folder / "k.cpp").write_text(f"""
#include <algorithm>
#include <cmath>
#include <cstring>
using namespace std;
static unsigned int __float_as_uint(float x) {{ unsigned int b; memcpy(&b, &x, 4); return b; }}
extern "C" void bfloat16(const float* p, unsigned short* q, long n) {{
  for (long i = 0; i < n; i++) {{ float x = p[i]; unsigned short& y = q[i]; {bodies["bfloat16"]} }} }}
extern "C" void float16(const float* p, const int* k, float* q, long n) {{
  for (long i = 0; i < n; i++) {{ float x = p[i]; float& y = q[i]; {bodies["float16"]} }} }}
extern "C" void unscale(const int* k1, const int* k2, float* q, long n) {{
  for (long i = 0; i < n; i++) {{ float& y = q[i]; {bodies["unscale"]} }} }}
extern "C" int scale(const float* p, long n) {{
  float a = {first}; int k;
  for (long i = 0; i < n; i++) {{ float x = p[i]; float b = {mapped}; a = {reduced}; }}
  {after}; return k; }}
""")
    library = folder / "k.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, folder / "k.cpp"], check=True)
    return ctypes.CDLL(str(library))


def pointer(x: np.ndarray) -> Any:
    return ctypes.c_void_p(x.ctypes.data)


@given(st.lists(any_float, min_size=1, max_size=20))
def test_the_kernels_do_what_the_emulation_does(on_host: ctypes.CDLL, values: list[float]) -> None:
    x = np.array(values, np.float32)
    bits, n = np.empty(x.size, np.uint16), ctypes.c_long(x.size)
    on_host.bfloat16(pointer(x), pointer(bits), n)
    expected = _rounded.rounded(x, "bfloat16").view(np.uint32)
    np.testing.assert_array_equal(bits.astype(np.uint32) << 16, expected)

    with np.errstate(invalid="ignore"):
        halves, scale = _rounded.halves(x)
    assert on_host.scale(pointer(x), n) == scale
    k, found = np.array([scale], np.int32), np.empty_like(x)
    on_host.float16(pointer(x), pointer(k), pointer(found), n)
    np.testing.assert_array_equal(found.astype(np.float16).astype(np.float32), halves)
    on_host.unscale(pointer(k), pointer(0 * k), pointer(found), n)
    np.testing.assert_array_equal(found, _rounded.scaled(_rounded.scaled(x, scale), -scale))


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["float32", *REDUCED, "float64"])
@given(operands())
def test_gpu_and_emulation_agree(form: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    with ct.precision(form):
        here, there = ct.matmul(*pair), ct.to_host(ct.matmul(*(ct.to_device(x, "cuda:0") for x in pair)))
    assert there.shape == here.shape and there.dtype == here.dtype
    room = 2.0**-9 if form == "tf32" else 2.0**-18  # how cuBLAS rounds to tf32 is its own affair
    size = abs(pair[0]).max(initial=0) * abs(pair[1]).max(initial=0) * pair[0].shape[-1]
    np.testing.assert_allclose(there, here, rtol=0, atol=room * size)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("name", ["float64", "tf32", "bfloat16", "float16"])
def test_captured_steps_round_as_plain_ones(name: str, inside: bool) -> None:
    rng = np.random.default_rng(0)
    M = rng.standard_normal((3, 3), dtype=np.float32)

    def step(X: Any) -> Any:
        with ct.precision(name) if inside else contextlib.nullcontext():
            return ct.value_and_grad(lambda X: ct.sum(ct.matmul(M, X) ** 2))(X)

    run = ct.capture(step)
    with contextlib.nullcontext() if inside else ct.precision(name):
        given = [rng.standard_normal((3, 4), dtype=np.float32) for _ in range(3)]
        recorded = [run(X) for X in given]
        expected = [step(X) for X in given]
    for (value, gradient), (same, same_gradient) in zip(recorded, expected, strict=True):
        assert value == same
        np.testing.assert_array_equal(gradient, same_gradient)
