"""Polynomial degree of an expression in the unknowns, by its operations: 0, 1 (affine), 2 (quadratic), … or ∞."""

from __future__ import annotations

import math
from collections.abc import Mapping

from implicitdsl.ground.facts import Curvature
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import LINEAR, Expr, walk

PRODUCTS = frozenset(("mul", "matmul", "outer"))
SCALINGS = frozenset(("scale_rows", "scale_columns"))


def degrees(roots: tuple[Expr, ...], unknowns: frozenset[Expr], functions: Functions) -> Mapping[Expr, float]:
    """The degree of every node below the roots: an upper bound, as terms that cancel are not seen to."""
    found: dict[Expr, float] = {}
    for e in walk(*roots):
        found[e] = 1.0 if e in unknowns else _degree(e, [found[a] for a in e.args], functions)
    return found


def degree(e: Expr, unknowns: frozenset[Expr], functions: Functions) -> float:
    """The degree of one expression."""
    return degrees((e,), unknowns, functions)[e]


def _degree(e: Expr, args: list[float], functions: Functions) -> float:
    most = max(args, default=0.0)
    if most == 0.0 or e.op in LINEAR:
        return most
    if e.op in PRODUCTS or (e.op == "call" and e.name in SCALINGS):
        return sum(args)
    if e.op == "div":
        return args[0] if args[1] == 0.0 else math.inf
    if e.op == "pow":
        exponent = e.args[1].number
        if exponent is not None and exponent >= 0.0 and exponent.is_integer():
            return args[0] * exponent
        return math.inf
    function = functions.get(e.name) if e.op == "call" else None
    return most if function is not None and function.curvature is Curvature.AFFINE else math.inf
