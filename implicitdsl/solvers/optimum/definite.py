"""Nesterov–Todd scaling of products of the nonnegative orthant, second-order cones and semidefinite matrices."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .cones import Cones, svec_matrix
from .nesterov_todd import Algebra, Scaling, Shape


class Layout(NamedTuple):
    """Where the rows of a product of cones stand among those that are scaled: nonnegative ones, second-order cones
    padded to one length, `svec` vectors.

    `places` (m',) says which row each is, `mask` which of them there are; `second` has at least one cone, a 1 alone
    where there is none. `orders` and `bases` are those of the matrices.
    """

    second: Shape
    places: Tensor
    mask: Tensor
    dummy: bool
    orders: tuple[int, ...]
    bases: tuple[Tensor, ...]

    @staticmethod
    def of(cones: Cones, like: Tensor) -> Layout:
        """That of the cones beside equalities."""
        plain, device = cones.nonneg, like.device
        padded, there = cones.padded if cones.second else (torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1) > 0)
        at = plain + sum(cones.second)
        rest = torch.arange(at, cones.size - cones.zero)
        among = plain + padded.flatten() if cones.second else torch.zeros(1, dtype=torch.int64)
        places = torch.cat([torch.arange(plain), among, rest])
        mask = torch.cat([torch.ones(plain, dtype=torch.bool), there.flatten(), torch.ones_like(rest) > 0])
        shape = Shape(plain, *padded.shape)
        bases = tuple(svec_matrix(k).to(like) for k in cones.orders)
        return Layout(shape, places.to(device), mask.to(device), not cones.second, cones.orders, bases)

    @property
    def flat(self) -> int:
        """How many of the rows are not of matrices."""
        return self.second.plain + self.second.c * self.second.d

    @property
    def degree(self) -> int:
        """The barrier's: a number, a second-order cone and a row of a matrix count one."""
        return self.second.plain + self.second.c + sum(self.orders)

    def pad(self, h: Tensor) -> Tensor:
        """h (B, m) in this order."""
        found = h[:, self.places] * self.mask if h.shape[-1] else h.new_zeros(h.shape[0], len(self.places))
        if self.dummy:
            found[:, self.second.plain] = -1.0  # 1 ≥ 0, so that there is a cone
        return found

    def rows(self, G: Tensor) -> Tensor:
        """G (B, m, n) in this order."""
        if not G.shape[-2]:
            return G.new_zeros(*G.shape[:-2], len(self.places), G.shape[-1])
        return G[..., self.places, :] * self.mask.unsqueeze(-1)

    def unpad(self, v: Tensor) -> Tensor:
        """The rows that there are."""
        return v[:, self.mask]

    def split(self, v: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The rows of numbers and second-order cones, and a symmetric matrix (B, k, k) for each of the others."""
        first, *rest = v.split([self.flat, *(k * (k + 1) // 2 for k in self.orders)], -1)
        pairs = zip(rest, self.orders, self.bases, strict=True)
        return first, [(t @ R).unflatten(-1, (k, k)) for t, k, R in pairs]

    def joined(self, first: Tensor, matrices: list[Tensor]) -> Tensor:
        """The inverse of `split`."""
        return torch.cat([first, *(M.flatten(-2) @ R.mT for M, R in zip(matrices, self.bases, strict=True))], -1)

    def inside(self, v: Tensor) -> Tensor:
        """v with each cone's part moved along its unit into the cone, where it isn't well inside; padding stays 0."""
        first, matrices = self.split(v)
        floor = 1e-2 * (1 + v.norm(dim=-1, keepdim=True))
        k = self.second.plain
        linear, second = first[:, :k], self.second.second(first).clone()
        linear = torch.where(linear < floor, linear.clamp(min=0) + 1, linear)
        short = second[..., 0] - second[..., 1:].norm(dim=-1)
        second[..., 0] += torch.where(short < floor, 1 - short.clamp(max=0), 0.0)
        for i, M in enumerate(matrices):
            low = torch.linalg.eigvalsh(M)[:, :1]
            add = torch.where(low < floor, 1 - low.clamp(max=0), 0.0)
            matrices[i] = M + add.unsqueeze(-1) * torch.eye(M.shape[-1], dtype=M.dtype, device=M.device)
        return self.joined(self.second.joined(linear, second), matrices)

    def unit(self, like: Tensor) -> Tensor:
        """e: 1, (1, 0, …), I, of one row."""
        eyes = [torch.eye(k, dtype=like.dtype, device=like.device).unsqueeze(0) for k in self.orders]
        return self.joined(Algebra.of(self.second, like).e, eyes)


class Weight(NamedTuple):
    """Of one semidefinite matrix: rᵀ Z r = r⁻¹ S r⁻ᵀ = diag(λ)."""

    r: Tensor
    inverse: Tensor
    value: Tensor

    @staticmethod
    def of(S: Tensor, Z: Tensor) -> Weight:
        """By Cholesky factors S = L Lᵀ, Z = K Kᵀ and the singular values of KᵀL = U diag(λ) Vᵀ: r = L V λ^(−½)."""
        L, K = torch.linalg.cholesky_ex(S)[0], torch.linalg.cholesky_ex(Z)[0]
        product = (K.mT @ L).nan_to_num(0.0, 0.0, 0.0)
        U, value, V = torch.linalg.svd(product)
        root = value.clamp(min=1e-300).sqrt()
        return Weight(L @ V.mT / root.unsqueeze(-2), (U / root.unsqueeze(-2)).mT @ K.mT, value)


class Weights(NamedTuple):
    """W with W z = W⁻ᵀ s = λ of a whole product, the rows in the order of its `Layout`."""

    layout: Layout
    second: Scaling
    matrices: list[Weight]
    point: Tensor

    @staticmethod
    def of(layout: Layout, s: Tensor, z: Tensor) -> Weights:
        """For s and z inside the cones."""
        (first, S), (other, Z) = layout.split(s), layout.split(z)
        second = Scaling.of(Algebra.of(layout.second, s), first, other)
        matrices = [Weight.of(a, b) for a, b in zip(S, Z, strict=True)]
        return Weights(
            layout, second, matrices, layout.joined(second.point, [torch.diag_embed(w.value) for w in matrices])
        )

    def slack(self, v: Tensor) -> Tensor:
        """W⁻ᵀ v of what is beside s."""
        first, matrices = self.layout.split(v)
        pairs = zip(matrices, self.matrices, strict=True)
        return self.layout.joined(self.second.undo(first), [w.inverse @ M @ w.inverse.mT for M, w in pairs])

    def rows(self, G: Tensor) -> Tensor:
        """W⁻ᵀ G for G (B, m', n)."""
        first, *rest = G.split([self.layout.flat, *(R.shape[0] for R in self.layout.bases)], -2)
        found = [self.second.rows(first)]
        for t, w, k, R in zip(rest, self.matrices, self.layout.orders, self.layout.bases, strict=True):
            columns = (t.mT @ R).unflatten(-1, (k, k))
            scaled = w.inverse.unsqueeze(-3) @ columns @ w.inverse.mT.unsqueeze(-3)
            found.append((scaled.flatten(-2) @ R.mT).mT)
        return torch.cat(found, -2)

    def to_slack(self, v: Tensor) -> Tensor:
        """Wᵀ v, a direction of s."""
        first, matrices = self.layout.split(v)
        pairs = zip(matrices, self.matrices, strict=True)
        return self.layout.joined(self.second.apply(first), [w.r @ M @ w.r.mT for M, w in pairs])

    def to_multiplier(self, v: Tensor) -> Tensor:
        """W⁻¹ v, a direction of z."""
        first, matrices = self.layout.split(v)
        pairs = zip(matrices, self.matrices, strict=True)
        return self.layout.joined(self.second.undo(first), [w.inverse.mT @ M @ w.inverse for M, w in pairs])

    def product(self, u: Tensor, v: Tensor) -> Tensor:
        """u ∘ v, of matrices ½ (U V + V U)."""
        (first, U), (other, V) = self.layout.split(u), self.layout.split(v)
        both = [(A @ B + B @ A) / 2 for A, B in zip(U, V, strict=True)]
        return self.layout.joined(self.second.by.product(first, other), both)

    def quotient(self, u: Tensor) -> Tensor:
        """λ \\ u: what λ ∘ it is u."""
        first, matrices = self.layout.split(u)
        found = [
            2 * M / (w.value.unsqueeze(-1) + w.value.unsqueeze(-2)).clamp(min=1e-300)
            for M, w in zip(matrices, self.matrices, strict=True)
        ]
        return self.layout.joined(self.second.quotient(first), found)

    def reach(self, pair: Tensor) -> Tensor:
        """1 / the longest step from λ along both directions (2, B, m') that stays in the cones, at least 0, (B, 1)."""
        most = self.second.reach(pair[..., : self.layout.flat])
        for direction in pair:
            for M, w in zip(self.layout.split(direction)[1], self.matrices, strict=True):
                root = w.value.clamp(min=1e-300).rsqrt()
                scaled = (root.unsqueeze(-1) * M * root.unsqueeze(-2)).nan_to_num(0.0, 0.0, 0.0)
                most = torch.maximum(most, -torch.linalg.eigvalsh(scaled)[:, :1])
        return most
