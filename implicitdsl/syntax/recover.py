"""Feeds a section to the parser; where it fails, reads its items one by one so that only the wrong ones are lost."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from typing import Any, cast

from implicitdsl.ground.diagnostics import Diagnostic
from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Source

from . import ast, errors
from .grammar import session
from .tokens import OPENERS, SEPARATORS, Token, types

_CLOSE = types("RPAR RSQB RBRACE BAR_END DBAR_END")
DEEPEST = 200  # nodes on a way from a section down; later passes recurse over the tree
_MOST_ERRORS = 20  # items of one section that are reported; the rest would only repeat


@dataclass(slots=True)
class Failure:
    """Where the parser stopped: the index of the token it could not take, and the types it could have."""

    index: int
    accepts: frozenset[str]


@dataclass(slots=True)
class Result:
    """A statement's node, or None, and whether something of it was dropped."""

    node: Any
    lost: bool


def feed(tokens: list[Token]) -> Any | Failure:
    """The statement that the tokens are, or where it ends to be one."""
    from lark.exceptions import UnexpectedToken

    run = session()
    state = run.parser_state
    fed = 0
    try:
        for t in tokens:
            state.feed_token(t)  # it reads nothing but the token's type
            fed += 1
        end = tokens[-1].end
        return state.feed_token(Token("$END", "", end, end), True)[0]
    except UnexpectedToken:
        return Failure(fed, frozenset(run.accepts()))


def read(tokens: list[Token], source: Source, found: list[Diagnostic], end: int, lost: bool) -> Result:
    """The section that the tokens are, without the items that are wrong.

    The section's text ends at `end`; `lost` tells that an earlier pass has dropped items of it.
    """
    outcome = feed(tokens)
    if not isinstance(outcome, Failure):
        if len(tokens) > DEEPEST and depth(outcome) > DEEPEST:
            found.append(errors.too_deep(source, tokens))
            return Result(None, True)
        return Result(outcome, lost)
    head = head_length(tokens)
    faults = [d.span.start for d in found if tokens[0].start <= d.span.start < end]

    def report(attempt: list[Token], failure: Failure, start: int, stop: int) -> None:
        if not any(start <= fault < stop for fault in faults):  # else an earlier pass has said what is wrong
            found.append(errors.explain(errors.Context(source, attempt, failure.index, failure.accepts, head)))

    if tokens[0].type == "FIND" and not any(t.type == "SUCH_THAT" for t in tokens):
        node = _with_such_that(tokens, outcome, source, found)
        if node is None and not faults:
            if errors.lacks_such_that(tokens, outcome.index):
                found.append(errors.no_such_that(source, tokens, None))
            else:
                report(tokens, outcome, tokens[0].start, end)
        return Result(node, node is None)
    items = split(tokens, head)
    if outcome.index < head or not items:
        if not lost:
            report(tokens, outcome, tokens[0].start, end)
        return Result(None if outcome.index < head else _assemble(tokens[:head], []), True)
    good: list[list[Token]] = []
    reported = 0
    starts = [tokens[head].start, *(item[0].start for item in items[1:]), end]
    for item, start, stop in zip(items, [tokens[head - 1].end, *starts[1:]], starts[1:], strict=False):
        attempt = feed([*tokens[:head], *item])
        if not isinstance(attempt, Failure):
            good.append(item)
        elif reported < _MOST_ERRORS:
            reported += 1
            report([*tokens[:head], *item], attempt, start, stop)
    if reported == 0 and not lost:  # each item is right: a separator is not
        report(tokens, outcome, tokens[0].start, end)
    node = _assemble(tokens[:head], good)
    return Result(None if node is not None and depth(node) > DEEPEST else node, True)


def head_length(tokens: list[Token]) -> int:
    """How many tokens stand before the first item of a section's list."""
    last = {"FIND": "SUCH_THAT", "ARGMIN": "SUBJECT_TO", "ARGMAX": "SUBJECT_TO"}.get(tokens[0].type)
    if last is None:
        return 1
    return next((i + 1 for i, t in enumerate(tokens) if t.type == last), len(tokens))


def split(tokens: list[Token], start: int) -> list[list[Token]]:
    """The items from `start` on, cut at separators outside brackets."""
    items: list[list[Token]] = [[]]
    depth = 0
    for t in tokens[start:]:
        if t.type in OPENERS:
            depth += 1
        elif t.type in _CLOSE:
            depth -= 1
        if t.type in SEPARATORS and depth == 0:
            items.append([])
        else:
            items[-1].append(t)
    return [item for item in items if item]


def _assemble(head: list[Token], items: list[list[Token]]) -> Any:
    """The section of the good items; a block keeps its unknowns even without relations."""
    at = head[-1].end
    tokens = list(head)
    for item in items:
        if len(tokens) > len(head):
            tokens.append(Token("NEWLINE", "\n", at, at))
        tokens += item
    if items:
        node = feed(tokens)
        return None if isinstance(node, Failure) else node
    if head[0].type not in ("FIND", "ARGMIN", "ARGMAX"):
        return None
    name, equals = Token("NAME", "z", at, at), Token("EQ", "=", at, at)
    node = feed([*head, name, equals, name])
    if isinstance(node, ast.Find):
        return replace(node, relations=())
    return replace(node, constraints=()) if isinstance(node, ast.Argmin) else None


def _with_such_that(tokens: list[Token], failure: Failure, source: Source, found: list[Diagnostic]) -> Any:
    """A `find` without `such that`, reported as IMP002 and read as if it stood where it was meant; None if unknown."""
    for at in errors.such_that_places(tokens, failure.index):
        where = tokens[at].start
        marker = Token("SUCH_THAT", "such that", where, where)
        rest = tokens[at + 1 :] if tokens[at].type in SEPARATORS else tokens[at:]
        node = feed([*tokens[:at], marker, *rest])
        if not isinstance(node, Failure):
            found.append(errors.no_such_that(source, tokens, at))
            return node
    return None


def depth(node: Any) -> int:
    """How many nodes lie on the longest way from `node` down. Iterative: it guards those that are not."""
    deepest = 0
    waiting: list[tuple[Any, int]] = [(node, 1)]
    while waiting:
        node, level = waiting.pop()
        if isinstance(node, ast.Node):
            deepest = max(deepest, level)
            waiting += [(getattr(node, name), level + 1) for name in children(type(node))]
        elif type(node) is tuple:
            waiting += [(x, level) for x in cast("tuple[Any, ...]", node)]
    return deepest


@cache
def children(kind: type[ast.Node]) -> tuple[str, ...]:
    """The fields of a class that may hold nodes."""
    return tuple(f.name for f in fields(kind) if "Span" not in str(f.type) and f.type not in ("str", "int", "bool"))
