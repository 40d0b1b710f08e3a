"""Optimality conditions of separable programs, linearised: a diagonal, bordered by rows and bounds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .quadratic import plus, times

REDUNDANT, WEAK = 1e-12, 1e-9
"""What is added to the diagonal of a matrix of rows, relative to it; a pivot so small, likewise, is that of a row which
follows from others."""


class Bordered(NamedTuple):
    """∂F of F(x, y, z) = [φ′ + Cᵀy + Sᵀz; C x − d, or min(y, d − C x); min(z, …)], row by row of a batch.

    H (B, n) is φ″, `free` (B, n) its inverse where no bound holds an entry, else zero. C (B, k, n) are the rows, the
    first of them equations: `sense` (B, k) is 1 there and −1 in rows of the form min(y, d − C x); `on` (B, k) marks
    those that hold with equality. Bound j is on entry place[j] with slope s[j], both (B, b), and `held` (B, b) where it
    holds with equality. L (B, k, k): Cholesky of C H⁻¹ Cᵀ over the rows that are on and the entries that no bound
    holds, `size` (B, k) its diagonal before.
    """

    H: Tensor
    free: Tensor
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
        place, s, free = place.expand(rows, b), s.expand(rows, b), H.reciprocal()
        if b:
            free = torch.where(_spread(held.to(H.dtype), place, H) > 0, 0.0, free)
        active = torch.where(on.unsqueeze(-1), C, 0.0)
        S = torch.bmm(active * free.unsqueeze(-2), active.mT)
        diagonal = S.diagonal(dim1=-2, dim2=-1)
        size = diagonal + (diagonal == 0)  # rows that are off, or follow from bounds alone, hold by themselves
        diagonal.add_(size, alpha=REDUNDANT).masked_fill_(~on, 1.0)
        L = torch.linalg.cholesky_ex(S)[0]
        return cls(H, free, C.expand(rows, *C.shape[-2:]), sense.expand_as(on), on, place, s, held, L, size)

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
        """∂F⁻¹ b, or ∂F⁻ᵀ b, for b (B, n + k + bounds): three products with C and two substitutions of order k.

        H x + Cᵀy + Sᵀz = f with C x = g in the rows that are on and x = t/s where a bound holds an entry, up to signs;
        other multipliers are g and t (transposed: what C x and S x leave of these, and zero in the first equation).
        """
        n, k, bounds = self.H.shape[-1], self.C.shape[-2], self.held.shape[-1]
        f, g, t = b[:, :n], b[:, n : n + k], b[:, n + k :]
        C = self.C[0] if self.C.stride(0) == 0 < len(self.C) else self.C  # one matrix: one product
        fixed, slope = None, self.s if transposed else -self.s
        if bounds:
            fixed = _spread(torch.where(self.held, t / slope, 0.0), self.place, f)
            if not transposed:
                f = f - _spread(torch.where(self.held, 0.0, self.s * t), self.place, f)
        pushed = f if transposed else plus(f, g.masked_fill(self.on, 0.0), C, of_x=-1)
        right = times(C, self._entries(pushed, fixed))
        if transposed:
            right = torch.where(self.on, right - g, 0.0)
        else:
            right = torch.where(self.on, right - self.sense * g, g)
        y = torch.cholesky_solve(right.unsqueeze(-1), self.L).squeeze(-1)
        rest = plus(f, y, C, of_x=-1)
        x = self._entries(rest, fixed)
        if transposed:
            y = torch.where(self.on, self.sense * y, g - times(C, x))
        if not bounds:
            return torch.cat([x, y], -1)
        z = (self.H * x - rest).gather(1, self.place) / slope
        return torch.cat(
            [x, y, torch.where(self.held, z, t - self.s * x.gather(1, self.place) if transposed else t)], -1
        )

    def _entries(self, f: Tensor, fixed: Tensor | None) -> Tensor:
        """f / H, and what bounds fix."""
        return self.free * f if fixed is None else torch.addcmul(fixed, self.free, f)


def _spread(t: Tensor, place: Tensor, like: Tensor) -> Tensor:
    """Σ over the bounds of an entry, (B, b) to the shape of `like` (B, n)."""
    return torch.zeros_like(like).scatter_add(1, place, t)
