"""Sets on a `param`: smooth maps from free raw tensors onto them.

`s = make("SpectralBall", (n, n), (0.9,))`, `raw = torch.nn.Parameter(s.default())` of shape `s.raw_shape`; then
`s.value(raw)` is on the set, whatever an optimiser did to `raw`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .ball import Ball, Sphere
from .base import NUDGE, Parametrization
from .halfline import Nonneg, Positive, Reals
from .interval import ClosedInterval, OpenInterval
from .monotone import Monotone
from .orthogonal import Orth, Stiefel
from .ray import ClosedRay, OpenRay
from .semidefinite import PD, PSD
from .simplex import Simplex
from .spectral import SpectralBall
from .symmetric import Skew, Sym

__all__ = ["NAMES", "NUDGE", "Parametrization", "make"]

_SETS: dict[str, tuple[type[Parametrization], int]] = {
    "R": (Reals, 0),
    "positive": (Positive, 0),
    "nonneg": (Nonneg, 0),
    "open": (OpenInterval, 2),
    "closed": (ClosedInterval, 2),
    "simplex": (Simplex, 0),
    "ball": (Ball, 1),
    "sphere": (Sphere, 0),
    "PSD": (PSD, 0),
    "PD": (PD, 0),
    "Sym": (Sym, 0),
    "Skew": (Skew, 0),
    "Orth": (Orth, 0),
    "Stiefel": (Stiefel, 0),
    "SpectralBall": (SpectralBall, 1),
    "Monotone": (Monotone, 1),
}

_RAYS: dict[str, type[Parametrization]] = {"open": OpenRay, "closed": ClosedRay}

NAMES = tuple(_SETS)
"""The sets by their names in the IR; "open" is `(a, b)`, "closed" is `[a, b]`, half-lines where a bound is infinite."""


def make(name: str, shape: Sequence[int], args: Sequence[float] = ()) -> Parametrization:
    """The parametrization of set `name` with elements of `shape`; `args` are its numbers after the dimensions.

    Raises ValueError for an unknown name, a wrong number of arguments, or where there is no such set.
    """
    if name not in _SETS:
        raise ValueError(f"no set {name!r}; known are {', '.join(_SETS)}")
    kind, count = _SETS[name]
    if len(args) != count:
        raise ValueError(f"set {name!r} takes {count} numbers after its dimensions, not {tuple(args)}")
    if name in _RAYS and not all(map(math.isfinite, args)):
        kind = _RAYS[name]
    return kind(tuple(int(n) for n in shape), *(float(x) for x in args))
