"""Newton's method without a matrix: steps by minimal residuals over a Krylov space, as exact as they need to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .loop import Iteration
from .problem import Inputs, RootProblem
from .verdict import Rule, View, norm, tolerance

_SHORTEST = 2.0**-8
_RESTART = 30
_PRODUCTS = 4 * _RESTART


class NewtonKrylovState(NamedTuple):
    """Accepted point z with F(z) and its norm; the Newton system J d = -F: d, its residual r, the next direction, the
    kept ones and how many products it took; the forcing term η; the trial length t, 0 while the system is still being
    solved (B,)."""

    z: Tensor
    f: Tensor
    error: Tensor
    d: Tensor
    r: Tensor
    ahead: Tensor
    p: Tensor
    q: Tensor
    products: Tensor
    eta: Tensor
    length: Tensor


@dataclass(frozen=True)
class NewtonKrylov(Iteration):
    """z ← z + t·d with ‖J d + F‖ ≤ η ‖F‖, t halved until ‖F‖ falls, η = 0.9 (‖F‖ / ‖F before‖)² (Eisenstat-Walker).

    Each row is either at its Newton system (one product with J a step, minimal residual over the last 30 directions
    as in `Gmres`) or at its line search (one F a step), whatever the others do. A system gets 120 products at most.
    Where J gives no hold at all (a singular start), d = ±F is tried. `max_iter` counts Newton steps at 30 products
    each; `iterations` counts products and trials. Cost a step: one product and 8·30·n flops a row; memory 60 n a row.
    Source: Eisenstat & Walker (1996), choice 2; Knoll & Keyes (2004).
    """

    tol: float | None = None
    max_iter: int = 100

    def rule(self, n: int, dtype: torch.dtype) -> Rule:
        return Rule(tolerance(self.tol, dtype), 1, 8 * _RESTART + 2 * n, self.max_iter * _RESTART)

    def init(self, problem: RootProblem, z0: Tensor, a: Inputs) -> NewtonKrylovState:
        z = problem.clip(z0)
        f = problem.F(z, a)
        error = norm(f)
        kept = z.new_zeros(z.shape[0], min(_RESTART, z.shape[1]), z.shape[1])
        eta, length = torch.full_like(error, 0.1), torch.zeros_like(error)
        return NewtonKrylovState(
            z, f, error, torch.zeros_like(f), -f, -f, kept, kept, torch.zeros_like(error), eta, length
        )

    def step(self, problem: RootProblem, a: Inputs, state: NewtonKrylovState) -> NewtonKrylovState:
        solving = state.length == 0
        if torch.compiler.is_compiling() or bool(solving.any()):
            state = _product(problem, a, state, solving)
        searching = state.length != 0
        if torch.compiler.is_compiling() or bool(searching.any()):
            state = _trial(problem, a, state, searching)
        return state

    def view(self, state: NewtonKrylovState) -> View:
        return View(state.z, state.error)


def _product(problem: RootProblem, a: Inputs, state: NewtonKrylovState, solving: Tensor) -> NewtonKrylovState:
    """One Krylov step in the rows that are solving; those whose system is solved well enough begin their search."""
    p, q = state.ahead.unsqueeze(1), problem.push(state.z, a)(state.ahead).unsqueeze(1)
    before = norm(q)
    for _ in range(2):
        c = torch.bmm(q, state.q.mT)
        q, p = torch.baddbmm(q, c, state.q, alpha=-1), torch.baddbmm(p, c, state.p, alpha=-1)
    size = norm(q)
    new = size > 1e3 * torch.finfo(q.dtype).eps * before
    inverse = torch.where(new, 1 / size, 0.0).unsqueeze(-1)
    q, p = q * inverse, p * inverse
    along = torch.bmm(q, state.r.unsqueeze(-1)).squeeze(-1)
    d = torch.addcmul(state.d, along, p.squeeze(1))
    r = torch.addcmul(state.r, along, q.squeeze(1), value=-1)
    idle = along.abs() < 0.05 * norm(state.r).unsqueeze(-1)
    ahead = torch.where(idle, q.squeeze(1), r)
    products = torch.where(solving, state.products + 1, state.products)
    enough = (norm(r) <= state.eta * state.error) | ~new.squeeze(-1) | (products >= _PRODUCTS)
    away = state.f * (norm(state.z).clamp_min(1.0) / state.error).clamp_max(1.0).unsqueeze(-1)
    d = torch.where((enough & _idle(norm(r), state.error)).unsqueeze(-1), away, d)
    rows, block = solving.unsqueeze(-1), solving.view(-1, 1, 1)
    return state._replace(
        d=torch.where(rows, d, state.d),
        r=torch.where(rows, r, state.r),
        ahead=torch.where(rows, ahead, state.ahead),
        p=torch.where(block, torch.cat((state.p[:, 1:], p), 1), state.p),
        q=torch.where(block, torch.cat((state.q[:, 1:], q), 1), state.q),
        products=products,
        length=torch.where(solving & enough, 1.0, state.length),
    )


def _trial(problem: RootProblem, a: Inputs, state: NewtonKrylovState, searching: Tensor) -> NewtonKrylovState:
    """One trial in the rows that are searching: taken and a new system begun, or the length halved."""
    z = problem.clip(torch.addcmul(state.z, state.length.unsqueeze(-1), state.d))
    f = problem.F(z, a)
    error = norm(f)
    size = state.length.abs()
    fallen = error <= (1 - 1e-4 * size) * state.error
    taken = searching & (fallen | ((size <= _SHORTEST) & error.isfinite()))
    shorter = torch.where(_idle(norm(state.r), state.error), -0.5 * state.length, 0.5 * state.length)
    ratio = error / state.error
    eta = torch.maximum(0.9 * ratio.square(), torch.where(state.eta > 0.3, 0.9 * state.eta.square(), 0.0))
    rows, block = taken.unsqueeze(-1), taken.view(-1, 1, 1)
    f = torch.where(rows, f, state.f)
    return NewtonKrylovState(
        torch.where(rows, z, state.z),
        f,
        torch.where(taken, error, state.error),
        torch.where(rows, 0.0, state.d),
        torch.where(rows, -f, state.r),
        torch.where(rows, -f, state.ahead),
        torch.where(block, 0.0, state.p),
        torch.where(block, 0.0, state.q),
        torch.where(taken, 0.0, state.products),
        torch.where(taken, eta.clamp(1e-4, 0.5), state.eta),
        torch.where(taken, 0.0, torch.where(searching, shorter, state.length)),
    )


def _idle(left: Tensor, error: Tensor) -> Tensor:
    """Whether a system is no better solved than by d = 0."""
    return ~(left < 0.999 * error)
