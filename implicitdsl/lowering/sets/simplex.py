"""The probability simplex."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from .base import NUDGE, Parametrization, rescaled


@final
@dataclass(frozen=True)
class Simplex(Parametrization):
    """v ≥ 0, Σ v = 1: v_i = x_i² / ‖x‖², inverse x = sqrt(n v).

    Unlike softmax it reaches the faces at finite x and does not saturate. At ‖x‖ = 1 its gradient flow is
    4 (diag v - v vᵀ) g, the natural gradient, where softmax's is (diag v - v vᵀ)² g. A start on a face is moved in by
    2.5e-9. Default: uniform. O(n). Source: Li, McKenzie & Yin, From the simplex to the sphere, 2023.
    """

    rank: ClassVar[int] = 1

    def _empty(self) -> str | None:
        return None if self.shape[-1] >= 1 else "no vector of length 0 has sum 1"

    def _value(self, raw: Tensor) -> Tensor:
        squares = rescaled(raw, zero=1.0).square()
        return squares / squares.sum(-1, keepdim=True)

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.sqrt(value.clamp(min=NUDGE**2 / 4) * self.shape[-1])

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        return (value >= -tol).all(-1) & ((value.sum(-1) - 1).abs() <= tol)

    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.full(self.shape, 1 / self.shape[-1], dtype=dtype, device=device)
