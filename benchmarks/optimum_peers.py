"""The peers of the optimisation rows: qpth, cvxpylayers over DIFFCP and MOREAU, proxsuite's QPLayer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import cvxpy as cp
import torch
from torch import Tensor

Solve = Callable[..., Tensor]
"""(*data) -> the points (B, …)."""


def cvxpylayers(
    problem: cp.Problem,
    parameters: Sequence[cp.Parameter],
    variables: Sequence[cp.Variable],
    solver: str,
    **options: Any,
) -> Solve:
    """A CvxpyLayer as its documentation builds it; `options` are its `solver_args`."""
    layer_of: Any = import_module("cvxpylayers.torch").CvxpyLayer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = layer_of(problem, parameters=list(parameters), variables=list(variables), solver=solver)

    def solve(*data: Tensor) -> Tensor:
        found = layer(*data, solver_args=options) if options else layer(*data)
        return found[0] if len(found) == 1 else torch.cat([v.flatten(1) for v in found], 1)

    return solve


def qpth(Q: Tensor, p: Tensor, G: Tensor, h: Tensor, A: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    """qpth's batched interior point."""
    function: Any = import_module("qpth.qp").QPFunction
    none = torch.empty(0, dtype=p.dtype)
    A, b = none if A is None else A, none if b is None else b
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(verbose=-1, eps=1e-10, maxIter=40)(Q, p, G, h, A, b)


def qplayer(Q: Tensor, p: Tensor, G: Tensor, h: Tensor) -> Tensor:
    """proxsuite's QPLayer: sample by sample in C++."""
    function: Any = import_module("proxsuite.torch.qplayer").QPFunction
    batch, n = p.shape
    low = torch.full_like(h, -1e20)
    A, b = p.new_zeros(batch, 0, n), p.new_zeros(batch, 0)
    return function(structural_feasibility=True, omp_parallel=False, maxIter=1000, eps=1e-9)(Q, p, A, b, G, low, h)[0]


def both(problem: cp.Problem, parameters: Sequence[cp.Parameter], variables: Sequence[cp.Variable]) -> dict[str, Solve]:
    """cvxpylayers by its default, by DIFFCP over Clarabel, also with tolerances at which its derivatives are more often
    right, and by MOREAU, whose points leave the feasible set where its settings are changed."""
    tight = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)
    return {
        "DIFFCP": cvxpylayers(problem, parameters, variables, "DIFFCP"),
        "DIFFCP, Clarabel": cvxpylayers(problem, parameters, variables, "DIFFCP", solve_method="Clarabel"),
        "DIFFCP, Clarabel tight": cvxpylayers(
            problem, parameters, variables, "DIFFCP", solve_method="Clarabel", **tight
        ),
        "MOREAU": cvxpylayers(problem, parameters, variables, "MOREAU"),
    }
