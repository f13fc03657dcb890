"""Functions of general square matrices: `expm`, `sqrtm`, `logm`, `powm`.

Their derivatives are functions of block matrices (Mathias 1996; Higham, Functions of Matrices, 2008, theorem 3.6),

    f([[A, E], [0, A]]) = [[f(A), Df(A)[E]], [0, f(A)]],

which hold for every A, normal or not, diagonalisable or not, to any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from cutnn.array._products import matrix_power
from cutnn.array._spectral import DomainError, all_hermitian, hermitian_log, hermitian_power
from cutnn.array.manipulation import concat
from cutnn.device import namespace, opaque, to_host
from cutnn.tape import constant, primitive, raw

# Coefficients of the [13/13] Padé approximant of exp, over the first, and the largest 1-norm for which it is exact
# to double precision (Higham 2005).
_PADE = [
    64764752532480000,
    32382376266240000,
    7771770303897600,
    1187353796428800,
    129060195264000,
    10559470521600,
]
_PADE += [670442572800, 33522128640, 1323241920, 40840800, 960960, 16380, 182, 1]
_B = [b / _PADE[0] for b in _PADE]
_THETA = 5.371920351148152


def _expm_rule(g: Any, x: Any) -> Any:
    return _by_block(expm, x.mT, g)


@primitive(x=_expm_rule)
@opaque
def expm(x: Any, /) -> Any:
    """The exponential of each matrix, (*batch, n, n), by Padé approximation, scaling and squaring (Higham 2005).

    Derivatives of any order are right for every x.

    >>> import cutnn as ct
    >>> ct.linalg.expm(ct.asarray([[0.0, 1.0], [0.0, 0.0]]))
    array([[1., 1.],
           [0., 1.]])
    """
    xp = namespace(x)
    norm = _norm(x)
    squarings = xp.ceil(xp.log2(xp.where(xp.isfinite(norm) & (norm > _THETA), norm / _THETA, 1)))
    x = x * xp.exp2(-squarings)
    one = xp.eye(x.shape[-1], dtype=x.dtype)
    x2 = x @ x
    x4 = x2 @ x2
    x6 = x4 @ x2
    odd = x6 @ (_B[13] * x6 + _B[11] * x4 + _B[9] * x2) + _B[7] * x6 + _B[5] * x4 + _B[3] * x2 + _B[1] * one
    even = x6 @ (_B[12] * x6 + _B[10] * x4 + _B[8] * x2) + _B[6] * x6 + _B[4] * x4 + _B[2] * x2 + one
    odd = x @ odd
    result = xp.linalg.solve(even - odd, even + odd)
    for k in range(int(squarings.max()) if squarings.size else 0):
        result = xp.where(k < squarings, result @ result, result)
    return result


def sqrtm(x: Any, /, *, atol: Any = 0.0) -> Any:
    """The principal square root of each matrix, (*batch, n, n): its eigenvalues have positive real parts.

    There is one where no eigenvalue is on the closed negative real axis. If all matrices of a batch are Hermitian
    and positive semidefinite they may be singular too, with eigenvalues that are 0 to rounding, or up to `atol`, a
    number or one for each matrix. Those go through `eigh`, others through Newton's iteration. Derivatives are right
    at equal eigenvalues, for matrices that cannot be diagonalised, and in every direction; at a singular matrix what
    is infinite counts as 0. There are two of them at Hermitian matrices, at others all. Raises LinAlgError where
    there is no principal root. (Higham 2008, chapter 6.)

    >>> import cutnn as ct
    >>> ct.linalg.sqrtm(ct.asarray([[1.0, 4.0], [0.0, 1.0]]))
    array([[1., 2.],
           [0., 1.]])
    """
    return hermitian_power(x, 0.5, atol) if all_hermitian(x, atol) else _root(x)


def logm(x: Any, /, *, atol: Any = 0.0) -> Any:
    """The principal logarithm of each matrix, (*batch, n, n): its eigenvalues have imaginary parts within ±π.

    There is one where no eigenvalue is on the closed negative real axis; LinAlgError where one is. Hermitian matrices
    go through `eigh`, others through square roots until Padé's approximant at 1 is exact. Derivatives, and `atol`
    (eigenvalues up to it are no positive ones), as those of `sqrtm`. (Higham 2008, chapter 11.)

    >>> import cutnn as ct
    >>> ct.linalg.logm(ct.asarray([[1.0, 4.0], [0.0, 1.0]])).round(12) + 0
    array([[0., 4.],
           [0., 0.]])
    """
    return hermitian_log(x, atol) if all_hermitian(x, atol) else _matrix_log(x)


def powm(x: Any, p: float, /, *, atol: Any = 0.0) -> Any:
    """x^p of each matrix, (*batch, n, n), for a real p: exp(p log x), and products of x or its inverse for integers.

    Otherwise x^p needs eigenvalues off the closed negative real axis; Hermitian positive semidefinite matrices may be
    singular where p > 0. Raises LinAlgError where there is no power. Derivatives, and `atol`, as those of `sqrtm`.

    >>> import cutnn as ct
    >>> ct.linalg.powm(ct.asarray([[4.0, 0.0], [0.0, 9.0]]), -0.5).round(3)
    array([[0.5  , 0.   ],
           [0.   , 0.333]])
    """
    p = float(p)
    if p.is_integer():
        return matrix_power(x, int(p))
    return hermitian_power(x, p, atol) if all_hermitian(x, atol) else expm(p * logm(x))


def _root_rule(g: Any, x: Any) -> Any:
    return _by_block(_root, x.mT, g)


@primitive(x=_root_rule)
@opaque
def _root(x: Any) -> Any:
    """Newton's iteration X ← X + E, E ← -½ E X⁻¹ E from X = x, E = ½ (1 - x) (Iannazzo 2003; Higham 2008, (6.20)).

    Errors do not grow in it: the residual of a matrix of condition 2e12 was 2e-15 of its norm, and 4e-8 with the
    product form of Denman and Beavers. It needs x scaled into the unit disc: scaled to |det| = 1 it loses as much.
    """
    xp = namespace(x)
    n = x.shape[-1]
    eps = float(xp.finfo(x.dtype).eps)
    size = _norm(x)
    size = xp.where(size == 0, 1, size)
    root = x / size
    step = (xp.eye(n, dtype=x.dtype) - root) / 2
    for _ in range(80):
        moving = ~(_norm(step) <= eps * _norm(root))
        root = xp.where(moving, root + step, root)
        if not bool(xp.any(moving & xp.isfinite(_norm(root)))):
            break
        step = xp.where(moving, -0.5 * step @ _inverse(root) @ step, step)
    root = root * xp.sqrt(size)
    _check_root(x, root)
    return root


def _matrix_log_rule(g: Any, x: Any) -> Any:
    return _by_block(_matrix_log, x.mT, g)


# Nodes and weights of Gauss and Legendre's rule on [0, 1]: of log(1 + y) = y ∫ 1 / (1 + t y) dt it makes the [7/7]
# Padé approximant, exact to double precision for |y| ≤ 0.264 (Higham 2008, section 11.4).
_NODES, _WEIGHTS = (list(map(float, x / 2)) for x in numpy.polynomial.legendre.leggauss(7))


@primitive(x=_matrix_log_rule)
@opaque
def _matrix_log(x: Any) -> Any:
    xp = namespace(x)
    one = xp.eye(x.shape[-1], dtype=x.dtype)
    roots = xp.zeros((*x.shape[:-2], 1, 1), dtype=x.real.dtype)
    root = x
    for _ in range(60):
        far = ~(_norm(root - one) <= 0.264)
        if not bool(xp.any(far)):
            break
        root, roots = xp.where(far, _root(root), root), roots + far
    y = root - one
    terms = (w * xp.linalg.solve(one + (0.5 + t) * y, y) for t, w in zip(_NODES, _WEIGHTS, strict=True))
    return sum(terms) * xp.exp2(roots)


# -------------------------------------------------------------------------------------------------- helpers


def _by_block(f: Callable[[Any], Any], x: Any, e: Any) -> Any:
    """Df(x)[e], linear in e, which is brought to the size of x so that the block matrix is scaled as x would be."""
    n = x.shape[-1]
    scale = _scale(x, e)
    upper, lower = concat([x, e / scale], axis=-1), concat([0 * raw(x), x], axis=-1)
    return f(concat([upper, lower], axis=-2))[..., :n, n:] * scale


@constant
def _scale(x: Any, e: Any) -> Any:
    xp = namespace(x)
    size, of_e = _norm(x), _norm(e)
    return xp.where(of_e == 0, 1, of_e / xp.where(size == 0, 1, size))


def _check_root(x: Any, root: Any) -> None:
    xp = namespace(x)
    wrong = to_host(~(_norm(root @ root - x) <= float(xp.finfo(x.dtype).eps) ** 0.5 * _norm(x)))
    if wrong.any():
        place = tuple(int(k) for k in numpy.argwhere(wrong)[0][:-2])
        values = numpy.linalg.eigvals(to_host(x)[place])
        nearest = values[numpy.argmax(numpy.abs(numpy.angle(values)) + (values == 0) * 9)]
        raise DomainError(
            place,
            f"has no principal root, power or logarithm to working precision: an eigenvalue is {nearest:.3g}, and "
            "all must be off the closed negative real axis",
        )


def _norm(x: Any) -> Any:
    """The 1-norm of each matrix, (*batch, 1, 1)."""
    xp = namespace(x)
    sums = xp.sum(abs(x), axis=-2, keepdims=True)
    return xp.max(sums, axis=-1, keepdims=True) if x.shape[-1] else xp.sum(sums, axis=-1, keepdims=True)


def _inverse(x: Any) -> Any:
    """The inverse, nan where one is singular, as CuPy gives it."""
    xp = namespace(x)
    try:
        return xp.linalg.inv(x)
    except numpy.linalg.LinAlgError:
        if x.ndim == 2:
            return xp.full_like(x, xp.nan)
        return xp.stack([_inverse(matrix) for matrix in x])
