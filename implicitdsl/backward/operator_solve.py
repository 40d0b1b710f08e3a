"""Differentiable solves with the Jacobian of a root problem that is known only by its products."""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..solvers.loop import Solver
from ..solvers.problem import Inputs, Linear, RootProblem, directional
from ..solvers.verdict import Solved, norm
from .failure import Failures, report_singular
from .rules import merge, outer_levels, plain, primal, split

T = TypeVar("T")


@dataclass(frozen=True)
class Operator:
    """J(z, a) = ∂F/∂z of `problem` at a point, or its transpose, with the solver for systems in it."""

    problem: RootProblem
    solver: Solver
    failures: Failures
    transposed: bool = True

    def flipped(self) -> Operator:
        """The same for the transposed systems."""
        return Operator(self.problem, self.solver, self.failures, not self.transposed)


def operator_solve(operator: Operator, z: Tensor, b: Tensor, a: Inputs) -> Tensor:
    """x with J(z, a)ᵀ x = b (or J x = b) in each row; z, b, x (B, n). Differentiable to any order in z, b and a.

    The tolerance is relative to each row's b (see `Solver.solve`), so a gradient does not depend on the scale of the
    loss. Rows whose residual stays above 1e-2·‖b‖ count as singular: announced (IMP802), x = 0. Rows that miss the
    tolerance by less are announced and kept.
    """
    if torch.compiler.is_compiling() or (plain() and not torch.is_grad_enabled()):  # nothing is differentiated again
        return _OperatorSolve.forward(operator, z, b, *a)
    return _OperatorSolve.apply(operator, z, b, *a)


def transposed_system(problem: RootProblem) -> RootProblem:
    """Jᵀ u - g = 0 as a problem in u with inputs (z, g, *a); its linearisation at z is computed once a solve."""

    def hoist(z: Tensor, g: Tensor, *a: Tensor) -> RootProblem:
        here = problem.at(a)
        pull = once(lambda: here.pull(z, a))
        step = once(lambda: here.adjoint_step(z, a))

        def residual(u: Tensor, *_: Tensor) -> Tensor:
            return pull()(u) - g

        def advance(u: Tensor, *_: Tensor) -> Tensor:
            return step()(u, g)

        def stepped() -> Linear:
            shifted = step()
            return lambda u: shifted(u, g)

        return RootProblem(residual, advance, pushforward=lambda u, *_: pull(), affine=True, stepped=stepped)

    sides = problem.sylvester

    def flipped(_z: Tensor, _g: Tensor, *a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert sides is not None
        left, right, weights = sides(*a)
        return left.mT, right.mT, weights

    made = RootProblem(hoist=kept(hoist), ranks=(1, 1, *problem.ranks), affine=True, precision=problem.precision)
    return made if sides is None else replace(made, sylvester=flipped)


def forward_system(problem: RootProblem) -> RootProblem:
    """J v - b = 0 as a problem in v with inputs (z, b, *a)."""

    def hoist(z: Tensor, b: Tensor, *a: Tensor) -> RootProblem:
        push = problem.at(a).push(z, a)
        return RootProblem(lambda x, *_: push(x) - b, pushforward=lambda x, *_: push, affine=True)

    sides = problem.sylvester
    made = RootProblem(hoist=kept(hoist), ranks=(1, 1, *problem.ranks), affine=True, precision=problem.precision)
    return made if sides is None else replace(made, sylvester=lambda _z, _b, *a: sides(*a))


def solve_system(operator: Operator, z: Tensor, b: Tensor, a: Inputs) -> Solved:
    """The solve itself, without derivative and without judging it. Started at 0, where its residual is -b."""
    system = transposed_system(operator.problem) if operator.transposed else forward_system(operator.problem)
    return operator.solver.solve(system, torch.zeros_like(b), (z, b, *a))


def once(make: Callable[[], T]) -> Callable[[], T]:
    """`make` called when first asked for, and never again."""
    made: list[T] = []

    def get() -> T:
        if not made:
            made.append(make())
        return made[0]

    return get


def kept(hoist: Callable[..., T]) -> Callable[..., T]:
    """`hoist` with its last result kept: solving and measuring what was solved linearise at the same tensors."""
    last: list[tuple[tuple[Tensor, ...], T]] = []

    def get(*a: Tensor) -> T:
        if torch.compiler.is_compiling():
            return hoist(*a)
        if not last or any(x is not y for x, y in zip(last[0][0], a, strict=True)):
            last[:] = [(a, hoist(*a))]
        return last[0][1]

    return get


class _OperatorSolve(torch.autograd.Function):
    """x̄ -> b̄ by the flipped system; z̄ and ā from the bilinear form ⟨Jᵀ(z, a) u, v⟩."""

    @staticmethod
    def forward(operator: Operator, z: Tensor, b: Tensor, *a: Tensor) -> Tensor:
        solved = solve_system(operator, z, b, a)
        if not torch.compiler.is_compiling() and solved.all_converged():
            return solved.z
        lost = ~solved.converged
        lost = report_singular(lost, operator.failures, "backward system not solved to tolerance")
        useless = lost & ~(solved.residual <= 1e-2 * norm(b))
        return torch.where(useless.unsqueeze(-1), 0.0, solved.z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        operator, z, _, *a = inputs
        ctx.operator = operator
        ctx.save_for_backward(z, output, *a)
        ctx.save_for_forward(z, output, *a)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        z, x, *a = ctx.saved_tensors
        operator: Operator = ctx.operator
        y = operator_solve(operator.flipped(), z, g, tuple(a))
        u, v = (x, y) if operator.transposed else (y, x)
        places = [i for i, t in enumerate(a) if t.is_floating_point()]

        def product(z: Tensor, *given: Tensor) -> Tensor:
            inputs = list(a)
            for i, t in zip(places, given, strict=True):
                inputs[i] = t
            return operator.problem.pull(z, tuple(inputs))(u)

        cotangents = torch.func.vjp(product, z, *(a[i] for i in places))[1](v)
        found: list[Tensor | None] = [None] * len(a)
        for i, c in zip(places, cotangents[1:], strict=True):
            found[i] = -c
        return None, -cotangents[0], y, *found

    @staticmethod
    def jvp(ctx: Any, _: None, dz: Tensor | None, db: Tensor | None, *da: Tensor | None) -> Tensor:
        with outer_levels():
            z, x, *a = (primal(t) for t in ctx.saved_tensors)
            operator: Operator = ctx.operator
            moving = [(i, t) for i, t in enumerate((dz, *da)) if t is not None]

            def product(*given: Tensor) -> Tensor:
                inputs = [z, *a]
                for (i, _), t in zip(moving, given, strict=True):
                    inputs[i] = t
                at, held = inputs[0], tuple(inputs[1:])
                return (operator.problem.pull if operator.transposed else operator.problem.push)(at, held)(x)

            right = torch.zeros_like(x) if db is None else db
            if moving:
                start = tuple((z, *a)[i] for i, _ in moving)
                right = right - directional(product, start, tuple(t for _, t in moving))
            return operator_solve(operator, z, right, tuple(a))

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], operator: Operator, z: Tensor, b: Tensor, *a: Tensor
    ) -> tuple[Any, Any]:
        batch = b.shape[0] if in_dims[2] is None else b.movedim(in_dims[2], 0).shape[1]
        size = info.batch_size
        merged = merge(size, batch, in_dims[1:], (z, b, *a), (1, 1, *operator.problem.ranks))
        (x,), (dim,) = split(size, (_OperatorSolve.apply(operator, *merged),))
        return x, dim
