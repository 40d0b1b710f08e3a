"""Derivatives of quadratic optima: the KKT conditions on the active set are a linear system K [z; y] = r."""

# pyright: reportIncompatibleMethodOverride=false
# (torch declares the methods of autograd.Function with *args)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from ..solvers.carries import operator
from ..solvers.factor import Factor, decompose
from ..solvers.named import digest, name, named
from ..solvers.optimum.dual import Kept, dual_of
from ..solvers.optimum.polish import direct
from ..solvers.optimum.quadratic import Optimum, Quadratic, times, times_transposed
from ..solvers.optimum.reduced import Reduced, reduce, row_units
from ..solvers.verdict import CONVERGED, Solved
from .constant import constant_factor
from .failure import Failures, report_unsolved
from .linear_solve import linear_solve, reported
from .rules import Constant, batch_of, merge, plain, split, traced

RANKS = (2, 1, 2, 1)
LOST = 1e-6
"""A cotangent of which a singular system leaves so much has a part along which the minimiser is not unique."""


class Solver(Protocol):
    """What solves quadratic programs with inequalities."""

    def solve(self, problem: Quadratic, guess: Tensor | None = None) -> Optimum: ...


@dataclass(frozen=True)
class Spec:
    """Everything about a solve that is not a tensor. `solver` None: there are no inequalities."""

    solver: Solver | None
    equalities: int
    failures: Failures = field(default_factory=Failures)
    key: str = field(init=False, default="", compare=False)
    """What compiled graphs call this by: a digest of all the rest, the same in every process."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", digest((self.solver, self.equalities, self.failures)))
        name(self.key, self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        name(self.key, self)


def quadratic_optimum(
    spec: Spec, P: Tensor | None, q: Tensor, C: Tensor, d: Tensor, guess: Tensor | None = None
) -> tuple[Tensor, Tensor, Optimum]:
    """z (B, n), y (B, m) and the report of min ½zᵀPz + qᵀz, C z = d or ≤ d (`solvers.optimum.quadratic`). `guess` of z
    (B, n), a constant: where a solve that nothing transforms begins.

    Both are differentiable in P, q, C and d to any order and in every mode: where the active set does not change, they
    solve K [z; y] = [−q; d] with K = [[P, Cᵀ], [C, 0]] on the active rows, so with [u; v] = K⁻¹ [z̄; ȳ]
    q̄ = −u, d̄ = v, P̄ = −u zᵀ, C̄ = −(y uᵀ + v zᵀ) (Amos & Kolter 2017, reduced as in Agrawal et al. 2019).
    A sample that was not solved gets no gradient and gives none; one whose minimiser is not unique counts as SINGULAR.
    """
    if torch.compiler.is_compiling():
        tensors = (q, C, d) if P is None else (P, q, C, d)
        z, y, *rest = traced(_Compiled, spec, *tensors)
        return z, y, Optimum(z.detach(), y.detach(), *rest[:4])
    if plain():
        found: list[Optimum] = []
        z, y = _Plain.apply(found, spec, guess, P, q, C, d)
        return z, y, found[0]
    return _general(spec, P, q, C, d)


def _solved(spec: Spec, problem: Quadratic, guess: Tensor | None = None) -> tuple[Optimum, Reduced | Kept | None]:
    """The optimum, after the policy for failed samples was applied to it."""
    factor: Reduced | Kept | None = None
    if spec.solver is None:
        found, factor = direct(problem)
    else:
        found = spec.solver.solve(problem, guess)
        factor = found.factor
    solved = Solved(found.z, found.status, found.iterations, found.residual, found.iterations, whole=found.whole)
    if solved.all_converged():
        return found._replace(whole=found.status), factor
    reported_ = report_unsolved(solved, spec.failures)
    y = found.y
    if spec.failures.policy == "nan":
        y = torch.where(solved.converged.unsqueeze(-1), y, torch.nan)
    return found._replace(z=reported_.z, y=y, whole=None), factor


class _Plain(torch.autograd.Function):
    """Where no transform is active: the backward pass reuses, or makes, one factor of the active set."""

    @staticmethod
    def forward(
        ctx: Any,
        found: list[Optimum],
        spec: Spec,
        guess: Tensor | None,
        P: Tensor | None,
        q: Tensor,
        C: Tensor,
        d: Tensor,
    ) -> tuple[Tensor, Tensor]:
        optimum, factor = _solved(spec, Quadratic(P, q, C, d, spec.equalities), guess)
        found.append(optimum._replace(z=optimum.z.detach(), y=optimum.y.detach(), factor=None))
        ctx.spec, ctx.factor, ctx.whole = spec, factor, optimum.whole is not None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(optimum.z, optimum.y, optimum.active, optimum.status, P, q, C, d)
        return optimum.z, optimum.y

    @staticmethod
    def backward(ctx: Any, gz: Tensor | None, gy: Tensor | None) -> tuple[Tensor | None, ...]:
        if gz is None and gy is None:
            return (None,) * 7
        z, y, *rest = ctx.saved_tensors
        gz = torch.zeros_like(z) if gz is None else gz
        needed = ctx.needs_input_grad[3:]
        return None, None, None, *_pulled(ctx.spec, ctx.factor, needed, ctx.whole, gz, gy, z, y, *rest)


def _pulled(
    spec: Spec,
    factor: Reduced | Kept | None,
    needed: Sequence[bool],
    whole: bool,
    gz: Tensor,
    gy: Tensor | None,
    z: Tensor,
    y: Tensor,
    active: Tensor,
    status: Tensor,
    P: Tensor | None,
    q: Tensor,
    C: Tensor,
    d: Tensor,
) -> list[Tensor | None]:
    """Cotangents of P, q, C and d. `whole`: all samples are known to be solved; `gy` None: zero."""
    if whole and isinstance(factor, Kept) and not torch.is_grad_enabled():
        return _cotangents(needed, (P, q, C, d), z, y, *factor.solve(gz, gy), None, spec)
    gy = torch.zeros_like(y) if gy is None else gy
    good = None if whole else status == CONVERGED
    if good is not None and bool(good.all()):
        good = None
    if good is not None:
        z, y, gz, gy = (torch.where(good.unsqueeze(-1), t, 0.0) for t in (z, y, gz, gy))
        P = None if P is None else P.nan_to_num(0.0, 0.0, 0.0)
        C = C.nan_to_num(0.0, 0.0, 0.0)
    if torch.is_grad_enabled():
        u, v = _linear(spec, P, C, active, gz, gy, status == CONVERGED)
    else:
        problem = Quadratic(P, q, C, d, spec.equalities)
        factor = factor or reduce(problem, None if spec.solver is None else active)
        u, v = factor.solve(gz, gy)
        if not isinstance(factor, Kept) and bool(factor.singular.any()):
            missing = factor.missing(u, v, gz, gy) > LOST * (1e-300 + gz.norm(dim=-1) + gy.norm(dim=-1))
            dead = reported(factor.singular & (status == CONVERGED) & missing, spec.failures)
            u, v = (torch.where(dead.unsqueeze(-1), 0.0, t) for t in (u, v))
    if good is not None:
        u, v = (torch.where(good.unsqueeze(-1), t, 0.0) for t in (u, v))
    return _cotangents(needed, (P, q, C, d), z, y, u, v, good, spec)


def _cotangents(
    needed: Sequence[bool],
    inputs: tuple[Tensor | None, Tensor, Tensor, Tensor],
    z: Tensor,
    y: Tensor,
    u: Tensor,
    v: Tensor,
    good: Tensor | None,
    spec: Spec,
) -> list[Tensor | None]:
    """Those of P, q, C and d; summed over the batch where an input is shared."""
    P, q, C, d = inputs
    found: list[Tensor | None] = [None] * 4
    u, row = -u, z.unsqueeze(-2)
    if P is not None and needed[0]:
        found[0] = u.mT @ z if P.ndim == 2 else u.unsqueeze(-1) * row
    if needed[1]:
        found[1] = u if q.ndim == 2 else u.sum(0)
    if needed[2]:
        if C.ndim == 2:
            found[2] = y.mT @ u - v.mT @ z
        else:
            found[2] = torch.addcmul(y.unsqueeze(-1) * u.unsqueeze(-2), v.unsqueeze(-1), row, value=-1)
    if needed[3]:
        found[3] = v if d.ndim == 2 else v.sum(0)
    if good is not None and spec.failures.policy == "nan" and spec.failures.marks:
        for i, (t, rank) in enumerate(zip(found, RANKS, strict=True)):
            if t is not None and t.ndim > rank:
                found[i] = torch.where(good.view(-1, *(1,) * rank), t, torch.nan)
    return found


# -- compiled graphs ---------------------------------------------------------------------------------------------------


def _called_solve(key: str, tensors: list[Tensor]) -> list[Tensor]:
    spec: Spec = named(key)
    found, factor = _solved(spec, Quadratic(*_whole(tensors), spec.equalities))
    regular = torch.full_like(found.status[:1], isinstance(factor, Kept))
    return [t.clone(memory_format=torch.contiguous_format) for t in (*found[:6], regular)]


def _solve_like(key: str, tensors: list[Tensor]) -> list[Tensor]:
    P, q, C, d = _whole(tensors)
    rows, n, m = Quadratic(P, q, C, d, 0).rows, q.shape[-1], d.shape[-1]
    active, residual = q.new_empty(rows, m, dtype=torch.bool), q.new_empty(rows)
    status, iterations = (q.new_empty(rows, dtype=torch.int64) for _ in range(2))
    z, y, regular = q.new_empty(rows, n), q.new_empty(rows, m), q.new_empty(1, dtype=torch.int64)
    return [z, y, active, status, iterations, residual, regular]


_solve = operator("quadratic_optimum(str key, Tensor[] tensors) -> Tensor[]", _called_solve, _solve_like)


def _called_pull(key: str, tensors: list[Tensor], found: list[Tensor]) -> list[Tensor]:
    spec: Spec = named(key)
    *found, regular = found
    P, q, C, d = _whole(tensors)
    gz, gy, z, y, active, status = found
    kept = _kept(spec, Quadratic(P, q, C, d, spec.equalities), active) if bool(regular) else None
    cotangents = _pulled(spec, kept, (True,) * 4, False, gz, gy, z, y, active, status, P, q, C, d)
    return [g.contiguous() for g in cotangents if g is not None]


def _kept(spec: Spec, problem: Quadratic, active: Tensor) -> Kept | None:
    """The factors that `pivoting.Dense` or `polish.direct` had at hand."""
    dual, rows = dual_of(problem), None if spec.solver is None else active[:, spec.equalities :]
    return None if dual is None else Kept(dual, rows, None)


def _pull_like(key: str, tensors: list[Tensor], found: list[Tensor]) -> list[Tensor]:
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors]


_pull = operator(
    "pull_quadratic_optimum(str key, Tensor[] tensors, Tensor[] found) -> Tensor[]", _called_pull, _pull_like
)


def _whole(tensors: list[Tensor]) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """P (None where there are three), q, C, d."""
    q, C, d = tensors[-3:]
    return tensors[0] if len(tensors) == 4 else None, q, C, d


class _Compiled(torch.autograd.Function):
    """The solve and its adjoint as operators, which run what runs eagerly; the latter factors anew."""

    @staticmethod
    def forward(spec: Spec, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(_solve(spec.key, list(tensors)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        spec, *tensors = inputs
        ctx.spec, ctx.count = spec, len(tensors)
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(*tensors, *output[:4], output[6])

    @staticmethod
    def backward(ctx: Any, gz: Tensor, gy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        tensors, found = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        return None, *_pull(ctx.spec.key, list(tensors), [gz, gy, *found])


# -- all orders, all modes ---------------------------------------------------------------------------------------------


def _general(spec: Spec, P: Tensor | None, q: Tensor, C: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Optimum]:
    """The solution as what one differentiable solve gives; the active set is found apart from differentiation."""
    optimum = found_apart(spec, P, q, C, d)
    z, y, active, status = optimum[:4]
    good = (status == CONVERGED).unsqueeze(-1)
    rows = z.shape[0]
    near, multipliers = torch.where(good, z, 0.0), torch.where(good & active, y, 0.0)
    problem = Quadratic(P, q, C, d, spec.equalities)
    right = -q - problem.apply_P(near) - times_transposed(C, multipliers)
    below = torch.where(active, d - times(C, near), 0.0)
    right, below = (torch.where(good, t.expand(rows, t.shape[-1]), 0.0) for t in (right, below))
    u, v = _linear(spec, P, C, active, right, below, status == CONVERGED)
    return torch.where(good, z + u, z), torch.where(good, y + v, y), optimum


def found_apart(spec: Spec, P: Tensor | None, q: Tensor, C: Tensor, d: Tensor) -> Optimum:
    """The optimum without derivatives, under every transform."""
    tensors = (q, C, d) if P is None else (P, q, C, d)
    z, y, *rest = _Found.apply(spec, P is not None, *tensors)
    return Optimum(z.detach(), y.detach(), *rest)


def _linear(
    spec: Spec, P: Tensor | None, C: Tensor, active: Tensor, f: Tensor, g: Tensor, good: Tensor
) -> tuple[Tensor, Tensor]:
    """(u, v) with P u + Cᵀ v = f, C u = g on the active rows and v = 0 elsewhere, by `linear_solve`."""
    rows, n, m = f.shape[0], f.shape[-1], g.shape[-1]
    on = (active & good.unsqueeze(-1)).to(f.dtype)
    eye = torch.eye(n, dtype=f.dtype, device=f.device)
    corner = (torch.zeros_like(eye) if P is None else P).expand(rows, n, n)
    corner = torch.where(good[:, None, None], corner, eye)
    units = row_units(C.detach()) * on
    side = C.expand(rows, m, n) * units.unsqueeze(-1)
    K = torch.cat([torch.cat([corner, side.mT], -1), torch.cat([side, torch.diag_embed(on - 1)], -1)], -2)
    b = torch.cat([f, g * units], -1)
    factor, singular = _factor(K.detach(), on)
    solution = linear_solve(K, b, factor=factor)
    rest = b.detach() - times(K.detach(), solution.detach())
    missing = (rest.norm(dim=-1) > LOST * (1e-8 + b.detach().norm(dim=-1))) & singular & good
    dead = reported(missing, spec.failures).unsqueeze(-1)
    solution = torch.where(dead, 0.0, solution)
    return solution[:, :n], solution[:, n:] * units


def _factor(K: Tensor, on: Tensor) -> tuple[Factor, Tensor]:
    """An LU of K, regularised where it is singular: in the multipliers' block, for redundant constraints, and where
    that is not enough in the unknowns' too, for minimisers that are not unique. And which those are, (B,).
    """
    n = K.shape[-1] - on.shape[-1]
    size = K.diagonal(dim1=-2, dim2=-1)[..., :n].abs().amax(-1, keepdim=True).clamp(min=1.0)
    shift = 1e-9 * torch.cat([size.expand(*size.shape[:-1], n), -size * on], -1)
    return constant_factor(partial(_shifted, n=n), K, shift)


def _shifted(K: Tensor, shift: Tensor, n: int) -> tuple[Factor, Tensor]:
    factor = _lu(K)
    singular = factor.is_singular()
    for first in (n, 0):
        if not bool(singular.any()):
            break
        part = torch.where(torch.arange(K.shape[-1], device=K.device) >= first, shift, 0.0)
        factor = _lu(K + torch.diag_embed(torch.where(singular.unsqueeze(-1), part, 0.0)))
        if first:
            singular = singular & factor.is_singular()
    return factor, singular


def _lu(K: Tensor) -> Factor:
    """With pivots of 1 × 1 matrices, too, which `linear_solve` wants."""
    return Factor(*decompose(K))


class _Found(Constant):
    """The solve without derivatives: z, y, active, status, iterations, residual."""

    @staticmethod
    def forward(spec: Spec, curved: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
        P, (q, C, d) = (tensors[0], tensors[1:]) if curved else (None, tensors)
        found, _ = _solved(spec, Quadratic(P, q, C, d, spec.equalities))
        return tuple(t.clone() for t in found[:6])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], spec: Spec, curved: bool, *tensors: Tensor) -> tuple[Any, Any]:
        ranks = RANKS if curved else RANKS[1:]
        dims = in_dims[2:]
        batch = batch_of(dims, tensors, ranks)
        outputs = _Found.apply(spec, curved, *merge(info.batch_size, batch, dims, tensors, ranks))
        return split(info.batch_size, outputs)
