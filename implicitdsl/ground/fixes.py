"""Applying fixes to a text."""

from __future__ import annotations

from collections.abc import Sequence

from implicitdsl.ground.records import dataclass

from .diagnostics import Applicability, Diagnostic, Edit, Fix
from .source import Span


@dataclass(frozen=True, slots=True)
class Fixed:
    """The new text and the diagnostics whose fix is in it."""

    text: str
    applied: tuple[Diagnostic, ...]


def apply_safe_fixes(text: str, diagnostics: Sequence[Diagnostic]) -> Fixed:
    """Apply the first SAFE fix of each diagnostic, in order; one that touches an earlier one's edits is left out.

    A fix is applied whole or not at all. Check the new text again before the next round: its spans have moved.
    """
    taken: list[Edit] = []
    applied: list[Diagnostic] = []
    for diagnostic in diagnostics:
        fix = _safe(diagnostic)
        if fix is None or any(_clash(edit.span, other.span) for edit in fix.edits for other in taken):
            continue
        taken += fix.edits
        applied.append(diagnostic)
    for edit in sorted(taken, key=lambda edit: edit.span, reverse=True):
        text = text[: edit.span.start] + edit.text + text[edit.span.end :]
    return Fixed(text, tuple(applied))


def _safe(diagnostic: Diagnostic) -> Fix | None:
    for fix in diagnostic.fixes:
        if fix.applicability is Applicability.SAFE and fix.edits:
            return fix
    return None


def _clash(a: Span, b: Span) -> bool:
    """Whether two edits overlap. An insertion also clashes where it touches: which comes first would be a guess."""
    if a.start == a.end or b.start == b.end:
        return a.start <= b.end and b.start <= a.end
    return a.start < b.end and b.start < a.end
