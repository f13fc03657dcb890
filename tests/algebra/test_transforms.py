"""Transforms of tubes: their matrices against SciPy, every road against the matrix, what is refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cutnn as ct
from cutnn import algebra
from cutnn.algebra import Fourier, Transform, _fast
from tests.algebra.catalogue import EVERY, draw, invertible
from tests.gradcheck import check

scipy_fft = pytest.importorskip("scipy.fft")
scipy_linalg = pytest.importorskip("scipy.linalg")

TRANSFORMS = {f"{name}, {t}": t for name, star in EVERY.items() for t in star.transforms}
NAMED = {
    "dct": algebra.dct,
    "dst": algebra.dst,
    "hartley": algebra.hartley,
    "hadamard": algebra.hadamard,
    "haar": algebra.haar,
    "fft": algebra.fft,
}
DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


def one(star: algebra.StarAlgebra) -> Transform:
    (transform,) = star.transforms
    return transform


def along(M: Any, A: Any, axis: int) -> Any:
    """M applied to the tubes along an axis, by its definition."""
    return np.moveaxis(np.tensordot(M, A, axes=(1, axis % A.ndim)), 0, axis)


def projected(t: Transform, A: Any, axis: int) -> Any:
    """M⁻¹ M A: A itself unless M has fewer rows than columns."""
    P = np.eye(t.n) if t.faces == t.n else t.inverse_matrix() @ t.matrix()
    return along(P, A, axis).astype(A.dtype if t.real_products else np.result_type(A.dtype, np.complex64))


def near(x: Any, y: Any, scale: Any = None) -> None:
    eps = np.finfo(x.dtype).eps
    size = np.max(np.abs(y if scale is None else scale), initial=1e-30)
    np.testing.assert_allclose(x, y, rtol=0, atol=200 * eps * size)


# ------------------------------------------------------------------------------------------------- matrices


@pytest.mark.parametrize("n", [1, 2, 3, 8, 13])
def test_matrices_are_those_of_scipy(n: int) -> None:
    eye = np.eye(n)
    near(one(algebra.dct(n)).matrix(), scipy_fft.dct(eye, type=2, norm="ortho", axis=0))
    near(one(algebra.dst(n)).matrix(), scipy_fft.dst(eye, type=2, norm="ortho", axis=0))
    near(one(algebra.fft(n)).matrix(), scipy_linalg.dft(n))
    F = scipy_linalg.dft(n)
    near(one(algebra.hartley(n)).matrix(), (F.real - F.imag) / np.sqrt(n))


@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_hadamard_and_haar(n: int) -> None:
    near(one(algebra.hadamard(n)).matrix(), scipy_linalg.hadamard(n) / np.sqrt(n))
    rows = [np.full(n, 1 / np.sqrt(n))]
    length = n
    while length > 1:  # wavelets of that support, from the widest
        for start in range(0, n, length):
            wavelet = np.zeros(n)
            wavelet[start : start + length // 2] = 1 / np.sqrt(length)
            wavelet[start + length // 2 : start + length] = -1 / np.sqrt(length)
            rows.append(wavelet)
        length //= 2
    near(one(algebra.haar(n)).matrix(), np.array(rows))


pywt = pytest.importorskip("pywt")
ORTHOGONAL = [w for w in pywt.wavelist(kind="discrete") if pywt.Wavelet(w).orthogonal and w != "dmey"]


@pytest.mark.parametrize("name", pywt.wavelist(kind="discrete"))
@pytest.mark.filterwarnings("ignore:Level value")
def test_wavelets_are_those_of_pywavelets(name: str) -> None:
    for n, levels in ((64, None), (24, 3), (6, 1)):  # the last shorter than most filters
        if levels is None and pywt.dwt_max_level(n, name) == 0:
            levels = 1
        t = one(algebra.wavelet(n, name, levels))
        a = draw((n,))
        coefficients = pywt.wavedec(a, name, mode="periodization", level=levels)
        a_hat = t.matrix() @ a
        np.testing.assert_allclose(a_hat, np.concatenate(coefficients), atol=1e-10)  # symlets are polished
        assert np.abs(t.matrix() @ t.inverse_matrix() - np.eye(n)).max() < 1e-13 * n
        np.testing.assert_allclose(t.inverse_matrix() @ a_hat, a, atol=1e-12)
        if name != "dmey":
            back = pywt.waverec(coefficients, name, mode="periodization")
            np.testing.assert_allclose(t.inverse_matrix() @ np.concatenate(coefficients), back, atol=1e-9)
        assert (t.scale == 1) == (name in ORTHOGONAL or name in ("bior1.1", "rbio1.1"))
        assert t.scale is None or np.abs(t.matrix() @ t.matrix().T - np.eye(n)).max() < 1e-13 * n


@pytest.mark.parametrize("n", [2, 8, 64])
def test_the_first_wavelet_is_haar(n: int) -> None:
    for name in ("haar", "db1"):
        near(one(algebra.wavelet(n, name)).matrix(), one(algebra.haar(n)).matrix())
    star, A, B = algebra.haar(8), draw((8, 2, 3)), draw((8, 3, 2))
    near(algebra.wavelet(8, "haar")(A, B), star(A, B))


def test_wavelets_of_several_levels() -> None:
    assert [repr(algebra.wavelet(n, "db2")) for n in (6, 28, 96)] == [
        "wavelet(6, 'db2', levels=1)",
        "wavelet(28, 'db2', levels=2)",  # two factors of two
        "wavelet(96, 'db2', levels=5)",
    ]
    smooth = np.sin(np.arange(64) * np.pi / 32)[:, None, None]
    energy = np.cumsum(algebra.wavelet(64, "db4").forward(smooth)[:, 0, 0] ** 2)
    assert energy[7] > 0.9 * energy[-1]  # coarse before fine


@pytest.mark.parametrize("name", TRANSFORMS)
def test_inverse_scale_and_kind_of_matrix(name: str) -> None:
    t = TRANSFORMS[name]
    M, M_inverse = t.matrix(), t.inverse_matrix()
    assert M.shape == (t.faces, t.n) and M_inverse.shape == (t.n, t.faces)
    near(M @ M_inverse, np.eye(t.faces), np.ones(1))
    gram = M @ M.conj().T
    if t.scale is None:
        assert np.abs(gram - gram[0, 0] * np.eye(t.n)).max() > 1e-3
    else:
        near(gram, t.scale * np.eye(t.faces))
        near(M_inverse, M.conj().T / t.scale)
    assert t.real == (M.dtype.kind == "f")
    assert t.matrix(np.float32).dtype == (np.float32 if t.real else np.complex64)
    assert t.matrix("complex64").dtype == (np.complex64)
    for matrix in (M, t.matrix(np.float32), t.inverse_matrix(np.float64)):
        with pytest.raises(ValueError):
            matrix[0, 0] = 7


@pytest.mark.parametrize("name", TRANSFORMS)
def test_identity_tube(name: str) -> None:
    t = TRANSFORMS[name]
    near(np.asarray(t.matrix() @ t.identity_tube()), np.ones(t.faces), np.full(1, t.n))


@given(n=st.integers(1, 12), b=st.integers(1, 12))
def test_banded_means_are_those_of_the_paper(n: int, b: int) -> None:
    b = min(b, n)
    t = one(algebra.banded(n, b))
    for row in range(n):
        for column in range(n):
            inside = max(1, row + 1 - b + 1) <= column + 1 <= row + 1
            assert t.matrix()[row, column] == (1 / min(b, row + 1) if inside else 0)
    assert (t.scale is not None) == (b == 1)


def test_banded_inverses_are_exact() -> None:
    """Exactly lower triangular, and of the running mean of two the alternating sums, in integers."""
    inverse = one(algebra.banded(200, 2)).inverse_matrix()
    t, k = np.indices(inverse.shape)
    np.testing.assert_array_equal(inverse, np.where(k > t, 0, np.where(k > 0, 2, 1) * (-1.0) ** (t - k)))
    for coefficients in ([2.0, -1.0, 0.5], [2.0 + 1j, 1j, 0.3]):
        star = algebra.banded(50, 3, coefficients)
        M = one(star).matrix()
        expected = sum(c * np.eye(50, k=-j) for j, c in enumerate(coefficients))
        near(M, expected)
        near(one(star).inverse_matrix(), scipy_linalg.solve_triangular(M, np.eye(50), lower=True))
        assert not np.triu(one(star).inverse_matrix(), 1).any()
    first = algebra.banded(5, 3, np.array([2.0, -1.0, 0.5]))
    assert first == algebra.banded(5, 3, [2.0, -1.0, 0.5]) != algebra.banded(5, 3, [2.0, -1.0, 0.4])
    assert (
        repr(first) == "banded(5, 3, coefficients from 2 to 0.5)"
        and repr(algebra.banded(5, 3)) == "banded(5, 3)"
    )


# ---------------------------------------------------------------------------------------------------- roads


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_tubes_are_transformed_by_the_matrix(name: str, dtype: Any) -> None:
    t = TRANSFORMS[name]
    real = np.dtype(dtype).kind == "f"
    for axis, shape in (
        (-3, (t.n, 2, 3)),
        (-3, (4, t.n, 1, 1)),
        (-4, (2, t.n, 3, 2, 1)),
        (-5, (t.n, 2, 3, 2, 1)),
    ):
        A = draw(shape, dtype)
        A_hat = t.forward(A, axis)
        assert A_hat.dtype == (dtype if t.real else np.result_type(dtype, np.complex64))
        expected = along(t.matrix(dtype), A, axis)
        if real and not t.real and isinstance(t, Fourier):
            assert A_hat.shape[axis] == t.n // 2 + 1 == t.half
            expected = np.take(expected, range(t.half), axis)
        near(A_hat, expected)
        back = t.inverse(A_hat, axis)
        assert back.dtype == (dtype if t.real_products else A_hat.dtype)
        near(back, projected(t, A, axis), 10 * np.ones(1))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_layouts_of_memory(name: str) -> None:
    t = TRANSFORMS[name]
    A = draw((5, t.n, 4, 3))
    expected = t.forward(A, -3)
    swapped = np.swapaxes(np.swapaxes(A, -1, -2).copy(), -1, -2)
    spaced = np.repeat(A, 2, axis=0)[::2]
    fortran = np.asfortranarray(A)
    for other in (swapped, spaced, fortran, np.moveaxis(np.moveaxis(A, 1, -1).copy(), -1, 1)):
        near(t.forward(other, -3), expected)
        near(t.inverse(t.forward(other, -3), -3), projected(t, A, -3), 10 * np.ones(1))
    for empty in ((t.n, 0, 3), (0, t.n, 2, 2)):
        assert t.inverse(t.forward(np.zeros(empty), -3), -3).shape == empty


LONG = [("dct", 512), ("dct", 515), ("dst", 512), ("dst", 601), ("hartley", 256), ("hartley", 301)]
LONG += [("hadamard", 128), ("hadamard", 2048), ("haar", 128), ("fft", 128), ("fft", 129), ("fft", 130)]


@pytest.fixture(params=["SciPy", "NumPy"])
def fourier_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library that cosine transforms go through."""
    if request.param == "SciPy":
        pytest.importorskip("scipy")
    monkeypatch.setattr(_fast, "_SCIPY", request.param == "SciPy")


