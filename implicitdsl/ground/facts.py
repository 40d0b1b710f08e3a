"""The vocabulary in which facts about functions, sets and equations are stated."""

from __future__ import annotations

import math
from enum import Enum, IntEnum

from implicitdsl.ground.records import dataclass


class Curvature(Enum):
    CONSTANT = "constant"
    AFFINE = "affine"
    CONVEX = "convex"
    CONCAVE = "concave"
    UNKNOWN = "unknown"


class Monotone(Enum):
    INCREASING = "increasing"
    DECREASING = "decreasing"
    CONSTANT = "constant"
    UNKNOWN = "unknown"


class Smoothness(IntEnum):
    """How often continuously differentiable, in steps that matter to solvers."""

    DISCONTINUOUS = 0
    CONTINUOUS = 1  # with kinks, e.g. relu
    SMOOTH = 2  # C¹ and better on its domain


@dataclass(frozen=True, slots=True)
class Interval:
    """Values lie in [lo, hi] (a bound may be attained or not)."""

    lo: float = -math.inf
    hi: float = math.inf

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.lo) and math.isfinite(self.hi)

    def meet(self, other: Interval) -> Interval:
        return Interval(max(self.lo, other.lo), min(self.hi, other.hi))


@dataclass(frozen=True, slots=True)
class Fact:
    """A proved property with its proof, one step a line: `contraction`, value 0.9, because …"""

    name: str
    value: object
    proof: tuple[str, ...]
