"""Tests for those who make algebras and gradients of their own: laws, hypothesis strategies, gradient checks.

    from cutnn import algebra, testing

    testing.check_algebra(algebra.StarAlgebra(MyTransform(8)))    # every law, on examples that hypothesis finds
    testing.check_gradient(f, x, order=2)                         # against differences

`check_algebra` and `testing.strategies` need hypothesis, `pip install 'cutnn[testing]'`.
"""

from typing import Any

from cutnn.testing import _factor_laws  # noqa: F401, adds to LAWS
from cutnn.testing._algebra import LawError, LawRow, Report, check_algebra
from cutnn.testing._gradient import GradientError, GradientReport, check_gradient
from cutnn.testing.laws import LAWS, Law, size

__all__ = [
    "LAWS",
    "GradientError",
    "GradientReport",
    "Law",
    "LawError",
    "LawRow",
    "Report",
    "check_algebra",
    "check_gradient",
    "size",
    "strategies",
]


def __getattr__(name: str) -> Any:
    if name == "strategies":  # on demand: it imports hypothesis
        import importlib

        return importlib.import_module("cutnn.testing.strategies")
    raise AttributeError(f"module 'cutnn.testing' has no attribute {name!r}")
