"""Smoothness: where the residual has kinks or jumps in the unknowns; and existence of a fixed point by Brouwer."""

from __future__ import annotations

from implicitdsl.ground.facts import Fact, Interval, Smoothness
from implicitdsl.ir.nodes import Expr, walk
from implicitdsl.ir.plan import System
from implicitdsl.ir.printer import show

from .bounds import Bounds
from .context import Context
from .dependence import varying
from .intervals import show_interval
from .ranges import of_set


def rough_calls(system: System, context: Context) -> list[tuple[Expr, Smoothness]]:
    """The calls in which the residual is not continuously differentiable in the unknowns."""
    moving = varying(system.residual, frozenset(system.unknowns))
    found: list[tuple[Expr, Smoothness]] = []
    for e in walk(*system.residual):
        function = context.functions.get(e.name) if e.op == "call" else None
        if function is not None and function.smoothness < Smoothness.SMOOTH and e in moving:
            found.append((e, function.smoothness))
    return found


def smoothness(system: System, context: Context) -> Fact:
    """`smoothness`: the least smoothness of a part, with its places."""
    rough = rough_calls(system, context)
    if not rough:
        return Fact("smoothness", Smoothness.SMOOTH, ("made of continuously differentiable functions",))
    lines = tuple(f"{show(e)} {'has kinks' if s is Smoothness.CONTINUOUS else 'jumps'} ({e.name})" for e, s in rough)
    return Fact("smoothness", min(s for _, s in rough), lines)


def range_of(system: System, context: Context) -> Fact:
    """`range`: an interval for the entries of every step; None where there is no step."""
    if system.step is None:
        return Fact("range", None, ("an equation does not read u = g(…)",))
    bounds = Bounds(context)
    ranges = tuple(bounds.range(step) for step in system.step)
    names = zip(system.step, ranges, strict=True)
    return Fact("range", ranges, tuple(f"{show(step)} in {show_interval(r)}" for step, r in names))


def existence(system: System, context: Context) -> Fact:
    """`existence`: True if a continuous step maps a box into itself (Brouwer); None otherwise."""
    if system.step is None:
        return Fact("existence", None, ("an equation does not read u = g(…)",))
    for e, s in rough_calls(system, context):
        if s is Smoothness.DISCONTINUOUS:
            return Fact("existence", None, (f"{show(e)} is not continuous",))
    moving, bounds = varying(system.step, frozenset(system.unknowns)), Bounds(context)
    for e in walk(*system.step):
        if e.op in ("apply", "div", "pow") and e in moving:
            if e.op == "apply":
                return Fact("existence", None, (f"nothing is known about {e.name}: it is bound from Python",))
            if not bounds.range(e).bounded:
                return Fact("existence", None, (f"{show(e)} is not bounded",))
    whole = _self_map(system, context)
    if whole is not None:
        return whole
    chosen = {u: of_set(context.roots[u]) for u in system.unknowns if u in context.roots}
    closed = all(r.bounded for r in chosen.values()) and len(chosen) == len(system.unknowns)
    inside = _self_map(system, context.assuming(chosen)) if closed else None
    if inside is not None:
        return inside
    return Fact("existence", None, ("no box is known that the step maps into itself",))


def _self_map(system: System, context: Context) -> Fact | None:
    assert system.step is not None
    bounds = Bounds(context)
    lines: list[str] = []
    for u, step in zip(system.unknowns, system.step, strict=True):
        r, domain = bounds.range(step), context.ranges.get(u, Interval())
        if not r.bounded or r.lo < domain.lo or r.hi > domain.hi:
            return None
        lines.append(f"{show(step)} lies in {show_interval(r)}")
    lines.append("a continuous map of a box into itself has a fixed point (Brouwer)")
    return Fact("existence", True, tuple(lines))
