"""What the cotangents of states that were asked for inside an integration add to those of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..solvers.ode.trajectory import Taken, interpolate


class Dense(NamedTuple):
    """Interpolated outputs of a step of b rows. rates (s, b, N): for the stages' rates, over H; state (b, N): for the
    state before the step.
    """

    rates: Tensor
    state: Tensor


def seen(entries: Sequence[Taken], at: Tensor) -> Tensor:
    """Which of the inner places (B, K) were passed, and so have their own cotangent."""
    found = torch.zeros_like(at, dtype=torch.bool)
    for e in entries:
        if e.asked is not None:
            r, c, _ = e.asked
            found[r if e.ids is None else e.ids[r], c] = True
        elif e.method.interpolant is None:
            if e.ids is None:
                found |= _hit(e, at)
            else:
                found[e.ids] |= _hit(e, at[e.ids])
    return found


def landed(e: Taken, at: Tensor, g: Tensor) -> Tensor | None:
    """The cotangents (b, N) of outputs at which a step ended, where steps end at outputs."""
    if e.method.interpolant is not None or at.shape[1] == 1:
        return None
    hit = _hit(e, at if e.ids is None else at[e.ids])
    return torch.where(hit.unsqueeze(-1), g if e.ids is None else g[e.ids], 0.0).sum(1)


def dense(taken: Sequence[Taken], g: Tensor) -> Dense | None:
    """The same of interpolated outputs, for the rows of some steps one after another; None where there are none."""
    if all(e.asked is None for e in taken):
        return None
    method, rows = taken[0].method, sum(len(e.t) for e in taken)
    assert method.interpolant is not None
    rates = g.new_zeros(len(method.interpolant), rows, g.shape[2])
    state, begin = g.new_zeros(rows, g.shape[2]), 0
    for e in taken:
        if e.asked is not None:
            r, c, theta = e.asked
            given = g[r if e.ids is None else e.ids[r], c]
            weights = interpolate(method.interpolant, theta, g)
            rates.index_add_(1, begin + r, weights.unsqueeze(-1) * given)
            state.index_add_(0, begin + r, given)
        begin += len(e.t)
    return Dense(rates, state)


def _hit(e: Taken, at: Tensor) -> Tensor:
    """The inner places (b, K) at which a step ended."""
    return (at == e.end) & (at < 1)
