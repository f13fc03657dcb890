"""Decompositions of matrices: `cholesky`, `lu`, `qr`, `eigh`, `svd`, `eig` and their values alone.

Rules are the published adjoint forms, conjugated at both ends because rules are bilinear (see `cutnn.tape`).
In them a bar marks the cotangent: Ā belongs to A.

The factors of `eigh`, `svd` and `eig` are determined only up to phases, and within an eigenspace up to a
rotation; gradients mean something for functions that do not depend on that choice. Where two eigenvalues or
singular values meet, the derivative of their vectors does not exist: the share of the pair, 1/(λ_j - λ_i),
counts as 0, so that gradients stay finite. They are then still exact for functions of the values that treat
equal ones alike (sums, nuclear norms) and for the polar factor U @ Vh, but not for products such as U @ diag(S) @ Vh,
whose share of the pair is 0/0. Between values δ apart the rounding errors of such functions grow to about eps/δ of the
gradient, and no further. Functions of a matrix that have derivatives there have rules of their own, without a loss:
`low_rank`, `svt`, `polar` and their kin (`_spectral.py`).
"""

from __future__ import annotations

import importlib.util
import math
from typing import Any, NamedTuple

import numpy

from cutnn.array._define import fit
from cutnn.array._faces_pool import FLOPS, by_faces, linalg
from cutnn.array._products import adjoint, column, from_diagonal, inv, row, solve
from cutnn.array.elementwise import conj, real, where
from cutnn.array.manipulation import concat
from cutnn.device import holds, namespace, to_host
from cutnn.tape import NotDifferentiableError, Traced, constant, primitive, raw

# ------------------------------------------------------------------------------------------------- cholesky


def _cholesky_rule(g: Any, ans: Any, upper: bool) -> Any:
    """Ā = L⁻ᴴ sym(Φ(Lᴴ L̄)) L⁻¹, Φ the lower triangle and half the diagonal (Murray, arXiv 1602.07527)."""
    lower, lower_bar = (adjoint(ans), g.mT) if upper else (ans, conj(g))
    phi = adjoint(lower) @ (lower_bar * _lower_half(lower, 1.0)) * _lower_half(lower, 0.5)
    inverse = inv(lower)
    return conj(adjoint(inverse) @ (phi + adjoint(phi)) @ inverse) / 2


@primitive(x=_cholesky_rule)
def cholesky(x: Any, /, *, upper: bool = False) -> Any:
    """cholesky(x, /, *, upper=False) of the array API standard: L with L @ Lᴴ = x, or U with Uᴴ @ U = x.

    x is Hermitian and positive definite, only one triangle of it is read, and its gradient is Hermitian.
    Raises LinAlgError on NumPy where x is not positive definite.

    >>> import cutnn as ct
    >>> ct.linalg.cholesky(ct.asarray([[4.0, 2.0], [2.0, 5.0]]))
    array([[2., 0.],
           [1., 2.]])
    """
    return linalg("cholesky", x, upper=upper)


# ------------------------------------------------------------------------------------------------------- lu


class LUResult(NamedTuple):
    """The factors of P @ L @ U: a permutation, a unit lower and an upper triangle."""

    P: Any
    L: Any
    U: Any


