"""Linear equations whose matrix is a symmetric constant times a number: its eigenvectors serve every call."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

TERMS = 16
"""Of the series of φ₁ within ±1/2: to rounding in float64, and so are its derivatives."""


class Eigen(NamedTuple):
    """M = V diag(values) Vᵀ in float64, values (N,), vectors V (N, N)."""

    values: Tensor
    vectors: Tensor


class Kept:
    """The eigendecomposition of a constant matrix, kept until one of the tensors that it is computed from changes."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] | None = None
        self._sources: tuple[Tensor, ...] = ()  # held, so that no other tensor takes an identity over
        self._found: Eigen | None = None

    def of(self, matrix: Callable[[], Tensor], sources: Sequence[Tensor], device: torch.device) -> Eigen | None:
        """Of `matrix()` (N, N) on `device`, which is computed from `sources`; None where it is not symmetric or not
        finite. Cost: some 25 N³, once.
        """
        key = (device, *((id(x), x._version) for x in sources))
        if key != self._key:
            self._found = _decomposed(matrix().detach().double())
            self._key, self._sources = key, tuple(sources)
        return self._found


def _decomposed(M: Tensor) -> Eigen | None:
    if not bool(M.isfinite().all()) or not torch.equal(M, M.mT):
        return None
    return Eigen(*torch.linalg.eigh(M))


def spectral_flow(scale: Tensor, eigen: Eigen, h: Tensor | None, y0: Tensor, tau: Tensor) -> Tensor:
    """y(τ) (B, K, N) of dy/dt = s M y + h, y(0) = y0 (B, N): V (e^{sτλ} ∘ Vᵀ y0 + τ φ₁(sτλ) ∘ Vᵀ h),
    φ₁(x) = (eˣ − 1)/x.

    scale () or (B,); h (N,), (B, N) or None; tau (K,) where the rows share their times, or (B, K). Differentiable to
    any order in scale, h, y0 and tau. Cost: 2 N² (K + 2) a row, in float64. Exact to rounding, stiff or not.
    """
    kind = y0.dtype
    scale, y0, tau = (x.double() for x in (scale, y0, tau))
    by = tau.unsqueeze(-1) * eigen.values  # (K, N) or (B, K, N)
    exponent = scale * by if scale.dim() == 0 else scale.view(-1, 1, 1) * by
    y = torch.exp(exponent) * (y0 @ eigen.vectors).unsqueeze(1)
    if h is not None:
        forced = (h.double() @ eigen.vectors).unsqueeze(-2)
        y = y + tau.unsqueeze(-1) * _phi(exponent) * forced
    return (y @ eigen.vectors.mT).to(kind)


def _phi(x: Tensor) -> Tensor:
    """(eˣ − 1)/x, by its series near 0."""
    small = x.abs() < 0.5
    near = torch.where(small, x, 0.0)
    series = torch.full_like(x, 1 / math.factorial(TERMS))
    for k in range(TERMS - 1, 0, -1):
        series = series * near + 1 / math.factorial(k)
    far = torch.where(small, 1.0, x)
    return torch.where(small, series, torch.expm1(far) / far)
