"""Where the flow ż = ±F(z) leads: a start for Newton near the root that attracts it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .factor import factorise
from .problem import Inputs, RootProblem

STEPS, FIRST, GROWTH, CUT = 60, 0.05, 1.5, 0.25


def transient(
    problem: RootProblem, z0: Tensor, a: Inputs, sign: float, inside: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Linearly implicit Euler steps z ← z + (I/h - s J)⁻¹ s F(z) of ż = s F(z) from z0, (B, n), 60 of them.

    Each row's h grows by half from 0.05 with every step, but a step that is not finite or leaves the set, by
    `inside` (B, n) → (B,), is taken again with a quarter of h. (A Riccati flow stays positive; a step that does not
    was too long, and beyond it lies another root.)

    Cost: 60 times one F, one J and 2/3 n³ a row. Source: Kelley & Keyes (1998),
    pseudo-transient continuation; a Riccati flow from 0 leads to the stabilising solution (Anderson & Moore 1990).
    """
    here, z = problem.at(a), z0
    eye = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    h = torch.full_like(z[:, :1], FIRST)
    for _ in range(STEPS):
        jacobian = here.J(z, a)
        if here.diagonal:
            move = sign * here.F(z, a) / (1 / h - sign * jacobian)
        else:
            shifted = eye / h.unsqueeze(-1) - sign * jacobian
            move = factorise(shifted.expand(len(z), *eye.shape)).solve(sign * here.F(z, a))
        good = move.isfinite().all(-1)
        if inside is not None:
            good = good & inside(torch.where(good.unsqueeze(-1), z + move, z))
        good = good.unsqueeze(-1)
        z = torch.where(good, z + move, z)
        h = torch.where(good, GROWTH, CUT) * h
    return z
