"""softmax and logsumexp."""

from __future__ import annotations

from collections.abc import Sequence

from implicitdsl.ground.facts import Curvature, Interval, Monotone
from implicitdsl.ir.build import call, inner, matmul, mul, ones, scale_rows, sub, zeros
from implicitdsl.ir.dims import Shape, show_shape
from implicitdsl.ir.function import Function, TypeRuleError
from implicitdsl.ir.nodes import Expr

from .common import Tangents, vector


def _softmax_shape(shapes: Sequence[Shape]) -> Shape:
    if len(shapes[0]) not in (1, 2):
        raise TypeRuleError(
            "IMP206", f"`softmax` needs a vector or a matrix (row by row), got {show_shape(shapes[0])}", 0
        )
    return shapes[0]


def _softmax_jvp(y: Expr, tangents: Tangents) -> Expr:
    (t,) = tangents
    if t is None:
        return zeros(y.shape)
    if y.rank == 1:
        return sub(mul(y, t), mul(matmul(y, t), y))
    product = mul(y, t)
    return sub(product, scale_rows(matmul(product, ones(y.shape[1:])), y))


def _logsumexp_jvp(y: Expr, tangents: Tangents) -> Expr:
    (x,), (t,) = y.args, tangents
    return zeros(()) if t is None else inner(call("softmax", (x,), x.shape), t)


def _logsumexp_shape(shapes: Sequence[Shape]) -> Shape:
    vector("logsumexp", shapes)
    return ()


SOFTMAX = Function(
    "softmax",
    (1, 1),
    "torch.softmax({0}, -1)",
    _softmax_jvp,
    shape=_softmax_shape,
    range=Interval(0.0, 1.0),
    lipschitz=0.5,
)
"""exp(xᵢ) / Σⱼ exp(xⱼ) of a vector, or of each row of a matrix; derivative y ∘ (t - y·t).

Its Jacobian diag(y) - y yᵀ is largest for y = (1/2, 1/2): the Lipschitz constant is 1/2."""

LOGSUMEXP = Function(
    "logsumexp",
    (1, 1),
    "logsumexp",
    _logsumexp_jvp,
    shape=_logsumexp_shape,
    lipschitz=1.0,
    curvature=Curvature.CONVEX,
    monotone=Monotone.INCREASING,
)
"""log Σ exp(xᵢ) of a vector, without overflow; derivative softmax(x)."""
