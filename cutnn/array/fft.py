"""The Fourier chapter of the array API standard.

Rules are bilinear (see `cutnn.tape`), and the matrix of a Fourier transform is its own transpose, so the rule
of `fft` is `fft`. Those of `rfft` and `irfft` are one another but for the weights of the half spectrum: each
of its entries stands for two, only that of frequency 0, and for even n the last, for one. Padding and
trimming to n (`_resize`) are each other's transposes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cutnn.array._define import library
from cutnn.array._linear import linear, normal_axes
from cutnn.array.elementwise import conj
from cutnn.array.manipulation import roll
from cutnn.device import default_namespace, namespace, to_device
from cutnn.tape import Traced, raw

__all__ = [
    "fft",
    "fftfreq",
    "fftn",
    "fftshift",
    "hfft",
    "ifft",
    "ifftn",
    "ifftshift",
    "ihfft",
    "irfft",
    "irfftn",
    "rfft",
    "rfftfreq",
    "rfftn",
]

# A transform and its way back scale by factors whose product is 1/n; this is the norm with the other's
# factor.
_SWAPPED = {"backward": "forward", "ortho": "ortho", "forward": "backward"}

# Of plain arrays.
_LIBRARY = {
    name: library(f"fft.{name}")
    for name in ("fft", "ifft", "fftn", "ifftn", "rfft", "irfft", "rfftn", "irfftn")
}

# ------------------------------------------------------------------------------------------------ transforms


def fft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    """fft(x, /, *, n=None, axis=-1, norm="backward") of the Python array API standard; x may be real.

    With n the axis is padded with zeros at its end, or trimmed, to that length.

    >>> import cutnn as ct
    >>> ct.fft.fft(ct.asarray([1.0, 2.0, 3.0]))[0]
    np.complex128(6+0j)
    """
    if type(x) is not Traced:
        return _LIBRARY["fft"](x, n=n, axis=axis, norm=norm)
    return _fftn(_prepared(x, n, axis), (axis,), norm, False)


def ifft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    """ifft(x, /, *, n=None, axis=-1, norm="backward") of the Python array API standard; x may be real."""
    if type(x) is not Traced:
        return _LIBRARY["ifft"](x, n=n, axis=axis, norm=norm)
    return _fftn(_prepared(x, n, axis), (axis,), norm, True)


def fftn(
    x: Any, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward"
) -> Any:
    """fftn(x, /, *, s=None, axes=None, norm="backward") of the Python array API standard; x may be real.

    `s` gives lengths for the axes, by default for the last ones; `axes` is by default all.
    """
    s, axes = _lengths_and_axes(x, s, axes)
    if type(x) is not Traced:
        return _LIBRARY["fftn"](x, s=s, axes=axes, norm=norm)
    return _fftn(_prepared(x, s, axes), axes, norm, False)


def ifftn(
    x: Any, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward"
) -> Any:
    """ifftn(x, /, *, s=None, axes=None, norm="backward") of the Python array API standard; x may be real."""
    s, axes = _lengths_and_axes(x, s, axes)
    if type(x) is not Traced:
        return _LIBRARY["ifftn"](x, s=s, axes=axes, norm=norm)
    return _fftn(_prepared(x, s, axes), axes, norm, True)


# ---------------------------------------------------------------------------------------- of real arrays


def rfft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    """rfft(x, /, *, n=None, axis=-1, norm="backward") of the Python array API standard.

    The first n//2 + 1 entries of the transform of a real array; the others are their conjugates.

    >>> import cutnn as ct
    >>> ct.fft.rfft(ct.ones(5)).shape
    (3,)
    """
    if type(x) is not Traced:
        return _LIBRARY["rfft"](x, n=n, axis=axis, norm=norm)
    length = x.shape[axis] if n is None else n
    return _rfft(_resize(x, length, axis), length, axis, norm)


def irfft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    """irfft(x, /, *, n=None, axis=-1, norm="backward") of the Python array API standard, n by default even.

    The imaginary part of frequency 0, and for even n of the last, is taken as 0, in the gradient too.

    >>> import cutnn as ct
    >>> ct.fft.irfft(ct.fft.rfft(ct.asarray([1.0, 2.0, 3.0])), n=3)
    array([1., 2., 3.])
    """
    if type(x) is not Traced:
        return _LIBRARY["irfft"](x, n=n, axis=axis, norm=norm)
    length = 2 * (x.shape[axis] - 1) if n is None else n
    return _irfft(_complex(_resize(x, length // 2 + 1, axis)), length, axis, norm)


def rfftn(
    x: Any, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward"
) -> Any:
    """rfftn(x, /, *, s=None, axes=None, norm="backward") of the Python array API standard.

    `rfft` along the last of the axes, then `fftn` along the others.
    """
    s, axes = _lengths_and_axes(x, s, axes)
    if type(x) is not Traced:
        return _LIBRARY["rfftn"](x, s=s, axes=axes, norm=norm)
    half = rfft(x, n=None if s is None else s[-1], axis=axes[-1], norm=norm)
    return fftn(half, s=None if s is None else s[:-1], axes=axes[:-1], norm=norm) if axes[:-1] else half


def irfftn(
    x: Any, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward"
) -> Any:
    """irfftn(x, /, *, s=None, axes=None, norm="backward") of the Python array API standard.

    `ifftn` along all but the last of the axes, then `irfft` along that.
    """
    s, axes = _lengths_and_axes(x, s, axes)
    if type(x) is not Traced:
        return _LIBRARY["irfftn"](x, s=s, axes=axes, norm=norm)
    if axes[:-1]:
        x = ifftn(x, s=None if s is None else s[:-1], axes=axes[:-1], norm=norm)
    return irfft(x, n=None if s is None else s[-1], axis=axes[-1], norm=norm)


def hfft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    """hfft(x, /, *, n=None, axis=-1, norm="backward") of the Python array API standard.

    The transform, which is real, of an array whose first half is x and whose second half is its conjugate,
    mirrored.
    """
    return irfft(conj(x), n=n, axis=axis, norm=_SWAPPED.get(norm, norm))


def ihfft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
    """ihfft(x, /, *, n=None, axis=-1, norm="backward") of the array API standard, the inverse of hfft."""
    return conj(rfft(x, n=n, axis=axis, norm=_SWAPPED.get(norm, norm)))


# ------------------------------------------------------------------------------------------- frequencies


def fftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: str | None = None) -> Any:
    """fftfreq(n, /, *, d=1.0, dtype=None, device=None) of the Python array API standard.

    >>> import cutnn as ct
    >>> ct.fft.fftfreq(4)
    array([ 0.  ,  0.25, -0.5 , -0.25])
    """
    return _placed(default_namespace().fft.fftfreq(n, d=d), dtype, device)


def rfftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: str | None = None) -> Any:
    """rfftfreq(n, /, *, d=1.0, dtype=None, device=None) of the Python array API standard.

    >>> import cutnn as ct
    >>> ct.fft.rfftfreq(4)
    array([0.  , 0.25, 0.5 ])
    """
    return _placed(default_namespace().fft.rfftfreq(n, d=d), dtype, device)


def fftshift(x: Any, /, *, axes: int | Sequence[int] | None = None) -> Any:
    """fftshift(x, /, *, axes=None) of the Python array API standard: frequency 0 moves to the middle."""
    shifted = normal_axes("fftshift", axes, len(x.shape))
    return roll(x, tuple([x.shape[a] // 2 for a in shifted]), axis=shifted)


def ifftshift(x: Any, /, *, axes: int | Sequence[int] | None = None) -> Any:
    """ifftshift(x, /, *, axes=None) of the Python array API standard: the inverse of fftshift."""
    shifted = normal_axes("ifftshift", axes, len(x.shape))
    return roll(x, tuple([-(x.shape[a] // 2) for a in shifted]), axis=shifted)


# ------------------------------------------------------------------------------------ primitives, helpers


def _fftn_rule(g: Any, shape: Any, axes: tuple[int, ...], norm: str, inverse: bool) -> Any:
    return _fftn(g, axes, norm, inverse)


@linear(_fftn_rule)
def _fftn(x: Any, axes: tuple[int, ...], norm: str, inverse: bool) -> Any:
    fft = namespace(x).fft
    if len(axes) == 1:
        return (fft.ifft if inverse else fft.fft)(x, axis=axes[0], norm=norm)
    return (fft.ifftn if inverse else fft.fftn)(x, axes=axes, norm=norm)


def _rfft_rule(g: Any, shape: Any, n: int, axis: int, norm: str) -> Any:
    return _irfft(conj(g) * _weights(g, n, axis, one=1.0, two=0.5), n, axis, _SWAPPED[norm])


@linear(_rfft_rule)
def _rfft(x: Any, n: int, axis: int, norm: str) -> Any:
    return namespace(x).fft.rfft(x, n=n, axis=axis, norm=norm)


def _irfft_rule(g: Any, shape: Any, n: int, axis: int, norm: str) -> Any:
    return conj(_rfft(g, n, axis, _SWAPPED[norm])) * _weights(g, n, axis, one=1.0, two=2.0)


@linear(_irfft_rule)
def _irfft(x: Any, n: int, axis: int, norm: str) -> Any:
    return namespace(x).fft.irfft(x, n=n, axis=axis, norm=norm)


def _weights(like: Any, n: int, axis: int, one: float, two: float) -> Any:
    """For each entry of a half spectrum: `one` where it stands for itself alone, else `two`."""
    like = raw(like)
    weights = namespace(like).full(n // 2 + 1, two, dtype=like.real.dtype)
    weights[0] = one
    if n % 2 == 0:
        weights[-1] = one
    return weights.reshape((-1, *[1] * (like.ndim - 1 - axis % like.ndim)))


def _resize(x: Any, length: int, axis: int) -> Any:
    return x if x.shape[axis] == length else _resized(x, length, axis)


def _resized_rule(g: Any, shape: tuple[int, ...], length: int, axis: int) -> Any:
    return _resized(g, shape[axis], axis)


@linear(_resized_rule)
def _resized(x: Any, length: int, axis: int) -> Any:
    """x trimmed, or padded with zeros, to this length."""
    if length < 1:
        raise ValueError(f"the length of a transform must be positive, not {length}")
    axis %= x.ndim
    kept = (*[slice(None)] * axis, slice(min(length, x.shape[axis])))
    if length < x.shape[axis]:
        return x[kept]
    padded = namespace(x).zeros((*x.shape[:axis], length, *x.shape[axis + 1 :]), dtype=x.dtype)
    padded[kept] = x
    return padded


def _prepared(x: Any, lengths: Any, axes: Any) -> Any:
    """A traced array of the lengths of the transform, complex."""
    if isinstance(axes, int):
        lengths, axes = None if lengths is None else (lengths,), (axes,)
    if lengths is not None:
        for length, axis in zip(lengths, axes, strict=True):
            x = _resize(x, length, axis)
    return _complex(x)


def _complex(x: Any) -> Any:
    if x.dtype.kind == "c":
        return x
    xp = namespace(raw(x))
    return x.astype(xp.result_type(x.dtype, xp.complex64))


def _lengths_and_axes(x: Any, s: Any, axes: Any) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """Lengths and axes of a transform along several: -1 is the length there is."""
    ndim = len(x.shape)
    if axes is None:
        axes = range(ndim) if s is None else range(ndim - len(s), ndim)
    axes = normal_axes("fftn", tuple(axes), ndim)
    if s is not None and len(s) != len(axes):
        raise ValueError(f"fftn: {len(s)} lengths s={tuple(s)} for {len(axes)} axes {axes}")
    if s is not None:
        s = tuple([x.shape[a] if n == -1 else n for n, a in zip(s, axes, strict=True)])
    return s, axes


def _placed(x: Any, dtype: Any, device: str | None) -> Any:
    x = x if dtype is None else x.astype(dtype)
    return x if device is None else to_device(x, device)
