"""What a traced array answers: operators, indexing, attributes, NumPy's methods and NumPy's own functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy

from cutnn.array import (
    creation,
    data_types,
    elementwise,
    extras,
    fft,
    indexing,
    linalg,
    manipulation,
    sorting,
    statistical,
)
from cutnn.device import namespace
from cutnn.tape import NotDifferentiableError, Traced, raw

_ROOMS = (elementwise, statistical, manipulation, indexing, sorting, linalg, creation, data_types, extras)


def attach(standard: Any) -> None:
    """Give `Traced` its behaviour; `standard` is the namespace of the array API that it belongs to."""
    for name, method in _methods().items():
        setattr(Traced, name, method)
    Traced.__array_namespace__ = lambda self, /, *, api_version=None: standard  # type: ignore[attr-defined]


def _methods() -> dict[str, Any]:
    m: dict[str, Any] = {}
    for name, function in _OPERATORS.items():
        m[f"__{name}__"] = function
        m[f"__r{name}__"] = _swapped(function)
    for name, function in _COMPARISONS.items():
        m[f"__{name}__"] = function
    m |= {
        "__neg__": elementwise.negative,
        "__pos__": elementwise.positive,
        "__abs__": elementwise.abs,
        "__getitem__": indexing.getitem,
        "__setitem__": _setitem,
        "__len__": lambda self: self.shape[0] if self.ndim else len(raw(self)),
        "__iter__": lambda self: iter(manipulation.unstack(self)),
        "__bool__": lambda self: bool(raw(self)),
        "__copy__": lambda self: self,  # never changed in place, so its own copy; a copied tape would be lost
        "__deepcopy__": lambda self, memo: self,
        "__reduce_ex__": _lost("pickling"),
        "__repr__": lambda self: f"Traced({self.value!r})",
        "__hash__": None,
        "__array_priority__": 1000.0,  # CuPy's arrays then leave operators to us, as NumPy's do by protocol
        "__array_ufunc__": _array_ufunc,
        "__array_function__": _array_function,
        "__array__": _lost("numpy.asarray(x)"),
        "__float__": _lost("float(x)"),
        "__int__": _lost("int(x)"),
        "__index__": _lost("an index"),
        "__complex__": _lost("complex(x)"),
        "__dlpack__": _lost("DLPack export"),
        "to_device": _to_device,
        "item": _lost("x.item()"),
        "tolist": _lost("x.tolist()"),
        "shape": property(lambda self: self.value.shape),
        "ndim": property(lambda self: self.value.ndim),
        "size": property(lambda self: self.value.size),
        "dtype": property(lambda self: self.value.dtype),
        "device": property(lambda self: raw(self).device),
        "T": property(_transpose),
        "mT": property(linalg.matrix_transpose),
        "real": property(elementwise.real),
        "imag": property(elementwise.imag),
        "conj": elementwise.conj,
        "conjugate": elementwise.conj,
        "astype": lambda self, dtype, copy=True: data_types.astype(self, dtype, copy=copy),
        "copy": elementwise.positive,
        "reshape": lambda self, *shape: manipulation.reshape(self, _one_tuple(shape)),
        "ravel": lambda self: manipulation.reshape(self, (-1,)),
        "flatten": lambda self: manipulation.reshape(self, (-1,)),
        "transpose": lambda self, *axes: _transpose(self, _one_tuple(axes) or None),
        "swapaxes": _swapaxes,
        "squeeze": _squeeze,
        "repeat": lambda self, repeats, axis=None: manipulation.repeat(self, repeats, axis=axis),
        "take": lambda self, indices, axis=None: indexing.take(self, indices, axis=axis),
        "clip": elementwise.clip,
        "round": elementwise.round,
        "dot": _dot,
        "trace": linalg.trace,
        "argsort": lambda self, axis=-1: sorting.argsort(self, axis=axis),
        "cumsum": _cumulative(statistical.cumulative_sum),
        "cumprod": _cumulative(statistical.cumulative_prod),
    }
    for name in ("sum", "prod", "mean", "max", "min"):
        m[name] = _reduction(getattr(statistical, name))
    for name in ("std", "var"):
        m[name] = _spread(getattr(statistical, name))
    for name in ("all", "any"):
        m[name] = _reduction(getattr(statistical, name))
    for name in ("argmax", "argmin"):
        m[name] = _reduction(getattr(sorting, name))
    return m


_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "mul": elementwise.multiply,
    "truediv": elementwise.divide,
    "floordiv": elementwise.floor_divide,
    "mod": elementwise.remainder,
    "pow": lambda x1, x2: elementwise.square(x1) if type(x2) is int and x2 == 2 else elementwise.pow(x1, x2),
    "matmul": linalg.matmul,
}
_COMPARISONS: dict[str, Callable[..., Any]] = {
    "eq": elementwise.equal,
    "ne": elementwise.not_equal,
    "lt": elementwise.less,
    "le": elementwise.less_equal,
    "gt": elementwise.greater,
    "ge": elementwise.greater_equal,
}


def _swapped(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, other: function(other, self)


def _lost(what: str) -> Callable[..., NoReturn]:
    def method(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            f"{what} of a traced array would lose its gradient: stay with cutnn functions, "
            "or say cutnn.stop_gradient(x) first"
        )

    return method


def _to_device(self: Any, device: Any, /, *, stream: Any = None) -> Any:
    if device == self.device:
        return self
    raise TypeError(
        f"a traced array on {self.device} cannot move to {device}: move the arguments (cutnn.to_device) before "
        "they are traced"
    )


def _setitem(self: Any, key: Any, value: Any) -> NoReturn:
    raise TypeError(
        "a traced array cannot be assigned to in place; use x = cutnn.at_set(x, index, value) or cutnn.at_add"
    )


def _one_tuple(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of x.reshape(2, 3) or x.reshape((2, 3))."""
    if len(args) == 1 and (args[0] is None or isinstance(args[0], Sequence)):
        return tuple(args[0] or ())
    return args


