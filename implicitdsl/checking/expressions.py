"""Expressions: syntax tree to expression DAG, with kinds and shapes checked on the way.

Nodes are built raw here, with shapes that may still hold flexible dimensions; `resolve` finishes them. An expression
with an error is None ("poison"): whoever meets None says nothing more.
"""

from __future__ import annotations

from implicitdsl.ground.source import Span
from implicitdsl.ir.dims import Dim, Shape
from implicitdsl.ir.nodes import Role, node, num, sym
from implicitdsl.syntax import ast

from .context import CONSTANTS, Wording
from .parts import function_times, indexed, literal_of, norm
from .report import apart, safe, unsafe
from .scope import Entity, Typed
from .sets import literal
from .trees import unwrap


class Elaborator(Wording):
    """Elaborates expressions in one scope. Calls and derivative operators are in `calls.Calls`, its only subclass."""

    # -- dispatch --------------------------------------------------------------------------------------------------

    def elaborate(self, expr: ast.Expr) -> Typed | None:
        """The typed node of an expression; None after an error. Notes where in this text the node is written."""
        typed = self.dispatch(expr)
        if typed is not None:
            self.context.spans.setdefault(typed.expr, expr.span)
        return typed

    def dispatch(self, expr: ast.Expr) -> Typed | None:
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
                return indexed(self, expr)
            case ast.Norm() | ast.Abs():
                return norm(self, expr)
            case ast.Literal():
                return literal_of(self, expr)
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
        tensors = [n for n in self.scope.all() if (e := self.scope.find(n)) is not None and e.is_tensor]
        factors = None if context.bare else apart(name, tensors)
        if factors:
            context.used |= set(factors.split())
            fix = unsafe(f"write `{factors}`: a product needs the space", (expr.span, factors))
            self.report.add("IMP101", f"unknown name `{name}`", expr.span, fixes=(fix,))
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
        if expr.op in ("juxt", "@") and function_times(self, expr):
            return None
        left, right = self.elaborate(expr.left), self.elaborate(expr.right)
        if left is None or right is None:
            return None
        if expr.op in ("juxt", "@"):
            return self.product(expr, left, right)
        if expr.op in ("+", "-"):
            return self.sum(expr, left, right)
        return self.elementwise(expr, left, right)

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
            text = self.text(column)
            text = f"({text})^T" if isinstance(column, ast.Binary | ast.Negate) else f"{text}^T"
            self.report.add(
                "IMP201",
                f"shapes differ in `{self.text(expr)}`: one side is a row vector",
                expr.span,
                labels=(
                    (expr.left.span, "row" if left.row else "column"),
                    (expr.right.span, "row" if right.row else "column"),
                ),
                help=f"transpose one side: `{text}`",
            )
            return None
        if self.dims.unify_shapes(left.shape, right.shape):
            return left.shape
        self.shapes_differ(f"`{self.text(expr)}`", expr.span, expr.left, left, expr.right, right)
        return None

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
                f"the product `{self.text(expr)}` is of vectors and matrices; `{self.text(side)}` has shape "
                f"{self.show(which.shape)}",
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
                f"`{self.text(expr)}` has no meaning: `{self.text(culprit)}` is a "
                f"{'row' if right.row else 'column'} vector",
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
            else "elementwise operations need equal shapes or a scalar; the product of linear algebra is "
            "juxtaposition, `W z`",
        )
        return None

    def power(self, expr: ast.Binary) -> Typed | None:
        base = self.elaborate(expr.left)
        sign = unwrap(expr.right)
        if base is not None and base.rank == 2 and isinstance(sign, ast.Negate):
            turned = unwrap(sign.operand)
            if isinstance(turned, ast.Name) and turned.text == "T" and self.scope.find("T") is None:
                text = self.text(expr.left)
                fix = unsafe(f"write `({text}^-1)^T`", (expr.span, f"({text}^-1)^T"))
                self.report.add("IMP206", f"`{self.text(expr)}` is no power", expr.span, fixes=(fix,))
                return None
        exponent = self.elaborate(expr.right)
        if base is None or exponent is None:
            return None
        if base.rank == 2:
            if literal(expr.right) == -1.0:
                if not self.dims.unify(base.shape[0], base.shape[1]):
                    self.report.add(
                        "IMP206",
                        f"only a square matrix has an inverse; `{self.text(expr.left)}` has shape "
                        f"{self.show(base.shape)}",
                        expr.span,
                    )
                    return None
                return Typed(node("call", (base.expr,), ("inv",), base.shape, expr.span))
            self.report.add(
                "IMP206",
                f"a power of the matrix `{self.text(expr.left)}`; only `^-1` and `^T` are for matrices",
                expr.span,
                help=f"`{self.text(expr.left)} {self.text(expr.left)}` is the product, `{self.text(expr.left)} "
                f"* {self.text(expr.left)}` elementwise",
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
                f"only vectors and matrices have a transpose; `{self.text(expr.operand)}` has shape "
                f"{self.show(inner.shape)}",
                expr.span,
            )
            return None
        return Typed(node("transpose", (inner.expr,), (), (inner.shape[1], inner.shape[0]), expr.span))
