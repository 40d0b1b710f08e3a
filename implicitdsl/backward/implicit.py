"""The implicit function theorem, written once: F(z*(a); a) = 0 gives dz* = -J⁻¹ (∂F/∂a) da with J = ∂F/∂z."""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..solvers.anderson import Anderson
from ..solvers.cascade import Cascade
from ..solvers.factor import Factor
from ..solvers.gmres import Gmres
from ..solvers.loop import Solver
from ..solvers.optimum.bordered import Bordered
from ..solvers.picard import Picard
from ..solvers.problem import Inputs, RootProblem
from ..solvers.schur import Schur, SchurFactor
from ..solvers.verdict import CONVERGED, INFEASIBLE, SINGULAR, UNBOUNDED, Solved, norm
from .consistent import consistent_solve
from .failure import Failures, report_unsolved
from .linear_solve import linear_solve, reported
from .operator_solve import Operator, operator_solve
from .rules import merge, outer_levels, plain, primal, split, traced

AnyFactor = Factor | SchurFactor | Bordered

DENSE_LIMIT = 256
"""Unknowns up to which J in closed form is factored in the backward pass (64 beside a fixed-point solver)."""

ADJOINT_STEPS = 504
"""Plain steps on an adjoint before GMRES has the rest; a multiple of 2, 3 and 7 as compiled loops test rows."""

LOST = 1e-6
"""What of a cotangent may be left where the system is singular."""


@dataclass(frozen=True)
class Implicit:
    """How systems in J and Jᵀ are solved. `solver` None chooses by size and by what the forward pass left behind.

    The choice: the kept factor, or LU, where J is dense and affordable; beside `Picard`, the same iteration on the
    adjoint, with GMRES for rows where it fails; else GMRES.
    """

    solver: Solver | None = None


@dataclass(frozen=True)
class Solve:
    """Everything about a solve that is not a tensor."""

    problem: RootProblem
    solver: Solver
    backward: Implicit = field(default_factory=Implicit)
    failures: Failures = field(default_factory=Failures)

    def linear_solver(self, n: int, kept: bool) -> Solver | None:
        """The solver for systems in J; None is a dense LU. `kept`: a factor of J is at hand."""
        problem, forward = self.problem, self.solver
        if self.backward.solver is not None:
            return self.backward.solver
        first = forward.rungs[0] if isinstance(forward, Cascade) else forward
        if problem.sylvester is not None and isinstance(first, Schur):
            return first
        slow = isinstance(first, Picard | Anderson)
        limit = (64 if slow else DENSE_LIMIT) if problem.jacobian is not None else 16
        if isinstance(first, Picard) and problem.jacobian is not None:
            limit = 16
        if kept or problem.diagonal or problem.optimum is not None or n <= limit:
            return None
        if isinstance(first, Picard):  # at its tolerance: with a rougher z a finer u gains nothing
            again = Picard(tol=first.tol, damping=first.damping, max_iter=ADJOINT_STEPS)
            return Cascade((again, Gmres(tol=first.tol)))
        return Gmres()


def implicit_solve(
    problem: RootProblem,
    solver: Solver,
    z0: Tensor,
    a: Inputs,
    *,
    backward: Implicit | None = None,
    failures: Failures | None = None,
) -> tuple[Tensor, Solved]:
    """z (B, n) with F(z; a) = 0 and its exact derivative in every a_i; and the report of the solve.

    The derivative is that of the solution, whatever solver found it, to any order: VJP, JVP, vmap and their
    compositions, plain autograd with `create_graph`, and (first order) `torch.compile(fullgraph=True)`. z0 gets none.
    Reverse: u = J⁻ᵀ z̄ at the solution, ā = -(∂F/∂a)ᵀ u. Cost: one dense solve with the kept factor and one refinement
    step (4 n² a row), a factorisation if none was kept, or a matrix-free solve; then one `vjp_inputs`.
    Failed samples: see `Failures`. Their cotangents count as zero where z is not finite or J singular.
    """
    spec = Solve(problem, solver, backward or Implicit(), failures or Failures())
    if torch.compiler.is_compiling():
        outputs = traced(_RootReverse, spec, z0, *a)
    elif plain():
        found: list[Solved] = []
        z = _RootPlain.apply(found, spec, z0, *a)
        return z, found[0]
    else:
        outputs = _Root.apply(spec, z0, *a)
    return outputs[0], _solved(outputs)


def _solved(outputs: tuple[Tensor, ...]) -> Solved:
    z, status, iterations, residual, nfe, rung, *kept = outputs
    return Solved(z.detach(), status, iterations, residual, nfe, _factor(kept), rung)


def _factor(kept: Any) -> AnyFactor | None:
    for kind in (SchurFactor, Bordered):
        if len(kept) == len(kind._fields):
            return kind(*kept)
    return Factor(kept[0], kept[1] if len(kept) > 1 else None) if kept else None


