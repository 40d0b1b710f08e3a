"""Expressions in terms of what they stand for: definitions inlined, constants evaluated."""

from __future__ import annotations

from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.nodes import Expr, rebuild, same_with, symbols


def inline(expr: Expr, definitions: dict[Expr, Expr], keep: Expr | None = None) -> Expr:
    """Definitions that depend on `keep` (all, if None) replaced by what they stand for, except `keep` itself."""

    def leaf(e: Expr) -> Expr | None:
        if e.op != "sym" or e is keep or e not in definitions:
            return None
        value = inline(definitions[e], definitions, keep)
        return value if keep is None or keep in symbols(value) else e

    return rebuild(expr, leaf, same_with)


def number_of(expr: Expr) -> float | None:
    """The value of a constant node (with signs and quotients), else None."""
    match expr.op:
        case "num":
            return expr.number
        case "neg":
            inner = number_of(expr.args[0])
            return None if inner is None else -inner
        case "div":
            a, b = number_of(expr.args[0]), number_of(expr.args[1])
            return None if a is None or b is None or b == 0 else a / b
        case "dim":
            dim = expr.attrs[0]
            return float(dim.value) if isinstance(dim, Dim) and dim.value is not None else None
        case _:
            return None


def folded(e: Expr) -> Expr:
    """The same number; one node if it is a sum or product of dimensions and numbers."""
    if e.op not in ("add", "mul", "neg") or any(a.rank for a in e.args):
        return e
    args = [folded(a) for a in e.args]
    match e.op:
        case "add":
            return build.add(args[0], args[1])
        case "mul":
            return build.mul(args[0], args[1])
        case _:
            return build.neg(args[0])
