"""Under the policy `nan`: gradients of the inputs of a failed sample are NaN, those of shared inputs leave it out."""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..solvers.verdict import CONVERGED, SINGULAR, Solved
from .rules import traced


def marked(z: Tensor, solved: Solved, inputs: Sequence[Tensor]) -> Tensor:
    """z (B, n) itself. In a backward pass the cotangent of z loses the rows that are bad, and the cotangents of the
    given `inputs`, each with a leading B, become NaN there.

    Bad are rows that are singular, not finite, or not converged with a singular factor; and those whose cotangent is
    not finite: a later solve has marked them. Any order, vmap, forward mode (in which nothing is marked).
    """
    bad = (solved.status == SINGULAR) | ~z.detach().isfinite().all(-1)
    if solved.factor is not None:
        bad = bad | (solved.status != CONVERGED) & solved.factor.is_singular()
    if torch.compiler.is_compiling():
        return traced(_MarkReverse, z, bad, *inputs)
    return _Mark.apply(z, bad, *inputs)


class _MarkReverse(torch.autograd.Function):
    @staticmethod
    def forward(z: Tensor, bad: Tensor, *inputs: Tensor) -> Tensor:
        return z.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, bad, *given = inputs
        ctx.save_for_backward(bad, *given)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        bad, *given = ctx.saved_tensors
        bad = bad | ~g.isfinite().all(-1)
        found = [
            torch.where(bad.view(-1, *(1,) * (x.ndim - 1)), torch.nan, torch.zeros_like(x)) if needed else None
            for x, needed in zip(given, ctx.needs_input_grad[2:], strict=True)
        ]
        return torch.where(bad.unsqueeze(-1), 0.0, g), None, *found


class _Mark(_MarkReverse):
    """With the rules for forward mode and vmap, which Dynamo refuses to trace."""

    generate_vmap_rule = True

    @staticmethod
    def jvp(ctx: Any, dz: Tensor | None, *_: Any) -> Tensor | None:
        return None if dz is None else dz.clone()
