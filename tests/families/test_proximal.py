"""Proximal operators with a step, against their definition."""

from __future__ import annotations

import warnings

import pytest
import torch

import implicitdsl as imp
from implicitdsl.families.equilibrium.proximal import stepped


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 3.0])
def test_tanh_solves_its_optimality_condition(alpha: float) -> None:
    u = torch.linspace(-0.9, 0.9, 41, dtype=torch.float64)
    p = stepped("tanh", torch.tanh)(u, alpha)
    slope = torch.atanh(p) - p  # ∇f of the f whose prox is tanh
    torch.testing.assert_close(p + alpha * slope, u, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 7.0])
def test_relu_is_its_own_for_every_step(alpha: float) -> None:
    u = torch.linspace(-3, 3, 13, dtype=torch.float64)
    assert torch.equal(stepped("relu", torch.relu)(u, alpha), torch.relu(u))
    leaky = lambda x: torch.where(x > 0, x, 0.5 * x)
    p = stepped("leaky", leaky)(u, alpha)
    expected = torch.where(u > 0, u, u / (1 + alpha))  # f = x²/2 for x < 0
    torch.testing.assert_close(p, expected, rtol=1e-12, atol=1e-12)


SPEC = """layer Mon(n):
  given x in R^n
  param W in Monotone(n, 0.2)
  find z in R^n such that z = {activation}(W z + x)
  using {method}
"""


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_splitting_solves_monotone_layers(activation: str, alpha: float) -> None:
    text = SPEC.format(activation=activation, method=f"peaceman_rachford(alpha={alpha})")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", imp.SpecWarning)  # relu has a kink
        layer = imp.compile(text, n=6).double()
    torch.manual_seed(0)
    A, B = torch.randn(2, 6, 6, dtype=torch.float64)
    layer.W = 0.75 * torch.eye(6, dtype=torch.float64) - A.T @ A / 6 + B - B.T  # I - W ⪰ 0.25 I
    x = torch.randn(5, 6, dtype=torch.float64)
    solution = layer.solve(x)
    assert solution.report.converged.all()
    z = solution.value
    torch.testing.assert_close(z, getattr(torch, activation)(z @ layer.W.T + x), rtol=0, atol=1e-10)
    assert torch.linalg.matrix_norm(layer.W, 2) > 1  # where plain iteration is not a contraction


def test_splitting_is_what_a_monotone_set_gets() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", imp.SpecWarning)
        layer = imp.compile(SPEC.format(activation="relu", method="on_failure=raise"), n=4).double()
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert "peaceman_rachford" in str(layer.solve(x).report)
    assert torch.autograd.gradcheck(layer, (x,))


def test_splitting_refuses_other_equations() -> None:
    text = "layer L(n):\n  given x in R^n\n  find z in R^n such that z = 0.3 sin(z) + x\n  using peaceman_rachford"
    with pytest.warns(imp.SpecWarning, match="strongly monotone"):
        layer = imp.compile(text, n=3)
    with pytest.raises(ValueError, match="needs an equation z = σ"):
        layer(torch.randn(2, 3))
