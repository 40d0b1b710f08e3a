"""Curvature of expressions in the unknowns: the rules of disciplined convex programming on the facts of the functions.

Grant, Boyd & Ye, Disciplined Convex Programming (2006). A sum of convex terms is convex, a convex function that
increases in an argument keeps a convex one convex, and so on. Signs come from ranges: of a symbol's set, of a
function's values. What the rules accept is convex; what is convex need not be accepted.
"""

from __future__ import annotations

import math

from implicitdsl.ground.facts import Curvature, Interval, Monotone
from implicitdsl.ir import build
from implicitdsl.ir.nodes import LINEAR, Expr, walk

from .bounds import Bounds
from .definite import nonnegative, nonpositive, semidefinite
from .forms import both, form, trace_form
from .joint import joint
from .symmetry import SYMMETRIC, is_symmetric

C = Curvature

SUMS = LINEAR - {"neg"}
EVEN = frozenset(("abs", "norm", "norm_1", "norm_inf"))
"""Even convex functions, which increase where their argument is ≥ 0."""
FLIP = {C.CONVEX: C.CONCAVE, C.CONCAVE: C.CONVEX}


class Curvatures:
    """The curvature of every node of a program, memoised. `unknowns` are what varies, `running` names of indices."""

    def __init__(self, unknowns: frozenset[Expr], bounds: Bounds, running: frozenset[str] = frozenset()) -> None:
        self.unknowns, self.bounds, self.running = unknowns, bounds, running
        self.symmetric = frozenset(e for e, s in bounds.context.sets.items() if s.name in SYMMETRIC)
        self._known: dict[Expr, Curvature] = {}

    def of(self, e: Expr) -> Curvature:
        """CONSTANT, AFFINE, CONVEX, CONCAVE (every entry), or UNKNOWN: no rule says."""
        for part in walk(e):
            if part not in self._known:
                found = self._rule(part)
                self._known[part] = joint(part, self) if found is C.UNKNOWN else found
        return self._known[e]

    def within(self, unknowns: frozenset[Expr], bounds: Bounds) -> Curvatures:
        """The rules for other unknowns."""
        return Curvatures(unknowns, bounds)

    def is_convex(self, e: Expr) -> bool:
        return self.of(e) in (C.CONSTANT, C.AFFINE, C.CONVEX)

    def is_concave(self, e: Expr) -> bool:
        return self.of(e) in (C.CONSTANT, C.AFFINE, C.CONCAVE)

    def is_affine(self, e: Expr) -> bool:
        return self.of(e) in (C.CONSTANT, C.AFFINE)

    def is_constant(self, e: Expr) -> bool:
        return self.of(e) is C.CONSTANT

    def above(self, e: Expr) -> bool:
        """Whether every entry is certainly ≥ 0: by its range, or as a semidefinite form."""
        if nonnegative(e, self.bounds):
            return True
        match e.op:
            case "neg":
                return self.below(e.args[0])
            case "add" | "sum" | "index" | "reshape" | "transpose" | "concat" | "stack" | "sum_for" | "stack_for":
                return all(self.above(a) for a in e.args)
            case "mul" | "div":
                a, b = e.args
                return (self.above(a) and self.above(b)) or (self.below(a) and self.below(b))
            case "matmul" if e.rank == 0:
                return any(form(x, other, self) is C.CONVEX for x, other in both(e))
            case "call":
                return e.name in ("maximum", "max_all", "logsumexp") and any(self.above(a) for a in e.args)
            case _:
                return False

    def below(self, e: Expr) -> bool:
        """Whether every entry is certainly ≤ 0."""
        if nonpositive(e, self.bounds):
            return True
        match e.op:
            case "neg":
                return self.above(e.args[0])
            case "add" | "sum" | "index" | "reshape" | "transpose" | "concat" | "stack" | "sum_for" | "stack_for":
                return all(self.below(a) for a in e.args)
            case "mul" | "div":
                a, b = e.args
                return (self.above(a) and self.below(b)) or (self.below(a) and self.above(b))
            case "matmul" if e.rank == 0:
                return any(form(x, other, self) is C.CONCAVE for x, other in both(e))
            case "call":
                return e.name in ("minimum", "min_all") and any(self.below(a) for a in e.args)
            case _:
                return False

    # -- rules ---------------------------------------------------------------------------------------------------------

    def _rule(self, e: Expr) -> Curvature:
        if e in self.unknowns:
            return C.AFFINE
        if all(self._known[a] is C.CONSTANT for a in e.args):
            return C.CONSTANT
        if self._inverse(e):
            return C.CONVEX
        if (found := trace_form(e, self)) is not None:
            return found
        if e.op in SUMS:
            return self._sum([self._known[a] for a in e.args])
        match e.op:
            case "neg":
                found = self._known[e.args[0]]
                return FLIP.get(found, found)
            case "mul":
                return self._product(*e.args)
            case "outer":
                return self._linear(*e.args)
            case "matmul":
                return self._matmul(*e.args)
            case "div":
                return self._quotient(*e.args)
            case "pow":
                return self._power(e.args[0], e.args[1])
            case "call":
                return self._call(e)
            case _:
                return C.UNKNOWN

    def _sum(self, parts: list[Curvature]) -> Curvature:
        found = {p for p in parts if p is not C.CONSTANT}
        if found <= {C.AFFINE}:
            return C.AFFINE
        if found <= {C.AFFINE, C.CONVEX}:
            return C.CONVEX
        return C.CONCAVE if found <= {C.AFFINE, C.CONCAVE} else C.UNKNOWN

    def _linear(self, a: Expr, b: Expr) -> Curvature:
        """A bilinear operation one of whose arguments is constant: its sign decides."""
        for weight, x in ((a, b), (b, a)):
            if not self.is_constant(weight):
                continue
            curvature = self._known[x]
            if curvature is C.AFFINE:
                return C.AFFINE
            if self.above(weight):
                return curvature
            return FLIP.get(curvature, C.UNKNOWN) if self.below(weight) else C.UNKNOWN
        return C.UNKNOWN

    def _product(self, a: Expr, b: Expr) -> Curvature:
        if a is b:
            return self._even(a)
        for x, other in ((a, b), (b, a)):
            if self._entropy(x, other):
                return C.CONVEX
        return self._linear(a, b)

    def _entropy(self, x: Expr, other: Expr) -> bool:
        """x log(c x), and the relative entropy x log(c x / y), jointly convex for y ≥ 0; constants c ≥ 0."""
        if other.op != "call" or other.name != "log" or not self.is_affine(x):
            return False
        inside, x = self._stripped(other.args[0]), self._stripped(x)
        if inside is x:
            return True
        if inside.op != "div" or self._stripped(inside.args[0]) is not x:
            return False
        y = inside.args[1]
        return self.is_affine(y) and self.above(x if self.is_constant(y) else y)

    def _stripped(self, e: Expr) -> Expr:
        """x of c x and x / c with c ≥ 0 constant, a repeated number as the number."""
        while e.op in ("mul", "div"):
            inner = self._weighted(e)
            if inner is not None and self.above(inner[0]):
                e = inner[1]
            elif e.args[1].op == "ones":
                e = e.args[0]
            else:
                break
        return e

    def _even(self, x: Expr) -> Curvature:
        """x², Σ x²: convex where |x| is."""
        if self.is_affine(x):
            return C.CONVEX
        if self.is_convex(x) and self.above(x):
            return C.CONVEX
        return C.CONVEX if self.is_concave(x) and self.below(x) else C.UNKNOWN

    def _matmul(self, a: Expr, b: Expr) -> Curvature:
        if a.rank == 1 and b.rank == 1:
            if a is b:
                return self._even(a)
            for x, other in ((a, b), (b, a)):
                if self._entropy(x, other):
                    return C.CONVEX
                found = form(x, other, self)
                if found is not None:
                    return found
        return self._linear(a, b)

    def definite(self, M: Expr) -> bool:
        """Whether `logdet(M)` and `inv(M)` say M ≻ 0 in a convex program: for an affine symmetric matrix."""
        if not self.is_affine(M) or build.free_names(M) & self.running:
            return False
        return is_symmetric(M, self.symmetric)

    def _inverse(self, e: Expr) -> bool:
        """tr(M⁻¹), tr(C M⁻¹) with C ⪰ 0 and aᵀ M⁻¹ a of constants, which are convex on M ≻ 0."""
        if e.op == "trace":
            return self._inverted(e.args[0])
        if e.op == "sum" and e.args[0].op == "diagonal":
            return self._inverted(e.args[0].args[0])
        if e.op == "sum" and e.args[0].op == "mul":
            pairs = both(e.args[0])
            return any(self.is_constant(S) and semidefinite(S, self.bounds) and self._inverted(M) for S, M in pairs)
        if e.op == "matmul" and e.rank == 0:
            for a, other in both(e):
                if self.is_constant(a) and other.op == "matmul":
                    return any(x is a and self._inverted(M) for M, x in both(other))
        return False

    def _inverted(self, e: Expr) -> bool:
        e = e.args[0] if e.op == "transpose" else e
        return e.op == "call" and e.name == "inv" and self.definite(e.args[0])

    def _quotient(self, a: Expr, b: Expr) -> Curvature:
        if self.is_constant(b):
            return self._linear(a, b)
        if not _positive(self.bounds.range(b)):
            if nonpositive(b, self.bounds):
                found = self._quotient(a, build.neg(b))
                return FLIP.get(found, found)
            return C.UNKNOWN
        if not self.is_concave(b):
            return C.UNKNOWN
        if self.is_constant(a):
            if self.above(a):
                return C.CONVEX
            return C.CONCAVE if self.below(a) else C.UNKNOWN
        return C.CONVEX if self._squares(a) else C.UNKNOWN

    def _squares(self, e: Expr) -> bool:
        """x·x or x² of a convex |x|: over a concave positive denominator it stays convex."""
        if e.op == "mul" and self.is_constant(e.args[0]) and nonnegative(e.args[0], self.bounds):
            return self._squares(e.args[1])
        if e.op == "sum":
            return self._squares(e.args[0])
        square = e.op in ("matmul", "mul") and e.args[0] is e.args[1]
        return (square or (e.op == "pow" and e.args[1].number == 2.0)) and self._even(e.args[0]) is C.CONVEX

    def _power(self, x: Expr, exponent: Expr) -> Curvature:
        k = exponent.number
        if k is None or math.isnan(k):
            return C.UNKNOWN
        if k > 0 and k % 2.0 == 0.0:
            return self._even(x)
        if k > 1:
            if self.is_convex(x) and self.above(x):
                return C.CONVEX
            return C.CONVEX if self.bends(x, k) else C.UNKNOWN
        if 0 < k < 1:
            return C.CONCAVE if self.is_concave(x) else C.UNKNOWN
        positive = _positive(self.bounds.range(x)) or not k.is_integer()
        return C.CONVEX if positive and self.is_concave(x) else C.UNKNOWN

    def bends(self, x: Expr, k: float) -> bool:
        """Whether xᵏ is convex for x ≥ 0 and says so of an affine x, as `log(x)` says x > 0; k > 1 is no integer."""
        whole = k.is_integer() or bool(build.free_names(x) & self.running)
        return k > 1 and not whole and self.is_affine(x) and not self.above(x)

    def _call(self, e: Expr) -> Curvature:
        if e.name in ("scale_rows", "scale_columns"):
            return self._linear(*e.args)
        if e.name == "clamp":
            return C.UNKNOWN
        function = self.bounds.context.functions.get(e.name)
        if function is None:
            return C.UNKNOWN
        outer = function.curvature
        if outer is C.AFFINE:
            return self._sum([self._known[a] for a in e.args]) if len(e.args) == 1 else C.UNKNOWN
        if outer not in FLIP or (e.name == "logdet" and not self.definite(e.args[0])):
            return C.UNKNOWN
        if e.name in EVEN:
            return self._even(e.args[0])
        return outer if all(self._keeps(a, outer, function.monotone) for a in e.args) else C.UNKNOWN

    def _keeps(self, a: Expr, outer: Curvature, monotone: Monotone) -> bool:
        if self.is_affine(a):
            return True
        same = self.is_convex(a) if outer is C.CONVEX else self.is_concave(a)
        if monotone is Monotone.INCREASING:
            return same
        opposite = self.is_concave(a) if outer is C.CONVEX else self.is_convex(a)
        return monotone is Monotone.DECREASING and opposite

    # -- blame ---------------------------------------------------------------------------------------------------------

    def culprit(self, e: Expr, convex: bool = True) -> Expr:
        """The smallest part of e that keeps it from being convex (or concave)."""
        step = self._blamed(e, convex)
        while step is not None:
            e, convex = step
            step = self._blamed(e, convex)
        return e

    def _blamed(self, e: Expr, convex: bool) -> tuple[Expr, bool] | None:
        """The argument that is at fault and what is wanted of it; None where e itself is."""
        wanted = self.is_convex if convex else self.is_concave
        if e.op in SUMS:
            worse = [a for a in e.args if not wanted(a)]
            return (worse[0], convex) if worse else None
        if e.op == "neg":
            return e.args[0], not convex
        inner = self._weighted(e)
        if inner is not None:
            weight, x = inner
            if self.below(weight):
                return x, not convex
            return (x, convex) if self.above(weight) or self.of(x) is C.UNKNOWN else None
        unclear = [a for a in e.args if self.of(a) is C.UNKNOWN]
        return (unclear[0], True) if unclear else None

    def _weighted(self, e: Expr) -> tuple[Expr, Expr] | None:
        """(weight, x) of a product with a constant, or of a quotient by one."""
        if e.op == "div" and self.is_constant(e.args[1]):
            return e.args[1], e.args[0]
        if e.op in ("mul", "matmul"):
            for weight, x in both(e):
                if self.is_constant(weight) and not self.is_constant(x):
                    return weight, x
        return None


def _positive(r: Interval) -> bool:
    """Values ≥ 0; at 0 a quotient is infinite, which no minimiser is."""
    return r.lo >= 0.0
