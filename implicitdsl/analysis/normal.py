"""Normal form of a root block: a residual F_i = lhs − rhs for each unknown, the step u_i = g_i(u) where it reads so."""

from __future__ import annotations

from collections.abc import Callable

from implicitdsl.ground.records import dataclass
from implicitdsl.ir import build
from implicitdsl.ir.dims import ZERO, Dim, size_of
from implicitdsl.ir.model import Block, Equation
from implicitdsl.ir.nodes import Expr, depends
from implicitdsl.ir.plan import System

from .terms import literal, terms

Expand = Callable[[Expr], Expr]
"""Inlines definitions and carries out grad, jac, div and hess; given by `calculus`."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """The equations that stand for one unknown, in order; together they have as many entries as it."""

    unknown: Expr
    equations: tuple[Equation, ...]


def unchanged(e: Expr) -> Expr:
    return e


def roots(block: Block) -> tuple[Equation, ...]:
    """The equations proper; inequalities and memberships only pick the root."""
    return tuple(e for e in block.equations if e.op == "=")


def defined(e: Expr, unknowns: frozenset[Expr]) -> tuple[Expr, Dim | None] | None:
    """(u, None) if e is the unknown u, (u, i) if it is its entry u[i]."""
    if e in unknowns:
        return e, None
    if e.op == "index" and e.args[0] in unknowns:
        items = build.items_of(e)
        if len(items) == 1 and items[0][0] == "at":
            return e.args[0], items[0][1]
    return None


def assign(block: Block) -> tuple[Assigned, ...] | None:
    """Which equations stand for which unknown, a perfect matching by size; None where there is none.

    An equation `u = …` prefers u. Cost: one augmenting path an equation.
    """
    unknowns = tuple(s.node for s in block.unknowns)
    known = frozenset(unknowns)
    equations = roots(block)
    groups: dict[Expr, list[Equation]] = {u: [] for u in unknowns}
    rest: list[Equation] = []
    for equation in equations:
        target = next((d for d in (defined(equation.lhs, known), defined(equation.rhs, known)) if d is not None), None)
        taken = target is not None and _filled(groups[target[0]]) == size_of(target[0].shape)
        if target is not None and not taken:
            groups[target[0]].append(equation)
        else:
            rest.append(equation)
    if len(unknowns) == 1:
        groups[unknowns[0]] = list(equations)
    elif rest:
        match = _augment(rest, groups)
        if match is None:
            return None
        for equation, u in match:
            groups[u].append(equation)
    if any(_filled(group) != size_of(u.shape) for u, group in groups.items()):
        return None
    return tuple(Assigned(u, tuple(group)) for u, group in groups.items())


def _filled(group: list[Equation]) -> Dim:
    total = Dim(())
    for equation in group:
        total = total + _size(equation)
    return total


def _size(equation: Equation) -> Dim:
    total = size_of(equation.lhs.shape if equation.lhs.rank else equation.rhs.shape)
    for _, lo, hi in equation.index:
        total = total * (hi - lo)
    return total


def _augment(rest: list[Equation], groups: dict[Expr, list[Equation]]) -> list[tuple[Equation, Expr]] | None:
    """A matching of the other equations to the unknowns that are left, by augmenting paths; sizes have to agree."""
    free = [u for u, group in groups.items() if not group]
    owner: dict[Expr, int] = {}

    def place(i: int, seen: set[Expr]) -> bool:
        for u in free:
            if u in seen or _size(rest[i]) != size_of(u.shape) or not depends(_residual(rest[i], unchanged), {u}):
                continue
            seen.add(u)
            if u not in owner or place(owner[u], seen):
                owner[u] = i
                return True
        return False

    if not all(place(i, set()) for i in range(len(rest))):
        return None
    return [(rest[i], u) for u, i in owner.items()]


def _residual(equation: Equation, expand: Expand) -> Expr:
    return _listed(equation, build.sub(expand(equation.lhs), expand(equation.rhs)))


def _listed(equation: Equation, e: Expr) -> Expr:
    """`e for i in n` of a list of equations, stacked."""
    for name, lo, hi in reversed(equation.index):
        e = build.stack_for(e, name, lo, hi)
    return e


def normal_form(block: Block, expand: Expand = unchanged) -> System:
    """The block as a system. Where equations and unknowns do not match (least squares), one residual an equation."""
    assigned = assign(block)
    if assigned is None:
        return System(tuple(s.node for s in block.unknowns), tuple(_residual(e, expand) for e in roots(block)), None)
    unknowns = tuple(a.unknown for a in assigned)
    residual = tuple(_joined(a, expand) for a in assigned)
    steps = [_step(a, expand) for a in assigned]
    step = tuple(s for s in steps if s is not None)
    return System(unknowns, residual, step if len(step) == len(unknowns) else None)


def _joined(a: Assigned, expand: Expand) -> Expr:
    parts = [_residual(e, expand) for e in a.equations]
    if not parts:  # of an unknown without entries
        return _broadcast(build.num(0.0), a.unknown)
    if len(parts) == 1:
        return parts[0]
    flat = [p if p.rank <= 1 else build.reshape(p, (size_of(p.shape),)) for p in parts]
    return build.reshape(build.concat(flat), a.unknown.shape)


def _step(a: Assigned, expand: Expand) -> Expr | None:
    """g with u = g: from `u = g`, `g = u`, `u - g = 0`, or from `u[0] = …, u[1] = …` for all entries."""
    if len(a.equations) == 1:
        equation = a.equations[0]
        return _row(equation, a.unknown, expand) if equation.index else _solved(equation, a.unknown, expand)
    entries: dict[int, Expr] = {}
    for e in a.equations:
        for left, right in ((e.lhs, e.rhs), (e.rhs, e.lhs)):
            found = defined(left, frozenset((a.unknown,)))
            at = None if found is None or found[1] is None or e.index else found[1].value
            if at is not None and right.rank == 0:
                entries[at] = expand(right)
                break
    if not entries or a.unknown.rank != 1 or a.unknown.shape[0] != Dim.of(len(entries)):
        return None
    if set(entries) != set(range(len(entries))):
        return None
    return build.concat([entries[i] for i in range(len(entries))])


def _row(equation: Equation, unknown: Expr, expand: Expand) -> Expr | None:
    """g of `u[i] = gᵢ for i in n` over all rows."""
    name, lo, hi = equation.index[0]
    whole = len(equation.index) == 1 and lo == ZERO and unknown.rank > 0 and hi == unknown.shape[0]
    for left, right in ((equation.lhs, equation.rhs), (equation.rhs, equation.lhs)):
        if whole and defined(left, frozenset((unknown,))) == (unknown, Dim.of(name)) and right.shape == left.shape:
            return _listed(equation, expand(right))
    return None


def _solved(equation: Equation, unknown: Expr, expand: Expand) -> Expr | None:
    lhs, rhs = expand(equation.lhs), expand(equation.rhs)
    if lhs is unknown:
        return _broadcast(rhs, unknown)
    if rhs is unknown:
        return _broadcast(lhs, unknown)
    for zero, other in ((rhs, lhs), (lhs, rhs)):
        if literal(zero) == 0.0 or zero.op == "zeros":
            return _difference(other, unknown)
    return None


def _broadcast(g: Expr, unknown: Expr) -> Expr:
    return g if g.shape == unknown.shape else build.fill(g, unknown.shape)


def _difference(e: Expr, unknown: Expr) -> Expr | None:
    """g, if e is written `u - g` or `g - u`."""
    parts = terms(e)
    sign = {t: c for c, t in parts}.get(unknown)
    others = [(c, t) for c, t in parts if t is not unknown]
    if sign not in (1.0, -1.0) or len(others) != 1 or others[0][0] * sign >= 0.0:
        return None
    return build.mul(build.num(-others[0][0] * sign), others[0][1]) if others[0][1].shape == unknown.shape else None
