"""Hypothesis strategies: algebras, tensors of them, tensors that multiply. Needs hypothesis.

The entries of a tensor are drawn as bytes, one or two each, so that drawing is quick and shrinking simple: byte 0 is
the number 0, then come 1, -1, 2, -2, ..., and most bytes stand for quantiles of the normal distribution.

    from hypothesis import given, strategies as st
    from cutnn.testing import strategies as cts

    @given(cts.algebras(real=True), st.data())
    def test_products_keep_the_zero(star, data):
        A, B = data.draw(cts.operands(star, "lm mp"))
        assert not star(A, 0 * B).any()
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, TypeAlias, TypeVar

import numpy as np

from cutnn import algebra
from cutnn.device import get_device, to_device

try:
    from hypothesis import strategies as st
except ImportError:
    raise ImportError("strategies need hypothesis: pip install 'cutnn[testing]'") from None

__all__ = ["ALGEBRAS", "algebras", "dtypes", "matrices", "operands", "tensors"]

T = TypeVar("T")
Choice: TypeAlias = (
    "T | st.SearchStrategy[T] | None"  # a value, a strategy of values, or None for the usual ones
)

ALGEBRAS = (
    "identity", "dct", "fft", "dst", "hartley", "hadamard", "haar", "random_orthogonal", "from_data", "from_matrix",
)  # fmt: skip
"""The names of algebras of one tube axis, as `algebras` takes them; they are functions of `cutnn.algebra`."""

_SMALL = (0, 1, -1, 2, -2, 3, -3, 0.5, -0.5)
_ENTRIES = np.array([*_SMALL, *(NormalDist().inv_cdf((k + 0.5) / 247) for k in range(247))])
_MOST_BYTES = 4096  # larger tensors come from a seed

_SIDES = st.integers(1, 3)
_BATCHES = st.sampled_from([(), (), (2,), (1,), (2, 1), (3, 2)])
_ENDS = st.sampled_from([0, 1, 2])  # of a batch: it, all but its first axis, or ones in its place

# Of sixteen tensors, so many are special.
_KINDS = st.sampled_from(
    ["entries"] * 7
    + ["small integers"] * 2
    + ["zeros", "identity", "equal singular values", "low rank", "low rank by face", "tiny", "huge"]
)
_KINDS_OF_SPECTRA = st.sampled_from(["entries"] * 7 + ["equal singular values", "tiny", "huge"])


def dtypes(*, single: bool | None = None, real: bool | None = None) -> st.SearchStrategy[np.dtype]:
    """float64, complex128, float32 and complex64: all, or those of single or double precision, real or complex.

    >>> from cutnn.testing import strategies
    >>> strategies.dtypes(single=True)
    sampled_from([dtype('float32'), dtype('complex64')])
    """
    every = [np.dtype(name) for name in ("float64", "complex128", "float32", "complex64")]
    return st.sampled_from(
        [
            d
            for d in every
            if single in (None, d.name in ("float32", "complex64")) and real in (None, d.kind == "f")
        ]
    )


_DTYPES = dtypes()
_OF_ONE_PRECISION = st.sampled_from([dtypes(single=False), dtypes(single=True)])


@st.composite
def algebras(
    draw: st.DrawFn,
    names: Sequence[str] | None = None,
    *,
    axes: Choice[int] = None,
    lengths: Choice[int] = None,
    real: bool | None = None,
    condition: float = 20.0,
) -> algebra.StarAlgebra:
    """Algebras of the catalogue, their products, and those of random invertible matrices.

    `names` are some of `ALGEBRAS`, `axes` is the number of tube axes (0 to 2 unless given; 0 is the algebra of
    matrices), `lengths` that of a tube (1 to 5); both are numbers or strategies. Hadamard's and Haar's algebras take
    the next lower power of two. With `real` products of real tensors are real (`star.real_products`), with False none
    are: a complex M is among the transforms. Matrices have condition numbers up to `condition`. Shrinks to few and
    short axes, to the identity. Raises ValueError for an unknown name.

    >>> from hypothesis import given
    >>> from cutnn.testing import strategies
    >>> @given(strategies.algebras(["dct", "fft"], axes=2, lengths=3))
    ... def test(star):
    ...     assert star.shape == (3, 3) and star.real_products
    >>> test()
    """
    for name in names or ():
        if name not in ALGEBRAS:
            raise ValueError(f"algebras: unknown name {name!r}; valid are {', '.join(ALGEBRAS)}")
    with_complex_matrices = ("from_data", "from_matrix")
    pool = tuple(names or ALGEBRAS)
    if real is False and not set(pool) & set(with_complex_matrices):
        raise ValueError(
            f"algebras: products of real tensors are real in all of {', '.join(pool)}; real=False needs one of "
            f"{', '.join(with_complex_matrices)}"
        )
    count = _drawn(draw, axes, st.integers(0 if names is None and real is not False else 1, 2))
    kinds = [draw(st.sampled_from(pool)) for _ in range(count)]
    complex_ = [real is not True and k in with_complex_matrices and draw(st.booleans()) for k in kinds]
    if real is False and not any(complex_):
        kinds[0] = next(name for name in pool if name in with_complex_matrices)
        complex_[0] = True
    stars = []
    for kind, is_complex in zip(kinds, complex_, strict=True):
        n = _drawn(draw, lengths, st.integers(1, 5))
        stars.append(_algebra(draw, kind, n, is_complex, condition))
    return stars[0] if len(stars) == 1 else algebra.product(*stars)


def _algebra(draw: st.DrawFn, name: str, n: int, complex_: bool, condition: float) -> algebra.StarAlgebra:
    if name == "from_matrix":
        M = draw(matrices(n, complex=complex_, condition=condition))
        return algebra.from_matrix(M + 0j if complex_ else M)
    if name == "from_data":
        dtype = np.dtype(complex if complex_ else float)
        return algebra.from_data(_entries(draw, (n, 2, 2), dtype)[0])
    if name == "random_orthogonal":
        return algebra.random_orthogonal(n, seed=draw(st.integers(0, 2**20)))
    if name in ("hadamard", "haar"):
        n = 1 << (n.bit_length() - 1)
    return getattr(algebra, name)(n)


@st.composite
def matrices(draw: st.DrawFn, n: int, *, complex: bool = False, condition: float = 20.0) -> np.ndarray:
    """Invertible matrices (n, n) with a condition number up to `condition`, far from orthogonal in general.

    They are permuted products L D U of small integers, whose off-diagonal entries are halved until the condition
    number is small enough; shrinks to the identity. Raises ValueError for a condition number below 1.

    >>> from hypothesis import given
    >>> from cutnn.testing import strategies
    >>> @given(strategies.matrices(3, complex=True, condition=10))
    ... def test(M):
    ...     assert np.linalg.cond(M) <= 10
    >>> test()
    """
    if not condition >= 1:
        raise ValueError(f"matrices: a condition number is 1 or more, not {condition}")
    small = np.array([0, 1, -1, 2, -2])
    code = np.frombuffer(draw(st.binary(min_size=2 * n * n, max_size=2 * n * n)), np.uint8).reshape(2, n, n)
    entries = small[code[0] % 5] + (1j * small[code[1] % 5] if complex else 0)
    rows = draw(st.permutations(range(n)))
    d = np.diagonal(entries) + 1.0
    d = np.where(d == 0, -1, d)
    for k in range(9):
        t = 0.5**k if k < 8 else 0.0
        L, U = np.eye(n) + t * np.tril(entries, -1), np.eye(n) + t * np.triu(entries, 1)
        M = (L * (d * np.abs(d) ** (t - 1)) @ U)[list(rows)]
        if np.linalg.cond(M) <= condition * (1 - 1e-12) or t == 0:
            break
    return M


@st.composite
def tensors(
    draw: st.DrawFn,
    star: algebra.StarAlgebra,
    rows: Choice[int] = None,
    columns: Choice[int] = None,
    *,
    batch: Choice[tuple[int, ...]] = None,
    dtype: Any = None,
    rank: int | Sequence[int] | None = None,
    condition: float | None = None,
    special: bool = True,
    device: str | None = None,
) -> Any:
    """Tensors (*batch, *shape, rows, columns) of an algebra, an array on a device, by default the default one.

    In a projected algebra they are those of its range, complex where the projector is.

    `rows` and `columns` (1 to 3 unless given), `batch` and `dtype` are values or strategies. `rank` is that of every
    face of Â, or one number a face of the whole spectrum, the faces in the order of `star.unfold` (of two faces that
    real tensors have as conjugates, the first counts). `condition` bounds the largest singular value of all faces
    over the smallest that is not zero; it is 1000 where only a rank is given. Real tensors have neither ranks by face
    nor condition numbers in an algebra with a complex M.

    With `special` nine of sixteen tensors are not just entries: small integers, zeros, the identity, equal singular
    values, low rank in all faces or in some, tiny or huge (10⁻⁶ or 10⁶ in single precision, 10⁻⁵⁰ or 10⁵⁰ in double,
    so that products of four still fit). Shrinks to zeros, and where that is no such tensor, to the identity. More
    than some 4000 entries are normal numbers from a seed. Raises ValueError for what no tensor has.

    >>> from hypothesis import given
    >>> from cutnn import algebra
    >>> from cutnn.testing import strategies
    >>> star = algebra.fft(4)
    >>> @given(strategies.tensors(star, 3, 2, dtype="float32", rank=[2, 1, 0, 1]))
    ... def test(A):
    ...     assert A.shape == (4, 3, 2) or A.shape[-3:] == (4, 3, 2)
    ...     assert np.linalg.matrix_rank(star.forward(A)[..., 0, :, :], rtol=1e-4).max() == 2
    >>> test()
    """
    sides = _drawn(draw, rows, _SIDES), _drawn(draw, columns, _SIDES)
    lead, kind = _drawn(draw, batch, _BATCHES), np.dtype(_drawn(draw, dtype, _DTYPES))
    return _tensor(draw, star, *sides, lead, kind, rank, condition, special, device)


def _tensor(
    draw: st.DrawFn,
    star: algebra.StarAlgebra,
    l: int,  # noqa: E741
    m: int,
    lead: tuple[int, ...],
    kind: np.dtype,
    rank: Any,
    condition: float | None,
    special: bool,
    device: str | None,
) -> Any:
    has_spectrum = kind.kind == "c" or star.real_products
    wide = np.dtype(complex if kind.kind == "c" else float)
    ranks = _ranks(star, rank, min(l, m), has_spectrum, condition)

    A, code = _entries(draw, (*lead, *star.shape, l, m), wide)
    chosen = ranks is not None or condition is not None
    what = draw(_KINDS_OF_SPECTRA if chosen else _KINDS) if special else "entries"
    if not A.any() and not chosen:
        what = "zeros"  # else a special tensor of zero bytes would shrink no further
    if what == "equal singular values" and has_spectrum:
        A = _with_spectrum(star, A, ranks, 1.0)
    elif chosen and not has_spectrum:
        A = _low_rank(A, min(l, m) if ranks is None else int(ranks.max(initial=0)))
    elif chosen:
        A = _with_spectrum(star, A, ranks, condition or 1e3)
    elif what == "small integers":
        A = np.where(code < 7, A, A.round())
    elif what == "zeros":
        A = 0 * A
    elif what == "identity":
        A = 0 * A + _identity(star, l, m, wide)
    elif what == "low rank by face" and has_spectrum:
        pattern = np.arange(math.prod(star.face_shape)) % (min(l, m) + 1)
        A = _with_spectrum(star, A, pattern[::-1], 1e3)
    elif what.startswith("low rank") or what == "equal singular values":
        A = _low_rank(A, max(min(l, m) - 1, 1))
    if star.face_shape != star.shape:
        A = _projection(star, A)
        kind = np.result_type(kind, np.complex64) if A.dtype.kind == "c" else kind
    if what in ("tiny", "huge"):
        A = A * 10.0 ** ((6 if kind.name in ("float32", "complex64") else 50) * (1 if what == "huge" else -1))
    return to_device(np.ascontiguousarray(A.astype(kind)), device or get_device())


@st.composite
def operands(
    draw: st.DrawFn,
    star: algebra.StarAlgebra,
    form: str = "lm mp",
    *,
    alike: bool = False,
    batch: Choice[tuple[int, ...]] = None,
    dtype: Any = None,
    condition: float | None = None,
    special: bool = True,
    device: str | None = None,
) -> tuple[Any, ...]:
    """Tensors whose numbers of rows and columns are named by letters: those of "lm mp" multiply.

    Equal letters are equal numbers, and a digit is itself: "11" is a tube. Dtypes are of one precision, real or
    complex each, unless given, and batches broadcast; with `alike` all have one dtype and one batch. Tensors "mm",
    of equal letters, have a `condition` where one is given (in an algebra with a complex M they are then complex).
    See `tensors` for the rest.

    >>> from hypothesis import given
    >>> from cutnn import algebra
    >>> from cutnn.testing import strategies
    >>> star = algebra.dct(3)
    >>> @given(strategies.operands(star, "mm mp", dtype="float64", condition=10))
    ... def test(AB):
    ...     A, B = AB
    ...     assert np.allclose(star(A, star.solve(A, B)), B, rtol=1e-10, atol=1e-10 * abs(B).max())
    >>> test()
    """
    words = form.split()
    if not words or not all(len(word) == 2 and word.isalnum() for word in words):
        raise ValueError(f"operands: form={form!r}; expected two letters or digits a tensor, as in 'lm mp'")
    sides = {x: int(x) if x.isdigit() else draw(_SIDES) for x in dict.fromkeys("".join(words))}
    whole = _drawn(draw, batch, _BATCHES)
    kinds = draw(_OF_ONE_PRECISION) if dtype is None else dtype
    common = np.dtype(_drawn(draw, kinds, _DTYPES)) if alike else None
    if alike and condition is not None and not star.real_products:
        common = np.result_type(common, np.complex64)
    drawn = []
    for a, b in map(tuple, words):
        lead = whole if alike or batch is not None else [whole, whole[1:], (1,) * len(whole)][draw(_ENDS)]
        kind = np.dtype(_drawn(draw, kinds, _DTYPES)) if common is None else common
        bound = condition if a == b and not a.isdigit() else None
        if bound is not None and not star.real_products:
            kind = np.result_type(kind, np.complex64)
        drawn.append(_tensor(draw, star, sides[a], sides[b], lead, kind, None, bound, special, device))
    return tuple(drawn)


# -------------------------------------------------------------------------------------------------- helpers


def _drawn(draw: st.DrawFn, given: Any, usual: st.SearchStrategy[Any]) -> Any:
    if isinstance(given, st.SearchStrategy):
        return draw(given)
    return draw(usual) if given is None else given


def _entries(draw: st.DrawFn, shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Entries in double precision, and the bytes that they come from."""
    size = math.prod(shape)
    count = size * (2 if dtype.kind == "c" else 1)
    if count > _MOST_BYTES:
        code = np.random.default_rng(draw(st.integers(0, 2**20))).integers(0, 256, count, dtype=np.uint8)
    else:
        code = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), np.uint8)
    values = _ENTRIES[code]
    if dtype.kind != "c":
        return values.reshape(shape), code.reshape(shape)
    return (values[:size] + 1j * values[size:]).reshape(shape), code[:size].reshape(shape)


