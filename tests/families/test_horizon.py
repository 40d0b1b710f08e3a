"""Programs over a horizon: Riccati's recursion against dense factors, finite differences and closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import implicitdsl as imp
from implicitdsl.ground.outcomes import Outcome

D = torch.float64

REGULATOR = """layer Regulator(N, n, m):
  given x0 in R^n, A in R^(n, n), r in R^(N+1, n)
  param B in R^(n, m)
  argmin_{x in R^(N+1, n), u in R^(N, m)} sum(1/2 ||x[i] - r[i]||^2 + 0.05 u[i]^T u[i] for i in N) +
      2 ||x[N] - r[N]||^2
    subject to first: x[0] = x0, move: x[i+1] = A x[i] + B u[i] for i in N
  using METHOD
  return x, u, dual(first), dual(move)
"""
CAR = """layer Car(N):
  given p0 in R, v0 in R, goal in R
  const dt in R = 0.2
  argmin_{u in R^N, p in R^(N+1), v in R^(N+1)} sum((p[i+1] - goal)^2 + 0.1 u[i]^2 + 0.05 v[i]^2 for i in N)
    subject to p[0] = p0, v[0] = v0, v[i] + dt u[i] = v[i+1] for i in N, p[i+1] = p[i] + dt v[i] for i in N
    push: -1 <= u <= 1, fast: v[i] <= 0.8 for i in 1:N+1, v[N] = 0.1
  using METHOD
  return p, v, u, dual(push), dual(fast)
"""
FLOW = """layer Storage(N):
  given price in R^N, s0 in R
  argmin_{s in R^(N+1), b in R^N} sum(price[i] b[i] for i in N)
    subject to s[0] = s0, s[i+1] = s[i] + b[i] for i in N, 0 <= s <= 2, -1 <= b <= 1, s[N] = 1
  using METHOD
  return b, s
"""


def regulator(method: str, N: int = 6) -> tuple[Any, tuple[Tensor, ...]]:
    layer = imp.compile(REGULATOR.replace("METHOD", method), N=N, n=3, m=2).double()
    torch.manual_seed(0)
    layer.B = torch.nn.Parameter(0.5 * torch.randn(3, 2, dtype=D))
    A = torch.eye(3, dtype=D) + 0.2 * torch.randn(4, 3, 3, dtype=D)
    return layer, (torch.randn(4, 3, dtype=D), A, torch.randn(N + 1, 3, dtype=D))


def car(method: str, N: int = 8) -> tuple[Any, tuple[Tensor, ...]]:
    layer = imp.compile(CAR.replace("METHOD", method), N=N).double()
    torch.manual_seed(3)
    p0, v0, goal = (torch.randn(5, dtype=D), 0.3 * torch.randn(5, dtype=D), torch.randn(5, dtype=D))
    return layer, (p0, v0, goal)


def gradients(layer: Any, data: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs, and the cotangents of data and parameters of a weighted sum of them."""
    leaves = [t.clone().requires_grad_() for t in data]
    found = list(layer(*leaves))
    total = sum((t * torch.linspace(0.5, 1.5, t.numel(), dtype=D).view_as(t)).sum() for t in found)
    assert isinstance(total, Tensor)
    return [t.detach() for t in found], list(torch.autograd.grad(total, [*leaves, *layer.parameters()]))


@pytest.mark.parametrize("problem, dense", [(regulator, "direct"), (car, "ipm")], ids=["regulator", "car"])
def test_values_multipliers_and_gradients_are_those_of_dense_factors(problem: Any, dense: str) -> None:
    values, slopes = gradients(*problem("riccati"))
    expected, exact = gradients(*problem(dense))
    for found, known in zip([*values, *slopes], [*expected, *exact], strict=True):
        torch.testing.assert_close(found, known, rtol=1e-8, atol=1e-8)


def test_a_scalar_regulator_is_the_riccati_equation() -> None:
    text = (
        "layer Scalar(N):\n  given x0 in R\n"
        "  argmin_{x in R^(N+1), u in R^N} sum(x[i]^2 + 2 u[i]^2 for i in N) + 3 x[N]^2\n"
        "    subject to x[0] = x0, x[i+1] = 1.5 x[i] + 0.5 u[i] for i in N\n  using riccati\n  return u"
    )
    P, gains = 3.0, []
    for _ in range(9):
        gains.append(0.5 * P * 1.5 / (2 + 0.25 * P))
        P = 1 + 1.5**2 * P - 1.5 * 0.5 * P * gains[-1]
    x, expected = 0.7, []
    for k in reversed(gains):
        expected.append(-k * x)
        x = 1.5 * x - 0.5 * k * x
    found = imp.compile(text, N=9)(torch.tensor([0.7], dtype=D))
    torch.testing.assert_close(found[0], torch.tensor(expected, dtype=D), rtol=1e-12, atol=1e-13)


