"""Cuts a file's tokens into layers and sections at their keywords, and finds keywords that were meant as names."""

from __future__ import annotations

from dataclasses import field

from implicitdsl.ground.diagnostics import Applicability, Diagnostic, Edit, Fix
from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Source, Span

from .derivatives import Scope, readings
from .tokens import INFIX, OPENERS, OPERATORS, SECTIONS, SEPARATORS, Token, types

# What cannot follow a section's keyword, so the keyword was meant as a name.
_AFTER_NAME = (INFIX | SEPARATORS | types("IN COLON RPAR RSQB RBRACE TRANSPOSE SUPERSCRIPT")) - {"NEWLINE"}
# What a section cannot follow on the same line.
_BEFORE_NAME = (OPERATORS | OPENERS | {"IN", "FOR"}) - {"BAR", "DBAR"}
# What can follow a name that stands behind the keyword of its own section: `layer find(n):`, `return where`.
_AFTER_FIRST_NAME = _AFTER_NAME | types("NEWLINE SUCH_THAT FOR UNTIL LPAR")
_IN_HEADER = types("LPAR RPAR COMMA COLON")
_CLAUSES = frozenset(("IN", "FOR", "UNTIL"))
_CONTINUES_BLOCK = frozenset(("FIND", "ARGMIN", "ARGMAX", "BARE"))
_MARKS = frozenset(("ARGMIN", "ARGMAX", "BARE"))


@dataclass(slots=True)
class RawLayer:
    """A layer before its sections are read: the tokens of its header (none in a bare text) and of each section.

    A section that does not begin with a keyword stands outside any section.
    """

    header: list[Token] | None
    sections: list[list[Token]] = field(default_factory=list[list[Token]])


def keywords_as_names(tokens: list[Token], source: Source, found: list[Diagnostic]) -> list[Token]:
    """`tokens` in which a keyword at a name's place is a NAME, reported as IMP016."""
    kept: list[Token] = []
    header = False
    for i, t in enumerate(tokens):
        if header:
            header = t.type not in ("COLON", "NEWLINE")
        elif t.type == "LAYER":
            header = i == 0 or tokens[i - 1].type == "NEWLINE"
        if (t.type in SECTIONS and t.type not in _MARKS) or t.type in _CLAUSES:
            before = tokens[i - 1] if i else None
            after, second = (tokens[j].type if j < len(tokens) else "NEWLINE" for j in (i + 1, i + 2))
            if after in _CLAUSES and second in ("IN", "EQ"):  # `given in in R`: the next one is the name
                after = "NAME"
            if i + 1 < len(tokens) and not _adjoining(t, tokens[i + 1], source):
                after = "NAME"  # a character that means nothing, which was dropped, may have been one
            dimension = header and before is not None and before.type in _IN_HEADER and after in _IN_HEADER
            if dimension or _is_name(t, before, after):
                t = t._replace(type="NAME")
                found.append(keyword_as_name(t, source))
        kept.append(t)
    return kept


def _adjoining(t: Token, after: Token, source: Source) -> bool:
    """Whether nothing but space and comments stands between two tokens."""
    between = source.text[t.end : after.start].strip()
    return not between or between.startswith("#")


def keyword_as_name(t: Token, source: Source) -> Diagnostic:
    """IMP016 at a keyword that stands where a name belongs."""
    fix = Fix(f"rename it, for example `{t.text}_`", (Edit(t.span, f"{t.text}_"),), Applicability.SAFE)
    return Diagnostic("IMP016", f"`{t.text}` is a keyword and cannot be a name", t.span, source, fixes=(fix,))


def _is_name(t: Token, before: Token | None, after: str) -> bool:
    if t.type in SECTIONS:
        if before is None or before.type == "NEWLINE":
            return after in _AFTER_NAME and after != "COLON"
        if before.type in SECTIONS:
            return after in _AFTER_FIRST_NAME
        return after in _AFTER_NAME or before.type in _BEFORE_NAME
    if before is None or not (before.type in SECTIONS or before.type in SEPARATORS):
        return False
    return after in ("IN", "EQ") if t.type != "FOR" else after in ("IN", "EQ", "COMMA", "SEMICOLON")


