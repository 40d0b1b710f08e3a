"""Sums of the cotangents of a differential equation's inputs, collected over the stages of many steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..solvers.ode.kinks import Sides
from ..solvers.ode.problem import Found, OdeProblem
from ..solvers.problem import Inputs

GATHERED = 2**18
"""Numbers of stages that are collected before the inputs' cotangents are computed, in one product for all of them:
many calls of operators become one while all that it reads stays in the cache."""


class Stages(NamedTuple):
    """Stages at t (m,) with states y and cotangents u (m, N) of their rates; ids (m,) are their rows, None: all of
    them, once or several times. kept, more: see `Reuse`.
    """

    t: Tensor
    y: Tensor
    u: Tensor
    ids: Tensor | None
    kept: Found = ()
    more: Found = ()


class Gradients:
    """Sums of the inputs' cotangents. Stages of many steps are collected and pulled back at once."""

    def __init__(self, problem: OdeProblem, a: Inputs, wanted: Sequence[bool], rows: int) -> None:
        self.problem, self.a, self.rows = problem, a, rows
        self.wanted = any(wanted)
        self.batched = [x.dim() > r for x, r in zip(a, problem.ranks, strict=True)]
        self.totals: list[Tensor | None] = [None] * len(a)
        self.held: list[Stages] = []
        self.count = 0
        core = [size for x, r in zip(a, problem.ranks, strict=True) for size in x.shape[x.dim() - r :]]
        self.width = max(core, default=1)

    def add(self, stages: Stages) -> None:
        if not self.wanted:
            return
        self.held.append(stages)
        self.count += len(stages.y) * max(self.width, stages.y.shape[1])
        if self.count >= GATHERED:
            self.flush()

    def add_steps(
        self,
        times: Tensor,
        Z: Tensor,
        bars: Tensor,
        ids: Tensor | None,
        sides: Sides | None,
        kept: tuple[Found, ...] | None,
        more: Sequence[Found],
    ) -> None:
        """All stages of a step, or of several: `times` (s, b), states Z (s, b, N), and what `Explicit.transpose` found:
        bars and more.
        """
        if not self.wanted:
            return
        count = len(bars)
        t = times[:count] if sides is None else sides.times(times[:count])
        if kept is not None:
            for j in range(count):
                self.add(Stages(t[j], Z[j], bars[j], ids, kept[j], more[j]))
        else:
            ids = None if ids is None else ids.repeat(count)
            self.add(Stages(t.reshape(-1), Z[:count].flatten(0, 1), bars.flatten(0, 1), ids))

    def flush(self) -> None:
        if not self.held:
            return
        held, reuse = self.held, self.problem.reuse
        t, y, u = joined([h.t for h in held]), joined([h.y for h in held]), joined([h.u for h in held])
        ids, a = None, self.a
        if any(self.batched):
            everyone = torch.arange(self.rows, device=y.device)
            ids = joined([everyone.repeat(len(h.y) // self.rows) if h.ids is None else h.ids for h in held])
            a = self.problem.rows(self.a, ids)
        if reuse is None or not held[0].kept:
            found = self.problem.pull_parameters(t, y, u, a)
        else:
            kept, more = (tuple(joined(x) for x in zip(*each, strict=True)) for each in
                          ([h.kept for h in held], [h.more for h in held]))  # fmt: skip
            found = reuse.pull_inputs(t, y, u, kept, more, *a)
        self.held, self.count = [], 0
        self.put(found, ids)

    def put(self, found: Sequence[Tensor | None], ids: Tensor | None) -> None:
        """Cotangents of the inputs, those of batched ones row by row for `ids` (None: all, once)."""
        for i, g in enumerate(found):
            if g is None:
                continue
            total = self.totals[i]
            if self.batched[i]:
                if total is None:
                    total = torch.zeros_like(self.a[i])
                self.totals[i] = total.add_(g) if ids is None else total.index_add_(0, ids, g)
            else:
                self.totals[i] = g if total is None else total + g


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Along the first axis; a single one without a copy."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
