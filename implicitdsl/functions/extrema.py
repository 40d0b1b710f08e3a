"""min, max and clamp: elementwise of several arguments, a reduction of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

from implicitdsl.ground.facts import Curvature, Interval, Monotone, Smoothness
from implicitdsl.ir.build import add, call, inner, mul, neg, sub, zeros
from implicitdsl.ir.dims import Shape
from implicitdsl.ir.function import Function, elementwise_shape
from implicitdsl.ir.nodes import Expr

from .common import Tangents, scalar_of


def _weighted(y: Expr, tangents: Tangents, weight: Expr) -> Expr:
    """weight a' + (1 - weight) b'."""
    a, b = tangents
    left = zeros(y.shape) if a is None else mul(weight, a)
    right = zeros(y.shape) if b is None else sub(b, mul(weight, b))
    return add(left, right)


def _maximum_jvp(y: Expr, tangents: Tangents) -> Expr:
    return _weighted(y, tangents, call("half_step", (sub(y.args[0], y.args[1]),), y.shape))


def _minimum_jvp(y: Expr, tangents: Tangents) -> Expr:
    return _weighted(y, tangents, call("half_step", (sub(y.args[1], y.args[0]),), y.shape))


def _largest_jvp(y: Expr, tangents: Tangents) -> Expr:
    (x,), (t,) = y.args, tangents
    return zeros(()) if t is None else inner(call("argmax_weights", (x,), x.shape), t)


def _smallest_jvp(y: Expr, tangents: Tangents) -> Expr:
    (x,), (t,) = y.args, tangents
    return zeros(()) if t is None else inner(call("argmax_weights", (neg(x),), x.shape), t)


def _clamp_jvp(y: Expr, tangents: Tangents) -> Expr:
    x, lo, hi = y.args
    below = call("heaviside", (sub(lo, x),), sub(lo, x).shape)
    above = call("heaviside", (sub(x, hi),), sub(x, hi).shape)
    dx, dlo, dhi = tangents
    total = zeros(y.shape)
    if dx is not None:
        total = add(total, sub(sub(dx, mul(below, dx)), mul(above, dx)))
    if dlo is not None:
        total = add(total, mul(below, dlo))
    if dhi is not None:
        total = add(total, mul(above, dhi))
    return total


def _build(two: str, one: str) -> Callable[[Sequence[Expr]], Expr]:
    def join(a: Expr, b: Expr) -> Expr:
        return call(two, (a, b), a.shape or b.shape)

    def build(args: Sequence[Expr]) -> Expr:
        if len(args) > 1:
            return reduce(join, args)
        return args[0] if not args[0].shape else call(one, (args[0],), ())

    return build


def _shape(name: str) -> Callable[[Sequence[Shape]], Shape]:
    def shape(shapes: Sequence[Shape]) -> Shape:
        return () if len(shapes) == 1 else elementwise_shape(name, shapes)

    return shape


MAXIMUM = Function(
    "maximum",
    (2, 2),
    "ops.maximum({0}, {1})",
    _maximum_jvp,
    elementwise=True,
    lipschitz=1.0,
    smoothness=Smoothness.CONTINUOUS,
    curvature=Curvature.CONVEX,
    monotone=Monotone.INCREASING,
    internal=True,
    latex=r"\max",
)
"""The larger of two, elementwise; the derivative of a tie is shared half and half, as in torch.maximum."""

MINIMUM = Function(
    "minimum",
    (2, 2),
    "ops.minimum({0}, {1})",
    _minimum_jvp,
    elementwise=True,
    lipschitz=1.0,
    smoothness=Smoothness.CONTINUOUS,
    curvature=Curvature.CONCAVE,
    monotone=Monotone.INCREASING,
    internal=True,
    latex=r"\min",
)
"""The smaller of two, elementwise; ties as `maximum`."""

LARGEST = Function(
    "max_all",
    (1, 1),
    "max_all",
    _largest_jvp,
    shape=scalar_of,
    lipschitz=1.0,
    smoothness=Smoothness.CONTINUOUS,
    curvature=Curvature.CONVEX,
    monotone=Monotone.INCREASING,
    internal=True,
    latex=r"\max",
)
"""The largest of all elements; ties share the derivative equally, as in torch.amax."""

SMALLEST = Function(
    "min_all",
    (1, 1),
    "min_all",
    _smallest_jvp,
    shape=scalar_of,
    lipschitz=1.0,
    smoothness=Smoothness.CONTINUOUS,
    curvature=Curvature.CONCAVE,
    monotone=Monotone.INCREASING,
    internal=True,
    latex=r"\min",
)
"""The smallest of all elements; ties share the derivative equally, as in torch.amin."""

ARGMAX_WEIGHTS = Function(
    "argmax_weights",
    (1, 1),
    "argmax_weights",
    lambda y, tangents: zeros(y.shape),
    shape=lambda shapes: shapes[0],
    range=Interval(0.0, 1.0),
    smoothness=Smoothness.DISCONTINUOUS,
    internal=True,
)
"""1 / k at the k largest of all elements, else 0; derivative 0."""

MAX = Function(
    "max",
    (1, None),
    shape=_shape("max"),
    builder=_build("maximum", "max_all"),
    lipschitz=1.0,
    smoothness=Smoothness.CONTINUOUS,
    curvature=Curvature.CONVEX,
    monotone=Monotone.INCREASING,
)
"""`max(a, b, …)` elementwise, `max(x)` of all elements."""

MIN = Function(
    "min",
    (1, None),
    shape=_shape("min"),
    builder=_build("minimum", "min_all"),
    lipschitz=1.0,
    smoothness=Smoothness.CONTINUOUS,
    curvature=Curvature.CONCAVE,
    monotone=Monotone.INCREASING,
)
"""`min(a, b, …)` elementwise, `min(x)` of all elements."""

CLAMP = Function(
    "clamp",
    (3, 3),
    "ops.clamp({0}, {1}, {2})",
    _clamp_jvp,
    elementwise=True,
    lipschitz=1.0,
    smoothness=Smoothness.CONTINUOUS,
    monotone=Monotone.INCREASING,
    latex=r"\operatorname{clamp}",
)
"""`clamp(x, lo, hi)` = min(max(x, lo), hi) for lo ≤ hi; derivative by x 1 on the bounds too, as in torch.clamp."""
