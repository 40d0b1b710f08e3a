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
from ..solvers.ode.trajectory import Taken, Tape
from ..solvers.problem import Inputs
from .ode_outputs import Dense, dense, landed, seen
from .ode_propagators import Carried, stretch, transpose_many
from .ode_sums import Gradients


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
    entries = tape.entries
    sums = Gradients(problem, a, wanted, g.shape[0])
    begin = torch.where((at <= 0).unsqueeze(-1), g, 0.0).sum(1)
    ends = torch.where((at > 0).unsqueeze(-1), g, 0.0)
    if at.shape[1] > 1:
        ends = torch.where(seen(entries, at).unsqueeze(-1), 0.0, ends)
    carried = Carried(ends.sum(1))
    states = _States(problem, entries, a, tape.budget is not None) if undone is None else undone
    ids, mine, k, alone = None, a, len(entries), 0
    while k:
        first = k if alone else stretch(entries, k, sums.width)
        if first < k:
            if transpose_many(problem, entries[first:k], a, at, g, carried, sums):
                k = first
                continue
            alone = k - first
        k, alone = k - 1, max(alone - 1, 0)
        e = entries[k]
        if e.ids is not ids:
            ids, mine = e.ids, a if e.ids is None else problem.rows(a, e.ids)
        carried.u = _step(problem, e, states[k], mine, carried.rows(ids), g, at, sums)
    sums.flush()
    return carried.whole() + begin, sums.totals


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
    method, given = e.method, landed(e, at, g)
    u = u if given is None else u + given
    if not isinstance(method, Explicit):
        return _by_autograd(within(problem, e.sides), e, state.y, a, u, dense((e,), g), sums)
    piece = within(problem, e.sides)
    Z, kept = state.Z, state.kept
    if Z is None:
        Z, kept = method.again(piece, a, e.t, e.H, state.y)
    elif kept is not None and piece.reuse is not None:
        start = piece.reuse.rate(e.t, state.y, *a)[1] if state.start is None else state.start
        kept = (start, *kept)
    outputs = dense((e,), g)
    rates = None if outputs is None else outputs.rates
    back, bars, more = method.transpose(piece, a, e.t, e.H, Z, u, rates, kept)
    if sums.wanted:
        sums.add_steps(method.times(e.t, e.H), Z, bars, e.ids, e.sides, kept, more)
    return back if outputs is None else back + outputs.state


def _by_autograd(
    problem: OdeProblem, e: Taken, y: Tensor, a: Inputs, u: Tensor, outputs: Dense | None, sums: Gradients
) -> Tensor:
    """The same for a method without a transpose of its own: autograd through one step."""
    wanted = [i for i, x in enumerate(a) if x.is_floating_point() and sums.wanted]
    with torch.enable_grad():
        at = y.detach().requires_grad_()
        cut = tuple(x.detach().requires_grad_(i in wanted) for i, x in enumerate(a))
        first = e.method.first(problem, e.t, at, cut)
        step = e.method.smooth(problem, cut, e.t, e.H, at, first)
    ends, given = [step.y], [u]
    if outputs is not None:
        assert step.K is not None
        ends, given = [step.y, step.K], [u, outputs.rates]
    back, *found = torch.autograd.grad(ends, [at, *(cut[i] for i in wanted)], given, allow_unused=True)
    every: list[Tensor | None] = [None] * len(a)
    for i, x in zip(wanted, found, strict=True):
        every[i] = x
    sums.put(every, e.ids)
    back = torch.zeros_like(u) if back is None else back
    return back if outputs is None else back + outputs.state


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
