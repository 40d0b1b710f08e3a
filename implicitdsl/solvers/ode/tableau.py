"""Explicit Runge–Kutta methods as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Row = tuple[float, ...]


@dataclass(frozen=True)
class Tableau:
    """Y_i = y + h Σ_{j<i} a_ij k_j, k_i = f(t + c_i h, Y_i); the last stage is the new state, where the next begins.

    order     of the new state
    c         times of the stages 2, 3, …, the last one included (1); the first is 0
    a         rows a_2, a_3, …, the last one being b
    error     weights of all stages whose sum times h estimates the local error; None: fixed steps only
    control   the estimate is O(h^control)
    low       weights of a second, cruder estimate that tempers the first (Hairer, Nørsett & Wanner I, §II.10)
    dense     for each stage the coefficients of θ, θ², … of b_i(θ) with y(t + θh) = y + h Σ b_i(θ) k_i
    """

    name: str
    order: int
    c: Row
    a: tuple[Row, ...]
    error: Row | None = None
    control: int = 0
    low: Row | None = None
    dense: tuple[Row, ...] | None = None

    @property
    def stages(self) -> int:
        """Evaluations of f in a step, the last one serving the next step too."""
        return len(self.a)

    @property
    def interpolant(self) -> tuple[Row, ...] | None:
        """`dense`; else Hermite's cubic, enough up to order 4; else None: steps have to end at output times."""
        if self.dense is not None:
            return self.dense
        return hermite(self.a[-1]) if self.order <= 4 else None

    @property
    def same_time(self) -> bool:
        """Whether the last two stages are at the same time, so that their difference shows the spectral radius."""
        return len(self.c) > 1 and self.c[-1] == self.c[-2] and self.error is not None

    @property
    def weights(self) -> tuple[tuple[tuple[int, float], ...], ...]:
        """The rows without their zeros."""
        return tuple(tuple((j, w) for j, w in enumerate(row) if w) for row in self.a)


def hermite(b: Sequence[float]) -> tuple[Row, ...]:
    """y(θ) = y + (3θ² − 2θ³)(y₁ − y) + h (θ − 2θ² + θ³) k₁ + h (θ³ − θ²) k_last, where y₁ − y = h Σ b_i k_i."""
    rows = [[0.0, 3.0 * w, -2.0 * w] for w in (*b, 0.0)]
    for place, extra in ((0, (1.0, -2.0, 1.0)), (len(rows) - 1, (0.0, -1.0, 1.0))):
        rows[place] = [r + e for r, e in zip(rows[place], extra, strict=True)]
    return tuple(tuple(r) for r in rows)
