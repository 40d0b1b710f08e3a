"""Affine equations: F(u) = A u − h with A and h free of u, and what A looks like."""

from __future__ import annotations

from implicitdsl.ground.facts import Curvature, Fact
from implicitdsl.ir.nodes import LINEAR, Expr, walk
from implicitdsl.ir.plan import System
from implicitdsl.ir.printer import show

from .context import Context
from .dependence import varying
from .elementwise import elementwise
from .sylvester import two_sided


def first_nonlinear(e: Expr, unknowns: frozenset[Expr], context: Context) -> Expr | None:
    """The innermost sub-expression that is not affine in the unknowns, or None."""
    moving = varying((e,), unknowns)
    for part in walk(e):
        moved = [a for a in part.args if a in moving]
        if not moved or part.op in LINEAR:
            continue
        if part.op in ("mul", "matmul", "outer") and len(moved) == 1 and part.args[0] is not part.args[1]:
            continue
        if part.op == "div" and moved == [part.args[0]]:
            continue
        if part.op == "pow" and part.args[1].number == 1.0:
            continue
        if part.op == "call" and part.name in ("scale_rows", "scale_columns") and len(moved) == 1:
            continue
        function = context.functions.get(part.name) if part.op == "call" else None
        if function is not None and function.curvature is Curvature.AFFINE:
            continue
        return part
    return None


def is_affine(e: Expr, unknowns: frozenset[Expr], context: Context) -> bool:
    return first_nonlinear(e, unknowns, context) is None


def affine(system: System, context: Context) -> Fact:
    """`affine`: "diagonal", "dense" or "sylvester" (see `two_sided`); None with the nonlinear part."""
    unknowns = frozenset(system.unknowns)
    names = ", ".join(show(u) for u in system.unknowns)
    for residual in system.residual:
        found = first_nonlinear(residual, unknowns, context)
        if found is not None:
            return Fact("affine", None, (f"{show(found)} is not affine in {names}",))
    if elementwise(system, context).value is not None:
        kind, why = "diagonal", "and every entry is an equation of its own"
    elif (parts := two_sided(system)) is not None:
        kind, why = "sylvester", f"a matrix between matrices: the terms are {parts.shown(names)}"
    else:
        kind, why = "dense", "its coefficients are a matrix"
    return Fact("affine", kind, (f"every term contains {names} at most linearly", why))
