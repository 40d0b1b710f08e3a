"""Projections that have a formula: min ½ p ‖x‖² + qᵀx over a ball or over the semidefinite matrices."""

from __future__ import annotations

from implicitdsl.ground.facts import Fact
from implicitdsl.ground.records import dataclass
from implicitdsl.ir import build
from implicitdsl.ir.nodes import Expr, depends, num
from implicitdsl.ir.plan import BELOW, DEFINITE, EQUAL, Constraint, Program
from implicitdsl.ir.printer import show
from implicitdsl.ir.remake import replace

from .context import Context
from .passes import Calculus
from .separable import entrywise, positive

SYMMETRIC = frozenset(("PSD", "PD"))


@dataclass(frozen=True, slots=True)
class Nearest:
    """The unknown, the number p > 0, q, and the radius of a ball (None: semidefinite matrices) with its constraint."""

    unknown: Expr
    p: Expr
    q: Expr
    radius: Expr | None
    constraint: Constraint

    def __str__(self) -> str:
        return "a ball" if self.radius is not None else "the semidefinite matrices"


def nearest(form: Program, context: Context, by: Calculus) -> Fact | None:
    """`nearest`: what is projected on what. None where the constraints are not one of these sets.

    `form` is the program as written, with its norms.
    """
    if len(form.unknowns) != 1:
        return None
    (u,) = form.unknowns
    found = _set(form, u)
    if found is None:
        return None
    gradient = by.simplify(by.vjp(form.objective, num(1.0), (u,), context.functions)[0])
    if not entrywise(gradient, u):
        return None
    p = _number(by.simplify(by.linearize(gradient, {u: build.ones(u.shape)}, context.functions)))
    if p is None or depends(p, frozenset((u,))) or not positive(p, context):
        return None
    q = by.simplify(replace(gradient, {u: build.zeros(u.shape)}))
    radius, constraint = found
    made = Nearest(u, p, q, radius, constraint)
    return Fact("nearest", made, (f"the nearest point of {made} to {show(by.simplify(build.neg(build.div(q, p))))}",))


def _set(form: Program, u: Expr) -> tuple[Expr | None, Constraint] | None:
    """The radius, and the constraint whose multiplier may be asked for."""
    definite, equal, below = form.of(DEFINITE), form.of(EQUAL), form.of(BELOW)
    if len(definite) == 1 and len(equal) == 1 and not below and equal[0].set is not None:
        same = definite[0].body is u and equal[0].set is definite[0].set and equal[0].set.name in SYMMETRIC
        return (None, definite[0]) if same and definite[0].label is None else None
    if definite or equal or len(below) != 1:
        return None
    body = below[0].body
    head, rest = body.args if body.op == "add" else (body, num(0.0))
    if head.op != "call" or head.name != "norm" or head.args[0] is not u or depends(rest, frozenset((u,))):
        return None
    return build.neg(rest), below[0]


def _number(e: Expr) -> Expr | None:
    """c of c · ones."""
    if e.op == "ones":
        return num(1.0)
    if e.op == "neg":
        inner = _number(e.args[0])
        return None if inner is None else build.neg(inner)
    if e.op == "mul":
        for one, other in (e.args, e.args[::-1]):
            inner = _number(other) if one.rank == 0 and other.rank else None
            if inner is not None:
                return build.mul(one, inner)
    if e.op == "div" and e.args[1].rank == 0:
        inner = _number(e.args[0])
        return None if inner is None else build.div(inner, e.args[1])
    return e if e.rank == 0 else None
