"""What the algebra says of tensors that do not fit it, and of faces that have no inverse."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from cutnn import array as ct
from cutnn.algebra._faces import Faces, name_of_face
from cutnn.device import holds, namespace, to_host
from cutnn.tape import raw

if TYPE_CHECKING:
    from cutnn.algebra.star import StarAlgebra


def tensor(star: StarAlgebra, name: str, A: Any, label: str = "A") -> Any:
    """A as a tensor of the algebra in floats, or an error that says how it does not fit."""
    shape = _shape(star, name, label, A)
    tubes = len(star.shape)
    if len(shape) < tubes + 2 or shape[-2 - tubes : -2] != star.shape:
        _misfit(star, name, label, shape)
    return _floats(star, name, label, A)


def finite(star: StarAlgebra, name: str, A: Any, label: str = "A") -> Any:
    """A, or an error that says where it is not finite: LAPACK knows only that something did not converge."""
    a = raw(A)
    bad = ~namespace(a).isfinite(a)
    if holds(bad.any()):
        host = to_host(bad)
        first = tuple(int(k) for k in np.argwhere(host)[0])
        count = int(host.sum())
        which = (
            f"an entry that is not finite: {a[first]}"
            if count == 1
            else (f"{count} entries that are not finite; the first is {a[first]},")
        )
        raise ValueError(f"{star}.{name}: {label}, {tuple(a.shape)}, has {which} at {first}")
    return A


def rank(star: StarAlgebra, name: str, A: Any, k: Any) -> None:
    """Raise where k is no tubal rank of A."""
    most = min(A.shape[-2:])
    if not _is_integer(k):
        raise TypeError(f"{star}.{name}: the rank is {k!r}; expected an integer from 1 to {most}")
    if not 1 <= k <= most:
        raise ValueError(f"{star}.{name}: the rank of A, {tuple(A.shape)}, is one of 1 to {most}, not {k}")


def samples(
    star: StarAlgebra, A: Any, k: Any, tolerance: Any, oversampling: Any, power_iterations: Any
) -> None:
    """Raise where these do not say how many samples `svd_randomized` takes."""
    name = f"{star}.svd_randomized"
    if (k is None) == (tolerance is None):
        raise TypeError(f"{name}: give either a rank or a tolerance, 1e-3 say")
    if k is not None:
        rank(star, "svd_randomized", A, k)
    elif not _is_real(tolerance) or not 0 < tolerance < 1:
        raise ValueError(f"{name}: the tolerance is relative, above 0 and below 1, and is {tolerance}")
    for what, number in (
        ("oversampling", oversampling),
        ("the number of power iterations", power_iterations),
    ):
        if not _is_integer(number):
            raise TypeError(f"{name}: {what} is {number!r}; expected an integer")
    least = 0 if tolerance is None else 1
    if oversampling < least:
        what = (
            "samples beyond the rank are 0" if least == 0 else "samples taken at a time, oversampling, are 1"
        )
        raise ValueError(f"{name}: the {what} or more, not {oversampling}")
    if power_iterations < 0:
        raise ValueError(f"{name}: the power iterations are 0 or more, not {power_iterations}")
    if 0 in A.shape:
        raise ValueError(f"{name}: A, {tuple(A.shape)}, has no entries to sample")


def share(star: StarAlgebra, name: str, energy: Any, count: Any) -> None:
    """Raise where these do not say how many singular triplets are kept."""
    if (energy is None) == (count is None):
        raise TypeError(f"{star}.{name}: give either an energy, 0.99 say, or a count of singular triplets")
    if energy is not None and (not _is_real(energy) or not 0 < energy <= 1):
        raise ValueError(f"{star}.{name}: the energy is a fraction above 0, up to 1, and is {energy!r}")
    if count is not None and not _is_integer(count):
        raise TypeError(f"{star}.{name}: the count of singular triplets is {count!r}; expected an integer")
    if count is not None and count < 1:
        raise ValueError(f"{star}.{name}: the count of singular triplets is at least 1, and is {count}")


def cutoff(star: StarAlgebra, name: str, rtol: Any) -> None:
    """Raise where rtol is no part of the largest singular value."""
    if rtol is not None and (not _is_real(rtol) or not rtol >= 0):
        raise ValueError(
            f"{star}.{name}: rtol is {rtol!r}; expected a number of at least 0, 1e-10 say, or None for rounding errors"
        )


def scale(star: StarAlgebra, name: str, remedy: str) -> float:
    """The ℓ of MᴴM = ℓI, which the nuclear norm needs; or an error that says which M has none, and what to do."""
    if star.scale is None:
        transform = next(t for t in star.transforms if t.scale is None)
        raise ValueError(
            f"{star}.{name}: the nuclear norm needs M to be a multiple of a unitary matrix, MᴴM = ℓI, and that of "
            f"{transform} is none; {remedy}"
        )
    return star.scale


def transformed(star: StarAlgebra, A_hat: Any) -> Any:
    """A_hat as a transform in floats, or an error that says how it is none."""
    shape = _shape(star, "inverse", "A_hat", A_hat)
    tubes = len(star.shape)
    faces = tuple(shape[-2 - tubes : -2])
    if len(shape) < tubes + 2 or faces not in (star.face_shape, star.half_shape):
        halved = star.half_shape != star.face_shape
        real = f", or {_form(star, star.half_shape)} from real tensors" if halved else ""
        raise ValueError(
            f"{star}.inverse: a transform has shape {_form(star, star.face_shape)}{real}, not {tuple(shape)}; "
            "expected what forward gives, or products of it"
        )
    if faces != star.face_shape and A_hat.dtype.kind != "c":
        raise TypeError(f"{star}.inverse: a half spectrum is complex; this one holds {A_hat.dtype}")
    return _floats(star, "inverse", "A_hat", A_hat)


def factors(star: StarAlgebra, name: str, *tensors: Any) -> None:
    """Raise where neighbours do not fit as factors of a product."""
    for k, (A, B) in enumerate(zip(tensors[:-1], tensors[1:], strict=True)):
        if A.shape[-1] != B.shape[-2]:
            raise ValueError(
                f"{star}.{name}: factors {k + 1} and {k + 2} have shapes {tuple(A.shape)} and "
                f"{tuple(B.shape)}; the first, with {A.shape[-1]} lateral slices, needs a second of shape "
                f"{_form(star, rows=A.shape[-1])}, with as many rows, not {B.shape[-2]}"
            )
    batches(star, name, *tensors)


def devices(star: StarAlgebra, name: str, *tensors: Any) -> None:
    """Raise where tensors live on several devices."""
    try:
        namespace(*map(raw, tensors))
    except TypeError as error:
        raise TypeError(f"{star}.{name}: {error}") from None


def batches(star: StarAlgebra, name: str, *tensors: Any) -> None:
    """Raise where batch axes do not broadcast."""
    lead = len(star.shape) + 2
    shapes = [tuple(T.shape) for T in tensors]
    if sum(len(shape) > lead for shape in shapes) > 1:
        try:
            np.broadcast_shapes(*(shape[:-lead] for shape in shapes))
        except ValueError:
            raise ValueError(
                f"{star}.{name}: the batch axes of {' and '.join(map(str, shapes))}, all but the last "
                f"{lead}, do not broadcast; from the right, each pair must be equal or hold a 1"
            ) from None


def square(star: StarAlgebra, name: str, A: Any) -> None:
    if A.shape[-1] != A.shape[-2]:
        other = ", or pinv for a least-squares inverse" if name == "inv" else ""
        raise ValueError(
            f"{star}.{name}: A has shape {tuple(A.shape)}, {A.shape[-2]} x {A.shape[-1]} tubes; "
            f"expected as many rows as lateral slices, {_form(star, rows='m')}{other}"
        )


def rows(star: StarAlgebra, name: str, A: Any, B: Any) -> None:
    """Raise where A ★ X = B cannot hold because A and B have not as many rows."""
    if A.shape[-2] != B.shape[-2]:
        raise ValueError(
            f"{star}.{name}: A and B have shapes {tuple(A.shape)} and {tuple(B.shape)}; "
            f"A with {A.shape[-2]} rows needs B of shape {_form(star, rows=A.shape[-2])}"
        )
    batches(star, name, A, B)


def foldable(star: StarAlgebra, matrix: Any) -> None:
    shape = _shape(star, "fold", "matrix", matrix)
    if len(shape) < 2 or shape[-2] % star.n:
        raise ValueError(
            f"{star}.fold: a matrix of shape {shape}; expected (..., {star.n} l, m), "
            f"a multiple of {star.n} rows"
        )


def hermitian(star: StarAlgebra, name: str, faces: Faces) -> None:
    """Raise where a face is not Hermitian to rounding, beside the largest entry of its tensor."""
    parts = [raw(part) for part in faces.parts]
    if not parts[0].size:
        return
    xp = namespace(*parts)
    sizes = [xp.abs(part).max(axis=(-2, -1)) for part in parts]
    size = faces.joined(sizes).max(axis=-1, keepdims=True)
    off = faces.joined([xp.abs(part - part.mT.conj()).max(axis=(-2, -1)) for part in parts])
    # Rounding of the transform and of a product of m terms.
    bound = 10 * (faces.star.n + parts[0].shape[-1]) * float(xp.finfo(parts[0].dtype).eps)
    if holds((off > bound * size).any()):
        ratio = to_host(off / xp.where(size == 0, 1, size))
        worst = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
        raise ValueError(
            f"{star}.{name}: A is not Hermitian, A = transpose(A): {faces.name(worst)} differs from its conjugate "
            f"transpose by {ratio[worst]:.3g} times the largest entry of all faces; of a tensor that should be "
            "Hermitian take (A + star.transpose(A)) / 2"
        )


def definite(star: StarAlgebra, faces: Faces, factors: Callable[[], Any]) -> Any:
    """The Cholesky factors; LinAlgError where a face is not positive definite. CuPy gives nan there."""
    try:
        L = factors()
    except np.linalg.LinAlgError:
        L = None
    values = None if L is None else raw(L)
    if values is not None and holds(namespace(values).isfinite(values).all()):
        return L
    least = np.concatenate([np.linalg.eigvalsh(to_host(raw(part)))[..., 0] for part in faces.parts], axis=-1)
    worst = np.unravel_index(int(np.argmin(least)), least.shape)
    raise np.linalg.LinAlgError(
        f"{star}.cholesky: A is not positive definite: the smallest eigenvalue of {faces.name(worst)} is "
        f"{least[worst]:.3g}"
    )


def regular(star: StarAlgebra, name: str, function: Callable[..., Any], A_hat: Any, *B_hat: Any) -> Any:
    """function(A_hat, *B_hat), the inverse or the solution; LinAlgError where a face of A_hat is singular.

    Singular means to working precision and beside the largest face: a singular face is rarely exactly so once
    it has been computed, and a 1 x 1 face, alone, only where it is 0.
    """
    try:
        X_hat = function(A_hat, *B_hat)
    except np.linalg.LinAlgError:
        _singular(star, name, A_hat)
    a, x = raw(A_hat), raw(X_hat)
    if not x.size:
        return X_hat
    xp, faces = namespace(a), tuple(range(-2 - len(star.shape), 0))
    # The largest |Â| of a tensor's faces times |X̂| / |B̂| of each face (B = I for the inverse), in root mean
    # square singular values: a lower bound of the condition number of A.
    size, growth = _size(a), _size(x)
    known = xp.isfinite(size)
    if B_hat:
        right = _size(raw(B_hat[0]))
        growth = growth / xp.where(right == 0, 1, right)
        known = known & xp.isfinite(right)
    condition = xp.max(size, axis=faces, keepdims=True) * growth
    if holds(xp.any(known & ~(condition <= 0.1 / float(np.finfo(a.dtype).eps)))):
        _singular(star, name, A_hat)
    return X_hat


def _size(matrices: Any) -> Any:
    """The root mean square of the singular values of each matrix, in doubles, whatever their size."""
    xp = namespace(matrices)
    magnitudes = xp.abs(matrices).astype(xp.float64)
    largest = xp.max(magnitudes, axis=(-2, -1), keepdims=True)
    squares = (magnitudes / xp.where(largest == 0, 1, largest)) ** 2
    return largest * xp.sqrt(xp.sum(squares, axis=(-2, -1), keepdims=True) / min(matrices.shape[-2:]))


def _singular(star: StarAlgebra, name: str, A_hat: Any) -> NoReturn:
    values = np.linalg.svd(to_host(raw(A_hat)), compute_uv=False)
    largest = values[..., 0].max(axis=tuple(range(-len(star.shape), 0)), keepdims=True)
    ratio = values[..., -1] / np.where(largest == 0, 1, largest)
    worst = tuple(int(k) for k in np.unravel_index(np.argmin(ratio), ratio.shape))
    lead = len(worst) - len(star.shape)
    raise np.linalg.LinAlgError(
        f"{star}.{name}: A is singular to working precision: {name_of_face(worst, star)} has the smallest "
        f"singular value {values[worst][-1]:.3g}, beside {values[worst[:lead]].max():.3g}, the largest of the tensor; "
        "pinv takes such tensors"
    )


def _is_real(x: Any) -> bool:
    return isinstance(x, numbers.Real)


def _is_integer(k: Any) -> bool:
    return isinstance(k, int | np.integer) and not isinstance(k, bool)


def _shape(star: StarAlgebra, name: str, label: str, A: Any) -> tuple[int, ...]:
    shape = getattr(A, "shape", None)
    if shape is None:
        expected = "a matrix" if name == "fold" else f"an array of shape {_form(star)}"
        raise TypeError(f"{star}.{name}: {label} is a {type(A).__name__}; expected {expected}")
    return tuple(shape)


def _floats(star: StarAlgebra, name: str, label: str, A: Any) -> Any:
    kind = A.dtype.kind
    if kind in "fc":
        return A
    if kind in "iub":
        return ct.astype(A, np.dtype(np.float64))
    raise TypeError(f"{star}.{name}: {label} holds {A.dtype}; expected numbers")


def _misfit(star: StarAlgebra, name: str, label: str, shape: tuple[int, ...]) -> NoReturn:
    tubes = len(star.shape)
    if len(shape) < tubes + 2:
        raise ValueError(
            f"{star}.{name}: {label} has shape {shape}, too few axes; "
            f"expected {tubes + 2} or more, {_form(star)}"
        )
    wrong = next(k for k in range(tubes) if shape[k - tubes - 2] != star.shape[k])
    hint = ""
    if shape[-tubes:] == star.shape:
        last = "last axis has that length" if tubes == 1 else f"last {tubes} axes have the tube lengths"
        argument = "" if len(shape) == tubes + 2 else f", tubes={tubes}"
        hint = f". Its {last}: if its tubes come last, convert it with algebra.faces_first({label}{argument})"
    raise ValueError(
        f"{star}.{name}: {label} has shape {shape}, with length {shape[wrong - tubes - 2]} along its "
        f"tube axis {wrong - tubes - 2}, where this algebra has length {star.shape[wrong]}: "
        f"{_form(star)}{hint}"
    )


def _form(star: StarAlgebra, faces: tuple[int, ...] | None = None, rows: int | str = "l") -> str:
    """The shape of a tensor that fits, in words."""
    return f"({', '.join(['...', *map(str, star.shape if faces is None else faces), str(rows), 'm'])})"
