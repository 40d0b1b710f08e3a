"""0 ≤ y ⊥ S y + r ≥ 0 for S ⪰ 0, a batch at a time: exchanges of blocks of rows, begun again by interior points."""

from __future__ import annotations

from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from .dual import GATHERED, Active, factor
from .quadratic import cholesky_times, peak, times

ROUNDS, LONG_ROUNDS, FEW = 12, 24, 3
"""Exchanges after which an active set is no longer hoped for from this start; so many where rounds are cheap, with
small systems or where one sample in `FEW` is left."""
WORK = 2000
"""So many numbers in a round cost less than to leave samples that are done out of it."""
LARGE = 0.7
"""Of the largest error: those that are exchanged where exchanging all does not help."""
PASSES = ((12, 1e-3), (30, 1e-8))
"""Iterations and accuracy of the interior points that other starts come from."""
LOSS = 1e-12
"""A slack that counts as zero, relative to 1 + ‖r‖."""


class Complement(NamedTuple):
    """y (B, m), its active rows, `rounds` (B,) that were taken (0: not found), the factor of all samples if at hand."""

    y: Tensor
    active: Tensor
    rounds: Tensor
    factor: Active | None


def complement(S: Tensor, r: Tensor, hard: bool = False) -> Complement:
    """The solution for S (m, m) or (B, m, m) and r (B, m); `hard`: S has so low a rank that circles are the rule.

    All rows of the wrong sign are exchanged at once (Júdice & Pires 1994), k³/3 flops a round for k active rows. That
    ends in a few rounds, exact to rounding, or goes in circles. So where there are not fewer wrong rows than ever, only
    those are exchanged whose multiplier or slack is nearly as wrong as the worst, in units of √S_ii. Samples that do
    not end so start again from the rows that Mehrotra's predictor-corrector method finds active, m³/3 flops an
    iteration.
    """
    first, *passes = (PASSES[0], *PASSES[1:]) if hard else (None, *PASSES)
    found = _exchanged(S, r, _descent(S, r) if first is None else _interior(S, r, *first))
    for iterations, accuracy in passes:
        left = (found.rounds == 0).nonzero().squeeze(-1)
        if not len(left):
            return found
        part, right = S if S.ndim == 2 else S[left], r[left]
        again = _exchanged(part, right, _interior(part, right, iterations, accuracy))
        for t, value in zip(found[:3], again[:3], strict=True):
            t[left] = value
        found = found._replace(factor=None)
    return found


def _descent(S: Tensor, r: Tensor) -> Tensor:
    """The rows that are active after the best step along the first direction of descent, by the next one, (B, m)."""
    tiny = torch.finfo(r.dtype).tiny
    diagonal = S.diagonal(dim1=-2, dim2=-1).clamp(min=tiny)
    p = (-r / diagonal).clamp(min=0)
    Sp = times(S, p)
    step = (p * r).sum(-1, keepdim=True) / (p * Sp).sum(-1, keepdim=True).clamp(min=tiny)  # not positive
    return torch.addcmul(r, step, diagonal * p - Sp) < 0


def _exchanged(S: Tensor, r: Tensor, active: Tensor) -> Complement:
    rows, m = r.shape
    found: tuple[Tensor, ...] = ()
    live: Tensor | None = None
    last, s, right, act, y = None, S, -r, active, r
    taken = torch.ones(rows, dtype=torch.int64, device=r.device)
    best = taken
    unit = S.diagonal(dim1=-2, dim2=-1).clamp(min=torch.finfo(r.dtype).tiny).sqrt().expand(rows, m)
    floor = r + LOSS * (1 + peak(r).unsqueeze(-1)) if m else r
    for round_ in count(1):
        last = factor(s, act)
        y = last.near(right)
        value = torch.where(act, y, times(s, y) + floor)
        wrong = value <= 0
        many = wrong.sum(-1)
        open_ = many.nonzero().squeeze(-1)
        left = len(open_)
        cheap = m < GATHERED or left <= max(1, rows // FEW)
        if not left or round_ >= (LONG_ROUNDS if cheap else ROUNDS):
            taken[open_] = 0
            break
        taken += many > 0
        if round_ > 1:
            tired = many >= best
            if bool(tired.any()):
                size = torch.where(act, value * unit, value / unit)
                wrong = wrong & (~tired.unsqueeze(-1) | (size <= LARGE * size.amin(-1, keepdim=True)))
            many = torch.minimum(best, many)
        best = many
        if left <= (0.5 if m < GATHERED else 0.8) * len(act) and len(act) * m * m > WORK:
            found = _written(found, live, (y, act, taken))
            live = open_ if live is None else live[open_]
            parts = (right, floor, unit, act, wrong, taken, best)
            right, floor, unit, act, wrong, taken, best = (t.index_select(0, open_) for t in parts)
            s = s if s.ndim == 2 else s.index_select(0, open_)
        act = act ^ wrong
    y, active, taken = _written(found, live, (y, act, taken))
    return Complement(torch.where(active, y, 0.0), active, taken, last if live is None else None)


def _written(found: tuple[Tensor, ...], live: Tensor | None, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The results of all samples, with those of the live ones."""
    if live is None:
        return values
    return tuple(t.index_copy_(0, live, value) for t, value in zip(found, values, strict=True))


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
    dy = cholesky_times(F, right - gap)
    return dy, right - s / y * dy


def _longest(y: Tensor, s: Tensor, dy: Tensor, ds: Tensor, share: float) -> Tensor:
    """The step at which the first number vanishes, times `share`, at most 1."""
    worst = torch.maximum((-dy / y).amax(-1, keepdim=True), (-ds / s).amax(-1, keepdim=True))
    return (worst / share).clamp(min=1.0).reciprocal()
