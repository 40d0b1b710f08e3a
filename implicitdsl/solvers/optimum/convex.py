"""Smooth convex objectives over cones: a primal-dual interior point with Nesterov–Todd scaling, in batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...ground.outcomes import Outcome
from ..factor import factorise
from .cones import Cones
from .definite import Layout, Weights
from .quadratic import peak, times, times_transposed

CONVERGED, RUNNING = int(Outcome.CONVERGED), int(Outcome.RUNNING)
FRACTION = 0.98
"""Of the step to the boundary."""
REGULAR = 1e-13
"""Of the largest entry of the Hessian of the Lagrangian, added to its diagonal and taken from the equalities'."""
HALVINGS = 40
SHORT, PATIENCE = 1e-2, 15
"""So many steps of less than that fraction in a row lead nowhere."""
BALANCE = 10.0
"""How many times the ratio of residual and gap may become what it was at first."""
FALL = 0.1
"""The rate, relative to the gap, at which a direction with corrector must lower it."""
DECREASE = 0.01
CERTAIN = 1e-8
"""How nearly multipliers must prove that there is no feasible point, relative to what they prove."""
FAR = 1e12


class Slope(NamedTuple):
    """∇f (B, n), J = ∂h (B, m, n), and H (B, n, n), the Hessian of f + yᵀh."""

    f: Tensor
    J: Tensor
    H: Tensor


@dataclass(frozen=True)
class ConvexProblem:
    """min f(x) subject to −h(x) ∈ K, a product of cones, row by row of a batch: equalities e(x) = 0, inequalities
    g(x) ≤ 0, and −h affine in second-order cones and semidefinite matrices, in the order of `Cones`.

    values (x, rows) -> f (B,), h (B, m); derivatives (x, y, rows) -> Slope; `rows` are the samples that x stands for.
    """

    cones: Cones
    values: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    derivatives: Callable[[Tensor, Tensor, Tensor], Slope]


class ConvexOptimum(NamedTuple):
    """x (B, n); w = s − y (B, m) with slacks s ∈ K and multipliers y; status and iterations (B,)."""

    x: Tensor
    w: Tensor
    status: Tensor
    iterations: Tensor


class _Point(NamedTuple):
    """Unknowns, multipliers of the equalities (B, p) and of the cones, slacks; f and h, and their derivatives."""

    x: Tensor
    nu: Tensor
    z: Tensor
    s: Tensor
    f: Tensor
    h: Tensor
    slope: Slope

    def select(self, index: Tensor) -> _Point:
        slope = Slope(*(t[index] for t in self.slope))
        x, nu, z, s, f, h = (t[index] for t in self[:6])
        return _Point(x, nu, z, s, f, h, slope)


class _Residual(NamedTuple):
    """∇f + Jᵀy (B, n), e (B, p), h + s (B, m'), the size of the first, of the others, of all, and sᵀz (B,)."""

    rd: Tensor
    re: Tensor
    rh: Tensor
    dual: Tensor
    primal: Tensor
    size: Tensor
    gap: Tensor


