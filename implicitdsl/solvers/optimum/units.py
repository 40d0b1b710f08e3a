"""Smooth problems in units of their own: how large the point, the objective and each constraint are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..host import Array, array
from ..problem import RootProblem
from .quadratic import peak, times_transposed
from .smooth import Derivatives, SmoothProblem, Values

NEAR = 1e2
"""Units within this factor of one are left alone: tolerances are for numbers of such sizes."""
UNEQUAL = 1e-4
"""By so much two guesses of a size may differ."""
WEAK = 1e-9
"""A slack or multiplier that counts as zero, in units."""


class Units(NamedTuple):
    """z = point · ẑ, f = cost · f̂, h = rows · ĥ of equalities and inequalities: (B, 1), (B, 1), (B, p + m)."""

    point: Tensor
    cost: Tensor
    rows: Tensor

    def measured(self, state: Tensor) -> Tensor:
        """(z, ν, λ) in these units."""
        n = state.shape[-1] - self.rows.shape[-1]
        return torch.cat([state[:, :n] / self.point, state[:, n:] * (self.rows / self.cost)], -1)

    def plain(self, state: Tensor) -> Tensor:
        """(z, ν, λ) from those in these units."""
        n = state.shape[-1] - self.rows.shape[-1]
        return torch.cat([state[:, :n] * self.point, state[:, n:] * (self.cost / self.rows)], -1)

    def problem(self, whole: SmoothProblem, equalities: int) -> SmoothProblem:
        """The problem in these units, which has the same solutions."""
        p = equalities

        def values(z: Tensor, rows: Tensor) -> Values:
            u, c, r = self.select(rows)
            found = whole.values(z * u, rows)
            return Values(found.f / c.squeeze(-1), found.e / r[:, :p], found.g / r[:, p:])

        def derivatives(z: Tensor, nu: Tensor, lam: Tensor, rows: Tensor) -> Derivatives:
            u, c, r = self.select(rows)
            weight, along = c / r, (u / r).unsqueeze(-1)
            found = whole.derivatives(z * u, nu * weight[:, :p], lam * weight[:, p:], rows)
            H = found.H * (u * u / c).unsqueeze(-1)
            return Derivatives(found.f * (u / c), found.e * along[:, :p], found.g * along[:, p:], H)

        return SmoothProblem(values, derivatives)

    def select(self, rows: Tensor) -> Units:
        """Those of some samples."""
        return self if len(rows) == len(self.point) else Units(*(t[rows] for t in self))


@np.errstate(all="ignore")
def units_of(z: Tensor, at: Values, D: Derivatives, *, found: bool = False) -> Units | None:
    """Sizes at a start z (B, n): the point's is the lesser of the lengths of Newton's steps to where the objective's
    slope vanishes and to where the constraints hold with equality, ‖∇f‖ / ‖∇²f‖ and ‖h‖ / ‖∇h‖, or ‖z‖ if that is
    more; objective and constraints are measured by what they change over it. `found`: z itself is the size.

    Powers of two, so that nothing is rounded; one where nothing tells a size, and for samples of which all are near
    one, whatever others need; None where that is every sample. D.H is the objective's own.
    """
    if not z.numel():
        return None
    J = torch.cat(_whole(D), -2)
    h = np.abs(array(torch.cat([at.e, at.g], -1)))
    slope, bend, here = (array(peak(t))[:, None] for t in (D.f, D.H.flatten(1), z))
    steep = array(J.abs().amax(-1)) if h.shape[-1] else h
    point = here
    if not found:
        guesses = [_known(slope / bend)]
        if h.shape[-1]:
            guesses.append(_known(np.fmax.reduce(_known(h / steep), -1, keepdims=True)))
        least, most = np.fmin(guesses[0], guesses[-1]), np.fmax(guesses[0], guesses[-1])
        point = np.fmax(np.maximum(least, UNEQUAL * most), here)
    point = _power(point)
    cost = _power(np.fmax(slope * point, bend * point * point))
    rows = _power(np.fmax(h, steep * point))
    every = np.concatenate([point, cost, rows], -1)
    near = ((every >= 1 / NEAR) & (every <= NEAR)).all(-1, keepdims=True)
    if near.all():
        return None
    return Units(*(torch.from_numpy(np.where(near, 1.0, t)).to(z) for t in (point, cost, rows)))


def _whole(D: Derivatives) -> tuple[Tensor, Tensor]:
    """∂e and ∂g, (B, 0, n) where there are none."""
    n = D.f.shape[-1]
    return D.e.expand(-1, -1, n), D.g.expand(-1, -1, n)


def _known(t: Array) -> Array:
    return np.where((t > 0) & np.isfinite(t), t, np.nan)


def _power(t: Array) -> Array:
    """The power of two nearest to a size, 1 where there is none."""
    return np.nan_to_num(np.exp2(np.round(np.log2(_known(t)))), nan=1.0)


def optimality(problem: SmoothProblem, n: int, p: int) -> RootProblem:
    """∇L = 0, e = 0, min(λ, −g) = 0 in (z, ν, λ); its one input is the samples' numbers, (B,)."""

    def residual(state: Tensor, rows: Tensor) -> Tensor:
        z, nu, lam = state[:, :n], state[:, n : n + p], state[:, n + p :]
        at, D = problem.values(z, rows), problem.derivatives(z, nu, lam, rows)
        pull = D.f
        for J, y in ((D.e, nu), (D.g, lam)):
            if y.shape[-1]:
                pull = pull + times_transposed(J, y)
        return torch.cat([pull, at.e, torch.minimum(lam, -at.g)], -1)

    def jacobian(state: Tensor, rows: Tensor) -> Tensor:
        z, nu, lam = state[:, :n], state[:, n : n + p], state[:, n + p :]
        at, D = problem.values(z, rows), problem.derivatives(z, nu, lam, rows)
        on = (lam > -at.g).to(z).unsqueeze(-1)
        k = at.e.shape[-1] + at.g.shape[-1]
        e, g = _whole(D)
        below = torch.cat([e, torch.where(on > 0, -g, 0.0)], -2)
        idle = torch.cat([at.e.new_zeros(at.e.shape), 1 - on.squeeze(-1)], -1).diag_embed()
        top = torch.cat([D.H, e.mT, g.mT], -1)
        return torch.cat([top, torch.cat([below, idle], -1)], -2) if k else D.H

    return RootProblem(residual=residual, jacobian=jacobian, ranks=(0,))


