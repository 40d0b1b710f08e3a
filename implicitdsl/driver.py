"""Text to module: parse → check → analyse → plan → lower, each stage a value that can be printed.

`check_source` and all of `emit` but the last stage are torch-free; `compile` imports PyTorch.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .analysis import Analysis, diagnose
from .check import check as check_program
from .check import complete
from .explanation import explain as explain_plan
from .ground.diagnostics import Diagnostic, Level
from .ground.errors import SpecError, SpecWarning
from .ground.render import text as render_text
from .ground.source import Source, Span
from .ir.model import Model
from .ir.plan import Plan
from .language import LANGUAGE, Language
from .planner import analyse_model, plan
from .syntax import ast
from .syntax.parser import Parsed, parse

if TYPE_CHECKING:
    from .lowering.layer import Layer

DEBUG = "IMPLICITDSL_DEBUG"
"""The environment variable under which internal errors propagate instead of becoming IMP999."""

_REQUEST = "this is a fault of implicitdsl, not of the spec: please report it with the spec"


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


# -- stages ------------------------------------------------------------------------------------------------------------


def front(source: Source, language: Language = LANGUAGE, importing: tuple[Path, ...] = ()) -> Front:
    """Parse, check, analyse and plan every layer of a file. Never raises for what a spec may say (see `DEBUG`)."""
    found: list[Diagnostic] = []
    parsed = Parsed(ast.Program(Span(0, len(source.text)), (), ()), (), ())
    models: Mapping[str, Model] = {}
    planned: dict[str, Planned] = {}
    with _internal(found, source, Span(0, 0)):
        parsed = parse(source)
        found += parsed.diagnostics
    with _internal(found, source, parsed.program.span):
        imported = _imports(parsed.program, source, language, importing, found)
        checked = check_program(parsed.program, source, language, imported)
        found += checked.diagnostics
        models = checked.models
    for name, model in models.items():
        with _internal(found, source, model.span):
            planned[name] = _planned(model, language, found)
    return Front(source, parsed, planned, models, _sorted(found))


def _planned(model: Model, language: Language, found: list[Diagnostic]) -> Planned:
    analysis = analyse_model(model, language)
    found += diagnose(analysis)
    for block in model.blocks:
        family = next((f for f in language.families if f.sentence == block.sentence), None)
        if family is None or family.lower is None:
            what = "this sentence" if family is None else family.title
            found.append(Diagnostic("IMP910", f"not lowered yet: {what}", block.span, model.source))
    owned = {f.sentence for f in language.families if f.methods}
    if any(block.sentence not in owned for block in model.blocks):
        return Planned(model, analysis, Plan(model, ()))
    return Planned(model, analysis, plan(model, language, analysis=analysis))


def _imports(
    program: ast.Program, source: Source, language: Language, importing: tuple[Path, ...], found: list[Diagnostic]
) -> dict[str, Model | None]:
    """Imported layers by name; None where the file or the layer has errors, which are reported here, once."""
    models: dict[str, Model | None] = {}
    here = Path(source.name).resolve() if not source.name.startswith("<") else Path.cwd() / source.name
    for item in program.imports:
        path = (here.parent / item.path.text).resolve()
        models |= {name.text: None for name in item.names}
        if path in (*importing, here):
            chain = [p.name for p in (*importing, here)]
            found.append(
                Diagnostic("IMP105", f"files import each other: {' → '.join([*chain, path.name])}", item.path.span, source)
            )
            continue
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            found.append(Diagnostic("IMP006", f"cannot read `{item.path.text}`: {reason}", item.path.span, source))
            continue
        other = front(Source(_shown(path, here.parent, source), text), language, (*importing, here))
        errors = [d for d in other.diagnostics if d.is_error]
        if errors:
            notes = tuple(f"{d.file}:{d.line}:{d.column}: [{d.code}] {d.message}" for d in errors[:5])
            message = f"`{item.path.text}` has {len(errors)} error{'s' if len(errors) > 1 else ''}"
            found.append(Diagnostic("IMP006", message, item.path.span, source, notes=notes))
        for name in item.names:
            models[name.text] = other.models.get(name.text)
            if name.text not in other.models and not errors:
                close = _nearest(name.text, other.models)
                found.append(
                    Diagnostic("IMP101", f"`{item.path.text}` has no layer `{name.text}`", name.span, source, help=close)
                )
    return models


def _shown(path: Path, folder: Path, source: Source) -> str:
    """An imported file's name as a reader of the importing file's diagnostics would write it."""
    own = Path(source.name).parent if not source.name.startswith("<") else Path()
    return os.path.join(own, os.path.relpath(path, folder))


class _internal:
    """Turns an unexpected exception into IMP999 at a place, unless `DEBUG` is set in the environment."""

    def __init__(self, found: list[Diagnostic], source: Source, span: Span) -> None:
        self.found, self.source, self.span = found, source, span

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception) or os.environ.get(DEBUG):
            return False
        name = type(error).__name__
        notes = (f"{name}: {error}", f"set {DEBUG}=1 to see the traceback")
        self.found.append(
            Diagnostic("IMP999", "internal error", self.span, self.source, notes=notes, help=_REQUEST)
        )
        return True


def _sorted(found: Sequence[Diagnostic]) -> tuple[Diagnostic, ...]:
    """By place, each once."""
    seen: dict[tuple[object, ...], Diagnostic] = {}
    for d in found:
        seen.setdefault((d.code, d.span, d.message, d.source.name), d)
    return tuple(sorted(seen.values(), key=lambda d: (d.span, d.code)))


# -- the face ----------------------------------------------------------------------------------------------------------


def check_source(source: Source, language: Language = LANGUAGE) -> list[Diagnostic]:
    """Every finding about a file, by place. Imports neither torch nor cvxpy nor sympy."""
    return list(front(source, language).diagnostics)


def check(text: str, *, language: Language = LANGUAGE) -> list[Diagnostic]:
    """Every finding about a spec given as text: errors, warnings and infos, by place."""
    return check_source(Source("<string>", text), language)


def compile(
    spec: str | Path,
    *,
    layer: str | None = None,
    language: Language = LANGUAGE,
    debug: bool = False,
    bind: Mapping[str, Any] | None = None,
    **bindings: Any,
) -> Layer:
    """A spec (a `str` is its text, a `Path` its file) as an `nn.Module`.

    Keywords bind dimensions, constants and functions by their names in the spec; `bind` does the same for names that clash
    with a keyword of this function. Dimensions left out are found at the first call. `layer` picks one of several layers.
    `debug` verifies at each call that inputs lie in their sets.

    Raises `SpecError` for errors in the spec, `TypeError` for a keyword that names nothing in it, `OSError` for a file that
    cannot be read, `ValueError` where `layer` is needed or names none.
    """
    source = _read(spec)
    made = front(source, language)
    _refuse(made)
    return _lower(made, _pick(made, layer), language, debug, {**bindings, **(bind or {})})


def load(path: str | Path, *, language: Language = LANGUAGE) -> Namespace:
    """The layers of a file as factories: `load("nets.imp").Deq(n=64, m=32)` is a compiled layer.

    Raises `SpecError` for errors in the file and `OSError` where it cannot be read.
    """
    made = front(_read(Path(path)), language)
    _refuse(made)
    return Namespace(made, language)


class Namespace:
    """Layers of a file by name, each a factory that takes `compile`'s bindings."""

    def __init__(self, made: Front, language: Language) -> None:
        self._made, self._language = made, language

    def __getattr__(self, name: str) -> Factory:
        if name.startswith("__") or name not in self._made.layers:
            close = _nearest(name, self._made.layers)
            raise AttributeError(f"{self._made.source.name} has no layer `{name}`" + (f"; {close}" if close else ""))
        return Factory(self._made, name, self._language)

    def __dir__(self) -> list[str]:
        return [name for name in self._made.layers if name]

    def __repr__(self) -> str:
        return f"<layers of {self._made.source.name}: {', '.join(dir(self))}>"


