"""Separable convex objectives over coupling rows and bounds: a primal-dual interior point on a diagonal Hessian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...ground.outcomes import Outcome
from ..host import Array, array, column
from .quadratic import cholesky_times, peak, plus, times, times_transposed

CONVERGED, RUNNING = int(Outcome.CONVERGED), int(Outcome.RUNNING)

FRACTION = 0.99
"""Of the way to the boundary that a step goes at most."""
LEAST = 1e-12
"""A curvature so small is taken for this: then a step is bounded by the rows."""
REDUNDANT = 1e-12
"""What is added to the diagonal of the rows' matrix, relative to it, for rows that follow from others."""
JUMP = 1e3
"""A step that multiplies the error by more is taken back to a quarter."""
SHORTEST = 1e-6
FALL = 30.0
"""Entries fall to no less than e to the minus this of their distance to the edge of φ's domain in a step."""
NARROW = 1e-9
"""Bounds that are closer, relative to their size, are moved apart by this."""
INNER = 0.1
"""How far from bounds and edges a start is at least, relative to their size or to the room between them."""
NEAR = 0.01
"""Slacks at the start are at least so large, relative to the largest."""
FAR, CERTAIN = 1e12, 1e-8
SMALL = 2**16
"""Of entries × rows × samples so many cost little more than the calls that handle them."""
BEYOND = 1e30
"""Stands for an edge that is not there."""


@dataclass(frozen=True)
class DiagonalProblem:
    """min Σ φᵢ(xᵢ) subject to C x = d in the first `equalities` rows and ≤ d in the others, and bounds on entries.

    entries (x, rows) -> φ′ and φ″ (B, n) of the samples `rows`; C (k, n) or (B, k, n), d (B, k). Bound j is
    sign[j] · (x[place[j]] − value[:, j]) ≤ 0; value (B, b). φ is defined between `low` and `high` (B, n), where given.
    """

    entries: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    C: Tensor
    d: Tensor
    equalities: int
    place: Tensor
    sign: Tensor
    value: Tensor
    low: Tensor | None = None
    high: Tensor | None = None

    def select(self, index: Tensor) -> DiagonalProblem:
        """Some samples; `rows` stay those of the whole batch."""
        low, high = (None if t is None else t[index] for t in (self.low, self.high))
        C = self.C if self.C.ndim == 2 else self.C[index]
        return replace(self, C=C, d=self.d[index], value=self.value[index], low=low, high=high)

    @property
    def bounded(self) -> bool:
        """Whether there are bounds."""
        return self.place.shape[-1] > 0

    def spread(self, t: Tensor) -> Tensor:
        """Σ over the bounds of an entry, (B, b) to (B, n)."""
        return t.new_zeros(t.shape[0], self.C.shape[-1]).index_add_(1, self.place, t)

    def gather(self, x: Tensor) -> Tensor:
        """The entry of each bound, (B, n) to (B, b), times its sign."""
        return x.index_select(1, self.place) * self.sign

    def kept_inside(self, x: Tensor, dx: Tensor) -> Tensor:
        """The step dx, towards an edge of the domain at distance w by the factor exp(dx / w) alone, (B, n)."""
        up = down = dx
        if self.low is not None:
            w = x - self.low
            down = w * torch.nn.functional.elu((dx / w).clamp_(min=-FALL))  # eʳ − 1, or r where r > 0
        if self.high is None:
            return down
        w = self.high - x
        up = -w * torch.nn.functional.elu((-dx / w).clamp_(min=-FALL))
        return torch.where(dx > 0, up, down)


class Found(NamedTuple):
    """x (B, n); y (B, k + b), the multipliers of rows and bounds; status and iterations (B,)."""

    x: Tensor
    y: Tensor
    status: Tensor
    iterations: Tensor


class _State(NamedTuple):
    """x (B, n), y (B, k + b), and the slacks s (B, k − p) of the rows that are inequalities."""

    x: Tensor
    y: Tensor
    s: Tensor

    def select(self, index: Tensor) -> _State:
        return _State(*(t[index] for t in self))


