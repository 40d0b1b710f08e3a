"""Anderson acceleration of a fixed-point iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from .loop import Iteration
from .problem import Inputs, RootProblem
from .verdict import Rule, View, norm, tolerance


class AndersonState(NamedTuple):
    """Point z, residual f = G(z) - z, its norm, and the last `depth` differences of f and of G(z), (B, depth, n)."""

    z: Tensor
    f: Tensor
    error: Tensor
    df: Tensor
    dg: Tensor


@dataclass(frozen=True)
class Anderson(Iteration):
    """z ← G(z) - ΔG γ - (1 - damping)(f - ΔF γ) with γ = argmin ‖f - ΔF γ‖² + ridge·‖γ‖² over the last `depth` steps.

    The columns of ΔF are scaled to unit length first, so `ridge` is relative and a degenerate history only loses its
    directions. A row whose residual more than doubles, or whose step is not finite, forgets its history and goes on
    by a plain step. Cost a step: one G and about depth²·n flops a row. Source: Walker & Ni (2011), restart: Fang & Saad
    (2009).
    """

    tol: float | None = None
    max_iter: int = 1000
    depth: int = 5
    damping: float = 1.0
    ridge: float = 1e-10

    measures_start: ClassVar[bool] = True

    def rule(self, n: int, dtype: torch.dtype) -> Rule:
        return Rule(tolerance(self.tol, dtype), 2, max(64, 2 * n), self.max_iter)

    def init(self, problem: RootProblem, z0: Tensor, a: Inputs) -> AndersonState:
        f = problem.G(z0, a) - z0
        empty = z0.new_zeros(z0.shape[0], self.depth, z0.shape[1])
        return AndersonState(z0, f, norm(f), empty, empty)

    def step(self, problem: RootProblem, a: Inputs, state: AndersonState) -> AndersonState:
        mixed = self._mixed(state)
        fallback = torch.add(state.z, state.f, alpha=self.damping)
        whole = mixed.isfinite().all(-1, keepdim=True)
        z = torch.where(whole, mixed, fallback)
        g = problem.G(z, a)
        f = g - z
        error = norm(f)
        keep = whole & (error <= 2 * state.error).unsqueeze(-1)
        keep = keep.unsqueeze(-1)
        df = torch.cat((state.df[:, 1:], (f - state.f).unsqueeze(1)), 1)
        dg = torch.cat((state.dg[:, 1:], (g - state.z - state.f).unsqueeze(1)), 1)
        return AndersonState(z, f, error, torch.where(keep, df, 0.0), torch.where(keep, dg, 0.0))

    def view(self, state: AndersonState) -> View:
        return View(state.z, state.error, polished=state.z + state.f)

    def _mixed(self, state: AndersonState) -> Tensor:
        length = norm(state.df)
        noise = 64 * torch.finfo(length.dtype).eps * torch.maximum(state.error, norm(state.z))
        told = length > noise.unsqueeze(1)  # the others differ by rounding only
        inverse = torch.where(told, 1.0 / length, 0.0)
        unit = state.df * inverse.unsqueeze(-1)
        gram = torch.bmm(unit, unit.mT)
        # an absent column leaves a zero row: its diagonal becomes 1 and its γ stays 0
        ridge = max(self.ridge, 4 * torch.finfo(gram.dtype).eps)
        gram = gram + torch.diag_embed(torch.where(told, ridge, torch.ones_like(length)))
        lu, pivots, _ = torch.linalg.lu_factor_ex(gram)
        right = torch.bmm(unit, state.f.unsqueeze(-1))
        gamma = torch.linalg.lu_solve(lu, pivots, right).squeeze(-1) * inverse
        g = state.z + state.f
        mixed = torch.baddbmm(g.unsqueeze(1), gamma.unsqueeze(1), state.dg, alpha=-1).squeeze(1)
        if self.damping != 1.0:
            left = torch.baddbmm(state.f.unsqueeze(1), gamma.unsqueeze(1), state.df, alpha=-1).squeeze(1)
            mixed = mixed - (1 - self.damping) * left
        return mixed
