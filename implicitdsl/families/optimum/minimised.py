"""How a smooth program is minimised: in units of its own, then by Newton steps on its optimality conditions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from implicitdsl.backward.failure import Failures
from implicitdsl.families.equilibrium.roots import Regions
from implicitdsl.lowering.source import Program
from implicitdsl.solvers.factor import Factor, factorise
from implicitdsl.solvers.loop import Solver
from implicitdsl.solvers.optimum.cones import Cones
from implicitdsl.solvers.optimum.convex import Convex, ConvexProblem, Slope
from implicitdsl.solvers.optimum.lost import reasons
from implicitdsl.solvers.optimum.quadratic import peak
from implicitdsl.solvers.optimum.regular import equilibrium, regular, scaled
from implicitdsl.solvers.optimum.smooth import Derivatives, Smooth, SmoothProblem, Values
from implicitdsl.solvers.optimum.units import Units, linearised_at, optimality, some, units_of
from implicitdsl.solvers.problem import Inputs, RootProblem
from implicitdsl.solvers.verdict import CONVERGED, MAX_ITERATIONS, NOT_FINITE, STALLED, Solved, norm

from .diagonal import Parts, Separated
from .domain import outside, within
from .ending import MET, finished, met

LONGEST = 100
"""Iterations on a diagonal Hessian after which the general method takes a sample."""

CLEAR = 1e-9
"""Optimality conditions that are met to this need no second look."""

MEASURED = 8
"""Problems are solved again so often at most, each time in the units that were found."""

TINY, ZERO = 1e-4, 1e-25
"""Points below the first, in units, are looked at in smaller ones; they are zero where that has made them smaller by
the second."""

ESCAPES, AWAY = 3, 0.1
"""From saddles and maxima it goes on so often, by such a share of the point."""
HELD, CURVED = 1e8, 1e-6
"""Curvature across active constraints, and the least that counts within them, in a matrix with rows of about one."""

SAME, PIVOT = 1e-7, 1e-8
"""A factor serves the backward pass, which refines, where it was made so near, relative to the point, that the square
of what it is off vanishes, and where its least pivot is above such a share of the largest."""


@dataclass(frozen=True)
class SmoothRecipe:
    """All that is known of a block before tensors come.

    `inputs` are what every generated function takes after the state, with core `ranks`; `unknowns` and `multipliers`
    are names and shapes, in packing order (equalities first); `sizes` are (n, p, m). `parts` of a program with a
    diagonal Hessian. Of a `convex` one it is found out why a sample is lost. `near`: the smoothed optimality
    conditions, where derivatives are those of the barrier problem.
    """

    program: Program
    inputs: tuple[str, ...]
    ranks: tuple[int, ...]
    unknowns: tuple[tuple[str, tuple[int, ...]], ...]
    multipliers: tuple[tuple[str | None, float, tuple[int, ...]], ...]
    duals: tuple[tuple[str, str], ...]
    sizes: tuple[int, int, int]
    regions: Regions
    start: tuple[str, ...] | None
    solver: Smooth
    failures: Failures
    method: str
    convex: bool
    parts: Parts | None = None
    near: Program | None = None


class _Attempt(NamedTuple):
    """What was found; what of it is converged but `doubtful`, (B,); and where the point is so small in the units it was
    found in, but not zero, that they may be the wrong ones."""

    solved: Solved
    doubtful: Tensor
    tiny: Tensor

    def with_rows(self, rows: Tensor, found: _Attempt) -> _Attempt:
        """With these samples solved once more."""
        old, new = ((t.solved.z, t.solved.status, t.solved.residual, t.doubtful, t.tiny) for t in (self, found))
        z, status, error, doubtful, tiny = (t.index_copy(0, rows, v) for t, v in zip(old, new, strict=True))
        count = self.solved.iterations.index_add(0, rows, found.solved.iterations)
        return _Attempt(Solved(z, status, count, error, count), doubtful, tiny)


@dataclass(frozen=True)
class KktSolver(Solver):
    """Minimises, then takes Newton steps on the optimality conditions as long as they help: exact to rounding."""

    recipe: SmoothRecipe

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        recipe = self.recipe
        if recipe.parts is None:
            return self._minimised(problem, z0, a)
        limit, x0 = min(recipe.solver.max_iter, LONGEST), z0[:, : recipe.parts.size]
        separated = Separated.of(recipe.parts, recipe.program, a, x0, problem)
        (state, status, iterations, error), last = separated.solve(problem, x0, recipe.solver.tol, limit)
        size = peak(state[:, : recipe.parts.size])
        lost = _lost(status) | (status == NOT_FINITE) | ((status == CONVERGED) & (size < TINY) & (size > 0))
        if bool(lost.any()):  # the general method has a line search, and units
            rows = lost.nonzero().squeeze(-1)
            first = torch.where((status == CONVERGED).unsqueeze(-1), state, z0)[rows]
            other = self._minimised(problem, first, problem.take(a, rows))
            found = (other.z, other.status, other.iterations, other.residual)
            state, status, iterations, error = (
                t.index_copy(0, rows, new) for t, new in zip((state, status, iterations, error), found, strict=True)
            )
        status = separated.judged(state, status, x0)
        return Solved(state, status, iterations, error, iterations, separated.kept(state, last))

    def _minimised(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        recipe, (n, p, m) = self.recipe, self.recipe.sizes
        program, smooth = recipe.program, smooth_problem(recipe, problem, z0, a)
        x0 = within(program, z0[:, :n], a)
        start = linearised_at(smooth, x0, p, m)
        units = units_of(x0, *start)
        best = self._attempt(problem, a, smooth, x0, units, start)
        lost = _lost(best.solved.status)
        if units is not None and bool(lost.any()):  # as where the start is a place that tells nothing
            rows = lost.nonzero().squeeze(-1)
            found = self._attempt(problem, problem.take(a, rows), some(smooth, rows), x0[rows], None)
            best = best.with_rows(rows, found)
        if not recipe.convex:
            best = self._descended(problem, a, smooth, best)
        size = peak(best.solved.z[:, :n])
        for _ in range(MEASURED):
            again = best.doubtful | best.tiny
            if not bool(again.any()):
                break
            rows = again.nonzero().squeeze(-1)
            best = self._again(problem, a, smooth, best, rows, best.solved.z[rows, :n])
        solved, doubtful = best.solved, best.doubtful
        zero = (doubtful | _lost(solved.status)) & (peak(solved.z[:, :n]) <= ZERO * size) & (solved.residual <= MET)
        if bool(zero.any()):
            solved = solved._replace(status=torch.where(zero, CONVERGED, solved.status), whole=None)
            doubtful = doubtful & ~zero
        beyond = outside(program, solved.z[:, :n], a)
        if beyond is not None:
            doubtful = doubtful | (beyond & (solved.status == CONVERGED))
        if not bool(doubtful.any()):
            return solved
        return solved._replace(status=torch.where(doubtful, STALLED, solved.status), whole=None)

    def _descended(self, problem: RootProblem, a: Inputs, smooth: SmoothProblem, best: _Attempt) -> _Attempt:
        """From points where the objective falls within the constraints, as saddles and maxima, on along the steepest
        of these directions; what does not leave them is STALLED."""
        down, wrong = self._falls(problem, a, best.solved)
        for _ in range(ESCAPES):
            if not bool(wrong.any()):
                return best
            rows = wrong.nonzero().squeeze(-1)
            x = best.solved.z[rows, : self.recipe.sizes[0]]
            size = peak(x).unsqueeze(-1)
            x = x + AWAY * torch.where(size > 0, size, 1.0) * down[rows]
            best = self._again(problem, a, smooth, best, rows, x)
            down, wrong = self._falls(problem, a, best.solved)
        status = torch.where(wrong, STALLED, best.solved.status)
        return best._replace(solved=best.solved._replace(status=status, whole=None))

    def _again(
        self, problem: RootProblem, a: Inputs, smooth: SmoothProblem, best: _Attempt, rows: Tensor, x: Tensor
    ) -> _Attempt:
        """With some samples solved once more, from x, in its units."""
        _, p, m = self.recipe.sizes
        part = some(smooth, rows)
        units = units_of(x, *linearised_at(part, x, p, m), found=True)
        return best.with_rows(rows, self._attempt(problem, problem.take(a, rows), part, x, units))

    def _falls(self, problem: RootProblem, a: Inputs, solved: Solved) -> tuple[Tensor, Tensor]:
        """The direction (B, n) of least curvature of the Lagrangian within the active constraints, and where that is
        negative at a point that counts as converged, (B,): the second-order conditions (Nocedal & Wright §12.5)."""
        n = self.recipe.sizes[0]
        J = problem.J(solved.z, a)
        J = J.expand(len(solved.z), *J.shape[-2:])
        d = equilibrium(J)
        J = scaled(J, d)
        H, A = J[:, :n, :n], J[:, n:, :n]
        M = H + HELD * A.mT @ A if A.shape[-2] else H
        values, V = torch.linalg.eigh(M.nan_to_num(0.0, 0.0, 0.0))
        down = V[..., 0] * d[:, :n]
        down = down / peak(down).clamp(min=torch.finfo(down.dtype).tiny).unsqueeze(-1)
        return down, (solved.status == CONVERGED) & (values[:, 0] < -CURVED)

    def _attempt(
        self,
        problem: RootProblem,
        a: Inputs,
        smooth: SmoothProblem,
        x0: Tensor,
        units: Units | None,
        start: tuple[Values, Derivatives] | None = None,
    ) -> _Attempt:
        """In these units."""
        n, p, _ = self.recipe.sizes
        if units is None:
            found, doubtful = self._found(problem, a, smooth, x0, start)
            return _Attempt(found, doubtful, self._tiny(found))
        measured, every = units.problem(smooth, p), torch.arange(len(x0), device=x0.device)
        found, doubtful = self._found(optimality(measured, n, p), (every,), measured, x0 / units.point)
        state = units.plain(found.z)
        plain = found._replace(z=state, residual=norm(problem.F(state, a)), factor=None)
        return _Attempt(plain, doubtful, self._tiny(found))

    def _tiny(self, found: Solved) -> Tensor:
        size = peak(found.z[:, : self.recipe.sizes[0]])
        tiny = (size < TINY) & (size > 0)
        return tiny & (_lost(found.status) | (found.status == CONVERGED))

    def _found(
        self,
        problem: RootProblem,
        a: Inputs,
        smooth: SmoothProblem,
        x0: Tensor,
        start: tuple[Values, Derivatives] | None = None,
    ) -> tuple[Solved, Tensor]:
        """Of `smooth` from x0, whose optimality conditions are `problem`; and what is converged but doubtful."""
        recipe, (n, p, m) = self.recipe, self.recipe.sizes
        found = recipe.solver.solve(smooth, x0, start)
        first = torch.cat([found.z, found.nu, found.lam], -1) if p + m else found.z
        known: tuple[Tensor, Factor] | None = None

        def step(state: Tensor, F: Tensor) -> Tensor:
            nonlocal known
            J = found.last[1] if found.last is not None and state is first else problem.J(state, a)
            if p + m:
                d = equilibrium(J)
                return d * regular(scaled(J, d), n, p)[0].solve(d * F)
            known = state, factorise(J)
            return known[1].solve(F)

        F = None if found.last is None else found.last[0]
        lost = _lost(found.status)
        state, error, unsure = finished(problem, first, a, lost | (found.status == CONVERGED), step, n, F)
        status = found.status
        doubtful = lost | ((status == CONVERGED) & ~(error <= CLEAR))
        if p + m and bool(doubtful.any()):
            rows = doubtful.nonzero().squeeze(-1)
            status = status.index_copy(
                0, rows, self._verdict(problem, state[rows], problem.take(a, rows), smooth.values, rows, status)
            )
            again = (lost & (status != CONVERGED)).unsqueeze(-1)
            state = torch.where(again, first, state)
        left = _lost(status)
        if recipe.convex and bool(left.any()):
            rows = left.nonzero().squeeze(-1)
            cones = ConvexProblem(
                Cones(p, m, ()),
                lambda z, rows: _joined(*smooth.values(z, rows)),
                lambda z, y, rows: _sloped(*smooth.derivatives(z, y[:, :p], y[:, p:], rows)),
            )
            status = status.index_copy(0, rows, reasons(cones, x0[rows], rows, status[rows], Convex()))
        solved = Solved(state, status, found.iterations, error, found.iterations)
        unsure = unsure & (status == CONVERGED)
        if known is None or not solved.all_converged():
            return solved, unsure
        return solved._replace(whole=solved.status, factor=_serving(state, *known)), unsure

    def _verdict(
        self,
        problem: RootProblem,
        state: Tensor,
        a: Inputs,
        values: Callable[[Tensor, Tensor], Values],
        rows: Tensor,
        status: Tensor,
    ) -> Tensor:
        """The status of some rows: what was lost may have been found in the end, what was found may only seem to be
        relative to an infinite slope at the end of a domain."""
        n, p, _ = self.recipe.sizes
        at, lam = values(state[:, :n], rows), state[:, n + p :]
        off = torch.cat([at.e, torch.maximum(torch.maximum(at.g, -lam), -at.g * lam)], -1)
        good, before = met(problem, state, a, n, off), status[rows]
        return torch.where(good, CONVERGED, torch.where(before == CONVERGED, STALLED, before))


def smooth_problem(recipe: SmoothRecipe, problem: RootProblem, z0: Tensor, a: Inputs) -> SmoothProblem:
    """Values and derivatives of the samples of z0 (B, …), whose numbers `rows` the functions take."""
    n, p, m = recipe.sizes
    program = recipe.program
    taken = z0, a

    def at(rows: Tensor) -> Inputs:
        nonlocal taken
        if len(rows) == z0.shape[0]:
            return a
        if taken[0] is not rows:
            taken = rows, problem.take(a, rows)
        return taken[1]

    def sized(t: Tensor, rows: Tensor, *core: int) -> Tensor:
        return t if t.ndim > len(core) else t.expand(len(rows), *core)

    def values(z: Tensor, rows: Tensor) -> Values:
        found = several(program["values"](z, *at(rows)))
        e = sized(found[1], rows, p) if p else z[:, :0]
        g = sized(found[1 + bool(p)], rows, m) if m else z[:, :0]
        return Values(sized(found[0], rows), e, g)

    def derivatives(z: Tensor, nu: Tensor, lam: Tensor, rows: Tensor) -> Derivatives:
        state = torch.cat([z, nu, lam], -1) if p + m else z
        found = list(several(program["derivatives"](state, *at(rows))))
        f, H = sized(found.pop(0), rows, n), sized(found.pop(0), rows, n, n)
        e = sized(found.pop(0), rows, p, n) if p else z[:, :0, None]
        g = sized(found.pop(0), rows, m, n) if m else z[:, :0, None]
        return Derivatives(f, e, g, H)

    return SmoothProblem(values, derivatives)


def _lost(status: Tensor) -> Tensor:
    """Where nothing was found, for no reason that is known."""
    return (status == STALLED) | (status == MAX_ITERATIONS)


def _joined(f: Tensor, e: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    return f, torch.cat([e, g], -1)


def _sloped(f: Tensor, e: Tensor, g: Tensor, H: Tensor) -> Slope:
    return Slope(f, torch.cat([t.expand(-1, -1, f.shape[-1]) for t in (e, g)], -2), H)  # none may be (B, 0, 1)


def _serving(state: Tensor, made: Tensor, factor: Factor) -> Factor | None:
    """The factor that was made at another state, where it is good for this one."""
    least, most = factor.diagonal.abs().aminmax(dim=-1)
    near = peak(state - made) <= SAME * (1 + peak(state))
    return factor if bool((near & (least > PIVOT * most)).all()) else None


def several(found: Any) -> Sequence[Tensor]:
    """What a generated function returns, as a sequence."""
    return found if isinstance(found, tuple) else (found,)