def _lu_rule(g: Any, ans: Any, x: Any) -> Any:
    """Ā = P L⁻ᴴ (tril(Lᴴ L̄, -1) + triu(Ū Uᴴ)) U⁻ᴴ, L and U square (de Hoog, Anderssen, Lukas 2011).

    Of a tall matrix L₂, below the square L₁, and of a wide one U₂, right of U₁, take their own cotangents along:
    tril(L₁ᴴ L̄₁, -1) - triu(L₂ᴴ L̄₂) and triu(Ū₁ U₁ᴴ) - tril(Ū₂ U₂ᴴ, -1), and in Ā have L̄₂ U⁻ᴴ and P L⁻ᴴ Ū₂.
    """
    (p, lower, upper), count = ans, min(x.shape[-2:])
    l_bar, u_bar = (0 * part if h is None else conj(h) for part, h in zip((lower, upper), g[1:], strict=True))
    below, right = slice(count, None), slice(None, count)
    square, rest = lower[..., right, :], lower[..., below, :]
    first, more = upper[..., right], upper[..., below]
    _check_regular("lu", first)
    strict, triangle = _lower_half(first, 0.0), _lower_half(first, 1.0).mT
    inner = (adjoint(square) @ l_bar[..., right, :]) * strict + (
        u_bar[..., right] @ adjoint(first)
    ) * triangle
    if x.shape[-1] > count:
        inner = inner - (u_bar[..., below] @ adjoint(more)) * strict
    if x.shape[-2] > count:
        inner = inner - (adjoint(rest) @ l_bar[..., below, :]) * triangle
    bar = adjoint(solve(first, adjoint(solve(adjoint(square), inner))))
    if x.shape[-1] > count:
        bar = concat([bar, solve(adjoint(square), u_bar[..., below])], axis=-1)
    if x.shape[-2] > count:
        bar = concat([bar, adjoint(solve(first, adjoint(l_bar[..., below, :])))], axis=-2)
    return conj(p @ bar)


@primitive(x=_lu_rule)
def lu(x: Any, /) -> Any:
    """x = P @ L @ U with partial pivots, as (P, L, U), for (*batch, l, m) and k = min(l, m).

    P (l, l) is a permutation, of real numbers, L (l, k) a unit lower triangle, U (k, m) an upper one; pivots are those
    of LAPACK, the largest |Re| + |Im| in their column, of several the first, so that no real entry of L is above 1.
    Singular matrices have them too; the gradient, of L and of U, needs a regular leading square of Pᵀ x: LinAlgError
    where it is singular to rounding. On the host by SciPy, where it is installed and k is 16 or more.

    >>> import cutnn as ct
    >>> P, L, U = ct.linalg.lu(ct.asarray([[1.0, 2.0], [2.0, 2.0]]))
    >>> L, U
    (array([[1. , 0. ],
           [0.5, 1. ]]), array([[2., 2.],
           [0., 1.]]))
    """
    xp = namespace(x)
    if xp is numpy and min(x.shape[-2:]) >= _SCIPY_FROM and x.size:
        import scipy.linalg

        return LUResult(*scipy.linalg.lu(x, check_finite=False))
    return LUResult(*lu_by_blocks(x, xp))


# Milliseconds for a batch of B square matrices, one core (OpenBLAS, NumPy 2.4, SciPy 1.17, float64), by blocks/SciPy:
#   m       8           16           32          96
#   B = 64  0.4/0.4                  7.8/2.0     92/27
#   B = 512 0.9/1.5*    13.6/14.8    70/46       986/233     * 256 matrices
_SCIPY_FROM = 16 if importlib.util.find_spec("scipy") is not None else math.inf
_LU_BLOCK = 16


