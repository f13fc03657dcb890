"""The faults of earlier tensor-tensor packages that an algebra can have, each by its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cutnn as ct
from cutnn import algebra
from tests.algebra.catalogue import ALGEBRAS, draw, invertible, near
from tests.gradcheck import check


@pytest.mark.parametrize("complex_", [False, True])
def test_products_that_assume_M_orthogonal(complex_: bool) -> None:
    M = invertible(3, complex_)
    star, A, B = algebra.from_matrix(M), draw((3, 2, 2)), draw((3, 2, 2))
    hats = [np.tensordot(M, T, axes=1) for T in (A, B)]
    near(star(A, B), np.tensordot(np.linalg.inv(M), hats[0] @ hats[1], axes=1))
    assert not np.allclose(star(A, B), np.tensordot(M.conj().T, hats[0] @ hats[1], axes=1))


def test_a_scale_that_M_has_not() -> None:
    """A transform said to be unitary that is not is refused, and nothing is inverted by Mᴴ."""
    M = invertible(3)
    A = draw((3, 2, 2))
    for matrix in (M, lambda n: M):
        star = algebra.StarAlgebra(algebra.Transform("skew", 3, matrix, scale=1.0))
        with pytest.raises(ValueError, match=r"skew\(3\): M Mᴴ is not c I with c = scale = 1"):
            star(A, A)
    star = algebra.StarAlgebra(algebra.Transform("skew", 3, lambda n: M))
    near(star(A, A), algebra.from_matrix(M)(A, A))


def test_transposes_that_ignore_the_transform() -> None:
    star, A = algebra.fft(5), draw((5, 2, 3))
    swapped = np.swapaxes(A, 1, 2)
    assert not np.allclose(star.transpose(A), swapped)
    near(star.transpose(A), np.concatenate([swapped[:1], swapped[:0:-1]]))
    star = ALGEBRAS["complex matrix 3"]
    A = draw((3, 2, 3))
    near(star.forward(star.transpose(A)), np.swapaxes(star.forward(A).conj(), 1, 2))


@pytest.mark.parametrize("n", [1, 5, 9, 13])
def test_half_spectra_of_n_1_modulo_4(n: int) -> None:
    star, A, B = algebra.fft(n), draw((n, 2, 3)), draw((n, 3, 2))
    bcirc = np.block([[A[(k - j) % n] for j in range(n)] for k in range(n)])
    near(star.unfold(star(A, B)), bcirc @ star.unfold(B))


@pytest.mark.parametrize("n", [1, 3, 5, 7, 9])
def test_no_gradient_of_half_spectra_for_odd_n(n: int) -> None:
    star = algebra.fft(n)
    check(lambda A, B: star(A, B) ** 2, draw((n, 2, 2)), draw((n, 2, 1)))


def test_real_part_taken_of_a_complex_factor() -> None:
    """The faces of Â of a real A are complex, and so are the factors that pinv cuts."""
    star, A = algebra.fft(5), draw((5, 3, 2))
    faces = np.fft.fft(A, axis=0)
    assert np.abs(faces.imag).max() > 1
    near(star.pinv(A), np.fft.ifft(np.linalg.pinv(faces), axis=0).real)


@pytest.mark.parametrize("name", ["fft 4", "fft 5", "dct 5", "complex matrix 3"])
def test_gradients_infinite_at_repeated_or_zero_singular_values(name: str) -> None:
    star = ALGEBRAS[name]

    def loss(f: Any) -> Any:
        return lambda A: ct.sum(ct.abs(f(A)) ** 2)

    eye = star.eye(2)
    near(ct.grad(loss(star.pinv))(eye), ct.grad(loss(star.inv))(eye))
    thin = star.eye(3)[..., :2]  # repeated, and tall
    check(star.pinv, thin)
    zero = star.zeros(3, 2, dtype=eye.dtype)
    assert not ct.grad(loss(star.pinv))(zero).any() and not ct.grad(star.norm)(zero).any()


def test_ortho_t_products_off_by_the_root_of_n() -> None:
    star = algebra.fft(4)
    a, b = draw((4, 1, 1)), draw((4, 1, 1), seed=1)
    convolution = [sum(a[j, 0, 0] * b[(k - j) % 4, 0, 0] for j in range(4)) for k in range(4)]
    near(star(a, b).ravel(), convolution)


@pytest.mark.parametrize("name", ["fft 5", "dct 5", "complex matrix 3"])
def test_a_batch_of_one_is_not_squeezed_away(name: str) -> None:
    star = ALGEBRAS[name]
    A, X = star.random(2, 3, seed=0), star.random(3, 1, (1,), seed=1)  # one sample in a batch of one
    assert star(A, X).shape == (1, *star.shape, 2, 1)
    assert star.transpose(X).shape == (1, *star.shape, 1, 3) and star.norm(X).shape == (1,)
