"""Programs over a horizon: x[i+1] = A x[i] + B u[i] + c for every i, and everything else within one stage.

Their KKT matrices are block-banded, and a recursion over the stages solves them (Riccati's; Nocedal & Wright, §16).
"""

from __future__ import annotations

from typing import cast

from implicitdsl.ground.facts import Fact
from implicitdsl.ground.records import dataclass
from implicitdsl.ir.dims import ONE, ZERO, Dim
from implicitdsl.ir.nodes import Expr, depends, walk
from implicitdsl.ir.plan import DEFINITE, EQUAL, Constraint, Program
from implicitdsl.ir.printer import show

from .context import Context
from .degree import degree

BINDERS = frozenset(("sum_for", "stack_for"))
ENTRYWISE = frozenset(("neg", "add", "mul", "div", "pow"))


@dataclass(frozen=True, slots=True)
class Place:
    """Where the rows of a constraint belong: equal shares to the stages first, first + 1, …, `count` of them; `moves`:
    they give that state of the next stage from this one."""

    first: Dim
    count: Dim
    moves: Expr | None = None


@dataclass(frozen=True, slots=True)
class Horizon:
    """Stages 0 … `steps`. `states` have one row a stage, `controls` one a stage or one a step; `places` go with the
    constraints of the program."""

    steps: Dim
    states: tuple[Expr, ...]
    controls: tuple[Expr, ...]
    places: tuple[Place, ...]

    def __str__(self) -> str:
        return f"stages 0 … {self.steps}"


class _Coupled(Exception):
    """What stands against a recursion."""


def horizon(form: Program, context: Context) -> Fact:
    """`horizon`: the stages of a program with affine constraints and a quadratic objective, or None with a reason."""
    try:
        found = _found(form, context)
    except _Coupled as why:
        return Fact("horizon", None, (str(why),))
    states = ", ".join(map(show, found.states))
    return Fact("horizon", found, (f"{states} at i + 1 is given by stage i, all else stays within a stage",))


def _found(form: Program, context: Context) -> Horizon:
    unknowns = frozenset(form.unknowns)
    places = tuple(_place(c, unknowns) for c in form.constraints)
    moves = [p for p in places if p.moves is not None]
    if not moves:
        raise _Coupled("no constraint gives a state at i + 1 by what there is at i")
    steps = moves[0].count
    states = tuple(dict.fromkeys(p.moves for p in moves if p.moves is not None))
    if len(states) < len(moves):
        raise _Coupled("a state is given twice")
    for p in moves:
        if p.first != ZERO or p.count != steps:
            raise _Coupled(f"{show(p.moves or states[0])} is not given at every step of 0 … {steps}")
    for u in form.unknowns:
        wanted = (steps + ONE,) if u in states else (steps + ONE, steps)
        if not u.shape or u.shape[0] not in wanted:
            raise _Coupled(f"{show(u)} has no entry for every stage of 0 … {steps}")
    _separate(form.objective, unknowns, context)
    return Horizon(steps, states, tuple(u for u in form.unknowns if u not in states), places)


def _place(c: Constraint, unknowns: frozenset[Expr]) -> Place:
    said = f"{show(c.written or c.body)} {c.kind} 0"
    if c.kind == DEFINITE:
        raise _Coupled(f"{said} is a matrix inequality")
    body = c.body
    if body.op != "stack_for":
        start = _rowwise(body, unknowns) if body.rank else None
        if start is not None:
            return Place(start, body.shape[0])
        found = _reached(body, unknowns)
        if found is None or len(found) != 1:
            raise _Coupled(f"{said} concerns more than one stage")
        return Place(found[0], ONE)
    name, lo, hi = body.attrs
    assert isinstance(name, str), "a running index"
    assert isinstance(lo, Dim), "a bound of it"
    assert isinstance(hi, Dim), "a bound of it"
    (inner,) = body.args
    found = _reached(inner, unknowns)
    offsets = None if found is None else [at - Dim.of(name) for at in found]
    if not offsets or any(name in at.names for at in offsets):
        raise _Coupled(f"{said} is not about the running index alone")
    if len(offsets) == 1:
        return Place(lo + offsets[0], hi - lo)
    gap = (offsets[0] - offsets[1]).value
    if c.kind != EQUAL or len(offsets) > 2 or gap not in (1, -1):
        raise _Coupled(f"{said} couples stages, and is no equation for a next state")
    low = offsets[1] if gap == 1 else offsets[0]
    return Place(lo + low, hi - lo, _moved(inner, Dim.of(name) + low + ONE, unknowns, said))


