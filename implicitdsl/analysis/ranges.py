"""Ranges: an interval that holds every entry of an expression, from the sets of its symbols and the functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from implicitdsl.ground.facts import Interval, Monotone
from implicitdsl.ir import build
from implicitdsl.ir.model import SetInfo
from implicitdsl.ir.nodes import Expr

from . import intervals as iv

if TYPE_CHECKING:
    from .bounds import Bounds

UNIT = Interval(-1.0, 1.0)
NONNEGATIVE = Interval(0.0, math.inf)


def of_set(s: SetInfo) -> Interval:
    """The range of an element's entries."""
    match s.name:
        case "positive" | "nonneg":
            return NONNEGATIVE
        case "open" | "closed":
            return Interval(s.args[0], s.args[1])
        case "simplex":
            return Interval(0.0, 1.0)
        case "ball" | "SpectralBall":
            return Interval(-s.args[0], s.args[0])
        case "sphere" | "Orth" | "Stiefel":
            return UNIT
        case _:
            return iv.EVERYTHING


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x > -700.0 else 0.0


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _log(x: float) -> float:
    return math.log(x) if x > 0.0 else -math.inf


def _exp(x: float) -> float:
    return math.exp(x) if x < 709.0 else math.inf


# Values of increasing functions at the ends of an interval; of other functions only their own range is used.
_VALUES: dict[str, Callable[[float], float]] = {
    "exp": _exp,
    "log": _log,
    "sqrt": lambda x: math.sqrt(x) if 0.0 < x < math.inf else (math.inf if x > 0.0 else 0.0),
    "tanh": math.tanh,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "relu": lambda x: max(x, 0.0),
    "erf": math.erf,
}

_ZEROS = {"log": 1.0, "tanh": 0.0, "erf": 0.0}
"""Where increasing functions vanish: on either side their sign is certain, whatever rounding says of their values."""


def of(e: Expr, b: Bounds) -> Interval:
    """The range of e's entries; `Interval()` where nothing is known."""
    found, assumed = _of(e, b), b.context.ranges.get(e)
    return found if assumed is None else found.meet(assumed)


def _of(e: Expr, b: Bounds) -> Interval:
    match e.op:
        case "sym":
            declared = b.context.sets.get(e)
            return iv.EVERYTHING if declared is None else of_set(declared)
        case "num":
            return iv.point(e.number or 0.0)
        case "zeros":
            return iv.point(0.0)
        case "ones":
            return iv.point(1.0)
        case "eye":
            return Interval(0.0, 1.0)
        case "dim":
            return NONNEGATIVE
        case "neg":
            return iv.neg(b.range(e.args[0]))
        case "add":
            return iv.add(b.range(e.args[0]), b.range(e.args[1]))
        case "mul":
            return _product(e, b)
        case "div":
            return _quotient(e, b)
        case "pow":
            return _power(e, b)
        case "matmul" | "outer":
            return _linear_product(e, b)
        case "transpose" | "index" | "reshape" | "diagonal":
            return b.range(e.args[0])
        case "embed" | "diag":
            return iv.hull(b.range(e.args[0]), iv.point(0.0))
        case "sum":
            inner = e.args[0]
            total = iv.scale(b.range(inner), b.context.size(inner.shape))
            simplex = b.context.sets.get(inner)
            return iv.point(1.0) if simplex is not None and simplex.name == "simplex" else total
        case "concat" | "stack":
            first, *rest = e.args
            result = b.range(first)
            for a in rest:
                result = iv.hull(result, b.range(a))
            return result
        case "stack_for":
            return b.range(e.args[0])
        case "sum_for":
            return iv.scale(b.range(e.args[0]), _count(e, b))
        case "call":
            return _call(e, b)
        case _:
            return iv.EVERYTHING


def _count(e: Expr, b: Bounds) -> int | None:
    """How many terms a `sum_for` or `stack_for` has."""
    _, lo, hi = build.binder_of(e)
    return b.context.size((hi - lo,))


def _product(e: Expr, b: Bounds) -> Interval:
    x, y = e.args
    if x is y:
        return iv.power(b.range(x), 2.0)
    return iv.mul(b.range(x), b.range(y))


def _quotient(e: Expr, b: Bounds) -> Interval:
    result = iv.div(b.range(e.args[0]), b.range(e.args[1]))
    ratio = b.norm(e)  # of `x / norm(x)` the range knows nothing
    return result.meet(Interval(-ratio.value, ratio.value))


def _power(e: Expr, b: Bounds) -> Interval:
    base, exponent = e.args
    if exponent.number is not None:
        return iv.power(b.range(base), exponent.number)
    return NONNEGATIVE if b.range(base).lo >= 0.0 else iv.EVERYTHING


def _linear_product(e: Expr, b: Bounds) -> Interval:
    """|(A z)_i| ≤ ‖A‖₂ ‖z‖₂, and every entry is a sum of k products."""
    x, y = e.args
    entry = iv.mul(b.range(x), b.range(y))
    if e.op == "outer":
        return entry
    result = iv.scale(entry, b.context.size((x.shape[-1],)))
    size = iv.times(b.operator(x).value, b.operator(y).value)
    result = result.meet(Interval(-size, size))
    if x is y and x.rank == 1:
        result = result.meet(NONNEGATIVE)
    return result


def _call(e: Expr, b: Bounds) -> Interval:
    function = b.context.functions.get(e.name)
    if function is None:
        return iv.EVERYTHING
    inner = [b.range(a) for a in e.args]
    match e.name:
        case "abs":
            return iv.absolute(inner[0])
        case "clamp":
            lo, hi = inner[1], inner[2]
            return Interval(min(max(inner[0].lo, lo.lo), hi.lo), min(max(inner[0].hi, lo.hi), hi.hi))
        case "maximum":
            return Interval(max(i.lo for i in inner), max(i.hi for i in inner))
        case "minimum":
            return Interval(min(i.lo for i in inner), min(i.hi for i in inner))
        case "max_all" | "min_all":
            return inner[0]
        case "scale_rows" | "scale_columns":
            return iv.mul(inner[0], inner[1])
        case "norm":
            return Interval(0.0, b.norm(e).value)
        case _:
            pass
    result = function.range
    value = _VALUES.get(e.name)
    if value is not None and function.monotone is Monotone.INCREASING and len(inner) == 1:
        lo = -math.inf if inner[0].lo == -math.inf else value(inner[0].lo)
        hi = math.inf if inner[0].hi == math.inf else value(inner[0].hi)
        result = result.meet(iv.widen(Interval(lo, hi)))
    if e.name in _ZEROS and inner[0].lo >= _ZEROS[e.name]:
        result = result.meet(NONNEGATIVE)
    if e.name in _ZEROS and inner[0].hi <= _ZEROS[e.name]:
        result = result.meet(iv.neg(NONNEGATIVE))
    return result
