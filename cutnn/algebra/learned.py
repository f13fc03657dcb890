"""Learned transforms: algebras made of an M that gradients flow to, and the M that suits data best.

`star(M)` makes the algebra of an array, traced or not, so that inside `ct.grad` every function of the algebra
differentiates with respect to M too, through Â, B̂ and M⁻¹. `minimize` descends on the manifold of orthogonal M;
`fit_lstsq` and `fit_low_rank` are problems whose inner part is solved exactly, face by face, at every M (variable
projection). To train M as a parameter of a network see `nn.Learned`.

Source: Newman, Keegan, Optimal matrix-mimetic tensor algebras via variable projection, arXiv 2406.06942 (2024).
"""

from cutnn.algebra._descent import Iteration, Minimum, minimize
from cutnn.algebra._learned import Learned, parameters, star, with_parameters
from cutnn.algebra._variable_projection import LeastSquaresFit, LowRankFit, fit_low_rank, fit_lstsq

__all__ = [
    "Iteration",
    "Learned",
    "LeastSquaresFit",
    "LowRankFit",
    "Minimum",
    "fit_low_rank",
    "fit_lstsq",
    "minimize",
    "parameters",
    "star",
    "with_parameters",
]
