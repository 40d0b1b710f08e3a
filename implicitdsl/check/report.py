"""Collecting diagnostics: in order, without duplicates, and switched off while the checker only tries something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from implicitdsl.ground.diagnostics import Applicability, Diagnostic, Edit, Fix, Label, Level
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
    """The name that was probably meant. Case is ignored first: `U` for `u`."""
    for candidate in names:
        if candidate != name and candidate.lower() == name.lower():
            return candidate
    close = get_close_matches(name, names, n=1, cutoff=0.75)
    return close[0] if close and close[0] != name else None
