"""Quadratic objectives over cones by Clarabel, a sample a thread, finished by Newton steps on the optimality map."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...ground.outcomes import Outcome
from ..factor import factorise
from .cones import Cones
from .quadratic import peak, times, times_transposed


class Cone(NamedTuple):
    """min ½ xᵀPx + qᵀx subject to A x + s = b, s in a product of cones; each with or without a batch dimension."""

    P: Tensor
    q: Tensor
    A: Tensor
    b: Tensor


class ConeSolution(NamedTuple):
    """x (B, n), w = s − y (B, m), from which s = Π(w) and y = Π(w) − w; status, iterations, residual (B,)."""

    x: Tensor
    w: Tensor
    status: Tensor
    iterations: Tensor
    residual: Tensor


def optimality(cones: Cones, state: Tensor, P: Tensor, q: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """[P x + q + Aᵀy; A x + s − b], zero at an optimum; state = [x; w] (B, n + m). Minty's parametrisation."""
    n = q.shape[-1]
    x, w = state[:, :n], state[:, n:]
    s = cones.project(w)
    return torch.cat([times(P, x) + q + times_transposed(A, s - w), times(A, x) + s - b], -1)


def jacobian(cones: Cones, state: Tensor, P: Tensor, q: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """∂/∂[x; w] of `optimality`, (B, n + m, n + m)."""
    n, rows = q.shape[-1], state.shape[0]
    D = cones.slope(state[:, n:])
    m = D.shape[-1]
    eye = torch.eye(m, dtype=D.dtype, device=D.device)
    P, A = P.expand(rows, n, n), A.expand(rows, m, n)
    return torch.cat([torch.cat([P, A.mT @ (D - eye)], -1), torch.cat([A, D], -1)], -2)


@dataclass(frozen=True)
class Conic:
    """Clarabel's homogeneous interior point (Goulart & Chen 2024) for every sample, then Newton's method.

    The last steps reduce ‖F‖ to rounding where the solution is regular. Statuses: CONVERGED, INFEASIBLE, UNBOUNDED,
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
        whole = [t.detach().expand(rows, *t.shape[-r:]) for t, r in zip(problem, (2, 1, 2, 1), strict=True)]
        q, b = whole[1], whole[3]
        finite = torch.stack([t.flatten(1).isfinite().all(-1) for t in whole]).all(0)
        arrays = [[t[i].cpu().numpy() for t in whole] if bool(finite[i]) else None for i in range(rows)]
        with ThreadPoolExecutor(max_workers=max(1, torch.get_num_threads())) as pool:
            found = list(pool.map(lambda given: _clarabel(given, cones, min(tol, 1e-8), self.max_iter), arrays))
        n, m = q.shape[-1], b.shape[-1]
        state = torch.from_numpy(
            np.stack([np.concatenate(f[:2]) if f is not None else np.zeros(n + m) for f in found])
        ).to(q)
        none = (None, None, int(Outcome.NOT_FINITE), 0)
        status = torch.tensor([(f or none)[2] for f in found], device=q.device)
        iterations = torch.tensor([(f or none)[3] for f in found], device=q.device)
        safe = [torch.where(finite.view(-1, *(1,) * (t.ndim - 1)), t, 0.0) for t in whole]
        state, error = _polished(state, status, cones, safe)
        size = 1 + peak(state, safe[1], safe[3])
        good = error <= 10 * tol * size
        solvable = (status == int(Outcome.CONVERGED)) | (status == int(Outcome.STALLED))
        solvable = solvable | (status == int(Outcome.MAX_ITERATIONS))
        status = torch.where(solvable & good, int(Outcome.CONVERGED), status)
        status = torch.where((status == int(Outcome.CONVERGED)) & ~good, int(Outcome.STALLED), status)
        return ConeSolution(state[:, :n], state[:, n:], status, iterations, error)


def _polished(state: Tensor, status: Tensor, cones: Cones, data: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Newton steps as long as they reduce ‖F‖."""
    P, q, A, b = data
    F = optimality(cones, state, P, q, A, b)
    error = F.norm(dim=-1)
    for _ in range(4):
        step = factorise(jacobian(cones, state, P, q, A, b)).solve(F)
        trial = torch.where(step.isfinite(), state - step, state)
        after = optimality(cones, trial, P, q, A, b)
        helps = (after.norm(dim=-1) < 0.5 * error) & (status != int(Outcome.INFEASIBLE))
        helps = helps & (status != int(Outcome.UNBOUNDED))
        if not bool(helps.any()):
            break
        state, F = torch.where(helps.unsqueeze(-1), trial, state), torch.where(helps.unsqueeze(-1), after, F)
        error = F.norm(dim=-1)
    return state, error


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