def lu_by_blocks(x: Any, xp: Any) -> tuple[Any, Any, Any]:
    """P, L, U of a whole batch at once, by blocks of columns (Golub and Van Loan 2013, section 3.2)."""
    *batch, rows, columns = x.shape
    a, count = xp.array(x.reshape((math.prod(batch), rows, columns))), min(rows, columns)
    every = xp.arange(a.shape[0])
    order = xp.zeros(a.shape[:2], dtype=every.dtype) + xp.arange(rows)
    for start in range(0, count, _LU_BLOCK):
        stop = min(start + _LU_BLOCK, count)
        for k in range(start, stop):
            pivot = k + xp.argmax(xp.abs(a[:, k:, k].real) + xp.abs(a[:, k:, k].imag), axis=1)
            for held in (a, order):
                moved = xp.array(held[every, pivot])
                held[every, pivot] = held[:, k]
                held[:, k] = moved
            head = a[:, k, k, None]
            a[:, k + 1 :, k] /= xp.where(head == 0, 1, head)  # where the pivot is 0, so is all below it
            a[:, k + 1 :, k + 1 : stop] -= a[:, k + 1 :, k, None] * a[:, k, None, k + 1 : stop]
        if stop < columns:
            unit = xp.tril(a[:, start:stop, start:stop], -1) + xp.eye(stop - start, dtype=a.dtype)
            a[:, start:stop, stop:] = xp.linalg.solve(unit, a[:, start:stop, stop:])
            a[:, stop:, stop:] -= a[:, stop:, start:stop] @ a[:, start:stop, stop:]
    lower = xp.tril(a[:, :, :count], -1) + xp.eye(rows, count, dtype=a.dtype)
    p = xp.asarray(order[:, None, :] == xp.arange(rows)[:, None], dtype=a.real.dtype)
    return tuple([part.reshape((*batch, *part.shape[1:])) for part in (p, lower, xp.triu(a[:, :count]))])


# ------------------------------------------------------------------------------------------------------- qr


def _qr_rule(g: Any, ans: Any, x: Any, mode: str) -> Any:
    """The rule for a tall matrix (Walter and Lehmann 2013); a wide one is [Y | Z] with Y = Q U, Z = Q V."""
    q, r = ans
    rows, columns = x.shape[-2:]
    if mode == "complete" and rows > columns:
        raise NotDifferentiableError(
            f"qr of a tall matrix (here {rows} by {columns}) has no gradient in mode 'complete', since the "
            "further columns of Q are arbitrary; use mode='reduced'"
        )
    q_bar, r_bar = (None if part is None else conj(part) for part in g)
    if columns <= rows:
        return conj(_tall_qr_rule(q, r, q_bar, r_bar))
    left, right_bar = slice(0, rows), None
    if r_bar is not None:
        right_bar = r_bar[..., rows:]
        r_bar = r_bar[..., left]
        share = x[..., rows:] @ adjoint(right_bar)
        q_bar = share if q_bar is None else q_bar + share
    x_bar = _tall_qr_rule(q, r[..., left], q_bar, r_bar)
    rest = 0 * x[..., rows:] if right_bar is None else q @ right_bar
    return conj(concat([x_bar, rest], axis=-1))


def _tall_qr_rule(q: Any, r: Any, q_bar: Any, r_bar: Any) -> Any:
    """Ā = (Q̄ + Q copy(R̄ Rᴴ - Qᴴ Q̄)) R⁻ᴴ, where copy makes a matrix Hermitian from its upper triangle."""
    _check_regular("qr", r)
    upper_half = _lower_half(r, 0.5).mT
    inner = 0 if r_bar is None else (r_bar * _lower_half(r, 1.0).mT) @ adjoint(r)
    if q_bar is not None:
        inner = inner - adjoint(q) @ q_bar
    inner = inner * upper_half
    total = q @ (inner + adjoint(inner))
    return adjoint(solve(r, adjoint(total if q_bar is None else total + q_bar)))


@primitive(x=_qr_rule)
def qr(x: Any, /, *, mode: str = "reduced") -> Any:
    """qr(x, /, *, mode="reduced") of the Python array API standard: x = Q @ R, returned as (Q, R).

    The gradient needs full rank, for a wide matrix of its leading square: LinAlgError where a column depends on those
    before it, to rounding. In mode "complete" that of a tall matrix raises NotDifferentiableError.
    """
    return linalg("qr", x, mode=mode)


# ----------------------------------------------------------------------------------------------- eigenvalues


def _eigh_rule(g: Any, ans: Any) -> Any:
    """Ā = V (diag(w̄) + F ∘ skew(Vᴴ V̄)) Vᴴ, F_ij = 1/(w_j - w_i) (Giles 2008, made Hermitian)."""
    w, v = ans
    w_bar, v_bar = g
    total = 0 if w_bar is None else v * row(w_bar)
    if v_bar is not None:
        inner = adjoint(v) @ conj(v_bar)
        total = total + v @ (_reciprocal(row(w) - column(w), w) * (inner - adjoint(inner)) / 2)
    return conj(total @ adjoint(v))


