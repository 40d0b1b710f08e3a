"""The source lines of a diagnostic with carets under its span and dashes under its labels."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import groupby

from implicitdsl.ground.records import dataclass

from ..diagnostics import Diagnostic
from ..source import Source, Span
from .paint import Paint, Style

_TAB = 4
_LONGEST_SPAN = 5  # lines; of a longer span the first two and the last two are shown


@dataclass(frozen=True, slots=True)
class _Mark:
    """An underlined piece of one line, in code points from 0; `text` stands at the last piece of a label."""

    line: int
    start: int
    end: int
    primary: bool
    text: str = ""


def excerpt(diagnostic: Diagnostic, style: Style, paint: Paint) -> tuple[int, list[str]]:
    """The width of the widest line number and the lines of the excerpt, gutter included."""
    source = diagnostic.source
    marks = [*_marks(source, diagnostic.span, True, "")]
    for label in diagnostic.labels:
        marks += _marks(source, label.span, False, " ".join(label.text.split()))
    numbers = sorted({mark.line for mark in marks})
    width = len(str(numbers[-1]))
    gaps = {number for span in (diagnostic.span, *(k.span for k in diagnostic.labels)) for number in _gap(source, span)}
    empty = f"{' ' * (width + 2)}{paint(Style.GUTTER, '|')}"
    out = [empty]
    for number in numbers:
        line = source.line(number)
        text, columns = _display(line)
        ink = {columns[index] for index, char in enumerate(line) if not char.isspace()}
        gutter = paint(Style.GUTTER, f" {number:>{width}} |")
        out.append(f"{gutter} {text}".rstrip())
        here = [mark for mark in marks if mark.line == number]
        out += [f"{empty} {row}" for row in _rows(here, columns, ink, style, paint)]
        if number in gaps and number + 1 not in numbers:
            out.append(paint(Style.GUTTER, "..."))
    return width, out


def _gap(source: Source, span: Span) -> Iterator[int]:
    """The line after which a long span is elided."""
    first, last = source.position(span.start)[0], source.position(span.end)[0]
    if last - first + 1 > _LONGEST_SPAN:
        yield first + 1


def _marks(source: Source, span: Span, primary: bool, text: str) -> Iterator[_Mark]:
    """One mark for each line that the span covers, without blank lines and surrounding blanks."""
    first, start = source.position(span.start)
    last, end = source.position(span.end)
    if first == last:
        yield _Mark(first, start - 1, max(end - 1, start), primary, text)
        return
    numbers = range(first, last + 1)
    if len(numbers) > _LONGEST_SPAN:
        numbers = (first, first + 1, last - 1, last)
    pieces: list[_Mark] = []
    for number in numbers:
        line = source.line(number)
        low = start - 1 if number == first else len(line) - len(line.lstrip())
        high = min(end - 1, len(line)) if number == last else len(line.rstrip())
        if low < high:
            pieces.append(_Mark(number, low, high, primary))
    if not pieces:  # nothing but blanks: point at its start
        pieces.append(_Mark(first, start - 1, start, primary))
    tail = pieces.pop()
    yield from pieces
    yield _Mark(tail.line, tail.start, tail.end, primary, text)


def _display(line: str) -> tuple[str, list[int]]:
    """The line as printed and, for each code point and for the end, the column where it is printed."""
    out: list[str] = []
    columns: list[int] = []
    column = 0
    for char in line:
        columns.append(column)
        if char == "\t":
            shown, size = " " * (_TAB - column % _TAB), _TAB - column % _TAB
        elif unicodedata.category(char) in ("Mn", "Me"):
            shown, size = char, 0
        elif unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp"):  # would move the cursor or reorder the line
            shown, size = "\N{REPLACEMENT CHARACTER}", 1
        else:
            shown, size = char, 2 if unicodedata.east_asian_width(char) in "WF" else 1
        out.append(shown)
        column += size
    return "".join(out), [*columns, column]


def _rows(marks: list[_Mark], columns: list[int], ink: set[int], style: Style, paint: Paint) -> Iterator[str]:
    """The underline row with the rightmost label's text, then one row for each other label, right to left."""

    def place(index: int) -> int:
        return columns[index] if index < len(columns) else columns[-1] + index - len(columns) + 1

    spans = {mark: (place(mark.start), max(place(mark.end), place(mark.start) + 1)) for mark in marks}
    cells = _underline(spans, ink)
    pending = sorted((mark for mark in marks if mark.text), key=lambda mark: spans[mark])
    tail = ""
    if pending and spans[pending[-1]][1] == len(cells):
        tail = " " + paint(Style.LABEL, pending.pop().text)
    row = "".join(
        paint({"^": style, "-": Style.LABEL}[mark], "".join(run)) if mark != " " else "".join(run)
        for mark, run in groupby(cells)
    )
    yield row + tail
    while pending:
        mark = pending.pop()
        column = spans[mark][0]
        line = "".join("|" if any(spans[other][0] == index for other in pending) else " " for index in range(column))
        yield paint(Style.LABEL, line + mark.text) if line.strip() else line + paint(Style.LABEL, mark.text)


def _underline(spans: dict[_Mark, tuple[int, int]], ink: set[int]) -> list[str]:
    """The cells of the underline row; `ink` holds the columns where something is printed.

    A label strictly inside the primary span is drawn over it: the carets then show what joins the labelled parts.
    """
    cells = [" "] * max(end for _, end in spans.values())
    primary = [span for mark, span in spans.items() if mark.primary]
    inside = {
        mark
        for mark, (low, high) in spans.items()
        if not mark.primary and any(a <= low and high <= b and (a, b) != (low, high) for a, b in primary)
    }
    for mark in sorted(spans, key=lambda mark: (mark in inside, mark.primary)):
        low, high = spans[mark]
        cells[low:high] = ("^" if mark.primary else "-") * (high - low)
    if inside:
        for low, high in _runs(cells, "^"):
            printed = [column for column in range(low, high) if column in ink]
            if printed:  # between juxtaposed factors the blank is the operator, so it keeps its caret
                cells[low : printed[0]] = " " * (printed[0] - low)
                cells[printed[-1] + 1 : high] = " " * (high - printed[-1] - 1)
    return cells


def _runs(cells: list[str], wanted: str) -> list[tuple[int, int]]:
    """The ranges of equal cells that hold `wanted`."""
    out: list[tuple[int, int]] = []
    low = 0
    for char, run in groupby(cells):
        high = low + len(list(run))
        if char == wanted:
            out.append((low, high))
        low = high
    return out
