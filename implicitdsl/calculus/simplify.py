"""Simplification: every node through the smart constructors again, sums with like terms collected, powers joined."""

from __future__ import annotations

from implicitdsl.ir import build
from implicitdsl.ir.nodes import Expr, num, rebuild
from implicitdsl.ir.remake import remake


def simplify(expr: Expr) -> Expr:
    """An expression of the same value, rarely larger and usually smaller. Common sub-expressions are shared already."""
    return rebuild(expr, lambda e: None, _simpler, everywhere=True)


def _simpler(e: Expr, args: tuple[Expr, ...]) -> Expr:
    e = remake(e, args)
    if e.op == "add":
        return _collected(e)
    if e.op == "mul":
        return _powers(e)
    return e


def summands(e: Expr) -> list[tuple[float, Expr]]:
    """(c, x) with e = Σ c x, the x of e's shape or scalars, not sums; nested sums of e's shape are flattened."""
    terms: list[tuple[float, Expr]] = []
    stack = [(1.0, e)]
    while stack:
        c, x = stack.pop()
        d, x = _coefficient(c, x)
        if x.op == "add" and (x.shape == e.shape or not x.rank):
            stack += [(d, x.args[1]), (d, x.args[0])]
        elif (value := x.number) is not None:
            terms.append((d * value, num(1.0)))
        else:
            terms.append((d, x))
    return terms


def _coefficient(c: float, x: Expr) -> tuple[float, Expr]:
    d, x = build.coefficient(x)
    return c * d, x


def _collected(e: Expr) -> Expr:
    """Like terms of a sum as one; e itself if there are none."""
    terms = summands(e)
    total: dict[Expr, float] = {}
    for c, x in terms:
        total[x] = total.get(x, 0.0) + c
    if len(total) == len(terms) and 0.0 not in total.values():
        return e
    result = build.zeros(e.shape)
    for x, c in total.items():
        if c:
            result = build.add(result, build.mul(num(c), x))
    return result


def _powers(e: Expr) -> Expr:
    """x x = x², x xᵏ = xᵏ⁺¹ for whole k > 0, of equal shapes."""
    a, b = e.args
    if a.shape != b.shape:
        return e
    (x, j), (y, k) = _base(a), _base(b)
    if x is not y:
        return _absorbed(a, b) or _absorbed(b, a) or e
    return build.power(x, num(j + k))


def _absorbed(a: Expr, product: Expr) -> Expr | None:
    """a (x y) with a joined to the factor of which it is a power, if there is one."""
    if product.op != "mul" or product.args[0].shape != product.args[1].shape:
        return None
    x, y = product.args
    if _base(x)[0] is _base(a)[0]:
        return build.mul(_powers(build.mul(x, a)), y)
    if _base(y)[0] is _base(a)[0]:
        return build.mul(x, _powers(build.mul(y, a)))
    return None


def _base(e: Expr) -> tuple[Expr, float]:
    """(x, k) with e = xᵏ, k whole and positive."""
    if e.op == "pow" and (k := e.args[1].number) is not None and k > 0 and k.is_integer():
        return e.args[0], k
    return e, 1.0