@pytest.mark.parametrize(("name", "n"), LONG)
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.usefixtures("fourier_library")
def test_fast_roads(name: str, n: int, dtype: Any) -> None:
    t = one(NAMED[name](n))
    A, B = draw((2, n, 1, 2), dtype), draw((2, n, 1, 2), dtype, seed=1)
    assert t._is_fast(A)
    A_hat = t.forward(A, -3)
    expected = along(t.matrix(), A, -3)[:, : A_hat.shape[1]]
    near(A_hat, expected)
    near(t.inverse(A_hat, -3), A)
    # The gradient of <B, forward(A)> is the adjoint of B.
    _, pullback = ct.vjp(lambda A: t.forward(A, -3), A)
    weights = B[:, : A_hat.shape[1]].astype(A_hat.dtype)
    adjoint = along(t.matrix()[: A_hat.shape[1]].conj().T, weights, -3)
    near(pullback(weights)[0], adjoint if dtype == np.complex128 else adjoint.real)
    _, pullback = ct.vjp(lambda C: t.inverse(C, -3), A_hat)
    direction = draw(A_hat.shape, A_hat.dtype, seed=2)
    (gradient,) = pullback(B)
    slope = np.sum((gradient.conj() * direction).real)
    np.testing.assert_allclose(slope, np.sum((B.conj() * t.inverse(direction, -3)).real), rtol=1e-9)


