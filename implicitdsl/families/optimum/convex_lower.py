"""From the plan of a smooth convex program over cones to its recipe: optimality conditions as generated source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_fields

from implicitdsl.analysis.symmetry import is_symmetry, symmetric_unknowns
from implicitdsl.backward.failure import Failures
from implicitdsl.calculus import simplify, vjp
from implicitdsl.families.equilibrium.generate import write
from implicitdsl.families.equilibrium.packing import join, pack
from implicitdsl.families.equilibrium.roots import Regions, region
from implicitdsl.ir import build
from implicitdsl.ir.function import Functions
from implicitdsl.ir.model import Model, SetInfo
from implicitdsl.ir.nodes import Expr, Role, num, sym, walk
from implicitdsl.ir.plan import BELOW, DEFINITE, EQUAL, SECOND, BlockPlan, Constraint, Program, System
from implicitdsl.lowering.codegen import generate
from implicitdsl.lowering.source import Program as Source
from implicitdsl.solvers.optimum.conic import Conic
from implicitdsl.solvers.optimum.convex import Convex

from .coefficients import matrix
from .cone_rows import cone_rows
from .convex import ConvexRecipe
from .domain import domain_source


@dataclass(frozen=True)
class Conditions:
    """∇(f + yᵀh) = 0 and h, of which `system` is the residual by unknowns and multipliers; `rows` are the constraints
    in the order equalities, inequalities, second-order cones, matrices, the bodies of the last two negated."""

    unknowns: tuple[Expr, ...]
    rows: tuple[Constraint, ...]
    objective: Expr
    gradient: tuple[Expr, ...]
    system: System


def conditions(form: Program, functions: Functions) -> Conditions:
    """The optimality conditions, but for what the cones say of slacks and multipliers."""
    equal = [c for c in form.of(EQUAL) if not is_symmetry(c)]
    cones = [replace_fields(c, body=build.neg(c.body)) for kind in (SECOND, DEFINITE) for c in form.of(kind)]
    rows = (*equal, *form.of(BELOW), *cones)
    multipliers = tuple(sym(f"y~{k}", Role.UNKNOWN, c.body.shape) for k, c in enumerate(rows, 1))
    lagrangian = form.objective
    for y, c in zip(multipliers, rows, strict=True):
        lagrangian = build.add(lagrangian, build.inner(y, c.body))
    gradient = tuple(simplify(g) for g in vjp(lagrangian, num(1.0), form.unknowns, functions))
    system = System((*form.unknowns, *multipliers), (*gradient, *(c.body for c in rows)), None)
    return Conditions(form.unknowns, rows, form.objective, gradient, system)


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
    values = [c.objective, *([join(bodies)] if bodies else [])]
    slopes = [join([simplify(g) for g in vjp(c.objective, num(1.0), c.unknowns, functions)])]
    for group in (c.gradient, *([bodies] if bodies else [])):
        found = matrix(group, c.unknowns, functions)
        assert found is not None, "without a closed form there are directional derivatives"
        slopes.append(found)
    texts = [
        generate(name, (by.vector, *inputs), made, functions, sizes, definitions=by.definitions, dims=dims)
        for name, by, made in (("values", point, values), ("derivatives", state, slopes))
    ]
    texts += domain_source([c.objective, *bodies], c.unknowns, inputs, functions, sizes, dims)
    return "\n\n".join([*texts, written.text]), inputs, written.start


def shown(part: BlockPlan, functions: Functions) -> str:
    """The generated Python for any sizes; dimensions that no input shows are further arguments."""
    assert part.program is not None, "an argmin block has a normal form"
    found = conditions(part.program, functions)
    try:
        return source(found, functions, {})[0]
    except KeyError:
        dims = sorted({n for u in found.system.unknowns for d in u.shape for n in d.names})
        return source(found, functions, {}, None, dims)[0]


def recipe(
    part: BlockPlan,
    model: Model,
    sizes: Mapping[str, int],
    functions: Functions,
    solver: Conic,
    duals: tuple[tuple[str, str], ...],
    failures: Failures,
    mu: float | None = None,
) -> ConvexRecipe:
    """Everything about a block but tensors."""
    assert part.program is not None, "an argmin block has a normal form"
    found = conditions(part.program, functions)
    wish = part.block.wishes.start
    text, inputs, begin = source(found, functions, sizes, wish if isinstance(wish, Expr) else None)

    def shape(e: Expr) -> tuple[int, ...]:
        return tuple(d.evaluate(sizes) for d in e.shape)

    places = cone_rows(part.program, found.rows, model, sizes)
    same = symmetric_unknowns(part.program)
    sets = {s.node: s.set for s in part.block.unknowns}
    free = SetInfo("R", (), (), "R")
    regions = Regions([region(sets.get(u, free), shape(u)) for u in found.unknowns], at_zero=wish == "zeros")
    names = ", ".join(u.name for u in part.block.unknowns)
    return ConvexRecipe(
        program=Source(f"{model.name or 'layer'} {names}", text),
        inputs=tuple(s.name for s in inputs),
        ranks=tuple(s.rank for s in inputs),
        unknowns=tuple((u.name, shape(u)) for u in found.unknowns),
        symmetric=tuple(u in same for u in found.unknowns),
        rows=places.rows,
        count=places.count,
        matrices=places.matrices,
        inside=_inside(found),
        duals=duals,
        cones=places.cones,
        regions=regions,
        start=None if begin is None else tuple(s.name for s in begin),
        solver=Convex(max_iter=solver.max_iter),
        tol=1e-9 if solver.tol is None else solver.tol,
        failures=failures,
        mu=mu,
    )


DOMAINS = frozenset(("logdet", "inv"))


def _inside(found: Conditions) -> tuple[int, ...]:
    """Which of the matrix inequalities are domains of functions, for which only M ≻ 0 will do."""
    calls = {
        e.args[0] for e in walk(found.objective, *(c.body for c in found.rows)) if e.op == "call" and e.name in DOMAINS
    }
    bodies = [build.neg(c.body) for c in found.rows if c.kind == DEFINITE]
    return tuple(i for i, M in enumerate(bodies) if M in calls)
