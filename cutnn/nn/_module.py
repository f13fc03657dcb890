"""Modules: dataclasses whose arrays are the leaves of a pytree, in optree's namespace "cutnn".

Every function on pytrees takes a model as it is: `ct.value_and_grad(loss)(model)` returns the gradient in the
model's own structure, `ct.to_device(model)` moves it, an optimizer updates its leaves.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, dataclass_transform

import optree

__all__ = ["Module", "count_parameters", "static"]


def static(**options: Any) -> Any:
    """A field of a module that is no array and is not trained: a size, an algebra, an activation.

    It takes the options of `dataclasses.field` and is part of the pytree's structure, so its value must be
    hashable.
    """
    return dataclasses.field(metadata={"static": True}, **options)


@dataclass_transform(kw_only_default=False, field_specifiers=(static, dataclasses.field))
class Module:
    """A dataclass whose fields are arrays, modules, None, or tuples, lists and dictionaries of those.

    Deriving from it is enough to become a dataclass and a pytree; an `__init__` that the class or a base
    class writes itself is kept. Fields that are none of the above are declared with `static()`.

    >>> import numpy as np
    >>> from cutnn import grad
    >>> class Line(Module):
    ...     slope: np.ndarray
    ...     power: int = static(default=1)
    ...     def __call__(self, x):
    ...         return self.slope * x**self.power
    >>> line = Line(np.array(3.0))
    >>> line
    Line(power=1, slope=float64 ()), 1 parameter
    >>> grad(lambda line: line(2.0))(line).slope
    array(2.)
    """

    _writes_init: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._writes_init = cls._writes_init or "__init__" in cls.__dict__
        dataclasses.dataclass(eq=False, repr=False, init=not cls._writes_init)(cls)
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        moving = tuple(f.name for f in fields if not f.metadata.get("static"))
        fixed = tuple(f.name for f in fields if f.metadata.get("static"))

        def flatten(module: Any) -> tuple[list[Any], tuple[Any, ...], tuple[str, ...]]:
            children = [getattr(module, name) for name in moving]
            return children, tuple([getattr(module, name) for name in fixed]), moving

        def unflatten(values: tuple[Any, ...], children: Any) -> Any:
            module = object.__new__(cls)
            module.__dict__.update(zip(moving, children, strict=True))
            module.__dict__.update(zip(fixed, values, strict=True))
            return module

        optree.register_pytree_node(cls, flatten, unflatten, namespace="cutnn")  # type: ignore[arg-type]

    def manifold_of(self, field: str) -> Any:
        """The manifold (`algebra.manifolds`) on which optimizers keep the arrays of a field; None leaves them free."""
        return None

    def __repr__(self) -> str:
        head, *lines = _lines(self)
        count = count_parameters(self)
        return "\n".join([f"{head}, {count:,} parameter{'s' if count != 1 else ''}", *lines])

    def _summary(self) -> str:
        """What stands between the parentheses of the repr: static fields, and shapes of arrays."""
        shown = []
        for fixed in (True, False):
            for field in dataclasses.fields(self):  # type: ignore[arg-type]
                value = getattr(self, field.name)
                if bool(field.metadata.get("static")) == fixed and (fixed or not _submodules(value)):
                    shown.append(f"{field.name}={_describe(value)}")
        return ", ".join(shown)


def count_parameters(model: Any) -> int:
    """The number of entries in the arrays of a model, or of any pytree.

    >>> import numpy as np
    >>> count_parameters({"weight": np.zeros((2, 3)), "bias": np.zeros(2)})
    8
    """
    leaves = optree.tree_leaves(model, namespace="cutnn")
    return sum(math.prod(leaf.shape) for leaf in leaves if hasattr(leaf, "shape"))


# -------------------------------------------------------------------------------------------------- helpers


def _lines(module: Module) -> list[str]:
    """The module on one line, and the modules it holds below it, indented."""
    summary = module._summary()
    lines = [f"{type(module).__name__}({summary})" if summary else type(module).__name__]
    for field in dataclasses.fields(module):  # type: ignore[arg-type]
        if field.metadata.get("static"):
            continue
        for name, part in _submodules(getattr(module, field.name)):
            head, *rest = _lines(part)
            where = field.name + name if name != "" else field.name
            lines += [f"  {where}: {head}, {count_parameters(part):,}", *("  " + line for line in rest)]
    return lines


def _submodules(value: Any) -> list[tuple[str, Module]]:
    if isinstance(value, Module):
        return [("", value)]
    if isinstance(value, (tuple, list)):
        return [(f"[{i}]{name}", m) for i, part in enumerate(value) for name, m in _submodules(part)]
    if isinstance(value, dict):
        return [(f"[{key!r}]{name}", m) for key, part in value.items() for name, m in _submodules(part)]
    return []


def _describe(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_describe, value))})"
    return getattr(value, "__name__", None) or repr(value)
