"""Norms as second-order cones: ‖x‖ in a convex program is the least t with (t, x) in {(t, x): t ≥ ‖x‖}.

What remains is quadratic with affine constraints, and an optimum where a norm vanishes is as regular as any other
(Lobo, Vandenberghe, Boyd & Lebret, Applications of second-order cone programming, 1998).
"""

from __future__ import annotations

from dataclasses import replace

from implicitdsl.ground.source import Span
from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim, size_of
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr, Role, depends, rebuild, sym, walk
from implicitdsl.ir.plan import BELOW, SECOND, Constraint, Program
from implicitdsl.ir.remake import remake

from .degree import degree

Range = tuple[Dim, Dim]


def has_norms(form: Program) -> bool:
    """Whether there are norms of unknowns, which have no derivative where they vanish."""
    roots = (form.objective, *(c.body for c in form.constraints))
    return any(e.op == "call" and e.name == "norm" and depends(e, frozenset(form.unknowns)) for e in walk(*roots))


def second_order(form: Program, functions: Functions, smooth: bool = False) -> Program | None:
    """The program with its norms as cones, if it then has a quadratic objective and affine constraints, or with
    `smooth` any; else None.

    It must be convex. New unknowns come at the end; a constraint ‖x‖ ≤ r needs none.
    """
    if not has_norms(form):
        return None
    lift = _Lift(form)
    constraints = [lift.constraint(c) for c in form.constraints]
    objective = lift.without(form.objective)
    unknowns = (*form.unknowns, *lift.unknowns)
    found = Program(unknowns, objective, (*constraints, *lift.constraints), form.sense)
    varying = frozenset(unknowns)
    if smooth:
        return found
    if degree(objective, varying, functions) > 2.0:
        return None
    return found if all(degree(c.body, varying, functions) <= 1.0 for c in found.constraints) else None


class _Lift:
    def __init__(self, form: Program) -> None:
        self.varying = frozenset(form.unknowns)
        self.unknowns: list[Expr] = []
        self.constraints: list[Constraint] = []
        self.known: dict[Expr, Expr] = {}
        self.ranges: dict[str, Range] = {}
        for e in walk(form.objective, *(c.body for c in form.constraints)):
            if e.op in ("sum_for", "stack_for"):
                name, lo, hi = build.binder_of(e)
                self.ranges[name] = lo, hi

    def constraint(self, c: Constraint) -> Constraint:
        """‖x‖ ≤ r as one cone, or a list of such as many; other constraints without their norms."""
        if c.kind != BELOW:
            return c
        inner, binder = c.body, None
        if c.body.op == "stack_for" and c.body.rank == 1:
            (inner,), binder = c.body.args, build.binder_of(c.body)
        pair = self._ball(inner) if inner.rank == 0 else None
        if pair is None:
            body = self.without(c.body, c.span)
            return c if body is c.body else replace(c, body=body)
        body = build.concat([pair[1], _flat(pair[0])])
        return replace(c, kind=SECOND, body=body if binder is None else build.stack_for(body, *binder))

    def _ball(self, body: Expr) -> tuple[Expr, Expr] | None:
        """(x, r) of ‖x‖ − r."""
        parts = body.args if body.op == "add" else (body, build.zeros(()))
        for head, rest in (parts, parts[::-1]):
            norms = any(e.op == "call" and e.name == "norm" and depends(e, self.varying) for e in walk(rest))
            if head.op == "call" and head.name == "norm" and depends(head, self.varying) and not norms:
                return head.args[0], build.neg(rest)
        return None

    def without(self, e: Expr, span: Span | None = None) -> Expr:
        """The expression with an unknown for every norm; one whose length depends on a running index stays."""

        def make(x: Expr, args: tuple[Expr, ...]) -> Expr:
            made = remake(x, args)
            if made.op != "call" or made.name != "norm" or not depends(x, self.varying):
                return made
            indices = tuple(sorted(build.free_names(x) & self.ranges.keys()))
            dims = (*x.args[0].shape, *(d for i in indices for d in self.ranges[i]))
            if any(d.names & self.ranges.keys() for d in dims):
                return made
            if x not in self.known:
                self.known[x] = self._above(made, indices, span or x.span or Span(0, 0))
            return self.known[x]

        return rebuild(e, lambda x: None, make, everywhere=True)

    def _above(self, norm: Expr, indices: tuple[str, ...], span: Span) -> Expr:
        """The least t ≥ ‖x‖; of a norm under running indices its entry of a vector or matrix."""
        x, ranges = _flat(norm.args[0]), [self.ranges[i] for i in indices]
        whole = sym(f"t~norm{len(self.unknowns) + 1}", Role.UNKNOWN, tuple(hi - lo for lo, hi in ranges))
        self.unknowns.append(whole)
        items = tuple(build.at_item(Dim.of(i) - lo) for i, (lo, _) in zip(indices, ranges, strict=True))
        t = build.index(whole, items) if items else whole
        body = build.concat([t, x])
        for i, (lo, hi) in zip(indices[::-1], ranges[::-1], strict=True):
            body = build.stack_for(body, i, lo, hi)
        self.constraints.append(Constraint(SECOND, body, span))
        return t


def _flat(x: Expr) -> Expr:
    return x if x.rank == 1 else build.reshape(x, (size_of(x.shape),))
