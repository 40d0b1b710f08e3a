"""Orthogonal matrices and the Stiefel manifold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from .base import Parametrization, largest
from .cache import keepable, memo
from .symmetric import not_square


@final
@dataclass(frozen=True)
class Orth(Parametrization):
    """QᵀQ = I, n × n, of either determinant: the square case of `Stiefel`, see there. Default: Haar distributed."""

    rank: ClassVar[int] = 2

    def _empty(self) -> str | None:
        return not_square(self.shape)

    def _value(self, raw: Tensor) -> Tensor:
        return _orthonormal(raw, self)

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        return value

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        return _has_orthonormal_columns(value, tol)

    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return _haar(self.shape, dtype, device)


@final
@dataclass(frozen=True)
class Stiefel(Parametrization):
    """QᵀQ = I, m × n with m ≥ n: Q is the orthogonal factor of raw = Q R, diag(R) > 0; inverse raw = Q (then R = I).

    Every element is reached, without a base point and with both determinants of the square case (Cayley and exp of a
    skew matrix reach one); Householder's Q is orthonormal to rounding for any raw. The derivative needs raw of full
    column rank. Scaling the columns of raw changes nothing, as in weight normalisation. One QR, 4 (m n² - n³/3).
    """

    rank: ClassVar[int] = 2

    def _empty(self) -> str | None:
        return None if self.shape[-2] >= self.shape[-1] else "m rows hold at most m orthonormal columns; transpose it"

    def _value(self, raw: Tensor) -> Tensor:
        return _orthonormal(raw, self)

    def _raw(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        return value

    def _contains(self, value: Tensor, tol: float) -> Tensor:
        return _has_orthonormal_columns(value, tol)

    def _default(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return _haar(self.shape, dtype, device)


def _orthonormal(raw: Tensor, key: Parametrization) -> Tensor:
    if (raw.requires_grad and torch.is_grad_enabled()) or not keepable(raw):
        return _factor(raw)
    return memo(raw, key, lambda x: (_factor(x),))[0].clone()


def _factor(raw: Tensor) -> Tensor:
    q, r = torch.linalg.qr(raw)
    signs = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(raw.dtype)
    return q * signs[..., None, :]


def _has_orthonormal_columns(value: Tensor, tol: float) -> Tensor:
    gram = value.mT @ value
    return largest(gram - torch.eye(gram.shape[-1], dtype=value.dtype, device=value.device)) <= tol


def _haar(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return _factor(torch.randn(shape, dtype=dtype, device=device))
