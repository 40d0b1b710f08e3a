"""A smooth program in expressions: values, derivatives, and the optimality conditions as a system of equations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from implicitdsl.calculus import cancel, vjp
from implicitdsl.families.equilibrium.generate import write
from implicitdsl.families.equilibrium.packing import join, pack
from implicitdsl.ir import build
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr, Role, num, sym
from implicitdsl.ir.plan import BELOW, EQUAL, Constraint, Program, System
from implicitdsl.lowering.codegen import generate

from .coefficients import matrix
from .domain import domain_source


@dataclass(frozen=True)
class Conditions:
    """Lagrangian f + Σ νᵀe + Σ λᵀg; `rows` are the constraints, equalities first, with their multipliers.

    `system`: ∇L = 0, e = 0, min(λ, −g) = 0, which has the same solutions as the Karush-Kuhn-Tucker conditions; or with
    μ > 0 in the place of the last ½ (λ − g − √((λ + g)² + 4 μ)) = 0, which says λ (−g) = μ and λ, −g > 0.
    """

    unknowns: tuple[Expr, ...]
    rows: tuple[Constraint, ...]
    multipliers: tuple[Expr, ...]
    equalities: int
    objective: Expr
    gradient: tuple[Expr, ...]  # of the Lagrangian
    system: System


def conditions(form: Program, functions: Functions, mu: float = 0.0) -> Conditions:
    """The optimality conditions of a program without matrix inequalities; with μ those of its barrier problem."""
    equal, below = form.of(EQUAL), form.of(BELOW)
    rows = (*equal, *below)
    names = [f"{'nu' if c.kind == EQUAL else 'lam'}~{k}" for k, c in enumerate(rows, 1)]
    multipliers = tuple(sym(name, Role.UNKNOWN, c.body.shape) for name, c in zip(names, rows, strict=True))
    lagrangian = form.objective
    for y, c in zip(multipliers, rows, strict=True):
        lagrangian = build.add(lagrangian, build.inner(y, c.body))
    gradient = tuple(cancel(g) for g in vjp(lagrangian, num(1.0), form.unknowns, functions))
    residual = [*gradient, *(c.body for c in equal)]
    for y, c in zip(multipliers[len(equal) :], below, strict=True):
        residual.append(_least(y, c.body, functions, mu))
    system = System((*form.unknowns, *multipliers), tuple(residual), None)
    return Conditions(form.unknowns, rows, multipliers, len(equal), form.objective, gradient, system)


def _least(y: Expr, g: Expr, functions: Functions, mu: float) -> Expr:
    """min(y, −g), or its smoothing (Chen & Harker 1993, Kanzow 1996, Smale 1986)."""
    if not mu:
        return functions["min"].build([y, build.neg(g)])
    total = build.add(y, g)
    root = functions["sqrt"].build([build.add(build.mul(total, total), build.mul(num(4 * mu), build.ones(g.shape)))])
    return build.mul(num(0.5), build.sub(build.sub(y, g), root))


def source(
    c: Conditions,
    functions: Functions,
    sizes: Mapping[str, int],
    start: Expr | None = None,
    dims: Sequence[str] = (),
) -> tuple[str, tuple[Expr, ...], tuple[Expr, ...] | None]:
    """The text of `values`, `derivatives`, `residual` and its derivatives, and of `start`; their inputs."""
    written = write(c.system, functions, sizes, dims, start=start)
    inputs = written.inputs
    state = pack(c.system.unknowns, "state", Role.UNKNOWN)
    point = pack(c.unknowns, c.unknowns[0].name if len(c.unknowns) == 1 else "point", Role.UNKNOWN)
    bodies = [r.body for r in c.rows]
    groups = [bodies[: c.equalities], bodies[c.equalities :]]
    values = [c.objective, *(join(g) for g in groups if g)]
    own = vjp(c.objective, num(1.0), c.unknowns, functions)
    derivatives = [join([cancel(g) for g in own])]
    for group in (c.gradient, *(g for g in groups if g)):
        found = matrix(group, c.unknowns, functions)
        assert found is not None, "without a closed form there are directional derivatives"
        derivatives.append(found)
    texts = [
        generate("values", (point.vector, *inputs), values, functions, sizes, definitions=point.definitions, dims=dims),
        generate(
            "derivatives",
            (state.vector, *inputs),
            derivatives,
            functions,
            sizes,
            definitions=state.definitions,
            dims=dims,
        ),
        *domain_source([c.objective, *bodies], c.unknowns, inputs, functions, sizes, dims),
        written.text,
    ]
    return "\n\n".join(texts), inputs, written.start
