"""Exchanges of rows until 0 ≤ y ⊥ S y + r ≥ 0: block principal pivoting, a batch at a time.

Which rows are active is kept by the host, which has to know it anyway, and whose operators cost a tenth of torch's.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ..host import Array, array
from .dual import GATHERED, WALL, Active, factor, regular

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
"""A slack that counts as zero, relative to its `room`."""


class Systems(Protocol):
    """S y = −r on the active rows, of the samples that are open; whether a round of few samples costs no less."""

    small: bool

    def turn(self, free: Array) -> tuple[Array, Array]:
        """Values with the signs of the multipliers, or of the slacks in `free` rows; the rows that are free next. Cost
        k³/3 a sample with k active rows."""
        ...

    def sizes(self, samples: Array, values: Array, free: Array) -> Array:
        """The multipliers and slacks that such values of some samples stand for, in units of √S_ii."""
        ...

    def select(self, index: Array) -> None:
        """Go on with the samples at `index` of those that are open."""
        ...

    def finish(self, free: Array) -> tuple[Tensor, Tensor, Active | None]:
        """y of all samples (B, m), zero on the rows `free` of their last turns, the active rows, and the factor of all
        if it is at hand."""
        ...


class Exchanged(NamedTuple):
    """y (B, m), its active rows, the rounds that were taken (B,) (0: not found), the factor of all samples if it is at
    hand, and how many samples were not found."""

    y: Tensor
    active: Tensor
    rounds: Tensor
    factor: Active | None
    lost: int


def systems_of(S: Tensor, r: Tensor) -> Systems:
    """Those of S (m, m) or (B, m, m) and r (B, m)."""
    rows, m = r.shape
    if m >= GATHERED or r.device.type != "cpu":
        return Large(S, r)
    K = np.zeros((rows, m + 1, m + 1), array(r).dtype)
    K[:, :m, :m], K[:, m, :m] = array(S), array(r)
    return Small(K)


@np.errstate(over="ignore", invalid="ignore")
def exchanged(systems: Systems, active: Array) -> Exchanged:
    """The solutions, begun with the rows `active` (B, m).

    All rows of the wrong sign are exchanged at once (Júdice & Pires 1994). Where that does not leave fewer of them than
    ever, only those are whose multiplier or slack is nearly as wrong as the worst, in units of √S_ii.
    """
    rows, m = active.shape
    small = systems.small
    free = out = ~active
    taken = np.zeros(rows, dtype=np.int64)
    live, fewest, round_ = np.arange(rows), None, 0
    while True:
        round_ += 1
        values, after = systems.turn(free)
        wrong = after ^ free
        many = np.add.reduce(wrong, 1)  # sum() takes twice as long
        open_ = many.nonzero()[0]
        left = len(open_)
        if not left or round_ >= (LONG_ROUNDS if small or left <= max(1, rows // FEW) else ROUNDS):
            break
        taken[live[open_]] = round_
        if fewest is not None:
            if round_ > PATIENCE and len(tired := ((many >= fewest) & (many > 1)).nonzero()[0]):
                size = systems.sizes(tired, values[tired], free[tired])
                wrong[tired] &= size <= LARGE * size.min(-1, keepdims=True)
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
    y, act, last = systems.finish(out)
    return Exchanged(y, act, torch.from_numpy(taken).to(y.device), last, left)


def _units(diagonal: Array) -> Array:
    """√S_ii."""
    return np.sqrt(np.maximum(diagonal, np.finfo(diagonal.dtype).tiny))


class Small:
    """Few rows, on the host, with walls: (S + walls) y = −r says that the slack of a free row is −wall · y, so that one
    comparison of y finds the next active set.

    r is one more row, with a wall w of its own: then the last row of the factor L is that of (S + walls)⁻¹ r, half way,
    and Lᵀ [y; 1] = [0; √w] is all that is left to solve. K = [S; rᵀ] (B, m + 1, m + 1), of which the last column is not
    read, has other numbers on its diagonal until the end.
    """

    small = True

    def __init__(self, K: Array) -> None:
        rows, m = len(K), K.shape[-1] - 1
        self.m, self.height = m, float(np.finfo(K.dtype).max) ** WALL
        r, K[:, m, m] = K[:, m, :m], self.height
        self.K, self.diagonal = K, _diagonal(K)
        self.own = self.diagonal.copy()
        self.given = self.diagonal, self.own
        right = np.zeros((rows, m + 1, 1), K.dtype)
        right[:, m] = self.height**0.5
        self.right = torch.from_numpy(right)
        self.floor = room(r) * (LOSS / self.height)
        self.live: Array | None = None

    def turn(self, free: Array) -> tuple[Array, Array]:
        self.diagonal[...] = np.where(free, self.height, self.own)
        self.F = regular(torch.from_numpy(self.K))
        self.y = torch.linalg.solve_triangular(self.F.mT, self.right[: len(free)], upper=True)
        values = array(self.y)[:, : self.m, 0]
        return values, values <= self.floor

    def sizes(self, samples: Array, values: Array, free: Array) -> Array:
        unit = _units(self.own[samples])
        return np.where(free, -self.height * values / unit, values * unit)

    def select(self, index: Array) -> None:
        self._keep()
        self.live = index if self.live is None else self.live[index]
        self.K, self.own, self.floor = self.K[index], self.own[index], self.floor[index]
        self.diagonal = _diagonal(self.K)

    def finish(self, free: Array) -> tuple[Tensor, Tensor, Active | None]:
        self._keep()
        self.given[0][...] = self.given[1]
        y, F = self.whole
        values, act = np.where(free, 0.0, array(y)[:, : self.m, 0]), torch.from_numpy(~free)
        return torch.from_numpy(values), act, Active(F[:, : self.m, : self.m], None, act)

    def _keep(self) -> None:
        if self.live is None:
            self.whole = self.y, self.F
        else:
            for t, value in zip(self.whole, (self.y, self.F), strict=True):
                array(t)[self.live] = array(value)


class Large:
    """Many rows, or on another device than the host: the active ones are gathered."""

    small = False

    def __init__(self, S: Tensor, r: Tensor) -> None:
        self.S, self.right = S, -r.unsqueeze(-1)
        self.floor = (r + LOSS * torch.from_numpy(room(array(r))).to(r)).unsqueeze(-1)
        self.live: Tensor | None = None

    def turn(self, free: Array) -> tuple[Array, Array]:
        out = torch.from_numpy(free).to(self.right.device)
        self.last = factor(self.S, ~out)
        self.y = self.last.near(self.right)
        values = array(torch.where(out.unsqueeze(-1), _slack(self.S, self.y, self.floor), self.y))[..., 0]
        return values, (values <= 0) ^ free

    def sizes(self, samples: Array, values: Array, free: Array) -> Array:
        diagonal = array(self.S.diagonal(dim1=-2, dim2=-1))
        unit = _units(diagonal if self.S.ndim == 2 else diagonal[samples])
        return np.where(free, values / unit, values * unit)

    def select(self, index: Array) -> None:
        self._keep()
        within = torch.from_numpy(index).to(self.right.device)
        self.live = within if self.live is None else self.live[within]
        self.right, self.floor = self.right.index_select(0, within), self.floor.index_select(0, within)
        if self.S.ndim == 3:
            self.S = self.S.index_select(0, within)

    def finish(self, free: Array) -> tuple[Tensor, Tensor, Active | None]:
        self._keep()
        act = torch.from_numpy(~free).to(self.right.device)
        return torch.where(act, self.whole.squeeze(-1), 0.0), act, self.last if self.live is None else None

    def _keep(self) -> None:
        self.whole = self.y if self.live is None else self.whole.index_copy_(0, self.live, self.y)


def dot(x: Array, y: Array) -> Array:
    """Of rows (B, m), (B, 1): as products of matrices the fastest way."""
    return (x[:, None] @ y[..., None])[..., 0]


def room(r: Array) -> Array:
    """The size of the terms of each slack, (B, m): 1 + |rᵢ|, and what is violated at y = 0, which says how large y will
    be. A row that is far from active tells nothing about others."""
    wrong = np.minimum(r, 0)
    return np.abs(r) + (1 + dot(wrong, wrong) ** 0.5)


def _diagonal(K: Array) -> Array:
    """A view, but for the last entry."""
    return np.einsum("bii->bi", K)[:, :-1]


def _slack(S: Tensor, y: Tensor, floor: Tensor) -> Tensor:
    """floor + S y, of columns, for S (m, m) or (B, m, m), which is symmetric."""
    if S.ndim == 2:
        return torch.addmm(floor.squeeze(-1), y.squeeze(-1), S).unsqueeze(-1)
    if S.shape[-1] < GATHERED:
        return torch.baddbmm(floor, S, y)
    return torch.baddbmm(floor.mT, y.mT, S).mT  # as rows it takes half the time
