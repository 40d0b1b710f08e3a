"""Calls: functions of the language, `fn` modules, sub-layers, definitions with arguments, unknowns at a time,
derivative operators.
"""

from __future__ import annotations

import re
from itertools import product as combinations

from implicitdsl.ground.diagnostics import Fix
from implicitdsl.ground.source import Span
from implicitdsl.ir.dims import Dim, Shape
from implicitdsl.ir.function import Function, TypeRuleError
from implicitdsl.ir.nodes import Expr, Role, node, substitute, sym
from implicitdsl.syntax import ast

from .constants import folded
from .context import suggest
from .opaques import infer_fn
from .operators import OPERATORS, Operators
from .report import safe
from .scope import Entity, Typed
from .shapes import is_flexible
from .trees import descend, unwrap


class Calls(Operators):
    """The elaborator with all kinds of calls."""

    def call(self, expr: ast.Call) -> Typed | None:
        func = expr.func
        if isinstance(func, ast.Derivative):
            return self.at_point(expr, self.derivative(func))
        if not isinstance(func, ast.Name):
            self.report.add("IMP110", f"`{self.text(func)}` is no function", func.span, fixes=(self.space(expr),))
            return None
        name = func.text
        entity = self.scope.find(name)
        if entity is None:
            if name in OPERATORS:
                return self.operator(name, expr)
            if name in self.context.functions and not self.context.functions[name].internal:
                return self.function(self.context.functions[name], expr)
            if name == "dual":
                self.report.add(
                    "IMP113",
                    "`dual(…)` takes the label of one constraint, and can only be returned as it is",
                    expr.span,
                    help="write `return z, dual(ineq)`",
                )
                return None
            return self.undeclared_function(func)
        self.context.used.add(name)
        if entity.kind in ("fn", "layer"):
            return self.opaque(entity, expr)
        if entity.kind == "macro":
            return self.macro(entity, expr)
        if entity.kind == "unknown" and entity.arguments and not self.contains_unknown(expr.args):
            return self.at_point(expr, entity.node and Typed(entity.node))
        self.report.add(
            "IMP110",
            f"`{name}` is {entity.described}, not a function",
            func.span,
            labels=((entity.span, f"`{name}` declared here"),),
            fixes=(self.space(expr),),
        )
        return None

    def space(self, expr: ast.Call) -> Fix:
        """`W(z + x)` → `W (z + x)`."""
        inside = self.report.source.text[expr.func.span.end : expr.span.end]
        return safe(
            f"for the product write `{self.text(expr.func)} {inside}`",
            (Span(expr.func.span.end, expr.func.span.end), " "),
        )

    def contains_unknown(self, args: tuple[ast.Expr, ...]) -> bool:
        """An unknown's argument is a time or place: a function of an unknown means a product was meant."""
        for n in descend(args):
            if isinstance(n, ast.Name):
                entity = self.scope.find(n.text)
                if entity is not None and entity.kind == "unknown":
                    return True
        return False

    def undeclared_function(self, func: ast.Name) -> None:
        if self.context.broken:
            return
        if func.text in self.context.layers:
            self.report.add(
                "IMP113",
                f"`{func.text}` is a layer, not a function",
                func.span,
                help=f"make an instance and call that: `let f = {func.text}(…)`, `f(…)`",
            )
            return
        close = suggest(
            func.text,
            self.scope,
            [*(f for f in self.context.functions if not self.context.functions[f].internal), *OPERATORS],
        )
        declare = f"declare `fn {func.text}: R^n -> R^n`"
        self.report.add(
            "IMP101",
            f"unknown function `{func.text}`",
            func.span,
            help=f"did you mean `{close}`, or {declare}" if close else declare,
            fixes=(safe(f"did you mean `{close}`?", (func.span, close)),)
            if close and close in self.context.functions
            else (),
        )

    def arguments(self, args: tuple[ast.Expr, ...]) -> list[Typed] | None:
        found = [self.elaborate(a) for a in args]
        return None if any(f is None for f in found) else [f for f in found if f is not None]

    # -- functions of the language ---------------------------------------------------------------------------------

    def function(self, function: Function, expr: ast.Call) -> Typed | None:
        least, most = function.arity
        if len(expr.args) == 1 and isinstance(expr.args[0], ast.Comprehension):
            return self.comprehension(function, expr, expr.args[0])
        if len(expr.args) < least or (most is not None and len(expr.args) > most):
            wants = str(least) if least == most else f"at least {least}" if most is None else f"{least} to {most}"
            self.report.add(
                "IMP112",
                f"`{function.name}` takes {wants} {'argument' if wants == '1' else 'arguments'}; "
                f"{len(expr.args)} given",
                expr.span,
            )
            return None
        args = self.arguments(expr.args)
        if args is None:
            return None
        if function.elementwise:
            shape: Shape = ()
            row = False
            first: tuple[ast.Expr, Typed] | None = None
            for a, typed in zip(expr.args, args, strict=True):
                if typed.rank == 0:
                    continue
                if first is not None and not self.dims.unify_shapes(typed.shape, first[1].shape):
                    self.shapes_differ(f"`{self.text(expr)}`", expr.func.span, first[0], first[1], a, typed)
                    return None
                if first is None:
                    first, shape, row = (a, typed), typed.shape, typed.row
            return Typed(node("call", tuple(a.expr for a in args), (function.name,), shape, expr.span), row)
        result = self.ruled(function, expr, args)
        return (
            None
            if result is None
            else Typed(node("call", tuple(a.expr for a in args), (function.name,), result, expr.span))
        )

    def ruled(self, function: Function, expr: ast.Call, args: list[Typed]) -> Shape | None:
        """The shape by the function's own rule; flexible dimensions are tried against the others until the rule
        accepts.
        """
        try:
            return function.type([self.shown_as(a.expr, {}) for a in args])
        except TypeRuleError as error:
            shapes = [self.dims.shape(a.shape) for a in args]
            flexible = sorted({n for s in shapes for d in s for n in d.names if is_flexible(n)})
            pool = list(dict.fromkeys(d for s in shapes for d in s))
            if flexible and len(flexible) <= 3:
                for values in combinations(pool, repeat=len(flexible)):
                    trial = dict(zip(flexible, values, strict=True))
                    if any(n in v.names for n, v in trial.items() if v != Dim.of(n)):
                        continue
                    try:
                        result = function.type([self.shown_as(a.expr, trial) for a in args])
                    except TypeRuleError:
                        continue
                    for n, v in trial.items():
                        self.dims.unify(Dim.of(n), v)
                    return result
            at = (
                expr.args[error.argument].span
                if error.argument is not None and error.argument < len(expr.args)
                else expr.span
            )
            message = re.sub(r"\?\d+", "_", error.message)
            self.report.add(error.code, message, at, help=error.help, notes=self.provenance(*expr.args))
            return None

    def shown_as(self, e: Expr, trial: dict[str, Dim]) -> Expr:
        """A stand-in of an argument with its resolved shape; numbers and dimensions, `2 n + 1` too, as they are."""
        if e.rank == 0 and e.op in ("dim", "num", "add", "mul", "neg"):
            return folded(e)
        return sym("argument", Role.BOUND, tuple(d.subs(trial) for d in self.dims.shape(e.shape)))

    def comprehension(self, function: Function, expr: ast.Call, body: ast.Comprehension) -> Typed | None:
        if function.name not in ("sum", "stack"):
            self.report.add("IMP112", f"`{function.name}` takes no `for`; `sum` and `stack` do", body.span)
            return None
        inner = self.bind(body.binders)
        if inner is None:
            return None
        value = inner.elaborate(body.body)
        if value is None:
            return None
        result = value.expr
        for binder in reversed(body.binders):
            entity = inner.scope.find(binder.name.text)
            assert entity is not None
            assert entity.node is not None
            assert entity.range is not None
            lo, hi = entity.range
            shape = result.shape if function.name == "sum" else (hi - lo, *result.shape)
            result = node(f"{function.name}_for", (result,), (entity.node.name, lo, hi), shape, expr.span)
        return Typed(result, value.row and function.name == "sum")

    def bind(self, binders: tuple[ast.Binder, ...]) -> Calls | None:
        """An elaborator in which the indices of `for i in n` are known."""
        inner = Calls(self.context, self.scope.inner(), self.differentials)
        for binder in binders:
            reader = self.context.sets.__class__(
                self.report, inner.scope, self.dims, self.context.sets.implicit, self.context.sets.new_dims
            )
            lo: Dim | None = Dim.of(0)
            if isinstance(binder.range, ast.Slice):
                lo = reader.dim(binder.range.lo) if binder.range.lo is not None else lo
                if binder.range.hi is None:
                    self.report.add("IMP205", f"the range of `{binder.name.text}` has no end", binder.span)
                    return None
                hi = reader.dim(binder.range.hi)
            else:
                hi = reader.dim(binder.range)
            if lo is None or hi is None:
                return None
            unique = self.context.unique(binder.name.text)
            entity = Entity("index", binder.name.text, binder.name.span, sym(unique, Role.VARIABLE), range=(lo, hi))
            inner.scope.names[binder.name.text] = entity
            self.ranges[unique] = (lo, hi)
        return inner

    @property
    def ranges(self) -> dict[str, tuple[Dim, Dim]]:
        return self.context.ranges

    # -- modules, definitions --------------------------------------------------------------------------------------

    def opaque(self, entity: Entity, expr: ast.Call) -> Typed | None:
        """A `fn` or sub-layer."""
        args = self.arguments(expr.args)
        if args is None or entity.broken or (entity.opaque is None and entity.kind == "layer"):
            return None
        if entity.opaque is None:
            entity.opaque = infer_fn(self.context, entity, args)
        signature = entity.opaque
        if len(args) != len(signature.args):
            shown = ", ".join(self.show(s) for s in signature.args)
            self.report.add(
                "IMP112",
                f"`{entity.name}` takes {len(signature.args)} "
                f"{'argument' if len(signature.args) == 1 else 'arguments'} of shape {shown}; {len(args)} given",
                expr.span,
                labels=((entity.span, f"`{entity.name}` declared here"),),
            )
            return None
        for i, (arg, typed, shape) in enumerate(zip(expr.args, args, signature.args, strict=True)):
            if typed.rank != len(shape) or not self.dims.unify_shapes(typed.shape, shape):
                self.report.add(
                    "IMP201",
                    f"argument {i + 1} of `{entity.name}` must have shape {self.show(shape)}; "
                    f"`{self.text(arg)}` has {self.show(typed.shape)}",
                    arg.span,
                    labels=(
                        (entity.span, f"`{entity.name}` declared here"),
                        *self.introduced(self.dims.shape(typed.shape), self.dims.shape(shape)),
                    ),
                    notes=self.provenance(arg),
                )
                return None
        if len(signature.results) != 1:
            self.report.add(
                "IMP113",
                f"`{entity.name}` returns {len(signature.results)} values; only layers with one can stand in an "
                f"expression",
                expr.span,
            )
            return None
        return Typed(node("apply", tuple(a.expr for a in args), (entity.name, 0), signature.results[0], expr.span))

    def macro(self, entity: Entity, expr: ast.Call) -> Typed | None:
        """`H(q, p)`: the body elaborated with symbols of the arguments' shapes, then the arguments put in their
        place.
        """
        definition = entity.definition
        assert definition is not None
        assert definition.params is not None
        args = self.arguments(expr.args)
        if args is None:
            return None
        if len(args) != len(definition.params):
            self.report.add(
                "IMP112",
                f"`{entity.name}` takes {len(definition.params)} "
                f"{'argument' if len(definition.params) == 1 else 'arguments'}; {len(args)} given",
                expr.span,
                labels=((entity.span, f"`{entity.name}` defined here"),),
            )
            return None
        if entity.name in self.context.pending:
            cycle = [*self.context.pending[self.context.pending.index(entity.name) :], entity.name]
            self.report.add("IMP105", "definitions are circular: " + " → ".join(cycle), entity.span)
            return None
        inside = Calls(self.context, self.context.sets.scope_root().inner(), self.differentials)
        values: dict[Expr, Expr] = {}
        for param, typed in zip(definition.params, args, strict=True):
            symbol = sym(self.context.unique(param.text), Role.BOUND, typed.shape, param.span)
            inside.scope.names[param.text] = Entity("argument", param.text, param.span, symbol)
            values[symbol] = typed.expr
        self.context.pending.append(entity.name)
        body = inside.elaborate(definition.body)
        self.context.pending.pop()
        return None if body is None else Typed(substitute(body.expr, values), body.row)

    # -- unknowns of a variable, derivative operators --------------------------------------------------------------

    def at_point(self, expr: ast.Call, state: Typed | None) -> Typed | None:
        """`z(0)`, `z(ts)`, `dq/dt(0)`, `u(x, 0)`: a state at times or places; at the variable itself, the state."""
        if state is None:
            return None
        name = (
            expr.func.unknown
            if isinstance(expr.func, ast.Derivative)
            else expr.func.text
            if isinstance(expr.func, ast.Name)
            else ""
        )
        entity = self.scope.find(name)
        variables = entity.arguments if entity else ()
        if len(expr.args) != len(variables):
            self.report.add(
                "IMP112",
                f"`{name}` is an unknown of {', '.join(variables) or 'no variable'}; {len(expr.args)} given",
                expr.span,
            )
            return None
        points = self.arguments(expr.args)
        if points is None:
            return None
        own = [
            isinstance(a := unwrap(arg), ast.Name) and a.text == v for arg, v in zip(expr.args, variables, strict=True)
        ]
        if all(own):
            return state
        many = [p for p, mine in zip(points, own, strict=True) if p.rank == 1 and not mine]
        if any(p.rank > 1 for p in points) or len(many) > 1:
            self.report.add("IMP206", f"`{name}` can be taken at a time or a vector of times", expr.span)
            return None
        # a state at all places of a grid has one value a point
        grids = [
            e.points for v, mine in zip(variables, own, strict=True) if mine and (e := self.scope.find(v)) and e.points
        ]
        shape = (*(m.shape[0] for m in many), *grids, *state.shape)
        return Typed(node("at", (state.expr, *(p.expr for p in points)), variables, shape, expr.span))
