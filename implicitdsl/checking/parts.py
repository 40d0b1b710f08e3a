"""Indices, norms, literals and functions as factors, and the range checks of indices once all dimensions are known."""

from __future__ import annotations

from itertools import product as combinations
from typing import TYPE_CHECKING

from implicitdsl.ground.source import Span
from implicitdsl.ir.dims import ONE, Dim
from implicitdsl.ir.function import NORMS
from implicitdsl.ir.model import Bound
from implicitdsl.ir.nodes import node
from implicitdsl.syntax import ast

from .context import Context
from .report import safe, unsafe
from .scope import Typed
from .sets import SetReader
from .shapes import shown

if TYPE_CHECKING:
    from .expressions import Elaborator


def indexed(e: Elaborator, expr: ast.Index) -> Typed | None:
    base = e.elaborate(expr.operand)
    if base is None:
        return None
    if len(expr.items) > base.rank:
        many = f"{len(expr.items)} {'index' if len(expr.items) == 1 else 'indices'}"
        e.report.add(
            "IMP205",
            f"{many} for `{e.text(expr.operand)}`, which has "
            f"{base.rank} {'dimension' if base.rank == 1 else 'dimensions'}: shape {e.show(base.shape)}",
            expr.span,
        )
        return None
    items: list[tuple[object, ...]] = []
    shape: list[Dim] = []
    for axis, item in zip(base.shape, expr.items, strict=False):
        if isinstance(item, ast.Slice):
            lo = Dim.of(0) if item.lo is None else place(e, item.lo, axis, True)
            hi = axis if item.hi is None else place(e, item.hi, axis, True)
            if lo is None or hi is None:
                return None
            items.append(("slice", lo, hi))
            shape.append(hi - lo)
            if e.dims.sign(hi - lo) == -1:
                e.report.add("IMP205", f"the slice `{e.text(item)}` is empty", item.span)
                return None
        else:
            at = place(e, item, axis, False)
            if at is None:
                return None
            items.append(("at", at))
    shape.extend(base.shape[len(expr.items) :])
    return Typed(node("index", (base.expr,), tuple(items), tuple(shape), expr.span))


def place(e: Elaborator, item: ast.Expr, axis: Dim, end: bool) -> Dim | None:
    """An index as a dimension polynomial, negative literals counted from the end; range checked later."""
    place = SetReader(e.report, e.scope, e.dims, False, []).dim(item)
    if place is None:
        return None
    value = place.value
    if value is not None and value < 0:
        place = axis + place
    e.context.checks.append((place, axis, item.span, e.text(item), end))
    return place


def power(operand: str, expr: ast.Norm) -> str:
    """A p-norm by its formula."""
    p = expr.kind if expr.kind.isdigit() and int(expr.kind) > 0 else "p"
    return f"sum(|{operand}|^{p})^(1/{p})"


def norm(e: Elaborator, expr: ast.Norm | ast.Abs) -> Typed | None:
    inner = e.elaborate(expr.operand)
    if inner is None:
        return None
    if isinstance(expr, ast.Abs):
        return Typed(node("call", (inner.expr,), ("abs",), inner.shape, expr.span), inner.row)
    if expr.kind not in NORMS:
        e.report.add(
            "IMP101",
            f"unknown norm `||·||_{expr.kind}`",
            Span(expr.operand.span.end, expr.span.end),
            help="norms are `||x||`, `||x||_1`, `||x||_inf` and `||A||_F`; a p-norm is "
            f"`{power(e.text(expr.operand), expr)}`",
        )
        return None
    if inner.rank == 2 and expr.kind != "F":
        e.report.add(
            "IMP206",
            f"`||·||` is for vectors; `{e.text(expr.operand)}` has shape {e.show(inner.shape)}",
            expr.span,
            help=f"`||{e.text(expr.operand)}||_F` is the Frobenius norm",
        )
        return None
    return Typed(node("call", (inner.expr,), (NORMS[expr.kind],), (), expr.span))


