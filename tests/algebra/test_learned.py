"""Learned transforms: gradients with respect to M, by differences and by PyTorch, and the laws of their algebras."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import cutnn as ct
from cutnn import algebra
from cutnn.algebra import learned
from cutnn.algebra.manifolds import STIEFEL
from tests.algebra.catalogue import draw, invertible, near
from tests.gradcheck import check


def orthonormal(n: int, dtype: Any = np.float64, seed: int = 0, q: int | None = None) -> Any:
    return STIEFEL.retract(0 * draw((n, q or n), dtype), draw((n, q or n), dtype, seed))


def free(M: Any) -> Any:
    """An orthogonal matrix near M + its tangent part: a function of all matrices that stays on the manifold."""
    Q, R = ct.linalg.qr(M)
    return Q * ct.stop_gradient(ct.sign(ct.real(ct.linalg.diagonal(R))))


FUNCTIONS = {
    "product": (lambda star, A, B: star(A, B), ((2, 3), (3, 2))),
    "chain": (lambda star, A, B: star(A, B, A), ((2, 2), (2, 2))),
    "there and back": (lambda star, A: star.inverse(star.forward(A) ** 2), ((2, 1),)),
    "transpose": (lambda star, A: star(star.transpose(A), A), ((2, 3),)),
    "inv": (lambda star, A: star.inv(A + 4 * star.eye(2)), ((2, 2),)),
    "solve": (lambda star, A, B: star.solve(A + 4 * star.eye(2), B), ((2, 2), (2, 1))),
    "apply": (lambda star, A: star.apply(ct.tanh, 0.3 * A), ((2, 2),)),
    "singular tubes": (lambda star, A: star.svd(A).S, ((3, 2),)),
    "best of rank 1": (
        lambda star, A: (lambda U, S, Vh: star(U, star.diagonal(S), Vh))(*star.svd(A, 1)),
        ((3, 2),),
    ),
    "softmax": (lambda star, A: ct.exp(ct.real(star.forward(A))), ((3, 2),)),
}
SIZES = {"3": (3,), "1": (1,), "2, 3": (2, 3)}


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("function", ["product", "chain", "there and back", "transpose", "apply", "softmax"])
@pytest.mark.parametrize("sizes", [[(4, 2)], [(3, 3)], [(3, 1), (2, 2)]], ids=str)
def test_gradients_with_respect_to_a_tall_q_against_differences(
    sizes: Any, function: str, dtype: Any
) -> None:
    f, shapes = FUNCTIONS[function]
    tall = [draw(size, dtype, seed=3) for size in sizes]
    args = [draw((*[n for n, _ in sizes], *shape), dtype, seed=k) for k, shape in enumerate(shapes)]
    check(
        lambda Qs, *args: f(learned.star(*map(free, Qs), manifold="stiefel"), *args), tall, *args, rtol=2e-5
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("q", [1, 3, 5])
def test_the_projected_algebra_of_an_array_is_that_of_the_constant(q: int, dtype: Any) -> None:
    Q = orthonormal(5, dtype, q=q)
    mine, constant = learned.star(Q, manifold="stiefel"), algebra.projected(Q)
    A, B = draw((7, 5, 3, 2), dtype), draw((5, 2, 4), dtype, seed=1)
    near(mine.forward(A), constant.forward(A))
    near(mine(A, B), constant(A, B))
    near(mine.transpose(A), constant.transpose(A))
    near(mine.eye(2, dtype=dtype), constant.eye(2, dtype=dtype))
    near(mine.to_matrix(A), constant.to_matrix(A), 2000)
    near(mine.svd(A).S, constant.svd(A).S)
    assert mine.face_shape == (q,)


@pytest.mark.parametrize("kind", ["real", "complex M", "real M, complex tensors"])
@pytest.mark.parametrize("manifold", ["orthogonal", "general"])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("sizes", SIZES)
def test_gradients_with_respect_to_m_and_tensors_against_differences(
    sizes: str, function: str, manifold: str, kind: str
) -> None:
    f, shapes = FUNCTIONS[function]
    lengths = SIZES[sizes]
    tensors = np.complex128 if "complex" in kind else np.float64
    matrices = [invertible(n, complex_=kind == "complex M", seed=7) for n in lengths]
    args = [draw((*lengths, *shape), tensors, seed=k) for k, shape in enumerate(shapes)]

    def of_all(Ms: Any, *args: Any) -> Any:
        orthogonal = manifold == "orthogonal"
        return f(learned.star(*[free(M) if orthogonal else M for M in Ms], manifold=manifold), *args)

    check(of_all, matrices, *args, order=1 if "rank" in function or "singular" in function else 2, rtol=2e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_gradients_follow_pytorch(dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    M, A, B = orthonormal(4, dtype), draw((4, 3, 2), dtype), draw((4, 2, 3), dtype, seed=1)
    weights = draw((4, 3, 3), dtype, seed=2)

    def loss(M: Any, A: Any, B: Any) -> Any:
        return ct.sum(ct.real(learned.star(M)(A, B) ** 2 * weights))

    mine = ct.grad(loss, argnums=(0, 1, 2))(M, A, B)
    theirs = [torch.tensor(x, requires_grad=True) for x in (M, A, B)]
    t_M, t_A, t_B = theirs
    A_hat, B_hat = (torch.einsum("kj,jab->kab", t_M, T) for T in (t_A, t_B))
    Y = torch.einsum("jk,kab->jab", t_M.conj().T, A_hat @ B_hat)
    (Y**2 * torch.tensor(weights)).sum().real.backward()
    for g, t in zip(mine, theirs, strict=True):
        near(g, t.grad.resolve_conj().numpy())


@pytest.mark.parametrize("n", [1, 4, 5])
@pytest.mark.parametrize("manifold", ["orthogonal", "general"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_the_algebra_is_that_of_the_matrix(dtype: Any, manifold: str, n: int) -> None:
    M = orthonormal(n, dtype) if manifold == "orthogonal" else invertible(n, np.dtype(dtype).kind == "c")
    M = M.astype(dtype)
    mine, constant = learned.star(M, manifold=manifold), algebra.from_matrix(M)
    A, B = draw((7, n, 3, 2), dtype), draw((n, 2, 4), dtype, seed=1)
    near(mine(A, B), constant(A, B))
    near(mine.transpose(A), constant.transpose(A))
    near(mine.eye(2, dtype=dtype), constant.eye(2, dtype=dtype))
    near(mine.to_matrix(A), constant.to_matrix(A), 2000)
    near(mine.transforms[0].identity_tube(), constant.transforms[0].identity_tube().astype(dtype))
    assert mine.real_products == (np.dtype(dtype).kind != "c")


def test_batches_and_transposed_views_give_the_gradient_of_their_copies() -> None:
    M, weights = orthonormal(3), draw((5, 3, 2, 4))
    for A in (draw((5, 3, 4, 2)).mT, draw((3, 5, 2, 4)).swapaxes(0, 1), draw((5, 3, 2, 4))):
        grads = [
            ct.grad(lambda M, T=T: ct.sum(learned.star(M).forward(T) ** 2 * weights))(M)
            for T in (A, np.ascontiguousarray(A))
        ]
        near(*grads)


def test_an_m_that_is_not_traced_costs_no_gradient_and_a_traced_one_passes_through_from_matrix() -> None:
    M, A, B = invertible(3), draw((3, 2, 2)), draw((3, 2, 1), seed=1)

    def loss(M: Any) -> Any:
        return ct.sum(algebra.from_matrix(M)(A, B) ** 2)

    near(ct.grad(loss)(M), ct.grad(lambda M: ct.sum(learned.star(M, manifold="general")(A, B) ** 2))(M))
    singular = np.ones((3, 3))
    with pytest.raises(ValueError, match="singular"):
        ct.grad(loss)(singular)


def test_it_survives_pickling() -> None:
    star, A = learned.star(orthonormal(3)), draw((3, 2, 2))
    again = pickle.loads(pickle.dumps(star))
    near(again(A, A), star(A, A))
    assert again != star and star == star and len({star, again}) == 2


def test_an_inverse_that_is_not_written_as_the_transpose_has_another_gradient_of_the_same_tangent() -> None:
    M, A, B, w = orthonormal(4), draw((4, 2, 3)), draw((4, 3, 2), seed=1), draw((4, 2, 2), seed=2)
    general, orthogonal = (
        ct.grad(lambda M, k=k: ct.sum(learned.star(M, manifold=k)(A, B) ** 2 * w))(M)
        for k in ("general", "orthogonal")
    )
    assert np.abs(general - orthogonal).max() > 1e-3
    near(STIEFEL.project(M, general), STIEFEL.project(M, orthogonal))


@pytest.mark.parametrize(
    "M, options, error, words",
    [
        (np.ones((2, 3)), {}, ValueError, "square matrix"),
        (np.ones(()), {}, ValueError, "square matrix"),
        (np.eye(2, dtype=int), {}, TypeError, "int64"),
        (np.ones((2, 3)), {"manifold": "stiefel"}, ValueError, "a tall Q"),
        (np.ones((3, 2)), {"manifold": "stiefel"}, ValueError, "differs from I by 3"),
        (2 * np.eye(2), {}, ValueError, "differs from I by 3"),
        (np.full((2, 2), np.nan), {}, ValueError, "differs from I"),
        (np.eye(2), {"manifold": "sphere"}, ValueError, "'sphere'"),
        (np.zeros((2, 2)), {"manifold": "general"}, np.linalg.LinAlgError, "ingular"),
    ],
)
def test_what_is_no_transform_is_refused(M: Any, options: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        learned.star(M, **options)


def test_arrays_of_another_device_are_refused_and_of_the_same_are_transformed(pretend_device: Any) -> None:
    M, A = orthonormal(3), draw((3, 2, 2))
    there = learned.star(pretend_device.asarray(M))
    with pytest.raises(TypeError, match="pretend"):
        there.forward(A)
    near(there.forward(pretend_device.asarray(A)).get(), learned.star(M).forward(A))
    B = pretend_device.asarray(A)
    g = ct.grad(lambda M: ct.sum(learned.star(M)(B, B)))(pretend_device.asarray(M))
    near(g.get(), ct.grad(lambda M: ct.sum(learned.star(M)(A, A)))(M))
