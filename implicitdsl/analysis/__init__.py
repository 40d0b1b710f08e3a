"""Floor 3: what can be proved about a model, each fact with its proof."""

from __future__ import annotations

from .analyse import Analysis, BlockFacts, analyse
from .bounds import Bounds
from .context import Bound, Context, context
from .diagnose import diagnose
from .equivalents import squared_norms, symmetric
from .normal import normal_form
from .passes import Calculus
from .splitting import Splitting, splitting
from .structure import explicit_equations, split

__all__ = [
    "Analysis",
    "BlockFacts",
    "Bound",
    "Bounds",
    "Context",
    "Splitting",
    "Calculus",
    "analyse",
    "context",
    "diagnose",
    "explicit_equations",
    "normal_form",
    "split",
    "splitting",
    "squared_norms",
    "symmetric",
]
