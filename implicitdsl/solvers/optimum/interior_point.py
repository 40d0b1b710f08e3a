"""Primal-dual interior point for convex quadratic programs: Mehrotra's predictor and corrector, a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from ...ground.outcomes import Outcome
from .polish import ROUNDS, finished
from .quadratic import Convex, Optimum, Quadratic, certified, peak, times, times_transposed, touched
from .reduced import Reduced, reduce

CONVERGED, RUNNING, MAX_ITERATIONS = int(Outcome.CONVERGED), int(Outcome.RUNNING), int(Outcome.MAX_ITERATIONS)
STALLED = int(Outcome.STALLED)

REGULAR = 1e-11
"""Regularisation of the Newton systems, whose data are of size one."""
FRACTION = 0.99
"""Of the step to the boundary."""
UNEQUAL = 1e-8
"""By so much two guesses of a size may differ."""
TOUCHED, TRIALS = 1e-6, 2
"""Relative slack with which a row is active at a guess, and the active sets that are tried."""
SMALL, UNITS = 1e-2, 8
"""Solutions below such a share of the unit, not exact to rounding, are found again in their own, so often at most."""
LOOK = 5
"""Iterations between two looks for a proof that there is no solution."""

Kept = TypeVar("Kept", bound=Convex)


class System(Protocol):
    """A factored Newton matrix [[P + GᵀWG, Aᵀ], [A, 0]]."""

    def solve(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]: ...


class Factored(Protocol):
    """How Newton's matrix is factored for weights w (B, m), and a KKT matrix on its active rows (see `Reduced`)."""

    def newton(self, problem: Any, w: Tensor) -> System: ...
    def reduce(self, problem: Any, active: Tensor | None) -> Any: ...


class State(NamedTuple):
    """z (B, n), y (B, p), multipliers x (B, m) and slacks s (B, m) of the inequalities."""

    z: Tensor
    y: Tensor
    x: Tensor
    s: Tensor

    def select(self, index: Tensor) -> State:
        return State(*(t[index] for t in self))


@dataclass(frozen=True)
class InteriorPoint:
    """Mehrotra (1992) for min ½zᵀPz + qᵀz, A z = b, G z ≤ h; Nocedal & Wright, Numerical Optimization, §16.6.

    Each iteration factors P + GᵀWG (n³/3 + n²m flops) and, with equalities, its Schur complement. Samples that are
    settled leave the batch. What it ends with is polished by one solve on its active set, which is exact to rounding.
    Statuses: CONVERGED, INFEASIBLE and UNBOUNDED (each with a certificate), NOT_FINITE, STALLED, MAX_ITERATIONS.
    """

    tol: float | None = None
    max_iter: int = 100

    def solve(
        self, problem: Convex, by: Factored | None = None, near: float = 0.0, guess: Tensor | None = None
    ) -> Optimum:
        """The optimum of every sample; float64 or float32 data, default tol 1e-9 and 1e-5.

        `by`: factors, dense ones by default. `near`: an error at which the polishing may try; what it does not bring to
        `tol` is STALLED. `guess` z (B, n): where the rows that are active there, or those after an exchange, are the
        right ones, no iteration is made.
        """
        by = by or Dense()
        tol = self.tol if self.tol is not None else (1e-9 if problem.q.dtype == torch.float64 else 1e-5)
        cured = problem.cured()
        unit = unit_of(cured)
        found = self._measured(problem, cured, unit, tol, by, near, guess)
        left = found.status == RUNNING
        if guess is not None and bool(left.any()):
            part = problem.select(left) if problem.rows > 1 else problem
            return found.with_rows(left, self.solve(part, by, near))
        unit, least = unit.expand(problem.rows, 1), None
        for _ in range(UNITS):  # rows that say "no bound" by a large number do not tell how large z is
            size = peak(found.z).unsqueeze(-1)
            far = (found.status == CONVERGED) & (found.residual > tol * (size / unit).squeeze(-1))
            lost = (found.status == STALLED) | (found.status == MAX_ITERATIONS)
            if least is None and bool(lost.any()):
                least = least_unit(cured).expand(problem.rows, 1)
                size = torch.where(lost.unsqueeze(-1), least, size)
                far = far | lost
            far = far & ((size > 0) & (size < SMALL * unit)).squeeze(-1)
            if not bool(far.any()):
                break
            part, own = (problem.select(far), cured.select(far)) if problem.rows > 1 else (problem, cured)
            unit = torch.where(far.unsqueeze(-1), size, unit)
            found = found.with_rows(far, self._measured(part, own, unit[far], tol, by, near, None))
        return found

    def _measured(
        self, problem: Convex, cured: Convex, unit: Tensor, tol: float, by: Factored, near: float, guess: Tensor | None
    ) -> Optimum:
        """In units of z (1,) or (B, 1); RUNNING where a guess is of no use."""
        measured = cured.measured(unit)
        scaled, rows, cost = equilibrated(measured)
        k = problem.equalities
        if guess is None:
            z, y, status, iterations = _iterate(scaled, by, max(tol, near), self.max_iter)
            inside = y[:, k:] > scaled.d[..., k:] - scaled.apply_G(z)
        else:
            z, y = guess / unit, torch.zeros_like(scaled.d).expand(len(guess), -1)
            inside, iterations = touched(scaled, z, TOUCHED), torch.ones_like(y[:, 0], dtype=torch.int64)
            status = torch.full_like(iterations, RUNNING)
        active = torch.cat([torch.ones_like(y[:, :k], dtype=torch.bool), inside], -1)
        status = torch.where(problem.finite(), status, int(Outcome.NOT_FINITE))
        y, rounds = y * rows * cost, ROUNDS if guess is None else TRIALS
        found = finished(measured, z, y, active, status, iterations, tol, by.reduce, rounds)
        return found._replace(z=found.z * unit, y=found.y * unit)


