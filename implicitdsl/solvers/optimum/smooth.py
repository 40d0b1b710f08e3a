"""Smooth optimisation with equalities and inequalities: a primal-dual interior point with a line search, in batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...ground.outcomes import Outcome
from .newton import minimise
from .quadratic import cholesky_times, peak, times, times_transposed

CONVERGED, RUNNING = int(Outcome.CONVERGED), int(Outcome.RUNNING)

FLAT = 1e-10
"""A gradient, or a residual, that counts as zero where a start is looked for."""

LIFT = 1e-13
"""The least shift of a Hessian that is not definite, relative to it with its constraints: of rounding's size, so that
what active constraints hold outweighs it."""

STARTS = (1.0, 0.1, 10.0, -1.0)
"""Points that are tried where the objective is not defined at the first one, all entries equal."""


class Values(NamedTuple):
    """f (B,), e (B, p), g (B, m) at a point."""

    f: Tensor
    e: Tensor
    g: Tensor

    @property
    def finite(self) -> Tensor:
        return self.f.isfinite() & self.e.isfinite().all(-1) & self.g.isfinite().all(-1)


class Derivatives(NamedTuple):
    """∇f (B, n), ∂e (B, p, n), ∂g (B, m, n), and H (B, n, n), the Hessian of f + νᵀe + λᵀg."""

    f: Tensor
    e: Tensor
    g: Tensor
    H: Tensor


@dataclass(frozen=True)
class SmoothProblem:
    """min f(z) subject to e(z) = 0 and g(z) ≤ 0, row by row of a batch.

    values (z, rows) -> Values; derivatives (z, ν, λ, rows) -> Derivatives; `rows` are the samples that z stands for.
    """

    values: Callable[[Tensor, Tensor], Values]
    derivatives: Callable[[Tensor, Tensor, Tensor, Tensor], Derivatives]


class Found(NamedTuple):
    """z (B, n), ν (B, p), λ (B, m), status and iterations (B,); `last`: ∇f and ∇²f at z, where they are at hand."""

    z: Tensor
    nu: Tensor
    lam: Tensor
    status: Tensor
    iterations: Tensor
    last: tuple[Tensor, Tensor] | None = None


class _State(NamedTuple):
    z: Tensor
    nu: Tensor
    lam: Tensor
    s: Tensor
    mu: Tensor  # (B, 1)

    def select(self, index: Tensor) -> _State:
        return _State(*(t[index] for t in self))


@dataclass(frozen=True)
class Smooth:
    """Newton's method on the perturbed optimality conditions, slacks s > 0 with g + s = 0; Wächter & Biegler (2006).

    Steps are kept inside by the fraction-to-boundary rule and accepted by an ℓ₁ merit function; where the Hessian is
    not positive definite on the step's space it is shifted, so that non-convex problems go to a local minimum. Without
    constraints it is Newton's method with a line search on f. Cost an iteration: n³/3 + n²(m + p) flops a sample.
    """

    tol: float | None = None  # 1e-10
    max_iter: int = 200
    method: str | None = None  # "newton"

    def __post_init__(self) -> None:
        if self.method not in (None, "newton"):
            raise ValueError(f"the methods of nlp are newton, not {self.method!r}")

    def solve(self, problem: SmoothProblem, z0: Tensor, start: tuple[Values, Derivatives] | None = None) -> Found:
        """A minimiser for every row of z0 (B, n), where values and derivatives are `start` if they are at hand."""
        tol = 1e-10 if self.tol is None else self.tol
        rows = torch.arange(z0.shape[0], device=z0.device)
        z, at, D = _defined(problem, z0, rows, start)
        if not at.e.shape[-1] and not at.g.shape[-1]:
            return _free(problem, z, at, D, tol, self.max_iter)
        s = torch.where(at.g < -1e-2, -at.g, torch.ones_like(at.g))
        mu = torch.full_like(z[:, :1], 0.1 if s.shape[-1] else 0.0)
        state = _State(z, torch.zeros_like(at.e), mu / s if s.shape[-1] else s, s, mu)
        out = Found(z.clone(), state.nu.clone(), state.lam.clone(), torch.full_like(rows, RUNNING), rows * 0)
        shift = torch.zeros_like(mu)
        for it in range(self.max_iter + 1):
            D = problem.derivatives(state.z, state.nu, state.lam, rows)
            pull = _pulled(state, D)
            error, barrier = _errors(state, at, D, pull)
            status = torch.where(error <= tol, CONVERGED, RUNNING)
            lost = ~(error.isfinite() & at.finite)
            status = torch.where(lost, int(Outcome.NOT_FINITE), status)
            far = state.z.abs().amax(-1) > 1e12
            status = torch.where(far & ~lost, int(Outcome.UNBOUNDED), status)
            if it == self.max_iter:
                status = torch.where(status == RUNNING, int(Outcome.MAX_ITERATIONS), status)
            state = state._replace(mu=self._lowered(state.mu, barrier, tol))
            step = _direction(state, at, D, pull, shift)
            moved, now, alpha = _search(problem, rows, state, at, D, step)
            stuck = (alpha <= 1e-10) & (status == RUNNING)
            status = torch.where(stuck, int(Outcome.STALLED), status)
            done = status != RUNNING
            if bool(done.any()):
                for t, value in zip(out[:4], (state.z, state.nu, state.lam, status), strict=True):
                    t[rows[done]] = value[done]
                out.iterations[rows[done]] = it
                left = ~done
                if not bool(left.any()):
                    break
                rows, moved, shift = rows[left], moved.select(left), step.shift[left]
                now = Values(*(t[left] for t in now))
            else:
                shift = step.shift
            state, at = moved, now
        return out

    def _lowered(self, mu: Tensor, barrier: Tensor, tol: float) -> Tensor:
        """The next barrier parameter of rows whose barrier problem is solved well enough."""
        for _ in range(3):
            ready = barrier.unsqueeze(-1) <= 10 * mu
            if not bool(ready.any()):
                break
            mu = torch.where(ready, torch.minimum(0.2 * mu, mu**1.5).clamp(min=tol / 10), mu)
        return mu


def _free(problem: SmoothProblem, z: Tensor, at: Values, D: Derivatives, tol: float, max_iter: int) -> Found:
    """Without constraints there is less to do in an iteration."""

    def derivatives(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        D = problem.derivatives(z, z[:, :0], z[:, :0], rows)
        return D.f, D.H

    first = at.f, D.f, D.H
    found = minimise(lambda z, rows: problem.values(z, rows).f, derivatives, z, first, tol, max_iter)
    return Found(found.z, at.e, at.g, found.status, found.iterations, found.last)


def _defined(
    problem: SmoothProblem, z0: Tensor, rows: Tensor, start: tuple[Values, Derivatives] | None
) -> tuple[Tensor, Values, Derivatives]:
    """A start where everything is finite, the derivatives too, and these."""

    def at(z: Tensor) -> tuple[Values, Derivatives]:
        found = problem.values(z, rows)
        return found, problem.derivatives(z, torch.zeros_like(found.e), torch.ones_like(found.g), rows)

    def usable(at: Values, D: Derivatives) -> Tensor:
        good = at.finite & D.f.isfinite().all(-1) & D.H.isfinite().flatten(-2).all(-1)
        # an equality that is broken and has no gradient is no constraint to a linearisation: ‖z‖² = 1 at zero
        return good & ((D.e.abs().amax(-1) > FLAT) | (at.e.abs() <= FLAT)).all(-1) if D.e.shape[-2] else good

    z, (values, D) = z0, start or at(z0)
    if start and (values.e.shape[-1] or values.g.shape[-1]):  # with second derivatives of the constraints
        values, D = at(z0)
    if not values.e.shape[-1] and all(math.isfinite(t.sum().item()) for t in (values.f, values.g, D.f, D.H)):
        return z, values, D  # a sum may overflow: then look closely
    good = usable(values, D)
    for other in STARTS:
        if bool(good.all()):
            break
        z = torch.where(good.unsqueeze(-1), z, other)
        values, D = at(z)
        good = usable(values, D)
    return z, values, D


def _errors(state: _State, at: Values, D: Derivatives, pull: Tensor) -> tuple[Tensor, Tensor]:
    """The error of the optimality conditions, and that of the barrier problem, each relative to its terms, (B,);
    `pull` is the gradient of the Lagrangian.
    """
    m = state.s.shape[-1]
    weights = torch.cat([state.nu, state.lam], -1)
    scale = 1 + (weights.abs().mean(-1) / 100 if weights.shape[-1] else 0.0)
    parts = [peak(pull) / (scale * (1 + peak(D.f)))]
    if at.e.shape[-1]:
        parts.append(peak(at.e) / (1 + peak(state.z)))
    if m:
        parts.append(peak(at.g + state.s) / (1 + peak(state.z)))
    gap = state.s * state.lam
    exact = [*parts, peak(gap) / scale] if m else parts
    smoothed = [*parts, peak(gap - state.mu) / scale] if m else parts
    return torch.stack(exact).amax(0), torch.stack(smoothed).amax(0)


def _pulled(state: _State, D: Derivatives) -> Tensor:
    """∇f + ∂eᵀν + ∂gᵀλ."""
    found = D.f
    for J, y in ((D.e, state.nu), (D.g, state.lam)):
        if y.shape[-1]:
            found = found + times_transposed(J, y)
    return found


class _Step(NamedTuple):
    z: Tensor
    nu: Tensor
    lam: Tensor
    s: Tensor
    shift: Tensor  # (B, 1), what was added to the Hessian
    curvature: Tensor  # dᵀ(H + …)d


def _direction(state: _State, at: Values, D: Derivatives, pull: Tensor, shift: Tensor) -> _Step:
    """The Newton direction; the Hessian is shifted by more until a Cholesky factor of the condensed matrix exists."""
    n, p, m = state.z.shape[-1], at.e.shape[-1], at.g.shape[-1]
    w = state.lam / state.s
    H = D.H
    if m:
        H = H + D.g.mT @ (w.unsqueeze(-1) * D.g)
    size = H.diagonal(dim1=-2, dim2=-1).abs().amax(-1)[:, None, None].clamp(min=1e-8)
    if p:
        H = H + size * (D.e.mT @ D.e)
    eye = torch.eye(n, dtype=H.dtype, device=H.device)
    L, shift = _shifted(H, eye, size.squeeze(-1), shift)
    f = -pull
    if m:
        below = at.g + state.s
        inner = w * below + (state.mu - state.s * state.lam) / state.s
        f = f - times_transposed(D.g, inner)
    if p:
        f = f - size.squeeze(-1) * times_transposed(D.e, at.e)
        Y = torch.linalg.solve_triangular(L, D.e.mT, upper=False)
        S = Y.mT @ Y
        S.diagonal(dim1=-2, dim2=-1).add_(1e-13 * S.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True) + 1e-300)
        F, _ = torch.linalg.cholesky_ex(S)
        half = torch.linalg.solve_triangular(L, f.unsqueeze(-1), upper=False)
        nu = cholesky_times(F, (Y.mT @ half).squeeze(-1) + at.e).unsqueeze(-1)
        z = torch.linalg.solve_triangular(L.mT, half - Y @ nu, upper=True).squeeze(-1)
        nu = nu.squeeze(-1)
    else:
        z, nu = cholesky_times(L, f), torch.zeros_like(at.e)
    curvature = times_transposed(L, z).square().sum(-1)
    if not m:
        return _Step(z, nu, state.lam, state.s, shift, curvature)
    s = -(at.g + state.s) - times(D.g, z)
    lam = (state.mu - state.s * state.lam - state.lam * s) / state.s
    return _Step(z, nu, lam, s, shift, curvature)


def _shifted(H: Tensor, eye: Tensor, size: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """A Cholesky factor of H + δ I, δ = 0 where that exists; a pivot is lost relative to its own diagonal entry."""
    L, info = torch.linalg.cholesky_ex(H)
    shift, own = torch.zeros_like(size), H.diagonal(dim1=-2, dim2=-1)
    bad = _lost(L, info, own)
    delta = torch.maximum(before / 3, LIFT * size)
    for _ in range(40):
        if not bool(bad.any()):
            break
        shift = torch.where(bad.unsqueeze(-1), delta, shift)
        L, info = torch.linalg.cholesky_ex(H + shift.unsqueeze(-1) * eye)
        bad = _lost(L, info, own + shift) & H.isfinite().flatten(-2).all(-1)
        delta = delta * 8
    return L, shift


def _lost(L: Tensor, info: Tensor, diagonal: Tensor) -> Tensor:
    """Whether a Cholesky factor is none, or is rounding in a pivot, (B,)."""
    return (info > 0) | ~(L.diagonal(dim1=-2, dim2=-1).square() > 1e-14 * diagonal).all(-1)


def _search(
    problem: SmoothProblem, rows: Tensor, state: _State, at: Values, D: Derivatives, d: _Step
) -> tuple[_State, Values, Tensor]:
    """Backtracking on f − μ Σ log s + π (‖e‖₁ + ‖g + s‖₁); the new state, its values, and the step (B,)."""
    m = state.s.shape[-1]
    broken = at.e.abs().sum(-1) + (at.g + state.s).abs().sum(-1)
    slope = (D.f * d.z).sum(-1)
    top, dual = torch.ones_like(slope), torch.ones_like(slope)
    if m:
        tau = torch.maximum(0.99 * torch.ones_like(state.mu), 1 - state.mu)
        slope = slope - (state.mu * d.s / state.s).sum(-1)
        top = ((-d.s / state.s).amax(-1) / tau.squeeze(-1)).clamp(min=1.0).reciprocal()
        dual = ((-d.lam / state.lam).amax(-1) / tau.squeeze(-1)).clamp(min=1.0).reciprocal()
    weight = ((slope + 0.5 * d.curvature) / (0.9 * broken.clamp(min=1e-300))).clamp(min=0.0)
    multipliers = torch.cat([state.nu + d.nu, state.lam + d.lam], -1)
    weight = (
        torch.where(broken > 1e-14, torch.maximum(weight, 1.1 * peak(multipliers)), 0.0)
        if len(multipliers.T)
        else torch.zeros_like(weight)
    )
    slope = slope - weight * broken

    def merit(v: Values, s: Tensor) -> Tensor:
        total = v.f + weight * (v.e.abs().sum(-1) + (v.g + s).abs().sum(-1))
        return total - state.mu.squeeze(-1) * s.log().sum(-1) if m else total

    before = merit(at, state.s)
    room = 1e-12 * (1 + before.abs())
    alpha, open_ = top.clone(), torch.ones_like(top, dtype=torch.bool)
    z, s, now = state.z, state.s, at
    for _ in range(36):
        trial = state.z + alpha.unsqueeze(-1) * d.z
        slack = state.s + alpha.unsqueeze(-1) * d.s if m else state.s
        values = problem.values(trial, rows)
        if m:  # a slack smaller than it need be is no use
            slack = torch.where(values.g.isfinite(), torch.maximum(slack, -values.g), slack)
        found = merit(values, slack)  # not finite where a constraint is not
        good = open_ & (found <= before + 1e-4 * alpha * slope.clamp(max=0) + room) & (found > -torch.inf)
        if bool(good.all()):
            z, s, now, open_ = trial, slack, values, ~good
            break
        pick = good.unsqueeze(-1)
        z, s = torch.where(pick, trial, z), torch.where(pick, slack, s)
        now = Values(
            torch.where(good, values.f, now.f), torch.where(pick, values.e, now.e), torch.where(pick, values.g, now.g)
        )
        open_ = open_ & ~good
        if not bool(open_.any()):
            break
        alpha = torch.where(open_, alpha / 2, alpha)
    alpha = torch.where(open_, 0.0, alpha)
    nu = state.nu + alpha.unsqueeze(-1) * d.nu
    lam = state.lam
    if m:
        lam = lam + torch.where(open_, 0.0, dual).unsqueeze(-1) * d.lam
        lam = torch.minimum(torch.maximum(lam, state.mu / (1e10 * s)), 1e10 * state.mu / s)
    return _State(z, nu, lam, s, state.mu), now, alpha
