"""`parse`: a file's text to its syntax tree. Never raises; what is wrong is reported and left out.

The file is lexed once; its tokens are filtered a layer at a time, since derivatives need the unknowns of every `find`
of the layer, and each section is fed to the parser by itself, so that one wrong section hides no other.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from implicitdsl.ground.diagnostics import Diagnostic
from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Source, Span

from . import ast, headers, relations
from .build import Header
from .derivatives import Scope, merge
from .lines import Lines
from .recover import read
from .sections import RawLayer, bare_relations, cut, keywords_as_names, programs_as_values
from .tokens import SECTIONS, Token, lex
from .words import Words


@dataclass(frozen=True, slots=True)
class Parsed:
    """What was read: the tree without its wrong parts, what is wrong, and the tokens that the parser was fed."""

    program: ast.Program
    diagnostics: tuple[Diagnostic, ...]
    tokens: tuple[Token, ...]


def parse(source: Source) -> Parsed:
    """The syntax tree of a spec, whatever its text. Cost: linear in its length."""
    raw, comments = lex(source)
    found: list[Diagnostic] = []
    words = Words(source, raw)
    tokens = programs_as_values(keywords_as_names(words.run(), source, found), source, found)
    found += words.found
    layers = cut(tokens)
    reader = _Reader(source, found, tokens)
    program = reader.program(layers, comments)
    found.sort(key=lambda d: d.span)
    return Parsed(program, tuple(found), tuple(reader.fed))


class _Reader:
    """Reads the layers of one file."""

    def __init__(self, source: Source, found: list[Diagnostic], tokens: list[Token]) -> None:
        self.source = source
        self.found = found
        self.fed: list[Token] = []
        self.following = _next_sections(tokens)

    def program(self, layers: list[RawLayer], comments: tuple[ast.Comment, ...]) -> ast.Program:
        top, named = layers[0], layers[1:]
        imports: list[ast.Import] = []
        nodes: list[ast.Layer] = []
        if not named:
            if top.sections:
                layer = self.layer(top, imports)
                if layer.sections or layer.broken:
                    nodes.append(layer)
        else:
            for section in top.sections:
                if section[0].type == "IMPORT":
                    self.section(section, Scope(), imports, [])
                else:
                    self.found.append(headers.before_layer(section, self.source))
            nodes += [self.layer(raw, imports) for raw in named]
        return ast.Program(Span(0, len(self.source.text)), tuple(imports), tuple(nodes), comments)

    def layer(self, raw: RawLayer, imports: list[ast.Import]) -> ast.Layer:
        header, broken = None, False
        if raw.header is not None:
            header, broken = headers.read(raw.header, self.source, self.found)
            self.fed += raw.header
        scope = Scope()
        for section in raw.sections:
            scope.scan(section)
        if raw.header is None:
            bare_relations(raw, scope)
            for section in raw.sections:
                if section[0].type in ("BARE", "FIND"):
                    scope.scan_bare(section)
        nodes: list[Any] = []
        for section in raw.sections:
            broken = self.section(section, scope, imports, nodes) or broken
        return _layer(header, nodes, raw, broken)

    def section(self, raw: list[Token], scope: Scope, imports: list[ast.Import], nodes: list[Any]) -> bool:
        """Reads one section into `imports` or `nodes`; gives whether something of it was dropped."""
        if raw[0].type not in SECTIONS:
            self.found.append(headers.outside(raw, self.source))
            return True
        merged = merge(raw, scope, self.source, self.found)
        following = self.following.get(raw[-1].start)
        lines = Lines(self.source, merged, self.found, following)
        tokens = lines.run()
        self.fed += tokens
        if not tokens:
            return True
        end = following.start if following is not None else len(self.source.text) + 1
        result = read(tokens, self.source, self.found, end, lines.lost)
        if isinstance(result.node, ast.Import):
            imports.append(result.node)
        elif result.node is not None:
            relations.check(result.node, self.source, self.found)
            nodes.append(result.node)
        return result.lost


def _next_sections(tokens: list[Token]) -> dict[int, Token]:
    """The keyword that follows a section, by where the section's last token starts."""
    return {before.start: t for before, t in pairwise(tokens) if t.type in SECTIONS}


def _layer(header: Header | None, nodes: list[Any], raw: RawLayer, broken: bool) -> ast.Layer:
    if header is not None:
        span = header.span.to(nodes[-1].span) if nodes else header.span
        return ast.Layer(span, header.name, header.dims, tuple(nodes), broken)
    span = Span(raw.sections[0][0].start, raw.sections[-1][-1].end)
    return ast.Layer(span, None, (), tuple(nodes), broken)