def equilibrated(problem: Kept) -> tuple[Kept, Tensor, Tensor]:
    """Rows of C with unit norm and a cost of size one; the factors by which multipliers are scaled back."""
    norm, cost = problem.sizes()
    rows = torch.where(norm > 0, 1 / norm.clamp(min=torch.finfo(norm.dtype).tiny), 1.0)
    cost = torch.where(cost > 0, cost, 1.0)
    return problem.scaled(rows, 1 / cost), rows, cost


def unit_of(problem: Convex) -> Tensor:
    """About how large z is, (1,) or (B, 1): the lesser of ‖q‖ / ‖P‖ and ‖d‖ / ‖C‖ but for zeros, and no less than
    `UNEQUAL` of the other."""
    (norm, _), (_, P) = problem.sizes(), problem.measured(torch.inf).sizes()
    guesses = [problem.q.abs().amax(-1, keepdim=True) / P]
    if norm.shape[-1]:
        guesses.append(problem.d.abs().amax(-1, keepdim=True) / norm.amax(-1, keepdim=True))
    known = [torch.where((t > 0) & t.isfinite(), t, torch.nan) for t in guesses]
    least, most = torch.fmin(known[0], known[-1]), torch.fmax(known[0], known[-1])
    return torch.maximum(least, UNEQUAL * most).nan_to_num(1.0)


def least_unit(problem: Convex) -> Tensor:
    """The least |dᵢ| / ‖Cᵢ‖ that is not zero, (1,) or (B, 1); 0 where there is none."""
    norm, _ = problem.sizes()
    if not norm.shape[-1]:
        return torch.zeros_like(problem.q[..., :1])
    each = problem.d.abs() / norm
    least = torch.where((each > 0) & each.isfinite(), each, torch.inf).amin(-1, keepdim=True)
    return torch.where(least.isfinite(), least, 0.0)


