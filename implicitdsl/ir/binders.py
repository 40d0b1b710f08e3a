"""Constructors with bound indices or symbols, opaque functions, parts of relations. Import them from `ir.build`."""

from __future__ import annotations

from collections.abc import Sequence

from implicitdsl.ground.source import Span

from . import arith, arrays, linalg
from .arrays import items_of
from .dims import ONE, ZERO, Dim, Shape
from .names import as_dimension as _dim
from .names import binder_of as binder_of
from .names import free_names, index_value
from .nodes import Expr, node, num

OpaqueName = str | tuple[str, "OpaqueName", int] | tuple[str, "OpaqueName", int, int]
"""The name of a `fn`, or of a function derived from one, which makes opaque functions closed under differentiation:
("jvp", f, output) is (x…, t…) ↦ ∂f t, and ("vjp", f, output, i) is (x…, g) ↦ (∂f/∂xᵢ)ᵀ g."""


def sum_for(body: Expr, name: str, lo: Dim, hi: Dim, *, span: Span | None = None) -> Expr:
    """Σ of body over name in [lo, hi). A sum of one-element pieces is a stack, and constants leave the sum."""
    count = hi - lo
    if count == ZERO or arith.is_zero(body):
        return arith.zeros(body.shape, span=span)
    if count == ONE:
        return index_value(body, name, lo)
    if name not in free_names(body):
        return arith.mul(arith.dimension(count), body, span=span)
    if body.op == "neg":
        return arith.neg(sum_for(body.args[0], name, lo, hi), span=span)
    if body.op == "mul":
        a, b = body.args
        if a.rank == 0 and name not in free_names(a):
            return arith.mul(a, sum_for(b, name, lo, hi), span=span)
        if b.shape == body.shape and a.rank == 0 and b.op == "ones":
            return arith.mul(sum_for(a, name, lo, hi), b, span=span)
    if body.op == "embed":
        (first, *rest) = items_of(body)
        piece = body.args[0]
        if first == ("at", Dim.of(name)) and not any(name in _dim(d).names for item in rest for d in item[1:]):
            inner = arrays.embed(piece, rest, body.shape[1:])
            rows = stack_for(inner, name, lo, hi)
            return arrays.embed(rows, (("slice", lo, hi),), body.shape, span=span)
    return node("sum_for", (body,), (name, lo, hi), body.shape, span)


def stack_for(body: Expr, name: str, lo: Dim, hi: Dim, *, span: Span | None = None) -> Expr:
    """The bodies for name in [lo, hi), joined along a new first axis."""
    count = hi - lo
    shape = (count, *body.shape)
    arith.require(
        name not in frozenset[str]().union(*(d.names for d in body.shape)),
        "the shape of the pieces, {}, varies with the index",
        body.shape,
    )
    if count == ONE:
        return arrays.stack((index_value(body, name, lo),), span=span)
    if arith.is_zero(body):
        return arith.zeros(shape, span=span)
    if arith.filled(body) is not None and name not in free_names(body):
        return arith.fill(arith.filled(body) or num(1.0), shape, span=span)
    if body.rank == 0 and name not in free_names(body):
        return arith.fill(body, shape, span=span)
    if body.op == "neg":
        return arith.neg(stack_for(body.args[0], name, lo, hi), span=span)
    if (
        body.op == "mul"
        and body.args[0].rank == 0
        and name not in free_names(body.args[0])
        and body.args[1].op != "ones"
    ):
        return arith.mul(body.args[0], stack_for(body.args[1], name, lo, hi), span=span)
    if body.op == "index" and name not in free_names(body.args[0]):
        (first, *rest) = items_of(body)
        shift = _dim(first[1]) - Dim.of(name)
        others = any(name in _dim(d).names for item in rest for d in item[1:])
        if len(first) == 2 and name not in shift.names and not others:
            whole = (arrays.slice_item(lo + shift, hi + shift), *rest)
            return arrays.index(body.args[0], whole, span=span)
    if body.op == "embed" and body.shape == (hi,) and lo == ZERO and items_of(body) == (("at", Dim.of(name)),):
        return linalg.diag(stack_for(body.args[0], name, lo, hi), span=span)
    return node("stack_for", (body,), (name, lo, hi), shape, span)


