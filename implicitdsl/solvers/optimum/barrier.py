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
from .quadratic import peak, times
from .regular import regular

NEAR = 1e-7
"""A Newton step so short, relative to the point, is the last one: what it leaves is about its square."""
MET = 1e-8
"""Of the terms of an equation, which may be left of it: with multipliers that are huge any step is short."""
HALVINGS = 40


@dataclass(frozen=True)
class Barrier(Solver):
    """Newton's method on F(z) = 0, smooth optimality conditions with so many `unknowns`, then multipliers of so many
    `equations` whose sign is to be turned (`regular`), then the rest; everything is `defined` (z, a) -> (B,) at z.

    A step is halved until what it leaves to go, ‖J⁻¹F‖ with the Jacobian from before, is less: units do not matter, nor
    the stiff corners of domains (the natural monotonicity test, Deuflhard 2011, §3.3). Steps that do not get shorter,
    of slacks or multipliers that run off, tell a barrier problem without solution from one that is solved: ‖F‖ tends to
    zero in both. Such samples end as SINGULAR; the start of all must be finite. Multipliers need not be unique.
    Cost: 2/3 (n + m)³ flops a step and sample. The factor is kept.
    """

    unknowns: int
    equations: int = 0
    defined: Callable[[Tensor, Inputs], Tensor] | None = None
    max_iter: int = 100

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        z, F = z0, problem.F(z0, a)
        open_ = torch.ones_like(z[:, 0], dtype=torch.bool)
        status = torch.full_like(open_, SINGULAR, dtype=torch.int64)
        count = torch.zeros_like(status)
        for _ in range(self.max_iter):
            J = self._jacobian(problem, z, a)
            met = (F.abs() <= MET * (1 + times(J.abs(), z.abs()))).all(-1)
            factor, before = self._factor(J), norm(F)
            step = factor.solve(F).neg()
            short = peak(step) <= NEAR * (1 + peak(z))
            z, F, moved = self._searched(problem, a, z, F, step, open_, short, factor)
            count += open_
            status = torch.where(open_ & moved & short & met, CONVERGED, status)
            open_ = open_ & moved & ~(short & (met | (norm(F) > before / 2)))
            if not bool(open_.any()):
                break
        factor = self._factor(self._jacobian(problem, z, a))
        last = z - factor.solve(F)  # at this price only: multipliers may be much larger than what `NEAR` is to bound
        z = torch.where((status == CONVERGED).unsqueeze(-1) & last.isfinite(), last, z)
        return Solved(z, status, count, norm(F), count, factor)

    def _jacobian(self, problem: RootProblem, z: Tensor, a: Inputs) -> Tensor:
        J = problem.J(z, a)
        return (J.expand(len(z), *J.shape[-2:]) if J.ndim == 2 else J).nan_to_num(0.0, 0.0, 0.0)

    def _factor(self, J: Tensor) -> Factor:
        return regular(J, self.unknowns, self.equations)[0]

    def _searched(
        self,
        problem: RootProblem,
        a: Inputs,
        z: Tensor,
        F: Tensor,
        step: Tensor,
        open_: Tensor,
        short: Tensor,
        factor: Factor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The point and F after the step in rows that are open, and which have moved; those with a `short` step are as
        near as rounding lets them come."""
        alpha, left, length = torch.ones_like(step[:, 0]), open_, norm(step)
        for _ in range(HALVINGS):
            trial = torch.where(left.unsqueeze(-1), z + alpha.unsqueeze(-1) * step, z)
            there = problem.F(trial, a)
            ahead = norm(factor.solve(there.nan_to_num(0.0, 0.0, 0.0)))
            good = left & there.isfinite().all(-1) & (short | (ahead <= (1 - alpha / 4) * length))
            if self.defined is not None:
                good = good & self.defined(trial, a)
            z, F = (torch.where(good.unsqueeze(-1), new, old) for new, old in ((trial, z), (there, F)))
            left = left & ~good
            if not bool(left.any()):
                break
            alpha = torch.where(left, 0.5 * alpha, alpha)
        return z, F, ~left
