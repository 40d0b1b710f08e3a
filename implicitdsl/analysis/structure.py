"""Structure of a system: which unknown waits for which (block triangular form), and which equations are explicit.

Dulmage & Mendelsohn's fine decomposition for a matched system: the strongly connected components of the graph
`unknown of equation i ← unknowns in equation i`, in solving order (Tarjan). Cost: linear in the incidences.
"""

from __future__ import annotations

from dataclasses import replace

from implicitdsl.ground.facts import Fact
from implicitdsl.ir.model import Block, Equation
from implicitdsl.ir.nodes import Expr, depends, symbols
from implicitdsl.ir.printer import show

from .normal import Assigned, Expand, assign, unchanged


def incidence(block: Block, expand: Expand = unchanged) -> dict[Expr, frozenset[Expr]]:
    """Unknown → the unknowns in the equations that stand for it (itself only if they hold it beyond `u = …`)."""
    found: dict[Expr, frozenset[Expr]] = {}
    for a in assign(block) or ():
        inside: set[Expr] = set()
        for e in a.equations:
            sides = [expand(side) for side in (e.lhs, e.rhs) if side is not a.unknown]
            inside |= symbols(*sides) & {s.node for s in block.unknowns}
            if len(sides) == 0:  # `u = u`
                inside.add(a.unknown)
        found[a.unknown] = frozenset(inside)
    return found


def components(graph: dict[Expr, frozenset[Expr]]) -> list[tuple[Expr, ...]]:
    """Strongly connected components, each after the ones it needs (Tarjan 1972); members in the graph's order."""
    order = {u: i for i, u in enumerate(graph)}
    number: dict[Expr, int] = {}
    low: dict[Expr, int] = {}
    stack: list[Expr] = []
    found: list[tuple[Expr, ...]] = []

    def visit(u: Expr) -> None:
        number[u] = low[u] = len(number)
        stack.append(u)
        for v in sorted(graph[u], key=order.__getitem__):
            if v not in number:
                visit(v)
                low[u] = min(low[u], low[v])
            elif v in stack:
                low[u] = min(low[u], number[v])
        if low[u] == number[u]:
            at = stack.index(u)
            found.append(tuple(sorted(stack[at:], key=order.__getitem__)))
            del stack[at:]

    for u in graph:
        if u not in number:
            visit(u)
    return found


def split(block: Block, expand: Expand = unchanged) -> tuple[Block, ...]:
    """The smaller blocks to solve one after the other; the block itself where it does not split."""
    assigned = {a.unknown: a for a in assign(block) or ()}
    parts = components(incidence(block, expand))
    if len(parts) < 2:
        return (block,)
    return tuple(_part(block, members, assigned) for members in parts)


def _part(block: Block, members: tuple[Expr, ...], assigned: dict[Expr, Assigned]) -> Block:
    equations = tuple(e for u in members for e in assigned[u].equations)
    unknowns = tuple(s for s in block.unknowns if s.node in members)
    wanted = [e for e in block.equations if e in equations or (e.op != "=" and depends(e.lhs, set(members)))]
    start = block.wishes.start
    if not isinstance(start, (str, type(None))) and len(unknowns) < len(block.unknowns):
        start = None  # one expression for all unknowns cannot be divided
    return replace(block, unknowns=unknowns, equations=tuple(wanted), wishes=replace(block.wishes, start=start))


def explicit_equations(block: Block, expand: Expand = unchanged) -> tuple[Equation, ...]:
    """The equations `u = g` whose g holds neither u nor an unknown that waits for u: they only name a value."""
    graph = incidence(block, expand)
    alone = {members[0] for members in components(graph) if len(members) == 1}
    found: list[Equation] = []
    for a in assign(block) or ():
        (equation, *more) = a.equations
        isolated = a.unknown in (equation.lhs, equation.rhs) and not more
        if isolated and a.unknown in alone and a.unknown not in graph[a.unknown]:
            found.append(equation)
    return tuple(found)


def explicit(block: Block, expand: Expand = unchanged) -> Fact:
    """`explicit`: True if no equation of the block needs a solver."""
    names = ", ".join(show(s.node) for s in block.unknowns)
    found = explicit_equations(block, expand)
    if len(found) == len(block.unknowns):
        return Fact("explicit", True, (f"the right-hand side does not contain {names}",))
    return Fact("explicit", None, (f"no equation gives {names} outright",))


def block_triangular(block: Block, expand: Expand = unchanged) -> Fact:
    """`block_triangular`: the order of the smaller systems; None if there is only one."""
    parts = components(incidence(block, expand))
    if len(parts) < 2:
        return Fact("block_triangular", None, ("all unknowns wait for each other",))
    order = ", then ".join(" and ".join(map(show, p)) for p in parts)
    return Fact("block_triangular", tuple(parts), (f"can be solved one after the other: {order}",))
