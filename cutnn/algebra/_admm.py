"""The alternating direction method behind `lowrank`: minimise ‖L‖_* + g(E) where L + E = X.

Robust PCA, completion and recovery are this problem with another g (`lowrank.py`). Every problem here is homogeneous,
so each tensor of a batch is divided by its spectral norm first, and the penalty μ is a plain number. With the scaled
multiplier U, the over-relaxation α and the subgradients that the two proximal steps give, an iteration is

    L  = prox of ‖.‖_* / μ  at  X - E + U                      (singular values of the faces less 1/μ)
    E' = prox of g / μ      at  α (X - L) + (1 - α) E + U
    U' = α (X - L) + (1 - α) E + U - E'

Its primal residual is X - L - E', and since μ (X - E + U - L) lies in ∂‖L‖_* and μ U' in ∂g(E'), the difference of
these two is the dual one, whatever α.

Source: Boyd, Parikh, Chu, Peleato, Eckstein, Distributed optimization and statistical learning via the alternating
direction method of multipliers, Foundations and Trends in Machine Learning 3 (2011), sections 3.3 and 3.4.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

import numpy as np

from cutnn import array as ct
from cutnn.algebra._faces import Faces
from cutnn.array._faces_pool import FLOPS, by_faces, linalg
from cutnn.array._products import adjoint
from cutnn.device import namespace, to_host

if TYPE_CHECKING:
    from cutnn.algebra.star import StarAlgebra

RELAXATION = (
    1.6  # 1.5 to 1.8 are the values of the literature; 20 to 40 % fewer iterations than 1 at rank 4 of 40
)
BALANCE_EVERY = (
    10  # iterations between two changes of μ: after each one, ranks that are not small took twice as many
)


class ConvergenceWarning(UserWarning):
    """The iterations ended before the tolerance was met; `residual` is the larger one that was reached."""

    def __init__(self, message: str, residual: float) -> None:
        super().__init__(message)
        self.residual = residual


class Options(TypedDict, total=False):
    """What `robust_pca`, `complete` and `recover` take to steer their iterations, by keyword.

    * `tolerance`: both relative residuals end below it; 1e-7, and 1e-5 in single precision, unless given.
    * `max_iterations`: 500 unless given. Where they end first a `ConvergenceWarning` tells the residual.
    * `penalty`: the first μ, 10 unless given, for tensors of spectral norm 1, to which all are scaled.
    * `schedule`: "balanced" (the default) brings μ to the ratio of the changes of multiplier and E, by ever smaller
      changes; "fixed" leaves it; "increasing" multiplies it by `growth`, 1.1 unless given, each iteration, as much
      code for robust PCA does: feasible quickly, but then too stiff to reach the minimum, so that the dual residual
      stays.
    * `start`: a former `LowRankResult`, to go on from.
    * `callback`: called with a `State` at every check; iterations end where it returns True. `train.solver_progress`
      makes one that draws a bar.
    * `check_every`: iterations between two checks of the residuals, each of which waits for the GPU: 1 on the CPU and
      10 elsewhere unless given.
    """

    tolerance: float | None
    max_iterations: int
    penalty: float | None
    schedule: Literal["balanced", "fixed", "increasing"]
    growth: float
    start: LowRankResult | None
    callback: Callable[[State], Any] | None
    check_every: int | None


@dataclass(frozen=True)
class LowRankResult:
    """What the iterations reached.

    `low_rank` and, of robust PCA, `sparse` (else None) are tensors. `history` is a table, a structured array with a row
    an iteration and the columns iteration, primal and dual (relative residuals), objective, tubal_rank (the largest
    rank of a face, of all tensors of a batch), penalty, and seconds since the start. `reason` is why they ended:
    "converged", "max_iterations", "callback" or "interrupted" (Ctrl-C). `multiplier` and `penalty` are what `start=`
    goes on with.
    """

    low_rank: Any
    sparse: Any
    history: np.ndarray = field(repr=False)
    reason: str
    multiplier: Any = field(repr=False)
    penalty: float

    @property
    def converged(self) -> bool:
        """Whether both residuals met the tolerance."""
        return self.reason == "converged"

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the iterations."""
        return self.reason == "interrupted"

    @property
    def iterations(self) -> int:
        return len(self.history)

    @property
    def residual(self) -> float:
        """The larger of the last relative residuals, infinite before the first iteration."""
        return (
            float(max(self.history["primal"][-1], self.history["dual"][-1]))
            if len(self.history)
            else math.inf
        )

    def __repr__(self) -> str:
        return (
            f"LowRankResult({self.reason} after {self.iterations} iterations, residual {self.residual:.2g})"
        )


