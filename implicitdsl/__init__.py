"""A declarative modelling language compiled to differentiable PyTorch layers.

    import implicitdsl as imp
    layer = imp.compile("find z such that z = tanh(W z + x)")
    z = layer(x)

Importing this package imports nothing heavy: PyTorch comes with the first compiled layer, the parser with the first
text.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .driver import check, compile, explain, load
    from .ground.diagnostics import Diagnostic
    from .ground.errors import ConvergenceError, ConvergenceWarning, ShapeError, SpecError, SpecWarning
    from .ground.progress import progress
    from .language import LANGUAGE
    from .lowering.report import Report, Solution

__version__ = "0.1.0"

_WHERE = {
    "compile": "driver",
    "load": "driver",
    "check": "driver",
    "explain": "driver",
    "Diagnostic": "ground.diagnostics",
    "SpecError": "ground.errors",
    "SpecWarning": "ground.errors",
    "ShapeError": "ground.errors",
    "ConvergenceWarning": "ground.errors",
    "ConvergenceError": "ground.errors",
    "progress": "ground.progress",
    "Solution": "lowering.report",
    "Report": "lowering.report",
    "LANGUAGE": "language",
}

__all__ = [
    "compile",
    "load",
    "check",
    "explain",
    "Diagnostic",
    "SpecError",
    "SpecWarning",
    "ShapeError",
    "ConvergenceWarning",
    "ConvergenceError",
    "progress",
    "Solution",
    "Report",
    "LANGUAGE",
    "__version__",
]


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value  # found at once the next time
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
