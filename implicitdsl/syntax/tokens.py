"""Tokens, the groups that the filter asks for, and the lexer's run over a file."""

from __future__ import annotations

from typing import NamedTuple

from implicitdsl.ground.source import Source, Span

from . import ast
from .grammar import lexemes


class Token(NamedTuple):
    """A piece of text at `[start, end)`. `type` is a terminal of the grammar.

    `derivative` holds (unknown, order, variable, partial) of a DERIVATIVE.
    """

    type: str
    text: str
    start: int
    end: int
    derivative: tuple[str, int, str, bool] | None = None

    @property
    def span(self) -> Span:
        return Span(self.start, self.end)


def types(names: str) -> frozenset[str]:
    """The set of the terminals named."""
    return frozenset(names.split())


SECTIONS = types("GIVEN PARAM CONST FN LET WHERE FIND ARGMIN ARGMAX USING RETURN IMPORT LAYER BARE")
WORDS = SECTIONS | types("FOR UNTIL IN SUCH_THAT SUBJECT_TO FROM AS OR FORWARD BACKWARD START ON_FAILURE")
RELATIONS = types("EQ LE GE SUCCEEDS PRECEDES LESS GREATER")
OPERATORS = RELATIONS | types("PLUS MINUS STAR SLASH AT CARET POWER ARROW ELEMENT")
INFIX = OPERATORS - {"MINUS"}
OPENERS = types("LPAR LSQB LBRACE CALL INDEX BAR DBAR")
CLOSERS = {"RPAR": "LPAR", "RSQB": "LSQB", "RBRACE": "LBRACE"}
SEPARATORS = types("COMMA SEMICOLON NEWLINE")
OPERAND_ENDS = types("NAME NUMBER STRING SUPERSCRIPT TRANSPOSE DERIVATIVE NORM_KIND RPAR RSQB RBRACE BAR_END DBAR_END")


def lex(source: Source) -> tuple[list[Token], tuple[ast.Comment, ...]]:
    """All tokens of the file, newlines included, and its comments. A terminal for any character makes it never fail."""
    tokens: list[Token] = []
    comments: list[ast.Comment] = []
    for raw in lexemes(source.text):
        start = raw.start_pos or 0
        token = Token(raw.type, str(raw), start, start + len(raw))
        if token.type == "COMMENT":
            comments.append(ast.Comment(token.span, token.text))
        else:
            tokens.append(token)
    return tokens, tuple(comments)
