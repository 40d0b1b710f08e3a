"""Floor 3: differentiation and rewriting of expressions. Torch-free.

Every pass takes and returns expressions; those that meet functions receive the table of them. The order in use:
`inline` definitions, `expand` derivative operators, then `linearize`, `vjp` or `jacobian`, `simplify`, `hoist`.
"""

from __future__ import annotations

from .cancel import cancel
from .expand import divergence, expand, inline
from .forward import linearize
from .hoist import hoist
from .jacobian import dense_jacobian, jacobian
from .shared import shared
from .simplify import simplify, summands
from .transpose import gradient, transpose, vjp

__all__ = [
    "cancel",
    "dense_jacobian",
    "divergence",
    "expand",
    "gradient",
    "hoist",
    "inline",
    "jacobian",
    "linearize",
    "shared",
    "simplify",
    "summands",
    "transpose",
    "vjp",
]
