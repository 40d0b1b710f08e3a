"""The one loop: runs a pure iteration to a per-sample verdict, eagerly with compaction, compiled with masks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from .problem import Inputs, RootProblem
from .verdict import (
    MAX_ITERATIONS,
    RUNNING,
    Rule,
    Solved,
    View,
    bundle,
    leaving,
    norm,
    solved_status,
    verdict,
)


class Solver(ABC):
    """Anything that turns a `RootProblem` and a start (B, n) into `Solved`. Frozen dataclasses; options are fields."""

    @abstractmethod
    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        """Solve F(z; a) = 0 from z0 to ‖F(z)‖ ≤ tol · max(‖z‖, ‖F(0)‖) in each row. Never raises on divergence."""


@dataclass(frozen=True)
class Iteration(Solver):
    """A solver as a pure iteration init → state, step(state) → state; states are NamedTuples of tensors (B, ...)."""

    tol: float | None = None
    max_iter: int = 1000

    @abstractmethod
    def rule(self, n: int, dtype: torch.dtype) -> Rule:
        """Tolerance and rhythm for n unknowns."""

    @abstractmethod
    def init(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Any:
        """The first state; costs one evaluation."""

    @abstractmethod
    def step(self, problem: RootProblem, a: Inputs, state: Any) -> Any:
        """The next state; costs one evaluation."""

    @abstractmethod
    def view(self, state: Any) -> View:
        """What the loop may see of a state."""

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        return run(self, problem, z0, a)


def run(method: Iteration, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
    """Iterate until every row has a verdict. See `Solver.solve` for the criterion.

    Rows are independent: each is tested at the same steps whatever its batch mates do, and leaves with the value it
    had then. Eagerly, finished rows are compacted away once an eighth has left; while `torch.compile` traces, the loop
    is one `while_loop` with masks. A row ends as NOT_FINITE (bad at the start), DIVERGED (grew or overflowed), STALLED
    (no progress in a window) or MAX_ITERATIONS.
    """
    rule = method.rule(z0.shape[-1], z0.dtype)
    whole, problem = problem, problem.at(a)
    state = method.init(problem, z0, a)
    first = method.view(state).error
    at_zero = norm(problem.F(torch.zeros_like(z0), a))
    # F(0) = 0 says nothing of the scale when the root is 0 itself; then tol·‖F(z0)‖ keeps the test reachable
    scale = torch.where(at_zero.isfinite(), at_zero, first).maximum(rule.tol * first)
    if torch.compiler.is_compiling():
        solved = _run_compiled(method, whole, a, state, rule, first, scale)
    else:
        solved = _run_eagerly(method, whole, problem, a, state, rule, first, scale)
    return solved._replace(z=problem.clip(solved.z))


class _Ledger:
    """Rows that have left an eager run, by their place in the whole batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.out: list[Tensor] | None = None

    def enter(self, rows: Tensor | None, values: list[Tensor]) -> None:
        """Write values (one entry a leaving row) at rows; None means the whole batch at once."""
        if rows is None:
            self.out = values
            return
        if self.out is None:
            self.out = [v.new_zeros(self.batch, *v.shape[1:]) for v in values]
        for out, value in zip(self.out, values, strict=True):
            out.index_copy_(0, rows, value)


