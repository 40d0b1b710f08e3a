"""abs and sign."""

from __future__ import annotations

from implicitdsl.ground.facts import Curvature, Interval, Monotone, Smoothness
from implicitdsl.ir.build import call, zeros

from .common import unary

ABS = unary(
    "abs",
    "torch.abs({0})",
    lambda x, y: call("sign", (x,), x.shape),
    range=Interval(0.0),
    lipschitz=1.0,
    smoothness=Smoothness.CONTINUOUS,
    curvature=Curvature.CONVEX,
)
"""|x|; derivative sign x (0 at 0, as in torch)."""

SIGN = unary(
    "sign",
    "torch.sign({0})",
    lambda x, y: zeros(x.shape),
    range=Interval(-1.0, 1.0),
    smoothness=Smoothness.DISCONTINUOUS,
    monotone=Monotone.INCREASING,
)
"""-1, 0 or 1; derivative 0."""
