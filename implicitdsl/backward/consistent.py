"""Linear systems of optimality conditions that may be singular: redundant constraints, unknowns that nothing needs."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..solvers.optimum.quadratic import times
from ..solvers.optimum.regular import equilibrium, regular, scaled
from ..solvers.problem import Unique
from .constant import constant_factor
from .failure import Failures
from .linear_solve import linear_solve, reported

LOST = 1e-6
"""What may be left of a right side where the matrix is singular."""


def consistent_solve(J: Tensor, b: Tensor, of: Unique, transposed: bool, failures: Failures) -> Tensor:
    """x with J x = b, or Jᵀ x = b, for b (B, N) and J (B, N, N), see `regular`.

    Where J is singular and b in its range, x is one of the solutions, nearly the shortest; other samples get zero and
    are reported (IMP802), and so are derivatives x of multipliers that are asked for and not unique. Differentiable to
    any order in every mode of torch.func. Cost 2/3 N³ a sample.
    """
    d = equilibrium(J.detach())
    J, b = scaled(J, d).expand(b.shape[0], *J.shape[-2:]), b * d
    factor, singular = constant_factor(partial(regular, unknowns=of.unknowns, equations=of.equations), J.detach())
    x = linear_solve(J, b, transposed=transposed, factor=factor)
    with torch.no_grad():
        rest = b - times(J.mT if transposed else J, x)
        missing = singular
        if transposed or not of.duals:
            missing = singular & ~(rest.norm(dim=-1) <= LOST * b.norm(dim=-1))
    return torch.where(reported(missing, failures).unsqueeze(-1), 0.0, x * d)
