"""Fused chains against the plain functions that define them: values, gradients, and where the plain one takes over."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cutnn as ct
from cutnn.array import _mkl, fused
from cutnn.array._fused import on_cuda, on_numba, on_numpy
from cutnn.array._fused.derive import Program, derive, pair
from cutnn.array._fused.graph import Node
from cutnn.array.fused import fuse
from tests import cuda_on_host
from tests.array.test_elementwise import BINARY, UNARY

ACTIVATIONS = ("tanh", "relu", "sigmoid", "softplus", "sin", "exp", "atan", "abs", "square")
needs_numba = pytest.mark.skipif(not on_numba.available(), reason="numba is not installed, or declined")


def leapfrog(z, s, b, h):
    return z - h * ct.tanh(s + b)


@pytest.fixture(params=["whole", "blocks", "numba"])
def way(request, monkeypatch):
    """Each way that a program is run on the CPU, for arrays of any size."""
    monkeypatch.setattr(on_numba, "WORTH", 1 if request.param == "numba" else 1 << 60)
    monkeypatch.setattr(on_numba, "_PART", 4)
    monkeypatch.setattr(on_numpy, "BLOCKS", (1 << 60, 1 << 60) if request.param == "whole" else (3, 8))
    if request.param == "numba" and not on_numba.available():
        pytest.skip("numba is not installed, or declined")
    return request.param


def kernels(f):
    """The kernels that a fused function has, one a signature; None where the plain function is called."""
    return list(f._kernels.values())


@pytest.mark.parametrize(
    "f",
    [
        leapfrog,
        lambda z, s, b, h: (z * s, z * s, z - h * ct.tanh(s + b)),
        lambda z, s, b, h: (ct.where(s > 0, z, b + s), ct.astype(s > b, ct.float32) + z),
    ],
)
@pytest.mark.parametrize("shape", [(), (7,), (2, 3, 5)])
def test_results_in_given_arrays(way, f, shape):
    """To the same bits as in new ones."""
    derivation = derive(f, [np.dtype("f4")] * 3 + [float])
    program = Program([a for a in derivation.arguments[:3] if a is not None], derivation.results)
    leaves = [draw(shape if k < 2 else shape[-1:], "f4", k) for k in range(3)]
    leaves = [leaves[node.value] for node in program.leaves]
    shapes = [x.shape for x in leaves]
    numbers = program.numbers([derivation.arguments[3]])(0.5)
    run = on_numba.compiled(program, shapes, shape) or on_numpy.compiled(program, shapes, shape)
    new = run(leaves, numbers)
    given = [np.full(shape, np.nan, x.dtype) for x in new]
    for x, y in zip(run(leaves, numbers, out=given), given, strict=True):
        assert np.shares_memory(x, y) and x.shape == y.shape
    for x, y in zip(new, given, strict=True):
        np.testing.assert_array_equal(x, y)


def test_two_equal_results_are_two_arrays(way):
    a, b = fuse(lambda z: (z * 2, z * 2))(np.ones(3))
    assert not np.shares_memory(a, b)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (5,)])
@pytest.mark.parametrize("dtype", ["f4", "c8", "c16"])
def test_captured_chains_round_as_plain_ones(way, shape, dtype):
    f = fuse(lambda a, b, c: (a + b) * c)
    run = ct.capture(lambda *x: f(*x))
    rng = np.random.default_rng(0)
    for _ in range(12):
        x = [np.asarray(rng.standard_normal(shape)).astype(dtype) for _ in range(3)]
        if x[0].dtype.kind == "c":
            x = [np.asarray(a + 1j * rng.standard_normal(shape)).astype(dtype) for a in x]
        assert np.asarray(run(*x)).tobytes() == np.asarray(f(*x)).tobytes()


def draw(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.3, 1.5, size=shape) * rng.choice([-1, 1], size=shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.uniform(-1, 1, size=shape)
    return np.asarray(x).astype(dtype)


def close(a, b, dtype=None):
    assert np.asarray(a).dtype == np.asarray(b).dtype and np.shape(a) == np.shape(b)
    tolerance = 2e-4 if np.finfo(np.asarray(b).dtype).eps > 1e-10 else 1e-10
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def agree(f, *args, argnums=None):
    """Value and gradients of fuse(f) are those of f; returns the fused function."""
    fused_f = fuse(f)
    close(fused_f(*args), f(*args))
    if argnums is None:
        argnums = tuple(i for i, a in enumerate(args) if isinstance(a, np.ndarray))
    weights = draw(np.shape(f(*args)), np.asarray(f(*args)).dtype, 99)

    def loss(g):
        return lambda *xs: ct.sum(ct.real(g(*xs) * weights))

    for a, b in zip(ct.grad(loss(fused_f), argnums)(*args), ct.grad(loss(f), argnums)(*args), strict=True):
        close(a, b)
    return fused_f


# ------------------------------------------------------------------------------------------------ what is drawn

SHAPES = [((4, 3, 5), (4, 3, 1), ()), ((4, 3, 5), (4, 1, 1), (5,)), ((2, 1, 3), (4, 1), (1, 1, 1)),
          ((0, 3), (1, 3), (3,)), ((), (), ()), ((7,), (7,), (1,)), ((1, 30), (1, 1), (30,))]  # fmt: skip
DTYPES = [("f4",) * 3, ("f8",) * 3, ("f4", "f8", "f4"), ("c8",) * 3, ("c16", "f8", "c16"), ("f4", "c8", "f4")]

ONE = [ct.tanh, ct.sin, ct.square, operator.neg, lambda x: x * 0.5, lambda x: 1 - x, lambda x: x**2]
ONE_REAL = [ct.sigmoid, ct.relu, ct.softplus, ct.abs, lambda x: ct.exp(-ct.abs(x)), lambda x: ct.clip(x, -0.5, 0.7),
            lambda x: ct.where(x > 0, x, 0.1 * x), lambda x: ct.sqrt(1 + x * x)]  # fmt: skip
TWO = [operator.add, operator.sub, operator.mul, lambda x, y: x / (2 + y * y)]
TWO_REAL = [ct.maximum, ct.minimum, lambda x, y: ct.where(x < y, x, y * x), ct.hypot]


@st.composite
def expressions(draw, real):
    """A function of three arrays and a number, of up to eight operations."""
    one, two = (ONE + ONE_REAL, TWO + TWO_REAL) if real else (ONE, TWO)
    steps = draw(st.lists(st.tuples(st.sampled_from([*one, *two]), st.integers(0, 9), st.integers(0, 9)),
                          min_size=1, max_size=7))  # fmt: skip

    def f(x, y, z, h):
        stack = [x, y, z, h * x]
        for function, i, j in steps:
            a, b = stack[-1 - i % len(stack)], stack[-1 - j % len(stack)]
            stack.append(function(a) if function in one else function(a, b))
        return stack[-1] + h * stack[i % len(stack)]

    return f


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)  # `way` stays as it is
@given(data=st.data())
def test_random_expressions(way, data):
    dtypes = data.draw(st.sampled_from(DTYPES))
    f = data.draw(expressions(real="c" not in "".join(dtypes)))
    args = [
        draw(s, d, i) for i, (s, d) in enumerate(zip(data.draw(st.sampled_from(SHAPES)), dtypes, strict=True))
    ]
    agree(f, *args, 0.25)


# --------------------------------------------------------------------------------------------------- chains


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
@pytest.mark.parametrize("bias", [(4, 3, 1), (4, 1, 1), (), (4, 3, 5)])
def test_leapfrog_step(way, bias, dtype):
    f = agree(leapfrog, draw((4, 3, 5), dtype, 0), draw((4, 3, 5), dtype, 1), draw(bias, dtype, 2), 0.25)
    assert None not in kernels(f)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_bias_and_activation(way, name):
    f = agree(lambda s, b: getattr(ct, name)(s + b), draw((4, 3, 5), "f4", 0), draw((4, 3, 1), "f4", 1))
    assert None not in kernels(f)


@pytest.mark.parametrize("name", [n for n in UNARY if n not in ("real", "conj")])
def test_every_function_of_one_array(name):
    x = np.random.default_rng(0).uniform(*UNARY[name], size=(3, 4))
    assert None not in kernels(agree(lambda x, y: getattr(ct, name)(x) * y, x, x))


@pytest.mark.parametrize("name", BINARY)
def test_every_function_of_two_arrays(name):
    x, y = (np.random.default_rng(i).uniform(*BINARY[name][i], size=(3, 4)) for i in range(2))
    assert None not in kernels(agree(lambda x, y: getattr(ct, name)(x, y) * x, x, y))


@pytest.mark.parametrize("name", ["real", "conj", "abs", "imag", "sign"])
def test_functions_of_complex_arrays(way, name):
    z = draw((3, 4), "c16", 0)
    assert None not in kernels(agree(lambda z, y: getattr(ct, name)(z) * y, z, draw((3, 1), "f8", 1)))


def test_numbers_are_no_part_of_the_signature():
    f = fuse(leapfrog)
    z = draw((2, 3), "f4", 0)
    for h in (0.25, -1.0, 3.0):
        np.testing.assert_array_equal(f(z, z, z, h), leapfrog(z, z, z, h))
    assert len(kernels(f)) == 1
    np.testing.assert_array_equal(f(z, z, z, 2), leapfrog(z, z, z, 2))  # an integer is
    assert len(kernels(f)) == 2 and f(z, z, z, 2).dtype == np.float32


def test_numbers_keep_the_precision_of_python():
    f = lambda x, h: x + (h * h - 1e-17) / 3 + ct.sqrt(h)  # noqa: E731
    x = draw((5,), "f4", 0)
    close(fuse(f)(x, 0.1), f(x, 0.1))
    assert fuse(f)(x, 0.1).dtype == f(x, 0.1).dtype == np.float64  # numpy.sqrt makes a float64 of a number
    g = lambda x, h: x + (h * h - 1e-17) / 3  # noqa: E731
    assert fuse(g)(x, 0.1).dtype == np.float32
    np.testing.assert_array_equal(fuse(g)(x, 0.1), g(x, 0.1))


@pytest.mark.parametrize("traced", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_some_arguments_traced(way, traced):
    args = [draw((4, 3, 5), "f4", 0), draw((4, 3, 5), "f4", 1), draw((4, 3, 1), "f4", 2), 0.25]
    agree(leapfrog, *args, argnums=traced)


@pytest.mark.parametrize(
    "order", [lambda x: x.T, lambda x: x[::-1], lambda x: np.asfortranarray(x), lambda x: x[:, ::2]]
)
def test_any_layout_in_memory(way, order):
    x, y = order(draw((6, 6), "f8", 0)), draw((6, 6), "f8", 1)
    y = y[: x.shape[0], : x.shape[1]]
    agree(lambda x, y: ct.tanh(x + y) * y, x, y)


def test_results_and_arguments_share_no_memory(way):
    f = fuse(lambda x, y: ct.positive(x) + 0 * y)
    x = draw((8,), "f8", 0)
    assert not np.shares_memory(f(x, x), x)


def test_several_results(way):
    f = lambda p, m, g, b: (p - b * (b * m + g), b * m + g)  # noqa: E731
    args = [draw((20,), "f4", i) for i in range(3)]
    for a, b in zip(fuse(f)(*args, 0.9), f(*args, 0.9), strict=True):
        close(a, b)
    assert None not in kernels_after(f, *args, 0.9)


def kernels_after(f, *args):
    fused_f = fuse(f)
    fused_f(*args)
    return kernels(fused_f)


# ---------------------------------------------------------------------------------------- derivatives on tapes


class TestHigherDerivatives:
    args = (draw((4, 3), "f8", 0), draw((4, 3), "f8", 1), draw((4, 1), "f8", 2))

    def loss(self, f):
        return lambda *xs: ct.sum(f(*xs, 0.25) ** 3)

    def test_hessian_times_vector(self, way):
        v = tuple(draw(a.shape, "f8", 9) for a in self.args)
        for k in range(3):
            at = lambda f, k=k: lambda x: self.loss(f)(*self.args[:k], x, *self.args[k + 1 :])  # noqa: E731
            close(ct.hvp(at(fuse(leapfrog)), self.args[k], v[k]), ct.hvp(at(leapfrog), self.args[k], v[k]))

    def test_forward_mode(self, way):
        v = tuple(draw(a.shape, "f8", 9) for a in self.args)
        for f in (fuse(leapfrog), leapfrog):
            value, slope = ct.jvp(lambda *xs, f=f: f(*xs, 0.25), self.args, v)
            step = 1e-6
            moved = [
                leapfrog(*[a + t * step * d for a, d in zip(self.args, v, strict=True)], 0.25)
                for t in (1, -1)
            ]
            np.testing.assert_allclose(slope, (moved[0] - moved[1]) / (2 * step), atol=1e-8)
            close(value, leapfrog(*self.args, 0.25))

    def test_jacobian(self, way):
        close(
            *[
                ct.jacobian(lambda b, f=f: f(*self.args[:2], b, 0.25))(self.args[2])
                for f in (fuse(leapfrog), leapfrog)
            ]
        )

    def test_an_outer_trace_by_closure(self, way):
        def outer(f):
            return lambda z: ct.sum(ct.grad(lambda s: ct.sum(f(z, s * z, z, 0.25) ** 2))(self.args[1]))

        close(ct.grad(outer(fuse(leapfrog)))(self.args[0]), ct.grad(outer(leapfrog))(self.args[0]))

    def test_a_traced_number_is_an_array(self, way):
        z, s, b = self.args
        close(*[ct.grad(lambda h, f=f: ct.sum(f(z, s, b, h)))(0.25) for f in (fuse(leapfrog), leapfrog)])


class TestWhatIsKept:
    def program(self, f, *traced):
        derivation = derive(f, [np.dtype("f4")] * 3, traced)
        return pair(derivation, lambda node: True)

    def test_the_result_of_tanh_and_none_of_the_arguments(self):
        split = self.program(lambda z, s, b: z - 0.5 * ct.tanh(s + b), 0, 1, 2)
        assert split.kept == 1 and split.needed == () and split.cotangents == (-1, 0, 0)

    def test_the_result_itself_where_it_will_do(self):
        split = self.program(lambda z, s, b: ct.tanh(s + b), 1, 2)
        assert split.kept == 0 and split.needed == () and split.cotangents == (0, 0)

    def test_nothing_for_a_sum(self):
        split = self.program(lambda z, s, b: z + s + b, 0, 1, 2)
        assert split.kept == 0 and split.backward is None and split.cotangents == (-1, -1, -1)

    def test_equal_expressions_are_computed_once(self):
        derivation = derive(lambda x, y: ct.tanh(x + y) * ct.tanh(x + y), [np.dtype("f4")] * 2)
        program = Program([a for a in derivation.arguments if a is not None], derivation.results)
        assert [node.op for node in program.body] == ["add", "tanh", "multiply"]

    def test_memory_of_arguments_is_let_go(self):
        f = fuse(lambda x, b: ct.tanh(x + b))

        def loss(x):
            inner = x * 2
            watched = weakref.ref(inner.value)
            y = f(inner, np.ones(1))
            del inner
            assert watched() is None
            return ct.sum(y)

        close(ct.grad(loss)(np.ones(3)), 2 * (1 - np.tanh(np.full(3, 3.0)) ** 2))


# --------------------------------------------------------------------------------------- the plain one takes over


class TestPlain:
    def plain(self, f, *args):
        fused_f = fuse(f)
        np.testing.assert_array_equal(fused_f(*args), f(*args))
        assert set(kernels(fused_f)) <= {None}

    x = draw((3, 4), "f8", 0)

    def test_reductions(self):
        self.plain(lambda x: x / ct.sum(x), self.x)

    def test_branches_on_values(self):
        self.plain(lambda x: x if x[0, 0] > 0 else -x, self.x)
        self.plain(lambda x: x * 2 if ct.all(x > 0) else -x, self.x)

    def test_shapes_looked_into(self):
        self.plain(lambda x: x / x.shape[0], self.x)
        self.plain(lambda x: x / x.size, self.x)
        self.plain(lambda x: x * x.ndim, self.x)

    def test_arrays_by_closure(self):
        self.plain(lambda x: x * self.x, self.x)

    def test_indexing_and_products(self):
        self.plain(lambda x: x[0] * 2, self.x)
        self.plain(lambda x: x @ x.T, self.x)

    def test_identity(self):
        assert fuse(lambda x: x)(self.x) is self.x

    def test_results_of_several_shapes(self):
        f = fuse(lambda x, y: (x + y, y * 2))
        assert [a.shape for a in f(self.x, self.x[0])] == [(3, 4), (4,)]
        assert kernels(f) == [None]

    def test_traced_arrays_by_closure(self):
        def loss(f):
            return lambda y: ct.sum(f(lambda x: x * y)(self.x))

        close(ct.grad(loss(fuse))(self.x), ct.grad(loss(lambda f: f))(self.x))

    def test_another_library(self, pretend_device):
        there = ct.to_device(self.x, "pretend")
        f = fuse(lambda x: ct.tanh(x) * 2)
        np.testing.assert_array_equal(ct.to_host(f(there)), np.tanh(self.x) * 2)
        gradient = ct.grad(lambda x: ct.sum(f(x)))(there)
        close(ct.to_host(gradient), 2 * (1 - np.tanh(self.x) ** 2))

    def test_errors_are_the_plain_ones(self):
        f = fuse(lambda x, y: x + y * 2)
        with pytest.raises(ValueError, match="broadcast"):
            f(np.ones(2), np.ones(3))
        with pytest.raises(TypeError, match="list"):
            fuse(lambda x: ct.tanh(x))([1.0])

    def test_decided_once(self):
        calls = []

        def f(x):
            calls.append(type(x))
            return x * ct.sum(x)

        fused_f = fuse(f)
        for _ in range(3):
            fused_f(self.x)
        assert calls == [Node, np.ndarray, np.ndarray, np.ndarray]

    def test_too_many_signatures(self, monkeypatch):
        monkeypatch.setattr(fused, "_SIGNATURES", 3)
        f = fuse(lambda x, k: x * k)
        for k in range(9):
            np.testing.assert_array_equal(f(self.x, k), self.x * k)
        assert len(kernels(f)) == 3

    def test_switched_off(self):
        program = (
            "import numpy as np, cutnn as ct\nfrom cutnn.array.fused import fuse, is_on\n"
            "f = fuse(lambda x: ct.tanh(x) * 2)\nf(np.ones(3))\nprint(is_on(), len(f._kernels))"
        )
        for value, answer in (("0", "False 0"), ("1", "True 1")):
            done = subprocess.run(
                [sys.executable, "-c", program],
                capture_output=True,
                text=True,
                env=os.environ | {"CUTNN_FUSE": value},
            )
            assert done.stdout.split("\n")[0] == answer, done.stderr


# ------------------------------------------------------------------------------------------------------ numba


@needs_numba
class TestNumba:
    @pytest.fixture(autouse=True)
    def any_size(self, monkeypatch):
        monkeypatch.setattr(on_numba, "WORTH", 1)

    def loop(self, f):
        derivation = derive(f, [np.dtype("f4")])
        program = Program([a for a in derivation.arguments if a is not None], derivation.results)
        return lambda x: on_numba.compiled(program, [x.shape], x.shape)([x], program.numbers([])())[0]

    def errors(self, name, lowest):
        """Errors in units in the last place over all floats (each 61st), negative ones too; results."""
        bits = np.arange(np.float32(lowest).view("i4"), np.float32(np.inf).view("i4") + 1, 61, dtype="i4")
        x = np.concatenate([bits.view("f4"), -bits.view("f4")])
        y = self.loop(lambda x: getattr(ct, name)(x) * 1)(x)
        with np.errstate(over="ignore", under="ignore"):
            true = getattr(np, name)(x.astype("f8"))
            unit = np.spacing(np.abs(true).astype("f4")).astype("f8")
        finite = np.isfinite(true.astype("f4"))
        return x, y, np.where(finite, np.abs(y - true) / np.where(finite, unit, 1), 0)

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    def test_tanh_of_all_floats(self):
        x, y, errors = self.errors("tanh", 0)
        assert errors.max() < 2.5
        np.testing.assert_array_equal(y[: y.size // 2], -y[y.size // 2 :])  # odd
        assert np.abs(y).max() == 1

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    def test_exp_of_all_floats(self):
        x, y, errors = self.errors("exp", 0)
        assert errors.max() < 1.6
        assert (y >= 0).all() and np.isinf(y[x > 88.8]).all() and (y[x < -104] == 0).all()

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    @pytest.mark.parametrize(
        "name", ["tanh", "exp", "sigmoid", "relu", "abs", "sqrt", "sign", "isnan", "isinf"]
    )
    def test_special_values(self, name):
        x = np.resize(np.asarray([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-40, 3e38], "f4"), 1000)
        f = lambda x: ct.where(getattr(ct, name)(x) == 1, 2 * x, ct.where(x < 0, getattr(ct, name)(x), x))  # noqa: E731
        if name.startswith("is"):
            f = lambda x: ct.where(getattr(ct, name)(x), 1, ct.where(ct.isfinite(x), x, 5))  # noqa: E731
        np.testing.assert_allclose(self.loop(f)(x), f(x), rtol=1e-6)
        if name == "tanh":
            np.testing.assert_array_equal(
                np.signbit(self.loop(lambda x: ct.tanh(x) * 1)(x[3:5])), [False, True]
            )

    def test_maximum_keeps_nan(self):
        x = np.resize(np.asarray([np.nan, 1.0, -1.0], "f4"), 1000)
        for f in (
            lambda x: ct.maximum(x, 0.5),
            lambda x: ct.minimum(0.5, x),
            lambda x: ct.clip(x, -0.5, 0.5),
        ):
            np.testing.assert_array_equal(self.loop(f)(x), f(x))

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.integers(1, 7), min_size=1, max_size=3), st.integers(1, 9))
    def test_the_parts_hold_each_entry_once(self, shape, parts):
        count = np.zeros(shape, int)
        edges = on_numba._edges(tuple(shape), parts)
        assert edges.dtype == np.uint64 and len(edges) == min(parts, max(shape))
        for part in edges.reshape(len(edges), len(shape), 2):
            count[tuple(slice(int(begin), int(end)) for begin, end in part)] += 1
        assert (count == 1).all()

    @pytest.mark.parametrize("shape", [(33, 1024), (9, 4096), (5, 20000), (32, 1920), (3, 4, 50)])
    def test_the_parts_are_even(self, shape):
        edges = on_numba._edges(shape, 2).reshape(2, len(shape), 2)
        sizes = (edges[..., 1] - edges[..., 0]).prod(axis=1)
        assert sizes.max() <= 0.6 * sizes.sum()

    def test_it_runs_on_the_threads_of_mkl(self):
        if not _mkl.openmp_threads():
            pytest.skip("MKL is not installed, or was given other threads")
        numba = pytest.importorskip("numba")
        x = draw((1 << 17,), "f4", 3)
        f = lambda x: ct.tanh(x) * 2 + x  # noqa: E731
        numba.set_num_threads(1)
        try:
            close(self.loop(f)(x), f(x))
            assert numba.threading_layer() == "omp"
            assert numba.get_num_threads() == 1  # as many as it had before
        finally:
            numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_a_fork_goes_on_without_its_threads(self):
        code = """if True:
            import os
            import numpy as np
            import cutnn as ct
            from cutnn.array import _mkl
            from cutnn.array.fused import fuse
            step = fuse(lambda x, y: ct.tanh(x) * y)
            A = np.linspace(0, 1, 1 << 17, dtype="f4").reshape(32, 64, 64)
            here = ct.matmul(A, A), step(A, A)
            child = os.fork()
            if child == 0:
                there = ct.matmul(A, A), step(A, A)
                right = all(np.allclose(x, y, rtol=1e-5) for x, y in zip(here, there, strict=True))
                os._exit(0 if right and not _mkl.openmp_threads() else 7)
            raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    def test_what_it_leaves_to_numpy(self):
        for f, kind in ((ct.tanh, "f8"), (ct.sin, "f4"), (ct.tanh, "c8"), (ct.log, "f8")):
            derivation = derive(lambda x, f=f: f(x) * 2, [np.dtype(kind)])
            assert not on_numba.takes(
                Program([a for a in derivation.arguments if a is not None], derivation.results)
            )

    def test_without_a_folder_for_its_cache(self, monkeypatch, tmp_path):
        (tmp_path / "cutnn").write_text("in the way")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        x = draw((1000,), "f4", 3)
        np.testing.assert_array_equal(self.loop(lambda x: x * 2 + 7.125)(x), x * 2 + np.float32(7.125))

    def test_the_cache_on_disk(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        x = draw((1000,), "f4", 3)
        f = lambda x: x * 2 - 7.375 - x * x * x * x  # noqa: E731
        for _ in range(2):
            on_numba._loop.cache_clear()
            close(self.loop(f)(x), f(x))
        assert len(list(tmp_path.rglob("*.py"))) == 1 and len(list(tmp_path.rglob("*.nbc"))) == 1


# ------------------------------------------------------------------------------------------------------- CUDA

CHAINS = {
    "leapfrog": (leapfrog, ("f4", "f4", "f4", float)),
    "leapfrog, double": (leapfrog, ("f8", "f8", "f8", float)),
    "leapfrog, complex": (leapfrog, ("c8", "c8", "c8", float)),
    "leapfrog, complex double": (leapfrog, ("c16", "f8", "c16", float)),
    "choices": (
        lambda x, y: ct.where(x > y, ct.sign(x), ct.clip(y, -0.5, 0.5)) + ct.maximum(x, y),
        ("f4", "f8"),
    ),
    "logic": (
        lambda x, y: ct.where((x > 0) & (y < 0) | ct.isnan(x), x, -y) * ct.isfinite(y),
        ("f4", "f4"),
    ),
    "integers": (lambda x, k: x * k + k / 3, ("f4", "i4")),
    "activations": (
        lambda s, b: sum(getattr(ct, name)(s + k * b) for k, name in enumerate(ACTIVATIONS)),
        ("f4", "f4"),
    ),
}


def programs(name):
    """The forward and the backward program of a chain, and the numbers' nodes."""
    f, kinds = CHAINS[name]
    kinds = [k if k is float else np.dtype(k) for k in kinds]
    traced = tuple(i for i, k in enumerate(kinds) if k is not float and k.kind in "fc")
    derivation = derive(f, kinds, traced)
    split = pair(derivation, lambda node: True)
    numbers = [a for a in derivation.arguments if a is not None and a.op == "number"]
    return [p for p in (split.forward, split.backward) if p is not None], numbers


def cuda_text(program):
    """A whole kernel of a program, as CuPy makes one: a thread an entry of contiguous arrays."""
    inputs, outputs, body = on_cuda.source(program)
    nodes = [*program.leaves, *program.uniforms, *program.outputs]
    names = [p.split()[1] for p in (inputs + ", " + outputs).split(", ")]
    parameters, reads, writes = [], [], []
    for node, name in zip(nodes, names, strict=True):
        kind = on_cuda.c_type(node.dtype)
        if name.startswith("u"):
            parameters.append(f"{kind} {name}")
        elif name.startswith("x"):
            parameters.append(f"const {kind}* _{name}")
            reads.append(f"const {kind} {name} = _{name}[i];")
        else:
            parameters.append(f"{kind}* _{name}")
            reads.append(f"{kind}& {name} = _{name}[i];")
    return (
        f'extern "C" __global__ void chain({", ".join(parameters)}, long long n) {{\n'
        "  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;\n  if (i >= n) return;\n  "
        + "\n  ".join([*reads, *body.split("\n"), *writes])
        + "\n}\n"
    )


@cuda_on_host.needs_compiler
@pytest.mark.parametrize(
    "name", [n for n in CHAINS if "complex" not in n]
)  # the host has no cupy/complex.cuh
def test_cuda_values(name):
    found, numbers = programs(name)
    for program in found:
        uniforms = program.numbers(numbers)(*[0.25] * len(numbers))
        leaves = [draw((50,), "f8", i).astype(leaf.dtype) for i, leaf in enumerate(program.leaves)]
        expected = on_numpy.compiled(program, [(50,)] * len(leaves), (50,))(leaves, uniforms)
        outputs = [np.empty(50, node.dtype) for node in program.outputs]
        kernel = cuda_on_host.RawKernel(cuda_text(program), "chain")
        kernel((2,), (32,), (*leaves, *uniforms, *outputs, np.int64(50)))
        for a, b in zip(outputs, expected, strict=True):
            close(a, b)


class Recorder:
    """Stands for CuPy: makes of a kernel what NumPy computes, after a look at the parameters."""

    ndarray = np.ndarray
    empty = staticmethod(np.empty)

    def __init__(self, program):
        self.program, self.calls = program, []

    def ElementwiseKernel(self, inputs, outputs, body, name):
        def kernel(*args):
            self.calls.append((inputs, outputs))
            assert len(args) == len(inputs.split(",")) + len(outputs.split(","))
            count = len(self.program.leaves)
            leaves, uniforms = args[:count], args[count : count + len(self.program.uniforms)]
            shape = args[-1].shape
            results = on_numpy.compiled(self.program, [x.shape for x in leaves], shape)(leaves, uniforms)
            for out, result in zip(args[count + len(uniforms) :], results, strict=True):
                out[...] = result

        return kernel


def test_a_kernel_of_cupy_is_called_with_all_its_arguments():
    (program, _), numbers = programs("leapfrog")
    library = Recorder(program)
    shapes = [(4, 3, 5), (4, 3, 5), (4, 3, 1)]
    run = on_cuda.compiled(library, program, shapes, (4, 3, 5))
    args = [draw(s, "f4", i) for i, s in enumerate(shapes)]
    answer, kept = run(args, program.numbers(numbers)(0.25))
    np.testing.assert_array_equal(answer, leapfrog(*args, 0.25))
    assert library.calls == [("float32 x0, float32 x1, float32 x2, float32 u0", "float32 y0, float32 y1")]


@pytest.mark.gpu
@pytest.mark.parametrize("name", CHAINS)
def test_on_a_gpu(name):
    f, kinds = CHAINS[name]
    args = [0.25 if k is float else draw((6, 5) if i else (4, 6, 5), k if k != "i4" else "f8", i).astype(k)
            for i, k in enumerate(kinds)]  # fmt: skip
    there = [a if isinstance(a, float) else ct.to_device(a, "cuda") for a in args]
    fused_f = fuse(f)
    close(ct.to_host(fused_f(*there)), f(*args))
    assert None not in kernels(fused_f)
    argnums = tuple(i for i, k in enumerate(kinds) if k is not float and k != "i4")
    loss = lambda g: lambda *xs: ct.sum(ct.real(g(*xs)) ** 2)  # noqa: E731
    for a, b in zip(ct.grad(loss(fused_f), argnums)(*there), ct.grad(loss(f), argnums)(*args), strict=True):
        close(ct.to_host(a), b)
