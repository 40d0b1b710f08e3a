"""Contraction: the step G has a Lipschitz constant below one; Banach gives one fixed point and a rate to reach it."""

from __future__ import annotations

import math
from itertools import product

from implicitdsl.ground.facts import Fact, Interval
from implicitdsl.ir.nodes import Expr, num, substitute, symbols, walk
from implicitdsl.ir.plan import System
from implicitdsl.ir.printer import show

from .affine import is_affine
from .bounds import Bounds
from .context import Context
from .intervals import show_interval
from .lipschitz import Lipschitz, gain_matrix
from .norms import number
from .ranges import of_set

REACHED, MAPPED = "after the first steps", "the step maps"
"""How the proof of a rate begins that holds in a box only."""

MOST_CORNERS = 3  # scalars whose interval ends are tried: 2³ bounds


def contraction(system: System, context: Context) -> Fact:
    """`contraction`: the rate q < 1, or None and why it is not proved.

    For several unknowns the gains M (‖Gᵢ(u) − Gᵢ(v)‖ ≤ Σⱼ Mᵢⱼ ‖uⱼ − vⱼ‖) bound the rate by Collatz–Wielandt,
    q ≤ maxᵢ (M x)ᵢ / xᵢ for any x > 0, in the norm maxᵢ ‖uᵢ‖₂ / xᵢ.
    """
    if system.step is None:
        return Fact("contraction", None, ("an equation does not read u = g(…), so there is no map to iterate",))
    everywhere = _rate(system, context)
    if everywhere.value is not None:
        return everywhere
    for ranges, lines in (_reached_box(system, context), _chosen_box(system, context)):
        if ranges:
            inside = _rate(system, context.assuming(ranges))
            if inside.value is not None:
                return Fact("contraction", inside.value, (*lines, *inside.proof))
    return everywhere


def holds_everywhere(fact: Fact) -> bool:
    """Whether a rate is proved for all values of the unknowns, not only in a box that the iterates reach."""
    return not fact.proof or not fact.proof[0].startswith((REACHED, MAPPED))


def _rate(system: System, context: Context) -> Fact:
    assert system.step is not None
    corners = _corners(system.step, context)
    names = [show(s) for s, _ in corners]
    worst = -1.0
    found = Fact("contraction", None, ())
    for ends in product(*(((s, r.lo), (s, r.hi)) for s, r in corners)):
        values = {s: num(end) for s, end in ends}
        fact = _plain_rate(tuple(substitute(step, values) for step in system.step), system.unknowns, context)
        size = math.inf if fact.value is None else float(str(fact.value))
        if size > worst:
            worst, found = size, fact
    if names and found.value is not None:
        line = f"affine in {', '.join(names)}, so the largest constant is at an end of the interval"
        return Fact("contraction", found.value, (line, *found.proof))
    return found


def _plain_rate(steps: tuple[Expr, ...], unknowns: tuple[Expr, ...], context: Context) -> Fact:
    about = Lipschitz(context, unknowns)
    matrix = gain_matrix(steps, about)
    if not all(math.isfinite(g) for row in matrix for g in row):
        return Fact("contraction", None, tuple(about.obstacles))
    rate = perron(matrix)
    if len(unknowns) == 1:
        claim = f"‖G(u) − G(v)‖₂ ≤ {number(rate)} ‖u − v‖₂"
    else:
        claim = f"the gains between {', '.join(map(show, unknowns))} have spectral radius ≤ {number(rate)}"
    if rate < 1.0:
        return Fact("contraction", rate, (*about.lines, f"so {claim}"))
    return Fact("contraction", None, (*about.lines, f"so only {claim}, and {number(rate)} is not below 1"))


def perron(matrix: list[list[float]]) -> float:
    """An upper bound on the spectral radius of a nonnegative matrix: the best quotient of a power iteration.

    Cost: 64 products of the (small) matrix. Exact for one unknown.
    """
    n = len(matrix)
    x = [1.0] * n
    best = math.inf
    for _ in range(64):
        y = [math.fsum(row[j] * x[j] for j in range(n)) for row in matrix]
        best = min(best, max(y[i] / x[i] for i in range(n)))
        x = [x[i] + y[i] for i in range(n)]  # I + M has the same Perron vector and no cycle
        size = max(x)
        x = [max(v / size, 1e-12) for v in x]
    return best


def _corners(steps: tuple[Expr, ...], context: Context) -> list[tuple[Expr, Interval]]:
    """Bounded scalars that occur more than once and only to the first power: ‖J₀ + a J₁‖ is convex in a."""
    candidates: list[tuple[Expr, Interval]] = []
    for s in sorted(symbols(*steps), key=lambda s: s.name):
        declared = context.sets.get(s)
        if s.rank or declared is None or not of_set(declared).bounded:
            continue
        uses = sum(e.args.count(s) for e in walk(*steps))
        chosen = [c for c, _ in candidates]
        if uses > 1 and all(is_affine(step, frozenset((*chosen, s)), context) for step in steps):
            candidates.append((s, of_set(declared)))
    return candidates[:MOST_CORNERS]


Box = tuple[dict[Expr, Interval], tuple[str, ...]]
"""Ranges of the unknowns that the step maps into themselves, and why."""


def _reached_box(system: System, context: Context) -> Box:
    """The step's own range: all iterates after the first few lie in it, whatever the start."""
    assert system.step is not None
    bounds = Bounds(context)
    ranges = {u: bounds.range(step) for u, step in zip(system.unknowns, system.step, strict=True)}
    if all(r == Interval() for r in ranges.values()):
        return {}, ()
    for _ in range(8):  # G maps the box into a smaller one; a few rounds tighten it
        tighter = Bounds(context.assuming(ranges))
        ranges = {u: ranges[u].meet(tighter.range(s)) for u, s in zip(system.unknowns, system.step, strict=True)}
    bounded = {u: r for u, r in ranges.items() if r != Interval()}
    return ranges, tuple(f"{REACHED} {show(u)} lies in {show_interval(r)}" for u, r in bounded.items())


def _chosen_box(system: System, context: Context) -> Box:
    """The sets that pick the roots, if the step maps them into themselves."""
    assert system.step is not None
    ranges = {u: of_set(context.roots[u]) if u in context.roots else Interval() for u in system.unknowns}
    if all(r == Interval() for r in ranges.values()):
        return {}, ()
    bounds = Bounds(context.assuming(ranges))
    for u, step in zip(system.unknowns, system.step, strict=True):
        image = bounds.range(step)
        if not (ranges[u].lo <= image.lo and image.hi <= ranges[u].hi):
            return {}, ()
    chosen = {u: r for u, r in ranges.items() if r != Interval()}
    ends = {show(u): show_interval(r) for u, r in chosen.items()}
    return ranges, tuple(f"{MAPPED} {u} in {r} into {r}" for u, r in ends.items())
