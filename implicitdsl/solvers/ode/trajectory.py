"""What an integration hands back: states where they were asked for, a verdict a row, and the steps that were taken."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...ground.outcomes import Outcome
from .kinks import Sides
from .method import Method
from .problem import Found

CONVERGED, RUNNING = int(Outcome.CONVERGED), int(Outcome.RUNNING)


class Ended(NamedTuple):
    """One entry a row, B of them.

    y (B, K, N): states at the places; end (B, N): where the row stopped; status: `Outcome` values; steps: attempts;
    error: the largest accepted local error in units of the tolerance; nfe; time: where the row stopped; rung: the
    method that brought it there; fired: the event that ended it, -1: none.
    """

    y: Tensor
    end: Tensor
    status: Tensor
    steps: Tensor
    error: Tensor
    nfe: Tensor
    time: Tensor
    rung: Tensor
    fired: Tensor | None = None

    @property
    def converged(self) -> Tensor:
        return self.status == CONVERGED


class Places(NamedTuple):
    """Where a row begins and what is asked of it: t0 (B,), span (B,) signed, at (B, K) as parts of the span, sorted or
    not, of which 1 is the end. float64.
    """

    t0: Tensor
    span: Tensor
    at: Tensor


class Taken(NamedTuple):
    """One accepted step of b rows on the tape. end (b, 1): where it ends, as a part of the span.

    ids: the rows, None: all. y: the states (b, N) before the step, or under a budget those of all rows (B, N); it and
    Z (s, b, N) may have been forgotten. `asked`: (rows, columns, θ) of interpolated outputs. `sides`: the piece between
    two kinks, where there are any. `kept`: see `Step`, forgotten with Z.
    """

    method: Method
    ids: Tensor | None
    end: Tensor
    t: Tensor
    H: Tensor
    y: Tensor | None
    Z: Tensor | None
    asked: tuple[Tensor, Tensor, Tensor] | None
    sides: Sides | None = None
    kept: tuple[Found, ...] | None = None


class Tape:
    """The steps of an integration, and which states of it are kept.

    `budget`: at most so many states; the others are computed again from the one before. None: all, and the stages' too,
    with what else they computed, while that is small. `states`: whether there are any at all.
    """

    def __init__(self, budget: int | None = None, *, states: bool = True) -> None:
        self.entries: list[Taken] = []
        self.budget, self.stride, self.states = budget, 1, states
        self.room = STAGES if budget is None else 0

    def append(self, entry: Taken) -> None:
        if not self.states:
            self.entries.append(entry._replace(y=None, Z=None, kept=None))
            return
        if self.budget is not None and len(self.entries) // self.stride >= self.budget:
            self.stride *= 2  # forget every other state
            self.entries = [self._kept(i, e) for i, e in enumerate(self.entries)]
        entry = self._kept(len(self.entries), entry)
        if entry.Z is not None:
            held = [entry.Z, *(x for stage in entry.kept or () for x in stage)]
            size = sum(x.numel() * x.element_size() for x in held)
            if size > self.room:
                entry = entry._replace(Z=None, kept=None)
            self.room -= size
        self.entries.append(entry)

    def _kept(self, place: int, entry: Taken) -> Taken:
        return entry._replace(y=None) if place % self.stride else entry


STAGES = 128 * 2**20
"""Bytes of stages that a tape may hold."""


class Segment(NamedTuple):
    """Steps of one method, row by row: nodes (B, S + 1) are parts of the span, the last one repeated where a row took
    fewer steps; `lands` (B, S): the place whose number a step ends at, -1: none.
    """

    method: Method
    nodes: Tensor
    lands: Tensor


def interpolate(rows: tuple[tuple[float, ...], ...], theta: Tensor, like: Tensor) -> Tensor:
    """b_i(θ) of an interpolant for θ (m,): (s, m)."""
    powers = torch.stack([theta ** (j + 1) for j in range(len(rows[0]))])
    return torch.tensor(rows, dtype=like.dtype, device=like.device) @ powers
