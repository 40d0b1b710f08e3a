"""One `argmin` of a smooth convex program over cones at run time: interior point, exact end, implicit derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from implicitdsl.backward.failure import Failures
from implicitdsl.backward.smoothed import Smoothing, smoothed_solve, with_derivatives
from implicitdsl.families.call import kind_of
from implicitdsl.families.equilibrium.roots import Regions
from implicitdsl.ground.errors import ConvergenceError
from implicitdsl.ground.outcomes import Outcome
from implicitdsl.lowering.bound import Bound
from implicitdsl.lowering.report import Report
from implicitdsl.lowering.source import Program
from implicitdsl.solvers.in_graph import InGraph
from implicitdsl.solvers.loop import Solver
from implicitdsl.solvers.optimum.barrier import Barrier
from implicitdsl.solvers.optimum.cones import Cones, svec_matrix
from implicitdsl.solvers.optimum.conic import steady
from implicitdsl.solvers.optimum.convex import Convex, ConvexProblem, Slope
from implicitdsl.solvers.optimum.lost import reasons
from implicitdsl.solvers.problem import Inputs, RootProblem
from implicitdsl.solvers.verdict import CONVERGED, Solved, norm

from .block import Rows, report
from .conic import kept, weak
from .domain import within
from .ending import finished
from .guess import placed
from .samples import mark
from .vectors import Vectors

INNER = frozenset(("PSD", "PD"))
"""Sets of which an inner point is the start."""
CONSTANTS = (1.0, 0.1, 10.0, -1.0)
"""Points that are tried where the objective is not defined at the first one, all entries equal."""


@dataclass(frozen=True)
class ConvexRecipe:
    """All that is known of a block before tensors come.

    `inputs` are what every generated function takes after the state, with core `ranks`; `unknowns` are names and
    shapes, of which the `symmetric` are solved for by triangle; `rows` are those of all constraints, `count`
    together, in the order of `cones`, of which the `matrices`, by first row and order, are symmetric; `inside` are the
    semidefinite ones, by number, that have to be definite for the functions to be defined. `mu`: derivatives are those
    of the barrier problem.
    """

    program: Program
    inputs: tuple[str, ...]
    ranks: tuple[int, ...]
    unknowns: tuple[tuple[str, tuple[int, ...]], ...]
    symmetric: tuple[bool, ...]
    rows: tuple[Rows, ...]
    count: int
    matrices: tuple[tuple[int, int], ...]
    inside: tuple[int, ...]
    duals: tuple[tuple[str, str], ...]
    cones: Cones
    regions: Regions
    start: tuple[str, ...] | None
    solver: Convex
    tol: float
    failures: Failures
    mu: float | None = None


class ConvexBlock:
    """Runs a recipe. Stateless but for two constant matrices and its name in compiled graphs; pickles."""

    def __init__(self, recipe: ConvexRecipe) -> None:
        self.__setstate__({"recipe": recipe})

    def __getstate__(self) -> dict[str, Any]:
        return {"recipe": self.recipe}

    def __setstate__(self, state: dict[str, Any]) -> None:
        recipe: ConvexRecipe = state["recipe"]
        self.recipe = recipe
        self.vectors = Vectors(recipe)
        own = Vectors(recipe)  # a graph may not meet one tensor on two ways
        self.optimality = Optimality(recipe, own.columns, own.rows)
        self.problem, self.solver = self.optimality.problem(), _Solver(self.optimality)
        self.in_graph = InGraph.of(recipe, partial(self.solver.solve, self.problem))
        self.smoothing = self.near = None
        if recipe.mu is not None and recipe.cones.size > recipe.cones.zero:
            # what is only a domain has no barrier but the functions themselves
            soft = replace(recipe, cones=replace(recipe.cones, mu=recipe.mu, sharp=recipe.inside))
            self.near = Vectors(soft)
            near = Optimality(soft, self.near.columns.clone(), self.near.rows.clone())
            barrier = Barrier(self.vectors.columns.shape[1], defined=near.defined)
            self.smoothing = Smoothing(soft, near.problem(), barrier)

    @property
    def texts(self) -> tuple[str, ...]:
        """The generated source."""
        return (self.recipe.program.text,)

    def solve(
        self,
        values: Mapping[str, Tensor],
        functions: Mapping[str, Bound],
        batch: int | None,
        start: Mapping[str, Tensor] | None,
        want_report: bool,
    ) -> tuple[dict[str, Tensor], Report | None]:
        """See `lowering.layer.BlockRunner`. The solve is in float64, whatever the inputs are."""
        recipe, kind = self.recipe, kind_of(values)
        a = tuple(values[name].double() for name in recipe.inputs)
        rows = next((x.shape[0] for x, rank in zip(a, recipe.ranks, strict=True) if x.ndim > rank), 1)
        like = a[0].detach() if a else torch.empty((), dtype=torch.float64)
        z0 = self._start(values, like, rows, start)
        solver = self.in_graph if torch.compiler.is_compiling() else self.solver
        try:
            state, solved, near = smoothed_solve(self.problem, solver, z0, a, self.smoothing, recipe.failures)
        except ConvergenceError as error:
            if isinstance(error.solution, Solved):
                lost = error.solution
                error.solution = self.vectors.unpacked(lost.z, batch, kind), report(lost, None, batch, "conic")
            raise
        if recipe.failures.policy == "nan":
            given = list(zip(recipe.inputs, recipe.ranks, strict=True))
            state, *rest = mark((state,) if near is None else (state, near), solved, values, given)
            near = rest[0] if rest else None
        made = None
        if want_report:
            w = state[:, self.vectors.columns.shape[1] :]
            made = report(solved, weak(recipe.cones, w, solved), batch, "conic")
        found = self.vectors.unpacked(state, batch, kind)
        if near is not None and self.near is not None:
            found = with_derivatives(found, self.near.unpacked(near, batch, kind))
        return found, made

    def _start(
        self, values: Mapping[str, Tensor], like: Tensor, rows: int, start: Mapping[str, Tensor] | None
    ) -> Tensor:
        """(B, n + m): a warm start, the expression of `start`, or a point of the sets; the rest zero."""
        recipe = self.recipe
        z0 = torch.cat([r.unit() if r.name in INNER else r.start() for r in recipe.regions.regions]).to(like)
        z0 = z0.expand(rows, len(self.vectors.columns)).clone()
        if recipe.start is not None:
            given = [values[name].detach().double() for name in recipe.start]
            z0 = recipe.program["start"](*given)[..., : z0.shape[-1]].expand(rows, -1).clone()
        z0 = placed(z0, start or {}, recipe.unknowns)
        return torch.cat([z0 @ self.vectors.columns.to(z0.device), z0.new_zeros(rows, recipe.cones.size)], -1)


@dataclass(frozen=True)
class Optimality:
    """F(x, w) = [∇f + ∂hᵀ y; h + s], s = Π(w), y = s − w: zero at an optimum of min f(x), −h(x) ∈ K (Minty 1962).

    The generated functions see unknowns T x and multipliers Rᵀ y.
    """

    recipe: ConvexRecipe
    T: Tensor
    R: Tensor

    def problem(self) -> RootProblem:
        """As equations, with derivatives in closed form where there are such."""
        return RootProblem(
            residual=self.residual,
            jacobian=self.jacobian,
            vjp_inputs=None if self._optional("pull_inputs") is None else self.pull_inputs,
            ranks=self.recipe.ranks,
        )

    def whole(self, x: Tensor, y: Tensor) -> Tensor:
        """The state of the generated functions."""
        return torch.cat([x @ self.T.to(x.device).mT, y @ self.R.to(y.device)], -1)

    def residual(self, state: Tensor, *a: Tensor) -> Tensor:
        """F (B, n + m)."""
        x, w, s = self._parts(state)
        found = self.recipe.program["residual"](self.whole(x, s - w), *a)
        N, T, R = len(self.T), self.T.to(x.device), self.R.to(x.device)
        return torch.cat([found[:, :N] @ T, found[:, N:] @ R.mT + s], -1)

    def jacobian(self, state: Tensor, *a: Tensor) -> Tensor:
        """[[H, Jᵀ (D − I)], [J, D]] with D the derivative of the projection."""
        x, w, s = self._parts(state)
        slope = self.slope(x, s - w, a)
        D = self.recipe.cones.slope(w)
        eye = torch.eye(D.shape[-1], dtype=D.dtype, device=D.device)
        return torch.cat([torch.cat([slope.H, slope.J.mT @ (D - eye)], -1), torch.cat([slope.J, D], -1)], -2)

    def pull_inputs(self, state: Tensor, u: Tensor, *a: Tensor) -> tuple[Tensor, ...]:
        """(∂F/∂a)ᵀ u."""
        x, w, s = self._parts(state)
        n = x.shape[-1]
        found = self.recipe.program["pull_inputs"](self.whole(x, s - w), self.whole(u[:, :n], u[:, n:]), *a)
        return found if isinstance(found, tuple) else (found,)

    def values(self, x: Tensor, a: Inputs) -> tuple[Tensor, Tensor]:
        """f (B,), h (B, m)."""
        found = self.recipe.program["values"](x @ self.T.to(x.device).mT, *a)
        f, *rest = found if isinstance(found, tuple) else (found,)
        h = rest[0].expand(len(x), -1) if rest else x[:, :0]
        h = h @ self.R.to(x.device).mT
        matrices = self.recipe.cones.parts(-h)[3:]
        for i in self.recipe.inside:
            k = self.recipe.cones.orders[i]
            M = (matrices[i] @ svec_matrix(k).to(h)).unflatten(-1, (k, k))
            f = torch.where(torch.linalg.cholesky_ex(M)[1] == 0, f, torch.nan)
        return f.expand(len(x)), h

    def slope(self, x: Tensor, y: Tensor, a: Inputs) -> Slope:
        """∇f, ∂h and the Hessian of f + yᵀh."""
        f, H, *rest = self.recipe.program["derivatives"](self.whole(x, y), *a)
        rows, (N, n), T, R = len(x), self.T.shape, self.T.to(x.device), self.R.to(x.device)
        J = R @ rest[0].expand(rows, -1, N) @ T if rest else x.new_zeros(rows, 0, n)
        return Slope(f.expand(rows, N) @ T, J, T.mT @ H.expand(rows, N, N) @ T)

    def defined(self, state: Tensor, a: Inputs) -> Tensor:
        """Where the functions are, (B,)."""
        f, h = self.values(state[:, : self.T.shape[1]], a)
        return f.isfinite() & h.isfinite().all(-1)

    def _parts(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = self.T.shape[1]
        w = state[:, n:]
        return state[:, :n], w, self.recipe.cones.project(w)

    def _optional(self, name: str) -> Callable[..., Any] | None:
        program = self.recipe.program
        return next((program[found] for found in program if found == name), None)


@dataclass(frozen=True)
class _Solver(Solver):
    """The interior point, then Newton steps on the optimality conditions as long as they help: exact to rounding."""

    optimality: Optimality

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        recipe, conditions = self.optimality.recipe, self.optimality
        n = conditions.T.shape[1]

        def at(rows: Tensor) -> Inputs:
            return a if len(rows) == z0.shape[0] else problem.take(a, rows)

        cones = ConvexProblem(
            recipe.cones,
            lambda x, rows: conditions.values(x, at(rows)),
            lambda x, y, rows: conditions.slope(x, y, at(rows)),
        )

        def step(state: Tensor, F: Tensor) -> Tensor:
            return steady(problem.J(state, a).nan_to_num(0.0, 0.0, 0.0), n)[0].solve(F)

        x0 = self._defined(z0[:, :n], a)
        found = recipe.solver.solve(cones, x0)
        state = torch.cat([found.x, found.w], -1)
        hopeless = (found.status == int(Outcome.INFEASIBLE)) | (found.status == int(Outcome.UNBOUNDED))
        hopeless = hopeless | (found.status == int(Outcome.NOT_FINITE))
        state, error, _ = finished(problem, state, a, ~hopeless, step, state.shape[-1])
        good = ~hopeless & self._solved(problem.F(state, a), state)
        status = torch.where(good, CONVERGED, found.status)
        status = torch.where((status == CONVERGED) & ~good, int(Outcome.STALLED), status)
        open_ = (status == int(Outcome.STALLED)) | (status == int(Outcome.MAX_ITERATIONS))
        if bool(open_.any()):
            lost = open_.nonzero().squeeze(-1)
            status[lost] = reasons(cones, x0[lost], lost, status[lost], recipe.solver)
        left = kept(problem.J(state, a), n, status, bool(recipe.duals))
        return Solved(state, status, found.iterations, error, found.iterations, left)

    def _solved(self, F: Tensor, state: Tensor) -> Tensor:
        """Whether stationarity holds relative to the multipliers, and each constraint relative to point and slacks."""
        n, most = self.optimality.T.shape[1], 10 * self.optimality.recipe.tol
        x, w = state[:, :n], state[:, n:]
        size, weight = 1 + norm(x), 1 + norm(w - self.optimality.recipe.cones.project(w))
        size = size + norm(self.optimality.recipe.cones.project(w))
        return (norm(F[:, :n]) <= most * weight) & (norm(F[:, n:]) <= most * size)

    def _defined(self, x0: Tensor, a: Inputs) -> Tensor:
        """A start where everything is finite: the first one, inner points of the sets, equal entries."""
        T = self.optimality.T.to(x0.device)
        inner = [z @ T for z in self.optimality.recipe.regions.others(x0 @ T.mT)]
        x0 = within(self.optimality.recipe.program, x0 @ T.mT, a) @ T
        tried = [x0, *inner, *(torch.full_like(x0, c) for c in CONSTANTS)]
        found, open_ = x0, torch.ones(len(x0), dtype=torch.bool, device=x0.device)
        for x in tried:
            f, h = self.optimality.values(x, a)
            slope = self.optimality.slope(x, torch.zeros_like(h), a)  # infinite at the end of a domain
            there = f.isfinite() & h.isfinite().all(-1) & slope.f.isfinite().all(-1)
            there = there & slope.H.isfinite().flatten(-2).all(-1)
            found = torch.where((open_ & there).unsqueeze(-1), x, found)
            open_ = open_ & ~there
            if not bool(open_.any()):
                break
        return found