@dataclass(frozen=True)
class Row:
    """A row of the history."""

    iteration: int
    primal: float
    dual: float
    objective: float
    tubal_rank: int
    penalty: float
    seconds: float


@dataclass(frozen=True)
class State(Row):
    """What a callback sees at a check: the last row of the history, the tolerance, and the tensors so far."""

    max_iterations: int
    tolerance: float
    _L: Any = field(repr=False)
    _E: Any = field(repr=False)
    _problem: Problem = field(repr=False)

    @property
    def low_rank(self) -> Any:
        """L as it is now, a copy."""
        return self._L * self._problem.scale

    @property
    def sparse(self) -> Any:
        """Of robust PCA E = X - L as it is now, but for the residual, a copy; else None."""
        return self._problem.sparse(self._E)


class Problem(NamedTuple):
    """X and g, by its proximal operator (V, t) -> argmin t g(E) + ½‖E - V‖² and its value, both for scaled tensors.

    `prox` must return an array other than V. `scale` (*batch, 1, ..., 1) is what tensors are divided by. Where g has
    no value E is no result; where `mask` is false E is 0 for the user, and anything here.
    """

    name: str
    X: Any
    prox: Callable[[Any, float], Any]
    value: Callable[[Any], Any] | None
    scale: Any
    E: Any  # to begin with
    mask: Any = None

    def sparse(self, E: Any) -> Any:
        """E as the user sees it."""
        if self.value is None:
            return None
        return self.scale * (E if self.mask is None else namespace(E).where(self.mask, E, 0))


def spectral_norm(star: StarAlgebra, X: Any) -> Any:
    """The largest singular value of all faces of the transform of each tensor, (*batch, 1, ..., 1), and 1 for 0."""
    xp = namespace(X)
    largest = xp.max(Faces(star, X).map(ct.linalg.svdvals), axis=(-2, -1))
    largest = xp.where(largest > 0, largest, 1)
    return largest.reshape(*largest.shape, *[1] * (len(star.shape) + 2))


def norms(star: StarAlgebra, X: Any) -> Any:
    """The Frobenius norm of each tensor, (*batch, 1, ..., 1)."""
    xp, lead = namespace(X), X.ndim - 2 - len(star.shape)
    rows = X.reshape(math.prod(X.shape[:lead]), 1, math.prod(X.shape[lead:]))
    if X.dtype.kind == "c":
        rows = rows.view(X.real.dtype)
    return xp.sqrt(rows @ rows.swapaxes(-1, -2)).reshape(*X.shape[:lead], *[1] * (X.ndim - lead))


