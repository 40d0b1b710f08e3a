"""Stabilised biconjugate gradients, for affine equations known only by their products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .loop import Iteration
from .problem import Inputs, RootProblem
from .recurrence import measured
from .verdict import Rule, Solved, View, norm, tolerance


class BiCGStabState(NamedTuple):
    """Point, residual r = -F(z), shadow residual, direction p and v = A p; ρ, α, ω and ‖r‖ as (B,)."""

    z: Tensor
    r: Tensor
    shadow: Tensor
    p: Tensor
    v: Tensor
    rho: Tensor
    alpha: Tensor
    omega: Tensor
    error: Tensor


@dataclass(frozen=True)
class BiCGStab(Iteration):
    """Solves F(z) = A z - b = 0 with seven vectors of memory a row, whatever the number of steps.

    A breakdown (ρ ≈ 0) restarts the row with its own residual as shadow. Two products with A a step; the residual is
    not monotone. Source: van der Vorst (1992).
    """

    tol: float | None = None
    max_iter: int = 2000

    def rule(self, n: int, dtype: torch.dtype) -> Rule:
        return Rule(tolerance(self.tol, dtype), 1, max(64, 2 * n), self.max_iter)

    def init(self, problem: RootProblem, z0: Tensor, a: Inputs) -> BiCGStabState:
        r = problem.F(z0, a).neg()
        zero, one = torch.zeros_like(r), torch.ones_like(r[:, 0])
        return BiCGStabState(z0, r, r, zero, zero, one, one, one, norm(r))

    def step(self, problem: RootProblem, a: Inputs, state: BiCGStabState) -> BiCGStabState:
        push = problem.push(state.z, a)
        rho = _dot(state.shadow, state.r)
        broken = rho.abs() <= 1e-10 * norm(state.shadow) * state.error
        shadow = torch.where(broken.unsqueeze(-1), state.r, state.shadow)
        rho = torch.where(broken, state.error.square(), rho)
        beta = torch.where(broken, 0.0, _ratio(rho, state.rho) * _ratio(state.alpha, state.omega))
        p = state.r + beta.unsqueeze(-1) * (state.p - state.omega.unsqueeze(-1) * state.v)
        v = push(p)
        alpha = _ratio(rho, _dot(shadow, v))
        s = state.r - alpha.unsqueeze(-1) * v
        t = push(s)
        omega = _ratio(_dot(t, s), _dot(t, t))
        z = state.z + alpha.unsqueeze(-1) * p + omega.unsqueeze(-1) * s
        r = s - omega.unsqueeze(-1) * t
        return BiCGStabState(z, r, shadow, p, v, rho, alpha, omega, norm(r))

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        return measured(self, problem, z0, a)

    def view(self, state: BiCGStabState) -> View:
        return View(state.z, state.error)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.vecdot(x, y)


def _ratio(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(y == 0, 0.0, x / y)
