"""Tensors of low tubal rank: from corrupted entries, from few entries, from few linear measurements.

All three minimise the tubal nuclear norm `star.nuclear_norm` under what is known, in the algebra that is their first
argument, by one alternating direction method, and take its options by keyword (`lowrank.Options`): `tolerance`,
`max_iterations`, `start` (a former result), `callback`, ... They give a `LowRankResult`, also where Ctrl-C ends them
or, with a `ConvergenceWarning`, too few iterations. Batch axes lead, as everywhere; each tensor of a batch is a problem
of its own, and the worst of them decides when to stop. M must be a multiple of a unitary matrix.

Below them the proximal operators, which have gradients; that of the nuclear norm is `star.singular_value_threshold`.

>>> import numpy as np
>>> from cutnn import algebra
>>> from cutnn.algebra import lowrank
>>> star = algebra.dct(5)
>>> X = star(star.random(30, 2, seed=0), star.random(2, 30, seed=1))  # of tubal rank 2
>>> seen = np.random.default_rng(2).random(X.shape) < 0.5  # half of its entries
>>> result = lowrank.complete(star, np.where(seen, X, np.nan), seen)
>>> bool(star.norm(result.low_rank - X) < 1e-5 * star.norm(X))
True
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any, Literal, Unpack

import numpy as np

from cutnn import array as ct
from cutnn.algebra import _checks as check
from cutnn.algebra._admm import (
    ConvergenceWarning,
    LowRankResult,
    Options,
    Problem,
    State,
    minimise,
    norms,
    spectral_norm,
)
from cutnn.algebra._learned import parameters
from cutnn.algebra._measurements import measurements_of, norm
from cutnn.algebra.star import StarAlgebra
from cutnn.device import namespace, to_host
from cutnn.tape import NotDifferentiableError, Traced

__all__ = [
    "ConvergenceWarning",
    "LowRankResult",
    "Options",
    "State",
    "complete",
    "recover",
    "robust_pca",
    "shrink_tubes",
    "soft_threshold",
]


def robust_pca(
    star: StarAlgebra,
    X: Any,
    *,
    weight: float | None = None,
    sparse: Literal["entries", "tubes"] = "entries",
    mask: Any = None,
    **options: Unpack[Options],
) -> LowRankResult:
    """X = L + E with L of low tubal rank and E sparse: minimise ‖L‖_* + weight · ‖E‖₁ (TRPCA).

    X is (*batch, *shape, l, m). With sparse="tubes" the sum is of the norms of the tubes of E. The default weight is
    1/√(max(l, m) ℓ) where MᴴM = ℓ I (ℓ = n for the Fourier algebra, 1 for orthonormal M), and √n times that for
    tubes: with it, where the tubal rank is at most of the order of min(l, m) / log(max(l, m) n)² and the corrupted
    entries lie at random, the minimum is the decomposition itself, with high probability. Where a boolean `mask`, of
    the shape of X or one that broadcasts to it, is false, X is unknown and may be anything, and E is 0; the default
    weight is then over the root of the share that is known (Candès, Li, Ma, Wright, Journal of the ACM 58 (2011)).

    Raises ValueError for numbers that are not finite, a wrong shape, weight or option, and for M that is no multiple of
    a unitary matrix; NotDifferentiableError inside `grad`. (Lu, Feng, Chen, Liu, Lin, Yan, Tensor robust principal
    component analysis with a new tensor nuclear norm, IEEE TPAMI 42 (2020); for other M Lu, Peng, Wei, CVPR 2019; for
    tubes Zhang, Ely, Aeron, Hao, Kilmer, CVPR 2014.)

    >>> import numpy as np
    >>> from cutnn import algebra
    >>> star = algebra.fft(6)
    >>> L = star(star.random(30, 1, seed=0), star.random(1, 30, seed=1))
    >>> X = L + 5 * (np.random.default_rng(2).random(L.shape) < 0.05)
    >>> result = algebra.lowrank.robust_pca(star, X)
    >>> bool(star.norm(result.low_rank - L) < 1e-5 * star.norm(L)), result.history["tubal_rank"][-1]
    (True, np.int64(1))
    """
    X = _tensor(star, "robust_pca", X)
    if sparse not in ("entries", "tubes"):
        raise ValueError(f"robust_pca: sparse is {sparse!r}; expected 'entries' or 'tubes'")
    if weight is not None and not (isinstance(weight, numbers.Real) and 0 < weight < math.inf):
        raise ValueError(
            f"robust_pca: weight is {weight!r}; expected a positive number, or None for the theory's"
        )
    xp, axes = namespace(X), tuple(range(-2 - len(star.shape), 0))
    mask = None if mask is None else _mask(star, "robust_pca", X, mask)
    X = _known("robust_pca", X, mask)
    if weight is None:
        share = 1.0 if mask is None else float(xp.mean(mask))
        length = star.n if sparse == "tubes" else 1
        weight = math.sqrt(length / (max(X.shape[-2:]) * star.scale * share))

    def seen(E: Any) -> Any:
        return E if mask is None else xp.where(mask, E, 0)

    def sizes(E: Any) -> Any:
        return xp.abs(E) if sparse == "entries" else _tube_norms(star, E)

    def prox(V: Any, t: float) -> Any:
        if sparse == "entries" and V.dtype.kind == "f":  # the same in a sixth of the time
            shrunk = V - xp.clip(V, -weight * t, weight * t)
        else:
            known = seen(V)
            shrunk = _shrunk(known, sizes(known), weight * t)
        return shrunk if mask is None else xp.where(mask, shrunk, V)

    def value(E: Any) -> Any:
        return weight * xp.sum(sizes(seen(E)), axis=axes, keepdims=True)

    scale = spectral_norm(star, X)
    problem = Problem("robust_pca", X / scale, prox, value, scale, xp.zeros_like(X), mask)
    return minimise(star, problem, **options)


def complete(
    star: StarAlgebra, X: Any, mask: Any, *, noise: float = 0.0, **options: Unpack[Options]
) -> LowRankResult:
    """The tensor of low tubal rank that has the entries of X where the mask is true: minimise ‖L‖_* under that.

    X is (*batch, *shape, l, m); `mask` is boolean and has the shape of X or broadcasts to it: np.isfinite(X) where nan
    is what is missing. Where it is false X may hold anything. With `noise` δ the entries may differ: ‖L - X‖ ≤ δ over
    those seen, in the Frobenius norm of each tensor (σ√count for errors of deviation σ). Without noise about
    (l + m) n r log(max(l, m) n) entries at random places determine a tensor of tubal rank r, with high probability.

    Raises ValueError where a tensor has no entry seen, or one that is not finite, for a wrong shape or option, and for
    M that is no multiple of a unitary matrix; TypeError where the mask is not boolean; NotDifferentiableError inside
    `grad`. (Zhang, Aeron, Exact tensor completion using t-SVD, IEEE Transactions on Signal Processing 65 (2017); Lu,
    Peng, Wei, CVPR 2019; with noise as Candès, Plan, Proceedings of the IEEE 98 (2010).)

    >>> import numpy as np
    >>> from cutnn import algebra
    >>> star = algebra.dct(4)
    >>> X = star(star.random(30, 1, seed=0), star.random(1, 30, seed=1))
    >>> seen = np.random.default_rng(2).random(X.shape) < 0.3
    >>> L = algebra.lowrank.complete(star, X, seen).low_rank
    >>> np.allclose(L, X, atol=1e-5)
    True
    """
    X = _tensor(star, "complete", X)
    mask = _mask(star, "complete", X, mask)
    X = _known("complete", X, mask)
    _check_noise("complete", noise)
    xp, scale = namespace(X), spectral_norm(star, X)

    def prox(V: Any, t: float) -> Any:
        if not noise:
            return xp.where(mask, 0, V)
        size = norms(star, xp.where(mask, V, 0))
        within = noise / scale
        return xp.where(mask, V * xp.where(size > within, within / xp.where(size > 0, size, 1), 1), V)

    return minimise(star, Problem("complete", X / scale, prox, None, scale, xp.zeros_like(X)), **options)


def recover(
    star: StarAlgebra,
    y: Any,
    measure: Any,
    adjoint: Callable[[Any], Any] | None = None,
    *,
    shape: tuple[int, ...],
    dtype: Any = None,
    noise: float = 0.0,
    **options: Unpack[Options],
) -> LowRankResult:
    """The tensor of low tubal rank that has the linear measurements y = 𝒜(L): minimise ‖L‖_* under that.

    `measure` is a matrix (p, n l m), that multiplies the entries of L in the order of `L.reshape(-1)`, with y (p,), or
    a function of a tensor of `shape`, (*star.shape, l, m), to an array like y; then `adjoint` is the function back,
    with Re ⟨𝒜(X), y⟩ = Re ⟨X, adjoint(y)⟩, which is tried out. With `noise` δ the measurements may differ: ‖𝒜(L) - y‖ ≤
    δ. The tensor has `dtype`, by default that of adjoint(y); for a real tensor from complex measurements give a real
    one: of the adjoint the real part is then taken.

    About 3 r (l + m - r) n Gaussian measurements determine a tensor of tubal rank r, with high probability. Where 𝒜𝒜ᴴ
    is a multiple of the identity (samples of an orthonormal transform) a projection costs one 𝒜 and one adjoint;
    otherwise functions are inverted by conjugate gradients.

    Raises ValueError where y cannot be met, is not finite, the functions are not adjoint or shapes do not fit, and for
    M that is no multiple of a unitary matrix; TypeError for another kind of `measure`; NotDifferentiableError inside
    `grad`. (Lu, Feng, Lin, Yan, Exact low tubal rank tensor recovery from Gaussian measurements, IJCAI 2018.)

    >>> import numpy as np
    >>> from cutnn import algebra
    >>> star = algebra.dct(3)
    >>> X = star(star.random(8, 1, seed=0), star.random(1, 8, seed=1))
    >>> Phi = np.random.default_rng(2).standard_normal((135, X.size))
    >>> result = algebra.lowrank.recover(star, Phi @ X.reshape(-1), Phi, shape=X.shape)
    >>> bool(star.norm(result.low_rank - X) < 1e-5 * star.norm(X))
    True
    """
    shape = tuple(shape)
    if len(shape) != len(star.shape) + 2 or shape[:-2] != star.shape or 0 in shape:
        raise ValueError(f"recover: shape is {shape}; expected {(*star.shape, 'l', 'm')}, no batch")
    _check_noise("recover", noise)
    check.scale(star, "recover", _NO_PROX)
    if any(type(x) is Traced for x in (y, measure, *parameters(star))):
        raise NotDifferentiableError(_NO_GRADIENT.format("recover"))
    measurements = measurements_of(y, measure, adjoint, shape, dtype)
    Z = measurements.adjoint(measurements.solve(measurements.y, math.inf))  # the smallest that meets y
    missed = norm(measurements.measure(Z) - measurements.y)
    if missed > noise + float(np.finfo(Z.dtype).eps) ** 0.5 * norm(measurements.y):
        raise ValueError(
            f"recover: no tensor has these measurements: the nearest is {missed:.3g} from y in norm, and noise is "
            f"{noise:.3g}; give a larger noise (or, where functions are so badly conditioned that conjugate gradients "
            "did not get there, a matrix)"
        )
    xp, scale = namespace(Z), spectral_norm(star, Z)
    factor = float(scale.reshape(()))
    project = measurements.projection(measurements.y / factor, noise / factor)
    problem = Problem("recover", xp.zeros_like(Z), lambda V, t: -project(-V), None, scale, -Z / scale)
    return minimise(star, problem, **options)


# ------------------------------------------------------------------------------------- proximal operators


def soft_threshold(X: Any, tau: Any) -> Any:
    """X with every entry brought nearer to 0 by tau: argmin τ‖Z‖₁ + ½‖Z - X‖², for real and complex X.

    `tau` ≥ 0 is a number or an array that broadcasts. The gradient is that of the branch taken, 0 where |x| ≤ tau.
    Raises ValueError for a negative number. (Donoho, IEEE Transactions on Information Theory 41 (1995).)

    >>> import numpy as np
    >>> from cutnn.algebra import lowrank
    >>> lowrank.soft_threshold(np.array([-3.0, 0.5, 2.0]), 1.0) + 0.0
    array([-2.,  0.,  1.])
    """
    return _shrunk(X, ct.abs(X), _threshold("soft_threshold", tau))


def shrink_tubes(star: StarAlgebra, X: Any, tau: Any) -> Any:
    """X with every tube made shorter by tau: argmin τ Σ‖z_ij‖ + ½‖Z - X‖² over tensors Z, z_ij their tubes.

    X is (*batch, *shape, l, m), `tau` ≥ 0 a number or an array that broadcasts to X with tubes of length 1. The
    gradient is that of the branch taken, 0 for tubes no longer than tau. Raises ValueError for a negative number.

    >>> import numpy as np
    >>> from cutnn import algebra
    >>> X = np.array([[3.0, 0.3], [4.0, 0.4]]).reshape(2, 1, 2)  # tubes of length 5 and 0.5
    >>> algebra.lowrank.shrink_tubes(algebra.dct(2), X, 1.0).reshape(2, 2).round(12)
    array([[2.4, 0. ],
           [3.2, 0. ]])
    """
    X = check.tensor(star, "shrink_tubes", X, "X")
    return _shrunk(X, _tube_norms(star, X), _threshold("shrink_tubes", tau))


# -------------------------------------------------------------------------------------------------- helpers

_NO_PROX = (
    "with another M the proximal operator of the norm is no thresholding of faces, and no theory promises recovery: "
    "take another, algebra.from_data(X) say"
)
_NO_GRADIENT = (
    "{} has no gradient: it iterates to a minimum. Take it out of the traced function, or ct.stop_gradient its input "
    "first; star.singular_value_threshold, soft_threshold and shrink_tubes have gradients"
)


def _shrunk(X: Any, sizes: Any, tau: Any) -> Any:
    kept = sizes > tau
    return ct.where(kept, X * ((sizes - tau) / ct.where(kept, sizes, 1)), 0)


def _tube_norms(star: StarAlgebra, X: Any) -> Any:
    axes = tuple(range(-2 - len(star.shape), -2))
    return ct.linalg.vector_norm(X, axis=axes, keepdims=True) if axes else ct.abs(X)


def _threshold(name: str, tau: Any) -> Any:
    if isinstance(tau, int | float | np.number) and not tau >= 0:
        raise ValueError(f"{name}: tau is {tau}; expected a number from 0")
    return tau


def _tensor(star: StarAlgebra, name: str, X: Any) -> Any:
    """X in floats, of an algebra in which these problems have their solver."""
    if not isinstance(star, StarAlgebra):
        raise TypeError(
            f"{name}: the first argument is an algebra, algebra.dct(8) say, not a {type(star).__name__}"
        )
    if any(type(x) is Traced for x in (X, *parameters(star))):
        raise NotDifferentiableError(_NO_GRADIENT.format(name))
    X = check.tensor(star, name, X, "X")
    check.scale(star, name, _NO_PROX)
    if X.size == 0:
        raise ValueError(f"{name}: X has shape {tuple(X.shape)}, without entries")
    return X


def _mask(star: StarAlgebra, name: str, X: Any, mask: Any) -> Any:
    """The mask in the shape of X; some entry of each tensor is seen."""
    kind = getattr(mask, "dtype", type(mask).__name__)
    if kind != np.dtype(bool):
        raise TypeError(f"{name}: the mask is of {kind}; expected booleans, true where X is known")
    xp = namespace(X, mask)
    try:
        mask = xp.broadcast_to(mask, X.shape)
    except ValueError:
        raise ValueError(
            f"{name}: the mask has shape {tuple(mask.shape)}, and X {tuple(X.shape)}; expected the shape of X, or one "
            "that broadcasts to it"
        ) from None
    if not bool(xp.all(xp.any(mask, axis=tuple(range(-2 - len(star.shape), 0))))):
        batch = " of a tensor of the batch" if X.ndim > len(star.shape) + 2 else ""
        raise ValueError(f"{name}: the mask is false everywhere{batch}; nothing is known to go by")
    return mask


def _known(name: str, X: Any, mask: Any) -> Any:
    """X, and 0 where the mask is false; raise where what is known is not finite."""
    xp = namespace(X)
    X = X if mask is None else xp.where(mask, X, 0)
    if not bool(xp.all(xp.isfinite(X))):
        where = np.argwhere(~np.isfinite(to_host(X)))
        remedy = "mask them out with mask=" if mask is None else "make the mask false there"
        raise ValueError(
            f"{name}: X holds {len(where)} known entries that are not finite, the first at "
            f"{tuple(int(k) for k in where[0])}; {remedy}"
        )
    return X


def _check_noise(name: str, noise: float) -> None:
    if not 0 <= noise < math.inf:
        raise ValueError(f"{name}: noise is {noise}; expected a number from 0, the norm of the errors")
