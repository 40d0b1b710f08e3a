"""Exact gradients of min tr(C X), tr(Aᵢ X) = bᵢ, X ⪰ 0: Newton on {C − Σ yᵢAᵢ − Z, A(X) − b, X Z + Z X}, implicitly."""

from __future__ import annotations

from collections.abc import Sequence

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor
from torch.func import jacfwd

from .optimum_exact import solved


def gradient(
    problem: cp.Problem,
    variable: cp.Variable,
    cost: cp.Parameter,
    rows: Sequence[cp.Constraint],
    A: Tensor,
    C: Tensor,
    weight: Tensor,
) -> Tensor:
    """The flat cotangents of C (B, n, n), by the symmetric part of X; regular where complementarity is strict."""
    n, m = C.shape[-1], A.shape[0]
    upper = torch.triu_indices(n, n)

    def matrix(v: Tensor) -> Tensor:
        M = v.new_zeros(n, n).index_put((upper[0], upper[1]), v)
        return M + M.mT - torch.diag(M.diagonal())

    def flat(M: Tensor) -> Tensor:
        return M[upper[0], upper[1]]

    k = upper.shape[1]
    found: list[Tensor] = []
    for c in C:
        cost.value = c.numpy()
        solved(problem)

        def system(state: Tensor, c: Tensor = c) -> Tensor:
            X, Z, y = matrix(state[:k]), matrix(state[k : 2 * k]), state[2 * k :]
            b = A.diagonal(dim1=-2, dim2=-1).sum(-1)
            stationary = (c + c.mT) / 2 - torch.einsum("k,kij->ij", y, A) - Z
            return torch.cat([flat(stationary), torch.einsum("kij,ji->k", A, X) - b, flat(X @ Z + Z @ X)])

        assert variable.value is not None
        y = -torch.tensor([float(np.asarray(r.dual_value)) for r in rows], dtype=C.dtype)
        X = torch.from_numpy(variable.value)
        Z = (c + c.mT) / 2 - torch.einsum("k,kij->ij", y, A)
        state = torch.cat([flat((X + X.mT) / 2), flat(Z), y])
        for _ in range(6):
            state = state - torch.linalg.solve(jacfwd(system)(state), system(state))
        right = torch.zeros(2 * k + m, dtype=C.dtype)
        both = weight + weight.mT - torch.diag(weight.diagonal())
        right[:k] = flat(both)
        u = torch.linalg.solve(jacfwd(system)(state).mT, right)
        dC = torch.zeros(n, n, dtype=C.dtype).index_put((upper[0], upper[1]), -u[:k])
        found.append((dC + dC.mT) / 2)
    return torch.stack(found).flatten()
