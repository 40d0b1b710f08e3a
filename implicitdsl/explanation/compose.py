"""Plan → Document: symbols, then each solve with its equation, backward pass, facts and choices, then the outputs."""

from __future__ import annotations

from collections.abc import Mapping

from implicitdsl.analysis.evolution import Evolution
from implicitdsl.analysis.separable import Separable
from implicitdsl.ground.facts import Fact, Interval, Smoothness
from implicitdsl.ir.dims import Dim, size_of
from implicitdsl.ir.function import Functions
from implicitdsl.ir.model import Block, Model, OutputValue, Symbol
from implicitdsl.ir.nodes import symbols
from implicitdsl.ir.plan import BlockPlan, Choice, Plan
from implicitdsl.ir.printer import show, show_name, show_options

from .adjoint import adjoint_items
from .backward import backward_items
from .derive import unhoisted
from .document import Document, Entry, Formula, Formulas, Item, Points, Prose, Section, Table
from .optimality import optimality_items
from .unicode import show_dim

SHOWN = (
    "explicit",
    "linear",
    "separable",
    "affine",
    "elementwise",
    "bracket",
    "contraction",
    "monotone",
    "existence",
    "smoothness",
    "opaque",
)
"""Facts worth a reader's time, in this order."""

Sizes = Mapping[str, int]


def compose(plan: Plan, functions: Functions, sizes: Sizes) -> Document:
    """Everything that is known about a layer."""
    model = plan.model
    name = "Layer" if model.name is None else f"Layer {model.name}"
    dims = f"({', '.join(model.dims)})" if model.dims and model.name is not None else ""
    sections = [_symbols(model, sizes)]
    if model.definitions:
        lines = tuple(Formula(name, value) for name, value in model.definitions)
        sections.append(Section("Definitions", (Formulas("", lines),)))
    sections += [_solve(block, model, functions) for block in plan.blocks]
    sections.append(Section("Outputs", (Formulas("", tuple(map(_output, model.outputs))),)))
    return Document(name + dims, tuple(sections))


def _output(o: OutputValue) -> Formula:
    plain = o.expr.op == "sym" and o.expr.name == o.name
    return Formula("" if plain else o.name, o.expr, "" if plain else "=", _shape(o.expr.shape))


# -- symbols -----------------------------------------------------------------------------------------------------------


def _symbols(model: Model, sizes: Sizes) -> Section:
    groups = {"given": model.givens, "param": model.params, "const": model.consts}
    rows = [_row(kind, s) for kind, group in groups.items() for s in group]
    rows += [_row("unknown", s) for block in model.blocks for s in block.unknowns]
    for o in model.opaques:
        results = ", ".join(map(_shape, o.results))
        signature = f"{', '.join(map(_shape, o.args))} → {results}"
        rows.append((o.name, "fn" if o.layer is None else "layer", signature, o.path or ""))
    table = Table(("name", "kind", "shape", "in"), tuple(rows))
    return Section("Symbols", (table, Prose(_count(model, sizes))))


def _row(kind: str, s: Symbol) -> tuple[str, ...]:
    return (s.name, kind, _shape(s.shape), s.set.text)


def _shape(shape: tuple[Dim, ...]) -> str:
    return f"({', '.join(map(show_dim, shape))})"


def parameters(model: Model) -> Dim:
    """The number of entries of all params, those of sub-layers included, in the dimensions of the model."""
    total = Dim(())
    for s in model.params:
        total = total + size_of(s.shape)
    for o in model.opaques:
        if o.layer is not None:
            total = total + parameters(o.layer).subs(dict(o.sizes))
    return total


def _count(model: Model, sizes: Sizes) -> str:
    total = parameters(model)
    text = f"{show_dim(total)} parameter{'' if total.value == 1 else 's'}"
    if total.value is None and total.names <= sizes.keys():
        given = ", ".join(f"{name} = {sizes[name]}" for name in sorted(total.names))
        text = f"{show_dim(total)} = {total.evaluate(sizes)} parameters for {given}"
    bound = [o.name for o in model.opaques if o.layer is None]
    return text + (f", and those of {', '.join(bound)}" if bound else "") + "."


# -- a solve -----------------------------------------------------------------------------------------------------------


