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


HOMOGENEOUS = """layer Relu(n):
  given x in R^n
  param W in SpectralBall(n, 0.9)
  find z in R^n such that z = relu(W z + x)
  using {}
"""


@pytest.mark.filterwarnings("ignore::implicitdsl.SpecWarning")
@pytest.mark.parametrize("forward", ["picard", "anderson", "newton", "newton_krylov"])
def test_numbers_whose_squares_are_out_of_range(forward: str) -> None:
    torch.manual_seed(0)
    layer = imp.compile(HOMOGENEOUS.format(forward), n=20)
    scale = torch.tensor([[1e-30], [1e-22], [1.0], [1e17], [1e22], [1e34]])
    x = (torch.randn(1, 20) * scale).requires_grad_()
    solution = layer.solve(x)
    assert solution.report.converged.all()
    scaled = solution.value.double() / scale.double()
    torch.testing.assert_close(scaled, scaled[2].expand_as(scaled), rtol=0, atol=2e-5)
    (gradient,) = torch.autograd.grad(solution.value.sum(), x)
    torch.testing.assert_close(gradient, gradient[2].expand_as(gradient), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::implicitdsl.SpecWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_same_compiled() -> None:
    torch.manual_seed(0)
    layer = imp.compile(HOMOGENEOUS.format("picard"), n=20)
    x = torch.randn(1, 20) * torch.tensor([[1e-30], [1.0], [1e22]])
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), layer(x), rtol=1e-5, atol=0)


def test_what_is_out_of_range_itself_is_no_root() -> None:
    layer = imp.compile("layer F():\n  given a in R\n  find z in R such that z = 0.5 sin(z) + a^3\n  using picard\n")
    with pytest.warns(imp.ConvergenceWarning, match="1 of 2"):
        solution = layer.solve(torch.tensor([1.0, 1e20]))
    assert solution.report.converged.tolist() == [True, False]
