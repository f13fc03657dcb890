"""How tubes are transformed: the matrix M of a tube axis, its inverse, and the road by which each is applied.

Short tubes go through one matrix product, long ones through a fast transform where one is known; the lengths
where the roads cross are measured (`_fast.py`, and `Fourier` below). Every road is differentiable.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cutnn import array as ct
from cutnn.algebra._fast import Fast
from cutnn.algebra._modes import mode_product, orthonormal, to_complex, to_real
from cutnn.device import namespace
from cutnn.tape import raw

__all__ = ["Fourier", "Identity", "Transform"]


class Transform:
    """An invertible linear map of the tubes of length n, its matrix M real or complex.

    `matrix` is M itself, (n, n), or a function that makes a real M from n, when it is first needed. `scale` is c
    where M Mᴴ = c I, else None, and `inverse` may give M⁻¹ where it is None. `fast` is a fast road for real
    orthonormal M. Raises ValueError where M has another shape or M Mᴴ is not c I, and TypeError where the
    function makes a complex M; both when M, or M⁻¹, is first needed.

    With a scale M may have fewer rows than n: a transform has as many `faces` as M has rows, M⁻¹ stands for Mᴴ/c,
    and M⁻¹ M, then, is the orthogonal projector on tubes that such a transform determines (`algebra.projected`).

    >>> from cutnn import algebra
    >>> (transform,) = algebra.dct(2).transforms
    >>> transform, transform.real, transform.scale
    (dct(2), True, 1.0)
    >>> transform.matrix("float32")
    array([[ 0.70710677,  0.70710677],
           [ 0.70710677, -0.70710677]], dtype=float32)
    """

    constant = True
    """Whether M is fixed once and for all; if not, it is an array that gradients flow to (`algebra.learned`)."""

    def __init__(
        self,
        name: str,
        n: int,
        matrix: Any,
        *,
        inverse: np.ndarray | None = None,
        scale: float | None = None,
        fast: Fast | None = None,
        label: str | None = None,
    ) -> None:
        self.name = name
        self.n = n
        self.scale = scale
        self._label = label or f"{name}({n})"
        if not callable(matrix):
            matrix = np.array(matrix)
        self.real = callable(matrix) or matrix.dtype.kind != "c"
        self._matrix = matrix
        self.faces = n if callable(matrix) else len(self._checked(matrix))
        self._inverse = inverse
        self._fast = fast
        self._cache: dict[Any, Any] = {}

    @property
    def half(self) -> int:
        """The number of entries that the transform of a real tube is held in."""
        return self.faces

    @property
    def real_products(self) -> bool:
        """Whether products of real tubes are real."""
        return self.real

    # ------------------------------------------------------------------------------------------- matrices

    def matrix(self, dtype: Any = None) -> np.ndarray:
        """M, (faces, n), in NumPy and read-only, in the precision of dtype; complex where M is."""
        return self._host("M", dtype)

    def inverse_matrix(self, dtype: Any = None) -> np.ndarray:
        """M⁻¹, (n, faces), as `matrix`."""
        return self._host("inverse", dtype)

    def identity_tube(self) -> np.ndarray:
        """The unit of the tubes, M⁻¹ 1, (n,)."""
        return self.inverse(np.ones((self.faces, 1, 1)), -3)[:, 0, 0]

    # -------------------------------------------------------------------------------------------- the maps

    def forward(self, A: Any, axis: int) -> Any:
        """M applied to every tube of A, along `axis`, which counts from the end."""
        if self._is_fast(A):
            return orthonormal(A, (self._fast.forward, self._fast.inverse), axis)  # type: ignore[union-attr]
        return self._apply("M", A, axis)

    def inverse(self, A_hat: Any, axis: int) -> Any:
        """M⁻¹ applied to every tube of A_hat."""
        if self._is_fast(A_hat):
            return orthonormal(A_hat, (self._fast.inverse, self._fast.forward), axis)  # type: ignore[union-attr]
        return self._apply("inverse", A_hat, axis)

    def reflect(self, A: Any, axis: int) -> Any:
        """From conj(a) to aᴴ, whose transform is conj(M a): P = M⁻¹ conj(M) applied, nothing where it is I."""
        return A if self.real and self.faces == self.n else self._apply("reflection", A, axis)

    def _apply(self, which: str, A: Any, axis: int) -> Any:
        if not self.real and A.dtype.kind != "c":
            A = ct.astype(A, _complex_dtype(A.dtype))
        return mode_product(A, self._like(which, A), axis)

    def _is_fast(self, A: Any) -> bool:
        fast = self._fast
        return fast is not None and self.n >= (fast.single if _is_single(A) else fast.double)

    # ------------------------------------------------------------------------------------ cached matrices

    def _build(self, which: str) -> np.ndarray:
        """A matrix of the transform in double precision."""
        if which == "M":
            return self._checked(self._matrix(self.n) if callable(self._matrix) else self._matrix)
        M = self._host("M")
        if which == "reflection":
            return self._host("inverse") @ M.conj()
        if self.scale is not None:
            inverse = M.conj().T / self.scale
            error = np.abs(M @ inverse - np.eye(self.faces)).max()
            if not error < 1e-8:
                raise ValueError(
                    f"{self}: M Mᴴ is not c I with c = scale = {self.scale:g}: M Mᴴ / c differs from I by "
                    f"{error:.2g}; leave scale out where M is not a multiple of a unitary matrix"
                )
            return inverse
        return np.linalg.inv(M) if self._inverse is None else self._inverse

    def _checked(self, M: np.ndarray) -> np.ndarray:
        n, wide = self.n, self.scale is not None and not callable(self._matrix)
        if M.ndim != 2 or M.shape[1] != n or not (0 < M.shape[0] <= n if wide else M.shape[0] == n):
            fewer = ", or fewer rows" if wide else ""
            raise ValueError(f"{self}: its matrix has shape {M.shape}; expected ({n}, {n}){fewer}")
        if self.real and M.dtype.kind == "c":
            raise TypeError(f"{self}: its formula makes a complex matrix; give Transform that matrix instead")
        return M

    def _host(self, which: str, dtype: Any = None) -> np.ndarray:
        if dtype is None:
            found = self._cache.get(which)
            if found is None:
                found = self._cache[which] = np.array(self._build(which))
                found.flags.writeable = False
            return found
        double = self._host(which)
        kind = np.dtype(dtype)
        cast = double.astype(_complex_dtype(kind) if double.dtype.kind == "c" else kind, copy=False)
        cast.flags.writeable = False
        return cast

    def _like(self, which: str, A: Any) -> Any:
        """A matrix in the dtype, the library and on the device of A."""
        A = raw(A)
        key = (which, type(A), A.dtype, getattr(A.device, "id", A.device))
        found = self._cache.get(key)
        if found is None:
            matrix = self._host(which).astype(self._dtype_of(which, A))
            found = self._cache[key] = namespace(A).asarray(matrix, device=A.device)
        return found

    def _dtype_of(self, which: str, A: Any) -> Any:
        return A.dtype

    # ------------------------------------------------------------------------------------------- as values

    def _identity(self) -> Any:
        return (type(self), self.name, self.n)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Transform) or self._identity() != other._identity():
            return False
        if callable(self._matrix) or callable(other._matrix):
            return self._matrix is other._matrix
        return np.array_equal(self._matrix, other._matrix)

    def __hash__(self) -> int:
        return hash(self._identity())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}  # what is cached may be on a device, and is made again

    def __repr__(self) -> str:
        return self._label


class Identity(Transform):
    """M = I: the tubes as they are."""

    def __init__(self, n: int) -> None:
        super().__init__("identity", n, np.eye, scale=1.0)

    def forward(self, A: Any, axis: int) -> Any:
        return A

    def inverse(self, A_hat: Any, axis: int) -> Any:
        return A_hat


class Fourier(Transform):
    """The unnormalised discrete Fourier transform; a real tube has the half spectrum of n//2+1 entries.

    Tubes of a real A go to the first n//2+1 entries of their spectra and come back real, those of a complex A
    go to all n and come back complex; n > 2 tells them apart. For n ≤ 2 the matrix is real, and so are
    transforms of real tubes.
    """

    # Matrix product against NumPy's FFT, microseconds on two cores (NumPy 2.4, OpenBLAS), faces of 96 x 96:
    #            real to half spectrum            complex
    #            float32          float64         complex64        complex128
    #   n        GEMM    FFT      GEMM    FFT     GEMM    FFT      GEMM    FFT
    #   32        355   1273       424    764      527   2659       973   3131
    #   128      2434   7331      4857   3702     6893  16515     13955  11052
    #   256      8194  14455     14974   9657    25682  40843     60285  29247
    #   512     28846  38463     59727  21009    96685  80834    208683  55685
    fast_from = {"single": 512, "double": 128}

    def __init__(self, n: int) -> None:
        super().__init__("fft", n, _fourier_matrix, scale=float(n))
        self.real = n <= 2

    @property
    def half(self) -> int:
        return self.n // 2 + 1

    @property
    def real_products(self) -> bool:
        return True

    def identity_tube(self) -> np.ndarray:
        return np.eye(1, self.n)[0]

    def forward(self, A: Any, axis: int) -> Any:
        """The spectra of the tubes, halved where A is real (and n > 2)."""
        if self.real:
            return self._apply("M", A, axis)
        if A.dtype.kind == "c":
            return ct.fft.fft(A, axis=axis) if self._is_fast(A) else self._apply("M", A, axis)
        if self._is_fast(A):
            return ct.fft.rfft(A, axis=axis)
        return to_complex(A, self._like("to half", A), axis)

    def inverse(self, A_hat: Any, axis: int) -> Any:
        """Real tubes from half spectra, complex ones from whole spectra."""
        if self.real:
            return self._apply("inverse", A_hat, axis)
        if A_hat.shape[axis] == self.n:
            if self._is_fast(A_hat):
                return ct.fft.ifft(A_hat, axis=axis)
            return self._apply("inverse", A_hat, axis)
        if self._is_fast(A_hat):
            return ct.fft.irfft(A_hat, n=self.n, axis=axis)
        return to_real(A_hat, self._like("from half", A_hat), axis)

    def reflect(self, A: Any, axis: int) -> Any:
        """The faces 2 ... n in reverse."""
        return A if self.real else ct.roll(ct.flip(A, axis=axis), 1, axis=axis)

    def _is_fast(self, A: Any) -> bool:
        return self.n >= self.fast_from["single" if _is_single(A) else "double"]

    def _build(self, which: str) -> np.ndarray:
        if which == "to half":  # [Re F; Im F], the first rows of F
            F = self._host("M")[: self.half]
            return np.concatenate([F.real, F.imag])
        if which == "from half":  # [Re B, -Im B] where a = Re(B â): the entries of a pair count twice
            twice = np.where((np.arange(self.half) * 2) % self.n == 0, 1.0, 2.0)
            B = self._host("inverse")[:, : self.half] * twice
            return np.concatenate([B.real, -B.imag], axis=1)
        return super()._build(which)

    def _dtype_of(self, which: str, A: Any) -> Any:
        return A.real.dtype if which == "from half" else A.dtype


def _fourier_matrix(n: int) -> np.ndarray:
    F = np.fft.fft(np.eye(n))
    return F.real if n <= 2 else F


def _is_single(A: Any) -> bool:
    return A.dtype.itemsize <= (8 if A.dtype.kind == "c" else 4)


def _complex_dtype(dtype: Any) -> Any:
    return np.result_type(dtype, np.complex64)
