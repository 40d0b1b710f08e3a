"""Quadratic programs over a horizon: Riccati's recursion for equalities, inside an interior point for inequalities."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ...ground.outcomes import Outcome
from .interior_point import InteriorPoint
from .polish import judged
from .quadratic import Optimum
from .stages import Staged, along

REGULAR = (1e-11, 1e-9, 1e-7)
"""Relative to the cost, on the diagonal, the first with which there are factors; refinement undoes it."""
NEAR = 1e-4
"""An error at which the active rows are guessed for the first time."""
FIRM = 1e8
"""Local equalities are penalties of so many times the cost; refinement makes them exact."""


class Recursion(NamedTuple):
    """The factored matrix of min Σ ½ wᵀM_t w − f_tᵀ w over x[t+1] = F_t w[t] + g_t, w = (u, x).

    Backwards in t, S = M_t + F_tᵀ P_{t+1} F_t, u = K x + …, P_t = S_xx − S_xu S_uu⁻¹ S_ux (Rao, Wright & Rawlings
    1998; Nocedal & Wright §16.6), by Cholesky factors: the last block of that of S is a root of P_t. Cost N (n + m)³
    flops a sample; what all share is factored once.

    L (N + 1, …, m, m): factors of S_uu; root (…, n, n) of P_0; K (N + 1, …, m, n): gains; P (N + 1, …, n, n); closed
    (N, …, n, n): F_x + F_u K.
    """

    L: Tensor
    root: Tensor
    K: Tensor
    P: Tensor
    F: Tensor
    closed: Tensor

    @staticmethod
    def of(M: Tensor, F: Tensor) -> tuple[Recursion, Tensor]:
        """From M (N + 1, B, k, k), F (N, [B,] n, k); and the least pivot, (B,) or ()."""
        if M.shape[1] == 1 and F.ndim == 3:
            M = M.squeeze(1)
        m = F.shape[-1] - F.shape[-2]
        rows = M.shape[1:-2]
        pulls = (F if F.ndim == M.ndim else F.unsqueeze(1)).mT.expand(-1, *rows, -1, -1).contiguous().unbind()
        Ms, Fs = M.unbind(), F.unbind()
        S, found = Ms[-1], []
        add = torch.baddbmm if rows else torch.addmm
        for t in range(len(Ms) - 1, -1, -1):
            L, _ = torch.linalg.cholesky_ex(S)
            found.append(L)
            if t:
                root = L[..., m:, m:]
                half = root.mT @ Fs[t - 1]
                S = add(Ms[t - 1], pulls[t - 1] @ root, half)
        L = torch.stack(found[::-1])
        inner, root = L[..., :m, :m], L[..., m:, m:]
        K = -torch.linalg.solve_triangular(inner.mT, L[..., m:, :m].mT, upper=True)
        G = F if F.ndim == M.ndim else F.unsqueeze(1)
        closed = G[..., m:] + G[..., :m] @ K[:-1]
        least = L.diagonal(dim1=-2, dim2=-1).square().amin(-1).amin(0)
        return Recursion(inner, root[0], K, root @ root.mT, F, closed), least

    def solve(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """w (N + 1, B, k) and the multipliers ν (N, B, n) of x[t+1] − F_t w[t] = g_t, for f and g of these shapes."""
        m, K, P, closed = self.K.shape[-2], self.K, self.P, self.closed
        B = self.F[..., :m]
        Pg = along(P[1:], g)
        start = f[..., m:] + along(K.mT, f[..., :m])
        start[:-1] -= along(closed.mT, Pg)
        pull = _swept(start.flip(0), closed.mT.flip(0)).flip(0)
        inner = f[..., :m].clone()
        inner[:-1] += along(B.mT, pull[1:] - Pg)
        k = _solved(self.L, inner)
        first = _solved(self.root.unsqueeze(0), pull[:1])
        x = _swept(torch.cat([first, along(B, k[:-1]) + g]), closed)
        return torch.cat([along(K, x) + k, x], -1), pull[1:] - along(P[1:], x[1:])


def _swept(b: Tensor, M: Tensor) -> Tensor:
    """v[0] = b[0], v[t+1] = M[t] v[t] + b[t+1], for b (N + 1, B, n) and M (N, n, n) or (N, B, n, n)."""
    if M.ndim == 3:
        found = [b[0]]
        for right, step in zip(b[1:].unbind(), M.mT.unbind(), strict=True):
            found.append(torch.addmm(right, found[-1], step))
        return torch.stack(found)
    columns = b.unsqueeze(-1).unbind()
    found = [columns[0]]
    for right, step in zip(columns[1:], M.unbind(), strict=True):
        found.append(torch.baddbmm(right, step, found[-1]))
    return torch.stack(found).squeeze(-1)


def _solved(L: Tensor, b: Tensor) -> Tensor:
    """(L Lᵀ)⁻¹ b by stage."""
    if L.ndim > 3:
        return torch.cholesky_solve(b.unsqueeze(-1), L).squeeze(-1)
    return torch.cholesky_solve(b.mT, L).mT


@dataclass(frozen=True)
class StagedSystem:
    """[[P + GᵀWG, Aᵀ], [A, 0]]: A are the moves and the local rows where `on` (N + 1, 1 or B, r), W is `soft` of the
    others. Solves as `Reduced` does: rows that are off have v = 0.

    Local rows of A are penalties, which keeps the bands and gives redundant rows a factor; each refinement reduces the
    error by about 1e-7.
    """

    problem: Staged
    on: Tensor
    soft: Tensor | None
    refinements: int

    @cached_property
    def _penalty(self) -> Tensor:
        return FIRM * self.problem.firm * self.on

    @cached_property
    def _factored(self) -> tuple[Recursion, Tensor]:
        w = self._penalty if self.soft is None else self._penalty + self.soft
        _, cost = self.problem.sizes()
        found, least = Recursion.of(self.problem.weighted(w, REGULAR[0] * cost), self.problem.F)
        for regular in REGULAR[1:]:
            if bool((least > 0).all()):
                break
            found, least = Recursion.of(self.problem.weighted(w, regular * cost), self.problem.F)
        return found, least

    @property
    def singular(self) -> Tensor:
        """(B,) or (1,): whether nothing but the regularisation makes it regular."""
        _, cost = self.problem.sizes()
        return ~(self._factored[1].reshape(-1) > 100 * REGULAR[0] * cost.squeeze(-1))

    def solve(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """(u, v) with P u + GᵀWG u + Aᵀ v = f and A u = g; f (B, n), g (B, m)."""
        problem = self.problem
        right, moved, local = problem.stages(f), *problem.by_rows(g)
        local = local * self.on
        w, nu, lam = self._once(right, moved, local)
        for _ in range(self.refinements):
            r = right - self._stationary(w, nu, lam)
            ahead = w[1:, :, problem.layout.controls :] - along(problem.F, w[:-1])
            dw, dnu, dlam = self._once(r, moved - ahead, (local - along(problem.G, w)) * self.on)
            w, nu, lam = w + dw, nu + dnu, lam + dlam
        return problem.flat(w), problem.to_rows(nu * problem.sign.unsqueeze(1), lam)

    def missing(self, u: Tensor, v: Tensor, f: Tensor, g: Tensor) -> Tensor:
        """How far (u, v) is from solving the system of `solve`, (B,)."""
        problem = self.problem
        w, right, (moved, local), (nu, lam) = (
            problem.stages(u),
            problem.stages(f),
            problem.by_rows(g),
            problem.by_rows(v),
        )
        r = right - self._stationary(w, nu, lam)
        ahead = moved - (w[1:, :, problem.layout.controls :] - along(problem.F, w[:-1]))
        below = (local - along(problem.G, w)) * self.on
        return torch.stack([t.square().sum((0, -1)) for t in (r, ahead, below)]).sum(0).sqrt()

    def _once(self, f: Tensor, g: Tensor, local: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        G = self.problem.G
        if not G.shape[-2]:
            return *self._factored[0].solve(f, g), local
        w, nu = self._factored[0].solve(f + along(G.mT, self._penalty * local), g)
        return w, nu, self._penalty * (along(G, w) - local)

    def _stationary(self, w: Tensor, nu: Tensor, lam: Tensor) -> Tensor:
        """P u + GᵀWG u + Aᵀ v by stage."""
        problem = self.problem
        if self.soft is not None:
            lam = lam + self.soft * along(problem.G, w)
        found = along(problem.H, w) + along(problem.G.mT, lam)
        found[1:, :, problem.layout.controls :] += nu
        found[:-1] -= along(problem.F.mT, nu)
        return found


@dataclass(frozen=True)
class _Newton:
    system: StagedSystem

    def solve(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        problem = self.system.problem
        below = g.new_zeros(g.shape[0], problem.d.shape[-1] - problem.equalities)
        u, v = self.system.solve(f, torch.cat([g, below], -1))
        return u, v[:, : problem.equalities]


class ByStages:
    """The factors of `InteriorPoint` by recursion."""

    def newton(self, problem: Staged, w: Tensor) -> _Newton:
        soft = problem.local(torch.cat([w.new_zeros(w.shape[0], problem.equalities), w], -1))
        return _Newton(StagedSystem(problem, problem.is_equality, soft, 0))

    def reduce(self, problem: Staged, active: Tensor | None) -> StagedSystem:
        on = problem.is_equality if active is None else problem.local(active)
        return StagedSystem(problem, on, None, 2)


@dataclass(frozen=True)
class Riccati:
    """min ½ zᵀPz + qᵀz over x[t+1] = A x[t] + B u[t] + c and further rows and costs of one stage each.

    Equalities alone: one recursion. Inequalities: `InteriorPoint`, whose Newton systems are solved by the same
    recursion with the weights of the barrier, N (n + m)³ flops an iteration, and in the end one on the active rows,
    which serves the backward pass. Statuses: as `InteriorPoint`.
    """

    tol: float | None = None
    max_iter: int = 100

    def solve(self, problem: Staged, guess: Tensor | None = None) -> Optimum:
        """The optimum of every sample; `guess` z (B, n): see `InteriorPoint`."""
        by = ByStages()
        if problem.d.shape[-1] > problem.equalities:
            interior = InteriorPoint(self.tol, self.max_iter)
            found = interior.solve(problem, by, NEAR, guess)
            left = found.status == int(Outcome.STALLED)
            if bool(left.any()):
                again = interior.solve(problem.select(left) if problem.rows > 1 else problem, by)
                found = found.with_rows(left, again)
            return found._replace(factor=by.reduce(problem, found.active))
        system = by.reduce(problem.cured(), None)
        rows = problem.rows
        z, y = system.solve(-problem.q.expand(rows, -1), problem.d.expand(rows, -1))
        return judged(problem, z, y)._replace(factor=system)
