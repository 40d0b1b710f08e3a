"""Diagnostics in SARIF 2.1.0 (OASIS, "Static Analysis Results Interchange Format"), which code hosts import."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..codes import CODES
from ..diagnostics import Diagnostic, Fix, Level
from ..source import Source, Span

_LEVEL = {Level.ERROR: "error", Level.WARNING: "warning", Level.INFO: "note"}
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def render(diagnostics: Sequence[Diagnostic], *, version: str) -> str:
    """One run of the tool `implicitdsl` of the given version: a rule for each code that occurs, a result for each
    diagnostic; labels are related locations, fixes are replacements. Columns are code points."""
    rules = sorted({diagnostic.code for diagnostic in diagnostics})
    run = {
        "tool": {"driver": {"name": "implicitdsl", "version": version, "rules": [_rule(code) for code in rules]}},
        "columnKind": "unicodeCodePoints",
        "results": [_result(diagnostic, rules.index(diagnostic.code)) for diagnostic in diagnostics],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _rule(code: str) -> dict[str, Any]:
    return {
        "id": code,
        "shortDescription": {"text": CODES[code].title},
        "help": {"text": f"implicitdsl explain {code}"},
        "defaultConfiguration": {"level": _LEVEL[Level(CODES[code].level)]},
    }


def _result(diagnostic: Diagnostic, rule: int) -> dict[str, Any]:
    message = "\n".join(
        [
            diagnostic.message,
            *(f"note: {note}" for note in diagnostic.notes),
            *([f"help: {diagnostic.help}"] if diagnostic.help else []),
        ]
    )
    result: dict[str, Any] = {
        "ruleId": diagnostic.code,
        "ruleIndex": rule,
        "level": _LEVEL[diagnostic.level],
        "message": {"text": message},
        "locations": [{"physicalLocation": _place(diagnostic.source, diagnostic.span)}],
    }
    if diagnostic.labels:
        result["relatedLocations"] = [
            {
                "id": number,
                "physicalLocation": _place(diagnostic.source, label.span),
                **({"message": {"text": label.text}} if label.text else {}),
            }
            for number, label in enumerate(diagnostic.labels)
        ]
    fixes = [_fix(diagnostic.source, fix) for fix in diagnostic.fixes if fix.edits]
    if fixes:
        result["fixes"] = fixes
    return result


def _fix(source: Source, fix: Fix) -> dict[str, Any]:
    replacements = [
        {"deletedRegion": _region(source, edit.span), "insertedContent": {"text": edit.text}} for edit in fix.edits
    ]
    change = {"artifactLocation": {"uri": _uri(source)}, "replacements": replacements}
    return {"description": {"text": fix.message}, "artifactChanges": [change]}


def _place(source: Source, span: Span) -> dict[str, Any]:
    return {"artifactLocation": {"uri": _uri(source)}, "region": _region(source, span)}


def _region(source: Source, span: Span) -> dict[str, int]:
    line, column = source.position(span.start)
    end_line, end_column = source.position(span.end)
    return {"startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column}


def _uri(source: Source) -> str:
    path = Path(source.name)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
