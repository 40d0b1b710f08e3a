"""Every backward rule by name: exact ones equal the reference, inexact ones equal what they are named after."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp

TANH = """layer Tanh(n):
  given x in R^n
  param W in SpectralBall(n, 0.6)
  find z in R^n such that z = tanh(W z + x)
  using {forward}, backward {backward}
"""


def gradients(backward: str, forward: str = "picard") -> tuple[list[Tensor], nn.Module, Tensor]:
    torch.manual_seed(0)
    layer = imp.compile(TANH.format(forward=forward, backward=backward), n=4).double()
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    layer(x)
    found = torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()])
    return list(found), layer, x


def reference(layer: nn.Module, x: Tensor, steps: int, start: Tensor, damping: float = 1.0) -> list[Tensor]:
    z = start
    for _ in range(steps):
        z = (1 - damping) * z + damping * torch.tanh(z @ layer.W.T + x)
    return list(torch.autograd.grad(z.square().sum(), [x, *layer.parameters()]))


@pytest.mark.parametrize("backward", ["implicit", "gmres(tol=1e-12)", "bicgstab(tol=1e-12)", "neumann(terms=60)"])
@pytest.mark.parametrize("forward", ["picard", "anderson", "newton", "levenberg_marquardt"])
def test_exact_rules(backward: str, forward: str) -> None:
    found, layer, x = gradients(backward, forward)
    for a, b in zip(found, reference(layer, x, 300, torch.zeros_like(x)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "backward, steps, damping",
    [("phantom(steps=3, damping=0.5)", 3, 0.5), ("jfb", 1, 1.0), ("neumann(terms=4)", 4, 1.0)],
)
def test_inexact_rules(backward: str, steps: int, damping: float) -> None:
    found, layer, x = gradients(backward)
    solution = layer(x).detach()
    expected = reference(layer, x, steps, solution, damping)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    exact = reference(layer, x, 300, torch.zeros_like(x))
    assert (found[0] - exact[0]).abs().max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "backward", ["implicit", "gmres", "bicgstab", "neumann(terms=60)", "phantom(steps=3)", "jfb", "unrolled(steps=9)"]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_every_rule_compiles(backward: str) -> None:
    found, layer, x = gradients(backward)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    ours = torch.autograd.grad(compiled(x).square().sum(), [x, *layer.parameters()])
    for a, b in zip(ours, found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


def test_unrolled_differentiates_every_step() -> None:
    found, layer, x = gradients("unrolled(steps=70)")
    for a, b in zip(found, reference(layer, x, 70, torch.zeros_like(x)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    short = imp.compile(TANH.format(forward="picard", backward="unrolled(steps=3)"), n=4).double()
    with pytest.warns(imp.ConvergenceWarning, match="3 of 3"):
        short(x)


@pytest.mark.parametrize("backward", ["phantom", "jfb", "unrolled(steps=60)", "neumann", "gmres", "bicgstab"])
def test_forward_mode_agrees_with_reverse_mode(backward: str) -> None:
    _, layer, x = gradients(backward)
    x = x.detach()[0]
    forward, reverse = torch.func.jacfwd(layer)(x), torch.func.jacrev(layer)(x)
    torch.testing.assert_close(forward, reverse, rtol=1e-6, atol=1e-6)


MONOTONE = """layer MonDeq(n, m):
  given x in R^m
  param W in Monotone(n, 0.1)
        U in R^(n, m)
  find z in R^n such that z = {sigma}(W z + U x)
  using {forward}
"""


@pytest.mark.parametrize("sigma", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("forward", ["peaceman_rachford", "peaceman_rachford(alpha=0.5)", "peaceman_rachford(alpha=2)"])
def test_monotone_equilibria_agree_with_newton(sigma: str, forward: str) -> None:
    torch.manual_seed(0)
    layer = imp.compile(MONOTONE.format(sigma=sigma, forward=forward), n=6, m=3).double()
    other = imp.compile(MONOTONE.format(sigma=sigma, forward="newton"), n=6, m=3).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(3)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    a, b = layer.solve(x), other.solve(x)
    assert a.report.converged.all()
    torch.testing.assert_close(a.value, b.value, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        torch.autograd.grad(a.value.sum(), x)[0], torch.autograd.grad(b.value.sum(), x)[0], rtol=1e-8, atol=1e-9
    )
