"""Convex programs with kinks (norms, max, abs, relu) are solved as programs without: against CVXPY, with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

import implicitdsl as imp

D = torch.float64

CASES: dict[str, tuple[str, Callable[[Any, Any, Any], Any], Callable[[Any], list[Any]]]] = {
    "lasso": (
        "||A z - b||^2 + 0.7 ||z||_1",
        lambda x, A, b: cp.sum_squares(A @ x - b) + 0.7 * cp.norm1(x),
        lambda x: [],
    ),
    "least_absolute": (
        "||A z - b||_1 + 0.1 ||z||^2",
        lambda x, A, b: cp.norm1(A @ x - b) + 0.1 * cp.sum_squares(x),
        lambda x: [],
    ),
    "minimax": (
        "max(A z - b) + ||z||_inf + ||z||^2",
        lambda x, A, b: cp.max(A @ x - b) + cp.norm_inf(x) + cp.sum_squares(x),
        lambda x: [],
    ),
    "hinge": (
        "sum(relu(1 - A z)) + 1/2 ||z||^2 + b^T A z",
        lambda x, A, b: cp.sum(cp.pos(1 - A @ x)) + 0.5 * cp.sum_squares(x) + b @ (A @ x),
        lambda x: [],
    ),
    "nested": (
        "max(|z[0]|, relu(z[1]) + ||z||_1) + ||A z - b||^2",
        lambda x, A, b: cp.maximum(cp.abs(x[0]), cp.pos(x[1]) + cp.norm1(x)) + cp.sum_squares(A @ x - b),
        lambda x: [],
    ),
    "constraints": (
        "||A z - b||^2 subject to min(z) >= -0.2, |z[0] - 1| <= 0.3, ||z||_1 <= 2, max(z[1], z[2]) + z[3] <= 0.1",
        lambda x, A, b: cp.sum_squares(A @ x - b),
        lambda x: [cp.min(x) >= -0.2, cp.abs(x[0] - 1) <= 0.3, cp.norm1(x) <= 2, cp.maximum(x[1], x[2]) + x[3] <= 0.1],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_against_cvxpy_with_gradients(name: str) -> None:
    text, objective, constraints = CASES[name]
    layer = imp.compile(f"argmin_{{z in R^n}} {text}", n=4, m=7).double()
    g = torch.Generator().manual_seed(1)
    A = torch.randn(7, 4, dtype=D, generator=g)
    with torch.no_grad():
        layer.A.copy_(A)
    b = torch.randn(3, 7, dtype=D, generator=g)
    sol = layer.solve(b)
    assert sol.report.converged.all()
    for i in range(3):
        x = cp.Variable(4)
        cp.Problem(cp.Minimize(objective(x, A.numpy(), b[i].numpy())), constraints(x)).solve(
            solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12
        )
        np.testing.assert_allclose(sol.value[i].detach().numpy(), x.value, atol=1e-6)
    assert torch.autograd.gradcheck(layer, b.requires_grad_(), atol=1e-8)
    assert torch.autograd.gradgradcheck(layer, b, atol=1e-6)


def test_soft_threshold() -> None:
    """argmin ½‖z − x‖² + λ‖z‖₁ is the soft threshold; its multiplier-free derivative by λ is −sign."""
    layer = imp.compile("argmin_{z in R^n} 1/2 ||z - x||^2 + lam ||z||_1", n=4)
    x = torch.tensor([2.0, -0.3, 0.5, -3.0], dtype=D)
    lam = torch.tensor(0.4, dtype=D, requires_grad=True)
    z = layer(x, lam)
    torch.testing.assert_close(z, x.sign() * (x.abs() - 0.4).clamp(min=0), atol=1e-12, rtol=0)
    z.square().sum().backward()
    torch.testing.assert_close(lam.grad, torch.tensor(-2 * (1.6 + 0.1 + 2.6), dtype=D))


def test_the_multiplier_of_a_kinked_constraint() -> None:
    """min ½‖z − x‖² with ‖z‖₁ ≤ 1: the multiplier is the threshold."""
    text = "argmin_{z in R^n} 1/2 ||z - x||^2 subject to budget: ||z||_1 <= 1\nreturn z, dual(budget)"
    layer = imp.compile(text, n=3)
    z, shift = layer(torch.tensor([2.0, -1.5, 0.1], dtype=D))
    torch.testing.assert_close(shift, torch.tensor(1.25, dtype=D))
    torch.testing.assert_close(z, torch.tensor([0.75, -0.25, 0.0], dtype=D), atol=1e-12, rtol=0)


def test_the_multiplier_of_a_ball_is_that_of_its_norm() -> None:
    """‖z − y‖² over ‖z‖ ≤ r: z = r y / ‖y‖ and λ = 2 (‖y‖ − r), although the solver sees ‖z‖² ≤ r²."""
    text = """layer Ball(n):
  given y in R^n, r in positive
  argmin_{z in R^n} ||z - y||^2 subject to cap: ||z|| <= r, still: ||z - 1|| <= 20
  return z, dual(cap), dual(still)
