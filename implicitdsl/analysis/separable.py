"""Separable programs: min Σ ½ p z² + q z over l ≤ z ≤ u, entry by entry, with at most one row that couples them.

Projections on boxes, simplices and half-spaces cut by boxes are of this kind, weighted ones too, and so are knapsacks
with strictly convex costs: a sort instead of a factorisation.
"""

from __future__ import annotations

from collections.abc import Sequence

from implicitdsl.ground.facts import Fact
from implicitdsl.ground.records import dataclass
from implicitdsl.ir import build
from implicitdsl.ir.nodes import Expr, depends, num, walk
from implicitdsl.ir.plan import BELOW, DEFINITE, EQUAL, Constraint, Program
from implicitdsl.ir.printer import show
from implicitdsl.ir.remake import replace

from .bounds import Bounds
from .context import Context
from .passes import Calculus

ENTRYWISE = frozenset(("neg", "add", "mul", "div", "pow"))
POSITIVE_CALLS = frozenset(("exp", "softplus", "sigmoid"))


@dataclass(frozen=True, slots=True)
class Side:
    """The constraint that bounds an unknown from one side: s z + c ≤ 0 with |s| = `scale`."""

    constraint: Constraint
    bound: Expr
    scale: float


@dataclass(frozen=True, slots=True)
class Separable:
    """By unknown: the curvature p > 0, the slope q, the lower and the upper side. The coupling row Σ aᵀz = or ≤ b."""

    unknowns: tuple[Expr, ...]
    p: tuple[Expr, ...]
    q: tuple[Expr, ...]
    lower: tuple[Side | None, ...]
    upper: tuple[Side | None, ...]
    coupling: Constraint | None
    a: tuple[Expr, ...]
    b: Expr | None


def separable(form: Program, context: Context, by: Calculus) -> Fact:
    """`separable`: the parts, or None with what couples the entries."""
    found = _parts(form, context, by)
    if isinstance(found, str):
        return Fact("separable", None, (found,))
    return Fact("separable", found, ("the objective and the bounds concern every entry by itself",))


def _parts(form: Program, context: Context, by: Calculus) -> Separable | str:
    functions, unknowns = context.functions, form.unknowns
    zero = {u: build.zeros(u.shape) for u in unknowns}
    gradient = [by.simplify(g) for g in by.vjp(form.objective, num(1.0), unknowns, functions)]
    p: list[Expr] = []
    for u, g in zip(unknowns, gradient, strict=True):
        if depends(g, frozenset(unknowns) - {u}) or not entrywise(g, u):
            return f"{show(g)} is not a multiple of {show(u)}, entry by entry"
        weight = by.simplify(by.linearize(g, {u: build.ones(u.shape)}, functions))
        if depends(weight, frozenset(unknowns)) or not positive(weight, context):
            return f"{show(weight)} is not certainly positive"
        p.append(weight)
    lower: dict[Expr, Side] = {}
    upper: dict[Expr, Side] = {}
    coupling: Constraint | None = None
    for c in form.constraints:
        held = side(c, unknowns, context, by) if c.kind == BELOW else None
        if held is not None:
            u, above, found = held
            if u in (upper if above else lower):
                return f"{show(u)} has two bounds on one side"
            (upper if above else lower)[u] = found
        elif c.kind in (EQUAL, BELOW) and c.body.rank == 0 and coupling is None:
            coupling = c
        else:
            return f"{show(c.written or c.body)} {'⪰' if c.kind == DEFINITE else c.kind} 0 couples the entries"
    a: tuple[Expr, ...] = ()
    b = None
    if coupling is not None:
        a = tuple(by.simplify(e) for e in by.vjp(coupling.body, num(1.0), unknowns, functions))
        if any(depends(e, frozenset(unknowns)) for e in a):
            return f"{show(coupling.body)} is not affine"
        b = by.simplify(build.neg(replace(coupling.body, zero)))
    return Separable(
        unknowns,
        tuple(p),
        tuple(by.simplify(replace(g, zero)) for g in gradient),
        tuple(lower.get(u) for u in unknowns),
        tuple(upper.get(u) for u in unknowns),
        coupling,
        a,
        b,
    )


def side(c: Constraint, unknowns: Sequence[Expr], context: Context, by: Calculus) -> tuple[Expr, bool, Side] | None:
    """(u, whether from above, the side) of s u + c ≤ 0 with a number s."""
    mine = [u for u in unknowns if depends(c.body, frozenset((u,)))]
    if len(mine) != 1 or c.body.shape != mine[0].shape or not entrywise(c.body, mine[0]):
        return None
    (u,) = mine
    slope = by.simplify(by.linearize(c.body, {u: build.ones(u.shape)}, context.functions))
    s = repeated(slope)
    if s is None or s == 0.0:
        return None
    rest = replace(c.body, {u: build.zeros(u.shape)})
    return u, s > 0, Side(c, by.simplify(build.div(build.neg(rest), num(s))), abs(s))


def repeated(e: Expr) -> float | None:
    """x of x · ones."""
    if build.is_zero(e):
        return 0.0
    if e.op == "neg":
        inner = repeated(e.args[0])
        return None if inner is None else -inner
    if e.op == "mul":
        found = [repeated(a) for a in e.args]
        return None if None in found else (found[0] or 0.0) * (found[1] or 0.0)
    return 1.0 if e.op == "ones" else e.number


def entrywise(e: Expr, u: Expr) -> bool:
    """Whether every entry of e depends on the same entry of u alone, affinely where `linearize` says so."""
    if e.shape != u.shape:
        return False
    for part in walk(e):
        if part is u or not depends(part, frozenset((u,))):
            continue
        if part.op not in ENTRYWISE or part.shape != u.shape:
            return False
    return True


def positive(e: Expr, context: Context) -> bool:
    """Whether every entry is certainly > 0."""
    if e.number is not None:
        return e.number > 0
    match e.op:
        case "ones" | "dim":
            return True
        case "sym":
            found = context.sets.get(e)
            return found is not None and (found.name == "positive" or (found.name == "open" and found.args[0] >= 0))
        case "add":
            strict = any(positive(a, context) for a in e.args)
            return strict and all(Bounds(context).range(a).lo >= 0 for a in e.args)
        case "mul" | "div":
            return all(positive(a, context) for a in e.args)
        case "pow" | "sum" | "index" | "reshape" | "concat" | "stack":
            return positive(e.args[0], context)
        case "call":
            return e.name in POSITIVE_CALLS
        case _:
            return False
