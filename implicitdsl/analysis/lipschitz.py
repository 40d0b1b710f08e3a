"""Lipschitz constants in the 2-norm, one for each unknown, by induction: ‖e(u) − e(v)‖₂ ≤ Σⱼ Lⱼ ‖uⱼ − vⱼ‖₂."""

from __future__ import annotations

import math
from collections.abc import Callable

from implicitdsl.ground.facts import Fact
from implicitdsl.ir import build
from implicitdsl.ir.nodes import Expr, depends, walk
from implicitdsl.ir.plan import System
from implicitdsl.ir.printer import show

from . import intervals as iv
from .bounds import Bounds
from .context import Bound, Context
from .norms import number, scaling
from .terms import literal, terms

Gains = dict[Expr, float]
"""Unknown → Lipschitz constant; an unknown that does not occur is missing."""


DEEPEST = 60
"""Nesting up to which the rules call each other."""


class Lipschitz:
    """The constants of one context's expressions. `lines` are the steps used, `obstacles` what stands in the way."""

    def __init__(self, context: Context, unknowns: tuple[Expr, ...]) -> None:
        self.bounds = Bounds(context)
        self.order = unknowns
        self.unknowns = frozenset(unknowns)
        self.lines: dict[str, None] = {}
        self.obstacles: dict[str, None] = {}
        self._memo: dict[Expr, Gains] = {}
        self._varies: dict[Expr, bool] = {}

    def of(self, e: Expr) -> Gains:
        """The constants of e, inf where none is proved."""
        if e not in self._memo and not self.varies(e):
            self._memo[e] = {}
        if e not in self._memo:
            for part in _deep(e):
                if part not in self._memo:
                    self._memo[part] = _rule(part, self) if self.varies(part) else {}
            self._memo[e] = _rule(e, self)
        return self._memo[e]

    def varies(self, e: Expr) -> bool:
        """Whether e contains an unknown."""
        if e not in self._varies:
            for part in walk(e):
                self._varies[part] = part in self.unknowns or any(self._varies[a] for a in part.args)
        return self._varies[e]

    def scalar(self, e: Expr) -> float | None:
        """The value of a scalar that is known exactly."""
        r = self.bounds.range(e)
        return r.lo if e.rank == 0 and r.lo == r.hi and not self.varies(e) else None

    def use(self, bound: Bound) -> float:
        """A bound's value; its proof becomes part of this one."""
        (self.lines if bound.proved else self.obstacles).update(dict.fromkeys(bound.because))
        return bound.value

    def block(self, e: Expr, why: str) -> Gains:
        """Nothing is proved about e."""
        self.obstacles[why] = None
        return {u: math.inf for u in self.unknowns if depends(e, {u})}


def _deep(e: Expr) -> list[Expr]:
    """The parts of an expression too deep for the stack, arguments first; else none: proofs read from outside in."""
    depth: dict[Expr, int] = {}
    for part in walk(e):
        depth[part] = 1 + max((depth[a] for a in part.args), default=0)
    if depth[e] <= DEEPEST:
        return []
    flat = {a for x in depth if x.op in ("add", "neg") for a in x.args if a.op == "add" and a.shape == x.shape}
    return [x for x in depth if x not in flat]


def scaled(factor: float, gains: Gains) -> Gains:
    return {u: iv.times(factor, g) for u, g in gains.items()}


def total(*parts: Gains) -> Gains:
    result: Gains = {}
    for part in parts:
        for u, g in part.items():
            result[u] = result.get(u, 0.0) + g
    return result


def stacked(*parts: Gains) -> Gains:
    """√Σ Lᵢ²: parts placed beside each other."""
    unknowns = {u for part in parts for u in part}
    return {u: math.sqrt(math.fsum(part.get(u, 0.0) ** 2 for part in parts)) for u in unknowns}