def _ranks(
    star: algebra.StarAlgebra, rank: Any, most: int, has_spectrum: bool, condition: float | None
) -> np.ndarray | None:
    """The rank of each face, or None where any will do."""
    if not has_spectrum and (condition is not None or np.ndim(rank)):
        raise ValueError(
            f"tensors: in {star}, with its complex M, a real tensor has no condition number or ranks by face of "
            "one's choice; give a complex dtype, or one rank for all faces"
        )
    if condition is not None and not condition >= 1:
        raise ValueError(f"tensors: a condition number is 1 or more, not {condition}")
    if rank is None:
        return None
    faces = math.prod(star.face_shape)
    ranks = np.asarray(rank, dtype=int).reshape(-1) if np.ndim(rank) else np.full(faces, rank)
    if ranks.size != faces or ranks.min(initial=0) < 0 or ranks.max(initial=0) > most:
        raise ValueError(
            f"tensors: rank={rank}; expected a number from 0 to {most}, the smaller side, or {faces} of them"
        )
    return ranks


def _identity(star: algebra.StarAlgebra, rows: int, columns: int, dtype: np.dtype) -> Any:
    """The identity from the matrices alone, cut to rows by columns; its real part where it must be real."""
    tube = _matrices(star)[1].sum(axis=1)
    tube = tube.reshape(*star.shape, 1, 1) if dtype.kind == "c" else tube.real.reshape(*star.shape, 1, 1)
    return tube * np.eye(rows, columns)


