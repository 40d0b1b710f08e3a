"""Euclidean projections on products of self-dual cones and their derivatives; symmetric matrices as vectors."""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cones:
    """{0}^zero × R₊^nonneg × S₊^k × …, the matrices as `svec` vectors of length k (k + 1) / 2."""

    zero: int
    nonneg: int
    orders: tuple[int, ...]

    @property
    def size(self) -> int:
        """The length of an element."""
        return self.zero + self.nonneg + sum(k * (k + 1) // 2 for k in self.orders)

    def project(self, w: Tensor) -> Tensor:
        """Π(w), (B, size). Differentiable once, with the derivative `slope`."""
        return _Projection.apply(w, self)

    def slope(self, w: Tensor) -> Tensor:
        """DΠ(w), (B, size, size): symmetric, with eigenvalues in [0, 1]."""
        return _Slope.apply(w, self)

    def parts(self, w: Tensor) -> list[Tensor]:
        """The pieces of w that belong to the factors."""
        lengths = [self.zero, self.nonneg, *(k * (k + 1) // 2 for k in self.orders)]
        return list(w.split(lengths, -1))


def triangle(k: int) -> tuple[Tensor, Tensor]:
    """Row and column of the entries of `svec`: the upper triangle, column by column."""
    pairs = [(i, j) for j in range(k) for i in range(j + 1)]
    return torch.tensor([i for i, _ in pairs]), torch.tensor([j for _, j in pairs])


def svec_matrix(k: int) -> Tensor:
    """(k (k + 1) / 2, k²) in float64: svec of the symmetric part of a flattened matrix. Its transpose is `smat`.

    Entries off the diagonal count √2, so that inner products are kept.
    """
    rows, columns = triangle(k)
    R = torch.zeros(len(rows), k * k, dtype=torch.float64)
    for at, (i, j) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        if i == j:
            R[at, i * k + i] = 1.0
        else:
            R[at, i * k + j] = R[at, j * k + i] = math.sqrt(0.5)
    return R


def _eigen(v: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    R = svec_matrix(k).to(v)
    values, vectors = torch.linalg.eigh((v @ R).unflatten(-1, (k, k)))
    return values, vectors, R


class _Projection(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(w: Tensor, cones: Cones) -> Tensor:
        zero, nonneg, *matrices = cones.parts(w)
        found = [torch.zeros_like(zero), nonneg.clamp(min=0)]
        for k, v in zip(cones.orders, matrices, strict=True):
            values, V, R = _eigen(v, k)
            found.append(((V * values.clamp(min=0).unsqueeze(-2)) @ V.mT).flatten(-2) @ R.mT)
        return torch.cat(found, -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Cones], output: Tensor) -> None:
        ctx.cones = inputs[1]
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (w,) = ctx.saved_tensors
        return (ctx.cones.slope(w) @ g.unsqueeze(-1)).squeeze(-1), None

    @staticmethod
    def jvp(ctx: Any, t: Tensor, _: None) -> Tensor:
        (w,) = ctx.saved_tensors
        return (ctx.cones.slope(w) @ t.unsqueeze(-1)).squeeze(-1)


class _Slope(torch.autograd.Function):
    """Has no derivative: it jumps where an eigenvalue changes its sign, and asking for one is an error."""

    generate_vmap_rule = True

    @staticmethod
    def forward(w: Tensor, cones: Cones) -> Tensor:
        zero, nonneg, *matrices = cones.parts(w)
        blocks = [torch.diag_embed(torch.cat([torch.zeros_like(zero), (nonneg > 0).to(w.dtype)], -1))]
        for k, v in zip(cones.orders, matrices, strict=True):
            values, V, R = _eigen(v, k)
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
            blocks.append(outer.flatten(-2) @ R.mT)
        return _block_diagonal(blocks)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Cones], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> None:
        raise RuntimeError(SECOND)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:
        raise RuntimeError(SECOND)


SECOND = "second derivatives of semidefinite programs are not available; first derivatives are, in every mode"


def _block_diagonal(blocks: list[Tensor]) -> Tensor:
    total = sum(b.shape[-1] for b in blocks)
    found: list[Tensor] = []
    at = 0
    for b in blocks:
        k = b.shape[-1]
        found.append(torch.nn.functional.pad(b, (at, total - at - k)))
        at += k
    return torch.cat(found, -2)
