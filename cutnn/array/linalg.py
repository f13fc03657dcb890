"""Linear algebra of the array API standard: its functions `matmul`, `tensordot`, `vecdot`,
`matrix_transpose`, and its `linalg` extension.

Matrices stand in the last two axes, batch axes lead and broadcast. Gradients exist for real and complex
arrays, to any order, and are finite at degenerate points: 0 for a norm at zero, exact for the determinant of
a singular matrix, of constant rank for `pinv`; `_decompositions.py` says what happens at equal eigenvalues
and singular values.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from cutnn.array._decompositions import (
    EigResult,
    LUResult,
    cholesky,
    eig,
    eigh,
    eigvals,
    eigvalsh,
    lu,
    qr,
    svd,
    svdvals,
)
from cutnn.array._define import library
from cutnn.array._functions import expm, logm, powm, sqrtm
from cutnn.array._linear import normal_axes
from cutnn.array._low_rank import low_rank
from cutnn.array._products import (
    adjoint,
    cross,
    diagonal,
    from_diagonal,
    inv,
    matmul,
    matrix_power,
    matrix_transpose,
    outer,
    solve,
    tensordot,
    trace,
    vecdot,
)
from cutnn.array._spectral import PolarResult, nuclear_norm, pinv, polar, svt
from cutnn.array.elementwise import abs, conj, real, where
from cutnn.array.manipulation import reshape
from cutnn.device import namespace
from cutnn.tape import Traced, constant, primitive, raw

__all__ = [
    "EigResult",
    "LUResult",
    "PolarResult",
    "cholesky",
    "cross",
    "det",
    "diagonal",
    "eig",
    "eigh",
    "eigvals",
    "eigvalsh",
    "expm",
    "inv",
    "logm",
    "low_rank",
    "lu",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "matrix_transpose",
    "outer",
    "pinv",
    "polar",
    "powm",
    "qr",
    "slogdet",
    "solve",
    "sqrtm",
    "svd",
    "svdvals",
    "svt",
    "tensordot",
    "trace",
    "vecdot",
    "vector_norm",
]

# ---------------------------------------------------------------------------------------------------- norms


def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: float = 2) -> Any:
    """vector_norm(x, /, *, axis=None, keepdims=False, ord=2) of the Python array API standard.

    The ord-norm of the entries along one axis, several, or all (None). The gradient at zero, and of an entry
    that is zero where ord < 2, is 0; that of ord=0, a count, is 0 everywhere.

    >>> import cutnn as ct
    >>> ct.grad(ct.linalg.vector_norm)(ct.asarray([3.0, 4.0]))
    array([0.6, 0.8])
    """
    if type(x) is not Traced:
        return _vector_norm_of_library(x, axis=axis, keepdims=keepdims, ord=ord)
    shape = x.shape
    if axis is None:
        x, axes = reshape(x, (-1,)), normal_axes("vector_norm", 0, 1)
        reduced = [1] * len(shape) if keepdims else []
    else:
        axes = normal_axes("vector_norm", axis, len(shape))
        reduced = [(1 if i in axes else n) for i, n in enumerate(shape) if keepdims or i not in axes]
    if ord in (math.inf, -math.inf):
        norm = abs(x).max(axis=axes) if ord > 0 else abs(x).min(axis=axes)
    else:
        norm = _finite_norm(x, axes, ord)
    return reshape(norm, tuple(reduced))


_vector_norm_of_library, _matrix_norm_of_library = map(library, ("linalg.vector_norm", "linalg.matrix_norm"))


def _finite_norm_rule(g: Any, ans: Any, x: Any, ord: float) -> Any:
    """ḡ x̄ |x|^(p-2) / norm^(p-1), written so that neither power overflows."""
    if ord == 0:
        return None
    norm = where(ans == 0, 1, ans)
    if ord != 2:
        size = abs(x)
        zero = size == 0
        g = g * where(zero, 0, (where(zero, 1, size) / norm) ** (ord - 2))
    return where(ans == 0, 0, conj(x) / norm) * g


@primitive(x=_finite_norm_rule)
def _finite_norm(x: Any, axes: tuple[int, ...], ord: float) -> Any:
    """The norm, its axes kept."""
    return namespace(x).linalg.vector_norm(x, axis=axes, keepdims=True, ord=ord)


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: float | str = "fro") -> Any:
    """matrix_norm(x, /, *, keepdims=False, ord="fro") of the Python array API standard.

    ord is "fro", "nuc" (the sum of the singular values), 2 or -2 (the largest, the smallest of them), 1 or -1
    (column sums), inf or -inf (row sums). The gradient at zero is 0; entries, sums or singular values that
    tie for the maximum share it. Raises ValueError for another ord.

    >>> import cutnn as ct
    >>> ct.grad(lambda x: ct.linalg.matrix_norm(x, ord="nuc"))(ct.zeros((2, 2)))
    array([[0., 0.],
           [0., 0.]])
    """
    if type(x) is not Traced:
        return _matrix_norm_of_library(x, keepdims=keepdims, ord=ord)
    if ord == "fro":
        return vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord in (1, -1, math.inf, -math.inf):
        values = abs(x).sum(axis=-2 if ord in (1, -1) else -1)
    elif ord in (2, -2):
        values = svdvals(x)
    elif ord != "nuc":
        raise ValueError(f"matrix_norm: ord is {ord!r}; valid are 'fro', 'nuc', 1, -1, 2, -2, inf and -inf")
    if ord == "nuc":
        norm = nuclear_norm(x)
    else:
        norm = values.max(axis=-1) if ord in (1, 2, math.inf) else values.min(axis=-1)
    return reshape(norm, (*norm.shape, 1, 1)) if keepdims else norm


# --------------------------------------------------------------------------------------------- determinants


def _det_rule(g: Any, ans: Any, x: Any) -> Any:
    if _is_well_conditioned(x):
        return _scalars(g * ans) * inv(x).mT
    return _scalars(g) * _cofactors(x)


@primitive(x=_det_rule)
def det(x: Any, /) -> Any:
    """det(x, /) of the Python array API standard: the determinant of each matrix.

    The gradient, the matrix of cofactors, is exact for singular matrices too, and so is the second
    derivative; from the third on, derivatives are exact where no singular values that are nearly 0 or equal
    meet in one matrix.

    >>> import cutnn as ct
    >>> ct.grad(ct.linalg.det)(ct.asarray([[1.0, 0.0], [0.0, 0.0]]))
    array([[0., 0.],
           [0., 1.]])
    """
    return namespace(x).linalg.det(x)


def _slogdet_rule(g: Any, ans: Any, x: Any) -> Any:
    """Of log det x = log|det x| + i θ with sign = exp(i θ); its derivative is the transposed inverse."""
    sign_bar, log_bar = g
    total = 0 if log_bar is None else log_bar
    if sign_bar is not None and x.dtype.kind == "c":
        total = total - real(sign_bar * ans[0] * 1j) * 1j  # an np.float64 after 1j would be lost to Python
    elif log_bar is None:
        return None
    return _scalars(total) * (inv(x) if _is_well_conditioned(x) else pinv(x)).mT


@primitive(x=_slogdet_rule)
def slogdet(x: Any, /) -> Any:
    """slogdet(x, /) of the Python array API standard: (sign, logabsdet) of the determinant.

    The gradient at a singular matrix, where logabsdet is -inf and has none, is that of the log of the product
    of the singular values that are not 0.
    """
    return namespace(x).linalg.slogdet(x)


def _cofactors_rule(g: Any, x: Any) -> Any:
    """Second derivatives of det, from those at a diagonal matrix: P_ij = ∏ s_k over k other than i and j."""
    xp = namespace(raw(x))
    phase, u, s, vh = _determinant_of_svd(x)
    n = s.shape[-1]
    other = 1 - xp.eye(n, dtype=s.dtype)
    pairs = _products_without(s, other[:, None, :] * other) * other
    h = adjoint(u) @ g @ adjoint(vh)
    values = (pairs @ reshape(diagonal(h), (*h.shape[:-1], 1)))[..., 0]
    return phase * conj(u) @ (from_diagonal(values, n, n, 0) - pairs * h.mT) @ conj(vh)


@primitive(x=_cofactors_rule)
def _cofactors(x: Any) -> Any:
    """The matrix of cofactors, det(x) x⁻ᵀ, of matrices that may be singular.

    With x = U S Vh it is det(U) det(Vh) conj(U) C conj(Vh), where C is diagonal, C_ii = ∏ s_k over k other
    than i.
    """
    xp = namespace(x)
    phase, u, s, vh = _determinant_of_svd(x)
    products = _products_without(s, 1 - xp.eye(s.shape[-1], dtype=s.dtype))
    return phase * (conj(u) * products[..., None, :]) @ conj(vh)


def _determinant_of_svd(x: Any) -> tuple[Any, Any, Any, Any]:
    u, s, vh = svd(x)
    return _scalars(det(u) * det(vh)), u, s, vh


def _products_without(s: Any, mask: Any) -> Any:
    """Products of those s_k that a mask, with k along its last axis, keeps."""
    s = reshape(s, (*s.shape[:-1], *[1] * (mask.ndim - 1), s.shape[-1]))
    return where(mask != 0, s, 1).prod(axis=-1)


@constant
def _is_well_conditioned(x: Any) -> bool:
    """Whether the inverse of every matrix is accurate to half of the digits."""
    xp = namespace(x)
    try:
        inverse = xp.linalg.inv(x)
    except numpy.linalg.LinAlgError:
        return False
    condition = xp.linalg.matrix_norm(x, ord=1) * xp.linalg.matrix_norm(inverse, ord=1)
    return bool(xp.all(condition < xp.finfo(x.dtype).eps ** -0.5))  # not so for nan, which CuPy may give


# --------------------------------------------------------------------------------------------------- rank


@constant
def matrix_rank(x: Any, /, *, rtol: Any = None) -> Any:
    """matrix_rank(x, /, *, rtol=None) of the Python array API standard. It has no derivative."""
    return namespace(x).linalg.matrix_rank(x, rtol=rtol)


# -------------------------------------------------------------------------------------------------- helpers


def _scalars(x: Any) -> Any:
    """One number for each matrix, with the two matrix axes."""
    return reshape(x, (*x.shape, 1, 1))
