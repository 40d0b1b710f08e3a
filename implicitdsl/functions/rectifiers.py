"""relu and softplus, and the steps that are relu's derivative."""

from __future__ import annotations

from implicitdsl.ground.facts import Curvature, Interval, Monotone, Smoothness
from implicitdsl.ir.build import call, zeros

from .common import unary

RELU = unary(
    "relu",
    "torch.relu({0})",
    lambda x, y: call("heaviside", (x,), x.shape),
    range=Interval(0.0),
    lipschitz=1.0,
    smoothness=Smoothness.CONTINUOUS,
    curvature=Curvature.CONVEX,
    monotone=Monotone.INCREASING,
)
"""max(x, 0); derivative 1 for x > 0, else 0 (0 at 0, as in torch)."""

SOFTPLUS = unary(
    "softplus",
    "torch.nn.functional.softplus({0})",
    lambda x, y: call("sigmoid", (x,), x.shape),
    range=Interval(0.0),
    lipschitz=1.0,
    curvature=Curvature.CONVEX,
    monotone=Monotone.INCREASING,
)
"""log(1 + eˣ); derivative σ(x)."""

HEAVISIDE = unary(
    "heaviside",
    "torch.sign(torch.relu({0}))",
    lambda x, y: zeros(x.shape),
    range=Interval(0.0, 1.0),
    smoothness=Smoothness.DISCONTINUOUS,
    monotone=Monotone.INCREASING,
    internal=True,
    latex=r"\theta",
)
"""1 for x > 0, else 0."""

HALF_STEP = unary(
    "half_step",
    "torch.sign({0}).add(1).mul(0.5)",
    lambda x, y: zeros(x.shape),
    range=Interval(0.0, 1.0),
    smoothness=Smoothness.DISCONTINUOUS,
    monotone=Monotone.INCREASING,
    internal=True,
)
"""1 for x > 0, 1/2 at 0, 0 for x < 0: how the derivative of `max` divides ties."""
