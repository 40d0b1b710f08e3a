"""Differential equations: evolution equations, initial conditions, linearity in the noise (IMP301, 302, 501,
502, 505; see `conditions` for IMP506).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from implicitdsl.ground.source import Span
from implicitdsl.ir.dims import size_of
from implicitdsl.ir.model import Domain, Equation, Symbol
from implicitdsl.ir.nodes import LINEAR, Expr, Role, symbols, walk
from implicitdsl.syntax import ast

from .calls import Calls
from .conditions import at_boundaries, given_once, is_condition, is_initial, orders, state_of
from .constants import inline, number_of
from .report import unsafe
from .shapes import is_flexible
from .structure import equation_shape, equation_size


def check_dynamics(
    calls: Calls,
    find: ast.Find,
    sentence: str,
    unknowns: Sequence[Symbol],
    equations: Sequence[Equation],
    texts: Sequence[str],
    domains: Sequence[Domain],
    definitions: Mapping[Expr, Expr],
) -> None:
    """One evolution equation an unknown, and a condition for every order of it."""
    time = domains[-1].name if domains else "t"
    for candidate in domains:  # the variable by which first-order evolution is written
        if candidate.points is None:
            time = candidate.name
    if sentence != "pde" and not sides_fit(calls, equations, texts):
        return
    if sentence != "pde" and not starts_are_fixed(calls, equations, texts, unknowns, domains):
        return
    evolution = [(e, t) for e, t in zip(equations, texts, strict=True) if is_condition(e) is None]
    conditions = [c for e in equations if (c := is_condition(e)) is not None]
    found: dict[str, int] = {}
    owner: dict[str, str] = {}
    for equation, text in evolution:
        sides = (inline(equation.lhs, dict(definitions)), inline(equation.rhs, dict(definitions)))
        highest = [orders(s, time) for s in sides]
        here = {name: max(h.get(name, 0) for h in highest) for h in highest for name in h}
        if sentence == "sde":
            here |= {
                s.name[1:]: 1
                for side in sides
                for s in symbols(side)
                if s.role is Role.DIFFERENTIAL and s.name[1:] in {u.name for u in unknowns}
            }
        if not here and sentence != "pde":
            states = {s.name for side in sides for s in symbols(side) if s.role is Role.UNKNOWN} & {
                u.name for u in unknowns
            }
            if not states:
                calls.report.add(
                    "IMP303",
                    f"equation `{text}` contains no unknown of this block",
                    equation.span,
                    help="move it to `where`",
                )
            continue
        rank = max((u.node.rank for u in unknowns if u.name in here), default=0)
        for side in (equation.lhs, equation.rhs):
            if here and side.rank > rank:
                calls.report.add(
                    "IMP201",
                    f"shapes differ in `{text}`: a side has shape {calls.show(side.shape)}, "
                    f"{', '.join(f'`{n}`' for n in here)} {'has' if len(here) == 1 else 'have'} rank {rank}",
                    equation.span,
                )
                return
        if len(here) == 1 and sentence == "ode":
            state = next((u for u in unknowns if u.name in here), None)
            if state is not None and not determines(calls, equation, state, text):
                return
        for name, order in here.items():
            if name in owner and order >= found[name] and len(here) == 1:
                calls.report.add(
                    "IMP302",
                    f"two equations for the evolution of `{name}`: `{owner[name]}` and `{text}`",
                    equation.span,
                )
                return
            if order > found.get(name, 0):
                found[name], owner[name] = order, text
    dynamic = [u for u in unknowns if u.name in found]
    for u in unknowns:
        if u.name not in found and len(evolution) < len(unknowns):
            calls.report.add(
                "IMP301",
                f"no equation says how `{u.name}` evolves: {len(unknowns)} "
                f"{'unknown' if len(unknowns) == 1 else 'unknowns'}, "
                f"{len(evolution)} evolution {'equation' if len(evolution) == 1 else 'equations'}",
                u.span or find.span,
                help=f"add `d{u.name}/d{time} = …`",
            )
            return
    if len(evolution) > len(unknowns):
        calls.report.add(
            "IMP302",
            f"{len(unknowns)} unknowns of {time}, but {len(evolution)} evolution equations: "
            f"`{evolution[-1][1]}` is one too many",
            evolution[-1][0].span,
        )
        return
    if not given_once(calls, equations, texts, found, time, domains):
        return
    conditions_for(calls, find, sentence, dynamic, found, owner, conditions, time, domains)
    at_boundaries(calls, Span(find.span.end, find.span.end), dynamic, equations, domains, definitions)
    if sentence == "sde":
        noise_is_linear(calls, evolution, definitions)


def starts_are_fixed(
    calls: Calls,
    equations: Sequence[Equation],
    texts: Sequence[str],
    unknowns: Sequence[Symbol],
    domains: Sequence[Domain],
) -> bool:
    """Whether no initial condition refers to the running variable or to a state; IMP113 if one does."""
    running = {d.node for d in domains} | {u.node for u in unknowns}
    for equation, text in zip(equations, texts, strict=True):
        side = is_condition(equation)
        if side is None:
            continue
        value = equation.rhs if side is equation.lhs else equation.lhs
        for n in symbols(value) & running:
            calls.report.add(
                "IMP113",
                f"`{n.name}` has no value of its own in the initial condition `{text}`",
                equation.span,
                help="an initial condition is made of inputs and parameters",
            )
            return False
    return True


def determines(calls: Calls, equation: Equation, state: Symbol, text: str) -> bool:
    """Whether an evolution equation has as many rows as its state; IMP301 or IMP302 if not: `A dz/dt = x` of a wide or
    a tall A."""
    dims = calls.dims
    have, want = equation_size(equation), size_of(state.node.shape)
    if have.value != 1 and any(is_flexible(name) for name in dims.resolve(have - want).names):
        dims.unify(have, want)
    surplus = dims.resolve(have - want)
    if surplus.value == 0:
        return True
    many = dims.sign(surplus) == 1
    calls.report.add(
        "IMP302" if many else "IMP301",
        f"`{text}` has shape {calls.show(equation_shape(equation))}, `{state.name}` has {calls.show(state.node.shape)}",
        equation.span,
        help="what stands before the derivative must be a square matrix",
    )
    return False


def conditions_for(
    calls: Calls,
    find: ast.Find,
    sentence: str,
    dynamic: Sequence[Symbol],
    found: Mapping[str, int],
    owner: Mapping[str, str],
    conditions: Sequence[Expr],
    time: str,
    domains: Sequence[Domain],
) -> None:
    """IMP501 and IMP502."""
    end = Span(find.span.end, find.span.end)
    start = "0"
    for d in domains:
        if d.name == time:
            value = number_of(d.lo)
            start = f"{value:g}" if value is not None else written(calls, d.lo) or "t0"
    for u in dynamic:
        own = [c for c in conditions if is_initial(c, time, domains) and state_of(c) is u.node]
        have = {c.args[0].attrs[0] if c.args[0].op == "deriv" else 0 for c in own}
        for order in range(found[u.name]):
            if order in have:
                continue
            state = u.name if order == 0 else f"d{u.name}/d{time}" if order == 1 else f"d{order}{u.name}/d{time}{order}"
            inputs = [
                e.name
                for e in calls.context.sets.scope_root().entities("given")
                if e.node is not None and e.node.shape == (*(d.points for d in domains if d.points), *u.shape)
            ]
            if sentence == "pde":
                where = ", ".join([d.name for d in domains if d.name != time] + [start])
                text = f"{state}({where}) = {inputs[0] if inputs else state + '0'}"
            else:
                text = f"{state}({start}) = {inputs[0] if inputs else u.name + '0'}"
            if order == 0:
                calls.report.add(
                    "IMP501",
                    f"no initial condition for `{u.name}` at {time} = {start}",
                    u.span or find.span,
                    notes=(f"it evolves by `{owner[u.name]}`",),
                    fixes=(unsafe(f"add `{text}`", (end, f", {text}")),),
                )
            else:
                others = ", ".join(
                    f"`{t}`"
                    for t in [f"{u.name}({start})", *(["d" + u.name + "/d" + time + f"({start})"] if order > 1 else [])]
                )
                calls.report.add(
                    "IMP502",
                    f"the equation for `{u.name}` is of order {found[u.name]}: besides {others} it needs "
                    f"`{state}({start})`",
                    u.span or find.span,
                    notes=(f"it evolves by `{owner[u.name]}`",),
                    fixes=(
                        unsafe(f"add `{text.split('=')[0].strip()} = 0`", (end, f", {text.split('=')[0].strip()} = 0")),
                    ),
                )


def noise_is_linear(calls: Calls, evolution: Sequence[tuple[Equation, str]], definitions: Mapping[Expr, Expr]) -> None:
    """IMP505: every term of `dz = f dt + g dW` has exactly one differential as a factor."""
    for equation, text in evolution:
        for side in (equation.lhs, equation.rhs):
            e = inline(side, dict(definitions))
            degree: dict[Expr, int | None] = {}  # None: not homogeneous of degree 0 or 1
            for n in walk(e):
                degrees = [degree[a] for a in n.args]
                if n.op == "sym":
                    degree[n] = 1 if n.role is Role.DIFFERENTIAL else 0
                elif any(d is None for d in degrees):
                    degree[n] = None
                elif not any(degrees):
                    degree[n] = 0
                elif n.op in ("mul", "matmul", "outer"):
                    degree[n] = 1 if sum(d or 0 for d in degrees) == 1 else None
                elif n.op == "div":
                    degree[n] = 1 if degrees == [1, 0] else None
                elif n.op in LINEAR:
                    degree[n] = 1 if all(d == 1 for d in degrees) else None
                else:
                    degree[n] = None
                if degree[n] is None:
                    calls.report.add(
                        "IMP505",
                        f"`{written(calls, n) or text}` is not linear in the differentials",
                        calls.context.spans.get(n, equation.span),
                        notes=(f"in `{text}`", "an Itô equation reads dz = f(z, t) dt + g(z, t) dW"),
                    )
                    return
            if degree[e] == 0 and not (e.op == "num" and e.number == 0.0):
                calls.report.add(
                    "IMP505",
                    f"`{text}` has a side without a differential",
                    equation.span,
                    help="every term needs `dt` or `dW`",
                )
                return


def sides_fit(calls: Calls, equations: Sequence[Equation], texts: Sequence[str]) -> bool:
    """IMP201 where a scalar state is set equal to a vector: broadcasting goes from a number to a state, never back."""
    for equation, text in zip(equations, texts, strict=True):
        for mine, other in ((equation.lhs, equation.rhs), (equation.rhs, equation.lhs)):
            if mine.op in ("at", "deriv") and mine.rank < other.rank:
                calls.report.add(
                    "IMP201",
                    f"shapes differ in `{text}`: {calls.show(mine.shape)} and {calls.show(other.shape)}",
                    equation.span,
                )
                return False
    return True


def written(calls: Calls, e: Expr) -> str | None:
    """An expression as it stands in the text."""
    span = calls.context.spans.get(e)
    return calls.report.source.at(span) if span else None
