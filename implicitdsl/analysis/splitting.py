"""z = σ(W z + h): the parts of a proximal fixed point, as operator splitting needs them."""

from __future__ import annotations

from implicitdsl.ground.facts import Monotone
from implicitdsl.ground.records import dataclass
from implicitdsl.ir import build
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr, depends
from implicitdsl.ir.plan import System

from .terms import terms


@dataclass(frozen=True, slots=True)
class Splitting:
    """`activation` σ by name, `weight` W (n, n) and `offset` h (n), both free of the unknown."""

    activation: str
    weight: Expr
    offset: Expr


def splitting(system: System, functions: Functions) -> Splitting | None:
    """The parts, if the system is one vector equation z = σ(W z + h) with σ elementwise, nondecreasing and 1-Lipschitz.

    Such a σ is the proximal operator of a convex function (Moreau 1965).
    """
    if not system.step or len(system.unknowns) != 1 or system.unknowns[0].rank != 1:
        return None
    z, step = system.unknowns[0], system.step[0]
    function = functions.get(step.name) if step.op == "call" and len(step.args) == 1 else None
    if function is None or not function.elementwise or function.monotone is not Monotone.INCREASING:
        return None
    if function.lipschitz is None or function.lipschitz > 1.0:
        return None
    addends = _addends(step.args[0])
    weight = build.zeros((z.shape[0], z.shape[0]))
    offset = build.zeros(z.shape)
    for c, t in addends:
        if not depends(t, {z}):
            offset = build.add(offset, build.mul(build.num(c), t))
            continue
        factor = _coefficient(t, z)
        if factor is None:
            return None
        weight = build.add(weight, build.mul(build.num(c), factor))
    return Splitting(function.name, weight, offset)


def _addends(e: Expr) -> list[tuple[float, Expr]]:
    """The terms of a sum, scalars that are added to every entry among them."""
    found: list[tuple[float, Expr]] = []
    for c, t in terms(e):
        if t.op == "add":
            found += [(c * d, x) for a in t.args for d, x in _addends(a)]
        else:
            found.append((c, t))
    return found


def _coefficient(term: Expr, z: Expr) -> Expr | None:
    """A with term = A z, for `A z`, `A (B z)`, `s z`, `d ∘ z` and z itself."""
    if term is z:
        return build.eye(z.shape[0])
    if term.op == "matmul" and term.args[0].rank == 2 and not depends(term.args[0], {z}):
        inner = _coefficient(term.args[1], z)
        return None if inner is None else build.matmul(term.args[0], inner)
    if term.op == "neg":
        inner = _coefficient(term.args[0], z)
        return None if inner is None else build.neg(inner)
    if term.op == "mul":
        for free, other in (term.args, term.args[::-1]):
            inner = None if depends(free, {z}) else _coefficient(other, z)
            if inner is not None:
                return build.mul(free, inner) if free.rank == 0 else build.scale_rows(free, inner)
    return None
