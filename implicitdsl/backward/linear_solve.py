"""The one differentiable dense solve. `torch.linalg.solve` and `lu_solve` are never on a differentiated path here.

In torch 2.13 `vmap(jacfwd)` and `vmap(hessian)` through those two are silently wrong by factors of 1e3 to 1e6.
"""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..solvers.factor import Factor, decompose, factorise, substitute
from .failure import Failures, report_singular
from .rules import outer_levels, primal


def linear_solve(
    A: Tensor,
    b: Tensor,
    *,
    transposed: bool = False,
    factor: Factor | None = None,
    failures: Failures | None = None,
) -> Tensor:
    """x = A⁻¹ b (or A⁻ᵀ b), differentiable to any order in every mode of torch.func.

    A (n, n) or (B, n, n); b (n,) or (B, n); x like b, with B where either has it. `factor` is the LU of A or of a
    matrix near it, in which case one step of iterative refinement makes up for the difference. Derivative:
    ẋ = A⁻¹(ḃ - Ȧ x); b̄ = A⁻ᵀ x̄, Ā = -b̄ xᵀ, each solved by this function with the same LU.
    Cost 2/3 n³ a matrix without a factor, 2 n² a right-hand side; under vmap over b alone still one LU.
    Singular matrices (`Factor.is_singular`): with `failures` their x is zero and the policy is applied (IMP802), so
    other samples keep right gradients; without, x is what the LU gives, ask `singular_rows`.
    """
    single = b.ndim == 1
    right = b.unsqueeze(0) if single else b
    if factor is None:
        factorise_ = _FactoriseReverse if torch.compiler.is_compiling() else _Factorise
        lu, pivots = factorise_.apply(A)
        near = False
    else:
        assert factor.pivots is not None, "a diagonal factor needs no linear_solve"
        lu, pivots = factor.lu, factor.pivots
        near = True
    if A.ndim == 2:
        if lu.ndim == 3:
            A = A.expand(right.shape[0], *A.shape)
        else:
            return _finish(_solve(A, lu, pivots, right.mT, transposed, near, failures).mT, single)
    elif right.shape[0] != A.shape[0]:
        right = right.expand(A.shape[0], right.shape[1])
        single = False
    return _finish(_solve(A, lu, pivots, right.unsqueeze(-1), transposed, near, failures).squeeze(-1), single)


def singular_rows(A: Tensor) -> Tensor:
    """Whether each matrix (*, n, n) is singular to working precision: smallest pivot ≤ n·eps·largest, or not finite."""
    return factorise(A.detach()).is_singular()


def reported(singular: Tensor, failures: Failures, witness: Tensor | None = None) -> Tensor:
    """The mask (B,) or (B, n) itself, after announcing its rows (IMP802); works inside vmap, where nothing else can."""
    if torch.compiler.is_compiling():
        return report_singular(singular, failures, witness=witness)
    return _Reported.apply(singular, failures)


class _Reported(torch.autograd.Function):
    """Runs `report_singular` on the plain tensor below all levels of torch.func."""

    @staticmethod
    def forward(singular: Tensor, failures: Failures) -> Tensor:
        return report_singular(singular, failures).clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, None]:
        return None, None

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> None:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], singular: Tensor, failures: Failures) -> tuple[Tensor, int]:
        return _Reported.apply(singular.movedim(in_dims[0], 0), failures), 0


def _finish(x: Tensor, single: bool) -> Tensor:
    return x.squeeze(0) if single else x


class _FactoriseReverse(torch.autograd.Function):
    """LU of (*, n, n) as (lu, pivots), constants for differentiation: derivatives go through A in `_Solve`."""

    @staticmethod
    def forward(A: Tensor) -> tuple[Tensor, Tensor]:
        return decompose(A)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> None:
        return None


class _Factorise(_FactoriseReverse):
    """With the rules for forward mode and vmap, which Dynamo refuses to trace."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> tuple[None, None]:
        return None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], A: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        return _Factorise.apply(A.movedim(in_dims[0], 0)), (0, 0)


class _SolveReverse(torch.autograd.Function):
    """X = A⁻¹ R, or A⁻ᵀ R, for A (*, n, n), R (*, n, k), given an LU of A (`near`: of a matrix near A)."""

    @staticmethod
    def forward(
        A: Tensor, lu: Tensor, pivots: Tensor, R: Tensor, transposed: bool, near: bool, failures: Failures | None
    ) -> Tensor:
        X = substitute(lu, pivots, R, transposed)
        if near:
            rest = R - torch.matmul(A.mT if transposed else A, X)
            X = X + substitute(lu, pivots, rest, transposed)
        if failures is None:
            return X
        singular = Factor(lu, pivots).is_singular() | ~X.isfinite().flatten(-2).all(-1)
        return torch.where(report_singular(singular, failures)[..., None, None], 0.0, X)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        A, lu, pivots, _, transposed, near, failures = inputs
        ctx.transposed = transposed
        ctx.near = near
        ctx.failures = failures
        ctx.save_for_backward(A, lu, pivots, output)
        ctx.save_for_forward(A, lu, pivots, output)

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> tuple[Tensor | None, ...]:
        A, lu, pivots, X = ctx.saved_tensors
        U = _solve(A, lu, pivots, G, not ctx.transposed, ctx.near, ctx.failures)
        cotangent = None
        if ctx.needs_input_grad[0]:
            cotangent = -torch.matmul(X, U.mT) if ctx.transposed else -torch.matmul(U, X.mT)
        return cotangent, None, None, U, None, None, None


class _Solve(_SolveReverse):
    """With the rules for forward mode and vmap, which Dynamo refuses to trace."""

    @staticmethod
    def jvp(ctx: Any, dA: Tensor | None, _lu: None, _pivots: None, dR: Tensor | None, *_: None) -> Tensor:
        with outer_levels():
            A, lu, pivots, X = (primal(t) for t in ctx.saved_tensors)
            right = torch.zeros_like(X) if dR is None else dR
            if dA is not None:
                right = right - torch.matmul(dA.mT if ctx.transposed else dA, X)
            return _solve(A, lu, pivots, right, ctx.transposed, ctx.near, ctx.failures)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        A: Tensor,
        lu: Tensor,
        pivots: Tensor,
        R: Tensor,
        transposed: bool,
        near: bool,
        failures: Failures | None,
    ) -> tuple[Tensor, int]:
        if in_dims[0] is None and in_dims[1] is None and in_dims[3] is not None:  # more columns for the same matrix
            R = R.movedim(in_dims[3], -1)
            X = _solve(A, lu, pivots, R.flatten(-2), transposed, near, failures)
            return X.unflatten(-1, R.shape[-2:]), R.ndim - 1
        mapped = [
            x.movedim(d, 0) if d is not None else x.expand(info.batch_size, *x.shape)
            for x, d in zip((A, lu, pivots, R), in_dims, strict=False)
        ]
        A, lu, pivots, R = mapped
        return _solve(A, lu, pivots, R, transposed, near, failures), 0


def _solve(A: Tensor, lu: Tensor, pivots: Tensor, R: Tensor, transposed: bool, near: bool, failures: Any) -> Tensor:
    if torch.compiler.is_compiling():
        return _SolveReverse.apply(A, lu, pivots, R, transposed, near, failures)
    return _Solve.apply(A, lu, pivots, R, transposed, near, failures)
