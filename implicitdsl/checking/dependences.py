"""What an unknown depends on: every argument has its `for`, and what is differentiated by a variable has it."""

from __future__ import annotations

import re
from dataclasses import replace

from implicitdsl.ground.source import Span
from implicitdsl.syntax import ast

from .bare import declared_names
from .report import Report, safe
from .trees import descend


def complete_dependences(layer: ast.Layer, report: Report) -> ast.Layer:
    """The layer in which each unknown has its arguments and each argument an interval; reports IMP112 and IMP101 where
    it had to be filled in, so that nothing else is said about it.
    """
    errors, declared = report.errors, declared_names(layer)
    sections = tuple(_find(s, declared, report) if isinstance(s, ast.Find) else s for s in layer.sections)
    return replace(layer, sections=sections, broken=layer.broken or report.errors > errors)


def _find(find: ast.Find, declared: set[str], report: Report) -> ast.Find:
    if find.bare:
        return find
    variables = {d.name.text for d in find.domains}
    unknowns = tuple(_unknown(u, find, declared, report) for u in find.unknowns)
    if not find.domains and unknowns != find.unknowns:  # one slip, said already
        variables |= {a.text for u, old in zip(unknowns, find.unknowns, strict=True) if u != old for a in u.args}
    missing = {a.text: (a, u) for u in reversed(unknowns) for a in u.args if a.text not in variables}
    domains = list(find.domains)
    for name, (argument, unknown) in missing.items():
        shown = f"{unknown.name.text}({', '.join(a.text for a in unknown.args)})"
        report.add(
            "IMP101",
            f"`{name}` of `{shown}` has no interval",
            argument.span,
            help=f"say where it runs, after the unknowns: `for {name} in [0, 1]`",
        )
    made = {a.text: a for u in unknowns for a in u.args if a.text not in {d.name.text for d in domains}}
    for argument in made.values():
        ends = (ast.Number(argument.span, "0"), ast.Number(argument.span, "1"))
        domains.append(ast.Domain(argument.span, argument, ast.Interval(argument.span, *ends, True)))
    return replace(find, unknowns=unknowns, domains=tuple(domains))


def _unknown(unknown: ast.Unknown, find: ast.Find, declared: set[str], report: Report) -> ast.Unknown:
    name = unknown.name
    if unknown.args:
        return unknown
    tried = (_derivative(n, name.text, find, declared, report.source.text) for r in find.relations for n in descend(r))
    by = [found for found in tried if found is not None]
    if not by:
        return unknown
    order = [d.name.text for d in find.domains]
    found = dict.fromkeys(variable for variable, _ in by)
    variables = sorted(found, key=lambda v: order.index(v) if v in order else len(order))
    arguments = f"({', '.join(variables)})"
    fix = safe(f"write `{name.text}{arguments}`", (Span(name.span.end, name.span.end), arguments))
    known = set(order).issuperset(variables)
    report.add(
        "IMP112",
        f"`{name.text}` is differentiated by `{by[0][0]}` but has no argument",
        name.span,
        labels=((by[0][1], "differentiated here"),),
        fixes=(fix,) if known else (),
        help=None if known else f"write `{name.text}{arguments}` and where it runs: `for {variables[0]} in [0, 1]`",
    )
    return replace(unknown, args=tuple(ast.Ident(name.span, v) for v in variables))


def _derivative(node: ast.Node, name: str, find: ast.Find, declared: set[str], text: str) -> tuple[str, Span] | None:
    """The variable by which `node` differentiates the unknown, and its span: a derivative; `dz/dt` that is read as a
    quotient because nothing binds `t`; the `dz` of a stochastic equation.
    """
    if isinstance(node, ast.Derivative):
        return (node.variable, node.span) if node.unknown == name else None
    if isinstance(node, ast.Name) and node.text == f"d{name}" and find.domains:
        return None if node.text in declared else (find.domains[-1].name.text, node.span)
    if not isinstance(node, ast.Binary) or node.op != "/":
        return None
    found = re.match(rf"[d∂][²2]?{re.escape(name)}/[d∂]([^\W\d]\w*?)[²2]?(?!\w)", text[node.span.start : node.span.end])
    if found is None or declared & {f"d{name}", f"d{found[1]}"}:
        return None
    return found[1], node.span
