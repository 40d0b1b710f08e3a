"""0 ≤ y ⊥ S y + r ≥ 0 for S ⪰ 0, a batch at a time: exchanges of blocks of rows, begun again by interior points."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .dual import GATHERED, Active, factor
from .quadratic import times

ROUNDS, SINGLE_ROUNDS = 12, 30
"""Exchanges after which an active set is no longer hoped for from this start; so many with small systems, where rounds
are cheap, and rows that go in circles are exchanged one by one."""
PASSES = ((12, 1e-3), (30, 1e-8))
"""Iterations and accuracy of the interior points that other starts come from."""
LOSS = 1e-12
"""A slack that counts as zero, relative to 1 + ‖r‖."""


class Complement(NamedTuple):
    """y (B, m), its active rows, `rounds` (B,) that were taken (0: not found), the factor of all samples if all are."""

    y: Tensor
    active: Tensor
    rounds: Tensor
    factor: Active | None


def complement(S: Tensor, r: Tensor, hard: bool = False) -> Complement:
    """The solution for S (m, m) or (B, m, m) and r (B, m); `hard`: S has so low a rank that circles are the rule.

    All rows of the wrong sign are exchanged at once (Júdice & Pires 1994), k³/3 flops a round for k active rows. That
    ends in a few rounds, exact to rounding, or goes in circles. Small systems then exchange the last wrong row alone
    until there are fewer than ever (Murty 1974). Samples that do not end so start again from the rows that Mehrotra's
    predictor-corrector method finds active, m³/3 flops an iteration.
    """
    first, *passes = (PASSES[0], *PASSES[1:]) if hard else (None, *PASSES)
    found = _exchanged(S, r, r < 0 if first is None else _interior(S, r, *first))
    for iterations, accuracy in passes:
        left = (found.rounds == 0).nonzero().squeeze(-1)
        if not len(left):
            return found
        part, right = S if S.ndim == 2 else S[left], r[left]
        again = _exchanged(part, right, _interior(part, right, iterations, accuracy))
        for t, value in zip(found[:3], again[:3], strict=True):
            t[left] = value
        every = bool((found.rounds > 0).all())
        found = found._replace(factor=factor(S, found.active) if every else None)
    return found


def _exchanged(S: Tensor, r: Tensor, active: Tensor) -> Complement:
    rows, _ = r.shape
    y_out, active_out = torch.zeros_like(r), active.clone()
    rounds = torch.zeros(rows, dtype=torch.int64, device=r.device)
    live: Tensor | None = None
    s, rr, act = S, r, active
    small = r.shape[-1] < GATHERED
    order = torch.arange(1, r.shape[-1] + 1, device=r.device)
    best, patient = torch.full_like(rounds, r.shape[-1] + 1), torch.ones_like(rounds, dtype=torch.bool)
    floor = -LOSS * (1 + (r.abs().amax(-1, keepdim=True) if r.shape[-1] else r))
    for round_ in range(1, (SINGLE_ROUNDS if small else ROUNDS) + 1):
        last = factor(s, act)
        y = last.solve(-rr)
        slack = times(s, y) + rr
        wrong = torch.where(act, y <= 0, slack < floor)
        done = ~wrong.any(-1) & y.isfinite().all(-1)
        whole = bool(done.all())
        if whole and live is None:
            return Complement(y, act, torch.full_like(rounds, round_), last)
        where = done.nonzero().squeeze(-1) if live is None else live[done]
        y_out[where], active_out[where], rounds[where] = y[done], act[done], round_
        if whole:
            break
        if small:
            count = wrong.sum(-1)
            better = count < best
            single = wrong & (order == (wrong * order).amax(-1, keepdim=True))
            wrong = torch.where((better | patient).unsqueeze(-1), wrong, single)
            best, patient = torch.where(better, count, best), better
        act = act ^ wrong
        left = ~done
        if live is None:
            live = torch.arange(rows, device=r.device)
        if not bool(left.all()):
            live, rr, act, floor = live[left], rr[left], act[left], floor[left]
            best, patient = best[left], patient[left]
            s = s if s.ndim == 2 else s[left]
    every = bool((rounds > 0).all())
    return Complement(y_out, active_out, rounds, factor(S, active_out) if every else None)


def _interior(S: Tensor, r: Tensor, iterations: int, accuracy: float) -> Tensor:
    """The rows whose multiplier outweighs their slack near the solution, (B, m)."""
    rows, m = r.shape
    diagonal = S.diagonal(dim1=-2, dim2=-1).expand(rows, m).clamp(min=torch.finfo(r.dtype).tiny)
    size = r.abs().amax(-1, keepdim=True) + 1e-3 * diagonal.mean(-1, keepdim=True)
    y = size / diagonal.mean(-1, keepdim=True) * torch.ones_like(r)
    s = torch.maximum(times(S, y) + r, 0.1 * size)
    for _ in range(iterations):
        gap = times(S, y) + r - s
        mu = (s * y).mean(-1, keepdim=True)
        if bool(((gap.abs() <= accuracy * size) & (mu * diagonal <= (accuracy * size) ** 2)).all()):
            break
        K = S.expand(rows, m, m).clone()
        K.diagonal(dim1=-2, dim2=-1).add_(s / y)
        F, _ = torch.linalg.cholesky_ex(K)

        dy, ds = _direction(F, y, s, gap, 0.0)
        step = _longest(y, s, dy, ds, 1.0)
        ahead = ((s + step * ds) * (y + step * dy)).mean(-1, keepdim=True)
        dy, ds = _direction(F, y, s, gap, (ahead / mu).clamp(0, 1) ** 3 * mu - dy * ds)
        step = _longest(y, s, dy, ds, 0.99)
        tiny = torch.finfo(r.dtype).tiny ** 0.5
        y, s = (y + step * dy).clamp(min=tiny), (s + step * ds).clamp(min=tiny)
    return y * diagonal > s


def _direction(F: Tensor, y: Tensor, s: Tensor, gap: Tensor, centre: Tensor | float) -> tuple[Tensor, Tensor]:
    """For S dy − ds = −gap, y ds + s dy = centre − y s; F is the factor of S + diag(s / y)."""
    right = centre / y - s
    dy = torch.cholesky_solve((right - gap).unsqueeze(-1), F).squeeze(-1)
    return dy, right - s / y * dy


def _longest(y: Tensor, s: Tensor, dy: Tensor, ds: Tensor, share: float) -> Tensor:
    """The step at which the first number vanishes, times `share`, at most 1."""
    worst = torch.maximum((-dy / y).amax(-1, keepdim=True), (-ds / s).amax(-1, keepdim=True))
    return (worst / share).clamp(min=1.0).reciprocal()
