"""Values that only the solve of a block knows and that others ask of it: an unknown at a point, or a multiplier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from implicitdsl.ground.records import dataclass

from .model import Block, Model
from .nodes import Expr, Role, rebuild, same_with, sym


@dataclass(frozen=True, slots=True)
class Query:
    """`node` is what was written: `z(1)`, `dq/dt(1)`, `dq/dt` at the end, or `dual(ineq)`; `name` is its key."""

    name: str
    node: Expr

    @property
    def symbol(self) -> Expr:
        """What stands for it in expressions of later blocks."""
        return sym(self.name, Role.HOISTED, self.node.shape)


def queries(model: Model) -> tuple[tuple[Query, ...], ...]:
    """For each block the values that later blocks, definitions and outputs ask of it, in order of appearance."""
    later = [roots(b) for b in model.blocks]
    tail = [value for _, value in model.definitions] + [o.expr for o in model.outputs]
    found: list[tuple[Query, ...]] = []
    for k, block in enumerate(model.blocks):
        own: dict[Expr, str] = {}
        for e in _asked(*[root for rest in later[k + 1 :] for root in rest], *tail):
            if e not in own and _asks(e, block):
                stem = f"dual_{e.attrs[0]}" if e.op == "dual" else f"{_unknown(e).name}_at"
                own[e] = f"~{stem}_{len(own)}"  # no user's name
        found.append(tuple(Query(name, e) for e, name in own.items()))
    return tuple(found)


def roots(block: Block) -> list[Expr]:
    """Every expression of a block."""
    found = [side for q in (*block.equations, *block.until) for side in (q.lhs, q.rhs)]
    found += [end for d in block.domains for end in (d.lo, d.hi)]
    if block.objective is not None:
        found.append(block.objective)
    return found + list(block.wishes.exprs)


def answered(root: Expr, asked: Mapping[Expr, Expr]) -> Expr:
    """The expression with queries replaced by the symbols that hold their answers."""
    return rebuild(root, lambda e: asked.get(e), same_with)


def _asked(*found: Expr) -> Iterator[Expr]:
    """The queries in expressions, in order; not the derivative inside `dq/dt(1)`."""
    seen: set[Expr] = set()
    stack = list(reversed(found))
    while stack:
        e = stack.pop()
        if e in seen:
            continue
        seen.add(e)
        if e.op in ("at", "deriv", "dual"):
            yield e
            stack += reversed(e.args[1:])
        else:
            stack += reversed(e.args)


def _unknown(e: Expr) -> Expr:
    """The unknown of `z(1)`, `dq/dt(1)` or `dq/dt`."""
    inner = e.args[0]
    return inner.args[0] if inner.op == "deriv" else inner


def _asks(e: Expr, block: Block) -> bool:
    if e.op == "dual":
        return any(q.label == e.attrs[0] for q in block.equations)
    return any(_unknown(e) is u.node for u in block.unknowns)