@primitive(x=_eigh_rule)
def eigh(x: Any, /) -> Any:
    """eigh(x, /) of the Python array API standard: x @ V = V @ diag(w) for Hermitian x, as (w, V).

    w ascends. Only one triangle of x is read, and its gradient is Hermitian. Where eigenvalues are equal, see
    the top of this file: gradients are finite.
    """
    return linalg("eigh", x)


def eigvalsh(x: Any, /) -> Any:
    """eigvalsh(x, /) of the Python array API standard: the eigenvalues of a Hermitian matrix, ascending.

    >>> import cutnn as ct
    >>> ct.linalg.eigvalsh(ct.asarray([[0.0, 2.0], [2.0, 0.0]]))
    array([-2.,  2.])
    """
    return eigh(x)[0] if type(x) is Traced else linalg("eigvalsh", x)


class EigResult(NamedTuple):
    """Eigenvalues and eigenvectors of a general matrix, both complex."""

    eigenvalues: Any
    eigenvectors: Any


def _eig_rule(g: Any, ans: Any, x: Any) -> Any:
    """Ā = V⁻ᴴ (diag(w̄) + conj(F) ∘ (Vᴴ V̄ - Vᴴ V diag(Re Vᴴ V̄))) Vᴴ, vectors of norm 1 (arXiv 1701.00392)."""
    w, v = ans
    w_bar, v_bar = g
    _check_diagonalisable(v)
    inner = 0 if w_bar is None else from_diagonal(conj(w_bar), w.shape[-1], w.shape[-1], 0)
    if v_bar is not None:
        v_bar = conj(v_bar)
        lengths = real(conj(v) * v_bar).sum(axis=-2)
        inner = inner + _reciprocal(conj(row(w) - column(w)), w) * (adjoint(v) @ (v_bar - v * row(lengths)))
    return fit(conj(solve(adjoint(v), inner @ adjoint(v))), x.shape, x.dtype)


@primitive(x=_eig_rule)
def eig(x: Any, /) -> Any:
    """The eigenvalues w and eigenvectors V, of norm 1, of general matrices: x @ V = V @ diag(w), as (w, V).

    Both are complex. The gradient needs a diagonalisable matrix: LinAlgError where V is singular to rounding, and
    near such matrices it grows without bound. As in version 2025.12 of the Python array API standard.
    """
    xp = namespace(x)
    dtype = xp.result_type(x.dtype, xp.complex64)

    def complex_eig(x: Any) -> Any:  # NumPy's is real where all eigenvalues are
        w, v = xp.linalg.eig(x)
        return w.astype(dtype, copy=False), v.astype(dtype, copy=False)

    return EigResult(*by_faces(complex_eig, FLOPS["eig"], x))


def eigvals(x: Any, /) -> Any:
    """The eigenvalues, complex, of general matrices, as in version 2025.12 of the array API standard."""
    return eig(x)[0]


# ------------------------------------------------------------------------------------------- singular values


