"""prod, whose derivatives are right where factors are zero."""

from __future__ import annotations

from collections.abc import Sequence

from implicitdsl.ir.build import add, call, div, inner, matmul, mul, ones, outer, reshape, sub, total, zeros
from implicitdsl.ir.dims import size_of
from implicitdsl.ir.function import Function
from implicitdsl.ir.nodes import Expr

from .common import Tangents, scalar_of


def _build(args: Sequence[Expr]) -> Expr:
    (x,) = args
    return x if x.rank == 0 else call("prod", (reshape(x, (size_of(x.shape),)),), ())


def _prod_jvp(y: Expr, tangents: Tangents) -> Expr:
    (x,), (t,) = y.args, tangents
    return zeros(()) if t is None else inner(call("prod_others", (x,), x.shape), t)


def _others_jvp(y: Expr, tangents: Tangents) -> Expr:
    (x,), (t,) = y.args, tangents
    return zeros(y.shape) if t is None else matmul(call("prod_pairs", (x,), x.shape + x.shape), t)


def _pairs_jvp(y: Expr, tangents: Tangents) -> Expr:
    (x,), (t,) = y.args, tangents
    if t is None:
        return zeros(y.shape)
    ratio = div(t, x)
    one = ones(x.shape)
    rest = sub(total(ratio), add(outer(ratio, one), outer(one, ratio)))
    return mul(y, rest)


PROD = Function("prod", (1, 1), "prod", _prod_jvp, shape=scalar_of, builder=_build, latex=r"\prod")
"""Π xᵢ of all elements; derivative Σ tᵢ Π_{j≠i} xⱼ. Right at zeros to the second derivative."""

PROD_OTHERS = Function("prod_others", (1, 1), "prod_others", _others_jvp, shape=lambda s: s[0], internal=True)
"""Π_{j≠i} xⱼ for every i of a vector."""

PROD_PAIRS = Function("prod_pairs", (1, 1), "prod_pairs", _pairs_jvp, shape=lambda s: s[0] + s[0], internal=True)
"""Π_{k≠i,j} xₖ for every pair i ≠ j of a vector, 0 on the diagonal. Its own derivative divides by x: not at zeros."""
