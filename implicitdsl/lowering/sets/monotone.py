"""Matrices W with I - W strongly monotone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from .base import Parametrization, largest, linear_default, symmetric
from .semidefinite import symmetric_root
from .symmetric import not_square


@final
@dataclass(frozen=True)
class Monotone(Parametrization):
    """I - W ⪰ m I (symmetric part): W = (1 - m) I - AᵀA + B - Bᵀ with raw = (A, B) of shape (2, n, n).

    Inverse: A = ((1 - m) I - sym W)^½, B = skew(W) / 2. Default: A, B as torch.nn.Linear's weights. One product, 2 n³.
    Source: Winston & Kolter, Monotone operator equilibrium networks, 2020.
    """

    m: float

    rank: ClassVar[int] = 2

    def _empty(self) -> str | None:
        return not_square(self.shape) or (None if math.isfinite(self.m) else "the margin must be finite")

    @property
    def raw_shape(self) -> tuple[int, ...]:
        return (*self.shape[:-2], 2, *self.shape[-2:])

    def _value(self, raw: Tensor) -> Tensor:
        a, b = raw.unbind(-3)
        return self._margin(raw) - a.mT @ a + b - b.mT

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        root = symmetric_root(self._margin(value) - symmetric(value))
        return torch.stack([root, (value - value.mT) / 4], -3)

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        low = torch.linalg.eigvalsh(self._margin(value) - symmetric(value))[..., 0]
        return low >= -tol * (abs(1 - self.m) + largest(value) * value.shape[-1] ** 0.5)

    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return self._value(linear_default(self.raw_shape, dtype, device))

    def _margin(self, like: Tensor) -> Tensor:
        return (1 - self.m) * torch.eye(self.shape[-1], dtype=like.dtype, device=like.device)