def _svd_rule(g: Any, ans: Any) -> Any:
    """Ā = (U (diag(s̄) + M) + (1 - U Uᴴ) Ū S⁻¹) Vᴴ + U S⁻¹ V̄ᴴ (1 - V Vᴴ) (Wan and Zhang, arXiv 1909.02659).

    With X = skew(Uᴴ Ū) and Y = skew(Vᴴ V̄), their M_ij = (X_ij s_j + s_i Y_ij) / (s_j² - s_i²), and its phase
    term on the diagonal, are ½ (X + Y)_ij / (s_j - s_i) + ½ (X - Y)_ij / (s_j + s_i): here only the first
    meets equal singular values, and only when the function depends on the choice of vectors is X + Y not 0
    there.
    """
    u, s, vh = ans
    u_bar, s_bar, vh_bar = g
    rows, columns, count = u.shape[-2], vh.shape[-1], s.shape[-1]
    total = 0 if s_bar is None else u * row(s_bar)
    x = y = rest = 0
    if u_bar is not None:
        u_bar = conj(u_bar)
        inner = adjoint(u) @ u_bar
        x = inner - adjoint(inner)
        if rows > count:
            total = total + (u_bar - u @ inner) * row(_reciprocal(s, s))
    if vh_bar is not None:
        vh_bar = conj(vh_bar)
        inner = vh_bar @ adjoint(vh)
        y = adjoint(inner) - inner
        if columns > count:
            rest = (u * row(_reciprocal(s, s))) @ (vh_bar - inner @ vh)
    if u_bar is not None or vh_bar is not None:
        apart, together = _reciprocal(row(s) - column(s), s), _reciprocal(row(s) + column(s), s)
        total = total + u @ ((x + y) * apart + (x - y) * together) / 2
    return conj(total @ vh + rest)


@primitive(x=_svd_rule)
def _svd(x: Any) -> Any:
    return linalg("svd", x, full_matrices=False)


def _projected_svd_rule(g: Any, ans: Any, x: Any, steps: int) -> Any:
    """That of the SVD, and what the rest R = x - U S Vh, which is not 0, adds to it.

    Outside of the spans of U and V the rule of a whole SVD is Ā = Y Vh + U Zᴴ with Y S = Ū + R Z, Z S = V̄ + Rᴴ Y.
    For R = 0 these are the two last terms of `_svd_rule`; each step of a fixed point iteration gains a factor
    σ_max(R) / s.
    """
    total, (u, s, vh) = _svd_rule(g, ans), ans
    inverse, v = row(_reciprocal(s, s)), adjoint(vh)
    y_bar = 0 * u if g[0] is None else conj(g[0])
    z_bar = 0 * v if g[2] is None else g[2].mT
    first_y, first_z = (y_bar - u @ (adjoint(u) @ y_bar)) * inverse, (z_bar - v @ (vh @ z_bar)) * inverse
    rest = x - (u * row(s)) @ vh
    y, z = first_y, first_z
    for _ in range(steps):
        y, z = first_y + (rest @ z) * inverse, first_z + (adjoint(rest) @ y) * inverse
    return total + conj((y - first_y) @ vh + u @ adjoint(z - first_z))


@primitive(x=_projected_svd_rule)
def projected_svd(x: Any, basis: Any, steps: int) -> Any:
    """The SVD (U, S, Vh) of Q Qᴴ x, for a basis Q, (*batch, l, q), of orthonormal columns, q ≤ min(l, m).

    Its gradient is that of singular triplets of x, which they are where Q holds singular vectors of x, as a basis
    found from x does. That of triplet i is right up to (σ_{q+1} / σ_i)^(steps + 1), σ those of x.
    """
    u, s, vh = _svd(adjoint(basis) @ x)
    return basis @ u, s, vh


def _full_svd_rule(g: Any, x: Any) -> Any:
    u_bar, s_bar, vh_bar = g
    if u_bar is not None or vh_bar is not None:
        rows, columns = x.shape[-2:]
        raise NotDifferentiableError(
            f"svd of a matrix that is not square (here {rows} by {columns}) has no gradient of U and Vh with "
            "full_matrices=True, since their further vectors are arbitrary; use full_matrices=False"
        )
    return _svd_rule((None, s_bar, None), _svd(x))


@primitive(x=_full_svd_rule)
def _full_svd(x: Any) -> Any:
    return linalg("svd", x, full_matrices=True)


