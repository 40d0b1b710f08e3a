"""Convex quadratic programs as tensors: the problem, its optimality residuals, and what a solver hands back."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from ...ground.outcomes import Outcome
from ..host import array

CANCELLED = 1e-6
"""A share of the largest terms of stationarity, of which one may be a sum that cancels."""
CERTAIN = 1e-7
"""How nearly a ray must satisfy Farkas' conditions, relative to what it proves."""
STRAIGHT = 1e-3
"""The curvature along a ray of descent is at most such a share of the descent."""


class Quadratic(NamedTuple):
    """min ½ zᵀ P z + qᵀ z subject to C z = d in the first `equalities` rows and C z ≤ d in the others.

    P (n, n) symmetric positive semidefinite, or None for zero; q (n,); C (m, n); d (m,); each with or without a leading
    batch dimension B. Lagrangian: ½ zᵀPz + qᵀz + yᵀ(C z − d), y ≥ 0 for inequalities.
    """

    P: Tensor | None
    q: Tensor
    C: Tensor
    d: Tensor
    equalities: int

    @property
    def rows(self) -> int:
        """B; 1 where nothing is batched."""
        return next((t.shape[0] for t, rank in self._ranked() if t.ndim > rank), 1)

    def _ranked(self) -> list[tuple[Tensor, int]]:
        found = [(self.q, 1), (self.C, 2), (self.d, 1)]
        return found if self.P is None else [*found, (self.P, 2)]

    def select(self, index: Tensor) -> Quadratic:
        """The samples at `index` (or where a mask is true)."""

        def picked(t: Tensor, rank: int) -> Tensor:
            return t[index] if t.ndim > rank else t

        P = None if self.P is None else picked(self.P, 2)
        return Quadratic(P, picked(self.q, 1), picked(self.C, 2), picked(self.d, 1), self.equalities)

    def apply_P(self, z: Tensor) -> Tensor:
        """P z for z (B, n)."""
        return torch.zeros_like(z) if self.P is None else times(self.P, z)

    def apply_C(self, z: Tensor) -> Tensor:
        """C z."""
        return times(self.C, z)

    def pull_C(self, y: Tensor) -> Tensor:
        """Cᵀ y for y (B, m)."""
        return times_transposed(self.C, y)

    def apply_G(self, z: Tensor) -> Tensor:
        """C z in the rows of the inequalities."""
        return times(self.C[..., self.equalities :, :], z)

    def pull_G(self, x: Tensor) -> Tensor:
        """Gᵀ x for x of the inequalities."""
        return times_transposed(self.C[..., self.equalities :, :], x)

    def finite(self) -> Tensor:
        """Whether all numbers of a sample are finite, (B,)."""
        good = self.q.new_ones(self.rows, dtype=torch.bool)
        for t, rank in self._ranked():
            good = good & (t.isfinite().all(-1) if rank == 1 else t.isfinite().flatten(-2).all(-1))
        return good

    def cured(self) -> Quadratic:
        """Without NaN and infinity, which would reach no other sample but would slow all of them."""
        P = None if self.P is None else self.P.nan_to_num(0.0, 0.0, 0.0)
        q, C, d = (t.nan_to_num(0.0, 0.0, 0.0) for t in (self.q, self.C, self.d))
        return Quadratic(P, q, C, d, self.equalities)

    def sizes(self) -> tuple[Tensor, Tensor]:
        """‖row‖ of C (m,) or (B, m), and the largest entry of P and q, (1,) or (B, 1)."""
        cost = self.q.abs().amax(-1, keepdim=True)
        if self.P is not None:
            cost = torch.maximum(cost, self.P.abs().amax((-2, -1)).unsqueeze(-1))
        return self.C.norm(dim=-1), cost

    def scaled(self, rows: Tensor, cost: Tensor) -> Quadratic:
        """Rows of C and d multiplied by `rows`, P and q by `cost`."""
        P = None if self.P is None else self.P * cost.unsqueeze(-1)
        return Quadratic(P, self.q * cost, self.C * rows.unsqueeze(-1), self.d * rows, self.equalities)

    def measured(self, unit: Tensor | float) -> Quadratic:
        """In z / unit, the objective divided by unit²; unit (1,) or (B, 1)."""
        return self._replace(q=self.q / unit, d=self.d / unit)


