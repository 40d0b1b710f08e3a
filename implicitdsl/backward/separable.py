"""Derivatives of separable optima: closed form on the active bounds, in differentiable operations of every order."""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)
from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..ground.outcomes import Outcome
from ..solvers.optimum.separable import where
from ..solvers.verdict import CONVERGED, Solved
from .failure import Failures, report_unsolved
from .rules import Constant, folded, split

WEAK = 1e-7
"""A multiplier of an active bound that counts as zero, relative to the terms of its equation."""


class Optimum(NamedTuple):
    """z, multipliers of the lower and upper bounds (B, n), ν (B,); the report's entries (B,)."""

    z: Tensor
    below: Tensor
    above: Tensor
    nu: Tensor
    status: Tensor
    residual: Tensor
    weak: Tensor


def separable_optimum(
    failures: Failures,
    equality: bool,
    p: Tensor,
    q: Tensor,
    low: Tensor,
    high: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    lost: Tensor | None = None,
) -> Optimum:
    """min Σ ½ p z² + q z, l ≤ z ≤ u, aᵀz = b or ≤ b for p, q, l, u, a (B, n), b (B,); see `solvers.optimum.separable`.

    On the free entries z = −(q + ν a) / p, and ν is the quotient that meets the coupling row there: differentiable to
    any order and in every mode. A sample that was not solved (`lost` says of which that is known) gets no gradient.
    """
    rest = (a, b) if a is not None and b is not None else ()
    if torch.compiler.is_compiling():
        found, reported = _where(failures, equality, lost, *(t.detach() for t in (p, q, low, high, *rest)))
    else:
        found, reported = _Where.apply(failures, equality, lost, p, q, low, high, *rest), None
    lower, upper, nu0, coupled, status, residual = found
    good = status == CONVERGED
    free = ~(lower | upper)
    bound = torch.where(lower, torch.where(lower, low, 0.0), torch.where(upper, high, 0.0))
    nu, pull = nu0, q
    if a is not None and b is not None:
        share = torch.where(free, a / p, 0.0)
        steep = (share * a).sum(-1)
        held = coupled & (steep > 0)
        top = (a * bound).sum(-1) - (share * q).sum(-1) - b
        nu = torch.where(held, top / torch.where(held, steep, 1.0), nu0)
        pull = q + nu.unsqueeze(-1) * a
    z = torch.where(free, -pull / p, bound)
    slope = p * bound + pull
    below, above = torch.where(lower, slope, 0.0), torch.where(upper, -slope, 0.0)
    values = [z, below, above, nu.unsqueeze(-1)]
    values = [torch.where(good.unsqueeze(-1), t, t.detach()) for t in values]
    if reported is not None:  # used, so that no compiler drops what is said of failures
        values[0] = torch.where(good.unsqueeze(-1), values[0], reported)
    if failures.policy == "nan":
        values = [torch.where(good.unsqueeze(-1), t, torch.nan) for t in values]
    size = 1 + (p * bound).abs().amax(-1, keepdim=True) + pull.abs().amax(-1, keepdim=True)
    weak = (~free & ((below + above).abs() <= WEAK * size)).sum(-1).detach()
    z, below, above, nu = values
    return Optimum(z, below, above, nu.squeeze(-1), status, residual, weak)


def _where(
    failures: Failures, equality: bool, lost: Tensor | None, *tensors: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
    """What `_Where` finds, and z after the policy for failures."""
    p, q, low, high, *rest = tensors
    a, b = rest or (None, None)
    found = where(p, q, low, high, a, b, equality)
    status = found.status if lost is None else torch.where(lost, int(Outcome.NOT_FINITE), found.status)
    pull = q if a is None else q + found.nu.unsqueeze(-1) * a
    z = (-pull / p).clamp(low, high)
    residual = (low - z).clamp(min=0).amax(-1)
    if a is not None and b is not None:
        miss = (a * z).sum(-1) - b
        miss = miss.abs() if equality else miss.clamp(min=0)
        residual = torch.maximum(residual, miss / (1 + b.abs() + (a * z).abs().sum(-1)))
    once = torch.ones_like(status)
    reported = report_unsolved(Solved(z, status, once, residual, once), failures)
    return (found.lower, found.upper, found.nu, found.coupled, status, residual), reported.z


class _Where(Constant):
    """Which bounds are active, ν, status and residual, without derivatives, after the policy for failures."""

    @staticmethod
    def forward(
        failures: Failures, equality: bool, lost: Tensor | None, *tensors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        return _where(failures, equality, lost, *tensors)[0]

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], failures: Failures, equality: bool, lost: Tensor | None, *tensors: Tensor
    ) -> tuple[Any, Any]:
        tensors = tuple(folded(info.batch_size, in_dims[3:], tensors))
        return split(info.batch_size, _Where.apply(failures, equality, lost, *tensors))
