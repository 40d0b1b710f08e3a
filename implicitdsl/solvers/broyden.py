"""Broyden's good quasi-Newton method with a limited memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .loop import Iteration
from .problem import Inputs, RootProblem
from .verdict import Rule, View, norm, tolerance


class BroydenState(NamedTuple):
    """Accepted z, F(z), ‖F‖, and the best ones; the inverse H = γ I + Σ uᵢ vᵢᵀ with γ (B, 1) and u, v (B, memory, n);
    the next step and its longest length; how many updates H has, failures came in a row, steps passed without a better
    point, and trials under guard (0: still free), (B,)."""

    z: Tensor
    f: Tensor
    error: Tensor
    best_z: Tensor
    best_f: Tensor
    best: Tensor
    gamma: Tensor
    u: Tensor
    v: Tensor
    direction: Tensor
    radius: Tensor
    updates: Tensor
    failed: Tensor
    waited: Tensor
    guarded: Tensor


@dataclass(frozen=True)
class Broyden(Iteration):
    """z ← z - H F(z), H ← H + (s - H y) sᵀH / (sᵀH y) with s = Δz, y = ΔF.

    No Jacobian. The oldest of `memory` updates is dropped; the first one sets the scale γ of H. Every trial updates H,
    accepted or not. At first steps are free as long as ‖F‖ stays below 100 times its best, since the way to a solution
    may lead uphill; after 2·memory steps without a better point the search goes on from the best one under guard:
    ‖F‖ then grows by no more than 1/k², or else the next step is at most half as long. After eight failures in a row H
    starts again from γ I. Its denominator is kept from zero by damping y (Powell), so it stays regular. Converges
    superlinearly while memory lasts; n affine equations take about 2 n steps. Cost a step: one F and 10·memory·n
    flops a row. Source: Broyden (1965); Moré & Trangenstein (1976), damping; Li & Fukushima (2000), guard.
    """

    tol: float | None = None
    max_iter: int = 1000
    memory: int = 20

    def rule(self, n: int, dtype: torch.dtype) -> Rule:
        return Rule(tolerance(self.tol, dtype), 2, max(128, 2 * n), self.max_iter)

    def init(self, problem: RootProblem, z0: Tensor, a: Inputs) -> BroydenState:
        z = problem.clip(z0)
        f = problem.F(z, a)
        # updates are appended as they come; a compiled loop needs their number fixed, and absent ones are zero
        count = self.memory if torch.compiler.is_compiling() else 0
        error, none = norm(f), z.new_zeros(z.shape[0], count, z.shape[1])
        zero, radius = torch.zeros_like(error), 10 * norm(z).clamp_min(1.0)
        ahead = _cut(f.neg(), radius)
        one = zero.unsqueeze(-1) + 1
        return BroydenState(z, f, error, z, f, error, one, none, none, ahead, radius, zero, zero, zero, zero)

    def step(self, problem: RootProblem, a: Inputs, state: BroydenState) -> BroydenState:
        z = problem.clip(state.z + state.direction)
        f = problem.F(z, a)
        error = norm(f)
        s, y = z - state.z, f - state.f
        told = f.isfinite().all(-1) & (norm(s) > 0) & (norm(y) > 0)
        gamma, u, v = self._updated(state, s, y, told)

        guarded = state.guarded + (state.guarded > 0)
        limit = torch.where(guarded > 0, (1 + 1 / guarded.square()) * state.error, 100 * state.best)
        taken = told & (error <= limit)
        failed = torch.where(taken, 0.0, state.failed + 1)
        again = failed >= 8
        if torch.compiler.is_compiling() or bool(again.any()):
            u = torch.where(again.view(-1, 1, 1), 0.0, u)  # and whatever v is
        length = norm(s)
        radius = torch.where(taken, torch.maximum(state.radius, 4 * length), torch.where(told, length / 2, length / 8))

        row = taken.unsqueeze(-1)
        z, f, error = torch.where(row, z, state.z), torch.where(row, f, state.f), torch.where(taken, error, state.error)
        better = (error < 0.9 * state.best).unsqueeze(-1)
        best_z, best_f = torch.where(better, z, state.best_z), torch.where(better, f, state.best_f)
        best = torch.where(better.squeeze(-1), error, state.best)
        waited = torch.where(better.squeeze(-1), 0.0, state.waited + 1)
        back = ((guarded == 0) & (waited > 2 * self.memory)).unsqueeze(-1)
        z, f = torch.where(back, best_z, z), torch.where(back, best_f, f)
        error, guarded = norm(f), guarded + back.squeeze(-1)
        ahead = _cut(_apply(gamma, u, v, f).neg(), radius)
        updates, failed = torch.where(again, 0.0, state.updates + told), torch.where(again, 0.0, failed)
        return BroydenState(
            z, f, error, best_z, best_f, best, gamma, u, v, ahead, radius, updates, failed, waited, guarded
        )

    def view(self, state: BroydenState) -> View:
        return View(state.z, state.error, polished=state.z + state.direction)

    def _updated(self, state: BroydenState, s: Tensor, y: Tensor, told: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """H after a trial; rows that learnt nothing add a zero."""
        along = (s * y).sum(-1, keepdim=True)
        scale = (norm(s) / norm(y)).unsqueeze(-1)
        scale = torch.where(along < 0, -scale, scale)
        fresh = (told & (state.updates == 0)).unsqueeze(-1)
        gamma = torch.where(fresh & scale.isfinite(), scale, state.gamma)
        drop = max(state.u.shape[1] + 1 - self.memory, 0)
        older_u, older_v = state.u[:, drop:], state.v[:, drop:]
        hy = _apply(gamma, older_u, older_v, y)
        hs = _apply(gamma, older_v, older_u, s)  # Hᵀ s
        square = s.square().sum(-1, keepdim=True)
        omega = (s * hy).sum(-1, keepdim=True) / square
        sign = torch.where(omega < 0, -1.0, torch.ones_like(omega))
        theta = torch.where(omega.abs() < 0.1, (1 - 0.1 * sign) / (1 - omega), 1.0)
        u = theta * (s - hy) / ((theta * omega + 1 - theta) * square)
        good = (told & (u.isfinite() & hs.isfinite()).all(-1)).unsqueeze(-1)
        u, hs = torch.where(good, u, 0.0), torch.where(good, hs, 0.0)
        return gamma, torch.cat((older_u, u.unsqueeze(1)), 1), torch.cat((older_v, hs.unsqueeze(1)), 1)


def _apply(gamma: Tensor, u: Tensor, v: Tensor, x: Tensor) -> Tensor:
    """(γ I + Σ uᵢ vᵢᵀ) x for each row."""
    weights = torch.bmm(v, x.unsqueeze(-1))
    return torch.baddbmm((gamma * x).unsqueeze(-1), u.mT, weights).squeeze(-1)


def _cut(step: Tensor, radius: Tensor) -> Tensor:
    """A step no longer than the radius."""
    length = norm(step)
    return step * torch.where(length > radius, radius / length, 1.0).unsqueeze(-1)
