"""The transpose of the steps that were taken, from the last to the first: the gradient of what was computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..solvers.ode.explicit import Explicit
from ..solvers.ode.kinks import within
from ..solvers.ode.problem import Found, OdeProblem
from ..solvers.ode.trajectory import Taken, Tape, interpolate
from ..solvers.problem import Inputs

GATHERED = 2**18
"""Numbers of stages that are collected before the inputs' cotangents are computed, in one product for all of them:
many calls of operators become one while all that it reads stays in the cache."""


class Stages(NamedTuple):
    """Stages at t (m,) with states y and cotangents u (m, N) of their rates; ids (m,) are their rows, None: all of
    them, once or several times. kept, more: see `Reuse`.
    """

    t: Tensor
    y: Tensor
    u: Tensor
    ids: Tensor | None
    kept: Found = ()
    more: Found = ()


class Gradients:
    """Sums of the inputs' cotangents. Stages of many steps are collected and pulled back at once."""

    def __init__(self, problem: OdeProblem, a: Inputs, wanted: Sequence[bool], rows: int) -> None:
        self.problem, self.a, self.rows = problem, a, rows
        self.wanted = any(wanted)
        self.batched = [x.dim() > r for x, r in zip(a, problem.ranks, strict=True)]
        self.totals: list[Tensor | None] = [None] * len(a)
        self.held: list[Stages] = []
        self.count = 0
        core = [size for x, r in zip(a, problem.ranks, strict=True) for size in x.shape[x.dim() - r :]]
        self.width = max(core, default=1)

    def add(self, stages: Stages) -> None:
        if not self.wanted:
            return
        self.held.append(stages)
        self.count += len(stages.y) * max(self.width, stages.y.shape[1])
        if self.count >= GATHERED:
            self.flush()

    def flush(self) -> None:
        if not self.held:
            return
        held, reuse = self.held, self.problem.reuse
        t, y, u = joined([h.t for h in held]), joined([h.y for h in held]), joined([h.u for h in held])
        ids, a = None, self.a
        if any(self.batched):
            everyone = torch.arange(self.rows, device=y.device)
            ids = joined([everyone.repeat(len(h.y) // self.rows) if h.ids is None else h.ids for h in held])
            a = self.problem.rows(self.a, ids)
        if reuse is None or not held[0].kept:
            found = self.problem.pull_parameters(t, y, u, a)
        else:
            kept, more = (tuple(joined(x) for x in zip(*each, strict=True)) for each in
                          ([h.kept for h in held], [h.more for h in held]))  # fmt: skip
            found = reuse.pull_inputs(t, y, u, kept, more, *a)
        self.held, self.count = [], 0
        self.put(found, ids)

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


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Along the first axis; a single one without a copy."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


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
        u = _step(problem, e, states[k], mine, u, g, at, sums)
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
    state: State,
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
        return _by_autograd(within(problem, e.sides), e, state.y, a, u, sums)
    piece = within(problem, e.sides)
    Z, kept = state.Z, state.kept
    if Z is None:
        Z, kept = method.again(piece, a, e.t, e.H, state.y)
    elif kept is not None and piece.reuse is not None:
        start = piece.reuse.rate(e.t, state.y, *a)[1] if state.start is None else state.start
        kept = (start, *kept)
    dense = direct = None
    if e.asked is not None:
        r, c, theta = e.asked
        assert method.interpolant is not None
        weights = interpolate(method.interpolant, theta, u)
        given = g[r if e.ids is None else e.ids[r], c]
        dense = u.new_zeros(len(weights), *u.shape)
        dense.index_add_(1, r, weights.unsqueeze(-1) * given)
        direct = torch.zeros_like(u).index_add_(0, r, given)
    back, bars, more = method.transpose(piece, a, e.t, e.H, Z, u, dense, kept)
    if sums.wanted:
        count, n = len(bars), u.shape[1]
        t = method.times(e.t, e.H)[:count]
        t = t if e.sides is None else e.sides.times(t)
        if kept is not None:
            for j in range(count):
                sums.add(Stages(t[j], Z[j], bars[j], e.ids, kept[j], more[j]))
        else:
            ids = None if e.ids is None else e.ids.repeat(count)
            sums.add(Stages(t.reshape(-1), Z[:count].reshape(-1, n), bars.reshape(-1, n), ids))
    return back if direct is None else back + direct


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

    def __getitem__(self, k: int) -> State:
        e = self.entries[k]
        y, a = self.states, self.a
        if e.ids is not None:
            y, a = y.index_select(0, e.ids), self.problem.rows(a, e.ids)
        t, piece = e.t + e.H[:, 0], within(self.problem, e.sides)
        before = e.method.step(piece, a, t, -e.H, y, e.method.first(piece, t, y, a)).y
        self.states = before if e.ids is None else self.states.index_copy(0, e.ids, before)
        return State(before)


class State(NamedTuple):
    """The state y before a step; Z and kept of it if they are still there, and kept at y itself, `start`, if known."""

    y: Tensor
    Z: Tensor | None = None
    kept: tuple[Found, ...] | None = None
    start: Found | None = None


class _States:
    """The states before each step, with their stages where they were kept; else computed again from a snapshot."""

    def __init__(self, problem: OdeProblem, entries: Sequence[Taken], a: Inputs, snapshots: bool) -> None:
        self.problem, self.entries, self.a, self.snapshots = replace(problem, reuse=None), entries, a, snapshots
        self.found: dict[int, Tensor] = {}

    def __getitem__(self, k: int) -> State:
        e = self.entries[k]
        if not self.snapshots:
            assert e.y is not None
            return State(e.y, e.Z, e.kept, self._start(k))
        if k not in self.found:
            self._walk(k)
        return State(self.found[k])

    def _start(self, k: int) -> Found | None:
        """What the step before, if it was one of the same rows, computed last is what this one would compute first."""
        e = self.entries[k]
        if k == 0 or e.kept is None or e.sides is not None:
            return None
        before = self.entries[k - 1]
        same = before.ids is e.ids and before.method is e.method
        return before.kept[-1] if same and before.kept is not None else None

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
