"""Projections by formula at run time: on a ball by scaling, on the semidefinite matrices by their eigenvalues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from implicitdsl.backward.failure import Failures
from implicitdsl.backward.verdict import announced
from implicitdsl.families.call import Call, kind_of
from implicitdsl.ground.errors import ConvergenceError
from implicitdsl.ground.outcomes import Outcome
from implicitdsl.lowering.bound import Bound
from implicitdsl.lowering.report import Report
from implicitdsl.lowering.source import Program
from implicitdsl.solvers.optimum.cones import Cones, svec_matrix
from implicitdsl.solvers.verdict import CONVERGED, Solved

from .block import report, shaped
from .samples import Ranked, mark, screened

WEAK = 1e-7
"""A point so near to the boundary, relative to the radius, is on it without a multiplier."""


@dataclass(frozen=True)
class NearestRecipe:
    """All that is known of a block before tensors come. The generated function returns p, q and, for a ball, r."""

    program: Program
    call: Call
    unknown: tuple[str, tuple[int, ...]]
    ball: bool
    duals: tuple[str, ...]
    failures: Failures
    given: tuple[Ranked, ...]


class NearestBlock:
    """Runs a recipe. Stateless; pickles."""

    def __init__(self, recipe: NearestRecipe) -> None:
        self.recipe = recipe

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
        """See `lowering.layer.BlockRunner`. In float64, whatever the inputs are."""
        recipe, kind = self.recipe, kind_of(values)
        clean, lost = screened(values, recipe.given)
        given = [clean[name] for name in recipe.call.inputs]
        p, q, *rest = recipe.program[recipe.call.name](*given, *(functions[f] for f in recipe.call.opaques))
        core = len(recipe.unknown[1])
        sizes = [t.shape[0] for t, rank in ((p, 0), (q, core), *((r, 0) for r in rest)) if t.ndim > rank]
        rows = sizes[0] if sizes else 1
        p, q = p.double().expand(rows).unsqueeze(-1), q.double().flatten(-core)
        point = (-q / p).expand(rows, q.shape[-1])
        if recipe.ball:
            z, multiplier, feasible, weak = _ball(point, rest[0].double().expand(rows).unsqueeze(-1), p)
        else:
            k = recipe.unknown[1][0]
            R, cone = svec_matrix(k).to(point), Cones(0, 0, (k,))
            w = point @ R.mT
            z, multiplier = cone.project(w) @ R, point[:, :0]  # V max(Λ, 0) Vᵀ of its symmetric part (Higham 1988)
            feasible = torch.ones_like(point[:, 0], dtype=torch.bool)
            weak = cone.weak(w.detach()) if want_report else None
        state, solved = self._judged([z, multiplier], feasible, lost, batch, kind)
        if recipe.failures.policy == "nan":
            state = mark(state, solved, values, recipe.given)
        made = report(solved, weak, batch, "projection") if want_report else None
        return self._unpacked(state, batch, kind), made

    def _judged(
        self, state: list[Tensor], feasible: Tensor, lost: Tensor | None, batch: int | None, kind: torch.dtype
    ) -> tuple[list[Tensor], Solved]:
        """The policy for failed samples, applied; they get no gradient."""
        z = state[0].detach()
        status = torch.where(feasible, CONVERGED, int(Outcome.INFEASIBLE))
        finite = z.isfinite().all(-1)
        finite = finite if lost is None else finite & ~lost
        status = torch.where(finite, status, int(Outcome.NOT_FINITE))
        once = torch.ones_like(status)
        solved = Solved(z, status, once, torch.zeros_like(z[:, 0]), once)
        try:
            status = announced(self.recipe.failures, z, status)
        except ConvergenceError as error:
            error.solution = self._unpacked(state, batch, kind), report(solved, None, batch, "projection")
            raise
        good = (status == CONVERGED).unsqueeze(-1)
        state = [torch.where(good, t, t.detach()) for t in state]
        if self.recipe.failures.policy == "nan":
            state = [torch.where(good, t, torch.nan) for t in state]
        return state, solved

    def _unpacked(self, state: list[Tensor], batch: int | None, kind: torch.dtype) -> dict[str, Tensor]:
        shared = state[0].shape[0] == 1 and batch != 1
        name, shape = self.recipe.unknown
        found = {name: shaped(state[0], shape, shared, kind)}
        return found | {key: shaped(state[1], (), shared, kind) for key in self.recipe.duals}


def _ball(point: Tensor, r: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x = c min(1, r / ‖c‖) of min ½ p ‖x − c‖², ‖x‖ ≤ r; λ = p (‖c‖ − r)₊; whether r ≥ 0; whether ‖c‖ = r."""
    square = point.square().sum(-1, keepdim=True)
    outside = square > r.square().clamp(min=0)
    size = torch.where(outside, square, 1.0).sqrt()
    z = torch.where(outside, point * (r / size), point)
    multiplier = torch.where(outside, p * (size - r), 0.0)
    weak = ((square.detach().sqrt() - r).abs() <= WEAK * r).squeeze(-1)
    return z, multiplier, (r >= 0).squeeze(-1), weak.to(torch.int64)