def literal_of(e: Elaborator, expr: ast.Literal) -> Typed | None:
    if not expr.items:
        e.report.add("IMP203", "an empty literal has no shape", expr.span)
        return None
    parts = [e.elaborate(item) for item in expr.items]
    if any(p is None for p in parts):
        return None
    typed = [p for p in parts if p is not None]
    first = typed[0]
    for item, part in zip(expr.items[1:], typed[1:], strict=True):
        if part.rank != first.rank or not e.dims.unify_shapes(part.shape, first.shape):
            e.report.add(
                "IMP201",
                f"the entries of a literal have different shapes: {e.show(first.shape)} and {e.show(part.shape)}",
                item.span,
                labels=((expr.items[0].span, e.show(first.shape)),),
                help="use `concat(a, b)` to join vectors of different lengths",
            )
            return None
    return Typed(node("stack", tuple(p.expr for p in typed), (), (Dim.of(len(typed)), *first.shape), expr.span))


def range_checks(context: Context) -> list[Bound]:
    """IMP205 for indices that certainly leave their axis; those that sizes will decide. Run once all shapes are known.

    An index is multilinear in its binders, so its extremes are at the corners of their ranges.
    """
    dims = context.dims
    found: list[Bound] = []
    for place, axis, span, text, end in context.checks:
        axis = dims.resolve(axis)
        ends = [(n, lo, hi - ONE) for n, (lo, hi) in context.ranges.items() if n in place.names]
        signs: set[int | None] = set()
        for corner in combinations(*((lo, hi) for _, lo, hi in ends)):
            at = place.subs(dict(zip((n for n, _, _ in ends), corner, strict=True)))
            for rest in (at, axis - at if end else axis - at - ONE):
                sign = dims.sign(rest)
                signs.add(sign)
                if sign is None:
                    found.append(Bound(text, axis, rest, span))
        if -1 in signs:
            context.report.add(
                "IMP205",
                f"index `{text}` is outside an axis of length {shown(axis)}",
                span,
                notes=("indices start at 0; slices are half-open",),
            )
    return found


def function_times(e: Elaborator, expr: ast.Binary) -> bool:
    """`f (z)`, `f z`, `f W z`: a function can't be multiplied (IMP111)."""
    factors = [expr.right]
    left = expr.left
    while isinstance(left, ast.Binary) and left.op in ("juxt", "@"):
        factors.append(left.right)
        left = left.left
    factors = [left, *reversed(factors)]
    at = next((i for i, f in enumerate(factors[:-1]) if is_function(e, f)), None)
    if at is None:
        return False
    name, first, rest = factors[at], factors[at + 1], factors[at + 2 :]
    assert isinstance(name, ast.Name)
    entity = e.scope.find(name.text)
    e.context.used.add(name.text)
    if isinstance(first, ast.Paren):
        fixes = [safe(f"write `{name.text}(…)` without the space", (Span(name.span.end, first.span.start), ""))]
    else:
        ends = [expr.right] if is_function(e, first) else [expr.right, first] if rest else [first]  # f(W z) in papers
        texts = [e.report.source.at(Span(first.span.start, end.span.end)) for end in ends]
        kind = unsafe if rest else safe
        fixes = [
            kind(f"write `{name.text}({arg})`", (Span(name.span.end, end.span.end), f"({arg})"))
            for end, arg in zip(ends, texts, strict=True)
        ]
    e.report.add(
        "IMP111",
        f"`{name.text}` is {entity.described if entity else 'a function'} and cannot be multiplied",
        name.span,
        help=" or ".join(f.message if i == 0 else f.message.removeprefix("write ") for i, f in enumerate(fixes)),
        fixes=fixes,
    )
    return True


def is_function(e: Elaborator, expr: ast.Expr) -> bool:
    """Whether a name stands for a function."""
    if not isinstance(expr, ast.Name):
        return False
    entity = e.scope.find(expr.text)
    return entity.kind in ("fn", "layer", "macro") if entity else expr.text in e.context.functions
