"""The domain in which layers hold their weights: "spatial", the tensors themselves, or "transform", their transforms.

In the transform domain the parameters of a layer are K̂ and B̂, so that a step transforms no weight, and takes no
weight's gradient back. For real weights of a Fourier algebra they are half spectra, complex; of a projected algebra
they have q faces.

The map is the same, and so is what a layer starts with; what an optimizer makes of it need not be. With MᴴM = ℓI the
gradients are Ĝ = w M G, w = 1/ℓ (`StarAlgebra.parseval`), or 2/ℓ in the faces of a half spectrum that stand for a
conjugate pair. So plain gradient descent does not notice an orthonormal M, where w = 1; another M is a learning rate
w of its own for each face, as if √w K̂ were trained. Adam does notice: its step is of one size in every face,
whatever energy the data have there, and not in every entry of a tube. On images, whose energy lies in a few faces,
that is a better preconditioner; a larger learning rate goes with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cutnn import array as ct
from cutnn.device import namespace
from cutnn.nn._module import Module
from cutnn.tape import Traced

__all__ = ["check_domain", "entries", "entries_dtype", "has_domain", "hats", "held", "matched"]

DOMAINS = ("spatial", "transform")


def has_domain(part: Any) -> bool:
    """Whether part of a model is a module that holds weights in one domain or the other."""
    return isinstance(part, Module) and hasattr(part, "domain")


def check_domain(who: str, domain: Any) -> str:
    """The domain; ValueError where it is none."""
    if domain not in DOMAINS:
        raise ValueError(f"{who}: domain is 'spatial' or 'transform', not {domain!r}")
    return str(domain)


def held(star: Any, A: Any, domain: str) -> Any:
    """What a layer holds of a tensor A in that domain, contiguous as optimizers want it; None of None."""
    if A is None or domain == "spatial":
        return A
    A_hat = star.forward(A)  # of a fast sine transform a view, backwards
    return A_hat if type(A_hat) is Traced else namespace(A_hat).ascontiguousarray(A_hat)


def hats(star: Any, A: Any, domain: str) -> Any:
    """The transform of what is held."""
    return A if domain == "transform" else star.forward(A)


def entries(star: Any, A: Any, domain: str) -> Any:
    """The tensor of what is held; None of None. It is for biases, a tube a row: that costs nothing beside a product."""
    return A if A is None or domain == "spatial" else star.inverse(A)


def is_half(star: Any, A: Any, domain: str) -> bool:
    """Whether what is held is the half spectrum of a real tensor."""
    halved = star.half_shape != star.face_shape
    return domain == "transform" and halved and tuple(A.shape[: len(star.shape)]) == star.half_shape


def entries_dtype(star: Any, A: Any, domain: str) -> Any:
    """The dtype of the tensor of what is held."""
    return np.empty(0, A.dtype).real.dtype if is_half(star, A, domain) else A.dtype


def matched(module: Any, weight: Any, X: Any) -> Any:
    """X so that its transform has the faces that a held transform has: half or whole spectra meet."""
    star = module.star
    if star.half_shape == star.face_shape:
        return X
    if not is_half(star, weight, "transform"):
        return ct.astype(X, np.result_type(X.dtype, np.complex64))
    if X.dtype.kind == "c":
        raise TypeError(
            f"{type(module).__name__}({module._summary()}) holds the half spectrum of a real weight and received "
            f"{X.dtype}; for complex input make the layer with dtype=ct.complex64 or ct.complex128"
        )
    return X
