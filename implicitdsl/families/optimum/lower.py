"""From the plan of an `argmin` block to what runs it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from implicitdsl.analysis.nearest import Nearest
from implicitdsl.analysis.symmetry import symmetric_unknowns
from implicitdsl.backward.failure import Failures
from implicitdsl.backward.kkt import Spec
from implicitdsl.backward.smoothed import Smoothing
from implicitdsl.families.call import Call
from implicitdsl.ground.facts import Fact
from implicitdsl.ground.methods import Method
from implicitdsl.ir.function import Functions
from implicitdsl.ir.model import Model
from implicitdsl.ir.nodes import Expr, symbols
from implicitdsl.ir.plan import BlockPlan
from implicitdsl.lowering.codegen import generate, opaques_of
from implicitdsl.lowering.source import Program
from implicitdsl.lowering.stages import queries
from implicitdsl.solvers.optimum.cones import Cones
from implicitdsl.solvers.optimum.stages import Layout

from .block import OptimumBlock, Recipe, Rows
from .coefficients import Coefficients, coefficients
from .cone_rows import cone_rows
from .conic import ConicBlock, ConicRecipe
from .convex import ConvexBlock, ConvexRecipe
from .convex_lower import recipe as convex_recipe
from .convex_lower import shown
from .evaluate import Evaluate
from .guess import wish
from .horizon import AlongStages, bands, layout
from .nearest import NearestBlock, NearestRecipe
from .rungs import is_polynomial, is_quadratic
from .separable import SeparableBlock
from .separable_lower import separable_recipe, separable_source
from .smooth import SmoothBlock
from .smooth_lower import recipe as smooth_recipe
from .smooth_lower import shown as smooth_shown

SMOOTH = ("nlp",)
"""Methods that see functions, not coefficients."""
CONIC, SORTED, STAGED, SMOOTHED = "conic", "projection", "riccati", "smoothed"


@dataclass(frozen=True)
class _Written:
    """Generated functions, and the tensors that they take."""

    text: str
    inputs: tuple[Expr, ...]
    call: Call
    columns: Call | None


class Language(Protocol):
    """What lowering asks of a language: its functions, and methods by name."""

    @property
    def function_table(self) -> Functions: ...

    def method(self, sentence: str, role: str, name: str) -> Method | None: ...


def lower(parts: Sequence[BlockPlan], model: Model, sizes: Mapping[str, int], language: Language) -> Any:
    """The runner of one `argmin` block."""
    (part,) = parts
    if part.forward[0].method in SMOOTH:
        solver, failures, duals = _solver(part, language), _failures(part, model), _duals(part, model)
        functions, mu = language.function_table, _mu(part)
        return SmoothBlock(smooth_recipe(part, model, sizes, functions, solver, failures, duals, mu))
    if _is_curved(part):
        return ConvexBlock(_convex(part, model, sizes, language))
    if _is_conic(part):
        return ConicBlock(_conic(part, model, sizes, language))
    if _is_sorted(part):
        failures, duals = _failures(part, model), _duals(part, model)
        if _nearest(part) is not None:
            return NearestBlock(_nearest_recipe(part, model, sizes, language, failures, duals))
        return SeparableBlock(separable_recipe(part, model, sizes, language, failures, duals))
    return OptimumBlock(_recipe(part, model, sizes, language))


def _is_conic(part: BlockPlan) -> bool:
    """Whether it is solved over cones: also where a projection on them has a formula, but no barrier to smooth."""
    method = part.forward[0].method
    return method == CONIC or (method == SORTED and not _is_sorted(part) and not is_quadratic(_facts(part)))


def _facts(part: BlockPlan) -> dict[str, Fact]:
    return {f.name: f for f in part.facts}


def _is_curved(part: BlockPlan) -> bool:
    """Whether it is over cones, but not quadratic."""
    return part.forward[0].method == CONIC and not is_polynomial(_facts(part))


def _convex(part: BlockPlan, model: Model, sizes: Mapping[str, int], language: Language) -> ConvexRecipe:
    functions, failures = language.function_table, _failures(part, model)
    solver, duals = _solver(part, language), _duals(part, model)
    return convex_recipe(part, model, sizes, functions, solver, duals, failures, _mu(part))


def _solver(part: BlockPlan, language: Language) -> Any:
    """That of the first choice, with its options; of a formula, which has no barrier to smooth, the cones'."""
    choice = part.forward[0]
    method = language.method("optimum", "forward", CONIC if choice.method == SORTED else choice.method)
    assert method is not None, f"the planner chose {choice.method}, which no family has"
    return method.load()(**dict(choice.options))


