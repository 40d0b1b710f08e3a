"""Which nodes vary with the unknowns, found in one walk."""

from __future__ import annotations

from implicitdsl.ir.nodes import Expr, walk


def varying(roots: tuple[Expr, ...], unknowns: frozenset[Expr]) -> set[Expr]:
    """The nodes below the roots in which one of the symbols occurs. Derivative operators are carried out before."""
    found: set[Expr] = set()
    for e in walk(*roots):
        if e in unknowns or any(a in found for a in e.args):
            found.add(e)
    return found
