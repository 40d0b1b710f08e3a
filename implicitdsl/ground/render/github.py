"""Diagnostics as GitHub workflow commands, which annotate the lines of a pull request.

Source: GitHub Docs, "Workflow commands for GitHub Actions", and the escapes of actions/toolkit `command.ts`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..diagnostics import Diagnostic, Level

_COMMAND = {Level.ERROR: "error", Level.WARNING: "warning", Level.INFO: "notice"}


def render(diagnostics: Sequence[Diagnostic]) -> str:
    """One line `::error file=…,line=…,col=…,endLine=…,endColumn=…,title=IMP201::message` for each diagnostic."""
    return "\n".join(_line(diagnostic) for diagnostic in diagnostics)


def _line(diagnostic: Diagnostic) -> str:
    properties = {
        "file": diagnostic.file,
        "line": diagnostic.line,
        "col": diagnostic.column,
        "endLine": diagnostic.end_line,
        "endColumn": diagnostic.end_column,
        "title": diagnostic.code,
    }
    listed = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items())
    message = diagnostic.message + (f"\nhelp: {diagnostic.help}" if diagnostic.help else "")
    return f"::{_COMMAND[diagnostic.level]} {listed}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
