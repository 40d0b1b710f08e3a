"""Quadratic objectives over cones by Clarabel, a sample a thread, finished by Newton steps on the optimality map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...ground.outcomes import Outcome
from ..factor import Factor, factorise
from ..host import Array, array, chosen, lengths
from .cones import Cones
from .idle import NEARER, binding, drawn
from .minty import Minty
from .nesterov_todd import NesterovTodd
from .quadratic import peak, plus, times, times_transposed
from .sizes import Sizes, sizes_of

RANKS = (2, 1, 2, 1)
"""Core ranks of P, q, A and b."""
STEPS = 8
"""Newton steps at most."""
SHIFT = 1e-10
"""δ, relative to the largest entry of the Jacobian."""
EXACT, ROUNDING, NEAR = 1e-14, 1e3, 0.1
"""‖F‖ relative to the solution that needs no further step; a multiple of it that needs none that doesn't help; how far
steps may lead, relative to the solution."""


class Cone(NamedTuple):
    """min ½ xᵀPx + qᵀx subject to A x + s = b, s in a product of cones; each with or without a batch dimension."""

    P: Tensor
    q: Tensor
    A: Tensor
    b: Tensor


class ConeSolution(NamedTuple):
    """x (B, n), w = s − y (B, m), from which s = Π(w) and y = Π(w) − w; status, iterations, residual (B,); a factor of
    the map's Jacobian, if there is one at the solution; whether that of some sample was seen to be singular.
    """

    x: Tensor
    w: Tensor
    status: Tensor
    iterations: Tensor
    residual: Tensor
    factor: Factor | None = None
    singular: bool = False


def optimality(cones: Cones, state: Tensor, P: Tensor, q: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """[P x + q + Aᵀy; A x + s − b], zero at an optimum; state = [x; w] (B, n + m). Minty's parametrisation."""
    n = q.shape[-1]
    x, w = state[:, :n], state[:, n:]
    s = cones.project(w)
    return torch.cat([plus(plus(q, x, P.mT), s - w, A), plus(s - b, x, A.mT)], -1)


