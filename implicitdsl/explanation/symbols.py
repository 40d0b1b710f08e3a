"""Names that the derivation adds to the user's: cotangents `x̄`, the adjoint `u`, its right-hand side `w`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from implicitdsl.ir.nodes import Expr, Role, sym

BAR = "\N{COMBINING MACRON}"
_MARK = "bar:"

_LETTERS = "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ"
_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi "
    "omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
)
GREEK: dict[str, str] = dict(zip(_LETTERS, re.findall(r"\w+", _NAMES), strict=True))
"""Greek letters by their LaTeX names."""


def barred(of: Expr) -> Expr:
    """The cotangent of a symbol."""
    return sym(_MARK + of.name, Role.COTANGENT, of.shape)


def cotangent_of(name: str) -> str | None:
    """The name under the bar, if there is one."""
    return name.removeprefix(_MARK) if name.startswith(_MARK) else None


def free_name(wishes: Iterable[str], taken: set[str]) -> str:
    """The first wish that is not taken; it then is."""
    choices = list(wishes)
    name = next((w for w in choices if w not in taken), choices[0])
    while name in taken:
        name += "_"
    taken.add(name)
    return name
