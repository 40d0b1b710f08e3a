"""Conic programs whose data are all measured in other units have the same solution in these units."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import implicitdsl as imp
from implicitdsl.ground.outcomes import Outcome
from implicitdsl.solvers.optimum.cones import Cones
from implicitdsl.solvers.optimum.conic import Cone, Conic, optimality
from implicitdsl.solvers.optimum.sizes import sizes_of

D = torch.float64

BALL = """layer Ball(n, m):
  given p in R^n, A in R^(m, n), a in R^m, r in positive^1, k in positive^1
  argmin_{x in R^n} p^T x + 0.05 k[0] ||x||^2 subject to near: ||A x + a|| <= r[0]
  return x, dual(near)
"""
TRACE = """layer Trace(n):
  given C in Sym(n), t in positive^1
  argmin_{X in PSD(n)} tr(C X) subject to all: tr(X) = t[0]
  return X, dual(all)
"""
UNITS = [1e-8, 1e-6, 1e-3, 1e6]


def ball() -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(3)
    p, A, a = (torch.randn(*shape, generator=rng, dtype=D) for shape in ((4, 3), (4, 4, 3), (4, 4)))
    return p, A, 0.3 * a, torch.full((4, 1), 2.0, dtype=D), torch.ones(4, 1, dtype=D)


def trace() -> tuple[Tensor, ...]:
    C = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(4), dtype=D)
    return C + C.mT, torch.ones(4, 1, dtype=D)


def solved(layer: Any, *given: Tensor) -> tuple[Tensor, ...]:
    found = layer.solve(*given)
    assert found.report.converged.all()
    return found.value


@pytest.mark.parametrize("length", UNITS)
@pytest.mark.parametrize("cost", [1e-6, 1.0, 1e6])
def test_second_order(length: float, cost: float) -> None:
    layer = imp.compile(BALL)
    p, A, a, r, k = ball()
    x, y = solved(layer, p, A, a, r, k)
    z, dual = solved(layer, cost * p, A, length * a, length * r, cost / length * k)
    torch.testing.assert_close(z / length, x, rtol=1e-9, atol=1e-11)
    rounding = 1e-15 * length / cost  # of slacks less multipliers, which is what is kept of both
    torch.testing.assert_close(dual / cost, y, rtol=1e-9, atol=max(rounding, 1e-9))


@pytest.mark.parametrize("length", UNITS)
@pytest.mark.parametrize("cost", [1e-6, 1.0, 1e6])
def test_semidefinite(length: float, cost: float) -> None:
    layer = imp.compile(TRACE)
    C, t = trace()
    X, y = solved(layer, C, t)
    Z, dual = solved(layer, cost * C, length * t)
    torch.testing.assert_close(Z / length, X, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(dual / cost, y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("length", [1e-6, 1e6])
def test_gradients(length: float) -> None:
    layer = imp.compile(BALL)
    p, A, a, r, k = ball()
    C, t = trace()
    v = torch.linspace(-1, 1, 12, dtype=D).view(4, 3)
    w = torch.linspace(-1, 1, 36, dtype=D).view(4, 3, 3)

    def slopes(unit: float) -> list[Tensor]:
        at = [q.clone().requires_grad_() for q in (p, A, a, C, t)]
        x = layer(at[0], at[1], unit * at[2], unit * r, k / unit)[0]
        X = imp.compile(TRACE)(at[3], unit * at[4])[0]
        return list(torch.autograd.grad(((x * v).sum() + (X * w).sum()) / unit, at))

    torch.testing.assert_close(slopes(length), slopes(1.0), rtol=1e-7, atol=1e-8)


def test_samples_in_one_batch_each_have_their_own_units() -> None:
    p, A, a, r, k = ball()
    u = torch.tensor([1e-6, 1.0, 1e6, 1e-3], dtype=D).unsqueeze(-1)
    layer = imp.compile(BALL)
    x, _ = solved(layer, p, A[0], a, r, k)
    z, _ = solved(layer, p, A[0], u * a, u * r, k / u)
    torch.testing.assert_close(z / u, x, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_statuses_and_residuals_are_those_of_the_program_as_it_is(unit: float) -> None:
    """Two discs that meet, or do not; a cost that a cone bounds, or does not; a number that is none."""
    cones = Cones(0, 0, (), (3, 3))
    G = torch.cat([torch.tensor([[0.0, 0.0], [-1.0, 0.0], [0.0, -1.0]], dtype=D)] * 2)
    far = torch.tensor([0.5, 3.0, 0.1, torch.nan], dtype=D)
    h = torch.tensor([1.0, 0, 0, 1, 0, 0], dtype=D).repeat(4, 1).index_put((torch.arange(4), torch.tensor(4)), far)
    P, q = torch.zeros(2, 2, dtype=D), torch.tensor([1.0, 0.3], dtype=D)
    found = Conic().solve(Cone(P, q, G, unit * h), cones, 4)
    assert [Outcome(s).name for s in found.status.tolist()] == ["CONVERGED", "INFEASIBLE", "CONVERGED", "NOT_FINITE"]
    F = optimality(cones, torch.cat([found.x, found.w], -1), P, q, G, unit * h)[[0, 2]].norm(dim=-1)
    torch.testing.assert_close(found.residual[[0, 2]], F, rtol=1e-3, atol=1e-14)
    up = torch.tensor([[-1.0, 0.0], [0.0, -1.0], [0.0, 0.0]], dtype=D)  # x ≥ ‖(y, 1)‖
    costs = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=D)
    found = Conic().solve(Cone(P, costs, up, torch.tensor([0.0, 0.0, unit], dtype=D)), Cones(0, 0, (), (3,)), 2)
    assert [Outcome(s).name for s in found.status.tolist()] == ["CONVERGED", "UNBOUNDED"]
    torch.testing.assert_close(found.x[0], torch.tensor([unit, 0.0], dtype=D), rtol=1e-9, atol=1e-9 * unit)


def test_data_of_size_one_are_left_as_they_are() -> None:
    P, q, A, b = (
        torch.ones(2, 2, dtype=D),
        torch.ones(3, 2, dtype=D),
        torch.ones(4, 2, dtype=D),
        torch.ones(4, dtype=D),
    )
    assert sizes_of(P, 50 * q, A, b / 50) is None
    assert sizes_of(P, 0 * q, A, 0 * b) is None
    sizes = sizes_of(P, 1e6 * q, A, b)
    assert sizes is not None
    assert sizes.measured(P, q, A, b)[0].ndim == 2  # what is shared stays shared