def jacobian(cones: Cones, state: Tensor, P: Tensor, q: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """∂/∂[x; w] of `optimality`, (B, n + m, n + m)."""
    n, rows = q.shape[-1], state.shape[0]
    D = cones.slope(state[:, n:])
    m = D.shape[-1]
    eye = torch.eye(m, dtype=D.dtype, device=D.device)
    P, A = P.expand(rows, n, n), A.expand(rows, m, n)
    return torch.cat([torch.cat([P, A.mT @ (D - eye)], -1), torch.cat([A, D], -1)], -2)


def pullback(cones: Cones, state: Tensor, P: Tensor, q: Tensor, A: Tensor, b: Tensor) -> Callable[[Tensor], Tensor]:
    """u ↦ Jᵀ u of that Jacobian, which is not formed."""
    n, D = q.shape[-1], cones.slope(state[:, q.shape[-1] :])

    def pull(u: Tensor) -> Tensor:
        Ax, w = times(A, u[:, :n]), u[:, n:]
        return torch.cat([times_transposed(P, u[:, :n]) + times_transposed(A, w), times(D, Ax + w) - Ax], -1)

    return pull


def pulled(
    cones: Cones, state: Tensor, u: Tensor, P: Tensor, q: Tensor, A: Tensor, b: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cotangents of P, q, A and b for the cotangent u of `optimality`; summed over the batch where they are shared."""
    n = q.shape[-1]
    x, w, ux, uw = state[:, :n], state[:, n:], u[:, :n], u[:, n:]
    y = cones.project(w) - w
    return (
        _outer(ux, x) if P.ndim == 3 else ux.mT @ x,
        ux if q.ndim == 2 else ux.sum(0),
        _outer(y, ux) + _outer(uw, x) if A.ndim == 3 else y.mT @ ux + uw.mT @ x,
        -uw if b.ndim == 2 else -uw.sum(0),
    )


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a.unsqueeze(-1) * b.unsqueeze(-2)


def steady(J: Tensor, n: int) -> tuple[Factor, Tensor]:
    """A factor of the Jacobian of an optimality map with n unknowns, and where it was singular, (B,).

    There [A, D] becomes [A, D + δ (I − D)], which is regular if only the multipliers are not unique: Newton's method
    then is the proximal method of multipliers, with nearly its own rate (Rockafellar 1976).
    """
    factor = factorise(J)
    singular = factor.is_singular()
    if bool(singular.any()):
        m = J.shape[-1] - n
        shift = SHIFT * J.abs().amax((-2, -1), keepdim=True).clamp(min=1e-300)
        corner = shift * (torch.eye(m, dtype=J.dtype, device=J.device) - J[..., n:, n:])
        other = J + torch.nn.functional.pad(corner, (n, 0, n, 0))
        factor = factorise(torch.where(singular.view(-1, 1, 1), other, J))
    return factor, singular


@dataclass(frozen=True)
class Conic:
    """Clarabel's homogeneous interior point (Goulart & Chen 2024) for every sample, then Newton's method. If it is not
    asked for by name, problems with second-order cones alone are solved a batch at a time, by `Minty`, where that fails
    by `NesterovTodd`, and go to Clarabel where that fails too.

    The last steps reduce ‖F‖ to rounding where the solution is regular. Samples whose unknowns, costs or rows are far
    from size one are solved, and judged, in units of their own data. Statuses: CONVERGED, INFEASIBLE, UNBOUNDED,
    NOT_FINITE, MAX_ITERATIONS, STALLED. Works on the CPU in float64.
    """

    tol: float | None = None  # 1e-9
    max_iter: int = 200
    solver: str | None = None  # "clarabel"

    def __post_init__(self) -> None:
        if self.solver not in (None, "clarabel"):
            raise ValueError(f"the conic solvers are clarabel, not {self.solver!r}")

    def solve(self, problem: Cone, cones: Cones, rows: int) -> ConeSolution:
        """The optimum of every sample."""
        tol = 1e-9 if self.tol is None else self.tol
        problem = Cone(*(t.detach() for t in problem))
        nearer = drawn(cones, problem.A, problem.b, NEARER)
        if nearer is None:
            return self._in_units(problem, cones, rows, tol)
        found, times = None, NEARER
        part, left = problem, torch.arange(rows, device=problem.q.device)
        while nearer is not None:  # a bound that is nearer and does not bind is as good as the one that is meant
            again = self._in_units(part._replace(b=nearer.b), cones, len(left), tol)
            by = nearer.by.expand_as(again.w)
            lost = (by > 0).any(-1) & (binding(cones, again.w, by) | (again.status != int(Outcome.CONVERGED)))
            again = again._replace(w=again.w + by)
            found = again if found is None else _with_rows(found, left, again)
            left, times = left[lost], times * NEARER
            if not len(left):
                return found
            part = _some(problem, left, rows)
            nearer = drawn(cones, part.A, part.b, times)
        assert found is not None
        return _with_rows(found, left, self._in_units(part, cones, len(left), tol))

    def _in_units(self, problem: Cone, cones: Cones, rows: int, tol: float) -> ConeSolution:
        sizes = sizes_of(*problem)
        if sizes is None:
            return self._solved(problem, cones, rows, tol)
        found = self._solved(Cone(*sizes.measured(*problem)), cones, rows, tol)
        return _as_given(problem, cones, found, sizes)

    def _solved(self, problem: Cone, cones: Cones, rows: int, tol: float) -> ConeSolution:
        if self.solver is None and cones.second and not cones.orders:
            return self._batched((Minty(), NesterovTodd()), problem, cones, rows, tol)
        return self._by_clarabel(problem, cones, rows, tol)

    def _batched(
        self, solvers: Sequence[Minty | NesterovTodd], problem: Cone, cones: Cones, rows: int, tol: float
    ) -> ConeSolution:
        """The batch by the first solver, the samples that it does not find by the others, at last by Clarabel."""
        if not solvers:
            return self._by_clarabel(problem, cones, rows, tol)
        x, w, found, iterations = solvers[0].solve(*problem, cones, rows)
        state, n = torch.cat([x, w], -1), x.shape[-1]
        status = torch.where(found, int(Outcome.CONVERGED), int(Outcome.STALLED))
        state, error, factor, singular = _polished(state, status, cones, problem)
        good = _met(state, error, cones, problem, 10 * tol) & array(found)
        residual = torch.from_numpy(error).to(x)
        if good.all():
            status = torch.full_like(iterations, int(Outcome.CONVERGED))
            return ConeSolution(state[:, :n], state[:, n:], status, iterations, residual, factor, singular)
        left = torch.from_numpy(~good).to(x.device)
        rest = _some(problem, left, rows)
        again = self._batched(solvers[1:], rest, cones, int(left.sum()), tol)
        state = state.index_put((left,), torch.cat([again.x, again.w], -1))
        status = torch.full_like(iterations, int(Outcome.CONVERGED)).index_put((left,), again.status)
        iterations, residual = (
            t.index_put((left,), new) for t, new in ((iterations, again.iterations), (residual, again.residual))
        )
        singular = singular or again.singular
        return ConeSolution(state[:, :n], state[:, n:], status, iterations, residual, None, singular)

    def _by_clarabel(self, problem: Cone, cones: Cones, rows: int, tol: float) -> ConeSolution:
        whole = [t.expand(rows, *t.shape[-r:]) for t, r in zip(problem, RANKS, strict=True)]
        q, b = whole[1], whole[3]
        finite = torch.stack([t.flatten(1).isfinite().all(-1) for t in whole]).all(0)
        arrays = [[t[i].cpu().numpy() for t in whole] if bool(finite[i]) else None for i in range(rows)]
        with ThreadPoolExecutor(max_workers=max(1, torch.get_num_threads())) as pool:
            found = list(pool.map(lambda given: _clarabel(given, cones, min(tol, 1e-8), self.max_iter), arrays))
        n, m = q.shape[-1], b.shape[-1]
        points = [np.concatenate(f[:2]) if f is not None else np.zeros(n + m) for f in found]
        state = torch.from_numpy(np.array(points).reshape(rows, n + m)).to(q)
        none = (None, None, int(Outcome.NOT_FINITE), 0)
        status = torch.tensor([(f or none)[2] for f in found], device=q.device)
        iterations = torch.tensor([(f or none)[3] for f in found], device=q.device)
        safe = [torch.where(finite.view(-1, *(1,) * (t.ndim - 1)), t, 0.0) for t in whole]
        state, error, _, singular = _polished(state, status, cones, safe)
        good = _met(state, error, cones, safe, 10 * tol)
        solvable = (status == int(Outcome.CONVERGED)) | (status == int(Outcome.STALLED))
        solvable = solvable | (status == int(Outcome.MAX_ITERATIONS))
        met = torch.from_numpy(good).to(q.device)
        status = torch.where(solvable & met, int(Outcome.CONVERGED), status)
        status = torch.where((status == int(Outcome.CONVERGED)) & ~met, int(Outcome.STALLED), status)
        residual = torch.from_numpy(error).to(q)
        return ConeSolution(state[:, :n], state[:, n:], status, iterations, residual, None, singular)


def _some(problem: Cone, index: Tensor, rows: int) -> Cone:
    """The samples at `index` (or where a mask is true)."""
    return Cone(*(t if t.ndim == r or rows == 1 else t[index] for t, r in zip(problem, RANKS, strict=True)))


def _with_rows(whole: ConeSolution, rows: Tensor, found: ConeSolution) -> ConeSolution:
    """With what was found of these samples in their place."""
    x, w, status, iterations, residual = (
        t.index_copy(0, rows, new) for t, new in zip(whole[:5], found[:5], strict=True)
    )
    return ConeSolution(x, w, status, iterations, residual, None, whole.singular or found.singular)


def _as_given(problem: Cone, cones: Cones, found: ConeSolution, sizes: Sizes) -> ConeSolution:
    """The solution of the problem as it was given; a factor of the other Jacobian is none of its own."""
    w, k = found.w, cones.zero
    # not Π(w) − w, whose rounding is that of s: a multiplier has to stay on its face of the cone however large it gets
    y = torch.cat([-w[:, :k], cones.project(-w)[:, k:]], -1)
    x, s, y = sizes.restored(found.x, cones.project(w), y)
    error = torch.linalg.vector_norm(optimality(cones, torch.cat([x, s - y], -1), *problem), dim=-1)
    residual = torch.where(error.isfinite(), error, found.residual)
    return found._replace(x=x, w=s - y, residual=residual, factor=None)


@np.errstate(all="ignore")
def _polished(
    state: Tensor, status: Tensor, cones: Cones, data: Sequence[Tensor]
) -> tuple[Tensor, Array, Factor | None, bool]:
    """The best of some Newton steps; the last factor, where it is of a matrix near every sample's solution; whether one
    was singular. What concerns whole samples is kept by the host."""
    P, q, A, b = data
    F = optimality(cones, state, P, q, A, b)
    error, first, trial, size, known = lengths(F), state, state, 1 + array(peak(state)), array(status)
    exact, near = EXACT * size, NEAR * size
    open_ = (known != int(Outcome.INFEASIBLE)) & (known != int(Outcome.UNBOUNDED)) & (error > exact)
    factor: Factor | None = None
    seen = False
    for _ in range(STEPS):
        if not open_.any():
            break
        tried, lost = steady(jacobian(cones, trial, P, q, A, b), q.shape[-1])
        singular = array(lost)
        seen = seen or bool((singular & open_).any())
        trial = chosen(open_, trial - tried.solve(F), trial)
        F = optimality(cones, trial, P, q, A, b)
        after = lengths(F)
        helps = open_ & (after < error) & (array(peak(trial - first)) <= near)
        # a step of its own Jacobian that meets the conditions has seen the right pieces of them
        right = ~open_ | helps & (after <= ROUNDING * exact) & ~singular
        factor = tried if right.all() else None
        state, error = chosen(helps, trial, state), np.where(helps, after, error)
        # also on where ‖F‖ grows: which constraints are active is open at s ≈ y ≈ 0 until a step decides it
        open_ = open_ & np.isfinite(after) & (error > exact) & (helps | (error > ROUNDING * exact))
    return state, error, factor, seen


def _met(state: Tensor, error: Array, cones: Cones, data: Sequence[Tensor], tol: float) -> Array:
    """Whether stationarity holds relative to multipliers and costs, and the constraints to point, slacks and bounds:
    multipliers that grow without bound excuse no violation. (B,)
    """
    if (error <= tol).all():
        return np.ones_like(error, dtype=bool)
    _, q, _, b = data
    n = q.shape[-1]
    F, x, w = optimality(cones, state, *data), state[:, :n], state[:, n:]
    s = cones.project(w)
    stationary = peak(F[:, :n]) <= tol * (1 + peak(s - w) + peak(q.expand_as(x)))
    return array(stationary & (peak(F[:, n:]) <= tol * (1 + peak(x) + peak(s, b.expand_as(w)))))


def _clarabel(given: list[Any] | None, cones: Cones, tol: float, max_iter: int) -> tuple[Any, Any, int, int] | None:
    """x, w, status and iterations of one sample."""
    if given is None:
        return None
    from scipy import sparse

    clarabel: Any = import_module("clarabel")  # which has no type stubs

    P, q, A, b = given
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_iter = max_iter
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tol
    settings.presolve_enable = False
    settings.max_threads = 1
    kinds: list[Any] = []
    if cones.zero:
        kinds.append(clarabel.ZeroConeT(cones.zero))
    if cones.nonneg:
        kinds.append(clarabel.NonnegativeConeT(cones.nonneg))
    kinds += [clarabel.SecondOrderConeT(k) for k in cones.second]
    kinds += [clarabel.PSDTriangleConeT(k) for k in cones.orders]
    upper = sparse.csc_matrix(np.triu((P + P.T) / 2))
    found = clarabel.DefaultSolver(upper, q, sparse.csc_matrix(A), b, kinds, settings).solve()
    status = _STATUS.get(str(found.status), Outcome.STALLED)
    x, s, y = (np.asarray(v, dtype=np.float64) for v in (found.x, found.s, found.z))
    if status in (Outcome.INFEASIBLE, Outcome.UNBOUNDED):
        x, s, y = (np.nan_to_num(v) for v in (x, s, y))
    return x, s - y, int(status), int(found.iterations)


_STATUS = {
    "Solved": Outcome.CONVERGED,
    "AlmostSolved": Outcome.CONVERGED,
    "PrimalInfeasible": Outcome.INFEASIBLE,
    "AlmostPrimalInfeasible": Outcome.INFEASIBLE,
    "DualInfeasible": Outcome.UNBOUNDED,
    "AlmostDualInfeasible": Outcome.UNBOUNDED,
    "MaxIterations": Outcome.MAX_ITERATIONS,
}
