"""`implicitdsl fmt`: the author's lines in canonical spelling, spacing and indentation. Comments stay where they are.

It works on tokens, so that formatting cannot change what is read: the tree of the result is that of the source.
"""

from __future__ import annotations

from dataclasses import field
from itertools import pairwise

from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Source

from . import ast
from .parser import Parsed, parse
from .printer import derivative_text
from .tokens import OPENERS, OPERAND_ENDS, SECTIONS, SEPARATORS, Token, types

_CLOSERS = types("RPAR RSQB RBRACE BAR_END DBAR_END")
_BARS = types("BAR DBAR BAR_END DBAR_END")
_SPELLING = {
    "IN": "in", "EQ": "=", "LE": "<=", "GE": ">=", "SUCCEEDS": ">>", "PRECEDES": "<<", "ARROW": "->", "MINUS": "-",
    "STAR": "*", "SLASH": "/", "AT": "@", "DBAR": "||", "DBAR_END": "||", "TRANSPOSE": "^T",
    "SUCH_THAT": "such that", "SUBJECT_TO": "subject to", "NEWLINE": "",
}  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_TIGHT_BEFORE = types("COMMA SEMICOLON CALL INDEX TRANSPOSE SUPERSCRIPT NORM_KIND CARET COLON") | _CLOSERS
_CLAUSES = types("SUCH_THAT SUBJECT_TO FOR UNTIL")
_BLOCKS = types("FIND ARGMIN ARGMAX BARE")


def format_program(source: Source, parsed: Parsed | None = None) -> str:
    """`source` in canonical form: idempotent, and with the same tree. A spec with syntax errors is left as it is."""
    parsed = parsed or parse(source)
    if any(d.is_error for d in parsed.diagnostics):
        return source.text
    return _Formatter(source, parsed).run()


@dataclass(slots=True)
class _Line:
    text: str
    comment: str = ""


