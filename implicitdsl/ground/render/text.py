"""Diagnostics for people: a header, the place, the source with carets, notes and help.

The anatomy, on a diagnostic whose span is `W z + x` and whose four labels are `n`, `m`, `W z` and `x`:

    error[IMP201]: shapes differ in `W z + x`: (n) and (m)
      --> deq.imp:6:14
       |
     1 | layer Deq(n, m):
       |           -  - `m` is a different dimension
       |           `n` introduced here
     6 |     z = tanh(W z + x)
       |              --- ^ -
       = help: project the input: `W z + U x` with `param U in R^(n, m)`
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

from ..diagnostics import Diagnostic, Level
from .excerpt import excerpt
from .paint import Paint, Style

_LEVEL_STYLE = {Level.ERROR: Style.ERROR, Level.WARNING: Style.WARNING, Level.INFO: Style.INFO}


def render(diagnostics: Sequence[Diagnostic], *, colour: bool = False, brief_infos: bool = False) -> str:
    """The diagnostics in the given order, a blank line between two; no newline at the end.

    `brief_infos` prints an info as header and place only.
    """
    paint = Paint(colour)
    out: list[str] = []
    previous_brief = True
    for diagnostic in diagnostics:
        brief = brief_infos and diagnostic.level is Level.INFO
        if out and not (brief and previous_brief):
            out.append("")
        out += _header(diagnostic, paint) if brief else _full(diagnostic, paint)
        previous_brief = brief
    return "\n".join(out)


def summary(diagnostics: Sequence[Diagnostic]) -> str:
    """`2 errors, 1 warning`; the empty text when there is nothing to count."""
    parts: list[str] = []
    for level in Level:
        count = sum(d.level is level for d in diagnostics)
        if count:
            parts.append(f"{count} {level.value}{'s' if count > 1 else ''}")
    return ", ".join(parts)


def wants_colour(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that shows colours and whose user has not set `NO_COLOR`."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _header(diagnostic: Diagnostic, paint: Paint, margin: int = 1) -> list[str]:
    style = _LEVEL_STYLE[diagnostic.level]
    title = paint(style, f"{diagnostic.level.value}[{diagnostic.code}]") + paint(Style.BOLD, f": {diagnostic.message}")
    place = f"{diagnostic.file}:{diagnostic.line}:{diagnostic.column}"
    return [title, f"{' ' * margin} {paint(Style.GUTTER, '-->')} {place}"]


def _full(diagnostic: Diagnostic, paint: Paint) -> list[str]:
    width, body = excerpt(diagnostic, _LEVEL_STYLE[diagnostic.level], paint)
    out = [*_header(diagnostic, paint, width), *body]
    helps = [diagnostic.help] if diagnostic.help else []
    helps += [fix.message for fix in diagnostic.fixes if not any(fix.message in text for text in helps)]
    for kind, texts in (("note", diagnostic.notes), ("help", helps)):
        for text in texts:
            first, *rest = text.splitlines() or [""]
            out.append(f"{' ' * (width + 2)}{paint(Style.GUTTER, '=')} {paint(Style.BOLD, kind + ':')} {first}")
            out += [" " * (width + 10) + line for line in rest]
    return out