def programs_as_values(tokens: list[Token], source: Source, found: list[Diagnostic]) -> list[Token]:
    """`tokens` without the `find z =` or `z =` before an `argmin_`, or the `return` before it or a `find`, reported as
    IMP001: it names its unknown."""
    kept: list[Token] = []
    for i, t in enumerate(tokens):
        returned = t.type in ("FIND", "ARGMIN", "ARGMAX") and bool(kept) and kept[-1].type == "RETURN"
        if returned or (t.type in ("ARGMIN", "ARGMAX") and kept and kept[-1].type == "EQ"):
            at = len(kept) - 1 if returned else _statement(kept)
            before, kept = kept[at:], kept[:at]
            found.append(_program_as_value(t, before, tokens[i + 1 : i + 3], source))
        kept.append(t)
    return kept


def _statement(tokens: list[Token]) -> int:
    """Where the statement at the end of `tokens` begins: at its `find`, at a `where` that holds nothing else, else
    behind the last separator or keyword."""
    first = None
    for at in range(len(tokens) - 1, -1, -1):
        kind = tokens[at].type
        if kind in SECTIONS:
            return at if kind == "FIND" or (kind == "WHERE" and first is None) else at + 1 if first is None else first
        if kind in SEPARATORS and first is None:
            first = at + 1
    return first or 0


def _program_as_value(t: Token, before: list[Token], after: list[Token], source: Source) -> Diagnostic:
    unknown = next((x.text for x in after if x.type == "NAME"), None)
    # no set and no other name is lost; what a layer solves for it also returns
    same = before[0].type == "RETURN" or {x.text for x in before if x.type == "NAME"} == {unknown}
    fix = Fix(
        f"begin with `{t.text}`: it names its unknown",
        (Edit(Span(before[0].start, t.start), ""),),
        Applicability.SAFE if same else Applicability.UNSAFE,
    )
    message = f"`{t.text}` is a sentence of its own, not a value"
    return Diagnostic("IMP001", message, Span(before[0].start, t.end), source, fixes=(fix,))


def cut(tokens: list[Token]) -> list[RawLayer]:
    """The layers of a file. The first one has no header; it holds imports and what stands before any `layer`."""
    layers = [RawLayer(None)]
    current: list[Token] = []
    for t in tokens:
        if t.type in SECTIONS:
            if t.type == "LAYER":
                layers.append(RawLayer([t]))
                current = layers[-1].header or []
            else:
                current = [t]
                layers[-1].sections.append(current)
        elif current and current[0].type == "LAYER":
            if t.type == "NEWLINE" and (current[-1].type == "COLON" or not _open(current)):
                current = []
            else:
                current.append(t)
                if t.type == "COLON":
                    current = []
        elif current:
            current.append(t)
        elif t.type != "NEWLINE":
            current = [t]
            layers[-1].sections.append(current)
    return layers


def _open(tokens: list[Token]) -> bool:
    return sum((t.type == "LPAR") - (t.type == "RPAR") for t in tokens) > 0


def bare_relations(layer: RawLayer, scope: Scope) -> None:
    """In a text without `layer`: makes sections of lines that begin with a derivative, outside any block."""
    sections: list[list[Token]] = []
    for section in layer.sections:
        kind = section[0].type
        if kind in _CONTINUES_BLOCK:
            sections.append(section)
            continue
        start = 0
        for i, t in enumerate(section):
            at_line_start = i == 0 or section[i - 1].type == "NEWLINE"
            if at_line_start and t.text not in scope.declared and _derivative_relation(section, i):
                if i > start:
                    sections.append(section[start:i])
                sections.append([Token("BARE", "", t.start, t.start), *section[i:]])
                start = len(section)
                break
        if start < len(section):
            sections.append(section[start:])
    layer.sections = sections


def _derivative_relation(tokens: list[Token], i: int) -> bool:
    """Whether the line at `i` has a tight derivative at the left of its first `=`."""
    first = next(iter(readings(tokens, i)), None)
    j = i + first.length if first else i
    while j < len(tokens) and tokens[j].type not in ("EQ", "NEWLINE", "COMMA", "SEMICOLON"):
        if first is None:
            first = next(iter(readings(tokens, j)), None)
        j += 1
    return first is not None and j < len(tokens) and tokens[j].type == "EQ"
