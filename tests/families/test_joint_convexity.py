"""Programs with relative entropies, perspectives, quotients and geometric means, against CVXPY, with gradients."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import implicitdsl as imp

D = torch.float64
N, M = 4, 3
TIGHT = {"solver": "CLARABEL", "tol_gap_abs": 1e-9, "tol_gap_rel": 1e-9, "tol_feas": 1e-9}


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


A, C = 0.2 + uniform(M, N), uniform(N, seed=1) - 0.3
B = A @ (0.3 + uniform(N, seed=2))
x, y, z, t = cp.Variable(N), cp.Variable(N), cp.Variable(N), cp.Variable()
a, b, c = A.numpy(), B.numpy(), C.numpy()
BOTH = "x in positive^n, y in positive^n"
PROGRAMS: dict[str, tuple[str, Any, list[Any]]] = {
    "relative entropy": (
        f"argmin_{{{BOTH}}} sum(x * log(x / y)) + ||y - 1||^2 subject to A x = b",
        cp.Minimize(cp.sum(cp.rel_entr(x, y)) + cp.sum_squares(y - 1)), [a @ x == b],
    ),
    "divergence": (
        f"argmin_{{{BOTH}}} sum(x * log(x / y) - x + y) + ||y - 1||^2 subject to A x = b",
        cp.Minimize(cp.sum(cp.kl_div(x, y)) + cp.sum_squares(y - 1)), [a @ x == b],
    ),
    "perspective of exp": (
        "argmin_{x in R^n, y in positive^n} sum(y * exp(x / y)) + ||x||^2 subject to A y >= b",
        cp.Minimize(cp.sum(z) + cp.sum_squares(x)), [cp.ExpCone(x, y, z), a @ y >= b],
    ),
    "perspective of log": (
        f"argmax_{{{BOTH}}} sum(y * log(x / y)) - ||x||^2 subject to A y >= b",
        cp.Minimize(cp.sum(cp.rel_entr(y, x)) + cp.sum_squares(x)), [a @ y >= b],
    ),
    "square over linear": (
        "argmin_{x in R^n, y in positive} ||x - c||^2 / y + y subject to A x = b",
        cp.Minimize(cp.quad_over_lin(x - c, t) + t), [a @ x == b],
    ),
    "geometric mean": (
        "argmax_{x in positive^n} prod(x)^(1/n) + c^T x subject to A x <= b",
        cp.Maximize(cp.geo_mean(x) + c @ x), [a @ x <= b],
    ),
    "mean of logarithms": (
        "argmax_{x in positive^n} exp(mean(log(x))) + c^T x subject to A x <= b",
        cp.Maximize(cp.geo_mean(x) + c @ x), [a @ x <= b],
    ),
    "roots of products": (
        f"argmax_{{{BOTH}}} sum(sqrt(x * y)) - ||y - c||^2 subject to A x <= b",
        cp.Maximize(sum(cp.geo_mean(cp.hstack([x[i], y[i]])) for i in range(N)) - cp.sum_squares(y - c)), [a @ x <= b],
    ),
    "3-norm": (
        "argmin_{x in R^n} sum(|x|^3)^(1/3) + 0.1 ||x - c||^2 subject to A x = b",
        cp.Minimize(cp.norm(x, 3) + 0.1 * cp.sum_squares(x - c)), [a @ x == b],
    ),
    "soft maximum of a ratio": (
        "argmin_{x in R^n, y in positive} y logsumexp(x / y) + ||x - c||^2 + (y - 3)^2 subject to A x = b",
        cp.Minimize(t + cp.sum_squares(x - c) + (y[0] - 3) ** 2),
        [cp.sum(z) <= y[0], cp.ExpCone(x - t, cp.hstack([y[0]] * N), z), a @ x == b],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_against_cvxpy(name: str) -> None:
    text, goal, rows = PROGRAMS[name]
    layer = imp.compile(
        f"layer P(n, m):\n  given c in R^n, b in R^m\n  param A in R^(m, n)\n  {text}\n  return x", n=N, m=M
    )
    layer = layer.double()
    layer.A = A
    layer.requires_grad_(False)
    sol = layer.solve(C, B)
    assert sol.report.converged.all()
    cp.Problem(goal, rows).solve(**TIGHT)
    np.testing.assert_allclose(sol.value.numpy(), np.asarray(x.value), atol=1e-4)
    assert torch.autograd.gradcheck(
        layer, (C.clone().requires_grad_(), B.clone().requires_grad_()), atol=1e-6, fast_mode=True
    )
