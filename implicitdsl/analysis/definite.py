"""Which matrices are provably positive semidefinite: by their sets and by how they are built."""

from __future__ import annotations

from implicitdsl.ir.model import SetInfo
from implicitdsl.ir.nodes import Expr

from .bounds import Bounds
from .ranges import NONNEGATIVE

DEFINITE_SETS = frozenset(("PSD", "PD"))
SYMMETRIC_SETS = frozenset(("PSD", "PD", "Sym"))


def nonnegative(e: Expr, b: Bounds) -> bool:
    """Whether every entry is certainly ≥ 0."""
    return b.range(e).lo >= NONNEGATIVE.lo


def nonpositive(e: Expr, b: Bounds) -> bool:
    return b.range(e).hi <= 0.0


def semidefinite(e: Expr, b: Bounds) -> bool:
    """Whether a matrix is certainly positive semidefinite (its symmetric part, which is what a quadratic form sees)."""
    match e.op:
        case "sym":
            return _set(e, b) in DEFINITE_SETS
        case "eye" | "zeros":
            return True
        case "diag":
            return nonnegative(e.args[0], b)
        case "outer":
            return e.args[0] is e.args[1]
        case "transpose" | "reshape":
            return e.op == "transpose" and semidefinite(e.args[0], b)
        case "add":
            return all(a.rank == 2 and semidefinite(a, b) for a in e.args)
        case "neg":
            return negative(e.args[0], b)
        case "mul":
            return _scaled(e, b)
        case "div":
            divisor = e.args[1]
            return divisor.rank == 0 and nonnegative(divisor, b) and semidefinite(e.args[0], b)
        case "matmul":
            return _product(e, b)
        case "sum_for":
            return semidefinite(e.args[0], b)
        case "call":
            return e.name == "inv" and semidefinite(e.args[0], b)
        case _:
            return False


def negative(e: Expr, b: Bounds) -> bool:
    """Whether −e is certainly positive semidefinite."""
    match e.op:
        case "neg":
            return semidefinite(e.args[0], b)
        case "add":
            return all(a.rank == 2 and negative(a, b) for a in e.args)
        case "mul":
            for s, x in ((e.args[0], e.args[1]), (e.args[1], e.args[0])):
                if s.rank == 0 and x.rank == 2:
                    return (nonpositive(s, b) and semidefinite(x, b)) or (nonnegative(s, b) and negative(x, b))
            return False
        case "diag":
            return nonpositive(e.args[0], b)
        case "zeros":
            return True
        case _:
            return False


def _set(e: Expr, b: Bounds) -> str | None:
    found: SetInfo | None = b.context.sets.get(e)
    return None if found is None else found.name


def _scaled(e: Expr, b: Bounds) -> bool:
    for s, x in ((e.args[0], e.args[1]), (e.args[1], e.args[0])):
        if s.rank == 0 and x.rank == 2:
            return (nonnegative(s, b) and semidefinite(x, b)) or (nonpositive(s, b) and negative(x, b))
    return False


def _product(e: Expr, b: Bounds) -> bool:
    """B Bᵀ, Bᵀ P B with P ⪰ 0, and S S of a symmetric S."""
    left, right = e.args
    if left.rank != 2 or right.rank != 2:
        return False
    if _transposed(left, right) or (left is right and _set(left, b) in SYMMETRIC_SETS):
        return True
    if left.op == "matmul" and _transposed(left.args[0], right) and left.args[1].rank == 2:
        return semidefinite(left.args[1], b)
    if right.op == "matmul" and _transposed(left, right.args[1]) and right.args[0].rank == 2:
        return semidefinite(right.args[0], b)
    if right.op == "call" and right.name == "scale_rows" and _transposed(left, right.args[1]):
        return nonnegative(right.args[0], b)
    if left.op == "call" and left.name == "scale_columns" and _transposed(left.args[0], right):
        return nonnegative(left.args[1], b)
    return False


def _transposed(a: Expr, b: Expr) -> bool:
    return (a.op == "transpose" and a.args[0] is b) or (b.op == "transpose" and b.args[0] is a)
