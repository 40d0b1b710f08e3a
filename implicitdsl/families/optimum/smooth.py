"""One `argmin` of a smooth program at run time: the optimality conditions are a root problem whose solver minimises."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from implicitdsl.backward.rules import plain
from implicitdsl.backward.smoothed import Smoothing, smoothed_solve, with_derivatives
from implicitdsl.families.call import kind_of
from implicitdsl.ground.errors import ConvergenceError
from implicitdsl.lowering.bound import Bound
from implicitdsl.lowering.report import Report
from implicitdsl.solvers.in_graph import InGraph
from implicitdsl.solvers.optimum.barrier import Barrier
from implicitdsl.solvers.optimum.units import weakly_active
from implicitdsl.solvers.problem import Inputs, RootProblem, Unique
from implicitdsl.solvers.verdict import CONVERGED, Solved

from .block import named_parts, report, shaped
from .guess import placed
from .minimised import KktSolver, SmoothRecipe, several, smooth_problem
from .samples import mark


class SmoothBlock:
    """Runs a recipe. Stateless but for its name in compiled graphs; pickles."""

    def __init__(self, recipe: SmoothRecipe) -> None:
        self.__setstate__({"recipe": recipe})

    def __getstate__(self) -> dict[str, Any]:
        return {"recipe": self.recipe}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.recipe: SmoothRecipe = state["recipe"]
        problem, solver = _problem(self.recipe), KktSolver(self.recipe)
        self.problem = problem
        self.in_graph = InGraph.of(self.recipe, lambda z0, a: solver.solve(problem, z0, a))
        self.smoothing = None
        if self.recipe.near is not None:
            near = _problem(replace(self.recipe, program=self.recipe.near, parts=None))
            self.smoothing = Smoothing(self.recipe, near, Barrier(*self.recipe.sizes[:2], self._defined))

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
        recipe = self.recipe
        kind = kind_of(values)
        a = tuple(values[name].double() for name in recipe.inputs)
        rows = next((x.shape[0] for x, rank in zip(a, recipe.ranks, strict=True) if x.ndim > rank), 1)
        z0 = self._start(values, a, rows, start)
        solver = self.in_graph if torch.compiler.is_compiling() else KktSolver(recipe)
        try:
            state, solved, near = smoothed_solve(self.problem, solver, z0, a, self.smoothing, recipe.failures)
        except ConvergenceError as error:
            if isinstance(error.solution, Solved):
                lost = error.solution
                error.solution = self._unpacked(lost.z, batch, kind), report(lost, None, batch, recipe.method)
            raise
        if recipe.failures.policy == "nan":
            given = list(zip(recipe.inputs, recipe.ranks, strict=True))
            state, *rest = mark((state,) if near is None else (state, near), solved, values, given)
            near = rest[0] if rest else None
        made = report(solved, self._weak(state.detach(), solved, a), batch, recipe.method) if want_report else None
        found = self._unpacked(state, batch, kind)
        return found if near is None else with_derivatives(found, self._unpacked(near, batch, kind)), made

    @torch.no_grad()
    def _weak(self, state: Tensor, solved: Solved, a: Inputs) -> Tensor | None:
        """How many inequalities are weakly active, (B,); None where there are none, or numbers cannot be asked for."""
        _, p, m = self.recipe.sizes
        if not m or not plain():
            return None
        a = tuple(t.detach() for t in a)
        count = weakly_active(smooth_problem(self.recipe, self.problem, state, a), state, p, m)
        return torch.where(solved.status == CONVERGED, count, 0)

    def _defined(self, state: Tensor, a: Inputs) -> Tensor:
        """Where the functions are, (B,)."""
        found = several(self.recipe.program["values"](state[:, : self.recipe.sizes[0]], *a))
        where = [t.isfinite() if t.ndim < 2 else t.isfinite().all(-1) for t in found]
        return torch.stack([t.expand(len(state)) for t in where]).all(0)

    def _start(self, values: Mapping[str, Tensor], a: Inputs, rows: int, start: Mapping[str, Tensor] | None) -> Tensor:
        """(B, n + p + m): a warm start, the expression of `start`, or a point of the sets; multipliers zero."""
        recipe = self.recipe
        n, p, m = recipe.sizes
        like = a[0].detach() if a else torch.empty((), dtype=torch.float64)
        z0 = recipe.regions.start(like).expand(rows, n).clone()
        if recipe.start is not None:
            given = [values[name].detach().double() for name in recipe.start]
            z0 = recipe.program["start"](*given)[..., :n].expand(rows, n).clone()
        z0 = placed(z0, start or {}, recipe.unknowns)
        return torch.cat([z0, z0.new_zeros(rows, p + m)], -1) if p + m else z0

    def _unpacked(self, state: Tensor, batch: int | None, kind: torch.dtype) -> dict[str, Tensor]:
        recipe = self.recipe
        shared = state.shape[0] == 1 and batch != 1
        found = named_parts(state, recipe.unknowns, shared, kind)
        at = recipe.sizes[0]
        parts: dict[str, tuple[Tensor, tuple[int, ...]]] = {}
        for label, sign, shape in recipe.multipliers:
            count = math.prod(shape)
            if label is not None:
                value = sign * state[:, at : at + count]
                parts[label] = (parts[label][0] + value if label in parts else value, shape)
            at += count
        for key, label in recipe.duals:
            found[key] = shaped(*parts[label], shared, kind)
        return found


def _problem(recipe: SmoothRecipe) -> RootProblem:
    """The optimality conditions: stationarity, equalities, min(λ, −g) = 0."""
    program = recipe.program

    def optional(name: str) -> Callable[..., Any] | None:
        return next((program[found] for found in program if found == name), None)

    pull = optional("pull_inputs")

    def pull_inputs(*args: Tensor) -> tuple[Tensor, ...]:
        assert pull is not None
        return tuple(several(pull(*args)))

    together = optional("linearised") if recipe.parts is None else None

    def linearised(*args: Tensor) -> tuple[Any, Any, None]:
        assert together is not None
        back, inputs = together(*args)
        return back, lambda u: several(inputs(u)), None

    return RootProblem(
        residual=program["residual"],
        jacobian=optional("jacobian"),
        pullback=optional("pullback"),
        vjp_inputs=None if pull is None else pull_inputs,
        linearised=None if together is None else linearised,
        ranks=recipe.ranks,
        optimum=Unique(*recipe.sizes[:2], bool(recipe.duals)) if any(recipe.sizes[1:]) else None,
    )
