"""`check_gradient`: derivatives against differences that extrapolate, and what is wrong where they differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import optree

from cutnn.device import namespace
from cutnn.tape import jvp, vjp
from cutnn.testing import _words as words

STEPS = [1e-3 / 4**k for k in range(6)]
MOST_COORDINATES = 256  # of an argument, that are differentiated one by one to say what is wrong


class GradientRow(NamedTuple):
    """One comparison: what was compared, the two numbers, their difference beside the terms, and what is allowed."""

    what: str
    analytic: float
    numeric: float
    error: float
    allowed: float


@dataclass
class GradientReport:
    """What `check_gradient` compared, a row a comparison; prints as a table."""

    rows: list[GradientRow] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{'derivative':<24}  {'analytic':>14}  {'numeric':>14}  {'error':>8}  {'allowed':>8}"]
        lines += [
            f"{r.what:<24}  {r.analytic:>14.7g}  {r.numeric:>14.7g}  {r.error:>8.1g}  {r.allowed:>8.1g}"
            for r in self.rows
        ]
        return "\n".join(lines)

    __repr__ = __str__


class GradientError(AssertionError):
    """A derivative is wrong: the message says where, by how much, and what may be the reason."""


def check_gradient(
    f: Callable[..., Any],
    *args: Any,
    order: int = 1,
    directions: int = 1,
    rtol: float | None = None,
    seed: int | np.random.Generator = 0,
) -> GradientReport:
    """Compare the derivatives of f at `args` with differences, up to an order; return a report or raise GradientError.

    `args` and the value of f are float or complex arrays, or pytrees of them (a model). The pullback of f, at a random
    cotangent, meets central differences of f along random directions: Re⟨g, f′v⟩ = Re⟨f*g, v⟩, in the adjoint
    convention for complex arrays. Differences are taken in double precision, of single-precision arguments too, at
    falling steps, and extrapolated (Richardson, Ridders), so that `rtol`, relative to the sum of the magnitudes of
    the terms, is 1e-6 unless given, and 1e-4 in single precision. For the second order the pullback is the function,
    differentiated by the arguments and the cotangent, and `jvp` is compared too.

    A gradient must have the array type, the dtype and the shape of its argument, and f must return the same twice.
    The message of the error names the argument and the worst entry, and a reason where the two gradients show one: a
    conjugate, a factor, a part that is cut off.

    >>> import numpy as np
    >>> import cutnn as ct
    >>> from cutnn import testing
    >>> report = testing.check_gradient(lambda x: ct.sum(ct.tanh(x) ** 2), np.array([0.5, -1.0]), order=2)
    >>> [row.what for row in report.rows]
    ['first', 'first, by jvp', 'second']
    >>> @ct.custom_vjp
    ... def square(x):
    ...     return x**2
    >>> square.defvjp(lambda x: (x**2, x), lambda x, g: (g * x,))
    >>> testing.check_gradient(square, np.array([1.0, 2.0]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    cutnn.testing._gradient.GradientError: the first derivative of square is wrong in argument 0
    ...
      The analytic gradient is 0.5 times the numeric one: a factor is missing, or counted twice.
    """
    rng = np.random.default_rng(seed)
    args = _map(_as_floats, args)
    name = getattr(f, "__name__", type(f).__name__)
    name = "f" if name == "<lambda>" else name
    report = GradientReport()
    for n in range(1, order + 1):
        args = _check(f, args, _Case(name, n, rtol), directions, rng, report, with_jvp=n == 1 and order > 1)
        f = _pullback(f)
    return report


# ------------------------------------------------------------------------------------------------ one order


class _Case(NamedTuple):
    """What is checked: a derivative of an order of a function, to a tolerance."""

    name: str
    order: int
    rtol: float | None

    def title(self) -> str:
        ordinal = {1: "first", 2: "second", 3: "third"}.get(self.order, f"{self.order}th")
        return f"the {ordinal} derivative of {self.name}"

    def place(self, path: Any) -> str:
        """Which argument a leaf belongs to; the pullback of an order takes the cotangents before the arguments."""
        number, *inside = path
        within = "".join(f"[{key!r}]" if isinstance(key, int | str) else str(key) for key in inside)
        if number < self.order - 1:
            return f"the cotangent{within}" if self.order == 2 else f"cotangent {number}{within}"
        return f"argument {number - self.order + 1}{within}"


class _Point(NamedTuple):
    """Where a derivative is checked: a function, its arguments, a cotangent of its value, and what it is pulled to."""

    f: Callable[..., Any]
    args: Any
    cotangent: Any
    gradients: Any


class _Difference(NamedTuple):
    """A derivative along a direction: its value, the sum of the magnitudes of its terms, and two uncertainties."""

    value: float
    terms: float
    error: float  # by extrapolation: how much the last two orders differ
    noise: float  # by rounding of f


def _check(
    f: Any,
    args: Any,
    case: _Case,
    directions: int,
    rng: np.random.Generator,
    report: GradientReport,
    with_jvp: bool,
) -> Any:
    """Check one derivative; return the arguments of the pullback: a cotangent, and `args`."""
    value, pullback = vjp(f, *args)
    again = f(*args)
    _same_twice(case, value, again)
    cotangent = _random_like(value, rng)
    gradients = pullback(cotangent)
    _forms(case, args, gradients)
    single = any(_is_single(x) for x in (*_leaves(args), *_leaves(value)))
    rtol = case.rtol or (1e-4 if single else 1e-6)
    at = _Point(f, args, cotangent, gradients)
    for _ in range(directions):
        v = _random_like(args, rng)
        numeric = _difference(at, v, rtol)
        report.rows.append(_compare(case, "", at, v, *_inner(gradients, v), numeric, rtol))
        if with_jvp:
            along = _inner(cotangent, jvp(f, args, v)[1])
            report.rows.append(_compare(case, ", by jvp", at, v, *along, numeric, rtol))
    return (cotangent, *args)


def _compare(
    case: _Case,
    how: str,
    at: _Point,
    v: Any,
    analytic: float,
    terms: float,
    numeric: _Difference,
    rtol: float,
) -> GradientRow:
    """A row of the report, or GradientError: `analytic` against `numeric`, the derivative along v."""
    scale = max(numeric.terms, terms if np.isfinite(terms) else 0.0)
    allowed = rtol + numeric.noise / scale if scale else 0.0
    error = abs(analytic - numeric.value) / scale if scale else abs(analytic - numeric.value)
    what = case.title().removeprefix("the ").partition(" derivative")[0] + how
    if error <= allowed:
        return GradientRow(what, analytic, numeric.value, error, allowed)
    numbers = (
        f"along a random direction: analytic{how} {analytic:.8g}, by differences {numeric.value:.8g} "
        f"(± {max(numeric.error, numeric.noise):.1g}), relative error {error:.2g}, allowed {allowed:.2g}"
    )
    if not np.isfinite(analytic):
        raise GradientError(f"{case.title()} is not finite\n  {numbers}\n{_inputs(case, at.args)}")
    unsure = max(numeric.error, _bend(at, v))
    if not np.isfinite(numeric.value) or unsure > max(allowed * scale, 0.1 * abs(analytic - numeric.value)):
        raise GradientError(
            f"{case.title()} cannot be judged: differences of both sides and of all steps disagree\n  {numbers}\n"
            "  f has a kink, a jump or a pole near these arguments, or is noisy: choose others, or check it on both "
            f"sides\n{_inputs(case, at.args)}"
        )
    if how:
        raise GradientError(
            f"{case.title()} by jvp is wrong, and by vjp right\n  {numbers}\n"
            "  The pullback is not linear in its cotangent, or cannot be differentiated: write rules with functions "
            f"of cutnn\n{_inputs(case, at.args)}"
        )
    raise GradientError(f"{case.title()} is wrong{_diagnosis(case, at, numbers)}")


def _difference(at: _Point, v: Any, rtol: float) -> _Difference:
    """The derivative of Re⟨cotangent, f⟩ along v: central differences at falling steps, extrapolated (Ridders 1982)."""
    along = _line(at, v)
    size = _magnitude(along(0.0))
    best = _Difference(np.nan, 0.0, np.inf, 0.0)
    before: list[float] = []
    for h in STEPS:
        ahead, behind = along(h), along(-h)
        terms = (ahead - behind) / (2 * h)
        size = max(size, *filter(np.isfinite, map(_magnitude, (ahead, behind))))  # f may be 0 at 0 alone
        row = [float(np.sum(terms))]
        if not np.isfinite(row[0]):  # beyond the domain of f: nearer
            before = []
            continue
        for k, coarser in enumerate(before):
            row.append(row[k] + (row[k] - coarser) / (16.0 ** (k + 1) - 1))
        total, noise = _magnitude(terms), 4 * float(np.finfo(float).eps) * size / h
        for k in range(1, len(row)):
            error = max(abs(row[k] - row[k - 1]), abs(row[k] - before[k - 1]))
            if error <= best.error:
                best = _Difference(row[k], total, error, noise)
        if not np.isfinite(best.value):
            best = _Difference(row[0], total, np.inf, noise)
        if best.error <= 0.1 * rtol * best.terms + noise:
            break
        before = row
    return best


def _line(at: _Point, v: Any) -> Callable[[float], np.ndarray]:
    """The terms of Re⟨cotangent, f(args + t v)⟩ for t, on the host and in double precision."""
    x, v = _map(_in_double, at.args), _map(_in_double, v)
    weights = [words.host(g).conj().ravel() for g in _leaves(at.cotangent)]

    def along(t: float) -> np.ndarray:
        with np.errstate(all="ignore"):  # a step may leave the domain of f
            value = at.f(*_map(lambda a, b: a + t * b, x, v))
            parts = [words.host(y).ravel() for y in _leaves(value)]
            return np.concatenate(
                [np.zeros(0), *((w * y).real for w, y in zip(weights, parts, strict=True))], dtype=np.float64
            )

    return along


def _magnitude(terms: np.ndarray) -> float:
    return float(np.sum(np.abs(terms)))


def _bend(at: _Point, v: Any) -> float:
    """How much the slopes of Re⟨cotangent, f⟩ on both sides differ: nothing much where f is smooth."""
    along, h = _line(at, v), STEPS[-1]
    return abs(float(np.sum(along(h) - 2 * along(0.0) + along(-h)))) / h


def _same_twice(case: _Case, value: Any, again: Any) -> None:
    first, second = _leaves(value), _leaves(again)
    if not any(getattr(x, "dtype", np.dtype(type(x))).kind in "fc" for x in first):
        raise TypeError(
            f"check_gradient: {case.name} returns no floats; expected arrays of floats, or a pytree of them"
        )
    for x, y in zip(first, second, strict=True):
        x, y = words.host(x), words.host(y)
        size = float(np.max(np.abs(x), initial=0))
        if (
            x.shape != y.shape
            or not np.max(np.abs(x - y), initial=0)
            <= 1e3 * np.finfo(np.result_type(x.dtype, np.float32)).eps * size
        ):
            if not np.isfinite(x).all():
                raise GradientError(f"{case.name} is not finite here: {words.literal('value', x)}")
            raise GradientError(
                f"{case.name} gives another value when it is called again, {words.literal('first', x)} and "
                f"{words.literal('second', y)}: fix its seed, and let it not change its arguments"
            )


def _forms(case: _Case, args: Any, gradients: Any) -> None:
    """Gradients have the type, the dtype and the shape of their arguments."""
    for path, a, g in zip(_paths(args), _leaves(args), _leaves(gradients), strict=True):
        if type(g) is not type(a) or (g.shape, g.dtype) != (a.shape, a.dtype):
            raise GradientError(
                f"{case.title()}: the gradient of {case.place(path)} is a {type(g).__name__} of {g.dtype} "
                f"{tuple(g.shape)}, its argument a {type(a).__name__} of {a.dtype} {tuple(a.shape)}"
            )


# -------------------------------------------------------------------------------------------- what is wrong

_REASONS = {
    "zero": "no gradient flows: is it cut from the trace, by stop_gradient, a cast to integers or a comparison?",
    "conjugate": "cotangents are ∂L/∂Re z + i ∂L/∂Im z here, as PyTorch's; HIPS autograd and JAX have the conjugate",
    "real part": "the imaginary part of the gradient is lost on the way",
    "factor": "a factor is missing, or counted twice",
    "transpose": "a transpose is missing",
    "phases": "a sign or a conjugate is wrong in a part of it",
}


def _diagnosis(case: _Case, at: _Point, numbers: str) -> str:
    """Which argument is wrong, where, and how: the argument whose own gradient differs most from differences."""
    worst: tuple[float, Any, Any, Any] = (-1.0, None, None, None)
    leaves, tree = optree.tree_flatten(at.args, namespace="cutnn")
    for i, (path, a, g) in enumerate(zip(_paths(at.args), leaves, _leaves(at.gradients), strict=True)):
        if a.size > MOST_COORDINATES:
            continue

        def of_one(x: Any, i: int = i) -> Any:
            return at.f(*tree.unflatten([*leaves[:i], x, *leaves[i + 1 :]]))

        numeric = _coordinates(at._replace(f=of_one, args=(a,)))
        gap = float(np.max(np.abs(words.host(g) - numeric), initial=0))
        if gap > worst[0]:
            worst = (gap, path, words.host(g), numeric)
    _, path, analytic, numeric = worst
    if path is None:
        return f"\n  {numbers}\n{_inputs(case, at.args)}"
    gaps = np.abs(analytic - numeric)
    k = np.unravel_index(int(np.argmax(gaps)), gaps.shape)
    entry = f" of entry {tuple(map(int, k))}" if gaps.shape else ""
    lines = [f" in {case.place(path)}", f"  {numbers}"]
    lines.append(f"  the gradient{entry}: analytic {analytic[k]:.6g}, by differences {numeric[k]:.6g}")
    lines.append(_inputs(case, at.args))
    kind, text = words.pattern(0, analytic, numeric, "the analytic gradient", "the numeric one")
    if kind:
        lines.append(f"  {text[0].upper()}{text[1:]}: {_REASONS[kind]}.")
    return "\n".join(lines)


def _coordinates(at: _Point) -> np.ndarray:
    """The gradient of one argument by differences, entry by entry, in real and imaginary direction."""
    (a,) = at.args
    kind = np.dtype(complex if a.dtype.kind == "c" else float)
    gradient = np.zeros(a.size, dtype=kind)
    for k in range(a.size):
        for unit in (1, 1j) if kind.kind == "c" else (1,):
            v = np.zeros(a.size, dtype=kind)
            v[k] = unit
            gradient[k] += unit * _difference(at, (_like(v.reshape(a.shape), a),), 1e-6).value
    return gradient.reshape(a.shape)


def _inputs(case: _Case, args: Any) -> str:
    pairs = list(zip(_paths(args), _leaves(args), strict=True))
    lines = [f"  {words.literal(case.place(path), a)}" for path, a in pairs[:6]]
    return "\n".join([*lines, *([f"  and {len(pairs) - 6} more arrays"] if len(pairs) > 6 else [])])


# --------------------------------------------------------------------------------------------------- trees


def _pullback(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda cotangent, *args: vjp(f, *args)[1](cotangent)


def _map(f: Callable[..., Any], *trees: Any) -> Any:
    return optree.tree_map(f, *trees, namespace="cutnn")


def _leaves(tree: Any) -> list[Any]:
    return optree.tree_leaves(tree, namespace="cutnn")


def _paths(tree: Any) -> list[Any]:
    return optree.tree_paths(tree, namespace="cutnn")


def _as_floats(x: Any) -> Any:
    """A number as an array of floats; arrays as they are."""
    return (
        np.asarray(x, dtype=np.result_type(type(x), np.float64))
        if isinstance(x, int | float | complex)
        else np.asarray(x)
        if isinstance(x, np.generic)
        else x
    )


def _is_single(x: Any) -> bool:
    return getattr(x, "dtype", np.dtype(float)).name in ("float32", "complex64", "float16")


def _in_double(x: Any) -> Any:
    return x.astype(np.result_type(x.dtype, np.float64)) if _is_single(x) else x


def _random_like(tree: Any, rng: np.random.Generator) -> Any:
    """A tree of arrays like those of another, of normal entries: the same ones on every device."""

    def draw(x: Any) -> Any:
        z = rng.standard_normal(x.shape)
        return _like(z + 1j * rng.standard_normal(x.shape) if x.dtype.kind == "c" else z, x)

    return _map(draw, tree)


def _like(host: np.ndarray, x: Any) -> Any:
    return namespace(x).asarray(
        np.asarray(host, dtype=x.dtype if x.dtype.kind in "fc" else float), device=x.device
    )


def _inner(a: Any, b: Any) -> tuple[float, float]:
    """The real inner product of two trees of arrays, and the sum of the magnitudes of its terms."""
    terms = [words.host(x).conj() * words.host(y) for x, y in zip(_leaves(a), _leaves(b), strict=True)]
    return sum(float(np.sum(t.real)) for t in terms), sum(float(np.sum(np.abs(t))) for t in terms)
