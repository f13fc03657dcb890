"""Gradients of the algebra: against differences, PyTorch and the formulas, wherever M is not orthogonal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cutnn as ct
from cutnn import algebra
from tests.algebra.catalogue import DELICATE, EVERY, draw, invertible_tensor, kron, near
from tests.array.against_torch import compare
from tests.gradcheck import check


def with_argument(name: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Functions of an algebra, nonlinear where they can be, with the sizes of their arguments."""
    star = EVERY[name]
    return {
        "product": (lambda A, B: star(A, B), ((2, 3), (3, 2))),
        "chain": (lambda A, B: star(A, B, A), ((2, 2), (2, 2))),
        "transform": (lambda A: star.forward(A) ** 2, ((2, 1),)),
        "there and back": (lambda A: star.inverse(star.forward(A) ** 2), ((2, 1),)),
        "transpose": (lambda A: star(star.transpose(A), A), ((2, 3),)),
        "inv": (star.inv, ((2, 2),)),
        "solve": (star.solve, ((2, 2), (2, 1))),
        "pinv": (star.pinv, ((3, 2),)),
        "apply": (lambda A: star.apply(ct.tanh, A), ((2, 2),)),
        "norm": (star.norm, ((2, 2),)),
        "block matrix": (lambda A: star.to_matrix(A) ** 2, ((1, 2),)),
    }


def arguments(name: str, function: str, dtype: Any) -> Any:
    star = EVERY[name]
    f, sizes = with_argument(name)[function]
    args = [star.random(*size, seed=k, dtype=dtype) for k, size in enumerate(sizes)]
    if function in ("inv", "solve"):
        args[0] = invertible_tensor(star, 2, (), 0, dtype).astype(dtype)
    if function == "apply":  # away from the poles of tanh
        args[0] = args[0] * (0.5 / np.abs(star.forward(args[0])).max())
    return f, args


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("function", with_argument("fft 4"))
@pytest.mark.parametrize("name", DELICATE)
def test_gradients_against_differences(name: str, function: str, dtype: Any) -> None:
    f, args = arguments(name, function, dtype)
    check(f, *args, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(set(EVERY) - set(DELICATE)))
def test_gradient_of_the_product_in_other_algebras(name: str) -> None:
    for dtype in (np.float64, np.complex128):
        f, args = arguments(name, "chain", dtype)
        check(f, *args)


def test_gradients_of_mixed_operands_and_batches() -> None:
    for name in DELICATE:
        star = EVERY[name]
        A, B = star.random(2, 2, (3, 1), 0), star.random(2, 1, (2,), 1, np.complex128)
        check(lambda A, B: star(A, B), A, B)  # noqa: B023


def torch_star(name: str) -> Any:
    """The product in PyTorch, from the matrix alone."""
    torch = pytest.importorskip("torch")
    star = EVERY[name]
    M = torch.tensor(kron(star))

    def product(A: Any, B: Any) -> Any:
        shape = A.shape[: -2 - len(star.shape)]
        wide = torch.complex128 if M.is_complex() or A.is_complex() or B.is_complex() else torch.float64
        N = M.to(wide)
        A_hat, B_hat = (
            torch.einsum("qs,...sij->...qij", N, T.to(wide).reshape(*shape, star.n, *T.shape[-2:]))
            for T in (A, B)
        )
        C = torch.einsum("kq,...qij->...kij", torch.linalg.inv(N), A_hat @ B_hat)
        C = C.reshape(*shape, *star.shape, *C.shape[-2:])
        return C.real if star.real_products and not (A.is_complex() or B.is_complex()) else C

    return product


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("name", DELICATE)
def test_gradients_against_pytorch(name: str, dtype: Any) -> None:
    star = EVERY[name]
    A, B = star.random(2, 3, (2,), 0, dtype), star.random(3, 2, (2,), 1, dtype)
    compare(lambda A, B: star(A, B), torch_star(name), A, B)


@pytest.mark.parametrize("name", ["real matrix 4", "complex matrix 3", "fft 5", "dct 5"])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_gradients_are_the_formulas(name: str, dtype: Any) -> None:
    """∂X̂ = Ŵᴴ △ D̂, ∂Ŵ = D̂ △ X̂ᴴ with D̂ the M⁻ᴴ transform of D, then Mᴴ transforms; Wᴴ ★ D for unitary M alone."""
    star = EVERY[name]
    W, X = star.random(2, 3, seed=0, dtype=dtype), star.random(3, 2, seed=1, dtype=dtype)
    Y, pullback = ct.vjp(star, W, X)
    D = draw(Y.shape, Y.dtype)
    M = kron(star)

    def along(matrix: Any, A: Any) -> Any:
        return np.einsum("ks,sij->kij", matrix, A)

    def adjoint(A: Any) -> Any:
        return np.swapaxes(A.conj(), 1, 2)

    D_hat = along(np.linalg.inv(M).conj().T, D)
    dW = along(M.conj().T, D_hat @ adjoint(along(M, X)))
    dX = along(M.conj().T, adjoint(along(M, W)) @ D_hat)
    got_W, got_X = pullback(D)
    near(got_W, dW if dtype == np.complex128 else dW.real)
    near(got_X, dX if dtype == np.complex128 else dX.real)
    shortcut = star(star.transpose(W), D)
    unitary = all(t.scale is not None for t in star.transforms)
    assert np.allclose(got_X, shortcut if dtype == np.complex128 else shortcut.real) == unitary


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "real matrix 4", "complex matrix 3"])
def test_gradients_keep_single_precision(name: str) -> None:
    star = EVERY[name]
    A = invertible_tensor(star, 2, (), 0, np.float32)
    B = star.random(2, 2, seed=1, dtype=np.float32)
    for f in (star, star.solve):
        gradients = ct.grad(lambda A, B: ct.sum(ct.abs(f(A, B)) ** 2), (0, 1))(A, B)  # noqa: B023
        assert [g.dtype for g in gradients] == [np.float32, np.float32]


def test_gradient_of_norm_at_zero_and_pinv_of_the_identity() -> None:
    star = algebra.fft(4)
    assert not ct.grad(star.norm)(star.zeros(2, 2)).any()
    gradient = ct.grad(lambda A: ct.sum(star.pinv(A)))(star.eye(2))  # repeated singular values
    near(gradient, ct.grad(lambda A: ct.sum(star.inv(A)))(star.eye(2)))
