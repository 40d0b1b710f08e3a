"""The transpose of one step while `torch.compile` traces."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..solvers.ode.explicit import Explicit
from ..solvers.ode.method import Method
from ..solvers.ode.problem import Found, OdeProblem
from ..solvers.ode.trajectory import interpolate
from ..solvers.problem import Inputs


def stored_stages(
    problem: OdeProblem,
    method: Method,
    a: Inputs,
    k: Tensor,
    t: Tensor,
    H: Tensor,
    y: Tensor,
    stages: tuple[Tensor, ...],
    room: int,
) -> tuple[Tensor, ...]:
    """`Explicit.recorded` of step k (1,): from the tape, or where that has ended computed again."""
    assert isinstance(method, Explicit)
    kept = len(stages[0]) - 1

    def read(k: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.index_select(0, k)[0] for x in stages)

    def again(_: Tensor, t: Tensor, H: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        mine = tuple(x.view_as(x) for x in a)  # what attributes of a give (A.mT) belongs to this branch then
        return method.recorded(problem, mine, t, H, y, problem.rate(t, y, *mine))[1]

    return read(k) if room <= kept else torch.cond((k < kept).all(), read, again, (k, t, H, y))


class Pulled(NamedTuple):
    """Cotangents of a step's state (b, N), inputs, time (b, 1), length (b, 1), and of the times of outputs (b, K)."""

    y: Tensor
    inputs: tuple[Tensor | None, ...]
    t: Tensor | None = None
    H: Tensor | None = None
    times: Tensor | None = None


def pull_explicit(
    problem: OdeProblem,
    method: Method,
    a: Inputs,
    t: Tensor,
    H: Tensor,
    y: Tensor,
    u: Tensor,
    theta: Tensor | None,
    given: Tensor | None,
    stored: tuple[Tensor, ...] | None,
    inputs: bool,
    timed: bool,
) -> Pulled:
    """For u, the cotangent of the new state, and `given` (b, K, N), those of outputs at the parts theta (b, K).
    `stored`: what `Explicit.recorded` found, where times and outputs have no gradients.
    """
    assert isinstance(method, Explicit)
    table, count = method.tableau, method.tableau.stages
    c = (0.0, *table.c)
    at = [t if problem.autonomous else t + part * H[:, 0] for part in c]
    reuse = problem.reuse
    Z, F = [y], []
    kept: list[Found] = []

    def evaluate(i: int) -> None:
        found, held = problem.kept_rate(at[i], Z[i], a)
        F.append(found)
        kept.append(held)

    if stored is not None:
        evaluate(0)
        # the stages of a step that was refused may not be finite: of length 0, it has the state for all of them
        there = [_where_moved(H, x, still) for x, still in zip(stored, (y, *kept[0]), strict=True)]
        Z += there[0].unbind(0)
        kept += [tuple(x[j] for x in there[1:]) for j in range(count - 1)]
    else:
        for i, row in enumerate(table.weights):
            evaluate(i)
            Z.append(y + H * sum((w * F[j] for j, w in row[1:]), row[0][1] * F[row[0][0]]))
    if given is not None:
        evaluate(count)
    later: dict[int, Found] = {}

    def pulled(j: int) -> Tensor:
        if reuse is None:
            return problem.pull_state(at[j], Z[j], H * bars[j], a)
        found, later[j] = reuse.pull(at[j], Z[j], H * bars[j], kept[j], *a)
        return found

    more: list[Tensor] | None = None
    if given is not None and theta is not None:
        assert method.interpolant is not None
        weights = interpolate(method.interpolant, theta.reshape(-1), y).unflatten(1, theta.shape)
        more = list(torch.einsum("sbk,bkn->sbn", weights, given).unbind(0))
    bars: dict[int, Tensor] = {}  # cotangents of the stages' rates, over H
    back: dict[int, Tensor] = {}
    if more is not None:
        bars[count] = more[count]
        u = u + pulled(count)
    total = u
    for j in range(count - 1, -1, -1):
        bar = table.a[-1][j] * u
        for i in range(j + 1, count):
            if table.a[i - 1][j]:
                bar = bar + table.a[i - 1][j] * back[i]
        bars[j] = bar if more is None else bar + more[j]
        back[j] = pulled(j)
        total = total + back[j]
    used = range(len(bars))
    found: tuple[Tensor | None, ...] = ()
    if inputs:
        wide = [x.repeat(len(bars), *(1,) * (x.dim() - 1)) if x.dim() > r else x for x, r in ranked(problem, a)]
        times, states, u = (torch.cat(x) for x in (at[: len(bars)], Z[: len(bars)], [H * bars[j] for j in used]))
        if reuse is None:
            sums = problem.pull_parameters(times, states, u, tuple(wide))
        else:
            held = tuple(map(torch.cat, zip(*kept[: len(bars)], strict=True)))
            after = tuple(map(torch.cat, zip(*(later[j] for j in used), strict=True)))
            sums = reuse.pull_inputs(times, states, u, held, after, *wide)
        found = tuple(
            p.unflatten(0, (len(bars), -1)).sum(0) if p is not None and x.dim() > r else p
            for p, (x, r) in zip(sums, ranked(problem, a), strict=True)
        )
    if not timed:
        return Pulled(total, found)
    H_bar, t_bar = torch.zeros_like(H), torch.zeros_like(H)
    for j in used:
        H_bar = H_bar + (bars[j] * F[j]).sum(1, keepdim=True)
        drift = problem.time_derivative(at[j], Z[j], a)
        if drift is not None:
            slope = (H * bars[j] * drift).sum(1, keepdim=True)
            t_bar, H_bar = t_bar + slope, H_bar + c[j] * slope
    times = None
    if theta is not None and given is not None:
        assert method.interpolant is not None
        slopes = _slopes(method.interpolant, theta.reshape(-1), y).unflatten(1, theta.shape)
        times = torch.einsum("sbk,sbn,bkn->bk", slopes, torch.stack(F), given)  # θ̄ / H
        t_bar, H_bar = t_bar - times.sum(1, keepdim=True), H_bar - (times * theta).sum(1, keepdim=True)
    return Pulled(total, found, t_bar, H_bar, times)


