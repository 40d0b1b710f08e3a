"""Relations: chains split, sides unified, comprehensions bound."""

from __future__ import annotations

from implicitdsl.ground.source import Span
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.model import Equation, SetInfo
from implicitdsl.syntax import ast

from .calls import Calls
from .scope import Typed

WORDS = {
    "=": "the sides of the equation",
    "<=": "the sides of `<=`",
    ">=": "the sides of `>=`",
    ">>": "the sides of `⪰`",
    "<<": "the sides of `⪯`",
}


def elaborate_relation(calls: Calls, relation: ast.Constraint) -> list[Equation] | None:
    """The equations of a relation; None after an error."""
    inner = calls.bind(relation.binders) if relation.binders else calls
    if inner is None:
        return None
    label = relation.label.text if relation.label else None
    index: list[tuple[str, Dim, Dim]] = []
    for binder in relation.binders:
        entity = inner.scope.find(binder.name.text)
        if entity is not None and entity.node is not None and entity.range is not None:
            lo, hi = entity.range
            index.append((entity.node.name, lo, hi))
    if isinstance(relation, ast.Membership):
        element = inner.elaborate(relation.element)
        found = calls.context.sets.read(relation.set)
        if element is None or found is None:
            return None
        if not fits(inner, relation.element, element, found, relation.set.span):
            return None
        return [Equation(element.expr, "in", element.expr, relation.span, label, tuple(index), found)]
    terms = [inner.elaborate(t) for t in relation.terms]
    if any(t is None for t in terms):
        return None
    sides = [t for t in terms if t is not None]
    equations: list[Equation] = []
    for i, op in enumerate(relation.ops):
        a, b = sides[i], sides[i + 1]
        if not comparable(inner, relation, i, a, b):
            return None
        equations.append(Equation(a.expr, op, b.expr, relation.span, label, tuple(index)))
    if not relation.ops:
        calls.report.add(
            "IMP004",
            f"`{calls.text(relation)}` is no relation",
            relation.span,
            help=f"write an equation: `{calls.text(relation)} = 0`",
        )
        return None
    return equations


def comparable(calls: Calls, relation: ast.Relation, i: int, a: Typed, b: Typed) -> bool:
    """Equal shapes, or a scalar side."""
    left, right = relation.terms[i], relation.terms[i + 1]
    if relation.ops[i] in (">>", "<<"):
        for side, typed in ((left, a), (right, b)):
            if (
                typed.rank == 1
                or typed.rank > 2
                or (typed.rank == 2 and not calls.dims.unify(typed.shape[0], typed.shape[1]))
            ):
                calls.report.add(
                    "IMP206",
                    f"`⪰` orders symmetric matrices; `{calls.text(side)}` has shape {calls.show(typed.shape)}",
                    side.span,
                )
                return False
    if a.rank == 0 or b.rank == 0:
        return True
    if a.row == b.row and calls.dims.unify_shapes(a.shape, b.shape):
        return True
    calls.shapes_differ(f"`{calls.text(relation)}`", relation.span, left, a, right, b)
    return False


def fits(calls: Calls, expr: ast.Expr, element: Typed, found: SetInfo, span: Span) -> bool:
    """Whether an element can lie in a set: its shape. Elementwise sets (`R`, intervals …) take any shape."""
    if not found.shape and found.name in ("R", "positive", "nonneg", "open", "closed"):
        return True
    if element.rank == len(found.shape) and calls.dims.unify_shapes(element.shape, found.shape):
        return True
    calls.report.add(
        "IMP201",
        f"shapes differ: `{calls.text(expr)}` has {calls.show(element.shape)}, the elements of `{found.text}` "
        f"have {calls.show(found.shape)}",
        span,
        labels=(*calls.introduced(calls.dims.shape(element.shape), calls.dims.shape(found.shape)),),
        notes=calls.provenance(expr),
    )
    return False
