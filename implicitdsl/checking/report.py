"""Collecting diagnostics: in order, without duplicates, and switched off while the checker only tries something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from implicitdsl.ground.diagnostics import Applicability, Diagnostic, Edit, Fix, Label, Level
from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Source, Span

Labels = Sequence[tuple[Span, str]]


@dataclass
class Report:
    """The findings about one source."""

    source: Source
    diagnostics: list[Diagnostic] = field(default_factory=list[Diagnostic])

    def add(
        self,
        code: str,
        message: str,
        span: Span,
        *,
        labels: Labels = (),
        notes: Sequence[str] = (),
        help: str | None = None,
        fixes: Sequence[Fix] = (),
        level: Level | None = None,
    ) -> None:
        found = Diagnostic(
            code,
            message,
            span,
            self.source,
            **({} if level is None else {"level": level}),
            labels=tuple(Label(s, t) for s, t in labels),
            notes=tuple(notes),
            help=help,
            fixes=tuple(fixes),
        )
        if found not in self.diagnostics:
            self.diagnostics.append(found)

    @property
    def errors(self) -> int:
        return sum(d.is_error for d in self.diagnostics)


def safe(message: str, *edits: tuple[Span, str]) -> Fix:
    """A fix that keeps the only meaning the text can have."""
    return Fix(message, tuple(Edit(s, t) for s, t in edits), Applicability.SAFE)


def unsafe(message: str, *edits: tuple[Span, str]) -> Fix:
    """A fix among several readings."""
    return Fix(message, tuple(Edit(s, t) for s, t in edits), Applicability.UNSAFE)


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The name that was probably meant: the same but for case, else the closest by edits (transpositions count one)."""
    limit = 1 if len(name) <= 4 else 2 if len(name) <= 8 else 3
    best: tuple[int, int, str] | None = None
    for candidate in names:
        if candidate == name or (len(name) < 3 and candidate.lower() != name.lower()):
            continue
        distance = 0 if candidate.lower() == name.lower() else edits(name, candidate)
        rank = (distance, abs(len(candidate) - len(name)), candidate)
        if distance <= limit and (best is None or rank[:2] < best[:2]):
            best = rank
    return best[2] if best else None


def apart(name: str, factors: Sequence[str]) -> str | None:
    """`W z` for a name `Wz` that two declared names make up: the space of a product was left out."""
    for i in range(1, len(name)):
        if name[:i] in factors and name[i:] in factors:
            return f"{name[:i]} {name[i:]}"
    return None


def edits(a: str, b: str) -> int:
    """The Damerau–Levenshtein distance of neighbours swapped, letters inserted, deleted or replaced."""
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]
