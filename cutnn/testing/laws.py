"""The laws of an algebra as a table: name, formula, the function that computes both sides, where to look if it fails.

A law is tested by `cutnn.testing.check_algebra` on tensors whose shapes its `operands` name by letters. Its function
takes the algebra and those tensors, and returns the two sides, (left, right), or yields several such pairs. Arrays
are compared entry by entry, up to rounding; anything else (a dtype, a shape) must be equal. A third entry is the size
that rounding is relative to: that of the product of all operands, `size(star, *tensors)`, unless given.

The laws here take no road twice: `to_matrix` is built from the matrices M and M⁻¹ alone, and derivatives of linear
maps are compared by the adjoint identity Re⟨G, f(V)⟩ = Re⟨f*(G), V⟩, exactly and without differences.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cutnn import array as ct
from cutnn.algebra import StarAlgebra
from cutnn.device import device_of, namespace, to_device
from cutnn.tape import jvp, vjp
from cutnn.testing._words import host

__all__ = ["LAWS", "Law", "size"]

Sides = Iterator[tuple[Any, ...]]


@dataclass(frozen=True)
class Law:
    """A law of an algebra: what it says, and how both sides are computed.

    `function(star, *tensors)` returns or yields (left, right) or (left, right, size). `operands` name the rows and
    columns of the tensors by letters, "lm mp" for two that multiply; equal letters are equal numbers, and a digit is
    itself. With `regular` square tensors are well conditioned, with `alike` all have one dtype and one batch.
    `look` says what is at fault where the law fails. A `dear` one is tried on every third example.

    >>> from cutnn import algebra, testing
    >>> commute = testing.Law("tubes commute", "a ★ b = b ★ a", lambda star, a, b: (star(a, b), star(b, a)), "11 11")
    >>> report = testing.check_algebra(algebra.dct(4), laws=["identity", commute])  # or [*testing.LAWS, commute]
    >>> [row.law.name for row in report.rows]
    ['identity', 'tubes commute']
    """

    name: str
    formula: str
    function: Callable[..., Any]
    operands: str = "lm mp"
    regular: bool = False
    alike: bool = False
    look: str = ""
    dear: bool = False


LAWS: dict[str, Law] = {}
"""The laws that `check_algebra` tests, by name, in the order in which it does."""


def size(star: StarAlgebra, *tensors: Any) -> float:
    """A bound of the entries of a product of tensors: ‖M⁻¹‖ Π ‖M‖ √(l m) max |T|, in the maximum row sum.

    Rounding of such a product is some eps times it, however the terms cancel.

    >>> from cutnn import algebra, testing
    >>> star = algebra.fft(4)
    >>> A, B = star.random(3, 2, seed=0), star.random(2, 3, seed=1)
    >>> float(abs(star(A, B)).max()) <= testing.size(star, A, B)
    True
    """
    forward, inverse = _norms(star)
    bound = inverse
    for T in tensors:
        plain = host(T)
        bound *= forward * math.sqrt(math.prod(plain.shape[-2:])) * float(np.max(np.abs(plain), initial=0))
    return bound


@functools.lru_cache(maxsize=8)
def _norms(star: StarAlgebra) -> tuple[float, float]:
    """‖M‖ and ‖M⁻¹‖, maximum row sums, from the matrix alone."""
    forward, inverse = 1.0, 1.0
    for transform in star.transforms:
        M = transform.matrix()
        forward *= float(np.linalg.norm(M, np.inf))
        inverse *= float(np.linalg.norm(np.linalg.pinv(M), np.inf))
    return forward, inverse


def _law(
    name: str,
    formula: str,
    operands: str,
    look: str,
    regular: bool = False,
    alike: bool = False,
    dear: bool = False,
) -> Any:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        LAWS[name] = Law(name, formula, function, operands, regular, alike, look, dear)
        return function

    return add


# ------------------------------------------------------------------------------------- transforms of tubes


@_law(
    "round trip",
    "M⁻¹ (M a) = a for every tube",
    "lm",
    "`inverse` of a transform does not undo its `forward`: another scale, another order of faces, or a conjugate",
)
def _(star: StarAlgebra, A: Any) -> Sides:
    yield star.inverse(star.forward(A)), A, size(star, A)
    A_hat = star.forward(A)
    yield star.forward(star.inverse(A_hat)), A_hat, _norms(star)[0] * size(star, A)


@_law(
    "inverse matrix",
    "M M⁻¹ = I, and M Mᴴ = c I where a scale c is given",
    "11",
    "`inverse_matrix` or `scale` of a transform does not belong to its `matrix`",
)
def _(star: StarAlgebra, A: Any) -> Sides:
    for t in star.transforms:
        M, eye = t.matrix(), np.eye(t.faces)
        condition = float(np.linalg.norm(M, np.inf) * np.linalg.norm(np.linalg.pinv(M), np.inf))
        yield M @ t.inverse_matrix(), eye, condition
        if t.scale is not None:
            yield M @ M.conj().T / t.scale, eye, condition


@_law(
    "matrix of the transform",
    "forward(A) = M applied to every tube, the first faces of it where half the spectrum is kept",
    "lm",
    "`forward` of a transform and its `matrix` are two different maps",
)
def _(star: StarAlgebra, A: Any) -> Sides:
    expected = host(A).astype(np.result_type(A.dtype, np.float64))
    for k, t in enumerate(star.transforms):
        axis = k - len(star.shape) - 2
        expected = np.moveaxis(np.tensordot(t.matrix(), expected, axes=(1, axis)), 0, axis)
    A_hat = host(star.forward(A))
    yield A_hat, _first(expected, A_hat.shape), _norms(star)[0] * size(star, A)


@_law(
    "linearity",
    "M (A - 3 B) = M A - 3 M B, and so back",
    "lm lm",
    "a transform adds something, clips, takes a magnitude or rounds",
    alike=True,
)
def _(star: StarAlgebra, A: Any, B: Any) -> Sides:
    A_hat, B_hat = star.forward(A), star.forward(B)
    total = size(star, A) + 3 * size(star, B)
    yield star.forward(A - 3 * B), A_hat - 3 * B_hat, _norms(star)[0] * total
    yield star.inverse(A_hat - 3 * B_hat), star.inverse(A_hat) - 3 * star.inverse(B_hat), total


# ----------------------------------------------------------------------------------------- the product


@_law(
    "block matrix",
    "unfold(A ★ B) = to_matrix(A) unfold(B)",
    "lm mp",
    "`forward` or `inverse` of a transform is not what its `matrix` and `inverse_matrix` say",
)
def _(star: StarAlgebra, A: Any, B: Any) -> Sides:
    yield star.unfold(star(A, B)), ct.matmul(star.to_matrix(A), star.unfold(B))


@_law(
    "associativity",
    "(A ★ B) ★ C = A ★ (B ★ C) = A ★ B ★ C",
    "lm mp pq",
    "M⁻¹ is not the inverse of M, so that going to and fro changes the tensor",
)
def _(star: StarAlgebra, A: Any, B: Any, C: Any) -> Sides:
    right = star(A, star(B, C))
    scale = size(star, A, B, C) * math.prod(_norms(star))  # two round trips
    yield star(star(A, B), C), right, scale
    yield star(A, B, C), right, scale


@_law(
    "distributivity",
    "A ★ (B + C) = A ★ B + A ★ C, (B + C)ᴴ ★ Aᴴ = Bᴴ ★ Aᴴ + Cᴴ ★ Aᴴ",
    "lm mp mp",
    "a transform is not linear",
    alike=True,
)
def _(star: StarAlgebra, A: Any, B: Any, C: Any) -> Sides:
    scale = size(star, A, B) + size(star, A, C)
    yield star(A, B + C), star(A, B) + star(A, C), scale
    A, B, C = (ct.matrix_transpose(T) for T in (A, B, C))
    yield star(B + C, A), star(B, A) + star(C, A), scale


@_law(
    "scalars",
    "(2 A) ★ B = A ★ (2 B) = 2 (A ★ B)",
    "lm mp",
    "a transform is not linear, or scales by what it is given",
)
def _(star: StarAlgebra, A: Any, B: Any) -> Sides:
    twice = 2 * star(A, B)
    yield star(2 * A, B), twice
    yield star(A, 2 * B), twice


@_law(
    "identity",
    "I ★ A = A = A ★ I, Iᴴ = I, M I is a stack of identity matrices, to_matrix(I) = I",
    "lm",
    "`identity_tube` is not M⁻¹ (1, ..., 1), or M⁻¹ is scaled: a factor n or √n of a Fourier transform, say",
)
def _(star: StarAlgebra, A: Any) -> Sides:
    left, right = (_eye(star, k, A) for k in A.shape[-2:])
    yield star(left, A), A, size(star, left, A)
    yield star(A, right), A, size(star, A, right)
    faces = star.forward(right)
    yield (
        faces,
        _near_to(np.broadcast_to(np.eye(A.shape[-1]), faces.shape), faces),
        size(star, right) * _norms(star)[0],
    )
    grown = size(star, right) * math.prod(_norms(star))
    yield star.transpose(right), right, grown
    matrix = star.to_matrix(right)
    expected = np.kron(_projector(star), np.eye(A.shape[-1]))
    yield matrix, _near_to(expected, matrix), grown * _norms(star)[0]


@_law(
    "mixed operands",
    "A ★ (B + i C) = A ★ B + i (A ★ C) for real A, B, C",
    "lm mp mp",
    "a transform loses the imaginary part, or takes half the spectrum of a complex tensor",
    alike=True,
)
def _(star: StarAlgebra, A: Any, B: Any, C: Any) -> Sides:
    A, B, C = (ct.real(T) for T in (A, B, C))
    expected = star(A, B) + 1j * star(A, C)
    scale = size(star, A, B) + size(star, A, C)
    yield star(A, B + 1j * C), expected, scale
    yield star(A + 0j, B + 1j * C), expected, scale


# --------------------------------------------------------------------------------------- the transpose


@_law(
    "transpose twice",
    "(Aᴴ)ᴴ = A",
    "lm",
    "`reflect` of a transform is not its own inverse up to conjugation",
)
def _(star: StarAlgebra, A: Any) -> Sides:
    yield star.transpose(star.transpose(A)), A, size(star, A) * math.prod(_norms(star))


@_law(
    "transpose of a product",
    "(A ★ B)ᴴ = Bᴴ ★ Aᴴ",
    "lm mp",
    "`reflect` is not M⁻¹ conj(M), which takes the transpose to the transform domain",
)
def _(star: StarAlgebra, A: Any, B: Any) -> Sides:
    A_h, B_h = star.transpose(A), star.transpose(B)
    scale = size(star, A, B) + size(star, A_h, B_h)
    yield star.transpose(star(A, B)), star(B_h, A_h), scale * math.prod(_norms(star))


@_law(
    "transpose of faces",
    "each face of the transform of Aᴴ is the conjugate transpose of that of Â",
    "lm",
    "`reflect` is not M⁻¹ conj(M)",
)
def _(star: StarAlgebra, A: Any) -> Sides:
    A_hat, A_h = star.forward(A), star.transpose(A)
    scale = _norms(star)[0] * (size(star, A) + size(star, A_h))
    yield star.forward(A_h), ct.matrix_transpose(ct.conj(A_hat)), scale


@_law(
    "adjoint",
    "⟨A ★ B, C⟩ = ⟨B, Aᴴ ★ C⟩, to_matrix(Aᴴ) = to_matrix(A)ᴴ and ‖Â‖² = c ‖A‖², where M Mᴴ = c I",
    "lm mp lp",
    "`scale` is given for an M that is not c times a unitary matrix, or `reflect` is wrong",
    alike=True,
)
def _(star: StarAlgebra, A: Any, B: Any, C: Any) -> Sides:
    if star.scale is not None:
        A_h = star.transpose(A)
        scale = _length(C) * (size(star, A, B) + size(star, A_h, B)) * star.n * B.shape[-1] * A.shape[-2]
        yield _inner(star(A, B), C), _inner(B, star(A_h, C)), scale
        adjoint = ct.matrix_transpose(ct.conj(star.to_matrix(A)))
        yield star.to_matrix(A_h), adjoint, size(star, A_h) * math.prod(_norms(star))
        c, whole = star.scale, star.forward(A + 0j)
        yield ct.sum(ct.abs(whole) ** 2), c * ct.sum(ct.abs(A) ** 2), c * _length(A) ** 2


# ------------------------------------------------------------------------ inverses and factorisations


@_law(
    "inverse",
    "A⁻¹ ★ A = I = A ★ A⁻¹, (A ★ B)⁻¹ = B⁻¹ ★ A⁻¹",
    "mm mm",
    "the identity is not that of the product, or M⁻¹ is not the inverse of M",
    regular=True,
)
def _(star: StarAlgebra, A: Any, B: Any) -> Sides:
    X, Y, eye = star.inv(A), star.inv(B), _eye(star, A.shape[-1], A)
    for product in (star(A, X), star(X, A)):
        yield product, ct.broadcast_to(eye, product.shape), size(star, A, X)
    grown = size(star, A, X) * size(star, B, Y)
    yield star.inv(star(A, B)), star(Y, X), size(star, X, Y) * max(grown, 1)


@_law(
    "solution",
    "A ★ solve(A, B) = B, solve(A, B) = A⁻¹ ★ B = solve(A, B + 0 i)",
    "mm mp",
    "M⁻¹ is not the inverse of M",
    regular=True,
)
def _(star: StarAlgebra, A: Any, B: Any) -> Sides:
    X, inverse = star.solve(A, B), star.inv(A)
    product = star(A, X)
    yield product, ct.broadcast_to(B, product.shape), size(star, A, inverse, B)
    yield X, star(inverse, B), size(star, inverse, A, inverse, B)
    yield star.solve(A, B + 0j), X, size(star, inverse, A, inverse, B)


@_law(
    "Moore-Penrose",
    "A ★ A⁺ ★ A = A, A⁺ ★ A ★ A⁺ = A⁺, A ★ A⁺ and A⁺ ★ A are their own transposes",
    "lm",
    "`forward` and `inverse` do not belong together, or a complex face is taken for a real one",
)
def _(star: StarAlgebra, A: Any) -> Sides:
    P = star.pinv(A, rtol=1e-4)
    grown = size(star, A, P) + 1
    kept = _cut(star, A, 1e-4)
    yield star(A, P, A), kept, size(star, A) * grown
    yield star(P, A, P), P, size(star, P) * grown
    for product in (star(A, P), star(P, A)):
        yield star.transpose(product), product, grown * math.prod(_norms(star))


@_law(
    "t-SVDM",
    "A = U ★ diagonal(S) ★ Vᴴ",
    "lm",
    "`forward` and `inverse` do not belong together",
)
def _(star: StarAlgebra, A: Any) -> Sides:
    U, S, Vh = star.svd(A)
    D = star.diagonal(S)
    yield star(U, D, Vh), A, size(star, U, D, Vh) + size(star, A)


@_law(
    "unitary factors",
    "Uᴴ ★ U = I = Vᴴ ★ V",
    "lm",
    "the transpose is not that of the transform domain, or the identity is not that of the product",
)
def _(star: StarAlgebra, A: Any) -> Sides:
    U, _, Vh = star.svd(A)
    for first, second in ((star.transpose(U), U), (Vh, star.transpose(Vh))):
        product = star(first, second)
        eye = _eye(star, product.shape[-1], product)
        yield product, ct.broadcast_to(eye, product.shape), size(star, first, second)


@_law(
    "singular values",
    "each face of Ŝ holds the singular values of that face of Â: real, not negative, falling",
    "lm",
    "M as the transform applies it is not its `matrix`, or a complex face is taken for a real one",
)
def _(star: StarAlgebra, A: Any) -> Sides:
    S = star.svd(A).S
    S_hat = star.forward(ct.expand_dims(S, axis=-1))[..., 0]
    values = np.linalg.svd(host(star.forward(A)), compute_uv=False)
    yield host(S_hat), _first(values, S_hat.shape), size(star, A) * math.prod(_norms(star)) * _norms(star)[0]


# ------------------------------------------------------------------------- tubal functions and norms


@_law(
    "tubal functions",
    "apply(z ↦ z, a) = a, apply(z ↦ z² - 2, a) = a ★ a - 2 I, apply(f ∘ f) = apply(f) ∘ apply(f)",
    "11",
    "M⁻¹ is not the inverse of M, or the identity is not M⁻¹ (1, ..., 1)",
)
def _(star: StarAlgebra, a: Any) -> Sides:
    one, grown = _eye(star, 1, a), math.prod(_norms(star))
    yield star.apply(lambda z: z, a), a, size(star, a)
    square = star(a, a)
    yield star.apply(lambda z: z * z - 2, a), square - 2 * one, size(star, a, a) + 2 * size(star, one)
    square = star.apply(lambda z: z * z, a)
    yield (
        star.apply(lambda z: z * z, square),
        star.apply(lambda z: z * z * z * z, a),
        size(star, a, a, a, a) * grown,
    )


@_law(
    "norm",
    "‖A‖² = Σ |a|², ‖2 A‖ = 2 ‖A‖, ‖A + B‖ ≤ ‖A‖ + ‖B‖",
    "lm lm",
    "the norm is taken over other axes than tubes, rows and columns",
    alike=True,
)
def _(star: StarAlgebra, A: Any, B: Any) -> Sides:
    plain, norm = host(A), star.norm(A)
    entries = plain.reshape(*plain.shape[: plain.ndim - 2 - len(star.shape)], -1)
    yield host(norm), np.linalg.norm(entries, axis=-1), _length(A)
    yield star.norm(2 * A), 2 * norm, _length(A)
    excess = star.norm(A + B) - norm - star.norm(B)
    yield ct.maximum(excess, 0 * excess), 0 * excess, _length(A) + _length(B)


# ------------------------------------------------------------- batches, dtypes, devices, operands as they were


@_law(
    "batches",
    "a function of a batch = the batch of its values",
    "mm mp",
    "a transform counts its axis from the front, or squeezes or transposes an axis of a batch",
    alike=True,
)
def _(star: StarAlgebra, A: Any, B: Any) -> Sides:
    A, B = (ct.stack([T, 2 * T, T - ct.flip(T, axis=-1) / 4]) for T in (A, B))
    for f, operands in (
        (star, (A, B)),
        (star.forward, (A,)),
        (lambda T: star.inverse(star.forward(T)), (B,)),
        (star.transpose, (B,)),
        (star.norm, (B,)),
        (star.to_matrix, (B,)),
    ):
        whole = f(*operands)
        lead = whole.ndim
        for k in range(3):
            one = f(*[T[k] for T in operands])
            got = whole[k] if lead == one.ndim + 1 else whole
            yield got, one, _norms(star)[0] * (size(star, *operands) + sum(size(star, T) for T in operands))


@_law(
    "dtypes",
    "float32 stays float32, real stays real where the algebra has real products, complex stays complex",
    "mm mm",
    "a constant in double precision (float64 leak), or a complex result that is not made real again (complex leak)",
    regular=True,
    alike=True,
)
def _(star: StarAlgebra, A: Any, B: Any) -> Sides:
    same = np.dtype(A.dtype if star.real_products else np.result_type(A.dtype, np.complex64))
    real = np.dtype(A.real.dtype)
    transformed = A.dtype if all(t.real for t in star.transforms) else np.result_type(A.dtype, np.complex64)
    for name, array, expected in (
        ("the transform", star.forward(A), np.dtype(transformed)),
        ("the inverse transform", star.inverse(star.forward(A)), same),
        ("a product", star(A, B), same),
        ("the transpose", star.transpose(A), A.dtype if all(t.real for t in star.transforms) else same),
        ("the identity", star.eye(2, dtype=A.dtype), same),
        ("the inverse", star.inv(A), same),
        ("the solution", star.solve(A, B), same),
        ("the pseudoinverse", star.pinv(A), same),
        ("U of the SVD", star.svd(A).U, same),
        ("Vh of the SVD", star.svd(A).Vh, same),
        ("a tubal function", star.apply(lambda z: z * z, A), same),
        ("the norm", star.norm(A), real),
        ("zeros", star.zeros(1, 1, dtype=A.dtype), A.dtype),
    ):
        yield f"{name} is {array.dtype}", f"{name} is {np.dtype(expected)}"


@_law(
    "operands as they were",
    "no function writes to its operands, and their layout in memory does not matter",
    "lm mp",
    "a transform works in place, or takes an array for contiguous that is not",
)
def _(star: StarAlgebra, A: Any, B: Any) -> Sides:
    kept = copy.deepcopy((A, B))
    C = star(A, B)
    star.transpose(A), star.pinv(A), star.svd(B), star.apply(lambda z: z * z, A), star.to_matrix(A)
    star.inverse(star.forward(A))
    yield A, kept[0], 0.0
    yield B, kept[1], 0.0
    A_hat = star.forward(A)
    held = copy.deepcopy(A_hat)
    star.inverse(A_hat)
    yield A_hat, held, 0.0
    swapped = [ct.matrix_transpose(ct.reshape(ct.reshape(T.mT, (-1,)), T.mT.shape)) for T in (A, B)]
    spaced = [ct.repeat(T, 2, axis=-1)[..., ::2] for T in (A, B)]
    for first, second in (swapped, spaced):
        yield star(first, second), C
        yield star.forward(first), A_hat, size(star, A) * _norms(star)[0]


@_law(
    "devices",
    "results live where their operands do",
    "mm",
    "a function goes through the library of another device: use `cutnn.device.namespace(A)`, not `np`",
    regular=True,
)
def _(star: StarAlgebra, A: Any) -> Sides:
    here = device_of(A)
    results = (
        star(A, A),
        star.forward(A),
        star.transpose(A),
        star.inv(A),
        star.pinv(A),
        *star.svd(A),
        star.norm(A),
    )
    for result in results:
        yield f"on {device_of(result) if hasattr(result, 'shape') and result.shape else here}", f"on {here}"


@_law(
    "folding",
    "fold(unfold(A)) = A, faces_first(tubes_last(A)) = A",
    "lm",
    "a reshape in another order of axes",
)
def _(star: StarAlgebra, A: Any) -> Sides:
    yield star.fold(star.unfold(A)), A, 0.0
    yield star.faces_first(star.tubes_last(A)), A, 0.0


# ------------------------------------------------------------------------------------------- gradients


@_law(
    "gradients of the transform",
    "Re⟨G, M V⟩ = Re⟨∇(G), V⟩, of M, of M⁻¹ and of the transpose; gradients have the dtype of their argument",
    "lm lm",
    "the gradient of `forward` or `inverse` is not the adjoint Mᴴ, or M⁻ᴴ; M⁻¹ is that for unitary M alone",
    alike=True,
)
def _(star: StarAlgebra, A: Any, V: Any) -> Sides:
    G = star.forward(ct.flip(A, axis=-1) + V)
    forward, inverse = _norms(star)
    yield from _adjoint(star.forward, A, V, G, forward)
    yield from _adjoint(star.inverse, star.forward(A), G, ct.flip(star.inverse(G), axis=-1), inverse)
    yield from _adjoint(star.transpose, A, V, star.transpose(ct.flip(A, axis=-1) + V), forward * inverse)


@_law(
    "gradients of the product",
    "Re⟨G, V ★ B + A ★ W⟩ = Re⟨∇_A(G), V⟩ + Re⟨∇_B(G), W⟩",
    "lm mp lp lm mp",
    "the gradient of `forward` or `inverse`: a conjugate, a transpose or a factor is missing, or the trace is cut",
    alike=True,
)
def _(star: StarAlgebra, A: Any, B: Any, G: Any, V: Any, W: Any) -> Sides:
    C, pullback = vjp(star, A, B)
    if C.dtype.kind == "c":
        G = G * (1 - 2j)
    gradient_A, gradient_B = pullback(G)
    yield from _forms((gradient_A, gradient_B), (A, B))
    moved = star(V, B) + star(A, W)
    terms = math.sqrt(C.size) * _length(G) * (size(star, V, B) + size(star, A, W)) * math.prod(_norms(star))
    yield _inner(G, moved).real, _inner(gradient_A, V).real + _inner(gradient_B, W).real, terms
    single, _ = vjp(lambda A: star(A, B), A)  # the trace must not change the value
    yield single, C, size(star, A, B)


@_law(
    "second derivatives",
    "the derivative of A ★ B along (V, W), by the pullback of the pullback, = V ★ B + A ★ W",
    "lm mp lm mp",
    "the gradient of `forward` or `inverse` is not itself differentiable: write rules with functions of cutnn",
    alike=True,
)
def _(star: StarAlgebra, A: Any, B: Any, V: Any, W: Any) -> Sides:
    _, tangent = jvp(star, (A, B), (V, W))
    scale = (size(star, V, B) + size(star, A, W)) * math.prod(_norms(star)) ** 2
    yield tangent, star(V, B) + star(A, W), scale


@_law(
    "gradient of the inverse",
    "Re⟨G, -A⁻¹ ★ V ★ A⁻¹⟩ = Re⟨∇(G), V⟩",
    "mm mm mm",
    "the gradient of `forward` or `inverse`",
    regular=True,
    alike=True,
)
def _(star: StarAlgebra, A: Any, G: Any, V: Any) -> Sides:
    X, pullback = vjp(star.inv, A)
    (gradient,) = pullback(G)
    yield from _forms((gradient,), (A,))
    scale = (
        size(star, X, V, X)
        * _length(G)
        * math.sqrt(X.size)
        * math.prod(_norms(star))
        * max(size(star, A, X), 1)
    )
    yield _inner(G, -star(X, V, X)).real, _inner(gradient, V).real, scale


# --------------------------------------------------------------------------------------------- helpers


def _adjoint(f: Callable[[Any], Any], A: Any, V: Any, G: Any, norm: float) -> Sides:
    """The adjoint identity of a map f that is linear over the reals, of that norm."""
    value, pullback = vjp(f, A)
    (gradient,) = pullback(ct.astype(G, value.dtype))
    yield from _forms((gradient,), (A,))
    yield _inner(G, f(V)).real, _inner(gradient, V).real, 4 * norm * _length(G) * _length(V)


def _forms(gradients: tuple[Any, ...], arguments: tuple[Any, ...]) -> Sides:
    for g, a in zip(gradients, arguments, strict=True):
        yield f"a gradient of {g.dtype} {tuple(g.shape)}", f"a gradient of {a.dtype} {tuple(a.shape)}"


def _inner(A: Any, B: Any) -> Any:
    return ct.sum(ct.conj(A) * B)


def _length(A: Any) -> float:
    """The Frobenius norm of a whole array."""
    return float(np.linalg.norm(host(A).ravel().astype(complex)))


def _first(A: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The first entries of A along each axis."""
    return A[tuple(slice(n) for n in shape)]


def _eye(star: StarAlgebra, m: int, A: Any) -> Any:
    """The identity in the dtype and on the device of A."""
    return to_device(star.eye(m, dtype=A.dtype), device_of(A))


def _projector(star: StarAlgebra) -> np.ndarray:
    """M⁻¹ M of all tube axes together, from the matrices alone: I where M is invertible."""
    P: np.ndarray = np.eye(1)
    for t in star.transforms:
        M = t.matrix()
        P = np.kron(P, np.eye(t.n) if t.faces == t.n else np.linalg.pinv(M) @ M)
    return P


def _near_to(host: np.ndarray, like: Any) -> Any:
    return namespace(like).asarray(host.astype(like.dtype), device=like.device)


def _cut(star: StarAlgebra, A: Any, rtol: float) -> Any:
    """A without the singular values of its faces up to rtol times the largest: what pinv(A, rtol) inverts."""
    U, s, Vh = ct.linalg.svd(star.forward(A), full_matrices=False)
    xp = namespace(s)
    top = xp.max(s, axis=tuple(range(-1 - len(star.shape), 0)), keepdims=True)
    s = xp.where(s > rtol * top, s, 0 * s)
    return star.inverse(ct.matmul(U * ct.expand_dims(s, axis=-2), Vh))
