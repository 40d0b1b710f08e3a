"""Newton's method with a batched LU, an Armijo line search and a way out of singular Jacobians."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .factor import Factor, factorise
from .loop import Iteration
from .problem import Inputs, RootProblem
from .verdict import SLOW, Rule, View, norm, tolerance

_SHORTEST = 2.0**-8


class NewtonState(NamedTuple):
    """Accepted point z with F(z), its norm, the Newton direction and its length, whether that shrinks only as at a
    multiple root, the trial length (B,), singular flags and the LU."""

    z: Tensor
    f: Tensor
    error: Tensor
    direction: Tensor
    correction: Tensor
    slow: Tensor
    length: Tensor
    singular: Tensor
    lu: Tensor
    pivots: Tensor


@dataclass(frozen=True)
class Newton(Iteration):
    """z ← z - t·J(z)⁻¹ F(z), the length t halved until ‖F‖ falls (Armijo, constant 1e-4).

    Each row searches by itself: one iteration tries one length in every row. A singular J gets its lost pivots replaced
    (`Factor.perturbed`), the step is then bounded by max(1, ‖z‖) and tried in both directions. Converges quadratically
    at simple roots, by halving at multiple ones, which are reported as SINGULAR. On convergence the last step has been
    computed already and is taken too (polish), and the factor at the last tested point is kept. Cost an iteration: one
    F, one J and 2/3 n³ a row. Source: Dennis & Schnabel (1983), algorithm A6.3.1.
    """

    tol: float | None = None
    max_iter: int = 100
    line_search: bool = True

    def rule(self, n: int, dtype: torch.dtype) -> Rule:
        return Rule(tolerance(self.tol, dtype), 1, 24, self.max_iter)

    def init(self, problem: RootProblem, z0: Tensor, a: Inputs) -> NewtonState:
        z = problem.clip(z0)
        f = problem.F(z, a)
        error = norm(f)
        return self._aim(problem, a, z, f, error, torch.zeros_like(error), torch.ones_like(error))

    def step(self, problem: RootProblem, a: Inputs, state: NewtonState) -> NewtonState:
        z = problem.clip(torch.addcmul(state.z, state.length.unsqueeze(-1), state.direction))
        f = problem.F(z, a)
        error = norm(f)
        if not self.line_search:
            return self._aim(problem, a, z, f, error, SLOW * state.correction, torch.ones_like(error))
        size = state.length.abs()
        taken = (error <= (1 - 1e-4 * size) * state.error) | ((size <= _SHORTEST) & error.isfinite())
        rows = taken.unsqueeze(-1)
        shorter = torch.where(state.singular, -0.5 * state.length, 0.5 * state.length)
        return self._aim(
            problem,
            a,
            torch.where(rows, z, state.z),
            torch.where(rows, f, state.f),
            torch.where(taken, error, state.error),
            torch.where(taken, (1 - (1 - SLOW) * size) * state.correction, torch.where(state.slow, 0.0, torch.inf)),
            torch.where(taken, 1.0, shorter),
        )

    def view(self, state: NewtonState) -> View:
        factor = Factor(state.lu, state.pivots if state.lu.ndim == 3 else None)
        polished = state.z + state.direction
        return View(state.z, state.error, state.correction, polished, state.singular, factor, slow=state.slow)

    def _aim(
        self, problem: RootProblem, a: Inputs, z: Tensor, f: Tensor, error: Tensor, due: Tensor, length: Tensor
    ) -> NewtonState:
        """The next step from z; slow where it is not shorter than `due`."""
        jacobian = problem.J(z, a)
        if jacobian.ndim == (1 if problem.diagonal else 2):
            jacobian = jacobian.expand(z.shape[0], *jacobian.shape)
        factor = factorise(jacobian, problem.diagonal)
        direction, singular = descent(factor, z, f, error)
        correction = norm(direction)
        pivots = factor.pivots if factor.pivots is not None else torch.zeros_like(error, dtype=torch.int32)
        slow = correction >= due
        return NewtonState(z, f, error, direction, correction, slow, length, singular, factor.lu, pivots)


def descent(factor: Factor, z: Tensor, f: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """The step -J⁻¹ f, and where J is singular (B,).

    In singular rows lost pivots are replaced (`Factor.perturbed`) and the step is at most max(1, ‖z‖) long.
    """
    singular = factor.is_singular().expand_as(error)
    if not torch.compiler.is_compiling() and not bool(singular.any()):
        return factor.solve(f).neg(), singular
    reach = norm(z).clamp_min(1.0)
    direction = factor.perturbed(error / reach).solve(f).neg()
    cap = torch.where(singular, (reach / norm(direction)).clamp_max(1.0), 1.0)
    return direction * cap.unsqueeze(-1), singular
