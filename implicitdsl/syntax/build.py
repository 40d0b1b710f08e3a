"""From grammar rules to syntax tree: one method a rule (or alias), called by the parser as it reduces.

Children are tokens and the results of other rules, in the order of the grammar; an absent `[…]` is None. No recursion
happens here, so depth is limited only by what later passes can walk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

from implicitdsl.ground.source import Span

from . import ast
from .tokens import RELATIONS, Token

N = TypeVar("N", bound=ast.Node)
Children = list[Any]  # lark's callbacks are untyped; every method states what it takes out

_OPERATORS = {"PLUS": "+", "MINUS": "-", "STAR": "*", "SLASH": "/", "AT": "@", "CARET": "^"}
_RELATIONS = {"EQ": "=", "LE": "<=", "GE": ">=", "SUCCEEDS": ">>", "PRECEDES": "<<"}
_SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


class Header(NamedTuple):
    """`layer Name(dims…):`, before its sections are known."""

    span: Span
    name: ast.Ident
    dims: tuple[ast.Ident, ...]


class Group(NamedTuple):
    """Some nodes that belong to one: arguments, dimensions, unknowns."""

    span: Span
    items: tuple[Any, ...]


class Label(NamedTuple):
    """`top:`."""

    span: Span
    name: ast.Ident


def cover(children: Iterable[Any]) -> Span:
    """From the first to the last child that is there."""
    present = [c for c in children if c is not None]
    return Span(present[0].span.start, present[-1].span.end)


def ident(token: Token) -> ast.Ident:
    return ast.Ident(token.span, token.text)


def idents(children: Iterable[Any]) -> tuple[ast.Ident, ...]:
    return tuple(ident(c) for c in children if type(c) is Token and c.type == "NAME")


def nodes(children: Iterable[Any], kind: type[N]) -> tuple[N, ...]:
    return tuple(c for c in children if isinstance(c, kind))


def items(group: Group | None) -> tuple[Any, ...]:
    return group.items if group is not None else ()


def unquote(token: Token) -> ast.String:
    return ast.String(token.span, token.text[1:-1])


def superscript_value(token: Token) -> ast.Expr:
    """The exponent that `²` or `⁻¹` writes."""
    text = token.text.translate(_SUPERSCRIPTS)
    number = ast.Number(token.span, text.removeprefix("-"))
    return ast.Negate(token.span, number) if text.startswith("-") else number


class Build:
    """The grammar's actions. `start` gives the list of statements."""

    # -- headers ---------------------------------------------------------------------------------------------------

    def start(self, c: Children) -> list[Any]:
        return c

    def import_(self, c: Children) -> ast.Import:
        return ast.Import(cover(c), idents(c), unquote(c[-1]))

    def layer(self, c: Children) -> Header:
        _, name, dims, _ = c
        return Header(cover(c), ident(name), items(dims))

    def dims(self, c: Children) -> Group:
        return Group(cover(c), idents(c))

    # -- sections --------------------------------------------------------------------------------------------------

    def given(self, c: Children) -> ast.Given:
        return ast.Given(cover(c), nodes(c, ast.Declaration))

    def input(self, c: Children) -> ast.Declaration:
        return ast.Declaration(cover(c), ident(c[0]), c[2], None)

    def param(self, c: Children) -> ast.Param:
        return ast.Param(cover(c), nodes(c, ast.Declaration))

    def const(self, c: Children) -> ast.Const:
        return ast.Const(cover(c), nodes(c, ast.Declaration))

    def declaration(self, c: Children) -> ast.Declaration:
        return ast.Declaration(cover(c), ident(c[0]), c[2], c[4])

    def fn(self, c: Children) -> ast.Fn:
        return ast.Fn(cover(c), nodes(c, ast.FnDeclaration))

    def fn_declaration(self, c: Children) -> ast.FnDeclaration:
        return ast.FnDeclaration(cover(c), ident(c[0]), c[2], c[4])

    def fn_type(self, c: Children) -> ast.FnType:
        return ast.FnType(cover(c), c[0].items, c[2])

    def domains(self, c: Children) -> Group:
        return Group(cover(c), nodes(c, ast.Node))

    def let(self, c: Children) -> ast.Let:
        return ast.Let(cover(c), nodes(c, ast.LetDeclaration))

    def let_declaration(self, c: Children) -> ast.LetDeclaration:
        return ast.LetDeclaration(cover(c), ident(c[0]), ident(c[2]), items(c[4]))

    def where(self, c: Children) -> ast.Where:
        return ast.Where(cover(c), nodes(c, ast.Definition))

    def definition(self, c: Children) -> ast.Definition:
        name, parameters, _, body = c
        return ast.Definition(cover(c), ident(name), parameters.items if parameters is not None else None, body)

    def parameters(self, c: Children) -> Group:
        return Group(cover(c), idents(c))

    def find(self, c: Children) -> ast.Find:
        unknowns, relations, until = c[1], c[-1], c[-3]
        return ast.Find(cover(c), unknowns.items, nodes(c, ast.Domain), items(until), relations.items)

    def unknowns(self, c: Children) -> Group:
        return Group(cover(c), nodes(c, ast.Unknown))

    def unknown(self, c: Children) -> ast.Unknown:
        name, parameters, _, domain = c
        return ast.Unknown(cover(c), ident(name), items(parameters), domain)

    def domain(self, c: Children) -> ast.Domain:
        return ast.Domain(cover(c), ident(c[1]), c[3])

    def until(self, c: Children) -> Group:
        return Group(cover(c), nodes(c, ast.Relation))

    def event(self, c: Children) -> ast.Relation:
        return _relation(None, c, ())

    def constraints(self, c: Children) -> Group:
        return Group(cover(c), nodes(c, ast.Node))

    def bare(self, c: Children) -> ast.Find:
        return ast.Find(c[1].span, (), (), (), c[1].items, bare=True)

    def argmin(self, c: Children) -> ast.Argmin:
        word, target, objective, _, constraints = c
        sense = "min" if word.type == "ARGMIN" else "max"
        return ast.Argmin(cover(c), sense, target.items, objective, items(constraints))

    def target(self, c: Children) -> Group:
        if len(c) == 1:
            return Group(c[0].span, (ast.Unknown(c[0].span, ident(c[0]), (), None),))
        return Group(cover(c), c[1].items)

    def using(self, c: Children) -> ast.Using:
        return ast.Using(cover(c), nodes(c, ast.Slot))

    def solver(self, c: Children) -> ast.Slot:
        label, name, _, options, _ = c
        return ast.Slot(
            cover(c), "backward" if label and label.type == "BACKWARD" else "forward", ident(name), items(options), None
        )

    def start_slot(self, c: Children) -> ast.Slot:
        return ast.Slot(cover(c), "start", None, (), c[1])

    def failure_slot(self, c: Children) -> ast.Slot:
        return ast.Slot(cover(c), "on_failure", None, (), c[2])

    def options(self, c: Children) -> Group:
        return Group(cover(c), nodes(c, ast.Option))

    def option(self, c: Children) -> ast.Option:
        key, _, value = c
        return ast.Option(cover(c), ident(key) if key else None, value)

    def return_(self, c: Children) -> ast.Return:
        return ast.Return(cover(c), nodes(c, ast.Output))

    def output(self, c: Children) -> ast.Output:
        alias, _, value = c
        return ast.Output(cover(c), ident(alias) if alias else None, value)

    # -- relations -------------------------------------------------------------------------------------------------

    def relation(self, c: Children) -> ast.Relation:
        return _relation(c[0], [x for x in c[1:] if not isinstance(x, ast.Binder)], nodes(c, ast.Binder))

    def membership(self, c: Children) -> ast.Membership:
        label, element, _, domain = c[:4]
        return ast.Membership(cover(c), label.name if label else None, element, domain, nodes(c, ast.Binder))

    def label(self, c: Children) -> Label:
        return Label(cover(c), ident(c[0]))

    def binder(self, c: Children) -> ast.Binder:
        return ast.Binder(cover(c), ident(c[1]), c[3])

    # -- sets ------------------------------------------------------------------------------------------------------

    def named_set(self, c: Children) -> ast.NamedSet:
        name = c[0].text
        return ast.NamedSet(cover(c), "R" if name == "ℝ" else name, items(c[2]))

    def closed_interval(self, c: Children) -> ast.Interval:
        return ast.Interval(cover(c), c[1], c[3], closed=True)

    def open_interval(self, c: Children) -> ast.Interval:
        return ast.Interval(cover(c), c[1], c[3], closed=False)

    def power_set(self, c: Children) -> ast.PowerSet:
        return ast.PowerSet(cover(c), c[0], c[1].items)

    def power_dims(self, c: Children) -> Group:
        if c[0].type == "SUPERSCRIPT":
            return Group(c[0].span, (superscript_value(c[0]),))
        if c[0].type == "TRANSPOSE":  # the horizon `T` in `R^T`
            return Group(c[0].span, (ast.Name(Span(c[0].end - 1, c[0].end), "T"),))
        return Group(cover(c), c[2].items if len(c) > 2 else (c[1],))

    # -- expressions -----------------------------------------------------------------------------------------------

    def binary(self, c: Children) -> ast.Binary:
        left, operator, right = c
        return ast.Binary(cover(c), _OPERATORS[operator.type], left, right, operator.span)

    def juxtaposition(self, c: Children) -> ast.Binary:
        left, right = c
        return ast.Binary(cover(c), "juxt", left, right, Span(left.span.end, left.span.end))

    def negation(self, c: Children) -> ast.Negate:
        return ast.Negate(cover(c), c[1])

    def superscript(self, c: Children) -> ast.Binary:
        base, sign = c
        return ast.Binary(cover(c), "^", base, superscript_value(sign), Span(sign.start, sign.start))

    def index(self, c: Children) -> ast.Index:
        return ast.Index(cover(c), c[0], tuple(x for x in c[1:] if type(x) is not Token))

    def slice(self, c: Children) -> ast.Slice:
        return ast.Slice(cover(c), c[0], c[2])

    def transpose(self, c: Children) -> ast.Transpose:
        return ast.Transpose(cover(c), c[0])

    def call(self, c: Children) -> ast.Call:
        func, _, args, _ = c
        return ast.Call(cover(c), func, (args,) if isinstance(args, ast.Comprehension) else items(args))

    def comprehension(self, c: Children) -> ast.Comprehension:
        return ast.Comprehension(cover(c), c[0], nodes(c, ast.Binder))

    def exprs(self, c: Children) -> Group:
        return Group(cover(c), nodes(c, ast.Node))

    def name(self, c: Children) -> ast.Name:
        return ast.Name(c[0].span, c[0].text)

    def number(self, c: Children) -> ast.Number:
        return ast.Number(c[0].span, c[0].text)

    def string(self, c: Children) -> ast.String:
        return unquote(c[0])

    def derivative(self, c: Children) -> ast.Derivative:
        unknown, order, variable, partial = c[0].derivative
        return ast.Derivative(c[0].span, unknown, order, variable, partial)

    def paren(self, c: Children) -> ast.Paren:
        return ast.Paren(cover(c), c[1])

    def literal(self, c: Children) -> ast.Literal:
        return ast.Literal(cover(c), c[1].items)

    def norm(self, c: Children) -> ast.Norm:
        return ast.Norm(cover(c), c[1], c[3].text[1:].replace("∞", "inf") if c[3] else "2")

    def absolute(self, c: Children) -> ast.Abs:
        return ast.Abs(cover(c), c[1])


def _relation(label: Label | None, chain: Sequence[Any], binders: tuple[ast.Binder, ...]) -> ast.Relation:
    terms = cast("tuple[ast.Expr, ...]", nodes(chain, ast.Node))
    ops = tuple(_RELATIONS[t.type] for t in chain if type(t) is Token and t.type in RELATIONS)
    return ast.Relation(cover((label, *chain, *binders)), label.name if label else None, terms, ops, binders)
