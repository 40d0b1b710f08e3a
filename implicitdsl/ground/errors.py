"""Exceptions and warnings a user can catch. Torch-free: tensors are only carried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .diagnostics import Diagnostic


class SpecError(SyntaxError):
    """A spec with errors. `.diagnostics`: every finding; filename, lineno, offset and text show the first error."""

    def __init__(self, diagnostics: Sequence[Diagnostic], rendered: str) -> None:
        errors = [d for d in diagnostics if d.is_error]
        first = (errors or list(diagnostics))[0]
        where = (first.file, first.line, first.column, first.source.line(first.line), first.end_line, first.end_column)
        super().__init__(f"[{first.code}] {first.message}", where)
        self.diagnostics = list(diagnostics)
        self.rendered = rendered

    def __str__(self) -> str:
        return self.rendered

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.diagnostics, self.rendered)  # a SyntaxError's own arguments are others


class ShapeError(ValueError):
    """A tensor given at call time does not fit its declaration, which the message names."""


class ResultError(SpecError, ShapeError):
    """A bound module returned another shape than it was declared with (IMP209), which shows when it answers."""


class ConvergenceWarning(UserWarning):
    """Some samples did not converge (IMP801) or have a singular backward system (IMP802)."""


class ConvergenceError(RuntimeError):
    """As `ConvergenceWarning`, under `on_failure=raise`. `.solution` holds value and report."""

    def __init__(self, message: str, solution: Any = None) -> None:
        super().__init__(message)
        self.solution = solution

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.solution)


class SpecWarning(UserWarning):
    """A warning about a spec that compiles, as `implicitdsl check` prints it."""
