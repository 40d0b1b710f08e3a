"""A program to models: one layer at a time, with the layers it imports or instantiates known before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from implicitdsl.ground.diagnostics import Diagnostic
from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Source
from implicitdsl.ir.model import Model
from implicitdsl.syntax import ast

from .assemble import assemble
from .attempt import Attempt, attempt
from .bare import Filling, declared_names, fill, unfold
from .dependences import complete_dependences
from .report import Report
from .scope import Language
from .style import check_style
from .trees import descend


@dataclass(frozen=True)
class Checked:
    """Models of the layers without errors, by name ("" for a bare text), in order, and all findings."""

    models: dict[str, Model]
    diagnostics: tuple[Diagnostic, ...]


def check(
    program: ast.Program, source: Source, language: Language, imports: Mapping[str, Model | None] = {}
) -> Checked:
    """Check every layer.

    `imports` maps the names that `import` brings to their models (None: the file or layer had errors of its own).
    """
    report = Report(source)
    models: dict[str, Model | None] = dict(imports)
    own: dict[str, Model] = {}
    order = _order(program.layers, report)
    for layer in order:  # until checked, and for good in a cycle: a layer of which nothing is known
        if layer.name:
            models.setdefault(layer.name.text, None)
    for i, layer in enumerate(order):
        name = layer.name.text if layer.name else ""
        if layer.name and (name in own or name in imports):
            again = "declared twice" if name in own else "imported, and declared here again"
            report.add("IMP102", f"layer `{name}` is {again}", layer.name.span)
            continue
        before = report.errors
        model = check_layer(layer, report, language, models, {o.name.text for o in order[i:] if o.name})
        models[name] = model if report.errors == before else None
        if model is not None and report.errors == before and not layer.broken:
            own[name] = model
    names = [layer.name.text if layer.name else "" for layer in program.layers]
    return Checked({n: own[n] for n in names if n in own}, tuple(report.diagnostics))


def _order(layers: Sequence[ast.Layer], report: Report) -> list[ast.Layer]:
    """Layers after those they instantiate; a cycle is an error."""
    by_name = {layer.name.text: layer for layer in layers if layer.name}
    done: list[ast.Layer] = []
    state: dict[int, int] = {}

    def visit(layer: ast.Layer) -> None:
        state[id(layer)] = 1
        for section in layer.sections:
            for item in section.items if isinstance(section, ast.Let) else ():
                other = by_name.get(item.layer.text)
                if other is None:
                    continue
                if state.get(id(other)) == 1:
                    report.add(
                        "IMP105",
                        f"layers contain each other: `{item.layer.text}` is being defined here",
                        item.layer.span,
                    )
                elif id(other) not in state:
                    visit(other)
        state[id(layer)] = 2
        done.append(layer)

    for layer in layers:
        if id(layer) not in state:
            visit(layer)
    return done


def check_layer(
    layer: ast.Layer, report: Report, language: Language, models: Mapping[str, Model | None], later: set[str]
) -> Model | None:
    """One layer: conventions filled in, ranks guessed where nothing declares them, and the best guess reported."""
    bare = layer.name is None
    filling = Filling()
    functions = {f.name for f in language.functions if not f.internal}
    check_style(layer, report, functions, bare)
    if bare:
        layer, filling = unfold(layer)
    layer = complete_dependences(layer, report)
    if bare:
        fill(layer, filling, functions)
    best: Attempt | None = None
    for guess in guesses(layer, filling, functions):
        tried = attempt(layer, filling, report.source, language, models, guess)
        if best is None or tried.badness < best.badness:
            best = tried
        if tried.badness == 0:
            break
    assert best is not None
    model = assemble(best, later)
    for d in best.context.report.diagnostics:
        if d not in report.diagnostics:
            report.diagnostics.append(d)
    return model


def guesses(layer: ast.Layer, filling: Filling, functions: set[str]) -> list[dict[str, int]]:
    """Ranks to try for names that no set declares: vectors before scalars, matrices for capitals; at most 128
    combinations.

    For a `fn` without a type the guess is the rank of its result; -1 stands for that of its first argument.
    """
    open_names: dict[str, tuple[int, ...]] = {}
    unknowns: list[str] = []
    for section in layer.sections:
        match section:
            case ast.Given() | ast.Param() | ast.Const():
                for item in section.items:
                    if item.set is None:
                        open_names[item.name.text] = _ranks(item.name.text)
            case ast.Fn():
                for item in section.items:
                    if item.type is None:
                        open_names[item.name.text] = (-1, 0, 1)
            case ast.Find() | ast.Argmin():
                for u in section.unknowns:
                    if u.set is None:
                        unknowns.append(u.name.text)
                for n in descend(section):
                    if isinstance(n, ast.Name) and n.text.startswith("dW"):
                        open_names[n.text] = (0, 1)
            case _:
                pass
    for name in (*filling.givens, *filling.params):
        open_names[name] = (2,) if name in filling.definite else (0,) if name in filling.scalars else _ranks(name)
    for name in filling.fns:
        open_names[name] = (-1, 0, 1)
    if layer.name is not None:
        for name in _undeclared(layer, functions):
            open_names.setdefault(name, _ranks(name))
    for name in unknowns:  # last, so that they stay vectors longest
        open_names[name] = _ranks(name)
    combinations: list[tuple[int, dict[str, int]]] = [(0, {})]
    for name, ranks in open_names.items():
        combinations = [(cost + i, {**c, name: r}) for i, r in enumerate(ranks) for cost, c in combinations]
        combinations = sorted(combinations, key=lambda c: c[0])[:128]
    return [c for _, c in combinations]


def _ranks(name: str) -> tuple[int, ...]:
    return (2,) if name[:1].isupper() else (1, 0)


def _undeclared(layer: ast.Layer, functions: set[str]) -> list[str]:
    from .bare import uses

    known = declared_names(layer)
    for section in layer.sections:
        if isinstance(section, ast.Find):
            known |= {n.text for n in descend(section.relations) if isinstance(n, ast.Name) and n.text[:1] == "d"}
    found = [name for name, _, called in uses(tuple(layer.sections), known, functions) if not called]
    return list(dict.fromkeys(found))[:4]