def _solve(part: BlockPlan, model: Model, functions: Functions) -> Section:
    items: list[Item] = [_forward(part.block)]
    if part.system is not None:
        system = unhoisted(part.system)
        names = ", ".join(show(u) for u in system.unknowns)
        marks = [""] if len(system.residual) == 1 else [_subscript(i + 1) for i in range(len(system.residual))]
        rows = zip(marks, system.residual, strict=True)
        residual = tuple(Formula(f"F{mark}({names})", r, remark="= 0") for mark, r in rows)
        items.append(Formulas("Residual", residual))
        if part.system.hoisted:
            invariants = tuple(Formula(c, e) for c, e in part.system.hoisted)
            items.append(Formulas("Computed once, before the solve", invariants))
        wanted = [s.node for s in (*model.givens, *model.params, *model.consts)]
        earlier = [s.node for b in model.blocks for s in b.unknowns if s.node not in system.unknowns]
        present = symbols(*system.residual)
        items += backward_items(system, [a for a in (*wanted, *earlier) if a in present], part.backward, functions)
    fact = part.fact("evolution")
    if fact is not None and isinstance(fact.value, Evolution):
        present = symbols(*fact.value.rates)
        wanted = [s.node for s in (*model.givens, *model.params, *model.consts) if s.node in present]
        items += adjoint_items(fact.value, wanted, part.forward[0], functions)
    if part.program is not None:
        present = symbols(part.program.objective, *(c.body for c in part.program.constraints))
        wanted = [s.node for s in (*model.givens, *model.params, *model.consts)]
        wanted += [s.node for b in model.blocks for s in b.unknowns if s.node not in part.program.unknowns]
        smoothed = part.backward.method == "smoothed"
        items += optimality_items(part.program, [a for a in wanted if a in present], functions, smoothed)
    facts = tuple(_fact(f) for name in SHOWN if (f := part.fact(name)) is not None and _worth(f, part))
    if facts:
        items.append(Points("What is proved", facts))
    steps = tuple(Entry(f"{_call(c)}: {c.reason}") for c in part.forward)
    items.append(Points("Forward", steps))
    items.append(Points("Backward", (Entry(f"{_call(part.backward)}: {part.backward.reason}"),)))
    return Section("Solve for " + ", ".join(s.name for s in part.block.unknowns), tuple(items))


def _subscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _forward(block: Block) -> Formulas:
    lines = [Formula(e.lhs, e.rhs, e.op, remark=_where(e.label, e.index)) for e in block.equations if e.op != "in"]
    if block.objective is not None:
        lines.insert(0, Formula(f"arg{block.sense}", block.objective, ""))
    return Formulas("Equations", tuple(lines))


def _where(label: str | None, index: tuple[tuple[str, Dim, Dim], ...]) -> str:
    ranges = [f"for {show_name(name)} in {show_dim(lo)}:{show_dim(hi)}" for name, lo, hi in index]
    return ", ".join([*([label] if label else []), *ranges])


def _call(choice: Choice) -> str:
    """`anderson(depth=5)`."""
    options = show_options(choice.options)
    return f"{choice.method}({options})" if options else choice.method


def _worth(fact: Fact, part: BlockPlan) -> bool:
    """Every proved fact; of what is not proved, the contraction of a step that is iterated."""
    if fact.value is not None:
        return True
    affine = part.fact("affine")
    iterated = part.system is not None and part.system.step is not None and (affine is None or affine.value is None)
    return fact.name == "contraction" and iterated


def _fact(fact: Fact) -> Entry:
    value = fact.value
    if value is None:
        return Entry(f"{fact.name}: not proved", fact.proof)
    shown = {True: "yes"}.get(value, "") if isinstance(value, bool) else _value(value)
    return Entry(f"{fact.name}: {shown}", fact.proof)


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Interval):
        return f"[{value.lo:g}, {value.hi:g}]"
    if isinstance(value, Smoothness):
        return value.name.lower()
    if isinstance(value, Separable):  # its parts are what the proof is about
        return "yes"
    if isinstance(value, tuple):
        if any(isinstance(v, tuple) for v in value):  # places of states, which the proof names
            return "yes"
        return ", ".join(map(str, value))
    return str(value)