@dataclass(frozen=True)
class Convex:
    """Newton's method on the perturbed optimality conditions, with Mehrotra's predictor and corrector; steps are
    shortened until residual and gap decrease together (Andersen, Dahl, Liu & Vandenberghe 2011, as CVXOPT's `cpl`).

    An iteration factors H + JᵀW⁻²J: 2/3 n³ + n²m flops a sample, and n k³ a matrix of order k. Statuses: CONVERGED,
    INFEASIBLE (multipliers prove it), UNBOUNDED, NOT_FINITE, MAX_ITERATIONS, STALLED.
    """

    tol: float = 1e-8
    max_iter: int = 100

    def solve(self, problem: ConvexProblem, x0: Tensor) -> ConvexOptimum:
        """An optimum for every row of x0 (B, n), near which f must be finite."""
        layout = Layout.of(problem.cones, x0)
        p = problem.cones.zero
        rows = torch.arange(x0.shape[0], device=x0.device)
        f, h = problem.values(x0, rows)
        z = layout.unit(x0).expand(len(rows), -1)
        s = layout.inside(-layout.pad(h[:, p:]).nan_to_num(0.0, 0.0, 0.0))
        at = _evaluated(problem, layout, x0, h.new_zeros(len(rows), p), z, s, f, h, rows)
        balance, slow = None, rows * 0
        out = [x0.clone(), torch.zeros_like(h), torch.full_like(rows, RUNNING), rows * 0]
        for it in range(self.max_iter + 1):
            now = _residual(at, layout, p)
            if balance is None:
                balance = BALANCE * (now.size / now.gap.clamp(min=1e-300)).clamp(min=1.0)
            status = self._status(at, now, layout, p)
            if it == self.max_iter:
                status = torch.where(status == RUNNING, int(Outcome.MAX_ITERATIONS), status)
            open_ = status == RUNNING
            moved, alpha = at, torch.ones_like(now.gap)
            if bool(open_.any()):
                moved, alpha = _step(problem, layout, at, now, rows, balance, open_)
            slow = torch.where(alpha < SHORT, slow + 1, 0)
            status = torch.where(open_ & ((alpha == 0) | (slow > PATIENCE)), int(Outcome.STALLED), status)
            done = status != RUNNING
            if bool(done.any()):
                here = rows[done]
                w = torch.cat([-at.nu, layout.unpad(at.s - at.z)], -1)
                for t, value in zip(out, (at.x, w, status), strict=False):
                    t[here] = value[done]
                out[3][here] = it
                left = ~done
                if not bool(left.any()):
                    break
                rows, moved, balance, slow = rows[left], moved.select(left), balance[left], slow[left]
            at = moved
        return ConvexOptimum(*out)

    def _status(self, at: _Point, now: _Residual, layout: Layout, p: int) -> Tensor:
        size = 1 + peak(at.x)
        met = (now.dual <= self.tol * (1 + peak(at.slope.f))) & (now.primal <= self.tol * size)
        met = met & (now.gap <= self.tol * (1 + at.f.abs()))
        status = torch.where(met, CONVERGED, RUNNING)
        y = torch.cat([at.nu, layout.unpad(at.z)], -1)
        proof = (y * at.h).sum(-1)
        pull = times_transposed(at.slope.J, y).norm(dim=-1)
        none = (proof > 0) & (pull * size <= CERTAIN * proof) & ~met
        status = torch.where(none, int(Outcome.INFEASIBLE), status)
        far = (peak(at.x) > FAR) & ~met & ~none
        status = torch.where(far, int(Outcome.UNBOUNDED), status)
        return torch.where(now.size.isfinite() & now.gap.isfinite(), status, int(Outcome.NOT_FINITE))


def _evaluated(
    problem: ConvexProblem,
    layout: Layout,
    x: Tensor,
    nu: Tensor,
    z: Tensor,
    s: Tensor,
    f: Tensor,
    h: Tensor,
    rows: Tensor,
) -> _Point:
    slope = problem.derivatives(x, torch.cat([nu, layout.unpad(z)], -1), rows)
    return _Point(x, nu, z, s, f, h, slope)


def _residual(at: _Point, layout: Layout, p: int) -> _Residual:
    y = torch.cat([at.nu, layout.unpad(at.z)], -1)
    rd = at.slope.f + times_transposed(at.slope.J, y)
    re, rh = at.h[:, :p], layout.pad(at.h[:, p:]) + at.s
    dual, primal = rd.norm(dim=-1), torch.cat([re, rh], -1).norm(dim=-1)
    return _Residual(rd, re, rh, dual, primal, torch.hypot(dual, primal), (at.s * at.z).sum(-1))


