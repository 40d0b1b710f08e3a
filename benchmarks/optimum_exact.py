"""Exact gradients of optima: Newton's method on the KKT conditions of the active set, then implicit differentiation.

Where a solution comes from does not matter (Clarabel's, tight, tells the active set): Newton meets the conditions to
rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from cvxpy.constraints.zero import Equality
from torch import Tensor
from torch.func import grad, jacfwd, vjp

TIGHT = {"tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11}
Scalar = Callable[..., Tensor]
"""(x, *data) -> a number, or a vector of constraints."""


def solved(problem: cp.Problem) -> None:
    """By Clarabel, tightly."""
    problem.solve(solver=cp.CLARABEL, **TIGHT)  # pyright: ignore[reportArgumentType]


def implicit(
    objective: Scalar,
    constraints: Scalar | None,
    x: np.ndarray,
    multipliers: np.ndarray,
    active: np.ndarray,
    data: Sequence[Tensor],
    cotangent: Tensor,
) -> tuple[list[Tensor], Tensor]:
    """Cotangents of `data` for one sample, and the refined x; `active` are the entries of `constraints` that hold."""
    on = torch.from_numpy(active.nonzero()[0])
    n, k = x.size, on.numel()
    w = torch.from_numpy(np.concatenate([x.ravel(), multipliers.ravel()[active]]))

    def system(w: Tensor, *data: Tensor) -> Tensor:
        def lagrangian(x: Tensor) -> Tensor:
            value = objective(x, *data)
            return value if constraints is None else value + w[n:] @ constraints(x, *data)[on]

        parts = [grad(lagrangian)(w[:n])]
        if constraints is not None:
            parts.append(constraints(w[:n], *data)[on])
        return torch.cat(parts)

    for _ in range(6):
        F = system(w, *data)
        w = w - torch.linalg.solve(jacfwd(system)(w, *data), F)
    J = jacfwd(system)(w, *data)
    u = torch.linalg.solve(J.mT, torch.cat([cotangent.flatten(), torch.zeros(k, dtype=w.dtype)]))
    pull: Any = vjp(lambda *data: system(w.detach(), *data), *data)[1]
    return [-g for g in pull(u)], w[:n]


def gradients(
    problem: cp.Problem,
    variable: cp.Variable,
    parameters: Sequence[cp.Parameter],
    rows: Sequence[cp.Constraint],
    objective: Scalar,
    constraints: Scalar | None,
    data: Sequence[Tensor],
    cotangent: Tensor,
) -> Tensor:
    """All samples' cotangents of `data`, flat, those of unbatched data summed.

    `data[i]` belongs to `parameters[i]`; the entries of `constraints` are those of `rows` in order, equalities among
    them always active.
    """
    batch = max(t.shape[0] for t, p in zip(data, parameters, strict=True) if t.ndim > p.ndim)
    totals = [torch.zeros_like(t) for t in data]
    for i in range(batch):
        here = [t[i] if t.ndim > p.ndim else t for t, p in zip(data, parameters, strict=True)]
        for p, t in zip(parameters, here, strict=True):
            p.value = t.numpy()
        solved(problem)
        assert variable.value is not None
        duals = [np.asarray(r.dual_value, dtype=float).ravel() for r in rows]
        lam = np.concatenate([*duals, np.zeros(0)])
        active = lam > 0
        if constraints is not None:
            slack = -constraints(torch.from_numpy(variable.value.ravel()), *here).numpy()
            equal = [np.full(d.size, isinstance(r, Equality)) for d, r in zip(duals, rows, strict=True)]
            active = np.concatenate(equal) | (lam > slack)
        found, _ = implicit(objective, constraints, variable.value, lam, active, here, cotangent)
        for total, g, t, p in zip(totals, found, data, parameters, strict=True):
            if t.ndim > p.ndim:
                total[i] = g
            else:
                total += g
    return torch.cat([t.flatten() for t in totals])