def svd(x: Any, /, *, full_matrices: bool = True) -> Any:
    """svd(x, /, *, full_matrices=True) of the Python array API standard: x = U @ diag(S) @ Vh, as (U, S, Vh).

    S falls. Where singular values are equal, see the top of this file; where they are 0, 1/S counts as 0:
    gradients are finite. With full_matrices only square matrices have a gradient of U and Vh
    (NotDifferentiableError).

    >>> import cutnn as ct
    >>> U, S, Vh = ct.linalg.svd(ct.ones((4, 2)), full_matrices=False)
    >>> U.shape, S.shape, Vh.shape
    ((4, 2), (2,), (2, 2))
    """
    square = len(x.shape) > 1 and x.shape[-2] == x.shape[-1]
    return _full_svd(x) if full_matrices and not square else _svd(x)


def svdvals(x: Any, /) -> Any:
    """svdvals(x, /) of the Python array API standard: the singular values, falling.

    The gradient of one that is 0 (to working precision) is 0, so that of the nuclear norm has least norm.

    >>> import cutnn as ct
    >>> ct.grad(lambda x: ct.sum(ct.linalg.svdvals(x)))(ct.eye(2))
    array([[1., 0.],
           [0., 1.]])
    """
    if type(x) is not Traced:
        return linalg("svdvals", x)
    return _nonnegative(_svd(x)[1])


@primitive(s=lambda g, s: where(_is_negligible(s, s), 0, g))
def _nonnegative(s: Any) -> Any:
    return s


# -------------------------------------------------------------------------------------------------- helpers


def _check_regular(name: str, triangle: Any) -> None:
    """Raise where the diagonal of an upper triangle has a 0, to the rounding of the column that it is in."""
    size = abs(raw(triangle))
    if not size.size:
        return
    xp = namespace(size)
    rounding = size.shape[-1] * xp.finfo(size.dtype).eps * size.max(axis=-2)
    dependent = size.diagonal(axis1=-2, axis2=-1) <= rounding
    if holds(dependent.any()):
        *place, k = numpy.argwhere(to_host(dependent))[0]
        raise numpy.linalg.LinAlgError(
            f"{name}: the factors have no derivative where the leading columns are linearly dependent: column {k} of "
            f"{_matrix(place)} depends on those before it, to rounding; svd, polar, pinv and low_rank have gradients "
            "there"
        )


def _check_diagonalisable(v: Any) -> None:
    """Raise where eigenvectors of norm 1 are linearly dependent to rounding."""
    if not v.shape[-1]:
        return
    values = svdvals(raw(v))
    defective = values[..., -1] <= v.shape[-1] * namespace(values).finfo(values.dtype).eps
    if holds(defective.any()):
        which = _matrix(numpy.argwhere(to_host(defective))[0])
        raise numpy.linalg.LinAlgError(
            f"eig: the eigenvectors of {which} are linearly dependent, to rounding: it cannot be diagonalised, and its "
            "eigenvalues have no derivative"
        )


def _matrix(place: Any) -> str:
    return f"matrix {tuple(map(int, place))} of the batch" if len(place) else "the matrix"


def _reciprocal(x: Any, values: Any) -> Any:
    """1/x, and 0 where x is 0 to the precision of eigenvalues or singular values."""
    zero = _is_negligible(x, values)
    return where(zero, 0, 1 / where(zero, 1, x))


@constant
def _is_negligible(x: Any, values: Any) -> Any:
    """Whether |x| is no more than the rounding errors of `values`, (*batch, n), which the decomposition
    makes."""
    xp = namespace(x, values)
    bound = 10 * xp.finfo(values.dtype).eps * xp.abs(values).sum(axis=-1)
    return xp.abs(x) <= bound.reshape((*bound.shape, *[1] * (x.ndim - bound.ndim)))


@constant
def _lower_half(x: Any, diagonal: float) -> Any:
    """A mask of the lower triangle with this value on the diagonal, for square matrices like x."""
    xp = namespace(x)
    n = x.shape[-1]
    ones = xp.ones((n, n), dtype=x.real.dtype)
    return xp.tril(ones) - (1 - diagonal) * xp.eye(n, dtype=x.real.dtype)
