"""The faces that determine a tensor, and the functions of matrices that are applied to each of them.

A tensor is factored face by face in the transform domain. In a Fourier algebra the faces of a real tensor come in
conjugate pairs, and real results are wanted: so one of each pair is taken, the other has the conjugate result, and
a face that is its own conjugate is taken as the real matrix that it is.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cutnn import array as ct
from cutnn._cores import one_thread
from cutnn.device import namespace
from cutnn.tape import raw

if TYPE_CHECKING:
    from cutnn.algebra.star import StarAlgebra


class Spectrum:
    """Which faces of a transform determine it: all of them, or one of each conjugate pair where it is `halved`.

    Results for these faces have their face axis after `lead` batch axes: (*batch, faces, ...). `times`, (faces,) on
    the host, says how many faces of the whole spectrum each stands for, and `numbers` which the first of them is; both
    are read-only.
    """

    def __init__(self, star: StarAlgebra, halved: bool, lead: int) -> None:
        self.star, self.halved, self.lead = star, halved, lead
        fourier = tuple([halved and not t.real for t in star.transforms])
        self._places = _places(star.face_shape, star.half_shape if halved else star.face_shape, fourier)
        self.times, self.numbers = self._places.times, self._places.numbers

    def tensor(self, faces: Any) -> Any:
        """The tensor (*batch, *shape, l, m) whose transform has these faces, (*batch, faces, l, m)."""
        star, shape = self.star, self.star.face_shape
        if not all(t.real for t in star.transforms):
            faces = ct.astype(faces, np.result_type(faces.dtype, np.complex64))
        if self.halved:
            shape, places = star.half_shape, self._places
            faces = ct.take(faces, places.on("half", faces), axis=-3)
            if places.half_mirrored is not None:  # where several axes are Fourier's
                faces = ct.where(places.on("half_mirrored", faces), ct.conj(faces), faces)
        with one_thread(_is_light(star, faces)):
            return star.inverse(ct.reshape(faces, (*faces.shape[:-3], *shape, *faces.shape[-2:])))

    def tubes(self, numbers: Any) -> Any:
        """The k tubes (*batch, *shape, k) whose transforms have these entries, (*batch, faces, k)."""
        return self.tensor(ct.expand_dims(numbers, axis=-1))[..., 0]

    def of_all(self, numbers: Any) -> Any:
        """Numbers of the faces, (*batch, faces, ...), for those of the whole spectrum: (*batch, *face_shape, ...).

        Numbers of a face and of its conjugate are the same: ranks, norms, singular values.
        """
        lead, shape = self.lead, numbers.shape
        if self.halved:
            numbers = ct.take(numbers, self._places.on("whole", numbers), axis=lead)
        return ct.reshape(numbers, (*shape[:lead], *self.star.face_shape, *shape[lead + 1 :]))

    def split(self, faces: Any) -> list[Any]:
        """Results for the faces, (*batch, faces, ...), for the real ones and for the complex ones, if halved."""
        if not self.halved:
            return [faces]
        lead, own = (slice(None),) * self.lead, len(self._places.own)
        return [faces[(*lead, slice(own))], faces[(*lead, slice(own, None))]]

    def joined(self, parts: Sequence[Any]) -> Any:
        """Results for the faces, (*batch, faces, ...), from those for the real and for the complex ones."""
        if len(parts) == 1:
            return parts[0]
        dtype = np.result_type(*[part.dtype for part in parts])
        return ct.concat([ct.astype(part, dtype) for part in parts], axis=self.lead)

    def times_like(self, x: Any) -> Any:
        """`times` in the library and on the device of another array."""
        return self._places.on("times", x)

    def name(self, place: tuple[Any, ...]) -> str:
        """In words, the face at a place of (*batch, faces): "face 2 of its transform of item (0,) of the batch"."""
        face = np.unravel_index(self.numbers[place[-1]], self.star.face_shape)
        return name_of_face(tuple(map(int, (*place[:-1], *face))), self.star)


class Faces(Spectrum):
    """The faces that determine Â: all of them or, in a Fourier algebra with real A, one of each conjugate pair.

    `parts` are the batches of matrices, (*batch, f, l, m) each, that functions are applied to: all faces, or first
    the real ones, which are their own conjugates, then the complex ones.

    >>> from cutnn import algebra
    >>> star = algebra.fft(4)
    >>> faces = Faces(star, star.random(3, 2, seed=0))
    >>> [part.shape for part in faces.parts], faces.times
    ([(2, 3, 2), (1, 3, 2)], array([1, 1, 2]))
    >>> U, s, Vh = faces.map(lambda x: ct.linalg.svd(x, full_matrices=False))
    >>> faces.tensor(U).shape, faces.tubes(s).shape, faces.of_all(s).shape
    ((4, 3, 2), (4, 2), (4, 2))
    """

    def __init__(self, star: StarAlgebra, A: Any) -> None:
        tubes = len(star.shape)
        super().__init__(
            star, star.half_shape != star.face_shape and A.dtype.kind != "c", len(A.shape) - tubes - 2
        )
        with one_thread(_is_light(star, A)):
            A_hat = star.forward(A)
        n = math.prod(star.half_shape if self.halved else star.face_shape)
        faces = ct.reshape(A_hat, (*A_hat.shape[: self.lead], n, *A_hat.shape[-2:]))
        self.parts = [faces]
        if self.halved:
            own, pairs = (ct.take(faces, self._places.on(part, faces), axis=-3) for part in ("own", "pairs"))
            self.parts = [ct.real(own), pairs]

    def map(self, function: Callable[..., Any], *more: Any) -> Any:
        """function(faces, *more) of every face, (*batch, faces, ...), or a tuple of such arrays where it gives one.

        The function gets batches of matrices, (*batch, f, l, m), and keeps the batch axes and f in front; it must
        make real results of real faces. `more` are the `Faces` of further tensors, halved alike, lists as `parts`
        is one, or results for the faces, (*batch, faces, ...).
        """
        operands = [self.parts]
        for x in more:
            operands.append(x.parts if isinstance(x, Faces) else x if isinstance(x, list) else self.split(x))
        results = [function(*faces) for faces in zip(*operands, strict=True)]
        if not isinstance(results[0], tuple):
            return self.joined(results)
        return tuple([self.joined(parts) for parts in zip(*results, strict=True)])


def name_of_face(place: tuple[int, ...], star: StarAlgebra) -> str:
    """In words, the face at a place of (*batch, *face_shape)."""
    lead = len(place) - len(star.shape)
    what = f"face {', '.join(map(str, place[lead:]))} of its transform" if star.shape else "the matrix"
    return f"{what} of item {tuple(place[:lead])} of the batch" if lead else what


def like(x: np.ndarray, other: Any) -> Any:
    """An array of the host in the library and on the device of another."""
    other = raw(other)
    return namespace(other).asarray(x, device=other.device)


# -------------------------------------------------------------------------------------------------- helpers


def _is_light(star: StarAlgebra, A: Any) -> bool:
    """Whether the transforms of A, 2 n operations an entry, take less than what is done with its faces, many l."""
    return star.n <= 8 * max(A.shape[-2:])


@dataclasses.dataclass(frozen=True, eq=False)
class _Places:
    """The faces that determine a spectrum, and where the others are found among them; all on the host.

    `numbers` are the faces' numbers in the whole spectrum, those that are their own conjugates first, then one of each
    pair, and `times` is 1 of the first and 2 of the second; `own` and `pairs` are their places in the part of the
    spectrum that is held; `whole` and `half` are the places among them of the faces of the whole spectrum and of that
    part, `half_mirrored`, (faces, 1, 1), says which of the latter are the conjugates, and is None where none is.
    """

    numbers: np.ndarray
    times: np.ndarray
    own: np.ndarray
    pairs: np.ndarray
    whole: np.ndarray
    half: np.ndarray
    half_mirrored: np.ndarray | None
    _copies: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def on(self, name: str, other: Any) -> Any:
        """One of the arrays in the library and on the device of another array; copied there once."""
        other = raw(other)
        key = name, type(other), getattr(other.device, "id", other.device)
        found = self._copies.get(key)
        if found is None:
            found = self._copies[key] = like(getattr(self, name), other)
        return found


@functools.lru_cache(maxsize=32)
def _places(face_shape: tuple[int, ...], half_shape: tuple[int, ...], fourier: tuple[bool, ...]) -> _Places:
    """Of the tube axes of a transform and of the part that is held, and whether each is a Fourier axis.

    Face k of a real tensor's transform is the conjugate of face -k, with the sign on the Fourier axes alone. Made
    once: for 16 faces of 4 x 4 that took 1.6 ms, and their transform 0.01.
    """
    n = math.prod(face_shape)
    face = np.indices(face_shape).reshape(len(face_shape), n)
    signed = [-k % q if odd else k for k, q, odd in zip(face, face_shape, fourier, strict=True)]
    partner = np.ravel_multi_index(tuple(signed), face_shape) if face_shape else np.zeros(1, dtype=int)
    inside = np.all(face < np.reshape(half_shape, (-1, 1)), axis=0)
    number = np.arange(n)
    least = np.minimum(number, partner)
    chosen = np.where(inside & inside[partner], least, np.where(inside, number, partner))
    numbers = np.unique(chosen)
    is_own = partner[numbers] == numbers
    numbers = np.concatenate([numbers[is_own], numbers[~is_own]])
    whole = np.empty(n, dtype=int)
    whole[numbers] = np.arange(len(numbers))
    whole = whole[chosen]
    in_half = np.flatnonzero(inside)
    mirrored = (chosen != number)[in_half, None, None]
    own, pairs = np.split(np.searchsorted(in_half, numbers), [int(is_own.sum())])
    times = np.where(np.arange(len(numbers)) < len(own), 1, 2)
    for array in (numbers, times):  # handed out
        array.flags.writeable = False
    return _Places(numbers, times, own, pairs, whole, whole[in_half], mirrored if mirrored.any() else None)
