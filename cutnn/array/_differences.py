"""Scalar functions with their divided differences, of which derivatives of functions of matrices are made.

f[a, b] = (f(a) - f(b)) / (a - b) and f[a, b, c] = (f[a, b] - f[b, c]) / (a - c), which are f'(a) and f''(a) / 2 where
the arguments are equal: each is computed without cancellation, whatever the gaps. Arguments are plain arrays, and
broadcast.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, NamedTuple

from cutnn.device import namespace

# ------------------------------------------------------------------------------ odd and linear on each piece


@dataclasses.dataclass(frozen=True)
class _Pieces(abc.ABC):
    """An odd function of w that is linear on each of a few pieces, with a threshold τ, and its divided differences.

    They are without cancellation: on one piece f[a, b] is the slope, and across pieces a - b is no small difference
    of f(a) and f(b) beside it.
    """

    tau: Any

    @abc.abstractmethod
    def __call__(self, w: Any) -> Any:
        """f(w)."""

    def piece(self, w: Any) -> Any:
        """-1, 0 or 1: on which of w < -τ, |w| ≤ τ, w > τ."""
        return namespace(w).sign(w) * (abs(w) > self.tau)

    def slope(self, w: Any) -> Any:
        return 0

    def first(self, a: Any, b: Any) -> Any:
        xp = namespace(a)
        same = self.piece(a) == self.piece(b)
        return xp.where(same, self.slope(a), (self(a) - self(b)) / xp.where(same, 1, a - b))

    def second(self, a: Any, b: Any, c: Any) -> Any:
        """From first differences, the outermost values last; 0 on one piece."""
        xp = namespace(a)
        low, middle, high = _sorted(a, b, c)
        of_low, of_middle, of_high = (self.piece(w) for w in (low, middle, high))
        same = (of_low == of_middle) & (of_middle == of_high)
        return xp.where(
            same, 0, (self.first(high, middle) - self.first(middle, low)) / xp.where(same, 1, high - low)
        )


class Shrink(_Pieces):
    """f(w) = sign(w) max(|w| - τ, 0); at |w| = τ the slope is 0, but 1 for τ = 0."""

    def __call__(self, w: Any) -> Any:
        return self.piece(w) * (abs(w) - self.tau)

    def slope(self, w: Any) -> Any:
        return ((self.piece(w) != 0) | (self.tau == 0)).astype(w.dtype)


class Step(_Pieces):
    """f(w) = sign(w) where |w| > τ, else 0; minus the derivative of `Shrink` by τ."""

    def __call__(self, w: Any) -> Any:
        return self.piece(w)


class Hard(_Pieces):
    """f(w) = w where |w| > τ, which is one piece, though values have both signs, else 0; of τ < 0 values 0 too."""

    def __call__(self, w: Any) -> Any:
        return namespace(w).where(self.piece(w), w, 0)

    def piece(self, w: Any) -> Any:
        return abs(w) > self.tau

    def slope(self, w: Any) -> Any:
        return self.piece(w).astype(w.dtype)


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
