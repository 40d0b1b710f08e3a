"""The page of a diagnostic code: Markdown in `ground/pages`, printed as it is or with light formatting."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

from ..codes import CODES
from .paint import Paint, Style

PAGES = Path(__file__).resolve().parents[1] / "pages"


def page(code: str) -> str:
    """The Markdown of a code's page. Raises KeyError for a code that does not exist."""
    if code not in CODES:
        raise KeyError(code)
    return (PAGES / f"{code}.md").read_text(encoding="utf-8")


def nearest(code: str) -> str:
    """The existing code that shares the longest beginning with `code`; of several, the one with the nearest number."""

    def likeness(other: str) -> tuple[int, int]:
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(code, other, strict=False)))
        return shared, -abs(int(code[3:] or 0) - int(other[3:]))

    return max(CODES, key=likeness)


def render(markdown: str, *, colour: bool = False) -> str:
    """The page for a terminal: headings without `#`, code indented by four, no fences; no newline at the end."""
    paint = Paint(colour)
    out: list[str] = []
    in_code = False
    for line in markdown.strip().splitlines():
        if line.startswith("```"):
            in_code = not in_code
        elif in_code:
            out.append(f"    {line}".rstrip())
        elif heading := re.match(r"#+ (.*)", line):
            out.append(paint(Style.BOLD, heading[1]))
        else:
            out.append(re.sub(r"`[^`]+`", lambda found: paint(Style.CODE, found[0]), line))
    return "\n".join(out)
