"""The units in which an equation and its unknown are measured do not decide when it is solved."""

from __future__ import annotations

import pytest
import torch

import implicitdsl as imp

CUBIC = """layer Cubic():
  given s in R
  find z in R such that z^3 + s^2 z + s^3 = 0
  {}
"""
COUPLED = """layer Coupled(n):
  given A in R^(n, n), s in R
  find z in R^n such that z^3 + s^2 (A z) + s^3 ones(n) = 0
  {}
"""
NEWTONS = ["", "using newton", "using chord", "using levenberg_marquardt"]


@pytest.mark.parametrize("using", NEWTONS)
@pytest.mark.parametrize("dtype, power", [(torch.float32, 4), (torch.float64, 30)])
def test_a_cubic_in_any_units(using: str, dtype: torch.dtype, power: int) -> None:
    layer = imp.compile(CUBIC.format(using))
    s = torch.tensor([10.0**k for k in range(-power, power + 1, power // 4)], dtype=dtype, requires_grad=True)
    solution = layer.solve(s)
    assert solution.report.converged.all()
    root = -0.6823278038280193  # of z³ + z + 1; z is proportional to s
    tol = 1e-5 if dtype is torch.float32 else 1e-11
    torch.testing.assert_close(solution.value / s, torch.full_like(s, root), rtol=tol, atol=0)
    (slope,) = torch.autograd.grad(solution.value.sum(), s)
    torch.testing.assert_close(slope, torch.full_like(s, root), rtol=5 * tol, atol=0)


@pytest.mark.parametrize("using", NEWTONS)
def test_coupled_equations_in_any_units(using: str) -> None:
    layer = imp.compile(COUPLED.format(using), n=3)
    A = torch.eye(3, dtype=torch.float64) + 0.2 * torch.ones(3, 3, dtype=torch.float64)
    s = torch.tensor([10.0**k for k in (-20, -8, -3, 0, 3, 8, 20)], dtype=torch.float64)
    solution = layer.solve(A, s)
    assert solution.report.converged.all()
    scaled = solution.value / s.unsqueeze(1)
    torch.testing.assert_close(scaled, scaled[3].expand_as(scaled), rtol=1e-11, atol=0)


def test_roots_at_zero_and_multiple_ones_are_still_found() -> None:
    layer = imp.compile("layer P():\n  given a in R\n  find z in R such that z^3 + z = a\n  using newton, start 1\n")
    value = layer(torch.tensor([0.0, 1e-300, 2.0], dtype=torch.float64))
    torch.testing.assert_close(value, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), rtol=1e-12, atol=1e-30)
