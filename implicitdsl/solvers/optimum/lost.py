"""Why a convex program over cones was not solved: two programs that always have an optimum tell."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...ground.outcomes import Outcome
from .cones import Cones
from .convex import Convex, ConvexProblem, Slope
from .definite import Layout

CONVERGED = int(Outcome.CONVERGED)
MISSED = 1e-6
"""A least violation, relative to the point, that is none."""
RADIUS = 1e3
"""Of the ball, relative to the start, at whose boundary the optimum of an unbounded program lies."""


def reasons(problem: ConvexProblem, x0: Tensor, rows: Tensor, status: Tensor, solver: Convex) -> Tensor:
    """INFEASIBLE or UNBOUNDED for the samples `rows` that are, with their starts x0 (len(rows), n); else `status`.

    The least t with −h(x) + t e ∈ K, |e(x)| ≤ t, is positive where there is no feasible point; where there is one, the
    program within a large ball has an optimum, on the boundary where the program itself is unbounded.
    """
    infeasible = _infeasible(problem, x0, rows, solver)
    status, left = torch.where(infeasible, int(Outcome.INFEASIBLE), status), ~infeasible
    if bool(left.any()):
        unbounded = _unbounded(problem, x0[left], rows[left], solver)
        status[left] = torch.where(unbounded, int(Outcome.UNBOUNDED), status[left])
    return status


def _infeasible(problem: ConvexProblem, x0: Tensor, rows: Tensor, solver: Convex) -> Tensor:
    cones = problem.cones
    if not cones.size:
        return torch.zeros_like(rows, dtype=torch.bool)
    layout = Layout.of(cones, x0)
    along = torch.cat([x0.new_zeros(1, cones.zero), layout.unpad(layout.unit(x0))], -1)
    relaxed = _Relaxed(problem, rows, along)
    h = relaxed.violations(problem.values(x0, rows)[1])
    t0 = 1 + h.norm(dim=-1)
    found = solver.solve(relaxed.problem(), torch.cat([x0, t0.unsqueeze(-1)], -1))
    size = 1 + found.x[:, :-1].abs().amax(-1)
    return (found.status == CONVERGED) & (found.x[:, -1] > MISSED * size)


def _unbounded(problem: ConvexProblem, x0: Tensor, rows: Tensor, solver: Convex) -> Tensor:
    bounded = _Bounded(problem, rows, RADIUS * (1 + x0.norm(dim=-1)))
    found = solver.solve(bounded.problem(x0.shape[-1]), x0)
    return (found.status == CONVERGED) & (found.x.norm(dim=-1) > 0.9 * bounded.radius)


@dataclass(frozen=True)
class _Relaxed:
    """min t over (x, t): e(x) ≤ t, −e(x) ≤ t, g(x) ≤ t, −t ≤ 1 and −h(x) + t e in the other cones."""

    whole: ConvexProblem
    rows: Tensor
    unit: Tensor

    def problem(self) -> ConvexProblem:
        c = self.whole.cones
        cones = Cones(0, 1 + 2 * c.zero + c.nonneg, c.orders, c.second)
        return replace(self.whole, cones=cones, values=self.values, derivatives=self.derivatives)

    def violations(self, h: Tensor) -> Tensor:
        """h with the equalities from both sides, behind a row for t ≥ −1."""
        e = h[:, : self.whole.cones.zero]
        return torch.cat([torch.full_like(h[:, :1], -1.0), e, -e, h[:, self.whole.cones.zero :]], -1)

    def values(self, x: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        t = x[:, -1:]
        f, h = self.whole.values(x[:, :-1], self.rows[at])
        return torch.where(f.isfinite(), t.squeeze(-1), torch.nan), self.violations(h) - t * self._along(h)

    def derivatives(self, x: Tensor, y: Tensor, at: Tensor) -> Slope:
        p = self.whole.cones.zero
        e, opposite, rest = y[:, 1 : 1 + p], y[:, 1 + p : 1 + 2 * p], y[:, 1 + 2 * p :]
        whole = torch.cat([e - opposite, rest], -1)
        _, J, H = self.whole.derivatives(x[:, :-1], whole, self.rows[at])
        H = H - self.whole.derivatives(x[:, :-1], torch.zeros_like(whole), self.rows[at]).H
        below = torch.cat([torch.zeros_like(x[:, None, :-1]), J[:, :p], -J[:, :p], J[:, p:]], -2)
        J = torch.cat([below, -self._along(whole).expand(len(x), -1).unsqueeze(-1)], -1)
        f = torch.zeros_like(x)
        f[:, -1] = 1.0
        return Slope(f, J, torch.nn.functional.pad(H, (0, 1, 0, 1)))

    def _along(self, like: Tensor) -> Tensor:
        p = self.whole.cones.zero
        ones = torch.ones_like(like[:1, :1]).expand(1, 1 + 2 * p)
        return torch.cat([ones, self.unit[:, p:]], -1)


@dataclass(frozen=True)
class _Bounded:
    """The program with ‖x‖ ≤ radius, as a second-order cone after its others."""

    whole: ConvexProblem
    rows: Tensor
    radius: Tensor

    def problem(self, n: int) -> ConvexProblem:
        c = self.whole.cones
        cones = replace(c, second=(*c.second, 1 + n))
        return replace(self.whole, cones=cones, values=self.values, derivatives=self.derivatives)

    @property
    def place(self) -> int:
        """The row of the radius."""
        c = self.whole.cones
        return c.zero + c.nonneg + sum(c.second)

    def values(self, x: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        f, h = self.whole.values(x, self.rows[at])
        return f, torch.cat([h[:, : self.place], -self.radius[at].unsqueeze(-1), -x, h[:, self.place :]], -1)

    def derivatives(self, x: Tensor, y: Tensor, at: Tensor) -> Slope:
        k, n = self.place, x.shape[-1]
        f, J, H = self.whole.derivatives(x, torch.cat([y[:, :k], y[:, k + 1 + n :]], -1), self.rows[at])
        eye = torch.eye(n, dtype=x.dtype, device=x.device).expand(len(x), n, n)
        return Slope(f, torch.cat([J[:, :k], x.new_zeros(len(x), 1, n), -eye, J[:, k:]], -2), H)
