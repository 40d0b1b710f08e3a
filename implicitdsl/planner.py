"""Facts and wishes → Plan: which solver, which backward rule, and why.

The conditions and prices of a rung are in its descriptor (`Method.suits`); here they are only asked in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Protocol

from .analysis import Analysis, BlockFacts, Calculus, analyse, squared_norms, symmetric
from .calculus import cancel, expand, hoist, inline, linearize, simplify, vjp
from .ground.facts import Fact
from .ground.methods import Method
from .ir.function import Functions
from .ir.model import Model, Options
from .ir.nodes import Expr
from .ir.plan import BlockPlan, Choice, Plan, System
from .ir.queries import answered, queries

RUNGS = 3
"""How many solvers a ladder holds: the first and those that take over rows that stall."""

EXPLICIT = "explicit"
"""The method of a block that needs no solver: evaluate the steps, differentiate them as they are."""

Sizes = Mapping[str, int | None]


class Language(Protocol):
    """What the planner asks of a language: functions by name, methods of a sentence in order of preference."""

    @property
    def function_table(self) -> Functions: ...

    def methods(self, sentence: str, role: str) -> tuple[Method, ...]: ...


def analyse_model(model: Model, language: Language, sizes: Sizes | None = None) -> Analysis:
    """The facts of a model, with definitions inlined and derivative operators carried out."""
    functions = language.function_table

    sets = {s.node: s.set for s in model.params}  # of a given, symmetry is an assumption: its gradient is not changed

    asked = {q.node: q.symbol for group in queries(model) for q in group}

    @cache
    def written_out(e: Expr) -> Expr:
        written = squared_norms(answered(inline(e, model.definitions), asked))
        expanded = expand(written, functions)
        return expanded if expanded is written else simplify(symmetric(expanded, sets))

    return analyse(model, functions, written_out, sizes, Calculus(linearize, vjp, simplify, cancel))


def plan(model: Model, language: Language, sizes: Sizes | None = None, analysis: Analysis | None = None) -> Plan:
    """The plan of a layer. Sizes may be unknown while checking; the reasons then say on what the choice depends.

    `analysis` saves computing the facts again, if it was made with the same sizes.
    """
    found = analysis if analysis is not None else analyse_model(model, language, sizes)
    return Plan(model, tuple(_block(part, language, sizes or {}) for part in found.blocks))


def _block(part: BlockFacts, language: Language, sizes: Sizes) -> BlockPlan:
    system = None if part.system is None else _hoisted(part.system)
    if part.value("explicit"):
        reason = part.facts_by_name["explicit"].proof[0]
        choice = Choice(EXPLICIT, f"no solver needed: {reason}")
        return BlockPlan(part.block, system, part.facts, (choice,), Choice(EXPLICIT, "ordinary chain rule"))
    wishes = part.block.wishes
    forward = _asked(wishes.forward) or _ladder(part, language.methods(part.block.sentence, "forward"), sizes, RUNGS)
    backward = _asked(wishes.backward) or _ladder(part, language.methods(part.block.sentence, "backward"), sizes, 1)
    return BlockPlan(part.block, system, part.facts, forward, backward[0], part.smooth)


def _hoisted(system: System) -> System:
    """The system in terms of its loop invariants."""
    steps = system.step or ()
    written, invariants = hoist((*system.residual, *steps), system.unknowns)
    count = len(system.residual)
    step = None if system.step is None else written[count:]
    return System(system.unknowns, written[:count], step, invariants)


def _asked(options: Options | None) -> tuple[Choice, ...]:
    """What `using` says, alone: no other method takes over."""
    return () if options is None else (Choice(options.method, "asked for by `using`", options.values),)


def _ladder(part: BlockFacts, methods: tuple[Method, ...], sizes: Sizes, rungs: int) -> tuple[Choice, ...]:
    """The methods that suit, in order of preference, then those of last resort. Where none states a condition, the
    first is the default."""
    facts: Mapping[str, Fact] = part.facts_by_name
    found: list[Choice] = []
    for method, condition in [*((m, m.suits) for m in methods), *((m, m.takes_over) for m in methods)]:
        if condition is None or len(found) == rungs or any(c.method == method.name for c in found):
            continue
        suits, reason, *options = condition(facts, sizes)
        if suits:
            why = reason if not found else f"takes over what stalls: {reason}"
            found.append(Choice(method.name, why, *options))
    if not found:
        found.append(Choice(methods[0].name, f"the default: {methods[0].doc}"))
    return tuple(found)
