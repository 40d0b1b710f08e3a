"""Equal forms that are easier to differentiate and to read: ‖x‖² as x·x (smooth at 0), Qᵀ as Q where Q is symmetric."""

from __future__ import annotations

from collections.abc import Mapping

from implicitdsl.ir import build
from implicitdsl.ir.model import SetInfo
from implicitdsl.ir.nodes import Expr, rebuild
from implicitdsl.ir.remake import remake


def squared_norms(e: Expr) -> Expr:
    """The expression with squared 2-norms and squared absolute values written as products; the value is the same."""

    def make(x: Expr, args: tuple[Expr, ...]) -> Expr:
        made = remake(x, args)
        exponent = made.args[1].number if made.op == "pow" else None
        if exponent is None or exponent <= 0.0 or exponent % 2.0 != 0.0 or made.args[0].op != "call":
            return made
        base, inner = made.args[0], made.args[0].args[0]
        if base.name == "abs":
            return build.power(inner, build.num(exponent), span=x.span)
        if base.name == "norm":
            return build.power(build.inner(inner, inner), build.num(exponent / 2.0), span=x.span)
        return made

    return rebuild(e, lambda x: None, make, everywhere=True)


SYMMETRIC = frozenset(("Sym", "PSD", "PD"))


def symmetric(e: Expr, sets: Mapping[Expr, SetInfo]) -> Expr:
    """The expression with Qᵀ written Q for symmetric symbols, and −S for skew ones."""

    def make(x: Expr, args: tuple[Expr, ...]) -> Expr:
        known = sets.get(args[0]) if x.op == "transpose" else None
        if known is not None and known.name in SYMMETRIC:
            return args[0]
        if known is not None and known.name == "Skew":
            return build.neg(args[0])
        return remake(x, args)

    return rebuild(e, lambda x: None, make, everywhere=True)