@pytest.mark.parametrize(("name", "n"), [("dct", 1024), ("dst", 1025), ("hartley", 1024), ("hadamard", 128)])
@pytest.mark.usefixtures("fourier_library")
def test_fast_roads_in_single_precision(name: str, n: int) -> None:
    t = one(NAMED[name](n))
    A = draw((n, 2, 1), np.float32)
    assert t._is_fast(A) and t.forward(A, -3).dtype == np.float32
    near(t.forward(A, -3), along(t.matrix(np.float32), A, -3))
    near(t.inverse(t.forward(A, -3), -3), A)


@pytest.mark.parametrize("n", [3, 4, 5, 6, 7, 9, 13])
def test_both_roads_of_the_fourier_transform_agree(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def results(first: int) -> list[Any]:
        monkeypatch.setattr(Fourier, "fast_from", {"single": first, "double": first})
        t = one(algebra.fft(n))
        out = []
        for dtype in (np.float64, np.complex128):
            A = draw((2, n, 2, 1), dtype)
            A_hat, pull = ct.vjp(lambda A: t.forward(A, -3), A)
            B, pull_back = ct.vjp(lambda C: t.inverse(C, -3), A_hat)
            out += [A_hat, pull(draw(A_hat.shape, A_hat.dtype))[0], B, pull_back(draw(B.shape, B.dtype))[0]]
        return out

    for x, y in zip(results(1), results(10**6), strict=True):
        assert x.dtype == y.dtype
        near(x, y)


@given(n=st.integers(1, 24), rows=st.integers(1, 3), seed=st.integers(0, 99))
def test_half_spectrum(n: int, rows: int, seed: int) -> None:
    t = one(algebra.fft(n))
    A = draw((n, rows, 2), seed=seed)
    A_hat = t.forward(A, -3)
    near(A_hat + 0j, np.fft.rfft(A, axis=0))
    assert t.inverse(A_hat, -3).dtype == np.float64
    near(t.inverse(A_hat, -3), A)
    near(t.inverse(t.forward(A + 0j, -3), -3), A + 0j)
    # A half spectrum that no real tensor has counts as NumPy's irfft counts it.
    C = draw(A_hat.shape, np.complex128, seed=seed)
    if n > 2:
        near(t.inverse(C, -3), np.fft.irfft(C, n=n, axis=0))


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_gradients(name: str, dtype: Any) -> None:
    t = TRANSFORMS[name]
    A = draw((2, t.n, 2, 1), dtype)
    check(lambda A: t.forward(A, -3) ** 2, A)
    check(lambda C: t.inverse(C, -3) ** 2, t.forward(A, -3))
    check(lambda A: t.reflect(A, -3) ** 2, A)


@pytest.mark.parametrize("name", ["dct 5", "fft 4", "fft 5", "complex matrix 3"])
def test_gradients_keep_single_precision(name: str) -> None:
    t = one(EVERY[name])
    A = draw((t.n, 2, 2), np.float32)
    gradient = ct.grad(lambda A: ct.sum(ct.abs(t.forward(A, -3)) ** 2))(A)
    assert gradient.dtype == np.float32


@pytest.mark.parametrize("name", ["dct 5", "haar 4", "fft 4", "fft 5", "real matrix 4", "complex matrix 3"])
def test_another_device(name: str, pretend_device: Any) -> None:
    t = one(EVERY[name])
    for dtype in (np.float64, np.complex128):
        A = draw((t.n, 2, 3), dtype)
        there = pretend_device.asarray(A)
        near(t.forward(there, -3).get(), t.forward(A, -3))
        near(t.inverse(t.forward(there, -3), -3).get(), t.inverse(t.forward(A, -3), -3))


@pytest.mark.parametrize("name", NAMED)
def test_fast_roads_on_another_device(name: str, pretend_device: Any) -> None:
    t = one(NAMED[name](1024))
    A = draw((1024, 1, 2))
    there = pretend_device.asarray(A)
    near(t.forward(there, -3).get(), t.forward(A, -3))
    near(t.inverse(t.forward(there, -3), -3).get(), A)


# ------------------------------------------------------------------------------------------------- as values


@pytest.mark.parametrize("name", EVERY)
def test_algebras_are_values(name: str) -> None:
    star = EVERY[name]
    A = draw((*star.shape, 2, 2))
    star.forward(A)
    for other in (copy.deepcopy(star), pickle.loads(pickle.dumps(star))):
        assert other == star and hash(other) == hash(star) and repr(other) == repr(star)
        assert not any(t._cache for t in other.transforms)
        near(other(A, A), star(A, A))
    assert [other for other in EVERY.values() if other == star] == [star]
    assert star != "dct" and star != algebra.dct(17)


def test_same_name_other_matrix() -> None:
    assert algebra.random_orthogonal(4, seed=1) != algebra.random_orthogonal(4, seed=2)
    assert algebra.from_matrix(invertible(3)) == algebra.from_matrix(invertible(3))
    assert algebra.from_matrix(invertible(3)) != algebra.from_matrix(invertible(3, seed=1))


def test_representations() -> None:
    assert repr(algebra.dct(28)) == "dct(28)"
    assert repr(algebra.plain()) == "plain()"
    assert repr(algebra.product(algebra.dct(2), algebra.fft(3))) == "product(dct(2), fft(3))"
    assert repr(algebra.random_orthogonal(3, seed=5)) == "random_orthogonal(3, seed=5)"
    assert repr(algebra.from_matrix(2j * np.eye(2))) == "from_matrix(2 x 2 complex, condition 1)"


def test_matrices_are_made_once_a_dtype() -> None:
    t = one(algebra.dct(4))
    A = draw((4, 2, 2), np.float32)
    assert t._like("M", A) is t._like("M", A) and t._like("M", A).dtype == np.float32
    assert t.matrix() is t.matrix()


def test_a_matrix_given_is_copied() -> None:
    M = invertible(3)
    star = algebra.from_matrix(M)
    before = star.transforms[0].matrix().copy()
    M[:] = 0
    near(star.transforms[0].matrix(), before)
    assert one(algebra.from_matrix([[1, 2], [0, 1]])).matrix().dtype == np.float64


def test_random_orthogonal_takes_a_generator() -> None:
    generator = np.random.default_rng(3)
    first, second = (algebra.random_orthogonal(4, seed=generator) for _ in range(2))
    assert first != second and first == algebra.random_orthogonal(4, seed=3)


def test_unitary_matrices_are_recognised() -> None:
    Q = one(algebra.random_orthogonal(5, seed=0)).matrix()
    assert one(algebra.from_matrix(3 * Q)).scale == pytest.approx(9)
    assert one(algebra.from_matrix(np.exp(1j) * Q)).scale == pytest.approx(1)
    assert one(algebra.from_matrix(Q + 1e-6 * np.eye(5))).scale is None


def test_unitary_matrices_of_any_size() -> None:
    for size in (1e-200, 1e-20, 1e20, 1e200):  # the square of the first and of the last overflows
        t = one(algebra.from_matrix(size * np.eye(2)))
        near(t.inverse_matrix() * size, np.eye(2))


def test_from_data_finds_left_singular_vectors() -> None:
    for dtype in (np.float64, np.complex128):
        X = draw((2, 4, 3, 5), dtype)
        star = algebra.from_data(X)
        unfolding = np.moveaxis(X, 1, 0).reshape(4, -1)
        energies = np.linalg.svd(unfolding, compute_uv=False)
        X_hat = star.forward(X)
        np.testing.assert_allclose(np.sqrt(np.sum(np.abs(X_hat) ** 2, axis=(0, 2, 3))), energies)
        gram = one(star).matrix() @ unfolding @ unfolding.conj().T @ one(star).matrix().conj().T
        np.testing.assert_allclose(gram, np.diag(energies**2), atol=1e-12 * energies[0] ** 2)
    few = draw((6, 1, 2))  # fewer tubes than their length: the rest is completed to an orthonormal basis
    assert np.allclose(algebra.from_data(few).forward(few)[2:], 0)
    long = draw((3, 9000, 1))  # in several pieces
    near(np.linalg.norm(algebra.from_data(long).forward(long)[:, :, 0], axis=1),
         np.linalg.svd(long[:, :, 0], compute_uv=False))  # fmt: skip
    assert algebra.from_data(draw((3, 4, 2, 5)), tubes=2).shape == (3, 4)
    assert algebra.from_data(np.ones((2, 3), np.uint8), tubes=0) == algebra.plain()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [0, 1, 9])
