"""Affine equations: one LU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .factor import Factor, factorise
from .host import LARGE, SMALL, extent
from .loop import Solver
from .problem import Inputs, RootProblem
from .verdict import CONVERGED, NOT_FINITE, SINGULAR, STALLED, Solved, norm, tolerance

if TYPE_CHECKING:
    from .schur import SchurFactor

EXACT = 8
"""Residuals of so many rounding errors are those of the right solution: refinement would gain nothing."""


@dataclass(frozen=True)
class Direct(Solver):
    """z = z0 - J⁻¹ F(z0) for F affine in z, then one step of iterative refinement, eagerly only where a residual is
    above `EXACT` rounding errors. No spectral radius matters.

    Cost: one factorisation, 2/3 n³ (once for the batch where J is shared), 2 n² a row and one F (two where no
    `constant` is known), and as much again for the refinement. Where J is singular, lost pivots are replaced
    (`Factor.perturbed`): a row that has a solution all the same ends as SINGULAR, one that has none as STALLED at z0. A
    residual above 10 n·tol after refinement, which means that F is not affine, is STALLED too.
    """

    tol: float | None = None
    max_iter: int = 1

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        factor = factorise(problem.J(z0, a), problem.diagonal)
        return solve_affine(problem, z0, a, factor, self.tol, z0.shape[-1])


def solve_affine(
    problem: RootProblem, z0: Tensor, a: Inputs, factor: Factor | SchurFactor, tol: float | None, n: int
) -> Solved:
    """z = z0 - J⁻¹ F(z0), refined once where needed, with its verdicts: see `Direct`. `n`: the length of its sums.

    (Where J is regular and `constant` known, z = J⁻¹ constant: a start has nothing to say.)
    """
    usable = factor
    regular = not torch.compiler.is_compiling() and factor.regular()
    if regular and problem.constant is not None:  # F(z0) = -constant at z0 = 0
        f0 = problem.constant(*a)
        f0 = f0 if f0.shape == z0.shape else f0.expand_as(z0)
        z, nfe = usable.solve(f0).clone(memory_format=torch.contiguous_format), 1  # results must be no views
    else:
        f0 = problem.F(z0, a)
        if not regular:
            size = torch.linalg.vector_norm(f0) if factor.shared else norm(f0)
            usable = factor.perturbed(torch.where(size > 0, size, 1.0))
        z, nfe = z0 - usable.solve(f0), 2
    f = problem.F(z, a)
    if regular and (error := _rounding(z, f0, f)) is not None:
        status = torch.zeros_like(error, dtype=torch.int64)
        once = torch.ones_like(status)
        return Solved(z, status, once, error, once if nfe == 1 else 2 * once, factor, whole=status)
    z = z - usable.solve(f)
    error = norm(problem.F(z, a))
    singular = factor.is_singular().expand_as(error)
    # along a lost direction z may be of any length, which must not make a residual relatively small
    scale = torch.maximum(norm(z0), norm(f0))
    done = error <= 10 * n * tolerance(tol, z.dtype) * torch.where(singular, scale, torch.maximum(scale, norm(z)))
    status = torch.where(done, torch.where(singular, SINGULAR, CONVERGED), STALLED)
    status = torch.where(norm(f0).isfinite(), status, NOT_FINITE)
    lost = singular & ~done
    z = torch.where(lost.unsqueeze(-1), z0, z)
    error = torch.where(lost, norm(f0), error)
    once = torch.ones_like(status)
    return Solved(z, status, once, error, (nfe + 1) * once, factor)


def _rounding(z: Tensor, f0: Tensor, f: Tensor) -> Tensor | None:
    """‖f‖ (B,) where every row of it is `EXACT` rounding errors of z and f0, else None. Syncs."""
    # float32 sums of squares serve where none of them vanishes beside EXACT·eps, or overflows
    bound = EXACT * torch.finfo(z.dtype).eps
    error = torch.linalg.vector_norm(f, dim=-1)
    least, largest = extent(torch.linalg.vector_norm(z, dim=-1))
    if least > SMALL and largest < LARGE and extent(error)[1] <= bound * least:
        return error
    error = norm(f)
    return error if bool((error <= bound * torch.maximum(norm(z), norm(f0))).all()) else None
