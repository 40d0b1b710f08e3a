"""From the plan of a separable block to its recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from implicitdsl.analysis.separable import Separable, Side
from implicitdsl.backward.failure import Failures
from implicitdsl.families.call import Call
from implicitdsl.ir import build
from implicitdsl.ir.function import Functions
from implicitdsl.ir.model import Model
from implicitdsl.ir.nodes import Expr, symbols
from implicitdsl.ir.plan import EQUAL, BlockPlan
from implicitdsl.lowering.codegen import generate, opaques_of
from implicitdsl.lowering.source import Program

from .separable import HIGH, LOW, A, P, Q, SeparableRecipe, Share


class Language(Protocol):
    """What this asks of a language: its functions."""

    @property
    def function_table(self) -> Functions: ...


def separable_recipe(
    part: BlockPlan,
    model: Model,
    sizes: Mapping[str, int],
    language: Language,
    failures: Failures,
    duals: Sequence[tuple[str, str]],
) -> SeparableRecipe:
    """All that `SeparableBlock` runs; `duals` are the key and the label of each multiplier that is asked for."""
    form = _form(part)
    places, outputs = _outputs(form)
    inputs = tuple(sorted(symbols(*outputs), key=lambda s: s.name))
    opaques = opaques_of(*outputs)
    shares: list[Share] = []
    shapes: list[tuple[str, tuple[int, ...]]] = []
    for key, label in duals:
        mine = [(side, at, s) for side, at, s in _sides(form) if s.constraint.label == label]
        shares += [Share(key, side, at, s.constraint.sign / s.scale) for side, at, s in mine]
        bodies = [s.constraint.body for _, _, s in mine]
        if form.coupling is not None and form.coupling.label == label:
            shares.append(Share(key, A, 0, form.coupling.sign))
            bodies.append(form.coupling.body)
        shapes.append((key, tuple(d.evaluate(sizes) for d in bodies[0].shape)))
    names = ", ".join(u.name for u in form.unknowns)
    return SeparableRecipe(
        program=Program(
            f"{model.name or 'layer'} {names}",
            generate("coefficients", inputs, outputs, language.function_table, sizes),
        ),
        call=Call("coefficients", tuple(s.name for s in inputs), opaques),
        unknowns=tuple((u.name, tuple(d.evaluate(sizes) for d in u.shape)) for u in form.unknowns),
        parts=places,
        coupled=form.coupling is not None,
        equality=form.coupling is not None and form.coupling.kind == EQUAL,
        duals=tuple(shares),
        shapes=tuple(shapes),
        failures=failures,
        given=tuple((s.name, s.rank) for s in inputs),
    )


def separable_source(part: BlockPlan, language: Language) -> str:
    """The generated Python for any sizes; dimensions that no input shows are further arguments."""
    form = _form(part)
    _, outputs = _outputs(form)
    inputs = tuple(sorted(symbols(*outputs), key=lambda s: s.name))
    try:
        return generate("coefficients", inputs, outputs, language.function_table, {})
    except KeyError:
        dims = sorted({n for u in form.unknowns for d in u.shape for n in d.names})
        return generate("coefficients", inputs, outputs, language.function_table, {}, dims=dims)


def _form(part: BlockPlan) -> Separable:
    fact = part.fact("separable")
    assert fact is not None, "the rung suits separable programs"
    assert isinstance(fact.value, Separable), "the rung suits separable programs"
    return fact.value


def _sides(form: Separable) -> list[tuple[int, int, Side]]:
    found: list[tuple[int, int, Side]] = []
    for side, group in ((LOW, form.lower), (HIGH, form.upper)):
        found += [(side, at, s) for at, s in enumerate(group) if s is not None]
    return found


def _outputs(form: Separable) -> tuple[tuple[tuple[int, int], ...], list[Expr]]:
    """What each output is, and the outputs; b comes last."""
    places: list[tuple[int, int]] = []
    outputs: list[Expr] = []
    for at, u in enumerate(form.unknowns):
        row = [(P, form.p[at]), (Q, form.q[at]), *((A, a) for a in form.a[at : at + 1])]
        for side, e in row:
            places.append((side, at))
            outputs.append(_full(e, u))
    for side, at, s in _sides(form):
        places.append((side, at))
        outputs.append(_full(s.bound, form.unknowns[at]))
    return tuple(places), outputs if form.b is None else [*outputs, form.b]


def _full(e: Expr, u: Expr) -> Expr:
    """A number as a tensor of the unknown's shape."""
    return e if e.shape == u.shape else build.mul(e, build.ones(u.shape))
