"""Elementwise functions of the array API standard: each a name, and its derivative.

Rules are bilinear (see `cutnn.tape`), so that of a holomorphic f is g · f′(x), for real and complex x alike.
Where a function has no derivative at a point, the choice is: 0 for `abs` and `hypot` at zero, an equal share for
`maximum` and `minimum` at a tie, the full gradient for `clip` at its bounds.
"""

from __future__ import annotations

import math
from typing import Any

from cutnn.array._define import binary, fit, library, stepwise, unary
from cutnn.device import namespace
from cutnn.tape import Traced, constant, primitive, raw

# ------------------------------------------------------------------------------------------------ arithmetic

add = binary("add", x1=lambda g: g, x2=lambda g: g)
subtract = binary("subtract", x1=lambda g: g, x2=lambda g: -g)
multiply = binary("multiply", x1=lambda g, x2: g * x2, x2=lambda g, x1: g * x1)
divide = binary("divide", x1=lambda g, x2: g / x2, x2=lambda g, ans, x2: -g * ans / x2)
pow = binary(
    "pow",
    x1=lambda g, x1, x2: g * x2 * x1 ** _one_less(x2, x1),
    x2=lambda g, ans, x1: g * ans * _log_or_zero(x1),
)
remainder = binary("remainder", x1=lambda g: g, x2=lambda g, x1, x2: -g * floor_divide(x1, x2))
floor_divide = stepwise("floor_divide", "x1, x2, /")

negative = unary("negative", lambda g: -g)
positive = unary("positive", lambda g: g)
square = unary("square", lambda g, x: g * (2 * x))
reciprocal = unary("reciprocal", lambda g, ans: -g * ans * ans)
sqrt = unary("sqrt", lambda g, ans: g / (2 * ans))
abs = unary("abs", lambda g, x, ans: g * _direction(x, ans), fit=True)

# -------------------------------------------------------------------------------- exponential and logarithms

exp = unary("exp", lambda g, ans: g * ans)
expm1 = unary("expm1", lambda g, ans: g * (ans + 1))
log = unary("log", lambda g, x: g / x)
log1p = unary("log1p", lambda g, x: g / (1 + x))
log2 = unary("log2", lambda g, x: g / (math.log(2) * x))
log10 = unary("log10", lambda g, x: g / (math.log(10) * x))
logaddexp = binary(
    "logaddexp",
    x1=lambda g, ans, x1: g * exp(x1 - _finite(ans)),
    x2=lambda g, ans, x2: g * exp(x2 - _finite(ans)),
)

# --------------------------------------------------------------------------------- trigonometric, hyperbolic

sin = unary("sin", lambda g, x: g * cos(x))
cos = unary("cos", lambda g, x: -g * sin(x))
tan = unary("tan", lambda g, ans: g * (1 + ans * ans))
asin = unary("asin", lambda g, x: g / sqrt(1 - x * x))
acos = unary("acos", lambda g, x: -g / sqrt(1 - x * x))
atan = unary("atan", lambda g, x: g / (1 + x * x))
sinh = unary("sinh", lambda g, x: g * cosh(x))
cosh = unary("cosh", lambda g, x: g * sinh(x))
tanh = unary("tanh", lambda g, ans: g * (1 - ans * ans))
asinh = unary("asinh", lambda g, x: g / sqrt(x * x + 1))
acosh = unary("acosh", lambda g, x: g / (sqrt(x - 1) * sqrt(x + 1)))  # this form is right on both half-planes
atanh = unary("atanh", lambda g, x: g / (1 - x * x))
atan2 = binary(
    "atan2",
    x1=lambda g, x1, x2: g * x2 / (x1 * x1 + x2 * x2),
    x2=lambda g, x1, x2: -g * x1 / (x1 * x1 + x2 * x2),
)
hypot = binary(
    "hypot",
    x1=lambda g, ans, x1: g * x1 / where(ans == 0, 1, ans),
    x2=lambda g, ans, x2: g * x2 / where(ans == 0, 1, ans),
)

# -------------------------------------------------------------------------------------------- complex arrays

_conj = unary("conj", lambda g: conj(g))
_real = unary("real", lambda g: g, fit=True)
_sign = stepwise("sign")
_imag = unary("imag", lambda g: g * -1j, fit=True)  # -1j * np.float64(1) would be a number of Python


def conj(x: Any, /) -> Any:
    """conj(x, /) of the Python array API standard; a real array is returned as it came."""
    return _conj(x) if _is_complex(x) else x


def real(x: Any, /) -> Any:
    """real(x, /) of the Python array API standard; a real array is returned as it came."""
    return _real(x) if _is_complex(x) else x


def imag(x: Any, /) -> Any:
    """imag(x, /) of the Python array API standard; zeros for a real array."""
    return _imag(x) if _is_complex(x) else _zeros_like(x)


def sign(x: Any, /) -> Any:
    """sign(x, /) of the Python array API standard: -1, 0 or 1 for real x, x / |x| (0 at 0) for complex x.

    That of a real x has no derivative: the gradient stops here.
    """
    if type(x) is not Traced or not _is_complex(x):
        return _sign(x)
    length = abs(x)
    return x / where(length == 0, 1, length)


# ------------------------------------------------------------------------------------------------- selection

