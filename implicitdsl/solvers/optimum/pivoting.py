"""Block principal pivoting on the dual of a strictly convex quadratic program, with the factor kept for derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...ground.outcomes import Outcome
from ..host import Array, array
from .complementary import complement
from .dual import Kept, dual_of
from .interior_point import InteriorPoint
from .quadratic import Optimum, Quadratic, met, touched
from .small import fits, small

CONVERGED = int(Outcome.CONVERGED)

TOL = 1e-9
"""To which the conditions are met as a rule."""
TALL = 3
"""With more than so many rows for a variable the dual is too degenerate to be worth it."""

TOUCHED = 1e-2
"""Relative slack with which a row is active at a guess; exchanges mend it."""
HARD = 2.2
"""With more than so many inequalities for a free direction, exchanges go in circles."""


@dataclass(frozen=True)
class Dense:
    """min ½zᵀPz + qᵀz, A z = b, G z ≤ h, for a batch of small dense problems.

    Where P ≻ 0 on the null space of A the slacks are affine in the multipliers, and 0 ≤ y ⊥ S y + r ≥ 0 is solved by
    `complement`: n³/3 + n²m flops for S and a few k³/3 for k active rows, exact to rounding. What the samples share is
    factored once, and the last factor serves the backward pass. Samples that do not settle, and problems with a
    singular P, go to `InteriorPoint`.
    """

    tol: float | None = None
    max_iter: int = 100

    def solve(self, problem: Quadratic, guess: Tensor | None = None) -> Optimum:
        """The optimum of every sample. `guess` z (B, n): exchanges begin with the rows that are active there."""
        interior = InteriorPoint(self.tol, self.max_iter)
        n, m = problem.C.shape[-1], problem.C.shape[-2]
        if problem.P is None or m > TALL * n:
            return interior.solve(problem, guess=guess)
        tol, hard = self.tol or TOL, m - problem.equalities > HARD * (n - problem.equalities)
        first = None if guess is None else array(touched(problem, guess, TOUCHED))
        found = small(problem, tol, first, hard) if fits(problem) else _pivoted(problem, tol, first, hard)
        if found is None:  # singular, or not finite
            return interior.solve(problem, guess=guess)
        if found.whole is not None:
            return found
        left = found.status != CONVERGED
        rest = interior.solve(problem.select(left) if problem.rows > 1 else problem)
        return found.with_rows(left, rest)


def _pivoted(problem: Quadratic, tol: float, first: Array | None, hard: bool) -> Optimum | None:
    """The solutions; STALLED where there is none to `tol`. None if the dual is singular."""
    dual = dual_of(problem)
    if dual is None:
        return None
    k, rows = problem.equalities, problem.rows
    q = problem.q.expand(rows, problem.q.shape[-1])
    half, t, r = dual.reduced(-q, problem.d.expand(rows, problem.d.shape[-1]))
    y, active, rounds, last, lost = complement(dual.S, -r, hard, first)
    z, multipliers = dual.expanded(half, t, y)
    whole = torch.cat([torch.ones_like(multipliers[:, :k], dtype=torch.bool), active], -1) if k else active
    error, every = met(problem, z, multipliers, tol)
    every = every and not lost
    status = torch.full_like(rounds, CONVERGED)
    if not every:
        status = torch.where((error <= tol) & (rounds > 0), CONVERGED, int(Outcome.STALLED))
        rounds.clamp_(min=1)
    kept = Kept(dual, active, last)
    return Optimum(z, multipliers, whole, status, rounds, error, kept, status if every else None)
