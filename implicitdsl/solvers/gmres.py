"""Minimal residuals over a Krylov space, for affine equations known only by their products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from .loop import Iteration
from .problem import Inputs, RootProblem
from .recurrence import measured
from .verdict import Rule, Solved, View, norm, tolerance


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
    product with A and 12·restart·n flops a row; memory 2·restart·n a row. Source: Eisenstat, Elman & Schultz (1983).
    """

    tol: float | None = None
    max_iter: int = 2000
    restart: int = 40

    measures_start: ClassVar[bool] = True

    def rule(self, n: int, dtype: torch.dtype) -> Rule:
        return Rule(tolerance(self.tol, dtype), 1, max(64, 2 * n), self.max_iter)

    def init(self, problem: RootProblem, z0: Tensor, a: Inputs) -> GmresState:
        r = problem.F(z0, a).neg()
        # directions are appended as they come; a compiled loop needs their number fixed, and absent ones are zero
        count = self._count(z0) if torch.compiler.is_compiling() else 0
        kept = z0.new_zeros(z0.shape[0], count, z0.shape[1])
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
        drop = max(state.q.shape[1] + 1 - self._count(state.z), 0)
        kept_p, kept_q = torch.cat((state.p[:, drop:], p), 1), torch.cat((state.q[:, drop:], q), 1)
        # on all of Q: what rounding left of r in its span would never leave, and stall the iteration near n·eps
        along = torch.bmm(state.r.unsqueeze(1), kept_q.mT)
        z = torch.baddbmm(state.z.unsqueeze(1), along, kept_p).squeeze(1)
        r = torch.baddbmm(state.r.unsqueeze(1), along, kept_q, alpha=-1).squeeze(1)
        error = norm(r)
        idle = (along[..., -1].abs() < 0.05 * state.error.unsqueeze(-1)) & new
        ahead = torch.where(idle, q.squeeze(1), r)
        return GmresState(z, r, error, ahead, kept_p, kept_q)

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        return measured(self, problem, z0, a)

    def view(self, state: GmresState) -> View:
        return View(state.z, state.error)

    def _count(self, z: Tensor) -> int:
        """How many directions are kept."""
        return min(self.restart, z.shape[1])