class _RootReverse(torch.autograd.Function):
    """Outputs: z, status, iterations, residual, nfe, rung, and the factor's tensors if there is one."""

    @staticmethod
    def forward(spec: Solve, z0: Tensor, *a: Tensor) -> tuple[Tensor, ...]:
        solved = report_unsolved(spec.solver.solve(spec.problem, z0, a), spec.failures)
        rung = torch.zeros_like(solved.status) if solved.rung is None else solved.rung
        kept = () if solved.factor is None else tuple(t for t in solved.factor if t is not None)
        return *solved[:5], rung, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        spec, _, *a = inputs
        ctx.spec = spec
        z, status, *_ = output
        kept = output[6:]
        ctx.kept = len(kept)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(z, status, *kept, *a)
        ctx.save_for_forward(z, status, *kept, *a)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        z, status, *rest = ctx.saved_tensors
        a, factor = tuple(rest[ctx.kept :]), _factor(rest[: ctx.kept])
        if g is None:
            return (None,) * (2 + len(a))
        spec: Solve = ctx.spec
        return None, None, *_cotangents(spec, z, status, a, g, factor)


class _RootPlain(torch.autograd.Function):
    """The same where no transform is active: only z is an output, the rest is appended to `found`.

    (Fewer outputs and no `setup_context`, whose arguments torch binds by inspecting signatures: 60 µs a solve.)
    """

    @staticmethod
    def forward(ctx: Any, found: list[Solved], spec: Solve, z0: Tensor, *a: Tensor) -> Tensor:
        solved = spec.solver.solve(spec.problem, z0, a)
        ctx.whole = solved.all_converged()
        if not ctx.whole:
            solved = report_unsolved(solved, spec.failures)
        found.append(solved)
        kept = () if solved.factor is None else tuple(t for t in solved.factor if t is not None)
        ctx.spec = spec
        ctx.kept = len(kept)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(solved.z, solved.status, *kept, *a)
        return solved.z

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        z, status, *rest = ctx.saved_tensors
        a, factor = tuple(rest[ctx.kept :]), _factor(rest[: ctx.kept])
        if g is None:
            return (None,) * (3 + len(a))
        return None, None, None, *_cotangents(ctx.spec, z, status, a, g, factor, whole=ctx.whole)


def _cotangents(
    spec: Solve, z: Tensor, status: Tensor, a: Inputs, g: Tensor, factor: AnyFactor | None, *, whole: bool = False
) -> list[Tensor | None]:
    """Those of the inputs, given that of z. `whole`: every row is known to have a derivative."""
    bad = None
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not (whole or bool((status == CONVERGED).all())):
        bad, z, a, g, factor = _screened(spec, status, z, a, g, factor)
    elif spec.problem.linearised is not None and plain():
        return _thin(spec, z, a, g, factor)
    u = _adjoint(spec, z, a, g, factor)
    if bad is not None:  # a singular factor makes NaN even of a zero cotangent
        u = torch.where((bad | (status != CONVERGED) & ~u.isfinite().all(-1)).unsqueeze(-1), 0.0, u)
    cotangents = list(spec.problem.pull_inputs(z, -u, a))
    if bad is not None and spec.failures.policy == "nan" and spec.failures.marks:
        cotangents = [_nan_rows(c, bad, r) for c, r in zip(cotangents, spec.problem.ranks, strict=True)]
    return cotangents


def _thin(spec: Solve, z: Tensor, a: Inputs, g: Tensor, factor: AnyFactor | None) -> list[Tensor | None]:
    """The cotangents of the inputs to first order where every row has a derivative: one linearisation serves it all."""
    assert spec.problem.linearised is not None
    pull, inputs, adjoint = spec.problem.linearised(z, *a)
    if factor is not None and spec.backward.solver is None:
        u = factor.solve(g, transposed=True)
        if not spec.problem.affine:  # else the factor is that of J itself
            u = u + factor.solve(g - pull(u), transposed=True)
    elif (method := spec.linear_solver(z.shape[-1], factor is not None)) is None:
        u = _system(spec, z, a, g, factor, transposed=True)
    else:
        here = spec.problem.held(z, pull, adjoint)
        u = operator_solve(Operator(here, method, spec.failures), z, g, a)
    return list(inputs(u))


