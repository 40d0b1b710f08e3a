"""Where an integration ends before its time: the first zero of one of several functions along a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..problem import Inputs
from .method import Step

LOOKS = 8
"""Points inside a step at which signs are compared."""
HALVINGS = 44
POLISH = 3


@dataclass(frozen=True)
class Events:
    """gaps (t, y, *a) -> (B, m). ops: "<=" ends where a gap falls to 0, ">=" where it rises to 0, "=" either way.

    A gap that is 0 at the beginning does not end the integration there.
    """

    gaps: Callable[..., Tensor]
    ops: tuple[str, ...]

    def crossed(self, before: Tensor, now: Tensor) -> Tensor:
        """Which gaps (b, m) have come to 0 between two points."""
        fell, rose = (before > 0) & (now <= 0), (before < 0) & (now >= 0)
        each = {"<=": lambda k: fell[:, k], ">=": lambda k: rose[:, k], "=": lambda k: fell[:, k] | rose[:, k]}
        return torch.stack([each[op](k) for k, op in enumerate(self.ops)], 1)

    def within(
        self, t: Tensor, H: Tensor, y: Tensor, first: Tensor, step: Step, a: Inputs
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(rows in which an event lies inside the step (b,), its part of the step (b,), which one (b,)).

        On the cubic that fits both ends; to rounding, by bisection. Cost: `LOOKS` evaluations of the gaps, `HALVINGS`
        more where there is one.
        """

        def at(theta: Tensor) -> Tensor:
            return self.gaps(t + theta * H[:, 0], cubic(theta.unsqueeze(1), H, y, first, step), *a)

        none = torch.zeros_like(t)
        before, low, high = self.gaps(t, y, *a), none, none
        base, hit = before, torch.zeros_like(t, dtype=torch.bool)
        for j in range(1, LOOKS + 1):
            theta = torch.full_like(t, j / LOOKS)
            now = at(theta) if j < LOOKS else self.gaps(t + H[:, 0], step.y, *a)
            fresh = self.crossed(before, now).any(1) & ~hit
            low, high = torch.where(fresh, theta - 1 / LOOKS, low), torch.where(fresh, theta, high)
            base, hit = torch.where(fresh.unsqueeze(1), before, base), hit | fresh
            before = now
        if not bool(hit.any()):
            return hit, none, none.long()
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            there = self.crossed(base, at(middle)).any(1)
            low, high = torch.where(there, low, middle), torch.where(there, middle, high)
        which = self.crossed(base, at(high)).to(torch.int64).argmax(1)
        return hit, high, which


def cubic(theta: Tensor, H: Tensor, y: Tensor, first: Tensor, step: Step) -> Tensor:
    """Hermite's interpolant of a step at the parts theta (b, 1)."""
    square, cube = theta * theta, theta * theta * theta
    along = 3 * square - 2 * cube
    return y + along * (step.y - y) + H * ((theta - 2 * square + cube) * first + (cube - square) * step.last)
