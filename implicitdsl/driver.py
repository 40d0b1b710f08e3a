"""Text to module: parse → check → analyse → plan → lower, each stage a value that can be printed.

`check_source` and all of `emit` but its last stage are torch-free; `compile` imports PyTorch.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from implicitdsl.ground.records import dataclass

from .analysis import squared_norms
from .calculus import expand, inline
from .calculus.rules import OPERATORS
from .frontend import Front, Planned, front, nearest, planned_model
from .ground.diagnostics import Diagnostic, Level
from .ground.errors import SpecError, SpecWarning
from .ground.render import text as render_text
from .ground.source import Source
from .ir.model import Model, Opaque
from .ir.nodes import Expr, walk
from .language import LANGUAGE, Language
from .planner import analyse_model, plan
from .syntax.parser import parse

if TYPE_CHECKING:
    from .lowering.layer import Layer

# -- the face ----------------------------------------------------------------------------------------------------------


def check_source(source: Source, language: Language = LANGUAGE) -> list[Diagnostic]:
    """Every finding about a file, by place. Imports neither torch nor cvxpy nor sympy."""
    return list(front(source, language).diagnostics)


def check(spec: str | Path, *, language: Language = LANGUAGE) -> list[Diagnostic]:
    """Every finding about a spec (a `str` is its text, a `Path` its file): errors, warnings and infos, by place.

    Raises `OSError` for a file that cannot be read.
    """
    return check_source(_read(spec), language)


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

    Keywords bind dimensions, constants and functions by their names in the spec; `bind` does the same for names that
    clash with a keyword of this function, and for those of sub-layers: `bind={"enc.f": net}` is `f` of
    `let enc = …`. Dimensions left out are found at the first call. `layer` picks one of several
    layers. `debug` verifies at each call that inputs lie in their sets.

    Raises `SpecError` for errors in the spec, `TypeError` for a keyword that names nothing in it, `OSError` for a file
    that cannot be read, `ValueError` where `layer` is needed or names none.
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
            close = nearest(name, self._made.layers)
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


def explain(subject: Any, layer: str | None = None, format: str = "text", *, language: Language = LANGUAGE) -> str:
    """The derivation of a spec (text, path or `Source`) or of a compiled layer, as "text", "markdown" or "latex".

    Every layer of a file, unless one is picked. Raises `SpecError` for errors in the spec, ValueError for another
    format or a layer that is not there.
    """
    if not isinstance(subject, str | Path | Source):
        return subject.explain(format)
    made = front(subject if isinstance(subject, Source) else _read(subject), language)
    if made.failed:
        raise _error(made.diagnostics)
    from .explanation import explain as explain_plan

    chosen = list(made.layers.values()) if layer is None else [_pick(made, layer)]
    return explain_plan([p.plan for p in chosen], language.function_table, format)


def emit(source: Source, stage: str, layer: str | None = None, *, language: Language = LANGUAGE) -> str:
    """What the compiler knows after a stage: "spec", "tokens", "ast", "ir", "plan" or "python" (which imports PyTorch).

    Raises `SpecError` for errors in the spec, ValueError for another stage or a layer that is not there.
    """
    from . import stages
    from .syntax.dump import dump_ast, dump_tokens

    made = front(source, language)
    if stage == "tokens":
        return dump_tokens(made.parsed.tokens, source)
    if stage == "ast":
        return dump_ast(made.parsed.program)
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
    if not isinstance(spec, str):
        raise TypeError(f"a spec is a text (str) or a file (pathlib.Path), not {type(spec).__name__}")
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
            close = nearest(layer, layers)
            raise ValueError(f"{made.source.name} has no layer `{layer}`" + (f"; {close}" if close else ""))
        return layers[layer]
    if not layers:
        raise ValueError(f"{made.source.name} has no layer: it is empty")
    if len(layers) > 1:
        raise ValueError(f"{made.source.name} has {len(layers)} layers ({', '.join(layers)}): say which by layer=…")
    return next(iter(layers.values()))


# -- lowering ----------------------------------------------------------------------------------------------------------


def _lower(
    made: Front, planned: Planned, language: Language, debug: bool, bindings: Mapping[str, Any], prefix: str = ""
) -> Layer:
    """The module of a planned layer; `prefix` leads from the outermost one to it, "enc."."""
    from .lowering.layer import Layer

    model = planned.model
    sizes, given, inner = _sorted_bindings(model, bindings)
    recipe = Recipe(planned, language, made.source)
    for opaque in model.opaques:
        if opaque.layer is not None:
            sub = planned_model(opaque.layer, language, [])
            given[opaque.name] = _lower(made, sub, language, debug, inner[opaque.name], f"{prefix}{opaque.name}.")
        elif opaque.name not in given and opaque.path is not None:
            given[opaque.name] = _imported(opaque)
    open_names = [c.name for c in model.consts if c.init.kind == "default"] + [o.name for o in model.opaques]
    missing = next((n for n in open_names if n not in given), None)
    if prefix and missing is not None:
        where = f"`{missing}` of the sub-layer `{prefix[:-1]}`"
        raise TypeError(f'{where} has no value: pass bind={{"{prefix}{missing}": …}} to compile')
    return Layer(
        _expanded(model, language),
        functions=language.function_table,
        lower=recipe.lower,
        sizes=sizes,
        bindings=given,
        text=_completed(made, model),
        explain=recipe.explain,
        debug=debug,
    )


def _sorted_bindings(
    model: Model, bindings: Mapping[str, Any]
) -> tuple[dict[str, int], dict[str, Any], dict[str, dict[str, Any]]]:
    """Dimensions; constants and functions; those of each sub-layer, whose dimensions are its arguments. Raises
    TypeError for a name that can be bound to nothing, naming the nearest.
    """
    from .lowering.holder import dimensions

    dims = dimensions(model)
    known = [*dims, *(c.name for c in model.consts), *(o.name for o in model.opaques if o.layer is None)]
    sizes: dict[str, int] = {}
    rest: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {o.name: {} for o in model.opaques if o.layer is not None}
    title = f"layer `{model.name}`" if model.name else "the spec"
    for name, value in bindings.items():
        head, _, tail = name.partition(".")
        if tail and head in inner:
            inner[head][tail] = value
            continue
        if name not in known:
            hint = nearest(name, known) or (f"it has {', '.join(known)}" if known else "it has nothing to bind")
            raise TypeError(f"{title} has no dimension, constant or function `{name}`; {hint}")
        if name in dims:
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
                raise TypeError(f"dimension `{name}` of {title} is a whole number, not {value!r}")
            sizes[name] = int(value)
        else:
            rest[name] = value
    return sizes, rest, inner


def _expanded(model: Model, language: Language) -> Model:
    """Definitions and outputs with grad, jac, div and hess carried out, for code to be generated from them.

    Squared norms are products, as in the blocks: a norm has no second derivative at 0, its square has.
    """
    functions = language.function_table

    def carried_out(e: Expr) -> Expr:
        whole = inline(e, model.definitions)
        if not any(x.op in OPERATORS for x in walk(whole)):
            return squared_norms(e)
        return expand(squared_norms(whole), functions)

    definitions = tuple((name, carried_out(value)) for name, value in model.definitions)
    outputs = tuple(replace(o, expr=carried_out(o.expr)) for o in model.outputs)
    return replace(model, definitions=definitions, outputs=outputs)


def _completed(made: Front, model: Model) -> str:
    """The spec with every default spelt out; nothing for a layer of another file, whose tree is not at hand."""
    for layer in made.parsed.program.layers:
        if model.source is made.source and (layer.name.text if layer.name else None) == model.name:
            from .checking.complete import complete

            return complete(layer, model)
    return ""


def _imported(opaque: Opaque) -> Any:
    """What `fn f: … as "pkg.mod:Class"` names: an instance of a class, made without arguments, or the object itself.

    Raises TypeError naming the declaration where it cannot be had.
    """
    assert opaque.path is not None
    module, _, attribute = opaque.path.partition(":")
    try:
        found = getattr(import_module(module), attribute)
        return found() if isinstance(found, type) else found
    except Exception as error:
        message = (
            f'`fn {opaque.name}: … as "{opaque.path}"` cannot be made: {error}; or pass {opaque.name}=… to compile'
        )
        raise TypeError(message) from error


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
            texts = [make(_expanded(model, language), language.function_table, {}, ()).text]
        except KeyError:  # a dimension that no tensor shows
            texts = [make(_expanded(model, language), language.function_table, {}, dimensions(model)).text]
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

    def explain(self, form: str, sizes: Mapping[str, int]) -> str:
        """The derivation, and the plan for the sizes that are known."""
        from .explanation import explain as explain_plan

        model, language = self.planned.model, self.language
        made = plan(model, language, sizes) if sizes else self.planned.plan
        return explain_plan(made, language.function_table, form, sizes)


def _again(model: Model, language: Language | None, source: Source) -> Recipe:
    language = language or LANGUAGE
    return Recipe(planned_model(model, language, []), language, source)
