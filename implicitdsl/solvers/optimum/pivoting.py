"""Block principal pivoting on the dual of a strictly convex quadratic program, with the factor kept for derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...ground.outcomes import Outcome
from .dual import Active, Dual, Kept, dual_of, factor
from .interior_point import InteriorPoint
from .quadratic import Optimum, Quadratic, residual, times, weakly_active

CONVERGED = int(Outcome.CONVERGED)

FULL = 6
"""Rounds in which all rows of the wrong sign change at once."""
PATIENCE = 3
"""So many more for a sample whose number of wrong rows does not fall; then one row at a time, which cannot cycle."""
MOST = 40
"""Rounds after which a sample goes to the interior point."""
TALL = 3
"""With more than so many rows for a variable the dual is too degenerate to be worth it."""


@dataclass(frozen=True)
class Dense:
    """min ½zᵀPz + qᵀz, A z = b, G z ≤ h, for a batch of small dense problems.

    Where P ≻ 0 on the null space of A the slacks are affine in the multipliers, s = S y + r, and 0 ≤ y ⊥ s ≥ 0 is
    solved by exchanging all rows of the wrong sign at once, single ones where that does not help (Júdice & Pires 1994):
    a handful of Cholesky factors of S on the active rows, n³/3 + n²m + a few k³/3 flops in all, exact to rounding. What
    the samples share is factored once, and the last factor serves the backward pass. Samples that do not settle, and
    problems with a singular P, go to `InteriorPoint`.
    """

    tol: float | None = None
    max_iter: int = 100

    def solve(self, problem: Quadratic) -> Optimum:
        """The optimum of every sample."""
        interior = InteriorPoint(self.tol, self.max_iter)
        n, m = problem.C.shape[-1], problem.C.shape[-2]
        if problem.P is None or m > TALL * n:
            return interior.solve(problem)
        dual = dual_of(problem)
        if dual is None:  # singular, or not finite
            return interior.solve(problem)
        found, settled = _pivoted(problem, dual, self.tol or 1e-9)
        if bool(settled.all()):
            return found
        left = ~settled
        rest = interior.solve(problem.select(left) if problem.rows > 1 else problem)
        merged = [t.clone() for t in found[:-1]]
        for t, value in zip(merged, rest, strict=False):
            t[left] = value
        return Optimum(*merged)


def _pivoted(problem: Quadratic, dual: Dual, tol: float) -> tuple[Optimum, Tensor]:
    """The solutions, and which samples have one."""
    k, rows = problem.equalities, problem.rows
    q = problem.q.expand(rows, problem.q.shape[-1])
    half, t, r = dual.reduced(-q, problem.d.expand(rows, problem.d.shape[-1]))
    y, active, rounds, last = _complementary(dual.S, -r)
    z, multipliers = dual.expanded(half, t, y)
    whole = torch.cat([torch.ones_like(multipliers[:, :k], dtype=torch.bool), active], -1) if k else active
    error = residual(problem, z, multipliers)
    settled = (rounds > 0) & (error <= tol)
    status = torch.where(settled, CONVERGED, int(Outcome.STALLED))
    kept = Kept(dual, last, torch.zeros_like(settled)) if last is not None else None
    weak = weakly_active(problem, z, multipliers)
    return Optimum(z, multipliers, whole, status, rounds.clamp(min=1), error, weak, kept), settled


def _complementary(S: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor, Active | None]:
    """y ≥ 0, s = S y + r ≥ 0, yᵀs = 0 for S ⪰ 0 (m, m) or (B, m, m) and r (B, m).

    y, its rows that are active, the rounds it took (0: not found), and the factor of all samples if all are found.
    """
    rows, m = r.shape
    active = r < 0
    y_out, active_out = torch.zeros_like(r), active.clone()
    rounds = torch.zeros(rows, dtype=torch.int64, device=r.device)
    live: Tensor | None = None
    s, rr, act = S, r, active
    floor = -1e-12 * (1 + r.abs().amax(-1, keepdim=True)) if m else r
    least = torch.full((rows,), m + 1, device=r.device)
    patience = torch.full_like(least, PATIENCE)
    last: Active | None = None
    for round_ in range(1, MOST + 1):
        last = factor(s, act)
        y = last.solve(-rr)
        slack = times(s, y) + rr
        wrong = torch.where(act, y <= 0, slack < floor)
        count = wrong.sum(-1)
        done = count == 0
        if bool(done.all()) and live is None:
            return y, act, torch.full_like(rounds, round_), last
        where = done.nonzero().squeeze(-1) if live is None else live[done]
        y_out[where], active_out[where], rounds[where] = y[done], act[done], round_
        if bool(done.all()):
            break
        if round_ > FULL:
            better = count < least
            least = torch.minimum(least, count)
            single = ~better & (patience <= 0)
            patience = torch.where(better, PATIENCE, patience - 1)
            wrong = torch.where(single.unsqueeze(-1), _highest(wrong), wrong)
        act = act ^ wrong
        left = ~done
        if live is None:
            live = torch.arange(rows, device=r.device)
        if not bool(left.all()):
            live, rr, act, floor = live[left], rr[left], act[left], floor[left]
            least, patience = least[left], patience[left]
            s = s if s.ndim == 2 else s[left]
    every = bool((rounds > 0).all())
    return y_out, active_out, rounds, factor(S, active_out) if every else None


def _highest(wrong: Tensor) -> Tensor:
    """Only the last true entry of each row: Murty's rule."""
    after = wrong.flip(-1).cumsum(-1).flip(-1)
    return wrong & (after == 1)