class _Root(_RootReverse):
    """With the rules for forward mode and vmap, which Dynamo refuses to trace."""

    @staticmethod
    def jvp(ctx: Any, _spec: None, _z0: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        with outer_levels():
            z, status, *rest = (primal(t) for t in ctx.saved_tensors)
            a, factor = tuple(rest[ctx.kept :]), _factor(rest[: ctx.kept])
            spec: Solve = ctx.spec
            right = spec.problem.push_inputs(z, tangents, a).neg()
            _, z, a, right, factor = _screened(spec, status, z, a, right, factor)
            return _system(spec, z, a, right, factor, transposed=False), *(None,) * (5 + ctx.kept)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], spec: Solve, z0: Tensor, *a: Tensor) -> tuple[Any, Any]:
        batch = z0.shape[0] if in_dims[1] is None else z0.movedim(in_dims[1], 0).shape[1]
        merged = merge(info.batch_size, batch, in_dims[1:], (z0, *a), (1, *spec.problem.ranks))
        outputs = _Root.apply(spec, *merged)
        factor = _factor(outputs[6:])
        if factor is None or not factor.shared:
            return split(info.batch_size, outputs)
        values, dims = split(info.batch_size, outputs[:6])
        return (*values, *outputs[6:]), (*dims, *(None for _ in outputs[6:]))


def _adjoint(spec: Solve, z: Tensor, a: Inputs, g: Tensor, factor: AnyFactor | None) -> Tensor:
    """u = J⁻ᵀ g. First-order backward with a kept factor forms no Jacobian: two substitutions and one pullback."""
    first_order = not torch.is_grad_enabled()
    usable = factor is not None and (plain() or isinstance(factor, Factor))
    if first_order and usable and spec.backward.solver is None and not torch.compiler.is_compiling():
        assert factor is not None
        pull = spec.problem.pull(z, a)
        u = factor.solve(g, transposed=True)
        u = u + factor.solve(g - pull(u), transposed=True)
        if isinstance(factor, Bordered) and bool((weak := factor.weak()).any()):
            missing = norm(g - pull(u)) > LOST * norm(g)
            u = torch.where(reported(weak & missing, spec.failures).unsqueeze(-1), 0.0, u)
        return u
    return _system(spec, z, a, g, factor, transposed=True)


def _system(spec: Solve, z: Tensor, a: Inputs, b: Tensor, factor: AnyFactor | None, transposed: bool) -> Tensor:
    """x with Jᵀ x = b or J x = b at (z, a), differentiable in z, a and b."""
    method = spec.linear_solver(z.shape[-1], factor is not None)
    if method is not None:
        return operator_solve(Operator(spec.problem, method, spec.failures, transposed), z, b, a)
    jacobian = spec.problem.J(z, a)
    if spec.problem.diagonal:
        dead = reported(jacobian == 0, spec.failures).expand_as(b)
        return torch.where(dead, 0.0, b) / torch.where(dead, 1.0, jacobian)
    if not isinstance(factor, Factor) or factor.pivots is None:
        factor = None
    if spec.problem.optimum is not None and factor is None and not torch.compiler.is_compiling():
        return consistent_solve(jacobian, b, spec.problem.optimum, transposed, spec.failures)
    return linear_solve(jacobian, b, transposed=transposed, factor=factor, failures=spec.failures)


def _screened(
    spec: Solve, status: Tensor, z: Tensor, a: Inputs, g: Tensor, factor: AnyFactor | None
) -> tuple[Tensor, Tensor, Inputs, Tensor, AnyFactor | None]:
    """Take rows without a derivative out of a backward pass: zero cotangent, and a good row's numbers in their place.

    These are rows that end as SINGULAR, hold NaN or infinity, have no solution, or found none and have a singular
    factor.

    (Zero times NaN is NaN, so a zero cotangent alone would still spoil the gradients of shared inputs.)
    """
    flat = reported(status == SINGULAR, spec.failures, witness=g)
    if not flat.numel():
        return flat, z, a, g, factor
    lost = ~z.isfinite().all(-1) | (status == INFEASIBLE) | (status == UNBOUNDED)
    for x, rank in zip(a, spec.problem.ranks, strict=True):
        if x.ndim > rank and x.is_floating_point():
            lost = lost | ~x.isfinite().reshape(x.shape[0], -1).all(-1)
    if spec.problem.optimum is not None:
        lost = lost | (status != CONVERGED)
    elif factor is not None:
        lost = lost | (status != CONVERGED) & factor.is_singular()
    bad = flat | lost
    stand_in = bad.to(torch.int64).argmin(0, keepdim=True)

    def cured(x: Tensor) -> Tensor:
        rows = bad.view(-1, *(1,) * (x.ndim - 1))
        # where no row is good the stand-in is bad itself
        return torch.where(rows, x.index_select(0, stand_in).nan_to_num(0.0, 0.0, 0.0), x)

    a = tuple(cured(x) if x.ndim > rank else x for x, rank in zip(a, spec.problem.ranks, strict=True))
    if factor is not None and not factor.shared:
        factor = type(factor)(*(None if t is None else cured(t) for t in factor))  # pyright: ignore[reportArgumentType]
    return bad, cured(z), a, torch.where(bad.unsqueeze(-1), 0.0, g), factor


def _nan_rows(cotangent: Tensor | None, bad: Tensor, rank: int) -> Tensor | None:
    if cotangent is None or cotangent.ndim == rank:
        return cotangent
    return torch.where(bad.view(-1, *(1,) * rank), torch.nan, cotangent)