def _rule(e: Expr, about: Lipschitz) -> Gains:
    match e.op:
        case "sym":
            return {e: 1.0}
        case "neg" | "transpose" | "index" | "reshape" | "embed" | "diag" | "diagonal":
            return about.of(e.args[0])
        case "add":
            return _sum(e, about)
        case "mul":
            return _product(e, about)
        case "div":
            return _quotient(e, about)
        case "pow":
            return _power(e, about)
        case "matmul" | "outer":
            return _linear_product(e, about)
        case "sum":
            return scaled(_root_count(e.args[0], about), about.of(e.args[0]))
        case "concat" | "stack":
            return stacked(*(about.of(a) for a in e.args))
        case "sum_for" | "stack_for":
            return _loop(e, about)
        case "call":
            return _call(e, about)
        case "apply":
            return about.block(e, f"nothing is known about {e.name}: it is bound from Python")
        case _:
            return about.block(e, f"no rule bounds {show(e)}")


def _root_count(e: Expr, about: Lipschitz) -> float:
    """√N of e's shape; inf if the size is not known."""
    count = about.bounds.context.size(e.shape)
    if count is None:
        about.obstacles[f"the number of entries of {show(e)} is not known"] = None
        return math.inf
    return math.sqrt(count)


def _spread(part: Expr, whole: Expr, about: Lipschitz) -> Gains:
    """The constants of a part that may be a scalar broadcast to the whole's shape."""
    if part.shape == whole.shape or not about.varies(part):
        return about.of(part)
    return scaled(_root_count(whole, about), about.of(part))


def _sum(e: Expr, about: Lipschitz) -> Gains:
    """Terms are collected first: `z - 0.5 z` has the constant 0.5, not 1.5."""
    parts = terms(e, about.scalar)
    if len(parts) == 1 and parts[0][1] is e:  # a scalar broadcast
        return total(*(_spread(a, e, about) for a in e.args))
    return total(*(scaled(abs(c), about.of(t)) for c, t in parts))


def _product(e: Expr, about: Lipschitz) -> Gains:
    x, y = e.args
    result: list[Gains] = []
    for varying, other in ((x, y), (y, x)):
        gains = about.of(varying)
        if not gains:
            continue
        if varying.rank == 0 and other.rank > 0:
            size = about.use(about.bounds.norm(other))
        else:
            size = _magnitude(other, about)
        result.append(scaled(size, gains))
    return total(*result)


def _magnitude(e: Expr, about: Lipschitz) -> float:
    """sup |entry|, with its reason."""
    size = about.bounds.magnitude(e)
    if literal(e) is not None:
        return size
    if math.isfinite(size):
        about.lines[f"|{show(e)}| ≤ {number(size)}" + _membership(e, about)] = None
    else:
        about.obstacles[f"|{show(e)}| is unbounded" + _membership(e, about, "because")] = None
    return size


def _membership(e: Expr, about: Lipschitz, word: str = "since") -> str:
    s = about.bounds.context.sets.get(e)
    return "" if s is None else f" {word} {show(e)} in {s.text}"


def _least(e: Expr, about: Lipschitz) -> float:
    """inf |entry| of a denominator."""
    least = iv.absolute(about.bounds.range(e)).lo
    if least <= 0.0:
        about.obstacles[f"{show(e)} is not bounded away from 0"] = None
    return least


def _quotient(e: Expr, about: Lipschitz) -> Gains:
    """|a/b − a′/b′| ≤ (|a − a′| + sup|a/b| |b − b′|) / inf|b|."""
    top, bottom = e.args
    least = _least(bottom, about)
    inverse = 1.0 / least if least > 0.0 else math.inf
    result = scaled(inverse, _spread(top, e, about))
    if not about.of(bottom):
        return result
    ratio = about.bounds.norm(e).value if bottom.rank == 0 and e.rank > 0 else about.bounds.magnitude(e)
    if not math.isfinite(ratio):
        about.obstacles[f"|{show(e)}| is not bounded"] = None
    return total(result, scaled(inverse * ratio, about.of(bottom)))


def _power(e: Expr, about: Lipschitz) -> Gains:
    base, exponent = e.args
    k = exponent.number
    if k is None:
        return about.block(e, f"no rule bounds {show(e)}: its exponent is not a number")
    slope = iv.mul(iv.point(abs(k)), iv.absolute(iv.power(about.bounds.range(base), k - 1.0))).hi
    if not math.isfinite(slope):
        about.obstacles[f"{show(e)} has an unbounded slope: {show(base)} is not bounded"] = None
    return scaled(slope, about.of(base))


