"""Optimality conditions of separable programs, linearised: a diagonal, bordered by rows and bounds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .quadratic import times, times_transposed

REDUNDANT, WEAK = 1e-12, 1e-9
"""What is added to the diagonal of a matrix of rows, relative to it; a pivot so small, likewise, is that of a row which
follows from others."""


class Bordered(NamedTuple):
    """∂F of F(x, y, z) = [φ′ + Cᵀy + Sᵀz; C x − d, or min(y, d − C x); min(z, …)], row by row of a batch.

    H (B, n) is φ″, C (B, k, n) the rows, of which the first are equations: `sense` (B, k) is 1 there and −1 in rows of
    the form min(y, d − C x); `on` (B, k) marks those that hold with equality. Bound j is on entry place[j] with slope
    s[j], both (B, b), and `held` (B, b) where it holds with equality. L (B, k, k): Cholesky of C H⁻¹ Cᵀ over the rows
    that are on and the entries that no bound holds, `size` (B, k) its diagonal before.
    """

    H: Tensor
    C: Tensor
    sense: Tensor
    on: Tensor
    place: Tensor
    s: Tensor
    held: Tensor
    L: Tensor
    size: Tensor

    @classmethod
    def of(cls, H: Tensor, C: Tensor, sense: Tensor, on: Tensor, place: Tensor, s: Tensor, held: Tensor) -> Bordered:
        """The factor; C (k, n) or (B, k, n), place and s (b,). Cost k² n + k³/3 flops a sample."""
        rows, b = H.shape[0], held.shape[-1]
        C, place, s = C.expand(rows, *C.shape[-2:]), place.expand(rows, b), s.expand(rows, b)
        free = 1 / H if not b else torch.where(_spread(held.to(H.dtype), place, H) > 0, 0.0, 1 / H)
        active = torch.where(on.unsqueeze(-1), C, 0.0)
        S = torch.bmm(active * free.unsqueeze(-2), active.mT)
        diagonal = S.diagonal(dim1=-2, dim2=-1)
        size = diagonal + (diagonal == 0)  # rows that are off, or follow from bounds alone, hold by themselves
        diagonal.copy_(torch.where(on, diagonal + REDUNDANT * size, 1.0))
        return cls(H, C, sense.expand_as(on), on, place, s, held, torch.linalg.cholesky_ex(S)[0], size)

    def weak(self) -> Tensor:
        """Whether rows that are on follow from others, (B,): the multipliers are not unique then."""
        pivots = self.L.diagonal(dim1=-2, dim2=-1).square()
        return (self.on & ~(pivots > WEAK * self.size)).any(-1)

    @property
    def shared(self) -> bool:
        """Whether one matrix serves the whole batch: never."""
        return False

    def is_singular(self) -> Tensor:
        """Whether the multipliers are not unique, (B,); the entries may still be."""
        return self.weak()

    def solve(self, b: Tensor, transposed: bool = False) -> Tensor:
        """∂F⁻¹ b, or ∂F⁻ᵀ b, for b (B, n + k + bounds): two products with C and two substitutions of order k."""
        n, k = self.H.shape[-1], self.C.shape[-2]
        f, g, t = b[:, :n], b[:, n : n + k], b[:, n + k :]
        off = torch.where(self.on, 0.0, g)
        if transposed:
            x, y, z = self._solved(f, torch.where(self.on, g, 0.0), t / self.s)
            y = torch.where(self.on, self.sense * y, off - times(self.C, x))
            z = torch.where(self.held, -z, t - self.s * x.gather(1, self.place)) if t.shape[-1] else t
        else:
            f = f - times_transposed(self.C, off)
            if t.shape[-1]:
                f = f - _spread(torch.where(self.held, 0.0, self.s * t), self.place, f)
            x, y, z = self._solved(f, torch.where(self.on, self.sense * g, 0.0), -t / self.s)
            y, z = torch.where(self.on, y, off), torch.where(self.held, z, t)
        return torch.cat([x, y, z], -1)

    def _solved(self, f: Tensor, g: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """H x + Cᵀy + Sᵀz = f, C x = g in the rows that are on, x = t where a bound holds an entry; y, z else zero."""
        free, x = 1 / self.H, f / self.H
        if t.shape[-1]:
            kept = _spread(self.held.to(f.dtype), self.place, f)
            free = torch.where(kept > 0, 0.0, free)
            x = torch.where(kept > 0, _spread(torch.where(self.held, t, 0.0), self.place, f), x)
        right = torch.where(self.on, times(self.C, x) - g, 0.0)
        y = torch.cholesky_solve(right.unsqueeze(-1), self.L).squeeze(-1)
        pull = times_transposed(self.C, y)
        x = x - free * pull
        if not t.shape[-1]:
            return x, y, t
        z = (f - self.H * x - pull).gather(1, self.place) / self.s
        return x, y, torch.where(self.held, z, 0.0)


def _spread(t: Tensor, place: Tensor, like: Tensor) -> Tensor:
    """Σ over the bounds of an entry, (B, b) to the shape of `like` (B, n)."""
    return torch.zeros_like(like).scatter_add(1, place, t)
