"""What the algebra refuses, and how it says so; and that it works on another device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cutnn as ct
from cutnn import algebra
from tests.algebra.catalogue import ALGEBRAS, DELICATE, invertible_tensor, near

# --------------------------------------------------------------------------------------------------- errors


def test_factors_that_do_not_fit() -> None:
    star = algebra.dct(4)
    A = star.zeros(2, 3)
    with pytest.raises(
        ValueError, match=r"dct\(4\).product: factors 1 and 2 have shapes \(4, 2, 3\) and \(4, 2, 3\)"
    ):
        star(A, A)
    with pytest.raises(ValueError, match=r"needs a second of shape \(..., 4, 3, m\)"):
        star(A, A)
    with pytest.raises(ValueError, match="factors 2 and 3"):
        star(A, star.zeros(3, 1), A)
    with pytest.raises(
        ValueError, match=r"batch axes of \(5, 4, 2, 3\) and \(6, 4, 3, 1\), all but the last 3"
    ):
        star(star.zeros(2, 3, (5,)), star.zeros(3, 1, (6,)))
    with pytest.raises(
        ValueError, match=r"solve: A and B have shapes \(4, 2, 2\) and \(4, 3, 1\).*\(..., 4, 2, m\)"
    ):
        star.solve(star.eye(2), star.zeros(3, 1))
    with pytest.raises(ValueError, match="solve.*batch axes"):
        star.solve(star.eye(2) + star.zeros(2, 2, (3,)), star.zeros(2, 1, (2,)))


def test_tubes_of_another_length() -> None:
    star = algebra.dct(4)
    with pytest.raises(
        ValueError, match=r"forward: A has shape \(5, 2, 3\), with length 5 along its tube axis -3"
    ):
        star.forward(np.zeros((5, 2, 3)))
    with pytest.raises(
        ValueError, match=r"product: B has shape .* this algebra has length 4: \(..., 4, l, m\)$"
    ):
        star(star.eye(2), np.zeros((5, 2, 3)))
    with pytest.raises(ValueError, match=r"Its last axis has that length.*algebra.faces_first\(A\)"):
        star.norm(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match=r"algebra.faces_first\(A, tubes=1\)"):
        star.norm(np.zeros((6, 2, 3, 4)))
    pair = algebra.product(algebra.dct(3), algebra.fft(4))
    with pytest.raises(ValueError, match=r"length 4 along its tube axis -4, where this algebra has length 3"):
        pair.transpose(np.zeros((4, 4, 1, 1)))
    with pytest.raises(ValueError, match=r"last 2 axes have the tube lengths.*faces_first\(A\)"):
        pair.transpose(np.zeros((1, 2, 3, 4)))


def test_too_few_axes_and_no_arrays() -> None:
    for name, few_axes in (("dct 5", (5, 2)), ("plain", (3,)), ("fft 3, fft 4", (3, 4, 2))):
        with pytest.raises(
            ValueError, match=f"too few axes; expected {len(ALGEBRAS[name].shape) + 2} or more"
        ):
            ALGEBRAS[name].forward(np.zeros(few_axes))
    with pytest.raises(TypeError, match=r"A is a list; expected an array of shape \(..., 5, l, m\)"):
        ALGEBRAS["dct 5"].forward([1.0])
    with pytest.raises(TypeError, match="expected numbers"):
        ALGEBRAS["dct 5"].forward(np.full((5, 1, 1), "a"))


def test_what_is_no_transform() -> None:
    star = algebra.fft(5)
    with pytest.raises(
        ValueError, match=r"shape \(..., 5, l, m\), or \(..., 3, l, m\) from real.*not \(4, 2, 2\)"
    ):
        star.inverse(np.zeros((4, 2, 2), complex))
    with pytest.raises(TypeError, match="a half spectrum is complex; this one holds float64"):
        star.inverse(np.zeros((3, 2, 2)))
    for wrong in (0.0, [1.0]):
        with pytest.raises(TypeError, match=f"inverse: A_hat is a {type(wrong).__name__}; expected an array"):
            star.inverse(wrong)
    with pytest.raises(TypeError, match="inverse: A_hat holds <U1; expected numbers"):
        star.inverse(np.full((5, 1, 1), "a"))
    with pytest.raises(TypeError, match="fold: matrix is a list"):
        star.fold([[1.0]])
    with pytest.raises(ValueError, match=r"fold: a matrix of shape \(7, 2\); expected \(..., 5 l, m\)"):
        star.fold(np.zeros((7, 2)))
    with pytest.raises(ValueError, match="f must be elementwise"):
        star.apply(lambda z: z[:1], np.zeros((5, 2, 2)))
    with pytest.raises(ValueError, match=r"it made shape \(\) of shape"):
        star.apply(lambda z: 1.0, np.zeros((5, 2, 2)))


def test_tensors_that_are_not_square() -> None:
    for function in (algebra.dct(4).inv, lambda A: algebra.dct(4).solve(A, A)):
        with pytest.raises(ValueError, match=r"A has shape \(4, 2, 3\), 2 x 3 tubes; expected as many rows"):
            function(np.zeros((4, 2, 3)))


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 5", "fft 9", "real matrix 4", "plain"])
def test_singular_faces_are_named(name: str) -> None:
    star = ALGEBRAS[name]
    A_hat = star.forward(invertible_tensor(star, 2, (3,), 0, np.float64))
    face = 2 if star.shape else ...
    A_hat[1, face] = [[1, 2], [2, 4]]
    A = star.inverse(A_hat)
    where = (
        r"face 2 of its transform of item \(1,\) of the batch" if star.shape else r"the matrix of item \(1,\)"
    )
    for f in (star.inv, lambda A: star.solve(A, star.random(2, 1, seed=0))):
        with pytest.raises(np.linalg.LinAlgError, match=f"singular to working precision: {where}"):
            f(A)
        with pytest.raises(np.linalg.LinAlgError):
            ct.grad(lambda A: ct.sum(f(A)))(A)  # noqa: B023


def test_singular_tubes() -> None:
    star = algebra.dct(6)
    tube = star.inverse(np.array([1.0, 2, 3, 0, 5, 6]).reshape(6, 1, 1))  # its fourth face is rounding
    with pytest.raises(np.linalg.LinAlgError, match="face 3"):
        star.inv(tube)
    with pytest.raises(np.linalg.LinAlgError, match="face 0"):
        star.inv(star.zeros(2, 2))
    assert np.isnan(star.inv(star.eye(2) * np.nan)).all()  # not a matter of rank
    assert star.inv(star.zeros(0, 0)).shape == (6, 0, 0)
    near(star.solve(star.eye(2), star.zeros(2, 1)), star.zeros(2, 1))
    right = star.random(2, 1, seed=0)
    near(star.solve(star.eye(2), 1e30 * right), 1e30 * right)
    assert np.isnan(star.solve(star.eye(2), right * np.nan)).all()


@pytest.mark.parametrize(("dtype", "sizes"), [(np.float32, (1e-25, 1e25)), (np.float64, (1e-140, 1e140))])
@pytest.mark.parametrize("name", ["dct 5", "fft 5", "plain"])
def test_regular_is_no_matter_of_size(name: str, dtype: Any, sizes: tuple[float, ...]) -> None:
    """The squares of such floats, or of those of their inverse, overflow."""
    star = ALGEBRAS[name]
    A, B = invertible_tensor(star, 2, (), 0, dtype), star.random(2, 1, seed=1, dtype=dtype)
    for size in sizes:
        near(star.inv(dtype(size) * A) * dtype(size), star.inv(A))
        near(star.solve(dtype(size) * A, B) * dtype(size), star.solve(A, B))
    zero = A.copy()
    zero[..., 0, :] = 0
    with pytest.raises(np.linalg.LinAlgError, match="singular to working precision"):
        star.inv(dtype(sizes[0]) * zero)


# ---------------------------------------------------------------------------------------------- other devices


def test_operands_of_two_devices(pretend_device: Any) -> None:
    """The shapes of the message are those given, not those of transforms."""
    star = algebra.fft(5)
    A, B = star.random(2, 2, seed=0), star.random(2, 1, seed=1)
    there = pretend_device.asarray(B)
    where = r"argument 0 is a numpy.ndarray of shape \(5, 2, 2\) on cpu; .*\(5, 2, 1\) on pretend"
    for f, name in ((star, "product"), (star.solve, "solve")):
        with pytest.raises(TypeError, match=rf"fft\(5\).{name}: .*{where}"):
            f(A, there)
        with pytest.raises(TypeError, match=rf"fft\(5\).{name}: .*{where}"):
            ct.grad(lambda A: ct.sum(f(A, there)))(A)  # noqa: B023


@pytest.mark.parametrize("name", DELICATE)
def test_another_device(name: str, pretend_device: Any) -> None:
    star = ALGEBRAS[name]
    A, B = invertible_tensor(star, 2, (), 0, np.float64), star.random(2, 1, seed=1)
    A2, B2 = (pretend_device.asarray(x) for x in (A, B))
    for f in (
        star,
        star.solve,
        lambda A, B: star.inv(A),
        lambda A, B: star.pinv(B),
        lambda A, B: star.transpose(A),
        lambda A, B: star.to_matrix(A),
        lambda A, B: star.norm(A),
    ):
        near(f(A2, B2).get(), f(A, B))
    for ours, theirs in zip(
        ct.vjp(star, A2, B2)[1](pretend_device.asarray(star(A, B))),
        ct.vjp(star, A, B)[1](star(A, B)),
        strict=True,
    ):
        near(ours.get(), theirs)
