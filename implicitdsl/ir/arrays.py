"""Constructors that pick, place, join and reshape. Import them from `ir.build`."""

from __future__ import annotations

from collections.abc import Sequence

from implicitdsl.ground.source import Span

from .arith import fill, filled, is_one, is_zero, mul, ones, require, scaled, zeros
from .dims import ONE, ZERO, Dim, Shape, size_of
from .nodes import Expr, node

Item = tuple[str, Dim] | tuple[str, Dim, Dim]
"""("at", i) picks one element of an axis and drops the axis; ("slice", lo, hi) keeps lo … hi - 1."""


def at_item(i: Dim | int) -> Item:
    return ("at", i if isinstance(i, Dim) else Dim.of(i))


def slice_item(lo: Dim | int, hi: Dim | int) -> Item:
    return ("slice", lo if isinstance(lo, Dim) else Dim.of(lo), hi if isinstance(hi, Dim) else Dim.of(hi))


def items_of(e: Expr) -> tuple[Item, ...]:
    """The items of an `index` or `embed` node."""
    return e.attrs[0]  # pyright: ignore[reportReturnType]  # the table in `ir.nodes`


def indexed_shape(shape: Shape, items: Sequence[Item]) -> Shape:
    """The shape of `a[items]` for `a` of a shape."""
    require(len(items) <= len(shape), "too many indices for {}", shape)
    kept = tuple(item[2] - item[1] for item in items if len(item) == 3)
    return kept + shape[len(items) :]


def _trimmed(shape: Shape, items: Sequence[Item]) -> tuple[Item, ...]:
    """Without trailing items that keep a whole axis."""
    kept = list(items)
    while kept and kept[-1] == ("slice", ZERO, shape[len(kept) - 1]):
        kept.pop()
    return tuple(kept)


def _composed(inner: Sequence[Item], outer: Sequence[Item]) -> tuple[Item, ...]:
    """The items of `a[inner][outer]`."""
    rest = list(outer)
    result: list[Item] = []
    for item in inner:
        if len(item) == 2 or not rest:
            result.append(item)
            continue
        lo, then = item[1], rest.pop(0)
        result.append(at_item(lo + then[1]) if len(then) == 2 else slice_item(lo + then[1], lo + then[2]))
    return (*result, *rest)


def index(a: Expr, items: Sequence[Item], *, span: Span | None = None) -> Expr:
    """a[items]; missing axes are whole."""
    shape = indexed_shape(a.shape, items)
    items = _trimmed(a.shape, items)
    if not items:
        return a
    if is_zero(a):
        return zeros(shape, span=span)
    if (s := filled(a)) is not None:
        return fill(s, shape, span=span)
    s, x = scaled(a)
    if x is not a:
        return mul(s, index(x, items), span=span)
    if a.op == "index":
        return index(a.args[0], _composed(items_of(a), items), span=span)
    if a.op == "embed" and items_of(a) == items:
        return a.args[0]
    if a.op == "stack" and len(items[0]) == 2 and (i := items[0][1].value) is not None:
        return index(a.args[i], items[1:], span=span)
    if a.op == "concat" and len(items) == 1 and (part := _part(a, items[0])) is not None:
        return part
    return node("index", (a,), (tuple(items),), shape, span)


def _part(a: Expr, item: Item) -> Expr | None:
    """The argument of a concatenation that an item picks exactly."""
    start = ZERO
    for part in a.args:
        length = part.shape[0] if part.shape else ONE
        if item[1] == start:
            if len(item) == 3 and item[2] == start + length:
                return part if part.shape else stack((part,))
            if len(item) == 2 and not part.shape:
                return part
        start = start + length
    return None


def embed(g: Expr, items: Sequence[Item], shape: Shape, *, span: Span | None = None) -> Expr:
    """Zeros of a shape with g placed at items: the adjoint of `index`."""
    require(indexed_shape(shape, items) == g.shape, "{} does not fit its place in {}", g.shape, shape)
    items = _trimmed(shape, items)
    if not items:
        return g
    if is_zero(g):
        return zeros(shape, span=span)
    s, x = scaled(g)
    if x is not g:
        return mul(s, embed(x, items, shape), span=span)
    return node("embed", (g,), (tuple(items),), shape, span)


def concat(args: Sequence[Expr], *, span: Span | None = None) -> Expr:
    """Joined along the first axis; a scalar counts as a vector of length one."""
    require(len(args) > 0, "concat of nothing")
    tail = next((a.shape[1:] for a in args if a.shape), ())
    length = ZERO
    for a in args:
        require(
            a.shape[1:] == tail and (a.rank > 0 or not tail),
            f"concat of {', '.join(['{}'] * len(args))}",
            *(a.shape for a in args),
        )
        length = length + (a.shape[0] if a.shape else ONE)
    shape = (length, *tail)
    if all(is_zero(a) for a in args):
        return zeros(shape, span=span)
    if all(a.rank == 0 for a in args):
        return stack(args, span=span)
    if len(args) == 1:
        return args[0]
    return node("concat", tuple(args), (), shape, span)


def stack(args: Sequence[Expr], *, span: Span | None = None) -> Expr:
    """Equal shapes joined along a new first axis: the literals `[a, b]` and `[[a, b], [c, d]]`."""
    require(len(args) > 0, "stack of nothing")
    require(all(a.shape == args[0].shape for a in args), "stack of unequal shapes, the first {}", args[0].shape)
    shape = (Dim.of(len(args)), *args[0].shape)
    if all(is_zero(a) for a in args):
        return zeros(shape, span=span)
    if all(is_one(a) for a in args):
        return ones(shape, span=span)
    return node("stack", tuple(args), (), shape, span)


def reshape(a: Expr, shape: Shape, *, span: Span | None = None) -> Expr:
    """The same elements, row by row, in another shape."""
    require(size_of(a.shape) == size_of(shape), "reshape of {} to {}", a.shape, shape)
    if a.shape == shape:
        return a
    if is_zero(a):
        return zeros(shape, span=span)
    if (s := filled(a)) is not None:
        return fill(s, shape, span=span)
    if a.op == "reshape":
        return reshape(a.args[0], shape, span=span)
    if shape == () and a.rank == 1:
        return index(a, (at_item(0),), span=span)
    if shape == (ONE,) and a.rank == 0:
        return stack((a,), span=span)
    s, x = scaled(a)
    if x is not a and shape:
        return mul(s, reshape(x, shape), span=span)
    return node("reshape", (a,), (), shape, span)