def test_from_data_of_every_axis(dtype: Any, rank: int) -> None:
    """Of each tube axis the left singular vectors of its unfolding: the core of a HOSVD; whatever the rank."""
    X = draw((2, 3, 4, 5, 3, rank), dtype) @ draw((rank, 2), dtype)
    star = algebra.from_data(X, tubes=3)
    assert star.shape == star.face_shape == (3, 4, 5)
    X_hat = star.forward(X)
    wide = X.astype(np.result_type(dtype, np.float64))
    for axis, t in zip((-5, -4, -3), star.transforms, strict=True):
        assert np.abs(t.matrix() @ t.matrix().conj().T - np.eye(t.n)).max() < 1e-14 * t.n
        assert t.scale == 1 and t.real == (np.dtype(dtype).kind == "f")
        unfolding = np.moveaxis(wide, axis, 0).reshape(t.n, -1)
        left, values, _ = np.linalg.svd(unfolding, full_matrices=False)
        energies = np.sqrt(np.sum(np.abs(np.moveaxis(X_hat, axis, 0).reshape(t.n, -1)) ** 2, axis=1))
        np.testing.assert_allclose(energies, values, atol=1e-5 * (1 + values[0]))
        if rank > 1:  # up to a sign, or a phase, the vectors of the SVD
            np.testing.assert_allclose(
                np.abs(np.sum(t.matrix().conj().T.conj() * left, axis=0)), 1, atol=1e-6
            )
            core = np.moveaxis(X_hat, axis, 0).reshape(t.n, -1)
            gram = core @ core.conj().T
            np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-5 * values[0] ** 2)
    near(star(X, star.eye(2, dtype=dtype)), X.astype(X_hat.dtype), np.max(np.abs(X), initial=1e-3))


