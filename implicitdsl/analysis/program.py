"""Normal form of an `argmin` block: minimise f subject to equalities e = 0, inequalities g ≤ 0 and matrices M ⪰ 0."""

from __future__ import annotations

import math

from implicitdsl.ground.source import Span
from implicitdsl.ir import build
from implicitdsl.ir.model import Block, Equation, SetInfo
from implicitdsl.ir.nodes import Expr, num
from implicitdsl.ir.plan import BELOW, DEFINITE, EQUAL, Constraint, Program

from .normal import Expand, unchanged


def program(block: Block, expand: Expand = unchanged) -> Program:
    """The normal form. Sets of unknowns come first, then the relations in the order of the text."""
    assert block.objective is not None, "an argmin block has an objective"
    objective = expand(block.objective)
    if block.sense == "max":
        objective = build.neg(objective)
    found: list[Constraint] = []
    for s in block.unknowns:
        found += of_set(s.node, s.set, s.span or block.span)
    for equation in block.equations:
        found += _relation(equation, block, expand)
    return Program(tuple(s.node for s in block.unknowns), objective, tuple(found), block.sense)


def _relation(equation: Equation, block: Block, expand: Expand) -> list[Constraint]:
    if equation.op == "in":
        assert equation.set is not None
        return [_listed(c, equation) for c in of_set(expand(equation.lhs), equation.set, equation.span, equation.label)]
    lhs, rhs = expand(equation.lhs), expand(equation.rhs)
    kind, body = _body(equation.op, lhs, rhs)
    sign = -1.0 if _is_lower(equation, block) else 1.0
    return [_listed(Constraint(kind, body, equation.span, equation.label, sign, body), equation)]


def _body(op: str, lhs: Expr, rhs: Expr) -> tuple[str, Expr]:
    if op in (">>", "<<"):
        if op == "<<":
            lhs, rhs = rhs, lhs
        return DEFINITE, build.sub(_matrix(lhs, rhs), _matrix(rhs, lhs))
    if op == "=":
        return EQUAL, build.sub(lhs, rhs)
    return BELOW, build.sub(lhs, rhs) if op == "<=" else build.sub(rhs, lhs)


def _matrix(e: Expr, other: Expr) -> Expr:
    """Beside a matrix the number c stands for c I."""
    if e.rank == 2 or other.rank != 2:
        return e
    return build.mul(e, build.eye(other.shape[0]))


def _is_lower(equation: Equation, block: Block) -> bool:
    """Whether it is the first half of a labelled chain."""
    if equation.label is None or equation.op == "=":
        return False
    mates = [e for e in block.equations if e.label == equation.label and e.span == equation.span]
    return len(mates) > 1 and mates[0] is equation


def _listed(c: Constraint, equation: Equation) -> Constraint:
    body = c.body
    for name, lo, hi in reversed(equation.index):
        body = build.stack_for(body, name, lo, hi)
    return Constraint(c.kind, body, c.span, c.label, c.sign, c.body, c.set)


def of_set(e: Expr, s: SetInfo, span: Span, label: str | None = None) -> list[Constraint]:
    """What membership says. Open sets are taken with their boundary."""

    def made(kind: str, body: Expr) -> Constraint:
        return Constraint(kind, body, span, label, 1.0, body, s)

    match s.name:
        case "R":
            return []
        case "positive" | "nonneg":
            return [made(BELOW, build.neg(e))]
        case "open" | "closed":
            lo, hi = s.args
            below = [made(BELOW, build.sub(num(lo), e))] if math.isfinite(lo) else []
            return below + ([made(BELOW, build.sub(e, num(hi)))] if math.isfinite(hi) else [])
        case "simplex":
            return [made(BELOW, build.neg(e)), made(EQUAL, build.sub(build.total(e), num(1.0)))]
        case "ball":
            return [made(BELOW, build.sub(_norm(e), num(s.args[0])))]
        case "sphere":
            return [made(EQUAL, build.sub(build.inner(e, e), num(1.0)))]
        case "PSD" | "PD":
            return [made(EQUAL, _skew(e)), made(DEFINITE, e)]
        case "Sym":
            return [made(EQUAL, _skew(e))]
        case "Skew":
            return [made(EQUAL, build.add(e, build.transpose(e)))]
        case "Orth" | "Stiefel":
            product = build.matmul(build.transpose(e), e)
            return [made(EQUAL, build.sub(product, build.eye(e.shape[1])))]
        case "SpectralBall" | "Monotone":
            return [made(DEFINITE, _spectral(e, s))]
        case _:
            raise AssertionError(f"a set {s.name} that argmin does not know")


def _norm(e: Expr) -> Expr:
    return build.call("norm", (e,), ())


def _skew(e: Expr) -> Expr:
    return build.sub(e, build.transpose(e))


def _spectral(e: Expr, s: SetInfo) -> Expr:
    """[[c I, W], [Wᵀ, c I]] ⪰ 0 for ‖W‖₂ ≤ c; I − m I − (W + Wᵀ)/2 ⪰ 0 for a monotone W with margin m."""
    n, value = e.shape[0], num(s.args[0])
    one = build.eye(n)
    if s.name == "Monotone":
        symmetric = build.mul(num(0.5), build.add(e, build.transpose(e)))
        return build.sub(build.mul(num(1.0 - s.args[0]), one), symmetric)
    corner = build.mul(value, one)
    left = build.concat([corner, build.transpose(e)])
    right = build.concat([e, corner])
    return build.transpose(build.concat([build.transpose(left), build.transpose(right)]))
