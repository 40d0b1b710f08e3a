"""Initial values of params and consts: `zeros`, `eye`, `normal(0, 0.1)`, literals."""

from __future__ import annotations

from typing import cast

from implicitdsl.ir.dims import Dim
from implicitdsl.ir.model import Init, SetInfo
from implicitdsl.syntax import ast

from .context import Context
from .membership import MOST, Matrix, constant_lies_in, matrix_lies_in
from .sets import literal
from .trees import unwrap

RANDOM = {"normal": ("mean", "standard deviation"), "uniform": ("lower end", "upper end")}


def read_init(context: Context, expr: ast.Expr, found: SetInfo) -> Init:
    """The initial value, or the default after an error."""
    report, inner = context.report, unwrap(expr)
    text = report.source.at(expr.span)
    if isinstance(inner, ast.Name) and inner.text in ("zeros", "ones", "eye"):
        if inner.text == "eye" and not (len(found.shape) == 2 and context.dims.unify(found.shape[0], found.shape[1])):
            report.add("IMP206", f"`eye` is a square matrix; the set is `{found.text}`", expr.span)
            return Init("default")
        value = float(inner.text != "zeros")
        if not outside(context, expr, found, [value]) and not constant_lies_in(
            found.name, found.args, found.shape, inner.text, value
        ):
            not_in(context, expr, found)
        return Init(inner.text)
    if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.text in RANDOM:
        values = [literal(a) for a in inner.args]
        if len(values) != 2 or any(v is None for v in values):
            names = RANDOM[inner.func.text]
            report.add("IMP112", f"`{inner.func.text}` takes two numbers, {names[0]} and {names[1]}", expr.span)
            return Init("default")
        first, second = (v for v in values if v is not None)
        if second < (0 if inner.func.text == "normal" else first):
            what = "the standard deviation is negative" if inner.func.text == "normal" else "the interval is empty"
            report.add("IMP704", f"`{text}` is no initial value: {what}", inner.args[1].span)
            return Init("default")
        if found.name != "R" and not (inner.func.text == "uniform" and _within(found, first, second)):
            report.add(
                "IMP107",
                f"random values `{text}` need not lie in `{found.text}`",
                expr.span,
                help="leave the initial value out: the set's own default lies in it",
            )
        return Init(inner.func.text, tuple(v for v in values if v is not None))
    value = nested(inner)
    if value is None:
        report.add(
            "IMP704",
            f"`{text}` is no initial value",
            expr.span,
            help="an initial value is `zeros`, `ones`, `eye`, `normal(0, 0.1)`, `uniform(-1, 1)`, a number or a "
            "literal",
        )
        return Init("default")
    shape = shape_of(value)
    if shape is None:
        report.add("IMP201", f"the rows of `{text}` have different lengths", expr.span)
        return Init("default")
    if shape and (
        len(shape) != len(found.shape) or not context.dims.unify_shapes(found.shape, tuple(map(Dim.of, shape)))
    ):
        shown = "(" + ", ".join(map(str, shape)) + ")"
        report.add(
            "IMP201",
            f"the initial value has shape {shown}, `{found.text}` {len(found.shape)} other dimensions"
            if len(shape) != len(found.shape)
            else f"the initial value has shape {shown}; the set is `{found.text}`",
            expr.span,
        )
        return Init("default")
    entries = flat(value)
    if not outside(context, expr, found, entries) and not literal_lies_in(found, value):
        not_in(context, expr, found)
    return Init("literal", literal=value)


def _within(found: SetInfo, lo: float, hi: float) -> bool:
    """Whether every number from lo up to, without, hi lies in an elementwise set."""
    match found.name:
        case "positive":
            return lo > 0
        case "nonneg":
            return lo >= 0
        case "open":
            return found.args[0] < lo and hi <= found.args[1]
        case "closed":
            return found.args[0] <= lo and hi <= found.args[1]
        case _:
            return False


def literal_lies_in(found: SetInfo, value: object) -> bool:
    """Whether a number (for every entry), a vector or a matrix may lie in a set."""
    shape = shape_of(value)
    if not shape:
        assert isinstance(value, float)
        return constant_lies_in(found.name, found.args, found.shape, "literal", value)
    if len(shape) == 2 and len(found.shape) == 2 and shape[0] * shape[1] <= MOST:
        return matrix_lies_in(found.name, found.args, cast("Matrix", value))
    return True


def not_in(context: Context, expr: ast.Expr, found: SetInfo) -> None:
    """IMP107 for a vector or matrix."""
    shown = context.report.source.at(expr.span)
    context.report.add("IMP107", f"the initial value `{shown}` is not in `{found.text}`", expr.span)


def nested(expr: ast.Expr) -> tuple[object, ...] | float | None:
    """A literal as nested tuples."""
    expr = unwrap(expr)
    if isinstance(expr, ast.Literal):
        items = tuple(nested(i) for i in expr.items)
        return None if any(i is None for i in items) or not items else items
    return literal(expr)


def shape_of(value: object) -> tuple[int, ...] | None:
    """The shape of nested tuples; None if ragged."""
    if not isinstance(value, tuple):
        return ()
    values = cast("tuple[object, ...]", value)
    inner = {shape_of(v) for v in values}
    if len(inner) != 1:
        return None
    first = inner.pop()
    return None if first is None else (len(values), *first)


def flat(value: object) -> list[float]:
    if isinstance(value, tuple):
        return [x for v in cast("tuple[object, ...]", value) for x in flat(v)]
    assert isinstance(value, float)
    return [value]


def outside(context: Context, expr: ast.Expr, found: SetInfo, values: list[float]) -> bool:
    """IMP107 where entries alone show that a value isn't in the set; whether one does."""
    bad: float | None = None
    for v in values:
        inside = {
            "positive": v > 0,
            "nonneg": v >= 0,
            "simplex": 0 <= v <= 1,
            "open": found.name != "open" or found.args[0] < v < found.args[1],
            "closed": found.name != "closed" or found.args[0] <= v <= found.args[1],
        }.get(found.name, True)
        if not inside:
            bad = v
            break
    total = sum(values)
    if bad is not None:
        context.report.add("IMP107", f"the initial value {bad:g} is not in `{found.text}`", expr.span)
    elif found.name == "simplex" and len(values) > 1 and abs(total - 1) > 1e-6:
        context.report.add(
            "IMP107", f"the entries of the initial value sum to {total:g}; those of `{found.text}` sum to 1", expr.span
        )
    elif found.name == "ball" and len(values) > 1 and sum(v * v for v in values) ** 0.5 > found.args[0] * (1 + 1e-9):
        context.report.add(
            "IMP107",
            f"the initial value has norm {sum(v * v for v in values) ** 0.5:g}; `{found.text}` has radius "
            f"{found.args[0]:g}",
            expr.span,
        )
    elif found.name == "sphere" and len(values) > 1 and abs(sum(v * v for v in values) ** 0.5 - 1) > 1e-6:
        context.report.add(
            "IMP107",
            f"the initial value has norm {sum(v * v for v in values) ** 0.5:g}; elements of `{found.text}` have norm 1",
            expr.span,
        )
    else:
        return False
    return True
