"""From the plan of a smooth program to its recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from implicitdsl.backward.failure import Failures
from implicitdsl.families.equilibrium.generate import write
from implicitdsl.families.equilibrium.roots import Regions, region
from implicitdsl.ir.function import Functions
from implicitdsl.ir.model import Model, SetInfo
from implicitdsl.ir.nodes import Expr
from implicitdsl.ir.plan import BlockPlan
from implicitdsl.ir.plan import Program as Form
from implicitdsl.lowering.source import Program
from implicitdsl.solvers.optimum.smooth import Smooth

from .conditions import Conditions, conditions, source
from .diagonal import diagonal_of, diagonal_source, in_order, parts_of
from .smooth import SmoothRecipe


@dataclass(frozen=True)
class _Written:
    """The generated functions, their inputs, and those of `start`."""

    text: str
    system: Conditions
    inputs: tuple[Expr, ...]
    begin: tuple[Expr, ...] | None


def shown(part: BlockPlan, functions: Functions) -> str:
    """The generated Python for any sizes; dimensions that no input shows are further arguments."""
    try:
        return _write(part, functions, {}, None).text
    except KeyError:
        assert part.program is not None, "an argmin block has a normal form"
        unknowns = conditions(part.program, functions).system.unknowns
        return _write(part, functions, {}, None, sorted({n for u in unknowns for d in u.shape for n in d.names})).text


def _write(
    part: BlockPlan, functions: Functions, sizes: Mapping[str, int], start: Expr | None, dims: Sequence[str] = ()
) -> _Written:
    found, system = diagonal_of(part), conditions(_form(part), functions)
    text, inputs, begin = source(system, functions, sizes, start, dims)
    if found is not None:
        text = "\n\n".join([text, diagonal_source(found, inputs, functions, sizes, dims)])
    return _Written(text, system, inputs, begin)


def recipe(
    part: BlockPlan,
    model: Model,
    sizes: Mapping[str, int],
    functions: Functions,
    solver: Smooth,
    failures: Failures,
    duals: tuple[tuple[str, str], ...],
    mu: float | None = None,
) -> SmoothRecipe:
    """All that `SmoothBlock` runs. `mu`: derivatives are those of the barrier problem."""
    wish = part.block.wishes.start
    written = _write(part, functions, sizes, wish if isinstance(wish, Expr) else None)
    system = written.system

    def shape(e: Expr) -> tuple[int, ...]:
        return tuple(d.evaluate(sizes) for d in e.shape)

    counts = [math.prod(shape(y)) for y in system.multipliers]
    p, m = sum(counts[: system.equalities]), sum(counts[system.equalities :])
    sets = {s.node: s.set for s in part.block.unknowns}
    free = SetInfo("R", (), (), "R")
    regions = Regions([region(sets.get(u, free), shape(u)) for u in system.unknowns], at_zero=wish == "zeros")
    rows = zip(system.rows, system.multipliers, strict=True)
    names = ", ".join(u.name for u in part.block.unknowns)
    found = diagonal_of(part)
    title = f"{model.name or 'layer'} {names}"
    near = None if mu is None or not m else _near(part, functions, sizes, mu, written)
    return SmoothRecipe(
        program=Program(title, written.text),
        inputs=tuple(s.name for s in written.inputs),
        ranks=tuple(s.rank for s in written.inputs),
        unknowns=tuple((u.name, shape(u)) for u in system.unknowns),
        multipliers=tuple((c.label, c.sign, shape(y)) for c, y in rows),
        duals=duals,
        sizes=(sum(math.prod(shape(u)) for u in system.unknowns), p, m),
        regions=regions,
        start=None if written.begin is None else tuple(s.name for s in written.begin),
        solver=solver,
        failures=failures,
        method=part.forward[0].method,
        convex=(fact := part.fact("convex")) is not None and fact.value is True,
        parts=None if found is None else parts_of(found, sizes),
        near=None if near is None else Program(f"{title}, smoothed", near),
    )


def _near(part: BlockPlan, functions: Functions, sizes: Mapping[str, int], mu: float, beside: _Written) -> str:
    """The text of the smoothed optimality conditions, functions of the same inputs."""
    found = write(conditions(_form(part), functions, mu).system, functions, sizes)
    assert found.inputs == beside.inputs, "μ is a number"
    return found.text


def _form(part: BlockPlan) -> Form:
    """The program, in the order that a diagonal Hessian asks for."""
    assert part.program is not None, "an argmin block has a normal form"
    found = diagonal_of(part)
    return part.program if found is None else in_order(part.program, found)
