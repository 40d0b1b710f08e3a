"""Separable objectives of any smooth kind: min Σ φᵢ(zᵢ) subject to rows that couple the entries, and bounds.

Entropies, sums of logarithms, exponentials and powers are of this kind: the Hessian is a diagonal, so that a step of
Newton's method is one linear system of as many unknowns as there are rows.
"""

from __future__ import annotations

from implicitdsl.ground.facts import Fact
from implicitdsl.ground.records import dataclass
from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim, size_of
from implicitdsl.ir.nodes import Expr, depends, num, walk
from implicitdsl.ir.plan import BELOW, EQUAL, Constraint, Program
from implicitdsl.ir.printer import show
from implicitdsl.ir.remake import replace

from .context import Context
from .elementwise import first_coupling
from .passes import Calculus
from .separable import Side, positive, repeated, side

EDGED = frozenset(("log", "sqrt"))
"""Functions that are defined on the positive numbers only."""


@dataclass(frozen=True, slots=True)
class Bounded:
    """The side of unknown number `at`: from `above` or below. `idle`: φ′ is infinite there, so it never holds one."""

    at: int
    above: bool
    side: Side
    idle: bool


@dataclass(frozen=True, slots=True)
class Edge:
    """φ of unknown number `at` is defined where slope · u + offset > 0, entry by entry; both in the shape of u or
    numbers. `steep`: φ′ is infinite at the end.
    """

    at: int
    slope: Expr
    offset: Expr
    steep: bool


@dataclass(frozen=True, slots=True)
class Diagonal:
    """By unknown, in its shape: the gradient φ′ and the curvature φ″ ≥ 0. `rows` couple the entries, equalities first;
    `bounds` are of single entries, the idle ones last.
    """

    unknowns: tuple[Expr, ...]
    gradient: tuple[Expr, ...]
    curvature: tuple[Expr, ...]
    rows: tuple[Constraint, ...]
    bounds: tuple[Bounded, ...]
    edges: tuple[Edge, ...]

    @property
    def count(self) -> Dim:
        """How many rows there are."""
        total = Dim(())
        for c in self.rows:
            total = total + size_of(c.body.shape)
        return total


def diagonal(form: Program, context: Context, by: Calculus) -> Fact:
    """`diagonal`: the parts of a convex program with affine constraints, or None with what couples the entries."""
    found = _parts(form, context, by)
    if isinstance(found, str):
        return Fact("diagonal", None, (found,))
    return Fact("diagonal", found, (f"no term of {show(form.objective)} holds two entries",))


def _parts(form: Program, context: Context, by: Calculus) -> Diagonal | str:
    functions, unknowns = context.functions, form.unknowns
    gradient = tuple(by.cancel(g) for g in by.vjp(form.objective, num(1.0), unknowns, functions))
    curvature: list[Expr] = []
    for u, g in zip(unknowns, gradient, strict=True):
        if g.shape != u.shape or depends(g, frozenset(unknowns) - {u}) or first_coupling(g, (u,), context) is not None:
            return f"{show(g)} mixes entries"
        bent = by.cancel(by.linearize(g, {u: build.ones(u.shape)}, functions))
        if not depends(g, frozenset((u,))) or bent.number == 0.0:
            return f"the objective is not curved along {show(u)}"
        curvature.append(bent)
    rows: dict[str, list[Constraint]] = {EQUAL: [], BELOW: []}
    edges = _edges(form, context, by)
    bounds: list[Bounded] = []
    for c in form.constraints:
        found = side(c, unknowns, context, by) if c.kind == BELOW else None
        if found is not None:
            u, above, one = found
            at = unknowns.index(u)
            idle = any(_ends(e, above, one.bound, context) for e in edges if e.at == at and e.steep)
            bounds.append(Bounded(at, above, one, idle))
        elif c.kind in rows:
            rows[c.kind].append(c)
        else:
            return f"{show(c.written or c.body)} is over a cone"
    bounds.sort(key=lambda b: b.idle)
    every = (*rows[EQUAL], *rows[BELOW])
    return Diagonal(unknowns, gradient, tuple(curvature), every, tuple(bounds), edges)


def _edges(form: Program, context: Context, by: Calculus) -> tuple[Edge, ...]:
    """Where the arguments of logarithms and roots vanish, as far as they are affine in an entry each."""
    found: dict[Expr, Edge] = {}
    for e in walk(form.objective):
        edged = e.name in EDGED if e.op == "call" else e.op == "pow" and not _whole(e.args[1])
        inner = e.args[0] if edged else None
        if inner is None or inner in found:
            continue
        mine = [i for i, u in enumerate(form.unknowns) if depends(inner, frozenset((u,)))]
        if len(mine) != 1 or inner.shape != form.unknowns[mine[0]].shape:
            continue
        (at,) = mine
        u = form.unknowns[at]
        if first_coupling(inner, (u,), context) is not None:
            continue
        slope = by.simplify(by.linearize(inner, {u: build.ones(u.shape)}, context.functions))
        if not depends(slope, frozenset(form.unknowns)):
            offset = by.simplify(replace(inner, {u: build.zeros(u.shape)}))
            steep = e.op == "call" or ((power := e.args[1].number) is not None and power < 1)
            found[inner] = Edge(at, slope, offset, steep)
    return tuple(found.values())


def _ends(edge: Edge, above: bool, bound: Expr, context: Context) -> bool:
    """Whether the domain ends, from above or below, at a bound that is a number."""
    slope, offset, there = (repeated(e) for e in (edge.slope, edge.offset, bound))
    if there is None or offset is None:
        return False
    if slope is None:
        return not above and offset == there == 0.0 and positive(edge.slope, context)
    return (slope < 0) is above and there * slope + offset == 0.0


def _whole(exponent: Expr) -> bool:
    """Whether it is an integer: such powers are defined on both sides of zero."""
    return exponent.number is not None and exponent.number == int(exponent.number)
