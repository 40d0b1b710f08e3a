"""When a row is finished and what is said of it: tolerances, statuses and the result of a solve."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..ground.outcomes import Outcome
from .factor import Factor

if TYPE_CHECKING:
    from .optimum.bordered import Bordered
    from .schur import SchurFactor

CONVERGED, RUNNING, MAX_ITERATIONS = int(Outcome.CONVERGED), int(Outcome.RUNNING), int(Outcome.MAX_ITERATIONS)
DIVERGED, NOT_FINITE, STALLED = int(Outcome.DIVERGED), int(Outcome.NOT_FINITE), int(Outcome.STALLED)
SINGULAR, NO_SIGN_CHANGE = int(Outcome.SINGULAR), int(Outcome.NO_SIGN_CHANGE)
INFEASIBLE, UNBOUNDED = int(Outcome.INFEASIBLE), int(Outcome.UNBOUNDED)

SLOW = 0.4
"""Newton steps shrink to less of their length near a simple root; at a multiple one to 1/2 or more."""


class Solved(NamedTuple):
    """What a solver hands back; each field has one entry a sample (leading dimension B).

    z (B, n); status: `Outcome` values, int64; iterations; residual ‖F(z)‖₂; nfe: evaluations of F or G;
    factor: of ∂F/∂z at (or one step before) z, where the solver has one; rung: which solver of a cascade settled it,
    None where the first did everywhere. `whole` is `status` itself where all of it is known to be CONVERGED.
    """

    z: Tensor
    status: Tensor
    iterations: Tensor
    residual: Tensor
    nfe: Tensor
    factor: Factor | SchurFactor | Bordered | None = None
    rung: Tensor | None = None
    whole: Tensor | None = None

    @property
    def converged(self) -> Tensor:
        """F(z) = 0 to tolerance; true too where only the derivative fails (SINGULAR)."""
        return (self.status == CONVERGED) | (self.status == SINGULAR)

    def all_converged(self) -> bool:
        """Whether every row's status is CONVERGED. One host sync where that is not known yet."""
        return self.whole is self.status or not bool((self.status != CONVERGED).any())


class View(NamedTuple):
    """What the loop needs to see of a state: the point tested, its ‖F‖ (B,), and what the method knows besides.

    correction (B,): ‖z - z*‖ as a Newton step estimates it; polished: a better point, returned on convergence;
    singular (B,): the Jacobian was singular there; factor: to be kept for the backward pass; outcome (B,): a status
    that only the method can tell, RUNNING where there is none; STALLED where it knows that no progress is left;
    slow (B,): the corrections shrink as at a multiple root, so a large one is no matter of scale or condition.
    """

    z: Tensor
    error: Tensor
    correction: Tensor | None = None
    polished: Tensor | None = None
    singular: Tensor | None = None
    factor: Factor | None = None
    outcome: Tensor | None = None
    slow: Tensor | None = None


class Rule(NamedTuple):
    """Fixed numbers of a run: relative tolerance, steps between two tests, steps between two looks at progress.

    quadratic: the step that is taken on convergence squares the error.
    """

    tol: float
    every: int
    window: int
    max_iter: int
    quadratic: bool = True


def tolerance(tol: float | None, dtype: torch.dtype) -> float:
    """The relative tolerance, floored at 4 eps. Default 1e-12 in float64, 1e-6 in float32, 8 eps below."""
    eps = torch.finfo(dtype).eps
    if tol is None:
        tol = {torch.float64: 1e-12, torch.float32: 1e-6}.get(dtype, 8 * eps)
    return max(tol, 4 * eps)


def norm(x: Tensor) -> Tensor:
    """‖x‖₂ of each row, (B,). Squares are summed in float64: in float32 those of 1e-23 vanish, and those of 1e20 are
    infinite, either of which would pass for a root."""
    if x.dtype is torch.float64:
        return torch.linalg.vector_norm(x, dim=-1)
    return torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64).to(x.dtype)


