"""The derivative operators on expressions: `grad`, `jac`, `div`, `hess`."""

from __future__ import annotations

from implicitdsl.ir.nodes import Expr, Role, node, rebuild, same_with, sym, symbols
from implicitdsl.syntax import ast

from .constants import inline
from .expressions import Elaborator
from .scope import Typed
from .trees import unwrap

OPERATORS = ("grad", "jac", "div", "hess")


class Operators(Elaborator):
    """The elaborator with derivative operators."""

    def operator(self, name: str, expr: ast.Call) -> Typed | None:
        """`grad(e, v)`, `jac`, `div`, `hess`: a binder over a fresh symbol in place of v."""
        limit = (2, 3) if name == "div" else (2, 2)
        if not limit[0] <= len(expr.args) <= limit[1]:
            self.report.add("IMP112", f"`{name}` takes an expression and a variable; {len(expr.args)} given", expr.span)
            return None
        variable = unwrap(expr.args[1])
        if not isinstance(variable, (ast.Name, ast.Derivative)):
            self.report.add(
                "IMP113",
                f"the second argument of `{name}` must be a name or a derivative, not `{self.text(variable)}`",
                variable.span,
                help="name the variable: a definition with arguments, `where f(v) = …`, can be differentiated "
                "by `v` and called",
            )
            return None
        along = isinstance(variable, ast.Derivative)
        body = self.elaborate(expr.args[0])
        point = self.derivative(variable) if isinstance(variable, ast.Derivative) else self.name(variable)
        if body is None or point is None:
            return None
        method: tuple[object, ...] = ()
        if len(expr.args) == 3:
            how = unwrap(expr.args[2])
            if not (isinstance(how, ast.Name) and how.text in ("exact", "hutchinson")):
                self.report.add("IMP704", f"`{self.text(how)}`: div is `exact` or `hutchinson`", how.span)
                return None
            method = (how.text,) if how.text == "hutchinson" else ()
        written = self.text(variable)
        if point.expr.op != "sym" and not along:
            self.report.add("IMP113", f"`{written}` is no variable", variable.span)
            return None
        bodies = {"grad": (), "hess": ()}
        if name in bodies and body.rank != 0:
            self.report.add(
                "IMP204",
                f"`{name}` needs a scalar; `{self.text(expr.args[0])}` has shape {self.show(body.shape)}",
                expr.args[0].span,
                help=f"`jac({self.text(expr.args[0])}, {written})` is the Jacobian" if name == "grad" else None,
            )
            return None
        if name == "div" and (body.rank != point.rank or not self.dims.unify_shapes(body.shape, point.shape)):
            self.shapes_differ(
                f"`{self.text(expr)}`, whose Jacobian must be square",
                expr.func.span,
                expr.args[0],
                body,
                variable,
                point,
            )
            return None
        bound = sym(self.context.unique(written), Role.BOUND, point.shape, variable.span)
        inlined = inline(body.expr, dict(self.context.definition_order), None if along else point.expr)
        inner = _independent(inlined, point.expr, bound)
        everything = symbols(inline(body.expr, dict(self.context.definition_order)))
        held = sorted(s.name for s in everything if s.role is Role.UNKNOWN)
        if held and bound not in symbols(inner) and not along and point.expr.role is not Role.UNKNOWN:
            self.report.add(
                "IMP113",
                f"`{self.text(expr)}` is zero: `{held[0]}` is an unknown, and `{name}` holds unknowns fixed",
                expr.span,
                help=f"the derivative of the solution by `{written}` is `torch.func.jacrev` of the layer",
            )
            return None
        shape = {
            "grad": point.shape,
            "jac": (*body.shape, *point.shape),
            "div": (),
            "hess": (*point.shape, *point.shape),
        }[name]
        op = "divergence" if name == "div" else name
        return Typed(node(op, (inner, bound, point.expr), method, shape, expr.span))


def _independent(body: Expr, point: Expr, bound: Expr) -> Expr:
    """The body with `bound` for `point`. A state and its derivatives are variables of their own: ∂L(q, dq/dt)/∂q holds
    dq/dt fixed. A state at a time of its own, `q(0)`, is held fixed too.
    """

    def leaf(e: Expr) -> Expr | None:
        if e is point:
            return bound
        return e if e.op in ("deriv", "at") else None

    return rebuild(body, leaf, same_with)
