"""Twelve ways in which libraries for implicit layers were found to fail, a to l, and what a layer does instead.

As in the reports: float64, n = 8, four samples, z = tanh(W z + x) with ‖W‖₂ = 0.7, where nothing else is said.
"""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp

F64 = torch.float64
N, B = 8, 4
TANH = """layer Tanh(n):
  given x in R^n
  param W in R^(n, n)
  find z in R^n such that z = tanh(W z + x)
"""


def build(using: str = "", scale: float = 0.7) -> nn.Module:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", imp.SpecWarning)
        layer = imp.compile(TANH + using, n=N).double()
    w = torch.randn(N, N, dtype=F64)
    layer.W = scale * w / torch.linalg.matrix_norm(w, 2)
    return layer


def inputs() -> Tensor:
    return torch.randn(B, N, generator=torch.Generator().manual_seed(1), dtype=F64).requires_grad_()


def unrolled(w: Tensor, x: Tensor) -> Tensor:
    z = torch.zeros_like(x)
    for _ in range(300):
        z = torch.tanh(z @ w.mT + x)
    return z


def relative(found: Tensor, right: Tensor) -> float:
    return float((found - right).detach().norm() / right.detach().norm())


@pytest.mark.parametrize("using", ["", "  using picard\n", "  using anderson, backward gmres\n"])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-5, 1e-7, 1e-12, 1e9])
def test_a_gradients_do_not_depend_on_the_scale_of_the_loss(scale: float, using: str) -> None:
    layer, x = build(using), inputs()
    leaves = [x, layer.get_parameter("W")]
    found = torch.autograd.grad(scale * layer(x).square().sum(), leaves)
    right = torch.autograd.grad(unrolled(layer.W, x).square().sum(), leaves)
    for f, r in zip(found, right, strict=True):
        assert relative(f / scale, r) < 1e-9


def test_b_the_default_gradient_is_exact() -> None:
    layer, x = build(), inputs()
    found, right = (torch.autograd.grad(z.sin().sum(), x)[0] for z in (layer(x), unrolled(layer.W, x)))
    assert relative(found, right) < 1e-10


