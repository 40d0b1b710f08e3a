"""tr, det, logdet and inv of square matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from implicitdsl.ground.facts import Curvature
from implicitdsl.ir.build import call, inner, matmul, mul, neg, trace, transpose, zeros
from implicitdsl.ir.dims import Shape
from implicitdsl.ir.function import Function
from implicitdsl.ir.nodes import Expr

from .common import Tangents, square


def _number(name: str) -> Callable[[Sequence[Shape]], Shape]:
    def shape(shapes: Sequence[Shape]) -> Shape:
        square(name, shapes)
        return ()

    return shape


def _logdet_tangent(A: Expr, t: Expr) -> Expr:
    """tr(A⁻¹ t)."""
    return inner(transpose(call("inv", (A,), A.shape)), t)


def _det_jvp(y: Expr, tangents: Tangents) -> Expr:
    (A,), (t,) = y.args, tangents
    return zeros(()) if t is None else mul(y, _logdet_tangent(A, t))


def _logdet_jvp(y: Expr, tangents: Tangents) -> Expr:
    (A,), (t,) = y.args, tangents
    return zeros(()) if t is None else _logdet_tangent(A, t)


def _inv_jvp(y: Expr, tangents: Tangents) -> Expr:
    (t,) = tangents
    return zeros(y.shape) if t is None else neg(matmul(matmul(y, t), y))


TR = Function("tr", (1, 1), shape=_number("tr"), builder=lambda args: trace(args[0]), curvature=Curvature.AFFINE)
"""Σ Aᵢᵢ."""

DET = Function("det", (1, 1), "det", _det_jvp, shape=_number("det"), latex=r"\det")
"""The determinant, O(n³); derivative det(A) tr(A⁻¹ t), for invertible A."""

LOGDET = Function(
    "logdet", (1, 1), "logdet", _logdet_jvp, shape=_number("logdet"), curvature=Curvature.CONCAVE, latex=r"\log\det"
)
"""log det A of det A > 0, O(n³); derivative tr(A⁻¹ t). Concave on positive definite A."""

INV = Function("inv", (1, 1), "inv", _inv_jvp, shape=lambda shapes: square("inv", shapes))
"""A⁻¹, O(n³); derivative -A⁻¹ t A⁻¹. `A^-1` is this function."""
