"""gelu and silu: x times a smooth step."""

from __future__ import annotations

import math

from implicitdsl.ground.facts import Interval
from implicitdsl.ir.build import add, call, mul, neg, num, power, sub
from implicitdsl.ir.nodes import Expr

from .common import unary


def _gelu_derivative(x: Expr, y: Expr) -> Expr:
    half = mul(num(0.5), add(num(1.0), call("erf", (mul(num(math.sqrt(0.5)), x),), x.shape)))
    density = mul(num(1.0 / math.sqrt(2.0 * math.pi)), call("exp", (neg(mul(num(0.5), power(x, num(2.0)))),), x.shape))
    return add(half, mul(x, density))


def _silu_derivative(x: Expr, y: Expr) -> Expr:
    s = call("sigmoid", (x,), x.shape)
    return mul(s, add(num(1.0), mul(x, sub(num(1.0), s))))


GELU = unary(
    "gelu",
    "torch.nn.functional.gelu({0})",
    _gelu_derivative,
    range=Interval(-0.16998),
    lipschitz=1.1290,
)
"""x Φ(x), Φ the normal distribution function (the exact form); derivative Φ(x) + x φ(x), largest at √2: 1.12890…"""

SILU = unary(
    "silu",
    "torch.nn.functional.silu({0})",
    _silu_derivative,
    range=Interval(-0.27847),
    lipschitz=1.0999,
)
"""x σ(x); derivative σ (1 + x (1 - σ)), largest at 2.3994: 1.09984…"""
