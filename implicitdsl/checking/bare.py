"""Bare texts: what a sentence without a `layer` header leaves out is filled in by convention.

A called name is a `fn`; a capital letter a matrix `param`; a lower-case one a vector `given` (scalar where only a
scalar fits), in order of appearance; Q in `z^T Q z` of an `argmin` is PSD; a tight `dX/dt` declares X and t in [0, 1],
its initial state is the first input `X0`, and X(1) is returned. Names in sets, indices and ranges are dimensions (see
`sets`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, replace
from typing import cast

from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Span
from implicitdsl.syntax import ast

from .blocks import differential_names, is_stochastic
from .context import CONSTANTS
from .trees import descend, quadratic, unwrap

DIMENSIONAL = ("I", "zeros", "ones")
OPERATORS = ("grad", "jac", "div", "hess", "dual")


@dataclass
class Filling:
    """Declarations that a bare text implies, in order of appearance."""

    givens: dict[str, Span] = field(default_factory=dict[str, Span])
    params: dict[str, Span] = field(default_factory=dict[str, Span])
    fns: dict[str, Span] = field(default_factory=dict[str, Span])
    definite: set[str] = field(default_factory=set[str])  # params that are PSD
    scalars: set[str] = field(default_factory=set[str])  # ends of intervals, whatever their case
    initial: dict[str, str] = field(default_factory=dict[str, str])  # initial-state inputs: name → unknown


def unfold(layer: ast.Layer) -> tuple[ast.Layer, Filling]:
    """Relations that stand alone become a `find`: `dz/dt = f(z, t)` gets its unknown, interval and initial state."""
    filling = Filling()
    sections: list[ast.Section] = []
    for section in layer.sections:
        if isinstance(section, ast.Find) and section.bare:
            section = _evolution(section, filling, declared_names(layer))
        sections.append(section)
    return replace(layer, sections=tuple(sections)), filling


def _evolution(find: ast.Find, filling: Filling, declared: set[str]) -> ast.Find:
    unknowns: dict[str, ast.Derivative] = {}
    conditions: set[str] = set()
    for relation in find.relations:
        for term in relation.terms if isinstance(relation, ast.Relation) else ():
            for n in descend(term):
                if isinstance(n, ast.Derivative) and n.unknown not in unknowns and n.unknown not in declared:
                    unknowns[n.unknown] = n
            outer = unwrap(term)
            if isinstance(outer, ast.Call) and isinstance(outer.func, ast.Name):
                conditions.add(outer.func.text)
    relations = list(find.relations)
    made: list[ast.Unknown] = []
    variable = next(iter(unknowns.values())).variable if unknowns else "t"
    for name, where in unknowns.items():
        span = where.span
        made.append(ast.Unknown(span, ast.Ident(span, name), (ast.Ident(span, variable),), None))
        if name not in conditions:
            start = f"{name}0"
            filling.givens[start] = span
            filling.initial[start] = name
            at = ast.Call(span, ast.Name(span, name), (ast.Number(span, "0"),))
            relations.append(ast.Relation(span, None, (at, ast.Name(span, start)), ("=",), ()))
    domains = find.domains
    if unknowns and not domains:
        ends = (ast.Number(find.span, "0"), ast.Number(find.span, "1"))
        domains = (ast.Domain(find.span, ast.Ident(find.span, variable), ast.Interval(find.span, *ends, True)),)
    return replace(find, unknowns=tuple(made), domains=domains, relations=tuple(relations))


def declared_names(layer: ast.Layer) -> set[str]:
    """Everything a section declares."""
    names = {d.text for d in layer.dims}
    for section in layer.sections:
        match section:
            case ast.Given() | ast.Param() | ast.Const() | ast.Fn() | ast.Let() | ast.Where():
                names |= {item.name.text for item in section.items}
            case ast.Find():
                names |= {u.name.text for u in section.unknowns} | {d.name.text for d in section.domains}
            case ast.Argmin():
                names |= {u.name.text for u in section.unknowns}
            case _:
                pass
    return names


def fill(layer: ast.Layer, filling: Filling, functions: set[str]) -> None:
    """Classify every undeclared name of a bare text by its first use."""
    declared = declared_names(layer) | filling.givens.keys()
    for section in layer.sections:
        local: set[str] = set()
        if isinstance(section, ast.Find) and is_stochastic(section):
            own, noise = differential_names(section)
            local = {*own, *noise}
        if isinstance(section, ast.Find):
            ends = tuple(
                end for d in section.domains if isinstance(d.set, ast.Interval) for end in (d.set.lo, d.set.hi)
            )
            filling.scalars |= {name for name, _, called in uses(ends, declared, functions) if not called}
        for name, span, called in uses(section, declared | local, functions):
            if called:
                filling.fns.setdefault(name, span)
                filling.givens.pop(name, None)
                filling.params.pop(name, None)
            elif name in filling.fns:
                continue
            elif name[:1].isupper() and name not in filling.scalars:
                filling.params.setdefault(name, span)
            else:
                filling.givens.setdefault(name, span)
        if isinstance(section, ast.Argmin):
            unknowns = {u.name.text for u in section.unknowns}
            for n in descend(section.objective):
                form = quadratic(n) if isinstance(n, ast.Binary) else None
                if form is None or not isinstance(form[1], ast.Name):
                    continue
                if any(isinstance(v, ast.Name) and v.text in unknowns for v in descend(form[0])):
                    filling.definite.add(form[1].text)


def uses(node: object, known: set[str], functions: set[str]) -> Iterator[tuple[str, Span, bool]]:
    """(name, span, called) of undeclared names in reading order; dimensions and bound names are skipped."""
    match node:
        case tuple():
            for item in cast("tuple[object, ...]", node):
                yield from uses(item, known, functions)
        case ast.Name():
            if node.text not in known and node.text not in CONSTANTS and node.text not in functions:
                yield node.text, node.span, False
        case ast.Call():
            yield from _call(node, known, functions)
        case ast.Comprehension():
            bound = {b.name.text for b in node.binders}
            yield from uses(node.body, known | bound, functions)
        case ast.Index():
            yield from uses(node.operand, known, functions)
        case ast.Relation():
            yield from uses(node.terms, known | {b.name.text for b in node.binders}, functions)
        case ast.Membership():
            yield from uses(node.element, known | {b.name.text for b in node.binders}, functions)
        case ast.Definition():
            yield from uses(node.body, known | {p.text for p in node.params or ()}, functions)
        case ast.Find():
            yield from uses(tuple(d.set for d in node.domains if isinstance(d.set, ast.Interval)), known, functions)
            yield from uses((node.relations, node.until), known, functions)
        case ast.Argmin():
            yield from uses((node.objective, node.constraints), known, functions)
        case ast.Where() | ast.Return():
            yield from uses(node.items, known, functions)
        case ast.Output():
            yield from uses(node.value, known, functions)
        case ast.Using():
            starts = tuple(s.value for s in node.slots if s.label == "start" and s.value is not None)
            yield from uses(
                tuple(s for s in starts if not (isinstance(s, ast.Name) and s.text == "zeros")), known, functions
            )
        case ast.Interval():
            yield from uses((node.lo, node.hi), known, functions)
        case ast.Binary():
            yield from uses((node.left, node.right), known, functions)
        case ast.Paren():
            yield from uses(node.inner, known, functions)
        case ast.Negate() | ast.Transpose() | ast.Norm() | ast.Abs():
            yield from uses(node.operand, known, functions)
        case ast.Literal():
            yield from uses(node.items, known, functions)
        case _:
            return


def _call(node: ast.Call, known: set[str], functions: set[str]) -> Iterator[tuple[str, Span, bool]]:
    args = node.args
    if isinstance(node.func, ast.Name):
        name = node.func.text
        if name in DIMENSIONAL and name not in known:
            return
        if name == "reshape" and name not in known:
            args = args[:1]
        if name in ("div",) and len(args) == 3:
            args = args[:2]
        if name == "dual":
            return
        if name not in known and name not in functions and name not in OPERATORS:
            yield name, node.func.span, True
    elif not isinstance(node.func, ast.Derivative):
        yield from uses(node.func, known, functions)
    yield from uses(args, known, functions)
