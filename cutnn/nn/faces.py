"""A t-linear layer whose parameters are faces of the transform domain.

The map is that of `TLinear`, and so is what it starts with, but its weight and bias are kept, and trained, as their
transforms. Plain gradient descent does not notice where M is orthonormal. Adam does: its step is then of one size in
every face, whatever energy the data have there, and not in every entry of a tube. On images, whose energy lies in a
few faces, that is a better preconditioner; a larger learning rate goes with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cutnn import array as ct
from cutnn.nn._checks import check_input
from cutnn.nn.initializers import Initializer, transform_aware
from cutnn.nn.layers import Activation, TLinear

__all__ = ["FaceLinear"]


class FaceLinear(TLinear):
    """The t-linear layer Y = σ(W ★ X + B), `(n, n_in, N)` to `(n, n_out, N)`, that holds Ŵ and B̂.

    `weight` is `star.forward(W)`, `(*half_shape, n_out, n_in)` for real W, `bias` `(*half_shape, n_out, 1)` or None:
    over a Fourier algebra they are complex, and half the spectrum; over a projected one they have q faces,
    q/n of the parameters of a `TLinear`. Settings and errors are those of `TLinear`.

    >>> import numpy as np
    >>> from cutnn import algebra, nn
    >>> star = algebra.dct(4)
    >>> layer, same = nn.FaceLinear(star, 3, 2, np.tanh, seed=0), nn.TLinear(star, 3, 2, np.tanh, seed=0)
    >>> X = np.ones((4, 3, 5), dtype=np.float32)
    >>> np.allclose(layer(X), same(X), atol=1e-6), np.allclose(layer.weight, star.forward(same.weight), atol=1e-6)
    (True, True)
    """

    def __init__(
        self,
        star: Any,
        n_in: int,
        n_out: int,
        activation: Activation | None = None,
        bias: bool = True,
        init: Initializer = transform_aware,
        dtype: Any = np.float32,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__(star, n_in, n_out, activation, bias, init, dtype, seed)
        self.weight = star.forward(self.weight)
        self.bias = None if self.bias is None else star.forward(self.bias)

    def __call__(self, X: Any) -> Any:
        check_input(self, X, self.n_in, self.weight.dtype, mixed=True)
        Y_hat = ct.matmul(self.weight, self.star.forward(self._matched(X)))
        if self.bias is not None:
            Y_hat = Y_hat + self.bias
        Y = self.star.inverse(Y_hat)
        return Y if self.activation is None else self.activation(Y)

    def _matched(self, X: Any) -> Any:
        """X so that its transform has the faces that the weight has: half or whole spectra meet."""
        star = self.star
        if star.half_shape == star.face_shape:
            return X
        if self.weight.shape[: len(star.shape)] == star.face_shape:
            return ct.astype(X, np.result_type(X.dtype, np.complex64))
        if X.dtype.kind == "c":
            raise TypeError(
                f"FaceLinear({self._summary()}) holds the half spectrum of a real weight and received {X.dtype}; "
                "for complex input make the layer with dtype=ct.complex64 or ct.complex128"
            )
        return X
