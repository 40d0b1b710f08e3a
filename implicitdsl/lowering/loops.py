"""Which indexed sums and stacks run as one tensor operation with an extra axis, and which as a Python loop."""

from __future__ import annotations

from implicitdsl.ir.build import binder_of, items_of
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.nodes import Expr, walk

INDEXED = ("sum_for", "stack_for")


def index_names(*roots: Expr) -> frozenset[str]:
    """The names bound by the sums and stacks below the roots."""
    return frozenset(binder_of(e)[0] for e in walk(*roots) if e.op in INDEXED)


def item_dims(e: Expr) -> list[Dim]:
    """Every dimension in the items of an `index` or `embed` node."""
    return [d for item in items_of(e) for d in item[1:] if isinstance(d, Dim)]


def own_names(e: Expr) -> frozenset[str]:
    """Names in the node itself: its shape, number, items or range."""
    dims = list(e.shape)
    if e.op == "dim":
        dims += [d for d in e.attrs if isinstance(d, Dim)]
    elif e.op in ("index", "embed"):
        dims += item_dims(e)
    elif e.op in INDEXED:
        dims += binder_of(e)[1:]
    return frozenset[str]().union(*(d.names for d in dims))


def linear_in(d: Dim, name: str) -> tuple[int, Dim] | None:
    """(c, rest) with d = c · name + rest and c a positive number, else None."""
    c, rest = 0, Dim(())
    for monomial, k in d.terms:
        if name not in monomial:
            rest = rest + Dim(((monomial, k),))
        elif monomial == (name,):
            c = k
        else:
            return None
    return (c, rest) if c > 0 else None


def picked_axis(e: Expr, name: str) -> int | None:
    """The axis at which an `index` node picks element c · name + d, if `name` occurs nowhere else in its items."""
    found = [
        axis for axis, item in enumerate(items_of(e)) if any(name in d.names for d in item[1:] if isinstance(d, Dim))
    ]
    if len(found) != 1:
        return None
    item = items_of(e)[found[0]]
    return found[0] if len(item) == 2 and linear_in(item[1], name) is not None else None


def vectorises(loop: Expr, free: dict[Expr, frozenset[str]]) -> bool:
    """Whether the body runs once with one more leading axis. `free` maps each node to the index names free in it.

    The index must only pick elements of what does not depend on it or on an index bound inside, or stand as a number.
    """
    name = binder_of(loop)[0]
    body = loop.args[0]
    inner = index_names(body)
    if name in inner:
        return False
    for e in walk(body):
        if name not in own_names(e):
            continue
        if any(name in d.names for d in e.shape) or e.op in INDEXED:
            return False
        if e.op == "dim":
            if own_names(e) & (inner | (free[e] - {name})):
                return False
        elif e.op == "index":
            axis = picked_axis(e, name)
            if axis is None or name in free[e.args[0]] or free[e] & inner:
                return False
        else:
            return False
    return True
