"""Root solvers asked for by name, from text to gradients: against closed forms and unrolled references."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp

F64 = torch.float64
GENERAL = [
    "picard",
    "anderson",
    "newton",
    "chord",
    "newton_krylov",
    "broyden",
    "broyden(memory=6)",
    "levenberg_marquardt",
    "peaceman_rachford",
]

pytestmark = pytest.mark.filterwarnings("error::implicitdsl.ConvergenceWarning")


def tanh(solver: str, n: int = 4, ball: float = 0.8) -> nn.Module:
    torch.manual_seed(0)
    text = f"""layer Tanh(n):
  given x in R^n
  param W in SpectralBall(n, {ball})
  find z in R^n such that z = tanh(W z + x)
  using {solver}
"""
    return imp.compile(text, n=n).double()


def unrolled(layer: nn.Module, x: Tensor) -> Tensor:
    z = torch.zeros_like(x)
    for _ in range(300):
        z = torch.tanh(z @ layer.W.T + x)
    return z


def samples(batch: int, n: int) -> Tensor:
    return torch.randn(batch, n, dtype=F64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("solver", GENERAL)
def test_a_tanh_equilibrium_and_its_gradients(solver: str) -> None:
    layer, x = tanh(solver), samples(5, 4).requires_grad_()
    solution = layer.solve(x)
    assert solution.report.solver == solver.split("(")[0]
    assert solution.report.converged.all()
    leaves = [x, *layer.parameters()]
    ours, theirs = layer(x), unrolled(layer, x)
    assert (ours - theirs).abs().max() < 1e-11
    found = torch.autograd.grad(ours.square().sum(), leaves)
    for a, b in zip(found, torch.autograd.grad(theirs.square().sum(), leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("solver", GENERAL)
def test_second_derivatives(solver: str) -> None:
    layer, x = tanh(solver, 3), samples(2, 3).requires_grad_()
    assert torch.autograd.gradgradcheck(layer, [x], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("solver", GENERAL)
def test_float32(solver: str) -> None:
    layer, x = tanh(solver), samples(5, 4)
    exact = unrolled(layer, x)
    assert (layer.float()(x.float()) - exact).abs().max() < 5e-6


@pytest.mark.slow
@pytest.mark.parametrize("solver", GENERAL)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_compiled(solver: str) -> None:
    layer, x = tanh(solver), samples(5, 4).requires_grad_()
    torch.compiler.reset()
    ours, theirs = torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x)
    assert (ours - theirs).abs().max() < 1e-10
    (a,), (b,) = torch.autograd.grad(ours.square().sum(), x), torch.autograd.grad(theirs.square().sum(), x)
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("solver", ["newton", "chord", "newton_krylov", "broyden", "levenberg_marquardt", "direct"])
def test_affine_equations_that_iteration_runs_away_from(solver: str) -> None:
    text = f"""layer Affine(n):
  given x in R^n
  param W in R^(n, n)
  find z in R^n such that z = W z + x
  using {solver}
"""
    layer = imp.compile(text, n=6).double()
    with torch.no_grad():
        layer.W.copy_(3 * samples(6, 6))
    assert torch.linalg.eigvals(layer.W).abs().max() > 2
    x = samples(4, 6).requires_grad_()
    inverse = torch.linalg.inv(torch.eye(6, dtype=F64) - layer.W)
    ours, theirs = layer(x), x @ inverse.T
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    leaves = [x, layer.W]
    found = torch.autograd.grad(ours.square().sum(), leaves)
    for a, b in zip(found, torch.autograd.grad(theirs.square().sum(), leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def root(set_: str, equation: str = "z^2 = a", policy: str = "warn", shape: str = "R") -> nn.Module:
    text = f"""layer Root():
  given a in {shape}
  find z in {set_} such that {equation}
  using bisection, on_failure={policy}
"""
    return imp.compile(text).double()


@pytest.mark.parametrize("set_, sign", [("[0, 2]", 1), ("[-2, 0]", -1), ("(0, 2)", 1), ("positive", 1), ("nonneg", 1)])
def test_bisection_finds_the_root_of_the_set(set_: str, sign: int) -> None:
    a = torch.tensor([0.25, 1.0, 2.0, 3.9], dtype=F64, requires_grad=True)
    z = root(set_)(a)
    torch.testing.assert_close(z, sign * a.sqrt(), rtol=1e-11, atol=0)
    (first,) = torch.autograd.grad(z.sum(), a, create_graph=True)
    torch.testing.assert_close(first, sign / (2 * a.sqrt()), rtol=1e-10, atol=0)
    (second,) = torch.autograd.grad(first.sum(), a)
    torch.testing.assert_close(second, -sign / (4 * a**1.5), rtol=1e-9, atol=0)


def test_bisection_entry_by_entry() -> None:
    layer = root("[-4, 4]^3", "z^3 + z = a", shape="R^3")
    a = samples(5, 3).requires_grad_()
    z = layer(a)
    torch.testing.assert_close(z**3 + z, a, rtol=0, atol=1e-11)
    (gradient,) = torch.autograd.grad(z.sum(), a)
    torch.testing.assert_close(gradient, 1 / (3 * z**2 + 1), rtol=1e-10, atol=0)


def test_a_wrong_bracket_is_a_failure() -> None:
    a = torch.tensor([1.0, 5.0, -1.0], dtype=F64)
    with pytest.warns(imp.ConvergenceWarning, match=r"2 of 3 samples.*same sign at both ends"):
        z = root("[0, 2]")(a)
    assert z[0].item() == pytest.approx(1.0)
    with pytest.raises(imp.ConvergenceError, match="same sign"):
        root("[0, 2]", policy="raise")(a)


def test_least_squares_by_levenberg_marquardt() -> None:
    layer = imp.compile(
        """layer Decay():
  given t in R^3, y in R^3
  find a in R, k in R such that
    a exp(-k t[0]) = y[0]
    a exp(-k t[1]) = y[1]
    a exp(-k t[2]) = y[2]
  using levenberg_marquardt, start 1
"""
    ).double()
    t = torch.tensor([[0.0, 0.5, 1.5]], dtype=F64).expand(2, 3)
    y = (torch.tensor([[2.0], [0.7]], dtype=F64) * torch.exp(-torch.tensor([[0.8], [1.7]], dtype=F64) * t)).clone()
    noisy = (y + torch.tensor([[0.01, -0.02, 0.01]], dtype=F64)).requires_grad_()
    amplitude, rate = layer(t, y)
    torch.testing.assert_close(amplitude, torch.tensor([2.0, 0.7], dtype=F64), rtol=1e-9, atol=0)
    torch.testing.assert_close(rate, torch.tensor([0.8, 1.7], dtype=F64), rtol=1e-9, atol=0)
    assert torch.autograd.gradcheck(lambda y: layer(t, y), [noisy], atol=1e-6, rtol=1e-5)
