"""The completed spec: what was written, with every default that was filled in. Checking it again gives the same
model.
"""

from __future__ import annotations

from collections.abc import Callable

from implicitdsl.ground.source import Source
from implicitdsl.ir.dims import Shape
from implicitdsl.ir.model import Model, Opaque, Symbol
from implicitdsl.syntax import ast

from .bare import unfold


def complete(layer: ast.Layer, model: Model) -> str:
    """The text of a layer with all sets, functions and outputs spelt out."""
    source = model.source
    bare = layer.name is None
    unfolded = unfold(layer)[0] if bare else layer
    known = {s.name: s for s in (*model.givens, *model.params, *model.consts)}
    known |= {u.name: u for b in model.blocks for u in b.unknowns}
    opaques = {o.name: o for o in model.opaques}
    written = {
        i.name.text
        for s in unfolded.sections
        if isinstance(s, (ast.Given, ast.Param, ast.Const, ast.Fn))
        for i in s.items
    }
    lines: list[str] = []
    for keyword, symbols in (("given", model.givens), ("param", model.params)):
        lines += _group(keyword, [f"{s.name} in {s.set.text}" for s in symbols if s.name not in written])
    lines += _group("fn", [_signature(o) for o in model.opaques if o.layer is None and o.name not in written])
    text = _texts(source)
    for section in unfolded.sections:
        match section:
            case ast.Given() | ast.Param() | ast.Const():
                keyword = type(section).__name__.lower()
                lines += _group(keyword, [_declaration(d, known, text) for d in section.items])
            case ast.Fn():
                lines += _group("fn", [_fn(d, opaques, text) for d in section.items])
            case ast.Let():
                lines += _group("let", [text(d) for d in section.items])
            case ast.Where():
                lines += _group("where", [text(d) for d in section.items])
            case ast.Find():
                lines += _find(section, known, text)
            case ast.Argmin():
                lines += _argmin(section, known, text)
            case ast.Using():
                lines += ["using " + ", ".join(text(s) for s in section.slots)]
            case ast.Return():
                lines += ["return " + ", ".join(text(o) for o in section.items)]
    if not any(isinstance(s, ast.Return) for s in unfolded.sections):
        lines.append(
            "return "
            + ", ".join(
                _default_output(section, text)
                for section in unfolded.sections
                if isinstance(section, (ast.Find, ast.Argmin))
            )
        )
    if bare:
        return "\n".join(lines) + "\n"
    header = f"layer {model.name}({', '.join(d.text for d in layer.dims)}):" if layer.dims else f"layer {model.name}:"
    return "\n".join([header, *("  " + line for line in lines)]) + "\n"


def _texts(source: Source) -> Callable[[ast.Node], str]:
    def text(node: ast.Node) -> str:
        kept = (line.split("#")[0] for line in source.at(node.span).splitlines())
        return " ".join(" ".join(kept).split())

    return text


def _group(keyword: str, items: list[str]) -> list[str]:
    pad = " " * (len(keyword) + 1)
    return [(keyword + " " if i == 0 else pad) + item for i, item in enumerate(items)]


def _power(shape: Shape) -> str:
    if not shape:
        return "R"
    text = str(shape[0])
    return f"R^{text}" if len(shape) == 1 and text.isalnum() else "R^(" + ", ".join(map(str, shape)) + ")"


def _signature(o: Opaque) -> str:
    args = ", ".join(map(_power, o.args))
    return f"{o.name}: ({args}) -> {_power(o.results[0])}" + (f' as "{o.path}"' if o.path else "")


def _declaration(d: ast.Declaration, known: dict[str, Symbol], text: Callable[[ast.Node], str]) -> str:
    found = known.get(d.name.text)
    init = f" = {text(d.init)}" if d.init is not None else ""
    return f"{d.name.text} in {found.set.text}{init}" if found else text(d)


def _fn(d: ast.FnDeclaration, opaques: dict[str, Opaque], text: Callable[[ast.Node], str]) -> str:
    return _signature(opaques[d.name.text]) if d.name.text in opaques else text(d)


def _unknown(u: ast.Unknown, known: dict[str, Symbol]) -> str:
    args = f"({', '.join(a.text for a in u.args)})" if u.args else ""
    found = known.get(u.name.text)
    return f"{u.name.text}{args}" + (f" in {found.set.text}" if found else "")


def _relation(relation: ast.Node, text: Callable[[ast.Node], str]) -> str:
    """As written; the initial condition that a bare `dX/dt` implies has no text of its own."""
    if isinstance(relation, ast.Relation) and relation.terms and relation.terms[0].span == relation.terms[-1].span:
        call, name = relation.terms[0], relation.terms[-1]
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and isinstance(name, ast.Name):
            return f"{call.func.text}(0) = {name.text}"
    return text(relation)


def _find(section: ast.Find, known: dict[str, Symbol], text: Callable[[ast.Node], str]) -> list[str]:
    head = "find " + ", ".join(_unknown(u, known) for u in section.unknowns)
    for d in section.domains:
        head += f" for {d.name.text} in " + ("[0, 1]" if section.bare else text(d.set))
    if section.until:
        head += " until " + " or ".join(text(r) for r in section.until)
    relations = [_relation(r, text) for r in section.relations]
    if len(relations) == 1:
        return [f"{head} such that {relations[0]}"]
    return [f"{head} such that", *(f"  {r}" for r in relations)]


def _argmin(section: ast.Argmin, known: dict[str, Symbol], text: Callable[[ast.Node], str]) -> list[str]:
    head = f"arg{section.sense}_{{{', '.join(_unknown(u, known) for u in section.unknowns)}}} {text(section.objective)}"
    if not section.constraints:
        return [head]
    return [head + " subject to", *(f"  {text(c)}" for c in section.constraints)]


def _default_output(section: ast.Find | ast.Argmin, text: Callable[[ast.Node], str]) -> str:
    if isinstance(section, ast.Argmin) or not section.domains:
        return ", ".join(u.name.text for u in section.unknowns)
    ends: list[str] = []
    for d in section.domains:
        ends.append(("1" if section.bare else text(d.set.hi)) if isinstance(d.set, ast.Interval) else d.name.text)
    return ", ".join(f"{u.name.text}({', '.join(ends)})" for u in section.unknowns)
