"""Tight `dz/dt`, `d²q/dt²`, `∂u/∂x` as one token, where z is an unknown and t one of its independent variables.

So `delta/dt` stays a quotient. In a text without `layer`, one at the left of `=` makes its unknown known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

from implicitdsl.ground.diagnostics import Diagnostic
from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Source, Span

from .tokens import SEPARATORS, Token

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_PIECES = frozenset(("PARTIAL", "NAME", "NUMBER", "SUPERSCRIPT", "SLASH"))  # of a derivative
_LONGEST = 4  # digits of an order
_DECLARING = frozenset(("GIVEN", "PARAM", "CONST", "FN", "LET", "WHERE"))


@dataclass(slots=True)
class Reading:
    """One way to read the tokens from some place as a derivative."""

    unknown: str
    order: int
    variable: str
    partial: bool
    length: int


@dataclass(slots=True)
class Scope:
    """The unknowns of a layer's `find` sections, their independent variables, and what other sections declare."""

    unknowns: set[str] = field(default_factory=set[str])
    variables: set[str] = field(default_factory=set[str])
    declared: set[str] = field(default_factory=set[str])

    def scan(self, tokens: list[Token]) -> None:
        """Takes in one section: a `find` up to `such that`, or the names that a list section declares."""
        if tokens[0].type != "FIND":
            if tokens[0].type in _DECLARING:
                self._names(tokens, self.declared)
            return
        end = next((i for i, t in enumerate(tokens) if t.type == "SUCH_THAT"), len(tokens))
        self._names(tokens[:end], self.unknowns)
        depth = 0
        for i, t in enumerate(tokens[:end]):
            if t.type in ("LPAR", "LSQB"):
                depth += 1
                if i > 1 and t.end and tokens[i - 1].text in self.unknowns and tokens[i - 1].end == t.start:
                    self.variables.update(self._until_close(tokens, i + 1))
            elif t.type in ("RPAR", "RSQB"):
                depth -= 1
            elif t.type == "FOR" and i + 1 < end and tokens[i + 1].type == "NAME":
                self.variables.add(tokens[i + 1].text)

    def scan_bare(self, tokens: list[Token]) -> None:
        """Takes in the derivatives at the left of an `=` in relations of a text without `layer`."""
        start = 0
        for i, t in enumerate(tokens):
            if t.type in SEPARATORS or t.type == "SUCH_THAT":
                start = i + 1
            elif t.type == "EQ":
                for j in range(start, i):
                    for r in readings(tokens, j):
                        if tokens[j].text not in self.declared:
                            self.unknowns.add(r.unknown)
                            self.variables.add(r.variable)
                            break
                start = i + 1

    def _names(self, tokens: list[Token], into: set[str]) -> None:
        depth = 0
        for i in range(1, len(tokens)):
            t = tokens[i]
            if t.type in ("LPAR", "LSQB"):
                depth += 1
            elif t.type in ("RPAR", "RSQB"):
                depth = max(depth - 1, 0)
            elif t.type == "NAME" and depth == 0 and (i == 1 or tokens[i - 1].type in SEPARATORS):
                relation = i + 1 < len(tokens) and tokens[i + 1].type == "SLASH"  # `dz/dt = …` of a bare text
                if not relation:
                    into.add(t.text)

    def _until_close(self, tokens: list[Token], i: int) -> Iterator[str]:
        while i < len(tokens) and tokens[i].type in ("NAME", "COMMA"):
            if tokens[i].type == "NAME":
                yield tokens[i].text
            i += 1


def merge(tokens: list[Token], scope: Scope, source: Source, found: list[Diagnostic]) -> list[Token]:
    """`tokens` with every derivative of the scope as one DERIVATIVE token."""
    if not any(t.type == "SLASH" for t in tokens) and not any(t.type == "PARTIAL" for t in tokens):
        return tokens
    merged: list[Token] = []
    i = 0
    while i < len(tokens):
        t = tokens[i]
        reading = None
        if t.type == "PARTIAL" or (t.type == "NAME" and t.text[0] == "d"):
            all_readings = list(readings(tokens, i))
            known = [r for r in all_readings if r.unknown in scope.unknowns and r.variable in scope.variables]
            reading = known[0] if known else None
            if t.type == "PARTIAL" and reading is None:
                # ∂ has no other meaning, so an unknown name is the checker's to report
                reading = all_readings[0] if all_readings else None
                if reading is None:
                    i = _no_derivative(tokens, i, source, found)
                    continue
        if reading is None:
            merged.append(t)
            i += 1
            continue
        last = tokens[i + reading.length - 1]
        meaning = (reading.unknown, reading.order, reading.variable, reading.partial)
        merged.append(Token("DERIVATIVE", source.text[t.start : last.end], t.start, last.end, meaning))
        i += reading.length
    return merged


