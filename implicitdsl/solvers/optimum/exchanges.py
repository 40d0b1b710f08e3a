"""Exchanges of rows until 0 ≤ y ⊥ S y + r ≥ 0: block principal pivoting, a batch at a time.

Which rows are active is kept by the host, which has to know it anyway, and whose operators cost a tenth of torch's.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ..host import Array, array
from .dual import GATHERED, Active, factor, regular, wall

ROUNDS, LONG_ROUNDS, FEW = 12, 24, 3
"""Exchanges after which an active set is no longer hoped for from this start; so many where rounds are cheap, with
small systems or where one sample in `FEW` is left."""
SHARE, WORK = 0.5, 2000
"""Samples that are done are left out where at most such a share is open, and a round has so many numbers."""
PATIENCE = 2
"""Rounds that exchange all wrong rows whether there are fewer or not."""
LARGE = 0.7
"""Of the largest error: those that are exchanged where exchanging all does not help."""
LOSS = 1e-12
"""A slack that counts as zero, relative to 1 + ‖r‖."""


class Systems(Protocol):
    """S y = −r on the active rows, of the samples that are open."""

    def turn(self, free: Array) -> tuple[Array, Array]:
        """Values with the signs of the multipliers, or of the slacks in `free` rows; the rows that are free next. Cost
        k³/3 a sample with k active rows."""
        ...

    def sizes(self, values: Array, free: Array) -> Array:
        """The multipliers and slacks that such values of some samples stand for."""
        ...

    def select(self, index: Array) -> None:
        """Go on with the samples at `index` of those that are open."""
        ...

    def finish(self, active: Tensor) -> tuple[Tensor, Active | None]:
        """y of all samples (B, m) on the rows `active` of their last turns, and the factor of all if it is at hand."""
        ...


class Exchanged(NamedTuple):
    """y (B, m), its active rows, the rounds that were taken (B,) (0: not found), the factor of all samples if it is at
    hand, and how many samples were not found."""

    y: Tensor
    active: Tensor
    rounds: Tensor
    factor: Active | None
    lost: int


@np.errstate(over="ignore", invalid="ignore")
def exchanged(S: Tensor, r: Tensor, active: Array) -> Exchanged:
    """The solutions for S (m, m) or (B, m, m) and r (B, m), begun with the rows `active` (B, m).

    All rows of the wrong sign are exchanged at once (Júdice & Pires 1994). Where that does not leave fewer of them than
    ever, only those are whose multiplier or slack is nearly as wrong as the worst, in units of √S_ii.
    """
    rows, m = r.shape
    small = m < GATHERED
    systems: Systems = Small(S, r) if small and r.device.type == "cpu" else Large(S, r)
    free = out = ~active
    taken = np.zeros(rows, dtype=np.int64)
    live, fewest, round_ = np.arange(rows), None, 0
    while True:
        round_ += 1
        values, after = systems.turn(free)
        wrong = after ^ free
        many = wrong.sum(1)
        open_ = many.nonzero()[0]
        left = len(open_)
        cheap = small or left <= max(1, rows // FEW)
        if not left or round_ >= (LONG_ROUNDS if cheap else ROUNDS):
            break
        taken[live[open_]] = round_
        if fewest is not None:
            tired = ((many >= fewest) & (many > 1)).nonzero()[0]
            if round_ > PATIENCE and len(tired):
                size = systems.sizes(values[tired], free[tired])
                wrong[tired] &= _worst(S, live[tired], size, free[tired])
                after = free ^ wrong
            many = np.minimum(fewest, many)
        fewest, free = many, after
        if left <= SHARE * len(many) and len(many) * m * m > WORK:
            out[live] = free
            live, fewest, free = live[open_], fewest[open_], free[open_]
            systems.select(open_)
    taken += 1
    taken[live[open_]] = 0
    out[live] = free
    act = torch.from_numpy(~out).to(r.device)
    y, last = systems.finish(act)
    return Exchanged(torch.where(act, y, 0.0), act, torch.from_numpy(taken).to(r.device), last, left)


def _worst(S: Tensor, samples: Array, value: Array, free: Array) -> Array:
    """Of some samples, the rows whose multipliers, or slacks where they are `free`, are nearly the worst, (k, m)."""
    diagonal = array(S.diagonal(dim1=-2, dim2=-1))
    diagonal = diagonal if S.ndim == 2 else diagonal[samples]
    unit = np.sqrt(np.maximum(diagonal, np.finfo(diagonal.dtype).tiny))
    size = np.where(free, value / unit, value * unit)
    return size <= LARGE * size.min(-1, keepdims=True)


class Small:
    """Few rows, on the host, with walls: (S + walls) y = −r says that the slack of a free row is −wall · y, so that one
    comparison of y finds the next active set.
    """

    def __init__(self, S: Tensor, r: Tensor) -> None:
        rows, m = r.shape
        self.height = wall(S.dtype)
        self.K = np.array(array(S.expand(rows, m, m)), order="C")
        self.diagonal = _diagonal(self.K)
        self.own = self.diagonal.copy()
        self.right = r.detach().neg().unsqueeze(-1)
        value = array(r)
        room = np.abs(value).max(1, keepdims=True) + 1 if m else value
        self.floor = room * (LOSS / self.height)
        self.live: Array | None = None

    def turn(self, free: Array) -> tuple[Array, Array]:
        self.diagonal[...] = np.where(free, self.height, self.own)
        self.F = regular(torch.from_numpy(self.K), torch.from_numpy(free))
        self.y = torch.cholesky_solve(self.right, self.F).squeeze(-1)
        values = array(self.y)
        return values, values <= self.floor

    def sizes(self, values: Array, free: Array) -> Array:
        return np.where(free, -self.height * values, values)

    def select(self, index: Array) -> None:
        self._keep()
        self.live = index if self.live is None else self.live[index]
        self.K, self.own, self.floor = self.K[index], self.own[index], self.floor[index]
        self.diagonal = _diagonal(self.K)
        self.right = self.right.index_select(0, torch.from_numpy(index))

    def finish(self, active: Tensor) -> tuple[Tensor, Active | None]:
        self._keep()
        return self.whole[0], Active(self.whole[1], None, active)

    def _keep(self) -> None:
        if self.live is None:
            self.whole = self.y, self.F
        else:
            for t, value in zip(self.whole, (self.y, self.F), strict=True):
                array(t)[self.live] = array(value)


class Large:
    """Many rows, or on another device than the host: the active ones are gathered."""

    def __init__(self, S: Tensor, r: Tensor) -> None:
        self.S, self.right = S, -r.unsqueeze(-1)
        room = r.abs().amax(-1, keepdim=True).add_(1).mul_(LOSS) if r.shape[-1] else r
        self.floor = (r + room).unsqueeze(-1)
        self.live: Tensor | None = None

    def turn(self, free: Array) -> tuple[Array, Array]:
        out = torch.from_numpy(free).to(self.right.device)
        self.last = factor(self.S, ~out)
        self.y = self.last.near(self.right)
        values = array(torch.where(out.unsqueeze(-1), _slack(self.S, self.y, self.floor), self.y))[..., 0]
        return values, (values <= 0) ^ free

    def sizes(self, values: Array, free: Array) -> Array:
        return values

    def select(self, index: Array) -> None:
        self._keep()
        within = torch.from_numpy(index).to(self.right.device)
        self.live = within if self.live is None else self.live[within]
        self.right, self.floor = self.right.index_select(0, within), self.floor.index_select(0, within)
        if self.S.ndim == 3:
            self.S = self.S.index_select(0, within)

    def finish(self, active: Tensor) -> tuple[Tensor, Active | None]:
        self._keep()
        return self.whole.squeeze(-1), self.last if self.live is None else None

    def _keep(self) -> None:
        self.whole = self.y if self.live is None else self.whole.index_copy_(0, self.live, self.y)


def _diagonal(K: Array) -> Array:
    """A view."""
    return np.einsum("bii->bi", K)


def _slack(S: Tensor, y: Tensor, floor: Tensor) -> Tensor:
    """floor + S y, of columns, for S (m, m) or (B, m, m), which is symmetric."""
    if S.ndim == 2:
        return torch.addmm(floor.squeeze(-1), y.squeeze(-1), S).unsqueeze(-1)
    if S.shape[-1] < GATHERED:
        return torch.baddbmm(floor, S, y)
    return torch.baddbmm(floor.mT, y.mT, S).mT  # as rows it takes half the time