def _moved(body: Expr, ahead: Dim, unknowns: frozenset[Expr], said: str) -> Expr:
    """The state that stands alone at the next stage in a sum."""
    found: list[Expr] = []
    terms = [body]
    while terms:
        e = terms.pop()
        if e.op in ("add", "neg"):
            terms += e.args
        elif e.op == "index" and e.args[0] in unknowns and e.attrs == ((("at", ahead),),):
            found.append(e.args[0])
        elif ahead in (_reached(e, unknowns) or ()):
            raise _Coupled(f"{said} does not give a state of the next stage outright")
    if len(found) != 1 or found[0].shape[1:] != body.shape:
        raise _Coupled(f"{said} does not give a state of the next stage outright")
    return found[0]


def _reached(e: Expr, unknowns: frozenset[Expr]) -> list[Dim] | None:
    """The stages at which e looks at unknowns; None where it looks at all of them."""
    found: dict[Dim, None] = {}
    inner = {b.attrs[0] for b in walk(e) if b.op in BINDERS}
    for part in walk(e):
        at = _at(part)
        if at is not None and part.args[0] in unknowns:
            if at.names & inner:
                return None
            found[at] = None
        elif any(a in unknowns for a in part.args):
            return None
    return None if e in unknowns else list(found)


def _at(e: Expr) -> Dim | None:
    """i of u[i, …]."""
    kind, first = _leading(e)
    return first if kind == "at" else None


def _leading(e: Expr) -> tuple[str, Dim]:
    """What an index takes of the first axis: ("at", i) or ("slice", lo)."""
    if e.op != "index":
        return "", ZERO
    items = cast("tuple[tuple[str, Dim], ...]", e.attrs[0])
    return items[0][0], items[0][1]


def _rowwise(e: Expr, unknowns: frozenset[Expr]) -> Dim | None:
    """k where row i of e looks at the unknowns at stage i + k alone; None otherwise."""
    if e in unknowns:
        return ZERO
    if e.op == "index" and e.args[0] in unknowns:
        kind, first = _leading(e)
        return first if kind == "slice" else None
    if e.op == "matmul" and not depends(e.args[1], unknowns) and e.rank == 2:
        return _rowwise(e.args[0], unknowns)
    if e.op not in ENTRYWISE:
        return None
    starts = [_rowwise(a, unknowns) for a in e.args if depends(a, unknowns)]
    if not starts or any(s is None or s != starts[0] for s in starts):
        return None
    return starts[0] if all(a.shape == e.shape for a in e.args if depends(a, unknowns)) else None


def _separate(e: Expr, unknowns: frozenset[Expr], context: Context) -> None:
    """Nothing, where e is a sum whose curved terms look at one stage each."""
    if degree(e, unknowns, context.functions) <= 1.0:
        return
    free = [a for a in e.args if not depends(a, unknowns)]
    if e.op in ("add", "neg", "sum_for") or (e.op in ("mul", "div") and free and e.rank == 0):
        for a in e.args:
            _separate(a, unknowns, context)
        return
    if e.op == "sum" and _rowwise(e.args[0], unknowns) is not None:
        return
    found = _reached(e, unknowns)
    if found is None or len(found) != 1:
        raise _Coupled(f"{show(e)} couples stages")