def minimise(
    star: StarAlgebra,
    problem: Problem,
    *,
    tolerance: float | None = None,
    max_iterations: int = 500,
    penalty: float | None = None,
    schedule: str = "balanced",
    growth: float = 1.1,
    start: LowRankResult | None = None,
    callback: Callable[[State], Any] | None = None,
    check_every: int | None = None,
    **unknown: Any,
) -> LowRankResult:
    """L and E of a problem, as the options say; their numbers are checked."""
    name, xp = problem.name, namespace(problem.X)
    if unknown:
        raise TypeError(
            f"{name}: there is no option {next(iter(unknown))!r}; there are {', '.join(Options.__annotations__)}"
        )
    X = xp.ascontiguousarray(problem.X)
    problem = problem._replace(X=X)
    if tolerance is None:
        tolerance = 1e-5 if np.finfo(X.dtype).eps > 1e-10 else 1e-7
    check_every = (1 if xp is np else 10) if check_every is None else check_every
    mu = 10.0 if penalty is None else penalty
    _check_options(name, tolerance, max_iterations, mu, schedule, growth, check_every)
    L, E, U = X - problem.E, problem.E, xp.zeros_like(X)
    if start is not None:
        _check_start(name, start, X)
        mu = start.penalty if penalty is None else penalty
        L = (start.low_rank / problem.scale).astype(X.dtype)
        E, U = X - L, (start.multiplier / mu).astype(X.dtype)
    rows: list[Row] = []
    pending: list[tuple[int, float, float, Any]] = []  # rows whose numbers are still on the device
    reason, began = "max_iterations", time.perf_counter()
    step = _Step(star, problem, tolerance)
    before = (E, mu * U)
    try:
        for iteration in range(1, max_iterations + 1):
            L, E, U, numbers = step(L, E, U, mu)
            pending.append((iteration, mu, time.perf_counter() - began, numbers))
            balance = schedule == "balanced" and iteration % BALANCE_EVERY == 0
            if iteration % check_every == 0 or iteration == max_iterations or balance:
                rows += step.fetch(pending)
                pending = []
                primal, dual = rows[-1].primal, rows[-1].dual
                if primal <= tolerance and dual <= tolerance:
                    reason = "converged"
                    break
                row = asdict(rows[-1])
                state = State(
                    **row, max_iterations=max_iterations, tolerance=tolerance, _L=L, _E=E, _problem=problem
                )
                if callback is not None and callback(state):
                    reason = "callback"
                    break
            factor = growth if schedule == "increasing" else 1.0
            if balance:
                now = (E, mu * U)
                factor = _balance(before, now, mu, iteration)
                before = now
            if factor != 1.0:
                U /= factor
                mu *= factor
    except KeyboardInterrupt:
        reason = "interrupted"
    names = [column.name for column in fields(Row)]
    columns = [(name, int if name in ("iteration", "tubal_rank") else float) for name in names]
    history = np.array([astuple(row) for row in rows + step.fetch(pending)], dtype=columns)
    result = LowRankResult(L * problem.scale, problem.sparse(E), history, reason, U * mu, mu)
    if reason == "max_iterations":
        warnings.warn(
            ConvergenceWarning(
                f"{name}: after {max_iterations} iterations the relative residuals are {primal:.2g} (primal) and "
                f"{dual:.2g} (dual), above the tolerance {tolerance:.2g}; give a larger max_iterations, and start= "
                "this result",
                result.residual,
            ),
            stacklevel=3,
        )
    return result


# -------------------------------------------------------------------------------------------------- helpers


class _Step:
    """One iteration: (L, E, U, μ) to the next L, E, U and its numbers, which stay on the device."""

    def __init__(self, star: StarAlgebra, problem: Problem, tolerance: float) -> None:
        X = problem.X
        self.star, self.problem = star, problem
        self.size = namespace(X).maximum(norms(star, X), norms(star, problem.E))  # of what is to be met
        self.spare = [namespace(X).empty_like(X) for _ in range(2)]
        # By the Gram matrix a singular value σ₁ brings rounding errors of about ½ eps (σ₁ μ)² into L.
        self.allowed = math.sqrt(0.2 * tolerance / float(np.finfo(X.dtype).eps))
        self.largest = 2.0

    def __call__(self, L: Any, E: Any, U: Any, mu: float) -> tuple[Any, Any, Any, Any]:
        star, (_, X, prox, value, scale, *_), (V, S) = self.star, self.problem, self.spare
        xp = namespace(X)
        xp.subtract(X, E, out=V)
        xp.add(V, U, out=S)
        faces = Faces(star, S)
        kernel = _by_gram if self.largest * mu < self.allowed else _by_svd
        flops = FLOPS["eigh" if kernel is _by_gram else "svd"]
        thresholded, values = faces.map(lambda x: by_faces(lambda part: kernel(part, 1 / mu), flops, x))
        L = faces.tensor(thresholded)
        V -= L
        xp.multiply(V, RELAXATION, out=S)
        S += E
        S += U
        V += U  # X - E + U - L, and μ times it a subgradient of ‖.‖_* at L
        E = prox(S, 1 / mu)
        S -= E  # the next U
        V -= S
        dual = _ratio(norms(star, V), norms(star, S))
        xp.subtract(X, L, out=V)
        V -= E
        sizes = xp.maximum(xp.maximum(norms(star, L), norms(star, E)), self.size)
        primal = _ratio(norms(star, V), sizes)
        nuclear = xp.sum(xp.sum(values, axis=-1) * faces.times_like(values), axis=-1)
        objective = (nuclear / star.scale).reshape(scale.shape)
        if value is not None:
            objective = objective + value(E)
        numbers = [
            primal,
            dual,
            xp.sum(objective * scale),
            xp.max(xp.sum(values > 0, axis=-1)),
            xp.max(values) + 1 / mu,
        ]
        self.spare = [V, U]
        return L, E, S, xp.stack([xp.max(x).astype(xp.float64) for x in numbers])

    def fetch(self, pending: list[tuple[int, float, float, Any]]) -> list[Row]:
        """The rows of the history, in one transfer from the device."""
        if not pending:
            return []
        xp = namespace(pending[0][-1])
        table = to_host(xp.stack([numbers for *_, numbers in pending]))
        self.largest = float(table[-1, -1])
        return [
            Row(iteration, float(p), float(d), float(objective), int(rank), mu, seconds)
            for (iteration, mu, seconds, _), (p, d, objective, rank, _) in zip(pending, table, strict=True)
        ]


