"""Newton's method with a Jacobian that is kept as long as it serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .factor import Factor, factorise
from .loop import Iteration
from .newton import descent
from .problem import Inputs, RootProblem
from .verdict import Rule, View, norm, tolerance

_SHORTEST = 2.0**-8


class ChordState(NamedTuple):
    """Accepted point z with F(z), its norm, the direction, the trial length, whether the factor belongs to z (B,)."""

    z: Tensor
    f: Tensor
    error: Tensor
    direction: Tensor
    length: Tensor
    fresh: Tensor
    singular: Tensor
    lu: Tensor
    pivots: Tensor


@dataclass(frozen=True)
class Chord(Iteration):
    """z ← z - t·J₀⁻¹ F(z) with the factor J₀ of an earlier iterate.

    A row factors its Jacobian again, at the point where it stands, when a step fails to halve ‖F‖; with a new factor a
    step that does not reduce ‖F‖ is halved as in `Newton`. Converges linearly, with a rate below 1/2. Cost a step: one
    F and 2 n² a row; a new factor costs one J and 2/3 n³ for the rows that need it (for all rows in compiled loops).
    Source: Kelley (1995), section 5.4.
    """

    tol: float | None = None
    max_iter: int = 500

    def rule(self, n: int, dtype: torch.dtype) -> Rule:
        return Rule(tolerance(self.tol, dtype), 1, 32, self.max_iter, quadratic=False)

    def init(self, problem: RootProblem, z0: Tensor, a: Inputs) -> ChordState:
        z = problem.clip(z0)
        f = problem.F(z, a)
        error = norm(f)
        lu, pivots = _factored(problem, z, a)
        return _aimed(z, f, error, torch.ones_like(error), torch.ones_like(error, dtype=torch.bool), lu, pivots)

    def step(self, problem: RootProblem, a: Inputs, state: ChordState) -> ChordState:
        trial = problem.clip(torch.addcmul(state.z, state.length.unsqueeze(-1), state.direction))
        f = problem.F(trial, a)
        error = norm(f)
        size = state.length.abs()
        taken = (error <= (1 - 1e-4 * size) * state.error) | ((size <= _SHORTEST) & error.isfinite())
        swift = error <= 0.5 * state.error
        renew = torch.where(taken, ~swift | state.singular, ~state.fresh)
        rows = taken.unsqueeze(-1)
        z, f = torch.where(rows, trial, state.z), torch.where(rows, f, state.f)
        error = torch.where(taken, error, state.error)
        shorter = torch.where(state.singular, -0.5 * state.length, 0.5 * state.length)
        length = torch.where(taken | renew, 1.0, shorter)
        lu, pivots = _renewed(problem, z, a, renew, state.lu, state.pivots)
        return _aimed(z, f, error, length, renew | (state.fresh & ~taken), lu, pivots)

    def view(self, state: ChordState) -> View:
        # the factor is not handed on: one step of refinement would not make up for its age
        return View(state.z, state.error, norm(state.direction), state.z + state.direction, state.singular)


def _aimed(
    z: Tensor, f: Tensor, error: Tensor, length: Tensor, fresh: Tensor, lu: Tensor, pivots: Tensor
) -> ChordState:
    direction, singular = descent(Factor(lu, pivots if lu.ndim == 3 else None), z, f, error)
    return ChordState(z, f, error, direction, length, fresh, singular, lu, pivots)


def _factored(problem: RootProblem, z: Tensor, a: Inputs) -> tuple[Tensor, Tensor]:
    jacobian = problem.J(z, a)
    if jacobian.ndim == (1 if problem.diagonal else 2):
        jacobian = jacobian.expand(z.shape[0], *jacobian.shape)
    lu, pivots = factorise(jacobian, problem.diagonal)
    return lu, pivots if pivots is not None else torch.zeros(z.shape[0], dtype=torch.int32, device=z.device)


def _renewed(
    problem: RootProblem, z: Tensor, a: Inputs, renew: Tensor, lu: Tensor, pivots: Tensor
) -> tuple[Tensor, Tensor]:
    if torch.compiler.is_compiling():
        new_lu, new_pivots = _factored(problem, z, a)
        rows = renew.view(-1, *(1,) * (lu.ndim - 1))
        return torch.where(rows, new_lu, lu), torch.where(renew.view(-1, *(1,) * (pivots.ndim - 1)), new_pivots, pivots)
    rows = renew.nonzero().view(-1)
    if len(rows) == 0:
        return lu, pivots
    new_lu, new_pivots = _factored(problem, z.index_select(0, rows), problem.take(a, rows))
    return lu.index_copy(0, rows, new_lu), pivots.index_copy(0, rows, new_pivots)
