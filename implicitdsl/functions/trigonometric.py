"""sin, cos and tan."""

from __future__ import annotations

from implicitdsl.ground.facts import Interval
from implicitdsl.ir.build import add, call, neg, num, power

from .common import unary

SIN = unary(
    "sin",
    "torch.sin({0})",
    lambda x, y: call("cos", (x,), x.shape),
    range=Interval(-1.0, 1.0),
    lipschitz=1.0,
    latex=r"\sin",
)
"""sin x; derivative cos x."""

COS = unary(
    "cos",
    "torch.cos({0})",
    lambda x, y: neg(call("sin", (x,), x.shape)),
    range=Interval(-1.0, 1.0),
    lipschitz=1.0,
    latex=r"\cos",
)
"""cos x; derivative -sin x."""

TAN = unary("tan", "torch.tan({0})", lambda x, y: add(num(1.0), power(y, num(2.0))), latex=r"\tan")
"""tan x; derivative 1 + tan² x."""