def _low_rank(A: np.ndarray, rank: int) -> np.ndarray:
    """A with its later columns replaced by sums of the first ones: of that rank in any transform domain."""
    weights = np.concatenate([np.eye(rank), np.ones((rank, A.shape[-1] - rank))], axis=1)
    product: np.ndarray = A[..., :rank] @ weights
    return product


def _with_spectrum(
    star: algebra.StarAlgebra, A: np.ndarray, ranks: np.ndarray | None, condition: float
) -> np.ndarray:
    """A with the singular values of the faces of Â, of each tensor, brought into [top / condition, top] and cut.

    A itself where they are so already. By the matrix M alone, not by the functions that are to be tested.
    """
    M, inverse = _matrices(star)
    n, lead = len(M), A.ndim - 2 - len(star.shape)
    A_hat = _along_tubes(M, A, lead)
    partner = np.arange(n)
    if A.dtype.kind != "c":  # faces of a real tensor come in conjugate pairs, as the rows of M do
        partner = np.abs(M.conj()[:, None] - M).sum(axis=-1).argmin(axis=1)
        A_hat[..., partner == np.arange(n), :, :] = A_hat[..., partner == np.arange(n), :, :].real
    first = np.flatnonzero(np.arange(n) <= partner)
    U, s, Vh = np.linalg.svd(A_hat[..., first, :, :], full_matrices=False)
    top = s.max(axis=(-2, -1), keepdims=True, initial=0)
    new = np.where(top == 0, 1, np.clip(s, top / condition * (1 + 1e-9), top))
    if ranks is not None:
        new = np.where(np.arange(s.shape[-1]) < ranks[first][:, None], new, 0)
    if np.array_equal(new, s):
        return A
    A_hat[..., first, :, :] = (U * new[..., None, :]) @ Vh
    others = np.flatnonzero(np.arange(n) > partner)
    A_hat[..., others, :, :] = A_hat[..., partner[others], :, :].conj()
    back = _along_tubes(inverse, A_hat, lead).reshape(A.shape)
    return back if A.dtype.kind == "c" else back.real


def _projection(star: algebra.StarAlgebra, A: np.ndarray) -> np.ndarray:
    """M⁻¹ M applied to the tubes of A, by the matrices alone; real where both are."""
    M, inverse = _matrices(star)
    P = inverse @ M
    P = P if np.abs(P.imag).max() > 1e-9 else P.real
    return _along_tubes(P, A, A.ndim - 2 - len(star.shape)).reshape(A.shape)


def _along_tubes(M: np.ndarray, A: np.ndarray, lead: int) -> np.ndarray:
    """M applied to the tubes of A, whose tube axes, after `lead` axes of a batch, become one."""
    tubes: np.ndarray = M @ A.reshape(*A.shape[:lead], M.shape[1], -1)
    return tubes.reshape(*A.shape[:lead], len(M), *A.shape[-2:])


def _matrices(star: algebra.StarAlgebra) -> tuple[np.ndarray, np.ndarray]:
    """M of all tube axes together, and M⁻¹, or the pseudoinverse of an M with fewer rows."""
    M: np.ndarray = np.eye(1)
    for transform in star.transforms:
        M = np.kron(M, transform.matrix())
    return M, np.linalg.pinv(M)
