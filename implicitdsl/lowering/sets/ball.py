"""The Euclidean ball and its unit sphere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from .base import NUDGE, Parametrization, rescaled


@final
@dataclass(frozen=True)
class Ball(Parametrization):
    """‖v‖₂ ≤ r: v = x m (2m - 1) with m = 1 / (1 + ‖x‖² / 16r²), so ‖v‖ = r sin(4 arctan(‖x‖ / 4r)).

    Unit slope at 0, r at ‖x‖ = 1.66 r, and back through 0 beyond: the nearest-point projection has no radial derivative
    outside and cannot come back. Inverse: ‖x‖ = 4r tan(arcsin(‖v‖/r) / 4). Default: zeros. O(n).
    """

    r: float

    rank: ClassVar[int] = 1

    def _empty(self) -> str | None:
        return None if math.isfinite(self.r) and self.r > 0 else "the radius must be finite and positive"

    def _value(self, raw: Tensor) -> Tensor:
        m = 1 / (1 + (raw / (4 * self.r)).square().sum(-1, keepdim=True))
        return raw * (m * (2 * m - 1))

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        ratio = torch.linalg.vector_norm(value, dim=-1, keepdim=True) / self.r
        length = 4 * torch.tan(torch.asin(ratio.clamp(max=1 - NUDGE**2 / 2)) / 4)
        return value * torch.where(ratio > 0, length / ratio, 1)

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        return torch.linalg.vector_norm(value, dim=-1) <= self.r * (1 + tol)

    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.zeros(self.shape, dtype=dtype, device=device)


@final
@dataclass(frozen=True)
class Sphere(Parametrization):
    """‖v‖₂ = 1: v = x / ‖x‖, inverse x = v; the zero vector maps to the first unit vector. Default: uniform. O(n)."""

    rank: ClassVar[int] = 1

    def _empty(self) -> str | None:
        return None if self.shape[-1] >= 1 else "no vector of length 0 has norm 1"

    def _value(self, raw: Tensor) -> Tensor:
        first = (torch.arange(raw.shape[-1], device=raw.device) == 0).to(raw.dtype)
        x = rescaled(raw, zero=first)
        return x / torch.sqrt(x.square().sum(-1, keepdim=True))

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        return value

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        return (torch.linalg.vector_norm(value, dim=-1) - 1).abs() <= tol

    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        x = torch.randn(self.shape, dtype=dtype, device=device)
        return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)
