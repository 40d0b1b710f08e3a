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

    Cost: one factorisation, 2/3 n³ (once for the batch where J is shared), 4 n² a row, three evaluations of F. Where J
    is singular, lost pivots are replaced (`Factor.perturbed`): a row that has a solution all the same ends as SINGULAR,
    one that has none as STALLED at z0. A residual above 10 n·tol after refinement, which means that F is not affine,
    is STALLED too.
    """

    tol: float | None = None
    max_iter: int = 1

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        f0 = problem.F(z0, a)
        factor = factorise(problem.J(z0, a), problem.diagonal)
        singular = factor.is_singular()
        usable = factor
        if torch.compiler.is_compiling() or bool(singular.any()):
            size = torch.linalg.vector_norm(f0) if factor.shared else norm(f0)
            usable = factor.perturbed(torch.where(size > 0, size, 1.0))
        z = z0 - usable.solve(f0)
        z = z - usable.solve(problem.F(z, a))
        error = norm(problem.F(z, a))
        singular = singular.expand_as(error)
        tol = 10 * z.shape[-1] * tolerance(self.tol, z.dtype)
        # along a lost direction z may be of any length, which must not make a residual relatively small
        scale = torch.maximum(norm(z0), norm(f0))
        done = error <= tol * torch.where(singular, scale, torch.maximum(scale, norm(z)))
        status = torch.where(done, torch.where(singular, SINGULAR, CONVERGED), STALLED)
        status = torch.where(norm(f0).isfinite(), status, NOT_FINITE)
        lost = singular & ~done
        z = torch.where(lost.unsqueeze(-1), z0, z)
        error = torch.where(lost, norm(f0), error)
        once = torch.ones_like(status)
        return Solved(z, status, once, error, 3 * once, factor)