maximum = binary(
    "maximum",
    x1=lambda g, x1, x2: g * _share(x1 > x2, x1 == x2, g),
    x2=lambda g, x1, x2: g * _share(x2 > x1, x1 == x2, g),
)
minimum = binary(
    "minimum",
    x1=lambda g, x1, x2: g * _share(x1 < x2, x1 == x2, g),
    x2=lambda g, x1, x2: g * _share(x2 < x1, x1 == x2, g),
)
copysign = binary(
    "copysign",
    x1=lambda g, x1, x2: where(signbit(x1) == signbit(x2), g, -g),
    x2=lambda g: _zeros_like(g),
)


def where(condition: Any, x1: Any, x2: Any, /) -> Any:
    """where(condition, x1, x2, /) of the Python array API standard: x1 where the condition holds, else x2.

    Shapes broadcast. An infinite value that was not chosen still spoils a gradient computed from it: choose the
    argument of a function, not its result.
    """
    if type(x1) is not Traced and type(x2) is not Traced:
        return _where_of_library(raw(condition), x1, x2)
    return _where(raw(condition), x1, x2, _form(x1), _form(x2))


@primitive(  # of x1 and x2 no more than shape and dtype is kept
    x1=lambda g, condition, form1: fit(where(condition, g, 0), *form1),
    x2=lambda g, condition, form2: fit(where(condition, 0, g), *form2),
)
def _where(condition: Any, x1: Any, x2: Any, form1: Any, form2: Any) -> Any:
    return where(condition, x1, x2)


_where_of_library = library("where")


def clip(x: Any, /, min: Any = None, max: Any = None) -> Any:
    """clip(x, /, min=None, max=None) of the Python array API standard: x held between bounds.

    At a bound the whole gradient is x's.
    """
    return positive(x) if min is None and max is None else _clip(x, min, max)


@primitive(
    x=lambda g, x, min, max: fit(where(_inside(x, min, max), g, 0), *_form(x)),
    min=lambda g, x, min: fit(where(x < min, g, 0), *_form(min)),
    max=lambda g, x, max: fit(where(x > max, g, 0), *_form(max)),
)
def _clip(x: Any, min: Any, max: Any) -> Any:
    return namespace(x, *(b for b in (min, max) if b is not None)).clip(x, min, max)


# ------------------------------------------------------------------------------------- without a derivative

ceil = stepwise("ceil")
floor = stepwise("floor")
round = stepwise("round")
trunc = stepwise("trunc")
signbit = stepwise("signbit")
isfinite = stepwise("isfinite")
isinf = stepwise("isinf")
isnan = stepwise("isnan")
logical_not = stepwise("logical_not")
bitwise_invert = stepwise("bitwise_invert")
equal = stepwise("equal", "x1, x2, /")
not_equal = stepwise("not_equal", "x1, x2, /")
less = stepwise("less", "x1, x2, /")
less_equal = stepwise("less_equal", "x1, x2, /")
greater = stepwise("greater", "x1, x2, /")
greater_equal = stepwise("greater_equal", "x1, x2, /")
logical_and = stepwise("logical_and", "x1, x2, /")
logical_or = stepwise("logical_or", "x1, x2, /")
logical_xor = stepwise("logical_xor", "x1, x2, /")
bitwise_and = stepwise("bitwise_and", "x1, x2, /")
bitwise_or = stepwise("bitwise_or", "x1, x2, /")
bitwise_xor = stepwise("bitwise_xor", "x1, x2, /")
bitwise_left_shift = stepwise("bitwise_left_shift", "x1, x2, /")
bitwise_right_shift = stepwise("bitwise_right_shift", "x1, x2, /")
nextafter = stepwise("nextafter", "x1, x2, /")

# --------------------------------------------------------------------------------------------------- helpers


def _is_complex(x: Any) -> bool:
    dtype = getattr(x, "dtype", None)
    return dtype.kind == "c" if dtype is not None else isinstance(x, complex)


def _direction(x: Any, length: Any) -> Any:
    """conj(x) / |x|, and 0 at 0."""
    return conj(x) / where(length == 0, 1, length) if _is_complex(x) else sign(x)


def _one_less(exponent: Any, base: Any) -> Any:
    """The exponent of the derivative of a power; 1 in place of -1 at 0**0, whose derivative is 0.

    A plain number stays one, so that it goes with arrays of any library and dtype.
    """
    if not hasattr(exponent, "dtype"):
        return exponent - 1 if exponent else 1
    return where(logical_and(exponent == 0, base == 0), 1, exponent - 1)


def _log_or_zero(x: Any) -> Any:
    """log(x), and 0 at 0; that of a plain number is one."""
    if hasattr(x, "dtype"):
        return log(where(x == 0, 1, x))
    return log(x).item() if x else 0.0


@constant
def _share(ahead: Any, tie: Any, g: Any) -> Any:
    """1 where the argument is ahead, 1/2 at a tie, 0 behind."""
    return ahead.astype(g.dtype) + 0.5 * tie.astype(g.dtype)


def _finite(x: Any) -> Any:
    """x with its infinities made 0: exp(-inf - x) is then 0, as it should be."""
    return where(isinf(x), 0.0, x)


@constant
def _zeros_like(x: Any) -> Any:
    return namespace(x).zeros_like(x)


@constant
def _inside(x: Any, low: Any, high: Any) -> Any:
    if low is None:
        return x <= high
    return x >= low if high is None else (x >= low) & (x <= high)


def _form(x: Any) -> Any:
    """Shape and dtype; None for a number of Python, whose cotangent nobody asks for."""
    return (x.shape, x.dtype) if hasattr(x, "dtype") else None
