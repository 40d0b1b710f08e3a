"""Quadratic programs that begin at an earlier solution: the same optimum and gradient, found in fewer rounds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import implicitdsl as imp

D = torch.float64

DENSE = """layer Dense(n, m):
  given q in R^n, h in R^m, z0 in R^n
  param G in R^(m, n)
  argmin_{z in R^n} ||z||^2 + q^T z subject to G z <= h
"""
LINEAR = """layer Linear(n, m):
  given q in R^n, h in R^m, z0 in R^n
  param G in R^(m, n)
  argmin_{z in [0, 1]^n} q^T z subject to G z <= h
"""
HORIZON = """layer Horizon(N):
  given q in R, h in R
  argmin_{x in R^(N+1), u in R^N} q^2 * x[N]^2 + sum(u[i]^2 + x[i]^2 for i in N)
    subject to x[0] = 3 * h, x[i+1] = x[i] + 0.3 * u[i] for i in N, -1 <= u[i] <= 1 for i in N
  using riccati()
"""


def problem(text: str) -> tuple[Any, Tensor, Tensor, Tensor]:
    """Some rows are active at the optimum, and all samples have one."""
    torch.manual_seed(0)
    n, m = (6, 4) if text is LINEAR else (10, 16)
    layer = imp.compile(text, n=n, m=m).double()
    layer.G.data.copy_(torch.rand(m, n) if text is LINEAR else torch.randn(m, n))
    q, h = 3 * torch.randn(20, n, dtype=D), 0.2 + torch.rand(20, m, dtype=D)
    return layer, q, h, torch.zeros(n, dtype=D)


@pytest.mark.filterwarnings("ignore::implicitdsl.SpecWarning")
@pytest.mark.parametrize("text", [DENSE, LINEAR], ids=["dense", "linear"])
def test_a_solution_that_still_has_the_right_rows_is_found_at_once(text: str) -> None:
    layer, q, h, z0 = problem(text)
    sol = layer.solve(q, h, z0)
    assert sol.report.iterations.max() > 1
    again = layer.solve(q, h, z0, start=sol)
    assert again.report.iterations.double().mean() < 1.5  # some rows have little slack
    torch.testing.assert_close(again.value, sol.value, rtol=1e-12, atol=1e-12)
    near = q + 1e-4 * torch.randn_like(q)
    cold, warm = layer.solve(near, h, z0), layer.solve(near, h, z0, start=sol.value)
    assert warm.report.converged.all()
    assert warm.report.iterations.double().mean() < 0.7 * cold.report.iterations.double().mean()
    torch.testing.assert_close(warm.value, cold.value, rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore::implicitdsl.SpecWarning")
@pytest.mark.parametrize("text", [DENSE, LINEAR], ids=["dense", "linear"])
@pytest.mark.parametrize("guess", ["random", "nan"])
def test_any_start_gives_the_same_optimum_and_gradient(text: str, guess: str) -> None:
    layer, q, h, z0 = problem(text)
    h[3] = -1.0 if text is LINEAR else h[3]  # no point has so little
    q.requires_grad_()
    with pytest.warns(imp.ConvergenceWarning) if text is LINEAR else torch.enable_grad():
        cold = layer.solve(q, h, z0)
    start = torch.full_like(q, torch.nan) if guess == "nan" else 3 * torch.randn_like(q)
    with pytest.warns(imp.ConvergenceWarning) if text is LINEAR else torch.enable_grad():
        warm = layer.solve(q, h, z0, start=start)
    assert (warm.report.status == cold.report.status).all()
    good = cold.report.converged
    torch.testing.assert_close(warm.value[good], cold.value[good], rtol=1e-10, atol=1e-12)
    found, expected = (torch.autograd.grad((s.value[good] ** 2).sum(), layer.G)[0] for s in (warm, cold))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("slot", ["start z0", "ipm(), start z0"])
def test_the_spec_says_where_to_begin(slot: str) -> None:
    layer, q, h, z0 = problem(DENSE)
    begun, *_ = problem(f"{DENSE}  using {slot}\n")
    begun.load_state_dict(layer.state_dict())
    sol = layer.solve(q, h, z0)
    assert begun.solve(q, h, sol.value).report.iterations.double().mean() < 1.5 < sol.report.iterations.double().mean()
    torch.testing.assert_close(begun(q, h, z0), sol.value)
    for number in ("0.5", "zeros", "sum(q)"):
        other, *_ = problem(f"{DENSE}  using start {number}\n")
        other.load_state_dict(layer.state_dict())
        torch.testing.assert_close(other(q, h, z0), sol.value)


def test_a_program_over_a_horizon() -> None:
    layer = imp.compile(HORIZON, N=12)
    q, h = torch.rand(5, dtype=D) + 0.5, torch.linspace(-2, 2, 5, dtype=D)
    sol = layer.solve(q, h)
    assert sol.report.iterations.max() > 1
    again = layer.solve(q * 1.001, h, start=sol)
    assert (again.report.iterations == 1).all()
    torch.testing.assert_close(again.value, layer(q * 1.001, h), rtol=1e-9, atol=1e-10)
