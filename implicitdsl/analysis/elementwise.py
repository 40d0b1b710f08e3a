"""Elementwise equations: entry i of the residual contains only entry i of the unknown, so the Jacobian is diagonal."""

from __future__ import annotations

from implicitdsl.ground.facts import Fact
from implicitdsl.ir.nodes import Expr, walk
from implicitdsl.ir.plan import System
from implicitdsl.ir.printer import show

from .context import Context
from .dependence import varying


def first_coupling(e: Expr, unknowns: tuple[Expr, ...], context: Context) -> Expr | None:
    """The innermost sub-expression in which entries of the unknowns meet, or None."""
    moving = varying((e,), frozenset(unknowns))
    for part in walk(e):
        moved = [a for a in part.args if a in moving]
        if not moved:
            continue
        if part.op in ("neg", "add", "mul", "div", "pow"):
            if all(a.shape == part.shape for a in moved):
                continue
        elif part.op == "matmul" and part.args[0].op == "diag" and part.args[1].shape == part.shape:
            if part.args[0] not in moving:
                continue
        elif part.op == "call":
            function = context.functions.get(part.name)
            same = all(a.shape == part.shape for a in moved)
            if function is not None and function.elementwise and same:
                continue
        return part
    return None


def elementwise(system: System, context: Context) -> Fact:
    """`elementwise`: True for one unknown with a diagonal Jacobian (a scalar always has one)."""
    if len(system.unknowns) != 1:
        return Fact("elementwise", None, (f"{len(system.unknowns)} unknowns are coupled",))
    unknown = system.unknowns[0]
    if len(system.residual) != 1 or system.residual[0].shape != unknown.shape:
        return Fact("elementwise", None, ("equations and unknowns differ in number",))
    if unknown.rank == 0:
        return Fact("elementwise", True, (f"{show(unknown)} is a scalar",))
    found = first_coupling(system.residual[0], system.unknowns, context)
    if found is not None:
        return Fact("elementwise", None, (f"{show(found)} mixes the entries of {show(unknown)}",))
    return Fact("elementwise", True, (f"entry i of the equation contains only entry i of {show(unknown)}",))
