"""Autonomy: whether equations contain the independent variables (time, space) explicitly."""

from __future__ import annotations

from implicitdsl.ground.facts import Fact
from implicitdsl.ir.model import Block
from implicitdsl.ir.nodes import Expr, symbols
from implicitdsl.ir.printer import show

from .normal import Expand, unchanged


def autonomous(block: Block, expand: Expand = unchanged) -> Fact:
    """`autonomous`: True if no equation contains an independent variable itself (`z(t)` does not count)."""
    variables = [d.node for d in block.domains]
    sides: list[Expr] = [expand(side) for e in block.equations for side in (e.lhs, e.rhs)]
    found = [v for v in variables if v in symbols(*sides)]
    if found:
        return Fact("autonomous", None, (f"{show(found[0])} occurs explicitly",))
    return Fact("autonomous", True, ("no equation contains an independent variable explicitly",))
