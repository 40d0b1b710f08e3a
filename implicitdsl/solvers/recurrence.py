"""Solvers that update the residual by a recurrence: what they return is measured once more, and corrected."""

from __future__ import annotations

import torch
from torch import Tensor

from .loop import Iteration, run
from .problem import Inputs, RootProblem
from .verdict import STALLED, Solved, norm

CORRECTIONS = 2
"""How often a row whose residual drifted is solved again from where it stands (iterative refinement)."""


def measured(method: Iteration, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
    """`run`, with the residual of each row measured at the end; rows that are not solved after all end as STALLED.

    In floating point the recurrence r ← r - α A p goes on falling when b - A z no longer does, above all from a start
    far away, whose rounding stays in z. Cost: one product more. Source: Greenbaum (1997).
    """
    solved = run(method, problem, z0, a)
    drifted, residual = _drifted(method, problem, solved, a)
    if not torch.compiler.is_compiling():
        for _ in range(CORRECTIONS):
            rows = drifted.nonzero().view(-1)
            if not len(rows):
                break
            more = run(method, problem, solved.z.index_select(0, rows), problem.take(a, rows))
            fields = (f.index_copy(0, rows, m) for f, m in zip(solved[:5], more[:5], strict=True))
            solved = solved._replace(**dict(zip(Solved._fields, fields, strict=False)))
            drifted, residual = _drifted(method, problem, solved, a)
    return solved._replace(status=torch.where(drifted, STALLED, solved.status), residual=residual)


def _drifted(method: Iteration, problem: RootProblem, solved: Solved, a: Inputs) -> tuple[Tensor, Tensor]:
    z, here = solved.z, problem.at(a)
    residual = norm(here.F(z, a))
    tol = 8 * max(method.rule(z.shape[-1], z.dtype).tol, problem.precision, 32 * torch.finfo(z.dtype).eps)
    drifted = solved.converged & ~(residual <= tol * norm(z))
    if torch.compiler.is_compiling() or bool(drifted.any()):
        drifted = drifted & ~(residual <= tol * norm(here.F(torch.zeros_like(z), a)))
    return drifted, residual
