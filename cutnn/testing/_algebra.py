"""`check_algebra`: the laws of an algebra on examples, the smallest counterexample in words, a table where all hold."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from cutnn.algebra import StarAlgebra, Transform
from cutnn.testing import _words as words
from cutnn.testing.laws import LAWS, Law, size

ALLOWED = 64
"""How many eps of the size of what is computed two sides may differ by; in the catalogue it is 8 at most."""


class LawRow(NamedTuple):
    """A law, on how many examples it was tried, its worst error in eps of the size of what was computed."""

    law: Law
    examples: int
    worst: float
    broken: bool


@dataclass
class Report:
    """What `check_algebra` found, a row a law; prints as a table."""

    algebra: str
    rows: list[LawRow] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        broken = sum(row.broken for row in self.rows)
        verdict = f"{broken} of {len(self.rows)} laws are broken" if broken else f"{len(self.rows)} laws hold"
        tried = sum(row.examples for row in self.rows)
        wide = max((len(row.law.name) for row in self.rows), default=0)
        lines = [f"{self.algebra}: {verdict}, {tried} examples in {self.seconds:.1f} s"]
        lines.append(f"{'law':<{wide}}  examples  worst error  formula")
        for row in self.rows:
            worst = "BROKEN" if row.broken else f"{row.worst:.2g} eps"
            lines.append(f"{row.law.name:<{wide}}  {row.examples:>8}  {worst:>11}  {row.law.formula}")
        return "\n".join([*lines, f"Allowed: {ALLOWED} eps of the size of what is computed."])

    __repr__ = __str__


class LawError(AssertionError):
    """An algebra breaks a law: the message has the smallest counterexample, `report` the table of all laws."""

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report


def check_algebra(
    star: StarAlgebra,
    *,
    laws: Iterable[str | Law] | None = None,
    examples: int = 25,
    seed: int | None = 0,
    dtype: Any = None,
    device: str | None = None,
) -> Report:
    """Test the laws of an algebra on tensors of all shapes and dtypes; return a report, or raise `LawError`.

    `laws` are names in `testing.LAWS`, or `testing.Law`s of your own; all of the table unless given. Each is tried on
    so many `examples`, the same ones for the same `seed` (None: new ones each time), of `dtype` (a dtype or a
    strategy; all four unless given) on a `device`. Where laws are broken, the first in the table is told with the
    smallest counterexample that hypothesis finds, and the others by name. Within a test of hypothesis that test must
    suppress its health check `nested_given`. Raises ImportError without hypothesis, TypeError for what is not an
    algebra and ValueError for an unknown law. Laws of a projected algebra are tested on tensors of its range.

    >>> from cutnn import algebra, testing
    >>> report = testing.check_algebra(algebra.dct(4), laws=["associativity", "linearity"], examples=10)
    >>> [row.law.formula for row in report.rows]
    ['(A ★ B) ★ C = A ★ (B ★ C) = A ★ B ★ C', 'M (A - 3 B) = M A - 3 M B, and so back']

    A transform that is wrong is found out:

    >>> class Unscaled(algebra.Transform):
    ...     def inverse(self, A_hat, axis):
    ...         return self.n * super().inverse(A_hat, axis)
    >>> M = algebra.dct(2).transforms[0].matrix()
    >>> testing.check_algebra(algebra.StarAlgebra(Unscaled("mine", 2, M)))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    cutnn.testing._algebra.LawError: mine(2) breaks a law.
    round trip: M⁻¹ (M a) = a for every tube
    ...
    """
    if not isinstance(star, StarAlgebra):
        hint = "; algebra.StarAlgebra(transform) makes one" if isinstance(star, Transform) else ""
        raise TypeError(f"check_algebra: expected an algebra, not a {type(star).__name__}{hint}")
    if examples < 1:
        raise ValueError(f"check_algebra: examples={examples}; expected 1 or more")
    from cutnn.testing import strategies  # raises where hypothesis is missing

    draw = functools.partial(strategies.operands, star, dtype=dtype, device=device)
    report, start = Report(repr(star)), time.perf_counter()
    outcomes = [_Outcome(law) for law in _chosen(laws)]
    groups: dict[Any, list[_Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.law.operands, outcome.law.regular, outcome.law.alike), []).append(outcome)
    for group in groups.values():  # laws that take the same operands see the same examples
        _try(star, group, draw, examples, seed)
    report.rows = [LawRow(o.law, o.examples, o.worst, o.broken is not None) for o in outcomes]
    first = next((o for o in outcomes if o.broken is not None), None)
    smallest = None if first is None else _smallest(star, first, draw, examples, seed)
    report.seconds = time.perf_counter() - start
    if first is not None and smallest is not None:
        raise LawError(_message(star, first, smallest, report), report)
    return report


# ---------------------------------------------------------------------------------------------- the search


class _Enough(Exception):
    """No more examples are needed."""


class _Broken(Exception):
    """A law does not hold: what was given, and the two sides, or the exception, that came of it."""

    def __init__(
        self,
        tensors: Any,
        left: Any = None,
        right: Any = None,
        scale: float = 0.0,
        allowed: float = 0.0,
        equation: int = 1,
        raised: Exception | None = None,
    ) -> None:
        super().__init__()
        self.tensors, self.left, self.right, self.equation = tensors, left, right, equation
        self.scale, self.allowed, self.raised = scale, allowed, raised


@dataclass
class _Outcome:
    """What came of the examples of a law; `broken` is the first counterexample."""

    law: Law
    examples: int = 0
    worst: float = 0.0
    broken: _Broken | None = None


def _chosen(laws: Iterable[str | Law] | None) -> Iterator[Law]:
    for law in LAWS if laws is None else [laws] if isinstance(laws, str | Law) else laws:
        if isinstance(law, Law):
            yield law
        elif law in LAWS:
            yield LAWS[law]
        else:
            raise ValueError(
                f"check_algebra: unknown law {law!r}; valid are {', '.join(LAWS)}, or a testing.Law"
            )


def _try(star: StarAlgebra, group: list[_Outcome], draw: Any, examples: int, seed: int | None) -> None:
    """Try laws that take the same operands on examples."""
    import hypothesis.errors

    calls, turn = itertools.count(), min(1, examples - 1)  # the first example is the simplest

    def test(tensors: Any) -> None:
        if all(outcome.broken is not None for outcome in group):
            raise _Enough
        call = next(calls)
        for outcome in group:
            if outcome.broken is None and (call % 3 == turn or not outcome.law.dear):
                try:
                    outcome.worst = max(outcome.worst, _error(star, outcome.law, tensors))
                except _Broken as broken:
                    outcome.broken = broken
                except hypothesis.errors.UnsatisfiedAssumption:
                    continue
                outcome.examples += 1

    with contextlib.suppress(_Enough):
        _run(test, draw, group[0].law, examples, seed, shrink=False)


def _smallest(
    star: StarAlgebra, outcome: _Outcome, draw: Any, examples: int, seed: int | None
) -> _Broken | None:
    """The smallest counterexample of a broken law that hypothesis finds."""
    import hypothesis.errors

    last = outcome.broken

    def test(tensors: Any) -> None:
        nonlocal last
        try:
            _error(star, outcome.law, tensors)
        except _Broken as broken:
            last = broken
            raise

    try:
        _run(test, draw, outcome.law, 2 * examples, seed, shrink=True)
    except (_Broken, hypothesis.errors.Flaky):  # flaky: the same operands gave another result
        pass
    return last


def _run(test: Any, draw: Any, law: Law, examples: int, seed: int | None, shrink: bool) -> None:
    """Run a test on operands of a law, whatever profile of hypothesis is loaded."""
    import hypothesis
    from hypothesis import HealthCheck, Phase, Verbosity, settings

    operands = draw(law.operands, alike=law.alike, condition=20.0 if law.regular else None)
    run = settings(
        max_examples=examples, phases=[Phase.generate, *([Phase.shrink] if shrink else [])], database=None,
        deadline=None, derandomize=False, print_blob=False, report_multiple_bugs=False, verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )(hypothesis.given(operands)(test))  # fmt: skip
    (run if seed is None else hypothesis.seed(seed)(run))()


def _error(star: StarAlgebra, law: Law, tensors: Any) -> float:
    """The worst error of the sides of a law, in eps of their size; raises _Broken."""
    import hypothesis.errors

    eps = max(float(np.finfo(np.result_type(T.dtype, np.float32)).eps) for T in tensors)
    worst = 0.0
    try:
        result = law.function(star, *copy.deepcopy(tensors))
        for k, (left, right, *rest) in enumerate(result if isinstance(result, Iterator) else [result]):
            scale = float(rest[0]) if rest else size(star, *tensors)
            allowed = ALLOWED * eps * scale
            if not (error := _distance(left, right)) <= allowed:
                raise _Broken(tensors, left, right, scale, allowed, equation=k + 1)
            worst = max(worst, error / (eps * scale) if error else 0.0)
    except (_Broken, hypothesis.errors.HypothesisException):  # a law may `assume`
        raise
    except Exception as error:
        raise _Broken(tensors, raised=error) from None
    return worst


def _distance(left: Any, right: Any) -> float:
    """The largest difference of two arrays; 0 or infinite for anything else, by equality."""
    if not hasattr(left, "shape") or not hasattr(right, "shape"):
        return 0.0 if left == right else np.inf
    left, right = words.host(left), words.host(right)
    if left.shape != right.shape:
        return np.inf
    wide = np.result_type(left.dtype, right.dtype, np.float64)
    return float(np.max(np.abs(left.astype(wide) - right.astype(wide)), initial=0))


# ----------------------------------------------------------------------------------------------- the message


def _message(star: StarAlgebra, outcome: _Outcome, broken: _Broken, report: Report) -> str:
    law, typical = outcome.law, outcome.broken
    names = list(inspect.signature(law.function).parameters)[1:]
    if len(names) != len(broken.tensors):  # *tensors
        names = [chr(ord("A") + k) for k in range(len(broken.tensors))]
    lines = [f"{star!r} breaks a law.", f"{law.name}: {law.formula}"]
    lines += [f"  {words.literal(name, T)}" for name, T in zip(names, broken.tensors, strict=True)]
    if broken.raised is not None:
        lines.append(f"  raised {type(broken.raised).__name__}: {broken.raised}")
    else:
        lines += _difference(broken)
    if typical is not None and (pattern := words.pattern(star.n, typical.left, typical.right)[1]):
        lines.append(f"  In general {pattern}.")
    if law.look:
        lines.append(f"  Look here: {law.look}.")
    others = [row.law.name for row in report.rows if row.broken and row.law is not law]
    if others:
        lines.append(f"Also broken: {', '.join(others)}.")
    if holding := [row.law.name for row in report.rows if not row.broken]:
        lines.append(f"Hold: {', '.join(holding)}.")
    return "\n".join(lines)


def _difference(broken: _Broken) -> list[str]:
    left, right = broken.left, broken.right
    lines = [f"  in equation {broken.equation} of the law"] if broken.equation > 1 else []
    if not hasattr(left, "shape") or not hasattr(right, "shape"):
        return [f"  {left}; expected: {right}"]
    left, right = words.host(left), words.host(right)
    lines += [f"  {words.literal('left', left)}", f"  {words.literal('right', right)}"]
    if left.shape != right.shape:
        return [*lines, f"  shapes {left.shape} and {right.shape} differ"]
    gap = np.abs(left - right)
    at = np.unravel_index(np.argmax(np.where(np.isnan(gap), np.inf, gap)), gap.shape)
    place = f" at {tuple(int(k) for k in at)}" if gap.shape else ""
    return [
        *lines,
        f"  error {gap[at]:.3g}{place}; allowed {broken.allowed:.3g} ({ALLOWED} eps of size {broken.scale:.3g})",
    ]
