"""Where tube axes stand: conversion between faces first, as here, and tubes last, as in the literature."""

from __future__ import annotations

from typing import Any

from cutnn import array as ct

__all__ = ["faces_first", "tubes_last"]


def faces_first(A: Any, tubes: int | None = None) -> Any:
    """The tensor (..., l, m, n₃, n₄, ...) of the literature as (..., n₃, n₄, ..., l, m), a view.

    `tubes` is the number of tube axes; without it every axis but two is one, so a batch needs it. Raises
    ValueError where A has too few axes.

    >>> import numpy as np
    >>> from cutnn import algebra
    >>> algebra.faces_first(np.zeros((4, 5, 3))).shape  # 4 rows, 5 lateral slices, tubes of 3
    (3, 4, 5)
    """
    lead, tubes = _split("faces_first", A, tubes)
    matrix = (lead, lead + 1)
    return ct.permute_dims(A, (*range(lead), *range(lead + 2, A.ndim), *matrix))


def tubes_last(A: Any, tubes: int | None = None) -> Any:
    """The tensor (..., n₃, n₄, ..., l, m) of this package as (..., l, m, n₃, n₄, ...), a view.

    >>> import numpy as np
    >>> from cutnn import algebra
    >>> algebra.tubes_last(np.zeros((10, 3, 4, 5)), tubes=1).shape  # a batch of 10
    (10, 4, 5, 3)
    """
    lead, tubes = _split("tubes_last", A, tubes)
    return ct.permute_dims(A, (*range(lead), A.ndim - 2, A.ndim - 1, *range(lead, lead + tubes)))


def _split(name: str, A: Any, tubes: int | None) -> tuple[int, int]:
    """The number of batch axes and that of tube axes."""
    if not hasattr(A, "ndim"):
        raise TypeError(f"{name}: expected an array, not a {type(A).__name__}")
    tubes = max(A.ndim - 2, 0) if tubes is None else tubes
    if tubes < 0 or A.ndim < tubes + 2:
        raise ValueError(
            f"{name}: an array of shape {A.shape} cannot hold two matrix axes and {tubes} tube axes; "
            f"expected at least {max(tubes, 0) + 2} axes"
        )
    return A.ndim - 2 - tubes, tubes
