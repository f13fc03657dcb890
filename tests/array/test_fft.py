"""Fourier transforms: values are NumPy's; gradients are checked by matrices, differences and PyTorch."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cutnn as ct
from cutnn import fft
from tests.array.against_torch import compare
from tests.gradcheck import check

ONE_AXIS = ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"]
SEVERAL_AXES = ["fftn", "ifftn", "rfftn", "irfftn"]
OF_REAL = {"rfft", "ihfft", "rfftn"}

norms = st.sampled_from(["backward", "ortho", "forward"])
lengths = st.integers(1, 9)  # every residue mod 4, twice


def draw(shape: Any, dtype: Any = np.float64, seed: int = 0) -> Any:
    rng = np.random.default_rng((seed, *shape))
    z = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return (z if np.dtype(dtype).kind == "c" else z.real).astype(dtype)


def argument(name: str, shape: Any, real: bool = False) -> Any:
    return draw(shape, np.float64 if real or name in OF_REAL else np.complex128)


def matrix(n: int, scale: float, sign: float) -> Any:
    """The n by n matrix of the transform, from its definition."""
    k = np.arange(n)
    return scale * np.exp(sign * 2j * np.pi * np.outer(k, k) / n)


class TestOneAxis:
    @pytest.mark.parametrize("name", ONE_AXIS)
    @given(lengths, lengths, norms, st.booleans(), st.booleans())
    def test_gradients_are_those_of_finite_differences(
        self, name: str, length: int, n: int, norm: Any, first: bool, real: bool
    ) -> None:
        """n pads, trims or does neither; the first or the last axis; real x where that is allowed."""
        x = argument(name, (length, 2) if first else (2, length), real)
        axis = 0 if first else -1

        def transform(x: Any) -> Any:
            return getattr(fft, name)(x, n=n, axis=axis, norm=norm)

        np.testing.assert_array_equal(transform(x), getattr(np.fft, name)(x, n=n, axis=axis, norm=norm))
        check(transform, x)

    @pytest.mark.parametrize("name", ONE_AXIS)
    @given(lengths, st.none() | lengths, norms)
    def test_gradients_are_those_of_torch(self, name: str, length: int, n: Any, norm: Any) -> None:
        torch = pytest.importorskip("torch")
        if n is None and name in ("irfft", "hfft"):
            length += 1  # one entry alone would be the spectrum of an empty array
        compare(
            lambda x: getattr(fft, name)(x, n=n, norm=norm),
            lambda x: getattr(torch.fft, name)(x, n=n, norm=norm),
            argument(name, (2, length)),
        )

    @pytest.mark.parametrize("n", range(1, 14))
    def test_the_gradient_is_the_adjoint_of_the_half_spectrum(self, n: int) -> None:
        """Of every residue mod 4; imaginary parts of frequency 0 and of the last, for even n, drop out."""
        half = n // 2 + 1
        forward = matrix(n, 1, -1)[:half]
        g = draw((half,), np.complex128)
        _, pullback = ct.vjp(fft.rfft, draw((n,)))
        np.testing.assert_allclose(pullback(g)[0], (forward.conj().T @ g).real, atol=1e-13)

        weights = np.full(half, 2.0)
        weights[0] = 1
        if n % 2 == 0:
            weights[-1] = 1
        back = matrix(n, 1 / n, 1)[:, :half] * weights  # y = Re(back @ z)
        z, g = draw((half,), np.complex128), draw((n,))
        y, pullback = ct.vjp(lambda z: fft.irfft(z, n=n), z)
        np.testing.assert_allclose(y, (back @ z).real, atol=1e-13)
        gradient = pullback(g)[0]
        np.testing.assert_allclose(gradient, back.conj().T @ g, atol=1e-13)
        assert gradient[0].imag == 0 and (n % 2 == 1 or abs(gradient[-1].imag) < 1e-13)

    @given(st.integers(1, 40), norms)
    def test_there_and_back(self, n: int, norm: Any) -> None:
        x, g = draw((3, n)), draw((3, n), seed=1)
        y, pullback = ct.vjp(lambda x: fft.irfft(fft.rfft(x, norm=norm), n=n, norm=norm), x)
        np.testing.assert_allclose(y, x, atol=1e-13)
        np.testing.assert_allclose(pullback(g)[0], g, atol=1e-13)

    @pytest.mark.parametrize("name", ONE_AXIS)
    def test_single_precision_stays_single(self, name: str) -> None:
        x = argument(name, (2, 5)).astype(np.float32 if name in OF_REAL else np.complex64)
        y, pullback = ct.vjp(lambda x: getattr(fft, name)(x, n=6), x)
        assert y.dtype in (np.float32, np.complex64)
        assert pullback(y)[0].dtype == x.dtype


class TestSeveralAxes:
    @pytest.mark.parametrize("name", SEVERAL_AXES)
    @pytest.mark.parametrize(
        ("s", "axes"),
        [(None, None), (None, (0,)), (None, (2, 0)), ((4, 3), (0, 1)), ((2, 5), None), ((4, -1), (2, 0))],
    )
    @pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
    def test_gradients(self, name: str, s: Any, axes: Any, norm: Any) -> None:
        x = argument(name, (3, 4, 5))

        def transform(x: Any) -> Any:
            return getattr(fft, name)(x, s=s, axes=axes, norm=norm)

        numpy_axes = (1, 2) if axes is None and s is not None else axes
        expected = getattr(np.fft, name)(x, s=s, axes=numpy_axes, norm=norm)
        np.testing.assert_allclose(transform(x), expected, atol=1e-13)
        np.testing.assert_allclose(ct.vjp(transform, x)[0], expected, atol=1e-13)
        check(transform, x, rtol=1e-5)

    def test_lengths_and_axes_must_pair(self) -> None:
        with pytest.raises(ValueError, match=r"1 lengths s=\(4,\) for 2 axes"):
            fft.fftn(draw((3, 4)), s=(4,), axes=(0, 1))


class TestFrequencies:
    @given(st.integers(1, 12), st.sampled_from([1.0, 0.25]))
    def test_are_those_of_numpy(self, n: int, d: float) -> None:
        for name in ("fftfreq", "rfftfreq"):
            f = getattr(fft, name)
            np.testing.assert_array_equal(f(n, d=d), getattr(np.fft, name)(n, d))
            assert f(n, dtype=np.float32, device="cpu").dtype == np.float32

    @pytest.mark.parametrize("axes", [None, 0, -1, (1, 0)])
    def test_shifts(self, axes: Any) -> None:
        x = draw((4, 5), np.complex128)
        for name in ("fftshift", "ifftshift"):
            shift = functools.partial(getattr(fft, name), axes=axes)
            np.testing.assert_array_equal(shift(x), getattr(np.fft, name)(x, axes=axes))
            check(shift, x, order=1)
        np.testing.assert_array_equal(fft.ifftshift(fft.fftshift(x, axes=axes), axes=axes), x)


def test_refusals_name_what_is_wrong() -> None:
    for name in ONE_AXIS:
        transform = functools.partial(getattr(fft, name), norm="wrong")
        with pytest.raises(ValueError, match="norm.*wrong|wrong.*norm"):
            transform(draw((4,)))
        with pytest.raises(ValueError, match="norm.*wrong|wrong.*norm"):
            ct.vjp(transform, draw((4,)))
    with pytest.raises(ValueError, match="length of a transform must be positive, not 0"):
        ct.vjp(lambda x: fft.fft(x, n=0), draw((4,)))


def test_every_function_of_the_standard_is_there() -> None:
    names = [*ONE_AXIS, *SEVERAL_AXES, "fftfreq", "rfftfreq", "fftshift", "ifftshift"]
    assert sorted(names) == sorted(fft.__all__)
