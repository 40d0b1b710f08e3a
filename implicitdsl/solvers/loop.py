"""The one loop: runs a pure iteration to a per-sample verdict, eagerly with compaction, compiled with masks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from .carries import fresh_all
from .eager import run_eagerly, seen, sized
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
    verdict,
    vouched,
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

    measures_start: ClassVar[bool] = False
    """The error of the first state is ‖F(z0)‖."""

    @abstractmethod
    def rule(self, n: int, dtype: torch.dtype) -> Rule:
        """Tolerance and rhythm for n unknowns."""

    @abstractmethod
    def init(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Any:
        """The first state; costs one evaluation."""

    @abstractmethod
    def step(self, problem: RootProblem, a: Inputs, state: Any) -> Any:
        """The next state; costs one evaluation."""

    def advance(self, problem: RootProblem, a: Inputs, state: Any, count: int) -> Any:
        """`count` steps on."""
        for _ in range(count):
            state = self.step(problem, a, state)
        return state

    @abstractmethod
    def view(self, state: Any) -> View:
        """What the loop may see of a state."""

    def glance(self, state: Any) -> View | None:
        """`view` at less cost, if there is such; the error has to be right only from `eager.SMALL` to `eager.LARGE`."""
        return None

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        return run(self, problem, z0, a)


def run(method: Iteration, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
    """Iterate until every row has a verdict. See `Solver.solve` for the criterion.

    Rows are independent: each is tested at the same steps whatever its batch mates do, and leaves with the value it
    had then. Eagerly, finished rows of a large batch are compacted away; while `torch.compile` traces, the loop
    is one `while_loop` with masks. A row ends as NOT_FINITE (bad at the start), DIVERGED (grew or overflowed), STALLED
    (no progress in a window) or MAX_ITERATIONS.
    """
    rule = method.rule(z0.shape[-1], z0.dtype)
    if problem.precision > rule.tol:
        rule = rule._replace(tol=problem.precision)
    whole, problem = problem, problem.at(a)
    state = method.init(problem, z0, a)
    if torch.compiler.is_compiling():
        first = method.view(state).error
        solved = _run_compiled(method, whole, a, state, rule, first, _scale(problem, z0, a, first, rule.tol))
    else:
        view, least, reach = seen(method, state)
        scale = view.error  # where it is ‖F(0)‖; ‖z‖ is no larger after one step from 0
        if not method.measures_start or bool(z0.any()):
            scale = _scale(problem, z0, a, view.error, rule.tol)
            reach = sized(view.z, scale)[1]
        solved = run_eagerly(method, whole, a, problem, state, view, rule, scale, least, reach)
    return solved._replace(z=problem.clip(solved.z))


def _scale(problem: RootProblem, z0: Tensor, a: Inputs, first: Tensor, tol: float) -> Tensor:
    """‖F(0)‖, for roots near 0; F(0) = 0 says nothing of the scale, then tol·‖F(z0)‖ keeps the test reachable."""
    at_zero = norm(problem.F(torch.zeros_like(z0), a))
    return torch.where(at_zero.isfinite(), at_zero, first).maximum(tol * first)


def _run_compiled(
    method: Iteration, problem: RootProblem, a: Inputs, state: Any, rule: Rule, first: Tensor, scale: Tensor
) -> Solved:
    make = type(state)
    every = next(e for e in range(rule.every, 0, -1) if rule.max_iter % e == 0)  # so that the limit is met exactly

    def judged(state: Any, best: Tensor, mark: Tensor, k: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        view = method.view(state)
        bound = rule.tol * torch.maximum(norm(view.z), scale)
        best = torch.fmin(best, view.error)
        done = view.error <= torch.where(k == 0, bound, torch.minimum(bound, 0.9 * first))
        done = done & view.error.isfinite()
        if view.correction is not None:
            done = done & vouched(view, scale, rule)
        status = verdict(view, done, bound, scale, first, best, mark, rule)
        return status, leaving(view, status, k), best

    def unfinished(k: Tensor, status: Tensor, *_: Tensor) -> Tensor:
        return (status == RUNNING).any() & (k < rule.max_iter)

    def body(k: Tensor, status: Tensor, best: Tensor, mark: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        kept, fields = rest[:size], rest[size:]
        state = make(*fields)
        # views made inside: Dynamo lifts attributes of outer tensors (W.mT) as inputs of their own, and refuses aliases
        inner = tuple(x.view_as(x) for x in a)
        at = problem.at(inner)
        for _ in range(every):
            state = method.step(at, inner, state)
        k = k + every
        look = k % rule.window < every
        found, now, best = judged(state, best, torch.where(look, mark, torch.inf), k)
        running = status == RUNNING
        kept = tuple(_where(running, new, old) for new, old in zip(now, kept, strict=True))
        error = method.view(state).error
        mark, best = torch.where(look, best, mark), torch.where(look, error, best)
        out = (k, torch.where(running, found, status), best, mark, *kept, *state)
        # while_loop wants the strides of the carries, which are fresh, and no carry handed through as it came
        return tuple(t.clone() if any(t is f for f in fields) else t.contiguous() for t in out)

    k = torch.zeros((), dtype=torch.int64, device=first.device)
    status, kept, best = judged(state, first, torch.full_like(first, torch.inf), k)
    size = len(kept)
    carries = fresh_all([k, status, best, first, *kept, *state])
    _, status, _, _, *rest = while_loop(unfinished, body, tuple(carries))
    kept = list(rest[:size])
    kept[1] = torch.where(status == RUNNING, MAX_ITERATIONS, status)
    return bundle(kept)


def _where(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *(1,) * (new.ndim - 1)), new, old)