@dataclass(frozen=True)
class Factory:
    """Compiles one layer of a file that was read already."""

    made: Front
    name: str
    language: Language

    def __call__(self, *, debug: bool = False, bind: Mapping[str, Any] | None = None, **bindings: Any) -> Layer:
        return _lower(self.made, self.made.layers[self.name], self.language, debug, {**bindings, **(bind or {})})


def explain(
    subject: Any, layer: str | None = None, format: str = "text", *, language: Language = LANGUAGE
) -> str:
    """The derivation of a spec (text, path or `Source`) or of a compiled layer, as "text", "markdown" or "latex".

    Every layer of a file, unless one is picked. Raises `SpecError` for errors in the spec, ValueError for another format or
    a layer that is not there.
    """
    if not isinstance(subject, str | Path | Source):
        return subject.explain(format)
    made = front(subject if isinstance(subject, Source) else _read(subject), language)
    if made.failed:
        raise _error(made.diagnostics)
    chosen = list(made.layers.values()) if layer is None else [_pick(made, layer)]
    return "\n".join(explain_plan(p.plan, language.function_table, format) for p in chosen)


def emit(source: Source, stage: str, layer: str | None = None, *, language: Language = LANGUAGE) -> str:
    """What the compiler knows after a stage: "spec", "tokens", "ast", "ir", "plan" or "python" (which imports PyTorch).

    Raises `SpecError` for errors in the spec, ValueError for another stage or a layer that is not there.
    """
    from . import stages

    made = front(source, language)
    if stage == "tokens":
        return stages.tokens(made.parsed.tokens, source)
    if stage == "ast":
        return stages.tree(made.parsed.program)
    if made.failed:
        raise _error(made.diagnostics)
    chosen = list(made.layers.values()) if layer is None else [_pick(made, layer)]
    if stage == "spec":
        return "\n".join(_completed(made, p.model) for p in chosen)
    if stage == "ir":
        return "\n".join(stages.model(p.model) for p in chosen)
    if stage == "plan":
        return "\n".join(stages.plan(p.plan) for p in chosen)
    if stage == "python":
        _refuse(made)
        return "\n\n".join(text for p in chosen for text in Recipe(p, language, source).python())
    raise ValueError(f"no stage {stage!r}: spec, tokens, ast, ir, plan or python")