def _transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    return manipulation.permute_dims(x, tuple(axes) if axes else tuple(range(x.ndim))[::-1])


def _swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    axes = list(range(x.ndim))
    axes[axis1], axes[axis2] = axes[axis2], axes[axis1]
    return manipulation.permute_dims(x, tuple(axes))


def _squeeze(x: Any, axis: int | tuple[int, ...] | None = None) -> Any:
    if axis is None:
        axis = tuple([i for i, n in enumerate(x.shape) if n == 1])
    return manipulation.squeeze(x, axis)


def _dot(a: Any, b: Any) -> Any:
    """NumPy's dot: the last axis of a with the last but one of b."""
    if numpy.ndim(raw(a)) == 0 or numpy.ndim(raw(b)) == 0:
        return elementwise.multiply(a, b)
    if a.ndim <= 2 and b.ndim <= 2:
        return linalg.matmul(a, b)
    return linalg.tensordot(a, b, axes=((a.ndim - 1,), (max(b.ndim - 2, 0),)))


def _cumulative(function: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy's form of a running sum or product, which flattens where no axis is given."""

    def method(self: Any, axis: int | None = None) -> Any:
        return (
            function(manipulation.reshape(self, (-1,)), axis=0) if axis is None else function(self, axis=axis)
        )

    return method


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy's form of a reduction, in which axis may come by position."""

    def method(self: Any, axis: Any = None, *, keepdims: bool = False, **options: Any) -> Any:
        return function(self, axis=axis, keepdims=keepdims, **options)

    return method


def _spread(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, axis: Any = None, *, ddof: float = 0, keepdims: bool = False) -> Any:
        return function(self, axis=axis, correction=ddof, keepdims=keepdims)

    return method


# ------------------------------------------------------------------------------ NumPy's functions, by protocol

# Where NumPy's own name is not the standard's.
STANDARD = {
    "absolute": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "conjugate": "conj",
    "invert": "bitwise_invert",
    "left_shift": "bitwise_left_shift",
    "power": "pow",
    "right_shift": "bitwise_right_shift",
    "rint": "round",
    "true_divide": "divide",
    "concatenate": "concat",
    "around": "round",
    "amax": "max",
    "amin": "min",
}


def _array_ufunc(self: Any, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    name = STANDARD.get(ufunc.__name__, ufunc.__name__)
    function = getattr(elementwise, name, None) or getattr(linalg, name, None)
    if kwargs.get("out") is not None:
        raise TypeError(f"numpy.{ufunc.__name__}: a traced array cannot be written into another array (out=)")
    if method == "reduce" and name in ("add", "multiply", "maximum", "minimum"):
        kwargs.setdefault("axis", 0)
        return getattr(statistical, _REDUCTIONS[name])(
            *inputs, **{k: kwargs[k] for k in kwargs if k != "out"}
        )
    if method != "__call__" or function is None or kwargs:
        options = f" with {', '.join(kwargs)}" if kwargs else ""
        form = "" if method == "__call__" else f".{method}"
        raise NotDifferentiableError(
            f"numpy.{ufunc.__name__}{form}{options} is not known to cutnn, so a traced array cannot pass through it; "
            "use a function of cutnn, or cutnn.stop_gradient(x) where no gradient is wanted"
        )
    return function(*inputs)


_REDUCTIONS = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min"}


def _array_function(self: Any, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
    module, name = func.__module__, func.__name__
    function = _numpy_function(module, STANDARD.get(name, name))
    if function is None:
        raise NotDifferentiableError(
            f"{module}.{name} is not known to cutnn, so a traced array cannot pass through it; "
            "use a function of cutnn, or cutnn.stop_gradient(x) where no gradient is wanted"
        )
    try:
        return function(*args, **kwargs)
    except TypeError as error:
        form = inspect.signature(function)
        try:
            form.bind(*args, **kwargs)
        except TypeError:
            parameters = [p.replace(annotation=p.empty) for p in form.parameters.values()]
            bare = form.replace(parameters=parameters, return_annotation=form.empty)
            raise TypeError(
                f"{module}.{name} of a traced array: {error}; its form here is {name}{bare}"
            ) from None
        raise


def _numpy_function(module: str, name: str) -> Callable[..., Any] | None:
    if module == "numpy.fft":
        return getattr(fft, name, None)
    if module == "numpy.linalg":
        return _norm if name == "norm" else getattr(linalg, name, None)
    if name in _NUMPY_FORMS:
        return _NUMPY_FORMS[name]
    method = getattr(Traced, name, None)
    if name in _METHOD_FORMS and callable(method):
        return method
    for room in _ROOMS:
        if hasattr(room, name) and not isinstance(getattr(room, name), type):
            return getattr(room, name)
    return None


def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    if axis is None and x.ndim == 2 and ord is not None or isinstance(axis, tuple) and len(axis) == 2:
        rows, columns = (0, 1) if axis is None else axis
        moved = manipulation.moveaxis(x, (rows, columns), (-2, -1))
        norm = linalg.matrix_norm(moved, ord="fro" if ord is None else ord)
        return manipulation.expand_dims(norm, axis=(rows % x.ndim, columns % x.ndim)) if keepdims else norm
    return linalg.vector_norm(x, axis=axis, keepdims=keepdims, ord=2 if ord is None else ord)


# Functions whose NumPy form is that of the method.
_METHOD_FORMS = frozenset(
    "sum prod mean std var max min all any argmax argmin argsort cumsum cumprod ravel squeeze swapaxes take "
    "repeat trace copy clip".split()
)

# Functions whose NumPy form differs from the standard's.
_NUMPY_FORMS: dict[str, Callable[..., Any]] = {
    "transpose": _transpose,
    "dot": _dot,
    "reshape": lambda a, shape, **options: manipulation.reshape(a, shape, **options),
    "concat": lambda arrays, axis=0: manipulation.concat(arrays, axis=axis),
    "stack": lambda arrays, axis=0: manipulation.stack(arrays, axis=axis),
    "expand_dims": lambda a, axis: manipulation.expand_dims(a, axis=axis),
    "flip": lambda m, axis=None: manipulation.flip(m, axis=axis),
    "roll": lambda a, shift, axis=None: manipulation.roll(a, shift, axis=axis),
    "sort": lambda a, axis=-1: sorting.sort(a, axis=axis),
    "where": lambda condition, x1, x2: elementwise.where(condition, x1, x2),
    "diff": lambda a, n=1, axis=-1, **options: statistical.diff(a, axis=axis, n=n, **options),
    "tril": lambda m, k=0: creation.tril(m, k=k),
    "triu": lambda m, k=0: creation.triu(m, k=k),
    "take_along_axis": lambda a, indices, axis=-1: indexing.take_along_axis(a, indices, axis=axis),
    "count_nonzero": lambda a, axis=None, *, keepdims=False: statistical.count_nonzero(
        a, axis=axis, keepdims=keepdims
    ),
    "vstack": lambda arrays: manipulation.concat([a[None] if a.ndim == 1 else a for a in arrays], axis=0),
    "hstack": lambda arrays: manipulation.concat(arrays, axis=0 if arrays[0].ndim == 1 else 1),
    "shape": lambda a: a.shape,
    "ndim": lambda a: a.ndim,
    "size": lambda a: a.size,
    "iscomplexobj": lambda x: x.dtype.kind == "c",
    "may_share_memory": lambda a, b, *rest: False,
    "array_repr": lambda a, *rest: repr(a),
    "array_str": lambda a, *rest: str(raw(a)),
    "copyto": lambda dst, *rest: _setitem(dst, None, None),
    "zeros_like": lambda a, dtype=None: namespace(raw(a)).zeros_like(raw(a), dtype=dtype),
    "ones_like": lambda a, dtype=None: namespace(raw(a)).ones_like(raw(a), dtype=dtype),
}
