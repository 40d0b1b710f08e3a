"""Projections that have a formula: balls of any radius, semidefinite matrices; against the cone solver."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import hessian, vmap

import implicitdsl as imp
from implicitdsl.ground.outcomes import Outcome

D = torch.float64

BALL = """layer Ball(n):
  given y in R^n, r in positive, p in positive
  argmin_{x in R^n} p ||x - y||^2 - 2 sum(x) subject to inside: ||x|| <= r
  USING
  return x, dual(inside)
"""
DEFINITE = "layer Cone(n):\n  given Y in R^(n, n)\n  argmin_{X in PSD(n)} 0.5 ||X - Y||_F^2\n  USING\n"


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def test_a_ball_against_the_cone_solver() -> None:
    y, r, p = normal(5, 4), normal(5, seed=1).abs() + 0.5, normal(5, seed=2).abs() + 0.1
    r[1] = 20.0
    found = imp.compile(BALL.replace("  USING\n", "")).solve(y, r, p)
    assert found.report.solver == "projection"
    for mine, known in zip(found.value, imp.compile(BALL.replace("USING", "using conic"))(y, r, p), strict=True):
        torch.testing.assert_close(mine, known, rtol=1e-9, atol=1e-10)


def test_a_ball_has_derivatives_of_every_order() -> None:
    layer = imp.compile(BALL.replace("  USING\n", ""))
    data = tuple(t.requires_grad_() for t in (normal(2, 3), normal(2, seed=1).abs(), normal(2, seed=2).abs()))
    assert torch.autograd.gradcheck(lambda *data: tuple(layer(*data)), data)
    assert torch.autograd.gradgradcheck(lambda *data: layer(*data)[0], data)
    middle = imp.compile("argmin_{x in ball(n, 2)} ||x - y||^2")
    assert torch.equal(middle(torch.zeros(1, 3, dtype=D)), torch.zeros(1, 3, dtype=D))
    bent = vmap(hessian(lambda y: middle(y).pow(3).sum()))(3 * normal(4, 3))
    assert bool(bent.isfinite().all())


def test_semidefinite_matrices() -> None:
    Y = normal(3, 4, 4).requires_grad_()
    layer = imp.compile(DEFINITE.replace("  USING\n", ""))
    found = layer.solve(Y)
    assert found.report.solver == "projection"
    values, V = torch.linalg.eigh((Y.detach() + Y.detach().mT) / 2)
    torch.testing.assert_close(found.value.detach(), (V * values.clamp(min=0).unsqueeze(-2)) @ V.mT, atol=1e-13, rtol=0)
    assert torch.autograd.gradcheck(layer, (Y,))


def test_samples_without_solution_are_marked_alone() -> None:
    layer = imp.compile("layer L(n):\n  given y in R^n, r in R\n  argmin_{x in R^n} ||x - y||^2 subject to ||x|| <= r")
    y, r = normal(3, 2).requires_grad_(), torch.tensor([1.0, -1.0, 0.5], dtype=D)
    with torch.no_grad():
        y[2, 0] = torch.nan
    with pytest.warns(imp.ConvergenceWarning, match="2 of 3"):
        found = layer.solve(y, r)
    assert found.report.status.tolist()[1:] == [int(Outcome.INFEASIBLE), int(Outcome.NOT_FINITE)]
    assert found.report.residual.isnan().tolist() == [False, False, True]
    (slope,) = torch.autograd.grad(found.value[0].sum(), y)
    assert bool(slope.isfinite().all())


def test_a_bound_beside_the_ball_is_no_formula() -> None:
    text = "layer L(n):\n  given y in R^n\n  argmin_{x in R^n} ||x - y||^2 subject to ||x|| <= 1, x >= 0"
    assert imp.compile(text).solve(normal(2, 3)).report.solver == "conic"


def test_a_point_on_the_sphere_is_weakly_active() -> None:
    layer = imp.compile("layer L(n):\n  given y in R^n\n  argmin_{z in ball(n, 1)} ||z - y||^2")
    y = torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.0, 2.0]], dtype=torch.float64)
    assert layer.solve(y[:1]).report.message.startswith("1 sample has weakly active constraints")
    assert not layer.solve(y[1:]).report.message


def test_an_eigenvalue_zero_is_weakly_active() -> None:
    layer = imp.compile("layer L(n):\n  given C in Sym(n)\n  argmin_{X in PSD(n)} ||X - C||_F^2")
    C = torch.diag_embed(torch.tensor([[1.0, 0.0], [1.0, -1.0], [2.0, 1.0]], dtype=torch.float64))
    assert layer.solve(C).report.message.startswith("1 sample has weakly active constraints")
    assert not layer.solve(C[1:]).report.message