def format_source(source: Source) -> str:
    """The text in the one style of `implicitdsl fmt`. Raises `SpecError` where it does not parse."""
    from .syntax.formatter import format_program

    parsed = parse(source)
    if any(d.is_error for d in parsed.diagnostics):
        raise _error(parsed.diagnostics)
    return format_program(source, parsed)


def _read(spec: str | Path) -> Source:
    if isinstance(spec, Path):
        return Source(str(spec), spec.read_text(encoding="utf-8-sig"))
    return Source("<string>", spec)


def _refuse(made: Front) -> None:
    """Errors raise; warnings are Python warnings; infos are for `check` and `explain`."""
    found = [_as_error(d) if d.code == "IMP910" else d for d in made.diagnostics]
    if any(d.is_error for d in found):
        raise _error(found)
    for d in found:
        if d.level is Level.WARNING:
            warnings.warn(f"{d.file}:{d.line}:{d.column}: [{d.code}] {d.message}", SpecWarning, stacklevel=3)


def _as_error(d: Diagnostic) -> Diagnostic:
    return Diagnostic(d.code, d.message, d.span, d.source, Level.ERROR, d.labels, d.notes, d.help, d.fixes)


def _error(found: Sequence[Diagnostic]) -> SpecError:
    shown = [d for d in found if d.level is not Level.INFO]
    return SpecError(found, render_text.render(shown))


def _pick(made: Front, layer: str | None) -> Planned:
    layers = made.layers
    if layer is not None:
        if layer not in layers:
            close = _nearest(layer, layers)
            raise ValueError(f"{made.source.name} has no layer `{layer}`" + (f"; {close}" if close else ""))
        return layers[layer]
    if len(layers) != 1:
        names = ", ".join(layers) or "none"
        raise ValueError(f"{made.source.name} has {len(layers)} layers ({names}): say which by layer=…")
    return next(iter(layers.values()))


