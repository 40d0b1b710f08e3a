"""0 ≤ y ⊥ S y + r ≥ 0 for S ⪰ 0, a batch at a time: exchanges of blocks of rows, begun again by interior points."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..host import Array, array
from .dual import GATHERED, Active, Walls, factor
from .quadratic import cholesky_times, times

ROUNDS, LONG_ROUNDS, FEW = 12, 24, 3
"""Exchanges after which an active set is no longer hoped for from this start; so many where rounds are cheap, with
small systems or where one sample in `FEW` is left."""
SHARE, WORK = 0.5, 2000
"""Samples that are done are left out where at most such a share is open, and a round has so many numbers."""
PATIENCE = 2
"""Rounds that exchange all wrong rows whether there are fewer or not."""
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
    found, lost = _exchanged(S, r, _descent(S, r) if first is None else _interior(S, r, *first))
    for iterations, accuracy in passes:
        if not lost:
            break
        left = (found.rounds == 0).nonzero().squeeze(-1)
        part, right = S if S.ndim == 2 else S[left], r[left]
        again, lost = _exchanged(part, right, _interior(part, right, iterations, accuracy))
        for t, value in zip(found[:3], again[:3], strict=True):
            t[left] = value
        found = found._replace(factor=None)
    return found


def _descent(S: Tensor, r: Tensor) -> Tensor:
    """The rows that are active after the best step along the first direction of descent, by the next one, (B, m)."""
    tiny = torch.finfo(r.dtype).tiny
    diagonal = S.diagonal(dim1=-2, dim2=-1).clamp(min=tiny)
    p = (r / diagonal).clamp_(max=0)  # against the direction
    Sp = times(S, p)
    step = (p * r).sum(-1, keepdim=True) / (p * Sp).sum(-1, keepdim=True).clamp_(min=tiny)
    return torch.addcmul(r, step, torch.addcmul(Sp, diagonal, p, value=-1), value=-1) < 0


@np.errstate(over="ignore", invalid="ignore")
def _exchanged(S: Tensor, r: Tensor, active: Tensor) -> tuple[Complement, int]:
    """The solutions, begun with these rows, and how many samples have none.

    What concerns whole samples is kept by the host, which has to know it anyway, and whose operators cost less. Vectors
    are columns, as the operators want them. Small systems are solved with walls: there (S + walls) y = −r says that the
    slack of a free row is −wall · y, so that one comparison of y finds the next active set.
    """
    rows, m = r.shape
    small = m < GATHERED
    r = r.unsqueeze(-1)
    right, free = -r, ~active.unsqueeze(-1)
    room = r.abs().amax(-2, keepdim=True).add_(1).mul_(LOSS) if m else r
    walls = Walls.of(S, rows) if small else None
    s, floor = S, r + room if walls is None else room.div_(walls.height)
    found: tuple[Tensor, ...] = ()
    F, last, index, live, fewest, round_ = None, None, None, None, None, 0
    held = out = array(free)
    taken = np.zeros(rows, dtype=np.int64)
    while True:
        round_ += 1
        if walls is None:
            last = factor(s, ~free.squeeze(-1))
            y = last.near(right)
            value = torch.where(free, _slack(s, y, floor), y)
            after = (value <= 0) ^ free
        else:
            F = walls.factor(free)
            y = value = torch.cholesky_solve(right, F)
            after = y <= floor
        wrong = array(after) ^ held
        many = wrong.sum((1, 2))
        open_ = many.nonzero()[0]
        left = len(open_)
        cheap = small or left <= max(1, rows // FEW)
        if not left or round_ >= (LONG_ROUNDS if cheap else ROUNDS):
            break
        ids = open_ if live is None else live[open_]
        taken[ids], free = round_, after
        if fewest is not None:
            tired = ((many >= fewest) & (many > 1)).nonzero()[0]
            if round_ > PATIENCE and len(tired):
                which = tired if live is None else live[tired]
                size = array(value)[tired]
                if walls is not None:
                    size = np.where(held[tired], -walls.height * size, size)
                wrong[tired] &= _worst(S, which, size, held[tired])
                free = torch.from_numpy(held ^ wrong).to(r.device)
            many = np.minimum(fewest, many)
        fewest, held = many, held ^ wrong
        if left <= SHARE * len(many) and len(many) * m * m > WORK:
            found = _written(found, index, (y,) if F is None else (y, F))
            out = _placed(out, live, held)
            live, fewest, held = ids, fewest[open_], held[open_]
            index, within = (torch.from_numpy(t).to(r.device) for t in (live, open_))
            right, floor = right.index_select(0, within), floor.index_select(0, within)
            free = torch.from_numpy(held).to(r.device)
            if walls is not None:
                walls = walls.select(within)
            elif s.ndim == 3:
                s = s.index_select(0, within)
    taken += 1
    taken[open_ if live is None else live[open_]] = 0
    y, *factors = _written(found, index, (y,) if F is None else (y, F))
    act = torch.from_numpy(~_placed(out, live, held)[..., 0]).to(r.device)
    y = torch.where(act, y.squeeze(-1), 0.0)
    if factors:
        last = Active(factors[0], None, act)
    elif index is not None:
        last = None
    return Complement(y, act, torch.from_numpy(taken).to(r.device), last), left


def _slack(S: Tensor, y: Tensor, floor: Tensor) -> Tensor:
    """floor + S y, of columns, for S (m, m) or (B, m, m), which is symmetric."""
    if S.ndim == 2:
        return torch.addmm(floor.squeeze(-1), y.squeeze(-1), S).unsqueeze(-1)
    if S.shape[-1] < GATHERED:
        return torch.baddbmm(floor, S, y)
    return torch.baddbmm(floor.mT, y.mT, S).mT  # as rows it takes half the time


def _worst(S: Tensor, samples: Array, value: Array, free: Array) -> Array:
    """Of some samples, the rows whose multipliers, or slacks where they are `free`, are nearly the worst, (k, m, 1)."""
    diagonal = array(S.diagonal(dim1=-2, dim2=-1))
    diagonal = diagonal if S.ndim == 2 else diagonal[samples]
    unit = np.sqrt(np.maximum(diagonal, np.finfo(diagonal.dtype).tiny))[..., None]
    size = np.where(free, value / unit, value * unit)
    return size <= LARGE * size.min(-2, keepdims=True)


def _written(found: tuple[Tensor, ...], live: Tensor | None, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The results of all samples, with those of the live ones."""
    if live is None:
        return values
    return tuple(t.index_copy_(0, live, value) for t, value in zip(found, values, strict=True))


def _placed(found: Array, live: Array | None, values: Array) -> Array:
    """The same on the host."""
    if live is None:
        return values
    found[live] = values
    return found


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