def _run_eagerly(
    method: Iteration,
    whole: RootProblem,
    problem: RootProblem,
    a: Inputs,
    state: Any,
    rule: Rule,
    first: Tensor,
    scale: Tensor,
) -> Solved:
    ledger = _Ledger(first.shape[0])
    rows: Tensor | None = None  # places of the rows still here; None while all are
    gone: Tensor | None = None  # rows here that have left already but were too few to compact
    left_before = 0
    best = first
    mark = torch.full_like(first, torch.inf)
    k = due = 0
    while True:
        view = method.view(state)
        bound = rule.tol * torch.maximum(norm(view.z), scale)
        # where iterates run off to infinity ‖z‖ makes any residual relatively small, so it must have fallen as well
        done = view.error <= (bound if k == 0 else torch.minimum(bound, 0.9 * first))
        best = torch.fmin(best, view.error)
        last = k >= rule.max_iter
        look = last or k >= due
        status: Tensor | None = None
        if look:
            status = verdict(view, done, bound, first, best, mark, rule)
            if last:
                status = torch.where(status == RUNNING, MAX_ITERATIONS, status)
            done = status != RUNNING
            due, mark = due + rule.window, best
            best = view.error
        over = done if gone is None else done | gone
        count = int(over.sum())
        if count > left_before or count == len(over):
            if status is None:
                status = solved_status(view, bound, rule.tol)
            kept = leaving(view, status, k)
            if count == len(over) and rows is None and gone is None:
                ledger.enter(None, kept)
            else:
                new = (over if gone is None else over & ~gone).nonzero().view(-1)
                ledger.enter(new if rows is None else rows[new], [t.index_select(0, new) for t in kept])
            if count == len(over):
                break
            if count * 8 >= len(over):
                stay = (~over).nonzero().view(-1)
                rows = stay if rows is None else rows[stay]
                state = type(state)(*(t.index_select(0, stay) for t in state))
                a = whole.take(a, stay)
                problem = whole.at(a)
                first, scale, best, mark = first[stay], scale[stay], best[stay], mark[stay]
                gone, left_before = None, 0
            else:
                gone, left_before = over, count
        for _ in range(min(rule.every, rule.max_iter - k)):
            state = method.step(problem, a, state)
            k += 1
    assert ledger.out is not None
    return bundle(ledger.out)


def _run_compiled(
    method: Iteration, problem: RootProblem, a: Inputs, state: Any, rule: Rule, first: Tensor, scale: Tensor
) -> Solved:
    make = type(state)

    def judged(state: Any, best: Tensor, mark: Tensor, k: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        view = method.view(state)
        bound = rule.tol * torch.maximum(norm(view.z), scale)
        best = torch.fmin(best, view.error)
        done = view.error <= torch.where(k == 0, bound, torch.minimum(bound, 0.9 * first))
        status = verdict(view, done, bound, first, best, mark, rule)
        return status, leaving(view, status, k), best

    def unfinished(k: Tensor, status: Tensor, *_: Tensor) -> Tensor:
        return (status == RUNNING).any() & (k < rule.max_iter)

    def body(k: Tensor, status: Tensor, best: Tensor, mark: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        kept, fields = rest[:size], rest[size:]
        state = make(*fields)
        # views made inside: Dynamo lifts attributes of outer tensors (W.mT) as inputs of their own, and refuses aliases
        inner = tuple(x.view_as(x) for x in a)
        at = problem.at(inner)
        for _ in range(rule.every):
            state = method.step(at, inner, state)
        k = k + rule.every
        look = k % rule.window < rule.every
        found, now, best = judged(state, best, torch.where(look, mark, torch.inf), k)
        running = status == RUNNING
        kept = tuple(_where(running, new, old) for new, old in zip(now, kept, strict=True))
        error = method.view(state).error
        mark, best = torch.where(look, best, mark), torch.where(look, error, best)
        out = (k, torch.where(running, found, status), best, mark, *kept, *state)
        return tuple(t.contiguous() for t in out)  # while_loop wants the strides of the carries, which are fresh

    k = torch.zeros((), dtype=torch.int64, device=first.device)
    status, kept, best = judged(state, first, torch.full_like(first, torch.inf), k)
    size = len(kept)
    token = torch.empty(0, device=first.device)
    carries = tuple(fresh(t, token, i) for i, t in enumerate((k, status, best, first, *kept, *state)))
    _, status, _, _, *rest = while_loop(unfinished, body, carries)
    kept = list(rest[:size])
    kept[1] = torch.where(status == RUNNING, MAX_ITERATIONS, status)
    return bundle(kept)


def _where(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *(1,) * (new.ndim - 1)), new, old)


@torch.library.custom_op("implicitdsl::fresh", mutates_args=())
def fresh(x: Tensor, token: Tensor, place: int) -> Tensor:
    """A copy of x for a carry of `while_loop`, which no compiler pass elides or shares with another.

    Inductor (torch 2.13) lets the body of a `while_loop` write into its first carries. It also drops a `clone` whose
    source is read elsewhere, and merges equal pure calls, so two loops that start from the same zeros would share
    them: silently wrong numbers. `token`, an empty tensor of this loop alone (`torch.empty` is never merged), and
    `place`, the carry's number, keep copies apart.
    """
    return x.clone(memory_format=torch.contiguous_format)


@fresh.register_fake
def _fresh_like(x: Tensor, token: Tensor, place: int) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