def _iterate(problem: Convex, by: Factored, tol: float, max_iter: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z, y, status and iterations of the scaled problem."""
    total, k = problem.rows, problem.equalities
    n, m = problem.q.shape[-1], problem.d.shape[-1]
    whole = problem
    z_out, y_out = problem.q.new_zeros(total, n), problem.q.new_zeros(total, m)
    status = torch.full((total,), MAX_ITERATIONS, dtype=torch.int64, device=z_out.device)
    iterations = torch.full_like(status, max_iter)
    live = torch.arange(total, device=z_out.device)
    state = start(by.newton(problem, problem.q.new_ones(total, m - k)), problem, total)
    best = z_out.new_full((total,), torch.inf)
    still = torch.zeros_like(status)
    for it in range(max_iter + 1):
        system = Residuals.of(problem, state)
        error = system.error(problem, state)
        found = torch.where(error <= tol, CONVERGED, RUNNING)
        better = error < 0.9 * best
        still = torch.where(better, 0, still + 1)
        best = torch.minimum(best, error)
        found = torch.where((found == RUNNING) & ((still >= 15) | ~error.isfinite()), STALLED, found)
        if it % LOOK == LOOK - 1 or it == max_iter or bool((found == STALLED).any()):
            proof = certified(problem, state.z, torch.cat([state.y, state.x], -1))
            proved = (found != CONVERGED) & (proof != RUNNING)
            found = torch.where(proved, proof, found)
        if it == max_iter:
            found = torch.where(found == RUNNING, MAX_ITERATIONS, found)
        done = found != RUNNING
        if bool(done.any()):
            z_out[live[done]], y_out[live[done]] = state.z[done], torch.cat([state.y, state.x], -1)[done]
            status[live[done]], iterations[live[done]] = found[done], it
            left = ~done
            if not bool(left.any()):
                break
            live, state, best, still = live[left], state.select(left), best[left], still[left]
            problem = whole.select(live)
            system = Residuals(*(t[left] for t in system))
        state = _step(problem, by, state, system)
    return z_out, y_out, status, iterations


class Residuals(NamedTuple):
    """Stationarity, equality, inequality, and the complementarity measure μ (B, 1)."""

    dual: Tensor
    equal: Tensor
    below: Tensor
    mu: Tensor

    @staticmethod
    def of(problem: Convex, state: State) -> Residuals:
        k = problem.equalities
        gap = problem.apply_C(state.z) - problem.d
        dual = problem.apply_P(state.z) + problem.q + problem.pull_C(torch.cat([state.y, state.x], -1))
        m = state.s.shape[-1]
        mu = (state.s * state.x).sum(-1, keepdim=True) / max(m, 1)
        return Residuals(dual, gap[:, :k], gap[:, k:] + state.s, mu)

    def error(self, problem: Convex, state: State) -> Tensor:
        size = 1 + peak(state.z).unsqueeze(-1)
        dual = peak(self.dual) / (1 + peak(torch.cat([state.y, state.x], -1), problem.q.expand_as(state.z)))
        primal = peak(torch.cat([self.equal, self.below], -1) / (size + problem.d.abs()))
        objective = 1 + ((problem.apply_P(state.z) * 0.5 + problem.q) * state.z).sum(-1).abs()
        return torch.maximum(torch.maximum(dual, primal), self.mu.squeeze(-1) / objective)


class Newton:
    """[[P + GᵀWG, Aᵀ], [A, 0]] factored by Cholesky, with ρAᵀA added to its corner, which changes no solution."""

    def __init__(self, problem: Quadratic, w: Tensor) -> None:
        k = problem.equalities
        self.P, self.w = problem.P, w
        self.A, self.G = problem.C[..., :k, :], problem.C[..., k:, :]
        n = self.G.shape[-1]
        eye = torch.eye(n, dtype=w.dtype, device=w.device)
        H = self.G.mT @ (w.unsqueeze(-1) * self.G)
        if problem.P is not None:
            H = H + problem.P
        size = H.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None, None].clamp(min=1e-8)
        self.rho = size.squeeze(-1)
        if k:
            H = H + size * (self.A.mT @ self.A)
        H = H + REGULAR * eye
        L, info = torch.linalg.cholesky_ex(H)
        if bool((info > 0).any()):
            extra = torch.where((info > 0)[..., None, None], 1e-8 * size, 0.0)
            L, _ = torch.linalg.cholesky_ex(H + extra * eye)
        self.L = L
        if k:
            self.Y = torch.linalg.solve_triangular(L, self.A.mT.expand(L.shape[0], n, k), upper=False)
            S = self.Y.mT @ self.Y
            top = S.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True)
            S.diagonal(dim1=-2, dim2=-1).add_(1e-13 * top + torch.finfo(S.dtype).tiny)
            self.S, _ = torch.linalg.cholesky_ex(S)

    def solve(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """(dz, dy) of the right-hand side (f, g), refined once."""
        dz, dy = self._once(f, g)
        r = f - times_transposed(self.G, self.w * times(self.G, dz))
        if self.P is not None:
            r = r - times(self.P, dz)
        if not g.shape[-1]:
            return dz + self._once(r, g)[0], dy
        more, less = self._once(r - times_transposed(self.A, dy), g - times(self.A, dz))
        return dz + more, dy + less

    def _once(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        if not g.shape[-1]:
            return torch.cholesky_solve(f.unsqueeze(-1), self.L).squeeze(-1), g
        f = f + self.rho * times_transposed(self.A, g)
        half = torch.linalg.solve_triangular(self.L, f.unsqueeze(-1), upper=False)
        dy = torch.cholesky_solve(self.Y.mT @ half - g.unsqueeze(-1), self.S)
        dz = torch.linalg.solve_triangular(self.L.mT, half - self.Y @ dy, upper=True)
        return dz.squeeze(-1), dy.squeeze(-1)


class Dense:
    """Both by Cholesky factors of dense matrices."""

    def newton(self, problem: Quadratic, w: Tensor) -> Newton:
        return Newton(problem, w)

    def reduce(self, problem: Quadratic, active: Tensor | None) -> Reduced:
        return reduce(problem, active)


def start(newton: System, problem: Convex, total: int) -> State:
    """The least-squares start of Vandenberghe's coneprog, slacks and multipliers moved inside."""
    k = problem.equalities
    b, h = problem.d[..., :k].expand(total, k), problem.d[..., k:]
    h = h.expand(total, h.shape[-1])
    q = problem.q.expand(total, problem.q.shape[-1])
    z, y = newton.solve(problem.pull_G(h) - q, b)
    s = h - problem.apply_G(z)
    return State(z, y, _inside(-s), _inside(s))


def _inside(v: Tensor) -> Tensor:
    if not v.shape[-1]:
        return v
    short = (-v).amax(-1, keepdim=True)
    moved = torch.where(short >= -1e-2 * (1 + v.abs().amax(-1, keepdim=True)), v + 1 + short, v)
    return moved.clamp(min=1e-2)


def _step(problem: Convex, by: Factored, state: State, r: Residuals) -> State:
    z, y, x, s = state
    w = x / s
    newton = by.newton(problem, w)

    def direction(centre: Tensor) -> State:
        """For x ds + s dx = −centre."""
        f = -r.dual - problem.pull_G(w * r.below - centre / s)
        dz, dy = newton.solve(f, -r.equal)
        ds = -r.below - problem.apply_G(dz)
        return State(dz, dy, -(centre + x * ds) / s, ds)

    if not s.shape[-1]:
        d = direction(s)
        return State(z + d.z, y + d.y, x, s)
    affine = direction(x * s)
    step = longest(state, affine, 1.0)
    ahead = ((s + step * affine.s) * (x + step * affine.x)).mean(-1, keepdim=True)
    sigma = (ahead / r.mu.clamp(min=torch.finfo(x.dtype).tiny)).clamp(0, 1) ** 3
    d = direction(x * s + affine.x * affine.s - sigma * r.mu)
    step = longest(state, d, FRACTION)
    tiny = torch.finfo(x.dtype).tiny ** 0.5
    return State(z + step * d.z, y + step * d.y, (x + step * d.x).clamp(min=tiny), (s + step * d.s).clamp(min=tiny))


def longest(state: State, d: State, fraction: float) -> Tensor:
    """The step at which the first slack or multiplier vanishes, times `fraction`, at most 1."""
    worst = torch.maximum((-d.x / state.x).amax(-1, keepdim=True), (-d.s / state.s).amax(-1, keepdim=True))
    return (worst / fraction).clamp(min=1.0).reciprocal()
