"""Newton steps on optimality conditions after a method that minimises, as long as they help: exact to rounding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from implicitdsl.solvers.host import array, chosen
from implicitdsl.solvers.optimum.quadratic import peak, times
from implicitdsl.solvers.problem import Inputs, RootProblem
from implicitdsl.solvers.verdict import norm

EXACT, ROUNDING, STEPS, NEAR = 1e-14, 1e-11, 12, 0.1
"""Optimality conditions that are met to the first need no further step, to the second none that does not help; so many
steps are taken at most, no farther than the last, relative to the point."""
MET = 1e-9
"""Optimality conditions are met to this, relative to the terms of each."""


@np.errstate(over="ignore", invalid="ignore")
def finished(
    problem: RootProblem,
    first: Tensor,
    a: Inputs,
    open_: Tensor,
    step: Callable[[Tensor, Tensor], Tensor],
    n: int,
    F: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The best of some Newton steps from `first` (B, N) in the rows `open_`, and ‖F‖ there (B,); `F` at `first`, where
    it is at hand.

    `step` (state, F) -> ∂F⁻¹ F; it must stay near in the first n entries: far away there may be another stationary
    point, of another kind. Cost: one step and one F each. What concerns whole samples is kept by the host.
    """
    state, trial, F = first, first, problem.F(first, a) if F is None else F
    error = array(norm(F))
    left = array(open_) & (error > EXACT)
    room = NEAR * (1 + array(first[:, :n].abs().amax(-1))) if left.any() else error
    for _ in range(STEPS):
        if not left.any():
            break
        # also where the residual grows at first: the active set of s = λ = √μ is open until a step decides it
        trial = chosen(left, trial - step(trial, F), trial)
        F = problem.F(trial, a)
        after = array(norm(F))
        near = array((trial - first)[:, :n].abs().amax(-1)) <= room
        helps = left & near & (after < error)
        state, error = chosen(helps, trial, state), np.where(helps, after, error)
        left = left & (after > EXACT) & near & (helps | (error > ROUNDING))
    return state, torch.from_numpy(error).to(first.device)


def met(problem: RootProblem, state: Tensor, a: Inputs, n: int, off: Tensor | None = None) -> Tensor:
    """Whether each equation of stationarity holds relative to its own terms, for at the end of a function's domain one
    alone may be infinite, and the constraints relative to the point, (B,). `n` unknowns, then multipliers; `off`: by
    how much constraints and complementarity are missed, if not by the conditions themselves."""
    F, J = problem.F(state, a), problem.J(state, a)
    terms = times(J[:, :n, n:].abs(), state[:, n:].abs())
    even = (F[:, :n].abs() <= MET * (1 + terms)).all(-1)
    return even & (peak(F[:, n:] if off is None else off) <= MET * (1 + peak(state[:, :n])))
