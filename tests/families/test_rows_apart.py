"""Rows, bounds and samples of very different sizes: one says nothing about another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import implicitdsl as imp
from implicitdsl.ground.outcomes import Outcome

D = torch.float64
QP = """layer L(n, m):
  given Q in PSD(n), q in R^n, G in R^(m, n), h in R^m
  argmin_{z in R^n} 1/2 z^T Q z + q^T z subject to c: G z <= h
  return z, dual(c)
"""
LP = """layer L(n, m):
  given q in R^n, G in R^(m, n), h in R^m
  argmin_{z in R^n} q^T z subject to G z <= h, -1 <= z <= 1 using ipm
"""


def quadratic() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    Q = torch.tensor([[4.39, -1.46], [-1.46, 0.79]], dtype=D)
    G = torch.tensor([[0.33, -1.01], [-0.87, 1.06], [3.16, -2.71], [-0.62, 1.97]], dtype=D)
    return Q, torch.tensor([-0.5, 1.73], dtype=D), G, torch.tensor([-0.88, 0.43, -0.04, 1e3], dtype=D)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("singular", [False, True])
def test_a_large_number_for_no_bound_excuses_no_other_row(batched: bool, singular: bool) -> None:
    """The last row never binds: with 1e3 or 1e20 on its right the solution is the same, to rounding."""
    Q, q, G, h = quadratic()
    if singular:
        Q = torch.zeros_like(Q)
        q = -(G[0] + G[2])  # the vertex of these two rows
    layer = imp.compile(QP)
    expected = layer(Q, q, G, h)
    for large in (1e6, 1e9, 1e12, 1e16, 1e20):
        far = torch.cat([h[:3], h.new_tensor([large])])
        given = (t.expand(3, *t.shape) for t in (Q, q, G, far)) if batched else (Q, q, G, far)
        sol = layer.solve(*given)
        assert sol.report.converged.all()
        for found, right in zip(sol.value, expected, strict=True):
            torch.testing.assert_close(found, right.expand_as(found), rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore::implicitdsl.SpecWarning")
@pytest.mark.parametrize("large", [1e5, 1e7, 1e10, 1e12])
def test_a_linear_program_with_a_large_number_for_no_bound(large: float) -> None:
    q, G = torch.tensor([-0.7, -1.31], dtype=D), torch.tensor([[0.13, 1.27], [-0.87, 0.36]], dtype=D)
    layer = imp.compile(LP)
    sol = layer.solve(q, G, q.new_tensor([-0.87, large]))
    assert sol.report.converged
    torch.testing.assert_close(sol.value, q.new_tensor([1.0, -1 / 1.27]), rtol=1e-10, atol=1e-10)
    with pytest.warns(imp.ConvergenceWarning):
        lost = layer.solve(q, torch.eye(2, dtype=D), q.new_tensor([-2.0, large]))  # z[0] <= -2 against -1 <= z
    assert lost.report.status == Outcome.INFEASIBLE


@pytest.mark.parametrize("relation", ["=", "<="])
@pytest.mark.parametrize("flat", [False, True])
def test_rows_in_units_apart_have_the_same_solutions_and_derivatives(relation: str, flat: bool) -> None:
    """A row times s, right side and all, changes nothing but its multiplier; in every order."""
    layer = imp.compile(QP.replace("<=", relation))
    Q = torch.diag(torch.tensor([1.0, 1.0, 0.0 if flat else 1.0], dtype=D))
    q = torch.tensor([-2.0, -3.0, -4.0], dtype=D, requires_grad=True)
    A, b = torch.tensor([[1.0, 0.5, 0.0], [1.0, -1.0, 1.0]], dtype=D), torch.ones(2, dtype=D)

    def found(s: Tensor) -> list[Tensor]:
        right = (s * b).requires_grad_()
        z, y = layer(Q, q, s.unsqueeze(-1) * A, right)
        first = torch.autograd.grad(z.square().sum() + (y * s).sum(), (q, right), create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), (q, right), allow_unused=True)
        units = (torch.ones_like(q), s)
        derivatives = [t * u for g in (first, second) for t, u in zip(g, units, strict=True) if t is not None]
        return [t.detach() for t in (z, y * s, *derivatives)]

    expected = found(torch.ones(2, dtype=D))
    for s in (1e2, 1e4, 1e6):
        for one, other in zip(found(torch.tensor([s, 1 / s], dtype=D)), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_sample_beside_a_bad_one_keeps_its_gradient() -> None:
    """Rows 1e3 and 1e-3: beside an infeasible sample, one without minimum and one that is NaN."""
    layer = imp.compile(QP)
    Q, q = torch.eye(2, dtype=D).repeat(4, 1, 1), torch.tensor([-2.0, -3.0], dtype=D).repeat(4, 1)
    G, h = torch.tensor([[[1e3, 5e2], [0, 1e-3]]], dtype=D).repeat(4, 1, 1), torch.tensor([1e3, 1e-3], dtype=D)
    h = h.repeat(4, 1)
    G[1], h[1] = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), -1.0
    Q[2] = torch.diag(torch.tensor([1.0, 0.0]))
    Q[3] = torch.nan
    grads = []
    for rows in ([0], [0, 1, 2, 3]):
        given = [t[rows].clone().requires_grad_() for t in (Q, q, G, h)]
        z, y = layer.solve(*given).value if len(rows) == 1 else _quietly(layer, given)
        grads.append([g[0] for g in torch.autograd.grad(z[0].sum() + 1e-3 * y[0].sum(), given)])
    for alone, beside in zip(*grads, strict=True):
        torch.testing.assert_close(beside, alone, rtol=1e-9, atol=1e-12)


def _quietly(layer: imp.Layer, given: list[Tensor]) -> tuple[Tensor, Tensor]:
    with pytest.warns(imp.ConvergenceWarning):
        return layer(*given)


def test_a_long_minimiser_is_no_ray() -> None:
    """Q z = -q with Q so small that z is 1e8: as its curvature says, there is a minimum."""
    layer = imp.compile(QP)
    Q = torch.stack([1e-8 * torch.eye(2, dtype=D), torch.diag(torch.tensor([1.0, 0.0], dtype=D))])
    q, G = torch.tensor([[1.0, 2.0], [0.0, 0.0]], dtype=D), torch.eye(2, dtype=D).expand(2, 2, 2)
    sol = layer.solve(Q, q, G, torch.ones(2, 2, dtype=D))
    assert sol.report.converged.all()
    torch.testing.assert_close(sol.value[0][0], q.new_tensor([-1e8, -2e8]), rtol=1e-9, atol=0.0)


@pytest.mark.parametrize(
    "objective, far",
    [("q^T z", "row"), ("||z + q||^2", "row"), ("||z + q||", "row"), ("||z + q||^2", "ball"), ("||z + q||", "ball")],
)
def test_a_cone_program_with_a_large_number_for_no_bound(objective: str, far: str) -> None:
    """Of a row, or as the radius of a ball: the same solution and derivatives as with a smaller one, that is idle too;
    beside a sample where it binds, after all."""
    layer = imp.compile(f"""layer L(n, m):
      given q in R^n, G in R^(m, n), h in R^m, r in R
      argmin_{{z in R^n}} {objective} subject to G z <= h, ||z - q|| <= r
    """)
    q, G = torch.tensor([0.3, -1.0, 0.5], dtype=D), torch.tensor([[1.0, 1, 0], [-0.5, 0.2, 1], [1, 0, -1]], dtype=D)
    h = torch.tensor([-0.2, 0.1, 1.0], dtype=D)

    def solved(number: float) -> tuple[Tensor, Tensor]:
        p = q.clone().requires_grad_()
        row, r = torch.cat([h[:2], h.new_tensor([number if far == "row" else 1.0])]), 2.0 if far == "row" else number
        sol = layer.solve(torch.stack([p, p]), G, torch.stack([row, h]), q.new_tensor([r, 2.0]))
        assert sol.report.converged.all()
        return sol.value.detach(), torch.autograd.grad(sol.value[0].sum(), p)[0]

    expected = solved(1e2)
    for number in (1e5, 1e7, 1e9, 1e12, 1e16, 1e20):
        for one, other in zip(solved(number), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