"""
    layer = imp.compile(text, n=3)
    y = torch.tensor([[3.0, 0.0, 4.0], [0.1, 0.2, 0.0]], dtype=torch.float64, requires_grad=True)
    r = torch.tensor([2.0, 1.0], dtype=torch.float64, requires_grad=True)
    z, cap, still = layer(y, r)
    torch.testing.assert_close(z[0], 2 * y[0] / 5)
    torch.testing.assert_close(cap, torch.tensor([6.0, 0.0], dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(still, torch.zeros_like(still), atol=1e-9, rtol=0)
    assert torch.autograd.gradcheck(lambda y, r: layer(y, r)[:2], (y, r), atol=1e-7)


def test_a_linear_program_with_data_in_its_constraints_learns() -> None:
    """‖A x − b‖₁ becomes a linear program whose cost has no data; IMP605 is for cᵀx alone."""
    fit = "layer F(n, m):\n  given A in R^(m, n), b in R^m\n  argmin_{x in nonneg^n} ||A x - b||_1"
    assert not [d for d in imp.check(fit) if d.code == "IMP605"]
    cost = "layer F(n):\n  given c in R^n\n  argmin_{x in simplex(n)} c^T x"
    assert [d.code for d in imp.check(cost)] == ["IMP605"]
    for form in ("z in R^n} ||z - c||", "z in R^n} c^T z subject to ||z|| <= 1", "z in ball(n, 1)} c^T z"):
        assert not imp.check("layer Round(n):\n  given c in R^n\n  argmin_{" + form)


def test_kinks_and_norms_under_running_indices() -> None:
    """Differences of an image in both directions, pieces that overlap, a bound for each entry: against CVXPY."""
    rows: dict[str, Callable[[Any], Any]] = {
        "sum(|X[i + 1, j] - X[i, j]| for i in m - 1 for j in n)": lambda X: cp.sum(cp.abs(X[1:] - X[:-1])),
        "sum(||X[i + 1] - X[i]||_1 for i in m - 1)": lambda X: cp.sum(cp.abs(X[1:] - X[:-1])),
        "sum(max(|X[:, j]|) for j in n)": lambda X: cp.sum(cp.max(cp.abs(X), axis=0)),
        "sum(||X[i, j:j + 2]|| for i in m for j in n - 1)": lambda X: cp.sum(
            [cp.norm(X[i, j : j + 2]) for i in range(4) for j in range(2)]
        ),
    }
    Y = torch.randn(2, 4, 3, dtype=D, generator=torch.Generator().manual_seed(3))
    for text, penalty in rows.items():
        layer = imp.compile(
            f"layer L(m, n):\n  given Y in R^(m, n)\n  argmin_{{X in R^(m, n)}} ||X - Y||_F^2 + {text}\n"
            "    subject to |X[i, j]| <= 0.5 + j for i in m for j in n\n"
        )
        sol = layer.solve(Y)
        assert sol.report.converged.all()
        for i in range(2):
            X: Any = cp.Variable((4, 3))
            bound: list[Any] = [cp.abs(X[:, j]) <= 0.5 + j for j in range(3)]
            cp.Problem(cp.Minimize(cp.sum_squares(X - Y[i].numpy()) + penalty(X)), bound).solve(solver="CLARABEL")
            np.testing.assert_allclose(sol.value[i].numpy(), X.value, atol=2e-4)
        g, v, h = torch.randn_like(Y), torch.randn_like(Y), 1e-6
        at = Y.clone().requires_grad_()
        (found,) = torch.autograd.grad((layer(at) * g).sum(), at)
        expected = ((layer(Y + h * v) - layer(Y - h * v)) * g).sum() / (2 * h)
        torch.testing.assert_close((found * v).sum(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("unit", [1e-8, 1e-3, 1e6])
@pytest.mark.parametrize(
    "text",
    [
        "argmin_{z in R^n} 1/2 ||A z - b||^2 + c[0] ||z||_1 + 1e-3 ||z||^2",
        "argmin_{z in nonneg^n} sum(z) subject to A z >= b, sum(z) >= c[0]",
        "argmin_{z in R^n} z^T z + 1e-3 sum(z) c[0] + c[0] max(A z - b) subject to sum(z) = c[0]",
    ],
)
def test_units_do_not_matter(text: str, unit: float) -> None:
    """Programs of interior points whose data are all measured in other units have the solution in these units."""
    layer = imp.compile(f"layer Unit(n, m):\n  given A in R^(m, n), b in R^m, c in positive^1\n  {text}")
    rng = torch.Generator().manual_seed(5)
    A, b = torch.randn(3, 4, generator=rng, dtype=D), torch.rand(3, generator=rng, dtype=D)
    c = torch.tensor([0.1], dtype=D)
    torch.testing.assert_close(layer(A, unit * b, unit * c) / unit, layer(A, b, c), rtol=1e-9, atol=1e-11)
