"""The torch-free half: a file's text to checked, analysed and planned layers, with every finding on the way."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from implicitdsl.ground.records import dataclass

from .analysis import Analysis, diagnose
from .calculus import inline
from .checking import check as check_program
from .ground.diagnostics import Diagnostic
from .ground.source import Source, Span
from .ir.model import Model, SetInfo, Symbol
from .ir.nodes import walk
from .ir.plan import Plan
from .ir.queries import roots
from .language import LANGUAGE, Language
from .planner import analyse_model, plan
from .syntax import ast
from .syntax.parser import Parsed, parse

DEBUG = "IMPLICITDSL_DEBUG"
"""The environment variable under which internal errors propagate instead of becoming IMP999."""

_REQUEST = "this is a fault of implicitdsl, not of the spec: please report it with the spec"
_SENTENCES = {"sde": "stochastic differential equations", "pde": "partial differential equations"}


@dataclass(frozen=True)
class Planned:
    """A layer that was checked without errors, with what is proved of it and how it will be solved."""

    model: Model
    analysis: Analysis
    plan: Plan


@dataclass(frozen=True)
class Front:
    """What the torch-free half makes of a file: tokens and tree, its layers ("" for a bare text), and all findings."""

    source: Source
    parsed: Parsed
    layers: Mapping[str, Planned]
    models: Mapping[str, Model]
    diagnostics: tuple[Diagnostic, ...]

    @property
    def failed(self) -> bool:
        return any(d.is_error for d in self.diagnostics)


def front(source: Source, language: Language = LANGUAGE, importing: tuple[Path, ...] = ()) -> Front:
    """Parse, check, analyse and plan every layer of a file. Never raises for what a spec may say (see `DEBUG`)."""
    found: list[Diagnostic] = []
    parsed = Parsed(ast.Program(Span(0, len(source.text)), (), ()), (), ())
    models: Mapping[str, Model] = {}
    planned: dict[str, Planned] = {}
    with _Internal(found, source, Span(0, 0)):
        parsed = parse(source)
        found += parsed.diagnostics
    with _Internal(found, source, parsed.program.span):
        imported = _imports(parsed.program, source, language, importing, found)
        checked = check_program(parsed.program, source, language, imported)
        found += checked.diagnostics
        models = checked.models
    for name, model in models.items():
        with _Internal(found, source, model.span):
            planned[name] = planned_model(model, language, found)
    return Front(source, parsed, planned, models, _sorted(found))


def planned_model(model: Model, language: Language, found: list[Diagnostic]) -> Planned:
    """Facts and plan of a checked layer; what they give rise to is added to `found`."""
    analysis = analyse_model(model, language)
    signed = _signed(model, analysis, language)
    if signed:
        model = replace(model, givens=tuple(signed.get(g.name, g) for g in model.givens))
        found[:] = [_restated(d, signed) for d in found]
        analysis = analyse_model(model, language)
    found += diagnose(analysis)
    for block in model.blocks:
        family = next((f for f in language.families if f.sentence == block.sentence), None)
        if family is None or family.lower is None:
            what = _SENTENCES.get(block.sentence, "this sentence") if family is None else family.title
            found.append(Diagnostic("IMP910", f"not lowered yet: {what}", block.span, model.source))
        elif family.gap is not None:
            parts = [part for part in analysis.blocks if part.origin is block]
            gaps = [gap for part in parts if (gap := family.gap(part.block, part.facts_by_name)) is not None]
            found += [Diagnostic("IMP910", f"not lowered yet: {gap}", block.span, model.source) for gap in gaps]
    found += _estimates(model)
    owned = {f.sentence for f in language.families if f.methods}
    if any(block.sentence not in owned for block in model.blocks):
        return Planned(model, analysis, Plan(model, ()))
    return Planned(model, analysis, plan(model, language, analysis=analysis))


def _signed(model: Model, analysis: Analysis, language: Language) -> dict[str, Symbol]:
    """Numbers that a bare text does not declare and that must be ≥ 0 for its programs to be convex, as `R` ∩ ≥ 0.

    Convexity is judged as if they were (`lam ||z||_1`), so the completed spec and IMP120 say it.
    """
    numbers = [g for g in model.givens if g.filled and not g.shape and g.set.name == "R"]
    if not numbers or not any(_is_convex(analysis)):
        return {}
    found: dict[str, Symbol] = {}
    for g in numbers:
        others = tuple(replace(x, filled=False) if x is g else x for x in model.givens)
        if _is_convex(analyse_model(replace(model, givens=others), language)) != _is_convex(analysis):
            found[g.name] = replace(g, set=SetInfo("nonneg", (), (), "nonneg"))
    return found


def _is_convex(analysis: Analysis) -> list[bool]:
    """Of each program that has to be convex, whether it is by the rules."""
    asked = ((part, part.block.wishes.forward) for part in analysis.blocks)
    facts = (p.facts_by_name.get("convex") for p, wish in asked if wish is None or wish.method != "nlp")
    return [fact.value is not None for fact in facts if fact is not None]


def _restated(d: Diagnostic, signed: Mapping[str, Symbol]) -> Diagnostic:
    """IMP120 of a number that is taken to be ≥ 0."""
    for name, g in signed.items():
        if d.code == "IMP120" and d.span == g.span:
            return replace(d, message=d.message.replace(f"{name} in R`", f"{name} in nonneg`"))
    return d


def _estimates(model: Model) -> list[Diagnostic]:
    """Divergences by Hutchinson's estimate where no solve would draw its noise."""
    values = [o.expr for o in model.outputs]
    for block in model.blocks:
        if block.sentence != "ode":
            values += roots(block)
    places = [e.span for e in walk(*(inline(v, model.definitions) for v in values)) if e.op == "divergence" and e.attrs]
    what = "not lowered yet: Hutchinson's estimate outside of a differential equation"
    return [Diagnostic("IMP910", what, span or model.span, model.source) for span in places]