def test_c_second_derivatives_are_exact() -> None:
    layer, x = build(), inputs()
    v = torch.randn(B, N, dtype=F64)

    def product(z: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(z.pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad((gradient * v).sum(), x)[0]

    assert relative(product(layer(x)), product(unrolled(layer.W, x))) < 1e-9


@pytest.mark.parametrize("using", ["", "  using broyden\n", "  using anderson\n", "  using newton\n"])
def test_d_a_repelling_solution_has_its_right_derivative(using: str) -> None:
    text = "layer Cos():\n  given a in R\n  find z in R such that z = cos(a z)\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error", imp.ConvergenceWarning)
        warnings.simplefilter("ignore", imp.SpecWarning)
        a = torch.tensor([2.5], dtype=F64, requires_grad=True)
        solution = imp.compile(text + using).solve(a, start=torch.tensor([0.5], dtype=F64))
        z = solution.value
        (found,) = torch.autograd.grad(z.sum(), a)
    slope = -2.5 * torch.sin(2.5 * z.detach())
    assert float(slope) < -2
    right = -z.detach() * torch.sin(2.5 * z.detach()) / (1 - slope)
    torch.testing.assert_close(found, right, rtol=1e-9, atol=0)


def test_e_evaluation_mode_has_the_same_gradient() -> None:
    layer, x = build(), inputs()
    train, evaluation = (torch.autograd.grad(mode(x).sum(), x)[0] for mode in (layer.train(), layer.eval()))
    assert torch.equal(train, evaluation)
    assert layer.eval()(x).requires_grad


def rotating(using: str) -> nn.Module:
    """Its solution repels: plain iteration runs in circles."""
    layer = build(using)
    layer.W = 3 * torch.block_diag(*[torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=F64)] * (N // 2))
    return layer


def test_f_a_map_that_does_not_converge_is_announced() -> None:
    x, using = 0.1 * inputs().detach(), "  using picard(max_iter=40)"
    with pytest.warns(imp.ConvergenceWarning, match="4 of 4 samples did not converge"):
        report = rotating(using + "\n").solve(x).report
    assert not report.converged.any()
    with pytest.raises(imp.ConvergenceError):
        rotating(using + ", on_failure=raise\n")(x)
    with pytest.warns(imp.ConvergenceWarning):
        assert rotating(using + ", on_failure=nan\n")(x).isnan().all()
    solution = rotating("").solve(x)  # the ladder finds it
    assert solution.report.converged.all()


@pytest.mark.parametrize(
    "using", ["", "  using picard\n", "  using anderson\n", "  using broyden\n", "  using newton\n"]
)
def test_g_a_sample_of_nan_costs_no_iterations_and_spoils_no_gradient(using: str) -> None:
    layer, x = build(using), inputs()
    clean = layer.solve(x)
    spoiled = x.detach().clone()
    spoiled[0] = torch.nan
    spoiled.requires_grad_()
    with pytest.warns(imp.ConvergenceWarning, match="1 of 4"):
        solution = layer.solve(spoiled)
    assert solution.report.converged.tolist() == [False, True, True, True]
    assert int(solution.report.iterations[0]) <= 1
    assert (solution.report.iterations[1:] - clean.report.iterations[1:]).abs().max() <= 1
    (shared,) = torch.autograd.grad(solution.value[1:].sum(), layer.get_parameter("W"))
    (right,) = torch.autograd.grad(unrolled(layer.W, x[1:]).sum(), layer.get_parameter("W"))
    assert relative(shared, right) < 1e-9


def test_h_two_iterations_of_anderson_are_two_iterations() -> None:
    layer, x = build("  using anderson(max_iter=2)\n"), inputs()
    with pytest.warns(imp.ConvergenceWarning, match="4 of 4"):
        solution = layer.solve(x)
    assert solution.report.iterations.tolist() == [2] * B
    exact = unrolled(layer.W, x)
    before, after = exact.norm(dim=-1), (solution.value - exact).norm(dim=-1)  # the start is zero
    assert (after < 0.5 * before).all()


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("using", ["", "  using newton\n", "  using newton_krylov\n", "  using levenberg_marquardt\n"])
def test_i_a_linear_system_is_solved_in_whatever_order_its_equations_stand(order: int, using: str) -> None:
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(6, 6, generator=generator, dtype=F64)
    u, _, v = torch.linalg.svd(a)
    a = u @ torch.diag(torch.logspace(0, math.log10(8.06), 6, dtype=F64)) @ v  # condition 8.06, no contraction
    a = a[torch.randperm(6, generator=generator)] if order else a
    text = "layer L():\n  given A in R^(6, 6), b in R^6\n  find z in R^6 such that A z = b\n"
    b = torch.randn(B, 6, generator=generator, dtype=F64)
    solution = imp.compile(text + using).solve(a, b)
    assert solution.report.converged.all()
    torch.testing.assert_close(solution.value, torch.linalg.solve(a, b.mT).mT, rtol=0, atol=1e-11)
    if not using:
        assert solution.report.solver == "direct"


class Slow(nn.Module):
    """Samples that contract at rates of their own; counts the samples that it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, z: Tensor, rate: Tensor, x: Tensor) -> Tensor:
        self.rows += len(z)
        return rate.unsqueeze(-1) * z + x


def test_j_mixed_rates_take_the_steps_of_each_alone() -> None:
    n, rates = 2048, torch.tensor([0.1, 0.5, 0.9, 0.99], dtype=F64)
    text = """layer Mixed(n):
  given rate in R, x in R^n
  fn f: (R^n, R, R^n) -> R^n
  find z in R^n such that z = f(z, rate, x)
  using picard(tol=1e-6)
"""
    cell = Slow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", imp.SpecWarning)
        layer = imp.compile(text, n=n, f=cell)
    x = torch.randn(4, n, dtype=F64)
    layer(rates, x)  # the first call also probes the cell
    cell.rows = 0
    with torch.no_grad():
        together = layer.solve(rates, x).report
    spent = cell.rows
    alone = [int(layer.solve(rates[k : k + 1], x[k : k + 1]).report.iterations) for k in range(4)]
    assert together.converged.all()
    assert max(abs(i - j) for i, j in zip(together.iterations.tolist(), alone, strict=True)) <= 1
    assert alone[3] > 900
    assert spent < 1.1 * sum(alone)  # four times the slowest where a batch waits for it
    affine = imp.compile("layer A(n):\n  given r in R, x in R^n\n  find z in R^n such that z = r z + x\n", n=n)
    report = affine.solve(rates, x).report
    assert report.solver == "direct"
    assert report.iterations.tolist() == [1] * 4


def test_k_forward_mode_and_hessians_work_and_failure_has_a_signal() -> None:
    layer, x = build(), inputs().detach()
    tangent = torch.randn(B, N, dtype=F64)
    _, found = torch.func.jvp(layer, (x,), (tangent,))
    _, right = torch.func.jvp(lambda x: unrolled(layer.W, x), (x,), (tangent,))
    assert relative(found, right) < 1e-9
    forward_over_reverse = torch.func.hessian(lambda x: layer(x).sin().sum())(x[0])
    expected = torch.func.hessian(lambda x: unrolled(layer.W, x).sin().sum())(x[0])
    assert relative(forward_over_reverse, expected) < 1e-8
    nowhere = imp.compile("layer E():\n  given a in R\n  find z in R such that z = exp(z) + a\n").double()
    a = torch.ones(1, dtype=F64, requires_grad=True)
    with pytest.warns(imp.ConvergenceWarning):
        solution = nowhere.solve(a)
    assert not solution.report.converged.any()


def test_l_a_double_root_has_no_derivative_and_says_so() -> None:
    layer = imp.compile("layer Root():\n  given a in R\n  find y in nonneg such that y^2 = a\n").double()
    a = torch.tensor([0.0, 4.0], dtype=F64, requires_grad=True)
    solution = layer.solve(a)
    torch.testing.assert_close(solution.value, torch.tensor([0.0, 2.0], dtype=F64), rtol=0, atol=1e-6)
    with pytest.warns(imp.ConvergenceWarning, match="IMP802"):
        (gradient,) = torch.autograd.grad(solution.value.sum(), a)
    assert gradient.tolist() == [0.0, 0.25]
    layer = imp.compile("layer Root():\n  given a in R\n  find y in nonneg such that y^2 = a\n  using on_failure=nan\n")
    with pytest.warns(imp.ConvergenceWarning, match="IMP802"):
        (gradient,) = torch.autograd.grad(layer(a).sum(), a)
    assert gradient[0].isnan()
    assert float(gradient[1]) == 0.25
