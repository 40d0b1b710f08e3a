"""Symmetric and skew-symmetric matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from .base import Parametrization, largest, linear_default, symmetric


def not_square(shape: tuple[int, ...]) -> str | None:
    """Why matrices of this shape are no square ones, if so."""
    return None if shape[-1] == shape[-2] else "its elements are square matrices"


@final
@dataclass(frozen=True)
class Sym(Parametrization):
    """X = Xᵀ: X = (Y + Yᵀ) / 2, the identity on the set. Default: torch.nn.Linear's matrix, symmetrised. O(n²)."""

    rank: ClassVar[int] = 2

    def _empty(self) -> str | None:
        return not_square(self.shape)

    def _value(self, raw: Tensor) -> Tensor:
        return symmetric(raw)

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        return symmetric(value)

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        return largest(value - value.mT) <= tol * largest(value)

    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return symmetric(linear_default(self.shape, dtype, device))


@final
@dataclass(frozen=True)
class Skew(Parametrization):
    """X = -Xᵀ: X = (Y - Yᵀ) / 2, the identity on the set. Default: torch.nn.Linear's matrix, antisymmetrised. O(n²)."""

    rank: ClassVar[int] = 2

    def _empty(self) -> str | None:
        return not_square(self.shape)

    def _value(self, raw: Tensor) -> Tensor:
        return (raw - raw.mT) / 2

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        return (value - value.mT) / 2

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        return largest(value + value.mT) <= tol * largest(value)

    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        x = linear_default(self.shape, dtype, device)
        return (x - x.mT) / 2
