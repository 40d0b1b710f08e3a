"""Newton steps on optimality conditions after a method that minimises, as long as they help: exact to rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from implicitdsl.solvers.host import array, chosen
from implicitdsl.solvers.optimum.quadratic import peak, times
from implicitdsl.solvers.problem import Inputs, RootProblem
from implicitdsl.solvers.verdict import norm

EXACT, ROUNDING, STEPS, NEAR = 1e-14, 1e-11, 12, 0.1
"""Optimality conditions that are met to the first need no further step, to the second none that does not help, nor is
one taken after a step so short; so many are taken at most, no farther than the last, relative to the point."""
MET = 1e-9
"""Optimality conditions are met to this, relative to the terms of each."""


SURE, SHARP, FLOOR = 1e-7, 1e-9, 1e-5
"""A point is where the conditions hold if a Newton step from there is so short relative to it, or to `FLOOR` if that is
more: unlike a residual, which has units, that says how far off it is. No other step is needed from the second on."""


class Ended(NamedTuple):
    """A state (B, N) and ‖F‖ there (B,); `doubtful` where a Newton step says that it is still far from a solution."""

    state: Tensor
    error: Tensor
    doubtful: Tensor


@np.errstate(all="ignore")
def finished(
    problem: RootProblem,
    first: Tensor,
    a: Inputs,
    open_: Tensor,
    step: Callable[[Tensor, Tensor], Tensor],
    n: int,
    F: Tensor | None = None,
    floor: float = FLOOR,
) -> Ended:
    """The best of some Newton steps from `first` (B, N) in the rows `open_`; `F` at `first`, where it is at hand, and
    the size `floor` below which points are not told from zero.

    `step` (state, F) -> ∂F⁻¹ F; it must stay near in the first n entries: far away there may be another stationary
    point, of another kind. Cost: one step and one F each. What concerns whole samples is kept by the host.
    """
    state, trial, F = first, first, problem.F(first, a) if F is None else F
    error = array(norm(F))
    left = array(open_) & (error > 0)
    room = NEAR * (1 + array(first[:, :n].abs().amax(-1))) if left.any() else error
    off, here = np.full_like(error, np.nan), left
    for _ in range(STEPS):
        if not left.any():
            break
        # also where the residual grows at first: the active set of s = λ = √μ is open until a step decides it
        d = step(trial, F)
        trial = chosen(left, trial - d, trial)
        F = problem.F(trial, a)
        after = array(norm(F))
        near = array((trial - first)[:, :n].abs().amax(-1)) <= room
        helps = left & near & (after < error)
        length = array(peak(d[:, :n])) / (array(peak(trial[:, :n])) + floor)
        ahead = length * np.maximum(after / error, length)  # F falls as the steps do, or faster where terms differ
        off = np.where(helps, ahead, np.where(here & left, np.fmin(off, length), off))
        state, error, here = chosen(helps, trial, state), np.where(helps, after, error), helps
        going = helps | ((error > ROUNDING) & ~(length <= ROUNDING))
        left = left & ((after > EXACT) | (off > SHARP)) & near & going
    doubtful = torch.from_numpy(off > SURE).to(first.device)
    return Ended(state, torch.from_numpy(error).to(first.device), doubtful)


def met(problem: RootProblem, state: Tensor, a: Inputs, n: int, off: Tensor | None = None) -> Tensor:
    """Whether each equation of stationarity holds relative to its own terms, for at the end of a function's domain one
    alone may be infinite, and the constraints relative to the point, (B,). `n` unknowns, then multipliers; `off`: by
    how much constraints and complementarity are missed, if not by the conditions themselves."""
    F, J = problem.F(state, a), problem.J(state, a)
    terms = times(J[:, :n, n:].abs(), state[:, n:].abs())
    even = (F[:, :n].abs() <= MET * (1 + terms)).all(-1)
    return even & (peak(F[:, n:] if off is None else off) <= MET * (1 + peak(state[:, :n])))
