"""Feeds a section to the parser; where it fails, reads its items one by one so that only the wrong ones are lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from implicitdsl.ground.diagnostics import Diagnostic
from implicitdsl.ground.source import Source

from . import ast, errors
from .grammar import load
from .tokens import OPENERS, SEPARATORS, Token

_CLOSE = frozenset("RPAR RSQB RBRACE BAR_END DBAR_END".split())
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

    session = load().parse_interactive()
    state = session.parser_state
    end = tokens[-1].end
    for i, t in enumerate((*tokens, Token("$END", "", end, end))):
        try:
            value = state.feed_token(t, t.type == "$END")  # pyright: ignore[reportArgumentType]  # it reads only `type`
        except UnexpectedToken:
            return Failure(i, frozenset(session.accepts()))
    return value[0]  # pyright: ignore[reportPossiblyUnboundVariable]  # the loop runs at least once


def read(tokens: list[Token], source: Source, found: list[Diagnostic]) -> Result:
    """The section that the tokens are, without the items that are wrong."""
    outcome = feed(tokens)
    if not isinstance(outcome, Failure):
        return Result(outcome, False)
    report = _reporter(tokens, source, found)
    head = head_length(tokens)
    if tokens[0].type == "FIND" and not any(t.type == "SUCH_THAT" for t in tokens):
        return _without_such_that(tokens, outcome, source, found, report)
    items = split(tokens, head)
    if outcome.index < head or not items:
        report(tokens, outcome)
        return Result(None, True)
    good: list[list[Token]] = []
    reported = 0
    for item in items:
        attempt = feed([*tokens[:head], *item])
        if not isinstance(attempt, Failure):
            good.append(item)
        elif reported < _MOST_ERRORS:
            reported += 1
            report([*tokens[:head], *item], attempt)
    return Result(_assemble(tokens[:head], good), True)


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


Report = Callable[[list[Token], Failure], None]


def _reporter(tokens: list[Token], source: Source, found: list[Diagnostic]) -> Report:
    """Reports a failure, unless an earlier pass has found fault with the same item."""
    known = [d.span for d in found if tokens[0].start <= d.span.start <= tokens[-1].end]

    def report(attempt: list[Token], failure: Failure) -> None:
        head = head_length(attempt)
        first = attempt[head if failure.index >= head and head < len(attempt) else 0]
        last = attempt[min(failure.index, len(attempt) - 1)]
        if not any(first.start <= span.start and span.start <= last.end for span in known):
            context = errors.Context(source, attempt, failure.index, failure.accepts, head)
            found.append(errors.explain(context))

    return report


def _without_such_that(
    tokens: list[Token], failure: Failure, source: Source, found: list[Diagnostic], report: Report
) -> Result:
    """IMP002, and the section as it reads with `such that` where it was meant."""
    for at in errors.such_that_places(tokens, failure.index):
        where = tokens[at].start
        marker = Token("SUCH_THAT", "such that", where, where)
        rest = tokens[at + 1 :] if tokens[at].type in SEPARATORS else tokens[at:]
        mended = [*tokens[:at], marker, *rest]
        node = feed(mended)
        if not isinstance(node, Failure):
            found.append(errors.no_such_that(source, tokens, at))
            return Result(node, False)
    if failure.index >= len(tokens) or tokens[failure.index].type in ("EQ", "LE", "GE", "NEWLINE"):
        found.append(errors.no_such_that(source, tokens, None))
    else:
        report(tokens, failure)
    return Result(None, True)
