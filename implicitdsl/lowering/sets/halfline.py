"""R, positive and nonneg: elementwise sets without a finite upper bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .base import NUDGE, Parametrization, linear_bound, linear_default


@final
@dataclass(frozen=True)
class Reals(Parametrization):
    """R: value = raw. A matrix starts as torch.nn.Linear's, a vector or scalar at zero."""

    def _value(self, raw: Tensor) -> Tensor:
        return raw

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        return value

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        return torch.ones_like(value, dtype=torch.bool)

    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return linear_default(self.shape, dtype, device)


@final
@dataclass(frozen=True)
class Positive(Parametrization):
    """v > 0: v = log(1 + exp x), inverse x = v + log(1 - exp(-v)).

    The exponential tail makes small values move in proportion to themselves; unit slope for large ones, so no overflow.
    The smallest normal number is added: v stays positive when the exponential underflows (x < -87 in float32).
    """

    def _value(self, raw: Tensor) -> Tensor:
        # torch's default threshold of 20 is off by 2e-9 in float64; at 40 the term lies below rounding
        return softplus(raw, threshold=40.0) + torch.finfo(raw.dtype).tiny

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        v = value.clamp(min=torch.finfo(value.dtype).tiny)
        return v + torch.log(-torch.expm1(-v))

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        return value > 0

    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return _halfline_default(self.shape, dtype, device)


@final
@dataclass(frozen=True)
class Nonneg(Parametrization):
    """v ≥ 0: v = sqrt(1 + x²) - 1, inverse x = sqrt(v (v + 2)).

    Smooth, reaches 0 at a finite x (softplus never does) and has unit slope far away (x² has not). Only x = 0 itself is
    flat, which initial values avoid; no half-line is dead as relu's. Minima at 0 are approached geometrically.
    """

    def _value(self, raw: Tensor) -> Tensor:
        return raw * (raw / (1 + torch.hypot(raw, torch.ones_like(raw))))  # no overflow

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        v = value.clamp(min=0)
        return torch.sqrt(v * (v + 2)).clamp(min=NUDGE)

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        return value >= 0

    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return _halfline_default(self.shape, dtype, device)


def _halfline_default(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A matrix: the magnitude of torch.nn.Linear's weight, kept from zero; a vector or scalar: 1, well inside."""
    if len(shape) < 2:
        return torch.ones(shape, dtype=dtype, device=device)
    bound = linear_bound(shape)
    return torch.empty(shape, dtype=dtype, device=device).uniform_(1e-3 * bound, bound)
