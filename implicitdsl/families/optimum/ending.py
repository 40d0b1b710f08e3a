"""Newton steps on optimality conditions after a method that minimises, as long as they help: exact to rounding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from implicitdsl.solvers.problem import Inputs, RootProblem
from implicitdsl.solvers.verdict import norm

EXACT, ROUNDING, STEPS, NEAR = 1e-14, 1e-11, 12, 0.1
"""Optimality conditions that are met to the first need no further step, to the second none that does not help; so many
steps are taken at most, no farther than the last, relative to the point."""


def finished(
    problem: RootProblem, first: Tensor, a: Inputs, open_: Tensor, step: Callable[[Tensor, Tensor], Tensor], n: int
) -> tuple[Tensor, Tensor]:
    """The best of some Newton steps from `first` (B, N) in the rows `open_`, and ‖F‖ there (B,).

    `step` (state, F) -> ∂F⁻¹ F; it must stay near in the first n entries: far away there may be another stationary
    point, of another kind. Cost: one step and one F each.
    """
    state, trial, F = first, first, problem.F(first, a)
    error = norm(F)
    open_ = open_ & (error > EXACT)
    room = NEAR * (1 + first[:, :n].abs().amax(-1))
    for _ in range(STEPS):
        if not bool(open_.any()):
            break
        # also where the residual grows at first: the active set of s = λ = √μ is open until a step decides it
        trial = torch.where(open_.unsqueeze(-1), trial - step(trial, F), trial)
        F = problem.F(trial, a)
        after = norm(F)
        near = (trial - first)[:, :n].abs().amax(-1) <= room
        helps = open_ & near & (after < error)
        state, error = torch.where(helps.unsqueeze(-1), trial, state), torch.where(helps, after, error)
        open_ = open_ & (after > EXACT) & near & (helps | (error > ROUNDING))
    return state, error
