"""Kinks as constraints: |x| in a convex program is the least t with −t ≤ x ≤ t. What remains is smooth.

A convex function that stands where the program wants little of it may be replaced by a new unknown t above it
(Grant & Boyd, Graph implementations for nonsmooth convex programs, 2008); a concave one by an unknown below it.
"""

from __future__ import annotations

from dataclasses import replace

from implicitdsl.ground.source import Span
from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.model import SetInfo
from implicitdsl.ir.nodes import Expr, Role, depends, num, rebuild, sym, walk
from implicitdsl.ir.plan import BELOW, DEFINITE, EQUAL, Constraint, Program
from implicitdsl.ir.remake import remake

from .curvature import Curvatures
from .symmetry import SYMMETRIC, is_symmetric, symmetric_unknowns

KINKS = frozenset(("abs", "relu", "maximum", "minimum", "max_all", "min_all", "norm_1", "norm_inf"))


def lifted(form: Program, rules: Curvatures, squares: bool = True) -> Program:
    """The program without kinks, with further unknowns at the end; itself where it has none. It must be convex.

    Norms stay, but for ‖x‖ ≤ r with `squares`.
    """
    lift = _Lift(form, rules, squares)
    objective = lift.smooth(form.objective, None)
    constraints: list[Constraint] = []
    for c in form.constraints:
        constraints += lift.constraint(c)
    if not lift.unknowns and all(a is b for a, b in zip(constraints, form.constraints, strict=False)):
        return form
    found = (*constraints, *lift.constraints)
    return Program((*form.unknowns, *lift.unknowns), objective, found, form.sense)


class _Lift:
    def __init__(self, form: Program, rules: Curvatures, squares: bool) -> None:
        self.form, self.rules, self.squares = form, rules, squares
        self.varying = frozenset(form.unknowns)
        self.unknowns: list[Expr] = []
        self.constraints: list[Constraint] = []
        self.known: dict[Expr, Expr] = {}
        self.ranges: dict[str, tuple[Dim, Dim]] = {}
        for e in walk(form.objective, *(c.body for c in form.constraints)):
            if e.op in ("sum_for", "stack_for"):
                name, lo, hi = build.binder_of(e)
                self.ranges[name] = lo, hi
        self.same = _symmetric(form, rules) if form.of(DEFINITE) else frozenset[Expr]()

    def constraint(self, c: Constraint) -> list[Constraint]:
        """A constraint without kinks. ‖x‖ ≤ r of a constant r becomes ‖x‖² ≤ r², which is smooth at 0."""
        if c.kind != BELOW:
            return [c]
        pieces = None if c.label is not None else self._pieces(c.body)
        if pieces is not None:
            return [found for body in pieces for found in self.constraint(replace(c, body=body, written=body))]
        body = self.smooth(c.body, c.span)
        ball = self._ball(body) if self.squares else None
        if ball is not None:
            x, r = ball
            squared = build.sub(build.inner(x, x), build.power(r, num(2.0)))
            if c.label is not None:  # so that the multiplier is that of ‖x‖ ≤ r
                squared = build.div(squared, build.mul(num(2.0), r))
            found = [replace(c, body=squared)]
            if r.number is None or r.number < 0:
                found.append(Constraint(BELOW, build.neg(r), c.span))
            return found
        return [c if body is c.body else replace(c, body=body)]

    def _pieces(self, body: Expr) -> list[Expr] | None:
        """The bodies whose conjunction is max(a, b) + c ≤ 0; None where no such kink stands in the sum."""
        if body.op == "stack_for":
            found = self._pieces(body.args[0])
            return None if found is None else [build.stack_for(piece, *build.binder_of(body)) for piece in found]
        parts = body.args if body.op == "add" else (body, build.zeros(body.shape))
        for head, rest in (parts, parts[::-1]):
            kink, sign = (head.args[0], -1.0) if head.op == "neg" else (head, 1.0)
            if kink.op != "call" or not depends(kink, self.varying):
                continue
            if kink.name in (("minimum", "min_all") if sign < 0 else KINKS - {"minimum", "min_all", "norm_1"}):
                below = [build.neg(a) for a in kink.args] if sign < 0 else _above(kink)
                return [build.add(piece, rest) for piece in below]
        return None

    def _ball(self, body: Expr) -> tuple[Expr, Expr] | None:
        """(x, r) of ‖x‖ − r."""
        parts = body.args if body.op == "add" else (body, num(0.0))
        for head, rest in (parts, parts[::-1]):
            if head.op == "call" and head.name == "norm" and not depends(rest, self.varying):
                return head.args[0], build.neg(rest)
        return None

    def smooth(self, e: Expr, span: Span | None) -> Expr:
        """The expression with every kink replaced, inner ones first. One whose shape or number depends on a running
        index stays."""

        def make(x: Expr, args: tuple[Expr, ...]) -> Expr:
            made = remake(x, args)
            if made.op != "call" or made.name not in KINKS or not depends(x, self.varying):
                return made
            indices = tuple(sorted(build.free_names(x) & self.ranges.keys()))
            dims = (*x.shape, *(d for a in x.args for d in a.shape), *(d for i in indices for d in self.ranges[i]))
            if any(d.names & self.ranges.keys() for d in dims):
                return made
            if x not in self.known:
                self.known[x] = self.replaced(made, indices, span or Span(0, 0))
            return self.known[x]

        return rebuild(e, lambda x: None, make, everywhere=True)

    def replaced(self, e: Expr, indices: tuple[str, ...], span: Span) -> Expr:
        """What stands for a kink: a new unknown, or a sum of one; under running indices its part of one for all."""
        below = e.name in ("minimum", "min_all")
        shape = e.args[0].shape if e.name == "norm_1" else e.shape
        ranges = [self.ranges[i] for i in indices]
        whole = sym(f"t~{len(self.unknowns) + 1}", Role.UNKNOWN, (*(hi - lo for lo, hi in ranges), *shape))
        self.unknowns.append(whole)
        items = tuple(build.at_item(Dim.of(i) - lo) for i, (lo, _) in zip(indices, ranges, strict=True))
        t = build.index(whole, items) if items else whole
        parts = list(e.args) if below else _above(e)
        if self.same and not indices and t.rank == 2 and all(is_symmetric(part, self.same) for part in parts):
            same = build.sub(t, build.transpose(t))
            self.constraints.append(Constraint(EQUAL, same, span, set=SetInfo("Sym", (), t.shape, "Sym")))
        for part in parts:
            body = written = build.sub(t, part) if below else build.sub(part, t)
            for i, (lo, hi) in zip(indices[::-1], ranges[::-1], strict=True):
                body = build.stack_for(body, i, lo, hi)
            self.constraints.append(Constraint(BELOW, body, span, written=written))
        return build.total(t) if e.name == "norm_1" else t


def _symmetric(form: Program, rules: Curvatures) -> frozenset[Expr]:
    """The symbols that are symmetric matrices."""
    declared = (e for e, s in rules.bounds.context.sets.items() if s.name in SYMMETRIC)
    return symmetric_unknowns(form) | frozenset(declared)


def _above(e: Expr) -> list[Expr]:
    """What a convex kink is the largest of."""
    x = e.args[0]
    if e.name in ("abs", "norm_1", "norm_inf"):
        return [x, build.neg(x)]
    return [x, build.zeros(x.shape)] if e.name == "relu" else list(e.args)
