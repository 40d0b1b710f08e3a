"""What of a linear equation's matrix never changes: a number times a matrix of constants."""

from __future__ import annotations

from implicitdsl.ir import build
from implicitdsl.ir.nodes import Expr, Role, num, symbols


def scaled_constant(A: Expr) -> tuple[Expr, Expr] | None:
    """(s, M) with A = s M, s a number and M (N, N) made of `const` declarations, dimensions and literals alone; None
    where A is not of that form."""
    if all(s.role is Role.CONST for s in symbols(A)):
        return num(1.0), A
    if A.op == "neg":
        inner = scaled_constant(A.args[0])
        return None if inner is None else (build.neg(inner[0]), inner[1])
    if A.op == "mul":
        left, right = A.args
        by, matrix = (left, right) if left.rank == 0 else (right, left)
        inner = scaled_constant(matrix) if by.rank == 0 and matrix.shape == A.shape else None
        return None if inner is None else (build.mul(by, inner[0]), inner[1])
    if A.op == "div" and A.args[1].rank == 0:
        inner = scaled_constant(A.args[0])
        return None if inner is None else (build.div(inner[0], A.args[1]), inner[1])
    return None
