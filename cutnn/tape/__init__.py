"""Reverse-mode differentiation: a tape is a list, a record says how a cotangent flows back.

Each call of a primitive on a traced array appends one record: the slots of its inputs, the rule (the
vector-Jacobian product) of each, and what that rule saved. The backward pass is one loop from the end of the
list. Derivatives of derivatives come from tapes that nest: a traced array remembers its own tape, its value may
itself be a traced array of an outer tape, and rules are written in differentiable functions. There is no global
state, so threads do not meet.

This module knows nothing of any particular function; `cutnn.array` defines those.

Complex gradients are PyTorch's: for a real loss L the gradient is ∂L/∂Re z + i ∂L/∂Im z, the direction of
steepest ascent, and the pullback of a linear map is its adjoint. Inside, rules are *bilinear*: they work on the
conjugates of those cotangents, so a rule multiplies by the derivative itself and transposes without conjugating.
The two ends of the pass conjugate. Rules are simpler, the result is the same.
"""

from cutnn.tape.custom import checkpoint, custom_vjp
from cutnn.tape.derivatives import grad, hessian, hvp, jacobian, jvp, stop_gradient, value_and_grad, vjp
from cutnn.tape.record import (
    NotDifferentiableError,
    NotDifferentiableWarning,
    Scattered,
    Tape,
    Traced,
    constant,
    nondifferentiable,
    primitive,
    raw,
)

__all__ = [
    "NotDifferentiableError",
    "NotDifferentiableWarning",
    "Scattered",
    "Tape",
    "Traced",
    "checkpoint",
    "constant",
    "custom_vjp",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "nondifferentiable",
    "primitive",
    "raw",
    "stop_gradient",
    "value_and_grad",
    "vjp",
]
