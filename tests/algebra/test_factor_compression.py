"""Whole singular bases, what a truncation costs and holds, and its storage as triplets."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from mprod.decompositions import svdm

import cutnn as ct
from cutnn import algebra
from cutnn.algebra import Compressed
from cutnn.tape import NotDifferentiableError
from tests.algebra.catalogue import ALGEBRAS, UNITARY, near

every_algebra = pytest.mark.parametrize("name", ALGEBRAS)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])


def product(star: Any, factors: Any) -> Any:
    return star(factors[0], star.diagonal(factors[1]), factors[2])


# ------------------------------------------------------------------------------------------------ whole bases


@every_algebra
@pytest.mark.parametrize("size", [(4, 2), (2, 4), (3, 3)])
def test_full_factors_are_unitary_and_begin_with_the_others(name: str, size: tuple[int, int]) -> None:
    star = ALGEBRAS[name]
    A = star.random(*size, (2,), seed=0)
    U, S, Vh = star.svd(A, full=True)
    for Q, m in ((U, size[0]), (Vh, size[1])):
        eye = np.broadcast_to(star.eye(m), (2, *star.eye(m).shape))
        assert Q.shape == eye.shape
        for square in (star(star.transpose(Q), Q), star(Q, star.transpose(Q))):
            assert np.abs(square - eye).max() < 1e-13 * star.n * 10
    near(S, star.svd(A).S)
    k = min(size)
    near(star(U[..., :k], star.diagonal(S), Vh[..., :k, :]), A + 0 * star(A, star.transpose(A), A))


def test_full_and_rank_are_in_conflict() -> None:
    star = algebra.dct(4)
    A = star.random(3, 2)
    with pytest.raises(
        TypeError, match="full=True asks for all 3 slices of U and 2 of Vh, rank=1 for 1 of each"
    ):
        star.svd(A, rank=1, full=True)
    for rank in (1.0, True, "1"):
        with pytest.raises(TypeError, match=r"svd: the rank is .*; expected an integer from 1 to 2"):
            star.svd(A, rank=rank)  # type: ignore[arg-type]
    with pytest.raises(NotDifferentiableError, match="full_matrices=True"):
        ct.grad(lambda A: ct.sum(star.svd(A, full=True).U))(A)


# ------------------------------------------------------------------------------------------ costs, and storage


@every_algebra
@every_dtype
def test_what_is_stored_is_what_was_truncated(name: str, dtype: Any) -> None:
    star = ALGEBRAS[name]
    A = star.random(4, 3, (2,), seed=3, dtype=dtype)
    truncated, held = star.svd_energy(A, 0.7), star.compress(A, 0.7)
    near(held.decompress(), product(star, truncated))
    np.testing.assert_array_equal(held.multirank, truncated.multirank)
    cost = truncated.compression
    assert held.implicit_rank == cost.implicit_rank.sum() == truncated.multirank.sum()
    assert held.storage == cost.storage.sum()
    np.testing.assert_allclose(held.ratio, A.size / cost.storage.sum())
    np.testing.assert_allclose(cost.ratio, A[0].size / cost.storage)
    np.testing.assert_allclose(held.relative_error, cost.relative_error)
    # Bytes count real and complex numbers for what they are, whatever `storage` claims.
    triplets = sum(x.nbytes for x in (*held.left, *held.right))
    assert triplets == held.storage * A.dtype.itemsize
    assert held.nbytes == triplets + held.ranks.nbytes


@pytest.mark.parametrize("name", UNITARY)
@every_dtype
def test_errors_and_energies_are_those_of_the_tensor(name: str, dtype: Any) -> None:
    star = ALGEBRAS[name]
    A = star.random(4, 3, (2,), seed=1, dtype=dtype)
    for count in (1, star.n, 2 * star.n, 3 * star.n):
        truncated = star.svd_energy(A, count=count)
        share = star.norm(product(star, truncated)) ** 2 / star.norm(A) ** 2
        tolerance = 100 * np.finfo(A.dtype).eps
        np.testing.assert_allclose(truncated.compression.energy, share, atol=tolerance)
        error = star.norm(A - product(star, truncated)) / star.norm(A)
        np.testing.assert_allclose(truncated.compression.relative_error, error, atol=tolerance)
    assert not truncated.compression.relative_error.any()  # all kept: no error at all, not √eps


def test_errors_below_the_root_of_eps() -> None:
    """1 - energy has no digits left where few values of size 1e-9 are dropped."""
    star = algebra.dct(3)
    A = star(star.random(3, 1, seed=0), star.random(1, 3, seed=1)) + 1e-9 * star.random(3, 3, seed=2)
    truncated = star.svd_energy(A, count=3)
    assert truncated.compression.energy == 1
    error = star.norm(A - product(star, truncated)) / star.norm(A)
    assert 1e-12 < error < 1e-8
    np.testing.assert_allclose(truncated.compression.relative_error, error, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "numbers"), [("fft 4", 1), ("fft 5, fft 2", 1), ("dct 5", 1), ("complex matrix 3", 2)]
)
def test_complex_numbers_of_real_tensors_are_counted_by_two(name: str, numbers: int) -> None:
    star = ALGEBRAS[name]
    A = star.random(4, 3, seed=0)
    held = star.compress(A, 1.0)  # whole: 3 triplets of 7 numbers a face
    assert held.storage == numbers * star.n * 3 * 7
    assert star.compress(A + 0j, 1.0).storage == star.n * 3 * 7  # complex numbers of a complex tensor


def test_storage_is_smaller_than_that_of_the_tensor_of_slices() -> None:
    """For smooth tubes the DCT gathers the energy in few faces, and the multirank is far from flat."""
    star = algebra.dct(8)
    A = np.cumsum(star.random(6, 9, seed=0), axis=0)
    truncated, held = star.svd_energy(A, 0.98), star.compress(A, 0.98)
    assert held.storage < sum(x.size for x in truncated[:3]) / 2
    assert held.multirank[0] == truncated.S.shape[-1] > held.multirank[-1]


@every_algebra
def test_nothing_is_held_of_a_zero_tensor(name: str) -> None:
    star = ALGEBRAS[name]
    A = star.zeros(3, 2, (2,))
    held, cost = star.compress(A, 0.9), star.svd_energy(A, 0.9).compression
    assert held.storage == held.implicit_rank == 0 and held.ratio == np.inf
    assert not held.decompress().any() and held.decompress().shape == A.shape
    assert (
        cost.ratio.tolist() == [np.inf] * 2
        and cost.relative_error.tolist() == [0, 0] == (cost.energy - 1).tolist()
    )


@every_algebra
@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_saved_and_loaded(name: str, dtype: Any) -> None:
    star, file = ALGEBRAS[name], io.BytesIO()
    held = star.compress(star.random(4, 3, (2, 2), seed=0, dtype=dtype), 0.8)
    np.savez(file, **held.arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        again = Compressed.from_arrays(star, arrays)
    np.testing.assert_array_equal(again.decompress(), held.decompress())
    assert (again.storage, again.nbytes, again.shape) == (held.storage, held.nbytes, held.shape)
    np.testing.assert_array_equal(again.multirank, held.multirank)
    np.testing.assert_array_equal(again.relative_error, held.relative_error)


def test_arrays_that_do_not_fit_are_refused() -> None:
    star = algebra.fft(4)
    arrays = star.compress(star.random(4, 3, seed=0), 0.8).arrays()
    with pytest.raises(ValueError, match=r"no right_1 among the arrays"):
        Compressed.from_arrays(star, {k: v for k, v in arrays.items() if k != "right_1"})
    with pytest.raises(ValueError, match=r"do not make a tensor \(4, 4, 3\) of fft\(5\)"):
        Compressed.from_arrays(algebra.fft(5), arrays)
    for name in ("ranks", "left_0", "right_1"):
        with pytest.raises(ValueError, match="do not make a tensor"):
            Compressed.from_arrays(star, arrays | {name: arrays[name][:-1]})


def test_compression_has_no_gradient_and_says_what_has() -> None:
    star = algebra.dct(3)
    with pytest.raises(NotDifferentiableError, match=r"compress gives storage.*low_rank"):
        ct.grad(lambda A: ct.sum(star.compress(A, 0.9).decompress()))(star.random(2, 2))
    with pytest.raises(TypeError, match="compress: give either an energy"):
        star.compress(star.random(2, 2))


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 3, fft 4"])
def test_triplets_stay_on_the_device(name: str, pretend_device: Any) -> None:
    star = ALGEBRAS[name]
    A = star.random(4, 3, (2,), seed=0)
    there, here = star.compress(ct.to_device(A, "pretend"), 0.8), star.compress(A, 0.8)
    assert {ct.device_of(x) for x in (*there.left, *there.right, there.decompress())} == {"pretend"}
    near(ct.to_host(there.decompress()), here.decompress())
    full = star.svd(ct.to_device(A, "pretend"), full=True).U
    near(ct.to_host(full), star.svd(A, full=True).U)


# --------------------------------------------------------------------------------------------- other packages


@pytest.mark.parametrize("size", [(5, 4), (3, 6)])
def test_agreement_with_mprod_and_tred(size: tuple[int, int]) -> None:
    """Both take tubes last and give S as tubes, and V in the place of Vh, its plain transpose.

    For complex transforms that V is the conjugate of the one with A = U ★ S ★ Vᴴ, and so not compared here.
    """
    star = algebra.dct(6)
    A = star.random(*size, seed=0)
    C = star.transforms[0].matrix()
    forward, inverse = (lambda T, M=M: np.tensordot(T, M, axes=(-1, 1)) for M in (C, C.T))
    U, S, Vh = star.svd(A)
    found = [svdm(star.tubes_last(A), forward, inverse)]
    try:
        import tred
    except ImportError:
        pass
    else:
        last = {"svals_matrix_form": True, "full_frontal_slices": False}
        found.append(tred.tsvdm(star.tubes_last(A), *tred.generate_dctii_m_transform_pair(6), **last))
    for u, s, v in found:
        near(s.T, S, 1000)
        one = star.faces_first(u)[..., :1], S[..., :1], star.transpose(star.faces_first(v)[..., :1])
        near(product(star, one), product(star, star.svd(A, rank=1)), 1000)
