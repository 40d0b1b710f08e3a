"""Linear equations with constant coefficients: the matrix exponential."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_flow(A: Tensor, h: Tensor, y0: Tensor, tau: Tensor) -> Tensor:
    """y(τ) (B, K, N) of dy/dt = A y + h, y(0) = y0 (B, N), as exp(τ [[A, h], [0, 0]]) [y0; 1].

    A (N, N) or (B, N, N); h (N,) or (B, N); tau (K,) where the rows share their times, or (B, K). One exponential for
    each different matrix: K of them where the batch shares A, h and τ. Differentiable to any order, in every mode.
    Cost: some 20 N³ each, in float64: squaring loses digits by the norm of τ A, of which float32 has too few where the
    equation is stiff. Exact to rounding, stiff or not.
    """
    kind = y0.dtype
    A, h, y0, tau = (x.double() for x in (A, h, y0, tau))
    n = y0.shape[-1]
    lead = A.shape[:-2] or h.shape[:-1]
    top = torch.cat([A.expand(*lead, n, n), h.expand(*lead, n).unsqueeze(-1)], -1)
    whole = torch.cat([top, torch.zeros_like(top[..., :1, :])], -2).unsqueeze(-3)
    flow = torch.linalg.matrix_exp(whole * tau.unsqueeze(-1).unsqueeze(-1))[..., :n, :]
    state = torch.cat([y0, torch.ones_like(y0[:, :1])], 1)
    return torch.einsum("kij,bj->bki" if flow.dim() == 3 else "bkij,bj->bki", flow, state).to(kind)
