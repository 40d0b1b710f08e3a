"""Where an integration ends before its time: the first zero of one of several functions along a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..problem import Inputs
from .method import Method, Step
from .problem import OdeProblem

LOOKS = 8
"""Points inside a step at which signs are compared."""
HALVINGS, TRACED_HALVINGS = 44, 16
"""Bisections; a compiled graph holds every one, and leaves the rest to Newton's method."""
POLISH = 3
NUDGE = 1e-5
"""Part of a step over which an event's rate of change is measured."""


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

    def inside(self, t: Tensor, H: Tensor, y: Tensor, first: Tensor, step: Step, a: Inputs) -> Tensor:
        """Rows in which an event lies inside the step (b,). Cost: `LOOKS` evaluations of the gaps."""
        before = self.gaps(t, y, *a)
        hit = torch.zeros_like(t, dtype=torch.bool)
        for j in range(1, LOOKS + 1):
            theta = torch.full_like(t, j / LOOKS)
            state = cubic(theta.unsqueeze(1), H, y, first, step) if j < LOOKS else step.y
            now = self.gaps(t + theta * H[:, 0], state, *a)
            hit, before = hit | self.crossed(before, now).any(1), now
        return hit

    def polished(
        self,
        problem: OdeProblem,
        method: Method,
        t: Tensor,
        H: Tensor,
        y: Tensor,
        first: Tensor,
        part: Tensor,
        which: Tensor,
        a: Inputs,
        smooth: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """(part (b, 1), state there): an event's place, corrected by Newton's method on steps that end there."""
        run = method.smooth if smooth else method.step
        at = run(problem, a, t, H * part, y, first)
        for _ in range(POLISH):
            gap, ahead = (
                self.gaps(t + ((part + d) * H)[:, 0], at.y + d * H * at.last, *a).gather(1, which[:, None])
                for d in (0.0, NUDGE)
            )
            change = gap * NUDGE / torch.where(ahead == gap, torch.inf, ahead - gap)
            part = torch.where(change.abs() < 0.5, (part - change).clamp(0.0, 1.0), part)
            at = run(problem, a, t, H * part, y, first)
        return part, at.y

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
        if not torch.compiler.is_compiling() and not bool(hit.any()):
            return hit, none, none.long()
        for _ in range(TRACED_HALVINGS if torch.compiler.is_compiling() else HALVINGS):
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
