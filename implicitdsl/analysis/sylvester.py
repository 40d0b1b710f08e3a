"""Affine equations of a matrix unknown that multiply it from both sides: w₀ A Z B + w₁ A Z + w₂ Z B + w₃ Z = C."""

from __future__ import annotations

from implicitdsl.ground.records import dataclass
from implicitdsl.ir import build
from implicitdsl.ir.nodes import Expr, depends
from implicitdsl.ir.plan import System
from implicitdsl.ir.printer import show

from .terms import terms

Sides = tuple[Expr, Expr | None, Expr | None]
"""s, L and R of a term s L Z R; None for the identity."""


@dataclass(frozen=True, slots=True)
class TwoSided:
    """`left` A (n, n), `right` B (m, m) and the four `weights`, numbers, all free of the unknown (n, m)."""

    left: Expr
    right: Expr
    weights: tuple[Expr, Expr, Expr, Expr]

    def shown(self, unknown: str) -> str:
        """The linear part without its weights, with the names A and B where the matrices have none."""
        a = show(self.left) if self.left.op == "sym" else "A"
        b = show(self.right) if self.right.op == "sym" else "B"
        names = (f"{a} {unknown} {b}", f"{a} {unknown}", f"{unknown} {b}", unknown)
        return " + ".join(name for name, w in zip(names, self.weights, strict=True) if not build.is_zero(w))


def two_sided(system: System) -> TwoSided | None:
    """The parts of a linear equation in one matrix unknown, if Schur forms of two matrices A and B solve it.

    They do if its terms are A Z B, A Z, Z B and Z with factors that are numbers (Stein's and Sylvester's equations
    Z = A Z B + C, A Z + Z B = C among them); sums of one-sided terms are joined where there is no A Z B.
    """
    if len(system.unknowns) != 1 or system.unknowns[0].rank != 2:
        return None
    z, (residual,) = system.unknowns[0], system.residual
    if residual.shape != z.shape:
        return None
    both: dict[tuple[Expr, Expr], Expr] = {}
    lefts: dict[Expr, Expr] = {}
    rights: dict[Expr, Expr] = {}
    plain = build.num(0.0)
    for c, t in terms(residual):
        if not depends(t, {z}):
            continue
        sides = _sides(t, z)
        if sides is None:
            return None
        s, left, right = build.mul(build.num(c), sides[0]), sides[1], sides[2]
        if left is None and right is None:
            plain = build.add(plain, s)
        elif right is None:
            assert left is not None
            lefts[left] = build.add(lefts[left], s) if left in lefts else s
        elif left is None:
            rights[right] = build.add(rights[right], s) if right in rights else s
        else:
            key = (left, right)
            both[key] = build.add(both[key], s) if key in both else s
    return _joined(z, both, lefts, rights, plain)


def _joined(
    z: Expr, both: dict[tuple[Expr, Expr], Expr], lefts: dict[Expr, Expr], rights: dict[Expr, Expr], plain: Expr
) -> TwoSided | None:
    zero, one = build.num(0.0), build.num(1.0)
    n, m = z.shape
    if not both:
        a = _sum(lefts, build.zeros((n, n)))
        b = _sum(rights, build.zeros((m, m)))
        return TwoSided(a, b, (zero, one if lefts else zero, one if rights else zero, plain))
    if len(both) > 1:
        return None
    ((a, b), s), *_ = both.items()
    if lefts.keys() - {a} or rights.keys() - {b}:
        return None
    return TwoSided(a, b, (s, lefts.get(a, zero), rights.get(b, zero), plain))


def _sum(parts: dict[Expr, Expr], nothing: Expr) -> Expr:
    total = nothing
    for matrix, s in parts.items():
        total = build.add(total, build.mul(s, matrix))
    return total


def _sides(term: Expr, z: Expr) -> Sides | None:
    """s, L and R with term = s L Z R."""
    if term is z:
        return build.num(1.0), None, None
    if term.op == "neg":
        inner = _sides(term.args[0], z)
        return None if inner is None else (build.neg(inner[0]), inner[1], inner[2])
    if term.op == "mul":
        for free, other in (term.args, term.args[::-1]):
            inner = None if free.rank or depends(free, {z}) else _sides(other, z)
            if inner is not None:
                return build.mul(free, inner[0]), inner[1], inner[2]
    if term.op == "div" and not term.args[1].rank and not depends(term.args[1], {z}):
        inner = _sides(term.args[0], z)
        return None if inner is None else (build.div(inner[0], term.args[1]), inner[1], inner[2])
    if term.op == "matmul" and all(x.rank == 2 for x in term.args):
        first, second = term.args
        if not depends(first, {z}):
            inner = _sides(second, z)
            if inner is None or first.shape[0] != first.shape[1]:
                return None
            (c, first), (s, left, right) = build.scaled(first), inner
            return build.mul(c, s), first if left is None else build.matmul(first, left), right
        if not depends(second, {z}):
            inner = _sides(first, z)
            if inner is None or second.shape[0] != second.shape[1]:
                return None
            (c, second), (s, left, right) = build.scaled(second), inner
            return build.mul(c, s), left, second if right is None else build.matmul(right, second)
    return None
