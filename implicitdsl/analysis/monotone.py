"""Monotone equilibria: z = σ(A z + h) with I − A ⪰ m I and σ nondecreasing and 1-Lipschitz has one solution.

Winston & Kolter, Monotone operator equilibrium networks (2020). The margin is m = 1 − λ_max((A + Aᵀ)/2).
"""

from __future__ import annotations

import math

from implicitdsl.ground.facts import Fact
from implicitdsl.ir.nodes import Expr
from implicitdsl.ir.plan import System
from implicitdsl.ir.printer import show

from .bounds import Bounds
from .context import Bound, Context
from .norms import number
from .splitting import splitting
from .terms import terms


def top_eigenvalue(e: Expr, bounds: Bounds) -> Bound:
    """An upper bound on λ_max((A + Aᵀ)/2) of a square matrix A."""
    parts = terms(e, lambda s: _exact(s, bounds))
    total, because = 0.0, dict[str, None]()
    for factor, term in parts:
        bound = _top(term, bounds) if factor > 0 else _top(term, bounds, negated=True)
        total += abs(factor) * bound.value
        because.update(dict.fromkeys(bound.because))
    return Bound(total, tuple(because))


def _exact(s: Expr, bounds: Bounds) -> float | None:
    r = bounds.range(s)
    return r.lo if s.rank == 0 and r.lo == r.hi else None


def _top(e: Expr, bounds: Bounds, negated: bool = False) -> Bound:
    """A bound for one term, or for its negative."""
    if e.op == "eye":
        return Bound(-1.0 if negated else 1.0)
    if e.op == "transpose":
        return _top(e.args[0], bounds, negated)
    if negated and _is_square(e):
        return Bound(0.0, (f"{show(e)} ⪰ 0",))
    s = bounds.context.sets.get(e)
    if s is not None and s.name == "Monotone" and not negated:
        margin = s.args[0]
        return Bound(1.0 - margin, (f"I − {show(e)} ⪰ {number(margin)} I since {show(e)} in {s.text}",))
    if s is not None and s.name == "Skew":
        return Bound(0.0, (f"{show(e)} is skew since {show(e)} in {s.text}",))
    if s is not None and s.name in ("PSD", "PD") and negated:
        return Bound(0.0, (f"{show(e)} ⪰ 0 since {show(e)} in {s.text}",))
    return bounds.operator(e)


def _is_square(e: Expr) -> bool:
    """Aᵀ A or A Aᵀ."""
    if e.op != "matmul" or e.rank != 2:
        return False
    x, y = e.args
    return (x.op == "transpose" and x.args[0] is y) or (y.op == "transpose" and y.args[0] is x)


def monotone(system: System, context: Context) -> Fact:
    """`monotone`: the margin m > 0, or None and what is missing."""
    parts = splitting(system, context.functions)
    if parts is None:
        why = "not one vector equation z = σ(A z + h) with σ nondecreasing and of slope at most 1"
        return Fact("monotone", None, (why,))
    bounds = Bounds(context)
    top = top_eigenvalue(parts.weight, bounds)
    margin = 1.0 - top.value
    if not math.isfinite(margin):
        return Fact("monotone", None, top.because)
    if margin <= 0.0:
        return Fact("monotone", None, (*top.because, f"only I − {show(parts.weight)} ⪰ {margin:.6g} I is known"))
    slope = context.functions[parts.activation].lipschitz
    return Fact(
        "monotone",
        margin,
        (
            f"{parts.activation} is nondecreasing with slope at most {number(slope or 1.0)}",
            *top.because,
            "so the equation is strongly monotone: exactly one solution",
        ),
    )