# -- opaque functions --------------------------------------------------------------------------------------------------


def apply(fn: OpaqueName, args: Sequence[Expr], shape: Shape, output: int = 0, *, span: Span | None = None) -> Expr:
    """The output of an opaque function."""
    return node("apply", tuple(args), (fn, output), shape, span)


def apply_jvp(
    fn: OpaqueName,
    args: Sequence[Expr],
    tangents: Sequence[Expr | None],
    shape: Shape,
    output: int = 0,
    *,
    span: Span | None = None,
) -> Expr:
    """∂f t: as many tangents as arguments, None for one that does not vary; `shape` is the output's."""
    arith.require(len(args) == len(tangents), "one tangent an argument")
    given = [arith.zeros(a.shape) if t is None else t for a, t in zip(args, tangents, strict=True)]
    arith.require(
        all(a.shape == t.shape for a, t in zip(args, given, strict=True)), "a tangent has its argument's shape"
    )
    if all(arith.is_zero(t) for t in given):
        return arith.zeros(shape, span=span)
    return node("apply_jvp", (*args, *given), (fn, output), shape, span)


def apply_vjp(
    fn: OpaqueName, args: Sequence[Expr], cotangent: Expr, i: int, output: int = 0, *, span: Span | None = None
) -> Expr:
    """(∂f/∂xᵢ)ᵀ g, of the shape of argument i."""
    if arith.is_zero(cotangent):
        return arith.zeros(args[i].shape, span=span)
    return node("apply_vjp", (*args, cotangent), (fn, output, i), args[i].shape, span)


# -- derivatives and relations -----------------------------------------------------------------------------------------


def grad(body: Expr, bound: Expr, point: Expr, *, span: Span | None = None) -> Expr:
    """∇ of a scalar by the symbol `bound`, at bound = point; the shape of `bound`."""
    _check_binder(body, bound, point)
    arith.require(body.rank == 0, "gradient of {}", body.shape)
    return node("grad", (body, bound, point), (), bound.shape, span)


def jac(body: Expr, bound: Expr, point: Expr, *, span: Span | None = None) -> Expr:
    """The Jacobian, of shape body × bound."""
    _check_binder(body, bound, point)
    return node("jac", (body, bound, point), (), body.shape + bound.shape, span)


def divergence(body: Expr, bound: Expr, point: Expr, *, span: Span | None = None) -> Expr:
    """The trace of the Jacobian of a vector by a vector of the same length, or of a scalar by a scalar."""
    _check_binder(body, bound, point)
    arith.require(
        body.shape == bound.shape and body.rank <= 1,
        "divergence of {} by {}",
        body.shape,
        bound.shape,
    )
    return node("divergence", (body, bound, point), (), (), span)


def hess(body: Expr, bound: Expr, point: Expr, *, span: Span | None = None) -> Expr:
    """The Hessian of a scalar."""
    _check_binder(body, bound, point)
    arith.require(body.rank == 0, "Hessian of {}", body.shape)
    return node("hess", (body, bound, point), (), bound.shape + bound.shape, span)


def _check_binder(body: Expr, bound: Expr, point: Expr) -> None:
    arith.require(
        bound.op == "sym" and bound.shape == point.shape, "a derivative is by a symbol, at a point of its shape"
    )


def at(u: Expr, points: Sequence[Expr], *, span: Span | None = None) -> Expr:
    """An unknown of independent variables at a point."""
    return node("at", (u, *points), (), u.shape, span)


def deriv(u: Expr, order: int, variable: str, *, span: Span | None = None) -> Expr:
    """dᵏu/dtᵏ of an unknown, in relations."""
    return node("deriv", (u,), (order, variable), u.shape, span)


def dual(label: str, shape: Shape, *, span: Span | None = None) -> Expr:
    """A constraint's multiplier, in outputs."""
    return node("dual", (), (label,), shape, span)
