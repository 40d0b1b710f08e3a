"""Step sizes: error norms, controllers, the first step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..problem import Inputs
from .method import Method, Step
from .problem import OdeProblem

GAINS = {"i": (1.0, 0.0, 0.0), "pi": (0.8, 0.31, 0.0), "pid": (0.58, 0.21, 0.1)}
"""Exponents of the last three error ratios, over the order of the estimate (SUNDIALS, ARKODE's controllers)."""

SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0
EPS = torch.finfo(torch.float64).eps
ROUNDING = 1e-9
NOTHING = 1e-100
"""A part of the span that is too small for any step, also from its beginning, where there is no rounding."""


@dataclass(frozen=True)
class Control:
    """Tolerances and limits. Times in units of t; None: the default.

    rtol, atol: error per step below atol + rtol |y|, root mean square over the measured entries. dt0: first step;
    min_step: a row that needs a smaller one fails (a step that ends early, at the end or at a kink, may be smaller);
    max_step: none is larger; max_steps: attempts after which a row is given up. dt or steps: equal steps instead.
    """

    rtol: float | None = None
    atol: float | None = None
    dt0: float | None = None
    min_step: float | None = None
    max_step: float | None = None
    max_steps: int = 10000
    controller: str = "i"
    dt: float | None = None
    steps: int | None = None

    def tolerances(self, dtype: torch.dtype) -> tuple[float, float]:
        """(rtol, atol): 1e-5 and 1e-7 in float32, 1e-6 and 1e-9 in float64; rtol at least 10 eps."""
        double = dtype is torch.float64
        rtol = self.rtol if self.rtol is not None else (1e-6 if double else 1e-5)
        atol = self.atol if self.atol is not None else (1e-9 if double else 1e-7)
        return max(rtol, 10 * torch.finfo(dtype).eps), atol

    def above(self, h: Tensor, span: Tensor) -> Tensor:
        """h (b, 1), a part of the span, or `min_step` where it is smaller."""
        return h if self.min_step is None else torch.maximum(h, self.min_step / span.abs())

    def below(self, h: Tensor, span: Tensor) -> Tensor:
        """h (b, 1), a part of the span, or `max_step` where it is larger."""
        return h if self.max_step is None else torch.minimum(h, self.max_step / span.abs())

    def small(self, s: Tensor, h: Tensor, span: Tensor) -> Tensor:
        """Whether the step h from s, parts of the span, is too small to be taken, (b, 1)."""
        small = s + h <= s * (1 + 2 * EPS) + NOTHING
        if self.min_step is not None:
            small = small | (h * span.abs() < self.min_step * (1 - ROUNDING))
        return small & (s < 1) & (h > 0)

    def least(self, h: Tensor, span: Tensor) -> Tensor:
        """Whether the step h, a part of the span, cannot be made smaller, (b, 1)."""
        if self.min_step is None:
            return torch.zeros_like(h, dtype=torch.bool)
        return h * span.abs() <= self.min_step * (1 + ROUNDING)


def norm(x: Tensor, measured: int | None) -> Tensor:
    """Root mean square of the measured entries, (b, 1)."""
    x = x if measured is None else x[:, :measured]
    return torch.linalg.vector_norm(x, dim=1, keepdim=True) * x.shape[1] ** -0.5


def scaled_error(step: Step, y: Tensor, rtol: float, atol: float, measured: int | None) -> Tensor:
    """The error of a step in units of the tolerance, (b, 1) float64; inf where it is not finite."""
    assert step.error is not None
    scale = torch.maximum(y.abs(), step.y.abs()).mul_(rtol).add_(atol)
    found = norm(step.error / scale, measured)
    if step.low is not None:  # the product of a high and a low order estimate (DOP853)
        low = norm(step.low / scale, measured)
        found = found * (found / (found.square() + 0.01 * low.square()).sqrt().clamp(min=1e-300))
    return found.double().nan_to_num_(nan=torch.inf, posinf=torch.inf)


def growth(logs: tuple[Tensor, Tensor, Tensor], controller: str, control: int) -> Tensor:
    """The factor by which steps change, from the logarithms of the last three errors (0 where there was none)."""
    now, before, earlier = GAINS[controller]
    exponent = logs[0] * (-now / control)
    if before:
        exponent = exponent.add_(logs[1], alpha=before / control)
    if earlier:
        exponent = exponent.add_(logs[2], alpha=-earlier / control)
    return exponent.exp_().mul_(SAFETY).clamp_(SHRINK, GROW)


def first_step(
    problem: OdeProblem,
    method: Method,
    a: Inputs,
    t0: Tensor,
    span: Tensor,
    y: Tensor,
    first: Tensor,
    rtol: float,
    atol: float,
) -> Tensor:
    """A first step as a part of the interval, (b, 1) float64 (Hairer, Nørsett & Wanner I, §II.4). One evaluation.

    `span` (b, 1) is the interval's signed length.
    """
    m = problem.measured
    scale = y.abs() * rtol + atol
    rate = first * span
    d0, d1 = norm(y / scale, m).double(), norm(rate / scale, m).double()
    h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1).clamp(max=1.0)
    ahead = problem.rate(t0 + (h0 * span)[:, 0].to(y.dtype), y + h0.to(y.dtype) * rate, *a) * span
    d2 = norm((ahead - rate) / scale, m).double() / h0
    most = torch.maximum(d1, d2)
    h1 = torch.where(most <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), (0.01 / most) ** (1.0 / method.control))
    found = torch.minimum(100 * h0, h1).nan_to_num(nan=1e-6)
    return found.clamp(max=1.0)
