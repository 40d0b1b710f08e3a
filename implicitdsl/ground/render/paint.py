"""Terminal colours, or none."""

from __future__ import annotations

from enum import Enum

from implicitdsl.ground.records import dataclass


class Style(Enum):
    """What a piece of text is; the value is its ANSI code."""

    ERROR = "1;31"
    WARNING = "1;33"
    INFO = "1;36"
    GUTTER = "1;34"
    LABEL = "34"
    BOLD = "1"
    CODE = "36"


@dataclass(frozen=True, slots=True)
class Paint:
    """`paint(style, text)`: the text in its colour, or as it is where colours are off."""

    colour: bool

    def __call__(self, style: Style, text: str) -> str:
        return f"\x1b[{style.value}m{text}\x1b[0m" if self.colour and text else text
