"""Arrays of matrices as BLAS takes them: where the matrices lie, by strides, and how batches run through memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Form(NamedTuple):
    """Shape and strides, in entries, of an array of matrices."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]


def layout(x: Form) -> tuple[bool, int] | None:
    """Whether the matrices lie by columns, not by rows, and the leading dimension; None where they do neither.

    The step along an axis of length 1 may be any.

    >>> layout(Form((4, 2, 3), (6, 3, 1))), layout(Form((4, 3, 2), (6, 1, 3))), layout(Form((2, 3), (6, 2)))
    ((False, 3), (True, 3), None)
    """
    (*_, rows, columns), (*_, down, along) = x
    if (along == 1 or columns == 1) and (down >= max(columns, 1) or rows == 1):
        return False, max(down if rows > 1 else columns, 1)
    if (down == 1 or rows == 1) and (along >= max(rows, 1) or columns == 1):
        return True, max(along if columns > 1 else rows, 1)
    return None


def over(x: Form, batch: Sequence[int]) -> list[int]:
    """The strides of an array over the batch axes of a product, 0 where it is broadcast.

    >>> over(Form((4, 2, 3), (6, 3, 1)), (5, 4))
    [0, 6]
    """
    own = list(zip(x.shape[:-2], x.strides[:-2], strict=True))
    own = [(1, 0)] * (len(batch) - len(own)) + own
    return [0 if size == 1 else stride for size, stride in own]


def merged(batch: Sequence[int], *strides: Sequence[int]) -> list[tuple[int, ...]]:
    """Batch axes (size, strides of each array), with those made one that lie behind one another in all arrays.

    >>> merged((5, 1, 4), (24, 24, 6), (0, 0, 0))
    [(20, 6, 0)]
    """
    found: list[tuple[int, ...]] = []
    for axis in zip(batch, *strides, strict=True):
        if axis[0] == 1:
            continue
        if found and all(
            before == axis[0] * own for before, own in zip(found[-1][1:], axis[1:], strict=True)
        ):
            axis = (found.pop()[0] * axis[0], *axis[1:])
        found.append(axis)
    return found