def linearised_at(problem: SmoothProblem, x: Tensor, p: int, m: int) -> tuple[Values, Derivatives]:
    """At x (B, n), the second derivatives being those of the objective."""
    rows = torch.arange(len(x), device=x.device)
    return problem.values(x, rows), problem.derivatives(x, x.new_zeros(len(x), p), x.new_zeros(len(x), m), rows)


def some(problem: SmoothProblem, rows: Tensor) -> SmoothProblem:
    """Of some samples, which are counted anew."""
    return SmoothProblem(
        lambda z, at: problem.values(z, rows[at]), lambda z, nu, lam, at: problem.derivatives(z, nu, lam, rows[at])
    )


def weakly_active(problem: SmoothProblem, state: Tensor, equalities: int, live: int) -> Tensor:
    """How many of the `live` inequalities have neither slack nor multiplier at (z, ν, λ) (B, N), (B,)."""
    n = state.shape[-1] - equalities - live
    z, lam = state[:, :n], state[:, n + equalities :]
    at, D = linearised_at(problem, z, equalities, live)
    units, g = units_of(z, at, D, found=True), at.g
    if units is not None:
        lam, g = units.measured(state)[:, n + equalities :], g / units.rows[:, equalities:]
    return ((g.abs() <= WEAK) & (lam.abs() <= WEAK)).sum(-1)
