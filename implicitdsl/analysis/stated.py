"""Ranges that the constraints of a program state: `sum(z) >= 0.1` is a half-space in which 1 / sum(z) is convex."""

from __future__ import annotations

import math
from typing import Protocol

from implicitdsl.ground.facts import Interval
from implicitdsl.ir import build
from implicitdsl.ir.nodes import Expr
from implicitdsl.ir.plan import BELOW, Program

from . import intervals as iv
from .bounds import Bounds


class Rules(Protocol):
    """What is asked of the rules of convexity."""

    @property
    def bounds(self) -> Bounds: ...
    @property
    def running(self) -> frozenset[str]: ...

    def is_affine(self, e: Expr) -> bool: ...
    def is_constant(self, e: Expr) -> bool: ...


def stated(form: Program, rules: Rules) -> dict[Expr, Interval]:
    """What the affine inequalities g ≤ 0 say of the range of the expression in g.

    These are half-spaces whatever the rest of the program is: what is convex within them is convex where it counts.
    """
    found: dict[Expr, Interval] = {}
    for c in form.of(BELOW):
        if rules.is_affine(c.body) and not rules.is_constant(c.body):
            difference = build.neg(c.body), Interval(0.0)  # x − a of a ≤ x, whatever a is
            for e, within in (difference, _alone(*difference, rules)):
                if not build.free_names(e) & rules.running:
                    found[e] = found.get(e, iv.EVERYTHING).meet(within)
    return {e: r for e, r in found.items() if r.lo <= r.hi and r != iv.EVERYTHING}


def _alone(e: Expr, within: Interval, rules: Rules) -> tuple[Expr, Interval]:
    """The expression without constants that are added to it, its sign and its factor, and between what it then lies."""
    if e.op == "neg":
        return _alone(e.args[0], iv.neg(within), rules)
    if e.op == "mul" and (factor := e.args[0].number) is not None and factor != 0.0 and math.isfinite(factor):
        return _alone(e.args[1], iv.div(within, iv.point(factor)), rules)
    if e.op == "add":
        for constant, rest in (e.args, e.args[::-1]):
            if rules.is_constant(constant) and rest.shape == e.shape:
                return _alone(rest, iv.add(within, iv.neg(rules.bounds.range(constant))), rules)
    return e, within
