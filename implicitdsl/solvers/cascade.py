"""Several solvers in turn: rows that one cannot settle go on to the next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .loop import Solver
from .problem import Inputs, RootProblem
from .verdict import MAX_ITERATIONS, NO_SIGN_CHANGE, NOT_FINITE, Solved, norm


@dataclass(frozen=True)
class Cascade(Solver):
    """Runs `rungs[0]` on all rows, `rungs[1]` on those it stalled or diverged on, and so on; `rung` says who settled.

    A row that only ran out of iterations starts the next rung where it stands, if that is better than z0, others start
    anew at z0; a row that was not finite to begin with is not handed on. Iterations and evaluations add up. Where no
    rung settles a row, the best residual that was reached is returned. While `torch.compile` traces, every rung runs on
    the whole batch, with the settled rows started at their solutions. The factor is kept only where the first rung
    settles all rows.
    """

    rungs: tuple[Solver, ...]

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        found = self.rungs[0].solve(problem, z0, a)
        if not torch.compiler.is_compiling() and found.all_converged():
            return found
        found = found._replace(rung=torch.zeros_like(found.status))
        for place, solver in enumerate(self.rungs[1:], 1):
            if torch.compiler.is_exporting():  # a program from a file finds no loop inside a branch (torch 2.13)
                found = _on_all(solver, problem, found, z0, a, place)
                continue
            if torch.compiler.is_compiling():
                found = _where_needed(solver, problem, found, z0, a, place)
                continue
            open_ = _open(found)
            rows = open_.nonzero().view(-1)
            if len(rows) == 0:
                break
            start = _start(found, z0, norm(problem.at(a).F(z0, a))).index_select(0, rows)
            more = solver.solve(problem, start, problem.take(a, rows))
            spread = (f.index_copy(0, rows, m) for f, m in zip(found[:5], more[:5], strict=True))
            found = _merge(found, Solved(*spread), open_, place)  # pyright: ignore[reportArgumentType]  # five tensors
        return found


def _open(found: Solved) -> Tensor:
    """The rows that go on."""
    return ~found.converged & (found.status != NOT_FINITE)


def _on_all(solver: Solver, problem: RootProblem, found: Solved, z0: Tensor, a: Inputs, place: int) -> Solved:
    """A rung on the whole batch; settled rows keep what they have."""
    start = _start(found, z0, norm(problem.at(a).F(z0, a)))
    return _merge(found, solver.solve(problem, start, a), _open(found), place)


def _where_needed(solver: Solver, problem: RootProblem, found: Solved, z0: Tensor, a: Inputs, place: int) -> Solved:
    """`_on_all` in a branch of the compiled graph that is skipped where all rows are settled."""

    def go_on(z0: Tensor, *every: Tensor) -> tuple[Tensor, ...]:
        # views made inside: see `loop`
        z, status, iterations, residual, nfe, rung, *rest = every
        inner = tuple(x.view_as(x) for x in rest)
        before = Solved(z, status, iterations, residual, nfe, None, rung)
        merged = _on_all(solver, problem, before, z0, inner, place)
        assert merged.rung is not None
        return tuple(t.clone() for t in (*merged[:5], merged.rung))

    def settled(z0: Tensor, *every: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.clone() for t in every[:6])

    assert found.rung is not None
    operands = (z0, *found[:5], found.rung, *a)
    z, status, iterations, residual, nfe, rung = torch.cond(_open(found).any(), go_on, settled, operands)
    return Solved(z, status, iterations, residual, nfe, None, rung)


def _start(found: Solved, z0: Tensor, before: Tensor) -> Tensor:
    """Where the next rung starts: at what was reached, unless that is worse than z0, whose residual is `before`."""
    keep = found.converged | ((found.status == MAX_ITERATIONS) & (found.residual <= before))
    return torch.where(keep.unsqueeze(-1) & found.z.isfinite(), found.z, z0)


def _merge(old: Solved, new: Solved, open_: Tensor, place: int) -> Solved:
    better = open_ & (new.converged | (new.residual < old.residual) | ~old.residual.isfinite())
    rung = old.rung if old.rung is not None else torch.zeros_like(old.status)
    # that there is no root to be seen says more than how another method failed to find it
    known = better | (open_ & (new.status == NO_SIGN_CHANGE))
    return Solved(
        torch.where(better.unsqueeze(-1), new.z, old.z),
        torch.where(known, new.status, old.status),
        torch.where(open_, old.iterations + new.iterations, old.iterations),
        torch.where(better, new.residual, old.residual),
        torch.where(open_, old.nfe + new.nfe, old.nfe),
        None,
        torch.where(better, place, rung),
    )
