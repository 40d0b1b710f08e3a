"""Known kinks: times at which a right-hand side, or a derivative of it, jumps. Steps end there and never span one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..problem import Inputs
from .problem import OdeProblem, Reuse


class Sides(NamedTuple):
    """The open interval of times between two kinks in which a step lies, (b,) each, in the dtype of times."""

    low: Tensor
    high: Tensor

    def times(self, t: Tensor) -> Tensor:
        """t (b,), (s, b) or (s·b,) moved into the interval, with the derivative of t."""
        still = t.detach()
        if t.dim() == 1 and len(t) > len(self.low):
            still = still.view(-1, len(self.low))
        return torch.clamp(still, self.low, self.high).view_as(t) + (t - t.detach())

    def rows(self, keep: Tensor) -> Sides:
        """Those of some rows."""
        return Sides(self.low[keep], self.high[keep])


class Kinks(NamedTuple):
    """Of b rows: their times, and these as parts of the rows' spans; (b, J) float64. Empty where there are none."""

    times: Tensor
    parts: Tensor

    def ahead(self, s: Tensor) -> Tensor:
        """The part of the span (b, 1) at which the piece after s ends: the next kink, or 1."""
        return torch.where((self.parts > s) & (self.parts < 1), self.parts, 1.0).amin(1, keepdim=True)

    def take(self, keep: Tensor) -> Kinks:
        """Those of some rows."""
        return Kinks(self.times.index_select(0, keep), self.parts.index_select(0, keep))

    def at(self, s: Tensor) -> Tensor:
        """Which kinks (b, J) lie at s (b, 1), inside the span: one at an end of it is not passed."""
        return (self.parts == s) & (s > 0) & (s < 1)

    def sides(self, s: Tensor, span: Tensor, dtype: torch.dtype) -> Sides:
        """The piece that begins at s (b, 1) in the direction of span (b, 1); a kink at s lies behind."""
        below = (self.parts <= s) == (span > 0)
        times = self.times.to(dtype)
        low = torch.where(below, times, -torch.inf).amax(1)
        high = torch.where(below, torch.inf, times).amin(1)
        # the numbers next to the kinks: a function that jumps at τ may have a third value there, as sign(t − τ)
        up = torch.full_like(low, torch.inf)
        return Sides(torch.nextafter(low, up), torch.nextafter(high, -up))


def kinks_of(problem: OdeProblem, a: Inputs, t0: Tensor, span: Tensor) -> Kinks | None:
    """The kinks of a problem for rows that begin at t0 (b,), float64; None where the problem has none."""
    if not problem.kinks:
        return None
    times = a[-1].detach().double()
    times = times if times.dim() == 2 else times.expand(len(t0), *times.shape)
    length = torch.where(span == 0, 1.0, span).unsqueeze(1)
    return Kinks(times, (times - t0.unsqueeze(1)) / length)


def kinked(problem: OdeProblem) -> OdeProblem:
    """The problem with one more input, the times (J,) or (B, J) of its kinks; a time at infinity is none."""

    def bare(run: Callable[..., Any] | None) -> Any:
        return None if run is None else lambda *args: run(*args[:-1])

    def without(run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: (*run(*args[:-1]), None)

    inputs, reuse = problem.pull_inputs, problem.reuse
    return replace(
        problem,
        rate=bare(problem.rate),
        ranks=(*problem.ranks, 1),
        pull=bare(problem.pull),
        pull_inputs=None if inputs is None else without(inputs),
        jacobian=bare(problem.jacobian),
        drift=bare(problem.drift),
        kinks=True,
        reuse=None if reuse is None else Reuse(bare(reuse.rate), bare(reuse.pull), without(reuse.pull_inputs)),
    )


def within(problem: OdeProblem, sides: Sides | None) -> OdeProblem:
    """The problem on one piece: every time is moved to this side of the kinks."""
    if sides is None or problem.autonomous:
        return problem

    def moved(run: Callable[..., Any] | None) -> Any:
        return None if run is None else lambda t, *args: run(sides.times(t), *args)

    reuse = problem.reuse
    return replace(
        problem,
        rate=moved(problem.rate),
        pull=moved(problem.pull),
        pull_inputs=moved(problem.pull_inputs),
        jacobian=moved(problem.jacobian),
        drift=moved(problem.drift),
        reuse=None if reuse is None else Reuse(moved(reuse.rate), moved(reuse.pull), moved(reuse.pull_inputs)),
    )
