"""Linearization: the Jacobian-vector product of an expression, as an expression."""

from __future__ import annotations

from collections.abc import Mapping

from implicitdsl.ir import build
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr, walk
from implicitdsl.ir.remake import avoid

from .rules import ATOMS, tangent


def linearize(expr: Expr, tangents: Mapping[Expr, Expr], functions: Functions) -> Expr:
    """∂expr · t, linear in the tangents; zeros if expr does not depend on what they belong to.

    `tangents` maps symbols (or `at` and `deriv` nodes) to tangents of their shape; every other symbol is held fixed,
    names of `where` too: `inline` them first where they vary. A rule a node, shared nodes once. `expand` goes before.
    """
    for x, t in tangents.items():
        assert x.shape == t.shape, "a tangent has the shape of what it belongs to"
    expr = avoid(expr, frozenset(name for t in tangents.values() for name in build.free_names(t)))
    known: dict[Expr, Expr | None] = {}
    for e in walk(expr):
        if e in tangents:
            known[e] = tangents[e]
        elif e.op in ATOMS or all(known[a] is None for a in e.args):
            known[e] = None
        else:
            t = tangent(e, [known[a] for a in e.args], functions)
            known[e] = None if build.is_zero(t) else t
    result = known[expr]
    return build.zeros(expr.shape) if result is None else result
