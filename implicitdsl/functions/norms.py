"""The norms `||x||`, `||x||_1`, `||x||_inf`, `||A||_F`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from implicitdsl.ground.facts import Curvature, Interval, Smoothness
from implicitdsl.ir.build import call, inner, mul, neg, power, zeros
from implicitdsl.ir.build import num as number
from implicitdsl.ir.dims import Shape, show_shape
from implicitdsl.ir.function import Function, TypeRuleError
from implicitdsl.ir.nodes import Expr

from .common import Tangents, unary


def _at_most_vector(name: str, mark: str) -> Callable[[Sequence[Shape]], Shape]:
    def shape(shapes: Sequence[Shape]) -> Shape:
        if len(shapes[0]) > 1:
            message = f"`{mark}` of a matrix is not defined here; shape {show_shape(shapes[0])}"
            raise TypeRuleError("IMP206", message, 0, help="the Frobenius norm is `||A||_F`")
        return ()

    return shape


def _norm_jvp(y: Expr, tangents: Tangents) -> Expr:
    (x,), (t,) = y.args, tangents
    if t is None:
        return zeros(())
    return mul(call("reciprocal_or_zero", (y,), ()), inner(x, t))


def _norm_1_jvp(y: Expr, tangents: Tangents) -> Expr:
    (x,), (t,) = y.args, tangents
    return zeros(()) if t is None else inner(call("sign", (x,), x.shape), t)


def _norm_inf_jvp(y: Expr, tangents: Tangents) -> Expr:
    (x,), (t,) = y.args, tangents
    if t is None:
        return zeros(())
    weights = call("argmax_weights", (call("abs", (x,), x.shape),), x.shape)
    return inner(mul(weights, call("sign", (x,), x.shape)), t)


def _build(name: str) -> Callable[[Sequence[Expr]], Expr]:
    """The norm of a scalar is its absolute value."""

    def build(args: Sequence[Expr]) -> Expr:
        return call("abs" if args[0].rank == 0 else name, (args[0],), ())

    return build


NORM = Function(
    "norm",
    (1, 1),
    "norm",
    _norm_jvp,
    shape=_at_most_vector("norm", "||x||"),
    builder=_build("norm"),
    range=Interval(0.0),
    lipschitz=1.0,
    smoothness=Smoothness.CONTINUOUS,
    curvature=Curvature.CONVEX,
)
"""√Σ xᵢ²; derivative x·t / ||x||, and 0 at 0, as in torch. The node of a matrix is the Frobenius norm."""

NORM_1 = Function(
    "norm_1",
    (1, 1),
    "norm_1",
    _norm_1_jvp,
    shape=_at_most_vector("norm_1", "||x||_1"),
    builder=_build("norm_1"),
    range=Interval(0.0),
    smoothness=Smoothness.CONTINUOUS,
    curvature=Curvature.CONVEX,
)
"""Σ |xᵢ|; derivative sign(x)·t. In the Euclidean norm its Lipschitz constant √n depends on n."""

NORM_INF = Function(
    "norm_inf",
    (1, 1),
    "norm_inf",
    _norm_inf_jvp,
    shape=_at_most_vector("norm_inf", "||x||_inf"),
    builder=_build("norm_inf"),
    range=Interval(0.0),
    lipschitz=1.0,
    smoothness=Smoothness.CONTINUOUS,
    curvature=Curvature.CONVEX,
)
"""max |xᵢ|; ties share the derivative."""

NORM_F = Function(
    "norm_F",
    (1, 1),
    shape=lambda shapes: (),
    builder=_build("norm"),
    range=Interval(0.0),
    lipschitz=1.0,
    smoothness=Smoothness.CONTINUOUS,
    curvature=Curvature.CONVEX,
)
"""The Frobenius norm: `norm` of all elements."""

RECIPROCAL_OR_ZERO = unary(
    "reciprocal_or_zero",
    'torch.nan_to_num(torch.reciprocal({0}), nan=float("nan"), posinf=0.0, neginf=0.0)',
    lambda x, y: neg(power(y, number(2.0))),
    smoothness=Smoothness.DISCONTINUOUS,
    internal=True,
)
"""1 / x, and 0 at 0; derivative -1 / x², and 0 at 0."""