def _mu(part: BlockPlan) -> float | None:
    """Where derivatives are those of the barrier problem: its parameter."""
    return float(str(part.backward.get("mu", 1e-2))) if part.backward.method == SMOOTHED else None


def _is_sorted(part: BlockPlan) -> bool:
    return part.forward[0].method == SORTED and part.backward.method != SMOOTHED


def _nearest(part: BlockPlan) -> Nearest | None:
    """The projection that has a formula."""
    fact = part.fact("nearest")
    return fact.value if fact is not None and isinstance(fact.value, Nearest) else None


def _nearest_recipe(
    part: BlockPlan,
    model: Model,
    sizes: Mapping[str, int],
    language: Language,
    failures: Failures,
    duals: Sequence[tuple[str, str]],
) -> NearestRecipe:
    found = _nearest(part)
    assert found is not None, "the rung suits projections"
    outputs = [found.p, found.q, *([] if found.radius is None else [found.radius])]
    inputs, opaques = _inputs(outputs), opaques_of(*outputs)
    call = Call("coefficients", tuple(s.name for s in inputs), opaques)
    text = generate(call.name, inputs, outputs, language.function_table, sizes)
    shape = tuple(d.evaluate(sizes) for d in found.unknown.shape)
    return NearestRecipe(
        program=Program(f"{model.name or 'layer'} {found.unknown.name}", text),
        call=call,
        unknown=(found.unknown.name, shape),
        ball=found.radius is not None,
        duals=tuple(key for key, _ in duals),
        failures=failures,
        given=tuple((s.name, s.rank) for s in inputs),
    )


def source(part: BlockPlan, language: Language) -> str:
    """The generated Python of a block for any sizes; dimensions that no input shows are further arguments."""
    if part.forward[0].method in SMOOTH:
        return smooth_shown(part, language.function_table)
    if _is_curved(part):
        return shown(part, language.function_table)
    found = _nearest(part)
    if _is_sorted(part) and found is not None:
        outputs = [found.p, found.q, *([] if found.radius is None else [found.radius])]
        dims = sorted({n for d in found.unknown.shape for n in d.names})
        return generate("coefficients", _inputs(outputs), outputs, language.function_table, {}, dims=dims)
    if _is_sorted(part):
        return separable_source(part, language)
    found = _coefficients(part, language)
    try:
        return _write(found, language, {}).text
    except KeyError:
        dims = sorted({n for u in part.block.unknowns for d in u.shape for n in d.names})
        return _write(found, language, {}, dims).text


def _coefficients(part: BlockPlan, language: Language) -> Coefficients:
    assert part.program is not None, "an argmin block has a normal form"
    return coefficients(part.program, language.function_table, _is_conic(part))


def _write(found: Coefficients, language: Language, sizes: Mapping[str, int], dims: Sequence[str] = ()) -> _Written:
    """The text of `coefficients`, and of `columns` where the matrices have no closed form."""
    table = language.function_table
    inputs, opaques = _inputs(found.outputs), opaques_of(*found.outputs)
    call = Call("coefficients", tuple(s.name for s in inputs), opaques)
    texts = [generate(call.name, inputs, found.outputs, table, sizes, dims=dims)]
    if found.direction is None:
        return _Written(texts[0], inputs, call, None)
    v = found.direction
    others = tuple(s for s in _inputs(found.moved) if s not in v.parts)
    columns = Call("columns", tuple(s.name for s in others), opaques_of(*found.moved))
    text = generate(columns.name, (v.vector, *others), found.moved, table, sizes, definitions=v.definitions, dims=dims)
    return _Written("\n\n".join([*texts, text]), tuple(dict.fromkeys((*inputs, *others))), call, columns)


def _inputs(exprs: Sequence[Expr]) -> tuple[Expr, ...]:
    return tuple(sorted(symbols(*exprs), key=lambda s: s.name))


