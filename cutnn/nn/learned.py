"""A network whose layers share one learned M: a leaf of the model like any weight, on the manifold of orthogonal M.

Layers hold their algebra as static data. Here they hold an open one, a place without M, and at each call the network
runs over the algebra of M as it is then, traced or not.

Source: Newman, Keegan, Optimal matrix-mimetic tensor algebras via variable projection, arXiv 2406.06942 (2024).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import optree

from cutnn import algebra
from cutnn.algebra.manifolds import STIEFEL
from cutnn.device import to_device
from cutnn.nn._domain import has_domain
from cutnn.nn._module import Module, static

__all__ = ["Learned"]


class Learned(Module):
    """`model`, a network over the algebra `star`, with the M of that algebra as a parameter: from X to model(X).

    `M` holds the matrices, one a tube axis of `star`, (n, n) each; they start as those of `star`, in the precision of
    the model's first array. All layers over algebras equal to `star` share them, others (a dense head) stay as they
    are.
    With `manifold="orthogonal"` optimizers keep M orthogonal, or unitary, to rounding; with "stiefel", for a projected
    algebra, they so keep the columns of Q (n, q), which `M` then holds; with "general" M is free and inverted at each
    call. With `faces=True` the output is its transform, Ŷ: a loss over the algebra is then that
    over `algebra.identity(n)` (of q faces, identity(q)), as `nn.TubalCrossEntropy(algebra.identity(n))`, whatever M is.

    `net.star` is the algebra of M as it is now, `net.fixed()` the model over it. Raises ValueError where no layer is
    over `star`, where its M is not orthogonal on that manifold (the DFT: take `algebra.hartley`), TypeError where its
    M is complex and the model real.

    >>> import numpy as np
    >>> from cutnn import algebra, nn, optim, value_and_grad
    >>> star = algebra.dct(4)
    >>> net = nn.Learned(nn.Sequential(nn.TLinear(star, 3, 5, np.tanh, seed=0), nn.TLinear(star, 5, 2, seed=1)), star)
    >>> net
    Learned(orthogonal, M=(float32 (4, 4))), 144 parameters
      model: Sequential, 128
        layers[0]: TLinear(open(4), 3 → 5, tanh), 80
        layers[1]: TLinear(open(4), 5 → 2), 48
    >>> X, target = np.ones((4, 3, 6), dtype=np.float32), np.ones((4, 2, 6), dtype=np.float32)
    >>> loss, grads = value_and_grad(lambda net: nn.MeanSquaredError()(net(X), target))(net)
    >>> optim.Adam(net).step(grads)
    >>> np.abs(net.M[0] @ net.M[0].T - np.eye(4)).max() < 1e-6, np.allclose(net.fixed()(X), net(X), atol=1e-6)
    (np.True_, True)
    """

    manifold: str = static()
    faces: bool = static()
    model: Any
    M: tuple[Any, ...]

    def __init__(self, model: Any, star: Any, manifold: str = "orthogonal", faces: bool = False) -> None:
        if not isinstance(star, algebra.StarAlgebra) or not star.shape:
            raise TypeError("Learned: the second argument is the algebra of the layers, algebra.dct(28) say")
        if manifold not in ("orthogonal", "stiefel", "general"):
            raise ValueError(f"Learned: manifold is 'orthogonal', 'stiefel' or 'general', not {manifold!r}")
        opened = run_over(model, star, _open(star.shape, star.face_shape))
        if opened is model:
            raise ValueError(f"Learned: no layer of the model is over {star}, whose M is to be learned")
        if star.half_shape != star.face_shape and _holds_hats(model, star):
            raise ValueError(
                f"Learned: layers over {star} hold half spectra, and a learned M has none; give it "
                "nn.in_domain(model, 'spatial')"
            )
        dtype = np.dtype(optree.tree_leaves(model, namespace="cutnn")[0].dtype)
        matrices = [transform.matrix() for transform in star.transforms]
        for transform, M in zip(star.transforms, matrices, strict=True):
            if M.dtype.kind == "c" and dtype.kind != "c":
                raise TypeError(
                    f"Learned: M of {transform} is complex, and the model holds {dtype}; take a real transform "
                    "(algebra.hartley for the DFT), or make the model with dtype=ct.complex64"
                )
            if manifold != "stiefel" and len(M) < transform.n:
                raise ValueError(f"Learned: {transform} has {len(M)} faces; take manifold='stiefel'")
            if manifold != "general" and not STIEFEL.distance(M.conj().T) < 1e-8:
                raise ValueError(
                    f"Learned: M of {transform} is not orthonormal; take one that is (algebra.hartley for the DFT), "
                    "or manifold='general'"
                )
        kind = dtype if any(M.dtype.kind == "c" for M in matrices) else np.empty(0, dtype).real.dtype
        self.manifold = manifold
        self.faces = faces
        self.model = opened
        arrays = [M.conj().T if manifold == "stiefel" else M for M in matrices]
        self.M = tuple([to_device(np.array(M, dtype=kind, order="C")) for M in arrays])

    def __call__(self, X: Any) -> Any:
        star = self.star
        Y = run_over(self.model, self.open, star)(X)
        return star.forward(Y) if self.faces else Y

    @property
    def star(self) -> algebra.StarAlgebra:
        """The algebra of M as it is now; inside `ct.grad` gradients flow to M through it."""
        return algebra.StarAlgebra(*[algebra.learned.Learned(M, self.manifold) for M in self.M])

    @property
    def open(self) -> algebra.StarAlgebra:
        """The algebra without M that the layers of `model` are over."""
        star = self.star
        return _open(star.shape, star.face_shape)

    def fixed(self) -> Any:
        """The model over the constant algebra of a copy of M, and with a copy of the weights."""
        make = algebra.projected if self.manifold == "stiefel" else algebra.from_matrix
        star = algebra.product(*[make(M) for M in self.M])
        model = optree.tree_map(lambda leaf: leaf.copy(), self.model, namespace="cutnn")
        return run_over(model, self.open, star)

    def manifold_of(self, field: str) -> Any:
        return STIEFEL if field == "M" and self.manifold != "general" else None

    def _summary(self) -> str:
        return ", ".join([self.manifold, *["faces"] * self.faces, f"M=({_shapes(self.M)})"])


def run_over(part: Any, old: algebra.StarAlgebra, new: algebra.StarAlgebra) -> Any:
    """A module, or whatever modules hold, with one algebra in the place of another; itself where there is none.

    Arrays are shared, not copied.
    """
    if isinstance(part, algebra.StarAlgebra):
        return new if part == old else part
    if isinstance(part, (tuple, list)) and not hasattr(part, "_fields"):
        parts = [run_over(x, old, new) for x in part]
        return type(part)(parts) if _differ(parts, part) else part
    if isinstance(part, dict):
        values = [run_over(x, old, new) for x in part.values()]
        return dict(zip(part, values, strict=True)) if _differ(values, part.values()) else part
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        return part
    held = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    changed = {name: run_over(x, old, new) for name, x in held.items()}
    if not _differ(changed.values(), held.values()):
        return part
    twin = object.__new__(type(part))
    twin.__dict__.update(part.__dict__ | changed)
    return twin


# -------------------------------------------------------------------------------------------------- helpers


class _Open(algebra.Transform):
    """The place of an M that is learned elsewhere: no map yet."""

    constant = False

    def __init__(self, n: int, faces: int) -> None:
        super().__init__("open", n, np.eye, label=f"open({n})" if n == faces else f"open({n} to {faces})")
        self.faces = faces

    def _identity(self) -> Any:
        return (type(self), self.n, self.faces)

    def _apply(self, which: str, A: Any, axis: int) -> Any:
        raise TypeError(
            f"the transform of this layer is learned, {self} has no M: call the network by the nn.Learned that holds "
            "M, or take its fixed()"
        )


def _holds_hats(model: Any, star: algebra.StarAlgebra) -> bool:
    """Whether a layer over the algebra holds its weights in the transform domain."""
    layers = optree.tree_leaves(model, is_leaf=has_domain, namespace="cutnn")
    return any(has_domain(part) and part.star == star and part.domain == "transform" for part in layers)


def _open(shape: tuple[int, ...], faces: tuple[int, ...]) -> algebra.StarAlgebra:
    return algebra.StarAlgebra(*[_Open(n, q) for n, q in zip(shape, faces, strict=True)])


def _differ(parts: Any, others: Any) -> bool:
    return any(a is not b for a, b in zip(parts, others, strict=True))


def _shapes(matrices: tuple[Any, ...]) -> str:
    return ", ".join(f"{M.dtype} {tuple(M.shape)}" for M in matrices)
