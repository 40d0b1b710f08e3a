"""Smoothed derivatives of optima: those of the barrier problem's solution at a chosen μ, beside the exact optimum.

The optimum of a linear program is a vertex, and at a kink no derivative exists; the point of the central path
s ∘ y = μ e (slacks s and multipliers y in a product of cones: −μ Σ log s of plain inequalities) moves smoothly with all
data and tends to the optimum as μ → 0 (Nesterov & Nemirovskii 1994). One form serves programs of every kind: their
optimality conditions with a smooth function in the place of the projection, or the minimum, that says which
constraints are active. It is a root problem, differentiated as all are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..solvers.in_graph import InGraph
from ..solvers.loop import Solver
from ..solvers.optimum.barrier import Barrier
from ..solvers.optimum.cones import Cones
from ..solvers.optimum.conic import RANKS, jacobian, optimality, pullback, pulled
from ..solvers.optimum.quadratic import Optimum, times
from ..solvers.problem import Inputs, RootProblem
from ..solvers.verdict import CONVERGED, SINGULAR, Solved
from .failure import Failures
from .implicit import implicit_solve
from .kkt import Spec, quadratic_optimum
from .rules import plain

LOST = "no solution of the barrier problem of `backward smoothed` (without a point strictly within the constraints?)"


@dataclass(frozen=True)
class Smoothing:
    """The smoothed optimality conditions of a program and what finds their solution near the optimum; `content` is all
    that both are made of. With `cones` states are [x, w], with multipliers Π(w) − w."""

    content: object
    problem: RootProblem
    solver: Barrier
    cones: Cones | None = None
    in_graph: InGraph = field(init=False, compare=False)
    """The solver of compiled graphs."""

    def __post_init__(self) -> None:
        found = InGraph.of(("smoothed", self.content), partial(self.solver.solve, self.problem), kept=True)
        object.__setattr__(self, "in_graph", found)

    def __reduce__(self) -> tuple[Any, ...]:
        return Smoothing, (self.content, self.problem, self.solver, self.cones)

    @classmethod
    def of_quadratic(cls, cones: Cones, n: int) -> Smoothing:
        """Of quadratic objectives of n unknowns over cones with smooth projections (`solvers.optimum.conic`)."""
        problem = RootProblem(
            residual=partial(optimality, cones),
            jacobian=partial(jacobian, cones),
            pullback=partial(pullback, cones),
            vjp_inputs=partial(pulled, cones),
            ranks=RANKS,
        )
        return cls((cones, n), problem, Barrier(n), cones)


class Smoothed(NamedTuple):
    """The optimum (B, N), a constant; its report; and the barrier problem's solution, which has the derivatives: zero
    without any in samples that are not solved, None where nothing is smoothed.

    A sample whose barrier problem has no solution, as no point is strictly within the constraints, counts as SINGULAR.
    """

    state: Tensor
    solved: Solved
    near: Tensor | None


def smoothed_solve(
    problem: RootProblem,
    solver: Solver,
    z0: Tensor,
    a: Inputs,
    smoothing: Smoothing | None,
    failures: Failures,
) -> Smoothed:
    """The optimum of the program with these optimality conditions, by `implicit_solve`, and the barrier's beside it.
    Without `smoothing` it is not a constant, but has the derivatives of the optimality conditions.

    Derivatives of any order and mode, as `implicit_solve` has them. Cost beside the optimum: some 5 to 15 Newton steps,
    each with a dense LU of all unknowns and multipliers, 2/3 (n + m)³ flops.
    """
    if smoothing is None:
        return Smoothed(*implicit_solve(problem, solver, z0, a, failures=failures), None)
    state, solved = implicit_solve(problem, solver, z0, tuple(x.detach() for x in a), failures=failures)
    return beside(smoothing, state.detach(), solved, a, failures)


def beside(smoothing: Smoothing, state: Tensor, solved: Solved, a: Inputs, failures: Failures) -> Smoothed:
    """The barrier problem's solution beside an optimum that is known."""
    good, start = solved.converged, state
    if not plain() or torch.compiler.is_compiling() or not bool(good.all()):
        start, a = _cured(state, a, smoothing.problem.ranks, good)
    method = smoothing.in_graph if torch.compiler.is_compiling() else smoothing.solver
    near, found = implicit_solve(smoothing.problem, method, start, a, failures=replace(failures, singular=LOST))
    there = found.status == CONVERGED
    status = torch.where(good, torch.where(there, CONVERGED, SINGULAR), solved.status)
    near = torch.where((good & there).unsqueeze(-1), near, 0.0)
    return Smoothed(state, solved._replace(status=status, factor=None, whole=None), near)


def _cured(state: Tensor, a: Inputs, ranks: tuple[int, ...], good: Tensor) -> tuple[Tensor, Inputs]:
    """With a good sample's numbers in the place of others': nothing of these reaches what all share."""
    sound = good.to(torch.int64).argmax(0, keepdim=True)

    def cured(x: Tensor) -> Tensor:
        return torch.where(good.view(-1, *(1,) * (x.ndim - 1)), x, x.detach().index_select(0, sound))

    return cured(state), tuple(cured(x) if x.ndim > rank else x for x, rank in zip(a, ranks, strict=True))


def with_derivatives(values: Mapping[str, Tensor], near: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values, with the derivatives of what is near them."""
    return {name: _moved(value, near[name]) for name, value in values.items()}


def _moved(value: Tensor, near: Tensor) -> Tensor:
    return value.detach() + (near - near.detach())


def smoothed_optimum(
    spec: Spec, smoothing: Smoothing, P: Tensor | None, q: Tensor, C: Tensor, d: Tensor
) -> tuple[Tensor, Tensor, Optimum]:
    """z (B, n), y (B, m) and the report of min ½zᵀPz + qᵀz, C z = d or ≤ d, as `quadratic_optimum`."""
    n, once = q.shape[-1], [None if t is None else t.detach() for t in (P, q, C, d)]
    z, y, optimum = quadratic_optimum(spec, *once)  # pyright: ignore[reportArgumentType]
    solved = Solved(z, optimum.status, optimum.iterations, optimum.residual, optimum.iterations)
    state = torch.cat([z, (d - times(C, z)).detach() - y], -1)
    P = q.new_zeros(n, n) if P is None else P
    state, solved, near = beside(smoothing, state, solved, (P, q, C, d), spec.failures)
    assert near is not None, "there is a smoothing"
    assert smoothing.cones is not None, "made by `of_quadratic`"
    x, w = near[:, :n], near[:, n:]
    z, y = _moved(z, x), _moved(y, smoothing.cones.project(w) - w)
    return z, y, optimum._replace(status=solved.status, whole=None)