def _nearest(name: str, names: Mapping[str, Any] | Sequence[str]) -> str | None:
    close = get_close_matches(name, [n for n in names if n], n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else None


# -- lowering ----------------------------------------------------------------------------------------------------------


def _lower(
    made: Front, planned: Planned, language: Language, debug: bool, bindings: Mapping[str, Any]
) -> Layer:
    """The module of a planned layer."""
    from .lowering.layer import Layer

    model = planned.model
    sizes, given = _sorted_bindings(model, bindings)
    recipe = Recipe(planned, language, made.source)
    for opaque in model.opaques:
        if opaque.layer is not None:
            inner = Planned(opaque.layer, analyse_model(opaque.layer, language), plan(opaque.layer, language))
            given[opaque.name] = _lower(made, inner, language, debug, {})
        elif opaque.name not in given and opaque.path is not None:
            given[opaque.name] = _imported(opaque.path)
    return Layer(
        model,
        functions=language.function_table,
        lower=recipe.lower,
        sizes=sizes,
        bindings=given,
        text=_completed(made, model),
        explain=recipe.explain,
        debug=debug,
    )


def _sorted_bindings(model: Model, bindings: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, Any]]:
    """Dimensions, and the rest. Raises TypeError for a name that can be bound to nothing, naming the nearest."""
    from .lowering.holder import dimensions

    dims = dimensions(model)
    known = [*dims, *(c.name for c in model.consts), *(o.name for o in model.opaques if o.layer is None)]
    sizes: dict[str, int] = {}
    rest: dict[str, Any] = {}
    title = f"layer `{model.name}`" if model.name else "the spec"
    for name, value in bindings.items():
        if name not in known:
            hint = _nearest(name, known) or (f"it has {', '.join(known)}" if known else "it has nothing to bind")
            raise TypeError(f"{title} has no dimension, constant or function `{name}`; {hint}")
        if name in dims:
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise TypeError(f"dimension `{name}` of {title} is a whole number, not {value!r}")
            sizes[name] = value
        else:
            rest[name] = value
    return sizes, rest


def _completed(made: Front, model: Model) -> str:
    """The spec with every default spelt out; nothing for a layer of another file, whose tree is not at hand."""
    for layer in made.parsed.program.layers:
        if model.source is made.source and (layer.name.text if layer.name else None) == model.name:
            return complete(layer, model)
    return ""


def _imported(path: str) -> Any:
    """`pkg.mod:Class`: an instance of a class, or the object itself."""

    module, _, attribute = path.partition(":")
    found = getattr(import_module(module), attribute)
    return found() if isinstance(found, type) else found


class Recipe:
    """What a layer keeps of the compiler: how to lower its blocks once sizes are known, and how to explain itself.

    Pickles as the model, from which the rest follows, if the language is the standard one.
    """

    def __init__(self, planned: Planned, language: Language, source: Source) -> None:
        self.planned, self.language, self.source = planned, language, source

    def __reduce__(self) -> tuple[Any, ...]:
        language = None if self.language is LANGUAGE else self.language
        return _again, (self.planned.model, language, self.source)

    def __deepcopy__(self, memo: dict[int, Any]) -> Recipe:
        return self  # immutable

    def lower(self, sizes: Mapping[str, int]) -> list[Any]:
        """A runner for each block of the model, planned anew for these sizes."""
        model, language = self.planned.model, self.language
        analysis = analyse_model(model, language, sizes)
        made = plan(model, language, sizes, analysis)
        runners: list[Any] = []
        for block in model.blocks:
            parts = [p for p, facts in zip(made.blocks, analysis.blocks, strict=True) if facts.origin is block]
            runners.append(self._family(block.sentence)(parts, model, sizes, language))
        return runners

    def python(self) -> list[str]:
        """The generated source, for whatever sizes: between the solves, and of each solve."""
        from .lowering.holder import dimensions
        from .lowering.stages import make

        model, language = self.planned.model, self.language
        try:
            texts = [make(model, language.function_table, {}, ()).text]
        except KeyError:  # a dimension that no tensor shows
            texts = [make(model, language.function_table, {}, dimensions(model)).text]
        for part in self.planned.plan.blocks:
            write = self._family(part.block.sentence, "source")
            texts.append(write(part, language))
        return [text for text in texts if text]

    def _family(self, sentence: str, attribute: str | None = None) -> Any:
        """What a family lowers by, or something beside it in the same module."""
        family = self.language.family(sentence)
        assert family.lower is not None
        module, _, name = family.lower.partition(":")
        return getattr(import_module(module), attribute or name)

    def explain(self, form: str = "text") -> str:
        """The derivation."""
        return explain_plan(self.planned.plan, self.language.function_table, form)


def _again(model: Model, language: Language | None, source: Source) -> Recipe:
    language = language or LANGUAGE
    analysis = analyse_model(model, language)
    return Recipe(Planned(model, analysis, plan(model, language, analysis=analysis)), language, source)
