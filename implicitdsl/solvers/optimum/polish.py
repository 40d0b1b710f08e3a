"""The end of every quadratic solve: an exact solve on the active set, the check of its residuals, a verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...ground.outcomes import Outcome
from .dual import Kept, dual_of
from .quadratic import Convex, Optimum, Quadratic, certified, met, residual
from .reduced import Reduced, reduce

CONVERGED = int(Outcome.CONVERGED)

EXACT = 1e-13
"""A residual that needs no better active set."""
ROOM = 100
"""Such a multiple of that is near enough for a factor that needs no refinement."""
ROUNDS = 6
"""Active sets that are tried."""


Reduce = Callable[[Any, Tensor | None], Any]
"""What factors the KKT matrix of a problem on active rows: see `reduced.reduce`."""


def on_active(
    problem: Convex, active: Tensor | None, rows: int, near: Tensor | None = None, by: Reduce = reduce
) -> tuple[Tensor, Tensor, Any]:
    """z, y with the active rows met with equality, and the factored system.

    Where constraints are redundant many y will do: it is the nearest to `near` (which has the right signs), else to 0.
    """
    factor = by(problem, active)
    q = problem.q.expand(rows, problem.q.shape[-1])
    d = problem.d.expand(rows, problem.d.shape[-1])
    if near is None or active is None:
        return *factor.solve(-q, d), factor
    near = torch.where(active & near.isfinite(), near, 0.0)
    z, more = factor.solve(-q - problem.pull_C(near), d)
    return z, near + more, factor


def finished(
    problem: Convex,
    z: Tensor,
    y: Tensor,
    active: Tensor,
    status: Tensor,
    iterations: Tensor,
    tol: float,
    by: Reduce = reduce,
    rounds: int = ROUNDS,
) -> Optimum:
    """Polish samples that converged or nearly so, keep what is better, and let the residuals have the last word.

    At most `rounds` active sets are tried.
    """
    rows, k = z.shape[0], problem.equalities
    error = residual(problem, z, y)
    hopeless = (status == int(Outcome.INFEASIBLE)) | (status == int(Outcome.UNBOUNDED))
    hopeless = hopeless | (status == int(Outcome.NOT_FINITE))
    trial, near = active, y
    for _ in range(rounds):
        exact, multipliers, _ = on_active(problem, trial, rows, near, by)
        after = residual(problem, exact, multipliers)
        better = (after < error) & ~hopeless
        z = torch.where(better.unsqueeze(-1), exact, z)
        y = torch.where(better.unsqueeze(-1), multipliers, y)
        active = torch.where(better.unsqueeze(-1), trial, active)
        error = torch.where(better, after, error)
        if bool((hopeless | (error <= EXACT)).all()):
            break
        # as in an active-set method: rows that pull the wrong way leave, rows that are broken enter
        slack = problem.d[..., k:] - problem.apply_G(exact)
        pulls = trial[:, k:] & (multipliers[:, k:] > 0)
        entering = ~trial[:, k:] & (slack < 0)
        trial = torch.cat([trial[:, :k], pulls | entering], -1)
        near = multipliers
    status = torch.where(~hopeless & (error <= tol), CONVERGED, status)
    worse = (status == CONVERGED) & ~(error <= 100 * tol)
    status = torch.where(worse, int(Outcome.STALLED), status)
    return Optimum(z, y, active, status, iterations, error)


def _regular(problem: Quadratic, rows: int) -> tuple[Optimum, Kept] | None:
    """The optimum and the factor where the KKT matrix is safely regular, so that nothing need be refined."""
    dual = None if problem.P is None else dual_of(problem)
    if dual is None:
        return None
    kept = Kept(dual, None, None)
    q, d = (t.expand(rows, t.shape[-1]) for t in (problem.q, problem.d))
    z, y = kept.solve(-q, d)
    error, exact = met(problem, z, y, EXACT * ROOM)
    if not exact:
        return None
    status = torch.full_like(error, CONVERGED, dtype=torch.int64)
    active = torch.ones_like(y, dtype=torch.bool)
    return Optimum(z, y, active, status, torch.ones_like(status), error, None, status), kept


def direct(problem: Quadratic) -> tuple[Optimum, Reduced | Kept]:
    """A problem without inequalities: one solve. Cost n³/3 + n²m + m³/3 a matrix, shared matrices once."""
    rows = problem.rows
    found = _regular(problem, rows)
    if found is not None:
        return found
    z, y, factor = on_active(problem, None, rows)
    return judged(problem, z, y), factor


def judged(problem: Convex, z: Tensor, y: Tensor) -> Optimum:
    """What solves a problem without inequalities, if it does."""
    error = residual(problem, z, y)
    tol = 1e-9 if z.dtype == torch.float64 else 1e-4
    good = error <= tol
    status = torch.where(good, CONVERGED, int(Outcome.STALLED))
    if not bool(good.all()):
        proof = certified(problem, z, y)
        known = proof != int(Outcome.RUNNING)
        status = torch.where(known & ~good, proof, status)
    active = torch.ones_like(y, dtype=torch.bool)
    once = torch.ones_like(status)
    return Optimum(z, y, active, status, once, error)
