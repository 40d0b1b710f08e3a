"""Levenberg–Marquardt: damped Gauss–Newton steps, for singular Jacobians and for any number of equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .factor import Factor, factorise
from .loop import Iteration
from .problem import Inputs, RootProblem
from .verdict import SLOW, Rule, View, norm, tolerance


class MarquardtState(NamedTuple):
    """Accepted z, F(z), J(z), the error and its first value; damping μ and its growth ν; the next step, and whether
    it is a nudge; the undamped correction's length, and whether that shrinks only as at a multiple root; a better
    point; singular flags and LU, where J is square."""

    z: Tensor
    f: Tensor
    jacobian: Tensor
    error: Tensor
    first: Tensor
    mu: Tensor
    nu: Tensor
    direction: Tensor
    nudge: Tensor
    correction: Tensor
    slow: Tensor
    polished: Tensor
    singular: Tensor
    lu: Tensor
    pivots: Tensor


@dataclass(frozen=True)
class LevenbergMarquardt(Iteration):
    """z ← z + h with (JᵀJ + λ D) h = -JᵀF, D = diag(JᵀJ), λ = μ·min(1, ‖F‖/‖F(z0)‖), μ by the gain ratio (Nielsen).

    F maps (B, n) to (B, m). For m ≤ n a solution has F = 0. For m > n it is a stationary point of ‖F‖²: the error then
    is ‖diag(JᵀJ)^(-1/2) JᵀF‖, the size of F along the columns of J, which stays large where F only flattens out.
    Each row has its own λ; the steps come from a QR of [J; √(λD)], which does not square the condition of J. Where
    JᵀF = 0 but F ≠ 0 (a singular start), z is nudged by √eps off the stationary point. Converges quadratically where
    J has full rank, and to sets of roots; by halving at multiple ones. On convergence the undamped step is taken too,
    and the LU is kept (m = n). Cost an iteration: one F, one J and 2 n²(m + 2n/3) flops a row. Source: Moré (1978);
    Nielsen (1999) for μ; Fan & Yuan (2005) for the factor ‖F‖.
    """

    tol: float | None = None
    max_iter: int = 200

    def rule(self, n: int, dtype: torch.dtype) -> Rule:
        return Rule(tolerance(self.tol, dtype), 1, 32, self.max_iter)

    def init(self, problem: RootProblem, z0: Tensor, a: Inputs) -> MarquardtState:
        z = problem.clip(z0)
        f = problem.F(z, a)
        jacobian = _jacobian(problem, z, a)
        error = _error(jacobian, f, z.shape[-1])
        one = torch.ones_like(error)
        return self._aim(problem, z, f, jacobian, error, error, 1e-3 * one, 2 * one, 0 * one)

    def step(self, problem: RootProblem, a: Inputs, state: MarquardtState) -> MarquardtState:
        z = problem.clip(state.z + state.direction)
        f = problem.F(z, a)
        jacobian = _jacobian(problem, z, a)
        error = _error(jacobian, f, z.shape[-1])
        change = _product(state.jacobian, z - state.z)
        predicted = -((2 * state.f + change) * change).sum(-1)
        gained = ((state.f - f) * (state.f + f)).sum(-1)
        gain = gained / predicted.abs().clamp_min(torch.finfo(f.dtype).tiny)
        # once ‖F‖² changes by its rounding only, the gradient alone can tell a better point
        lost = gained.abs() <= 64 * torch.finfo(f.dtype).eps * state.f.square().sum(-1)
        good = (gain > 1e-4) | (lost & (error < state.error)) | (state.nudge & error.isfinite())
        taken = good & f.isfinite().all(-1) & jacobian.flatten(1).isfinite().all(-1)
        ratio = torch.where(lost | state.nudge, 1.0, gain)
        eased = state.mu * (1 - (2 * ratio - 1) ** 3).clamp(1 / 3, 2)
        # F grew by a square law, so this damping would have held it: h shrinks by about 1 + λ
        burst = (norm(f) / norm(state.f)).sqrt().nan_to_num(0.0, 0.0) / (state.error / state.first).clamp_max(1.0)
        raised = torch.maximum(state.mu * state.nu, torch.where(burst > 2, burst, 0.0))
        row = taken.unsqueeze(-1)
        return self._aim(
            problem,
            torch.where(row, z, state.z),
            torch.where(row, f, state.f),
            torch.where(row if problem.diagonal else row.unsqueeze(-1), jacobian, state.jacobian),
            torch.where(taken, error, state.error),
            state.first,
            torch.where(taken, eased, raised),
            torch.where(taken, 2.0, 2 * state.nu),
            torch.where(taken, SLOW * state.correction, torch.where(state.slow, 0.0, torch.inf)),
        )

    def view(self, state: MarquardtState) -> View:
        square = state.lu.shape[-1] > 0
        factor = Factor(state.lu, state.pivots if state.lu.ndim == 3 else None) if square else None
        if not square:
            return View(state.z, state.error, polished=state.polished)
        return View(state.z, state.error, state.correction, state.polished, state.singular, factor, slow=state.slow)

    def _aim(
        self,
        problem: RootProblem,
        z: Tensor,
        f: Tensor,
        jacobian: Tensor,
        error: Tensor,
        first: Tensor,
        mu: Tensor,
        nu: Tensor,
        due: Tensor,
    ) -> MarquardtState:
        """The next step from z; slow where the undamped one is not shorter than `due`."""
        eps, n, m = torch.finfo(z.dtype).eps, z.shape[-1], f.shape[-1]
        mu = mu.clamp(eps, 1 / torch.finfo(z.dtype).tiny ** 0.25)
        nu = nu.clamp_max(2.0**16)
        # the floor keeps the null directions of J quiet: rounding in them is amplified by 1/√λ
        damping = (mu * (error / first).clamp_max(1.0)).clamp_min(eps**1.5)
        direction = _damped(jacobian, f, damping)
        lu, pivots = z.new_empty(z.shape[0], 0), torch.zeros_like(error, dtype=torch.int32)
        singular = torch.zeros_like(error, dtype=torch.bool)
        polished = z + direction
        correction = torch.full_like(error, torch.inf)
        if n == m:
            factor = factorise(jacobian, problem.diagonal)
            # compiled loops want no two fields to share their memory
            lu, singular = factor.lu if factor.pivots is not None else factor.lu.clone(), factor.is_singular()
            pivots = pivots if factor.pivots is None else factor.pivots
            undamped = factor.solve(f).neg()
            usable = ~singular & undamped.isfinite().all(-1)
            correction = torch.where(usable, norm(undamped), correction)
            polished = torch.where(usable.unsqueeze(-1), z + undamped, polished)
            cap = torch.where(singular, (norm(z).clamp_min(1.0) / norm(direction)).clamp_max(1.0), 1.0)
            direction = direction * cap.unsqueeze(-1)
        nudge = torch.zeros_like(singular)
        if m <= n:
            flat = _along(jacobian, f) <= 16 * eps * norm(f)
            nudge = flat & (norm(f) > 0)
            pattern = torch.cos(torch.arange(n, dtype=z.dtype, device=z.device))
            away = pattern * (eps**0.5 * norm(z).clamp_min(1.0)).unsqueeze(-1)
            direction = torch.where(nudge.unsqueeze(-1), away, direction)
        slow = correction >= due
        return MarquardtState(
            z,
            f,
            jacobian,
            error,
            first,
            mu,
            nu,
            direction,
            nudge,
            correction,
            slow,
            polished,
            singular,
            lu,
            pivots,
        )


def _jacobian(problem: RootProblem, z: Tensor, a: Inputs) -> Tensor:
    """J with its batch dimension, (B, m, n), or its diagonal (B, n)."""
    jacobian = problem.J(z, a)
    if jacobian.ndim == (1 if problem.diagonal else 2):
        jacobian = jacobian.expand(z.shape[0], *jacobian.shape)
    return jacobian


def _product(jacobian: Tensor, v: Tensor) -> Tensor:
    """J v for each row; J may be a diagonal (B, n)."""
    return jacobian * v if jacobian.ndim == 2 else torch.bmm(jacobian, v.unsqueeze(-1)).squeeze(-1)


def _along(jacobian: Tensor, f: Tensor) -> Tensor:
    """The size of F along the columns of J, ‖diag(JᵀJ)^(-1/2) JᵀF‖, (B,); columns of zeros count as orthogonal."""
    if jacobian.ndim == 2:
        return norm(torch.where(jacobian == 0, 0.0, f))
    length = norm(jacobian.mT)
    gradient = torch.bmm(jacobian.mT, f.unsqueeze(-1)).squeeze(-1)
    return norm(torch.where(length == 0, 0.0, gradient / length))


def _error(jacobian: Tensor, f: Tensor, n: int) -> Tensor:
    """‖F‖, or what of it the columns of J see if there are more of the equations; all of it where J vanishes."""
    if f.shape[-1] <= n:
        return norm(f)
    return torch.where((jacobian == 0).flatten(1).all(-1), norm(f), _along(jacobian, f))


def _damped(jacobian: Tensor, f: Tensor, damping: Tensor) -> Tensor:
    """h = -(JᵀJ + λD)⁻¹ JᵀF."""
    if jacobian.ndim == 2:
        square = jacobian.square()
        return torch.where(square > 0, -f / (jacobian * (1 + damping.unsqueeze(-1))), 0.0)
    length = norm(jacobian.mT)
    longest = length.amax(-1, keepdim=True)
    # a column that is (nearly) zero takes the scale of the others
    scale = torch.maximum(length, torch.finfo(f.dtype).eps ** 0.5 * longest)
    scale = torch.where(longest > 0, scale, 1.0) * damping.sqrt().unsqueeze(-1)
    stacked = torch.cat((jacobian, torch.diag_embed(scale)), 1)
    q, r = torch.linalg.qr(stacked)
    right = torch.bmm(q[:, : f.shape[-1]].mT, f.unsqueeze(-1))
    return torch.linalg.solve_triangular(r, right, upper=True).squeeze(-1).neg()