def _evaluate(
    found: Coefficients, title: str, written: _Written, sizes: Mapping[str, int], places: Layout | None = None
) -> Evaluate:
    size = sum(math.prod(d.evaluate(sizes) for d in u.shape) for u in found.unknowns)
    program = Program(title, written.text)
    banded = None if places is None or written.columns is None else bands(places)
    return Evaluate(program, written.call, written.columns, found.curved, found.d is not None, size, banded)


def _recipe(part: BlockPlan, model: Model, sizes: Mapping[str, int], language: Language) -> Recipe:
    found = _coefficients(part, language)
    written = _write(found, language, sizes)
    title = f"{model.name or 'layer'} {', '.join(u.name for u in part.block.unknowns)}"
    choice = part.forward[0]
    rows = _rows(found, sizes)
    equalities = sum(r.stop - r.start for r in rows[: found.equalities])
    smoothed, places = part.backward.method == SMOOTHED, layout(part, sizes)
    solver = None
    if choice.method != "direct":
        # neither a sort nor a recursion has a barrier to smooth
        name = "ipm" if choice.method in (SORTED, STAGED) and smoothed else choice.method
        method = language.method("optimum", "forward", name)
        assert method is not None, f"the planner chose {choice.method}, which no family has"
        solver = method.load()(**dict(choice.options))
        if name == STAGED:
            assert places is not None, "the rung suits programs over a horizon"
            solver = AlongStages(places, solver)
    smoothing, mu, count = None, _mu(part), rows[-1].stop if rows else 0
    if mu is not None and count > equalities:
        size = sum(math.prod(d.evaluate(sizes) for d in u.shape) for u in found.unknowns)
        smoothing = Smoothing.of_quadratic(Cones(equalities, count - equalities, (), mu=mu), size)
    return Recipe(
        coefficients=_evaluate(found, title, written, sizes, places),
        unknowns=tuple((u.name, tuple(d.evaluate(sizes) for d in u.shape)) for u in found.unknowns),
        rows=rows,
        duals=_duals(part, model),
        spec=Spec(solver, equalities, _failures(part, model)),
        method=choice.method,
        given=tuple((s.name, s.rank) for s in written.inputs),
        smoothing=smoothing,
        wish=wish(part, title, written.inputs, sizes, language.function_table),
    )


def _failures(part: BlockPlan, model: Model) -> Failures:
    line = model.source.position(part.block.span.start)[0]
    return Failures(part.block.wishes.on_failure or "warn", f"{model.source.name}:{line}", marks=False)


def _duals(part: BlockPlan, model: Model) -> tuple[tuple[str, str], ...]:
    """The key and the label of each multiplier that is asked for."""
    (asked,) = [q for block, q in zip(model.blocks, queries(model), strict=True) if block is part.block]
    return tuple((q.name, str(q.node.attrs[0])) for q in asked)


def _rows(found: Coefficients, sizes: Mapping[str, int]) -> tuple[Rows, ...]:
    """Where the constraints stand in C."""
    rows: list[Rows] = []
    at = 0
    for c in found.rows:
        shape = tuple(d.evaluate(sizes) for d in c.body.shape)
        count = math.prod(shape)
        rows.append(Rows(at, at + count, shape, c.label, c.sign))
        at += count
    return tuple(rows)


def _conic(part: BlockPlan, model: Model, sizes: Mapping[str, int], language: Language) -> ConicRecipe:
    found = _coefficients(part, language)
    written = _write(found, language, sizes)
    assert part.program is not None, "an argmin block has a normal form"
    places, same = cone_rows(part.program, found.rows, model, sizes), symmetric_unknowns(part.program)
    names = ", ".join(u.name for u in part.block.unknowns)
    return ConicRecipe(
        coefficients=_evaluate(found, f"{model.name or 'layer'} {names}", written, sizes),
        unknowns=tuple((u.name, tuple(d.evaluate(sizes) for d in u.shape)) for u in found.unknowns),
        symmetric=tuple(u in same for u in found.unknowns),
        rows=places.rows,
        count=places.count,
        matrices=places.matrices,
        duals=_duals(part, model),
        cones=places.cones,
        solver=_solver(part, language),
        failures=_failures(part, model),
        given=tuple((s.name, s.rank) for s in written.inputs),
        mu=_mu(part),
    )
