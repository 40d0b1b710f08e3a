"""Affine equations: one LU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .factor import factorise
from .loop import Solver
from .problem import Inputs, RootProblem
from .verdict import CONVERGED, NOT_FINITE, SINGULAR, STALLED, Solved, norm, tolerance


@dataclass(frozen=True)
class Direct(Solver):
    """z = z0 - J⁻¹ F(z0) for F affine in z, then one step of iterative refinement. No spectral radius matters.

    Cost: one factorisation, 2/3 n³ (once for the batch where J is shared), 4 n² a row, three evaluations of F. A
    singular J ends as SINGULAR whether or not a solution exists; a residual above 10 n·tol after refinement, which
    means that F is not affine, as STALLED.
    """

    tol: float | None = None
    max_iter: int = 1

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        f0 = problem.F(z0, a)
        factor = factorise(problem.J(z0, a), problem.diagonal)
        singular = factor.is_singular()
        z = z0 - factor.solve(f0)
        f = problem.F(z, a)
        z = z - factor.solve(f)
        error = norm(problem.F(z, a))
        singular = singular.expand_as(error)
        z = torch.where(singular.unsqueeze(-1) & ~z.isfinite(), z0, z)
        tol = 10 * z.shape[-1] * tolerance(self.tol, z.dtype)
        done = error <= tol * torch.maximum(torch.maximum(norm(z), norm(z0)), norm(f0))
        status = torch.where(done, CONVERGED, STALLED)
        status = torch.where(singular, SINGULAR, status)
        status = torch.where(norm(f0).isfinite(), status, NOT_FINITE)
        once = torch.ones_like(status)
        return Solved(z, status, once, error, 3 * once, factor)
