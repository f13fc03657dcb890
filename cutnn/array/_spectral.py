"""Functions of the singular values of matrices, and of the eigenvalues of Hermitian ones: `svt`, `polar`, `pinv`, ...

The factors of an SVD have no derivative where values meet, but U f(S) Vh and V f(w) Vᴴ do. So these are functions
of their own, whose derivatives are divided differences of f (Daleckii and Krein 1965; Higham, Functions of
Matrices, 2008, section 3.2): with w and V the eigenvalues and eigenvectors of A,

    Df(A)[E]     = V (f[w_i, w_j] ∘ Vᴴ E V) Vᴴ
    D²f(A)[E, H] = V (Σ_k f[w_i, w_k, w_j] (Y_ik Z_kj + Z_ik Y_kj)) Vᴴ,    Y = Vᴴ E V, Z = Vᴴ H V.

No reciprocal of a gap is in them: they are finite and right at equal, zero and clustered values. A function of
singular values is that of the Hermitian [[0, A], [Aᴴ, 0]], whose eigenvalues are ± the singular values (and zeros),
for an odd f. There are first and second derivatives, and NotDifferentiableError for more.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy

from cutnn.array._define import fit
from cutnn.array._differences import Log, Power, Shrink, Step
from cutnn.array._faces_pool import FLOPS, by_faces, linalg
from cutnn.array._products import adjoint, column, row
from cutnn.array.data_types import astype
from cutnn.array.elementwise import conj, real
from cutnn.array.manipulation import reshape
from cutnn.device import holds, namespace, to_host
from cutnn.tape import constant, nondifferentiable, primitive, raw

_NO_THIRD = nondifferentiable("of a matrix has two derivatives here: there is no third")

# --------------------------------------------------------------------------- odd functions of singular values


def svt(x: Any, /, tau: Any) -> Any:
    """Singular value thresholding, U max(S - tau, 0) Vh for x = U S Vh: the proximal operator of tau · nuclear norm.

    It minimises tau ‖y‖_* + ½ ‖y - x‖_F² over y. x is (*batch, l, m); tau ≥ 0 is a number or one for each matrix,
    (*batch), and both have gradients, first and second, right at equal and at zero singular values. Where a
    singular value equals tau there is none, and it counts as below. Raises ValueError for a negative tau.
    (Cai, Candès, Shen 2010; derivative: Candès, Sing-Long, Trzasko 2013.)

    >>> import cutnn as ct
    >>> ct.linalg.svt(ct.asarray([[0.0, 3.0], [1.0, 0.0]]), 2.0)
    array([[0., 1.],
           [0., 0.]])
    """
    tau = float(tau) if isinstance(tau, numpy.generic) else tau
    least = raw(tau)
    if not holds((least >= 0) if isinstance(least, int | float) else namespace(least).all(least >= 0)):
        raise ValueError(f"svt: tau is {least}; expected a threshold of at least 0")
    if hasattr(tau, "shape"):
        tau = reshape(astype(tau, raw(x).real.dtype), (*tau.shape, 1))
    return _odd(x, tau, Shrink, factors_of(x))


@constant
def factors_of(x: Any) -> Any:
    """U, S, Vh of x, without derivative."""
    return tuple(linalg("svd", x, full_matrices=False))


@constant
def _cutoff(s: Any, atol: Any = 0.0) -> Any:
    """What rounding errors make of a singular value 0, (*batch, 1): those of the decomposition, or `atol` of x."""
    xp = namespace(s)
    own = 10 * xp.finfo(s.dtype).eps * s.sum(axis=-1, keepdims=True)
    return xp.maximum(own, atol[..., None] if hasattr(atol, "shape") else atol)


def _odd_rule(g: Any, x: Any, tau: Any, kind: Any, factors: Any) -> Any:
    return fit(conj(_odd_first(x, conj(g), tau, kind, factors)), x.shape, x.dtype)


def _odd_by_tau(g: Any, x: Any, tau: Any, kind: Any, factors: Any) -> Any:
    return _by_tau(g, _odd(x, tau, Step, factors), tau) if kind is Shrink else None


def _by_tau(g: Any, step: Any, tau: Any) -> Any:
    return fit(-real(g * step).sum(axis=(-2, -1))[..., None], tau.shape, tau.dtype)


@primitive(x=_odd_rule, tau=_odd_by_tau)
def _odd(x: Any, tau: Any, kind: Any, factors: Any) -> Any:
    """U f(S) Vh for f = kind(tau), with tau (*batch, 1) or a number, and the factors U, S, Vh of x."""
    u, s, vh = factors
    return (u * row(kind(tau)(s))) @ vh


def _first_by_x(g: Any, x: Any, e: Any, tau: Any, kind: Any) -> Any:
    return fit(conj(_odd_second(x, e, conj(g), tau, kind)), x.shape, x.dtype)


def _first_by_e(g: Any, x: Any, e: Any, tau: Any, kind: Any, factors: Any) -> Any:
    return fit(conj(_odd_first(x, conj(g), tau, kind, factors)), e.shape, e.dtype)


def _first_by_tau(g: Any, x: Any, e: Any, tau: Any, kind: Any, factors: Any) -> Any:
    return _by_tau(g, _odd_first(x, e, tau, Step, factors), tau) if kind is Shrink else None


@primitive(x=_first_by_x, e=_first_by_e, tau=_first_by_tau)
def _odd_first(x: Any, e: Any, tau: Any, kind: Any, factors: Any) -> Any:
    """The derivative of `_odd` at x in the direction e.

    On the Hermitian and the skew part of C = Uᴴ E V act f[s_i, s_j] and f[s_i, -s_j], on what lies outside of the
    spans of U and of V acts f[s_i, 0].
    """
    u, s, vh = factors
    f, uh, v = kind(column(tau)), adjoint(u), adjoint(vh)
    ue, ev = uh @ e, e @ v
    c = ue @ v
    symmetric = (c + adjoint(c)) / 2
    inner = f.first(column(s), row(s)) * symmetric + f.first(column(s), -row(s)) * (c - symmetric)
    total = u @ inner @ vh
    outside = f.first(row(s), 0 * row(s))
    if u.shape[-2] > s.shape[-1]:
        total = total + ((ev - u @ c) * outside) @ vh
    if vh.shape[-1] > s.shape[-1]:
        total = total + (u * outside) @ (ue - c @ vh)
    return total


def _second_by_e(g: Any, x: Any, e: Any, h: Any, tau: Any, kind: Any) -> Any:
    return fit(conj(_odd_second(x, conj(g), h, tau, kind)), e.shape, e.dtype)


def _second_by_h(g: Any, x: Any, e: Any, h: Any, tau: Any, kind: Any) -> Any:
    return fit(conj(_odd_second(x, e, conj(g), tau, kind)), h.shape, h.dtype)


def _second_by_tau(g: Any, x: Any, e: Any, h: Any, tau: Any, kind: Any) -> Any:
    return _by_tau(g, _odd_second(x, e, h, tau, Step), tau) if kind is Shrink else None


@primitive(x=_NO_THIRD, e=_second_by_e, h=_second_by_h, tau=_second_by_tau)
def _odd_second(x: Any, e: Any, h: Any, tau: Any, kind: Any) -> Any:
    """The second derivative of `_odd` at x in the directions e and h."""
    xp = namespace(x)
    rows, columns = x.shape[-2:]
    u, s, vh = linalg("svd", x, full_matrices=True)
    v, k = adjoint(vh), s.shape[-1]
    left, right = u[..., :k] / 2**0.5, v[..., :k] / 2**0.5
    # The eigenvectors of [[0, x], [xᴴ, 0]]: their upper and their lower part.
    upper = xp.concat(
        [left, left, u[..., k:], xp.zeros((*u.shape[:-1], columns - k), dtype=x.dtype)], axis=-1
    )
    lower = xp.concat(
        [right, -right, xp.zeros((*v.shape[:-1], rows - k), dtype=x.dtype), v[..., k:]], axis=-1
    )
    w = xp.concat([s, -s, xp.zeros((*s.shape[:-1], rows + columns - 2 * k), dtype=s.dtype)], axis=-1)
    y, z = (half + adjoint(half) for half in (adjoint(upper) @ d @ lower for d in (e, h)))
    return upper @ _second_sum(kind(column(tau)), w, y, z) @ adjoint(lower)


def _second_sum(f: Any, w: Any, y: Any, z: Any) -> Any:
    """Σ_k f[w_i, w_k, w_j] (y_ik z_kj + z_ik y_kj), one k at a time: all at once would need n³ numbers."""
    total = 0
    for k in range(w.shape[-1]):
        to, back = slice(k, k + 1), (..., slice(k, k + 1), slice(None))
        pairs = y[..., to] * z[back] + z[..., to] * y[back]
        total = total + f.second(column(w), column(w)[back], row(w)) * pairs
    return total


# ------------------------------------------------------------------------------- norms and the polar factors


def _nuclear_norm_rule(g: Any, x: Any, factors: Any, cutoff: Any) -> Any:
    return reshape(g, (*g.shape, 1, 1)) * conj(_odd(x, cutoff, Step, factors))


@primitive(x=_nuclear_norm_rule)
def _nuclear_norm(x: Any, factors: Any, cutoff: Any) -> Any:
    return factors[1].sum(axis=-1)


def nuclear_norm(x: Any, atol: Any = 0.0) -> Any:
    """The sum of the singular values of each matrix; where they are 0, up to atol, the gradient is of least norm."""
    factors = factors_of(x)
    return _nuclear_norm(x, factors, _cutoff(factors[1], atol))


def _polar_rule(g: Any, x: Any, factors: Any, cutoff: Any) -> Any:
    return _odd_rule(g, x, cutoff, Step, factors)


@primitive(x=_polar_rule)
def _polar_factor(x: Any, factors: Any, cutoff: Any) -> Any:
    return factors[0] @ factors[2]


def polar(x: Any, /, *, side: str = "right", atol: Any = 0.0) -> PolarResult:
    """The polar decomposition x = U P of each matrix, as (U, P): U as far as it can be unitary, P Hermitian, psd.

    For x = W S Vh, (*batch, l, m), U = W Vh, (*batch, l, m), has orthonormal columns or rows, and P = Vhᴴ S Vh is
    (*batch, m, m); with side="left" x = P U and P = W S Wᴴ, (*batch, l, l). The gradients, first and second, are
    right at equal singular values. Where singular values are 0 U is not unique and has no derivative: the share of
    their vectors counts as 0, and the gradient of P is along changes that keep the rank; so it is with singular values
    up to `atol`, a number or one for each matrix. Raises ValueError for another side.

    >>> import cutnn as ct
    >>> ct.linalg.polar(ct.asarray([[0.0, -2.0], [3.0, 0.0]])).P
    array([[3., 0.],
           [0., 2.]])
    """
    if side not in ("left", "right"):
        raise ValueError(f"polar: side is {side!r}; expected 'right', x = U P, or 'left', x = P U")
    factors = factors_of(x)
    cutoff = _cutoff(factors[1], atol)
    u, sure = _polar_factor(x, factors, cutoff), _odd(x, cutoff, Step, factors)
    # Of vectors whose singular values are 0 P has nothing, nor has its derivative: they are taken as constants.
    rest, there = raw(u) - raw(sure), raw(x)
    if side == "right":
        p = adjoint(sure) @ x + adjoint(rest) @ there
    else:
        p = x @ adjoint(sure) + there @ adjoint(rest)
    return PolarResult(u, (p + adjoint(p)) / 2)


class PolarResult(NamedTuple):
    """The factors of a polar decomposition."""

    U: Any
    P: Any


# ------------------------------------------------------------------------------------------ pseudoinverses


def pinv(x: Any, /, *, rtol: Any = None) -> Any:
    """pinv(x, /, *, rtol=None) of the Python array API standard: the Moore-Penrose inverse.

    Singular values up to rtol times the largest count as 0; rtol is max(l, m) eps unless given. The gradient is
    along changes that keep the rank: where the rank can rise, the inverse jumps.
    """
    if rtol is None:
        rtol = max(x.shape[-2:]) * float(namespace(raw(x)).finfo(x.dtype).eps)
    rtol = rtol[..., None] if hasattr(rtol, "shape") else rtol
    inverse = inverse_of_full_rank(x, rtol * frobenius(x))
    if inverse is not None:
        return pinv_of(x, inverse)
    factors = factors_of(x)
    return pinv_of(x, inverse_above(factors, rtol * factors[1][..., :1]))


def _pinv_rule(g: Any, ans: Any, x: Any) -> Any:
    """Golub and Pereyra 1973: dP = -P dA P + P Pᴴ dAᴴ (1 - A P) + (1 - P A) dAᴴ Pᴴ P, transposed."""
    p, ph, gt = ans, adjoint(ans), g.mT
    left = gt @ p @ ph
    right = ph @ p @ gt
    return -(p.mT @ g @ p.mT) + conj(left - x @ (p @ left) + right - (right @ p) @ x)


@primitive(x=_pinv_rule)
def pinv_of(x: Any, inverse: Any) -> Any:
    """The pseudoinverse of x, which has been found already, with its derivatives."""
    return inverse


@constant
def inverse_above(factors: Any, cutoff: Any) -> Any:
    """The pseudoinverse from the factors U, S, Vh, singular values up to the cutoff, (*batch, 1), being 0."""
    u, s, vh = factors
    xp = namespace(s)
    kept = s > cutoff
    return (adjoint(vh) * row(xp.where(kept, 1 / xp.where(kept, s, 1), 0))) @ adjoint(u)


@constant
def frobenius(x: Any) -> Any:
    """The Frobenius norm of each matrix, (*batch, 1); infinite where squares overflow."""
    with numpy.errstate(over="ignore", under="ignore"):
        return namespace(x).linalg.vector_norm(x, axis=(-2, -1))[..., None]


@constant
def inverse_of_full_rank(x: Any, cutoff: Any) -> Any:
    """The pseudoinverses of matrices that are well conditioned, all singular values above the cutoff, else None.

    By the inverse, or QR: a sixth of the time that an SVD takes. The cutoff is (*batch, 1) or a number. 1 / ‖x⁺‖_F is
    a lower bound of the singular values, known to half of the digits, as the condition number is no larger than that.
    """
    if not x.size:
        return None
    xp, wide = namespace(x), x.shape[-2] < x.shape[-1]
    try:
        inverse = by_faces(_inverse_by_qr, FLOPS["qr"], adjoint(x) if wide else x)
    except numpy.linalg.LinAlgError:
        return None
    inverse = adjoint(inverse) if wide else inverse
    size = frobenius(inverse)
    with numpy.errstate(over="ignore", invalid="ignore"):
        certain = (size * cutoff < 0.99) & (size * frobenius(x) < xp.finfo(x.dtype).eps ** -0.5)
    return inverse if bool(xp.all(certain)) else None  # nan is neither


def _inverse_by_qr(x: Any) -> Any:
    """The pseudoinverses of matrices that are square, or tall and of full rank."""
    xp = namespace(x)
    if x.shape[-2] == x.shape[-1]:
        return xp.linalg.inv(x)
    q, r = linalg("qr", x)
    return xp.linalg.inv(r) @ adjoint(q)


# -------------------------------------------------------------------------- functions of Hermitian matrices


def hermitian_power(x: Any, p: float, atol: Any) -> Any:
    """V w^p Vᴴ of Hermitian positive semidefinite matrices x = V w Vᴴ, definite for p < 0, for which it is DomainError.

    Derivatives, first and second, are those of x^p in every direction, Hermitian or not.
    """
    return _hermitian(x, Power(p), _spectrum(x, f"a power {p:g}", p < 0, atol))


def hermitian_log(x: Any, atol: Any) -> Any:
    """V log(w) Vᴴ of Hermitian positive definite matrices x = V w Vᴴ, else DomainError; as `hermitian_power`."""
    return _hermitian(x, Log(), _spectrum(x, "a logarithm", True, atol))


class DomainError(numpy.linalg.LinAlgError):
    """A function has no value at a matrix: at which of the batch, and why."""

    def __init__(self, place: tuple[int, ...], reason: str) -> None:
        super().__init__(f"the matrix{f' {place} of the batch' if place else ''} {reason}")
        self.place, self.reason = place, reason


@constant
def _spectrum(x: Any, what: str, positive: bool, atol: Any) -> Any:
    """The eigenvalues, those that are 0 to rounding made so, and the eigenvectors."""
    xp = namespace(x)
    w, v = linalg("eigh", x)
    cutoff = _cutoff(abs(w), atol)
    outside = w <= cutoff if positive else w < -cutoff
    if holds(xp.any(outside)):
        host, values = to_host(outside), to_host(w)
        *place, k = (int(i) for i in numpy.argwhere(host)[0])
        need = "positive definite" if positive else "positive semidefinite"
        raise DomainError(
            tuple(place), f"has the eigenvalue {values[(*place, k)]:.3g}: {what} of it needs it to be {need}"
        )
    return xp.where(w <= cutoff, 0, w), v


def all_hermitian(x: Any, atol: Any) -> bool:
    """Whether all matrices of a batch are Hermitian up to rounding, or up to atol."""
    x = raw(x)
    if not x.size:
        return True
    xp = namespace(x)
    skew, size = (xp.max(abs(a), axis=(-2, -1)) for a in (x - adjoint(x), x))
    return bool(xp.all(skew <= xp.maximum(100 * xp.finfo(x.dtype).eps * size, atol)))


def _hermitian_rule(g: Any, x: Any, f: Any, spectrum: Any) -> Any:
    return _hermitian_first(x.mT, g, f, _transposed(spectrum))


@primitive(x=_hermitian_rule)
def _hermitian(x: Any, f: Any, spectrum: Any) -> Any:
    """V f(w) Vᴴ."""
    w, v = spectrum
    return (v * row(f(w))) @ adjoint(v)


def _hermitian_first_by_x(g: Any, x: Any, e: Any, f: Any, spectrum: Any) -> Any:
    return _hermitian_second(x.mT, e.mT, g, f, _transposed(spectrum))


def _hermitian_first_by_e(g: Any, x: Any, f: Any, spectrum: Any) -> Any:
    return _hermitian_first(x.mT, g, f, _transposed(spectrum))


@primitive(x=_hermitian_first_by_x, e=_hermitian_first_by_e)
def _hermitian_first(x: Any, e: Any, f: Any, spectrum: Any) -> Any:
    """The derivative at x in the direction e, which need not be Hermitian."""
    w, v = spectrum
    return v @ (f.first(column(w), row(w)) * (adjoint(v) @ e @ v)) @ adjoint(v)


def _hermitian_second_by_e(g: Any, x: Any, h: Any, f: Any, spectrum: Any) -> Any:
    return _hermitian_second(x.mT, g, h.mT, f, _transposed(spectrum))


def _hermitian_second_by_h(g: Any, x: Any, e: Any, f: Any, spectrum: Any) -> Any:
    return _hermitian_second(x.mT, e.mT, g, f, _transposed(spectrum))


@primitive(x=_NO_THIRD, e=_hermitian_second_by_e, h=_hermitian_second_by_h)
def _hermitian_second(x: Any, e: Any, h: Any, f: Any, spectrum: Any) -> Any:
    w, v = spectrum
    y, z = (adjoint(v) @ d @ v for d in (e, h))
    return v @ _second_sum(f, w, y, z) @ adjoint(v)


def _transposed(spectrum: Any) -> Any:
    w, v = spectrum
    return w, conj(v)