def _by_svd(faces: Any, t: float) -> tuple[Any, Any]:
    """Matrices with singular values max(σ - t, 0), and these."""
    xp = namespace(faces)
    U, s, Vh = linalg("svd", faces, full_matrices=False)
    s = xp.maximum(s - t, 0)
    return (U * s[..., None, :]) @ Vh, s


def _by_gram(faces: Any, t: float) -> tuple[Any, Any]:
    """The same through the eigenvalues σ² of the smaller Gram matrix: A V diag(max(1 - t/σ, 0)) Vᴴ.

    Twice as fast on square faces, 100 x 100, and five times on 1000 x 30, as measured; see `_Step` for its rounding.
    """
    xp, wide = namespace(faces), faces.shape[-2] < faces.shape[-1]
    A = adjoint(faces) if wide else faces
    squares, V = linalg("eigh", adjoint(A) @ A)
    s = xp.sqrt(xp.maximum(squares, 0))
    shrunk = xp.maximum(s - t, 0)
    W = (V * (shrunk / xp.maximum(s, t))[..., None, :]) @ adjoint(V)
    return (W @ faces if wide else faces @ W), shrunk


def _ratio(x: Any, y: Any) -> Any:
    """x / y, and 0 where both are."""
    return x / namespace(x).where(y > 0, y, 1)


def _balance(before: tuple[Any, Any], now: tuple[Any, Any], mu: float, iteration: int) -> float:
    """The factor of μ to ‖ΔΛ‖ / ‖ΔE‖, of the last changes of Λ = μ U and of E; all changes together are bounded.

    It is the μ for which μ ‖E - E*‖² + ‖Λ - Λ*‖² / μ, which falls in each iteration and bounds the residuals, is least
    (Boyd et al., appendix A), if the distances to the solution are as the last changes. To bring both residuals to fall
    alike, as is usual, took 1.1 to 6 times as many iterations, but for exact measurements, where it took 0.8.
    """
    change, dual_change = (
        float(namespace(x).linalg.norm((x - y).ravel())) for x, y in zip(now, before, strict=True)
    )
    if not (change > 0 and dual_change > 0):
        return 1.0
    factor = min(max(dual_change / (mu * change), 0.1), 10.0)
    return factor ** ((1 + iteration / 100) ** -2) if abs(math.log(factor)) > math.log(1.5) else 1.0


def _check_start(name: str, start: Any, X: Any) -> None:
    if not isinstance(start, LowRankResult):
        raise TypeError(f"{name}: start is a {type(start).__name__}; expected the result of a former call")
    if start.low_rank.shape != X.shape:
        raise ValueError(
            f"{name}: start holds tensors of shape {tuple(start.low_rank.shape)}; expected {tuple(X.shape)}"
        )
    namespace(start.low_rank, X)  # refuses another device


def _check_options(
    name: str,
    tolerance: float,
    max_iterations: int,
    penalty: float,
    schedule: str,
    growth: float,
    check_every: int,
) -> None:
    for option, number in (("tolerance", tolerance), ("penalty", penalty)):
        if not 0 < number < math.inf:
            raise ValueError(f"{name}: {option} is {number}; expected a positive number")
    for option, count in (("max_iterations", max_iterations), ("check_every", check_every)):
        if not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(f"{name}: {option} is {count}; expected a whole number from 1")
    if schedule not in ("balanced", "fixed", "increasing"):
        raise ValueError(f"{name}: schedule is {schedule!r}; expected 'balanced', 'fixed' or 'increasing'")
    if not 1 <= growth < math.inf:
        raise ValueError(f"{name}: growth is {growth}; expected a factor from 1")