class Convex(Protocol):
    """A quadratic program whatever its matrices are kept as; see `Quadratic` for each member."""

    @property
    def q(self) -> Tensor: ...
    @property
    def d(self) -> Tensor: ...
    @property
    def equalities(self) -> int: ...
    @property
    def rows(self) -> int: ...

    def select(self, index: Tensor) -> Self: ...
    def apply_P(self, z: Tensor) -> Tensor: ...
    def apply_C(self, z: Tensor) -> Tensor: ...
    def pull_C(self, y: Tensor) -> Tensor: ...
    def apply_G(self, z: Tensor) -> Tensor: ...
    def pull_G(self, x: Tensor) -> Tensor: ...
    def finite(self) -> Tensor: ...
    def cured(self) -> Self: ...
    def sizes(self) -> tuple[Tensor, Tensor]: ...
    def scaled(self, rows: Tensor, cost: Tensor) -> Self: ...
    def measured(self, unit: Tensor | float) -> Self: ...


class Optimum(NamedTuple):
    """What a solver hands back, one entry a sample.

    z (B, n); y (B, m); active (B, m) bool, the rows that hold with equality; status (`Outcome`), iterations, residual
    (the largest violation of the optimality conditions, relative to their terms; see `met`); factor: a `Reduced` of the
    active rows, where the solver has one. `whole` is `status` itself where all of it is known to be CONVERGED.
    """

    z: Tensor
    y: Tensor
    active: Tensor
    status: Tensor
    iterations: Tensor
    residual: Tensor
    factor: Any = None
    whole: Tensor | None = None

    def with_rows(self, rows: Tensor, other: Optimum) -> Optimum:
        """What `other` found in the samples of the mask `rows`, in their place; without a factor."""
        merged = [t.clone() for t in self[:6]]
        for t, value in zip(merged, other[:6], strict=True):
            t[rows] = value
        return Optimum(*merged)


def times(M: Tensor, x: Tensor) -> Tensor:
    """M x for M (m, n) or (B, m, n), x (B, n). As rows: batched products with columns take twice the time."""
    return x @ M.mT if M.ndim == 2 else _row_times(x, M.mT)


def times_transposed(M: Tensor, y: Tensor) -> Tensor:
    """Mᵀ y."""
    return y @ M if M.ndim == 2 else _row_times(y, M)


def _row_times(x: Tensor, M: Tensor) -> Tensor:
    """xᵀ M for x (B, m) and M (B, m, n), either for one sample alone."""
    if x.ndim == 2 and x.shape[0] == M.shape[0]:
        return torch.bmm(x.unsqueeze(-2), M).squeeze(-2)  # matmul takes nine operators
    return torch.matmul(x.unsqueeze(-2), M).squeeze(-2)


def plus(b: Tensor, x: Tensor, M: Tensor, of_b: float = 1.0, of_x: float = 1.0) -> Tensor:
    """of_b b + of_x xᵀM for b (n,) or (B, n), x (B, m), M (m, n) or (B, m, n): one operator, if B is one number."""
    rows = x.shape[0]
    if b.ndim == 1 or b.shape[0] == rows:
        if M.ndim == 2:
            return torch.addmm(b, x, M, beta=of_b, alpha=of_x)
        if M.shape[0] == rows:
            return torch.baddbmm(b.unsqueeze(-2), x.unsqueeze(-2), M, beta=of_b, alpha=of_x).squeeze(-2)
    return of_b * b + of_x * times_transposed(M, x)


def cholesky_times(L: Tensor, b: Tensor) -> Tensor:
    """(L Lᵀ)⁻¹ b for L (n, n) or (B, n, n), b (B, n). `torch.cholesky_solve` copies L for every batch of vectors."""
    if L.ndim == 2:
        return torch.cholesky_solve(b.mT, L).mT
    half = torch.linalg.solve_triangular(L, b.unsqueeze(-1), upper=False)
    return torch.linalg.solve_triangular(L.mT, half, upper=True).squeeze(-1)


def peak(*terms: Tensor) -> Tensor:
    """The largest magnitude of the terms of each row, (B,)."""
    found = [t for t in terms if t.shape[-1]]
    if len(found) > 1 and len({t.shape for t in found}) == 1:
        return torch.stack(found).abs().amax((0, -1))  # five operators, or three for each
    result = found[0].abs().amax(-1)
    for other in found[1:]:
        result = torch.maximum(result, other.abs().amax(-1))
    return result


