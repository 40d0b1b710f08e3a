"""Carrying out what was only written: definitions (`inline`) and grad, jac, div, hess (`expand`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from implicitdsl.ir import build
from implicitdsl.ir.dims import ZERO, Dim
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr, Role, num, rebuild, sym
from implicitdsl.ir.remake import remake, replace

from .forward import linearize
from .jacobian import dense_jacobian, fresh_index, jacobian
from .rules import OPERATORS
from .transpose import gradient, vjp


def inline(expr: Expr, definitions: Mapping[Expr, Expr] | Iterable[tuple[Expr, Expr]]) -> Expr:
    """Every name of `where` replaced by its value. `definitions` may refer to each other, without circles."""
    values = dict(definitions)
    done: dict[Expr, Expr] = {}

    def leaf(e: Expr) -> Expr | None:
        if e not in values:
            return None
        if e not in done:
            done[e] = rebuild(values[e], leaf, remake)
        return done[e]

    return rebuild(expr, leaf, remake)


def expand(expr: Expr, functions: Functions) -> Expr:
    """The expression with grad, jac, div and hess carried out, inner ones first; the result has closed form where
    there is one (`dense_jacobian`). Other symbols than the bound one are held fixed, names of `where` too: `inline`
    goes before.
    """

    def make(e: Expr, args: tuple[Expr, ...]) -> Expr:
        if e.op not in OPERATORS:
            return remake(e, args)
        body, bound, point = args
        if e.attrs:
            return replace(estimated_divergence(body, bound, probe(point), functions), {bound: point})
        return replace(_derivative(e.op, body, bound, functions), {bound: point})

    return rebuild(expr, lambda e: None, make, everywhere=True)


def _derivative(op: str, body: Expr, x: Expr, functions: Functions) -> Expr:
    match op:
        case "grad":
            return gradient(body, x, functions)
        case "jac":
            return dense_jacobian(body, x, functions)
        case "hess":
            return dense_jacobian(gradient(body, x, functions), x, functions)
        case _:
            return divergence(body, x, functions)


def probe(point: Expr) -> Expr:
    """The random signs of estimates by a variable; all estimates by it share them."""
    name = point.name if point.op == "sym" else f"{point.args[0].name}_{point.attrs[0]}"
    return sym(f"ε_{name}", Role.PROBE, point.shape)


def estimated_divergence(expr: Expr, x: Expr, signs: Expr, functions: Functions) -> Expr:
    """εᵀ (∂expr/∂x) ε, an unbiased estimate of the trace for independent signs (Hutchinson, 1990). Cost: one VJP."""
    pulled = vjp(expr, signs, (x,), functions)[0]
    return build.mul(pulled, signs) if x.rank == 0 else build.inner(pulled, signs)


def divergence(expr: Expr, x: Expr, functions: Functions) -> Expr:
    """tr ∂expr/∂x of equal shapes: from the structure of the Jacobian, e.g. tr(diag(d) W) = d · diagonal(W), term by
    term; else the sum of n entries of directional derivatives.
    """
    if expr.op == "add" and all(a.shape == expr.shape for a in expr.args):
        return build.add(*(divergence(a, x, functions) for a in expr.args))
    if expr.op == "neg":
        return build.neg(divergence(expr.args[0], x, functions))
    closed = jacobian(expr, x, functions)
    if closed is not None:
        return build.trace(closed) if closed.rank == 2 else closed
    name = fresh_index(expr)
    here = (build.at_item(Dim.of(name)),)
    column = linearize(expr, {x: build.embed(num(1.0), here, x.shape)}, functions)
    return build.sum_for(build.index(column, here), name, ZERO, x.shape[0])
