"""The transpose of the steps that were taken, from the last to the first: the gradient of what was computed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..solvers.ode.explicit import Explicit
from ..solvers.ode.kinks import within
from ..solvers.ode.problem import OdeProblem
from ..solvers.ode.trajectory import Taken, Tape, interpolate
from ..solvers.problem import Inputs

GATHERED = 2**16
"""Rows of stages that are collected before the inputs' cotangents are computed, in one product for all of them."""


class Gradients:
    """Sums of the inputs' cotangents. Stages of many steps are collected and pulled back at once."""

    def __init__(self, problem: OdeProblem, a: Inputs, wanted: Sequence[bool], rows: int) -> None:
        self.problem, self.a, self.rows = problem, a, rows
        self.wanted = any(wanted)
        self.batched = [x.dim() > r for x, r in zip(a, problem.ranks, strict=True)]
        self.totals: list[Tensor | None] = [None] * len(a)
        self.held: list[tuple[Tensor, Tensor, Tensor, Tensor | None]] = []
        self.count = 0

    def add(self, t: Tensor, y: Tensor, u: Tensor, ids: Tensor | None) -> None:
        """Stages at t (m,) with states y and cotangents u (m, N) of their rates; ids (m,) are their rows."""
        if not self.wanted:
            return
        self.held.append((t, y, u, ids))
        self.count += len(y)
        if self.count >= GATHERED:
            self.flush()

    def flush(self) -> None:
        if not self.held:
            return
        t, y, u = (torch.cat([h[k] for h in self.held]) for k in range(3))  # pyright: ignore[reportArgumentType]
        ids, a = None, self.a
        if any(self.batched):
            everyone = torch.arange(self.rows, device=y.device)
            ids = torch.cat([everyone.repeat(len(h[1]) // self.rows) if h[3] is None else h[3] for h in self.held])
            a = self.problem.rows(self.a, ids)
        self.held, self.count = [], 0
        self.put(self.problem.pull_parameters(t, y, u, a), ids)

    def put(self, found: Sequence[Tensor | None], ids: Tensor | None) -> None:
        """Cotangents of the inputs, those of batched ones row by row for `ids` (None: all, once)."""
        for i, g in enumerate(found):
            if g is None:
                continue
            total = self.totals[i]
            if self.batched[i]:
                if total is None:
                    total = torch.zeros_like(self.a[i])
                self.totals[i] = total.add_(g) if ids is None else total.index_add_(0, ids, g)
            else:
                self.totals[i] = g if total is None else total + g


def discrete_adjoint(
    problem: OdeProblem,
    tape: Tape,
    a: Inputs,
    wanted: Sequence[bool],
    at: Tensor,
    g: Tensor,
    undone: Undone | None = None,
) -> tuple[Tensor, list[Tensor | None]]:
    """(cotangent of y0, cotangents of the inputs) for g (B, K, N), that of the states at the places `at` (B, K).

    λ ← λ + Σ Ȳ_i with κ_i = h (b_i λ + Σ_j a_ji Ȳ_j), Ȳ_i = (∂f/∂y)ᵀ κ_i for the stages i = s … 1 of each step; the
    inputs get Σ (∂f/∂a)ᵀ κ_i. States that were not kept are computed again, or by undoing the steps from the last
    (`undone`). Not differentiable: see `replay`.
    (Hairer, Nørsett & Wanner I, §II.6; Sandu, ICCS 2006.)
    """
    rows, entries = g.shape[0], tape.entries
    sums = Gradients(problem, a, wanted, rows)
    begin = torch.where((at <= 0).unsqueeze(-1), g, 0.0).sum(1)
    ends = torch.where((at > 0).unsqueeze(-1), g, 0.0)
    if at.shape[1] > 1:
        ends = torch.where(_seen(entries, at).unsqueeze(-1), 0.0, ends)
    u = lam = ends.sum(1)
    states = _States(problem, entries, a, tape.budget is not None) if undone is None else undone
    present: Tensor | None = None
    mine = a
    for k in range(len(entries) - 1, -1, -1):
        e = entries[k]
        if e.ids is not present:
            lam = u if present is None else lam.index_copy(0, present, u)
            present = e.ids
            mine, u = (a, lam) if present is None else (problem.rows(a, present), lam.index_select(0, present))
        u = _step(problem, e, *states[k], mine, u, g, at, sums)
    lam = u if present is None else lam.index_copy(0, present, u)
    sums.flush()
    return lam + begin, sums.totals


def _seen(entries: Sequence[Taken], at: Tensor) -> Tensor:
    """Which of the inner places were passed, and so have their own cotangent."""
    seen = torch.zeros_like(at, dtype=torch.bool)
    for e in entries:
        if e.asked is not None:
            r, c, _ = e.asked
            seen[r if e.ids is None else e.ids[r], c] = True
        elif e.method.interpolant is None:
            if e.ids is None:
                seen |= _hit(e, at)
            else:
                seen[e.ids] |= _hit(e, at[e.ids])
    return seen


def _hit(e: Taken, at: Tensor) -> Tensor:
    """The inner places (b, K) at which a step ended."""
    return (at == e.end) & (at < 1)


def _step(
    problem: OdeProblem,
    e: Taken,
    y: Tensor,
    Z: Tensor | None,
    a: Inputs,
    u: Tensor,
    g: Tensor,
    at: Tensor,
    sums: Gradients,
) -> Tensor:
    """The cotangent before a step, from that after it."""
    method = e.method
    if method.interpolant is None and at.shape[1] > 1:
        hit = _hit(e, at if e.ids is None else at[e.ids])
        u = u + torch.where(hit.unsqueeze(-1), g if e.ids is None else g[e.ids], 0.0).sum(1)
    if not isinstance(method, Explicit):
        return _by_autograd(within(problem, e.sides), e, y, a, u, sums)
    piece = within(problem, e.sides)
    if Z is None:
        Z = method.states(piece, a, e.t, e.H, y)
    dense = start = None
    if e.asked is not None:
        r, c, theta = e.asked
        assert method.interpolant is not None
        weights = interpolate(method.interpolant, theta, u)
        given = g[r if e.ids is None else e.ids[r], c]
        dense = u.new_zeros(len(weights), *u.shape)
        dense.index_add_(1, r, weights.unsqueeze(-1) * given)
        start = torch.zeros_like(u).index_add_(0, r, given)
    back, bars = method.transpose(piece, a, e.t, e.H, Z, u, dense)
    if sums.wanted:
        count, n = len(bars), u.shape[1]
        t = method.times(e.t, e.H)[:count]
        t = (t if e.sides is None else e.sides.times(t)).reshape(-1)
        ids = None if e.ids is None else e.ids.repeat(count)
        sums.add(t, Z[:count].reshape(-1, n), bars.reshape(-1, n), ids)
    return back if start is None else back + start


def _by_autograd(problem: OdeProblem, e: Taken, y: Tensor, a: Inputs, u: Tensor, sums: Gradients) -> Tensor:
    """The same for a method without a transpose of its own: autograd through one step."""
    wanted = [i for i, x in enumerate(a) if x.is_floating_point() and sums.wanted]
    with torch.enable_grad():
        at = y.detach().requires_grad_()
        cut = tuple(x.detach().requires_grad_(i in wanted) for i, x in enumerate(a))
        first = e.method.first(problem, e.t, at, cut)
        end = e.method.smooth(problem, cut, e.t, e.H, at, first).y
    back, *found = torch.autograd.grad(end, [at, *(cut[i] for i in wanted)], u, allow_unused=True)
    every: list[Tensor | None] = [None] * len(a)
    for i, x in zip(wanted, found, strict=True):
        every[i] = x
    sums.put(every, e.ids)
    return torch.zeros_like(u) if back is None else back


class Undone:
    """The states before each step of time-symmetric methods, from the last to the first: a step of −h undoes one of h,
    to rounding (Hairer, Lubich & Wanner, Geometric Numerical Integration, §V.1). `states` (B, N) are those at the ends;
    afterwards those at the beginning.
    """

    def __init__(self, problem: OdeProblem, entries: Sequence[Taken], a: Inputs, states: Tensor) -> None:
        self.problem, self.entries, self.a, self.states = problem, entries, a, states

    def __getitem__(self, k: int) -> tuple[Tensor, None]:
        e = self.entries[k]
        y, a = self.states, self.a
        if e.ids is not None:
            y, a = y.index_select(0, e.ids), self.problem.rows(a, e.ids)
        t, piece = e.t + e.H[:, 0], within(self.problem, e.sides)
        before = e.method.step(piece, a, t, -e.H, y, e.method.first(piece, t, y, a)).y
        self.states = before if e.ids is None else self.states.index_copy(0, e.ids, before)
        return before, None


class _States:
    """The states before each step, with their stages where they were kept; else computed again from a snapshot."""

    def __init__(self, problem: OdeProblem, entries: Sequence[Taken], a: Inputs, snapshots: bool) -> None:
        self.problem, self.entries, self.a, self.snapshots = problem, entries, a, snapshots
        self.found: dict[int, Tensor] = {}

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor | None]:
        e = self.entries[k]
        if not self.snapshots:
            assert e.y is not None
            return e.y, e.Z
        if k not in self.found:
            self._walk(k)
        return self.found[k], None

    def _walk(self, end: int) -> None:
        """Every step from the snapshot before `end` up to it."""
        begin = end
        while self.entries[begin].y is None:
            begin -= 1
        everyone, self.found = self.entries[begin].y, {}
        assert everyone is not None
        for k in range(begin, end + 1):
            e = self.entries[k]
            y = everyone if e.ids is None else everyone.index_select(0, e.ids)
            self.found[k] = y
            if k == end:
                return
            a = self.a if e.ids is None else self.problem.rows(self.a, e.ids)
            piece = within(self.problem, e.sides)
            new = e.method.step(piece, a, e.t, e.H, y, e.method.first(piece, e.t, y, a)).y
            everyone = new if e.ids is None else everyone.index_copy(0, e.ids, new)