def pull_step(
    problem: OdeProblem,
    method: Method,
    a: Inputs,
    t: Tensor,
    H: Tensor,
    y: Tensor,
    u: Tensor,
    theta: Tensor | None,
    given: Tensor | None,
    stored: tuple[Tensor, ...] | None,
    inputs: bool,
    timed: bool,
) -> Pulled:
    """The same for a method without a transpose of its own; nothing is stored for it."""

    def step(y: Tensor, t: Tensor, H: Tensor, *a: Tensor) -> tuple[Tensor, ...]:
        found = method.smooth(problem, a, t, H, y, method.first(problem, t, y, a))
        return (found.y,) if theta is None or found.K is None else (found.y, found.K)

    ends, pull = torch.func.vjp(step, y, t, H, *a)[:2]
    moving = (H != 0).view(-1)  # rows that are finished may have grown beyond what a step can bear
    times, cotangents = None, [u]
    if theta is not None and given is not None:
        assert method.interpolant is not None
        weights = interpolate(method.interpolant, theta.reshape(-1), y).unflatten(1, theta.shape)
        cotangents.append(torch.einsum("sbk,bkn->sbn", weights, given))
    y_bar, t_bar, H_bar, *found = pull(tuple(cotangents))
    t_bar = t_bar.unsqueeze(1)
    if timed and theta is not None and given is not None:
        assert method.interpolant is not None
        slopes = _slopes(method.interpolant, theta.reshape(-1), y).unflatten(1, theta.shape)
        times = torch.einsum("sbk,sbn,bkn->bk", slopes, ends[1], given) / torch.where(H == 0, 1.0, H)
        t_bar, H_bar = t_bar - times.sum(1, keepdim=True), H_bar - (times * theta).sum(1, keepdim=True)
    return Pulled(torch.where(moving.unsqueeze(1), y_bar, u), tuple(found) if inputs else (), t_bar, H_bar, times)


def _where_moved(H: Tensor, stages: Tensor, still: Tensor) -> Tensor:
    """`stages` (s, b, …) of the rows whose steps have a length H (b, 1), `still` (b, …) of the others."""
    return torch.where((H != 0).view(-1, *(1,) * (still.dim() - 1)), stages, still)


def ranked(problem: OdeProblem, a: Inputs) -> list[tuple[Tensor, int]]:
    """The inputs, each with its core rank."""
    return list(zip(a, problem.ranks, strict=True))


def _slopes(rows: tuple[tuple[float, ...], ...], theta: Tensor, like: Tensor) -> Tensor:
    """b_i'(θ) for θ (m,): (s, m)."""
    powers = torch.stack([(j + 1) * theta**j for j in range(len(rows[0]))])
    return torch.tensor(rows, dtype=like.dtype, device=like.device) @ powers