def _step(
    problem: ConvexProblem,
    layout: Layout,
    at: _Point,
    now: _Residual,
    rows: Tensor,
    balance: Tensor,
    open_: Tensor,
) -> tuple[_Point, Tensor]:
    """The next point, and the length of the step, 0 where none helps."""
    p, n = now.re.shape[-1], at.x.shape[-1]
    W = Weights.of(layout, at.s, at.z)
    E, G = at.slope.J[:, :p], W.rows(layout.rows(at.slope.J[:, p:]))
    below, mu = W.slack(now.rh), now.gap.unsqueeze(-1) / layout.degree
    factor = factorise(_matrix(at.slope.H, E, G).nan_to_num(0.0, 0.0, 0.0))

    def direction(centre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """dx, dν, and the scaled directions of z and s, whose sum is `centre`."""
        part = below + centre
        found = factor.solve(torch.cat([-now.rd - times_transposed(G, part), -now.re], -1))
        dx, dnu = found[:, :n], found[:, n:]
        dz = times(G, dx) + part
        return dx, dnu, torch.stack([dz, centre - dz])

    _, _, pair = direction(-W.point)
    ahead = W.reach(pair).clamp(min=1.0).reciprocal()
    sigma = ((1 - ahead) ** 3).clamp(1e-6, 0.9)
    early = (now.size > balance * now.gap).unsqueeze(-1)  # the gap may not close long before the residual does
    sigma = torch.where(early, 1.0, sigma)
    aim = sigma * mu * layout.unit(at.x)
    plain = W.quotient(aim) - W.point
    centre = plain - W.quotient(W.product(pair[1], pair[0]))
    falls = (W.point * centre).sum(-1) <= -FALL * now.gap  # else the corrector is not to be trusted so far away
    centre = torch.where(falls.unsqueeze(-1), centre, plain)
    dx, dnu, pair = direction(centre)
    alpha = (FRACTION / W.reach(pair).clamp(min=1e-300)).clamp(max=1.0)
    dz, ds = W.to_multiplier(pair[0]), W.to_slack(pair[1])
    return _searched(problem, layout, at, now, rows, (dx, dnu, dz, ds), alpha.squeeze(-1), open_)


def _matrix(H: Tensor, E: Tensor, G: Tensor) -> Tensor:
    """[[H + GᵀG, Eᵀ], [E, 0]], regularised against rounding and redundant equalities."""
    top = H + G.mT @ G
    p = E.shape[-2]
    shift = REGULAR * (1 + H.diagonal(dim1=-2, dim2=-1).abs().amax(-1))[:, None, None]
    eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    top = top + shift * eye
    if not p:
        return top
    corner = -shift * torch.eye(p, dtype=H.dtype, device=H.device)
    return torch.cat([torch.cat([top, E.mT], -1), torch.cat([E, corner.expand(len(H), p, p)], -1)], -2)


def _searched(
    problem: ConvexProblem,
    layout: Layout,
    at: _Point,
    now: _Residual,
    rows: Tensor,
    step: tuple[Tensor, Tensor, Tensor, Tensor],
    alpha: Tensor,
    open_: Tensor,
) -> tuple[_Point, Tensor]:
    """The longest of α, α/2, … at which residual and gap have decreased together, and it; 0 where there is none."""
    p = now.re.shape[-1]
    weight = now.gap / now.size.clamp(min=1e-3 * now.gap)
    merit = now.gap + weight * now.size
    moved = at
    for _ in range(HALVINGS):
        a = torch.where(open_, alpha, 0.0).unsqueeze(-1)
        x, nu, z, s = (t + a * d for t, d in zip(at[:4], step, strict=True))
        f, h = problem.values(x, rows)
        there = f.isfinite() & h.isfinite().all(-1) & x.isfinite().all(-1)
        if bool((there & open_).any()):
            trial = _evaluated(problem, layout, x, nu, z, s, f, h, rows)
            then = _residual(trial, layout, p)
            better = then.gap + weight * then.size <= (1 - DECREASE * alpha) * merit
            good = open_ & there & better
            moved = _where(good, trial, moved)
            open_ = open_ & ~good
        if not bool(open_.any()):
            break
        alpha = torch.where(open_, alpha / 2, alpha)
    return moved, torch.where(open_, 0.0, alpha)


def _where(mask: Tensor, a: _Point, b: _Point) -> _Point:
    def chosen(x: Tensor, y: Tensor) -> Tensor:
        return torch.where(mask.view(-1, *(1,) * (x.ndim - 1)), x, y)

    slope = Slope(*(chosen(x, y) for x, y in zip(a.slope, b.slope, strict=True)))
    x, nu, z, s, f, h = (chosen(t, u) for t, u in zip(a[:6], b[:6], strict=True))
    return _Point(x, nu, z, s, f, h, slope)
