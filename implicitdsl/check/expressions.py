"""Expressions: syntax tree to expression DAG, with kinds and shapes checked on the way.

Nodes are built raw here, with shapes that may still hold flexible dimensions; `resolve` finishes them. An expression with an
error is None ("poison"): whoever meets None says nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from implicitdsl.ground.source import Span
from implicitdsl.ir.dims import ONE, Dim, Shape, show_shape
from implicitdsl.ir.function import NORMS, Function
from implicitdsl.ir.nodes import Expr, Role, node, num, sym
from implicitdsl.syntax import ast

from .report import Report, nearest, safe, unsafe
from .scope import Entity, Scope, Typed
from .sets import SetReader
from .shapes import Dims
from .trees import unwrap

CONSTANTS = {"pi": 3.141592653589793, "π": 3.141592653589793}


@dataclass
class Context:
    """What elaboration needs everywhere: shared by all expressions of a layer."""

    report: Report
    dims: Dims
    functions: dict[str, Function]
    sets: SetReader
    bare: bool
    broken: bool
    guess: dict[str, int]
    used: set[str] = field(default_factory=set[str])
    undeclared: dict[str, Entity] = field(default_factory=dict[str, Entity])
    checks: list[tuple[Dim, Dim, Span, str, bool]] = field(default_factory=list[tuple[Dim, Dim, Span, str, bool]])
    definitions: dict[str, Typed | None] = field(default_factory=dict[str, Typed | None])
    definition_order: list[tuple[Expr, Expr]] = field(default_factory=list[tuple[Expr, Expr]])
    pending: list[str] = field(default_factory=list[str])
    ranges: dict[str, tuple[Dim, Dim]] = field(default_factory=dict[str, tuple[Dim, Dim]])
    declared_sets: dict[str, Span] = field(default_factory=dict[str, Span])
    incomplete: bool = False  # poison without an error of this layer's own
    count: int = 0

    def unique(self, stem: str) -> str:
        self.count += 1
        return f"{stem}~{self.count}"


class Elaborator:
    """Elaborates expressions in one scope. Calls and derivative operators are in `calls.Calls`, its only subclass."""

    def __init__(self, context: Context, scope: Scope, differentials: dict[str, Expr] | None = None) -> None:
        self.context = context
        self.report = context.report
        self.dims = context.dims
        self.scope = scope
        self.differentials = differentials or {}

    # -- dispatch --------------------------------------------------------------------------------------------------

    def elaborate(self, expr: ast.Expr) -> Typed | None:
        """The typed node of an expression; None after an error."""
        match expr:
            case ast.Paren():
                return self.elaborate(expr.inner)
            case ast.Number():
                return Typed(num(expr.value, expr.span))
            case ast.Name():
                return self.name(expr)
            case ast.Negate():
                inner = self.elaborate(expr.operand)
                return inner and Typed(node("neg", (inner.expr,), (), inner.shape, expr.span), inner.row)
            case ast.Binary():
                return self.binary(expr)
            case ast.Transpose():
                return self.transposed(expr)
            case ast.Index():
                return self.indexed(expr)
            case ast.Norm() | ast.Abs():
                return self.norm(expr)
            case ast.Literal():
                return self.literal(expr)
            case ast.Call():
                return self.call(expr)
            case ast.Derivative():
                return self.derivative(expr)
            case ast.Comprehension():
                self.report.add("IMP113", "`… for …` can only be the argument of `sum` or `stack`", expr.span)
                return None
            case ast.String():
                self.report.add("IMP113", "a string is no value", expr.span)
                return None

    def call(self, expr: ast.Call) -> Typed | None:
        raise AssertionError("overridden in calls.Calls")

    def derivative(self, expr: ast.Derivative) -> Typed | None:
        entity = self.scope.find(expr.unknown)
        variable = self.scope.find(expr.variable)
        if entity is None or entity.kind != "unknown" or entity.node is None:
            self.report.add(
                "IMP101", f"`{expr.unknown}` is not an unknown, so `{self.text(expr)}` has no meaning", expr.span
            )
            return None
        self.context.used.add(expr.unknown)
        name = variable.name if variable else expr.variable
        return Typed(node("deriv", (entity.node,), (expr.order, name), entity.node.shape, expr.span))

    def text(self, expr: ast.Node) -> str:
        return " ".join(self.report.source.at(expr.span).split())

    # -- names -----------------------------------------------------------------------------------------------------

    def name(self, expr: ast.Name) -> Typed | None:
        name = expr.text
        if name in self.differentials and self.scope.find(name) is None:
            return Typed(self.differentials[name])
        entity = self.scope.find(name)
        if entity is None:
            if name in CONSTANTS:
                return Typed(num(CONSTANTS[name], expr.span))
            return self.unknown_name(expr)
        self.context.used.add(name)
        if entity.kind == "definition":
            return self.definition(entity)
        if entity.kind == "dim":
            return Typed(node("dim", (), (Dim.of(name),), (), expr.span))
        if entity.kind == "index":
            assert entity.node is not None
            return Typed(node("dim", (), (Dim.of(entity.node.name),), (), expr.span))
        if entity.kind in ("fn", "layer", "macro"):
            self.report.add(
                "IMP111",
                f"`{name}` is {entity.described} and stands here as a value",
                expr.span,
                labels=((entity.span, f"`{name}` declared here"),),
                help=f"call it: `{name}(…)`",
            )
            return None
        return None if entity.node is None else Typed(entity.node)

    def unknown_name(self, expr: ast.Name) -> Typed | None:
        """An undeclared name: one error, and a symbol of conventional kind so that nothing else complains."""
        name = expr.text
        context = self.context
        if name in context.functions:
            self.report.add(
                "IMP111",
                f"`{name}` is a function and stands here as a value",
                expr.span,
                help=f"write `{name}(…)` without a space",
            )
            return None
        if context.broken:
            return None
        rank = context.guess.get(name, 2 if name[:1].isupper() else 1)
        shape = self.dims.fresh_shape(rank)
        kind = "param" if name[:1].isupper() else "given"
        role = Role.PARAM if kind == "param" else Role.GIVEN
        entity = Entity(kind, name, expr.span, sym(name, role, shape, expr.span), undeclared=True)
        root = context.sets.scope_root()
        root.names[name] = entity
        context.undeclared[name] = entity
        assert entity.node is not None
        return Typed(entity.node)

    def definition(self, entity: Entity) -> Typed | None:
        """A name of `where`: elaborated at its first use, in the layer's scope."""
        context = self.context
        name = entity.name
        if name in context.definitions:
            found = context.definitions[name]
            return found
        assert entity.definition is not None
        if name in context.pending:
            cycle = [*context.pending[context.pending.index(name) :], name]
            self.report.add(
                "IMP105",
                "definitions are circular: " + " → ".join(cycle),
                entity.span,
                help=f"if you mean an implicit equation, use `find {name} such that …`",
            )
            for each in cycle:
                context.definitions[each] = None
            return None
        context.pending.append(name)
        inside = type(self)(context, context.sets.scope_root(), self.differentials)
        value = inside.elaborate(entity.definition.body)
        context.pending.pop()
        if name in context.definitions:  # part of a cycle
            return context.definitions[name]
        if value is None:
            context.definitions[name] = None
            return None
        symbol = sym(name, Role.DEFINITION, value.shape, entity.span)
        context.definition_order.append((symbol, value.expr))
        context.definitions[name] = Typed(symbol, value.row)
        return context.definitions[name]

    # -- arithmetic ------------------------------------------------------------------------------------------------

    def binary(self, expr: ast.Binary) -> Typed | None:
        if expr.op == "^":
            return self.power(expr)
        if expr.op in ("juxt", "@"):
            refused = self.function_times(expr)
            if refused:
                return None
        left, right = self.elaborate(expr.left), self.elaborate(expr.right)
        if left is None or right is None:
            return None
        if expr.op in ("juxt", "@"):
            return self.product(expr, left, right)
        if expr.op in ("+", "-"):
            return self.sum(expr, left, right)
        return self.elementwise(expr, left, right)

    def function_times(self, expr: ast.Binary) -> bool:
        """`f (z)`, `f z`: a function can't be multiplied (IMP111)."""
        left = expr.left
        while isinstance(left, ast.Binary) and left.op in ("juxt", "@"):
            left = left.right
        if not isinstance(left, ast.Name):
            return False
        entity = self.scope.find(left.text)
        is_function = entity.kind in ("fn", "layer", "macro") if entity else left.text in self.context.functions
        if not is_function:
            return False
        self.context.used.add(left.text)
        if isinstance(expr.right, ast.Paren):
            fix = safe(f"write `{left.text}(…)` without the space", (Span(left.span.end, expr.right.span.start), ""))
        else:
            arg = self.text(expr.right)
            fix = safe(f"write `{left.text}({arg})`", (Span(left.span.end, expr.right.span.end), f"({arg})"))
        self.report.add(
            "IMP111",
            f"`{left.text}` is {entity.described if entity else 'a function'} and cannot be multiplied",
            left.span,
            fixes=(fix,),
        )
        return True

    def sum(self, expr: ast.Binary, left: Typed, right: Typed) -> Typed | None:
        shape = self.equal_or_scalar(expr, left, right)
        if shape is None:
            return None
        minus = expr.op == "-"
        b = node("neg", (right.expr,), (), right.shape, expr.right.span) if minus else right.expr
        row = left.row or right.row
        return Typed(node("add", (left.expr, b), (), shape, expr.span), row)

    def equal_or_scalar(self, expr: ast.Binary, left: Typed, right: Typed) -> Shape | None:
        """The common shape of `+` and `-`; IMP201 if there is none."""
        if left.rank == 0:
            return right.shape
        if right.rank == 0:
            return left.shape
        if left.row != right.row:
            column = expr.right if left.row else expr.left
            self.report.add(
                "IMP201",
                f"shapes differ in `{self.text(expr)}`: one side is a row vector",
                expr.span,
                labels=(
                    (expr.left.span, "row" if left.row else "column"),
                    (expr.right.span, "row" if right.row else "column"),
                ),
                help=f"transpose one side: `{self.text(column)}^T`",
            )
            return None
        if self.dims.unify_shapes(left.shape, right.shape):
            return left.shape
        self.shapes_differ(f"`{self.text(expr)}`", expr.span, expr.left, left, expr.right, right)
        return None

    def shapes_differ(self, where: str, span: Span, left: ast.Expr, a: Typed, right: ast.Expr, b: Typed) -> None:
        """IMP201 with both operands, where their dimensions came from, and how to project."""
        sa, sb = self.dims.shape(a.shape), self.dims.shape(b.shape)
        self.report.add(
            "IMP201",
            f"shapes differ in {where}: {self.show(sa)} and {self.show(sb)}",
            span,
            labels=(*self.introduced(sa, sb), (left.span, ""), (right.span, "")),
            notes=self.provenance(left, right),
            help=self.projection(left, sa, right, sb),
        )

    def introduced(self, a: Shape, b: Shape) -> list[tuple[Span, str]]:
        """Labels at the header names by which two shapes differ."""
        here = [n for d in a for n in sorted(d.names) if n in self.dims.introduced]
        there = [n for d in b for n in sorted(d.names) if n in self.dims.introduced and n not in here]
        here = [n for n in here if not any(n in d.names for d in b)] or here
        labels = [(self.dims.introduced[n], f"`{n}` introduced here") for n in dict.fromkeys(here)]
        return labels + [(self.dims.introduced[n], f"`{n}` is a different dimension") for n in dict.fromkeys(there)]

    def provenance(self, *operands: ast.Expr) -> list[str]:
        """`W` is a parameter in R^(n, n), declared on line 3 — for every name in the operands."""
        notes: list[str] = []
        for operand in operands:
            for name in dict.fromkeys(n.text for n in self._names(operand)):
                entity = self.scope.find(name)
                if entity is not None and entity.node is not None and entity.is_tensor:
                    line = self.report.source.position(entity.span.start)[0]
                    shape = self.show(self.dims.shape(entity.node.shape))
                    notes.append(f"`{name}` has shape {shape}: {entity.described}, line {line}")
        return list(dict.fromkeys(notes))

    @staticmethod
    def _names(expr: ast.Node) -> list[ast.Name]:
        from .trees import descend

        return [n for n in descend(expr) if isinstance(n, ast.Name)]

    def projection(self, left: ast.Expr, a: Shape, right: ast.Expr, b: Shape) -> str | None:
        """The usual remedy where an input of another length is added: a matrix in front of it."""
        if len(a) != 1 or len(b) != 1:
            return None
        for mine, other, operand, first in ((a, b, right, False), (b, a, left, True)):
            operand = unwrap(operand)
            if isinstance(operand, ast.Name):
                entity = self.scope.find(operand.text)
                if entity is not None and entity.kind == "given":
                    fresh = next(c for c in "UVABCDEFGHJKLMPQSW" if self.scope.find(c) is None)
                    kept = self.text(right if first else left)
                    text = f"{fresh} {operand.text} + {kept}" if first else f"{kept} + {fresh} {operand.text}"
                    return f"project the input: `{text}` with `param {fresh} in R^{show_shape((mine[0], other[0]))}`"
        return None

    def show(self, shape: Shape) -> str:
        """A shape with `_` for what isn't known yet."""
        parts = (" ".join("_" if n.startswith("?") else n for n in str(d).split(" ")) for d in self.dims.shape(shape))
        return "(" + ", ".join(parts) + ")"

    def product(self, expr: ast.Binary, left: Typed, right: Typed) -> Typed | None:
        """The linear-algebra product: juxtaposition and `@`."""
        a, b = left.expr, right.expr
        if left.rank == 0 or right.rank == 0:
            shape = right.shape if left.rank == 0 else left.shape
            return Typed(node("mul", (a, b), (), shape, expr.span), left.row or right.row)
        if left.rank > 2 or right.rank > 2:
            which, side = (left, expr.left) if left.rank > 2 else (right, expr.right)
            self.report.add(
                "IMP206",
                f"the product `{self.text(expr)}` is of vectors and matrices; `{self.text(side)}` has shape {self.show(which.shape)}",
                expr.span,
                help="use `*` for the elementwise product",
            )
            return None
        column_a, column_b = left.rank == 1 and not left.row, right.rank == 1 and not right.row
        if column_a and right.row:
            return Typed(node("outer", (a, b), (), (left.shape[0], right.shape[0]), expr.span))
        if column_a and column_b:
            x, y = self.text(expr.left), self.text(expr.right)
            self.report.add(
                "IMP202",
                f"`{self.text(expr)}` multiplies two column vectors",
                expr.span,
                labels=((expr.left.span, self.show(left.shape)), (expr.right.span, self.show(right.shape))),
                notes=self.provenance(expr.left, expr.right),
                fixes=(
                    unsafe(
                        f"`{x}^T {y}` (scalar product) or `{x} * {y}` (elementwise)",
                        (Span(expr.left.span.end, expr.right.span.start), "^T "),
                    ),
                    unsafe(f"`{x} * {y}` (elementwise)", (Span(expr.left.span.end, expr.right.span.start), " * ")),
                ),
            )
            return None
        if right.row or (column_a and right.rank == 2):
            culprit = expr.right if right.row else expr.left
            self.report.add(
                "IMP202",
                f"`{self.text(expr)}` has no meaning: `{self.text(culprit)}` is a {'row' if right.row else 'column'} vector",
                expr.span,
                help=f"transpose it: `{self.text(culprit)}^T`" if not right.row else "put the row vector on the left",
            )
            return None
        inner_a, inner_b = left.shape[-1], right.shape[0]
        if not self.dims.unify(inner_a, inner_b):
            sa, sb = self.dims.shape(left.shape), self.dims.shape(right.shape)
            x, y = self.text(expr.left), self.text(expr.right)
            fixes = ()
            if left.rank == 2 and self.dims.resolve(left.shape[0]) == sb[0]:
                fixes = (unsafe(f"did you mean `{x}^T {y}`?", (Span(expr.left.span.end, expr.left.span.end), "^T")),)
            elif right.rank == 2 and self.dims.resolve(right.shape[1]) == sa[-1]:
                fixes = (unsafe(f"did you mean `{x} {y}^T`?", (Span(expr.right.span.end, expr.right.span.end), "^T")),)
            self.report.add(
                "IMP202",
                f"inner dimensions differ in `{self.text(expr)}`: {self.show(sa)} times {self.show(sb)}",
                expr.span,
                labels=(
                    *self.introduced((sa[-1],), (sb[0],)),
                    (expr.left.span, self.show(sa)),
                    (expr.right.span, self.show(sb)),
                ),
                notes=self.provenance(expr.left, expr.right),
                fixes=fixes,
            )
            return None
        shape = (*left.shape[:-1], *right.shape[1:])
        row = left.row and right.rank == 2
        return Typed(node("matmul", (a, b), (), shape, expr.span), row)

    def elementwise(self, expr: ast.Binary, left: Typed, right: Typed) -> Typed | None:
        """`*` and `/`: equal shapes, or a scalar (for `/` on either side)."""
        op = "mul" if expr.op == "*" else "div"
        if left.rank == 0 or right.rank == 0:
            shape = right.shape if left.rank == 0 else left.shape
            return Typed(node(op, (left.expr, right.expr), (), shape, expr.span), left.row or right.row)
        if left.rank == right.rank and left.row == right.row and self.dims.unify_shapes(left.shape, right.shape):
            return Typed(node(op, (left.expr, right.expr), (), left.shape, expr.span), left.row)
        x, y = self.text(expr.left), self.text(expr.right)
        gap = Span(expr.left.span.end, expr.right.span.start)
        fixes = []
        if (
            op == "mul"
            and left.rank == 2
            and right.rank <= 2
            and not right.row
            and self.dims.unify(left.shape[1], right.shape[0])
        ):
            fixes = [safe(f"for the matrix product write `{x} {y}`", (gap, " "))]
        elif op == "mul" and left.row and not right.row and self.dims.unify(left.shape[0], right.shape[0]):
            fixes = [safe(f"for the product write `{x} {y}`", (gap, " "))]
        self.report.add(
            "IMP208",
            f"elementwise `{self.text(expr)}` of unequal shapes: {self.show(left.shape)} and {self.show(right.shape)}",
            expr.span,
            labels=((expr.left.span, self.show(left.shape)), (expr.right.span, self.show(right.shape))),
            notes=self.provenance(expr.left, expr.right),
            fixes=fixes,
            help=None
            if fixes
            else "elementwise operations need equal shapes or a scalar; the product of linear algebra is juxtaposition, `W z`",
        )
        return None

    def power(self, expr: ast.Binary) -> Typed | None:
        base, exponent = self.elaborate(expr.left), self.elaborate(expr.right)
        if base is None or exponent is None:
            return None
        from .sets import literal

        if base.rank == 2:
            if literal(expr.right) == -1.0:
                if not self.dims.unify(base.shape[0], base.shape[1]):
                    self.report.add(
                        "IMP206",
                        f"only a square matrix has an inverse; `{self.text(expr.left)}` has shape {self.show(base.shape)}",
                        expr.span,
                    )
                    return None
                return Typed(node("call", (base.expr,), ("inv",), base.shape, expr.span))
            self.report.add(
                "IMP206",
                f"a power of the matrix `{self.text(expr.left)}`; only `^-1` and `^T` are for matrices",
                expr.span,
                help=f"`{self.text(expr.left)} {self.text(expr.left)}` is the product, `{self.text(expr.left)} * {self.text(expr.left)}` elementwise",
            )
            return None
        if exponent.rank != 0:
            self.report.add(
                "IMP206",
                f"an exponent must be a scalar; `{self.text(expr.right)}` has shape {self.show(exponent.shape)}",
                expr.right.span,
            )
            return None
        return Typed(node("pow", (base.expr, exponent.expr), (), base.shape, expr.span), base.row)

    def transposed(self, expr: ast.Transpose) -> Typed | None:
        inner = self.elaborate(expr.operand)
        if inner is None or inner.rank == 0:
            return inner
        if inner.rank == 1:
            return Typed(inner.expr, not inner.row)
        if inner.rank > 2:
            self.report.add(
                "IMP206",
                f"only vectors and matrices have a transpose; `{self.text(expr.operand)}` has shape {self.show(inner.shape)}",
                expr.span,
            )
            return None
        return Typed(node("transpose", (inner.expr,), (), (inner.shape[1], inner.shape[0]), expr.span))

    # -- indices, bars, literals -----------------------------------------------------------------------------------

    def indexed(self, expr: ast.Index) -> Typed | None:
        base = self.elaborate(expr.operand)
        if base is None:
            return None
        if len(expr.items) > base.rank:
            self.report.add(
                "IMP205",
                f"{len(expr.items)} indices for `{self.text(expr.operand)}`, which has {base.rank} "
                f"{'dimension' if base.rank == 1 else 'dimensions'}: shape {self.show(base.shape)}",
                expr.span,
            )
            return None
        items: list[tuple[object, ...]] = []
        shape: list[Dim] = []
        for axis, item in zip(base.shape, expr.items, strict=False):
            if isinstance(item, ast.Slice):
                lo = Dim.of(0) if item.lo is None else self.place(item.lo, axis, True)
                hi = axis if item.hi is None else self.place(item.hi, axis, True)
                if lo is None or hi is None:
                    return None
                items.append(("slice", lo, hi))
                shape.append(hi - lo)
                if self.dims.sign(hi - lo) == -1:
                    self.report.add("IMP205", f"the slice `{self.text(item)}` is empty", item.span)
                    return None
            else:
                at = self.place(item, axis, False)
                if at is None:
                    return None
                items.append(("at", at))
        shape.extend(base.shape[len(expr.items) :])
        return Typed(node("index", (base.expr,), tuple(items), tuple(shape), expr.span))

    def place(self, item: ast.Expr, axis: Dim, end: bool) -> Dim | None:
        """An index as a dimension polynomial, negative literals counted from the end; range checked later."""
        place = self.context.sets.__class__(self.report, self.scope, self.dims, False, []).dim(item)
        if place is None:
            return None
        value = place.value
        if value is not None and value < 0:
            place = axis + place
        self.context.checks.append((place, axis, item.span, self.text(item), end))
        return place

    def norm(self, expr: ast.Norm | ast.Abs) -> Typed | None:
        inner = self.elaborate(expr.operand)
        if inner is None:
            return None
        if isinstance(expr, ast.Abs):
            return Typed(node("call", (inner.expr,), ("abs",), inner.shape, expr.span), inner.row)
        if inner.rank == 2 and expr.kind != "F":
            self.report.add(
                "IMP206",
                f"`||·||` is for vectors; `{self.text(expr.operand)}` has shape {self.show(inner.shape)}",
                expr.span,
                help=f"`||{self.text(expr.operand)}||_F` is the Frobenius norm",
            )
            return None
        return Typed(node("call", (inner.expr,), (NORMS[expr.kind],), (), expr.span))

    def literal(self, expr: ast.Literal) -> Typed | None:
        if not expr.items:
            self.report.add("IMP203", "an empty literal has no shape", expr.span)
            return None
        parts = [self.elaborate(item) for item in expr.items]
        if any(p is None for p in parts):
            return None
        typed = [p for p in parts if p is not None]
        first = typed[0]
        for item, part in zip(expr.items[1:], typed[1:], strict=True):
            if part.rank != first.rank or not self.dims.unify_shapes(part.shape, first.shape):
                self.report.add(
                    "IMP201",
                    f"the entries of a literal have different shapes: {self.show(first.shape)} and {self.show(part.shape)}",
                    item.span,
                    labels=((expr.items[0].span, self.show(first.shape)),),
                    help="use `concat(a, b)` to join vectors of different lengths",
                )
                return None
        return Typed(node("stack", tuple(p.expr for p in typed), (), (Dim.of(len(typed)), *first.shape), expr.span))


def range_checks(context: Context) -> None:
    """IMP205 for indices that certainly leave their axis; run once all dimensions are known."""
    dims = context.dims
    for place, axis, span, text, end in context.checks:
        lowest = highest = place
        for name, (lo, hi) in context.ranges.items():
            lowest, highest = lowest.subs({name: lo}), highest.subs({name: hi - ONE})
        axis = dims.resolve(axis)
        over = dims.sign(highest - axis if end else highest - axis + ONE)
        if over == 1 or dims.sign(lowest) == -1:
            shown = " ".join("_" if n.startswith("?") else n for n in str(axis).split(" "))
            context.report.add(
                "IMP205",
                f"index `{text}` is outside an axis of length {shown}",
                span,
                notes=("indices start at 0; slices are half-open",),
            )


def suggest(name: str, scope: Scope, extra: list[str]) -> str | None:
    """A declared name close to an unknown one."""
    return nearest(name, [*dict.fromkeys(scope.all()), *extra])
