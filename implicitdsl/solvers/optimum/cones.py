"""Euclidean projections on products of self-dual cones and their derivatives; symmetric matrices as vectors."""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)
from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

WEAK = 1e-7
"""Relative to the largest entry: what counts as zero of slack and multiplier."""


@dataclass(frozen=True)
class Cones:
    """{0}^zero × R₊^nonneg × Q^k × … × S₊^k × …: second-order cones Q^k = {(t, y): t ≥ ‖y‖} by length `second`, and
    semidefinite matrices of `orders` k as `svec` vectors of length k (k + 1) / 2.
    """

    zero: int
    nonneg: int
    orders: tuple[int, ...]
    second: tuple[int, ...] = ()

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
        found = [torch.zeros_like(zero), nonneg.clamp(min=0)] if self.plain else []
        if self.second:
            found.append(self.unpad(_second(self.pad(second))))
        found += [_Projection.apply(v, k) for k, v in zip(self.orders, matrices, strict=True)]
        return torch.cat(found, -1) if len(found) != 1 else found[0]

    def slope(self, w: Tensor) -> Tensor:
        """DΠ(w), (B, size, size): symmetric, with eigenvalues in [0, 1]."""
        zero, nonneg, second, *matrices = self.parts(w)
        blocks: list[Tensor] = []
        if self.plain:
            blocks.append(torch.diag_embed(torch.cat([torch.zeros_like(zero), (nonneg > 0).to(w.dtype)], -1)))
        if self.second:
            slopes = _second_slope(self.pad(second))
            if self.uniform:
                blocks.append(torch.diag_embed(slopes.movedim(1, -1), dim1=1, dim2=3).flatten(3, 4).flatten(1, 2))
            else:
                blocks += [slopes[:, cone, :k, :k] for cone, k in enumerate(self.second)]
        blocks += [_Slope.apply(v, k) for k, v in zip(self.orders, matrices, strict=True)]
        return _block_diagonal(blocks) if len(blocks) != 1 else blocks[0]

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
            count = count + (_eigen(v, k)[0].abs() <= near).sum(-1)
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


def _eigen(v: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    R = svec_matrix(k).to(v)
    finite = v.isfinite().all(-1, keepdim=True)
    values, vectors = torch.linalg.eigh((torch.where(finite, v, 0.0) @ R).unflatten(-1, (k, k)))
    return torch.where(finite, values, torch.nan), vectors, R


class _Projection(torch.autograd.Function):
    """On the semidefinite matrices of order k, as `svec` vectors."""

    generate_vmap_rule = True

    @staticmethod
    def forward(w: Tensor, k: int) -> Tensor:
        values, V, R = _eigen(w, k)
        return ((V * values.clamp(min=0).unsqueeze(-2)) @ V.mT).flatten(-2) @ R.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.order = inputs[1]
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (w,) = ctx.saved_tensors
        return (_Slope.apply(w, ctx.order) @ g.unsqueeze(-1)).squeeze(-1), None

    @staticmethod
    def jvp(ctx: Any, t: Tensor, _: None) -> Tensor:
        (w,) = ctx.saved_tensors
        return (_Slope.apply(w, ctx.order) @ t.unsqueeze(-1)).squeeze(-1)


class _Slope(torch.autograd.Function):
    """Its derivative, (…, d, d); differentiable where no eigenvalue is zero."""

    generate_vmap_rule = True

    @staticmethod
    def forward(w: Tensor, k: int) -> Tensor:
        values, V, R = _eigen(w, k)
        gap = values.unsqueeze(-1) - values.unsqueeze(-2)
        up = values.clamp(min=0)
        same = gap.abs() <= 1e-14 * values.abs().amax(-1)[..., None, None].clamp(min=1e-300)
        ratio = (up.unsqueeze(-1) - up.unsqueeze(-2)) / torch.where(same, 1.0, gap)
        both = ((values.unsqueeze(-1) > 0) & (values.unsqueeze(-2) > 0)).to(w.dtype)
        weight = torch.where(same, both, ratio)
        # V (weight ∘ (Vᵀ E V)) Vᵀ of every basis matrix E
        basis = R.unflatten(-1, (k, k))
        inner = V.mT.unsqueeze(-3) @ basis @ V.unsqueeze(-3)
        outer = V.unsqueeze(-3) @ (weight.unsqueeze(-3) * inner) @ V.mT.unsqueeze(-3)
        return outer.flatten(-2) @ R.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.order = inputs[1]
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (w,) = ctx.saved_tensors
        pull = torch.func.vjp(lambda w: _slope(w, ctx.order), w)[1]
        return pull(g)[0], None

    @staticmethod
    def jvp(ctx: Any, t: Tensor, _: None) -> Tensor:
        (w,) = ctx.saved_tensors
        return torch.func.jvp(lambda w: _slope(w, ctx.order), (w,), (t,))[1]


def _slope(w: Tensor, k: int) -> Tensor:
    """The same, of twice the cost, by what can be differentiated again: with |W| = 2 Π(W) − W the derivative of |W| in
    the direction E is the X with |W| X + X |W| = W E + E W, as |W|² = W²."""
    R = svec_matrix(k).to(w)
    basis = R.unflatten(-1, (k, k))

    def matrix(v: Tensor) -> Tensor:
        return (v @ R).unflatten(-1, (k, k))

    W = matrix(w).unsqueeze(-3)
    X = _Lyapunov.apply(matrix(2 * _Projection.apply(w, k) - w), W @ basis + basis @ W)
    return 0.5 * (basis + X).flatten(-2) @ R.mT


class _Lyapunov(torch.autograd.Function):
    """X with A X + X A = M, for A (…, k, k) symmetric and definite and M (…, d, k, k). O(d k³)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor, M: Tensor) -> Tensor:
        values, V = torch.linalg.eigh(A)
        total = values.unsqueeze(-1) + values.unsqueeze(-2)
        flat = total <= 1e-14 * values.amax(-1)[..., None, None]
        weight = torch.where(flat, 0.0, 1 / torch.where(flat, 1.0, total)).unsqueeze(-3)
        V = V.unsqueeze(-3)
        return V @ (weight * (V.mT @ M @ V)) @ V.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        A, X = ctx.saved_tensors
        u = _Lyapunov.apply(A, g)
        return -(u @ X.mT + X.mT @ u).sum(-3), u

    @staticmethod
    def jvp(ctx: Any, a: Tensor, m: Tensor) -> Tensor:
        A, X = ctx.saved_tensors
        a = a.unsqueeze(-3)
        return _Lyapunov.apply(A, m - a @ X - X @ a)


def _block_diagonal(blocks: list[Tensor]) -> Tensor:
    total = sum(b.shape[-1] for b in blocks)
    found: list[Tensor] = []
    at = 0
    for b in blocks:
        k = b.shape[-1]
        found.append(torch.nn.functional.pad(b, (at, total - at - k)))
        at += k
    return torch.cat(found, -2)
