"""min Σ ½ p z² + q z over l ≤ z ≤ u with at most one coupling row aᵀz = b or ≤ b, by sorting breakpoints."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...ground.outcomes import Outcome

CONVERGED, INFEASIBLE = int(Outcome.CONVERGED), int(Outcome.INFEASIBLE)
ROOM = 1e-9
"""By how much a coupling row may miss, relative to its terms, before it is called contradictory."""


class Where(NamedTuple):
    """Entries (B, n) that are at their `lower` or `upper` bound; ν of the coupling row (B,), `coupled` where it holds
    with equality; status (B,)."""

    lower: Tensor
    upper: Tensor
    nu: Tensor
    coupled: Tensor
    status: Tensor


def where(p: Tensor, q: Tensor, low: Tensor, high: Tensor, a: Tensor | None, b: Tensor | None, equality: bool) -> Where:
    """Which bounds are active; p > 0, q, low, high, a (B, n), b (B,); bounds may be infinite.

    z(ν) = clip(−(q + ν a) / p, l, u), and aᵀz(ν) falls piecewise linearly in ν: its breakpoints are sorted and the
    piece with aᵀz = b is read off cumulative sums (Held, Wolfe & Crowder 1974). Cost n log n a sample.
    """
    z = -q / p
    status = torch.where((low <= high).all(-1), CONVERGED, INFEASIBLE)
    if a is None or b is None:
        finite = (p + q).isfinite().all(-1) & ~(low.isnan() | high.isnan()).any(-1)
        status = torch.where(finite, status, int(Outcome.NOT_FINITE))
        none = torch.zeros_like(status, dtype=torch.bool)
        return Where(z <= low, (z >= high) & (z > low), torch.zeros_like(z[:, 0]), none, status)
    nu, reached = _multiplier(p, q, low, high, a, b)
    coupled = torch.ones_like(reached)
    if not equality:
        at_zero = (a * z.clamp(low, high)).sum(-1)
        coupled = at_zero > b
        nu, reached = torch.where(coupled, nu, 0.0), reached | ~coupled
    z = -(q + nu.unsqueeze(-1) * a) / p
    status = torch.where(reached, status, INFEASIBLE)
    finite = (p + q + a).isfinite().all(-1) & b.isfinite() & ~(low.isnan() | high.isnan()).any(-1)
    status = torch.where(finite, status, int(Outcome.NOT_FINITE))
    return Where(z <= low, (z >= high) & (z > low), nu, coupled, status)


def _multiplier(p: Tensor, q: Tensor, low: Tensor, high: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """ν with aᵀz(ν) = b, (B,), and whether there is one."""
    inf = torch.inf
    rising = a < 0  # z rises with ν
    moves = a != 0
    start, end = torch.where(rising, low, high), torch.where(rising, high, low)  # z before and after it moves
    safe = torch.where(moves, a, 1.0)

    def meets(bound: Tensor, otherwise: float) -> Tensor:
        """The ν at which the free z is at the bound."""
        usable = bound.isfinite() & moves
        return torch.where(usable, -(q + p * torch.where(usable, bound, 0.0)) / safe, otherwise)

    enter, leave = meets(start, -inf), meets(end, inf)
    fixed = torch.where(moves, torch.where(start.isfinite(), a * start, 0.0), 0.0)
    slope, free = torch.where(moves, a * a / p, 0.0), torch.where(moves, -a * q / p, 0.0)
    early = enter.isinf()
    base = torch.where(early, free, fixed).sum(-1, keepdim=True)
    steep = torch.where(early, slope, 0.0).sum(-1, keepdim=True)
    gone = torch.where(end.isfinite() & moves, a * end, 0.0)
    times = torch.cat([torch.where(early, inf, enter), leave], -1)
    constants = torch.cat([torch.where(early, 0.0, free - fixed), torch.where(leave.isinf(), 0.0, gone - free)], -1)
    slopes = torch.cat([torch.where(early, 0.0, slope), torch.where(leave.isinf(), 0.0, -slope)], -1)
    times, order = times.sort(-1)
    c = torch.cat([base, base + constants.gather(-1, order).cumsum(-1)], -1)
    s = torch.cat([steep, steep + slopes.gather(-1, order).cumsum(-1)], -1)
    known = times.isfinite()
    value = torch.where(known, c[..., :-1] - s[..., :-1] * torch.where(known, times, 0.0), -inf)
    piece = (value > b.unsqueeze(-1)).sum(-1, keepdim=True)  # how many breakpoints lie before the solution
    c_here, s_here = c.gather(-1, piece).squeeze(-1), s.gather(-1, piece).squeeze(-1)
    scale = c_here.abs() + b.abs() + fixed.abs().sum(-1) + gone.abs().sum(-1)
    sloped = s_here > 1e-14 * slope.sum(-1)
    flat = times.gather(-1, (piece - 1).clamp(min=0)).squeeze(-1)
    nu = torch.where(sloped, (c_here - b) / torch.where(sloped, s_here, 1.0), torch.where(flat.isfinite(), flat, 0.0))
    return nu, sloped | ((c_here - b).abs() <= ROOM * (1 + scale))
