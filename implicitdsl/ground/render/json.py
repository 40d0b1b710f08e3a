"""Diagnostics for programs: a JSON array. Lines and columns count from 1 in code points, ends are exclusive."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..diagnostics import Diagnostic, Fix


def render(diagnostics: Sequence[Diagnostic]) -> str:
    """An array of `{code, level, message, file, line, column, end_line, end_column, help, fix}`; all levels."""
    return json.dumps([_entry(d) for d in diagnostics], indent=2, ensure_ascii=False)


def _entry(diagnostic: Diagnostic) -> dict[str, Any]:
    return {
        "code": diagnostic.code,
        "level": diagnostic.level.value,
        "message": diagnostic.message,
        "file": diagnostic.file,
        "line": diagnostic.line,
        "column": diagnostic.column,
        "end_line": diagnostic.end_line,
        "end_column": diagnostic.end_column,
        "help": diagnostic.help,
        "fix": _fix(diagnostic, diagnostic.fixes[0]) if diagnostic.fixes else None,
    }


def _fix(diagnostic: Diagnostic, fix: Fix) -> dict[str, Any]:
    edits: list[dict[str, Any]] = []
    for edit in fix.edits:
        line, column = diagnostic.source.position(edit.span.start)
        end_line, end_column = diagnostic.source.position(edit.span.end)
        edits.append(
            {"line": line, "column": column, "end_line": end_line, "end_column": end_column, "text": edit.text}
        )
    return {"message": fix.message, "applicability": fix.applicability.value, "edits": edits}