def _linear_product(e: Expr, about: Lipschitz) -> Gains:
    x, y = e.args
    size: Callable[[Expr], Bound] = about.bounds.norm if e.op == "outer" else about.bounds.operator
    result: list[Gains] = []
    for varying, other in ((x, y), (y, x)):
        if about.of(varying):
            result.append(scaled(about.use(size(other)), about.of(varying)))
    return total(*result)


def _loop(e: Expr, about: Lipschitz) -> Gains:
    body = e.args[0]
    index, lo, hi = build.binder_of(e)
    if e.op == "stack_for" and all(_rowwise(body, u, index) for u in about.unknowns):
        return about.of(body)  # block diagonal
    count = about.bounds.context.size((hi - lo,))
    if count is None:
        return about.block(e, f"the number of terms of {show(e)} is not known")
    return scaled(float(count) if e.op == "sum_for" else math.sqrt(count), about.of(body))


def _rowwise(body: Expr, unknown: Expr, index: str) -> bool:
    """Whether `unknown` occurs in the body only as `unknown[index]`."""
    for e in walk(body):
        if unknown in e.args:
            items = build.items_of(e) if e.op == "index" else ()
            if not (items and items[0][0] == "at" and str(items[0][1]) == index):
                return False
    return body is not unknown


def _call(e: Expr, about: Lipschitz) -> Gains:
    function = about.bounds.context.functions.get(e.name)
    if function is None:
        return about.block(e, f"nothing is known about {e.name}")
    if len(e.args) == 1 and function.elementwise and function.jvp is not None:
        slope = _slope(e, about)
        if math.isfinite(slope):
            about.lines[f"|{e.name}'| ≤ {number(slope)}"] = None
        else:
            about.obstacles[f"{e.name} has an unbounded slope"] = None
        return scaled(slope, about.of(e.args[0]))
    if e.name in ("scale_rows", "scale_columns"):
        d, A = scaling(e)
        by_rows = scaled(about.use(about.bounds.operator(A)), about.of(d)) if about.of(d) else {}
        return total(by_rows, scaled(_magnitude(d, about), about.of(A)) if about.of(A) else {})
    if function.lipschitz is None:
        return about.block(e, f"no Lipschitz constant is known for {e.name}")
    about.lines[f"{e.name} has the Lipschitz constant {number(function.lipschitz)}"] = None
    parts = [_spread(a, e, about) if function.elementwise else about.of(a) for a in e.args]
    return scaled(function.lipschitz, total(*parts))


def _slope(call: Expr, about: Lipschitz) -> float:
    """sup |f'| over the range of the argument: the function's own constant, or the range of its derivative."""
    function = about.bounds.context.functions[call.name]
    assert function.jvp is not None
    one = build.fill(build.num(1.0), call.args[0].shape)
    slope = about.bounds.magnitude(function.jvp(call, (one,)))
    return slope if function.lipschitz is None else min(slope, function.lipschitz)


def gain_matrix(steps: tuple[Expr, ...], about: Lipschitz) -> list[list[float]]:
    """M[i][j]: the constant of step i in unknown j."""
    return [[about.of(step).get(u, 0.0) for u in about.order] for step in steps]


def joint(matrix: list[list[float]]) -> float:
    """‖M‖_F ≥ ‖M‖₂: the constant of the whole map in the 2-norm of all unknowns together."""
    return math.sqrt(math.fsum(g * g for row in matrix for g in row))


def lipschitz(system: System, context: Context) -> Fact:
    """The Lipschitz constant of the step in the 2-norm of all unknowns; None where it is not bounded."""
    if system.step is None:
        return Fact("lipschitz", None, ("an equation does not read u = g(…)",))
    about = Lipschitz(context, system.unknowns)
    value = joint(gain_matrix(system.step, about))
    if not math.isfinite(value):
        return Fact("lipschitz", None, tuple(about.obstacles))
    return Fact("lipschitz", value, (*about.lines, f"so ‖G(u) − G(v)‖₂ ≤ {number(value)} ‖u − v‖₂"))
