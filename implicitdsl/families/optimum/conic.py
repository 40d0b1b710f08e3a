"""One `argmin` with matrix inequalities at run time: coefficients by autograd, Clarabel, implicit derivatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from implicitdsl.backward.failure import Failures
from implicitdsl.backward.smoothed import Smoothing, smoothed_solve, with_derivatives
from implicitdsl.families.call import kind_of
from implicitdsl.ground.errors import ConvergenceError
from implicitdsl.lowering.bound import Bound
from implicitdsl.lowering.report import Report
from implicitdsl.solvers.factor import Factor
from implicitdsl.solvers.in_graph import InGraph
from implicitdsl.solvers.loop import Solver
from implicitdsl.solvers.optimum.cones import Cones
from implicitdsl.solvers.optimum.conic import Cone, Conic, jacobian, optimality, pullback, pulled, steady
from implicitdsl.solvers.problem import Inputs, RootProblem
from implicitdsl.solvers.verdict import CONVERGED, Solved

from .block import Rows, report
from .evaluate import Evaluate
from .samples import Ranked, mark, screened
from .vectors import Vectors

RANKS = (2, 1, 2, 1)


@dataclass(frozen=True)
class ConicRecipe:
    """All that is known of a block before tensors come.

    `rows` are those of C, `count` together, in the order equalities, inequalities, cones, matrices; the `matrices`, by
    first row and order, are symmetric. `symmetric` says which unknowns are symmetric
    matrices: their upper triangles are what is solved for. `mu`: derivatives are those of the barrier problem.
    """

    coefficients: Evaluate
    unknowns: tuple[tuple[str, tuple[int, ...]], ...]
    symmetric: tuple[bool, ...]
    rows: tuple[Rows, ...]
    count: int
    matrices: tuple[tuple[int, int], ...]
    duals: tuple[tuple[str, str], ...]
    cones: Cones
    solver: Conic
    failures: Failures
    given: tuple[Ranked, ...]
    mu: float | None = None


class ConicBlock:
    """Runs a recipe. Stateless but for two constant matrices and its name in compiled graphs; pickles."""

    def __init__(self, recipe: ConicRecipe) -> None:
        self.__setstate__({"recipe": recipe})

    def __getstate__(self) -> dict[str, Any]:
        return {"recipe": self.recipe}

    def __setstate__(self, state: dict[str, Any]) -> None:
        recipe: ConicRecipe = state["recipe"]
        self.recipe = recipe
        self.vectors = Vectors(recipe)
        problem, solver = _problem(recipe), _Solver(recipe)
        self.problem = problem
        self.in_graph = InGraph.of(recipe, lambda z0, a: solver.solve(problem, z0, a))
        self.smoothing = self.near = None
        if recipe.mu is not None:
            soft = replace(recipe, cones=replace(recipe.cones, mu=recipe.mu))
            self.near = Vectors(soft)
            self.smoothing = Smoothing.of_quadratic(soft.cones, self.vectors.columns.shape[1])

    @property
    def texts(self) -> tuple[str, ...]:
        """The generated source."""
        return (self.recipe.coefficients.program.text,)

    def solve(
        self,
        values: Mapping[str, Tensor],
        functions: Mapping[str, Bound],
        batch: int | None,
        start: Mapping[str, Tensor] | None,
        want_report: bool,
    ) -> tuple[dict[str, Tensor], Report | None]:
        """See `lowering.layer.BlockRunner`. The solve is in float64, whatever the inputs are."""
        recipe = self.recipe
        kind = kind_of(values)
        clean, lost = screened(values, recipe.given)
        a = self._coefficients(clean, functions)
        if lost is not None:
            a = (a[0], torch.where(lost.unsqueeze(-1), torch.nan, a[1]), *a[2:])
        count = next((t.shape[0] for t, rank in zip(a, RANKS, strict=True) if t.ndim > rank), 1)
        n = self.vectors.columns.shape[1]
        z0 = a[1].detach().new_zeros(count, n + recipe.cones.size)
        solver = self.in_graph if torch.compiler.is_compiling() else _Solver(recipe)
        try:
            state, solved, near = smoothed_solve(self.problem, solver, z0, a, self.smoothing, recipe.failures)
        except ConvergenceError as error:
            if isinstance(error.solution, Solved):
                lost = error.solution
                error.solution = self.vectors.unpacked(lost.z, batch, kind), report(lost, None, batch, "conic")
            raise
        if recipe.failures.policy == "nan":
            state, *rest = mark((state,) if near is None else (state, near), solved, values, recipe.given)
            near = rest[0] if rest else None
        made = report(solved, weak(recipe.cones, state[:, n:], solved), batch, "conic") if want_report else None
        found = self.vectors.unpacked(state, batch, kind)
        if near is not None and self.near is not None:
            found = with_derivatives(found, self.near.unpacked(near, batch, kind))
        return found, made

    def _coefficients(self, values: Mapping[str, Tensor], functions: Mapping[str, Bound]) -> tuple[Tensor, ...]:
        """P, q, A, b of the vectorised problem: s = b − A x is 0, ≥ 0, or `svec` of a semidefinite matrix."""
        P, q, C, d = self.recipe.coefficients(values, functions)
        T, R = self.vectors.columns.to(q.device), self.vectors.rows.to(q.device)
        P = q.new_zeros(T.shape[1], T.shape[1]) if P is None else T.mT @ P @ T
        return P, q @ T, R @ C @ T, d @ R.mT


def _problem(recipe: ConicRecipe) -> RootProblem:
    cones = recipe.cones
    return RootProblem(
        residual=partial(optimality, cones),
        jacobian=partial(jacobian, cones),
        pullback=partial(pullback, cones),
        vjp_inputs=partial(pulled, cones),
        ranks=RANKS,
    )


@dataclass(frozen=True)
class _Solver(Solver):
    """Clarabel as a solver of the optimality map."""

    recipe: ConicRecipe

    def solve(self, problem: RootProblem, z0: Tensor, a: Inputs) -> Solved:
        found = self.recipe.solver.solve(Cone(*a), self.recipe.cones, z0.shape[0])
        state = torch.cat([found.x, found.w], -1)
        factor = found.factor
        if factor is None and found.singular and not self.recipe.duals:
            factor = kept(problem.J(state, a), found.x.shape[-1], found.status, False)
        return Solved(state, found.status, found.iterations, found.residual, found.iterations, factor)


def weak(cones: Cones, w: Tensor, solved: Solved) -> Tensor:
    """How many constraints are active without a multiplier, (B,), of samples that are solved."""
    return torch.where(solved.status == CONVERGED, cones.weak(w.detach()), 0)


def kept(J: Tensor, n: int, status: Tensor, duals: bool) -> Factor | None:
    """The factor for the backward pass, zero for samples without an optimum; None if it has to find out that there is
    none. Multipliers that are not unique are no obstacle where they are not asked for.
    """
    lost = status != CONVERGED
    factor, singular = steady(J.nan_to_num(0.0, 0.0, 0.0), n)
    if bool((singular & ~lost).any()) and (duals or bool((factor.is_singular() & ~lost).any())):
        return None
    return factor._replace(lu=torch.where(lost.view(-1, *(1,) * (factor.lu.ndim - 1)), 0.0, factor.lu))
