"""A node made again from other arguments through the smart constructors, so that rewriting keeps structure simple."""

from __future__ import annotations

from collections.abc import Callable

from . import build
from .binders import sum_for
from .dims import Dim
from .names import binder_of, free_names, fresh_name, index_value
from .nodes import Expr, node, rebuild


def remake(e: Expr, args: tuple[Expr, ...]) -> Expr:
    """The node with new arguments; equal shapes are expected. `span` is kept where a new node is made."""
    span = e.span
    match e.op:
        case "neg" | "add" | "mul" | "matmul" | "outer" | "transpose" | "diag" | "diagonal":
            return _SAME[e.op](*args, span=span)
        case "div":
            return build.div(*args, span=span) if len(args) == 2 else node(e.op, args, e.attrs, e.shape, span)
        case "pow":
            return build.power(*args, span=span)
        case "sum":
            return build.total(args[0], span=span)
        case "index":
            return build.index(args[0], build.items_of(e), span=span)
        case "embed":
            return build.embed(args[0], build.items_of(e), e.shape, span=span)
        case "concat":
            return build.concat(args, span=span)
        case "stack":
            return build.stack(args, span=span)
        case "reshape":
            return build.reshape(args[0], e.shape, span=span)
        case "call" if e.name == "scale_rows":
            return build.scale_rows(*args, span=span)
        case "call" if e.name == "scale_columns":
            return build.scale_columns(*args, span=span)
        case "sum_for":
            return sum_for(args[0], *binder_of(e), span=span)
        case "stack_for":
            return build.stack_for(args[0], *binder_of(e), span=span)
        case _:
            return node(e.op, args, e.attrs, e.shape, span)


_SAME: dict[str, Callable[..., Expr]] = {
    "neg": build.neg,
    "add": build.add,
    "mul": build.mul,
    "matmul": build.matmul,
    "outer": build.outer,
    "transpose": build.transpose,
    "diag": build.diag,
    "diagonal": build.diagonal,
}


def avoid(root: Expr, names: frozenset[str]) -> Expr:
    """The same expression with bound indices renamed that are among `names`, so that nothing put inside is captured."""
    if not names:
        return root

    def make(e: Expr, args: tuple[Expr, ...]) -> Expr:
        return node(e.op, args, e.attrs, e.shape, e.span)

    def leaf(e: Expr) -> Expr | None:
        if e.op not in ("sum_for", "stack_for"):
            return None
        name, lo, hi = binder_of(e)
        body = avoid(e.args[0], names)
        if name in names:
            fresh = fresh_name(name, names | free_names(body))
            body, name = index_value(body, name, Dim.of(fresh)), fresh
        return e if body is e.args[0] else node(e.op, (body,), (name, lo, hi), e.shape, e.span)

    return rebuild(root, leaf, make)


def replace(root: Expr, values: dict[Expr, Expr]) -> Expr:
    """Replace nodes by expressions of the same shape, through the smart constructors and without capture.

    Unlike `nodes.substitute` it replaces any node, not only symbols.
    """
    if not values:
        return root
    incoming = frozenset(name for v in values.values() for name in free_names(v))
    return rebuild(avoid(root, incoming), values.get, remake)