@dataclass(slots=True)
class _Formatter:
    source: Source
    parsed: Parsed
    lines: list[_Line] = field(default_factory=list[_Line])
    pending: list[str] = field(default_factory=list[str])  # blank lines and comments before the next line of code
    open: list[Token] = field(default_factory=list[Token])
    kind: str = ""  # the section at hand
    listing: bool = False  # after `such that` or `subject to`
    item: int = 0  # how many tokens of its item are printed
    item_indent: int = 0
    list_indent: int = 0
    base: int = 0

    def run(self) -> str:
        tokens = list(self.parsed.tokens)
        comments = list(self.parsed.program.comments)
        self.base = 0
        end = 0
        next_comment = 0
        for i, t in enumerate(tokens):
            while next_comment < len(comments) and comments[next_comment].span.start < t.start:
                end = self._comment(comments[next_comment], end)
                next_comment += 1
            breaks = self.source.text.count("\n", end, t.start)
            if breaks > 1:
                self.pending.append("")
            self._token(tokens, i, breaks > 0 or (bool(self.pending) and self.pending[-1] != ""))
            end = max(end, t.start if t.type == "NEWLINE" else t.end)
        for comment in comments[next_comment:]:
            end = self._comment(comment, end)
        self._flush(0)
        while self.lines and not self.lines[-1].text and not self.lines[-1].comment:
            self.lines.pop()
        _align_comments(self.lines)
        return "".join(f"{line.text}\n" for line in self.lines)

    # -- comments and lines ----------------------------------------------------------------------------------------

    def _comment(self, comment: ast.Comment, end: int) -> int:
        text = comment.text.rstrip()
        breaks = self.source.text.count("\n", end, comment.span.start)
        if breaks == 0 and end > 0 and not self.pending and self.lines:
            self.lines[-1].comment = text
        else:
            if breaks > 1:
                self.pending.append("")
            self.pending.append(text)
        return comment.span.end

    def _flush(self, indent: int) -> None:
        for text in self.pending:
            if text or (self.lines and self.lines[-1].text):
                self.lines.append(_Line(" " * indent + text if text else ""))
        self.pending.clear()

    def _start_line(self, indent: int) -> None:
        self._flush(indent)
        self.lines.append(_Line(" " * indent))

    # -- tokens ----------------------------------------------------------------------------------------------------

    def _token(self, tokens: list[Token], i: int, broken: bool) -> None:
        t = tokens[i]
        if t.type == "NEWLINE":
            self.item = 0
            return
        if t.type in SECTIONS:
            self._section(t)
            return
        before = tokens[i - 1]
        if t.type == "SEMICOLON" and not self.open and self._break_follows(tokens, i):
            self.item = 0
            return
        if t.type in _CLOSERS and self.open:
            self.open.pop()
        separated = before.type in SEPARATORS and not self.open and t.type not in _CLOSERS
        if separated:
            self.item = 0
        if broken or before.type == "NEWLINE":
            self._start_line(self._indent(t, before, separated))
        elif before.type == "BARE":
            self._start_line(self.base)
        elif self._space(tokens, i):
            self.lines[-1].text += " "
        if t.type in ("SUCH_THAT", "SUBJECT_TO") and not self.open:
            self.list_indent = self.base + (4 if self.lines[-1].text.isspace() or not self.lines[-1].text else 2)
            self.item_indent = self.list_indent
            self.listing = True
        self.lines[-1].text += _spelled(tokens, i, self.kind)
        if before.type in SECTIONS:
            self.item = 0
        self.item = 0 if t.type in ("SUCH_THAT", "SUBJECT_TO") else self.item + 1
        if t.type in OPENERS:
            self.open.append(t)

    def _section(self, t: Token) -> None:
        if t.type == "LAYER":
            if self.lines and "" not in self.pending:
                self.pending.insert(0, "")
            self.base = 0
        elif self.kind == "LAYER":
            self.base = 2
        self.open.clear()
        self.kind = t.type
        self.listing = t.type == "BARE"
        self.item = 0
        width = 0 if t.type in ("BARE", "ARGMIN", "ARGMAX") else len(t.text) + 1
        indent = 0 if t.type == "IMPORT" else self.base
        self.list_indent = indent + (width if t.type not in ("ARGMIN", "ARGMAX") else 2)
        self.item_indent = self.list_indent
        if t.type != "BARE":
            self._start_line(indent)
            self.lines[-1].text += t.text

    def _indent(self, t: Token, before: Token, separated: bool) -> int:
        """How far to indent a line that begins with `t`."""
        if before.type in SECTIONS and before.type != "BARE":  # the keyword stands alone on its line
            self.list_indent = self.item_indent = self.base + 2
            return self.list_indent
        if before.type == "BARE":
            return self.base
        if self.open:
            return self.item_indent + 2
        if t.type in _CLAUSES and self.kind in _BLOCKS and not self.listing:
            return self.base + 2
        if separated or before.type in ("SUCH_THAT", "SUBJECT_TO"):
            return self.list_indent
        return self.item_indent + 2

    def _break_follows(self, tokens: list[Token], i: int) -> bool:
        return i + 1 < len(tokens) and "\n" in self.source.text[tokens[i].end : tokens[i + 1].start]

    # -- spaces ----------------------------------------------------------------------------------------------------

    def _space(self, tokens: list[Token], i: int) -> bool:
        """Whether a space stands before token `i` on the same line."""
        before, t = tokens[i - 1], tokens[i]
        a, b = before.type, t.type
        if a in _BARS and b in _BARS and (a.endswith("END") == b.endswith("END")):
            return True
        if a == "DERIVATIVE" and b in ("CARET", "SUPERSCRIPT"):
            return True  # tight, it would be part of the derivative
        if a == "CARET":
            return b == "NAME" and t.text == "T"  # tight, it would be a transpose
        if "COLON" in (a, b) and self._roomy(tokens, i if b == "COLON" else i - 1):
            return a not in OPENERS and b not in _CLOSERS
        if a in OPENERS or b in _TIGHT_BEFORE or a in ("ARGMIN", "ARGMAX"):
            return False
        if self.kind == "LAYER" and b == "LPAR":
            return False
        if self.kind == "USING" and "EQ" in (a, b):
            return False
        if a == "COLON":
            return not self.open and self.item == 2
        if a == "MINUS" and not _binary(tokens, i - 1):
            return False
        if any(tokens[j].type in ("PLUS", "MINUS") and self._dense(tokens, j) for j in (i - 1, i)):
            return False
        return not (_fraction(tokens, i - 1) or _fraction(tokens, i))

    def _roomy(self, tokens: list[Token], colon: int) -> bool:
        """Whether a bound of the slice is a product, as in `z[n : 2 n]`: tight, the colon would seem to split it."""
        if not self.open or self.open[-1].type != "INDEX":
            return False
        first = last = colon
        while tokens[first - 1].type in ("NAME", "NUMBER", "PLUS", "MINUS"):
            first -= 1
        while last + 1 < len(tokens) and tokens[last + 1].type in ("NAME", "NUMBER", "PLUS", "MINUS"):
            last += 1
        bounds = [t.type in ("NAME", "NUMBER") for t in tokens[first : last + 1]]
        return any(x and y for x, y in pairwise(bounds))

    def _dense(self, tokens: list[Token], i: int) -> bool:
        """Whether the sign at `i` is all there is in an index or dimension, as in `x[i+1]` or `R^(N+1, n)`."""
        if i < 4 or i + 1 >= len(tokens) or not _binary(tokens, i):
            return False
        if tokens[i - 2].type == "COLON" and tokens[i - 4].type == "IN":  # `for i in 1:n-1`
            return tokens[i - 1].type in ("NAME", "NUMBER") and tokens[i + 1].type in ("NAME", "NUMBER")
        if not self.open or i + 2 >= len(tokens):
            return False
        opener = self.open[-1]
        dimension = opener.type == "LPAR" and self._of_set(tokens, tokens.index(opener))
        return (
            (opener.type == "INDEX" or dimension)
            and tokens[i - 1].type in ("NAME", "NUMBER")
            and tokens[i + 1].type in ("NAME", "NUMBER")
            and tokens[i - 2].type in ("INDEX", "LPAR", "COMMA", "COLON")
            and tokens[i + 2].type in ("RSQB", "RPAR", "COMMA", "COLON")
        )

    def _of_set(self, tokens: list[Token], opener: int) -> bool:
        """Whether the bracket at `opener` holds dimensions: it follows `^` and a base that follows `in` or `->`."""
        if tokens[opener - 1].type != "CARET":
            return False
        base = opener - 2
        depth = 0
        while base > 0 and (depth or tokens[base].type in _CLOSERS):
            depth += (tokens[base].type in _CLOSERS) - (tokens[base].type in OPENERS)
            base -= 1
        return tokens[base - 1].type in ("IN", "ARROW") or self.kind == "FN"


