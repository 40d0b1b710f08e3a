"""Block principal pivoting on the dual of a strictly convex quadratic program, with the factor kept for derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...ground.outcomes import Outcome
from .interior_point import InteriorPoint
from .quadratic import Optimum, Quadratic, residual, weakly_active
from .reduced import Reduced

CONVERGED = int(Outcome.CONVERGED)

ROUNDS = 12
"""Pivots after which a sample goes to the interior point: cycling is possible, though rare."""
GATHERED = 24
"""From so many rows on, the active ones are gathered instead of masked."""
TALL = 3
"""With more than so many rows for a variable the dual is too degenerate to be worth it."""


@dataclass(frozen=True)
class Dense:
    """min ½zᵀPz + qᵀz, A z = b, G z ≤ h, for a batch of small dense problems.

    Where P ≻ 0 the slacks are affine in the multipliers, s = S y + r with S = C P⁻¹Cᵀ, and 0 ≤ y ⊥ s ≥ 0 is solved by
    exchanging all rows of the wrong sign at once (Júdice & Pires 1994): a handful of Cholesky factors of S on the
    active rows, n³/3 + n²m + a few k³/3 flops in all, exact to rounding. Its last factor serves the backward pass.
    Samples that do not settle, and problems with a singular P, go to `InteriorPoint`.
    """

    tol: float | None = None
    max_iter: int = 100

    def solve(self, problem: Quadratic) -> Optimum:
        """The optimum of every sample."""
        interior = InteriorPoint(self.tol, self.max_iter)
        n, m = problem.C.shape[-1], problem.C.shape[-2]
        if problem.P is None or m > TALL * n:
            return interior.solve(problem)
        L, info = torch.linalg.cholesky_ex(problem.P)
        pivots = L.diagonal(dim1=-2, dim2=-1)
        weak = ~(pivots.amin(-1) > 1e-6 * pivots.amax(-1))
        if bool(((info > 0) | weak).any()):  # singular, or not finite
            return interior.solve(problem)
        found, settled = _pivoted(problem, L, self.tol or 1e-9)
        if bool(settled.all()):
            return found
        left = ~settled
        rest = interior.solve(problem.select(left) if problem.rows > 1 else problem)
        merged = [t.clone() for t in found[:-1]]
        for t, value in zip(merged, rest, strict=False):
            t[left] = value
        return Optimum(*merged)


def _pivoted(problem: Quadratic, L: Tensor, tol: float) -> tuple[Optimum, Tensor]:
    """The solutions, and which samples have one."""
    k, rows = problem.equalities, problem.rows
    C, m = problem.C, problem.C.shape[-2]
    Y = torch.linalg.solve_triangular(L, C.mT, upper=False)
    S = (Y.mT @ Y).expand(rows, m, m)
    half = _lower(L, problem.q.expand(rows, problem.q.shape[-1]))
    r = problem.d + (half.unsqueeze(-2) @ Y).squeeze(-2)
    active = r < 0
    active[:, :k] = True
    y_out, active_out = torch.zeros_like(r), active.clone()
    settled = torch.zeros(rows, dtype=torch.bool, device=r.device)
    live: Tensor | None = None
    factor: tuple[Tensor, Tensor | None, Tensor] | None = None
    s, rr, act = S, r, active
    floor = -1e-12 * (1 + r.abs().amax(-1, keepdim=True))
    for _ in range(ROUNDS):
        factor = _factor(s, act)
        y = _solve(factor, -rr)
        slack = torch.matmul(s, y.unsqueeze(-1)).squeeze(-1) + rr
        new = torch.where(act, y > 0, slack < floor)
        if k:
            new[:, :k] = True
        changed = (new != act).any(-1)
        count = int(changed.sum())
        if count == 0 and live is None:
            y_out, active_out, settled = y, act, ~changed
            break
        done = ~changed
        where = done.nonzero().squeeze(-1) if live is None else live[done]
        y_out[where], active_out[where], settled[where] = y[done], act[done], True
        if count == 0:
            break
        if live is None:
            live = torch.arange(rows, device=r.device)
        live, s, rr, act, floor = live[changed], s[changed], rr[changed], new[changed], floor[changed]
    whole = bool(settled.all()) if live is not None else True
    if live is not None and whole:
        factor = _factor(S, active_out)
    z = -_upper(L, half + torch.matmul(Y, y_out.unsqueeze(-1)).squeeze(-1))
    error = residual(problem, z, y_out)
    settled = settled & (error <= tol)
    status = torch.where(settled, CONVERGED, int(Outcome.STALLED))
    kept = _kept(problem, L, Y, factor) if whole and factor is not None else None
    once = torch.full_like(status, 1)
    weak = weakly_active(problem, z, y_out)
    return Optimum(z, y_out, active_out, status, once, error, weak, kept), settled


Factored = tuple[Tensor, Tensor | None, Tensor]
"""Cholesky factor of S on the active rows; the gathered rows (None: all, masked); which of them count, as numbers."""


def _factor(S: Tensor, active: Tensor) -> Factored:
    m = active.shape[-1]
    if m < GATHERED:
        on = active.to(S.dtype)
        K = S * (on.unsqueeze(-1) * on.unsqueeze(-2))
        K.diagonal(dim1=-2, dim2=-1).add_(1 - on)
        return torch.linalg.cholesky_ex(K)[0], None, on
    count = max(1, int(active.sum(-1).max()))
    members = torch.argsort(active.to(torch.int8), dim=-1, descending=True, stable=True)[:, :count]
    valid = active.gather(1, members).to(S.dtype)
    flat = (members.unsqueeze(-1) * m + members.unsqueeze(-2)).flatten(-2)
    K = S.reshape(S.shape[0], m * m).gather(1, flat).unflatten(-1, (count, count))
    K = K * (valid.unsqueeze(-1) * valid.unsqueeze(-2))
    K.diagonal(dim1=-2, dim2=-1).add_(1 - valid)
    return torch.linalg.cholesky_ex(K)[0], members, valid


def _solve(factor: Factored, r: Tensor) -> Tensor:
    """S⁻¹ r on the active rows, zero elsewhere."""
    F, members, on = factor
    if members is None:
        return torch.cholesky_solve((r * on).unsqueeze(-1), F).squeeze(-1) * on
    y = torch.cholesky_solve((r.gather(1, members) * on).unsqueeze(-1), F).squeeze(-1) * on
    return torch.zeros_like(r).scatter_(1, members, y)


def _kept(problem: Quadratic, L: Tensor, Y: Tensor, factor: Factored) -> Reduced:
    """The factors as the backward pass takes them."""
    F, members, on = factor
    rows, C = F.shape[0], problem.C
    if members is None:
        members = torch.arange(on.shape[-1], device=on.device).expand(rows, -1)
        Y, C = Y * on.unsqueeze(-2), C * on.unsqueeze(-1)
    else:
        Y = Y.expand(rows, *Y.shape[-2:]).gather(2, members.unsqueeze(1).expand(-1, Y.shape[-2], -1)) * on.unsqueeze(-2)
        C = C.expand(rows, *C.shape[-2:]).gather(1, members.unsqueeze(2).expand(-1, -1, C.shape[-1])) * on.unsqueeze(-1)
    zero = torch.zeros_like(on[:, :1])
    singular = torch.zeros(rows, dtype=torch.bool, device=on.device)
    return Reduced(problem, L, Y, F, C, zero, members, on, singular, 0)


def _lower(L: Tensor, b: Tensor) -> Tensor:
    if L.ndim == 2:
        return torch.linalg.solve_triangular(L, b.mT, upper=False).mT
    return torch.linalg.solve_triangular(L, b.unsqueeze(-1), upper=False).squeeze(-1)


def _upper(L: Tensor, b: Tensor) -> Tensor:
    if L.ndim == 2:
        return torch.linalg.solve_triangular(L.mT, b.mT, upper=True).mT
    return torch.linalg.solve_triangular(L.mT, b.unsqueeze(-1), upper=True).squeeze(-1)
