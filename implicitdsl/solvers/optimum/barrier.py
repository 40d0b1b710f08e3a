"""The solution of smoothed optimality conditions, near an optimum: there smoothed derivatives are taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..factor import Factor
from ..loop import Solver
from ..problem import Inputs, RootProblem
from ..verdict import CONVERGED, SINGULAR, Solved, norm
from .conic import steady
from .quadratic import peak

NEAR = 1e-7
"""A Newton step so short, relative to the point, is the last one: what it leaves is about its square."""
ARMIJO, HALVINGS = 1e-4, 40


@dataclass(frozen=True)
class Barrier(Solver):
    """Newton's method on F(z) = 0, smooth optimality conditions whose first `n` unknowns are those of the program; a
    step is halved until ‖F‖ falls (Armijo) where all is `defined` (z, a) -> (B,).

    Steps that do not get shorter, of slacks or multipliers that run off, tell a barrier problem without solution from
    one that is solved: ‖F‖ tends to zero in both. Such samples end as SINGULAR; the start of all must be finite.
    Multipliers need not be unique (`conic.steady`). Cost: 2/3 (n + m)³ flops a step and sample. The factor is kept.
    """

    n: int
    defined: Callable[[Tensor, Inputs], Tensor] | None = None
    max_iter: int = 100

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        z, F = z0, problem.F(z0, a)
        error = norm(F)
        open_ = torch.ones_like(error, dtype=torch.bool)
        status = torch.full_like(error, SINGULAR, dtype=torch.int64)
        count = torch.zeros_like(status)
        for _ in range(self.max_iter):
            step = self._factor(problem, z, a).solve(F).neg()
            short = peak(step) <= NEAR * (1 + peak(z))
            z, F, error, moved = self._searched(problem, a, z, F, error, step, open_, short)
            count += open_
            status = torch.where(open_ & moved & short, CONVERGED, status)
            open_ = open_ & moved & ~short
            if not bool(open_.any()):
                break
        factor = self._factor(problem, z, a)
        last = z - factor.solve(F)  # at this price only: multipliers may be much larger than what `NEAR` is to bound
        z = torch.where((status == CONVERGED).unsqueeze(-1) & last.isfinite(), last, z)
        return Solved(z, status, count, error, count, factor)

    def _factor(self, problem: RootProblem, z: Tensor, a: Inputs) -> Factor:
        J = problem.J(z, a)
        J = J.expand(len(z), *J.shape[-2:]) if J.ndim == 2 else J
        return steady(J.nan_to_num(0.0, 0.0, 0.0), self.n)[0]

    def _searched(
        self,
        problem: RootProblem,
        a: Inputs,
        z: Tensor,
        F: Tensor,
        error: Tensor,
        step: Tensor,
        open_: Tensor,
        short: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The point, F and ‖F‖ after the step in rows that are open, and which have moved; those with a `short` step
        are as near as rounding lets them come."""
        alpha, left = torch.ones_like(error), open_
        for _ in range(HALVINGS):
            trial = torch.where(left.unsqueeze(-1), z + alpha.unsqueeze(-1) * step, z)
            there = problem.F(trial, a)
            after = norm(there)
            good = (after <= (1 - ARMIJO * alpha) * error) | (short & after.isfinite())
            if self.defined is not None:
                good = good & self.defined(trial, a)
            good = good & left
            rows = good.unsqueeze(-1)
            z, F, error = torch.where(rows, trial, z), torch.where(rows, there, F), torch.where(good, after, error)
            left = left & ~good
            if not bool(left.any()):
                break
            alpha = torch.where(left, 0.5 * alpha, alpha)
        return z, F, error, ~left
