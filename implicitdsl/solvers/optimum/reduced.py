"""The KKT matrix of an active set, factored: [[P, Cᵀ], [C, 0]] restricted to the active rows of C."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .dual import Root
from .quadratic import Quadratic, cholesky_times, times, times_transposed

REGULAR = 1e-11
"""Relative regularisation of the multipliers' block, so that redundant constraints have a factor; refinement undoes it.
"""


class Reduced(NamedTuple):
    """Cholesky factors of H = P + ρ CᵀC (n, n) and of S = C H⁻¹ Cᵀ + δ I over k gathered active rows.

    The solution of the KKT system does not depend on ρ (Benzi, Golub & Liesen 2005, §3.5): H is definite wherever the
    minimiser is unique, although P need not be. Cost n³/3 + n²k + k³/3 a matrix. `members` (B, k) are the
    gathered rows, `valid` (B, k) whether they count; both None where all are active. `singular` (B,): no unique z.
    Rows of C are those of the problem times `units` (k,) or (B, k), and of norm about one.
    """

    problem: Quadratic
    H: Tensor
    Y: Tensor
    S: Tensor
    C: Tensor
    units: Tensor
    rho: Tensor
    members: Tensor | None
    valid: Tensor | None
    singular: Tensor
    refinements: int = 2

    def solve(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """(u, v) with P u + Cᵀ v = f and C u = g on the active rows, v = 0 elsewhere; f (B, n), g (B, m).

        Cost 4 (n + k)² a row, as much again for each refinement.
        """
        right = self._gather(g)
        u, v = self._once(f, right)
        for _ in range(self.refinements):
            r = f - self.problem.apply_P(u) - times_transposed(self.C, v)
            s = right - times(self.C, u)
            du, dv = self._once(r, s)
            u, v = u + du, v + dv
        return u, self._scatter(v, g)

    def missing(self, u: Tensor, v: Tensor, f: Tensor, g: Tensor) -> Tensor:
        """How far (u, v) is from solving the system of `solve`, (B,): far only where that is contradictory."""
        v = self._gather(v) / self.units.square()
        r = f - self.problem.apply_P(u) - times_transposed(self.C, v)
        s = self._gather(g) - times(self.C, u)
        return r.norm(dim=-1) + s.norm(dim=-1)

    def _once(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        if not g.shape[-1]:
            return cholesky_times(self.H, f), g
        w = f + times_transposed(self.C, g) * self.rho
        half = Root(self.H).lower(w)
        v = cholesky_times(self.S, times_transposed(self.Y, half) - g)
        return Root(self.H).upper(half - times(self.Y, v)), v

    def _gather(self, g: Tensor) -> Tensor:
        if self.members is None or self.valid is None:
            return g * self.units
        return g.expand(self.members.shape[0], g.shape[-1]).gather(1, self.members) * (self.valid * self.units)

    def _scatter(self, v: Tensor, like: Tensor) -> Tensor:
        if self.members is None or self.valid is None:
            return v * self.units
        return v.new_zeros(v.shape[0], like.shape[-1]).scatter_(1, self.members, v * (self.valid * self.units))


def reduce(problem: Quadratic, active: Tensor | None) -> Reduced:
    """Factor the KKT matrix of the rows where `active` (B, m) is true; None: of all rows."""
    C, index, valid = gathered(problem.C, active)
    units = row_units(C)
    C = C * units.unsqueeze(-1)
    P, n = problem.P, problem.q.shape[-1]
    rho = _weight(P, C)
    eye = torch.eye(n, dtype=C.dtype, device=C.device)
    H = eye.new_zeros(n, n) if P is None else P
    if C.shape[-2]:
        H = H + rho.unsqueeze(-1) * (C.mT @ C)
    size = H.diagonal(dim1=-2, dim2=-1).abs().amax(-1)
    L, _ = torch.linalg.cholesky_ex(H)
    pivots = L.diagonal(dim1=-2, dim2=-1).square()
    singular = ~(pivots.amin(-1) > 4 * n * torch.finfo(H.dtype).eps * size)
    if bool(singular.any()):  # any minimiser will do; its derivative does not exist
        shift = torch.where(singular, 1e-9 * size.clamp(min=torch.finfo(H.dtype).tiny) + 1e-12, 0.0)
        L, _ = torch.linalg.cholesky_ex(H + shift[..., None, None] * eye)
    if not C.shape[-2]:
        return Reduced(problem, L, C.mT, C @ C.mT, C, units, rho, index, valid, singular)
    Y = torch.linalg.solve_triangular(L, C.mT, upper=False)
    S = Y.mT @ Y
    top = S.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True)
    top = torch.where(top > 0, top, 1.0)  # a sample may have no active rows
    S.diagonal(dim1=-2, dim2=-1).add_(REGULAR * top)
    if valid is not None:  # rows that only fill up
        S.diagonal(dim1=-2, dim2=-1).add_((1 - valid) * top)
    F, _ = torch.linalg.cholesky_ex(S)
    return Reduced(problem, L, Y, F, C, units, rho, index, valid, singular)


def row_units(C: Tensor) -> Tensor:
    """The power of two, so that nothing is rounded, by which the norm of each row is about one; 1 for zeros."""
    norm = C.norm(dim=-1)
    return torch.where((norm > 0) & norm.isfinite(), torch.exp2(-torch.log2(norm).round()), 1.0)


def gathered(C: Tensor, active: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The active rows of C, as many as the fullest sample has, zero where a sample has fewer."""
    if active is None:
        return C, None, None
    count = active.sum(-1)
    k = int(count.max()) if count.numel() else 0
    index = torch.argsort(active.to(torch.int8), dim=-1, descending=True, stable=True)[:, :k]
    valid = active.gather(1, index).to(C.dtype)
    rows = C[index] if C.ndim == 2 else C.gather(1, index.unsqueeze(-1).expand(-1, -1, C.shape[-1]))
    return rows * valid.unsqueeze(-1), index, valid


def _weight(P: Tensor | None, C: Tensor) -> Tensor:
    """ρ, (1,) or (B, 1): makes both terms of H of one size; zero where there are no rows, or none but zeros."""
    if not C.shape[-2]:
        return C.new_zeros(1)
    size = C.square().sum((-2, -1)).unsqueeze(-1)
    inverse = torch.where(size > 0, 1 / size.clamp(min=torch.finfo(C.dtype).tiny), 0.0)
    if P is None:
        return inverse
    return P.diagonal(dim1=-2, dim2=-1).abs().sum(-1, keepdim=True).clamp(min=1e-12) * inverse
