"""What an explanation says, before it is decided how it is written: sections of prose, formulas, tables and lists."""

from __future__ import annotations

from implicitdsl.ground.records import dataclass
from implicitdsl.ir.nodes import Expr

Term = Expr | str
"""An expression, or a name that stands for itself (`F(z)`)."""


@dataclass(frozen=True, slots=True)
class Formula:
    """`left relation right`, with a remark."""

    left: Term
    right: Term
    relation: str = "="
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Prose:
    """A sentence or two."""

    text: str


@dataclass(frozen=True, slots=True)
class Formulas:
    """Formulas below each other, under a lead."""

    lead: str
    lines: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of plain cells under a heading."""

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A point of a list and the lines below it."""

    head: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Points:
    """A list under a lead."""

    lead: str
    entries: tuple[Entry, ...]


Item = Prose | Formulas | Table | Points


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Document:
    title: str
    sections: tuple[Section, ...]
