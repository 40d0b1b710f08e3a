"""Dimension and index names inside expressions: which occur free, and how they are replaced."""

from __future__ import annotations

from . import arith, arrays
from .arrays import Item, items_of
from .dims import ZERO, Dim, Shape
from .nodes import Expr, node, rebuild, walk


def binder_of(e: Expr) -> tuple[str, Dim, Dim]:
    """(index, lo, hi) of a `sum_for` or `stack_for` node."""
    return e.attrs  # pyright: ignore[reportReturnType]  # the table in `ir.nodes`


def free_names(e: Expr, memo: dict[Expr, frozenset[str]] | None = None) -> frozenset[str]:
    """The dimension and index names that occur free in e: in numbers, indices, ranges and shapes."""
    memo = {} if memo is None else memo
    for x in walk(e):
        if x in memo:
            continue
        names = {n for d in x.shape for n in d.names}
        below = frozenset[str]().union(*(memo[a] for a in x.args))
        if x.op in ("sum_for", "stack_for"):
            name, lo, hi = binder_of(x)
            below = (below - {name}) | lo.names | hi.names
        elif x.op == "dim":
            names |= (arith.as_dim(x) or ZERO).names
        elif x.op in ("index", "embed"):
            names |= {n for item in items_of(x) for d in item[1:] for n in as_dimension(d).names}
        memo[x] = below | names
    return memo[e]


def as_dimension(d: object) -> Dim:
    """An attribute that is known to be a dimension."""
    assert isinstance(d, Dim)
    return d


def _item(item: Item, values: dict[str, Dim]) -> Item:
    if len(item) == 2:
        return ("at", item[1].subs(values))
    return ("slice", item[1].subs(values), item[2].subs(values))


def subs_names(root: Expr, values: dict[str, Dim]) -> Expr:
    """Replace free dimension or index names, in shapes too. Inner binders are renamed where they would capture."""
    if not free_names(root) & values.keys():
        return root
    incoming = frozenset[str]().union(*(d.names for d in values.values()))

    def leaf(e: Expr) -> Expr | None:
        if e.op == "dim":
            return arith.dimension((arith.as_dim(e) or ZERO).subs(values), span=e.span)
        if not e.args:
            return node(e.op, (), e.attrs, shape_of(e), e.span)
        if e.op not in ("sum_for", "stack_for"):
            return None
        name, lo, hi = binder_of(e)
        inner = {k: v for k, v in values.items() if k != name}
        if name in incoming:
            fresh = fresh_name(name, incoming | free_names(e.args[0]) | frozenset(values))
            inner[name], name = Dim.of(fresh), fresh
        body = subs_names(e.args[0], inner)
        return node(e.op, (body,), (name, lo.subs(values), hi.subs(values)), shape_of(e), e.span)

    def make(e: Expr, args: tuple[Expr, ...]) -> Expr:
        if e.op == "index":
            return arrays.index(args[0], tuple(_item(item, values) for item in items_of(e)), span=e.span)
        attrs = (tuple(_item(item, values) for item in items_of(e)),) if e.op == "embed" else e.attrs
        return node(e.op, args, attrs, shape_of(e), e.span)

    def shape_of(e: Expr) -> Shape:
        return tuple(d.subs(values) for d in e.shape)

    return rebuild(root, leaf, make, everywhere=True)


def index_value(body: Expr, name: str, value: Dim) -> Expr:
    """body at index = value."""
    return subs_names(body, {name: value})


def fresh_name(name: str, taken: frozenset[str] | set[str]) -> str:
    """`name`, or `name_1`, `name_2`, … that is not taken."""
    if name not in taken:
        return name
    k = 1
    while f"{name}_{k}" in taken:
        k += 1
    return f"{name}_{k}"
