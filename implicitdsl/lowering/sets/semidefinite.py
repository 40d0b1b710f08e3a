"""Positive semidefinite and positive definite matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from .base import NUDGE, Parametrization, largest, linear_default, symmetric
from .symmetric import not_square


@final
@dataclass(frozen=True)
class PSD(Parametrization):
    """X ⪰ 0: X = L Lᵀ with any square L, inverse L = X^½.

    All of the closed cone is reached; null directions of an initial value start at 2.5e-9 of its largest eigenvalue,
    since L Lᵀ is flat at zero. Default: L = I + ½ (torch.nn.Linear's matrix), well conditioned. One product, 2 n³.
    """

    rank: ClassVar[int] = 2

    def _empty(self) -> str | None:
        return not_square(self.shape)

    def _value(self, raw: Tensor) -> Tensor:
        return symmetric(raw @ raw.mT)

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        return symmetric_root(value)

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        eigenvalues = torch.linalg.eigvalsh(symmetric(value))
        low, scale = eigenvalues[..., 0], eigenvalues.abs().amax(-1)
        return (largest(value - value.mT) <= tol * largest(value)) & (low >= -tol * scale)

    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return _product_default(self.shape, dtype, device)


@final
@dataclass(frozen=True)
class PD(Parametrization):
    """X ≻ 0: X = L Lᵀ + (ε ‖L‖²_F + δ) I with ε = 2 eps and δ = sqrt(smallest normal number) of the dtype.

    The shift is relative to the trace, so Cholesky succeeds at every scale and every L, L = 0 included. Default as
    PSD's.
    """

    rank: ClassVar[int] = 2

    def _empty(self) -> str | None:
        return not_square(self.shape)

    def _value(self, raw: Tensor) -> Tensor:
        epsilon, delta = _shift(raw.dtype)
        trace = raw.square().sum((-2, -1))
        shift = (epsilon * trace + delta)[..., None].expand(raw.shape[:-1])
        return symmetric(raw @ raw.mT) + torch.diag_embed(shift)

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        epsilon, delta = _shift(dtype)
        n = self.shape[-1]
        trace = value.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        shift = (epsilon * trace + delta) / (1 + epsilon * n)  # = ε ‖L‖²_F + δ
        return symmetric_root(value - shift * torch.eye(n, dtype=value.dtype, device=value.device))

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        eigenvalues = torch.linalg.eigvalsh(symmetric(value))
        positive = eigenvalues[..., 0] > torch.finfo(value.dtype).eps * eigenvalues[..., -1]
        return (largest(value - value.mT) <= tol * largest(value)) & positive

    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return _product_default(self.shape, dtype, device)


def symmetric_root(matrix: Tensor) -> Tensor:
    """X^½ of a positive semidefinite X, its eigenvalues kept above NUDGE²/4 of the largest (of 1 for X = 0). O(n³)."""
    eigenvalues, vectors = torch.linalg.eigh(symmetric(matrix))
    top = eigenvalues[..., -1:]
    roots = torch.sqrt(torch.maximum(eigenvalues, torch.where(top > 0, top, 1) * (NUDGE**2 / 4)))
    return (vectors * roots[..., None, :]) @ vectors.mT


def _shift(dtype: torch.dtype) -> tuple[float, float]:
    info = torch.finfo(dtype)
    return 2 * info.eps, info.tiny**0.5


def _product_default(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    factor = torch.eye(shape[-1], dtype=dtype, device=device) + linear_default(shape, dtype, device) / 2
    return factor @ factor.mT
