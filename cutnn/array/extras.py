"""Beyond the standard: activations, softmax and its kin, `einsum`, each with the direct and stable
gradient."""

from __future__ import annotations

from typing import Any

from cutnn.array._define import fit
from cutnn.array._linear import explain, normal_axes, with_reduced_axes
from cutnn.array.elementwise import exp, where
from cutnn.device import namespace
from cutnn.tape import constant, primitive, raw

__all__ = ["einsum", "log_softmax", "logsumexp", "relu", "sigmoid", "softmax", "softplus"]

# ----------------------------------------------------------------------------------------------- activations


@primitive(x=lambda g, ans: where(ans > 0, g, 0))
def relu(x: Any, /) -> Any:
    """The positive part of x, max(x, 0); the gradient at 0 is 0.

    >>> import cutnn as ct
    >>> ct.relu(ct.asarray([-1.0, 2.0]))
    array([0., 2.])
    """
    return namespace(x).maximum(x, 0)


@primitive(x=lambda g, ans: g * (ans * (1 - ans)))
def sigmoid(x: Any, /) -> Any:
    """1 / (1 + exp(-x)) of real x, to full relative precision on both sides.

    >>> import cutnn as ct
    >>> ct.sigmoid(ct.asarray([-1000.0, 0.0]))
    array([0. , 0.5])
    """
    xp = namespace(x)
    tail = xp.exp(-xp.abs(x))
    return xp.where(x < 0, tail, 1) / (1 + tail)


@primitive(x=lambda g, x: g * sigmoid(x))
def softplus(x: Any, /) -> Any:
    """log(1 + exp(x)) of real x, a smooth relu.

    >>> import cutnn as ct
    >>> ct.softplus(ct.asarray([-1000.0, 1000.0]))
    array([   0., 1000.])
    """
    return namespace(x).logaddexp(x, 0)


# --------------------------------------------------------------------------------------------------- softmax


