"""Newton's method inside a bracket, entry by entry: what bisection tries first where the slope is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .loop import Iteration
from .problem import Inputs, RootProblem
from .verdict import Rule, View, norm, tolerance

TRUSTED = 1e-3
"""From this part of |F| at the ends on a Newton step need not halve |F|."""


class GuardedState(NamedTuple):
    """Entry by entry, (B, n): the point x with F and the slope there, its bracket, the sign of F at the upper end, the
    next point, the Newton point where it lies in the bracket (else x), TRUSTED·|F| at the ends; and ‖F‖, (B,)."""

    x: Tensor
    f: Tensor
    slope: Tensor
    low: Tensor
    high: Tensor
    sign: Tensor
    ahead: Tensor
    better: Tensor
    trusted: Tensor
    error: Tensor


@dataclass(frozen=True)
class GuardedNewton(Iteration):
    """x ← x - F/F′ if that lies in the bracket and |F| halves, else the middle of the bracket, which always shrinks.

    For elementwise equations with a known slope and a change of sign between finite `lower` and `upper`; rows without
    one leave as NOT_FINITE at once. Quadratic near simple roots. Cost an iteration: one F, one slope and about 20 n
    flops. Source: Press et al. (2007), rtsafe.
    """

    tol: float | None = None
    max_iter: int = 40

    def rule(self, n: int, dtype: torch.dtype) -> Rule:
        return Rule(tolerance(self.tol, dtype), 1, 24, self.max_iter)

    def init(self, problem: RootProblem, z0: Tensor, a: Inputs) -> GuardedState:
        low, high = (problem.clip(torch.full_like(z0, end)) for end in (-torch.inf, torch.inf))
        f_low, f_high = problem.F(low, a), problem.F(high, a)
        sign = torch.where(f_low * f_high < 0, f_high.sign(), torch.nan)
        x = problem.clip(z0)
        x = torch.where((x > low) & (x < high), x, (low + high) / 2)
        trusted = TRUSTED * torch.maximum(f_low.abs(), f_high.abs())
        everywhere = torch.full_like(x, torch.inf)
        return self._aim(problem, a, x, everywhere, low, high, sign, trusted)

    def step(self, problem: RootProblem, a: Inputs, state: GuardedState) -> GuardedState:
        return self._aim(problem, a, state.ahead, state.f, state.low, state.high, state.sign, state.trusted)

    def view(self, state: GuardedState) -> View:
        return View(state.x, state.error, norm(state.f / state.slope), state.better)

    def _aim(
        self,
        problem: RootProblem,
        a: Inputs,
        x: Tensor,
        before: Tensor,
        low: Tensor,
        high: Tensor,
        sign: Tensor,
        trusted: Tensor,
    ) -> GuardedState:
        f = problem.F(x, a)
        slope = problem.J(x, a)
        above = f * sign > 0
        low, high = torch.where(above, low, x), torch.where(above, x, high)
        newton = x - f / slope
        inside = (newton >= low) & (newton <= high)
        size = f.abs()
        falls = (size <= 0.5 * before.abs()) | (size <= trusted)
        ahead = torch.where(inside & falls, newton, (low + high) / 2)
        # without a change of sign the row has nothing to look for here
        error = norm(f + 0 * sign)
        return GuardedState(x, f, slope, low, high, sign, ahead, torch.where(inside, newton, x), trusted, error)
