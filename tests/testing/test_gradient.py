"""`check_gradient` passes what is right, to tight tolerances, and says what is wrong and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cutnn as ct
from cutnn import algebra, nn
from cutnn.tape import primitive, raw
from cutnn.testing import GradientError, check_gradient
from tests.algebra.catalogue import draw

X, Z = draw((3, 2)), draw((3, 2), np.complex128)


def with_gradient(f: Any, backward: Any) -> Any:
    """f with a gradient of one's own."""
    own = ct.custom_vjp(f)
    own.defvjp(lambda *args: (f(*args), args), lambda args, g: backward(g, *args))
    return own


RIGHT = {
    "tanh": (ct.tanh, X),
    "product of complex": (lambda z: z * z * ct.conj(z), Z),
    "magnitude": (lambda z: ct.abs(z) ** 3, Z),
    "real to complex": (lambda x: ct.exp(1j * x), X),
    "scalar": (lambda x: ct.sum(x**3), X),
    "linear": (lambda x: 3 * x, X),
    "constant": (lambda x: ct.stop_gradient(x) * 0 + 1, X),
    "several results": (lambda x: {"a": ct.sin(x), "b": (x[0], ct.argmax(x))}, X),
    "a number": (lambda x: x**2, 1.5),
    "empty": (lambda x: x * x, np.zeros((0, 3))),
    "steep": (lambda x: ct.exp(20 * x), X),
    "tiny arguments": (lambda x: ct.log(x), np.array([1e-3, 2e-2])),
    "large values, small slopes": (lambda x: 1e6 + x * x, X),
    "near a kink": (ct.abs, np.array([3e-4, -0.5])),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_gradients_pass(name: str) -> None:
    f, x = RIGHT[name]
    report = check_gradient(f, x, order=2, directions=2)
    assert all(row.error <= row.allowed for row in report.rows) and len(report.rows) == 6
    assert str(report).count("\n") == 6


def test_differences_are_sharp() -> None:
    """Extrapolation reaches ten digits, where plain differences of step 1e-5 reach eight or nine."""
    for f, x in (RIGHT["tanh"], RIGHT["product of complex"], RIGHT["scalar"]):
        check_gradient(f, x, order=2, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_single_precision_is_compared_with_double(dtype: Any) -> None:
    star, x = algebra.fft(4), draw((4, 2, 2), dtype)
    (row,) = check_gradient(lambda x: star(x, x), x).rows
    assert row.allowed < 2e-4 and row.error < 1e-5


def test_models_and_orders() -> None:
    star = algebra.dct(4)
    model = nn.Sequential(nn.TLinear(star, 3, 2, activation=ct.tanh, dtype=np.float64, seed=0))
    report = check_gradient(lambda model, X: model(X), model, star.random(3, 2, seed=1), order=3)
    assert [row.what for row in report.rows] == ["first", "first, by jvp", "second", "third"]


WRONG = {
    "half": (with_gradient(lambda x: x**2, lambda g, x: (g * x,)), X, "is 0.5 times the numeric one: a factor"),
    "sign": (with_gradient(lambda x: x**3, lambda g, x: (-3 * x * x * g,)), X, "is -1 times the numeric one"),
    "conjugate": (
        with_gradient(lambda z: z * Z[::-1], lambda g, z: (ct.conj(g * ct.conj(Z[::-1])),)),
        Z, "is the conjugate of the numeric one: cotangents are ∂L/∂Re z",
    ),
    "real part": (
        with_gradient(lambda z: z * Z[::-1], lambda g, z: (ct.real(g * ct.conj(Z[::-1])) + 0j,)),
        Z, "is the real part of the numeric one: the imaginary part",
    ),
    "zero": (with_gradient(lambda x: x**2, lambda g, x: (None,)), X, "is zero: no gradient flows"),
    "phases": (
        with_gradient(lambda x: x * np.array([1.0, 2.0]), lambda g, x: (g * np.array([1.0, -2.0]),)),
        X, "other signs or phases: a sign",
    ),
    "one entry": (with_gradient(lambda x: x**2, lambda g, x: (2 * x * g * (x != X[1, 0]),)), X, r"of entry \(1, 0\)"),
    "not finite": (with_gradient(lambda x: x**2, lambda g, x: (g * np.nan,)), X, "is not finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_gradients_are_told(name: str) -> None:
    f, x, said = WRONG[name]
    with pytest.raises(GradientError, match=said) as caught:
        check_gradient(f, x)
    message = str(caught.value)
    assert "first derivative of" in message and "along a random direction: analytic" in message
    assert "argument 0 = np.array(" in message and len(message.splitlines()) < 10


def test_a_transpose_is_recognised() -> None:
    f = with_gradient(lambda x: x**2, lambda g, x: ((2 * x * g).mT,))
    with pytest.raises(GradientError, match="is the transpose of the numeric one: a transpose is missing"):
        check_gradient(f, draw((3, 3)))


def test_the_argument_at_fault_is_named() -> None:
    f = with_gradient(
        lambda a, b: a["w"] * b[1], lambda g, a, b: ({"w": g * b[1]}, [0 * b[0], 2 * g * a["w"]])
    )
    with pytest.raises(GradientError, match=r"is wrong in argument 1\[1\]") as caught:
        check_gradient(f, {"w": X}, [X, X + 1])
    assert "argument 0['w'] = np.array(" in str(caught.value)
    assert "is 2 times the numeric one" in str(caught.value)


def test_second_derivatives_that_are_wrong() -> None:
    @primitive(x=lambda g, x: g * 2 * raw(x))  # right, and a constant to the next order
    def square(x: Any) -> Any:
        return x * x

    check_gradient(square, X)
    with pytest.raises(GradientError, match=r"the second derivative of square is wrong in argument 0"):
        check_gradient(square, X, order=2)


def test_a_wrong_pushforward_is_told() -> None:
    f = with_gradient(lambda x: x**2, lambda g, x: (2 * x * ct.stop_gradient(g),))
    with pytest.raises(GradientError, match="the first derivative of .* by jvp is wrong, and by vjp right"):
        check_gradient(f, X, order=2)


def test_functions_that_cannot_be_judged() -> None:
    with pytest.raises(
        GradientError, match="cannot be judged: differences of both sides and of all steps disagree"
    ):
        check_gradient(with_gradient(ct.abs, lambda g, x: (g,)), np.zeros(3))
    with pytest.raises(
        GradientError, match="cannot be judged: differences of both sides and of all steps disagree"
    ):
        check_gradient(lambda x: ct.stop_gradient(ct.round(x * 1e6)) * x, X)
    rng = np.random.default_rng(0)
    with pytest.raises(GradientError, match="gives another value when it is called again"):
        check_gradient(lambda x: x * rng.random(), X)
    with pytest.raises(GradientError, match="f is not finite here: value = np.array"):
        check_gradient(lambda x: x * np.nan, X)
    with pytest.raises(TypeError, match="returns no floats"):
        check_gradient(lambda x: ct.argmax(x), X)
    with pytest.raises(TypeError, match="only float and complex arrays have gradients"):
        check_gradient(lambda x: x * 1.0, np.arange(3))


def test_another_device(pretend_device: Any) -> None:
    star = algebra.fft(4)
    x = ct.to_device(star.random(2, 2, seed=0), "pretend")
    check_gradient(lambda x: star(x, x), x, order=2)
    with pytest.raises(GradientError, match="is 0.5 times the numeric one"):
        check_gradient(WRONG["half"][0], x)