def _binary(tokens: list[Token], i: int) -> bool:
    """Whether the sign at `i` stands between two operands; an `argmin_`'s unknowns are none."""
    if i < 2 or tokens[i - 1].type == "RBRACE" or tokens[i - 2].type in ("ARGMIN", "ARGMAX"):
        return False
    return tokens[i - 1].type in OPERAND_ENDS


def _fraction(tokens: list[Token], i: int) -> bool:
    """Whether token `i` is the `/` of two literals, `1/2`."""
    return (
        tokens[i].type == "SLASH"
        and i + 1 < len(tokens)
        and tokens[i - 1].type == "NUMBER"
        and tokens[i + 1].type == "NUMBER"
        and tokens[i - 2].type != "CARET"
    )


def _spelled(tokens: list[Token], i: int, kind: str) -> str:
    t = tokens[i]
    if t.type == "SUPERSCRIPT":
        return "^" + t.text.translate(_SUPERSCRIPTS)
    if t.derivative is not None:
        return derivative_text(*t.derivative)
    if t.text == "ℝ" and (tokens[i - 1].type in ("IN", "ARROW") or kind == "FN"):
        return "R"
    if t.type == "NORM_KIND":
        return t.text.replace("∞", "inf")
    return _SPELLING.get(t.type, t.text)


def _align_comments(lines: list[_Line]) -> None:
    """Puts the comments of neighbouring lines into one column."""
    i = 0
    while i < len(lines):
        j = i
        while j < len(lines) and lines[j].comment:
            j += 1
        column = max((len(line.text) for line in lines[i:j]), default=0) + 2
        for line in lines[i:j]:
            line.text = line.text.ljust(column) + line.comment
            line.comment = ""
        i = max(j, i + 1)
