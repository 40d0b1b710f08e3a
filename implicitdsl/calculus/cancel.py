"""Factors that stand above and below a fraction bar, as derivatives of x log(x) have them."""

from __future__ import annotations

from implicitdsl.ir import build
from implicitdsl.ir.nodes import Expr, rebuild
from implicitdsl.ir.remake import remake

from .simplify import simplify


def cancel(expr: Expr) -> Expr:
    """`simplify`, with x (t / x) = t. The same value where expr has one: at x = 0 the result may have one, too, so this
    is for derivatives of what is defined for x ≠ 0 only.
    """
    return simplify(rebuild(simplify(expr), lambda e: None, _shorter, everywhere=True))


def _shorter(e: Expr, args: tuple[Expr, ...]) -> Expr:
    e = remake(e, args)
    if e.op == "mul":
        a, b = e.args
        return _product(a, b) or _product(b, a) or e
    if e.op == "div":
        return _without(e.args[1], e.args[0]) or e
    return e


def _product(x: Expr, other: Expr) -> Expr | None:
    """x · other, where other is a fraction with x below its bar."""
    if other.op == "neg":
        found = _product(x, other.args[0])
        return None if found is None else build.neg(found)
    if other.op == "mul":
        for one, rest in (other.args, other.args[::-1]):
            if (found := _product(x, one)) is not None:
                return build.mul(rest, found)
    if other.op != "div" or other.shape != x.shape:
        return None
    above, below = other.args
    if below is x:
        return _full(above, x)
    found = _product(x, above)
    return None if found is None else build.div(found, below)


def _without(x: Expr, product: Expr) -> Expr | None:
    """product / x, where x is one of its factors."""
    if product is x:
        return build.ones(x.shape)
    if product.op == "neg":
        found = _without(x, product.args[0])
        return None if found is None else build.neg(found)
    if product.op == "mul" and product.shape == x.shape:
        for one, rest in (product.args, product.args[::-1]):
            if one.shape == x.shape and (found := _without(x, one)) is not None:
                return build.mul(rest, found)
    return None


def _full(e: Expr, x: Expr) -> Expr:
    """A number as a tensor of x's shape."""
    return e if e.shape == x.shape else build.mul(e, build.ones(x.shape))
