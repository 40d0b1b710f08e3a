"""Smoothed derivatives of quadratic and linear optima: those of the barrier problem at a chosen μ.

The optimum of a linear program is a vertex, and at a kink no derivative exists; that of
min f(z) − μ Σ log(h − G z) moves smoothly with all data and tends to it as μ → 0. The value stays the exact optimum.
"""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..solvers.optimum.barrier import barrier
from ..solvers.optimum.quadratic import Optimum, Quadratic, times, times_transposed
from ..solvers.verdict import CONVERGED
from .kkt import RANKS, Spec, found_apart
from .linear_solve import linear_solve
from .rules import batch_of, merge, split

STEPS = 2
"""Newton steps that are differentiated: as many orders of derivatives are exact."""


def smoothed_optimum(
    spec: Spec, mu: float, P: Tensor | None, q: Tensor, C: Tensor, d: Tensor
) -> tuple[Tensor, Tensor, Optimum]:
    """z (B, n), y (B, m) and the report of min ½zᵀPz + qᵀz, C z = d or ≤ d, as `quadratic_optimum`.

    Their derivatives, first and second, in every mode, are those of the barrier problem's solution at μ > 0. A sample
    that was not solved gets no gradient.
    """
    optimum = found_apart(spec, P, q, C, d)
    tensors = (q, C, d) if P is None else (P, q, C, d)
    z, y, found = _Barrier.apply(spec.equalities, mu, P is not None, *tensors)
    good = (optimum.status == CONVERGED) & (found > 0)
    z, y = (torch.where(good.unsqueeze(-1), t, 0.0).detach() for t in (z, y))
    rows, k = z.shape[0], spec.equalities
    n, m = z.shape[-1], y.shape[-1]
    eye = torch.eye(n + m, dtype=z.dtype, device=z.device)
    start = torch.cat([z, y], -1)
    corner = (q.new_zeros(n, n) if P is None else P).expand(rows, n, n)
    side = C.expand(rows, m, n)
    inner = torch.arange(m, device=z.device) >= k
    state = start
    for _ in range(STEPS):
        z, y = state[:, :n], state[:, n:]
        slack = torch.where(inner, d - times(C, z), 1.0)
        weight = torch.where(good.unsqueeze(-1), torch.where(inner, y, 1.0), 1.0)
        # (h − G z) ∘ y = μ, divided by y: G dz − (s / y) dy = s − μ / y
        ratio = torch.where(inner, slack / weight, 0.0)
        below = torch.where(inner, slack - mu / weight, d - times(C, z))
        right = -(q + times_transposed(C, y) + (0.0 if P is None else times(P, z)))
        K = torch.cat([torch.cat([corner, side.mT], -1), torch.cat([side, -torch.diag_embed(ratio)], -1)], -2)
        K = torch.where(good[:, None, None], K, eye)
        b = torch.where(good.unsqueeze(-1), torch.cat([right.expand(rows, n), below.expand(rows, m)], -1), 0.0)
        state = state + linear_solve(K, b)
    moved = state - state.detach()
    return optimum.z.detach() + moved[:, :n], optimum.y.detach() + moved[:, n:], optimum


class _Barrier(torch.autograd.Function):
    """The barrier problem's solution as a constant under every transform."""

    @staticmethod
    def forward(equalities: int, mu: float, curved: bool, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        P, (q, C, d) = (tensors[0], tensors[1:]) if curved else (None, tensors)
        problem = Quadratic(P, q, C, d, equalities)
        z, y, good = barrier(problem, mu)
        return z, y, good.to(z.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)
        ctx.count = len(inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, ...]:
        return (None,) * ctx.count

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[None, ...]:
        return (None,) * 3

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], equalities: int, mu: float, curved: bool, *tensors: Tensor
    ) -> tuple[Any, Any]:
        ranks = RANKS if curved else RANKS[1:]
        merged = merge(info.batch_size, batch_of(in_dims[3:], tensors, ranks), in_dims[3:], tensors, ranks)
        return split(info.batch_size, _Barrier.apply(equalities, mu, curved, *merged))
