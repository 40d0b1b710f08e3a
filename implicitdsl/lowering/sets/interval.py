"""(a, b) and [a, b], elementwise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .base import NUDGE, Parametrization, linear_bound, linear_default


@final
@dataclass(frozen=True)
class OpenInterval(Parametrization):
    """a < v < b: v = a + (b - a) σ(4 x / (b - a)), of unit slope in the middle, where x = 0.

    The logistic tails resist near an excluded bound. Each half is measured from its own bound, so tails keep their
    derivatives down to underflow; then v is kept strictly inside in its dtype, whatever x.
    """

    a: float
    b: float

    def _empty(self) -> str | None:
        return _bad_bounds(self.a, self.b)

    def _value(self, raw: Tensor) -> Tensor:
        width = self.b - self.a
        lower = raw < 0
        part = width * torch.sigmoid(torch.where(lower, raw, -raw) * (4 / width))
        return snapped(torch.where(lower, self.a + part, self.b - part), *inside(self.a, self.b, raw.dtype))

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        v = value.clamp(*inside(self.a, self.b, dtype))
        return (torch.log(v - self.a) - torch.log(self.b - v)) * ((self.b - self.a) / 4)

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        low, high = (torch.full((), x, dtype=value.dtype, device=value.device) for x in (self.a, self.b))
        return (value > low) & (value < high)

    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return _interval_default(self.a, self.b, self.shape, dtype, device)


@final
@dataclass(frozen=True)
class ClosedInterval(Parametrization):
    """a ≤ v ≤ b: v = a + w sin²(π/4 + x / w), w = b - a; the middle at x = 0, of unit slope there.

    Reaches both bounds and turns back, so no raw value saturates: a sigmoid never reaches them and dies beyond.
    """

    a: float
    b: float

    def _empty(self) -> str | None:
        return _bad_bounds(self.a, self.b)

    def _value(self, raw: Tensor) -> Tensor:
        width = self.b - self.a
        angle = raw / width + math.pi / 4
        if self.a < 0 < self.b:  # three spellings of one function, each exact at zero or at the bound nearest to it
            v = (self.a + self.b) / 2 + width / 2 * torch.sin(raw * (2 / width))
        elif self.a >= 0:
            v = self.a + width * torch.sin(angle).square()
        else:
            v = self.b - width * torch.cos(angle).square()
        return snapped(v, self.a, self.b)

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        width = self.b - self.a
        v = value.clamp(self.a, self.b)
        angle = torch.atan2(torch.sqrt(v - self.a), torch.sqrt(self.b - v)).clamp(NUDGE, math.pi / 2 - NUDGE)
        return (angle - math.pi / 4) * width

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        slack = tol * max(abs(self.a), abs(self.b))
        return (value >= self.a - slack) & (value <= self.b + slack)

    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return _interval_default(self.a, self.b, self.shape, dtype, device)


def _bad_bounds(a: float, b: float) -> str | None:
    return None if math.isfinite(a) and math.isfinite(b) and a < b else "the bounds must be finite and a < b"


def _interval_default(a: float, b: float, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """torch.nn.Linear's draw (zeros for a vector) around zero, or around the middle where zero is not well inside."""
    centre = 0.0 if min(-a, b) >= 0.1 * (b - a) else (a + b) / 2
    room = 0.9 * min(centre - a, b - centre)
    spread = min(1.0, room / linear_bound(shape)) if len(shape) >= 2 else 0.0
    return linear_default(shape, dtype, device) * spread + centre


def snapped(v: Tensor, low: float, high: float) -> Tensor:
    """Undo a rounding step across a bound; the derivative stays that of v."""
    return v + (v.clamp(low, high) - v).detach()


def inside(a: float, b: float, dtype: torch.dtype) -> tuple[float, float]:
    """Bounds strictly inside (a, b) in `dtype`: a few units in the last place away, normal numbers."""
    info = torch.finfo(dtype)
    low, high = (max(2 * info.eps * abs(x), 2 * info.tiny) if math.isfinite(x) else 0.0 for x in (a, b))
    return a + low, b - high
