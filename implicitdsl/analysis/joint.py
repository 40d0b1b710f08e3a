"""Convexity of several arguments together: perspectives, geometric means, p-norms; and products of powers.

Boyd & Vandenberghe, Convex Optimization (2004), §3.1.5 and §3.2.6.
"""

from __future__ import annotations

from typing import Protocol

from implicitdsl.ground.facts import Curvature, Interval
from implicitdsl.ir import build
from implicitdsl.ir.dims import size_of
from implicitdsl.ir.nodes import Expr, Role, depends, sym, walk
from implicitdsl.ir.remake import replace

from .bounds import Bounds
from .definite import nonnegative
from .elementwise import first_coupling
from .powers import powers

C = Curvature


class Rules(Protocol):
    """What is asked of the rules for single functions."""

    @property
    def unknowns(self) -> frozenset[Expr]: ...
    @property
    def bounds(self) -> Bounds: ...

    def of(self, e: Expr) -> Curvature: ...
    def above(self, e: Expr) -> bool: ...
    def is_affine(self, e: Expr) -> bool: ...
    def is_convex(self, e: Expr) -> bool: ...
    def is_concave(self, e: Expr) -> bool: ...
    def is_constant(self, e: Expr) -> bool: ...
    def within(self, unknowns: frozenset[Expr], bounds: Bounds) -> Rules: ...


def joint(e: Expr, rules: Rules) -> Curvature:
    """CONVEX or CONCAVE where one of the rules here says so."""
    match e.op:
        case "mul":
            a, b = e.args
            found = perspective(a, b, rules)
            found = perspective(b, a, rules) if found is C.UNKNOWN else found
            return powers(e, rules) if found is C.UNKNOWN else found
        case "pow" if _mean(e.args[0], e.args[1], rules):
            return C.CONCAVE
        case "pow" | "div":
            return powers(e, rules)
        case "call" if e.name == "sqrt":
            return powers(e, rules)
        case "call" if e.name == "exp":
            return C.CONCAVE if _logarithms(e.args[0], rules) else C.UNKNOWN
        case "call" if e.name == "log":
            return C.CONVEX if _inverse(e.args[0], rules) else C.UNKNOWN
        case _:
            return C.UNKNOWN


def perspective(t: Expr, e: Expr, rules: Rules) -> Curvature:
    """t g(u / t) for affine t ≥ 0 and u has the curvature of g. A vector t goes with a g of single entries."""
    if not rules.is_affine(t) or rules.is_constant(t) or not nonnegative(t, rules.bounds):
        return C.UNKNOWN
    fresh: dict[Expr, Expr] = {}
    for part in walk(e):
        if part.op == "div" and part.args[1] is t and rules.is_affine(part.args[0]):
            fresh[part] = sym(f"u~{len(fresh) + 1}", Role.UNKNOWN, part.shape)
    if not fresh:
        return C.UNKNOWN
    inner = replace(e, fresh)
    if depends(inner, rules.unknowns):
        return C.UNKNOWN
    context, symbols = rules.bounds.context, frozenset(fresh.values())
    if t.rank and first_coupling(inner, tuple(symbols), context) is not None:
        return C.UNKNOWN
    signs = {q: Interval(0.0) for part, q in fresh.items() if nonnegative(part.args[0], rules.bounds)}
    found = rules.within(symbols, Bounds(context.assuming(signs))).of(inner)
    return C.CONVEX if found is C.AFFINE else found


def _mean(x: Expr, exponent: Expr, rules: Rules) -> bool:
    """prod(x)ᵏ of n nonnegative concave factors with n k ≤ 1."""
    if x.op != "call" or x.name != "prod":
        return False
    (values,) = x.args
    few = exponent.op == "div" and exponent.args[0].number == 1.0
    whole = few and build.as_dim(exponent.args[1]) == size_of(values.shape)
    count, k = rules.bounds.context.size(values.shape), exponent.number
    whole = whole or (count is not None and k is not None and k > 0 and count * k <= 1)
    return whole and rules.is_concave(values) and nonnegative(values, rules.bounds)


def _logarithms(e: Expr, rules: Rules) -> bool:
    """Σ log(xᵢ) / n over n entries of a concave x: exp of it is their geometric mean."""
    if e.op != "div" or e.args[0].op != "sum":
        return False
    inner = e.args[0].args[0]
    if inner.op != "call" or inner.name != "log" or build.as_dim(e.args[1]) != size_of(inner.shape):
        return False
    return rules.is_concave(inner.args[0])


def _inverse(e: Expr, rules: Rules) -> bool:
    """c / x for constant c ≥ 0 and concave x: its logarithm is log(c) − log(x)."""
    if e.op != "div" or not rules.is_constant(e.args[0]) or not nonnegative(e.args[0], rules.bounds):
        return False
    return rules.is_concave(e.args[1])
