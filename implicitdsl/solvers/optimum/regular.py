"""A factor of the Jacobian of optimality conditions that lives with redundant constraints and idle unknowns."""

from __future__ import annotations

import torch
from torch import Tensor

from ..factor import Factor, decompose

SHIFT = 1e-9
"""What is added to a singular Jacobian's diagonal, relative to the row."""
ROUNDS = 3
"""Of equilibration."""


def equilibrium(J: Tensor) -> Tensor:
    """d (B, N), powers of two, with which the rows and columns of diag(d) J diag(d) are about one at most: an entropy's
    curvature of 1e8 beside a row of ones is no sign of a singular matrix. Ruiz (2001); cost N² a round."""
    size = torch.maximum(J.abs(), J.mT.abs()).nan_to_num(0.0, 1.0)
    d = torch.ones_like(J[..., 0])
    for _ in range(ROUNDS):
        most = (size * d.unsqueeze(-2)).amax(-1) * d
        d = torch.where(most > 0, d * most.clamp(1e-200, 1e200).rsqrt(), d)
    return torch.exp2(torch.log2(d).round())


def scaled(J: Tensor, d: Tensor) -> Tensor:
    """diag(d) J diag(d)."""
    return J * d.unsqueeze(-1) * d.unsqueeze(-2)


def regular(J: Tensor, unknowns: int, equations: int) -> tuple[Factor, Tensor]:
    """An LU of J (B, N, N), and which of the matrices are singular, (B,): those are shifted by ±δ, of the multipliers
    first, which redundant constraints leave open, and where that is not enough of the unknowns too.

    F(x, ν, λ) = [∇L; e; min(λ, −g)] has a positive semidefinite matrix with the signs of `equations` turned, and stays
    so: what J x = b determines of x is found up to (δ / σ)² with a step of refinement (proximal method of multipliers).
    """
    factor = Factor(*decompose(J))
    singular = factor.is_singular()
    if not bool(singular.any()):
        return factor, singular
    at = torch.arange(J.shape[-1], device=J.device)
    size = J.abs().amax(-1)
    shift = SHIFT * torch.where(size > 0, size, 1.0)
    shift = torch.where((at >= unknowns) & (at < unknowns + equations), -shift, shift)
    left, more = singular, torch.zeros_like(shift)
    for first in (unknowns, 0):
        more = torch.where(left.unsqueeze(-1) & (at >= first), shift, more)
        factor = Factor(*decompose(J + torch.diag_embed(more)))
        left = factor.is_singular()
        if not bool(left.any()):
            break
        left = singular & left
    return factor, singular
