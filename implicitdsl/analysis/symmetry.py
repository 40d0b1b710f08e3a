"""Which matrices of a program are symmetric, so that their upper triangles say everything."""

from __future__ import annotations

from collections.abc import Set

from implicitdsl.ir.nodes import Expr
from implicitdsl.ir.plan import EQUAL, Constraint, Program

SYMMETRIC = frozenset(("PSD", "PD", "Sym"))
SUMS = frozenset(("add", "neg", "transpose", "sum_for"))


def is_symmetry(c: Constraint) -> bool:
    """Whether it says X = Xᵀ of an unknown, which holds where only its upper triangle is solved for."""
    if c.kind != EQUAL or c.set is None or c.set.name not in SYMMETRIC:
        return False
    return bool(c.body.args) and c.body.args[0].op == "sym"  # what is symmetric anyway has the body 0


def symmetric_unknowns(form: Program) -> frozenset[Expr]:
    """The unknowns of which a constraint says so."""
    return frozenset(c.body.args[0] for c in form.constraints if is_symmetry(c))


def is_symmetric(e: Expr, known: Set[Expr]) -> bool:
    """Whether e = eᵀ by how it is built from the symbols that are."""
    if e.rank != 2 or e.shape[0] != e.shape[1]:
        return False
    if e in known or e.op in ("eye", "zeros", "ones", "fill"):
        return True
    match e.op:
        case "diag":
            return True
        case "outer":
            return _unscaled(e.args[0]) is _unscaled(e.args[1])
        case "mul" | "div" | "pow":
            return all(a.rank == 0 or is_symmetric(a, known) for a in e.args)
        case "matmul":
            left, right = e.args
            if left.op == "call" and left.name == "scale_columns":
                left = left.args[0]
            elif right.op == "call" and right.name == "scale_rows":
                right = right.args[1]
            elif left.op == "matmul" and is_symmetric(left.args[1], known):
                left = left.args[0]
            elif right.op == "matmul" and is_symmetric(right.args[0], known):
                right = right.args[1]
            return _transposed(left, right) or (e.args[0] is e.args[1] and is_symmetric(e.args[0], known))
        case "call":
            elementwise = all(a.rank == 0 or a.shape == e.shape for a in e.args) and e.name in ENTRYWISE
            return (elementwise or e.name == "inv") and all(a.rank == 0 or is_symmetric(a, known) for a in e.args)
        case _:
            return e.op in SUMS and all(a.rank == 0 or is_symmetric(a, known) for a in e.args)


ENTRYWISE = frozenset(("abs", "exp", "log", "sqrt", "relu", "softplus", "maximum", "minimum"))


def _unscaled(v: Expr) -> Expr:
    """v of a vector s v with a number s."""
    while v.op in ("mul", "neg") and any(a.rank == 1 for a in v.args) and (v.op == "neg" or v.args[0].rank == 0):
        v = v.args[-1]
    return v


def _transposed(a: Expr, b: Expr) -> bool:
    return (a.op == "transpose" and a.args[0] is b) or (b.op == "transpose" and b.args[0] is a)