def test_signs_of_from_data_are_fixed() -> None:
    """The largest entry of each row is positive, the first of those that tie: whatever rounding makes of a symmetry."""
    X = draw((6, 4, 7))
    star = algebra.from_data(X)
    M = one(star).matrix()
    assert np.all(np.take_along_axis(M, np.abs(M).argmax(axis=1)[:, None], axis=1) > 0)
    assert algebra.from_data(X) == star == algebra.from_data(X.copy(order="F"))
    for other in (-X, X[:, :, ::-1], np.concatenate([X, -X], axis=2)):
        np.testing.assert_allclose(one(algebra.from_data(other)).matrix(), M, atol=1e-12)
    symmetric = X + X[::-1]  # singular vectors are even or odd: entries tie
    for seed in range(5):
        noisy = symmetric * (1 + 1e-12 * draw(X.shape, seed=seed))
        V = one(algebra.from_data(noisy)).matrix()[:3]
        np.testing.assert_allclose(V, one(algebra.from_data(symmetric)).matrix()[:3], atol=1e-9)
    phases = X * np.exp(1j * draw((4, 7)))
    np.testing.assert_allclose(
        one(algebra.from_data(phases * 1j)).matrix(), one(algebra.from_data(phases)).matrix()
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "mixture", [("fft", "data"), ("data", "fft"), ("fft", "dct", "data"), ("plain", "fft", "haar")]
)
def test_mixtures_of_transforms(mixture: Any, dtype: Any) -> None:
    """One transform an axis: the product by the definition, and half spectra of real tensors."""
    X = draw((4,) * len(mixture) + (3, 2), dtype)
    data = algebra.from_data(X, tubes=len(mixture)).transforms
    parts = {"fft": algebra.fft(4), "dct": algebra.dct(4), "haar": algebra.haar(4), "plain": algebra.plain()}
    star = algebra.product(
        *(algebra.StarAlgebra(data[k]) if kind == "data" else parts[kind] for k, kind in enumerate(mixture))
    )
    if "plain" in mixture:  # has no axis of its own
        X = X[0]
    assert star.shape == (4,) * (X.ndim - 2)
    real = np.dtype(dtype).kind == "f"
    half = tuple(3 if kind == "fft" else 4 for kind in mixture if kind != "plain")
    assert star.forward(X).shape[:-2] == (half if real else star.shape)
    Y = draw((*star.shape, 2, 2), dtype, seed=1)
    product = star(X, Y)
    assert product.dtype == dtype
    matrix = star.to_matrix(X.astype(np.result_type(dtype, np.float64)))
    expected = matrix @ star.unfold(Y).astype(matrix.dtype)
    np.testing.assert_allclose(
        star.unfold(product), expected, atol=1e-4 if X.real.dtype == np.float32 else 1e-12
    )
    if np.finfo(dtype).eps < 1e-10:
        check(lambda X, Y: star(X, Y, star.transpose(Y)), X, Y)
