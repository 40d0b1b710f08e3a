"""Linear systems of optimality conditions that may be singular: redundant constraints, unknowns that nothing needs."""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..solvers.factor import Factor
from ..solvers.optimum.quadratic import times
from ..solvers.optimum.regular import regular
from ..solvers.problem import Unique
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
    J = J.expand(b.shape[0], *J.shape[-2:])
    lu, pivots, singular = _Regular.apply(J.detach(), of.unknowns, of.equations)
    x = linear_solve(J, b, transposed=transposed, factor=Factor(lu, pivots))
    with torch.no_grad():
        rest = b - times(J.mT if transposed else J, x)
        missing = singular > 0
        if transposed or not of.duals:
            missing = missing & ~(rest.norm(dim=-1) <= LOST * b.norm(dim=-1))
    return torch.where(reported(missing, failures).unsqueeze(-1), 0.0, x)


class _Regular(torch.autograd.Function):
    """The factor as a constant under every transform."""

    @staticmethod
    def forward(J: Tensor, unknowns: int, equations: int) -> tuple[Tensor, Tensor, Tensor]:
        factor, singular = regular(J, unknowns, equations)
        assert factor.pivots is not None
        return factor.lu, factor.pivots, singular.to(J.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], J: Tensor, unknowns: int, equations: int) -> tuple[Any, Any]:
        lu, pivots, singular = _Regular.apply(J.movedim(in_dims[0], 0).flatten(0, 1), unknowns, equations)
        return tuple(t.unflatten(0, (info.batch_size, -1)) for t in (lu, pivots, singular)), (0, 0, 0)
