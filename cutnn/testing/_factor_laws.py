"""The laws of factorisations, of functions of tensors, of norms and ranks: the second half of `LAWS`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cutnn import array as ct
from cutnn.algebra import StarAlgebra
from cutnn.tape import grad, jvp
from cutnn.testing._words import host
from cutnn.testing.laws import Sides, _cut, _eye, _first, _law, _near_to, _norms, _projector, size

APART = "`forward` and `inverse` do not belong together, or a complex face is taken for a real one"
REFLECTION = "the transpose, `reflect`, is not that of the transform domain"
SCALE = "`scale` is given for an M that is not c times a unitary matrix"
GRADIENT = "the gradient of `forward` or `inverse`, or that gradient's own"
SPECTRUM = "a face of half the spectrum is counted once where it stands for two"


# ---------------------------------------------------------------------------------------- factorisations


@_law("t-QR", "A = Q ★ R, Qᴴ ★ Q = I, faces of R̂ are upper triangles", "lm", APART)
def _(star: StarAlgebra, A: Any) -> Sides:
    Q, R = star.qr(A)
    yield star(Q, R), A, size(star, Q, R) + size(star, A)
    yield from _identity(star, star.transpose(Q), Q)
    yield from _is_zero(ct.tril(star.forward(R), k=-1), _norms(star)[0] * size(star, R))


@_law(
    "t-LU",
    "A = P ★ L ★ U, faces of P̂ are permutations, of L̂ unit lower triangles of small entries, of Û upper ones",
    "lm",
    APART,
)
def _(star: StarAlgebra, A: Any) -> Sides:
    P, L, U = star.lu(A)
    yield star(P, L, U), A, size(star, P, L, U) + size(star, A)
    yield from _identity(star, star.transpose(P), P)
    P_hat, L_hat, U_hat = (star.forward(T) for T in (P, L, U))
    norm = _norms(star)[0]
    yield host(P_hat), (np.abs(host(P_hat)) > 0.5) * 1.0, norm * size(star, P)
    yield from _is_zero(ct.triu(L_hat, k=1), norm * size(star, L))
    yield from _is_zero(ct.tril(U_hat, k=-1), norm * size(star, U))
    diagonal = host(ct.linalg.diagonal(L_hat))
    yield diagonal, np.ones_like(diagonal), norm * size(star, L)
    yield from _at_most(ct.abs(L_hat), 1.5, norm * size(star, L))  # pivots: √2, complex, and rounding


@_law(
    "t-Cholesky",
    "A = L ★ Lᴴ for A = B ★ Bᴴ, faces of L̂ are lower triangles of positive diagonals",
    "mm",
    REFLECTION,
    regular=True,
)
def _(star: StarAlgebra, B: Any) -> Sides:
    A = _gram(star, B)
    L = star.cholesky(A)
    L_h = star.transpose(L)
    yield star(L, L_h), A, size(star, L, L_h)
    L_hat, scale = star.forward(L), _norms(star)[0] * size(star, L)
    yield from _is_zero(ct.triu(L_hat, k=1), scale)
    diagonal = ct.linalg.diagonal(L_hat)
    yield diagonal, ct.abs(diagonal), scale


@_law(
    "eigenvalues of A = Aᴴ",
    "A ★ V = V ★ diagonal(w), Vᴴ ★ V = I, faces of ŵ are real and ascending, for A = B ★ Bᴴ - c I",
    "mm",
    REFLECTION,
)
def _(star: StarAlgebra, B: Any) -> Sides:
    A = _gram(star, B, (_largest_value(star, B) / 2) ** 2)
    w, V = star.eigh(A)
    D = star.diagonal(w)
    yield star(A, V), star(V, D), size(star, A, V) + size(star, V, D)
    yield from _identity(star, star.transpose(V), V)
    w_hat = _faces_of_tubes(star, w)
    values = np.linalg.eigvalsh(host(star.forward(A)))
    yield host(w_hat), _first(values, w_hat.shape), _grown(star) * size(star, A)


@_law(
    "eigenvalues",
    "A ★ V = V ★ diagonal(w), Σ w = trace(A), Σ w ★ w = trace(A ★ A), columns of faces of V̂ have length 1",
    "mm",
    APART,
)
def _(star: StarAlgebra, A: Any) -> Sides:
    w, V = star.eig(A)
    D = star.diagonal(w)
    yield star(A, V), star(V, D), size(star, A, V) + size(star, V, D)
    yield ct.sum(w, axis=-1), star.trace(A), size(star, A) * _grown(star)
    yield star.trace(star(D, D)), star.trace(star(A, A)), (size(star, D, D) + size(star, A, A)) * _grown(star)
    lengths = host(ct.linalg.vector_norm(star.forward(V), axis=-2))
    yield lengths, np.ones_like(lengths), _norms(star)[0] * size(star, V)


@_law(
    "polar factors",
    "A = U ★ P = Q ★ U, Uᴴ ★ U = I or U ★ Uᴴ = I, P = Pᴴ is positive semidefinite, P ★ P = Aᴴ ★ A",
    "lm",
    REFLECTION,
)
def _(star: StarAlgebra, A: Any) -> Sides:
    (U, P), left = star.polar(A), star.polar(A, side="left")
    A_h, U_h = star.transpose(A), star.transpose(U)
    yield star(U, P), A, size(star, U, P) + size(star, A)
    yield star(left.P, left.U), A, size(star, left.P, left.U) + size(star, A)
    yield from _identity(star, U_h, U) if A.shape[-2] >= A.shape[-1] else _identity(star, U, U_h)
    yield star.transpose(P), P, size(star, P) * _grown(star)
    yield star(P, P), star(A_h, A), size(star, P, P) + size(star, A_h, A)
    lowest = np.linalg.eigvalsh(host(star.forward(P)))
    yield from _at_most(-lowest, 0.0, _norms(star)[0] * size(star, P))


# --------------------------------------------------------------------- least squares and approximation


@_law(
    "least squares",
    "Aᴴ ★ (A ★ X - B) + ρ X = 0 for X = lstsq(A, B, ridge=ρ); X = A⁺ ★ B for ρ = 0",
    "lm lp",
    REFLECTION,
)
def _(star: StarAlgebra, A: Any, B: Any) -> Sides:
    X, P, kept = star.lstsq(A, B, rtol=1e-4), star.pinv(A, rtol=1e-4), _cut(star, A, 1e-4)
    kept_h = star.transpose(kept)
    yield X, star(P, B), size(star, P, B)
    residual = star(kept, X) - B
    yield from _is_zero(star(kept_h, residual), size(star, kept_h, kept, P, B) + size(star, kept_h, B))
    ridge = (_largest_value(star, A) / 3) ** 2 or 1.0
    X, A_h = star.lstsq(A, B, ridge=ridge), star.transpose(A)
    scale = size(star, A_h, A, X) + size(star, A_h, B) + ridge * size(star, X)
    yield from _is_zero(star(A_h, star(A, X) - B) + ridge * X, scale * _grown(star))


@_law(
    "Eckart-Young",
    "Â - B̂ is no shorter than Â - Â_k for any B of tubal rank k; ‖Â - Â_k‖² is the sum of σ² beyond k",
    "lm lm",
    SPECTRUM,
    alike=True,
    dear=True,
)
def _(star: StarAlgebra, A: Any, B: Any) -> Sides:
    k = max(1, min(A.shape[-2:]) - 1)
    U, S, Vh = star.svd(A, k)
    left, nearest = star(U, star.diagonal(S)), star.low_rank(A, k)
    yield nearest, star(left, Vh), size(star, left, Vh)
    highest = star.tubal_rank(nearest, rtol=1e-3)
    yield from _at_most(highest, k, 0.0)
    error, whole = _squares(star, A - nearest), _squares(star, A)
    beyond = ct.expand_dims(star.svd(A).S[..., k:], axis=-1)
    yield error, _squares(star, beyond), np.max(whole)
    direction = B / _size_of(B)
    others = star(left + _size_of(left) * direction[..., :k] / 64, Vh + direction[..., :k, :] / 64)
    for other in (others, star.low_rank(_size_of(A) * direction, k)):
        far = _squares(star, A - other)
        yield from _at_most(error - far, 0.0, np.max(far + whole))


@_law(
    "energy",
    "svd_energy keeps the fewest singular values with a share of Σ σ²; ‖Â‖² = ‖Â_kept‖² + ‖Â - Â_kept‖²",
    "lm",
    SPECTRUM,
    dear=True,
)
def _(star: StarAlgebra, A: Any) -> Sides:
    U, S, Vh, multirank, compression = star.svd_energy(A, 0.8)
    D = star.diagonal(S)
    B = star(U, D, Vh)
    whole, kept, lost = _squares(star, A), _squares(star, B), _squares(star, A - B)
    top = 8 * np.max(whole)
    yield kept + lost, whole, top
    yield from _at_most(0.8 * whole - kept, 0.0, top)
    values = np.abs(host(_faces_of_tubes(star, S + 0j)))
    held = np.arange(values.shape[-1]) < host(multirank)[..., None]
    least = np.min(np.where(held, values, np.inf), axis=tuple(range(-1 - len(star.shape), 0)), initial=np.inf)
    without = kept - 2 * np.where(least == np.inf, 0, least) ** 2  # 2: of a face and its conjugate
    yield from _at_most(np.where(kept > 0, without - 0.8 * whole, 0), 0.0, top)
    ranks = host(multirank).sum(axis=tuple(range(-len(star.shape), 0))) if star.shape else host(multirank)
    yield host(compression.implicit_rank), ranks, 0.0
    yield host(compression.relative_error) ** 2 * whole, lost, top
    yield star.compress(A, 0.8).decompress(), B, size(star, U, D, Vh)


@_law(
    "randomised SVD",
    "A = U ★ diagonal(S) ★ Vᴴ and the S of svd(A), where the rank is full",
    "lm",
    APART,
    dear=True,
)
def _(star: StarAlgebra, A: Any) -> Sides:
    U, S, Vh = star.svd_randomized(A, min(A.shape[-2:]), seed=0)
    D = star.diagonal(S)
    yield star(U, D, Vh), A, size(star, U, D, Vh) + size(star, A)
    yield S, star.svd(A).S, size(star, A) * _grown(star)


# --------------------------------------------------------------------------------- functions of tensors


@_law(
    "powers",
    "A³ = A ★ A ★ A, A⁰ = I, A⁻² = A⁻¹ ★ A⁻¹",
    "mm",
    "the identity is not that of the product, or M⁻¹ is not the inverse of M",
    regular=True,
)
def _(star: StarAlgebra, A: Any) -> Sides:
    X, eye = star.inv(A), _eye(star, A.shape[-1], A)
    yield star.power(A, 3), star(A, A, A)
    power = star.power(A, 0)
    yield power, ct.broadcast_to(eye, power.shape), size(star, eye)
    yield star.power(A, -2), star(X, X), size(star, X, X) * max(size(star, A, X), 1)


@_law(
    "exponential and roots",
    "exp(A) ★ exp(-A) = I, log(exp(A)) = A, sqrt(exp(A)) = exp(A / 2), exp(A)^0.3 = exp(0.3 A)",
    "mm",
    APART,
    dear=True,
)
def _(star: StarAlgebra, A: Any) -> Sides:
    A = _scaled(star, A)
    E, inverse = star.exp(A), star.exp(-A)
    scale = size(star, E, inverse)
    yield from _identity(star, E, inverse)
    yield star.log(E), A, scale
    yield star.sqrt(E), star.exp(A / 2), scale
    yield star.power(E, 0.3), star.exp(0.3 * A), scale


@_law(
    "functions of block matrices",
    "to_matrix(f(A)) = f(to_matrix(A)) for inverse and exp, the determinants and traces of all faces are its own",
    "mm",
    APART,
    regular=True,
    dear=True,
)
def _(star: StarAlgebra, A: Any) -> Sides:
    A, P = _scaled(star, A), np.kron(_projector(star), np.eye(A.shape[-1]))
    rest = np.eye(len(P)) - P  # nothing, but in a projected algebra, where to_matrix(A) is a block
    whole = host(star.to_matrix(A)).astype(np.result_type(A.dtype, np.float64)) + rest
    X = star.inv(A)
    yield host(star.to_matrix(X)), np.linalg.inv(whole) @ P, size(star, X) * max(size(star, A, X), 1)
    sign, logarithm = np.linalg.slogdet(whole)
    volume = np.exp(np.max(logarithm) / (math.prod(star.face_shape) * A.shape[-1]))
    determinant = sign * np.exp(logarithm - np.max(logarithm))  # that of A / volume
    faces = host(_faces_of_tubes(star, star.det(A / volume)[..., None] + 0j)).astype(complex)
    tubes = tuple(range(-1 - len(star.shape), 0))
    yield np.prod(faces, axis=tubes), determinant, size(star, A, X) * star.n
    trace = np.trace(whole - rest, axis1=-2, axis2=-1)
    faces = host(_faces_of_tubes(star, star.trace(A)[..., None] + 0j))
    yield np.sum(faces, axis=tubes), trace, size(star, A) * star.n * _grown(star)
    term = total = P
    for k in range(1, 20):
        term = term @ (whole - rest) / k
        total = total + term
    E = star.exp(A)
    yield host(star.to_matrix(E)), total, size(star, E) * _grown(star)


@_law(
    "trace and determinant",
    "trace(A ★ B) = trace(B ★ A), det(A ★ B) = det(A) ★ det(B), det(exp(A)) = exp(trace(A))",
    "mm mm",
    APART,
    regular=True,
)
def _(star: StarAlgebra, A: Any, B: Any) -> Sides:
    A, B = _scaled(star, A), _scaled(star, B)
    yield star.trace(star(A, B)), star.trace(star(B, A)), size(star, A, B)
    a, b, product = (ct.expand_dims(star.det(T), axis=(-2, -1)) for T in (A, B, star(A, B)))
    grown = _grown(star) * A.shape[-1]
    yield star(a, b), product, (size(star, a, b) + 1) * grown
    values = np.linalg.det(host(star.forward(A)))
    yield host(star.forward(a))[..., 0, 0], values, _norms(star)[0] * (size(star, a) + 1) * grown
    trace = star.exp(ct.expand_dims(star.trace(A), axis=(-2, -1)))
    yield star.det(star.exp(A)), trace[..., 0, 0], size(star, trace) * grown


# ------------------------------------------------------------------------------------- norms and ranks


@_law(
    "spectral norm",
    "‖A‖₂ = max σ, ‖A ★ B‖₂ ≤ ‖A‖₂ ‖B‖₂, ‖A + C‖₂ ≤ ‖A‖₂ + ‖C‖₂; = ‖to_matrix(A)‖₂, ‖A ★ B‖ ≤ ‖A‖₂ ‖B‖ if M Mᴴ = c I",
    "lm mp",
    SCALE,
)
def _(star: StarAlgebra, A: Any, B: Any) -> Sides:
    C, (a, b) = ct.flip(A, axis=-1) / 2, (host(star.spectral_norm(T)) for T in (A, B))
    AB, norm = star(A, B), _norms(star)[0]
    faces = np.linalg.norm(host(star.forward(A)), 2, axis=(-2, -1))
    yield (
        a,
        np.max(faces, axis=tuple(range(-len(star.shape), 0))) if star.shape else faces,
        norm * size(star, A),
    )
    yield from _at_most(host(star.spectral_norm(AB)) - a * b, 0.0, norm * size(star, A, B))
    both = host(star.spectral_norm(A + C))
    yield from _at_most(both - a - host(star.spectral_norm(C)), 0.0, norm * size(star, A))
    if _is_unitary(star):
        yield a, np.linalg.norm(host(star.to_matrix(A)), 2, axis=(-2, -1)), size(star, A) * _grown(star)
        yield from _at_most(host(star.norm(AB)) - a * host(star.norm(B)), 0.0, norm * size(star, A, B))


@_law(
    "nuclear norm",
    "⟨A, U⟩ = ‖A‖_* for the polar U, |⟨A, B⟩| ≤ ‖A‖_* ‖B‖₂, ‖A + B‖_* ≤ ‖A‖_* + ‖B‖_*, where M Mᴴ = c I",
    "lm lm",
    SCALE + "; " + SPECTRUM,
    alike=True,
)
def _(star: StarAlgebra, A: Any, B: Any) -> Sides:
    if not _is_unitary(star):
        return
    a, b = (host(star.nuclear_norm(T)) for T in (A, B))
    axes, terms = tuple(range(-2 - len(star.shape), 0)), A.shape[-1] * A.shape[-2] * star.n
    U, scale = star.polar(A).U, terms * _grown(star)
    yield np.sum(host(ct.conj(U) * A).real, axis=axes), a, scale * size(star, A)
    inner = np.abs(np.sum(host(ct.conj(A) * B), axis=axes))
    yield from _at_most(inner - a * host(star.spectral_norm(B)), 0.0, scale * size(star, A, B))
    both = host(star.nuclear_norm(A + B))
    yield from _at_most(both - a - b, 0.0, scale * (size(star, A) + size(star, B)))


@_law(
    "threshold of singular values",
    "‖A - X‖₂ ≤ τ and ⟨A - X, X⟩ = τ ‖X‖_*, so that X is nearest to A at that price of ‖X‖_*, where M Mᴴ = c I",
    "lm",
    SCALE,
)
def _(star: StarAlgebra, A: Any) -> Sides:
    if not _is_unitary(star):
        return
    tau = _largest_value(star, A) / 3
    X, scale = star.singular_value_threshold(A, tau), _grown(star) * size(star, A)
    yield from _at_most(star.spectral_norm(A - X), tau, scale)
    axes, terms = tuple(range(-2 - len(star.shape), 0)), A.shape[-1] * A.shape[-2] * star.n
    inner = np.sum(host(ct.conj(X) * (A - X)).real, axis=axes)
    yield inner, tau * host(star.nuclear_norm(X)), scale * terms * size(star, A)
    yield star.singular_value_threshold(A, 0.0), A, scale


@_law(
    "ranks",
    "the multirank counts σ of each face, for A and Aᴴ; the tubal rank is its maximum, the implicit rank its sum",
    "lm",
    SPECTRUM,
)
def _(star: StarAlgebra, A: Any) -> Sides:
    tubes = tuple(range(-1 - len(star.shape), 0))
    every_second = np.arange(math.prod(star.face_shape)).reshape(*star.face_shape, 1, 1) % 2 == 0
    A_hat = star.forward(A + 0j)
    for T in (A, star.inverse(ct.where(_near_to(every_second, A_hat) != 0, A_hat, 0 * A_hat))):
        values = np.linalg.svd(host(star.forward(T + 0j)), compute_uv=False)
        ranks = np.sum(values > 1e-4 * np.max(values, axis=tubes, keepdims=True), axis=-1)
        numbers = (star.multirank, star.tubal_rank, star.implicit_rank, star.average_rank)
        whole = [f(ranks, axis=tubes[1:]) if tubes[1:] else ranks for f in (np.max, np.sum, np.mean)]
        for number, expected in zip(numbers, [ranks, *whole], strict=True):
            yield host(number(T, rtol=1e-4)), expected, 0.0
    yield host(star.multirank(star.transpose(T), rtol=1e-4)), ranks, 0.0


@_law(
    "condition number",
    "cond(A) = ‖A‖₂ ‖A⁻¹‖₂ = cond(A⁻¹)",
    "mm",
    "M⁻¹ is not the inverse of M",
    regular=True,
)
def _(star: StarAlgebra, A: Any) -> Sides:
    X = star.inv(A)
    condition, scale = star.cond(A), size(star, A, X) * _grown(star)
    scale = scale if np.all(host(condition) < np.inf) else 0.0
    yield host(condition), host(star.spectral_norm(A)) * host(star.spectral_norm(X)), scale
    yield condition, star.cond(X), scale


# ------------------------------------------------------------------------------------------- gradients


@_law(
    "gradients of functions",
    "S ★ dS + dS ★ S = V for S² = A, dexp(log A) = V, d det A = det A ★ trace(A⁻¹ ★ V), the derivative of A⁺",
    "mm mm",
    GRADIENT,
    regular=True,
    alike=True,
    dear=True,
)
def _(star: StarAlgebra, A: Any, V: Any) -> Sides:
    A, V = _scaled(star, A), _scaled(star, V)
    X, E = star.inv(A), star.exp(A)
    grown, moved = _grown(star) ** 2, size(star, V)
    S, dS = jvp(star.sqrt, (E,), (V,))
    yield star(S, dS) + star(dS, S), V + 0 * S, (size(star, S, dS) + moved) * grown
    L, dL = jvp(star.log, (E,), (V,))
    yield jvp(star.exp, (L,), (dL,))[1], V + 0 * L, (size(star, E, dL) + moved) * grown
    d, dd = jvp(star.det, (A,), (V,))
    d, dd, trace = (ct.expand_dims(t, axis=(-2, -1)) for t in (d, dd, star.trace(star(X, V))))
    yield dd, star(d, trace), size(star, d, X, V) * grown * size(star, A, X)
    T, W = ct.concat([A, A / 2], axis=-2), ct.concat([V, ct.flip(V, axis=-1)], axis=-2)
    P, dP = jvp(star.pinv, (T,), (W,))
    P_h, W_h, T_h = (star.transpose(x) for x in (P, W, T))
    expected = star(P, P_h, W_h) - star(P, P_h, W_h, T, P) - star(P, W, P)  # I - P ★ T = 0
    yield dP, expected, size(star, P, W, P) * size(star, T_h, P_h) ** 2 * grown


@_law(
    "gradients of factors",
    "product rules of A = Q ★ R, U ★ P, L ★ Lᴴ; low_rank has a projector for derivative, ‖A‖_* the gradient U",
    "mm mm",
    GRADIENT,
    regular=True,
    alike=True,
    dear=True,
)
def _(star: StarAlgebra, A: Any, V: Any) -> Sides:
    A, V = _scaled(star, A), _scaled(star, V)
    X, moved = star.inv(A), size(star, V)
    grown = _grown(star) ** 2 * max(size(star, A, X), 1)
    for f in (star.qr, star.polar):
        (Q, R), (dQ, dR) = jvp(f, (A,), (V,))
        yield star(dQ, R) + star(Q, dR), V + 0 * Q, (size(star, dQ, R) + size(star, Q, dR) + moved) * grown
        turn = star(star.transpose(Q), dQ)
        yield from _is_zero(turn + star.transpose(turn), (size(star, Q, dQ) + size(star, X, V)) * grown)
    B, W = _gram(star, A), V + star.transpose(V)
    L, dL = jvp(star.cholesky, (B,), (W,))
    half = star(dL, star.transpose(L))
    yield half + star.transpose(half), W, (size(star, dL, L) + size(star, W)) * grown**2
    k = max(1, A.shape[-1] - 1)
    T = star.low_rank(A, k)
    U, _, Vh = star.svd(T, k)
    inside = V - star(U, star.transpose(U), V)
    inside = V - (inside - star(inside, star.transpose(Vh), Vh))
    yield jvp(lambda T: star.low_rank(T, k), (T,), (V,))[1], inside + 0 * T, moved * grown**2
    if _is_unitary(star):
        slope = grad(lambda A: ct.sum(star.nuclear_norm(A)))(A)
        yield slope, star.polar(A).U, _norms(star)[0] * grown


# --------------------------------------------------------------------------------------------- helpers


def _identity(star: StarAlgebra, first: Any, second: Any) -> Sides:
    """first ★ second = I."""
    product = star(first, second)
    eye = _eye(star, product.shape[-1], product)
    yield product, ct.broadcast_to(eye, product.shape), size(star, first, second)


def _is_zero(x: Any, scale: float) -> Sides:
    yield x, 0 * x, scale


def _at_most(x: Any, bound: float, scale: Any) -> Sides:
    x = host(x)
    yield np.maximum(x, bound), np.full_like(x, bound), scale


def _grown(star: StarAlgebra) -> float:
    """How much a transform and its inverse let rounding errors grow."""
    return math.prod(_norms(star))


def _is_unitary(star: StarAlgebra) -> bool:
    return all(t.scale is not None for t in star.transforms)


def _faces_of_tubes(star: StarAlgebra, tubes: Any) -> Any:
    """The transforms of tubes (*batch, *shape, k)."""
    return star.forward(ct.expand_dims(tubes, axis=-1))[..., 0]


def _squares(star: StarAlgebra, A: Any) -> np.ndarray:
    """‖Â‖² of each tensor of a batch, over the whole spectrum."""
    faces = host(star.forward(A + 0j))
    squares: np.ndarray = np.sum(np.abs(faces) ** 2, axis=tuple(range(-2 - len(star.shape), 0)))
    return squares


def _size_of(A: Any) -> float:
    return float(np.max(np.abs(host(A)), initial=0)) or 1.0


def _largest_value(star: StarAlgebra, A: Any) -> float:
    """The largest singular value of all faces, of all tensors of a batch."""
    return float(np.max(np.linalg.norm(host(star.forward(A)), 2, axis=(-2, -1)), initial=0))


def _scaled(star: StarAlgebra, A: Any) -> Any:
    """A over its largest singular value."""
    return A / (_largest_value(star, A) or 1.0)


def _gram(star: StarAlgebra, B: Any, c: float = 0.0) -> Any:
    """B ★ Bᴴ - c I, its own transpose to rounding whatever M."""
    A = star(B, star.transpose(B))
    A = A - c * _eye(star, A.shape[-1], A)
    return (A + star.transpose(A)) / 2