def _no_derivative(tokens: list[Token], i: int, source: Source, found: list[Diagnostic]) -> int:
    """Reports the `∂` at `i`; gives the place behind what is written tight to it."""
    end = i + 1
    while end < len(tokens) and tokens[end].type in _PIECES and tokens[end].start == tokens[end - 1].end:
        end += 1
    message = "`∂` begins a derivative such as `∂u/∂x` or `∂²u/∂x²`, written without spaces"
    help_text = "for the derivative of an expression write `grad(e, v)`, for a mixed one `jac`"
    span = Span(tokens[i].start, tokens[end - 1].end)
    found.append(Diagnostic("IMP004", message, span, source, help=help_text))
    return end


def readings(tokens: list[Token], i: int) -> Iterator[Reading]:
    """The ways in which tokens from `i` on are a tight derivative with equal orders above and below."""
    for order, unknown, slash in _above(tokens, i):
        if _tight(tokens, slash, "SLASH"):
            partial = tokens[i].type == "PARTIAL"
            for below, variable, end in _below(tokens, slash + 1, partial):
                if order == below:
                    yield Reading(unknown, order, variable, partial, end - i)


def _above(tokens: list[Token], i: int) -> Iterator[tuple[int, str, int]]:
    """Order, unknown and the place after `dz`, `d²q`, `d2q`, `d^2q`, `∂u`, `∂²u`."""
    t = tokens[i]
    if t.type == "NAME" and t.text[0] == "d" and len(t.text) > 1:
        if t.text[1].isdecimal():
            digits = len(t.text[1:]) - len(t.text[1:].lstrip("0123456789"))
            if 0 < digits < min(len(t.text) - 1, _LONGEST):
                yield int(t.text[1 : 1 + digits]), t.text[1 + digits :], i + 1
        elif t.text[1] != "_":
            yield 1, t.text[1:], i + 1
    elif t.type == "PARTIAL" or t.text == "d":
        order, j = _order(tokens, i + 1)
        if _tight(tokens, j, "NAME"):
            yield order, tokens[j].text, j + 1


def _below(tokens: list[Token], i: int, partial: bool) -> Iterator[tuple[int, str, int]]:
    """Order, variable and the place after `dt`, `dt²`, `dt2`, `dt^2`, `∂x²`."""
    if partial:
        if not _tight(tokens, i, "PARTIAL"):
            return
        i += 1
    if not _tight(tokens, i, "NAME"):
        return
    text = tokens[i].text
    if not partial:
        if text[0] != "d" or len(text) < 2:
            return
        text = text[1:]
    order, end = _order(tokens, i + 1)
    yield order, text, end
    stem = text.rstrip("0123456789")
    if order == 1 and stem and 0 < len(text) - len(stem) < _LONGEST:
        yield int(text[len(stem) :]), stem, i + 1


def _order(tokens: list[Token], i: int) -> tuple[int, int]:
    """The order written at `i` (`²`, `2`, `^2`; 1 when none is) and the place after it."""
    if _tight(tokens, i, "SUPERSCRIPT") and "⁻" not in tokens[i].text and len(tokens[i].text) < _LONGEST:
        return int(tokens[i].text.translate(_SUPERSCRIPTS)), i + 1
    if _tight(tokens, i, "CARET") and _small(tokens, i + 1):
        return int(tokens[i + 1].text), i + 2
    if tokens[i - 1].type == "PARTIAL" and _small(tokens, i):
        return int(tokens[i].text), i + 1
    return 1, i


def _tight(tokens: list[Token], i: int, kind: str) -> bool:
    return i < len(tokens) and tokens[i].type == kind and tokens[i].start == tokens[i - 1].end


def _small(tokens: list[Token], i: int) -> bool:
    return _tight(tokens, i, "NUMBER") and tokens[i].text.isdigit() and len(tokens[i].text) < _LONGEST
