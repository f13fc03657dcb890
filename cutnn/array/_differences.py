"""Scalar functions with their divided differences, of which derivatives of functions of matrices are made.

f[a, b] = (f(a) - f(b)) / (a - b) and f[a, b, c] = (f[a, b] - f[b, c]) / (a - c), which are f'(a) and f''(a) / 2 where
the arguments are equal: each is computed without cancellation, whatever the gaps. Arguments are plain arrays, and
broadcast.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from cutnn.device import namespace

# ------------------------------------------------------------------------------ odd and linear on three pieces


class Shrink(NamedTuple):
    """f(w) = sign(w) max(|w| - τ, 0), and its divided differences: of the pieces on which it is linear, the slope.

    At |w| = τ the slope is 0, but 1 for τ = 0.
    """

    tau: Any

    def __call__(self, w: Any) -> Any:
        return _piece(w, self.tau) * (abs(w) - self.tau)

    def first(self, a: Any, b: Any) -> Any:
        slope = ((_piece(a, self.tau) != 0) | (self.tau == 0)).astype(a.dtype)
        return _secant(self, a, b, slope)

    def second(self, a: Any, b: Any, c: Any) -> Any:
        return _second_of_pieces(self, a, b, c)


class Step(NamedTuple):
    """f(w) = sign(w) where |w| > τ, else 0; minus the derivative of `Shrink` by τ."""

    tau: Any

    def __call__(self, w: Any) -> Any:
        return _piece(w, self.tau)

    def first(self, a: Any, b: Any) -> Any:
        return _secant(self, a, b, 0)

    def second(self, a: Any, b: Any, c: Any) -> Any:
        return _second_of_pieces(self, a, b, c)


def _piece(w: Any, tau: Any) -> Any:
    """-1, 0 or 1: on which of the pieces w < -τ, |w| ≤ τ, w > τ."""
    return namespace(w).sign(w) * (abs(w) > tau)


def _secant(f: Any, a: Any, b: Any, slope: Any) -> Any:
    """f[a, b], without cancellation: on one piece it is the slope, and across pieces a - b is no small difference
    of f(a) and f(b) beside it."""
    xp = namespace(a)
    same = _piece(a, f.tau) == _piece(b, f.tau)
    return xp.where(same, slope, (f(a) - f(b)) / xp.where(same, 1, a - b))


def _second_of_pieces(f: Any, a: Any, b: Any, c: Any) -> Any:
    """f[a, b, c] from first differences, the outermost values last; 0 on one piece."""
    xp = namespace(a)
    low, middle, high = _sorted(a, b, c)
    same = _piece(low, f.tau) == _piece(high, f.tau)
    return xp.where(same, 0, (f.first(high, middle) - f.first(middle, low)) / xp.where(same, 1, high - low))


def _sorted(a: Any, b: Any, c: Any) -> tuple[Any, Any, Any]:
    xp = namespace(a)
    small, large = xp.minimum(a, b), xp.maximum(a, b)
    return xp.minimum(small, c), xp.maximum(small, xp.minimum(large, c)), xp.maximum(large, c)


# -------------------------------------------------------------------------------------- smooth for positive w


class Power(NamedTuple):
    """f(w) = w^p of w ≥ 0, and its divided differences; what is infinite at 0 counts as 0."""

    p: float

    def __call__(self, w: Any) -> Any:
        return _real_power(w, self.p)

    def first(self, a: Any, b: Any) -> Any:
        """With r = b/a ≤ 1 it is a^(p-1) (1 - r^p) / (1 - r)."""
        xp = namespace(a)
        a, b = xp.maximum(a, b), xp.minimum(a, b)
        log = _log_of_ratio(b, a)
        equal = log == 0
        ratio = xp.where(equal, self.p, xp.expm1(self.p * log) / xp.where(equal, 1, xp.expm1(log)))
        return _real_power(a, self.p - 1) * ratio

    def second(self, a: Any, b: Any, c: Any) -> Any:
        p, coefficients, binomial = self.p, [], self.p
        for k in range(2, 2 + _TERMS):
            binomial = binomial * (p - k + 1) / k
            coefficients.append(binomial)
        return _second_of_smooth(self, a, b, c, coefficients, p - 2)


class Log(NamedTuple):
    """f(w) = log w of w > 0, and its divided differences."""

    def __call__(self, w: Any) -> Any:
        return namespace(w).log(w)

    def first(self, a: Any, b: Any) -> Any:
        xp = namespace(a)
        a, b = xp.maximum(a, b), xp.minimum(a, b)
        log = _log_of_ratio(b, a)
        equal = log == 0
        return xp.where(equal, 1, log / xp.where(equal, 1, xp.expm1(log))) / a

    def second(self, a: Any, b: Any, c: Any) -> Any:
        coefficients = [(-1) ** (k + 1) / k for k in range(2, 2 + _TERMS)]
        return _second_of_smooth(self, a, b, c, coefficients, -2)


_NEAR, _TERMS = 0.1, 24


def _second_of_smooth(f: Any, a: Any, b: Any, c: Any, coefficients: Any, power: float) -> Any:
    """f[a, b, c] from first differences; where the three are near each other, from the Taylor series about m.

    The k-th coefficient, from k = 2 on, is m^k f^(k)(m) / k! over m^(power + 2), and it multiplies the sum of all
    monomials of degree k - 2 in (a - m)/m, (b - m)/m and (c - m)/m, which are 0.053 at most.
    """
    xp = namespace(a)
    low, middle, high = _sorted(a, b, c)
    near = high - low <= _NEAR * high
    far = (f.first(high, middle) - f.first(middle, low)) / xp.where(near, 1, high - low)
    m = (high + low) / 2
    x, y, z = ((w - m) / xp.where(near & (m > 0), m, xp.inf) for w in (low, middle, high))
    powers, pairs, triples, series = 1.0, 1.0, 1.0, coefficients[0]
    for coefficient in coefficients[1:]:
        powers = powers * x
        pairs = pairs * y + powers
        triples = triples * z + pairs
        series = series + coefficient * triples
    return xp.where(near, series * _real_power(m, power), far)


def _log_of_ratio(b: Any, a: Any) -> Any:
    """log(b / a) for 0 ≤ b ≤ a, right for near values; -inf for b = 0 < a and 0 for a = 0."""
    xp = namespace(a)
    a, b = xp.where(a == 0, 1, a), xp.where(a == 0, 1, b)
    near = 2 * b > a
    log = xp.log(xp.where(b == 0, 1, b) / a)
    return xp.where(near, xp.log1p(xp.where(near, b - a, 0) / a), xp.where(b == 0, -xp.inf, log))


def _real_power(w: Any, p: float) -> Any:
    """w^p, and 0 in place of infinity at 0."""
    xp = namespace(w)
    return xp.where(w == 0, 1.0 if p == 0 else 0.0, xp.where(w == 0, 1, w) ** p)
