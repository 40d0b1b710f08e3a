"""tanh, sigmoid and erf: smooth steps."""

from __future__ import annotations

import math

from implicitdsl.ground.facts import Interval, Monotone
from implicitdsl.ir.build import call, mul, neg, num, power, sub

from .common import unary

TANH = unary(
    "tanh",
    "torch.tanh({0})",
    lambda x, y: sub(num(1.0), power(y, num(2.0))),
    range=Interval(-1.0, 1.0),
    lipschitz=1.0,
    monotone=Monotone.INCREASING,
    latex=r"\tanh",
)
"""tanh x; derivative 1 - tanh² x."""

SIGMOID = unary(
    "sigmoid",
    "torch.sigmoid({0})",
    lambda x, y: mul(y, sub(num(1.0), y)),
    range=Interval(0.0, 1.0),
    lipschitz=0.25,
    monotone=Monotone.INCREASING,
    latex=r"\sigma",
)
"""σ(x) = 1 / (1 + e⁻ˣ); derivative σ (1 - σ)."""

ERF = unary(
    "erf",
    "torch.erf({0})",
    lambda x, y: mul(num(2.0 / math.sqrt(math.pi)), call("exp", (neg(power(x, num(2.0))),), x.shape)),
    range=Interval(-1.0, 1.0),
    lipschitz=2.0 / math.sqrt(math.pi),
    monotone=Monotone.INCREASING,
)
"""erf x = 2/√π ∫₀ˣ e^(-s²) ds; derivative 2/√π e^(-x²)."""
