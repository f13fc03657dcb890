"""The faces that determine a tensor: which they are, from definitions, and that their places are made once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cutnn import algebra
from cutnn.algebra._faces import Faces, Spectrum, like
from tests.algebra.catalogue import EVERY, draw, kron, near
from tests.pretend import PretendArray


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("name", EVERY)
def test_faces_stand_for_the_whole_spectrum(name: str, dtype: Any) -> None:
    star = EVERY[name]
    A = star.inverse(star.forward(draw((2, *star.shape, 3, 2), dtype)))
    spectrum = np.einsum("kj,bjlm->bklm", kron(star), A.reshape(2, star.n, 3, 2))
    faces = Faces(star, A)
    held = np.concatenate(faces.parts, axis=1)
    near(held + 0j, spectrum[:, faces.numbers] + 0j)
    near(faces.tensor(held) + 0j, A + 0j)
    assert faces.times.sum() == len(kron(star))
    assert [part.shape[1] for part in faces.split(held)] == [part.shape[1] for part in faces.parts]
    sizes = np.linalg.norm(spectrum, axis=(-2, -1)).reshape(2, *star.face_shape)
    near(faces.of_all(np.linalg.norm(held, axis=(-2, -1))), sizes)


def test_places_are_made_once_and_copied_to_each_device_once(pretend_device: Any) -> None:
    first, second = (Faces(algebra.fft(6), draw((6, 3, 2), seed=k)) for k in (0, 1))
    other = Faces(algebra.fft(6), like(draw((6, 3, 2)), pretend_device.ones(1)))
    assert first.times is second.times is other.times
    assert first.times_like(first.parts[0]) is second.times_like(second.parts[0])
    there = other.times_like(other.parts[0])
    assert isinstance(there, PretendArray) and there is other.times_like(other.parts[1])


def test_shared_places_cannot_be_written() -> None:
    spectrum = Spectrum(algebra.fft(5), True, 0)
    for array in (spectrum.times, spectrum.numbers):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7
