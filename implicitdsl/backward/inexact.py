"""Backward rules that differentiate a few steps instead of the solution: cheaper, and not exact."""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..solvers.loop import Solver
from ..solvers.problem import Inputs, RootProblem
from ..solvers.verdict import CONVERGED, MAX_ITERATIONS, NOT_FINITE, Solved, norm, tolerance
from .failure import Failures, report_unsolved
from .implicit import implicit_solve


@dataclass(frozen=True)
class Phantom:
    """`steps` steps z ← z + damping·(G(z) - z) from the detached solution, differentiated.

    Gradient: damping·Σ_{k<steps} ((1 - damping) I + damping·∂G/∂z)ᵏᵀ in place of (I - ∂G/∂z)⁻ᵀ. With damping 1 it is
    the Neumann series of `steps` terms; one such step is the Jacobian-free backward. Cost: `steps` evaluations of G,
    kept for the backward pass. Source: Geng et al. (2021); Fung et al. (2021).
    """

    steps: int = 5
    damping: float = 0.5

    def solve(
        self, problem: RootProblem, solver: Solver, z0: Tensor, a: Inputs, failures: Failures
    ) -> tuple[Tensor, Solved]:
        """The solution with this derivative, and the report of its solve."""
        constants = tuple(held(x) for x in a)
        z, solved = implicit_solve(problem, solver, z0, constants, failures=failures)
        z = held(z)
        for _ in range(self.steps):
            z = torch.lerp(z, problem.G(z, a), self.damping)
        # the steps move the value only by what the solver left: it keeps the accuracy that was asked for
        return z, solved


@dataclass(frozen=True)
class Unrolled:
    """`steps` steps z ← G(z) from the start, all of them differentiated: the exact gradient of the last iterate.

    Cost: `steps` evaluations of G kept for the backward pass. No other solver runs; a sample whose residual misses the
    tolerance after the last step counts as not converged.
    """

    steps: int = 50
    tol: float | None = None

    def solve(
        self, problem: RootProblem, solver: Solver, z0: Tensor, a: Inputs, failures: Failures
    ) -> tuple[Tensor, Solved]:
        """The last iterate, and how far it is from a solution."""
        z = z0
        for _ in range(self.steps):
            z = problem.G(z, a)
        constants = tuple(held(x) for x in a)
        last = held(z)
        error = norm(problem.G(last, constants) - last)
        scale = torch.maximum(norm(last), norm(problem.F(torch.zeros_like(last), constants)))
        status = torch.where(error <= tolerance(self.tol, z.dtype) * scale, CONVERGED, MAX_ITERATIONS)
        status = torch.where(error.isfinite(), status, NOT_FINITE)
        count = torch.full_like(status, self.steps)
        solved = report_unsolved(Solved(last, status, count, error, count + 2), failures)
        if failures.policy == "nan":
            z = torch.where(solved.converged.unsqueeze(-1), z, torch.nan)
        return z, solved


def held(x: Tensor) -> Tensor:
    """x as a constant, in reverse and in forward mode (where `detach` keeps tangents)."""
    if torch.compiler.is_compiling():
        return x.detach()
    return _Hold.apply(x)


class _Hold(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()  # of a view autograd would not forget the history

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> None:
        return None

    @staticmethod
    def jvp(ctx: Any, t: Tensor) -> None:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], x: Tensor) -> tuple[Tensor, int]:
        return _Hold.apply(x), in_dims[0]
