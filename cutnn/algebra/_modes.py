"""Matrices applied to the tubes of a tensor: A ×ₖ M, the mode product, with its derivatives.

Tube axes stand before the two matrix axes and arrays are contiguous, so a mode product is a reshape that
copies nothing and one matrix product. `axis` counts from the end (-3 is the last tube axis), whatever batch
axes lead. The matrices are constants here.

Two tensors are two products: one for both needs them side by side, and with that copy tubes of 32 in 9216 and 3072
columns took 1.6 times as long, by MKL and by OpenBLAS.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cutnn import array as ct
from cutnn.device import namespace
from cutnn.tape import primitive

RawMap = Callable[[Any, Any], Any]  # (array of shape (before, n, after), its library) -> array


def _mode_rule(g: Any, M: Any, axis: int) -> Any:
    return mode_product(g, M.T, axis)


def _matrix_rule(g: Any, A: Any, axis: int) -> Any:
    """Entry (k, j) is the sum over all tubes of entry k of the cotangent times entry j of the tube."""
    lengths = (A.shape[:axis], A.shape[len(A.shape) + axis + 1 :])
    before, after = map(math.prod, lengths)
    flat_g = ct.reshape(g, (before, g.shape[axis], after))
    flat_A = ct.reshape(A, (before, A.shape[axis], after))
    return ct.tensordot(flat_g, flat_A, axes=((0, 2), (0, 2)))


@primitive(A=_mode_rule, M=_matrix_rule)
def mode_product(A: Any, M: Any, axis: int) -> Any:
    """M applied to every tube of A along `axis`; A and M are of one dtype."""
    if _is_swapped(A):  # a transposed weight: a copy would cost as much as the product
        return mode_product(A.swapaxes(-1, -2), M, axis).swapaxes(-1, -2)
    shape, at = A.shape, A.ndim + axis
    before, after = math.prod(shape[:at]), math.prod(shape[at + 1 :])
    if after == 1:
        product = ct.matmul(A.reshape(before, shape[at]), M.T)
    elif before == 1:
        product = ct.matmul(M, A.reshape(shape[at], after))
    else:
        product = ct.matmul(M, A.reshape(before, shape[at], after))
    return product.reshape(*shape[:at], M.shape[0], *shape[at + 1 :])


def _to_complex_rule(g: Any, P: Any, axis: int) -> Any:
    return to_real(g, _negate_second_half(P).T, axis)


@primitive(A=_to_complex_rule)
def to_complex(A: Any, P: Any, axis: int) -> Any:
    """F applied to every tube of a real A, for a complex F whose parts P stacks: P = [Re F; Im F]."""
    parts = mode_product(A, P, axis)
    first, second = _halves(P.shape[0] // 2, parts.ndim + axis)
    xp = namespace(parts)
    result = xp.empty_like(parts[first], dtype=_complex_of(parts.dtype, xp))
    result.real = parts[first]
    result.imag = parts[second]
    return result


def _to_real_rule(g: Any, Q: Any, axis: int) -> Any:
    return to_complex(g, _negate_second_half(Q.T), axis)


@primitive(A=_to_real_rule)
def to_real(A: Any, Q: Any, axis: int) -> Any:
    """The real part of B applied to every tube of a complex A, for a complex B with Q = [Re B, -Im B]."""
    # Half spectra left as [Re; Im] between transforms, multiplied by Gauss's three real products, are 5 to 30 % faster
    # by themselves, 32 faces of 96 × 96 by 96 × 32, but a small part beside a large one loses its digits (Higham 1992):
    # the laws do not hold. Blocks of columns that stay in the cache, here and in `to_complex`, gain nothing.
    h, at, xp = A.shape[axis], A.ndim + axis, namespace(A)
    parts = xp.empty((*A.shape[:at], 2 * h, *A.shape[at + 1 :]), dtype=A.real.dtype)
    first, second = _halves(h, at)
    parts[first] = A.real  # by concat the whole takes 3 to 15 % longer, 32 faces of 28 × 32 to 256 × 256
    parts[second] = A.imag
    return mode_product(parts, Q, axis)


def _orthonormal_rule(g: Any, pair: tuple[RawMap, RawMap], axis: int) -> Any:
    return orthonormal(g, pair[::-1], axis)


@primitive(A=_orthonormal_rule)
def orthonormal(A: Any, pair: tuple[RawMap, RawMap], axis: int) -> Any:
    """A fast real orthonormal transform of every tube; `pair` is it and its inverse, also its transpose."""
    shape, at, xp = A.shape, A.ndim + axis, namespace(A)
    flat = A.reshape(math.prod(shape[:at]), shape[at], math.prod(shape[at + 1 :]))
    if A.dtype.kind != "c":
        return pair[0](flat, xp).reshape(shape)
    result = xp.empty_like(flat)
    result.real = pair[0](flat.real, xp)
    result.imag = pair[0](flat.imag, xp)
    return result.reshape(shape)


def _is_swapped(A: Any) -> bool:
    """Whether A is a contiguous array with its matrix axes swapped."""
    return not A.flags.c_contiguous and A.swapaxes(-1, -2).flags.c_contiguous


def _halves(h: int, axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    before = (slice(None),) * axis
    return (*before, slice(h)), (*before, slice(h, None))


def _negate_second_half(P: Any) -> Any:
    """[Re; Im] to [Re; -Im]: what the transpose of a map between real and complex tubes needs."""
    P = P.copy()
    P[P.shape[0] // 2 :] *= -1
    return P


def _complex_of(dtype: Any, xp: Any) -> Any:
    return xp.result_type(dtype, xp.complex64)
