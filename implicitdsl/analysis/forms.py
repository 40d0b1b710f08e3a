"""Quadratic forms xᵀ M x and tr(Xᵀ M X) of affine expressions, convex where their matrix is certainly ⪰ 0."""

from __future__ import annotations

from typing import Protocol

from implicitdsl.ground.facts import Curvature
from implicitdsl.ir import build
from implicitdsl.ir.nodes import Expr

from .bounds import Bounds
from .definite import negative, semidefinite

C = Curvature


class Rules(Protocol):
    """What is asked of the rules for single functions."""

    @property
    def bounds(self) -> Bounds: ...

    def above(self, e: Expr) -> bool: ...
    def below(self, e: Expr) -> bool: ...
    def is_affine(self, e: Expr) -> bool: ...
    def is_constant(self, e: Expr) -> bool: ...


def both(e: Expr) -> tuple[tuple[Expr, Expr], tuple[Expr, Expr]]:
    """The two arguments, in both orders."""
    a, b = e.args
    return (a, b), (b, a)


def form(x: Expr, other: Expr, rules: Rules) -> Curvature | None:
    """xᵀ (M x) with x affine and M constant, each scaled or not; M may be a product, as in xᵀ B (Bᵀ x)."""
    sign, x = _unscaled(x, rules)
    if sign == 0.0 or not rules.is_affine(x) or rules.is_constant(x):
        return None
    matrix: Expr | None = None
    while True:
        also, other = _unscaled(other, rules, x)
        sign = sign * also
        if sign == 0.0:
            return None
        if other is x:
            break
        if other.op == "matmul" and other.rank == 1:
            a, b = other.args
            factor, other = (a, b) if a.rank == 2 else (build.transpose(b), a)
        elif other.op == "mul" and other.args[0].rank == other.args[1].rank == 1:
            weight, other = other.args if rules.is_constant(other.args[0]) else other.args[::-1]
            factor = build.diag(weight)
        else:
            return None
        matrix = factor if matrix is None else build.matmul(matrix, factor)
    if matrix is None:
        return C.CONVEX if sign > 0 else C.CONCAVE
    return _definite(matrix, sign > 0, rules)


def trace_form(e: Expr, rules: Rules) -> Curvature | None:
    """tr(Xᵀ M X) = Σ X ∘ (M X), and with rows for columns, of an affine matrix X."""
    if e.op != "sum" or e.args[0].op != "mul":
        return None
    for X, other in both(e.args[0]):
        if other.op == "matmul" and X in other.args and rules.is_affine(X) and not rules.is_constant(X):
            return _definite(other.args[other.args[0] is X], True, rules)
    return None


def _definite(M: Expr, positive: bool, rules: Rules) -> Curvature | None:
    """Of ± xᵀ M x."""
    if M.rank != 2 or not rules.is_constant(M):
        return None
    if semidefinite(M, rules.bounds):
        return C.CONVEX if positive else C.CONCAVE
    return (C.CONCAVE if positive else C.CONVEX) if negative(M, rules.bounds) else None


def _unscaled(e: Expr, rules: Rules, base: Expr | None = None) -> tuple[float, Expr]:
    """(s, v) of a vector e = c v with numbers c of sign s taken away, not from `base` itself; s = 0: unknown.

    A vector of weights is taken away only from `base`: wᵀ(x ∘ x) = xᵀ diag(w) x.
    """
    sign = 1.0
    while e is not base:
        if e.op == "neg":
            sign, e = -sign, e.args[0]
            continue
        if e.op not in ("mul", "div") or e.rank != 1:
            break
        weight, rest = e.args
        if e.op == "div" or not rules.is_constant(weight):
            weight, rest = rest, weight
        if rest.rank != 1 or not rules.is_constant(weight):
            break
        if weight.rank == 1 and rest is not base:  # xᵀ diag(w) M x
            break
        if rules.below(weight):
            sign = -sign
        elif not rules.above(weight):
            return 0.0, rest
        e = rest
    return sign, e