def logsumexp(x: Any, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """log(sum(exp(x))) of real x along one axis, several, or all (None), without overflow.

    >>> import cutnn as ct
    >>> float(ct.logsumexp(ct.asarray([1000.0, 1000.0])))
    1000.6931471805599
    """
    return _logsumexp(x, axis, keepdims)


def _logsumexp_rule(g: Any, ans: Any, x: Any, axis: Any, keepdims: bool) -> Any:
    total = with_reduced_axes(ans, x.shape, axis, keepdims)
    return with_reduced_axes(g, x.shape, axis, keepdims) * exp(x - where(_is_minus_infinity(total), 0, total))


@primitive(x=_logsumexp_rule)
def _logsumexp(x: Any, axis: Any, keepdims: bool) -> Any:
    xp = namespace(x)
    top = xp.max(x, axis=axis, keepdims=True)
    shift = xp.where(xp.isfinite(top), top, 0)
    total = xp.sum(xp.exp(x - shift), axis=axis, keepdims=True)
    ans = xp.where(total == 0, -xp.inf, xp.log(xp.where(total == 0, 1, total)) + shift)
    ans = ans.astype(total.dtype, copy=False)
    return ans if keepdims else xp.squeeze(ans, axis=normal_axes("logsumexp", axis, x.ndim))


@constant
def _is_minus_infinity(x: Any) -> Any:
    return namespace(x).isinf(x) & (x < 0)


def softmax(x: Any, /, *, axis: int | tuple[int, ...] = -1) -> Any:
    """exp(x) / sum(exp(x)) of real x along an axis: positive numbers that sum to 1.

    >>> import cutnn as ct
    >>> ct.softmax(ct.asarray([1000.0, 1000.0]))
    array([0.5, 0.5])
    """
    return _softmax(x, axis)


@primitive(x=lambda g, ans, axis: ans * (g - (g * ans).sum(axis=axis, keepdims=True)))
def _softmax(x: Any, axis: Any) -> Any:
    xp = namespace(x)
    weights = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    return weights / xp.sum(weights, axis=axis, keepdims=True)


def log_softmax(x: Any, /, *, axis: int | tuple[int, ...] = -1) -> Any:
    """The logarithm of softmax, x - logsumexp(x), precise where softmax is tiny.

    >>> import cutnn as ct
    >>> ct.log_softmax(ct.asarray([0.0, -1000.0]))
    array([    0., -1000.])
    """
    return _log_softmax(x, axis)


@primitive(x=lambda g, ans, axis: g - exp(ans) * g.sum(axis=axis, keepdims=True))
def _log_softmax(x: Any, axis: Any) -> Any:
    xp = namespace(x)
    x = x - xp.max(x, axis=axis, keepdims=True)
    return x - xp.log(xp.sum(xp.exp(x), axis=axis, keepdims=True))


# ---------------------------------------------------------------------------------------------------- einsum


def einsum(subscripts: str, /, *operands: Any) -> Any:
    """The sum of products that subscripts like "bij,bjk->bik" describe, in NumPy's notation.

    An operand may not repeat a letter of its own (take `linalg.diagonal` first), and "..." is not known:
    ValueError.

    >>> import cutnn as ct
    >>> ct.einsum("ij,kj->ik", ct.ones((2, 3)), ct.ones((4, 3))).shape
    (2, 4)
    """
    try:
        namespace(*[raw(x) for x in operands])  # refuses what is not an array
    except TypeError as error:
        explain("einsum", error)
    *terms, result = _parsed(subscripts, operands)
    for i, (term, x) in enumerate(zip(terms, operands, strict=True)):
        others = "".join([*terms[:i], *terms[i + 1 :], result])
        alone = [letter for letter in term if letter not in others]
        if alone:  # summed here, so that in the primitive each letter of an operand is known to all its rules
            summed = x.sum(axis=tuple([term.index(letter) for letter in alone]))
            terms[i] = "".join([letter for letter in term if letter in others])
            operands = (*operands[:i], summed, *operands[i + 1 :])
    return _einsum(*operands, terms=tuple(terms), result=result)


def _einsum_rule(g: Any, operands: tuple[Any, ...], terms: tuple[str, ...], result: str) -> list[Any]:
    cotangents = []
    for i, (term, x) in enumerate(zip(terms, operands, strict=True)):
        others = (result, *terms[:i], *terms[i + 1 :])
        h = _einsum(g, *operands[:i], *operands[i + 1 :], terms=others, result=term)
        cotangents.append(fit(h, x.shape, x.dtype))
    return cotangents


@primitive(operands=_einsum_rule)
def _einsum(*operands: Any, terms: tuple[str, ...], result: str) -> Any:
    # Without `optimize` NumPy loops in C where a matrix product would do.
    return namespace(*operands).einsum(f"{','.join(terms)}->{result}", *operands, optimize=True)


def _parsed(subscripts: str, operands: tuple[Any, ...]) -> list[str]:
    """The letters of each operand, and last those of the result."""
    left, arrow, result = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:  # as NumPy has it: the letters that occur once, sorted
        result = "".join(sorted([letter for letter in set(left) - {","} if left.count(letter) == 1]))
    fault = None
    if not all((term or "a").isalpha() for term in [*terms, result]):
        fault = 'only letters, "," and "->" are known'
    elif any(len(set(term)) != len(term) for term in [*terms, result]):
        fault = "a letter occurs twice in one term; for a diagonal use linalg.diagonal"
    elif not set(result) <= set(left):
        fault = "the result has a letter that no operand has"
    elif [len(term) for term in terms] != [len(x.shape) for x in operands]:
        fault = f"they do not fit operands of shape {', '.join(str(x.shape) for x in operands)}"
    if fault is not None:
        raise ValueError(f"einsum: subscripts {subscripts!r}: {fault}")
    return [*terms, result]
