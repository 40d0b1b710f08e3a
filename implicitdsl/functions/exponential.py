"""exp and log."""

from __future__ import annotations

from implicitdsl.ground.facts import Curvature, Interval, Monotone
from implicitdsl.ir.build import div, num

from .common import unary

EXP = unary(
    "exp",
    "torch.exp({0})",
    lambda x, y: y,
    range=Interval(0.0),
    curvature=Curvature.CONVEX,
    monotone=Monotone.INCREASING,
    latex=r"\exp",
)
"""eˣ; derivative eˣ."""

LOG = unary(
    "log",
    "torch.log({0})",
    lambda x, y: div(num(1.0), x),
    curvature=Curvature.CONCAVE,
    monotone=Monotone.INCREASING,
    latex=r"\log",
)
"""The natural logarithm of x > 0; derivative 1 / x."""
