"""sqrt."""

from __future__ import annotations

from implicitdsl.ground.facts import Curvature, Interval, Monotone
from implicitdsl.ir.build import div, num

from .common import unary

SQRT = unary(
    "sqrt",
    "torch.sqrt({0})",
    lambda x, y: div(num(0.5), y),
    range=Interval(0.0),
    curvature=Curvature.CONCAVE,
    monotone=Monotone.INCREASING,
    latex=r"\sqrt",
)
"""√x of x ≥ 0; derivative 1 / (2 √x), infinite at 0."""
