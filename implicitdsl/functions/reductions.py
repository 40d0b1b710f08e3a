"""sum, mean and dot."""

from __future__ import annotations

from collections.abc import Sequence

from implicitdsl.ground.facts import Curvature, Monotone
from implicitdsl.ir.build import inner, mean, total
from implicitdsl.ir.dims import Shape, show_shape
from implicitdsl.ir.function import Function, TypeRuleError

from .common import scalar_of


def _dot_shape(shapes: Sequence[Shape]) -> Shape:
    a, b = shapes
    if a != b:
        raise TypeRuleError("IMP201", f"`dot` of shapes {show_shape(a)} and {show_shape(b)}", 1)
    return ()


SUM = Function(
    "sum",
    (1, 1),
    shape=scalar_of,
    builder=lambda args: total(args[0]),
    curvature=Curvature.AFFINE,
    monotone=Monotone.INCREASING,
)
"""Σ of all elements."""

MEAN = Function(
    "mean",
    (1, 1),
    shape=scalar_of,
    builder=lambda args: mean(args[0]),
    lipschitz=1.0,
    curvature=Curvature.AFFINE,
    monotone=Monotone.INCREASING,
)
"""The mean of all elements."""

DOT = Function(
    "dot", (2, 2), shape=_dot_shape, builder=lambda args: inner(args[0], args[1]), curvature=Curvature.AFFINE
)
"""Σ aᵢ bᵢ of equal shapes; affine in each argument alone."""
