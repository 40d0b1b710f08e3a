"""Scaled proximal operators from σ = prox of f, for operator splitting with a step other than one."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

PROJECTIONS = frozenset(("relu",))
"""Functions that project on a set: the prox of an indicator is the same for every step."""


def stepped(name: str, sigma: Callable[[Tensor], Tensor]) -> Callable[[Tensor, float], Tensor]:
    """(x, alpha) -> prox of alpha·f, where the elementwise σ = prox f, of that name, is nondecreasing and 1-Lipschitz.

    y = σ(s) with alpha·s + (1 - alpha) σ(s) = x, for ∂f = σ⁻¹ - 1. That equation has slopes between 1 and alpha, so the
    chord iteration s ← s - (…)/max(1, alpha) converges with rate 1 - min(1, alpha)/max(1, alpha): nothing to do at
    alpha = 1, 52 steps to float64 rounding at 1/2 or 2.
    """

    def scaled(x: Tensor, alpha: float) -> Tensor:
        if name in PROJECTIONS:
            return sigma(x)
        s = x / max(1.0, alpha)
        for _ in range(_steps(alpha, torch.finfo(x.dtype).eps)):
            s = s - (alpha * s + (1 - alpha) * sigma(s) - x) / max(1.0, alpha)
        return sigma(s)

    return scaled


def _steps(alpha: float, eps: float) -> int:
    rate = 1 - min(1.0, alpha) / max(1.0, alpha)
    return 0 if rate == 0 else math.ceil(math.log(eps) / math.log(rate))
