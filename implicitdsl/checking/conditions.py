"""Conditions of differential equations: given twice (IMP302), missing at the ends of a grid (IMP506)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from implicitdsl.ground.source import Span
from implicitdsl.ir.model import Domain, Equation, Symbol
from implicitdsl.ir.nodes import Expr, walk

from .calls import Calls
from .constants import inline, number_of
from .report import unsafe


def orders(e: Expr, variable: str) -> dict[str, int]:
    """The highest derivative by a variable of each unknown that occurs."""
    found: dict[str, int] = {}
    for n in walk(e):
        if n.op == "deriv" and n.attrs[1] == variable:
            order = n.attrs[0]
            assert isinstance(order, int)
            found[n.args[0].name] = max(found.get(n.args[0].name, 0), order)
    return found


def is_condition(equation: Equation) -> Expr | None:
    """The side that takes a state at a point, `z(0)` or `dq/dt(0)`, if the relation is such a condition."""
    for side in (equation.lhs, equation.rhs):
        if side.op == "at":
            return side
    return None


def state_of(condition: Expr) -> Expr:
    """The unknown whose value, or derivative, a condition gives."""
    taken = condition.args[0]
    return taken.args[0] if taken.op == "deriv" else taken


def is_initial(condition: Expr, time: str, domains: Sequence[Domain]) -> bool:
    """Whether a condition is one at a time, not one for all times at an end of a grid."""
    return not any(d.name == time and d.node in condition.args[1:] for d in domains)


def given_once(
    calls: Calls,
    equations: Sequence[Equation],
    texts: Sequence[str],
    order: Mapping[str, int],
    time: str,
    domains: Sequence[Domain],
) -> bool:
    """Whether every unknown has at most as many conditions as its equation has orders, and no two of the same;
    IMP302 if not: they need not agree.
    """
    first: dict[tuple[object, ...], str] = {}
    count: dict[str, list[str]] = {}
    for equation, text in zip(equations, texts, strict=True):
        side = is_condition(equation)
        if side is None:
            continue
        name, here = state_of(side).name, (number_of(p) for p in side.args[1:])
        point = (side.args[0], *(p if n is None else n for p, n in zip(side.args[1:], here, strict=True)))
        others = count.setdefault(name, [])
        surplus = is_initial(side, time, domains) and name in order and len(others) == order[name]
        if point in first or surplus:
            known = f"`{first[point]}`" if point in first else ", ".join(f"`{t}`" for t in others)
            why = (
                "says what holds there"
                if point in first
                else f"fixes `{name}`"
                if len(others) == 1
                else f"fix `{name}`"
            )
            calls.report.add("IMP302", f"`{text}` is one condition too many: {known} {why}", equation.span,
                             help="remove one of them")  # fmt: skip
            return False
        first[point] = text
        if is_initial(side, time, domains):
            others.append(text)
    return True


def at_boundaries(
    calls: Calls,
    end: Span,
    unknowns: Sequence[Symbol],
    equations: Sequence[Equation],
    domains: Sequence[Domain],
    definitions: Mapping[Expr, Expr],
) -> None:
    """IMP506: on a grid that is not periodic, an equation of first order needs a condition at one end, one of higher
    order at both. The fix is inserted at `end`.
    """
    conditions = [c for e in equations if (c := is_condition(e)) is not None]
    evolution = [inline(s, dict(definitions)) for e in equations if is_condition(e) is None for s in (e.lhs, e.rhs)]
    for d in domains:
        if d.points is None or d.periodic:
            continue
        for u in unknowns:
            order = max((orders(side, d.name).get(u.name, 0) for side in evolution), default=0)
            missing = [e for e in (d.lo, d.hi) if not any(_holds(c, u.node, d, e) for c in conditions)]
            if order == 0 or len(missing) < (1 if order > 1 else 2):
                continue
            values = [_written(calls, e) for e in missing]
            where = (" and " if order > 1 else " or ").join(f"{d.name} = {v}" for v in values)
            points = [[v if other is d else other.name for other in domains] for v in values]
            added = [f"{u.name}({', '.join(p)}) = 0" for p in points][: 2 if order > 1 else 1]
            advice = "add " + " and ".join(f"`{a}`" for a in added)
            calls.report.add(
                "IMP506",
                f"no boundary condition for `{u.name}` at {where}",
                u.span or end,
                notes=(f"it is differentiated {'once' if order == 1 else f'{order} times'} by `{d.name}`",),
                help=f"{advice}, or make the grid `periodic`",
                fixes=(unsafe(advice, (end, "".join(f", {a}" for a in added))),),
            )


def _written(calls: Calls, e: Expr) -> str:
    """An end of an interval, as a number or as it stands in the text."""
    number, span = number_of(e), calls.context.spans.get(e)
    return f"{number:g}" if number is not None else calls.report.source.at(span) if span else "…"


def _holds(condition: Expr, state: Expr, d: Domain, end: Expr) -> bool:
    """Whether a condition takes a state, or a derivative of it, at an end of a variable."""
    if state_of(condition) is not state or d.name not in condition.attrs:
        return False
    point = condition.args[1 + condition.attrs.index(d.name)]
    if point is d.node:
        return False
    number, wanted = number_of(point), number_of(end)
    return point is end or (number is not None and number == wanted)
