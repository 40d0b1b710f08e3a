"""Brackets: an interval for a scalar (or each entry), with a sign change where it can be proved."""

from __future__ import annotations

from implicitdsl.ground.facts import Fact, Interval
from implicitdsl.ir import build
from implicitdsl.ir.nodes import Expr, substitute
from implicitdsl.ir.plan import System
from implicitdsl.ir.printer import show

from .bounds import Bounds
from .context import Context
from .ranges import of_set


def bracket(system: System, context: Context) -> Fact:
    """`bracket`: the bounded interval that picks the root of each entry; None where the unknown's set is none."""
    if len(system.unknowns) != 1 or len(system.residual) != 1:
        return Fact("bracket", None, ("not one unknown with one equation",))
    unknown = system.unknowns[0]
    declared = context.roots.get(unknown)
    if declared is None or declared.name not in ("open", "closed") or not of_set(declared).bounded:
        return Fact("bracket", None, (f"{show(unknown)} is not in a bounded interval",))
    ends = of_set(declared)
    lines = [f"{show(unknown)} in {declared.text}"]
    if changes_sign(system.residual[0], unknown, ends, context):
        lines.append("the residual has opposite signs at the two ends, so a root lies between")
    return Fact("bracket", ends, tuple(lines))


def changes_sign(residual: Expr, unknown: Expr, ends: Interval, context: Context) -> bool:
    """Whether every entry of the residual is proved to have opposite (or zero) signs at the ends."""
    bounds = Bounds(context)
    points = [build.fill(build.num(v), unknown.shape) for v in (ends.lo, ends.hi)]
    low, high = (bounds.range(substitute(residual, {unknown: point})) for point in points)
    return (low.hi <= 0.0 <= high.lo) or (low.lo >= 0.0 >= high.hi)