def vouched(view: View, scale: Tensor, rule: Rule) -> Tensor:
    """Whether a small ‖F‖ says that z is near a root, (B,); `scale` is ‖F(0)‖.

    ‖F‖ ≤ tol·‖z‖ does not where F has other units than z (z³ + 1e-16 z + 1e-24 = 0). A method that knows its
    correction has it confirm: at most √tol·‖z‖, of which a Newton step leaves tol, else tol·‖z‖.
    """
    if view.correction is None:
        return torch.ones_like(view.error, dtype=torch.bool)
    least = rule.tol**0.5 if rule.quadratic else rule.tol
    return (view.correction <= least * norm(view.z)) | (view.error <= rule.tol * scale)


def verdict(
    view: View, done: Tensor, bound: Tensor, scale: Tensor, first: Tensor, best: Tensor, mark: Tensor, rule: Rule
) -> Tensor:
    """Status of each row at a look at progress. `bound` = tol·max(‖z‖, scale); `mark`: the best error a window ago."""
    error, tol = view.error, rule.tol
    # where rounding in F exceeds tol·scale the error stops at a few dozen eps: that is convergence, not a stall
    floor = 64 * torch.finfo(error.dtype).eps / tol
    stuck = best >= 0.999 * mark
    if view.outcome is not None:
        stuck = stuck | (view.outcome == STALLED)
    # not so where the iterates run off: there a huge ‖z‖ makes the bound huge too, but the error has grown with it
    still = stuck & error.isfinite() & (error <= 10 * best)
    level = still & (error <= floor * bound)
    if view.correction is None:
        settled = done | level
    else:  # on a plateau far out any F is small beside z, and its correction is as large as z
        settled = done | (level & vouched(view, max(1.0, floor) * scale, rule)) | (still & (view.correction <= bound))
    status = torch.where(stuck, torch.where(error > 100 * best, DIVERGED, STALLED), RUNNING)
    lost = torch.where(first.isfinite(), DIVERGED, NOT_FINITE)
    status = torch.where(error.isfinite(), status, lost)
    status = torch.where(settled, solved_status(view, bound, tol), status)
    if view.outcome is not None:
        status = torch.where((view.outcome == RUNNING) | (view.outcome == STALLED), status, view.outcome)
    return status


def solved_status(view: View, bound: Tensor, tol: float) -> Tensor:
    """CONVERGED, or SINGULAR where the remaining Newton correction dwarfs the residual (a multiple root).

    It does so too where J is small or its condition bad; a method that sees its corrections shrink tells which.
    """
    if view.correction is None:
        return torch.full_like(view.error, CONVERGED, dtype=torch.int64)
    multiple = view.correction > bound * tol ** (-1 / 3)
    if view.slow is not None:
        multiple = multiple & view.slow
    if view.singular is not None:
        multiple = multiple | view.singular
    return torch.where(multiple, SINGULAR, CONVERGED)


def leaving(view: View, status: Tensor, k: int | Tensor) -> list[Tensor]:
    """What is kept of a row that leaves: z, status, iterations, error and, if any, the factor."""
    z = view.z
    if view.polished is not None:
        good = (status == CONVERGED).unsqueeze(-1) & view.polished.isfinite()
        z = torch.where(good, view.polished, z)
    iterations = torch.full_like(status, k) if isinstance(k, int) else k.expand_as(status)
    kept = [z, status, iterations, view.error]
    if view.factor is not None:
        kept += [t for t in view.factor if t is not None]
    return kept


def bundle(kept: list[Tensor], *, whole: bool = False) -> Solved:
    """`Solved` from the lists that `leaving` makes. One evaluation a step, one to begin, one for the scale.

    `whole`: every row's status is known to be CONVERGED.
    """
    z, status, iterations, error, *rest = kept
    factor = Factor(rest[0], rest[1] if len(rest) > 1 else None) if rest else None
    return Solved(z, status, iterations, error, iterations + 2, factor, whole=status if whole else None)
