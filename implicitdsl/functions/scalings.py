"""scale_rows and scale_columns: products with a diagonal matrix that are one elementwise product (internal)."""

from __future__ import annotations

from implicitdsl.ir import build
from implicitdsl.ir.build import add, diagonal, transpose, zeros
from implicitdsl.ir.function import Function
from implicitdsl.ir.nodes import Expr

from .common import Tangents


def _rows_jvp(y: Expr, tangents: Tangents) -> Expr:
    (d, A), (dd, dA) = y.args, tangents
    left = zeros(y.shape) if dd is None else build.scale_rows(dd, A)
    return left if dA is None else add(left, build.scale_rows(d, dA))


def _columns_jvp(y: Expr, tangents: Tangents) -> Expr:
    (A, d), (dA, dd) = y.args, tangents
    left = zeros(y.shape) if dA is None else build.scale_columns(dA, d)
    return left if dd is None else add(left, build.scale_columns(A, dd))


def _rows_transpose(y: Expr, i: int, g: Expr) -> Expr:
    d, A = y.args
    return diagonal(build.matmul(g, transpose(A))) if i == 0 else build.scale_rows(d, g)


def _columns_transpose(y: Expr, i: int, g: Expr) -> Expr:
    A, d = y.args
    return build.scale_columns(g, d) if i == 0 else diagonal(build.matmul(transpose(A), g))


SCALE_ROWS = Function(
    "scale_rows",
    (2, 2),
    "scale_rows",
    _rows_jvp,
    shape=lambda shapes: shapes[1],
    transpose=_rows_transpose,
    internal=True,
)
"""scale_rows(d, A)ᵢⱼ = dᵢ Aᵢⱼ, which is diag(d) A. Shapes (n), (n, m) → (n, m)."""

SCALE_COLUMNS = Function(
    "scale_columns",
    (2, 2),
    "scale_columns",
    _columns_jvp,
    shape=lambda shapes: shapes[0],
    transpose=_columns_transpose,
    internal=True,
)
"""scale_columns(A, d)ᵢⱼ = Aᵢⱼ dⱼ, which is A diag(d). Shapes (n, m), (m) → (n, m)."""