def test_derivatives_of_first_and_second_order_are_right() -> None:
    layer, (p0, v0, goal) = car("riccati", N=4)

    def controls(*data: Tensor) -> Tensor:
        return layer(*data)[2]

    point = tuple(t[:2].clone().requires_grad_() for t in (p0, v0, goal))
    assert torch.autograd.gradcheck(controls, point, atol=1e-6)
    layer, data = regulator("riccati", N=2)
    x0, A, r = data[0][:1], data[1][:1].clone().requires_grad_(), data[2]
    assert torch.autograd.gradgradcheck(lambda A: layer(x0, A, r)[1], (A,), atol=1e-5)
    mapped = torch.func.vmap(lambda x, A: layer(x, A, r)[1])(data[0], data[1])
    torch.testing.assert_close(mapped, layer(data[0], data[1], r)[1], rtol=1e-10, atol=1e-10)


def test_a_linear_objective_finds_the_vertex() -> None:
    torch.manual_seed(0)
    price, s0 = torch.rand(6, 7, dtype=D), torch.full((6,), 0.5, dtype=D)
    one, other = (imp.compile(FLOW.replace("METHOD", name), N=7)(price, s0) for name in ("riccati", "ipm"))
    torch.testing.assert_close(one[0], other[0], rtol=1e-8, atol=1e-8)


def test_samples_without_solution_are_marked_alone() -> None:
    layer, (p0, v0, goal) = car("riccati")
    good = layer.solve(p0, v0, goal)
    v0, goal = v0.clone(), goal.clone()
    v0[1], goal[3] = 9.0, torch.nan
    with pytest.warns(imp.ConvergenceWarning, match="2 of 5"):
        found = layer.solve(p0, v0, goal)
    assert found.report.status.tolist()[1] == int(Outcome.INFEASIBLE)
    assert found.report.status.tolist()[3] == int(Outcome.NOT_FINITE)
    keep = [0, 2, 4]
    torch.testing.assert_close(found.value[2][keep], good.value[2][keep], rtol=1e-9, atol=1e-9)


def test_long_horizons_take_it_by_themselves_and_say_why() -> None:
    text = REGULATOR.replace("  using METHOD\n", "")
    layer = imp.compile(text, N=150, n=3, m=2).double()
    torch.manual_seed(0)
    x0, A, r = torch.randn(2, 3, dtype=D), 0.9 * torch.eye(3, dtype=D), torch.zeros(151, 3, dtype=D)
    found = layer.solve(x0, A, r)
    assert found.report.solver == "riccati"
    assert bool(found.report.converged.all())
    said = imp.explain(layer)
    assert "riccati" in said
    assert "x at i + 1 is given by stage i" in said
    short = imp.compile(text, N=5, n=3, m=2).double()
    assert short.solve(x0, A, r[:6]).report.solver == "direct"


COUPLED = {
    "x[i+1] = A x[i] + u[i] for i in N, u[i+1] - u[i] <= 1 for i in N-1": "couples stages",
    "x[i+1] = A x[i+1] + u[i] for i in N": "outright",
    "x[i+1] = A x[i] + u[i] for i in 1:N": "at every step",
    "x[i] = A x[0] + u[i] for i in N": "running index alone",
    "A x[0] = y": "no constraint gives",
    "x[i+1] = x[i] + u[i] for i in N, sum(u) <= y": "more than one stage",
}


@pytest.mark.parametrize("held", COUPLED)
def test_a_problem_without_the_structure_is_refused_with_the_reason(held: str) -> None:
    text = (
        "layer Coupled(N):\n  given y in R\n  param A in R\n"
        f"  argmin_{{x in R^(N+1), u in R^N}} sum(x[i]^2 + u[i]^2 for i in N) subject to {held}\n  using riccati"
    )
    (error,) = [d for d in imp.check(text) if d.code == "IMP910"]
    assert "`using riccati` here" in error.message
    assert COUPLED[held] in error.message


def test_costs_of_two_stages_at_once_are_refused() -> None:
    text = (
        "layer Smooth(N):\n  given x0 in R\n  argmin_{x in R^(N+1), u in R^(N+1)} sum((u[i+1] - u[i])^2 for i in N)\n"
        "    subject to x[0] = x0, x[i+1] = x[i] + u[i] for i in N\n  using riccati"
    )
    (error,) = [d for d in imp.check(text) if d.code == "IMP910"]
    assert "(u[i + 1] - u[i])^2 couples stages" in error.message
