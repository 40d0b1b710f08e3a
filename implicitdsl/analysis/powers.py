"""Curvature of products of powers and of power means: the power cone, in the words of a program.

A weighted geometric mean x^a y^b with a + b ≤ 1 is concave, x^a / y^b with a ≥ 1 + b convex, and so are power means
(Σ w xᵖ)^(1/p): concave for p ≤ 1, a norm for p ≥ 1. Boyd & Vandenberghe, Convex Optimization (2004), §3.1.5 and §3.2;
Chares, Cones and interior-point algorithms for structured convex optimization (2009), §4.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from implicitdsl.ground.facts import Curvature
from implicitdsl.ground.records import dataclass
from implicitdsl.ir.nodes import Expr

from .bounds import Bounds

C = Curvature
ROUNDING = 1e-12
"""Of sums of exponents such as 1/3 + 2/3."""


class Rules(Protocol):
    """What is asked of the rules for single functions."""

    @property
    def bounds(self) -> Bounds: ...

    def above(self, e: Expr) -> bool: ...
    def is_affine(self, e: Expr) -> bool: ...
    def is_convex(self, e: Expr) -> bool: ...
    def is_concave(self, e: Expr) -> bool: ...
    def is_constant(self, e: Expr) -> bool: ...


@dataclass(frozen=True, slots=True)
class Factor:
    """base^exponent, or |base|^exponent by `magnitude`, of any sign of the base. `edged`: it is only defined for a
    base ≥ 0.
    """

    base: Expr
    exponent: float
    magnitude: bool = False
    edged: bool = False

    def to(self, k: float) -> Factor:
        return replace(self, exponent=k * self.exponent)


def powers(e: Expr, rules: Rules) -> Curvature:
    """CONVEX or CONCAVE of a constant ≥ 0 times powers of nonnegative expressions, entry by entry; else UNKNOWN."""
    found = _apart(e, rules)
    if found is None or any(f.base is e for f in found):
        return C.UNKNOWN
    if len(found) == 1 and found[0].base.op in ("sum", "add", "matmul", "sum_for"):
        return _mean(found[0], rules)
    return _product(found, rules)


def _factors(e: Expr, rules: Rules) -> list[Factor] | None:
    """The product taken apart, constants ≥ 0 left out; None where a constant or a power has no certain sign."""
    if rules.is_constant(e):
        return [] if rules.above(e) else None
    return _apart(e, rules)


def _apart(e: Expr, rules: Rules) -> list[Factor] | None:
    match e.op:
        case "mul" | "div":
            left, right = (_factors(a, rules) for a in e.args)
            if left is None or right is None:
                return None
            sign = 1.0 if e.op == "mul" else -1.0
            return _collected([*left, *(f.to(sign) for f in right)])
        case "pow" if e.args[1].number is not None:
            return _raised(e.args[0], e.args[1].number, rules)
        case "call" if e.name == "sqrt":
            return _raised(e.args[0], 0.5, rules)
        case "call" if e.name == "abs":
            return [Factor(e.args[0], 1.0, magnitude=True)]
        case _:
            return [Factor(e, 1.0)]


def _raised(base: Expr, k: float, rules: Rules) -> list[Factor] | None:
    """baseᵏ; the base must be ≥ 0 unless k is even, and is where it is a broken power of something affine."""
    inner = _factors(base, rules)
    if inner is not None and all(f.magnitude or f.edged or rules.above(f.base) for f in inner):
        return [f.to(k) for f in inner]
    if k % 2.0 == 0.0:
        return [Factor(base, k, magnitude=True)]
    return None if k.is_integer() else [Factor(base, k, edged=True)]


def _collected(found: list[Factor]) -> list[Factor]:
    """With the exponents of equal bases added."""
    total: dict[tuple[Expr, bool], Factor] = {}
    for f in found:
        same = total.get((f.base, f.magnitude), replace(f, exponent=0.0))
        total[f.base, f.magnitude] = replace(f, exponent=same.exponent + f.exponent, edged=same.edged or f.edged)
    return [f for f in total.values() if f.exponent != 0.0]


def _product(found: list[Factor], rules: Rules) -> Curvature:
    """Powers of nonnegative concave expressions, of which one may be convex with the largest exponent."""
    up = [f for f in found if f.exponent > 0]
    down = [f for f in found if f.exponent < 0]
    if not found or not all(_concave(f, rules) for f in down):
        return C.UNKNOWN
    if not down:
        few = sum(f.exponent for f in up) <= 1 + ROUNDING
        return C.CONCAVE if few and all(_concave(f, rules) for f in up) else C.UNKNOWN
    if not up:
        return C.CONVEX
    (top, *others), least = up, 1 - sum(f.exponent for f in down)
    spread = _term(top, rules)  # Σ t / y is a sum of quotients
    if others or spread is None or spread.exponent < least - ROUNDING:
        return C.UNKNOWN
    return C.CONVEX if _convex(spread, rules) else C.UNKNOWN


def _term(f: Factor, rules: Rules) -> Factor | None:
    """The factor that matters of each term of a sum, if it is one; f otherwise."""
    base = f.base
    while f.exponent == 1.0 and not f.magnitude and base.op == "sum":
        base = base.args[0]
    if f.exponent == 1.0 and base.op == "matmul" and base.args[0] is base.args[1] and base.rank == 0:
        return Factor(base.args[0], 2.0, magnitude=True)
    if base is f.base:
        return f
    inner = _factors(base, rules)
    return inner[0] if inner is not None and len(inner) == 1 else None


def _mean(f: Factor, rules: Rules) -> Curvature:
    """(Σ w uᵖ)ᵏ with weights w ≥ 0: concave for p ≤ 1 and 0 < k p ≤ 1, convex for p ≥ 1 and k p ≥ 1."""
    found = None if f.magnitude else _summed(f.base, rules)
    if not found:
        return _product([f], rules)
    (p, *others), k = {g.exponent for g in found}, f.exponent
    if others:
        return _product([f], rules)
    if p < 1 and ROUNDING < k * p <= 1 + ROUNDING:
        return C.CONCAVE if all(_concave(g, rules) for g in found) else _product([f], rules)
    if p >= 1 and k > 0 and k * p >= 1 - ROUNDING:
        return C.CONVEX if all(_convex(g, rules) for g in found) else C.UNKNOWN
    return _product([f], rules)


def _summed(e: Expr, rules: Rules) -> list[Factor] | None:
    """The power in each term of a sum of such; None where a term is something else."""
    match e.op:
        case "sum" | "sum_for":
            return _summed(e.args[0], rules)
        case "add":
            parts = [_summed(a, rules) for a in e.args]
            return None if None in parts else [f for part in parts if part is not None for f in part]
        case "matmul" if e.args[0] is e.args[1] and e.rank == 0:
            return [Factor(e.args[0], 2.0, magnitude=True)]
        case "matmul":
            for weight, x in (e.args, e.args[::-1]):
                if rules.is_constant(weight) and rules.above(weight):
                    return _summed(x, rules)
            return None
        case _:
            found = _factors(e, rules)
            return found if found is not None and len(found) == 1 else None


def _concave(f: Factor, rules: Rules) -> bool:
    return not f.magnitude and rules.is_concave(f.base) and (f.edged or rules.above(f.base))


def _convex(f: Factor, rules: Rules) -> bool:
    if f.magnitude or (f.edged and not rules.above(f.base)):
        return rules.is_affine(f.base)
    return rules.is_convex(f.base) and rules.above(f.base)
