"""Losses: of the outputs of a batch and its targets, averaged over samples, one real number.

`loss(Y, labels)` is differentiable in Y; labels are integers `(N,)`. `loss.predict(Y)` gives classes `(N,)`.
Labels out of range raise ValueError on the CPU; on the GPU that look would stop the queue at every batch, so
check them once, where the data are loaded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cutnn import array as ct
from cutnn.array._fused.softmax import log_softmax_at
from cutnn.array._fused.squares import half_squares
from cutnn.tape import raw

__all__ = ["CrossEntropy", "MeanSquaredError", "SquaredError", "TubalCrossEntropy", "tubal_softmax"]


@dataclass(frozen=True)
class TubalCrossEntropy:
    """Cross entropy over class tubes, Y `(n, classes, N)`, by a softmax in each face of the transform domain.

    L is the log-softmax over classes of each face of Ŷ. The form "authors" is that of the code of Newman et
    al. (2024): class i has the score s_i = −(1/2n) Σ_k L[k, i]², and the loss is −s of the target; about ½
    (log classes)² at a random start. The form "likelihood" has s_i = (1/n) Σ_k L[k, i], the mean over faces
    of the log-likelihood. The class with the largest score is predicted.

    The transform must be real: the log of a complex softmax has no one value. For a t-product network (the
    DFT) take the loss over `algebra.hartley(n)`, the real form of the DFT, or unfold to a dense head. Raises
    ValueError for shapes and labels that do not fit, TypeError for labels that are not integers and for
    complex transforms.

    >>> import numpy as np
    >>> from cutnn import algebra, nn
    >>> loss = nn.TubalCrossEntropy(algebra.dct(4))
    >>> Y = np.zeros((4, 10, 2))
    >>> loss(Y, np.array([3, 7])).round(4)
    np.float64(2.6509)
    """

    star: Any
    form: str = "authors"

    def __post_init__(self) -> None:
        if self.form not in ("authors", "likelihood"):
            raise ValueError(f'TubalCrossEntropy: form is "authors" or "likelihood", not {self.form!r}')

    def __call__(self, Y: Any, labels: Any) -> Any:
        hats = self._faces(Y)
        _check_labels("TubalCrossEntropy", Y.shape, labels)
        return self._mean(log_softmax_at(hats, labels)[0])

    def with_prediction(self, Y: Any, labels: Any) -> tuple[Any, Any]:
        """The loss, and the classes that `predict` gives, for little more than the loss."""
        hats = self._faces(Y)
        _check_labels("TubalCrossEntropy", Y.shape, labels)
        at_labels, L = log_softmax_at(hats, labels)
        return self._mean(at_labels), ct.argmax(self._scores(raw(L)), axis=0)

    def scores(self, Y: Any) -> Any:
        """The score s_i of every class, `(classes, N)`."""
        return self._scores(ct.log_softmax(self._faces(Y), axis=-2))

    def predict(self, Y: Any) -> Any:
        """The class of the largest score, `(N,)`."""
        return ct.argmax(self.scores(raw(Y)), axis=0)

    def _mean(self, at_labels: Any) -> Any:
        """The loss, from L at the labels, (*faces, N)."""
        count = math.prod(at_labels.shape)
        if self.form == "authors":
            return half_squares(at_labels) * (1.0 / count)
        return ct.sum(at_labels) * (-1.0 / count)

    def _scores(self, L: Any) -> Any:
        faces = tuple(range(L.ndim - 2))
        count = math.prod(L.shape[:-2])
        return (
            ct.sum(L * L, axis=faces) * (-0.5 / count)
            if self.form == "authors"
            else ct.sum(L, axis=faces) / count
        )

    def _faces(self, Y: Any) -> Any:
        """Ŷ, after a look at the shape and the transform."""
        tubes = tuple(self.star.shape)
        if tuple(Y.shape[:-2]) != tubes or len(Y.shape) != len(tubes) + 2:
            fitting = ", ".join([*map(str, tubes), "classes", "N"])
            raise ValueError(
                f"TubalCrossEntropy over {self.star!r} takes ({fitting}), and received {tuple(Y.shape)}"
            )
        hats = self.star.forward(Y)
        if hats.dtype.kind == "c":
            raise TypeError(
                f"TubalCrossEntropy needs a real transform, and that of {self.star!r} is complex. Take the "
                "loss over algebra.hartley(n), the real form of the DFT, or a dense head and CrossEntropy"
            )
        return hats


@dataclass(frozen=True)
class CrossEntropy:
    """The mean negative log-likelihood of the targets under a softmax of Y `(classes, N)`.

    Raises ValueError for shapes and labels that do not fit, TypeError for labels that are not integers and
    for complex Y.

    >>> import numpy as np
    >>> CrossEntropy()(np.zeros((10, 2)), np.array([3, 7])).round(4)
    np.float64(2.3026)
    """

    def __call__(self, Y: Any, labels: Any) -> Any:
        _check_matrix(Y)
        _check_labels("CrossEntropy", Y.shape, labels)
        at_labels, _ = log_softmax_at(Y, labels)
        return ct.sum(at_labels) * (-1.0 / at_labels.shape[0])

    def with_prediction(self, Y: Any, labels: Any) -> tuple[Any, Any]:
        """The loss, and the classes that `predict` gives."""
        return self(Y, labels), self.predict(raw(Y))

    def predict(self, Y: Any) -> Any:
        """The class of the largest entry, `(N,)`."""
        _check_matrix(Y)
        return ct.argmax(Y, axis=0)


@dataclass(frozen=True)
class MeanSquaredError:
    """The mean of |Y − target|² over all entries; target has the shape of Y.

    >>> import numpy as np
    >>> MeanSquaredError()(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    np.float64(2.0)
    """

    def __call__(self, Y: Any, target: Any) -> Any:
        return _half_squares_between("MeanSquaredError", Y, target) * (2.0 / math.prod(Y.shape))


@dataclass(frozen=True)
class SquaredError:
    """The sum of |Y − target|² over a sample, `(…, N)` of N samples, averaged over the samples.

    That is the error of an autoencoder. target has the shape of Y. Raises ValueError where it has not, and for
    an empty batch.

    >>> import numpy as np
    >>> SquaredError()(np.array([[1.0, 2.0], [3.0, 3.0]]), np.array([[1.0, 4.0], [3.0, 0.0]]))
    np.float64(6.5)
    """

    def __call__(self, Y: Any, target: Any) -> Any:
        return _half_squares_between("SquaredError", Y, target) * (2.0 / Y.shape[-1])


def tubal_softmax(star: Any, Y: Any) -> Any:
    """An ordinary softmax over the classes in every face of Ŷ, and back: `(n, classes, N)`, as tubes.

    The class tubes of a sample sum to the identity tube. A complex transform has the complex softmax, the
    same formula; its denominator may vanish.

    >>> import numpy as np
    >>> from cutnn import algebra
    >>> star = algebra.dct(4)
    >>> tubes = tubal_softmax(star, np.random.default_rng(0).normal(size=(4, 10, 1)))
    >>> np.allclose(tubes.sum(axis=1, keepdims=True), star.eye(1))
    True
    """
    hats = star.forward(Y)
    largest = ct.max(raw(ct.real(hats)), axis=-2, keepdims=True)  # a shift, which cancels
    e = ct.exp(hats - largest)
    return star.inverse(e / ct.sum(e, axis=-2, keepdims=True))


# -------------------------------------------------------------------------------------------------- helpers


def _half_squares_between(who: str, Y: Any, target: Any) -> Any:
    if tuple(Y.shape) != tuple(target.shape):
        raise ValueError(
            f"{who}: the output has shape {tuple(Y.shape)}, the target {tuple(target.shape)}; they must be equal"
        )
    if not math.prod(Y.shape):
        raise ValueError(f"{who}: an empty batch, of shape {tuple(Y.shape)}")
    return half_squares(Y - target)


def _check_matrix(Y: Any) -> None:
    if len(Y.shape) != 2:
        raise ValueError(
            f"CrossEntropy takes (classes, N), and received {tuple(Y.shape)}; "
            "unfold it with nn.Unfold() before the last layer, or use TubalCrossEntropy"
        )
    if np.dtype(Y.dtype).kind == "c":
        raise TypeError(f"CrossEntropy takes real outputs, and received {Y.dtype}; give it ct.real(Y)")


def _check_labels(who: str, shape: tuple[int, ...], labels: Any) -> None:
    classes, samples = shape[-2:]
    if getattr(getattr(labels, "dtype", None), "kind", "?") not in "iu":
        what = f"an array of {labels.dtype}" if hasattr(labels, "dtype") else f"a {type(labels).__name__}"
        raise TypeError(f"{who}: labels are an array of integers, one a sample, and these are {what}")
    if labels.shape != (samples,):
        raise ValueError(
            f"{who}: {samples} samples need labels of shape ({samples},), and these have {labels.shape}"
        )
    if not samples:
        raise ValueError(f"{who}: an empty batch, of shape {tuple(shape)}")
    if type(labels) is np.ndarray and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(
            f"{who}: labels lie in 0..{classes - 1} for {classes} classes, and these in "
            f"{labels.min()}..{labels.max()}"
        )