def _imports(
    program: ast.Program, source: Source, language: Language, importing: tuple[Path, ...], found: list[Diagnostic]
) -> dict[str, Model | None]:
    """Imported layers by name; None where the file or the layer has errors, which are reported here, once."""
    models: dict[str, Model | None] = {}
    here = Path(source.name).resolve() if not source.name.startswith("<") else Path.cwd() / source.name
    for item in program.imports:
        path = (here.parent / item.path.text).resolve()
        for name in item.names:
            if name.text in models:
                found.append(Diagnostic("IMP102", f"layer `{name.text}` is imported twice", name.span, source))
            models[name.text] = None
        if path in (*importing, here):
            chain = [*importing, here]
            found.append(_circular([*chain[chain.index(path) :], path], item, source))
            continue
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            found.append(Diagnostic("IMP006", f"cannot read `{item.path.text}`: {reason}", item.path.span, source))
            continue
        other = front(Source(_shown(path, here.parent, source), text), language, (*importing, here))
        errors = [d for d in other.diagnostics if d.is_error]
        loop = next((d for d in errors if d.code == "IMP105" and _goes_through(d, here)), None)
        if loop is not None:
            found.append(Diagnostic("IMP105", loop.message, item.path.span, source))
        elif errors:
            notes = tuple(f"{d.file}:{d.line}:{d.column}: [{d.code}] {d.message}" for d in errors[:5])
            message = f"`{item.path.text}` has {len(errors)} error{'s' if len(errors) > 1 else ''}"
            found.append(Diagnostic("IMP006", message, item.path.span, source, notes=notes))
        for name in item.names:
            models[name.text] = other.models.get(name.text)
            if name.text not in other.models and not errors:
                close = nearest(name.text, other.models)
                found.append(
                    Diagnostic(
                        "IMP101", f"`{item.path.text}` has no layer `{name.text}`", name.span, source, help=close
                    )
                )
    return models


_CIRCLE = "files import each other: "


def _circular(chain: Sequence[Path], item: ast.Import, source: Source) -> Diagnostic:
    """IMP105 for files in a circle; the first is also the last."""
    return Diagnostic("IMP105", _CIRCLE + " → ".join(p.name for p in chain), item.path.span, source)


def _goes_through(circle: Diagnostic, file: Path) -> bool:
    """Whether a circle of files that another file reports holds this file."""
    return circle.message.startswith(_CIRCLE) and file.name in circle.message.removeprefix(_CIRCLE).split(" → ")


def _shown(path: Path, folder: Path, source: Source) -> str:
    """An imported file's name as a reader of the importing file's diagnostics would write it."""
    own = Path(source.name).parent if not source.name.startswith("<") else Path()
    return os.path.join(own, os.path.relpath(path, folder))


class _Internal:
    """Turns an unexpected exception into IMP999 at a place, unless `DEBUG` is set in the environment; chains of more
    definitions than Python's stack holds are the spec's doing (IMP004).
    """

    def __init__(self, found: list[Diagnostic], source: Source, span: Span) -> None:
        self.found, self.source, self.span = found, source, span

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception) or os.environ.get(DEBUG):
            return False
        if isinstance(error, RecursionError):
            message = "definitions or expressions here are nested too deeply"
            help_text = "fewer definitions between an input and an output, or a vector in place of many names"
            self.found.append(Diagnostic("IMP004", message, self.span, self.source, help=help_text))
            return True
        name = type(error).__name__
        notes = (f"{name}: {error}", f"set {DEBUG}=1 to see the traceback")
        self.found.append(Diagnostic("IMP999", "internal error", self.span, self.source, notes=notes, help=_REQUEST))
        return True


def _sorted(found: Sequence[Diagnostic]) -> tuple[Diagnostic, ...]:
    """By place, each once."""
    seen: dict[tuple[object, ...], Diagnostic] = {}
    for d in found:
        seen.setdefault((d.code, d.span, d.message, d.source.name), d)
    return tuple(sorted(seen.values(), key=lambda d: (d.span, d.code)))


def nearest(name: str, names: Mapping[str, object] | Sequence[str]) -> str | None:
    """A question that names what was probably meant."""
    close = get_close_matches(name, [n for n in names if n], n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else None
