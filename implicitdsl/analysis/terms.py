"""Sums taken apart: `a - 2 (b + c)` as [(1, a), (-2, b), (-2, c)]."""

from __future__ import annotations

from collections.abc import Callable

from implicitdsl.ir.nodes import Expr

Scalar = Callable[[Expr], float | None]


def literal(e: Expr) -> float | None:
    """The value of a number, also a negated one."""
    if e.op == "neg":
        inner = literal(e.args[0])
        return None if inner is None else -inner
    return e.number


def terms(e: Expr, scalar: Scalar = literal, factor: float = 1.0) -> list[tuple[float, Expr]]:
    """Σ coefficient · term, numeric factors distributed over sums; equal terms are collected in order of appearance."""
    found: dict[Expr, float] = {}
    stack = [(factor, e)]
    while stack:
        coefficient, term = stack.pop()
        parts = _parts(term, scalar)
        if parts is None:
            found[term] = found.get(term, 0.0) + coefficient
        else:
            stack += [(coefficient * c, t) for c, t in reversed(parts)]
    return [(c, t) for t, c in found.items() if c != 0.0]


def _parts(e: Expr, scalar: Scalar) -> list[tuple[float, Expr]] | None:
    """One level of the sum; None for a term."""
    if e.op == "add" and all(a.shape == e.shape for a in e.args):
        return [(1.0, a) for a in e.args]
    if e.op == "neg":
        return [(-1.0, e.args[0])]
    if e.op == "mul":
        for a, b in (e.args, e.args[::-1]):
            value = scalar(a) if a.rank == 0 and b.shape == e.shape else None
            if value is not None:
                return [(value, b)]
    if e.op == "div" and e.args[1].rank == 0:
        value = scalar(e.args[1])
        if value:
            return [(1.0 / value, e.args[0])]
    return None
