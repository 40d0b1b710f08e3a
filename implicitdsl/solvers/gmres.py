"""Minimal residuals over a Krylov space, for affine equations known only by their products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .loop import Iteration
from .problem import Inputs, RootProblem
from .verdict import Rule, View, norm, tolerance


class GmresState(NamedTuple):
    """Point z, residual r = -F(z), its norm, the next direction, and the kept directions P with Q = A P orthonormal."""

    z: Tensor
    r: Tensor
    error: Tensor
    ahead: Tensor
    p: Tensor
    q: Tensor


@dataclass(frozen=True)
class Gmres(Iteration):
    """Minimises ‖F(z)‖ over the span of the last `restart` Krylov directions, for F(z) = A z - b.

    Written as generalised conjugate residuals (the residual is at hand in every step, no Hessenberg matrix): the same
    iterates as GMRES until `restart` directions are full, after which the oldest is dropped instead of all of them
    (ORTHOMIN). Where r ⟂ A r, the next direction is A p instead of r, so rotations do not break it. Cost a step: one
    product with A and 8·restart·n flops a row; memory 2·restart·n a row. Source: Eisenstat, Elman & Schultz (1983).
    """

    tol: float | None = None
    max_iter: int = 2000
    restart: int = 40

    def rule(self, n: int, dtype: torch.dtype) -> Rule:
        return Rule(tolerance(self.tol, dtype), 1, max(64, 2 * n), self.max_iter)

    def init(self, problem: RootProblem, z0: Tensor, a: Inputs) -> GmresState:
        r = problem.F(z0, a).neg()
        kept = z0.new_zeros(z0.shape[0], min(self.restart, z0.shape[1]), z0.shape[1])
        return GmresState(z0, r, norm(r), r, kept, kept)

    def step(self, problem: RootProblem, a: Inputs, state: GmresState) -> GmresState:
        p = state.ahead.unsqueeze(1)
        q = problem.push(state.z, a)(state.ahead).unsqueeze(1)
        before = norm(q)
        for _ in range(2):  # twice is enough for orthogonality to rounding
            c = torch.bmm(q, state.q.mT)
            q = torch.baddbmm(q, c, state.q, alpha=-1)
            p = torch.baddbmm(p, c, state.p, alpha=-1)
        size = norm(q)
        new = size > 8 * torch.finfo(q.dtype).eps * before
        inverse = torch.where(new, 1 / size, 0.0).unsqueeze(-1)
        q, p = q * inverse, p * inverse
        along = torch.bmm(q, state.r.unsqueeze(-1)).squeeze(-1)
        z = torch.addcmul(state.z, along, p.squeeze(1))
        r = torch.addcmul(state.r, along, q.squeeze(1), value=-1)
        error = norm(r)
        idle = (along.abs().squeeze(-1) < 0.05 * state.error).unsqueeze(-1) & new
        ahead = torch.where(idle, q.squeeze(1), r)
        return GmresState(z, r, error, ahead, torch.cat((state.p[:, 1:], p), 1), torch.cat((state.q[:, 1:], q), 1))

    def view(self, state: GmresState) -> View:
        return View(state.z, state.error)