def residual(problem: Convex, z: Tensor, y: Tensor, Cz: Tensor | None = None) -> Tensor:
    """The worst of stationarity, equalities and min(y, d − C z), which is zero where signs, feasibility and
    complementarity hold (Facchinei & Pang 2003, §1.5), (B,). Each number is relative to 1 + its own terms, slacks to
    ‖row‖ |z| + |d|, multipliers to what they do to stationarity: a row that says "no bound" by 1e12 excuses no other.
    """
    k = problem.equalities
    terms = [problem.apply_P(z), problem.q.expand_as(z), problem.pull_C(y)]
    whole = peak(*terms).unsqueeze(-1)
    own = terms[0].abs() + terms[1].abs() + terms[2].abs() + (1 + CANCELLED * whole)
    worst = peak((terms[0] + terms[1] + terms[2]) / own)
    if not y.shape[-1]:
        return worst
    Cz, d, norm = problem.apply_C(z) if Cz is None else Cz, problem.d.expand_as(y), problem.sizes()[0]
    slack = (d - Cz) / (1 + d.abs() + norm * peak(z).unsqueeze(-1))
    if k:
        worst = torch.maximum(worst, peak(slack[:, :k]))
    if k < slack.shape[-1]:
        dual = y * (norm / (1 + whole))
        worst = torch.maximum(
            worst, peak(torch.minimum(dual[:, k:], slack[:, k:]) if k else torch.minimum(dual, slack))
        )
    return worst


def met(problem: Quadratic, z: Tensor, y: Tensor, tol: float) -> tuple[Tensor, bool]:
    """The `residual`, or where all of its numerators are at most tol these, which are no smaller, (B,); and whether all
    of it is at most tol."""
    k, m = problem.equalities, y.shape[-1]
    slope = problem.q.expand_as(z) if problem.P is None else plus(problem.q, z, problem.P)
    parts = [plus(slope, y, problem.C) if m else slope]
    if m:
        slack = plus(problem.d, z, problem.C.mT, of_x=-1.0)
        parts += [slack[:, :k]] if k else []
        parts += [torch.minimum(y[:, k:], slack[:, k:]) if k else torch.minimum(y, slack)] if k < m else []
    worst = (torch.cat(parts, -1) if m else parts[0]).abs().amax(-1)
    if bool((array(worst) <= tol).all()):
        return worst, True
    worst = residual(problem, z, y)
    return worst, bool((worst <= tol).all())


def touched(problem: Convex, z: Tensor, room: float) -> Tensor:
    """The inequalities whose slack at z (B, n) is at most so large, relative to their terms, (B, m)."""
    k = problem.equalities
    d, norm = problem.d[..., k:], problem.sizes()[0][..., k:]
    return d - problem.apply_G(z) <= room * (norm * peak(z).unsqueeze(-1) + d.abs())


def weakly_active(problem: Convex, z: Tensor, y: Tensor, Cz: Tensor | None = None, tol: float = 1e-7) -> Tensor:
    """How many inequalities have neither slack nor multiplier, (B,)."""
    k = problem.equalities
    gap = (problem.apply_C(z) if Cz is None else Cz) - problem.d
    slack, dual = (gap[:, k:], y[:, k:]) if k else (gap, y)
    if not slack.shape[-1]:
        return torch.zeros_like(z[:, 0], dtype=torch.int64)
    room, size = peak(z).add_(1).mul_(tol).unsqueeze(-1), peak(y).add_(1).mul_(tol).unsqueeze(-1)
    return ((slack.abs() <= room) & (dual.abs() <= size)).sum(-1)


def certified(problem: Convex, z: Tensor, y: Tensor) -> Tensor:
    """INFEASIBLE where y is a Farkas ray (Cᵀy = 0, y ≥ 0, dᵀy < 0), UNBOUNDED where z is one of descent (P z = 0,
    C z ≤ 0, qᵀz < 0), NOT_FINITE where the data are not, else RUNNING. (B,)

    Near the optimum of a nearly singular P, z is long and P z small, too, but zᵀPz no less than -qᵀz.
    """
    k = problem.equalities
    y = torch.cat([y[:, :k], y[:, k:].clamp(min=0)], -1) if y.shape[-1] > k else y
    q, d = problem.q.expand_as(z), problem.d.expand_as(y)
    status = torch.full_like(z[:, 0], int(Outcome.RUNNING), dtype=torch.int64)
    fall = -(q * z).sum(-1)
    size = z.norm(dim=-1)
    Cz = problem.apply_C(z)
    Pz = problem.apply_P(z)
    rise = [Pz, Cz[:, :k], Cz[:, k:].clamp(min=0)]
    ray = (fall > CERTAIN * size * q.norm(dim=-1)) & (peak(*rise) <= CERTAIN * size)
    ray = ray & ((z * Pz).sum(-1) <= STRAIGHT * fall)
    status = torch.where(ray & (size > 0), int(Outcome.UNBOUNDED), status)
    if y.shape[-1]:
        fall = -(d * y).sum(-1)
        size = y.norm(dim=-1)
        ray = (fall > CERTAIN * size) & (peak(problem.pull_C(y)) <= CERTAIN * size)
        status = torch.where(ray, int(Outcome.INFEASIBLE), status)
    return torch.where(problem.finite(), status, int(Outcome.NOT_FINITE))
