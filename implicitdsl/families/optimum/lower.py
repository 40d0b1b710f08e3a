"""From the plan of an `argmin` block to what runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from implicitdsl.backward.failure import Failures
from implicitdsl.backward.kkt import Spec
from implicitdsl.ground.methods import Method
from implicitdsl.ir.dims import size_of
from implicitdsl.ir.function import Functions
from implicitdsl.ir.model import Model
from implicitdsl.ir.nodes import Expr, symbols
from implicitdsl.ir.plan import BlockPlan
from implicitdsl.lowering.codegen import generate, opaques_of
from implicitdsl.lowering.source import Program
from implicitdsl.lowering.stages import queries

from .block import Call, OptimumBlock, Recipe, Rows
from .coefficients import Coefficients, coefficients


class Language(Protocol):
    """What lowering asks of a language: its functions, and methods by name."""

    @property
    def function_table(self) -> Functions: ...

    def method(self, sentence: str, role: str, name: str) -> Method | None: ...


def lower(parts: Sequence[BlockPlan], model: Model, sizes: Mapping[str, int], language: Language) -> Any:
    """The runner of one `argmin` block."""
    (part,) = parts
    return OptimumBlock(_recipe(part, model, sizes, language))


def source(part: BlockPlan, language: Language) -> str:
    """The generated Python of a block for any sizes; dimensions that no input shows are further arguments."""
    found = _coefficients(part, language)
    try:
        return _write(found, language, {})[0]
    except KeyError:
        dims = sorted({n for u in part.block.unknowns for d in u.shape for n in d.names})
        return _write(found, language, {}, dims)[0]


def _coefficients(part: BlockPlan, language: Language) -> Coefficients:
    assert part.program is not None, "an argmin block has a normal form"
    return coefficients(part.program, language.function_table)


def _write(
    found: Coefficients, language: Language, sizes: Mapping[str, int], dims: Sequence[str] = ()
) -> tuple[str, tuple[Expr, ...], tuple[str, ...]]:
    """The text of `coefficients`, its tensor inputs and the functions it calls."""
    inputs = tuple(sorted(symbols(*found.outputs), key=lambda s: s.name))
    opaques = opaques_of(*found.outputs)
    text = generate("coefficients", inputs, found.outputs, language.function_table, sizes, dims=dims)
    return text, inputs, opaques


def _recipe(part: BlockPlan, model: Model, sizes: Mapping[str, int], language: Language) -> Recipe:
    found = _coefficients(part, language)
    text, inputs, opaques = _write(found, language, sizes)
    names = ", ".join(u.name for u in part.block.unknowns)
    choice = part.forward[0]
    at, equalities = 0, 0
    rows: list[Rows] = []
    for k, c in enumerate(found.rows):
        count = size_of(c.body.shape).evaluate(sizes)
        shape = tuple(d.evaluate(sizes) for d in c.body.shape)
        rows.append(Rows(at, at + count, shape, c.label, c.sign))
        at += count
        equalities = at if k < found.equalities else equalities
    line = model.source.position(part.block.span.start)[0]
    failures = Failures(part.block.wishes.on_failure or "warn", f"{model.source.name}:{line}")
    solver = None
    if choice.method != "direct":
        method = language.method("optimum", "forward", choice.method)
        assert method is not None, f"the planner chose {choice.method}, which no family has"
        solver = method.load()(**dict(choice.options))
    (asked,) = [q for block, q in zip(model.blocks, queries(model), strict=True) if block is part.block]
    return Recipe(
        program=Program(f"{model.name or 'layer'} {names}", text),
        call=Call("coefficients", tuple(s.name for s in inputs), opaques),
        curved=found.P is not None,
        unknowns=tuple((u.name, tuple(d.evaluate(sizes) for d in u.shape)) for u in found.unknowns),
        rows=tuple(rows),
        duals=tuple((q.name, str(q.node.attrs[0])) for q in asked),
        spec=Spec(solver, equalities, failures),
        method=choice.method,
    )