@np.errstate(all="ignore")
def solve(problem: DiagonalProblem, x0: Tensor, tol: float, max_iter: int) -> Found:
    """Mehrotra's predictor and corrector; a step solves C H⁻¹ Cᵀ, (k, k), with the diagonal H = φ″ + Σ z / t.

    Entries that fall towards the edge of φ's domain do so by the factor exp(dx / w) of their distance w, which for
    entropies is the step in the logarithm. From points x0 (B, n); cost an iteration: k² n + k³/3 flops a sample, and
    one φ′ and φ″. Sources: Mehrotra (1992); Saunders (PDCO) for separable objectives.
    """
    rows = torch.arange(x0.shape[0], device=x0.device)
    problem, state, crossed = _start(problem, x0)
    whole, here = problem, _Here(problem, state, rows)
    out = Found(state.x, state.y, torch.full_like(rows, RUNNING), torch.zeros_like(rows))
    off, count = array(crossed), np.zeros(len(rows), dtype=np.int64)
    running = np.isfinite(here.error) & ~off
    status = np.where(running, RUNNING, np.where(off, int(Outcome.INFEASIBLE), int(Outcome.NOT_FINITE)))
    few = max(1, SMALL // (x0.shape[-1] * max(1, problem.d.shape[-1])))
    for it in range(max_iter + 1):
        running = running & (here.error > tol)
        left = 0 if it == max_iter else int(running.sum())
        if not left or (2 * left <= len(rows) and len(rows) > few):  # the settled leave when they are half of many
            now = np.where((status == RUNNING) & (here.error <= tol), CONVERGED, status)
            found = (*here.state[:2], *(torch.from_numpy(t).to(rows.device) for t in (now, count)))
            out = Found(*(_put(t, rows, v) for t, v in zip(out, found, strict=True)))
            if not left:
                break
            index = torch.from_numpy(running).to(rows.device)
            rows, status, count, here = rows[index], status[running], count[running], here.select(running)
            running = np.ones(left, dtype=bool)
        count = count + running
        here, stuck = here.next(running)
        if stuck is not None:
            status, running = np.where(stuck, int(Outcome.STALLED), status), running & ~stuck
    return out._replace(status=_verdict(whole, out))


def _put(whole: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    return values if len(rows) == len(whole) else whole.index_copy(0, rows, values)


def _grams(C: Tensor) -> Tensor | None:
    """The products CᵢCⱼ (n, k²) of shared rows, where they are few numbers: then C H⁻¹Cᵀ is one product."""
    if C.ndim == 3 or C.shape[-1] * C.shape[-2] ** 2 > SMALL:
        return None
    return (C.unsqueeze(0) * C.unsqueeze(1)).flatten(0, 1).mT


class _Here:
    """A state with its residuals, and the error of the optimality conditions relative to terms at the start, (B,)."""

    def __init__(self, problem: DiagonalProblem, state: _State, rows: Tensor, first: _Here | None = None) -> None:
        self.problem, self.state, self.rows = problem, state, rows
        self.grams = _grams(problem.C) if first is None else first.grams
        x, y, s = state
        k, p = problem.d.shape[-1], problem.equalities
        slope, self.curvature = problem.entries(x, rows)
        self.dual = plus(slope, y[:, :k] if problem.bounded else y, problem.C)
        self.above = self.below = plus(problem.d, x, problem.C.mT, of_b=-1)  # C x − d without slacks, and with them
        if s.shape[-1]:
            self.below = self.above.clone()
            self.below[:, p:].add_(s)
        if problem.bounded:
            self.dual = self.dual + problem.spread(y[:, k:] * problem.sign)
            s = torch.cat([s, (problem.value - x.index_select(1, problem.place)) * problem.sign], -1)
        self.s, self.lam = s, y[:, p:]
        self.gap = self.s * self.lam
        self.scale = array(peak(slope)) + 1 if first is None else first.scale
        self.size = array(peak(x, problem.d)) + 1 if first is None else first.size
        self.error = array(peak(self.dual))
        if s.shape[-1]:
            self.error = np.maximum(self.error, array(self.gap.amax(-1)))
        self.error = self.error / self.scale
        if k:
            self.error = np.maximum(self.error, array(peak(self.below)) / self.size)

    def select(self, keep: Array) -> _Here:
        """Some samples."""
        index = torch.from_numpy(keep).to(self.rows.device)
        found = object.__new__(_Here)
        for name, value in self.__dict__.items():
            found.__dict__[name] = value[keep] if isinstance(value, np.ndarray) else value
            if isinstance(value, Tensor | DiagonalProblem | _State) and name != "grams":
                found.__dict__[name] = value[index] if isinstance(value, Tensor) else value.select(index)
        return found

    def next(self, running: Array) -> tuple[_Here, Array | None]:
        """Where the `running` samples go from here, and which of them are stuck, if any."""
        step, alpha = self._direction()
        alpha = np.where(running, alpha, 0.0)
        stuck: Array | None = None
        while True:
            there = _Here(self.problem, self._moved(step, column(alpha, step.x)), self.rows, self)
            fine = ~running | (there.error <= JUMP * self.error)  # NaN is not
            if fine.all():
                return there, stuck
            alpha = np.where(fine, alpha, alpha / 4)
            lost = running & ~(alpha >= SHORTEST)  # nor is NaN
            stuck = lost if stuck is None else stuck | lost
            running, alpha = running & ~lost, np.where(lost, 0.0, alpha)

    def _direction(self) -> tuple[_State, Array]:
        """The corrected step and how much of it stays within the bounds."""
        problem, lam, s = self.problem, self.lam, self.s
        C, p, m, bounded = problem.C, problem.equalities, self.state.s.shape[-1], problem.bounded
        H = self.curvature.clamp(min=LEAST)
        if bounded:
            H = H + problem.spread(lam[:, m:] / s[:, m:])
        share, k = H.reciprocal(), C.shape[-2]
        S = (C * share.unsqueeze(-2)) @ C.mT if self.grams is None else (share @ self.grams).view(len(H), k, k)
        diagonal = S.diagonal(dim1=-2, dim2=-1)
        if m:
            diagonal[:, p:].add_(s[:, :m] / lam[:, :m] if bounded else s / lam)
        diagonal.mul_(1 + REDUNDANT)
        L, _ = torch.linalg.cholesky_ex(S)
        base = plus(self.above, self.dual * share, C.mT, of_x=-1)

        def solved(ratio: Tensor, more: Tensor | None, entries: bool) -> tuple[Tensor, Tensor, Tensor]:
            """dx (where asked for), dy, and dλ / λ where dλ / λ + ds / s = ratio, s (1 + ratio) = `more` or 0."""
            right, f = base, self.dual
            if bounded:
                extra = problem.spread(ratio[:, m:] * lam[:, m:] * problem.sign)
                right, f = plus(right, extra * share, C.mT, of_x=-1), f + extra
            if more is not None and m:
                right[:, p:].add_(more[:, :m] if bounded else more)
            dy = cholesky_times(L, right)
            dx = plus(f, dy, C, -1, -1).mul_(share) if entries or bounded else f
            if bounded:
                dz = lam[:, m:] * (ratio[:, m:] + problem.gather(dx) / s[:, m:])
                dy = torch.cat([dy, dz], -1)
            return dx, dy, dy[:, p:] / lam

        if not s.shape[-1]:
            dx, dy, _ = solved(s, None, True)
            return _State(dx, dy, s), np.ones(len(dy))
        _, _, up = solved(torch.full_like(s, -1.0) if bounded else s, None, False)  # dλ / λ; and ds / s = −1 − dλ / λ
        half = up.add_(0.5)
        rest = 1 - 1 / np.maximum(0.5 + array(peak(half)), 1.0)  # after the longest step that keeps all in bounds
        target = column(array(self.gap.mean(-1)) * rest**3, s)
        ratio = (target / self.gap).addcmul_(half, half).sub_(1.25)  # −dλ ds = λ s (1 + dλ / λ) dλ / λ
        dx, dy, up = solved(ratio, torch.addcmul(s, s, ratio), True)
        other = ratio.sub_(up)  # ds / s
        least = np.minimum(array(up.amin(-1)), array(other.amin(-1)))
        ds = other[:, :m] * s[:, :m] if bounded else other * s
        return _State(dx, dy, ds), 1 / np.maximum(least / -FRACTION, 1.0)

    def _moved(self, step: _State, alpha: Tensor) -> _State:
        (x, y, s), problem = self.state, self.problem
        dx = alpha * step.x
        if problem.low is not None or problem.high is not None:
            dx = problem.kept_inside(x, dx)
        return _State(x + dx, torch.addcmul(y, alpha, step.y), torch.addcmul(s, alpha, step.s))


def _start(problem: DiagonalProblem, x0: Tensor) -> tuple[DiagonalProblem, _State, Tensor]:
    """The problem with bounds apart, a state strictly within them, and which samples have crossed bounds, (B,)."""
    x, crossed = x0, torch.zeros_like(x0[:, 0], dtype=torch.bool)
    if problem.bounded or problem.low is not None or problem.high is not None:
        low, high = _box(problem, x0)
        room, size = high - low, 1 + torch.minimum(low.abs(), high.abs())
        crossed, narrow = (room < 0).any(-1), room <= NARROW * size
        if bool(narrow.any()):
            apart = torch.where(narrow, NARROW * size + (-room).clamp(min=0), 0.0)
            low, high, room = low - apart, high + apart, room + 2 * apart
            problem = replace(problem, value=problem.value + problem.gather(apart))
        inner = torch.where(size.isfinite(), INNER * torch.minimum(room, size), 0.0)
        x = torch.minimum(torch.maximum(x, low + inner), high - inner)
        edges = [None if t is None else t.clamp(-BEYOND, BEYOND) for t in (problem.low, problem.high)]
        problem = replace(problem, low=edges[0], high=edges[1])
    p = problem.equalities
    s = (problem.d - times(problem.C, x))[:, p:]
    if s.shape[-1]:
        s = torch.maximum(s, NEAR * (1 + peak(s).unsqueeze(-1)))
    slack = s
    if problem.bounded:
        slack = torch.cat([s, (problem.value - x.index_select(1, problem.place)) * problem.sign], -1)
    y = torch.cat([x.new_zeros(x.shape[0], p), slack.clamp(min=1.0).reciprocal()], -1)
    return problem, _State(x, y, s), crossed


def _verdict(problem: DiagonalProblem, found: Found) -> Tensor:
    """The status: INFEASIBLE where the multipliers of an unsolved sample prove it, as for C x = d and ≤ d and y ≥ 0
    there is no x between the bounds where min yᵀC x > yᵀd; UNBOUNDED where x is far away.
    """
    lost = (found.status == RUNNING) | (found.status == int(Outcome.STALLED))
    if not bool(lost.any()):
        return found.status
    status = torch.where(found.status == RUNNING, int(Outcome.MAX_ITERATIONS), found.status)
    status = torch.where(lost & (peak(found.x) > FAR), int(Outcome.UNBOUNDED), status)
    k, p = problem.d.shape[-1], problem.equalities
    if not k:
        return status
    y = found.y[:, :k] / peak(found.y[:, :k]).unsqueeze(-1)
    y = torch.cat([y[:, :p], y[:, p:].clamp(min=0)], -1)
    v, size = times_transposed(problem.C, y), times_transposed(problem.C.abs(), y.abs())
    low, high = _box(problem, v)
    least = torch.where(v > 0, v * low, v * high)
    least = torch.where(v.abs() <= CERTAIN * size, 0.0, least).sum(-1)
    terms = y * problem.d
    proved = least - terms.sum(-1) > CERTAIN * (1 + terms.abs().sum(-1))
    return torch.where(lost & proved, int(Outcome.INFEASIBLE), status)


def _box(problem: DiagonalProblem, like: Tensor) -> tuple[Tensor, Tensor]:
    """Between what every entry must lie, by bounds and domain, (B, n); infinite where nothing says so."""
    inf = torch.full_like(like, torch.inf)
    low = -inf if problem.low is None else torch.where(problem.low <= -BEYOND, -inf, problem.low)
    high = inf if problem.high is None else torch.where(problem.high >= BEYOND, inf, problem.high)
    if problem.bounded:
        at, upper = problem.place.expand_as(problem.value), problem.sign > 0
        low = low.scatter_reduce(1, at[:, ~upper], problem.value[:, ~upper], "amax")
        high = high.scatter_reduce(1, at[:, upper], problem.value[:, upper], "amin")
    return low, high
