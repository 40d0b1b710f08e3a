"""Projections on products of self-dual cones, their smoothings and derivatives; symmetric matrices as vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from . import spectral

WEAK = 1e-7
"""Relative to the largest entry: what counts as zero of slack and multiplier."""


@dataclass(frozen=True)
class Cones:
    """{0}^zero × R₊^nonneg × Q^k × … × S₊^k × …: second-order cones Q^k = {(t, y): t ≥ ‖y‖} by length `second`, and
    semidefinite matrices of `orders` k as `svec` vectors of length k (k + 1) / 2.

    `mu` > 0 smooths the projection Π: s = Π(w) and y = s − w then are on the central path of the barriers −μ log s of
    numbers, −μ log(t² − ‖x‖²) of second-order cones and −μ log det S of matrices, of which those that are `sharp`, by
    number, have none. In the algebra of each cone s ∘ y = m e, m = μ but 2 μ in second-order cones, and
    s = ½ (w + (w² + 4 m e)^½) (Fukushima, Luo & Tseng 2001).
    """

    zero: int
    nonneg: int
    orders: tuple[int, ...]
    second: tuple[int, ...] = ()
    mu: float = 0.0
    sharp: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """The length of an element."""
        return self.zero + self.nonneg + sum(self.second) + sum(k * (k + 1) // 2 for k in self.orders)

    @cached_property
    def padded(self) -> tuple[Tensor, Tensor]:
        """Of the second-order cones: (cones, longest) places among their entries, and which of these there are."""
        longest = max(self.second)
        places, at = torch.zeros(len(self.second), longest, dtype=torch.int64), 0
        for cone, k in enumerate(self.second):
            places[cone, :k] = torch.arange(at, at + k)
            at += k
        return places, torch.arange(longest) < torch.tensor(self.second).unsqueeze(-1)

    @property
    def plain(self) -> bool:
        """Whether there are single entries, or nothing at all."""
        return self.zero + self.nonneg > 0 or not self.size

    @cached_property
    def uniform(self) -> bool:
        """Whether all second-order cones are of one length."""
        return len(set(self.second)) == 1

    def pad(self, v: Tensor) -> Tensor:
        """The entries of second-order cones (B, entries) as (B, cones, longest), zero where a cone is shorter."""
        if self.uniform:
            return v.unflatten(-1, (len(self.second), self.second[0]))
        places, there = self.padded
        return torch.where(there.to(v.device), v[:, places], 0.0)

    def unpad(self, v: Tensor) -> Tensor:
        """The inverse of `pad`."""
        return v.flatten(-2) if self.uniform else v[:, self.padded[1]]

    def project(self, w: Tensor) -> Tensor:
        """Π(w), (B, size), with the derivative `slope`."""
        zero, nonneg, second, *matrices = self.parts(w)
        found = [torch.zeros_like(zero), self._positive(nonneg)] if self.plain else []
        if self.second:
            q = self.pad(second)
            found.append(self.unpad(_smooth_second(q, 2 * self.mu) if self.mu else _second(q)))
        for i, (k, v) in enumerate(zip(self.orders, matrices, strict=True)):
            W, R = _matrix(v, k)
            found.append(spectral.project(W, self._mu_of(i)).flatten(-2) @ R.mT)
        return torch.cat(found, -1) if len(found) != 1 else found[0]

    def slope(self, w: Tensor) -> Tensor:
        """DΠ(w), (B, size, size): symmetric, with eigenvalues in [0, 1]."""
        zero, nonneg, second, *matrices = self.parts(w)
        blocks: list[Tensor] = []
        if self.plain:
            blocks.append(torch.diag_embed(torch.cat([torch.zeros_like(zero), self._positive_slope(nonneg)], -1)))
        if self.second:
            q = self.pad(second)
            slopes = _smooth_second_slope(q, 2 * self.mu) if self.mu else _second_slope(q)
            if self.uniform:
                blocks.append(torch.diag_embed(slopes.movedim(1, -1), dim1=1, dim2=3).flatten(3, 4).flatten(1, 2))
            else:
                blocks += [slopes[:, cone, :k, :k] for cone, k in enumerate(self.second)]
        for i, (k, v) in enumerate(zip(self.orders, matrices, strict=True)):
            W, R = _matrix(v, k)
            blocks.append(spectral.slope(W, R.unflatten(-1, (k, k)), self._mu_of(i)).flatten(-2) @ R.mT)
        return _block_diagonal(blocks) if len(blocks) != 1 else blocks[0]

    def _positive(self, w: Tensor) -> Tensor:
        if not self.mu:
            return w.clamp(min=0)
        size = (w.square() + 4 * self.mu).sqrt()  # of which w < 0 would cancel
        return torch.where(w > 0, 0.5 * (w + size), 2 * self.mu / (size - w.clamp(max=0)))

    def _positive_slope(self, w: Tensor) -> Tensor:
        return self._positive(w) / (w.square() + 4 * self.mu).sqrt() if self.mu else (w > 0).to(w.dtype)

    def _mu_of(self, matrix: int) -> float:
        return 0.0 if matrix in self.sharp else self.mu

    def weak(self, w: Tensor) -> Tensor:
        """How many numbers, second-order cones and eigenvalues are active without a multiplier: w = s − y is where the
        projection has a kink. (B,)"""
        _, nonneg, second, *matrices = self.parts(w)
        near = WEAK * (1 + w.abs().amax(-1, keepdim=True))
        count = (nonneg.abs() <= near).sum(-1)
        if self.second:
            q = self.pad(second)
            count = count + ((q[..., 0].abs() - q[..., 1:].norm(dim=-1)).abs() <= near).sum(-1)
        for k, v in zip(self.orders, matrices, strict=True):
            count = count + (spectral.eigen(_matrix(v, k)[0])[0].abs() <= near).sum(-1)
        return count

    def parts(self, w: Tensor) -> list[Tensor]:
        """The pieces of w: zeros, nonnegative ones, all of the second-order cones, a matrix each."""
        lengths = [self.zero, self.nonneg, sum(self.second), *(k * (k + 1) // 2 for k in self.orders)]
        return list(w.split(lengths, -1))


def _radius(w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """t, y, ‖y‖ (…, 1), and where (t, y) is outside of the cone and of its polar; elsewhere ‖y‖ may not be zero."""
    t, y = w[..., :1], w[..., 1:]
    square = y.square().sum(-1, keepdim=True)
    outside = square > t.square()
    return t, y, torch.where(outside, square, 1.0).sqrt(), outside


def _second(w: Tensor) -> Tensor:
    """Projection on second-order cones, (…, k): w inside, 0 in the polar cone, else ½ (1 + t/‖y‖) (‖y‖, y)."""
    t, y, r, outside = _radius(w)
    between = 0.5 * (1 + t / r) * torch.cat([r, y], -1)
    return torch.where(outside, between, torch.where(t > 0, w, 0.0))


def _second_slope(w: Tensor) -> Tensor:
    """Its derivative, (…, k, k): ½ [[1, uᵀ], [u, (1 + t/r) I − (t/r) u uᵀ]], u = y/r, outside; else I or 0."""
    t, y, r, outside = _radius(w)
    u, ratio = y / r, (t / r).unsqueeze(-1)
    eye = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device)
    corner = torch.ones_like(ratio)
    inner = (1 + ratio) * eye[1:, 1:] - ratio * (u.unsqueeze(-1) * u.unsqueeze(-2))
    top = torch.cat([corner, u.unsqueeze(-2)], -1)
    between = 0.5 * torch.cat([top, torch.cat([u.unsqueeze(-1), inner], -1)], -2)
    return torch.where(outside.unsqueeze(-1), between, torch.where((t > 0).unsqueeze(-1), eye, 0.0))


def _root(w: Tensor, mu: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """t, y, the first entry of b = (w² + 4 μ e)^½, whose others are t y over it, and det b: smooth in t and y.

    With r = √((t ± ‖y‖)² + 4 μ), the eigenvalues of b, det b = r₊ r₋ and b = (½ (r₊ + r₋), 2 t y / (r₊ + r₋)).
    """
    t, y = w[..., :1], w[..., 1:]
    a, c = t.square(), y.square().sum(-1, keepdim=True)
    det = ((a - c).square() + 8 * mu * (a + c) + 16 * mu * mu).sqrt()
    first = (0.5 * (a + c + 4 * mu + det)).sqrt()
    return t, y, first, det


def _smooth_second(w: Tensor, mu: float) -> Tensor:
    """½ (w + b), (…, k)."""
    t, y, first, _ = _root(w, mu)
    return 0.5 * torch.cat([t + first, (1 + t / first) * y], -1)


def _smooth_second_slope(w: Tensor, mu: float) -> Tensor:
    """Its derivative ½ (I + L(b)⁻¹ L(w)), (…, k, k), L(w) = [[t, yᵀ], [y, t I]] the product with w: from b² = w² + 4 μ
    e follows b ∘ db = w ∘ dw."""
    t, y, first, det = _root(w, mu)
    ratio = t / first
    corner = t * (first - y.square().sum(-1, keepdim=True) / first) / det
    side = (first - t * ratio) / det * y
    eye = torch.eye(y.shape[-1], dtype=w.dtype, device=w.device)
    bend = (ratio * (ratio.square() - 1) / det).unsqueeze(-1)
    inner = ratio.unsqueeze(-1) * eye + bend * (y.unsqueeze(-1) * y.unsqueeze(-2))
    top = torch.cat([corner, side], -1).unsqueeze(-2)
    both = torch.cat([top, torch.cat([side.unsqueeze(-1), inner], -1)], -2)
    return 0.5 * (torch.eye(w.shape[-1], dtype=w.dtype, device=w.device) + both)


def triangle(k: int) -> tuple[Tensor, Tensor]:
    """Row and column of the entries of `svec`: the upper triangle, column by column."""
    columns, rows = torch.tril_indices(k, k)
    return rows, columns


def svec_matrix(k: int) -> Tensor:
    """(k (k + 1) / 2, k²) in float64: svec of the symmetric part of a flattened matrix. Its transpose is `smat`.

    Entries off the diagonal count √2, so that inner products are kept.
    """
    rows, columns = triangle(k)
    weight = torch.full(rows.shape, math.sqrt(0.5), dtype=torch.float64).masked_fill(rows == columns, 1.0)
    at = torch.arange(len(rows))
    R = torch.zeros(len(rows), k * k, dtype=torch.float64)
    R[at, rows * k + columns] = weight
    R[at, columns * k + rows] = weight
    return R


def _matrix(v: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The symmetric matrix of an `svec` vector; and `svec_matrix`."""
    R = svec_matrix(k).to(v)
    return (v @ R).unflatten(-1, (k, k)), R


def _block_diagonal(blocks: list[Tensor]) -> Tensor:
    total = sum(b.shape[-1] for b in blocks)
    found: list[Tensor] = []
    at = 0
    for b in blocks:
        k = b.shape[-1]
        found.append(torch.nn.functional.pad(b, (at, total - at - k)))
        at += k
    return torch.cat(found, -2)
